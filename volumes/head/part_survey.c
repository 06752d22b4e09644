/*
 * part_survey.c: the stage SURVEY of a part, only while the volume is being filled: which of its blocks has nobody written? A
 * filler's write is cut into runs of these, each carried like a write of its own; a strict read fails if one of them is yet to
 * be brought, and a strict write if its first or last block is, of which it keeps a part.
 *
 * Owner: the request that the part belongs to.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>

/* While a volume is filled: is it to be known what was written? */
static bool part_needs_survey(const struct part *p)
{
	const struct volume_io *io = p->request;
	if (p->kind == PART_WRITE && io->flags & VOLUME_FILL)
		return true;
	return io->own.is_strict && (p->kind == PART_READ || (part_writes(p) && (p->has_head || p->has_tail)));
}

/* Is it a client's change, of which only the edges are looked at? */
static bool part_surveys_edges(const struct part *p)
{
	return part_writes(p) && !(p->request->flags & VOLUME_FILL);
}

bool part_survey_begin(struct part *p)
{
	p->is_surveyed = part_needs_survey(p);
	if (!p->is_surveyed)
		return false;
	p->untouched = 0;
	p->survey_end = part_surveys_edges(p) && !p->has_head ? p->block + p->n_blocks - 1 : p->block;
	p->whole.pos_bytes = p->pos_bytes;
	p->whole.len_bytes = p->len_bytes;
	p->whole.slice = p->slice;
	return true;
}

/* Blocks [first, end) of the part, as bits. */
static uint64_t part_bits(const struct part *p, uint64_t first, uint64_t end)
{
	quarry_assert(first >= p->block && end > first && end - p->block <= 64);
	uint64_t n = end - first;
	return (n == 64 ? UINT64_MAX : (1ull << n) - 1) << (first - p->block);
}

/* Asks the disk what was written from survey_end on. */
enum flow part_survey(struct part *p)
{
	uint64_t end = p->block + p->n_blocks;
	if (p->err != 0 || p->survey_end == end)
		return FLOW_NEXT;
	if (part_good(p) == 0) {
		p->err = -EIO;
		return FLOW_NEXT;
	}
	struct disk_io *io = &p->first.rio.io;
	io->op = DISK_MAP;
	io->first = p->survey_end;
	io->n_blocks = part_surveys_edges(p) ? 1 : end - p->survey_end;
	io->since = 1; /* what has an epoch */
	io->extents = p->extents;
	io->extents_max = PART_EXTENTS_MAX;
	part_look(p);
	return FLOW_WAIT;
}

/* The disk has answered of one edge: the other one is next. */
static void part_surveyed_edge(struct part *p)
{
	uint64_t block = p->survey_end, last = p->block + p->n_blocks - 1;
	bool is_missing = p->first.rio.io.n_extents == 0 && fill_awaits(p->volume, block * BLOCK_BYTES, SECTOR_BYTES);
	if (is_missing)
		p->err = -EIO;
	p->survey_end = block < last && p->has_tail ? last : last + 1;
	part_find_again(p);
}

/* The disk has answered: of what the extents cover, or all that was asked for when there was room for more. */
void part_surveyed(struct part *p)
{
	uint64_t end = p->block + p->n_blocks;
	uint32_t n_extents = p->first.rio.io.n_extents;
	if (p->err != 0)
		return;
	if (part_surveys_edges(p)) {
		part_surveyed_edge(p);
		return;
	}
	if (n_extents == PART_EXTENTS_MAX)
		end = p->extents[n_extents - 1].first + p->extents[n_extents - 1].n_blocks;
	p->untouched |= part_bits(p, p->survey_end, end);
	for (uint32_t i = 0; i < n_extents; i++)
		p->untouched &= ~part_bits(p, p->extents[i].first, p->extents[i].first + p->extents[i].n_blocks);
	p->survey_end = end;
	part_find_again(p);
}

/* The next run of blocks that nobody wrote becomes what the part carries; false: there is none. */
bool part_next_run(struct part *p)
{
	uint64_t whole_end = p->whole.pos_bytes + p->whole.len_bytes;
	if (p->err != 0 || p->untouched == 0)
		return false;
	uint64_t skip = (uint64_t)__builtin_ctzll(p->untouched), rest = ~(p->untouched >> skip);
	uint64_t n = rest ? (uint64_t)__builtin_ctzll(rest) : 64;
	p->untouched &= ~((n == 64 ? UINT64_MAX : (1ull << n) - 1) << skip);
	p->pos_bytes = p->whole.pos_bytes + skip * BLOCK_BYTES;
	p->len_bytes = min_u64(p->pos_bytes + n * BLOCK_BYTES, whole_end) - p->pos_bytes;
	p->slice = p->whole.slice;
	slice_skip(&p->slice, p->pos_bytes - p->whole.pos_bytes);
	part_aim(p);
	return true;
}

/* Nobody wrote it, and it is still to be brought. */
static bool part_lacks(const struct part *p)
{
	bool is_missing = false;
	for (uint64_t left = p->untouched; left != 0 && !is_missing; left &= left - 1) {
		uint64_t block = p->block + (uint64_t)__builtin_ctzll(left);
		is_missing = fill_awaits(p->volume, block * BLOCK_BYTES, SECTOR_BYTES);
	}
	return is_missing;
}

/* What becomes of a part once it is known what was written. */
enum part_stage part_after_survey(struct part *p)
{
	if (p->err == 0 && p->kind == PART_READ) {
		p->err = part_lacks(p) ? -EIO : 0;
		return p->err ? PART_END : PART_MERGE;
	}
	if (p->err == 0 && part_surveys_edges(p))
		return PART_FETCH;
	return part_next_run(p) ? PART_FETCH : PART_END;
}
