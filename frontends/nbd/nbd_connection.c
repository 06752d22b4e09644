/*
 * nbd_connection.c: one client, from the moment it is accepted until nothing of it is left.
 *
 *   NEGOTIATE <-> SECURE
 *       |
 *   TRANSMIT --> FINISH --> GOODBYE --> CLOSE --> freed
 *       any stage -----------------------^
 *
 * FINISH lets what is in flight come to its end: after the client's DISC or end of stream, and when the volume is
 * detached or the server stops. CLOSE cuts the stream and waits for what the kernel and the volume still hold.
 *
 * Invariants
 *  1. connection_run() is called at the end of a turn only, through the hook; events note what happened and set the
 *     hook. So a connection is freed in one place, and nobody above it on the stack still uses it.
 *  2. The handshake's timer runs in NEGOTIATE and SECURE, the grace's in FINISH and GOODBYE, none in TRANSMIT: a
 *     client may be silent for as long as it likes, if it holds nothing that others wait for (see the watchdog of
 *     nbd_server.c).
 *  3. The volume is referenced and watched from the agreement on an export until the connection is freed.
 *  4. Freed only when the wire is idle, no request is left, and the hook is not set.
 */
#include "frontends/nbd/nbd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static void connection_run(struct turn_hook *h);

/* ---- events ---- */

void connection_wake(struct nbd_connection *c)
{
	reactor_at_turn_end(c->server->reactor, &c->hook);
}

void connection_finish(struct nbd_connection *c)
{
	c->is_ending = true;
	connection_wake(c);
}

void connection_close(struct nbd_connection *c, const char *why)
{
	char text[CONNECTION_TEXT_BYTES];

	connection_wake(c);
	if (c->is_cut)
		return;
	c->is_cut = true;
	if (!why)
		return;
	connection_to_text(c, text);
	log_line(c->server->log, LOG_NOTICE, "nbd", "%s: disconnected: %s", text, why);
}

static void connection_failed(struct nbd_connection *c, int error)
{
	char why[96];

	/* a client that simply goes away is no news */
	if (error == -ECONNRESET || error == -EPIPE || error == -ECANCELED || error == -ESHUTDOWN) {
		connection_close(c, NULL);
		return;
	}
	snprintf(why, sizeof(why), "%s", error == -EPROTO && c->wire.tls ? tls_why(c->wire.tls) : strerror(-error));
	connection_close(c, why);
}

static void connection_received(struct wire *w, int res)
{
	struct nbd_connection *c = container_of(w, struct nbd_connection, wire);

	connection_wake(c);
	c->gives.moved_bytes += res > 0 ? (uint64_t)res : 0;
	if (res < 0) {
		connection_failed(c, res);
	} else if (res == 0) {
		connection_finish(c);
	} else {
		transmission_received(c, (uint32_t)res);
		/* not left to the end of the turn: there the volume gathers what was submitted in it */
		if (c->stage == CONNECTION_TRANSMIT)
			transmission_receive(c);
	}
}

static void connection_sent(struct wire *w, int res)
{
	struct nbd_connection *c = container_of(w, struct nbd_connection, wire);

	connection_wake(c);
	c->takes.moved_bytes += c->sending_bytes;
	c->sending_bytes = 0;
	if (res < 0)
		connection_failed(c, res);
	if (c->stage == CONNECTION_SECURE && res == 0)
		counter_add(&c->server->counters.tls_handshakes, 1);
	transmission_sent(c);
}

static void connection_timed_out(struct timer *t)
{
	struct nbd_connection *c = container_of(t, struct nbd_connection, timer);
	bool is_handshake = c->stage == CONNECTION_NEGOTIATE || c->stage == CONNECTION_SECURE;

	connection_close(c,
			 is_handshake ? "no export was agreed on in time" : "the last replies were not taken in time");
}

static void connection_event(struct volume_watch *w, enum volume_event e)
{
	struct nbd_connection *c = container_of(w, struct nbd_connection, watch);

	quarry_assert(c->volume != NULL);
	switch (e) {
	case VOLUME_RESIZED: /* clients see it when they connect again; requests are judged by the new size at once */
		c->terms.size_bytes = volume_size_bytes(c->volume);
		break;
	case VOLUME_RENAMED: /* the export's name was agreed on and stays */
	case VOLUME_VHOST_DETACHED:
		break;
	case VOLUME_NBD_DETACHED:
	case VOLUME_DETACHING:
		connection_finish(c);
		break;
	}
}

/* ---- birth and end ---- */

