/*
 * head_world.h: a volume set with real disks on a simulated machine, for the tests of volumes/head.
 *
 * The metadata store is the one in memory; it and the disks outlive the set, so a test may stop or crash it and start
 * again. Calls that say "waits" step the world until it is done.
 */
#pragma once

#include "replication/peer_server.h"
#include "tests/sim/sim.h"
#include "volumes/head/head_internal.h"

#define WORLD_CACHE_BYTES (64 * MIB)
#define WORLD_STEPS_MAX   3000000u
#define WORLD_LEASE_NS    (2 * NS_PER_S)
#define WORLD_PEERS_MAX   4u

struct head_world {
	struct sim *sim;
	struct sim_machine *machine;
	struct metadata *metadata;
	struct log *log;
	struct volume_set *set; /* NULL: not started */
	bool is_cluster;        /* the set is one of several on the store, and needs a lease */
	struct members *members;
	const char *about;                        /* what it tells of itself; NULL: nothing */
	void (*disks_open)(struct head_world *w); /* called when a start has come so far; NULL: nothing is */
	/* Other nodes are let in, and asked: see world_connect(). */
	bool has_peers;
	struct peer_server *server;
	struct buffers *buffers;
	struct world_peer {
		struct head_world *world;
		struct peer_client *client;
		char node[16], address[16];
	} peers[WORLD_PEERS_MAX];
	struct head_world *first; /* whose machine and store it shares; NULL: they are its own */
	struct uuid cluster, pool;
	uint64_t cache_bytes;  /* of the next start; 0: WORLD_CACHE_BYTES */
	const char *node_name; /* the same; NULL: "n1" */
	uint32_t n_disks;
	uint32_t n_parts; /* of the set, 0: as many as usual */
	bool is_done;
	int res;
	char why[SET_WHY_BYTES];
};

void world_open(struct head_world *w, uint64_t seed);
/* Another node of a cluster, on the same machine and store; closed before the first. The first is in a cluster, too. */
void world_open_beside(struct head_world *w, struct head_world *first, const char *node_name);
void world_close(struct head_world *w); /* stops the set first */
/* A formatted disk "NODE-dN" with the path "dN", registered in the store; before the set starts. */
void world_add_disk(struct head_world *w, uint64_t size_bytes);
/* A key of the store and its value, which is freed. */
void world_put(struct head_world *w, const char *key, char *value);
/* Its value in the store, to be freed; waits. */
char *world_get(struct head_world *w, const char *key);
/* From now on nothing is heard of the store: what it is asked may be carried out, or later, or never. Or it answers again. */
void world_hide_store(struct head_world *w, bool is_hidden);
/* Ends the node's lease behind its back; waits. */
void world_end_lease(struct head_world *w);
struct sim_file *world_disk_file(struct head_world *w, uint32_t number);
/* Waits; returns what ready() said. */
int world_start(struct head_world *w);
void world_stop(struct head_world *w); /* waits */
void world_crash(struct head_world *w, enum sim_crash_kind kind);

/* The node's heads can ask the other for its disks from now on, once it has answered; and no more. The second waits. */
void world_connect(struct head_world *w, struct head_world *other);
void world_disconnect(struct head_world *w, struct head_world *other);

/* A command on an object, and what else it names. */
static inline struct set_command order(enum set_command_kind kind, const char *object)
{
	struct set_command c = {.kind = kind};
	text_print(c.object, sizeof(c.object), "%s", object);
	return c;
}
static inline struct set_command order_other(enum set_command_kind kind, const char *object, const char *other)
{
	struct set_command c = order(kind, object);
	text_print(c.other, sizeof(c.other), "%s", other);
	return c;
}

/* Waits for a command; why and code stay in c. */
int world_command(struct head_world *w, struct set_command *c);
/* The same without waiting. */
struct world_order {
	struct set_command command;
	bool is_done;
	int res;
};
void world_order_start(struct head_world *w, struct world_order *o);
bool world_order_is_done(void *context);
int world_create(struct head_world *w, const char *name, uint64_t size_bytes);
int world_create_copies(struct head_world *w, const char *name, uint64_t size_bytes, uint32_t replicas);
int world_attach(struct head_world *w, const char *name);
int world_detach(struct head_world *w, const char *name);
/* Creates, attaches, and gives the head; the test fails otherwise. */
struct volume *world_volume(struct head_world *w, const char *name, uint64_t size_bytes);
struct volume *world_head(struct head_world *w, const char *name); /* NULL: not attached */

/* Commands on "NAME@SNAP"; wait. The last one's why stays in w->why. */
int world_snapshot(struct head_world *w, const char *name);
int world_snapshot_delete(struct head_world *w, const char *name);
int world_rollback(struct head_world *w, const char *name);
int world_clone(struct head_world *w, const char *name, const char *clone);
/* The head of a snapshot that is attached; NULL: it is not. */
struct volume *world_export(struct head_world *w, const char *name);
struct set_measure world_measure(struct head_world *w, const char *name);
/* Extents of the volume (or NAME@SNAP) that may differ from a snapshot; to be freed. */
struct set_changes world_changes(struct head_world *w, const char *name, const char *since);

/* One request; waits. */
int world_write(struct head_world *w, struct volume *v, uint64_t pos, const void *data, uint64_t len, unsigned flags);
int world_read(struct head_world *w, struct volume *v, uint64_t pos, void *data, uint64_t len);
/* The same, of memory in n_iov segments: the last one takes what is left of sectors. */
int world_write_cut(struct head_world *w, struct volume *v, uint64_t pos, void *data, uint64_t len, uint32_t n_iov);
int world_read_cut(struct head_world *w, struct volume *v, uint64_t pos, void *data, uint64_t len, uint32_t n_iov);
int world_op(struct head_world *w, struct volume *v, enum volume_op op, uint64_t pos, uint64_t len, unsigned flags);
/* The same without waiting: `io` says what is asked, `iov` of which memory. */
struct world_request {
	struct volume_io io;
	struct iovec iov;
	bool is_done;
	int res;
};
void world_request_start(struct volume *v, struct world_request *r);
bool world_request_is_done(void *context);
/* What may differ between a base and its volume, from the start; without waiting. */
struct world_comparison {
	struct volume_changes changes;
	struct volume_extent extents[8], scratch[VOLUME_CHANGES_SCRATCH];
	bool is_done;
	int res;
};
void world_comparison_start(struct world_comparison *c, struct volume_base *base, uint64_t len_bytes);
bool world_comparison_is_done(void *context);
/* The extents of a range; returns how many. */
uint32_t world_map(struct head_world *w, struct volume *v, uint64_t pos, uint64_t len, struct volume_extent *out,
		   uint32_t max);
/* Steps the world until the predicate holds; the test fails if it never does. */
void world_until(struct head_world *w, bool (*is_done)(void *context), void *context);
void world_let_pass(struct head_world *w, uint64_t duration_ns);
uint32_t world_events(struct head_world *w, const char *code);   /* how many with this code */
const char *world_event(struct head_world *w, const char *code); /* what the last of them says */
/* 4 KiB-aligned memory. */
void *world_memory(size_t len_bytes);
