/*
 * disk_image.h: a small disk made by hand, block by block, with the encoders only: for tests that must not depend on
 * the engine. It holds one of everything the format knows:
 *
 *   slot 0  V1 tree 1  live      height 2: leaf A' (blocks 0-9, a tombstone at 20), leaf B (1280-1283), a tombstone
 * above slot 1  V1 tree 2  snapshot  the same before block 3 was written again: leaf A, and leaf B shared with tree 1
 *   slot 2  V2 tree 3  live      height 1: blocks 0-2
 *   slot 3  V2 tree 4  snapshot  the very same root page, shared
 *   slot 4  V1 tree 5  dying     height 2, freed up to block 512: what the root still names left of that is gone
 *   slot 5  V2 tree 6  live      nothing in it
 *
 * with a count index over count pages and holes, a delta log of two blocks, and a journal with every kind of record, of
 * which one was incomplete at a power loss. `broken` makes one thing wrong, under right checksums.
 */
#pragma once

#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"
#include "volumes/disk/disk_format.h"

#include <stdlib.h>
#include <string.h>

#define IMAGE_BLOCKS     (DISK_MIN_BLOCKS * 2) /* 32 MiB: four regions, the last of them a hole in the index */
#define IMAGE_FREED      520u /* blocks freed since their count page was written: two blocks of deltas */
#define IMAGE_REPLAY     200u /* first sequence to replay */
#define IMAGE_FLUSHED    201u /* highest mark */
#define IMAGE_END        204u /* first sequence that is not there */
#define IMAGE_CHECKPOINT 6u

#define BROKEN(X)                                                                                                      \
	X(NOTHING)                                                                                                     \
	X(LEAF_EPOCH)                                                                                                  \
	X(TOMBSTONE_EPOCH)                                                                                             \
	X(HOLE_CHECKSUM)                                                                                               \
	X(DATA_OUTSIDE)                                                                                                \
	X(DATA_IN_JOURNAL)                                                                                             \
	X(DATA_CHECKSUM)                                                                                               \
	X(DATA_IS_PAGE)                                                                                                \
	X(PAGE_CHECKSUM)                                                                                               \
	X(PAGE_OUTSIDE)                                                                                                \
	X(PAGE_AT_TWO_HEIGHTS)                                                                                         \
	X(PAGE_PRIVATE_YET_SHARED)                                                                                     \
	X(COUNT_ZERO)                                                                                                  \
	X(COUNT_LOW)                                                                                                   \
	X(COUNT_HIGH)                                                                                                  \
	X(COUNT_LEAKED)                                                                                                \
	X(COUNT_OUTSIDE)                                                                                               \
	X(COUNT_PAGE_CHECKSUM)                                                                                         \
	X(INDEX_FREE_HIGH)                                                                                             \
	X(INDEX_FREE_LOW)                                                                                              \
	X(INDEX_CHECKSUM)                                                                                              \
	X(INDEX_PAST_END)                                                                                              \
	X(DELTA_ORDER)                                                                                                 \
	X(DELTA_OUTSIDE)                                                                                               \
	X(DELTA_NEGATIVE)                                                                                              \
	X(DELTA_WAS_ZERO)                                                                                              \
	X(DELTA_IS_ZERO)                                                                                               \
	X(DELTA_TAIL)                                                                                                  \
	X(DELTA_POINTERS)                                                                                              \
	X(DELTA_CHECKSUM)                                                                                              \
	X(DELTA_PAGE_CHECKSUM)                                                                                         \
	X(TREE_TWICE)                                                                                                  \
	X(TREE_RECORD_CHECKSUM)                                                                                        \
	X(TREE_RECORD_WRONG)                                                                                           \
	X(TREE_RECORD_SHARED)                                                                                          \
	X(TREE_NUMBER)                                                                                                 \
	X(TREE_ROOT_OUTSIDE)                                                                                           \
	X(TREES_CHECKSUM)                                                                                              \
	X(TREES_PAST_END)                                                                                              \
	X(SLOT_CHECKSUM)                                                                                               \
	X(VOLUME_TWICE)                                                                                                \
	X(VOLUME_RECORD_CHECKSUM)                                                                                      \
	X(VOLUME_RECORD_WRONG)                                                                                         \
	X(JOURNAL_FLUSHED_GONE)                                                                                        \
	X(JOURNAL_COMPLETED_GONE)                                                                                      \
	X(JOURNAL_CHECKPOINT)                                                                                          \
	X(JOURNAL_MISPLACED)                                                                                           \
	X(JOURNAL_FLUSHED_DATA)                                                                                        \
	X(JOURNAL_FLUSHED_SUM)                                                                                         \
	X(JOURNAL_TAKES_USED)                                                                                          \
	X(JOURNAL_TAKES_TWICE)                                                                                         \
	X(JOURNAL_OUTSIDE)                                                                                             \
	X(JOURNAL_NO_TREE)                                                                                             \
	X(JOURNAL_DYING_TREE)                                                                                          \
	X(JOURNAL_SLOT_IN_USE)                                                                                         \
	X(JOURNAL_TWO_LEAVES)                                                                                          \
	X(JOURNAL_HOLES_TWO_LEAVES)                                                                                    \
	X(JOURNAL_SWAP_ALONE)                                                                                          \
	X(JOURNAL_SWAP_FOREIGN)                                                                                        \
	X(JOURNAL_AFTER_CLEAN)                                                                                         \
	X(JOURNAL_NO_VOLUME)                                                                                           \
	X(JOURNAL_OTHER_VOLUME)

