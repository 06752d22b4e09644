/*
 * move.c: some segments of a volume, side by side, get a copy on another disk, which takes the place of an old one, while
 * the volume is served: what drain and rebuild are made of (leave.c).
 *
 *   LOAD -> NAME -> RECORD -> CLAIM -> COPY -> FLUSH -> STILL -> HARDEN -> SWITCH -> OUTCOME -> QUIET -> CUT* -> END
 *                               +-- whatever fails: the segments lie where they lay --------------^
 *
 *   LOAD     the chunk, pinned until the end
 *   NAME     a target that is new to the volume: fence, trees, complete epoch (join.c); RECORD names it as a disk of the
 *            volume, without a segment yet [MOVENAME], and tells what is moved. Not beside a barrier or a placement [PLACEBAR]
 *   CLAIM    a barrier closes an epoch: r is the next one. When the writes of earlier ones are done [JOINDRAIN], changes of
 *            the segments go to the target, too, and wait for it [JOINHOLD]
 *   COPY     each tree, oldest first, from one disk that has the segments, since 0 [MOVEZERO] (replication/copy.h)
 *   FLUSH    makes most of that durable, while clients go on
 *   STILL    changes of the segments are held back; those under way end [MOVEHOLD]
 *   HARDEN   the rest is durable
 *   SWITCH   one transaction: the target has the place; OUTCOME: where the record alone does not tell, the chunk is read
 *            again
 *   QUIET    reads that were sent to the old disk before have been answered [MOVEREAD]
 *   CUT      the old disk drops what it has of the segments [MOVEDROP], or the target, if they have not moved. What is left
 *            there does no harm [MOVEZERO]; after a crash the record tells of it, and it is dropped then (move_tidy())
 *
 * Without an old disk it is one more copy; without a target one fewer, which goes from RECORD to STILL to SWITCH.
 *
 * Invariants
 *  1. Nothing but the record and the chunk decides where a segment lies: a crash at any point leaves it there or here.
 *  2. Of a change that the target has not done like the others, the move fails, and no client.
 *  3. A fork ends it: the trees that it has copied are not all any more. From SWITCH on to its end nobody forks, nor drops
 *     a tree, since a CUT may be under way.
 *  4. One at a time for a volume, and none beside a resync, which goes by the placements that it has read.
 *
 * Owner: the volume; started by leave.c, which is told of the end.
 */
#include "volumes/head/move_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOVE_RELOAD_NS NS_PER_S /* before the chunk is read once more */

static void move_run(struct move *m);
static void move_fail(struct volume *v, int err);

static struct volume_disk *move_disk(const struct move *m)
{
	return &m->volume->disks[m->order.target];
}

static bool move_has_target(const struct move *m)
{
	return m->order.target < SET_DISKS_MAX;
}

/* ---- doors ---- */

static void move_complete(struct move *m, int res)
{
	if (m->err == 0)
		m->err = res;
	move_run(m);
}

static void move_answered(struct replica_io *rio, int res)
{
	move_complete(container_of(rio, struct move, rio), res);
}

void move_ask(struct move *m, uint32_t disk, enum disk_op op)
{
	m->rio.io.op = op;
	m->rio.done = move_answered;
	replica_submit(&m->volume->disks[disk].replica, &m->rio);
}

static void move_polled(struct timer *t)
{
	move_run(container_of(t, struct move, poll));
}

enum flow move_poll(struct move *m, uint64_t delay_ns)
{
	timer_start(m->volume->set->reactor, &m->poll, delay_ns);
	return FLOW_WAIT;
}

/* ---- what others ask ---- */

static bool move_covers(const struct move *m, uint64_t segment)
{
	return m && segment >= m->order.first && segment < move_end_segment(m);
}

bool move_has(const struct volume *v, uint64_t segment)
{
	return move_covers(v->move, segment);
}

uint64_t move_target(const struct volume *v, uint64_t segment)
{
	const struct move *m = v->move;
	return move_covers(m, segment) && m->is_live && volume_disk_is_good(v, m->order.target)
		   ? 1ull << m->order.target
		   : 0;
}

bool move_uses_disk(const struct volume *v, uint32_t disk)
{
	return v->move && move_has_target(v->move) && v->move->order.target == disk;
}

