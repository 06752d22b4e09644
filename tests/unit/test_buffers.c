/*
 * test_buffers.c: splitting, joining, the budget, the line of those who wait; on a reactor that has only turn ends.
 */
#include "daemon/core/buffers.h"
#include "daemon/core/reactor_ops.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

struct fixture {
	struct reactor reactor;
	struct buffers *buffers;
};

static const struct reactor_ops no_world; /* buffers need none of it */

static void fixture_open_with(struct fixture *f, uint64_t budget_bytes, uint64_t reserve_bytes)
{
	reactor_base_init(&f->reactor, &no_world);
	CU_ASSERT_EQUAL_FATAL(buffers_create(&f->reactor, budget_bytes, reserve_bytes, &f->buffers), 0);
	CU_ASSERT_EQUAL(buffers_budget_bytes(f->buffers), budget_bytes);
}

static void fixture_open(struct fixture *f, uint64_t budget_bytes)
{
	fixture_open_with(f, budget_bytes, 0);
}

static void fixture_close(struct fixture *f)
{
	buffers_destroy(f->buffers);
	reactor_base_fini(&f->reactor);
}

static void the_budget_is_the_limit(void)
{
	void *small[1024];
	struct fixture f;

	fixture_open(&f, 4 * MIB);
	for (size_t i = 0; i < array_size(small); i++) {
		small[i] = buffers_get(f.buffers, BUFFER_MIN_BYTES);
		CU_ASSERT_PTR_NOT_NULL_FATAL(small[i]);
		CU_ASSERT_EQUAL((uintptr_t)small[i] % BUFFER_MIN_BYTES, 0);
		memset(small[i], (int)i, BUFFER_MIN_BYTES);
	}
	CU_ASSERT_EQUAL(buffers_used_bytes(f.buffers), 4 * MIB);
	CU_ASSERT_PTR_NULL(buffers_get(f.buffers, 1));
	for (size_t i = 0; i < array_size(small); i++) { /* none overlapped another */
		unsigned char *data = small[i];
		CU_ASSERT_EQUAL(data[0], (unsigned char)i);
		CU_ASSERT_EQUAL(data[BUFFER_MIN_BYTES - 1], (unsigned char)i);
		buffers_put(f.buffers, small[i], BUFFER_MIN_BYTES);
	}
	CU_ASSERT_EQUAL(buffers_used_bytes(f.buffers), 0);
	for (int i = 0; i < 4; i++) /* all has joined again */
		CU_ASSERT_PTR_NOT_NULL(small[i] = buffers_get(f.buffers, BUFFER_MAX_BYTES));
	CU_ASSERT_PTR_NULL(buffers_get(f.buffers, 1));
	for (int i = 0; i < 4; i++)
		buffers_put(f.buffers, small[i], BUFFER_MAX_BYTES);
	fixture_close(&f);
}

static void sizes_are_rounded_up(void)
{
	static const struct {
		uint32_t len, used;
	} cases[] = {{1, 4096}, {4096, 4096}, {4097, 8192}, {100000, 131072}, {524289, 1 << 20}, {1 << 20, 1 << 20}};
	struct fixture f;

	fixture_open(&f, MIB);
	for (size_t i = 0; i < array_size(cases); i++) {
		void *data = buffers_get(f.buffers, cases[i].len);
		CU_ASSERT_PTR_NOT_NULL(data);
		CU_ASSERT_EQUAL(buffers_used_bytes(f.buffers), cases[i].used);
		buffers_put(f.buffers, data, cases[i].len);
	}
	fixture_close(&f);
}

#define N_HELD 64

