/*
 * disk_world.c: opening, crashing, closing, checking and judging the one disk of a simulation.
 *
 *   formatted --open--> opened --close--> formatted
 *                |         \--crash--> crashed --open-->
 *                \--crash in recovery--> crashed
 *
 * Invariants
 *  1. After a crash the old disk is abandoned before anything else happens, and every slot is free.
 *  2. Whatever the disk answered before the crash was due counts; nothing after it does.
 *  3. Every recovered disk is read whole and judged before the next request, and its image checked before and after.
 */
#include "tests/sim/disk/disk_world.h"

#include "daemon/core/checksum.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_WITHOUT_ANSWER_MAX 400000u
#define FINDINGS_SHOWN_MAX       12u

static const struct uuid cluster_uuid = {{0xc1}};

/* ---- saying ---- */

void world_say(struct disk_world *w, const char *format, ...)
{
	va_list args;

	if (!w->is_verbose)
		return;
	va_start(args, format);
	printf("%10.3f ms io %-6" PRIu64 " ", (double)sim_now_ns(w->sim) / NS_PER_MS, sim_io_index(w->machine));
	vprintf(format, args);
	printf("\n");
	va_end(args);
}

static const char *op_name(enum disk_op op)
{
	static const char *const names[] = {
	    [DISK_READ] = "read",   [DISK_WRITE] = "write",   [DISK_TRIM] = "trim",         [DISK_MAP] = "map",
	    [DISK_FLUSH] = "flush", [DISK_CREATE] = "create", [DISK_FORK] = "fork",         [DISK_DROP] = "drop",
	    [DISK_FENCE] = "fence", [DISK_FORGET] = "forget", [DISK_COMPLETE] = "complete", [DISK_MEASURE] = "measure"};

	quarry_assert(op < array_size(names) && names[op]);
	return names[op];
}

static void slots_say(struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		struct slot *s = &w->slots[i];
		if (s->is_busy)
			printf("  in flight: %s blocks %" PRIu64 "+%" PRIu64 ", stage %u\n", op_name(s->io.op),
			       s->io.first, s->io.n_blocks, s->io.own.stage);
	}
}

void world_fail(struct disk_world *w, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("seed %" PRIu64 " at %.3f ms, io %" PRIu64 ": ", w->seed, (double)sim_now_ns(w->sim) / NS_PER_MS,
	       sim_io_index(w->machine));
	vprintf(format, args);
	printf("\n");
	va_end(args);
	slots_say(w);
	fflush(stdout);
	_Exit(1);
}

uint64_t world_pick(struct disk_world *w, uint64_t n)
{
	quarry_assert(n > 0);
	return sim_split(&w->random_state) % n;
}

bool world_one_in(struct disk_world *w, uint64_t n)
{
	return world_pick(w, n) == 0;
}

/* ---- waiting ---- */

enum sim_outcome world_wait(struct disk_world *w, bool (*is_done)(void *w), const char *what)
{
	for (;;) {
		uint64_t n_done = w->n_done;
		enum sim_outcome outcome = sim_run(w->sim, is_done, w, STEPS_WITHOUT_ANSWER_MAX);
		if (outcome == SIM_DONE || outcome == SIM_CRASH_DUE)
			return outcome;
		if (outcome == SIM_IDLE || w->n_done == n_done)
			world_fail(w, "stuck while it should %s: %s", what,
				   outcome == SIM_IDLE ? "nothing is under way" : "no answer for very long");
	}
}

bool world_is_idle(void *context)
{
	world_retry(context);
	return ((struct disk_world *)context)->n_busy == 0;
}

/* ---- trees ---- */

void world_handle_set(struct disk_world *w, uint32_t tree, struct disk_tree *handle)
{
	if (tree >= w->handles_max) {
		uint32_t n = tree * 2 + 64;
		w->handles = realloc(w->handles, n * sizeof(*w->handles));
		quarry_assert(w->handles != NULL);
		memset(w->handles + w->handles_max, 0, (n - w->handles_max) * sizeof(*w->handles));
		w->handles_max = n;
	}
	w->handles[tree] = handle;
}