bool move_is_switching(const struct volume *v)
{
	return v->move && v->move->is_switching;
}

bool move_is_naming(const struct volume *v)
{
	return v->move && v->move->is_naming;
}

uint64_t move_copied_bytes(const struct volume *v)
{
	const struct move *m = v->move;
	struct copy_progress p = {0};
	if (m && m->copy)
		copy_progress(m->copy, &p);
	return m ? m->copied_bytes + p.copied_bytes : 0;
}

/* ---- LOAD ---- */

static void move_loaded(struct chunk_waiter *w, int err)
{
	move_complete(container_of(w, struct move, waiter), err);
}

/* Do they lie where the order says, and is nothing of that about to change? */
static int move_check(const struct move *m)
{
	struct volume *v = m->volume;
	const struct chunk *c = chunk_get(v, m->order.first);
	for (uint64_t segment = m->order.first; segment < move_end_segment(m); segment++) {
		uint64_t disks = 0;
		if (chunk_find(v, segment, &disks) != PLACED_ON_DISKS || disks != m->order.disks)
			return -ECANCELED;
		if (chunk_bit(c->fresh, segment) && c->fresh_in_flight > 0)
			return -ECANCELED;
	}
	return 0;
}

/* FLOW_NEXT: the chunk is there, or an error. */
static enum flow move_load(struct move *m)
{
	if (m->err != 0)
		return FLOW_NEXT;
	if (!chunk_get(m->volume, m->order.first)) {
		m->waiter.loaded = move_loaded;
		m->err = chunk_await(m->volume, m->order.first, &m->waiter);
		return m->err ? FLOW_NEXT : FLOW_WAIT;
	}
	m->err = m->order.is_tidying ? 0 : move_check(m);
	if (m->err != 0)
		return FLOW_NEXT;
	struct chunk *c = chunk_get(m->volume, m->order.first);
	c->pins++;
	m->is_pinned = true;
	if (m->order.is_tidying)
		return FLOW_NEXT;
	for (uint64_t segment = m->order.first; segment < move_end_segment(m); segment++)
		chunk_bit_set(c->fresh, segment, false); /* a full disk is no reason to place it anew meanwhile */
	return FLOW_NEXT;
}

/* ---- NAME, RECORD ---- */

static void move_joined(struct join *j, int res)
{
	struct move *m = j->context;
	m->join = NULL;
	move_complete(m, res);
}

static const struct uuid *move_target_uuid(const struct move *m)
{
	return &m->volume->set->disks[m->order.target]->facts.uuid;
}

/* Does the record name the target as one that counts? */
static bool move_is_named(const struct move *m)
{
	return !move_has_target(m) || volume_facts_use_disk(&m->volume->entry->facts, move_target_uuid(m));
}

static struct moving_facts move_facts(const struct move *m)
{
	struct moving_facts facts = {.first = m->order.first, .n_segments = m->order.n_segments};
	if (move_has_target(m))
		facts.to = *move_target_uuid(m);
	if (m->order.out < SET_DISKS_MAX)
		facts.from = m->volume->set->disks[m->order.out]->facts.uuid;
	return facts;
}

/* Does it tell of the move? */
static bool move_is_told(const struct move *m)
{
	struct moving_facts wanted = move_facts(m), told = m->volume->entry->facts.moving;
	return move_is_named(m) && told.first == wanted.first && told.n_segments == wanted.n_segments &&
	       uuid_equal(&told.to, &wanted.to) && uuid_equal(&told.from, &wanted.from);
}

/* FLOW_NEXT: the target is joined, or an error. */
static enum flow move_name(struct move *m)
{
	struct volume *v = m->volume;
	if (m->err != 0 || !move_has_target(m))
		return FLOW_NEXT;
	if (!m->is_naming && move_is_named(m) && move_disk(m)->state == VOLUME_DISK_JOINED)
		return FLOW_NEXT;
	if (m->is_naming && move_disk(m)->state == VOLUME_DISK_JOINED)
		return FLOW_NEXT;
	if (!m->is_naming && (!barrier_is_resting(v) || v->placer.is_joining))
		return move_poll(m, MOVE_POLL_NS); /* [PLACEBAR] */
	if (m->is_naming || !set_disk_is_running(v->set->disks[m->order.target]) ||
	    move_disk(m)->state != VOLUME_DISK_UNUSED) {
		m->err = -EIO;
		return FLOW_NEXT;
	}
	m->is_naming = true;
	m->err = join_start(v, m->order.target, v->complete_epoch, move_joined, m, &m->join); /* [PLACEL] */
	return m->err ? FLOW_NEXT : FLOW_WAIT;
}

