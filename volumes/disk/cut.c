/*
 * cut.c: the moment of a checkpoint: the state as it is between two turns, sealed into fresh blocks.
 *
 *   1. the journal's open block is closed: the cut is its sequence
 *   2. dirty tree pages, the leaves first: each gets a block; its parents take its pointer
 *   3. records of changed trees and volumes
 *   4. blocks for changed count pages, table pages and the delta log. Giving them blocks changes counts, which may
 *      change further count pages: round and round until nothing new has changed; each gets a block only once, so it
 *      ends
 *   5. the contents of those, now that no count changes any more
 *   6. freeze: what was freed until here waits for this checkpoint
 *
 * All is memory work: a few milliseconds for the 64 MiB of dirty pages that the default cache allows. Every buffer is
 * a frame of the cache, which the writer sends to the device afterwards.
 */
#include "volumes/disk/checkpoint_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLES           3
#define TABLE_PAGES_MAX  257u /* of the trees or the volumes */
#define CUT_SLACK        16u
#define CUT_LOADED_MAX   64u /* regions that come into memory between the last change and the cut */
#define CHANGE_DIRTY_MAX (2 * TREE_HEIGHT_MAX + 2) /* pages of two paths, records of a fork */

static void tables_of(struct disk *d, struct table *tables[TABLES])
{
	tables[0] = &d->tree_table;
	tables[1] = &d->volume_table;
	tables[2] = &d->space.index;
}

/* ---- bounds ---- */

static uint64_t table_pages(const struct table *t)
{
	uint64_t n = 0;
	for (unsigned level = 0; level < t->height; level++)
		n += t->n_pages[level];
	return n;
}

static uint64_t tables_pages(const struct disk *d)
{
	return table_pages(&d->tree_table) + table_pages(&d->volume_table) + table_pages(&d->space.index);
}

/* Pages of a table that so many changed slots can change: on a level no more than there are, and no more than slots. */
static uint64_t table_pages_changed(const struct table *t, uint64_t n_slots)
{
	uint64_t n = 0;
	for (unsigned level = 0; level < t->height; level++)
		n += min_u64(t->n_pages[level], n_slots);
	return n;
}

static uint64_t tables_pages_changed(const struct disk *d, uint64_t n_regions)
{
	return table_pages(&d->tree_table) + table_pages(&d->volume_table) +
	       table_pages_changed(&d->space.index, n_regions);
}

/* Any resident region may become dirty by what the cut itself takes and gives back. */
static uint64_t beside_pages(const struct disk *d)
{
	uint64_t log_blocks = space_deltas(&d->space) / DELTAS_PER_BLOCK + 2, n_regions = d->space.n_resident;
	return d->n_dirty_records + tables_pages_changed(d, n_regions) + n_regions + log_blocks + CUT_SLACK;
}

uint64_t cut_blocks_max(const struct disk *d)
{
	uint64_t log_blocks = d->space.deltas_max / DELTAS_PER_BLOCK + 2;
	return d->pages.dirty_max + CHANGE_DIRTY_MAX + tables_pages(d) +
	       space_regions_bound(&d->space, d->pages.dirty_max) + log_blocks + CUT_SLACK;
}

/*
 * A region that is fetched for its free blocks takes one of them itself, for its count page. On a disk with more regions
 * than may be resident, random overwrites spread what is free over all of them, evenly. So each must have some, in the
 * mean: then what a cut takes is found in regions_max of them, however it is spread.
 */
uint64_t cut_blocks_spread(const struct disk *d)
{
	const struct space *s = &d->space;
	uint64_t n_regions = (uint64_t)s->regions_max + d->pages.dirty_max;
	if (s->n_regions <= space_regions_bound(s, d->pages.dirty_max))
		return 0; /* there is a block for the count page of every region */
	uint64_t n_taken =
	    n_regions + tables_pages_changed(d, n_regions) + s->deltas_max / DELTAS_PER_BLOCK + CUT_SLACK;
	return s->n_regions * (n_taken / s->regions_max + 2);
}

uint32_t cut_frames_max(const struct disk *d, uint32_t dirty_max)
{
	uint64_t n_regions = space_regions_bound(&d->space, dirty_max);
	uint64_t tables = 2 * TABLE_PAGES_MAX + table_pages_changed(&d->space.index, n_regions);
	return (uint32_t)(dirty_max + CHANGE_DIRTY_MAX + tables + n_regions + DELTA_LOG_MAX / DELTAS_PER_BLOCK + 2 +
			  CUT_SLACK);
}

