/*
 * volume_io.c: every request of a client, from submission to reply.
 *
 *   (FILL) -> LOCK -> ISSUE -> GATHER -> (SHORT) -> HARDEN -> (RECORD) -> REPLY
 *               ^------------------------+ what was not begun
 *                                             a FLUSH begins at HARDEN, what is refused at REPLY
 *
 *   FILL     only of a volume whose first content is still being brought: waits for what is not there yet (fill.c)
 *   LOCK     waits for earlier requests on the same blocks [READLOCK]
 *   ISSUE    cuts the range into parts, segment by segment, and sends each to its disks; waits for what a part needs; of a
 *            MAP with `since` ahead.c does it
 *   GATHER   waits for all parts, and until it is recorded which disks have missed one; the range is free after
 *   SHORT    (of a change, where several copies are to be) too few copies are current, or were when a disk failed meanwhile:
 *            waits for more, then goes on, or fails
 *   HARDEN   a DISK_FLUSH (or a barrier's DISK_COMPLETE) on each disk that needs one, in parallel
 *   RECORD   only of who fills the volume: how far it has come
 *
 * Invariants
 *  1. At most one reason to be called again: `wait` names it. Parts that end while another reason is waited for only
 *     count down `owed`.
 *  2. Nothing completes inside volume_submit(): a request that could reply at once does so on the next turn.
 *  3. While owed > 0 parts hold the client's memory: no reply before, however it failed.
 *  4. The range is locked from ISSUE to the end of GATHER, and to the disks goes nothing outside of it. In SHORT nothing of
 *     it is at a disk, and the range is free: what has been written is on all current copies, and the rest is not begun.
 *  5. A fenced volume answers nothing with success (P4), and in a cluster a live one only while this node has its
 *     lease: else its requests wait in REPLY (set_lease.c).
 *
 * Owner: the volume's reactor. The request is its submitter's again at done().
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PARTS_OF_TRANSFER_MAX 160u  /* more than 32 MiB makes: all of a transfer goes at once */
#define PARTS_OF_SWEEP_MAX    16u   /* trims and zeroes of any length go in steps of this many */
#define STEPS_PER_TURN_MAX    1024u /* holes a request may step over before it lets others run */

static const char *const stage_names[] = {
#define X(name) #name,
    VOLUME_IO_STAGES(X)
#undef X
};
static const char *const wait_names[] = {
    [WAIT_NOTHING] = "nothing",
    [WAIT_TURN] = "its turn",
    [WAIT_LOCK] = "an earlier request on the same blocks",
    [WAIT_PART] = "a free disk request",
    [WAIT_CHUNK] = "the metadata store, to read a placement",
    [WAIT_PLACEMENT] = "the placement of a segment",
    [WAIT_DISKS] = "the disks",
    [WAIT_MARK] = "the metadata store, to record which disk has missed it",
    [WAIT_COPIES] = "another copy to be current",
    [WAIT_FILL] = "who fills the volume",
    [WAIT_LEASE] = "this node's lease",
};
static const char *const op_names[] = {
    [VOLUME_READ] = "read", [VOLUME_WRITE] = "write", [VOLUME_FLUSH] = "flush",
    [VOLUME_TRIM] = "trim", [VOLUME_ZERO] = "zero",   [VOLUME_MAP] = "map",
};

static void volume_io_run(struct volume_io *io);

static bool changes_data(enum volume_op op)
{
	return op == VOLUME_WRITE || op == VOLUME_TRIM || op == VOLUME_ZERO;
}

static bool transfers_data(enum volume_op op)
{
	return op == VOLUME_READ || op == VOLUME_WRITE;
}

/* What must hold in each stage. */
static void volume_io_check(const struct volume_io *io)
{
	quarry_assert(io->own.wait == WAIT_NOTHING);
	switch ((enum volume_io_stage)io->own.stage) {
	case VOLUME_IO_FILL:
	case VOLUME_IO_LOCK:
		quarry_assert(io->own.owed == 0);
		quarry_assert(io->op != VOLUME_FLUSH);
		break;
	case VOLUME_IO_ISSUE:
		quarry_assert(io->own.is_locked);
		quarry_assert(io->own.cursor <= io->own.end);
		break;
	case VOLUME_IO_GATHER:
		quarry_assert(io->own.is_locked);
		break;
	case VOLUME_IO_HARDEN:
		quarry_assert(!io->own.is_locked);
		break;
	case VOLUME_IO_SHORT:
	case VOLUME_IO_RECORD:
	case VOLUME_IO_REPLY:
		quarry_assert(io->own.owed == 0);
		quarry_assert(!io->own.is_locked);
		break;
	case VOLUME_IO_FREE:
		quarry_assert(!"a request that is free runs");
	}
}

