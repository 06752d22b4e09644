/*
 * compare_internal.h: the copies of a volume are compared with each other (compare.c).
 *
 * Owner: the volume.
 */
#pragma once

#include "replication/copy.h"
#include "volumes/head/copies_internal.h"

struct compare_hold {
	struct range_lock lock;
	struct volume *volume;
	unsigned lane;
};

struct compare_tree {
	uint64_t id, n_blocks;
};

#define COMPARE_STAGES(X) X(REST) X(WALK) X(COPY) X(PAUSE)
#define X(name)           COMPARE_##name,
enum compare_stage { COMPARE_STAGES(X) };
#undef X

struct compare {
	enum compare_stage stage;
	bool is_stopping;
	uint64_t history, n_moves; /* as they were when trees and segments were listed */
	struct compare_tree *trees;
	uint32_t n_trees;
	struct placement_walk walk;
	/* What comes next: a piece of a segment of the walk's chunk, of a tree, and bit per disk that is to be compared. */
	uint32_t segment, tree;
	uint64_t first, targets;
	uint32_t source, target; /* under way: */
	struct copy *copy;
	struct compare_hold holds[COPY_LANES];
	struct timer timer;
	uint64_t seen_requests; /* of clients, when the pace was set last */
	uint64_t unlike_blocks; /* found so far */
	uint64_t n_pieces;      /* compared */
};

void compare_init(struct volume *v);
/* It serves: they are compared after a while, and then every week. Of volumes with several copies. */
void compare_want(struct volume *v);
void compare_now(struct volume *v); /* unless it is under way */
/* It ends: volume_check_drained() when it is over. */
void compare_stop(struct volume *v);
bool compare_is_over(const struct volume *v);
void compare_abandon(struct volume *v);
