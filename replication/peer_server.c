/*
 * peer_server.c: the door that other nodes come through, and their connections.
 *
 *   accepted --GREETING of the cluster--> greeted --closed, silent, a message that no node sends--> over -> gone
 *
 * Invariants
 *  1. A connection's requests are its own, PEER_REQUESTS_MAX of them; a node keeps count and never sends more.
 *  2. Before its GREETING a connection is answered nothing else.
 *  3. The memory of a connection goes when its wire has ended and its last request is through: the disk may write into
 *     the buffers of a request whose connection is long gone.
 *  4. At most one buffer is waited for or held for what is arriving.
 *  5. A stopped server is freed when the door is shut and the last connection is gone.
 *
 * Owner: the reactor.
 */
#include "replication/peer_server_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)

static void server_accept(struct peer_server *s);
static void server_stop_if_empty(struct peer_server *s);

/* ---- connections ---- */

static const char *client_name(const struct peer_client_connection *c)
{
	return c->name[0] ? c->name : "a node";
}

static void client_end_sessions(struct peer_client_connection *c)
{
	for (struct list *node; (node = c->sessions.next) != &c->sessions;)
		session_end(container_of(node, struct peer_session, of_connection));
}

static void client_give_back(struct peer_client_connection *c)
{
	struct buffers *buffers = c->server->options.buffers;
	if (c->is_in_line)
		buffers_cancel(buffers, &c->waiter);
	if (c->placed)
		buffers_put(buffers, c->placed, c->placed_bytes);
	c->is_in_line = false;
	c->placed = NULL;
}

void client_close(struct peer_client_connection *c, int res, const char *why)
{
	if (c->is_over)
		return;
	c->is_over = true;
	timer_stop(c->server->options.reactor, &c->silence);
	client_end_sessions(c);
	peer_connection_close(c->wire, res, why);
}

static void client_free_if_through(struct peer_client_connection *c)
{
	struct peer_server *s = c->server;
	if (!c->has_ended || c->n_requests > 0)
		return;
	quarry_assert(c->is_over && list_is_empty(&c->sessions) && !c->placed && !c->is_in_line);
	list_remove(&c->link);
	free(c);
	counter_set(&s->counters.n_connections, --s->n_connections);
	server_stop_if_empty(s);
}

void client_request_done(struct peer_client_connection *c)
{
	quarry_assert(c->n_requests > 0);
	c->n_requests--;
	client_free_if_through(c);
}

static void client_ended(struct peer_connection *wire, int res, const char *why)
{
	struct peer_client_connection *c = peer_connection_context(wire);
	struct peer_server *s = c->server;
	bool is_expected = s->is_stopping || (res == 0 && c->name[0]);
	log_line(s->options.log, is_expected ? LOG_INFO : LOG_WARNING, "peer", "%s at %s: the connection has ended: %s",
		 client_name(c), peer_connection_peer(wire), why);
	c->is_over = true;
	c->has_ended = true;
	timer_stop(s->options.reactor, &c->silence);
	client_end_sessions(c);
	client_give_back(c);
	peer_connection_destroy(wire);
	c->wire = NULL;
	client_free_if_through(c);
}

static void client_silent(struct timer *t)
{
	struct peer_client_connection *c = container_of(t, struct peer_client_connection, silence);
	if (!c->name[0]) {
		client_close(c, -ETIMEDOUT, "it did not greet in time");
		return;
	}
	if (!c->has_spoken) {
		client_close(c, -ETIMEDOUT, "nothing was heard of it for too long");
		return;
	}
	c->has_spoken = false;
	timer_start(c->server->options.reactor, &c->silence, PEER_SILENCE_NS);
}

/* ---- what arrives ---- */

static void client_has_memory(struct buffer_waiter *w, void *data)
{
	struct peer_client_connection *c = container_of(w, struct peer_client_connection, waiter);
	quarry_assert(c->is_in_line && !c->placed);
	c->is_in_line = false;
	c->placed = data;
	if (!c->is_over)
		peer_connection_resume(c->wire);
}

static void *client_place(struct peer_connection *wire, const struct peer_in *in)
{
	struct peer_client_connection *c = peer_connection_context(wire);
	struct buffers *buffers = c->server->options.buffers;
	uint32_t len_bytes = in->header.data_bytes;
	void *data = c->placed;
	quarry_assert(!data || c->placed_bytes == len_bytes);
	c->placed = NULL;
	if (data || c->is_in_line)
		return data;
	data = buffers_get(buffers, len_bytes);
	if (data)
		return data;
	c->placed_bytes = len_bytes;
	c->is_in_line = true;
	buffers_wait(buffers, &c->waiter, len_bytes);
	return NULL;
}

static void client_displaced(struct peer_connection *wire, const struct peer_in *in)
{
	struct peer_client_connection *c = peer_connection_context(wire);
	buffers_put(c->server->options.buffers, in->data, in->header.data_bytes);
}

