/*
 * drain_internal.h: disks and nodes that are to be empty (set_drain.c, set_node_drain.c), or emptier (balance.c,
 * set_balance.c).
 *
 * One reactor owns everything here, as in head_internal.h, which includes it.
 */
#pragma once

#include "volumes/head/volume_set.h"

struct move_order;
struct set_disk;
struct set_volume;
struct volume;

/* A node that is being drained. */
struct set_node_drain {
	struct list link; /* the set's */
	char node[VOLUME_NAME_MAX + 1];
	uint64_t revision; /* of its key */
};

/* ---- set_drain.c ---- */

void drains_init(struct volume_set *s);
void drains_look(struct volume_set *s); /* is a disk to be left? Soon it is seen to that its volumes do */
void drains_stop(struct volume_set *s);
/* Is it given up: removed by force, or away for long enough? Then its copies are made anew elsewhere. */
bool set_disk_is_gone(const struct set_disk *d);
void drain_view(const struct set_disk *d, struct disk_view *view);
uint64_t drain_bytes(const struct set_disk *d);  /* of data that lie there; of another node's disk: 0 */
const char *drain_why(const struct set_disk *d); /* what is known to keep a volume from leaving it, else "" */
/* How long the rest takes if it goes on as until now; 0: not known yet. */
uint64_t drain_eta_s(uint64_t from_bytes, uint64_t left_bytes, uint64_t took_ns);

/* ---- set_node_drain.c ---- */

bool set_node_is_draining(const struct volume_set *s, const char *node);
/* The store says that it is: 0, -EINVAL: that is no name, or -ENOMEM. And that it is no more, from this revision on. */
must_check int node_drain_put(struct volume_set *s, const char *node, uint64_t revision);
void node_drain_take_out(struct volume_set *s, const char *node, uint64_t revision);
void node_drains_fini(struct volume_set *s);
/* Sees to this node's own: true: it is to look again some time. */
must_check bool node_drain_look(struct volume_set *s);
/* Is the volume to be handed over because this node is being drained? Then to whom. */
must_check bool node_drain_choose(const struct set_volume *entry, char *node, size_t room);

/* ---- balance.c: disks of a pool that are much fuller than others ---- */

#define BALANCE_START 200u /* thousandths of a disk that two differ by: it begins, */
#define BALANCE_STOP  100u /* and goes on until they differ by less */
/* How far the fullest and the emptiest disk of the pool that run are apart, in thousandths of their size. NULL: none. */
uint32_t balance_gap(const struct volume_set *s, const char *pool, const struct set_disk **fullest,
		     const struct set_disk **emptiest);
uint32_t balance_fill(const struct set_disk *d); /* percent */
/* About so much is to move until the disks of the pool are as far apart as BALANCE_STOP. */
uint64_t balance_left_bytes(const struct volume_set *s, const char *pool);
/* Should segments that lie on these disks move, to a disk that is none of the refused? */
bool balance_concerns(struct volume *v, uint64_t disks, uint64_t refused);
/* Of a segment on order->disks: sets out, target and max_bytes. 0 or -ENOSPC. */
must_check int balance_plan(struct volume *v, uint64_t refused, struct move_order *order);
bool balance_may_help(const struct set_volume *entry); /* could a segment of it move, as far as is known? */

/* ---- set_balance.c ---- */

struct set_balance {
	char node[VOLUME_NAME_MAX + 1]; /* that has the lock, as the store says; "": none that is known */
	bool is_locked;
	uint64_t revision;      /* of its key, or of its end */
	bool is_wanted;         /* this node wants it */
	bool is_seen;           /* at the last look there was something to do */
	bool is_on, has_volume; /* this node moves; this volume has its turn: */
	bool is_without_head;   /* that volume had none at the last look */
	struct uuid volume;
	uint64_t began_ns; /* when it was turned on; since then: */
	uint64_t n_moved, moved_bytes;
	struct timer timer;
};
void balance_init(struct volume_set *s);
void balance_start(struct volume_set *s); /* it looks some time after */
void balance_look(struct volume_set *s);  /* soon */
void balance_stop(struct volume_set *s);
/* The value of the lock's key; NULL: it is gone. false: it cannot be read. */
bool balance_put(struct volume_set *s, const char *text, uint64_t revision);
bool balance_is_wanted(const struct set_volume *entry); /* has the volume its turn? */
void balance_turn_over(struct set_volume *entry, uint64_t n_moved, uint64_t moved_bytes);
