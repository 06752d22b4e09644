/*
 * request_change.c: the stages of a disk request that change something: each makes its record, applies it and hands it
 * to the journal, all in the turn in which everything it needs was at hand.
 *
 * Invariants
 *  1. Nothing is taken, appended or changed before all that may have to wait was asked for; what was taken is given
 *     back when a later question must wait.
 *  2. A command that finds its wish fulfilled succeeds without a record (P6): then its flush alone makes the earlier
 *     one durable.
 */
#include "volumes/disk/requests_internal.h"

#include "daemon/core/checksum.h"

#include <errno.h>
#include <string.h>

/* ---- writes, and copies of what another disk has ---- */

static bool block_is_zero(const struct disk_io *io, uint32_t i)
{
	return i < DISK_IO_BLOCKS_MAX && io->zero_blocks >> i & 1;
}

static uint64_t block_epoch(const struct disk_io *io, uint32_t i)
{
	return io->op == DISK_COPY ? io->epochs[i] : io->epoch;
}

/* A write of zeros where only holes are changes nothing, nor does a copy of holes that are there. 1: so it is; 0: it
 * changes something; -EEXIST: a copy would replace what is newer, so none of it is made. */
static int write_is_nothing(struct disk_io *io, uint64_t all)
{
	bool is_copy = io->op == DISK_COPY, is_nothing = io->zero_blocks == all && io->n_blocks <= DISK_IO_BLOCKS_MAX;
	if (!is_nothing && !is_copy)
		return 0;
	int res = tree_get(io->tree, io->first, (uint32_t)io->n_blocks, io->own.pointers, &io->own.waiter);
	if (res < 0)
		return res;
	for (uint32_t i = 0; i < io->n_blocks; i++) {
		struct pointer p = io->own.pointers[i];
		if (is_copy && pointer_epoch(p) >= io->before)
			return -EEXIST;
		if (!pointer_is_hole(p) || (is_copy && pointer_epoch(p) != io->epochs[i]))
			is_nothing = false;
	}
	return is_nothing;
}

struct taken { /* blocks taken for one write */
	struct run runs[DISK_WRITE_BLOCKS_MAX];
	uint32_t first[DISK_WRITE_BLOCKS_MAX]; /* of the request, for each run */
	uint32_t n;
};

static void taken_give_back(struct disk *d, struct taken *taken)
{
	while (taken->n > 0)
		space_give_back(&d->space, taken->runs[--taken->n]);
}

/* Takes blocks for all that is not zero; pointers are filled. */
static int write_take_blocks(struct disk_io *io, struct taken *taken)
{
	struct disk *d = io->own.disk;
	taken->n = 0;
	for (uint32_t i = 0; i < io->n_blocks;) {
		if (block_is_zero(io, i)) {
			io->own.pointers[i] = pointer_make(0, 0, block_epoch(io, i));
			i++;
			continue;
		}
		uint32_t n = 1;
		while (i + n < io->n_blocks && !block_is_zero(io, i + n))
			n++;
		struct run *run = &taken->runs[taken->n];
		int res = space_alloc(&d->space, SPACE_DATA, n, run, &io->own.waiter);
		if (res < 0) {
			taken_give_back(d, taken);
			return res;
		}
		taken->first[taken->n++] = i;
		for (uint32_t k = 0; k < run->n_blocks; k++, i++)
			io->own.pointers[i] = pointer_make(io->crcs[i], run->block + k, block_epoch(io, i));
	}
	return 0;
}

/* The sum over all data of the record [RECSUM]. */
static uint64_t write_sum(const struct disk_io *io, const struct taken *taken)
{
	uint64_t sum = 0;
	for (uint32_t r = 0; r < taken->n; r++) {
		struct iovec cut[DISK_IOV_MAX];
		uint32_t n = iov_cut(io->iov, io->n_iov, (uint64_t)taken->first[r] * BLOCK_BYTES,
				     (uint64_t)taken->runs[r].n_blocks * BLOCK_BYTES, cut, DISK_IOV_MAX);
		for (uint32_t i = 0; i < n; i++)
			sum = crc64(sum, cut[i].iov_base, cut[i].iov_len);
	}
	return sum;
}

