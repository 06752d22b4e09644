/*
 * nbd_server.c: the doors, the limits, and what all connections share.
 *
 * Each door (unix socket, TCP address) always has one accept under way, unless the last one failed for want of
 * descriptors or memory: then it pauses for a moment. A client over the limit of connections is let in only if somebody
 * who has not agreed on an export yet can be sent away for it, the oldest first; so silent clients cannot keep others
 * out.
 *
 * The watchdog runs while anybody waits for buffers (a virtual machine or another node, too) or for requests that
 * others hold. A client that holds some, and is the one that we wait for whenever it looks, has to move as many bytes
 * as it holds within NBD_STALL_S, or it is disconnected: one that sends or takes a byte now and then is no better than
 * one that is silent. A slow line is enough for that, since a request gets more than its first buffer only as it
 * proceeds.
 * What it gives and what it takes are judged apart: no flood of requests makes up for replies that it does not take.
 * Looks are counted, not seconds, so that nobody is judged by a time in which this process did not run.
 *
 * Invariants
 *  1. requests in the pool (used before or not) + requests of connections = SERVER_REQUESTS.
 *  2. n_connections counts those in the list; at most max_connections of them are not being closed, and at most as
 *     many again are.
 *  3. A stopped server is freed when both doors are shut and the last connection is gone, never earlier.
 */
#include "frontends/nbd/nbd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define WATCHDOG_NS     NS_PER_S
#define STALL_LOOKS     ((uint32_t)(NBD_STALL_S * NS_PER_S / WATCHDOG_NS))

static void server_watch(void *context);
static void door_accept(struct nbd_door *d);
static void server_stop_if_empty(struct nbd_server *s);

