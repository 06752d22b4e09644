/*
 * volume_set.h: the pools, disks and volumes of one node, and every command that changes them.
 *
 * The set keeps its facts in the metadata store (names, pools, placement, attachments) and its data on the disks it is
 * given. Commands are requests with stages of their own: atomic, and repeatable with the same result (P6). They run on
 * the set's reactor; the control plane posts them there.
 *
 * Keys in the store (values JSON):
 *   cluster                     {uuid}
 *   pools/NAME                  {uuid, replicas, min_replicas, failure_domain}
 *   disks/UUID                  {node, path, pool, name, size_bytes, state: "ok" | "removed", reserved, draining,
 *                                drains_with_node, cluster, checkpoint, seen_ns}
 *   volumes/UUID                {name, pool, size_bytes, replicas, generation, owner, epoch_base, live_tree, next_tree,
 *                                trees: [{id, parent, epoch, state}], state: "ok" | "deleting", attachments: [...],
 *                                created_ns, replicas_state: {DISK: ...}, requests: [...], min_replicas, live_from, history,
 *                                ancestors, cloned_from, schedule, fill: {source, filled_bytes}}
 *   snapshots/UUID/TREE         {name, branch, epoch, size_bytes, created_ns, state, scheduled, attached_nbd,
 *                                attached_vhost, vhost_queues}
 *   volume-names/NAME           {uuid}
 *   drains/NODE                 {}     the node is being drained
 *   balance                     {node}     that has segments move to emptier disks
 *   deleted                     {deleted: [[KIND, NAME, ...], ...]}     the last 32, so that a repeat is recognised
 *   placement/UUID/CHUNK        {segments: {"3": ["DISK-UUID", ...], ...}}   256 segments a chunk
 *
 * In a cluster the store is that of all nodes, and each has a copy of what it holds, kept fresh by the store's watch. A
 * volume is served by one of them: the owner, while it is attached; else the node that has the disks with its data. The
 * owner of a volume that is being deleted is the node that frees its space.
 */
#pragma once

#include "daemon/metadata/members.h"
#include "daemon/metadata/metadata.h"
#include "replication/peer_client.h"
#include "replication/peer_server.h"
#include "volumes/disk/disk.h"
#include "volumes/head/volume.h"

#define VOLUME_REPLICAS_MAX 5u

struct volume_set_options {
	struct reactor *reactor;
	struct log *log;
	struct metadata *metadata;
	const char *node_name;
	bool
	    is_store_own; /* the store is this node's alone: what it says of another's is this node under an old name */
	struct members *members;   /* of the cluster, joined; NULL: the store is this node's alone */
	uint64_t cache_bytes;      /* for all disks together */
	uint32_t n_parts;          /* pool of disk requests for data in flight; 0: 512 */
	uint64_t rebuild_after_ns; /* copies on a disk that has been away for so long are made anew elsewhere */
	bool has_peers;            /* disks of other nodes can be asked: volume_set_peer_changed() tells of them */
	/* The disks of this node are open, and attachments about to be brought back; NULL: nobody wants to know. */
	void (*disks_open)(struct volume_set *s, void *context);
};
/* Reads the store, opens the disks this node owns, brings back the attachments; ready() when all that can serve does. A
 * disk that will not open is named in an event and the rest goes on; its volumes answer -EIO for what lies there. */
must_check int volume_set_start(const struct volume_set_options *o,
				void (*ready)(struct volume_set *s, int res, void *context), void *context,
				struct volume_set **out);
/* After ready() with an error: the reason, "" when the error says all. */
const char *volume_set_why(const struct volume_set *s);
/* Detaches all volumes in memory, so that nothing is asked of other nodes any more; before volume_set_stop(). */
void volume_set_detach(struct volume_set *s, void (*detached)(void *context), void *context);
/* Detaches (in memory; attachments stay recorded), closes the disks cleanly, frees everything. */
void volume_set_stop(struct volume_set *s, void (*stopped)(void *context), void *context);
void volume_set_abandon(struct volume_set *s); /* for the simulator: as a crash does */

/* ---- for who serves this node's disks to others, and knows these ---- */

const struct uuid *volume_set_cluster(const struct volume_set *s);
/* A disk of this node, while it runs; NULL: there is none. */
struct disk *volume_set_disk(struct volume_set *s, const struct uuid *disk);
/* Those that run, for others: at most PEER_DISKS_MAX. */
uint32_t volume_set_list_disks(struct volume_set *s, struct peer_disk *out);
/* The node's disks can be asked over this client from now on, or no more: one client for each node at a time. */
void volume_set_peer_changed(struct volume_set *s, const char *node, struct peer_client *client, bool is_up);
/* Blocks that a scrub has found damaged on a disk of the volume, of any node, are healed by its head, which is this node's.
 * done(), on a later turn unless there is no memory for it, with what peer_damage_answer() says. */
