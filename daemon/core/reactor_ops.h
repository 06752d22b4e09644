/*
 * reactor_ops.h: what an implementation of the reactor provides; included by reactor.c, reactor_uring.c and
 * the simulator only. Each entry means what reactor.h says of the call of the same name.
 */
#pragma once

#include "daemon/core/reactor.h"

struct reactor_ops {
	int (*file_open)(struct reactor *r, const char *path, unsigned flags, struct file **out);
	void (*file_close)(struct file *f);
	int (*file_lock)(struct file *f);
	int64_t (*file_size_bytes)(struct file *f);
	int (*file_set_size)(struct file *f, uint64_t size_bytes);
	int (*file_reserve)(struct file *f, uint64_t pos_bytes, uint64_t len_bytes, _Atomic uint64_t *written_bytes);
	int (*file_remove)(struct file *f, const char *path);
	int (*listen)(struct reactor *r, const char *address, struct listener **out);
	void (*listener_close)(struct listener *l);
	void (*stream_shutdown)(struct stream *s);
	void (*stream_close)(struct stream *s);
	const char *(*stream_peer)(const struct stream *s);
	/* NULL all of these: nothing can be shared with other processes */
	void (*fds_close)(struct reactor *r, const int *fds, uint32_t n);
	uint32_t (*fds_held)(struct reactor *r);
	int (*stream_take)(struct reactor *r, int fd, struct stream **out);
	bool (*fd_is_memory)(struct reactor *r, int fd);
	int (*map)(struct reactor *r, int fd, uint64_t pos_bytes, uint64_t len_bytes, struct mapping **out);
	int (*share)(struct reactor *r, uint64_t len_bytes, int *fd, struct mapping **out);
	void (*mapping_close)(struct mapping *m);
	int (*event_open)(struct reactor *r, int fd, void (*signalled)(void *context), void *context,
			  struct event **out);
	void (*event_signal)(struct event *e);
	void (*event_close)(struct event *e);
	void (*submit)(struct reactor *r, struct op *op); /* every op kind but OP_DEFER */
	void (*connect)(struct reactor *r, struct op *op, const char *address, struct stream **out);
	uint64_t (*now_ns)(struct reactor *r);
	uint64_t (*wall_ns)(struct reactor *r);
	uint64_t (*random)(struct reactor *r);
	struct uuid (*boot)(struct reactor *r);
	void (*post)(struct reactor *r, struct message *m);
	void (*wake)(struct reactor *r); /* any thread, async-signal-safe */
	void (*run)(struct reactor *r);  /* turns until is_stopping, which it clears before it returns */
};

/* The part that both implementations share; the first member of each one's own struct. reactor.c holds the
 * code of it: timers (a binary heap), deferred ops, turn-end hooks. */
struct reactor {
	const struct reactor_ops *ops;
	struct list deferred;   /* ops to deliver on the next turn, by op.link */
	struct list turn_hooks; /* hooks to run at the end of this turn */
	struct timer **heap;    /* running timers, 1-based, the earliest first */
	uint32_t n_timers, heap_size;
	uint64_t turn;            /* of the loop, from 1 */
	_Atomic bool is_stopping; /* set by any thread */
};

struct file {
	struct reactor *reactor;
	bool is_device;
};
struct listener {
	struct reactor *reactor;
};
struct stream {
	struct reactor *reactor;
};
struct event {
	struct reactor *reactor;
	void (*signalled)(void *context); /* NULL: it is only signalled */
	void *context;
};

void reactor_base_init(struct reactor *r, const struct reactor_ops *ops);
void reactor_base_fini(struct reactor *r);
/* Delivers the deferred ops of the last turn and every timer that is due; true if any was. */
bool reactor_base_deliver(struct reactor *r);
void reactor_base_turn_end(struct reactor *r);
/* When the next timer fires; UINT64_MAX: no timer. 0 when something is deferred. */
uint64_t reactor_base_next_ns(const struct reactor *r);
/* Resets the op and calls done(): the one place where an op goes back to its owner. */
void op_deliver(struct op *op, int res);
