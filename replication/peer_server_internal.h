/*
 * peer_server_internal.h: what the files of the peer server share.
 *
 *   peer_server.c    the door, connections, life
 *   peer_session.c   which session is the newest of a volume on a disk
 *   peer_request.c   each request, from arrival to reply
 */
#pragma once

#include "replication/peer_server.h"

#define SESSION_BUCKETS 1024u /* a power of two */

/* ---- requests ---- */

/* Each with what a request waits for there. */
#define PEER_REQUEST_STAGES(X)                                                                                         \
	X(FREE, "nothing")                                                                                             \
	X(DRAIN, "earlier requests to be done")                                                                        \
	X(MEMORY, "a free buffer")                                                                                     \
	X(DISK, "the disk")                                                                                            \
	X(HARDEN, "the disk's flush")                                                                                  \
	X(ORDER, "the command that it asks for")                                                                       \
	X(DAMAGE, "the volume's head to heal it")                                                                      \
	X(REPLY, "its reply to be sent")
#define X(name, waits_for) PEER_REQUEST_##name,
enum peer_request_stage { PEER_REQUEST_STAGES(X) };
#undef X

#define SMALL_BODY_BYTES (8 + 32 * PEER_DISKS_MAX) /* of any reply but those with a list in a buffer */
_Static_assert(3 * 8 + 4 * (PEER_READ_BLOCKS + 1) <= SMALL_BODY_BYTES, "a READ's");
_Static_assert(PEER_TEXT_BLOCKS <= PEER_READ_BLOCKS, "the reply to an ORDER is one of these");

#define LIST_BYTES      (4u * BLOCK_BYTES) /* extents or stamps of the disk, and an encoded reply of any type */
#define LIST_HEAD_BYTES BLOCK_BYTES        /* of them: what the disk fills */
_Static_assert(PEER_MAP_EXTENTS * sizeof(struct disk_extent) <= LIST_HEAD_BYTES, "extents");
_Static_assert(PEER_STAMP_RUNS * sizeof(struct disk_stamp) <= LIST_HEAD_BYTES, "stamps");
_Static_assert(LIST_HEAD_BYTES + PEER_HEADER_BYTES + PEER_BODY_MAX <= LIST_BYTES, "a reply's list fits its buffer");

struct peer_request {
	enum peer_request_stage stage;
	int err;
	struct list link; /* the connection's free ones, or the session's requests */
	struct peer_client_connection *connection;
	struct peer_session *session; /* NULL: of no session, or it was refused */
	struct disk *disk;            /* the session's; of none: looked up when it is asked */
	struct disk_tree *tree;       /* that it is about; valid while the session is the newest */
	struct peer_header header;    /* the request's */
	struct uuid child;            /* FORK: the volume that it is made in */
	uint64_t tree_id, parent_id, other_id, first, n_blocks, epoch, since, before, size_blocks, zero_blocks;
	uint64_t bad_blocks;
	void *data; /* of data_bytes, out of the server's buffers; NULL: none */
	uint32_t data_bytes;
	struct buffer_waiter waiter;
	struct op op; /* to be looked at again on the next turn */
	struct disk_io io;
	struct peer_order order;
	struct peer_damage damage;
	char *answer; /* to the order, of answer_bytes, from malloc(); NULL: none */
	uint32_t answer_bytes;
	unsigned http_status;
	uint32_t crcs[PEER_WRITE_BLOCKS];
	uint64_t epochs[PEER_WRITE_BLOCKS];
	struct iovec iov[PEER_WRITE_BLOCKS];
	struct peer_out out;
	uint8_t small[PEER_HEADER_BYTES + SMALL_BODY_BYTES] __attribute__((aligned(8)));
};

/* ---- connections ---- */

