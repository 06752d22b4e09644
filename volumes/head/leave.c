/*
 * leave.c: all segments of a volume leave a disk: one that is being drained, or one that is gone, of whose segments others
 * have copies (rebuild). Then the volume has nothing to do with it any more. Or, where there is no such disk, each segment
 * gets as many copies as it is to have (even.c), or one of them goes to an emptier disk (balance.c).
 *
 *   FIND -> WALK -> PICK -> MOVE -> PICK ... -> LEFT -> QUIET -> (NAME -> FENCE) -> DROP -> ERASE -> END
 *            ^--------+  chunk by chunk        |       +- the disk is not there: END, until it is back -^
 *                                              +- EVEN: no disk is left ---------------------------------^
 *   FIND     the first disk of the record that is to be left
 *   WALK     reads the next chunk's placements; PICK takes the next segments there that lie on the disk, or have too few
 *            or too many copies, and chooses where they go; MOVE does it (move.c)
 *            to rebalance, one segment and no more: who plans looks anew after it (set_balance.c)
 *   EVEN     each segment has as many copies as it is to have: the record says so
 *   LEFT     no segment lies there any more: the record says so, and nothing of the disk counts from now on
 *   QUIET    who still reads there has his answer
 *   NAME, FENCE   a session of the disk, when there is none
 *   DROP     all trees of the volume on the disk; it frees them in the background
 *   ERASE    the record forgets the disk; its key goes too when it was removed by force and no other volume names it
 *
 * Invariants
 *  1. Nothing is placed on a disk that is to be left: so a walk that finds nothing there has found all there was.
 *  2. All may be repeated: after a crash it begins with FIND, and goes by the record and the chunks alone.
 *  3. While another node serves a snapshot of the volume nothing moves: that node knows where segments lie, and would read
 *     what is cut.
 *  4. A resync goes first: what it makes current is a better source, and a move would change what it goes by.
 *
 * Owner: the volume.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LEAVE_STAGES(X)                                                                                                \
	X(FIND) X(WALK) X(PICK) X(MOVE) X(EVEN) X(LEFT) X(QUIET) X(NAME) X(FENCE) X(DROP) X(ERASE) X(END)
#define X(name) LEAVE_##name,
enum leave_stage { LEAVE_STAGES(X) };
#undef X

/* After one that did not come to its end; twice as long each time, up to: */
#define LEAVE_RETRY_NS     (500 * NS_PER_MS)
#define LEAVE_RETRY_MAX_NS (60 * NS_PER_S)
/* After one that something else was first to: a snapshot, a command. */
#define LEAVE_AGAIN_NS (50 * NS_PER_MS)
#define LEAVE_POLL_NS  (10 * NS_PER_MS)
/* So many segments are begun to move and found too large; a part of each was copied in vain. */
#define LEAVE_LARGE_MAX 3u

struct leave_update {
	struct record_update update;
	struct leave *leave;
};

struct leave {
	enum leave_stage stage;
	int err;
	bool is_stopping, is_told;
	struct volume *volume;
	enum leave_purpose purpose;
	uint32_t disk;     /* FOR_DISK: that is left; else SET_DISKS_MAX */
	uint32_t replicas; /* FOR_COPIES: the number of them, when it began */
	uint64_t refused;  /* bit per disk: targets that had no room, or failed, */
	uint64_t failed;   /* of these, those that failed, */
	uint64_t bad;      /* and sources that could not be read */
	struct placement_walk walk;
	uint32_t segment; /* of the walk's chunk: what is before it is done */
	uint64_t n_moved, copied_bytes;
	uint32_t n_large;       /* segments that were too much to move, to rebalance */
	uint64_t disk_revision; /* of its record, when it began */
	struct leave_update *update;
	struct replica_io rio;
	struct tree_batch *batch;
	struct timer poll;
	struct op op;
};

static void leave_run(struct leave *l);

static struct set_disk *leave_disk(const struct leave *l)
{
	quarry_assert(l->purpose == LEAVE_FOR_DISK && l->disk < SET_DISKS_MAX);
	return l->volume->set->disks[l->disk];
}

static struct volume_disk_facts *leave_facts(const struct leave *l, struct volume_facts *facts)
{
	return volume_facts_disk(facts, &leave_disk(l)->facts.uuid);
}

