/*
 * test_nbd_transmission.c: requests and replies: every command, every size, errors, order, and clients that leave.
 */
#include "tests/unit/nbd_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct nbd_world world;
static struct nbd_client client;

static void begin(bool is_structured)
{
	world_start(&world, &(struct nbd_world_options){0});
	client_connect(&world, &client);
	client_go(&client, "vm1", is_structured);
}

static void end(void)
{
	client_close(&client);
	world_end(&world);
}

static uint8_t *random_bytes(size_t len_bytes, unsigned seed)
{
	uint8_t *p = malloc(len_bytes);
	quarry_assert(p != NULL);
	for (size_t i = 0; i < len_bytes; i++)
		p[i] = (uint8_t)(rand_r(&seed) >> 7 | 1);
	return p;
}

static void send_write(uint64_t cookie, uint64_t pos, const void *data, uint32_t len, uint16_t flags)
{
	client_request(
	    &client,
	    &(struct client_request){
		.command = NBD_CMD_WRITE, .flags = flags, .cookie = cookie, .pos_bytes = pos, .len_bytes = len});
	client_send(&client, data, len);
}

static void send_command(uint16_t command, uint16_t flags, uint64_t cookie, uint64_t pos, uint32_t len)
{
	client_request(&client,
		       &(struct client_request){
			   .command = command, .flags = flags, .cookie = cookie, .pos_bytes = pos, .len_bytes = len});
}

static void expect_simple(uint64_t cookie, uint32_t error)
{
	struct simple_reply r = client_simple_reply(&client);
	CU_ASSERT_EQUAL(r.magic, NBD_SIMPLE_REPLY_MAGIC);
	CU_ASSERT_EQUAL(r.cookie, cookie);
	CU_ASSERT_EQUAL(r.error, error);
}

static void expect_error_chunk(uint64_t cookie, uint32_t error)
{
	struct chunk k = client_chunk(&client);
	CU_ASSERT(k.magic == NBD_CHUNK_MAGIC && k.cookie == cookie);
	CU_ASSERT(k.type == NBD_CHUNK_ERROR && (k.flags & NBD_CHUNK_DONE));
	CU_ASSERT_FATAL(k.len_bytes >= 6);
	CU_ASSERT_EQUAL(get_be32(k.data), error);
	CU_ASSERT_EQUAL(get_be16(k.data + 4), k.len_bytes - 6);
}

/* Takes a structured read's chunks and puts them together; true when every byte came exactly once. */
static bool take_read(uint64_t cookie, uint64_t pos, uint8_t *out, uint32_t len, uint32_t *n_holes)
{
	uint64_t got = 0;
	struct chunk k;

	do {
		k = client_chunk(&client);
		if (k.magic != NBD_CHUNK_MAGIC || k.cookie != cookie)
			return false;
		if (k.type == NBD_CHUNK_NONE)
			continue;
		bool is_hole = k.type == NBD_CHUNK_OFFSET_HOLE;
		if (!is_hole && k.type != NBD_CHUNK_OFFSET_DATA)
			return false;
		uint64_t at = get_be64(k.data);
		uint32_t n = is_hole ? get_be32(k.data + 8) : k.len_bytes - 8;
		if (at < pos || at + n > pos + len)
			return false;
		if (is_hole)
			memset(out + (at - pos), 0, n);
		else
			memcpy(out + (at - pos), k.data + 8, n);
		*n_holes += is_hole;
		got += n;
	} while (!(k.flags & NBD_CHUNK_DONE));
	return got == len;
}

/* ---- reads and writes ---- */

static const uint32_t sizes[] = {
    512, 4096, 4096 + 512, 65536, 262144, (1 << 20) - 512, 1 << 20, (1 << 20) + 512, (5 << 20) + 4096, 32 << 20};

