/*
 * test_range_lock.c: range locks against the plainest model there is: a list in order of arrival.
 */
#include "volumes/head/range_lock.h"

#include <CUnit/Basic.h>
#include <stdlib.h>

#define LOCKS 64u

struct probe {
	struct range_lock lock;
	bool is_present, is_granted;
};

static struct probe *probe_of(struct range_lock *l)
{
	return container_of(l, struct probe, lock);
}

static void granted(struct range_lock *l)
{
	struct probe *p = probe_of(l);
	CU_ASSERT_FATAL(p->is_present && !p->is_granted);
	p->is_granted = true;
}

static void take(struct range_locks *s, struct probe *p, uint64_t first, uint64_t last, bool is_shared)
{
	p->is_present = true;
	p->is_granted = range_lock_take(s, &p->lock, first, last, is_shared);
}

static void release(struct range_locks *s, struct probe *p)
{
	p->is_present = p->is_granted = false;
	range_lock_release(s, &p->lock);
}

static void test_disjoint_locks_are_granted_at_once(void)
{
	struct range_locks s;
	struct probe p[3] = {0};
	range_locks_init(&s, granted);
	take(&s, &p[0], 0, 7, false);
	take(&s, &p[1], 8, 15, false);
	take(&s, &p[2], RANGE_BUCKETS << RANGE_AREA_SHIFT, (RANGE_BUCKETS << RANGE_AREA_SHIFT) + 7,
	     false); /* same bucket */
	CU_ASSERT(p[0].is_granted && p[1].is_granted && p[2].is_granted);
	for (int i = 0; i < 3; i++)
		release(&s, &p[i]);
	CU_ASSERT_EQUAL(s.n, 0);
}

static void test_reads_share_and_writes_exclude(void)
{
	struct range_locks s;
	struct probe read[2] = {0}, write = {0}, late = {0};
	range_locks_init(&s, granted);
	take(&s, &read[0], 10, 20, true);
	take(&s, &read[1], 15, 30, true);
	take(&s, &write, 20, 20, false);
	take(&s, &late, 20, 20, true);
	CU_ASSERT(read[0].is_granted && read[1].is_granted);
	CU_ASSERT(!write.is_granted && !late.is_granted); /* a late read does not overtake the write that waits */
	release(&s, &read[1]);
	CU_ASSERT(!write.is_granted);
	release(&s, &read[0]);
	CU_ASSERT(write.is_granted && !late.is_granted);
	release(&s, &write);
	CU_ASSERT(late.is_granted);
	release(&s, &late);
}

static void test_wide_locks_meet_narrow_ones(void)
{
	struct range_locks s;
	struct probe narrow = {0}, wide[2] = {0}, after = {0};
	range_locks_init(&s, granted);
	take(&s, &narrow, 31, 32, false); /* two areas */
	take(&s, &wide[0], 0, 1ull << 40, false);
	take(&s, &wide[1], 1000, 1ull << 41, false);
	take(&s, &after, 1ull << 41, 1ull << 41, false);
	CU_ASSERT(narrow.is_granted && !wide[0].is_granted && !wide[1].is_granted && !after.is_granted);
	release(&s, &narrow);
	CU_ASSERT(wide[0].is_granted && !wide[1].is_granted);
	release(&s, &wide[0]);
	CU_ASSERT(wide[1].is_granted && !after.is_granted);
	release(&s, &wide[1]);
	CU_ASSERT(after.is_granted);
	release(&s, &after);
}

/* What invariant 3 and fairness say, computed by looking at every pair. */
static bool should_be_granted(const struct probe *p, const struct probe *at)
{
	for (uint32_t i = 0; i < LOCKS; i++) {
		const struct range_lock *a = &p[i].lock, *b = &at->lock;
		if (p[i].is_present && a->order < b->order && a->first <= b->last && b->first <= a->last &&
		    !(a->is_shared && b->is_shared))
			return false;
	}
	return true;
}

static void test_random_locks_follow_the_model(void)
{
	struct range_locks s;
	struct probe p[LOCKS] = {0};
	unsigned seed = 7;
	uint32_t n_waited = 0;
	range_locks_init(&s, granted);
	for (uint32_t step = 0; step < 20000; step++) {
		struct probe *at = &p[(uint32_t)rand_r(&seed) % LOCKS];
		if (!at->is_present) {
			uint64_t first = (uint64_t)rand_r(&seed) % 400 + (rand_r(&seed) % 2 ? 8192 : 0);
			uint64_t n = rand_r(&seed) % 8 ? (uint64_t)rand_r(&seed) % 40 : (uint64_t)rand_r(&seed) % 9000;
			take(&s, at, first, first + n, rand_r(&seed) % 3 == 0);
			n_waited += !at->is_granted;
		} else if (at->is_granted) {
			release(&s, at);
		}
		for (uint32_t i = 0; i < LOCKS; i++)
			if (p[i].is_present)
				CU_ASSERT_EQUAL_FATAL(p[i].is_granted, should_be_granted(p, &p[i]));
	}
	CU_ASSERT(n_waited > 1000);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("range_lock", NULL, NULL);
	CU_ADD_TEST(suite, test_disjoint_locks_are_granted_at_once);
	CU_ADD_TEST(suite, test_reads_share_and_writes_exclude);
	CU_ADD_TEST(suite, test_wide_locks_meet_narrow_ones);
	CU_ADD_TEST(suite, test_random_locks_follow_the_model);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
