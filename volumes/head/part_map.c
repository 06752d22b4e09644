/*
 * part_map.c: what a disk's extents tell the client of a MAP.
 */
#include "volumes/head/head_internal.h"

/* Tells of [from, from + n); false: the request's room is full, and it ends here. */
static bool part_map_add(struct part *p, uint64_t first, uint64_t n_blocks, unsigned what)
{
	if (n_blocks == 0 || volume_io_map_add(p->request, first, n_blocks, what))
		return true;
	p->request->own.cursor = p->request->own.end;
	return false;
}

/* With `since` the disk tells only of what has changed; what lies between has not. */
void part_map_extents(struct part *p)
{
	uint64_t at = p->block, end = p->block + p->n_blocks;
	uint64_t since = p->request->since;
	uint32_t n_extents = p->first.rio.io.n_extents;
	for (uint32_t i = 0; i < n_extents; i++) {
		const struct disk_extent *e = &p->extents[i];
		quarry_assert(e->first >= at && (since > 0 || e->first == at));
		if (!part_map_add(p, at, e->first - at, 0) ||
		    !part_map_add(p, e->first, e->n_blocks,
				  (e->is_data ? MAP_DATA : 0u) | (since > 0 ? MAP_CHANGED : 0u)))
			return;
		at = e->first + e->n_blocks;
	}
	quarry_assert(at <= end && (since > 0 || n_extents > 0));
	if (n_extents < PART_EXTENTS_MAX && since > 0) {
		part_map_add(p, at, end - at, 0);
		return;
	}
	/* The extents ran out of room here: the request goes on where the answer ends. */
	if (at * BLOCK_BYTES < p->pos_bytes + p->len_bytes)
		p->request->own.cursor = at * BLOCK_BYTES;
}