static void volume_io_goto(struct volume_io *io, enum volume_io_stage stage)
{
	io->own.stage = stage;
}

enum flow volume_io_wait(struct volume_io *io, enum volume_io_wait wait)
{
	quarry_assert(wait != WAIT_NOTHING);
	io->own.wait = wait;
	return FLOW_WAIT;
}

/* ---- being called again: the one door ---- */

static void volume_io_turn(struct op *op, int res)
{
	struct volume_io *io = container_of(op, struct volume_io, own.op);
	quarry_assert(io->own.wait == WAIT_TURN);
	io->own.wait = WAIT_NOTHING;
	volume_io_run(io);
}

void volume_io_next_turn(struct volume_io *io)
{
	io->own.wait = WAIT_TURN;
	reactor_defer(io->own.volume->set->reactor, &io->own.op, 0);
}

void volume_io_wake(struct volume_io *io, int err)
{
	quarry_assert(io->own.wait != WAIT_NOTHING && io->own.wait != WAIT_TURN && io->own.wait != WAIT_LOCK &&
		      io->own.wait != WAIT_DISKS);
	list_remove(&io->own.line);
	if (io->own.err == 0)
		io->own.err = err;
	volume_io_next_turn(io);
}

void volume_io_part_done(struct volume_io *io, int err)
{
	quarry_assert(io->own.owed > 0);
	io->own.owed--;
	if (io->own.err == 0)
		io->own.err = err;
	if (io->own.wait != WAIT_DISKS)
		return;
	io->own.wait = WAIT_NOTHING;
	volume_io_run(io);
}

static void volume_io_granted(struct range_lock *l)
{
	if (l->granted)
		return l->granted(l);
	struct volume_io *io = container_of(l, struct volume_io, own.lock);
	quarry_assert(io->own.wait == WAIT_LOCK);
	io->own.is_locked = true;
	volume_io_next_turn(io);
}

/* ---- LOCK ---- */

static enum flow volume_io_lock(struct volume_io *io)
{
	struct volume *v = io->own.volume;
	uint64_t first = io->own.cursor / BLOCK_BYTES, last = (io->own.end - 1) / BLOCK_BYTES;
	bool is_shared = io->op == VOLUME_READ || io->op == VOLUME_MAP;
	if (io->own.is_locked)
		return FLOW_NEXT;
	io->own.is_locked = range_lock_take(&v->locks, &io->own.lock, first, last, is_shared);
	return io->own.is_locked ? FLOW_NEXT : volume_io_wait(io, WAIT_LOCK);
}

static void volume_io_unlock(struct volume_io *io)
{
	quarry_assert(io->own.is_locked);
	io->own.is_locked = false;
	range_lock_release(&io->own.volume->locks, &io->own.lock);
}

/* ---- ISSUE: the range, piece by piece ---- */

struct piece {
	enum part_kind kind;
	uint64_t pos_bytes, len_bytes, segment;
};

/* Where a transfer's next part ends: all that is left, if one request of the disk can hold it, else the next multiple of
 * 256 KiB. A write of 256 KiB that begins inside a block is one of 65 blocks (P5). */
static uint64_t transfer_end(enum volume_op op, uint64_t pos_bytes, uint64_t end_bytes)
{
	uint64_t n_blocks = blocks_of(end_bytes) - pos_bytes / BLOCK_BYTES;
	if (end_bytes - pos_bytes <= PART_BYTES && n_blocks <= (op == VOLUME_READ ? DISK_IO_BLOCKS_MAX : PART_BLOCKS))
		return end_bytes;
	return min_u64(end_bytes, (pos_bytes / PART_BYTES + 1) * PART_BYTES);
}

