/*
 * set_internal.h: what the files of the set share about its copies of the store, its disks and its commands: set_*.c, reaper.c,
 * deleted.c. One reactor owns everything here, as in head_internal.h, which includes it.
 */
#pragma once

#include "daemon/metadata/metadata.h"
#include "volumes/head/facts.h"
#include "volumes/head/volume_set.h"

struct command;
struct deleted;
struct deleted_list;
struct reap;
struct set_disk;
struct set_pool;
struct set_volume;
struct transaction;

/* ---- set_load.c: this node's copy of what the store holds ---- */

struct set_load {
	unsigned stage;
	int err;
	struct volume_set *set;
	struct metadata_request request;
	void (*done)(struct set_load *l, int res); /* 0, or what the store said */
	void *context;
};
/* Reads pools, disks and volumes, and brings the set's copies up to date. What cannot be used is an event and left
 * out. */
void set_load_start(struct set_load *l, struct volume_set *s, void (*done)(struct set_load *l, int res), void *context);

/* One key that has changed, in the order of changes; value NULL: it is gone. What is older than the copy is nothing
 * new. */
void set_load_apply(struct volume_set *s, const struct metadata_item *item);

struct set_pool *set_pool_find(struct volume_set *s, const char *name);
struct set_volume *set_volume_find(struct volume_set *s, const char *name);           /* not those being deleted */
struct set_volume *set_volume_by_uuid(struct volume_set *s, const struct uuid *uuid); /* or NULL */
struct set_disk *set_disk_by_uuid(struct volume_set *s, const struct uuid *uuid);     /* or NULL */
/* The same; one that nobody knows is taken in as absent, so that what lies there is still accounted for. NULL: no
 * room. */
struct set_disk *set_disk_known(struct volume_set *s, const struct uuid *uuid);
/* Takes the facts over (of a volume: its memory too); NULL: no memory or, of disks, no room. */
struct set_pool *set_pool_put(struct volume_set *s, const struct pool_facts *facts);
struct set_volume *set_volume_put(struct volume_set *s, struct volume_facts *facts);
struct set_disk *set_disk_put(struct volume_set *s, const struct disk_facts *facts);
void set_pool_remove(struct set_pool *p);
void set_volume_gone(struct set_volume *v); /* the store does not hold it any more, and nothing is under way for it */
void set_disk_forget(struct set_disk *d);   /* nothing names it any more */
/* Another node has removed it, by force: it is not used any more. Between two commands; it may be gone after. */
void set_disk_take_out(struct set_disk *d);
void set_volume_sort(struct set_volume *v); /* its name has changed */
struct uuid set_random_uuid(struct volume_set *s);

/* ---- deleted.c ---- */

struct deleted deleted_make(const char *kind, const char *name);
/* Was it deleted lately, by any of its names? To be asked about what is not there. */
bool deleted_has(const struct volume_set *s, const char *kind, const char *name);
/* In the transaction that deletes it. */
void deleted_put(const struct volume_set *s, struct transaction *t, const struct deleted *d);
void deleted_add(struct volume_set *s, const struct deleted *d); /* the store has it */
must_check int deleted_from_json(const char *text, struct deleted_list *out, char why[static WHY_BYTES]);

/* ---- set_disks.c ---- */

#define DISK_CACHE_MIN_BYTES (4 * MIB) /* below this a disk is not opened */
/* Volumes that use the disk, as names in a row ("a, b and 3 more"); returns how many. */
uint32_t set_disk_users(const struct set_disk *d, char *names, size_t room);

/* Begins to open a disk; changed() is called when it runs or has failed. 0 or -errno with d->why. */
must_check int set_disk_open(struct set_disk *d, void (*changed)(struct set_disk *d, void *context), void *context);
/* changed() is called when it is closed. */
void set_disk_close(struct set_disk *d, void (*changed)(struct set_disk *d, void *context), void *context);
void set_explain(struct volume_set *s);        /* what the volumes say of themselves has changed */
void set_disk_leave_heads(struct set_disk *d); /* nothing more is asked of it in any session */
/* It runs again: what waited for it goes on. Volumes that were attached meanwhile are to be attached again. */
void set_disk_returned(struct set_disk *d);
/* Finds the disk the command is about, or refuses. */
must_check int command_find_disk(struct command *c);
/* By name, path or UUID. */
struct set_disk *set_disk_find(struct volume_set *s, const char *object);

/* ---- reaper.c: deletes volumes in the background ---- */

void reap_start(struct set_volume *entry); /* it is recorded as being deleted */
bool reap_stop(struct set_volume *entry);  /* true: it has stopped; false: asks again, something is under way */
void reap_abandon(struct reap *r);
void reap_leave_disk(struct set_volume *entry, const struct set_disk *d); /* its sessions have ended */
void reaps_resume(struct volume_set *s); /* a disk is back, or was given up: those that waited look again */

/* ---- set_commands.c: see command_internal.h, too ---- */

void commands_init(struct volume_set *s);
void commands_abandon(struct volume_set *s);
/* The next one in line may run. */
void commands_wake(struct volume_set *s);

/* ---- set_snapshots.c, set_sweep.c, set_clone.c, set_exports.c, set_schedule.c, measure.c, changes.c ---- */

/* Trees of the volume are to be dropped, and then forgotten: soon, as a command of the set's own. */
void sweep_want(struct set_volume *entry);
/* A command of the set's own about the volume, unless one of the kind is in line. Without memory there is none: who wants it
 * looks again some time. */
void order_own(struct set_volume *entry, enum set_command_kind kind);
/* The same about no volume; done() calls set_own_ended(), which frees it. */
void set_order_own(struct volume_set *s, enum set_command_kind kind, void (*done)(struct set_command *o, int res));
struct volume_set *set_own_ended(struct set_command *o);
/* Gives up what was ordered by the set itself and has not begun. */
void order_free_internal(struct set_command *o);
/* The schedules are looked at when the next is due. */
void schedules_init(struct volume_set *s);
void schedules_plan(struct volume_set *s);
void schedules_stop(struct volume_set *s);
uint64_t schedule_next_ns(const struct set_volume *entry); /* wall clock; 0: it has none */
/* Snapshots of the volume that were attached here are served again. */
void exports_return(struct set_volume *entry);

/* ---- set_start.c, set_stop.c ---- */

void set_free(struct volume_set *s);
void set_start_look(struct volume_set *s); /* a disk of another node has come or gone */
void set_stop_run(struct volume_set *s);   /* something it may wait for has happened */
