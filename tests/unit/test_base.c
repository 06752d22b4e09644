/*
 * test_base.c: UUIDs and sizes as text, lists, byte order, and that an assertion ends the process.
 */
#include "daemon/core/base.h"
#include "daemon/core/bytes.h"
#include "daemon/core/list.h"
#include "daemon/core/size_text.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void uuid_text_round_trip(void)
{
	static const char text[] = "00112233-4455-6677-8899-aabbccddeeff";
	char out[UUID_TEXT_BYTES];
	struct uuid u;

	CU_ASSERT_EQUAL(uuid_from_text(text, &u), 0);
	for (unsigned i = 0; i < sizeof u.bytes; i++)
		CU_ASSERT_EQUAL(u.bytes[i], i * 0x11);
	uuid_to_text(&u, out);
	CU_ASSERT_STRING_EQUAL(out, text);
	CU_ASSERT_EQUAL(uuid_from_text("00112233-4455-6677-8899-AABBCCDDEEFF", &u), 0);
	uuid_to_text(&u, out);
	CU_ASSERT_STRING_EQUAL(out, text);
}

static void uuid_refuses_what_is_none(void)
{
	static const char *const bad[] = {
	    "",
	    "-",
	    "00112233",
	    "00112233-4455-6677-8899-aabbccddeef",
	    "00112233-4455-6677-8899-aabbccddeef ",
	    "00112233-4455-6677-8899-aabbccddeeff0",
	    "00112233-4455-6677-8899-aabbccddeefg",
	    "0011223-34455-6677-8899-aabbccddeeff",
	    "00112233445566778899aabbccddeeff",
	    "{0112233-4455-6677-8899-aabbccddeeff",
	    "00112233-4455-6677-8899_aabbccddeeff",
	};
	struct uuid u = {{7}};

	for (size_t i = 0; i < array_size(bad); i++)
		CU_ASSERT_EQUAL(uuid_from_text(bad[i], &u), -EINVAL);
	CU_ASSERT_EQUAL(u.bytes[0], 7); /* and touches nothing */
}

static void uuid_made_is_version_4(void)
{
	static const struct uuid zero;
	char text[UUID_TEXT_BYTES];
	struct uuid u = uuid_make(UINT64_MAX, UINT64_MAX);

	uuid_to_text(&u, text);
	CU_ASSERT_STRING_EQUAL(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
	u = uuid_make(0, 0);
	uuid_to_text(&u, text);
	CU_ASSERT_STRING_EQUAL(text, "00000000-0000-4000-8000-000000000000");
	CU_ASSERT_TRUE(uuid_is_zero(&zero));
	CU_ASSERT_FALSE(uuid_is_zero(&u));
	CU_ASSERT_FALSE(uuid_equal(&u, &zero));
	CU_ASSERT_TRUE(uuid_equal(&u, &u));
}

static void bytes_have_their_order(void)
{
	uint8_t p[8];

	put_le32(p, 0x01020304);
	CU_ASSERT_EQUAL(p[0], 4);
	CU_ASSERT_EQUAL(get_le32(p), 0x01020304);
	put_be64(p, 0x0102030405060708ull);
	CU_ASSERT_EQUAL(p[0], 1);
	CU_ASSERT_EQUAL(get_be64(p), 0x0102030405060708ull);
	CU_ASSERT_EQUAL(get_be16(p), 0x0102);
	CU_ASSERT_EQUAL(get_le16(p), 0x0201);
}

struct member {
	int number;
	struct list link;
};

static void list_keeps_order(void)
{
	struct member m[4];
	struct list a, b;
	int sum = 0;

	list_init(&a);
	list_init(&b);
	for (int i = 0; i < 4; i++) {
		m[i].number = i;
		list_append(i < 2 ? &a : &b, &m[i].link);
	}
	list_splice(&a, &b);
	CU_ASSERT_TRUE(list_is_empty(&b));
	list_each (node, &a)
		sum = sum * 10 + container_of(node, struct member, link)->number;
	CU_ASSERT_EQUAL(sum, 123);
	list_remove(&m[1].link);
	list_remove(&m[1].link);
	CU_ASSERT_FALSE(list_is_linked(&m[1].link));
	CU_ASSERT_PTR_EQUAL(list_pop(&a), &m[0].link);
	list_prepend(&a, &m[0].link);
	list_each_safe (node, &a)
		list_remove(node);
	CU_ASSERT_PTR_NULL(list_pop(&a));
}

static void sizes_are_exact(void)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} sizes[] = {
	    {0, "0 bytes"},
	    {1000000000, "1000000000 bytes"},
	    {512, "512 bytes"},
	    {KIB, "1K"},
	    {10 * GIB, "10G"},
	    {3 * GIB / 2, "1536M"},
	    {100 * GIB + KIB, "104857601K"},
	    {4096 * TIB, "4P"},
	    {UINT64_MAX, "18446744073709551615 bytes"},
	};
	for (size_t i = 0; i < array_size(sizes); i++) {
		char text[SIZE_TEXT_BYTES];
		CU_ASSERT_STRING_EQUAL(size_text(sizes[i].bytes, text), sizes[i].text);
	}
}

static void assertion_aborts(void)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		int null = open("/dev/null", O_WRONLY);
		dup2(null, STDERR_FILENO);
		quarry_assert(child != 0);
		_exit(0);
	}
	CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
	CU_ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("base", NULL, NULL);
	CU_add_test(suite, "a uuid survives its text form", uuid_text_round_trip);
	CU_add_test(suite, "what is no uuid is refused", uuid_refuses_what_is_none);
	CU_add_test(suite, "a made uuid is version 4", uuid_made_is_version_4);
	CU_add_test(suite, "integers have their byte order", bytes_have_their_order);
	CU_add_test(suite, "a list keeps its order", list_keeps_order);
	CU_add_test(suite, "sizes in messages are exact", sizes_are_exact);
	CU_add_test(suite, "a failed assertion aborts", assertion_aborts);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
