/*
 * facts.c: the metadata store's values, read and written.
 *
 * Invariants
 *  1. What a reader accepts, the writer writes back with the same meaning; members it does not know are dropped.
 *  2. A reader reports the first thing that is wrong, by name; after that its output is not used.
 *  3. Numbers are within int64 (JSON's integers here), names valid, UUIDs well-formed, counts within their arrays.
 */
#include "volumes/head/facts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

static const char *const domain_names[] = {
    [DOMAIN_DISK] = "disk", [DOMAIN_NODE] = "node", [DOMAIN_RACK] = "rack", [DOMAIN_ZONE] = "zone"};
static const char *const tree_state_names[] = {
    [TREE_IS_LIVE] = "live", [TREE_IS_SNAPSHOT] = "snapshot", [TREE_IS_DELETED] = "deleted"};

const char *failure_domain_name(enum failure_domain d)
{
	quarry_assert((unsigned)d < array_size(domain_names));
	return domain_names[d];
}

static int name_index(const char *const *names, size_t n_names, const char *text)
{
	for (size_t i = 0; i < n_names; i++)
		if (strcmp(names[i], text) == 0)
			return (int)i;
	return -EINVAL;
}

int failure_domain_from_text(const char *text, enum failure_domain *out)
{
	int i = name_index(domain_names, array_size(domain_names), text);
	if (i < 0)
		return i;
	*out = (enum failure_domain)i;
	return 0;
}

void text_print(char *text, size_t room, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(text, room, format, args);
	va_end(args);
}

bool name_is_valid(const char *name)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t len = strlen(name);
	return len > 0 && len <= VOLUME_NAME_MAX && strspn(name, letters) == len && !strchr("._-", name[0]);
}

/* ---- reading: the first error stays, and everything after it does nothing ---- */

struct reader {
	json_t *object;
	char *why; /* WHY_BYTES */
	int res;
};

static void reader_refuse(struct reader *r, const char *member, const char *problem)
{
	if (r->res != 0)
		return;
	r->res = -EINVAL;
	snprintf(r->why, WHY_BYTES, "\"%s\" %s", member, problem);
}

static void reader_open(struct reader *r, const char *text, char *why)
{
	json_error_t error;
	*r = (struct reader){.object = json_loads(text, JSON_REJECT_DUPLICATES, &error), .why = why};
	why[0] = 0;
	if (json_is_object(r->object))
		return;
	r->res = -EINVAL;
	snprintf(why, WHY_BYTES, "not a JSON object%s%s", r->object ? "" : ": ", r->object ? "" : error.text);
}

static int reader_close(struct reader *r)
{
	json_decref(r->object);
	quarry_assert(r->res == 0 || r->why[0] != 0);
	return r->res;
}

static uint64_t read_number(struct reader *r, const char *member, uint64_t max)
{
	json_t *value = json_object_get(r->object, member);
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		reader_refuse(r, member, "is not a number of 0 or more");
	else if ((uint64_t)json_integer_value(value) > max)
		reader_refuse(r, member, "is too large");
	return r->res == 0 ? (uint64_t)json_integer_value(value) : 0;
}

static const char *read_string(struct reader *r, const char *member, size_t room)
{
	const char *text = json_string_value(json_object_get(r->object, member));
	if (!text)
		reader_refuse(r, member, "is not a text");
	else if (strlen(text) >= room)
		reader_refuse(r, member, "is too long");
	return r->res == 0 ? text : "";
}

static void read_text(struct reader *r, const char *member, char *out, size_t room)
{
	snprintf(out, room, "%s", read_string(r, member, room));
}

static void read_name(struct reader *r, const char *member, char out[static NAME_BYTES])
{
	read_text(r, member, out, NAME_BYTES);
	if (r->res == 0 && !name_is_valid(out))
		reader_refuse(r, member, "is not a valid name");
}

/* A name that may be missing or empty. */
static void read_name_or_none(struct reader *r, const char *member, char out[static NAME_BYTES])
{
	out[0] = 0;
	if (json_object_get(r->object, member) && read_string(r, member, NAME_BYTES)[0])
		read_name(r, member, out);
}

static bool read_bool(struct reader *r, const char *member)
{
	json_t *value = json_object_get(r->object, member);
	if (!json_is_boolean(value))
		reader_refuse(r, member, "is not true or false");
	return json_is_true(value);
}