uint32_t world_live_trees(const struct disk_world *w, uint32_t out[static WORLD_TREES_MAX])
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < oracle_trees(w->oracle); i++) {
		if (oracle_tree_is_live(w->oracle, i)) {
			quarry_assert(n < WORLD_TREES_MAX);
			out[n++] = i;
		}
	}
	return n;
}

uint64_t world_session(const struct disk_world *w, uint32_t tree)
{
	return w->volumes[world_volume_of(w, tree)].session;
}

/* ---- answers ---- */

static void check_read(struct slot *s, int res)
{
	struct disk_world *w = s->world;

	if (res != 0 && (res != -EIO || s->io.bad_blocks == 0))
		world_fail(w, "read answered %d, bad blocks %" PRIx64, res, s->io.bad_blocks);
	for (uint32_t i = 0; i < s->io.n_blocks; i++) {
		uint64_t expected = oracle_expect(w->oracle, s->tree, s->cell + i);
		bool is_bad = s->io.bad_blocks >> i & 1;
		uint64_t token = content_token(s->memory + (uint64_t)i * BLOCK_BYTES);
		if (expected == ORACLE_UNKNOWN && token != CONTENT_WRONG)
			continue;
		bool may_be_bad = expected == ORACLE_BAD || w->is_shaky;
		if ((is_bad ? !may_be_bad : expected == ORACLE_BAD) && !w->is_lenient)
			world_fail(w, "read of tree %" PRIu64 " block %" PRIu64 ": %s",
				   oracle_tree_id(w->oracle, s->tree), s->io.first + i,
				   is_bad ? "unreadable, but it is sound" : "readable, but it is damaged");
		if (w->is_lenient ? !is_bad && token == CONTENT_WRONG : !is_bad && token != expected)
			world_fail(w, "read of tree %" PRIu64 " block %" PRIu64 " returned %" PRIx64 ", not %" PRIx64,
				   oracle_tree_id(w->oracle, s->tree), s->io.first + i, token, expected);
	}
}

/* What a map says of one block; NULL: nothing, it did not change since. */
static void check_mapped(struct slot *s, uint64_t block, const struct disk_extent *e)
{
	struct disk_world *w = s->world;
	uint64_t expected = oracle_expect(w->oracle, s->tree, s->cell + (uint32_t)(block - s->io.first));
	bool is_known = expected != 0 && expected != ORACLE_BAD; /* its epoch is */

	if (expected == ORACLE_UNKNOWN || (expected == ORACLE_BAD && w->is_lenient))
		return;
	if (e == NULL && (s->io.since == 0 || (is_known && token_epoch(expected) >= s->io.since)))
		world_fail(w, "map since %" PRIu64 " leaves out block %" PRIu64 ", written in %" PRIu64, s->io.since,
			   block, token_epoch(expected));
	if (e != NULL && e->is_data != (expected != 0))
		world_fail(w, "map says that block %" PRIu64 " is %s, not %" PRIx64, block,
			   e->is_data ? "data" : "a hole", expected);
	if (e != NULL && e->epoch < s->io.since)
		world_fail(w, "map since %" PRIu64 " tells of block %" PRIu64 " in %" PRIu64, s->io.since, block,
			   e->epoch);
}

/* Extents must tell data from holes, in order, and leave out only what did not change since. */
static void check_map(struct slot *s, int res)
{
	struct disk_world *w = s->world;
	uint64_t at = s->io.first, end = s->io.first + s->io.n_blocks;

	if (res == -EIO && (w->is_lenient || w->is_shaky))
		return;
	if (res != 0)
		world_fail(w, "map answered %d", res);
	for (uint32_t i = 0; i < s->io.n_extents; i++) {
		const struct disk_extent *e = &s->extents[i];
		if (e->first < at || e->n_blocks == 0 || e->first >= end || e->n_blocks > end - e->first)
			world_fail(w, "map of %" PRIu64 "+%" PRIu64 ": extent %u is %" PRIu64 "+%" PRIu64, s->io.first,
				   s->io.n_blocks, i, e->first, e->n_blocks);
		while (at < e->first)
			check_mapped(s, at++, NULL);
		while (at < e->first + e->n_blocks)
			check_mapped(s, at++, e);
	}
	while (at < end && s->io.n_extents < s->io.extents_max)
		check_mapped(s, at++, NULL);
}

