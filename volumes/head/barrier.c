/*
 * barrier.c: closes a volume's epoch, at most once a second under writes (a single copy: once in five), and when attach
 * or detach ask for it.
 *
 *   REST -> RESERVE -> CLAIM -> CLOSE -> DRAIN -> FORK -> FLUSH -> COMPLETE -> SETTLE -> END -> REST
 *                                                   +---- on error ---------------^
 *   RESERVE   takes a new range of epochs from the record when the old one is used up [EPRANGE]
 *   CLAIM     only with a rider: waits for its word, so that several volumes close their epochs at one instant
 *   CLOSE     from here on, writes take e + 1; with a rider they are held back [SNAPHOLD]
 *   DRAIN     those of e finish
 *   FORK      only with a rider: it forks the trees; then held writes go on
 *   FLUSH     on every disk with writes
 *   COMPLETE  every disk of the volume remembers e, or none is told [VOLBAR]
 *   SETTLE    only with a rider that has not recorded yet what it did: until then no disk is joined [PLACEBAR]
 *
 * Invariants
 *  1. Writes of at most two epochs are in flight: the one being closed and the next. in_flight[] counts them by parity.
 *  2. COMPLETE(e) is sent only when every write of epochs <= e is durable on every disk of the volume; while one of
 *     them cannot be reached, no epoch becomes complete.
 *  3. No barrier runs while a placer joins a disk, and none of its joins begins while a barrier runs [PLACEBAR].
 *  4. Without writes the timer does not run: an idle volume costs nothing.
 *  5. A rider is called when CLAIM and FORK are reached, on a later turn or inside its own call, and each ends by its
 *     word alone; SETTLE with an error tells it that the barrier never came so far.
 *
 * Owner: the volume.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdlib.h>

static struct volume *volume_of(struct barrier *b)
{
	return container_of(b, struct volume, barrier);
}

/* What must hold whenever the dispatcher is entered. */
static void barrier_check(const struct volume *v)
{
	const struct barrier *b = &v->barrier;
	quarry_assert(b->stage <= BARRIER_RESERVE || v->epoch >= b->epoch);
	quarry_assert(b->stage < BARRIER_FLUSH || b->err != 0 || v->in_flight[b->epoch & 1] == 0);
}

/* ---- RESERVE ---- */

static int barrier_change(struct record_update *u, struct volume_facts *facts)
{
	if (facts->epoch_base > EPOCH_MAX - 2 * EPOCHS_PER_ATTACH)
		return -EOVERFLOW;
	facts->epoch_base += EPOCHS_PER_ATTACH;
	return 0;
}

static void barrier_reserved(struct record_update *u, int res)
{
	struct volume *v = container_of(u, struct barrier_update, update)->volume;
	struct barrier *b = &v->barrier;
	quarry_assert(b->stage == BARRIER_RESERVE && &b->update->update == u);
	free(b->update);
	b->update = NULL;
	b->err = res;
	if (res == -ESTALE || res == -ENOENT)
		volume_fence(v, "another head has attached it");
	if (res == 0) /* ranges follow each other: the new one begins where the old one ends */
		v->epoch_end = v->entry->facts.epoch_base + EPOCHS_PER_ATTACH;
	barrier_run(v);
}

static enum flow barrier_reserve(struct volume *v)
{
	struct barrier *b = &v->barrier;
	timer_stop(v->set->reactor, &b->timer);
	if (b->err != 0 || v->epoch + 1 < v->epoch_end)
		return FLOW_NEXT;
	b->update = calloc(1, sizeof(*b->update));
	if (!b->update) {
		b->err = -ENOMEM;
		return FLOW_NEXT;
	}
	b->update->volume = v;
	b->update->update.generation = v->generation;
	b->update->update.change = barrier_change;
	b->update->update.done = barrier_reserved;
	record_update_start(&b->update->update, v->entry);
	return FLOW_WAIT;
}

/* ---- the other stages' work ---- */

static void barrier_close(struct volume *v)
{
	quarry_assert(v->in_flight[(v->epoch + 1) & 1] == 0);
	v->is_held = v->barrier.rider != NULL;
	v->barrier.epoch = v->epoch++;
	v->has_written = false;
	quarry_assert(v->epoch < v->epoch_end);
}

