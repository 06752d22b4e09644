/*
 * text.h: small work on words: the nearest known one, and what may be shown on a terminal.
 */
#pragma once

#include "cli/cli.h"

/* How many single letters must be added, removed, changed or swapped to make one word of the other. */
unsigned text_distance(const char *a, const char *b);

/* Finds the known word nearest to what was typed. */
struct nearest {
	const char *typed;
	const char *word; /* the nearest so far; NULL: none is near */
	unsigned distance;
};
void nearest_begin(struct nearest *n, const char *typed);
void nearest_offer(struct nearest *n, const char *word);

/* A copy to be freed in which every control character, also of terminals that know the C1 set, and every byte that is
 * not UTF-8 is '?': names and messages come from outside and must not move the cursor or fake a line. */
char *text_printable(const char *text);
/* Columns a printable UTF-8 text takes: its code points. */
size_t text_width(const char *text);
/* As asprintf(), but never fails: without memory the process ends. */
char *text_format(const char *format, ...) printf_like(1, 2);