/* A zero request trims whole blocks and writes zeros over the edges. */
static uint64_t zero_end(uint64_t pos_bytes, uint64_t end_bytes, enum part_kind *kind)
{
	uint64_t block_end = (pos_bytes / BLOCK_BYTES + 1) * BLOCK_BYTES;
	if (pos_bytes % BLOCK_BYTES == 0 && end_bytes >= block_end) {
		*kind = PART_TRIM;
		return end_bytes / BLOCK_BYTES * BLOCK_BYTES;
	}
	*kind = PART_ZEROS;
	return min_u64(end_bytes, block_end);
}

static struct piece volume_io_piece(const struct volume_io *io)
{
	struct piece piece = {.pos_bytes = io->own.cursor, .segment = io->own.cursor / SEGMENT_BYTES};
	uint64_t pos = io->own.cursor, end = min_u64(io->own.end, (piece.segment + 1) * SEGMENT_BYTES);
	switch (io->op) {
	case VOLUME_READ:
	case VOLUME_WRITE:
		piece.kind = io->op == VOLUME_READ ? PART_READ : PART_WRITE;
		end = transfer_end(io->op, pos, end);
		break;
	case VOLUME_ZERO:
		piece.kind = PART_ZEROS;
		end = io->flags & VOLUME_NO_HOLE ? transfer_end(io->op, pos, end) : zero_end(pos, end, &piece.kind);
		break;
	case VOLUME_TRIM:
		piece.kind = PART_TRIM;
		break;
	case VOLUME_MAP:
		piece.kind = PART_MAP;
		break;
	case VOLUME_FLUSH:
		quarry_assert(!"a flush has no range");
	}
	piece.len_bytes = end - pos;
	quarry_assert(piece.len_bytes > 0);
	return piece;
}

static struct slice volume_io_slice(const struct volume_io *io)
{
	return (struct slice){.iov = io->iov, .n_iov = io->n_iov, .index = io->own.iov_index, .skip = io->own.iov_skip};
}

static void volume_io_advance(struct volume_io *io, uint64_t len_bytes)
{
	io->own.cursor += len_bytes;
	quarry_assert(io->own.cursor <= io->own.end);
	if (!transfers_data(io->op) || io->own.cursor == io->own.end)
		return;
	struct slice s = volume_io_slice(io);
	slice_skip(&s, len_bytes);
	io->own.iov_index = s.index;
	io->own.iov_skip = s.skip;
}

/* Does it need what lies there? Nobody wrote it. */
static bool piece_needs_all(const struct piece *piece)
{
	bool is_look = piece->kind == PART_READ || piece->kind == PART_MAP;
	return is_look || piece->pos_bytes % BLOCK_BYTES != 0 || piece->len_bytes % BLOCK_BYTES != 0;
}

/* Does this piece change nothing where there is nothing? */
static bool piece_leaves_hole(const struct volume_io *io, const struct piece *piece)
{
	switch (piece->kind) {
	case PART_READ:
	case PART_MAP:
		return true;
	case PART_ZEROS:
		return !(io->flags & VOLUME_NO_HOLE);
	case PART_TRIM:
		return !fill_may_bring(io->own.volume, piece->pos_bytes, piece->len_bytes);
	case PART_WRITE: /* while the volume is filled, zeros are written: a hole there means that nobody wrote */
		return !io->own.volume->fill && slice_is_zero(volume_io_slice(io), piece->len_bytes);
	case PART_AHEAD:
	case PART_FLUSH:
	case PART_COMPLETE:
		break;
	}
	return false;
}

/* Carries a piece out on a segment that lies nowhere, and steps over the empty ones behind it. */
static void volume_io_hole(struct volume_io *io, const struct piece *piece)
{
	struct volume *v = io->own.volume;
	uint64_t len = piece->len_bytes, end_segment = (io->own.end + SEGMENT_BYTES - 1) / SEGMENT_BYTES;
	if (piece->kind == PART_READ) {
		struct slice s = volume_io_slice(io);
		slice_fill_from(&s, NULL, len);
	} else if (piece->kind == PART_MAP || (piece->kind == PART_TRIM && !v->fill)) {
		uint64_t whole = piece->kind == PART_TRIM ? io->own.end / BLOCK_BYTES * BLOCK_BYTES : io->own.end;
		uint64_t next = chunk_skip_empty(v, piece->segment + 1, end_segment);
		len = min_u64(whole, next * SEGMENT_BYTES) - piece->pos_bytes;
	}
	if (piece->kind == PART_MAP) {
		uint64_t first = piece->pos_bytes / BLOCK_BYTES;
		if (!volume_io_map_add(io, first, blocks_of(piece->pos_bytes + len) - first, 0))
			len = io->own.end - io->own.cursor;
	}
	volume_io_advance(io, len);
}

