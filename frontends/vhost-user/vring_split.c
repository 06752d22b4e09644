/*
 * vring_split.c: split rings (virtio 1.2, 2.7), and the record of their requests in flight.
 *
 *   guest:   descriptors -> available ring -> its idx       we:   record: in flight -> serve
 *   we:      record: batch -> used ring -> its idx -> record: no longer in flight
 *
 * A batch of the record is one request. Between the used ring's idx and the record's used index lies a step that may be
 * cut; whoever comes after us sees that they differ and takes the last batch for completed.
 *
 * Invariants
 *  1. next_avail - next_used = requests in flight, modulo 2^16, when the record is kept.
 *  2. An entry of the record is in flight from before its request is served until after the guest can see it used.
 */
#include "frontends/vhost-user/vring.h"

#include <errno.h>

enum { RING_FLAGS = 0, RING_IDX = 2, RING_FIRST = 4 };
enum { RECORD_VERSION = 8, RECORD_SIZE = 10, RECORD_LAST_HEAD = 12, RECORD_USED = 14 };
enum { ENTRY_INFLIGHT = 0, ENTRY_NEXT = 6, ENTRY_ARRIVAL = 8 };

static uint8_t *record_entry(const struct vring *v, uint32_t i)
{
	quarry_assert(i < v->size);
	return v->inflight + INFLIGHT_SPLIT_HEAD_BYTES + (size_t)i * INFLIGHT_SPLIT_ENTRY_BYTES;
}

static uint16_t used_idx(const struct vring *v)
{
	return shared_load16(v->used + RING_IDX);
}

static uint8_t *used_event_of(const struct vring *v)
{
	return v->avail + RING_FIRST + 2 * (size_t)v->size;
}

static uint8_t *avail_event_of(const struct vring *v)
{
	return v->used + RING_FIRST + VRING_USED_ELEM_BYTES * (size_t)v->size;
}

/* ---- start ---- */

static bool arrival_of(const struct vring *v, uint32_t i, uint64_t *out)
{
	const uint8_t *e = record_entry(v, i);

	*out = get_le64(e + ENTRY_ARRIVAL);
	return e[ENTRY_INFLIGHT] == 1;
}

static void record_begin(struct vring *v)
{
	memset(v->inflight, 0, INFLIGHT_SPLIT_HEAD_BYTES + (size_t)v->size * INFLIGHT_SPLIT_ENTRY_BYTES);
	put_le16(v->inflight + RECORD_SIZE, (uint16_t)v->size);
	put_le16(v->inflight + RECORD_USED, used_idx(v));
	shared_store16(v->inflight + RECORD_VERSION, 1);
}

/* The last batch was cut between the two indexes: the guest has seen it used. */
static void record_mend(struct vring *v)
{
	uint16_t at = shared_load16(v->inflight + RECORD_USED), end = used_idx(v);
	uint16_t head = get_le16(v->inflight + RECORD_LAST_HEAD);

	for (uint32_t n = 0; at != end && n < v->size && head < v->size; at++, n++) {
		shared_store8(record_entry(v, head) + ENTRY_INFLIGHT, 0);
		head = get_le16(record_entry(v, head) + ENTRY_NEXT);
	}
	shared_store16(v->inflight + RECORD_USED, end);
}

void split_start(struct vring *v, uint32_t base, bool is_new)
{
	v->next_used = used_idx(v);
	v->next_avail = (uint16_t)base;
	if (!v->inflight)
		return;
	if (is_new || get_le16(v->inflight + RECORD_VERSION) != 1 || get_le16(v->inflight + RECORD_SIZE) != v->size) {
		record_begin(v);
		return;
	}
	record_mend(v);
	resume_collect(v, arrival_of);
	v->next_avail = (uint16_t)(v->next_used + v->n_resume);
}

/* ---- taking ---- */

static struct vring_desc desc_read(const uint8_t *at, uint16_t *next)
{
	uint8_t copy[VRING_DESC_BYTES];

	memcpy(copy, at, sizeof(copy));
	*next = get_le16(copy + 14);
	return (struct vring_desc){
	    .addr = get_le64(copy), .len_bytes = get_le32(copy + 8), .flags = get_le16(copy + 12)};
}

static int indirect_add(struct vring *v, struct vring_chain *c, const struct vring_desc *table)
{
	uint32_t n, i = 0;
	int res = table_size(v, table, &n);

	if (res != 0)
		return res;
	for (uint32_t seen = 0; seen < n; seen++) {
		uint8_t raw[VRING_DESC_BYTES];
		uint16_t next;
		res = table_read(v, table, i, raw);
		if (res != 0)
			return res;
		struct vring_desc d = desc_read(raw, &next);
		if (d.flags & DESC_INDIRECT)
			return vring_break(v, "a table of descriptors within another");
		res = chain_add(v, c, &d);
		if (res != 0 || !(d.flags & DESC_NEXT))
			return res;
		if (next >= n)
			return vring_break(v, "a descriptor's next is none of its table");
		i = next;
	}
	return vring_break(v, "a chain of descriptors has no end");
}

