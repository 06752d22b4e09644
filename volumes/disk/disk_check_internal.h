/*
 * disk_check_internal.h: what the files of the offline check share.
 *
 *   disk_check.c         entry, findings, superblocks    disk_check_tables.c   trees, volumes, count index, delta log
 *   disk_check_refs.c    who points to which block       disk_check_trees.c    every page and data block
 *   disk_check_counts.c  counts against references       disk_check_journal.c  what recovery would replay
 *
 * The check reads the format on its own: it shares disk_format.h with the engine and nothing else.
 *
 * Owner: the thread that runs disk_check_run(); everything hangs off one struct check and is freed at its end.
 */
#pragma once

#include "volumes/disk/disk.h"

#define FINDINGS_MAX    100u /* lines printed; more are counted only */
#define SUSPECTS_MAX    100u /* blocks whose users are looked up and named */
#define TREE_NAME_BYTES 96u
#define USES_NAMED_MAX  400u /* lines that name them */

/* ---- references: found by walking, to be compared with the counts ---- */

enum block_use {
	USE_NONE,
	USE_DATA,
	USE_PAGE, /* + level (1..6): of a page at this height */
	USE_TABLE = USE_PAGE + TREE_HEIGHT_MAX + 1,
	USE_RECORD,
	USE_COUNTS,
	USE_DELTAS,
	USE_JOURNAL, /* named by a record that is still to be replayed */
};
const char *use_name(enum block_use use);

/* One for each 8 MiB of the disk that hold anything: 6 KiB. */
struct refs_region {
	uint16_t refs[COUNTS_PER_PAGE]; /* UINT16_MAX: that many or more */
	uint8_t use[COUNTS_PER_PAGE];
};

/* One for each page of a tree, however many trees share it: 24 bytes, in a table that is at least a quarter full. */
struct page_seen {
	uint64_t block;         /* 0: empty slot */
	uint64_t n_data_blocks; /* below it */
	bool is_whole;          /* nothing below it is damaged */
	bool is_private;        /* a tree would change it in place: its epoch is younger than the tree's last fork */
	bool is_named;          /* the second walk was here */
};

struct pages_seen {
	struct page_seen *slots;
	uint64_t n, n_slots;
};

/* ---- the check ---- */

struct check_tree {
	struct tree_record record;
	uint32_t slot;
};

struct check_volume {
	struct volume_record record;
	uint32_t slot;
};

struct walk_level {
	struct page page;
	struct pointer pointer; /* that led here */
	uint64_t first;         /* block of the volume that the page begins with */
	uint64_t n_data_blocks; /* found below, so far */
	unsigned next;          /* pointer to look at next */
	bool is_whole;
};

struct check {
	struct disk_check *c;
	int err; /* what ends the check: no memory, or an error of read() other than -EIO */
	uint64_t n_findings, n_uses_named;
	struct superblock superblock;
	uint64_t data_start, n_blocks; /* n_blocks: of the disk, or of the device if that is shorter */
	uint64_t n_lost_pages;         /* damaged: what they pointed to is not known */
	bool has_lost_volumes;         /* a volume's record is damaged */

	struct refs_region **regions;
	uint64_t n_regions;
	struct pages_seen pages;
	struct pointer *count_pointers; /* by region */
	uint8_t *region_is_lost;        /* its count page is damaged */

	struct check_tree *trees;
	uint32_t n_trees;
	struct check_volume *volumes;
	uint32_t n_volumes;
	uint64_t *deltas;
	uint32_t n_deltas;

	uint64_t suspects[SUSPECTS_MAX]; /* blocks with a wrong count, ascending */
	uint32_t n_suspects;
	bool is_naming; /* the second walk: who uses the suspects? */

	uint64_t n_data_checked;
	struct walk_level walk[TREE_HEIGHT_MAX + 1]; /* by level; a walk never needs more */
	uint8_t *block;                              /* for whatever is read and done with at once */
};

/* ---- findings; each is one line that names the object and what it means for the user ---- */

void check_error(struct check *k, const char *format, ...) printf_like(2, 3);
void check_warn(struct check *k, const char *format, ...) printf_like(2, 3);
void check_more(struct check *k, const char *format, ...)
    printf_like(2, 3); /* a line that belongs to the last finding */
void check_note(struct check *k, const char *format, ...) printf_like(2, 3); /* progress, when verbose */
void tree_name(const struct check_tree *t, char text[static TREE_NAME_BYTES]);

/* ---- reading ---- */

enum block_state {
	BLOCK_GOOD,
	BLOCK_OUTSIDE,    /* the pointer leads out of the data area */
	BLOCK_UNREADABLE, /* an I/O error */
	BLOCK_MISMATCH,   /* not the bytes that the pointer's checksum names */
};
const char *block_state_text(enum block_state s);
bool check_in_data_area(const struct check *k, uint64_t block);
/* Reads the block that p names and verifies it. */
enum block_state check_load(struct check *k, struct pointer p, enum block_kind kind, void *out);
/* Reads any block of the device; false: unreadable, or the check has to end (k->err). */
bool check_read(struct check *k, uint64_t block, void *out);
/* Room for one more in an array that doubles; false: no memory (k->err). */
bool check_grow(struct check *k, void *array, uint32_t n, size_t size);

/* ---- disk_check_refs.c ---- */

must_check int refs_init(struct check *k);
void refs_fini(struct check *k);
/* One more pointer to the block; what it was used as before. The block is in the data area. */
enum block_use refs_add(struct check *k, uint64_t block, enum block_use use);
enum block_use refs_use(const struct check *k, uint64_t block);
uint32_t refs_count(const struct check *k, uint64_t block);
/* Adds the reference of a block that exactly one pointer may name; false: told as an error. */
bool refs_add_only(struct check *k, uint64_t block, enum block_use use, const char *what);
struct page_seen *pages_seen_find(const struct check *k, uint64_t block); /* NULL: none */
struct page_seen *pages_seen_add(struct check *k, uint64_t block);        /* NULL: no memory (k->err) */

/* ---- the parts, in the order in which they run ---- */

void check_tables(struct check *k);
void check_trees(struct check *k);
void check_counts(struct check *k);
void check_name_suspects(struct check *k); /* in disk_check_trees.c */
void check_journal(struct check *k);
