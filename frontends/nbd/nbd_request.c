/*
 * nbd_request.c: one command of a client, from its header to the last byte of its reply.
 *
 *   ADMIT -> RECEIVE -> SERVE -> REPLY -> FREE
 *
 * ADMIT takes the buffer that the request needs: up to 1 MiB it is one piece, a larger one goes through a window of up
 * to PIECES buffers, each used again for a later part when its part is written or sent. The window widens while its
 * client keeps up, by buffers that are free: so a client that begins a large request and then hardly sends or takes a
 * byte of it holds one buffer. A request that was admitted never waits for memory, and whatever is in flight comes to
 * an end by itself.
 *
 * A connection gets a buffer only while it holds no more than half of what is free (or SHARE_MIN_BYTES, or nothing
 * yet): clients that take their replies slowly leave half to the others, and those half of that, and so on. A request
 * that is longer than what has to be whole takes smaller pieces the more is in use, and no second one when that is more
 * than half: so hundreds of clients can begin such requests and leave room.
 *
 *   a piece of a read:   IDLE -> WORKING -> FILLED -> QUEUED -> SENDING -> IDLE
 *   a piece of a write:  IDLE -> FILLING -> WORKING -> IDLE
 *   the last message:    IDLE -> QUEUED -> SENDING -> IDLE
 *
 * Invariants
 *  1. Pieces are taken in turn, begin_at the next one, and parts queued for sending in the same turn, queue_at the
 *     next; n_begun and n_queued count parts. The window widens only where the turn begins again, so the turn holds.
 *  2. A buffer belongs to the volume while its piece is WORKING, to the wire while it is FILLING and a receive is
 *     under way or while it is SENDING; a request returns to the pool only when all its pieces are IDLE.
 *  3. Exactly one message ends a reply, and it is queued last.
 *  4. A simple reply of several pieces begins when all of its first window was read without an error; what fails
 *     after that cannot be said any more and ends the connection, as the protocol demands.
 *  5. Payload of a write that was refused or failed is taken from the wire and thrown away before the reply goes out.
 *  6. In ADMIT and RECEIVE a request is its connection's `arriving` one, and only transmission_receive() runs it.
 */
#include "frontends/nbd/nbd_internal.h"

#include <errno.h>
#include <stdio.h>

_Static_assert(sizeof(struct volume_extent) >= NBD_EXTENT_BYTES, "extents are encoded in place");
_Static_assert(STATUS_BUFFER_BYTES <= BUFFER_MAX_BYTES, "the extents fit into a buffer");
/* CACHE brings the maps of so much into memory, which is all that quarry caches. */
#define CACHE_BYTES_MAX (64 * MIB)

/* ---- errors ---- */

/* The first error is the one that is told. */
static void request_fail(struct nbd_request *r, uint32_t error, const char *why)
{
	quarry_assert(error != NBD_OK);
	if (r->error != NBD_OK)
		return;
	r->error = error;
	r->why = why;
}

static void request_fail_volume(struct nbd_request *r, int res)
{
	uint32_t error = nbd_error_of(res);

	/* ENOTSUP answers FAST_ZERO alone: there it is no failure but the question's answer */
	bool is_answer = error == NBD_ENOTSUP && (r->flags & NBD_CMD_FAST_ZERO);
	if (error == NBD_ENOTSUP && !is_answer)
		error = NBD_EIO;
	if (!is_answer)
		counter_add(&r->connection->server->counters.errors, 1);
	request_fail(r, error, nbd_error_text(error));
}

/* ---- buffers ---- */

static bool share_allows(const struct nbd_connection *c, uint32_t len_bytes)
{
	const struct buffers *b = c->server->buffers;
	uint64_t free_bytes = buffers_budget_bytes(b) - buffers_used_bytes(b);

	if (c->held_bytes == 0)
		return true;
	return c->held_bytes + len_bytes <= max_u64(SHARE_MIN_BYTES, free_bytes / 2);
}

/* More than half of them is in use. */
static bool buffers_are_scarce(const struct nbd_connection *c)
{
	return buffers_used_bytes(c->server->buffers) > buffers_budget_bytes(c->server->buffers) / 2;
}

