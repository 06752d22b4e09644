/*
 * set_clone.c: the command that makes a volume from a snapshot.
 *
 *   CHECK -> ATTACH -> HOLD -> BIRTH -> LIST -> COPY* -> FORK -> RECORD -> DETACH -> END
 *              +------------------+-------+--- on error ------------^
 *
 *   ATTACH   the source, if nobody uses it: forks are sent in its head's sessions [SESSION]
 *   HOLD     from now on no segment of the source moves to another disk
 *   BIRTH    the clone's record, in the state "deleting" and without a name: what a restart finds of it, it removes
 *   LIST     the source's placement, COPY: the clone's, some keys at a time
 *   FORK     the snapshot's tree, on every disk of the source, into the clone
 *   RECORD   state "ok", and the name: from now on it is a volume like any other
 *
 * Nothing is copied but placements: 256 segments a key.
 *
 * Invariants
 *  1. Until RECORD the clone is what the reaper would remove; whatever fails, that is what happens to it.
 *  2. The clone's epochs begin above the epoch of its fork, which is the source's current one: so epochs never grow along
 *     a lineage, and all that the clone writes is younger than what it shares (history.h).
 *  3. The clone's placement names only disks that its record says are used. A segment that lies on another as well was placed
 *     after the snapshot, and is a hole in it: else the clone would write there to the disks that it knows, and read from
 *     that one when it has joined it for something else.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLONE_STAGES(X) X(CHECK) X(ATTACH) X(HOLD) X(BIRTH) X(LIST) X(COPY) X(FORK) X(RECORD) X(DETACH) X(END)
#define X(name)         CLONE_##name,
enum clone_stage { CLONE_STAGES(X) };
#undef X

#define COPY_TRIES_MAX 8u

struct clone_work {
	struct command *command;
	struct metadata_request list;
	char prefix[KEY_BYTES];
	uint32_t next, from; /* of the list: the next to be copied; where the transaction under way began */
	struct set_volume *clone;
	struct places_hold hold;
	struct fork fork;
};

void clone_work_free(struct clone_work *w)
{
	if (!w)
		return;
	metadata_request_clear(&w->list);
	fork_abandon(&w->fork);
	free(w);
}

/* ---- CHECK ---- */

/* 1: make it; 0: it exists, just so; -errno. */
static int clone_check(struct command *c)
{
	const struct set_command *o = c->order;
	const struct set_volume *there = set_volume_find(c->set, o->other);
	char from[SNAPSHOT_NAME_BYTES];
	text_print(from, sizeof(from), "%s@%s", o->targets[0].volume, o->targets[0].snapshot);
	if (command_check_name(c, o->other) != 0)
		return c->err;
	if (there && strcmp(there->facts.cloned_from, from) == 0)
		return 0;
	if (command_find_snapshot(c) != 0 || command_check_here(c, c->volume) != 0)
		return c->err;
	if (there)
		return command_refuse(c, -EEXIST, "exists", "volume %s exists: choose another name", o->other);
	c->clone = calloc(1, sizeof(*c->clone));
	if (!c->clone)
		return command_refuse(c, -ENOMEM, "no-memory", "there is no memory for one more volume");
	c->clone->command = c;
	return 1;
}

static void clone_attached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	c->is_attached_here = res == 0;
	if (res != 0)
		command_refuse(c, -EIO, "failed", "volume %s: %s", entry->facts.name, entry->why);
	c->kind->run(c);
}

static void clone_detached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	c->kind->run(c);
}

/* ---- BIRTH ---- */

static void clone_ancestors(const struct command *c, struct volume_facts *f)
{
	struct lineage l;
	lineage_of(&c->volume->facts, c->snapshot->facts.branch, c->snapshot->facts.epoch, &l);
	f->n_ancestors = l.n < ANCESTORS_MAX ? l.n : ANCESTORS_MAX; /* without the farthest, more counts as changed */
	memcpy(f->ancestors, l.points, f->n_ancestors * sizeof(f->ancestors[0]));
}

