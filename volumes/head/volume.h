/*
 * volume.h: a volume as its clients see it: bytes in, bytes out, over the trees of the pool's disks.
 *
 * The head of a volume orders its requests, merges what is smaller than a block, places each segment on a disk at its
 * first write, splits large requests, and completes each request once.
 *
 * What a client may rely on
 *  1. A read sees every write completed before it was submitted. Overlapping requests in flight are carried out one
 *     after the other, in the order of submission; but a change that waits for more current copies (min_replicas) is passed.
 *  2. A write of up to 256 KiB, wherever it begins, inside one segment (1 GiB) is atomic across crashes (P5); a larger
 *     one is a row of these, cut at multiples of 256 KiB.
 *  3. VOLUME_FLUSH makes durable all that completed before it was submitted, whoever submitted it; VOLUME_FUA makes
 *     its own request durable before it completes.
 *  4. A full pool fails writes with -ENOSPC; trims and zeroes go on working.
 *
 * Owner: one reactor; all calls on its thread. A volume_io is embedded in the frontend's request and belongs to the
 * head from submission to done().
 */
#pragma once

#include "daemon/core/log.h"
#include "daemon/core/metrics.h"
#include "daemon/core/reactor.h"
#include "volumes/head/range_lock.h"

#include <string.h>
#include <sys/uio.h>

struct part;
struct volume;
struct volume_set;

#define SEGMENT_BYTES       GIB
#define SEGMENT_BLOCKS      (SEGMENT_BYTES / BLOCK_BYTES)
#define PLACEMENT_CHUNK     256u /* segments of one placement key in the metadata */
#define VOLUME_NAME_MAX     63u  /* [A-Za-z0-9][A-Za-z0-9._-]* */
#define VOLUME_BYTES_MAX    (4096 * TIB)
#define VOLUME_IO_BYTES_MAX (32 * MIB) /* of a read or write; trims, zeroes and maps: any length */
#define VOLUME_IOV_MAX      64u

/* TRIM is a hint: on a full disk, what snapshots share stays as it is and reads as before. ZERO then fails with -ENOSPC. */
enum volume_op { VOLUME_READ, VOLUME_WRITE, VOLUME_FLUSH, VOLUME_TRIM, VOLUME_ZERO, VOLUME_MAP };

enum {
	VOLUME_FUA = 1,       /* durable before it completes */
	VOLUME_NO_HOLE = 2,   /* ZERO: keep the range allocated: zeros are written as data */
	VOLUME_FAST_ZERO = 4, /* ZERO: only if it is quicker than writing, else -ENOTSUP */
	VOLUME_SHARED = 8,    /* READ: others may write to the memory meanwhile, or it may vanish: what does not match
			       * there proves nothing, is not called damage and answered with -EBADMSG */
	VOLUME_FILL = 16,     /* of who brings the first content of a volume that is served already, see fill.c: a
			       * WRITE leaves what was written as it is; ZERO: the rest of the range is hole (multiples
			       * of FILL_UNIT_BYTES); TRIM: these blocks cannot be had, but the rest of their unit was
			       * brought; READ of VOLUME_FILL_WANTED_BYTES: what clients wait for, as pairs of first
			       * byte and length, little-endian, ended by a length of 0; FLUSH also records how far it
			       * has come */
};
#define FILL_UNIT_BYTES          MIB
#define VOLUME_FILL_WANTED_BYTES 4096u
/* The export "NAME@.fill": no snapshot can have that name. Its client's requests have the flag VOLUME_FILL. */
#define VOLUME_FILL_ENDING "@.fill"
static inline bool volume_name_is_fill(const char *name)
{
	size_t len = strlen(name), ending = strlen(VOLUME_FILL_ENDING);
	return len > ending && strcmp(name + len - ending, VOLUME_FILL_ENDING) == 0;
}

struct volume_extent {
	uint64_t len_bytes;
	bool is_data;    /* false: a hole, reads as zeros; not known of what has not changed */
	bool is_changed; /* MAP with since, CHANGES: since then */
};

struct volume_io {
	/* set by the caller */
	enum volume_op op;
	unsigned flags;
	uint64_t pos_bytes, len_bytes; /* multiples of 512, inside the volume */
	const struct iovec *iov; /* READ, WRITE: len_bytes in all; memory 512-byte aligned, untouched until done() */
	uint32_t n_iov;          /* at most VOLUME_IOV_MAX */
	struct volume_extent *extents; /* MAP */
	uint32_t extents_max;
	uint64_t
	    since; /* MAP: epochs from here on count as changed, and only what has changed is looked at; 0: plain */
	void (*done)(struct volume_io *io, int res);

	/* set by the head */
	uint32_t n_extents; /* MAP: they cover the range from its start, or end early when room ran out; at least one */

