/*
 * order.c: the control API's table of routes, and how a request becomes an order.
 *
 *   path --split at slashes, each part percent-decoded--> route --its reader--> struct order
 *
 * Invariants
 *  1. Every resource of docs/openapi.yaml stands in `routes`, in its order; a path that is in none is 404, one that is
 *     there with other methods only is 405.
 *  2. A part of the path is decoded after the path was split, so an encoded slash belongs to a name.
 *  3. A query or body where the route has none is refused: what is ignored would be taken for done.
 */
#include "daemon/control/order.h"

#include "daemon/control/order_body.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARTS_MAX 6u

struct parts {
	char *part[PARTS_MAX];
	unsigned n;
	char bytes[ORDER_PATH_BYTES_MAX];
};

struct route {
	const char *method, *pattern; /* a part "*" is a name */
	enum order_kind show;
	unsigned status;
	int (*read)(const struct order_text *text, const struct parts *p, struct order *out, struct refusal *why);
	int command; /* enum set_command_kind, -1: only look */
};

void order_refuse(struct refusal *why, unsigned status, const char *code, const char *format, ...)
{
	va_list args;
	quarry_assert(status >= 400 && status < 600);
	quarry_assert(strlen(code) < sizeof(why->code));
	why->status = status;
	snprintf(why->code, sizeof(why->code), "%s", code);
	why->allow[0] = '\0';
	va_start(args, format);
	vsnprintf(why->message, sizeof(why->message), format, args);
	va_end(args);
}

/* ---- percent-encoding ---- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place. False: a broken escape, or a control character or zero in a name. */
static bool part_decode(char *part)
{
	char *to = part;
	for (const char *from = part; *from; from++) {
		int c = (unsigned char)*from;
		if (c == '%') {
			int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
			if (low < 0)
				return false;
			c = high * 16 + low;
			from += 2;
		}
		if (iscntrl(c))
			return false;
		*to++ = (char)c;
	}
	*to = '\0';
	return true;
}

/* ---- queries ---- */

/* A whole number up to max, or the value that stands in *out already when the query is not there. */
static int query_number(const struct order_text *t, const char *name, uint64_t max, uint64_t *out, struct refusal *why)
{
	for (uint32_t i = 0; i < t->n_queries; i++) {
		const char *value = t->queries[i].value;
		char *end;
		if (strcmp(t->queries[i].name, name) != 0)
			continue;
		errno = 0;
		uint64_t n = value && isdigit((unsigned char)value[0]) ? strtoull(value, &end, 10) : UINT64_MAX;
		if (n == UINT64_MAX || errno != 0 || *end != '\0' || n > max) {
			order_refuse(why, 400, "invalid", "%s: must be a whole number of at most %llu", name,
				     (unsigned long long)max);
			return -EINVAL;
		}
		*out = n;
	}
	return 0;
}

static int query_boolean(const struct order_text *t, const char *name, bool *out, struct refusal *why)
{
	for (uint32_t i = 0; i < t->n_queries; i++) {
		const char *value = t->queries[i].value;
		if (strcmp(t->queries[i].name, name) != 0)
			continue;
		if (!value || (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)) {
			order_refuse(why, 400, "invalid", "%s: must be true or false", name);
			return -EINVAL;
		}
		*out = value[0] == 't';
	}
	return 0;
}

/* `known` is a list of names that ends with NULL. */
static int queries_check(const struct order_text *t, const char *const *known, struct refusal *why)
{
	for (uint32_t i = 0; i < t->n_queries; i++) {
		unsigned k = 0;
		while (known && known[k] && strcmp(known[k], t->queries[i].name) != 0)
			k++;
		if (known && known[k])
			continue;
		order_refuse(why, 400, "invalid", "%.40s: unknown query", t->queries[i].name);
		return -EINVAL;
	}
	return 0;
}

static int body_check_absent(const struct order_text *t, struct refusal *why)
{
	if (t->body_bytes == 0)
		return 0;
	order_refuse(why, 400, "invalid", "this request takes no body");
	return -EINVAL;
}

/* ---- readers: one per shape of request ---- */

