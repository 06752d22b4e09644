/*
 * tree.c: pages as trees: finding blocks, changing pointers, sharing by forks.
 *
 *      record.root --> page of height h --> ... --> leaf (height 1) --> data blocks
 *                           \--> hole: nothing below; with an epoch: a tombstone for all of it
 *
 * Nothing is changed in place on the disk. A change needs every page on its path private and dirty: a page that only
 * this tree points to becomes dirty where it is, and its block is given back; a shared one is copied, and its children
 * have one pointer more. A dirty page may be shared too, right after a fork: then its frame counts its pointers.
 *
 * Invariants
 *  1. The pages on the path from the root to a dirty page are dirty.
 *  2. All that a tree wrote after its last fork carries an epoch above fork_epoch: such a block or page is private
 *     without looking at its count. All from before has an epoch of at most fork_epoch.
 *  3. tree_prepare() and the change it allows happen in one turn; between them nothing can take pages or counts away.
 *  4. In a dying tree everything left of drop_cursor is freed: nobody looks there again.
 *  5. A dirty page has no pointer yet to say the highest epoch below it: its frame says so (newest), perhaps one that is
 *     too high until it is sealed.
 *
 * No recursion; a path is at most TREE_HEIGHT_MAX pages.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>
#include <string.h>

/* Which pointer of a page of this level leads to the block. */
static inline uint32_t index_in(uint64_t block, unsigned level)
{
	return (uint32_t)(block >> (PAGE_SHIFT * (level - 1))) & (PAGE_POINTERS - 1);
}

static unsigned height_for(uint64_t block)
{
	unsigned h = 1;
	while (block >= tree_span(h))
		h++;
	quarry_assert(h <= TREE_HEIGHT_MAX);
	return h;
}

static bool is_private_by_epoch(const struct disk_tree *t, struct pointer p)
{
	return pointer_epoch(p) > t->record.fork_epoch;
}

/* No epoch below is higher. */
static uint64_t newest_below(struct disk_tree *t, struct pointer p)
{
	return pointer_is_virtual(p) ? pages_find(&t->disk->pages, p)->newest : pointer_epoch(p);
}

/* ---- looking ---- */

/* Walks to the leaf that maps `block`. *leaf NULL: a hole at *level, whose pointer is *hole. */
static int walk(struct disk_tree *t, uint64_t block, struct frame **leaf, struct pointer *hole, unsigned *level,
		struct waiter *w)
{
	struct pages *pages = &t->disk->pages;
	struct pointer p = t->record.root;
	unsigned at = t->record.height;
	*leaf = NULL;
	while (at >= 1 && !pointer_is_hole(p)) {
		struct frame *f = pages_find(pages, p);
		if (!f) {
			counter_add(&t->disk->counters.cache_misses, 1);
			pages_load(pages, p, at, w);
			return -EAGAIN;
		}
		if (at == 1) {
			counter_add(&t->disk->counters.cache_hits, 1);
			*leaf = f;
			return 0;
		}
		p = f->page->p[index_in(block, at)];
		at--;
	}
	*hole = p;
	*level = at;
	return 0;
}

static bool is_beyond(const struct disk_tree *t, uint64_t block)
{
	return t->record.height == 0 || block >= tree_span(t->record.height);
}

int tree_get(struct disk_tree *t, uint64_t first, uint32_t n, struct pointer *out, struct waiter *w)
{
	while (n > 0) {
		uint32_t here = (uint32_t)min_u64(n, leaf_start(first) + PAGE_POINTERS - first);
		struct frame *leaf = NULL;
		struct pointer hole = {0};
		unsigned level;
		int res = is_beyond(t, first) ? 0 : walk(t, first, &leaf, &hole, &level, w);
		if (res < 0)
			return res;
		for (uint32_t i = 0; i < here; i++)
			out[i] = leaf ? leaf->page->p[index_in(first + i, 1)] : hole;
		out += here;
		first += here;
		n -= here;
	}
	return 0;
}