static void move_recorded(struct record_update *u, int res)
{
	struct move *m = container_of(u, struct move_update, update)->move;
	quarry_assert(&m->update->update == u);
	bool is_certain = u->is_certain;
	uint64_t revision = u->revision;
	free(m->update);
	m->update = NULL;
	if (res == -ESTALE || res == -ENOENT)
		volume_fence(m->volume, "another head has attached it");
	m->is_doubtful = res != 0 || !is_certain;
	if (m->stage == MOVE_OUTCOME && !m->is_doubtful)
		chunk_pinned(m->volume, m->order.first)->revision = revision;
	move_complete(m, res);
}

static enum flow move_record(struct move *m, int (*change)(struct record_update *u, struct volume_facts *facts),
			     void (*extend)(struct record_update *u, struct transaction *t))
{
	m->update = calloc(1, sizeof(*m->update));
	if (!m->update) {
		m->err = -ENOMEM;
		return FLOW_NEXT;
	}
	m->update->move = m;
	m->update->update.generation = m->volume->generation;
	m->update->update.head = m->volume;
	m->update->update.change = change;
	m->update->update.extend = extend;
	m->update->update.done = move_recorded;
	record_update_start(&m->update->update, m->volume->entry);
	return FLOW_WAIT;
}

static int move_change_name(struct record_update *u, struct volume_facts *facts)
{
	const struct move *m = container_of(u, struct move_update, update)->move;
	facts->moving = move_facts(m);
	if (!move_has_target(m))
		return 0;
	return volume_facts_take_disk(facts, move_target_uuid(m), m->volume->generation) ? 0 : -ENOSPC;
}

/* The target is not taken away meanwhile. */
static void move_extend_target(const struct move *m, struct transaction *t)
{
	char uuid[UUID_TEXT_BYTES];
	if (!move_has_target(m))
		return;
	uuid_to_text(move_target_uuid(m), uuid);
	transaction_condition(t, placement_revision(m->volume->set->disks[m->order.target]), DISK_KEY, uuid);
}

static void move_extend_name(struct record_update *u, struct transaction *t)
{
	move_extend_target(container_of(u, struct move_update, update)->move, t);
}

/* ---- CLAIM ---- */

static int move_list_trees(struct move *m)
{
	struct set_volume *entry = m->volume->entry;
	free(m->trees);
	m->n_trees = 0;
	m->trees = calloc(entry->n_snapshots + 1, sizeof(*m->trees));
	const char *node;
	if (!m->trees || entry->is_history_short)
		return m->trees ? -EAGAIN : -ENOMEM;
	if (snapshot_served_elsewhere(entry, &node)) /* one that is from now on changes the history, and SWITCH fails */
		return -EAGAIN;
	list_each (link, &entry->snapshots) {
		const struct snapshot_facts *s = &container_of(link, struct set_snapshot, link)->facts;
		if (!s->is_deleting)
			m->trees[m->n_trees++] = s->tree;
	}
	m->trees[m->n_trees++] = entry->facts.live_tree;
	m->history = entry->facts.history;
	m->tree = 0;
	return 0;
}

/* A copy goes only while another is good, also when that was chosen long ago [KEEPLAST]. */
static bool move_may_go_on(const struct move *m)
{
	bool has_disk = move_has_target(m) ? volume_disk_is_good(m->volume, m->order.target)
					   : volume_good(m->volume, move_order_disks(&m->order)) != 0;
	return m->err == 0 && has_disk && !m->volume->is_fenced && m->volume->state == VOLUME_SERVING;
}