static enum flow volume_io_send(struct volume_io *io, const struct piece *piece, uint64_t disks)
{
	struct volume *v = io->own.volume;
	if (changes_data(io->op) && volume_has_too_few(v, disks)) {
		io->own.is_short = true;
		return FLOW_NEXT;
	}
	struct part *p = part_get(&v->set->parts, io);
	if (!p)
		return volume_io_wait(io, WAIT_PART);
	p->kind = piece->kind;
	p->disks = disks;
	p->pos_bytes = piece->pos_bytes;
	p->len_bytes = piece->len_bytes;
	p->must_allocate = (io->flags & VOLUME_NO_HOLE) || (v->fill && piece->kind == PART_WRITE);
	p->slice = volume_io_slice(io);
	io->own.owed++;
	volume_io_advance(io, piece->len_bytes);
	part_start(p);
	return FLOW_NEXT;
}

static enum flow volume_io_issue_next(struct volume_io *io)
{
	struct volume *v = io->own.volume;
	struct piece piece = volume_io_piece(io);
	uint64_t disks = 0;
	switch (chunk_find(v, piece.segment, &disks)) {
	case PLACED_ON_DISKS:
		return volume_io_send(io, &piece, disks);
	case PLACED_UNKNOWN:
		io->own.err = chunk_load(v, piece.segment, io);
		return io->own.err ? FLOW_NEXT : volume_io_wait(io, WAIT_CHUNK);
	case PLACED_NOWHERE:
	case PLACED_MOVING:
		break;
	}
	if (io->own.is_strict && piece_needs_all(&piece) && fill_awaits(v, piece.pos_bytes, piece.len_bytes)) {
		io->own.err = -EIO;
		return FLOW_NEXT;
	}
	if (piece_leaves_hole(io, &piece)) {
		volume_io_hole(io, &piece);
		return FLOW_NEXT;
	}
	placement_want(v, io);
	return volume_io_wait(io, WAIT_PLACEMENT);
}

/* ---- what waits for the record, and for more copies ---- */

/* FLOW_NEXT: no disk that has missed something of it counts as current any more, or the head has stopped (P2). */
static enum flow volume_io_mark(struct volume_io *io)
{
	if (!io->own.has_missed)
		return FLOW_NEXT;
	if (!stale_is_settled(io->own.volume)) {
		stale_wait(io);
		return volume_io_wait(io, WAIT_MARK);
	}
	io->own.has_missed = false;
	return FLOW_NEXT;
}

static enum flow volume_io_gather(struct volume_io *io)
{
	return io->own.owed > 0 ? volume_io_wait(io, WAIT_DISKS) : volume_io_mark(io);
}

static bool volume_io_is_thin(const struct volume_io *io)
{
	return io->own.thin_disks != ALL_DISKS && volume_has_too_few(io->own.volume, io->own.thin_disks);
}

void volume_io_note_thin(struct volume_io *io, uint64_t disks)
{
	bool is_thin = volume_has_too_few(io->own.volume, disks);
	if (is_thin && !volume_io_is_thin(io)) /* of several parts the first is waited for, then the next */
		io->own.thin_disks = disks;
	else if (io->own.has_missed && io->own.thin_disks == ALL_DISKS) /* another may fail until that is recorded */
		io->own.thin_disks = disks;
}

static enum flow volume_io_await_copies(struct volume_io *io)
{
	if (io->own.volume->is_fenced && io->own.err == 0)
		io->own.err = -EIO;
	if (io->own.err != 0 || (!io->own.is_short && !volume_io_is_thin(io)))
		return FLOW_NEXT;
	if (io->own.part) /* others can use it meanwhile */
		part_put(io->own.part);
	io->own.part = NULL;
	io->own.is_short = false; /* it is looked at again */
	stale_wait_short(io);
	return volume_io_wait(io, WAIT_COPIES);
}

