/*
 * resync.c: a stale disk that is back takes over what it has missed, while the volume is served, and is current again.
 *
 *   NAME -> FENCE -> LIST -> MAKE -> DROP -> CLAIM -> COPY -> FLUSH -> SETTLE -> SWITCH -> OUTCOME -> END
 *     +----------- whatever fails: stale as before, from the same since -----------------------^
 *
 *   NAME     the record says that the disk is told this generation
 *   FENCE    a session begins there
 *   LIST     which trees are there
 *   MAKE     trees that the record names and the disk lacks, oldest first: forked from what the disk had, else empty
 *   DROP     trees that nobody names: what was deleted meanwhile, and what earlier attempts left
 *   CLAIM    a barrier closes an epoch: r is the next one. When the writes of earlier ones are done [JOINDRAIN], the disk is
 *            SYNCING: from r on writes go there, too, and wait for it [JOINHOLD]
 *   COPY     each tree, segment by segment, what either side wrote since, from a current copy (replication/copy.h); last of
 *            all CUT what it has of segments that lie elsewhere by now [MOVEDROP]
 *   FLUSH    makes that durable
 *   SETTLE   a barrier that began after that, whose COMPLETE the disk answers [JOINFLUSH]
 *   SWITCH   the record calls it current; from sending that only the outcome ends the wait for it [JOINHOLD]
 *
 * Invariants
 *  1. What is compared from which epoch is decided by the record, never by what the disk shows: a tree that was recorded
 *     when the disk failed, or can be forked from one, from since; every other from 0 [FORKBASE].
 *  2. A fork, which is a snapshot or a clone, ends it: it has no place for what is younger than its trees. It begins again,
 *     and what has been copied is only compared.
 *  3. One disk at a time. A disk that is being resynced is not read, not placed on, and never the reason for an error of a
 *     client: when it fails it is stale as before. They take turns, so that one that always fails keeps none from it.
 *
 * Owner: the volume.
 */
#include "volumes/head/resync_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* After one that ended early; twice as long each time, up to: */
#define RESYNC_RETRY_NS     (2 * NS_PER_S)
#define RESYNC_RETRY_MAX_NS (60 * NS_PER_S)

static void resync_run(struct resync *r);

static struct volume_disk_facts *resync_facts(const struct resync *r, struct volume_facts *facts)
{
	return volume_facts_disk(facts, &r->volume->set->disks[r->disk]->facts.uuid);
}

/* ---- doors ---- */

void resync_complete(struct resync *r, int res)
{
	if (r->err == 0)
		r->err = res;
	resync_run(r);
}

static void resync_answered(struct replica_io *rio, int res)
{
	resync_complete(container_of(rio, struct resync, rio), res);
}

static enum flow resync_ask(struct resync *r, enum disk_op op)
{
	r->rio.io.op = op;
	r->rio.done = resync_answered;
	replica_submit(&resync_disk(r)->replica, &r->rio);
	return FLOW_WAIT;
}

static void resync_recorded(struct record_update *u, int res)
{
	struct resync *r = container_of(u, struct resync_update, update)->resync;
	free(r->update);
	r->update = NULL;
	if (res == -ESTALE || res == -ENOENT)
		volume_fence(r->volume, "another head has attached it");
	resync_complete(r, res);
}

static enum flow resync_record(struct resync *r, int (*change)(struct record_update *u, struct volume_facts *facts))
{
	r->update = calloc(1, sizeof(*r->update));
	if (!r->update) {
		r->err = -ENOMEM;
		return FLOW_NEXT;
	}
	r->update->resync = r;
	r->update->update.generation = r->volume->generation;
	r->update->update.head = r->volume;
	r->update->update.change = change;
	r->update->update.done = resync_recorded;
	record_update_start(&r->update->update, r->volume->entry);
	return FLOW_WAIT;
}

/* ---- NAME, FENCE ---- */

