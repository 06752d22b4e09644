/*
 * test_cli_size.c: sizes and numbers as people write them, and everything that is none.
 */
#include "cli/size.h"

#include <CUnit/Basic.h>
#include <string.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)

static void test_sizes_are_powers_of_1024(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} sizes[] = {
	    {"1", 1},
	    {"512", 512},
	    {"4K", 4 * KIB},
	    {"4k", 4 * KIB},
	    {"007M", 7 * MIB},
	    {"10G", 10 * GIB},
	    {"1.5T", 3 * TIB / 2},
	    {"1P", 1024 * TIB},
	    {"0.5K", 512},
	    {"4096T", 4096 * TIB},
	    {"0.000000001G", 512},
	    {"1.1G", 1181116416} /* 1181116006.4, to a sector */,
	    {"1.0T", TIB},
	    {"0.1K", 512},
	    {"8191P", 8191ull << 50},
	    {"9223372036854775807", INT64_MAX},
	};
	char why[SIZE_WHY_BYTES];
	for (size_t i = 0; i < array_size(sizes); i++) {
		uint64_t bytes = 0;
		CU_ASSERT_EQUAL(size_parse(sizes[i].text, &bytes, why), 0);
		CU_ASSERT_EQUAL(bytes, sizes[i].bytes);
	}
}

static void test_what_is_no_size_is_refused_by_its_reason(void)
{
	static const struct {
		const char *text, *reason;
	} wrong[] = {
	    {"", "not a size"},
	    {"K", "not a size"},
	    {"-1", "not a size"},
	    {"+1", "not a size"},
	    {" 1", "not a size"},
	    {".5G", "not a size"},
	    {"5.G", "not a size"},
	    {"ten", "not a size"},
	    {"4 K", "unit"},
	    {"4KB", "unit"},
	    {"4KiB", "unit"},
	    {"4X", "unit"},
	    {"0x10", "unit"},
	    {"1e3", "unit"},
	    {"1.5.5G", "unit"},
	    {"1,5G", "unit"},
	    {"1.5", "fraction"},
	    {"0", "no size"},
	    {"0T", "no size"},
	    {"0.0G", "no size"},
	    {"8192P", "too large"},
	    {"9223372036854775808", "too large"},
	    {"18446744073709551616", "too large"},
	    {"99999999999999999999999P", "too large"},
	    {"8191.9999999999P", "digits"},
	};
	for (size_t i = 0; i < array_size(wrong); i++) {
		char why[SIZE_WHY_BYTES] = "";
		uint64_t bytes = 7;
		CU_ASSERT(size_parse(wrong[i].text, &bytes, why) < 0);
		CU_ASSERT_EQUAL(bytes, 7);
		CU_ASSERT_PTR_NOT_NULL(strstr(why, wrong[i].reason));
	}
}

static void test_fractions_never_wrap(void)
{
	char why[SIZE_WHY_BYTES];
	uint64_t bytes = 0;
	CU_ASSERT(size_parse("8191.999999999P", &bytes, why) == 0);
	CU_ASSERT(bytes <= INT64_MAX && bytes > 8191ull << 50);
	CU_ASSERT_EQUAL(bytes % 512, 0);
}

static void test_shown_sizes_have_few_figures(void)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} sizes[] = {
	    {0, "0"},
	    {1, "1"},
	    {1023, "1023"},
	    {1024, "1K"},
	    {1536, "1.5K"},
	    {10 * GIB, "10G"},
	    {GIB + GIB / 4, "1.3G"},
	    {GIB - 1, "1G"},
	    {1024 * 1024 - 1, "1M"},
	    {150 * MIB + MIB / 2, "150M"},
	    {3 * TIB / 2, "1.5T"},
	    {64 * TIB, "64T"},
	    {4096 * TIB, "4P"},
	    {UINT64_MAX, "16384P"},
	};
	for (size_t i = 0; i < array_size(sizes); i++) {
		char text[SIZE_TEXT_BYTES];
		size_to_text(sizes[i].bytes, text);
		CU_ASSERT_STRING_EQUAL(text, sizes[i].text);
	}
}

