/*
 * metrics.c: latency histograms with a fixed relative error.
 *
 * Bucket i holds the values above bound(i - 1) and up to bound(i), where bound(i) = (4 + i % 4) * 2^(8 + i / 4) ns:
 * 1,024, 1,280, 1,536, 1,792, 2,048 ... so a value is known to a quarter of its power of two. The last bucket takes
 * everything above 103 s.
 *
 * Invariants
 *  1. The sum of all buckets is n, as seen by the owner; another thread may see a value in one and not yet in the
 *     other.
 *
 * Owner: the reactor that counts; others only read.
 */
#include "daemon/core/metrics.h"

#define BUCKETS_PER_POWER 4u
#define FIRST_POWER       10u /* 2^10 ns, close to a microsecond: nothing quarry waits for is shorter */

uint64_t histogram_bound_ns(unsigned bucket)
{
	quarry_assert(bucket < HISTOGRAM_BUCKETS);
	if (bucket == HISTOGRAM_BUCKETS - 1)
		return UINT64_MAX;
	return (uint64_t)(BUCKETS_PER_POWER + bucket % BUCKETS_PER_POWER)
	       << (FIRST_POWER - 2 + bucket / BUCKETS_PER_POWER);
}

static unsigned bucket_of(uint64_t value_ns)
{
	if (value_ns <= 1u << FIRST_POWER)
		return 0;
	/* The bound itself belongs to the bucket below it, as Prometheus' "le" wants. */
	uint64_t v = value_ns - 1;
	unsigned power = 63 - (unsigned)__builtin_clzll(v);
	unsigned quarter = (unsigned)(v >> (power - 2)) & 3;
	unsigned bucket = (power - FIRST_POWER) * BUCKETS_PER_POWER + quarter + 1;

	return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

void histogram_add(struct histogram *h, uint64_t value_ns)
{
	unsigned bucket = bucket_of(value_ns);

	quarry_assert(value_ns <= histogram_bound_ns(bucket));
	counter_add(&h->bucket[bucket], 1);
	counter_add(&h->sum_ns, value_ns);
	counter_add(&h->n, 1);
}

/* Assumes that the values within a bucket are spread evenly. */
uint64_t histogram_quantile_ns(const struct histogram *h, double q)
{
	uint64_t counts[HISTOGRAM_BUCKETS], n = 0;
	double below = 0;

	quarry_assert(q >= 0 && q <= 1);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		n += counts[i] = counter_get(&h->bucket[i]);
	if (n == 0)
		return 0;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
		if (counts[i] > 0 && below + (double)counts[i] >= q * (double)n) {
			uint64_t low = i == 0 ? 0 : histogram_bound_ns(i - 1);
			double part = (q * (double)n - below) / (double)counts[i];
			return low + (uint64_t)(part * (double)(histogram_bound_ns(i) - low));
		}
		below += (double)counts[i];
	}
	return histogram_bound_ns(HISTOGRAM_BUCKETS - 2); /* all that is known: more than this */
}
