/*
 * cluster_world.h: a cluster in one process: nodes with disks, real from the volume set down to the frames between them,
 * one metadata store for all of them, clients, and what these may find in their volumes.
 *
 *   cluster_schedule.c   the story of a seed: who does what, and what befalls whom
 *   cluster_faults.c     what may befall a cluster
 *   cluster_client.c     requests of volumes                    cluster_orders.c   commands on volumes
 *   cluster_oracle.c     what every block may hold              cluster_upkeep.c   commands on disks and nodes
 *   cluster_facts.c      what the store says                    cluster_store.c    the store, far away
 *   cluster_node.c       life and death of a node               cluster_spread.c   where copies are to lie
 *   cluster_rot.c        bits that turn over
 *   cluster_judge.c      the end: all heals, then everything is compared
 *
 * Owner: the thread of the test.
 */
#pragma once

#include "daemon/core/buffers.h"
#include "daemon/peers.h"
#include "tests/sim/cluster/cluster_oracle.h"
#include "tests/sim/cluster/cluster_store.h"
#include "tests/sim/sim.h"
#include "volumes/head/head_internal.h"

#define NODES_MAX      5u
#define DISKS_MAX      16u
#define DISK_BYTES     (24 * MIB)
#define VOLUMES_MAX    4u
#define IOS_MAX        24u
#define ORDERS_MAX     8u
#define SNAPSHOTS_EACH 4u
#define LEASE_NS       (2 * NS_PER_S)

struct cluster;

/* What is counted while a seed runs. */
#define CLUSTER_TOTALS(X)                                                                                              \
	X(writes)                                                                                                      \
	X(reads)                                                                                                       \
	X(errors)                                                                                                      \
	X(kills)                                                                                                       \
	X(power_losses)                                                                                                \
	X(pauses)                                                                                                      \
	X(partitions)                                                                                                  \
	X(outages)                                                                                                     \
	X(disk_failures)                                                                                               \
	X(takeovers)                                                                                                   \
	X(snapshots)                                                                                                   \
	X(clones)                                                                                                      \
	X(rollbacks)                                                                                                   \
	X(deletes)                                                                                                     \
	X(moves)                                                                                                       \
	X(drains)                                                                                                      \
	X(removals)                                                                                                    \
	X(forced_removals)                                                                                             \
	X(added_disks)                                                                                                 \
	X(node_drains)                                                                                                 \
	X(replica_changes)                                                                                             \
	X(rebalances)                                                                                                  \
	X(given_up)                                                                                                    \
	X(clock_jumps)                                                                                                 \
	X(rotten)                                                                                                      \
	X(healed)                                                                                                      \
	X(scrubbed)                                                                                                    \
	X(compared)                                                                                                    \
	X(resyncs)                                                                                                     \
	X(open_to_loss)                                                                                                \
	X(checks)
struct cluster_totals {
#define X(name) uint64_t name;
	CLUSTER_TOTALS(X)
#undef X
};

/* ---- nodes and disks ---- */

enum node_state { NODE_DOWN, NODE_JOINING, NODE_STARTING, NODE_UP, NODE_STOPPING };

struct cluster_node {
	struct cluster *cluster;
	uint32_t number;
	char name[8], address[16], about[64];
	struct sim_machine *machine;
	struct config *config;
	struct log *log;
	uint64_t events_told; /* sequence of the last one in the trace */
	enum node_state state;
	uint64_t start_at_ns;           /* DOWN: when it is started again */
	enum sim_crash_kind crash_kind; /* of one that is to come at a certain I/O */
	uint64_t paused_until_ns;       /* 0: it is not */
	struct store_client *store;
	struct members *members;
	struct volume_set *set;
	struct peers *peers;
	struct buffers *buffers;
};

struct cluster_disk {
	struct uuid uuid;
	uint32_t node;
	char name[16], path[8];
	struct sim_file *file;
	bool is_spare;    /* formatted, and never added yet */
	bool is_away;     /* removed from the cluster */
	bool is_draining; /* as the store says */
};

/* ---- what the store says of a volume, right now ---- */

