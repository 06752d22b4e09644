/*
 * copy.c: the one copy routine.
 *
 *   scan   asks both sides what they wrote since, and cuts the union into pieces for the lanes
 *
 *   lane   IDLE -> HOLD -> STAMP -> COMPARE -> PACE -> READ -> SEND -> RELEASE -> IDLE
 *                            ^---------+ ^        holes: -----^  |
 *                            |           +---------------------- + until the piece has no difference left
 *                            +--- the stamps do not reach further, or no longer hold
 *
 *   HOLD      the owner keeps clients' changes off the piece
 *   STAMP     both sides tell checksums and epochs
 *   COMPARE   finds the next difference
 *   PACE      waits for its turn at the rate that is allowed
 *
 * Invariants
 *  1. A piece is held from before its stamps are asked for until its last difference has arrived at the target.
 *  2. What is sent is what was compared: data that no longer match their stamp are compared anew.
 *  3. A piece is copied once in a walk, and pieces do not overlap: lanes need no order among each other.
 *  4. The first error ends it: no request is begun after it, and done() comes when none is under way.
 *
 * Owner: the head.
 */
#include "replication/copy.h"

#include "daemon/core/checksum.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Blocks of a piece of which only the target is known to have something new: what the source has there may be data. */
#define UNKNOWN_MAX 256u
/* How far a side is asked at once what it wrote: further when it answers fast, less far when it has to read many pages. A
 * request that takes very long would pass for a node that is gone. */
#define WINDOW_MIN     65536u
#define WINDOW_MAX     (1ull << 40)
#define WINDOW_FAST_NS (20 * NS_PER_MS)
#define WINDOW_SLOW_NS (100 * NS_PER_MS)
/* Comparisons of one place that found it changed since: under a hold there is none, so many are a fault. */
#define AGAIN_MAX       64u
#define LANE_DATA_BYTES ((size_t)COPY_PIECE_MAX * BLOCK_BYTES)

/* ---- types ---- */

struct lane;
struct ask { /* a request to one side */
	struct replica_io rio;
	struct copy *copy;
	struct lane *lane; /* NULL: the scan's */
	enum copy_side side;
	bool is_asked; /* its answer has not come */
	int res;
};

#define LANE_STAGES(X) X(IDLE) X(HOLD) X(STAMP) X(COMPARE) X(PACE) X(READ) X(SEND) X(RELEASE)
#define X(name)        LANE_##name,
enum lane_stage { LANE_STAGES(X) N_LANE_STAGES };
#undef X

enum { SOURCE, TARGET, SIDES };

struct difference {
	uint64_t first, n_blocks; /* n_blocks 0: there is none */
	bool is_data;
	uint64_t epoch; /* of holes */
};

struct lane {
	struct copy *copy;
	unsigned number;
	enum lane_stage stage;
	bool is_held, is_calling_hold;
	uint64_t first, end; /* of its piece */
	uint64_t cursor;     /* what is before it is done */
	struct ask asks[SIDES];
	struct disk_stamp stamps[SIDES][PEER_STAMP_RUNS];
	struct difference next;
	uint32_t n_again;
	struct timer pace;
	uint8_t *data;
	struct iovec iov;
	uint32_t crcs[COPY_PIECE_MAX];
	uint64_t epochs[COPY_PIECE_MAX];
};

struct scan_side { /* what one side wrote since, from the scan's position on */
	struct ask ask;
	struct disk_extent extents[PEER_MAP_EXTENTS];
	uint32_t n, at;
	uint64_t known_to; /* the extents are all there is before it */
	uint64_t asked_to, asked_ns;
};

struct copy {
	struct copy_options options;
	struct copy_progress progress;
	int err;
	bool is_scanned, is_ending;
	uint64_t position, end; /* of the scan */
	uint64_t window;        /* blocks that it asks for at once */
	struct scan_side sides[SIDES];
	struct lane lanes[COPY_LANES];
	uint64_t next_ns; /* when the next data may be read, by the rate */
	uint8_t *memory;
	struct op op; /* the first turn, and the last */
};

