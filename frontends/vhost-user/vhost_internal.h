/*
 * vhost_internal.h: what the files of the vhost-user frontend share.
 *
 *   vhost_server               all of it; a pool of requests
 *     vhost_door               one volume: its socket, its clients
 *       vhost_connection       one client: messages, memory, features
 *         vhost_queue          one ring and its events
 *           vhost_request      one request of the guest, from its descriptors to its status
 *
 * Owner of everything: the server's reactor.
 */
#pragma once

#include "frontends/vhost-user/vhost_memory.h"
#include "frontends/vhost-user/vhost_server.h"
#include "frontends/vhost-user/vring.h"

/* For all connections together; each has room for its pieces. */
#define VHOST_REQUESTS_MAX 1024u
/* Clients of one volume: the one that runs, the one that will take over (migration), and one that comes too early. */
#define VHOST_CLIENTS_MAX 4u
/* Descriptors that may be held by closing them before whoever has sent such ones is not let in again. */
#define VHOST_HELD_MAX 64u
/* Requests that one queue takes before others have their turn; and bytes that a guest writes: they are copied and summed
 * at a few hundred microseconds a MiB, and what a turn has gathered goes to the disk at its end only. */
#define VHOST_TAKE_MAX       64u
#define VHOST_TAKE_BYTES_MAX (1 * MIB)
#define VHOST_PIECE_IOVECS   64u /* volume_io takes no more */
/* Of one request with the volume at a time: a guest's largest ordinary read, 126 segments, needs two. */
#define VHOST_PIECES     4u
#define VHOST_SEG_MAX    126u
#define VHOST_RANGES_MAX 32u /* of one DISCARD or WRITE_ZEROES */
/* Of one range. */
#define VHOST_DISCARD_SECTORS_MAX (1u << 31) /* a sweep of any length costs a few pointers: 1 TiB */
#define VHOST_ZEROES_SECTORS_MAX  (1u << 22) /* these may have to be written: 2 GiB */

struct vhost_connection;
struct vhost_door;

/* ---- requests ---- */

#define VHOST_REQUEST_STAGES(X)                                                                                        \
	X(FREE)   /* in the pool */                                                                                    \
	X(BEGIN)  /* header and layout are checked */                                                                  \
	X(MEMORY) /* waits for a buffer of ours */                                                                     \
	X(SERVE)  /* the next pieces go to the volume */                                                               \
	X(GATHER) /* pieces are with the volume */                                                                     \
	X(ANSWER) /* status and used ring */

enum vhost_request_stage {
#define X(name) VHOST_REQUEST_##name,
	VHOST_REQUEST_STAGES(X)
#undef X
};

/* A place in the data: so many bytes into chain.pieces[at]. */
struct data_cursor {
	uint32_t at;
	uint64_t skip;
};

/* A part of the data, or a range, that is with the volume. */
struct vhost_piece {
	struct vhost_request *request;
	bool is_working, is_direct;    /* direct: the volume reads into the guest's memory */
	uint64_t pos_bytes, len_bytes; /* of the request's data; 0: of a flush or range */
	struct data_cursor from;
	uint8_t *buffer; /* NULL: none; it stays for later pieces */
	uint32_t buffer_bytes;
	struct iovec iov[VHOST_PIECE_IOVECS];
	struct volume_io io;
};

struct vhost_request {
	enum vhost_request_stage stage;
	struct vhost_queue *queue;
	struct list link; /* in the pool, or in its queue's requests */
	struct vring_chain chain;
	uint32_t type;
	uint64_t pos_bytes, started_ns;
	uint64_t len_bytes, begun_bytes; /* of the data; begun: pieces have taken */
	uint64_t again_bytes;            /* pieces from here on are to be read again; UINT64_MAX: none */
	uint32_t first_piece, end_piece; /* the data: chain.pieces[first .. end), cut to what is data */
	struct data_cursor next;         /* where the next piece begins */
	uint8_t *status_at;              /* NULL: there is no room for one */
	uint8_t status;
	uint32_t written_bytes; /* to the guest's memory, without the status */
	bool is_private;        /* a read that goes through our buffers */
	bool is_waiting;        /* for a buffer */
	bool is_left;           /* the volume is being detached: it stays in flight for whoever comes next */
	uint32_t n_ranges, next_range;
	uint32_t n_pieces, n_working; /* used so far; with the volume */
	struct buffer_waiter waiter;
	struct vhost_piece pieces[VHOST_PIECES];
	uint8_t ranges[VHOST_RANGES_MAX * BLK_RANGE_BYTES]; /* copied: the guest may change its own meanwhile */
};

