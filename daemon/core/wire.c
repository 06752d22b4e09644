/*
 * wire.c: moves bytes over a stream, through TLS where it was agreed on.
 *
 * Plain: one hop to the stream. TLS: a receive first takes what was deciphered already, and only then asks the stream
 * for more; a send ciphers as much as has room, sends that, and goes on until all is sent. The handshake uses both
 * directions, one at a time: what arrived is handed to TLS, what TLS wants to say is sent, and so on until it is done.
 *
 * Invariants
 *  1. is_receiving from wire_receive() to received(), is_sending from wire_send(), wire_secure() or wire_goodbye() to
 *     sent().
 *  2. received() and sent() are never called inside the call that asked for them: a result that is known at once is
 *     deferred to the next turn.
 *  3. Under TLS no plain byte reaches the stream, and none that arrived before the handshake is taken for a secured
 *     one (the negotiation sees to it that there is none).
 */
#include "daemon/core/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void wire_received(struct op *op, int res);
static void wire_sent(struct op *op, int res);
static void wire_handshake(struct wire *w);

void wire_init(struct wire *w, struct reactor *r, struct stream *s, void (*received)(struct wire *, int),
	       void (*sent)(struct wire *, int))
{
	*w = (struct wire){.reactor = r, .stream = s, .received = received, .sent = sent};
	op_init(&w->receive_op, wire_received);
	op_init(&w->send_op, wire_sent);
}

void wire_forget(struct wire *w)
{
	quarry_assert(!wire_is_busy(w));
	tls_destroy(w->tls);
	free(w->staging);
	w->tls = NULL;
	w->staging = NULL;
	w->stream = NULL;
}

void wire_fini(struct wire *w)
{
	struct stream *stream = w->stream;
	wire_forget(w);
	stream_close(stream);
}

void wire_shutdown(struct wire *w)
{
	stream_shutdown(w->stream);
}

/* ---- receiving ---- */

static void receive_done(struct wire *w, int res)
{
	quarry_assert(w->is_receiving);
	w->is_receiving = false;
	w->received(w, res);
}

static void cipher_receive(struct wire *w)
{
	w->cipher_in = tls_room(w->tls);
	stream_recv(w->stream, &w->receive_op, &w->cipher_in, 1);
}

/* Deciphers into the wanted vectors. Bytes, 0 at the other side's end, -EAGAIN, -EPROTO. */
static int decipher(struct wire *w)
{
	int total_bytes = 0;

	for (uint32_t i = 0; i < w->n_wanted; i++) {
		size_t filled_bytes = 0;
		while (filled_bytes < w->wanted[i].iov_len) {
			int res = tls_read(w->tls, (char *)w->wanted[i].iov_base + filled_bytes,
					   (uint32_t)(w->wanted[i].iov_len - filled_bytes));
			if (res <= 0) /* what comes after these bytes is seen again by the next receive */
				return total_bytes > 0 ? total_bytes : res;
			filled_bytes += (size_t)res;
			total_bytes += res;
		}
	}
	return total_bytes;
}

void wire_receive(struct wire *w, const struct iovec *iov, uint32_t n_iov)
{
	quarry_assert(!w->is_receiving && !w->is_handshaking);
	quarry_assert(n_iov >= 1 && n_iov <= WIRE_RECEIVE_VECTORS);
	w->is_receiving = true;
	for (uint32_t i = 0; i < n_iov; i++)
		w->wanted[i] = iov[i];
	w->n_wanted = n_iov;
	if (!w->tls) {
		stream_recv(w->stream, &w->receive_op, w->wanted, n_iov);
		return;
	}
	int res = decipher(w);
	if (res == -EAGAIN) {
		cipher_receive(w);
		return;
	}
	w->is_deferred = true;
	reactor_defer(w->reactor, &w->receive_op, res);
}

static void wire_received(struct op *op, int res)
{
	struct wire *w = container_of(op, struct wire, receive_op);

	if (!w->tls || w->is_deferred) {
		w->is_deferred = false;
		receive_done(w, res);
		return;
	}
	if (res > 0)
		tls_arrived(w->tls, (uint32_t)res);
	if (w->is_handshaking) {
		w->handshake_res = res > 0 ? 0 : res == 0 ? -ECONNRESET : res;
		wire_handshake(w);
		return;
	}
	if (res > 0)
		res = decipher(w);
	if (res == -EAGAIN)
		cipher_receive(w);
	else
		receive_done(w, res);
}

/* ---- sending ---- */

