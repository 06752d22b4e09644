/*
 * test_cli_backup_lost.c: what a backup has lost, found in any order, against a bit for each block; and how it is told.
 */
#include "cli/backup/lost.h"

#include <CUnit/Basic.h>
#include <string.h>

#define BLOCKS 96u

static void expect_model(const struct lost *l, const bool *model)
{
	bool told[BLOCKS] = {0};
	uint64_t n_bytes = 0;
	for (uint32_t i = 0; i < l->n; i++) {
		const struct lost_range *r = &l->ranges[i];
		CU_ASSERT(r->begin < r->end && r->end <= BLOCKS * BLOCK_BYTES);
		CU_ASSERT(i == 0 || r->begin > l->ranges[i - 1].end); /* else they were one */
		memset(told + r->begin / BLOCK_BYTES, true, (r->end - r->begin) / BLOCK_BYTES);
		n_bytes += r->end - r->begin;
	}
	CU_ASSERT_EQUAL(memcmp(told, model, sizeof(told)), 0);
	CU_ASSERT_EQUAL(l->n_bytes, n_bytes);
}

static void every_range_after_every_other(void)
{
	uint64_t random = 7;
	for (uint32_t round = 0; round < 300; round++) {
		struct lost lost = {0};
		bool model[BLOCKS] = {0};
		for (uint32_t step = 0; step < 40; step++) {
			random = random * 6364136223846793005ull + 1442695040888963407ull;
			uint64_t first = (random >> 33) % BLOCKS, n = (random >> 45) % 6;
			n = n < BLOCKS - first ? n : BLOCKS - first;
			lost_add(&lost, first * BLOCK_BYTES, (first + n) * BLOCK_BYTES);
			memset(model + first, true, n);
			expect_model(&lost, model);
		}
		lost_fini(&lost);
		CU_ASSERT(lost.n == 0 && lost.n_bytes == 0);
	}
}

static void what_is_behind_the_end_is_nothing(void)
{
	struct lost lost = {0};
	struct fetch fetch = {.n_parts = 3};
	fetch.parts[0] = (struct fetch_part){.block = 0, .n_blocks = 2, .error = -EBADMSG};
	fetch.parts[1] = (struct fetch_part){.block = 2, .n_blocks = 2};
	fetch.parts[2] = (struct fetch_part){.block = 4, .n_blocks = 8, .error = -ENOENT};
	lost_add_fetch(&lost, &fetch, 10 * BLOCK_BYTES, 15 * BLOCK_BYTES + 512);
	CU_ASSERT_EQUAL(lost.n, 2);
	CU_ASSERT_EQUAL(lost.n_bytes, 3 * BLOCK_BYTES + 512);
	lost_fini(&lost);
	lost_add_fetch(&lost, &fetch, 20 * BLOCK_BYTES, 15 * BLOCK_BYTES);
	CU_ASSERT_EQUAL(lost.n, 0);
}

static void expect_text(const struct lost *l, const char *wanted)
{
	char *text = lost_text(l);
	CU_ASSERT_STRING_EQUAL(text, wanted);
	free(text);
}

static void four_ranges_are_named(void)
{
	struct lost lost = {0};
	lost_add(&lost, 8192, 12288);
	expect_text(&lost, "4096 bytes: 8192+4096");
	for (uint64_t i = 2; i <= 4; i++)
		lost_add(&lost, i << 20, (i << 20) + 512);
	expect_text(&lost, "5632 bytes: 8192+4096, 2097152+512, 3145728+512, 4194304+512");
	lost_add(&lost, 0, 4096);
	expect_text(&lost, "9728 bytes: 0+4096, 8192+4096, 2097152+512, 3145728+512 and 1 more");
	json_t *all = lost_json(&lost);
	CU_ASSERT_EQUAL(json_array_size(all), 5);
	json_decref(all);
	lost_fini(&lost);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli_backup_lost", NULL, NULL);
	CU_ADD_TEST(suite, every_range_after_every_other);
	CU_ADD_TEST(suite, what_is_behind_the_end_is_nothing);
	CU_ADD_TEST(suite, four_ranges_are_named);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
