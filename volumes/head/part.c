/*
 * part.c: one piece of a request: what goes to one segment at once, at most 64 blocks of it for data. A change goes to all
 * disks that have a copy of the segment, a look to one of them.
 *
 *   FETCH -> MERGE -> CARRY -> SETTLE -> END            FETCH only where a write covers part of a block
 *                       ^         |
 *                       +- MOVE <-+                     a disk was full, and nothing lies in the segment yet
 *
 *   SURVEY   (before FETCH) only while the volume is being filled: part_survey.c
 *   FETCH    reads the first and the last block of the range, if they lie partly outside of it
 *   HELD     (from CARRY) a snapshot is being taken: a change waits until the trees are forked [SNAPHOLD]
 *   MERGE    lays the client's bytes over them, lays out the memory of the whole, sums and looks for zeros
 *   CARRY    sends it: to all copies at once, so it takes as long as the slowest; SETTLE takes the answers
 *   HEAL     (from FETCH and SETTLE) a disk could not read it: another one can (heal.c)
 *
 * Invariants
 *  1. A part of data has its two edge blocks from the start, so nothing here waits for memory.
 *  2. A write or trim takes the volume's epoch when it is sent, so the epochs that a tree sees never decrease; it
 *     counts in in_flight of that epoch until it is answered.
 *  3. A merged write is ordered [RMWDEP].
 *  4. `written` of a disk grows before the request that wrote is answered, so a FLUSH submitted after sees it.
 *  5. What flushes, or tells a disk of an epoch, has a pool of its own: its parts wait for their disks alone. Those of data
 *     may wait in MOVE for the placer, which waits for the barrier [PLACEBAR], which flushes: out of one pool, that would
 *     never end once all of it waits in MOVE.
 *  6. A free part is at the head of the free list when it was used last: few are ever touched while few are in flight.
 *  7. A disk that has missed a change, as others have it, is lost when the part ends, and its request waits until that is
 *     recorded (P2). The part itself is free then: a volume that waits so takes none from others.
 *  8. Data and checksums are laid out once, whatever the number of copies. What is in flight is counted by `owed`, and
 *     the part goes on when all of it has been answered.
 *
 * Owner: the request it belongs to.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <string.h>

static const uint8_t zero_block[BLOCK_BYTES] __attribute__((aligned(BLOCK_BYTES)));

static void part_run(struct part *p);

static void copy_done(struct replica_io *rio, int res);

/* The nth copy that a change is sent to. */
static struct part_copy *part_copy(struct part *p, uint32_t n)
{
	quarry_assert(n < PART_COPIES_MAX && (n == 0 || p->more));
	return n == 0 ? &p->first : &p->more[n - 1];
}

/* ---- small words ---- */

bool part_writes(const struct part *p)
{
	return p->kind == PART_WRITE || p->kind == PART_ZEROS;
}

static bool part_changes(const struct part *p)
{
	return part_writes(p) || p->kind == PART_TRIM;
}

/* Does it leave something where nothing lay? */
static bool part_stays(const struct part *p)
{
	return part_writes(p) || p->is_marking;
}

/* Does what is being asked leave the disk as it is? */
static bool part_looks(const struct part *p)
{
	return p->stage == PART_SURVEY || p->stage == PART_FETCH || p->kind == PART_READ || p->kind == PART_MAP ||
	       p->kind == PART_AHEAD;
}

/* Those of its disks that can still be asked. */
uint64_t part_good(const struct part *p)
{
	return volume_good(p->volume, p->disks & ~p->failed);
}

/* Whom to ask for what is looked for, or those that a change, a flush or an epoch goes to. */
static uint64_t part_targets(const struct part *p)
{
	uint64_t only = p->request->own.heal.disk;
	if (!part_looks(p))
		return volume_takers(p->volume, p->disks);
	return only ? part_good(p) & only : part_good(p);
}

static uint64_t part_tree(const struct part *p)
{
	return p->request->own.heal.disk ? p->request->own.heal.tree : volume_tree(p->volume);
}

