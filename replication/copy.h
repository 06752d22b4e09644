/*
 * copy.h: the one copy routine: a tree on one disk takes from a tree on another what either wrote since an epoch.
 *
 * Resync, the reconciliation at attach, the move of a segment, rebuild and drain are this, with other arguments:
 *
 *                              since            before            target_tree                          held
 *   reconciliation at attach   L + 1            COPY_ALL          a fork of the live tree, see below   -
 *   resync, the live tree      the disk's       r                 the live tree                        yes
 *   resync, a snapshot         the disk's, or 0 COPY_ALL          the snapshot                         -
 *     that was forked anew
 *   move, rebuild, drain       0 [MOVEZERO]     r, COPY_ALL       as a resync                          as a resync
 *
 * A comparison is the same walk, and sends nothing: what differs is told.
 *
 * It walks over the union of what either side wrote in epochs >= since, compares checksums and epochs, and sends what
 * differs, with the source's epochs; holes stay holes, and their epochs are kept too. Afterwards the target's tree holds
 * in the range what the source's does [UNION]; what the target has of epochs >= before, it keeps. That is from clients'
 * writes, which since r go to both sides [JOINHOLD], and must be what the source has too.
 *
 * A live tree that is written to meanwhile needs hold() and release(): while a piece of it is compared and copied, no
 * change of it may be on its way to either side. `before` alone is no answer: a trim of what is a hole at the target
 * leaves no epoch there, and a copy on its way would come after it and bring back what was trimmed.
 *
 * [COPYATOM] Where the target is in-sync, hence may be the next source, it must take over all or nothing: fork its live
 * tree into one with a new id, copy into that, DISK_SWAP the two, DISK_DROP the fork. What a crash leaves is a tree that
 * the record does not name, and a live tree that has either everything or nothing of the copy.
 *
 * Memory: COPY_LANES pieces at a time, 256 KiB of data each; no more requests than two for each piece are in flight.
 *
 * Owner: one reactor, that of both replicas; all calls on its thread.
 */
#pragma once

#include "replication/replica.h"

#define COPY_ALL       UINT64_MAX
#define COPY_LANES     8u
#define COPY_PIECE_MAX 64u    /* blocks of data in a piece */
#define COPY_HOLES_MAX 65536u /* of holes: 256 MiB */

enum copy_side { COPY_NEITHER, COPY_SOURCE, COPY_TARGET };

struct copy_progress {
	uint64_t n_blocks,
	    walked_blocks;     /* of the range; before that all is as at the source, but for pieces under way */
	uint64_t copied_bytes; /* of data that were sent to the target */
	uint64_t copied_holes; /* blocks that became holes there */
	enum copy_side failed; /* whose error ended it */
	uint64_t failed_first, failed_blocks;   /* COPY_SOURCE with -EIO: which blocks cannot be read */
	uint64_t skipped_first, skipped_blocks; /* skips_unread: the first of those that were left as they were */
	uint64_t unlike_first, unlike_blocks;   /* only_compares: the first of those that differ, and their number */
};

struct copy;

struct copy_options {
	struct reactor *reactor;
	struct replica *source, *target;
	uint64_t source_tree, target_tree;
	uint64_t first, n_blocks;
	uint64_t since, before;
	/* Nothing is changed: blocks whose content differs, as their checksums tell, are counted. Epochs may differ. */
	bool only_compares;
	bool skips_unread;    /* data that the source cannot read are no error: there the target keeps what it has */
	uint64_t bytes_per_s; /* of data read and sent; 0: unlimited */
	/* NULL, or: clients' changes of [first, first + n_blocks) end before copy_held() is called, which may be at once,
	 * and begin after release(). One piece for each lane, at most. */
	void (*hold)(struct copy *c, unsigned lane, uint64_t first, uint64_t n_blocks, void *context);
	void (*release)(struct copy *c, unsigned lane, void *context);
	/* Once, with nothing in flight any more: 0 or -errno; -ECANCELED: abandoned. The copy is gone after it. */
	void (*done)(int res, const struct copy_progress *p, void *context);
	void *context;
};
/* 0 or -ENOMEM. Nothing is called before the next turn. */
must_check int copy_start(const struct copy_options *o, struct copy **out);
void copy_held(struct copy *c, unsigned lane);
void copy_set_rate(struct copy *c, uint64_t bytes_per_s);
/* Ends it as soon as what is in flight has been answered. */
void copy_abandon(struct copy *c);
void copy_progress(const struct copy *c, struct copy_progress *out);
/* How far it is, and what its lanes wait for. */
void copy_to_text(const struct copy *c, char *text, size_t room);
/* Frees it at once, as a crash of its process does: for the simulator, with no op of it left in its reactor. */
void copy_forget(struct copy *c);