/* The name in the path is both the command's object and what is shown after. */
static int object_take(const struct parts *p, struct order *out, struct refusal *why)
{
	const char *name = p->n > 2 ? p->part[2] : "";
	if (strlen(name) >= sizeof(out->object)) {
		order_refuse(why, 404, "not-found", "there is nothing with a name of %zu bytes", strlen(name));
		return -EINVAL;
	}
	snprintf(out->object, sizeof(out->object), "%s", name);
	snprintf(out->command.object, sizeof(out->command.object), "%s", name);
	return 0;
}

static int read_plain(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	if (queries_check(t, NULL, why) < 0 || body_check_absent(t, why) < 0)
		return -EINVAL;
	return object_take(p, out, why);
}

static int read_events(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const char *const known[] = {"after", "limit", "wait", NULL};
	out->limit = ORDER_EVENTS_MAX;
	if (queries_check(t, known, why) < 0 || body_check_absent(t, why) < 0 ||
	    query_number(t, "after", INT64_MAX, &out->after, why) < 0 ||
	    query_number(t, "limit", ORDER_EVENTS_MAX, &out->limit, why) < 0 ||
	    query_number(t, "wait", ORDER_WAIT_S_MAX, &out->wait_s, why) < 0)
		return -EINVAL;
	if (out->limit > 0)
		return 0;
	order_refuse(why, 400, "invalid", "limit: must be at least 1");
	return -EINVAL;
}

static int read_slow_requests(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const char *const known[] = {"older_than_ms", NULL};
	out->older_than_ms = 1000;
	if (queries_check(t, known, why) < 0 || body_check_absent(t, why) < 0)
		return -EINVAL;
	return query_number(t, "older_than_ms", 365ull * 24 * 3600 * 1000, &out->older_than_ms, why);
}

#define IN(m) offsetof(struct set_command, m), sizeof(((struct set_command *)0)->m)

static int read_pool_create(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const struct body_key keys[] = {
	    {"name", BODY_NAME, IN(object), true},
	    {"replicas", BODY_COUNT, IN(replicas), false},
	    {"min_replicas", BODY_COUNT, IN(min_replicas), false},
	    {"failure_domain", BODY_DOMAIN, IN(failure_domain), false},
	    {0},
	};
	if (queries_check(t, NULL, why) < 0 || body_read(t, keys, &out->command, NULL, why) < 0)
		return -EINVAL;
	snprintf(out->object, sizeof(out->object), "%s", out->command.object);
	return 0;
}

static int read_pool_set(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const struct body_key keys[] = {
	    {"replicas", BODY_COUNT, IN(replicas), false},
	    {"min_replicas", BODY_COUNT, IN(min_replicas), false},
	    {"failure_domain", BODY_DOMAIN, IN(failure_domain), false},
	    {0},
	};
	uint32_t seen;
	if (queries_check(t, NULL, why) < 0 || object_take(p, out, why) < 0 ||
	    body_read(t, keys, &out->command, &seen, why) < 0)
		return -EINVAL;
	if (seen != 0)
		return 0;
	order_refuse(why, 400, "invalid", "nothing to change: give replicas, min_replicas or failure_domain");
	return -EINVAL;
}

static int read_disk_add(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const struct body_key keys[] = {
	    {"path", BODY_TEXT, IN(path), true},
	    {"size_bytes", BODY_SIZE, IN(size_bytes), false},
	    {"pool", BODY_NAME, IN(pool), false},
	    {"reserve", BODY_BOOLEAN, IN(reserve), false},
	    {"force", BODY_BOOLEAN, IN(force), false},
	    {"accept_older", BODY_BOOLEAN, IN(accept_older), false},
	    {0},
	};
	if (queries_check(t, NULL, why) < 0 || body_read(t, keys, &out->command, NULL, why) < 0)
		return -EINVAL;
	if (out->command.path[0] != '/') {
		order_refuse(why, 400, "invalid", "path: must be absolute");
		return -EINVAL;
	}
	snprintf(out->object, sizeof(out->object), "%s", out->command.path);
	return 0;
}

