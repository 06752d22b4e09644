/*
 * test_nbd_negotiation.c: greeting and options, from a client that says the right things and from one that does not.
 */
#include "tests/unit/nbd_world.h"

#include <CUnit/Basic.h>
#include <string.h>

#define FIXED (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)

static struct nbd_world world;

static void begin(struct nbd_client *c, uint32_t flags)
{
	world_start(&world, &(struct nbd_world_options){0});
	client_connect(&world, c);
	client_greet(c, flags);
}

static void end(struct nbd_client *c)
{
	client_close(c);
	world_end(&world);
}

static void expect_type(struct nbd_client *c, uint32_t option, uint32_t type)
{
	struct option_reply r = client_option_reply(c);
	CU_ASSERT_EQUAL(r.magic, NBD_OPTION_REPLY_MAGIC);
	CU_ASSERT_EQUAL(r.option, option);
	CU_ASSERT_EQUAL(r.type, type);
	if (type == NBD_REP_ACK)
		CU_ASSERT_EQUAL(r.len_bytes, 0);
	if (type & NBD_REP_ERROR)
		CU_ASSERT(r.len_bytes > 0 && r.len_bytes < 200); /* a word for a person */
}

/* An INFO or GO for this name with these information requests. */
static void send_info(struct nbd_client *c, uint32_t option, const char *name, uint16_t n, const uint16_t *infos)
{
	uint8_t data[256];
	uint32_t len = (uint32_t)strlen(name);

	put_be32(data, len);
	memcpy(data + 4, name, len);
	put_be16(data + 4 + len, n);
	for (uint16_t i = 0; i < n; i++)
		put_be16(data + 6 + len + 2 * i, infos[i]);
	client_option(c, option, data, 6 + len + 2u * n);
}

static uint32_t encode_meta(uint8_t *data, const char *name, uint32_t n, const char *const *queries)
{
	uint32_t len = (uint32_t)strlen(name);

	put_be32(data, len);
	memcpy(data + 4, name, len);
	put_be32(data + 4 + len, n);
	uint32_t at = 8 + len;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t query = (uint32_t)strlen(queries[i]);
		put_be32(data + at, query);
		memcpy(data + at + 4, queries[i], query);
		at += 4 + query;
	}
	return at;
}

static void send_meta(struct nbd_client *c, uint32_t option, const char *name, uint32_t n, const char *const *queries)
{
	uint8_t data[512];
	client_option(c, option, data, encode_meta(data, name, n, queries));
}

static void expect_serves(struct nbd_client *c)
{
	client_request(c, &(struct client_request){.command = NBD_CMD_READ, .cookie = 7, .len_bytes = 512});
	struct simple_reply r = client_simple_reply(c);
	CU_ASSERT(r.magic == NBD_SIMPLE_REPLY_MAGIC && r.error == 0 && r.cookie == 7);
	CU_ASSERT_PTR_NOT_NULL(client_take(c, 512));
}

/* ---- flags ---- */

static void test_unknown_client_flags_end_it(void)
{
	struct nbd_client c;
	begin(&c, FIXED | 4);
	CU_ASSERT(client_is_ended(&c));
	end(&c);
}

static void test_without_fixed_newstyle_only_export_name_is_heard(void)
{
	struct nbd_client c;
	begin(&c, 0);
	client_option(&c, NBD_OPT_LIST, NULL, 0);
	CU_ASSERT(client_is_ended(&c));
	end(&c);
}

/* ---- EXPORT_NAME ---- */

static void test_export_name_with_zeroes(void)
{
	struct nbd_client c;
	begin(&c, 0);
	client_option(&c, NBD_OPT_EXPORT_NAME, "vm1", 3);
	const uint8_t *p = client_take(&c, 134);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT_EQUAL(get_be64(p), WORLD_VOLUME_BYTES);
	CU_ASSERT(get_be16(p + 8) & NBD_HAS_FLAGS);
	CU_ASSERT_FALSE(get_be16(p + 8) & NBD_SEND_DF);
	for (int i = 10; i < 134; i++)
		CU_ASSERT_EQUAL(p[i], 0);
	expect_serves(&c);
	end(&c);
}

