/*
 * rate.c: how fast a backup may read.
 *
 * What could have been read while nothing was, as the repository did not get on, is not made up for: that would be faster
 * than the rate allows, for as long as it stood still.
 */
#include "cli/backup/rate.h"

uint64_t rate_wait_ms(const struct rate *r, uint64_t now_ms)
{
	uint64_t from_ms = now_ms + RATE_BURST_MS, due_ms = (uint64_t)r->due_ms;
	return r->bytes_per_s > 0 && due_ms > from_ms ? due_ms - from_ms : 0;
}

void rate_count(struct rate *r, uint64_t len_bytes, uint64_t now_ms)
{
	if (r->bytes_per_s == 0)
		return;
	if (r->due_ms < (double)now_ms)
		r->due_ms = (double)now_ms;
	r->due_ms += (double)len_bytes * 1000 / (double)r->bytes_per_s;
}
