/*
 * test_gaps.c: ranges of blocks that cannot be filled, against a bit for each block.
 */
#include "volumes/head/gaps.h"

#include <CUnit/Basic.h>
#include <string.h>

#define BLOCKS 96u

static struct gaps gaps;
static bool model[BLOCKS];

static void expect_model(void)
{
	bool told[BLOCKS] = {0};
	uint64_t n = 0;
	for (uint32_t i = 0; i < gaps.n; i++) {
		const struct gap *g = &gaps.all[i];
		CU_ASSERT(g->first < g->end && g->end <= BLOCKS);
		CU_ASSERT(i == 0 || g->first > gaps.all[i - 1].end); /* else they were one */
		memset(told + g->first, true, g->end - g->first);
		n += g->end - g->first;
	}
	CU_ASSERT_EQUAL(memcmp(told, model, sizeof(told)), 0);
	CU_ASSERT_EQUAL(gaps.n_blocks, n);
}

static void every_range_after_every_other(void)
{
	uint64_t random = 7;
	memset(&gaps, 0, sizeof(gaps));
	memset(model, 0, sizeof(model));
	for (uint32_t step = 0; step < 20000; step++) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		uint64_t first = (random >> 33) % BLOCKS, n = 1 + (random >> 45) % 12;
		uint64_t end = min_u64(first + n, BLOCKS);
		bool is_added = random >> 60 & 1;
		if (is_added)
			gaps_add(&gaps, first, end);
		else
			gaps_remove(&gaps, first, end);
		memset(model + first, is_added, end - first);
		expect_model();
	}
}

/* What is added then is told with its nearer neighbour; nothing that was added is missing. */
static void when_there_are_too_many(void)
{
	memset(&gaps, 0, sizeof(gaps));
	for (uint64_t i = 0; i < GAPS_MAX; i++)
		gaps_add(&gaps, 100 * (i + 1), 100 * (i + 1) + 1);
	CU_ASSERT_EQUAL(gaps.n, GAPS_MAX);
	CU_ASSERT_EQUAL(gaps.n_blocks, GAPS_MAX);
	gaps_add(&gaps, 110, 111); /* nearer to what is before */
	CU_ASSERT_EQUAL(gaps.all[0].end, 111);
	gaps_add(&gaps, 190, 191); /* and to what is behind */
	CU_ASSERT_EQUAL(gaps.all[1].first, 190);
	gaps_add(&gaps, 5, 6);
	CU_ASSERT_EQUAL(gaps.all[0].first, 5);
	gaps_add(&gaps, 100 * GAPS_MAX + 50, 100 * GAPS_MAX + 51);
	CU_ASSERT_EQUAL(gaps.all[GAPS_MAX - 1].end, 100 * GAPS_MAX + 51);
	gaps_remove(&gaps, 50, 51); /* it would be cut in two: told whole */
	CU_ASSERT_EQUAL(gaps.n, GAPS_MAX);
	CU_ASSERT_EQUAL(gaps.n_blocks, 106 + 11 + (GAPS_MAX - 3) + 51);
	gaps_remove(&gaps, 0, 200 * GAPS_MAX);
	CU_ASSERT_EQUAL(gaps.n, 0);
	CU_ASSERT_EQUAL(gaps.n_blocks, 0);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("gaps", NULL, NULL);
	CU_add_test(suite, "every range after every other", every_range_after_every_other);
	CU_add_test(suite, "when there are too many", when_there_are_too_many);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
