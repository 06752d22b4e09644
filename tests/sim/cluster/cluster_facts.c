/*
 * cluster_facts.c: what the store says of the volumes at each moment, and so what a loss of power may cost.
 *
 * It watches the store itself, where a change is known in the moment in which it is made. After each, of each segment the
 * disks that lie there and are current are told to the oracle: what all of them have lost may be gone (P1).
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_world.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct model_volume *volume_by_uuid(struct cluster *c, const struct uuid *uuid)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (c->volumes[i].facts.exists && uuid_equal(&c->volumes[i].facts.record.uuid, uuid))
			return &c->volumes[i];
	return NULL;
}

/* By the volume's UUID, known before its record or after: NULL only when there are too many. */
static struct cluster_placement *placement_of(struct cluster *c, const struct uuid *volume)
{
	for (uint32_t i = 0; i < PLACEMENTS_MAX; i++) {
		struct cluster_placement *p = &c->placements[i];
		if (!p->is_used)
			*p = (struct cluster_placement){.is_used = true, .volume = *volume};
		if (uuid_equal(&p->volume, volume))
			return p;
	}
	cluster_fail(c, "more volumes than the test was made for");
}

const char *facts_left_over(struct cluster *c)
{
	for (uint32_t i = 0; i < PLACEMENTS_MAX && c->placements[i].is_used; i++) {
		const struct cluster_placement *p = &c->placements[i];
		if (p->has_record && !volume_by_uuid(c, &p->volume))
			return "a volume's record is left over";
		if (p->has_key && !p->has_record)
			return "a placement is left over";
	}
	return NULL;
}

uint64_t facts_placed(struct cluster *c, const struct model_volume *v, uint32_t segment)
{
	return v->facts.exists ? placement_of(c, &v->facts.record.uuid)->disks[segment] : 0;
}

/* Where it lies and what is current, when that has changed. */
static void facts_say(struct cluster *c, struct model_volume *v)
{
	struct cluster_facts *f = &v->facts;
	uint64_t now[SEGMENTS_MAX + 1] = {f->in_sync};
	for (uint32_t s = 0; s < SEGMENTS_MAX; s++)
		now[s + 1] = facts_placed(c, v, s);
	if (!c->is_traced || memcmp(now, f->told, sizeof(now)) == 0)
		return;
	memcpy(f->told, now, sizeof(now));
	cluster_say(c, NULL,
		    "%s: disks %" PRIx64 " are current; its segments lie on %" PRIx64 ", %" PRIx64 ", %" PRIx64,
		    v->name, now[0], now[1], now[2], now[3]);
}

static void volume_give_up(struct cluster *c, struct model_volume *v)
{
	v->is_lost = v->is_quiet = true;
	c->totals.given_up++;
	cluster_say(c, NULL, "%s: the last current copy of a part was removed", v->name);
}

static void volume_judge(struct cluster *c, struct model_volume *v)
{
	for (uint32_t s = 0; s < v->n_segments && v->cells; s++) {
		uint64_t current = facts_placed(c, v, s) & v->facts.in_sync, left = current & ~c->removed;
		c->totals.open_to_loss += oracle_current(v->cells, s, left);
		if (current && !left && !v->is_lost)
			volume_give_up(c, v);
	}
	facts_say(c, v);
}

static struct model_volume *volume_by_name(struct cluster *c, const char *name)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (c->volumes[i].name[0] && strcmp(c->volumes[i].name, name) == 0)
			return &c->volumes[i];
	return NULL;
}

static void facts_take_volume(struct cluster *c, const char *uuid, const struct metadata_item *item)
{
	struct volume_facts record;
	struct uuid id;
	char why[WHY_BYTES];
	if (uuid_from_text(uuid, &id) != 0)
		cluster_fail(c, "the store has a record of no volume");
	placement_of(c, &id)->has_record = item->value != NULL;
	if (!item->value) {
		struct model_volume *gone = volume_by_uuid(c, &id);
		if (gone)
			volume_facts_clear(&gone->facts.record);
		if (gone)
			gone->facts = (struct cluster_facts){0};
		return;
	}
	if (volume_from_json(uuid, item->value, &record, why) != 0)
		cluster_fail(c, "the store has a record that cannot be read: %s", why);
	struct model_volume *v = volume_by_uuid(c, &record.uuid);
	if (!v)
		v = volume_by_name(c, record.name);
	if (!v)
		return cluster_fail(c, "the store has a volume %s that nobody made", record.name);
	/* of a clone that was begun twice, one is removed */
	if (v->facts.exists && !uuid_equal(&v->facts.record.uuid, &record.uuid) && record.is_deleting &&
	    !v->facts.record.is_deleting) {
		volume_facts_clear(&record);
		return;
	}
	if (v->facts.exists)
		volume_facts_clear(&v->facts.record);
	v->facts.exists = true;
	v->facts.record = record;
	v->facts.in_sync = 0;
	for (uint32_t i = 0; i < record.n_disks; i++)
		if (!record.disks[i].is_stale)
			v->facts.in_sync |= 1ull << cluster_disk_number(c, &record.disks[i].uuid);
	volume_judge(c, v);
}

static uint64_t disks_read(struct cluster *c, json_t *disks)
{
	uint64_t mask = 0;
	size_t i;
	json_t *one;
	json_array_foreach(disks, i, one)
	{
		struct uuid uuid;
		if (uuid_from_text(json_string_value(one), &uuid) != 0)
			cluster_fail(c, "a placement names no disk");
		mask |= 1ull << cluster_disk_number(c, &uuid);
	}
	return mask;
}

