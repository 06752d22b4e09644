/*
 * test_move_steps.c: the last steps of a move, one by one, and what is left of one whose outcome nobody tells.
 */
#include "tests/unit/moves_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_switching(void *context)
{
	return move_is_switching(((struct bench *)context)->v);
}

/* Nothing is heard of the store from the moment on when a segment's new place is recorded, which may happen at once, later or
 * never. What is written after that is there, whatever the store says at the next start. */
static void an_outcome_in_doubt_loses_nothing(void)
{
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct bench b;
		bench_open(&b, 700 + seed, 2, 1);
		bench_change(&b, 100);
		uint32_t disk = bench_disk_of(&b, 0);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		world_until(&b.w, is_switching, &b);
		world_hide_store(&b.w, true);
		world_let_pass(&b.w, seed % 3 * NS_PER_S + 20 * NS_PER_MS);
		world_hide_store(&b.w, false);
		for (uint32_t i = 0; i < 1 + seed % 7; i++)
			CU_ASSERT_EQUAL(bench_put(&b, 0, i, (uint8_t)(100 + i), VOLUME_FUA), 0);
		world_crash(&b.w, SIM_POWER_LOSS);
		bench_start_again(&b);
		bench_until_left(&b, disk);
		for (uint32_t i = 0; i < 1 + seed % 7; i++) {
			CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(0, i), b.back, CELL_BYTES), 0);
			CU_ASSERT(is_all(b.back, (uint8_t)(100 + i), CELL_BYTES));
		}
		bench_close(&b);
	}
}

/* The store is away when the daemon is to end. */
static void in_doubt_the_daemon_can_end(void)
{
	for (uint64_t seed = 0; seed < 6; seed++) {
		struct bench b;
		bench_open(&b, 820 + seed, 3, 2);
		bench_change(&b, 100);
		uint32_t disk = bench_disk_of(&b, 0);
		CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, false), 0);
		world_until(&b.w, is_switching, &b);
		world_hide_store(&b.w, true);
		world_stop(&b.w);
		world_hide_store(&b.w, false);
		bench_start_again(&b);
		bench_until_left(&b, disk);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* ---- a move that stands before its end ---- */

static void places_are_held(struct places_hold *h) {}

/* The disk of segment 0 is drained, and the move comes to where changes go to both disks, and no further. */
static uint32_t bench_stand(struct bench *b, struct places_hold *hold)
{
	*hold = (struct places_hold){.held = places_are_held};
	places_hold(b->v, hold);
	CU_ASSERT_FATAL(hold->is_held);
	uint32_t disk = bench_disk_of(b, 0);
	CU_ASSERT_EQUAL_FATAL(bench_drain(b, disk, false), 0);
	world_let_pass(&b->w, 5 * NS_PER_S);
	CU_ASSERT_FATAL(move_target(b->v, 0) != 0);
	return disk;
}

static bool has_moved(void *context)
{
	struct wanted *wanted = context;
	return bench_disk_of(wanted->b, 0) != wanted->disk;
}

static bool has_no_move(void *context)
{
	return !((struct bench *)context)->v->move;
}

/* What was flushed while both disks got it, without a write after that, is there when only the new one counts. */
static void what_was_flushed_is_there_after_the_switch(void)
{
	for (uint64_t seed = 0; seed < 8; seed++) {
		struct bench b;
		struct places_hold hold;
		bench_open(&b, 1100 + seed, 2, 1);
		bench_change(&b, 50);
		struct wanted wanted = {.b = &b, .disk = bench_stand(&b, &hold)};
		for (uint32_t cell = 0; cell < CELLS; cell++)
			CU_ASSERT_EQUAL(bench_put(&b, 0, cell, (uint8_t)(100 + cell), 0), 0);
		CU_ASSERT_EQUAL(world_op(&b.w, b.v, VOLUME_FLUSH, 0, 0, 0), 0);
		places_let_go(b.v, &hold);
		world_until(&b.w, has_moved, &wanted);
		world_crash(&b.w, SIM_POWER_LOSS);
		bench_start_again(&b);
		bench_check(&b);
		bench_close(&b);
	}
}

