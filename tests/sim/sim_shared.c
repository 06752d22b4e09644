/*
 * sim_shared.c: descriptors that processes of a simulated world hand to each other, and what is behind them: memory,
 * counters (eventfd), ends of streams, and what does not close before somebody else lets it (a file of FUSE).
 *
 *   thing:  made by a test, or by reactor_share() --the last descriptor, mapping and bell of it closed--> freed
 *   bell:   open (somebody listens to a counter, or signals it) --closed, nothing on its way to it--> freed
 *
 * A descriptor is a number in a table of the world, so whoever forgets to close one is found by sim_n_fds(). They are
 * the world's, not a process's: a virtual machine goes on when its daemon crashes.
 *
 * Memory that is cut (its file has shrunk) becomes zeros and its mappings are broken, as under io_uring after the first
 * touch; here all of them at once.
 *
 * Invariants
 *  1. n_uses of a thing counts its descriptors, its mappings and its bells.
 *  2. Signals happen on a turn of their own, never within the call that made them (rule 1 of reactor.h).
 *  3. A number that was never given out, or was closed, is refused like a bad descriptor.
 */
#include "tests/sim/sim_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FD_FIRST       100000 /* far from the descriptors of this process */
#define LATENCY_MIN_NS (2 * NS_PER_US)

enum thing_kind { THING_MEMORY, THING_COUNTER, THING_STREAM, THING_SLOW };

struct sim_thing {
	enum thing_kind kind;
	uint32_t n_uses;
	uint8_t *bytes; /* MEMORY */
	bool is_file;   /* MEMORY: of a file system on a disk or elsewhere */
	uint64_t len_bytes;
	uint64_t count;        /* COUNTER: signals that nobody has heard of */
	struct list bells;     /* COUNTER */
	struct list mappings;  /* MEMORY */
	struct stream *stream; /* STREAM; NULL: taken */
};

struct sim_mapping {
	struct mapping base; /* first */
	struct sim_thing *thing;
	struct list link;
};

struct sim_bell {
	struct event base; /* first */
	struct sim_thing *thing;
	struct list link;
	uint32_t n_rings; /* on their way */
	bool is_closed;
};

struct sim_ring {
	struct sim_event event; /* first */
	struct sim_bell *bell;
};

/* ---- the table ---- */

static struct sim_thing *thing_at(const struct sim *s, int fd)
{
	return fd >= FD_FIRST && (uint32_t)(fd - FD_FIRST) < s->n_fds ? s->fds[fd - FD_FIRST] : NULL;
}

static struct sim_thing *thing_create(enum thing_kind kind)
{
	struct sim_thing *t = calloc(1, sizeof(*t));

	quarry_assert(t != NULL);
	t->kind = kind;
	list_init(&t->bells);
	list_init(&t->mappings);
	return t;
}

static void thing_put(struct sim_thing *t)
{
	quarry_assert(t->n_uses > 0);
	if (--t->n_uses > 0)
		return;
	quarry_assert(list_is_empty(&t->bells) && list_is_empty(&t->mappings));
	if (t->stream)
		sim_stream_close(t->stream);
	free(t->bytes);
	free(t);
}

static int fd_create(struct sim *s, struct sim_thing *t)
{
	uint32_t at = 0;

	while (at < s->n_fds && s->fds[at])
		at++;
	if (at == s->n_fds) {
		s->fds = realloc(s->fds, (s->n_fds + 16) * sizeof(*s->fds));
		quarry_assert(s->fds != NULL);
		memset(s->fds + s->n_fds, 0, 16 * sizeof(*s->fds));
		s->n_fds += 16;
	}
	t->n_uses++;
	s->fds[at] = t;
	return FD_FIRST + (int)at;
}

int sim_fd_copy(struct sim *s, int fd)
{
	struct sim_thing *t = thing_at(s, fd);

	return t ? fd_create(s, t) : -1;
}

void sim_fd_close(struct sim *s, int fd)
{
	struct sim_thing *t = thing_at(s, fd);

	quarry_assert(t != NULL);
	s->fds[fd - FD_FIRST] = NULL;
	thing_put(t);
}

uint32_t sim_n_fds(const struct sim *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->n_fds; i++)
		n += s->fds[i] != NULL;
	return n;
}

