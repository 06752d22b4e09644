/*
 * vhost_connection.c: one client, from the moment it is accepted until nothing of it is left.
 *
 *   IDLE -> HEADER -> PAYLOAD -> DRAIN -> APPLY -> REPLY -> IDLE ...
 *      any stage -----------------------------------------> CLOSE -> freed
 *
 * In IDLE it may stay for as long as it likes; a message that has begun has a limit of time, since there are few places
 * at a door. The first byte is received alone, so that it is known to have come.
 *
 * DRAIN is for messages that change what requests in flight use (memory, a ring): no new requests are taken until those
 * in flight are completed, of this queue or of all, and with them those that were in flight when a former connection
 * was lost. So a ring that is stopped has nothing in flight, and memory that is taken away is used by nobody.
 *
 * A client that goes away leaves requests in flight. They are carried out, and completed in its memory and its area of
 * requests in flight, which we hold until then: a VMM that connects again finds there what was completed and what was
 * not. The next client's rings are served only after that.
 *
 * Invariants
 *  1. guest_run() is called at the end of a turn only, through the hook. So a connection is freed in one place.
 *  2. Freed only when no op is with the kernel and no request in flight.
 *  3. Descriptors of a message that nobody took are closed before the next one is received. A client whose descriptors
 *     are not closed at once has sent what no VMM sends: it gets its answer and is disconnected, and its door takes no
 *     new ones while many are held. So it cannot fill the table of descriptors, of which everybody has need.
 *
 * Owner: the reactor.
 */
#include "frontends/vhost-user/vhost_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* VMMs hand a message to the kernel in one call: a rest that does not come within this time never does. The machine may be
 * as busy as it likes, or stand still for a moment. */
#define MESSAGE_LIMIT_NS (10 * NS_PER_S)

static void guest_run(struct turn_hook *h);

void guest_to_text(const struct vhost_connection *c, char text[static VHOST_TEXT_BYTES])
{
	snprintf(text, VHOST_TEXT_BYTES, "vhost-user connection %llu to %s", (unsigned long long)c->number,
		 c->door->name);
}

/* ---- events ---- */

void guest_wake(struct vhost_connection *c)
{
	reactor_at_turn_end(c->door->server->reactor, &c->hook);
}

void guest_end(struct vhost_connection *c, const char *why)
{
	char text[VHOST_TEXT_BYTES];

	guest_wake(c);
	if (c->is_ending)
		return;
	c->is_ending = true;
	if (!why)
		return;
	c->has_failed = true;
	counter_add(&c->door->server->counters.failed, 1);
	guest_to_text(c, text);
	log_event(c->door->server->log, LOG_WARNING, "vhost-client-failed", c->door->name, "%s: disconnected: %s", text,
		  why);
}

/* More descriptors are held than before it had its way. */
static void guest_suspect(struct vhost_connection *c, uint32_t n_held_before)
{
	const struct vhost_server *s = c->door->server;

	if (s->takes_files || reactor_fds_held(s->reactor) <= n_held_before)
		return;
	c->is_suspect = c->door->is_suspect = true;
}

static void guest_received(struct op *op, int res)
{
	struct vhost_connection *c = container_of(op, struct vhost_connection, receive);

	c->is_receiving = false;
	c->is_received = res == 0;
	if (res != 0)
		guest_end(c, NULL); /* one that simply goes away is no news */
	guest_wake(c);
}

/* The one that runs is spared: its guest would lose its disk, and the place is its own in any case. */
static void guest_is_late(struct timer *t)
{
	struct vhost_connection *c = container_of(t, struct vhost_connection, late);

	if (c->door->runner == c)
		timer_start(c->door->server->reactor, &c->late, MESSAGE_LIMIT_NS);
	else
		guest_end(c, "it has sent the beginning of a message only");
}

static void guest_gap_ended(struct timer *t)
{
	struct vhost_connection *c = container_of(t, struct vhost_connection, gap);

	for (uint32_t i = 0; i < c->n_queues; i++)
		queue_gap_ended(&c->queues[i]);
}