static struct uuid read_uuid(struct reader *r, const char *member)
{
	struct uuid uuid = {0};
	const char *text = read_string(r, member, UUID_TEXT_BYTES);
	if (r->res == 0 && (uuid_from_text(text, &uuid) < 0 || uuid_is_zero(&uuid)))
		reader_refuse(r, member, "is not a UUID");
	return uuid;
}

static int read_word(struct reader *r, const char *member, const char *const *words, size_t n_words)
{
	int i = name_index(words, n_words, read_string(r, member, 64));
	if (i < 0)
		reader_refuse(r, member, "is not a word known here (was it written by a newer version?)");
	return i < 0 ? 0 : i;
}

static bool read_two_words(struct reader *r, const char *member, const char *no, const char *yes)
{
	const char *const words[] = {no, yes};
	return read_word(r, member, words, 2) == 1;
}

static json_t *read_array(struct reader *r, const char *member)
{
	json_t *array = json_object_get(r->object, member);
	if (!json_is_array(array))
		reader_refuse(r, member, "is not a list");
	return array;
}

/* The UUID in a key, which names the object. */
static void reader_key(struct reader *r, const char *uuid, struct uuid *out)
{
	if (uuid_from_text(uuid, out) < 0)
		reader_refuse(r, uuid, "in the key is not a UUID");
}

/* ---- writing ---- */

static json_t *json_uuid(const struct uuid *uuid)
{
	char text[UUID_TEXT_BYTES];
	uuid_to_text(uuid, text);
	return json_string(text);
}

static json_t *json_number(uint64_t n)
{
	quarry_assert(n <= INT64_MAX);
	return json_integer((json_int_t)n);
}

static char *json_text(json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	json_decref(object);
	return text;
}

/* ---- cluster and pools ---- */

int cluster_from_json(const char *text, struct uuid *out, char why[static WHY_BYTES])
{
	struct reader r;
	reader_open(&r, text, why);
	*out = read_uuid(&r, "uuid");
	return reader_close(&r);
}

char *cluster_to_json(const struct uuid *cluster)
{
	return json_text(json_pack("{s:o}", "uuid", json_uuid(cluster)));
}

int pool_from_json(const char *name, const char *text, struct pool_facts *out, char why[static WHY_BYTES])
{
	struct reader r;
	reader_open(&r, text, why);
	*out = (struct pool_facts){0};
	if (name_is_valid(name))
		snprintf(out->name, sizeof(out->name), "%s", name);
	else
		reader_refuse(&r, name, "in the key is not a valid name");
	out->uuid = read_uuid(&r, "uuid");
	out->replicas = (uint32_t)read_number(&r, "replicas", SET_DISKS_MAX);
	out->min_replicas = (uint32_t)read_number(&r, "min_replicas", SET_DISKS_MAX);
	out->failure_domain =
	    (enum failure_domain)read_word(&r, "failure_domain", domain_names, array_size(domain_names));
	if (r.res == 0 && (out->replicas == 0 || out->min_replicas == 0 || out->min_replicas > out->replicas))
		reader_refuse(&r, "min_replicas", "is not between 1 and \"replicas\"");
	return reader_close(&r);
}

char *pool_to_json(const struct pool_facts *p)
{
	return json_text(json_pack("{s:o,s:i,s:i,s:s}", "uuid", json_uuid(&p->uuid), "replicas", (int)p->replicas,
				   "min_replicas", (int)p->min_replicas, "failure_domain",
				   failure_domain_name(p->failure_domain)));
}

/* ---- disks ---- */

int disk_from_json(const char *uuid, const char *text, struct disk_facts *out, char why[static WHY_BYTES])
{
	struct reader r;
	reader_open(&r, text, why);
	*out = (struct disk_facts){0};
	reader_key(&r, uuid, &out->uuid);
	read_name(&r, "node", out->node);
	read_text(&r, "path", out->path, sizeof(out->path));
	read_name(&r, "pool", out->pool);
	read_text(&r, "name", out->name, sizeof(out->name));
	out->size_bytes = read_number(&r, "size_bytes", DISK_MAX_BLOCKS * BLOCK_BYTES);
	out->is_removed = read_two_words(&r, "state", "ok", "removed");
	out->is_reserved = read_bool(&r, "reserved");
	out->is_draining = json_object_get(r.object, "draining") && read_bool(&r, "draining");
	out->drains_with_node = json_object_get(r.object, "drains_with_node") && read_bool(&r, "drains_with_node");
	if (json_object_get(r.object, "cluster"))
		out->cluster = read_uuid(&r, "cluster");
	if (json_object_get(r.object, "checkpoint")) {
		out->checkpoint = read_number(&r, "checkpoint", INT64_MAX);
		out->seen_ns = read_number(&r, "seen_ns", INT64_MAX);
	}
	return reader_close(&r);
}

