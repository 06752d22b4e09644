/*
 * sim_net.c: simulated listeners and streams between the machines of a world, or within one.
 *
 * The fault model
 *  1. Bytes arrive in order, after latencies, in pieces of any size; a receiver gets any part of what is there. At most
 *     a window of bytes is under way or unread; a sender waits for room.
 *  2. Kill: the dead process's connections end or are reset, after the bytes that were on their way. Power loss: the
 *     other end hears nothing for seconds, then a reset; its bytes vanish.
 *  3. Partition: bytes stand still, in both directions or in one, and arrive when it is healed; connecting times out, which
 *     takes both.
 *  4. Cut: a connection breaks at once at both ends, and what was on its way is lost.
 *
 *   stream: open --shutdown--> shut --close--> zombie (while arrivals know it) --> freed
 *                \--process dies--> dead --close or end of the world--> freed
 *
 * Invariants
 *  1. `other` is the far end, or NULL once that is closed or dead; the two point at each other.
 *  2. Arrivals of one stream happen in the order of sending: each is later than the one before (last_arrival_ns).
 *  3. A stream is freed only when no event names it (n_events) and its owner has closed it.
 *  4. Ops are delivered from events only, never from within a call of their owner.
 */
#include "tests/sim/sim_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LATENCY_MIN_NS     (5 * NS_PER_US)
#define WINDOW_MIN_BYTES   (4 * KIB)
#define WINDOW_MAX_BYTES   (256 * KIB)
#define PIECE_MAX_BYTES    (64 * KIB)
#define BACKLOG_MAX        128u
#define CONNECT_TIMEOUT_NS (3 * NS_PER_S)
#define SILENCE_MAX_NS     (30 * NS_PER_S) /* until the end of a machine without power is noticed */

struct sim_stream {
	struct stream base; /* first */
	struct sim_machine *machine;
	struct sim_stream *other;
	char peer[SIM_NAME_BYTES];
	struct list pieces; /* arrived and unread */
	uint64_t unread_bytes, incoming_bytes, window_bytes;
	uint64_t last_arrival_ns;
	struct op *recv, *send;
	bool has_ended; /* the other side sends no more */
	bool is_shut, is_closed, is_dead;
	int error;
	uint32_t n_events;
	struct list link;
};

struct sim_listener {
	struct listener base; /* first */
	struct sim_machine *machine;
	char address[SIM_NAME_BYTES];
	struct list backlog; /* accepting ends of new connections */
	uint32_t n_backlog;
	struct op *accept;
	bool is_closed, is_dead;
	uint32_t n_events;
	struct list link;
};

enum arrival_kind { ARRIVE_NOTHING, ARRIVE_BYTES, ARRIVE_END, ARRIVE_RESET };

/* Something reaches a stream: bytes, its end, or only the thought to look again (ARRIVE_NOTHING). */
struct sim_arrival {
	struct sim_event event; /* first */
	enum arrival_kind kind;
	struct sim_stream *to;
	struct sim_machine *from;
	uint64_t len_bytes, read_bytes;
	struct list link; /* in the stream's pieces, or held by a partition */
	struct fds fds;   /* beside its first byte */
	uint8_t bytes[];
};

struct sim_knock { /* a listener looks at its backlog */
	struct sim_event event;
	struct sim_listener *listener;
};

struct sim_call { /* a connection being made */
	struct sim_event event;
	struct sim_machine *machine;
	struct op *op;
	char address[SIM_NAME_BYTES];
	bool has_timed_out;
};

static void stream_progress(struct sim_stream *st);

static struct sim_stream *stream_of(const struct stream *s)
{
	return container_of((struct stream *)s, struct sim_stream, base);
}

static struct sim_listener *listener_of(struct listener *l)
{
	return container_of(l, struct sim_listener, base);
}

static uint64_t latency_ns(struct sim *s)
{
	return sim_latency_ns(s, LATENCY_MIN_NS, s->latency_max_ns);
}

/* ---- partitions ---- */

static struct sim_link *partition_find(struct sim *s, const struct sim_machine *from, const struct sim_machine *to)
{
	list_each (node, &s->partitions) {
		struct sim_link *p = container_of(node, struct sim_link, link);
		if (p->from == from && p->to == to)
			return p;
	}
	return NULL;
}

