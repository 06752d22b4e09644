/*
 * peers.h: the other nodes of a cluster as this one speaks to them: its disks served to them, whether they answer, how
 * full their disks are, and requests of the control API sent on to them.
 */
#pragma once

#include "daemon/config.h"
#include "daemon/core/buffers.h"
#include "daemon/disk_rooms.h"
#include "daemon/metadata/members.h"
#include "replication/peer_client.h"
#include "replication/peer_server.h"
#include "volumes/head/volume_set.h"

struct peers;

#define PEERS_WHY_BYTES 300

struct peers_options {
	struct reactor *reactor;
	struct log *log;
	struct buffers *buffers;
	const struct config *config; /* borrowed until the end; peer.listen is set */
	struct members *members;
	struct volume_set *volumes;
};
/* Listens on peer.listen, and connects to every node that is alive and has an address of that kind. 0, or -errno
 * with why, which begins with the key. */
must_check int peers_start(const struct peers_options *o, char why[static PEERS_WHY_BYTES], struct peers **out);
/* Ends all connections, waits for the disks to answer, frees everything, calls stopped(). */
void peers_stop(struct peers *p, void (*stopped)(void *context), void *context);

void peers_abandon(struct peers *p); /* for the simulator: as a crash does */

enum peer_answer { PEER_NOT_ASKED, PEER_ANSWERS, PEER_IS_SILENT };
enum peer_answer peers_answer(const struct peers *p, const char *node);

/* How full the disk of that node was when it was asked last; NULL: it has not told, or is not there any more. */
const struct disk_room *peers_room(const struct peers *p, const char *node, const struct uuid *disk);

/* ---- requests of the control API ---- */

#define PEERS_ORDERS_MAX                                                                                               \
	16u /* to one node, not yet answered: they may take long, and its heads' requests must not wait */

struct peers_order {
	/* set by the caller */
	char *text; /* of text_bytes, with room up to its last block's end: forward_text.h */
	uint32_t text_bytes;
	uint64_t limit_ns; /* for the answer */
	/* 0: `answer` came; -ETIMEDOUT: none did in time; -ENOTCONN: the connection has broken: it may have been carried
	 * out, or may yet be. Other errors: the node has not understood it. On a later turn. */
	void (*done)(struct peers_order *o, int res);

	/* of the answer */
	unsigned http_status;
	char *answer; /* ends with a zero; to be freed */

	/* the peers' own */
	struct peer *peer;
	struct peer_call call;
	struct iovec data;
};
/* 0, and done() follows; or it was not sent: -ENOTCONN: the node cannot be reached now; -EOPNOTSUPP: its release takes
 * no orders; -EBUSY: it owes answers to too many. */
must_check int peers_order_send(struct peers *p, const char *node, struct peers_order *o);
/* Who carries out what other nodes send; NULL: they are told to ask again. */
void peers_on_order(struct peers *p, void (*take)(struct peer_order *o, void *context), void *context);
