/*
 * disk.h: one disk: trees of blocks on a file or block device, written anywhere, journalled, checksummed.
 *
 * What a disk promises
 *  - A completed write survives a kill; after a completed DISK_FLUSH it survives power loss (P1). A write of up to
 *    65 blocks is there whole or not at all after any crash (P5).
 *  - A read returns the bytes that were written or -EIO, never anything else (P3). A block that it fails is mended in its
 *    place by who has its bytes from elsewhere: nothing else is ever overwritten.
 *  - Trim and drop work on a full disk (P7); new trees and volumes, and trims that copy what snapshots share, until
 *    they have used up half of its reserve: then they too answer -ENOSPC, and only drops and trims that free go on.
 *  - Memory stays within disk_options.cache_bytes (P8).
 * What it asks of its caller (the head)
 *  - No two overlapping writes or trims of a tree in flight, and no read of what is being written.
 *  - Epochs of one tree never decrease, and grow between a fork and the next write.
 *
 * Owner: one reactor; all calls on its thread. Requests are embedded in their callers' own and belong to the disk from
 * submission to done().
 */
#pragma once

#include "daemon/core/log.h"
#include "daemon/core/metrics.h"
#include "daemon/core/reactor.h"
#include "volumes/disk/disk_format.h"

struct disk;
struct disk_tree;

/* What is said of a file that cannot be opened with O_DIRECT (-EINVAL). */
#define NO_DIRECT_IO "its file system has no direct I/O (O_DIRECT); ext4, xfs and btrfs have it"

/* ---- making a disk ---- */

struct disk_format_options {
	struct uuid disk, pool, cluster;
	const char *label;   /* shorter than DISK_LABEL_BYTES */
	uint64_t size_bytes; /* 0: what the device or file has */
	bool reserve;        /* write the file through once, keep its space */
	_Atomic uint64_t
	    *written_bytes; /* with reserve: grows meanwhile, for other threads to look at; NULL: nobody does */
	bool force;         /* even if it holds data */
};

/* A killed process's lock on a disk, and its hold on a device that was opened for one alone, go when the requests that
 * were in its ring have landed: a moment after the process, so whoever opens a disk tries again for a while. No longer:
 * one that is mounted, or that a living process has, keeps a whole start waiting. */
#define DISK_LOCK_RETRY_NS    (20 * NS_PER_MS)
#define DISK_LOCK_PATIENCE_NS (5 * NS_PER_S)

/* Formats the device or file at path (created when it does not exist and size_bytes is set). Blocks; before the
 * reactor runs, or on a thread with a reactor of its own. 0 or -errno with the reason in why. */
must_check int disk_format(struct reactor *r, const char *path, const struct disk_format_options *o,
			   char why[static WHY_BYTES]);

/* ---- opening: recovery is the only way to start ---- */

enum disk_state { DISK_RECOVERING, DISK_RUNNING, DISK_FAILED, DISK_CLOSING, DISK_CLOSED };
const char *disk_state_name(enum disk_state s);

struct disk_options {
	struct reactor *reactor;
	struct log *log;
	const char *path;
	const struct uuid *cluster; /* NULL: any */
	uint64_t cache_bytes;       /* pages, counts and their bookkeeping */
	/* The disk has been at this checkpoint, when the clock said so: at an earlier one it is an older copy of itself, put
	 * back. Nothing is written to it, and opened() is given -ESTALE. 0: not known. */
	uint64_t checkpoint_min, seen_wall_ns;
	bool is_read_only;
	bool is_probe;           /* whether it is a disk is the question: that it is none is no event */
	uint64_t scrub_every_ns; /* a scrub begins by itself so long after the last whole one; 0: never */
	/* Called once when recovery has ended: 0 or -errno with the reason (disk_why()). After 0 the disk is at a later
	 * checkpoint than any copy of it that was made before, unless it is read-only. */
	void (*opened)(struct disk *d, int res, void *context);
	/* Called when the disk fails later; nothing will be acknowledged any more. */
	void (*failed)(struct disk *d, void *context);
	/* Writes the name that people know the volume by, for what is said about damage; NULL: its UUID is said. */
	void (*name_volume)(const struct uuid *volume, char *text, size_t room, void *context);
	/* A scrub has found a block of data, of this tree, that cannot be read or does not match its checksum: it may be had
	 * elsewhere (DISK_HEAL). NULL: nobody sees to that. */
	void (*damaged)(const struct uuid *volume, uint64_t tree_id, uint64_t block, void *context);
	void *context;
};
/* Begins to open; the rest happens on the reactor and ends with opened(). 0 or -errno (nothing is called then). */
must_check int disk_open(const struct disk_options *o, struct disk **out, char why[static WHY_BYTES]);
/* Waits for what is in flight, writes a last checkpoint marked clean, then calls closed(); the disk is freed after.
 * New requests get -ESHUTDOWN. A failed disk is closed without writing. */
