/*
 * resync_internal.h: one resync, which resync.c and resync_copy.c share.
 */
#pragma once

#include "replication/copy.h"
#include "volumes/head/head_internal.h"

#define RESYNC_STAGES(X)                                                                                               \
	X(NAME) X(FENCE) X(LIST) X(MAKE) X(DROP) X(CLAIM) X(COPY) X(FLUSH) X(SETTLE) X(SWITCH) X(OUTCOME) X(END)
#define X(name) RESYNC_##name,
enum resync_stage { RESYNC_STAGES(X) };
#undef X

struct resync_hold {
	struct range_lock lock;
	struct resync *resync;
	unsigned lane;
};

struct resync_tree {
	uint64_t id, since;
	uint64_t base; /* tree to fork it from, where it is missing; 0: it is made empty */
};

struct resync_update {
	struct record_update update;
	struct resync *resync;
};

struct resync {
	enum resync_stage stage;
	int err;
	struct volume *volume;
	uint32_t disk;
	uint64_t since, had_before; /* as the record says of the disk */
	uint64_t history;           /* of the record when the trees were looked at */
	uint64_t first_epoch;       /* r: the first that goes to the disk */
	uint64_t settle_epoch;      /* that has to be complete */
	struct replica_io rio;
	struct resync_update *update;
	struct tree_batch *batch;
	struct barrier_rider rider;
	struct replica_trees had;  /* that the disk has had */
	struct resync_tree *trees; /* oldest first; the live one is the last */
	uint32_t n_trees, tree;
	struct placement_walk walk;
	uint32_t segment;
	uint32_t source;     /* of the copy that is under way, */
	uint64_t copy_first; /* which begins at this block */
	/* A segment of the chunk, and those of its disks that have a block there which cannot be read. */
	uint32_t bad_segment;
	uint64_t bad;
	uint64_t lost_first, lost_blocks; /* what cannot be read anywhere */
	struct copy *copy;
	struct resync_hold holds[COPY_LANES];
	struct timer pace;
	uint64_t seen_requests; /* of clients, when the pace was set last */
	uint64_t copied_bytes;
	uint64_t started_ns;
	struct op op; /* to look again */
};

static inline struct volume_disk *resync_disk(const struct resync *r)
{
	return &r->volume->disks[r->disk];
}

void resync_complete(struct resync *r, int res); /* what it waited for has come */
bool resync_is_there(struct resync *r);          /* is the disk? Else r->err */

/* resync_copy.c */
enum flow resync_copy_on(struct resync *r); /* FLOW_NEXT: all trees are copied, or an error */
void resync_pace(struct timer *t);
