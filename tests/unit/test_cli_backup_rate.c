/*
 * test_cli_backup_rate.c: within any time, however the reader stood still before, no more is read than the rate allows.
 */
#include "cli/backup/rate.h"

#include <CUnit/Basic.h>
#include <stdlib.h>

#define PIECE_BYTES (128u << 10)
#define RATE        (20ull << 20)
#define READS_MAX   5000u

struct reads {
	uint64_t at_ms[READS_MAX];
	uint32_t n;
};

/* Reads as fast as it may until the end. */
static void read_until(struct reads *t, struct rate *r, uint64_t *now_ms, uint64_t end_ms)
{
	while (*now_ms < end_ms) {
		uint64_t wait_ms = rate_wait_ms(r, *now_ms);
		*now_ms += wait_ms;
		if (wait_ms > 0)
			continue;
		CU_ASSERT_FATAL(t->n < READS_MAX);
		t->at_ms[t->n++] = *now_ms;
		rate_count(r, PIECE_BYTES, *now_ms);
	}
}

static void test_any_time(void)
{
	static struct reads t;
	struct rate r = {.bytes_per_s = RATE};
	uint64_t now_ms = 1000000;
	uint32_t n_over = 0;
	srand(1);
	t.n = 0;
	for (int i = 0; i < 20; i++) {
		read_until(&t, &r, &now_ms, now_ms + (uint64_t)rand() % 500);
		now_ms += (uint64_t)rand() % 3000; /* it stands still */
	}
	CU_ASSERT_FATAL(t.n > 100);
	for (uint32_t i = 0; i < t.n; i++)
		for (uint32_t j = i; j < t.n; j++) {
			uint64_t bytes = (uint64_t)(j - i + 1) * PIECE_BYTES, ms = t.at_ms[j] - t.at_ms[i];
			n_over += bytes > (ms + RATE_BURST_MS + 1) * RATE / 1000 + PIECE_BYTES;
		}
	CU_ASSERT_EQUAL(n_over, 0);
}

static void test_is_reached(void)
{
	static struct reads t;
	struct rate r = {.bytes_per_s = RATE};
	uint64_t now_ms = 5;
	t.n = 0;
	read_until(&t, &r, &now_ms, 10005);
	CU_ASSERT((uint64_t)t.n * PIECE_BYTES >= 10 * RATE * 99 / 100);
}

static void test_no_limit(void)
{
	struct rate r = {0};
	for (int i = 0; i < 1000; i++)
		rate_count(&r, 1u << 30, 1);
	CU_ASSERT_EQUAL(rate_wait_ms(&r, 1), 0);
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("a backup's rate", NULL, NULL);
	CU_add_test(suite, "within any time", test_any_time);
	CU_add_test(suite, "it is reached", test_is_reached);
	CU_add_test(suite, "no limit", test_no_limit);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures > 0;
}
