/*
 * test_uring_spin.c: when a reactor spins before it sleeps, on times made up here.
 */
#include "daemon/core/uring_internal.h"

#include <CUnit/Basic.h>

#define MAX_NS (100 * NS_PER_US)

struct fixture {
	struct uring_spin spin;
	uint64_t now_ns;
};

static void fixture_init(struct fixture *f, uint64_t max_ns)
{
	spin_init(&f->spin, max_ns);
	f->now_ns = f->spin.turn_began_ns = 1000;
}

/* One turn: works, then waits for what comes after wait_ns. How long it spun. */
static uint64_t turn(struct fixture *f, uint64_t busy_ns, uint64_t wait_ns, uint32_t disk_load)
{
	f->now_ns += busy_ns;
	uint64_t limit_ns = spin_limit_ns(&f->spin, f->now_ns, disk_load);
	f->now_ns += wait_ns;
	spin_learn(&f->spin, f->now_ns, limit_ns == 0 ? SPIN_NONE : limit_ns >= wait_ns ? SPIN_HIT : SPIN_MISS);
	return min_u64(limit_ns, wait_ns);
}

/* How many of n turns spun. */
static unsigned n_spins(struct fixture *f, unsigned n, uint64_t busy_ns, uint64_t wait_ns, uint32_t disk_load)
{
	unsigned n_spun = 0;

	for (unsigned i = 0; i < n; i++)
		n_spun += turn(f, busy_ns, wait_ns, disk_load) > 0;
	return n_spun;
}

static void short_waits_for_a_disk_are_spun_away(void)
{
	struct fixture f;

	fixture_init(&f, MAX_NS);
	n_spins(&f, 20, 5000, 40000, 1);
	CU_ASSERT_EQUAL(n_spins(&f, 100, 5000, 40000, 1), 100);
	CU_ASSERT_EQUAL(n_spins(&f, 100, 5000, 40000, 2), 100);
}

static void it_can_be_switched_off(void)
{
	struct fixture f;

	fixture_init(&f, 0);
	CU_ASSERT_EQUAL(n_spins(&f, 100, 5000, 40000, 1), 0);
}

static void clients_are_waited_for_asleep(void)
{
	struct fixture f;

	fixture_init(&f, MAX_NS);
	n_spins(&f, 20, 5000, 40000, 1);
	CU_ASSERT_EQUAL(n_spins(&f, 100, 5000, 10000, 0), 0);
	CU_ASSERT_EQUAL(n_spins(&f, 100, 5000, 10 * NS_PER_S, 0), 0);
}

static void load_ends_it(void)
{
	struct fixture f;

	fixture_init(&f, MAX_NS);
	n_spins(&f, 20, 5000, 40000, 1);
	CU_ASSERT_EQUAL(n_spins(&f, 100, 5000, 40000, SPIN_DISK_LOAD_MAX + 1), 0);
	n_spins(&f, 20, 60000, 20000, 1); /* works longer than it waits */
	CU_ASSERT_EQUAL(n_spins(&f, 100, 60000, 20000, 1), 0);
	n_spins(&f, 20, 5000, 40000, 1);
	CU_ASSERT_EQUAL(n_spins(&f, 100, 5000, 40000, 1), 100);
}

static void misses_make_it_rare_and_a_short_wait_brings_it_back(void)
{
	struct fixture f;

	fixture_init(&f, MAX_NS);
	n_spins(&f, 20, 5000, 40000, 1);
	unsigned n_spun = n_spins(&f, 6400, 5000, 5 * NS_PER_MS, 1);
	CU_ASSERT_TRUE(n_spun >= 100 && n_spun <= 110); /* one in 64, and some until then */
	turn(&f, 5000, 40000, 1);
	CU_ASSERT_EQUAL(n_spins(&f, 100, 5000, 40000, 1), 100);
}

static void a_spin_is_bounded_by_what_paid(void)
{
	struct fixture f;

	fixture_init(&f, MAX_NS);
	for (int i = 0; i < 100; i++)
		turn(&f, 1000, 10000, 1);
	uint64_t spun_ns = turn(&f, 1000, NS_PER_S, 1);
	CU_ASSERT_TRUE(spun_ns >= 10000 && spun_ns <= 25000);
	for (int i = 0; i < 100; i++)
		turn(&f, 1000, 90000, 1);
	CU_ASSERT_EQUAL(turn(&f, 1000, NS_PER_S, 1), MAX_NS);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("spin", NULL, NULL);
	CU_add_test(suite, "short waits for a disk are spun away", short_waits_for_a_disk_are_spun_away);
	CU_add_test(suite, "it can be switched off", it_can_be_switched_off);
	CU_add_test(suite, "clients are waited for asleep", clients_are_waited_for_asleep);
	CU_add_test(suite, "load ends it", load_ends_it);
	CU_add_test(suite, "misses make it rare and a short wait brings it back",
		    misses_make_it_rare_and_a_short_wait_brings_it_back);
	CU_add_test(suite, "a spin is bounded by what paid", a_spin_is_bounded_by_what_paid);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