char *disk_to_json(const struct disk_facts *d)
{
	char cluster[UUID_TEXT_BYTES] = "";
	bool has_cluster = !uuid_is_zero(&d->cluster);
	if (has_cluster)
		uuid_to_text(&d->cluster, cluster);
	json_t *object = json_pack("{s:s,s:s,s:s,s:s,s:o,s:s,s:b,s:b,s:s*}", "node", d->node, "path", d->path, "pool",
				   d->pool, "name", d->name, "size_bytes", json_number(d->size_bytes), "state",
				   d->is_removed ? "removed" : "ok", "reserved", (int)d->is_reserved, "draining",
				   (int)d->is_draining, "cluster", has_cluster ? cluster : NULL);
	if (object && d->drains_with_node)
		json_object_set_new(object, "drains_with_node", json_true());
	if (object && d->checkpoint > 0) {
		json_object_set_new(object, "checkpoint", json_number(d->checkpoint));
		json_object_set_new(object, "seen_ns", json_number(d->seen_ns));
	}
	return json_text(object);
}

/* ---- volumes ---- */

static void read_tree(struct reader *r, json_t *object, struct tree_facts *out)
{
	struct reader tree = {.object = object, .why = r->why, .res = r->res};
	if (!json_is_object(object))
		reader_refuse(&tree, "trees", "holds what is not an object");
	out->id = read_number(&tree, "id", INT64_MAX);
	out->parent = read_number(&tree, "parent", INT64_MAX);
	out->epoch = read_number(&tree, "epoch", EPOCH_MAX);
	out->state = (unsigned)read_word(&tree, "state", tree_state_names, array_size(tree_state_names));
	r->res = tree.res;
}

static void read_trees(struct reader *r, struct volume_facts *out)
{
	json_t *array = read_array(r, "trees"), *object;
	size_t n = json_array_size(array), i;
	if (r->res != 0)
		return;
	if (n > LINES_MAX)
		return reader_refuse(r, "trees", "are too many");
	out->trees = calloc(n ? n : 1, sizeof(*out->trees));
	if (!out->trees)
		return reader_refuse(r, "trees", "found no memory");
	out->n_trees = (uint32_t)n;
	json_array_foreach(array, i, object) read_tree(r, object, &out->trees[i]);
}

static void read_attachments(struct reader *r, struct volume_facts *out)
{
	json_t *array = read_array(r, "attachments"), *object;
	size_t i;
	json_array_foreach(array, i, object)
	{
		struct reader attachment = {.object = object, .why = r->why, .res = r->res};
		bool is_vhost = read_two_words(&attachment, "kind", "nbd", "vhost-user");
		out->is_attached_nbd |= !is_vhost;
		out->is_attached_vhost |= is_vhost;
		out->is_read_only |= read_bool(&attachment, "read_only");
		if (is_vhost && json_object_get(object, "queues"))
			out->vhost_queues = (uint32_t)read_number(&attachment, "queues", VOLUME_VHOST_QUEUES_MAX);
		r->res = attachment.res;
	}
}

static void read_volume_disk(struct reader *r, const char *uuid, json_t *object, struct volume_disk_facts *out)
{
	struct reader disk = {.object = object, .why = r->why, .res = r->res};
	reader_key(&disk, uuid, &out->uuid);
	static const char *const states[] = {"in-sync", "stale", "left"};
	int state = read_word(&disk, "state", states, array_size(states));
	out->is_stale = state > 0;
	out->is_left = state == 2;
	out->is_new = state == 2 && json_object_get(object, "new") && read_bool(&disk, "new");
	out->since = state == 1 ? read_number(&disk, "since", EPOCH_MAX) : 0;
	if (state == 1 && json_object_get(object, "trees_before"))
		out->had_before = read_number(&disk, "trees_before", INT64_MAX);
	if (json_object_get(object, "generation"))
		out->generation = read_number(&disk, "generation", INT64_MAX);
	out->is_older = state == 0 && json_object_get(object, "older") && read_bool(&disk, "older");
	r->res = disk.res;
}

