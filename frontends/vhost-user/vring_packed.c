/*
 * vring_packed.c: packed rings (virtio 1.2, 2.8), and the record of their requests in flight.
 *
 * A packed ring is one row of descriptors. The guest marks what is available, we overwrite the first place that is free
 * for us with what is used, in the order of completion; so a request in flight may lose its own descriptors to the
 * answers of others. The record keeps a copy of them, and what was in flight is taken from there.
 *
 *   record:   free entries, a list --take--> a chain of entries, in flight --complete--> free
 *
 * The record's head has two copies of what completing changes. The first is changed, then the guest's descriptor, then
 * the second. Whoever comes after us sees from the descriptor which of the two holds.
 *
 * Invariants
 *  1. A chain's entries are linked by `next` from its first to its `last`, `num` of them.
 *  2. An entry is in flight from before its request is served until after the guest can see it used.
 *  3. While the record is open (version 1) it knows where the ring is, and not the VMM: after we were lost, QEMU says a
 *     place of long ago. A ring that was stopped with nothing in flight has its record closed (version 0).
 *  4. Nothing of the record is believed: links are followed at most `size` times and are below `size`.
 */
#include "frontends/vhost-user/vring.h"

#include <errno.h>

enum {
	RECORD_VERSION = 8,
	RECORD_SIZE = 10,
	RECORD_FREE = 12,
	RECORD_OLD_FREE = 14,
	RECORD_USED = 16,
	RECORD_OLD_USED = 18,
	RECORD_WRAP = 20,
	RECORD_OLD_WRAP = 21,
};
enum {
	ENTRY_INFLIGHT = 0,
	ENTRY_NEXT = 2,
	ENTRY_LAST = 4,
	ENTRY_NUM = 6,
	ENTRY_ARRIVAL = 8,
	ENTRY_ID = 16,
	ENTRY_FLAGS = 18,
	ENTRY_LEN = 20,
	ENTRY_ADDR = 24,
};
enum { DESC_ID_AT = 12, DESC_FLAGS_AT = 14 };
enum { EVENT_OFFSET_AT = 0, EVENT_FLAGS_AT = 2 };
#define EVENT_WRAP        (1u << 15)
#define PACKED_BASE_FIRST (1u << 15 | 1u << 31) /* both places 0, both wrap counters 1 */

static uint8_t *record_entry(const struct vring *v, uint32_t i)
{
	quarry_assert(i < v->size);
	return v->inflight + INFLIGHT_PACKED_HEAD_BYTES + (size_t)i * INFLIGHT_PACKED_ENTRY_BYTES;
}

static uint8_t *desc_at(const struct vring *v, uint16_t i)
{
	quarry_assert(i < v->size);
	return v->desc + (size_t)i * VRING_DESC_BYTES;
}

static bool flags_are_available(uint16_t flags, bool wrap)
{
	return !!(flags & DESC_AVAIL) == wrap && !!(flags & DESC_USED) != wrap;
}

static bool desc_is_available(const struct vring *v, uint16_t i, bool wrap)
{
	return flags_are_available(shared_load16(desc_at(v, i) + DESC_FLAGS_AT), wrap);
}

/* Moves a place on by n, turning the wrap counter at the end. */
static void place_advance(const struct vring *v, uint16_t *place, bool *wrap, uint32_t n)
{
	uint32_t to = *place + n;

	quarry_assert(n <= v->size);
	if (to >= v->size) {
		to -= v->size;
		*wrap = !*wrap;
	}
	*place = (uint16_t)to;
}

/* ---- start ---- */

static bool arrival_of(const struct vring *v, uint32_t i, uint64_t *out)
{
	const uint8_t *e = record_entry(v, i);

	*out = get_le64(e + ENTRY_ARRIVAL);
	return e[ENTRY_INFLIGHT] == 1;
}

static void record_place(struct vring *v)
{
	put_le16(v->inflight + RECORD_USED, v->next_used);
	put_le16(v->inflight + RECORD_OLD_USED, v->next_used);
	v->inflight[RECORD_WRAP] = v->inflight[RECORD_OLD_WRAP] = v->used_wrap;
}

static void record_begin(struct vring *v)
{
	memset(v->inflight, 0, INFLIGHT_PACKED_HEAD_BYTES + (size_t)v->size * INFLIGHT_PACKED_ENTRY_BYTES);
	for (uint32_t i = 0; i < v->size; i++)
		put_le16(record_entry(v, i) + ENTRY_NEXT, (uint16_t)(i + 1));
	put_le16(v->inflight + RECORD_SIZE, (uint16_t)v->size);
	record_place(v);
	shared_store16(v->inflight + RECORD_VERSION, 1);
}

