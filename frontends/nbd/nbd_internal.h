/*
 * nbd_internal.h: what the files of the NBD frontend share: the server, its connections, their requests.
 *
 *      nbd_server        listeners, limits, the pool of requests
 *        nbd_connection    one client: negotiation first, then transmission
 *          wire              its bytes, plain or under TLS
 *          nbd_request       one command of the client, from its header to its reply
 *            nbd_piece         one transfer between the volume and one buffer; one message to the client
 *
 * Owner of everything: the server's reactor.
 */
#pragma once

#include "daemon/core/wire.h"
#include "frontends/nbd/nbd_options.h"
#include "frontends/nbd/nbd_rules.h"
#include "frontends/nbd/nbd_server.h"

/* ---- sizes and limits, with their reasons ---- */

/* One receive takes a burst of requests: 32 writes of 4 KiB with their headers. */
#define INTAKE_BYTES (160u * 1024u)
/* Options longer than this are refused: a name and a handful of queries take far less. */
#define OPTION_DATA_MAX (16u * 1024u)
_Static_assert(OPTION_DATA_MAX + NBD_OPTION_HEADER_BYTES < INTAKE_BYTES, "an option fits into the intake");
/* A longer one is no mistake but an attack, and not even skipped. */
#define OPTION_SKIP_MAX (1u << 20)
/* Answers of one option that are sent together. */
#define ANSWER_BYTES (8u * 1024u)
/* In flight on one connection: four times what fio and the kernel's client ask for at most. */
#define CONNECTION_REQUESTS_MAX 128u
/* For all connections together. */
#define SERVER_REQUESTS 2048u
/* A connection may always hold this much, so that a request of the size that is atomic is always served whole. */
#define SHARE_MIN_BYTES (256u * 1024u)
/* A request that is cut anyhow takes as little for a piece when many are at work. */
#define CUT_MIN_BYTES (64u * 1024u)
/* Requests up to this size are one transfer of the volume; larger ones are cut. */
#define PIECE_BYTES_MAX BUFFER_MAX_BYTES
/* Pieces of one request under way: one with the volume, one on the wire, and one in hand for each. */
#define PIECES 4u
/* One send gathers up to so many messages or bytes; a slow client then holds no more than these. */
#define SEND_MESSAGES  128u
#define SEND_BYTES_MAX (1u << 20)
/* How long an ended connection may take to send its last replies. */
#define GRACE_NS (5 * NS_PER_S)
/* Extents that one block status asks for; a longer answer is asked for again by the client. */
#define STATUS_EXTENTS        1024u
#define STATUS_BUFFER_BYTES   (STATUS_EXTENTS * (uint32_t)sizeof(struct volume_extent))
#define STATUS_BITMAP_EXTENTS 512u /* of each context, when bitmaps are asked for, too */
/* Bitmaps that a connection may have selected: with base:allocation one context for each piece. */
#define STATUS_BITMAPS_MAX 3u
/* A bitmap's name: SNAPSHOT or VOLUME@SNAPSHOT. */
#define BITMAP_NAME_BYTES NBD_EXPORT_NAME_BYTES

struct nbd_connection;
struct nbd_request;

/* ---- a piece: buffer, transfer, message ---- */

#define NBD_PIECE_STAGES(X)                                                                                            \
	X(IDLE)    /* has nothing to do */                                                                             \
	X(FILLING) /* payload arrives in its buffer */                                                                 \
	X(WORKING) /* with the volume */                                                                               \
	X(FILLED)  /* read, and its turn to be sent has not come */                                                    \
	X(QUEUED)  /* a message to be sent */                                                                          \
	X(SENDING)

enum nbd_piece_stage {
#define X(name) PIECE_##name,
	NBD_PIECE_STAGES(X)
#undef X
};

#define MESSAGE_HEADER_BYTES 36u
_Static_assert(MESSAGE_HEADER_BYTES >= NBD_HOLE_CHUNK_BYTES && MESSAGE_HEADER_BYTES >= NBD_ERROR_CHUNK_BYTES,
	       "every header fits");

struct nbd_piece {
	enum nbd_piece_stage stage;
	uint32_t len_bytes; /* of its part of the request */
	uint64_t pos_bytes;
	uint32_t filled_bytes;  /* FILLING: arrived so far */
	uint32_t header_bytes;  /* of the message */
	uint32_t payload_bytes; /* of the message, after the header */
	const uint8_t *payload;
	uint8_t *buffer; /* NULL: none */
	struct nbd_request *request;
	struct list link; /* in a queue of messages */
	struct iovec iov; /* the buffer, for the volume */
	uint8_t header[MESSAGE_HEADER_BYTES];
	struct volume_io io;
};