static int read_disk_remove(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const char *const known[] = {"force", NULL};
	if (queries_check(t, known, why) < 0 || body_check_absent(t, why) < 0 || object_take(p, out, why) < 0)
		return -EINVAL;
	return query_boolean(t, "force", &out->command.force, why);
}

static int read_volume_create(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const struct body_key keys[] = {
	    {"name", BODY_NAME, IN(object), true},
	    {"size_bytes", BODY_SIZE, IN(size_bytes), true},
	    {"pool", BODY_NAME, IN(pool), false},
	    {"replicas", BODY_COUNT, IN(replicas), false},
	    {"min_replicas", BODY_COUNT, IN(min_replicas), false},
	    {"fill", BODY_TEXT, IN(fill), false},
	    {0},
	};
	if (queries_check(t, NULL, why) < 0 || body_read(t, keys, &out->command, NULL, why) < 0)
		return -EINVAL;
	snprintf(out->object, sizeof(out->object), "%s", out->command.object);
	return 0;
}

/* PATCH of a volume is one of three commands, told by its keys. */
static int read_volume_set(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const struct body_key keys[] = {
	    {"name", BODY_NAME, IN(other), false},
	    {"size_bytes", BODY_SIZE, IN(size_bytes), false},
	    {"force", BODY_BOOLEAN, IN(force), false},
	    {"replicas", BODY_COUNT, IN(replicas), false},
	    {"min_replicas", BODY_COUNT, IN(min_replicas), false},
	    {0},
	};
	enum { NAME = 1, SIZE = 2, FORCE = 4, REPLICAS = 8, MIN_REPLICAS = 16 };
	uint32_t seen;
	if (queries_check(t, NULL, why) < 0 || object_take(p, out, why) < 0 ||
	    body_read(t, keys, &out->command, &seen, why) < 0)
		return -EINVAL;
	if (seen == NAME) {
		out->command.kind = SET_VOLUME_RENAME;
		snprintf(out->object, sizeof(out->object), "%s", out->command.other);
	} else if (seen == SIZE || seen == (SIZE | FORCE)) {
		out->command.kind = SET_VOLUME_RESIZE;
	} else if (seen != 0 && (seen & ~(uint32_t)(REPLICAS | MIN_REPLICAS)) == 0) {
		out->command.kind = SET_VOLUME_SET;
	} else {
		order_refuse(
		    why, 400, "invalid",
		    "give either name, or size_bytes (and force), or replicas and min_replicas: one kind of change "
		    "at a time");
		return -EINVAL;
	}
	return 0;
}

static int frontend_check(const char *frontend, struct refusal *why)
{
	if (strcmp(frontend, "nbd") == 0 || strcmp(frontend, "vhost-user") == 0)
		return 0;
	order_refuse(why, 400, "invalid", "frontend: must be one of \"nbd\", \"vhost-user\"");
	return -EINVAL;
}

static int read_attach(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const struct body_key keys[] = {
	    {"frontend", BODY_TEXT, IN(other), true},        {"read_only", BODY_BOOLEAN, IN(read_only), false},
	    {"takeover", BODY_BOOLEAN, IN(takeover), false}, {"temporary", BODY_BOOLEAN, IN(temporary), false},
	    {"queues", BODY_QUEUES, IN(queues), false},      {0},
	};
	if (queries_check(t, NULL, why) < 0 || object_take(p, out, why) < 0 ||
	    body_read(t, keys, &out->command, NULL, why) < 0 || frontend_check(out->command.other, why) < 0)
		return -EINVAL;
	if (!out->command.temporary || (strchr(out->command.object, '@') && strcmp(out->command.other, "nbd") == 0))
		return 0;
	order_refuse(why, 400, "invalid", "temporary: goes with a snapshot over NBD");
	return -EINVAL;
}

static int read_move(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const struct body_key keys[] = {{"node", BODY_TEXT, IN(other), true}, {0}};
	if (queries_check(t, NULL, why) < 0 || object_take(p, out, why) < 0)
		return -EINVAL;
	return body_read(t, keys, &out->command, NULL, why);
}

