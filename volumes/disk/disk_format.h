/*
 * disk_format.h: every byte that quarry keeps on a disk, and the functions that write, read and check them.
 *
 * The functions are plain: no I/O, no state. Each reader takes untrusted bytes: it checks all before it
 * returns anything, and says in one sentence what is wrong.
 *
 *   block 0        8        16       24       32           32 + journal                        n_blocks
 *   | slot 0 ..... | slot 1 | slot 2 | slot 3 | journal ring | blocks: data, pages, counts, records |
 *
 * A block is 4 KiB; all integers are little-endian; block numbers count from the start of the disk. Superblocks lie
 * 32 KiB apart, so that one bad spot of the medium does not take both copies of a checkpoint.
 */
#pragma once

#include "daemon/core/base.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "quarry keeps pages in memory as they are on disk, which is little-endian"
#endif

/* ---- geometry ---- */

#define SUPERBLOCK_SLOTS      4u
#define SUPERBLOCK_SPACING    8u                  /* blocks from slot to slot */
#define JOURNAL_START         32u                 /* first block of the ring */
#define JOURNAL_MIN_BLOCKS    128u                /* twice the in-flight window */
#define JOURNAL_MAX_BLOCKS    (GIB / BLOCK_BYTES) /* 1 GiB */
#define JOURNAL_SHARE         32u                 /* at most 1/32 of the disk */
#define JOURNAL_IN_FLIGHT_MAX 64u                 /* journal blocks submitted and not complete: seq < oldest + 64 */
#define DISK_MIN_BLOCKS       (16 * MIB / BLOCK_BYTES)
#define DISK_MAX_BLOCKS       (1ull << 40) /* 4 PiB */
#define PAGE_SHIFT            8u
#define PAGE_POINTERS         256u          /* pointers in a page */
#define TREE_HEIGHT_MAX       6u            /* 1: the root is a leaf (1 MiB) ... 5: 4 PiB, 6: all of 48 bits */
#define COUNTS_PER_PAGE       2048u         /* 16-bit counts in a count page: one region of 8 MiB */
#define DELTA_LOG_MAX         (256u * 512u) /* entries in the log of count deltas: one page of pointers */
#define DISK_TREES_MAX        65535u        /* trees of one disk: so no count of 16 bits can overflow */
#define DISK_VOLUMES_MAX      65535u
#define DISK_IO_BLOCKS_MAX    64u                      /* blocks of one request: 256 KiB */
#define DISK_HOLES_BLOCKS_MAX (1u << 20)               /* of a COPY_HOLES, which goes leaf by leaf: 4 GiB */
#define DISK_WRITE_BLOCKS_MAX (DISK_IO_BLOCKS_MAX + 1) /* of a write: 256 KiB wherever they begin, atomic (P5) */
#define BLOCK_NUMBER_BITS     48u
#define EPOCH_MAX             ((1ull << 48) - 1)

/* Blocks of the journal ring of a disk of n_blocks. */
static inline uint64_t journal_blocks_for(uint64_t n_blocks)
{
	return max_u64(JOURNAL_MIN_BLOCKS, min_u64(JOURNAL_MAX_BLOCKS, n_blocks / JOURNAL_SHARE));
}
static inline uint64_t superblock_slot_block(unsigned slot)
{
	return (uint64_t)slot * SUPERBLOCK_SPACING;
}
/* The two slots of checkpoint number c are (c % 2) and (c % 2) + 2: a checkpoint never overwrites its predecessor. */
static inline unsigned superblock_slot(uint64_t checkpoint, unsigned copy)
{
	return checkpoint % 2 + 2 * copy;
}
static inline uint64_t regions_of(uint64_t n_blocks)
{
	return (n_blocks + COUNTS_PER_PAGE - 1) / COUNTS_PER_PAGE;
}
/* Blocks that a tree of this height covers. */
static inline uint64_t tree_span(unsigned height)
{
	return 1ull << (PAGE_SHIFT * height);
}

/*
 * Pointer: 16 bytes.
 *   offset size
 *        0    4  CRC-32C of the block pointed to (0 for a hole)
 *        4    6  block number; 0: a hole
 *       10    6  epoch: of the data block, or the highest below this page; a hole with an epoch is a tombstone;
 *                in the count index: how many blocks of the region are free
 * A data block's checksum starts from 0, so that it is the checksum every client of the CRC-32C knows; the checksum
 * of any other block starts from its kind, so that none is ever taken for another.
 */
struct pointer {
	uint64_t low;  /* crc | block << 32 */
	uint64_t high; /* block >> 32 | epoch << 16 */
};
_Static_assert(sizeof(struct pointer) == 16, "format");