static enum flow change_write(struct disk_io *io)
{
	struct disk *d = io->own.disk;
	uint64_t all = io->n_blocks >= 64 ? UINT64_MAX : (1ull << io->n_blocks) - 1;
	struct record r = {.type = RECORD_WRITE,
			   .slot = io->tree->slot,
			   .first = io->first,
			   .n_blocks = io->n_blocks,
			   .pointers = io->own.pointers,
			   .is_ordered = io->is_ordered};
	struct taken taken;
	quarry_assert((io->zero_blocks & ~all) == 0);
	int res = write_is_nothing(io, all);
	if (res == 1) {
		io->own.err = 0;
		return FLOW_NEXT;
	}
	if (res == 0) {
		if (!writer_has_room(&d->writer, (uint32_t)io->n_blocks, &io->own.waiter) ||
		    !journal_has_room(&d->journal, 1, record_bytes(&r), &io->own.waiter))
			return FLOW_WAIT;
		res = record_prepare(d, &r, false, &io->own.waiter);
	}
	if (res == 0)
		res = write_take_blocks(io, &taken);
	if (res == -EAGAIN)
		return FLOW_WAIT;
	io->own.err = res;
	if (res < 0)
		return FLOW_NEXT;
	r.sum = write_sum(io, &taken);
	io->own.sequence = journal_append(&d->journal, &r);
	res = record_apply(d, &r, false);
	quarry_assert(res == 0);
	for (uint32_t i = 0; i < taken.n; i++)
		writer_add(&d->writer, io, taken.first[i], taken.runs[i]);
	return FLOW_NEXT;
}

/* ---- records without data ---- */

int request_record(struct disk_io *io, const struct record *r)
{
	struct disk *d = io->own.disk;
	if (!journal_has_room(&d->journal, 1, record_bytes(r), &io->own.waiter))
		return -EAGAIN;
	int res = record_prepare(d, r, false, &io->own.waiter);
	if (res < 0)
		return res;
	io->own.sequence = journal_append(&d->journal, r);
	res = record_apply(d, r, false);
	quarry_assert(res == 0); /* it was prepared in this very turn */
	return 0;
}

/* ---- trims ---- */

static void step_to(struct disk_io *io, uint64_t cursor)
{
	io->own.cursor = cursor;
	io->own.is_growing = false;
}

void request_step_over(struct disk_io *io)
{
	quarry_assert(io->own.is_growing);
	io->own.has_skipped = true;
	step_to(io, min_u64(io->first + io->n_blocks, leaf_start(io->own.cursor) + PAGE_POINTERS));
}

/* May the leaf at the cursor be changed? 1; 0: not before there is room for a copy that stays, which the dispatcher looks
 * for; -EAGAIN: waits; or -errno. */
static int step_is_allowed(struct disk_io *io, uint64_t end)
{
	struct disk *d = io->own.disk;
	uint64_t leaf = leaf_start(io->own.cursor);
	bool is_whole = leaf >= io->first && leaf + PAGE_POINTERS <= end; /* then the leaf goes, and needs no copy */
	if (io->tree->record.fork_epoch == 0 || io->own.is_growing ||
	    space_has_room_to_grow(&d->space, disk_n_dirty(d)))
		return 1;
	int res = tree_path_is_private(io->tree, leaf, is_whole ? 2 : 1, &io->own.waiter);
	io->own.is_growing = res == 0;
	return res;
}

/* Trims the request's part of the leaf at the cursor. 0; -EAGAIN: waits; or -errno. */
static int step_leaf(struct disk_io *io, uint64_t end)
{
	uint64_t leaf = leaf_start(io->own.cursor);
	uint64_t from = max_u64(io->first, leaf), to = min_u64(end, leaf + PAGE_POINTERS);
	struct record r = {
	    .type = RECORD_RANGE, .slot = io->tree->slot, .first = from, .n_blocks = to - from, .epoch = io->epoch};
	int res = request_record(io, &r);
	if (res == 0)
		step_to(io, to);
	return res;
}

