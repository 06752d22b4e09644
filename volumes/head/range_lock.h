/*
 * range_lock.h: which requests of one volume exclude each other, and whose turn it is.
 *
 * A lock covers a range of blocks. Two overlapping ones exclude each other unless both are shared (reads); the one that
 * came first goes first [READLOCK]. Nobody polls: a lock counts the earlier ones in its way and is granted at zero.
 *
 * Owner: the volume's reactor.
 */
#pragma once

#include "daemon/core/base.h"
#include "daemon/core/list.h"

#define RANGE_BUCKETS    256u /* a power of two */
#define RANGE_AREA_SHIFT 5u   /* an area is 32 blocks, 128 KiB */

struct range_lock;
struct range_place { /* where a lock stands */
	struct list link;
	struct range_lock *lock;
};

struct range_lock {
	uint64_t first, last; /* blocks, both included */
	uint64_t order;       /* of arrival: 1, 2, 3 ... */
	uint32_t n_before;    /* earlier ones that exclude it; 0: granted */
	bool is_shared, is_wide;
	/* Set by the caller, before: who is told instead of all; NULL: the locks' own granted(). */
	void (*granted)(struct range_lock *l);
	struct range_place near; /* in the bucket of its first area, or among the wide ones */
	struct range_place far;  /* in the bucket of its last area, when that is the next one */
};

struct range_locks {
	struct list buckets[RANGE_BUCKETS];
	struct list wide; /* those of more than two areas */
	uint64_t order;
	uint32_t n;
	void (*granted)(struct range_lock *l); /* called for a lock that had to wait; within range_lock_release() */
};

void range_locks_init(struct range_locks *s, void (*granted)(struct range_lock *l));
/* Takes its place in line; true: granted at once, else granted() will be called. */
bool range_lock_take(struct range_locks *s, struct range_lock *l, uint64_t first, uint64_t last, bool is_shared);
void range_lock_release(struct range_locks *s, struct range_lock *l); /* of a lock that was granted */