/* Who was sent to the old disk has his answer before anything is cut there, and no tree goes meanwhile. */
static void nothing_is_cut_that_is_read(void)
{
	for (unsigned what = 0; what < 3; what++) {
		struct bench b;
		struct places_hold hold;
		bench_open(&b, 1110 + what, 3, 1);
		bench_change(&b, 100);
		bench_snapshot(&b, "vm1@before");
		struct volume *before = bench_export(&b, "vm1@before");
		struct wanted wanted = {.b = &b, .disk = bench_stand(&b, &hold)};
		uint64_t n = bench_blocks(&b, wanted.disk);
		b.v->disks[wanted.disk].asked += what == 0;
		before->disks[wanted.disk].asked += what == 1;
		b.v->is_dropping = what == 2;
		places_let_go(b.v, &hold);
		world_until(&b.w, has_moved, &wanted);
		world_let_pass(&b.w, 5 * NS_PER_S);
		CU_ASSERT_EQUAL(bench_blocks(&b, wanted.disk), n);
		b.v->disks[wanted.disk].asked -= what == 0;
		before->disks[wanted.disk].asked -= what == 1;
		b.v->is_dropping = false;
		bench_until_left(&b, wanted.disk);
		bench_check(&b);
		CU_ASSERT_EQUAL(bench_wrong(&b, before, b.kept), 0);
		bench_close(&b);
	}
}

/* A client's write has no room where its segment moves to: it succeeds, and the segment stays where that write is. */
static void what_has_no_room_there_ends_the_move(void)
{
	struct bench b;
	struct places_hold hold;
	bench_open(&b, 1130, 2, 1);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 1, 0), 0);
	CU_ASSERT_EQUAL_FATAL(world_create(&b.w, "fat", 64 * GIB), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&b.w, "fat"), 0);
	struct volume *fat = world_head(&b.w, "fat");
	uint32_t disk = bench_stand(&b, &hold);
	int res = 0; /* it lies where nothing is drained */
	for (uint64_t at = 0; res == 0; at += CELL_BYTES)
		res = world_write(&b.w, fat, at, b.data, CELL_BYTES, 0);
	CU_ASSERT_EQUAL_FATAL(res, -ENOSPC);
	for (uint32_t cell = 0; cell < CELLS; cell++)
		CU_ASSERT_EQUAL(bench_put(&b, 0, cell, (uint8_t)(100 + cell), 0), 0);
	CU_ASSERT_EQUAL(move_target(b.v, 0), 0);
	places_let_go(b.v, &hold);
	world_let_pass(&b.w, 5 * NS_PER_S);
	CU_ASSERT_EQUAL(bench_disk_of(&b, 0), disk);
	CU_ASSERT_EQUAL(world_events(&b.w, "copy-stale"), 0);
	bench_check(&b);
	bench_close(&b);
}

/* Nothing of a segment stays where it does not lie: neither at the old disk, nor where it was going to. */
static void where_it_does_not_lie_it_is_cut(void)
{
	for (unsigned fails = 0; fails < 2; fails++) {
		struct bench b;
		struct places_hold hold;
		bench_open(&b, 1120 + fails, 2, 1);
		for (uint32_t cell = 0; cell < CELLS; cell++)
			CU_ASSERT_EQUAL(bench_put(&b, 0, cell, (uint8_t)(1 + cell), 0), 0);
		uint32_t disk = bench_stand(&b, &hold), target = 1 - disk;
		CU_ASSERT(bench_blocks(&b, disk) > 0);
		CU_ASSERT_EQUAL(bench_blocks(&b, target), bench_blocks(&b, disk));
		if (fails) {
			CU_ASSERT_EQUAL_FATAL(bench_drain(&b, disk, true), 0);
			move_stop(b.v);
		} else {
			places_let_go(b.v, &hold);
		}
		world_until(&b.w, has_no_move, &b);
		CU_ASSERT_EQUAL(bench_disk_of(&b, 0), fails ? disk : target);
		CU_ASSERT_EQUAL(bench_blocks(&b, fails ? target : disk), 0);
		bench_check(&b);
		if (fails)
			places_let_go(b.v, &hold);
		bench_close(&b);
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("move steps", NULL, NULL);
	CU_add_test(suite, "an outcome in doubt loses nothing", an_outcome_in_doubt_loses_nothing);
	CU_add_test(suite, "in doubt the daemon can end", in_doubt_the_daemon_can_end);
	CU_add_test(suite, "what was flushed is there after the switch", what_was_flushed_is_there_after_the_switch);
	CU_add_test(suite, "nothing is cut that is read", nothing_is_cut_that_is_read);
	CU_add_test(suite, "what has no room there ends the move", what_has_no_room_there_ends_the_move);
	CU_add_test(suite, "where it does not lie it is cut", where_it_does_not_lie_it_is_cut);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
