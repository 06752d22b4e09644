/*
 * disk_check.c: disk_check_run(): verifies a disk that nobody has open, and explains what it finds.
 *
 *   superblocks -> tables -> trees -> counts -> who uses what is wrong -> journal
 *
 * It is a second reading of the format, independent of the engine: a mistake in the engine's idea of the disk is not
 * repeated here. What it verifies is the newest checkpoint, as it lies on the disk; the journal after it is verified as
 * far as recovery would use it, but not applied. That is sound because nothing the checkpoint points to is reused
 * before the next one is flushed.
 *
 * Invariants
 *  1. Nothing is written.
 *  2. Nothing read is believed before it is checked; no loop or stack depends on unchecked data: walks descend a level
 *     at a time from a height of at most 6, and below a page only once, however often it is pointed to.
 *  3. One damaged block gives one finding: what is only a consequence (counts of blocks below a lost page) is not told
 *     block by block.
 *  4. After FINDINGS_MAX lines findings are counted only.
 *
 * Memory: 3 bytes for every block in the 8 MiB regions that hold anything (768 MiB per TiB used), at most 96 bytes for
 * every page of a tree (1/256 of the data blocks), 24 bytes for every region of the disk, the delta log (1 MiB at most)
 * and the records of trees and volumes. The arrays by region are allocated for the whole disk, but zero pages that are
 * never touched take no memory.
 */
#include "volumes/disk/disk_check_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES 600u

/* ---- findings ---- */

static void say(struct check *k, const char *prefix, const char *format, va_list args)
{
	char line[LINE_BYTES];
	size_t n = strlen(prefix);

	quarry_assert(n < sizeof(line));
	memcpy(line, prefix, n);
	vsnprintf(line + n, sizeof(line) - n, format, args);
	if (k->c->say)
		k->c->say(k->c->context, line);
}

void check_error(struct check *k, const char *format, ...)
{
	va_list args;

	k->c->errors++;
	if (k->n_findings++ >= FINDINGS_MAX)
		return;
	va_start(args, format);
	say(k, "error: ", format, args);
	va_end(args);
}

void check_warn(struct check *k, const char *format, ...)
{
	va_list args;

	k->c->warnings++;
	if (k->n_findings++ >= FINDINGS_MAX)
		return;
	va_start(args, format);
	say(k, "warning: ", format, args);
	va_end(args);
}

void check_more(struct check *k, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(k, "    ", format, args);
	va_end(args);
}

void check_note(struct check *k, const char *format, ...)
{
	va_list args;

	if (!k->c->is_verbose)
		return;
	va_start(args, format);
	say(k, "", format, args);
	va_end(args);
}

void tree_name(const struct check_tree *t, char text[static TREE_NAME_BYTES])
{
	char volume[UUID_TEXT_BYTES];

	uuid_to_text(&t->record.volume, volume);
	snprintf(text, TREE_NAME_BYTES, "volume %s tree %" PRIu64, volume, t->record.tree_id);
}

/* ---- reading ---- */

bool check_in_data_area(const struct check *k, uint64_t block)
{
	return block >= k->data_start && block < k->n_blocks;
}

bool check_read(struct check *k, uint64_t block, void *out)
{
	int res;

	quarry_assert(block < k->c->n_blocks);
	if (k->err != 0)
		return false;
	res = k->c->read(k->c->context, block, out);
	if (res != 0 && res != -EIO)
		k->err = res;
	return res == 0;
}

enum block_state check_load(struct check *k, struct pointer p, enum block_kind kind, void *out)
{
	uint64_t block = pointer_block(p);

	quarry_assert(!pointer_is_hole(p));
	if (!check_in_data_area(k, block))
		return BLOCK_OUTSIDE;
	if (!check_read(k, block, out))
		return BLOCK_UNREADABLE;
	return block_crc(kind, out) == pointer_crc(p) ? BLOCK_GOOD : BLOCK_MISMATCH;
}

const char *block_state_text(enum block_state s)
{
	switch (s) {
	case BLOCK_GOOD:
		return "is good";
	case BLOCK_OUTSIDE:
		return "lies outside the data area of the disk";
	case BLOCK_UNREADABLE:
		return "cannot be read";
	case BLOCK_MISMATCH:
		return "does not match its checksum";
	}
	return "?";
}

