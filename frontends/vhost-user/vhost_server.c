/*
 * vhost_server.c: a socket for each volume or snapshot attached over vhost-user, its clients, and the requests of all.
 *
 *   volume attached --vhost_door_open()--> listening --volume detached, server stopped--> closing: clients end --> gone
 *
 * Several clients may be connected to one volume, but the rings of one only are served at a time: the runner's. It has
 * the volume for as long as it is connected, whatever its guest does: one that reboots or is paused has stopped its rings,
 * and its caches would be wrong if another guest wrote meanwhile. A client that comes back after it was cut off waits
 * until the last requests of its former connection are completed.
 *
 * A virtual machine can move, though: the VMM of its destination connects and asks what it wants while the source still
 * runs, and is served when the source has stopped its rings. That it moves is told by the log of changed pages, which VMMs
 * keep for this only.
 *
 * A door has few places. A client that has not sent one whole message gives up its own when they are all taken.
 *
 * Invariants
 *  1. A door holds a reference to its volume and watches it, from vhost_door_open() until it is gone.
 *  2. door->runner is a connection that has started a ring since it came, or NULL; who has started one first runs next.
 *  3. A request is in the pool or in its queue's list. Queues that found none wait in `starving` and are served in turn.
 *  4. A door is freed on a turn of its own: whoever closed it may still look at it.
 *
 * Owner: the reactor.
 */
#include "frontends/vhost-user/vhost_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define ACCEPT_PAUSE_NS (NS_PER_S / 10)

static void vhost_door_accept(struct vhost_door *d);
static void vhost_stop_if_empty(struct vhost_server *s);

/* ---- the pool of requests ---- */

struct vhost_request *vhost_take_request(struct vhost_server *s)
{
	struct list *node = list_pop(&s->free_requests);

	if (!node && s->n_made < VHOST_REQUESTS_MAX) {
		struct vhost_request *r = &s->requests[s->n_made++];
		blk_init(r);
		node = &r->link;
	}
	if (!node)
		return NULL;
	s->n_free--;
	return container_of(node, struct vhost_request, link);
}

void vhost_give_request(struct vhost_server *s, struct vhost_request *r)
{
	quarry_assert(r->stage == VHOST_REQUEST_FREE && r->n_working == 0);
	list_prepend(&s->free_requests, &r->link); /* the one used last is still in the cache */
	s->n_free++;
	struct list *node = list_pop(&s->starving);
	if (!node)
		return;
	struct vhost_queue *q = container_of(node, struct vhost_queue, starving);
	q->is_starved = false;
	guest_wake(q->connection); /* takes it at the end of the turn, if nobody was quicker */
}

void vhost_starve(struct vhost_server *s, struct vhost_queue *q)
{
	quarry_assert(!q->is_starved);
	q->is_starved = true;
	list_append(&s->starving, &q->starving);
	counter_add(&s->counters.waits_requests, 1);
}

/* ---- who runs ---- */

static bool guest_wants_to_run(const struct vhost_connection *c)
{
	for (uint32_t i = 0; i < c->n_queues; i++)
		if (c->queues[i].is_started)
			return true;
	return false;
}

/* Its guest goes on in another VMM: the rings are stopped, the log of changed pages is not. */
static bool guest_has_moved(const struct vhost_connection *c)
{
	return !guest_wants_to_run(c) && c->n_requests == 0 && c->memory.is_logging;
}

void vhost_door_choose(struct vhost_door *d)
{
	if (d->runner && !guest_has_moved(d->runner))
		return;
	d->runner = NULL;
	list_each (node, &d->connections) {
		struct vhost_connection *c = container_of(node, struct vhost_connection, link);
		if (c->is_ending || !guest_wants_to_run(c))
			continue;
		d->runner = c;
		guest_set_running(c, true);
		return;
	}
}

void vhost_door_connection_gone(struct vhost_door *d, struct vhost_connection *c)
{
	struct vhost_server *s = d->server;

	quarry_assert(d->runner != c && d->n_connections > 0);
	list_remove(&c->link);
	d->n_connections--;
	counter_set(&s->counters.n_connections, s->counters.n_connections - 1);
	vhost_door_choose(d);
	if (d->is_closing && d->n_connections == 0 && !d->is_accepting && d->gone.kind == OP_NONE)
		reactor_defer(s->reactor, &d->gone, 0);
}

