/*
 * fill.c: a volume that is served while its first content is still being brought, such as that of a backup.
 *
 *   filler (a client of the export "NAME@.fill")           clients
 *     READ    answered with what they wait for  <---------- a read, or the edge of a write, on a unit that is not there
 *     WRITE   blocks of data, only where nothing was written   yet: it waits before it takes its place in line
 *     ZERO    this range is complete: the rest of it is hole --> those who waited go on
 *     TRIM    these blocks cannot be had: an I/O error there
 *     FLUSH   durable, and recorded
 *
 * What was never written has no epoch in the tree, what was trimmed or zeroed has one. So the trees know, without a
 * bitmap and across crashes, what the filler may still write: a part of its writes looks at them under the lock of its
 * range (part.c, SURVEY). The units here (1 MiB) only say what need not be waited for any more; after a restart those
 * beyond the recorded prefix are simply filled again.
 *
 * Invariants
 *  1. A client's write is never overwritten by the filler: it has an epoch, and their ranges exclude each other.
 *  2. A client reads a block that nobody wrote only in a settled unit; a change that leaves such a block partly as it was
 *     waits for its unit, too. So a request may be carried out behind a later one, here and where it waits for copies
 *     (volume_io.c). What is trimmed or zeroed before its unit is recorded gets an epoch also where it was a hole (part.c,
 *     is_marking): so it is there for good, and waits for nobody. That it is settled does not do: when this process ends,
 *     it is brought again, and what was lost to the source then may be there now.
 *  3. A unit of the recorded prefix was settled before the flush that went before the record.
 *  4. Nobody waits longer than FILL_PATIENCE_NS for a filler that is silent, nor for a unit that it gave up: then a read
 *     gets what was written, else -EIO, and a change that keeps part of a block goes by that block alone [is_strict].
 *  5. What is told as not to be had (gaps) is so until the write that brought it was answered: one that failed may have
 *     brought any part of it.
 *
 * Owner: the volume's head; volumes that are whole have none.
 */
#include "daemon/core/bytes.h"
#include "volumes/head/gaps.h"
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FILL_TICK_NS     NS_PER_S        /* how long the filler's question may wait for its answer */
#define FILL_PATIENCE_NS (30 * NS_PER_S) /* a repository on a network may need a while */
#define FILL_EVENTS_MAX  32u             /* of units given up; the rest is only counted */
#define UNIT_BLOCKS      (FILL_UNIT_BYTES / BLOCK_BYTES)
#define WANTED_BYTES     16u /* first byte, length */
#define WANTED_MAX       (VOLUME_FILL_WANTED_BYTES / WANTED_BYTES)

struct fill {
	struct volume *volume;
	uint64_t *settled, *broken; /* a bit for each unit; broken: not all of it can be had */
	uint64_t n_units, n_settled;
	struct gaps gaps;      /* what cannot: all of it in broken units */
	uint64_t prefix;       /* units before it are all settled */
	struct list waiters;   /* clients' requests, by own.line */
	struct list askers;    /* the filler's, for what is wanted */
	struct list recorders; /* its flushes that wait for another one's record */
	struct volume_io *recording;
	struct record_update update;
	struct timer timer;
	uint64_t seen_ns; /* when the filler last did something */
	uint32_t n_events;
	bool is_stalled; /* told of */
};

static bool bit_get(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> i % 64 & 1;
}

static void bit_put(uint64_t *bits, uint64_t i, bool is_set)
{
	if (bit_get(bits, i) != is_set)
		bits[i / 64] ^= 1ull << i % 64;
}

static uint64_t unit_of(uint64_t pos_bytes)
{
	return pos_bytes / FILL_UNIT_BYTES;
}

static uint64_t unit_end_of(uint64_t end_bytes)
{
	return (end_bytes + FILL_UNIT_BYTES - 1) / FILL_UNIT_BYTES;
}

/* The first unit from here on that is (not) settled, at most `end`. */
static uint64_t next_unit(const struct fill *f, uint64_t unit, uint64_t end, bool is_settled)
{
	while (unit < end && bit_get(f->settled, unit) != is_settled) {
		bool may_skip =
		    unit % 64 == 0 && end - unit >= 64 && f->settled[unit / 64] == (is_settled ? 0 : UINT64_MAX);
		unit += may_skip ? 64 : 1;
	}
	return unit;
}

