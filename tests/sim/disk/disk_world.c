/*
 * disk_world.c: the one disk of a simulation: made, opened, crashed and closed.
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

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_WITHOUT_ANSWER_MAX 400000u

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

void world_step(struct disk_world *w)
{
	sim_step(w->sim);
	world_look_at_room(w);
}

struct wait {
	struct disk_world *world;
	bool (*is_done)(void *w);
};

static bool wait_is_over(void *context)
{
	struct wait *wait = context;

	world_look_at_room(wait->world);
	return wait->is_done(wait->world);
}

enum sim_outcome world_wait(struct disk_world *w, bool (*is_done)(void *w), const char *what)
{
	struct wait wait = {w, is_done};

	for (;;) {
		uint64_t n_done = w->n_done;
		enum sim_outcome outcome = sim_run(w->sim, wait_is_over, &wait, STEPS_WITHOUT_ANSWER_MAX);
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
	w->leaves = leaves_create(w->settings.windows, w->settings.n_windows);
	w->epoch = 1;
	w->next_tree_id = 1;
	w->trees_wanted = WORLD_TREES_WANTED;
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
	leaves_destroy(w->leaves);
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
	if (was_failed || w->has_failed)
		leaves_crashed(w->leaves);
	else /* everything is durable */
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
	leaves_crashed(w->leaves);
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
