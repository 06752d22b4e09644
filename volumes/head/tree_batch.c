/*
 * tree_batch.c: makes or drops many trees of a volume on one disk, BATCH_WINDOW at a time.
 *
 * A disk answers each of these when it is durable, and one flush of the disk serves all that wait: so a disk that is
 * new to a volume with a thousand snapshots takes some dozens of flushes, not a thousand.
 *
 * Invariant: what is dropped is on the disk, belongs to the volume, and is named neither by its record nor by the key
 * of a snapshot that is kept; with a history that may be incomplete nothing is dropped. Of a disk that the volume has left
 * all is.
 *
 * Owner: whoever started it, until done().
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdlib.h>

#define BATCH_WINDOW 16u

struct batch_slot {
	struct replica_io rio;
	struct tree_batch *batch;
	bool is_busy;
};

struct tree_batch {
	struct volume *volume;
	uint32_t disk;
	enum disk_op op;
	uint64_t *ids;
	uint32_t n, room, next, owed;
	int err;
	bool is_out_of_memory;
	bool is_all;     /* whatever is there is dropped */
	bool is_listing; /* what is there is not known yet; then it is in: */
	struct replica_trees trees;
	struct op turn;
	void (*done)(void *context, int res);
	void *context;
	struct batch_slot slots[BATCH_WINDOW];
};

static void batch_run(struct tree_batch *b);

static void batch_turn(struct op *op, int res)
{
	batch_run(container_of(op, struct tree_batch, turn));
}

static void batch_answered(struct replica_io *rio, int res)
{
	struct batch_slot *slot = container_of(rio, struct batch_slot, rio);
	struct tree_batch *b = slot->batch;
	quarry_assert(slot->is_busy && b->owed > 0);
	slot->is_busy = false;
	b->owed--;
	/* a tree that is not there any more is dropped */
	if (res != 0 && b->err == 0 && !(b->op == DISK_DROP && res == -ENOENT))
		b->err = res;
	batch_run(b);
}

/* ---- what is to be done ---- */

static struct tree_batch *batch_create(struct volume *v, uint32_t disk, enum disk_op op)
{
	struct tree_batch *b = calloc(1, sizeof(*b));
	if (!b)
		return NULL;
	b->volume = v;
	b->disk = disk;
	b->op = op;
	op_init(&b->turn, batch_turn);
	for (uint32_t i = 0; i < BATCH_WINDOW; i++) {
		b->slots[i].batch = b;
		b->slots[i].rio.done = batch_answered;
	}
	return b;
}

static void batch_add(struct tree_batch *b, uint64_t id)
{
	if (b->n == b->room) {
		uint32_t room = b->room ? 2 * b->room : 16;
		uint64_t *ids = realloc(b->ids, room * sizeof(*ids));
		if (!ids) {
			b->is_out_of_memory = true;
			return;
		}
		b->ids = ids;
		b->room = room;
	}
	b->ids[b->n++] = id;
}

static struct tree_batch *batch_finish(struct tree_batch *b)
{
	if (!b->is_out_of_memory)
		return b;
	tree_batch_abandon(b);
	return NULL;
}

struct tree_batch *tree_batch_missing(struct volume *v, uint32_t disk)
{
	struct tree_batch *b = batch_create(v, disk, DISK_CREATE);
	if (!b)
		return NULL;
	batch_add(b, v->entry->facts.live_tree);
	if (!volume_facts_use_disk(&v->entry->facts, &v->set->disks[disk]->facts.uuid))
		list_each (node, &v->entry->snapshots) {
			const struct set_snapshot *snap = container_of(node, struct set_snapshot, link);
			if (!snap->facts.is_deleting)
				batch_add(b, snap->facts.tree);
		}
	return batch_finish(b);
}

