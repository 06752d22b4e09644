/*
 * test_moves.c: disks that are drained: all that lies there goes elsewhere, while clients go on, through crashes at any
 * point and failures of any disk, with its snapshots.
 */
#include "tests/unit/moves_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void a_disk_is_drained_and_removed(void)
{
	for (uint64_t seed = 0; seed < 12; seed++) {
		struct bench b;
		uint32_t replicas = 1 + seed % 3;
		bench_open(&b, 100 + seed, replicas + 2, replicas);
		bench_change(&b, 150);
		uint32_t disk = bench_disk_of(&b, 0);
		CU_ASSERT_EQUAL(bench_remove(&b, disk), -EBUSY);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		CU_ASSERT_EQUAL(bench_drain(&b, disk, false), 0); /* P6 */
		bench_until_left(&b, disk);
		bench_check(&b);
		bench_check_copies(&b);
		CU_ASSERT_EQUAL(bench_blocks(&b, disk), 0);
		bench_change(&b, 50);
		world_let_pass(&b.w, 5 * NS_PER_S);
		CU_ASSERT_EQUAL(world_events(&b.w, "disk-drained"), 1);
		CU_ASSERT_EQUAL(bench_remove(&b, disk), 0);
		bench_check(&b);
		world_stop(&b.w);
		bench_start_again(&b);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* Clients have no error, and what they write meanwhile is there. */
static void clients_go_on_meanwhile(void)
{
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct bench b;
		struct wanted wanted = {.b = &b};
		uint32_t replicas = 1 + seed % 3, n = 0;
		bench_open(&b, 200 + seed, replicas + 1, replicas);
		bench_change(&b, 150);
		wanted.disk = bench_disk_of(&b, 1);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, wanted.disk, false), 0);
		for (; !disk_is_left(&wanted) && n < 20000; n++)
			bench_change_one(&b);
		CU_ASSERT_TRUE(disk_is_left(&wanted));
		CU_ASSERT(n > 0);
		CU_ASSERT_EQUAL(world_events(&b.w, "copy-stale"), 0);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* A snapshot that is read before, meanwhile and after; another is taken meanwhile; the volume goes back to it. */
static void snapshots_go_along(void)
{
	for (uint64_t seed = 0; seed < 24; seed++) {
		struct bench b;
		uint32_t replicas = 1 + seed % 2;
		uint8_t first[SEGMENTS][CELLS];
		struct wanted wanted = {.b = &b};
		bench_open(&b, 300 + seed, replicas + 2, replicas);
		bench_change(&b, 100);
		bench_snapshot(&b, "vm1@before");
		memcpy(first, b.kept, sizeof(first));
		struct volume *before = bench_export(&b, "vm1@before");
		bench_change(&b, 60);
		CU_ASSERT_EQUAL(bench_wrong(&b, before, first), 0);
		wanted.disk = bench_disk_of(&b, seed % SEGMENTS);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, wanted.disk, false), 0);
		for (uint64_t n = 0; n < 5 + 3 * seed && !disk_is_left(&wanted); n++)
			bench_change_one(&b);
		bench_snapshot(&b, "vm1@meanwhile");
		for (uint32_t n = 0; !disk_is_left(&wanted) && n < 20000; n++) {
			bench_change_one(&b);
			uint32_t cell = n % CELLS;
			CU_ASSERT_EQUAL(world_read(&b.w, before, cell_pos(0, cell), b.back, CELL_BYTES), 0);
			CU_ASSERT(is_all(b.back, first[0][cell], CELL_BYTES));
		}
		CU_ASSERT_TRUE(disk_is_left(&wanted));
		CU_ASSERT_EQUAL(bench_wrong(&b, before, first), 0);
		CU_ASSERT_EQUAL(bench_wrong(&b, bench_export(&b, "vm1@meanwhile"), b.kept), 0);
		bench_check(&b);
		bench_check_copies(&b);
		CU_ASSERT_EQUAL(bench_blocks(&b, wanted.disk), 0);
		CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
		CU_ASSERT_EQUAL(world_rollback(&b.w, "vm1@meanwhile"), 0);
		memcpy(b.model, b.kept, sizeof(b.model));
		CU_ASSERT_EQUAL_FATAL(world_attach(&b.w, "vm1"), 0);
		b.v = world_head(&b.w, "vm1");
		bench_check(&b);
		bench_close(&b);
	}
}

