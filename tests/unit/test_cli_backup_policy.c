/*
 * test_cli_backup_policy.c: which backups the rules keep; the index of chunks; the masks of blocks.
 */
#include "cli/backup/index.h"
#include "cli/backup/policy.h"
#include "cli/backup/source.h"

#include <CUnit/Basic.h>
#include <stdio.h>
#include <string.h>

#define N_MAX 16

/* Applies a policy to days and writes a letter for each: k kept, . not. */
static const char *kept(struct policy policy, const int64_t *days, size_t n)
{
	static char text[N_MAX + 1];
	struct policy_item items[N_MAX] = {{0}};
	for (size_t i = 0; i < n; i++)
		items[i].day = days[i];
	policy_apply(&policy, items, n);
	for (size_t i = 0; i < n; i++)
		text[i] = items[i].is_kept ? 'k' : '.';
	text[n] = '\0';
	return text;
}

static void test_rules(void)
{
	static const int64_t days[] = {4, 4, 5, 10, 11, 11, 11, 18}; /* Monday is 4, 11, 18 */
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_last = 1}, days, 8), ".......k");
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_last = 3}, days, 8), ".....kkk");
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_last = 100}, days, 8), "kkkkkkkk");
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_daily = 2}, days, 8), "......kk");
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_daily = 5}, days, 8), ".kkk..kk");
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_daily = 100}, days, 8), ".kkk..kk");
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_weekly = 2}, days, 8), "......kk");
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_weekly = 3}, days, 8), "...k..kk");
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_last = 2, .n_weekly = 3}, days, 8), "...k..kk");
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_daily = 1, .n_weekly = 1, .n_last = 1}, days, 1), "k");
	CU_ASSERT_STRING_EQUAL(kept((struct policy){.n_daily = 1}, days, 0), "");
}

static void test_days(void)
{
	int64_t day = 0;
	CU_ASSERT_TRUE(day_parse("1970-01-01T00:00:00Z", &day) && day == 0);
	CU_ASSERT_TRUE(day_parse("1970-03-01", &day) && day == 59);
	CU_ASSERT_TRUE(day_parse("2000-02-29T", &day) && day == 11016);
	CU_ASSERT_TRUE(day_parse("2000-03-01T", &day) && day == 11017);
	CU_ASSERT_TRUE(day_parse("2024-12-31", &day) && day == 20088);
	CU_ASSERT_TRUE(day_parse("2100-03-01", &day) && day == 47541);
	static const char *const wrong[] = {"",           "yesterday", "2024-13-01", "2024-00-10", "2024-1-1T00",
					    "24-01-01xx", "+024-01-01"};
	for (size_t i = 0; i < array_size(wrong); i++)
		CU_ASSERT_FALSE(day_parse(wrong[i], &day));
}

static struct chunk_id id_of(uint32_t n)
{
	struct chunk_id id = {{0}};
	/* all in one slot's row, to let them get into each other's way */
	memcpy(id.bytes + 8, &n, sizeof(n));
	id.bytes[0] = (uint8_t)(n % 3);
	return id;
}

static void test_the_index_finds_what_it_was_given(void)
{
	struct index *index = index_create();
	struct index_place place;
	for (uint32_t i = 0; i < 3000; i++) {
		struct chunk_id id = id_of(i);
		CU_ASSERT_FALSE(index_find(index, &id, &place));
		CU_ASSERT_TRUE(index_add(index, &id, (struct index_place){i, 2 * i, 7}));
		CU_ASSERT_FALSE(index_add(index, &id, (struct index_place){9, 9, 9}));
	}
	CU_ASSERT_EQUAL(index_n(index), 3000);
	for (uint32_t i = 0; i < 3000; i++) {
		struct chunk_id id = id_of(i);
		CU_ASSERT_TRUE(index_find(index, &id, &place) && place.pack == i && place.offset == 2 * i);
		CU_ASSERT_EQUAL(index_marked(index, &id), 0);
		CU_ASSERT_TRUE(index_mark(index, &id, (uint8_t)(i % 3)));
	}
	for (uint32_t i = 0; i < 3000; i++) {
		struct chunk_id id = id_of(i);
		CU_ASSERT_EQUAL(index_marked(index, &id), i % 3);
	}
	struct chunk_id other = id_of(3000), first = id_of(0);
	CU_ASSERT_FALSE(index_mark(index, &other, 1));
	CU_ASSERT_EQUAL(index_marked(index, &other), 0);
	index_move(index, &first, (struct index_place){77, 1, 2});
	CU_ASSERT_TRUE(index_find(index, &first, &place) && place.pack == 77);
	index_destroy(index);
}

static void test_masks_hold_every_block_that_is_touched(void)
{
	uint32_t mask[LEAF_PIECES];
	memset(mask, 0, sizeof(mask));
	masks_set(mask, LEAF_BYTES, LEAF_BYTES + 4095, LEAF_BYTES + 4097);
	CU_ASSERT_EQUAL(mask[0], 3);
	masks_set(mask, LEAF_BYTES, LEAF_BYTES + 31 * 4096, LEAF_BYTES + 65 * 4096 + 1);
	CU_ASSERT_EQUAL(mask[0], 3 | 1u << 31);
	CU_ASSERT_EQUAL(mask[1], UINT32_MAX);
	CU_ASSERT_EQUAL(mask[2], 3);
	CU_ASSERT_EQUAL(mask[3], 0);
	masks_set(mask, LEAF_BYTES, 2 * LEAF_BYTES - 1, 2 * LEAF_BYTES);
	CU_ASSERT_EQUAL(mask[LEAF_PIECES - 1], 1u << 31);
	memset(mask, 0, sizeof(mask));
	masks_set(mask, 0, 0, LEAF_BYTES);
	for (uint32_t i = 0; i < LEAF_PIECES; i++)
		CU_ASSERT_EQUAL(mask[i], UINT32_MAX);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli_backup_policy", NULL, NULL);
	CU_ADD_TEST(suite, test_rules);
	CU_ADD_TEST(suite, test_days);
	CU_ADD_TEST(suite, test_the_index_finds_what_it_was_given);
	CU_ADD_TEST(suite, test_masks_hold_every_block_that_is_touched);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
