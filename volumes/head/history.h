/*
 * history.h: what the trees of volumes have in common. Plain functions of facts.
 *
 *   line 1  ----e5-----e9----              snapshot a = (1, 5), b = (1, 9)
 *             \ rollback to a
 *   line 2     e10----e12----              its parent: (1, 5); snapshot c = (2, 12)
 *
 * A point is a line as it was at the end of an epoch. Its lineage is the row of points that it comes from: of c (2, 12),
 * (1, 5). Epochs of a clone begin above those of the volume it comes from, so along a lineage they never grow. Two
 * points have in common the first line that both lineages name, up to the lesser epoch m of the two; whatever either
 * side changed since then has an epoch above m.
 */
#pragma once

#include "volumes/head/facts.h"

#define LINEAGE_MAX 256u

/* A row of points, the nearest first. */
struct lineage {
	struct ancestor points[LINEAGE_MAX];
	uint32_t n;
	bool is_cut; /* it is longer */
};
void lineage_of(const struct volume_facts *v, uint64_t line, uint64_t epoch, struct lineage *out);

struct common {
	uint64_t epoch; /* what is the same in both has an epoch of at most this; 0: nothing is known to be the same */
	bool is_ancestor_of_a; /* b itself: nothing of it is younger */
	bool is_ancestor_of_b; /* a itself */
};
struct common lineage_common(const struct lineage *a, const struct lineage *b);

/* The live line ends, and a new one begins at a snapshot of this volume. 0 or -ENOMEM, -EMFILE. */
must_check int history_roll_back(struct volume_facts *v, uint64_t tree, const struct snapshot_facts *to);
/* Leaves out the ended lines that nothing needs; used[i]: a snapshot was taken from v->trees[i]. */
void history_prune(struct volume_facts *v, const bool *used);
