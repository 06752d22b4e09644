/*
 * recovery_load.c: what the newest checkpoint wrote: tables, records, the delta log.
 *
 * Each block is believed only when it matches the pointer that named it. The tables are read from the root down, one
 * block after the other: they are small (2 MiB of count index for a TiB), and the pages of a level lie side by side
 * mostly.
 */
#include "volumes/disk/recovery_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { TABLE_TREES, TABLE_VOLUMES, TABLE_COUNTS, TABLES };
static const char *const table_names[TABLES] = {"trees", "volumes", "counts"};

static struct table *table_of(struct recovery *r, unsigned which)
{
	struct table *const tables[TABLES] = {&r->disk->tree_table, &r->disk->volume_table, &r->disk->space.index};
	return tables[which];
}

static struct pointer root_of(const struct superblock *sb, unsigned which)
{
	const struct pointer roots[TABLES] = {sb->trees, sb->volumes, sb->counts};
	return roots[which];
}

/* Reads the block a pointer names into the buffer and checks it. FLOW_WAIT: on its way; FLOW_NEXT with r->err or the
 * block. */
static enum flow load_block(struct recovery *r, struct pointer p, enum block_kind kind, const char *what)
{
	quarry_assert(r->owed == 0 && !r->err);
	if (!r->is_reading) {
		if (!space_is_block(&r->disk->space, pointer_block(p))) {
			r->err = recovery_fail(
			    r,
			    "a pointer to %s names block %llu, which is no block of the disk; run `quarry disk check`",
			    what, (unsigned long long)pointer_block(p));
			return FLOW_NEXT;
		}
		r->is_reading = true;
		r->read_res = 0;
		recovery_read(r, 0, r->buffer, pointer_block(p), 1);
		return FLOW_WAIT;
	}
	r->is_reading = false;
	if (r->read_res < 0 || block_crc(kind, r->buffer) != pointer_crc(p))
		r->err = recovery_fail(r, "%s in block %llu %s; run `quarry disk check`", what,
				       (unsigned long long)pointer_block(p),
				       r->read_res < 0 ? "cannot be read" : "does not match its checksum");
	return FLOW_NEXT;
}

/* A page of this level is in the buffer: its pointers belong to the level below. */
static void page_take(struct table *t, unsigned level, uint32_t page, const uint8_t *block)
{
	struct pointer *below = level == 0 ? t->slots : t->pages[level - 1];
	uint32_t n_below = level == 0 ? t->n_slots : t->n_pages[level - 1], from = page * PAGE_POINTERS;
	quarry_assert(from < n_below);
	memcpy(below + from, block, min_u64(PAGE_POINTERS, n_below - from) * sizeof(struct pointer));
}

static int table_begin(struct recovery *r)
{
	const struct superblock *sb = &r->disk->superblock;
	struct table *t = table_of(r, r->table);
	unsigned disk_height;
	if (r->table == TABLE_COUNTS) {
		disk_height = table_height(regions_of(sb->n_blocks));
	} else {
		disk_height = table_height(r->table == TABLE_TREES ? sb->n_tree_slots : sb->n_volume_slots);
		int res = r->table == TABLE_TREES ? disk_grow_slots(r->disk, sb->n_tree_slots, 0)
						  : disk_grow_slots(r->disk, 0, sb->n_volume_slots);
		if (res < 0)
			return res;
	}
	/* A grown disk has a higher index than the one written: the old root is then the first page of its level. */
	if (disk_height > 0)
		t->pages[disk_height - 1][0] = root_of(sb, r->table);
	for (unsigned level = disk_height; level < t->height; level++)
		t->is_dirty[level][0] = 1;
	r->level = disk_height;
	r->cursor = 0;
	return 0;
}

