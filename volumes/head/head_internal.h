/*
 * head_internal.h: what the files of volumes/head share: the set, its disks, its volumes, and who owns what.
 *
 *   volume.c         a volume's life and what frontends ask     volume_io.c    every request: stages and dispatcher
 *   part.c, part_survey.c  the pieces that go to disks          range_lock.c   whose turn it is
 *   damage.c, damage_heal.c  what scrubs find is healed         compare.c      copies are compared with each other
 *   volume_disk.c    who of the disks is asked                  heal.c         what a disk cannot read
 *   stale.c          marks a disk that failed                   layout.c       which disks have segments together
 *   reconcile.c      copies become equal at attach              resync.c, resync_copy.c  a stale disk becomes current
 *   move.c, move_cut.c  segments go to another disk             leave.c        which, one after the other
 *   leave_purpose.c  what for, and what keeps them from it
 *   even.c           how many copies a segment is to have       set_replicas.c the command that changes it
 *   balance.c        which segment leaves a full disk           set_balance.c  whose turn it is
 *   set_drain.c      disks that are drained                     set_older.c    disks that are older than they were
 *   slice.c          scattered memory                           barrier.c      closing epochs
 *   placement.c, placement_choose.c  gives segments their disks  chunk.c        the cached records of it
 *   join.c           a volume's first words to a disk           volume_attach.c  and detach; attach_older.c  older copies
 *   facts.c          JSON of the store                          record_update.c, transaction.c
 *   set_start.c      load, open, bring back; stop               set_commands.c the queue of commands
 *   set_pools.c, set_volumes.c, set_disks.c, set_resize.c       the commands
 *   reaper.c         deletes volumes in the background          views.c        what people look at
 *   history.c        what trees have in common                  snapshots.c    the set's copies, and heads of snapshots
 *   tree_batch.c     makes and drops trees of one disk          fork.c         forks a tree on all disks
 *   set_snapshots.c  take, roll back                            set_sweep.c    delete, and drop what nobody names
 *   set_clone.c      volumes from snapshots                     set_exports.c  snapshots attached and detached
 *   set_schedule.c   snapshots by the clock                     changes.c      what differs between two points
 *   deleted.c        what was deleted last                      fill.c         served while it is filled
 *   ahead.c          from change to change                      set_nodes.c    which node does what
 *   set_watch.c      what other nodes change                    set_lease.c    what happens without a lease
 *   set_peers.c      the disks of other nodes                   set_takeover.c what a lost node had attached
 *   set_hand_over.c  another node serves a volume       set_node_drain.c  nodes that are drained
 *
 * One reactor owns everything here; there are no locks.
 */
#pragma once

#include "replication/replica.h"
#include "volumes/head/compare_internal.h"
#include "volumes/head/copies_internal.h"
#include "volumes/head/damage_internal.h"
#include "volumes/head/drain_internal.h"
#include "volumes/head/history.h"
#include "volumes/head/part_internal.h"
#include "volumes/head/record_update.h"
#include "volumes/head/set_cluster.h"
#include "volumes/head/set_internal.h"
#include "volumes/head/slice.h"
#include "volumes/head/volume_set.h"

#define PARTS_DEFAULT 512u
#define FLUSHES       128u            /* parts that flush or tell of an epoch: more wait for each other */
#define FULL_TOLD_NS  (10 * NS_PER_S) /* without a failure for want of space: then there is room again */
#define BARRIER_NS    NS_PER_S        /* an epoch is closed at most this often */
/* The same for a volume with a single copy: nobody is ever resynced from a complete epoch of it, and its two flushes cost
   the device more than all else that a write does (docs/performance.md). */
#define BARRIER_ALONE_NS (5 * NS_PER_S)

struct command;

/* ---- the set's disks ---- */

#define SET_DISK_STATES(X) X(ABSENT) X(OPENING) X(RUNNING) X(FAILED) X(CLOSING) X(REMOVED)
#define X(name)            SET_DISK_##name,
enum set_disk_state { SET_DISK_STATES(X) };
#undef X

struct set_disk {
	struct volume_set *set;
	uint32_t index; /* in set->disks; placements in memory name disks by it */
	struct disk_facts facts;
	enum set_disk_state state;
	struct disk *disk;              /* NULL unless open; of another node: always */
	struct peer_client *client;     /* of the other node that serves it; NULL: it does not run */
	uint64_t n_blocks, room_blocks; /* of another node's, as it has told last */
	uint64_t cache_bytes;           /* its share while open */
	char why[WHY_BYTES];            /* ABSENT, FAILED: what happened */
	bool is_older;                  /* ABSENT: that is, an older copy of it was put back */
	uint64_t checkpoint, seen_ns;   /* that it was at when it was opened, or closed, and when; 0: it was neither */
	uint64_t drain_ns, drain_bytes; /* when its draining was seen to first, and what lay there then; 0: it is not */
	bool is_drain_told;             /* that it is empty */
	uint64_t gone_ns;               /* since when it is known not to run; 0: it runs */
	void (*changed)(struct set_disk *d, void *context); /* who waits for it to be open or closed */
	void *context;
};

