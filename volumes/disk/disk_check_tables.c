/*
 * disk_check_tables.c: the checkpoint's tables: trees, volumes, the count index, and the log of count changes.
 *
 * Each table is a tree of pages whose last level points to records or count pages. Every block of it may be named by
 * one pointer only. Records and count pointers are collected for the parts that follow.
 */
#include "volumes/disk/disk_check_internal.h"

#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- walking a table ---- */

struct table_walk {
	struct check *k;
	const char *name;
	uint64_t n_slots;
	const char *loss; /* what a damaged page means for the user */
	void (*each)(struct check *k, uint64_t slot, struct pointer p);
};

/* Loads the page that p names into this level of the stack; false: there is none to look at. */
static bool table_enter(struct table_walk *t, struct pointer p, unsigned level, uint64_t first)
{
	struct check *k = t->k;
	struct walk_level *l = &k->walk[level];
	enum block_state state = check_load(k, p, KIND_PAGE, &l->page);

	if (k->err != 0)
		return false;
	if (state != BLOCK_OUTSIDE && !refs_add_only(k, pointer_block(p), USE_TABLE, t->name))
		return false;
	if (state != BLOCK_GOOD) {
		check_error(k, "%s, slots from %" PRIu64 " on: the page in disk block %" PRIu64 " %s: %s", t->name,
			    first, pointer_block(p), block_state_text(state), t->loss);
		k->n_lost_pages++;
		return false;
	}
	l->first = first;
	l->next = 0;
	return true;
}

/* One pointer of a table's page. Returns true when the walk goes down into it. */
static bool table_visit(struct table_walk *t, unsigned level, struct pointer p, uint64_t slot)
{
	struct check *k = t->k;

	if (pointer_is_hole(p)) {
		if (pointer_crc(p) != 0)
			check_error(k, "%s, slot %" PRIu64 ": an empty slot has a checksum", t->name, slot);
		return false;
	}
	if (slot >= t->n_slots) {
		check_error(k, "%s: slot %" PRIu64 " is used, but the table ends at %" PRIu64, t->name, slot,
			    t->n_slots);
		return false;
	}
	if (level > 1)
		return table_enter(t, p, level - 1, slot);
	t->each(k, slot, p);
	return false;
}

static void table_walk(struct table_walk *t, struct pointer root)
{
	struct check *k = t->k;
	unsigned height = table_height(t->n_slots), level = height;

	quarry_assert(height <= TREE_HEIGHT_MAX);
	if (height == 0 || pointer_is_hole(root) || !table_enter(t, root, level, 0))
		return;
	while (level <= height && k->err == 0) {
		struct walk_level *l = &k->walk[level];
		uint64_t slot = l->first + l->next * tree_span(level - 1);

		if (l->next == PAGE_POINTERS)
			level++;
		else if (table_visit(t, level, l->page.p[l->next++], slot))
			level--;
	}
}

/* ---- what the tables hold ---- */

/* Loads a record into k->block; false: told as an error. */
static bool load_record(struct check *k, const char *what, uint64_t slot, struct pointer p, const char *loss)
{
	enum block_state state = check_load(k, p, KIND_RECORD, k->block);

	if (k->err != 0)
		return false;
	if (state != BLOCK_OUTSIDE && !refs_add_only(k, pointer_block(p), USE_RECORD, what))
		return false;
	if (state == BLOCK_GOOD)
		return true;
	check_error(k, "%s, slot %" PRIu64 ": the record in disk block %" PRIu64 " %s: %s", what, slot,
		    pointer_block(p), block_state_text(state), loss);
	return false;
}

static void each_tree(struct check *k, uint64_t slot, struct pointer p)
{
	static const char loss[] =
	    "a tree is lost on this disk: its volume has to be rebuilt here from another replica";
	struct check_tree t = {.slot = (uint32_t)slot};

	quarry_assert(slot < UINT32_MAX);
	k->n_lost_pages++; /* until it is read */
	if (!load_record(k, "table of trees", slot, p, loss))
		return;
	if (tree_record_decode(k->block, &t.record) != 0) {
		check_error(k,
			    "table of trees, slot %" PRIu64 ": the record in disk block %" PRIu64
			    " is no tree record, though its checksum fits: %s",
			    slot, pointer_block(p), loss);
		return;
	}
	k->n_lost_pages--;
	if (!check_grow(k, &k->trees, k->n_trees, sizeof(t)))
		return;
	k->trees[k->n_trees++] = t;
	k->c->trees++;
}