static void test_every_size_comes_back(void)
{
	for (int is_structured = 0; is_structured < 2; is_structured++) {
		begin(is_structured);
		for (size_t i = 0; i < array_size(sizes); i++) {
			uint32_t len = sizes[i], n_holes = 0;
			uint64_t pos = i % 2 ? 512 : 8192;
			uint8_t *data = random_bytes(len, (unsigned)i), *back = calloc(1, len);
			send_write(i, pos, data, len, 0);
			expect_simple(i, NBD_OK);
			send_command(NBD_CMD_READ, 0, 100 + i, pos, len);
			if (is_structured) {
				CU_ASSERT(take_read(100 + i, pos, back, len, &n_holes));
				CU_ASSERT_EQUAL(n_holes, 0);
			} else {
				expect_simple(100 + i, NBD_OK);
				const uint8_t *p = client_take(&client, len);
				CU_ASSERT_PTR_NOT_NULL_FATAL(p);
				memcpy(back, p, len);
			}
			CU_ASSERT_EQUAL(memcmp(data, back, len), 0);
			fake_volume_peek(world.vm, pos, back, len);
			CU_ASSERT_EQUAL(memcmp(data, back, len), 0);
			free(data);
			free(back);
		}
		end();
	}
}

/* Promise P5 asks for one request to the volume. */
static void test_up_to_256_kib_is_one_request_to_the_volume(void)
{
	begin(false);
	uint8_t *data = random_bytes(262144, 3);
	send_write(1, 512, data, 262144, 0);
	expect_simple(1, NBD_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).ops[VOLUME_WRITE], 1);
	free(data);
	end();
}

static void test_large_requests_are_cut_at_blocks(void)
{
	begin(false);
	uint8_t *data = random_bytes(3 << 20, 3);
	send_write(1, 512, data, 3 << 20, 0);
	expect_simple(1, NBD_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).ops[VOLUME_WRITE], 4);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).last_pos_bytes % BLOCK_BYTES, 0);
	free(data);
	end();
}

static void test_requests_of_no_length(void)
{
	begin(true);
	send_command(NBD_CMD_READ, 0, 1, 4096, 0);
	struct chunk k = client_chunk(&client);
	CU_ASSERT(k.type == NBD_CHUNK_NONE && k.flags == NBD_CHUNK_DONE && k.cookie == 1 && k.len_bytes == 0);
	send_command(NBD_CMD_WRITE, 0, 2, 4096, 0);
	expect_simple(2, NBD_OK);
	send_command(NBD_CMD_TRIM, 0, 3, 4096, 0);
	expect_simple(3, NBD_OK);
	send_command(NBD_CMD_WRITE_ZEROES, 0, 4, 4096, 0);
	expect_simple(4, NBD_OK);
	send_command(NBD_CMD_CACHE, 0, 5, 4096, 0);
	expect_simple(5, NBD_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).last_len_bytes, 0);
	end();
	begin(false);
	send_command(NBD_CMD_READ, 0, 6, 4096, 0);
	expect_simple(6, NBD_OK);
	CU_ASSERT(client_hears_nothing(&client));
	end();
}

static void test_zeros_are_told_as_holes_unless_forbidden(void)
{
	uint32_t n_holes = 0;
	uint8_t back[8192];

	begin(true);
	send_command(NBD_CMD_READ, 0, 1, 0, 8192);
	CU_ASSERT(take_read(1, 0, back, 8192, &n_holes));
	CU_ASSERT_EQUAL(n_holes, 1);
	send_command(NBD_CMD_READ, NBD_CMD_DF, 2, 0, 8192);
	CU_ASSERT(take_read(2, 0, back, 8192, &n_holes));
	CU_ASSERT_EQUAL(n_holes, 1);
	memset(back, 0, sizeof(back));
	back[8191] = 1;
	fake_volume_poke(world.vm, 0, back, 8192);
	send_command(NBD_CMD_READ, 0, 3, 0, 8192);
	CU_ASSERT(take_read(3, 0, back, 8192, &n_holes));
	CU_ASSERT(n_holes == 1 && back[8191] == 1);
	end();
}

static void test_unfragmented_reads_are_one_chunk(void)
{
	begin(true);
	send_command(NBD_CMD_READ, NBD_CMD_DF, 1, 512, 1 << 20);
	struct chunk k = client_chunk(&client);
	CU_ASSERT(k.type == NBD_CHUNK_OFFSET_DATA && (k.flags & NBD_CHUNK_DONE) && k.len_bytes == (1 << 20) + 8);
	send_command(NBD_CMD_READ, NBD_CMD_DF, 2, 0, 2 << 20);
	expect_error_chunk(2, NBD_EOVERFLOW);
	end();
}

/* ---- the other commands ---- */