static void record_copy(struct vring *v, bool is_back)
{
	static const struct {
		unsigned new, old, bytes;
	} parts[] = {
	    {RECORD_FREE, RECORD_OLD_FREE, 2}, {RECORD_USED, RECORD_OLD_USED, 2}, {RECORD_WRAP, RECORD_OLD_WRAP, 1}};

	for (size_t i = 0; i < array_size(parts); i++)
		memcpy(v->inflight + (is_back ? parts[i].new : parts[i].old),
		       v->inflight + (is_back ? parts[i].old : parts[i].new), parts[i].bytes);
}

/* Entries of the free list are not in flight, whatever they say. */
static void record_mend_free(struct vring *v)
{
	uint16_t at = get_le16(v->inflight + RECORD_FREE);

	for (uint32_t n = 0; n < v->size && at < v->size; n++) {
		shared_store8(record_entry(v, at) + ENTRY_INFLIGHT, 0);
		at = get_le16(record_entry(v, at) + ENTRY_NEXT);
	}
}

static void record_mend(struct vring *v)
{
	uint16_t old_used = get_le16(v->inflight + RECORD_OLD_USED);
	bool old_wrap = v->inflight[RECORD_OLD_WRAP];
	bool is_cut = get_le16(v->inflight + RECORD_USED) != old_used || v->inflight[RECORD_WRAP] != (uint8_t)old_wrap;

	if (is_cut && old_used < v->size) {
		uint16_t flags = shared_load16(desc_at(v, old_used) + DESC_FLAGS_AT);
		/* AVAIL says nothing: of a ring that was full, the guest may have taken it and given the place anew */
		if (!!(flags & DESC_USED) == old_wrap)
			record_copy(v, false); /* the guest can see it used */
	}
	record_copy(v, true);
	record_mend_free(v);
}

/* Is the record of a ring of this size, and does it make sense? */
static bool record_is_good(const struct vring *v)
{
	return get_le16(v->inflight + RECORD_VERSION) == 1 && get_le16(v->inflight + RECORD_SIZE) == v->size &&
	       get_le16(v->inflight + RECORD_OLD_USED) < v->size;
}

/* The free list anew: all that is not part of a chain in flight. */
static bool record_rebuild_free(struct vring *v)
{
	uint8_t is_taken[VRING_SIZE_MAX] = {0};
	uint32_t n_taken = 0;

	for (uint32_t i = 0; i < v->n_resume; i++) {
		uint16_t at = v->resume[i];
		uint32_t n = get_le16(record_entry(v, at) + ENTRY_NUM);
		if (n == 0 || n > v->size)
			return false;
		for (; n > 0; n--) {
			if (at >= v->size || is_taken[at])
				return false;
			is_taken[at] = 1;
			n_taken++;
			at = get_le16(record_entry(v, at) + ENTRY_NEXT);
		}
	}
	uint16_t next = (uint16_t)v->size;
	for (uint32_t i = v->size; i-- > 0;) {
		if (is_taken[i])
			continue;
		put_le16(record_entry(v, i) + ENTRY_NEXT, next);
		next = (uint16_t)i;
	}
	put_le16(v->inflight + RECORD_FREE, next);
	put_le16(v->inflight + RECORD_OLD_FREE, next);
	place_advance(v, &v->next_avail, &v->avail_wrap, n_taken);
	return true;
}

/* Has no device used any of it yet? Once a ring has been gone round, its last answer stands somewhere, or what the
 * guest has put in its place: either has the flag. */
static bool ring_is_unused(const struct vring *v)
{
	for (uint16_t i = 0; i < v->size; i++)
		if (shared_load16(desc_at(v, i) + DESC_FLAGS_AT) & DESC_USED)
			return false;
	return true;
}

/* Wrap counters begin at 1 (virtio 1.2, 2.8.1), so 0 is the base of a ring that has been gone round. Linux' virtio_uml
 * says it of every ring that begins; taken at its word, we would wait for a guest that waits for us. */
static uint32_t base_meant(const struct vring *v, uint32_t base)
{
	return base == 0 && ring_is_unused(v) ? PACKED_BASE_FIRST : base;
}

