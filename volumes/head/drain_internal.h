/*
 * drain_internal.h: disks and nodes that are to be empty: set_drain.c, set_node_drain.c.
 *
 * One reactor owns everything here, as in head_internal.h, which includes it.
 */
#pragma once

#include "volumes/head/volume_set.h"

struct set_disk;
struct set_volume;

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
