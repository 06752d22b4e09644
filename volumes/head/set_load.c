/*
 * set_load.c: this node's copy of what the metadata store holds of pools, disks and volumes.
 *
 *   POOLS -> DISKS -> VOLUMES -> SNAPSHOTS -> DRAINS -> BALANCE -> DELETED -> END
 *
 * The copy is made at start, and again when a transaction was refused or its outcome is unknown; in a cluster, changes
 * by other nodes are applied one by one (set_watch.c). Commands decide by the copy; the store decides whether that was
 * right, by revisions.
 *
 * Invariants
 *  1. A copy is never newer than the store and is replaced only by a newer revision.
 *  2. A value that cannot be read is left out with an event: it does not keep the others from serving.
 *  3. Pools and volumes are sorted by name; a disk keeps its index for as long as anything may name it.
 *
 * Owner: the set.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOAD_STAGES(X) X(POOLS) X(DISKS) X(VOLUMES) X(SNAPSHOTS) X(DRAINS) X(BALANCE) X(DELETED) X(END)
#define X(name)        LOAD_##name,
enum load_stage { LOAD_STAGES(X) };
#undef X

static const char *const prefixes[] = {
    [LOAD_POOLS] = "pools/",         [LOAD_DISKS] = "disks/",   [LOAD_VOLUMES] = "volumes/",
    [LOAD_SNAPSHOTS] = "snapshots/", [LOAD_DRAINS] = "drains/", [LOAD_BALANCE] = BALANCE_KEY,
    [LOAD_DELETED] = DELETED_KEY};

/* ---- finding ---- */

struct set_pool *set_pool_find(struct volume_set *s, const char *name)
{
	list_each (node, &s->pools) {
		struct set_pool *p = container_of(node, struct set_pool, link);
		if (strcmp(p->facts.name, name) == 0)
			return p;
	}
	return NULL;
}

struct set_volume *set_volume_find(struct volume_set *s, const char *name)
{
	list_each (node, &s->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (!v->facts.is_deleting && strcmp(v->facts.name, name) == 0)
			return v;
	}
	return NULL;
}

struct set_volume *set_volume_by_uuid(struct volume_set *s, const struct uuid *uuid)
{
	list_each (node, &s->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (uuid_equal(&v->facts.uuid, uuid))
			return v;
	}
	return NULL;
}

struct set_disk *set_disk_by_uuid(struct volume_set *s, const struct uuid *uuid)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (s->disks[i] && uuid_equal(&s->disks[i]->facts.uuid, uuid))
			return s->disks[i];
	return NULL;
}

struct uuid set_random_uuid(struct volume_set *s)
{
	uint64_t high = reactor_random(s->reactor);
	return uuid_make(high, reactor_random(s->reactor));
}

/* ---- taking in ---- */

