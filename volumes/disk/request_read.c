/*
 * request_read.c: how a disk request finds its blocks, reads and verifies them, heals them, and how it maps a range.
 *
 * A read goes straight into the caller's memory, one operation per run of blocks that lie side by side, and is
 * verified there against the pointers that were looked up before. A block freed meanwhile keeps its bytes: the
 * checkpoint that would let it be reused waits for the reads of its side [PIN].
 *
 * Healing is a read the other way round: it finds and holds the blocks in the same way, and writes over them what their
 * pointers' checksums name. Cut short anywhere, it leaves a block that is as bad as it was. A block is healed once at a time:
 * two readers may come across it together.
 */
#include "volumes/disk/requests_internal.h"

#include "daemon/core/checksum.h"

#include <errno.h>
#include <string.h>

/* ---- read ---- */

static uint64_t run_blocks(const struct read_run *run)
{
	quarry_assert(run->n_blocks > 0 && run->first + run->n_blocks <= 64);
	return (run->n_blocks == 64 ? UINT64_MAX : (1ull << run->n_blocks) - 1) << run->first;
}

static void run_done(struct op *op, int res)
{
	struct read_run *run = container_of(op, struct read_run, op);
	struct disk_io *io = run->io;
	struct disk *d = io->own.disk;
	quarry_assert(io->own.owed > 0 && d->reads_in_flight[io->own.read_side] > 0);
	if (res == -EFAULT && io->is_shared) {
		io->own.err = -EBADMSG; /* the memory is gone, not the data */
	} else if (res < 0 && io->op == DISK_HEAL) {
		counter_add(&d->counters.io_errors, 1);
		io->bad_blocks |= run_blocks(run);
		io->own.err = -EIO; /* the block stays as bad as it was: no reason to give the disk up */
	} else if (res < 0) {
		counter_add(&d->counters.io_errors, 1);
		io->bad_blocks |= run_blocks(run);
		char tree[TREE_TEXT_BYTES];
		disk_tree_to_text(d, &io->tree->record.volume, io->tree->record.tree_id, tree);
		disk_report_damage(d, "data", pointer_block(io->own.pointers[run->first]),
				   "%u blocks from block %llu of %s cannot be read (error %d)", run->n_blocks,
				   (unsigned long long)(io->first + run->first), tree, -res);
	}
	list_append(&d->free_runs, &run->link);
	d->n_free_runs++;
	waiters_wake(d, &d->run_waiters, 0);
	if (--d->reads_in_flight[io->own.read_side] == 0 && io->own.read_side != d->read_side)
		checkpoint_poke(&d->checkpoint);
	if (--io->own.owed == 0)
		disk_io_wake(io);
}

/* Blocks from `first` that lie side by side on the disk, or that are all holes. */
static uint32_t run_length(const struct disk_io *io, uint32_t first)
{
	uint64_t block = pointer_block(io->own.pointers[first]);
	uint32_t n = 1;
	while (first + n < io->n_blocks && pointer_block(io->own.pointers[first + n]) == (block ? block + n : 0))
		n++;
	return n;
}

static void hole_fill(struct disk_io *io, uint32_t first, uint32_t n)
{
	uint32_t room = DISK_IOV_MAX - io->own.n_cut;
	struct iovec *cut = io->own.cut + io->own.n_cut;
	uint32_t n_cut =
	    iov_cut(io->iov, io->n_iov, (uint64_t)first * BLOCK_BYTES, (uint64_t)n * BLOCK_BYTES, cut, room);
	quarry_assert(n_cut > 0);
	for (uint32_t i = 0; i < n_cut; i++)
		memset(cut[i].iov_base, 0, cut[i].iov_len);
}

