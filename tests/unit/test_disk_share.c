/*
 * test_disk_share.c: a disk whose share of the cache is small: for its size, for its records, or because it is smaller than
 * when its journal was written. Checkpoints and recovery find the memory they need, and give back what was more than
 * the share.
 */
#include "tests/unit/one_disk.h"

#define SMALL_BYTES (4 * MIB)

static bool is_checkpointed(void *context)
{
	const struct one_disk *o = context;
	return checkpoint_is_idle(&o->disk->checkpoint);
}

static void checkpoint(struct one_disk *o)
{
	uint64_t before = o->disk->checkpoints;
	disk_checkpoint(o->disk);
	CU_ASSERT_EQUAL_FATAL(sim_run(o->sim, is_checkpointed, o, ONE_STEPS_MAX), SIM_DONE);
	CU_ASSERT(o->disk->checkpoints > before);
}

static void kill_disk(struct one_disk *o)
{
	sim_crash(o->machine, SIM_KILL);
	disk_abandon(o->disk);
	o->disk = NULL;
}

/* The pages of the count index alone are more than the share has frames for. */
static void a_big_disk(void)
{
	struct one_disk o;
	one_open(&o, 4 * TIB, SMALL_BYTES);
	struct disk_tree *t = one_create(&o, 1);
	for (uint64_t i = 0; i < 100; i++)
		CU_ASSERT_EQUAL_FATAL(one_write(&o, t, i << 16, 1, 1), 0);
	checkpoint(&o);
	kill_disk(&o);
	one_open_disk(&o);
	CU_ASSERT_EQUAL(disk_tree_blocks(one_tree(&o, 1)), 100);
	one_close(&o);
}

/* Blocks beside each other whose leaves have only the root in common, at each height of it, in trees of one leaf. */
static void writes_across_the_highest_pages(void)
{
	struct one_disk o;
	uint64_t id = 1, most = 0;
	one_open(&o, GIB, SMALL_BYTES);
	for (unsigned shift = PAGE_SHIFT; shift <= 5 * PAGE_SHIFT; shift += PAGE_SHIFT) {
		for (uint64_t k = 1; k < PAGE_POINTERS; k += 2, id++) {
			uint64_t edge = k << shift, end = (uint64_t)PAGE_POINTERS << shift;
			struct disk_tree *t = one_create(&o, id);
			CU_ASSERT_EQUAL_FATAL(one_write(&o, t, 0, 1, 1), 0);
			uint32_t before = o.disk->pages.n_dirty;
			CU_ASSERT_EQUAL_FATAL(one_write(&o, t, edge - 1, 2, 2), 0);
			if (o.disk->pages.n_dirty > before) /* no checkpoint came between */
				most = max_u64(most, o.disk->pages.n_dirty - before);
			CU_ASSERT_EQUAL_FATAL(one_write(&o, t, end - 2, 2, 3), 0);
			CU_ASSERT_EQUAL_FATAL(disk_tree_blocks(t), 5);
		}
	}
	CU_ASSERT_EQUAL(most, CHANGE_PAGES_MAX);
	kill_disk(&o);
	one_open_disk(&o);
	for (uint64_t i = 1; i < id; i++)
		CU_ASSERT_EQUAL_FATAL(disk_tree_blocks(one_tree(&o, i)), 5);
	one_close(&o);
}

/* The records of many volumes are dirty at once. */
static void many_volumes(void)
{
	struct one_disk o;
	one_open(&o, GIB, SMALL_BYTES);
	for (uint32_t i = 2; i < 1500; i++) {
		one_volume(&o, i);
		CU_ASSERT_EQUAL_FATAL(one_write(&o, one_create(&o, 1), 0, 1, 1), 0);
	}
	checkpoint(&o);
	one_close(&o);
}

/* Killed with a journal that dirties more pages than the smaller share of the next start has frames. */
static void a_share_that_was_larger(void)
{
	struct one_disk o;
	one_open(&o, 4 * GIB, 64 * MIB);
	struct disk_tree *t = one_create(&o, 1);
	for (uint64_t i = 0; i < 1300; i++)
		CU_ASSERT_EQUAL_FATAL(one_write(&o, t, i * PAGE_POINTERS, 1, (uint8_t)(1 + i % 200)), 0);
	CU_ASSERT_EQUAL(one_call(&o, (struct disk_io){.op = DISK_FLUSH}), 0);
	kill_disk(&o);
	o.cache_bytes = SMALL_BYTES;
	one_open_disk(&o);
	CU_ASSERT_EQUAL(disk_tree_blocks(one_tree(&o, 1)), 1300);
	struct disk_stats stats = one_stats(&o);
	CU_ASSERT(stats.cache_pages <= stats.cache_pages_max);
	CU_ASSERT(stats.cache_pages_max * BLOCK_BYTES < SMALL_BYTES); /* what recovery took is given back */
	t = one_tree(&o, 1);
	for (uint64_t i = 0; i < 1300; i++)
		CU_ASSERT_EQUAL_FATAL(one_write(&o, t, i * PAGE_POINTERS, 1, (uint8_t)(2 + i % 200)), 0);
	kill_disk(&o);
	one_open_disk(&o);
	CU_ASSERT_EQUAL(disk_tree_blocks(one_tree(&o, 1)), 1300);
	one_close(&o);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("a small share of the cache", NULL, NULL);
	CU_add_test(suite, "writes across the highest pages", writes_across_the_highest_pages);
	CU_add_test(suite, "a big disk", a_big_disk);
	CU_add_test(suite, "many volumes", many_volumes);
	CU_add_test(suite, "a share that was larger", a_share_that_was_larger);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
