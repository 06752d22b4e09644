/*
 * test_metrics.c: bounds of the histogram's buckets, where values fall, and quantiles.
 */
#include "daemon/core/metrics.h"

#include <CUnit/Basic.h>
#include <string.h>

/* The bucket that a value is counted in. */
static unsigned bucket_that_counted(uint64_t value_ns)
{
	struct histogram h;
	unsigned found = HISTOGRAM_BUCKETS;

	memset(&h, 0, sizeof h);
	histogram_add(&h, value_ns);
	CU_ASSERT_EQUAL(counter_get(&h.n), 1);
	CU_ASSERT_EQUAL(counter_get(&h.sum_ns), value_ns);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		if (counter_get(&h.bucket[i]) == 1)
			found = i;
	return found;
}

static void bounds_grow_by_a_quarter(void)
{
	CU_ASSERT_EQUAL(histogram_bound_ns(0), 1024);
	CU_ASSERT_EQUAL(histogram_bound_ns(1), 1280);
	CU_ASSERT_EQUAL(histogram_bound_ns(4), 2048);
	CU_ASSERT_EQUAL(histogram_bound_ns(HISTOGRAM_BUCKETS - 1), UINT64_MAX);
	CU_ASSERT_TRUE(histogram_bound_ns(HISTOGRAM_BUCKETS - 2) >= 64 * NS_PER_S);
	for (unsigned i = 1; i < HISTOGRAM_BUCKETS - 1; i++) {
		uint64_t low = histogram_bound_ns(i - 1), high = histogram_bound_ns(i);
		CU_ASSERT_TRUE(high > low);
		CU_ASSERT_TRUE(high - low <= low / 4);
	}
}

static void a_bound_belongs_to_its_bucket(void)
{
	CU_ASSERT_EQUAL(bucket_that_counted(0), 0);
	CU_ASSERT_EQUAL(bucket_that_counted(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
		CU_ASSERT_EQUAL(bucket_that_counted(histogram_bound_ns(i)), i);
		CU_ASSERT_EQUAL(bucket_that_counted(histogram_bound_ns(i) + 1), i + 1);
	}
}

static void quantiles_are_close(void)
{
	static const double quantiles[] = {0.01, 0.5, 0.9, 0.99, 0.999, 1};
	struct histogram h;

	memset(&h, 0, sizeof h);
	CU_ASSERT_EQUAL(histogram_quantile_ns(&h, 0.5), 0);
	for (uint64_t us = 1; us <= 100000; us++)
		histogram_add(&h, us * 1000);
	for (size_t i = 0; i < array_size(quantiles); i++) {
		double expected = quantiles[i] * 1e8, got = (double)histogram_quantile_ns(&h, quantiles[i]);
		CU_ASSERT_TRUE(got >= expected * 0.95 && got <= expected * 1.15);
	}
	CU_ASSERT_TRUE(histogram_quantile_ns(&h, 0) <= 1024);
}

static void outliers_do_not_hide(void)
{
	struct histogram h;

	memset(&h, 0, sizeof h);
	for (int i = 0; i < 999; i++)
		histogram_add(&h, 50 * NS_PER_US);
	histogram_add(&h, 1000 * NS_PER_S);
	CU_ASSERT_TRUE(histogram_quantile_ns(&h, 0.99) < 60 * NS_PER_US);
	CU_ASSERT_TRUE(histogram_quantile_ns(&h, 1) >= 64 * NS_PER_S);
}

static void counters_add_up(void)
{
	counter c = 0;

	counter_add(&c, 3);
	counter_add(&c, 4);
	CU_ASSERT_EQUAL(counter_get(&c), 7);
	counter_set(&c, 1);
	CU_ASSERT_EQUAL(counter_get(&c), 1);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("metrics", NULL, NULL);
	CU_add_test(suite, "bounds grow by a quarter of a power of two", bounds_grow_by_a_quarter);
	CU_add_test(suite, "a bound belongs to its bucket", a_bound_belongs_to_its_bucket);
	CU_add_test(suite, "quantiles are close", quantiles_are_close);
	CU_add_test(suite, "outliers do not hide", outliers_do_not_hide);
	CU_add_test(suite, "counters add up", counters_add_up);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
