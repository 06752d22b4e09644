/*
 * reactor.h: the one seam between quarry and the world: disk I/O, network, clock, randomness.
 *
 * A reactor is one thread's event loop. Everything that waits hands the reactor a `struct op` (or a timer)
 * and is called back. There are two implementations behind the same calls: io_uring (reactor_uring.c), and
 * the simulator (tests/sim/), with virtual time and a seed.
 *
 * A turn of the loop: deliver everything that completed, then run the turn-end hooks (where requests of one
 * turn are gathered into shared writes), then submit all at once and wait.
 *
 * Rules
 *  1. Submitting never completes inline: done() is called on a later turn, always on the reactor's thread.
 *  2. Every submitted op is delivered exactly once. Until then the op, its iovecs and their buffers belong to
 *     the kernel; whoever embeds the op counts it (`owed`).
 *  3. All calls are made on the reactor's own thread, except reactor_post() and reactor_stop().
 *  4. After start nothing here allocates on the I/O path; when the submission ring is full, ops queue in
 *     their own links and keep their order.
 */
#pragma once

#include "daemon/core/base.h"
#include "daemon/core/list.h"
#include "daemon/core/metrics.h"

#include <sys/uio.h>

struct reactor;
struct file;
struct listener;
struct stream;
struct fds;

/* ---- operations ---- */

enum op_kind {
	OP_NONE, /* not submitted */
	OP_READ,
	OP_WRITE,
	OP_FLUSH,
	OP_PUNCH,
	OP_ACCEPT,
	OP_CONNECT,
	OP_RECV,
	OP_RECV_ALL,
	OP_RECV_FDS,
	OP_SEND,
	OP_SEND_FDS,
	OP_DEFER,
};

/* One operation; embedded in its owner, who reads nothing of it but through done(). */
struct op {
	void (*done)(struct op *op, int res); /* set once by the owner */
	struct list link;                     /* the reactor's, while submitted */
	enum op_kind kind;                    /* OP_NONE whenever the owner has it */
	int res;
	union {
		struct file *file;
		struct listener *listener;
		struct stream *stream;
	};
	struct stream **new_stream; /* of an accept or connect: where the stream goes */
	struct fds *fds;            /* of a transfer with descriptors */
	const struct iovec *iov;    /* borrowed from the owner until done() */
	uint32_t n_iov;
	uint64_t pos_bytes;
	uint64_t len_bytes;
	uint64_t done_bytes;  /* progress of a transfer that the kernel cut short */
	struct iovec rest[2]; /* the implementation's, to continue one */
};

static inline void op_init(struct op *op, void (*done)(struct op *op, int res))
{
	*op = (struct op){.done = done};
	list_init(&op->link);
}

/* ---- files: disks are opened with O_DIRECT; positions, lengths and memory are multiples of 512 bytes ---- */

enum {
	FILE_READ_ONLY = 1, /* else read and write */
	FILE_CREATE = 2,    /* create, fail with -EEXIST if it is there */
	FILE_BUFFERED = 4,  /* without O_DIRECT: for small side files and file systems that lack it */
};

/* Opens a regular file or block device; blocks. 0 or -errno (-ENOTSUP: neither of the two; -EINVAL: its file system has
 * no O_DIRECT). What FILE_CREATE has made stays only if it was opened. */
must_check int reactor_file_open(struct reactor *r, const char *path, unsigned flags, struct file **out);
/* No op of it may be outstanding. Releases the lock. */
void file_close(struct file *f);
/* Locks against every other opener, on the description that carries the I/O. 0, or -EAGAIN: another holds it. */
must_check int file_lock(struct file *f);
/* Present size in bytes, asked anew; or -errno. */
must_check int64_t file_size_bytes(struct file *f);
must_check int file_set_size(struct file *f, uint64_t size_bytes); /* regular files only; blocks */
/* Allocates and writes zeros over the whole range so that later writes never allocate; blocks. What is written is added
 * to *written_bytes as it goes, for other threads to look at; NULL: nobody does. */
must_check int file_reserve(struct file *f, uint64_t pos_bytes, uint64_t len_bytes, _Atomic uint64_t *written_bytes);
/* Takes path away if it still leads to this file; blocks. The file itself goes with its last opener. */
must_check int file_remove(struct file *f, const char *path);
bool file_is_device(const struct file *f);

