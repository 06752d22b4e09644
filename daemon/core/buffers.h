/*
 * buffers.h: the budget of I/O memory of one reactor: aligned buffers of 4 KiB to 1 MiB, in powers of two.
 *
 * A buddy allocator over one arena that is mapped at start; no allocation afterwards. Whoever finds no buffer
 * waits in line and is called at the end of a turn when one came back, never inside a call: first come, first served,
 * so that a big request is not starved by small ones. A part of the arena is kept for small buffers, which do not wait
 * behind large ones for it: whoever holds large ones for long does not keep out who needs little. Owner: one reactor.
 */
#pragma once

#include "daemon/core/base.h"
#include "daemon/core/list.h"
#include "daemon/core/reactor.h"

#define BUFFER_MIN_BYTES   4096u
#define BUFFER_MAX_BYTES   (1u << 20)
#define BUFFER_SMALL_BYTES (32u << 10) /* up to here a buffer may come from the reserve */

struct buffers;

struct buffer_waiter {
	void (*ready)(struct buffer_waiter *w, void *data); /* data: the buffer, now yours */
	struct list link;
	uint32_t len_bytes;
	uint64_t number; /* place in line */
};

/* budget_bytes, and reserve_bytes of these for small buffers: multiples of BUFFER_MAX_BYTES. */
must_check int buffers_create(struct reactor *r, uint64_t budget_bytes, uint64_t reserve_bytes, struct buffers **out);
void buffers_destroy(struct buffers *b); /* all must have come back */
void buffers_abandon(struct buffers *b); /* for the simulator: as a crash does */
/* A buffer of at least len_bytes (at most BUFFER_MAX_BYTES), 4 KiB aligned, content undefined; NULL when there is none
 * or others wait. */
void *buffers_get(struct buffers *b, uint32_t len_bytes);
/* Waits in line; the waiter belongs to the pool until ready() or buffers_cancel(). */
void buffers_wait(struct buffers *b, struct buffer_waiter *w, uint32_t len_bytes);
void buffers_cancel(struct buffers *b, struct buffer_waiter *w);
bool buffers_are_awaited(const struct buffers *b); /* somebody is in line */
/* For who can see to it that buffers come back: begun() is called when somebody gets in line, inside buffers_wait(),
 * and must not call back. NULL: nobody is told. */
void buffers_watch(struct buffers *b, void (*begun)(void *context), void *context);
void buffers_put(struct buffers *b, void *data, uint32_t len_bytes); /* the length it was asked for */
uint64_t buffers_used_bytes(const struct buffers *b);
uint64_t buffers_budget_bytes(const struct buffers *b);