/* The size of a request's pieces, of which it wants one of want_bytes. */
static uint32_t piece_size(const struct nbd_connection *c, uint32_t want_bytes)
{
	const struct buffers *b = c->server->buffers;

	if (want_bytes <= SHARE_MIN_BYTES || buffers_used_bytes(b) < buffers_budget_bytes(b) / 4)
		return want_bytes;
	return buffers_are_scarce(c) ? CUT_MIN_BYTES : SHARE_MIN_BYTES;
}

static void piece_give(struct nbd_piece *p, void *buffer)
{
	quarry_assert(p->stage == PIECE_IDLE && !p->buffer);
	p->buffer = buffer;
	p->request->connection->held_bytes += p->request->piece_bytes;
}

static void piece_put_buffer(struct nbd_piece *p)
{
	struct nbd_request *r = p->request;
	struct nbd_connection *c = r->connection;

	if (!p->buffer)
		return;
	quarry_assert(c->held_bytes >= r->piece_bytes);
	c->held_bytes -= r->piece_bytes;
	buffers_put(c->server->buffers, p->buffer, r->piece_bytes);
	p->buffer = NULL;
	connection_wake(c); /* its share has room again */
}

/* Has done its part; the buffer goes back unless there is more to do. */
static void piece_rest(struct nbd_piece *p)
{
	struct nbd_request *r = p->request;

	quarry_assert(p->stage != PIECE_IDLE);
	p->stage = PIECE_IDLE;
	if (r->command == NBD_CMD_BLOCK_STATUS)
		return; /* other pieces send from its buffer: it goes back at the end */
	if (r->next_bytes == r->end_bytes || r->error != NBD_OK)
		piece_put_buffer(p);
}

/* ---- pieces ---- */

/* One buffer more for a request of several parts, as far as its share goes; it can do without. */
static bool window_widen(struct nbd_request *r)
{
	struct nbd_connection *c = r->connection;

	if (r->n_pieces == PIECES || buffers_are_scarce(c) || !share_allows(c, r->piece_bytes))
		return false;
	void *data = buffers_get(c->server->buffers, r->piece_bytes);
	if (!data)
		return false;
	piece_give(&r->pieces[r->n_pieces++], data);
	return true;
}

/* The piece that is next in turn is still busy: may there be another before it? */
static bool window_advance(struct nbd_request *r)
{
	uint32_t n_before = r->n_pieces;
	bool keeps_up = r->command == NBD_CMD_WRITE || r->n_queued > r->n_sending; /* its client took a part */

	if (r->begin_at != 0 || !keeps_up || !window_widen(r))
		return false;
	if (r->n_queued == r->n_begun)
		r->queue_at = n_before;
	r->begin_at = n_before;
	return true;
}

/* The next part of the request, in the next piece; NULL: all parts are taken, or no piece is free yet. */
static struct nbd_piece *piece_begin(struct nbd_request *r)
{
	uint64_t left_bytes = r->end_bytes - r->next_bytes;

	if (left_bytes == 0 || (r->pieces[r->begin_at].stage != PIECE_IDLE && !window_advance(r)))
		return NULL;
	struct nbd_piece *p = &r->pieces[r->begin_at];
	quarry_assert(p->stage == PIECE_IDLE && p->buffer != NULL);
	/* cut at block boundaries, so that a cut costs no read before write */
	if (left_bytes > r->piece_bytes)
		left_bytes = r->piece_bytes - r->next_bytes % BLOCK_BYTES;
	p->pos_bytes = r->next_bytes;
	p->len_bytes = (uint32_t)left_bytes;
	p->filled_bytes = 0;
	r->next_bytes += left_bytes;
	r->begun_at = r->begin_at;
	r->begin_at = (r->begin_at + 1) % r->n_pieces;
	r->n_begun++;
	return p;
}