/* The run of pointers alike in kind and age that begins at `first`, inside its leaf. */
static void look_in_leaf(const struct page *leaf, uint64_t first, uint64_t end, uint64_t since, struct disk_extent *out)
{
	uint32_t i = index_in(first, 1);
	bool is_data = !pointer_is_hole(leaf->p[i]), is_old = pointer_epoch(leaf->p[i]) < since;
	*out = (struct disk_extent){.first = first, .is_data = is_data};
	for (; i < PAGE_POINTERS && first + out->n_blocks < end; i++, out->n_blocks++) {
		if (!pointer_is_hole(leaf->p[i]) != is_data || (pointer_epoch(leaf->p[i]) < since) != is_old)
			break;
		out->epoch = max_u64(out->epoch, pointer_epoch(leaf->p[i]));
	}
	quarry_assert(out->n_blocks > 0);
}

/* Where the row of this page's children that did not change since ends; the one that maps `first` is the first of it. */
static uint64_t old_row_end(struct disk_tree *t, const struct frame *f, uint64_t first, uint64_t since)
{
	uint64_t span = tree_span(f->level);
	uint32_t i = index_in(first, f->level) + 1;
	while (i < PAGE_POINTERS && newest_below(t, f->page->p[i]) < since)
		i++;
	return first / span * span + i * (span / PAGE_POINTERS);
}

int tree_look(struct disk_tree *t, uint64_t first, uint64_t end, uint64_t since, struct disk_extent *out,
	      struct waiter *w)
{
	struct pages *pages = &t->disk->pages;
	struct pointer p = t->record.root;
	struct frame *above = NULL;
	unsigned level = t->record.height;
	quarry_assert(first < end);
	if (is_beyond(t, first)) {
		*out = (struct disk_extent){.first = first, .n_blocks = end - first};
		return 0;
	}
	while (level >= 1) {
		bool is_old = newest_below(t, p) < since;
		if (pointer_is_hole(p) || is_old) {
			uint64_t next = is_old && above ? old_row_end(t, above, first, since)
							: (first / tree_span(level) + 1) * tree_span(level);
			*out = (struct disk_extent){.first = first,
						    .n_blocks = min_u64(next, end) - first,
						    .is_data = !pointer_is_hole(p),
						    .epoch = newest_below(t, p)};
			return 0;
		}
		struct frame *f = pages_find(pages, p);
		if (!f) {
			pages_load(pages, p, level, w);
			return -EAGAIN;
		}
		if (level == 1) {
			look_in_leaf(f->page, first, end, since, out);
			return 0;
		}
		p = f->page->p[index_in(first, level)];
		above = f;
		level--;
	}
	quarry_assert(!"the walk ends at a leaf or a hole");
	return -EIO;
}

int tree_stamp(struct disk_tree *t, uint64_t first, uint64_t end, struct disk_stamp *out, struct waiter *w)
{
	struct frame *leaf = NULL;
	struct pointer p = {0};
	uint64_t n_blocks = end - first;
	unsigned level;
	quarry_assert(first < end);
	int res = is_beyond(t, first) ? 0 : walk(t, first, &leaf, &p, &level, w);
	if (res < 0)
		return res;
	if (leaf) {
		uint32_t i = index_in(first, 1), n = 1;
		p = leaf->page->p[i];
		while (pointer_is_hole(p) && i + n < PAGE_POINTERS && pointer_is_hole(leaf->page->p[i + n]) &&
		       pointer_epoch(leaf->page->p[i + n]) == pointer_epoch(p))
			n++;
		n_blocks = min_u64(n_blocks, n);
	} else if (!is_beyond(t, first)) {
		n_blocks = min_u64(n_blocks, (first / tree_span(level) + 1) * tree_span(level) - first);
	}
	*out = (struct disk_stamp){.first = first,
				   .n_blocks = n_blocks,
				   .epoch = pointer_epoch(p),
				   .crc = pointer_crc(p),
				   .is_data = !pointer_is_hole(p)};
	return 0;
}

int tree_path(struct disk_tree *t, uint64_t block, struct pointer path[TREE_HEIGHT_MAX + 1], struct waiter *w)
{
	struct pointer p = is_beyond(t, block) ? (struct pointer){0} : t->record.root;
	for (unsigned level = t->record.height; level >= 1; level--) {
		path[level] = p;
		if (pointer_is_hole(p))
			continue;
		struct frame *f = pages_find(&t->disk->pages, p);
		if (!f) {
			pages_load(&t->disk->pages, p, level, w);
			return -EAGAIN;
		}
		p = f->page->p[index_in(block, level)];
	}
	return 0;
}

