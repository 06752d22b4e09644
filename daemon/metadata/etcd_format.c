/*
 * etcd_format.c: bodies for etcd's HTTP gateway, and its answers taken apart.
 *
 * Invariants
 *  1. A key is sent as PREFIX/KEY, and what comes back without that prefix is an error.
 *  2. A condition is a compare of mod_revision; a key that does not exist has 0, which is what metadata.h says too.
 *  3. Numbers of 64 bits are taken as texts or as JSON integers; anything else, and negative ones, is -EBADMSG.
 *
 * Pure functions; nothing is owned.
 */
#include "daemon/metadata/etcd_format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- base64 ---- */

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
_Static_assert(sizeof(letters) == 65, "an alphabet of 64");

char *base64_encode(const void *bytes, size_t len)
{
	const uint8_t *in = bytes;
	char *text = malloc((len + 2) / 3 * 4 + 1), *out = text;
	if (!text)
		return NULL;
	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		uint32_t word =
		    (uint32_t)in[i] << 16 | (n > 1 ? (uint32_t)in[i + 1] << 8 : 0) | (n > 2 ? in[i + 2] : 0);
		*out++ = letters[word >> 18];
		*out++ = letters[word >> 12 & 63];
		*out++ = n > 1 ? letters[word >> 6 & 63] : '=';
		*out++ = n > 2 ? letters[word & 63] : '=';
	}
	*out = '\0';
	return text;
}

char *base64_decode(const char *text)
{
	size_t len = strlen(text), n_pad = 0;
	while (n_pad < 2 && n_pad < len && text[len - 1 - n_pad] == '=')
		n_pad++;
	char *bytes = len % 4 == 0 ? malloc(len / 4 * 3 + 1) : NULL;
	size_t n = 0;
	uint32_t word = 0;
	for (size_t i = 0; bytes && i < len; i++) {
		const char *at = i < len - n_pad ? strchr(letters, text[i]) : letters; /* '=': zero bits */
		if (!at || *at == '\0') {
			free(bytes);
			return NULL;
		}
		word = word << 6 | (uint32_t)(at - letters);
		if (i % 4 == 3) {
			bytes[n++] = (char)(word >> 16 & 255);
			bytes[n++] = (char)(word >> 8 & 255);
			bytes[n++] = (char)(word & 255);
			word = 0;
		}
	}
	if (!bytes)
		return NULL;
	quarry_assert(n == len / 4 * 3 && (n > 0 || n_pad == 0));
	n -= n_pad;
	bytes[n] = '\0';
	if (strlen(bytes) == n)
		return bytes;
	free(bytes);
	return NULL;
}

/* ---- bodies ---- */

/* Takes the value; both NULL-safe: a body without memory stays NULL until it is asked for its text. */
static void set(json_t *body, const char *name, json_t *value)
{
	if (json_object_set_new(body, name, value) < 0)
		(void)json_object_set_new(body, "incomplete", json_true());
}

static void set_number(json_t *body, const char *name, uint64_t number)
{
	char text[24];
	snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
	set(body, name, json_string(text));
}

static void set_bytes(json_t *body, const char *name, const char *bytes, size_t len)
{
	char *text = base64_encode(bytes, len);
	set(body, name, text ? json_string(text) : NULL);
	free(text);
}

/* PREFIX/KEY with more bytes of room behind it. */
static char *key_whole(const char *prefix, const char *key, size_t *len)
{
	int n = snprintf(NULL, 0, "%s/%s", prefix, key);
	char *whole = malloc((size_t)n + 2);
	if (!whole)
		return NULL;
	snprintf(whole, (size_t)n + 2, "%s/%s", prefix, key);
	whole[n + 1] = '\0';
	*len = (size_t)n;
	return whole;
}

static void set_key(json_t *body, const char *name, const char *prefix, const char *key)
{
	size_t len = 0;
	char *whole = key_whole(prefix, key, &len);
	if (whole)
		set_bytes(body, name, whole, len);
	else
		set(body, name, NULL);
	free(whole);
}

/* The first key that does not begin so: the last byte raised by one. A slash or a text ends it, never byte 255 alone. */
static void set_range_end(json_t *body, const char *prefix, const char *key)
{
	size_t len = 0;
	char *whole = key_whole(prefix, key, &len);
	while (whole && len > 0 && (uint8_t)whole[len - 1] == 255)
		len--;
	if (whole && len > 0)
		whole[len - 1]++;
	set_bytes(body, "range_end", whole ? whole : "", whole ? len : 0);
	if (!whole)
		set(body, "range_end", NULL);
	free(whole);
}

/* The body's text; frees the body. */
static char *text_of(json_t *body)
{
	char *text = body && !json_object_get(body, "incomplete") ? json_dumps(body, JSON_COMPACT) : NULL;
	json_decref(body);
	return text;
}

