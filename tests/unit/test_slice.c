/*
 * test_slice.c: scattered memory walked in every way of cutting it.
 */
#include "daemon/core/checksum.h"
#include "volumes/head/slice.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 4u
#define BYTES  (BLOCKS * BLOCK_BYTES)

static uint8_t memory[BYTES], copy[BYTES];

static void memory_fill(void)
{
	for (uint32_t i = 0; i < BYTES; i++)
		memory[i] = (uint8_t)(i * 7 + i / 251);
	memset(memory + 2 * BLOCK_BYTES, 0, BLOCK_BYTES);
}

/* Cuts the memory at random sectors, with an empty iovec now and then. */
static uint32_t memory_cut(struct iovec *iov, unsigned *seed)
{
	uint32_t n = 0, at = 0;
	while (at < BYTES) {
		uint32_t sectors = (uint32_t)rand_r(seed) % 6, len = sectors * SECTOR_BYTES;
		if (len > BYTES - at)
			len = BYTES - at;
		iov[n++] = (struct iovec){memory + at, len};
		at += len;
	}
	return n;
}

static void sums_do_not_depend_on_the_cuts(void)
{
	struct iovec iov[BYTES / SECTOR_BYTES * 8], whole = {memory, BYTES};
	uint32_t crcs[BLOCKS], again[BLOCKS];
	unsigned seed = 1;
	memory_fill();
	CU_ASSERT_EQUAL(blocks_sum(&whole, 1, BLOCKS, crcs), 1u << 2);
	for (uint32_t i = 0; i < BLOCKS; i++)
		CU_ASSERT_EQUAL(crcs[i], crc32c(0, memory + i * BLOCK_BYTES, BLOCK_BYTES));
	for (int round = 0; round < 200; round++) {
		uint32_t n = memory_cut(iov, &seed);
		CU_ASSERT_EQUAL(blocks_sum(iov, n, BLOCKS, again), 1u << 2);
		CU_ASSERT_EQUAL(memcmp(crcs, again, sizeof(crcs)), 0);
	}
}

static void pieces_are_taken_and_copied_in_order(void)
{
	struct iovec iov[BYTES / SECTOR_BYTES * 8], out[BYTES / SECTOR_BYTES * 8];
	unsigned seed = 2;
	memory_fill();
	for (int round = 0; round < 200; round++) {
		struct slice s = {.iov = iov, .n_iov = memory_cut(iov, &seed)};
		uint32_t skip = (uint32_t)rand_r(&seed) % 5000, len = (uint32_t)rand_r(&seed) % 9000 + 1;
		slice_skip(&s, skip);
		struct slice again = s;
		uint64_t at = skip;
		uint32_t n = slice_take(&s, len, out, array_size(out));
		for (uint32_t i = 0; i < n; at += out[i++].iov_len)
			CU_ASSERT_PTR_EQUAL(out[i].iov_base, memory + at);
		CU_ASSERT_EQUAL(at, skip + len);
		slice_copy_to(&again, copy, len);
		CU_ASSERT_EQUAL(memcmp(copy, memory + skip, len), 0);
	}
}

static void zeros_are_seen_and_made(void)
{
	struct iovec iov[2] = {{memory, 3000}, {memory + 3000, BYTES - 3000}};
	struct slice s = {.iov = iov, .n_iov = 2};
	memory_fill();
	CU_ASSERT_FALSE(slice_is_zero(s, BLOCK_BYTES));
	slice_fill_from(&s, NULL, BLOCK_BYTES);
	s = (struct slice){.iov = iov, .n_iov = 2};
	CU_ASSERT_TRUE(slice_is_zero(s, BLOCK_BYTES));
	CU_ASSERT_FALSE(slice_is_zero(s, BLOCK_BYTES + 2));
	memset(copy, 9, sizeof(copy));
	slice_fill_from(&s, copy, BLOCK_BYTES);
	CU_ASSERT_EQUAL(memcmp(memory, copy, BLOCK_BYTES), 0);
	CU_ASSERT_EQUAL(memory[BLOCK_BYTES + 1], (uint8_t)((BLOCK_BYTES + 1) * 7 + (BLOCK_BYTES + 1) / 251));
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("slice", NULL, NULL);
	CU_add_test(suite, "sums do not depend on the cuts", sums_do_not_depend_on_the_cuts);
	CU_add_test(suite, "pieces are taken and copied in order", pieces_are_taken_and_copied_in_order);
	CU_add_test(suite, "zeros are seen and made", zeros_are_seen_and_made);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
