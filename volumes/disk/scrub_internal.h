/*
 * scrub_internal.h: the state of a scrub, and its two halves: scrub.c the trees, scrub_tables.c what checkpoints write
 * beside them.
 */
#pragma once

#include "volumes/disk/disk_internal.h"

#define SCRUB_STAGES(X)                                                                                                \
	X(FIND) X(SETTLE) X(READ) X(VERIFY) X(PLACE) X(WRITE) X(SWAP) X(PAUSE) X(TABLES) X(COMPARE) X(END)
enum scrub_stage {
#define STAGE_NAME(name) SCRUB_##name,
	SCRUB_STAGES(STAGE_NAME)
#undef STAGE_NAME
};

#define SCRUB_READS_MAX (PAGE_POINTERS + TREE_HEIGHT_MAX + 1)

struct scrub_op {
	struct op op;
	struct scrub *scrub;
	struct iovec iov;
	struct pointer pointer; /* of a page; data: of the first block */
	enum block_kind kind;
	uint32_t first, n_blocks; /* data: of the leaf */
	int res;
};

struct scrub {
	struct disk *disk;
	enum scrub_stage stage;
	struct disk_scrub status;
	uint64_t bytes_per_s;
	bool straighten, is_stopping, is_swappable;
	bool is_asking, is_unaskable; /* FIND waits to know whose the leaf is; it cannot be known */
	bool is_slow;                 /* it was due, nobody asked for it */
	bool is_whole;                /* nothing was left out */
	unsigned missing;             /* FIND: the level of the page that it waits for */
	int woken_err;                /* what it waited for in PLACE or SWAP has failed */
	uint32_t slot;                /* of the tree at hand */
	struct uuid volume;           /* to see that the slot still holds this tree of it */
	uint64_t tree_id;
	uint64_t cursor;    /* the leaf at hand: its first block */
	uint64_t settle_at; /* journal sequence */
	uint32_t owed, n_ops;
	unsigned read_side;
	bool is_pinned;
	struct pointer pointers[PAGE_POINTERS], moved[PAGE_POINTERS];
	struct run runs[PAGE_POINTERS];
	uint32_t n_runs, n_data;
	struct pointer path[TREE_HEIGHT_MAX + 1]; /* pages of this tree that were read last, by level */
	uint8_t *data;                            /* PAGE_POINTERS blocks, then SCRUB's pages */
	struct scrub_op ops[SCRUB_READS_MAX];
	struct waiter waiter;
	struct timer timer;
	struct op again;
	uint64_t leaf_bytes;
	struct scrub_place { /* TABLES: where it is */
		unsigned part, level;
		uint32_t index;
	} place;
	uint64_t checkpoint; /* that the superblocks or log_page belong to */
	bool is_log_known;
	struct page log_page;
};

/* One block more to be read into `memory`. */
void scrub_add(struct scrub *s, enum block_kind kind, struct pointer p, uint32_t first, uint32_t n, uint8_t *memory);
/* How many blocks the tables consist of, as of the last checkpoint. */
uint64_t scrub_tables_blocks(const struct disk *d);
/* Notes the next blocks of the tables to be read; false: all was seen. No checkpoint is under way. */
bool scrub_tables_note(struct scrub *s);
void scrub_tables_compare(struct scrub *s);
