/*
 * answer_put.h: the values of an answer, one key each.
 */
#pragma once

#include "daemon/control/answer.h"

#include <jansson.h>

void put_json(json_t *object, const char *key, json_t *value); /* the value is taken over */
/* A text that was cut inside a character is shown with question marks, not left out. */
void put_text(json_t *object, const char *key, const char *text);
void put_number(json_t *object, const char *key, uint64_t n);
void put_number_if(json_t *object, const char *key, bool is_known, uint64_t n); /* else null */
void put_bool(json_t *object, const char *key, bool is_true);
void put_uuid(json_t *object, const char *key, const struct uuid *u);
void put_time(json_t *object, const char *key,
	      uint64_t wall_ns); /* null for zero: it has not happened, or is not known */