void packed_start(struct vring *v, uint32_t base, bool is_new)
{
	base = base_meant(v, base);
	v->next_avail = base & 0x7fff;
	v->avail_wrap = base >> 15 & 1;
	v->next_used = base >> 16 & 0x7fff;
	v->used_wrap = base >> 31;
	if (v->next_avail >= v->size || v->next_used >= v->size) {
		v->next_avail = v->next_used = 0;
		vring_break(v, "the ring begins behind its end");
		return;
	}
	if (!v->inflight)
		return;
	if (is_new || !record_is_good(v)) {
		record_begin(v);
		return;
	}
	record_mend(v);
	resume_collect(v, arrival_of);
	uint16_t place = get_le16(v->inflight + RECORD_USED); /* of either copy, or changed this very moment */
	v->next_used = v->next_avail = place < v->size ? place : 0;
	v->used_wrap = v->avail_wrap = v->inflight[RECORD_WRAP] & 1;
	if (place >= v->size || !record_rebuild_free(v)) {
		v->n_resume = 0;
		vring_break(v, "the record of requests in flight makes no sense");
	}
}

/* ---- taking ---- */

static struct vring_desc desc_read(const uint8_t *at, uint16_t *id)
{
	uint8_t copy[VRING_DESC_BYTES];

	memcpy(copy, at, sizeof(copy));
	*id = get_le16(copy + DESC_ID_AT);
	return (struct vring_desc){
	    .addr = get_le64(copy), .len_bytes = get_le32(copy + 8), .flags = get_le16(copy + DESC_FLAGS_AT)};
}

/* In a table the order is that of its places; only WRITE counts of the flags. */
static int indirect_add(struct vring *v, struct vring_chain *c, const struct vring_desc *table)
{
	uint32_t n;
	int res = table_size(v, table, &n);

	for (uint32_t i = 0; res == 0 && i < n; i++) {
		uint8_t raw[VRING_DESC_BYTES];
		uint16_t id;
		res = table_read(v, table, i, raw);
		if (res != 0)
			return res;
		struct vring_desc d = desc_read(raw, &id);
		if (d.flags & DESC_INDIRECT)
			return vring_break(v, "a table of descriptors within another");
		res = chain_add(v, c, &d);
	}
	return res;
}

static int chain_take(struct vring *v, struct vring_chain *c, const struct vring_desc *d)
{
	if (!(d->flags & DESC_INDIRECT))
		return chain_add(v, c, d);
	if (c->n_descs > 1 || d->flags & DESC_NEXT)
		return vring_break(v, "a table of descriptors beside other descriptors");
	return indirect_add(v, c, d);
}

/* One more descriptor of the chain whose first entry is c->entry; `at` is the entry for it. False: no entry is free. */
static bool record_desc(struct vring *v, struct vring_chain *c, uint16_t at, const struct vring_desc *d, uint16_t id)
{
	if (!v->inflight)
		return true;
	if (at >= v->size)
		return false;
	uint8_t *e = record_entry(v, at);
	if (c->n_descs == 0)
		c->entry = at;
	put_le64(e + ENTRY_ADDR, d->addr);
	put_le32(e + ENTRY_LEN, d->len_bytes);
	put_le16(e + ENTRY_FLAGS, d->flags);
	put_le16(e + ENTRY_ID, id);
	put_le16(record_entry(v, c->entry) + ENTRY_LAST, at);
	return true;
}

/* The chain was read: from here on it is in flight. `free` is the entry behind its last. */
static void record_take(struct vring *v, const struct vring_chain *c, uint16_t free)
{
	if (!v->inflight)
		return;
	uint8_t *e = record_entry(v, c->entry);
	put_le16(e + ENTRY_NUM, c->n_descs);
	put_le64(e + ENTRY_ARRIVAL, v->arrivals++);
	shared_store8(e + ENTRY_INFLIGHT, 1);
	shared_store16(v->inflight + RECORD_FREE, free);
	shared_store16(v->inflight + RECORD_OLD_FREE, free);
}

static uint16_t record_next(const struct vring *v, uint16_t at)
{
	return v->inflight && at < v->size ? get_le16(record_entry(v, at) + ENTRY_NEXT) : at;
}

static int ring_take(struct vring *v, struct vring_chain *out)
{
	uint16_t place = v->next_avail, entry = v->inflight ? get_le16(v->inflight + RECORD_FREE) : 0, id;
	bool wrap = v->avail_wrap;

	chain_begin(out);
	for (;;) {
		struct vring_desc d = desc_read(desc_at(v, place), &id);
		if (!record_desc(v, out, entry, &d, id))
			return vring_break(v, "more descriptors in flight than the ring has entries");
		out->n_descs++;
		if (chain_take(v, out, &d) != 0)
			return -EPROTO;
		entry = record_next(v, entry);
		place_advance(v, &place, &wrap, 1);
		if (!(d.flags & DESC_NEXT))
			break;
		if (out->n_descs == v->size)
			return vring_break(v, "a chain of descriptors has no end");
	}
	out->id = id; /* of the last one */
	record_take(v, out, entry);
	v->next_avail = place;
	v->avail_wrap = wrap;
	return 1;
}