static void test_export_name_without_zeroes(void)
{
	struct nbd_client c;
	begin(&c, FIXED);
	client_option(&c, NBD_OPT_EXPORT_NAME, "snap", 4);
	const uint8_t *p = client_take(&c, 10);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT(get_be16(p + 8) & NBD_READ_ONLY);
	expect_serves(&c);
	end(&c);
}

static void test_export_name_unknown_ends_it(void)
{
	struct nbd_client c;
	begin(&c, FIXED);
	client_option(&c, NBD_OPT_EXPORT_NAME, "nobody", 6);
	CU_ASSERT(client_is_ended(&c));
	end(&c);
	begin(&c, FIXED);
	client_option(&c, NBD_OPT_EXPORT_NAME, NULL, 0);
	CU_ASSERT(client_is_ended(&c));
	end(&c);
}

/* ---- LIST ---- */

static void test_list_names_every_export(void)
{
	struct nbd_client c;
	begin(&c, FIXED);
	client_option(&c, NBD_OPT_LIST, NULL, 0);
	struct option_reply r = client_option_reply(&c);
	CU_ASSERT_EQUAL(r.type, NBD_REP_SERVER);
	CU_ASSERT(r.len_bytes == 8 && get_be32(r.data) == 4 && memcmp(r.data + 4, "snap", 4) == 0);
	r = client_option_reply(&c);
	CU_ASSERT(r.type == NBD_REP_SERVER && memcmp(r.data + 4, "vm1", 3) == 0);
	expect_type(&c, NBD_OPT_LIST, NBD_REP_ACK);
	client_option(&c, NBD_OPT_LIST, "x", 1);
	expect_type(&c, NBD_OPT_LIST, NBD_REP_ERR_INVALID);
	end(&c);
}

/* Long names, so that they do not fit into one answer. */
static void test_list_longer_than_one_answer(void)
{
	struct nbd_client c;
	char name[2 * VOLUME_NAME_MAX + 1];

	world_start(&world, &(struct nbd_world_options){0});
	memset(name, 'z', sizeof(name));
	name[sizeof(name) - 1] = 0;
	for (int i = 0; i < 60; i++) {
		name[1] = (char)('0' + i / 10);
		name[2] = (char)('0' + i % 10);
		fake_volume_add(world.set, &(struct fake_options){.name = name, .size_bytes = MIB});
	}
	client_connect(&world, &c);
	client_greet(&c, FIXED);
	for (int round = 0; round < 2; round++) {
		uint32_t n = 0;
		client_option(&c, NBD_OPT_LIST, NULL, 0);
		for (struct option_reply r = client_option_reply(&c); r.type == NBD_REP_SERVER;
		     r = client_option_reply(&c)) {
			if (n >= 2)
				CU_ASSERT_EQUAL((uint32_t)(r.data[5] - '0') * 10 + (uint32_t)(r.data[6] - '0'), n - 2);
			n++;
		}
		CU_ASSERT_EQUAL(n, 62);
	}
	end(&c);
}

/* ---- INFO and GO ---- */