static void fill_watch_time(struct fill *f)
{
	if (!timer_is_running(&f->timer) && !(list_is_empty(&f->waiters) && list_is_empty(&f->askers)))
		timer_start(f->volume->set->reactor, &f->timer, FILL_TICK_NS);
}

/* ---- what a request needs ---- */

/* The next unit that the request must wait for; units given up are stepped over, and said in *is_broken. */
static bool needs_of_range(const struct fill *f, struct volume_io *io, uint64_t pos, uint64_t end, bool *is_broken)
{
	uint64_t unit = unit_of(pos), last = min_u64(unit_end_of(end), f->n_units);
	for (unit = next_unit(f, unit, last, false); unit < last; unit = next_unit(f, unit + 1, last, false)) {
		if (!bit_get(f->broken, unit)) {
			io->own.unit = unit;
			io->own.unit_end = last;
			return true;
		}
		*is_broken = true;
	}
	return false;
}

static bool fill_needs(const struct fill *f, struct volume_io *io, bool *is_broken)
{
	uint64_t pos = io->own.cursor, end = io->own.end;
	if (io->op == VOLUME_READ)
		return needs_of_range(f, io, pos, end, is_broken);
	if (pos % BLOCK_BYTES != 0 && needs_of_range(f, io, pos, pos + 1, is_broken))
		return true;
	return end % BLOCK_BYTES != 0 && needs_of_range(f, io, end - 1, end, is_broken);
}

bool fill_awaits(const struct volume *v, uint64_t pos_bytes, uint64_t len_bytes)
{
	const struct fill *f = v->fill;
	uint64_t end = f ? min_u64(unit_end_of(pos_bytes + len_bytes), f->n_units) : 0;
	return f && next_unit(f, unit_of(pos_bytes), end, false) < end;
}

bool fill_may_bring(const struct volume *v, uint64_t pos_bytes, uint64_t len_bytes)
{
	return v->fill && pos_bytes + len_bytes > v->entry->facts.fill.filled_bytes;
}

/* What is missing will not come: who does not need just that goes on (part.c, SURVEY). */
static void fill_do_without(struct volume_io *io)
{
	io->own.is_strict = true;
}

/* Units that are not there yet are told as data: nobody may take them for holes, nor for what was there before. */
static void fill_map(const struct fill *f, struct volume_io *io)
{
	uint64_t unit = unit_of(io->own.cursor), last = min_u64(unit_end_of(io->own.end), f->n_units);
	bool is_there = bit_get(f->settled, unit);
	uint64_t end = min_u64(next_unit(f, unit, last, !is_there) * FILL_UNIT_BYTES, io->own.end);
	if (is_there) {
		io->own.end = end;
		return;
	}
	io->extents[0] =
	    (struct volume_extent){.len_bytes = end - io->own.cursor, .is_data = true, .is_changed = io->since > 0};
	io->n_extents = 1;
	io->own.is_answered = true;
}

/* ---- what the filler says ---- */

/* All that clients wait for, from the longest waiting on. */
static void fill_tell_wanted(const struct fill *f, struct volume_io *io)
{
	uint8_t wanted[VOLUME_FILL_WANTED_BYTES] = {0};
	struct slice s = {.iov = io->iov, .n_iov = io->n_iov};
	uint32_t n = 0;
	list_each (node, &f->waiters) {
		const struct volume_io *waiter = container_of(node, struct volume_io, own.line);
		uint64_t pos = waiter->own.unit * FILL_UNIT_BYTES;
		if (n == WANTED_MAX)
			break;
		put_le64(wanted + (size_t)n * WANTED_BYTES, pos);
		put_le64(wanted + (size_t)n * WANTED_BYTES + 8,
			 min_u64(waiter->own.unit_end * FILL_UNIT_BYTES, f->volume->size_bytes) - pos);
		n++;
	}
	slice_fill_from(&s, wanted, sizeof(wanted));
	io->own.is_answered = true;
}

