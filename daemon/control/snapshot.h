/*
 * snapshot.h: views of a node's objects with their counters, copied on the reactor, read on the API's thread.
 *
 * Making a text of them takes longer than copying them, and the reactor has volumes to serve.
 */
#pragma once

#include "daemon/metadata/members.h"
#include "daemon/peers.h"
#include "frontends/nbd/nbd_server.h"
#include "frontends/vhost-user/vhost_server.h"
#include "volumes/head/volume_set.h"

enum {
	SNAPSHOT_DISKS = 1,
	SNAPSHOT_VOLUMES = 2,
	SNAPSHOT_POOLS = 4,
	SNAPSHOT_NBD = 8,
	SNAPSHOT_SLOW = 16,    /* lines of slow requests */
	SNAPSHOT_HISTORY = 32, /* snapshots of volumes */
	SNAPSHOT_NODES = 64,   /* of a cluster */
};

struct snapshot_disk {
	struct disk_view view; /* counters: NULL or a copy that the snapshot owns */
	struct disk_room room; /* of a disk of another node; wall_ns 0: it has not told */
};
struct snapshot_volume {
	struct volume_view view;                            /* the same */
	uint32_t n_nbd_clients, n_vhost_clients, n_fillers; /* n_fillers: connections to its export for them */
};

struct snapshot_node {
	struct member_view view; /* about: a copy that the snapshot owns */
	enum peer_answer answer;
	struct node_drain_view drain;
};

struct snapshot {
	unsigned parts;          /* SNAPSHOT_...: what was asked for */
	unsigned only_parts;     /* of these only the objects that are named: */
	char only[SET_TEXT_MAX]; /* name; of a disk: name, UUID or path; of snapshots: their volume's, or NAME@SNAP */
	uint64_t slow_age_ns;
	bool is_short; /* there was no memory for some of it */
	uint64_t now_ns;

	struct snapshot_disk *disks;
	struct disk_adding_view *adding;
	struct snapshot_volume *volumes;
	struct pool_view *pools;
	struct snapshot_view *snapshots;
	struct snapshot_node *nodes; /* none where the store is this node's alone */
	char **lines;
	size_t n_disks, n_adding, n_volumes, n_pools, n_snapshots, n_nodes, n_lines;
	struct balance_view balance; /* with SNAPSHOT_POOLS */
	struct nbd_counters nbd;     /* zeros when there is no server */
	struct vhost_counters vhost;
	bool is_metadata_broken;
	uint64_t buffers_used_bytes, buffers_budget_bytes;
};

struct snapshot_sources {
	struct reactor *reactor;
	struct volume_set *volumes;
	struct metadata *metadata; /* NULL: not looked at */
	struct members *members;   /* NULL: there is no cluster */
	struct peers *peers;       /* NULL: other nodes are not spoken to; else, whether one answers: */
	enum peer_answer (*peer_answer)(const struct peers *p, const char *node);
	const struct disk_room *(*peer_room)(const struct peers *p, const char *node, const struct uuid *disk);
	int (*peer_order)(struct peers *p, const char *node, struct peers_order *o); /* peers_order_send() */
	struct nbd_server *nbd;                                                      /* NULL: none */
	struct vhost_server *vhost;                                                  /* NULL: none */
	struct buffers *buffers;                                                     /* NULL: none */
};

/* On the reactor. `parts`, `only` and `slow_age_ns` are set, the rest zeros. */
void snapshot_take(struct snapshot *s, const struct snapshot_sources *from);
/* Any thread. */
void snapshot_clear(struct snapshot *s);
/* The name of a disk in the snapshot; NULL: it is not there. */
const char *snapshot_disk_name(const struct snapshot *s, const struct uuid *disk);
