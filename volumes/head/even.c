/*
 * even.c: does each segment of a volume have as many copies as it is to have, and if not, what is done about it: one more,
 * or one fewer. leave.c carries it out, segment by segment.
 *
 * Too few it has when `volume set --replicas` asks for more, or when it was placed while fewer failure domains could be
 * reached; too many when it asks for fewer. Of a volume that is not attached only the record's `uneven` tells.
 *
 * Invariants
 *  1. A copy goes only while another current one of the segment stays, and as many as min_replicas asks for where there
 *     are so many.
 *  2. One copy stays on this node, if one is here: the head reads there.
 *
 * Owner: the volume.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>

static uint32_t n_copies(uint64_t disks)
{
	return (uint32_t)__builtin_popcountll(disks);
}

/* Are there disks for more copies now? */
static bool even_may_grow(const struct set_volume *entry)
{
	const struct set_pool *pool = set_pool_find(entry->set, entry->facts.pool);
	return pool && placement_domains_running(entry->set, &pool->facts) >= entry->facts.replicas;
}

bool even_is_needed(const struct set_volume *entry)
{
	const struct volume_facts *f = &entry->facts;
	bool has_few = false, has_many = false;
	if (!volume_facts_are_replicated(f) || f->is_deleting)
		return false;
	if (!entry->head)
		return f->is_uneven && even_may_grow(entry);
	for (uint32_t i = 0; i < entry->head->layout.n; i++) {
		has_few |= n_copies(entry->head->layout.sets[i].disks) < f->replicas;
		has_many |= n_copies(entry->head->layout.sets[i].disks) > f->replicas;
	}
	return has_many || (has_few ? even_may_grow(entry) : f->is_uneven);
}

bool even_concerns(const struct volume *v, uint64_t disks)
{
	return disks != 0 && n_copies(disks) != v->entry->facts.replicas;
}

/* May the rest do without it? */
static bool even_may_drop(const struct volume *v, uint64_t disks, uint32_t disk)
{
	uint32_t n_now = n_copies(volume_good(v, disks));
	uint32_t n_then = n_copies(volume_good(v, disks & ~(1ull << disk)));
	return n_then > 0 && (n_then == n_now || n_then >= v->entry->facts.min_replicas);
}

bool even_has_enough(const struct volume *v, uint64_t disks, uint32_t disk)
{
	quarry_assert(disks >> disk & 1);
	return n_copies(disks) > v->entry->facts.replicas && even_may_drop(v, disks, disk);
}

/* How gladly it is done without. */
static uint64_t even_rank(const struct volume *v, uint64_t disks, uint32_t disk)
{
	const struct set_disk *d = v->set->disks[disk];
	uint64_t room = set_disk_is_running(d) ? set_disk_room(d) : 0;
	uint64_t rank = UINT32_MAX - min_u64(room, UINT32_MAX); /* the fullest */
	uint32_t n_here = 0;
	for (uint64_t left = disks; left != 0; left &= left - 1)
		n_here += set_disk_is_ours(v->set->disks[__builtin_ctzll(left)]);
	if (n_here != 1 || !set_disk_is_ours(d))
		rank |= 1ull << 32;
	if (d->facts.is_draining || !volume_disk_is_good(v, disk))
		rank |= 1ull << 33;
	return rank;
}

static int even_choose_out(const struct volume *v, uint64_t disks, uint32_t *out)
{
	uint64_t best = 0;
	*out = SET_DISKS_MAX;
	for (uint64_t left = disks; left != 0; left &= left - 1) {
		uint32_t disk = (uint32_t)__builtin_ctzll(left);
		uint64_t rank = even_rank(v, disks, disk);
		if (!even_may_drop(v, disks, disk) || (*out < SET_DISKS_MAX && rank <= best))
			continue;
		best = rank;
		*out = disk;
	}
	return *out < SET_DISKS_MAX ? 0 : -EIO;
}

int even_plan(struct volume *v, uint64_t refused, struct move_order *order)
{
	quarry_assert(even_concerns(v, order->disks));
	order->out = order->target = SET_DISKS_MAX;
	if (n_copies(order->disks) > v->entry->facts.replicas)
		return even_choose_out(v, order->disks, &order->out);
	return placement_choose_other(v, order->disks, refused, &order->target);
}