static void guest_sent(struct op *op, int res)
{
	struct vhost_connection *c = container_of(op, struct vhost_connection, send);

	c->is_sending = false;
	c->is_sent = true;
	reactor_fds_close(c->door->server->reactor, &c->send_fds);
	if (res != 0)
		guest_end(c, NULL);
	guest_wake(c);
}

static void notice_sent(struct op *op, int res)
{
	struct vhost_connection *c = container_of(op, struct vhost_connection, notice);

	c->is_noticing = false;
	if (res != 0)
		log_line(c->door->server->log, LOG_WARNING, "vhost", "%s: its VMM could not be told of a change: %s",
			 c->door->name, strerror(-res));
	guest_wake(c);
}

void guest_notice(struct vhost_connection *c)
{
	if (!c->backend || !(c->protocol & VHOST_P_CONFIG))
		return;
	c->is_notice_due = true;
	guest_wake(c);
}

static void notice_send(struct vhost_connection *c)
{
	if (!c->is_notice_due || c->is_noticing || !c->backend || c->is_ending)
		return;
	c->is_notice_due = false;
	c->is_noticing = true;
	put_le32(c->notice_bytes, VHOST_BACKEND_CONFIG_CHANGE);
	put_le32(c->notice_bytes + 4, VHOST_VERSION);
	put_le32(c->notice_bytes + 8, 0);
	c->notice_iov = (struct iovec){c->notice_bytes, VHOST_HEADER_BYTES};
	stream_send(c->backend, &c->notice, &c->notice_iov, 1);
}

void guest_tell_waiting(struct vhost_connection *c)
{
	const struct vhost_connection *runner = c->door->runner;
	char text[VHOST_TEXT_BYTES], other[VHOST_TEXT_BYTES];

	/* a former connection of its own that comes to its end is no news */
	if (!runner || runner == c || runner->is_ending || c->is_told_to_wait)
		return;
	c->is_told_to_wait = true;
	guest_to_text(c, text);
	guest_to_text(runner, other);
	log_event(c->door->server->log, LOG_WARNING, "vhost-client-waits", c->door->name,
		  "%s: its guest waits: another VMM has the volume until it disconnects or has migrated its guest (%s)",
		  text, other);
}

void guest_set_running(struct vhost_connection *c, bool is_running)
{
	quarry_assert(!is_running || c->door->runner == c);
	for (uint32_t i = 0; i < c->n_queues; i++)
		queue_judge(&c->queues[i]);
}

/* ---- birth and end ---- */

/* Virtual machines come and go rarely, and whoever looks for what happened to one wants to know when. */
static void guest_tell(const struct vhost_connection *c, const char *code, const char *what)
{
	char text[VHOST_TEXT_BYTES];

	guest_to_text(c, text);
	log_event(c->door->server->log, LOG_INFO, code, c->door->name, "%s: %s", text, what);
}

int guest_create(struct vhost_door *d, struct stream *stream, struct vhost_connection **out)
{
	struct vhost_connection *c = calloc(1, sizeof(*c) + d->n_queues * sizeof(c->queues[0]));

	if (!c)
		return -ENOMEM;
	c->door = d;
	c->stream = stream;
	c->number = d->server->n_accepted;
	c->wce = true;
	c->n_queues = d->n_queues;
	list_init(&c->link);
	op_init(&c->receive, guest_received);
	op_init(&c->send, guest_sent);
	op_init(&c->notice, notice_sent);
	turn_hook_init(&c->hook, guest_run);
	timer_init(&c->late, guest_is_late);
	timer_init(&c->gap, guest_gap_ended);
	for (uint32_t i = 0; i < c->n_queues; i++)
		queue_init(&c->queues[i], c, i);
	guest_wake(c);
	guest_tell(c, "vhost-client-connected", "connected");
	*out = c;
	return 0;
}

