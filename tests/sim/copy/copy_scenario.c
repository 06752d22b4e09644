/*
 * copy_scenario.c: three disks of a volume part, and are made equal again by replication/copy.h, whatever crashes.
 *
 *   history: the same changes on all disks, epochs 1 .. L, snapshots taken -> apart: each disk has changes of its own ->
 *   attach: a fork of each target is copied to and swapped      }  crashed at any I/O, begun again
 *   resync: the targets' live trees are copied to, under clients }
 *
 * What must hold
 *  1. In the end each target holds what the source does: data with checksum and epoch, holes; at attach the holes' epochs too.
 *  2. At attach a target's live tree has all of the copy or nothing of it, whenever one looks [COPYATOM].
 *  3. The source changes by nothing but its clients. Blocks that neither side changed since are never written.
 *  4. No more data is sent than blocks were changed since on either side.
 *
 * The disks are of one machine: a crash takes all of them, and the head. An error of a medium takes one.
 */
#include "tests/sim/copy/copy_scenario.h"

#include "daemon/core/checksum.h"
#include "replication/copy.h"
#include "tests/sim/oracle.h"
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISKS             3u
#define LIVE_TREE         1u
#define SCRATCH_TREE      1000u /* and above: never used twice */
#define WINDOWS           4u
#define WINDOW_MAX        400u
#define CLIENTS           6u
#define CLIENT_BLOCKS_MAX 64u
#define STEPS_MAX         3000000u
#define DISK_SIZE         (48 * MIB)
#define CRASH_IO_MAX      1500u
#define ROUNDS_MAX        40u

struct stamp { /* of a block */
	uint64_t epoch;
	uint32_t crc;
	bool is_data;
};

struct picture { /* what a tree holds in the windows */
	struct stamp blocks[WINDOWS][WINDOW_MAX];
};

struct place {
	char path[8];
	struct sim_file *medium;
	struct disk *disk;
	struct replica replica;
	bool is_opened, is_closed;
	int open_res;
};

struct story;
struct request { /* to one disk */
	struct replica_io rio;
	struct story *story;
	bool is_busy;
	int res;
	uint8_t *memory; /* CLIENT_BLOCKS_MAX blocks */
	struct iovec iov;
	uint32_t crcs[CLIENT_BLOCKS_MAX];
};

struct client { /* a change of the live tree, to source and target */
	struct request parts[2];
	uint64_t first, n_blocks;
	bool is_busy;
};

struct held {
	uint64_t first, n_blocks;
	bool is_wanted, is_held;
};

struct story {
	uint64_t seed, random;
	bool is_verbose;
	struct sim *sim;
	struct sim_machine *machine;
	struct log *log;
	struct place places[DISKS];
	struct {
		uint64_t first;
		uint32_t n_blocks;
	} windows[WINDOWS];
	uint64_t epoch, serial, generation, next_scratch;
	struct request one; /* at a time */
	struct copy *copy;
	bool is_copied, has_lost_change; /* has_lost_change: a client's, of which one side failed */
	int copy_res;
	struct copy_progress progress;
	struct held held[COPY_LANES];
	struct client clients[CLIENTS];
	struct place *source, *target;
	struct copy_totals totals;
};

/* ---- saying, choosing ---- */

static _Noreturn void fail(struct story *s, const char *format, ...) printf_like(2, 3);
static _Noreturn void fail(struct story *s, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("seed %" PRIu64 " at %.3f ms: ", s->seed, (double)sim_now_ns(s->sim) / NS_PER_MS);
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
	_Exit(1);
}

static void say(struct story *s, const char *format, ...) printf_like(2, 3);
static void say(struct story *s, const char *format, ...)
{
	va_list args;
	if (!s->is_verbose)
		return;
	va_start(args, format);
	printf("%10.3f ms ", (double)sim_now_ns(s->sim) / NS_PER_MS);
	vprintf(format, args);
	printf("\n");
	va_end(args);
}

static uint64_t pick(struct story *s, uint64_t n)
{
	return sim_split(&s->random) % n;
}

static bool one_in(struct story *s, uint64_t n)
{
	return pick(s, n) == 0;
}

