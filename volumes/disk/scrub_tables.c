/*
 * scrub_tables.c: the half of a scrub that reads what checkpoints write beside the trees' pages.
 *
 *   superblocks -> pages of the tables of trees, volumes and counts -> their records and count pages -> the delta log
 *
 * All of it is as the last checkpoint wrote it, as long as none is under way. A batch's blocks are named in one turn and
 * read while they are pinned; the next batch names what is there then, so each block is what it is said to be when it is
 * read, and what a checkpoint writes anew meanwhile was verified when it was written.
 */
#include "volumes/disk/scrub_internal.h"

#include <string.h>

#define TABLES 3

enum scrub_part {
	PART_SUPERBLOCKS,
	PART_PAGES,                         /* of TABLES tables */
	PART_RECORDS = PART_PAGES + TABLES, /* what their slots name */
	PART_LOG = PART_RECORDS + TABLES,
	PART_LOG_BLOCKS,
	PARTS
};

static const struct table *table_at(const struct disk *d, unsigned which)
{
	const struct table *const tables[TABLES] = {&d->tree_table, &d->volume_table, &d->space.index};
	return tables[which];
}

static const enum block_kind slot_kinds[TABLES] = {KIND_RECORD, KIND_RECORD, KIND_COUNTS};

static uint32_t log_blocks(const struct disk *d)
{
	return (d->superblock.n_deltas + DELTAS_PER_BLOCK - 1) / DELTAS_PER_BLOCK;
}

static uint64_t used(const struct pointer *p, uint32_t n)
{
	uint64_t n_used = 0;
	for (uint32_t i = 0; i < n; i++)
		n_used += !pointer_is_hole(p[i]);
	return n_used;
}

uint64_t scrub_tables_blocks(const struct disk *d)
{
	uint64_t n = SUPERBLOCK_SLOTS + log_blocks(d) + (d->superblock.n_deltas > 0);
	for (unsigned which = 0; which < TABLES; which++) {
		const struct table *t = table_at(d, which);
		n += used(t->slots, t->n_slots);
		for (unsigned level = 0; level < t->height; level++)
			n += used(t->pages[level], t->n_pages[level]);
	}
	return n;
}

/* ---- naming ---- */

static void note(struct scrub *s, enum block_kind kind, struct pointer p)
{
	scrub_add(s, kind, p, 0, 1, s->data + (size_t)s->n_ops * BLOCK_BYTES);
}

/* Pointers from the place on, as far as the batch has room; true: the end of the array is reached. */
static bool note_array(struct scrub *s, enum block_kind kind, const struct pointer *p, uint32_t n)
{
	for (; s->place.index < n && s->n_ops < PAGE_POINTERS; s->place.index++)
		if (!pointer_is_hole(p[s->place.index]))
			note(s, kind, p[s->place.index]);
	return s->place.index >= n;
}

/* The next of the place's part; true: the part is done with. */
static bool note_part(struct scrub *s)
{
	const struct disk *d = s->disk;
	struct scrub_place *at = &s->place;
	if (at->part == PART_SUPERBLOCKS) {
		s->checkpoint = d->superblock.checkpoint;
		for (unsigned slot = 0; slot < SUPERBLOCK_SLOTS; slot++)
			note(s, KIND_DATA, pointer_make(0, superblock_slot_block(slot), 0));
		return true;
	}
	if (at->part < PART_RECORDS) {
		const struct table *t = table_at(d, at->part - PART_PAGES);
		for (; at->level < t->height; at->level++, at->index = 0)
			if (!note_array(s, KIND_PAGE, t->pages[at->level], t->n_pages[at->level]))
				return false;
		return true;
	}
	if (at->part < PART_LOG) {
		const struct table *t = table_at(d, at->part - PART_RECORDS);
		return note_array(s, slot_kinds[at->part - PART_RECORDS], t->slots, t->n_slots);
	}
	if (at->part == PART_LOG) {
		s->is_log_known = false;
		s->checkpoint = d->superblock.checkpoint;
		if (d->superblock.n_deltas > 0)
			note(s, KIND_PAGE, d->superblock.deltas);
		return true;
	}
	if (!s->is_log_known)
		return true; /* told */
	if (s->checkpoint == d->superblock.checkpoint)
		return note_array(s, KIND_DELTAS, s->log_page.p, log_blocks(d));
	at->part = PART_LOG; /* there is another log by now */
	at->index = 0;
	return false;
}

