/*
 * peer_connection.c: frames in and out of one stream.
 *
 *   in:  HEAD --header and body there--> PLACE --memory--> DATA --all there--> arrived() -> HEAD
 *   out: queue --turn end--> flying --sent--> sent()
 *   the whole: (SECURE) -> OPEN --close, error, end--> CUT --no op left--> ended() -> GONE
 *
 * Invariants
 *  1. One receive and one send are under way at most; while either is, the stream, the intake, the placed data and what
 *     flies belong to the kernel. ended() comes when neither is.
 *  2. Nothing is believed before its checksum: the header's before its lengths, the body's before its fields. A frame
 *     that is refused ends the connection before any of it reaches the owner.
 *  3. Every message that was given to send() is given back by sent(), in order, exactly once, and before ended().
 *  4. What place() gave is given back by arrived() or displaced(), exactly once.
 *  5. The owner is never called from within its own call: results of send() and close() come at the turn's end or later.
 *     From within arrived() and sent() it may call everything but destroy().
 *  6. Where there are credentials not a byte of a frame goes out or is looked at before both sides have proved that they
 *     have the key, which they must within PEER_HANDSHAKE_NS.
 *  7. Memory is bounded: an intake of a fixed size, and one placed message. Who reads slowly makes the sender wait.
 *
 * Owner: the reactor.
 */
#include "replication/peer_connection.h"

#include "daemon/core/checksum.h"
#include "daemon/core/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INTAKE_BYTES (64u * 1024u)
#define FLYING_IOV   192u /* of one send; a message has at most PEER_OUT_DATA_MAX + 1 */
_Static_assert(INTAKE_BYTES >= 2 * (PEER_HEADER_BYTES + PEER_BODY_MAX),
	       "a header with its body fits, wherever it begins");
_Static_assert(FLYING_IOV >= PEER_OUT_DATA_MAX + 1, "any message fits into one send");

enum in_stage { IN_HEAD, IN_PLACE, IN_DATA };
enum connection_stage { CONNECTION_SECURE, CONNECTION_OPEN, CONNECTION_CUT, CONNECTION_GONE };

struct peer_connection {
	struct reactor *reactor;
	struct wire wire;
	struct timer handshake; /* runs in SECURE */
	const struct peer_connection_calls *calls;
	void *context;
	enum connection_stage stage;
	struct turn_hook hook;
	struct peer_connection_counters counters;
	bool is_secured; /* the first thing that the wire has sent is its handshake, unless it has none */
	int res;         /* why it was cut */
	char why[PEER_WHY_BYTES];

	enum in_stage in_stage;
	bool has_header; /* of in.header: the body is awaited */
	bool is_starved; /* place() had no memory */
	struct iovec recv_iov[WIRE_RECEIVE_VECTORS];
	struct peer_in in;
	uint32_t data_bytes; /* of in.data, that are there */
	uint32_t start, end; /* of what is in the intake */

	struct list queue, flying; /* struct peer_out */
	struct iovec send_iov[FLYING_IOV];

	uint8_t intake[INTAKE_BYTES];
};

static void connection_wake(struct peer_connection *c)
{
	reactor_at_turn_end(c->reactor, &c->hook);
}

static void connection_check(const struct peer_connection *c)
{
	quarry_assert(c->start <= c->end && c->end <= INTAKE_BYTES);
	quarry_assert(c->in_stage != IN_DATA || (c->in.data && c->data_bytes <= c->in.header.data_bytes));
	quarry_assert(c->in_stage == IN_DATA || !c->in.data);
	quarry_assert(list_is_empty(&c->flying) || c->wire.is_sending);
	quarry_assert(timer_is_running(&c->handshake) == (c->stage == CONNECTION_SECURE));
}

/* ---- out ---- */

void peer_out_encode(struct peer_out *out, struct peer_header *h, const struct peer_message *m, uint8_t *memory)
{
	peer_body_encode(h, m, memory + PEER_HEADER_BYTES);
	peer_header_encode(h, memory);
	out->head = memory;
	out->head_bytes = PEER_HEADER_BYTES + h->body_bytes;
}