static void piece_submit(struct nbd_piece *p, enum volume_op op, unsigned flags)
{
	struct nbd_request *r = p->request;

	quarry_assert(p->stage == PIECE_IDLE || p->stage == PIECE_FILLING);
	p->stage = PIECE_WORKING;
	r->n_working++;
	p->io.op = op;
	p->io.flags = flags | (r->connection->is_filler ? VOLUME_FILL : 0);
	p->io.pos_bytes = p->pos_bytes;
	p->io.len_bytes = p->len_bytes;
	p->iov = (struct iovec){.iov_base = p->buffer, .iov_len = p->len_bytes};
	p->io.iov = &p->iov;
	p->io.n_iov = op == VOLUME_READ || op == VOLUME_WRITE ? 1 : 0;
	p->io.extents = NULL;
	p->io.extents_max = 0;
	p->io.n_extents = 0;
	p->io.since = 0;
	volume_submit(r->connection->volume, &p->io);
}

void request_piece_lend(struct nbd_piece *p)
{
	quarry_assert(p->stage == PIECE_IDLE);
	p->stage = PIECE_WORKING;
	p->request->n_working++;
}

void request_piece_map(struct nbd_piece *p, struct volume_extent *extents, uint32_t extents_max)
{
	request_piece_lend(p);
	p->io.op = VOLUME_MAP;
	p->io.flags = p->request->connection->is_filler ? VOLUME_FILL : 0;
	p->io.pos_bytes = p->pos_bytes;
	p->io.len_bytes = p->len_bytes;
	p->io.iov = NULL;
	p->io.n_iov = 0;
	p->io.extents = extents;
	p->io.extents_max = extents_max;
	p->io.n_extents = 0;
	p->io.since = 0;
	volume_submit(p->request->connection->volume, &p->io);
}

/* The door for what the volume completes. */
static void piece_done(struct volume_io *io, int res)
{
	request_piece_done(container_of(io, struct nbd_piece, io), res);
}

void request_piece_done(struct nbd_piece *p, int res)
{
	struct nbd_request *r = p->request;

	quarry_assert(p->stage == PIECE_WORKING && r->n_working > 0);
	r->n_working--;
	if (res != 0)
		request_fail_volume(r, res);
	if (r->error == NBD_OK && r->command == NBD_CMD_BLOCK_STATUS) {
		p->stage = PIECE_IDLE;
		if (!status_answered(r))
			return; /* the next context has been asked for */
		p->stage = PIECE_FILLED;
	} else if (r->error == NBD_OK && r->command == NBD_CMD_READ)
		p->stage = PIECE_FILLED;
	else
		piece_rest(p);
	if (r->stage >= REQUEST_SERVE)
		request_run(r);
	else
		connection_wake(r->connection); /* invariant 6 */
}

/* ---- stage ADMIT ---- */

static void buffer_granted(struct buffer_waiter *w, void *data)
{
	struct nbd_connection *c = container_of(w, struct nbd_connection, waiter);

	quarry_assert(c->waiter_bytes > 0 && !c->granted);
	c->granted = data;
	connection_wake(c);
}

/* The first buffer: of the size it wants, or a smaller one if it is cut anyhow, for which it waits in line. NULL:
 * waits. */
static void *admit_first(struct nbd_request *r, uint32_t want_bytes)
{
	struct nbd_connection *c = r->connection;
	struct nbd_server *s = c->server;

	if (c->granted) {
		void *granted = c->granted;
		r->piece_bytes = c->waiter_bytes;
		c->granted = NULL;
		c->waiter_bytes = 0;
		return granted;
	}
	r->piece_bytes = piece_size(c, want_bytes);
	if (c->waiter_bytes > 0 || !share_allows(c, r->piece_bytes))
		return NULL; /* its own pieces come back first, and wake it */
	void *data = buffers_get(s->buffers, r->piece_bytes);
	if (!data && want_bytes > SHARE_MIN_BYTES) {
		r->piece_bytes = CUT_MIN_BYTES;
		data = buffers_get(s->buffers, CUT_MIN_BYTES);
	}
	if (data)
		return data;
	c->waiter_bytes = r->piece_bytes;
	c->waiter.ready = buffer_granted;
	counter_add(&s->counters.waits_buffers, 1);
	buffers_wait(s->buffers, &c->waiter, c->waiter_bytes);
	return NULL;
}

