/*
 * uring_spin.c: whether a reactor that has nothing to do looks for completions before it sleeps, and how long.
 *
 * Spinning trades CPU for the latency of waking up, so it must earn its keep:
 *  - Only for a disk. Who waits for a client gives the CPU to that client: on two cores a round trip over a unix socket
 *    took 14 us sleeping, 27 us spinning, since the client then had to be woken on the other, idle CPU.
 *  - Not with many disk operations in flight, nor while turns work longer than they wait: there is enough to do, and a
 *    short sleep gathers completions. Not during a flush: the kernel's workers need the CPU.
 *  - Not when it did not pay the last times. After three misses it is tried on ever fewer waits, one in 64 in the end;
 * a hit, or a sleep that turns out to have been shorter than the bound, brings it back at once. A read of 4 KiB with
 * direct I/O, one at a time, then took 58 us instead of 80 (the wait itself: 35 us).
 *
 * Invariants
 *  1. A spin is never longer than max_ns, nor than about twice the waits that paid.
 *  2. With nothing in flight nothing spins: an idle reactor uses no CPU.
 *
 * Plain arithmetic on times that are passed in. Owner: the reactor.
 */
#include "daemon/core/uring_internal.h"

#define MISSES_MAX     3u
#define SKIP_SHIFT_MAX 6u
#define MARGIN_NS      (2 * NS_PER_US)
#define WAIT_CAP_NS    NS_PER_MS /* a pause says nothing about the load before or after it */

/* A moving average over about eight samples. */
static uint64_t average(uint64_t so_far, uint64_t sample)
{
	return so_far - so_far / 8 + sample / 8;
}

void spin_init(struct uring_spin *s, uint64_t max_ns)
{
	*s = (struct uring_spin){.max_ns = max_ns, .hit_ns = max_ns / 2};
}

uint64_t spin_limit_ns(struct uring_spin *s, uint64_t now_ns, uint32_t disk_load)
{
	quarry_assert(now_ns >= s->turn_began_ns);
	s->busy_ns = average(s->busy_ns, now_ns - s->turn_began_ns);
	s->wait_began_ns = now_ns;
	s->is_for_disk = disk_load > 0 && disk_load <= SPIN_DISK_LOAD_MAX;
	if (s->max_ns == 0 || !s->is_for_disk || s->busy_ns > s->wait_ns)
		return 0;
	if (s->n_skip > 0) {
		s->n_skip--;
		return 0;
	}
	return min_u64(2 * s->hit_ns + MARGIN_NS, s->max_ns);
}

void spin_learn(struct uring_spin *s, uint64_t now_ns, enum spin_outcome outcome)
{
	uint64_t waited_ns = now_ns - s->wait_began_ns;
	bool is_short = waited_ns <= s->max_ns;

	quarry_assert(now_ns >= s->wait_began_ns);
	quarry_assert(outcome == SPIN_NONE || s->is_for_disk);
	s->turn_began_ns = now_ns;
	s->wait_ns = average(s->wait_ns, min_u64(waited_ns, WAIT_CAP_NS));
	if (!s->is_for_disk || outcome == SPIN_NOT_NEEDED)
		return;
	if (is_short)
		s->hit_ns = average(s->hit_ns, waited_ns);
	if (outcome == SPIN_HIT || (outcome == SPIN_NONE && is_short)) {
		s->n_misses = s->n_skip = 0;
	} else if (outcome == SPIN_MISS && ++s->n_misses >= MISSES_MAX) {
		uint32_t shift = s->n_misses - MISSES_MAX + 1;
		s->n_skip = 1u << (shift < SKIP_SHIFT_MAX ? shift : SKIP_SHIFT_MAX);
	}
}