static void test_flags_reach_the_volume(void)
{
	uint8_t data[512] = {1};

	begin(true);
	send_write(1, 0, data, 512, NBD_CMD_FUA);
	expect_simple(1, NBD_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).n_fua, 1);
	send_command(NBD_CMD_TRIM, NBD_CMD_FUA, 2, 0, 4096);
	expect_simple(2, NBD_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).n_fua, 2);
	send_command(NBD_CMD_WRITE_ZEROES, NBD_CMD_FUA | NBD_CMD_NO_HOLE, 3, 0, 4096);
	expect_simple(3, NBD_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).n_fua, 3);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).n_no_hole, 1);
	send_command(NBD_CMD_WRITE_ZEROES, NBD_CMD_FAST_ZERO, 4, 0, 4096);
	expect_simple(4, NBD_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).n_fast_zero, 1);
	send_command(NBD_CMD_WRITE_ZEROES, NBD_CMD_FAST_ZERO | NBD_CMD_NO_HOLE, 5, 0, 4096);
	expect_error_chunk(5, NBD_ENOTSUP);
	send_command(NBD_CMD_FLUSH, NBD_CMD_FUA, 6, 0, 0);
	expect_simple(6, NBD_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).ops[VOLUME_FLUSH], 1);
	send_command(NBD_CMD_READ, NBD_CMD_FUA, 7, 0, 512);
	CU_ASSERT_EQUAL(client_chunk(&client).cookie, 7);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).n_fua, 3);
	end();
}

static void test_trims_and_zeroes_of_almost_4_gib_are_one_request(void)
{
	uint32_t most = 0xfffffe00;

	world_start(&world, &(struct nbd_world_options){0});
	struct volume *v =
	    fake_volume_add(world.set, &(struct fake_options){.name = "vm2", .size_bytes = 8 * GIB, .is_null = true});
	client_connect(&world, &client);
	client_go(&client, "vm2", true);
	send_command(NBD_CMD_TRIM, 0, 1, 512, most);
	expect_simple(1, NBD_OK);
	CU_ASSERT(fake_volume_counts(v).ops[VOLUME_TRIM] == 1 && fake_volume_counts(v).last_len_bytes == most);
	send_command(NBD_CMD_WRITE_ZEROES, 0, 2, 512, most);
	expect_simple(2, NBD_OK);
	CU_ASSERT(fake_volume_counts(v).ops[VOLUME_ZERO] == 1 && fake_volume_counts(v).last_len_bytes == most);
	send_command(NBD_CMD_BLOCK_STATUS, 0, 3, 512, most);
	struct chunk k = client_chunk(&client);
	CU_ASSERT(k.type == NBD_CHUNK_BLOCK_STATUS && k.len_bytes == 12 && get_be32(k.data + 4) == most);
	end();
}

static void test_block_status_tells_holes(void)
{
	uint8_t block[4096];

	memset(block, 7, sizeof(block));
	begin(true);
	fake_volume_poke(world.vm, 8192, block, 4096);
	fake_volume_poke(world.vm, 12288, block, 4096);
	fake_volume_poke(world.vm, 40960, block, 4096);
	send_command(NBD_CMD_BLOCK_STATUS, 0, 1, 512, 65536);
	struct chunk k = client_chunk(&client);
	CU_ASSERT(k.type == NBD_CHUNK_BLOCK_STATUS && (k.flags & NBD_CHUNK_DONE) && k.len_bytes == 4 + 5 * 8);
	static const uint32_t expected[5][2] = {{8192 - 512, 3}, {8192, 0}, {24576, 3}, {4096, 0}, {20480 + 512, 3}};
	CU_ASSERT_EQUAL(get_be32(k.data), NBD_CONTEXT_ALLOCATION);
	for (int i = 0; i < 5; i++) {
		CU_ASSERT_EQUAL(get_be32(k.data + 4 + 8 * i), expected[i][0]);
		CU_ASSERT_EQUAL(get_be32(k.data + 8 + 8 * i), expected[i][1]);
	}
	send_command(NBD_CMD_BLOCK_STATUS, NBD_CMD_REQ_ONE, 2, 512, 65536);
	k = client_chunk(&client);
	CU_ASSERT(k.len_bytes == 12 && get_be32(k.data + 4) == 8192 - 512);
	fake_volume_fail(world.vm, VOLUME_MAP, -EIO);
	send_command(NBD_CMD_BLOCK_STATUS, 0, 3, 512, 65536);
	expect_error_chunk(3, NBD_EIO);
	end();
}