void disk_close(struct disk *d, void (*closed)(struct disk *d, void *context), void *context);
/* Frees everything at once, as a crash does: for the simulator, with no op left in its reactor. */
void disk_abandon(struct disk *d);

/* ---- requests ---- */

enum disk_op {
	DISK_READ,     /* blocks to iov; holes read as zeros */
	DISK_HEAL,     /* blocks from iov over what is damaged where they lie, if they are what their checksums name */
	DISK_WRITE,    /* blocks from iov */
	DISK_TRIM,     /* any number of blocks become holes; -ENOSPC: but for those in leaves that other trees share */
	DISK_MAP,      /* where data and holes are */
	DISK_MEASURE,  /* what a drop of the tree would free */
	DISK_FLUSH,    /* everything completed before is durable after; no tree */
	DISK_CREATE,   /* a new empty tree; answered when durable, like all that follow */
	DISK_FORK,     /* child = a copy of tree as it is now */
	DISK_DROP,     /* the tree is gone, for reads that wait too; its space is freed in the background */
	DISK_FENCE,    /* raise a volume's generation, begin a session, set its size */
	DISK_COMPLETE, /* remember that an epoch is complete */
	DISK_FORGET,   /* drop the record of a volume that has no trees */
	/* What a copy from another disk needs (replication/copy.h): */
	DISK_STAMPS, /* what blocks hold, by checksum, and since which epoch */
	DISK_COPY, /* as WRITE, with an epoch for each block; -EEXIST, and nothing is made: something there is newer */
	DISK_COPY_HOLES, /* up to DISK_HOLES_BLOCKS_MAX blocks become holes that remember one epoch, except what there is newer */
	DISK_SWAP, /* two trees of a volume exchange what they hold; -EBUSY: a change of either is under way */
	DISK_CUT, /* a range of all trees of the volume becomes holes; they do not come, go or swap meanwhile; as TRIM */
};

struct disk_extent {
	uint64_t first, n_blocks;
	bool is_data;
	uint64_t epoch; /* highest within */
};

/* Blocks side by side: one of data, or holes of one epoch. */
struct disk_stamp {
	uint64_t first, n_blocks; /* n_blocks of data: 1 */
	uint64_t epoch;           /* that it was written or trimmed in; 0: never */
	uint32_t crc;             /* of data: CRC-32C */
	bool is_data;
};

/* Segments of one request's memory: a client's 64, and the first and the last block when these were merged; and after
 * cutting at runs. */
#define DISK_IO_IOV_MAX 66u
#define DISK_IOV_MAX    132u
_Static_assert(DISK_IOV_MAX >= DISK_IO_IOV_MAX + DISK_WRITE_BLOCKS_MAX - 1, "each run but the first may cut a segment");

/* Whoever waits inside the disk (for a page, a count, room): woken once, on the disk's reactor. */
struct waiter {
	void (*wake)(struct waiter *w, int res);
	struct list link;
	int res;
};

