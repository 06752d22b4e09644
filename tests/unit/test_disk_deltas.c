/*
 * test_disk_deltas.c: changes of counts outside resident regions at their bound: what the cut of a checkpoint adds to them
 * has its room, and the log of the next start is never longer than it may be.
 */
#include "tests/unit/one_disk.h"

#define DISK_BYTES    (8 * GIB)
#define CACHE_BYTES   (16 * MIB)
#define VOLUMES       500u
#define STEP_DELTAS   280u /* what a step of a drop may add: it asks for no more */
#define FREE_REGION   64u  /* behind the journal and all that was written */
#define DIRTY_REGIONS 201u /* half of what may be resident: no region is merged */

/* Touches blocks of all regions in turn, as frees of scattered blocks do, for as long as there is room. */
static void fill_the_deltas(struct space *s)
{
	for (uint32_t bit = 0; bit < COUNTS_PER_PAGE; bit++)
		for (uint32_t i = s->n_regions / 2; i < s->n_regions; i++) {
			uint64_t block = (uint64_t)i * COUNTS_PER_PAGE + bit;
			if (!space_has_delta_room(s, STEP_DELTAS))
				return;
			space_add(s, block);
			space_drop(s, block, false);
		}
}

static void dirty_regions(struct space *s)
{
	for (uint32_t i = FREE_REGION; s->n_dirty < DIRTY_REGIONS; i++) {
		uint64_t block = (uint64_t)i * COUNTS_PER_PAGE + COUNTS_PER_PAGE - 1;
		CU_ASSERT_EQUAL_FATAL(space_make_resident(s, i, NULL), 0);
		CU_ASSERT_EQUAL_FATAL(space_claim(s, block), 0);
		space_take(s, block, 1);
	}
}

static void a_cut_at_the_limit(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	for (uint32_t i = 2; i < VOLUMES; i++)
		one_volume(&o, i);
	one_close_disk(&o);
	one_open_disk(&o); /* the blocks of the records lie in no resident region now */
	struct disk *d = o.disk;
	for (uint32_t i = 2; i < VOLUMES; i++)
		one_volume(&o, i);
	CU_ASSERT(d->n_dirty_records >= VOLUMES - 2);
	dirty_regions(&d->space);
	fill_the_deltas(&d->space);
	CU_ASSERT(space_deltas(&d->space) > d->space.deltas_max - STEP_DELTAS - 8 * VOLUMES);
	disk_checkpoint(d);
	one_let_pass(&o, NS_PER_S);
	CU_ASSERT_EQUAL_FATAL(disk_state(d), DISK_RUNNING);
	CU_ASSERT(d->superblock.n_deltas > d->space.deltas_max / 2); /* or nothing was at its limit */
	CU_ASSERT(d->superblock.n_deltas <= d->space.deltas_max);
	sim_crash(o.machine, SIM_KILL);
	disk_abandon(d);
	one_open_disk(&o);
	one_close(&o);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("changes of counts", NULL, NULL);
	CU_add_test(suite, "a cut at the limit", a_cut_at_the_limit);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