/* ---- requests ---- */

static void request_done(struct replica_io *rio, int res)
{
	struct request *r = container_of(rio, struct request, rio);
	quarry_assert(r->is_busy);
	r->is_busy = false;
	r->res = res;
}

static bool request_is_done(void *context)
{
	return !((struct request *)context)->is_busy;
}

static void request_begin(struct request *r, struct place *p, uint64_t tree, struct disk_io io)
{
	r->rio.io = io;
	r->rio.tree = tree;
	r->rio.done = request_done;
	r->is_busy = true;
	replica_submit(&p->replica, &r->rio);
}

static int ask(struct story *s, struct place *p, uint64_t tree, struct disk_io io)
{
	request_begin(&s->one, p, tree, io);
	if (sim_run(s->sim, request_is_done, &s->one, STEPS_MAX) != SIM_DONE)
		fail(s, "a request to %s was not answered", p->path);
	return s->one.res;
}

static void must(struct story *s, struct place *p, uint64_t tree, struct disk_io io)
{
	int res = ask(s, p, tree, io);
	if (res != 0)
		fail(s, "request %d to %s answered %d", (int)io.op, p->path, res);
}

/* A random change inside a window: data, zeros among them, or a trim. Its content is no other's. */
static struct disk_io change_make(struct story *s, struct request *r, uint64_t epoch)
{
	uint64_t window = pick(s, WINDOWS), offset = pick(s, s->windows[window].n_blocks);
	uint64_t n = 1 + pick(s, one_in(s, 3) ? CLIENT_BLOCKS_MAX : 4);
	struct disk_io io = {.op = DISK_WRITE, .first = s->windows[window].first + offset, .epoch = epoch};
	io.n_blocks = min_u64(n, s->windows[window].n_blocks - offset);
	if (one_in(s, 4)) {
		io.op = DISK_TRIM;
		if (one_in(s, 3)) /* whole leaves, and what is between the windows */
			io.n_blocks += pick(s, 2000);
		return io;
	}
	uint64_t all = io.n_blocks == 64 ? UINT64_MAX : (1ull << io.n_blocks) - 1;
	io.zero_blocks = one_in(s, 5) ? sim_split(&s->random) & all : 0;
	for (uint64_t i = 0; i < io.n_blocks; i++) {
		bool is_zero = io.zero_blocks >> i & 1;
		content_fill(is_zero ? 0 : ++s->serial << 32, r->memory + i * BLOCK_BYTES);
		r->crcs[i] = crc32c(0, r->memory + i * BLOCK_BYTES, BLOCK_BYTES);
	}
	r->iov = (struct iovec){r->memory, io.n_blocks * BLOCK_BYTES};
	io.iov = &r->iov;
	io.n_iov = 1;
	io.crcs = r->crcs;
	return io;
}

/* ---- disks ---- */

static void lost(struct replica *r, int res) {}

static void opened(struct disk *d, int res, void *context)
{
	struct place *p = context;
	p->is_opened = true;
	p->open_res = res;
}

static void closed(struct disk *d, void *context)
{
	((struct place *)context)->is_closed = true;
}

static bool place_is_opened(void *context)
{
	return ((struct place *)context)->is_opened;
}

static bool place_is_closed(void *context)
{
	return ((struct place *)context)->is_closed;
}

static void place_open(struct story *s, struct place *p)
{
	static const struct uuid cluster = {{0xc1}};
	const struct uuid volume = uuid_make(s->seed, 50);
	char why[WHY_BYTES];
	struct disk_options o = {.reactor = sim_reactor(s->machine),
				 .log = s->log,
				 .path = p->path,
				 .cluster = &cluster,
				 .cache_bytes = 4 * MIB,
				 .opened = opened,
				 .context = p};
	p->is_opened = p->is_closed = false;
	if (disk_open(&o, &p->disk, why) < 0)
		fail(s, "open %s: %s", p->path, why);
	if (sim_run(s->sim, place_is_opened, p, STEPS_MAX) != SIM_DONE || p->open_res != 0)
		fail(s, "%s does not open: %d", p->path, p->open_res);
	const struct uuid uuid = disk_superblock(p->disk)->disk;
	replica_init(&p->replica, o.reactor, &volume, &uuid, lost);
	p->replica.disk = p->disk;
	must(s, p, 0, (struct disk_io){.op = DISK_FENCE, .generation = s->generation, .size_blocks = 1ull << 40});
}

