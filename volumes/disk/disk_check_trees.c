/*
 * disk_check_trees.c: every page and data block of every tree.
 *
 *   walk[height] --> walk[height - 1] --> ... --> walk[1]: a leaf, whose data blocks are read in the order of the disk
 *
 * A page that several trees (or several pages) share is verified at each pointer, but walked below only once: its
 * children are counted once, as the reference counts do.
 *
 * Invariants
 *  1. walk[level] is in use exactly for the levels above where the walk is; a level never enters itself.
 *  2. A page is entered only at the first pointer to it: the walk ends, however the pages are linked.
 *  3. In a dying tree nothing left of the drop cursor is looked at: it is freed.
 *
 * The second walk (is_naming) looks for who uses the blocks whose counts were found wrong; it reads pages only, and
 * reports no damage again.
 */
#include "volumes/disk/disk_check_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PROGRESS_BLOCKS (GIB / BLOCK_BYTES) /* data verified between two lines of progress */

struct tree_walk {
	struct check *k;
	const struct check_tree *tree;
	char name[TREE_NAME_BYTES];
};

/* ---- suspects ---- */

static bool is_suspect(const struct check *k, uint64_t block)
{
	uint32_t from = 0, to = k->n_suspects;

	while (from < to) {
		uint32_t middle = (from + to) / 2;
		if (k->suspects[middle] == block)
			return true;
		if (k->suspects[middle] < block)
			from = middle + 1;
		else
			to = middle;
	}
	return false;
}

static void name_use(struct tree_walk *t, struct pointer p, unsigned level, uint64_t first)
{
	struct check *k = t->k;

	if (!is_suspect(k, pointer_block(p)) || k->n_uses_named++ >= USES_NAMED_MAX)
		return;
	if (level == 0)
		check_more(k, "disk block %" PRIu64 " is block %" PRIu64 " of %s", pointer_block(p), first, t->name);
	else
		check_more(k, "disk block %" PRIu64 " is the page of blocks %" PRIu64 " to %" PRIu64 " of %s",
			   pointer_block(p), first, first + tree_span(level) - 1, t->name);
}

/* ---- data ---- */

struct data_pointer {
	struct pointer pointer;
	uint64_t first; /* block of the volume */
};

static int compare_places(const void *a, const void *b)
{
	uint64_t x = pointer_block(((const struct data_pointer *)a)->pointer);
	uint64_t y = pointer_block(((const struct data_pointer *)b)->pointer);

	return x < y ? -1 : x > y;
}

static void verify_data(struct tree_walk *t, const struct data_pointer *d)
{
	struct check *k = t->k;
	enum block_state state = check_load(k, d->pointer, KIND_DATA, k->block);

	if (k->err != 0)
		return;
	if (state != BLOCK_GOOD)
		check_error(k,
			    "%s block %" PRIu64 " (byte %" PRIu64 "): the data in disk block %" PRIu64
			    " %s: reads of it fail, unless another replica heals it",
			    t->name, d->first, d->first * BLOCK_BYTES, pointer_block(d->pointer),
			    block_state_text(state));
	if (++k->n_data_checked % PROGRESS_BLOCKS == 0)
		check_note(k, "%" PRIu64 " GiB of data verified", (uint64_t)(k->n_data_checked / PROGRESS_BLOCKS));
}