/* There is something to be looked at in SHORT; not so of nearly all requests. */
static bool volume_io_may_be_short(const struct volume_io *io)
{
	return io->own.err == 0 && (io->own.is_short || io->own.thin_disks != ALL_DISKS);
}

/* All of it was issued and is done, or it fails. */
static enum volume_io_stage volume_io_then(const struct volume_io *io)
{
	return io->own.err == 0 && io->flags & VOLUME_FUA ? VOLUME_IO_HARDEN : VOLUME_IO_REPLY;
}

static enum volume_io_stage volume_io_after_short(const struct volume_io *io)
{
	bool is_issued = io->own.cursor == io->own.end;
	return io->own.err == 0 && !is_issued ? VOLUME_IO_LOCK : volume_io_then(io);
}

static uint32_t parts_max(enum volume_op op)
{
	if (op == VOLUME_MAP)
		return 1; /* extents come in order */
	return transfers_data(op) ? PARTS_OF_TRANSFER_MAX : PARTS_OF_SWEEP_MAX;
}

static enum flow volume_io_issue(struct volume_io *io)
{
	if (io->op == VOLUME_MAP && io->since > 0)
		return ahead_run(io);
	for (uint32_t steps = 0; io->own.cursor < io->own.end && io->own.err == 0 && !io->own.is_short; steps++) {
		if (io->own.owed >= parts_max(io->op))
			return volume_io_wait(io, WAIT_DISKS);
		if (steps == STEPS_PER_TURN_MAX) {
			volume_io_next_turn(io);
			return FLOW_WAIT;
		}
		if (volume_io_issue_next(io) == FLOW_WAIT)
			return FLOW_WAIT;
	}
	return FLOW_NEXT;
}

bool volume_io_map_add(struct volume_io *io, uint64_t first_block, uint64_t n_blocks, unsigned what)
{
	bool is_data = what & MAP_DATA, is_changed = what & MAP_CHANGED;
	uint64_t from = max_u64(first_block * BLOCK_BYTES, io->pos_bytes);
	uint64_t to = min_u64((first_block + n_blocks) * BLOCK_BYTES, io->pos_bytes + io->len_bytes);
	struct volume_extent *last = io->n_extents ? &io->extents[io->n_extents - 1] : NULL;
	quarry_assert(io->op == VOLUME_MAP && from < to);
	if (last && last->is_data == is_data && last->is_changed == is_changed) {
		last->len_bytes += to - from;
		return true;
	}
	if (io->n_extents == io->extents_max)
		return false;
	io->extents[io->n_extents++] =
	    (struct volume_extent){.len_bytes = to - from, .is_data = is_data, .is_changed = is_changed};
	return true;
}

/* ---- HARDEN ---- */

/* Disks with writes completed and not known flushed. */
static uint64_t volume_unflushed(const struct volume *v)
{
	uint64_t disks = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (v->disks[i].written != v->disks[i].flushed)
			disks |= 1ull << i;
	return disks;
}

static enum flow volume_io_harden(struct volume_io *io)
{
	struct volume *v = io->own.volume;
	while (io->own.disks != 0 && io->own.err == 0) {
		uint32_t disk = (uint32_t)__builtin_ctzll(io->own.disks);
		if (v->disks[disk].state == VOLUME_DISK_STALE) { /* nobody counts on what it has */
			io->own.disks &= ~(1ull << disk);
			continue;
		}
		if (!volume_disk_is_good(v, disk) && !volume_is_replicated(v)) {
			io->own.err = -EIO;
			break;
		}
		struct part *p = part_get(&v->set->flushes, io);
		if (!p)
			return volume_io_wait(io, WAIT_PART);
		p->kind = io->own.epoch ? PART_COMPLETE : PART_FLUSH;
		p->disks = 1ull << disk;
		p->epoch = io->own.epoch;
		p->pos_bytes = p->len_bytes = 0;
		io->own.disks &= ~(1ull << disk);
		io->own.owed++;
		part_start(p);
	}
	return volume_io_gather(io);
}

/* ---- REPLY ---- */

