/*
 * test_nbd_server.c: limits, shares, and many clients at once: one that is slow, silent or greedy harms nobody.
 */
#include "tests/unit/nbd_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS_MAX        24u
#define REQUEST_LINE_BYTES 400u

static struct nbd_world world;
static struct nbd_client clients[CLIENTS_MAX];

static void join(uint32_t i, bool is_structured)
{
	client_connect(&world, &clients[i]);
	client_go(&clients[i], "vm1", is_structured);
}

static const struct nbd_counters *counters(void)
{
	return nbd_server_counters(world.server);
}

static void ask(struct nbd_client *c, uint16_t command, uint64_t cookie, uint64_t pos, uint32_t len)
{
	client_request(
	    c, &(struct client_request){.command = command, .cookie = cookie, .pos_bytes = pos, .len_bytes = len});
}

/* ---- connections ---- */

static void test_the_limit_of_connections(void)
{
	world_start(&world, &(struct nbd_world_options){.max_connections = 3});
	for (uint32_t i = 0; i < 3; i++)
		join(i, true);
	client_connect(&world, &clients[3]);
	CU_ASSERT(client_is_ended(&clients[3]));
	CU_ASSERT_EQUAL(counter_get(&counters()->refused), 1);
	client_close(&clients[3]);
	ask(&clients[0], NBD_CMD_TRIM, 1, 0, 4096); /* the others do not notice */
	CU_ASSERT_EQUAL(client_simple_reply(&clients[0]).cookie, 1);
	client_close(&clients[0]);
	world_pass(&world, NS_PER_S);
	join(3, true);
	for (uint32_t i = 1; i < 4; i++)
		client_close(&clients[i]);
	world_end(&world);
}

static void test_the_undecided_make_room(void)
{
	world_start(&world, &(struct nbd_world_options){.max_connections = 3});
	join(0, true);
	client_connect(&world, &clients[1]);
	client_connect(&world, &clients[2]);
	CU_ASSERT_PTR_NOT_NULL(client_take(&clients[1], NBD_GREETING_BYTES));
	CU_ASSERT_PTR_NOT_NULL(client_take(&clients[2], NBD_GREETING_BYTES));
	join(3, true);
	CU_ASSERT(client_is_ended(&clients[1])); /* it came first */
	join(4, true);
	CU_ASSERT(client_is_ended(&clients[2]));
	client_connect(&world, &clients[5]);
	CU_ASSERT(client_is_ended(&clients[5]));
	CU_ASSERT_EQUAL(counter_get(&counters()->refused), 1);
	for (uint32_t i = 0; i < 6; i++)
		client_close(&clients[i]);
	world_end(&world);
}

/* ---- shares ---- */

static void pause_with_reads(uint32_t i, uint32_t n, uint32_t len)
{
	client_pause(&clients[i], true);
	for (uint32_t k = 0; k < n; k++)
		ask(&clients[i], NBD_CMD_READ, k, 0, len);
	world_pass(&world, NS_PER_S);
}

static void expect_served(struct nbd_client *c, uint32_t len)
{
	uint8_t *data = malloc(len);
	memset(data, 0xa5, len);
	ask(c, NBD_CMD_WRITE, 1, 32 << 20, len);
	client_send(c, data, len);
	struct simple_reply r = client_simple_reply(c);
	CU_ASSERT(r.magic == NBD_SIMPLE_REPLY_MAGIC && r.error == NBD_OK && r.cookie == 1);
	ask(c, NBD_CMD_READ, 2, 32 << 20, len);
	r = client_simple_reply(c);
	CU_ASSERT(r.magic == NBD_SIMPLE_REPLY_MAGIC && r.error == NBD_OK && r.cookie == 2);
	const uint8_t *back = client_take(c, len);
	CU_ASSERT_PTR_NOT_NULL_FATAL(back);
	CU_ASSERT_EQUAL(memcmp(back, data, len), 0);
	free(data);
}