static void barrier_io_done(struct volume_io *io, int res)
{
	struct volume *v = io->own.volume;
	quarry_assert(v->barrier.is_waiting);
	v->barrier.is_waiting = false;
	if (v->barrier.err == 0)
		v->barrier.err = res;
	barrier_run(v);
}

static void barrier_io(struct volume *v)
{
	struct volume_io *io = &v->barrier.io;
	io->op = VOLUME_FLUSH;
	io->flags = 0;
	io->pos_bytes = io->len_bytes = 0;
	io->done = barrier_io_done;
}

static void barrier_flush(struct volume *v)
{
	v->barrier.is_waiting = true;
	barrier_io(v);
	volume_submit_internal(v, &v->barrier.io);
}

/* Is every disk that the volume uses there to be told? */
static bool barrier_reaches_all(const struct volume *v)
{
	bool reaches_all = !v->is_fenced;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (v->disks[i].state == VOLUME_DISK_LOST ||
		    (v->disks[i].state == VOLUME_DISK_JOINED && !volume_disk_is_good(v, i)))
			reaches_all = false;
	return reaches_all;
}

/* Writes that were held go on, in the epoch that has begun. */
static void barrier_let_go(struct volume *v)
{
	struct list held;
	list_init(&held);
	v->is_held = false;
	list_splice(&held, &v->held);
	for (struct list *node; (node = list_pop(&held)) != NULL;)
		part_release(container_of(node, struct part, link));
}

static void barrier_tell(struct barrier *b)
{
	b->is_told = true;
	b->rider->reached(b->rider);
}

/* The next stage, with a rider, who is to be told of it, and without one. */
static void barrier_goto(struct barrier *b, enum barrier_stage with_rider, enum barrier_stage without)
{
	b->is_told = false;
	b->stage = b->rider ? with_rider : without;
}

static void barrier_timer_start(struct volume *v)
{
	timer_start(v->set->reactor, &v->barrier.timer, volume_is_replicated(v) ? BARRIER_NS : BARRIER_ALONE_NS);
}

static void barrier_end(struct volume *v)
{
	struct barrier *b = &v->barrier;
	void (*ended)(struct volume * v, int res) = b->ended;
	int err = b->err; /* the next one may have begun when it is told */
	b->ended = NULL;
	b->stage = BARRIER_REST;
	if (v->has_written)
		barrier_timer_start(v);
	if ((b->is_wanted || !list_is_empty(&b->riders)) &&
	    b->op.kind == OP_NONE) /* asked for while this one was under way */
		reactor_defer(v->set->reactor, &b->op, 0);
	placer_run(v);
	resync_barrier_ended(v);
	if (ended)
		ended(v, err);
}

static bool barrier_may_take_rider(const struct volume *v)
{
	return !list_is_empty(&v->barrier.riders) && !resync_is_switching(v) && !move_is_switching(v);
}

static struct barrier_rider *barrier_next_rider(struct volume *v)
{
	if (!barrier_may_take_rider(v))
		return NULL;
	return container_of(list_pop(&v->barrier.riders), struct barrier_rider, link);
}

/* ---- the dispatcher ---- */

void barrier_run(struct volume *v)
{
	struct barrier *b = &v->barrier;
	for (;;) {
		barrier_check(v);
		switch (b->stage) {
		case BARRIER_REST:
			if ((!b->is_wanted && !barrier_may_take_rider(v)) || v->placer.is_joining || move_is_naming(v))
				return;
			b->is_wanted = false;
			b->rider = barrier_next_rider(v);
			b->is_forked = false;
			b->ended = b->wanted;
			b->wanted = NULL;
			b->err = 0;
			b->stage = BARRIER_RESERVE;
			if (barrier_reserve(v) == FLOW_WAIT)
				return;
			break;
		case BARRIER_RESERVE:
			if (b->update)
				return;
			if (b->err != 0)
				barrier_goto(b, BARRIER_SETTLE, BARRIER_END);
			else
				barrier_goto(b, BARRIER_CLAIM, BARRIER_CLOSE);
			break;
		case BARRIER_CLAIM:
		case BARRIER_FORK:
		case BARRIER_SETTLE: /* the rider's word ends these */
			if (!b->is_told && (b->stage != BARRIER_SETTLE || !b->is_forked))
				barrier_tell(b); /* and may have gone on with the barrier */
			return;
		case BARRIER_CLOSE:
			barrier_close(v);
			b->stage = BARRIER_DRAIN;
			break;
		case BARRIER_DRAIN:
			if (v->in_flight[b->epoch & 1] > 0)
				return;
			barrier_goto(b, BARRIER_FORK, BARRIER_FLUSH);
			if (b->stage == BARRIER_FORK)
				break;
			barrier_flush(v);
			return;
		case BARRIER_FLUSH:
			if (b->is_waiting)
				return;
			barrier_goto(b, BARRIER_SETTLE, BARRIER_END);
			if (b->err != 0 || !barrier_reaches_all(v))
				break;
			b->stage = BARRIER_COMPLETE;
			b->is_waiting = true;
			barrier_io(v);
			volume_submit_complete(v, &b->io, b->epoch);
			return;
		case BARRIER_COMPLETE:
			if (b->is_waiting)
				return;
			if (b->err == 0)
				v->complete_epoch = b->epoch;
			barrier_goto(b, BARRIER_SETTLE, BARRIER_END);
			break;
		case BARRIER_END:
			barrier_end(v); /* the volume may be gone */
			return;
		}
	}
}