char *etcd_range_text(const struct etcd_range *r)
{
	json_t *body = json_object();
	quarry_assert(r->is_list || !r->after);
	if (r->after) {
		/* the key right after it: one zero byte longer */
		size_t len = 0;
		char *whole = key_whole(r->prefix, r->after, &len);
		set_bytes(body, "key", whole ? whole : "", whole ? len + 1 : 0);
		if (!whole)
			set(body, "key", NULL);
		free(whole);
	} else {
		set_key(body, "key", r->prefix, r->key);
	}
	if (r->is_list) {
		set_range_end(body, r->prefix, r->key);
		set_number(body, "limit", ETCD_PAGE_ITEMS);
		set_number(body, "revision", r->revision);
	}
	return text_of(body);
}

static json_t *condition_of(const char *prefix, const struct metadata_condition *c)
{
	json_t *one = json_object();
	set(one, "target", json_string("MOD"));
	set(one, "result", json_string("EQUAL"));
	set_key(one, "key", prefix, c->key);
	set_number(one, "mod_revision", c->revision);
	return one;
}

static json_t *change_of(const char *prefix, const struct metadata_change *c)
{
	json_t *one = json_object(), *inner = json_object();
	set_key(inner, "key", prefix, c->key);
	if (c->value) {
		set_bytes(inner, "value", c->value, strlen(c->value));
		set_number(inner, "lease", c->lease);
	}
	set(one, c->value ? "request_put" : "request_delete_range", inner);
	return one;
}

/* A member without memory makes the whole body one without. */
static void append(json_t *body, json_t *list, json_t *one)
{
	json_t *inner = one ? json_object_iter_value(json_object_iter(one)) : NULL;
	bool is_whole = one && !json_object_get(one, "incomplete") && !(inner && json_object_get(inner, "incomplete"));
	if (json_array_append_new(list, one) < 0 || !is_whole)
		set(body, "incomplete", json_true());
}

char *etcd_transaction_text(const char *prefix, const struct metadata_request *q)
{
	json_t *body = json_object(), *compare = json_array(), *success = json_array();
	quarry_assert(q->op == METADATA_TRANSACT);
	for (uint32_t i = 0; i < q->n_conditions; i++)
		append(body, compare, condition_of(prefix, &q->conditions[i]));
	for (uint32_t i = 0; i < q->n_changes; i++)
		append(body, success, change_of(prefix, &q->changes[i]));
	set(body, "compare", compare);
	set(body, "success", success);
	return text_of(body);
}

char *etcd_lease_text(const struct metadata_request *q)
{
	json_t *body = json_object();
	if (q->op == METADATA_GRANT)
		set_number(body, "TTL", (q->ttl_ns + NS_PER_S - 1) / NS_PER_S);
	else
		set_number(body, "ID", q->lease);
	return text_of(body);
}

char *etcd_watch_text(const char *prefix, uint64_t from_revision)
{
	json_t *body = json_object(), *create = json_object();
	set_key(create, "key", prefix, "");
	set_range_end(create, prefix, "");
	set_number(create, "start_revision", from_revision);
	bool is_whole = !json_object_get(create, "incomplete");
	set(body, "create_request", create);
	if (!is_whole)
		set(body, "incomplete", json_true());
	return text_of(body);
}

char *etcd_login_text(const char *user, const char *password)
{
	json_t *body = json_object();
	set(body, "name", json_string(user));
	set(body, "password", json_string(password));
	return text_of(body);
}

const char *etcd_path(enum metadata_op op)
{
	switch (op) {
	case METADATA_GET:
	case METADATA_LIST:
		return "/v3/kv/range";
	case METADATA_TRANSACT:
		return "/v3/kv/txn";
	case METADATA_GRANT:
		return "/v3/lease/grant";
	case METADATA_KEEP:
		return "/v3/lease/keepalive";
	case METADATA_REVOKE:
		return "/v3/lease/revoke";
	}
	quarry_assert(!"an op of the list");
	return "";
}

/* ---- answers ---- */

/* A number that may be missing: 0 then, as the gateway leaves zeros out. */
static int read_number(const json_t *object, const char *name, uint64_t *out)
{
	const json_t *value = json_object_get(object, name);
	const char *text = json_string_value(value);
	char *end;
	*out = 0;
	if (!value)
		return 0;
	if (json_is_integer(value) && json_integer_value(value) >= 0) {
		*out = (uint64_t)json_integer_value(value);
		return 0;
	}
	if (!text || text[0] < '0' || text[0] > '9')
		return -EBADMSG;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno != 0 || *end != '\0' ? -EBADMSG : 0;
}

int etcd_read_header(const json_t *answer, struct etcd_header *out)
{
	const json_t *header = json_object_get(answer, "header");
	if (!json_is_object(header) || read_number(header, "cluster_id", &out->cluster_id) < 0 ||
	    read_number(header, "revision", &out->revision) < 0 || out->cluster_id == 0)
		return -EBADMSG;
	return 0;
}

/* A text in base64 under a name; missing: empty, as the gateway leaves empty values out. For free(). */
static char *read_bytes(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);
	const char *text = value ? json_string_value(value) : "";
	return text ? base64_decode(text) : NULL;
}