/* Each record, count page, table page and block of the log that is written anew gives its old block back. More regions
 * may become resident before the cut, up to their bound, as many again for their free blocks, and those that it loads
 * itself. */
uint32_t cut_deltas(const struct disk *d)
{
	const struct space *s = &d->space;
	uint64_t n_regions =
	    min_u64(s->n_regions, max_u64(s->n_resident, s->regions_max) + s->regions_max + CUT_LOADED_MAX);
	return (uint32_t)(d->n_dirty_records + tables_pages_changed(d, n_regions) + n_regions +
			  d->checkpoint.log.n_blocks + 1 + CUT_SLACK);
}

uint64_t cut_blocks_needed(const struct disk *d)
{
	return d->pages.n_dirty + beside_pages(d);
}
uint32_t cut_frames_needed(const struct disk *d)
{
	return (uint32_t)beside_pages(d);
}

/* ---- blocks ---- */

static uint64_t block_take(struct disk *d, uint32_t refs)
{
	struct run run;
	int res = space_alloc(&d->space, SPACE_PAGES, 1, &run, NULL);
	quarry_assert(res == 0);
	space_take(&d->space, run.block, refs);
	return run.block;
}

static void block_give_back(struct disk *d, struct pointer p)
{
	if (!pointer_is_hole(p))
		space_drop(&d->space, pointer_block(p), true);
}

/* Queues a bare frame's write; the pointer to it. */
static struct pointer block_send(struct disk *d, struct frame *f, enum block_kind kind, uint64_t block, uint64_t epoch)
{
	f->block = block;
	struct pointer p = pointer_make(block_crc(kind, f->page), block, epoch);
	writer_add_frame(&d->writer, f);
	return p;
}

/* ---- 2: pages ---- */

/* Takes the pointers that dirty children were given; the highest epoch below. */
static uint64_t page_resolve(struct disk *d, struct page *page)
{
	uint64_t epoch = 0;
	for (unsigned i = 0; i < PAGE_POINTERS; i++) {
		if (pointer_is_virtual(page->p[i])) {
			struct frame *child = &d->pages.frames[pointer_block(page->p[i]) & (FRAME_BIT - 1)];
			quarry_assert(child->state == FRAME_WRITING);
			page->p[i] = child->sealed;
		}
		epoch = max_u64(epoch, pointer_epoch(page->p[i]));
	}
	return epoch;
}

static void pages_cut(struct disk *d)
{
	for (unsigned level = 1; level <= TREE_HEIGHT_MAX; level++)
		list_each_safe (node, &d->pages.dirty[level]) {
			struct frame *f = container_of(node, struct frame, link);
			uint64_t epoch = page_resolve(d, f->page);
			quarry_assert(epoch <= f->newest);
			uint64_t block = block_take(d, f->refs);
			pages_seal(&d->pages, f, block, pointer_make(block_crc(KIND_PAGE, f->page), block, epoch));
			writer_add_frame(&d->writer, f);
		}
	quarry_assert(d->pages.n_dirty == 0);
}

/* ---- 3: records ---- */

static void tree_cut(struct disk *d, struct disk_tree *t)
{
	t->is_dirty = false;
	d->n_dirty_records--;
	block_give_back(d, d->tree_table.slots[t->slot]);
	if (t->is_gone) {
		t->is_left_out = true;
		table_set(&d->tree_table, t->slot, (struct pointer){0});
		return;
	}
	if (pointer_is_virtual(t->record.root)) {
		struct frame *root = &d->pages.frames[pointer_block(t->record.root) & (FRAME_BIT - 1)];
		quarry_assert(root->state == FRAME_WRITING);
		t->record.root = root->sealed;
	}
	struct frame *f = pages_new_bare(&d->pages);
	tree_record_encode(&t->record, (uint8_t *)f->page);
	table_set(&d->tree_table, t->slot, block_send(d, f, KIND_RECORD, block_take(d, 1), 0));
}

static void volume_cut(struct disk *d, struct disk_volume *v, uint32_t slot)
{
	v->is_dirty = false;
	d->n_dirty_records--;
	block_give_back(d, d->volume_table.slots[slot]);
	if (!v->is_used) {
		table_set(&d->volume_table, slot, (struct pointer){0});
		return;
	}
	struct frame *f = pages_new_bare(&d->pages);
	volume_record_encode(&v->record, (uint8_t *)f->page);
	table_set(&d->volume_table, slot, block_send(d, f, KIND_RECORD, block_take(d, 1), 0));
}

