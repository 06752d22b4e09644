/*
 * metadata.h: the store of cluster facts: keys and values with revisions, conditional transactions, watches, leases.
 *
 * Three implementations stand behind it: embedded (SQLite, one node), etcd (many nodes), and in-memory for tests and the
 * simulator, with delays, lost replies and doubled requests. Values are JSON texts that the callers make; the store
 * does not look inside.
 *
 * Requests are answered on the reactor that the store was opened with, on a later turn; the store's own work runs on a
 * thread of its own. Requests are carried out in the order of submission, but for METADATA_KEEP, which waits for no
 * other: a slow transaction must not cost a lease.
 *
 * Outcome of a transaction: 0, or -EAGAIN when a condition did not hold (nothing was changed: reread, decide again), or
 * -ETIMEDOUT when the outcome is unknown (reread), or -ENOENT when it binds a key to a lease that has run out (nothing
 * was changed), or another -errno (the store is broken; nothing was changed). A store that cannot be reached answers
 * everything with -ETIMEDOUT.
 *
 * Leases: a key that was put with a lease is deleted when that runs out or is revoked, and watches hear of it. Whoever
 * holds one counts its time from before the request that granted or kept it was submitted: the store may count from
 * later, never from earlier. A put without a lease takes the key from the one it had. A lease dies with an embedded
 * store's process: its keys are gone when the store is opened again.
 */
#pragma once

#include "daemon/core/list.h"
#include "daemon/core/log.h"
#include "daemon/core/reactor.h"

struct metadata;

struct metadata_item {
	char *key, *value;
	uint64_t revision; /* of the last change of this key; grows over the whole store */
	uint64_t lease;    /* that the key is bound to; 0: none */
};

struct metadata_condition {
	const char *key;
	uint64_t revision; /* must be the key's revision; 0: the key must not exist */
};
struct metadata_change {
	const char *key;
	const char *value; /* NULL: delete */
	uint64_t lease;    /* that the key is bound to; 0: none */
};

enum metadata_op {
	METADATA_GET,
	METADATA_LIST,
	METADATA_TRANSACT,
	METADATA_GRANT,  /* a lease of ttl_ns */
	METADATA_KEEP,   /* starts the lease's time anew; -ENOENT: it has run out */
	METADATA_REVOKE, /* ends the lease and deletes its keys; -ENOENT: it has run out */
};

#define METADATA_CONDITIONS_MAX 80 /* etcd takes 128 of each, unless told otherwise */
#define METADATA_CHANGES_MAX    32

struct metadata_request {
	/* set by the caller; texts stay his until done() */
	enum metadata_op op;
	const char *key; /* GET: the key; LIST: a prefix */
	struct metadata_condition conditions[METADATA_CONDITIONS_MAX];
	uint32_t n_conditions;
	struct metadata_change changes[METADATA_CHANGES_MAX];
	uint32_t n_changes;
	uint64_t lease;  /* KEEP, REVOKE; of a GRANT: the result */
	uint64_t ttl_ns; /* GRANT, at least a second; the result of GRANT and KEEP: what the store grants from now */
	void (*done)(struct metadata_request *q, int res); /* GET of a missing key: -ENOENT */

	/* set by the store; freed with metadata_request_clear() */
	struct metadata_item *items; /* GET: one; LIST: by key */
	uint32_t n_items;
	uint64_t revision; /* TRANSACT: of the changes made; LIST, GET: of the store when it was read */

	/* the store's own */
	struct metadata *store;
	struct message message;
	struct list link;
	int res;
	uint32_t changed; /* bit i: changes[i] did change something; watches are told of these */
};

/* Embedded: one SQLite file, every transaction durable when answered. 0 or -errno with the reason in why: -EBUSY
 * another process has it open, -EUCLEAN it is damaged, -ENOTSUP it is a newer or a foreign one. Blocks while it is
 * verified. */
#define METADATA_WHY_BYTES 200
must_check int metadata_open_embedded(struct reactor *r, struct log *log, const char *path,
				      char why[static METADATA_WHY_BYTES], struct metadata **out);
/* In etcd, over its v3 API as HTTP and JSON. Blocks until one of the endpoints has answered, at most for some seconds.
 * -EHOSTUNREACH none did, -EACCES it refused user and password, -EIO it answered something else; each with why. */
struct metadata_etcd_options {
	const char *endpoints[16]; /* URLs; when one does not answer, the next is asked */
	uint32_t n_endpoints;
	const char *prefix;                         /* of the cluster's keys: "/quarry" */
	const char *ca_file, *cert_file, *key_file; /* PEM; NULL: the system's, none, none */
	const char *user, *password;                /* NULL: none */
};
must_check int metadata_open_etcd(struct reactor *r, struct log *log, const struct metadata_etcd_options *o,
				  char why[static METADATA_WHY_BYTES], struct metadata **out);
/* In memory, on the reactor itself; nothing outlives it. */
must_check int metadata_open_memory(struct reactor *r, struct metadata **out);
/* How the memory store misbehaves, as one far away would; zeros (the start): not at all. */
struct metadata_faults {
	uint64_t delay_max_ns;    /* each request is carried out after a random delay up to this */
	uint32_t lost_percent;    /* of transactions: -ETIMEDOUT, carried out, not, or later, as chance has it */
	uint32_t doubled_percent; /* of transactions: carried out twice, the second outcome is answered */
	uint32_t unread_percent;  /* of gets and lists: -ETIMEDOUT */
};
void metadata_memory_set_faults(struct metadata *m, const struct metadata_faults *faults);
/* The store's client has crashed: forgets its watches and its requests under way (the oldest of them may have been
 * carried out) without touching them, and goes on with what it holds on r. To be called when the reactor used until now
 * is gone or has forgotten its operations and timers. */
void metadata_memory_crash(struct metadata *m, struct reactor *r);
/* No request may be under way, and no watch be left. */
void metadata_close(struct metadata *m);

void metadata_submit(struct metadata *m, struct metadata_request *q);
void metadata_request_clear(struct metadata_request *q);

/* Calls changed() for every change under a prefix after the watch began, in order, and for all changes of one transaction in
 * one turn of the reactor: what they say together is never seen by halves. Of a change by another process it calls late,
 * when the store cannot be reached. lost(), where set: changes were missed, because the store could not be reached for
 * so long that it has forgotten them; what the watcher relies on is to be read again. */
struct metadata_watch {
	const char *prefix;
	void (*changed)(struct metadata_watch *w, const struct metadata_item *item); /* value NULL: deleted */
	void (*lost)(struct metadata_watch *w);                                      /* or NULL */
	struct list link;
};
void metadata_watch_start(struct metadata *m, struct metadata_watch *w);
void metadata_watch_stop(struct metadata *m, struct metadata_watch *w);

/* The rules that every implementation must pass, as a test: tests/unit/test_metadata.c. */
struct metadata_ops {
	void (*submit)(struct metadata *m, struct metadata_request *q);
	void (*close)(struct metadata *m);
};
struct metadata {
	const struct metadata_ops *ops;
	struct reactor *reactor;
	struct list watches;
	struct metadata_inbox *inbox; /* changes that nobody here asked for, on their way to the watches */
	_Atomic bool is_broken; /* an error was met after which nothing is answered with success until a restart */
};
