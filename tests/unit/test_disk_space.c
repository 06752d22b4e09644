/*
 * test_disk_space.c: changes of counts outside resident regions stay within their bound, whatever frees many blocks at once: a
 * trim of what an earlier run wrote, and the replay of a journal whose regions were all resident when it was written.
 */
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES  (512 * MIB)
#define DATA_BYTES  (48 * MIB) /* more blocks than a disk of this size keeps deltas */
#define WRITE_BYTES (256 * KIB)

static void write_all(struct head_world *w, struct volume *v, uint8_t *data, uint8_t stamp)
{
	for (uint64_t at = 0; at < DATA_BYTES; at += WRITE_BYTES) {
		memset(data, stamp + (int)(at / WRITE_BYTES % 7), WRITE_BYTES);
		CU_ASSERT_EQUAL_FATAL(world_write(w, v, at, data, WRITE_BYTES, 0), 0);
	}
}

static void check_all(struct head_world *w, struct volume *v, uint8_t *data, uint8_t stamp)
{
	for (uint64_t at = 0; at < DATA_BYTES; at += WRITE_BYTES) {
		CU_ASSERT_EQUAL_FATAL(world_read(w, v, at, data, WRITE_BYTES), 0);
		CU_ASSERT_EQUAL(data[0], stamp + (int)(at / WRITE_BYTES % 7));
		CU_ASSERT_EQUAL(memcmp(data, data + 1, WRITE_BYTES - 1), 0);
	}
}

static uint32_t deltas_of(const struct head_world *w)
{
	struct disk_stats stats;
	disk_stats(w->set->disks[0]->disk, &stats);
	return (uint32_t)stats.deltas;
}

static void a_trim_of_all_that_an_earlier_run_wrote(void)
{
	struct head_world w;
	uint8_t *data = world_memory(WRITE_BYTES);
	world_open(&w, 1);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	write_all(&w, world_volume(&w, "vm1", GIB), data, 1);
	world_stop(&w);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0); /* nothing is resident now */
	struct volume *v = world_head(&w, "vm1");
	check_all(&w, v, data, 1); /* the leaves are in the cache: a trim need not wait for them one by one */
	/* Not a whole number of what a trim does in a turn: the last turn that is admitted goes furthest. */
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, 3 * MIB, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, GIB, 0), 0);
	CU_ASSERT(deltas_of(&w) > 0); /* or the test shows nothing */
	CU_ASSERT_EQUAL(world_read(&w, v, 0, data, WRITE_BYTES), 0);
	CU_ASSERT_EQUAL(data[0], 0);
	write_all(&w, v, data, 9);
	check_all(&w, v, data, 9);
	world_close(&w);
	free(data);
}

static void a_replay_that_frees_more_than_the_deltas_hold(void)
{
	struct head_world w;
	uint8_t *data = world_memory(WRITE_BYTES);
	world_open(&w, 2);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", GIB);
	write_all(&w, v, data, 1); /* the regions it took blocks from stay resident */
	disk_checkpoint(w.set->disks[0]->disk);
	world_let_pass(&w, NS_PER_S);
	write_all(&w, v, data, 9);
	CU_ASSERT(deltas_of(&w) < 1000);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_FLUSH, 0, 0, 0), 0);
	world_crash(&w, SIM_POWER_LOSS);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	v = world_head(&w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	check_all(&w, v, data, 9);
	world_close(&w);
	free(data);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("disk space", NULL, NULL);
	CU_add_test(suite, "a trim of all that an earlier run wrote", a_trim_of_all_that_an_earlier_run_wrote);
	CU_add_test(suite, "a replay that frees more than the deltas hold",
		    a_replay_that_frees_more_than_the_deltas_hold);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