static int read_detach(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const char *const known[] = {"temporary", NULL};
	if (queries_check(t, known, why) < 0 || body_check_absent(t, why) < 0 || object_take(p, out, why) < 0 ||
	    query_boolean(t, "temporary", &out->command.temporary, why) < 0)
		return -EINVAL;
	if (p->n < 5)
		return 0;
	if (frontend_check(p->part[4], why) < 0)
		return -EINVAL;
	snprintf(out->command.other, sizeof(out->command.other), "%s", p->part[4]);
	return 0;
}

/* ---- history ---- */

/* "/v1/volumes/VOLUME/snapshots/SNAP...": what is shown after is VOLUME@SNAP. */
static int snapshot_take_names(const struct parts *p, const char *snapshot, struct order *out, struct refusal *why)
{
	struct set_target *t = &out->command.targets[0];
	char name[2 * SET_TEXT_MAX];
	snprintf(name, sizeof(name), "%.255s@%.255s", p->part[2], snapshot);
	if (order_target_read(name, t) != 0) {
		order_refuse(why, 404, "not-found", MISSING_FORMAT, "snapshot", name, "snapshot");
		return -EINVAL;
	}
	out->command.n_targets = 1;
	snprintf(out->object, sizeof(out->object), "%s@%s", t->volume, t->snapshot);
	snprintf(out->command.object, sizeof(out->command.object), "%s", out->object);
	return 0;
}

static int read_snapshot(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	if (queries_check(t, NULL, why) < 0 || body_check_absent(t, why) < 0)
		return -EINVAL;
	return snapshot_take_names(p, p->part[4], out, why);
}

static int read_snapshot_create(const struct order_text *t, const struct parts *p, struct order *out,
				struct refusal *why)
{
	static const struct body_key keys[] = {{"name", BODY_NAME, IN(other), true}, {0}};
	if (queries_check(t, NULL, why) < 0 || body_read(t, keys, &out->command, NULL, why) < 0)
		return -EINVAL;
	return snapshot_take_names(p, out->command.other, out, why);
}

static int read_snapshots_create(const struct order_text *t, const struct parts *p, struct order *out,
				 struct refusal *why)
{
	static const struct body_key keys[] = {{"snapshots", BODY_TARGETS, IN(targets), true}, {0}};
	if (queries_check(t, NULL, why) < 0)
		return -EINVAL;
	return body_read(t, keys, &out->command, NULL, why);
}

static int read_rollback(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	if (read_snapshot(t, p, out, why) < 0)
		return -EINVAL;
	return object_take(p, out, why);
}

static int read_clone(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const struct body_key keys[] = {{"name", BODY_NAME, IN(other), true}, {0}};
	if (queries_check(t, NULL, why) < 0 || body_read(t, keys, &out->command, NULL, why) < 0 ||
	    snapshot_take_names(p, p->part[4], out, why) < 0)
		return -EINVAL;
	snprintf(out->object, sizeof(out->object), "%s", out->command.other);
	return 0;
}

static int read_schedule(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const struct body_key keys[] = {
	    {"every_s", BODY_SECONDS, IN(every_s), true}, {"keep", BODY_KEEP, IN(keep), true}, {0}};
	if (queries_check(t, NULL, why) < 0 || object_take(p, out, why) < 0)
		return -EINVAL;
	return body_read(t, keys, &out->command, NULL, why);
}

/* A snapshot's name, alone or with its volume's. */
static int query_snapshot(const struct order_text *t, const char *name, const char *volume, struct set_target *out,
			  struct refusal *why)
{
	for (uint32_t i = 0; i < t->n_queries; i++) {
		char full[2 * SET_TEXT_MAX];
		const char *value = t->queries[i].value;
		if (strcmp(t->queries[i].name, name) != 0)
			continue;
		char decoded[SET_TEXT_MAX];
		snprintf(decoded, sizeof(decoded), "%s", value ? value : "");
		bool is_good = part_decode(decoded), is_full = strchr(decoded, '@') != NULL;
		snprintf(full, sizeof(full), "%.255s%s%.255s", is_full ? "" : volume, is_full ? "" : "@", decoded);
		if (is_good && order_target_read(full, out) == 0)
			return 0;
		order_refuse(why, 400, "invalid", "%s: must be the name of a snapshot", name);
		return -EINVAL;
	}
	return 0;
}