static int clone_facts(struct command *c)
{
	const struct volume_facts *source = &c->volume->facts;
	struct volume_facts *f = &c->volume_facts;
	volume_facts_clear(f);
	*f = (struct volume_facts){.uuid = set_random_uuid(c->set),
				   .size_bytes = c->snapshot->facts.size_bytes,
				   .replicas = source->replicas,
				   .was_replicated =
				       source->was_replicated, /* its one copy may lie on any node's disks */
				   .min_replicas = source->min_replicas,
				   .epoch_base = c->volume->head->epoch,
				   .live_tree = 1,
				   .next_tree = 2,
				   .is_deleting = true,
				   .created_ns = reactor_wall_ns(c->set->reactor)};
	text_print(f->name, sizeof(f->name), "%s", c->order->other);
	text_print(f->pool, sizeof(f->pool), "%s", source->pool);
	if (c->set->members) /* who removes it, should it not become good */
		text_print(f->owner, sizeof(f->owner), "%s", c->set->node_name);
	text_print(f->cloned_from, sizeof(f->cloned_from), "%s@%s", source->name, c->snapshot->facts.name);
	f->moving = source->moving; /* its trees have what a move has left in the source's */
	memcpy(f->disks, source->disks, sizeof(f->disks));
	f->n_disks = source->n_disks;
	for (uint32_t i = 0; i < f->n_disks; i++)
		f->disks[i].generation = 0; /* that was the source's */
	clone_ancestors(c, f);
	f->trees = calloc(1, sizeof(*f->trees));
	if (!f->trees)
		return -ENOMEM;
	f->trees[0] = (struct tree_facts){.id = 1, .state = TREE_IS_LIVE};
	f->n_trees = 1;
	return 0;
}

/* Its UUID is new at every try, so an earlier one's unknown outcome does not matter: what it left is removed. */
static int clone_birth_decide(struct command *c)
{
	char uuid[UUID_TEXT_BYTES];
	if (clone_facts(c) != 0)
		return command_refuse(c, -ENOMEM, "no-memory", "there is no memory for one more volume");
	uuid_to_text(&c->volume_facts.uuid, uuid);
	transaction_condition(&c->transaction, 0, VOLUME_KEY, uuid);
	transaction_put(&c->transaction, volume_to_json(&c->volume_facts), VOLUME_KEY, uuid);
	return 1;
}

static void clone_birth_apply(struct command *c, uint64_t revision)
{
	c->volume_facts.revision = revision;
	c->clone->clone = set_volume_put(c->set, &c->volume_facts);
	if (!c->clone->clone)
		command_refuse(c, -ENOMEM, "no-memory", "there is no memory for one more volume");
}

static void clone_birth(struct command *c)
{
	char why[SET_WHY_BYTES];
	if (!fork_reaches_all(c->volume->head, why, sizeof(why))) {
		command_refuse(c, -EIO, "failed", "volume %s: %.300s", c->volume->facts.name,
			       c->volume->head->is_fenced ? "it is fenced" : why);
		c->kind->run(c);
		return;
	}
	change_run(c);
}

static void clone_held(struct places_hold *h)
{
	struct command *c = container_of(h, struct clone_work, hold)->command;
	c->kind->run(c);
}

/* ---- LIST, COPY ---- */

static void clone_list_done(struct metadata_request *q, int res)
{
	struct command *c = container_of(q, struct clone_work, list)->command;
	if (res != 0)
		command_refuse_store(c, res);
	c->kind->run(c);
}

static void clone_list(struct command *c)
{
	struct clone_work *w = c->clone;
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&c->volume->facts.uuid, uuid);
	snprintf(w->prefix, sizeof(w->prefix), CHUNK_PREFIX, uuid);
	w->list = (struct metadata_request){.op = METADATA_LIST, .key = w->prefix, .done = clone_list_done};
	metadata_submit(c->set->metadata, &w->list);
}

static bool clone_has_all(const struct volume_facts *clone, const json_t *disks)
{
	bool has_all = json_array_size(disks) > 0;
	for (size_t i = 0; i < json_array_size(disks); i++) {
		struct uuid uuid;
		const char *disk = json_string_value(json_array_get(disks, i));
		has_all &= disk && uuid_from_text(disk, &uuid) == 0 && volume_facts_use_disk(clone, &uuid);
	}
	return has_all;
}