/* ---- what is shared ---- */

/* Do other pointers name this page too? above: something above it is shared, so it is; its count is made ready all the
 * same, since a second path of the same record finds what is above it copied, and has to ask. Prepared: needs no
 * wait. */
static int page_is_shared(struct disk_tree *t, struct pointer p, bool above, struct waiter *w)
{
	if (pointer_is_virtual(p))
		return above || pages_find(&t->disk->pages, p)->refs > 1;
	if (above && !w)
		return 1;
	if (!above && is_private_by_epoch(t, p))
		return 0;
	int count = space_count(&t->disk->space, pointer_block(p), w);
	return count < 0 ? count : above || count > 1;
}

/* Every child's count can take one more, and every old child's one less. */
static int children_can_change(struct disk_tree *t, const struct page *page, struct waiter *w)
{
	for (unsigned i = 0; i < PAGE_POINTERS; i++) {
		struct pointer p = page->p[i];
		if (pointer_is_hole(p) || pointer_is_virtual(p) || is_private_by_epoch(t, p))
			continue;
		int res = space_can_change(&t->disk->space, pointer_block(p), w);
		if (res < 0)
			return res;
	}
	return 0;
}

int tree_path_is_private(struct disk_tree *t, uint64_t block, unsigned lowest, struct waiter *w)
{
	struct pointer path[TREE_HEIGHT_MAX + 1];
	int res = tree_path(t, block, path, w);
	for (unsigned level = t->record.height; res == 0 && level >= lowest; level--) {
		if (pointer_is_hole(path[level]))
			return 1;
		res = page_is_shared(t, path[level], false, w);
	}
	return res < 0 ? res : res == 0;
}

int tree_prepare(struct disk_tree *t, uint64_t block, struct waiter *w)
{
	struct pages *pages = &t->disk->pages;
	struct pointer p = t->record.root;
	bool above = false;
	if (!pages_have(pages, CHANGE_PAGES_MAX, w))
		return -EAGAIN;
	if (is_beyond(t, block))
		return 0;
	for (unsigned level = t->record.height; level >= 1 && !pointer_is_hole(p); level--) {
		struct frame *f = pages_find(pages, p);
		if (!f) {
			pages_load(pages, p, level, w);
			return -EAGAIN;
		}
		int shared = page_is_shared(t, p, above, w);
		if (shared < 0)
			return shared;
		int res = 0;
		if (shared && !pointer_is_virtual(p))
			res = space_can_change(&t->disk->space, pointer_block(p), w);
		if (res == 0 && (shared || (level == 1 && t->record.fork_epoch > 0)))
			res = children_can_change(t, f->page, w);
		if (res < 0)
			return res;
		above = shared;
		p = f->page->p[index_in(block, level)];
	}
	return 0;
}

/* ---- changing ---- */

static void pointer_add(struct disk_tree *t, struct pointer p)
{
	if (pointer_is_hole(p))
		return;
	if (pointer_is_virtual(p))
		pages_find(&t->disk->pages, p)->refs++;
	else
		space_add(&t->disk->space, pointer_block(p));
}

/* A private copy of a shared page, dirty; its children have one more pointer, the page one less. */
static struct frame *page_copy_shared(struct disk_tree *t, struct frame *f, struct pointer p, unsigned level)
{
	struct frame *copy = pages_new_dirty(&t->disk->pages, level, newest_below(t, p));
	memcpy(copy->page, f->page, BLOCK_BYTES);
	for (unsigned i = 0; i < PAGE_POINTERS; i++)
		pointer_add(t, copy->page->p[i]);
	if (pointer_is_virtual(p)) {
		quarry_assert(f->refs > 1);
		f->refs--;
	} else {
		space_drop(&t->disk->space, pointer_block(p), false);
	}
	return copy;
}

