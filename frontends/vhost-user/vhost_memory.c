/*
 * vhost_memory.c: a guest's memory as its VMM has shared it.
 *
 * Guests give guest addresses, VMMs their own, and neither is trusted: what does not lie in a region as a whole is not
 * there. A range of guest addresses may go through several regions that are neighbours for the guest and lie anywhere
 * for us; whoever asks gets the first piece and asks again.
 *
 * Invariants
 *  1. Regions do not overlap in guest addresses nor in the VMM's, and end before 2^64: no sum below overflows.
 *  2. Together they have VHOST_MEMORY_BYTES_MAX at most.
 *  3. A region is mapped as long as it is in the table; it is taken out only when no request is in flight.
 *
 * Owner: the connection.
 */
#include "frontends/vhost-user/vhost_memory.h"

#include <errno.h>
#include <string.h>

uint8_t *memory_at(const struct vhost_memory *m, uint64_t guest, uint64_t *len_bytes)
{
	quarry_assert(m->n_regions <= VHOST_REGIONS_MAX);
	for (uint32_t i = 0; i < m->n_regions; i++) {
		const struct vhost_region *r = &m->regions[i];
		if (guest < r->guest || guest - r->guest >= r->len_bytes)
			continue;
		uint64_t skip = guest - r->guest;
		*len_bytes = min_u64(*len_bytes, r->len_bytes - skip);
		return r->host + skip;
	}
	return NULL;
}

uint8_t *memory_at_user(const struct vhost_memory *m, uint64_t user, uint64_t len_bytes)
{
	for (uint32_t i = 0; i < m->n_regions; i++) {
		const struct vhost_region *r = &m->regions[i];
		if (user < r->user || user - r->user >= r->len_bytes)
			continue;
		uint64_t skip = user - r->user;
		return len_bytes <= r->len_bytes - skip ? r->host + skip : NULL;
	}
	return NULL;
}

static bool ranges_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
	return a < b + b_bytes && b < a + a_bytes;
}

static int region_check(const struct vhost_memory *m, const struct vhost_region *region)
{
	uint64_t len = region->len_bytes, all = 0;

	if (len == 0 || region->guest > UINT64_MAX - len || region->user > UINT64_MAX - len ||
	    region->file_pos > UINT64_MAX - len)
		return -EINVAL;
	for (uint32_t i = 0; i < m->n_regions; i++) {
		const struct vhost_region *r = &m->regions[i];
		if (ranges_overlap(r->guest, r->len_bytes, region->guest, len) ||
		    ranges_overlap(r->user, r->len_bytes, region->user, len))
			return -EEXIST;
		all += r->len_bytes;
	}
	if (len > VHOST_MEMORY_BYTES_MAX - all)
		return -E2BIG;
	return m->n_regions == VHOST_REGIONS_MAX ? -ENOSPC : 0;
}

int memory_add(struct vhost_memory *m, struct reactor *r, int fd, const struct vhost_region *region)
{
	struct vhost_region new = *region;
	int res = region_check(m, region);

	if (res == 0)
		res = reactor_map(r, fd, region->file_pos, region->len_bytes, &new.mapping);
	if (res != 0)
		return res;
	new.host = new.mapping->data;
	m->regions[m->n_regions++] = new;
	return 0;
}

int memory_remove(struct vhost_memory *m, const struct vhost_region *region)
{
	for (uint32_t i = 0; i < m->n_regions; i++) {
		struct vhost_region *r = &m->regions[i];
		if (r->guest != region->guest || r->len_bytes != region->len_bytes || r->user != region->user)
			continue;
		if (r->mapping)
			mapping_close(r->mapping);
		*r = m->regions[--m->n_regions];
		return 0;
	}
	return -ENOENT;
}

void memory_clear(struct vhost_memory *m)
{
	for (uint32_t i = 0; i < m->n_regions; i++)
		if (m->regions[i].mapping)
			mapping_close(m->regions[i].mapping);
	m->n_regions = 0;
}

bool memory_is_broken(const struct vhost_memory *m)
{
	for (uint32_t i = 0; i < m->n_regions; i++)
		if (m->regions[i].mapping && m->regions[i].mapping->is_broken)
			return true;
	return m->log && m->log->is_broken;
}

/* The VMM clears bits while we set others: atomically. Pages behind the end of the log are not looked for. */
static void pages_changed(const struct vhost_memory *m, uint64_t guest, uint64_t len_bytes)
{
	uint64_t first = guest / VHOST_LOG_PAGE, last = (guest + len_bytes - 1) / VHOST_LOG_PAGE;

	for (uint64_t page = first; page <= last && page / 8 < m->log->len_bytes; page++)
		__atomic_fetch_or(&m->log->data[page / 8], (uint8_t)(1u << page % 8), __ATOMIC_SEQ_CST);
}

void memory_changed(const struct vhost_memory *m, const void *at, uint64_t len_bytes)
{
	const uint8_t *p = at;

	if (len_bytes == 0)
		return;
	for (uint32_t i = 0; i < m->n_regions; i++) {
		const struct vhost_region *r = &m->regions[i];
		if (p < r->host || p >= r->host + r->len_bytes)
			continue;
		quarry_assert(len_bytes <= r->len_bytes - (uint64_t)(p - r->host));
		pages_changed(m, r->guest + (uint64_t)(p - r->host), len_bytes);
		return;
	}
}