/* Random traffic: what is held never overlaps, and what is given back can be had again. */
static void random_traffic_keeps_buffers_apart(void)
{
	static struct {
		unsigned char *data;
		uint32_t len;
		unsigned char mark;
	} held[N_HELD];
	struct fixture f;

	fixture_open(&f, 8 * MIB);
	srand(7);
	for (int step = 0; step < 20000; step++) {
		int i = rand() % N_HELD;
		if (held[i].data != NULL) {
			bool is_intact =
			    held[i].data[0] == held[i].mark && held[i].data[held[i].len - 1] == held[i].mark;
			CU_ASSERT_TRUE(is_intact);
			buffers_put(f.buffers, held[i].data, held[i].len);
			held[i].data = NULL;
			continue;
		}
		held[i].len = 1 + (uint32_t)rand() % (1u << (8 + rand() % 13));
		held[i].mark = (unsigned char)rand();
		held[i].data = buffers_get(f.buffers, held[i].len);
		if (held[i].data != NULL)
			held[i].data[0] = held[i].data[held[i].len - 1] = held[i].mark;
	}
	for (int i = 0; i < N_HELD; i++)
		if (held[i].data != NULL)
			buffers_put(f.buffers, held[i].data, held[i].len);
	CU_ASSERT_EQUAL(buffers_used_bytes(f.buffers), 0);
	for (int i = 0; i < 8; i++)
		CU_ASSERT_PTR_NOT_NULL(held[i].data = buffers_get(f.buffers, BUFFER_MAX_BYTES));
	for (int i = 0; i < 8; i++)
		buffers_put(f.buffers, held[i].data, BUFFER_MAX_BYTES);
	fixture_close(&f);
}

struct waiting {
	struct buffer_waiter waiter;
	void *data;
};

static void take(struct buffer_waiter *w, void *data)
{
	container_of(w, struct waiting, waiter)->data = data;
}

static void the_line_is_first_come_first_served(void)
{
	struct waiting big = {.waiter.ready = take}, small = {.waiter.ready = take};
	struct fixture f;
	void *half[2];

	fixture_open(&f, MIB);
	half[0] = buffers_get(f.buffers, MIB / 2);
	half[1] = buffers_get(f.buffers, MIB / 2);
	buffers_wait(f.buffers, &big.waiter, MIB);
	buffers_wait(f.buffers, &small.waiter, BUFFER_MIN_BYTES);
	buffers_put(f.buffers, half[0], MIB / 2);
	reactor_base_turn_end(&f.reactor);
	CU_ASSERT_PTR_NULL(small.data); /* does not overtake */
	CU_ASSERT_PTR_NULL(buffers_get(f.buffers, BUFFER_MIN_BYTES));
	buffers_put(f.buffers, half[1], MIB / 2);
	CU_ASSERT_PTR_NULL(big.data); /* not within the call */
	reactor_base_turn_end(&f.reactor);
	CU_ASSERT_PTR_NOT_NULL(big.data);
	CU_ASSERT_PTR_NULL(small.data);
	buffers_put(f.buffers, big.data, MIB);
	reactor_base_turn_end(&f.reactor);
	CU_ASSERT_PTR_NOT_NULL(small.data);
	buffers_put(f.buffers, small.data, BUFFER_MIN_BYTES);
	fixture_close(&f);
}

static void one_who_leaves_lets_the_next_go(void)
{
	struct waiting big = {.waiter.ready = take}, small = {.waiter.ready = take};
	struct fixture f;

	fixture_open(&f, MIB);
	void *first = buffers_get(f.buffers, BUFFER_MIN_BYTES);
	buffers_wait(f.buffers, &big.waiter, MIB);
	buffers_wait(f.buffers, &small.waiter, BUFFER_MIN_BYTES);
	reactor_base_turn_end(&f.reactor);
	CU_ASSERT_PTR_NULL(small.data);
	buffers_cancel(f.buffers, &big.waiter);
	reactor_base_turn_end(&f.reactor);
	CU_ASSERT_PTR_NULL(big.data);
	CU_ASSERT_PTR_NOT_NULL(small.data);
	buffers_put(f.buffers, small.data, BUFFER_MIN_BYTES);
	buffers_put(f.buffers, first, BUFFER_MIN_BYTES);
	fixture_close(&f);
}

static void waiting_with_room_is_served_soon(void)
{
	struct waiting one = {.waiter.ready = take};
	struct fixture f;

	fixture_open(&f, MIB);
	buffers_wait(f.buffers, &one.waiter, MIB);
	CU_ASSERT_PTR_NULL(one.data);
	CU_ASSERT_EQUAL(reactor_base_next_ns(&f.reactor), 0);
	reactor_base_turn_end(&f.reactor);
	CU_ASSERT_PTR_NOT_NULL(one.data);
	buffers_put(f.buffers, one.data, MIB);
	fixture_close(&f);
}