bool leave_has(const struct volume *v, uint32_t disk)
{
	const struct volume_disk_facts *known = volume_facts_disk(&v->entry->facts, &v->set->disks[disk]->facts.uuid);
	return known && known->is_left;
}

/* ---- doors ---- */

static void leave_complete(struct leave *l, int res)
{
	if (l->err == 0)
		l->err = res;
	leave_run(l);
}

static void leave_polled(struct timer *t)
{
	leave_run(container_of(t, struct leave, poll));
}

static void leave_turn(struct op *op, int res)
{
	leave_run(container_of(op, struct leave, op));
}

static void leave_answered(struct replica_io *rio, int res)
{
	leave_complete(container_of(rio, struct leave, rio), res);
}

static void leave_recorded(struct record_update *u, int res)
{
	struct leave *l = container_of(u, struct leave_update, update)->leave;
	quarry_assert(&l->update->update == u);
	free(l->update);
	l->update = NULL;
	if (res == -ESTALE || res == -ENOENT)
		volume_fence(l->volume, "another head has attached it");
	leave_complete(l, res);
}

static enum flow leave_record(struct leave *l, int (*change)(struct record_update *u, struct volume_facts *facts),
			      void (*extend)(struct record_update *u, struct transaction *t))
{
	l->update = calloc(1, sizeof(*l->update));
	if (!l->update) {
		l->err = -ENOMEM;
		return FLOW_NEXT;
	}
	l->update->leave = l;
	l->update->update.head = l->volume;
	l->update->update.generation = l->volume->generation;
	l->update->update.change = change;
	l->update->update.extend = extend;
	l->update->update.done = leave_recorded;
	record_update_start(&l->update->update, l->volume->entry);
	return FLOW_WAIT;
}

static struct leave *leave_of(struct record_update *u)
{
	return container_of(u, struct leave_update, update)->leave;
}

/* ---- WALK, PICK, MOVE ---- */

static void leave_walked(struct placement_walk *w, int res)
{
	struct leave *l = w->context;
	l->segment = 0;
	leave_complete(l, res);
}

/* Why a segment cannot go anywhere. */
static int leave_explain(struct leave *l, int err)
{
	struct set_volume *entry = l->volume->entry;
	const struct volume_facts *f = &entry->facts;
	if (l->bad != 0)
		leave_obstruct(
		    entry, l->purpose,
		    "a part of volume %s cannot be read from any disk: the events name the blocks; restore them",
		    f->name);
	else if (err == -ENOSPC)
		leave_obstruct(entry, l->purpose,
			       "no other disk of pool %s has room for a part of volume %s, in a failure domain of its "
			       "own: add a disk",
			       f->pool, f->name);
	else
		leave_obstruct(entry, l->purpose, "a part of volume %s could not be moved: %s", f->name,
			       strerror(-err));
	return err;
}

static void leave_moved(void *context, int res, const struct move_order *order)
{
	struct leave *l = context;
	l->copied_bytes += order->copied_bytes;
	l->stage = LEAVE_PICK;
	if (res == 0) {
		l->n_moved += order->n_segments;
		for (uint32_t i = 0; i < order->n_segments; i++) /* they may want one more, or one fewer */
			l->walk.disks[l->segment + i] = move_order_disks(order);
		leave_forget_why(l->volume->entry);
	} else if (res == -EFBIG) {
		l->segment += order->n_segments; /* a smaller one will do */
		l->n_large++;
	} else if (res == -ECANCELED || res == -EAGAIN) {
		l->err = res;
	} else if (order->is_source_bad) {
		l->bad |= 1ull << order->source;
	} else if (order->target == SET_DISKS_MAX) {
		l->err = res;
	} else {
		l->refused |= 1ull << order->target;
		l->failed |= res == -ENOSPC ? 0 : 1ull << order->target;
	}
	leave_run(l);
}

/* Those side by side with the first that lie on the same disks. */
static uint32_t leave_row(const struct leave *l)
{
	uint32_t n = 1;
	while (n < MOVE_SEGMENTS_MAX && l->segment + n < PLACEMENT_CHUNK &&
	       l->walk.disks[l->segment + n] == l->walk.disks[l->segment])
		n++;
	return n;
}

