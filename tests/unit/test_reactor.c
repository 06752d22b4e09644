/*
 * test_reactor.c: the half of the reactor that both worlds share, on a clock that is moved by hand.
 */
#include "daemon/core/reactor_ops.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t fake_now_ns;

static uint64_t fake_clock(struct reactor *r)
{
	return fake_now_ns;
}

static const struct reactor_ops fake_ops = {.now_ns = fake_clock};

/* What was called, in order, as text. */
static char story[64];

static void tell(char what)
{
	size_t len = strlen(story);

	if (len + 1 < sizeof story) {
		story[len] = what;
		story[len + 1] = '\0';
	}
}

static void story_is(const char *expected)
{
	CU_ASSERT_STRING_EQUAL(story, expected);
	story[0] = '\0';
}

struct told_timer {
	struct timer timer;
	struct reactor *reactor;
	struct told_timer *other; /* to stop when fired */
	uint64_t again_ns;        /* != UINT64_MAX: start again with this delay */
	char name;
};

static void told_fired(struct timer *t)
{
	struct told_timer *told = container_of(t, struct told_timer, timer);

	CU_ASSERT_FALSE(timer_is_running(t));
	CU_ASSERT_TRUE(t->at_ns <= fake_now_ns);
	tell(told->name);
	if (told->other != NULL)
		timer_stop(told->reactor, &told->other->timer);
	if (told->again_ns != UINT64_MAX)
		timer_start(told->reactor, t, told->again_ns);
}

static void told_timer_init(struct told_timer *t, struct reactor *r, char name)
{
	*t = (struct told_timer){.reactor = r, .name = name, .again_ns = UINT64_MAX};
	timer_init(&t->timer, told_fired);
}

static void timers_fire_in_order_and_never_early(void)
{
	struct told_timer a, b, c;
	struct reactor r;

	reactor_base_init(&r, &fake_ops);
	fake_now_ns = 1000;
	told_timer_init(&a, &r, 'a');
	told_timer_init(&b, &r, 'b');
	told_timer_init(&c, &r, 'c');
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), UINT64_MAX);
	timer_start(&r, &c.timer, 30);
	timer_start(&r, &a.timer, 10);
	timer_start(&r, &b.timer, 20);
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), 1010);
	fake_now_ns = 1009;
	CU_ASSERT_FALSE(reactor_base_deliver(&r));
	story_is("");
	fake_now_ns = 1025;
	CU_ASSERT_TRUE(reactor_base_deliver(&r));
	story_is("ab");
	CU_ASSERT_TRUE(timer_is_running(&c.timer));
	timer_start(&r, &c.timer, 50); /* restarted: later than it was */
	fake_now_ns = 1060;
	CU_ASSERT_FALSE(reactor_base_deliver(&r));
	fake_now_ns = 1075;
	reactor_base_deliver(&r);
	story_is("c");
	timer_start(&r, &c.timer, UINT64_MAX); /* for ever, not in the past */
	CU_ASSERT_FALSE(reactor_base_deliver(&r));
	timer_stop(&r, &c.timer);
	timer_stop(&r, &c.timer);
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), UINT64_MAX);
	reactor_base_fini(&r);
}

static void a_timer_may_stop_another_that_is_due(void)
{
	struct told_timer a, b;
	struct reactor r;

	reactor_base_init(&r, &fake_ops);
	told_timer_init(&a, &r, 'a');
	told_timer_init(&b, &r, 'b');
	a.other = &b;
	timer_start(&r, &a.timer, 1);
	timer_start(&r, &b.timer, 2);
	fake_now_ns += 10;
	reactor_base_deliver(&r);
	story_is("a");
	CU_ASSERT_FALSE(timer_is_running(&b.timer));
	CU_ASSERT_FALSE(reactor_base_deliver(&r));
	reactor_base_fini(&r);
}

static void without_delay_means_the_next_turn(void)
{
	struct told_timer a;
	struct reactor r;

	reactor_base_init(&r, &fake_ops);
	told_timer_init(&a, &r, 'a');
	a.again_ns = 0;
	timer_start(&r, &a.timer, 0);
	for (int i = 0; i < 3; i++) { /* the clock stands still */
		CU_ASSERT_TRUE(reactor_base_deliver(&r));
		story_is("a");
		CU_ASSERT_TRUE(timer_is_running(&a.timer));
	}
	timer_stop(&r, &a.timer);
	reactor_base_fini(&r);
}

#define N_TIMERS 500

static uint64_t n_fired, last_fired_ns;

static void count_fired(struct timer *t)
{
	CU_ASSERT_TRUE(t->at_ns >= last_fired_ns);
	CU_ASSERT_TRUE(t->at_ns <= fake_now_ns);
	last_fired_ns = t->at_ns;
	n_fired++;
}