static void test_slow_readers_leave_room_for_others(void)
{
	uint8_t block[4096];

	world_start(&world, &(struct nbd_world_options){.budget_bytes = 8 * MIB});
	memset(block, 1, sizeof(block));
	for (uint64_t pos = 0; pos < 4 * MIB; pos += sizeof(block))
		fake_volume_poke(world.vm, pos, block, sizeof(block));
	for (uint32_t i = 0; i < 5; i++) {
		join(i, i % 2);
		pause_with_reads(i, 100, i == 0 ? 4096 : 1 << 20);
		CU_ASSERT(buffers_used_bytes(world.buffers) < 8 * MIB);
	}
	join(5, false);
	expect_served(&clients[5], 4096);
	expect_served(&clients[5], 256 << 10);
	expect_served(&clients[5], 3 << 20);
	CU_ASSERT_EQUAL(counter_get(&counters()->stalled), 0);
	for (uint32_t i = 0; i < 6; i++)
		client_close(&clients[i]);
	world_end(&world);
}

/* With a budget of one buffer, whoever holds it keeps everybody else waiting. */
static void test_who_keeps_others_waiting_is_sent_away(void)
{
	uint8_t *data = calloc(1, MIB);

	memset(data, 1, MIB);
	world_start(&world, &(struct nbd_world_options){.budget_bytes = MIB});
	fake_volume_poke(world.vm, 0, data, MIB);
	join(0, false);
	pause_with_reads(0, 1, MIB);
	CU_ASSERT_EQUAL(buffers_used_bytes(world.buffers), MIB);
	join(1, false);
	ask(&clients[1], NBD_CMD_READ, 7, 0, 4096);
	world_pass(&world, (NBD_STALL_S - 2) * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&counters()->stalled), 0);
	CU_ASSERT_EQUAL(counter_get(&counters()->waits_buffers), 1);
	world_pass(&world, 5 * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&counters()->stalled), 1);
	CU_ASSERT_EQUAL(client_simple_reply(&clients[1]).cookie, 7);
	CU_ASSERT_PTR_NOT_NULL(client_take(&clients[1], 4096));
	client_close(&clients[0]);
	client_close(&clients[1]);
	world_end(&world);
	free(data);
}

/* What it sends meanwhile does not count, even if it is more than it holds: a payload that is thrown away. */
static void test_who_only_gives_is_sent_away(void)
{
	uint8_t *data = calloc(1, MIB);

	memset(data, 1, MIB);
	world_start(&world, &(struct nbd_world_options){.budget_bytes = MIB});
	fake_volume_poke(world.vm, 0, data, MIB);
	join(0, false);
	pause_with_reads(0, 1, MIB);
	ask(&clients[0], NBD_CMD_WRITE, 2, WORLD_VOLUME_BYTES, 32 * MIB); /* refused */
	join(1, false);
	ask(&clients[1], NBD_CMD_READ, 7, 0, 4096);
	for (uint32_t second = 0; second < NBD_STALL_S + 3; second++) {
		if (clients[0].error == 0)
			client_send(&clients[0], data, 64 * KIB);
		CU_ASSERT(second > NBD_STALL_S - 2 || counter_get(&counters()->stalled) == 0);
		world_pass(&world, NS_PER_S);
	}
	CU_ASSERT_EQUAL(counter_get(&counters()->stalled), 1);
	CU_ASSERT_EQUAL(client_simple_reply(&clients[1]).cookie, 7);
	client_close(&clients[0]);
	client_close(&clients[1]);
	world_end(&world);
	free(data);
}

struct other_waiter {
	struct buffer_waiter waiter;
	void *buffer;
};

static void other_served(struct buffer_waiter *w, void *data)
{
	container_of(w, struct other_waiter, waiter)->buffer = data;
}

/* Nor may a virtual machine be kept waiting, which has no connection here. */
static void test_who_keeps_another_frontend_waiting_is_sent_away(void)
{
	static uint8_t data[MIB];
	struct other_waiter other = {.waiter.ready = other_served};

	world_start(&world, &(struct nbd_world_options){.budget_bytes = MIB});
	join(0, false);
	ask(&clients[0], NBD_CMD_WRITE, 1, 0, MIB);
	client_send(&clients[0], data, MIB / 2);
	CU_ASSERT_PTR_NULL_FATAL(buffers_get(world.buffers, MIB));
	list_init(&other.waiter.link);
	buffers_wait(world.buffers, &other.waiter, MIB);
	world_pass(&world, (NBD_STALL_S - 2) * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&counters()->stalled), 0);
	world_pass(&world, 5 * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&counters()->stalled), 1);
	CU_ASSERT_PTR_NOT_NULL_FATAL(other.buffer);
	buffers_put(world.buffers, other.buffer, MIB);
	client_close(&clients[0]);
	world_end(&world);
}