/* res: 0 when all bytes were transferred, else -errno; reading past the end is -EIO. */
void file_read(struct file *f, struct op *op, const struct iovec *iov, uint32_t n_iov, uint64_t pos_bytes);
void file_write(struct file *f, struct op *op, const struct iovec *iov, uint32_t n_iov, uint64_t pos_bytes);
/* Makes durable every write that had been delivered before this call (fdatasync). */
void file_flush(struct file *f, struct op *op);
/* Returns the range's space to what lies below (hole punching, discard); its content is undefined after.
 * -EOPNOTSUPP where that cannot be done. */
void file_punch(struct file *f, struct op *op, uint64_t pos_bytes, uint64_t len_bytes);

/* ---- streams: unix and TCP sockets ---- */

/* Addresses as text: "/run/x.sock" (has a slash: unix) or "127.0.0.1:10809", "[::1]:10809", "host:port".
 * A unix socket left behind by a dead process is replaced; one that answers is -EADDRINUSE. */
must_check int reactor_listen(struct reactor *r, const char *address, struct listener **out);
void listener_close(struct listener *l); /* an accept under way is delivered with -ECANCELED; the file is removed */
/* res 0: *out is the new stream. One accept of a listener at a time. */
void listener_accept(struct listener *l, struct op *op, struct stream **out);
/* The same; -ETIMEDOUT when nobody answered within five seconds: there is no other way to end it early. */
void reactor_connect(struct reactor *r, struct op *op, const char *address, struct stream **out);

/* res: bytes received (1 or more), 0 when the other side has ended, or -errno. One receive at a time. */
void stream_recv(struct stream *s, struct op *op, const struct iovec *iov, uint32_t n_iov);
/* As stream_recv, but delivered only when all iovecs are full; res: 0 all there, -ECONNRESET the other side
 * ended before. */
void stream_recv_all(struct stream *s, struct op *op, const struct iovec *iov, uint32_t n_iov);
/* res: 0 when everything was handed to the kernel, else -errno. One send at a time. */
void stream_send(struct stream *s, struct op *op, const struct iovec *iov, uint32_t n_iov);
/* Ends both directions at once: what is under way is delivered soon, with an error or what had arrived. */
void stream_shutdown(struct stream *s);
/* Frees the stream; no op of it may be outstanding. */
void stream_close(struct stream *s);
/* For log lines: "unix" or the peer's address. Valid while the stream is. */
const char *stream_peer(const struct stream *s);

/* ---- what another process shares with us over a unix stream: descriptors, memory, events ---- */

#define FDS_MAX 8u
struct fds {
	int fd[FDS_MAX];
	uint32_t n;
};
/* As stream_recv_all, and adds the descriptors that come along to *fds; those beyond FDS_MAX are closed. They are the
 * owner's at done(), also after an error. */
void stream_recv_fds(struct stream *s, struct op *op, const struct iovec *iov, uint32_t n_iov, struct fds *fds);
/* As stream_send; the descriptors stay the owner's. */
void stream_send_fds(struct stream *s, struct op *op, const struct iovec *iov, uint32_t n_iov, struct fds *fds);
/* Nobody waits for it: what may take as long as others like (a file of FUSE or of a network, a socket that lingers) is
 * closed by a thread of its own, and counts as held until then. */
void reactor_fds_close(struct reactor *r, struct fds *fds);
/* Descriptors that are still being closed, however they came. */
uint32_t reactor_fds_held(struct reactor *r);
/* A connected unix socket that came as a descriptor becomes a stream; the descriptor is taken over, also on failure. */
must_check int reactor_stream_take(struct reactor *r, int fd, struct stream **out);

/* Memory that others write to as well. When its file shrinks under us, an access to what is gone finds zeros instead
 * (of the whole mapping from then on), and is_broken tells. */
struct mapping {
	struct reactor *reactor;
	uint8_t *data;
	uint64_t len_bytes;
	volatile bool is_broken;
};
/* Is it memory of this machine (memfd, tmpfs, hugetlbfs)? What lies behind another file may keep whoever touches it, or
 * asks its size, waiting for ever: a FUSE server that does not answer, a network. */