static void records_cut(struct disk *d)
{
	for (uint32_t i = 0; i < d->n_tree_slots; i++)
		if (d->trees[i] && d->trees[i]->is_dirty)
			tree_cut(d, d->trees[i]);
	for (uint32_t i = 0; i < d->n_volume_slots; i++)
		if (d->volumes[i].is_dirty)
			volume_cut(d, &d->volumes[i], i);
	quarry_assert(d->n_dirty_records == 0);
}

/* ---- 4: blocks for counts, tables, deltas ---- */

enum { PAGE_CLEAN = 0, PAGE_DIRTY = 1, PAGE_PLACED = 2 /* dirty, and its pointer already names the fresh block */ };

static bool regions_place(struct disk *d)
{
	struct space *s = &d->space;
	bool progress = false;
	list_each (node, &s->regions) {
		struct region *r = container_of(node, struct region, link);
		if (!r->is_dirty || r->has_new_block)
			continue;
		block_give_back(d, s->index.slots[r->number]);
		table_set(&s->index, r->number, pointer_make(0, block_take(d, 1), 0));
		r->has_new_block = progress = true;
	}
	return progress;
}

static bool table_place(struct disk *d, struct table *t)
{
	bool progress = false;
	for (unsigned level = 0; level < t->height; level++)
		for (uint32_t i = 0; i < t->n_pages[level]; i++) {
			if (t->is_dirty[level][i] != PAGE_DIRTY)
				continue;
			block_give_back(d, t->pages[level][i]);
			t->pages[level][i] = pointer_make(0, block_take(d, 1), 0);
			t->is_dirty[level][i] = PAGE_PLACED;
			progress = true;
		}
	return progress;
}

/* Entries of the next log: a block that both maps know has one. */
static uint32_t log_entries(const struct space *s)
{
	uint32_t n = s->log.n + s->current.n;
	struct delta unused;
	deltas_each(word, &s->current)
	{
		n -= deltas_get(&s->log, delta_unpack(word).block, &unused);
	}
	return n;
}

/* Fresh blocks for the delta log: just as many as its entries need, and one for the page that points to them. */
static bool log_place(struct disk *d, struct delta_log *log)
{
	bool progress = false;
	uint32_t n = log_entries(&d->space);
	uint32_t wanted = n == 0 ? 0 : (n + DELTAS_PER_BLOCK - 1) / DELTAS_PER_BLOCK;
	quarry_assert(wanted <= PAGE_POINTERS);
	for (; log->n_blocks < wanted; log->n_blocks++, progress = true)
		log->blocks[log->n_blocks] = block_take(d, 1);
	if (wanted > 0 && log->page == 0) {
		log->page = block_take(d, 1);
		progress = true;
	}
	return progress;
}

static void log_give_back(struct disk *d, const struct delta_log *log)
{
	for (uint32_t i = 0; i < log->n_blocks; i++)
		space_drop(&d->space, log->blocks[i], true);
	if (log->page)
		space_drop(&d->space, log->page, true);
}

/* ---- 5: contents ---- */

static uint64_t counts_free(const struct space *s, const struct region *r)
{
	uint64_t n = 0, start = (uint64_t)r->number * COUNTS_PER_PAGE;
	for (uint32_t i = 0; i < COUNTS_PER_PAGE; i++)
		n += r->counts[i] == 0 && space_is_block(s, start + i);
	return n;
}

static void regions_send(struct disk *d)
{
	struct space *s = &d->space;
	list_each (node, &s->regions) {
		struct region *r = container_of(node, struct region, link);
		if (!r->is_dirty)
			continue;
		quarry_assert(r->has_new_block);
		struct frame *f = pages_new_bare(&d->pages);
		memcpy(f->page, r->counts, BLOCK_BYTES);
		uint64_t block = pointer_block(s->index.slots[r->number]);
		s->index.slots[r->number] = block_send(d, f, KIND_COUNTS, block, counts_free(s, r));
		r->is_dirty = r->has_new_block = false;
		quarry_assert(s->n_dirty > 0);
		s->n_dirty--;
	}
	quarry_assert(s->n_dirty == 0);
}

static void table_send(struct disk *d, struct table *t)
{
	for (unsigned level = 0; level < t->height; level++) {
		const struct pointer *below = level == 0 ? t->slots : t->pages[level - 1];
		uint32_t n_below = level == 0 ? t->n_slots : t->n_pages[level - 1];
		for (uint32_t i = 0; i < t->n_pages[level]; i++) {
			if (t->is_dirty[level][i] == PAGE_CLEAN)
				continue;
			quarry_assert(t->is_dirty[level][i] == PAGE_PLACED);
			struct frame *f = pages_new_bare(&d->pages);
			uint32_t from = i * PAGE_POINTERS;
			memcpy(f->page, below + from, min_u64(PAGE_POINTERS, n_below - from) * sizeof(struct pointer));
			t->pages[level][i] = block_send(d, f, KIND_PAGE, pointer_block(t->pages[level][i]), 0);
			t->is_dirty[level][i] = PAGE_CLEAN;
		}
	}
}