static void fill_answer_askers(struct fill *f, int err)
{
	for (struct list *node = f->askers.next; node != &f->askers; node = f->askers.next) {
		struct volume_io *io = container_of(node, struct volume_io, own.line);
		if (err == 0)
			fill_tell_wanted(f, io);
		volume_io_wake(io, err);
	}
}

static void fill_wake(struct fill *f, uint64_t first, uint64_t end)
{
	list_each_safe (node, &f->waiters) {
		struct volume_io *io = container_of(node, struct volume_io, own.line);
		if (io->own.unit >= first && io->own.unit < end)
			volume_io_wake(io, 0);
	}
}

static void fill_settle(struct fill *f, uint64_t first, uint64_t end)
{
	for (uint64_t unit = first; unit < end; unit++) {
		f->n_settled += !bit_get(f->settled, unit);
		bit_put(f->settled, unit, true);
		bit_put(f->broken, unit, false);
	}
	if (first < end)
		gaps_remove(&f->gaps, first * UNIT_BLOCKS, end * UNIT_BLOCKS);
	f->prefix = next_unit(f, f->prefix, f->n_units, false);
	quarry_assert(f->n_settled < f->n_units || f->prefix == f->n_units);
}

/* The rest of its unit has been brought; a unit that was complete before stays so. */
static void fill_give_up(struct fill *f, const struct volume_io *io)
{
	const struct set_volume *entry = f->volume->entry;
	uint64_t first = io->pos_bytes / BLOCK_BYTES, end = blocks_of(io->pos_bytes + io->len_bytes);
	uint64_t n_before = f->gaps.n_blocks;
	for (uint64_t unit = first / UNIT_BLOCKS; unit * UNIT_BLOCKS < end; unit++) {
		if (bit_get(f->settled, unit))
			continue;
		bit_put(f->broken, unit, true);
		gaps_add(&f->gaps, max_u64(first, unit * UNIT_BLOCKS), min_u64(end, (unit + 1) * UNIT_BLOCKS));
	}
	if (f->gaps.n_blocks == n_before || f->n_events++ >= FILL_EVENTS_MAX)
		return;
	log_event(f->volume->set->log, LOG_ERROR, "fill-damaged", entry->facts.name,
		  "volume %s: bytes %" PRIu64 "+%" PRIu64
		  " cannot be had from %s: what was not written there since answers with an I/O error; when the source "
		  "is whole again, repeat the restore",
		  entry->facts.name, io->pos_bytes, io->len_bytes, entry->facts.fill.source);
}

static enum flow fill_obey(struct fill *f, struct volume_io *io)
{
	uint64_t first = unit_of(io->pos_bytes), end = unit_end_of(io->pos_bytes + io->len_bytes);
	f->seen_ns = reactor_now_ns(f->volume->set->reactor);
	f->is_stalled = false;
	if (io->op == VOLUME_WRITE) /* into its line; part.c leaves out what was written */
		return FLOW_NEXT;
	if (io->op == VOLUME_READ) {
		if (!list_is_empty(&f->waiters)) {
			fill_tell_wanted(f, io);
			return FLOW_NEXT;
		}
		list_append(&f->askers, &io->own.line);
		fill_watch_time(f);
		return FLOW_WAIT;
	}
	io->own.is_answered = true;
	if (io->op == VOLUME_ZERO)
		fill_settle(f, first, end);
	else
		fill_give_up(f, io);
	fill_wake(f, first, end);
	return FLOW_NEXT;
}

void fill_brought(const struct volume_io *io)
{
	struct fill *f = io->own.volume->fill;
	if (f && io->own.err == 0 && io->op == VOLUME_WRITE && io->flags & VOLUME_FILL)
		gaps_remove(&f->gaps, io->pos_bytes / BLOCK_BYTES, blocks_of(io->pos_bytes + io->len_bytes));
}