static void copy_run(struct copy *c);
static void lane_run(struct lane *l);
static void scan_answered(struct copy *c, struct scan_side *s);

/* ---- asking one side ---- */

static void copy_fail(struct copy *c, int res, enum copy_side side)
{
	quarry_assert(res < 0);
	if (c->err)
		return;
	c->err = res;
	c->progress.failed = side;
}

/* The one door of every answer. */
static void ask_done(struct replica_io *rio, int res)
{
	struct ask *a = container_of(rio, struct ask, rio);
	struct copy *c = a->copy;
	quarry_assert(a->is_asked && !c->is_ending);
	a->is_asked = false;
	a->res = res;
	if (a->lane)
		lane_run(a->lane);
	else
		scan_answered(c, container_of(a, struct scan_side, ask));
	copy_run(c);
}

static void ask_submit(struct ask *a, struct disk_io io)
{
	const struct copy_options *o = &a->copy->options;
	bool is_source = a->side == COPY_SOURCE;
	quarry_assert(!a->is_asked && !a->copy->err);
	memcpy(&a->rio.io, &io, offsetof(struct disk_io, own));
	a->rio.tree = is_source ? o->source_tree : o->target_tree;
	a->rio.done = ask_done;
	a->is_asked = true;
	a->res = 0;
	replica_submit(is_source ? o->source : o->target, &a->rio);
}

static void ask_init(struct ask *a, struct copy *c, struct lane *l, unsigned side)
{
	a->copy = c;
	a->lane = l;
	a->side = side == SOURCE ? COPY_SOURCE : COPY_TARGET;
}

/* ---- the scan: where is something to compare? ---- */

static uint64_t extent_end(const struct disk_extent *e)
{
	return e->first + e->n_blocks;
}

static void scan_answered(struct copy *c, struct scan_side *s)
{
	if (s->ask.res < 0) {
		copy_fail(c, s->ask.res, s->ask.side);
		return;
	}
	s->n = s->ask.rio.io.n_extents;
	s->at = 0;
	/* less than there was room for: that was all */
	s->known_to = s->n < PEER_MAP_EXTENTS ? s->asked_to : extent_end(&s->extents[s->n - 1]);
	uint64_t took_ns = reactor_now_ns(c->options.reactor) - s->asked_ns;
	if (took_ns < WINDOW_FAST_NS)
		c->window = min_u64(c->window * 2, WINDOW_MAX);
	else if (took_ns > WINDOW_SLOW_NS)
		c->window = max_u64(c->window / 2, WINDOW_MIN);
}

/* Is it known what the side has at the position? If not it is asked. */
static bool scan_side_is_known(struct copy *c, struct scan_side *s)
{
	if (s->known_to > c->position)
		return true;
	if (s->ask.is_asked)
		return false;
	s->asked_to = min_u64(c->end, c->position + c->window);
	s->asked_ns = reactor_now_ns(c->options.reactor);
	ask_submit(&s->ask, (struct disk_io){.op = DISK_MAP,
					     .first = c->position,
					     .n_blocks = s->asked_to - c->position,
					     .extents = s->extents,
					     .extents_max = PEER_MAP_EXTENTS,
					     .since = c->options.since});
	return false;
}

/* The side's first extent that ends after the position; NULL: none before known_to. */
static const struct disk_extent *scan_extent(struct scan_side *s, uint64_t position)
{
	while (s->at < s->n && extent_end(&s->extents[s->at]) <= position)
		s->at++;
	return s->at < s->n ? &s->extents[s->at] : NULL;
}

static bool extent_is_untouched(const struct disk_extent *e)
{
	return !e->is_data && e->epoch == 0;
}

/* Where the piece ends that begins at the scan's position, where one side or both have something. */
static uint64_t scan_piece_end(const struct copy *c, const struct disk_extent *source, const struct disk_extent *target)
{
	if (source && source->first <= c->position)
		return min_u64(extent_end(source), c->position + (source->is_data ? COPY_PIECE_MAX : COPY_HOLES_MAX));
	uint64_t end = min_u64(extent_end(target), c->position + UNKNOWN_MAX);
	return source ? min_u64(end, source->first) : end;
}