enum flow request_step(struct disk_io *io, uint32_t steps)
{
	struct disk *d = io->own.disk;
	uint64_t end = io->first + io->n_blocks;
	while (io->own.cursor < end) {
		struct disk_extent piece;
		/* Every leaf frees up to 256 blocks: room is asked for each. The dispatcher looks for it again. */
		if (steps-- == 0 || !disk_has_change_room(d)) {
			reactor_defer(d->reactor, &io->own.op, 0);
			return FLOW_WAIT;
		}
		int res = tree_look(io->tree, io->own.cursor, end, 0, &piece, &io->own.waiter);
		if (res == 0 && !piece.is_data) { /* trimming a hole changes nothing */
			step_to(io, io->own.cursor + piece.n_blocks);
			continue;
		}
		if (res == 0)
			res = step_is_allowed(io, end);
		if (res == 0) {
			reactor_defer(d->reactor, &io->own.op, 0);
			return FLOW_WAIT;
		}
		if (res == 1)
			res = step_leaf(io, end);
		disk_watch_limits(d);
		if (res == -EAGAIN)
			return FLOW_WAIT;
		io->own.err = res;
		if (res < 0)
			return FLOW_NEXT;
	}
	return FLOW_NEXT;
}

/* ---- commands: one record each ---- */

/* The record of a command that is yet to be carried out. 0; 1: it is already as wished; -errno. */
static int command_record(struct disk_io *io, struct record *r)
{
	struct disk *d = io->own.disk;
	struct disk_volume *v = disk_volume_find(d, &io->volume);
	int32_t slot;
	*r = (struct record){.volume = io->volume,
			     .tree_id = io->tree_id,
			     .parent_id = io->parent_id,
			     .epoch = io->epoch,
			     .generation = io->generation,
			     .size_blocks = io->size_blocks};
	switch (io->op) {
	case DISK_CREATE:
	case DISK_FORK:
		io->new_tree = disk_tree_find(d, &io->volume, io->tree_id);
		if (io->new_tree)
			return 1;
		slot = disk_slot_for_tree(d);
		if (slot < 0)
			return slot;
		r->type = io->op == DISK_CREATE ? RECORD_CREATE : RECORD_FORK;
		r->slot = io->op == DISK_CREATE ? (uint32_t)slot : io->tree->slot;
		r->child_slot = (uint32_t)slot;
		io->own.slot = (uint32_t)slot;
		return io->op == DISK_FORK && io->epoch < io->tree->last_epoch ? -EINVAL : 0;
	case DISK_DROP:
		*r = (struct record){.type = RECORD_DROP, .slot = io->tree->slot};
		return 0;
	case DISK_FENCE:
		if (v && io->generation < v->record.generation)
			return -ESTALE;
		slot = v ? (int32_t)(v - d->volumes) : disk_slot_for_volume(d);
		if (slot < 0)
			return slot;
		r->type = RECORD_FENCE;
		r->slot = (uint32_t)slot;
		r->session = io->new_session = v ? v->record.session + 1 : 1;
		io->complete_epoch = v ? v->record.complete_epoch : 0;
		io->generation_was = v ? v->record.generation : 0;
		io->is_suspect = v && v->record.power_losses < d->superblock.power_losses;
		return 0;
	case DISK_COMPLETE:
	case DISK_FORGET:
		if (!v)
			return io->op == DISK_FORGET ? 1 : -ENOENT;
		r->type = io->op == DISK_COMPLETE ? RECORD_COMPLETE : RECORD_FORGET;
		r->slot = (uint32_t)(v - d->volumes);
		return 0;
	case DISK_SWAP:
		return request_swap_record(io, r);
	case DISK_READ:
	case DISK_HEAL:
	case DISK_WRITE:
	case DISK_TRIM:
	case DISK_MAP:
	case DISK_MEASURE:
	case DISK_FLUSH:
	case DISK_STAMPS:
	case DISK_COPY:
	case DISK_COPY_HOLES:
	case DISK_CUT:
		break;
	}
	return -EINVAL;
}

static enum flow change_command(struct disk_io *io)
{
	struct disk *d = io->own.disk;
	struct record r;
	int res = command_record(io, &r);
	bool is_done = res == 1;
	if (res == 0)
		res = request_record(io, &r);
	if (res == -EAGAIN)
		return FLOW_WAIT;
	if (res < 0 || is_done) {
		io->own.err = res < 0 ? res : 0;
		io->own.sequence = journal_last(&d->journal); /* the record that fulfilled it may still be on its way */
		return FLOW_NEXT;
	}
	if (io->op == DISK_CREATE || io->op == DISK_FORK)
		io->new_tree = disk_tree_at(d, io->own.slot);
	return FLOW_NEXT;
}

enum flow request_change(struct disk_io *io)
{
	return io->op == DISK_WRITE || io->op == DISK_COPY ? change_write(io) : change_command(io);
}
