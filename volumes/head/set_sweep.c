/*
 * set_sweep.c: the command that deletes a snapshot, and the set's own that drops its trees.
 *
 *   delete   CHECK -> RECORD -> END         the key says "deleting": from now on nobody finds it, and it is never back
 *   sweep    CHECK -> ATTACH -> DROP* -> FORGET* -> DETACH -> END
 *
 *   DROP     on every disk: what the record does not name; the disk frees it in the background, across restarts
 *   FORGET   the keys, when every disk of the volume has dropped; while one is missing they stay, and the next start
 *            tries again
 *
 * A delete answers after RECORD. The sweep is ordered by the set itself and stands in the same line as people's
 * commands, so nothing else attaches or detaches the volume meanwhile. A volume that nobody uses is attached for it.
 *
 * Invariant: a key goes only after its tree is dropped, durably, on every disk that the record names.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- delete ---- */

enum snapshot_delete_stage { DELETE_CHECK, DELETE_DRAIN, DELETE_WAIT };

static int delete_change(struct record_update *u, struct volume_facts *facts)
{
	const struct command *c = container_of(u, struct command, update);
	bool used[LINES_MAX];
	facts->history++;
	c->snapshot->facts.is_deleting = true; /* set again below, when the store has it */
	snapshots_mark_lines(c->volume, facts, used);
	c->snapshot->facts.is_deleting = false;
	history_prune(facts, used);
	return 0;
}

static void delete_extend(struct record_update *u, struct transaction *t)
{
	const struct command *c = container_of(u, struct command, update);
	struct snapshot_facts facts = c->snapshot->facts;
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&c->volume->facts.uuid, uuid);
	facts.is_deleting = true;
	facts.is_temporary = false;
	facts.attached_nbd[0] = 0;
	transaction_put(t, snapshot_to_json(&facts), SNAPSHOT_KEY, uuid, (unsigned long long)facts.tree);
	if (!c->order->is_internal) /* what a schedule thins out nobody asks for again */
		deleted_put(c->set, t, &c->deleted);
}

static void delete_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	if (res != 0) {
		command_refuse_store(c, res);
	} else {
		c->snapshot->facts.is_temporary = false;
		c->snapshot->facts.attached_nbd[0] = 0;
		snapshot_mark_deleting(c->snapshot);
		c->snapshot->facts.revision = u->revision;
		if (!c->order->is_internal)
			deleted_add(c->set, &c->deleted);
		log_event(c->set->log, LOG_INFO, "snapshot-deleted", c->volume->facts.name,
			  "snapshot %s of volume %s is deleted; its space is freed in the background",
			  c->snapshot->facts.name, c->volume->facts.name);
		sweep_want(c->volume);
	}
	c->kind->run(c);
}

/* 1: go on; 0: it is done already; -errno. */
static int snapshot_delete_check(struct command *c)
{
	const struct set_target *t = &c->order->targets[0];
	struct set_volume *entry = set_volume_find(c->set, t->volume);
	char name[SNAPSHOT_NAME_BYTES];
	text_print(name, sizeof(name), "%s@%s", t->volume, t->snapshot);
	c->order->is_unchanged = !(entry && snapshot_find(entry, t->snapshot)) && deleted_has(c->set, "snapshot", name);
	if (c->order->is_unchanged)
		return 0;
	c->deleted = deleted_make("snapshot", name);
	if (command_find_snapshot(c) != 0)
		return c->err;
	const struct set_snapshot *snap = c->snapshot;
	if (command_check_here(c, c->volume) != 0)
		return c->err;
	if (snapshot_is_left(snap))
		return 1;
	if (snapshot_is_attached(snap))
		return command_refuse(c, -EBUSY, "in-use",
				      "snapshot %s@%s is attached: detach it first (quarry volume detach %s@%s)",
				      c->volume->facts.name, snap->facts.name, c->volume->facts.name, snap->facts.name);
	if (snap->head)
		return command_refuse(c, -EBUSY, "in-use",
				      "snapshot %s@%s is being compared with another (an NBD client or a diff reads "
				      "what changed since): try again when that has ended",
				      c->volume->facts.name, snap->facts.name);
	return 1;
}