/* ---- queues ---- */

struct vhost_queue {
	struct vhost_connection *connection;
	uint32_t index;
	struct vring ring;
	struct event *kick, *call, *err;
	uint64_t desc_user, avail_user, used_user; /* the VMM's addresses */
	uint32_t base;
	bool has_addresses;
	bool is_started;  /* its kick was given */
	bool is_disabled; /* on demand */
	bool is_running;  /* started, not disabled, and its connection is the one that runs */
	bool is_call_due; /* something was completed in this turn */
	bool is_starved;  /* in the server's line for requests */
	bool is_silenced; /* the guest was asked for no kicks: to be looked at in the next turn */
	bool is_untold;   /* it lacks memory that may be on its way: nobody was told */
	struct list requests, starving;
	uint32_t n_requests;
	uint64_t busy_until_ns; /* polled until then */
};

/* ---- connections ---- */

#define VHOST_CONNECTION_STAGES(X)                                                                                     \
	X(IDLE)    /* waits for a message */                                                                           \
	X(HEADER)  /* waits for the rest of its header */                                                              \
	X(PAYLOAD) /* waits for the rest of it */                                                                      \
	X(DRAIN)   /* it changes what requests in flight use: waits for these */                                       \
	X(APPLY)   /* carries it out */                                                                                \
	X(REPLY)   /* the answer goes out */                                                                           \
	X(CLOSE)   /* waits for what kernel and volume still hold */

enum vhost_connection_stage {
#define X(name) VHOST_CONNECTION_##name,
	VHOST_CONNECTION_STAGES(X)
#undef X
};

struct vhost_connection {
	struct vhost_door *door;
	enum vhost_connection_stage stage;
	struct list link;
	uint64_t number;
	struct stream *stream;
	struct op receive, send;
	bool is_receiving, is_sending, is_received, is_sent;
	bool is_ending;  /* finish what is in flight, then close */
	bool has_failed; /* ending for a mistake of the client's */
	bool has_spoken; /* a whole message has come */
	bool is_told_to_wait;
	bool is_suspect; /* to be ended: its descriptors do not close at once */
	bool is_paused;  /* takes no requests: DRAIN */
	bool wants_turn; /* has rings to run */
	struct turn_hook hook;
	struct timer late; /* runs from a message's first byte to its last */
	struct timer gap;  /* runs while memory that was taken away may come again */

	/* the message at hand */
	struct iovec receive_iov, send_iov;
	struct fds fds, send_fds;
	uint32_t kind, flags, payload_bytes, reply_bytes;
	bool has_reply;
	uint8_t header[VHOST_HEADER_BYTES];
	uint8_t payload[VHOST_PAYLOAD_MAX];
	uint8_t reply[VHOST_HEADER_BYTES + VHOST_CONFIG_HEAD_BYTES + VHOST_CONFIG_BYTES_MAX];

	/* what was agreed on */
	uint64_t features, protocol;
	bool wce;
	struct vhost_memory memory;
	struct mapping *inflight;
	uint64_t inflight_stride;
	uint32_t inflight_queues, inflight_size;

	/* our own messages */
	struct stream *backend;
	struct op notice;
	bool is_noticing, is_notice_due;
	struct iovec notice_iov;
	uint8_t notice_bytes[VHOST_HEADER_BYTES];

	uint32_t n_queues, n_requests;
	struct vhost_queue queues[]; /* n_queues */
};

/* ---- doors and the server ---- */

struct vhost_door {
	struct vhost_server *server;
	struct list link;
	struct volume *volume; /* a reference */
	struct volume_watch watch;
	struct listener *listener;
	struct op accept;
	struct stream *stream;
	struct timer pause;
	bool is_accepting, is_closing;
	bool is_suspect; /* descriptors of a client's did not close at once, and some are still held */
	uint32_t n_queues;
	struct list connections;
	uint32_t n_connections;
	struct vhost_connection *runner;      /* whose rings are served; NULL: nobody's */
	char name[2 * (VOLUME_NAME_MAX + 1)]; /* NAME or NAME@SNAP */
	char path[320];
	struct op gone; /* frees it, on a later turn */
};