bool sim_net_is_blocked(const struct sim_machine *from, const struct sim_machine *to)
{
	return partition_find(from->sim, from, to) != NULL;
}

/* ---- arrivals ---- */

static void arrival_free(struct sim_arrival *a)
{
	sim_fds_receive(a->to->machine->sim, &a->fds, NULL);
	free(a);
}

static void stream_maybe_free(struct sim_stream *st)
{
	if (!st->is_closed || st->n_events > 0)
		return;
	for (struct list *node; (node = list_pop(&st->pieces)) != NULL;)
		arrival_free(container_of(node, struct sim_arrival, link));
	list_remove(&st->link);
	free(st);
}

static void arrival_end(struct sim_arrival *a)
{
	struct sim_stream *st = a->to;

	st->n_events--;
	arrival_free(a);
	stream_maybe_free(st);
}

static void arrival_vanish(struct sim_event *e)
{
	arrival_end(container_of(e, struct sim_arrival, event));
}

/* The stream takes it in; true: it keeps the arrival itself, as unread bytes. */
static bool arrival_take(struct sim_arrival *a)
{
	struct sim_stream *st = a->to;

	if (a->kind == ARRIVE_END)
		st->has_ended = true;
	else if (a->kind == ARRIVE_RESET)
		st->error = -ECONNRESET;
	if (a->kind != ARRIVE_BYTES)
		return false;
	st->incoming_bytes -= a->len_bytes;
	if (st->is_closed || st->is_shut)
		return false;
	st->unread_bytes += a->len_bytes;
	list_append(&st->pieces, &a->link);
	return true;
}

static void arrival_happen(struct sim_event *e)
{
	struct sim_arrival *a = container_of(e, struct sim_arrival, event);
	struct sim_stream *st = a->to;
	struct sim *s = st->machine->sim;

	if (a->kind != ARRIVE_NOTHING && partition_find(s, a->from, st->machine) != NULL) {
		list_append(&s->held, &a->link);
		return;
	}
	if (arrival_take(a)) {
		stream_progress(st);
		st->n_events--;
		stream_maybe_free(st);
		return;
	}
	if (!st->is_closed)
		stream_progress(st);
	arrival_end(a);
}

static void arrival_schedule(struct sim_arrival *a, uint64_t delay_ns)
{
	struct sim_stream *to = a->to;
	uint64_t now_ns = to->machine->sim->now_ns;

	if (a->kind != ARRIVE_NOTHING) { /* invariant 2 */
		to->last_arrival_ns = max_u64(to->last_arrival_ns + 1, now_ns + delay_ns);
		delay_ns = to->last_arrival_ns - now_ns;
	}
	sim_event_add(sim_reactor_of(to->base.reactor), &a->event, delay_ns);
}

static struct sim_arrival *arrival_make(struct sim_stream *to, struct sim_machine *from, enum arrival_kind kind,
					uint64_t len_bytes)
{
	struct sim_arrival *a = malloc(sizeof(*a) + len_bytes);

	quarry_assert(a != NULL);
	quarry_assert(!to->is_dead);
	*a = (struct sim_arrival){.event = {.happen = arrival_happen, .vanish = arrival_vanish},
				  .kind = kind,
				  .to = to,
				  .from = from,
				  .len_bytes = len_bytes};
	list_init(&a->link);
	to->n_events++;
	return a;
}

static void stream_tell(struct sim_stream *to, struct sim_machine *from, enum arrival_kind kind)
{
	arrival_schedule(arrival_make(to, from, kind, 0), latency_ns(to->machine->sim));
}

static void stream_look_again(struct sim_stream *st)
{
	stream_tell(st, st->machine, ARRIVE_NOTHING);
}

/* ---- receiving and sending ---- */

static void op_end(struct op **slot, int res)
{
	struct op *op = *slot;

	*slot = NULL;
	op_deliver(op, res);
}

/* Copies between the op's memory, from its progress on, and the bytes. */
static void op_copy(struct op *op, uint8_t *bytes, uint64_t len_bytes, bool is_to_op)
{
	uint64_t skip = op->done_bytes;

	quarry_assert(op->done_bytes + len_bytes <= op->len_bytes);
	op->done_bytes += len_bytes;
	for (const struct iovec *v = op->iov; len_bytes > 0; v++) {
		if (skip >= v->iov_len) {
			skip -= v->iov_len;
			continue;
		}
		uint64_t n = min_u64(v->iov_len - skip, len_bytes);
		uint8_t *memory = (uint8_t *)v->iov_base + skip;
		memcpy(is_to_op ? memory : bytes, is_to_op ? bytes : memory, n);
		bytes += n;
		len_bytes -= n;
		skip = 0;
	}
}