/* Makes the page at *at dirty and private. *shared: something above was shared; set when this page was. */
static struct frame *page_for_change(struct disk_tree *t, struct pointer *at, unsigned level, bool *shared)
{
	struct pages *pages = &t->disk->pages;
	struct pointer p = *at;
	uint64_t newest = newest_below(t, p);
	struct frame *f, *dirty;
	if (pointer_is_hole(p)) {
		dirty = pages_new_dirty(pages, level, newest);
		for (unsigned i = 0; i < PAGE_POINTERS; i++)
			dirty->page->p[i] = pointer_make(0, 0, pointer_epoch(p));
		*at = frame_pointer(pages, dirty);
		return dirty;
	}
	f = pages_find(pages, p);
	quarry_assert(f);
	int is_shared = page_is_shared(t, p, *shared, NULL);
	quarry_assert(is_shared >= 0);
	if (is_shared) {
		*shared = true;
		dirty = page_copy_shared(t, f, p, level);
	} else if (f->state == FRAME_DIRTY) {
		return f;
	} else {
		space_drop(&t->disk->space, pointer_block(p), true);
		if (f->state == FRAME_CLEAN) {
			pages_dirty_in_place(pages, f, newest);
			dirty = f;
		} else {
			dirty = pages_new_dirty(pages, level, newest);
			memcpy(dirty->page, f->page, BLOCK_BYTES);
			pages_forget(pages, f);
		}
	}
	*at = frame_pointer(pages, dirty);
	return dirty;
}

/* Raises the tree until it covers the block. A tombstone is of no more blocks afterwards than it was. */
static void tree_grow(struct disk_tree *t, uint64_t block)
{
	unsigned wanted = height_for(block);
	while (t->record.height < wanted) {
		if (pointer_is_hole(t->record.root) && pointer_epoch(t->record.root) == 0) {
			t->record.height = wanted;
			break;
		}
		uint64_t newest = newest_below(t, t->record.root);
		struct frame *f = pages_new_dirty(&t->disk->pages, t->record.height + 1, newest);
		memset(f->page, 0, BLOCK_BYTES);
		f->page->p[0] = t->record.root;
		t->record.root = frame_pointer(&t->disk->pages, f);
		t->record.height++;
	}
}

/* A path of private dirty pages from the root down to `to_level`, which may take epochs up to the tree's last;
 * path[level] is its page. */
static void path_for_change(struct disk_tree *t, uint64_t block, unsigned to_level, bool *shared,
			    struct frame *path[TREE_HEIGHT_MAX + 1])
{
	tree_grow(t, block);
	disk_tree_mark_dirty(t);
	struct pointer *at = &t->record.root;
	for (unsigned level = t->record.height; level >= to_level; level--) {
		path[level] = page_for_change(t, at, level, shared);
		path[level]->newest = max_u64(path[level]->newest, t->last_epoch);
		at = &path[level]->page->p[index_in(block, level)];
	}
}

/* The leaf's pointer changes: what it named loses one, what it names was taken for it. */
static void leaf_set(struct disk_tree *t, struct frame *leaf, uint32_t i, struct pointer p)
{
	struct pointer old = leaf->page->p[i];
	if (!pointer_is_hole(old)) {
		space_drop(&t->disk->space, pointer_block(old), is_private_by_epoch(t, old));
		quarry_assert(t->record.n_data_blocks > 0);
		t->record.n_data_blocks--;
	}
	t->record.n_data_blocks += !pointer_is_hole(p);
	quarry_assert(pointer_epoch(p) <= leaf->newest);
	leaf->page->p[i] = p;
}

void tree_set(struct disk_tree *t, uint64_t first, const struct pointer *p, uint32_t n)
{
	struct frame *path[TREE_HEIGHT_MAX + 1];
	quarry_assert(n > 0 && t->record.state == TREE_LIVE);
	for (uint32_t i = 0; i < n; i++)
		t->last_epoch = max_u64(t->last_epoch, pointer_epoch(p[i]));
	for (uint32_t i = 0; i < n;) {
		bool shared = false;
		path_for_change(t, first + i, 1, &shared, path);
		do
			leaf_set(t, path[1], index_in(first + i, 1), p[i]);
		while (++i < n && (first + i) % PAGE_POINTERS != 0);
	}
}

/* ---- giving back ---- */