int connection_create(struct nbd_server *s, struct stream *stream, struct nbd_connection **out)
{
	struct nbd_connection *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->intake = malloc(INTAKE_BYTES);
	if (!c->intake) {
		free(c);
		return -ENOMEM;
	}
	c->server = s;
	c->number = s->n_accepted;
	c->accepted_ns = c->now_ns = reactor_now_ns(s->reactor);
	c->watch.event = connection_event;
	list_init(&c->watch.link);
	list_init(&c->link);
	list_init(&c->starving);
	list_init(&c->requests);
	list_init(&c->queue);
	list_init(&c->sending);
	timer_init(&c->timer, connection_timed_out);
	turn_hook_init(&c->hook, connection_run);
	wire_init(&c->wire, s->reactor, stream, connection_received, connection_sent);
	timer_start(s->reactor, &c->timer, NBD_HANDSHAKE_S * NS_PER_S);
	connection_wake(c);
	*out = c;
	return 0;
}

void connection_free(struct nbd_connection *c)
{
	free(c->intake);
	free(c);
}

/* A line and no event: tools that look at an export every few seconds would push what matters out of the events. */
static void leave_tell(const struct nbd_connection *c)
{
	char text[CONNECTION_TEXT_BYTES];

	connection_to_text(c, text);
	log_line(c->server->log, LOG_INFO, "nbd", "%s: gone after %llu requests, %llu bytes read, %llu written", text,
		 (unsigned long long)c->n_served, (unsigned long long)c->read_bytes,
		 (unsigned long long)c->write_bytes);
}

static void connection_destroy(struct nbd_connection *c)
{
	struct nbd_server *s = c->server;

	quarry_assert(c->n_requests == 0 && c->held_bytes == 0);
	quarry_assert(!list_is_linked(&c->hook.link) && !list_is_linked(&c->starving));
	quarry_assert(list_is_empty(&c->queue) && list_is_empty(&c->sending));
	timer_stop(s->reactor, &c->timer);
	if (c->volume) {
		leave_tell(c);
		while (c->n_bases > 0)
			volume_base_close(c->bases[--c->n_bases]);
		volume_watch_stop(c->volume, &c->watch);
		volume_put(c->volume);
	}
	wire_fini(&c->wire);
	server_connection_gone(s, c);
	connection_free(c);
}

/* ---- stages ---- */

static bool is_before_transmission(const struct nbd_connection *c)
{
	return c->stage == CONNECTION_NEGOTIATE || c->stage == CONNECTION_SECURE;
}

static enum nbd_connection_stage stage_after_talk(const struct nbd_connection *c)
{
	switch (c->talk.verdict) {
	case VERDICT_SECURE:
		return CONNECTION_SECURE;
	case VERDICT_TRANSMIT:
		return CONNECTION_TRANSMIT;
	case VERDICT_ON:
	case VERDICT_MORE:
	case VERDICT_END:
		break;
	}
	return CONNECTION_GOODBYE;
}

static void enter_transmit(struct nbd_connection *c)
{
	char text[CONNECTION_TEXT_BYTES];

	quarry_assert(c->volume != NULL);
	timer_stop(c->server->reactor, &c->timer);
	connection_to_text(c, text);
	log_line(c->server->log, LOG_INFO, "nbd", "%s: connected%s", text, c->wire.tls ? " under TLS" : "");
}

static void enter_ending(struct nbd_connection *c)
{
	list_remove(&c->starving);
	timer_start(c->server->reactor, &c->timer, GRACE_NS);
}

static void enter_close(struct nbd_connection *c)
{
	if (is_before_transmission(c) && !c->server->is_stopping)
		counter_add(&c->server->counters.handshakes_failed, 1);
	c->is_cut = true;
	list_remove(&c->starving);
	timer_stop(c->server->reactor, &c->timer);
	wire_shutdown(&c->wire);
	server_connection_closing(c->server);
}

/* The handshake: begun on the first call, ended by connection_sent(). */
static enum flow connection_secure(struct nbd_connection *c)
{
	if (c->wire.is_sending)
		return FLOW_WAIT;
	if (c->wire.tls)
		return FLOW_NEXT;
	int res = wire_secure(&c->wire, c->server->credentials, TLS_SERVER);
	if (res != 0)
		connection_failed(c, res);
	return FLOW_WAIT;
}

