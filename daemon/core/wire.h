/*
 * wire.h: a byte stream, plain or under TLS: one receive and one send at a time.
 *
 * Owner: the connection that embeds it. received() and sent() come on a later turn than the call, once per call; the
 * vectors and their memory belong to the wire until then.
 */
#pragma once

#include "daemon/core/reactor.h"
#include "daemon/core/tls.h"

#define WIRE_RECEIVE_VECTORS 2u

struct wire {
	/* set by wire_init() */
	struct reactor *reactor;
	struct stream *stream;
	void (*received)(struct wire *w, int res); /* bytes, 1 or more; 0: the other side has ended; -errno */
	void (*sent)(struct wire *w, int res);     /* 0: all of it; -errno */

	/* the wire's own */
	struct op receive_op, send_op;
	struct tls *tls; /* NULL: plain */
	bool is_receiving, is_sending;
	bool is_deferred; /* receive_op carries a result that was known at once */
	bool is_handshaking;
	int handshake_res;
	struct iovec wanted[WIRE_RECEIVE_VECTORS]; /* TLS: where the plain bytes go */
	uint32_t n_wanted;
	const struct iovec *sending; /* TLS: what is still to be ciphered */
	uint32_t n_sending;
	size_t sending_skip_bytes; /* of the first of them */
	struct iovec cipher_in, cipher_out;
	uint8_t *staging; /* one record's plain bytes, gathered */
};

void wire_init(struct wire *w, struct reactor *r, struct stream *s, void (*received)(struct wire *, int),
	       void (*sent)(struct wire *, int));
/* Nothing may be under way. Closes the stream. */
void wire_fini(struct wire *w);
/* The same, and leaves the stream to the caller. */
void wire_forget(struct wire *w);
/* Something received: up to the vectors' room, at least one byte. */
void wire_receive(struct wire *w, const struct iovec *iov, uint32_t n_iov);
void wire_send(struct wire *w, const struct iovec *iov, uint32_t n_iov);
/* Goes on under TLS: the handshake's end is told by sent(). Nothing may be under way. 0, or -errno at once. */
must_check int wire_secure(struct wire *w, struct tls_credentials *c, enum tls_side side);
/* Says goodbye where TLS has a word for it: true, and sent() follows; false: there is nothing to say. */
must_check bool wire_goodbye(struct wire *w);
/* Ends both directions: what is under way is delivered soon. */
void wire_shutdown(struct wire *w);
static inline bool wire_is_busy(const struct wire *w)
{
	return w->is_receiving || w->is_sending;
}