/* Cuts the next piece of the union off what is known of both sides; the position moves behind it. false: there is none in
 * what is known. */
static bool scan_cut(struct copy *c, struct lane *l)
{
	uint64_t limit = min_u64(c->sides[SOURCE].known_to, c->sides[TARGET].known_to);
	while (c->position < limit) {
		const struct disk_extent *source = scan_extent(&c->sides[SOURCE], c->position);
		const struct disk_extent *target = scan_extent(&c->sides[TARGET], c->position);
		uint64_t next = min_u64(source ? source->first : limit, target ? target->first : limit);
		c->position = min_u64(limit, max_u64(c->position, next));
		if (c->position == limit)
			return false;
		bool is_at_both = source && target && source->first <= c->position && target->first <= c->position;
		if (is_at_both && extent_is_untouched(source) && extent_is_untouched(target)) {
			c->position = min_u64(limit, min_u64(extent_end(source), extent_end(target)));
			continue;
		}
		l->first = l->cursor = c->position;
		l->end = c->position = min_u64(limit, scan_piece_end(c, source, target));
		return true;
	}
	return false;
}

static struct lane *lane_idle(struct copy *c)
{
	for (unsigned i = 0; i < COPY_LANES; i++)
		if (c->lanes[i].stage == LANE_IDLE)
			return &c->lanes[i];
	return NULL;
}

static void lane_begin(struct lane *l)
{
	const struct copy_options *o = &l->copy->options;
	quarry_assert(l->stage == LANE_IDLE && !l->is_held && l->first < l->end);
	l->stage = LANE_HOLD;
	l->n_again = 0;
	l->is_calling_hold = true;
	if (o->hold)
		o->hold(l->copy, l->number, l->first, l->end - l->first, o->context);
	l->is_calling_hold = false;
	lane_run(l);
}

/* Gives pieces to idle lanes. */
static void scan_run(struct copy *c)
{
	for (struct lane *l; !c->err && !c->is_scanned && (l = lane_idle(c)) != NULL;) {
		if (c->position == c->end) {
			c->is_scanned = true;
			return;
		}
		bool is_source_known = scan_side_is_known(c, &c->sides[SOURCE]);
		if (!scan_side_is_known(c, &c->sides[TARGET]) || !is_source_known)
			return;
		if (scan_cut(c, l))
			lane_begin(l);
	}
}

/* ---- comparing ---- */

/* The stamp that holds what is at `block`; NULL: not known. */
static const struct disk_stamp *stamp_at(const struct disk_stamp *stamps, uint32_t n, uint64_t block)
{
	for (uint32_t i = 0; i < n; i++)
		if (block >= stamps[i].first && block < stamps[i].first + stamps[i].n_blocks)
			return &stamps[i];
	return NULL;
}

static const struct disk_stamp *lane_stamp(const struct lane *l, unsigned side, uint64_t block)
{
	return stamp_at(l->stamps[side], l->asks[side].rio.io.n_stamps, block);
}

/* Shall the target take what the source has? What it has of clients' since r it keeps. */
static bool stamps_differ(const struct copy *c, const struct disk_stamp *source, const struct disk_stamp *target)
{
	if (target->epoch >= c->options.before)
		return false;
	return source->is_data != target->is_data || source->epoch != target->epoch || source->crc != target->crc;
}

/* Do the target's stamps say that it has all of these holes, or newer? Not if it is not known of all. */
static bool target_has_holes(const struct lane *l, const struct disk_stamp *source, uint64_t end)
{
	for (uint64_t at = l->cursor; at < end;) {
		const struct disk_stamp *target = lane_stamp(l, 1, at);
		if (!target || stamps_differ(l->copy, source, target))
			return false;
		at = target->first + target->n_blocks;
	}
	return true;
}

