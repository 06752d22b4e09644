/*
 * test_sim_net.c: the simulator keeps its own promises: the fault model of streams, partitions and addresses.
 */
#include "tests/unit/sim_attempt.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct pair {
	struct sim *sim;
	struct sim_machine *a, *b;
	struct listener *listener;
	struct stream *near, *far;
};

static struct pair pair_make(uint64_t seed)
{
	struct pair p = {.sim = sim_create(seed)};
	struct attempt accepted = {0}, connected = {0};

	p.a = sim_machine_create(p.sim, "a");
	p.b = sim_machine_create(p.sim, "b");
	op_init(&accepted.op, attempt_done);
	op_init(&connected.op, attempt_done);
	CU_ASSERT_EQUAL_FATAL(reactor_listen(sim_reactor(p.b), "b:1", &p.listener), 0);
	listener_accept(p.listener, &accepted.op, &p.far);
	reactor_connect(sim_reactor(p.a), &connected.op, "b:1", &p.near);
	CU_ASSERT_EQUAL(sim_run(p.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
	CU_ASSERT_TRUE(accepted.is_done && connected.is_done);
	CU_ASSERT_EQUAL_FATAL(accepted.res | connected.res, 0);
	return p;
}

static void pair_end(struct pair *p)
{
	stream_close(p->far);
	stream_close(p->near);
	listener_close(p->listener);
	sim_destroy(p->sim);
}

static void transfer_start(struct attempt *t, struct stream *s, enum op_kind kind, void *memory, size_t len)
{
	*t = (struct attempt){.iov = {memory, len}};
	op_init(&t->op, attempt_done);
	if (kind == OP_SEND)
		stream_send(s, &t->op, &t->iov, 1);
	else if (kind == OP_RECV)
		stream_recv(s, &t->op, &t->iov, 1);
	else
		stream_recv_all(s, &t->op, &t->iov, 1);
}

static void stream_carries_bytes_in_order(void)
{
	const size_t len = 1000003;
	uint8_t *sent = malloc(len), *got = calloc(1, len + 1);

	for (size_t i = 0; i < len; i++)
		sent[i] = (uint8_t)(i * 7 + i / 251);
	for (uint64_t seed = 1; seed < 10; seed++) {
		struct pair p = pair_make(seed);
		struct attempt send, recv, last;
		size_t at = 0;
		bool has_ended = false;
		transfer_start(&send, p.near, OP_SEND, sent, len);
		while (at < len && !has_ended) {
			size_t room = seed % 2 ? 65536 : 100000;
			transfer_start(&recv, p.far, OP_RECV, got + at, room < len - at ? room : len - at);
			CU_ASSERT_EQUAL_FATAL(sim_run(p.sim, attempt_is_done, &recv, STEPS_MAX), SIM_DONE);
			has_ended = recv.res <= 0;
			at += (size_t)recv.res;
		}
		CU_ASSERT_EQUAL(at, len);
		CU_ASSERT_EQUAL(memcmp(sent, got, len), 0);
		CU_ASSERT_EQUAL(sim_run(p.sim, attempt_is_done, &send, STEPS_MAX), SIM_DONE);
		CU_ASSERT_EQUAL(send.res, 0);
		stream_close(p.near);
		transfer_start(&last, p.far, OP_RECV, got, 10);
		CU_ASSERT_EQUAL(sim_run(p.sim, attempt_is_done, &last, STEPS_MAX), SIM_DONE);
		CU_ASSERT_EQUAL(last.res, 0); /* the end */
		stream_close(p.far);
		listener_close(p.listener);
		sim_destroy(p.sim);
	}
	free(sent);
	free(got);
}

static void stream_ends_and_breaks(void)
{
	char memory[64] = "hello";

	for (uint64_t seed = 1; seed < 30; seed++) {
		struct pair p = pair_make(seed);
		struct attempt all, send;
		transfer_start(&all, p.far, OP_RECV_ALL, memory + 32, 10);
		transfer_start(&send, p.near, OP_SEND, memory, 5);
		CU_ASSERT_EQUAL(sim_run(p.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_FALSE(all.is_done);
		if (seed % 3 == 0)
			stream_shutdown(p.near);
		else if (seed % 3 == 1)
			sim_crash(p.a, seed % 2 ? SIM_KILL : SIM_POWER_LOSS);
		else
			sim_net_cut(p.a, p.b);
		CU_ASSERT_EQUAL(sim_run(p.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_TRUE(all.is_done);
		CU_ASSERT_EQUAL(all.res, -ECONNRESET);
		transfer_start(&send, p.far, OP_SEND, memory, 5);
		CU_ASSERT_EQUAL(sim_run(p.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_TRUE(send.is_done && send.res < 0);
		pair_end(&p);
	}
}

/* Bytes and the end are there before anybody asks: fewer than wanted, and then none. */
static void stream_has_ended_before_it_is_read(void)
{
	char memory[64] = "hello";

	for (uint64_t seed = 1; seed < 10; seed++) {
		struct pair p = pair_make(seed);
		struct attempt all, send;
		transfer_start(&send, p.near, OP_SEND, memory, 5);
		CU_ASSERT_EQUAL(sim_run(p.sim, attempt_is_done, &send, STEPS_MAX), SIM_DONE);
		stream_shutdown(p.near);
		CU_ASSERT_EQUAL(sim_run(p.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		transfer_start(&all, p.far, OP_RECV_ALL, memory + 32, 10);
		CU_ASSERT_EQUAL(sim_run(p.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_TRUE_FATAL(all.is_done);
		CU_ASSERT_EQUAL(all.res, -ECONNRESET);
		pair_end(&p);
	}
}

static void partition_holds_bytes(void)
{
	for (uint64_t seed = 1; seed < 30; seed++) {
		struct pair p = pair_make(seed);
		struct attempt all, first, second, connect = {0};
		char memory[64] = "0123456789", got[11] = {0};
		struct stream *late;
		transfer_start(&first, p.near, OP_SEND, memory, 5);
		CU_ASSERT_EQUAL(sim_run(p.sim, attempt_is_done, &first, STEPS_MAX), SIM_DONE);
		sim_net_partition(p.a, p.b, true);
		transfer_start(&second, p.near, OP_SEND, memory + 5, 5);
		transfer_start(&all, p.far, OP_RECV_ALL, got, 10);
		op_init(&connect.op, attempt_done);
		reactor_connect(sim_reactor(p.a), &connect.op, "b:1", &late);
		sim_run_for(p.sim, seed % 2 ? 100 * NS_PER_S : sim_below(p.sim, 200) * NS_PER_US);
		CU_ASSERT_FALSE(all.is_done);
		CU_ASSERT_TRUE(seed % 2 == 0 || connect.res == -ETIMEDOUT);
		sim_net_partition(p.a, p.b, false);
		CU_ASSERT_EQUAL(sim_run(p.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_TRUE(all.is_done);
		CU_ASSERT_EQUAL(all.res, 0);
		CU_ASSERT_STRING_EQUAL(got, "0123456789");
		if (connect.res == 0)
			stream_close(late);
		pair_end(&p);
	}
}

static void partition_in_one_direction(void)
{
	for (uint64_t seed = 1; seed < 30; seed++) {
		struct pair p = pair_make(seed);
		struct attempt there, back, send, answer;
		char memory[32] = "0123456789", got[32] = {0};
		transfer_start(&there, p.far, OP_RECV_ALL, got, 5);
		transfer_start(&back, p.near, OP_RECV_ALL, got + 16, 5);
		sim_net_block(p.a, p.b, true);
		transfer_start(&send, p.near, OP_SEND, memory, 5);
		transfer_start(&answer, p.far, OP_SEND, memory + 5, 5);
		CU_ASSERT_EQUAL(sim_run(p.sim, attempt_is_done, &back, STEPS_MAX), SIM_DONE);
		CU_ASSERT_STRING_EQUAL(got + 16, "56789");
		CU_ASSERT_EQUAL(sim_run(p.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_FALSE(there.is_done);
		CU_ASSERT_TRUE(sim_net_is_blocked(p.a, p.b) && !sim_net_is_blocked(p.b, p.a));
		sim_net_block(p.a, p.b, false);
		CU_ASSERT_EQUAL(sim_run(p.sim, NULL, NULL, STEPS_MAX), SIM_IDLE);
		CU_ASSERT_TRUE(there.is_done);
		CU_ASSERT_STRING_EQUAL(got, "01234");
		pair_end(&p);
	}
}

static void addresses(void)
{
	struct sim *s = sim_create(20);
	struct sim_machine *a = sim_machine_create(s, "a"), *b = sim_machine_create(s, "b");
	struct listener *l[3];
	struct stream *st;
	struct attempt t = {0}, canceled = {0};

	CU_ASSERT_EQUAL(reactor_listen(sim_reactor(a), "/run/x", &l[0]), 0);
	CU_ASSERT_EQUAL(reactor_listen(sim_reactor(b), "/run/x", &l[1]), 0); /* its own file system */
	CU_ASSERT_EQUAL(reactor_listen(sim_reactor(a), "10.0.0.1:1", &l[2]), 0);
	struct listener *refused;
	CU_ASSERT_EQUAL(reactor_listen(sim_reactor(b), "10.0.0.1:1", &refused), -EADDRINUSE);
	op_init(&t.op, attempt_done);
	reactor_connect(sim_reactor(a), &t.op, "10.0.0.1:2", &st);
	CU_ASSERT_EQUAL(sim_run(s, NULL, NULL, STEPS_MAX), SIM_IDLE);
	CU_ASSERT_EQUAL(t.res, -ECONNREFUSED);
	op_init(&canceled.op, attempt_done);
	listener_accept(l[2], &canceled.op, &st);
	for (uint32_t i = 0; i < 3; i++)
		listener_close(l[i]);
	CU_ASSERT_FALSE(canceled.is_done);
	CU_ASSERT_EQUAL(sim_run(s, NULL, NULL, STEPS_MAX), SIM_IDLE);
	CU_ASSERT_EQUAL(canceled.res, -ECANCELED);
	sim_destroy(s);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("sim: streams", NULL, NULL);
	CU_ADD_TEST(suite, stream_carries_bytes_in_order);
	CU_ADD_TEST(suite, stream_ends_and_breaks);
	CU_ADD_TEST(suite, stream_has_ended_before_it_is_read);
	CU_ADD_TEST(suite, partition_holds_bytes);
	CU_ADD_TEST(suite, partition_in_one_direction);
	CU_ADD_TEST(suite, addresses);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	bool has_failed = CU_get_number_of_failures() > 0;
	CU_cleanup_registry();
	return has_failed;
}
