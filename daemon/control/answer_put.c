/*
 * answer_put.c: the values of an answer.
 */
#include "daemon/control/answer_put.h"

#include <stdio.h>
#include <time.h>

void put_json(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value);
}

void put_text(json_t *object, const char *key, const char *text)
{
	char plain[SET_TEXT_MAX + SET_WHY_BYTES];
	json_t *value = json_string(text);
	if (!value) {
		size_t n = 0;
		for (; text[n] && n + 1 < sizeof(plain); n++)
			plain[n] = (unsigned char)text[n] < 0x80 ? text[n] : '?';
		plain[n] = '\0';
		value = json_string(plain);
	}
	put_json(object, key, value);
}

void put_number(json_t *object, const char *key, uint64_t n)
{
	put_json(object, key, json_integer((json_int_t)n));
}

void put_number_if(json_t *object, const char *key, bool is_known, uint64_t n)
{
	put_json(object, key, is_known ? json_integer((json_int_t)n) : json_null());
}

void put_bool(json_t *object, const char *key, bool is_true)
{
	put_json(object, key, json_boolean(is_true));
}

void put_uuid(json_t *object, const char *key, const struct uuid *u)
{
	char text[UUID_TEXT_BYTES];
	uuid_to_text(u, text);
	put_text(object, key, text);
}

void answer_time(uint64_t wall_ns, char text[static ANSWER_TIME_BYTES])
{
	time_t seconds = (time_t)(wall_ns / NS_PER_S);
	struct tm utc;
	gmtime_r(&seconds, &utc);
	size_t n = strftime(text, ANSWER_TIME_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
	quarry_assert(n > 0);
	snprintf(text + n, ANSWER_TIME_BYTES - n, ".%03uZ", (unsigned)(wall_ns / NS_PER_MS % 1000));
}

void put_time(json_t *object, const char *key, uint64_t wall_ns)
{
	char text[ANSWER_TIME_BYTES];
	if (wall_ns == 0) {
		put_json(object, key, json_null());
		return;
	}
	answer_time(wall_ns, text);
	put_text(object, key, text);
}