/* The disk that a change goes to beside, because its segment moves there; 0: none. */
static uint64_t part_moves_to(const struct part *p)
{
	return p->volume->move && part_changes(p) ? move_target(p->volume, p->segment) : 0;
}

/* ---- asking disks, and the one door of their answers ---- */

static void copy_send(struct part_copy *c, struct part *p, uint32_t disk)
{
	struct volume_disk *vd = &p->volume->disks[disk];
	c->part = p;
	c->disk = disk;
	c->rio.tree = part_tree(p);
	c->rio.done = copy_done;
	p->sent |= (1ull << disk) & ~p->moving_to;
	p->owed++;
	vd->asked++;
	replica_submit(&vd->replica, &c->rio);
}

void part_ask(struct part *p, uint32_t disk)
{
	quarry_assert(p->owed == 0);
	p->err = 0;
	p->sent = p->acked = p->full = p->moving_to = 0;
	copy_send(&p->first, p, disk);
}

/* One of its disks is asked; part_good() said that there is one. */
void part_look(struct part *p)
{
	part_ask(p, volume_reader(p->volume, part_good(p), p->first.rio.io.first));
}

/* What it looks for may have moved since it was found: what a disk has dropped is not looked for there [MOVEREAD]. A row of
 * segments (ahead.c) is looked for only where all of them lie. */
void part_find_again(struct part *p)
{
	uint64_t last = (p->pos_bytes + p->len_bytes - 1) / SEGMENT_BYTES, all = ALL_DISKS, disks = 0;
	if (p->kind == PART_AHEAD) /* it is of one disk */
		return;
	for (uint64_t segment = p->segment; segment <= last; segment++) {
		enum placed placed = chunk_find(p->volume, segment, &disks);
		if (placed == PLACED_ON_DISKS)
			all &= disks;
		else if (placed == PLACED_UNKNOWN && last != p->segment)
			all = 0;
	}
	if (all != ALL_DISKS)
		p->disks = all;
}

/* A look has failed: is the answer to be had elsewhere? Then it is on its way, or the part is in the stage HEAL. */
static bool part_look_elsewhere(struct part *p)
{
	const struct disk_io *io = &p->first.rio.io;
	if (p->err == -EBADMSG)
		return false;
	p->failed |= 1ull << p->first.disk;
	part_find_again(p);
	if (part_good(p) == 0)
		return false;
	if (io->op == DISK_READ && p->err == -EIO && io->is_shared) {
		p->err = -EBADMSG; /* he comes again, with memory in which it can be healed */
		return false;
	}
	if (io->op == DISK_READ && p->err == -EIO)
		heal_begin(p);
	else
		part_look(p);
	return true;
}

static void part_answered(struct part *p)
{
	if (p->err == 0)
		p->failed = 0; /* what is asked next is another matter */
	if (p->stage == PART_HEAL)
		heal_answered(p);
	else if (p->err != 0 && part_looks(p) && part_look_elsewhere(p) && p->stage != PART_HEAL)
		return;
	if (p->stage == PART_SURVEY)
		part_surveyed(p);
	part_run(p);
}

static void copy_done(struct replica_io *rio, int res)
{
	struct part_copy *c = container_of(rio, struct part_copy, rio);
	struct part *p = c->part;
	struct volume_disk *vd = &p->volume->disks[c->disk];
	quarry_assert(p->owed > 0 && vd->asked > 0);
	vd->asked--;
	uint64_t disk = 1ull << c->disk;
	if (p->moving_to & disk)
		p->moved = res == 0;
	else if (res == 0)
		p->acked |= disk;
	else if (p->err == 0 || res == -ENOSPC)
		p->err = res;
	if (res == -ENOSPC && !(p->moving_to & disk))
		p->full |= disk;
	if (--p->owed == 0)
		part_answered(p);
}

/* ---- FETCH ---- */