struct set_pool *set_pool_put(struct volume_set *s, const struct pool_facts *facts)
{
	struct set_pool *p = set_pool_find(s, facts->name);
	if (p) {
		p->facts = *facts;
		return p;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->facts = *facts;
	struct list *before = s->pools.next;
	while (before != &s->pools && strcmp(container_of(before, struct set_pool, link)->facts.name, facts->name) < 0)
		before = before->next;
	list_append(before, &p->link);
	return p;
}

void set_pool_remove(struct set_pool *p)
{
	list_remove(&p->link);
	free(p);
}

static struct set_disk *set_disk_add(struct volume_set *s, const struct disk_facts *facts)
{
	uint32_t index = 0;
	while (index < SET_DISKS_MAX && s->disks[index])
		index++;
	struct set_disk *d = index < SET_DISKS_MAX ? calloc(1, sizeof(*d)) : NULL;
	if (!d)
		return NULL;
	*d = (struct set_disk){.set = s, .index = index, .facts = *facts};
	d->state = facts->is_removed ? SET_DISK_REMOVED : SET_DISK_ABSENT;
	s->disks[index] = d;
	return d;
}

struct set_disk *set_disk_put(struct volume_set *s, const struct disk_facts *facts)
{
	struct set_disk *d = set_disk_by_uuid(s, &facts->uuid);
	if (!d)
		return set_disk_add(s, facts);
	d->facts = *facts;
	return d;
}

struct set_disk *set_disk_known(struct volume_set *s, const struct uuid *uuid)
{
	struct set_disk *d = set_disk_by_uuid(s, uuid);
	struct disk_facts facts = {.uuid = *uuid};
	if (d)
		return d;
	uuid_to_text(uuid, facts.name);
	d = set_disk_add(s, &facts);
	if (d)
		text_print(d->why, sizeof(d->why), "it is not registered in the metadata store");
	return d;
}

void set_disk_forget(struct set_disk *d)
{
	quarry_assert(!d->disk && d->set->disks[d->index] == d);
	d->set->disks[d->index] = NULL;
	free(d);
}

void set_volume_sort(struct set_volume *v)
{
	struct list *volumes = &v->set->volumes;
	list_remove(&v->link);
	struct list *before = volumes->next;
	while (before != volumes &&
	       strcmp(container_of(before, struct set_volume, link)->facts.name, v->facts.name) < 0)
		before = before->next;
	list_append(before, &v->link);
}

struct set_volume *set_volume_put(struct volume_set *s, struct volume_facts *facts)
{
	struct set_volume *v = set_volume_by_uuid(s, &facts->uuid);
	if (v && v->facts.revision >= facts->revision) {
		volume_facts_clear(facts);
		return v;
	}
	if (v) {
		volume_facts_clear(&v->facts);
	} else {
		v = calloc(1, sizeof(*v));
		if (!v)
			return NULL;
		v->set = s;
		list_init(&v->link);
		list_init(&v->updates);
		list_init(&v->snapshots);
	}
	v->facts = *facts;
	*facts = (struct volume_facts){0};
	set_volume_sort(v);
	set_volume_check_head(v);
	return v;
}

static void set_volume_remove(struct set_volume *v)
{
	quarry_assert(!v->head && !v->attach && !v->reap && list_is_empty(&v->updates) && !snapshots_are_read(v));
	list_remove(&v->link);
	snapshots_fini(v);
	volume_facts_clear(&v->facts);
	free(v);
}

/* Who still reads one of its snapshots has it a while longer (snapshot_close()). */
void set_volume_gone(struct set_volume *v)
{
	if (!snapshots_are_read(v)) {
		set_volume_remove(v);
		return;
	}
	v->facts.is_deleting = true;
	list_each_safe (node, &v->snapshots)
		snapshot_gone(container_of(node, struct set_snapshot, link));
}

/* ---- merging what was listed ---- */

static const char *item_name(const struct set_load *l, const struct metadata_item *item)
{
	return item->key + strlen(prefixes[l->stage]);
}

static int merge_pool(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	struct pool_facts facts;
	int err = pool_from_json(name, item->value, &facts, why);
	facts.revision = item->revision;
	if (err == 0 && !set_pool_put(s, &facts))
		err = -ENOMEM;
	return err;
}

static int merge_disk(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	struct disk_facts facts;
	int err = disk_from_json(name, item->value, &facts, why);
	facts.revision = item->revision;
	if (err == 0 && !set_disk_put(s, &facts)) {
		text_print(why, WHY_BYTES, "this node can use %u disks", SET_DISKS_MAX);
		err = -EMFILE;
	}
	return err;
}

static int merge_volume(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	struct volume_facts facts;
	struct uuid uuid = {0};
	struct set_volume *v = uuid_from_text(name, &uuid) == 0 ? set_volume_by_uuid(s, &uuid) : NULL;
	bool was_here = v && set_volume_returns(v);
	int err = volume_from_json(name, item->value, &facts, why);
	facts.revision = item->revision;
	if (err == 0 && !(v = set_volume_put(s, &facts))) {
		volume_facts_clear(&facts);
		err = -ENOMEM;
	}
	if (err == 0 && !was_here)
		return_want(v); /* another node has handed it over */
	return err;
}

/* One that cannot be read keeps its trees: while it is there, nothing of its volume's is dropped. */
static int merge_snapshot(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	struct snapshot_facts facts;
	struct uuid uuid = {0};
	int err = snapshot_from_json(name, item->value, &uuid, &facts, why);
	struct set_volume *v = set_volume_by_uuid(s, &uuid);
	facts.revision = item->revision;
	if (err == 0 && v && !snapshot_put(v, &facts))
		err = -ENOMEM;
	if (err != 0 && v)
		v->is_history_short = true;
	return err;
}

static int merge_drain(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	int err = node_drain_put(s, name, item->revision);
	if (err == -EINVAL)
		text_print(why, WHY_BYTES, "its key names no node");
	return err;
}

static int merge_balance(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	if (balance_put(s, item->value, item->revision))
		return 0;
	text_print(why, WHY_BYTES, "it names no node");
	return -EINVAL;
}

static void load_tell_damage(struct volume_set *s, const struct metadata_item *item, const char *why)
{
	log_event(s->log, LOG_ERROR, "record-damaged", item->key,
		  "%s in the metadata store cannot be used and is left out: %s", item->key, why);
}

static int load_merge_item(struct set_load *l, const struct metadata_item *item, char *why)
{
	const char *name = item_name(l, item);
	switch ((enum load_stage)l->stage) {
	case LOAD_POOLS:
		return merge_pool(l->set, name, item, why);
	case LOAD_DISKS:
		return merge_disk(l->set, name, item, why);
	case LOAD_VOLUMES:
		return merge_volume(l->set, name, item, why);
	case LOAD_SNAPSHOTS:
		return merge_snapshot(l->set, name, item, why);
	case LOAD_DRAINS:
		return merge_drain(l->set, name, item, why);
	case LOAD_BALANCE:
		return merge_balance(l->set, name, item, why);
	case LOAD_DELETED:
		return deleted_from_json(item->value, &l->set->deleted, why);
	case LOAD_END:
		break;
	}
	quarry_assert(!"nothing is listed at the end");
	return -EINVAL;
}

static bool load_has(const struct set_load *l, const char *name)
{
	for (uint32_t i = 0; i < l->request.n_items; i++)
		if (strcmp(item_name(l, &l->request.items[i]), name) == 0)
			return true;
	return false;
}

static void load_mark_removed_disks(struct set_load *l)
{
	char uuid[UUID_TEXT_BYTES];
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		struct set_disk *d = l->set->disks[i];
		if (!d || d->facts.revision == 0)
			continue;
		uuid_to_text(&d->facts.uuid, uuid);
		if (!load_has(l, uuid))
			d->facts.is_removed = true;
	}
}