/* Told once, and once more when writes have succeeded for a while. */
static void volume_tell_room(struct volume *v, bool has_room)
{
	const struct volume_facts *f = &v->entry->facts;
	uint64_t now_ns = reactor_now_ns(v->set->reactor);
	if (has_room && now_ns - v->full_ns < FULL_TOLD_NS)
		return;
	if (has_room)
		log_event(v->set->log, LOG_NOTICE, "pool-has-room", f->pool,
			  "pool %s has room again: writes to volume %s succeed", f->pool, f->name);
	else if (v->full_ns == 0)
		log_event(v->set->log, LOG_WARNING, "pool-full", f->pool,
			  "pool %s is full: writes to volume %s fail; add a disk, or trim or delete what is not needed",
			  f->pool, f->name);
	v->full_ns = has_room ? 0 : max_u64(now_ns, 1);
}

static void volume_io_count(struct volume_io *io, uint64_t elapsed_ns)
{
	struct volume *v = io->own.volume;
	struct volume_counters *c = &v->counters;
	if (io->own.err == -EBADMSG || io->own.heal.disk != 0)
		return; /* it comes again; or it is no client's */
	if (io->own.err != 0)
		counter_add(io->own.err == -ENOSPC ? &c->no_space : &c->errors, 1);
	if (io->own.err == -ENOSPC || (io->own.err == 0 && io->op == VOLUME_WRITE && v->full_ns != 0))
		volume_tell_room(v, io->own.err == 0);
	switch (io->op) {
	case VOLUME_READ:
		counter_add(&c->reads, 1);
		counter_add(&c->read_bytes, io->len_bytes);
		histogram_add(&c->read_ns, elapsed_ns);
		break;
	case VOLUME_WRITE:
		counter_add(&c->writes, 1);
		counter_add(&c->write_bytes, io->len_bytes);
		histogram_add(&c->write_ns, elapsed_ns);
		break;
	case VOLUME_FLUSH:
		counter_add(&c->flushes, 1);
		histogram_add(&c->flush_ns, elapsed_ns);
		break;
	case VOLUME_TRIM:
		counter_add(&c->trims, 1);
		counter_add(&c->trim_bytes, io->len_bytes);
		break;
	case VOLUME_ZERO:
		counter_add(&c->zeroes, 1);
		break;
	case VOLUME_MAP:
		counter_add(&c->maps, 1);
		break;
	}
}

/* Its data came, its writes are done; but another node may be the head by now [LEASEEND], or, of a
 * snapshot, may have moved what was read. */
static enum flow volume_io_hold(struct volume_io *io)
{
	struct volume *v = io->own.volume;
	if (io->own.err != 0 || io->own.is_internal || set_lease_holds(v->set))
		return FLOW_NEXT;
	io->own.err = set_lease_await(v->set, io);
	return io->own.err ? FLOW_NEXT : volume_io_wait(io, WAIT_LEASE);
}

static enum flow volume_io_reply(struct volume_io *io)
{
	struct volume *v = io->own.volume;
	if (io->own.is_submitting) {
		volume_io_next_turn(io);
		return FLOW_WAIT;
	}
	if (io->own.err == -ENOSPC && io->op == VOLUME_TRIM) /* a hint, and no room to remember it (fill.c) */
		io->own.err = 0;
	if (v->is_fenced && io->own.err == 0)
		io->own.err = -EIO;
	if (volume_io_hold(io) == FLOW_WAIT)
		return FLOW_WAIT;
	fill_brought(io);
	if (io->own.part)
		part_put(io->own.part);
	list_remove(&io->own.link);
	io->own.stage = VOLUME_IO_FREE;
	if (!io->own.is_internal) {
		volume_io_count(io, reactor_now_ns(v->set->reactor) - io->own.started_ns);
		quarry_assert(v->n_requests > 0);
		v->n_requests--;
		volume_check_drained(v);
	}
	io->done(io, io->own.err);
	return FLOW_NEXT;
}

/* ---- the dispatcher: read this function to know the path of every request ---- */

