/*
 * command_internal.h: commands of a set, one at a time: what their files share (set_commands.c has the story).
 *
 * A command is its order's until done(); its works are parts of it that only some kinds have, each with a file of its own.
 */
#pragma once

#include "volumes/head/head_internal.h"

struct command {
	struct set_command *order;
	struct volume_set *set;
	const struct command_kind *kind;
	unsigned stage;
	int err;
	uint32_t tries;
	bool is_resuming; /* it was aside, and goes on when it is the first in line */
	struct transaction transaction;
	struct set_load load;
	struct record_update update;
	struct set_volume *volume;
	struct set_disk *disk;
	struct pool_facts pool;
	struct disk_facts disk_facts;
	struct volume_facts volume_facts;
	struct deleted deleted; /* what it deletes, once it knows */
	struct volume_io io;
	struct volume_extent extent;
	bool was_running;      /* DISK_REMOVE: the disk */
	uint64_t seen_disks;   /* DISKS_SEEN, NODE_DISKS: bit per disk */
	bool is_attached_here; /* the command attached the volume for itself */
	struct disk_maker *maker;
	bool has_loaded; /* the store was read again for it */
	struct snapshot_work *snapshots;
	struct clone_work *clone;
	struct sweep_work *sweep;
	struct measure_work *measure;
	struct changes_work *changes;
	struct set_snapshot *snapshot;
};

struct command_kind {
	const char *name;
	void (*run)(struct command *c); /* its dispatcher, first entered at stage 0 */
	/* For change_run(), one transaction: looks at the set's copies and prepares c->transaction (1), finds it done
	 * already (0), or refuses (-errno). */
	int (*decide)(struct command *c);
	void (*apply)(struct command *c, uint64_t revision); /* the store has it: so do the copies */
};
extern const struct command_kind command_disk_add, command_disk_drain, command_node_drain, command_node_disks,
    command_balance, command_rehome, command_disk_remove, command_disk_scrub, command_pool_create, command_pool_set,
    command_pool_delete, command_volume_create, command_volume_delete, command_volume_resize, command_volume_rename,
    command_volume_set, command_release, command_return, command_seen, command_takeover, command_volume_move,
    command_volume_attach, command_volume_detach, command_snapshot_create, command_snapshot_rollback,
    command_snapshot_delete, command_sweep, command_clone, command_export, command_unexport, command_schedule,
    command_measure, command_changes;

/* Sets the error, its stable code and the sentence; returns err. */
int command_refuse(struct command *c, int err, const char *code, const char *format, ...) printf_like(4, 5);
/* Nothing has that name: says so. Returns -ENOENT. */
int command_refuse_missing(struct command *c, const char *noun, const char *name);
/* The store failed with err: says so. Returns err. */
int command_refuse_store(struct command *c, int err);
void command_end(struct command *c); /* with c->err */
/* Decides, transacts, applies, decides again after a refusal; then calls kind->run with c->err. */
void change_run(struct command *c);
/* The dispatcher of a command that is nothing but one transaction. */
void command_change_run(struct command *c);
/* Checks of what was ordered: 0, or refused. */
must_check int command_check_name(struct command *c, const char *name);
must_check int command_check_size(struct command *c, uint64_t size_bytes);
int command_check_replicas(struct command *c, uint32_t replicas, uint32_t min_replicas);
must_check int command_check_pool(struct command *c, struct set_pool **out);
/* Are there failure domains for so many? Copies that would not be apart from the beginning are not promised. */
must_check int command_check_domains(struct command *c, const struct set_pool *pool, uint32_t replicas);
/* Into the transaction of a command that puts something into the pool; and when it has been carried out. */
void command_enter_pool(struct command *c, const struct set_pool *pool);
void command_entered_pool(struct command *c, const char *pool, uint64_t revision);
const char *order_pool(const struct set_command *o); /* the pool it names, or "default" */
void pool_facts_init(struct volume_set *s, const char *name, struct pool_facts *out);
/* Refused while the volume is being filled: `what` it cannot be. */
must_check int command_check_whole(struct command *c, const struct set_volume *entry, const char *what);
/* The volume that a command of the set's own is about; from now on another of its kind may be ordered. NULL: it is gone. */
struct set_volume *command_find_own(struct command *c);
/* Finds the volume the command is about, or refuses. */
must_check int command_find_volume(struct command *c);
/* ATTACH: is its frontend known and there, and has it so many queues? DETACH: is it known, or all? 0, or refused. */
must_check int command_check_frontend(struct command *c);
bool order_is_vhost(const struct command *c);
/* Lets the vhost-user frontend make a socket for what was attached: 0, or refused. */
must_check int command_open_door(struct command *c, struct volume *v);
/* Lets others pass: the command goes on with command_step_back_in(). */
void command_step_aside(struct command *c);
void command_step_back_in(struct command *c);

/* The volume and the snapshot of the order's first target, or refuses. */
must_check int command_find_snapshot(struct command *c);
/* Reads the store again when what is known of a volume's snapshots is in doubt. FLOW_WAIT: kind->run is called after. */
must_check enum flow command_settle_history(struct command *c, const struct set_volume *entry);

void disk_maker_abandon(struct disk_maker *m);
void snapshot_work_free(struct snapshot_work *w);
void clone_work_free(struct clone_work *w);
void sweep_work_free(struct sweep_work *w);
void measure_work_free(struct measure_work *w);
void changes_work_free(struct changes_work *w);
/* The set's own attachment of the volume ends first, for a command that needs it detached. FLOW_WAIT: kind->run is
 * called again. */
must_check enum flow command_end_rehoming(struct command *c, struct set_volume *entry);
/* The snapshot is served no more, and its clients are ended; then c->kind->run(c). */
void export_drain(struct command *c, const struct set_snapshot *snap);
/* What killed copies have left attached of the volume's snapshots is served no more. FLOW_WAIT: not yet, c runs again. */
must_check enum flow exports_end_left(struct command *c);

/* Is the node given anything new? 0, or refused: it is being drained. */
must_check int command_check_node_takes(struct command *c, const char *node);

/* ---- set_drain.c ---- */

/* What is to be left: a disk, or all of a node. */
struct leaving {
	uint64_t disks; /* bit per disk */
	const char *noun, *name;
};
/* Have the other disks room for what lies there, and are they in failure domains enough? 0, or refused. */
must_check int drain_check_rest(struct command *c, const struct leaving *leaving);

/* ---- set_older.c ---- */

void set_disk_look(struct set_disk *d);   /* it is open, or has just been closed: how far it is */
void set_seen_want(struct volume_set *s); /* the store is told how far the disks are, if it does not know */
/* Into the transaction what the store does not know: bit per disk; 0: nothing. And when it has been carried out. */
uint64_t set_seen_tell(struct volume_set *s, struct transaction *t);
void set_seen_told(struct volume_set *s, uint64_t disks, uint64_t revision);

/* For disk add: the next volume's record, FLOW_WAIT: kind->run is called after; then the disk's key. */
must_check enum flow older_accept_volumes(struct command *c);
must_check int older_accept_decide(struct command *c);
void older_accept_apply(struct command *c, uint64_t revision);