static void test_cache_warms_and_returns_nothing(void)
{
	begin(false);
	send_command(NBD_CMD_CACHE, 0, 1, 0, WORLD_VOLUME_BYTES);
	expect_simple(1, NBD_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).ops[VOLUME_MAP], 1);
	end();
}

static void test_read_only_export(void)
{
	uint8_t data[512] = {1};

	world_start(&world, &(struct nbd_world_options){0});
	client_connect(&world, &client);
	client_go(&client, "snap", true);
	send_write(1, 0, data, 512, 0);
	expect_error_chunk(1, NBD_EPERM);
	send_command(NBD_CMD_TRIM, 0, 2, 0, 4096);
	expect_error_chunk(2, NBD_EPERM);
	send_command(NBD_CMD_WRITE_ZEROES, 0, 3, 0, 4096);
	expect_error_chunk(3, NBD_EPERM);
	send_command(NBD_CMD_FLUSH, 0, 4, 0, 0);
	expect_simple(4, NBD_OK);
	send_command(NBD_CMD_READ, 0, 5, 0, 512);
	CU_ASSERT_EQUAL(client_chunk(&client).cookie, 5);
	end();
}

/* ---- errors ---- */

static void test_payload_of_refused_writes_is_thrown_away(void)
{
	static const uint32_t lens[] = {511, 512, 4096, 100000, 2 << 20};
	uint8_t *data = random_bytes(2 << 20, 9);

	begin(true);
	for (size_t i = 0; i < array_size(lens); i++) {
		send_write(i, WORLD_VOLUME_BYTES, data, lens[i], 0);
		expect_error_chunk(i, NBD_ENOSPC);
		send_write(10 + i, 0, data, lens[i], NBD_CMD_REQ_ONE);
		expect_error_chunk(10 + i, NBD_EINVAL);
		send_command(NBD_CMD_FLUSH, 0, 20 + i, 0, 0);
		expect_simple(20 + i, NBD_OK);
	}
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).ops[VOLUME_WRITE], 0);
	free(data);
	end();
}

static void test_more_than_32_mib_is_refused_without_memory(void)
{
	uint8_t *data = random_bytes(48 << 20, 9);

	begin(false);
	send_write(1, 0, data, 48 << 20, 0);
	expect_simple(1, NBD_EINVAL);
	send_command(NBD_CMD_READ, 0, 2, 0, 48 << 20);
	expect_simple(2, NBD_EOVERFLOW);
	send_write(3, 0, data, 512, 0);
	expect_simple(3, NBD_OK);
	free(data);
	end();
}

static void test_unknown_command(void)
{
	begin(true);
	send_command(99, 0, 1, 0, 4096);
	expect_error_chunk(1, NBD_EINVAL);
	send_command(NBD_CMD_FLUSH, 0, 2, 0, 0);
	expect_simple(2, NBD_OK);
	end();
	begin(false);
	send_command(99, 0, 1, 0, 4096);
	expect_simple(1, NBD_EINVAL);
	end();
}

static void test_what_is_no_request_ends_it(void)
{
	uint8_t junk[NBD_REQUEST_BYTES] = {0x25, 0x60, 0x95, 0x14};

	begin(true);
	client_send(&client, junk, sizeof(junk));
	CU_ASSERT(client_is_ended(&client));
	end();
}

static void test_errors_of_the_volume(void)
{
	uint8_t data[4096] = {1};

	begin(true);
	fake_volume_fail(world.vm, VOLUME_READ, -EIO);
	send_command(NBD_CMD_READ, 0, 1, 0, 4096);
	expect_error_chunk(1, NBD_EIO);
	fake_volume_fail(world.vm, VOLUME_WRITE, -ENOSPC);
	send_write(2, 0, data, 4096, 0);
	expect_error_chunk(2, NBD_ENOSPC);
	fake_volume_fail(world.vm, VOLUME_TRIM, -ENOTSUP); /* only FAST_ZERO may be answered so */
	send_command(NBD_CMD_TRIM, 0, 3, 0, 4096);
	expect_error_chunk(3, NBD_EIO);
	fake_volume_fail(world.vm, VOLUME_READ, 0);
	send_command(NBD_CMD_READ, 0, 4, 0, 4096);
	CU_ASSERT_EQUAL(client_chunk(&client).type, NBD_CHUNK_OFFSET_HOLE);
	CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->errors), 3);
	end();
}

