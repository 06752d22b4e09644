/*
 * test_cli_table.c: aligned tables, the nearest word, and texts that may be shown on a terminal.
 */
#include "cli/table.h"

#include "cli/text.h"

#include <CUnit/Basic.h>
#include <string.h>

/* What the table prints; to be freed. */
static char *printed(const struct table *t)
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	table_print(t, out);
	fclose(out);
	return text;
}

static void test_columns_are_as_wide_as_their_widest_cell(void)
{
	static const char *const headers[] = {"NAME", ">SIZE", "STATE"};
	json_t *size = json_integer(1536), *none = json_null();
	struct table *t = table_create(headers, array_size(headers));
	table_text(t, "a");
	table_size(t, size);
	table_text(t, "ok");
	table_text(t, "longer-name");
	table_size(t, none);
	table_text(t, NULL);
	char *text = printed(t);
	CU_ASSERT_STRING_EQUAL(text, "NAME         SIZE  STATE\n"
				     "a            1.5K  ok\n"
				     "longer-name     -  -\n");
	free(text);
	table_destroy(t);
	json_decref(size);
	json_decref(none);
}

static void test_an_empty_table_has_its_headers(void)
{
	static const char *const headers[] = {"NAME", ">SIZE"};
	struct table *t = table_create(headers, array_size(headers));
	char *text = printed(t);
	CU_ASSERT_STRING_EQUAL(text, "NAME  SIZE\n");
	free(text);
	table_destroy(t);
}

static void test_letters_of_several_bytes_are_one_column(void)
{
	static const char *const headers[] = {"N", "M"};
	struct table *t = table_create(headers, array_size(headers));
	table_text(t, "\xc3\xa9\xc3\xa9");
	table_text(t, "x");
	char *text = printed(t);
	CU_ASSERT_STRING_EQUAL(text, "N   M\n\xc3\xa9\xc3\xa9  x\n");
	free(text);
	table_destroy(t);
}

static void test_nothing_moves_the_cursor(void)
{
	static const struct {
		const char *text, *shown;
	} texts[] = {
	    {"plain", "plain"},
	    {"a\nb\tc\r", "a?b?c?"},
	    {"\x1b[31mred", "?[31mred"},
	    {"\x7f", "?"},
	    {"\xc2\x9b"
	     "31m",
	     "??31m"}, /* CSI as one character of C1 */
	    {"\xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xbc \xe2\x82\xac \xf0\x9f\x98\x80"},
	    {"\xff\xfe", "??"},
	    {"\xc3", "?"},
	    {"\xc0\xaf", "??"},           /* too long for what it means */
	    {"\xed\xa0\x80", "???"},      /* half a surrogate pair */
	    {"\xf4\x90\x80\x80", "????"}, /* beyond Unicode */
	};
	for (size_t i = 0; i < array_size(texts); i++) {
		char *shown = text_printable(texts[i].text);
		CU_ASSERT_STRING_EQUAL(shown, texts[i].shown);
		free(shown);
	}
}

static void test_distance_counts_slips_of_the_finger(void)
{
	CU_ASSERT_EQUAL(text_distance("volume", "volume"), 0);
	CU_ASSERT_EQUAL(text_distance("volme", "volume"), 1);
	CU_ASSERT_EQUAL(text_distance("voulme", "volume"), 1);
	CU_ASSERT_EQUAL(text_distance("vollume", "volume"), 1);
	CU_ASSERT_EQUAL(text_distance("valume", "volume"), 1);
	CU_ASSERT_EQUAL(text_distance("", "abc"), 3);
	CU_ASSERT_EQUAL(text_distance("abc", ""), 3);
	CU_ASSERT_EQUAL(text_distance("kitten", "sitting"), 3);
	char huge[200];
	memset(huge, 'a', sizeof(huge));
	huge[sizeof(huge) - 1] = '\0';
	CU_ASSERT(text_distance(huge, "a") > 1000);
}

static void test_only_near_words_are_suggested(void)
{
	struct nearest n;
	nearest_begin(&n, "lsit");
	nearest_offer(&n, "create");
	CU_ASSERT_PTR_NULL(n.word);
	nearest_offer(&n, "list");
	nearest_offer(&n, "set");
	CU_ASSERT_STRING_EQUAL(n.word, "list");
	nearest_begin(&n, "stat");
	nearest_offer(&n, "status");
	CU_ASSERT_STRING_EQUAL(n.word, "status");
	nearest_begin(&n, "q");
	nearest_offer(&n, "disk");
	CU_ASSERT_PTR_NULL(n.word);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli_table", NULL, NULL);
	CU_ADD_TEST(suite, test_columns_are_as_wide_as_their_widest_cell);
	CU_ADD_TEST(suite, test_an_empty_table_has_its_headers);
	CU_ADD_TEST(suite, test_letters_of_several_bytes_are_one_column);
	CU_ADD_TEST(suite, test_nothing_moves_the_cursor);
	CU_ADD_TEST(suite, test_distance_counts_slips_of_the_finger);
	CU_ADD_TEST(suite, test_only_near_words_are_suggested);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
