/*
 * order_body.c: reads the JSON body of a command into a struct set_command, by a table of keys.
 *
 * Invariants
 *  1. A key that is not in the table is refused by its name; so is one that is there twice.
 *  2. A value reaches the command only after its type, range and length were checked.
 *  3. Messages name the key and what it must be, and quote nothing of the body but key names, cut and made printable.
 */
#include "daemon/control/order_body.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

bool order_name_is_valid(const char *name)
{
	size_t len = strlen(name);
	if (len == 0 || len > VOLUME_NAME_MAX || !isalnum((unsigned char)name[0]))
		return false;
	for (const char *c = name; *c; c++) {
		if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
			return false;
	}
	return true;
}

static int body_refuse(struct refusal *why, const char *key, const char *must)
{
	order_refuse(why, 400, "invalid", "%s: %s", key, must);
	return -EINVAL;
}

static int body_text(const struct body_key *k, const json_t *value, char *to, struct refusal *why)
{
	const char *text = json_string_value(value);
	size_t len = text ? json_string_length(value) : 0;
	if (len == 0)
		return body_refuse(why, k->name, "must be a text that is not empty");
	if (len >= k->size) {
		order_refuse(why, 400, "invalid", "%s: has %zu bytes, at most %zu fit", k->name, len, k->size - 1);
		return -EINVAL;
	}
	for (size_t i = 0; i < len; i++) {
		if (iscntrl((unsigned char)text[i]))
			return body_refuse(why, k->name, "has a control character");
	}
	if (k->kind == BODY_NAME && !order_name_is_valid(text))
		return body_refuse(
		    why, k->name,
		    "must be of letters, digits, '.', '_' and '-', begin with a letter or digit and have at "
		    "most 63 characters");
	memcpy(to, text, len + 1);
	return 0;
}

static int body_size(const struct body_key *k, const json_t *value, void *to, struct refusal *why)
{
	quarry_assert(k->size == sizeof(uint64_t));
	json_int_t bytes = json_integer_value(value);
	if (!json_is_integer(value))
		return body_refuse(why, k->name, "must be a whole number of bytes");
	if (bytes < 1 || (uint64_t)bytes > VOLUME_BYTES_MAX || bytes % SECTOR_BYTES != 0)
		return body_refuse(why, k->name, "must be a multiple of 512 bytes, at most 4096T");
	uint64_t size = (uint64_t)bytes;
	memcpy(to, &size, sizeof(size));
	return 0;
}

static int body_count(const struct body_key *k, const json_t *value, bool is_queues, void *to, struct refusal *why)
{
	quarry_assert(k->size == sizeof(uint32_t));
	json_int_t n = json_integer_value(value);
	if (!json_is_integer(value) || n < 1 || n > (is_queues ? (json_int_t)VOLUME_VHOST_QUEUES_MAX : 16))
		return body_refuse(why, k->name,
				   is_queues ? "must be a whole number from 1 to 64"
					     : "must be a whole number from 1 to 16");
	uint32_t count = (uint32_t)n;
	memcpy(to, &count, sizeof(count));
	return 0;
}

static int body_boolean(const struct body_key *k, const json_t *value, void *to, struct refusal *why)
{
	quarry_assert(k->size == sizeof(bool));
	if (!json_is_boolean(value))
		return body_refuse(why, k->name, "must be true or false");
	*(bool *)to = json_is_true(value);
	return 0;
}

static int body_domain(const struct body_key *k, const json_t *value, struct set_command *c, struct refusal *why)
{
	static const char *const names[] = {"disk", "node", "rack", "zone"};
	_Static_assert(DOMAIN_DISK == 0 && DOMAIN_ZONE == 3, "in the order of enum failure_domain");
	const char *text = json_string_value(value);
	for (unsigned i = 0; text && i < array_size(names); i++) {
		if (strcmp(text, names[i]) == 0) {
			c->failure_domain = (enum failure_domain)i;
			c->has_failure_domain = true;
			return 0;
		}
	}
	return body_refuse(why, k->name, "must be one of \"disk\", \"node\", \"rack\", \"zone\"");
}

static int body_schedule(const struct body_key *k, const json_t *value, void *to, struct refusal *why)
{
	json_int_t n = json_integer_value(value);
	json_int_t min = k->kind == BODY_SECONDS ? SCHEDULE_EVERY_MIN_S : 1;
	json_int_t max = k->kind == BODY_SECONDS ? SCHEDULE_EVERY_MAX_S : SCHEDULE_KEEP_MAX;
	if (!json_is_integer(value) || n < min || n > max)
		return body_refuse(why, k->name, "is out of range: " SCHEDULE_LIMITS);
	uint64_t wide = (uint64_t)n;
	uint32_t narrow = (uint32_t)n;
	if (k->size == sizeof(wide))
		memcpy(to, &wide, sizeof(wide));
	else
		memcpy(to, &narrow, sizeof(narrow));
	return 0;
}

