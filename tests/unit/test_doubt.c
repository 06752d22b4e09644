/*
 * test_doubt.c: the metadata store is not heard of while a volume leaves a disk: what had been asked of it may have happened,
 * may happen later, or never, and other things of the volume go on beside.
 */
#include "tests/unit/copies_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t bench_drain(struct bench *b)
{
	uint32_t disk = bench_disk_of(b, 0);
	struct set_command c = order(SET_DISK_DRAIN, b->w.set->disks[disk]->facts.name);
	CU_ASSERT_EQUAL_FATAL(world_command(&b->w, &c), 0);
	return disk;
}

static bool is_switching(void *context)
{
	return move_is_switching(((struct bench *)context)->v);
}

static bool is_left(void *context)
{
	const struct volume *v = ((struct bench *)context)->v;
	return !v->leave && !v->move;
}

/* Another segment of the same chunk is placed while it is not known where the first one lies. */
static void a_placement_beside_a_move(void)
{
	for (uint64_t seed = 0; seed < 80; seed++) {
		struct bench b;
		struct world_request write;
		bench_open(&b, 1200 + seed, 2, 1);
		for (uint32_t cell = 0; cell < CELLS; cell++)
			CU_ASSERT_EQUAL(bench_put(&b, 0, cell, (uint8_t)(1 + cell), 0), 0);
		bench_drain(&b);
		world_until(&b.w, is_switching, &b);
		world_hide_store(&b.w, true);
		world_let_pass(&b.w, (1 + seed % 4) * 300 * NS_PER_MS);
		memset(b.data, 222, CELL_BYTES);
		bench_request_start(&b, &write, VOLUME_WRITE, cell_pos(1, 0));
		b.model[1][0] = 222;
		world_let_pass(&b.w, seed % 5 * 250 * NS_PER_MS);
		world_hide_store(&b.w, false);
		world_until(&b.w, world_request_is_done, &write);
		CU_ASSERT_EQUAL(write.res, 0);
		world_until(&b.w, is_left, &b);
		bench_check(&b);
		world_crash(&b.w, SIM_KILL);
		bench_start_again(&b);
		bench_check(&b);
		bench_close(&b);
	}
}

/* It is not known whether the record has forgotten the disk, and the disk is there: it is no stale one to be resynced. */
static void an_erasure(void)
{
	for (uint64_t seed = 0; seed < 120; seed++) {
		struct bench b;
		bench_open(&b, 1300 + seed, 3, 2);
		bench_change(&b, 60);
		uint32_t disk = bench_drain(&b);
		while (!bench_facts(&b, disk)->is_left)
			CU_ASSERT_FATAL(sim_step(b.w.sim));
		for (uint64_t n = 0; n < 3 * seed && !is_left(&b); n++)
			sim_step(b.w.sim);
		world_hide_store(&b.w, true);
		world_let_pass(&b.w, (1 + seed % 3) * 20 * NS_PER_MS);
		world_hide_store(&b.w, false);
		world_measure(&b.w, "vm1");              /* what the store has told meanwhile is taken in, */
		set_disk_returned(b.w.set->disks[disk]); /* and whoever has something to do there looks */
		world_let_pass(&b.w, 5 * NS_PER_S);
		world_until(&b.w, is_left, &b);
		CU_ASSERT_PTR_NULL(bench_facts(&b, disk));
		bench_change(&b, 20);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("doubt", NULL, NULL);
	CU_add_test(suite, "a placement beside a move", a_placement_beside_a_move);
	CU_add_test(suite, "an erasure", an_erasure);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
