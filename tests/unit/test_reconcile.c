/*
 * test_reconcile.c: what the copies of a volume make of writes that were on their way at a crash, where a disk cannot read
 * one of them.
 */
#include "daemon/core/checksum.h"
#include "tests/unit/copies_world.h"
#include "volumes/disk/disk_internal.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CELL 3u /* that was being written */

/* As a write that was on its way: it has come to this disk, and not to the others. */
static void write_one_copy(struct bench *b, uint32_t disk, uint32_t cell, uint8_t byte)
{
	uint32_t crcs[CELL_BLOCKS];
	memset(b->data, byte, CELL_BYTES);
	for (uint32_t i = 0; i < CELL_BLOCKS; i++)
		crcs[i] = crc32c(0, b->data, BLOCK_BYTES);
	struct look l = {.io = {.op = DISK_WRITE,
				.first = cell_pos(0, cell) / BLOCK_BYTES,
				.epoch = b->v->epoch,
				.session = b->v->disks[disk].replica.session,
				.crcs = crcs},
			 .iov = {b->data, CELL_BYTES}};
	CU_ASSERT_EQUAL_FATAL(look_ask(b, disk, &l), 0);
	l.io.op = DISK_FLUSH;
	CU_ASSERT_EQUAL_FATAL(look_ask(b, disk, &l), 0);
}

/* How many trees of the volume are on a disk: one, when nothing is left of what came between. */
static void count_tree(const struct tree_record *t, void *context)
{
	*(uint32_t *)context += t->state == TREE_LIVE;
}

static void expect_one_tree(struct bench *b)
{
	for (uint32_t disk = 0; disk < b->w.n_disks; disk++) {
		uint32_t n = 0;
		disk_trees_each(b->w.set->disks[disk]->disk, count_tree, &n);
		CU_ASSERT_EQUAL(n, 1);
	}
}

/* One write of the cell, of which each disk of the mask has its own, is damaged there; then the daemon is killed. */
static void bench_open_damaged(struct bench *b, uint64_t seed, uint32_t n_disks, unsigned damaged)
{
	bench_open(b, seed, n_disks, n_disks);
	bench_change(b, 40);
	CU_ASSERT_EQUAL(bench_put(b, 0, CELL, 9, 0), 0);
	world_let_pass(&b->w, 3 * NS_PER_S); /* an epoch is complete, and another one open */
	for (uint32_t disk = 0; disk < n_disks; disk++)
		write_one_copy(b, disk, CELL, (uint8_t)(201 + disk));
	for (uint32_t disk = 0; disk < n_disks;
	     disk++) /* which tells recovery that the first is durable, damaged or not */
		write_one_copy(b, disk, CELL + 1, 99);
	b->model[0][CELL + 1] = 99;
	for (uint32_t disk = 0; disk < n_disks; disk++)
		if (damaged >> disk & 1)
			sim_file_flip(world_disk_file(&b->w, disk + 1), cell_block(b, disk, 0, CELL, 1), 7);
	world_crash(&b->w, SIM_KILL);
	bench_start_again(b);
}

/* What one disk alone has is on all of them, or on none: whichever it is. */
static void what_one_copy_alone_has(void)
{
	for (uint32_t disk = 0; disk < 3; disk++) {
		struct bench b;
		bench_open(&b, 10 + disk, 3, 3);
		bench_change(&b, 40);
		CU_ASSERT_EQUAL(bench_put(&b, 0, CELL, 9, 0), 0);
		world_let_pass(&b.w, 10 * NS_PER_S); /* nothing is written since the last complete epoch */
		write_one_copy(&b, disk, CELL, 201);
		world_crash(&b.w, SIM_KILL);
		bench_start_again(&b);
		CU_ASSERT_PTR_NOT_NULL_FATAL(b.v);
		CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(0, CELL), b.back, CELL_BYTES), 0);
		CU_ASSERT(b.back[0] == 9 || b.back[0] == 201);
		b.model[0][CELL] = b.back[0];
		bench_check(&b);
		bench_check_copies(&b);
		expect_one_tree(&b);
		bench_close(&b);
	}
}

/* Another copy is taken, as a whole, and nothing is left of the first attempt. */
static void a_source_that_cannot_be_read_is_none(void)
{
	struct bench b;
	bench_open_damaged(&b, 1, 3, 3);
	CU_ASSERT_PTR_NOT_NULL_FATAL(b.v);
	b.model[0][CELL] = 203; /* the third disk's: all of it, on all */
	bench_check(&b);
	bench_check_copies(&b);
	CU_ASSERT_EQUAL(world_events(&b.w, "blocks-not-agreed"), 0);
	expect_one_tree(&b);
	bench_close(&b);
}

