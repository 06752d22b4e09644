/*
 * record_apply.c: what each journal record does to the disk's state in memory; the same code live and in replay.
 *
 * Invariants
 *  1. A record is applied in the turn in which record_prepare() said 0, and then cannot fail. In replay it may not fit
 *     (its blocks in use, its tree missing): that is damage, found here or never.
 *  2. What a record does depends on nothing but the state it meets: replaying in order repeats what was done live.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- slots ---- */

int disk_grow_slots(struct disk *d, uint32_t n_trees, uint32_t n_volumes)
{
	if (n_trees > d->tree_table.n_slots && table_grow(&d->tree_table, n_trees))
		return -ENOMEM;
	if (n_volumes > d->volume_table.n_slots && table_grow(&d->volume_table, n_volumes))
		return -ENOMEM;
	if (d->tree_table.n_slots > d->n_tree_slots) {
		struct disk_tree **trees = realloc(d->trees, d->tree_table.n_slots * sizeof(*trees));
		if (!trees)
			return -ENOMEM;
		memset(trees + d->n_tree_slots, 0, (d->tree_table.n_slots - d->n_tree_slots) * sizeof(*trees));
		d->trees = trees;
		d->n_tree_slots = d->tree_table.n_slots;
	}
	if (d->volume_table.n_slots > d->n_volume_slots) {
		struct disk_volume *volumes = realloc(d->volumes, d->volume_table.n_slots * sizeof(*volumes));
		if (!volumes)
			return -ENOMEM;
		memset(volumes + d->n_volume_slots, 0,
		       (d->volume_table.n_slots - d->n_volume_slots) * sizeof(*volumes));
		d->volumes = volumes;
		d->n_volume_slots = d->volume_table.n_slots;
	}
	disk_set_reserve(d);
	return 0;
}

struct disk_tree *disk_tree_at(struct disk *d, uint32_t slot)
{
	return slot < d->n_tree_slots ? d->trees[slot] : NULL;
}

static struct disk_tree *live_tree_at(struct disk *d, uint32_t slot)
{
	struct disk_tree *t = disk_tree_at(d, slot);
	return t && t->record.state == TREE_LIVE ? t : NULL;
}

int32_t disk_slot_for_tree(struct disk *d)
{
	for (uint32_t i = 0; i < d->n_tree_slots; i++)
		if (!d->trees[i])
			return (int32_t)i;
	uint32_t n = d->n_tree_slots;
	if (n >= DISK_TREES_MAX || disk_grow_slots(d, n + 1, 0))
		return -ENOSPC;
	return (int32_t)n;
}

int32_t disk_slot_for_volume(struct disk *d)
{
	for (uint32_t i = 0; i < d->n_volume_slots; i++)
		if (!d->volumes[i].is_used)
			return (int32_t)i;
	uint32_t n = d->n_volume_slots;
	if (n >= DISK_VOLUMES_MAX || disk_grow_slots(d, 0, n + 1))
		return -ENOSPC;
	return (int32_t)n;
}

struct disk_volume *disk_volume_find(struct disk *d, const struct uuid *volume)
{
	for (uint32_t i = 0; i < d->n_volume_slots; i++)
		if (d->volumes[i].is_used && uuid_equal(&d->volumes[i].record.volume, volume))
			return &d->volumes[i];
	return NULL;
}

struct disk_tree *disk_tree_add(struct disk *d, uint32_t slot, const struct tree_record *r)
{
	quarry_assert(slot < d->n_tree_slots && !d->trees[slot]);
	struct disk_tree *t = calloc(1, sizeof(*t));
	quarry_assert(t);
	t->record = *r;
	t->slot = slot;
	t->disk = d;
	t->volume_slot = -1;
	t->last_epoch = max_u64(r->fork_epoch, pointer_epoch(r->root));
	list_init(&t->waiters);
	list_init(&t->dying);
	d->trees[slot] = t;
	d->n_trees++;
	if (r->state == TREE_DYING)
		list_append(&d->dying, &t->dying);
	return t;
}