static void check_enospc(struct slot *s)
{
	struct disk_world *w = s->world;
	struct disk_stats stats;

	disk_stats(w->disk, &stats);
	w->totals.enospc++;
	if (s->io.op == DISK_DROP || s->io.op == DISK_COMPLETE || s->io.op == DISK_FORGET)
		world_fail(w, "%s answered -ENOSPC", op_name(s->io.op));
	/* New records, and trims that may copy what snapshots share, reach into the reserve, but not to its end. */
	if (s->io.op != DISK_WRITE && stats.free_blocks > stats.reserve_blocks)
		world_fail(w, "%s answered -ENOSPC with %" PRIu64 " blocks free and a reserve of %" PRIu64,
			   op_name(s->io.op), stats.free_blocks, stats.reserve_blocks);
	if (stats.free_blocks > stats.reserve_blocks + 2 * DISK_IO_BLOCKS_MAX * WORLD_SLOTS)
		world_fail(w, "write answered -ENOSPC with %" PRIu64 " blocks free and a reserve of %" PRIu64,
			   stats.free_blocks, stats.reserve_blocks);
}

/* Only a fence that is under way, or came between, makes a session stale. */
static void check_estale(struct slot *s)
{
	struct disk_world *w = s->world;
	const struct volume_state *v = s->tree == ORACLE_NONE ? NULL : &w->volumes[world_volume_of(w, s->tree)];

	if (disk_state(w->disk) == DISK_FAILED) /* a fence that was not answered made it so */
		return;
	if (v == NULL || (!v->is_busy && v->session == s->io.session))
		world_fail(w, "%s answered -ESTALE in session %" PRIu64, op_name(s->io.op), s->io.session);
}

static void volume_answer(struct slot *s, int res)
{
	struct disk_world *w = s->world;
	struct volume_state *v = &w->volumes[s->volume];

	v->is_busy = false;
	if (res != 0)
		return;
	if (s->io.op == DISK_FENCE) {
		if (s->io.new_session <= v->session)
			world_fail(w, "fence answered session %" PRIu64 ", not above %" PRIu64, s->io.new_session,
				   v->session);
		if (s->io.complete_epoch != v->done.complete_epoch)
			world_fail(w, "fence answered complete epoch %" PRIu64 ", not %" PRIu64, s->io.complete_epoch,
				   v->done.complete_epoch);
		v->session = s->io.new_session;
	} else if (s->io.op == DISK_FORGET) {
		v->session = 0;
	}
	v->done = v->asked;
}

/* Errors that a request may be answered with, and what they say about it. */
static void check_result(struct slot *s, int res)
{
	struct disk_world *w = s->world;

	if (res == 0)
		return;
	if (res == -ENOSPC)
		check_enospc(s);
	else if (res == -ESTALE)
		check_estale(s);
	else if (res != -EIO)
		world_fail(w, "%s answered %d", op_name(s->io.op), res);
	else if (disk_state(w->disk) != DISK_FAILED && !w->is_lenient && !w->is_shaky)
		world_fail(w, "%s answered -EIO on a disk that is %s", op_name(s->io.op),
			   disk_state_name(disk_state(w->disk)));
}

static void slot_answer(struct slot *s, int res)
{
	struct disk_world *w = s->world;
	bool is_failed = disk_state(w->disk) == DISK_FAILED;

	if (s->io.op == DISK_READ || s->io.op == DISK_MAP) {
		if (is_failed && res == -EIO)
			return;
		if (s->io.op == DISK_READ)
			check_read(s, res);
		else
			check_map(s, res);
		return;
	}
	check_result(s, res);
	if (s->request != ORACLE_NONE)
		oracle_done(w->oracle, s->request, res == 0,
			    (res == -ENOSPC || res == -ESTALE) && s->io.op != DISK_TRIM);
	if (s->volume != ORACLE_NONE)
		volume_answer(s, res);
	if (s->io.op == DISK_FLUSH && res == 0)
		oracle_flush_done(w->oracle, s->mark);
	if ((s->io.op == DISK_CREATE || s->io.op == DISK_FORK) && res == 0)
		world_handle_set(w, oracle_request_tree(w->oracle, s->request), s->io.new_tree);
}

