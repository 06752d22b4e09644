/*
 * space_cut.c: what a checkpoint, and the replay that cannot make one, ask of the space: room found before the cut,
 * what was freed set aside at it, and given out again when it is flushed.
 *
 *   merge, gather (prepare) --> freeze (the cut) --> thaw (flushed)
 *
 * The invariants are those of space.c.
 */
#include "volumes/disk/space_internal.h"

#include <errno.h>
#include <string.h>

/* ---- before the cut ---- */

/* Fetches the regions with at least `least` deltas, a few at a time; true: some are on their way. */
static bool merge_some(struct space *s, uint32_t least)
{
	for (uint32_t i = 0; i < s->n_regions && s->n_loading < LOADS_MAX; i++)
		if (s->region_deltas[i] >= least && !s->resident[i] &&
		    s->n_dirty + s->n_loading < max_u64(REGIONS_MIN, s->regions_max / 2)) {
			int res = space_make_resident(s, i, NULL);
			quarry_assert(res == 0 || res == -EAGAIN);
		}
	return s->n_loading > 0;
}

/* Regions with many deltas are merged first: one page written for many entries. */
static bool merge_deltas(struct space *s)
{
	for (uint32_t least = 64; least > 0 && space_deltas(s) > s->deltas_max / 2; least /= 4)
		if (merge_some(s, least))
			return true;
	return false;
}

int space_make_delta_room(struct space *s, uint32_t n, struct waiter *w)
{
	for (uint32_t least = 64; !space_has_delta_room(s, n) && s->n_loading == 0 && least > 0; least /= 4)
		for (uint32_t i = 0; i < s->n_regions && !space_has_delta_room(s, n) && s->n_loading < LOADS_MAX; i++) {
			if (s->region_deltas[i] < least || s->resident[i])
				continue;
			if (s->n_resident >= REPLAY_REGIONS * s->regions_max)
				return -ENOMEM;
			int res = space_make_resident(s, i, NULL);
			quarry_assert(res == 0 || res == -EAGAIN);
		}
	if (space_has_delta_room(s, n))
		return 0;
	if (s->n_loading == 0)
		return -ENOMEM;
	list_append(&s->waiters, &w->link);
	return -EAGAIN;
}

/* The emptiest region that is not in memory; -1: there is none with a free block. */
static int64_t region_outside(const struct space *s)
{
	int64_t best = -1;
	for (uint32_t i = 0; i < s->n_regions; i++)
		if (!s->resident[i] && s->region_free[i] > 0 && (best < 0 || s->region_free[i] > s->region_free[best]))
			best = i;
	return best;
}

/* Free blocks of the regions that are on their way. */
static uint64_t loading_free(const struct space *s)
{
	uint64_t n = 0;
	for (const struct list *node = s->regions.next; node != &s->regions && s->n_loading > 0; node = node->next) {
		const struct region *r = container_of(node, struct region, link);
		n += r->is_loading ? s->region_free[r->number] : 0;
	}
	return n;
}

/* Fetches regions, a few at a time, until what is free in them and in those at hand is n and one for each fetched. */
static void gather_free(struct space *s, uint64_t n)
{
	uint64_t coming = loading_free(s);
	while (s->n_loading < LOADS_MAX && s->resident_free + coming < n) {
		int64_t region = region_outside(s);
		if (region < 0)
			return;
		n++;
		if (space_make_resident(s, (uint32_t)region, NULL) == -EAGAIN)
			coming += s->region_free[region];
	}
}

int space_prepare_checkpoint(struct space *s, uint64_t n, struct waiter *w)
{
	bool waits = space_deltas(s) > s->deltas_max / 2 && merge_deltas(s);
	if (!waits && s->resident_free < n) {
		gather_free(s, n);
		waits = s->n_loading > 0;
	}
	if (!waits)
		return s->resident_free < n ? -ENOSPC : 0;
	list_append(&s->waiters, &w->link);
	return -EAGAIN;
}

/* ---- at the cut and after ---- */

void space_freeze(struct space *s)
{
	quarry_assert(s->frozen.n == 0 && s->frozen_waiting == 0);
	struct deltas empty = s->frozen;
	s->frozen = s->current;
	s->current = empty;
	s->frozen_waiting = s->waiting_blocks;
	s->waiting_blocks = 0;
	list_each (node, &s->regions) {
		struct region *r = container_of(node, struct region, link);
		memcpy(r->freed_frozen, r->freed_current, sizeof r->freed_frozen);
		memset(r->freed_current, 0, sizeof r->freed_current);
	}
}

/* The log's entry for a block after the frozen one joins it. */
static void log_merge(struct space *s, struct delta d)
{
	struct delta old;
	if (deltas_get(&s->log, d.block, &old)) {
		s->region_deltas[region_of(d.block)]--;
		d = delta_combine(old, d);
	}
	deltas_put(&s->log, d);
}

/* Nothing is taken any more from a region whose counts cannot be read, so what is freed there is not free. */
static bool region_is_lost(const struct space *s, uint32_t region)
{
	return s->resident[region] && s->resident[region]->is_damaged;
}

void space_thaw(struct space *s)
{
	deltas_each(word, &s->frozen)
	{
		struct delta d = delta_unpack(word);
		region_note_unpunched(s, region_of(d.block), d.change < 0);
		if (delta_ends_free(d) && !region_is_lost(s, region_of(d.block))) {
			s->region_free[region_of(d.block)]++;
			s->free_blocks++;
		}
		log_merge(s, d);
	}
	deltas_clear(&s->frozen);
	s->frozen_waiting = 0;
	list_each (node, &s->regions) {
		struct region *r = container_of(node, struct region, link);
		if (r->is_loading || r->is_damaged)
			continue;
		uint32_t n = bits_count(r->freed_frozen);
		if (n == 0)
			continue;
		for (unsigned i = 0; i < REGION_WORDS; i++) {
			quarry_assert((r->free[i] & r->freed_frozen[i]) == 0);
			r->free[i] |= r->freed_frozen[i];
			r->unpunched[i] |= r->freed_frozen[i];
			r->freed_frozen[i] = 0;
		}
		s->region_free[r->number] += (uint16_t)n;
		s->free_blocks += n;
		s->resident_free += n;
	}
	space_shrink(s);
}