/* Starts, restarts and stops at random; what fires is exactly what a simple count says, in order of time. */
static void many_timers_agree_with_a_simple_count(void)
{
	static struct timer timers[N_TIMERS];
	struct reactor r;

	reactor_base_init(&r, &fake_ops);
	srand(3);
	for (int i = 0; i < N_TIMERS; i++)
		timer_init(&timers[i], count_fired);
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < 200; i++) {
			struct timer *t = &timers[rand() % N_TIMERS];
			if (rand() % 3 == 0)
				timer_stop(&r, t);
			else
				timer_start(&r, t, (uint64_t)rand() % 1000);
		}
		fake_now_ns += (uint64_t)rand() % 300;
		uint64_t n_due = 0, next_ns = UINT64_MAX;
		for (int i = 0; i < N_TIMERS; i++) {
			if (!timer_is_running(&timers[i]))
				continue;
			n_due += timers[i].at_ns <= fake_now_ns;
			next_ns = min_u64(next_ns, timers[i].at_ns);
		}
		CU_ASSERT_EQUAL(reactor_base_next_ns(&r), next_ns);
		n_fired = last_fired_ns = 0;
		reactor_base_deliver(&r);
		CU_ASSERT_EQUAL(n_fired, n_due);
	}
	for (int i = 0; i < N_TIMERS; i++)
		timer_stop(&r, &timers[i]);
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), UINT64_MAX);
	reactor_base_fini(&r);
}

struct told_op {
	struct op op;
	struct reactor *reactor;
	int n_again;
	int res;
};

static void told_done(struct op *op, int res)
{
	struct told_op *told = container_of(op, struct told_op, op);

	CU_ASSERT_EQUAL(op->kind, OP_NONE);
	told->res = res;
	tell('d');
	if (told->n_again-- > 0)
		reactor_defer(told->reactor, op, res);
}

static void what_is_deferred_comes_one_turn_later(void)
{
	struct reactor r;
	struct told_op told = {.reactor = &r, .n_again = 1};

	reactor_base_init(&r, &fake_ops);
	op_init(&told.op, told_done);
	reactor_defer(&r, &told.op, -ENOSPC);
	story_is("");
	CU_ASSERT_EQUAL(told.op.kind, OP_DEFER);
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), 0);
	CU_ASSERT_TRUE(reactor_base_deliver(&r));
	story_is("d");
	CU_ASSERT_EQUAL(told.res, -ENOSPC);
	CU_ASSERT_TRUE(reactor_base_deliver(&r)); /* deferred again from within done() */
	story_is("d");
	CU_ASSERT_FALSE(reactor_base_deliver(&r));
	reactor_base_fini(&r);
}

struct told_hook {
	struct turn_hook hook;
	struct reactor *reactor;
	struct told_hook *sets;
	char name;
};

static void told_run(struct turn_hook *h)
{
	struct told_hook *told = container_of(h, struct told_hook, hook);

	tell(told->name);
	if (told->sets != NULL)
		reactor_at_turn_end(told->reactor, &told->sets->hook);
}

static void hooks_run_once_a_turn(void)
{
	struct told_hook a, b;
	struct reactor r;

	reactor_base_init(&r, &fake_ops);
	a = (struct told_hook){.reactor = &r, .sets = &b, .name = 'a'};
	b = (struct told_hook){.reactor = &r, .sets = NULL, .name = 'b'};
	turn_hook_init(&a.hook, told_run);
	turn_hook_init(&b.hook, told_run);
	reactor_base_turn_end(&r);
	story_is("");
	reactor_at_turn_end(&r, &a.hook);
	reactor_at_turn_end(&r, &a.hook);
	reactor_base_turn_end(&r); /* what a sets still belongs to this turn */
	story_is("ab");
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), UINT64_MAX);
	b.sets = &a; /* in a circle: each once a turn, and the next turn comes at once */
	reactor_at_turn_end(&r, &a.hook);
	reactor_base_turn_end(&r);
	story_is("ab");
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), 0);
	b.sets = NULL;
	reactor_base_turn_end(&r);
	story_is("ab");
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), UINT64_MAX);
	reactor_base_fini(&r);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite shared = CU_add_suite("shared half", NULL, NULL);
	CU_add_test(shared, "timers fire in order and never early", timers_fire_in_order_and_never_early);
	CU_add_test(shared, "a timer may stop another that is due", a_timer_may_stop_another_that_is_due);
	CU_add_test(shared, "without delay means the next turn", without_delay_means_the_next_turn);
	CU_add_test(shared, "many timers agree with a simple count", many_timers_agree_with_a_simple_count);
	CU_add_test(shared, "what is deferred comes one turn later", what_is_deferred_comes_one_turn_later);
	CU_add_test(shared, "hooks run once a turn", hooks_run_once_a_turn);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