static void slot_done(struct disk_io *io, int res)
{
	struct slot *s = container_of(io, struct slot, io);
	struct disk_world *w = s->world;

	quarry_assert(s->is_busy && w->n_busy > 0);
	if (io->op != DISK_READ || res != 0)
		world_say(w, "%s tree %d %" PRIu64 "+%" PRIu64 " (request %d): %d", op_name(io->op),
			  s->tree == ORACLE_NONE ? -1 : (int)oracle_tree_id(w->oracle, s->tree), io->first,
			  io->n_blocks, (int)s->request, res);
	s->res = res;
	slot_answer(s, res);
	if (io->op == DISK_TRIM &&
	    res == -ESTALE) { /* part of it may be done: its blocks are unknown until it is repeated */
		s->is_cut_short = true;
		return;
	}
	s->is_busy = false;
	w->n_busy--;
	w->n_done++;
}

/* ---- slots ---- */

struct slot *slot_take(struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		struct slot *s = &w->slots[i];
		if (s->is_busy)
			continue;
		s->io = (struct disk_io){.done = slot_done};
		s->world = w;
		s->tree = s->request = s->volume = ORACLE_NONE;
		return s;
	}
	return NULL;
}

void slot_submit(struct slot *s)
{
	struct disk_world *w = s->world;

	quarry_assert(!s->is_busy && w->disk != NULL);
	s->is_busy = true;
	w->n_busy++;
	w->totals.requests++;
	if (s->io.op == DISK_FLUSH)
		s->mark = oracle_flush_begin(w->oracle);
	if (s->io.op != DISK_READ)
		world_say(w, "> %s tree %d %" PRIu64 "+%" PRIu64 " (request %d)%s", op_name(s->io.op),
			  s->tree == ORACLE_NONE ? -1 : (int)oracle_tree_id(w->oracle, s->tree), s->io.first,
			  s->io.n_blocks, (int)s->request, s->io.is_ordered ? " ordered" : "");
	disk_submit(w->disk, &s->io);
}

/* Its volume's session is known, and its tree is not being forked. */
static bool can_retry(const struct disk_world *w, const struct slot *s)
{
	if (w->volumes[world_volume_of(w, s->tree)].is_busy)
		return false;
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		const struct slot *other = &w->slots[i];
		if (other->is_busy && other->tree == s->tree && other->io.op == DISK_FORK)
			return false;
	}
	return true;
}

void world_retry(struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		struct slot *s = &w->slots[i];
		if (!s->is_busy || !s->is_cut_short || !can_retry(w, s))
			continue;
		s->is_busy = s->is_cut_short = false;
		w->n_busy--;
		s->io.session = world_session(w, s->tree);
		s->io.epoch = w->epoch;
		s->request = oracle_trim(w->oracle, s->tree, s->io.first, s->io.n_blocks);
		slot_submit(s);
	}
}

int slot_call(struct slot *s)
{
	slot_submit(s);
	if (world_wait(s->world, world_is_idle, op_name(s->io.op)) == SIM_CRASH_DUE)
		return -EINTR;
	return s->res;
}

void slot_use_memory(struct slot *s, uint32_t n_blocks)
{
	struct disk_world *w = s->world;
	uint64_t sectors = (uint64_t)n_blocks * (BLOCK_BYTES / SECTOR_BYTES), at = 0;
	uint32_t n = 0;
	bool is_cut = world_one_in(w, 3);

	while (at < sectors) {
		uint64_t piece = sectors - at;
		if (is_cut && n + 1 < DISK_IO_BLOCKS_MAX)
			piece = 1 + world_pick(w, world_one_in(w, 2) ? piece : min_u64(piece, 20));
		s->iov[n++] = (struct iovec){s->memory + at * SECTOR_BYTES, piece * SECTOR_BYTES};
		at += piece;
	}
	s->io.iov = s->iov;
	s->io.n_iov = n;
	quarry_assert(n <= DISK_IO_BLOCKS_MAX);
}

/* ---- the world ---- */

static void cache_pick(struct disk_world *w)
{
	static const uint64_t cache_mib[] = {1, 1, 4, 16, 64};

	w->settings.cache_bytes = cache_mib[world_pick(w, array_size(cache_mib))] * MIB;
}

