/*
 * ahead.c: a MAP with `since`: from change to change, whatever the size of the volume and whatever it holds.
 *
 *   LOOK -> ROW -> MAP -> (ROW | LOOK ...)
 *
 *   LOOK   asks each disk of the volume for its first change, all at once: a disk steps over what is old from the top of
 *          its tree; the request goes on at the first of them. Not of a volume on one disk
 *   ROW    follows the segments from there on, as long as one disk has all that are placed; one disk alone has all
 *   MAP    asks such a disk for what has changed in the row
 *
 * Invariants
 *  1. What is told as unchanged has no epoch of `since` or later on any disk of the volume.
 *  2. A change counts only where its segment lies: a tombstone high in a disk's tree covers what other disks have, too.
 *  3. Placements are read only where something has changed.
 *  4. A disk that cannot be reached or read may have changed anything: then the rows are all there is, and those that
 *     it alone has fail.
 *
 * Owner: the request, in its stage ISSUE.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>

#define ROW_SEGMENTS_MAX 1024u /* looked up at once; when none is placed, others get their turn */

#define AHEAD_STAGES(X) X(BEGIN) X(LOOK) X(ROW) X(MAP)
#define X(name)         AHEAD_##name,
enum ahead_stage { AHEAD_STAGES(X) };
#undef X

/* Nothing has changed from the cursor up to there. */
static void ahead_pass(struct volume_io *io, uint64_t to_bytes)
{
	uint64_t first = io->own.cursor / BLOCK_BYTES;
	quarry_assert(to_bytes >= io->own.cursor && to_bytes <= io->own.end);
	bool has_room = to_bytes == io->own.cursor || volume_io_map_add(io, first, blocks_of(to_bytes) - first, 0);
	io->own.cursor = has_room ? to_bytes : io->own.end;
}

/* Sends one of the disks a part about all up to `end_bytes`. */
static enum flow ahead_send(struct volume_io *io, enum part_kind kind, uint64_t disks, uint64_t end_bytes)
{
	struct volume *v = io->own.volume;
	if (volume_good(v, disks) == 0) {
		io->own.err = -EIO;
		return FLOW_NEXT;
	}
	struct part *p = part_get(&v->set->parts, io);
	if (!p)
		return volume_io_wait(io, WAIT_PART);
	p->kind = kind;
	p->disks = disks;
	p->pos_bytes = io->own.cursor;
	p->len_bytes = end_bytes - io->own.cursor;
	p->must_allocate = false;
	if (kind == PART_MAP) /* the answer may take it back */
		io->own.cursor = end_bytes;
	io->own.owed++;
	part_start(p);
	return FLOW_NEXT;
}

/* ---- LOOK ---- */

/* The disks that hold something of the volume, as bits: of one that is stale others have all. */
static uint64_t disks_used(const struct volume *v)
{
	uint64_t disks = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (v->disks[i].state == VOLUME_DISK_JOINED || v->disks[i].state == VOLUME_DISK_LOST)
			disks |= 1ull << i;
	return disks;
}

static bool is_one(uint64_t disks)
{
	return disks != 0 && (disks & (disks - 1)) == 0;
}

static enum ahead_stage ahead_begin(struct volume_io *io)
{
	io->own.ahead.disks = disks_used(io->own.volume);
	io->own.ahead.end = io->own.end;
	io->own.ahead.n_moves = io->own.volume->entry->n_moves;
	return is_one(io->own.ahead.disks) ? AHEAD_ROW : AHEAD_LOOK;
}

static enum flow ahead_look(struct volume_io *io)
{
	while (io->own.ahead.disks != 0 && io->own.err == 0) {
		uint32_t disk = (uint32_t)__builtin_ctzll(io->own.ahead.disks);
		bool has_moved = io->own.ahead.n_moves != io->own.volume->entry->n_moves; /* to one that is not asked */
		if (!volume_disk_is_good(io->own.volume, disk) || has_moved)
			io->own.ahead.end = io->own.cursor;
		else if (ahead_send(io, PART_AHEAD, 1ull << disk, io->own.end) == FLOW_WAIT)
			return FLOW_WAIT;
		io->own.ahead.disks &= ~(1ull << disk);
	}
	return io->own.owed > 0 ? volume_io_wait(io, WAIT_DISKS) : FLOW_NEXT;
}