static void part_read_edge(struct part *p, uint64_t block, uint8_t *to)
{
	struct disk_io *io = &p->first.rio.io;
	p->iov[0] = (struct iovec){to, BLOCK_BYTES};
	io->op = DISK_READ;
	io->first = block;
	io->n_blocks = 1;
	io->is_shared = false;
	io->iov = p->iov;
	io->n_iov = 1;
	part_look(p);
}

static enum flow part_fetch(struct part *p)
{
	if (p->err != 0)
		return FLOW_NEXT;
	if (p->n_fetched == (uint32_t)p->has_head + p->has_tail)
		return FLOW_NEXT;
	if (part_good(p) == 0) {
		p->err = -EIO;
		return FLOW_NEXT;
	}
	if (p->n_fetched++ == 0 && p->has_head)
		part_read_edge(p, p->block, p->edges);
	else
		part_read_edge(p, p->block + p->n_blocks - 1, p->edges + BLOCK_BYTES);
	return FLOW_WAIT;
}

/* ---- MERGE: [first block, merged] [the client's own memory] [last block, merged] ---- */

/* Bytes of the client's range that lie in the first and last block, when these are edges. */
static uint64_t part_head_len(const struct part *p)
{
	return p->has_head ? min_u64(p->len_bytes, BLOCK_BYTES - p->head_bytes) : 0;
}

static uint64_t part_tail_len(const struct part *p)
{
	return p->has_tail ? BLOCK_BYTES - p->tail_bytes : 0;
}

static void part_overlay(struct part *p, struct slice *s, uint8_t *to, uint64_t len_bytes)
{
	if (p->kind == PART_WRITE)
		slice_copy_to(s, to, len_bytes);
	else if (p->kind == PART_ZEROS)
		memset(to, 0, len_bytes);
	else
		slice_skip(s, len_bytes); /* a read: the edges are copied out when they have come */
}

static uint32_t part_lay_middle(struct part *p, struct slice *s, uint64_t len_bytes, uint32_t n_iov)
{
	if (p->kind != PART_ZEROS)
		return n_iov + (len_bytes ? slice_take(s, len_bytes, p->iov + n_iov, PART_IOV_MAX - 1 - n_iov) : 0);
	for (; len_bytes > 0; len_bytes -= BLOCK_BYTES)
		p->iov[n_iov++] = (struct iovec){(void *)zero_block, BLOCK_BYTES};
	return n_iov;
}

static void part_lay_out(struct part *p)
{
	struct slice s = p->slice;
	uint64_t head = part_head_len(p), tail = part_tail_len(p);
	uint32_t n_iov = 0;
	if (p->has_head) {
		part_overlay(p, &s, p->edges + p->head_bytes, head);
		p->iov[n_iov++] = (struct iovec){p->edges, BLOCK_BYTES};
	}
	n_iov = part_lay_middle(p, &s, p->len_bytes - head - tail, n_iov);
	if (p->has_tail) {
		part_overlay(p, &s, p->edges + BLOCK_BYTES, tail);
		p->iov[n_iov++] = (struct iovec){p->edges + BLOCK_BYTES, BLOCK_BYTES};
	}
	quarry_assert(n_iov > 0 && n_iov <= PART_IOV_MAX);
	p->first.rio.io.iov = p->iov;
	p->first.rio.io.n_iov = n_iov;
}

static void part_merge(struct part *p)
{
	struct disk_io *io = &p->first.rio.io;
	part_lay_out(p);
	if (!part_writes(p))
		return;
	io->zero_blocks = blocks_sum(p->iov, io->n_iov, (uint32_t)p->n_blocks, p->crcs);
	if (p->must_allocate)
		io->zero_blocks = 0;
	io->crcs = p->crcs;
}

/* A read has come: its edges go to where the client wants them. */
static void part_scatter_edges(struct part *p)
{
	struct slice s = p->slice;
	uint64_t head = part_head_len(p), tail = part_tail_len(p);
	if (p->has_head)
		slice_fill_from(&s, p->edges + p->head_bytes, head);
	if (!p->has_tail)
		return;
	slice_skip(&s, p->len_bytes - head - tail);
	slice_fill_from(&s, p->edges + BLOCK_BYTES, tail);
}

