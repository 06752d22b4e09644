/*
 * test_disk_punch.c: what is freed is given back to the file below, on a disk that is idle afterwards too: after a
 * trim, after a restart, and when the regions it lies in had to leave memory meanwhile.
 */
#include "tests/unit/one_disk.h"

#define DISK_BYTES    (512 * MIB)
#define N_BLOCKS      (20u * COUNTS_PER_PAGE)
#define LOGGED_BLOCKS 4000u                    /* few enough for a checkpoint to leave them in the delta log */
#define LEFT_BLOCKS   (COUNTS_PER_PAGE + 512u) /* the region that is written to is not punched, and pages are in use */

static void write_blocks(struct one_disk *o, struct disk_tree *t, uint32_t n_blocks)
{
	for (uint64_t at = 0; at < n_blocks; at += 64)
		CU_ASSERT_EQUAL_FATAL(one_write(o, t, at, 64, (uint8_t)(1 + at / 64 % 200)), 0);
	disk_checkpoint(o->disk);
	one_let_pass(o, 3 * NS_PER_S);
	CU_ASSERT(sim_file_stats(o->medium).blocks >= n_blocks);
}

/* Nothing goes on for ever, and what was written is given back. */
static void is_given_back(struct one_disk *o, uint32_t n_blocks)
{
	one_let_pass(o, 60 * NS_PER_S);
	CU_ASSERT_EQUAL(sim_run(o->sim, NULL, NULL, ONE_STEPS_MAX), SIM_IDLE);
	CU_ASSERT(one_stats(o).punched_blocks + LEFT_BLOCKS >= n_blocks);
	CU_ASSERT_EQUAL(one_stats(o).waiting_blocks, 0);
}

static void a_trim_on_an_idle_disk(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, 64 * MIB);
	struct disk_tree *t = one_create(&o, 1);
	write_blocks(&o, t, N_BLOCKS);
	CU_ASSERT_EQUAL(one_trim(&o, t, 0, N_BLOCKS), 0);
	is_given_back(&o, N_BLOCKS);
	one_close(&o);
}

static void a_drop_after_a_restart(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, 64 * MIB);
	write_blocks(&o, one_create(&o, 1), N_BLOCKS);
	one_close_disk(&o);
	one_open_disk(&o);
	CU_ASSERT_EQUAL(one_call(&o, (struct disk_io){.op = DISK_DROP, .tree = one_tree(&o, 1)}), 0);
	is_given_back(&o, N_BLOCKS);
	one_close(&o);
}

/* All of it was closed away before anything was punched: the delta log tells. */
static void a_restart_after_a_drop(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, 64 * MIB);
	write_blocks(&o, one_create(&o, 1), LOGGED_BLOCKS);
	one_close_disk(&o);
	one_open_disk(&o);
	CU_ASSERT_EQUAL(one_call(&o, (struct disk_io){.op = DISK_DROP, .tree = one_tree(&o, 1)}), 0);
	for (unsigned i = 0; i < 1000 && one_stats(&o).dying_trees > 0; i++)
		one_let_pass(&o, NS_PER_MS);
	one_close_disk(&o);
	one_open_disk(&o);
	CU_ASSERT_EQUAL(one_stats(&o).dying_trees, 0);
	CU_ASSERT_EQUAL(one_stats(&o).punched_blocks, 0);
	is_given_back(&o, LOGGED_BLOCKS + LEFT_BLOCKS - 512); /* no region is written to */
	one_close(&o);
}

static void more_regions_than_memory_holds(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, 64 * MIB);
	o.disk->space.regions_max = 4;
	struct disk_tree *t = one_create(&o, 1);
	write_blocks(&o, t, N_BLOCKS);
	CU_ASSERT_EQUAL(one_trim(&o, t, 0, N_BLOCKS), 0);
	disk_checkpoint(o.disk);
	one_let_pass(&o, 500 * NS_PER_MS);
	CU_ASSERT(o.disk->space.n_resident <= 5); /* what was freed there left memory unpunched */
	is_given_back(&o, N_BLOCKS);
	CU_ASSERT(o.disk->space.n_resident <= 8);
	one_close(&o);
}

/* Single blocks are not worth a hole, and regions are not fetched for them over and over. */
static void scattered_blocks(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, 64 * MIB);
	struct disk_tree *t = one_create(&o, 1);
	write_blocks(&o, t, N_BLOCKS);
	one_close_disk(&o);
	one_open_disk(&o);
	o.disk->space.regions_max = 4;
	t = one_tree(&o, 1);
	uint64_t punched_before = one_stats(&o).punched_blocks;
	for (uint64_t at = 0; at < N_BLOCKS; at += 20)
		CU_ASSERT_EQUAL_FATAL(one_trim(&o, t, at, 1), 0);
	one_let_pass(&o, 60 * NS_PER_S);
	CU_ASSERT_EQUAL(sim_run(o.sim, NULL, NULL, ONE_STEPS_MAX), SIM_IDLE);
	CU_ASSERT_EQUAL(one_stats(&o).waiting_blocks, 0);
	CU_ASSERT(one_stats(&o).punched_blocks - punched_before < N_BLOCKS / 20);
	one_close(&o);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("giving space back", NULL, NULL);
	CU_add_test(suite, "a trim on an idle disk", a_trim_on_an_idle_disk);
	CU_add_test(suite, "a drop after a restart", a_drop_after_a_restart);
	CU_add_test(suite, "a restart after a drop", a_restart_after_a_drop);
	CU_add_test(suite, "more regions than memory holds", more_regions_than_memory_holds);
	CU_add_test(suite, "scattered blocks", scattered_blocks);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