bool check_grow(struct check *k, void *array, uint32_t n, size_t size)
{
	void *old, *bigger;

	if (n & (n - 1))
		return true; /* it doubles at every power of two, and has room until then */
	memcpy(&old, array, sizeof(old));
	bigger = realloc(old, (n ? (size_t)n * 2 : 1) * size);
	if (!bigger) {
		k->err = -ENOMEM;
		return false;
	}
	memcpy(array, &bigger, sizeof(bigger));
	/* cppcheck-suppress memleak ; the array has it */
	return true;
}

/* ---- superblocks ---- */

struct slot {
	enum superblock_verdict verdict;
	struct superblock superblock;
	uint8_t block[BLOCK_BYTES];
	char why[WHY_BYTES];
};

static void slot_read(struct check *k, unsigned number, struct slot *s)
{
	uint64_t block = superblock_slot_block(number);

	if (block >= k->c->n_blocks || !check_read(k, block, s->block)) {
		s->verdict = SUPERBLOCK_DAMAGED;
		snprintf(s->why, sizeof(s->why), "the block cannot be read");
		return;
	}
	s->verdict = superblock_decode(s->block, &s->superblock, s->why);
}

/* The slot with the newest checkpoint; -1: none is valid. */
static int slot_newest(const struct slot slots[static SUPERBLOCK_SLOTS])
{
	int newest = -1;

	for (int i = 0; i < (int)SUPERBLOCK_SLOTS; i++)
		if (slots[i].verdict == SUPERBLOCK_VALID &&
		    (newest < 0 || slots[i].superblock.checkpoint > slots[newest].superblock.checkpoint))
			newest = i;
	return newest;
}

/* Without any valid superblock: what is this disk? */
static int no_superblock(struct check *k, const struct slot slots[static SUPERBLOCK_SLOTS])
{
	bool is_ours = false;

	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++)
		if (slots[i].verdict == SUPERBLOCK_NEWER) {
			check_error(k, "superblock slot %u: %s; use the quarry that wrote it", i, slots[i].why);
			return -ENOTSUP;
		}
	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++)
		if (slots[i].verdict == SUPERBLOCK_DAMAGED && memcmp(slots[i].block, SUPERBLOCK_MAGIC, 8) == 0) {
			check_error(k, "superblock slot %u (disk block %" PRIu64 "): %s", i, superblock_slot_block(i),
				    slots[i].why);
			is_ours = true;
		}
	if (!is_ours) {
		check_error(k, "this is no quarry disk: none of the four superblock slots holds a superblock");
		return -ENODEV;
	}
	check_error(
	    k, "no superblock is left whole: the disk cannot be opened; what it held must come from other replicas");
	return -EUCLEAN;
}

/* A slot without a valid superblock, beside one that has it: a crash may leave that, so may a bad medium. */
static void explain_missing(struct check *k, unsigned number, const struct slot *s, uint64_t newest)
{
	bool is_mate = number % 2 == newest % 2;

	if (s->verdict == SUPERBLOCK_BLANK && newest == 1 && !is_mate)
		return; /* a new disk: the other pair was never written */
	check_warn(k,
		   "superblock slot %u (disk block %" PRIu64
		   ") is not usable: %s; %s, and a coming checkpoint writes it anew. "
		   "After a power loss this is normal; if there was none, the medium has damaged it",
		   number, superblock_slot_block(number), s->why,
		   is_mate ? "its copy is whole" : "it held the checkpoint before the newest");
}

static void explain_valid(struct check *k, unsigned number, const struct slot *s, const struct slot *newest)
{
	const struct superblock *sb = &s->superblock, *top = &newest->superblock;

	if (sb->checkpoint % 2 != number % 2)
		check_error(k,
			    "superblock slot %u holds checkpoint %" PRIu64
			    ", which belongs into the other pair of slots: a write was misdirected",
			    number, sb->checkpoint);
	if (!uuid_equal(&sb->disk, &top->disk))
		check_error(
		    k,
		    "superblock slot %u belongs to another disk than the newest superblock: the disk was copied over",
		    number);
	else if (sb->checkpoint == top->checkpoint && memcmp(s->block, newest->block, BLOCK_BYTES) != 0)
		check_error(k, "superblock slot %u differs from its copy, though both are of checkpoint %" PRIu64,
			    number, sb->checkpoint);
}

static uint64_t mib_of(uint64_t n_blocks)
{
	return n_blocks / (MIB / BLOCK_BYTES);
}