/* The same for one that sends half a payload. */
static void test_who_does_not_send_its_payload_is_sent_away(void)
{
	static uint8_t data[MIB];

	world_start(&world, &(struct nbd_world_options){.budget_bytes = MIB});
	join(0, false);
	ask(&clients[0], NBD_CMD_WRITE, 1, 0, MIB);
	client_send(&clients[0], data, MIB / 2);
	join(1, false);
	ask(&clients[1], NBD_CMD_READ, 7, 0, 4096);
	world_pass(&world, (NBD_STALL_S + 3) * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&counters()->stalled), 1);
	CU_ASSERT_EQUAL(client_simple_reply(&clients[1]).cookie, 7);
	CU_ASSERT_EQUAL(fake_volume_counts(world.vm).ops[VOLUME_WRITE], 0);
	client_close(&clients[0]);
	client_close(&clients[1]);
	world_end(&world);
}

/* ---- those who trickle ---- */

static void begin_write(struct nbd_client *c, uint32_t len_bytes, uint32_t first_bytes)
{
	static const uint8_t zeros[4096];

	ask(c, NBD_CMD_WRITE, 1, 0, len_bytes);
	client_send(c, zeros, first_bytes);
}

/* Some bytes of a payload each second; false: the server has ended the connection. */
static bool trickle(struct nbd_client *c, uint32_t len_bytes)
{
	static const uint8_t zeros[64 * KIB];

	if (c->error == 0)
		client_send(c, zeros, len_bytes);
	return c->error == 0 && !c->has_ended;
}

static void test_who_trickles_is_sent_away(void)
{
	static uint8_t data[256 * KIB];

	memset(data, 1, sizeof(data));
	world_start(&world, &(struct nbd_world_options){.budget_bytes = MIB});
	fake_volume_poke(world.vm, 0, data, sizeof(data));
	for (uint32_t i = 0; i < 5; i++)
		join(i, false);
	begin_write(&clients[0], 256 << 10, 4096);
	begin_write(&clients[1], 256 << 10, 1);
	pause_with_reads(2, 1, 256 << 10);
	begin_write(&clients[3], 32 << 20, 4096); /* on a slow line: it is given a little, and keeps up */
	CU_ASSERT_EQUAL(buffers_used_bytes(world.buffers), 3 * 256 * KIB + 64 * KIB);
	ask(&clients[4], NBD_CMD_WRITE, 7, 40 * MIB, 256 << 10);
	client_send_begin(&clients[4], data, sizeof(data));
	for (uint32_t second = 0; second < NBD_STALL_S + 3; second++) {
		(void)trickle(&clients[0], 4096);
		(void)trickle(&clients[1], 1);
		CU_ASSERT_TRUE(trickle(&clients[3], 4096));
		CU_ASSERT(second > NBD_STALL_S - 2 || counter_get(&counters()->stalled) == 0);
		world_pass(&world, NS_PER_S);
	}
	CU_ASSERT_EQUAL(counter_get(&counters()->stalled), 3);
	CU_ASSERT_FALSE(trickle(&clients[0], 1));
	CU_ASSERT_FALSE(trickle(&clients[1], 1));
	CU_ASSERT_TRUE(trickle(&clients[3], 1));
	CU_ASSERT_EQUAL(client_simple_reply(&clients[4]).cookie, 7);
	for (uint32_t i = 0; i < 5; i++)
		client_close(&clients[i]);
	world_end(&world);
}

#define TRICKLERS 60u