static void place_close(struct story *s, struct place *p)
{
	p->is_closed = false;
	disk_close(p->disk, closed, p);
	if (sim_run(s->sim, place_is_closed, p, STEPS_MAX) != SIM_DONE)
		fail(s, "%s does not close", p->path);
	p->disk = NULL;
}

static void place_format(struct story *s, struct place *p, unsigned number)
{
	char why[WHY_BYTES];
	snprintf(p->path, sizeof(p->path), "d%u", number);
	struct disk_format_options o = {
	    .disk = uuid_make(s->seed, number), .pool = uuid_make(s->seed, 101), .cluster = {{0xc1}}, .label = p->path};
	p->medium = sim_file_create(s->machine, p->path, DISK_SIZE);
	if (disk_format(sim_reactor(s->machine), p->path, &o, why) < 0)
		fail(s, "format: %s", why);
}

/* ---- pictures ---- */

static void picture_add(struct story *s, struct picture *out, unsigned window, const struct disk_stamp *d)
{
	for (uint64_t i = 0; i < d->n_blocks; i++) {
		uint64_t at = d->first + i - s->windows[window].first;
		out->blocks[window][at] = (struct stamp){.epoch = d->epoch, .crc = d->crc, .is_data = d->is_data};
	}
}

/* By the stamps; and the data are read, so that they match these. */
static void picture_take(struct story *s, struct place *p, uint64_t tree, struct picture *out)
{
	struct disk_stamp stamps[PEER_STAMP_RUNS];
	memset(out, 0, sizeof(*out));
	for (unsigned w = 0; w < WINDOWS; w++) {
		uint64_t at = s->windows[w].first, end = at + s->windows[w].n_blocks;
		while (at < end) {
			must(s, p, tree,
			     (struct disk_io){.op = DISK_STAMPS,
					      .first = at,
					      .n_blocks = end - at,
					      .stamps = stamps,
					      .stamps_max = PEER_STAMP_RUNS});
			for (uint32_t i = 0; i < s->one.rio.io.n_stamps; i++) {
				picture_add(s, out, w, &stamps[i]);
				at = stamps[i].first + stamps[i].n_blocks;
			}
		}
		for (at = s->windows[w].first; at < end; at += s->one.rio.io.n_blocks) {
			uint64_t n = min_u64(end - at, CLIENT_BLOCKS_MAX);
			s->one.iov = (struct iovec){s->one.memory, n * BLOCK_BYTES};
			must(s, p, tree,
			     (struct disk_io){
				 .op = DISK_READ, .first = at, .n_blocks = n, .iov = &s->one.iov, .n_iov = 1});
		}
	}
}

static bool stamps_equal(const struct stamp *a, const struct stamp *b, bool with_holes)
{
	if (a->is_data != b->is_data || a->crc != b->crc)
		return false;
	return a->epoch == b->epoch || (!a->is_data && !with_holes);
}

static bool pictures_equal(struct story *s, const struct picture *a, const struct picture *b, bool with_holes,
			   uint64_t *where)
{
	for (unsigned w = 0; w < WINDOWS; w++)
		for (uint32_t i = 0; i < s->windows[w].n_blocks; i++) {
			*where = s->windows[w].first + i;
			if (!stamps_equal(&a->blocks[w][i], &b->blocks[w][i], with_holes))
				return false;
		}
	return true;
}

/* Blocks that either side changed since. */
static uint64_t pictures_changed(struct story *s, const struct picture *a, const struct picture *b, uint64_t since)
{
	uint64_t n = 0;
	for (unsigned w = 0; w < WINDOWS; w++)
		for (uint32_t i = 0; i < s->windows[w].n_blocks; i++)
			n += a->blocks[w][i].epoch >= since || b->blocks[w][i].epoch >= since;
	return n;
}