enum block_kind {
	KIND_DATA = 0,
	KIND_PAGE = 0x50414745,
	KIND_COUNTS = 0x434f554e,
	KIND_RECORD = 0x5245434f,
	KIND_DELTAS = 0x44454c54
};
/* The checksum that a pointer to this block holds. */
uint32_t block_crc(enum block_kind kind, const void *block);

static inline uint32_t pointer_crc(struct pointer p)
{
	return (uint32_t)p.low;
}
static inline uint64_t pointer_block(struct pointer p)
{
	return p.low >> 32 | (p.high & 0xffff) << 32;
}
static inline uint64_t pointer_epoch(struct pointer p)
{
	return p.high >> 16;
}
static inline bool pointer_is_hole(struct pointer p)
{
	return pointer_block(p) == 0;
}
static inline struct pointer pointer_make(uint32_t crc, uint64_t block, uint64_t epoch)
{
	return (struct pointer){crc | block << 32, (block >> 32 & 0xffff) | epoch << 16};
}

/*
 * Page: 256 pointers, nothing else. Height 1 (leaf): to data blocks. Height h: to pages of height h - 1.
 * The same pages carry three tables, trees whose "data" are 4 KiB records (KIND_RECORD) or count pages (KIND_COUNTS):
 * trees (slot = tree slot), volumes (slot = volume slot), counts (slot = region). A table's height is the least that
 * covers its slots.
 */
struct page {
	struct pointer p[PAGE_POINTERS];
};
_Static_assert(sizeof(struct page) == BLOCK_BYTES, "format");

/*
 * Superblock: 4 KiB.
 *   offset size
 *        0    8  magic "QUARRYD1"
 *        8    4  CRC-32C of the whole block with this field 0
 *       12    4  format version: 1
 *       16    8  feature bits: unknown = refuse
 *       24    8  feature bits: unknown = open read-only
 *       32    8  feature bits: unknown = forget (cleared at the next checkpoint)
 *       40   16  disk UUID
 *       56   16  pool UUID
 *       72   16  cluster UUID
 *       88    8  checkpoint number, from 1
 *       96    8  blocks of the disk
 *      104    8  journal: blocks of the ring (it starts at block 32)
 *      112    8  journal: sequence to replay from
 *      120    8  CRC-64 polynomial of record sums (reflected ECMA-182: 0xC96C5795D7870F42)
 *      128    8  CRC-64 seed: 0
 *      136   16  pointer to the root of the trees' table
 *      152    4  slots of the trees' table
 *      156    4  slots of the volumes' table
 *      160   16  pointer to the root of the volumes' table
 *      176   16  pointer to the root of the count index (table of regions)
 *      192   16  pointer to the page of pointers to the delta log's blocks
 *      208    4  entries of the delta log
 *      212    4  flags: 1 = closed cleanly, 2 = space is reserved (never punched)
 *      216    8  wall clock when written, ns since 1970 (for people)
 *      224   64  label: the disk's name, zero-terminated UTF-8
 *      288    8  cache, in bytes, of the process that wrote it: what follows in the journal may need as much to be replayed;
 *                0: not known
 *      296    8  wall clock when the last scrub of all of the disk had ended; 0: there was none
 *      304   16  the run of the machine (from one loss of power to the next) in which it was written; 0: not known
 *      320    8  losses of power, of machines that had the disk open
 *      328       zero
 */
#define SUPERBLOCK_MAGIC         "QUARRYD1"
#define DISK_FORMAT_VERSION      1u
#define DISK_LABEL_BYTES         64u
#define CRC64_POLYNOMIAL         0xC96C5795D7870F42ull
#define FEATURES_REFUSE_KNOWN    0ull
#define FEATURES_READ_ONLY_KNOWN 0ull
#define FEATURES_FORGET_KNOWN    0ull

struct superblock {
	struct uuid disk, pool, cluster;
	uint64_t features_refuse, features_read_only, features_forget;
	uint64_t checkpoint;
	uint64_t n_blocks;
	uint64_t journal_blocks;
	uint64_t replay_from; /* sequence */
	struct pointer trees, volumes, counts, deltas;
	uint32_t n_tree_slots, n_volume_slots, n_deltas;
	bool is_clean, is_reserved;
	uint64_t wall_ns;
	uint64_t cache_bytes;
	uint64_t scrubbed_wall_ns;
	struct uuid boot;
	uint64_t power_losses;
	char label[DISK_LABEL_BYTES];
};

