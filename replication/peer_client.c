/*
 * peer_client.c: one connection to another node, and the calls that are made over it.
 *
 *   DOWN --pause over--> CONNECTING --connected--> GREETING --greeted--> UP --broken, silent--> FALLING --ended--> DOWN
 *                            +-- not reached, refused: to DOWN; the pause grows --^
 *   a call:   in line -> under way -> over -> done()       in line only while the node owes PEER_REQUESTS_MAX answers
 *
 * Invariants
 *  1. Ids grow in the order of departure. n_owed counts requests whose answers have not come, those of calls that were
 *     given up among them: the node counts the same, so it is never sent more than it takes.
 *  2. done() is called when the call is over and the kernel has given the message back, never inside
 *     peer_client_call().
 *  3. A call that is late is given up; what then comes as its answer is dropped. If not even its message has left, or a
 *     PING is late, the connection is ended; so it is when there is no room for a PING, since the node owes all that it
 *     may, and nothing was heard of it for twice as long.
 *  4. Answers with data land in memory of the connection's own, so nobody's memory is written to after done().
 *
 * Owner: the reactor.
 */
#include "replication/peer_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_MIN_NS   (50 * NS_PER_MS)
#define PAUSE_MAX_NS   (2 * NS_PER_S)
#define LOOKS_PER_TIME 8u /* a call is given up at most this part of the time-out too late */

enum client_stage { CLIENT_DOWN, CLIENT_CONNECTING, CLIENT_GREETING, CLIENT_UP, CLIENT_FALLING };

struct peer_client {
	struct peer_client_options options;
	char name[PEER_NAME_BYTES], node[PEER_NAME_BYTES];
	char address[PEER_WHY_BYTES];
	uint64_t features; /* of the node, as it has greeted */
	enum client_stage stage;
	struct op connect_op;
	struct stream *stream;
	struct peer_connection *wire;
	struct timer pause, look;
	uint64_t pause_ns;
	uint64_t last_id;
	uint32_t n_owed;
	struct list line, under_way, over; /* struct peer_call */
	uint32_t n_under_way;
	struct op over_op; /* delivers `over` */
	struct peer_call greeting, ping;
	bool is_pinging;
	uint64_t heard_ns;   /* when something came of the node; at first, when it was greeted */
	bool has_heard;      /* of the node, since it was looked at last */
	bool is_unreachable; /* and this was said */
	void (*closed)(void *context);
	void *closed_context;
	struct op closed_op;
	struct peer_client_counters counters;
	struct peer_message message; /* one is put together at a time */
	uint8_t *data;               /* of PEER_DATA_MAX: where an answer's data arrive */
};

static void client_connect(struct peer_client *c);
static void client_close_if_idle(struct peer_client *c);

/* ---- calls ---- */

static void client_deliver(struct op *op, int res)
{
	struct peer_client *c = container_of(op, struct peer_client, over_op);
	struct list now;
	list_init(&now);
	list_splice(&now, &c->over);
	for (struct list *node; (node = list_pop(&now)) != NULL;) {
		struct peer_call *call = container_of(node, struct peer_call, own.link);
		counter_add(&c->counters.errors, call->own.res != 0);
		call->done(call, call->own.res);
	}
	client_close_if_idle(c);
}

/* It is over; the kernel may still hold its message. */
static void call_end(struct peer_call *call, int res)
{
	struct peer_client *c = call->own.client;
	if (!call->own.is_over) {
		call->own.is_over = true;
		call->own.res = res;
		list_remove(&call->own.link);
		if (call->own.id > 0) {
			quarry_assert(c->n_under_way > 0);
			c->n_under_way--;
		}
	}
	if (call->own.is_owed || list_is_linked(&call->own.link))
		return;
	list_append(&c->over, &call->own.link);
	if (c->over_op.kind == OP_NONE)
		reactor_defer(c->options.reactor, &c->over_op, 0);
}

static void call_sent(struct peer_out *out, int res)
{
	struct peer_call *call = container_of(out, struct peer_call, own.out);
	quarry_assert(call->own.is_owed);
	call->own.is_owed = false;
	if (call->own.is_over || res < 0)
		call_end(call, -ENOTCONN);
}