static int read_changes(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const char *const known[] = {"since", "until", "from", "limit", NULL};
	struct set_command *c = &out->command;
	if (queries_check(t, known, why) < 0 || body_check_absent(t, why) < 0 || object_take(p, out, why) < 0 ||
	    query_snapshot(t, "since", p->part[2], &c->since, why) < 0 ||
	    query_snapshot(t, "until", p->part[2], &c->targets[0], why) < 0 ||
	    query_number(t, "from", VOLUME_BYTES_MAX, &c->pos_bytes, why) < 0 ||
	    query_number(t, "limit", ORDER_EXTENTS_MAX, &c->extents_max, why) < 0)
		return -EINVAL;
	c->n_targets = 1;
	snprintf(c->targets[0].volume, sizeof(c->targets[0].volume), "%.63s", p->part[2]);
	if (c->since.snapshot[0])
		return 0;
	order_refuse(why, 400, "invalid", "since: is missing: the name of a snapshot to compare with");
	return -EINVAL;
}

/* DELETE: no more. */
static int read_drain(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	out->command.cancel = strcmp(t->method, "DELETE") == 0;
	return read_plain(t, p, out, why);
}

/* A look, or, with measure=true, a measurement and then a look. */
static int read_volume(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const char *const known[] = {"measure", NULL};
	if (queries_check(t, known, why) < 0 || body_check_absent(t, why) < 0 ||
	    query_boolean(t, "measure", &out->is_command, why) < 0)
		return -EINVAL;
	out->command.kind = SET_VOLUME_MEASURE;
	return object_take(p, out, why);
}

static int read_volume_delete(const struct order_text *t, const struct parts *p, struct order *out, struct refusal *why)
{
	static const char *const known[] = {"snapshots", NULL};
	if (queries_check(t, known, why) < 0 || body_check_absent(t, why) < 0 || object_take(p, out, why) < 0)
		return -EINVAL;
	return query_boolean(t, "snapshots", &out->command.with_snapshots, why);
}

/* ---- routes ---- */

#define LOOK -1