/* Data that differ, side by side, from the cursor on. */
static void difference_of_data(struct lane *l, struct difference *out)
{
	*out = (struct difference){.first = l->cursor, .is_data = true};
	while (out->n_blocks < COPY_PIECE_MAX && out->first + out->n_blocks < l->end) {
		const struct disk_stamp *source = lane_stamp(l, 0, out->first + out->n_blocks);
		const struct disk_stamp *target = lane_stamp(l, 1, out->first + out->n_blocks);
		if (!source || !target || !source->is_data || !stamps_differ(l->copy, source, target))
			break;
		l->crcs[out->n_blocks] = source->crc;
		l->epochs[out->n_blocks] = source->epoch;
		out->n_blocks++;
	}
}

/* A block of zeros may be a hole at one side and data at the other. */
static uint32_t stamp_content(const struct disk_stamp *s)
{
	static const uint8_t zeros[BLOCK_BYTES];
	return s->is_data ? s->crc : crc32c(0, zeros, BLOCK_BYTES);
}

/* Of a comparison: the cursor moves to where a side is not known. */
static void lane_count_unlike(struct lane *l)
{
	struct copy_progress *p = &l->copy->progress;
	while (l->cursor < l->end) {
		const struct disk_stamp *source = lane_stamp(l, SOURCE, l->cursor);
		const struct disk_stamp *target = lane_stamp(l, TARGET, l->cursor);
		if (!source || !target)
			return;
		uint64_t end = min_u64(source->first + source->n_blocks, target->first + target->n_blocks);
		end = min_u64(end, l->end);
		if ((source->is_data || target->is_data) && stamp_content(source) != stamp_content(target)) {
			p->unlike_first = p->unlike_blocks ? min_u64(p->unlike_first, l->cursor) : l->cursor;
			p->unlike_blocks += end - l->cursor;
		}
		l->cursor = end;
	}
}

/* The next difference from the cursor on; the cursor moves past what is alike, at most to where a side is not known. */
static void lane_compare(struct lane *l, struct difference *out)
{
	*out = (struct difference){.n_blocks = 0};
	while (l->cursor < l->end) {
		const struct disk_stamp *source = lane_stamp(l, 0, l->cursor), *target = lane_stamp(l, 1, l->cursor);
		if (!source || !target)
			return;
		uint64_t end = min_u64(l->end, source->first + source->n_blocks);
		if (source->is_data && stamps_differ(l->copy, source, target)) {
			difference_of_data(l, out);
			return;
		}
		if (!source->is_data && !target_has_holes(l, source, end)) {
			*out = (struct difference){
			    .first = l->cursor, .n_blocks = end - l->cursor, .epoch = source->epoch};
			return;
		}
		l->cursor = end;
	}
}

static void lane_find(struct lane *l)
{
	l->next.n_blocks = 0;
	if (l->copy->options.only_compares)
		lane_count_unlike(l);
	else
		lane_compare(l, &l->next);
}

/* ---- what a lane does in each stage ---- */

static bool lane_is_asked(const struct lane *l)
{
	return l->asks[SOURCE].is_asked || l->asks[TARGET].is_asked;
}

static void lane_goto(struct lane *l, enum lane_stage stage)
{
	l->stage = stage;
}

static void lane_ask_stamps(struct lane *l)
{
	for (unsigned i = 0; i < SIDES; i++)
		ask_submit(&l->asks[i], (struct disk_io){.op = DISK_STAMPS,
							 .first = l->cursor,
							 .n_blocks = l->end - l->cursor,
							 .stamps = l->stamps[i],
							 .stamps_max = PEER_STAMP_RUNS});
	lane_goto(l, LANE_STAMP);
}

/* The first error among the answers ends the copy. */
static void lane_take_answers(struct lane *l)
{
	for (unsigned i = 0; i < SIDES; i++) {
		struct ask *a = &l->asks[i];
		if (a->res < 0)
			copy_fail(l->copy, a->res, a->side);
		a->res = 0;
	}
}

