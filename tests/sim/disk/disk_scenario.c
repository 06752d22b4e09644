/*
 * disk_scenario.c: the stories that a seed tells: load, crash, recover, judge, again.
 *
 * scenario_random: format, open, then rounds. Each round is a load of its own temper (how many at a time, what sizes)
 * and ends with a crash somewhere inside it, an injected error, a clean close, or nothing. Every recovery may itself
 * be crashed, several times. Between rounds blocks may be damaged; the last act is a full disk, or damage to whatever
 * the disk consists of, and then all trees are dropped and every block must be free again.
 *
 * scenario_every_index: one short load, run again and again with the same seed, crashed at its first file I/O, its
 * second, and so on until it ends uncrashed; by kills and by power losses; and for some of these, the recovery crashed
 * at its first I/O, its second, and so on.
 */
#include "tests/sim/disk/disk_scenario.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FULL_WRITES_MAX        6000u
#define FULL_ANSWERS           30u /* -ENOSPC as often as this: the disk is full */
#define WEAR_STEPS_MAX         6000u
#define WEAR_ANSWERS           8u /* trims that were done in part: the reserve is used up */
#define RECOVERY_IOS_MAX       400u
#define RECOVERY_READS_MAX     60u /* one of the first so many fails */
#define LOAD_READS_MAX         200u
#define BROKEN_MAX             8u /* blocks side by side */
#define LOAD_IOS_MAX           4000u
#define EVERY_INDEX_REQUESTS   60u
#define EVERY_INDEX_RECOVERIES 64u /* of so many crash points, one has its recovery crashed at every I/O */

/* ---- recovery ---- */

/* Small numbers often, large ones sometimes. */
static uint64_t pick_skewed(struct disk_world *w, uint64_t most)
{
	uint64_t n = 1 + world_pick(w, most);

	return 1 + world_pick(w, n);
}

static enum sim_crash_kind pick_crash(struct disk_world *w)
{
	return world_one_in(w, 3) ? SIM_KILL : SIM_POWER_LOSS;
}

/* Opens the disk, through as many crashes as chance asks for, and judges it. false: it was refused (lenient only). A
 * disk that was refused because a read failed once opens the next time, with all that it holds. */
static bool recover(struct disk_world *w, uint32_t crash_one_in)
{
	for (;;) {
		world_check(w, false);
		if (crash_one_in > 0 && world_one_in(w, crash_one_in))
			sim_crash_at(w->machine, sim_io_index(w->machine) + pick_skewed(w, RECOVERY_IOS_MAX));
		bool is_shaken = !w->is_lenient && world_one_in(w, 6);
		if (is_shaken)
			world_shake(w, RECOVERY_READS_MAX);
		enum world_open outcome = world_open(w);
		world_steady(w);
		if (outcome == WORLD_REFUSED && !is_shaken)
			return false;
		if (outcome == WORLD_REFUSED) {
			sim_crash_at(w->machine, 0);
			if (w->disk != NULL)
				world_close(w);
			continue;
		}
		if (outcome == WORLD_OPENED)
			break;
		world_crash(w, pick_crash(w));
	}
	sim_crash_at(w->machine, 0);
	world_verify(w);
	world_fence(w);
	return true;
}

static void crash_and_recover(struct disk_world *w)
{
	world_crash(w, pick_crash(w));
	recover(w, 3);
}

static void close_and_reopen(struct disk_world *w)
{
	bool has_failed = w->has_failed;

	world_close(w);
	world_check(w, !has_failed);
	if (world_one_in(w, 6))
		sim_file_resize(w->medium, sim_file_size_bytes(w->medium) + (1 + world_pick(w, 8)) * MIB);
	recover(w, 4);
}

/* ---- damage ---- */

struct hunt {
	struct sim_file *medium;
	uint64_t token;                  /* flip every block that holds it */
	uint64_t n, chosen, found_block; /* or choose one of all */
	uint32_t bit;
};

