/*
 * test_disk_scrub.c: a scrub reads all that the disk holds: whatever is damaged, it finds it, once, and goes on. And it
 * comes by itself when it is due.
 */
#include "tests/unit/one_disk.h"

#define DISK_BYTES (128 * MIB)
#define EVERY_NS   (7 * 24 * 3600 * NS_PER_S)
#define SCRUB_MAX_NS                                                                                                   \
	(3600 * NS_PER_S) /* what a scrub of a small disk takes at most, with what comes before it begins by itself */

static struct disk_scrub status_of(struct one_disk *o)
{
	struct disk_scrub status;
	disk_scrub_status(o->disk, &status);
	return status;
}

static bool scrub_has_ended(void *context)
{
	return !status_of(context).is_running;
}

static struct disk_scrub scrub(struct one_disk *o)
{
	CU_ASSERT_EQUAL_FATAL(disk_scrub_start(o->disk, 0, false), 0);
	CU_ASSERT_EQUAL_FATAL(sim_run(o->sim, scrub_has_ended, o, ONE_STEPS_MAX), SIM_DONE);
	return status_of(o);
}

/* A disk that holds a block of every kind. The tree's first leaves are holes, and one leaf has nothing but holes. */
static void disk_with_everything(struct one_disk *o)
{
	one_open(o, DISK_BYTES, 4 * MIB);
	struct disk_tree *t = one_create(o, 1);
	for (uint64_t leaf = 3; leaf < 70; leaf++)
		CU_ASSERT_EQUAL_FATAL(one_write(o, t, leaf * PAGE_POINTERS, 64, 1), 0);
	CU_ASSERT_EQUAL_FATAL(one_write(o, t, 300 * PAGE_POINTERS + 5, 1, 1), 0);
	disk_checkpoint(o->disk);
	one_let_pass(o, NS_PER_S);
	one_close_disk(o);
	one_open_disk(o);
	t = one_tree(o, 1);
	CU_ASSERT_EQUAL_FATAL(one_trim(o, t, 300 * PAGE_POINTERS + 5, 1), 0);
	CU_ASSERT_EQUAL_FATAL(one_trim(o, t, 4 * PAGE_POINTERS, 40), 0); /* of regions that are not resident: deltas */
	CU_ASSERT_EQUAL_FATAL(one_trim(o, t, 20 * PAGE_POINTERS, 20 * PAGE_POINTERS),
			      0); /* more than a block of them */
	disk_checkpoint(o->disk);
	one_let_pass(o, NS_PER_S);
}

#define KINDS      15u /* of damage; the last is the root, of height 3 */
#define LOG_PAGE   8u
#define FIRST_PAGE 11u