static void test_a_large_structured_read_that_fails_in_the_middle(void)
{
	uint8_t *data = random_bytes(16 << 20, 5);
	struct chunk k;

	begin(true);
	fake_volume_poke(world.vm, 0, data, 16 << 20);
	fake_volume_fail_at(world.vm, VOLUME_READ, 9 << 20, -EIO);
	send_command(NBD_CMD_READ, 0, 1, 0, 16 << 20);
	for (k = client_chunk(&client); k.type == NBD_CHUNK_OFFSET_DATA; k = client_chunk(&client)) {
		CU_ASSERT_FALSE(k.flags & NBD_CHUNK_DONE);
		CU_ASSERT_EQUAL(memcmp(k.data + 8, data + get_be64(k.data), k.len_bytes - 8), 0);
	}
	CU_ASSERT(k.type == NBD_CHUNK_ERROR && (k.flags & NBD_CHUNK_DONE) && get_be32(k.data) == NBD_EIO);
	send_command(NBD_CMD_FLUSH, 0, 2, 0, 0);
	expect_simple(2, NBD_OK);
	free(data);
	end();
}

/* Inside the first window the error can still be told; behind it only the end of the connection can. */
static void test_a_large_simple_read_that_fails(void)
{
	uint8_t *data = random_bytes(16 << 20, 5);

	begin(false);
	fake_volume_poke(world.vm, 0, data, 16 << 20);
	fake_volume_fail_at(world.vm, VOLUME_READ, MIB + 512, -EIO);
	send_command(NBD_CMD_READ, 0, 1, 0, 2 << 20);
	expect_simple(1, NBD_EIO);
	fake_volume_fail_at(world.vm, VOLUME_READ, 15 * MIB, -EIO);
	send_command(NBD_CMD_READ, 0, 2, 0, 16 << 20);
	expect_simple(2, NBD_OK);
	const uint8_t *p = client_take(&client, 2 << 20);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT_EQUAL(memcmp(p, data, 2 << 20), 0);
	CU_ASSERT_PTR_NULL(client_take(&client, 14 << 20));
	CU_ASSERT(client.has_ended);
	free(data);
	end();
}

static void test_a_large_write_that_fails_in_the_middle(void)
{
	uint8_t *data = random_bytes(16 << 20, 5);

	begin(true);
	fake_volume_fail_at(world.vm, VOLUME_WRITE, 5 << 20, -ENOSPC);
	send_write(1, 0, data, 16 << 20, 0);
	expect_error_chunk(1, NBD_ENOSPC);
	send_command(NBD_CMD_FLUSH, 0, 2, 0, 0);
	expect_simple(2, NBD_OK);
	free(data);
	end();
}

/* ---- order and limits ---- */

static bool volume_has(void *context)
{
	return fake_volume_n_held(world.vm) >= *(uint32_t *)context;
}

static void wait_for_held(uint32_t n)
{
	CU_ASSERT_FATAL(world_run(&world, volume_has, &n));
}

static void test_replies_come_in_the_order_of_completion(void)
{
	begin(true);
	fake_volume_hold(world.vm, true);
	for (uint64_t i = 0; i < 8; i++)
		send_command(NBD_CMD_TRIM, 0, i, i * 4096, 4096);
	wait_for_held(8);
	for (uint32_t i = 8; i > 0; i--) {
		fake_volume_let_go(world.vm, i - 1);
		expect_simple(i - 1, NBD_OK);
	}
	CU_ASSERT(client_hears_nothing(&client));
	end();
}

static bool trim_came(void *context)
{
	(void)context;
	return fake_volume_counts(world.vm).ops[VOLUME_TRIM] > 0;
}