/* ---- histories ---- */

/* A change on all disks, or on one. */
static void change_some(struct story *s, struct place *only)
{
	struct disk_io io = change_make(s, &s->one, s->epoch);
	for (unsigned i = 0; i < DISKS; i++)
		if (!only || only == &s->places[i])
			must(s, &s->places[i], LIVE_TREE, io);
}

static void history_together(struct story *s)
{
	for (unsigned i = 0; i < DISKS; i++)
		must(s, &s->places[i], 0, (struct disk_io){.op = DISK_CREATE, .tree_id = LIVE_TREE, .epoch = 1});
	uint64_t n = pick(s, 60);
	for (uint64_t i = 0; i < n; i++) {
		s->epoch += one_in(s, 4);
		change_some(s, NULL);
		if (!one_in(s, 12))
			continue;
		for (unsigned k = 0; k < DISKS; k++) /* a snapshot, which shares pages */
			must(s, &s->places[k], LIVE_TREE,
			     (struct disk_io){.op = DISK_FORK,
					      .volume = s->places[k].replica.volume,
					      .tree_id = 2 + i,
					      .epoch = s->epoch});
		s->epoch++;
	}
}

static void history_apart(struct story *s)
{
	uint64_t n = pick(s, 40);
	for (uint64_t i = 0; i < n; i++) {
		s->epoch += one_in(s, 4);
		change_some(s, one_in(s, 4) ? NULL : &s->places[pick(s, DISKS)]);
		if (one_in(s, 20))
			disk_checkpoint(s->places[pick(s, DISKS)].disk);
	}
	s->epoch++;
}

/* ---- crashes ---- */

static void crash(struct story *s)
{
	enum sim_crash_kind kind = one_in(s, 3) ? SIM_KILL : SIM_POWER_LOSS;
	say(s, "---- %s", kind == SIM_KILL ? "KILL" : "POWER LOSS");
	s->totals.crashes++;
	s->totals.power_losses += kind == SIM_POWER_LOSS;
	sim_crash(s->machine, kind);
	if (s->copy)
		copy_forget(s->copy);
	s->copy = NULL;
	for (unsigned i = 0; i < DISKS; i++) {
		disk_abandon(s->places[i].disk);
		s->places[i].disk = NULL;
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		s->clients[i].is_busy = s->clients[i].parts[0].is_busy = s->clients[i].parts[1].is_busy = false;
	memset(s->held, 0, sizeof(s->held));
	s->generation++;
	for (unsigned i = 0; i < DISKS; i++)
		place_open(s, &s->places[i]);
}

static void flush_all(struct story *s)
{
	for (unsigned i = 0; i < DISKS; i++)
		must(s, &s->places[i], 0, (struct disk_io){.op = DISK_FLUSH});
}

/* ---- clients of the live tree, while it is copied ---- */

static bool overlap(uint64_t a, uint64_t n_a, uint64_t b, uint64_t n_b)
{
	return a < b + n_b && b < a + n_a;
}

static bool client_is_in_the_way(struct story *s, uint64_t first, uint64_t n)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (s->clients[i].is_busy && overlap(s->clients[i].first, s->clients[i].n_blocks, first, n))
			return true;
	return false;
}

static bool hold_is_in_the_way(struct story *s, uint64_t first, uint64_t n)
{
	for (unsigned i = 0; i < COPY_LANES; i++)
		if (s->held[i].is_wanted && overlap(s->held[i].first, s->held[i].n_blocks, first, n))
			return true;
	return false;
}

static void hold(struct copy *c, unsigned lane, uint64_t first, uint64_t n_blocks, void *context)
{
	struct story *s = context;
	quarry_assert(!s->held[lane].is_wanted);
	s->held[lane] = (struct held){.first = first, .n_blocks = n_blocks, .is_wanted = true};
	if (client_is_in_the_way(s, first, n_blocks))
		return;
	s->held[lane].is_held = true;
	copy_held(c, lane);
}

static void release(struct copy *c, unsigned lane, void *context)
{
	struct story *s = context;
	quarry_assert(s->held[lane].is_held);
	s->held[lane] = (struct held){.is_wanted = false};
}