/* ---- CARRY ---- */

_Static_assert(SEGMENT_BLOCKS <= DISK_HOLES_BLOCKS_MAX, "a part lies in one segment");

static enum disk_op part_op(const struct part *p)
{
	switch (p->kind) {
	case PART_READ:
		return DISK_READ;
	case PART_WRITE:
	case PART_ZEROS:
		return DISK_WRITE;
	case PART_TRIM:
		return p->is_marking ? DISK_COPY_HOLES : DISK_TRIM;
	case PART_MAP:
	case PART_AHEAD:
		return DISK_MAP;
	case PART_FLUSH:
		return DISK_FLUSH;
	case PART_COMPLETE:
		break;
	}
	return DISK_COMPLETE;
}

/* While the volume is filled, a trim must be remembered where nobody wrote, too. */
static bool part_marks(const struct part *p)
{
	return p->kind == PART_TRIM && !p->is_too_full && fill_may_bring(p->volume, p->pos_bytes, p->len_bytes);
}

/* Counts a change in its epoch, and in its chunk while the segment is fresh. */
static void part_enter(struct part *p)
{
	struct volume *v = p->volume;
	struct chunk *c = chunk_get(v, p->segment);
	p->epoch = v->epoch;
	p->is_counted = true;
	p->is_marking = part_marks(p);
	v->in_flight[p->epoch & 1]++;
	p->fresh = part_stays(p) && c && chunk_bit(c->fresh, p->segment) ? c : NULL;
	if (p->fresh)
		p->fresh->fresh_in_flight++;
	barrier_note_write(v);
}

/* What is asked of every copy, but for memory and checksums: MERGE has laid these out. */
static void part_fill(const struct part *p, struct disk_io *io)
{
	io->op = part_op(p);
	io->epoch = p->epoch;
	io->before = UINT64_MAX; /* what a trim finds is older */
	io->first = p->block;
	io->n_blocks = p->n_blocks;
	io->is_ordered = p->n_fetched > 0;
	io->is_shared = p->kind == PART_READ && p->request->flags & VOLUME_SHARED;
	io->since = io->op == DISK_MAP ? p->request->since : 0;
}

/* The same for another disk. */
static void part_copy_fill(const struct disk_io *from, struct disk_io *to)
{
	to->op = from->op;
	to->epoch = from->epoch;
	to->before = from->before;
	to->first = from->first;
	to->n_blocks = from->n_blocks;
	to->is_ordered = from->is_ordered;
	to->iov = from->iov;
	to->n_iov = from->n_iov;
	to->crcs = from->crcs;
	to->zero_blocks = from->zero_blocks;
}

static void part_carry_change(struct part *p, uint64_t targets)
{
	struct disk_io *io = &p->first.rio.io;
	quarry_assert(targets != 0 && p->owed == 0);
	for (uint32_t n = 0; targets != 0; n++, targets &= targets - 1) {
		struct part_copy *c = part_copy(p, n);
		if (n > 0)
			part_copy_fill(io, &c->rio.io);
		copy_send(c, p, (uint32_t)__builtin_ctzll(targets));
	}
}

/* Which copies get a write first: all, unless a disk is nearly full. Then that one, and the others when it has had room:
 * where it has none, nothing was changed anywhere, and a full disk costs no copy. */
static uint64_t part_first_targets(const struct part *p, uint64_t targets)
{
	if ((targets & (targets - 1)) == 0 || p->kind == PART_TRIM)
		return targets;
	uint32_t disk = placement_narrowest(p->volume, volume_good(p->volume, targets));
	return disk < SET_DISKS_MAX ? 1ull << disk : targets;
}