static void test_sizes_that_are_compared_are_exact(void)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} sizes[] = {{0, "0 bytes"},    {512, "512 bytes"}, {1000000000, "1000000000 bytes"}, {GIB + MIB, "1025M"},
		     {10 * GIB, "10G"}, {4096 * TIB, "4P"}, {GIB + KIB, "1048577K"}};
	for (size_t i = 0; i < array_size(sizes); i++) {
		char text[SIZE_TEXT_BYTES];
		size_to_exact_text(sizes[i].bytes, text);
		CU_ASSERT_STRING_EQUAL(text, sizes[i].text);
	}
}

static void test_a_round_size_is_read_back_as_it_was(void)
{
	char text[SIZE_TEXT_BYTES], why[SIZE_WHY_BYTES];
	for (unsigned shift = 0; shift < 60; shift++) {
		uint64_t bytes = 0;
		size_to_text(1ull << shift, text);
		CU_ASSERT_EQUAL(size_parse(text, &bytes, why), 0);
		CU_ASSERT_EQUAL(bytes, 1ull << shift);
	}
}

static void test_numbers_have_bounds(void)
{
	char why[SIZE_WHY_BYTES];
	uint64_t n = 0;
	CU_ASSERT(number_parse("1", 1, 16, &n, why) == 0 && n == 1);
	CU_ASSERT(number_parse("16", 1, 16, &n, why) == 0 && n == 16);
	CU_ASSERT(number_parse("0", 0, UINT64_MAX, &n, why) == 0 && n == 0);
	CU_ASSERT(number_parse("17", 1, 16, &n, why) < 0 && strstr(why, "between 1 and 16"));
	CU_ASSERT(number_parse("0", 1, 16, &n, why) < 0);
	CU_ASSERT(number_parse("99999999999999999999", 1, UINT64_MAX, &n, why) < 0 && strstr(why, "between"));
	CU_ASSERT(number_parse("1x", 1, 16, &n, why) < 0 && strstr(why, "whole number"));
	CU_ASSERT(number_parse("", 1, 16, &n, why) < 0);
	CU_ASSERT(number_parse("-1", 0, 16, &n, why) < 0);
}

static void test_times_are_short(void)
{
	char text[SIZE_TEXT_BYTES];
	latency_to_text(850, text);
	CU_ASSERT_STRING_EQUAL(text, "850ns");
	latency_to_text(1500, text);
	CU_ASSERT_STRING_EQUAL(text, "1.5us");
	latency_to_text(12345678, text);
	CU_ASSERT_STRING_EQUAL(text, "12ms");
	latency_to_text(1200000000, text);
	CU_ASSERT_STRING_EQUAL(text, "1.2s");
	latency_to_text(UINT64_MAX, text);
	CU_ASSERT_STRING_EQUAL(text, "18446744073s");
	duration_to_text(59, text);
	CU_ASSERT_STRING_EQUAL(text, "59s");
	duration_to_text(3599, text);
	CU_ASSERT_STRING_EQUAL(text, "59m 59s");
	duration_to_text(7260, text);
	CU_ASSERT_STRING_EQUAL(text, "2h 1m");
	duration_to_text(3 * 86400 + 4 * 3600, text);
	CU_ASSERT_STRING_EQUAL(text, "3d 4h");
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli_size", NULL, NULL);
	CU_ADD_TEST(suite, test_sizes_are_powers_of_1024);
	CU_ADD_TEST(suite, test_what_is_no_size_is_refused_by_its_reason);
	CU_ADD_TEST(suite, test_fractions_never_wrap);
	CU_ADD_TEST(suite, test_shown_sizes_have_few_figures);
	CU_ADD_TEST(suite, test_sizes_that_are_compared_are_exact);
	CU_ADD_TEST(suite, test_a_round_size_is_read_back_as_it_was);
	CU_ADD_TEST(suite, test_numbers_have_bounds);
	CU_ADD_TEST(suite, test_times_are_short);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