static void settings_pick(struct disk_world *w)
{
	static const uint64_t disk_mib[] = {16, 16, 16, 20, 32, 64}, large_mib[] = {64, 128, 256, 512};
	/* The last windows lie where the tree is 2, 3, 4 and 5 levels high. */
	static const struct oracle_window layouts[][ORACLE_WINDOWS_MAX] = {
	    {{0, 64}, {200, 120}, {65536 - 30, 60}, {(1ull << 24) - 10, 40}, {1ull << 33, 20}},
	    {{0, 300}, {65536 - 100, 200}},
	    {{0, 1024}, {65536 - 512, 1024}},
	    {{0, 40}, {1000, 8}},
	};
	struct world_settings *set = &w->settings;
	uint64_t layout = world_pick(w, array_size(layouts));

	set->disk_bytes = disk_mib[world_pick(w, array_size(disk_mib))] * MIB;
	if (world_one_in(w, 6)) /* more regions than a small share keeps resident, and a cut that is no small part */
		set->disk_bytes = large_mib[world_pick(w, array_size(large_mib))] * MIB;
	cache_pick(w);
	memcpy(set->windows, layouts[layout], sizeof(set->windows));
	while (set->n_windows < ORACLE_WINDOWS_MAX && set->windows[set->n_windows].n_blocks > 0)
		set->n_windows++;
	set->is_reserved = world_one_in(w, 4);
	set->is_device = world_one_in(w, 4);
	set->is_punch_refused = world_one_in(w, 8);
}

struct disk_world *world_create(uint64_t seed, bool is_verbose)
{
	struct disk_world *w = calloc(1, sizeof(*w));

	quarry_assert(w != NULL);
	w->seed = w->random_state = seed;
	w->is_verbose = is_verbose;
	settings_pick(w);
	w->sim = sim_create(seed ^ 0x5eed);
	w->machine = sim_machine_create(w->sim, "n1");
	w->medium = sim_file_create(w->machine, WORLD_PATH, w->settings.disk_bytes);
	sim_file_set_device(w->medium, w->settings.is_device);
	sim_file_faults(w->medium)->is_punch_refused = w->settings.is_punch_refused;
	w->oracle = oracle_create(w->settings.windows, w->settings.n_windows);
	w->epoch = 1;
	w->next_tree_id = 1;
	w->slots = calloc(WORLD_SLOTS, sizeof(*w->slots));
	quarry_assert(w->slots != NULL);
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		w->slots[i].memory = aligned_alloc(BLOCK_BYTES, DISK_IO_BLOCKS_MAX * BLOCK_BYTES);
		quarry_assert(w->slots[i].memory != NULL);
	}
	for (uint32_t i = 0; i < WORLD_VOLUMES; i++)
		w->volumes[i].uuid = uuid_make(seed, i + 1);
	int res = log_create(is_verbose ? 1 : -1, LOG_DEBUG, &w->log);
	quarry_assert(res == 0);
	return w;
}

void world_destroy(struct disk_world *w)
{
	quarry_assert(w->disk == NULL);
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		free(w->slots[i].memory);
	free(w->slots);
	free(w->handles);
	oracle_destroy(w->oracle);
	sim_destroy(w->sim);
	log_destroy(w->log);
	free(w);
}

/* ---- life ---- */

void world_format(struct disk_world *w)
{
	char why[WHY_BYTES];
	struct disk_format_options o = {.disk = uuid_make(w->seed, 100),
					.pool = uuid_make(w->seed, 101),
					.cluster = cluster_uuid,
					.label = WORLD_PATH,
					.reserve = w->settings.is_reserved};

	world_say(w, "format %" PRIu64 " MiB, cache %" PRIu64 " KiB%s%s", (uint64_t)(w->settings.disk_bytes / MIB),
		  (uint64_t)(w->settings.cache_bytes / KIB), w->settings.is_device ? ", a device" : "",
		  w->settings.is_reserved ? ", reserved" : "");
	if (disk_format(sim_reactor(w->machine), WORLD_PATH, &o, why) < 0)
		world_fail(w, "format: %s", why);
}

static void opened(struct disk *d, int res, void *context)
{
	struct disk_world *w = context;

	(void)d;
	quarry_assert(!w->is_opened);
	w->is_opened = true;
	w->open_res = res;
}

