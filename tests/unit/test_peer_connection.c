/*
 * test_peer_connection.c: messages over one stream, on the simulated network: everything arrives once and in order, and a
 * connection that is torn, cut, starved or lied to ends as it should, with everything given back.
 */
#include "daemon/core/checksum.h"
#include "replication/peer_connection.h"
#include "tests/sim/sim.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEPS_MAX 2000000u
#define OUTS_MAX  200u

/* ---- two ends ---- */

struct parcel {
	struct peer_out out;
	struct end *end;
	uint64_t number;
	uint8_t *head, *data;
	struct iovec iov[3];
	uint64_t n_back;
	int res;
};

struct end {
	struct peer_connection *c;
	struct stream *stream;
	struct parcel parcels[OUTS_MAX];
	uint64_t n_sent, n_back, n_arrived, n_placed, n_damaged;
	uint64_t next;       /* number of the message that should come next */
	uint64_t first_back; /* the parcels come back in order */
	bool has_no_memory, closes_on_arrival;
	int n_ended, res;
	char why[PEER_WHY_BYTES];
};

struct world {
	struct sim *sim;
	struct sim_machine *a, *b;
	struct listener *listener;
	struct end near, far;
	uint64_t chance;
};

static void *end_place(struct peer_connection *c, const struct peer_in *in)
{
	struct end *e = peer_connection_context(c);
	CU_ASSERT(in->header.data_bytes > 0);
	if (e->has_no_memory)
		return NULL;
	e->n_placed++;
	return malloc(in->header.data_bytes);
}

/* The content of a message follows from its number. */
static void fill(uint8_t *data, size_t len, uint64_t number)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(number * 31 + i * 7 + i / 4096);
}

static void end_arrived(struct peer_connection *c, const struct peer_in *in)
{
	struct end *e = peer_connection_context(c);
	CU_ASSERT_EQUAL(in->header.request_id, ++e->next);
	CU_ASSERT_EQUAL(in->header.data_bytes > 0, in->data != NULL);
	e->n_damaged += !in->is_intact;
	if (in->data && in->is_intact) {
		uint8_t *expected = malloc(in->header.data_bytes);
		fill(expected, in->header.data_bytes, in->header.request_id);
		CU_ASSERT_EQUAL(memcmp(expected, in->data, in->header.data_bytes), 0);
		free(expected);
	}
	if (in->data)
		e->n_placed--;
	free(in->data);
	e->n_arrived++;
	if (e->closes_on_arrival)
		peer_connection_close(c, -ECANCELED, "enough");
}

static void end_displaced(struct peer_connection *c, const struct peer_in *in)
{
	struct end *e = peer_connection_context(c);
	e->n_placed--;
	free(in->data);
}

static void end_ended(struct peer_connection *c, int res, const char *why)
{
	struct end *e = peer_connection_context(c);
	e->n_ended++;
	e->res = res;
	snprintf(e->why, sizeof(e->why), "%s", why);
}

static const struct peer_connection_calls calls = {end_place, end_arrived, end_displaced, end_ended};

struct wait {
	struct op op;
	bool is_done;
	int res;
};

static void wait_done(struct op *op, int res)
{
	struct wait *w = container_of(op, struct wait, op);
	w->is_done = true;
	w->res = res;
}

static void end_connect(struct end *e, struct reactor *r, struct tls_credentials *key, enum tls_side side)
{
	const struct peer_connection_options o = {
	    .reactor = r, .stream = e->stream, .calls = &calls, .context = e, .credentials = key, .side = side};
	CU_ASSERT_EQUAL_FATAL(peer_connection_create(&o, &e->c), 0);
}