static void read_volume_disks(struct reader *r, struct volume_facts *out)
{
	json_t *disks = json_object_get(r->object, "replicas_state"), *object;
	const char *uuid;
	if (!json_is_object(disks))
		return reader_refuse(r, "replicas_state", "is not an object");
	if (json_object_size(disks) > SET_DISKS_MAX)
		return reader_refuse(r, "replicas_state", "names too many disks");
	json_object_foreach(disks, uuid, object) read_volume_disk(r, uuid, object, &out->disks[out->n_disks++]);
}

static void read_ancestor(struct reader *r, json_t *object, struct ancestor *out)
{
	struct reader ancestor = {.object = object, .why = r->why, .res = r->res};
	out->volume = read_uuid(&ancestor, "volume");
	out->tree = read_number(&ancestor, "tree", INT64_MAX);
	out->epoch = read_number(&ancestor, "epoch", EPOCH_MAX);
	r->res = ancestor.res;
}

/* What only a clone or a volume with a schedule has. */
static void read_volume_history(struct reader *r, struct volume_facts *out)
{
	json_t *array = json_object_get(r->object, "ancestors"), *object;
	struct reader schedule = {.object = json_object_get(r->object, "schedule"), .why = r->why, .res = r->res};
	size_t i;
	if (json_array_size(array) > ANCESTORS_MAX)
		return reader_refuse(r, "ancestors", "are too many");
	json_array_foreach(array, i, object) read_ancestor(r, object, &out->ancestors[out->n_ancestors++]);
	if (json_object_get(r->object, "cloned_from"))
		read_text(r, "cloned_from", out->cloned_from, sizeof(out->cloned_from));
	if (json_object_get(r->object, "history"))
		out->history = read_number(r, "history", INT64_MAX);
	if (!schedule.object || r->res != 0)
		return;
	out->schedule.every_s = read_number(&schedule, "every_s", INT32_MAX);
	out->schedule.keep = (uint32_t)read_number(&schedule, "keep", DISK_TREES_MAX);
	if (schedule.res == 0 && (out->schedule.every_s == 0 || out->schedule.keep == 0))
		reader_refuse(&schedule, "keep", "and \"every_s\" are not above 0");
	r->res = schedule.res;
}

/* What only a volume has that is being filled. */
static void read_volume_fill(struct reader *r, struct volume_facts *out)
{
	struct reader fill = {.object = json_object_get(r->object, "fill"), .why = r->why, .res = r->res};
	if (!fill.object || r->res != 0)
		return;
	read_text(&fill, "source", out->fill.source, sizeof(out->fill.source));
	out->fill.filled_bytes = read_number(&fill, "filled_bytes", out->size_bytes);
	if (fill.res == 0 && (out->fill.source[0] == 0 || out->size_bytes > FILL_BYTES_MAX))
		reader_refuse(&fill, "source", "is empty, or the volume too large to be filled");
	r->res = fill.res;
}

static void read_volume_moving(struct reader *r, struct volume_facts *out)
{
	struct reader moving = {.object = json_object_get(r->object, "moving"), .why = r->why, .res = r->res};
	if (!moving.object || r->res != 0)
		return;
	out->moving.first = read_number(&moving, "first_segment", VOLUME_BYTES_MAX / SEGMENT_BYTES);
	out->moving.n_segments = (uint32_t)read_number(&moving, "segments", MOVE_SEGMENTS_MAX);
	if (json_object_get(moving.object, "to"))
		out->moving.to = read_uuid(&moving, "to");
	if (json_object_get(moving.object, "from"))
		out->moving.from = read_uuid(&moving, "from");
	if (moving.res == 0 && out->moving.first % PLACEMENT_CHUNK + out->moving.n_segments > PLACEMENT_CHUNK)
		reader_refuse(&moving, "segments", "are of two chunks");
	r->res = moving.res;
}