static const struct route routes[] = {
    {"GET", "/v1/version", ORDER_VERSION, 200, read_plain, LOOK},
    {"GET", "/v1/status", ORDER_STATUS, 200, read_plain, LOOK},
    {"GET", "/v1/nodes", ORDER_NODES, 200, read_plain, LOOK},
    {"GET", "/v1/nodes/*", ORDER_NODE, 200, read_plain, LOOK},
    {"POST", "/v1/nodes/*/drain", ORDER_NODE, 202, read_drain, SET_NODE_DRAIN},
    {"DELETE", "/v1/nodes/*/drain", ORDER_NODE, 200, read_drain, SET_NODE_DRAIN},
    {"GET", "/v1/pools", ORDER_POOLS, 200, read_plain, LOOK},
    {"POST", "/v1/pools", ORDER_POOL, 201, read_pool_create, SET_POOL_CREATE},
    {"GET", "/v1/pools/*", ORDER_POOL, 200, read_plain, LOOK},
    {"PATCH", "/v1/pools/*", ORDER_POOL, 200, read_pool_set, SET_POOL_SET},
    {"DELETE", "/v1/pools/*", ORDER_NOTHING, 200, read_plain, SET_POOL_DELETE},
    {"GET", "/v1/disks", ORDER_DISKS, 200, read_plain, LOOK},
    {"POST", "/v1/disks", ORDER_DISK, 201, read_disk_add, SET_DISK_ADD},
    {"GET", "/v1/disks/*", ORDER_DISK, 200, read_plain, LOOK},
    {"DELETE", "/v1/disks/*", ORDER_NOTHING, 200, read_disk_remove, SET_DISK_REMOVE},
    {"POST", "/v1/disks/*/drain", ORDER_DISK, 202, read_drain, SET_DISK_DRAIN},
    {"DELETE", "/v1/disks/*/drain", ORDER_DISK, 200, read_drain, SET_DISK_DRAIN},
    {"POST", "/v1/disks/*/scrub", ORDER_DISK, 202, read_plain, SET_DISK_SCRUB},
    {"GET", "/v1/volumes", ORDER_VOLUMES, 200, read_plain, LOOK},
    {"POST", "/v1/volumes", ORDER_VOLUME, 201, read_volume_create, SET_VOLUME_CREATE},
    {"GET", "/v1/volumes/*", ORDER_VOLUME, 200, read_volume, LOOK},
    {"PATCH", "/v1/volumes/*", ORDER_VOLUME, 200, read_volume_set, SET_VOLUME_SET},
    {"DELETE", "/v1/volumes/*", ORDER_NOTHING, 200, read_volume_delete, SET_VOLUME_DELETE},
    {"POST", "/v1/volumes/*/attachments", ORDER_ATTACHMENT, 201, read_attach, SET_VOLUME_ATTACH},
    {"DELETE", "/v1/volumes/*/attachments", ORDER_NOTHING, 200, read_detach, SET_VOLUME_DETACH},
    {"DELETE", "/v1/volumes/*/attachments/*", ORDER_NOTHING, 200, read_detach, SET_VOLUME_DETACH},
    {"POST", "/v1/volumes/*/move", ORDER_VOLUME, 200, read_move, SET_VOLUME_MOVE},
    {"GET", "/v1/volumes/*/snapshots", ORDER_SNAPSHOTS, 200, read_plain, LOOK},
    {"POST", "/v1/volumes/*/snapshots", ORDER_SNAPSHOT, 201, read_snapshot_create, SET_SNAPSHOT_CREATE},
    {"GET", "/v1/volumes/*/snapshots/*", ORDER_SNAPSHOT, 200, read_snapshot, SET_VOLUME_MEASURE},
    {"DELETE", "/v1/volumes/*/snapshots/*", ORDER_NOTHING, 200, read_snapshot, SET_SNAPSHOT_DELETE},
    {"POST", "/v1/volumes/*/snapshots/*/rollback", ORDER_VOLUME, 200, read_rollback, SET_SNAPSHOT_ROLLBACK},
    {"POST", "/v1/volumes/*/snapshots/*/clone", ORDER_VOLUME, 201, read_clone, SET_VOLUME_CLONE},
    {"GET", "/v1/volumes/*/changes", ORDER_CHANGES, 200, read_changes, SET_VOLUME_CHANGES},
    {"PUT", "/v1/volumes/*/schedule", ORDER_VOLUME, 200, read_schedule, SET_VOLUME_SCHEDULE},
    {"DELETE", "/v1/volumes/*/schedule", ORDER_VOLUME, 200, read_plain, SET_VOLUME_SCHEDULE},
    {"GET", "/v1/snapshots", ORDER_SNAPSHOTS, 200, read_plain, LOOK},
    {"POST", "/v1/snapshots", ORDER_SNAPSHOTS, 201, read_snapshots_create, SET_SNAPSHOT_CREATE},
    {"GET", "/v1/events", ORDER_EVENTS, 200, read_events, LOOK},
    {"GET", "/v1/usage", ORDER_USAGE, 200, read_plain, LOOK},
    {"GET", "/v1/top", ORDER_TOP, 200, read_plain, LOOK},
    {"GET", "/v1/requests", ORDER_REQUESTS, 200, read_slow_requests, LOOK},
    {"GET", "/metrics", ORDER_METRICS, 200, read_plain, LOOK},
};

/* False: no path of ours looks like that. */
static bool parts_split(const char *path, struct parts *p)
{
	size_t len = strlen(path);
	p->n = 0;
	if (path[0] != '/' || len >= sizeof(p->bytes))
		return false;
	memcpy(p->bytes, path, len + 1);
	char *rest = p->bytes + 1;
	while (rest) {
		if (p->n == PARTS_MAX)
			return false;
		p->part[p->n++] = strsep(&rest, "/");
	}
	for (unsigned i = 0; i < p->n; i++) {
		if (!part_decode(p->part[i]) || p->part[i][0] == '\0')
			return false;
	}
	return true;
}