/* Changes that have arrived on both sides end; who waited for that holds. */
static void clients_end(struct story *s)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *c = &s->clients[i];
		if (!c->is_busy || c->parts[0].is_busy || c->parts[1].is_busy)
			continue;
		c->is_busy = false;
		s->totals.client_changes++;
		for (unsigned k = 0; k < 2; k++)
			if (c->parts[k].res != 0 && c->parts[k].res != -ENOTCONN && c->parts[k].res != -EIO)
				fail(s, "a client's change answered %d", c->parts[k].res);
		s->has_lost_change |= c->parts[0].res != 0 || c->parts[1].res != 0;
	}
	for (unsigned i = 0; i < COPY_LANES && s->copy; i++) {
		struct held *h = &s->held[i];
		if (!h->is_wanted || h->is_held || client_is_in_the_way(s, h->first, h->n_blocks))
			continue;
		h->is_held = true;
		copy_held(s->copy, i);
	}
}

static void client_begin(struct story *s, uint64_t epoch)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *c = &s->clients[i];
		if (c->is_busy)
			continue;
		struct disk_io io = change_make(s, &c->parts[0], epoch);
		if (client_is_in_the_way(s, io.first, io.n_blocks) || hold_is_in_the_way(s, io.first, io.n_blocks))
			return;
		c->first = io.first;
		c->n_blocks = io.n_blocks;
		c->is_busy = true;
		request_begin(&c->parts[0], s->source, LIVE_TREE, io);
		request_begin(&c->parts[1], s->target, LIVE_TREE, io);
		return;
	}
}

static bool clients_are_idle(struct story *s)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (s->clients[i].is_busy)
			return false;
	return true;
}

/* ---- copying ---- */

static void copied(int res, const struct copy_progress *p, void *context)
{
	struct story *s = context;
	s->copy = NULL;
	s->is_copied = true;
	s->copy_res = res;
	s->progress = *p;
}

/* Runs the copy, with clients at work if they are to be. 0, its error, or -EINTR: a crash is due. */
static int copy_go(struct story *s, const struct copy_options *o, uint64_t client_epoch)
{
	s->is_copied = s->has_lost_change = false;
	s->totals.copies++;
	if (copy_start(o, &s->copy) != 0)
		fail(s, "no memory");
	bool is_abandoned = one_in(s, 15);
	for (uint64_t steps = 0; !s->is_copied || !clients_are_idle(s); steps++) {
		bool has_happened = sim_step(s->sim);
		if (sim_crash_is_due(s->machine))
			return -EINTR;
		if (steps > STEPS_MAX || !has_happened)
			fail(s, "a copy does not end");
		if (client_epoch > 0 && !s->is_copied && one_in(s, 2))
			client_begin(s, client_epoch);
		if (s->copy && one_in(s, 300))
			copy_set_rate(s->copy, one_in(s, 2) ? 0 : (1 + pick(s, 64)) * MIB);
		if (s->copy && is_abandoned && one_in(s, 200))
			copy_abandon(s->copy);
		clients_end(s);
	}
	s->totals.copied_blocks += s->progress.copied_bytes / BLOCK_BYTES;
	say(s, "copy: %d, %" PRIu64 " bytes, %" PRIu64 " holes", s->copy_res, s->progress.copied_bytes,
	    s->progress.copied_holes);
	return s->copy_res;
}

static struct copy_options copy_prepare(struct story *s, uint64_t target_tree, uint64_t since, uint64_t before)
{
	return (struct copy_options){.reactor = sim_reactor(s->machine),
				     .source = &s->source->replica,
				     .target = &s->target->replica,
				     .source_tree = LIVE_TREE,
				     .target_tree = target_tree,
				     .n_blocks = 1ull << 34,
				     .since = since,
				     .before = before,
				     .bytes_per_s = one_in(s, 3) ? 20 * MIB : 0,
				     .done = copied,
				     .context = s};
}