static int resync_change_name(struct record_update *u, struct volume_facts *facts)
{
	struct resync *r = container_of(u, struct resync_update, update)->resync;
	struct volume_disk_facts *known = resync_facts(r, facts);
	if (!known || !known->is_stale)
		return -ECANCELED;
	known->generation = r->volume->generation;
	return 0;
}

static enum flow resync_name(struct resync *r)
{
	const struct volume_disk_facts *known = resync_facts(r, &r->volume->entry->facts);
	quarry_assert(known && known->is_stale);
	r->since = known->since;
	r->had_before = known->had_before;
	return known->generation == r->volume->generation ? FLOW_NEXT : resync_record(r, resync_change_name);
}

static enum flow resync_fence(struct resync *r)
{
	struct volume *v = r->volume;
	if (!set_disk_is_running(v->set->disks[r->disk])) {
		r->err = -EIO;
		return FLOW_NEXT;
	}
	volume_disk_replica(v, r->disk);
	r->rio.io.generation = v->generation;
	r->rio.io.size_blocks = blocks_of(v->entry->facts.size_bytes);
	return resync_ask(r, DISK_FENCE);
}

/* ---- MAKE ---- */

/* The snapshot that the live tree was forked from, by a rollback, if the disk had it; 0: it was not, or that is gone. */
static uint64_t live_base(const struct resync *r)
{
	struct set_volume *entry = r->volume->entry;
	uint64_t from = entry->facts.live_from;
	const struct set_snapshot *snap = from ? snapshot_by_tree(entry, from) : NULL;
	return snap && !snap->facts.is_deleting && from < r->had_before ? from : 0;
}

static struct resync_tree resync_tree_of(const struct resync *r, uint64_t id, uint64_t base)
{
	bool is_known = id < r->had_before || base != 0;
	return (struct resync_tree){.id = id, .since = is_known ? r->since : 0, .base = base};
}

static int resync_list_trees(struct resync *r)
{
	struct set_volume *entry = r->volume->entry;
	uint64_t live = entry->facts.live_tree;
	r->trees = calloc(entry->n_snapshots + 1, sizeof(*r->trees));
	if (!r->trees || entry->is_history_short)
		return r->trees ? -EAGAIN : -ENOMEM;
	list_each (node, &entry->snapshots) {
		const struct snapshot_facts *s = &container_of(node, struct set_snapshot, link)->facts;
		bool is_of_live = s->branch == live && live < r->had_before;
		if (!s->is_deleting)
			r->trees[r->n_trees++] = resync_tree_of(r, s->tree, is_of_live ? live : 0);
	}
	r->trees[r->n_trees++] = resync_tree_of(r, live, live < r->had_before ? 0 : live_base(r));
	r->history = entry->facts.history;
	r->tree = 0;
	return 0;
}

/* Was it there, or has it been made? */
static bool resync_has(const struct resync *r, uint64_t id)
{
	bool has = replica_trees_have(&r->had, id);
	for (uint32_t i = 0; i + 1 < r->tree && !has; i++) /* the one at r->tree - 1 is about to be made */
		has = r->trees[i].id == id;
	return has;
}

/* Is the disk still there? */
bool resync_is_there(struct resync *r)
{
	if (resync_disk(r)->replica.state != REPLICA_OPEN && r->err == 0)
		r->err = -EIO;
	return r->err == 0;
}

static void resync_listed(struct replica_trees *t, int res)
{
	resync_complete(container_of(t, struct resync, had), res);
}

static enum flow resync_list(struct resync *r)
{
	/* When it was lost it remembered the last complete epoch, or was just being told of it. One that remembers less is
	 * an older copy of the disk, put back, of which nothing holds that the record says [OLDER]. */
	if (r->rio.io.complete_epoch + 1 < r->since)
		r->had_before = 0;
	r->had.done = resync_listed;
	replica_trees_ask(&resync_disk(r)->replica, &r->had);
	return FLOW_WAIT;
}