/* ---- accepting ---- */

/* A few are held for a moment whenever a client goes that has said more than was heard. */
static bool vhost_door_is_shut(struct vhost_door *d)
{
	uint32_t n_held = reactor_fds_held(d->server->reactor);

	d->is_suspect = d->is_suspect && n_held > 0;
	return d->is_suspect && n_held > VHOST_HELD_MAX;
}

/* One that ends without having said anything has nothing that lasts: it is gone at once. */
static uint32_t vhost_door_places_taken(const struct vhost_door *d)
{
	uint32_t n = 0;

	list_each (node, &d->connections) {
		const struct vhost_connection *c = container_of(node, struct vhost_connection, link);
		n += c->has_spoken || !c->is_ending;
	}
	quarry_assert(n <= VHOST_CLIENTS_MAX && n <= d->n_connections);
	return n;
}

/* Whoever has said nothing for longest gives up its place. False: all of them have. */
static bool vhost_door_make_place(struct vhost_door *d)
{
	list_each (node, &d->connections) {
		struct vhost_connection *c = container_of(node, struct vhost_connection, link);
		if (c->has_spoken || c->is_ending)
			continue;
		guest_end(c, "it has said nothing, and another client needs its place");
		return true;
	}
	return false;
}

static void vhost_door_admit(struct vhost_door *d)
{
	struct vhost_server *s = d->server;
	struct vhost_connection *c;
	bool is_shut = vhost_door_is_shut(d);
	bool is_full = !is_shut && vhost_door_places_taken(d) == VHOST_CLIENTS_MAX && !vhost_door_make_place(d);

	s->n_accepted++;
	if (is_shut || is_full || guest_create(d, d->stream, &c) != 0) {
		counter_add(&s->counters.refused, 1);
		log_line(s->log, LOG_WARNING, "vhost", "%s: a client was refused: %u are connected already%s", d->name,
			 d->n_connections,
			 is_shut ? ", and descriptors of a former one are still being closed: its FUSE server or its "
				   "peer does not answer"
				 : "");
		stream_shutdown(d->stream);
		stream_close(d->stream);
		return;
	}
	list_append(&d->connections, &c->link);
	d->n_connections++;
	counter_add(&s->counters.accepted, 1);
	counter_set(&s->counters.n_connections, s->counters.n_connections + 1);
}

static void vhost_door_gone(struct op *op, int res);

static void vhost_door_accepted(struct op *op, int res)
{
	struct vhost_door *d = container_of(op, struct vhost_door, accept);

	d->is_accepting = false;
	if (d->is_closing || res == -ECANCELED) {
		if (res == 0) {
			stream_shutdown(d->stream);
			stream_close(d->stream);
		}
		if (d->is_closing && d->n_connections == 0 && d->gone.kind == OP_NONE)
			reactor_defer(d->server->reactor, &d->gone, 0);
		else if (!d->is_closing && d->listener)
			vhost_door_accept(d); /* the volume has another name, and so has the socket */
		return;
	}
	if (res == 0) {
		vhost_door_admit(d);
		vhost_door_accept(d);
		return;
	}
	log_line(d->server->log, LOG_WARNING, "vhost", "%s: a client could not be accepted: %s", d->name,
		 strerror(-res));
	timer_start(d->server->reactor, &d->pause, ACCEPT_PAUSE_NS);
}

static void vhost_door_accept(struct vhost_door *d)
{
	quarry_assert(!d->is_accepting && d->listener);
	d->is_accepting = true;
	listener_accept(d->listener, &d->accept, &d->stream);
}

static void vhost_door_paused(struct timer *t)
{
	struct vhost_door *d = container_of(t, struct vhost_door, pause);

	if (!d->is_accepting && d->listener)
		vhost_door_accept(d);
}

/* ---- a door ---- */

static void vhost_door_close(struct vhost_door *d)
{
	if (d->is_closing)
		return;
	d->is_closing = true;
	timer_stop(d->server->reactor, &d->pause);
	if (d->listener)
		listener_close(d->listener);
	d->listener = NULL;
	list_each (node, &d->connections)
		guest_end(container_of(node, struct vhost_connection, link), NULL);
	if (d->n_connections == 0 && !d->is_accepting)
		reactor_defer(d->server->reactor, &d->gone, 0);
}