static void read_volume_counters(struct reader *r, struct volume_facts *out)
{
	out->size_bytes = read_number(r, "size_bytes", VOLUME_BYTES_MAX);
	if (r->res == 0 && (out->size_bytes == 0 || out->size_bytes % SECTOR_BYTES != 0))
		reader_refuse(r, "size_bytes", "is not a multiple of 512 above 0");
	out->replicas = (uint32_t)read_number(r, "replicas", SET_DISKS_MAX);
	out->min_replicas =
	    json_object_get(r->object, "min_replicas") ? (uint32_t)read_number(r, "min_replicas", SET_DISKS_MAX) : 1;
	if (r->res == 0 && (out->min_replicas == 0 || out->min_replicas > out->replicas))
		reader_refuse(r, "min_replicas", "is not between 1 and \"replicas\"");
	out->was_replicated = json_object_get(r->object, "was_replicated") && read_bool(r, "was_replicated");
	out->is_uneven = json_object_get(r->object, "uneven") && read_bool(r, "uneven");
	out->generation = read_number(r, "generation", INT64_MAX);
	out->epoch_base = read_number(r, "epoch_base", EPOCH_MAX);
	out->live_tree = read_number(r, "live_tree", INT64_MAX);
	out->next_tree = read_number(r, "next_tree", INT64_MAX);
	if (json_object_get(r->object, "live_from"))
		out->live_from = read_number(r, "live_from", INT64_MAX);
	if (r->res == 0 && (out->live_tree == 0 || out->next_tree <= out->live_tree))
		reader_refuse(r, "next_tree", "is not above \"live_tree\"");
	out->created_ns = read_number(r, "created_ns", INT64_MAX);
}

int volume_from_json(const char *uuid, const char *text, struct volume_facts *out, char why[static WHY_BYTES])
{
	struct reader r;
	reader_open(&r, text, why);
	*out = (struct volume_facts){0};
	reader_key(&r, uuid, &out->uuid);
	read_name(&r, "name", out->name);
	read_name(&r, "pool", out->pool);
	read_name_or_none(&r, "owner", out->owner);
	read_name_or_none(&r, "renamed_from", out->renamed_from);
	read_volume_counters(&r, out);
	out->is_deleting = read_two_words(&r, "state", "ok", "deleting");
	if (r.res == 0) {
		read_trees(&r, out);
		read_attachments(&r, out);
		read_volume_disks(&r, out);
		read_volume_history(&r, out);
		read_volume_fill(&r, out);
		read_volume_moving(&r, out);
	}
	if (r.res != 0)
		volume_facts_clear(out);
	return reader_close(&r);
}

static json_t *trees_to_json(const struct volume_facts *v)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < v->n_trees; i++) {
		const struct tree_facts *t = &v->trees[i];
		json_array_append_new(array, json_pack("{s:o,s:o,s:o,s:s}", "id", json_number(t->id), "parent",
						       json_number(t->parent), "epoch", json_number(t->epoch), "state",
						       tree_state_names[t->state]));
	}
	return array;
}

static json_t *attachments_to_json(const struct volume_facts *v)
{
	json_t *array = json_array();
	if (v->is_attached_nbd)
		json_array_append_new(array, json_pack("{s:s,s:b}", "kind", "nbd", "read_only", (int)v->is_read_only));
	if (v->is_attached_vhost)
		json_array_append_new(array, json_pack("{s:s,s:b,s:o}", "kind", "vhost-user", "read_only",
						       (int)v->is_read_only, "queues", json_number(v->vhost_queues)));
	return array;
}

static json_t *volume_disks_to_json(const struct volume_facts *v)
{
	json_t *object = json_object();
	for (uint32_t i = 0; i < v->n_disks; i++) {
		const struct volume_disk_facts *d = &v->disks[i];
		char uuid[UUID_TEXT_BYTES];
		uuid_to_text(&d->uuid, uuid);
		json_t *state = d->is_left ? json_pack("{s:s}", "state", "left")
				: d->is_stale
				    ? json_pack("{s:s,s:o,s:o}", "state", "stale", "since", json_number(d->since),
						"trees_before", json_number(d->had_before))
				    : json_pack("{s:s}", "state", "in-sync");
		if (d->generation > 0)
			json_object_set_new(state, "generation", json_number(d->generation));
		if (d->is_older && !d->is_stale)
			json_object_set_new(state, "older", json_true());
		if (d->is_left && d->is_new)
			json_object_set_new(state, "new", json_true());
		json_object_set_new(object, uuid, state);
	}
	return object;
}