/* The next tree that the disk lacks. FLOW_NEXT: it has all. */
static enum flow resync_make(struct resync *r)
{
	struct volume *v = r->volume;
	const struct uuid *uuid = &v->entry->facts.uuid;
	if (!r->trees)
		r->err = resync_list_trees(r);
	if (r->err != 0 || !resync_is_there(r))
		return FLOW_NEXT;
	while (r->tree < r->n_trees) {
		struct resync_tree *t = &r->trees[r->tree++];
		if (replica_trees_have(&r->had, t->id))
			continue;
		bool has_base = t->base != 0 && resync_has(r, t->base);
		if (!has_base)
			t->since = 0;
		r->rio.tree = t->base;
		r->rio.io.volume = *uuid;
		r->rio.io.tree_id = t->id;
		r->rio.io.parent_id = 0;
		r->rio.io.epoch = v->epoch;
		return resync_ask(r, has_base ? DISK_FORK : DISK_CREATE);
	}
	return FLOW_NEXT;
}

static void resync_dropped(void *context, int res)
{
	struct resync *r = context;
	r->batch = NULL;
	resync_complete(r, res);
}

static enum flow resync_drop(struct resync *r)
{
	if (!resync_is_there(r))
		return FLOW_NEXT;
	r->batch = tree_batch_orphans(r->volume, r->disk);
	if (!r->batch) {
		r->err = -ENOMEM;
		return FLOW_NEXT;
	}
	tree_batch_start(r->batch, resync_dropped, r);
	return FLOW_WAIT;
}

/* ---- CLAIM ---- */

static bool resync_may_go_on(const struct resync *r)
{
	return r->err == 0 && resync_disk(r)->replica.state == REPLICA_OPEN && !r->volume->is_fenced &&
	       r->volume->entry->facts.history == r->history;
}

static void resync_reached(struct barrier_rider *rider)
{
	struct resync *r = container_of(rider, struct resync, rider);
	struct volume *v = r->volume;
	bool may_go_on = resync_may_go_on(r);
	if (v->barrier.stage == BARRIER_CLAIM && may_go_on)
		return barrier_close_claimed(v);
	if (v->barrier.stage == BARRIER_FORK) {
		if (may_go_on) { /* all writes of the epochs before are done, and none of this one is under way */
			r->first_epoch = v->epoch;
			resync_disk(r)->state = VOLUME_DISK_SYNCING;
			resync_disk(r)->written = resync_disk(r)->flushed = 0;
		}
		barrier_forked(v, 0);
	}
	barrier_release(v);
	resync_complete(r, may_go_on && r->first_epoch > 0 ? 0 : -ECANCELED);
}

static enum flow resync_claim(struct resync *r)
{
	if (!resync_may_go_on(r)) {
		r->err = -ECANCELED;
		return FLOW_NEXT;
	}
	r->rider.reached = resync_reached;
	barrier_claim(r->volume, &r->rider);
	return FLOW_WAIT;
}

/* ---- SETTLE ---- */

static enum flow resync_settle(struct resync *r)
{
	struct volume *v = r->volume;
	if (resync_disk(r)->state != VOLUME_DISK_SYNCING || v->is_fenced)
		r->err = -EIO;
	if (r->err != 0 || (r->settle_epoch > 0 && v->complete_epoch >= r->settle_epoch))
		return FLOW_NEXT;
	if (r->settle_epoch == 0)
		r->settle_epoch = v->epoch; /* a barrier that is under way closes an earlier one */
	resync_disk(r)->is_settling = true;
	barrier_want(v);
	return FLOW_WAIT;
}

static bool resync_waits_for_barrier(const struct resync *r)
{
	return (r->stage == RESYNC_SETTLE && r->settle_epoch > 0) ||
	       (r->stage == RESYNC_SWITCH && !resync_disk(r)->is_switching);
}

