/*
 * test_compare.c: the copies of a volume are compared by their checksums: what differs is told, and nothing else is; clients go
 * on meanwhile.
 */
#include "tests/unit/copies_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct waiting {
	const struct set_volume *entry;
	uint64_t n_compared;
};

static bool is_compared(void *context)
{
	const struct waiting *w = context;
	return w->entry->n_compared > w->n_compared;
}

/* As `disk scrub` has it done. */
static void compare(struct bench *b)
{
	struct waiting w = {b->v->entry, b->v->entry->n_compared};
	struct set_command c = order(SET_DISK_SCRUB, b->w.set->disks[0]->facts.name);
	CU_ASSERT_EQUAL(world_command(&b->w, &c), 0);
	world_until(&b->w, is_compared, &w);
}

/* After whatever clients and people do, copies are alike. */
static void alike_copies_are_alike(void)
{
	struct bench b;
	bench_open(&b, 1, 3, 3);
	bench_change(&b, 150);
	CU_ASSERT_EQUAL(world_snapshot(&b.w, "vm1@a"), 0);
	bench_change(&b, 100);
	CU_ASSERT_EQUAL(world_snapshot(&b.w, "vm1@b"), 0);
	bench_change(&b, 100);
	compare(&b);
	CU_ASSERT(b.v->compare.n_pieces >= 2 * 3 * 2 * 16); /* segments, trees, pairs and pieces of a segment */
	CU_ASSERT_EQUAL(b.v->entry->unlike_blocks, 0);
	CU_ASSERT_EQUAL(world_snapshot_delete(&b.w, "vm1@a"), 0);
	sim_file_fail(world_disk_file(&b.w, 2), OP_WRITE, 0, EIO);
	bench_change(&b, 60);
	bench_return(&b, 1);
	world_until(&b.w, all_are_current, &b);
	compare(&b);
	CU_ASSERT_EQUAL(b.v->entry->unlike_blocks, 0);
	CU_ASSERT_EQUAL(world_events(&b.w, "copies-differ"), 0);
	bench_close(&b);
}

static void written(struct replica_io *rio, int res)
{
	CU_ASSERT_EQUAL(res, 0);
	rio->tree = 0;
}

static bool is_written(void *context)
{
	return ((struct replica_io *)context)->tree == 0;
}

/* One copy gets what the others do not: it matches its checksum there. */
static void change_one(struct bench *b, uint32_t disk, uint64_t block, uint32_t n_blocks)
{
	static uint32_t crcs[CELL_BLOCKS];
	struct iovec iov = {b->data, n_blocks * BLOCK_BYTES};
	struct replica_io rio = {.tree = volume_tree(b->v), .done = written};
	memset(b->data, 0x77, iov.iov_len);
	CU_ASSERT_EQUAL(blocks_sum(&iov, 1, n_blocks, crcs), 0);
	rio.io = (struct disk_io){.op = DISK_WRITE,
				  .first = block,
				  .n_blocks = n_blocks,
				  .epoch = b->v->epoch,
				  .iov = &iov,
				  .n_iov = 1,
				  .crcs = crcs};
	replica_submit(&b->v->disks[disk].replica, &rio);
	world_until(&b->w, is_written, &rio);
}

static void what_differs_is_told_and_left(void)
{
	struct bench b;
	struct look l;
	bench_open(&b, 2, 2, 2);
	for (uint32_t cell = 0; cell < 8; cell++)
		CU_ASSERT_EQUAL(bench_put(&b, 0, cell, 7, VOLUME_FUA), 0);
	uint64_t block = cell_pos(0, 3) / BLOCK_BYTES;
	change_one(&b, 1, block + 1, 2);
	change_one(&b, 0, cell_pos(0, 40) / BLOCK_BYTES, 1); /* a hole at the other */
	compare(&b);
	CU_ASSERT_EQUAL(b.v->entry->unlike_blocks, 3);
	CU_ASSERT_EQUAL(world_events(&b.w, "copies-differ"), 1); /* one piece */
	CU_ASSERT_EQUAL(look_at(&b, 0, cell_pos(0, 3), b.back, &l), 0);
	CU_ASSERT(is_all(b.back, 7, CELL_BYTES));
	CU_ASSERT_EQUAL(look_at(&b, 1, cell_pos(0, 3), b.back, &l), 0);
	CU_ASSERT_EQUAL(b.back[BLOCK_BYTES], 0x77);
	for (uint32_t i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(b.v->disks[i].state, VOLUME_DISK_JOINED);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 3, 9, 0), 0);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 40, 9, 0), 0);
	compare(&b);
	CU_ASSERT_EQUAL(b.v->entry->unlike_blocks, 0);
	bench_close(&b);
}

/* Writes, snapshots and the end of it, while it is under way. */
static void clients_go_on_meanwhile(void)
{
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct bench b;
		bench_open(&b, 100 + seed, 2, 2);
		bench_change(&b, 60);
		struct waiting w = {b.v->entry, 0};
		struct set_command c = order(SET_DISK_SCRUB, b.w.set->disks[0]->facts.name);
		CU_ASSERT_EQUAL(world_command(&b.w, &c), 0);
		for (uint32_t i = 0; i < 5; i++) {
			bench_change(&b, 20);
			if (i == 2)
				CU_ASSERT_EQUAL(world_snapshot(&b.w, "vm1@s"), 0);
			world_let_pass(&b.w, seed * 50 * NS_PER_MS);
		}
		if (seed % 2)
			world_until(&b.w, is_compared, &w);
		CU_ASSERT_EQUAL(world_events(&b.w, "copies-differ"), 0);
		bench_check(&b);
		bench_close(&b);
	}
}

/* Nobody asks for it. */
static void it_begins_by_itself(void)
{
	struct bench b;
	bench_open(&b, 3, 2, 2);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 7, VOLUME_FUA), 0);
	world_let_pass(&b.w, 700 * NS_PER_S);
	CU_ASSERT_EQUAL(b.v->entry->n_compared, 1);
	bench_close(&b);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("compare", NULL, NULL);
	CU_add_test(suite, "alike copies are alike", alike_copies_are_alike);
	CU_add_test(suite, "what differs is told and left", what_differs_is_told_and_left);
	CU_add_test(suite, "clients go on meanwhile", clients_go_on_meanwhile);
	CU_add_test(suite, "it begins by itself", it_begins_by_itself);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