/* The parts of a simple reply follow each other although another reply became ready between them. */
static void test_nothing_comes_between_the_parts_of_a_simple_reply(void)
{
	uint8_t *data = random_bytes(12 << 20, 5);

	begin(false);
	fake_volume_poke(world.vm, 0, data, 12 << 20);
	fake_volume_hold(world.vm, true);
	send_command(NBD_CMD_READ, 0, 1, 0, 12 << 20);
	send_command(NBD_CMD_TRIM, 0, 2, 32 << 20, 4096);
	CU_ASSERT_FATAL(world_run(&world, trim_came, NULL));
	uint32_t n_window = fake_volume_n_held(world.vm) - 1;
	for (uint32_t i = 0; i < n_window; i++)
		fake_volume_let_go(world.vm, 0); /* the first window */
	expect_simple(1, NBD_OK);
	fake_volume_let_go(world.vm, 0); /* the trim */
	fake_volume_hold(world.vm, false);
	while (fake_volume_n_held(world.vm) > 0)
		fake_volume_let_go(world.vm, 0);
	const uint8_t *p = client_take(&client, 12 << 20);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT_EQUAL(memcmp(p, data, 12 << 20), 0);
	expect_simple(2, NBD_OK);
	free(data);
	end();
}

static void test_a_connection_has_at_most_128_requests_in_flight(void)
{
	begin(true);
	fake_volume_hold(world.vm, true);
	for (uint64_t i = 0; i < 300; i++)
		send_command(NBD_CMD_TRIM, 0, i, 0, 4096);
	world_pass(&world, NS_PER_S);
	CU_ASSERT_EQUAL(fake_volume_n_held(world.vm), 128);
	fake_volume_hold(world.vm, false);
	while (fake_volume_n_held(world.vm) > 0)
		fake_volume_let_go(world.vm, 0);
	for (uint64_t i = 0; i < 300; i++)
		CU_ASSERT_EQUAL(client_simple_reply(&client).error, NBD_OK);
	end();
}

/* ---- ends ---- */

static void test_disc_waits_for_what_is_in_flight(void)
{
	begin(true);
	fake_volume_hold(world.vm, true);
	for (uint64_t i = 0; i < 40; i++)
		send_command(NBD_CMD_TRIM, 0, i, 0, 4096);
	send_command(NBD_CMD_DISC, 0, 0, 0, 0);
	wait_for_held(40);
	CU_ASSERT(client_hears_nothing(&client));
	fake_volume_hold(world.vm, false);
	while (fake_volume_n_held(world.vm) > 0)
		fake_volume_let_go(world.vm, 0);
	for (uint64_t i = 0; i < 40; i++)
		expect_simple(i, NBD_OK);
	CU_ASSERT(client_is_ended(&client));
	end();
}

static void test_a_client_that_leaves_with_forty_requests_in_flight(void)
{
	for (int n_let_go = 0; n_let_go < 3; n_let_go++) {
		begin(n_let_go % 2);
		fake_volume_hold(world.vm, true);
		uint8_t *data = random_bytes(4096, 1);
		for (uint64_t i = 0; i < 20; i++) {
			send_write(i, i * 4096, data, 4096, 0);
			send_command(NBD_CMD_READ, 0, 100 + i, i * 4096, 4096);
		}
		wait_for_held(40);
		for (int i = 0; i < n_let_go * 10; i++)
			fake_volume_let_go(world.vm, 0);
		client_close(&client);
		world_pass(&world, NS_PER_S);
		CU_ASSERT_EQUAL(fake_volume_counts(world.vm).references, 1); /* the volume still has its buffers */
		fake_volume_hold(world.vm, false);
		while (fake_volume_n_held(world.vm) > 0)
			fake_volume_let_go(world.vm, 0);
		world_pass(&world, NS_PER_S);
		CU_ASSERT_EQUAL(fake_volume_counts(world.vm).references, 0);
		CU_ASSERT_EQUAL(buffers_used_bytes(world.buffers), 0);
		CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->n_connections), 0);
		world_end(&world);
		free(data);
	}
}

static void test_a_client_that_leaves_within_a_payload(void)
{
	static const uint32_t lens[] = {4096, 200000, 8 << 20};
	uint8_t *data = random_bytes(8 << 20, 1);

	for (size_t i = 0; i < array_size(lens); i++) {
		begin(true);
		send_command(NBD_CMD_WRITE, 0, 1, 0, lens[i]);
		client_send(&client, data, lens[i] - 1);
		client_close(&client);
		world_pass(&world, NS_PER_S);
		CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->n_connections), 0);
		CU_ASSERT_EQUAL(buffers_used_bytes(world.buffers), 0);
		CU_ASSERT(fake_volume_counts(world.vm).ops[VOLUME_WRITE] < 9); /* the last part never */
		world_end(&world);
	}
	free(data);
}