#define SEGMENTS_MAX 3u
struct cluster_facts {
	bool exists;
	struct volume_facts record;
	uint64_t in_sync;                /* bit per disk of the cluster */
	uint64_t told[SEGMENTS_MAX + 1]; /* of it, in the trace */
};
struct cluster_placement {
	bool is_used;
	bool has_record, has_key; /* in the store: of the volume, of where it lies */
	struct uuid volume;
	uint64_t disks[SEGMENTS_MAX]; /* the same, of each segment */
};
#define PLACEMENTS_MAX 64u /* of all volumes that there ever were */

/* ---- volumes, as the test knows them ---- */

/* A command may have done this, and the store will tell. */
enum doubt { DOUBT_NONE, DOUBT_EXISTS, DOUBT_GONE };

struct model_snapshot {
	char name[8]; /* "": none */
	enum doubt doubt;
	struct point *point; /* NULL: it is being made */
};

struct model_volume {
	char name[8]; /* "": none */
	enum doubt doubt;
	uint32_t number, min_replicas, n_segments; /* min_replicas: when it was made */
	struct oracle_volume *cells;
	struct model_snapshot snapshots[SNAPSHOTS_EACH];
	uint32_t n_ios; /* under way */
	bool is_quiet;  /* a command needs it without requests */
	bool has_ballast;
	uint32_t rotten[SEGMENTS_MAX]; /* 1 + the disk whose copy of it may rot: the others are good; 0: none yet */
	bool is_lost;                  /* the last current copy of a part of it was removed by force */
	struct {
		struct point *point; /* that it may have been rolled back to; NULL: no doubt of that kind */
		uint64_t live_tree;  /* before */
	} rollback;
	uint64_t generation; /* of the newest head that was seen to serve */
	struct cluster_facts facts;
};

/* ---- requests ---- */

struct cluster_io {
	struct volume_io io;
	struct cluster *cluster;
	struct iovec iov;
	uint8_t *memory;        /* of IO_BLOCKS_MAX blocks */
	bool is_used, is_stale; /* a newer head served when it was submitted */
	struct cluster_node *node;
	struct model_volume *volume;
	uint64_t generation;
	uint32_t first_cell, n_cells;
	uint32_t request;        /* of the oracle: a change */
	struct oracle_mark mark; /* a read, a flush: what it must see */
	uint64_t started_ns;
};

struct cluster_order {
	struct set_command command;
	struct cluster *cluster;
	bool is_used;
	struct cluster_node *node;
	struct model_volume *volume; /* NULL: it is about a disk */
	struct model_volume *clone;
	struct model_snapshot *snapshot;
	struct cluster_disk *disk;
	struct oracle_mark mark;
	void (*ended)(struct cluster_order *o, int res); /* what it has come to; NULL: nothing that matters */
};

#define ROT_MAX       64u
#define ROT_FLIPS_MAX 8u
/* A block of a disk, with this content wherever it has it. */
struct rot {
	enum rot_state { ROT_NONE, ROT_WAITS, ROT_DONE } state;
	struct cluster_disk *disk;
	struct model_volume *volume;
	uint32_t cell, volume_number;
	uint64_t token, checkpoint;
	struct {
		uint64_t block;
		uint32_t bit;
	} flips[ROT_FLIPS_MAX];
	uint32_t n_flips;
};

/* What else happens in a seed, a bit each. Those below tell the stories that they told before there were any. */
#define SEEDS_PLAIN      10000u
#define SEEDS_UNSCRUBBED 30000u /* below it disks are scrubbed at the end alone, and copies not compared */
enum habit {
	HABIT_REPLICAS = 1,     /* volumes get more copies, and fewer */
	HABIT_NODES = 2,        /* whole nodes are drained */
	HABIT_DISKS = 4,        /* disks are added, and removed by force */
	HABIT_BALLAST = 8,      /* volumes are large enough to rebalance disks that are added */
	HABIT_CLOCKS = 16,      /* clocks differ, and wall clocks jump */
	HABIT_ROT = 32,         /* bits of blocks at rest turn over */
	HABIT_KEEP_DRAINS = 64, /* what is to be drained at the end must become empty */
	HABIT_LAST = HABIT_KEEP_DRAINS
};