static void move_reached(struct barrier_rider *rider)
{
	struct move *m = container_of(rider, struct move, rider);
	struct volume *v = m->volume;
	bool may_go_on = move_may_go_on(m);
	if (v->barrier.stage == BARRIER_CLAIM && may_go_on)
		return barrier_close_claimed(v);
	if (v->barrier.stage == BARRIER_FORK) {
		if (may_go_on) { /* all writes of the epochs before are done, and none of this one is under way */
			m->first_epoch = v->epoch;
			m->err = move_list_trees(m);
			m->is_live = m->err == 0;
		}
		barrier_forked(v, 0);
	}
	barrier_release(v);
	move_complete(m, may_go_on && m->is_live ? 0 : -ECANCELED);
}

static enum flow move_claim(struct move *m)
{
	if (!move_may_go_on(m)) {
		m->err = -EIO;
		return FLOW_NEXT;
	}
	m->rider.reached = move_reached;
	barrier_claim(m->volume, &m->rider);
	return FLOW_WAIT;
}

/* ---- COPY ---- */

static void move_granted(struct range_lock *l)
{
	struct move_hold *hold = container_of(l, struct move_hold, lock);
	copy_held(hold->move->copy, hold->lane);
}

/* Reads go on meanwhile; changes wait. */
static void move_hold(struct copy *c, unsigned lane, uint64_t first, uint64_t n_blocks, void *context)
{
	struct move *m = context;
	struct move_hold *hold = &m->holds[lane];
	hold->move = m;
	hold->lane = lane;
	hold->lock.granted = move_granted;
	if (range_lock_take(&m->volume->locks, &hold->lock, first, first + n_blocks - 1, true))
		copy_held(c, lane);
}

static void move_release(struct copy *c, unsigned lane, void *context)
{
	struct move *m = context;
	range_lock_release(&m->volume->locks, &m->holds[lane].lock);
}

static bool move_is_too_large(const struct move *m)
{
	return m->order.max_bytes > 0 && move_copied_bytes(m->volume) > m->order.max_bytes;
}

static void move_copied(int res, const struct copy_progress *p, void *context)
{
	struct move *m = context;
	m->copy = NULL;
	m->copied_bytes += p->copied_bytes;
	m->order.is_source_bad = res != 0 && p->failed == COPY_SOURCE;
	if (res == 0 && move_is_too_large(m))
		res = -EFBIG;
	move_complete(m, res);
}

static void move_pace(struct timer *t)
{
	struct move *m = container_of(t, struct move, pace);
	if (move_is_too_large(m))
		return move_fail(m->volume, -EFBIG);
	if (m->copy)
		copy_set_rate(m->copy, resync_rate(m->volume, &m->seen_requests));
	timer_start(m->volume->set->reactor, &m->pace, NS_PER_S);
}

/* The next tree. FLOW_NEXT: all are copied, or an error. */
static enum flow move_copy(struct move *m)
{
	struct volume *v = m->volume;
	if (!move_may_go_on(m) || !volume_disk_is_good(v, m->order.source))
		m->err = m->err ? m->err : -EIO;
	if (m->err != 0 || m->tree == m->n_trees)
		return FLOW_NEXT;
	uint64_t id = m->trees[m->tree++];
	bool is_live = m->tree == m->n_trees;
	struct copy_options o = {.reactor = v->set->reactor,
				 .source = &v->disks[m->order.source].replica,
				 .target = &move_disk(m)->replica,
				 .source_tree = id,
				 .target_tree = id,
				 .first = m->order.first * SEGMENT_BLOCKS,
				 .n_blocks = m->order.n_segments * SEGMENT_BLOCKS,
				 .since = 0, /* [MOVEZERO] */
				 .before = is_live ? m->first_epoch : COPY_ALL,
				 .bytes_per_s = RESYNC_BUSY_BYTES_PER_S,
				 .hold = is_live ? move_hold : NULL,
				 .release = is_live ? move_release : NULL,
				 .done = move_copied,
				 .context = m};
	m->err = copy_start(&o, &m->copy);
	if (m->err == 0 && !timer_is_running(&m->pace))
		timer_start(v->set->reactor, &m->pace, NS_PER_S);
	return m->err ? FLOW_NEXT : FLOW_WAIT;
}

/* ---- STILL ---- */

static void move_is_alone(struct range_lock *l)
{
	struct move *m = container_of(l, struct move, still);
	m->is_still = true;
	if (m->op.kind == OP_NONE) /* within another's release: not now */
		reactor_defer(m->volume->set->reactor, &m->op, 0);
}