enum broken {
#define X(name) BROKEN_##name,
	BROKEN(X)
#undef X
};

struct image {
	uint8_t *blocks;
	uint64_t n_blocks; /* of the device */
	uint64_t next;     /* free block */
	uint16_t *counts;  /* as they should be, by block */
	enum broken broken;
	struct superblock superblock;
	/* where things are, for tests that flip bits */
	uint64_t data_block, leaf_a, leaf_b, root_1, journaled_data;
	uint64_t freed[IMAGE_FREED];
};

static inline bool image_breaks(const struct image *g, enum broken b)
{
	return g->broken == b;
}
static inline uint8_t *image_block(struct image *g, uint64_t block)
{
	return g->blocks + block * BLOCK_BYTES;
}

static inline struct uuid image_uuid(uint8_t n)
{
	return (struct uuid){{n, 0x11, 0x22, 0x33, 0x44, 0x55}};
}

static inline uint64_t image_take(struct image *g)
{
	quarry_assert(g->next < g->n_blocks && g->counts[g->next] == 0);
	g->counts[g->next] = 1;
	return g->next++;
}

/* A fresh block with this content; the pointer to it. */
static inline struct pointer image_put(struct image *g, enum block_kind kind, const void *content, uint64_t epoch)
{
	uint64_t block = image_take(g);

	memcpy(image_block(g, block), content, BLOCK_BYTES);
	return pointer_make(block_crc(kind, content), block, epoch);
}

static inline struct pointer image_data(struct image *g, uint64_t epoch)
{
	uint8_t content[BLOCK_BYTES];

	for (unsigned i = 0; i < BLOCK_BYTES; i += 8)
		put_le64(content + i, (g->next << 16 ^ i) * 0x9E3779B97F4A7C15ull);
	return image_put(g, KIND_DATA, content, epoch);
}

static inline void image_raise(struct image *g, struct pointer p)
{
	if (!pointer_is_hole(p))
		g->counts[pointer_block(p)]++;
}

static inline struct pointer image_bad_crc(struct pointer p)
{
	return pointer_make(pointer_crc(p) ^ 1, pointer_block(p), pointer_epoch(p));
}

/* ---- trees ---- */