enum superblock_verdict {
	SUPERBLOCK_VALID,
	SUPERBLOCK_BLANK,   /* all zeros: nothing was ever written here */
	SUPERBLOCK_FOREIGN, /* no magic: something else's data */
	SUPERBLOCK_NEWER,   /* a version or a feature of a newer quarry: refuse */
	SUPERBLOCK_DAMAGED, /* ours, but the checksum or a field is wrong */
};
void superblock_encode(const struct superblock *sb, uint8_t block[static BLOCK_BYTES]);
/* On anything but VALID, `why` (of WHY_BYTES) says what is wrong and out is undefined. */
#define WHY_BYTES 200
enum superblock_verdict superblock_decode(const uint8_t block[static BLOCK_BYTES], struct superblock *out,
					  char why[static WHY_BYTES]);
/* Names what a foreign first 64 KiB looks like ("an ext4 file system", "a GPT partition table", "a qcow2 image",
 * "an LVM physical volume", ...), or NULL when it is all zeros, or "data" when nothing is recognised. */
const char *foreign_name(const uint8_t *head, size_t len_bytes);

/*
 * Journal block: 4 KiB, at block JOURNAL_START + sequence % journal_blocks.
 *   offset size
 *        0    4  magic 0x314a5551 ("QUJ1")
 *        4    4  CRC-32C, begun with the disk's UUID, of the whole block with this field 0
 *        8    8  sequence, from 1
 *       16    8  flushed: every record up to this sequence is known durable with its data [KFPREFIX]
 *       24    8  checkpoint: the last one whose superblock is flushed
 *       32    2  number of records
 *       34    2  bytes used, header included
 *       36   28  zero
 *       64       records, then zeros
 */
#define JOURNAL_MAGIC        0x314a5551u
#define JOURNAL_HEADER_BYTES 64u
#define JOURNAL_ROOM_BYTES   (BLOCK_BYTES - JOURNAL_HEADER_BYTES)

struct journal_header {
	uint64_t sequence, flushed, checkpoint;
	uint16_t n_records, used_bytes;
};
/* Fills the header and the checksum of a block whose records are already in place; zeroes the rest. */
void journal_block_seal(uint8_t block[static BLOCK_BYTES], const struct journal_header *h, const struct uuid *disk);
/* Is this a journal block of this disk, whole and well-formed (every record decodes)? 0 or -EBADMSG. */
must_check int journal_block_open(const uint8_t block[static BLOCK_BYTES], const struct uuid *disk,
				  struct journal_header *out);

/*
 * Record: a multiple of 8 bytes.
 *   offset size
 *        0    1  type
 *        1    1  flags: 1 = ordered [RMWDEP]: of a WRITE; of every SWAP
 *        2    2  length of the whole record in bytes
 *        4    4  tree slot (0 where the type names a volume)
 *        8       by type:
 *  WRITE     8    8  first block of the volume
 *           16    8  CRC-64 over the data blocks it names, in order, holes skipped [RECSUM]
 *           24 16*n  pointers, 1 <= n <= 64; a hole is a block of zeros
 *  RANGE     8    8  first block     16  8  number of blocks, inside one leaf     24  8  epoch     (trim, zero)
 *  CREATE    8   16  volume UUID     24  8  tree id     32  8  epoch     40  8  parent's tree id
 *  FORK      8   16  child's volume UUID    24  8  child's tree id     32  8  epoch of the fork     40  4  child's slot
 *           44    4  zero
 *  DROP      8    8  zero
 *  FENCE     8   16  volume UUID     24  8  generation     32  8  session     40  8  size in blocks
 *                                                                                            (slot: volume slot)
 *  COMPLETE  8   16  volume UUID     24  8  epoch                                            (slot: volume slot)
 *  FORGET    8   16  volume UUID                       (the volume's record goes)             (slot: volume slot)
 *  CLEAN     8    8  zero         (reserved: nothing follows, the disk was closed; accepted, never written:
 *                                the superblock's flag says so)
 *  SWAP      8    4  the other tree's slot     12  4  zero         (two trees of a volume exchange what they hold)
 *  HOLES     as RANGE; holes too take the epoch    (copied from another disk; trimmed while being filled)
 * DROP_STEP has its number reserved: a drop's progress needs no record, since an interrupted step is simply repeated from
 * the cursor of the last checkpoint.
 */