/* ---- who asks for one ---- */

static void barrier_timer_fired(struct timer *t)
{
	struct barrier *b = container_of(t, struct barrier, timer);
	b->is_wanted = true;
	barrier_run(volume_of(b));
}

static void barrier_turn(struct op *op, int res)
{
	barrier_run(volume_of(container_of(op, struct barrier, op)));
}

void barrier_note_write(struct volume *v)
{
	struct barrier *b = &v->barrier;
	if (v->has_written)
		return;
	v->has_written = true;
	if (b->stage == BARRIER_REST && !timer_is_running(&b->timer))
		barrier_timer_start(v);
}

void barrier_now(struct volume *v, void (*ended)(struct volume *v, int res))
{
	struct barrier *b = &v->barrier;
	quarry_assert(ended && !b->wanted);
	b->wanted = ended;
	b->is_wanted = true;
	if (b->op.kind == OP_NONE)
		reactor_defer(v->set->reactor, &b->op, 0);
}

void barrier_want(struct volume *v)
{
	struct barrier *b = &v->barrier;
	b->is_wanted = true;
	if (b->op.kind == OP_NONE)
		reactor_defer(v->set->reactor, &b->op, 0);
}

/* ---- riders ---- */

void barrier_claim(struct volume *v, struct barrier_rider *rider)
{
	struct barrier *b = &v->barrier;
	quarry_assert(rider->reached && rider != b->rider);
	list_append(&b->riders, &rider->link);
	if (b->op.kind == OP_NONE)
		reactor_defer(v->set->reactor, &b->op, 0);
}

void barrier_close_claimed(struct volume *v)
{
	quarry_assert(v->barrier.stage == BARRIER_CLAIM && v->barrier.rider);
	v->barrier.stage = BARRIER_CLOSE;
	barrier_run(v);
}

void barrier_forked(struct volume *v, int err)
{
	struct barrier *b = &v->barrier;
	quarry_assert(b->stage == BARRIER_FORK && v->is_held);
	barrier_let_go(v);
	b->is_forked = true;
	b->err = err;
	b->stage = BARRIER_FLUSH;
	barrier_flush(v);
}

void barrier_release(struct volume *v)
{
	struct barrier *b = &v->barrier;
	quarry_assert(b->rider && b->stage != BARRIER_FORK && !v->is_held);
	b->rider = NULL;
	if (b->stage != BARRIER_CLAIM && b->stage != BARRIER_SETTLE)
		return; /* it ends by itself */
	b->stage = BARRIER_END;
	barrier_run(v);
}

bool barrier_is_resting(const struct volume *v)
{
	return v->barrier.stage == BARRIER_REST;
}

void barrier_init(struct volume *v)
{
	struct barrier *b = &v->barrier;
	list_init(&b->riders);
	timer_init(&b->timer, barrier_timer_fired);
	op_init(&b->op, barrier_turn);
}

void barrier_abandon(struct volume *v)
{
	struct barrier *b = &v->barrier;
	if (b->update)
		record_update_abandon(&b->update->update);
	free(b->update);
	b->update = NULL;
	timer_stop(v->set->reactor, &b->timer);
}