static void failed(struct disk *d, void *context)
{
	struct disk_world *w = context;

	world_say(w, "the disk has failed: %s", disk_why(d));
	w->has_failed = true;
	w->totals.failures++;
}

static void closed(struct disk *d, void *context)
{
	(void)d;
	((struct disk_world *)context)->is_closed = true;
}

static bool is_opened(void *context)
{
	return ((struct disk_world *)context)->is_opened;
}
static bool is_closed(void *context)
{
	return ((struct disk_world *)context)->is_closed;
}

enum world_open world_open(struct disk_world *w)
{
	char why[WHY_BYTES];
	struct disk_options o = {.reactor = sim_reactor(w->machine),
				 .log = w->log,
				 .path = WORLD_PATH,
				 .cluster = &cluster_uuid,
				 .opened = opened,
				 .failed = failed,
				 .context = w};

	quarry_assert(w->disk == NULL && w->n_busy == 0);
	if (world_one_in(w, 4)) /* disks came or went, or cache_mb was changed */
		cache_pick(w);
	o.cache_bytes = w->settings.cache_bytes;
	w->is_opened = w->has_failed = false;
	if (disk_open(&o, &w->disk, why) < 0) {
		w->disk = NULL;
		if (!w->is_lenient)
			world_fail(w, "open: %s", why);
		return WORLD_REFUSED;
	}
	if (world_wait(w, is_opened, "recover") == SIM_CRASH_DUE)
		return WORLD_CRASHED;
	if (w->open_res == 0)
		return WORLD_OPENED;
	world_say(w, "not opened: %s", disk_why(w->disk));
	if (!w->is_lenient && !w->is_shaky)
		world_fail(w, "recovery answered %d: %s", w->open_res, disk_why(w->disk));
	if (disk_why(w->disk)[0] == '\0')
		world_fail(w, "recovery answered %d without a reason", w->open_res);
	return WORLD_REFUSED;
}

/* A scrub finds nothing where nothing is damaged. */
static void scrub_judge(struct disk_world *w)
{
	struct disk_scrub status;

	disk_scrub_status(w->disk, &status);
	if (status.bad_blocks > 0 && !w->is_lenient && !w->has_bad_cells && !w->was_shaken && !w->has_failed)
		world_fail(w, "the scrub found %" PRIu64 " damaged blocks on a sound disk", status.bad_blocks);
	w->was_shaken = false;
}

void world_close(struct disk_world *w)
{
	bool was_failed = disk_state(w->disk) == DISK_FAILED || w->open_res != 0;

	quarry_assert(w->n_busy == 0);
	scrub_judge(w);
	world_say(w, "close");
	w->is_closed = false;
	disk_close(w->disk, closed, w);
	if (world_wait(w, is_closed, "close") == SIM_CRASH_DUE)
		return;
	w->disk = NULL;
	w->totals.reopened++;
	if (!was_failed && !w->has_failed) /* everything is durable then */
		oracle_flush_done(w->oracle, oracle_flush_begin(w->oracle));
}

void world_shake(struct disk_world *w, uint64_t reads_max)
{
	uint64_t skip = world_pick(w, reads_max);

	world_say(w, "read %" PRIu64 " from here will fail", skip);
	w->is_shaky = w->was_shaken = true;
	w->totals.shaken++;
	sim_file_fail(w->medium, OP_READ, (uint32_t)skip, EIO);
}

void world_steady(struct disk_world *w)
{
	w->is_shaky = false;
	sim_file_fail(w->medium, OP_READ, 0, 0);
}

void world_crash(struct disk_world *w, enum sim_crash_kind kind)
{
	world_say(w, "---- %s%s", kind == SIM_KILL ? "KILL" : "POWER LOSS", w->is_opened ? "" : " in recovery");
	w->totals.crashes++;
	w->totals.power_losses += kind == SIM_POWER_LOSS;
	w->totals.crashes_in_recovery += !w->is_opened;
	sim_crash(w->machine, kind);
	if (w->disk != NULL)
		disk_abandon(w->disk);
	w->disk = NULL;
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		w->slots[i].is_busy = w->slots[i].is_cut_short = false;
	w->n_busy = 0;
	for (uint32_t i = 0; i < WORLD_VOLUMES; i++)
		w->volumes[i].is_busy = false;
	oracle_crash(w->oracle, kind == SIM_POWER_LOSS);
}