static void part_carry(struct part *p, uint64_t targets)
{
	struct disk_io *io = &p->first.rio.io;
	quarry_assert(!p->is_counted && targets != 0);
	if (part_changes(p))
		part_enter(p);
	part_fill(p, io);
	if (!part_changes(p)) {
		io->extents = p->extents;
		io->extents_max = p->kind == PART_AHEAD ? 1 : PART_EXTENTS_MAX;
		p->written = p->volume->disks[__builtin_ctzll(targets)].written;
		part_ask(p, part_looks(p) ? volume_reader(p->volume, targets, p->block)
					  : (uint32_t)__builtin_ctzll(targets));
		return;
	}
	p->err = 0;
	p->sent = p->acked = p->full = p->moving_to = 0;
	p->moved = false;
	p->later = targets;
	targets = part_first_targets(p, targets);
	p->later &= ~targets;
	if (p->later == 0) /* all at once; else what moves comes last */
		targets |= p->moving_to = part_moves_to(p);
	part_carry_change(p, targets);
}

/* Those that were to get it after the one that is nearly full; when that has no room, none of them does. */
static enum flow part_carry_later(struct part *p)
{
	uint64_t targets = p->later ? p->later & part_targets(p) : 0;
	if (targets == 0 || (p->acked == 0 && p->full != 0))
		return FLOW_NEXT;
	targets = part_first_targets(p, targets);
	p->later &= ~targets;
	if (p->later == 0)
		targets |= p->moving_to = part_moves_to(p);
	part_carry_change(p, targets);
	return FLOW_WAIT;
}

/* ---- SETTLE ---- */

static void part_leave(struct part *p)
{
	struct volume *v = p->volume;
	quarry_assert(v->in_flight[p->epoch & 1] > 0);
	p->is_counted = false;
	v->in_flight[p->epoch & 1]--;
	for (uint64_t disks = p->sent; disks != 0; disks &= disks - 1)
		v->disks[__builtin_ctzll(disks)].written++;
	if (p->fresh) {
		quarry_assert(p->fresh->fresh_in_flight > 0);
		p->fresh->fresh_in_flight--;
		if (p->err == 0)
			chunk_bit_set(p->fresh->fresh, p->segment, false);
		if (!list_is_empty(&v->placer.moving))
			placer_run(v);
	}
	if (v->barrier.stage == BARRIER_DRAIN)
		barrier_run(v);
}

/* What a client is told of it. */
static int part_error(const struct part *p, int err)
{
	if (err == -ENOSPC && p->kind == PART_TRIM && p->request->op == VOLUME_TRIM)
		return 0; /* a hint */
	return err == 0 || err == -ENOSPC || err == -EBADMSG ? err : -EIO;
}

static void part_note_flush(const struct part *p)
{
	struct volume_disk *vd = &p->volume->disks[p->first.disk];
	vd->flushed = max_u64(vd->flushed, p->written);
}

/* Its segment moves, and perhaps one disk has it now that another has not. Where all were full nothing has changed. */
static bool part_splits_move(const struct part *p)
{
	uint64_t moving_to = part_moves_to(p);
	bool has_changed_nothing = p->moving_to == 0 && p->sent == p->full && p->kind != PART_TRIM;
	if (moving_to == 0 || has_changed_nothing)
		return false;
	return moving_to != p->moving_to || !p->moved || p->acked != p->sent;
}

static void part_settle(struct part *p)
{
	if (part_splits_move(p))
		move_missed(p->volume, p->segment, p->err);
	p->err = part_error(p, p->err);
	if (p->is_counted)
		part_leave(p);
	if (p->err != 0)
		return;
	if (p->kind == PART_READ)
		part_scatter_edges(p);
	else if (p->kind == PART_MAP)
		part_map_extents(p);
	else if (p->kind == PART_FLUSH)
		part_note_flush(p);
}

/* The first writes of a segment found a disk full: another one may have room. */
static bool part_may_move(const struct part *p)
{
	return p->err == -ENOSPC && p->fresh && !move_has(p->volume, p->segment) &&
	       chunk_get(p->volume, p->segment) == p->fresh && chunk_bit(p->fresh->fresh, p->segment);
}

