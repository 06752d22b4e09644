/*
 * history_world.c: the machine, its disks and its store; life and death of the volume set; waiting.
 */
#include "tests/sim/history/history_world.h"
#include "tests/sim/sim_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES  (16 * MIB)
#define CACHE_BYTES (15 * MIB)
#define STEPS_MAX   2000000u

_Noreturn void world_fail(struct history_world *w, const char *format, ...)
{
	va_list args;
	printf("seed %" PRIu64 ": ", w->seed);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	abort();
}

void world_say(struct history_world *w, const char *format, ...)
{
	va_list args;
	if (!w->is_verbose)
		return;
	printf("%12" PRIu64 " us  ", sim_now_ns(w->sim) / 1000);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

uint64_t world_pick(struct history_world *w, uint64_t n)
{
	return sim_below(w->sim, n);
}

bool world_one_in(struct history_world *w, uint64_t n)
{
	return sim_below(w->sim, n) == 0;
}

/* ---- waiting ---- */

static bool is_set(void *context)
{
	return *(bool *)context;
}

bool world_wait_for(struct history_world *w, bool *flag)
{
	enum sim_outcome outcome = sim_run(w->sim, is_set, flag, STEPS_MAX);
	*flag = false;
	if (outcome == SIM_CRASH_DUE)
		return false;
	if (outcome != SIM_DONE)
		world_fail(w, "nothing happens any more, or for ever (%d)", outcome);
	return true;
}

bool world_wait(struct history_world *w)
{
	return world_wait_for(w, &w->is_done);
}

static bool is_settled(void *context)
{
	struct history_world *w = context;
	if (!list_is_empty(&w->set->commands))
		return false;
	list_each (node, &w->set->volumes)
		if (container_of(node, struct set_volume, link)->facts.is_deleting)
			return false;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		struct disk_stats stats;
		if (!w->set->disks[i])
			continue;
		disk_stats(w->set->disks[i]->disk, &stats);
		if (stats.dying_trees > 0)
			return false;
	}
	return true;
}

void world_settle(struct history_world *w)
{
	for (uint32_t i = 0; i < 300 && !is_settled(w); i++) {
		for (uint32_t d = 0; d < SET_DISKS_MAX; d++) /* a dropped tree is gone with the next checkpoint */
			if (w->set->disks[d] && w->set->disks[d]->disk)
				disk_checkpoint(w->set->disks[d]->disk);
		if (sim_run_for(w->sim, 100 * NS_PER_MS) != SIM_DONE)
			world_fail(w, "a crash is due while nothing is asked for");
	}
	if (!is_settled(w))
		world_fail(w, "what was deleted is not freed");
}

/* ---- the store ---- */

struct world_transaction {
	struct transaction transaction;
	struct history_world *world;
};

static void world_transacted(struct metadata_request *q, int res)
{
	struct history_world *w = container_of(transaction_of(q), struct world_transaction, transaction)->world;
	w->is_done = true;
	w->res = res;
}

static void world_put(struct history_world *w, const char *key, char *value)
{
	struct world_transaction t = {.world = w};
	transaction_begin(&t.transaction, world_transacted);
	transaction_put(&t.transaction, value, "%s", key);
	if (transaction_submit(&t.transaction, w->metadata) != 0 || !world_wait(w) || w->res != 0)
		world_fail(w, "the store refuses %s", key);
	transaction_clear(&t.transaction);
}

static void world_add_disk(struct history_world *w, uint32_t number)
{
	struct disk_facts facts = {
	    .uuid = uuid_make(5, number), .node = "n1", .pool = "default", .size_bytes = DISK_BYTES};
	char why[WHY_BYTES], uuid[UUID_TEXT_BYTES], key[KEY_BYTES];
	text_print(facts.path, sizeof(facts.path), "d%u", number);
	text_print(facts.name, sizeof(facts.name), "n1-d%u", number);
	struct disk_format_options o = {
	    .disk = facts.uuid, .pool = w->pool, .cluster = w->cluster, .label = facts.name};
	uuid_to_text(&facts.uuid, uuid);
	text_print(key, sizeof(key), DISK_KEY, uuid);
	sim_file_create(w->machine, facts.path, DISK_BYTES);
	if (disk_format(sim_reactor(w->machine), facts.path, &o, why) != 0)
		world_fail(w, "a disk cannot be formatted: %s", why);
	world_put(w, key, disk_to_json(&facts));
}