static void call_depart(struct peer_client *c, struct peer_call *call)
{
	struct peer_header h = {.type = call->type,
				.flags = call->flags,
				.request_id = ++c->last_id,
				.generation = call->generation,
				.session = call->session,
				.volume = call->volume,
				.disk = call->disk};
	memset(&c->message, 0, offsetof(struct peer_message, crcs));
	if (call->fill)
		call->fill(call, &c->message);
	peer_out_encode(&call->own.out, &h, &c->message, call->own.memory);
	quarry_assert(call->own.out.head_bytes <= sizeof(call->own.memory));
	call->own.id = h.request_id;
	call->own.is_owed = true;
	call->own.out.data = call->data;
	call->own.out.n_data = call->n_data;
	call->own.out.sent = call_sent;
	list_append(&c->under_way, &call->own.link);
	c->n_under_way++;
	c->n_owed++;
	peer_connection_send(c->wire, &call->own.out);
}

static void client_depart(struct peer_client *c)
{
	while (c->stage == CLIENT_UP && c->n_owed < PEER_REQUESTS_MAX && !list_is_empty(&c->line))
		call_depart(c, container_of(list_pop(&c->line), struct peer_call, own.link));
}

static void call_begin(struct peer_client *c, struct peer_call *call)
{
	quarry_assert(call->done && (call->timeout_ns == 0 || call->timeout_ns >= c->options.timeout_ns));
	call->own.client = c;
	call->own.id = 0;
	call->own.is_owed = call->own.is_over = false;
	call->own.res = 0;
	call->own.started_ns = reactor_now_ns(c->options.reactor);
	list_init(&call->own.link);
	counter_add(&c->counters.calls, 1);
}

void peer_client_call(struct peer_client *c, struct peer_call *call)
{
	call_begin(c, call);
	if (c->stage != CLIENT_UP || c->closed) {
		call_end(call, -ENOTCONN);
		return;
	}
	list_append(&c->line, &call->own.link);
	client_depart(c);
}

/* ---- what arrives ---- */

static struct peer_call *client_find(struct peer_client *c, uint64_t id)
{
	list_each (node, &c->under_way) { /* answers come nearly in order: it is among the first */
		struct peer_call *call = container_of(node, struct peer_call, own.link);
		if (call->own.id == id)
			return call;
	}
	return NULL;
}

static void *client_place(struct peer_connection *wire, const struct peer_in *in)
{
	struct peer_client *c = peer_connection_context(wire);
	return c->data;
}

static void client_displaced(struct peer_connection *wire, const struct peer_in *in) {}

static const char *client_fault(const struct peer_client *c, const struct peer_header *h, const struct peer_call *call)
{
	if (!(h->flags & PEER_REPLY))
		return "a request from who was asked";
	if (h->request_id > c->last_id || c->n_owed == 0 || (!call && c->n_owed <= c->n_under_way))
		return "an answer to nothing";
	if (call && h->type != call->type)
		return "an answer to something else";
	return NULL;
}

static void client_arrived(struct peer_connection *wire, const struct peer_in *in)
{
	struct peer_client *c = peer_connection_context(wire);
	struct peer_call *call = client_find(c, in->header.request_id);
	const char *fault = client_fault(c, &in->header, call);
	if (fault) {
		peer_connection_close(wire, -EPROTO, fault);
		return;
	}
	c->n_owed--;
	c->has_heard = true;
	c->heard_ns = reactor_now_ns(c->options.reactor);
	if (call) {
		int res = peer_status_to_errno(in->header.status);
		if (res == 0 && !in->is_intact)
			res = -EBADMSG;
		if (res == 0 && call->take)
			res = call->take(call, in);
		call_end(call, res);
	}
	client_depart(c);
}

/* ---- looking whether it is in time ---- */

static uint64_t call_limit_ns(const struct peer_call *call)
{
	return call->timeout_ns ? call->timeout_ns : call->own.client->options.timeout_ns;
}