/* A near end with a connection; the far one as well, unless it is to be a bare stream. */
static void world_make_keyed(struct world *w, uint64_t seed, bool is_far_bare, struct tls_credentials *near_key,
			     struct tls_credentials *far_key)
{
	struct wait accepted = {0}, connected = {0};
	memset(w, 0, sizeof(*w));
	w->sim = sim_create(seed);
	w->chance = seed;
	w->a = sim_machine_create(w->sim, "a");
	w->b = sim_machine_create(w->sim, "b");
	op_init(&accepted.op, wait_done);
	op_init(&connected.op, wait_done);
	CU_ASSERT_EQUAL_FATAL(reactor_listen(sim_reactor(w->b), "b:1", &w->listener), 0);
	listener_accept(w->listener, &accepted.op, &w->far.stream);
	reactor_connect(sim_reactor(w->a), &connected.op, "b:1", &w->near.stream);
	CU_ASSERT_EQUAL(sim_run(w->sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
	CU_ASSERT_EQUAL_FATAL(accepted.res | connected.res, 0);
	end_connect(&w->near, sim_reactor(w->a), near_key, TLS_CLIENT);
	if (!is_far_bare)
		end_connect(&w->far, sim_reactor(w->b), far_key, TLS_SERVER);
}

static void world_make(struct world *w, uint64_t seed, bool is_far_bare)
{
	world_make_keyed(w, seed, is_far_bare, NULL, NULL);
}

static void end_check_and_free(struct end *e)
{
	CU_ASSERT_EQUAL(e->n_back, e->n_sent);
	CU_ASSERT_EQUAL(e->n_placed, 0);
	for (uint64_t i = 0; i < e->n_sent; i++) {
		CU_ASSERT_EQUAL(e->parcels[i].n_back, 1);
		free(e->parcels[i].head);
		free(e->parcels[i].data);
	}
	if (!e->c) {
		stream_close(e->stream);
		return;
	}
	CU_ASSERT_EQUAL(e->n_ended, 1);
	CU_ASSERT_FALSE(peer_connection_is_open(e->c));
	peer_connection_destroy(e->c);
}

/* Ends what is still open, and looks whether all came back. */
static void world_end(struct world *w)
{
	struct end *ends[] = {&w->near, &w->far};
	for (int i = 0; i < 2; i++) {
		if (ends[i]->c && peer_connection_is_open(ends[i]->c))
			peer_connection_close(ends[i]->c, -ESHUTDOWN, "the test ends");
	}
	CU_ASSERT_EQUAL(sim_run(w->sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
	end_check_and_free(&w->near);
	end_check_and_free(&w->far);
	listener_close(w->listener);
	sim_destroy(w->sim);
}

/* ---- messages ---- */

static void parcel_sent(struct peer_out *out, int res)
{
	struct parcel *p = container_of(out, struct parcel, out);
	CU_ASSERT_EQUAL(++p->end->first_back, p->number);
	p->n_back++;
	p->end->n_back++;
	p->res = res;
}

static struct parcel *parcel_make(struct end *e, enum peer_type type, uint32_t n_blocks)
{
	CU_ASSERT_FATAL(e->n_sent < OUTS_MAX);
	struct parcel *p = &e->parcels[e->n_sent++];
	struct peer_header h = {.type = type, .request_id = e->n_sent, .generation = 3, .session = 4};
	struct peer_message *m = calloc(1, sizeof(*m));
	*p = (struct parcel){.out = {.sent = parcel_sent}, .end = e, .number = e->n_sent};
	h.volume = uuid_make(1, 2);
	h.disk = uuid_make(3, 4);
	*m = (struct peer_message){.tree_id = 1, .first = 8, .n_blocks = n_blocks, .epoch = 5};
	p->head = malloc(PEER_HEADER_BYTES + PEER_BODY_MAX);
	if (type == PEER_WRITE || type == PEER_COPY) {
		p->data = malloc((size_t)n_blocks * BLOCK_BYTES);
		fill(p->data, (size_t)n_blocks * BLOCK_BYTES, p->number);
		for (uint32_t i = 0; i < n_blocks; i++) {
			uint32_t crc = crc32c(0, p->data + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
			if (type == PEER_COPY)
				m->stamps[i] = (struct peer_stamp){.crc = crc, .is_data = true, .epoch = 2};
			else
				m->crcs[i] = crc;
		}
		/* in pieces that have nothing to do with blocks */
		size_t len = (size_t)n_blocks * BLOCK_BYTES, cut = 1000 + p->number;
		p->iov[0] = (struct iovec){p->data, cut};
		p->iov[1] = (struct iovec){p->data + cut, len - cut};
		p->out.data = p->iov;
		p->out.n_data = 2;
	}
	peer_out_encode(&p->out, &h, m, p->head);
	free(m);
	return p;
}

static void parcel_send(struct parcel *p)
{
	peer_connection_send(p->end->c, &p->out);
}

static void send_some(struct world *w, struct end *e, unsigned n)
{
	static const enum peer_type kinds[] = {PEER_WRITE, PEER_READ, PEER_FLUSH, PEER_COPY};
	for (unsigned i = 0; i < n; i++) {
		enum peer_type type = kinds[sim_split(&w->chance) % 4];
		uint32_t most = type == PEER_READ ? PEER_READ_BLOCKS : PEER_WRITE_BLOCKS;
		parcel_send(parcel_make(e, type, 1 + (uint32_t)(sim_split(&w->chance) % most)));
	}
}

/* ---- tests ---- */

static void test_both_directions(void)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct world w;
		world_make(&w, seed, false);
		for (int round = 0; round < 5; round++) {
			send_some(&w, &w.near, 10);
			send_some(&w, &w.far, 10);
			sim_run_for(w.sim, sim_split(&w.chance) % (200 * NS_PER_US));
		}
		CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_EQUAL(w.near.n_arrived, 50);
		CU_ASSERT_EQUAL(w.far.n_arrived, 50);
		CU_ASSERT_EQUAL(w.near.n_damaged + w.far.n_damaged, 0);
		CU_ASSERT_EQUAL(w.near.n_back, 50);
		const struct peer_connection_counters *sent = peer_connection_counters(w.near.c);
		CU_ASSERT_EQUAL(counter_get(&sent->frames_out), 50);
		CU_ASSERT(counter_get(&sent->sends) <= 25); /* those of one turn left together */
		CU_ASSERT_EQUAL(counter_get(&sent->bytes_out),
				counter_get(&peer_connection_counters(w.far.c)->bytes_in));
		world_end(&w);
	}
}

/* A receiver without memory reads no more, and loses nothing. */
static void test_no_memory(void)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct world w;
		world_make(&w, seed, false);
		w.far.has_no_memory = true;
		parcel_send(parcel_make(&w.near, PEER_FLUSH, 1));
		for (int i = 0; i < 20; i++)
			parcel_send(parcel_make(&w.near, PEER_WRITE, PEER_WRITE_BLOCKS));
		CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_EQUAL(w.far.n_arrived, 1);
		CU_ASSERT(w.near.n_back < w.near.n_sent); /* the sender waits */
		peer_connection_resume(w.far.c);          /* in vain */
		CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_EQUAL(w.far.n_arrived, 1);
		w.far.has_no_memory = false;
		if (seed % 3 > 0) {
			peer_connection_resume(w.far.c);
			CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
			CU_ASSERT_EQUAL(w.far.n_arrived, 21);
			CU_ASSERT_EQUAL(w.near.n_back, 21);
		}
		world_end(&w);
	}
}

/* However and whenever it breaks, what was sent comes back once, what was placed too, and the end is said once. */
static void test_torn(void)
{
	uint64_t n_displaced_or_lost = 0;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct world w;
		world_make(&w, seed, false);
		send_some(&w, &w.near, 40);
		send_some(&w, &w.far, 40);
		sim_run_for(w.sim, sim_split(&w.chance) % (3 * NS_PER_MS));
		if (seed % 3 == 0)
			sim_net_cut(w.a, w.b);
		else if (seed % 3 == 1)
			peer_connection_close(w.near.c, -ETIMEDOUT, "silent");
		else
			w.far.closes_on_arrival = true;
		send_some(&w, &w.near, 3);
		sim_run_for(w.sim, sim_split(&w.chance) % NS_PER_MS);
		send_some(&w, &w.far, w.far.n_ended ? 0 : 3);
		CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		n_displaced_or_lost += w.near.n_arrived < w.far.n_sent;
		if (seed % 3 == 1 && w.near.n_ended)
			CU_ASSERT_STRING_EQUAL(w.near.why, "silent");
		world_end(&w);
	}
	CU_ASSERT(n_displaced_or_lost > 100);
}