struct cluster {
	uint64_t seed;
	bool is_traced;
	struct sim *sim;
	struct cluster_store *store;
	struct metadata_watch watch; /* of the store itself */
	struct uuid id, pool;
	struct cluster_node nodes[NODES_MAX];
	uint32_t n_nodes;
	struct cluster_disk disks[DISKS_MAX];
	uint32_t n_disks;
	struct model_volume volumes[VOLUMES_MAX];
	struct cluster_placement placements[PLACEMENTS_MAX];
	struct cluster_io ios[IOS_MAX];
	struct cluster_order orders[ORDERS_MAX];
	uint32_t next_name;
	bool is_quiet;          /* nothing more is to go wrong: every error is one */
	bool is_keeping_drains; /* at the end: what is drained is to become empty */
	uint32_t habits;
	bool is_scrubbing; /* disks are scrubbed now and then */
	uint64_t removed;  /* bit per disk: by force, or otherwise, as the store says */
	struct rot rot[ROT_MAX];
	bool node_is_draining[NODES_MAX]; /* as the store says */
	struct cluster_totals totals;
};

/* ---- cluster_node.c ---- */

_Noreturn void cluster_fail(struct cluster *c, const char *format, ...) printf_like(2, 3);
/* A line of the trace. */
void cluster_say(struct cluster *c, const struct cluster_node *n, const char *format, ...) printf_like(3, 4);
void cluster_tell_events(struct cluster *c);
uint64_t pick(struct cluster *c, uint64_t n);
static inline bool one_in(struct cluster *c, uint64_t n)
{
	return pick(c, n) == 0;
}

void cluster_open(struct cluster *c, uint64_t seed, bool is_traced);
void cluster_close(struct cluster *c);
void cluster_count_events(struct cluster *c); /* into the totals */
/* Lets time pass; nodes whose crash is due crash, and those whose time has come are started. */
void cluster_pass(struct cluster *c, uint64_t duration_ns);
/* The same until the claim holds, at most so long; false: it does not. */
bool cluster_until(struct cluster *c, bool (*holds)(struct cluster *c), uint64_t limit_ns);
void node_start(struct cluster_node *n);
void node_stop(struct cluster_node *n); /* begins to */
void node_crash(struct cluster_node *n, enum sim_crash_kind kind, uint64_t down_ns);
static inline bool node_is_awake(const struct cluster_node *n)
{
	return n->state == NODE_UP && !n->paused_until_ns;
}
/* The store gets a record of it, at once or never. Time passes. 0 or -errno: then it may have one. */
int store_put_disk(struct cluster *c, const struct cluster_disk *d);
/* The disk of the cluster with this UUID; DISKS_MAX: there is none. */
uint32_t cluster_disk_number(const struct cluster *c, const struct uuid *uuid);
static inline bool disk_is_there(const struct cluster_disk *d)
{
	return !d->is_spare && !d->is_away;
}
/* The node's own view of its disk; NULL: it does not run. */
struct set_disk *node_disk(const struct cluster_node *n, const struct cluster_disk *d);

/* ---- cluster_facts.c ---- */

void facts_watch(struct cluster *c);
void facts_close(struct cluster *c);
struct model_volume *volume_by_uuid(struct cluster *c, const struct uuid *uuid);
/* Something in the store that belongs to no volume the test knows; NULL: nothing does. */
const char *facts_left_over(struct cluster *c);
/* Where the segment lies, bit per disk of the cluster. */
uint64_t facts_placed(struct cluster *c, const struct model_volume *v, uint32_t segment);
void facts_power_lost(struct cluster *c, uint64_t disks);
/* Every key with this prefix; the items are the caller's to clear. */
void facts_list(struct cluster *c, const char *prefix, struct metadata_request *q);
bool facts_have_snapshot(struct cluster *c, const struct model_volume *v, const char *name);

/* ---- cluster_client.c ---- */

void clients_open(struct cluster *c);
void clients_close(struct cluster *c);
void client_act(struct cluster *c, struct model_volume *v); /* a request, if there is a head for it */
void clients_knock(struct cluster *c,
		   struct cluster_node *n); /* it goes on after a pause: they are the first that it hears */