void peer_connection_send(struct peer_connection *c, struct peer_out *out)
{
	quarry_assert(c->stage != CONNECTION_GONE);
	quarry_assert(out->head_bytes >= PEER_HEADER_BYTES && out->n_data <= PEER_OUT_DATA_MAX && out->sent);
	list_init(&out->link);
	list_append(&c->queue, &out->link);
	connection_wake(c);
}

/* As many whole messages as one send takes. */
static void out_depart(struct peer_connection *c)
{
	uint32_t n = 0;
	if (c->wire.is_sending || list_is_empty(&c->queue))
		return;
	while (!list_is_empty(&c->queue)) {
		struct peer_out *out = container_of(c->queue.next, struct peer_out, link);
		if (n + 1 + out->n_data > FLYING_IOV)
			break;
		c->send_iov[n++] = (struct iovec){.iov_base = (void *)out->head, .iov_len = out->head_bytes};
		for (uint32_t i = 0; i < out->n_data; i++)
			c->send_iov[n++] = out->data[i];
		list_remove(&out->link);
		list_append(&c->flying, &out->link);
		counter_add(&c->counters.frames_out, 1);
	}
	quarry_assert(n > 0);
	for (uint32_t i = 0; i < n; i++)
		counter_add(&c->counters.bytes_out, c->send_iov[i].iov_len);
	counter_add(&c->counters.sends, 1);
	wire_send(&c->wire, c->send_iov, n);
}

static void outs_give_back(struct list *outs, int res)
{
	struct list *node;
	while ((node = list_pop(outs)) != NULL) {
		struct peer_out *out = container_of(node, struct peer_out, link);
		out->sent(out, res);
	}
}

/* What ended a stream, in words; the converter knows more than a number says. */
static void connection_failed(struct peer_connection *c, int res)
{
	bool is_tls = res == -EPROTO && c->wire.tls;
	peer_connection_close(c, res, is_tls ? tls_why(c->wire.tls) : strerror(-res));
}

static void connection_secured(struct peer_connection *c, int res)
{
	connection_wake(c);
	if (c->stage != CONNECTION_SECURE)
		return;
	timer_stop(c->reactor, &c->handshake);
	c->stage = CONNECTION_OPEN;
	if (res < 0)
		connection_failed(c, res);
}

static void out_done(struct wire *w, int res)
{
	struct peer_connection *c = container_of(w, struct peer_connection, wire);
	struct list flown;
	if (!c->is_secured) {
		c->is_secured = true;
		connection_secured(c, res);
		return;
	}
	list_init(&flown);
	list_splice(&flown, &c->flying);
	connection_wake(c);
	if (res < 0)
		connection_failed(c, res);
	outs_give_back(&flown, res);
}

/* ---- in ---- */

/* The blocks of a message with data, against the checksums in its body. */
static bool data_is_intact(struct peer_connection *c)
{
	const struct peer_in *in = &c->in;
	const struct peer_message *m = &in->message;
	const uint8_t *at = in->data;
	uint32_t n_damaged = 0;
	for (uint32_t i = 0; i < m->n_blocks; i++) {
		if (!peer_block_is_there(m, i))
			continue;
		uint32_t crc = in->header.type == PEER_COPY ? m->stamps[i].crc : m->crcs[i];
		n_damaged += crc32c(0, at, BLOCK_BYTES) != crc;
		at += BLOCK_BYTES;
	}
	quarry_assert((size_t)(at - (const uint8_t *)in->data) == in->header.data_bytes);
	counter_add(&c->counters.damaged_blocks, n_damaged);
	return n_damaged == 0;
}

static void in_arrived(struct peer_connection *c)
{
	struct peer_in *in = &c->in;
	in->is_intact = !in->data || data_is_intact(c);
	c->in_stage = IN_HEAD;
	c->has_header = false;
	counter_add(&c->counters.frames_in, 1);
	c->calls->arrived(c, in);
	in->data = NULL;
}