struct disk_io {
	/* set by the caller */
	enum disk_op op;
	struct disk_tree *tree;   /* READ HEAL WRITE TRIM MAP FORK DROP STAMPS COPY COPY_HOLES SWAP */
	uint64_t first, n_blocks; /* WRITE COPY: at most DISK_WRITE_BLOCKS_MAX, READ HEAL: DISK_IO_BLOCKS_MAX */
	uint64_t epoch;           /* WRITE TRIM CREATE FORK COMPLETE COPY_HOLES */
	uint64_t session;         /* of all that changes a tree, and CUT: the volume's newest, else -ESTALE [SESSION] */
	bool is_ordered;          /* WRITE that merged part of a block [RMWDEP] */
	bool is_shared;           /* READ: others may write to the memory: what does not match is -EBADMSG, no damage */
	const struct iovec *iov;  /* READ HEAL WRITE COPY: exactly n_blocks * 4096 bytes, 512-byte aligned */
	uint32_t n_iov;           /* at most DISK_IO_IOV_MAX */
	const uint32_t *crcs;     /* WRITE COPY: CRC-32C of each block */
	const uint64_t *epochs;   /* COPY: of each block */
	uint64_t before;      /* COPY COPY_HOLES: what is there of an epoch >= before stays; UINT64_MAX: nothing does */
	uint64_t zero_blocks; /* WRITE COPY: bit i = block i is all zeros and becomes a hole; a 65th never does */
	struct disk_stamp *stamps; /* STAMPS: room for stamps_max */
	uint32_t stamps_max;
	struct disk_extent *extents; /* MAP: room for extents_max */
	uint32_t extents_max;
	uint32_t steps_max; /* MEASURE: it may end early, after so many pages; 0: it does not */
	uint64_t since;     /* MAP: tell only what changed in epochs >= since (0: everything) */
	struct uuid volume; /* CREATE FENCE COMPLETE FORGET MEASURE CUT; FORK: the child's volume */
	uint64_t tree_id; /* CREATE FORK: of the new tree; SWAP: of the other; MEASURE: which may be dropped by then */
	uint64_t parent_id;               /* CREATE */
	uint64_t generation, size_blocks; /* FENCE */
	void (*done)(struct disk_io *io, int res);

	/* set by the disk before done() */
	/* MAP: filled; they cover [first, first + n_blocks) or end early, with a piece of the last one, when room ran out */
	uint32_t n_extents;
	uint32_t n_stamps;          /* STAMPS: filled, in order and without gaps; they end early when room ran out */
	struct disk_tree *new_tree; /* CREATE, FORK */
	uint64_t data_blocks;       /* MEASURE: that the tree points to */
	/* MEASURE: from `first` on, that it alone points to; a page counts where what lies below it ends. -ENOENT: it was
	 * dropped */
	uint64_t own_data_blocks, own_pages;
	uint64_t next;           /* MEASURE: where it ended early, behind `first`; 0: it did not */
	uint64_t new_session;    /* FENCE: never repeats */
	uint64_t complete_epoch; /* FENCE: the last complete one this disk remembers */
	uint64_t generation_was; /* FENCE: the highest that it knew before; 0: none */
	bool is_suspect;         /* FENCE: it lost power, and has been told of no complete epoch since [INTACT] */
	uint64_t bad_blocks;     /* READ, HEAL with -EIO: bit i = block i failed, or is not what the checksum names */

	/* the disk's own */
	struct {
		unsigned stage;
		int err;
		uint32_t owed; /* operations the device may still touch our memory with */
		struct disk *disk;
		struct list link; /* in the list of what it waits for, or of its journal block's requests */
		struct waiter waiter;
		struct op op;      /* to be called again on the next turn */
		uint64_t sequence; /* of the journal block that holds its last record; 0: none */
		uint64_t started_ns;
		uint64_t cursor;  /* TRIM, MAP: next block to look at */
		uint32_t n_cut;   /* of cut */
		uint32_t n_steps; /* MEASURE */
		unsigned read_side;
		bool is_submitting; /* inside disk_submit(): done() must wait for the next turn */
		bool is_flushed;    /* the flush it waited for has ended */
		bool is_counted;    /* in its tree's n_changes */
		bool is_growing;    /* TRIM: the leaf at the cursor is shared, and its copy would stay */
		bool has_skipped;   /* TRIM: such leaves, for want of room */
		uint32_t slot;      /* of the tree or volume that a command makes */
		struct pointer pointers[DISK_WRITE_BLOCKS_MAX];
		struct iovec cut[DISK_IOV_MAX];
	} own;
};

/* done() comes on a later turn with 0 or -errno: -EIO damage or a failed disk, -EBADMSG, -ENOSPC, -ESTALE, -ESHUTDOWN,
 * -EROFS, and what the list of operations says. */
void disk_submit(struct disk *d, struct disk_io *io);
/* Of one that was submitted: its stage, and what it waits for there. */
void disk_io_to_text(const struct disk_io *io, char *text, size_t room);

/* ---- looking ---- */