/* ---- a request ---- */

#define NBD_REQUEST_STAGES(X)                                                                                          \
	X(FREE)    /* in the pool */                                                                                   \
	X(ADMIT)   /* waits for its share of the buffers */                                                            \
	X(RECEIVE) /* its payload arrives; full pieces are with the volume already */                                  \
	X(SERVE)   /* with the volume; what was read goes out as it comes */                                           \
	X(REPLY)   /* the last messages go out */

enum nbd_request_stage {
#define X(name) REQUEST_##name,
	NBD_REQUEST_STAGES(X)
#undef X
};

struct nbd_request {
	enum nbd_request_stage stage;
	uint16_t command, flags;
	struct nbd_connection *connection;
	struct list link; /* in the pool, or in its connection's requests */
	uint64_t cookie, started_ns;
	uint64_t pos_bytes, end_bytes;
	uint64_t next_bytes;    /* begin of what no piece has taken yet */
	uint32_t to_come_bytes; /* of the payload, on the wire */
	uint32_t error;         /* NBD_*: what it is answered; the first that happened */
	const char *why;
	uint32_t n_pieces, n_working, n_sending; /* pieces in use; with the volume; queued or being sent */
	uint32_t n_begun, n_queued;              /* parts, since the request began */
	uint32_t begin_at, begun_at,
	    queue_at;          /* pieces: of the next part to begin, the last begun, the next to queue */
	uint32_t piece_bytes;  /* size of each piece's buffer; 0: none */
	bool in_order;         /* a simple reply of several pieces: nothing may come between them */
	bool in_progress;      /* in_order: its first piece was queued, it can no longer fail politely */
	bool is_answered;      /* the message that ends the reply was queued */
	struct list following; /* in_order: its queued pieces but the first */
	struct nbd_piece pieces[PIECES];
};

/* ---- a connection ---- */

#define NBD_CONNECTION_STAGES(X)                                                                                       \
	X(NEGOTIATE) /* greeting and options: see talk */                                                              \
	X(SECURE)    /* TLS handshake */                                                                               \
	X(TRANSMIT)  /* requests and replies */                                                                        \
	X(FINISH)    /* no more requests; those in flight are answered */                                              \
	X(GOODBYE)   /* TLS's last word goes out */                                                                    \
	X(CLOSE)     /* cut off; waits for what the kernel or the volume still holds */

enum nbd_connection_stage {
#define X(name) CONNECTION_##name,
	NBD_CONNECTION_STAGES(X)
#undef X
};

#define NBD_TALK_STAGES(X)                                                                                             \
	X(GREET)  /* compose the greeting */                                                                           \
	X(FLAGS)  /* waits for the client's flags */                                                                   \
	X(OPTION) /* waits for an option's header */                                                                   \
	X(DATA)   /* waits for its data */                                                                             \
	X(SKIP)   /* throws away data that is too long */                                                              \
	X(ANSWER) /* carry it out, compose the answer */                                                               \
	X(SEND)   /* the answer goes out */                                                                            \
	X(OVER)   /* the connection goes on by talk.verdict */

enum nbd_talk_stage {
#define X(name) TALK_##name,
	NBD_TALK_STAGES(X)
#undef X
};

/* What comes after an answer is sent. */
enum nbd_talk_verdict {
	VERDICT_ON,       /* the next option */
	VERDICT_MORE,     /* more of the same answer */
	VERDICT_SECURE,   /* TLS */
	VERDICT_TRANSMIT, /* an export was agreed on */
	VERDICT_END,      /* disconnect */
};

/* Negotiation: what was said so far. */
struct nbd_talk {
	enum nbd_talk_stage stage;
	enum nbd_talk_verdict verdict;
	struct nbd_option_header option;
	uint32_t skip_bytes;
	bool is_fixed, no_zeroes; /* the client's flags */
	bool is_structured;
	bool has_allocation;                                 /* base:allocation was selected, for meta_export */
	char bitmaps[STATUS_BITMAPS_MAX][BITMAP_NAME_BYTES]; /* selected, too */
	uint32_t n_bitmaps;
	char meta_export[NBD_EXPORT_NAME_BYTES];
	char listed[NBD_EXPORT_NAME_BYTES]; /* LIST: the last name sent; LIST_META_CONTEXT: the export */
	uint32_t n_listed;                  /* LIST_META_CONTEXT: bitmaps sent */
	uint32_t answer_bytes;
	struct iovec answer_iov;
	uint8_t answer[ANSWER_BYTES];
};