struct peer_client_connection {
	struct peer_server *server;
	struct list link;
	struct peer_connection *wire;
	struct timer silence;
	char name[PEER_NAME_BYTES]; /* of the node; "": it has not greeted yet */
	uint64_t last_id;
	bool has_spoken;      /* since the timer was started */
	bool is_over;         /* the wire is being closed, or has ended */
	bool has_ended;       /* ended() was called */
	struct list sessions; /* struct peer_session, by of_connection */
	struct list free;     /* struct peer_request */
	uint32_t n_made;      /* of requests, ever used */
	uint32_t n_requests;  /* in use now */
	void *placed;         /* of placed_bytes: what place() has waited for; NULL: nothing */
	uint32_t placed_bytes;
	struct buffer_waiter waiter; /* place()'s */
	bool is_in_line;             /* waiter is */
	struct peer_request requests[PEER_REQUESTS_MAX];
};

/* ---- sessions ---- */

enum peer_session_state {
	PEER_SESSION_OPENING, /* its HELLO is on the way */
	PEER_SESSION_OPEN,
	PEER_SESSION_OVER, /* nothing more is taken; there until its requests are through */
};

struct peer_session {
	enum peer_session_state state;
	struct peer_server *server;
	struct list link;          /* in its bucket, in the order of arrival */
	struct list of_connection; /* unlinked when it is over */
	struct peer_client_connection *connection;
	struct uuid volume, disk_uuid;
	struct disk *disk;
	uint64_t generation, number;
	struct list requests; /* in flight, the HELLO among them */
	uint32_t n_drops;     /* of these */
	uint64_t tree_id;     /* of the tree that was asked last, which is not looked up again: */
	struct disk_tree *tree;
};

struct peer_server {
	struct peer_server_options options;
	struct listener *listener;
	struct op accept_op;
	struct stream *stream;
	struct timer pause; /* after an accept that failed */
	bool is_accepting, is_stopping;
	char name[PEER_NAME_BYTES];
	struct list connections;
	uint32_t n_connections, n_sessions;
	struct list buckets[SESSION_BUCKETS];
	struct peer_message reply; /* one is put together at a time */
	void (*stopped)(void *context);
	void *stopped_context;
	struct op stopped_op;
	struct peer_server_counters counters;
};

/* peer_server.c */
void client_close(struct peer_client_connection *c, int res, const char *why);
void client_request_done(struct peer_client_connection *c); /* one more is free */

/* peer_session.c */
/* A new session of the header's volume and disk; the one there was is over. NULL: too many. */
struct peer_session *session_begin(struct peer_client_connection *c, const struct peer_header *h, struct disk *disk);
/* The session that the header names, if it is open, came in this connection, and is the disk's newest; else NULL. */
struct peer_session *session_find(struct peer_client_connection *c, const struct peer_header *h);
/* Why there is none: -ESTALE another is the disk's; -ESHUTDOWN nobody has one, since the disk was closed meanwhile: its head has
 * lost the disk, and not the volume. */
int session_refusal(const struct peer_client_connection *c, const struct peer_header *h);
/* Is it what the disk remembers as the newest, right now? */
bool session_is_newest(const struct peer_session *s);
/* Are the requests of all earlier sessions of the volume on the disk through? */
bool session_is_first(const struct peer_session *s);
struct disk_tree *session_tree(struct peer_session *s, uint64_t tree_id); /* NULL: there is none */
void session_enter(struct peer_session *s, struct peer_request *r);
/* The request is through. What waited for that goes on; the session may be gone. */
void session_leave(struct peer_session *s, struct peer_request *r);
void session_end(struct peer_session *s); /* it is over; it may be gone */

/* peer_request.c */
void peer_request_init(struct peer_request *r, struct peer_client_connection *c);
/* A message with a volume has come. Takes over the data, a buffer of data_bytes. */
void peer_request_start(struct peer_request *r, const struct peer_in *in);
/* Answers a message that is of no volume, or that no request can be made of, with what is in server->reply. */
void peer_request_answer(struct peer_request *r, const struct peer_header *h, int res);
void peer_request_wake(struct peer_request *r); /* in DRAIN: something it may wait for has happened */