static void facts_take_placement(struct cluster *c, const char *rest, const struct metadata_item *item)
{
	char text[UUID_TEXT_BYTES];
	struct uuid uuid;
	text_print(text, sizeof(text), "%.36s", rest);
	if (uuid_from_text(text, &uuid) != 0)
		cluster_fail(c, "a placement is of no volume");
	struct cluster_placement *p = placement_of(c, &uuid);
	memset(p->disks, 0, sizeof(p->disks));
	p->has_key = item->value != NULL;
	json_t *root = item->value ? json_loads(item->value, 0, NULL) : NULL, *disks;
	const char *name;
	json_object_foreach(json_object_get(root, "segments"), name, disks)
	{
		unsigned long segment = strtoul(name, NULL, 10);
		quarry_assert(segment < SEGMENTS_MAX);
		p->disks[segment] = disks_read(c, disks);
	}
	json_decref(root);
	struct model_volume *v = volume_by_uuid(c, &uuid);
	if (v)
		volume_judge(c, v);
}

/* Where it was removed by force, and is named by volumes, its record stays. */
static void facts_take_disk(struct cluster *c, const char *text, const struct metadata_item *item)
{
	struct disk_facts facts = {.is_removed = true};
	struct uuid uuid;
	char why[WHY_BYTES];
	uint32_t number = uuid_from_text(text, &uuid) == 0 ? cluster_disk_number(c, &uuid) : DISKS_MAX;
	if (number == DISKS_MAX)
		cluster_fail(c, "the store has a disk that nobody made");
	if (item->value && disk_from_json(text, item->value, &facts, why) != 0)
		cluster_fail(c, "the store has a disk that cannot be read: %s", why);
	struct cluster_disk *d = &c->disks[number];
	c->totals.added_disks += d->is_spare;
	d->is_spare = false;
	d->is_draining = facts.is_draining;
	if (!facts.is_removed || c->removed >> number & 1)
		return;
	d->is_away = true;
	c->removed |= 1ull << number;
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (c->volumes[i].facts.exists)
			volume_judge(c, &c->volumes[i]);
}

static void facts_take_drain(struct cluster *c, const char *node, const struct metadata_item *item)
{
	for (uint32_t i = 0; i < c->n_nodes; i++)
		if (strcmp(c->nodes[i].name, node) == 0)
			c->node_is_draining[i] = item->value != NULL;
}

static const char *after(const char *key, const char *prefix)
{
	size_t len = strlen(prefix);
	return strncmp(key, prefix, len) == 0 ? key + len : NULL;
}

static void facts_changed(struct metadata_watch *w, const struct metadata_item *item)
{
	struct cluster *c = container_of(w, struct cluster, watch);
	const char *rest;
	if ((rest = after(item->key, "volumes/")))
		facts_take_volume(c, rest, item);
	else if ((rest = after(item->key, "placement/")))
		facts_take_placement(c, rest, item);
	else if ((rest = after(item->key, "disks/")))
		facts_take_disk(c, rest, item);
	else if ((rest = after(item->key, "drains/")))
		facts_take_drain(c, rest, item);
}

void facts_power_lost(struct cluster *c, uint64_t disks)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
		struct model_volume *v = &c->volumes[i];
		if (!v->cells)
			continue;
		oracle_power_lost(v->cells, disks);
		volume_judge(c, v);
	}
}

void facts_watch(struct cluster *c)
{
	c->watch = (struct metadata_watch){.prefix = "", .changed = facts_changed};
	metadata_watch_start(cluster_store_memory(c->store), &c->watch);
}

void facts_close(struct cluster *c)
{
	metadata_watch_stop(cluster_store_memory(c->store), &c->watch);
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (c->volumes[i].facts.exists)
			volume_facts_clear(&c->volumes[i].facts.record);
}

/* ---- looking ---- */

struct look {
	struct metadata_request q;
	bool is_done;
	int res;
};

static void look_done(struct metadata_request *q, int res)
{
	struct look *l = container_of(q, struct look, q);
	l->is_done = true;
	l->res = res;
}

void facts_list(struct cluster *c, const char *prefix, struct metadata_request *out)
{
	struct look l = {.q = {.op = METADATA_LIST, .key = prefix, .done = look_done}};
	metadata_submit(cluster_store_memory(c->store), &l.q);
	while (!l.is_done)
		cluster_pass(c, NS_PER_MS);
	if (l.res != 0)
		cluster_fail(c, "the store cannot be listed: %d", l.res);
	*out = l.q;
}

bool facts_have_snapshot(struct cluster *c, const struct model_volume *v, const char *name)
{
	char uuid[UUID_TEXT_BYTES], prefix[KEY_BYTES], why[WHY_BYTES];
	struct metadata_request q;
	bool is_there = false;
	if (!v->facts.exists)
		return false;
	uuid_to_text(&v->facts.record.uuid, uuid);
	text_print(prefix, sizeof(prefix), "snapshots/%s/", uuid);
	facts_list(c, prefix, &q);
	for (uint32_t i = 0; i < q.n_items; i++) {
		struct snapshot_facts snap;
		struct uuid volume;
		if (snapshot_from_json(q.items[i].key + strlen("snapshots/"), q.items[i].value, &volume, &snap, why) !=
		    0)
			cluster_fail(c, "the store has a snapshot that cannot be read: %s", why);
		is_there |= strcmp(snap.name, name) == 0 && !snap.is_deleting;
	}
	metadata_request_clear(&q);
	return is_there;
}
