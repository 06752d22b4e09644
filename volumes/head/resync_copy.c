/*
 * resync_copy.c: the part of a resync that copies: each tree, segment by segment, what either side wrote since, from a
 * current copy; last of all what the disk has of segments that lie elsewhere by now is cut.
 *
 * A block that one source cannot read is taken from another. Owner: the resync.
 */
#include "volumes/head/resync_internal.h"

#include <errno.h>
#include <string.h>

/* Behind clients: what an SSD does beside other work. */
#define RESYNC_IDLE_BYTES_PER_S (1024 * MIB)

static bool resync_is_live(const struct resync *r)
{
	return r->tree + 1 == r->n_trees;
}

static void resync_granted(struct range_lock *l)
{
	struct resync_hold *hold = container_of(l, struct resync_hold, lock);
	copy_held(hold->resync->copy, hold->lane);
}

/* Reads go on meanwhile; changes wait. */
static void resync_hold(struct copy *c, unsigned lane, uint64_t first, uint64_t n_blocks, void *context)
{
	struct resync *r = context;
	struct resync_hold *hold = &r->holds[lane];
	hold->resync = r;
	hold->lane = lane;
	hold->lock.granted = resync_granted;
	if (range_lock_take(&r->volume->locks, &hold->lock, first, first + n_blocks - 1, true))
		copy_held(c, lane);
}

static void resync_release(struct copy *c, unsigned lane, void *context)
{
	struct resync *r = context;
	range_lock_release(&r->volume->locks, &r->holds[lane].lock);
}

/* Is there another to copy from, where the source has a block that cannot be read? */
static bool resync_turns_away(struct resync *r, const struct copy_progress *p)
{
	uint64_t block =
	    p->failed_blocks > 0 ? p->failed_first : r->copy_first + min_u64(p->walked_blocks, p->n_blocks - 1);
	uint32_t segment = (uint32_t)(block / SEGMENT_BLOCKS % PLACEMENT_CHUNK);
	if (p->failed != COPY_SOURCE)
		return false;
	if (r->bad_segment != segment)
		r->bad = 0;
	r->bad_segment = segment;
	r->bad |= 1ull << r->source;
	/* from the first again: the lanes are at several segments, and those before the bad one may not be done */
	r->segment = (uint32_t)(r->copy_first / SEGMENT_BLOCKS % PLACEMENT_CHUNK);
	if (volume_good(r->volume, r->walk.disks[segment] & ~r->bad) != 0)
		return true;
	r->lost_first = p->failed_first;
	r->lost_blocks = p->failed_blocks;
	return false;
}

static void resync_copied(int res, const struct copy_progress *p, void *context)
{
	struct resync *r = context;
	r->copy = NULL;
	r->copied_bytes += p->copied_bytes;
	resync_complete(r, res == -EIO && resync_turns_away(r, p) ? 0 : res);
}

uint64_t resync_rate(const struct volume *v, uint64_t *seen_requests)
{
	const struct volume_counters *c = &v->counters;
	uint64_t n = counter_get(&c->reads) + counter_get(&c->writes) + counter_get(&c->flushes);
	bool is_busy = n != *seen_requests;
	*seen_requests = n;
	return is_busy ? RESYNC_BUSY_BYTES_PER_S : RESYNC_IDLE_BYTES_PER_S;
}

void resync_pace(struct timer *t)
{
	struct resync *r = container_of(t, struct resync, pace);
	if (r->copy)
		copy_set_rate(r->copy, resync_rate(r->volume, &r->seen_requests));
	timer_start(r->volume->set->reactor, &r->pace, NS_PER_S);
}

static int resync_copy(struct resync *r, uint64_t segment, uint32_t n_segments, uint32_t source)
{
	struct volume *v = r->volume;
	const struct resync_tree *t = &r->trees[r->tree];
	bool is_live = resync_is_live(r);
	struct copy_options o = {.reactor = v->set->reactor,
				 .source = &v->disks[source].replica,
				 .target = &resync_disk(r)->replica,
				 .source_tree = t->id,
				 .target_tree = t->id,
				 .first = segment * SEGMENT_BLOCKS,
				 .n_blocks = n_segments * SEGMENT_BLOCKS,
				 .since = t->since,
				 .before = is_live ? r->first_epoch : COPY_ALL,
				 .bytes_per_s = RESYNC_BUSY_BYTES_PER_S,
				 .hold = is_live ? resync_hold : NULL,
				 .release = is_live ? resync_release : NULL,
				 .done = resync_copied,
				 .context = r};
	return copy_start(&o, &r->copy);
}