/* A private page itself; its children have been seen to. */
static void page_release(struct disk_tree *t, struct pointer p)
{
	struct pages *pages = &t->disk->pages;
	if (!pointer_is_virtual(p))
		space_drop(&t->disk->space, pointer_block(p), true);
	struct frame *f = pages_find(pages, p);
	if (f)
		pages_forget(pages, f);
}

/* One pointer less to a page that others name too. */
static void page_unshare(struct disk_tree *t, struct pointer p)
{
	if (pointer_is_virtual(p)) {
		struct frame *f = pages_find(&t->disk->pages, p);
		quarry_assert(f->refs > 1);
		f->refs--;
	} else {
		space_drop(&t->disk->space, pointer_block(p), false);
	}
}

static void leaf_release(struct disk_tree *t, struct pointer p, struct frame *leaf, bool is_shared)
{
	for (unsigned i = 0; i < PAGE_POINTERS; i++) {
		struct pointer data = leaf->page->p[i];
		if (pointer_is_hole(data))
			continue;
		quarry_assert(t->record.n_data_blocks > 0);
		t->record.n_data_blocks--;
		if (!is_shared)
			space_drop(&t->disk->space, pointer_block(data), is_private_by_epoch(t, data));
	}
	if (is_shared)
		page_unshare(t, p);
	else
		page_release(t, p);
}

/* Nothing but holes of one epoch? */
static bool page_is_one_hole(const struct page *page)
{
	for (unsigned i = 0; i < PAGE_POINTERS; i++)
		if (!pointer_is_hole(page->p[i]) || pointer_epoch(page->p[i]) != pointer_epoch(page->p[0]))
			return false;
	return true;
}

/* The whole leaf goes, if there is one; pages above that have nothing but holes of one epoch left become tombstones
 * themselves. Of one epoch: a block must not seem to be changed later than it was, or a copy of what it was changed to
 * would be refused as too old (DISK_COPY, `before`). */
static void trim_leaf(struct disk_tree *t, uint64_t block, uint64_t epoch)
{
	struct frame *path[TREE_HEIGHT_MAX + 1];
	bool shared = false;
	path_for_change(t, block, 2, &shared, path);
	struct pointer *at = t->record.height == 1 ? &t->record.root : &path[2]->page->p[index_in(block, 2)];
	if (!pointer_is_hole(*at)) {
		struct frame *leaf = pages_find(&t->disk->pages, *at);
		int is_shared = page_is_shared(t, *at, shared, NULL);
		quarry_assert(leaf && is_shared >= 0);
		leaf_release(t, *at, leaf, is_shared);
	}
	*at = pointer_make(0, 0, epoch);
	for (unsigned level = 2; level <= t->record.height && page_is_one_hole(path[level]->page); level++) {
		uint64_t epoch_of_all = pointer_epoch(path[level]->page->p[0]);
		pages_forget(&t->disk->pages, path[level]);
		at =
		    level == t->record.height ? &t->record.root : &path[level + 1]->page->p[index_in(block, level + 1)];
		*at = pointer_make(0, 0, epoch_of_all);
	}
}

void tree_trim_in_leaf(struct disk_tree *t, uint64_t first, uint64_t n_blocks, uint64_t epoch)
{
	struct frame *leaf = NULL, *path[TREE_HEIGHT_MAX + 1];
	struct pointer hole;
	unsigned level;
	quarry_assert(n_blocks > 0 && first + n_blocks <= leaf_start(first) + PAGE_POINTERS);
	t->last_epoch = max_u64(t->last_epoch, epoch);
	if (is_beyond(t, first))
		return;
	int res = walk(t, first, &leaf, &hole, &level, NULL);
	quarry_assert(res == 0);
	if (!leaf)
		return;
	if (n_blocks == PAGE_POINTERS) {
		trim_leaf(t, first, epoch);
		return;
	}
	bool shared = false;
	path_for_change(t, first, 1, &shared, path);
	for (uint32_t i = index_in(first, 1); i < index_in(first, 1) + n_blocks; i++)
		if (!pointer_is_hole(path[1]->page->p[i]))
			leaf_set(t, path[1], i, pointer_make(0, 0, epoch));
}

