/*
 * gaps.c: a bounded set of ranges of blocks.
 *
 * Invariants
 *  1. What was added and not removed is in it, whatever their number: with GAPS_MAX of them it tells more, never less.
 */
#include "volumes/head/gaps.h"

#include <string.h>

/* The first that ends at or behind this block; n: there is none. */
static uint32_t gaps_at(const struct gaps *g, uint64_t block)
{
	uint32_t i = 0;
	while (i < g->n && g->all[i].end < block)
		i++;
	return i;
}

/* These n from i on become those n_new. */
static void gaps_replace(struct gaps *g, uint32_t i, uint32_t n, const struct gap *new, uint32_t n_new)
{
	quarry_assert(i + n <= g->n && g->n - n + n_new <= GAPS_MAX);
	for (uint32_t k = i; k < i + n; k++)
		g->n_blocks -= g->all[k].end - g->all[k].first;
	memmove(&g->all[i + n_new], &g->all[i + n], (g->n - i - n) * sizeof(g->all[0]));
	for (uint32_t k = 0; k < n_new; k++) {
		g->all[i + k] = new[k];
		g->n_blocks += new[k].end - new[k].first;
	}
	g->n = g->n - n + n_new;
}

/* The nearer neighbour of what would stand before the one at i. */
static uint32_t gaps_nearest(const struct gaps *g, uint32_t i, uint64_t first, uint64_t end)
{
	if (i == 0 || i == g->n)
		return i == 0 ? 0 : i - 1;
	return first - g->all[i - 1].end <= g->all[i].first - end ? i - 1 : i;
}

void gaps_add(struct gaps *g, uint64_t first, uint64_t end)
{
	quarry_assert(first < end);
	struct gap whole = {first, end};
	uint32_t i = gaps_at(g, first), n = 0;
	while (i + n < g->n && g->all[i + n].first <= end)
		n++;
	if (n == 0 && g->n == GAPS_MAX) {
		i = gaps_nearest(g, i, first, end);
		n = 1;
	}
	if (n > 0) {
		whole.first = min_u64(first, g->all[i].first);
		whole.end = max_u64(end, g->all[i + n - 1].end);
	}
	gaps_replace(g, i, n, &whole, 1);
}

void gaps_remove(struct gaps *g, uint64_t first, uint64_t end)
{
	quarry_assert(first < end);
	uint32_t i = gaps_at(g, first + 1), n = 0, n_left = 0;
	struct gap left[2];
	while (i + n < g->n && g->all[i + n].first < end)
		n++;
	if (n == 0)
		return;
	if (g->all[i].first < first)
		left[n_left++] = (struct gap){g->all[i].first, first};
	if (g->all[i + n - 1].end > end)
		left[n_left++] = (struct gap){end, g->all[i + n - 1].end};
	if (g->n - n + n_left <= GAPS_MAX) /* else one would have to be cut in two: it is told whole */
		gaps_replace(g, i, n, left, n_left);
}
