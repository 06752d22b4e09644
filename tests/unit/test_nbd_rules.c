/*
 * test_nbd_rules.c: the protocol's rules for requests, and errno as the wire knows it.
 */
#include "frontends/nbd/nbd_rules.h"
#include "frontends/nbd/nbd_server.h"

#include <CUnit/Basic.h>
#include <errno.h>

static const struct nbd_terms plain = {.size_bytes = GIB};
static const struct nbd_terms full = {.size_bytes = GIB, .is_structured = true, .reports_allocation = true};
static const struct nbd_terms readonly = {
    .size_bytes = GIB, .is_read_only = true, .is_structured = true, .reports_allocation = true};

static uint32_t judge(const struct nbd_terms *t, uint16_t command, uint16_t flags, uint64_t pos, uint32_t len)
{
	struct nbd_request_header h = {
	    .magic = NBD_REQUEST_MAGIC, .command = command, .flags = flags, .pos_bytes = pos, .len_bytes = len};
	struct nbd_verdict v = nbd_judge(&h, t);
	CU_ASSERT_EQUAL(v.error == NBD_OK, v.why == NULL);
	return v.error;
}

static void test_every_command_is_served_inside_the_export(void)
{
	for (uint16_t c = 0; c < NBD_N_COMMANDS; c++) {
		bool has_range = c != NBD_CMD_FLUSH && c != NBD_CMD_DISC;
		CU_ASSERT_EQUAL(judge(&full, c, 0, has_range ? 4096 : 0, has_range ? 4096 : 0), NBD_OK);
	}
	CU_ASSERT_EQUAL(judge(&full, NBD_CMD_READ, 0, GIB - 512, 512), NBD_OK);
	CU_ASSERT_EQUAL(judge(&full, NBD_CMD_READ, 0, GIB, 0), NBD_OK);
}

static void test_beyond_the_end_names_the_right_error(void)
{
	static const uint16_t einval[] = {NBD_CMD_READ, NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_BLOCK_STATUS};
	static const uint16_t enospc[] = {NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES};

	for (size_t i = 0; i < array_size(einval); i++) {
		CU_ASSERT_EQUAL(judge(&full, einval[i], 0, GIB - 512, 1024), NBD_EINVAL);
		CU_ASSERT_EQUAL(judge(&full, einval[i], 0, UINT64_MAX - 511, 512), NBD_EINVAL);
		CU_ASSERT_EQUAL(judge(&full, einval[i], 0, GIB + 512, 4096), NBD_EINVAL);
	}
	for (size_t i = 0; i < array_size(enospc); i++) {
		CU_ASSERT_EQUAL(judge(&full, enospc[i], 0, GIB - 512, 1024), NBD_ENOSPC);
		CU_ASSERT_EQUAL(judge(&full, enospc[i], 0, UINT64_MAX - 511, 512), NBD_ENOSPC);
	}
}

static void test_sizes(void)
{
	struct nbd_terms huge = full;
	huge.size_bytes = 64 * TIB;

	CU_ASSERT_EQUAL(judge(&huge, NBD_CMD_READ, 0, 0, 32 << 20), NBD_OK);
	CU_ASSERT_EQUAL(judge(&huge, NBD_CMD_READ, 0, 0, (32 << 20) + 512), NBD_EOVERFLOW);
	CU_ASSERT_EQUAL(judge(&huge, NBD_CMD_WRITE, 0, 0, 32 << 20), NBD_OK);
	CU_ASSERT_EQUAL(judge(&huge, NBD_CMD_WRITE, 0, 0, 48 << 20), NBD_EINVAL);
	CU_ASSERT_EQUAL(judge(&huge, NBD_CMD_TRIM, 0, 0, 0xfffffe00), NBD_OK);
	CU_ASSERT_EQUAL(judge(&huge, NBD_CMD_WRITE_ZEROES, 0, 0, 0xfffffe00), NBD_OK);
	CU_ASSERT_EQUAL(judge(&huge, NBD_CMD_BLOCK_STATUS, 0, 0, 0xfffffe00), NBD_OK);
	CU_ASSERT_EQUAL(judge(&huge, NBD_CMD_READ, NBD_CMD_DF, 0, 65536), NBD_OK);
	CU_ASSERT_EQUAL(judge(&huge, NBD_CMD_READ, NBD_CMD_DF, 0, 2 << 20), NBD_EOVERFLOW);
	CU_ASSERT_EQUAL(judge(&huge, NBD_CMD_BLOCK_STATUS, 0, 0, 0), NBD_EINVAL);
}

static void test_unaligned_is_refused(void)
{
	static const uint16_t commands[] = {NBD_CMD_READ,  NBD_CMD_WRITE,        NBD_CMD_TRIM,
					    NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS};
	for (size_t i = 0; i < array_size(commands); i++) {
		CU_ASSERT_EQUAL(judge(&full, commands[i], 0, 1, 512), NBD_EINVAL);
		CU_ASSERT_EQUAL(judge(&full, commands[i], 0, 512, 511), NBD_EINVAL);
		CU_ASSERT_EQUAL(judge(&full, commands[i], 0, 512, 512), NBD_OK);
	}
}

