/*
 * vhost_ring.c: the driver's side of a virtqueue (virtio 1.2, 2.7 split and 2.8 packed).
 *
 * Invariants
 *  1. n_free counts descriptors that no request holds; the sum of n_descs over all entries in flight is size - n_free.
 *  2. An id that the device gives back names an entry in flight, once; anything else is kept in `why` and stops the
 *     ring: a device that completes a request twice is found here.
 *  3. The device's view is never trusted: descriptors are linked by desc_next, not by what stands in shared memory.
 *
 * Owner: one thread. Memory order: what a descriptor describes is written before the descriptor becomes available
 * (release), and a completion is seen before what it brings is read (acquire); a full barrier stands between making
 * something available and asking whether the other side wants to be told, on both sides of the question.
 */
#include "tests/vhost/vhost_ring.h"

#include <stddef.h>
#include <string.h>

#define PACKED_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define PACKED_USED  (1u << VRING_PACKED_DESC_F_USED)
#define PACKED_WRAP  (1u << VRING_PACKED_EVENT_F_WRAP_CTR)

static void barrier_full(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void vhost_ring_sizes(bool is_packed, uint16_t size, uint32_t sizes[static 3])
{
	sizes[0] = size * 16u;
	sizes[1] = is_packed ? sizeof(struct vring_packed_desc_event) : 6u + 2u * size;
	sizes[2] = is_packed ? sizeof(struct vring_packed_desc_event) : 6u + 8u * size;
}

void vhost_ring_init(struct vhost_ring *r, bool is_packed, bool has_event_idx, uint16_t size,
		     void *const parts[static 3])
{
	memset(r, 0, sizeof(*r));
	r->is_packed = is_packed;
	r->has_event_idx = has_event_idx;
	r->size = r->n_free = size;
	r->desc = parts[0];
	r->driver = parts[1];
	r->device = parts[2];
	r->is_avail_wrap = r->is_used_wrap = true;
	for (uint16_t i = 0; i < size; i++) {
		r->entries[i].next_free = i + 1 < size ? (uint16_t)(i + 1) : VHOST_ENTRY_NONE;
		r->desc_next[i] = r->entries[i].next_free;
	}
}

unsigned vhost_chain_descs(const struct vhost_chain *c)
{
	return c->n_direct + (c->n_direct < c->n);
}

/* The piece that stands at place i of the ring's part of a chain; the last one may be the table. */
static struct vhost_piece chain_piece(const struct vhost_chain *c, unsigned i, uint16_t *flags)
{
	if (i == c->n_direct) {
		*flags = VRING_DESC_F_INDIRECT;
		return (struct vhost_piece){.addr = c->table_addr, .len = (c->n - c->n_direct) * 16u};
	}
	*flags = c->pieces[i].is_writable ? VRING_DESC_F_WRITE : 0;
	return c->pieces[i];
}

/* ---- split ---- */

static void split_table_fill(const struct vhost_chain *c)
{
	struct vring_desc *t = c->table;
	unsigned n = c->n - c->n_direct;

	for (unsigned i = 0; i < n; i++) {
		const struct vhost_piece *p = &c->pieces[c->n_direct + i];

		t[i].addr = p->addr;
		t[i].len = p->len;
		t[i].flags =
		    (uint16_t)((p->is_writable ? VRING_DESC_F_WRITE : 0) | (i + 1 < n ? VRING_DESC_F_NEXT : 0));
		t[i].next = (uint16_t)(i + 1 < n ? i + 1 : 0);
	}
}

static void split_add(struct vhost_ring *r, const struct vhost_chain *c)
{
	struct vring_desc *desc = r->desc;
	struct vring_avail *avail = r->driver;
	unsigned n = vhost_chain_descs(c);
	uint16_t head = r->free_head, at = head, last = head;

	for (unsigned i = 0; i < n; i++) {
		uint16_t flags;
		struct vhost_piece p = chain_piece(c, i, &flags);

		desc[at].addr = p.addr;
		desc[at].len = p.len;
		desc[at].flags = (uint16_t)(flags | (i + 1 < n ? VRING_DESC_F_NEXT : 0));
		desc[at].next = (uint16_t)(i + 1 < n ? r->desc_next[at] : 0);
		last = at;
		at = r->desc_next[at];
	}
	r->desc_next[last] = VHOST_ENTRY_NONE;
	r->free_head = at;
	r->entries[head] = (struct vhost_entry){.token = c->token, .n_descs = (uint16_t)n, .is_in_flight = true};
	avail->ring[r->avail_idx & (r->size - 1)] = head;
	r->avail_idx++;
	__atomic_store_n(&avail->idx, r->avail_idx, __ATOMIC_RELEASE);
}

static bool split_needs_kick(struct vhost_ring *r)
{
	struct vring_used *used = r->device;
	uint16_t event;

	if (!r->has_event_idx)
		return (__atomic_load_n(&used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY) == 0;
	event = __atomic_load_n((uint16_t *)&used->ring[r->size], __ATOMIC_RELAXED);
	return vring_need_event(event, r->avail_idx, (uint16_t)(r->avail_idx - r->n_unkicked));
}

static bool split_is_used(const struct vhost_ring *r)
{
	struct vring_used *used = r->device;

	return __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) != r->used_idx;
}

static void split_forget(struct vhost_ring *r, uint16_t head)
{
	uint16_t last = head;

	while (r->desc_next[last] != VHOST_ENTRY_NONE)
		last = r->desc_next[last];
	r->desc_next[last] = r->free_head;
	r->free_head = head;
	r->used_idx++;
}

/* ---- packed ---- */

static void packed_table_fill(const struct vhost_chain *c)
{
	struct vring_packed_desc *t = c->table;

	for (unsigned i = c->n_direct; i < c->n; i++) {
		const struct vhost_piece *p = &c->pieces[i];

		*t++ = (struct vring_packed_desc){
		    .addr = p->addr, .len = p->len, .flags = p->is_writable ? VRING_DESC_F_WRITE : 0};
	}
}

static void packed_add(struct vhost_ring *r, const struct vhost_chain *c)
{
	struct vring_packed_desc *desc = r->desc;
	unsigned n = vhost_chain_descs(c);
	uint16_t head = r->avail_idx, id = r->free_head, head_flags = 0;

	r->free_head = r->entries[id].next_free;
	for (unsigned i = 0; i < n; i++) {
		struct vring_packed_desc *d = &desc[r->avail_idx];
		uint16_t flags;
		struct vhost_piece p = chain_piece(c, i, &flags);

		flags = (uint16_t)(flags | (i + 1 < n ? VRING_DESC_F_NEXT : 0) |
				   (r->is_avail_wrap ? PACKED_AVAIL : PACKED_USED));
		d->addr = p.addr;
		d->len = p.len;
		d->id = id;
		if (i == 0)
			head_flags = flags;
		else
			d->flags = flags;
		if (++r->avail_idx == r->size) {
			r->avail_idx = 0;
			r->is_avail_wrap = !r->is_avail_wrap;
		}
	}
	r->entries[id] = (struct vhost_entry){.token = c->token, .n_descs = (uint16_t)n, .is_in_flight = true};
	__atomic_store_n(&desc[head].flags, head_flags, __ATOMIC_RELEASE);
}

static bool packed_needs_kick(struct vhost_ring *r)
{
	uint32_t both = __atomic_load_n((uint32_t *)r->device, __ATOMIC_RELAXED);
	uint16_t off_wrap = (uint16_t)both, flags = (uint16_t)(both >> 16), event;

	if (flags != VRING_PACKED_EVENT_FLAG_DESC)
		return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
	event = off_wrap & (PACKED_WRAP - 1);
	if (((off_wrap & PACKED_WRAP) != 0) != r->is_avail_wrap)
		event = (uint16_t)(event - r->size);
	return vring_need_event(event, r->avail_idx, (uint16_t)(r->avail_idx - r->n_unkicked));
}

static bool packed_is_used(const struct vhost_ring *r)
{
	struct vring_packed_desc *desc = r->desc;
	uint16_t flags = __atomic_load_n(&desc[r->used_idx].flags, __ATOMIC_ACQUIRE);
	bool is_avail = flags & PACKED_AVAIL, is_used = flags & PACKED_USED;

	return is_avail == is_used && is_used == r->is_used_wrap;
}

static void packed_forget(struct vhost_ring *r, uint16_t id)
{
	uint16_t n = r->entries[id].n_descs;

	r->entries[id].next_free = r->free_head;
	r->free_head = id;
	r->used_idx = (uint16_t)(r->used_idx + n);
	if (r->used_idx >= r->size) {
		r->used_idx = (uint16_t)(r->used_idx - r->size);
		r->is_used_wrap = !r->is_used_wrap;
	}
}

/* ---- both ---- */

bool vhost_ring_add(struct vhost_ring *r, const struct vhost_chain *c)
{
	unsigned n = vhost_chain_descs(c);

	if (n > r->n_free || r->why)
		return false;
	if (c->n_direct < c->n) {
		if (r->is_packed)
			packed_table_fill(c);
		else
			split_table_fill(c);
	}
	if (r->is_packed)
		packed_add(r, c);
	else
		split_add(r, c);
	r->n_free = (uint16_t)(r->n_free - n);
	r->n_in_flight++;
	/* the question is about available entries: requests in a split ring, descriptors in a packed one */
	r->n_unkicked = (uint16_t)(r->n_unkicked + (r->is_packed ? n : 1));
	return true;
}

bool vhost_ring_needs_kick(struct vhost_ring *r)
{
	bool is_needed;

	if (r->n_unkicked == 0)
		return false;
	barrier_full();
	is_needed = r->is_packed ? packed_needs_kick(r) : split_needs_kick(r);
	r->n_unkicked = 0;
	return is_needed;
}

static bool is_used(const struct vhost_ring *r)
{
	return r->is_packed ? packed_is_used(r) : split_is_used(r);
}

bool vhost_ring_take(struct vhost_ring *r, uint32_t *token, uint32_t *len)
{
	struct vring_used *used = r->device;
	struct vring_packed_desc *desc = r->desc;
	uint32_t id;

	if (r->why || !is_used(r))
		return false;
	if (r->is_packed) {
		id = desc[r->used_idx].id;
		*len = desc[r->used_idx].flags & VRING_DESC_F_WRITE ? desc[r->used_idx].len : 0;
	} else {
		struct vring_used_elem e = used->ring[r->used_idx & (r->size - 1)];

		id = e.id;
		*len = e.len;
	}
	if (id >= r->size || !r->entries[id].is_in_flight) {
		r->why =
		    id >= r->size ? "completes an id beyond the ring" : "completes a request that is not in flight";
		r->why_id = id;
		return false;
	}
	*token = r->entries[id].token;
	r->entries[id].is_in_flight = false;
	r->n_free = (uint16_t)(r->n_free + r->entries[id].n_descs);
	r->n_in_flight--;
	if (r->is_packed)
		packed_forget(r, (uint16_t)id);
	else
		split_forget(r, (uint16_t)id);
	return true;
}

bool vhost_ring_want_call(struct vhost_ring *r)
{
	struct vring_avail *avail = r->driver;
	struct vring_packed_desc_event *event = r->driver;

	if (!r->is_packed && r->has_event_idx) {
		__atomic_store_n(&avail->ring[r->size], r->used_idx, __ATOMIC_RELAXED);
	} else if (!r->is_packed) {
		__atomic_store_n(&avail->flags, 0, __ATOMIC_RELAXED);
	} else if (r->has_event_idx) {
		event->off_wrap = (uint16_t)(r->used_idx | (r->is_used_wrap ? PACKED_WRAP : 0));
		__atomic_store_n(&event->flags, VRING_PACKED_EVENT_FLAG_DESC, __ATOMIC_RELEASE);
	} else {
		__atomic_store_n(&event->flags, VRING_PACKED_EVENT_FLAG_ENABLE, __ATOMIC_RELAXED);
	}
	barrier_full();
	return is_used(r);
}

void vhost_ring_unwant_call(struct vhost_ring *r)
{
	struct vring_avail *avail = r->driver;
	struct vring_packed_desc_event *event = r->driver;

	if (r->is_packed)
		__atomic_store_n(&event->flags, VRING_PACKED_EVENT_FLAG_DISABLE, __ATOMIC_RELAXED);
	else if (!r->has_event_idx)
		__atomic_store_n(&avail->flags, VRING_AVAIL_F_NO_INTERRUPT, __ATOMIC_RELAXED);
	/* a split ring's used event lies behind by now: nothing calls before 65,536 more completions */
}

/*
 * A VMM whose device is gone knows a split ring's used index, since it can read it; of a packed ring it has what the
 * device said when it was last stopped, and QEMU gives that. The region of requests in flight has the truth.
 */
uint32_t vhost_ring_lost_base(const struct vhost_ring *r, uint32_t last_base)
{
	const struct vring_used *used = r->device;

	return r->is_packed ? last_base : __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE);
}