/* A disk whose medium has failed is opened anew, and with it a new session of all begins. */
static void mend(struct story *s)
{
	for (unsigned i = 0; i < DISKS; i++) {
		sim_file_fail(s->places[i].medium, OP_WRITE, 0, 0);
		sim_file_fail(s->places[i].medium, OP_FLUSH, 0, 0);
	}
	for (unsigned i = 0; i < DISKS; i++) {
		struct place *p = &s->places[i];
		s->totals.disk_failures += disk_state(p->disk) == DISK_FAILED;
		if (disk_state(p->disk) != DISK_FAILED && p->replica.state == REPLICA_OPEN)
			continue;
		place_close(s, p);
		place_open(s, p);
	}
}

static void set_trap(struct story *s)
{
	if (one_in(s, 2))
		sim_crash_at(s->machine, sim_io_index(s->machine) + 1 + pick(s, 1 + pick(s, CRASH_IO_MAX)));
	else if (one_in(s, 4))
		sim_file_fail(s->places[pick(s, DISKS)].medium, one_in(s, 2) ? OP_WRITE : OP_FLUSH,
			      (uint32_t)pick(s, 60), EIO);
}

/* ---- attach ---- */

static void drop_left_over(struct story *s, struct place *p)
{
	for (uint64_t id = SCRATCH_TREE; id < s->next_scratch; id++)
		if (disk_tree_find(p->disk, &p->replica.volume, id))
			must(s, p, id, (struct disk_io){.op = DISK_DROP});
}

/* One attempt; 0, an error, or -EINTR: a crash is due. */
static int attach_try(struct story *s, uint64_t since)
{
	uint64_t scratch = s->next_scratch++;
	struct disk_io fork = {
	    .op = DISK_FORK, .volume = s->target->replica.volume, .tree_id = scratch, .epoch = s->epoch++};
	struct copy_options o = copy_prepare(s, scratch, since, COPY_ALL);
	struct request *r = &s->one;
	set_trap(s);
	request_begin(r, s->target, LIVE_TREE, fork);
	if (sim_run(s->sim, request_is_done, r, STEPS_MAX) != SIM_DONE)
		return -EINTR;
	if (r->res != 0)
		return r->res;
	int res = copy_go(s, &o, 0);
	if (res != 0)
		return res;
	request_begin(r, s->target, LIVE_TREE, (struct disk_io){.op = DISK_SWAP, .tree_id = scratch});
	if (sim_run(s->sim, request_is_done, r, STEPS_MAX) != SIM_DONE)
		return -EINTR;
	return r->res;
}

static void attach(struct story *s, uint64_t since)
{
	static struct picture source, before, now; /* large */
	uint64_t where, n_rounds = 0;
	picture_take(s, s->source, LIVE_TREE, &source);
	picture_take(s, s->target, LIVE_TREE, &before);
	uint64_t n_changed = pictures_changed(s, &source, &before, since);
	s->totals.changed_blocks += n_changed;
	for (bool is_done = false; !is_done;) {
		bool is_last = ++n_rounds == ROUNDS_MAX;
		int res = attach_try(s, since);
		if (res == 0 && s->progress.copied_bytes > n_changed * BLOCK_BYTES)
			fail(s, "%" PRIu64 " bytes were copied where %" PRIu64 " blocks had changed",
			     s->progress.copied_bytes, n_changed);
		if (res == 0 && is_last)
			fail(s, "it never ends");
		if (res == -EINTR)
			crash(s);
		sim_crash_at(s->machine, 0);
		mend(s);
		picture_take(s, s->target, LIVE_TREE, &now);
		bool is_new = pictures_equal(s, &now, &source, true, &where);
		if (res == 0 && !is_new)
			fail(s, "after the attach block %" PRIu64 " differs", where);
		if (!is_new && !pictures_equal(s, &now, &before, true, &where))
			fail(s, "the live tree has a part of the copy: block %" PRIu64, where);
		drop_left_over(s, s->target);
		picture_take(s, s->source, LIVE_TREE, &now);
		if (!pictures_equal(s, &now, &source, true, &where))
			fail(s, "the source's block %" PRIu64 " has changed", where);
		is_done = res == 0;
	}
}

/* ---- resync ---- */