int ahead_told(struct part *p)
{
	struct volume_io *io = p->request;
	if (p->err != 0) /* invariant 4 */
		io->own.ahead.end = io->own.cursor;
	else if (p->first.rio.io.n_extents > 0)
		io->own.ahead.end =
		    min_u64(io->own.ahead.end, max_u64(p->extents[0].first * BLOCK_BYTES, io->own.cursor));
	return 0;
}

/* ---- ROW, MAP ---- */

/* Where the row of segments that begins under the cursor ends; each of *row has all that are placed, if any is. It is
 * empty when nobody knows where the first one lies. */
static uint64_t ahead_row_end(struct volume_io *io, uint64_t *row)
{
	uint64_t segment = io->own.cursor / SEGMENT_BYTES;
	uint64_t used = disks_used(io->own.volume);
	*row = is_one(used) ? used : 0;
	if (*row != 0)
		return io->own.end;
	uint64_t end = min_u64((io->own.end + SEGMENT_BYTES - 1) / SEGMENT_BYTES, segment + ROW_SEGMENTS_MAX);
	for (; segment < end; segment++) {
		uint64_t here;
		enum placed placed = chunk_find(io->own.volume, segment, &here);
		if (placed == PLACED_ON_DISKS && (here & used) != 0) /* not those that are stale */
			here &= used;
		if (placed == PLACED_UNKNOWN || (placed == PLACED_ON_DISKS && *row != 0 && (here & *row) == 0))
			break;
		if (placed == PLACED_ON_DISKS) /* else nobody has written there */
			*row = *row ? *row & here : here;
	}
	return max_u64(min_u64(segment * SEGMENT_BYTES, io->own.end), io->own.cursor);
}

static enum flow ahead_row(struct volume_io *io)
{
	uint64_t row;
	uint64_t end = ahead_row_end(io, &row);
	if (end == io->own.cursor) {
		io->own.err = chunk_load(io->own.volume, io->own.cursor / SEGMENT_BYTES, io);
		return io->own.err ? FLOW_NEXT : volume_io_wait(io, WAIT_CHUNK);
	}
	io->own.ahead.end = end;
	if (row == 0) {
		ahead_pass(io, end);
		io->own.ahead.stage = AHEAD_MAP;
		volume_io_next_turn(io);
		return FLOW_WAIT;
	}
	return ahead_send(io, PART_MAP, row, end);
}

/* ---- the dispatcher ---- */

enum flow ahead_run(struct volume_io *io)
{
	while (io->own.err == 0 && (io->own.cursor < io->own.end || io->own.owed > 0)) {
		switch ((enum ahead_stage)io->own.ahead.stage) {
		case AHEAD_BEGIN:
			io->own.ahead.stage = ahead_begin(io);
			break;
		case AHEAD_LOOK: /* all at once: latency is the slowest, not the sum */
			if (ahead_look(io) == FLOW_WAIT)
				return FLOW_WAIT;
			if (io->own.err == 0)
				ahead_pass(io, io->own.ahead.end);
			io->own.ahead.stage = AHEAD_ROW;
			break;
		case AHEAD_ROW:
			if (ahead_row(io) == FLOW_WAIT)
				return FLOW_WAIT;
			io->own.ahead.stage = AHEAD_MAP;
			break;
		case AHEAD_MAP: /* what was answered has moved the cursor: there may have been no room for the whole row */
			if (io->own.owed > 0)
				return volume_io_wait(io, WAIT_DISKS);
			io->own.ahead.stage = io->own.cursor < io->own.ahead.end ? AHEAD_ROW : AHEAD_BEGIN;
			break;
		}
	}
	return FLOW_NEXT;
}
