/*
 * vhost_ring.h: a virtqueue as its driver sees it, split or packed, in memory that somebody else shares with a device.
 */
#pragma once

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#define VHOST_RING_SIZE_MAX 1024u
#define VHOST_ENTRY_NONE    ((uint16_t)0xffff)

/* A part of a request: guest-physical bytes that the device reads, or writes. */
struct vhost_piece {
	uint64_t addr;
	uint32_t len;
	bool is_writable;
};

/* A request as it is put into the ring: the first n_direct pieces as descriptors, the rest in an indirect table. */
struct vhost_chain {
	const struct vhost_piece *pieces;
	unsigned n, n_direct;
	void *table; /* room for n - n_direct descriptors of 16 bytes; unused when n_direct == n */
	uint64_t table_addr;
	uint32_t token; /* comes back with the completion */
};

/* What the driver remembers about a request in flight; by the id that the device gives back. */
struct vhost_entry {
	uint32_t token;
	uint16_t n_descs, next_free;
	bool is_in_flight;
};

struct vhost_ring {
	bool is_packed, has_event_idx;
	uint16_t size;
	void *desc, *driver, *device; /* split: descriptors, avail, used; packed: descriptors, both event areas */
	uint16_t n_free, n_in_flight, n_unkicked;
	uint16_t free_head;               /* of entries; split: also of descriptors, linked by desc_next */
	uint16_t avail_idx, used_idx;     /* split: free-running; packed: positions in the ring */
	bool is_avail_wrap, is_used_wrap; /* packed */
	const char *why;                  /* the device broke the rules: how */
	uint32_t why_id;
	struct vhost_entry entries[VHOST_RING_SIZE_MAX];
	uint16_t desc_next[VHOST_RING_SIZE_MAX];
};

/* Bytes of the three parts; all are to begin at multiples of 16. */
void vhost_ring_sizes(bool is_packed, uint16_t size, uint32_t sizes[static 3]);

/* The three parts must be zero. */
void vhost_ring_init(struct vhost_ring *r, bool is_packed, bool has_event_idx, uint16_t size,
		     void *const parts[static 3]);

/* Descriptors that a chain takes in the ring. */
unsigned vhost_chain_descs(const struct vhost_chain *c);

/* Makes a request visible to the device; false when the ring has no room. */
bool vhost_ring_add(struct vhost_ring *r, const struct vhost_chain *c);

/* Whether the device asked to be told of what was added since the last call. */
bool vhost_ring_needs_kick(struct vhost_ring *r);

/* The next completion. False: none yet, or the device broke the rules and r->why says how. */
bool vhost_ring_take(struct vhost_ring *r, uint32_t *token, uint32_t *len);

/* Asks the device for a call at the next completion; true when one is there already. */
bool vhost_ring_want_call(struct vhost_ring *r);
void vhost_ring_unwant_call(struct vhost_ring *r);

/* The base to go on from after the device was lost: what a VMM can know (see vhost_ring.c). */
uint32_t vhost_ring_lost_base(const struct vhost_ring *r, uint32_t last_base);