static void test_honest_clients_do_not_wait_for_those_who_trickle(void)
{
	static struct nbd_client tricklers[TRICKLERS];
	uint8_t block[4096];

	world_start(&world, &(struct nbd_world_options){.budget_bytes = 48 * MIB, .reserve_bytes = 8 * MIB});
	memset(block, 1, sizeof(block));
	for (uint64_t pos = 0; pos < 32 * MIB; pos += sizeof(block))
		fake_volume_poke(world.vm, pos, block, sizeof(block));
	for (uint32_t i = 0; i < TRICKLERS; i++) {
		client_connect(&world, &tricklers[i]);
		client_go(&tricklers[i], "vm1", false);
		if (i % 2) {
			begin_write(&tricklers[i], 32 << 20, 1);
		} else { /* takes nothing of what it asked for */
			client_pause(&tricklers[i], true);
			ask(&tricklers[i], NBD_CMD_READ, 1, 0, 32 << 20);
		}
	}
	join(0, false);
	uint64_t longest_ns = 0;
	for (uint32_t second = 0; second < 20; second++) {
		static const uint32_t lengths[] = {512, 4096, 32 << 10, 256 << 10, MIB};
		for (size_t k = 0; k < array_size(lengths); k++) {
			uint64_t began_ns = sim_now_ns(world.sim);
			expect_served(&clients[0], lengths[k]);
			longest_ns = max_u64(longest_ns, sim_now_ns(world.sim) - began_ns);
		}
		for (uint32_t i = 1; i < TRICKLERS; i += 2)
			CU_ASSERT_TRUE(trickle(&tricklers[i], 1));
		world_pass(&world, NS_PER_S);
	}
	CU_ASSERT(longest_ns < NS_PER_S / 2);
	CU_ASSERT_EQUAL(counter_get(&counters()->stalled), 0); /* nobody had to wait for them */
	for (uint32_t i = 0; i < TRICKLERS; i++)
		client_close(&tricklers[i]);
	client_close(&clients[0]);
	world_end(&world);
}

/* All that large requests may have is taken: small ones have a part of their own. */
static void test_small_requests_pass_large_ones_that_wait(void)
{
	world_start(&world, &(struct nbd_world_options){.budget_bytes = 3 * MIB, .reserve_bytes = MIB});
	for (uint32_t i = 0; i < 10; i++) {
		join(i, false);
		begin_write(&clients[i], 256 << 10, 1);
	}
	CU_ASSERT(counter_get(&counters()->waits_buffers) > 0);
	join(10, false);
	uint64_t began_ns = sim_now_ns(world.sim);
	for (uint32_t n = 0; n < 20; n++)
		expect_served(&clients[10], 4096);
	CU_ASSERT(sim_now_ns(world.sim) - began_ns < 5 * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&counters()->stalled), 0);
	for (uint32_t i = 0; i < 11; i++)
		client_close(&clients[i]);
	world_end(&world);
}

/* A guest that is paused for an hour finds its connection as it left it. */
static void test_a_pause_that_harms_nobody_is_allowed(void)
{
	uint8_t block[4096];

	world_start(&world, &(struct nbd_world_options){0});
	memset(block, 1, sizeof(block));
	fake_volume_poke(world.vm, 0, block, sizeof(block));
	join(0, false);
	pause_with_reads(0, 120, 4096);
	join(1, false);
	for (uint32_t hour = 0; hour < 60; hour++) {
		world_pass(&world, 60 * NS_PER_S);
		expect_served(&clients[1], 4096);
	}
	client_pause(&clients[0], false);
	for (uint64_t k = 0; k < 120; k++) {
		CU_ASSERT_EQUAL(client_simple_reply(&clients[0]).cookie, k);
		CU_ASSERT_PTR_NOT_NULL(client_take(&clients[0], 4096));
	}
	client_close(&clients[0]);
	client_close(&clients[1]);
	world_end(&world);
}