/* What was drained, not drained, and is drained again may have got segments that the walk has passed. */
static bool leave_still_wants(const struct leave *l)
{
	const struct set_volume *entry = l->volume->entry;
	if (l->purpose == LEAVE_FOR_BALANCE)
		return balance_is_wanted(entry) && !leave_is_urgent(entry);
	if (l->purpose == LEAVE_FOR_COPIES)
		return entry->facts.replicas == l->replicas;
	const struct set_disk *d = leave_disk(l);
	const struct volume_disk_facts *known = volume_facts_disk(&l->volume->entry->facts, &d->facts.uuid);
	return d->facts.revision == l->disk_revision && known && leave_wants_disk(entry, known);
}

static bool leave_may_go_on(const struct leave *l)
{
	const struct volume *v = l->volume;
	return l->err == 0 && !l->is_stopping && leave_still_wants(l) && v->state == VOLUME_SERVING && !v->is_fenced &&
	       !v->resync && (resync_candidate(v) == SET_DISKS_MAX || v->resync_delay_ns > 0);
}

/* It is about to be detached, or its node is lost, and reads placements anew before it answers again. */
static bool leave_waits_for_export(struct leave *l)
{
	struct set_volume *entry = l->volume->entry;
	const char *node;
	const struct set_snapshot *snap = snapshot_served_elsewhere(entry, &node);
	if (snap)
		leave_obstruct(entry, l->purpose,
			       "snapshot %s of volume %s is attached on node %s, and would lose what moves: detach it",
			       snap->facts.name, entry->facts.name, node);
	return snap != NULL;
}

static int leave_plan(struct leave *l, struct move_order *order)
{
	switch (l->purpose) {
	case LEAVE_FOR_BALANCE:
		return balance_plan(l->volume, l->refused, order);
	case LEAVE_FOR_COPIES:
		return even_plan(l->volume, l->refused, order);
	case LEAVE_FOR_DISK:
		break;
	}
	/* Where there are more copies than wanted, it goes without another in its place: there may be no domain for one. */
	order->target = SET_DISKS_MAX;
	if (even_has_enough(l->volume, order->disks, l->disk))
		return 0;
	return placement_choose_other(l->volume, order->disks & ~disk_bit(l->disk), l->refused, &order->target);
}

static int leave_order(struct leave *l)
{
	struct volume *v = l->volume;
	struct move_order order = {.first = (uint64_t)(l->walk.number - 1) * PLACEMENT_CHUNK + l->segment,
				   .n_segments = l->purpose == LEAVE_FOR_BALANCE ? 1 : leave_row(l),
				   .disks = l->walk.disks[l->segment],
				   .out = l->disk,
				   .done = leave_moved,
				   .context = l};
	if (leave_waits_for_export(l))
		return -EBUSY;
	uint64_t sources = volume_good(v, order.disks & ~l->bad);
	int err = sources ? leave_plan(l, &order) : -EIO;
	if (err != 0)
		return leave_explain(l, l->failed ? -EIO : err);
	order.source = sources & disk_bit(l->disk) ? l->disk : (uint32_t)__builtin_ctzll(sources);
	return move_start(v, &order);
}

/* Are segments that lie on these disks to be moved? */
static bool leave_concerns(const struct leave *l, uint64_t disks)
{
	switch (l->purpose) {
	case LEAVE_FOR_BALANCE:
		return balance_concerns(l->volume, disks, l->refused);
	case LEAVE_FOR_COPIES:
		return even_concerns(l->volume, disks);
	case LEAVE_FOR_DISK:
		break;
	}
	return disks & disk_bit(l->disk);
}

/* Has one moved, or is it in vain to try more of them? */
static bool leave_has_balanced(const struct leave *l)
{
	return l->purpose == LEAVE_FOR_BALANCE && (l->n_moved > 0 || l->n_large == LEAVE_LARGE_MAX);
}

/* FLOW_NEXT: the chunk has none left, or an error. */
static enum flow leave_pick(struct leave *l)
{
	if (leave_has_balanced(l))
		return FLOW_NEXT;
	if (!leave_may_go_on(l)) {
		l->err = l->err ? l->err : -ECANCELED;
		return FLOW_NEXT;
	}
	while (l->segment < PLACEMENT_CHUNK && !leave_concerns(l, l->walk.disks[l->segment]))
		l->segment++;
	if (l->segment == PLACEMENT_CHUNK)
		return FLOW_NEXT;
	l->err = leave_order(l);
	return l->err ? FLOW_NEXT : FLOW_WAIT;
}

/* ---- EVEN ---- */