static enum flow move_still(struct move *m)
{
	if (m->volume->n_places_held > 0)
		return move_poll(m, MOVE_POLL_NS);
	if (!move_has_target(m)) /* nothing is copied, but who reads elsewhere is to know */
		m->err = move_list_trees(m);
	if (m->err != 0)
		return FLOW_NEXT;
	m->stage = move_has_target(m) ? MOVE_HARDEN : MOVE_SWITCH;
	m->still.granted = move_is_alone;
	m->is_still = range_lock_take(&m->volume->locks, &m->still, m->order.first * SEGMENT_BLOCKS,
				      move_end_segment(m) * SEGMENT_BLOCKS - 1, true);
	return m->is_still ? FLOW_NEXT : FLOW_WAIT;
}

void move_let_go(struct move *m)
{
	if (!m->is_still)
		return;
	m->is_still = false;
	range_lock_release(&m->volume->locks, &m->still);
}

/* ---- SWITCH, OUTCOME ---- */

static int move_change(struct record_update *u, struct volume_facts *facts)
{
	const struct move *m = container_of(u, struct move_update, update)->move;
	uint64_t stay = move_has_target(m) ? disk_bit(m->order.target) : move_order_disks(&m->order);
	bool is_current = false; /* [KEEPLAST] */
	for (; stay != 0; stay &= stay - 1) {
		const struct set_disk *d = m->volume->set->disks[__builtin_ctzll(stay)];
		const struct volume_disk_facts *known = volume_facts_disk(facts, &d->facts.uuid);
		is_current |= known && !known->is_stale;
	}
	return is_current && facts->history == m->history ? 0 : -ECANCELED;
}

static void move_extend(struct record_update *u, struct transaction *t)
{
	const struct move *m = container_of(u, struct move_update, update)->move;
	const struct chunk *c = chunk_pinned(m->volume, m->order.first);
	bool is_known = c == chunk_get(m->volume, m->order.first); /* else it is being read again: nothing holds */
	struct place_pick picks[MOVE_SEGMENTS_MAX];
	char uuid[UUID_TEXT_BYTES];
	for (uint32_t i = 0; i < m->order.n_segments; i++)
		picks[i] = (struct place_pick){.segment = m->order.first + i, .disks = move_order_disks(&m->order)};
	uuid_to_text(&m->volume->entry->facts.uuid, uuid);
	transaction_condition(t, is_known ? c->revision : REVISION_NONE, CHUNK_KEY, uuid, c->number);
	if (is_known)
		transaction_put(t, chunk_to_json(c, picks, m->order.n_segments), CHUNK_KEY, uuid, c->number);
	move_extend_target(m, t);
}

static enum flow move_switch(struct move *m)
{
	if (!move_may_go_on(m) || m->volume->barrier.rider || m->volume->n_places_held > 0 ||
	    !chunk_get(m->volume, m->order.first))
		m->err = m->err ? m->err : -ECANCELED; /* whoever forks now has not reckoned with this */
	if (m->err == 0)
		m->err = layout_reserve(m->volume, 1);
	if (m->err != 0)
		return FLOW_NEXT;
	m->stage = MOVE_OUTCOME;
	m->is_switching = true;
	/* until the outcome is known they count as lying there, too */
	for (uint32_t i = 0; i < m->order.n_segments; i++)
		layout_add(m->volume, move_order_disks(&m->order));
	if (move_record(m, move_change, move_extend) == FLOW_WAIT)
		return FLOW_WAIT;
	m->is_doubtful = true; /* nothing was sent: the chunk will tell */
	return FLOW_NEXT;
}

/* The heads of snapshots know the chunk by themselves. */
static void move_tell_snapshot(struct volume *v, void *context)
{
	const struct move *m = context;
	uint32_t number = (uint32_t)(m->order.first / PLACEMENT_CHUNK);
	snapshot_find_trees(v);
	if (number >= v->n_chunks || !v->chunks[number])
		return;
	for (uint64_t segment = m->order.first; segment < move_end_segment(m); segment++)
		chunk_move(v->chunks[number], segment, move_order_disks(&m->order));
}

