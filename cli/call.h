/*
 * call.h: one command line, understood: which command, which words.
 */
#pragma once

#include "cli/command.h"

struct call;

/* Reads the command line against the table. DONE, or WRONG_USAGE with the reason in c->failure. c->call and c->is_json are set
 * in any case. */
must_check enum status call_parse(struct cli *c, int argc, char *const *argv);
void call_destroy(struct call *call);

/* NULL: no command was named (possible with --help or --version only). */
const struct command *call_command(const struct call *call);
/* The noun when --help stands behind a noun without a verb; else NULL. */
const char *call_noun(const struct call *call);

/* By the name in the table: "NAME" is an argument, "size" an option. Asking for what the command does not have is a
 * mistake of the programmer. */
bool call_has(const struct call *call, const char *name);
const char *call_text(const struct call *call, const char *name); /* NULL: not given */
uint64_t call_number(const struct call *call, const char *name);  /* a size or number; 0: not given */

/* The word that a key of the API stands for, if it was given: "--size" or "SIZE" for "size_bytes"; to be freed. *text is
 * its value. */
char *call_word_of(const struct call *call, const char *key, const char **text);

/* The words of an argument that may stand any number of times. */
size_t call_n_more(const struct call *call);
const char *call_more(const struct call *call, size_t i);

/* The rule for names of volumes, pools and disks, as the API has it. */
bool name_is_valid(const char *name);