static bool change_is_told(const struct set_changes *c, uint64_t pos)
{
	uint64_t at = 0;
	for (uint32_t i = 0; i < c->n_extents; at += c->extents[i++].len_bytes)
		if (pos >= at && pos < at + c->extents[i].len_bytes)
			return c->extents[i].is_changed;
	return false;
}

/* Who asks what has changed while segments move is told of all of it. */
static void changes_are_told_all(void)
{
	for (uint64_t seed = 0; seed < 150; seed++) {
		struct bench b;
		uint32_t replicas = 1 + seed % 2;
		struct world_order drain = {0};
		bench_open(&b, 1100 + seed, replicas + 2, replicas);
		bench_change(&b, 60);
		bench_snapshot(&b, "vm1@before");
		for (uint32_t segment = 0; segment < SEGMENTS; segment++)
			CU_ASSERT_EQUAL(bench_put(&b, segment, CELLS - 1, 201, 0), 0);
		drain.command = order(SET_DISK_DRAIN, disk_name(&b, bench_disk_of(&b, seed % SEGMENTS)));
		world_order_start(&b.w, &drain);
		for (uint64_t n = 0; n < 10000 && !move_has(b.v, seed % SEGMENTS); n++)
			sim_step(b.w.sim);
		for (uint64_t n = 0; n < 4 * seed; n++)
			sim_step(b.w.sim);
		struct set_changes changes = world_changes(&b.w, "vm1", "vm1@before");
		for (uint32_t segment = 0; segment < SEGMENTS; segment++)
			CU_ASSERT(change_is_told(&changes, cell_pos(segment, CELLS - 1)));
		free(changes.extents);
		world_until(&b.w, world_order_is_done, &drain);
		CU_ASSERT_EQUAL(drain.res, 0);
		bench_close(&b);
	}
}

/* A clone that is made while segments move has all of its snapshot. */
static void clones_are_whole(void)
{
	for (uint64_t seed = 0; seed < 120; seed++) {
		struct bench b;
		uint32_t replicas = 1 + seed % 2;
		bench_open(&b, 900 + seed, replicas + 2, replicas);
		bench_change(&b, 60);
		bench_snapshot(&b, "vm1@before");
		uint32_t disk = bench_disk_of(&b, seed % SEGMENTS);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		for (uint64_t n = 0; n < 10000 && !move_has(b.v, seed % SEGMENTS); n++)
			sim_step(b.w.sim);
		for (uint64_t n = 0; n < 5 * seed; n++)
			sim_step(b.w.sim);
		struct metadata_faults slow = {.delay_max_ns = seed % 7 * NS_PER_MS}, none = {0};
		metadata_memory_set_faults(b.w.metadata, &slow);
		CU_ASSERT_EQUAL_FATAL(world_clone(&b.w, "vm1@before", "vm2"), 0);
		metadata_memory_set_faults(b.w.metadata, &none);
		CU_ASSERT_EQUAL_FATAL(world_attach(&b.w, "vm2"), 0);
		CU_ASSERT_EQUAL(bench_wrong(&b, world_head(&b.w, "vm2"), b.kept), 0);
		bench_until_left(&b, disk);
		CU_ASSERT_EQUAL(bench_wrong(&b, world_head(&b.w, "vm2"), b.kept), 0);
		bench_check(&b);
		bench_close(&b);
	}
}

/* What is not durable may go with the power: each cell has what was flushed last, or something later. */
static void a_crash_anywhere_is_gone_on_from(void)
{
	for (uint64_t seed = 0; seed < 150; seed++) {
		struct bench b;
		uint32_t replicas = 1 + seed % 2;
		bench_open(&b, 400 + seed, replicas + 1, replicas);
		bench_change(&b, 80);
		if (seed % 3 == 0)
			bench_snapshot(&b, "vm1@before");
		CU_ASSERT_EQUAL(world_op(&b.w, b.v, VOLUME_FLUSH, 0, 0, 0), 0);
		uint32_t disk = bench_disk_of(&b, 0);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		for (uint64_t n = 0; n < 12 * seed && b.v->entry->facts.n_disks > replicas - (replicas > 1); n++)
			sim_step(b.w.sim);
		world_crash(&b.w, seed % 4 < 2 ? SIM_POWER_LOSS : SIM_KILL);
		bench_start_again(&b);
		CU_ASSERT_TRUE(b.w.set->disks[disk]->facts.is_draining);
		bench_check(&b);
		bench_change(&b, 10);
		bench_until_left(&b, disk);
		bench_check(&b);
		bench_check_copies(&b);
		if (seed % 3 == 0)
			CU_ASSERT_EQUAL(bench_wrong(&b, bench_export(&b, "vm1@before"), b.kept), 0);
		CU_ASSERT_EQUAL(bench_remove(&b, disk), 0);
		bench_close(&b);
	}
}

