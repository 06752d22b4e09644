/*
 * peer_client.h: the disks of another node, asked by the heads of this one.
 *
 * A client keeps one connection to its node: it connects, greets, and when the connection breaks it tries again, ever
 * less often. A call is one request and its answer. It ends exactly once: with the answer's status; with -ETIMEDOUT
 * when none came in time; with -ENOTCONN when there is no connection, or it broke. What was asked may then have
 * happened, or may yet happen until the next HELLO is answered.
 *
 * Owner: one reactor; all calls on its thread.
 */
#pragma once

#include "replication/peer_connection.h"

struct peer_client;

struct peer_client_options {
	struct reactor *reactor;
	struct log *log;
	struct uuid cluster;
	const char *node_name;               /* of this node */
	const char *address;                 /* of the other */
	struct tls_credentials *credentials; /* NULL: plain (peer.insecure, tests); the caller's */
	uint64_t timeout_ns;                 /* of a call (cluster.replica_timeout_ms) */
	/* The node can be asked now, or no more; every session with it has ended before. May be NULL. */
	void (*changed)(struct peer_client *c, bool is_up, void *context);
	void *context;
};
must_check int peer_client_create(const struct peer_client_options *o, struct peer_client **out);
/* Ends the connection and all calls, frees the client, calls closed(). */
void peer_client_close(struct peer_client *c, void (*closed)(void *context), void *context);
void peer_client_abandon(struct peer_client *c); /* for the simulator: as a crash does */
bool peer_client_is_up(const struct peer_client *c);
const char *peer_client_node(const struct peer_client *c); /* its name, once it has greeted; "": never */
/* Has the node that has greeted this feature? An older one takes what it does not know for an error. */
bool peer_client_has(const struct peer_client *c, uint64_t feature);

struct peer_call {
	/* set by the caller */
	enum peer_type type;
	uint32_t flags;
	struct uuid volume, disk;
	uint64_t generation, session;
	uint64_t timeout_ns; /* longer than the client's; 0: as long */
	/* What the body says: called when it departs; the message is all zeros but for its list. NULL: nothing. */
	void (*fill)(struct peer_call *call, struct peer_message *m);
	const struct iovec *data; /* as many blocks as fill() says */
	uint32_t n_data;
	/* The answer, when its status is 0 and its data match their checksums: to be copied from now. An error is the
	 * call's. NULL: nothing in it is wanted. */
	int (*take)(struct peer_call *call, const struct peer_in *in);
	/* The call and its data are the caller's again; on a later turn than peer_client_call(). */
	void (*done)(struct peer_call *call, int res);

	/* the client's own */
	struct {
		struct peer_client *client;
		struct list link; /* in the line, among those under way, or among those that are over */
		struct peer_out out;
		uint64_t id, started_ns;
		int res;
		bool is_owed; /* the kernel may still read the message */
		bool is_over; /* answered, or given up */
		/* the longest body of a request is a COPY's */
		uint8_t memory[PEER_HEADER_BYTES + 5 * 8 + 16 * PEER_WRITE_BLOCKS] __attribute__((aligned(8)));
	} own;
};
void peer_client_call(struct peer_client *c, struct peer_call *call);

struct peer_client_counters {
	counter calls, errors, timeouts, connections;
};
const struct peer_client_counters *peer_client_counters(const struct peer_client *c);
