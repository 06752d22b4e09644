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
/* Was what the command asks for there already, or gone already? The daemon says so of what it answers with success. */
bool is_unchanged(const json_t *answer);

/* Take the option or argument `name` of the command line, when it was given, as `key` of a request's body. */
void body_text(const struct cli *c, json_t *body, const char *key, const char *name);
void body_number(const struct cli *c, json_t *body, const char *key, const char *name);
void body_flag(const struct cli *c, json_t *body, const char *key, const char *name);
