/*
 * history.c: what the trees of volumes have in common.
 *
 * Invariants
 *  1. An ended line is in the record while a snapshot comes from it or two lines do; with one line below it and no
 *     snapshot, that line takes its parent's place: what they have in common with others stays the same.
 *  2. The lineage of a point never ends early without saying so; what is unknown counts as changed.
 */
#include "volumes/head/history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct tree_facts *line_find(const struct volume_facts *v, uint64_t id)
{
	for (uint32_t i = 0; i < v->n_trees; i++)
		if (v->trees[i].id == id)
			return &v->trees[i];
	return NULL;
}

/* ---- lineages ---- */

static void lineage_add(struct lineage *l, struct ancestor point)
{
	if (l->n > 0) /* what came later on this line is not part of it */
		point.epoch = min_u64(point.epoch, l->points[l->n - 1].epoch);
	if (l->n < LINEAGE_MAX)
		l->points[l->n++] = point;
	else
		l->is_cut = true;
}

void lineage_of(const struct volume_facts *v, uint64_t line, uint64_t epoch, struct lineage *out)
{
	*out = (struct lineage){0};
	for (uint32_t steps = 0; line != 0 && steps <= v->n_trees; steps++) {
		const struct tree_facts *t = line_find(v, line);
		lineage_add(out, (struct ancestor){.volume = v->uuid, .tree = line, .epoch = epoch});
		line = t ? t->parent : 0;
		epoch = t ? t->epoch : 0;
	}
	for (uint32_t i = 0; i < v->n_ancestors; i++)
		lineage_add(out, v->ancestors[i]);
}

struct common lineage_common(const struct lineage *a, const struct lineage *b)
{
	for (uint32_t i = 0; i < a->n; i++)
		for (uint32_t j = 0; j < b->n; j++) {
			const struct ancestor *p = &a->points[i], *q = &b->points[j];
			if (p->tree != q->tree || !uuid_equal(&p->volume, &q->volume))
				continue;
			return (struct common){.epoch = min_u64(p->epoch, q->epoch),
					       .is_ancestor_of_a = j == 0 && q->epoch <= p->epoch,
					       .is_ancestor_of_b = i == 0 && p->epoch <= q->epoch};
		}
	return (struct common){0};
}

/* ---- lines ---- */

int history_roll_back(struct volume_facts *v, uint64_t tree, const struct snapshot_facts *to)
{
	struct tree_facts *live = line_find(v, v->live_tree);
	if (v->n_trees >= LINES_MAX)
		return -EMFILE;
	if (live)
		live->state = TREE_IS_DELETED;
	struct tree_facts *trees = realloc(v->trees, (v->n_trees + 1) * sizeof(*trees));
	if (!trees)
		return -ENOMEM;
	v->trees = trees;
	v->trees[v->n_trees++] =
	    (struct tree_facts){.id = tree, .parent = to->branch, .epoch = to->epoch, .state = TREE_IS_LIVE};
	v->live_tree = tree;
	v->size_bytes = to->size_bytes;
	return 0;
}

static uint32_t line_children(const struct volume_facts *v, uint64_t id, struct tree_facts **child)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < v->n_trees; i++)
		if (v->trees[i].parent == id) {
			*child = &v->trees[i];
			n++;
		}
	return n;
}

void history_prune(struct volume_facts *v, const bool *used)
{
	bool is_used[LINES_MAX];
	quarry_assert(v->n_trees <= LINES_MAX);
	memcpy(is_used, used, v->n_trees * sizeof(is_used[0]));
	for (uint32_t i = v->n_trees; i-- > 0;) { /* the youngest first: a line's children come behind it */
		struct tree_facts *t = &v->trees[i], *child = NULL;
		if (t->state == TREE_IS_LIVE || is_used[i])
			continue;
		uint32_t n = line_children(v, t->id, &child);
		/* the first line of a clone says with parent 0 that the ancestors follow: its child may not skip it */
		if (n > 1 || (n == 1 && t->parent == 0 && v->n_ancestors > 0))
			continue;
		if (n == 1) {
			child->parent = t->parent;
			child->epoch = t->epoch;
		}
		memmove(t, t + 1, (v->n_trees - i - 1) * sizeof(*t));
		memmove(&is_used[i], &is_used[i + 1], (v->n_trees - i - 1) * sizeof(is_used[0]));
		v->n_trees--;
	}
}