static void vhost_door_gone(struct op *op, int res)
{
	struct vhost_door *d = container_of(op, struct vhost_door, gone);
	struct vhost_server *s = d->server;

	quarry_assert(d->n_connections == 0 && !d->is_accepting && !d->runner);
	volume_watch_stop(d->volume, &d->watch);
	volume_put(d->volume);
	list_remove(&d->link);
	counter_set(&s->counters.n_doors, s->counters.n_doors - 1);
	free(d);
	vhost_stop_if_empty(s);
}

static int vhost_door_listen(struct vhost_door *d, const char *name, struct listener **out, char *why, size_t room)
{
	int n = snprintf(d->path, sizeof(d->path), "%s/%s.sock", d->server->dir, name);
	int res = n < (int)sizeof(d->path) ? reactor_listen(d->server->reactor, d->path, out) : -ENAMETOOLONG;

	if (res == -ENAMETOOLONG) /* the path comes last: it may be cut */
		snprintf(
		    why, room,
		    "its socket would have too long a path (107 bytes at most): choose a shorter vhost.dir or name: %s",
		    d->path);
	else if (res != 0)
		snprintf(why, room, "cannot listen on %s: %s", d->path,
			 res == -ENOENT       ? "its folder is gone; make it, or start quarryd anew"
			 : res == -EADDRINUSE ? "a file or another program's socket is there; remove it"
					      : strerror(-res));
	return res;
}

/* The socket moves to the new name; who is connected stays. */
static void vhost_door_rename(struct vhost_door *d)
{
	char why[VHOST_WHY_BYTES];
	struct listener *new;

	snprintf(d->name, sizeof(d->name), "%s", volume_name(d->volume));
	if (d->listener)
		listener_close(d->listener);
	d->listener = NULL;
	if (vhost_door_listen(d, d->name, &new, why, sizeof(why)) != 0) {
		log_event(d->server->log, LOG_ERROR, "vhost-socket-failed", d->name,
			  "%s has a new name, and no new client can reach it over vhost-user: %s", d->name, why);
		return;
	}
	d->listener = new;
	if (!d->is_accepting && !timer_is_running(&d->pause))
		vhost_door_accept(d);
}

static void vhost_door_event(struct volume_watch *w, enum volume_event e)
{
	struct vhost_door *d = container_of(w, struct vhost_door, watch);

	switch (e) {
	case VOLUME_RESIZED:
		list_each (node, &d->connections)
			guest_notice(container_of(node, struct vhost_connection, link));
		break;
	case VOLUME_RENAMED:
		vhost_door_rename(d);
		break;
	case VOLUME_VHOST_DETACHED:
	case VOLUME_DETACHING:
		vhost_door_close(d);
		break;
	case VOLUME_NBD_DETACHED:
		break;
	}
}

static struct vhost_door *vhost_door_create(struct vhost_server *s, struct volume *v)
{
	struct vhost_door *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->server = s;
	d->volume = v;
	d->watch.event = vhost_door_event;
	d->n_queues = volume_vhost_queues(v);
	quarry_assert(d->n_queues > 0 && d->n_queues <= VHOST_QUEUES_MAX);
	snprintf(d->name, sizeof(d->name), "%s", volume_name(v));
	list_init(&d->link);
	list_init(&d->watch.link);
	list_init(&d->connections);
	op_init(&d->accept, vhost_door_accepted);
	op_init(&d->gone, vhost_door_gone);
	timer_init(&d->pause, vhost_door_paused);
	return d;
}

static int vhost_door_open(struct vhost_server *s, struct volume *v, char *why, size_t room)
{
	struct vhost_door *d = vhost_door_create(s, v);

	if (!d) {
		snprintf(why, room, "there is no memory for its socket");
		return -ENOMEM;
	}
	int res = vhost_door_listen(d, d->name, &d->listener, why, room);
	if (res != 0) {
		free(d);
		return res;
	}
	volume_hold(v);
	volume_watch_start(v, &d->watch);
	list_append(&s->doors, &d->link);
	counter_set(&s->counters.n_doors, s->counters.n_doors + 1);
	vhost_door_accept(d);
	return 0;
}

static int vhost_door_asked_for(struct volume_doors *hooks, struct volume *v, char *why, size_t room)
{
	struct vhost_server *s = container_of(hooks, struct vhost_server, hooks);

	if (s->is_stopping) {
		snprintf(why, room, "the daemon is stopping");
		return -ESHUTDOWN;
	}
	return vhost_door_open(s, v, why, room);
}