static int leave_change_even(struct record_update *u, struct volume_facts *facts)
{
	if (facts->replicas != leave_of(u)->replicas)
		return -ECANCELED;
	facts->is_uneven = false;
	facts->moving = (struct moving_facts){0};
	return 0;
}

/* FLOW_NEXT: the record knows it. */
static enum flow leave_even(struct leave *l)
{
	const struct volume_facts *f = &l->volume->entry->facts;
	if (l->purpose != LEAVE_FOR_COPIES || !f->is_uneven)
		return FLOW_NEXT;
	return leave_record(l, leave_change_even, NULL);
}

/* ---- LEFT, QUIET ---- */

static int leave_change_left(struct record_update *u, struct volume_facts *facts)
{
	struct volume_disk_facts *known = leave_facts(leave_of(u), facts);
	if (!known)
		return -ECANCELED;
	known->is_left = known->is_stale = true;
	known->since = known->had_before = 0;
	facts->moving = (struct moving_facts){0}; /* the last move has left nothing, but on this disk */
	return 0;
}

/* It is still to be left, hence nothing was placed there. */
static void leave_extend_left(struct record_update *u, struct transaction *t)
{
	const struct disk_facts *facts = &leave_disk(leave_of(u))->facts;
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&facts->uuid, uuid);
	if (facts->revision > 0)
		transaction_condition(t, leave_of(u)->disk_revision, DISK_KEY, uuid);
}

static void leave_tell_snapshot(struct volume *v, void *context)
{
	v->disks[((struct leave *)context)->disk].state = VOLUME_DISK_UNUSED;
}

/* The record says that nothing there counts. */
static void leave_put_aside(struct leave *l)
{
	struct volume_disk *vd = &l->volume->disks[l->disk];
	if (!leave_has(l->volume, l->disk))
		return;
	vd->state = VOLUME_DISK_STALE;
	vd->written = vd->flushed = 0;
	snapshots_each_head(l->volume->entry, leave_tell_snapshot, l);
}

/* FLOW_NEXT: nobody reads there any more, and nobody is about to fork. */
static enum flow leave_quiet(struct leave *l)
{
	leave_put_aside(l);
	if (volume_disk_is_quiet(l->volume, l->disk) && !l->volume->barrier.rider)
		return FLOW_NEXT;
	timer_start(l->volume->set->reactor, &l->poll, LEAVE_POLL_NS);
	return FLOW_WAIT;
}

/* ---- NAME, FENCE, DROP ---- */

static bool leave_has_session(const struct leave *l)
{
	const struct volume_disk *vd = &l->volume->disks[l->disk];
	return vd->volume && vd->replica.state == REPLICA_OPEN;
}

static int leave_change_name(struct record_update *u, struct volume_facts *facts)
{
	struct volume_disk_facts *known = leave_facts(leave_of(u), facts);
	if (!known)
		return -ECANCELED;
	known->generation = leave_of(u)->volume->generation;
	return 0;
}

static enum flow leave_name(struct leave *l)
{
	const struct volume_disk_facts *known = leave_facts(l, &l->volume->entry->facts);
	if (leave_has_session(l) || !known || known->generation == l->volume->generation)
		return FLOW_NEXT;
	return leave_record(l, leave_change_name, NULL);
}

static enum flow leave_fence(struct leave *l)
{
	struct volume *v = l->volume;
	if (leave_has_session(l) || l->err != 0)
		return FLOW_NEXT;
	volume_disk_replica(v, l->disk);
	l->rio.io.op = DISK_FENCE;
	l->rio.io.generation = v->generation;
	l->rio.io.size_blocks = blocks_of(v->entry->facts.size_bytes);
	l->rio.done = leave_answered;
	replica_submit(&v->disks[l->disk].replica, &l->rio);
	return FLOW_WAIT;
}

static void leave_dropped(void *context, int res)
{
	struct leave *l = context;
	l->batch = NULL;
	leave_complete(l, res);
}

static enum flow leave_drop(struct leave *l)
{
	if (l->err != 0 || !set_disk_is_running(leave_disk(l)) || !leave_has_session(l)) {
		l->err = l->err ? l->err : -EIO;
		return FLOW_NEXT;
	}
	l->batch = tree_batch_all(l->volume, l->disk);
	if (!l->batch) {
		l->err = -ENOMEM;
		return FLOW_NEXT;
	}
	tree_batch_start(l->batch, leave_dropped, l);
	return FLOW_WAIT;
}