/* One direction of it: what moved, and what the watchdog saw of that. */
struct nbd_pace {
	uint64_t moved_bytes, seen_bytes; /* seen: moved_bytes when the watchdog began to count */
	uint32_t n_waits;                 /* times in a row that it found us waiting for the client */
};

struct nbd_connection {
	struct nbd_server *server;
	enum nbd_connection_stage stage;
	bool is_filler; /* of a volume that is still being filled */
	bool is_ending; /* to FINISH at the end of the turn */
	bool is_cut;    /* to CLOSE at the end of the turn */
	bool is_goodbye_said;
	uint64_t number;
	struct list link;     /* in the server's connections */
	struct list starving; /* in the server's line for requests */
	struct wire wire;
	struct timer timer;    /* NEGOTIATE, SECURE: the handshake's time; FINISH, GOODBYE: the grace */
	struct turn_hook hook; /* runs connection_run() once, at the end of the turn */
	struct nbd_talk talk;

	/* the export */
	struct volume *volume; /* a reference, or NULL */
	struct volume_watch watch;
	struct volume_base *bases[STATUS_BITMAPS_MAX]; /* what its bitmaps compare with */
	uint32_t n_bases;
	struct nbd_terms terms;
	char export_name[NBD_EXPORT_NAME_BYTES];

	/* receiving: bytes that arrived and were not taken yet are intake[intake_start .. intake_end) */
	uint8_t *intake; /* INTAKE_BYTES */
	uint32_t intake_start, intake_end;
	uint32_t receiving_bytes;     /* of a receive under way: room in a piece; the rest goes to the intake */
	struct nbd_request *arriving; /* the request whose header was read and whose payload was not, or NULL */
	struct buffer_waiter waiter;
	uint32_t waiter_bytes; /* asked for; 0: not in line */
	void *granted;         /* what the line gave, of waiter_bytes */

	/* requests and replies */
	struct list requests; /* all of them, oldest first */
	uint32_t n_requests;
	uint64_t held_bytes;           /* of buffers */
	struct list queue, sending;    /* messages, by piece.link */
	struct nbd_request *exclusive; /* its pieces go out before anything else */
	struct iovec send_iov[2 * SEND_MESSAGES];

	uint64_t now_ns; /* of this turn, about: saves a look at the clock per request */
	struct nbd_pace gives, takes;
	uint64_t sending_bytes; /* of the send under way */
	uint64_t accepted_ns;
	uint64_t n_served, read_bytes, write_bytes;
};

/* ---- the server ---- */

#define NBD_DOORS 2u
struct nbd_door {
	struct nbd_server *server;
	struct listener *listener; /* NULL: not used */
	struct op op;
	struct stream *stream; /* what an accept brings */
	struct timer pause;    /* after an accept that failed for want of descriptors or memory */
	bool is_accepting;
};

struct nbd_server {
	struct reactor *reactor;
	struct log *log;
	struct volume_set *volumes;
	struct buffers *buffers;
	enum nbd_tls_mode tls;
	struct tls_credentials *credentials;
	struct nbd_door doors[NBD_DOORS];
	struct list connections; /* oldest first */
	uint32_t n_connections, n_closing, max_connections;
	uint64_t n_accepted;
	bool is_refusing; /* the limit of connections was met; said once until one leaves */

	struct nbd_request *requests; /* SERVER_REQUESTS, the first n_made of them used before */
	struct list free_requests;
	uint32_t n_made, n_free;
	struct list starving; /* connections in line for a request */
	struct timer watchdog;

	bool is_stopping;
	void (*stopped)(void *context);
	void *stopped_context;
	struct op stopped_op;
	struct nbd_counters counters;
};

/* ---- nbd_server.c ---- */

struct nbd_request *server_request_get(struct nbd_server *s); /* NULL: none is free */
void server_request_put(struct nbd_server *s, struct nbd_request *r);
/* Puts the connection in line; its turn comes with connection_wake(). */
void server_starve(struct nbd_server *s, struct nbd_connection *c);
void server_connection_closing(struct nbd_server *s);
void server_connection_gone(struct nbd_server *s, struct nbd_connection *c);