/* The name of a snapshot's key: "UUID/TREE". */
static void snapshot_key_name(const struct set_snapshot *snap, char *name, size_t room)
{
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&snap->entry->facts.uuid, uuid);
	text_print(name, room, "%s/%llu", uuid, (unsigned long long)snap->facts.tree);
}

/* Both the list and the copies may hold thousands: the list is sorted by key. */
static int item_compare(const void *key, const void *item)
{
	return strcmp(key, ((const struct metadata_item *)item)->key);
}

static void load_drop_missing_snapshots(struct set_load *l, struct set_volume *v)
{
	list_each_safe (node, &v->snapshots) {
		struct set_snapshot *snap = container_of(node, struct set_snapshot, link);
		char name[KEY_BYTES], key[KEY_BYTES + 16];
		snapshot_key_name(snap, name, sizeof(name));
		text_print(key, sizeof(key), "%s%s", prefixes[LOAD_SNAPSHOTS], name);
		bool is_there = l->request.n_items > 0 && bsearch(key, l->request.items, l->request.n_items,
								  sizeof(l->request.items[0]), item_compare) != NULL;
		if (!is_there)
			snapshot_gone(snap);
	}
}

/* Pools and idle volumes that the store does not hold any more are gone here too; a disk counts as removed. */
static void load_drop_missing(struct set_load *l)
{
	char uuid[UUID_TEXT_BYTES];
	if (l->stage == LOAD_DISKS)
		load_mark_removed_disks(l);
	if (l->stage == LOAD_POOLS)
		list_each_safe (node, &l->set->pools) {
			struct set_pool *p = container_of(node, struct set_pool, link);
			if (!load_has(l, p->facts.name))
				set_pool_remove(p);
		}
	if (l->stage == LOAD_SNAPSHOTS)
		list_each (node, &l->set->volumes)
			load_drop_missing_snapshots(l, container_of(node, struct set_volume, link));
	if (l->stage == LOAD_BALANCE && l->request.n_items == 0)
		l->set->balance.is_locked = false;
	if (l->stage == LOAD_DRAINS)
		list_each_safe (node, &l->set->node_drains) {
			const struct set_node_drain *n = container_of(node, struct set_node_drain, link);
			if (!load_has(l, n->node))
				node_drain_take_out(l->set, n->node, UINT64_MAX);
		}
	if (l->stage != LOAD_VOLUMES)
		return;
	list_each_safe (node, &l->set->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		uuid_to_text(&v->facts.uuid, uuid);
		if (!load_has(l, uuid) && !v->head && !v->attach && !v->reap && list_is_empty(&v->updates))
			set_volume_gone(v);
	}
}