/* ---- the offline check ---- */

struct findings {
	char lines[FINDINGS_SHOWN_MAX][200];
	uint32_t n;
	struct disk_world *world;
};

static int check_read_block(void *context, uint64_t block, void *out)
{
	sim_file_peek(((struct findings *)context)->world->medium, block, out);
	return 0;
}

static void check_say(void *context, const char *line)
{
	struct findings *f = context;

	if (f->n < FINDINGS_SHOWN_MAX)
		snprintf(f->lines[f->n], sizeof(f->lines[0]), "%s", line);
	f->n++;
}

static struct disk_check check_prepare(struct disk_world *w, struct findings *f)
{
	w->totals.checks++;
	*f = (struct findings){.world = w};
	return (struct disk_check){.read = check_read_block,
				   .say = check_say,
				   .context = f,
				   .n_blocks = sim_file_size_bytes(w->medium) / BLOCK_BYTES};
}

void world_check(struct disk_world *w, bool is_closed_clean)
{
	struct findings f;
	struct disk_check c = check_prepare(w, &f);

	c.skip_data = w->has_bad_cells;
	int res = disk_check_run(&c);
	if (w->is_lenient)
		return;
	if (res == 0 && c.errors == 0 && (!is_closed_clean || (c.is_clean && c.journal_blocks_to_replay == 0)))
		return;
	for (uint32_t i = 0; i < f.n && i < FINDINGS_SHOWN_MAX; i++)
		printf("  check: %s\n", f.lines[i]);
	world_fail(w, "check answered %d with %" PRIu64 " errors; clean %d, %" PRIu64 " journal blocks to replay", res,
		   c.errors, c.is_clean, c.journal_blocks_to_replay);
}

void world_check_finds(struct disk_world *w)
{
	struct findings f;
	struct disk_check c = check_prepare(w, &f);
	int res = disk_check_run(&c);

	if (res != -EUCLEAN || c.errors == 0 || f.n == 0)
		world_fail(w, "check answered %d with %" PRIu64 " errors where a data block is damaged", res, c.errors);
}

void world_check_empty(struct disk_world *w)
{
	struct findings f;
	struct disk_check c = check_prepare(w, &f);
	int res = disk_check_run(&c);

	if (res != 0 || c.data_blocks > 0 || c.trees > 0)
		world_fail(w, "check of an empty disk answered %d, with %" PRIu64 " data blocks and %" PRIu64 " trees",
			   res, c.data_blocks, c.trees);
}

/* ---- judging ---- */

static void see_tree(const struct tree_record *t, void *context)
{
	struct disk_world *w = context;

	if (t->state != TREE_LIVE)
		return;
	uint32_t tree = oracle_tree_find(w->oracle, t->tree_id);
	if (tree == ORACLE_NONE)
		world_fail(w, "tree %" PRIu64 " is there, and nobody made it", t->tree_id);
	uint32_t volume = world_volume_of(w, tree);
	if (!uuid_equal(&t->volume, &w->volumes[volume].uuid))
		world_fail(w, "tree %" PRIu64 " belongs to another volume", t->tree_id);
	struct disk_tree *handle = disk_tree_find(w->disk, &t->volume, t->tree_id);
	if (handle == NULL)
		world_fail(w, "tree %" PRIu64 " is listed and not found", t->tree_id);
	world_handle_set(w, tree, handle);
	oracle_see_tree(w->oracle, tree);
}

/* The raw answer of a read while the oracle does not know yet what to expect. */
static void see_done(struct disk_io *io, int res)
{
	struct slot *s = container_of(io, struct slot, io);
	struct disk_world *w = s->world;

	if (res != 0 && res != -EIO)
		world_fail(w, "read after recovery answered %d", res);
	for (uint32_t i = 0; i < io->n_blocks; i++) {
		bool is_bad = res == -EIO && (io->bad_blocks >> i & 1);
		uint64_t token = content_token(s->memory + (uint64_t)i * BLOCK_BYTES);
		oracle_see(w->oracle, s->tree, s->cell + i, is_bad ? ORACLE_BAD : token);
	}
	s->is_busy = false;
	w->n_busy--;
	w->n_done++;
}

