/*
 * move_internal.h: one move, which move.c and move_cut.c share.
 */
#pragma once

#include "replication/copy.h"
#include "volumes/head/head_internal.h"

#define MOVE_STAGES(X)                                                                                                 \
	X(LOAD)                                                                                                        \
	X(NAME)                                                                                                        \
	X(RECORD)                                                                                                      \
	X(CLAIM) X(COPY) X(FLUSH) X(STILL) X(HARDEN) X(SWITCH) X(OUTCOME) X(RELOAD) X(QUIET) X(CUT) X(END)
#define X(name) MOVE_##name,
enum move_stage { MOVE_STAGES(X) };
#undef X

#define MOVE_POLL_NS (10 * NS_PER_MS) /* looks again at what ends by itself within milliseconds */

struct move_hold {
	struct range_lock lock;
	struct move *move;
	unsigned lane;
};

struct move_update {
	struct record_update update;
	struct move *move;
};

struct move {
	enum move_stage stage;
	int err;
	struct volume *volume;
	struct move_order order;
	struct chunk_waiter waiter;
	bool is_pinned, is_live, is_naming, is_switching, is_still, is_doubtful;
	uint64_t history;     /* of the record when the trees were listed */
	uint64_t first_epoch; /* r */
	uint64_t *trees;      /* oldest first; the live one is the last */
	uint32_t n_trees, tree;
	struct join *join;
	struct barrier_rider rider;
	struct move_update *update;
	struct replica_io rio;
	struct copy *copy;
	struct move_hold holds[COPY_LANES];
	struct range_lock still; /* over all of the segments */
	struct timer pace, poll;
	uint64_t seen_requests; /* of clients, when the pace was set last */
	uint64_t copied_bytes;
	int res;            /* once it has failed, and drops what it has made */
	uint64_t cut_disks; /* bit per disk: still to be cut */
	uint64_t cut_block;
	struct op op; /* to look again */
};

static inline uint64_t move_end_segment(const struct move *m)
{
	return m->order.first + m->order.n_segments;
}

void move_ask(struct move *m, uint32_t disk, enum disk_op op);
enum flow move_poll(struct move *m, uint64_t delay_ns); /* FLOW_WAIT: it is called again */
void move_let_go(struct move *m);                       /* of the clients' changes that were held back */

/* move_cut.c */
void move_turn_back(struct move *m);     /* it has failed: to QUIET, and CUT of the target */
void move_look_for_rest(struct move *m); /* of an earlier one: to QUIET, and CUT where the segments do not lie */
/* FLOW_NEXT: nobody reads or writes any more what is to be cut. */
enum flow move_quiet(struct move *m);
/* FLOW_NEXT: all is cut that can be. */
enum flow move_cut(struct move *m);
int move_change_tidied(struct record_update *u, struct volume_facts *facts);
void places_grant(struct volume *v); /* no move is switching any more */