enum flow recovery_tables(struct recovery *r)
{
	for (; r->table < TABLES; r->table++, r->is_begun = false) {
		struct table *t = table_of(r, r->table);
		if (!r->is_begun) {
			r->is_begun = true;
			r->err = table_begin(r);
			if (r->err)
				return FLOW_NEXT;
		}
		for (; r->level > 0; r->level--, r->cursor = 0)
			for (; r->cursor < t->n_pages[r->level - 1]; r->cursor++) {
				struct pointer p = t->pages[r->level - 1][r->cursor];
				if (pointer_is_hole(p))
					continue;
				char what[64];
				snprintf(what, sizeof what, "a page of the table of %s", table_names[r->table]);
				if (load_block(r, p, KIND_PAGE, what) == FLOW_WAIT)
					return FLOW_WAIT;
				if (r->err)
					return FLOW_NEXT;
				page_take(t, r->level - 1, (uint32_t)r->cursor, r->buffer);
			}
	}
	r->table = TABLE_TREES;
	r->is_begun = false;
	return FLOW_NEXT;
}

static int record_take(struct recovery *r, uint32_t slot)
{
	struct disk *d = r->disk;
	struct tree_record tree;
	struct volume_record volume;
	if (r->table == TABLE_TREES) {
		if (tree_record_decode(r->buffer, &tree))
			return recovery_fail(r, "the record of tree %u is malformed; run `quarry disk check`", slot);
		disk_tree_add(d, slot, &tree);
		return 0;
	}
	if (volume_record_decode(r->buffer, &volume))
		return recovery_fail(r, "the record of volume %u is malformed; run `quarry disk check`", slot);
	d->volumes[slot] = (struct disk_volume){.record = volume, .slot = slot, .is_used = true};
	return 0;
}

enum flow recovery_records(struct recovery *r)
{
	for (; r->table <= TABLE_VOLUMES; r->table++, r->cursor = 0) {
		struct table *t = table_of(r, r->table);
		for (; r->cursor < t->n_slots; r->cursor++) {
			if (pointer_is_hole(t->slots[r->cursor]))
				continue;
			if (load_block(r, t->slots[r->cursor], KIND_RECORD,
				       r->table ? "a volume's record" : "a tree's record") == FLOW_WAIT)
				return FLOW_WAIT;
			if (!r->err)
				r->err = record_take(r, (uint32_t)r->cursor);
			if (r->err)
				return FLOW_NEXT;
		}
	}
	return FLOW_NEXT;
}

static int deltas_take(struct recovery *r, const uint8_t *block, uint32_t n)
{
	struct space *s = &r->disk->space;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t word;
		memcpy(&word, block + i * sizeof word, sizeof word);
		struct delta d = delta_unpack(word);
		struct delta other;
		if (!space_is_block(s, d.block) || deltas_get(&s->log, d.block, &other))
			return recovery_fail(r, "the delta log is malformed; run `quarry disk check`");
		deltas_put(&s->log, d);
	}
	return 0;
}

enum flow recovery_deltas(struct recovery *r)
{
	struct disk *d = r->disk;
	struct delta_log *log = &d->checkpoint.log;
	uint32_t n = d->superblock.n_deltas;
	if (n == 0)
		return FLOW_NEXT;
	if (n > d->space.deltas_max || n > DELTA_LOG_MAX) {
		r->err = recovery_fail(r, "the delta log has %u entries, more than it may; run `quarry disk check`", n);
		return FLOW_NEXT;
	}
	if (log->page == 0) { /* the page of pointers first */
		if (load_block(r, d->superblock.deltas, KIND_PAGE, "the delta log's page") == FLOW_WAIT)
			return FLOW_WAIT;
		if (r->err)
			return FLOW_NEXT;
		log->page = pointer_block(d->superblock.deltas);
		memcpy(r->data, r->buffer, BLOCK_BYTES);
	}
	for (; r->cursor * DELTAS_PER_BLOCK < n; r->cursor++) {
		struct pointer p = ((const struct page *)r->data)->p[r->cursor];
		if (load_block(r, p, KIND_DELTAS, "a block of the delta log") == FLOW_WAIT)
			return FLOW_WAIT;
		if (!r->err)
			r->err = deltas_take(r, r->buffer,
					     (uint32_t)min_u64(DELTAS_PER_BLOCK, n - r->cursor * DELTAS_PER_BLOCK));
		if (r->err)
			return FLOW_NEXT;
		log->blocks[log->n_blocks++] = pointer_block(p);
	}
	return FLOW_NEXT;
}