static void test_info_tells_what_was_asked(void)
{
	struct nbd_client c;
	uint16_t infos[] = {NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE, 0x7777};
	uint32_t seen = 0;

	begin(&c, FIXED);
	send_info(&c, NBD_OPT_INFO, "vm1", 4, infos);
	for (;;) {
		struct option_reply r = client_option_reply(&c);
		if (r.type != NBD_REP_INFO) {
			CU_ASSERT_EQUAL(r.type, NBD_REP_ACK);
			break;
		}
		uint16_t info = get_be16(r.data);
		CU_ASSERT_FALSE(seen & (1u << info));
		seen |= 1u << info;
		if (info == NBD_INFO_EXPORT)
			CU_ASSERT(r.len_bytes == 12 && get_be64(r.data + 2) == WORLD_VOLUME_BYTES);
		if (info == NBD_INFO_BLOCK_SIZE)
			CU_ASSERT(r.len_bytes == 14 && get_be32(r.data + 2) == 512 && get_be32(r.data + 6) == 4096 &&
				  get_be32(r.data + 10) == 32 << 20);
		if (info == NBD_INFO_NAME)
			CU_ASSERT(r.len_bytes == 5 && memcmp(r.data + 2, "vm1", 3) == 0);
	}
	CU_ASSERT_EQUAL(seen, 15);
	send_info(&c, NBD_OPT_GO, "vm1", 0, NULL); /* INFO does not end the negotiation */
	CU_ASSERT_EQUAL(client_option_reply(&c).type, NBD_REP_INFO);
	CU_ASSERT_EQUAL(client_option_reply(&c).type, NBD_REP_INFO);
	expect_type(&c, NBD_OPT_GO, NBD_REP_ACK);
	expect_serves(&c);
	end(&c);
}

static void test_unknown_export_is_said_so(void)
{
	struct nbd_client c;
	char name[200];

	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = 0;
	begin(&c, FIXED);
	send_info(&c, NBD_OPT_GO, "nobody", 0, NULL);
	expect_type(&c, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN);
	send_info(&c, NBD_OPT_INFO, "", 0, NULL);
	expect_type(&c, NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN);
	send_info(&c, NBD_OPT_GO, name, 0, NULL);
	expect_type(&c, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN);
	fake_volume_detach(world.vm);
	send_info(&c, NBD_OPT_GO, "vm1", 0, NULL);
	expect_type(&c, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN);
	send_info(&c, NBD_OPT_GO, "snap", 0, NULL); /* and the negotiation goes on */
	CU_ASSERT_EQUAL(client_option_reply(&c).type, NBD_REP_INFO);
	end(&c);
}