static void each_volume(struct check *k, uint64_t slot, struct pointer p)
{
	static const char loss[] = "the fence of a volume is lost: this disk cannot be trusted for it";
	struct check_volume v = {.slot = (uint32_t)slot};
	bool had_lost = k->has_lost_volumes;

	quarry_assert(slot < UINT32_MAX);
	k->has_lost_volumes = true; /* until it is read */
	if (!load_record(k, "table of volumes", slot, p, loss))
		return;
	if (volume_record_decode(k->block, &v.record) != 0) {
		check_error(k,
			    "table of volumes, slot %" PRIu64 ": the record in disk block %" PRIu64
			    " is no volume record, though its checksum fits: %s",
			    slot, pointer_block(p), loss);
		return;
	}
	k->has_lost_volumes = had_lost;
	if (check_grow(k, &k->volumes, k->n_volumes, sizeof(v)))
		k->volumes[k->n_volumes++] = v;
}

static void each_count_page(struct check *k, uint64_t region, struct pointer p)
{
	enum block_state state;

	if (region >= k->n_regions)
		return; /* past the end of a device that is shorter than its disk, which was told */
	k->count_pointers[region] = p;
	state = check_load(k, p, KIND_COUNTS, k->block);
	if (k->err != 0)
		return;
	if (state != BLOCK_OUTSIDE && !refs_add_only(k, pointer_block(p), USE_COUNTS, "count index"))
		state = BLOCK_MISMATCH;
	else if (state != BLOCK_GOOD)
		check_error(k,
			    "counts of disk blocks %" PRIu64 " to %" PRIu64 ": the count page in disk block %" PRIu64
			    " %s: no data is lost, but no space can be taken or freed there",
			    region * COUNTS_PER_PAGE, (region + 1) * COUNTS_PER_PAGE - 1, pointer_block(p),
			    block_state_text(state));
	k->region_is_lost[region] = state != BLOCK_GOOD;
}

/* ---- records against each other ---- */

static int compare_trees(const void *a, const void *b)
{
	const struct check_tree *x = a, *y = b;
	int order = memcmp(&x->record.volume, &y->record.volume, sizeof(struct uuid));

	if (order != 0)
		return order;
	if (x->record.tree_id != y->record.tree_id)
		return x->record.tree_id < y->record.tree_id ? -1 : 1;
	if ((x->record.state == TREE_LIVE) != (y->record.state == TREE_LIVE))
		return x->record.state == TREE_LIVE ? -1 : 1; /* those that are side by side may not be the same */
	return x->slot < y->slot ? -1 : x->slot > y->slot;
}

static int compare_volumes(const void *a, const void *b)
{
	const struct check_volume *x = a, *y = b;
	int order = memcmp(&x->record.volume, &y->record.volume, sizeof(struct uuid));

	return order != 0 ? order : x->slot < y->slot ? -1 : x->slot > y->slot;
}

static void check_records(struct check *k)
{
	char name[TREE_NAME_BYTES], volume[UUID_TEXT_BYTES];

	if (k->n_trees > 0)
		qsort(k->trees, k->n_trees, sizeof(*k->trees), compare_trees);
	if (k->n_volumes > 0)
		qsort(k->volumes, k->n_volumes, sizeof(*k->volumes), compare_volumes);
	for (uint32_t i = 1; i < k->n_trees; i++) {
		const struct tree_record *a = &k->trees[i - 1].record, *b = &k->trees[i].record;
		/* A volume that has left the disk and is back makes its trees again, while the former ones are being freed. */
		if (a->tree_id != b->tree_id || !uuid_equal(&a->volume, &b->volume) || b->state != TREE_LIVE)
			continue;
		tree_name(&k->trees[i], name);
		check_error(k, "%s is in slots %u and %u: which one a client gets is chance", name,
			    k->trees[i - 1].slot, k->trees[i].slot);
	}
	for (uint32_t i = 1; i < k->n_volumes; i++)
		if (uuid_equal(&k->volumes[i - 1].record.volume, &k->volumes[i].record.volume)) {
			uuid_to_text(&k->volumes[i].record.volume, volume);
			check_error(k, "volume %s has two records, in slots %u and %u: its fence cannot be trusted",
				    volume, k->volumes[i - 1].slot, k->volumes[i].slot);
		}
}

/* ---- the delta log ---- */