bool scrub_tables_note(struct scrub *s)
{
	quarry_assert(s->n_ops == 0 && checkpoint_is_idle(&s->disk->checkpoint));
	while (s->place.part < PARTS && s->n_ops < PAGE_POINTERS) {
		unsigned part = s->place.part;
		if (!note_part(s))
			continue;
		s->place = (struct scrub_place){.part = part + 1};
		if (part == PART_SUPERBLOCKS || part == PART_LOG)
			break; /* a batch of their own */
	}
	return s->n_ops > 0 || s->place.part < PARTS;
}

/* ---- comparing ---- */

static void found(struct scrub *s, const char *what, uint64_t block, const char *how)
{
	struct disk *d = s->disk;
	s->status.bad_blocks++;
	counter_add(&d->counters.checksum_errors, 1);
	disk_report_damage(d, what, block, "scrub: %s", how);
}

static bool is_newest_pair(const struct disk *d, uint64_t block)
{
	return block == superblock_slot_block(superblock_slot(d->superblock.checkpoint, 0)) ||
	       block == superblock_slot_block(superblock_slot(d->superblock.checkpoint, 1));
}

/*
 * The newest checkpoint's copies, and those of the one before it. A checkpoint that has begun meanwhile writes there. A crash
 * leaves one of a pair that it was writing, or a torn one; the checkpoint that ends the recovery writes the other pair.
 */
static void compare_superblock(struct scrub *s, const struct scrub_op *o)
{
	const struct disk *d = s->disk;
	struct superblock sb;
	char why[WHY_BYTES];
	if (!checkpoint_is_idle(&d->checkpoint) || s->checkpoint != d->superblock.checkpoint)
		return;
	if (d->checkpoints < 2 && !is_newest_pair(d, pointer_block(o->pointer)))
		return;
	if (o->res < 0) {
		found(s, "superblock", pointer_block(o->pointer), "it cannot be read");
		return;
	}
	enum superblock_verdict v = superblock_decode(o->iov.iov_base, &sb, why);
	if (v == SUPERBLOCK_BLANK && d->superblock.checkpoint <= 2)
		return; /* a new disk has had no use for it */
	if (v != SUPERBLOCK_VALID)
		found(s, "superblock", pointer_block(o->pointer), why);
	else if (sb.checkpoint != d->superblock.checkpoint && sb.checkpoint + 1 != d->superblock.checkpoint)
		found(s, "superblock", pointer_block(o->pointer), "it is older than it must be: a write was lost");
}

static const char *kind_name(enum block_kind kind)
{
	switch (kind) {
	case KIND_DATA:
		return "superblock";
	case KIND_PAGE:
		return "table";
	case KIND_COUNTS:
		return "counts";
	case KIND_RECORD:
		return "record";
	case KIND_DELTAS:
		return "deltas";
	}
	return "block";
}

/* Pages of the tables may be in its batch. */
static bool is_log_page(const struct scrub *s, const struct scrub_op *o)
{
	return s->place.part == PART_LOG_BLOCKS && o->kind == KIND_PAGE &&
	       pointer_block(o->pointer) == pointer_block(s->disk->superblock.deltas);
}

void scrub_tables_compare(struct scrub *s)
{
	for (uint32_t i = 0; i < s->n_ops; i++) {
		const struct scrub_op *o = &s->ops[i];
		s->status.done_blocks++;
		if (o->kind == KIND_DATA) {
			compare_superblock(s, o);
		} else if (o->res < 0) {
			found(s, kind_name(o->kind), pointer_block(o->pointer), "it cannot be read");
		} else if (block_crc(o->kind, o->iov.iov_base) != pointer_crc(o->pointer)) {
			found(s, kind_name(o->kind), pointer_block(o->pointer), "it does not match its checksum");
		} else if (is_log_page(s, o)) {
			memcpy(&s->log_page, o->iov.iov_base, sizeof s->log_page);
			s->is_log_known = true;
		}
	}
}