/* From the record: record_rebuild_free() has checked the links. */
static int record_resume(struct vring *v, struct vring_chain *out)
{
	uint16_t at = v->resume[v->next_resume];
	uint32_t n = get_le16(record_entry(v, at) + ENTRY_NUM);

	chain_begin(out);
	out->entry = at;
	out->id = 0;
	for (uint32_t i = 0; i < n && i < v->size; i++) {
		if (at >= v->size)
			return vring_break(v, "the record of requests in flight makes no sense");
		const uint8_t *e = record_entry(v, at);
		struct vring_desc d = {.addr = get_le64(e + ENTRY_ADDR),
				       .len_bytes = get_le32(e + ENTRY_LEN),
				       .flags = get_le16(e + ENTRY_FLAGS)};
		out->id = get_le16(e + ENTRY_ID);
		out->n_descs++;
		if (chain_take(v, out, &d) != 0)
			return -EPROTO;
		at = get_le16(e + ENTRY_NEXT);
	}
	if (out->n_descs == 0)
		return vring_break(v, "the record of requests in flight makes no sense");
	v->next_resume++;
	return 1;
}

int packed_next(struct vring *v, struct vring_chain *out)
{
	if (v->next_resume < v->n_resume)
		return record_resume(v, out);
	if (!desc_is_available(v, v->next_avail, v->avail_wrap))
		return 0;
	return ring_take(v, out);
}

bool packed_has_more(const struct vring *v)
{
	return desc_is_available(v, v->next_avail, v->avail_wrap);
}

/* ---- giving back ---- */

/* Frees the chain's entries in the first copy of the record's head. */
static void record_free(struct vring *v, const struct vring_chain *c)
{
	uint8_t *e = record_entry(v, c->entry);
	uint16_t last = get_le16(e + ENTRY_LAST);

	if (last < v->size)
		shared_store16(record_entry(v, last) + ENTRY_NEXT, get_le16(v->inflight + RECORD_FREE));
	shared_store16(v->inflight + RECORD_FREE, c->entry);
	shared_store16(v->inflight + RECORD_USED, v->next_used);
	shared_store8(v->inflight + RECORD_WRAP, v->used_wrap);
}

void packed_complete(struct vring *v, const struct vring_chain *c, uint32_t len_bytes)
{
	uint8_t *d = desc_at(v, v->next_used);
	uint16_t flags = v->used_wrap ? DESC_AVAIL | DESC_USED : 0;

	put_le32(d + 8, len_bytes);
	put_le16(d + DESC_ID_AT, c->id);
	if (len_bytes > 0)
		flags |= DESC_WRITE;
	bool wrap = v->used_wrap;
	place_advance(v, &v->next_used, &v->used_wrap, c->n_descs);
	if (wrap != v->used_wrap)
		v->called_at = (uint16_t)(v->called_at - v->size); /* as far behind as before */
	if (v->inflight)
		record_free(v, c);
	shared_store16(d + DESC_FLAGS_AT, flags);
	memory_note(v->memory, d, VRING_DESC_BYTES);
	if (v->inflight) {
		shared_store8(record_entry(v, c->entry) + ENTRY_INFLIGHT, 0);
		record_copy(v, false);
	}
}

bool packed_wants_call(struct vring *v)
{
	uint16_t before = v->called_at, now = v->next_used;

	shared_fence();
	v->called_at = now;
	uint16_t flags = shared_load16(v->avail + EVENT_FLAGS_AT), at = shared_load16(v->avail + EVENT_OFFSET_AT);
	if (!v->has_event_idx || flags != EVENT_DESC)
		return flags != EVENT_DISABLE;
	uint16_t event = at & (uint16_t)~EVENT_WRAP;
	if (!!(at & EVENT_WRAP) != v->used_wrap)
		event = (uint16_t)(event - v->size);
	return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

void packed_set_kicks(struct vring *v, bool wanted)
{
	uint16_t flags = EVENT_DISABLE;

	if (wanted && v->has_event_idx) {
		shared_store16(v->used + EVENT_OFFSET_AT, (uint16_t)(v->next_avail | (v->avail_wrap ? EVENT_WRAP : 0)));
		flags = EVENT_DESC;
	} else if (wanted) {
		flags = EVENT_ENABLE;
	}
	shared_store16(v->used + EVENT_FLAGS_AT, flags);
	memory_note(v->memory, v->used, VRING_EVENT_BYTES);
}