void volume_set_heal(struct volume_set *s, const struct peer_damage *at, void (*done)(void *context, int res),
		     void *context);
/* Called before a disk is closed; NULL: nobody is. */
void volume_set_on_disk_close(struct volume_set *s, void (*closes)(struct disk *disk, void *context), void *context);

/* ---- commands ---- */

enum set_command_kind {
	SET_DISK_ADD,    /* path, size_bytes, pool, reserve, force, accept_older */
	SET_DISK_REMOVE, /* object, force */
	SET_DISK_DRAIN,  /* object, cancel */
	SET_DISK_SCRUB,
	SET_NODE_DRAIN, /* object, cancel */
	SET_POOL_CREATE,
	SET_POOL_SET,
	SET_POOL_DELETE,
	SET_VOLUME_CREATE, /* fill: attached before its content is there, see fill.c */
	SET_VOLUME_DELETE,
	SET_VOLUME_RESIZE,
	SET_VOLUME_RENAME,
	SET_VOLUME_SET,
	SET_VOLUME_ATTACH,
	SET_VOLUME_DETACH,
	SET_VOLUME_MOVE, /* other: the node that serves it from then on; the set's own: because this one is drained */
	SET_VOLUME_MEASURE,    /* object: NAME, or NAME@SNAP */
	SET_VOLUME_SCHEDULE,   /* every_s (0: no more), keep */
	SET_VOLUME_CLONE,      /* targets[0]; other: the new volume's name */
	SET_VOLUME_CHANGES,    /* targets[0] (snapshot "": the live volume), since, pos_bytes, extents_max */
	SET_SNAPSHOT_CREATE,   /* targets: one consistent point */
	SET_SNAPSHOT_DELETE,   /* targets[0] */
	SET_SNAPSHOT_ROLLBACK, /* targets[0] */
	SET_SWEEP,             /* the set's own */
	SET_REHOME,            /* the same */
	SET_DISKS_SEEN,        /* the same */
	SET_NODE_DISKS,        /* the same: this node's disks are marked as drained with it, or no more */
	SET_BALANCE,           /* the same: the lock of who rebalances is taken, or given up */
	SET_RELEASE,           /* the same: a head that another node has taken over is let go */
	SET_TAKEOVER,          /* the same: what a lost node had attached is attached here */
	SET_RETURN,            /* the same: what is recorded as attached here, and could not be, is tried again */
};

/* A snapshot, by its volume's name and its own. */
struct set_target {
	char volume[VOLUME_NAME_MAX + 1], snapshot[VOLUME_NAME_MAX + 1];
};
/* A schedule's limits. Each snapshot is flushed, recorded, and deleted again in the background. */
#define SCHEDULE_EVERY_MIN_S 10u
#define SCHEDULE_EVERY_MAX_S INT32_MAX
#define SCHEDULE_KEEP_MAX    16383u
#define SCHEDULE_LIMITS      "a schedule takes a snapshot every 10 s to 68 years, and keeps 1 to 16383 of them"
#define SET_TARGETS_MAX      16u /* volumes of one consistent point: what one transaction can record */

/* What a volume or snapshot takes of the disks. */
struct set_measure {
	uint64_t data_bytes;   /* it points to */
	uint64_t unique_bytes; /* of these: nobody else does */
	uint64_t frees_bytes;  /* deleting it gives back: data and maps */
	char missing[256];     /* a disk that could not be asked, and why: the figures lack it; "": all were */
};

struct set_changes {
	struct volume_extent *extents; /* by the order of place; to be freed by whoever ordered it */
	uint32_t n_extents;
	uint64_t next_bytes; /* what follows was not looked at; the size: all was */
	uint64_t size_bytes;
};

enum failure_domain { DOMAIN_DISK, DOMAIN_NODE, DOMAIN_RACK, DOMAIN_ZONE };

#define SET_TEXT_MAX  256
#define SET_WHY_BYTES 400

/* What is said of a pool, disk, volume, snapshot or node that is not there: noun, name, noun. */
#define MISSING_FORMAT "there is no %s '%.140s'; see 'quarry %s list'"