/* Why no node of ours would have sent this now; NULL: one would. */
static const char *client_fault(const struct peer_client_connection *c, const struct peer_header *h)
{
	if (h->flags & PEER_REPLY)
		return "a reply to nothing";
	if (h->request_id <= c->last_id)
		return "a request id that does not grow";
	if ((h->type == PEER_GREETING) != (c->name[0] == 0))
		return c->name[0] ? "a second greeting" : "no greeting";
	if (c->n_requests == PEER_REQUESTS_MAX)
		return "more requests than the protocol allows";
	return NULL;
}

static struct peer_request *client_request(struct peer_client_connection *c)
{
	struct list *node = list_pop(&c->free);
	quarry_assert(c->n_requests < PEER_REQUESTS_MAX);
	c->n_requests++;
	if (node)
		return container_of(node, struct peer_request, link);
	quarry_assert(c->n_made < PEER_REQUESTS_MAX);
	peer_request_init(&c->requests[c->n_made], c); /* memory that was never needed is never touched */
	return &c->requests[c->n_made++];
}

static void client_greeted(struct peer_client_connection *c, struct peer_request *r, const struct peer_in *in)
{
	struct peer_server *s = c->server;
	const char *name = in->message.node.name;
	if (!uuid_equal(&in->message.node.cluster,
			&s->options.cluster)) { /* it may say nothing else, nor wait for long */
		log_event(s->options.log, LOG_WARNING, "peer-foreign", name,
			  "node %s at %s is of another cluster and was refused", name, peer_connection_peer(c->wire));
		peer_request_answer(r, &in->header, -EXDEV);
		return;
	}
	snprintf(c->name, sizeof(c->name), "%s", name);
	timer_start(s->options.reactor, &c->silence, PEER_SILENCE_NS);
	s->reply = (struct peer_message){0};
	s->reply.node.cluster = s->options.cluster;
	memcpy(s->reply.node.name, s->name, sizeof(s->name));
	s->reply.features = PEER_MEASURES | (s->options.take_order ? PEER_TAKES_ORDERS : 0) |
			    (s->options.take_damage ? PEER_TAKES_DAMAGE : 0);
	peer_request_answer(r, &in->header, 0);
	log_line(s->options.log, LOG_INFO, "peer", "node %s at %s has connected", c->name,
		 peer_connection_peer(c->wire));
}

static void client_tell_disks(struct peer_client_connection *c, struct peer_request *r, const struct peer_in *in)
{
	struct peer_server *s = c->server;
	memset(&s->reply, 0, offsetof(struct peer_message, crcs)); /* the list is filled as far as it is used */
	if (s->options.list_disks)
		s->reply.n_entries = s->options.list_disks(s->reply.disks, s->options.context);
	quarry_assert(s->reply.n_entries <= PEER_DISKS_MAX);
	peer_request_answer(r, &in->header, 0);
}

static void client_arrived(struct peer_connection *wire, const struct peer_in *in)
{
	struct peer_client_connection *c = peer_connection_context(wire);
	struct peer_server *s = c->server;
	const char *fault = c->is_over ? "it is over" : client_fault(c, &in->header);
	if (fault) {
		if (in->data)
			buffers_put(s->options.buffers, in->data, in->header.data_bytes);
		client_close(c, -EPROTO, fault);
		return;
	}
	c->has_spoken = true;
	c->last_id = in->header.request_id;
	struct peer_request *r = client_request(c);
	if (in->header.type == PEER_GREETING) {
		client_greeted(c, r, in);
	} else if (in->header.type == PEER_PING) {
		s->reply = (struct peer_message){0};
		peer_request_answer(r, &in->header, 0);
	} else if (in->header.type == PEER_DISKS) {
		client_tell_disks(c, r, in);
	} else {
		peer_request_start(r, in);
	}
}

static const struct peer_connection_calls client_calls = {
    .place = client_place, .arrived = client_arrived, .displaced = client_displaced, .ended = client_ended};

static int client_create(struct peer_server *s, struct stream *stream)
{
	struct peer_client_connection *c = malloc(sizeof(*c));
	struct peer_connection_options o = {.reactor = s->options.reactor,
					    .stream = stream,
					    .calls = &client_calls,
					    .context = c,
					    .credentials = s->options.credentials,
					    .side = TLS_SERVER};
	if (!c)
		return -ENOMEM;
	memset(c, 0, offsetof(struct peer_client_connection, requests)); /* a request is set when it is first needed */
	c->server = s;
	c->waiter.ready = client_has_memory;
	timer_init(&c->silence, client_silent);
	list_init(&c->link);
	list_init(&c->sessions);
	list_init(&c->free);
	int res = peer_connection_create(&o, &c->wire);
	if (res != 0) {
		free(c);
		return res;
	}
	timer_start(s->options.reactor, &c->silence, 2 * PEER_HANDSHAKE_NS);
	list_append(&s->connections, &c->link);
	counter_set(&s->counters.n_connections, ++s->n_connections);
	counter_add(&s->counters.accepted, 1);
	return 0;
}

/* ---- the door ---- */

