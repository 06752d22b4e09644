/*
 * part_internal.h: the pieces of requests that go to disks (part.c, parts.c), and what a disk cannot read (heal.c).
 *
 * Owner: the request that a part belongs to; the pool's is the set.
 */
#pragma once

#include "replication/replica.h"
#include "volumes/head/slice.h"
#include "volumes/head/volume_set.h"

struct chunk;

#define PART_BLOCKS       DISK_WRITE_BLOCKS_MAX
#define PART_BYTES        ((uint64_t)DISK_IO_BLOCKS_MAX * BLOCK_BYTES)
#define SEGMENT_DISKS_MAX VOLUME_REPLICAS_MAX      /* copies of one segment */
#define PART_COPIES_MAX   (SEGMENT_DISKS_MAX + 1u) /* and the disk that it moves to */

/* ---- part.c ---- */

#define PART_STAGES(X) X(FREE) X(SURVEY) X(FETCH) X(MERGE) X(CARRY) X(HELD) X(MOVE) X(SETTLE) X(HEAL) X(END)
#define X(name)        PART_##name,
enum part_stage { PART_STAGES(X) };
#undef X

#define PART_IOV_MAX     DISK_IO_IOV_MAX
#define PART_EXTENTS_MAX (PART_IOV_MAX * sizeof(struct iovec) / sizeof(struct disk_extent))
_Static_assert(PART_IOV_MAX >= VOLUME_IOV_MAX + 2, "a client's memory, and the first and the last block, merged");
enum part_kind {
	PART_READ,
	PART_WRITE,
	PART_ZEROS /* written as data */,
	PART_TRIM,
	PART_MAP,
	PART_AHEAD /* where the first change lies */,
	PART_FLUSH,
	PART_COMPLETE
};
/* What is asked of one disk. */
struct part_copy {
	struct replica_io rio;
	struct part *part;
	uint32_t disk; /* index */
};
/* Blocks that a disk could not read: see heal.c. */
struct heal {
	enum part_stage resume; /* the part's, that goes on after */
	uint64_t first;         /* block of the read, */
	uint32_t n_iov;         /* and how much of the part's iov is its memory */
	uint64_t bad;           /* bit per block of the read that is still to be had; the lowest is at hand */
	uint64_t origin;        /* bit per disk: it could not read any of these, */
	uint64_t failed;        /* nor these the one at hand, */
	uint64_t rewrite;       /* which is still to be rewritten there */
	bool is_rewriting;
	uint32_t n_healed, n_failed;
	struct iovec iov[BLOCK_BYTES / SECTOR_BYTES]; /* the memory of the block at hand */
};
struct part {
	struct part_copy first; /* the only one, but of changes of volumes with several copies: */
	struct part_copy *more; /* room for PART_COPIES_MAX - 1 */
	struct parts *pool;
	enum part_stage stage;
	enum part_kind kind;
	int err;
	uint32_t owed; /* copies on their way to a disk and back */
	/* Bit per disk: */
	uint64_t disks;     /* where its segment lies; FLUSH, COMPLETE: the one that is told */
	uint64_t later;     /* those that get a change when others have had room for it */
	uint64_t sent;      /* to whom it was sent; of these, */
	uint64_t acked;     /* those that have done it, */
	uint64_t full;      /* and those that have no room */
	uint64_t moving_to; /* the disk that its segment moves to, which is none of the above; */
	bool moved;         /* it has done the change */
	uint64_t failed;    /* of `disks`, those that could not answer what is looked for */
	struct heal heal;
	struct volume *volume;
	struct volume_io *request;
	struct list link;                /* free, in the placer's list of moves, or among those held */
	uint64_t pos_bytes, len_bytes;   /* of the client's range */
	uint64_t block, n_blocks;        /* the first of the blocks it touches, and their number */
	uint32_t head_bytes, tail_bytes; /* of the first and last block, what lies outside the range */
	bool has_head, has_tail;         /* the first, the last block lies partly outside */
	uint32_t n_fetched;              /* of these, read so far */
	bool is_counted;
	bool is_marking;     /* a trim, while the volume is filled: holes that nobody wrote are to remember it */
	bool is_too_full;    /* a disk has no room for that */
	struct chunk *fresh; /* of what shall stay in a fresh segment, on its way, else NULL; not evicted meanwhile */
	bool must_allocate;  /* zeros become blocks, not holes */
	bool is_surveyed;    /* only blocks that nobody wrote are written, or none may be read: */
	uint64_t untouched;  /* bit per block of `whole` that nobody wrote */
	uint64_t survey_end; /* block up to which that is known */
	struct {
		uint64_t pos_bytes, len_bytes;
		struct slice slice;
	} whole;                                 /* of a write that is cut into runs of such blocks */
	uint64_t segment, epoch, written, tried; /* tried: bit per disk that was full */
	struct slice slice;                      /* the client's memory for it */
	uint8_t *edges;                          /* two blocks: the first and the last one, merged */
	union {
		struct {
			struct iovec iov[PART_IOV_MAX];
			uint32_t crcs[PART_BLOCKS];
		};
		struct disk_extent extents[PART_EXTENTS_MAX];
	};
};

