/*
 * reactor.c: the half of the reactor that io_uring and the simulator share.
 *
 * Every call of reactor.h arrives here. What reaches for the world (files, sockets, clocks) goes on through the
 * implementation's ops; timers, deferred ops and turn-end hooks live here, so both worlds order them alike.
 *
 *          owner                  here                      implementation
 *   op:    OP_NONE --file_read()--> kind set --ops->submit()--> in flight --op_deliver()--> OP_NONE, done()
 *   timer: idle ----timer_start()--> in the heap --due--> in the due list --> idle, fired()
 *
 * Invariants
 *  1. An op's kind is OP_NONE exactly while its owner has it; op_deliver() is the only way back.
 *  2. done() and fired() never run inside the call that started them: what is deferred or started while a turn
 *     delivers waits for the next turn, even when the clock stands still.
 *  3. heap[1..n_timers] is a binary heap by at_ns, and heap[t->heap_index] == t, except for timers that are due in
 *     this turn: they are in a list by their link and carry HEAP_INDEX_DUE, so that timer_stop() still finds them.
 *  4. Within one turn's end no hook runs twice.
 *
 * Owner: the reactor's thread; only reactor_post() and reactor_stop() may be called from others.
 */
#include "daemon/core/reactor_ops.h"

#include <errno.h>

#include <stdlib.h>

/* Timers are few (one per request with a time-out, some per disk); the heap doubles if there are more. */
#define HEAP_SIZE_FIRST 256u
#define HEAP_INDEX_DUE  UINT32_MAX

/* ---- life ---- */

void reactor_base_init(struct reactor *r, const struct reactor_ops *ops)
{
	*r = (struct reactor){.ops = ops, .turn = 1};
	list_init(&r->deferred);
	list_init(&r->turn_hooks);
}

void reactor_base_fini(struct reactor *r)
{
	quarry_assert(list_is_empty(&r->deferred));
	free(r->heap);
	r->heap = NULL;
	r->heap_size = r->n_timers = 0;
}

void reactor_run(struct reactor *r)
{
	r->ops->run(r);
}

void reactor_stop(struct reactor *r)
{
	r->is_stopping = true;
	r->ops->wake(r);
}

void reactor_post(struct reactor *r, struct message *m)
{
	quarry_assert(m->deliver != NULL);
	r->ops->post(r, m);
}

/* ---- operations ---- */

void op_deliver(struct op *op, int res)
{
	quarry_assert(op->kind != OP_NONE);
	quarry_assert(op->done != NULL);
	list_remove(&op->link);
	op->kind = OP_NONE;
	op->done(op, res);
}

/* Makes the op the reactor's. */
static void op_begin(struct op *op, enum op_kind kind)
{
	quarry_assert(op->kind == OP_NONE);
	quarry_assert(!list_is_linked(&op->link));
	op->kind = kind;
	op->res = 0;
	op->new_stream = NULL;
	op->fds = NULL;
	op->iov = NULL;
	op->n_iov = 0;
	op->pos_bytes = op->len_bytes = op->done_bytes = 0;
}

static void op_begin_transfer(struct op *op, enum op_kind kind, const struct iovec *iov, uint32_t n_iov)
{
	op_begin(op, kind);
	op->iov = iov;
	op->n_iov = n_iov;
	for (uint32_t i = 0; i < n_iov; i++)
		op->len_bytes += iov[i].iov_len;
	quarry_assert(op->len_bytes > 0); /* nothing to move: zero would be read as the end of a stream */
}

void reactor_defer(struct reactor *r, struct op *op, int res)
{
	op_begin(op, OP_DEFER);
	op->res = res;
	list_append(&r->deferred, &op->link);
}

/* ---- files ---- */

int reactor_file_open(struct reactor *r, const char *path, unsigned flags, struct file **out)
{
	return r->ops->file_open(r, path, flags, out);
}

