/*
 * leaf.h: the map of 64 MiB of a volume: where each block's data is.
 */
#pragma once

#include "cli/backup/format.h"

/* Owner: whoever created it; one thread at a time. */
struct leaf {
	uint32_t chunk[LEAF_BLOCKS]; /* 0: a hole; else 1 + the number of the chunk in ids */
	uint8_t at[LEAF_BLOCKS];     /* the block within the chunk */
	struct chunk_id *ids;
	uint32_t n_ids, room;
};

/* Consecutive blocks of one piece, from one chunk. */
struct leaf_run {
	uint32_t block, n_blocks; /* within the leaf */
	uint32_t chunk, at;       /* number in ids, first block in it */
};

struct leaf *leaf_create(void); /* all holes */
void leaf_destroy(struct leaf *leaf);
/* Adds a chunk; returns its number. */
uint32_t leaf_add(struct leaf *leaf, const struct chunk_id *id);
static inline void leaf_set(struct leaf *leaf, uint32_t block, uint32_t chunk, uint32_t at)
{
	leaf->chunk[block] = chunk + 1;
	leaf->at[block] = (uint8_t)at;
}
static inline void leaf_set_hole(struct leaf *leaf, uint32_t block)
{
	leaf->chunk[block] = 0;
}
uint32_t leaf_n_data(const struct leaf *leaf); /* blocks that are no holes */
/* The run that begins at or behind *block and before end; false: only holes are left. Moves *block behind it. */
bool leaf_next_run(const struct leaf *leaf, uint32_t *block, uint32_t end, struct leaf_run *run);

/* Writes it, without chunks that no block uses; to be freed. *n_bytes is at most LEAF_PLAIN_MAX. */
uint8_t *leaf_encode(const struct leaf *leaf, size_t *n_bytes);
/* Reads one into an empty leaf: 0, or -EBADMSG. */
must_check int leaf_decode(struct leaf *leaf, const uint8_t *data, size_t n_bytes);
