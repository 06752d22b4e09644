/*
 * replica.h: a volume's dealings with one disk, wherever it is: on this node, by call; on another, by a peer client.
 *
 * A replica has at most one session. It begins with a FENCE and ends when the replica is lost: the disk has another
 * session, or failed a change, or was not to be reached in time. From then on whatever is asked fails with -ENOTCONN
 * until the next FENCE, and what had been asked ends with an error; nothing is sent again into another session
 * [SESSION].
 *
 * The head that owns it asks in the words of volumes/disk/disk.h, with trees by their ids.
 *
 * Owner: one reactor; all calls on its thread.
 */
#pragma once

#include "replication/peer_client.h"
#include "volumes/disk/disk.h"

enum replica_state {
	REPLICA_CLOSED, /* no session yet */
	REPLICA_OPENING,
	REPLICA_OPEN,
	REPLICA_LOST,
};

struct replica {
	/* set by the owner, before the first FENCE and while the replica is lost */
	struct disk *disk;          /* on this node; NULL: */
	struct peer_client *client; /* of the node that has it */
	bool is_only_copy;          /* what a disk of this node fails to change is the request's error, and no loss */
	/* Called once when the replica is lost, before the done() of the request that showed it. */
	void (*lost)(struct replica *r, int res);

	/* its own */
	struct reactor *reactor;
	struct uuid volume, disk_uuid;
	enum replica_state state;
	uint64_t attempts; /* to begin a session: the last one's number is its session's here */
	uint64_t generation, session;
	uint64_t complete_epoch; /* the last one that the disk remembered at FENCE */
	bool is_suspect;         /* at FENCE: it lost power, and has answered no COMPLETE since [INTACT] */
	bool is_reader;          /* it has no session: only what never changes is looked at */
	/* On this node: */
	uint64_t
	    seen_sessions; /* of the disk, when this one was found the volume's newest there; 0: it was not looked */
	uint64_t tree_id;  /* that was asked last: */
	struct disk_tree *tree;
};
void replica_init(struct replica *r, struct reactor *reactor, const struct uuid *volume, const struct uuid *disk_uuid,
		  void (*lost)(struct replica *r, int res));
/* From CLOSED or LOST, in place of a FENCE: READ, HEAL and MAP of trees that never change work from now on. No answer
 * ends that, only replica_lose(). */
void replica_open_reader(struct replica *r);
/* Its disk or its node is known to be gone: it is lost now. */
void replica_lose(struct replica *r, int res);

struct replica_io {
	/* Set by the caller: op and what disk.h says that it needs, but for tree, session, and done. */
	struct disk_io io;
	uint64_t tree; /* of what names a tree in disk.h: its id */
	void (*done)(struct replica_io *rio, int res);

	/* the replica's own */
	struct replica *replica;
	uint64_t attempt; /* whose session it was asked in, or which it is */
	struct peer_call call;
	struct iovec data[PEER_OUT_DATA_MAX];
	struct op op;
};
/* done() comes on a later turn. MAP has room for at most PEER_MAP_EXTENTS, STAMPS for PEER_STAMP_RUNS. MEASURE works on
 * this node only: measure.c asks other nodes itself. */
void replica_submit(struct replica *r, struct replica_io *rio);

/* Which trees of the volume are there. */
struct replica_trees {
	void (*done)(struct replica_trees *t, int res);
	/* set when it is done: by id; replica_trees_clear() is the caller's */
	uint64_t *ids;
	uint32_t n;
	uint32_t n_dying; /* others, that were dropped and are being freed */

	/* its own */
	uint32_t room;
	struct replica *replica;
	uint64_t attempt;
	int err;
	uint64_t after; /* id that has been told last */
	bool is_last;
	struct peer_call call;
	struct op op;
};
/* done() comes on a later turn, with 0 or -errno. Not of a reader. */
void replica_trees_ask(struct replica *r, struct replica_trees *t);
bool replica_trees_have(const struct replica_trees *t, uint64_t id);
void replica_trees_clear(struct replica_trees *t);
