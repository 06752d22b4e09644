/*
 * vhost_queue.c: one ring: when it is served, and how requests come out of it and calls go back.
 *
 *   set up by messages --kick given--> started --its connection may run, it is not disabled--> running --> stopped
 *
 * A ring is served from its kick on, unless it is disabled on demand: VMMs older than QEMU 7.2 never enable the rings
 * of a block device.
 *
 * Invariants
 *  1. While it is looked at, the guest is asked for no kicks; before we cease to look it is asked for them again and the
 *     ring looked at once more. So nothing is ever left in it unseen.
 *  2. At most one call a turn, at its end.
 *  3. A ring that is running and not broken has its three parts in the guest's memory; when memory changes, they are
 *     looked up anew.
 *  4. A broken ring is served no more; its guest is told by the err event and, once, the log. If it lacks memory, its own
 *     or that of a request, it goes on when memory comes: a VMM whose region grows takes it away and brings a larger one
 *     (QEMU with CONFIGURE_MEM_SLOTS), while the guest runs. That is nobody's fault, so it is told only when it lasts.
 */
#include "frontends/vhost-user/vhost_internal.h"

#include <errno.h>
#include <stdio.h>

void queue_init(struct vhost_queue *q, struct vhost_connection *c, uint32_t index)
{
	*q = (struct vhost_queue){.connection = c, .index = index};
	q->ring.memory = &c->memory;
	list_init(&q->requests);
	list_init(&q->starving);
}

static void event_end(struct event **e)
{
	if (*e)
		event_close(*e);
	*e = NULL;
}

void queue_fini(struct vhost_queue *q)
{
	quarry_assert(q->n_requests == 0);
	list_remove(&q->starving);
	event_end(&q->kick);
	event_end(&q->call);
	event_end(&q->err);
}

/* ---- where it is ---- */

static uint8_t *part_locate(const struct vhost_queue *q, uint64_t user, uint64_t len_bytes, uint64_t alignment)
{
	uint8_t *at = memory_at_user(&q->connection->memory, user, len_bytes);

	return (uintptr_t)at % alignment == 0 ? at : NULL;
}

static int queue_locate(struct vhost_queue *q)
{
	struct vring *v = &q->ring;
	struct vring_layout l = vring_layout(v->size, v->is_packed);

	if (!q->has_addresses || v->size == 0)
		return -EFAULT;
	v->desc = part_locate(q, q->desc_user, l.desc_bytes, 16);
	v->avail = part_locate(q, q->avail_user, l.avail_bytes, 2);
	v->used = part_locate(q, q->used_user, l.used_bytes, 4);
	return v->desc && v->avail && v->used ? 0 : -EFAULT;
}

static void queue_broke(struct vhost_queue *q)
{
	struct vhost_server *s = q->connection->door->server;
	char text[VHOST_TEXT_BYTES];

	q->is_untold = q->ring.is_lacking && timer_is_running(&q->connection->gap);
	if (q->is_untold)
		return;
	counter_add(&s->counters.broken_rings, 1);
	guest_to_text(q->connection, text);
	log_event(s->log, LOG_WARNING, "vhost-ring-broken", q->connection->door->name,
		  "%s: queue %u is served no more: %s", text, q->index, q->ring.why ? q->ring.why : "?");
	if (q->err)
		event_signal(q->err);
}

void queue_gap_ended(struct vhost_queue *q)
{
	if (!q->is_untold)
		return;
	quarry_assert(q->ring.is_broken && q->ring.is_lacking);
	queue_broke(q);
}

/* Without its parts it is broken, if it was not before. 0 or -EFAULT. */
static int queue_place(struct vhost_queue *q)
{
	bool was_broken = q->ring.is_broken;
	int res = queue_locate(q);

	if (res == 0)
		return 0;
	vring_lack(&q->ring, "the ring lies outside of the guest's memory");
	if (!was_broken)
		queue_broke(q);
	return res;
}

static void queue_mend(struct vhost_queue *q)
{
	char text[VHOST_TEXT_BYTES];

	vring_mend(&q->ring);
	if (q->is_untold) {
		q->is_untold = false;
		return;
	}
	guest_to_text(q->connection, text);
	log_line(q->connection->door->server->log, LOG_INFO, "vhost",
		 "%s: queue %u may be served again: memory has come", text, q->index);
}

void queue_relocate(struct vhost_queue *q)
{
	struct vring *v = &q->ring;

	if (v->is_broken && !v->is_lacking)
		return;
	if (!q->is_running)
		queue_judge(q);
	else if (queue_place(q) == 0 && v->is_broken)
		queue_mend(q);
}

/* ---- start and stop ---- */

static void queue_start(struct vhost_queue *q)
{
	struct vhost_connection *c = q->connection;
	struct vring *v = &q->ring;
	bool is_new;

	quarry_assert(q->n_requests == 0);
	v->is_packed = c->features & VIRTIO_F_RING_PACKED; /* as long as it runs, whatever is agreed on meanwhile */
	if (queue_place(q) != 0)
		return;
	q->is_running = true;
	q->is_untold = false;
	v->has_event_idx = c->features & VIRTIO_F_EVENT_IDX;
	v->has_indirect = c->features & VIRTIO_F_INDIRECT_DESC;
	v->inflight = inflight_of(c, q->index, v->size, v->is_packed, &is_new);
	vring_start(v, q->base, is_new);
	if (v->is_broken) {
		queue_broke(q);
		return;
	}
	counter_add(&c->door->server->counters.resumed, v->n_resume);
	queue_completed(q); /* a call that the guest may have missed */
	queue_pump(q);
}