static void hunt_token(uint64_t block, const void *content, void *context)
{
	struct hunt *h = context;

	if (content_token(content) == h->token) {
		sim_file_flip(h->medium, block, h->bit);
		h->n++;
	}
}

/* One bit of a data block that is in use: its readers must get -EIO, for it alone, and the check must find it. */
static void damage_data(struct disk_world *w)
{
	uint32_t trees[WORLD_TREES_MAX], n = world_live_trees(w, trees);

	if (n == 0)
		return;
	uint32_t cell = (uint32_t)world_pick(w, oracle_cells(w->oracle));
	uint64_t token = oracle_expect(w->oracle, trees[world_pick(w, n)], cell);
	if (token == 0 || token == ORACLE_BAD || token == ORACLE_UNKNOWN)
		return;
	struct hunt h = {.medium = w->medium, .token = token, .bit = (uint32_t)world_pick(w, BLOCK_BYTES * 8)};
	sim_file_each(w->medium, hunt_token, &h);
	uint32_t n_cells = oracle_damage(w->oracle, token);
	world_say(w, "damaged %" PRIu64 " copies of a data block, which %u cells refer to", h.n, n_cells);
	if (h.n == 0)
		world_fail(w, "the data of block %" PRIu64 " is nowhere on the disk",
			   oracle_cell_block(w->oracle, cell));
	w->has_bad_cells = true;
	w->totals.damaged++;
	world_check_finds(w);
}

static void hunt_any(uint64_t block, const void *content, void *context)
{
	struct hunt *h = context;

	(void)content;
	if (h->n++ == h->chosen)
		h->found_block = block;
}

/* One bit of any block, or some blocks side by side that cannot be read any more: the disk may refuse to open or answer
 * -EIO, but it must not return wrong bytes, nor hang. */
static void damage_anything(struct disk_world *w)
{
	struct hunt h = {.medium = w->medium, .chosen = world_pick(w, max_u64(1, sim_file_stats(w->medium).blocks))};

	sim_file_each(w->medium, hunt_any, &h);
	uint32_t bit = (uint32_t)world_pick(w, BLOCK_BYTES * 8);
	if (world_one_in(w, 2)) /* what lies at the front: superblocks and the journal */
		h.found_block = world_pick(w, JOURNAL_START + JOURNAL_MIN_BLOCKS);
	w->totals.damaged++;
	if (world_one_in(w, 3)) {
		uint64_t n = 1 + world_pick(w, BROKEN_MAX);
		world_say(w, "broke %" PRIu64 " blocks from %" PRIu64, n, h.found_block);
		for (uint64_t i = 0; i < n; i++)
			sim_file_break(w->medium, h.found_block + i);
		return;
	}
	world_say(w, "damaged bit %u of block %" PRIu64, bit, h.found_block);
	sim_file_flip(w->medium, h.found_block, bit);
}

static void live_with_damage(struct disk_world *w)
{
	struct load l = {.n_requests = 60, .concurrency = 8, .write_weight = 40};

	w->is_lenient = true;
	if (world_one_in(w, 2))
		world_close(w);
	else
		world_crash(w, pick_crash(w));
	for (uint64_t n = 1 + world_pick(w, 3); n > 0; n--)
		damage_anything(w);
	if (recover(w, 0))
		load_run(w, &l);
	if (w->disk != NULL)
		world_close(w);
}

/* ---- a full disk ---- */

static bool is_drained(void *context)
{
	struct disk_stats stats;
	struct disk_world *w = context;

	disk_stats(w->disk, &stats);
	return stats.dying_trees == 0;
}

static void drop_trees(struct disk_world *w, uint32_t n_left)
{
	uint32_t trees[WORLD_TREES_MAX];

	while (world_live_trees(w, trees) > n_left) {
		uint32_t tree = trees[world_pick(w, world_live_trees(w, trees))];
		struct slot *s = slot_take(w);
		s->io.op = DISK_DROP;
		s->io.tree = w->handles[tree];
		s->io.session = world_session(w, tree);
		s->tree = tree;
		s->request = oracle_drop(w->oracle, tree);
		if (slot_call(s) != 0)
			world_fail(w, "drop answered %d", s->res);
	}
	if (world_wait(w, is_drained, "free dropped trees") != SIM_DONE)
		world_fail(w, "a crash is due");
}