/* It is known where they lie. */
static void move_settle(struct move *m, bool has_moved)
{
	struct volume *v = m->volume;
	m->is_live = false;
	for (uint32_t i = 0; i < m->order.n_segments; i++)
		layout_remove(v, has_moved ? m->order.disks : move_order_disks(&m->order));
	if (!has_moved) {
		m->err = m->err ? m->err : -EAGAIN;
		return;
	}
	m->err = 0;
	v->entry->n_moves++;
	struct chunk *c = chunk_pinned(v, m->order.first);
	for (uint64_t segment = m->order.first; segment < move_end_segment(m); segment++)
		chunk_move(c, segment, move_order_disks(&m->order));
	snapshots_each_head(v->entry, move_tell_snapshot, m);
	m->cut_disks = disk_bit(m->order.out);
	stale_wake(v);
}

/* Of what may have happened the chunk tells: it is read until the store answers. */
static enum flow move_reload(struct move *m)
{
	struct volume *v = m->volume;
	struct chunk *c = v->chunks[m->order.first / PLACEMENT_CHUNK];
	uint64_t disks = 0;
	if (!volume_needs_outcome(v)) {
		move_settle(m, false);
		return FLOW_NEXT;
	}
	if (m->is_doubtful) {
		m->is_doubtful = false;
		m->waiter.loaded = move_loaded;
		chunk_reload(c);
		if (chunk_await(v, m->order.first, &m->waiter) == 0)
			return FLOW_WAIT;
		m->is_doubtful = true;
		return move_poll(m, MOVE_RELOAD_NS);
	}
	if (chunk_find(v, m->order.first, &disks) == PLACED_UNKNOWN) { /* it could not be read */
		m->is_doubtful = true;
		return move_poll(m, MOVE_RELOAD_NS);
	}
	move_settle(m, disks == move_order_disks(&m->order));
	return FLOW_NEXT;
}

/* ---- END ---- */

static void move_free(struct move *m)
{
	timer_stop(m->volume->set->reactor, &m->pace);
	timer_stop(m->volume->set->reactor, &m->poll);
	free(m->trees);
	free(m);
}

/* A target that was joined and is not the volume's after all. */
static void move_unjoin(struct move *m)
{
	if (!m->is_naming || m->order.is_tidying || move_disk(m)->state == VOLUME_DISK_UNUSED || move_is_named(m))
		return;
	volume_disk_lose(m->volume, m->order.target, -ECANCELED);
	move_disk(m)->state = VOLUME_DISK_UNUSED;
}

static void move_end(struct move *m)
{
	struct volume *v = m->volume;
	void (*done)(void *context, int res, const struct move_order *order) = m->order.done;
	struct move_order order = m->order;
	int err = m->err ? m->err : m->res;
	move_unjoin(m);
	move_let_go(m);
	if (m->is_pinned)
		chunk_pinned(v, m->order.first)->pins--;
	order.copied_bytes = m->copied_bytes;
	if (m->is_switching && snapshots_are_deleting(v->entry))
		sweep_want(v->entry); /* it may have been kept from that */
	v->move = NULL;
	move_free(m);
	places_grant(v);
	barrier_run(v); /* riders may have waited for it, */
	placer_run(v);  /* and placements */
	done(order.context, err, &order);
}

/* ---- the dispatcher: the stage is what is done next, but for those that take several steps ---- */

/* FLOW_WAIT: it is called again. */
static enum flow move_step_record(struct move *m)
{
	if (m->stage == MOVE_NAME) {
		if (move_name(m) == FLOW_WAIT)
			return FLOW_WAIT;
		m->stage = MOVE_RECORD;
		return FLOW_NEXT;
	} /* else RECORD */
	if (m->err == 0 && !move_is_told(m))
		return move_record(m, move_change_name, move_extend_name);
	m->is_naming = false;
	barrier_run(m->volume);
	placer_run(m->volume);
	m->stage = move_has_target(m) ? MOVE_CLAIM : MOVE_STILL;
	return FLOW_NEXT;
}

static enum flow move_step_switch(struct move *m)
{
	if (m->stage == MOVE_SWITCH)
		return move_switch(m);
	if (m->stage == MOVE_OUTCOME) {
		m->stage = m->is_doubtful ? MOVE_RELOAD : MOVE_QUIET;
		if (!m->is_doubtful)
			move_settle(m, true);
		return FLOW_NEXT;
	} /* else RELOAD */
	if (move_reload(m) == FLOW_WAIT)
		return FLOW_WAIT;
	m->stage = MOVE_QUIET;
	if (m->err != 0)
		move_turn_back(m);
	return FLOW_NEXT;
}