static void load_merge(struct set_load *l)
{
	if (l->stage == LOAD_SNAPSHOTS)
		list_each (node, &l->set->volumes)
			container_of(node, struct set_volume, link)->is_history_short = false;
	for (uint32_t i = 0; i < l->request.n_items; i++) {
		const struct metadata_item *item = &l->request.items[i];
		char why[WHY_BYTES] = "no memory";
		int err = load_merge_item(l, item, why);
		if (err != 0)
			load_tell_damage(l->set, item, why);
	}
	load_drop_missing(l);
}

/* ---- one key that has changed ---- */

static void apply_pool(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	struct set_pool *p = set_pool_find(s, name);
	if (p && p->facts.revision >= item->revision)
		return;
	if (item->value && merge_pool(s, name, item, why) != 0)
		load_tell_damage(s, item, why);
	else if (!item->value && p)
		set_pool_remove(p);
}

void set_disk_take_out(struct set_disk *d)
{
	d->facts.is_removed = true;
	text_print(d->why, sizeof(d->why), "it was removed by force");
	if (d->client)
		set_disk_lose(d, "it was removed by force");
	if (d->disk && (d->state == SET_DISK_RUNNING || d->state == SET_DISK_FAILED))
		set_disk_close(d, NULL, NULL);
	else if (!d->disk)
		d->state = SET_DISK_REMOVED;
	if (!d->disk && set_disk_users(d, NULL, 0) == 0)
		set_disk_forget(d);
}

static void apply_disk(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	struct uuid uuid = {0};
	struct set_disk *d = uuid_from_text(name, &uuid) == 0 ? set_disk_by_uuid(s, &uuid) : NULL;
	/* else a command has read it, and did nothing about it */
	bool is_newer = !d || d->facts.revision < item->revision;
	if (is_newer && item->value && merge_disk(s, name, item, why) != 0)
		load_tell_damage(s, item, why);
	d = d ? d : set_disk_by_uuid(s, &uuid);
	if (d && (d->facts.is_removed || (is_newer && !item->value)))
		set_disk_take_out(d);
}

