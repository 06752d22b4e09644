/*
 * test_history.c: lineages, what two points have in common, and which ended lines a record keeps.
 */
#include "volumes/head/history.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* line 1; 2 from (1, 5); 3 from (1, 9); 4 from (2, 12) */
static struct volume_facts facts_make(uint64_t uuid)
{
	static const struct tree_facts trees[] = {{.id = 1, .state = TREE_IS_DELETED},
						  {.id = 2, .parent = 1, .epoch = 5, .state = TREE_IS_DELETED},
						  {.id = 3, .parent = 1, .epoch = 9, .state = TREE_IS_DELETED},
						  {.id = 4, .parent = 2, .epoch = 12, .state = TREE_IS_LIVE}};
	struct volume_facts f = {.uuid = uuid_make(1, uuid), .live_tree = 4, .next_tree = 5, .n_trees = 4};
	f.trees = calloc(4, sizeof(trees[0]));
	memcpy(f.trees, trees, sizeof(trees));
	return f;
}

static struct common common_of(const struct volume_facts *a, uint64_t line_a, uint64_t epoch_a,
			       const struct volume_facts *b, uint64_t line_b, uint64_t epoch_b)
{
	struct lineage x, y;
	lineage_of(a, line_a, epoch_a, &x);
	lineage_of(b, line_b, epoch_b, &y);
	return lineage_common(&x, &y);
}

static void points_of_one_line(void)
{
	struct volume_facts f = facts_make(1);
	struct common c = common_of(&f, 1, 9, &f, 1, 5);
	CU_ASSERT_EQUAL(c.epoch, 5);
	CU_ASSERT_TRUE(c.is_ancestor_of_a && !c.is_ancestor_of_b);
	c = common_of(&f, 1, 5, &f, 1, 9);
	CU_ASSERT_TRUE(c.epoch == 5 && !c.is_ancestor_of_a && c.is_ancestor_of_b);
	c = common_of(&f, 1, 5, &f, 1, 5);
	CU_ASSERT_TRUE(c.epoch == 5 && c.is_ancestor_of_a && c.is_ancestor_of_b);
	volume_facts_clear(&f);
}

static void points_of_lines_that_parted(void)
{
	struct volume_facts f = facts_make(1);
	struct common c = common_of(&f, 4, EPOCH_MAX, &f, 3, 20); /* (4) (2, 12) (1, 5); (3, 20) (1, 9) */
	CU_ASSERT_TRUE(c.epoch == 5 && !c.is_ancestor_of_a && !c.is_ancestor_of_b);
	c = common_of(&f, 4, EPOCH_MAX, &f, 2, 14); /* line 2 went on after line 4 had left it */
	CU_ASSERT_TRUE(c.epoch == 12 && !c.is_ancestor_of_a);
	c = common_of(&f, 4, EPOCH_MAX, &f, 2, 12);
	CU_ASSERT_TRUE(c.epoch == 12 && c.is_ancestor_of_a);
	c = common_of(&f, 4, EPOCH_MAX, &f, 1, 4);
	CU_ASSERT_TRUE(c.epoch == 4 && c.is_ancestor_of_a);
	c = common_of(&f, 4, EPOCH_MAX, &f, 1, 7); /* written between 5 and 7: not what line 4 comes from */
	CU_ASSERT_TRUE(c.epoch == 5 && !c.is_ancestor_of_a);
	volume_facts_clear(&f);
}

static void clones_go_on_in_another_volume(void)
{
	struct volume_facts f = facts_make(1),
			    g = {.uuid = uuid_make(1, 2), .live_tree = 1, .next_tree = 2, .n_trees = 1};
	struct lineage l;
	g.trees = calloc(1, sizeof(*g.trees));
	g.trees[0] = (struct tree_facts){.id = 1, .state = TREE_IS_LIVE};
	lineage_of(&f, 2, 12, &l);
	CU_ASSERT_EQUAL(l.n, 2);
	memcpy(g.ancestors, l.points, l.n * sizeof(l.points[0]));
	g.n_ancestors = l.n;
	struct common c = common_of(&g, 1, EPOCH_MAX, &f, 4, EPOCH_MAX);
	CU_ASSERT_TRUE(c.epoch == 12 && !c.is_ancestor_of_a);
	c = common_of(&g, 1, EPOCH_MAX, &f, 2, 12);
	CU_ASSERT_TRUE(c.epoch == 12 && c.is_ancestor_of_a);
	c = common_of(&g, 1, EPOCH_MAX, &f, 3, 10);
	CU_ASSERT_TRUE(c.epoch == 5 && !c.is_ancestor_of_a);
	struct volume_facts other = facts_make(3);
	c = common_of(&g, 1, EPOCH_MAX, &other, 1, 9); /* strangers with the same numbers */
	CU_ASSERT_TRUE(c.epoch == 0 && !c.is_ancestor_of_a && !c.is_ancestor_of_b);
	volume_facts_clear(&f);
	volume_facts_clear(&g);
	volume_facts_clear(&other);
}