void disk_tree_begin_drop(struct disk_tree *t)
{
	t->record.state = TREE_DYING;
	t->record.drop_cursor = 0;
	disk_tree_mark_dirty(t);
	list_append(&t->disk->dying, &t->dying);
	drop_poke(&t->disk->drop);
}

void disk_tree_end(struct disk_tree *t)
{
	quarry_assert(pointer_is_hole(t->record.root));
	list_remove(&t->dying);
	t->is_gone = true;
	disk_tree_mark_dirty(t);
}

/* ---- preparing ---- */

static int prepare_blocks(struct disk *d, const struct record *r, struct waiter *w)
{
	for (uint64_t i = 0; i < r->n_blocks; i++) {
		struct pointer p = r->pointers[i];
		if (pointer_is_hole(p))
			continue;
		if (!space_is_block(&d->space, pointer_block(p)))
			return -EBADMSG;
		int res = space_make_resident(&d->space, (uint32_t)(pointer_block(p) / COUNTS_PER_PAGE), w);
		if (res < 0)
			return res;
	}
	return 0;
}

static int prepare_leaves(struct disk *d, struct disk_tree *t, uint64_t first, uint64_t n_blocks, struct waiter *w)
{
	if (n_blocks == 0 || first + n_blocks > tree_span(TREE_HEIGHT_MAX) || first + n_blocks < first)
		return -EBADMSG;
	pages_guard(&d->pages);
	for (uint64_t leaf = leaf_start(first); leaf < first + n_blocks; leaf += PAGE_POINTERS) {
		int res = tree_prepare(t, leaf, w);
		if (res < 0)
			return res;
	}
	return 0;
}

int record_prepare(struct disk *d, const struct record *r, bool is_replay, struct waiter *w)
{
	struct disk_tree *t;
	int res = 0;
	switch (r->type) {
	case RECORD_WRITE:
	case RECORD_RANGE:
	case RECORD_HOLES:
		t = live_tree_at(d, r->slot);
		if (!t)
			return -EBADMSG;
		if (r->type == RECORD_WRITE && is_replay)
			res = prepare_blocks(d, r, w);
		if (r->type != RECORD_WRITE && leaf_start(r->first) + PAGE_POINTERS < r->first + r->n_blocks)
			return -EBADMSG;
		return res < 0 ? res : prepare_leaves(d, t, r->first, r->n_blocks, w);
	case RECORD_FORK:
		t = live_tree_at(d, r->slot);
		if (!t)
			return -EBADMSG;
		if (pointer_is_hole(t->record.root) || pointer_is_virtual(t->record.root))
			return 0;
		return space_can_change(&d->space, pointer_block(t->record.root), w);
	case RECORD_CREATE:
	case RECORD_DROP:
	case RECORD_FENCE:
	case RECORD_COMPLETE:
	case RECORD_FORGET:
	case RECORD_CLEAN:
	case RECORD_SWAP:
		return 0;
	case RECORD_DROP_STEP:
		break;
	}
	return -EBADMSG;
}

/* ---- applying ---- */

static int apply_write(struct disk *d, const struct record *r, bool is_replay)
{
	struct disk_tree *t = live_tree_at(d, r->slot);
	for (uint64_t i = 0; i < r->n_blocks; i++) {
		uint64_t block = pointer_block(r->pointers[i]);
		if (block == 0)
			continue;
		if (is_replay && space_claim(&d->space, block))
			return -EBADMSG;
		space_take(&d->space, block, 1);
	}
	tree_set(t, r->first, r->pointers, (uint32_t)r->n_blocks);
	return 0;
}

static int apply_create(struct disk *d, const struct record *r, uint32_t slot)
{
	struct tree_record record = {
	    .volume = r->volume, .tree_id = r->tree_id, .parent_id = r->parent_id, .state = TREE_LIVE};
	if (slot >= DISK_TREES_MAX || disk_grow_slots(d, slot + 1, 0))
		return -EBADMSG;
	if (d->trees[slot])
		return -EBADMSG;
	disk_tree_mark_dirty(disk_tree_add(d, slot, &record));
	return 0;
}