/* The lane's turn among what the rate allows. */
static enum flow lane_pace(struct lane *l)
{
	struct copy *c = l->copy;
	uint64_t now = reactor_now_ns(c->options.reactor), at = max_u64(now, c->next_ns);
	if (c->options.bytes_per_s == 0)
		return FLOW_NEXT;
	c->next_ns = at + l->next.n_blocks * BLOCK_BYTES * NS_PER_S / c->options.bytes_per_s;
	if (at == now)
		return FLOW_NEXT;
	timer_start(c->options.reactor, &l->pace, at - now);
	return FLOW_WAIT;
}

static void lane_read(struct lane *l)
{
	l->iov = (struct iovec){l->data, l->next.n_blocks * BLOCK_BYTES};
	ask_submit(
	    &l->asks[SOURCE],
	    (struct disk_io){
		.op = DISK_READ, .first = l->next.first, .n_blocks = l->next.n_blocks, .iov = &l->iov, .n_iov = 1});
	lane_goto(l, LANE_READ);
}

/* Which blocks the source cannot read, for whoever heals them. */
static void lane_note_damage(struct lane *l)
{
	struct copy_progress *p = &l->copy->progress;
	uint64_t bad = l->asks[SOURCE].rio.io.bad_blocks;
	if (l->asks[SOURCE].res != -EIO || bad == 0 || l->copy->err)
		return;
	unsigned from = (unsigned)__builtin_ctzll(bad), to = 64 - (unsigned)__builtin_clzll(bad);
	p->failed_first = l->next.first + from;
	p->failed_blocks = to - from;
}

/* false: there is something to send. What cannot be read ends it; or it is the first, and the lane goes on behind it. */
static bool lane_skips_unread(struct lane *l)
{
	struct copy_progress *p = &l->copy->progress;
	struct ask *a = &l->asks[SOURCE];
	uint64_t bad = a->rio.io.bad_blocks;
	if (a->res != -EIO || bad == 0 || !l->copy->options.skips_unread)
		return false;
	uint64_t n_good = (uint64_t)__builtin_ctzll(bad), rest = ~(bad >> n_good);
	uint64_t n_bad = min_u64(rest ? (uint64_t)__builtin_ctzll(rest) : 64, l->next.n_blocks);
	a->res = 0;
	if (n_good > 0) {
		l->next.n_blocks = n_good;
		l->iov.iov_len = n_good * BLOCK_BYTES;
		return false;
	}
	p->skipped_first = p->skipped_blocks ? min_u64(p->skipped_first, l->next.first) : l->next.first;
	p->skipped_blocks += n_bad;
	l->cursor = l->next.first + n_bad;
	return true;
}

static bool data_are_as_compared(const struct lane *l)
{
	for (uint64_t i = 0; i < l->next.n_blocks; i++)
		if (crc32c(0, l->data + i * BLOCK_BYTES, BLOCK_BYTES) != l->crcs[i])
			return false;
	return true;
}

/* What was compared has changed since: it is compared anew. */
static void lane_again(struct lane *l, enum copy_side side)
{
	if (++l->n_again == AGAIN_MAX)
		copy_fail(l->copy, -EIO, side);
	else
		lane_ask_stamps(l);
}

static void lane_send(struct lane *l)
{
	const struct difference *d = &l->next;
	struct disk_io io = {.op = DISK_COPY_HOLES,
			     .first = d->first,
			     .n_blocks = d->n_blocks,
			     .epoch = d->epoch,
			     .before = l->copy->options.before};
	if (d->is_data) {
		io.op = DISK_COPY;
		io.iov = &l->iov;
		io.n_iov = 1;
		io.crcs = l->crcs;
		io.epochs = l->epochs;
	}
	ask_submit(&l->asks[TARGET], io);
	lane_goto(l, LANE_SEND);
}

/* The target has it. */
static void lane_note_sent(struct lane *l)
{
	struct copy_progress *p = &l->copy->progress;
	if (l->next.is_data)
		p->copied_bytes += l->next.n_blocks * BLOCK_BYTES;
	else
		p->copied_holes += l->next.n_blocks;
	l->cursor = l->next.first + l->next.n_blocks;
	lane_goto(l, LANE_COMPARE);
}