static void lines_that_nothing_needs_go(void)
{
	struct volume_facts f = facts_make(1);
	bool used[LINES_MAX] = {false, false, true, false};
	history_prune(&f, used); /* line 2 has one child; 1 has two; 3 has a snapshot */
	CU_ASSERT_EQUAL_FATAL(f.n_trees, 3);
	CU_ASSERT_TRUE(f.trees[0].id == 1 && f.trees[1].id == 3 && f.trees[2].id == 4);
	CU_ASSERT_TRUE(f.trees[2].parent == 1 && f.trees[2].epoch == 5);
	bool none[LINES_MAX] = {false};
	history_prune(&f, none);
	CU_ASSERT_EQUAL(f.n_trees, 1);
	CU_ASSERT_TRUE(f.trees[0].id == 4 && f.trees[0].parent == 0);
	volume_facts_clear(&f);
}

static void a_clones_first_line_stays(void)
{
	struct volume_facts f = facts_make(1);
	bool none[LINES_MAX] = {false};
	f.n_ancestors = 1;
	f.ancestors[0] = (struct ancestor){.volume = uuid_make(1, 9), .tree = 7, .epoch = 3};
	history_prune(&f, none);
	CU_ASSERT_EQUAL_FATAL(f.n_trees, 2);
	struct common c = common_of(&f, 4, EPOCH_MAX, &f, 1, 5);
	CU_ASSERT_TRUE(c.epoch == 5 && c.is_ancestor_of_a);
	volume_facts_clear(&f);
}

static void a_rollback_ends_a_line(void)
{
	struct volume_facts f = facts_make(1);
	struct snapshot_facts to = {.tree = 9, .branch = 3, .epoch = 10, .size_bytes = GIB};
	CU_ASSERT_EQUAL(history_roll_back(&f, 11, &to), 0);
	CU_ASSERT_TRUE(f.live_tree == 11 && f.size_bytes == GIB && f.n_trees == 5);
	CU_ASSERT_TRUE(f.trees[3].state == TREE_IS_DELETED && f.trees[4].state == TREE_IS_LIVE);
	struct common c = common_of(&f, 11, EPOCH_MAX, &f, 3, 10);
	CU_ASSERT_TRUE(c.epoch == 10 && c.is_ancestor_of_a);
	volume_facts_clear(&f);
}

static void facts_are_read_as_written(void)
{
	struct snapshot_facts s = {.tree = 12,
				   .branch = 3,
				   .epoch = 1000,
				   .size_bytes = 4096,
				   .created_ns = 77,
				   .is_scheduled = true},
			      back;
	struct uuid volume;
	char why[WHY_BYTES];
	text_print(s.name, sizeof(s.name), "%s", "daily-1");
	text_print(s.attached_nbd, sizeof(s.attached_nbd), "%s", "n1");
	text_print(s.attached_vhost, sizeof(s.attached_vhost), "%s", "n2");
	s.vhost_queues = 7;
	char *text = snapshot_to_json(&s);
	static const char key[] = "00000000-0000-0001-0000-000000000002/12";
	CU_ASSERT_EQUAL(snapshot_from_json(key, text, &volume, &back, why), 0);
	CU_ASSERT_EQUAL(memcmp(&s, &back, sizeof(s)), 0);
	CU_ASSERT_EQUAL(snapshot_from_json("no uuid/12", text, &volume, &back, why), -EINVAL);
	CU_ASSERT_EQUAL(snapshot_from_json("00000000-0000-0001-0000-000000000002/x", text, &volume, &back, why),
			-EINVAL);
	CU_ASSERT_EQUAL(snapshot_from_json("00000000-0000-0001-0000-000000000002", text, &volume, &back, why), -EINVAL);
	CU_ASSERT_EQUAL(snapshot_from_json(key, "{\"name\": \"a\"}", &volume, &back, why), -EINVAL);
	/* as it was written when a snapshot could not be attached over vhost-user */
	CU_ASSERT_EQUAL(snapshot_from_json(key,
					   "{\"name\": \"a\", \"branch\": 3, \"epoch\": 9, \"size_bytes\": 4096, "
					   "\"created_ns\": 1, \"state\": \"ok\", \"scheduled\": false, "
					   "\"attached_nbd\": \"n1\"}",
					   &volume, &back, why),
			0);
	CU_ASSERT_STRING_EQUAL(back.attached_nbd, "n1");
	CU_ASSERT_STRING_EQUAL(back.attached_vhost, "");
	free(text);
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("history", NULL, NULL);
	CU_add_test(suite, "points of one line", points_of_one_line);
	CU_add_test(suite, "points of lines that parted", points_of_lines_that_parted);
	CU_add_test(suite, "clones go on in another volume", clones_go_on_in_another_volume);
	CU_add_test(suite, "lines that nothing needs go", lines_that_nothing_needs_go);
	CU_add_test(suite, "a clone's first line stays", a_clones_first_line_stays);
	CU_add_test(suite, "a rollback ends a line", a_rollback_ends_a_line);
	CU_add_test(suite, "facts are read as written", facts_are_read_as_written);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