/* The live tree with this id, or NULL. Handles stay valid until the tree is dropped or the disk closed. */
struct disk_tree *disk_tree_find(struct disk *d, const struct uuid *volume, uint64_t tree_id);
uint64_t disk_tree_blocks(const struct disk_tree *t); /* data blocks it points to */
/* Calls each() for every tree, dying ones too. */
void disk_trees_each(struct disk *d, void (*each)(const struct tree_record *t, void *context), void *context);
/* The disk's record of a volume; false: it has none. */
bool disk_volume(const struct disk *d, const struct uuid *volume, struct volume_record *out);
/* Is this the volume's newest session there, of this generation? */
bool disk_session_is(const struct disk *d, const struct uuid *volume, uint64_t generation, uint64_t session);
/* Grows whenever a session of any volume begins or ends there: unchanged, all are as they were. Above 0 once one has begun. */
uint64_t disk_sessions(const struct disk *d);

enum disk_state disk_state(const struct disk *d);
const char *disk_why(const struct disk *d); /* of a failed disk or open: what happened and what to do */
const struct superblock *disk_superblock(const struct disk *d); /* identity and geometry as of the last checkpoint */
struct reactor *disk_reactor(const struct disk *d);

struct disk_stats {
	uint64_t n_blocks, free_blocks, waiting_blocks /* freed, until the next checkpoint */, reserve_blocks,
	    dying_trees;
	uint64_t cache_pages, cache_pages_max, dirty_pages, dirty_pages_max, regions_resident, deltas;
	uint64_t journal_blocks, journal_used, checkpoint, checkpoints, checkpoint_last_ns;
	uint64_t recovery_ns, replayed_records, dropped_records, punched_blocks;
	uint64_t dying_blocks, dying_blocks_per_s; /* of data, that trees being freed still point to, and let go of */
	uint64_t lost_parts;                       /* of dropped trees, that damage keeps from being freed */
};
void disk_stats(const struct disk *d, struct disk_stats *out);

struct disk_counters {
	counter reads, writes, trims, flushes, read_bytes, write_bytes, journal_writes, data_writes, page_reads,
	    page_writes, cache_hits, cache_misses, checksum_errors, io_errors;
	struct histogram read_ns, write_ns, flush_ns, checkpoint_ns;
};
const struct disk_counters *disk_counters(const struct disk *d);

/* ---- tending ---- */

/* Reads and verifies everything once at the given rate (bytes a second; 0: unlimited), straightening unshared leaves
 * whose blocks lie in many runs when `straighten`. One that began by itself goes on at this rate. -EBUSY: another is
 * under way. */
must_check int disk_scrub_start(struct disk *d, uint64_t bytes_per_s, bool straighten);
void disk_scrub_stop(struct disk *d);
struct disk_scrub {
	bool is_running;
	uint64_t done_blocks, total_blocks, bad_blocks, straightened_leaves;
	uint64_t healed_blocks; /* of bad_blocks */
	/* Checksum errors, and reads that failed, since the disk was opened, until all that it had found was whole again. */
	uint64_t settled_checksum_errors, settled_io_errors;
	uint64_t started_wall_ns, ended_wall_ns;
};
void disk_scrub_status(const struct disk *d, struct disk_scrub *out);
/* So many of those that the scrub begun at started_wall_ns has told of are whole again. */
void disk_scrub_healed(struct disk *d, uint64_t started_wall_ns, uint64_t n_blocks);
/* Asks for a checkpoint now (tests, drain); done() of a DISK_FLUSH does not need it. */
void disk_checkpoint(struct disk *d);

/* ---- the offline check: `quarry disk check` ---- */

struct disk_check {
	/* Reads one block; 0 or -errno. */
	int (*read)(void *context, uint64_t block, void *out);
	void (*say)(void *context, const char *line); /* a finding, or progress when is_verbose */
	void *context;
	uint64_t n_blocks; /* of the device, as it is */
	bool is_verbose, skip_data /* verify structure only */;
	/* results */
	uint64_t errors, warnings, pages, data_blocks, trees, journal_blocks_to_replay;
	bool is_clean; /* was closed cleanly */
};
/* Verifies the newest checkpoint: every pointer, checksum and count, and the journal after it. Changes nothing.
 * 0: sound (perhaps with a journal to replay); -EUCLEAN: errors were found; -ENODEV: not a quarry disk;
 * -ENOTSUP: a newer one; -ENOMEM, or what read() returned. */
must_check int disk_check_run(struct disk_check *c);