/* What every pointer must be, whatever it points to. false: told as an error, and not to be followed. */
static bool pointer_is_good(struct tree_walk *t, const struct walk_level *l, unsigned level, struct pointer p,
			    uint64_t first)
{
	struct check *k = t->k;

	if (pointer_epoch(p) > pointer_epoch(l->pointer))
		check_error(k,
			    "%s block %" PRIu64 ": epoch %" PRIu64 " is above the %" PRIu64
			    " of the page in disk block %" PRIu64 ": a resync would miss the change",
			    t->name, first, pointer_epoch(p), pointer_epoch(l->pointer), pointer_block(l->pointer));
	if (pointer_is_hole(p)) {
		if (pointer_crc(p) != 0)
			check_error(k, "%s block %" PRIu64 ": a hole has a checksum", t->name, first);
		return false;
	}
	if (check_in_data_area(k, pointer_block(p)))
		return true;
	check_error(k, "%s block %" PRIu64 ": its %s would be in disk block %" PRIu64 ", which %s", t->name, first,
		    level == 0 ? "data" : "page", pointer_block(p), block_state_text(BLOCK_OUTSIDE));
	if (level > 0)
		k->n_lost_pages++;
	return false;
}

/* Collects the data pointers of a leaf that count; returns how many. */
static unsigned leaf_collect(struct tree_walk *t, struct walk_level *l, struct data_pointer out[static PAGE_POINTERS])
{
	struct check *k = t->k;
	unsigned n = 0;

	for (unsigned i = 0; i < PAGE_POINTERS; i++) {
		struct pointer p = l->page.p[i];
		uint64_t first = l->first + i;
		enum block_use before;

		if (t->tree->record.state == TREE_DYING && first < t->tree->record.drop_cursor)
			continue;
		if (!pointer_is_good(t, l, 0, p, first)) {
			l->is_whole &= pointer_is_hole(p);
			continue;
		}
		before = refs_add(k, pointer_block(p), USE_DATA);
		if (before != USE_NONE && before != USE_DATA)
			check_error(k, "%s block %" PRIu64 ": its data in disk block %" PRIu64 " is also used as %s",
				    t->name, first, pointer_block(p), use_name(before));
		k->c->data_blocks += before == USE_NONE;
		l->n_data_blocks++;
		out[n++] = (struct data_pointer){p, first};
	}
	return n;
}

static void leaf_check(struct tree_walk *t, struct walk_level *l)
{
	struct check *k = t->k;
	struct data_pointer data[PAGE_POINTERS];
	unsigned n;

	if (k->is_naming) {
		for (unsigned i = 0; i < PAGE_POINTERS; i++)
			if (!pointer_is_hole(l->page.p[i]))
				name_use(t, l->page.p[i], 0, l->first + i);
		return;
	}
	n = leaf_collect(t, l, data);
	if (k->c->skip_data)
		return;
	qsort(data, n, sizeof(data[0]), compare_places);
	for (unsigned i = 0; i < n && k->err == 0; i++)
		verify_data(t, &data[i]);
}

/* ---- pages ---- */

/* The page cannot be followed: what it pointed to is lost on this disk. */
static void page_lost(struct tree_walk *t, struct pointer p, unsigned level, uint64_t first, const char *why)
{
	check_error(t->k,
		    "%s: the page of blocks %" PRIu64 " to %" PRIu64 " (%" PRIu64 " MiB), disk block %" PRIu64
		    ", %s: these blocks are lost on this disk and must come from another replica",
		    t->name, first, first + tree_span(level) - 1, (uint64_t)(tree_span(level) * BLOCK_BYTES / MIB),
		    pointer_block(p), why);
	t->k->n_lost_pages++;
}

/* Adds one pointer to a page. The page as seen, or NULL: told as an error. *is_first: it was not seen before. */
static struct page_seen *page_see(struct tree_walk *t, struct pointer p, unsigned level, uint64_t first, bool *is_first)
{
	struct check *k = t->k;
	enum block_use use = (enum block_use)(USE_PAGE + level), before;
	enum block_state state = check_load(k, p, KIND_PAGE, &k->walk[level].page);
	struct page_seen *seen;
	char why[80];