void resync_barrier_ended(struct volume *v)
{
	if (v->resync && resync_waits_for_barrier(v->resync))
		resync_run(v->resync);
}

bool resync_is_switching(const struct volume *v)
{
	return v->resync && resync_disk(v->resync)->is_switching;
}

/* ---- SWITCH ---- */

/* What is in doubt is decided by the next that is recorded, even if it changes nothing. */
static int resync_change_state(struct record_update *u, struct volume_facts *facts)
{
	struct resync *r = container_of(u, struct resync_update, update)->resync;
	struct volume_disk_facts *known = resync_facts(r, facts);
	if (known && (!known->is_stale || resync_disk(r)->state != VOLUME_DISK_SYNCING))
		return 0;
	if (!known || !known->is_stale || known->since != r->since || facts->history != r->history)
		return -ECANCELED;
	known->is_stale = false;
	known->since = known->had_before = 0;
	return 0;
}

static enum flow resync_switch(struct resync *r)
{
	if (!resync_may_go_on(r) || resync_disk(r)->state != VOLUME_DISK_SYNCING) {
		r->err = -ECANCELED;
		return FLOW_NEXT;
	}
	if (r->volume->barrier.rider) /* whoever forks now has not reckoned with this disk */
		return FLOW_WAIT;
	r->stage = RESYNC_OUTCOME;
	resync_disk(r)->is_switching = true;
	return resync_record(r, resync_change_state);
}

/* The outcome is known. A disk that was lost meanwhile is marked once more, or was never current. */
static void resync_switched(struct resync *r)
{
	struct volume_disk *vd = resync_disk(r);
	if (!vd->is_switching)
		return;
	vd->is_switching = false;
	const struct volume_disk_facts *known = resync_facts(r, &r->volume->entry->facts);
	bool is_current = known && !known->is_stale;
	if (vd->state == VOLUME_DISK_SYNCING && is_current)
		vd->state = VOLUME_DISK_JOINED;
	else if (vd->state == VOLUME_DISK_LOST && !is_current)
		vd->state = VOLUME_DISK_STALE;
	stale_wake(r->volume);
}

/* ---- END ---- */

static void resync_tell(const struct resync *r)
{
	const struct set_disk *d = r->volume->set->disks[r->disk];
	const char *name = r->volume->entry->facts.name;
	uint64_t took_ns = reactor_now_ns(r->volume->set->reactor) - r->started_ns;
	if (resync_disk(r)->state == VOLUME_DISK_JOINED)
		log_event(r->volume->set->log, LOG_NOTICE, "copy-current", name,
			  "disk %s has a current copy of its part of volume %s again: %llu MiB were copied in %.1f s",
			  d->facts.name, name, r->copied_bytes / MIB, (double)took_ns / (double)NS_PER_S);
	else if (r->lost_blocks > 0)
		log_event(r->volume->set->log, LOG_ERROR, "resync-blocked", name,
			  "disk %s cannot take over what it has missed of volume %s: %" PRIu64 " KiB at offset %" PRIu64
			  " cannot be "
			  "read from any current copy: write or trim them anew, and delete snapshots that have them",
			  d->facts.name, name, r->lost_blocks * (uint64_t)(BLOCK_BYTES / KIB),
			  r->lost_first * (uint64_t)BLOCK_BYTES);
	else if (r->err != -ECANCELED)
		log_event(r->volume->set->log, LOG_WARNING, "resync-failed", name,
			  "disk %s could not take over what it has missed of volume %s: %s; it is tried again",
			  d->facts.name, name, strerror(-r->err));
}

