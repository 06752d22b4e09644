/*
 * damage_internal.h: what scrubs of this node's disks have found damaged, on its way to be healed (damage.c), and heals that
 * this node's heads do (damage_heal.c).
 *
 * Owner: the set.
 */
#pragma once

#include "replication/peer_client.h"
#include "replication/peer_server.h"

struct set_disk;
struct set_volume;
struct volume_set;

struct damage_place {
	struct peer_damage
	    at;            /* a range of one tree, on a disk of this node, from its first to its last damaged block */
	uint64_t bad;      /* bit per block of it: those that were found */
	uint64_t scrub_ns; /* when the scrub began that has found it */
	uint64_t after_ns; /* not before that again */
	uint64_t delay_ns; /* since the last try; 0: it has not been tried */
};

/* The places that wait, in the order in which they were found or put off. */
struct damage {
	struct damage_place *places;
	uint32_t n, room;
	bool is_busy; /* `now` is being healed: */
	struct damage_place now;
	struct peer_call call; /* by another node */
	struct timer timer;    /* for the next, which is not begun before: */
	uint64_t rest_until_ns;
	bool is_full; /* which has been told */
};

/* ---- damage.c ---- */

void damage_init(struct volume_set *s);
void damage_fini(struct volume_set *s);
/* A scrub of the disk, of this node, has found the block damaged. */
void damage_note(struct set_disk *d, const struct uuid *volume, uint64_t tree, uint64_t block);
void damage_stop(struct volume_set *s);          /* nothing more is begun */
bool damage_is_busy(const struct volume_set *s); /* something is under way; set_stop_run() follows */
/* Is a place on the disk being healed, or about to be? */
bool damage_is_healing(const struct set_disk *d);

/* ---- damage_heal.c ---- */

/* Has the set attached it, or is it to, so that it can be healed? */
bool heal_wants_head(const struct set_volume *entry);
void heals_abandon(struct volume_set *s);