enum record_type {
	RECORD_WRITE = 1,
	RECORD_RANGE = 2,
	RECORD_CREATE = 3,
	RECORD_FORK = 4,
	RECORD_DROP = 5,
	RECORD_DROP_STEP = 6, /* reserved */
	RECORD_SWAP = 7,
	RECORD_FENCE = 8,
	RECORD_COMPLETE = 9,
	RECORD_FORGET = 10,
	RECORD_CLEAN = 11, /* reserved */
	RECORD_HOLES = 12,
};
struct record {
	enum record_type type;
	bool is_ordered;
	uint32_t slot;
	uint64_t first;                 /* WRITE, RANGE, HOLES */
	uint64_t n_blocks;              /* WRITE, RANGE, HOLES */
	uint64_t epoch;                 /* RANGE, HOLES, CREATE, FORK, COMPLETE */
	uint64_t sum;                   /* WRITE */
	const struct pointer *pointers; /* WRITE: inside the block decoded; 8-byte aligned */
	struct uuid volume;
	uint64_t tree_id, parent_id;
	uint32_t child_slot, other_slot; /* FORK; SWAP */
	uint64_t generation, session, size_blocks;
};
#define RECORD_BYTES_MAX (24u + 16u * DISK_WRITE_BLOCKS_MAX)
uint32_t record_bytes(const struct record *r);
/* Appends r at `at`, which has room for record_bytes(); returns the bytes written. */
uint32_t record_encode(const struct record *r, uint8_t *at);
/* Decodes the record at `at` with len_bytes left in the block. Its length, or -EBADMSG. */
must_check int record_decode(const uint8_t *at, uint32_t len_bytes, struct record *out);

/*
 * Tree record: one block (KIND_RECORD) per tree slot.
 *   offset size
 *        0    4  magic 0x31545551 ("QUT1")
 *        4    1  height (0: the root is a hole)
 *        5    1  state: 1 = live, 2 = dying
 *        6    2  zero
 *        8   16  volume UUID
 *       24    8  tree id
 *       32    8  parent's tree id (0: none)
 *       40   16  root pointer
 *       56    8  epoch at the last fork: what is younger is private to this tree
 *       64    8  data blocks the tree points to
 *       72    8  drop cursor: the next block of the volume to free (dying trees)
 *       80       zero
 */
enum tree_state { TREE_LIVE = 1, TREE_DYING = 2 };
struct tree_record {
	struct uuid volume;
	uint64_t tree_id, parent_id;
	struct pointer root;
	unsigned height;
	enum tree_state state;
	uint64_t fork_epoch;
	uint64_t n_data_blocks;
	uint64_t drop_cursor;
};
void tree_record_encode(const struct tree_record *t, uint8_t block[static BLOCK_BYTES]);
must_check int tree_record_decode(const uint8_t block[static BLOCK_BYTES], struct tree_record *out);

/*
 * Volume record: one block (KIND_RECORD) per volume slot.
 *   offset size
 *        0    4  magic 0x31565551 ("QUV1")
 *        4    4  zero
 *        8   16  volume UUID
 *       24    8  fence generation
 *       32    8  last session
 *       40    8  last complete epoch
 *       48    8  size in blocks
 *       56    8  losses of power (of the superblock) when it was told of a complete epoch last, or was new: one that has seen
 *                fewer than the disk is suspect [INTACT]
 *       64       zero
 */
struct volume_record {
	struct uuid volume;
	uint64_t generation, session, complete_epoch, size_blocks, power_losses;
};
void volume_record_encode(const struct volume_record *v, uint8_t block[static BLOCK_BYTES]);
must_check int volume_record_decode(const uint8_t block[static BLOCK_BYTES], struct volume_record *out);

/*
 * Count page (KIND_COUNTS): 2,048 16-bit counts, one per block of the region; 0 = free. The superblock slots and the
 * journal are not counted (always 0, never free), nor is what lies past the end of the disk. An index slot that is a
 * hole is a region whose counts are all 0.
 *
 * Delta log: blocks (KIND_DELTAS) of 512 entries of 8 bytes, sorted by block, found through one page (KIND_PAGE) of
 * pointers: changes of counts that have not been merged into count pages.
 *   bits  0-47  block number
 *   bits 48-61  signed change of its count
 *   bit     62  reserved: the count page says 0 (so the change is the count); understood, never set
 *   bit     63  with the change the count is 0, and the count page says it was not (the reverse does not hold: that a
 *               shared block has lost its last pointer is known only with its count page)
 */
#define DELTAS_PER_BLOCK 512u
#define DELTA_CHANGE_MAX 8191
struct delta {
	uint64_t block;
	int32_t change;
	bool was_zero, is_zero;
};
uint64_t delta_pack(struct delta d);
struct delta delta_unpack(uint64_t word);

/* Height of a table of n slots: 0 for no slots, else the least h >= 1 with 256^h >= n (one slot needs a page, too). */
unsigned table_height(uint64_t n_slots);