/* A large read has one part with the volume while another one is on the wire. */
static void admit_read(struct nbd_request *r)
{
	bool is_cut = r->end_bytes - r->pos_bytes > r->piece_bytes;

	if (is_cut)
		(void)window_widen(r);
	r->in_order = is_cut && !r->connection->terms.is_structured;
}

static uint32_t buffer_wanted(const struct nbd_request *r)
{
	if (r->error != NBD_OK || r->pos_bytes == r->end_bytes)
		return 0;
	if (r->command == NBD_CMD_READ || r->command == NBD_CMD_WRITE)
		return (uint32_t)min_u64(r->end_bytes - r->pos_bytes, PIECE_BYTES_MAX);
	if (r->command == NBD_CMD_BLOCK_STATUS)
		return status_buffer_bytes(r->connection);
	if (r->command == NBD_CMD_CACHE)
		return STATUS_BUFFER_BYTES;
	return 0;
}

static enum flow request_admit(struct nbd_request *r)
{
	uint32_t want_bytes = buffer_wanted(r);

	quarry_assert(r->n_pieces == 1);
	if (want_bytes == 0)
		return FLOW_NEXT;
	void *data = admit_first(r, want_bytes);
	if (!data)
		return FLOW_WAIT;
	piece_give(&r->pieces[0], data);
	if (r->command == NBD_CMD_READ)
		admit_read(r);
	if (r->command == NBD_CMD_BLOCK_STATUS) /* a piece for each answer; only the first has a buffer */
		r->n_pieces = status_n_contexts(r->connection);
	return FLOW_NEXT;
}

/* ---- stage RECEIVE ---- */

struct nbd_piece *request_filling(struct nbd_request *r)
{
	if (r->n_begun == 0)
		return NULL;
	struct nbd_piece *p = &r->pieces[r->begun_at];
	return p->stage == PIECE_FILLING ? p : NULL;
}

static void receive_skip(struct nbd_request *r)
{
	struct nbd_connection *c = r->connection;
	uint32_t n = (uint32_t)min_u64(r->to_come_bytes, intake_bytes(c));

	intake_take(c, n);
	r->to_come_bytes -= n;
}

static void receive_copy(struct nbd_request *r, struct nbd_piece *p)
{
	struct nbd_connection *c = r->connection;
	uint32_t n = (uint32_t)min_u64(p->len_bytes - p->filled_bytes, intake_bytes(c));

	quarry_assert(n <= r->to_come_bytes);
	memcpy(p->buffer + p->filled_bytes, intake_next(c), n);
	intake_take(c, n);
	p->filled_bytes += n;
	r->to_come_bytes -= n;
}

/* Small payloads are copied out of the intake, where one receive brought many; of a large one only the beginning is,
 * the rest is received into the piece. */
static enum flow request_receive(struct nbd_request *r)
{
	unsigned flags = r->flags & NBD_CMD_FUA ? VOLUME_FUA : 0;

	quarry_assert(r->command == NBD_CMD_WRITE || r->to_come_bytes == 0);
	for (;;) {
		struct nbd_piece *p = request_filling(r);
		if (p && r->error != NBD_OK) {
			piece_rest(p);
			p = NULL;
		}
		if (p && p->filled_bytes == p->len_bytes) {
			piece_submit(p, VOLUME_WRITE, flags);
			p = NULL;
		}
		if (r->to_come_bytes == 0)
			return FLOW_NEXT;
		if (intake_bytes(r->connection) == 0 && (p || r->error != NBD_OK))
			return FLOW_WAIT; /* for bytes */
		if (r->error != NBD_OK) {
			receive_skip(r);
			continue;
		}
		if (!p && !(p = piece_begin(r)))
			return FLOW_WAIT; /* for a piece to be written */
		p->stage = PIECE_FILLING;
		receive_copy(r, p);
	}
}

/* ---- stage SERVE ---- */