static inline struct pointer image_leaf_a(struct image *g, struct page *leaf)
{
	memset(leaf, 0, sizeof(*leaf));
	for (unsigned i = 0; i < 10; i++)
		leaf->p[i] = image_data(g, 2);
	g->data_block = pointer_block(leaf->p[5]);
	leaf->p[20] = pointer_make(0, 0, 3);
	if (image_breaks(g, BROKEN_HOLE_CHECKSUM))
		leaf->p[21] = pointer_make(77, 0, 0);
	if (image_breaks(g, BROKEN_DATA_CHECKSUM))
		leaf->p[5] = image_bad_crc(leaf->p[5]);
	if (image_breaks(g, BROKEN_DATA_OUTSIDE))
		leaf->p[30] = pointer_make(1, g->n_blocks, 2);
	if (image_breaks(g, BROKEN_DATA_IN_JOURNAL))
		leaf->p[30] = pointer_make(1, JOURNAL_START + 3, 2);
	struct pointer p = image_put(g, KIND_PAGE, leaf, 3);
	g->leaf_a = pointer_block(p);
	return p;
}

static inline struct pointer image_leaf_b(struct image *g)
{
	struct page leaf = {0};

	for (unsigned i = 0; i < 4; i++)
		leaf.p[i] = image_data(g, 4);
	struct pointer p = image_put(g, KIND_PAGE, &leaf, image_breaks(g, BROKEN_LEAF_EPOCH) ? 3 : 4);
	g->leaf_b = pointer_block(p);
	return image_breaks(g, BROKEN_PAGE_CHECKSUM) ? image_bad_crc(p) : p;
}

/* The roots of trees 2 (as it was at the fork) and 1 (which has written block 3 again since). */
static inline void image_history(struct image *g, struct pointer *snapshot, struct pointer *live)
{
	struct page leaf, root = {0};

	root.p[0] = image_leaf_a(g, &leaf);
	root.p[5] = image_leaf_b(g);
	root.p[7] = pointer_make(0, 0, image_breaks(g, BROKEN_TOMBSTONE_EPOCH) ? 9 : 4);
	if (image_breaks(g, BROKEN_PAGE_OUTSIDE))
		root.p[9] = pointer_make(5, 3, 1);
	*snapshot = image_put(g, KIND_PAGE, &root, 4);
	for (unsigned i = 0; i < PAGE_POINTERS; i++) { /* the root is copied: its children have one pointer more */
		if (pointer_block(root.p[i]) >= JOURNAL_START)
			image_raise(g, root.p[i]);
	}
	g->counts[pointer_block(root.p[0])]--; /* and leaf A is copied, too */
	for (unsigned i = 0; i < 10; i++)
		image_raise(g, leaf.p[i]);
	g->counts[pointer_block(leaf.p[3])]--;
	leaf.p[3] = image_data(g, 6);
	if (image_breaks(g, BROKEN_DATA_IS_PAGE)) {
		leaf.p[40] = pointer_make(block_crc(KIND_DATA, image_block(g, g->leaf_b)), g->leaf_b, 1);
		image_raise(g, leaf.p[40]);
	}
	root.p[0] = image_put(g, KIND_PAGE, &leaf, 6);
	*live = image_put(g, KIND_PAGE, &root, 6);
	g->root_1 = pointer_block(*live);
}

static inline struct pointer image_small_tree(struct image *g)
{
	struct page leaf = {0};

	for (unsigned i = 0; i < 3; i++)
		leaf.p[i] = image_data(g, 7);
	struct pointer p = image_put(g, KIND_PAGE, &leaf, 7);
	image_raise(g, p); /* tree 4 */
	return p;
}

/* Freed left of block 512: the root's first two pointers lead to blocks that are free by now. */
static inline struct pointer image_dying_tree(struct image *g)
{
	struct page leaf = {0}, root = {0};

	root.p[0] = pointer_make(1, g->n_blocks - 1, 1);
	root.p[1] = pointer_make(2, g->n_blocks - 2, 1);
	leaf.p[0] = image_data(g, 1);
	leaf.p[255] = image_data(g, 1);
	root.p[2] = image_put(g, KIND_PAGE, &leaf, 1);
	return image_put(g, KIND_PAGE, &root, 1);
}