/* ---- nbd_connection.c ---- */

must_check int connection_create(struct nbd_server *s, struct stream *stream, struct nbd_connection **out);
/* Frees the memory only. */
void connection_free(struct nbd_connection *c);
/* Runs connection_run() at the end of this turn. */
void connection_wake(struct nbd_connection *c);
/* Answers what is in flight, then disconnects. */
void connection_finish(struct nbd_connection *c);
/* Disconnects at once; why is logged unless NULL. */
void connection_close(struct nbd_connection *c, const char *why);
const char *connection_stage_name(enum nbd_connection_stage stage);
/* "nbd connection 7 (unix) to vm1" */
#define CONNECTION_TEXT_BYTES 256
void connection_to_text(const struct nbd_connection *c, char text[static CONNECTION_TEXT_BYTES]);

/* ---- nbd_negotiation.c ---- */

/* Goes on with the negotiation as far as the bytes at hand allow. FLOW_NEXT: talk.verdict says what is next. */
must_check enum flow negotiation_run(struct nbd_connection *c);
/* Forgets what was agreed on in the clear. */
void negotiation_restart(struct nbd_connection *c);

/* ---- nbd_transmission.c ---- */

static inline uint32_t intake_bytes(const struct nbd_connection *c)
{
	return c->intake_end - c->intake_start;
}
static inline const uint8_t *intake_next(const struct nbd_connection *c)
{
	return c->intake + c->intake_start;
}
static inline void intake_take(struct nbd_connection *c, uint32_t len_bytes)
{
	quarry_assert(len_bytes <= intake_bytes(c));
	c->intake_start += len_bytes;
}
/* Asks for more bytes behind those in the intake. */
void intake_receive(struct nbd_connection *c);
/* Takes requests out of what arrived, and asks for more. */
void transmission_receive(struct nbd_connection *c);
/* Something arrived. */
void transmission_received(struct nbd_connection *c, uint32_t len_bytes);
/* Sends the messages that wait, if none is being sent. */
void transmission_send(struct nbd_connection *c);
void transmission_sent(struct nbd_connection *c);
/* The connection is cut: nobody will take these. */
void transmission_drop(struct nbd_connection *c);

/* ---- nbd_status.c ---- */

uint32_t status_buffer_bytes(const struct nbd_connection *c);
uint32_t status_n_contexts(const struct nbd_connection *c);
void status_begin(struct nbd_request *r);
bool status_answered(struct nbd_request *r);
void status_reply(struct nbd_request *r);

/* ---- nbd_message.c ---- */

void message_set(struct nbd_piece *p, uint32_t header_bytes, const void *payload, uint32_t payload_bytes);
void message_chunk(struct nbd_piece *p, uint16_t type, bool is_last, uint32_t len_bytes);
/* A part of a read, as a structured or a simple reply has it; the last one is the end of the reply. */
void message_read_chunk(struct nbd_piece *p);
void message_read_simple(struct nbd_piece *p);
/* The end of a reply that has not ended yet. */
void message_error(struct nbd_piece *p);
void message_done(struct nbd_piece *p);
void message_queue(struct nbd_piece *p);

/* ---- nbd_request.c ---- */

/* For nbd_status.c: asks the volume for a map; lends the piece to whoever ends with request_piece_done(). */
void request_piece_map(struct nbd_piece *p, struct volume_extent *extents, uint32_t extents_max);
void request_piece_lend(struct nbd_piece *p);
void request_piece_done(struct nbd_piece *p, int res);

/* Once, for the pool. */
void request_init(struct nbd_request *r);
/* Begins the request whose header was taken. */
void request_begin(struct nbd_request *r, struct nbd_connection *c, const struct nbd_request_header *h);
/* The dispatcher. */
void request_run(struct nbd_request *r);
/* Its message was sent or dropped. */
void request_piece_sent(struct nbd_piece *p);
/* The piece whose buffer the payload fills next, or NULL. */
struct nbd_piece *request_filling(struct nbd_request *r);
/* The connection ends: what has not arrived will not, what was not begun is not. */
void request_cut(struct nbd_request *r);
const char *request_stage_name(enum nbd_request_stage stage);
#define REQUEST_TEXT_BYTES 384
void request_to_text(const struct nbd_request *r, uint64_t now_ns, char text[static REQUEST_TEXT_BYTES]);
