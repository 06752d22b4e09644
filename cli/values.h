/*
 * values.h: short ways to take JSON objects apart and to put them together.
 */
#pragma once

#include "cli/cli.h"

/* The text of a key; "" when it is not there or no text. Lives as long as the object. */
const char *text_at(const json_t *object, const char *key);
/* The number of a key; 0 when it is not there or negative. */
uint64_t number_at(const json_t *object, const char *key);
bool bool_at(const json_t *object, const char *key);
/* What an object of this name is called: "volume" or, of "NAME@SNAP", "snapshot". */
const char *object_noun(const char *name);
/* Was what the command asks for there already, or gone already? The daemon says so of what it answers with success. */
bool is_unchanged(const json_t *answer);
/* "12288 bytes: 0+4096, 1048576+4096 and 1 more": how many bytes in n ranges, of which the first are members of the array,
 * {"offset_bytes": ..., "length_bytes": ...}; to be freed. */
char *ranges_text(uint64_t n_bytes, uint64_t n, const json_t *ranges);

/* Take the option or argument `name` of the command line, when it was given, as `key` of a request's body. */
void body_text(const struct cli *c, json_t *body, const char *key, const char *name);
void body_number(const struct cli *c, json_t *body, const char *key, const char *name);
void body_flag(const struct cli *c, json_t *body, const char *key, const char *name);