int fill_check(const struct volume *v, const struct volume_io *io)
{
	uint64_t end = io->pos_bytes + io->len_bytes;
	if (!v->fill)
		return -ESHUTDOWN; /* all has been brought */
	switch (io->op) {
	case VOLUME_WRITE:
	case VOLUME_TRIM:
		return io->pos_bytes % BLOCK_BYTES == 0 && (end % BLOCK_BYTES == 0 || end == v->size_bytes) ? 0
													    : -EINVAL;
	case VOLUME_ZERO:
		return io->pos_bytes % FILL_UNIT_BYTES == 0 && (end % FILL_UNIT_BYTES == 0 || end == v->size_bytes)
			   ? 0
			   : -EINVAL;
	case VOLUME_READ:
		return io->len_bytes == VOLUME_FILL_WANTED_BYTES ? 0 : -EINVAL;
	case VOLUME_FLUSH:
		return 0;
	case VOLUME_MAP:
		break;
	}
	return -EINVAL;
}

/* ---- the stage FILL of a request ---- */

enum flow fill_admit(struct volume_io *io)
{
	struct fill *f = io->own.volume->fill;
	bool is_broken = false;
	if (!f || io->own.err != 0 || io->own.is_answered)
		return FLOW_NEXT;
	if (io->flags & VOLUME_FILL)
		return fill_obey(f, io);
	if (io->op == VOLUME_MAP) {
		fill_map(f, io);
		return FLOW_NEXT;
	}
	if (io->own.is_strict || !fill_needs(f, io, &is_broken)) {
		if (is_broken)
			fill_do_without(io);
		return FLOW_NEXT;
	}
	/* It was on its way from one unit to another when the others were sent away. */
	if (f->volume->state == VOLUME_DRAINING) {
		io->own.err = -ESHUTDOWN;
		return FLOW_NEXT;
	}
	list_append(&f->waiters, &io->own.line);
	fill_watch_time(f);
	fill_answer_askers(f, 0);
	return FLOW_WAIT;
}

static void fill_stall(struct fill *f)
{
	const struct set_volume *entry = f->volume->entry;
	if (!f->is_stalled)
		log_event(f->volume->set->log, LOG_WARNING, "fill-stalled", entry->facts.name,
			  "volume %s: a client waits for what is still in %s, and nobody brings it: repeat the "
			  "restore; until then "
			  "such places answer with an I/O error",
			  entry->facts.name, entry->facts.fill.source);
	f->is_stalled = true;
}

static void fill_tick(struct timer *t)
{
	struct fill *f = container_of(t, struct fill, timer);
	uint64_t now = reactor_now_ns(f->volume->set->reactor);
	list_each_safe (node, &f->waiters) {
		struct volume_io *io = container_of(node, struct volume_io, own.line);
		if (now - max_u64(io->own.started_ns, f->seen_ns) < FILL_PATIENCE_NS)
			continue;
		fill_stall(f);
		fill_do_without(io);
		volume_io_wake(io, 0);
	}
	fill_answer_askers(f, 0);
	fill_watch_time(f);
}

/* ---- the stage RECORD of the filler's FLUSH ---- */

uint64_t fill_prefix_bytes(const struct volume *v)
{
	return min_u64(v->fill->prefix * FILL_UNIT_BYTES, v->size_bytes);
}

/* Those whose flush waited for another one's record look again: one of them may record next, the others have what they want
 * or wait once more. */
static void fill_wake_recorders(struct fill *f)
{
	while (!list_is_empty(&f->recorders))
		volume_io_wake(container_of(f->recorders.next, struct volume_io, own.line), 0);
}

/* All is there, and recorded. */
static void fill_end(struct fill *f)
{
	struct volume *v = f->volume;
	log_event(v->set->log, LOG_INFO, "volume-filled", v->entry->facts.name, "volume %s is whole",
		  v->entry->facts.name);
	quarry_assert(list_is_empty(&f->waiters));
	fill_answer_askers(f, 0);
	timer_stop(v->set->reactor, &f->timer);
	fill_abandon(v);
}

static int fill_change(struct record_update *u, struct volume_facts *facts)
{
	const struct fill *f = container_of(u, struct fill, update);
	facts->fill.filled_bytes = f->recording->own.fill_bytes;
	if (facts->fill.filled_bytes == facts->size_bytes)
		facts->fill = (struct fill_facts){0};
	return 0;
}