void tree_hole_in_leaf(struct disk_tree *t, uint64_t first, uint64_t n_blocks, uint64_t epoch)
{
	quarry_assert(n_blocks > 0 && first + n_blocks <= leaf_start(first) + PAGE_POINTERS);
	t->last_epoch = max_u64(t->last_epoch, epoch);
	if (n_blocks == PAGE_POINTERS) {
		trim_leaf(t, first, epoch);
		return;
	}
	struct frame *path[TREE_HEIGHT_MAX + 1];
	bool shared = false;
	path_for_change(t, first, 1, &shared, path);
	for (uint32_t i = index_in(first, 1); i < index_in(first, 1) + n_blocks; i++)
		leaf_set(t, path[1], i, pointer_make(0, 0, epoch));
}

/* ---- measuring ---- */

/* Data blocks that only this leaf, which only this tree names, points to. */
static int leaf_measure(struct disk_tree *t, const struct page *leaf, uint64_t *n_blocks, struct waiter *w)
{
	*n_blocks = 0;
	for (unsigned i = 0; i < PAGE_POINTERS; i++) {
		struct pointer p = leaf->p[i];
		if (pointer_is_hole(p))
			continue;
		int count = is_private_by_epoch(t, p) ? 1 : space_count(&t->disk->space, pointer_block(p), w);
		if (count < 0)
			return count;
		*n_blocks += count == 1;
	}
	return 0;
}

int tree_measure_step(struct disk_tree *t, struct tree_measure *m, struct waiter *w)
{
	struct pointer p = t->record.root;
	unsigned level = t->record.height;
	bool has_block[TREE_HEIGHT_MAX + 1]; /* a page gets one at the next checkpoint */
	if (is_beyond(t, m->cursor) || pointer_is_hole(p))
		return 1;
	for (; !pointer_is_hole(p); level--) {
		int shared = page_is_shared(t, p, false, w);
		if (shared < 0)
			return shared;
		if (shared) /* all below belongs to others, too */
			break;
		has_block[level] = !pointer_is_virtual(p);
		struct frame *f = pages_find(&t->disk->pages, p);
		if (!f) {
			pages_load(&t->disk->pages, p, level, w);
			return -EAGAIN;
		}
		if (level == 1) {
			uint64_t n_blocks;
			int res = leaf_measure(t, f->page, &n_blocks, w);
			if (res < 0)
				return res;
			m->data_blocks += n_blocks;
			m->pages += has_block[level];
			break;
		}
		p = f->page->p[index_in(m->cursor, level)];
	}
	m->cursor = (m->cursor / tree_span(level) + 1) * tree_span(level);
	/* the pages above, which are private, count when the last of what lies below them was seen */
	while (++level <= t->record.height && m->cursor % tree_span(level) == 0)
		m->pages += has_block[level];
	return 0;
}

/* ---- forks and drops ---- */

void tree_fork(struct disk_tree *parent, struct disk_tree *child, uint64_t epoch)
{
	quarry_assert(parent->record.state == TREE_LIVE && child->record.state == TREE_LIVE);
	quarry_assert(epoch >= parent->last_epoch);
	child->record.root = parent->record.root;
	child->record.height = parent->record.height;
	child->record.n_data_blocks = parent->record.n_data_blocks;
	pointer_add(parent, parent->record.root);
	parent->record.fork_epoch = child->record.fork_epoch = epoch;
	parent->last_epoch = child->last_epoch = epoch;
	disk_tree_mark_dirty(parent);
	disk_tree_mark_dirty(child);
}

static void swap_pointers(struct pointer *a, struct pointer *b)
{
	struct pointer p = *a;
	*a = *b;
	*b = p;
}