static inline struct pointer image_tree_record(struct image *g, const struct tree_record *t)
{
	uint8_t block[BLOCK_BYTES];

	tree_record_encode(t, block);
	if (image_breaks(g, BROKEN_TREE_RECORD_WRONG) && t->tree_id == 6)
		block[6] = 1;
	struct pointer p = image_put(g, KIND_RECORD, block, 0);
	return image_breaks(g, BROKEN_TREE_RECORD_CHECKSUM) && t->tree_id == 6 ? image_bad_crc(p) : p;
}

static inline void image_tree_list(struct image *g, struct tree_record t[6])
{
	struct pointer snapshot, live, small, dying;

	image_history(g, &snapshot, &live);
	small = image_small_tree(g);
	dying = image_dying_tree(g);
	for (unsigned i = 0; i < 6; i++)
		t[i] = (struct tree_record){
		    .tree_id = i + 1, .state = TREE_LIVE, .volume = image_uuid(i < 2 || i == 4 ? 1 : 2)};
	t[0].root = live, t[0].height = 2, t[0].fork_epoch = 5, t[0].n_data_blocks = 14;
	t[1].root = snapshot, t[1].height = 2, t[1].fork_epoch = 5, t[1].n_data_blocks = 14, t[1].parent_id = 1;
	t[2].root = small, t[2].height = 1, t[2].fork_epoch = 8, t[2].n_data_blocks = 3;
	t[3] = t[2], t[3].tree_id = 4, t[3].parent_id = 3;
	t[4].root = dying, t[4].height = 2, t[4].n_data_blocks = 9, t[4].state = TREE_DYING, t[4].drop_cursor = 512;
	if (image_breaks(g, BROKEN_PAGE_AT_TWO_HEIGHTS))
		t[3].height = 2;
	if (image_breaks(g, BROKEN_PAGE_PRIVATE_YET_SHARED))
		t[3].fork_epoch = 6;
	if (image_breaks(g, BROKEN_TREE_NUMBER))
		t[0].n_data_blocks = 15;
	if (image_breaks(g, BROKEN_TREE_TWICE)) {
		/* and one between them that is being freed, which may have a namesake */
		t[4].tree_id = t[5].tree_id = 3;
		t[4].volume = t[5].volume;
	}
	if (image_breaks(g, BROKEN_TREE_ROOT_OUTSIDE))
		t[5].root = pointer_make(1, g->n_blocks + 7, 1), t[5].height = 1;
	if (image_breaks(g, BROKEN_DATA_IS_PAGE))
		t[0].n_data_blocks = 15;
}

static inline void image_trees(struct image *g)
{
	struct tree_record t[6];
	struct page table = {0};

	image_tree_list(g, t);
	for (unsigned i = 0; i < 6; i++)
		table.p[i] = image_tree_record(g, &t[i]);
	if (image_breaks(g, BROKEN_TREE_RECORD_SHARED)) {
		table.p[6] = table.p[5];
		image_raise(g, table.p[5]);
	}
	if (image_breaks(g, BROKEN_SLOT_CHECKSUM))
		table.p[200] = pointer_make(1, 0, 0);
	if (image_breaks(g, BROKEN_TREES_PAST_END))
		table.p[255] = pointer_make(1, g->next + 9, 0);
	g->superblock.trees = image_put(g, KIND_PAGE, &table, 0);
	g->superblock.n_tree_slots = 255;
	if (image_breaks(g, BROKEN_TREES_CHECKSUM))
		g->superblock.trees = image_bad_crc(g->superblock.trees);
}

