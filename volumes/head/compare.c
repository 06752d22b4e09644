/*
 * compare.c: the copies of a volume that are current are compared with each other, by checksums: each block of each tree of
 * one disk with the same of the others. No data is read; the walk is that of a copy (replication/copy.h), which sends nothing.
 *
 *   REST --a week is over, or somebody asks--> WALK -> COPY -> PAUSE -> COPY ... -> WALK ... -> REST
 *
 *   WALK    where the segments of the next chunk lie
 *   COPY    a piece of a segment, of one tree, on two disks
 *   PAUSE   clients come first; and a resync, or a move, ends before it goes on
 *
 * What a disk cannot read is no matter of this: its scrub finds that (damage.c). Two copies that both match their own checksums
 * and still differ should not exist. Which of them is right nobody can know here, so it is told, and nothing is changed.
 *
 * Invariants
 *  1. Clients' changes of a piece of the live tree are held while it is compared: what is on its way is no difference.
 *  2. What was found counts only if both disks were current, and the segment lay there, from the beginning to the end.
 *
 * Owner: the volume.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COMPARE_EVERY_NS (7 * 24 * 3600 * NS_PER_S)
#define COMPARE_FIRST_NS (600 * NS_PER_S) /* after it begins to serve: others come first */
#define COMPARE_WAIT_NS  (10 * NS_PER_S)  /* looks again whether a resync or a move has ended */
/* So much is compared at once. It costs reading the maps: one byte for 256 of data. */
#define COMPARE_PIECE (64 * MIB / BLOCK_BYTES)

static void compare_run(struct volume *v);

static struct volume *volume_of_compare(struct compare *c)
{
	return container_of(c, struct volume, compare);
}

/* ---- what there is to compare ---- */

static int compare_list_trees(struct volume *v)
{
	struct compare *c = &v->compare;
	struct set_volume *entry = v->entry;
	free(c->trees);
	c->n_trees = 0;
	c->trees = entry->is_history_short ? NULL : calloc(entry->n_snapshots + 1, sizeof(*c->trees));
	if (!c->trees)
		return -EAGAIN;
	list_each (node, &entry->snapshots) {
		const struct snapshot_facts *s = &container_of(node, struct set_snapshot, link)->facts;
		if (!s->is_deleting)
			c->trees[c->n_trees++] = (struct compare_tree){s->tree, blocks_of(s->size_bytes)};
	}
	c->trees[c->n_trees++] = (struct compare_tree){entry->facts.live_tree, blocks_of(v->size_bytes)};
	c->history = entry->facts.history;
	c->tree = 0;
	c->targets = 0;
	return 0;
}

static bool compare_is_live(const struct compare *c)
{
	return c->tree + 1 == c->n_trees;
}

/* The first block of the piece at hand. */
static uint64_t compare_first(const struct compare *c)
{
	return ((uint64_t)(c->walk.number - 1) * PLACEMENT_CHUNK + c->segment) * SEGMENT_BLOCKS + c->first;
}

/* To the next tree, piece or segment. */
static void compare_advance(struct compare *c)
{
	c->targets = 0;
	if (++c->tree < c->n_trees)
		return;
	c->tree = 0;
	c->first += COMPARE_PIECE;
	if (c->first < SEGMENT_BLOCKS)
		return;
	c->first = 0;
	c->segment++;
}

/* The next two disks that have a piece of some tree; false: the chunk has none left. */
static bool compare_find(struct volume *v)
{
	struct compare *c = &v->compare;
	for (; c->segment < PLACEMENT_CHUNK; compare_advance(c)) {
		uint64_t good = volume_good(v, c->walk.disks[c->segment]);
		if ((good & (good - 1)) == 0) { /* nothing to compare it with */
			c->tree = c->n_trees - 1;
			c->first = SEGMENT_BLOCKS - COMPARE_PIECE;
			continue;
		}
		if (compare_first(c) >= c->trees[c->tree].n_blocks)
			continue;
		c->source = (uint32_t)__builtin_ctzll(good);
		good &= good - 1;
		c->targets = c->targets ? c->targets & good : good;
		if (c->targets == 0)
			continue;
		c->target = (uint32_t)__builtin_ctzll(c->targets);
		return true;
	}
	return false;
}

/* ---- COPY ---- */