/* May requests be sent to it? */
static inline bool set_disk_is_running(const struct set_disk *d)
{
	return d && d->state == SET_DISK_RUNNING;
}

/* Is it one of this node's, and open? */
static inline bool set_disk_runs_here(const struct set_disk *d)
{
	return set_disk_is_running(d) && d->disk;
}

/* ---- chunks: where 256 segments lie ---- */

struct chunk {
	struct volume *volume;
	uint32_t number;
	bool is_loading;
	bool is_broken; /* the last reading failed */
	bool is_again;  /* while is_loading: what is being read may be old, it is read once more */
	uint32_t n_placed;
	uint32_t pins;                         /* picks and moves that rely on it: not to be evicted */
	uint32_t fresh_in_flight;              /* writes on their way to fresh segments */
	uint64_t revision;                     /* of its key; 0: there is none yet */
	uint64_t fresh[PLACEMENT_CHUNK / 64];  /* placed by this head, and no write has succeeded there yet */
	uint64_t moving[PLACEMENT_CHUNK / 64]; /* its disk was full: another is being chosen */
	struct list link;                      /* in the order of use, for eviction */
	struct list waiters;                   /* requests, by own.line, while is_loading */
	struct list others;                    /* chunk_waiters, while is_loading */
	struct chunk_read *read;               /* while is_loading */
	uint64_t disks[PLACEMENT_CHUNK];       /* of each segment, bit per disk; 0: it lies nowhere */
};
struct chunk_read { /* a chunk on its way from the store */
	struct metadata_request request;
	struct chunk *chunk;
	char key[KEY_BYTES];
};
struct chunk_waiter {
	void (*loaded)(struct chunk_waiter *w, int err); /* 0, or it could not be read */
	struct list link;
};
#define CHUNKS_MAX 4096u /* cached, of all volumes together: 9 MiB */

struct chunk_cache {
	struct list used; /* the longest unused first */
	uint32_t n;
};

/* ---- placement of one volume ---- */

#define PLACE_PICKS_MAX 64u
struct place_pick {
	uint64_t segment;
	uint64_t disks; /* bit per disk: all that get a copy */
	bool is_move;
};
struct placer_update {
	struct record_update update;
	struct volume *volume;
};
struct placer {
	unsigned stage;
	bool is_joining;  /* a disk is being joined or cleared, or a placement on it is not yet recorded [PLACEBAR] */
	bool is_clearing; /* rio is under way */
	struct list wanting; /* requests by own.line: their cursor stands in a segment that has no disk */
	struct list moving;  /* parts by link: their disk was full */
	struct place_pick picks[PLACE_PICKS_MAX];
	uint32_t n_picks;
	uint64_t refused;   /* bit per disk that could not be joined: */
	uint64_t failed;    /* of these, the ones that did not just lack the room */
	uint64_t new_disks; /* bit per disk joined for these picks and not yet in the record */
	struct op op;
	struct join *join;            /* under way */
	struct placer_update *update; /* under way */
	struct replica_io rio;        /* CLEAR */
	struct disk_extent extent;
	enum disk_op clear_op; /* the next */
	uint32_t n_clear;      /* picks whose places are holes */
	uint64_t clear_disks;  /* bit per disk: where the next one's is not, or it is not known */
};

/* ---- a volume's dealings with one disk ---- */

enum volume_disk_state {
	VOLUME_DISK_UNUSED,  /* has nothing of the volume */
	VOLUME_DISK_JOINED,  /* session and trees are good, and it has every completed write */
	VOLUME_DISK_LOST,    /* holds data of the volume and cannot be reached; of several copies: to be marked */
	VOLUME_DISK_STALE,   /* of several copies: the record says since when it lacks writes */
	VOLUME_DISK_SYNCING, /* stale, and gets all writes while it takes over the rest: see resync.c */
};

struct volume_disk {
	enum volume_disk_state state;
	struct volume *volume; /* NULL: never used */
	struct replica replica;
	uint32_t asked;            /* requests for data on their way there and back */
	uint64_t written, flushed; /* writes completed; of these, known flushed */
	uint64_t since;            /* LOST, of several copies: it may lack writes of epochs >= since */
	bool is_older;             /* LOST: an older copy of the disk; nothing that the record says of it holds */
	bool is_settling;          /* SYNCING: it has all, and is told of complete epochs */
	bool is_switching; /* it is on its way to be recorded as current: until the outcome is known it counts */
};

