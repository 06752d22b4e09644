/*
 * test_scrub.c: what a scrub says it has straightened is what lies elsewhere afterwards, whatever happens to the leaf meanwhile.
 */
#include "tests/unit/head_world.h"
#include "volumes/disk/disk_internal.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)

/* One leaf whose blocks lie in as many runs as it has blocks: the even ones were written before the odd ones. */
static struct volume *scattered_leaf(struct head_world *w, uint64_t seed, uint8_t *data)
{
	world_open(w, seed);
	world_add_disk(w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	struct volume *v = world_volume(w, "vm1", GIB);
	for (uint64_t i = 0; i < 2 * PAGE_POINTERS; i += 2) {
		uint64_t block = i % PAGE_POINTERS + i / PAGE_POINTERS;
		memset(data, (int)block + 1, BLOCK_BYTES);
		CU_ASSERT_EQUAL(world_write(w, v, block * BLOCK_BYTES, data, BLOCK_BYTES, 0), 0);
	}
	/* a snapshot would first flush so many, and always come after the scrub */
	CU_ASSERT_EQUAL(world_op(w, v, VOLUME_FLUSH, 0, 0, 0), 0);
	return v;
}

static void pointers_of(struct volume *v, struct pointer out[PAGE_POINTERS])
{
	struct disk_tree *tree = disk_tree_find(v->set->disks[0]->disk, volume_uuid(v), volume_tree(v));
	CU_ASSERT_EQUAL_FATAL(tree_get(tree, 0, PAGE_POINTERS, out, NULL), 0); /* all in the cache */
}

static bool scrub_has_ended(void *context)
{
	struct disk_scrub status;
	disk_scrub_status(((struct head_world *)context)->set->disks[0]->disk, &status);
	return !status.is_running;
}

/* Scrubs, and takes a snapshot after so many steps of the world; returns how many leaves were straightened. */
static uint64_t scrub_beside_a_snapshot(uint32_t steps, uint8_t *data)
{
	struct head_world w;
	struct pointer before[PAGE_POINTERS], after[PAGE_POINTERS];
	struct disk_scrub status;
	uint32_t n_moved = 0;
	struct volume *v = scattered_leaf(&w, 1, data);
	struct disk *d = w.set->disks[0]->disk;
	pointers_of(v, before);
	CU_ASSERT_EQUAL_FATAL(disk_scrub_start(d, 0, true), 0);
	for (uint32_t i = 0; i < steps && !scrub_has_ended(&w); i++)
		sim_step(w.sim);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@s"), 0);
	world_until(&w, scrub_has_ended, &w);
	disk_scrub_status(d, &status);
	pointers_of(v, after);
	for (uint32_t i = 0; i < PAGE_POINTERS; i++)
		n_moved += pointer_block(before[i]) != pointer_block(after[i]);
	CU_ASSERT_EQUAL(status.bad_blocks, 0);
	CU_ASSERT_EQUAL(status.straightened_leaves, n_moved > 0);
	for (uint64_t i = 0; i < PAGE_POINTERS; i++) {
		CU_ASSERT_EQUAL(world_read(&w, v, i * BLOCK_BYTES, data, BLOCK_BYTES), 0);
		CU_ASSERT_EQUAL(data[0], (uint8_t)(i + 1));
	}
	world_close(&w);
	return status.straightened_leaves;
}

static void what_was_straightened_has_moved(void)
{
	uint8_t *data = world_memory(BLOCK_BYTES);
	uint32_t n = 0, n_straightened = 0;
	for (uint32_t steps = 0; steps < 60; steps += 2, n++)
		n_straightened += (uint32_t)scrub_beside_a_snapshot(steps, data);
	CU_ASSERT(n_straightened > 0 && n_straightened < n); /* or the test shows nothing */
	free(data);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("scrub", NULL, NULL);
	CU_add_test(suite, "what was straightened has moved", what_was_straightened_has_moved);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