int order_target_read(const char *text, struct set_target *out)
{
	const char *at = text ? strchr(text, '@') : NULL;
	size_t len = at ? (size_t)(at - text) : 0;
	if (!at || len >= sizeof(out->volume) || !order_name_is_valid(at + 1))
		return -EINVAL;
	*out = (struct set_target){0};
	memcpy(out->volume, text, len);
	memcpy(out->snapshot, at + 1, strlen(at + 1));
	return order_name_is_valid(out->volume) ? 0 : -EINVAL;
}

static int body_targets(const struct body_key *k, const json_t *value, struct set_command *c, struct refusal *why)
{
	size_t n = json_array_size(value);
	if (n < 1 || n > SET_TARGETS_MAX) {
		order_refuse(why, 400, "invalid", "%s: must be a list of 1 to %u names such as \"vm1@daily\"", k->name,
			     SET_TARGETS_MAX);
		return -EINVAL;
	}
	for (size_t i = 0; i < n; i++)
		if (order_target_read(json_string_value(json_array_get(value, i)), &c->targets[i]) != 0)
			return body_refuse(why, k->name, "must hold names of the form VOLUME@SNAPSHOT");
	c->n_targets = (uint32_t)n;
	return 0;
}

static int body_value(const struct body_key *k, const json_t *value, struct set_command *c, struct refusal *why)
{
	char *to = (char *)c + k->offset;
	switch (k->kind) {
	case BODY_TEXT:
	case BODY_NAME:
		return body_text(k, value, to, why);
	case BODY_SIZE:
		return body_size(k, value, to, why);
	case BODY_COUNT:
		return body_count(k, value, false, to, why);
	case BODY_QUEUES:
		return body_count(k, value, true, to, why);
	case BODY_BOOLEAN:
		return body_boolean(k, value, to, why);
	case BODY_DOMAIN:
		return body_domain(k, value, c, why);
	case BODY_SECONDS:
	case BODY_KEEP:
		return body_schedule(k, value, to, why);
	case BODY_TARGETS:
		return body_targets(k, value, c, why);
	}
	return -EINVAL;
}

/* A key's name as it may stand in a message. */
static void name_to_text(const char *name, char out[static 41])
{
	size_t n = 0;
	for (; n < 40 && name[n]; n++)
		out[n] = name[n] > 0x20 && name[n] < 0x7f ? name[n] : '?';
	out[n] = '\0';
}

static int body_refuse_unknown(const struct body_key *keys, const char *name, struct refusal *why)
{
	char all[160] = "", shown[41];
	for (const struct body_key *k = keys; k->name; k++) {
		strncat(all, " ", sizeof(all) - strlen(all) - 1);
		strncat(all, k->name, sizeof(all) - strlen(all) - 1);
	}
	name_to_text(name, shown);
	order_refuse(why, 400, "invalid", "%s: unknown key; there are:%s", shown, all);
	return -EINVAL;
}

static int body_read_object(json_t *object, const struct body_key *keys, struct set_command *c, uint32_t *seen,
			    struct refusal *why)
{
	const char *name;
	json_t *value;
	json_object_foreach(object, name, value)
	{
		unsigned i = 0;
		while (keys[i].name && strcmp(keys[i].name, name) != 0)
			i++;
		if (!keys[i].name)
			return body_refuse_unknown(keys, name, why);
		quarry_assert(i < BODY_KEYS_MAX);
		if (body_value(&keys[i], value, c, why) < 0)
			return -EINVAL;
		*seen |= 1u << i;
	}
	for (unsigned i = 0; keys[i].name; i++) {
		if (keys[i].is_required && !(*seen & (1u << i)))
			return body_refuse(why, keys[i].name, "is missing");
	}
	return 0;
}

int body_read(const struct order_text *text, const struct body_key *keys, struct set_command *command, uint32_t *seen,
	      struct refusal *why)
{
	json_error_t error;
	uint32_t ignored;
	if (text->body_bytes == 0) {
		order_refuse(why, 400, "invalid", "the body is missing: a JSON object is needed");
		return -EINVAL;
	}
	json_t *object = json_loadb(text->body, text->body_bytes, JSON_REJECT_DUPLICATES, &error);
	if (!json_is_object(object)) {
		if (object)
			order_refuse(why, 400, "invalid", "the body is JSON, but not an object");
		else
			order_refuse(why, 400, "invalid", "the body is not JSON: line %d, column %d", error.line,
				     error.column);
		json_decref(object);
		return -EINVAL;
	}
	seen = seen ? seen : &ignored;
	*seen = 0;
	int res = body_read_object(object, keys, command, seen, why);
	json_decref(object);
	return res;
}