/* A key-value of the gateway's, with the prefix taken off. 0 or -EBADMSG; the texts are for free(). */
static int read_item(const json_t *kv, const char *prefix, struct metadata_item *out)
{
	size_t len = strlen(prefix);
	char *whole = read_bytes(kv, "key");
	*out = (struct metadata_item){0};
	if (whole && strncmp(whole, prefix, len) == 0 && whole[len] == '/')
		out->key = strdup(whole + len + 1);
	free(whole);
	out->value = read_bytes(kv, "value");
	if (out->key && out->value && read_number(kv, "mod_revision", &out->revision) == 0 && out->revision > 0 &&
	    read_number(kv, "lease", &out->lease) == 0)
		return 0;
	free(out->key);
	free(out->value);
	return -EBADMSG;
}

int etcd_read_range(const json_t *answer, const char *prefix, struct metadata_request *q, bool *is_last)
{
	const json_t *kvs = json_object_get(answer, "kvs");
	*is_last = !json_is_true(json_object_get(answer, "more"));
	if (kvs && !json_is_array(kvs))
		return -EBADMSG;
	for (size_t i = 0; i < json_array_size(kvs); i++) {
		struct metadata_item item;
		int res = read_item(json_array_get(kvs, i), prefix, &item);
		if (res < 0)
			return res;
		res = metadata_request_add(q, &item);
		free(item.key);
		free(item.value);
		if (res < 0)
			return res;
	}
	/* A page that says "more" and brings nothing would be asked for again and again. */
	return !*is_last && json_array_size(kvs) == 0 ? -EBADMSG : 0;
}

int etcd_read_transaction(const json_t *answer, struct metadata_request *q)
{
	struct etcd_header header;
	const json_t *responses = json_object_get(answer, "responses");
	q->changed = 0;
	if (etcd_read_header(answer, &header) < 0)
		return -EBADMSG;
	if (!json_is_true(json_object_get(answer, "succeeded")))
		return -EAGAIN;
	if (json_array_size(responses) != q->n_changes)
		return -EBADMSG;
	for (uint32_t i = 0; i < q->n_changes; i++) {
		const json_t *one = json_array_get(responses, i);
		uint64_t n_deleted = 1;
		if (!q->changes[i].value &&
		    read_number(json_object_get(one, "response_delete_range"), "deleted", &n_deleted) < 0)
			return -EBADMSG;
		q->changed |= (uint32_t)(n_deleted > 0) << i;
	}
	q->revision = header.revision;
	return 0;
}

int etcd_read_lease(const json_t *answer, struct metadata_request *q)
{
	uint64_t id = 0, ttl_s = 0;
	const json_t *from = q->op == METADATA_KEEP ? json_object_get(answer, "result") : answer;
	if (q->op == METADATA_REVOKE)
		return json_is_object(json_object_get(answer, "header")) ? 0 : -EBADMSG;
	if (!json_is_object(from) || read_number(from, "ID", &id) < 0 || read_number(from, "TTL", &ttl_s) < 0)
		return -EBADMSG;
	if (q->op == METADATA_KEEP && ttl_s == 0)
		return -ENOENT;
	if (id == 0 || (q->op == METADATA_KEEP && id != q->lease) || ttl_s == 0 || ttl_s > UINT64_MAX / NS_PER_S)
		return -EBADMSG;
	q->lease = id;
	q->ttl_ns = ttl_s * NS_PER_S;
	return 0;
}

const char *etcd_read_token(const json_t *answer)
{
	return json_string_value(json_object_get(answer, "token"));
}

int etcd_read_news(const json_t *line, struct etcd_news *out)
{
	const json_t *result = json_object_get(line, "result");
	struct etcd_header header;
	if (!json_is_object(result) || etcd_read_header(result, &header) < 0)
		return -EBADMSG;
	*out = (struct etcd_news){.cluster_id = header.cluster_id, .revision = header.revision};
	out->is_canceled = json_is_true(json_object_get(result, "canceled"));
	out->events = json_object_get(result, "events");
	if (out->events && !json_is_array(out->events))
		return -EBADMSG;
	return read_number(result, "compact_revision", &out->compact_revision);
}

int etcd_read_event(const json_t *event, const char *prefix, struct metadata_item *out)
{
	const char *type = json_string_value(json_object_get(event, "type"));
	int res = read_item(json_object_get(event, "kv"), prefix, out);
	if (res == 0 && type && strcmp(type, "DELETE") == 0) {
		free(out->value);
		out->value = NULL;
	}
	return res;
}

int etcd_read_error(const json_t *answer, const char **text)
{
	const json_t *from = json_object_get(answer, "error");
	const json_t *code = json_object_get(json_is_object(from) ? from : answer, "code");
	if (!code && json_is_object(from))
		code = json_object_get(from, "grpc_code");
	if (!from && !code)
		return 0;
	*text = json_string_value(json_is_object(from) ? json_object_get(from, "message") : from);
	if (!*text)
		*text = "an error without words";
	return json_is_integer(code) && json_integer_value(code) > 0 && json_integer_value(code) < 100
		   ? (int)json_integer_value(code)
		   : 2; /* gRPC's "unknown" */
}