/* Ids and snapshots are gone through side by side, both in order: each may be thousands. */
static void batch_add_orphans(struct tree_batch *b)
{
	const struct set_volume *entry = b->volume->entry;
	const struct replica_trees *t = &b->trees;
	const struct list *node = entry->snapshots.next;
	for (uint32_t i = 0; i < t->n; i++) {
		const struct snapshot_facts *f = NULL;
		quarry_assert(i == 0 || t->ids[i - 1] < t->ids[i]);
		for (; node != &entry->snapshots; node = node->next) {
			f = &container_of(node, struct set_snapshot, link)->facts;
			if (f->tree >= t->ids[i])
				break;
		}
		bool is_kept = node != &entry->snapshots && f->tree == t->ids[i] && !f->is_deleting;
		if (!is_kept && t->ids[i] != entry->facts.live_tree)
			batch_add(b, t->ids[i]);
	}
}

/* What the record says when they are about to be dropped is what counts. */
static void batch_listed(struct replica_trees *t, int res)
{
	struct tree_batch *b = container_of(t, struct tree_batch, trees);
	b->is_listing = false;
	b->err = res;
	for (uint32_t i = 0; i < t->n && res == 0 && b->is_all; i++)
		batch_add(b, t->ids[i]);
	if (res == 0 && !b->is_all && !b->volume->entry->is_history_short)
		batch_add_orphans(b);
	if (b->is_out_of_memory)
		b->err = -ENOMEM;
	batch_run(b);
}

struct tree_batch *tree_batch_orphans(struct volume *v, uint32_t disk)
{
	struct tree_batch *b = batch_create(v, disk, DISK_DROP);
	if (b)
		b->is_listing = true;
	return b;
}

struct tree_batch *tree_batch_all(struct volume *v, uint32_t disk)
{
	struct tree_batch *b = tree_batch_orphans(v, disk);
	if (b)
		b->is_all = true;
	return b;
}

/* ---- doing it ---- */

static void batch_submit(struct tree_batch *b, struct batch_slot *slot)
{
	struct volume *v = b->volume;
	uint64_t id = b->ids[b->next++];
	slot->rio.io.op = b->op;
	slot->rio.io.tree_id = slot->rio.tree = id; /* CREATE, DROP */
	slot->rio.io.parent_id = 0;
	slot->rio.io.epoch = b->op == DISK_CREATE ? v->epoch : 0;
	slot->is_busy = true;
	b->owed++;
	replica_submit(&v->disks[b->disk].replica, &slot->rio);
}

static void batch_check(const struct tree_batch *b)
{
	uint32_t n_busy = 0;
	for (uint32_t i = 0; i < BATCH_WINDOW; i++)
		n_busy += b->slots[i].is_busy;
	quarry_assert(n_busy == b->owed);
	quarry_assert(b->next <= b->n && b->n <= b->room);
}

static void batch_run(struct tree_batch *b)
{
	batch_check(b);
	if (b->is_listing) {
		b->trees.done = batch_listed;
		replica_trees_ask(&b->volume->disks[b->disk].replica, &b->trees);
		return;
	}
	bool is_running = set_disk_is_running(b->volume->set->disks[b->disk]);
	if (!is_running && b->err == 0)
		b->err = -EIO;
	for (uint32_t i = 0; i < BATCH_WINDOW && b->err == 0 && b->next < b->n; i++)
		while (!b->slots[i].is_busy && b->next < b->n)
			batch_submit(b, &b->slots[i]);
	if (b->owed > 0)
		return;
	void (*done)(void *context, int res) = b->done;
	void *context = b->context;
	int err = b->err;
	tree_batch_abandon(b);
	done(context, err);
}

void tree_batch_start(struct tree_batch *b, void (*done)(void *context, int res), void *context)
{
	quarry_assert(!b->done);
	b->done = done;
	b->context = context;
	reactor_defer(b->volume->set->reactor, &b->turn, 0);
}

void tree_batch_abandon(struct tree_batch *b)
{
	if (!b)
		return;
	replica_trees_clear(&b->trees);
	free(b->ids);
	free(b);
}