static int compare_words(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a << 16, y = *(const uint64_t *)b << 16;
	return x < y ? -1 : x > y;
}

/* What the log will be once this checkpoint is flushed, sorted by block. */
static uint32_t log_gather(const struct space *s, uint64_t *words)
{
	uint32_t n = 0;
	struct delta other;
	deltas_each(word, &s->log)
	{
		struct delta d = delta_unpack(word);
		if (deltas_get(&s->current, d.block, &other))
			d = delta_combine(d, other);
		words[n++] = delta_pack(d);
	}
	deltas_each(word, &s->current)
	{
		if (!deltas_get(&s->log, delta_unpack(word).block, &other))
			words[n++] = word;
	}
	qsort(words, n, sizeof(*words), compare_words);
	return n;
}

static void log_send(struct checkpoint *c)
{
	struct disk *d = c->disk;
	struct delta_log *log = &c->log;
	uint32_t n = log_gather(&d->space, c->words);
	struct pointer root = {0};
	quarry_assert((n + DELTAS_PER_BLOCK - 1) / DELTAS_PER_BLOCK == log->n_blocks); /* none is missing, none leaks */
	quarry_assert(n <= d->space.deltas_max); /* or recovery would not take it */
	if (n > 0) {
		struct frame *page = pages_new_bare(&d->pages);
		for (uint32_t i = 0; i * DELTAS_PER_BLOCK < n; i++) {
			uint32_t from = i * DELTAS_PER_BLOCK;
			struct frame *f = pages_new_bare(&d->pages);
			memcpy(f->page, c->words + from, min_u64(DELTAS_PER_BLOCK, n - from) * sizeof(uint64_t));
			page->page->p[i] = block_send(d, f, KIND_DELTAS, log->blocks[i], 0);
		}
		root = block_send(d, page, KIND_PAGE, log->page, 0);
	}
	c->superblock.deltas = root;
	c->superblock.n_deltas = n;
}

/* ---- the cut ---- */

void cut(struct checkpoint *c)
{
	struct disk *d = c->disk;
	struct table *tables[TABLES];
	struct delta_log old_log = c->log;
	tables_of(d, tables);
	pages_guard(&d->pages); /* its buffers are frames: what was looked up before may go */
	c->cut = journal_cut(&d->journal);
	pages_cut(d);
	records_cut(d);
	c->log = (struct delta_log){0};
	log_give_back(d, &old_log);
	bool progress = true;
	while (progress) {
		progress = regions_place(d);
		for (unsigned i = 0; i < TABLES; i++)
			progress |= table_place(d, tables[i]);
		progress |= log_place(d, &c->log);
	}
	regions_send(d);
	for (unsigned i = 0; i < TABLES; i++)
		table_send(d, tables[i]);
	struct superblock *sb = &c->superblock;
	*sb = d->superblock;
	log_send(c);
	space_freeze(&d->space);
	d->read_side = !d->read_side;
	sb->checkpoint = d->superblock.checkpoint + 1;
	sb->n_blocks = d->space.n_blocks;
	sb->replay_from = c->cut + 1;
	sb->trees = table_root(&d->tree_table);
	sb->volumes = table_root(&d->volume_table);
	sb->counts = table_root(&d->space.index);
	sb->n_tree_slots = d->n_tree_slots;
	sb->n_volume_slots = d->n_volume_slots;
	sb->is_clean = c->is_clean;
	sb->features_forget &= FEATURES_FORGET_KNOWN;
	sb->cache_bytes = d->options.cache_bytes;
	if (d->scrubbed_wall_ns > 0) /* recovery does not look at it */
		sb->scrubbed_wall_ns = d->scrubbed_wall_ns;
}

void cut_forget_trees(struct disk *d)
{
	for (uint32_t i = 0; i < d->n_tree_slots; i++)
		if (d->trees[i] && d->trees[i]->is_left_out && d->trees[i]->n_lookers == 0) {
			quarry_assert(!d->trees[i]->is_dirty);
			free(d->trees[i]);
			d->trees[i] = NULL;
			d->n_trees--;
		}
}