static void stream_read_pieces(struct sim_stream *st, uint64_t len_bytes)
{
	st->unread_bytes -= len_bytes;
	while (len_bytes > 0) {
		struct sim_arrival *a = container_of(st->pieces.next, struct sim_arrival, link);
		uint64_t n = min_u64(len_bytes, a->len_bytes - a->read_bytes);
		op_copy(st->recv, a->bytes + a->read_bytes, n, true);
		sim_fds_receive(st->machine->sim, &a->fds, st->recv->kind == OP_RECV_FDS ? st->recv->fds : NULL);
		a->read_bytes += n;
		len_bytes -= n;
		if (a->read_bytes == a->len_bytes) {
			list_remove(&a->link);
			arrival_free(a);
		}
	}
	if (st->other != NULL && st->other->send != NULL)
		stream_look_again(st->other); /* there is room now */
}

static void recv_progress(struct sim_stream *st)
{
	struct op *op = st->recv;
	struct sim *s = st->machine->sim;
	uint64_t len_bytes = min_u64(st->unread_bytes, op->len_bytes - op->done_bytes);

	if (st->error == 0 && !st->is_shut && len_bytes > 0) {
		if (op->kind == OP_RECV && sim_below(s, 4) == 0)
			len_bytes = 1 + sim_below(s, len_bytes);
		stream_read_pieces(st, len_bytes);
		if (op->kind == OP_RECV || op->done_bytes == op->len_bytes) {
			op_end(&st->recv, op->kind == OP_RECV ? (int)len_bytes : 0);
			return;
		}
	}
	if (st->error != 0)
		op_end(&st->recv, st->error);
	else if (st->has_ended || st->is_shut)
		op_end(&st->recv, op->kind == OP_RECV ? 0 : -ECONNRESET);
}

static uint64_t window_room(const struct sim_stream *to)
{
	uint64_t used_bytes = to->unread_bytes + to->incoming_bytes;

	return used_bytes < to->window_bytes ? to->window_bytes - used_bytes : 0;
}

static void send_progress(struct sim_stream *st)
{
	struct op *op = st->send;
	struct sim *s = st->machine->sim;
	struct sim_stream *to = st->other;
	bool is_deaf = to == NULL || to->is_shut;

	if (st->error != 0 || st->is_shut || (st->has_ended && is_deaf)) {
		op_end(&st->send, st->error != 0 ? st->error : -EPIPE);
		return;
	}
	if (to == NULL)
		return; /* a machine without power: the bytes vanish until the reset comes */
	for (uint64_t room; op->done_bytes < op->len_bytes && (room = window_room(to)) > 0;) {
		uint64_t most = min_u64(min_u64(room, PIECE_MAX_BYTES), op->len_bytes - op->done_bytes);
		uint64_t n = sim_below(s, 2) ? most : 1 + sim_below(s, most);
		struct sim_arrival *a = arrival_make(to, st->machine, ARRIVE_BYTES, n);
		if (op->kind == OP_SEND_FDS && op->done_bytes == 0)
			sim_fds_send(s, op->fds, &a->fds);
		op_copy(op, a->bytes, n, false);
		to->incoming_bytes += n;
		arrival_schedule(a, latency_ns(s));
	}
	if (op->done_bytes == op->len_bytes)
		op_end(&st->send, 0);
}

/* Does what can be done now. Its owner may close the stream from within. */
static void stream_progress(struct sim_stream *st)
{
	st->n_events++;
	if (st->recv != NULL && !st->is_closed)
		recv_progress(st);
	if (st->send != NULL && !st->is_closed)
		send_progress(st);
	st->n_events--;
	quarry_assert(!st->is_closed || (st->recv == NULL && st->send == NULL));
}

/* ---- streams ---- */

static struct sim_stream *stream_make(struct sim_machine *m, const char *peer)
{
	struct sim_stream *st = calloc(1, sizeof(*st));
	struct sim *s = m->sim;