struct vhost_server {
	struct reactor *reactor;
	struct log *log;
	struct volume_set *volumes;
	struct buffers *buffers;
	char dir[160];
	uint64_t poll_ns;
	bool takes_files; /* memory that lies in files elsewhere than in memory */
	struct list doors;
	struct volume_doors hooks;
	struct vhost_request *requests; /* VHOST_REQUESTS_MAX, the first n_made of them used before */
	struct list free_requests, starving;
	uint32_t n_made, n_free;
	uint64_t n_accepted;
	bool is_stopping;
	void (*stopped)(void *context);
	void *stopped_context;
	struct op stopped_op;
	struct vhost_counters counters;
};

/* vhost_server.c */
struct vhost_request *vhost_take_request(struct vhost_server *s); /* NULL: none is free */
void vhost_give_request(struct vhost_server *s, struct vhost_request *r);
void vhost_starve(struct vhost_server *s, struct vhost_queue *q);
void vhost_door_connection_gone(struct vhost_door *d, struct vhost_connection *c);
/* Somebody wants to run, or has stopped: who is next? */
void vhost_door_choose(struct vhost_door *d);

/* vhost_connection.c */
must_check int guest_create(struct vhost_door *d, struct stream *stream, struct vhost_connection **out);
void guest_wake(struct vhost_connection *c);
void guest_end(struct vhost_connection *c, const char *why);
/* It has rings to run, and another one runs: whoever looks why its guest hangs is told, once. */
void guest_tell_waiting(struct vhost_connection *c);
/* It may run now, or no longer. */
void guest_set_running(struct vhost_connection *c, bool is_running);
void guest_notice(struct vhost_connection *c); /* the configuration has changed */
#define VHOST_TEXT_BYTES 160
void guest_to_text(const struct vhost_connection *c, char text[static VHOST_TEXT_BYTES]);

/* vhost_message.c: what each message does */
/* Has it to wait for the requests of this queue? */
bool message_drains(struct vhost_connection *c, const struct vhost_queue *q);
/* 0, or -errno: refused. Fills the reply if the message has one. */
must_check int message_apply(struct vhost_connection *c);

/* vhost_inflight.c */
uint64_t inflight_bytes(uint32_t n_queues, uint32_t size);
must_check int inflight_make(struct vhost_connection *c, uint32_t n_queues, uint32_t size, int *fd);
must_check int inflight_take(struct vhost_connection *c, int fd, const uint8_t *payload);
void inflight_drop(struct vhost_connection *c);
/* The queue's part of the area, or NULL; *is_new: it was not used for a ring of this kind. */
uint8_t *inflight_of(struct vhost_connection *c, uint32_t index, uint32_t size, bool is_packed, bool *is_new);
void inflight_keep_wce(struct vhost_connection *c);

/* vhost_queue.c */
void queue_init(struct vhost_queue *q, struct vhost_connection *c, uint32_t index);
void queue_fini(struct vhost_queue *q);
/* Begins or ceases to serve it, as its state demands. */
void queue_judge(struct vhost_queue *q);
/* Its parts are looked up anew: memory has changed, or where it lies. One that lacked memory goes on if it has come. */
void queue_relocate(struct vhost_queue *q);
/* The memory that was taken away has not come again: if it lacks any, it is told now. */
void queue_gap_ended(struct vhost_queue *q);
void queue_stop(struct vhost_queue *q); /* nothing is in flight */
/* The client is gone, without having stopped it: the record stays open, so that it can go on. */
void queue_abandon(struct vhost_queue *q);
/* Takes what the guest has made available. */
void queue_pump(struct vhost_queue *q);
bool queue_is_due(const struct vhost_queue *q); /* to be pumped at the end of the turn */
/* Nothing is in flight, nor to be taken up from the client's former connection. */
bool queue_is_drained(const struct vhost_queue *q);
void queue_completed(struct vhost_queue *q);
void queue_call(struct vhost_queue *q);
bool queue_is_polled(struct vhost_queue *q, uint64_t now_ns);

/* vhost_config.c */
uint64_t device_features(const struct vhost_door *d);
void config_fill(const struct vhost_connection *c, uint8_t config[static BLK_CONFIG_BYTES]);

/* vhost_request.c */
void blk_init(struct vhost_request *r); /* once, for the pool */
void blk_begin(struct vhost_request *r, struct vhost_queue *q);
void blk_to_text(const struct vhost_request *r, uint64_t now_ns, char text[static 2 * VHOST_TEXT_BYTES]);
