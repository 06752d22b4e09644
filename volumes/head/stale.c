/*
 * stale.c: a disk that failed a volume with several copies is recorded as stale before anything that it missed completes.
 *
 *   JOINED -> LOST (since is fixed) -> [record] -> STALE         requests of which it missed something wait (P2)
 *
 * Invariants
 *  1. since = the last complete epoch when the disk was lost, + 1, and no epoch becomes complete before the mark has
 *     landed: so a stale disk has all of the epochs before since.
 *  2. A disk that the record calls stale keeps its since, whatever happens later.
 *  3. No disk is marked while any segment would be left without a current copy [LASTSYNC] [LASTSEG]: the head stops
 *     serving instead, and only a disk of the last ones in sync may start the volume again.
 *  4. While the store cannot be reached nothing is acknowledged that a disk has missed: the mark is tried again and again.
 *  5. One transaction at a time. What is lost meanwhile has the next.
 *  6. With fewer current copies than min_replicas a change is not begun, and one that was on its way does not complete: it
 *     waits SHORT_NS for more, then fails. It keeps no range locked meanwhile: the resync that it waits for copies there.
 *  7. None is marked while an attach still joins disks, which seem lost until they have answered: it sees to that itself.
 *
 * Owner: the volume.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define STALE_RETRY_NS NS_PER_S
/* A disk that comes back needs some seconds; a client that waits longer is better told. */
#define SHORT_NS (20 * NS_PER_S)

static struct volume *volume_of_stale(struct stale *s)
{
	return container_of(s, struct volume, stale);
}

/* Bit per disk: lost, and called stale by the record, or not. What is on its way is decided first: as if it was not. One that
 * is named, and does not count yet, is marked when it does. */
static uint64_t stale_lost(const struct volume *v, bool is_marked)
{
	uint64_t disks = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct volume_disk_facts *known;
		if (v->disks[i].state != VOLUME_DISK_LOST)
			continue;
		known = volume_facts_disk(&v->entry->facts, &v->set->disks[i]->facts.uuid);
		if (known && !known->is_left && (known->is_stale && !v->disks[i].is_switching) == is_marked)
			disks |= 1ull << i;
	}
	return disks;
}

bool stale_is_settled(const struct volume *v)
{
	return v->is_fenced || stale_lost(v, false) == 0;
}

/* ---- those that wait ---- */

void stale_wait(struct volume_io *io)
{
	struct volume *v = io->own.volume;
	list_append(&v->stale.waiting, &io->own.line);
	stale_wake(v);
}

static void stale_wake_all(struct list *requests, int err)
{
	for (struct list *node; (node = list_pop(requests)) != NULL;)
		volume_io_wake(container_of(node, struct volume_io, own.line), err);
}

static void stale_let_go(struct volume *v)
{
	stale_wake_all(&v->stale.waiting, 0);
	if (v->is_fenced)
		stale_wake_all(&v->stale.shorts, -EIO);
	if (v->stale.settled)
		v->stale.settled(v);
}

/* ---- too few copies ---- */

/* When the next of them will have waited long enough. */
static void shorts_start_timer(struct volume *v)
{
	uint64_t now_ns = reactor_now_ns(v->set->reactor), over_ns = UINT64_MAX;
	if (list_is_empty(&v->stale.shorts) || timer_is_running(&v->stale.short_timer))
		return;
	list_each (node, &v->stale.shorts)
		over_ns = min_u64(over_ns, container_of(node, struct volume_io, own.line)->own.short_ns + SHORT_NS);
	timer_start(v->set->reactor, &v->stale.short_timer, over_ns > now_ns ? over_ns - now_ns : 1);
}

static void shorts_over(struct timer *t)
{
	struct volume *v = volume_of_stale(container_of(t, struct stale, short_timer));
	uint64_t now_ns = reactor_now_ns(v->set->reactor);
	list_each_safe (node, &v->stale.shorts) {
		struct volume_io *io = container_of(node, struct volume_io, own.line);
		if (io->own.short_ns + SHORT_NS <= now_ns)
			volume_io_wake(io, -EIO);
	}
	shorts_start_timer(v);
}

void stale_wait_short(struct volume_io *io)
{
	struct volume *v = io->own.volume;
	if (!v->stale.is_short && io->own.short_ns == 0)
		log_event(v->set->log, LOG_ERROR, "copies-too-few", v->entry->facts.name,
			  "volume %s has fewer current copies than the %u that it must have: writes wait for %llu s, "
			  "then fail; "
			  "bring disks back, or lower --min-replicas",
			  v->entry->facts.name, v->entry->facts.min_replicas, SHORT_NS / NS_PER_S);
	v->stale.is_short = true;
	if (io->own.short_ns == 0) /* not when it was woken in vain */
		io->own.short_ns = reactor_now_ns(v->set->reactor);
	list_append(&v->stale.shorts, &io->own.line);
	shorts_start_timer(v);
}

void stale_more_copies(struct volume *v)
{
	v->stale.is_short = false;
	stale_wake_all(&v->stale.shorts, 0);
}

/* ---- the mark ---- */

static struct stale_update *update_of(struct record_update *u)
{
	return container_of(u, struct stale_update, update);
}

/* One more than the id of the youngest tree that is recorded: all current disks have these. */
static uint64_t stale_trees_end(const struct set_volume *entry)
{
	uint64_t last = entry->facts.live_tree;
	list_each (node, &entry->snapshots)
		last = max_u64(last, container_of(node, struct set_snapshot, link)->facts.tree);
	return last + 1;
}

