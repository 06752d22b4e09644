/*
 * table.c: the trees of records (trees, volumes, count index), held in memory whole.
 *
 * A table is an array of pointers, grouped into pages of 256, with pages of pointers to those above. Slots change in
 * memory; a checkpoint writes the pages that changed (checkpoint.c) from the bottom up.
 *
 * Invariants
 *  1. A dirty page's parents are dirty.
 *  2. height is table_height(n_slots); level height - 1 has exactly one page, the root.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void table_init(struct table *t)
{
	*t = (struct table){0};
}

void table_fini(struct table *t)
{
	free(t->slots);
	for (unsigned i = 0; i < array_size(t->pages); i++) {
		free(t->pages[i]);
		free(t->is_dirty[i]);
	}
	*t = (struct table){0};
}

static int grow_array(void **array, size_t size, size_t n_old, size_t n_new)
{
	void *bigger = realloc(*array, n_new * size);
	if (!bigger)
		return -ENOMEM;
	memset((char *)bigger + n_old * size, 0, (n_new - n_old) * size);
	*array = bigger;
	return 0;
}

int table_grow(struct table *t, uint32_t n_slots)
{
	uint32_t wanted = (n_slots + PAGE_POINTERS - 1) / PAGE_POINTERS * PAGE_POINTERS;
	if (wanted <= t->n_slots)
		return 0;
	if (grow_array((void **)&t->slots, sizeof(struct pointer), t->n_slots, wanted))
		return -ENOMEM;
	uint32_t n = wanted;
	unsigned level = 0;
	do {
		n = (n + PAGE_POINTERS - 1) / PAGE_POINTERS;
		quarry_assert(level < array_size(t->pages));
		if (grow_array((void **)&t->pages[level], sizeof(struct pointer), t->n_pages[level], n) ||
		    grow_array((void **)&t->is_dirty[level], 1, t->n_pages[level], n))
			return -ENOMEM;
		if (level >= t->height) /* a new level: its first page points to the old root */
			t->is_dirty[level][0] = t->height > 0;
		t->n_pages[level++] = n;
	} while (n > 1);
	t->n_slots = wanted;
	t->height = level;
	quarry_assert(t->height == table_height(wanted));
	return 0;
}

struct pointer table_root(const struct table *t)
{
	return t->height > 0 ? t->pages[t->height - 1][0] : (struct pointer){0};
}

void table_set(struct table *t, uint32_t slot, struct pointer p)
{
	quarry_assert(slot < t->n_slots);
	t->slots[slot] = p;
	for (unsigned level = 0; level < t->height; level++) {
		slot /= PAGE_POINTERS;
		t->is_dirty[level][slot] = 1;
	}
}