	/* the head's own */
	struct {
		unsigned stage, wait; /* what it waits for */
		int err;
		uint32_t owed; /* parts on their way to a disk and back */
		struct volume *volume;
		struct list link; /* among the volume's requests, in order of arrival */
		struct list line; /* in line for a part, a chunk of placements, a placement, or what else `wait` says */
		struct part *part; /* handed over to it while it waited in line */
		struct range_lock lock;
		struct op op;         /* to go on, or to reply, on a later turn */
		uint64_t cursor, end; /* bytes: what is not yet cut into parts */
		uint64_t disks;       /* bit per disk: to be flushed, or told of the epoch */
		uint64_t thin_disks;  /* of a change, where it may be on too few current copies; ALL_DISKS: nowhere */
		uint64_t short_ns;    /* when it began to wait for more copies; 0: it did not */
		uint64_t epoch;       /* of a barrier's COMPLETE; 0: none */
		uint64_t started_ns;
		uint32_t iov_index; /* the cursor in iov */
		uint64_t iov_skip;
		bool is_locked, is_submitting, is_internal;
		bool has_missed;         /* a disk has missed something of it, which is to be recorded first (P2) */
		bool is_short;           /* too few copies are current for what comes next of it */
		bool is_answered;        /* in FILL or RECORD: nothing is left to do */
		bool is_strict;          /* where it needs what is yet to be brought and nobody wrote: -EIO */
		uint64_t unit, unit_end; /* FILL: what it waits for, and the end of what it needs */
		uint64_t fill_bytes;     /* RECORD: filled so far */
		struct {
			unsigned stage;
			uint64_t disks;   /* bit per disk that is still to be asked */
			uint64_t n_moves; /* of the volume, when these were found */
			uint64_t end;     /* the first change of all disks; then: the end of the row of segments */
		} ahead;                  /* MAP with since: what goes on in ISSUE */
		struct {
			uint64_t disk;   /* bit of the only one that is read, unless it cannot; 0: any is */
			uint64_t tree;   /* with a disk: the live one, or a snapshot's */
			uint32_t n_left; /* blocks that could not be rewritten on a disk */
		} heal;                  /* READ: see damage_heal.c */
	} own;
};

/* done() comes on a later turn: 0; -EINVAL a range or alignment that breaks the rules above; -EROFS; -ENOSPC; -EIO;
 * -ESHUTDOWN the volume is being detached; -ENOTSUP; -EBADMSG see VOLUME_SHARED. */
void volume_submit(struct volume *v, struct volume_io *io);

/* ---- what frontends ask ---- */

/* The volume that is attached under this export name, with a reference taken; NULL: none. */
struct volume *volume_get(struct volume_set *set, const char *name);
void volume_put(struct volume *v);
const char *volume_name(const struct volume *v);
const struct uuid *volume_uuid(const struct volume *v);  /* of a snapshot: its volume's */
uint64_t volume_snapshot_number(const struct volume *v); /* which one of its volume's; 0: it is the volume */
uint64_t volume_size_bytes(const struct volume *v);
bool volume_is_read_only(const struct volume *v);
/* Calls each() for every volume attached over NBD, in order of name; for NBD_OPT_LIST. */
void volume_each_export(struct volume_set *set, void (*each)(struct volume *v, void *context), void *context);

/* ---- what changed since a snapshot ---- */

struct volume_base;
/* The snapshot `since` ("SNAP" of the same volume, or "VOLUME@SNAP") as something to compare v with; this node does not
 * delete it until it is closed. 0; -ENOENT: there is none; -EREMOTE: it is of another node's volume, and no ancestor of v;
 * -ENOMEM. */
must_check int volume_base_open(struct volume *v, const char *since, struct volume_base **out);
void volume_base_close(struct volume_base *b);
/* Calls each() with the name of every snapshot of v's volume that is older than v; for listing. */
void volume_each_base(struct volume *v, void (*each)(const char *name, void *context), void *context);

/* Extents that may differ between a base and its volume: all that either has changed since they were the same. It reads
 * only what changed. -ESTALE: the base has become another node's, or was deleted there. done() as of volume_submit(); the
 * extents cover the range from its start, or end early. */
struct volume_changes {
	/* set by the caller */
	struct volume_base *base;
	uint64_t pos_bytes, len_bytes;
	struct volume_extent *extents;
	uint32_t extents_max;          /* at least 1 */
	struct volume_extent *scratch; /* room for VOLUME_CHANGES_SCRATCH */
	void (*done)(struct volume_changes *c, int res);
	/* set by the head */
	uint32_t n_extents;
	/* the head's own */
	struct {
		unsigned stage;
		uint64_t cursor, window_end;
		struct volume_io io;
		uint32_t n_first, n_second;
	} own;
};
#define VOLUME_CHANGES_SCRATCH 512u
void volume_changes_submit(struct volume_changes *c);

/* A frontend that holds a reference is told of what happens to the volume; called on the reactor's thread. */
enum volume_event {
	VOLUME_RESIZED,
	VOLUME_RENAMED,
	VOLUME_NBD_DETACHED, /* NBD clients are ended; others may go on */
	VOLUME_VHOST_DETACHED,
	VOLUME_DETACHING, /* end your clients and put the reference */
};
struct volume_watch {
	void (*event)(struct volume_watch *w, enum volume_event e);
	struct list link;
};
void volume_watch_start(struct volume *v, struct volume_watch *w);
void volume_watch_stop(struct volume *v, struct volume_watch *w);

/* The frontend that has a socket for every volume and snapshot: told of one when it is attached over vhost-user. */
struct volume_doors {
	/* 0, or -errno with a sentence in why: then it is not attached. */
	int (*open)(struct volume_doors *d, struct volume *v, char *why, size_t room);
};
/* doors == NULL: there is no such frontend any more, and nobody can attach to it. */
void volume_set_doors(struct volume_set *set, struct volume_doors *doors);
/* Calls each() for every volume and snapshot attached over vhost-user. */
void volume_each_door(struct volume_set *set, void (*each)(struct volume *v, void *context), void *context);
#define VOLUME_VHOST_QUEUES_MAX     64u
#define VOLUME_VHOST_QUEUES_DEFAULT 16u
uint32_t volume_vhost_queues(const struct volume *v);
/* A reference for whoever has the volume at hand in a call from the set. */
void volume_hold(struct volume *v);

struct volume_counters {
	counter reads, writes, trims, zeroes, flushes, maps, read_bytes, write_bytes, trim_bytes, errors, no_space;
	struct histogram read_ns, write_ns, flush_ns;
};
const struct volume_counters *volume_counters(const struct volume *v);