static void first_has_lost_power(struct head_world *w)
{
	w->set->disks[0]->disk->superblock.power_losses++;
}

/* Nothing is taken from the copy that lost power, and may lack a completed write, in place of what cannot be read. */
static void what_lost_power_is_no_other_source(void)
{
	struct bench b;
	bench_open(&b, 3, 2, 2);
	bench_change(&b, 40);
	CU_ASSERT_EQUAL(bench_put(&b, 0, CELL, 9, 0), 0);
	world_let_pass(&b.w, 3 * NS_PER_S);
	write_one_copy(&b, 1, CELL, 201);
	write_one_copy(&b, 1, CELL + 1, 202); /* which tells recovery that the first is durable */
	uint64_t block = cell_block(&b, 1, 0, CELL, 1);
	world_crash(&b.w, SIM_KILL);
	sim_file_flip(world_disk_file(&b.w, 2), block, 7);
	b.w.disks_open = first_has_lost_power;
	CU_ASSERT_EQUAL_FATAL(world_start(&b.w), 0);
	CU_ASSERT_PTR_NULL(world_head(&b.w, "vm1"));
	CU_ASSERT_PTR_NOT_NULL(strstr(set_volume_find(b.w.set, "vm1")->why, "can be found on none of its disks"));
	sim_file_flip(world_disk_file(&b.w, 2), block, 7); /* it can be read after all */
	world_let_pass(&b.w, 60 * NS_PER_S);
	b.v = world_head(&b.w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(b.v);
	b.model[0][CELL] = 201;
	b.model[0][CELL + 1] = 202;
	bench_check(&b);
	bench_check_copies(&b);
	expect_one_tree(&b);
	bench_close(&b);
}

/* No copy has it whole: the volume is served all the same, and who reads that block gets what some copy has, or an error. */
static void what_nobody_can_read_keeps_nobody_from_the_rest(void)
{
	struct bench b;
	bench_open_damaged(&b, 2, 2, 3);
	CU_ASSERT_PTR_NOT_NULL_FATAL(b.v);
	CU_ASSERT_EQUAL(world_events(&b.w, "blocks-not-agreed"), 1);
	expect_one_tree(&b);
	uint64_t pos = cell_pos(0, CELL);
	for (uint32_t i = 0; i < CELL_BLOCKS; i++)
		CU_ASSERT_EQUAL(world_read(&b.w, b.v, pos + i * BLOCK_BYTES, b.back, BLOCK_BYTES), i == 1 ? -EIO : 0);
	CU_ASSERT_EQUAL(bench_put(&b, 0, CELL, 77, 0), 0); /* writing it mends it */
	bench_check(&b);
	bench_check_copies(&b);
	bench_close(&b);
}

static bool first_is_joined(void *context)
{
	const struct volume *v = world_head(&((struct bench *)context)->w, "vm1");
	return v && v->disks[0].state == VOLUME_DISK_JOINED;
}

/* One disk is joined and lost while an attach waits for another, which is slow: that one is not taken for lost as well. */
static void a_disk_is_lost_while_another_is_joined(void)
{
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct bench b;
		struct world_order attach = {.command = order_other(SET_VOLUME_ATTACH, "vm1", "nbd")};
		bench_open(&b, 1600 + seed, 3, 3);
		bench_change(&b, 20);
		CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
		struct sim_file_faults *faults = sim_file_faults(world_disk_file(&b.w, 3));
		faults->slow_ns = 200 * NS_PER_MS;
		faults->slow_ppm = 1000000;
		world_order_start(&b.w, &attach);
		world_until(&b.w, first_is_joined, &b);
		b.v = world_head(&b.w, "vm1");
		CU_ASSERT_NOT_EQUAL(b.v->disks[2].state, VOLUME_DISK_JOINED);
		volume_disk_lose(b.v, 0, -EIO);
		world_until(&b.w, world_order_is_done, &attach);
		CU_ASSERT_EQUAL(attach.res, 0);
		CU_ASSERT_EQUAL(b.v->disks[2].state, VOLUME_DISK_JOINED);
		CU_ASSERT_FALSE(bench_facts(&b, 2)->is_stale);
		faults->slow_ppm = 0;
		world_until(&b.w, all_are_current, &b);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("reconcile", NULL, NULL);
	CU_add_test(suite, "what one copy alone has", what_one_copy_alone_has);
	CU_add_test(suite, "a source that cannot be read is none", a_source_that_cannot_be_read_is_none);
	CU_add_test(suite, "what lost power is no other source", what_lost_power_is_no_other_source);
	CU_add_test(suite, "what nobody can read keeps nobody from the rest",
		    what_nobody_can_read_keeps_nobody_from_the_rest);
	CU_add_test(suite, "a disk is lost while another is joined", a_disk_is_lost_while_another_is_joined);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