static void server_admit(struct peer_server *s, struct stream *stream)
{
	int res = -EMFILE;
	if (s->n_connections < s->options.connections_max)
		res = client_create(s, stream);
	if (res == 0)
		return;
	counter_add(&s->counters.turned_away, 1);
	log_line(s->options.log, LOG_WARNING, "peer", "a connection from %s was turned away: %s", stream_peer(stream),
		 res == -EMFILE ? "as many as may be are open" : strerror(-res));
	stream_shutdown(stream);
	stream_close(stream);
}

static void server_accepted(struct op *op, int res)
{
	struct peer_server *s = container_of(op, struct peer_server, accept_op);
	s->is_accepting = false;
	if (s->is_stopping) {
		if (res == 0)
			stream_close(s->stream);
		server_stop_if_empty(s);
		return;
	}
	if (res == 0) {
		server_admit(s, s->stream);
		server_accept(s);
		return;
	}
	log_line(s->options.log, LOG_WARNING, "peer", "a node could not be accepted: %s", strerror(-res));
	timer_start(s->options.reactor, &s->pause, ACCEPT_PAUSE_NS);
}

static void server_accept(struct peer_server *s)
{
	quarry_assert(!s->is_accepting && s->listener);
	s->is_accepting = true;
	listener_accept(s->listener, &s->accept_op, &s->stream);
}

static void server_paused(struct timer *t)
{
	server_accept(container_of(t, struct peer_server, pause));
}

/* ---- life ---- */

int peer_server_start(const struct peer_server_options *o, char why[static PEER_WHY_BYTES], struct peer_server **out)
{
	quarry_assert(o->reactor && o->log && o->buffers && o->find_disk);
	quarry_assert(o->node_name[0] && strlen(o->node_name) < PEER_NAME_BYTES);
	struct peer_server *s = calloc(1, sizeof(*s));
	if (!s) {
		snprintf(why, PEER_WHY_BYTES, "there is no memory");
		return -ENOMEM;
	}
	s->options = *o;
	snprintf(s->name, sizeof(s->name), "%s", o->node_name);
	if (s->options.connections_max == 0)
		s->options.connections_max = PEER_NODES_DEFAULT;
	list_init(&s->connections);
	for (uint32_t i = 0; i < SESSION_BUCKETS; i++)
		list_init(&s->buckets[i]);
	op_init(&s->accept_op, server_accepted);
	timer_init(&s->pause, server_paused);
	int res = reactor_listen(o->reactor, o->listen, &s->listener);
	if (res != 0) {
		snprintf(why, PEER_WHY_BYTES, "cannot listen on %.60s: %s", o->listen, strerror(-res));
		free(s);
		return res;
	}
	server_accept(s);
	*out = s;
	return 0;
}

static void server_stopped(struct op *op, int res)
{
	struct peer_server *s = container_of(op, struct peer_server, stopped_op);
	void (*stopped)(void *context) = s->stopped;
	void *context = s->stopped_context;
	quarry_assert(s->n_connections == 0 && s->n_sessions == 0);
	free(s);
	stopped(context);
}

static void server_stop_if_empty(struct peer_server *s)
{
	if (!s->is_stopping || s->n_connections > 0 || s->is_accepting || s->stopped_op.kind != OP_NONE)
		return;
	reactor_defer(s->options.reactor, &s->stopped_op, 0); /* whoever called us may still look at the server */
}

void peer_server_stop(struct peer_server *s, void (*stopped)(void *context), void *context)
{
	quarry_assert(!s->is_stopping && stopped);
	s->is_stopping = true;
	s->stopped = stopped;
	s->stopped_context = context;
	op_init(&s->stopped_op, server_stopped);
	timer_stop(s->options.reactor, &s->pause);
	listener_close(s->listener);
	s->listener = NULL;
	list_each (node, &s->connections)
		client_close(container_of(node, struct peer_client_connection, link), -ESHUTDOWN, "this node stops");
	server_stop_if_empty(s);
}

static void client_abandon(struct peer_client_connection *c)
{
	for (uint32_t i = 0; i < c->n_made; i++)
		free(c->requests[i].answer);
	if (c->wire)
		peer_connection_abandon(c->wire);
	free(c);
}

void peer_server_abandon(struct peer_server *s)
{
	for (uint32_t i = 0; i < SESSION_BUCKETS; i++)
		for (struct list *node; (node = list_pop(&s->buckets[i])) != NULL;)
			free(container_of(node, struct peer_session, link));
	for (struct list *node; (node = list_pop(&s->connections)) != NULL;)
		client_abandon(container_of(node, struct peer_client_connection, link));
	if (s->listener)
		listener_close(s->listener);
	free(s);
}

void peer_server_disk_closes(struct peer_server *s, const struct disk *disk)
{
	for (uint32_t i = 0; i < SESSION_BUCKETS; i++) {
		list_each_safe (node, &s->buckets[i]) {
			struct peer_session *session = container_of(node, struct peer_session, link);
			if (session->disk == disk)
				session_end(session);
		}
	}
}

const struct peer_server_counters *peer_server_counters(const struct peer_server *s)
{
	return &s->counters;
}