static void run_submit(struct disk_io *io, uint32_t first, uint32_t n)
{
	struct disk *d = io->own.disk;
	struct read_run *run = container_of(list_pop(&d->free_runs), struct read_run, link);
	struct iovec *cut = io->own.cut + io->own.n_cut;
	uint32_t n_cut = iov_cut(io->iov, io->n_iov, (uint64_t)first * BLOCK_BYTES, (uint64_t)n * BLOCK_BYTES, cut,
				 DISK_IOV_MAX - io->own.n_cut);
	quarry_assert(n_cut > 0);
	d->n_free_runs--;
	io->own.n_cut += n_cut;
	io->own.owed++;
	d->reads_in_flight[io->own.read_side]++;
	run->io = io;
	run->first = first;
	run->n_blocks = n;
	op_init(&run->op, run_done);
	uint64_t pos_bytes = pointer_block(io->own.pointers[first]) * BLOCK_BYTES;
	if (io->op == DISK_HEAL)
		file_write(d->file, &run->op, cut, n_cut, pos_bytes);
	else
		file_read(d->file, &run->op, cut, n_cut, pos_bytes);
}

static uint32_t block_checksum(const struct disk_io *io, uint32_t block)
{
	struct iovec cut[BLOCK_BYTES / SECTOR_BYTES];
	uint32_t n = iov_cut(io->iov, io->n_iov, (uint64_t)block * BLOCK_BYTES, BLOCK_BYTES, cut, array_size(cut)),
		 crc = 0;
	quarry_assert(n > 0); /* segments are multiples of 512 bytes */
	for (uint32_t i = 0; i < n; i++)
		crc = crc32c(crc, cut[i].iov_base, cut[i].iov_len);
	return crc;
}

static bool heal_holds(const struct read_run *run, uint64_t block)
{
	return run->io && run->op.kind != OP_NONE && run->io->op == DISK_HEAL &&
	       pointer_block(run->io->own.pointers[run->first]) == block;
}

/* Is one of its blocks just being healed for another? */
static bool heal_is_under_way(const struct disk_io *io)
{
	const struct disk *d = io->own.disk;
	for (uint32_t i = 0; i < io->n_blocks; i++)
		for (uint32_t r = 0; !pointer_is_hole(io->own.pointers[i]) && r < RUNS_MAX; r++)
			if (heal_holds(&d->runs[r], pointer_block(io->own.pointers[i])))
				return true;
	return false;
}

/* Writes those blocks that are what the tree's checksums name; there is nothing to heal in a hole. */
static void heal_submit(struct disk_io *io)
{
	for (uint32_t i = 0; i < io->n_blocks; i++) {
		struct pointer p = io->own.pointers[i];
		if (!pointer_is_hole(p) && block_checksum(io, i) == pointer_crc(p)) {
			run_submit(io, i, 1);
			continue;
		}
		io->bad_blocks |= 1ull << i;
		io->own.err = -EIO;
	}
}

enum flow request_look(struct disk_io *io)
{
	struct disk *d = io->own.disk;
	if (d->n_free_runs < io->n_blocks) {
		list_append(&d->run_waiters, &io->own.waiter.link);
		return FLOW_WAIT;
	}
	int res = tree_get(io->tree, io->first, (uint32_t)io->n_blocks, io->own.pointers, &io->own.waiter);
	if (res == -EAGAIN)
		return FLOW_WAIT;
	io->own.err = res;
	if (res < 0)
		return FLOW_NEXT;
	io->own.read_side = d->read_side;
	if (io->op == DISK_HEAL && heal_is_under_way(io)) {
		list_append(&d->run_waiters, &io->own.waiter.link);
		return FLOW_WAIT;
	}
	if (io->op == DISK_HEAL) {
		heal_submit(io);
		return FLOW_NEXT;
	}
	for (uint32_t i = 0, n; i < io->n_blocks; i += n) {
		n = run_length(io, i);
		if (pointer_is_hole(io->own.pointers[i]))
			hole_fill(io, i, n);
		else
			run_submit(io, i, n);
	}
	return FLOW_NEXT;
}

