/*
 * peer_connection.h: messages over one stream between two nodes, in both directions, either end.
 *
 * A connection knows frames, not what they ask: who owns it sends requests or replies, and hears what arrives. Messages
 * that are sent in one turn leave together. A message that cannot be is the end of the connection, and of nothing else.
 *
 * Owner: one reactor; all calls on its thread.
 */
#pragma once

#include "daemon/core/log.h"
#include "daemon/core/reactor.h"
#include "daemon/core/tls.h"
#include "replication/peer_format.h"

struct peer_connection;

/* A message on its way out; the connection's from peer_connection_send() until sent(). */
struct peer_out {
	const uint8_t *head; /* header and body, as peer_out_encode() makes them */
	uint32_t head_bytes;
	const struct iovec *data; /* as many bytes as the header says */
	uint32_t n_data;
	/* 0: handed to the kernel. -errno: it will not be sent, or nobody knows whether it was. */
	void (*sent)(struct peer_out *out, int res);
	struct list link;
};
#define PEER_OUT_DATA_MAX 130u /* iovecs of one message: a client's 66, cut where blocks are left out */
#define PEER_HANDSHAKE_NS (3 * NS_PER_S)

/* Header and body into memory of the owner's with room for PEER_HEADER_BYTES + PEER_BODY_MAX, or for what the type needs
 * (see peer_body_encode()); sets head and head_bytes. */
void peer_out_encode(struct peer_out *out, struct peer_header *h, const struct peer_message *m, uint8_t *memory);

/* A message that came. */
struct peer_in {
	struct peer_header header;
	struct peer_message message;
	void *data;     /* data_bytes; NULL: it has none */
	bool is_intact; /* every block of the data matches its checksum */
};

struct peer_connection_calls {
	/* Header and body of a message with data are there: where shall the data go? NULL: no memory; nothing more is read
	 * until peer_connection_resume(), and place() is asked again. */
	void *(*place)(struct peer_connection *c, const struct peer_in *in);
	/* The whole message is there; its data is the owner's again. */
	void (*arrived)(struct peer_connection *c, const struct peer_in *in);
	/* The connection has ended between place() and arrived(): the data is the owner's again. May be NULL without place. */
	void (*displaced)(struct peer_connection *c, const struct peer_in *in);
	/* The last call, once, on a later turn than close(): everything that was to be sent has been given back. The owner
	 * destroys the connection, now or later. res 0: the other side has ended it; why is for people. */
	void (*ended)(struct peer_connection *c, int res, const char *why);
};

struct peer_connection_options {
	struct reactor *reactor;
	struct stream *stream;
	const struct peer_connection_calls *calls;
	void *context;
	struct tls_credentials *credentials; /* of tls_load_peer(); NULL: plain (peer.insecure, tests) */
	enum tls_side side;                  /* who connected is the client */
};
/* Takes the stream, shakes hands where it has credentials, and begins to read; what is sent meanwhile waits. 0 or -errno,
 * then the stream stays the caller's. */
must_check int peer_connection_create(const struct peer_connection_options *o, struct peer_connection **out);
void peer_connection_destroy(struct peer_connection *c); /* after ended() */
void peer_connection_abandon(struct peer_connection *c); /* for the simulator: as a crash does */
void *peer_connection_context(const struct peer_connection *c);
void peer_connection_send(struct peer_connection *c, struct peer_out *out);
void peer_connection_resume(struct peer_connection *c); /* there is memory: place() is asked again at the turn's end */
/* Ends it, with a reason for ended(): -EPROTO the other side breaks the protocol, -ETIMEDOUT it is silent ... May be called
 * by any of the calls, and again. */
void peer_connection_close(struct peer_connection *c, int res, const char *why);
bool peer_connection_is_open(const struct peer_connection *c);
const char *peer_connection_peer(const struct peer_connection *c); /* its address, for people */

struct peer_connection_counters {
	counter frames_in, frames_out, bytes_in, bytes_out, sends, damaged_blocks;
};
const struct peer_connection_counters *peer_connection_counters(const struct peer_connection *c);