void tree_swap(struct disk_tree *a, struct disk_tree *b)
{
	quarry_assert(a->record.state == TREE_LIVE && b->record.state == TREE_LIVE && a != b);
	quarry_assert(a->n_changes == 0 && b->n_changes == 0);
	unsigned height = a->record.height;
	uint64_t n_data_blocks = a->record.n_data_blocks;
	swap_pointers(&a->record.root, &b->record.root);
	a->record.height = b->record.height;
	b->record.height = height;
	a->record.n_data_blocks = b->record.n_data_blocks;
	b->record.n_data_blocks = n_data_blocks;
	/* what either wrote after its own fork is private; after the later of the two forks, in either tree */
	a->record.fork_epoch = b->record.fork_epoch = max_u64(a->record.fork_epoch, b->record.fork_epoch);
	a->last_epoch = b->last_epoch = max_u64(a->last_epoch, b->last_epoch);
	disk_tree_mark_dirty(a);
	disk_tree_mark_dirty(b);
}

/* The page that *at names is gone. Where the page that holds the pointer is dirty, it must not go on naming a frame;
 * where it is clean, the cursor says that nobody looks there any more. */
static void drop_unlink(struct disk_tree *t, struct pointer *at)
{
	if (pointer_is_virtual(*at) || at == &t->record.root)
		*at = (struct pointer){0};
}

/* Moves the cursor past the part of this level that it is in; the pages whose span ends there are done with. */
static void drop_advance(struct disk_tree *t, struct pointer *slots[TREE_HEIGHT_MAX + 1], unsigned level)
{
	disk_tree_mark_dirty(t);
	t->record.drop_cursor = (t->record.drop_cursor / tree_span(level) + 1) * tree_span(level);
	while (++level <= t->record.height && t->record.drop_cursor % tree_span(level) == 0) {
		page_release(t, *slots[level]);
		drop_unlink(t, slots[level]);
	}
}

/* Frees what one pointer names, unless it is a private page above the leaves: then 1, and the walk goes on below it. */
static int drop_one(struct disk_tree *t, struct pointer *at, unsigned level, struct frame **page, struct waiter *w)
{
	struct pointer p = *at;
	int shared = page_is_shared(t, p, false, w);
	if (shared < 0)
		return shared;
	int res = pointer_is_virtual(p) ? 0 : space_can_change(&t->disk->space, pointer_block(p), w);
	if (res < 0)
		return res;
	if (shared) { /* what lies below belongs to the others */
		page_unshare(t, p);
		drop_unlink(t, at);
		return 0;
	}
	*page = pages_find(&t->disk->pages, p);
	if (!*page) {
		pages_load(&t->disk->pages, p, level, w);
		return -EAGAIN;
	}
	if (level > 1)
		return 1;
	res = children_can_change(t, (*page)->page, w);
	if (res < 0)
		return res;
	leaf_release(t, p, *page, false);
	drop_unlink(t, at);
	return 0;
}

bool tree_drop_give_up(struct disk_tree *t, uint64_t *first, uint64_t *n_blocks)
{
	struct pointer *slots[TREE_HEIGHT_MAX + 1], *at = &t->record.root;
	unsigned level = t->record.height;
	quarry_assert(t->record.state == TREE_DYING && t->drop_level >= 1 && t->drop_level <= level);
	pages_guard(&t->disk->pages);
	for (;; level--) {
		slots[level] = at;
		if (level == t->drop_level)
			break;
		struct frame *page = pages_find(&t->disk->pages, *at);
		if (!page)
			return false;
		at = &page->page->p[index_in(t->record.drop_cursor, level)];
	}
	*n_blocks = tree_span(level);
	*first = t->record.drop_cursor / *n_blocks * *n_blocks;
	if (level == t->record.height)
		drop_unlink(t, at);
	drop_advance(t, slots, level);
	return true;
}

int tree_drop_step(struct disk_tree *t, struct waiter *w)
{
	struct pointer *slots[TREE_HEIGHT_MAX + 1], *at = &t->record.root;
	unsigned level = t->record.height;
	quarry_assert(t->record.state == TREE_DYING);
	pages_guard(&t->disk->pages);
	while (!pointer_is_hole(*at)) {
		struct frame *page = NULL;
		slots[level] = at;
		int res = drop_one(t, at, level, &page, w);
		if (res < 0) {
			t->drop_level = level;
			return res;
		}
		if (res == 0)
			break;
		at = &page->page->p[index_in(t->record.drop_cursor, level)];
		level--;
	}
	if (!pointer_is_hole(t->record.root))
		drop_advance(t, slots, level);
	return pointer_is_hole(t->record.root);
}