static void vhost_door_at_start(struct volume *v, void *context)
{
	struct vhost_server *s = context;
	char why[VHOST_WHY_BYTES];

	if (vhost_door_open(s, v, why, sizeof(why)) != 0)
		log_event(s->log, LOG_ERROR, "vhost-socket-failed", volume_name(v),
			  "%s cannot be reached over vhost-user: %s; detach it and attach it again", volume_name(v),
			  why);
}

/* ---- life ---- */

int vhost_server_start(const struct vhost_server_options *o, struct vhost_server **out)
{
	quarry_assert(o->reactor && o->log && o->volumes && o->buffers && o->dir);
	struct vhost_server *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->requests = calloc(VHOST_REQUESTS_MAX, sizeof(*s->requests)); /* touched as they are used */
	if (!s->requests) {
		free(s);
		return -ENOMEM;
	}
	s->reactor = o->reactor;
	s->log = o->log;
	s->volumes = o->volumes;
	s->buffers = o->buffers;
	s->poll_ns = o->poll_us * NS_PER_US;
	s->takes_files = o->file_memory;
	s->n_free = VHOST_REQUESTS_MAX;
	s->hooks.open = vhost_door_asked_for;
	snprintf(s->dir, sizeof(s->dir), "%s", o->dir);
	list_init(&s->doors);
	list_init(&s->free_requests);
	list_init(&s->starving);
	volume_each_door(s->volumes, vhost_door_at_start, s);
	volume_set_doors(s->volumes, &s->hooks);
	*out = s;
	return 0;
}

static void vhost_gone(struct op *op, int res)
{
	struct vhost_server *s = container_of(op, struct vhost_server, stopped_op);
	void (*stopped)(void *context) = s->stopped;
	void *context = s->stopped_context;

	quarry_assert(s->n_free == VHOST_REQUESTS_MAX && list_is_empty(&s->doors));
	free(s->requests);
	free(s);
	stopped(context);
}

static void vhost_stop_if_empty(struct vhost_server *s)
{
	if (s->is_stopping && list_is_empty(&s->doors) && s->stopped_op.kind == OP_NONE)
		reactor_defer(s->reactor, &s->stopped_op, 0);
}

void vhost_server_stop(struct vhost_server *s, void (*stopped)(void *context), void *context)
{
	quarry_assert(!s->is_stopping && stopped);
	s->is_stopping = true;
	s->stopped = stopped;
	s->stopped_context = context;
	op_init(&s->stopped_op, vhost_gone);
	volume_set_doors(s->volumes, NULL);
	list_each (node, &s->doors)
		vhost_door_close(container_of(node, struct vhost_door, link));
	vhost_stop_if_empty(s);
}

/* ---- looking ---- */

const struct vhost_counters *vhost_server_counters(const struct vhost_server *s)
{
	return &s->counters;
}

uint32_t vhost_server_clients(const struct vhost_server *s, const char *name)
{
	list_each (node, &s->doors) {
		const struct vhost_door *d = container_of(node, struct vhost_door, link);
		if (strcmp(d->name, name) == 0 && !d->is_closing)
			return d->n_connections;
	}
	return 0;
}

static void slow_of_queue(const struct vhost_queue *q, uint64_t older_than_ns, uint64_t now_ns,
			  void (*each)(const char *line, void *context), void *context)
{
	char text[2 * VHOST_TEXT_BYTES];

	list_each (node, &q->requests) {
		const struct vhost_request *r = container_of(node, struct vhost_request, link);
		if (now_ns - r->started_ns < older_than_ns)
			continue;
		blk_to_text(r, now_ns, text);
		each(text, context);
	}
}

void vhost_server_slow_requests(struct vhost_server *s, uint64_t age_ns, void (*each)(const char *line, void *context),
				void *context)
{
	uint64_t now_ns = reactor_now_ns(s->reactor);

	list_each (door, &s->doors) {
		struct vhost_door *d = container_of(door, struct vhost_door, link);
		list_each (node, &d->connections) {
			struct vhost_connection *c = container_of(node, struct vhost_connection, link);
			for (uint32_t i = 0; i < c->n_queues; i++)
				slow_of_queue(&c->queues[i], age_ns, now_ns, each, context);
		}
	}
}