/* Everything that was asked for is answered and sent; what has not arrived does not count. */
static enum flow connection_settle(struct nbd_connection *c)
{
	if (c->arriving && !c->wire.is_receiving)
		request_cut(c->arriving);
	transmission_send(c);
	if (c->wire.is_sending)
		return FLOW_WAIT;
	return c->n_requests > (c->arriving ? 1u : 0u) ? FLOW_WAIT : FLOW_NEXT;
}

static enum flow connection_goodbye(struct nbd_connection *c)
{
	if (c->wire.is_sending)
		return FLOW_WAIT;
	if (c->is_goodbye_said)
		return FLOW_NEXT;
	c->is_goodbye_said = true;
	return wire_goodbye(&c->wire) ? FLOW_WAIT : FLOW_NEXT;
}

/* Nobody will read the rest. */
static enum flow connection_drain(struct nbd_connection *c)
{
	list_each (node, &c->requests) {
		struct nbd_request *r = container_of(node, struct nbd_request, link);
		if (r != c->arriving)
			request_cut(r);
	}
	if (c->arriving && !c->wire.is_receiving)
		request_cut(c->arriving);
	transmission_drop(c);
	return wire_is_busy(&c->wire) || c->n_requests > 0 ? FLOW_WAIT : FLOW_NEXT;
}

static void connection_check(const struct nbd_connection *c)
{
	quarry_assert(c->intake_start <= c->intake_end && c->intake_end <= INTAKE_BYTES);
	quarry_assert(c->stage != CONNECTION_TRANSMIT || c->volume != NULL);
	quarry_assert(!is_before_transmission(c) || (c->n_requests == 0 && list_is_empty(&c->queue)));
	quarry_assert(list_is_empty(&c->sending) || c->wire.is_sending);
	quarry_assert(c->stage == CONNECTION_TRANSMIT || !list_is_linked(&c->starving) || c->is_ending || c->is_cut);
	if (c->stage == CONNECTION_GOODBYE)
		quarry_assert(c->n_requests <= (c->arriving ? 1u : 0u));
}

/* An end that was asked for comes before anything else. */
static void connection_heed(struct nbd_connection *c)
{
	if (c->stage == CONNECTION_CLOSE)
		return;
	if (c->is_cut || (c->is_ending && is_before_transmission(c))) {
		enter_close(c);
		c->stage = CONNECTION_CLOSE;
	} else if (c->is_ending && c->stage == CONNECTION_TRANSMIT) {
		enter_ending(c);
		c->stage = CONNECTION_FINISH;
	}
}

/* Read this function to know the life of a connection. */
static void connection_run(struct turn_hook *h)
{
	struct nbd_connection *c = container_of(h, struct nbd_connection, hook);

	for (;;) {
		connection_heed(c);
		connection_check(c);
		switch (c->stage) {
		case CONNECTION_NEGOTIATE:
			if (negotiation_run(c) == FLOW_WAIT)
				return;
			c->stage = stage_after_talk(c);
			if (c->stage == CONNECTION_TRANSMIT)
				enter_transmit(c);
			break;
		case CONNECTION_SECURE:
			if (connection_secure(c) == FLOW_WAIT)
				return;
			negotiation_restart(c);
			c->stage = CONNECTION_NEGOTIATE;
			break;
		case CONNECTION_TRANSMIT:
			transmission_receive(c);
			transmission_send(c);
			if (!c->is_ending && !c->is_cut)
				return;
			break;
		case CONNECTION_FINISH:
			if (connection_settle(c) == FLOW_WAIT)
				return;
			c->stage = CONNECTION_GOODBYE;
			break;
		case CONNECTION_GOODBYE:
			if (connection_goodbye(c) == FLOW_WAIT)
				return;
			enter_close(c);
			c->stage = CONNECTION_CLOSE;
			break;
		case CONNECTION_CLOSE:
			if (connection_drain(c) == FLOW_WAIT || list_is_linked(&c->hook.link))
				return;
			connection_destroy(c);
			return;
		}
	}
}

/* ---- for people ---- */

const char *connection_stage_name(enum nbd_connection_stage stage)
{
	static const char *const names[] = {
#define X(name) #name,
	    NBD_CONNECTION_STAGES(X)
#undef X
	};
	quarry_assert(stage < array_size(names));
	return names[stage];
}

void connection_to_text(const struct nbd_connection *c, char text[static CONNECTION_TEXT_BYTES])
{
	snprintf(text, CONNECTION_TEXT_BYTES, "connection %llu (%.60s)%s%.130s", (unsigned long long)c->number,
		 stream_peer(c->wire.stream), c->export_name[0] ? " to " : "", c->export_name);
}
