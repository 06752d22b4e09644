/*
 * vring.h: one queue of a guest's device, split or packed behind the same calls, with the record of its requests in
 * flight.
 *
 * Everything in a ring is the guest's: each index, address and length is read once, then checked, then used. A ring that
 * makes no sense is `broken` and stays so until it is set up again, or, if it lacks memory, until that has come; nothing
 * else is touched.
 */
#pragma once

#include "daemon/core/bytes.h"
#include "frontends/vhost-user/vhost_memory.h"

#include <sys/uio.h>

#define CHAIN_PIECES_MAX 260u /* seg_max + header + status, and a few that lie on the border of two regions */

/* A request of the guest: memory to read from, then memory to write to. */
struct vring_chain {
	uint16_t id;      /* split: of its first descriptor; packed: buffer id */
	uint16_t entry;   /* packed: its entry among those in flight */
	uint16_t n_descs; /* packed: places in the ring that it takes */
	uint32_t n_pieces, n_readable;
	uint64_t readable_bytes, writable_bytes;
	struct iovec pieces[CHAIN_PIECES_MAX];
};

struct vring {
	const struct vhost_memory *memory;
	uint32_t size; /* entries: a power of two for split rings; 0: not set */
	bool is_packed, has_event_idx, has_indirect;
	bool is_broken;
	bool is_lacking; /* broken for want of memory, which may still come: it stands where it stood */
	const char *why; /* it is broken */

	uint8_t *desc;         /* descriptors; packed: the ring */
	uint8_t *avail, *used; /* packed: event suppression of driver and device */
	uint16_t next_avail;   /* split: counts on; packed: a place */
	uint16_t next_used;
	bool avail_wrap, used_wrap; /* packed */
	uint16_t called_at;         /* next_used when the guest was called last */
	bool is_call_due;           /* whatever the guest says: it may have missed one */

	uint8_t *inflight;               /* its part of the area; NULL: nobody keeps it */
	uint64_t arrivals;               /* counts on */
	uint16_t resume[VRING_SIZE_MAX]; /* entries that were in flight when we were lost, in their order */
	uint32_t n_resume, next_resume;
};

/* Begins with `base` as SET_VRING_BASE gave it, or where the requests in flight say. `is_new`: the area has not been used
 * for a ring of this kind. */
void vring_start(struct vring *v, uint32_t base, bool is_new);
/* With nothing in flight: whoever goes on with this ring goes on where he is told. */
void vring_stop(struct vring *v);
/* As GET_VRING_BASE wants it. */
uint32_t vring_base(const struct vring *v);
/* There is more memory: a ring that lacked some may go on. */
void vring_mend(struct vring *v);
/* 1: a chain; 0: none; -EPROTO: the ring is broken. */
must_check int vring_next(struct vring *v, struct vring_chain *out);
bool vring_has_more(const struct vring *v);
/* Some of what was in flight when we were lost was not given out yet: it comes before all else. */
bool vring_is_resuming(const struct vring *v);
/* Gives it back with so many bytes written to it. */
void vring_complete(struct vring *v, const struct vring_chain *c, uint32_t len_bytes);
/* Does the guest want to be called for what was completed since it was asked last? */
bool vring_wants_call(struct vring *v);
/* Asks the guest for kicks, or for none. After asking, look again: vring_has_more(). */
void vring_set_kicks(struct vring *v, bool wanted);

/* Bytes of the ring's three parts. */
struct vring_layout {
	uint64_t desc_bytes, avail_bytes, used_bytes;
};
struct vring_layout vring_layout(uint32_t size, bool is_packed);

/* ---- what both kinds share ---- */

int vring_break(struct vring *v, const char *why); /* -EPROTO */
int vring_lack(struct vring *v, const char *why);  /* the same, for want of memory */
struct vring_desc {
	uint64_t addr;
	uint32_t len_bytes;
	uint16_t flags;
};
void chain_begin(struct vring_chain *c);
/* Adds a descriptor's memory; 0 or -EPROTO. */
must_check int chain_add(struct vring *v, struct vring_chain *c, const struct vring_desc *d);
/* How many descriptors an indirect table has, if it was agreed on and makes sense; one of them, copied. 0 or -EPROTO. */
must_check int table_size(struct vring *v, const struct vring_desc *table, uint32_t *n);
must_check int table_read(struct vring *v, const struct vring_desc *table, uint32_t i,
			  uint8_t to[static VRING_DESC_BYTES]);
/* The sorted order of arrival of what was in flight; from_entry() gives entry's counter, false: not in flight. */
void resume_collect(struct vring *v, bool (*arrival)(const struct vring *v, uint32_t entry, uint64_t *out));

/* Shared with another process: read or written once, at this width. */
static inline uint16_t shared_load16(const void *at)
{
	return le16toh(__atomic_load_n((const uint16_t *)at, __ATOMIC_ACQUIRE));
}
static inline void shared_store16(void *at, uint16_t v)
{
	__atomic_store_n((uint16_t *)at, htole16(v), __ATOMIC_RELEASE);
}
static inline void shared_store8(void *at, uint8_t v)
{
	__atomic_store_n((uint8_t *)at, v, __ATOMIC_RELEASE);
}
/* What was stored before is seen by others before what is loaded after. */
static inline void shared_fence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void split_start(struct vring *v, uint32_t base, bool is_new);
int split_next(struct vring *v, struct vring_chain *out);
bool split_has_more(const struct vring *v);
void split_complete(struct vring *v, const struct vring_chain *c, uint32_t len_bytes);
bool split_wants_call(struct vring *v);
void split_set_kicks(struct vring *v, bool wanted);
void packed_start(struct vring *v, uint32_t base, bool is_new);
int packed_next(struct vring *v, struct vring_chain *out);
bool packed_has_more(const struct vring *v);
void packed_complete(struct vring *v, const struct vring_chain *c, uint32_t len_bytes);
bool packed_wants_call(struct vring *v);
void packed_set_kicks(struct vring *v, bool wanted);