/* A disk had no room to remember a trim. It is carried once more, and only what was written goes, which needs none: of a
 * hint that is enough, and zeros that were to stay have failed, on all copies alike. */
static bool part_trims_again(struct part *p)
{
	bool is_again = p->is_marking && p->full != 0;
	p->is_too_full |= is_again;
	return is_again;
}

void part_moved(struct part *p, int res)
{
	quarry_assert(p->stage == PART_MOVE);
	p->err = res;
	if (res == 0 && chunk_find(p->volume, p->segment, &p->disks) != PLACED_ON_DISKS)
		p->err = -EIO;
	part_run(p);
}

void part_release(struct part *p)
{
	quarry_assert(p->stage == PART_HELD && !p->volume->is_held);
	part_run(p);
}

/* ---- its end: who has missed it ---- */

/* Of its disks, those that have not done what all of them should, and that the record still calls current. A disk whose resync
 * has begun since it was sent takes it over from the others. */
static uint64_t part_missed(const struct part *p)
{
	uint64_t missed = 0;
	for (uint64_t left = p->disks & ~p->acked; left != 0; left &= left - 1) {
		enum volume_disk_state state = p->volume->disks[__builtin_ctzll(left)].state;
		bool takes_over = state == VOLUME_DISK_SYNCING && !(p->sent & left & -left);
		if (state != VOLUME_DISK_STALE && !takes_over)
			missed |= left & -left;
	}
	return missed;
}

static bool part_flushes(const struct part *p)
{
	return p->kind == PART_FLUSH || p->kind == PART_COMPLETE;
}

/* Has it been carried out on some disks and not on others, as far as is known? A write that found all full to which it was
 * sent has changed nothing; a trim may have changed something everywhere. */
static bool part_must_mark(const struct part *p)
{
	if (!volume_is_replicated(p->volume) || part_looks(p) || part_missed(p) == 0)
		return false;
	return part_flushes(p) || p->acked != 0 || p->sent != p->full || (p->kind == PART_TRIM && p->full != 0);
}

/* Those that missed it are current no more. Of a trim that all were too full for, one copy is as good as the other. */
static void part_lose_missed(struct part *p)
{
	uint64_t missed = part_missed(p);
	struct chunk *c = chunk_get(p->volume, p->segment);
	if (p->acked == 0 && p->full != 0)
		missed &= ~(p->full & -p->full);
	for (; missed != 0; missed &= missed - 1)
		volume_disk_lose(p->volume, (uint32_t)__builtin_ctzll(missed), p->err ? p->err : -EIO);
	if (p->acked != 0 && c && part_stays(p)) /* it stays where it is now */
		chunk_bit_set(c->fresh, p->segment, false);
}

/* All copies that still count have done it, or none has. */
static void part_judge(struct part *p)
{
	if (!volume_is_replicated(p->volume) || part_looks(p))
		return;
	if (part_must_mark(p)) {
		part_lose_missed(p);
		p->request->own.has_missed = true;
	}
	if (part_flushes(p)) { /* what the other disks have to flush, they are told by parts of their own */
		p->err = 0;
	} else if (p->acked != 0) {
		p->err = 0;
		volume_io_note_thin(p->request, p->disks);
	}
}

static void part_end(struct part *p)
{
	struct volume_io *io = p->request;
	int err = p->kind == PART_AHEAD ? ahead_told(p) : p->err;
	if (err == 0 && p->is_too_full && io->op == VOLUME_ZERO)
		err = -ENOSPC;
	if (part_changes(p))
		io->own.disks |= p->sent;
	part_put(p);
	volume_io_part_done(io, err);
}