/* A partition loses nothing. */
static void test_partition(void)
{
	struct world w;
	world_make(&w, 7, false);
	send_some(&w, &w.near, 20);
	sim_run_for(w.sim, 50 * NS_PER_US);
	sim_net_partition(w.a, w.b, true);
	sim_run_for(w.sim, 20 * NS_PER_S);
	CU_ASSERT(w.far.n_arrived < 20);
	CU_ASSERT_TRUE(peer_connection_is_open(w.near.c));
	sim_net_partition(w.a, w.b, false);
	CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
	CU_ASSERT_EQUAL(w.far.n_arrived, 20);
	world_end(&w);
}

/* Bytes from a bare stream; what the connection says when it ends. */
static void expect_end(const void *bytes, size_t len, const char *words)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct world w;
		struct wait sent = {0};
		struct iovec iov = {(void *)bytes, len};
		world_make(&w, seed, true);
		op_init(&sent.op, wait_done);
		stream_send(w.far.stream, &sent.op, &iov, 1);
		CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_EQUAL(w.near.n_ended, 1);
		CU_ASSERT_EQUAL(w.near.res, -EPROTO);
		CU_ASSERT_PTR_NOT_NULL(strstr(w.near.why, words));
		world_end(&w);
	}
}

static void test_lies(void)
{
	struct end e = {0};
	struct parcel *p = parcel_make(&e, PEER_READ, 3);
	size_t len = p->out.head_bytes;
	uint8_t twice[2 * (PEER_HEADER_BYTES + 64)];
	expect_end(
	    "GET / HTTP/1.1\r\nHost: quarry\r\nA: long enough to be a header of ninety-six bytes, and more\r\n\r\n"
	    "............",
	    96, "not a message");
	p->head[PEER_HEADER_BYTES] ^= 1;
	expect_end(p->head, len, "body does not match");
	p->head[PEER_HEADER_BYTES] ^= 1;
	p->head[20] ^= 1;
	expect_end(p->head, len, "header does not match");
	p->head[20] ^= 1;
	/* a good one first, then one that is not: the first has arrived */
	memcpy(twice, p->head, len);
	memcpy(twice + len, p->head, len);
	twice[len + 4] ^= 1;
	expect_end(twice, 2 * len, "header does not match");
	free(p->head);
}