void world_open(struct history_world *w, uint64_t seed, bool is_verbose)
{
	struct pool_facts pool = {.name = "default", .replicas = 1, .min_replicas = 1};
	*w = (struct history_world){.seed = seed,
				    .is_verbose = is_verbose,
				    .is_power = seed % 2,
				    .copies = 1 + (uint32_t)(seed / 2 % 3),
				    .n_disks = seed / 2 % 3 ? 3 : 2,
				    .cluster = uuid_make(1, 2),
				    .pool = uuid_make(3, 4)};
	w->sim = sim_create(seed);
	w->machine = sim_machine_create(w->sim, "n1");
	if (log_create(w->is_verbose ? 1 : -1, LOG_INFO, &w->log) != 0 ||
	    metadata_open_memory(sim_reactor(w->machine), &w->metadata) != 0)
		world_fail(w, "no memory");
	pool.uuid = w->pool;
	world_put(w, "cluster", cluster_to_json(&w->cluster));
	world_put(w, "pools/default", pool_to_json(&pool));
	for (uint32_t i = 1; i <= w->n_disks; i++)
		world_add_disk(w, i);
}

void world_close(struct history_world *w)
{
	metadata_close(w->metadata);
	sim_destroy(w->sim);
	log_destroy(w->log);
}

/* ---- life ---- */

static void world_ready(struct volume_set *s, int res, void *context)
{
	struct history_world *w = context;
	w->is_done = true;
	w->res = res;
}

void world_crash(struct history_world *w)
{
	world_say(w, "crash (%s)", w->is_power ? "power loss" : "kill");
	w->totals.crashes++;
	sim_crash(w->machine, w->is_power ? SIM_POWER_LOSS : SIM_KILL);
	volume_set_abandon(w->set);
	w->set = NULL;
	w->is_done = false;
	metadata_memory_crash(w->metadata, sim_reactor(w->machine));
}

void world_start(struct history_world *w)
{
	struct volume_set_options o = {.log = w->log,
				       .metadata = w->metadata,
				       .node_name = "n1",
				       .cache_bytes = w->copies > 1 ? 4 * CACHE_BYTES : CACHE_BYTES,
				       .n_parts = 32};
	for (;;) {
		o.reactor = sim_reactor(w->machine);
		sim_crash_at(w->machine, world_one_in(w, 4) ? sim_io_index(w->machine) + 1 + world_pick(w, 150) : 0);
		if (volume_set_start(&o, world_ready, w, &w->set) != 0)
			world_fail(w, "the set does not start");
		if (world_wait(w))
			break;
		world_crash(w);
	}
	sim_crash_at(w->machine, 0);
	if (w->res != 0)
		world_fail(w, "the set starts with %d", w->res);
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (w->set->disks[i] && w->set->disks[i]->state != SET_DISK_RUNNING)
			world_fail(w, "disk %u does not run: %s", i, w->set->disks[i]->why);
}

static void world_stopped(void *context)
{
	struct history_world *w = context;
	w->is_done = true;
	w->set = NULL;
}

void world_stop(struct history_world *w)
{
	sim_crash_at(w->machine, 0);
	volume_set_stop(w->set, world_stopped, w);
	if (!world_wait(w))
		world_fail(w, "a crash is due that nobody asked for");
}

/* ---- checking the disks ---- */

void world_check_disks(struct history_world *w, bool is_empty)
{
	for (uint32_t i = 1; i <= w->n_disks; i++) {
		char path[16];
		text_print(path, sizeof(path), "d%u", i);
		struct sim_check c;
		sim_check_init(&c, sim_file_find(w->machine, path));
		int res = disk_check_run(&c.check);
		w->totals.checks++;
		if (res != 0 || c.check.errors > 0)
			world_fail(w, "disk %u: the check answers %d: %s", i, res, c.findings[0]);
		/* a disk that fails while it is joined keeps an empty tree, when the volume is deleted before it is back */
		bool has_trees = c.check.trees > 0 && w->totals.disk_failures == 0;
		if (is_empty && (has_trees || c.check.data_blocks > 0))
			world_fail(w, "disk %u: %" PRIu64 " trees and %" PRIu64 " data blocks are left", i,
				   c.check.trees, c.check.data_blocks);
	}
}

/* ---- commands and reads ---- */

struct waited_command {
	struct set_command command;
	struct history_world *world;
	bool is_done;
};

static void waited_done(struct set_command *c, int res)
{
	struct waited_command *one = container_of(c, struct waited_command, command);
	one->is_done = true;
	one->world->res = res;
}