static json_t *ancestors_to_json(const struct volume_facts *v)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < v->n_ancestors; i++) {
		const struct ancestor *a = &v->ancestors[i];
		json_array_append_new(array, json_pack("{s:o,s:o,s:o}", "volume", json_uuid(&a->volume), "tree",
						       json_number(a->tree), "epoch", json_number(a->epoch)));
	}
	return array;
}

static json_t *moving_to_json(const struct moving_facts *m)
{
	json_t *object =
	    json_pack("{s:o,s:o}", "first_segment", json_number(m->first), "segments", json_number(m->n_segments));
	if (!uuid_is_zero(&m->to))
		json_object_set_new(object, "to", json_uuid(&m->to));
	if (!uuid_is_zero(&m->from))
		json_object_set_new(object, "from", json_uuid(&m->from));
	return object;
}

/* What most volumes do not have is left out. */
static int history_to_json(const struct volume_facts *v, json_t *object)
{
	int res = 0;
	if (v->live_from > 0)
		res |= json_object_set_new(object, "live_from", json_number(v->live_from));
	if (v->min_replicas > 1)
		res |= json_object_set_new(object, "min_replicas", json_number(v->min_replicas));
	if (v->was_replicated)
		res |= json_object_set_new(object, "was_replicated", json_true());
	if (v->is_uneven)
		res |= json_object_set_new(object, "uneven", json_true());
	if (v->history > 0)
		res |= json_object_set_new(object, "history", json_number(v->history));
	if (v->n_ancestors > 0)
		res |= json_object_set_new(object, "ancestors", ancestors_to_json(v));
	if (v->fill.source[0])
		res |= json_object_set_new(object, "fill",
					   json_pack("{s:s,s:o}", "source", v->fill.source, "filled_bytes",
						     json_number(v->fill.filled_bytes)));
	if (v->moving.n_segments > 0)
		res |= json_object_set_new(object, "moving", moving_to_json(&v->moving));
	if (v->cloned_from[0])
		res |= json_object_set_new(object, "cloned_from", json_string(v->cloned_from));
	if (v->schedule.every_s > 0)
		res |= json_object_set_new(
		    object, "schedule",
		    json_pack("{s:o,s:i}", "every_s", json_number(v->schedule.every_s), "keep", (int)v->schedule.keep));
	return res;
}

char *volume_to_json(const struct volume_facts *v)
{
	json_t *object =
	    json_pack("{s:s,s:s,s:o,s:i,s:o,s:s,s:o,s:o,s:o}", "name", v->name, "pool", v->pool, "size_bytes",
		      json_number(v->size_bytes), "replicas", (int)v->replicas, "generation",
		      json_number(v->generation), "owner", v->owner, "epoch_base", json_number(v->epoch_base),
		      "live_tree", json_number(v->live_tree), "next_tree", json_number(v->next_tree));
	json_t *rest =
	    json_pack("{s:o,s:s,s:o,s:o,s:o,s:[]}", "trees", trees_to_json(v), "state",
		      v->is_deleting ? "deleting" : "ok", "attachments", attachments_to_json(v), "created_ns",
		      json_number(v->created_ns), "replicas_state", volume_disks_to_json(v), "requests");
	if (rest && v->renamed_from[0])
		json_object_set_new(rest, "renamed_from", json_string(v->renamed_from));
	if (!object || !rest || history_to_json(v, rest) < 0 || json_object_update(object, rest) < 0) {
		json_decref(object);
		object = NULL;
	}
	json_decref(rest);
	return json_text(object);
}

/* ---- snapshots ---- */

/* "VOLUME-UUID/TREE" */
static void snapshot_key(struct reader *r, const char *key, struct uuid *volume, struct snapshot_facts *out)
{
	char uuid[UUID_TEXT_BYTES] = "", *end = NULL;
	const char *slash = strchr(key, '/');
	if (slash && (size_t)(slash - key) < sizeof(uuid))
		snprintf(uuid, sizeof(uuid), "%.*s", (int)(slash - key), key);
	reader_key(r, uuid, volume);
	out->tree = slash ? strtoull(slash + 1, &end, 10) : 0;
	if (out->tree == 0 || out->tree > INT64_MAX || *end)
		reader_refuse(r, key, "in the key is not a volume and a tree");
}

