/*
 * balance.c: is a disk of a pool so much fuller than another that a segment of a volume should move from the one to the
 * other? leave.c carries it out, one segment at a time; set_balance.c says whose turn it is.
 *
 * How full a disk is counts in thousandths of its size; the gap between two disks is the difference.
 *
 * Invariants
 *  1. A segment moves only to a disk that it could be placed on: its number of copies and of failure domains stays.
 *  2. What moves is at most what makes the two equally full (max_bytes): the gap never changes its sign, so nothing
 *     moves back.
 *  3. Of a volume that has clients one copy stays on this node, if one is here, for its head reads there; unless the gap is
 *     very wide.
 *
 * Owner: the set.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>

#define GAP_WIDE (2 * BALANCE_START)

static uint32_t disk_fill(const struct set_disk *d)
{
	uint64_t n_blocks = d->facts.size_bytes / BLOCK_BYTES, room = set_disk_room(d);
	return room < n_blocks ? (uint32_t)((n_blocks - room) * 1000 / n_blocks) : 0;
}

static bool disk_counts(const struct set_disk *d, const char *pool)
{
	return set_disk_is_running(d) && !d->facts.is_removed && !d->facts.is_draining &&
	       strcmp(d->facts.pool, pool) == 0;
}

uint32_t balance_gap(const struct volume_set *s, const char *pool, const struct set_disk **fullest,
		     const struct set_disk **emptiest)
{
	*fullest = *emptiest = NULL;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		if (!disk_counts(d, pool))
			continue;
		if (!*fullest || disk_fill(d) > disk_fill(*fullest))
			*fullest = d;
		if (!*emptiest || disk_fill(d) < disk_fill(*emptiest))
			*emptiest = d;
	}
	return *fullest ? disk_fill(*fullest) - disk_fill(*emptiest) : 0;
}

uint32_t balance_fill(const struct set_disk *d)
{
	return disk_fill(d) / 10;
}

/* What lies on each disk above the mean of the pool, and half of the gap that is left in the end. */
uint64_t balance_left_bytes(const struct volume_set *s, const char *pool)
{
	double size = 0, used = 0, left = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		if (!disk_counts(d, pool))
			continue;
		size += (double)d->facts.size_bytes;
		used += (double)d->facts.size_bytes * disk_fill(d) / 1000;
	}
	for (uint32_t i = 0; i < SET_DISKS_MAX && size > 0; i++) {
		const struct set_disk *d = s->disks[i];
		double above = disk_counts(d, pool) ? disk_fill(d) / 1000.0 - used / size - BALANCE_STOP / 2000.0 : 0;
		if (above > 0)
			left += above * (double)d->facts.size_bytes;
	}
	return (uint64_t)left;
}

/* ---- a volume that is attached: segments that lie on these disks ---- */

struct pair {
	uint32_t out, target, gap;
};

/* Is it the only one of this node's among these? */
static bool is_only_here(const struct volume *v, uint64_t disks, uint32_t disk)
{
	for (uint64_t left = disks & ~(1ull << disk); left != 0; left &= left - 1)
		if (set_disk_is_ours(v->set->disks[__builtin_ctzll(left)]))
			return false;
	return set_disk_is_ours(v->set->disks[disk]);
}

static bool pair_is_allowed(struct volume *v, uint64_t disks, uint32_t out, uint32_t target)
{
	const struct set_disk *from = v->set->disks[out], *to = v->set->disks[target];
	bool is_read_here = volume_facts_are_attached(&v->entry->facts) && is_only_here(v, disks, out);
	if (disk_fill(from) <= disk_fill(to))
		return false;
	if (is_read_here && !set_disk_is_ours(to) && disk_fill(from) - disk_fill(to) < GAP_WIDE)
		return false;
	return placement_is_free(v, target, disks & ~(1ull << out));
}

/* The two that differ most. */
static struct pair pair_find(struct volume *v, uint64_t disks, uint64_t refused)
{
	struct pair best = {.gap = 0};
	for (uint64_t left = disks; left != 0; left &= left - 1) {
		uint32_t out = (uint32_t)__builtin_ctzll(left);
		for (uint32_t to = 0; to < SET_DISKS_MAX && volume_disk_is_good(v, out); to++) {
			if ((disks | refused) >> to & 1 || !v->set->disks[to] || !pair_is_allowed(v, disks, out, to))
				continue;
			uint32_t gap = disk_fill(v->set->disks[out]) - disk_fill(v->set->disks[to]);
			if (gap > best.gap)
				best = (struct pair){.out = out, .target = to, .gap = gap};
		}
	}
	return best;
}

bool balance_concerns(struct volume *v, uint64_t disks, uint64_t refused)
{
	return disks != 0 && pair_find(v, disks, refused).gap >= BALANCE_STOP;
}

int balance_plan(struct volume *v, uint64_t refused, struct move_order *order)
{
	struct pair pair = pair_find(v, order->disks, refused);
	if (pair.gap < BALANCE_STOP)
		return -ENOSPC;
	quarry_assert(pair.out != pair.target && order->disks >> pair.out & 1);
	quarry_assert(!((order->disks | refused) >> pair.target & 1));
	double from = (double)v->set->disks[pair.out]->facts.size_bytes;
	double to = (double)v->set->disks[pair.target]->facts.size_bytes;
	order->out = pair.out;
	order->target = pair.target;
	order->max_bytes = (uint64_t)((double)pair.gap / 1000 * from * to / (from + to));
	return 0;
}

/* ---- any volume ---- */

/* Of one that nobody uses only the record is known: might a segment move from one of its disks? */
static bool record_allows(const struct set_volume *entry, const struct set_disk *from, const struct set_disk *to)
{
	const struct set_pool *pool = set_pool_find(entry->set, entry->facts.pool);
	if (!pool || !disk_counts(from, entry->facts.pool) || !disk_counts(to, entry->facts.pool) ||
	    disk_fill(from) < disk_fill(to) + BALANCE_STOP)
		return false;
	if (!volume_facts_are_replicated(&entry->facts))
		return set_disk_runs_here(from) && set_disk_runs_here(to);
	return set_disks_share_domain(entry->set, pool->facts.failure_domain, from->index, to->index) ||
	       placement_domains_running(entry->set, &pool->facts) > entry->facts.replicas;
}

static bool record_has_pair(const struct set_volume *entry)
{
	for (uint32_t i = 0; i < entry->facts.n_disks; i++) {
		const struct set_disk *from = set_disk_by_uuid(entry->set, &entry->facts.disks[i].uuid);
		for (uint32_t to = 0; from && !entry->facts.disks[i].is_stale && to < SET_DISKS_MAX; to++)
			if (record_allows(entry, from, entry->set->disks[to]))
				return true;
	}
	return false;
}

bool balance_may_help(const struct set_volume *entry)
{
	struct volume *v = entry->head;
	if (entry->facts.is_deleting || entry->attach || leave_is_urgent(entry))
		return false;
	if (!v)
		return !volume_facts_are_attached(&entry->facts) && set_volume_is_here(entry) && record_has_pair(entry);
	if (v->state != VOLUME_SERVING || v->is_fenced || v->resync || resync_candidate(v) != SET_DISKS_MAX)
		return false;
	for (uint32_t i = 0; i < v->layout.n; i++)
		if (v->layout.sets[i].n_segments > 0 && balance_concerns(v, v->layout.sets[i].disks, 0))
			return true;
	return false;
}