void clients_forget(struct cluster *c, const struct cluster_node *n); /* its process has died */
bool clients_are_idle(struct cluster *c);
/* The node's head of the volume that clients reach; NULL: there is none. */
struct volume *client_head(const struct cluster_node *n, const struct model_volume *v);
/* Reads a cell of a head; waits. 0 or -errno. */
int client_read(struct cluster *c, struct volume *head, uint32_t cell, uint64_t *token);
uint64_t cell_block(uint32_t cell);
/* Makes every segment large, at the head that serves; waits. */
void client_fill_ballast(struct cluster *c, struct model_volume *v);
/* Is it still there? */
void client_check_ballast(struct cluster *c, struct model_volume *v, struct volume *head);
#define BALLAST_BLOCKS 448u
static inline uint64_t ballast_block(uint32_t segment)
{
	return segment * SEGMENT_BLOCKS + 1024;
}

/* ---- cluster_orders.c ---- */

struct model_volume *order_create_volume(struct cluster *c, uint32_t replicas, uint32_t min_replicas);
void volume_forget(struct model_volume *v);  /* the test knows it no more */
void order_act(struct cluster *c);           /* some command */
void order_attach_lost(struct cluster *c);   /* what nobody has attached is attached somewhere */
void order_detach_broken(struct cluster *c); /* what has one copy, on a disk that failed meanwhile, is attached anew */
void orders_forget(struct cluster *c, const struct cluster_node *n);
bool orders_are_idle(struct cluster *c);
struct cluster_order *order_free(struct cluster *c); /* NULL: none is */
void order_give(struct cluster *c, struct cluster_order *o);
/* Where the volume is served, or, or without a volume, any that is awake; NULL: none is. */
struct cluster_node *order_node(struct cluster *c, const struct model_volume *v);
/* What a rollback has come to is seen at the head that serves now. */
void rollback_decide(struct model_volume *v, const struct volume *head);
struct set_command order_command(enum set_command_kind kind, const struct model_volume *v,
				 const struct model_snapshot *s); /* s: NULL or one of the volume's */
/* Waits for its answer: 0 or -errno, with the reason in command->why. */
int order_wait(struct cluster *c, struct cluster_node *n, struct set_command *command);

/* ---- cluster_upkeep.c ---- */

void upkeep_drain_disk(struct cluster *c, struct cluster_order *o);
void upkeep_remove_disk(struct cluster *c, struct cluster_order *o);
void upkeep_add_spares(struct cluster *c);    /* all of them */
void upkeep_act(struct cluster *c);           /* some command of those that only some seeds have */
void upkeep_return_disks(struct cluster *c);  /* what has failed is opened anew */
void upkeep_cancel_drains(struct cluster *c); /* nothing shall move while it is compared */
void upkeep_delete_lost(struct cluster *c);   /* what was given up is detached, and deleted */

/* ---- cluster_spread.c ---- */

/* What of the volume lies otherwise than it is to; NULL: nothing. */
const char *spread_trouble(struct cluster *c, const struct model_volume *v);
/* Something is left on the disk, which is drained, that has another place; NULL: nothing. */
const char *spread_drain_trouble(struct cluster *c, const struct cluster_disk *d);
const char *spread_node_trouble(struct cluster *c, const struct cluster_node *n); /* the same of a node */
/* Bit per disk where each of its segments has another current copy: volumes can do without any one of them. */
uint64_t spread_spare(struct cluster *c);

/* ---- cluster_faults.c ---- */

void fault_act(struct cluster *c);                       /* something goes wrong */
void faults_pass(struct cluster *c, uint64_t passed_ns); /* what lasts may end */
void faults_heal(struct cluster *c);

void fault_jump(struct cluster *c); /* somebody sets a clock */

/* ---- cluster_rot.c ---- */

void rot_act(struct cluster *c);       /* a block is chosen */
void rot_pass(struct cluster *c);      /* those chosen rot when a checkpoint holds them */
void rot_scrub(struct cluster *c);     /* a scrub of some disk begins, and the copies of some volume are compared */
void rot_scrub_all(struct cluster *c); /* of each; waits, and fails if anything is left */

/* ---- cluster_judge.c ---- */

void cluster_judge(struct cluster *c);

/* ---- cluster_schedule.c ---- */

struct cluster_totals cluster_run(uint64_t seed, bool is_traced);