static void client_look(struct timer *t)
{
	struct peer_client *c = container_of(t, struct peer_client, look);
	uint64_t now_ns = reactor_now_ns(c->options.reactor), limit_ns = c->options.timeout_ns;
	struct list *lists[] = {&c->under_way, &c->line};
	quarry_assert(c->stage == CLIENT_GREETING || c->stage == CLIENT_UP);
	for (uint32_t i = 0; i < array_size(lists); i++) {
		list_each_safe (node, lists[i]) {
			struct peer_call *call = container_of(node, struct peer_call, own.link);
			if (now_ns - call->own.started_ns < call_limit_ns(call)) {
				if (call->timeout_ns == 0)
					break; /* the rest is younger, and no limit is shorter */
				continue;
			}
			counter_add(&c->counters.timeouts, 1);
			if (call->own.is_owed || call == &c->ping || call == &c->greeting) {
				peer_connection_close(c->wire, -ETIMEDOUT, "it does not answer");
				return;
			}
			call_end(call, -ETIMEDOUT);
		}
	}
	if (c->n_owed == PEER_REQUESTS_MAX && now_ns - c->heard_ns >= 2 * limit_ns) {
		peer_connection_close(c->wire, -ETIMEDOUT, "it does not answer");
		return;
	}
	if (!c->has_heard && !c->is_pinging && c->stage == CLIENT_UP && c->n_owed < PEER_REQUESTS_MAX) {
		c->is_pinging = true;
		call_begin(c, &c->ping);
		call_depart(c, &c->ping);
	}
	c->has_heard = false;
	timer_start(c->options.reactor, &c->look, limit_ns / LOOKS_PER_TIME);
}

static void client_pinged(struct peer_call *call, int res)
{
	container_of(call, struct peer_client, ping)->is_pinging = false;
}

/* ---- the connection ---- */

static void client_tell(struct peer_client *c, bool is_up)
{
	if (c->options.changed)
		c->options.changed(c, is_up, c->options.context);
}

static void client_down(struct peer_client *c, const char *why)
{
	bool was_up = c->stage == CLIENT_UP || c->stage == CLIENT_FALLING;
	c->stage = CLIENT_DOWN;
	if (!c->closed && (was_up || !c->is_unreachable)) {
		log_event(c->options.log, LOG_WARNING, "node-unreachable", c->node[0] ? c->node : c->address,
			  "node %s (%s) cannot be reached: %s", c->node[0] ? c->node : "?", c->address, why);
		c->is_unreachable = true;
	}
	if (!c->closed)
		timer_start(c->options.reactor, &c->pause, c->pause_ns);
	c->pause_ns = min_u64(2 * c->pause_ns, PAUSE_MAX_NS);
	client_close_if_idle(c);
}

static void client_ended(struct peer_connection *wire, int res, const char *why)
{
	struct peer_client *c = peer_connection_context(wire);
	bool was_up = c->stage == CLIENT_UP;
	timer_stop(c->options.reactor, &c->look);
	c->stage = was_up ? CLIENT_FALLING : CLIENT_DOWN;
	struct list *lists[] = {&c->under_way, &c->line};
	for (uint32_t i = 0; i < array_size(lists); i++)
		while (!list_is_empty(lists[i]))
			call_end(container_of(lists[i]->next, struct peer_call, own.link), -ENOTCONN);
	quarry_assert(c->n_under_way == 0);
	c->n_owed = 0;
	c->wire = NULL;
	if (was_up)
		client_tell(c, false);
	client_down(c, why);
	peer_connection_destroy(wire); /* last: it owns `why` */
}

static const struct peer_connection_calls client_calls = {
    .place = client_place, .arrived = client_arrived, .displaced = client_displaced, .ended = client_ended};

static void greeting_fill(struct peer_call *call, struct peer_message *m)
{
	const struct peer_client *c = container_of(call, struct peer_client, greeting);
	m->node.cluster = c->options.cluster;
	memcpy(m->node.name, c->name, sizeof(c->name));
}

static int greeting_take(struct peer_call *call, const struct peer_in *in)
{
	struct peer_client *c = container_of(call, struct peer_client, greeting);
	if (!uuid_equal(&in->message.node.cluster, &c->options.cluster))
		return -EXDEV;
	memcpy(c->node, in->message.node.name, sizeof(c->node));
	c->features = in->message.features;
	return 0;
}

static void client_greeted(struct peer_call *call, int res)
{
	struct peer_client *c = container_of(call, struct peer_client, greeting);
	if (c->stage != CLIENT_GREETING || !peer_connection_is_open(c->wire))
		return; /* it has ended, or is about to */
	if (res != 0) {
		peer_connection_close(c->wire, res, res == -EXDEV ? "it is of another cluster" : strerror(-res));
		return;
	}
	c->stage = CLIENT_UP;
	c->pause_ns = PAUSE_MIN_NS;
	if (c->is_unreachable)
		log_event(c->options.log, LOG_NOTICE, "node-reachable", c->node, "node %s (%s) can be reached again",
			  c->node, c->address);
	c->is_unreachable = false;
	client_tell(c, true);
}

