/*
 * test_rollback.c: a rollback does something when something was done since, and only then; more snapshots and rollbacks than
 * there can be are refused. What it brings back: test_snapshots.c.
 */
#include "tests/unit/history_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* true: it was done; false: nothing was to be done. */
static bool rolls_back(const char *snapshot)
{
	struct set_command c = {.kind = SET_SNAPSHOT_ROLLBACK, .n_targets = 1};
	uint64_t live_tree = set_volume_find(w.set, "vm1")->facts.live_tree;
	text_print(c.targets[0].volume, sizeof(c.targets[0].volume), "%s", "vm1");
	text_print(c.targets[0].snapshot, sizeof(c.targets[0].snapshot), "%s", snapshot);
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_PTR_NULL(world_head(&w, "vm1"));
	CU_ASSERT_EQUAL(set_volume_find(w.set, "vm1")->facts.live_tree == live_tree, c.is_unchanged);
	return !c.is_unchanged;
}

/* Between two rollbacks to `b`, which is the last snapshot; at the end its content is there again. */
static void change_and_roll_back(void (*change)(struct volume *v))
{
	CU_ASSERT_EQUAL(world_attach(&w, "vm1"), 0);
	change(world_head(&w, "vm1"));
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_TRUE(rolls_back("b"));
	CU_ASSERT_FALSE(rolls_back("b"));
	CU_ASSERT_EQUAL(world_attach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(get(world_head(&w, "vm1"), 0), 1);
	CU_ASSERT_EQUAL(get(world_head(&w, "vm1"), GIB / BLOCK), 2);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
}

static void change_last(struct volume *v)
{
	put(v, volume_size_bytes(v) / BLOCK - 1, 7);
}

static void change_to_the_same(struct volume *v)
{
	put(v, 0, 1);
}

static void change_by_trimming(struct volume *v)
{
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, GIB, BLOCK, 0), 0);
}

static void change_size(struct volume *v)
{
	struct set_command c = {.kind = SET_VOLUME_RESIZE, .object = "vm1", .size_bytes = 3 * GIB};
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
}

static void what_changed_as_a_whole_is_rolled_back(void)
{
	open_world(18, 1);
	struct volume *v = world_volume(&w, "vm1", BLOCK);
	put(v, 0, 1);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	put(v, 0, 2);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_TRUE(rolls_back("a"));
	CU_ASSERT_FALSE(rolls_back("a"));
	close_world();
}

static void a_repeated_rollback_changes_nothing(void)
{
	open_world(17, 2);
	struct volume *v = world_volume(&w, "vm1", 2 * GIB);
	put(v, 0, 1);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	put(v, GIB / BLOCK, 2);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@b"), 0);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@c"), 0);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_FALSE(rolls_back("b")); /* it never was anything else */
	change_and_roll_back(change_last);
	change_and_roll_back(change_to_the_same);
	change_and_roll_back(change_by_trimming);
	change_and_roll_back(change_size);
	CU_ASSERT_FALSE(rolls_back("c")); /* nothing was written between these two */
	CU_ASSERT_TRUE(rolls_back("a"));
	world_crash(&w, SIM_POWER_LOSS);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_FALSE(rolls_back("a")); /* its answer was lost, say */
	CU_ASSERT_TRUE(rolls_back("c"));
	CU_ASSERT_EQUAL(world_events(&w, "volume-rolled-back"), 6);
	close_world();
}

static void more_than_there_can_be_are_refused(void)
{
	open_world(21, 1);
	struct volume *v = world_volume(&w, "vm1", GIB);
	struct set_volume *entry = set_volume_find(w.set, "vm1");
	struct volume_facts *f = &entry->facts;
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	put(v, 0, 1);
	entry->n_snapshots = SNAPSHOTS_MAX;
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@b"), -EMFILE);
	CU_ASSERT_PTR_NOT_NULL(strstr(w.why, "delete some"));
	entry->n_snapshots = 1;
	f->trees = realloc(f->trees, LINES_MAX * sizeof(*f->trees));
	CU_ASSERT_PTR_NOT_NULL_FATAL(f->trees);
	for (; f->n_trees < LINES_MAX; f->n_trees++)
		f->trees[f->n_trees] =
		    (struct tree_facts){.id = 1000 + f->n_trees, .parent = 1, .epoch = 1, .state = TREE_IS_DELETED};
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_rollback(&w, "vm1@a"), -EMFILE);
	CU_ASSERT_PTR_NOT_NULL(strstr(w.why, "rollbacks"));
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@c"), 0);
	close_world();
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("rollback", NULL, NULL);
	CU_add_test(suite, "a repeated rollback", a_repeated_rollback_changes_nothing);
	CU_add_test(suite, "a rollback of all there is", what_changed_as_a_whole_is_rolled_back);
	CU_add_test(suite, "more than there can be", more_than_there_can_be_are_refused);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