bool world_command(struct history_world *w, struct set_command *c, int *res)
{
	/* one that a crash cuts off is still in the set's line when that is abandoned */
	static struct waited_command one;
	one = (struct waited_command){.command = *c, .world = w};
	one.command.done = waited_done;
	volume_set_command(w->set, &one.command);
	bool is_done = world_wait_for(w, &one.is_done);
	*c = one.command;
	*res = w->res;
	return is_done;
}

uint64_t cell_block(uint32_t cell)
{
	return cell % 3 * SEGMENT_BLOCKS + cell / 3 * 131ull;
}

struct volume *world_head(struct history_world *w, const struct model_volume *m)
{
	struct set_volume *entry = set_volume_find(w->set, m->name);
	/* the set may have attached it for its own work */
	return entry && entry->facts.is_attached_nbd ? entry->head : NULL;
}

struct waited_io {
	struct volume_io io;
	struct history_world *world;
};

static void waited_io_done(struct volume_io *io, int res)
{
	struct history_world *w = container_of(io, struct waited_io, io)->world;
	w->is_done = true;
	w->res = res;
}

bool world_submit(struct history_world *w, struct volume *v, const struct volume_io *io, int *res)
{
	/* one that a crash cuts off is still among the volume's requests when that is abandoned */
	static struct waited_io one;
	one = (struct waited_io){.io = *io, .world = w};
	one.io.done = waited_io_done;
	volume_submit(v, &one.io);
	bool is_done = world_wait(w);
	*res = w->res;
	return is_done;
}

uint32_t world_read(struct history_world *w, struct volume *v, uint32_t cell)
{
	static uint32_t memory[BLOCK_BYTES / sizeof(uint32_t)] __attribute__((aligned(4096)));
	struct iovec iov = {memory, BLOCK_BYTES};
	struct waited_io one = {.io = {.op = VOLUME_READ,
				       .pos_bytes = cell_block(cell) * BLOCK_BYTES,
				       .len_bytes = BLOCK_BYTES,
				       .iov = &iov,
				       .n_iov = 1,
				       .done = waited_io_done},
				.world = w};
	sim_crash_at(w->machine, 0); /* looking is not what is to be crashed */
	volume_submit_internal(v, &one.io);
	if (!world_wait(w))
		world_fail(w, "a crash is due during a read");
	if (w->res != 0)
		world_fail(w, "cell %u of %s cannot be read: %d", cell, volume_name(v), w->res);
	for (uint32_t i = 1; i < array_size(memory); i++)
		if (memory[i] != memory[0])
			world_fail(w, "cell %u of %s is torn", cell, volume_name(v));
	return memory[0];
}

/* ---- one copy ---- */

struct waited_look {
	struct disk_io io;
	struct history_world *world;
};

static void waited_look_done(struct disk_io *io, int res)
{
	struct history_world *w = container_of(io, struct waited_look, io)->world;
	w->is_done = true;
	w->res = res;
}

static void world_check_copy(struct history_world *w, struct volume *v, uint32_t disk, uint32_t cell, uint32_t value)
{
	static uint32_t memory[BLOCK_BYTES / sizeof(uint32_t)] __attribute__((aligned(4096)));
	struct iovec iov = {memory, BLOCK_BYTES};
	struct disk *d = w->set->disks[disk]->disk;
	struct waited_look one = {.io = {.op = DISK_READ,
					 .tree = disk_tree_find(d, volume_uuid(v), volume_tree(v)),
					 .first = cell_block(cell),
					 .n_blocks = 1,
					 .iov = &iov,
					 .n_iov = 1,
					 .done = waited_look_done},
				  .world = w};
	disk_submit(d, &one.io);
	if (!world_wait(w) || w->res != 0)
		world_fail(w, "cell %u of %s cannot be read on disk %u: %d", cell, volume_name(v), disk + 1, w->res);
	if (memory[0] != value)
		world_fail(w, "cell %u of %s is %u on disk %u, not %u", cell, volume_name(v), memory[0], disk + 1,
			   value);
}

void world_check_copies(struct history_world *w, struct volume *v, uint32_t cell, uint32_t value)
{
	uint64_t disks;
	if (chunk_find(v, cell % 3, &disks) != PLACED_ON_DISKS)
		return;
	for (disks = volume_good(v, disks); disks != 0; disks &= disks - 1)
		world_check_copy(w, v, (uint32_t)__builtin_ctzll(disks), cell, value);
}