int snapshot_from_json(const char *key, const char *text, struct uuid *volume, struct snapshot_facts *out,
		       char why[static WHY_BYTES])
{
	struct reader r;
	reader_open(&r, text, why);
	*out = (struct snapshot_facts){0};
	snapshot_key(&r, key, volume, out);
	read_name(&r, "name", out->name);
	out->branch = read_number(&r, "branch", INT64_MAX);
	out->epoch = read_number(&r, "epoch", EPOCH_MAX);
	out->size_bytes = read_number(&r, "size_bytes", VOLUME_BYTES_MAX);
	if (r.res == 0 && (out->size_bytes == 0 || out->size_bytes % SECTOR_BYTES != 0))
		reader_refuse(&r, "size_bytes", "is not a multiple of 512 above 0");
	out->created_ns = read_number(&r, "created_ns", INT64_MAX);
	out->is_deleting = read_two_words(&r, "state", "ok", "deleting");
	out->is_scheduled = read_bool(&r, "scheduled");
	read_name_or_none(&r, "attached_nbd", out->attached_nbd);
	read_name_or_none(&r, "attached_vhost", out->attached_vhost);
	if (json_object_get(r.object, "vhost_queues"))
		out->vhost_queues = (uint32_t)read_number(&r, "vhost_queues", VOLUME_VHOST_QUEUES_MAX);
	if (json_object_get(r.object, "temporary"))
		out->is_temporary = read_bool(&r, "temporary");
	return reader_close(&r);
}

char *snapshot_to_json(const struct snapshot_facts *s)
{
	return json_text(json_pack("{s:s,s:o,s:o,s:o,s:o,s:s,s:b,s:s,s:s,s:o,s:b}", "name", s->name, "branch",
				   json_number(s->branch), "epoch", json_number(s->epoch), "size_bytes",
				   json_number(s->size_bytes), "created_ns", json_number(s->created_ns), "state",
				   s->is_deleting ? "deleting" : "ok", "scheduled", (int)s->is_scheduled,
				   "attached_nbd", s->attached_nbd, "attached_vhost", s->attached_vhost, "vhost_queues",
				   json_number(s->vhost_queues), "temporary", (int)s->is_temporary));
}

int volume_facts_copy(const struct volume_facts *from, struct volume_facts *to)
{
	struct tree_facts *trees = malloc((from->n_trees + 1) * sizeof(*trees));
	if (!trees)
		return -ENOMEM;
	if (from->n_trees > 0)
		memcpy(trees, from->trees, from->n_trees * sizeof(*trees));
	*to = *from;
	to->trees = trees;
	return 0;
}

void volume_facts_clear(struct volume_facts *v)
{
	free(v->trees);
	v->trees = NULL;
	v->n_trees = 0;
}

struct volume_disk_facts *volume_facts_disk(struct volume_facts *v, const struct uuid *disk)
{
	for (uint32_t i = 0; i < v->n_disks; i++)
		if (uuid_equal(&v->disks[i].uuid, disk))
			return &v->disks[i];
	return NULL;
}

bool volume_facts_name_disk(struct volume_facts *v, const struct uuid *disk, uint64_t generation)
{
	struct volume_disk_facts *known = volume_facts_disk(v, disk);
	if (!known && v->n_disks == SET_DISKS_MAX)
		return false;
	if (!known) {
		known = &v->disks[v->n_disks++];
		*known = (struct volume_disk_facts){.uuid = *disk};
	}
	known->generation = generation;
	return true;
}

bool volume_facts_use_disk(const struct volume_facts *v, const struct uuid *disk)
{
	const struct volume_disk_facts *known = volume_facts_disk((struct volume_facts *)v, disk);
	return known && !known->is_left;
}

bool volume_facts_take_disk(struct volume_facts *v, const struct uuid *disk, uint64_t generation)
{
	if (!volume_facts_name_disk(v, disk, generation))
		return false;
	struct volume_disk_facts *known = volume_facts_disk(v, disk);
	if (known->is_left)
		known->is_left = known->is_stale = known->is_new = false;
	return true;
}