/* A block of each kind, whose way is in the cache. */
static uint64_t block_of(struct one_disk *o, unsigned kind)
{
	struct disk *d = o->disk;
	struct pointer path[TREE_HEIGHT_MAX + 1], data;
	struct waiter unused = {0};
	switch (kind) {
	case 0:
		return superblock_slot_block(superblock_slot(d->superblock.checkpoint, 1));
	case 1:
		return superblock_slot_block(superblock_slot(d->superblock.checkpoint - 1, 0));
	case 2:
		return pointer_block(d->tree_table.pages[0][0]);
	case 3:
		return pointer_block(d->volume_table.pages[0][0]);
	case 4:
		return pointer_block(d->space.index.pages[0][0]);
	case 5:
		return pointer_block(d->tree_table.slots[0]);
	case 6:
		return pointer_block(d->volume_table.slots[0]);
	case 7:
		for (uint32_t i = 0; i < d->space.n_regions; i++)
			if (!pointer_is_hole(d->space.index.slots[i]))
				return pointer_block(d->space.index.slots[i]);
		return 0;
	case LOG_PAGE:
		return d->checkpoint.log.page;
	case 9:
		return d->checkpoint.log.blocks[0];
	case 10:
		CU_ASSERT_EQUAL_FATAL(tree_get(one_tree(o, 1), 9 * PAGE_POINTERS, 1, &data, &unused), 0);
		return pointer_block(data);
	default: /* the pages on the way to a leaf, and a leaf of holes */
		CU_ASSERT_EQUAL_FATAL(tree_path(one_tree(o, 1), (kind == 11 ? 300 : 9) * PAGE_POINTERS, path, &unused),
				      0);
		return pointer_block(path[kind == 11 ? 1 : kind - 11]);
	}
}
static void all_that_is_damaged_is_found(void)
{
	for (unsigned kind = 0; kind < KINDS; kind++) {
		struct one_disk o;
		disk_with_everything(&o);
		CU_ASSERT_EQUAL(scrub(&o).bad_blocks, 0);
		uint64_t block = block_of(&o, kind);
		if (block != 0)
			sim_file_flip(o.medium, block, 1234);
		struct disk_scrub status = scrub(&o);
		uint32_t n_hidden = kind == LOG_PAGE ? o.disk->checkpoint.log.n_blocks : 0; /* that it names */
		CU_ASSERT_EQUAL(status.done_blocks + n_hidden, status.total_blocks);
		CU_ASSERT(o.disk->checkpoint.log.n_blocks > 1);
		CU_ASSERT_EQUAL(status.bad_blocks, 1);
		CU_ASSERT_EQUAL(one_events(&o, "damage"), 1);
		sim_crash(o.machine, SIM_KILL);
		disk_abandon(o.disk);
		o.disk = NULL;
		one_close(&o);
	}
}

/* It is no damage: the other copy counts, and the next checkpoint but one writes there. */
static void a_superblock_that_a_crash_left_half_written(void)
{
	struct one_disk o;
	disk_with_everything(&o);
	uint64_t block = block_of(&o, 0);
	sim_crash(o.machine, SIM_KILL);
	disk_abandon(o.disk);
	sim_file_flip(o.medium, block, 1234);
	one_open_disk(&o);
	CU_ASSERT_EQUAL(scrub(&o).bad_blocks, 0);
	CU_ASSERT_EQUAL(block, superblock_slot_block(superblock_slot(o.disk->superblock.checkpoint - 1, 1)));
	disk_checkpoint(o.disk);
	one_let_pass(&o, NS_PER_S);
	CU_ASSERT_EQUAL(scrub(&o).bad_blocks, 0);
	sim_file_flip(o.medium, block, 1234);
	CU_ASSERT_EQUAL(scrub(&o).bad_blocks, 1);
	one_close(&o);
}

/* What lies below a page that is gone is one finding, and what lies beside it is verified. */
static void a_page_that_is_not_in_the_cache(void)
{
	for (unsigned level = 1; level <= 3; level++) {
		struct one_disk o;
		disk_with_everything(&o);
		CU_ASSERT_EQUAL(scrub(&o).bad_blocks, 0);
		uint64_t page = block_of(&o, FIRST_PAGE + level), data = block_of(&o, 10);
		one_close_disk(&o);
		sim_file_break(o.medium, page);
		one_open_disk(&o);
		CU_ASSERT_EQUAL(scrub(&o).bad_blocks, 1);
		if (level == 1) { /* another leaf's */
			one_close_disk(&o);
			sim_file_flip(o.medium, data + 64, 9);
			one_open_disk(&o);
			CU_ASSERT_EQUAL(scrub(&o).bad_blocks, 2);
		}
		one_close(&o);
	}
}

