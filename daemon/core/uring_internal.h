/*
 * uring_internal.h: what the files of the io_uring reactor share.
 *
 *   reactor_uring.c   life, the turn, submission and completion
 *   uring_clock.c     time, chance, and the run of the machine
 *   uring_spin.c      whether to look for completions before sleeping
 *   uring_files.c     opening, locking and sizing files and devices
 *   uring_streams.c   addresses, listeners, streams
 *   uring_shared.c    descriptors, memory and events that come from other processes
 *   uring_closing.c   closing what comes from other processes, on threads where that may take long
 */
#pragma once

#include "daemon/core/reactor_ops.h"

#include <liburing.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

struct addrinfo;
struct closers;

/* An op whose completion is nobody's: user_data is never a pointer to an op then. */
enum uring_tag { TAG_WAKE = 1, TAG_CANCEL, TAG_CONNECT_LIMIT };
/* Added to a pointer to an event, which is a multiple of 8: what of it has completed. */
enum { EVENT_POLLED = 1, EVENT_WRITTEN = 2, EVENT_MASK = 3 };

#define RANDOM_NUMBERS 32u

/* What is known about waiting; see uring_spin.c. */
struct uring_spin {
	uint64_t max_ns;        /* never spin longer; 0: never spin */
	uint64_t hit_ns;        /* how long a wait for a disk takes that is within the bound, on average */
	uint64_t busy_ns;       /* how long a turn works, on average */
	uint64_t wait_ns;       /* how long it waits, on average */
	uint64_t turn_began_ns; /* when the last wait ended */
	uint64_t wait_began_ns;
	bool is_for_disk;  /* the present wait is one that spinning may shorten */
	uint32_t n_misses; /* spins in a row that ended in sleep */
	uint32_t n_skip;   /* waits to go before the next try */
};

#define SPIN_DISK_LOAD_MAX 2u /* a write and its journal block; with more in flight throughput counts, not latency */

enum spin_outcome {
	SPIN_NONE,       /* slept at once */
	SPIN_NOT_NEEDED, /* something had completed while it was submitted */
	SPIN_HIT,
	SPIN_MISS,
};

struct uring {
	struct reactor base; /* first: a struct reactor is a struct uring */
	struct io_uring ring;
	struct list queued;   /* ops that found the submission ring full, in order */
	uint32_t n_in_flight; /* ops that the kernel or `queued` holds */
	uint32_t n_closing;   /* events that wait for what the kernel has of them; the loop is not left before */
	uint32_t disk_load;   /* of these, the ones that wait for a disk, by disk_load_of() */
	bool is_enabled;      /* the ring belongs to a thread: `owner` */
	pthread_t owner;

	int wake_fd;
	bool is_wake_armed;
	_Atomic bool is_sleeping;         /* whoever posts must write to wake_fd */
	_Atomic(struct message *) posted; /* newest first */

	struct closers *closers; /* the threads that close for us */
	struct uring_spin spin;
	struct reactor_counters counters;
	uint64_t random[RANDOM_NUMBERS];
	uint32_t n_random; /* numbers left */
};

struct uring_file {
	struct file base;
	int fd;
	bool is_read_only;
};

struct uring_listener {
	struct listener base;
	int fd;
	bool is_closing; /* freed when its accept has come back */
	struct op *accepting;
	struct sockaddr_un unix_address;  /* path to remove; empty: TCP */
	uint64_t unix_device, unix_inode; /* of the file that bind() made */
};

#define PEER_BYTES 64u

#define FDS_SENT_MAX 253u /* SCM_MAX_FD: no message brings more */

/* Room for the control message that carries descriptors, aligned as it must be: for all that may come, since the kernel
 * closes what finds no room, and would do it on our thread. */
struct fds_control {
	_Alignas(struct cmsghdr) char bytes[CMSG_SPACE(FDS_SENT_MAX * sizeof(int))];
};

struct uring_stream {
	struct stream base;
	int fd;
	bool is_tcp;
	char peer[PEER_BYTES];
	struct op *receiving, *sending; /* one of each at most */
	struct msghdr receive_header, send_header;
	/* descriptors on their way: one transfer with some at a time, in either direction */
	struct fds_control receive_control, send_control;
	/* while connecting: */
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_storage storage;
	} address;
	socklen_t address_bytes;
	struct addrinfo *found, *next; /* all addresses of the name, and the one to try after this */
};