static inline void image_volumes(struct image *g)
{
	struct page table = {0};
	uint8_t block[BLOCK_BYTES];

	for (unsigned i = 0; i < 2; i++) {
		struct volume_record v = {image_uuid((uint8_t)(i + 1)), 3, 4, 5, 1 << 20, false};
		if (image_breaks(g, BROKEN_VOLUME_TWICE))
			v.volume = image_uuid(1);
		volume_record_encode(&v, block);
		if (image_breaks(g, BROKEN_VOLUME_RECORD_WRONG) && i == 1)
			block[5] = 1;
		table.p[i] = image_put(g, KIND_RECORD, block, 0);
	}
	if (image_breaks(g, BROKEN_VOLUME_RECORD_CHECKSUM))
		table.p[1] = image_bad_crc(table.p[1]);
	g->superblock.volumes = image_put(g, KIND_PAGE, &table, 0);
	g->superblock.n_volume_slots = 256;
}

/* ---- the journal ---- */

struct image_journal {
	_Alignas(8) uint8_t block[BLOCK_BYTES];
	struct journal_header header;
};

static inline void image_record(struct image_journal *j, const struct record *r)
{
	if (j->header.used_bytes == 0)
		j->header.used_bytes = JOURNAL_HEADER_BYTES;
	j->header.used_bytes += (uint16_t)record_encode(r, j->block + j->header.used_bytes);
	j->header.n_records++;
}

static inline void image_seal(struct image *g, struct image_journal *j, uint64_t sequence, uint64_t flushed)
{
	uint64_t at = JOURNAL_START + sequence % g->superblock.journal_blocks;

	if (j->header.used_bytes == 0)
		j->header.used_bytes = JOURNAL_HEADER_BYTES;
	j->header.sequence = sequence;
	j->header.flushed = flushed;
	j->header.checkpoint = g->superblock.checkpoint;
	if (image_breaks(g, BROKEN_JOURNAL_CHECKPOINT) && sequence == 201)
		j->header.checkpoint++;
	if (image_breaks(g, BROKEN_JOURNAL_MISPLACED) && sequence == 150)
		at++;
	journal_block_seal(j->block, &j->header, &g->superblock.disk);
	memcpy(image_block(g, at), j->block, BLOCK_BYTES);
	*j = (struct image_journal){.header = {0}};
}

/* A write of two blocks and a hole, with data in blocks that no count knows yet. */
static inline void image_write(struct image *g, struct image_journal *j, uint32_t slot, bool is_torn)
{
	struct pointer p[3] = {{0}};
	uint64_t sum = 0;

	for (unsigned i = 0; i < 3; i += 2) {
		p[i] = image_data(g, 10);
		g->counts[pointer_block(p[i])] = 0;
		g->journaled_data = pointer_block(p[i]);
		sum = crc64(sum, image_block(g, g->journaled_data), BLOCK_BYTES);
	}
	p[1] = pointer_make(0, 0, 10);
	if (is_torn || (image_breaks(g, BROKEN_JOURNAL_FLUSHED_DATA) && slot == 0))
		image_block(g, g->journaled_data)[100] ^= 1;
	if (image_breaks(g, BROKEN_JOURNAL_FLUSHED_SUM) && slot == 0)
		sum++;
	if (image_breaks(g, BROKEN_JOURNAL_TAKES_USED) && slot == 0)
		p[0] = pointer_make(1, g->data_block, 10);
	if (image_breaks(g, BROKEN_JOURNAL_TAKES_TWICE) && slot == 0)
		p[2] = p[0];
	if (image_breaks(g, BROKEN_JOURNAL_OUTSIDE) && slot == 0)
		p[2] = pointer_make(1, JOURNAL_START, 10);
	if (image_breaks(g, BROKEN_JOURNAL_NO_TREE) && slot == 0)
		slot = 77;
	if (image_breaks(g, BROKEN_JOURNAL_DYING_TREE) && slot == 0)
		slot = 4;
	image_record(j, &(struct record){.type = RECORD_WRITE,
					 .slot = slot,
					 .first = 100,
					 .n_blocks = 3,
					 .sum = sum,
					 .pointers = p,
					 .is_ordered = is_torn});
}

