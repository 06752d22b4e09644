/*
 * vring.c: what split and packed rings have in common.
 */
#include "frontends/vhost-user/vring.h"

#include <errno.h>
#include <stdlib.h>

int vring_break(struct vring *v, const char *why)
{
	if (v->is_broken)
		return -EPROTO;
	v->is_broken = true;
	v->is_lacking = false;
	v->why = why;
	return -EPROTO;
}

int vring_lack(struct vring *v, const char *why)
{
	bool was_broken = v->is_broken;

	vring_break(v, why);
	v->is_lacking |= !was_broken;
	return -EPROTO;
}

void vring_mend(struct vring *v)
{
	quarry_assert(v->is_broken && v->is_lacking);
	v->is_broken = v->is_lacking = false;
	v->why = NULL;
}

void chain_begin(struct vring_chain *c)
{
	c->n_pieces = c->n_readable = 0;
	c->readable_bytes = c->writable_bytes = 0;
	c->n_descs = 0;
	c->entry = 0;
}

int chain_add(struct vring *v, struct vring_chain *c, const struct vring_desc *d)
{
	bool is_writable = d->flags & DESC_WRITE;
	uint64_t addr = d->addr, left = d->len_bytes;

	if (!is_writable && c->writable_bytes > 0)
		return vring_break(v, "memory to read from comes after memory to write to");
	while (left > 0) {
		uint64_t len = left;
		uint8_t *at = memory_at(v->memory, addr, &len);
		if (!at)
			return vring_lack(v, "a descriptor lies outside of the guest's memory");
		if (c->n_pieces == CHAIN_PIECES_MAX)
			return vring_break(v, "a request has too many pieces");
		c->pieces[c->n_pieces++] = (struct iovec){at, len};
		if (is_writable)
			c->writable_bytes += len;
		else
			c->readable_bytes += len;
		c->n_readable += !is_writable;
		addr += len; /* no overflow: regions end before 2^64 */
		left -= len;
	}
	return 0;
}

int table_size(struct vring *v, const struct vring_desc *table, uint32_t *n)
{
	*n = table->len_bytes / VRING_DESC_BYTES;
	if (!v->has_indirect)
		return vring_break(v, "a table of descriptors, which was not agreed on");
	if (*n == 0 || *n > VRING_SIZE_MAX || table->len_bytes % VRING_DESC_BYTES != 0)
		return vring_break(v, "a table of descriptors has a wrong length");
	return 0;
}

/* A table that lies in two regions is copied piece by piece: a descriptor may lie on their border. */
int table_read(struct vring *v, const struct vring_desc *table, uint32_t i, uint8_t to[static VRING_DESC_BYTES])
{
	uint64_t addr = table->addr + (uint64_t)i * VRING_DESC_BYTES;

	for (uint64_t done = 0; done < VRING_DESC_BYTES;) {
		uint64_t len = VRING_DESC_BYTES - done;
		const uint8_t *at = memory_at(v->memory, addr + done, &len);
		if (!at)
			return vring_lack(v, "a table of descriptors lies outside of the guest's memory");
		memcpy(to + done, at, len);
		done += len;
	}
	return 0;
}

/* ---- what was in flight when we were lost ---- */

struct arrival {
	uint64_t at;
	uint16_t entry;
};

static int arrival_compare(const void *a, const void *b)
{
	const struct arrival *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

void resume_collect(struct vring *v, bool (*arrival)(const struct vring *v, uint32_t entry, uint64_t *out))
{
	struct arrival found[VRING_SIZE_MAX];
	uint32_t n = 0;

	quarry_assert(v->size <= VRING_SIZE_MAX);
	for (uint32_t i = 0; i < v->size; i++) {
		if (!arrival(v, i, &found[n].at))
			continue;
		v->arrivals = max_u64(v->arrivals, found[n].at + 1);
		found[n++].entry = (uint16_t)i;
	}
	/* cppcheck-suppress uninitvar ; the first n are set */
	qsort(found, n, sizeof(found[0]), arrival_compare);
	for (uint32_t i = 0; i < n; i++)
		v->resume[i] = found[i].entry;
	v->n_resume = n;
	v->next_resume = 0;
}

/* ---- either kind ---- */

struct vring_layout vring_layout(uint32_t size, bool is_packed)
{
	if (is_packed)
		return (struct vring_layout){(uint64_t)VRING_DESC_BYTES * size, VRING_EVENT_BYTES, VRING_EVENT_BYTES};
	return (struct vring_layout){.desc_bytes = (uint64_t)VRING_DESC_BYTES * size,
				     .avail_bytes = 6 + 2ull * size,
				     .used_bytes = 6 + (uint64_t)VRING_USED_ELEM_BYTES * size};
}

void vring_start(struct vring *v, uint32_t base, bool is_new)
{
	quarry_assert(v->size > 0 && v->size <= VRING_SIZE_MAX);
	quarry_assert(v->desc && v->avail && v->used);
	v->is_broken = v->is_lacking = false;
	v->why = NULL;
	v->arrivals = 0;
	v->n_resume = v->next_resume = 0;
	v->is_call_due = true; /* the guest may have slept through one that somebody owed it before us */
	if (v->is_packed)
		packed_start(v, base, is_new);
	else
		split_start(v, base, is_new);
	v->called_at = v->next_used;
}

void vring_stop(struct vring *v)
{
	if (v->inflight)
		shared_store16(v->inflight + INFLIGHT_VERSION, 0);
}

uint32_t vring_base(const struct vring *v)
{
	if (!v->is_packed)
		return v->next_avail;
	return (uint32_t)v->next_avail | (uint32_t)v->avail_wrap << 15 | (uint32_t)v->next_used << 16 |
	       (uint32_t)v->used_wrap << 31;
}

int vring_next(struct vring *v, struct vring_chain *out)
{
	if (v->is_broken)
		return -EPROTO;
	return v->is_packed ? packed_next(v, out) : split_next(v, out);
}

bool vring_has_more(const struct vring *v)
{
	if (v->is_broken)
		return false;
	return vring_is_resuming(v) || (v->is_packed ? packed_has_more(v) : split_has_more(v));
}

bool vring_is_resuming(const struct vring *v)
{
	return !v->is_broken && v->next_resume < v->n_resume;
}

void vring_complete(struct vring *v, const struct vring_chain *c, uint32_t len_bytes)
{
	if (v->is_packed)
		packed_complete(v, c, len_bytes);
	else
		split_complete(v, c, len_bytes);
}

bool vring_wants_call(struct vring *v)
{
	bool is_due = v->is_call_due;

	v->is_call_due = false;
	return (v->is_packed ? packed_wants_call(v) : split_wants_call(v)) || is_due;
}

void vring_set_kicks(struct vring *v, bool wanted)
{
	if (v->is_broken)
		return;
	if (v->is_packed)
		packed_set_kicks(v, wanted);
	else
		split_set_kicks(v, wanted);
	if (wanted)
		shared_fence();
}