static void compare_granted(struct range_lock *l)
{
	struct compare_hold *hold = container_of(l, struct compare_hold, lock);
	copy_held(hold->volume->compare.copy, hold->lane);
}

static void compare_hold(struct copy *copy, unsigned lane, uint64_t first, uint64_t n_blocks, void *context)
{
	struct volume *v = context;
	struct compare_hold *hold = &v->compare.holds[lane];
	hold->volume = v;
	hold->lane = lane;
	hold->lock.granted = compare_granted;
	if (range_lock_take(&v->locks, &hold->lock, first, first + n_blocks - 1, true))
		copy_held(copy, lane);
}

static void compare_release(struct copy *copy, unsigned lane, void *context)
{
	struct volume *v = context;
	range_lock_release(&v->locks, &v->compare.holds[lane].lock);
}

static void compare_tell(struct volume *v, const struct copy_progress *p)
{
	const struct compare *c = &v->compare;
	const struct set_snapshot *snap = snapshot_by_tree(v->entry, c->trees[c->tree].id);
	log_event(v->set->log, LOG_ERROR, "copies-differ", volume_name(v),
		  "%" PRIu64 " blocks of volume %s%s%s, the first at offset %" PRIu64
		  ", differ between disk %s and disk "
		  "%s, though each matches its own checksum: compare them with a backup, and write them anew",
		  p->unlike_blocks, volume_name(v), snap ? "@" : "", snap ? snap->facts.name : "",
		  p->unlike_first * (uint64_t)BLOCK_BYTES, v->set->disks[c->source]->facts.name,
		  v->set->disks[c->target]->facts.name);
}

/* Is all as it was when the piece was begun? */
static bool compare_stands(const struct volume *v)
{
	const struct compare *c = &v->compare;
	return !v->is_fenced && !v->move && v->entry->n_moves == c->n_moves && v->entry->facts.history == c->history &&
	       volume_disk_is_good(v, c->source) && volume_disk_is_good(v, c->target);
}

static void compare_copied(int res, const struct copy_progress *p, void *context)
{
	struct volume *v = context;
	struct compare *c = &v->compare;
	c->copy = NULL;
	if (c->is_stopping)
		return volume_check_drained(v);
	if (res == 0 && compare_stands(v)) {
		c->n_pieces++;
		c->unlike_blocks += p->unlike_blocks;
		if (p->unlike_blocks > 0)
			compare_tell(v, p);
	}
	c->targets &= c->targets - 1;
	if (c->targets == 0)
		compare_advance(c);
	uint64_t bytes_per_s = resync_rate(v, &c->seen_requests);
	c->stage = COMPARE_PAUSE;
	timer_start(v->set->reactor, &c->timer, COMPARE_PIECE * BLOCK_BYTES * NS_PER_S / bytes_per_s);
}

static int compare_copy(struct volume *v)
{
	struct compare *c = &v->compare;
	const struct compare_tree *t = &c->trees[c->tree];
	bool is_live = compare_is_live(c);
	struct copy_options o = {.reactor = v->set->reactor,
				 .source = &v->disks[c->source].replica,
				 .target = &v->disks[c->target].replica,
				 .source_tree = t->id,
				 .target_tree = t->id,
				 .first = compare_first(c),
				 .n_blocks = min_u64(COMPARE_PIECE, t->n_blocks - compare_first(c)),
				 .before = COPY_ALL,
				 .only_compares = true,
				 .hold = is_live ? compare_hold : NULL,
				 .release = is_live ? compare_release : NULL,
				 .done = compare_copied,
				 .context = v};
	return copy_start(&o, &c->copy);
}

/* ---- the dispatcher ---- */

static void compare_walked(struct placement_walk *w, int res)
{
	struct volume *v = w->context;
	struct compare *c = &v->compare;
	quarry_assert(c->stage == COMPARE_WALK);
	if (c->is_stopping)
		return volume_check_drained(v);
	if (res != 0) /* of this one nothing is known */
		c->segment = PLACEMENT_CHUNK;
	c->stage = COMPARE_COPY;
	compare_run(v);
}

static void compare_end(struct volume *v)
{
	struct compare *c = &v->compare;
	c->stage = COMPARE_REST;
	v->entry->unlike_blocks = c->unlike_blocks;
	v->entry->n_compared++;
	log_event(v->set->log, c->unlike_blocks ? LOG_ERROR : LOG_INFO, "copies-compared", volume_name(v),
		  "the copies of volume %s have been compared: %" PRIu64 " blocks differ", volume_name(v),
		  c->unlike_blocks);
	timer_start(v->set->reactor, &c->timer, COMPARE_EVERY_NS);
}