static void apply_volume(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	struct uuid uuid;
	struct set_volume *v = uuid_from_text(name, &uuid) == 0 ? set_volume_by_uuid(s, &uuid) : NULL;
	if (v && v->facts.revision >= item->revision)
		return;
	if (item->value && merge_volume(s, name, item, why) != 0)
		load_tell_damage(s, item, why);
	if (item->value || !v)
		return;
	if (v->head)
		volume_fence(v->head, "it has been deleted");
	else if (v->reap)
		return; /* which ends with that */
	else if (!v->attach && list_is_empty(&v->updates))
		set_volume_gone(v);
	else
		s->watch.is_missed = true; /* looked at again, when nothing is under way for it */
}

static void apply_snapshot(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	char text[UUID_TEXT_BYTES] = "";
	struct uuid uuid;
	if (item->value) {
		if (merge_snapshot(s, name, item, why) != 0)
			load_tell_damage(s, item, why);
		return;
	}
	memcpy(text, name, strnlen(name, sizeof(text) - 1));
	const char *tree = strchr(name, '/');
	struct set_volume *v = uuid_from_text(text, &uuid) == 0 ? set_volume_by_uuid(s, &uuid) : NULL;
	struct set_snapshot *snap = v && tree ? snapshot_by_tree(v, strtoull(tree + 1, NULL, 10)) : NULL;
	if (snap && snap->facts.revision < item->revision)
		snapshot_gone(snap);
}

static void apply_drain(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	if (item->value && merge_drain(s, name, item, why) != 0)
		load_tell_damage(s, item, why);
	else if (!item->value)
		node_drain_take_out(s, name, item->revision);
}

static void apply_balance(struct volume_set *s, const char *name, const struct metadata_item *item, char *why)
{
	if (merge_balance(s, name, item, why) != 0)
		load_tell_damage(s, item, why);
}

void set_load_apply(struct volume_set *s, const struct metadata_item *item)
{
	static void (*const appliers[])(struct volume_set * s, const char *name, const struct metadata_item *item,
					char *why) = {
	    [LOAD_POOLS] = apply_pool,         [LOAD_DISKS] = apply_disk,   [LOAD_VOLUMES] = apply_volume,
	    [LOAD_SNAPSHOTS] = apply_snapshot, [LOAD_DRAINS] = apply_drain, [LOAD_BALANCE] = apply_balance};
	char why[WHY_BYTES] = "no memory";
	if (strcmp(item->key, DELETED_KEY) == 0 && item->value && deleted_from_json(item->value, &s->deleted, why) != 0)
		load_tell_damage(s, item, why);
	for (size_t i = 0; i < array_size(appliers); i++)
		if (strncmp(item->key, prefixes[i], strlen(prefixes[i])) == 0)
			appliers[i](s, item->key + strlen(prefixes[i]), item, why);
}

/* ---- the dispatcher ---- */

static void load_run(struct set_load *l);

static void load_listed(struct metadata_request *q, int res)
{
	struct set_load *l = container_of(q, struct set_load, request);
	l->err = res;
	if (res == 0)
		load_merge(l);
	metadata_request_clear(q);
	l->stage = res == 0 ? l->stage + 1 : LOAD_END;
	load_run(l);
}

static void load_run(struct set_load *l)
{
	switch ((enum load_stage)l->stage) {
	case LOAD_POOLS:
	case LOAD_DISKS:
	case LOAD_VOLUMES:
	case LOAD_SNAPSHOTS:
	case LOAD_DRAINS:
	case LOAD_BALANCE:
	case LOAD_DELETED:
		l->request =
		    (struct metadata_request){.op = METADATA_LIST, .key = prefixes[l->stage], .done = load_listed};
		metadata_submit(l->set->metadata, &l->request);
		return;
	case LOAD_END:
		l->done(l, l->err);
		return;
	}
}

void set_load_start(struct set_load *l, struct volume_set *s, void (*done)(struct set_load *l, int res), void *context)
{
	*l = (struct set_load){.stage = LOAD_POOLS, .set = s, .done = done, .context = context};
	load_run(l);
}