void file_close(struct file *f)
{
	f->reactor->ops->file_close(f);
}
int file_lock(struct file *f)
{
	return f->reactor->ops->file_lock(f);
}
int64_t file_size_bytes(struct file *f)
{
	return f->reactor->ops->file_size_bytes(f);
}
bool file_is_device(const struct file *f)
{
	return f->is_device;
}

int file_set_size(struct file *f, uint64_t size_bytes)
{
	return f->reactor->ops->file_set_size(f, size_bytes);
}

int file_remove(struct file *f, const char *path)
{
	return f->reactor->ops->file_remove(f, path);
}

int file_reserve(struct file *f, uint64_t pos_bytes, uint64_t len_bytes, _Atomic uint64_t *written_bytes)
{
	return f->reactor->ops->file_reserve(f, pos_bytes, len_bytes, written_bytes);
}

static void file_submit(struct file *f, struct op *op, uint64_t pos_bytes)
{
	op->file = f;
	op->pos_bytes = pos_bytes;
	f->reactor->ops->submit(f->reactor, op);
}

void file_read(struct file *f, struct op *op, const struct iovec *iov, uint32_t n_iov, uint64_t pos_bytes)
{
	op_begin_transfer(op, OP_READ, iov, n_iov);
	file_submit(f, op, pos_bytes);
}

void file_write(struct file *f, struct op *op, const struct iovec *iov, uint32_t n_iov, uint64_t pos_bytes)
{
	op_begin_transfer(op, OP_WRITE, iov, n_iov);
	file_submit(f, op, pos_bytes);
}

void file_flush(struct file *f, struct op *op)
{
	op_begin(op, OP_FLUSH);
	file_submit(f, op, 0);
}

void file_punch(struct file *f, struct op *op, uint64_t pos_bytes, uint64_t len_bytes)
{
	quarry_assert(len_bytes > 0);
	op_begin(op, OP_PUNCH);
	op->len_bytes = len_bytes;
	file_submit(f, op, pos_bytes);
}

/* ---- streams ---- */

int reactor_listen(struct reactor *r, const char *address, struct listener **out)
{
	return r->ops->listen(r, address, out);
}

void listener_close(struct listener *l)
{
	l->reactor->ops->listener_close(l);
}

void listener_accept(struct listener *l, struct op *op, struct stream **out)
{
	op_begin(op, OP_ACCEPT);
	op->listener = l;
	op->new_stream = out;
	l->reactor->ops->submit(l->reactor, op);
}

void reactor_connect(struct reactor *r, struct op *op, const char *address, struct stream **out)
{
	op_begin(op, OP_CONNECT);
	op->new_stream = out;
	r->ops->connect(r, op, address, out);
}

static void stream_submit(struct stream *s, struct op *op, enum op_kind kind, const struct iovec *iov, uint32_t n_iov)
{
	op_begin_transfer(op, kind, iov, n_iov);
	op->stream = s;
	s->reactor->ops->submit(s->reactor, op);
}

void stream_recv(struct stream *s, struct op *op, const struct iovec *iov, uint32_t n_iov)
{
	stream_submit(s, op, OP_RECV, iov, n_iov);
}

void stream_recv_all(struct stream *s, struct op *op, const struct iovec *iov, uint32_t n_iov)
{
	stream_submit(s, op, OP_RECV_ALL, iov, n_iov);
}

void stream_send(struct stream *s, struct op *op, const struct iovec *iov, uint32_t n_iov)
{
	stream_submit(s, op, OP_SEND, iov, n_iov);
}

static void stream_submit_fds(struct stream *s, struct op *op)
{
	op->stream = s;
	quarry_assert(op->fds != NULL && op->fds->n <= FDS_MAX);
	s->reactor->ops->submit(s->reactor, op);
}

void stream_recv_fds(struct stream *s, struct op *op, const struct iovec *iov, uint32_t n_iov, struct fds *fds)
{
	op_begin_transfer(op, OP_RECV_FDS, iov, n_iov);
	op->fds = fds;
	stream_submit_fds(s, op);
}