int nbd_tls_mode_from_text(const char *text, enum nbd_tls_mode *out)
{
	static const char *const names[] = {[NBD_TLS_OFF] = "off", [NBD_TLS_ON] = "on", [NBD_TLS_REQUIRE] = "require"};

	for (size_t i = 0; i < array_size(names); i++) {
		if (strcmp(text, names[i]) == 0) {
			*out = (enum nbd_tls_mode)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* ---- requests ---- */

struct nbd_request *server_request_get(struct nbd_server *s)
{
	struct list *node = list_pop(&s->free_requests);

	if (!node && s->n_made < SERVER_REQUESTS) { /* memory that was never needed is never touched */
		request_init(&s->requests[s->n_made]);
		node = &s->requests[s->n_made++].link;
	}
	quarry_assert((node == NULL) == (s->n_free == 0));
	if (!node)
		return NULL;
	s->n_free--;
	counter_set(&s->counters.n_requests, SERVER_REQUESTS - s->n_free);
	return container_of(node, struct nbd_request, link);
}

void server_request_put(struct nbd_server *s, struct nbd_request *r)
{
	quarry_assert(r->stage == REQUEST_FREE && !r->connection);
	quarry_assert(s->n_free < SERVER_REQUESTS);
	list_prepend(&s->free_requests, &r->link); /* the one used last is still in the processor's cache */
	s->n_free++;
	counter_set(&s->counters.n_requests, SERVER_REQUESTS - s->n_free);
	struct list *node = list_pop(&s->starving);
	if (node)
		connection_wake(container_of(node, struct nbd_connection, starving));
}

void server_starve(struct nbd_server *s, struct nbd_connection *c)
{
	if (list_is_linked(&c->starving))
		return;
	counter_add(&s->counters.waits_requests, 1);
	list_append(&s->starving, &c->starving);
	server_watch(s);
}

/* ---- the watchdog ---- */

static void pace_begin(struct nbd_pace *p)
{
	p->seen_bytes = p->moved_bytes;
	p->n_waits = 0;
}

/* Somebody waits for what others hold: see that nobody sits on it. */
static void server_watch(void *context)
{
	struct nbd_server *s = context;

	if (timer_is_running(&s->watchdog))
		return;
	list_each (node, &s->connections) {
		struct nbd_connection *c = container_of(node, struct nbd_connection, link);
		pace_begin(&c->gives);
		pace_begin(&c->takes);
	}
	timer_start(s->reactor, &s->watchdog, WATCHDOG_NS);
}

/* Buffers of the write that is arriving, but those that the volume has. */
static uint64_t held_by_arriving(const struct nbd_connection *c)
{
	const struct nbd_request *r = c->arriving;
	uint64_t held_bytes = 0;

	for (uint32_t i = 0; r && i < r->n_pieces; i++)
		held_bytes += r->pieces[i].buffer && r->pieces[i].stage != PIECE_WORKING ? r->piece_bytes : 0;
	return held_bytes;
}

/* Has it moved less than it holds, for as long as may be? `waits`: it is the client who keeps us from giving back. */
static bool pace_is_too_slow(struct nbd_pace *p, bool waits, uint64_t held_bytes)
{
	if (!waits) {
		pace_begin(p);
		return false;
	}
	if (++p->n_waits < STALL_LOOKS)
		return false;
	if (p->moved_bytes - p->seen_bytes < max_u64(held_bytes, 1))
		return true;
	pace_begin(p);
	return false;
}

static void stall_tell(struct nbd_connection *c, const char *what, const struct nbd_pace *p, uint64_t held_bytes)
{
	char text[CONNECTION_TEXT_BYTES];

	counter_add(&c->server->counters.stalled, 1);
	connection_to_text(c, text);
	log_event(c->server->log, LOG_WARNING, "nbd-client-stalled", c->export_name,
		  "%s %s %llu bytes in %u s while others waited for the %llu KiB it holds; disconnected", text, what,
		  (unsigned long long)(p->moved_bytes - p->seen_bytes), NBD_STALL_S,
		  (unsigned long long)(held_bytes / KIB));
}

static void watchdog_judge(struct nbd_connection *c)
{
	bool is_served = c->stage == CONNECTION_TRANSMIT && c->n_requests > 0;
	bool awaits_payload = is_served && c->arriving && c->wire.is_receiving;
	uint64_t given_bytes = held_by_arriving(c), taken_bytes = c->held_bytes - given_bytes;
	bool gives_too_slowly = pace_is_too_slow(&c->gives, awaits_payload, given_bytes);
	bool takes_too_slowly = pace_is_too_slow(&c->takes, is_served && c->wire.is_sending, taken_bytes);

	if (c->is_cut || (!gives_too_slowly && !takes_too_slowly))
		return;
	if (takes_too_slowly)
		stall_tell(c, "took", &c->takes, taken_bytes);
	else
		stall_tell(c, "gave", &c->gives, given_bytes);
	connection_close(c, NULL);
}

static void watchdog_fired(struct timer *t)
{
	struct nbd_server *s = container_of(t, struct nbd_server, watchdog);

	if (!buffers_are_awaited(s->buffers) && list_is_empty(&s->starving))
		return;
	list_each (node, &s->connections)
		watchdog_judge(container_of(node, struct nbd_connection, link));
	timer_start(s->reactor, &s->watchdog, WATCHDOG_NS);
}

/* ---- connections ---- */

/* Somebody who has not agreed on an export yet, the one who came first; NULL: nobody. */
static struct nbd_connection *oldest_undecided(struct nbd_server *s)
{
	list_each (node, &s->connections) {
		struct nbd_connection *c = container_of(node, struct nbd_connection, link);
		if (!c->is_cut && !c->is_ending && (c->stage == CONNECTION_NEGOTIATE || c->stage == CONNECTION_SECURE))
			return c;
	}
	return NULL;
}

/* Is there room for one more client? */
static bool server_make_room(struct nbd_server *s)
{
	quarry_assert(s->n_closing <= s->n_connections);
	if (s->n_connections - s->n_closing < s->max_connections)
		return true;
	struct nbd_connection *c = oldest_undecided(s);
	if (c && s->n_connections < 2 * s->max_connections) {
		connection_close(c, "the limit of connections is met and it has not agreed on an export yet");
		return true;
	}
	counter_add(&s->counters.refused, 1);
	if (!s->is_refusing)
		log_event(s->log, LOG_WARNING, "nbd-connections", "nbd",
			  "a client was refused: %u connections are open (nbd.max_connections)", s->max_connections);
	s->is_refusing = true;
	return false;
}

static void server_admit(struct nbd_server *s, struct stream *stream)
{
	struct nbd_connection *c;

	s->n_accepted++;
	if (!server_make_room(s) || connection_create(s, stream, &c) != 0) {
		stream_shutdown(stream);
		stream_close(stream);
		return;
	}
	list_append(&s->connections, &c->link);
	s->n_connections++;
	counter_add(&s->counters.accepted, 1);
	counter_set(&s->counters.n_connections, s->n_connections);
}

void server_connection_closing(struct nbd_server *s)
{
	s->n_closing++;
}

void server_connection_gone(struct nbd_server *s, struct nbd_connection *c)
{
	quarry_assert(s->n_connections > 0 && s->n_closing > 0);
	list_remove(&c->link);
	s->n_connections--;
	s->n_closing--;
	s->is_refusing = false;
	counter_set(&s->counters.n_connections, s->n_connections);
	server_stop_if_empty(s);
}

/* ---- doors ---- */

static void door_accepted(struct op *op, int res)
{
	struct nbd_door *d = container_of(op, struct nbd_door, op);
	struct nbd_server *s = d->server;

	d->is_accepting = false;
	if (s->is_stopping) {
		if (res == 0)
			stream_close(d->stream);
		server_stop_if_empty(s);
		return;
	}
	if (res == 0) {
		server_admit(s, d->stream);
		door_accept(d);
		return;
	}
	log_line(s->log, LOG_WARNING, "nbd", "a client could not be accepted: %s", strerror(-res));
	timer_start(s->reactor, &d->pause, ACCEPT_PAUSE_NS);
}

static void door_accept(struct nbd_door *d)
{
	quarry_assert(!d->is_accepting && d->listener);
	d->is_accepting = true;
	listener_accept(d->listener, &d->op, &d->stream);
}

static void door_paused(struct timer *t)
{
	door_accept(container_of(t, struct nbd_door, pause));
}

static int door_open(struct nbd_server *s, struct nbd_door *d, const char *address, char why[static NBD_WHY_BYTES])
{
	if (!address || address[0] == 0)
		return 0;
	int res = reactor_listen(s->reactor, address, &d->listener);
	quarry_assert(res <= 0);
	if (res != 0) {
		snprintf(why, NBD_WHY_BYTES, "cannot listen on %.120s: %s", address, strerror(-res));
		d->listener = NULL;
	}
	return res;
}

static void door_close(struct nbd_door *d)
{
	timer_stop(d->server->reactor, &d->pause);
	if (d->listener)
		listener_close(d->listener);
	d->listener = NULL;
}

/* ---- life ---- */

static struct nbd_server *server_create(const struct nbd_server_options *o)
{
	struct nbd_server *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->requests = calloc(SERVER_REQUESTS, sizeof(*s->requests));
	if (!s->requests) {
		free(s);
		return NULL;
	}
	s->reactor = o->reactor;
	s->log = o->log;
	s->volumes = o->volumes;
	s->buffers = o->buffers;
	s->tls = o->tls;
	s->max_connections = o->max_connections ? o->max_connections : NBD_CONNECTIONS_DEFAULT;
	list_init(&s->connections);
	list_init(&s->starving);
	list_init(&s->free_requests);
	timer_init(&s->watchdog, watchdog_fired);
	for (uint32_t i = 0; i < NBD_DOORS; i++) {
		s->doors[i].server = s;
		op_init(&s->doors[i].op, door_accepted);
		timer_init(&s->doors[i].pause, door_paused);
	}
	s->n_free = SERVER_REQUESTS;
	return s;
}

static void server_free(struct nbd_server *s)
{
	tls_unload(s->credentials);
	free(s->requests);
	free(s);
}

int nbd_server_start(const struct nbd_server_options *o, char why[static NBD_WHY_BYTES], struct nbd_server **out)
{
	quarry_assert(o->reactor && o->log && o->volumes && o->buffers);
	why[0] = 0;
	struct nbd_server *s = server_create(o);
	if (!s)
		return -ENOMEM;
	if (o->tls != NBD_TLS_OFF) {
		const struct tls_server_files files = {
		    .group = "nbd", .cert_dir = o->cert_dir, .psk_file = o->psk_file};
		int res = tls_load_server(&files, why, &s->credentials);
		if (res != 0) {
			server_free(s);
			return res;
		}
	}
	int res = door_open(s, &s->doors[0], o->socket, why);
	if (res == 0)
		res = door_open(s, &s->doors[1], o->listen, why);
	if (res != 0) { /* no accept is under way yet, so this can be undone at once */
		for (uint32_t i = 0; i < NBD_DOORS; i++)
			door_close(&s->doors[i]);
		server_free(s);
		return res;
	}
	for (uint32_t i = 0; i < NBD_DOORS; i++)
		if (s->doors[i].listener)
			door_accept(&s->doors[i]);
	buffers_watch(o->buffers, server_watch, s);
	*out = s;
	return 0;
}

static void server_stopped(struct op *op, int res)
{
	struct nbd_server *s = container_of(op, struct nbd_server, stopped_op);
	void (*stopped)(void *context) = s->stopped;
	void *context = s->stopped_context;

	quarry_assert(res == 0);
	quarry_assert(s->n_free == SERVER_REQUESTS && s->n_connections == 0);
	server_free(s);
	stopped(context);
}

static void server_stop_if_empty(struct nbd_server *s)
{
	if (!s->is_stopping || s->n_connections > 0 || s->stopped_op.kind != OP_NONE)
		return;
	for (uint32_t i = 0; i < NBD_DOORS; i++)
		if (s->doors[i].is_accepting)
			return;
	buffers_watch(s->buffers, NULL, NULL);
	timer_stop(s->reactor, &s->watchdog);
	reactor_defer(s->reactor, &s->stopped_op, 0); /* whoever called us may still look at the server */
}

void nbd_server_stop(struct nbd_server *s, void (*stopped)(void *context), void *context)
{
	quarry_assert(!s->is_stopping && stopped != NULL);
	s->is_stopping = true;
	s->stopped = stopped;
	s->stopped_context = context;
	op_init(&s->stopped_op, server_stopped);
	for (uint32_t i = 0; i < NBD_DOORS; i++)
		door_close(&s->doors[i]);
	list_each (node, &s->connections)
		connection_finish(container_of(node, struct nbd_connection, link));
	server_stop_if_empty(s);
}

void nbd_server_abandon(struct nbd_server *s)
{
	for (struct list *node; (node = list_pop(&s->connections)) != NULL;) {
		struct nbd_connection *c = container_of(node, struct nbd_connection, link);
		tls_destroy(c->wire.tls);
		free(c->wire.staging);
		connection_free(c);
	}
	server_free(s);
}

/* ---- looking ---- */

const struct nbd_counters *nbd_server_counters(const struct nbd_server *s)
{
	return &s->counters;
}

void nbd_server_connections(struct nbd_server *s, void (*each)(const struct nbd_connection_view *v, void *context),
			    void *context)
{
	uint64_t now_ns = reactor_now_ns(s->reactor);

	list_each (node, &s->connections) {
		struct nbd_connection *c = container_of(node, struct nbd_connection, link);
		struct nbd_connection_view v = {
		    .number = c->number,
		    .stage = connection_stage_name(c->stage),
		    .export_ = c->export_name,
		    .peer = stream_peer(c->wire.stream),
		    .is_tls = c->wire.tls != NULL,
		    .is_structured = c->terms.is_structured,
		    .n_requests = c->n_requests,
		    .held_bytes = c->held_bytes,
		    .requests = c->n_served,
		    .read_bytes = c->read_bytes,
		    .write_bytes = c->write_bytes,
		    .age_ns = now_ns - c->accepted_ns,
		};
		each(&v, context);
	}
}

void nbd_server_slow_requests(struct nbd_server *s, uint64_t age_ns, void (*each)(const char *line, void *context),
			      void *context)
{
	uint64_t now_ns = reactor_now_ns(s->reactor);
	char text[REQUEST_TEXT_BYTES];

	list_each (node, &s->connections) {
		struct nbd_connection *c = container_of(node, struct nbd_connection, link);
		list_each (member, &c->requests) {
			struct nbd_request *r = container_of(member, struct nbd_request, link);
			if (now_ns - r->started_ns < age_ns)
				continue;
			request_to_text(r, now_ns, text);
			each(text, context);
		}
	}
}