/* The other side goes away in the middle of a message: its end, not an error of ours. */
static void test_half_a_message(void)
{
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct world w;
		struct end e = {0};
		struct wait sent = {0};
		struct parcel *p = parcel_make(&e, PEER_WRITE, 2);
		size_t len = seed % 2 ? p->out.head_bytes : p->out.head_bytes / 2;
		struct iovec iov[2] = {{p->head, len}, {p->data, 5000}};
		world_make(&w, seed, true);
		op_init(&sent.op, wait_done);
		stream_send(w.far.stream, &sent.op, iov, len == p->out.head_bytes ? 2 : 1);
		CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_EQUAL(w.near.n_ended, 0);
		stream_shutdown(w.far.stream);
		CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_EQUAL(w.near.n_ended, 1);
		CU_ASSERT_EQUAL(w.near.n_arrived, 0);
		world_end(&w);
		free(p->head);
		free(p->data);
	}
}

/* ---- with keys ---- */

static struct tls_credentials *key_make(char digit)
{
	char path[] = "/tmp/quarry-peer-key-XXXXXX", why[TLS_WHY_BYTES], text[65];
	struct tls_credentials *c = NULL;
	int fd = mkstemp(path);
	memset(text, digit, 64);
	CU_ASSERT_EQUAL_FATAL(write(fd, text, 64), 64);
	close(fd);
	CU_ASSERT_EQUAL_FATAL(tls_load_peer(path, why, &c), 0);
	unlink(path);
	return c;
}