static void test_requests_are_shared(void)
{
	world_start(&world, &(struct nbd_world_options){0});
	fake_volume_hold(world.vm, true);
	for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
		join(i, false);
		for (uint64_t k = 0; k < 150; k++)
			ask(&clients[i], NBD_CMD_TRIM, k, 0, 4096);
		world_pass(&world, NS_PER_S);
		CU_ASSERT(counter_get(&counters()->n_requests) < 2048);
	}
	uint32_t n_before = fake_volume_n_held(world.vm);
	CU_ASSERT(n_before > 1500);
	fake_volume_hold(world.vm, false);
	while (fake_volume_n_held(world.vm) > 0)
		fake_volume_let_go(world.vm, 0);
	for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
		for (uint64_t k = 0; k < 150; k++)
			CU_ASSERT_EQUAL(client_simple_reply(&clients[i]).cookie, k);
		client_close(&clients[i]);
	}
	world_end(&world);
}

/* ---- looking ---- */

static void note_view(const struct nbd_connection_view *v, void *context)
{
	struct nbd_connection_view *out = context;
	*out = *v;
}

static void note_line(const char *line, void *context)
{
	snprintf(context, REQUEST_LINE_BYTES, "%s", line);
}

static void test_what_there_is_to_see(void)
{
	struct nbd_connection_view v = {0};
	char line[REQUEST_LINE_BYTES] = "";

	world_start(&world, &(struct nbd_world_options){0});
	join(0, true);
	fake_volume_hold(world.vm, true);
	ask(&clients[0], NBD_CMD_TRIM, 1, 8192, 4096);
	world_pass(&world, 2 * NS_PER_S);
	nbd_server_connections(world.server, note_view, &v);
	CU_ASSERT_STRING_EQUAL(v.export_, "vm1");
	CU_ASSERT_STRING_EQUAL(v.stage, "TRANSMIT");
	CU_ASSERT(v.n_requests == 1 && v.is_structured && !v.is_tls && v.age_ns >= 2 * NS_PER_S);
	nbd_server_slow_requests(world.server, NS_PER_S, note_line, line);
	CU_ASSERT_PTR_NOT_NULL(strstr(line, "to vm1 TRIM pos=8192 len=4096 stage=SERVE"));
	CU_ASSERT_PTR_NOT_NULL(strstr(line, "waits for the volume"));
	line[0] = 0;
	nbd_server_slow_requests(world.server, 5 * NS_PER_S, note_line, line);
	CU_ASSERT_STRING_EQUAL(line, "");
	fake_volume_hold(world.vm, false);
	fake_volume_let_go(world.vm, 0);
	CU_ASSERT_EQUAL(client_simple_reply(&clients[0]).cookie, 1);
	CU_ASSERT_EQUAL(counter_get(&counters()->requests[NBD_CMD_TRIM]), 1);
	client_close(&clients[0]);
	world_end(&world);
}

static void test_a_start_that_fails_says_why(void)
{
	struct nbd_server *s;
	char why[NBD_WHY_BYTES];

	world_start(&world, &(struct nbd_world_options){0});
	struct nbd_server_options o = {.reactor = world.reactor,
				       .log = world.log,
				       .volumes = world.set,
				       .buffers = world.buffers,
				       .listen = "127.0.0.1:10809",
				       .socket = WORLD_ADDRESS};
	CU_ASSERT_EQUAL(nbd_server_start(&o, why, &s), -EADDRINUSE);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, WORLD_ADDRESS));
	o.socket = "";
	o.tls = NBD_TLS_REQUIRE;
	CU_ASSERT_EQUAL(nbd_server_start(&o, why, &s), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "cert_dir"));
	o.psk_file = "/nonexistent/keys.psk";
	CU_ASSERT_EQUAL(nbd_server_start(&o, why, &s), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "/nonexistent/keys.psk"));
	o.psk_file = NULL;
	o.cert_dir = "/nonexistent";
	CU_ASSERT_EQUAL(nbd_server_start(&o, why, &s), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "server-cert.pem"));
	world_end(&world);
}

static void test_tls_modes_by_name(void)
{
	enum nbd_tls_mode mode = NBD_TLS_OFF;
	CU_ASSERT(nbd_tls_mode_from_text("require", &mode) == 0 && mode == NBD_TLS_REQUIRE);
	CU_ASSERT(nbd_tls_mode_from_text("on", &mode) == 0 && mode == NBD_TLS_ON);
	CU_ASSERT(nbd_tls_mode_from_text("off", &mode) == 0 && mode == NBD_TLS_OFF);
	CU_ASSERT_EQUAL(nbd_tls_mode_from_text("yes", &mode), -EINVAL);
}