static void resync_end(struct resync *r)
{
	struct volume *v = r->volume;
	struct volume_disk *vd = resync_disk(r);
	bool is_done = vd->state == VOLUME_DISK_JOINED;
	vd->is_settling = false;
	if (vd->state == VOLUME_DISK_SYNCING)
		volume_disk_lose(v, r->disk, -ECANCELED);
	else if (!is_done)
		replica_lose(&vd->replica, -ECANCELED); /* the next attempt has a session of its own */
	resync_tell(r);
	timer_stop(v->set->reactor, &r->pace);
	v->resync = NULL;
	replica_trees_clear(&r->had);
	free(r->trees);
	free(r);
	v->resync_delay_ns =
	    is_done ? 0 : min_u64(max_u64(2 * v->resync_delay_ns, RESYNC_RETRY_NS), RESYNC_RETRY_MAX_NS);
	if (is_done)
		stale_more_copies(v);
	volume_explain(v);
	resync_want(v);
	leave_want(v);
	barrier_run(v); /* riders may have waited for it */
	volume_check_drained(v);
}

/* ---- the dispatcher: the stage is what is done next, but for those that take several steps ---- */

static void resync_run(struct resync *r)
{
	for (;;) {
		if (r->err != 0 && r->stage < RESYNC_OUTCOME)
			r->stage = RESYNC_END;
		switch (r->stage) {
		case RESYNC_NAME:
			r->stage = RESYNC_FENCE;
			if (resync_name(r) == FLOW_WAIT)
				return;
			break;
		case RESYNC_FENCE:
			r->stage = RESYNC_LIST;
			if (resync_fence(r) == FLOW_WAIT)
				return;
			break;
		case RESYNC_LIST:
			r->stage = RESYNC_MAKE;
			if (resync_list(r) == FLOW_WAIT)
				return;
			break;
		case RESYNC_MAKE:
			if (resync_make(r) == FLOW_WAIT)
				return;
			r->stage = RESYNC_DROP;
			break;
		case RESYNC_DROP:
			r->stage = RESYNC_CLAIM;
			if (resync_drop(r) == FLOW_WAIT)
				return;
			break;
		case RESYNC_CLAIM:
			r->stage = RESYNC_COPY;
			if (resync_claim(r) == FLOW_WAIT)
				return;
			break;
		case RESYNC_COPY:
			if (resync_copy_on(r) == FLOW_WAIT)
				return;
			r->stage = RESYNC_FLUSH;
			break;
		case RESYNC_FLUSH:
			r->stage = RESYNC_SETTLE;
			if (resync_ask(r, DISK_FLUSH) == FLOW_WAIT)
				return;
			break;
		case RESYNC_SETTLE:
			if (resync_settle(r) == FLOW_WAIT)
				return;
			r->stage = RESYNC_SWITCH;
			break;
		case RESYNC_SWITCH:
			if (resync_switch(r) == FLOW_WAIT)
				return;
			break;
		case RESYNC_OUTCOME:
			resync_switched(r);
			r->stage = RESYNC_END;
			break;
		case RESYNC_END:
			if (r->op.kind != OP_NONE) /* it comes here again */
				return;
			resync_end(r);
			return;
		}
	}
}

/* ---- beginning and ending ---- */

static void resync_turn(struct op *op, int res)
{
	resync_run(container_of(op, struct resync, op));
}

static bool volume_disk_is_named_stale(const struct volume *v, uint32_t disk)
{
	const struct volume_disk_facts *known = volume_facts_disk(&v->entry->facts, &v->set->disks[disk]->facts.uuid);
	return known && known->is_stale;
}

/* A stale disk that is there; SET_DISKS_MAX: there is none. */
uint32_t resync_candidate(const struct volume *v)
{
	for (uint32_t turn = 1; turn <= SET_DISKS_MAX; turn++) {
		uint32_t i = (v->resynced_last + turn) % SET_DISKS_MAX;
		if (v->disks[i].state == VOLUME_DISK_STALE && set_disk_is_running(v->set->disks[i]) &&
		    volume_disk_is_named_stale(v, i) && !leave_has(v, i))
			return i;
	}
	return SET_DISKS_MAX;
}

