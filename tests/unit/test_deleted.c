/*
 * test_deleted.c: deletions may be repeated (P6): across restarts, and a bounded number of deletions back.
 */
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <string.h>

/* What was deleted is known across restarts and crashes, and so many deletions back. */
static void deletions_may_be_repeated(void)
{
	struct head_world w;
	world_open(&w, 14);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct set_command c = order(SET_VOLUME_DELETE, "vm1");
	CU_ASSERT_EQUAL(world_command(&w, &c), -ENOENT); /* never was */
	CU_ASSERT_EQUAL(world_create(&w, "vm1", GIB), 0);
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	world_crash(&w, SIM_KILL);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(world_create(&w, "vm1", GIB), 0);
	CU_ASSERT_EQUAL(world_command(&w, &c), 0); /* another one: it is deleted, not taken for the first */
	CU_ASSERT_PTR_NULL(set_volume_find(w.set, "vm1"));
	for (uint32_t i = 0; i < DELETED_MAX; i++) {
		struct set_command pool = order(SET_POOL_CREATE, "p");
		CU_ASSERT_EQUAL(world_command(&w, &c), 0);
		CU_ASSERT_EQUAL(world_command(&w, &pool), 0);
		pool = order(SET_POOL_DELETE, "p");
		CU_ASSERT_EQUAL(world_command(&w, &pool), 0);
	}
	CU_ASSERT_EQUAL(w.set->deleted.n, DELETED_MAX);
	CU_ASSERT_EQUAL(world_command(&w, &c), -ENOENT);
	world_close(&w);
}

static void damage_to_what_was_deleted_is_refused(void)
{
	static const char *const bad[] = {"",
					  "[]",
					  "{\"deleted\": 1}",
					  "{\"deleted\": [[\"volume\"]]}",
					  "{\"deleted\": [[\"a kind that is too long\", \"x\"]]}",
					  "{\"deleted\": [[\"volume\", 1]]}",
					  "{\"deleted\": [[\"disk\", \"a\", \"b\", \"c\", \"d\"]]}"};
	struct deleted_list l;
	char why[WHY_BYTES];
	for (size_t i = 0; i < array_size(bad); i++)
		CU_ASSERT_EQUAL(deleted_from_json(bad[i], &l, why), -EINVAL);
	CU_ASSERT_EQUAL(deleted_from_json("{\"deleted\": [[\"disk\", \"a\", \"b\", \"c\"]]}", &l, why), 0);
	CU_ASSERT_EQUAL(l.n, 1);
	CU_ASSERT_STRING_EQUAL(l.all[0].names[2], "c");
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("deleted", NULL, NULL);
	CU_add_test(suite, "deletions may be repeated", deletions_may_be_repeated);
	CU_add_test(suite, "damage to what was deleted is refused", damage_to_what_was_deleted_is_refused);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