static void resync(struct story *s, uint64_t since)
{
	static struct picture source, target;
	uint64_t where;
	for (unsigned n_rounds = 0;; n_rounds++) {
		uint64_t r = ++s->epoch; /* from now on clients' changes go to both */
		struct copy_options o = copy_prepare(s, LIVE_TREE, since, r);
		o.hold = hold;
		o.release = release;
		if (n_rounds < ROUNDS_MAX)
			set_trap(s);
		int res = copy_go(s, &o, r);
		if (res == -EINTR)
			crash(s);
		sim_crash_at(s->machine, 0);
		mend(s);
		s->epoch++;
		if (res == 0 && !s->has_lost_change)
			break;
	}
	picture_take(s, s->source, LIVE_TREE, &source);
	picture_take(s, s->target, LIVE_TREE, &target);
	if (!pictures_equal(s, &source, &target, false, &where))
		fail(s, "after the resync block %" PRIu64 " differs", where);
}

/* ---- the story ---- */

static void windows_pick(struct story *s)
{
	static const uint64_t starts[WINDOWS] = {0, 65536 - 150, 700, 1ull << 24};
	for (unsigned i = 0; i < WINDOWS; i++) {
		s->windows[i].first = starts[i];
		s->windows[i].n_blocks = 1 + (uint32_t)pick(s, WINDOW_MAX);
	}
}

static void request_make(struct story *s, struct request *r)
{
	r->story = s;
	r->memory = aligned_alloc(BLOCK_BYTES, CLIENT_BLOCKS_MAX * BLOCK_BYTES);
	quarry_assert(r->memory);
}

static struct story *story_begin(uint64_t seed, bool is_verbose)
{
	struct story *s = calloc(1, sizeof(*s));
	quarry_assert(s);
	s->seed = s->random = seed;
	s->is_verbose = is_verbose;
	s->epoch = s->generation = 1;
	s->next_scratch = SCRATCH_TREE;
	windows_pick(s);
	s->sim = sim_create(seed ^ 0xc0b1);
	s->machine = sim_machine_create(s->sim, "n1");
	int res = log_create(is_verbose ? 1 : -1, LOG_WARNING, &s->log);
	quarry_assert(res == 0);
	request_make(s, &s->one);
	for (unsigned i = 0; i < CLIENTS; i++)
		for (unsigned k = 0; k < 2; k++)
			request_make(s, &s->clients[i].parts[k]);
	for (unsigned i = 0; i < DISKS; i++) {
		place_format(s, &s->places[i], i + 1);
		place_open(s, &s->places[i]);
	}
	return s;
}

static void story_end(struct story *s)
{
	for (unsigned i = 0; i < DISKS; i++)
		place_close(s, &s->places[i]);
	free(s->one.memory);
	for (unsigned i = 0; i < CLIENTS; i++)
		for (unsigned k = 0; k < 2; k++)
			free(s->clients[i].parts[k].memory);
	sim_destroy(s->sim);
	log_destroy(s->log);
	free(s);
}

struct copy_totals copy_scenario(uint64_t seed, bool is_verbose)
{
	struct story *s = story_begin(seed, is_verbose);
	history_together(s);
	uint64_t parted = s->epoch + 1; /* what differs on two disks is of this epoch or a later one */
	s->epoch++;
	for (uint64_t n = 1 + pick(s, 3); n > 0; n--) {
		history_apart(s);
		flush_all(s); /* what is lost later is the copy's own */
		unsigned source = (unsigned)pick(s, DISKS);
		bool is_attach = one_in(s, 2);
		uint64_t since = one_in(s, 6) ? 0 : parted;
		s->source = &s->places[source];
		for (unsigned i = 0; i < DISKS; i++) {
			if (i == source)
				continue;
			s->target = &s->places[i];
			say(s, "%s from %s to %s since %" PRIu64, is_attach ? "attach" : "resync", s->source->path,
			    s->target->path, since);
			if (is_attach)
				attach(s, since);
			else
				resync(s, since);
		}
		if (is_attach) /* all three are equal: clients' changes in a resync leave out the third */
			parted = ++s->epoch;
	}
	struct copy_totals totals = s->totals;
	story_end(s);
	return totals;
}
