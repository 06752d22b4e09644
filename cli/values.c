/*
 * values.c: short ways to take JSON objects apart and to put them together.
 */
#include "cli/values.h"

#include "cli/call.h"

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

bool is_unchanged(const json_t *answer)
{
	return bool_at(answer, "unchanged");
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