void stream_send_fds(struct stream *s, struct op *op, const struct iovec *iov, uint32_t n_iov, struct fds *fds)
{
	op_begin_transfer(op, OP_SEND_FDS, iov, n_iov);
	op->fds = fds;
	stream_submit_fds(s, op);
}

void stream_shutdown(struct stream *s)
{
	s->reactor->ops->stream_shutdown(s);
}
void stream_close(struct stream *s)
{
	s->reactor->ops->stream_close(s);
}
const char *stream_peer(const struct stream *s)
{
	return s->reactor->ops->stream_peer(s);
}

/* ---- shared with other processes ---- */

void reactor_fds_close(struct reactor *r, struct fds *fds)
{
	quarry_assert(fds->n <= FDS_MAX);
	if (fds->n > 0)
		r->ops->fds_close(r, fds->fd, fds->n);
	fds->n = 0;
}

uint32_t reactor_fds_held(struct reactor *r)
{
	return r->ops->fds_held ? r->ops->fds_held(r) : 0;
}

int reactor_stream_take(struct reactor *r, int fd, struct stream **out)
{
	return r->ops->stream_take ? r->ops->stream_take(r, fd, out) : -ENOTSUP;
}

bool reactor_fd_is_memory(struct reactor *r, int fd)
{
	return r->ops->fd_is_memory && r->ops->fd_is_memory(r, fd);
}

int reactor_map(struct reactor *r, int fd, uint64_t pos_bytes, uint64_t len_bytes, struct mapping **out)
{
	return !r->ops->map ? -ENOTSUP : r->ops->map(r, fd, pos_bytes, len_bytes, out);
}
int reactor_share(struct reactor *r, uint64_t len_bytes, int *fd, struct mapping **out)
{
	return !r->ops->share ? -ENOTSUP : r->ops->share(r, len_bytes, fd, out);
}
void mapping_close(struct mapping *m)
{
	m->reactor->ops->mapping_close(m);
}

int reactor_event_open(struct reactor *r, int fd, void (*signalled)(void *context), void *context, struct event **out)
{
	return !r->ops->event_open ? -ENOTSUP : r->ops->event_open(r, fd, signalled, context, out);
}
void event_signal(struct event *e)
{
	e->reactor->ops->event_signal(e);
}
void event_close(struct event *e)
{
	e->reactor->ops->event_close(e);
}

/* ---- clocks and randomness ---- */

uint64_t reactor_now_ns(struct reactor *r)
{
	return r->ops->now_ns(r);
}
uint64_t reactor_wall_ns(struct reactor *r)
{
	return r->ops->wall_ns(r);
}
struct uuid reactor_boot(struct reactor *r)
{
	return r->ops->boot(r);
}
uint64_t reactor_random(struct reactor *r)
{
	return r->ops->random(r);
}

/* ---- timers: a binary heap ---- */

static void heap_place(struct reactor *r, struct timer *t, uint32_t index)
{
	r->heap[index] = t;
	t->heap_index = index;
}

/* Moves t, which may be too early for its place, towards the top. */
static void heap_rise(struct reactor *r, struct timer *t)
{
	uint32_t at = t->heap_index;

	for (; at > 1 && t->at_ns < r->heap[at / 2]->at_ns; at /= 2)
		heap_place(r, r->heap[at / 2], at);
	heap_place(r, t, at);
}

/* Moves t, which may be too late for its place, towards the bottom. */
static void heap_sink(struct reactor *r, struct timer *t)
{
	uint32_t at = t->heap_index;

	for (;;) {
		uint32_t child = at * 2;
		if (child < r->n_timers && r->heap[child + 1]->at_ns < r->heap[child]->at_ns)
			child++;
		if (child > r->n_timers || r->heap[child]->at_ns >= t->at_ns)
			break;
		heap_place(r, r->heap[child], at);
		at = child;
	}
	heap_place(r, t, at);
}