/* Queues what was read, in order, when its turn has come. */
static void serve_release(struct nbd_request *r)
{
	if (r->in_order && !r->in_progress && r->n_working > 0)
		return; /* invariant 4 */
	while (r->error == NBD_OK && r->n_queued < r->n_begun) {
		struct nbd_piece *p = &r->pieces[r->queue_at];
		if (p->stage != PIECE_FILLED)
			return;
		if (r->connection->terms.is_structured)
			message_read_chunk(p);
		else
			message_read_simple(p);
		r->in_progress = r->in_order;
		message_queue(p);
		r->queue_at = (r->queue_at + 1) % r->n_pieces;
		r->n_queued++;
	}
}

/* A part failed: what was read behind it is not sent any more. */
static void serve_abandon(struct nbd_request *r)
{
	quarry_assert(r->error != NBD_OK);
	for (uint32_t i = 0; i < r->n_pieces; i++) {
		struct nbd_piece *p = &r->pieces[i];
		if (p->stage == PIECE_FILLED)
			piece_rest(p);
		else if (p->stage == PIECE_IDLE)
			piece_put_buffer(p);
	}
	if (!r->in_progress)
		return;
	r->is_answered = true;
	connection_close(r->connection, "a read failed when its reply had begun");
}

static enum flow serve_read(struct nbd_request *r)
{
	struct nbd_piece *p;

	while (r->error == NBD_OK && (p = piece_begin(r)) != NULL)
		piece_submit(p, VOLUME_READ, 0);
	serve_release(r);
	if (r->n_working > 0)
		return FLOW_WAIT;
	if (r->error != NBD_OK) {
		serve_abandon(r);
		return FLOW_NEXT;
	}
	return r->next_bytes == r->end_bytes && r->n_queued == r->n_begun ? FLOW_NEXT : FLOW_WAIT;
}

static unsigned zero_flags(const struct nbd_request *r)
{
	return (r->flags & NBD_CMD_FUA ? VOLUME_FUA : 0) | (r->flags & NBD_CMD_NO_HOLE ? VOLUME_NO_HOLE : 0) |
	       (r->flags & NBD_CMD_FAST_ZERO ? VOLUME_FAST_ZERO : 0);
}

/* A command that is one request to the volume, whatever its length. */
static void serve_submit(struct nbd_request *r)
{
	struct nbd_piece *p = &r->pieces[0];
	unsigned fua = r->flags & NBD_CMD_FUA ? VOLUME_FUA : 0;

	r->n_begun = 1;
	r->next_bytes = r->end_bytes;
	p->pos_bytes = r->pos_bytes;
	p->len_bytes = (uint32_t)(r->end_bytes - r->pos_bytes);
	switch (r->command) {
	case NBD_CMD_FLUSH:
		if (!r->connection->terms.is_read_only)
			piece_submit(p, VOLUME_FLUSH, 0);
		break;
	case NBD_CMD_TRIM:
		piece_submit(p, VOLUME_TRIM, fua);
		break;
	case NBD_CMD_WRITE_ZEROES:
		piece_submit(p, VOLUME_ZERO, zero_flags(r));
		break;
	case NBD_CMD_CACHE:
		p->len_bytes = (uint32_t)min_u64(p->len_bytes, CACHE_BYTES_MAX);
		request_piece_map(p, (struct volume_extent *)(void *)p->buffer, STATUS_EXTENTS);
		break;
	case NBD_CMD_BLOCK_STATUS:
		status_begin(r);
		break;
	default:
		quarry_assert(r->command == NBD_CMD_WRITE); /* submitted as it arrived */
	}
}

static enum flow request_serve(struct nbd_request *r)
{
	if (r->command == NBD_CMD_READ)
		return serve_read(r);
	bool is_empty = r->pos_bytes == r->end_bytes && r->command != NBD_CMD_FLUSH;
	if (r->n_begun == 0 && r->error == NBD_OK && !is_empty)
		serve_submit(r);
	return r->n_working > 0 ? FLOW_WAIT : FLOW_NEXT;
}

/* ---- stage REPLY ---- */

static struct nbd_piece *piece_idle(struct nbd_request *r)
{
	for (uint32_t i = 0; i < r->n_pieces; i++)
		if (r->pieces[i].stage == PIECE_IDLE)
			return &r->pieces[i];
	return NULL;
}