/* What is sent before the hands are shaken waits; all arrives, in both directions. */
static void test_secured(void)
{
	struct tls_credentials *key = key_make('a');
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct world w;
		world_make_keyed(&w, seed, false, key, key);
		send_some(&w, &w.near, 20);
		send_some(&w, &w.far, 20);
		CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_EQUAL(w.near.n_arrived, 20);
		CU_ASSERT_EQUAL(w.far.n_arrived, 20);
		if (seed % 2)
			sim_net_cut(w.a, w.b);
		world_end(&w);
	}
	tls_unload(key);
}

/* Nobody without the key gets a word in, nor hears one. */
static void test_strangers(void)
{
	struct tls_credentials *key = key_make('a'), *other = key_make('b');
	for (uint64_t seed = 1; seed <= 10; seed++) {
		struct world w;
		struct tls_credentials *near_key = seed % 3 == 0 ? NULL : seed % 3 == 1 ? other : key;
		struct tls_credentials *far_key = seed % 3 == 2 ? other : key;
		world_make_keyed(&w, seed, false, near_key, far_key);
		send_some(&w, &w.near, 3);
		send_some(&w, &w.far, 3);
		CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_EQUAL(w.near.n_arrived + w.far.n_arrived, 0);
		CU_ASSERT_EQUAL(w.far.n_ended, 1);
		CU_ASSERT_EQUAL(w.far.res, -EPROTO);
		world_end(&w);
	}
	tls_unload(key);
	tls_unload(other);
}

/* One that connects and says nothing is not waited for. */
static void test_silent_stranger(void)
{
	struct tls_credentials *key = key_make('a');
	struct world w;
	world_make_keyed(&w, 5, true, key, NULL);
	uint64_t from_ns = sim_now_ns(w.sim);
	CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
	CU_ASSERT_EQUAL(w.near.n_ended, 1);
	CU_ASSERT_EQUAL(w.near.res, -ETIMEDOUT);
	CU_ASSERT(sim_now_ns(w.sim) - from_ns < 2 * PEER_HANDSHAKE_NS);
	world_end(&w);
	tls_unload(key);
}

/* A block that was damaged on the way is told; the connection goes on. */
static void test_damaged_block(void)
{
	struct world w;
	world_make(&w, 3, false);
	struct parcel *p = parcel_make(&w.near, PEER_WRITE, 4);
	p->data[2 * BLOCK_BYTES + 17] ^= 4;
	parcel_send(p);
	parcel_send(parcel_make(&w.near, PEER_WRITE, 4));
	CU_ASSERT_EQUAL(sim_run(w.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
	CU_ASSERT_EQUAL(w.far.n_arrived, 2);
	CU_ASSERT_EQUAL(w.far.n_damaged, 1);
	CU_ASSERT_EQUAL(counter_get(&peer_connection_counters(w.far.c)->damaged_blocks), 1);
	world_end(&w);
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("peer connection", NULL, NULL);
	CU_add_test(suite, "both directions", test_both_directions);
	CU_add_test(suite, "no memory", test_no_memory);
	CU_add_test(suite, "torn", test_torn);
	CU_add_test(suite, "a partition", test_partition);
	CU_add_test(suite, "lies", test_lies);
	CU_add_test(suite, "half a message", test_half_a_message);
	CU_add_test(suite, "a damaged block", test_damaged_block);
	CU_add_test(suite, "secured", test_secured);
	CU_add_test(suite, "strangers", test_strangers);
	CU_add_test(suite, "a silent stranger", test_silent_stranger);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