#define BARRIER_STAGES(X) X(REST) X(RESERVE) X(CLAIM) X(CLOSE) X(DRAIN) X(FORK) X(FLUSH) X(COMPLETE) X(SETTLE) X(END)
/* Who forks a volume's trees between two epochs. */
struct barrier_rider {
	/* barrier.stage is CLAIM or FORK; or SETTLE, with an error: it came no further */
	void (*reached)(struct barrier_rider *r);
	struct list link; /* the barrier's */
};
struct barrier_update {
	struct record_update update;
	struct volume *volume;
};
#define X(name) BARRIER_##name,
enum barrier_stage { BARRIER_STAGES(X) };
#undef X
struct barrier {
	enum barrier_stage stage;
	int err;
	bool is_wanted;  /* to begin as soon as nothing is in the way */
	bool is_waiting; /* io is on its way */
	uint64_t epoch;  /* the one that is being closed */
	struct timer timer;
	struct op op;
	struct volume_io io; /* its FLUSH, then its COMPLETE */
	struct barrier_update *update;
	struct barrier_rider *rider; /* NULL: none */
	struct list riders;          /* those that wait for the next ones */
	bool is_told;                /* the rider, that this stage is reached */
	bool is_forked;
	void (*wanted)(struct volume *v, int res); /* who waits for the next one; NULL: nobody */
	void (*ended)(struct volume *v, int res);  /* who waits for the one under way */
};

/* ---- the head of an attached volume ---- */

enum volume_state { VOLUME_JOINING, VOLUME_SERVING, VOLUME_DRAINING };

struct volume {
	struct volume_set *set;
	struct set_volume *entry;
	struct set_snapshot *snapshot;  /* its head is this; NULL: the live volume's */
	char name[SNAPSHOT_NAME_BYTES]; /* of a snapshot */
	enum volume_state state;
	bool is_read_only, is_fenced;
	bool is_greeting;        /* its disks are being joined by the attach: one that seems lost may have been asked */
	char why[SET_WHY_BYTES]; /* what is wrong with it, else "" */
	uint64_t size_bytes;     /* what clients may address; less than the record's while it shrinks */
	uint64_t generation;
	uint64_t epoch;     /* of new writes */
	uint64_t epoch_end; /* first epoch this head may not use [EPRANGE] */
	uint64_t complete_epoch;
	uint64_t next_tree, tree_end; /* ids for new trees, and the first that this head may not use [TREEID] */
	uint32_t in_flight[2];        /* writes and trims at the disks, by the parity of their epoch */
	bool has_written;             /* in this epoch */
	uint64_t full_ns; /* when a write last failed for want of space, which has been told; 0: there is room */
	bool is_held;     /* writes wait until the trees are forked [SNAPHOLD]: */
	struct list held; /* parts, by link */
	struct range_locks locks;
	struct list requests; /* by own.link */
	uint32_t n_requests;
	struct volume_disk disks[SET_DISKS_MAX]; /* by index */
	struct chunk **chunks;                   /* by number; NULL: not loaded */
	uint32_t n_chunks;
	uint32_t n_chunk_reads; /* that are on their way */
	struct placer placer;
	struct barrier barrier;
	struct layout layout;
	struct stale stale;
	struct compare compare;
	struct resync *resync; /* under way */
	struct timer resync_timer;
	uint64_t resync_delay_ns; /* before the next attempt */
	uint32_t resynced_last;   /* disk that had the last attempt */
	uint32_t n_places_held;   /* meanwhile no segment moves */
	struct list places_wanted;
	struct move *move;   /* under way */
	struct leave *leave; /* under way */
	struct timer leave_timer;
	uint64_t leave_delay_ns; /* before the next attempt */
	uint32_t leave_turn;     /* the disk from which on the next one that is to be left is looked for */
	bool is_leave_told;      /* that it does not go on */
	bool is_rebuild_told;    /* that copies are being made anew */
	bool is_dropping;        /* a sweep drops trees */
	struct fill *fill;       /* NULL: the volume is whole */
	struct list watches;
	uint32_t refs;                     /* frontends' */
	void (*drained)(struct volume *v); /* DRAINING: called when no reference and no request is left */
	struct op drained_op;
	struct volume_counters counters;
};

/* A snapshot of the store. Its head serves reads from its trees, and has no session, no epoch and no barrier. */
struct set_snapshot {
	struct set_volume *entry;
	struct list link; /* oldest first */
	struct snapshot_facts facts;
	struct volume *head; /* NULL: nobody reads it */
	uint32_t uses;       /* of the head: by the set itself, and one for all attachments: */
	bool is_served;
};