static bool has_free_slot(void *context)
{
	return ((struct disk_world *)context)->n_busy < WORLD_SLOTS;
}

static void see_cells(struct disk_world *w, uint32_t tree, uint32_t cell, uint32_t n)
{
	if (world_wait(w, has_free_slot, "read") == SIM_CRASH_DUE)
		world_fail(w, "a crash is due while reading");
	struct slot *s = slot_take(w);
	s->io.done = see_done;
	s->io.op = DISK_READ;
	s->io.tree = w->handles[tree];
	s->io.first = oracle_cell_block(w->oracle, cell);
	s->io.n_blocks = n;
	s->tree = tree;
	s->cell = cell;
	slot_use_memory(s, n);
	s->is_busy = true;
	w->n_busy++;
	disk_submit(w->disk, &s->io);
}

static void see_whole_tree(struct disk_world *w, uint32_t tree)
{
	uint32_t cell = 0;

	for (uint32_t i = 0; i < w->settings.n_windows; i++) {
		uint32_t end = cell + w->settings.windows[i].n_blocks;
		while (cell < end) {
			uint32_t n = (uint32_t)min_u64(end - cell, DISK_IO_BLOCKS_MAX);
			see_cells(w, tree, cell, n);
			cell += n;
		}
	}
}

static bool facts_are(const struct volume_facts *f, bool exists, const struct volume_record *r)
{
	if (f->exists != exists)
		return false;
	return !exists || (f->generation == r->generation && f->complete_epoch == r->complete_epoch);
}

static void verify_volumes(struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_VOLUMES; i++) {
		struct volume_state *v = &w->volumes[i];
		struct volume_record r = {.generation = 0};
		bool exists = disk_volume(w->disk, &v->uuid, &r);
		bool is_done = facts_are(&v->done, exists, &r), is_asked = facts_are(&v->asked, exists, &r);
		if (!is_done && !is_asked && !w->is_lenient)
			world_fail(w,
				   "volume %u: exists %d, generation %" PRIu64 ", complete %" PRIu64
				   "; answered %d %" PRIu64 " %" PRIu64 ", asked %d %" PRIu64 " %" PRIu64,
				   i, exists, r.generation, r.complete_epoch, v->done.exists, v->done.generation,
				   v->done.complete_epoch, v->asked.exists, v->asked.generation,
				   v->asked.complete_epoch);
		if (exists && is_done && r.session < v->session && !w->is_lenient)
			world_fail(w, "volume %u: session %" PRIu64 " is below %" PRIu64, i, r.session, v->session);
		v->done = v->asked = (struct volume_facts){exists, r.generation, r.complete_epoch};
		v->session = exists ? r.session : 0;
	}
}

void world_verify(struct disk_world *w)
{
	char why[ORACLE_WHY_BYTES];
	uint32_t n = oracle_trees(w->oracle);

	quarry_assert(w->n_busy == 0 && w->is_opened && w->open_res == 0);
	oracle_crash(w->oracle, false);
	for (uint32_t i = 0; i < n; i++)
		world_handle_set(w, i, NULL);
	disk_trees_each(w->disk, see_tree, w);
	for (uint32_t i = 0; i < n; i++) {
		if (w->handles[i] != NULL)
			see_whole_tree(w, i);
	}
	if (world_wait(w, world_is_idle, "read") == SIM_CRASH_DUE)
		world_fail(w, "a crash is due while reading");
	if (!oracle_judge(w->oracle, w->is_lenient ? ORACLE_DAMAGED : ORACLE_STRICT, why))
		world_fail(w, "%s", why);
	verify_volumes(w);
	world_say(w, "judged");
}

void world_fence(struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_TREE_VOLUMES; i++) {
		struct slot *s = slot_take(w);
		struct volume_state *v = &w->volumes[i];
		s->io.op = DISK_FENCE;
		s->io.volume = v->uuid;
		s->io.generation = v->done.generation + 1;
		s->io.size_blocks = 1ull << 40;
		s->volume = i;
		v->is_busy = true;
		v->asked = (struct volume_facts){true, s->io.generation, v->done.complete_epoch};
		if (slot_call(s) == -EINTR)
			return;
	}
}