static void guest_destroy(struct vhost_connection *c)
{
	struct reactor *r = c->door->server->reactor;
	uint32_t n_held = reactor_fds_held(r);

	quarry_assert(c->n_requests == 0 && !c->is_receiving && !c->is_sending && !c->is_noticing);
	quarry_assert(c->door->runner != c);
	timer_stop(r, &c->late);
	timer_stop(r, &c->gap);
	if (!c->has_failed) /* that was told already */
		guest_tell(c, "vhost-client-disconnected", "disconnected");
	reactor_fds_close(r, &c->fds);
	reactor_fds_close(r, &c->send_fds);
	for (uint32_t i = 0; i < c->n_queues; i++)
		queue_fini(&c->queues[i]);
	inflight_drop(c);
	memory_clear(&c->memory);
	if (c->memory.log)
		mapping_close(c->memory.log);
	if (c->backend)
		stream_close(c->backend);
	stream_close(c->stream);
	guest_suspect(c, n_held);
	vhost_door_connection_gone(c->door, c);
	free(c);
}

/* ---- stages ---- */

/* Asks for the bytes, once; FLOW_NEXT when they are there. Descriptors may come with any of them. */
static enum flow guest_receive(struct vhost_connection *c, uint8_t *to, uint32_t len_bytes)
{
	if (c->is_received || len_bytes == 0) {
		c->is_received = false;
		return FLOW_NEXT;
	}
	if (c->is_receiving)
		return FLOW_WAIT;
	c->is_receiving = true;
	c->receive_iov = (struct iovec){to, len_bytes};
	stream_recv_fds(c->stream, &c->receive, &c->receive_iov, 1, &c->fds);
	return FLOW_WAIT;
}

static void header_read(struct vhost_connection *c)
{
	c->kind = get_le32(c->header);
	c->flags = get_le32(c->header + 4);
	c->payload_bytes = get_le32(c->header + 8);
	memset(c->payload, 0, VHOST_ONE_REGION_BYTES + VHOST_CONFIG_HEAD_BYTES);
	if ((c->flags & VHOST_VERSION_MASK) != VHOST_VERSION || c->flags & VHOST_FLAG_REPLY ||
	    c->payload_bytes > VHOST_PAYLOAD_MAX)
		guest_end(c, "it does not speak vhost-user version 1");
}

static enum flow guest_drain(struct vhost_connection *c)
{
	bool is_drained = true;

	for (uint32_t i = 0; i < c->n_queues; i++) {
		if (!message_drains(c, &c->queues[i]))
			continue;
		c->is_paused = true;
		is_drained &= queue_is_drained(&c->queues[i]);
	}
	return is_drained ? FLOW_NEXT : FLOW_WAIT;
}

static void reply_finish(struct vhost_connection *c)
{
	put_le32(c->reply, c->kind);
	put_le32(c->reply + 4, VHOST_VERSION | VHOST_FLAG_REPLY);
	put_le32(c->reply + 8, c->reply_bytes);
}

/* What was not understood has to be answered, or the connection is of no use any more. */
static void guest_apply(struct vhost_connection *c)
{
	struct reactor *r = c->door->server->reactor;
	uint32_t n_held = reactor_fds_held(r);
	char why[96];
	int res = message_apply(c);
	bool has_ack = c->protocol & VHOST_P_REPLY_ACK && c->flags & VHOST_FLAG_NEED_ACK && !c->has_reply;

	reactor_fds_close(r, &c->fds);
	guest_suspect(c, n_held);
	c->is_paused = false;
	c->is_sent = false;
	if (has_ack) {
		c->has_reply = true;
		c->reply_bytes = 8;
		put_le64(c->reply + VHOST_HEADER_BYTES, res == 0 ? 0 : 1);
	} else if (res != 0) {
		snprintf(why, sizeof(why), "message %u was refused: %s", c->kind, strerror(-res));
		guest_end(c, why);
	}
	if (c->has_reply)
		reply_finish(c);
	for (uint32_t i = 0; i < c->n_queues; i++)
		queue_pump(&c->queues[i]);
}

static enum flow guest_reply(struct vhost_connection *c)
{
	if (!c->has_reply || c->is_sent)
		return FLOW_NEXT;
	if (c->is_sending)
		return FLOW_WAIT;
	c->is_sending = true;
	c->send_iov = (struct iovec){c->reply, VHOST_HEADER_BYTES + c->reply_bytes};
	stream_send_fds(c->stream, &c->send, &c->send_iov, 1, &c->send_fds);
	return FLOW_WAIT;
}