must_check int parts_init(struct parts *p, uint32_t n, bool has_edges);
void parts_fini(struct parts *p);
/* A free part of the pool, or NULL: the request then waits in line and is woken when there is one. */
struct part *part_get(struct parts *pool, struct volume_io *io);
void part_put(struct part *p); /* of a part that was not started */
/* Kind, place and request are set by the caller. */
void part_start(struct part *p);
/* The placer has an answer: 0 the segment has another disk now; -ENOSPC there is none. */
void part_moved(struct part *p, int res);
/* It was held, and may go on. */
void part_release(struct part *p);
void part_to_text(const struct part *p, char *text, size_t room);
/* What p->first says is asked of the disk; its answer ends the wait of the part's stage. */
void part_ask(struct part *p, uint32_t disk);
void part_find_again(struct part *p); /* before another one is asked for the same */

bool part_writes(const struct part *p);   /* data, or zeros */
uint64_t part_good(const struct part *p); /* bit per disk: those of its disks that can still be asked */
void part_look(struct part *p);           /* asks one of these; there must be one */
void part_aim(struct part *p);            /* its range is another: what follows from it */

/* ---- part_survey.c ---- */

/* Is it to be known what was written? Then the stage is SURVEY. */
must_check bool part_survey_begin(struct part *p);
must_check enum flow part_survey(struct part *p);
void part_surveyed(struct part *p);                /* a disk has answered */
enum part_stage part_after_survey(struct part *p); /* it is known */
/* The next run of blocks that nobody wrote becomes what the part carries; false: there is none. */
must_check bool part_next_run(struct part *p);

void part_map_extents(struct part *p); /* a MAP has been answered: part_map.c */

/* ---- heal.c ---- */

/* A read of the part's has failed with bad blocks: they are to be had elsewhere. */
void heal_begin(struct part *p);
void heal_answered(struct part *p);
/* The stage HEAL. FLOW_NEXT: all is as if it had been read, or p->err. */
must_check enum flow heal_run(struct part *p);

/* ---- ahead.c: a MAP with since ---- */

/* In the stage ISSUE. FLOW_WAIT: it is called again. */
must_check enum flow ahead_run(struct volume_io *io);
int ahead_told(struct part *p); /* a disk has answered where its first change lies, or cannot; the request's error */

/* ---- a pool of parts ---- */

struct parts {
	struct part *all;
	uint8_t *edges;         /* two blocks per part; NULL: its parts carry no data, and have no */
	struct part_copy *more; /* PART_COPIES_MAX - 1 per part: memory that is touched only when it is used */
	uint32_t n;
	struct list free;
	struct list line; /* requests by own.line that found none */
};