	quarry_assert(st != NULL);
	st->base.reactor = &m->reactor->base;
	st->machine = m;
	st->window_bytes = WINDOW_MIN_BYTES + sim_below(s, WINDOW_MAX_BYTES - WINDOW_MIN_BYTES);
	snprintf(st->peer, sizeof(st->peer), "%s", peer);
	list_init(&st->pieces);
	list_init(&st->link);
	list_append(&m->streams, &st->link);
	return st;
}

static void stream_part(struct sim_stream *st)
{
	if (st->other == NULL)
		return;
	quarry_assert(st->other->other == st);
	st->other->other = NULL;
	st->other = NULL;
}

void sim_stream_shutdown(struct stream *base)
{
	struct sim_stream *st = stream_of(base);

	if (st->is_dead || st->is_shut)
		return;
	st->is_shut = true;
	stream_look_again(st);
	if (st->other != NULL)
		stream_tell(st->other, st->machine, ARRIVE_END);
}

void sim_stream_close(struct stream *base)
{
	struct sim_stream *st = stream_of(base);

	quarry_assert(!st->is_closed);
	quarry_assert(st->recv == NULL && st->send == NULL);
	if (st->other != NULL)
		stream_tell(st->other, st->machine, st->unread_bytes > 0 ? ARRIVE_RESET : ARRIVE_END);
	stream_part(st);
	st->is_closed = true;
	stream_maybe_free(st);
}

const char *sim_stream_peer(const struct stream *base)
{
	return stream_of(base)->peer;
}

/* ---- listening, accepting, connecting ---- */

static bool address_is_local(const char *address)
{
	return strchr(address, '/') != NULL;
}

static struct sim_listener *listener_find(struct sim_machine *caller, const char *address)
{
	list_each (node, &caller->sim->machines) {
		struct sim_machine *m = container_of(node, struct sim_machine, link);
		if (m != caller && address_is_local(address))
			continue;
		list_each (at, &m->listeners) {
			struct sim_listener *l = container_of(at, struct sim_listener, link);
			if (!l->is_closed && strcmp(l->address, address) == 0)
				return l;
		}
	}
	return NULL;
}

int sim_net_listen(struct reactor *r, const char *address, struct listener **out)
{
	struct sim_machine *m = sim_reactor_of(r)->machine;

	if (strlen(address) >= SIM_NAME_BYTES)
		return -ENAMETOOLONG;
	if (listener_find(m, address) != NULL)
		return -EADDRINUSE;
	struct sim_listener *l = calloc(1, sizeof(*l));
	if (l == NULL)
		return -ENOMEM;
	l->base.reactor = r;
	l->machine = m;
	snprintf(l->address, sizeof(l->address), "%s", address);
	list_init(&l->backlog);
	list_init(&l->link);
	list_append(&m->listeners, &l->link);
	*out = &l->base;
	return 0;
}

static void listener_maybe_free(struct sim_listener *l)
{
	if (!l->is_closed || l->n_events > 0)
		return;
	list_remove(&l->link);
	free(l);
}

static void knock_vanish(struct sim_event *e)
{
	struct sim_knock *k = container_of(e, struct sim_knock, event);
	struct sim_listener *l = k->listener;

	free(k);
	l->n_events--;
	listener_maybe_free(l);
}

static void knock_happen(struct sim_event *e)
{
	struct sim_listener *l = container_of(e, struct sim_knock, event)->listener;

	if (l->accept != NULL && l->n_backlog > 0) {
		struct sim_stream *st = container_of(list_pop(&l->backlog), struct sim_stream, link);
		struct op *op = l->accept;
		l->n_backlog--;
		list_append(&l->machine->streams, &st->link);
		*op->new_stream = &st->base;
		op_end(&l->accept, 0);
	}
	knock_vanish(e);
}

static void listener_knock(struct sim_listener *l)
{
	struct sim_knock *k = calloc(1, sizeof(*k));

	quarry_assert(k != NULL);
	quarry_assert(!l->is_closed);
	k->event = (struct sim_event){.happen = knock_happen, .vanish = knock_vanish};
	k->listener = l;
	l->n_events++;
	sim_event_add(sim_reactor_of(l->base.reactor), &k->event, latency_ns(l->machine->sim));
}