static bool pattern_matches(const char *pattern, const struct parts *p)
{
	unsigned i = 0;
	for (const char *at = pattern; *at == '/'; i++) {
		const char *begin = at + 1;
		size_t len = strcspn(begin, "/");
		at = begin + len;
		if (i >= p->n)
			return false;
		bool is_name = len == 1 && *begin == '*';
		if (!is_name && (strlen(p->part[i]) != len || memcmp(begin, p->part[i], len) != 0))
			return false;
	}
	return i == p->n;
}

static const struct route *route_find(const struct order_text *t, const struct parts *p, struct refusal *why)
{
	char allow[sizeof(why->allow)] = "";
	for (size_t i = 0; i < array_size(routes); i++) {
		if (!pattern_matches(routes[i].pattern, p))
			continue;
		if (strcmp(routes[i].method, t->method) == 0)
			return &routes[i];
		size_t used = strlen(allow);
		snprintf(allow + used, sizeof(allow) - used, "%s%s", used ? ", " : "", routes[i].method);
	}
	if (allow[0]) {
		order_refuse(why, 405, "method-not-allowed", "this resource knows: %s", allow);
		snprintf(why->allow, sizeof(why->allow), "%s", allow);
		return NULL;
	}
	order_refuse(why, 404, "not-found", "there is no such resource; docs/openapi.yaml lists them");
	return NULL;
}

int order_read(const struct order_text *text, struct order *out, struct refusal *why)
{
	struct parts p;
	*out = (struct order){0};
	if (text->n_queries > ORDER_QUERIES_MAX) {
		order_refuse(why, 400, "invalid", "more than %u queries", ORDER_QUERIES_MAX);
		return -EINVAL;
	}
	if (!parts_split(text->path, &p)) {
		order_refuse(why, 404, "not-found", "there is no such resource; docs/openapi.yaml lists them");
		return -EINVAL;
	}
	const struct route *route = route_find(text, &p, why);
	if (!route)
		return -EINVAL;
	out->show = route->show;
	out->status = route->status;
	out->is_command = route->command != LOOK;
	if (out->is_command)
		out->command.kind = (enum set_command_kind)route->command;
	int res = route->read(text, &p, out, why);
	quarry_assert(res == 0 || why->status >= 400);
	return res;
}

/* ---- how commands fail ---- */

static const struct failure {
	const char *code;
	unsigned status;
	int res;
} failures[] = {
    {"invalid", 400, -EINVAL},
    {"not-found", 404, -ENOENT},
    {"exists", 409, -EEXIST},
    {"in-use", 409, -EBUSY},
    {"elsewhere", 409, -EREMOTE},
    {"no-space", 507, -ENOSPC},
    {"not-available", 501, -EOPNOTSUPP},
    {"busy", 503, -ESHUTDOWN},
    {"busy", 503, -EAGAIN},
    {"busy", 503, -ETIMEDOUT},
    {"io-error", 500, -EIO},
    {"io-error", 500, -EUCLEAN},
    {"io-error", 500, -EROFS},
    {"invalid", 400, -ENAMETOOLONG},
    {"not-available", 501, -ENOTSUP},
    {"invalid", 400, -EACCES},
    {"internal", 500, -ENOMEM},
};

static const struct failure *failure_of(const char *code, int res)
{
	for (size_t i = 0; code[0] && i < array_size(failures); i++) {
		if (strcmp(failures[i].code, code) == 0)
			return &failures[i];
	}
	for (size_t i = 0; i < array_size(failures); i++) {
		if (failures[i].res == res)
			return &failures[i];
	}
	return NULL;
}

/* The code decides where it is one of the description's; else the errno does. */
void order_refusal_of(const struct set_command *c, int res, struct refusal *why)
{
	quarry_assert(res < 0);
	const struct failure *f = failure_of(c->code, res);
	const char *message = c->why[0] ? c->why : strerror(-res);
	order_refuse(why, f ? f->status : 500, f ? f->code : "internal", "%s", message);
}