static int stale_change(struct record_update *u, struct volume_facts *facts)
{
	const struct volume *v = update_of(u)->volume;
	for (uint64_t disks = update_of(u)->disks; disks != 0; disks &= disks - 1) {
		uint32_t disk = (uint32_t)__builtin_ctzll(disks);
		struct volume_disk_facts *known = volume_facts_disk(facts, &v->set->disks[disk]->facts.uuid);
		if (!known || known->is_stale)
			continue;
		bool is_older = v->disks[disk].is_older || known->is_older; /* nothing holds that is known of it */
		known->is_stale = true;
		known->is_older = false;
		known->since = is_older ? 0 : v->disks[disk].since;
		known->had_before = is_older ? 0 : stale_trees_end(v->entry);
	}
	return 0;
}

static void stale_tell(struct volume *v, uint32_t disk)
{
	const struct set_disk *d = v->set->disks[disk];
	log_event(
	    v->set->log, LOG_WARNING, "copy-stale", v->entry->facts.name,
	    "disk %s (%s) has no current copy of its part of volume %s any more (%s): the volume goes on with the "
	    "other copies",
	    d->facts.name, d->facts.path, v->entry->facts.name, d->why[0] ? d->why : "it failed a request");
}

static void stale_landed(struct volume *v, uint64_t marked)
{
	for (; marked != 0; marked &= marked - 1) {
		uint32_t disk = (uint32_t)__builtin_ctzll(marked);
		struct volume_disk *vd = &v->disks[disk];
		if (vd->state != VOLUME_DISK_LOST)
			continue;
		vd->state = VOLUME_DISK_STALE;
		vd->is_older = false;
		vd->written = vd->flushed = 0; /* nobody counts on what it has */
		stale_tell(v, disk);
	}
	volume_explain(v);
	resync_want(v); /* it may be well, but for one request */
	leave_want(v);  /* or gone for good */
}

static void stale_recorded(struct record_update *u, int res)
{
	struct volume *v = update_of(u)->volume;
	struct stale *s = &v->stale;
	uint64_t disks = update_of(u)->disks;
	quarry_assert(s->update == update_of(u));
	free(s->update);
	s->update = NULL;
	if (res == 0) {
		stale_landed(v, disks);
	} else if (res == -ESTALE || res == -ENOENT) {
		volume_fence(v, "another head has attached it");
	} else {
		if (!s->is_told)
			log_event(
			    v->set->log, LOG_ERROR, "copy-not-marked", v->entry->facts.name,
			    "a disk has missed writes of volume %s, which cannot be recorded (the metadata store says: "
			    "%s): these writes wait until it can",
			    v->entry->facts.name, strerror(-res));
		s->is_told = true;
		timer_start(v->set->reactor, &s->retry, STALE_RETRY_NS);
		if (s->settled) /* it need not be */
			s->settled(v);
		return;
	}
	s->is_told = false;
	stale_run(v);
}

static int stale_record(struct volume *v, uint64_t disks)
{
	struct stale *s = &v->stale;
	s->update = calloc(1, sizeof(*s->update));
	if (!s->update)
		return -ENOMEM;
	s->update->volume = v;
	s->update->disks = disks;
	s->update->update.generation = v->generation;
	s->update->update.change = stale_change;
	s->update->update.done = stale_recorded;
	record_update_start(&s->update->update, v->entry);
	return 0;
}

/* Segments that would be left without a current copy. */
static uint64_t stale_left_alone(const struct volume *v)
{
	return layout_without(v, volume_joined(v));
}

/* ---- the dispatcher ---- */

void stale_run(struct volume *v)
{
	struct stale *s = &v->stale;
	if (s->update || timer_is_running(&s->retry) || v->is_greeting)
		return;
	uint64_t marked = stale_lost(v, true); /* not answered, but made: the watch has told of it */
	if (marked != 0) {
		s->is_told = false;
		stale_landed(v, marked);
	}
	uint64_t unmarked = stale_lost(v, false), n = stale_left_alone(v);
	if (unmarked != 0 && n > 0 && !v->is_fenced)
		volume_fence(
		    v, "the last disk with a current copy of %" PRIu64 " of its segments has failed: mend it first", n);
	if (stale_is_settled(v))
		return stale_let_go(v);
	if (stale_record(v, unmarked) != 0)
		timer_start(v->set->reactor, &s->retry, STALE_RETRY_NS);
}

static void stale_turn(struct op *op, int res)
{
	stale_run(volume_of_stale(container_of(op, struct stale, op)));
}

static void stale_retry(struct timer *t)
{
	stale_run(volume_of_stale(container_of(t, struct stale, retry)));
}

void stale_wake(struct volume *v)
{
	if (v->stale.op.kind == OP_NONE)
		reactor_defer(v->set->reactor, &v->stale.op, 0);
}

void stale_note(struct volume *v, uint32_t disk)
{
	quarry_assert(volume_is_replicated(v) && v->disks[disk].state == VOLUME_DISK_LOST);
	v->disks[disk].since = v->complete_epoch + 1;
	stale_wake(v);
}

void stale_init(struct volume *v)
{
	list_init(&v->stale.waiting);
	list_init(&v->stale.shorts);
	timer_init(&v->stale.retry, stale_retry);
	timer_init(&v->stale.short_timer, shorts_over);
	op_init(&v->stale.op, stale_turn);
}

bool stale_is_busy(const struct volume *v)
{
	return v->stale.update || v->stale.op.kind != OP_NONE;
}

void stale_abandon(struct volume *v)
{
	struct stale *s = &v->stale;
	if (s->update)
		record_update_abandon(&s->update->update);
	free(s->update);
	s->update = NULL;
	timer_stop(v->set->reactor, &s->retry);
	timer_stop(v->set->reactor, &s->short_timer);
}