static void delete_record(struct command *c)
{
	c->stage = DELETE_WAIT;
	c->update.change = delete_change;
	c->update.extend = delete_extend;
	c->update.done = delete_recorded;
	record_update_start(&c->update, c->volume);
}

static void snapshot_delete_run(struct command *c)
{
	if (c->stage == DELETE_CHECK) {
		if (command_settle_history(c, set_volume_find(c->set, c->order->targets[0].volume)) == FLOW_WAIT)
			return;
		c->stage = DELETE_WAIT;
		if (c->err == 0 && snapshot_delete_check(c) == 1) {
			c->stage = DELETE_DRAIN;
			if (c->snapshot->is_served) /* for somebody who is gone; and nobody else comes in now */
				return export_drain(c, c->snapshot);
		}
	}
	if (c->stage == DELETE_DRAIN)
		return delete_record(c);
	command_end(c);
}

const struct command_kind command_snapshot_delete = {.name = "snapshot delete", .run = snapshot_delete_run};

/* ---- sweep ---- */

#define SWEEP_STAGES(X) X(CHECK) X(ATTACH) X(DROP) X(FORGET) X(DETACH) X(END)
#define X(name)         SWEEP_##name,
enum sweep_stage { SWEEP_STAGES(X) };
#undef X

#define FORGET_MAX (METADATA_CHANGES_MAX - 1u) /* keys of one transaction; one change is the record */

struct sweep_work {
	uint32_t disk;
	bool is_partial; /* a disk of the volume could not be swept */
	struct tree_batch *batch;
	uint64_t trees[FORGET_MAX]; /* being forgotten */
	uint32_t n_trees;
};

void sweep_work_free(struct sweep_work *w)
{
	if (!w)
		return;
	tree_batch_abandon(w->batch);
	free(w);
}

static void sweep_attached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	c->is_attached_here = res == 0;
	if (res != 0)
		command_refuse(c, -EIO, "failed", "volume %s: %s", entry->facts.name, entry->why);
	c->kind->run(c);
}

static void sweep_detached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	c->kind->run(c);
}

static bool sweep_has_work(const struct set_volume *entry)
{
	list_each (node, &entry->snapshots)
		if (container_of(node, struct set_snapshot, link)->facts.is_deleting)
			return true;
	return false;
}

/* 1: there is something to do. */
static int sweep_check(struct command *c)
{
	if (!command_find_own(c) || c->volume->facts.is_deleting || c->volume->is_history_short ||
	    !sweep_has_work(c->volume) || set_volume_is_elsewhere(c->volume))
		return 0;
	c->sweep = calloc(1, sizeof(*c->sweep));
	return c->sweep != NULL;
}

static void sweep_dropped(void *context, int res)
{
	struct command *c = context;
	c->sweep->batch = NULL;
	c->volume->head->is_dropping = false;
	c->sweep->is_partial |= res != 0;
	c->kind->run(c);
}

static enum flow sweep_drop(struct command *c)
{
	struct sweep_work *w = c->sweep;
	struct volume *v = c->volume->head;
	quarry_assert(v && !w->batch);
	while (w->disk < SET_DISKS_MAX) {
		uint32_t disk = w->disk++;
		if (v->disks[disk].state == VOLUME_DISK_UNUSED)
			continue;
		bool is_stale =
		    v->disks[disk].state == VOLUME_DISK_STALE || v->disks[disk].state == VOLUME_DISK_SYNCING;
		if (is_stale) /* its resync drops what nobody names */
			continue;
		/* while a part of its trees is being cut they stay: the end of that asks for another sweep */
		w->batch = volume_disk_is_good(v, disk) && !move_is_switching(v) ? tree_batch_orphans(v, disk) : NULL;
		w->is_partial |= !w->batch;
		if (!w->batch)
			continue;
		v->is_dropping = true;
		tree_batch_start(w->batch, sweep_dropped, c);
		return FLOW_WAIT;
	}
	return FLOW_NEXT;
}