/* ---- many clients against a model ---- */

#define MODEL_CLIENTS 4u
#define MODEL_BYTES   (8 * MIB) /* of each client's own part of the volume */
#define MODEL_DEPTH   12u

struct model_request {
	uint16_t command;
	uint64_t pos_bytes;
	uint32_t len_bytes;
	bool is_answered;
};
struct model_client {
	struct nbd_client *client;
	uint64_t base_bytes;
	bool is_structured;
	uint8_t *content; /* what the part holds when all requests sent so far are done */
};

/* Requests of one batch do not overlap, so that the order in which they are carried out does not matter. */
static uint32_t model_batch(struct model_request *batch, unsigned *seed)
{
	uint32_t n = 0;
	uint64_t pos = (uint64_t)rand_r(seed) % 64 * 512;

	while (n < MODEL_DEPTH && pos < MODEL_BYTES) {
		uint32_t most = rand_r(seed) % 8 ? 16 : 6000, len = (1 + (uint32_t)rand_r(seed) % most) * 512;
		static const uint16_t commands[] = {NBD_CMD_READ,  NBD_CMD_READ, NBD_CMD_WRITE,
						    NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};
		if (pos + len > MODEL_BYTES)
			break;
		batch[n++] = (struct model_request){
		    .command = commands[(uint32_t)rand_r(seed) % 6], .pos_bytes = pos, .len_bytes = len};
		pos += len + (uint64_t)rand_r(seed) % 32 * 512;
	}
	return n;
}

static void model_send(struct model_client *m, struct model_request *batch, uint32_t n, unsigned *seed)
{
	size_t size = 0, at = 0;

	for (uint32_t i = 0; i < n; i++)
		size += NBD_REQUEST_BYTES + (batch[i].command == NBD_CMD_WRITE ? batch[i].len_bytes : 0);
	uint8_t *bytes = malloc(size ? size : 1);
	for (uint32_t i = 0; i < n; i++) {
		struct model_request *q = &batch[i];
		client_request_encode(bytes + at, &(struct client_request){.command = q->command,
									   .cookie = i,
									   .pos_bytes = m->base_bytes + q->pos_bytes,
									   .len_bytes = q->len_bytes});
		at += NBD_REQUEST_BYTES;
		if (q->command == NBD_CMD_WRITE) {
			for (uint32_t k = 0; k < q->len_bytes; k++)
				m->content[q->pos_bytes + k] = bytes[at + k] = (uint8_t)rand_r(seed);
			at += q->len_bytes;
		} else if (q->command != NBD_CMD_READ) {
			memset(m->content + q->pos_bytes, 0, q->len_bytes);
		}
	}
	client_send(m->client, bytes, size);
	free(bytes);
}

/* Takes one message; how many requests it ended. */
static uint32_t model_take(struct model_client *m, struct model_request *batch, uint32_t n)
{
	const uint8_t *p = client_take(m->client, 4);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	m->client->start -= 4;
	if (get_be32(p) == NBD_SIMPLE_REPLY_MAGIC) {
		struct simple_reply r = client_simple_reply(m->client);
		CU_ASSERT_FATAL(r.cookie < n && r.error == NBD_OK);
		struct model_request *q = &batch[r.cookie];
		CU_ASSERT_FATAL(!q->is_answered && (q->command != NBD_CMD_READ || !m->is_structured));
		q->is_answered = true;
		if (q->command == NBD_CMD_READ) {
			p = client_take(m->client, q->len_bytes);
			CU_ASSERT_PTR_NOT_NULL_FATAL(p);
			CU_ASSERT_EQUAL(memcmp(p, m->content + q->pos_bytes, q->len_bytes), 0);
		}
		return 1;
	}
	struct chunk k = client_chunk(m->client);
	CU_ASSERT_FATAL(k.magic == NBD_CHUNK_MAGIC && k.cookie < n && m->is_structured);
	CU_ASSERT_FATAL(!batch[k.cookie].is_answered && batch[k.cookie].command == NBD_CMD_READ);
	const uint8_t *content = m->content + (get_be64(k.data) - m->base_bytes);
	if (k.type == NBD_CHUNK_OFFSET_DATA) {
		CU_ASSERT_EQUAL(memcmp(k.data + 8, content, k.len_bytes - 8), 0);
	} else {
		CU_ASSERT_EQUAL_FATAL(k.type, NBD_CHUNK_OFFSET_HOLE);
		CU_ASSERT(content[0] == 0 && memcmp(content, content + 1, get_be32(k.data + 8) - 1) == 0);
	}
	batch[k.cookie].is_answered = k.flags & NBD_CHUNK_DONE;
	return k.flags & NBD_CHUNK_DONE ? 1 : 0;
}