static int chain_read(struct vring *v, uint16_t head, struct vring_chain *out)
{
	uint16_t i = head;

	chain_begin(out);
	out->id = head;
	for (uint32_t seen = 0; seen < v->size; seen++) {
		uint16_t next;
		struct vring_desc d = desc_read(v->desc + (size_t)i * VRING_DESC_BYTES, &next);
		if (d.flags & DESC_INDIRECT) {
			if (d.flags & DESC_NEXT)
				return vring_break(v, "a table of descriptors with a next one");
			return indirect_add(v, out, &d);
		}
		int res = chain_add(v, out, &d);
		if (res != 0 || !(d.flags & DESC_NEXT))
			return res;
		if (next >= v->size)
			return vring_break(v, "a descriptor's next is none of the ring");
		i = next;
	}
	return vring_break(v, "a chain of descriptors has no end");
}

static void record_take(struct vring *v, uint16_t head)
{
	if (!v->inflight)
		return;
	put_le64(record_entry(v, head) + ENTRY_ARRIVAL, v->arrivals++);
	shared_store8(record_entry(v, head) + ENTRY_INFLIGHT, 1);
}

int split_next(struct vring *v, struct vring_chain *out)
{
	if (v->next_resume < v->n_resume) {
		if (chain_read(v, v->resume[v->next_resume], out) != 0)
			return -EPROTO;
		v->next_resume++;
		return 1;
	}
	uint16_t n_ready = (uint16_t)(shared_load16(v->avail + RING_IDX) - v->next_avail);
	if (n_ready == 0)
		return 0;
	if (n_ready > v->size)
		return vring_break(v, "more requests than the ring has entries");
	uint16_t head = shared_load16(v->avail + RING_FIRST + 2 * (size_t)(v->next_avail % v->size));
	if (head >= v->size)
		return vring_break(v, "a request's first descriptor is none of the ring");
	if (v->inflight && record_entry(v, head)[ENTRY_INFLIGHT])
		return vring_break(v, "a request that is in flight was given again");
	if (chain_read(v, head, out) != 0)
		return -EPROTO;
	record_take(v, head);
	v->next_avail++;
	return 1;
}

bool split_has_more(const struct vring *v)
{
	return shared_load16(v->avail + RING_IDX) != v->next_avail;
}

/* ---- giving back ---- */

void split_complete(struct vring *v, const struct vring_chain *c, uint32_t len_bytes)
{
	uint8_t *elem = v->used + RING_FIRST + VRING_USED_ELEM_BYTES * (size_t)(v->next_used % v->size);

	quarry_assert(c->id < v->size);
	put_le32(elem, c->id);
	put_le32(elem + 4, len_bytes);
	memory_note(v->memory, elem, VRING_USED_ELEM_BYTES);
	if (v->inflight) {
		shared_store16(record_entry(v, c->id) + ENTRY_NEXT, get_le16(v->inflight + RECORD_LAST_HEAD));
		shared_store16(v->inflight + RECORD_LAST_HEAD, c->id);
	}
	shared_store16(v->used + RING_IDX, ++v->next_used);
	memory_note(v->memory, v->used + RING_IDX, 2);
	if (v->inflight) {
		shared_store8(record_entry(v, c->id) + ENTRY_INFLIGHT, 0);
		shared_store16(v->inflight + RECORD_USED, v->next_used);
	}
}

bool split_wants_call(struct vring *v)
{
	uint16_t before = v->called_at, now = v->next_used;

	shared_fence();
	v->called_at = now;
	if (!v->has_event_idx)
		return !(shared_load16(v->avail + RING_FLAGS) & AVAIL_NO_INTERRUPT);
	return (uint16_t)(now - shared_load16(used_event_of(v)) - 1) < (uint16_t)(now - before);
}

void split_set_kicks(struct vring *v, bool wanted)
{
	if (v->has_event_idx) {
		if (!wanted)
			return; /* the event stays where it is: behind us */
		shared_store16(avail_event_of(v), v->next_avail);
		memory_note(v->memory, avail_event_of(v), 2);
	} else {
		shared_store16(v->used + RING_FLAGS, wanted ? 0 : USED_NO_NOTIFY);
		memory_note(v->memory, v->used + RING_FLAGS, 2);
	}
}