static void a_volume_that_nobody_uses_leaves_too(void)
{
	struct bench b;
	bench_open(&b, 600, 3, 1);
	bench_change(&b, 100);
	uint32_t disk = bench_disk_of(&b, 0);
	CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
	CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
	bench_until_left(&b, disk);
	world_let_pass(&b.w, 5 * NS_PER_S);
	CU_ASSERT_PTR_NULL(world_head(&b.w, "vm1")); /* and it is as it was */
	CU_ASSERT_EQUAL(bench_remove(&b, disk), 0);
	CU_ASSERT_EQUAL(world_attach(&b.w, "vm1"), 0);
	b.v = world_head(&b.w, "vm1");
	bench_check(&b);
	bench_close(&b);
}

/* Who wants it attached, or deleted, gets it. */
static void commands_go_first(void)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct bench b;
		bench_open(&b, 620 + seed, 3, 1);
		bench_change(&b, 100);
		uint32_t disk = bench_disk_of(&b, 0);
		CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		for (uint64_t n = 0; n < 20 * seed; n++)
			sim_step(b.w.sim);
		if (seed % 2) {
			struct set_command c = order(SET_VOLUME_DELETE, "vm1");
			CU_ASSERT_EQUAL(world_command(&b.w, &c), 0);
		} else {
			struct set_command c = order_other(SET_VOLUME_ATTACH, "vm1", "nbd");
			c.read_only = seed % 4 == 0;
			CU_ASSERT_EQUAL(world_command(&b.w, &c), 0);
			b.v = world_head(&b.w, "vm1");
			CU_ASSERT_EQUAL(volume_is_read_only(b.v), seed % 4 == 0);
			bench_check(&b);
			bench_until_left(&b, disk);
			bench_check(&b);
		}
		world_let_pass(&b.w, 10 * NS_PER_S);
		CU_ASSERT_EQUAL(bench_remove(&b, disk), 0);
		bench_close(&b);
	}
}

static void a_drain_can_be_cancelled(void)
{
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct bench b;
		bench_open(&b, 640 + seed, 2, 1);
		bench_change(&b, 100);
		uint32_t disk = bench_disk_of(&b, 0);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		for (uint64_t n = 0; n < 60 * seed; n++)
			sim_step(b.w.sim);
		CU_ASSERT_EQUAL(bench_drain(&b, disk, true), 0);
		CU_ASSERT_FALSE(b.w.set->disks[disk]->facts.is_draining);
		world_let_pass(&b.w, 10 * NS_PER_S);
		CU_ASSERT_PTR_NULL(b.v->leave);
		CU_ASSERT_PTR_NULL(b.v->move);
		bench_change(&b, 50);
		bench_check(&b);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		bench_until_left(&b, disk);
		bench_check(&b);
		bench_close(&b);
	}
}

/* Drained, not drained, and drained again while segments move: what was placed there in between goes, too. */
static void a_drain_that_begins_again_sees_all(void)
{
	uint32_t n_there = 0;
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct bench b;
		bench_open(&b, 660 + seed, 2, 1);
		for (uint32_t cell = 0; cell < CELLS; cell++)
			CU_ASSERT_EQUAL(bench_put(&b, 2, cell, (uint8_t)(1 + cell), 0), 0);
		uint32_t disk = bench_disk_of(&b, 2);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		for (uint32_t n = 0; n < 10000 && !move_has(b.v, 2); n++)
			sim_step(b.w.sim);
		CU_ASSERT_EQUAL(bench_drain(&b, disk, true), 0);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 77, VOLUME_FUA), 0);
		CU_ASSERT_EQUAL(bench_put(&b, 1, 0, 78, VOLUME_FUA), 0);
		n_there += b.v->move && (bench_disk_of(&b, 0) == disk || bench_disk_of(&b, 1) == disk);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		bench_until_left(&b, disk);
		bench_check(&b);
		bench_close(&b);
	}
	CU_ASSERT(n_there > 0);
}

