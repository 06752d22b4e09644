/*
 * test_checksum.c: the published check values, and that a sum may be computed in parts.
 */
#include "daemon/core/checksum.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

static const char digits[] = "123456789";

static void check_values(void)
{
	CU_ASSERT_EQUAL(crc32c(0, digits, 9), 0xE3069283u);
	CU_ASSERT_EQUAL(crc64(0, digits, 9), 0x995DC9BBDF1939FAull);
	CU_ASSERT_EQUAL(crc32c(0, digits, 0), 0);
	CU_ASSERT_EQUAL(crc64(0, digits, 0), 0);
}

/* RFC 3720 B.4 */
static void iscsi_values(void)
{
	unsigned char bytes[32];

	memset(bytes, 0, sizeof bytes);
	CU_ASSERT_EQUAL(crc32c(0, bytes, sizeof bytes), 0x8A9136AAu);
	memset(bytes, 0xff, sizeof bytes);
	CU_ASSERT_EQUAL(crc32c(0, bytes, sizeof bytes), 0x62A8AB43u);
	for (unsigned i = 0; i < sizeof bytes; i++)
		bytes[i] = (unsigned char)i;
	CU_ASSERT_EQUAL(crc32c(0, bytes, sizeof bytes), 0x46DD794Eu);
}

/* Bit by bit, as the polynomial says. */
static uint32_t crc32c_slow(const unsigned char *data, size_t len_bytes)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < len_bytes; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
	}
	return ~crc;
}

static uint64_t crc64_slow(const unsigned char *data, size_t len_bytes)
{
	uint64_t crc = UINT64_MAX;

	for (size_t i = 0; i < len_bytes; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xC96C5795D7870F42ull : 0);
	}
	return ~crc;
}

static void all_lengths_and_parts(void)
{
	unsigned char data[4096 + 17];

	srand(1);
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (unsigned char)rand();
	for (size_t len = 1; len <= sizeof data; len = len * 3 / 2 + 1) {
		uint32_t crc = crc32c_slow(data, len);
		uint64_t long_crc = crc64_slow(data, len);
		size_t cut = (size_t)rand() % len;
		CU_ASSERT_EQUAL(crc32c(0, data, len), crc);
		CU_ASSERT_EQUAL(crc64(0, data, len), long_crc);
		CU_ASSERT_EQUAL(crc32c(crc32c(0, data, cut), data + cut, len - cut), crc);
		CU_ASSERT_EQUAL(crc64(crc64(0, data, cut), data + cut, len - cut), long_crc);
	}
}

static void one_byte_is_not_zero(void)
{
	unsigned char data[BLOCK_BYTES + 64] = {0};

	for (size_t len = 0; len <= sizeof data; len += 61)
		CU_ASSERT_TRUE(bytes_are_zero(data, len));
	CU_ASSERT_TRUE(bytes_are_zero(data, sizeof data));
	for (size_t i = 0; i < BLOCK_BYTES; i++) {
		data[i] = 0x10;
		CU_ASSERT_FALSE(bytes_are_zero(data, BLOCK_BYTES));
		data[i] = 0;
	}
	data[BLOCK_BYTES] = 1; /* just past the end */
	CU_ASSERT_TRUE(bytes_are_zero(data, BLOCK_BYTES));
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("checksum", NULL, NULL);
	CU_add_test(suite, "published check values", check_values);
	CU_add_test(suite, "the values of iSCSI's specification", iscsi_values);
	CU_add_test(suite, "any length, and in parts", all_lengths_and_parts);
	CU_add_test(suite, "a single byte is seen among zeros", one_byte_is_not_zero);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