static void test_each_command_knows_its_flags(void)
{
	static const uint16_t known[NBD_N_COMMANDS] = {
	    [NBD_CMD_READ] = 1 | 4,
	    [NBD_CMD_WRITE] = 1,
	    [NBD_CMD_DISC] = 1,
	    [NBD_CMD_FLUSH] = 1,
	    [NBD_CMD_TRIM] = 1,
	    [NBD_CMD_CACHE] = 1,
	    [NBD_CMD_WRITE_ZEROES] = 1 | 2 | 16,
	    [NBD_CMD_BLOCK_STATUS] = 1 | 8,
	};
	for (uint16_t c = 0; c < NBD_N_COMMANDS; c++) {
		for (unsigned bit = 0; bit < 16; bit++) {
			uint16_t flag = (uint16_t)(1u << bit);
			uint32_t len = c == NBD_CMD_FLUSH ? 0 : 512;
			CU_ASSERT_EQUAL(judge(&full, c, flag, 0, len), known[c] & flag ? NBD_OK : NBD_EINVAL);
		}
	}
	CU_ASSERT_EQUAL(judge(&full, NBD_N_COMMANDS, 0, 0, 0), NBD_EINVAL);
	CU_ASSERT_EQUAL(judge(&full, 0xffff, 0, 0, 0), NBD_EINVAL);
}

static void test_what_was_not_agreed_on_is_refused(void)
{
	struct nbd_terms structured = {.size_bytes = GIB, .is_structured = true};

	CU_ASSERT_EQUAL(judge(&plain, NBD_CMD_READ, NBD_CMD_DF, 0, 512), NBD_EINVAL);
	CU_ASSERT_EQUAL(judge(&plain, NBD_CMD_BLOCK_STATUS, 0, 0, 512), NBD_EINVAL);
	CU_ASSERT_EQUAL(judge(&structured, NBD_CMD_BLOCK_STATUS, 0, 0, 512), NBD_EINVAL);
	CU_ASSERT_EQUAL(judge(&plain, NBD_CMD_FLUSH, 0, 512, 0), NBD_EINVAL);
	CU_ASSERT_EQUAL(judge(&plain, NBD_CMD_FLUSH, 0, 0, 512), NBD_EINVAL);
}

static void test_read_only_refuses_what_changes(void)
{
	CU_ASSERT_EQUAL(judge(&readonly, NBD_CMD_WRITE, 0, 0, 512), NBD_EPERM);
	CU_ASSERT_EQUAL(judge(&readonly, NBD_CMD_TRIM, 0, 0, 512), NBD_EPERM);
	CU_ASSERT_EQUAL(judge(&readonly, NBD_CMD_WRITE_ZEROES, 0, 0, 512), NBD_EPERM);
	CU_ASSERT_EQUAL(judge(&readonly, NBD_CMD_READ, 0, 0, 512), NBD_OK);
	CU_ASSERT_EQUAL(judge(&readonly, NBD_CMD_FLUSH, 0, 0, 0), NBD_OK);
	CU_ASSERT_EQUAL(judge(&readonly, NBD_CMD_BLOCK_STATUS, 0, 0, 512), NBD_OK);
}

static void test_transmission_flags_tell_the_terms(void)
{
	CU_ASSERT_EQUAL(nbd_transmission_flags(&plain), 0x001 | 0x004 | 0x008 | 0x020 | 0x040 | 0x100 | 0x400 | 0x800);
	CU_ASSERT_EQUAL(nbd_transmission_flags(&full), nbd_transmission_flags(&plain) | 0x080);
	CU_ASSERT_EQUAL(nbd_transmission_flags(&readonly), 0x001 | 0x002 | 0x004 | 0x008 | 0x080 | 0x100 | 0x400);
}

static void test_only_listed_errors_go_out(void)
{
	static const struct {
		int res;
		uint32_t error;
	} known[] = {{0, 0},        {-EPERM, 1},   {-EROFS, 1},  {-EIO, 5},      {-ENOMEM, 12},     {-EINVAL, 22},
		     {-ENOSPC, 28}, {-EDQUOT, 28}, {-EFBIG, 28}, {-ENOTSUP, 95}, {-ESHUTDOWN, 108}, {-ETIMEDOUT, 5},
		     {-EBUSY, 5},   {-ENOTCONN, 5}};
	for (size_t i = 0; i < array_size(known); i++)
		CU_ASSERT_EQUAL(nbd_error_of(known[i].res), known[i].error);
	for (int e = 1; e < 200; e++)
		CU_ASSERT_STRING_NOT_EQUAL(nbd_error_text(nbd_error_of(-e)), "unknown error");
}

static void test_only_writes_carry_payload(void)
{
	for (uint16_t c = 0; c < NBD_N_COMMANDS + 2; c++) {
		struct nbd_request_header h = {.magic = NBD_REQUEST_MAGIC, .command = c, .len_bytes = 4096};
		CU_ASSERT_EQUAL(nbd_payload_bytes(&h), c == NBD_CMD_WRITE ? 4096 : 0);
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("nbd_rules", NULL, NULL);
	CU_ADD_TEST(suite, test_every_command_is_served_inside_the_export);
	CU_ADD_TEST(suite, test_beyond_the_end_names_the_right_error);
	CU_ADD_TEST(suite, test_sizes);
	CU_ADD_TEST(suite, test_unaligned_is_refused);
	CU_ADD_TEST(suite, test_each_command_knows_its_flags);
	CU_ADD_TEST(suite, test_what_was_not_agreed_on_is_refused);
	CU_ADD_TEST(suite, test_read_only_refuses_what_changes);
	CU_ADD_TEST(suite, test_transmission_flags_tell_the_terms);
	CU_ADD_TEST(suite, test_only_listed_errors_go_out);
	CU_ADD_TEST(suite, test_only_writes_carry_payload);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