static void client_connected(struct op *op, int res)
{
	struct peer_client *c = container_of(op, struct peer_client, connect_op);
	struct peer_connection_options o = {.reactor = c->options.reactor,
					    .stream = c->stream,
					    .calls = &client_calls,
					    .context = c,
					    .credentials = c->options.credentials,
					    .side = TLS_CLIENT};
	quarry_assert(c->stage == CLIENT_CONNECTING);
	if (res == 0) {
		res = c->closed ? -ESHUTDOWN : peer_connection_create(&o, &c->wire);
		if (res != 0)
			stream_close(c->stream);
	}
	if (res != 0) {
		client_down(c, strerror(-res));
		return;
	}
	counter_add(&c->counters.connections, 1);
	c->stage = CLIENT_GREETING;
	c->last_id = 0;
	c->has_heard = false;
	call_begin(c, &c->greeting);
	call_depart(c, &c->greeting);
	timer_start(c->options.reactor, &c->look, c->options.timeout_ns / LOOKS_PER_TIME);
}

static void client_connect(struct peer_client *c)
{
	quarry_assert(c->stage == CLIENT_DOWN && !c->wire);
	c->stage = CLIENT_CONNECTING;
	reactor_connect(c->options.reactor, &c->connect_op, c->address, &c->stream);
}

static void client_paused(struct timer *t)
{
	client_connect(container_of(t, struct peer_client, pause));
}

/* ---- life ---- */

int peer_client_create(const struct peer_client_options *o, struct peer_client **out)
{
	struct peer_client *c = calloc(1, sizeof(*c));
	quarry_assert(o->reactor && o->log && o->timeout_ns >= LOOKS_PER_TIME);
	quarry_assert(o->node_name[0] && strlen(o->node_name) < PEER_NAME_BYTES);
	if (!c)
		return -ENOMEM;
	c->data = malloc(PEER_DATA_MAX);
	if (!c->data) {
		free(c);
		return -ENOMEM;
	}
	c->options = *o;
	snprintf(c->name, sizeof(c->name), "%s", o->node_name);
	snprintf(c->address, sizeof(c->address), "%s", o->address);
	c->pause_ns = PAUSE_MIN_NS;
	c->greeting = (struct peer_call){
	    .type = PEER_GREETING, .fill = greeting_fill, .take = greeting_take, .done = client_greeted};
	c->ping = (struct peer_call){.type = PEER_PING, .done = client_pinged};
	list_init(&c->line);
	list_init(&c->under_way);
	list_init(&c->over);
	op_init(&c->connect_op, client_connected);
	op_init(&c->over_op, client_deliver);
	timer_init(&c->pause, client_paused);
	timer_init(&c->look, client_look);
	client_connect(c);
	*out = c;
	return 0;
}

static void client_closed(struct op *op, int res)
{
	struct peer_client *c = container_of(op, struct peer_client, closed_op);
	void (*closed)(void *context) = c->closed;
	void *context = c->closed_context;
	quarry_assert(list_is_empty(&c->line) && list_is_empty(&c->under_way) && list_is_empty(&c->over));
	free(c->data);
	free(c);
	closed(context);
}

static void client_close_if_idle(struct peer_client *c)
{
	if (!c->closed || c->stage != CLIENT_DOWN || c->over_op.kind != OP_NONE || !list_is_empty(&c->over))
		return;
	if (c->closed_op.kind == OP_NONE)
		reactor_defer(c->options.reactor, &c->closed_op, 0);
}

void peer_client_close(struct peer_client *c, void (*closed)(void *context), void *context)
{
	quarry_assert(!c->closed && closed);
	c->closed = closed;
	c->closed_context = context;
	op_init(&c->closed_op, client_closed);
	timer_stop(c->options.reactor, &c->pause);
	if (c->wire)
		peer_connection_close(c->wire, -ESHUTDOWN, "this node stops");
	client_close_if_idle(c);
}

void peer_client_abandon(struct peer_client *c)
{
	if (c->wire)
		peer_connection_abandon(c->wire);
	free(c->data);
	free(c);
}

bool peer_client_is_up(const struct peer_client *c)
{
	return c->stage == CLIENT_UP && !c->closed;
}

const char *peer_client_node(const struct peer_client *c)
{
	return c->node;
}

bool peer_client_has(const struct peer_client *c, uint64_t feature)
{
	return (c->features & feature) == feature;
}

const struct peer_client_counters *peer_client_counters(const struct peer_client *c)
{
	return &c->counters;
}