/* ---- ERASE ---- */

static int leave_change_erase(struct record_update *u, struct volume_facts *facts)
{
	struct volume_disk_facts *known = leave_facts(leave_of(u), facts);
	if (!known)
		return 0;
	*known = facts->disks[--facts->n_disks];
	return 0;
}

/* Was it removed by force, and is this the last volume that names it? */
static bool leave_is_last_user(const struct leave *l)
{
	const struct set_disk *d = leave_disk(l);
	return d->state == SET_DISK_REMOVED && d->facts.revision != 0 && set_disk_users(d, NULL, 0) == 1;
}

static void leave_extend_erase(struct record_update *u, struct transaction *t)
{
	const struct leave *l = leave_of(u);
	char uuid[UUID_TEXT_BYTES];
	if (!leave_is_last_user(l))
		return;
	uuid_to_text(&leave_disk(l)->facts.uuid, uuid);
	transaction_delete(t, DISK_KEY, uuid);
}

static void leave_tell(const struct leave *l)
{
	const struct set_disk *d = leave_disk(l);
	const char *name = l->volume->entry->facts.name;
	char moved[64] = "";
	if (l->n_moved > 0) /* else another head moved it, or it was joined in vain */
		text_print(moved, sizeof(moved), ": %" PRIu64 " GiB of it lie elsewhere now", l->n_moved);
	log_event(l->volume->set->log, LOG_NOTICE, "disk-left", name, "volume %s has nothing on disk %s any more%s",
		  name, d->facts.name, moved);
}

static void leave_evened(struct leave *l)
{
	const char *name = l->volume->entry->facts.name;
	if (l->n_moved > 0)
		log_event(l->volume->set->log, LOG_NOTICE, "replicas-even", name,
			  "volume %s has %u cop%s of each segment: copies of %" PRIu64 " GiB were made, or dropped",
			  name, l->replicas, l->replicas == 1 ? "y" : "ies", l->n_moved);
}

static void leave_erased(struct leave *l)
{
	struct volume_disk *vd = &l->volume->disks[l->disk];
	l->volume->is_rebuild_told = false;
	leave_tell(l);
	if (vd->volume)
		replica_lose(&vd->replica, -ECANCELED);
	vd->written = vd->flushed = 0; /* the answer to a flush may have come late */
	vd->volume = NULL;             /* the next one with this index may be another */
	vd->state = VOLUME_DISK_UNUSED;
	struct set_disk *d = leave_disk(l);
	if (d->state == SET_DISK_REMOVED && set_disk_users(d, NULL, 0) == 0)
		set_disk_forget(d);
}

/* ---- END ---- */

static void leave_succeeded(struct leave *l)
{
	leave_forget_why(l->volume->entry);
	if (l->purpose == LEAVE_FOR_COPIES)
		leave_evened(l);
	else if (l->purpose == LEAVE_FOR_DISK)
		leave_erased(l);
}

/* What cannot be moved to an emptier disk now is no news: it is well where it is. */
static void leave_end_balancing(struct leave *l)
{
	struct set_volume *entry = l->volume->entry;
	bool is_through = l->err == 0 && (entry->balance_chunk == 0 || l->n_large == LEAVE_LARGE_MAX);
	leave_forget_why(entry);
	entry->balance_chunk = l->n_moved > 0 ? l->walk.number - 1 : 0;
	if (l->n_moved > 0 || is_through || (l->err != 0 && l->err != -ECANCELED && l->err != -EAGAIN))
		balance_turn_over(entry, l->n_moved, l->copied_bytes);
}

static uint64_t leave_longer_delay(const struct volume *v)
{
	return min_u64(max_u64(2 * v->leave_delay_ns, LEAVE_RETRY_NS), LEAVE_RETRY_MAX_NS);
}

/* Has it looked at all segments, and at each in vain? What counts as lying there may not do so (layout.c, 1). */
static bool leave_has_found_nothing(const struct leave *l)
{
	return l->purpose == LEAVE_FOR_COPIES && l->err == 0 && l->n_moved == 0;
}