static void resync_timer_fired(struct timer *t)
{
	struct volume *v = container_of(t, struct volume, resync_timer);
	uint32_t disk = resync_candidate(v);
	if (v->state != VOLUME_SERVING || v->is_fenced || v->resync || v->move || disk == SET_DISKS_MAX)
		return; /* the end of a move asks again */
	struct resync *r = calloc(1, sizeof(*r));
	if (!r) {
		timer_start(v->set->reactor, &v->resync_timer, RESYNC_RETRY_MAX_NS);
		return;
	}
	r->volume = v;
	r->disk = v->resynced_last = disk;
	r->started_ns = reactor_now_ns(v->set->reactor);
	timer_init(&r->pace, resync_pace);
	op_init(&r->op, resync_turn);
	v->resync = r;
	resync_run(r);
}

void resync_init(struct volume *v)
{
	timer_init(&v->resync_timer, resync_timer_fired);
	v->resynced_last = SET_DISKS_MAX - 1;
}

void resync_want(struct volume *v)
{
	if (v->state != VOLUME_SERVING || v->snapshot || v->resync || resync_candidate(v) == SET_DISKS_MAX)
		return;
	if (!timer_is_running(&v->resync_timer))
		timer_start(v->set->reactor, &v->resync_timer, max_u64(v->resync_delay_ns, 1));
}

void resync_stop(struct volume *v)
{
	struct resync *r = v->resync;
	timer_stop(v->set->reactor, &v->resync_timer);
	if (!r || r->stage >= RESYNC_OUTCOME || r->err != 0)
		return;
	r->err = -ECANCELED;
	if (r->copy)
		copy_abandon(r->copy);
	if (resync_disk(r)->state == VOLUME_DISK_SYNCING)
		volume_disk_lose(v, r->disk, -ECANCELED);
	if (resync_waits_for_barrier(r) && r->op.kind == OP_NONE)
		reactor_defer(v->set->reactor, &r->op, 0);
}

void resync_abandon(struct volume *v)
{
	struct resync *r = v->resync;
	timer_stop(v->set->reactor, &v->resync_timer);
	if (!r)
		return;
	if (r->update)
		record_update_abandon(&r->update->update);
	free(r->update);
	tree_batch_abandon(r->batch);
	placement_walk_abandon(&r->walk);
	if (r->copy)
		copy_forget(r->copy);
	timer_stop(v->set->reactor, &r->pace);
	replica_trees_clear(&r->had);
	free(r->trees);
	free(r);
	v->resync = NULL;
}

/* Of all trees, one after the other, each from its first block to its last. */
static double resync_done(const struct resync *r, const struct copy_progress *p)
{
	uint64_t size = max_u64(blocks_of(r->volume->entry->facts.size_bytes), 1), at = 0;
	if (!r->walk.volume || r->n_trees == 0)
		return 0;
	if (r->copy)
		at = r->copy_first + p->walked_blocks;
	else if (r->walk.number > 0)
		at = ((uint64_t)(r->walk.number - 1) * PLACEMENT_CHUNK + r->segment) * SEGMENT_BLOCKS;
	return ((double)min_u64(r->tree, r->n_trees - 1) + (double)min_u64(at, size) / (double)size) / r->n_trees;
}

void resync_look(const struct volume *v, struct resync_progress *out)
{
	const struct resync *r = v->resync;
	struct copy_progress p = {0};
	*out = (struct resync_progress){.disk = SET_DISKS_MAX};
	if (!r)
		return;
	if (r->copy)
		copy_progress(r->copy, &p);
	*out = (struct resync_progress){
	    .disk = r->disk, .copied_bytes = r->copied_bytes + p.copied_bytes, .done = resync_done(r, &p)};
	double took_s = (double)(reactor_now_ns(v->set->reactor) - r->started_ns) / (double)NS_PER_S;
	if (out->done > 0 && took_s >= 1)
		out->eta_s = (uint64_t)(took_s * (1 - out->done) / out->done) + 1;
}