static inline void image_journal_records(struct image *g, struct image_journal *j)
{
	struct uuid v1 = image_uuid(1), v3 = image_uuid(3);
	bool other = image_breaks(g, BROKEN_JOURNAL_OTHER_VOLUME), none = image_breaks(g, BROKEN_JOURNAL_NO_VOLUME);

	image_write(g, j, 0, false);
	image_seal(g, j, 200, 199);
	image_record(j, &(struct record){.type = RECORD_FENCE,
					 .slot = other ? 1 : 2,
					 .volume = v3,
					 .generation = 1,
					 .session = 1,
					 .size_blocks = 5});
	image_record(j, &(struct record){.type = RECORD_COMPLETE, .slot = none ? 1 : 0, .volume = v1, .epoch = 9});
	image_record(j, &(struct record){.type = RECORD_CREATE,
					 .volume = v3,
					 .tree_id = 1,
					 .slot = image_breaks(g, BROKEN_JOURNAL_SLOT_IN_USE) ? 4 : 6});
	image_record(j, &(struct record){
			    .type = RECORD_FORK, .volume = v3, .tree_id = 9, .slot = 2, .child_slot = 7, .epoch = 9});
	image_seal(g, j, 201, 200);
	image_record(j, &(struct record){.type = RECORD_RANGE,
					 .slot = 0,
					 .first = 250,
					 .epoch = 11,
					 .n_blocks = image_breaks(g, BROKEN_JOURNAL_TWO_LEAVES) ? 7 : 6});
	image_record(j, &(struct record){.type = RECORD_HOLES,
					 .slot = 0,
					 .first = 600,
					 .epoch = 4,
					 .n_blocks = image_breaks(g, BROKEN_JOURNAL_HOLES_TWO_LEAVES) ? 256 : 5});
	image_record(j, &(struct record){.type = RECORD_SWAP,
					 .slot = 6,
					 .other_slot = image_breaks(g, BROKEN_JOURNAL_SWAP_ALONE)     ? 77
						       : image_breaks(g, BROKEN_JOURNAL_SWAP_FOREIGN) ? 0
												      : 7,
					 .is_ordered = true});
	image_record(j, &(struct record){.type = RECORD_DROP, .slot = 7});
	image_record(j, &(struct record){.type = RECORD_FORGET, .slot = 2, .volume = v3});
	if (image_breaks(g, BROKEN_JOURNAL_AFTER_CLEAN))
		image_record(j, &(struct record){.type = RECORD_CLEAN});
	image_seal(g, j, 202, IMAGE_FLUSHED);
	image_write(g, j, 2, true);
	image_seal(g, j, 203, IMAGE_FLUSHED);
}

static inline void image_journal(struct image *g)
{
	struct image_journal j = {.header = {0}};

	image_seal(g, &j, 150, 149); /* of before the checkpoint */
	image_journal_records(g, &j);
	image_seal(g, &j, 206, IMAGE_FLUSHED); /* was in flight when power was lost; 204 and 205 did not land */
	if (image_breaks(g, BROKEN_JOURNAL_FLUSHED_GONE))
		image_seal(g, &j, 207, 205);
	if (image_breaks(g, BROKEN_JOURNAL_COMPLETED_GONE))
		image_seal(g, &j, IMAGE_END + JOURNAL_IN_FLIGHT_MAX, IMAGE_FLUSHED);
	g->superblock.replay_from = IMAGE_REPLAY;
}

/* ---- counts ---- */