static void test_detaching_answers_and_ends(void)
{
	begin(true);
	fake_volume_hold(world.vm, true);
	send_command(NBD_CMD_TRIM, 0, 1, 0, 4096);
	wait_for_held(1);
	fake_volume_detach(world.vm);
	fake_volume_hold(world.vm, false);
	fake_volume_let_go(world.vm, 0);
	expect_simple(1, NBD_OK);
	CU_ASSERT(client_is_ended(&client));
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).references, 0);
	end();
}

static void test_growing_is_seen_at_once(void)
{
	begin(true);
	fake_volume_resize(world.vm, MIB);
	send_command(NBD_CMD_TRIM, 0, 1, MIB, 4096);
	expect_error_chunk(1, NBD_EINVAL);
	fake_volume_resize(world.vm, 2 * MIB);
	send_command(NBD_CMD_TRIM, 0, 2, MIB, 4096);
	expect_simple(2, NBD_OK);
	end();
}

static void test_stopping_the_server_answers_what_is_in_flight(void)
{
	begin(true);
	fake_volume_hold(world.vm, true);
	for (uint64_t i = 0; i < 5; i++)
		send_command(NBD_CMD_TRIM, 0, i, 0, 4096);
	send_command(NBD_CMD_WRITE, 0, 5, 0, 8192); /* whose payload never comes */
	wait_for_held(5);
	world_pass(
	    &world,
	    NS_PER_S); /* it has read all that was sent: else its end would be a reset, which takes replies away */
	fake_volume_hold(world.vm, false);
	while (fake_volume_n_held(world.vm) > 0)
		fake_volume_let_go(world.vm, 0);
	world_stop_server(&world);
	for (uint64_t i = 0; i < 5; i++)
		expect_simple(i, NBD_OK);
	CU_ASSERT(client_is_ended(&client));
	end();
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("nbd_transmission", NULL, NULL);
	CU_ADD_TEST(suite, test_every_size_comes_back);
	CU_ADD_TEST(suite, test_up_to_256_kib_is_one_request_to_the_volume);
	CU_ADD_TEST(suite, test_large_requests_are_cut_at_blocks);
	CU_ADD_TEST(suite, test_requests_of_no_length);
	CU_ADD_TEST(suite, test_zeros_are_told_as_holes_unless_forbidden);
	CU_ADD_TEST(suite, test_unfragmented_reads_are_one_chunk);
	CU_ADD_TEST(suite, test_flags_reach_the_volume);
	CU_ADD_TEST(suite, test_trims_and_zeroes_of_almost_4_gib_are_one_request);
	CU_ADD_TEST(suite, test_block_status_tells_holes);
	CU_ADD_TEST(suite, test_cache_warms_and_returns_nothing);
	CU_ADD_TEST(suite, test_read_only_export);
	CU_ADD_TEST(suite, test_payload_of_refused_writes_is_thrown_away);
	CU_ADD_TEST(suite, test_more_than_32_mib_is_refused_without_memory);
	CU_ADD_TEST(suite, test_unknown_command);
	CU_ADD_TEST(suite, test_what_is_no_request_ends_it);
	CU_ADD_TEST(suite, test_errors_of_the_volume);
	CU_ADD_TEST(suite, test_a_large_structured_read_that_fails_in_the_middle);
	CU_ADD_TEST(suite, test_a_large_simple_read_that_fails);
	CU_ADD_TEST(suite, test_a_large_write_that_fails_in_the_middle);
	CU_ADD_TEST(suite, test_replies_come_in_the_order_of_completion);
	CU_ADD_TEST(suite, test_nothing_comes_between_the_parts_of_a_simple_reply);
	CU_ADD_TEST(suite, test_a_connection_has_at_most_128_requests_in_flight);
	CU_ADD_TEST(suite, test_disc_waits_for_what_is_in_flight);
	CU_ADD_TEST(suite, test_a_client_that_leaves_with_forty_requests_in_flight);
	CU_ADD_TEST(suite, test_a_client_that_leaves_within_a_payload);
	CU_ADD_TEST(suite, test_detaching_answers_and_ends);
	CU_ADD_TEST(suite, test_growing_is_seen_at_once);
	CU_ADD_TEST(suite, test_stopping_the_server_answers_what_is_in_flight);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
