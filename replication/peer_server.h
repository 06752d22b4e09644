/*
 * peer_server.h: the disks of this node, served to the heads of other nodes.
 *
 * A node connects, greets, and begins sessions: one for each volume and disk that its heads use. A session lives in the
 * connection that its HELLO came in, and ends with it, with the next HELLO for the volume on that disk, when a head of
 * this node fences the volume there, when the volume is forgotten, and when the disk closes. A request of another
 * session or generation than the disk's newest is refused [SESSION]. The ids of a connection's messages grow, so
 * nothing is applied twice.
 *
 * What never changes, a snapshot's tree, is read without a session: a disk that was closed or a tree that was dropped is
 * then not found. And a node is told which disks it may ask, and what they have room for.
 *
 * What a node sends that no node would (a malformed message, an id that does not grow, more than PEER_REQUESTS_MAX
 * requests without waiting for answers) costs its connection, nothing else. What a volume's head asks of the disk
 * besides stands in volumes/disk/disk.h; the server sees to it that no tree is dropped under a request of the session.
 *
 * Owner: one reactor, that of all the disks it serves; all calls on its thread.
 */
#pragma once

#include "daemon/core/buffers.h"
#include "replication/peer_connection.h"
#include "volumes/disk/disk.h"

struct peer_server;

/* A request of the control API that another node has sent on. */
struct peer_order {
	const char *node; /* who asks */
	const char *text; /* of text_bytes, not ended by a zero; there until it is answered */
	uint32_t text_bytes;
};
/* The answer, once. The text is of 1 to PEER_TEXT_MAX bytes, has room up to its last block's end, and is freed by the
 * server. NULL, with a status of 0: no memory for it. The order is the server's again. */
void peer_order_answer(struct peer_order *o, unsigned http_status, char *text, uint32_t text_bytes);

/* Blocks that a scrub of another node's disk has found damaged there: a head of this node may have them elsewhere. */
struct peer_damage {
	struct uuid volume, disk;
	uint64_t tree_id, first, n_blocks; /* at most PEER_READ_BLOCKS */
};
/* How it has ended, once: 0 they are whole there, or nobody's any more; -EBUSY not now; -ENOENT no such volume or tree; -EIO
 * some cannot be had, or not be rewritten. It is the server's again. */
void peer_damage_answer(struct peer_damage *d, int res);

#define PEER_SILENCE_NS    (30 * NS_PER_S) /* a node that says nothing for so long, not even PING, is gone */
#define PEER_SESSIONS_MAX  16384u
#define PEER_NODES_DEFAULT 64u

struct peer_server_options {
	struct reactor *reactor;
	struct log *log;
	struct buffers *buffers;
	struct uuid cluster;
	const char *node_name;               /* shorter than PEER_NAME_BYTES */
	const char *listen;                  /* "host:port" */
	struct tls_credentials *credentials; /* NULL: plain (peer.insecure, tests); the caller's */
	uint32_t connections_max;            /* 0: PEER_NODES_DEFAULT */
	/* The disk of this node, while it runs; NULL: there is none. */
	struct disk *(*find_disk)(const struct uuid *disk, void *context);
	/* An order has come. It is answered on any later turn, or within, whatever becomes of its node; peer_server_stop()
	 * waits for it. NULL: none are taken. */
	void (*take_order)(struct peer_order *o, void *context);
	/* The same of damage. */
	void (*take_damage)(struct peer_damage *d, void *context);
	/* All that run, at most PEER_DISKS_MAX; returns how many. NULL: none is told of. */
	uint32_t (*list_disks)(struct peer_disk *out, void *context);
	void *context;
};
/* Listens. 0, or -errno with one line in why. */
must_check int peer_server_start(const struct peer_server_options *o, char why[static PEER_WHY_BYTES],
				 struct peer_server **out);
/* Takes no new connections, ends all there are, waits for the disks to answer what they have been asked, frees the
 * server, calls stopped(). */
void peer_server_stop(struct peer_server *s, void (*stopped)(void *context), void *context);
void peer_server_abandon(struct peer_server *s); /* for the simulator: as a crash does; its buffers are the caller's */
/* The disk is about to be closed: its sessions end. Requests that it has are answered as it answers them. */
void peer_server_disk_closes(struct peer_server *s, const struct disk *disk);

struct peer_server_counters {
	counter accepted, turned_away;     /* connections; turned away: over the limit */
	counter requests, refused;         /* refused: with a status, whatever it is */
	counter fenced, damaged;           /* of these: another session or generation; a block unlike its checksum */
	counter n_connections, n_sessions; /* now; sessions whose requests are still at a disk among them */
};
const struct peer_server_counters *peer_server_counters(const struct peer_server *s);