static void lane_release(struct lane *l)
{
	const struct copy_options *o = &l->copy->options;
	bool is_held = l->is_held;
	l->is_held = false;
	timer_stop(o->reactor, &l->pace);
	lane_goto(l, LANE_IDLE);
	if (is_held)
		o->release(l->copy, l->number, o->context);
}

/* ---- the dispatcher of a lane ---- */

static bool lane_must_wait(const struct lane *l)
{
	if (l->stage == LANE_HOLD)
		return l->is_calling_hold || (l->copy->options.hold && !l->is_held);
	return lane_is_asked(l) || (timer_is_running(&l->pace) && !l->copy->err);
}

static void lane_check(const struct lane *l)
{
	quarry_assert(l->first <= l->cursor && l->cursor <= l->end && l->first < l->end);
	quarry_assert(l->is_held == (l->copy->options.hold != NULL));
	quarry_assert(!l->copy->is_ending);
}

/* Read this function to know the way of a piece. */
static void lane_run(struct lane *l)
{
	while (l->stage != LANE_IDLE && !lane_must_wait(l)) {
		lane_check(l);
		bool is_skipped = l->stage == LANE_READ && lane_skips_unread(l);
		if (l->stage == LANE_READ)
			lane_note_damage(l);
		bool is_newer_there = l->stage == LANE_SEND && l->asks[TARGET].res == -EEXIST;
		if (is_newer_there)
			l->asks[TARGET].res = 0;
		lane_take_answers(l);
		if (l->copy->err)
			lane_goto(l, LANE_RELEASE);
		switch (l->stage) {
		case LANE_HOLD:
			lane_ask_stamps(l);
			break;
		case LANE_STAMP:
			lane_goto(l, LANE_COMPARE);
			break;
		case LANE_COMPARE:
			lane_find(l);
			if (l->next.n_blocks > 0 && l->next.is_data)
				lane_goto(l, LANE_PACE);
			else if (l->next.n_blocks > 0)
				lane_send(l);
			else if (l->cursor < l->end)
				lane_ask_stamps(l);
			else
				lane_goto(l, LANE_RELEASE);
			break;
		case LANE_PACE:
			if (lane_pace(l) == FLOW_NEXT)
				lane_read(l);
			break;
		case LANE_READ:
			if (is_skipped)
				lane_goto(l, LANE_COMPARE);
			else if (data_are_as_compared(l))
				lane_send(l);
			else
				lane_again(l, COPY_SOURCE);
			break;
		case LANE_SEND:
			if (is_newer_there)
				lane_again(l, COPY_TARGET);
			else
				lane_note_sent(l);
			break;
		case LANE_RELEASE:
			lane_release(l);
			break;
		case LANE_IDLE:
		case N_LANE_STAGES:
			break;
		}
	}
}

/* The rate allows it now: it does not wait for its turn again. */
static void lane_paced(struct timer *t)
{
	struct lane *l = container_of(t, struct lane, pace);
	struct copy *c = l->copy;
	quarry_assert(l->stage == LANE_PACE);
	if (!c->err)
		lane_read(l);
	lane_run(l);
	copy_run(c);
}

/* ---- the whole ---- */

static bool copy_is_quiet(const struct copy *c)
{
	for (unsigned i = 0; i < COPY_LANES; i++)
		if (c->lanes[i].stage != LANE_IDLE)
			return false;
	return !c->sides[SOURCE].ask.is_asked && !c->sides[TARGET].ask.is_asked;
}

/* Goes on with whatever can go on, and ends when nothing is left or under way. */
static void copy_run(struct copy *c)
{
	if (c->is_ending)
		return;
	for (unsigned i = 0; i < COPY_LANES && c->err; i++) /* who waits for its turn need not any more */
		lane_run(&c->lanes[i]);
	scan_run(c);
	c->is_ending = (c->err || c->is_scanned) && copy_is_quiet(c);
	if (c->is_ending && c->op.kind == OP_NONE)
		reactor_defer(c->options.reactor, &c->op, 0);
}