static void the_reserve_is_for_small_ones(void)
{
	struct waiting large = {.waiter.ready = take}, small = {.waiter.ready = take};
	struct fixture f;
	void *held[MIB / BUFFER_SMALL_BYTES];

	fixture_open_with(&f, 2 * MIB, MIB);
	void *common = buffers_get(f.buffers, MIB);
	CU_ASSERT_PTR_NOT_NULL(common);
	CU_ASSERT_PTR_NULL(buffers_get(f.buffers, BUFFER_SMALL_BYTES + 1));
	buffers_wait(f.buffers, &large.waiter, 2 * BUFFER_SMALL_BYTES);
	for (size_t i = 0; i < array_size(held); i++) /* large ones hold everything, and more of them wait */
		CU_ASSERT_PTR_NOT_NULL_FATAL(held[i] = buffers_get(f.buffers, BUFFER_SMALL_BYTES));
	CU_ASSERT_PTR_NULL(buffers_get(f.buffers, BUFFER_MIN_BYTES));
	buffers_wait(f.buffers, &small.waiter, BUFFER_MIN_BYTES);
	buffers_put(f.buffers, held[0], BUFFER_SMALL_BYTES);
	reactor_base_turn_end(&f.reactor);
	CU_ASSERT_PTR_NOT_NULL(small.data); /* though it came last */
	CU_ASSERT_PTR_NULL(large.data);
	buffers_put(f.buffers, common, MIB);
	reactor_base_turn_end(&f.reactor);
	CU_ASSERT_PTR_NOT_NULL(large.data);
	buffers_put(f.buffers, large.data, 2 * BUFFER_SMALL_BYTES);
	buffers_put(f.buffers, small.data, BUFFER_MIN_BYTES);
	for (size_t i = 1; i < array_size(held); i++)
		buffers_put(f.buffers, held[i], BUFFER_SMALL_BYTES);
	fixture_close(&f);
}

/* Of what comes back to the common pool, the one who came first gets his part, whatever its size. */
static void nobody_is_overtaken_in_the_common_pool(void)
{
	struct waiting small = {.waiter.ready = take}, large = {.waiter.ready = take};
	struct fixture f;

	fixture_open(&f, MIB);
	void *all = buffers_get(f.buffers, MIB);
	buffers_wait(f.buffers, &small.waiter, BUFFER_MIN_BYTES);
	buffers_wait(f.buffers, &large.waiter, MIB);
	buffers_put(f.buffers, all, MIB);
	CU_ASSERT_PTR_NULL(buffers_get(f.buffers, MIB));
	reactor_base_turn_end(&f.reactor);
	CU_ASSERT_PTR_NOT_NULL(small.data);
	CU_ASSERT_PTR_NULL(large.data);
	CU_ASSERT_PTR_NULL(buffers_get(f.buffers, BUFFER_MIN_BYTES)); /* there are many, and he waits for all */
	buffers_put(f.buffers, small.data, BUFFER_MIN_BYTES);
	reactor_base_turn_end(&f.reactor);
	CU_ASSERT_PTR_NOT_NULL(large.data);
	buffers_put(f.buffers, large.data, MIB);
	fixture_close(&f);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("buffers", NULL, NULL);
	CU_add_test(suite, "the budget is the limit", the_budget_is_the_limit);
	CU_add_test(suite, "sizes are rounded up", sizes_are_rounded_up);
	CU_add_test(suite, "random traffic keeps buffers apart", random_traffic_keeps_buffers_apart);
	CU_add_test(suite, "the line is first come, first served", the_line_is_first_come_first_served);
	CU_add_test(suite, "one who leaves lets the next go", one_who_leaves_lets_the_next_go);
	CU_add_test(suite, "waiting with room is served soon", waiting_with_room_is_served_soon);
	CU_add_test(suite, "the reserve is for small ones", the_reserve_is_for_small_ones);
	CU_add_test(suite, "nobody is overtaken in the common pool", nobody_is_overtaken_in_the_common_pool);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