/* A volume of the store, attached or not. */
struct set_volume {
	struct volume_set *set;
	struct list link; /* by name */
	struct volume_facts facts;
	struct volume *head;    /* NULL: not attached */
	struct attach *attach;  /* under way */
	struct reap *reap;      /* being deleted */
	struct list updates;    /* record_member.turn: the first has its turn */
	uint64_t unlike_blocks; /* that differed between copies when these were compared last; since the start: */
	uint64_t n_compared;
	uint64_t n_moves;      /* since the start: segments lie elsewhere than whoever has seen fewer may think */
	struct list snapshots; /* oldest first */
	uint32_t n_snapshots;  /* those being deleted not counted */
	bool is_history_short; /* snapshots may be in the store that are not here: no tree is dropped meanwhile */
	bool is_schedule_busy; /* one that takes the schedule's snapshot is */
	uint32_t orders;       /* bit per kind: such a command of the set's own is in line */
	uint64_t orphaned_ns;  /* since when its node is known to be lost; 0: it is not */
	uint64_t schedule_retry_ns;
	uint64_t balance_after_ns; /* not before that again */
	uint32_t balance_chunk;    /* where it goes on */
	bool is_rehoming;          /* the set has attached it for itself, so that its segments can leave a disk, */
	uint64_t heal_until_ns;    /* or, until then, be healed */
	char why[SET_WHY_BYTES];   /* recorded as attached and could not be */
	struct leave_obstacle obstacle;
};

struct set_pool {
	struct list link; /* by name */
	struct pool_facts facts;
};

/* ---- what was deleted last ---- */

#define DELETED_MAX   32u
#define DELETED_NAMES 3u
struct deleted {
	char kind[16];                           /* "volume", "snapshot", "pool", "disk" */
	char names[DELETED_NAMES][SET_TEXT_MAX]; /* all that it was called by */
};
struct deleted_list {
	struct deleted all[DELETED_MAX]; /* the oldest first */
	uint32_t n;
};

/* ---- the set ---- */

struct volume_set {
	struct reactor *reactor;
	struct log *log;
	struct metadata *metadata;
	struct members *members; /* NULL: the store is this node's alone, and it needs no lease */
	struct set_watch watch;
	struct set_lease lease;
	char node_name[NAME_BYTES];
	bool is_store_own;
	uint64_t rebuild_after_ns;
	char why[SET_WHY_BYTES]; /* of a start that failed */
	uint64_t cache_bytes, cache_given;
	uint64_t cache_share; /* of each disk, while the set starts; 0: half of what is left */
	struct uuid cluster;
	struct list pools, volumes;
	struct list node_drains;
	struct set_balance balance;
	bool is_node_drain_told; /* that this node is empty */
	struct set_disk *disks[SET_DISKS_MAX];
	struct deleted_list deleted;
	struct list peers;    /* other nodes that can be asked: set_peers.c */
	bool has_peers;       /* this node asks others for their disks */
	struct parts parts;   /* of data */
	struct parts flushes; /* FLUSH and COMPLETE: these never wait for those of data */
	struct chunk_cache chunks;
	struct volume_doors *doors;                            /* NULL: no vhost-user frontend */
	void (*disk_closes)(struct disk *disk, void *context); /* NULL: nobody wants to know */
	void *disk_closes_context;
	struct list commands; /* in the order of submission; the first is carried out */
	struct list aside;    /* commands that others may pass */
	struct op command_op;
	struct damage damage;
	struct list heals; /* under way here, and how many: */
	uint32_t n_heals;
	struct timer schedule_timer;
	struct timer drain_timer;
	struct timer takeover_timer;
	struct timer return_timer;
	uint64_t return_delay_ns;   /* before the next attempt */
	uint64_t takeovers_from_ns; /* what is lost is taken over from then on */
	uint32_t orders;            /* bit per kind: such a command of the set's own, about no volume, is in line */
	bool is_stopping;
	struct set_start *start;
	struct set_stop *stop;
};

/* ---- volume.c ---- */