/* The delta log: freed blocks whose page still says 1, a share more, and a block taken since. Fills by_log. */
static inline uint32_t image_deltas(struct image *g, uint64_t *words, int32_t *by_log)
{
	uint32_t n = 0;

	for (uint64_t block = 0; block < g->n_blocks; block++) {
		struct delta d = {.block = block};
		if (block >= g->freed[0] && block <= g->freed[IMAGE_FREED - 1]) /* they lie side by side */
			d.change = -1, d.is_zero = true;
		if (block == g->leaf_b)
			d.change = 1;
		if (block == g->root_1)
			d.change = 1, d.was_zero = true;
		if (image_breaks(g, BROKEN_DELTA_WAS_ZERO) && block == g->leaf_b)
			d.was_zero = true;
		if (image_breaks(g, BROKEN_DELTA_IS_ZERO) && block == g->leaf_b)
			d.is_zero = true;
		by_log[block] = d.change;
		if (image_breaks(g, BROKEN_DELTA_NEGATIVE) && block == g->freed[9])
			d.change = -2, d.is_zero = false;
		if (d.change != 0)
			words[n++] = delta_pack(d);
	}
	if (image_breaks(g, BROKEN_DELTA_ORDER)) {
		uint64_t word = words[3];
		words[3] = words[4];
		words[4] = word;
	}
	if (image_breaks(g, BROKEN_DELTA_OUTSIDE))
		words[n++] = delta_pack((struct delta){.block = g->n_blocks + 1, .change = 1});
	return n;
}

static inline void image_delta_log(struct image *g, const uint64_t *words, uint32_t n, const uint64_t blocks[2],
				   uint64_t page_block)
{
	struct page page = {0};

	for (uint32_t i = 0; i < 2; i++) {
		uint32_t here = (uint32_t)min_u64(DELTAS_PER_BLOCK, n - i * DELTAS_PER_BLOCK);
		memcpy(image_block(g, blocks[i]), words + i * DELTAS_PER_BLOCK, here * 8);
		if (image_breaks(g, BROKEN_DELTA_TAIL) && i == 1)
			put_le64(image_block(g, blocks[i]) + here * 8, 5);
		page.p[i] = pointer_make(block_crc(KIND_DELTAS, image_block(g, blocks[i])), blocks[i], 0);
	}
	if (image_breaks(g, BROKEN_DELTA_CHECKSUM))
		page.p[1] = image_bad_crc(page.p[1]);
	if (image_breaks(g, BROKEN_DELTA_POINTERS))
		page.p[2] = pointer_make(1, 2000, 0);
	memcpy(image_block(g, page_block), &page, BLOCK_BYTES);
	g->superblock.deltas = pointer_make(block_crc(KIND_PAGE, &page), page_block, 0);
	if (image_breaks(g, BROKEN_DELTA_PAGE_CHECKSUM))
		g->superblock.deltas = image_bad_crc(g->superblock.deltas);
	g->superblock.n_deltas = n;
}

static inline void image_break_counts(struct image *g)
{
	if (image_breaks(g, BROKEN_COUNT_ZERO))
		g->counts[g->data_block] = 0;
	if (image_breaks(g, BROKEN_COUNT_LOW))
		g->counts[g->data_block]--;
	if (image_breaks(g, BROKEN_COUNT_HIGH))
		g->counts[g->data_block]++;
	if (image_breaks(g, BROKEN_COUNT_LEAKED))
		for (unsigned i = 0; i < 3; i++)
			g->counts[IMAGE_FREED + 2000 + i] = 1;
	if (image_breaks(g, BROKEN_COUNT_OUTSIDE))
		g->counts[JOURNAL_START + 5] = 1;
}

/* A count page for each region that has counts. The free blocks are those of the data area that the page says 0 of. */
static inline struct pointer image_count_page(struct image *g, uint64_t region, uint64_t block, const int32_t *by_log)
{
	uint8_t *page = image_block(g, block);
	uint64_t first = region * COUNTS_PER_PAGE, n_free = 0;

	for (unsigned i = 0; i < COUNTS_PER_PAGE; i++) {
		uint16_t count = (uint16_t)(g->counts[first + i] - by_log[first + i]);
		put_le16(page + i * 2, count);
		n_free += count == 0 && first + i >= JOURNAL_START + g->superblock.journal_blocks;
	}
	if (image_breaks(g, BROKEN_INDEX_FREE_HIGH) && region == 1)
		n_free++;
	if (image_breaks(g, BROKEN_INDEX_FREE_LOW) && region == 1)
		n_free--;
	struct pointer p = pointer_make(block_crc(KIND_COUNTS, page), block, n_free);
	return image_breaks(g, BROKEN_COUNT_PAGE_CHECKSUM) && region == 0 ? image_bad_crc(p) : p;
}

