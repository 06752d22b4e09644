/*
 * request_copy.c: the stages of what a copy from another disk asks: stamps, holes, the swap of two trees, the cut of a
 * range. DISK_COPY itself is a write with other epochs: request_change.c.
 *
 * Invariants
 *  1. What a step changes it changes by one record inside one leaf, in the turn in which all it needs was at hand.
 *  2. A cut holds no tree from one turn to the next: it may have been dropped. It finds the one in its slot anew.
 */
#include "volumes/disk/requests_internal.h"

#include <errno.h>

/* Stamps looked up before others get their turn. */
#define STAMPS_A_TURN 512u

/* ---- stamps ---- */

/* Adds a stamp, or lengthens the last one; false: no room is left. */
static bool stamp_add(struct disk_io *io, const struct disk_stamp *s)
{
	struct disk_stamp *last = io->n_stamps > 0 ? &io->stamps[io->n_stamps - 1] : NULL;
	if (last && !s->is_data && !last->is_data && last->epoch == s->epoch) {
		last->n_blocks += s->n_blocks;
		return true;
	}
	if (io->n_stamps == io->stamps_max)
		return false;
	io->stamps[io->n_stamps++] = *s;
	return true;
}

enum flow request_stamp(struct disk_io *io)
{
	uint64_t end = io->first + io->n_blocks;
	for (uint32_t i = 0; io->own.cursor < end; i++) {
		struct disk_stamp s;
		if (i == STAMPS_A_TURN) {
			reactor_defer(io->own.disk->reactor, &io->own.op, 0);
			return FLOW_WAIT;
		}
		int res = tree_stamp(io->tree, io->own.cursor, end, &s, &io->own.waiter);
		if (res == -EAGAIN)
			return FLOW_WAIT;
		io->own.err = res;
		if (res < 0 || !stamp_add(io, &s))
			return FLOW_NEXT;
		io->own.cursor += s.n_blocks;
	}
	return FLOW_NEXT;
}

/* ---- holes ---- */

/* May this block become a hole of the request's epoch, and is it not one already? */
static bool hole_is_due(const struct disk_io *io, struct pointer p)
{
	bool is_there = pointer_is_hole(p) && pointer_epoch(p) == io->epoch;
	return !is_there && pointer_epoch(p) < io->before;
}

/* One record for the first blocks of [cursor, end) that are due, inside one leaf. 0; -EAGAIN: waits; or -errno. */
static int holes_in_leaf(struct disk_io *io, uint64_t end)
{
	struct pointer p[PAGE_POINTERS];
	uint64_t at = io->own.cursor;
	uint32_t n_here = (uint32_t)(min_u64(end, leaf_start(at) + PAGE_POINTERS) - at), from = 0, to;
	int res = tree_get(io->tree, at, n_here, p, &io->own.waiter);
	if (res < 0)
		return res;
	while (from < n_here && !hole_is_due(io, p[from]))
		from++;
	for (to = from; to < n_here && hole_is_due(io, p[to]);)
		to++;
	if (from < to) {
		struct record r = {.type = RECORD_HOLES,
				   .slot = io->tree->slot,
				   .first = at + from,
				   .n_blocks = to - from,
				   .epoch = io->epoch};
		res = request_record(io, &r);
		if (res < 0)
			return res;
	}
	io->own.cursor = at + to;
	return 0;
}

enum flow request_step_holes(struct disk_io *io, uint32_t steps)
{
	struct disk *d = io->own.disk;
	uint64_t end = io->first + io->n_blocks;
	while (io->own.cursor < end) {
		struct disk_stamp s;
		/* Every leaf may take a page: room is asked for each. The dispatcher looks for it again. */
		if (steps-- == 0 || !disk_has_change_room(d) || !space_has_room_to_grow(&d->space, disk_n_dirty(d))) {
			reactor_defer(d->reactor, &io->own.op, 0);
			return FLOW_WAIT;
		}
		int res = tree_stamp(io->tree, io->own.cursor, end, &s, &io->own.waiter);
		bool is_done = res == 0 && !s.is_data && (s.epoch == io->epoch || s.epoch >= io->before);
		if (is_done) /* however many there are */
			io->own.cursor += s.n_blocks;
		else if (res == 0)
			res = holes_in_leaf(io, end);
		disk_watch_limits(d);
		if (res == -EAGAIN)
			return FLOW_WAIT;
		io->own.err = res;
		if (res < 0)
			return FLOW_NEXT;
	}
	return FLOW_NEXT;
}

/* ---- the cut ---- */

/* The live tree of the volume in the first slot from the request's on; NULL: there is no more. */
static struct disk_tree *cut_find_tree(struct disk_io *io)
{
	struct disk *d = io->own.disk;
	for (; io->own.slot < d->n_tree_slots; io->own.slot++) {
		struct disk_tree *t = disk_tree_at(d, io->own.slot);
		if (t && t->record.state == TREE_LIVE && uuid_equal(&t->record.volume, &io->volume))
			return t;
		io->own.cursor = io->first;
	}
	return NULL;
}

enum flow request_step_cut(struct disk_io *io, uint32_t steps)
{
	quarry_assert(io->epoch == 0); /* what goes leaves no trace: the segment is no longer of this disk */
	while ((io->tree = cut_find_tree(io)) != NULL) {
		if (request_step(io, steps) == FLOW_WAIT)
			return FLOW_WAIT;
		if (io->own.err)
			return FLOW_NEXT;
		io->own.slot++;
		io->own.cursor = io->first;
	}
	return FLOW_NEXT;
}

/* ---- the swap ---- */

int request_swap_record(struct disk_io *io, struct record *r)
{
	struct disk_tree *other = disk_tree_find(io->own.disk, &io->tree->record.volume, io->tree_id);
	if (!other || other == io->tree)
		return other ? -EINVAL : -ENOENT;
	if (other->n_changes > 0 || io->tree->n_changes > 0)
		return -EBUSY;
	/* Ordered: when data that were copied into either are not whole after a crash, neither is their swap. */
	*r =
	    (struct record){.type = RECORD_SWAP, .slot = io->tree->slot, .other_slot = other->slot, .is_ordered = true};
	return 0;
}
