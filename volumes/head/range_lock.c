/*
 * range_lock.c: locks on ranges of blocks, in order of arrival.
 *
 * Most requests are small and overlap nothing: taking a lock then looks at one or two short lists, found by the area
 * the range lies in. The few that are wider than two areas (trims, large writes) stand in a list of their own, which
 * every small one looks through as well.
 *
 * Invariants
 *  1. A lock of one area is in that area's bucket, one of two areas in both; a wider one only among the wide.
 *  2. n_before of a lock is the number of locks present that came earlier, overlap it and are not shared with it.
 *  3. A granted lock (n_before == 0) excludes every other granted lock that overlaps it, unless both are shared.
 *  4. Two narrow locks that overlap are counted in exactly one bucket, that of the area where their overlap begins,
 *     although they may share two; a narrow and a wide one in the bucket of the narrow one's first area.
 */
#include "volumes/head/range_lock.h"

/* What happens to a pair of locks that exclude each other, when one of them arrives or leaves. */
typedef void pair_visit(struct range_locks *s, struct range_lock *l, struct range_lock *other);

static uint32_t bucket_of(uint64_t block)
{
	return (uint32_t)(block >> RANGE_AREA_SHIFT) & (RANGE_BUCKETS - 1);
}

static bool excludes(const struct range_lock *a, const struct range_lock *b)
{
	return a->first <= b->last && b->first <= a->last && !(a->is_shared && b->is_shared);
}

static void visit_wide(struct range_locks *s, struct range_lock *l, pair_visit *visit)
{
	list_each_safe (node, &s->wide) {
		struct range_lock *other = container_of(node, struct range_place, link)->lock;
		if (other != l && excludes(l, other))
			visit(s, l, other);
	}
}

static void visit_bucket(struct range_locks *s, struct range_lock *l, uint32_t bucket, pair_visit *visit)
{
	list_each_safe (node, &s->buckets[bucket]) {
		struct range_lock *other = container_of(node, struct range_place, link)->lock;
		if (other == l || !excludes(l, other))
			continue;
		uint64_t meeting = l->is_wide ? other->first : max_u64(l->first, other->first);
		if (bucket_of(meeting) == bucket) /* invariant 4 */
			visit(s, l, other);
	}
}

static void visit_all(struct range_locks *s, struct range_lock *l, pair_visit *visit)
{
	uint32_t near = bucket_of(l->first), far = bucket_of(l->last);
	visit_wide(s, l, visit);
	if (l->is_wide) {
		for (uint32_t bucket = 0; bucket < RANGE_BUCKETS; bucket++)
			visit_bucket(s, l, bucket, visit);
		return;
	}
	visit_bucket(s, l, near, visit);
	if (far != near)
		visit_bucket(s, l, far, visit);
}

static void pair_arrives(struct range_locks *s, struct range_lock *arriving, struct range_lock *present)
{
	quarry_assert(present->order < arriving->order);
	arriving->n_before++;
}

static void pair_leaves(struct range_locks *s, struct range_lock *leaving, struct range_lock *other)
{
	if (other->order < leaving->order)
		return; /* it came first and was never waiting for this one */
	quarry_assert(other->n_before > 0);
	if (--other->n_before == 0)
		s->granted(other);
}

static void place_put(struct list *list, struct range_place *place, struct range_lock *l)
{
	place->lock = l;
	list_append(list, &place->link);
}

void range_locks_init(struct range_locks *s, void (*granted)(struct range_lock *l))
{
	*s = (struct range_locks){.granted = granted};
	list_init(&s->wide);
	for (uint32_t bucket = 0; bucket < RANGE_BUCKETS; bucket++)
		list_init(&s->buckets[bucket]);
}

bool range_lock_take(struct range_locks *s, struct range_lock *l, uint64_t first, uint64_t last, bool is_shared)
{
	quarry_assert(first <= last);
	l->first = first;
	l->last = last;
	l->order = ++s->order;
	l->n_before = 0;
	l->is_shared = is_shared;
	l->is_wide = (last >> RANGE_AREA_SHIFT) - (first >> RANGE_AREA_SHIFT) > 1;
	list_init(&l->far.link);
	visit_all(s, l, pair_arrives);
	place_put(l->is_wide ? &s->wide : &s->buckets[bucket_of(first)], &l->near, l);
	if (!l->is_wide && bucket_of(last) != bucket_of(first))
		place_put(&s->buckets[bucket_of(last)], &l->far, l);
	s->n++;
	return l->n_before == 0;
}

void range_lock_release(struct range_locks *s, struct range_lock *l)
{
	quarry_assert(l->n_before == 0);
	quarry_assert(s->n > 0);
	list_remove(&l->near.link);
	list_remove(&l->far.link);
	s->n--;
	visit_all(s, l, pair_leaves);
}