/* Trees or places have changed: they are listed anew. FLOW_WAIT: not now. */
static enum flow compare_settle(struct volume *v)
{
	struct compare *c = &v->compare;
	bool is_known = v->entry->facts.history == c->history && c->trees;
	if (v->resync || v->move || (!is_known && compare_list_trees(v) != 0)) {
		c->stage = COMPARE_PAUSE;
		timer_start(v->set->reactor, &c->timer, COMPARE_WAIT_NS);
		return FLOW_WAIT;
	}
	return FLOW_NEXT;
}

/* FLOW_WAIT: compare_walked() follows. */
static enum flow compare_walk(struct volume *v)
{
	struct compare *c = &v->compare;
	bool is_moved = v->entry->n_moves != c->n_moves;
	if (c->walk.number > 0 && !is_moved && c->segment < PLACEMENT_CHUNK)
		return FLOW_NEXT;
	if (c->segment == PLACEMENT_CHUNK)
		c->segment = 0;
	else if (is_moved && c->walk.number > 0)
		c->walk.number--; /* this one once more */
	c->n_moves = v->entry->n_moves;
	c->targets = 0;
	c->stage = COMPARE_WALK;
	if (placement_walk_next(&c->walk))
		return FLOW_WAIT;
	compare_end(v);
	return FLOW_WAIT;
}

static void compare_run(struct volume *v)
{
	struct compare *c = &v->compare;
	while (!c->is_stopping && !c->copy) {
		if (compare_settle(v) == FLOW_WAIT || compare_walk(v) == FLOW_WAIT)
			return;
		c->stage = COMPARE_COPY;
		if (compare_find(v) && compare_copy(v) != 0) {
			c->stage = COMPARE_PAUSE;
			timer_start(v->set->reactor, &c->timer, COMPARE_WAIT_NS);
			return;
		}
	}
}

/* ---- life ---- */

static void compare_begin(struct volume *v)
{
	struct compare *c = &v->compare;
	quarry_assert(c->stage == COMPARE_REST && !c->copy);
	c->walk = (struct placement_walk){.volume = v, .next = compare_walked, .context = v};
	c->segment = PLACEMENT_CHUNK;
	c->first = 0;
	c->unlike_blocks = c->n_pieces = 0;
	c->n_moves = v->entry->n_moves;
	if (compare_list_trees(v) != 0)
		c->history = 0;
	compare_run(v);
}

static void compare_fired(struct timer *t)
{
	struct compare *c = container_of(t, struct compare, timer);
	struct volume *v = volume_of_compare(c);
	if (c->is_stopping || v->is_fenced || v->state != VOLUME_SERVING)
		return;
	if (c->stage == COMPARE_REST)
		compare_begin(v);
	else
		compare_run(v);
}

void compare_init(struct volume *v)
{
	timer_init(&v->compare.timer, compare_fired);
}

void compare_want(struct volume *v)
{
	if (volume_is_replicated(v) && !v->snapshot && v->compare.stage == COMPARE_REST)
		timer_start(v->set->reactor, &v->compare.timer, COMPARE_FIRST_NS);
}

void compare_now(struct volume *v)
{
	struct compare *c = &v->compare;
	if (!volume_is_replicated(v) || v->state != VOLUME_SERVING || c->stage != COMPARE_REST)
		return;
	timer_stop(v->set->reactor, &c->timer);
	timer_start(v->set->reactor, &c->timer, 1);
}

void compare_stop(struct volume *v)
{
	struct compare *c = &v->compare;
	c->is_stopping = true;
	timer_stop(v->set->reactor, &c->timer);
	if (c->copy)
		copy_abandon(c->copy);
}

bool compare_is_over(const struct volume *v)
{
	return !v->compare.copy && !v->compare.walk.is_under_way;
}

void compare_abandon(struct volume *v)
{
	struct compare *c = &v->compare;
	timer_stop(v->set->reactor, &c->timer);
	placement_walk_abandon(&c->walk);
	if (c->copy)
		copy_forget(c->copy);
	free(c->trees);
	c->copy = NULL;
	c->trees = NULL;
}