static int apply_fork(struct disk *d, const struct record *r)
{
	struct disk_tree *parent = live_tree_at(d, r->slot);
	struct record child = {.volume = r->volume, .tree_id = r->tree_id, .parent_id = parent->record.tree_id};
	if (r->epoch < parent->last_epoch || apply_create(d, &child, r->child_slot))
		return -EBADMSG;
	tree_fork(parent, d->trees[r->child_slot], r->epoch);
	return 0;
}

static int apply_swap(struct disk *d, const struct record *r)
{
	struct disk_tree *a = live_tree_at(d, r->slot), *b = live_tree_at(d, r->other_slot);
	if (!a || !b || a == b || !uuid_equal(&a->record.volume, &b->record.volume))
		return -EBADMSG;
	tree_swap(a, b);
	return 0;
}

static int apply_fence(struct disk *d, const struct record *r)
{
	if (r->slot >= DISK_VOLUMES_MAX || disk_grow_slots(d, 0, r->slot + 1))
		return -EBADMSG;
	struct disk_volume *v = &d->volumes[r->slot];
	if (v->is_used && !uuid_equal(&v->record.volume, &r->volume))
		return -EBADMSG;
	disk_volume_mark_dirty(d, v);
	if (!v->is_used)
		*v = (struct disk_volume){.slot = r->slot,
					  .is_used = true,
					  .is_dirty = true,
					  .record = {.volume = r->volume, .power_losses = d->superblock.power_losses}};
	v->record.generation = r->generation;
	v->record.session = r->session;
	d->n_sessions++;
	v->record.size_blocks = r->size_blocks;
	return 0;
}

static struct disk_volume *volume_at(struct disk *d, const struct record *r)
{
	if (r->slot >= d->n_volume_slots || !d->volumes[r->slot].is_used)
		return NULL;
	return uuid_equal(&d->volumes[r->slot].record.volume, &r->volume) ? &d->volumes[r->slot] : NULL;
}

static int apply_volume(struct disk *d, const struct record *r)
{
	struct disk_volume *v = volume_at(d, r);
	if (!v)
		return -EBADMSG;
	disk_volume_mark_dirty(d, v);
	if (r->type == RECORD_FORGET) {
		v->is_used = false;
		d->n_sessions++;
	} else {
		v->record.complete_epoch = max_u64(v->record.complete_epoch, r->epoch);
		v->record.power_losses =
		    d->superblock.power_losses; /* all it has is durable, and what others had [INTACT] */
	}
	return 0;
}

int record_apply(struct disk *d, const struct record *r, bool is_replay)
{
	int res = 0;
	switch (r->type) {
	case RECORD_WRITE:
		res = apply_write(d, r, is_replay);
		break;
	case RECORD_RANGE:
		tree_trim_in_leaf(live_tree_at(d, r->slot), r->first, r->n_blocks, r->epoch);
		break;
	case RECORD_HOLES:
		tree_hole_in_leaf(live_tree_at(d, r->slot), r->first, r->n_blocks, r->epoch);
		break;
	case RECORD_SWAP:
		res = apply_swap(d, r);
		break;
	case RECORD_CREATE:
		res = apply_create(d, r, r->slot);
		break;
	case RECORD_FORK:
		res = apply_fork(d, r);
		break;
	case RECORD_DROP:
		if (!live_tree_at(d, r->slot))
			return -EBADMSG;
		disk_tree_begin_drop(d->trees[r->slot]);
		break;
	case RECORD_FENCE:
		res = apply_fence(d, r);
		break;
	case RECORD_COMPLETE:
	case RECORD_FORGET:
		res = apply_volume(d, r);
		break;
	case RECORD_CLEAN:
		break;
	case RECORD_DROP_STEP:
		res = -EBADMSG;
		break;
	}
	quarry_assert(res == 0 || is_replay);
	return res;
}
