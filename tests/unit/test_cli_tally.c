/*
 * test_cli_tally.c: what was taken is what was put, whatever the order and the pieces; and nothing else is.
 */
#include "cli/tally.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

#define N_BLOCKS   600u /* three regions, the last one not full */
#define SIZE_BYTES (N_BLOCKS * TALLY_BLOCK_BYTES - 1000)

static uint8_t *data_make(void)
{
	uint8_t *data = malloc(SIZE_BYTES);
	uint32_t x = 1;
	for (size_t i = 0; i < SIZE_BYTES; i++) {
		x = x * 1664525 + 1013904223;
		data[i] = (uint8_t)(x >> 24);
	}
	return data;
}

static void take_all(struct tally *t, const uint8_t *data)
{
	tally_take(t, data, SIZE_BYTES, 0);
}

static void test_pieces_and_order_do_not_matter(void)
{
	struct tally t;
	uint64_t pos, end;
	uint8_t *data = data_make();
	tally_begin(&t, SIZE_BYTES);
	uint64_t half = 77 * TALLY_BLOCK_BYTES;
	tally_put(&t, data + half, SIZE_BYTES - half, half);
	CU_ASSERT_FALSE(tally_is_even(&t, &pos, &end));
	tally_put(&t, data, half, 0);
	CU_ASSERT_FALSE(tally_is_even(&t, &pos, &end));
	take_all(&t, data);
	CU_ASSERT_TRUE(tally_is_even(&t, &pos, &end));
	tally_end(&t);
	free(data);
}

static void test_zeros_count_as_a_hole(void)
{
	struct tally t;
	uint64_t pos, end;
	uint8_t *data = data_make();
	memset(data + TALLY_BLOCK_BYTES, 0, 9 * TALLY_BLOCK_BYTES);
	tally_begin(&t, SIZE_BYTES);
	tally_put(&t, data, SIZE_BYTES, 0);
	tally_take(&t, data, TALLY_BLOCK_BYTES, 0);
	tally_take(&t, data + 10 * TALLY_BLOCK_BYTES, SIZE_BYTES - 10 * TALLY_BLOCK_BYTES, 10 * TALLY_BLOCK_BYTES);
	CU_ASSERT_TRUE(tally_is_even(&t, &pos, &end));
	tally_end(&t);
	free(data);
}

static void test_any_bit_is_missed_and_its_region_told(void)
{
	uint64_t pos, end;
	uint8_t *data = data_make();
	for (size_t at = 0; at < SIZE_BYTES; at += 99991) {
		struct tally t;
		tally_begin(&t, SIZE_BYTES);
		tally_put(&t, data, SIZE_BYTES, 0);
		data[at] ^= 1;
		take_all(&t, data);
		data[at] ^= 1;
		CU_ASSERT_FALSE(tally_is_even(&t, &pos, &end));
		CU_ASSERT(pos <= at && at < end && end - pos == 1 << 20);
		tally_end(&t);
	}
	free(data);
}

/* Sums without the place would take these for even. */
static void test_blocks_that_changed_places_are_missed(void)
{
	struct tally t;
	uint64_t pos, end;
	uint8_t *data = data_make();
	uint8_t first[TALLY_BLOCK_BYTES];
	tally_begin(&t, SIZE_BYTES);
	tally_put(&t, data, SIZE_BYTES, 0);
	memcpy(first, data, sizeof(first));
	memcpy(data, data + TALLY_BLOCK_BYTES, sizeof(first));
	memcpy(data + TALLY_BLOCK_BYTES, first, sizeof(first));
	take_all(&t, data);
	CU_ASSERT_FALSE(tally_is_even(&t, &pos, &end));
	tally_end(&t);
	free(data);
}

static void test_data_where_a_hole_should_be_is_too_much(void)
{
	struct tally t;
	uint64_t pos, end;
	uint8_t *data = data_make();
	tally_begin(&t, SIZE_BYTES);
	tally_take(&t, data + 300 * TALLY_BLOCK_BYTES, TALLY_BLOCK_BYTES, 300 * TALLY_BLOCK_BYTES);
	CU_ASSERT_FALSE(tally_is_even(&t, &pos, &end));
	CU_ASSERT_EQUAL(pos, 1 << 20);
	tally_end(&t);
	free(data);
}

static void test_the_largest_volume_needs_little_memory(void)
{
	struct tally t;
	uint64_t pos, end, size = 64ull << 40;
	uint8_t block[TALLY_BLOCK_BYTES];
	memset(block, 7, sizeof(block));
	tally_begin(&t, size);
	CU_ASSERT(t.n_regions <= 1 << 16);
	tally_put(&t, block, sizeof(block), size - sizeof(block));
	CU_ASSERT_FALSE(tally_is_even(&t, &pos, &end));
	CU_ASSERT_EQUAL(end, size);
	tally_end(&t);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli_tally", NULL, NULL);
	CU_ADD_TEST(suite, test_pieces_and_order_do_not_matter);
	CU_ADD_TEST(suite, test_zeros_count_as_a_hole);
	CU_ADD_TEST(suite, test_any_bit_is_missed_and_its_region_told);
	CU_ADD_TEST(suite, test_blocks_that_changed_places_are_missed);
	CU_ADD_TEST(suite, test_data_where_a_hole_should_be_is_too_much);
	CU_ADD_TEST(suite, test_the_largest_volume_needs_little_memory);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