static void test_malformed_options_are_invalid(void)
{
	static const uint32_t options[] = {NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_LIST_META_CONTEXT,
					   NBD_OPT_SET_META_CONTEXT};
	struct nbd_client c;
	uint8_t data[8] = {0, 0, 0, 99, 'v', 'm', '1', 0};

	begin(&c, FIXED);
	client_option(&c, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	expect_type(&c, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
	for (size_t i = 0; i < array_size(options); i++) {
		client_option(&c, options[i], data, sizeof(data));
		expect_type(&c, options[i], NBD_REP_ERR_INVALID);
		client_option(&c, options[i], NULL, 0);
		expect_type(&c, options[i], NBD_REP_ERR_INVALID);
	}
	client_option(&c, NBD_OPT_STRUCTURED_REPLY, "x", 1);
	expect_type(&c, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_INVALID);
	end(&c);
}

static void test_unknown_and_oversize_options(void)
{
	struct nbd_client c;
	static uint8_t big[100000];

	begin(&c, FIXED);
	client_option(&c, 4711, "abc", 3);
	expect_type(&c, 4711, NBD_REP_ERR_UNSUP);
	client_option(&c, 11, NULL, 0); /* extended headers */
	expect_type(&c, 11, NBD_REP_ERR_UNSUP);
	client_option(&c, NBD_OPT_GO, big, sizeof(big));
	expect_type(&c, NBD_OPT_GO, NBD_REP_ERR_TOO_BIG);
	client_option(&c, 4711, big, sizeof(big));
	expect_type(&c, 4711, NBD_REP_ERR_TOO_BIG);
	client_option(&c, NBD_OPT_LIST, NULL, 0); /* what was skipped was skipped exactly */
	CU_ASSERT_EQUAL(client_option_reply(&c).type, NBD_REP_SERVER);
	end(&c);
	begin(&c, FIXED);
	uint8_t header[16];
	put_be64(header, NBD_OPTION_MAGIC);
	put_be32(header + 8, NBD_OPT_GO);
	put_be32(header + 12, UINT32_MAX);
	client_send(&c, header, sizeof(header)); /* 4 GiB will not even be skipped */
	CU_ASSERT(client_is_ended(&c));
	end(&c);
}

static void test_something_else_than_an_option_ends_it(void)
{
	struct nbd_client c;
	begin(&c, FIXED);
	client_send(&c, "GET / HTTP/1.1\r\n\r\n", 18);
	CU_ASSERT(client_is_ended(&c));
	end(&c);
}

static void test_abort_is_acknowledged(void)
{
	struct nbd_client c;
	begin(&c, FIXED);
	client_option(&c, NBD_OPT_ABORT, "data is ignored", 15);
	expect_type(&c, NBD_OPT_ABORT, NBD_REP_ACK);
	CU_ASSERT(client_is_ended(&c));
	end(&c);
}

static void test_starttls_is_refused_without_tls(void)
{
	struct nbd_client c;
	begin(&c, FIXED);
	client_option(&c, NBD_OPT_STARTTLS, NULL, 0);
	expect_type(&c, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY);
	send_info(&c, NBD_OPT_GO, "vm1", 0, NULL);
	CU_ASSERT_EQUAL(client_option_reply(&c).type, NBD_REP_INFO);
	end(&c);
}

/* ---- metadata contexts ---- */

static void test_contexts_need_structured_replies(void)
{
	static const char *const queries[] = {"base:allocation"};
	struct nbd_client c;
	begin(&c, FIXED);
	send_meta(&c, NBD_OPT_LIST_META_CONTEXT, "vm1", 1, queries);
	expect_type(&c, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ERR_INVALID);
	send_meta(&c, NBD_OPT_SET_META_CONTEXT, "vm1", 1, queries);
	expect_type(&c, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
	end(&c);
}

/* Does it say base:allocation, then ACK? */
static void expect_allocation(struct nbd_client *c, uint32_t option, bool is_there)
{
	if (is_there) {
		struct option_reply r = client_option_reply(c);
		CU_ASSERT_EQUAL(r.type, NBD_REP_META_CONTEXT);
		CU_ASSERT(r.len_bytes == 19 && memcmp(r.data + 4, "base:allocation", 15) == 0);
	}
	expect_type(c, option, NBD_REP_ACK);
}

static void test_contexts_are_listed_and_set(void)
{
	static const char *const exact[] = {"x-other:y", "base:allocation"};
	static const char *const wild[] = {"base:"};
	static const char *const other[] = {"qemu:dirty-bitmap:b"};
	struct nbd_client c;

	begin(&c, FIXED);
	client_option(&c, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	expect_type(&c, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
	send_meta(&c, NBD_OPT_LIST_META_CONTEXT, "vm1", 0, NULL);
	expect_allocation(&c, NBD_OPT_LIST_META_CONTEXT, true);
	send_meta(&c, NBD_OPT_LIST_META_CONTEXT, "vm1", 1, wild);
	expect_allocation(&c, NBD_OPT_LIST_META_CONTEXT, true);
	send_meta(&c, NBD_OPT_LIST_META_CONTEXT, "vm1", 1, other);
	expect_allocation(&c, NBD_OPT_LIST_META_CONTEXT, false);
	send_meta(&c, NBD_OPT_LIST_META_CONTEXT, "nobody", 0, NULL);
	expect_type(&c, NBD_OPT_LIST_META_CONTEXT, NBD_REP_ERR_UNKNOWN);
	send_meta(&c, NBD_OPT_SET_META_CONTEXT, "vm1", 0, NULL);
	expect_allocation(&c, NBD_OPT_SET_META_CONTEXT, false);
	send_meta(&c, NBD_OPT_SET_META_CONTEXT, "vm1", 1, wild);
	expect_allocation(&c, NBD_OPT_SET_META_CONTEXT, false);
	send_meta(&c, NBD_OPT_SET_META_CONTEXT, "vm1", 2, exact);
	expect_allocation(&c, NBD_OPT_SET_META_CONTEXT, true);
	end(&c);
}

/* More snapshots than fit into one answer; the wildcard, too. A request on the same connection goes on behind it. */
static void test_contexts_of_hundreds_of_snapshots(void)
{
	static const char *const wild[] = {"qemu:dirty-bitmap:", "base:allocation"};
	struct nbd_client c;
	world_start(&world, &(struct nbd_world_options){0});
	fake_volume_add(world.set, &(struct fake_options){.name = "z", .size_bytes = MIB, .n_bases = 1000});
	client_connect(&world, &c);
	client_greet(&c, FIXED);
	client_option(&c, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	expect_type(&c, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
	for (uint32_t n_queries = 0; n_queries <= 2; n_queries++) {
		send_meta(&c, NBD_OPT_LIST_META_CONTEXT, "z", n_queries, wild);
		struct option_reply r = client_option_reply(&c);
		if (n_queries != 1) {
			CU_ASSERT(r.len_bytes == 19 && memcmp(r.data + 4, "base:allocation", 15) == 0);
			r = client_option_reply(&c);
		}
		uint32_t n = 0;
		for (; r.type == NBD_REP_META_CONTEXT; r = client_option_reply(&c)) {
			char wanted[64];
			int len = snprintf(wanted, sizeof(wanted), "qemu:dirty-bitmap:base-%u", n++);
			CU_ASSERT(r.len_bytes == (uint32_t)len + 4 && memcmp(r.data + 4, wanted, (size_t)len) == 0);
		}
		CU_ASSERT_EQUAL(r.type, NBD_REP_ACK);
		CU_ASSERT_EQUAL(n, 1000);
	}
	send_meta(&c, NBD_OPT_LIST_META_CONTEXT, "vm1", 0, NULL);
	expect_allocation(&c, NBD_OPT_LIST_META_CONTEXT, true);
	end(&c);
}

/* After SET for one export and GO for another, or a second SET that fails, block status is refused. */
static void test_a_context_counts_for_its_export_and_until_the_next_set(void)
{
	static const char *const exact[] = {"base:allocation"};
	for (int way = 0; way < 3; way++) {
		struct nbd_client c;
		begin(&c, FIXED);
		client_option(&c, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		expect_type(&c, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK);
		send_meta(&c, NBD_OPT_SET_META_CONTEXT, way == 1 ? "snap" : "vm1", 1, exact);
		expect_allocation(&c, NBD_OPT_SET_META_CONTEXT, true);
		if (way == 2) {
			send_meta(&c, NBD_OPT_SET_META_CONTEXT, "nobody", 1, exact);
			expect_type(&c, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_UNKNOWN);
		}
		send_info(&c, NBD_OPT_GO, "vm1", 0, NULL);
		while (client_option_reply(&c).type == NBD_REP_INFO) {
		}
		client_request(&c, &(struct client_request){.command = NBD_CMD_BLOCK_STATUS, .len_bytes = 4096});
		struct chunk k = client_chunk(&c);
		CU_ASSERT_EQUAL(k.type, way == 0 ? NBD_CHUNK_BLOCK_STATUS : NBD_CHUNK_ERROR);
		end(&c);
	}
}

/* ---- time and size ---- */

static void test_a_silent_client_is_sent_away(void)
{
	struct nbd_client c;
	world_start(&world, &(struct nbd_world_options){0});
	client_connect(&world, &c);
	CU_ASSERT_PTR_NOT_NULL(client_take(&c, NBD_GREETING_BYTES));
	world_pass(&world, (NBD_HANDSHAKE_S - 1) * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->n_connections), 1);
	world_pass(&world, 2 * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->n_connections), 0);
	CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->handshakes_failed), 1);
	CU_ASSERT(client_is_ended(&c));
	end(&c);
}

static void test_a_client_that_leaves_at_any_byte(void)
{
	uint8_t talk[128], data[64];
	uint32_t len = 4;

	put_be32(talk, FIXED);
	put_be64(talk + 4, NBD_OPTION_MAGIC);
	put_be32(talk + 12, NBD_OPT_SET_META_CONTEXT);
	uint32_t n = encode_meta(data, "vm1", 1, (const char *const[]){"base:allocation"});
	put_be32(talk + 16, n);
	memcpy(talk + 20, data, n);
	len += 16 + n;
	for (uint32_t i = 0; i <= len; i++) {
		struct nbd_client c;
		world_start(&world, &(struct nbd_world_options){.seed = i + 1});
		client_connect(&world, &c);
		client_send(&c, talk, i);
		client_close(&c);
		world_pass(&world, NS_PER_S);
		CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->n_connections), 0);
		world_end(&world);
	}
}

static void test_everything_byte_by_byte(void)
{
	static const uint8_t go[] = {0, 0, 0, 3, 'v', 'm', '1', 0, 0};
	struct nbd_client c;
	uint8_t talk[64];

	world_start(&world, &(struct nbd_world_options){0});
	client_connect(&world, &c);
	put_be32(talk, FIXED);
	put_be64(talk + 4, NBD_OPTION_MAGIC);
	put_be32(talk + 12, NBD_OPT_GO);
	put_be32(talk + 16, sizeof(go));
	memcpy(talk + 20, go, sizeof(go));
	CU_ASSERT_PTR_NOT_NULL(client_take(&c, NBD_GREETING_BYTES));
	for (size_t i = 0; i < 20 + sizeof(go); i++) {
		client_send(&c, talk + i, 1);
		world_pass(&world, NS_PER_MS);
	}
	CU_ASSERT_EQUAL(client_option_reply(&c).type, NBD_REP_INFO);
	CU_ASSERT_EQUAL(client_option_reply(&c).type, NBD_REP_INFO);
	expect_type(&c, NBD_OPT_GO, NBD_REP_ACK);
	expect_serves(&c);
	end(&c);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("nbd_negotiation", NULL, NULL);
	CU_ADD_TEST(suite, test_unknown_client_flags_end_it);
	CU_ADD_TEST(suite, test_without_fixed_newstyle_only_export_name_is_heard);
	CU_ADD_TEST(suite, test_export_name_with_zeroes);
	CU_ADD_TEST(suite, test_export_name_without_zeroes);
	CU_ADD_TEST(suite, test_export_name_unknown_ends_it);
	CU_ADD_TEST(suite, test_list_names_every_export);
	CU_ADD_TEST(suite, test_list_longer_than_one_answer);
	CU_ADD_TEST(suite, test_info_tells_what_was_asked);
	CU_ADD_TEST(suite, test_unknown_export_is_said_so);
	CU_ADD_TEST(suite, test_malformed_options_are_invalid);
	CU_ADD_TEST(suite, test_unknown_and_oversize_options);
	CU_ADD_TEST(suite, test_something_else_than_an_option_ends_it);
	CU_ADD_TEST(suite, test_abort_is_acknowledged);
	CU_ADD_TEST(suite, test_starttls_is_refused_without_tls);
	CU_ADD_TEST(suite, test_contexts_need_structured_replies);
	CU_ADD_TEST(suite, test_contexts_are_listed_and_set);
	CU_ADD_TEST(suite, test_contexts_of_hundreds_of_snapshots);
	CU_ADD_TEST(suite, test_a_context_counts_for_its_export_and_until_the_next_set);
	CU_ADD_TEST(suite, test_a_silent_client_is_sent_away);
	CU_ADD_TEST(suite, test_a_client_that_leaves_at_any_byte);
	CU_ADD_TEST(suite, test_everything_byte_by_byte);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