static inline void image_counts(struct image *g)
{
	uint64_t n_regions = regions_of(g->n_blocks), log_blocks[2], log_page, page_block[4], index_block;
	uint64_t *words = calloc(g->n_blocks, sizeof(*words));
	int32_t *by_log = calloc(g->n_blocks, sizeof(*by_log));
	struct page index = {0};

	for (uint32_t i = 0; i < IMAGE_FREED; i++) {
		g->freed[i] = image_take(g);
		g->counts[g->freed[i]] = 0;
	}
	for (unsigned i = 0; i < 2; i++)
		log_blocks[i] = image_take(g);
	log_page = image_take(g);
	for (uint64_t i = 0; i + 1 < n_regions; i++)
		page_block[i] = image_take(g);
	index_block = image_take(g);
	image_break_counts(g);
	image_delta_log(g, words, image_deltas(g, words, by_log), log_blocks, log_page);
	for (uint64_t i = 0; i + 1 < n_regions; i++)
		index.p[i] = image_count_page(g, i, page_block[i], by_log);
	if (image_breaks(g, BROKEN_INDEX_PAST_END))
		index.p[n_regions] = index.p[0];
	memcpy(image_block(g, index_block), &index, BLOCK_BYTES);
	g->superblock.counts = pointer_make(block_crc(KIND_PAGE, &index), index_block, 0);
	if (image_breaks(g, BROKEN_INDEX_CHECKSUM))
		g->superblock.counts = image_bad_crc(g->superblock.counts);
	free(words);
	free(by_log);
}

/* ---- the whole ---- */

static inline void image_superblocks(struct image *g)
{
	uint8_t block[BLOCK_BYTES];

	for (unsigned copy = 0; copy < 2; copy++) {
		superblock_encode(&g->superblock, block);
		memcpy(image_block(g, superblock_slot_block(superblock_slot(g->superblock.checkpoint, copy))), block,
		       BLOCK_BYTES);
		struct superblock before = g->superblock; /* its content does not matter: it is only older */
		before.checkpoint--;
		superblock_encode(&before, block);
		memcpy(image_block(g, superblock_slot_block(superblock_slot(before.checkpoint, copy))), block,
		       BLOCK_BYTES);
	}
}

static inline struct image *image_make(enum broken broken)
{
	struct image *g = calloc(1, sizeof(*g));

	g->broken = broken;
	g->n_blocks = IMAGE_BLOCKS;
	g->blocks = aligned_alloc(BLOCK_BYTES, g->n_blocks * BLOCK_BYTES);
	memset(g->blocks, 0, g->n_blocks * BLOCK_BYTES);
	g->counts = calloc(g->n_blocks + 16, sizeof(*g->counts));
	g->superblock = (struct superblock){
	    .disk = image_uuid(0xd1),
	    .pool = image_uuid(0xb0),
	    .checkpoint = IMAGE_CHECKPOINT,
	    .n_blocks = IMAGE_BLOCKS,
	    .journal_blocks = journal_blocks_for(IMAGE_BLOCKS),
	    .label = "image",
	};
	g->next = JOURNAL_START + g->superblock.journal_blocks;
	image_trees(g);
	image_volumes(g);
	image_journal(g);
	image_counts(g);
	image_superblocks(g);
	return g;
}

static inline void image_free(struct image *g)
{
	free(g->blocks);
	free(g->counts);
	free(g);
}