void queue_judge(struct vhost_queue *q)
{
	struct vhost_connection *c = q->connection;
	bool may_run = q->is_started && !q->is_disabled && c->door->runner == c && !c->is_ending;

	if (may_run && !q->is_running)
		queue_start(q);
	else if (!may_run && q->is_running && q->n_requests == 0)
		queue_stop(q);
}

/* Nothing is in flight; the record stays as it is. */
static void queue_halt(struct vhost_queue *q)
{
	quarry_assert(q->n_requests == 0);
	queue_call(q);
	list_remove(&q->starving);
	q->is_running = q->is_starved = q->ring.is_broken = q->is_untold = false;
	q->ring.inflight = NULL;
}

void queue_stop(struct vhost_queue *q)
{
	if (q->is_running) {
		q->base = vring_base(&q->ring);
		vring_stop(&q->ring);
	}
	queue_halt(q);
}

void queue_abandon(struct vhost_queue *q)
{
	queue_halt(q);
	q->is_started = false;
}

/* ---- taking ---- */

/* While a message waits, only what was in flight before: for that it waits too. */
static bool queue_takes(const struct vhost_queue *q)
{
	const struct vhost_connection *c = q->connection;

	return q->is_running && !q->ring.is_broken && !c->is_ending && q->is_started && !q->is_disabled &&
	       (!c->is_paused || vring_is_resuming(&q->ring));
}

bool queue_is_drained(const struct vhost_queue *q)
{
	return q->n_requests == 0 && !(q->is_running && vring_is_resuming(&q->ring));
}

/* What has been taken in this turn. */
struct taken {
	uint32_t n_requests;
	uint64_t copied_bytes; /* that the guest writes */
};

static bool queue_has_taken_enough(const struct taken *t)
{
	return t->n_requests >= VHOST_TAKE_MAX || t->copied_bytes >= VHOST_TAKE_BYTES_MAX;
}

/* True: a request was taken. */
static bool queue_take(struct vhost_queue *q, struct taken *t)
{
	struct vhost_server *s = q->connection->door->server;
	struct vhost_request *r = vhost_take_request(s);

	if (!r) {
		vhost_starve(s, q);
		return false;
	}
	int res = vring_next(&q->ring, &r->chain);
	if (res == 1) {
		t->n_requests++;
		t->copied_bytes += r->chain.readable_bytes;
		blk_begin(r, q);
		return true;
	}
	vhost_give_request(s, r);
	if (res < 0)
		queue_broke(q);
	return false;
}

static void queue_set_kicks(struct vhost_queue *q, bool wanted)
{
	q->is_silenced = !wanted;
	vring_set_kicks(&q->ring, wanted);
}

void queue_pump(struct vhost_queue *q)
{
	struct taken taken = {0};

	if (!queue_takes(q) || q->is_starved)
		return;
	queue_set_kicks(q, false);
	for (;;) {
		while (!queue_has_taken_enough(&taken) && queue_takes(q) && queue_take(q, &taken))
			;
		if (q->is_starved || !queue_takes(q))
			return;
		if (queue_has_taken_enough(&taken)) {
			guest_wake(q->connection); /* goes on in the next turn */
			break;
		}
		if (q->connection->door->server->poll_ns > 0) {
			guest_wake(q->connection); /* looked at again anyhow; kicks are asked for when that ends */
			break;
		}
		queue_set_kicks(q, true);
		if (!vring_has_more(&q->ring))
			break;
		queue_set_kicks(q, false);
	}
	if (taken.n_requests > 0 && q->connection->door->server->poll_ns > 0)
		q->busy_until_ns =
		    reactor_now_ns(q->connection->door->server->reactor) + q->connection->door->server->poll_ns;
}

/* Invariant 1: one that is silenced is looked at although nothing may be in it. */
bool queue_is_due(const struct vhost_queue *q)
{
	return q->is_silenced || vring_has_more(&q->ring);
}

/* ---- polling, if it was configured ---- */

bool queue_is_polled(struct vhost_queue *q, uint64_t now_ns)
{
	if (!queue_takes(q) || q->is_starved)
		return false;
	if (vring_has_more(&q->ring)) {
		queue_pump(q);
		return queue_takes(q);
	}
	if (now_ns < q->busy_until_ns)
		return true;
	queue_set_kicks(q, true);
	if (!vring_has_more(&q->ring))
		return false;
	queue_pump(q);
	return true;
}

/* ---- calling ---- */

void queue_completed(struct vhost_queue *q)
{
	q->is_call_due = true;
	guest_wake(q->connection);
}

void queue_call(struct vhost_queue *q)
{
	if (!q->is_call_due || !q->is_running || q->ring.is_broken)
		return;
	if (!q->call) {
		q->ring.is_call_due = true; /* there is nobody to be called yet */
		return;
	}
	q->is_call_due = false;
	if (!vring_wants_call(&q->ring))
		return;
	counter_add(&q->connection->door->server->counters.calls, 1);
	event_signal(q->call);
}
