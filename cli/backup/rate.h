/*
 * rate.h: how fast a backup may read. Plain data of one thread; times in milliseconds of any clock that does not go back.
 */
#pragma once

#include <stdint.h>

struct rate {
	uint64_t bytes_per_s; /* 0: no limit */
	double due_ms;        /* when what was counted is due */
};

#define RATE_BURST_MS 50u

/* How long reading must wait; 0: not at all. Within any time no more is read than the rate allows for that time and
 * RATE_BURST_MS, and one request. */
uint64_t rate_wait_ms(const struct rate *r, uint64_t now_ms);
void rate_count(struct rate *r, uint64_t len_bytes, uint64_t now_ms);