/* Header and body out of the intake. */
static enum flow in_head(struct peer_connection *c)
{
	char why[PEER_WHY_BYTES];
	const uint8_t *at = c->intake + c->start;
	uint32_t there = c->end - c->start;
	struct peer_header *h = &c->in.header;
	if (!c->has_header) {
		if (there < PEER_HEADER_BYTES)
			return FLOW_WAIT;
		if (peer_header_decode(at, h, why) < 0) {
			peer_connection_close(c, -EPROTO, why);
			return FLOW_WAIT;
		}
		c->has_header = true;
	}
	if (there < PEER_HEADER_BYTES + h->body_bytes)
		return FLOW_WAIT;
	if (peer_body_decode(h, at + PEER_HEADER_BYTES, &c->in.message, why) < 0) {
		peer_connection_close(c, -EPROTO, why);
		return FLOW_WAIT;
	}
	c->start += PEER_HEADER_BYTES + h->body_bytes;
	return FLOW_NEXT;
}

static enum flow in_place(struct peer_connection *c)
{
	quarry_assert(c->calls->place && c->calls->displaced);
	c->in.data = c->calls->place(c, &c->in);
	c->is_starved = c->in.data == NULL;
	c->data_bytes = 0;
	return c->is_starved ? FLOW_WAIT : FLOW_NEXT;
}

/* What the intake has of the data; the rest is received straight to its place. */
static enum flow in_data(struct peer_connection *c)
{
	uint32_t missing = c->in.header.data_bytes - c->data_bytes;
	uint32_t n = (uint32_t)min_u64(missing, c->end - c->start);
	memcpy((uint8_t *)c->in.data + c->data_bytes, c->intake + c->start, n);
	c->start += n;
	c->data_bytes += n;
	return n < missing ? FLOW_WAIT : FLOW_NEXT;
}

static void in_run(struct peer_connection *c)
{
	while (c->stage == CONNECTION_OPEN) {
		switch (c->in_stage) {
		case IN_HEAD:
			if (in_head(c) == FLOW_WAIT)
				return;
			if (c->in.header.data_bytes == 0)
				in_arrived(c);
			else
				c->in_stage = IN_PLACE;
			break;
		case IN_PLACE:
			if (in_place(c) == FLOW_WAIT)
				return;
			c->in_stage = IN_DATA;
			break;
		case IN_DATA:
			if (in_data(c) == FLOW_WAIT)
				return;
			in_arrived(c);
			break;
		}
	}
}

static void in_receive(struct peer_connection *c)
{
	uint32_t n = 0;
	if (c->stage != CONNECTION_OPEN || c->wire.is_receiving || c->is_starved)
		return;
	if (c->start > 0) { /* at most a header with its body, or nothing: it moves to the front */
		memmove(c->intake, c->intake + c->start, c->end - c->start);
		c->end -= c->start;
		c->start = 0;
	}
	if (c->in_stage == IN_DATA)
		c->recv_iov[n++] = (struct iovec){.iov_base = (uint8_t *)c->in.data + c->data_bytes,
						  .iov_len = c->in.header.data_bytes - c->data_bytes};
	quarry_assert(c->end < INTAKE_BYTES);
	c->recv_iov[n++] = (struct iovec){.iov_base = c->intake + c->end, .iov_len = INTAKE_BYTES - c->end};
	wire_receive(&c->wire, c->recv_iov, n);
}

static void in_done(struct wire *w, int res)
{
	struct peer_connection *c = container_of(w, struct peer_connection, wire);
	connection_wake(c);
	if (res < 0)
		connection_failed(c, res);
	else if (res == 0)
		peer_connection_close(c, 0, "the other side has ended the connection");
	if (res <= 0)
		return;
	uint32_t to_data = 0;
	if (c->in_stage == IN_DATA)
		to_data = (uint32_t)min_u64((uint32_t)res, c->in.header.data_bytes - c->data_bytes);
	counter_add(&c->counters.bytes_in, (uint64_t)res);
	c->end += (uint32_t)res - to_data;
	c->data_bytes += to_data;
	/* An empty rest is found complete below. */
	if (c->in_stage == IN_DATA && c->data_bytes == c->in.header.data_bytes && c->stage == CONNECTION_OPEN)
		in_arrived(c);
	in_run(c);
}

/* ---- the whole ---- */

void peer_connection_close(struct peer_connection *c, int res, const char *why)
{
	quarry_assert(res <= 0 && c->stage != CONNECTION_GONE);
	if (c->stage == CONNECTION_CUT)
		return;
	c->stage = CONNECTION_CUT;
	c->res = res;
	snprintf(c->why, sizeof(c->why), "%s", why);
	timer_stop(c->reactor, &c->handshake);
	wire_shutdown(&c->wire);
	connection_wake(c);
}