static bool load_deltas(struct check *k, uint32_t number, struct pointer p)
{
	uint32_t from = number * DELTAS_PER_BLOCK,
		 n = (uint32_t)min_u64(DELTAS_PER_BLOCK, k->superblock.n_deltas - from);
	enum block_state state = pointer_is_hole(p) ? BLOCK_OUTSIDE : check_load(k, p, KIND_DELTAS, k->block);

	if (k->err != 0)
		return false;
	if (state != BLOCK_OUTSIDE && !refs_add_only(k, pointer_block(p), USE_DELTAS, "delta log"))
		return false;
	if (state != BLOCK_GOOD) {
		check_error(
		    k, "delta log: entries %u to %u, in disk block %" PRIu64 ": the block %s: the counts are not known",
		    from, from + n - 1, pointer_block(p), block_state_text(state));
		return false;
	}
	if (!bytes_are_zero(k->block + n * 8, BLOCK_BYTES - n * 8))
		check_error(k, "delta log: disk block %" PRIu64 " holds entries past the end of the log",
			    pointer_block(p));
	for (uint32_t i = 0; i < n; i++)
		k->deltas[from + i] = get_le64(k->block + i * 8);
	return true;
}

/* The log is of use only as a whole; false: a block of it is missing. */
static bool load_delta_log(struct check *k, const struct page *page, uint32_t n_log_blocks)
{
	bool is_whole = true;

	for (uint32_t i = 0; i < n_log_blocks; i++)
		if (!load_deltas(k, i, page->p[i]))
			is_whole = false;
	for (uint32_t i = n_log_blocks; i < PAGE_POINTERS; i++)
		if (page->p[i].low != 0 || page->p[i].high != 0)
			check_error(k, "delta log: its page of pointers names a block past the end of the log");
	return is_whole;
}

static void check_delta_order(struct check *k)
{
	uint64_t last = 0;

	for (uint32_t i = 0; i < k->n_deltas; i++) {
		struct delta d = delta_unpack(k->deltas[i]);
		if (d.block <= last)
			check_error(k, "delta log: entry %u (disk block %" PRIu64 ") is not in order", i, d.block);
		else if (!check_in_data_area(k, d.block))
			check_error(k,
				    "delta log: entry %u changes the count of disk block %" PRIu64 ", which has none",
				    i, d.block);
		last = max_u64(last, d.block);
	}
}

static void check_deltas(struct check *k)
{
	const struct superblock *sb = &k->superblock;
	struct page *page = &k->walk[1].page;
	enum block_state state;
	bool is_whole = false;

	if (sb->n_deltas == 0)
		return;
	k->deltas = calloc(sb->n_deltas, sizeof(*k->deltas));
	if (!k->deltas) {
		k->err = -ENOMEM;
		return;
	}
	state = check_load(k, sb->deltas, KIND_PAGE, page);
	if (k->err != 0)
		return;
	if (state != BLOCK_GOOD)
		check_error(k, "delta log: its page of pointers, disk block %" PRIu64 ", %s: the counts are not known",
			    pointer_block(sb->deltas), block_state_text(state));
	if (state != BLOCK_OUTSIDE && refs_add_only(k, pointer_block(sb->deltas), USE_TABLE, "delta log") &&
	    state == BLOCK_GOOD)
		is_whole = load_delta_log(k, page, (sb->n_deltas + DELTAS_PER_BLOCK - 1) / DELTAS_PER_BLOCK);
	k->n_deltas = is_whole ? sb->n_deltas : 0;
	check_delta_order(k);
	if (!is_whole) /* no count can be told from the count pages alone */
		memset(k->region_is_lost, 1, k->n_regions);
}

void check_tables(struct check *k)
{
	const struct superblock *sb = &k->superblock;
	struct table_walk trees = {k, "table of trees", sb->n_tree_slots,
				   "the trees listed there are lost on this disk", each_tree};
	struct table_walk volumes = {k, "table of volumes", sb->n_volume_slots,
				     "the fences of the volumes listed there are lost", each_volume};
	struct table_walk counts = {k, "count index", regions_of(sb->n_blocks),
				    "no space can be taken or freed in the regions listed there", each_count_page};
	uint64_t n_lost;

	table_walk(&trees, sb->trees);
	n_lost = k->n_lost_pages;
	table_walk(&volumes, sb->volumes);
	k->has_lost_volumes |= k->n_lost_pages > n_lost;
	n_lost = k->n_lost_pages;
	table_walk(&counts, sb->counts);
	/* Which counts a lost index page held is not worth telling apart: none is compared then. */
	if (k->n_lost_pages > n_lost)
		memset(k->region_is_lost, 1, k->n_regions);
	k->n_lost_pages = n_lost;
	check_deltas(k);
	check_records(k);
	check_note(k, "%u trees of %u volumes, %u entries in the delta log", k->n_trees, k->n_volumes, sb->n_deltas);
}