/* Everything in flight comes to its end; the rings are left as a VMM that comes again expects them. */
static enum flow guest_close(struct vhost_connection *c)
{
	stream_shutdown(c->stream);
	if (c->backend)
		stream_shutdown(c->backend);
	if (c->n_requests > 0 || c->is_receiving || c->is_sending || c->is_noticing)
		return FLOW_WAIT;
	for (uint32_t i = 0; i < c->n_queues; i++)
		queue_abandon(&c->queues[i]);
	if (c->door->runner == c)
		c->door->runner = NULL;
	return FLOW_NEXT;
}

/* ---- rings, at the end of a turn ---- */

static void guest_tend(struct vhost_connection *c)
{
	struct vhost_server *s = c->door->server;
	uint64_t now_ns = s->poll_ns > 0 ? reactor_now_ns(s->reactor) : 0;
	bool is_polled = false;

	for (uint32_t i = 0; i < c->n_queues; i++) {
		struct vhost_queue *q = &c->queues[i];
		if (!q->is_running)
			continue;
		queue_call(q);
		if (s->poll_ns > 0)
			is_polled |= queue_is_polled(q, now_ns);
		else if (queue_is_due(q))
			queue_pump(q);
	}
	if (is_polled)
		guest_wake(c);
	if (!c->is_ending && (memory_is_broken(&c->memory) || (c->inflight && c->inflight->is_broken)))
		guest_end(c, "memory that it had shared is gone");
	notice_send(c);
}

static void guest_check(const struct vhost_connection *c)
{
	quarry_assert(c->n_queues > 0 && c->n_queues <= VHOST_QUEUES_MAX);
	quarry_assert(c->stage != VHOST_CONNECTION_CLOSE || c->is_ending);
	quarry_assert(!(c->is_receiving && c->is_received));
	bool has_begun = c->stage == VHOST_CONNECTION_HEADER || c->stage == VHOST_CONNECTION_PAYLOAD;
	quarry_assert(has_begun == timer_is_running(&c->late) || c->is_ending);
}

/* Read this function to know the life of a connection. */
static void guest_run(struct turn_hook *h)
{
	struct vhost_connection *c = container_of(h, struct vhost_connection, hook);

	guest_tend(c);
	for (;;) {
		guest_check(c);
		if (c->is_ending)
			c->stage = VHOST_CONNECTION_CLOSE;
		switch (c->stage) {
		case VHOST_CONNECTION_IDLE:
			if (guest_receive(c, c->header, 1) == FLOW_WAIT)
				return;
			timer_start(c->door->server->reactor, &c->late, MESSAGE_LIMIT_NS);
			c->stage = VHOST_CONNECTION_HEADER;
			break;
		case VHOST_CONNECTION_HEADER:
			if (guest_receive(c, c->header + 1, VHOST_HEADER_BYTES - 1) == FLOW_WAIT)
				return;
			header_read(c);
			c->stage = VHOST_CONNECTION_PAYLOAD;
			break;
		case VHOST_CONNECTION_PAYLOAD:
			if (guest_receive(c, c->payload, c->payload_bytes) == FLOW_WAIT)
				return;
			timer_stop(c->door->server->reactor, &c->late);
			c->has_spoken = true;
			c->stage = VHOST_CONNECTION_DRAIN;
			break;
		case VHOST_CONNECTION_DRAIN:
			if (guest_drain(c) == FLOW_WAIT)
				return;
			c->stage = VHOST_CONNECTION_APPLY;
			break;
		case VHOST_CONNECTION_APPLY:
			guest_apply(c);
			c->stage = VHOST_CONNECTION_REPLY;
			break;
		case VHOST_CONNECTION_REPLY:
			if (guest_reply(c) == FLOW_WAIT)
				return;
			c->stage = VHOST_CONNECTION_IDLE;
			if (c->is_suspect)
				guest_end(c, "it has sent descriptors that do not close at once");
			break;
		case VHOST_CONNECTION_CLOSE:
			if (guest_close(c) == FLOW_WAIT || list_is_linked(&c->hook.link))
				return;
			guest_destroy(c);
			return;
		}
	}
}