static void explain_superblock(struct check *k)
{
	const struct superblock *sb = &k->superblock;
	uint64_t newer = sb->features_read_only & ~FEATURES_READ_ONLY_KNOWN;
	char disk[UUID_TEXT_BYTES], pool[UUID_TEXT_BYTES];

	uuid_to_text(&sb->disk, disk);
	uuid_to_text(&sb->pool, pool);
	check_note(k, "disk %s %s of pool %s: %" PRIu64 " MiB, journal %" PRIu64 " MiB, checkpoint %" PRIu64 "%s",
		   sb->label, disk, pool, mib_of(sb->n_blocks), mib_of(sb->journal_blocks), sb->checkpoint,
		   sb->is_clean ? ", closed cleanly" : "");
	if (newer)
		check_warn(k, "the disk uses features (%#" PRIx64 ") of a newer quarry: this one may only read it",
			   newer);
	if (sb->n_blocks > k->c->n_blocks)
		check_error(k,
			    "the disk has %" PRIu64 " blocks but the device or file only %" PRIu64
			    ": its end is missing; nothing that lies there can be read",
			    sb->n_blocks, k->c->n_blocks);
	if (sb->n_blocks < k->c->n_blocks)
		check_note(
		    k, "the device or file has grown to %" PRIu64 " MiB: opening the disk takes the new space into use",
		    mib_of(k->c->n_blocks));
}

/* 0, or what the whole check returns. */
static int check_superblocks(struct check *k)
{
	struct slot *slots = calloc(SUPERBLOCK_SLOTS, sizeof(*slots));
	int newest, res = 0;

	if (!slots)
		return -ENOMEM;
	for (unsigned i = 0; i < SUPERBLOCK_SLOTS && k->err == 0; i++)
		slot_read(k, i, &slots[i]);
	newest = slot_newest(slots);
	if (k->err != 0)
		res = k->err;
	else if (newest < 0)
		res = no_superblock(k, slots);
	else
		k->superblock = slots[newest].superblock;
	for (unsigned i = 0; i < SUPERBLOCK_SLOTS && res == 0; i++)
		if (slots[i].verdict == SUPERBLOCK_VALID)
			explain_valid(k, i, &slots[i], &slots[newest]);
		else
			explain_missing(k, i, &slots[i], k->superblock.checkpoint);
	free(slots);
	return res;
}

/* ---- the whole ---- */

static void check_fini(struct check *k)
{
	refs_fini(k);
	free(k->trees);
	free(k->volumes);
	free(k->deltas);
	free(k->block);
	free(k);
}

static int check_begin(struct check *k)
{
	int res = check_superblocks(k);

	if (res != 0)
		return res;
	explain_superblock(k);
	k->data_start = JOURNAL_START + k->superblock.journal_blocks;
	k->n_blocks = min_u64(k->superblock.n_blocks, k->c->n_blocks);
	return refs_init(k);
}

static int check_end(struct check *k)
{
	struct disk_check *c = k->c;

	if (k->err != 0)
		return k->err;
	if (k->n_findings > FINDINGS_MAX)
		check_more(k, "... and %" PRIu64 " more findings of this kind or others, not printed",
			   k->n_findings - FINDINGS_MAX);
	check_note(k,
		   "%" PRIu64 " trees, %" PRIu64 " pages, %" PRIu64 " data blocks (%" PRIu64 " MiB), %" PRIu64
		   " journal blocks to replay: %" PRIu64 " errors, %" PRIu64 " warnings",
		   c->trees, c->pages, c->data_blocks, mib_of(c->data_blocks), c->journal_blocks_to_replay, c->errors,
		   c->warnings);
	return c->errors > 0 ? -EUCLEAN : 0;
}

int disk_check_run(struct disk_check *c)
{
	struct check *k = calloc(1, sizeof(*k));
	int res;

	quarry_assert(c->read != NULL);
	if (!k)
		return -ENOMEM;
	k->c = c;
	c->errors = c->warnings = c->pages = c->data_blocks = c->trees = c->journal_blocks_to_replay = 0;
	c->is_clean = false;
	k->block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	res = k->block ? check_begin(k) : -ENOMEM;
	if (res == 0) {
		check_tables(k);
		check_trees(k);
		check_counts(k);
		check_name_suspects(k);
		check_journal(k);
		res = check_end(k);
	}
	quarry_assert(res != 0 || c->errors == 0);
	check_fini(k);
	return res;
}