static inline struct uring *uring_of(struct reactor *r)
{
	return container_of(r, struct uring, base);
}

/* uring_clock.c */
uint64_t uring_now_ns(struct reactor *r);
uint64_t uring_wall_ns(struct reactor *r);
uint64_t uring_random(struct reactor *r);
struct uuid uring_boot(struct reactor *r);

/* reactor_uring.c */
/* Hands an op to the kernel, or queues it. */
void uring_submit(struct reactor *r, struct op *op);
/* Asks for an accept back early; its completion still comes, unless the kernel had not seen it: then it is deferred. */
void uring_cancel(struct uring *u, struct op *op);

/* A free SQE, entering the kernel as often as that takes. */
struct io_uring_sqe *uring_sqe(struct uring *u);

/* uring_spin.c */
void spin_init(struct uring_spin *s, uint64_t max_ns);
/* The reactor has nothing to do from now on: how long to spin before it sleeps; 0: not at all. */
uint64_t spin_limit_ns(struct uring_spin *s, uint64_t now_ns, uint32_t disk_load);
/* The wait has ended. */
void spin_learn(struct uring_spin *s, uint64_t now_ns, enum spin_outcome outcome);

/* uring_files.c */
int uring_file_open(struct reactor *r, const char *path, unsigned flags, struct file **out);
void uring_file_close(struct file *f);
int uring_file_lock(struct file *f);
int64_t uring_file_size_bytes(struct file *f);
int uring_file_set_size(struct file *f, uint64_t size_bytes);
int uring_file_reserve(struct file *f, uint64_t pos_bytes, uint64_t len_bytes, _Atomic uint64_t *written_bytes);
int uring_file_remove(struct file *f, const char *path);

/* uring_streams.c */
int uring_listen(struct reactor *r, const char *address, struct listener **out);
void uring_listener_close(struct listener *l);
void uring_connect(struct reactor *r, struct op *op, const char *address, struct stream **out);
void uring_stream_shutdown(struct stream *s);
void uring_stream_close(struct stream *s);
const char *uring_stream_peer(const struct stream *s);
/* The kernel has answered *res. True: *res is what the owner shall see; false: the op has to go to the kernel again. */
bool uring_accept_is_over(struct op *op, int *res);
bool uring_connect_is_over(struct op *op, int *res);
int uring_stream_take(struct reactor *r, int fd, struct stream **out);

/* uring_closing.c */
must_check int closers_create(struct closers **out);
void closers_put(struct closers *c); /* the reactor's end; threads may go on */
void uring_fds_close(struct reactor *r, const int *fds, uint32_t n);
uint32_t uring_fds_held(struct reactor *r);
/* A unix socket of ours that nobody reads any more: what lies unread in it is somebody else's. */
void uring_socket_close(struct reactor *r, int fd);
bool fd_is_event(int fd);       /* an eventfd or a pipe without a name */
bool fd_is_unix_stream(int fd); /* that does not listen */

/* uring_shared.c */
bool uring_fd_is_memory(struct reactor *r, int fd);
int uring_map(struct reactor *r, int fd, uint64_t pos_bytes, uint64_t len_bytes, struct mapping **out);
int uring_share(struct reactor *r, uint64_t len_bytes, int *fd, struct mapping **out);
void uring_mapping_close(struct mapping *m);
int uring_event_open(struct reactor *r, int fd, void (*signalled)(void *context), void *context, struct event **out);
void uring_event_signal(struct event *e);
void uring_event_close(struct event *e);
/* A completion whose user_data has EVENT_POLLED or EVENT_WRITTEN. */
void uring_event_completed(struct uring *u, const struct io_uring_cqe *cqe);
/* Prepares the control message of a transfer with descriptors. */
void uring_fds_prepare(struct op *op, struct msghdr *header, struct fds_control *control);
/* Takes the descriptors that came with what was just received. */
void uring_fds_take(struct op *op, struct msghdr *header);