/* On a full disk, trims of what a tree shares with the one it was forked from copy pages and free nothing, until the
 * reserve is used up: then what they would have to copy stays. */
static void wear_down(struct disk_world *w)
{
	uint64_t in_part_max = w->totals.trims_in_part + WEAR_ANSWERS;

	for (uint32_t n = 0; n < WEAR_STEPS_MAX && w->totals.trims_in_part < in_part_max; n++) {
		if (world_one_in(w, 40))
			load_fork(w);
		load_trim_of_youngest(w);
		world_step(w);
	}
}

/* Writes until the disk is full: then trims and drops work, and after them writes again (P7). */
static void fill_and_empty(struct disk_world *w)
{
	uint64_t enospc_max = w->totals.enospc + FULL_ANSWERS;

	w->trees_wanted = WORLD_TREES_MANY;
	for (uint32_t n = 0; n < FULL_WRITES_MAX && w->totals.enospc < enospc_max; n++) {
		if (!load_write(w) || world_one_in(w, 4))
			world_step(w);
		if (world_one_in(w, 60))
			load_fork(w);
	}
	if (w->totals.enospc >= enospc_max)
		wear_down(w);
	for (uint32_t n = 0; n < 20; n++) {
		load_trim(w);
		world_step(w);
	}
	world_wait(w, world_is_idle, "answer on a full disk");
	world_look(w); /* what the trims have freed */
	w->trees_wanted = WORLD_TREES_WANTED;
	drop_trees(w, 1);
	uint64_t enospc = w->totals.enospc;
	load_trim(w);
	world_wait(w, world_is_idle, "trim");
	while (!load_write(w))
		;
	world_wait(w, world_is_idle, "write");
	if (w->totals.enospc > enospc && !w->has_failed)
		world_fail(w, "no room on a disk with a single tree of %u blocks", oracle_cells(w->oracle));
}

/* Without trees every block is free again: the check counts them. */
static void drop_all(struct disk_world *w)
{
	drop_trees(w, 0);
	world_close(w);
	world_check(w, true);
	world_check_empty(w);
}

/* ---- the random story ---- */

static struct load pick_load(struct disk_world *w)
{
	static const uint32_t sizes[] = {20, 60, 150, 400};
	static const uint32_t concurrencies[] = {1, 2, 8, WORLD_SLOTS};
	static const uint32_t weights[] = {15, 40, 90};

	return (struct load){.n_requests = sizes[world_pick(w, array_size(sizes))],
			     .concurrency = concurrencies[world_pick(w, array_size(concurrencies))],
			     .write_weight = weights[world_pick(w, array_size(weights))]};
}

static void inject_error(struct disk_world *w)
{
	enum op_kind kind = world_one_in(w, 2) ? OP_WRITE : OP_FLUSH;

	sim_file_fail(w->medium, kind, (uint32_t)world_pick(w, 200), EIO);
}

static void forgive_errors(struct disk_world *w)
{
	sim_file_fail(w->medium, OP_WRITE, 0, 0);
	sim_file_fail(w->medium, OP_FLUSH, 0, 0);
}

static void one_round(struct disk_world *w)
{
	struct load l = pick_load(w);
	uint64_t ending = world_pick(w, 8);

	if (ending < 4)
		sim_crash_at(w->machine, sim_io_index(w->machine) + pick_skewed(w, LOAD_IOS_MAX));
	else if (ending == 4)
		inject_error(w);
	if (world_one_in(w, 6))
		world_shake(w, LOAD_READS_MAX);
	enum sim_outcome outcome = load_run(w, &l);
	forgive_errors(w);
	world_steady(w);
	if (outcome == SIM_CRASH_DUE || ending < 4)
		crash_and_recover(w);
	else if (w->has_failed || ending < 7)
		close_and_reopen(w);
	if (w->disk != NULL && !w->is_lenient && world_one_in(w, 12)) {
		world_close(w); /* the history is empty then, and so is the journal */
		world_check(w, true);
		if (recover(w, 0))
			damage_data(w);
	}
}

