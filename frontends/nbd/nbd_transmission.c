/*
 * nbd_transmission.c: requests out of a connection's bytes, replies into one send per turn.
 *
 * Receiving: one receive brings what there is, usually many requests, into the intake; their headers and small payloads
 * are taken out of it. When a payload goes on beyond the intake, the next receive puts the rest straight into the
 * request's buffer and what follows behind it into the intake again. Nothing is received while a request waits for its
 * share, so the client is held back by its own socket.
 *
 * Sending: messages queue up during a turn and leave together at its end, straight from the buffers that the volume
 * filled.
 *
 * Invariants
 *  1. While a receive is under way the intake holds no whole header, and nothing is taken from it.
 *  2. At most one request is arriving; the next header is looked at when it has all its bytes.
 *  3. Messages go out in the order of the queue, except that the parts of a simple reply follow each other with
 *     nothing between them (`exclusive`).
 *  4. A message is in exactly one of: queue, a request's following, sending.
 */
#include "frontends/nbd/nbd_internal.h"

/* Behind the rest of a large payload only headers are expected: what else came would have to be copied. */
#define LARGE_PAYLOAD_BYTES (64u * 1024u)
#define BEHIND_LARGE_BYTES  4096u

/* ---- receiving ---- */

/* Moves what is left to the front, so that all the room is behind it. */
static struct iovec intake_room(struct nbd_connection *c)
{
	uint32_t left_bytes = intake_bytes(c);

	if (left_bytes > 0 && c->intake_start > 0)
		memmove(c->intake, c->intake + c->intake_start, left_bytes);
	c->intake_start = 0;
	c->intake_end = left_bytes;
	quarry_assert(left_bytes < INTAKE_BYTES);
	return (struct iovec){.iov_base = c->intake + left_bytes, .iov_len = INTAKE_BYTES - left_bytes};
}

void intake_receive(struct nbd_connection *c)
{
	struct iovec room = intake_room(c);

	c->receiving_bytes = 0;
	counter_add(&c->server->counters.receives, 1);
	wire_receive(&c->wire, &room, 1);
}

/* The rest of the payload goes where it belongs. */
static void payload_receive(struct nbd_connection *c, struct nbd_piece *p)
{
	struct iovec iov[2];
	uint32_t rest_bytes = p->len_bytes - p->filled_bytes;

	quarry_assert(rest_bytes > 0 && intake_bytes(c) == 0);
	iov[0] = (struct iovec){.iov_base = p->buffer + p->filled_bytes, .iov_len = rest_bytes};
	iov[1] = intake_room(c);
	if (rest_bytes >= LARGE_PAYLOAD_BYTES)
		iov[1].iov_len = BEHIND_LARGE_BYTES;
	c->receiving_bytes = rest_bytes;
	counter_add(&c->server->counters.receives, 1);
	wire_receive(&c->wire, iov, 2);
}

void transmission_received(struct nbd_connection *c, uint32_t len_bytes)
{
	uint32_t direct_bytes = (uint32_t)min_u64(len_bytes, c->receiving_bytes);

	if (direct_bytes > 0) {
		struct nbd_piece *p = request_filling(c->arriving);
		quarry_assert(p != NULL && direct_bytes <= p->len_bytes - p->filled_bytes);
		p->filled_bytes += direct_bytes;
		c->arriving->to_come_bytes -= direct_bytes;
	}
	c->receiving_bytes = 0;
	c->intake_end += len_bytes - direct_bytes;
	quarry_assert(c->intake_end <= INTAKE_BYTES);
}

/* One more request for this connection? It may take half of what is free, and always one. */
static struct nbd_request *request_admitted(struct nbd_connection *c)
{
	struct nbd_server *s = c->server;

	if (c->n_requests > 0 && (c->n_requests >= CONNECTION_REQUESTS_MAX || c->n_requests >= s->n_free / 2))
		return NULL; /* one of its own ends first, and wakes it */
	struct nbd_request *r = server_request_get(s);
	if (!r)
		server_starve(s, c);
	return r;
}