static void move_run(struct move *m)
{
	for (;;) {
		if (m->err != 0 && m->stage > MOVE_CLAIM && m->stage < MOVE_OUTCOME)
			move_turn_back(m);
		else if (m->err != 0 && m->stage < MOVE_OUTCOME)
			m->stage = MOVE_END;
		switch (m->stage) {
		case MOVE_LOAD:
			if (move_load(m) == FLOW_WAIT)
				return;
			m->stage = MOVE_NAME;
			if (m->order.is_tidying && m->err == 0)
				move_look_for_rest(m);
			break;
		case MOVE_NAME:
		case MOVE_RECORD:
			if (move_step_record(m) == FLOW_WAIT)
				return;
			break;
		case MOVE_CLAIM:
			m->stage = MOVE_COPY;
			if (move_claim(m) == FLOW_WAIT)
				return;
			break;
		case MOVE_COPY:
			if (move_copy(m) == FLOW_WAIT)
				return;
			m->stage = MOVE_FLUSH;
			break;
		case MOVE_FLUSH:
			m->stage = MOVE_STILL;
			return move_ask(m, m->order.target, DISK_FLUSH);
		case MOVE_STILL:
			if (move_still(m) == FLOW_WAIT)
				return;
			break;
		case MOVE_HARDEN:
			m->stage = MOVE_SWITCH;
			return move_ask(m, m->order.target, DISK_FLUSH);
		case MOVE_SWITCH:
		case MOVE_OUTCOME:
		case MOVE_RELOAD:
			if (move_step_switch(m) == FLOW_WAIT)
				return;
			break;
		case MOVE_QUIET:
			if (move_quiet(m) == FLOW_WAIT)
				return;
			m->stage = MOVE_CUT;
			break;
		case MOVE_CUT:
			if (move_cut(m) == FLOW_WAIT)
				return;
			m->stage = MOVE_END;
			if (m->order.is_tidying && move_record(m, move_change_tidied, NULL) == FLOW_WAIT)
				return;
			break;
		case MOVE_END:
			if (m->op.kind == OP_NONE) /* else it comes here again */
				move_end(m);
			return;
		}
	}
}

/* ---- beginning and ending ---- */

static void move_turn(struct op *op, int res)
{
	move_run(container_of(op, struct move, op));
}

int move_start(struct volume *v, const struct move_order *order)
{
	quarry_assert(!v->move && !v->resync && order->done);
	quarry_assert(order->n_segments > 0 && order->n_segments <= MOVE_SEGMENTS_MAX);
	quarry_assert(order->is_tidying || (order->disks & ~disk_bit(order->out)) | disk_bit(order->target));
	quarry_assert(order->is_tidying || order->target == SET_DISKS_MAX || order->disks >> order->source & 1);
	quarry_assert(order->is_tidying || !(order->disks & disk_bit(order->target)));
	struct move *m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->volume = v;
	m->order = *order;
	m->cut_block = order->first * SEGMENT_BLOCKS;
	timer_init(&m->pace, move_pace);
	timer_init(&m->poll, move_polled);
	op_init(&m->op, move_turn);
	v->move = m;
	reactor_defer(v->set->reactor, &m->op, 0);
	return 0;
}

static void move_fail(struct volume *v, int err)
{
	struct move *m = v->move;
	if (!m || m->is_switching || m->err != 0)
		return;
	m->err = err;
	m->is_live = false;
	if (m->copy)
		copy_abandon(m->copy);
}

void move_missed(struct volume *v, uint64_t segment, int res)
{
	if (move_has(v, segment))
		move_fail(v, res < 0 ? res : -EIO);
}

void move_stop(struct volume *v)
{
	move_fail(v, -ECANCELED);
}

void move_abandon(struct volume *v)
{
	struct move *m = v->move;
	if (!m)
		return;
	if (m->update)
		record_update_abandon(&m->update->update);
	free(m->update);
	join_abandon(m->join);
	if (m->copy)
		copy_forget(m->copy);
	v->move = NULL;
	move_free(m);
}