void request_verify(struct disk_io *io)
{
	struct disk *d = io->own.disk;
	if (io->op == DISK_HEAL)
		return; /* what it wrote was verified before */
	for (uint32_t i = 0; i < io->n_blocks; i++) {
		struct pointer p = io->own.pointers[i];
		if (pointer_is_hole(p) || io->bad_blocks >> i & 1)
			continue;
		if (block_checksum(io, i) == pointer_crc(p))
			continue;
		if (io->is_shared) { /* perhaps it was written to: read it again where nobody can */
			io->own.err = -EBADMSG;
			continue;
		}
		io->bad_blocks |= 1ull << i;
		counter_add(&d->counters.checksum_errors, 1);
		char tree[TREE_TEXT_BYTES];
		disk_tree_to_text(d, &io->tree->record.volume, io->tree->record.tree_id, tree);
		disk_report_damage(d, "data", pointer_block(p), "block %llu of %s does not match its checksum",
				   (unsigned long long)(io->first + i), tree);
	}
	if (io->bad_blocks)
		io->own.err = -EIO;
}

/* ---- map ---- */

/* Adds a piece to the extents, or lengthens the last one. */
static void extent_add(struct disk_io *io, const struct disk_extent *piece)
{
	struct disk_extent *last = io->n_extents > 0 ? &io->extents[io->n_extents - 1] : NULL;
	if (piece->epoch < io->since)
		return; /* did not change since: not told */
	if (last && last->is_data == piece->is_data && last->first + last->n_blocks == piece->first) {
		last->n_blocks += piece->n_blocks;
		last->epoch = max_u64(last->epoch, piece->epoch);
		return;
	}
	quarry_assert(io->n_extents < io->extents_max);
	io->extents[io->n_extents++] = *piece;
}

/* ---- measure ---- */

static enum flow request_measure(struct disk_io *io, uint32_t steps)
{
	struct tree_measure m = {.cursor = io->own.cursor, .data_blocks = io->own_data_blocks, .pages = io->own_pages};
	/* looked up anew: it may have been dropped, and its memory freed, since the last turn */
	struct disk_tree *t = disk_tree_find(io->own.disk, &io->volume, io->tree_id);
	int res = t ? 0 : -ENOENT;
	bool is_cut = false;
	for (; res == 0 && !is_cut && steps > 0; steps--) {
		res = tree_measure_step(t, &m, &io->own.waiter);
		is_cut = res == 0 && ++io->own.n_steps == io->steps_max;
	}
	if (t)
		io->data_blocks = t->record.n_data_blocks;
	io->own.cursor = m.cursor;
	io->own_data_blocks = m.data_blocks;
	io->own_pages = m.pages;
	io->next = is_cut ? m.cursor : 0;
	if (res == 0 && !is_cut)
		reactor_defer(io->own.disk->reactor, &io->own.op, 0);
	if ((res == 0 && !is_cut) || res == -EAGAIN)
		return FLOW_WAIT;
	io->own.err = res < 0 ? res : 0;
	return FLOW_NEXT;
}

/* ---- what walks over a tree ---- */

enum flow request_scan(struct disk_io *io, uint32_t steps)
{
	uint64_t end = io->first + io->n_blocks;
	if (io->op == DISK_MEASURE)
		return request_measure(io, steps);
	quarry_assert(io->extents_max > 0);
	while (io->own.cursor < end && io->n_extents < io->extents_max) {
		struct disk_extent piece;
		if (steps-- == 0) {
			reactor_defer(io->own.disk->reactor, &io->own.op, 0);
			return FLOW_WAIT;
		}
		int res = tree_look(io->tree, io->own.cursor, end, io->since, &piece, &io->own.waiter);
		if (res == -EAGAIN)
			return FLOW_WAIT;
		io->own.err = res;
		if (res < 0)
			return FLOW_NEXT;
		extent_add(io, &piece);
		io->own.cursor += piece.n_blocks;
	}
	return FLOW_NEXT;
}