void sim_listener_close(struct listener *base)
{
	struct sim_listener *l = listener_of(base);

	quarry_assert(!l->is_closed);
	l->is_closed = true;
	for (struct list *node; (node = list_pop(&l->backlog)) != NULL;)
		sim_stream_close(&container_of(node, struct sim_stream, link)->base);
	if (l->accept != NULL) {
		struct op *op = l->accept;
		l->accept = NULL;
		op->kind = OP_NONE;
		reactor_defer(l->base.reactor, op, -ECANCELED);
	}
	listener_maybe_free(l);
}

static void call_vanish(struct sim_event *e)
{
	struct sim_call *c = container_of(e, struct sim_call, event);

	c->op->kind = OP_NONE;
	free(c);
}

static void streams_join(struct sim_stream *a, struct sim_stream *b)
{
	a->other = b;
	b->other = a;
}

void sim_stream_pair(struct sim_machine *m, struct stream **near, struct stream **far)
{
	struct sim_stream *a = stream_make(m, "unix"), *b = stream_make(m, "unix");

	streams_join(a, b);
	*near = &a->base;
	*far = &b->base;
}

static int call_connect(struct sim_call *c, struct sim_listener *l)
{
	if (l == NULL)
		return address_is_local(c->address) ? -ENOENT : -ECONNREFUSED;
	if (l->n_backlog >= BACKLOG_MAX)
		return address_is_local(c->address) ? -EAGAIN : -ECONNREFUSED;
	char from[SIM_NAME_BYTES];
	snprintf(from, sizeof(from), "%.80s:%u", c->machine->name, (unsigned)(++c->machine->sim->n_connections));
	struct sim_stream *near = stream_make(c->machine, address_is_local(c->address) ? "unix" : c->address);
	struct sim_stream *far = stream_make(l->machine, address_is_local(c->address) ? "unix" : from);
	streams_join(near, far);
	list_remove(&far->link); /* the listener's until it is accepted */
	list_append(&l->backlog, &far->link);
	l->n_backlog++;
	listener_knock(l);
	*c->op->new_stream = &near->base;
	return 0;
}

static void call_happen(struct sim_event *e)
{
	struct sim_call *c = container_of(e, struct sim_call, event);
	struct sim_listener *l = listener_find(c->machine, c->address);
	bool is_parted =
	    l != NULL && (sim_net_is_blocked(c->machine, l->machine) || sim_net_is_blocked(l->machine, c->machine));

	if (is_parted && !c->has_timed_out) {
		c->has_timed_out = true;
		sim_event_add(c->machine->reactor, &c->event, CONNECT_TIMEOUT_NS);
		return;
	}
	int res = is_parted ? -ETIMEDOUT : call_connect(c, l);
	struct op *op = c->op;
	free(c);
	op_deliver(op, res);
}

void sim_net_connect(struct reactor *r, struct op *op, const char *address, struct stream **out)
{
	struct sim_reactor *home = sim_reactor_of(r);

	if (home->machine->is_crash_due) {
		sim_op_keep(home, op);
		return;
	}
	struct sim_call *c = calloc(1, sizeof(*c));
	quarry_assert(c != NULL);
	quarry_assert(strlen(address) < sizeof(c->address));
	op->new_stream = out;
	c->event = (struct sim_event){.happen = call_happen, .vanish = call_vanish};
	c->machine = home->machine;
	c->op = op;
	snprintf(c->address, sizeof(c->address), "%s", address);
	sim_event_add(home, &c->event, latency_ns(home->machine->sim));
}

void sim_net_submit(struct sim_reactor *r, struct op *op)
{
	if (r->machine->is_crash_due) {
		sim_op_keep(r, op);
		return;
	}
	if (op->kind == OP_ACCEPT) {
		struct sim_listener *l = listener_of(op->listener);
		quarry_assert(l->accept == NULL && !l->is_closed);
		l->accept = op;
		listener_knock(l);
		return;
	}
	struct sim_stream *st = stream_of(op->stream);
	struct op **slot = op->kind == OP_SEND || op->kind == OP_SEND_FDS ? &st->send : &st->recv;
	quarry_assert(*slot == NULL); /* one at a time in each direction */
	quarry_assert(!st->is_closed && !st->is_dead);
	*slot = op;
	stream_look_again(st);
}

/* ---- crashes, cuts, partitions ---- */