static void fill_recorded(struct record_update *u, int res)
{
	struct fill *f = container_of(u, struct fill, update);
	struct volume_io *io = f->recording;
	f->recording = NULL;
	io->own.is_answered = true;
	volume_io_wake(io, res == 0 ? 0 : -EIO);
	fill_wake_recorders(f);
	if (f->volume->entry->facts.fill.source[0] == 0)
		fill_end(f);
}

enum flow fill_record(struct volume_io *io)
{
	struct volume *v = io->own.volume;
	struct fill *f = v->fill;
	if (!f || io->own.err != 0 || io->own.is_answered || io->own.fill_bytes <= v->entry->facts.fill.filled_bytes)
		return FLOW_NEXT;
	if (f->recording) {
		list_append(&f->recorders, &io->own.line);
		return FLOW_WAIT;
	}
	f->recording = io;
	f->update.generation = v->generation;
	f->update.change = fill_change;
	f->update.done = fill_recorded;
	record_update_start(&f->update, v->entry);
	return FLOW_WAIT;
}

/* ---- life ---- */

int fill_begin(struct volume *v)
{
	struct fill *f = calloc(1, sizeof(*f));
	uint64_t n_words = (unit_end_of(v->size_bytes) + 63) / 64;
	if (!f)
		return -ENOMEM;
	v->fill = f;
	f->volume = v;
	f->n_units = unit_end_of(v->size_bytes);
	f->settled = calloc(n_words, sizeof(*f->settled));
	f->broken = calloc(n_words, sizeof(*f->broken));
	list_init(&f->waiters);
	list_init(&f->askers);
	list_init(&f->recorders);
	timer_init(&f->timer, fill_tick);
	f->seen_ns = reactor_now_ns(v->set->reactor);
	if (!f->settled || !f->broken) {
		fill_abandon(v);
		return -ENOMEM;
	}
	fill_settle(f, 0, unit_of(v->entry->facts.fill.filled_bytes));
	return 0;
}

void fill_drain(struct volume *v)
{
	struct fill *f = v->fill;
	if (!f)
		return;
	fill_answer_askers(f, -ESHUTDOWN);
	list_each_safe (node, &f->waiters)
		volume_io_wake(container_of(node, struct volume_io, own.line), -ESHUTDOWN);
	timer_stop(v->set->reactor, &f->timer);
}

void fill_abandon(struct volume *v)
{
	struct fill *f = v->fill;
	if (!f)
		return;
	record_update_abandon(&f->update);
	free(f->settled);
	free(f->broken);
	free(f);
	v->fill = NULL;
}

/* The volume's last block may be a part of one. */
static void fill_view_gaps(const struct gaps *g, struct volume_view *view)
{
	uint64_t end_bytes = g->n ? g->all[g->n - 1].end * BLOCK_BYTES : 0;
	uint64_t beyond = end_bytes - min_u64(end_bytes, view->size_bytes);
	view->unfillable_bytes = g->n_blocks * BLOCK_BYTES - beyond;
	view->n_unfillable = g->n;
	for (uint32_t i = 0; i < min_u64(g->n, array_size(view->unfillable)); i++) {
		uint64_t from = g->all[i].first * BLOCK_BYTES,
			 to = min_u64(g->all[i].end * BLOCK_BYTES, view->size_bytes);
		view->unfillable[i] = (struct set_range){.pos_bytes = from, .len_bytes = to - from};
	}
}

void fill_view(const struct set_volume *entry, struct volume_view *view)
{
	const struct fill *f = entry->head ? entry->head->fill : NULL;
	text_print(view->fill_source, sizeof(view->fill_source), "%s", entry->facts.fill.source);
	view->filled_bytes = view->recorded_bytes = entry->facts.fill.filled_bytes;
	if (!f)
		return;
	view->filled_bytes = min_u64(f->n_settled * FILL_UNIT_BYTES, view->size_bytes);
	fill_view_gaps(&f->gaps, view);
	view->is_filling = reactor_now_ns(entry->set->reactor) - f->seen_ns < FILL_PATIENCE_NS;
}