static void send_done(struct wire *w, int res)
{
	quarry_assert(w->is_sending);
	w->is_sending = false;
	w->sent(w, res);
}

/* Gathers up to one record of plain bytes. */
static uint32_t stage_record(struct wire *w)
{
	uint32_t staged_bytes = 0;

	while (w->n_sending > 0 && staged_bytes < TLS_WRITE_MAX) {
		size_t left_bytes = w->sending->iov_len - w->sending_skip_bytes;
		uint32_t n = (uint32_t)min_u64(left_bytes, TLS_WRITE_MAX - staged_bytes);
		memcpy(w->staging + staged_bytes, (const char *)w->sending->iov_base + w->sending_skip_bytes, n);
		staged_bytes += n;
		w->sending_skip_bytes += n;
		if (n == left_bytes) {
			w->sending++;
			w->n_sending--;
			w->sending_skip_bytes = 0;
		}
	}
	return staged_bytes;
}

/* Ciphers what has room and sends it; true: something is under way. */
static bool cipher_send(struct wire *w)
{
	int res = 0;

	while (res == 0 && w->n_sending > 0 && tls_can_write(w->tls))
		res = tls_write(w->tls, w->staging, stage_record(w));
	if (res != 0) {
		w->n_sending = 0;
		reactor_defer(w->reactor, &w->send_op, res);
		return true;
	}
	w->cipher_out = tls_depart(w->tls);
	if (w->cipher_out.iov_len == 0)
		return false;
	stream_send(w->stream, &w->send_op, &w->cipher_out, 1);
	return true;
}

void wire_send(struct wire *w, const struct iovec *iov, uint32_t n_iov)
{
	quarry_assert(!w->is_sending && n_iov > 0);
	w->is_sending = true;
	if (!w->tls) {
		stream_send(w->stream, &w->send_op, iov, n_iov);
		return;
	}
	w->sending = iov;
	w->n_sending = n_iov;
	w->sending_skip_bytes = 0;
	bool is_under_way = cipher_send(w);
	quarry_assert(is_under_way);
}

static void wire_sent(struct op *op, int res)
{
	struct wire *w = container_of(op, struct wire, send_op);

	if (w->is_handshaking) {
		if (res < 0)
			w->handshake_res = res;
		wire_handshake(w);
		return;
	}
	if (w->tls && res == 0 && cipher_send(w))
		return;
	w->n_sending = 0;
	send_done(w, res);
}

bool wire_goodbye(struct wire *w)
{
	quarry_assert(!w->is_sending && !w->is_handshaking);
	if (!w->tls)
		return false;
	tls_end(w->tls);
	w->n_sending = 0;
	w->is_sending = cipher_send(w);
	return w->is_sending;
}

/* ---- the handshake ---- */

int wire_secure(struct wire *w, struct tls_credentials *c, enum tls_side side)
{
	quarry_assert(!wire_is_busy(w) && !w->tls);
	w->staging = malloc(TLS_WRITE_MAX);
	if (!w->staging)
		return -ENOMEM;
	int res = tls_create(c, side, &w->tls);
	if (res != 0)
		return res;
	w->is_handshaking = w->is_sending = true;
	w->handshake_res = side == TLS_SERVER ? -EAGAIN : 0; /* the client speaks first */
	if (side == TLS_SERVER)
		cipher_receive(w);
	else
		reactor_defer(w->reactor, &w->send_op, 0);
	return 0;
}

/*
 * Entered with nothing under way. handshake_res says where we are: 0 ask TLS what to do with what arrived; -EAGAIN what
 * it had to say is sent, receive more; -EALREADY done and all is sent; anything else: failed.
 */
static void wire_handshake(struct wire *w)
{
	bool is_done = w->handshake_res == -EALREADY;

	quarry_assert(w->is_handshaking);
	if (w->handshake_res == 0) {
		int res = tls_handshake(w->tls);
		is_done = res == 0;
		w->handshake_res = is_done ? -EALREADY : res == -ENOBUFS ? 0 : res;
		w->cipher_out = tls_depart(w->tls);
		if (w->cipher_out.iov_len > 0) {
			stream_send(w->stream, &w->send_op, &w->cipher_out, 1);
			return;
		}
	}
	if (w->handshake_res == -EAGAIN) {
		cipher_receive(w);
		return;
	}
	quarry_assert(w->handshake_res != 0); /* full buffers that hold nothing do not exist */
	w->is_handshaking = false;
	send_done(w, is_done ? 0 : w->handshake_res);
}