void sim_shared_fini(struct sim *s)
{
	for (uint32_t i = 0; i < s->n_fds; i++)
		if (s->fds[i])
			sim_fd_close(s, FD_FIRST + (int)i);
	free(s->fds);
	s->fds = NULL;
	s->n_fds = 0;
}

/* ---- descriptors beside the bytes of a stream ---- */

void sim_fds_send(struct sim *s, const struct fds *from, struct fds *to)
{
	*to = (struct fds){.n = 0};
	for (uint32_t i = 0; i < from->n; i++) {
		int fd = sim_fd_copy(s, from->fd[i]);
		if (fd >= 0) /* the kernel would refuse to send it: the test does not mean to */
			to->fd[to->n++] = fd;
	}
}

void sim_fds_receive(struct sim *s, struct fds *from, struct fds *to)
{
	for (uint32_t i = 0; i < from->n; i++) {
		if (to && to->n < FDS_MAX)
			to->fd[to->n++] = from->fd[i];
		else if (thing_at(s, from->fd[i])) /* else the world is at its end */
			sim_fd_close(s, from->fd[i]);
	}
	from->n = 0;
}

/* ---- what tests make ---- */

int sim_memory_create(struct sim *s, uint64_t len_bytes)
{
	struct sim_thing *t = thing_create(THING_MEMORY);

	quarry_assert(len_bytes > 0);
	t->len_bytes = len_bytes;
	t->bytes = aligned_alloc(BLOCK_BYTES, (len_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES);
	quarry_assert(t->bytes != NULL);
	memset(t->bytes, 0, len_bytes);
	return fd_create(s, t);
}

uint8_t *sim_memory_at(struct sim *s, int fd, uint64_t *len_bytes)
{
	struct sim_thing *t = thing_at(s, fd);

	quarry_assert(t && t->kind == THING_MEMORY);
	if (len_bytes)
		*len_bytes = t->len_bytes;
	return t->bytes;
}

void sim_memory_cut(struct sim *s, int fd)
{
	struct sim_thing *t = thing_at(s, fd);

	quarry_assert(t && t->kind == THING_MEMORY);
	memset(t->bytes, 0, t->len_bytes);
	list_each (node, &t->mappings)
		container_of(node, struct sim_mapping, link)->base.is_broken = true;
}

int sim_counter_create(struct sim *s)
{
	return fd_create(s, thing_create(THING_COUNTER));
}

int sim_slow_create(struct sim *s)
{
	return fd_create(s, thing_create(THING_SLOW));
}

void sim_slow_end(struct sim *s)
{
	s->n_held = 0;
}

int sim_stream_create(struct sim_machine *m, struct stream **near)
{
	struct sim_thing *t = thing_create(THING_STREAM);

	sim_stream_pair(m, near, &t->stream);
	return fd_create(m->sim, t);
}

/* ---- signals ---- */

static void bell_free_when_over(struct sim_bell *b)
{
	if (!b->is_closed || b->n_rings > 0)
		return;
	list_remove(&b->link);
	thing_put(b->thing);
	free(b);
}

static void ring_vanish(struct sim_event *e)
{
	struct sim_bell *b = container_of(e, struct sim_ring, event)->bell;

	free(container_of(e, struct sim_ring, event));
	b->n_rings--;
	bell_free_when_over(b);
}

static void ring_happen(struct sim_event *e)
{
	struct sim_bell *b = container_of(e, struct sim_ring, event)->bell;

	b->thing->count = 0;
	if (!b->is_closed)
		b->base.signalled(b->base.context); /* may close it */
	ring_vanish(e);
}

static void bell_ring(struct sim_bell *b)
{
	struct sim_reactor *r = sim_reactor_of(b->base.reactor);
	struct sim_ring *ring;

	if (!b->base.signalled || b->is_closed || r->is_dead)
		return;
	ring = calloc(1, sizeof(*ring));
	quarry_assert(ring != NULL);
	*ring = (struct sim_ring){.event = {.happen = ring_happen, .vanish = ring_vanish}, .bell = b};
	b->n_rings++;
	sim_event_add(r, &ring->event,
		      sim_latency_ns(r->machine->sim, LATENCY_MIN_NS, r->machine->sim->latency_max_ns));
}

static void counter_signal(struct sim_thing *t)
{
	t->count++;
	list_each (node, &t->bells)
		bell_ring(container_of(node, struct sim_bell, link));
}

void sim_counter_signal(struct sim *s, int fd)
{
	struct sim_thing *t = thing_at(s, fd);

	quarry_assert(t && t->kind == THING_COUNTER);
	counter_signal(t);
}

uint64_t sim_counter_take(struct sim *s, int fd)
{
	struct sim_thing *t = thing_at(s, fd);

	quarry_assert(t && t->kind == THING_COUNTER);
	uint64_t count = t->count;
	t->count = 0;
	return count;
}

/* ---- the reactor's side ---- */

void sim_shared_close(struct reactor *r, const int *fds, uint32_t n)
{
	struct sim *s = sim_of(r);

	for (uint32_t i = 0; i < n; i++) {
		const struct sim_thing *t = thing_at(s, fds[i]);
		s->n_held += t && t->kind == THING_SLOW;
		sim_fd_close(s, fds[i]);
	}
}

uint32_t sim_shared_held(struct reactor *r)
{
	return sim_of(r)->n_held;
}

int sim_shared_stream(struct reactor *r, int fd, struct stream **out)
{
	struct sim *s = sim_of(r);
	struct sim_thing *t = thing_at(s, fd);
	int res = t && t->kind == THING_STREAM && t->stream ? 0 : -ENOTSOCK;

	if (res == 0) {
		*out = t->stream;
		t->stream = NULL;
	}
	sim_shared_close(r, &fd, 1);
	return res;
}

bool sim_shared_is_memory(struct reactor *r, int fd)
{
	const struct sim_thing *t = thing_at(sim_of(r), fd);

	return t && t->kind == THING_MEMORY && !t->is_file;
}

void sim_memory_set_file(struct sim *s, int fd, bool is_file)
{
	thing_at(s, fd)->is_file = is_file;
}

int sim_shared_map(struct reactor *r, int fd, uint64_t pos_bytes, uint64_t len_bytes, struct mapping **out)
{
	struct sim_thing *t = thing_at(sim_of(r), fd);

	if (!t || t->kind != THING_MEMORY || len_bytes == 0 || pos_bytes > t->len_bytes ||
	    len_bytes > t->len_bytes - pos_bytes)
		return -EINVAL;
	struct sim_mapping *m = calloc(1, sizeof(*m));
	quarry_assert(m != NULL);
	m->base = (struct mapping){.reactor = r, .data = t->bytes + pos_bytes, .len_bytes = len_bytes};
	m->thing = t;
	list_init(&m->link);
	list_append(&t->mappings, &m->link);
	t->n_uses++;
	*out = &m->base;
	return 0;
}

int sim_shared_make(struct reactor *r, uint64_t len_bytes, int *fd, struct mapping **out)
{
	*fd = sim_memory_create(sim_of(r), len_bytes);
	return sim_shared_map(r, *fd, 0, len_bytes, out);
}

void sim_shared_unmap(struct mapping *base)
{
	struct sim_mapping *m = container_of(base, struct sim_mapping, base);

	list_remove(&m->link);
	thing_put(m->thing);
	free(m);
}

int sim_bell_open(struct reactor *r, int fd, void (*signalled)(void *context), void *context, struct event **out)
{
	struct sim *s = sim_of(r);
	struct sim_thing *t = thing_at(s, fd);

	if (!t || t->kind != THING_COUNTER) {
		sim_shared_close(r, &fd, 1);
		return -EINVAL;
	}
	struct sim_bell *b = calloc(1, sizeof(*b));
	quarry_assert(b != NULL);
	b->base = (struct event){.reactor = r, .signalled = signalled, .context = context};
	b->thing = t;
	list_init(&b->link);
	list_append(&t->bells, &b->link);
	t->n_uses++;
	sim_fd_close(s, fd); /* the bell stands for it */
	if (t->count > 0)
		bell_ring(b);
	*out = &b->base;
	return 0;
}

void sim_bell_signal(struct event *base)
{
	struct sim_bell *b = container_of(base, struct sim_bell, base);

	quarry_assert(!b->is_closed);
	counter_signal(b->thing);
}

void sim_bell_close(struct event *base)
{
	struct sim_bell *b = container_of(base, struct sim_bell, base);

	quarry_assert(!b->is_closed);
	b->is_closed = true;
	bell_free_when_over(b);
}