/* The chunk without the segments on disks that the clone does not have. NULL: no memory, or it cannot be read. */
static char *clone_chunk(const struct volume_facts *clone, const char *text)
{
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *disks;
	json_t *segments = json_object_get(root, "segments");
	const char *name;
	void *next;
	json_object_foreach_safe(segments, next, name, disks)
	{
		if (!clone_has_all(clone, disks))
			json_object_del(segments, name);
	}
	char *copy = json_is_object(segments) ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return copy;
}

static void clone_copied(struct metadata_request *q, int res)
{
	struct command *c = container_of(transaction_of(q), struct command, transaction);
	transaction_clear(&c->transaction);
	if (res == -ETIMEDOUT && ++c->tries < COPY_TRIES_MAX) /* puts may be repeated */
		c->clone->next = c->clone->from;
	else if (res != 0)
		command_refuse_store(c, res);
	c->kind->run(c);
}

/* FLOW_NEXT: all are copied, or it has failed. */
static enum flow clone_copy(struct command *c)
{
	struct clone_work *w = c->clone;
	char uuid[UUID_TEXT_BYTES];
	if (c->err != 0 || w->next >= w->list.n_items)
		return FLOW_NEXT;
	uuid_to_text(&w->clone->facts.uuid, uuid);
	w->from = w->next;
	transaction_begin(&c->transaction, clone_copied);
	for (uint32_t n = 0; n < METADATA_CHANGES_MAX && w->next < w->list.n_items; n++, w->next++) {
		const struct metadata_item *item = &w->list.items[w->next];
		uint32_t number = (uint32_t)strtoul(item->key + strlen(w->prefix), NULL, 10);
		transaction_put(&c->transaction, clone_chunk(&w->clone->facts, item->value), CHUNK_KEY, uuid, number);
	}
	if (transaction_submit(&c->transaction, c->set->metadata) == 0)
		return FLOW_WAIT;
	command_refuse(c, -EIO, "failed", "the placement of volume %s cannot be copied: no memory, or it is damaged",
		       c->volume->facts.name);
	return FLOW_NEXT;
}

/* ---- FORK, RECORD ---- */

static void clone_forked(struct fork *f, int res)
{
	struct command *c = f->context;
	if (res != 0)
		command_refuse(c, res == -ENOSPC ? -ENOSPC : -EIO, res == -ENOSPC ? "no-space" : "failed",
			       "a disk of volume %s refused the clone: %s", c->volume->facts.name, strerror(-res));
	c->kind->run(c);
}

/* Disks that the source has joined since the clone was born, which its record does not name: nobody would ever ask them for
 * what they have of it. */
static uint64_t clone_lacks(const struct command *c)
{
	const struct volume_facts *facts = &c->clone->clone->facts;
	uint64_t disks = UINT64_MAX;
	for (uint32_t i = 0; i < facts->n_disks; i++) {
		const struct set_disk *d = set_disk_by_uuid(c->set, &facts->disks[i].uuid);
		if (d && !facts->disks[i].is_left)
			disks &= ~(1ull << d->index);
	}
	return disks;
}

static void clone_fork(struct command *c)
{
	struct clone_work *w = c->clone;
	quarry_assert(w->clone->facts.is_deleting); /* invariant 1 */
	w->fork = (struct fork){.volume = c->volume->head,
				.from = c->snapshot->facts.tree,
				.to = w->clone->facts.live_tree,
				.to_volume = w->clone->facts.uuid,
				.left_out = clone_lacks(c),
				.epoch = w->clone->facts.epoch_base,
				.done = clone_forked,
				.context = c};
	fork_start(&w->fork);
}

/* A disk that has no current copy of the source has nothing of the clone; nor has one that was left out. */
static int clone_change(struct record_update *u, struct volume_facts *facts)
{
	const struct fork *fork = &container_of(u, struct command, update)->clone->fork;
	for (uint32_t i = 0; i < facts->n_disks; i++) {
		struct volume_disk_facts *known = &facts->disks[i];
		const struct set_disk *d = set_disk_by_uuid(fork->volume->set, &known->uuid);
		known->is_stale = !d || !(fork->disks >> d->index & 1);
		known->since = known->had_before = 0;
	}
	facts->is_deleting = false;
	facts->owner[0] = 0;
	return 0;
}