static void volume_io_run(struct volume_io *io)
{
	for (;;) {
		volume_io_check(io);
		switch ((enum volume_io_stage)io->own.stage) {
		case VOLUME_IO_FILL:
			if (fill_admit(io) == FLOW_WAIT) {
				volume_io_wait(io, WAIT_FILL);
				return;
			}
			volume_io_goto(io, io->own.err || io->own.is_answered ? VOLUME_IO_REPLY : VOLUME_IO_LOCK);
			break;
		case VOLUME_IO_LOCK:
			if (volume_io_lock(io) == FLOW_WAIT)
				return;
			volume_io_goto(io, VOLUME_IO_ISSUE);
			break;
		case VOLUME_IO_ISSUE:
			if (volume_io_issue(io) == FLOW_WAIT)
				return;
			volume_io_goto(io, VOLUME_IO_GATHER);
			break;
		case VOLUME_IO_GATHER:
			if (volume_io_gather(io) == FLOW_WAIT)
				return;
			volume_io_unlock(io);
			volume_io_goto(io, volume_io_may_be_short(io) ? VOLUME_IO_SHORT : volume_io_then(io));
			break;
		case VOLUME_IO_SHORT:
			if (volume_io_await_copies(io) == FLOW_WAIT)
				return;
			volume_io_goto(io, volume_io_after_short(io));
			break;
		case VOLUME_IO_HARDEN: /* all disks at once: latency is the slowest, not the sum */
			if (volume_io_harden(io) == FLOW_WAIT)
				return;
			volume_io_goto(io, io->flags & VOLUME_FILL ? VOLUME_IO_RECORD : VOLUME_IO_REPLY);
			break;
		case VOLUME_IO_RECORD:
			if (fill_record(io) == FLOW_WAIT) {
				volume_io_wait(io, WAIT_FILL);
				return;
			}
			volume_io_goto(io, VOLUME_IO_REPLY);
			break;
		case VOLUME_IO_REPLY:
			volume_io_reply(io); /* the request may be gone, or will be here again on the next turn */
			return;
		case VOLUME_IO_FREE:
			quarry_assert(!"unreachable");
		}
	}
}

/* ---- submission ---- */

static int volume_io_validate(const struct volume *v, const struct volume_io *io)
{
	if (v->is_fenced)
		return -EIO;
	if (!io->own.is_internal && v->state != VOLUME_SERVING)
		return -ESHUTDOWN;
	if (io->op == VOLUME_FLUSH)
		return io->flags & VOLUME_FILL ? fill_check(v, io) : 0;
	if (io->len_bytes == 0 || (io->pos_bytes | io->len_bytes) % SECTOR_BYTES != 0)
		return -EINVAL;
	uint64_t size_bytes = io->own.is_internal ? v->n_chunks * PLACEMENT_CHUNK * SEGMENT_BYTES : v->size_bytes;
	if (io->pos_bytes > size_bytes || io->len_bytes > size_bytes - io->pos_bytes)
		return -EINVAL;
	if (transfers_data(io->op) && io->len_bytes > VOLUME_IO_BYTES_MAX)
		return -EINVAL;
	if (changes_data(io->op) && v->is_read_only && !io->own.is_internal)
		return -EROFS;
	if (io->op == VOLUME_ZERO && io->flags & VOLUME_FAST_ZERO && io->flags & VOLUME_NO_HOLE)
		return -ENOTSUP;
	return io->flags & VOLUME_FILL ? fill_check(v, io) : 0;
}

/* The first stage, and the bytes that will be locked and cut. A trim leaves the edges of its range as they are. */
static enum volume_io_stage volume_io_aim(struct volume_io *io)
{
	io->own.cursor = io->pos_bytes;
	io->own.end = io->pos_bytes + io->len_bytes;
	if (io->op == VOLUME_FLUSH) {
		io->own.disks = volume_unflushed(io->own.volume);
		io->own.fill_bytes = io->flags & VOLUME_FILL ? fill_prefix_bytes(io->own.volume) : 0;
		return VOLUME_IO_HARDEN;
	}
	if (io->op == VOLUME_TRIM) {
		io->own.cursor = blocks_of(io->own.cursor) * BLOCK_BYTES;
		io->own.end = io->own.end / BLOCK_BYTES * BLOCK_BYTES;
		if (io->own.cursor >= io->own.end)
			return VOLUME_IO_REPLY;
	}
	/* who compares asks for a map, too, and is to know what is yet to come */
	bool is_filled = io->own.volume->fill && (!io->own.is_internal || io->op == VOLUME_MAP);
	return is_filled ? VOLUME_IO_FILL : VOLUME_IO_LOCK;
}

