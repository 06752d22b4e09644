/*
 * test_forward_text.c: requests that are sent on to another node: the same there, and what is no request.
 */
#include "daemon/control/forward_text.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Written and read again; the caller frees the copy, into which `out` points. */
static char *pass(const struct order_text *t, struct order_text *out)
{
	char *text, *copy;
	uint32_t bytes;
	CU_ASSERT_EQUAL_FATAL(forward_text_write(t, &text, &bytes), 0);
	for (uint32_t i = bytes; i % BLOCK_BYTES != 0; i++)
		CU_ASSERT_EQUAL(text[i], 0); /* there is room up to the block's end, and nothing in it */
	copy = calloc(1, bytes + 1);
	memcpy(copy, text, bytes);
	free(text);
	CU_ASSERT_EQUAL_FATAL(forward_text_read(copy, bytes, out), 0);
	return copy;
}

static void the_same_there(void)
{
	const char body[] = "{\"name\": \"s\"}\n\0behind";
	const struct order_text t = {.method = "POST",
				     .path = "/v1/volumes/a%20b%0a/snapshots",
				     .queries = {{"since", "x=y"}, {"force", NULL}, {"empty", ""}},
				     .n_queries = 3,
				     .body = body,
				     .body_bytes = sizeof(body)};
	struct order_text got;
	char *copy = pass(&t, &got);
	CU_ASSERT_STRING_EQUAL(got.method, "POST");
	CU_ASSERT_STRING_EQUAL(got.path, t.path);
	CU_ASSERT_EQUAL(got.n_queries, 3);
	CU_ASSERT_STRING_EQUAL(got.queries[0].name, "since");
	CU_ASSERT_STRING_EQUAL(got.queries[0].value, "x=y");
	CU_ASSERT_STRING_EQUAL(got.queries[1].name, "force");
	CU_ASSERT_PTR_NULL(got.queries[1].value);
	CU_ASSERT_STRING_EQUAL(got.queries[2].value, "");
	CU_ASSERT_EQUAL(got.body_bytes, sizeof(body));
	CU_ASSERT_EQUAL(memcmp(got.body, body, sizeof(body)), 0);
	free(copy);
}

static void a_text_that_fills_its_block(void)
{
	char body[BLOCK_BYTES];
	struct order_text t = {.method = "PUT", .path = "/v1", .body = body}, got;
	memset(body, 'b', sizeof(body));
	t.body_bytes = BLOCK_BYTES - strlen("PUT\n/v1\n");
	char *copy = pass(&t, &got);
	CU_ASSERT_EQUAL(got.body_bytes, t.body_bytes);
	free(copy);
}

static void what_is_not_sent_on(void)
{
	char path[FORWARD_TARGET_BYTES_MAX], *text;
	uint32_t bytes;
	struct order_text t = {.method = "GET", .path = path};
	memset(path, 'p', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	CU_ASSERT_EQUAL(forward_text_write(&t, &text, &bytes), -E2BIG);
	path[sizeof(path) - 1 - strlen("GET\n\n")] = '\0';
	CU_ASSERT_EQUAL(forward_text_write(&t, &text, &bytes), 0);
	free(text);
	t.path = "/v1/a\nb";
	CU_ASSERT_EQUAL(forward_text_write(&t, &text, &bytes), -E2BIG);
	t.path = "/v1";
	t.queries[0] = (struct order_query){"since", "a\nb"};
	t.n_queries = 1;
	CU_ASSERT_EQUAL(forward_text_write(&t, &text, &bytes), -E2BIG);
	t.n_queries = ORDER_QUERIES_MAX + 1;
	CU_ASSERT_EQUAL(forward_text_write(&t, &text, &bytes), -E2BIG);
}

static void what_is_no_request(void)
{
	static const struct {
		const char *text;
		size_t bytes;
	} bad[] = {{"", 0},
		   {"GET", 3},
		   {"GET\n/v1/volumes", 15},
		   {"GE\0T\n/v1\n", 9},
		   {"GET\n/v1\0/x\n", 11},
		   {"AMETHODTHATISTOOLONG\n/v1\n", 25}};
	for (size_t i = 0; i < array_size(bad); i++) {
		struct order_text got;
		char *copy = calloc(1, bad[i].bytes + 1);
		memcpy(copy, bad[i].text, bad[i].bytes);
		CU_ASSERT_EQUAL(forward_text_read(copy, bad[i].bytes, &got), -EBADMSG);
		free(copy);
	}
	struct order_text got;
	size_t head = strlen("PUT\n/v1\n"), bytes = head + ORDER_BODY_BYTES_MAX + 1;
	char *copy = calloc(1, bytes + 1);
	for (int longer = 0; longer <= 1; longer++) { /* a body may be so long, and no longer */
		memcpy(copy, "PUT\n/v1\n", head);
		CU_ASSERT_EQUAL(forward_text_read(copy, bytes - 1 + (size_t)longer, &got), longer ? -EBADMSG : 0);
	}
	free(copy);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("forward text", NULL, NULL);
	CU_add_test(suite, "the same there", the_same_there);
	CU_add_test(suite, "a text that fills its block", a_text_that_fills_its_block);
	CU_add_test(suite, "what is not sent on", what_is_not_sent_on);
	CU_add_test(suite, "what is no request", what_is_no_request);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