must_check int volume_create(struct set_volume *entry, uint64_t size_bytes, struct volume **out); /* JOINING */
void volume_destroy(struct volume *v);
void volume_abandon(struct volume *v);
uint32_t volume_chunks_for(uint64_t size_bytes);
must_check int volume_grow_chunks(struct volume *v, uint64_t size_bytes); /* 0 or -ENOMEM */
void volume_start_draining(struct volume *v, void (*drained)(struct volume *v));
void volume_check_drained(struct volume *v);
/* Tells the volume's watches. */
void volume_tell(struct volume *v, enum volume_event e);
/* Another head has the volume: no request is answered with success any more. */
void volume_fence(struct volume *v, const char *format, ...) printf_like(2, 3);
/* Sets v->why by the state of its disks. */
void volume_explain(struct volume *v);
static inline uint64_t blocks_of(uint64_t size_bytes)
{
	return (size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
}
/* The tree that its requests go to. */
static inline uint64_t volume_tree(const struct volume *v)
{
	return v->snapshot ? v->snapshot->facts.tree : v->entry->facts.live_tree;
}
static inline bool volume_is_replicated(const struct volume *v)
{
	return volume_facts_are_replicated(&v->entry->facts);
}

/* ---- volume_disk.c: masks have a bit per disk ---- */

/* Can requests be sent to the volume's disk? */
static inline bool volume_disk_is_good(const struct volume *v, uint32_t disk)
{
	return v->disks[disk].state == VOLUME_DISK_JOINED && set_disk_is_running(v->set->disks[disk]);
}
/* The replica on a disk that runs, to begin a session with, or to open as a reader. */
struct replica *volume_disk_replica(struct volume *v, uint32_t disk);
/* The disk failed the volume, or is gone: nothing more is asked of it, and no answer counts. */
void volume_disk_lose(struct volume *v, uint32_t disk, int res);
/* All that are joined. */
uint64_t volume_joined(const struct volume *v);
/* Those of them that are good. Inline, as the next: every part asks, and nearly always of one disk. */
static inline uint64_t volume_good(const struct volume *v, uint64_t disks)
{
	uint64_t good = 0;
	for (; disks != 0; disks &= disks - 1)
		if (volume_disk_is_good(v, (uint32_t)__builtin_ctzll(disks)))
			good |= disks & -disks;
	return good;
}
/* Are fewer of them current than each segment must have copies? Then nothing is changed there. */
static inline bool volume_has_too_few(const struct volume *v, uint64_t disks)
{
	return v->entry->facts.min_replicas > 1 &&
	       (uint32_t)__builtin_popcountll(volume_good(v, disks)) < v->entry->facts.min_replicas;
}
/* Those of them that get changes: a disk that is being resynced gets all of them, too [JOINHOLD]. */
static inline uint64_t volume_takers(const struct volume *v, uint64_t disks)
{
	uint64_t takers = 0;
	for (; disks != 0; disks &= disks - 1) {
		uint32_t disk = (uint32_t)__builtin_ctzll(disks);
		if (volume_disk_is_good(v, disk) || v->disks[disk].state == VOLUME_DISK_SYNCING)
			takers |= disks & -disks;
	}
	return takers;
}
/* Whom to read `block` from: of disks that are good, the one with the least to do. */
uint32_t volume_reader_of_many(const struct volume *v, uint64_t disks, uint64_t block);
static inline uint32_t volume_reader(const struct volume *v, uint64_t disks, uint64_t block)
{
	bool is_one = disks != 0 && (disks & (disks - 1)) == 0;
	return is_one ? (uint32_t)__builtin_ctzll(disks) : volume_reader_of_many(v, disks, block);
}

/* ---- volume_io.c ---- */

#define VOLUME_IO_STAGES(X) X(FREE) X(FILL) X(LOCK) X(ISSUE) X(GATHER) X(SHORT) X(HARDEN) X(RECORD) X(REPLY)
#define X(name)             VOLUME_IO_##name,
enum volume_io_stage { VOLUME_IO_STAGES(X) };
#undef X
#define VOLUME_IO_WAITS(X)                                                                                             \
	X(NOTHING) X(TURN) X(LOCK) X(PART) X(CHUNK) X(PLACEMENT) X(DISKS) X(MARK) X(COPIES) X(FILL) X(LEASE)
#define X(name) WAIT_##name,
enum volume_io_wait { VOLUME_IO_WAITS(X) };
#undef X
#define ALL_DISKS UINT64_MAX

/* A request of the head's own: not bound by size, read-only or draining. */
void volume_submit_internal(struct volume *v, struct volume_io *io);
/* Tells every disk that is joined that the epoch is complete; io is a FLUSH. */
void volume_submit_complete(struct volume *v, struct volume_io *io, uint64_t epoch);
/* A READ of at most PART_BYTES, inside a segment, by which a disk is healed: it is this disk that is read, and what it cannot
 * read there is had elsewhere and rewritten as for any other read. `tree`: the live one, or a snapshot's. -ENODEV: the
 * segment does not lie there. */
void volume_submit_heal(struct volume *v, struct volume_io *io, uint32_t disk, uint64_t tree);
void volume_io_init_locks(struct volume *v);
/* What it stood in line for has come (all but TURN, LOCK and DISKS), or has failed with err: it goes on, on the next turn. */
void volume_io_wake(struct volume_io *io, int err);
/* A change is on all current copies among the disks of a segment, which may be too few. */
void volume_io_note_thin(struct volume_io *io, uint64_t disks);
/* A part of it has ended; the part is free again. */
void volume_io_part_done(struct volume_io *io, int err);
/* It goes on in the next turn; others have theirs before. */
void volume_io_next_turn(struct volume_io *io);
/* It waits, and says for what: FLOW_WAIT. */
enum flow volume_io_wait(struct volume_io *io, enum volume_io_wait wait);
/* MAP: an extent of blocks becomes the client's, cut to the range asked for. Returns false when its room is full. */
enum { MAP_DATA = 1, MAP_CHANGED = 2 };
bool volume_io_map_add(struct volume_io *io, uint64_t first_block, uint64_t n_blocks, unsigned what);
/* One line: stage, what it waits for, what it is. */
void volume_io_to_text(const struct volume_io *io, char *text, size_t room);

/* ---- fill.c ---- */

must_check int fill_begin(struct volume *v); /* as the record says; 0 or -ENOMEM */
void fill_drain(struct volume *v);           /* nobody waits any more */
void fill_abandon(struct volume *v);
/* May the filler ask for this? 0 or -errno. */
must_check int fill_check(const struct volume *v, const struct volume_io *io);
/* The stage FILL. FLOW_WAIT: volume_io_wake() follows. */
must_check enum flow fill_admit(struct volume_io *io);
void fill_brought(const struct volume_io *io); /* a request ends: what the filler has written is there */
/* Is anything of this range yet to be brought? */
must_check bool fill_awaits(const struct volume *v, uint64_t pos_bytes, uint64_t len_bytes);
/* Is it not recorded that it was, so that the filler may bring something here after a restart? */
must_check bool fill_may_bring(const struct volume *v, uint64_t pos_bytes, uint64_t len_bytes);
uint64_t fill_prefix_bytes(const struct volume *v); /* all before it is there */
must_check enum flow fill_record(struct volume_io *io);
void fill_view(const struct set_volume *entry, struct volume_view *view);

/* ---- chunk.c ---- */

enum placed { PLACED_ON_DISKS, PLACED_NOWHERE, PLACED_UNKNOWN, PLACED_MOVING };
/* Where a segment lies, bit per disk; only memory is asked. */
enum placed chunk_find(struct volume *v, uint64_t segment, uint64_t *disks);
/* The first segment from here on that may be placed, at most `end`: chunks known to be empty are stepped over. */
uint64_t chunk_skip_empty(struct volume *v, uint64_t segment, uint64_t end);
/* The request waits until the segment's chunk is loaded. 0, or -ENOMEM and it does not wait. */
must_check int chunk_load(struct volume *v, uint64_t segment, struct volume_io *io);
struct chunk *chunk_get(struct volume *v, uint64_t segment); /* loaded, or NULL */
/* The same as chunk_load() for who is no request: loaded() follows. Not of a chunk that is loaded. */
must_check int chunk_await(struct volume *v, uint64_t segment, struct chunk_waiter *w);
/* Calls each() for every segment of a key's value, until it returns an error. 0, or what is wrong. */
must_check int chunk_read_json(struct volume_set *s, const char *text,
			       int (*each)(void *context, uint32_t segment, uint64_t disks), void *context);
/* The key's value with these picks made. NULL: no memory. */
char *chunk_to_json(const struct chunk *c, const struct place_pick *picks, uint32_t n_picks);
void chunk_place(struct chunk *c, uint64_t segment, uint64_t disks); /* recorded: from now on it lies there */
void chunk_move(struct chunk *c, uint64_t segment, uint64_t disks);  /* recorded: what it holds lies there now */
void chunk_evict(struct chunk *c);
/* It is there, whether it is known what is in it or not. */
struct chunk *chunk_pinned(const struct volume *v, uint64_t segment);
#define REVISION_NONE ((uint64_t)INT64_MAX) /* that no key has */
void chunk_reload(struct chunk *c);         /* what the store holds is in doubt: requests wait until it is read again */
void chunks_reload(struct volume *v);       /* the same of all that are known */
void chunks_fini(struct volume *v);
static inline bool chunk_bit(const uint64_t *bits, uint64_t segment)
{
	return bits[segment % PLACEMENT_CHUNK / 64] >> segment % 64 & 1;
}
void chunk_bit_set(uint64_t *bits, uint64_t segment, bool is_set);

/* ---- placement_choose.c ---- */

/* Chooses the disks for a segment's copies by chance, weighted by free space, each in a failure domain of its own, the first
 * on this node if there is room; as many as the volume has replicas, or as there are domains with disks that run. Masks:
 * bit per disk. 0; -ENOSPC: there are disks enough, and full, or none at all; -EIO: too few of the pool's run. `full`: count
 * as such; `failed`: as if they did not run. */
must_check int placement_choose(struct volume *v, uint64_t full, uint64_t failed, uint64_t *disks);
/* For a copy beside those on `others`: a disk in another failure domain, by chance, weighted by free space; none of
 * `refused`. 0; -ENOSPC: there is none with room. */
must_check int placement_choose_other(struct volume *v, uint64_t others, uint64_t refused, uint32_t *disk);
/* May segments of the volume be placed there now? */
bool placement_may_take(struct volume *v, const struct set_disk *d);
/* Of these disks the one with the least room, if it is nearly full; else SET_DISKS_MAX. */
uint32_t placement_narrowest(const struct volume *v, uint64_t disks);
/* Of the pool's disks, those that run and may take a copy: in how many domains are they? */
uint32_t placement_domains_running(struct volume_set *s, const struct pool_facts *pool);
/* That the pool's disks are in, but for those being drained, and for these (bit per disk). */
uint32_t placement_domains(struct volume_set *s, const struct pool_facts *pool, uint64_t except);
/* ---- placement.c ---- */

/* Of the disk's key, for who records that something lies there: one that it does not have, if nothing may be placed there. */
uint64_t placement_revision(const struct set_disk *d);
/* Blocks that a disk that runs can still take; what is freed and waits for a checkpoint counts. */
uint64_t set_disk_room(const struct set_disk *d);
void placer_init(struct volume *v);
/* The request waits until the segment under its cursor has a disk, or none can be had. */
void placement_want(struct volume *v, struct volume_io *io);
/* The disk had no room for the first writes of a segment: is another to be had? Ends with part_moved(). */
void placement_move(struct volume *v, struct part *p);
/* The chunk cannot be read: the parts that wait for a move in it are told so. */
void placement_moves_fail(struct volume *v, uint32_t chunk, int err);
void placer_run(struct volume *v); /* something it may wait for has happened */
void placer_abandon(struct volume *v);
bool placer_is_idle(const struct volume *v);
bool placer_uses_disk(const struct volume *v, uint32_t disk); /* it is picked, or being joined */

/* ---- snapshots.c: the set's copies of them, and their heads ---- */

struct set_snapshot *snapshot_find(struct set_volume *entry, const char *name); /* not those being deleted */
struct set_snapshot *snapshot_by_tree(struct set_volume *entry, uint64_t tree);
bool snapshots_are_deleting(const struct set_volume *entry); /* is any? */
void snapshot_find_trees(struct volume *v);                  /* of its head: where they are */
/* "NAME@SNAP"; NULL: there is none. */
struct set_snapshot *snapshot_find_export(struct volume_set *s, const char *name);
/* Takes the facts over; NULL: no memory. */
struct set_snapshot *snapshot_put(struct set_volume *entry, const struct snapshot_facts *facts);
void snapshot_remove(struct set_snapshot *snap); /* it has no head */
void snapshot_mark_deleting(struct set_snapshot *snap);
void snapshots_fini(struct set_volume *entry); /* as a crash does */
/* Which lines of the record have snapshots. */
void snapshots_mark_lines(const struct set_volume *entry, const struct volume_facts *facts, bool used[LINES_MAX]);
/* Its head, made when there is none; the set's own use of it, until snapshot_close(). 0 or -ENOMEM. */
must_check int snapshot_open(struct set_snapshot *snap);
void snapshot_close(struct set_snapshot *snap);
/* The store has others than are here: they are read, and until then no tree is dropped, no copy resynced, and none moves. */
void snapshots_missed(struct set_volume *entry);
bool snapshots_are_read(const struct set_volume *entry);    /* has one of them a head? */
void snapshot_gone(struct set_snapshot *snap);              /* the store does not hold it any more */
bool snapshot_is_attached(const struct set_snapshot *snap); /* in whatever way, by any node */
bool snapshot_has_export(const struct set_snapshot *snap);  /* by this node, over NBD */
/* Attached by this node, for who copied it and is gone: it may be let go. */
bool snapshot_is_left(const struct set_snapshot *snap);
bool snapshot_has_door(const struct set_snapshot *snap); /* by this node, over vhost-user */
uint32_t snapshot_vhost_queues(const struct set_snapshot *snap);
/* Opens its head for its attachments, once for all of them: 0 or -ENOMEM. And lets go of it. */
must_check int snapshot_serve(struct set_snapshot *snap);
void snapshot_serve_end(struct set_snapshot *snap);
void snapshot_rename(struct set_volume *entry); /* the volume has another name */
/* Calls each() for the heads of the volume's snapshots. */
/* One that another node serves, which is alive; NULL: none. */
const struct set_snapshot *snapshot_served_elsewhere(const struct set_volume *entry, const char **node);
void snapshots_each_head(struct set_volume *entry, void (*each)(struct volume *v, void *context), void *context);

/* ---- tree_batch.c: makes or drops many trees of a volume on one disk, some at a time ---- */

struct tree_batch;
/* The trees that the volume's record names and that a disk new to it lacks; NULL: no memory. */
struct tree_batch *tree_batch_missing(struct volume *v, uint32_t disk);
/* The volume's trees that are on the disk and that nobody names: what was deleted, and what interrupted attempts left. */
struct tree_batch *tree_batch_orphans(struct volume *v, uint32_t disk);
/* All that it has there. */
struct tree_batch *tree_batch_all(struct volume *v, uint32_t disk);
/* done(): all are made or dropped, durably, or -errno. It frees the batch. */
void tree_batch_start(struct tree_batch *b, void (*done)(void *context, int res), void *context);
void tree_batch_abandon(struct tree_batch *b);

/* ---- fork.c: forks a tree on every disk of the volume ---- */

struct fork {
	/* set by the caller */
	struct volume *volume; /* whose sessions are used */
	uint64_t from, to;     /* tree ids */
	struct uuid to_volume;
	uint64_t left_out; /* bit per disk: there it is not to be */
	uint64_t epoch;
	void (*done)(struct fork *f, int res); /* 0: durable on all; -EIO: not on all */
	void *context;
	/* its own */
	int err;
	uint64_t disks; /* bit per disk: it has the fork */
	uint32_t owed;
	struct fork_io *ios;
	uint32_t n_ios;
	struct op op;
};
/* done() comes on a later turn. */
void fork_start(struct fork *f);
void fork_abandon(struct fork *f);
/* Has every disk that the record calls current the fork? Not one that has become so since. */
must_check bool fork_covers(const struct fork *f, struct volume_facts *facts);
/* Can every disk that holds the volume be reached? If not, says which in why. */
must_check bool fork_reaches_all(const struct volume *v, char *why, size_t room);

/* ---- join.c: a volume begins to use a disk: NAME, FENCE, CREATE what it has not yet, DROP, COMPLETE ---- */

#define JOIN_STAGES(X) X(NAME) X(FENCE) X(LIST) X(CREATE) X(DROP) X(COMPLETE) X(END)
#define X(name)        JOIN_##name,
enum join_stage { JOIN_STAGES(X) };
#undef X
struct join {
	struct replica_io rio;
	struct volume *volume;
	uint32_t disk;
	enum join_stage stage;
	int err;
	bool is_answered;
	struct record_update update;           /* NAME */
	struct replica_trees trees;            /* that are there */
	struct tree_batch *batch;              /* under way */
	uint64_t complete_epoch;               /* set by the caller: to be told to the disk; 0: nothing */
	bool may_make_live;                    /* set by the caller, at once: no disk has the live tree */
	uint64_t generation_was;               /* the highest that the disk had seen before */
	uint64_t remembered;                   /* the last complete epoch that the disk had remembered */
	void (*done)(struct join *j, int res); /* the disk is JOINED, or LOST if it is recorded as used */
	void *context;
};
must_check int join_start(struct volume *v, uint32_t disk, uint64_t complete_epoch,
			  void (*done)(struct join *j, int res), void *context, struct join **out);
void join_abandon(struct join *j);
/* What is wrong with a disk that lacks what the volume alone had there, and what to do. */
#define OLDER_DISK_HINT                                                                                                \
	"it lacks what the volume had there: an older copy of the disk was put back. Put back the newest one; if "     \
	"that "                                                                                                        \
	"is lost for good, so is what lay there: delete the volume, and restore it from a backup"

/* ---- barrier.c ---- */

void barrier_init(struct volume *v);
/* A write was sent: the epoch will be closed within BARRIER_NS, or BARRIER_ALONE_NS. */
void barrier_note_write(struct volume *v);
/* Closes the epoch now; ended() once it is complete. */
void barrier_now(struct volume *v, void (*ended)(struct volume *v, int res));
void barrier_run(struct volume *v);
bool barrier_is_resting(const struct volume *v);
/* Closes the epoch soon; resync_barrier_ended() after. */
void barrier_want(struct volume *v);
/* The rider rides on the next barrier that has none. From FORK's end on, what was held goes on; SETTLE ends with the release. */
void barrier_claim(struct volume *v, struct barrier_rider *rider);
void barrier_close_claimed(struct volume *v);
void barrier_forked(struct volume *v, int err);
/* The rider has done what it wanted; in CLAIM: nothing is closed, else not before the forks are done. */
void barrier_release(struct volume *v);
void barrier_abandon(struct volume *v);

/* ---- volume_attach.c ---- */

struct attach_options {
	bool is_nbd, is_vhost, is_read_only; /* all false: none is recorded; for the set's own work */
	bool is_return;                      /* recorded already: brought back after a restart */
	bool is_from_lost;                   /* even though a node that has no lease has it */
	bool is_takeover;                    /* even though a disk remembers a later generation than the record */
	uint32_t vhost_queues;               /* 0: as many as usual */
};
/* done(): 0 and entry->head serves; or -errno with the reason in entry->why, and there is no head. */
void volume_attach(struct set_volume *entry, const struct attach_options *o,
		   void (*done)(struct set_volume *entry, int res, void *context), void *context);
/* Ends clients, drains, flushes, completes the epoch; entry->head is NULL after. is_recorded: the store forgets the
 * attachment too. */
void volume_detach(struct set_volume *entry, bool is_recorded,
		   void (*done)(struct set_volume *entry, int res, void *context), void *context);
/* The same, recorded as attached on that node, which brings it back as after a restart. */
void volume_hand_over(struct set_volume *entry, const char *node,
		      void (*done)(struct set_volume *entry, int res, void *context), void *context);
void attach_abandon(struct attach *a);
