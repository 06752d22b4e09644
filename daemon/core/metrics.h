/*
 * metrics.h: counters and latency histograms that their owners keep and the control plane prints.
 *
 * Owner: the reactor that counts. Other threads read them with relaxed atomics: a reading may be a moment old,
 * never torn. A histogram has 4 buckets per power of two from 1 us to 64 s.
 */
#pragma once

#include "daemon/core/base.h"

#include <stdatomic.h>

typedef _Atomic uint64_t counter; /* one writer; plain add below, no locked instruction */

static inline void counter_add(counter *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}
static inline void counter_set(counter *c, uint64_t n)
{
	atomic_store_explicit(c, n, memory_order_relaxed);
}
static inline uint64_t counter_get(const counter *c)
{
	return atomic_load_explicit((counter *)c, memory_order_relaxed);
}

#define HISTOGRAM_BUCKETS 108
struct histogram {
	counter n, sum_ns;
	counter bucket[HISTOGRAM_BUCKETS];
};
void histogram_add(struct histogram *h, uint64_t value_ns);
/* Upper bound of a bucket in ns; UINT64_MAX for the last. */
uint64_t histogram_bound_ns(unsigned bucket);
/* Value below which the fraction q (0..1) of all lies; 0 when empty. */
uint64_t histogram_quantile_ns(const struct histogram *h, double q);
