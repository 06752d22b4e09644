/*
 * table.h: aligned columns with headers, for people; programs use --json.
 */
#pragma once

#include "cli/cli.h"

#include <stdio.h>

struct table;

/* Headers as one word each; a header that begins with '>' stands for a column of numbers, aligned to the right. */
struct table *table_create(const char *const *headers, size_t n_columns);
void table_destroy(struct table *t);
static inline void table_free(struct table **t)
{
	table_destroy(*t);
}
#define auto_table __attribute__((cleanup(table_free)))

/* Cells fill rows from left to right; NULL prints as "-". */
void table_text(struct table *t, const char *cell);
void table_size(struct table *t, const json_t *bytes); /* not an integer: "-" */
void table_number(struct table *t, const json_t *number);
void table_print(const struct table *t, FILE *out);

/* "name: value" lines for the show commands, aligned. */
void field_text(FILE *out, const char *name, const char *value);
void field_size(FILE *out, const char *name, const json_t *bytes);