static void what_cannot_be_drained_is_refused(void)
{
	struct bench b;
	bench_open(&b, 660, 2, 2);
	bench_change(&b, 50);
	CU_ASSERT_EQUAL(bench_drain(&b, 0, false), -ENOSPC);
	CU_ASSERT(strstr(b.w.why, "failure domains") != NULL);
	CU_ASSERT_FALSE(b.w.set->disks[0]->facts.is_draining);
	bench_close(&b);
	bench_open(&b, 661, 1, 1);
	bench_change(&b, 50);
	CU_ASSERT_EQUAL(bench_drain(&b, 0, false), -ENOSPC);
	bench_close(&b);
}

/* The disk where it goes fails, at any of its writes or flushes: no client is told, and it goes elsewhere. */
static void a_target_that_fails_is_no_harm(void)
{
	for (uint32_t skip = 0; skip < 40; skip++) {
		struct bench b;
		bench_open(&b, 700 + skip, 3, 1);
		CU_ASSERT_EQUAL_FATAL(bench_put(&b, 0, 0, 1, 0), 0);
		uint32_t disk = bench_disk_of(&b, 0), other = (disk + 1) % 3;
		for (uint32_t cell = 1; cell < CELLS; cell++)
			CU_ASSERT_EQUAL(bench_put(&b, 0, cell, (uint8_t)(cell + 1), 0), 0);
		sim_file_fail(world_disk_file(&b.w, other + 1), skip % 2 ? OP_WRITE : OP_FLUSH, skip / 2, EIO);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		for (uint32_t i = 0; i < 30; i++) {
			CU_ASSERT_EQUAL(bench_put(&b, 0, i, (uint8_t)(100 + i), 0), 0);
			if (b.w.set->disks[other]->state != SET_DISK_RUNNING)
				break;
		}
		bench_until_left(&b, disk);
		if (bench_disk_of(&b, 0) != other || b.w.set->disks[other]->state == SET_DISK_RUNNING)
			bench_check(&b);
		bench_close(&b);
	}
}

/* ---- rebuild ---- */

static int bench_remove_by_force(struct bench *b, uint32_t disk)
{
	struct set_command c = order(SET_DISK_REMOVE, disk_name(b, disk));
	c.force = true;
	return world_command(&b->w, &c);
}

/* Every placed segment has so many copies, on disks that run. */
static bool bench_has_copies(struct bench *b, uint32_t n)
{
	for (uint32_t segment = 0; segment < SEGMENTS; segment++) {
		uint64_t disks = 0;
		if (chunk_find(b->v, segment, &disks) != PLACED_ON_DISKS || volume_good(b->v, disks) != disks ||
		    (uint32_t)__builtin_popcountll(disks) != n)
			return false;
	}
	return true;
}

static bool has_two_copies(void *context)
{
	struct bench *b = context;
	return bench_has_copies(b, 2) && !b->v->leave && !b->v->move;
}

static void what_is_removed_by_force_is_made_anew(void)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct bench b;
		bench_open(&b, 800 + seed, 4, 2);
		bench_change(&b, 150);
		if (seed % 2)
			bench_snapshot(&b, "vm1@before");
		uint32_t disk = bench_disk_of(&b, 0);
		bool is_used = seed % 3 > 0;
		if (!is_used)
			CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
		CU_ASSERT_EQUAL_FATAL(bench_remove_by_force(&b, disk), 0);
		for (uint32_t i = 0; i < 30 && is_used; i++)
			bench_change_one(&b);
		world_let_pass(&b.w, 20 * NS_PER_S);
		if (!is_used) {
			CU_ASSERT_PTR_NULL(world_head(&b.w, "vm1"));
			CU_ASSERT_EQUAL_FATAL(world_attach(&b.w, "vm1"), 0);
			b.v = world_head(&b.w, "vm1");
			bench_check(&b); /* which reads the chunks */
		}
		world_until(&b.w, has_two_copies, &b);
		CU_ASSERT(b.v->entry->facts.n_disks == 2 || b.v->entry->facts.n_disks == 3);
		CU_ASSERT_PTR_NULL(b.w.set->disks[disk]); /* nobody names it any more */
		b.w.n_disks = 0;
		bench_check(&b);
		if (seed % 2)
			CU_ASSERT_EQUAL(bench_wrong(&b, bench_export(&b, "vm1@before"), b.kept), 0);
		world_crash(&b.w, SIM_POWER_LOSS);
		bench_start_again(&b);
		bench_close(&b);
	}
}