must_check bool reactor_fd_is_memory(struct reactor *r, int fd);
/* Maps a range of a regular file or memfd, which must have it; the descriptor stays the caller's. 0 or -errno. */
must_check int reactor_map(struct reactor *r, int fd, uint64_t pos_bytes, uint64_t len_bytes, struct mapping **out);
/* New memory of zeros to be shared with others by the descriptor, which is the caller's. */
must_check int reactor_share(struct reactor *r, uint64_t len_bytes, int *fd, struct mapping **out);
void mapping_close(struct mapping *m);

/* An eventfd or pipe of another process, or, without signalled(), a unix stream; -EINVAL: it is none of these, and to poll it
 * or write to it might wait. With signalled() it is listened to: called once or more after others have signalled it, soon when
 * they had before it was opened. The descriptor is taken over, also on failure. */
struct event;
must_check int reactor_event_open(struct reactor *r, int fd, void (*signalled)(void *context), void *context,
				  struct event **out);
/* Signals it at the end of this turn, once for all calls of a turn. */
void event_signal(struct event *e);
/* signalled() is not called after this. */
void event_close(struct event *e);

/* ---- time, order, randomness ---- */

uint64_t reactor_now_ns(struct reactor *r);  /* monotonic, counts suspend; read anew at each call */
uint64_t reactor_wall_ns(struct reactor *r); /* since 1970, for people */
uint64_t reactor_random(struct reactor *r);
/* What the machine is called between two losses of power: a restart has another. All zeros: it is not known. */
struct uuid reactor_boot(struct reactor *r);

struct timer {
	void (*fired)(struct timer *t); /* set once by the owner */
	uint64_t at_ns;
	struct list link;
	uint32_t heap_index; /* 0: not running */
};
static inline void timer_init(struct timer *t, void (*fired)(struct timer *t))
{
	*t = (struct timer){.fired = fired};
	list_init(&t->link);
}
/* Starts or restarts; fires once, on a later turn, never early. */
void timer_start(struct reactor *r, struct timer *t, uint64_t delay_ns);
void timer_stop(struct reactor *r, struct timer *t); /* may be called when not running */
static inline bool timer_is_running(const struct timer *t)
{
	return t->heap_index != 0;
}

/* Delivers op with res on the next turn: for results known at once (rule 1). */
void reactor_defer(struct reactor *r, struct op *op, int res);

/* Runs once at the end of this turn, before submission. A hook that another one sets runs in the same turn's end; a
 * hook that sets itself again runs at the end of the next turn, which comes at once. */
struct turn_hook {
	void (*run)(struct turn_hook *h);
	struct list link;
	uint64_t turn; /* the reactor's: when it ran last */
};
static inline void turn_hook_init(struct turn_hook *h, void (*run)(struct turn_hook *h))
{
	*h = (struct turn_hook){.run = run};
	list_init(&h->link);
}
void reactor_at_turn_end(struct reactor *r, struct turn_hook *h); /* setting a set hook does nothing */

/* A message from any thread; deliver() runs on the reactor's thread, in the order of posting. The sender gives
 * the message away until then. */
struct message {
	void (*deliver)(struct message *m);
	struct message *next;
};
void reactor_post(struct reactor *r, struct message *m);

/* ---- life ---- */

struct reactor_options {
	uint32_t n_entries;   /* size of the submission ring; 0: 1024 */
	uint32_t spin_max_us; /* bound of the adaptive spinning before sleep; 0: never spin */
	bool is_plain;        /* do without what newer kernels offer, as on older ones (tests) */
};
/* The io_uring reactor. 0 or -errno. */
must_check int reactor_create(const struct reactor_options *options, struct reactor **out);
/* After reactor_run() has returned, with no op outstanding, by any thread. Nobody may still be inside reactor_post() or
 * reactor_stop(): a thread that was asked to stop is joined first, and its reactor destroyed then. */
void reactor_destroy(struct reactor *r);
/* Runs turns until reactor_stop(), which it consumes: it may be run again, by the same thread. */
void reactor_run(struct reactor *r);
void reactor_stop(struct reactor *r); /* any thread, async-signal-safe */

/* Of an io_uring reactor. `enters` are system calls, `spins` that found work are `spin_hits`. */
struct reactor_counters {
	counter turns, ops, enters, sleeps, spins, spin_hits, spin_ns, posts, ring_full;
};
const struct reactor_counters *reactor_counters(const struct reactor *r);
