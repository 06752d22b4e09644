/*
 * test_nbd_options.c: the data of options, well formed and not.
 */
#include "frontends/nbd/nbd_options.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>

/* The data in memory of exactly its length, so that a sanitizer sees a byte too far. */
static int info(const uint8_t *data, uint32_t len, struct nbd_info_query *q)
{
	uint8_t *exact = malloc(len ? len : 1);
	memcpy(exact, data, len);
	int res = nbd_info_query_decode((struct nbd_text){.bytes = exact, .len_bytes = len}, q);
	free(exact);
	return res;
}

static int meta(const uint8_t *data, uint32_t len, struct nbd_meta_query *q)
{
	uint8_t *exact = malloc(len ? len : 1);
	memcpy(exact, data, len);
	int res = nbd_meta_query_decode((struct nbd_text){.bytes = exact, .len_bytes = len}, q);
	free(exact);
	return res;
}

static void test_info_query(void)
{
	static const uint8_t data[] = {0, 0, 0, 3, 'v', 'm', '1', 0, 4, 0, 3, 0, 1, 0, 2, 0x12, 0x34};
	struct nbd_info_query q;

	CU_ASSERT_EQUAL_FATAL(info(data, sizeof(data), &q), 0);
	CU_ASSERT_EQUAL(q.name.len_bytes, 3);
	CU_ASSERT(q.wants_name && q.wants_description && q.wants_block_size);
	static const uint8_t bare[] = {0, 0, 0, 0, 0, 0};
	CU_ASSERT_EQUAL_FATAL(info(bare, sizeof(bare), &q), 0);
	CU_ASSERT(q.name.len_bytes == 0 && !q.wants_name && !q.wants_description && !q.wants_block_size);
}

static void test_info_query_that_does_not_add_up(void)
{
	static const uint8_t good[] = {0, 0, 0, 3, 'v', 'm', '1', 0, 1, 0, 3};
	uint8_t data[sizeof(good) + 1];
	struct nbd_info_query q;

	memcpy(data, good, sizeof(good));
	data[sizeof(good)] = 0;
	for (uint32_t len = 0; len < sizeof(good); len++)
		CU_ASSERT_EQUAL(info(data, len, &q), -EINVAL);
	CU_ASSERT_EQUAL(info(data, sizeof(good), &q), 0);
	CU_ASSERT_EQUAL(info(data, sizeof(good) + 1, &q), -EINVAL);
	data[3] = 200;
	CU_ASSERT_EQUAL(info(data, sizeof(good), &q), -EINVAL);
	put_be32(data, UINT32_MAX);
	CU_ASSERT_EQUAL(info(data, sizeof(good), &q), -EINVAL);
	memcpy(data, good, sizeof(good));
	data[5] = 0; /* a zero byte in the name */
	CU_ASSERT_EQUAL(info(data, sizeof(good), &q), -EINVAL);
}

static void test_names_have_a_limit(void)
{
	uint8_t data[4 + NBD_STRING_MAX + 1 + 2];
	struct nbd_info_query q;

	memset(data, 'a', sizeof(data));
	put_be32(data, NBD_STRING_MAX);
	put_be16(data + 4 + NBD_STRING_MAX, 0);
	CU_ASSERT_EQUAL(info(data, 4 + NBD_STRING_MAX + 2, &q), 0);
	put_be32(data, NBD_STRING_MAX + 1);
	put_be16(data + 4 + NBD_STRING_MAX + 1, 0);
	CU_ASSERT_EQUAL(info(data, 4 + NBD_STRING_MAX + 1 + 2, &q), -EINVAL);
}

struct meta_builder {
	uint8_t bytes[256];
	uint32_t len;
};

static void build_meta(struct meta_builder *b, uint32_t n, const char *const *queries)
{
	put_be32(b->bytes, 3);
	memcpy(b->bytes + 4, "vm1", 3);
	put_be32(b->bytes + 7, n);
	b->len = 11;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t len = (uint32_t)strlen(queries[i]);
		put_be32(b->bytes + b->len, len);
		memcpy(b->bytes + b->len + 4, queries[i], len);
		b->len += 4 + len;
	}
}

static void test_meta_query(void)
{
	struct meta_builder b;
	struct nbd_meta_query q;

	build_meta(&b, 3, (const char *const[]){"qemu:dirty-bitmap:x", "base:allocation", "x-unknown:"});
	CU_ASSERT_EQUAL_FATAL(meta(b.bytes, b.len, &q), 0);
	CU_ASSERT(q.names_allocation && !q.names_base);
	CU_ASSERT_EQUAL(q.n_queries, 3);
	CU_ASSERT_EQUAL_FATAL(q.n_bitmaps, 1);
	CU_ASSERT_EQUAL(q.bitmaps[0].len_bytes, 1); /* it lies in the query, which is gone */
	CU_ASSERT_FALSE(q.names_bitmaps);
	struct nbd_text text = {.bytes = b.bytes, .len_bytes = b.len};
	CU_ASSERT_EQUAL_FATAL(nbd_meta_query_decode(text, &q), 0);
	CU_ASSERT_TRUE(nbd_text_equal(q.bitmaps[0], nbd_text_of("x")));
	build_meta(&b, 3, (const char *const[]){"qemu:dirty-bitmap:", "qemu:dirty-bitmap", "qemu:dirty-bitmaps:x"});
	CU_ASSERT_EQUAL_FATAL(meta(b.bytes, b.len, &q), 0);
	CU_ASSERT(q.n_bitmaps == 0 && q.names_bitmaps);
	build_meta(&b, 1, (const char *const[]){"base:"});
	CU_ASSERT_EQUAL_FATAL(meta(b.bytes, b.len, &q), 0);
	CU_ASSERT(!q.names_allocation && q.names_base);
	build_meta(&b, 1, (const char *const[]){"base:allocations"});
	CU_ASSERT_EQUAL_FATAL(meta(b.bytes, b.len, &q), 0);
	CU_ASSERT(!q.names_allocation && !q.names_base);
	build_meta(&b, 0, NULL);
	CU_ASSERT_EQUAL_FATAL(meta(b.bytes, b.len, &q), 0);
	CU_ASSERT_EQUAL(q.n_queries, 0);
}

static void test_meta_query_that_does_not_add_up(void)
{
	struct meta_builder b;
	struct nbd_meta_query q;

	build_meta(&b, 2, (const char *const[]){"base:allocation", "base:"});
	for (uint32_t len = 0; len < b.len; len++)
		CU_ASSERT_EQUAL(meta(b.bytes, len, &q), -EINVAL);
	b.bytes[b.len] = 0;
	CU_ASSERT_EQUAL(meta(b.bytes, b.len + 1, &q), -EINVAL);
	put_be32(b.bytes + 7, UINT32_MAX); /* more queries than bytes */
	CU_ASSERT_EQUAL(meta(b.bytes, b.len, &q), -EINVAL);
	build_meta(&b, 1, (const char *const[]){"no-namespace"});
	CU_ASSERT_EQUAL(meta(b.bytes, b.len, &q), -EINVAL);
	build_meta(&b, 1, (const char *const[]){""});
	CU_ASSERT_EQUAL(meta(b.bytes, b.len, &q), -EINVAL);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("nbd_options", NULL, NULL);
	CU_ADD_TEST(suite, test_info_query);
	CU_ADD_TEST(suite, test_info_query_that_does_not_add_up);
	CU_ADD_TEST(suite, test_names_have_a_limit);
	CU_ADD_TEST(suite, test_meta_query);
	CU_ADD_TEST(suite, test_meta_query_that_does_not_add_up);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