static void heap_remove(struct reactor *r, struct timer *t)
{
	uint32_t at = t->heap_index;

	quarry_assert(at >= 1 && at <= r->n_timers);
	quarry_assert(r->heap[at] == t);
	struct timer *last = r->heap[r->n_timers--];
	if (last != t) {
		heap_place(r, last, at);
		heap_rise(r, last);
		heap_sink(r, last);
	}
	t->heap_index = 0;
}

/* Only more running timers than ever before make it allocate; without that memory no time-out could be kept. */
static void heap_make_room(struct reactor *r)
{
	if (r->n_timers + 1 < r->heap_size)
		return;
	r->heap_size = r->heap_size ? r->heap_size * 2 : HEAP_SIZE_FIRST;
	r->heap = realloc(r->heap, r->heap_size * sizeof(struct timer *));
	quarry_assert(r->heap != NULL);
}

void timer_start(struct reactor *r, struct timer *t, uint64_t delay_ns)
{
	uint64_t now_ns = reactor_now_ns(r);

	quarry_assert(t->fired != NULL);
	timer_stop(r, t);
	heap_make_room(r);
	t->at_ns = delay_ns > UINT64_MAX - 1 - now_ns ? UINT64_MAX - 1 : now_ns + delay_ns;
	heap_place(r, t, ++r->n_timers);
	heap_rise(r, t);
}

void timer_stop(struct reactor *r, struct timer *t)
{
	if (t->heap_index == HEAP_INDEX_DUE)
		list_remove(&t->link);
	else if (t->heap_index != 0)
		heap_remove(r, t);
	t->heap_index = 0;
	quarry_assert(!list_is_linked(&t->link));
}

/* Collects first and calls then, so that a timer started by another with no delay waits for the next turn. */
static bool timers_deliver(struct reactor *r)
{
	struct list due;

	if (r->n_timers == 0)
		return false;
	list_init(&due);
	uint64_t now_ns = reactor_now_ns(r);
	while (r->n_timers > 0 && r->heap[1]->at_ns <= now_ns) {
		struct timer *t = r->heap[1];
		heap_remove(r, t);
		t->heap_index = HEAP_INDEX_DUE;
		list_append(&due, &t->link);
	}
	bool is_any = !list_is_empty(&due);
	for (struct list *node; (node = list_pop(&due)) != NULL;) {
		struct timer *t = container_of(node, struct timer, link);
		t->heap_index = 0;
		t->fired(t);
	}
	return is_any;
}

/* ---- the turn ---- */

bool reactor_base_deliver(struct reactor *r)
{
	struct list now;

	list_init(&now);
	list_splice(&now, &r->deferred);
	bool is_any = !list_is_empty(&now);
	while (!list_is_empty(&now)) {
		struct op *op = container_of(now.next, struct op, link);
		op_deliver(op, op->res);
	}
	return timers_deliver(r) || is_any;
}

void reactor_at_turn_end(struct reactor *r, struct turn_hook *h)
{
	quarry_assert(h->run != NULL);
	if (!list_is_linked(&h->link))
		list_append(&r->turn_hooks, &h->link);
}

void reactor_base_turn_end(struct reactor *r)
{
	struct list later;

	list_init(&later);
	for (struct list *node; (node = list_pop(&r->turn_hooks)) != NULL;) {
		struct turn_hook *h = container_of(node, struct turn_hook, link);
		if (h->turn == r->turn) {
			list_append(&later, &h->link);
			continue;
		}
		h->turn = r->turn;
		h->run(h);
	}
	list_splice(&r->turn_hooks, &later);
	r->turn++;
}

uint64_t reactor_base_next_ns(const struct reactor *r)
{
	if (!list_is_empty(&r->deferred) || !list_is_empty(&r->turn_hooks))
		return 0;
	return r->n_timers > 0 ? r->heap[1]->at_ns : UINT64_MAX;
}