	if (k->err != 0)
		return NULL;
	before = refs_add(k, pointer_block(p), use);
	if (state != BLOCK_GOOD) {
		page_lost(t, p, level, first, block_state_text(state));
		return NULL;
	}
	if (before > USE_PAGE && before < USE_TABLE && before != use) {
		snprintf(why, sizeof(why), "is also used as %s", use_name(before));
		page_lost(t, p, level, first, why);
		return NULL;
	}
	if (before != USE_NONE && before != use) /* its checksum says that it is a page: go on */
		check_error(k,
			    "%s: the page of blocks %" PRIu64 " to %" PRIu64 ", disk block %" PRIu64
			    ", is also used as %s: one of the two will overwrite the other",
			    t->name, first, first + tree_span(level) - 1, pointer_block(p), use_name(before));
	seen = pages_seen_find(k, pointer_block(p));
	*is_first = seen == NULL;
	if (!seen && k->err == 0)
		seen = pages_seen_add(k, pointer_block(p));
	if (seen && pointer_epoch(p) > t->tree->record.fork_epoch)
		seen->is_private = true;
	return seen;
}

/* Follows a pointer to a page down to walk[level]; false: there is nothing (more) to walk below it. above NULL: a root.
 */
static bool page_enter(struct tree_walk *t, struct pointer p, unsigned level, uint64_t first, struct walk_level *above)
{
	struct check *k = t->k;
	struct walk_level *l = &k->walk[level];
	struct page_seen *seen;
	bool is_first = false;

	quarry_assert(level >= 1 && level <= TREE_HEIGHT_MAX && above != l);
	if (k->is_naming) {
		name_use(t, p, level, first);
		seen = pages_seen_find(k, pointer_block(p));
		is_first = seen && !seen->is_named && check_load(k, p, KIND_PAGE, &l->page) == BLOCK_GOOD;
		if (seen)
			seen->is_named = true;
	} else {
		seen = page_see(t, p, level, first, &is_first);
		if (above && !is_first) {
			above->n_data_blocks += seen ? seen->n_data_blocks : 0;
			above->is_whole &= seen && seen->is_whole;
		}
		k->c->pages += is_first;
	}
	if (!is_first)
		return false;
	l->pointer = p;
	l->first = first;
	l->next = 0;
	l->n_data_blocks = 0;
	l->is_whole = true;
	return true;
}

/* Looks at the next pointer of a page above the leaves. Returns true when the walk goes down. */
static bool page_visit(struct tree_walk *t, unsigned level)
{
	struct walk_level *l = &t->k->walk[level];
	const struct tree_record *record = &t->tree->record;
	struct pointer p = l->page.p[l->next];
	uint64_t first = l->first + l->next * tree_span(level - 1);

	quarry_assert(level > 1 && l->next < PAGE_POINTERS);
	l->next++;
	if (record->state == TREE_DYING && first + tree_span(level - 1) <= record->drop_cursor)
		return false;
	if (t->k->is_naming)
		return !pointer_is_hole(p) && check_in_data_area(t->k, pointer_block(p)) &&
		       page_enter(t, p, level - 1, first, l);
	if (!pointer_is_good(t, l, level - 1, p, first)) {
		l->is_whole &= pointer_is_hole(p);
		return false;
	}
	return page_enter(t, p, level - 1, first, l);
}

/* Everything below a page has been seen: what was found goes to the page above. */
static void page_leave(struct check *k, unsigned level, unsigned height)
{
	struct walk_level *l = &k->walk[level];
	struct page_seen *seen = pages_seen_find(k, pointer_block(l->pointer));

	quarry_assert(seen != NULL);
	if (k->is_naming)
		return;
	seen->n_data_blocks = l->n_data_blocks;
	seen->is_whole = l->is_whole;
	if (level < height) {
		k->walk[level + 1].n_data_blocks += l->n_data_blocks;
		k->walk[level + 1].is_whole &= l->is_whole;
	}
}

/* ---- trees ---- */