static void volume_io_begin(struct volume *v, struct volume_io *io, bool is_internal)
{
	io->own.wait = WAIT_NOTHING;
	io->own.owed = 0;
	io->own.volume = v;
	io->own.part = NULL;
	io->own.disks = io->own.epoch = io->own.fill_bytes = 0;
	io->own.ahead.stage = 0;
	io->own.heal.disk = io->own.heal.tree = io->own.heal.n_left = 0;
	io->own.iov_index = 0;
	io->own.iov_skip = 0;
	io->own.is_locked = io->own.is_answered = io->own.is_strict = false;
	io->own.has_missed = io->own.is_short = false;
	io->own.thin_disks = ALL_DISKS;
	io->own.short_ns = 0;
	io->own.lock.granted = NULL;
	io->own.is_internal = is_internal;
	io->own.started_ns = reactor_now_ns(v->set->reactor);
	io->n_extents = 0;
	list_init(&io->own.line);
	op_init(&io->own.op, volume_io_turn);
	list_append(&v->requests, &io->own.link);
	if (!is_internal)
		v->n_requests++;
}

static void volume_io_go(struct volume_io *io)
{
	io->own.is_submitting = true;
	volume_io_run(io);
	io->own.is_submitting = false;
}

static void volume_io_submit(struct volume *v, struct volume_io *io, bool is_internal)
{
	quarry_assert(io->done);
	quarry_assert(!transfers_data(io->op) || (io->iov && io->n_iov > 0 && io->n_iov <= VOLUME_IOV_MAX));
	quarry_assert(io->op != VOLUME_MAP || (io->extents && io->extents_max > 0));
	volume_io_begin(v, io, is_internal);
	io->own.err = volume_io_validate(v, io);
	io->own.stage = io->own.err ? VOLUME_IO_REPLY : volume_io_aim(io);
	volume_io_go(io);
}

void volume_submit(struct volume *v, struct volume_io *io)
{
	volume_io_submit(v, io, false);
}

void volume_submit_internal(struct volume *v, struct volume_io *io)
{
	volume_io_submit(v, io, true);
}

void volume_submit_heal(struct volume *v, struct volume_io *io, uint32_t disk, uint64_t tree)
{
	quarry_assert(io->done && io->op == VOLUME_READ && io->flags == 0);
	quarry_assert(io->len_bytes > 0 && io->len_bytes <= PART_BYTES);
	volume_io_begin(v, io, false);
	io->own.heal.disk = 1ull << disk;
	io->own.heal.tree = tree;
	io->own.err = v->state == VOLUME_SERVING ? 0 : -ESHUTDOWN;
	if (io->pos_bytes + io->len_bytes > v->n_chunks * PLACEMENT_CHUNK * SEGMENT_BYTES)
		io->own.err = -EINVAL;
	io->own.cursor = io->pos_bytes;
	io->own.end = io->pos_bytes + io->len_bytes;
	io->own.stage = io->own.err ? VOLUME_IO_REPLY : VOLUME_IO_LOCK;
	volume_io_go(io);
}

void volume_submit_complete(struct volume *v, struct volume_io *io, uint64_t epoch)
{
	quarry_assert(epoch > 0 && io->op == VOLUME_FLUSH);
	volume_io_begin(v, io, true);
	io->own.err = 0;
	io->own.epoch = epoch;
	io->own.stage = VOLUME_IO_HARDEN;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (v->disks[i].state == VOLUME_DISK_JOINED || v->disks[i].is_settling)
			io->own.disks |= 1ull << i;
	volume_io_go(io);
}

void volume_io_init_locks(struct volume *v)
{
	range_locks_init(&v->locks, volume_io_granted);
}

void volume_io_to_text(const struct volume_io *io, char *text, size_t room)
{
	const struct volume *v = io->own.volume;
	snprintf(text, room, "volume %s: %s%s of %" PRIu64 " bytes at %" PRIu64 ": %s, waits for %s, %u at disks",
		 volume_name(v), op_names[io->op], io->own.is_internal ? " (internal)" : "", io->len_bytes,
		 io->pos_bytes, stage_names[io->own.stage], wait_names[io->own.wait], io->own.owed);
}