static void clone_extend(struct record_update *u, struct transaction *t)
{
	const struct command *c = container_of(u, struct command, update);
	transaction_condition(t, 0, VOLUME_NAME_KEY, c->order->other);
	transaction_put(t, cluster_to_json(&c->clone->clone->facts.uuid), VOLUME_NAME_KEY, c->order->other);
}

static void clone_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	if (res == -EAGAIN)
		command_refuse(c, -EEXIST, "exists", "volume %s exists: choose another name", c->order->other);
	else if (res != 0)
		command_refuse_store(c, res);
	c->kind->run(c);
}

static void clone_record(struct command *c)
{
	c->update.change = clone_change;
	c->update.extend = clone_extend;
	c->update.done = clone_recorded;
	record_update_start(&c->update, c->clone->clone);
}

/* What was born and is not recorded as good is removed. */
static void clone_give_up(struct command *c)
{
	struct set_volume *clone = c->clone ? c->clone->clone : NULL;
	quarry_assert(c->err != 0 || (clone && !clone->facts.is_deleting));
	if (c->err != 0 && clone && clone->facts.is_deleting)
		reap_start(clone);
}

/* ---- the dispatcher ---- */

/* What must hold whenever the dispatcher is entered: until RECORD the clone is what the reaper would remove (1). */
static void clone_work_check(const struct command *c)
{
	bool is_born = c->err == 0 && c->stage > CLONE_BIRTH && c->stage < CLONE_RECORD;
	quarry_assert(!is_born || (c->clone->clone && c->clone->clone->facts.is_deleting));
	quarry_assert(!is_born || c->volume->head); /* forks are sent in its sessions */
}

static void clone_run(struct command *c)
{
	for (;;) {
		clone_work_check(c);
		if (c->err != 0 && c->stage > CLONE_CHECK && c->stage < CLONE_RECORD)
			c->stage = CLONE_RECORD;
		switch ((enum clone_stage)c->stage) {
		case CLONE_CHECK:
			if (command_settle_history(c, set_volume_find(c->set, c->order->targets[0].volume)) ==
			    FLOW_WAIT)
				return;
			c->stage = c->err == 0 && clone_check(c) == 1 ? CLONE_ATTACH : CLONE_END;
			c->order->is_unchanged = c->err == 0 && c->stage == CLONE_END;
			if (c->stage == CLONE_ATTACH && !c->volume->head) {
				struct attach_options o = {.is_return = true};
				volume_attach(c->volume, &o, clone_attached, c);
				return;
			}
			break;
		case CLONE_ATTACH:
			c->stage = CLONE_HOLD;
			c->clone->hold.held = clone_held;
			places_hold(c->volume->head, &c->clone->hold);
			return;
		case CLONE_HOLD:
			c->stage = CLONE_BIRTH;
			clone_birth(c);
			return;
		case CLONE_BIRTH:
			c->stage = CLONE_LIST;
			clone_list(c);
			return;
		case CLONE_LIST:
			c->stage = CLONE_COPY;
			break;
		case CLONE_COPY:
			if (clone_copy(c) == FLOW_WAIT)
				return;
			c->stage = CLONE_FORK;
			if (c->err != 0)
				break;
			clone_fork(c);
			return;
		case CLONE_FORK:
			c->stage = CLONE_RECORD;
			clone_record(c);
			return;
		case CLONE_RECORD:
			clone_give_up(c);
			if (c->volume->head)
				places_let_go(c->volume->head, &c->clone->hold);
			c->stage = CLONE_DETACH;
			if (c->is_attached_here) {
				volume_detach(c->volume, false, clone_detached, c);
				return;
			}
			break;
		case CLONE_DETACH:
			c->stage = CLONE_END;
			break;
		case CLONE_END:
			command_end(c);
			return;
		}
	}
}

const struct command_kind command_clone = {
    .name = "volume clone", .run = clone_run, .decide = clone_birth_decide, .apply = clone_birth_apply};