struct set_command {
	/* set by the caller */
	enum set_command_kind kind;
	char object[SET_TEXT_MAX]; /* name of the volume (or NAME@SNAP), pool or disk (disk: name, path or UUID) */
	char other[SET_TEXT_MAX];  /* RENAME: new name; ATTACH, DETACH: "nbd" or "vhost-user" ("" detach: all) */
	char path[SET_TEXT_MAX];   /* DISK_ADD */
	char pool[SET_TEXT_MAX];   /* "": default */
	char fill[SET_TEXT_MAX];   /* VOLUME_CREATE: where its content will come from; "": it has none */
	uint64_t size_bytes;       /* DISK_ADD, VOLUME_CREATE, VOLUME_RESIZE */
	uint32_t replicas, min_replicas; /* 0: not given */
	enum failure_domain failure_domain;
	bool has_failure_domain;
	uint32_t queues; /* ATTACH over vhost-user; 0: not given */
	bool force, reserve, read_only;
	bool takeover; /* ATTACH */
	/* ATTACH of a snapshot over NBD: when nobody is connected it may go. DETACH: only such, and when nobody is */
	bool temporary;
	bool cancel;         /* DISK_DRAIN, NODE_DRAIN: it is drained no more */
	bool accept_older;   /* DISK_ADD: of a disk that is known, even an older copy */
	bool with_snapshots; /* VOLUME_DELETE: they are deleted, too */
	bool is_scheduled;   /* SNAPSHOT_CREATE: by the clock */
	struct set_target targets[SET_TARGETS_MAX];
	uint32_t n_targets;
	struct set_target since; /* CHANGES */
	uint64_t pos_bytes, extents_max, every_s;
	uint32_t keep;
	void (*done)(struct set_command *c, int res);

	/* set by the set */
	char why[SET_WHY_BYTES]; /* on failure: what, and what to do; one line */
	char code[32];     /* on failure: a stable word: "not-found", "exists", "in-use", "invalid", "no-space", ... */
	bool is_unchanged; /* on success: what is wanted was there before, perhaps by an earlier try (P6) */
	/* After -EREMOTE: the node that can carry it out, and is alive; "": none can now. */
	char node[VOLUME_NAME_MAX + 1];

	struct set_measure measure;
	struct set_changes changes;

	/* the set's own */
	struct list link;
	void *own;
	bool is_internal;       /* ordered by the set itself, and freed by it */
	struct uuid volume;     /* of such an order */
	struct volume_set *set; /* the same */
};
/* done() on a later turn with 0 or -errno: -ENOENT, -EEXIST, -EBUSY, -EINVAL, -ENOSPC, -EOPNOTSUPP, -EIO. Commands are
 * carried out one after the other in the order of submission, except DISK_ADD's writing through, which others may
 * pass. */
void volume_set_command(struct volume_set *s, struct set_command *c);

/* ---- looking: views are copied out, on the set's reactor ---- */

