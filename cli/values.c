/*
 * values.c: short ways to take JSON objects apart and to put them together.
 */
#include "cli/values.h"

#include "cli/call.h"
#include "cli/text.h"

#include <string.h>

#define RANGES_SHOWN 4u /* as many as the daemon names */

const char *text_at(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

uint64_t number_at(const json_t *object, const char *key)
{
	json_int_t number = json_integer_value(json_object_get(object, key));
	return number < 0 ? 0 : (uint64_t)number;
}

bool bool_at(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

const char *object_noun(const char *name)
{
	return strchr(name, '@') ? "snapshot" : "volume";
}

bool is_unchanged(const json_t *answer)
{
	return bool_at(answer, "unchanged");
}

char *ranges_text(uint64_t n_bytes, uint64_t n, const json_t *ranges)
{
	size_t n_shown = 0, n_known = json_array_size(ranges);
	char *text = text_format("%llu bytes:", (unsigned long long)n_bytes);
	for (; n_shown < n_known && n_shown < RANGES_SHOWN; n_shown++) {
		const json_t *range = json_array_get(ranges, n_shown);
		char *longer = text_format("%s%s %llu+%llu", text, n_shown ? "," : "",
					   (unsigned long long)number_at(range, "offset_bytes"),
					   (unsigned long long)number_at(range, "length_bytes"));
		free(text);
		text = longer;
	}
	if (n <= n_shown)
		return text;
	char *longer = text_format("%s and %llu more", text, (unsigned long long)(n - n_shown));
	free(text);
	return longer;
}

static void body_put(json_t *body, const char *key, json_t *value)
{
	/* A text that is no UTF-8 becomes no JSON: the daemon will say that the key is missing or empty. */
	if (!value)
		value = json_string("");
	if (json_object_set_new(body, key, value) < 0)
		abort();
}

void body_text(const struct cli *c, json_t *body, const char *key, const char *name)
{
	if (call_has(c->call, name))
		body_put(body, key, json_string(call_text(c->call, name)));
}

void body_number(const struct cli *c, json_t *body, const char *key, const char *name)
{
	if (call_has(c->call, name))
		body_put(body, key, json_integer((json_int_t)call_number(c->call, name)));
}

void body_flag(const struct cli *c, json_t *body, const char *key, const char *name)
{
	if (call_has(c->call, name))
		body_put(body, key, json_true());
}