static void copy_turn(struct op *op, int res)
{
	struct copy *c = container_of(op, struct copy, op);
	(void)res;
	if (!c->is_ending) { /* the first */
		copy_run(c);
		return;
	}
	struct copy_options o = c->options;
	struct copy_progress p = c->progress;
	int err = c->err;
	p.walked_blocks = c->position - o.first;
	copy_forget(c);
	o.done(err, &p, o.context);
}

void copy_forget(struct copy *c)
{
	free(c->memory);
	free(c);
}

int copy_start(const struct copy_options *o, struct copy **out)
{
	quarry_assert(o->done && o->source != o->target && o->n_blocks > 0 && !o->hold == !o->release);
	struct copy *c = calloc(1, sizeof(*c));
	if (c)
		c->memory = aligned_alloc(BLOCK_BYTES, COPY_LANES * LANE_DATA_BYTES);
	if (!c || !c->memory) {
		free(c);
		return -ENOMEM;
	}
	c->options = *o;
	c->position = o->first;
	c->end = o->first + o->n_blocks;
	c->window = WINDOW_MIN;
	c->progress.n_blocks = o->n_blocks;
	for (unsigned i = 0; i < SIDES; i++) {
		ask_init(&c->sides[i].ask, c, NULL, i);
		c->sides[i].known_to = o->first;
	}
	for (unsigned i = 0; i < COPY_LANES; i++) {
		struct lane *l = &c->lanes[i];
		l->copy = c;
		l->number = i;
		l->data = c->memory + i * LANE_DATA_BYTES;
		timer_init(&l->pace, lane_paced);
		ask_init(&l->asks[SOURCE], c, l, SOURCE);
		ask_init(&l->asks[TARGET], c, l, TARGET);
	}
	op_init(&c->op, copy_turn);
	reactor_defer(o->reactor, &c->op, 0);
	*out = c;
	return 0;
}

void copy_held(struct copy *c, unsigned lane)
{
	quarry_assert(lane < COPY_LANES);
	struct lane *l = &c->lanes[lane];
	quarry_assert(l->stage == LANE_HOLD && !l->is_held);
	l->is_held = true;
	if (l->is_calling_hold)
		return;
	lane_run(l);
	copy_run(c);
}

void copy_set_rate(struct copy *c, uint64_t bytes_per_s)
{
	c->options.bytes_per_s = bytes_per_s;
	c->next_ns = 0;
	for (unsigned i = 0; i < COPY_LANES; i++) { /* who waits by the old rate asks anew */
		if (!timer_is_running(&c->lanes[i].pace))
			continue;
		timer_stop(c->options.reactor, &c->lanes[i].pace);
		lane_run(&c->lanes[i]);
	}
	copy_run(c);
}

void copy_abandon(struct copy *c)
{
	copy_fail(c, -ECANCELED, COPY_NEITHER);
	copy_run(c);
}

void copy_progress(const struct copy *c, struct copy_progress *out)
{
	*out = c->progress;
	out->walked_blocks = c->position - c->options.first;
}

void copy_to_text(const struct copy *c, char *text, size_t room)
{
#define X(name) #name,
	static const char *const names[] = {LANE_STAGES(X)};
#undef X
	unsigned n[N_LANE_STAGES] = {0};
	for (unsigned i = 0; i < COPY_LANES; i++)
		n[c->lanes[i].stage]++;
	int at =
	    snprintf(text, room, "%llu of %llu blocks walked", (unsigned long long)(c->position - c->options.first),
		     (unsigned long long)c->options.n_blocks);
	for (unsigned i = LANE_HOLD; i < N_LANE_STAGES && at >= 0 && (size_t)at < room; i++)
		if (n[i] > 0)
			at += snprintf(text + at, room - (size_t)at, ", %u in %s", n[i], names[i]);
}