static void leave_put_off(struct leave *l)
{
	struct volume *v = l->volume;
	v->leave_delay_ns = leave_longer_delay(v);
	if (!leave_why(v->entry, l->purpose))
		(void)leave_explain(l, l->err);
	if (v->is_leave_told)
		return;
	v->is_leave_told = true;
	bool is_disk = l->purpose == LEAVE_FOR_DISK;
	log_event(v->set->log, LOG_WARNING, "leave-stalled", v->entry->facts.name, "%s%s: %s; it is tried again",
		  is_disk ? "disk " : "the number of copies", is_disk ? leave_disk(l)->facts.name : "",
		  v->entry->obstacle.text);
}

static void leave_end(struct leave *l)
{
	struct volume *v = l->volume;
	bool was_interrupted = l->err == -ECANCELED || l->err == -EAGAIN;
	if (l->n_moved > 0 || l->err == 0) {
		v->leave_delay_ns = leave_has_found_nothing(l) ? leave_longer_delay(v) : 0;
		v->is_leave_told = false;
	}
	if (l->purpose == LEAVE_FOR_BALANCE)
		leave_end_balancing(l);
	if (was_interrupted)
		v->leave_delay_ns = max_u64(v->leave_delay_ns, LEAVE_AGAIN_NS);
	else if (l->err != 0 && l->purpose != LEAVE_FOR_BALANCE)
		leave_put_off(l);
	timer_stop(v->set->reactor, &l->poll);
	v->leave = NULL;
	free(l);
	volume_explain(v);
	resync_want(v);
	leave_want(v);
	stale_more_copies(v);
	drains_look(v->set);
	volume_check_drained(v);
}

/* ---- the dispatcher ---- */

/* The next chunk. FLOW_NEXT: that was all, or an error. */
static enum flow leave_walk(struct leave *l)
{
	if (!leave_may_go_on(l)) {
		l->err = l->err ? l->err : -ECANCELED;
		return FLOW_NEXT;
	}
	return !leave_has_balanced(l) && placement_walk_next(&l->walk) ? FLOW_WAIT : FLOW_NEXT;
}

/* Has all of the disk been left before, and the end did not come? */
static bool leave_is_left(const struct leave *l)
{
	return l->purpose == LEAVE_FOR_DISK && leave_has(l->volume, l->disk);
}

static void leave_run(struct leave *l)
{
	for (;;) {
		if (l->err != 0 && l->stage != LEAVE_MOVE)
			l->stage = LEAVE_END;
		switch (l->stage) {
		case LEAVE_FIND:
			l->walk = (struct placement_walk){.volume = l->volume, .next = leave_walked, .context = l};
			l->walk.number = l->purpose == LEAVE_FOR_BALANCE ? l->volume->entry->balance_chunk : 0;
			l->stage = leave_is_left(l) ? LEAVE_QUIET : LEAVE_WALK;
			break;
		case LEAVE_WALK:
			l->stage = LEAVE_PICK;
			if (leave_walk(l) == FLOW_WAIT)
				return;
			l->stage = l->purpose == LEAVE_FOR_DISK ? LEAVE_LEFT : LEAVE_EVEN;
			break;
		case LEAVE_PICK:
			l->stage = LEAVE_MOVE;
			if (leave_pick(l) == FLOW_WAIT)
				return;
			l->stage = LEAVE_WALK;
			break;
		case LEAVE_MOVE: /* leave_moved() follows */
			return;
		case LEAVE_EVEN:
			l->stage = LEAVE_END;
			if (leave_even(l) == FLOW_WAIT)
				return;
			break;
		case LEAVE_LEFT:
			l->stage = LEAVE_QUIET;
			if (leave_record(l, leave_change_left, leave_extend_left) == FLOW_WAIT)
				return;
			break;
		case LEAVE_QUIET:
			if (leave_quiet(l) == FLOW_WAIT)
				return;
			l->stage = leave_disk(l)->state == SET_DISK_REMOVED ? LEAVE_ERASE : LEAVE_NAME;
			if (!leave_may_go_on(l))
				l->err = -ECANCELED;
			break;
		case LEAVE_NAME:
			l->stage = LEAVE_FENCE;
			if (leave_name(l) == FLOW_WAIT)
				return;
			break;
		case LEAVE_FENCE:
			l->stage = LEAVE_DROP;
			if (leave_fence(l) == FLOW_WAIT)
				return;
			break;
		case LEAVE_DROP:
			l->stage = LEAVE_ERASE;
			if (leave_drop(l) == FLOW_WAIT)
				return;
			break;
		case LEAVE_ERASE:
			l->stage = LEAVE_END;
			if (leave_record(l, leave_change_erase, leave_extend_erase) == FLOW_WAIT)
				return;
			break;
		case LEAVE_END:
			if (l->err == 0)
				leave_succeeded(l);
			leave_end(l);
			return;
		}
	}
}

