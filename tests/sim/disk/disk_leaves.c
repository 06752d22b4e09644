/*
 * disk_leaves.c: a model of sharing that knows nothing of pages and counts: two trees may share a leaf when one was
 * forked from the other, or both from a third, and neither has written to it since.
 *
 * It errs on one side only: what it calls unshared is the tree's own. A trim is not taken for a change, since it
 * changes nothing where only holes are; neither is a write that was not answered yet.
 *
 * Invariants
 *  1. Two trees that share a leaf have the same version of it here.
 *  2. Versions are never used twice, but for the version of a family: that which all its trees fall back to.
 */
#include "tests/sim/disk/disk_leaves.h"

#include "volumes/disk/disk_format.h"

#include <stdlib.h>

struct leaves_tree {
	bool is_there, is_dropped;
	uint64_t family;
	uint64_t versions[LEAVES_MAX];
};

struct leaves {
	uint64_t numbers[LEAVES_MAX]; /* of each, in a tree: its first block / PAGE_POINTERS */
	uint32_t n;
	struct leaves_tree *trees;
	uint32_t n_trees;
	uint64_t next_version;
};

static void leaf_add(struct leaves *l, uint64_t number)
{
	for (uint32_t i = 0; i < l->n; i++) {
		if (l->numbers[i] == number)
			return;
	}
	quarry_assert(l->n < LEAVES_MAX);
	l->numbers[l->n++] = number;
}

struct leaves *leaves_create(const struct oracle_window *windows, uint32_t n_windows)
{
	struct leaves *l = calloc(1, sizeof(*l));

	quarry_assert(l != NULL && n_windows > 0);
	for (const struct oracle_window *w = windows; w < windows + n_windows; w++) {
		uint64_t last = (w->first + w->n_blocks - 1) / PAGE_POINTERS;
		for (uint64_t number = w->first / PAGE_POINTERS; number <= last; number++)
			leaf_add(l, number);
	}
	l->next_version = 1;
	return l;
}

void leaves_destroy(struct leaves *l)
{
	free(l->trees);
	free(l);
}

uint32_t leaf_of_block(const struct leaves *l, uint64_t block)
{
	for (uint32_t i = 0; i < l->n; i++) {
		if (l->numbers[i] == block / PAGE_POINTERS)
			return i;
	}
	quarry_assert(!"a block inside a window");
	return 0;
}

static struct leaves_tree *tree_at(struct leaves *l, uint32_t tree)
{
	if (tree >= l->n_trees) {
		uint32_t n = tree * 2 + 64;
		l->trees = reallocarray(l->trees, n, sizeof(*l->trees));
		quarry_assert(l->trees != NULL);
		for (; l->n_trees < n; l->n_trees++)
			l->trees[l->n_trees] = (struct leaves_tree){.is_there = false};
	}
	return &l->trees[tree];
}

static void tree_fall_back(const struct leaves *l, struct leaves_tree *t)
{
	for (uint32_t i = 0; i < l->n; i++)
		t->versions[i] = t->family;
}

void leaves_made(struct leaves *l, uint32_t tree)
{
	struct leaves_tree *t = tree_at(l, tree);

	quarry_assert(!t->is_there);
	*t = (struct leaves_tree){.is_there = true, .family = l->next_version++};
	tree_fall_back(l, t);
}

void leaves_forked(struct leaves *l, uint32_t parent, uint32_t child)
{
	struct leaves_tree *c = tree_at(l, child);
	const struct leaves_tree *p = &l->trees[parent];

	quarry_assert(parent < child && p->is_there && !p->is_dropped);
	*c = *p;
}

void leaves_written(struct leaves *l, uint32_t tree, uint64_t first, uint64_t n_blocks)
{
	struct leaves_tree *t = tree_at(l, tree);
	uint64_t last = (first + n_blocks - 1) / PAGE_POINTERS;

	quarry_assert(t->is_there && n_blocks > 0);
	for (uint64_t number = first / PAGE_POINTERS; number <= last; number++)
		t->versions[leaf_of_block(l, number * PAGE_POINTERS)] = l->next_version++;
}

void leaves_dropped(struct leaves *l, uint32_t tree)
{
	tree_at(l, tree)->is_dropped = true;
}

void leaves_drained(struct leaves *l)
{
	for (uint32_t i = 0; i < l->n_trees; i++) {
		if (l->trees[i].is_dropped)
			l->trees[i].is_there = false;
	}
}

void leaves_crashed(struct leaves *l)
{
	for (uint32_t i = 0; i < l->n_trees; i++)
		tree_fall_back(l, &l->trees[i]);
}

void leaves_recovered(struct leaves *l, uint32_t tree, bool is_live)
{
	struct leaves_tree *t = tree_at(l, tree);

	t->is_dropped = !is_live;
	t->is_there = t->is_there || is_live; /* a command that failed may have made it all the same */
}

uint64_t leaves_shared(const struct leaves *l, uint32_t tree)
{
	uint64_t shared = 0;

	quarry_assert(tree < l->n_trees && l->trees[tree].is_there);
	for (uint32_t i = 0; i < l->n_trees; i++) {
		const struct leaves_tree *other = &l->trees[i];
		if (i == tree || !other->is_there)
			continue;
		for (uint32_t leaf = 0; leaf < l->n; leaf++) {
			if (other->versions[leaf] == l->trees[tree].versions[leaf])
				shared |= 1ull << leaf;
		}
	}
	return shared;
}