/* The kernel has nothing of ours any more: everything goes back, then the last call. */
static void connection_end(struct peer_connection *c)
{
	quarry_assert(list_is_empty(&c->flying));
	if (c->in_stage == IN_DATA) {
		c->in_stage = IN_HEAD;
		c->calls->displaced(c, &c->in);
		c->in.data = NULL;
	}
	while (!list_is_empty(&c->queue)) { /* sent() may have more to send */
		struct list all;
		list_init(&all);
		list_splice(&all, &c->queue);
		outs_give_back(&all, c->res < 0 ? c->res : -ENOTCONN);
	}
	c->stage = CONNECTION_GONE;
	c->calls->ended(c, c->res, c->why); /* c may be gone */
}

static void connection_run(struct turn_hook *h)
{
	struct peer_connection *c = container_of(h, struct peer_connection, hook);
	connection_check(c);
	switch (c->stage) {
	case CONNECTION_SECURE:
		break;
	case CONNECTION_OPEN:
		if (c->in_stage == IN_PLACE && !c->is_starved)
			in_run(c); /* resumed */
		in_receive(c);
		if (c->stage == CONNECTION_OPEN)
			out_depart(c);
		break;
	case CONNECTION_CUT:
		if (!wire_is_busy(&c->wire))
			connection_end(c);
		break;
	case CONNECTION_GONE:
		break;
	}
}

void peer_connection_resume(struct peer_connection *c)
{
	if (c->in_stage != IN_PLACE || !c->is_starved || c->stage != CONNECTION_OPEN)
		return;
	c->is_starved = false;
	connection_wake(c);
}

static void handshake_late(struct timer *t)
{
	struct peer_connection *c = container_of(t, struct peer_connection, handshake);
	peer_connection_close(c, -ETIMEDOUT, "the other side did not prove in time that it has the key");
}

int peer_connection_create(const struct peer_connection_options *o, struct peer_connection **out)
{
	struct peer_connection *c = malloc(sizeof(*c)); /* the intake stays untouched until it is used */
	quarry_assert(o->calls->arrived && o->calls->ended && !o->calls->place == !o->calls->displaced);
	if (!c)
		return -ENOMEM;
	memset(c, 0, offsetof(struct peer_connection, intake));
	c->reactor = o->reactor;
	c->calls = o->calls;
	c->context = o->context;
	c->stage = o->credentials ? CONNECTION_SECURE : CONNECTION_OPEN;
	c->is_secured = !o->credentials;
	wire_init(&c->wire, o->reactor, o->stream, in_done, out_done);
	list_init(&c->queue);
	list_init(&c->flying);
	timer_init(&c->handshake, handshake_late);
	turn_hook_init(&c->hook, connection_run);
	int res = o->credentials ? wire_secure(&c->wire, o->credentials, o->side) : 0;
	if (res < 0) {
		wire_forget(&c->wire);
		free(c);
		return res;
	}
	if (o->credentials)
		timer_start(c->reactor, &c->handshake, PEER_HANDSHAKE_NS);
	connection_wake(c);
	*out = c;
	return 0;
}

void peer_connection_destroy(struct peer_connection *c)
{
	quarry_assert(c->stage == CONNECTION_GONE);
	quarry_assert(list_is_empty(&c->queue) && list_is_empty(&c->flying));
	wire_fini(&c->wire);
	free(c);
}

void peer_connection_abandon(struct peer_connection *c)
{
	c->wire.is_receiving = c->wire.is_sending = false; /* the process's operations are gone */
	wire_fini(&c->wire);
	free(c);
}

void *peer_connection_context(const struct peer_connection *c)
{
	return c->context;
}

bool peer_connection_is_open(const struct peer_connection *c)
{
	return c->stage <= CONNECTION_OPEN;
}

const char *peer_connection_peer(const struct peer_connection *c)
{
	return stream_peer(c->wire.stream);
}

const struct peer_connection_counters *peer_connection_counters(const struct peer_connection *c)
{
	return &c->counters;
}