static void model_round(struct model_client *models, unsigned *seed)
{
	struct model_request batches[MODEL_CLIENTS][MODEL_DEPTH];
	uint32_t n[MODEL_CLIENTS];

	for (uint32_t i = 0; i < MODEL_CLIENTS; i++)
		n[i] = model_batch(batches[i], seed);
	for (uint32_t i = 0; i < MODEL_CLIENTS; i++)
		model_send(&models[i], batches[i], n[i], seed);
	for (uint32_t i = 0; i < MODEL_CLIENTS; i++)
		for (uint32_t answered = 0; answered < n[i];)
			answered += model_take(&models[i], batches[i], n[i]);
}

static void model_run(unsigned seed, uint64_t budget_bytes, uint32_t n_rounds)
{
	struct model_client models[MODEL_CLIENTS];
	uint8_t *back = malloc(MODEL_BYTES);

	world_start(&world, &(struct nbd_world_options){.seed = seed, .budget_bytes = budget_bytes});
	for (uint32_t i = 0; i < MODEL_CLIENTS; i++) {
		models[i] = (struct model_client){.client = &clients[i],
						  .base_bytes = i * MODEL_BYTES,
						  .is_structured = i % 2,
						  .content = calloc(1, MODEL_BYTES)};
		join(i, i % 2);
	}
	for (uint32_t round = 0; round < n_rounds; round++)
		model_round(models, &seed);
	for (uint32_t i = 0; i < MODEL_CLIENTS; i++) {
		fake_volume_peek(world.vm, models[i].base_bytes, back, MODEL_BYTES);
		CU_ASSERT_EQUAL(memcmp(back, models[i].content, MODEL_BYTES), 0);
		free(models[i].content);
		client_close(&clients[i]);
	}
	world_end(&world);
	free(back);
}

static void test_random_requests_of_many_clients(void)
{
	for (unsigned seed = 1; seed <= 6; seed++)
		model_run(seed, seed % 2 ? 8 * MIB : MIB, 12);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("nbd_server", NULL, NULL);
	CU_ADD_TEST(suite, test_the_limit_of_connections);
	CU_ADD_TEST(suite, test_the_undecided_make_room);
	CU_ADD_TEST(suite, test_slow_readers_leave_room_for_others);
	CU_ADD_TEST(suite, test_who_keeps_others_waiting_is_sent_away);
	CU_ADD_TEST(suite, test_who_only_gives_is_sent_away);
	CU_ADD_TEST(suite, test_who_keeps_another_frontend_waiting_is_sent_away);
	CU_ADD_TEST(suite, test_who_does_not_send_its_payload_is_sent_away);
	CU_ADD_TEST(suite, test_who_trickles_is_sent_away);
	CU_ADD_TEST(suite, test_honest_clients_do_not_wait_for_those_who_trickle);
	CU_ADD_TEST(suite, test_small_requests_pass_large_ones_that_wait);
	CU_ADD_TEST(suite, test_a_pause_that_harms_nobody_is_allowed);
	CU_ADD_TEST(suite, test_requests_are_shared);
	CU_ADD_TEST(suite, test_what_there_is_to_see);
	CU_ADD_TEST(suite, test_a_start_that_fails_says_why);
	CU_ADD_TEST(suite, test_tls_modes_by_name);
	CU_ADD_TEST(suite, test_random_requests_of_many_clients);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