/* What becomes of a part that is ready to be sent: it is, or waits for what keeps it, or ends. */
static enum part_stage part_after_carry(struct part *p)
{
	uint64_t targets = part_targets(p);
	if (targets == 0) {
		p->err = p->request->own.heal.disk & ~p->disks ? -ENODEV : -EIO;
		p->sent = p->acked = p->full = 0;
		part_judge(p);
		return PART_END;
	}
	if (part_changes(p) && p->volume->is_held) {
		list_append(&p->volume->held, &p->link);
		return PART_HELD;
	}
	part_carry(p, targets);
	return PART_SETTLE;
}

/* ---- the dispatcher ---- */

static void part_run(struct part *p)
{
	for (;;) {
		switch (p->stage) {
		case PART_SURVEY:
			if (part_survey(p) == FLOW_WAIT)
				return;
			p->stage = part_after_survey(p);
			break;
		case PART_FETCH:
			if (part_fetch(p) == FLOW_WAIT)
				return;
			p->stage = p->err ? PART_END : PART_MERGE;
			break;
		case PART_MERGE:
			part_merge(p);
			p->stage = PART_CARRY;
			break;
		case PART_CARRY:
			p->stage = part_after_carry(p);
			if (p->stage != PART_END)
				return;
			break;
		case PART_HELD: /* the trees are forked */
			p->stage = PART_CARRY;
			break;
		case PART_SETTLE:
			if (part_carry_later(p) == FLOW_WAIT)
				return;
			part_settle(p);
			if (part_may_move(p)) {
				p->stage = PART_MOVE;
				placement_move(p->volume, p);
				return;
			}
			if (part_trims_again(p)) {
				p->stage = PART_CARRY;
				break;
			}
			part_judge(p);
			p->stage = PART_END;
			if (p->is_surveyed && p->kind == PART_WRITE && part_next_run(p))
				p->stage = PART_FETCH;
			break;
		case PART_MOVE: /* the placer has answered */
			p->stage = p->err ? PART_END : PART_CARRY;
			if (p->err != 0)
				part_judge(p);
			break;
		case PART_HEAL:
			if (heal_run(p) == FLOW_WAIT)
				return;
			p->stage = p->heal.resume;
			break;
		case PART_END:
			part_end(p);
			return;
		case PART_FREE:
			quarry_assert(!"a part that is free runs");
		}
	}
}

/* What follows from the range. */
void part_aim(struct part *p)
{
	bool has_memory = p->kind == PART_READ || part_writes(p);
	uint64_t end_bytes = p->pos_bytes + p->len_bytes;
	p->segment = p->pos_bytes / SEGMENT_BYTES;
	p->block = p->pos_bytes / BLOCK_BYTES;
	p->n_blocks = blocks_of(end_bytes) - p->block;
	p->head_bytes = (uint32_t)(p->pos_bytes % BLOCK_BYTES);
	p->tail_bytes = (uint32_t)(-end_bytes % BLOCK_BYTES);
	p->has_head = has_memory && (p->head_bytes || (p->n_blocks == 1 && p->tail_bytes));
	p->has_tail = has_memory && p->n_blocks > 1 && p->tail_bytes;
	p->n_fetched = 0;
	quarry_assert(!has_memory || p->n_blocks <= PART_BLOCKS);
}

static enum part_stage part_first_stage(struct part *p)
{
	if (part_survey_begin(p))
		return PART_SURVEY;
	if (part_writes(p) && (p->has_head || p->has_tail))
		return PART_FETCH;
	return p->kind == PART_READ || part_writes(p) ? PART_MERGE : PART_CARRY;
}

void part_start(struct part *p)
{
	bool is_flush = p->kind == PART_FLUSH || p->kind == PART_COMPLETE;
	part_aim(p);
	p->err = 0;
	p->is_counted = p->is_marking = p->is_too_full = false;
	p->fresh = NULL;
	p->tried = p->failed = 0;
	p->sent = p->acked = p->full = p->later = p->moving_to = 0;
	quarry_assert(p->owed == 0 && p->disks != 0);
	quarry_assert(p->request->own.owed > 0);
	quarry_assert(is_flush == (p->pool == &p->volume->set->flushes));
	p->stage = part_first_stage(p);
	part_run(p);
}