/* The message that ends the reply, unless the last part of a read was it. */
static void reply_last(struct nbd_request *r)
{
	r->is_answered = true;
	if (r->command == NBD_CMD_BLOCK_STATUS && r->error == NBD_OK) {
		status_reply(r);
		return;
	}
	struct nbd_piece *p = piece_idle(r);
	quarry_assert(p != NULL); /* the one that failed, or the only one */
	if (r->error != NBD_OK)
		message_error(p);
	else
		message_done(p);
	message_queue(p);
}

static enum flow request_reply(struct nbd_request *r)
{
	if (!r->is_answered)
		reply_last(r);
	return r->n_sending > 0 ? FLOW_WAIT : FLOW_NEXT;
}

static void request_count(const struct nbd_request *r)
{
	struct nbd_connection *c = r->connection;
	struct nbd_counters *n = &c->server->counters;
	uint64_t len_bytes = r->end_bytes - r->pos_bytes;

	c->n_served++;
	if (r->error != NBD_OK)
		return;
	if (r->command == NBD_CMD_READ) {
		c->read_bytes += len_bytes;
		counter_add(&n->read_bytes, len_bytes);
	} else if (r->command == NBD_CMD_WRITE) {
		c->write_bytes += len_bytes;
		counter_add(&n->write_bytes, len_bytes);
	}
}

static void request_end(struct nbd_request *r)
{
	struct nbd_connection *c = r->connection;

	for (uint32_t i = 0; i < r->n_pieces; i++) {
		quarry_assert(r->pieces[i].stage == PIECE_IDLE);
		piece_put_buffer(&r->pieces[i]);
	}
	quarry_assert(list_is_empty(&r->following));
	request_count(r);
	list_remove(&r->link);
	c->n_requests--;
	r->connection = NULL;
	server_request_put(c->server, r);
	connection_wake(c);
}

/* ---- the dispatcher ---- */

static void request_check(const struct nbd_request *r)
{
	const struct nbd_connection *c = r->connection;

	quarry_assert(r->n_pieces >= 1 && r->n_pieces <= PIECES);
	quarry_assert(r->next_bytes >= r->pos_bytes && r->next_bytes <= r->end_bytes);
	quarry_assert(r->n_queued <= r->n_begun);
	quarry_assert(r->begin_at < r->n_pieces && r->queue_at < r->n_pieces && r->begun_at < r->n_pieces);
	quarry_assert(r->n_working + r->n_sending <= r->n_pieces);
	quarry_assert((r->error == NBD_OK) == (r->why == NULL));
	if (r->stage == REQUEST_ADMIT || r->stage == REQUEST_RECEIVE)
		quarry_assert(c->arriving == r && !c->wire.is_receiving && !r->is_answered);
	else
		quarry_assert(r->to_come_bytes == 0);
	if (r->stage == REQUEST_REPLY)
		quarry_assert(r->n_working == 0);
}

/* Read this function to know the life of a request. */
void request_run(struct nbd_request *r)
{
	for (;;) {
		request_check(r);
		switch (r->stage) {
		case REQUEST_ADMIT:
			if (request_admit(r) == FLOW_WAIT)
				return;
			r->stage = REQUEST_RECEIVE;
			break;
		case REQUEST_RECEIVE:
			if (request_receive(r) == FLOW_WAIT)
				return;
			r->stage = REQUEST_SERVE;
			break;
		case REQUEST_SERVE:
			if (request_serve(r) == FLOW_WAIT)
				return;
			r->stage = REQUEST_REPLY;
			break;
		case REQUEST_REPLY:
			if (request_reply(r) == FLOW_WAIT)
				return;
			r->stage = REQUEST_FREE;
			request_end(r);
			return;
		case REQUEST_FREE:
			quarry_assert(!"a request in the pool is not run");
		}
	}
}

/* ---- events ---- */