/* Its process is dead, and no event of it is left but what a partition holds. */
static void stream_die(struct sim_stream *st, enum sim_crash_kind kind)
{
	struct sim *s = st->machine->sim;
	struct sim_stream *other = st->other;

	if (other != NULL && !other->is_dead) {
		bool is_reset = kind == SIM_POWER_LOSS || sim_below(s, 2) == 0;
		struct sim_arrival *a = arrival_make(other, st->machine, is_reset ? ARRIVE_RESET : ARRIVE_END, 0);
		arrival_schedule(a, kind == SIM_POWER_LOSS ? NS_PER_S + sim_below(s, SILENCE_MAX_NS) : latency_ns(s));
	}
	stream_part(st);
	if (st->recv != NULL)
		st->recv->kind = OP_NONE;
	if (st->send != NULL)
		st->send->kind = OP_NONE;
	st->recv = st->send = NULL;
}

static void held_purge(struct sim *s, const struct sim_machine *m)
{
	list_each_safe (node, &s->held) {
		struct sim_arrival *a = container_of(node, struct sim_arrival, link);
		if (a->to->machine != m)
			continue;
		list_remove(&a->link);
		arrival_end(a);
	}
}

static void listener_die(struct sim_listener *l)
{
	for (struct list *node; (node = list_pop(&l->backlog)) != NULL;)
		list_append(&l->machine->streams, node);
	l->n_backlog = 0;
	l->is_dead = true;
	if (l->accept != NULL)
		l->accept->kind = OP_NONE;
	l->accept = NULL;
}

void sim_net_crash(struct sim_machine *m, enum sim_crash_kind kind)
{
	held_purge(m->sim, m);
	list_each (node, &m->listeners)
		listener_die(container_of(node, struct sim_listener, link));
	list_splice(&m->dead_listeners, &m->listeners);
	list_each (node, &m->streams)
		container_of(node, struct sim_stream, link)->is_dead = true;
	list_each (node, &m->streams)
		stream_die(container_of(node, struct sim_stream, link), kind);
	list_splice(&m->dead_streams, &m->streams);
}

void sim_net_destroy(struct sim_machine *m)
{
	sim_net_crash(m, SIM_KILL);
	list_each_safe (node, &m->dead_streams) {
		struct sim_stream *st = container_of(node, struct sim_stream, link);
		st->is_closed = true;
		stream_maybe_free(st);
	}
	list_each_safe (node, &m->dead_listeners)
		free(container_of(node, struct sim_listener, link));
	quarry_assert(list_is_empty(&m->dead_streams));
}

void sim_net_fini(struct sim *s)
{
	for (struct list *node; (node = list_pop(&s->held)) != NULL;)
		arrival_end(container_of(node, struct sim_arrival, link));
	for (struct list *node; (node = list_pop(&s->partitions)) != NULL;)
		free(container_of(node, struct sim_link, link));
}

void sim_net_cut(struct sim_machine *a, struct sim_machine *b)
{
	list_each (node, &a->streams) {
		struct sim_stream *st = container_of(node, struct sim_stream, link);
		struct sim_stream *other = st->other;
		if (other == NULL || other->machine != b)
			continue;
		st->error = other->error = -ECONNRESET;
		stream_part(st);
		stream_look_again(st);
		stream_look_again(other);
	}
}

/* What was held is there now, before anything that is still on its way (invariant 2). */
static void partition_heal(struct sim *s, struct sim_link *p)
{
	list_each_safe (node, &s->held) {
		struct sim_arrival *a = container_of(node, struct sim_arrival, link);
		struct sim_stream *st = a->to;
		if (a->from != p->from || st->machine != p->to)
			continue;
		list_remove(&a->link);
		stream_look_again(st);
		if (arrival_take(a))
			st->n_events--;
		else
			arrival_end(a);
	}
	list_remove(&p->link);
	free(p);
}

void sim_net_block(struct sim_machine *from, struct sim_machine *to, bool is_blocked)
{
	struct sim *s = from->sim;
	struct sim_link *p = partition_find(s, from, to);

	quarry_assert(from != to);
	if (p != NULL && !is_blocked) {
		partition_heal(s, p);
	} else if (p == NULL && is_blocked) {
		p = calloc(1, sizeof(*p));
		quarry_assert(p != NULL);
		p->from = from;
		p->to = to;
		list_append(&s->partitions, &p->link);
	}
}

void sim_net_partition(struct sim_machine *a, struct sim_machine *b, bool is_parted)
{
	sim_net_block(a, b, is_parted);
	sim_net_block(b, a, is_parted);
}