static void begin(struct disk_world *w)
{
	world_format(w);
	world_check(w, true);
	if (world_open(w) != WORLD_OPENED)
		world_fail(w, "a new disk does not open");
	world_fence(w);
	load_create(w);
	load_create(w);
	if (world_wait(w, world_is_idle, "create trees") != SIM_DONE)
		world_fail(w, "a crash is due");
}

static struct world_totals finish(struct disk_world *w)
{
	struct world_totals totals = w->totals;

	if (w->disk != NULL)
		world_close(w);
	world_destroy(w);
	return totals;
}

struct world_totals scenario_random(uint64_t seed, bool is_verbose)
{
	struct disk_world *w = world_create(seed, is_verbose);

	begin(w);
	for (uint64_t n = 2 + world_pick(w, 6); n > 0; n--)
		one_round(w);
	if (world_one_in(w, 6))
		fill_and_empty(w);
	if (world_one_in(w, 4))
		live_with_damage(w);
	else if (world_one_in(w, 2))
		drop_all(w);
	return finish(w);
}

/* ---- a crash at every I/O ---- */

struct crash_point {
	enum sim_crash_kind kind;
	uint64_t index;          /* of the load's file I/Os, from 1 */
	uint64_t recovery_index; /* of the recovery's; 0: none */
};

struct reached {
	bool load, recovery;
};

/* The same load with this crash; tells whether the crash points were reached. */
static struct reached run_to_crash(uint64_t seed, bool is_verbose, const struct crash_point *at,
				   struct world_totals *totals)
{
	struct disk_world *w = world_create(seed, is_verbose);
	struct load l = {.n_requests = EVERY_INDEX_REQUESTS, .concurrency = 8, .write_weight = 30};
	struct reached reached = {false, false};

	begin(w);
	sim_crash_at(w->machine, sim_io_index(w->machine) + at->index);
	reached.load = load_run(w, &l) == SIM_CRASH_DUE;
	if (reached.load) {
		world_crash(w, at->kind);
		world_check(w, false);
		if (at->recovery_index > 0)
			sim_crash_at(w->machine, sim_io_index(w->machine) + at->recovery_index);
		reached.recovery = world_open(w) == WORLD_CRASHED;
		if (reached.recovery) {
			world_crash(w, at->kind);
			world_check(w, false);
			world_open(w);
		} else {
			sim_crash_at(w->machine, 0);
		}
		world_verify(w);
	} else {
		sim_crash_at(w->machine, 0);
	}
	world_close(w);
	world_check(w, true);
	totals->crashes += w->totals.crashes;
	totals->crashes_in_recovery += w->totals.crashes_in_recovery;
	totals->power_losses += w->totals.power_losses;
	totals->requests += w->totals.requests;
	totals->checks += w->totals.checks;
	world_destroy(w);
	return reached;
}

struct world_totals scenario_every_index(uint64_t seed, bool is_verbose)
{
	struct world_totals totals = {0};
	struct reached reached = {true, true};

	for (uint64_t index = 1; reached.load; index++) {
		for (int kind = SIM_KILL; kind <= SIM_POWER_LOSS && reached.load; kind++) {
			struct crash_point at = {.kind = kind, .index = index};
			reached = run_to_crash(seed, is_verbose, &at, &totals);
			bool is_deep = index % EVERY_INDEX_RECOVERIES == seed % EVERY_INDEX_RECOVERIES;
			reached.recovery = reached.load && is_deep;
			while (reached.recovery) {
				at.recovery_index++;
				reached = run_to_crash(seed, is_verbose, &at, &totals);
			}
		}
	}
	return totals;
}
