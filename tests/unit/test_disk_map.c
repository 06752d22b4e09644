/*
 * test_disk_map.c: where a tree's data lies, and what it has changed since an epoch: in few steps, whether its pages are
 * dirty or on the disk, and whatever it holds.
 */
#include "tests/unit/one_disk.h"

#define N_LEAVES 1000u /* under several pages of the second level and one of the third */
#define END      (1ull << 3 * PAGE_SHIFT)
#define STEPS    16u /* a few for each level of the tree */

static uint64_t place(uint32_t i)
{
	return (uint64_t)i * 7 * PAGE_POINTERS;
}

static void fill(struct one_disk *o, struct disk_tree *t)
{
	for (uint32_t i = 0; i < N_LEAVES; i++)
		CU_ASSERT_EQUAL_FATAL(one_write(o, t, place(i), 1, 1), 0);
	CU_ASSERT_EQUAL_FATAL(
	    one_call(o, (struct disk_io){.op = DISK_FORK, .tree = t, .tree_id = 2, .epoch = o->epoch}), 0);
}

static bool is_checkpointed(void *context)
{
	const struct one_disk *o = context;
	return checkpoint_is_idle(&o->disk->checkpoint);
}

static void checkpoint(struct one_disk *o)
{
	disk_checkpoint(o->disk);
	CU_ASSERT_EQUAL_FATAL(sim_run(o->sim, is_checkpointed, o, ONE_STEPS_MAX), SIM_DONE);
}

/* How many pieces a walk over the tree sees; the blocks that have changed go to *n_changed. All pages are cached. */
static uint32_t walk(struct disk_tree *t, uint64_t since, uint64_t *n_changed)
{
	uint32_t n = 0;
	struct waiter unused = {0};
	*n_changed = 0;
	for (uint64_t at = 0; at < END; n++) {
		struct disk_extent piece;
		CU_ASSERT_EQUAL_FATAL(tree_look(t, at, END, since, &piece, &unused), 0);
		CU_ASSERT_EQUAL(piece.first, at);
		*n_changed += piece.epoch >= since ? piece.n_blocks : 0;
		at += piece.n_blocks;
	}
	return n;
}

static void old_pages_are_stepped_over(void)
{
	for (unsigned is_written = 0; is_written < 2; is_written++) {
		struct one_disk o;
		uint64_t n_changed;
		one_open(&o, GIB, 64 * MIB);
		struct disk_tree *t = one_create(&o, 1);
		fill(&o, t);
		uint64_t since = o.epoch + 1;
		if (is_written)
			checkpoint(&o);
		CU_ASSERT(walk(t, since, &n_changed) <= STEPS);
		CU_ASSERT_EQUAL(n_changed, 0);
		CU_ASSERT_EQUAL(one_write(&o, t, place(500) + 3, 1, 2), 0);
		CU_ASSERT_EQUAL(one_trim(&o, t, place(3), 1), 0);
		CU_ASSERT(walk(t, since, &n_changed) <= 2 * STEPS);
		CU_ASSERT_EQUAL(n_changed, 2);
		CU_ASSERT_EQUAL(one_trim(&o, t, place(5), PAGE_POINTERS), 0); /* the whole leaf goes */
		checkpoint(&o);
		CU_ASSERT(walk(t, since, &n_changed) <= 3 * STEPS);
		CU_ASSERT_EQUAL(n_changed, 2 + PAGE_POINTERS);
		CU_ASSERT(walk(one_tree(&o, 2), since, &n_changed) <= STEPS); /* the snapshot has changed nothing */
		CU_ASSERT_EQUAL(n_changed, 0);
		one_close(&o);
	}
}

/* What is dirty because of a change is not dirty for the next one. */
static void each_change_is_told_since_its_epoch(void)
{
	struct one_disk o;
	uint64_t n_changed;
	one_open(&o, GIB, 64 * MIB);
	struct disk_tree *t = one_create(&o, 1);
	fill(&o, t);
	uint64_t since = o.epoch + 1;
	for (uint32_t i = 0; i < 50; i++)
		CU_ASSERT_EQUAL(one_write(&o, t, place(i), 1, 3), 0);
	for (uint32_t i = 0; i <= 50; i++) {
		walk(t, since + i, &n_changed);
		CU_ASSERT_EQUAL(n_changed, 50 - i);
	}
	one_close(&o);
}

static void an_answer_ends_where_its_room_does(void)
{
	struct one_disk o;
	struct disk_extent e[3] = {0};
	one_open(&o, GIB, 64 * MIB);
	struct disk_tree *t = one_create(&o, 1);
	for (uint32_t i = 0; i < 6; i++)
		CU_ASSERT_EQUAL_FATAL(one_write(&o, t, i * 600ull, 64, 1), 0);
	struct disk_io io = {.op = DISK_MAP, .tree = t, .n_blocks = END, .since = 1, .extents = e, .extents_max = 3};
	CU_ASSERT_EQUAL(one_call(&o, io), 0);
	CU_ASSERT_EQUAL_FATAL(o.io.n_extents, 3);
	for (uint32_t i = 0; i < 3; i++)
		CU_ASSERT(e[i].first == i * 600ull && e[i].n_blocks == 64 && e[i].is_data);
	io.first = 1200;
	io.n_blocks = END - 1200;
	io.extents_max = 1;
	CU_ASSERT_EQUAL(one_call(&o, io), 0);
	CU_ASSERT(o.io.n_extents == 1 && e[0].first == 1200);
	io.first = 3064; /* behind the last */
	CU_ASSERT_EQUAL(one_call(&o, io), 0);
	CU_ASSERT_EQUAL(o.io.n_extents, 0);
	one_close(&o);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("map", NULL, NULL);
	CU_add_test(suite, "old pages are stepped over", old_pages_are_stepped_over);
	CU_add_test(suite, "each change is told since its epoch", each_change_is_told_since_its_epoch);
	CU_add_test(suite, "an answer ends where its room does", an_answer_ends_where_its_room_does);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
