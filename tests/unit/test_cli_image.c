/*
 * test_cli_image.c: what the first bytes of an image file say, and which qcow2 images are taken.
 */
#include "cli/image.h"

#include <CUnit/Basic.h>
#include <endian.h>
#include <string.h>

/* A qcow2 header of version 3 that is taken. */
static void header_make(char h[static IMAGE_HEADER_BYTES])
{
	memset(h, 0, IMAGE_HEADER_BYTES);
	memcpy(h, "QFI\xfb\0\0\0\3", 8);
}

static void test_formats_are_known_by_their_first_bytes(void)
{
	char h[IMAGE_HEADER_BYTES] = {0};
	CU_ASSERT_PTR_NULL(image_format_name(h, sizeof(h)));
	CU_ASSERT_PTR_NULL(image_format_name(h, 0));
	header_make(h);
	CU_ASSERT_STRING_EQUAL(image_format_name(h, sizeof(h)), "qcow2");
	CU_ASSERT_STRING_EQUAL(image_format_name(h, 4), "qcow2");
	CU_ASSERT_PTR_NULL(image_format_name(h, 3));
	CU_ASSERT_STRING_EQUAL(image_format_name("KDMV____", 8), "vmdk");
	CU_ASSERT_STRING_EQUAL(image_format_name("vhdxfile", 8), "vhdx");
	CU_ASSERT_STRING_EQUAL(image_format_name("conectix", 8), "vhd");
	memset(h, 0, sizeof(h));
	memcpy(h + 64, "\x7f\x10\xda\xbe", 4);
	CU_ASSERT_STRING_EQUAL(image_format_name(h, sizeof(h)), "vdi");
	CU_ASSERT_PTR_NULL(image_format_name(h, 67));
}

static void test_a_whole_image_is_taken(void)
{
	char h[IMAGE_HEADER_BYTES], why[IMAGE_WHY_BYTES];
	header_make(h);
	CU_ASSERT_EQUAL(qcow2_check(h, sizeof(h), why), 0);
	CU_ASSERT_EQUAL(qcow2_check(h, 104, why), 0);
	h[7] = 2;
	CU_ASSERT_EQUAL(qcow2_check(h, 72, why), 0);
}

static void refused(const char *h, size_t n_bytes, const char *says)
{
	char why[IMAGE_WHY_BYTES] = "";
	CU_ASSERT(qcow2_check(h, n_bytes, why) < 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, says));
}

static void test_an_image_that_reaches_outside_is_refused(void)
{
	char h[IMAGE_HEADER_BYTES];
	header_make(h);
	h[15] = 1; /* the low byte of the backing file's offset */
	refused(h, sizeof(h), "backing file");
	header_make(h);
	h[8] = (char)0x80; /* the high one */
	refused(h, sizeof(h), "backing file");
	header_make(h);
	h[79] = 4;
	refused(h, sizeof(h), "another file");
	header_make(h);
	h[35] = 2;
	refused(h, sizeof(h), "encrypted");
}

static void test_what_is_no_image_is_refused(void)
{
	char h[IMAGE_HEADER_BYTES];
	header_make(h);
	refused(h, 71, "no qcow2");
	refused(h, 0, "no qcow2");
	refused(h, 103, "unknown version");
	h[7] = 4;
	refused(h, sizeof(h), "unknown version");
	h[7] = 1;
	refused(h, sizeof(h), "unknown version");
	h[0] = 'X';
	refused(h, sizeof(h), "no qcow2");
}

static void test_uris_are_told_from_paths(void)
{
	CU_ASSERT(is_nbd_uri("nbd://host/x"));
	CU_ASSERT(is_nbd_uri("nbds://host"));
	CU_ASSERT(is_nbd_uri("nbd+unix:///x?socket=/s"));
	CU_ASSERT(!is_nbd_uri("nbd"));
	CU_ASSERT(!is_nbd_uri("/nbd://x"));
	CU_ASSERT(!is_nbd_uri("nbd:host:10809"));
	CU_ASSERT(!is_nbd_uri("http://host/x"));
	CU_ASSERT(!is_nbd_uri(""));
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli_image", NULL, NULL);
	CU_ADD_TEST(suite, test_formats_are_known_by_their_first_bytes);
	CU_ADD_TEST(suite, test_a_whole_image_is_taken);
	CU_ADD_TEST(suite, test_an_image_that_reaches_outside_is_refused);
	CU_ADD_TEST(suite, test_what_is_no_image_is_refused);
	CU_ADD_TEST(suite, test_uris_are_told_from_paths);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
