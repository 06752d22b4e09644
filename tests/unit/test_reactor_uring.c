/*
 * test_reactor_uring.c: the loop of the io_uring reactor: a full ring, time, rest, other threads, signals.
 */
#include "tests/unit/uring_world.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

/* ---- the ring ---- */

#define N_MANY 400

/* Far more at once than the ring of eight has room for. */
static void a_full_ring_loses_nothing(void)
{
	static struct wait ops[N_MANY];
	static struct iovec iovs[N_MANY];
	unsigned char *data = pages(N_MANY * BLOCK_BYTES), *back = pages(N_MANY * BLOCK_BYTES);
	unsigned n_left = N_MANY;
	struct world w;

	world_open_with(&w, 8, 0);
	struct file *f = world_file(&w, N_MANY * BLOCK_BYTES);
	fill(data, N_MANY * BLOCK_BYTES, 2);
	for (unsigned i = 0; i < N_MANY; i++) {
		wait_init(&ops[i], w.reactor);
		ops[i].n_left = &n_left;
		iovs[i] = (struct iovec){data + i * BLOCK_BYTES, BLOCK_BYTES};
		file_write(f, &ops[i].op, &iovs[i], 1, i * BLOCK_BYTES);
	}
	CU_ASSERT_TRUE(counter_get(&reactor_counters(w.reactor)->ring_full) > 0);
	reactor_run(w.reactor);
	CU_ASSERT_EQUAL(n_left, 0);
	for (unsigned i = 0; i < N_MANY; i++)
		CU_ASSERT_TRUE(ops[i].is_done && ops[i].res == 0);
	ops[0].is_done = false;
	n_left = 1;
	file_read(f, &ops[0].op, &(struct iovec){back, N_MANY * BLOCK_BYTES}, 1, 0);
	CU_ASSERT_EQUAL(wait_for(&ops[0]), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, N_MANY * BLOCK_BYTES), 0);
	file_close(f);
	world_close(&w);
	munmap(data, N_MANY * BLOCK_BYTES);
	munmap(back, N_MANY * BLOCK_BYTES);
}

/* ---- time and threads ---- */

struct stopper {
	struct timer timer;
	struct reactor *reactor;
	uint64_t fired_ns;
};

static void stopper_fired(struct timer *t)
{
	struct stopper *s = container_of(t, struct stopper, timer);

	s->fired_ns = reactor_now_ns(s->reactor);
	reactor_stop(s->reactor);
}

static void stop_after(struct stopper *s, struct reactor *r, uint64_t delay_ns)
{
	*s = (struct stopper){.reactor = r};
	timer_init(&s->timer, stopper_fired);
	timer_start(r, &s->timer, delay_ns);
}

static void timers_follow_the_clock(void)
{
	struct stopper s;
	struct world w;

	world_open_with(&w, 0, 50);
	for (uint64_t delay_ns = 1; delay_ns < 30 * NS_PER_MS; delay_ns = delay_ns * 13 + 1) {
		uint64_t began_ns = reactor_now_ns(w.reactor);
		stop_after(&s, w.reactor, delay_ns);
		reactor_run(w.reactor);
		CU_ASSERT_TRUE(s.fired_ns - began_ns >= delay_ns);
	}
	CU_ASSERT_TRUE(reactor_wall_ns(w.reactor) > 1600000000ull * NS_PER_S);
	CU_ASSERT_NOT_EQUAL(reactor_random(w.reactor), reactor_random(w.reactor));
	world_close(&w);
}

static uint64_t thread_cpu_ns(void)
{
	struct timespec used;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * NS_PER_S + (uint64_t)used.tv_nsec;
}

static void at_rest_nothing_spins(void)
{
	struct stopper s;
	struct world w;

	world_open_with(&w, 0, 100);
	uint64_t before_ns = thread_cpu_ns();
	stop_after(&s, w.reactor, 300 * NS_PER_MS);
	reactor_run(w.reactor);
	CU_ASSERT_TRUE(thread_cpu_ns() - before_ns < 30 * NS_PER_MS);
	CU_ASSERT_TRUE(counter_get(&reactor_counters(w.reactor)->spins) <= 2);
	CU_ASSERT_TRUE(counter_get(&reactor_counters(w.reactor)->sleeps) >= 1);
	world_close(&w);
}

static void spinning_that_never_pays_stops(void)
{
	struct stopper s;
	struct world w;

	world_open_with(&w, 0, 100);
	for (int i = 0; i < 200; i++) { /* what wakes it is always further away than the bound */
		stop_after(&s, w.reactor, NS_PER_MS);
		reactor_run(w.reactor);
	}
	CU_ASSERT_TRUE(counter_get(&reactor_counters(w.reactor)->spins) < 30);
	CU_ASSERT_TRUE(counter_get(&reactor_counters(w.reactor)->spin_ns) < 30 * 2 * NS_PER_MS);
	world_close(&w);
}