/* Takes the next request's header; false: none is there, or its time has not come. */
static bool take_header(struct nbd_connection *c)
{
	if (intake_bytes(c) < NBD_REQUEST_BYTES)
		return false;
	struct nbd_request_header h = nbd_request_decode(intake_next(c));
	if (h.magic != NBD_REQUEST_MAGIC) {
		connection_close(c, "what the client sent is not a request");
		return false;
	}
	if (h.command == NBD_CMD_DISC) {
		intake_take(c, NBD_REQUEST_BYTES);
		counter_add(&c->server->counters.requests[NBD_CMD_DISC], 1);
		connection_finish(c);
		return false;
	}
	struct nbd_request *r = request_admitted(c);
	if (!r)
		return false;
	intake_take(c, NBD_REQUEST_BYTES);
	request_begin(r, c, &h);
	c->arriving = r;
	return true;
}

static bool wants_bytes(const struct nbd_connection *c)
{
	if (c->is_ending || c->is_cut)
		return false;
	if (!c->arriving)
		return intake_bytes(c) < NBD_REQUEST_BYTES;
	if (c->arriving->stage != REQUEST_RECEIVE || intake_bytes(c) > 0)
		return false;
	return c->arriving->error != NBD_OK || request_filling(c->arriving) != NULL;
}

void transmission_receive(struct nbd_connection *c)
{
	if (c->wire.is_receiving || c->is_ending || c->is_cut)
		return;
	quarry_assert(c->stage == CONNECTION_TRANSMIT);
	c->now_ns = reactor_now_ns(c->server->reactor);
	while (c->arriving || take_header(c)) {
		request_run(c->arriving);
		if (c->arriving->stage == REQUEST_ADMIT || c->arriving->stage == REQUEST_RECEIVE)
			break;
		c->arriving = NULL;
	}
	if (!wants_bytes(c))
		return;
	struct nbd_piece *p = c->arriving ? request_filling(c->arriving) : NULL;
	if (p)
		payload_receive(c, p);
	else
		intake_receive(c);
}

/* ---- sending ---- */

static bool is_last_part(const struct nbd_piece *p)
{
	return p->pos_bytes + p->len_bytes == p->request->end_bytes;
}

static struct nbd_piece *next_message(struct nbd_connection *c)
{
	struct list *node = list_pop(c->exclusive ? &c->exclusive->following : &c->queue);

	if (!node)
		return NULL;
	struct nbd_piece *p = container_of(node, struct nbd_piece, link);
	quarry_assert(p->stage == PIECE_QUEUED);
	if (p->request->in_progress)
		c->exclusive = is_last_part(p) ? NULL : p->request;
	return p;
}

void transmission_send(struct nbd_connection *c)
{
	uint32_t n_iov = 0, n_messages = 0;
	uint64_t len_bytes = 0;

	if (c->wire.is_sending)
		return;
	quarry_assert(list_is_empty(&c->sending));
	while (n_messages < SEND_MESSAGES && len_bytes < SEND_BYTES_MAX) {
		struct nbd_piece *p = next_message(c);
		if (!p)
			break;
		if (p->header_bytes > 0)
			c->send_iov[n_iov++] = (struct iovec){.iov_base = p->header, .iov_len = p->header_bytes};
		if (p->payload_bytes > 0)
			c->send_iov[n_iov++] =
			    (struct iovec){.iov_base = (void *)(uintptr_t)p->payload, .iov_len = p->payload_bytes};
		p->stage = PIECE_SENDING;
		list_append(&c->sending, &p->link);
		len_bytes += p->header_bytes + p->payload_bytes;
		n_messages++;
	}
	if (n_messages == 0)
		return;
	quarry_assert(n_iov <= array_size(c->send_iov));
	c->sending_bytes = len_bytes;
	counter_add(&c->server->counters.sends, 1);
	wire_send(&c->wire, c->send_iov, n_iov);
}

static void messages_end(struct list *messages)
{
	for (struct list *node; (node = list_pop(messages)) != NULL;)
		request_piece_sent(container_of(node, struct nbd_piece, link));
}

void transmission_sent(struct nbd_connection *c)
{
	struct list sent;

	list_init(&sent);
	list_splice(&sent, &c->sending);
	messages_end(&sent);
}

/* Ending a message may make its request queue another. */
void transmission_drop(struct nbd_connection *c)
{
	struct list dropped;

	quarry_assert(c->is_cut);
	list_init(&dropped);
	c->exclusive = NULL;
	do {
		list_each (node, &c->requests)
			list_splice(&dropped, &container_of(node, struct nbd_request, link)->following);
		list_splice(&dropped, &c->queue);
		messages_end(&dropped);
	} while (!list_is_empty(&c->queue));
}