/* ---- beginning and ending ---- */

static void leave_tell_begin(const struct leave *l)
{
	struct volume *v = l->volume;
	const struct set_disk *d = l->purpose == LEAVE_FOR_DISK ? leave_disk(l) : NULL;
	if (!d || !set_disk_is_gone(d) || leave_has(v, l->disk) || v->is_rebuild_told)
		return;
	v->is_rebuild_told = true;
	log_event(v->set->log, LOG_NOTICE, "rebuild-begun", v->entry->facts.name,
		  "disk %s (%s) is %s: what volume %s has there is made anew on other disks, from its other copies",
		  d->facts.name, d->facts.path, d->state == SET_DISK_REMOVED ? "removed" : "away for long",
		  v->entry->facts.name);
}

/* One that cannot be left keeps no other from it, and the number of copies has a turn among them. SET_DISKS_MAX: it is that,
 * or there is no disk to be left. */
static uint32_t leave_next_disk(const struct volume *v)
{
	const struct volume_facts *f = &v->entry->facts;
	uint32_t first = SET_DISKS_MAX, next = SET_DISKS_MAX;
	for (uint32_t i = 0; i < f->n_disks; i++) {
		if (!leave_wants_disk(v->entry, &f->disks[i]))
			continue;
		uint32_t disk = set_disk_by_uuid(v->set, &f->disks[i].uuid)->index;
		first = (uint32_t)min_u64(first, disk);
		next = disk >= v->leave_turn ? (uint32_t)min_u64(next, disk) : next;
	}
	return next == SET_DISKS_MAX && !even_is_needed(v->entry) ? first : next;
}

static void leave_timer_fired(struct timer *t)
{
	struct volume *v = container_of(t, struct volume, leave_timer);
	uint32_t disk = leave_next_disk(v);
	if (v->state != VOLUME_SERVING || v->is_fenced || v->leave || v->move || v->resync ||
	    !leave_is_needed(v->entry))
		return; /* the end of any of these asks again */
	struct leave *l = calloc(1, sizeof(*l));
	if (!l) {
		timer_start(v->set->reactor, &v->leave_timer, LEAVE_RETRY_MAX_NS);
		return;
	}
	l->volume = v;
	bool is_for_disk = disk < SET_DISKS_MAX;
	l->purpose = is_for_disk ? LEAVE_FOR_DISK : leave_is_urgent(v->entry) ? LEAVE_FOR_COPIES : LEAVE_FOR_BALANCE;
	l->disk = disk;
	l->disk_revision = is_for_disk ? leave_disk(l)->facts.revision : 0;
	v->leave_turn = is_for_disk ? disk + 1 : 0;
	l->replicas = v->entry->facts.replicas;
	timer_init(&l->poll, leave_polled);
	op_init(&l->op, leave_turn);
	v->leave = l;
	leave_tell_begin(l);
	leave_run(l);
}

void leave_init(struct volume *v)
{
	timer_init(&v->leave_timer, leave_timer_fired);
	list_init(&v->places_wanted);
}

void leave_want(struct volume *v)
{
	if (v->state != VOLUME_SERVING || v->snapshot || v->leave || v->is_fenced || !leave_is_needed(v->entry))
		return;
	if (!timer_is_running(&v->leave_timer))
		timer_start(v->set->reactor, &v->leave_timer, max_u64(v->leave_delay_ns, 1));
}

void leave_stop(struct volume *v)
{
	struct leave *l = v->leave;
	timer_stop(v->set->reactor, &v->leave_timer);
	move_stop(v);
	if (!l || l->stage == LEAVE_END || l->err != 0)
		return;
	l->is_stopping = true; /* what it waits for comes, and then it ends */
}

void leave_abandon(struct volume *v)
{
	struct leave *l = v->leave;
	timer_stop(v->set->reactor, &v->leave_timer);
	move_abandon(v);
	if (!l)
		return;
	if (l->update)
		record_update_abandon(&l->update->update);
	free(l->update);
	tree_batch_abandon(l->batch);
	placement_walk_abandon(&l->walk);
	timer_stop(v->set->reactor, &l->poll);
	free(l);
	v->leave = NULL;
}