#define N_SENDERS 3
#define N_EACH    2000

struct numbered {
	struct message message;
	struct sender *sender;
	unsigned number;
};

struct sender {
	pthread_t thread;
	struct reactor *reactor;
	unsigned n_received;
	unsigned *n_left;
	struct numbered messages[N_EACH];
};

static void numbered_deliver(struct message *m)
{
	struct numbered *n = container_of(m, struct numbered, message);

	CU_ASSERT_EQUAL(n->number, n->sender->n_received); /* in the order of posting */
	n->sender->n_received++;
	if (--*n->sender->n_left == 0)
		reactor_stop(n->sender->reactor);
}

static void *send_all(void *context)
{
	struct sender *s = context;

	for (unsigned i = 0; i < N_EACH; i++) {
		s->messages[i] = (struct numbered){.message.deliver = numbered_deliver, .sender = s, .number = i};
		reactor_post(s->reactor, &s->messages[i].message);
		if (i % 64 == 0)
			sched_yield(); /* let it fall asleep now and then */
	}
	return NULL;
}

static void messages_of_threads_arrive_in_order(void)
{
	static struct sender senders[N_SENDERS];
	unsigned n_left = N_SENDERS * N_EACH;
	struct world w;

	world_open(&w);
	for (int i = 0; i < N_SENDERS; i++) {
		senders[i].reactor = w.reactor;
		senders[i].n_received = 0;
		senders[i].n_left = &n_left;
		CU_ASSERT_EQUAL(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
	}
	reactor_run(w.reactor);
	CU_ASSERT_EQUAL(n_left, 0);
	for (int i = 0; i < N_SENDERS; i++) {
		pthread_join(senders[i].thread, NULL);
		CU_ASSERT_EQUAL(senders[i].n_received, N_EACH);
	}
	world_close(&w);
}

/* Two reactors on two threads hand one message back and forth: no wake-up is lost. */
struct ball {
	struct message message;
	struct reactor *here, *there;
	unsigned n_left;
};

static void ball_deliver(struct message *m)
{
	struct ball *b = container_of(m, struct ball, message);
	struct reactor *here = b->here;

	b->here = b->there;
	b->there = here;
	if (--b->n_left == 0) {
		reactor_stop(b->here);
		reactor_stop(here);
	} else {
		reactor_post(b->here, m);
	}
}

struct partner {
	pthread_t thread;
	struct reactor *reactor;
};

static void *partner_run(void *context)
{
	struct partner *p = context;

	reactor_run(p->reactor); /* created and destroyed by another thread */
	return NULL;
}

static void no_wake_up_is_lost(void)
{
	struct reactor_options options = {.is_plain = is_plain};
	struct partner partner;
	struct world w;

	world_open(&w);
	CU_ASSERT_EQUAL_FATAL(reactor_create(&options, &partner.reactor), 0);
	struct ball ball = {
	    .message.deliver = ball_deliver, .here = w.reactor, .there = partner.reactor, .n_left = 20000};
	CU_ASSERT_EQUAL(pthread_create(&partner.thread, NULL, partner_run, &partner), 0);
	reactor_post(w.reactor, &ball.message);
	reactor_run(w.reactor);
	CU_ASSERT_EQUAL(ball.n_left, 0);
	pthread_join(partner.thread, NULL);
	reactor_destroy(partner.reactor);
	world_close(&w);
}

static struct reactor *signalled;

static void on_signal(int number)
{
	reactor_stop(signalled);
}

static void a_signal_handler_may_stop_it(void)
{
	struct world w;

	world_open(&w);
	signalled = w.reactor;
	signal(SIGUSR1, on_signal);
	pid_t parent = getpid(), child = fork();
	if (child == 0) {
		kill(parent, SIGUSR1);
		_exit(0);
	}
	reactor_run(w.reactor);
	signal(SIGUSR1, SIG_DFL);
	CU_ASSERT_EQUAL(waitpid(child, NULL, 0), child);
	reactor_stop(w.reactor); /* before it runs: ends after one turn */
	reactor_run(w.reactor);
	world_close(&w);
}

static const struct world_test tests[] = {
    {"a full ring loses nothing", a_full_ring_loses_nothing},
    {"timers follow the clock", timers_follow_the_clock},
    {"at rest nothing spins", at_rest_nothing_spins},
    {"spinning that never pays stops", spinning_that_never_pays_stops},
    {"messages of threads arrive in order", messages_of_threads_arrive_in_order},
    {"no wake-up is lost", no_wake_up_is_lost},
    {"a signal handler may stop it", a_signal_handler_may_stop_it},
};

int main(void)
{
	return world_tests_run(tests, array_size(tests));
}