void request_init(struct nbd_request *r)
{
	r->stage = REQUEST_FREE;
	r->connection = NULL;
	list_init(&r->link);
	list_init(&r->following);
	for (uint32_t i = 0; i < PIECES; i++) {
		struct nbd_piece *p = &r->pieces[i];
		p->stage = PIECE_IDLE;
		p->request = r;
		p->buffer = NULL;
		p->io.done = piece_done;
		list_init(&p->link);
	}
}

void request_begin(struct nbd_request *r, struct nbd_connection *c, const struct nbd_request_header *h)
{
	struct nbd_verdict verdict = nbd_judge(h, &c->terms);

	quarry_assert(r->stage == REQUEST_FREE && !r->connection);
	r->stage = REQUEST_ADMIT;
	r->connection = c;
	r->command = h->command;
	r->flags = h->flags;
	r->cookie = h->cookie;
	r->started_ns = c->now_ns;
	r->pos_bytes = r->next_bytes = h->pos_bytes;
	r->end_bytes = h->pos_bytes + (verdict.error == NBD_OK ? h->len_bytes : 0);
	r->to_come_bytes = nbd_payload_bytes(h);
	r->error = verdict.error;
	r->why = verdict.why;
	r->n_pieces = 1;
	r->n_working = r->n_sending = r->n_begun = r->n_queued = r->piece_bytes = 0;
	r->begin_at = r->begun_at = r->queue_at = 0;
	r->in_order = r->in_progress = r->is_answered = false;
	list_init(&r->following);
	list_append(&c->requests, &r->link);
	c->n_requests++;
	struct nbd_counters *n = &c->server->counters;
	if (h->command < NBD_N_COMMANDS)
		counter_add(&n->requests[h->command], 1);
	if (verdict.error != NBD_OK)
		counter_add(&n->requests_refused, 1);
}

void request_piece_sent(struct nbd_piece *p)
{
	struct nbd_request *r = p->request;

	quarry_assert(p->stage == PIECE_QUEUED || p->stage == PIECE_SENDING);
	quarry_assert(r->n_sending > 0);
	r->n_sending--;
	piece_rest(p);
	request_run(r);
}

void request_cut(struct nbd_request *r)
{
	struct nbd_connection *c = r->connection;

	if (c->arriving == r) {
		quarry_assert(!c->wire.is_receiving);
		if (c->waiter_bytes > 0 && c->granted) {
			buffers_put(c->server->buffers, c->granted, c->waiter_bytes);
		} else if (c->waiter_bytes > 0) {
			buffers_cancel(c->server->buffers, &c->waiter);
		}
		c->granted = NULL;
		c->waiter_bytes = 0;
		r->to_come_bytes = 0;
	}
	request_fail(r, NBD_ESHUTDOWN, nbd_error_text(NBD_ESHUTDOWN));
	if (c->arriving == r) {
		request_run(r);
		c->arriving = NULL;
	}
}

/* ---- for people ---- */

const char *request_stage_name(enum nbd_request_stage stage)
{
	static const char *const names[] = {
#define X(name) #name,
	    NBD_REQUEST_STAGES(X)
#undef X
	};
	quarry_assert(stage < array_size(names));
	return names[stage];
}

static const char *request_waits_for(const struct nbd_request *r)
{
	if (r->stage == REQUEST_ADMIT)
		return "a buffer";
	if (r->n_working > 0)
		return "the volume";
	return r->stage == REQUEST_RECEIVE ? "the client to send" : "the client to receive";
}

void request_to_text(const struct nbd_request *r, uint64_t now_ns, char text[static REQUEST_TEXT_BYTES])
{
	char connection[CONNECTION_TEXT_BYTES];

	quarry_assert(r->connection != NULL);
	connection_to_text(r->connection, connection);
	snprintf(text, REQUEST_TEXT_BYTES, "%.220s %s pos=%llu len=%llu stage=%s age_ms=%llu waits for %s", connection,
		 nbd_command_name(r->command), (unsigned long long)r->pos_bytes,
		 (unsigned long long)(r->end_bytes - r->pos_bytes), request_stage_name(r->stage),
		 (unsigned long long)((now_ns - r->started_ns) / NS_PER_MS), request_waits_for(r));
}