struct disk_view {
	char name[DISK_LABEL_BYTES], path[SET_TEXT_MAX], pool[SET_TEXT_MAX], node[VOLUME_NAME_MAX + 1];
	struct uuid uuid;
	bool is_elsewhere; /* another node has it: nothing else is known here, but for size and, in stats, n_blocks */
	enum disk_state state;
	char why[WHY_BYTES];
	bool is_open; /* false: never opened; state and why tell */
	struct disk_stats stats;
	const struct disk_counters *counters; /* NULL when not open */
	struct disk_scrub scrub;
	bool is_healing; /* what a scrub has found damaged there is being healed, or about to be */
	bool is_reserved;
	struct {
		bool is_wanted; /* it is being drained, or is empty: */
		bool is_with_node;
		bool is_done;
		uint64_t left_bytes;     /* of data there */
		uint64_t eta_s;          /* 0: not known */
		char why[SET_WHY_BYTES]; /* why it does not go on, else "" */
	} drain;
};
struct node_drain_view {
	bool is_wanted; /* the node is being drained, or is empty: */
	bool is_done;
	uint32_t n_attached; /* volumes that it serves */
	/* Of another node it is not known here: */
	uint64_t left_bytes;     /* of data on its disks */
	uint64_t eta_s;          /* 0: not known */
	char why[SET_WHY_BYTES]; /* what cannot go, and what to do, else "" */
};
/* Segments move to emptier disks. */
struct balance_view {
	char node[VOLUME_NAME_MAX + 1]; /* that has them move; "": none does */
	char volume[SET_TEXT_MAX];      /* of this node, whose segments move; "": none now */
	uint64_t moved_bytes;           /* by this node, since it has begun; 0, as is what follows, when another does */
	uint64_t left_bytes;            /* about so much is to move */
	uint64_t eta_s;                 /* 0: not known */
};
/* A disk that is being formatted, and with reserve written through. */
struct disk_adding_view {
	char path[SET_TEXT_MAX], pool[SET_TEXT_MAX];
	uint64_t size_bytes;    /* that was asked for; 0: what is there */
	uint64_t written_bytes; /* of these, with reserve */
	bool is_reserved;
};
struct set_range {
	uint64_t pos_bytes, len_bytes;
};
struct volume_view {
	char name[SET_TEXT_MAX], pool[SET_TEXT_MAX], cloned_from[SET_TEXT_MAX];
	char node[VOLUME_NAME_MAX + 1]; /* where it is attached, else where its data are; "": nowhere */
	bool is_elsewhere;              /* on another node: what it takes, and how it does, is not known here */
	bool is_node_alive;             /* that node is */
	struct uuid uuid;
	uint64_t size_bytes, allocated_bytes;
	uint64_t snapshots_bytes;  /* that its snapshots point to, what they share counted once for each */
	uint64_t reclaiming_bytes; /* of trees that are being freed; what others share is not freed with them */
	uint32_t n_snapshots;
	uint64_t every_s, next_snapshot_ns; /* of its schedule; 0: none. When the next is due, wall clock */
	uint32_t keep;
	char fill_source[SET_TEXT_MAX]; /* "": it is whole */
	uint64_t filled_bytes, unfillable_bytes;
	uint32_t n_unfillable;          /* ranges of what cannot be had */
	struct set_range unfillable[4]; /* the first of them */
	uint64_t recorded_bytes;        /* from its start on, what need not be brought again */
	bool is_filling;                /* somebody does it */
	uint32_t replicas, min_replicas, n_disks;
	struct {
		struct uuid disk;
		uint64_t allocated_bytes;
	} on_disk[64];
	uint32_t n_copies; /* of a volume with several: the disks that have some of it */
	struct {
		struct uuid disk;
		bool is_stale, is_resyncing;
	} copies[64];
	uint32_t n_stale; /* of these */
	struct {
		bool is_running;
		uint64_t copied_bytes, eta_s; /* eta_s 0: not known yet */
		uint32_t percent;             /* of what is compared */
	} resync;                             /* of the copy that is_resyncing */
	/* Of segments with fewer current copies than replicas, and with more; 0 as well when it is detached. */
	uint64_t degraded_bytes, surplus_bytes;
	uint64_t differing_blocks; /* between current copies, when they were compared last */
	uint32_t fewest_copies;    /* that any of its segments has */
	bool is_rebuilding;        /* copies are being made anew elsewhere */
	bool is_evening;           /* segments get as many copies as they are to have */
	char copies_why
	    [SET_WHY_BYTES]; /* why that, or leaving a disk, does not go on; "": nothing is known against it */
	bool is_attached_nbd, is_attached_vhost, is_read_only, is_deleting, is_serving;
	char why[SET_WHY_BYTES]; /* when it is attached and not serving */
	uint32_t vhost_queues;
	uint64_t generation, epoch, created_ns;
	const struct volume_counters *counters; /* NULL when not attached */
};
struct pool_view {
	char name[SET_TEXT_MAX];
	struct uuid uuid;
	uint32_t replicas, min_replicas, n_disks, n_volumes;
	uint32_t n_full; /* volumes of which a write failed here for want of space, and none has succeeded since */
	uint32_t n_disks_here; /* of this node; sizes are theirs, until who shows it adds what others have told */
	enum failure_domain failure_domain;
	uint64_t size_bytes, free_bytes, used_bytes, provisioned_bytes; /* provisioned: at most INT64_MAX */
};
struct snapshot_view {
	char volume[SET_TEXT_MAX], name[SET_TEXT_MAX];
	uint64_t size_bytes, data_bytes, created_ns, epoch;
	bool is_elsewhere; /* its volume is on another node: data_bytes is not known here */
	bool is_attached_nbd, is_attached_vhost, is_deleting, is_scheduled;
	bool is_temporary; /* over NBD: for who copies it */
	uint32_t vhost_queues;
};
/* Calls each() for every object in order of name (snapshots: of their volume's, oldest first). */
void volume_set_snapshots(struct volume_set *s, void (*each)(const struct snapshot_view *v, void *context),
			  void *context);
void volume_set_disks(struct volume_set *s, void (*each)(const struct disk_view *v, void *context), void *context);
void volume_set_balance(const struct volume_set *s, struct balance_view *view);
void volume_set_node_drain(const struct volume_set *s, const char *node, struct node_drain_view *view);
/* In the order in which they were begun. */
void volume_set_disks_adding(struct volume_set *s, void (*each)(const struct disk_adding_view *v, void *context),
			     void *context);
void volume_set_volumes(struct volume_set *s, void (*each)(const struct volume_view *v, void *context), void *context);
void volume_set_pools(struct volume_set *s, void (*each)(const struct pool_view *v, void *context), void *context);
/* Requests older than age_ns: one line each with stage, age and what it waits for. */
void volume_set_slow_requests(struct volume_set *s, uint64_t age_ns, void (*each)(const char *line, void *context),
			      void *context);