/* They have their place, and what is there is still the old content (seed 20020 of sim-disk). */
static void pages_that_a_checkpoint_is_writing(void)
{
	struct one_disk o;
	disk_with_everything(&o);
	struct sim_file_faults *faults = sim_file_faults(o.medium);
	for (uint64_t leaf = 3; leaf < 70; leaf++)
		CU_ASSERT_EQUAL_FATAL(one_write(&o, one_tree(&o, 1), leaf * PAGE_POINTERS + 100, 1, 2), 0);
	faults->slow_ns = NS_PER_S;
	faults->slow_ppm = 1000000;
	disk_checkpoint(o.disk);
	one_let_pass(&o, 10 * NS_PER_MS);
	faults->slow_ppm = 0;
	CU_ASSERT(o.disk->pages.n_writing > 10);
	CU_ASSERT_EQUAL(scrub(&o).bad_blocks, 0);
	CU_ASSERT_EQUAL(one_events(&o, "damage"), 0);
	one_close(&o);
}

static void one_is_due(void)
{
	struct one_disk o;
	disk_with_everything(&o);
	one_close_disk(&o);
	o.scrub_every_ns = EVERY_NS;
	one_open_disk(&o); /* never scrubbed yet */
	one_let_pass(&o, SCRUB_MAX_NS);
	uint64_t ended = status_of(&o).ended_wall_ns;
	CU_ASSERT(ended > 0 && status_of(&o).done_blocks > 0);
	one_close_disk(&o);
	one_open_disk(&o); /* it remembers */
	one_let_pass(&o, EVERY_NS - 2 * SCRUB_MAX_NS);
	CU_ASSERT_EQUAL(status_of(&o).started_wall_ns, 0);
	one_let_pass(&o, 4 * SCRUB_MAX_NS);
	CU_ASSERT(status_of(&o).started_wall_ns >= ended + EVERY_NS);
	one_close(&o);
}

/* The clock was wrong then: it does not wait until that time has come. */
static void one_that_ended_in_the_future(void)
{
	struct one_disk o;
	disk_with_everything(&o);
	uint64_t later = reactor_wall_ns(o.disk->reactor) + 100 * EVERY_NS;
	o.disk->scrubbed_wall_ns = later;
	one_close_disk(&o);
	o.scrub_every_ns = EVERY_NS;
	one_open_disk(&o);
	CU_ASSERT_EQUAL(o.disk->scrubbed_wall_ns, later);
	one_let_pass(&o, SCRUB_MAX_NS);
	uint64_t ended = status_of(&o).ended_wall_ns;
	CU_ASSERT(ended > 0);
	one_close_disk(&o);
	one_open_disk(&o);
	CU_ASSERT_EQUAL(o.disk->scrubbed_wall_ns, ended);
	one_close(&o);
}

/* Somebody waits for it: what had begun by itself, slowly, goes on as fast as was asked. */
static void one_that_is_asked_for(void)
{
	struct one_disk o;
	disk_with_everything(&o);
	one_close_disk(&o);
	o.scrub_every_ns = EVERY_NS;
	one_open_disk(&o);
	while (!status_of(&o).is_running)
		CU_ASSERT_FATAL(sim_step(o.sim));
	uint64_t started = sim_now_ns(o.sim);
	scrub(&o);
	CU_ASSERT(sim_now_ns(o.sim) - started < NS_PER_S);
	CU_ASSERT_EQUAL(disk_scrub_start(o.disk, 0, false), 0);
	CU_ASSERT_EQUAL(disk_scrub_start(o.disk, 0, false), -EBUSY);
	one_close(&o);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("a scrub of a disk", NULL, NULL);
	CU_add_test(suite, "all that is damaged is found", all_that_is_damaged_is_found);
	CU_add_test(suite, "a superblock that a crash left half written", a_superblock_that_a_crash_left_half_written);
	CU_add_test(suite, "a page that is not in the cache", a_page_that_is_not_in_the_cache);
	CU_add_test(suite, "pages that a checkpoint is writing", pages_that_a_checkpoint_is_writing);
	CU_add_test(suite, "one is due", one_is_due);
	CU_add_test(suite, "one that ended in the future", one_that_ended_in_the_future);
	CU_add_test(suite, "one that is asked for", one_that_is_asked_for);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