/* Away for a while: nothing is done. For longer: made anew; and when it is back then, it may be used again. */
static void a_disk_that_is_away_is_waited_for(void)
{
	for (uint64_t seed = 0; seed < 6; seed++) {
		struct bench b;
		bench_open(&b, 850 + seed, 3, 2);
		bench_change(&b, 150);
		uint32_t disk = bench_disk_of(&b, 0);
		sim_file_fail(world_disk_file(&b.w, disk + 1), OP_WRITE, 0, EIO);
		bench_change(&b, 60);
		CU_ASSERT_EQUAL(b.v->disks[disk].state, VOLUME_DISK_STALE);
		world_let_pass(&b.w, 500 * NS_PER_S);
		CU_ASSERT_EQUAL(world_events(&b.w, "rebuild-begun"), 0);
		world_let_pass(&b.w, 200 * NS_PER_S);
		CU_ASSERT_EQUAL(world_events(&b.w, "rebuild-begun"), 1);
		CU_ASSERT_TRUE(has_two_copies(&b));
		bench_check(&b);
		bench_check_copies(&b);
		struct set_command c = {.kind = SET_DISK_ADD};
		text_print(c.path, sizeof(c.path), "d%u", disk + 1);
		CU_ASSERT_EQUAL_FATAL(world_command(&b.w, &c), 0);
		bench_until_left(&b, disk);
		CU_ASSERT_EQUAL(b.v->disks[disk].state, VOLUME_DISK_UNUSED);
		bench_change(&b, 60);
		bench_check_copies(&b);
		world_stop(&b.w);
		bench_start_again(&b);
		bench_check(&b);
		bench_close(&b);
	}
}

/* The disk is chosen for a segment, and begins to be drained before that is recorded: nothing is placed there. */
static void a_disk_that_was_chosen_is_drained(void)
{
	for (uint64_t seed = 0; seed < 90; seed++) {
		struct bench b;
		struct world_request write;
		uint64_t disks;
		uint32_t disk = (uint32_t)(seed % 3);
		bench_open(&b, 1500 + seed, 4, 3);
		memset(b.data, 1, CELL_BYTES);
		write = (struct world_request){
		    .io = {.op = VOLUME_WRITE, .pos_bytes = cell_pos(1, 0), .len_bytes = CELL_BYTES},
		    .iov = {b.data, CELL_BYTES}};
		b.model[1][0] = 1;
		world_request_start(b.v, &write);
		for (uint64_t n = 0; n < seed; n++)
			sim_step(b.w.sim);
		CU_ASSERT_EQUAL(bench_drain(&b, disk, false), 0);
		world_until(&b.w, world_request_is_done, &write);
		CU_ASSERT_EQUAL(write.res, 0);
		bench_until_left(&b, disk);
		CU_ASSERT_EQUAL(chunk_find(b.v, 1, &disks), PLACED_ON_DISKS);
		CU_ASSERT_FALSE(disks >> disk & 1);
		bench_check(&b);
		bench_close(&b);
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("moves", NULL, NULL);
	CU_add_test(suite, "a disk is drained and removed", a_disk_is_drained_and_removed);
	CU_add_test(suite, "clients go on meanwhile", clients_go_on_meanwhile);
	CU_add_test(suite, "snapshots go along", snapshots_go_along);
	CU_add_test(suite, "changes are told, all of them", changes_are_told_all);
	CU_add_test(suite, "clones are whole", clones_are_whole);
	CU_add_test(suite, "a crash anywhere is gone on from", a_crash_anywhere_is_gone_on_from);
	CU_add_test(suite, "a volume that nobody uses leaves, too", a_volume_that_nobody_uses_leaves_too);
	CU_add_test(suite, "commands go first", commands_go_first);
	CU_add_test(suite, "a disk that was chosen is drained", a_disk_that_was_chosen_is_drained);
	CU_add_test(suite, "a drain can be cancelled", a_drain_can_be_cancelled);
	CU_add_test(suite, "a drain that begins again sees all", a_drain_that_begins_again_sees_all);
	CU_add_test(suite, "what cannot be drained is refused", what_cannot_be_drained_is_refused);
	CU_add_test(suite, "a target that fails is no harm", a_target_that_fails_is_no_harm);
	CU_add_test(suite, "what is removed by force is made anew", what_is_removed_by_force_is_made_anew);
	CU_add_test(suite, "a disk that is away is waited for", a_disk_that_is_away_is_waited_for);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
