/*
 * attach_internal.h: an attach or detach under way, which volume_attach.c and attach_older.c share.
 */
#pragma once

#include "volumes/head/head_internal.h"

#define ATTACH_STAGES(X)                                                                                               \
	X(RECORD) X(LAYOUT) X(JOIN) X(MARK) X(RECONCILE) X(BARRIER) X(ADMIT) X(DRAIN) X(FLUSH) X(FORGET) X(END)
#define X(name) ATTACH_##name,
enum attach_stage { ATTACH_STAGES(X) };
#undef X

/* The highest that any running disk remembers of a volume. */
struct attach_memory {
	const struct uuid *volume;
	uint64_t generation, epoch, tree;
	uint64_t n_blocks; /* of the disk being asked */
	uint64_t unnamed;  /* bit per disk: it holds data, and the record does not name it */
};

struct attach {
	enum attach_stage stage;
	int err;
	uint32_t owed; /* joins under way */
	bool is_recorded;
	bool is_explained;     /* entry->why says why it is refused */
	bool is_behind;        /* the record is older than what the disks remember; it is taken over */
	char heir[NAME_BYTES]; /* of a detach: the node that it is attached on next; "": none */
	bool has_older;        /* an older copy of a disk stays: see attach_older.c */
	struct set_volume *entry;
	struct attach_options options;
	struct record_update update;
	struct placement_walk walk;
	struct reconcile *reconcile; /* under way */
	struct join *joins[SET_DISKS_MAX];
	uint64_t remembered; /* highest complete epoch of any disk */
	struct {
		uint64_t generation, epoch_base;
	} last;                                   /* as the record said of the attach before this */
	uint64_t generations_were[SET_DISKS_MAX]; /* joined disks: of the last head that each has known, */
	uint64_t complete[SET_DISKS_MAX];         /* and the last complete epoch that each remembers */
	uint64_t lacking;                         /* bit per disk: it has not even the live tree */
	uint32_t n_tries;                         /* to agree, disks having failed meanwhile */
	struct attach_memory memory;
	void (*done)(struct set_volume *entry, int res, void *context);
	void *context;
};

static inline struct attach *attach_of(struct record_update *u)
{
	return container_of(u, struct attach, update);
}
/* What it waited for has ended. */
void attach_complete(struct attach *a, int res);
/* Counted in `owed` until it ends. may_make_live: the disk gets the live tree if it lacks it. */
void attach_join_disk(struct attach *a, uint32_t disk, bool may_make_live);

/* ---- attach_older.c ---- */

/* Those that lack the live tree. FLOW_WAIT: some are joined once more. */
must_check enum flow attach_judge_lacking(struct attach *a);
/* When all are joined, before those that are LOST are marked: what they remember tells, and the record. */
void attach_judge_older(struct attach *a);
/* Before it serves. FLOW_WAIT: attach_complete() follows. */
must_check enum flow attach_admit(struct attach *a);