static int forget_change(struct record_update *u, struct volume_facts *facts)
{
	facts->history++;
	return 0;
}

static void forget_extend(struct record_update *u, struct transaction *t)
{
	const struct command *c = container_of(u, struct command, update);
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&c->volume->facts.uuid, uuid);
	for (uint32_t i = 0; i < c->sweep->n_trees; i++)
		transaction_delete(t, SNAPSHOT_KEY, uuid, (unsigned long long)c->sweep->trees[i]);
}

static void forget_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	if (res != 0)
		command_refuse_store(c, res);
	for (uint32_t i = 0; i < c->sweep->n_trees && res == 0; i++) {
		struct set_snapshot *snap = snapshot_by_tree(c->volume, c->sweep->trees[i]);
		if (snap)
			snapshot_remove(snap);
	}
	c->kind->run(c);
}

/* FLOW_NEXT: no key is left. */
static enum flow sweep_forget(struct command *c)
{
	struct sweep_work *w = c->sweep;
	w->n_trees = 0;
	list_each (node, &c->volume->snapshots) {
		const struct set_snapshot *snap = container_of(node, struct set_snapshot, link);
		if (snap->facts.is_deleting && w->n_trees < FORGET_MAX)
			w->trees[w->n_trees++] = snap->facts.tree;
	}
	if (w->n_trees == 0 || w->is_partial || c->err != 0)
		return FLOW_NEXT;
	c->update.generation = c->volume->head->generation;
	c->update.change = forget_change;
	c->update.extend = forget_extend;
	c->update.done = forget_recorded;
	record_update_start(&c->update, c->volume);
	return FLOW_WAIT;
}

/* What must hold whenever the dispatcher is entered. A key goes only when its tree is gone on every disk. */
static void sweep_work_check(const struct command *c)
{
	bool is_sweeping = c->stage == SWEEP_DROP || c->stage == SWEEP_FORGET;
	quarry_assert(!is_sweeping || (c->sweep && c->volume->head && !c->sweep->batch));
	quarry_assert(c->stage != SWEEP_FORGET || c->sweep->disk == SET_DISKS_MAX);
}

static void sweep_run(struct command *c)
{
	for (;;) {
		sweep_work_check(c);
		switch ((enum sweep_stage)c->stage) {
		case SWEEP_CHECK:
			c->stage = sweep_check(c) ? SWEEP_ATTACH : SWEEP_END;
			if (c->stage == SWEEP_ATTACH && !c->volume->head) {
				struct attach_options o = {.is_return = true};
				volume_attach(c->volume, &o, sweep_attached, c);
				return;
			}
			break;
		case SWEEP_ATTACH:
			c->stage = c->err ? SWEEP_DETACH : SWEEP_DROP;
			break;
		case SWEEP_DROP:
			if (sweep_drop(c) == FLOW_WAIT)
				return;
			c->stage = SWEEP_FORGET;
			break;
		case SWEEP_FORGET:
			if (sweep_forget(c) == FLOW_WAIT)
				return;
			c->stage = SWEEP_DETACH;
			if (c->is_attached_here) {
				volume_detach(c->volume, false, sweep_detached, c);
				return;
			}
			break;
		case SWEEP_DETACH:
			c->stage = SWEEP_END;
			break;
		case SWEEP_END:
			command_end(c);
			return;
		}
	}
}

const struct command_kind command_sweep = {.name = "sweep", .run = sweep_run};

/* ---- ordering it ---- */

void sweep_want(struct set_volume *entry)
{
	order_own(entry, SET_SWEEP);
}