/* Whom a segment is copied from: always the same of a set of disks, so that neighbours are copied in one go.
 * SET_DISKS_MAX: it does not lie on the disk. */
static uint32_t resync_source(const struct resync *r, uint32_t segment)
{
	uint64_t disks = r->walk.disks[segment];
	if (!(disks >> r->disk & 1))
		return SET_DISKS_MAX;
	uint64_t good = volume_good(r->volume, segment == r->bad_segment ? disks & ~r->bad : disks);
	return good ? (uint32_t)__builtin_ctzll(good) : r->disk;
}

static void resync_was_cut(struct replica_io *rio, int res)
{
	/* with -ENOSPC some of it stays: it takes space, and nobody reads it [MOVEZERO] */
	resync_complete(container_of(rio, struct resync, rio), res == -ENOSPC ? 0 : res);
}

/* Of the chunk's segments, from this one on, those side by side that do not lie on the disk. */
static void resync_cut(struct resync *r, uint64_t segment)
{
	uint64_t end = (r->volume->entry->facts.size_bytes + SEGMENT_BYTES - 1) / SEGMENT_BYTES;
	uint32_t n = 1;
	quarry_assert(!r->copy && segment < end);
	while (r->segment + n < PLACEMENT_CHUNK && segment + n < end &&
	       resync_source(r, r->segment + n) == SET_DISKS_MAX)
		n++;
	r->segment += n;
	r->rio.tree = volume_tree(r->volume);
	r->rio.io.op = DISK_CUT;
	r->rio.io.volume = r->volume->entry->facts.uuid;
	r->rio.io.first = segment * SEGMENT_BLOCKS;
	r->rio.io.n_blocks = n * SEGMENT_BLOCKS;
	r->rio.io.epoch = 0;
	r->rio.done = resync_was_cut;
	replica_submit(&resync_disk(r)->replica, &r->rio);
}

/* The next run of the chunk's segments that has one source. FLOW_NEXT: there is none left, or an error. */
static enum flow resync_copy_next(struct resync *r)
{
	for (; r->segment < PLACEMENT_CHUNK && r->err == 0; r->segment++) {
		uint64_t segment = (uint64_t)(r->walk.number - 1) * PLACEMENT_CHUNK + r->segment;
		uint32_t source = resync_source(r, r->segment), n = 1;
		if (source == SET_DISKS_MAX && resync_is_live(r) && resync_is_there(r) &&
		    segment * SEGMENT_BYTES < r->volume->entry->facts.size_bytes) {
			resync_cut(r, segment);
			return FLOW_WAIT;
		}
		if (source == SET_DISKS_MAX)
			continue;
		if (source == r->disk) { /* its source was lost: somebody marks it, or the head stops */
			r->err = -EIO;
			break;
		}
		while (r->segment + n < PLACEMENT_CHUNK && resync_source(r, r->segment + n) == source)
			n++;
		r->err = resync_copy(r, segment, n, source);
		r->source = source;
		r->copy_first = segment * SEGMENT_BLOCKS;
		r->segment += n;
		if (r->err == 0)
			return FLOW_WAIT;
	}
	return FLOW_NEXT;
}

static void resync_walked(struct placement_walk *w, int res)
{
	struct resync *r = w->context;
	r->segment = 0;
	r->bad = 0;
	resync_complete(r, res);
}

/* The first tree, and each after it. */
static void resync_walk_begin(struct resync *r)
{
	if (!r->walk.volume)
		timer_start(r->volume->set->reactor, &r->pace, NS_PER_S);
	r->tree = r->walk.volume ? r->tree + 1 : 0;
	r->walk = (struct placement_walk){.volume = r->volume, .next = resync_walked, .context = r};
}

/* FLOW_NEXT: all trees are copied, or an error. */
enum flow resync_copy_on(struct resync *r)
{
	if (!r->walk.volume)
		resync_walk_begin(r);
	while (r->err == 0) {
		if (r->walk.number > 0 && resync_copy_next(r) == FLOW_WAIT)
			return FLOW_WAIT;
		if (r->err != 0)
			break;
		if (placement_walk_next(&r->walk))
			return FLOW_WAIT;
		if (resync_is_live(r))
			break;
		resync_walk_begin(r);
	}
	return FLOW_NEXT;
}