static void walk_tree(struct tree_walk *t)
{
	struct check *k = t->k;
	unsigned height = t->tree->record.height, level = height;

	if (!page_enter(t, t->tree->record.root, height, 0, NULL))
		return;
	while (level <= height && k->err == 0) {
		struct walk_level *l = &k->walk[level];

		if (level == 1) {
			leaf_check(t, l);
			l->next = PAGE_POINTERS;
		}
		if (l->next == PAGE_POINTERS)
			page_leave(k, level++, height);
		else if (page_visit(t, level))
			level--;
	}
}

/* The record's number of data blocks against what was found. */
static void check_number(struct tree_walk *t)
{
	const struct tree_record *r = &t->tree->record;
	const struct page_seen *seen = pointer_is_hole(r->root) ? NULL : pages_seen_find(t->k, pointer_block(r->root));
	uint64_t found = seen ? seen->n_data_blocks : 0;

	if (r->state == TREE_DYING || (seen && !seen->is_whole) || (!seen && !pointer_is_hole(r->root)))
		return; /* being freed, or not all of it was seen */
	if (found != r->n_data_blocks)
		check_error(t->k,
			    "%s has %" PRIu64 " data blocks, its record says %" PRIu64
			    ": its allocated size is shown wrong; no data is lost",
			    t->name, found, r->n_data_blocks);
}

static void check_tree(struct check *k, const struct check_tree *tree)
{
	const struct tree_record *r = &tree->record;
	struct tree_walk t = {.k = k, .tree = tree};

	tree_name(tree, t.name);
	if (pointer_is_hole(r->root)) {
		check_number(&t);
		return;
	}
	if (!check_in_data_area(k, pointer_block(r->root))) {
		page_lost(&t, r->root, r->height, 0, block_state_text(BLOCK_OUTSIDE));
		return;
	}
	walk_tree(&t);
	if (k->err == 0)
		check_number(&t);
	check_note(k, "%s: height %u, %" PRIu64 " data blocks%s", t.name, r->height, r->n_data_blocks,
		   r->state == TREE_DYING ? ", being freed" : "");
}

/* Pages that a tree would change in place, because they are younger than its last fork, yet others point to them too.
 */
static void check_privacy(struct check *k)
{
	for (uint64_t i = 0; i < k->pages.n_slots; i++) {
		const struct page_seen *s = &k->pages.slots[i];

		if (s->block == 0 || !s->is_private || refs_count(k, s->block) < 2)
			continue;
		check_error(k,
			    "the page in disk block %" PRIu64
			    " is shared by %u pointers, but its epoch is younger than the last "
			    "fork of a tree that uses it: a write to one would change the others",
			    s->block, refs_count(k, s->block));
		if (k->n_suspects < SUSPECTS_MAX)
			k->suspects[k->n_suspects++] = s->block;
	}
}

/* Live trees first: a dying one has lost its left part, so a page it shares must be walked for another. */
void check_trees(struct check *k)
{
	for (uint32_t i = 0; i < k->n_trees && k->err == 0; i++)
		if (k->trees[i].record.state == TREE_LIVE)
			check_tree(k, &k->trees[i]);
	for (uint32_t i = 0; i < k->n_trees && k->err == 0; i++)
		if (k->trees[i].record.state == TREE_DYING)
			check_tree(k, &k->trees[i]);
	check_privacy(k);
}

static int compare_blocks(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void check_name_suspects(struct check *k)
{
	if (k->n_suspects == 0 || k->err != 0)
		return;
	qsort(k->suspects, k->n_suspects, sizeof(k->suspects[0]), compare_blocks);
	check_more(k, "used by:");
	k->is_naming = true;
	for (uint32_t i = 0; i < k->n_trees && k->err == 0; i++) {
		struct tree_walk t = {.k = k, .tree = &k->trees[i]};

		tree_name(t.tree, t.name);
		if (!pointer_is_hole(t.tree->record.root) && check_in_data_area(k, pointer_block(t.tree->record.root)))
			walk_tree(&t);
	}
	k->is_naming = false;
}
