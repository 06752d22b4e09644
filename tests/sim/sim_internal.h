/*
 * sim_internal.h: what sim.c, sim_disk.c, sim_net.c and sim_shared.c share.
 */
#pragma once

#include "daemon/core/reactor_ops.h"
#include "tests/sim/sim.h"

#define SIM_NAME_BYTES 108

/* Something that will happen to a reactor; embedded first in what knows more. Exactly one of the two is called. */
struct sim_event {
	uint64_t at_ns;
	uint64_t order; /* random: breaks ties */
	void (*happen)(struct sim_event *e);
	void (*vanish)(struct sim_event *e); /* the reactor died before */
};

/* One process's reactor. Dead ones are kept until the world ends, so that what is left of the process may still
 * name them. */
struct sim_reactor {
	struct reactor base; /* first */
	struct sim_machine *machine;
	bool is_dead;
	struct sim_event **heap; /* 1-based, the earliest first */
	uint32_t n_events, heap_size;
	struct message *first_message, **last_message;
	struct list unsubmitted; /* ops that came after the crash was due */
	struct list link;
};

struct sim_machine {
	struct sim *sim;
	char name[SIM_NAME_BYTES];
	struct sim_reactor *reactor; /* of the present process */
	struct list reactors;        /* all, the present one last */
	struct list files, handles, dead_handles;
	struct list streams, dead_streams, listeners, dead_listeners;
	uint64_t random_state; /* of reactor_random() */
	uint64_t io_index, crash_at;
	bool is_crash_due;
	struct uuid boot;
	uint64_t paused_until_ns;
	int32_t drift_ppm; /* how much faster its clock goes than the world's */
	int64_t wall_ahead_ns;
	struct list link;
};

struct sim_link { /* a partition, in one direction */
	const struct sim_machine *from, *to;
	struct list link;
};

struct sim {
	uint64_t random_state;
	uint64_t now_ns;
	bool is_stepping;
	uint32_t n_still; /* turns in a row at the same moment */
	struct list machines;
	struct list partitions;
	struct list held; /* arrivals that a partition keeps */
	uint64_t n_connections;
	struct sim_thing **fds;  /* by descriptor; NULL: closed */
	uint32_t n_fds, n_held;  /* held: closed, but for THING_SLOW */
	uint64_t latency_max_ns; /* of new files: the world's character */
	uint64_t batch_max_ns;   /* how much later a turn may begin than its first event */
};

/* Mostly short, sometimes long: uniform in the logarithm. */
uint64_t sim_latency_ns(struct sim *s, uint64_t min_ns, uint64_t max_ns);
void sim_event_add(struct sim_reactor *r, struct sim_event *e, uint64_t delay_ns);
/* Counts one file I/O; true: the crash is due and this one does not happen. */
bool sim_io_counts(struct sim_machine *m);

static inline struct sim_reactor *sim_reactor_of(struct reactor *r)
{
	return container_of(r, struct sim_reactor, base);
}
static inline struct sim *sim_of(struct reactor *r)
{
	return sim_reactor_of(r)->machine->sim;
}
/* An op of a process whose crash is due: it stays undelivered for ever. */
void sim_op_keep(struct sim_reactor *r, struct op *op);

/* sim_disk.c */
int sim_file_open(struct reactor *r, const char *path, unsigned flags, struct file **out);
void sim_handle_close(struct file *f);
int sim_handle_lock(struct file *f);
int64_t sim_handle_size(struct file *f);
int sim_handle_set_size(struct file *f, uint64_t size_bytes);
int sim_handle_reserve(struct file *f, uint64_t pos_bytes, uint64_t len_bytes, _Atomic uint64_t *written_bytes);
int sim_handle_remove(struct file *f, const char *path);
void sim_file_submit(struct sim_reactor *r, struct op *op);
void sim_files_crash(struct sim_machine *m, enum sim_crash_kind kind); /* after its events have vanished */
void sim_files_destroy(struct sim_machine *m);

/* sim_net.c */
int sim_net_listen(struct reactor *r, const char *address, struct listener **out);
void sim_listener_close(struct listener *l);
void sim_stream_shutdown(struct stream *s);
void sim_stream_close(struct stream *s);
const char *sim_stream_peer(const struct stream *s);
void sim_net_connect(struct reactor *r, struct op *op, const char *address, struct stream **out);
void sim_net_submit(struct sim_reactor *r, struct op *op);
void sim_net_crash(struct sim_machine *m, enum sim_crash_kind kind);
void sim_net_destroy(struct sim_machine *m);
void sim_net_fini(struct sim *s);
void sim_stream_pair(struct sim_machine *m, struct stream **near, struct stream **far);

/* sim_shared.c */
void sim_shared_close(struct reactor *r, const int *fds, uint32_t n);
uint32_t sim_shared_held(struct reactor *r);
int sim_shared_stream(struct reactor *r, int fd, struct stream **out);
bool sim_shared_is_memory(struct reactor *r, int fd);
int sim_shared_map(struct reactor *r, int fd, uint64_t pos_bytes, uint64_t len_bytes, struct mapping **out);
int sim_shared_make(struct reactor *r, uint64_t len_bytes, int *fd, struct mapping **out);
void sim_shared_unmap(struct mapping *m);
int sim_bell_open(struct reactor *r, int fd, void (*signalled)(void *context), void *context, struct event **out);
void sim_bell_signal(struct event *e);
void sim_bell_close(struct event *e);
/* Descriptors on their way: copies of the sender's; the receiver's, or closed where it has no room (to == NULL: none).
 */
void sim_fds_send(struct sim *s, const struct fds *from, struct fds *to);
void sim_fds_receive(struct sim *s, struct fds *from, struct fds *to);
void sim_shared_fini(struct sim *s);
