/*
 * leaf.c: the map of 64 MiB of a volume.
 *
 * 1. A run lies within one piece, so that it has at most 32 blocks, as a chunk has.
 * 2. Written, the chunks stand in the order of their first use and none is unused: equal maps of equal history are equal
 *    bytes and are stored once.
 * 3. leaf_decode() takes only what leaf_encode() could have written: runs in order, apart from each other, inside the
 *    leaf, chunks that are there and all used.
 */
#include "cli/backup/leaf.h"

#include <errno.h>

struct leaf *leaf_create(void)
{
	struct leaf *leaf = calloc(1, sizeof(*leaf));
	if (!leaf)
		abort();
	return leaf;
}

void leaf_destroy(struct leaf *leaf)
{
	if (!leaf)
		return;
	free(leaf->ids);
	free(leaf);
}

uint32_t leaf_add(struct leaf *leaf, const struct chunk_id *id)
{
	if (leaf->n_ids == leaf->room) {
		leaf->room = leaf->room ? leaf->room * 2 : 64;
		leaf->ids = reallocarray(leaf->ids, leaf->room, sizeof(*leaf->ids));
		if (!leaf->ids)
			abort();
	}
	leaf->ids[leaf->n_ids] = *id;
	return leaf->n_ids++;
}

uint32_t leaf_n_data(const struct leaf *leaf)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
		n += leaf->chunk[i] != 0;
	return n;
}

bool leaf_next_run(const struct leaf *leaf, uint32_t *block, uint32_t end, struct leaf_run *run)
{
	uint32_t b = *block;
	quarry_assert(b <= end && end <= LEAF_BLOCKS);
	while (b < end && leaf->chunk[b] == 0)
		b++;
	*block = b;
	if (b == end)
		return false;
	uint32_t border = (b / PIECE_BLOCKS + 1) * PIECE_BLOCKS;
	if (border > end)
		border = end;
	*run = (struct leaf_run){.block = b, .n_blocks = 1, .chunk = leaf->chunk[b] - 1, .at = leaf->at[b]};
	while (b + run->n_blocks < border && leaf->chunk[b + run->n_blocks] == leaf->chunk[b] &&
	       leaf->at[b + run->n_blocks] == leaf->at[b] + run->n_blocks)
		run->n_blocks++;
	*block = b + run->n_blocks;
	quarry_assert(run->chunk < leaf->n_ids && run->at + run->n_blocks <= PIECE_BLOCKS);
	return true;
}

/* Numbers the chunks anew, in the order of their use: map[old] is 1 + new. Counts them and the runs. */
static void leaf_renumber(const struct leaf *leaf, uint32_t *map, uint32_t *n_ids, uint32_t *n_runs)
{
	struct leaf_run run;
	*n_ids = *n_runs = 0;
	for (uint32_t block = 0; leaf_next_run(leaf, &block, LEAF_BLOCKS, &run); ++*n_runs) {
		if (map[run.chunk] == 0)
			map[run.chunk] = ++*n_ids;
	}
}

uint8_t *leaf_encode(const struct leaf *leaf, size_t *n_bytes)
{
	uint32_t n_ids, n_runs, *map = calloc(leaf->n_ids + 1, sizeof(*map));
	struct leaf_run run;
	if (!map)
		abort();
	leaf_renumber(leaf, map, &n_ids, &n_runs);
	*n_bytes = LEAF_HEADER_BYTES + (size_t)n_ids * ID_BYTES + (size_t)n_runs * LEAF_RUN_BYTES;
	quarry_assert(*n_bytes <= LEAF_PLAIN_MAX);
	uint8_t *data = malloc(*n_bytes);
	if (!data)
		abort();
	uint8_t *at = data + LEAF_HEADER_BYTES + (size_t)n_ids * ID_BYTES;
	put_le32(data, n_ids);
	put_le32(data + 4, n_runs);
	for (uint32_t i = 0; i < leaf->n_ids; i++) {
		if (map[i])
			memcpy(data + LEAF_HEADER_BYTES + (size_t)(map[i] - 1) * ID_BYTES, &leaf->ids[i], ID_BYTES);
	}
	for (uint32_t block = 0; leaf_next_run(leaf, &block, LEAF_BLOCKS, &run); at += LEAF_RUN_BYTES) {
		put_le16(at, (uint16_t)run.block);
		at[2] = (uint8_t)run.n_blocks;
		at[3] = (uint8_t)run.at;
		put_le32(at + 4, map[run.chunk] - 1);
	}
	quarry_assert(at == data + *n_bytes);
	free(map);
	return data;
}

static bool run_is_sane(const struct leaf_run *run, uint32_t behind, uint32_t n_ids)
{
	uint32_t last = run->block + run->n_blocks - 1;
	return run->n_blocks > 0 && run->block >= behind && last < LEAF_BLOCKS && run->chunk < n_ids &&
	       run->at + run->n_blocks <= PIECE_BLOCKS && last / PIECE_BLOCKS == run->block / PIECE_BLOCKS;
}

int leaf_decode(struct leaf *leaf, const uint8_t *data, size_t n_bytes)
{
	quarry_assert(leaf->n_ids == 0);
	if (n_bytes < LEAF_HEADER_BYTES || n_bytes > LEAF_PLAIN_MAX)
		return -EBADMSG;
	uint32_t n_ids = get_le32(data), n_runs = get_le32(data + 4), behind = 0, n_used = 0;
	if (n_ids > LEAF_BLOCKS || n_runs > LEAF_BLOCKS ||
	    n_bytes != LEAF_HEADER_BYTES + (size_t)n_ids * ID_BYTES + (size_t)n_runs * LEAF_RUN_BYTES)
		return -EBADMSG;
	for (uint32_t i = 0; i < n_ids; i++) {
		struct chunk_id id;
		memcpy(&id, data + LEAF_HEADER_BYTES + (size_t)i * ID_BYTES, ID_BYTES);
		leaf_add(leaf, &id);
	}
	const uint8_t *at = data + LEAF_HEADER_BYTES + (size_t)n_ids * ID_BYTES;
	for (uint32_t i = 0; i < n_runs; i++, at += LEAF_RUN_BYTES) {
		struct leaf_run run = {get_le16(at), at[2], get_le32(at + 4), at[3]};
		if (!run_is_sane(&run, behind, n_ids) || run.chunk > n_used)
			return -EBADMSG;
		n_used += run.chunk == n_used;
		behind = run.block + run.n_blocks;
		for (uint32_t b = 0; b < run.n_blocks; b++)
			leaf_set(leaf, run.block + b, run.chunk, run.at + b);
	}
	return n_used == n_ids ? 0 : -EBADMSG;
}
