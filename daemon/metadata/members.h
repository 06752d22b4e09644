/*
 * members.h: the nodes of a cluster, and the right of this one to be a head: its lease.
 *
 * Keys in the store (values JSON):
 *   leases/NODE   {identity, since_ns, lease_ms}     bound to the node's lease: while it is there, the node is alive
 *   nodes/NODE    {state: "serving" | "stopped" | "lost", since_ns, about: {...}}     stays when the node goes
 *
 * A name belongs to the one who has its lease's key. `identity` names the place that a daemon has to itself: one that
 * finds the key of its own predecessor there, which is dead, ends that lease at once; any other waits for its end.
 *
 * The lease counts from before its request was sent [LEASESEND], on a clock that counts suspend, and is thought shorter
 * by what that clock may be slow: it ends here before it ends for anybody else.
 *
 * Owner: the reactor of the store.
 */
#pragma once

#include "daemon/metadata/metadata.h"

#define MEMBER_NAME_BYTES     64u
#define MEMBER_ABOUT_BYTES    4096u /* of JSON about a node */
#define MEMBERS_WHY_BYTES     300u
#define MEMBER_IDENTITY_BYTES (MEMBERS_WHY_BYTES / 2)

/* The key of a node's lease, for conditions: who takes over from it sees to it that it does not exist. */
#define LEASE_KEY "leases/%s"
#define NODE_KEY  "nodes/%s"

struct members;

struct members_options {
	struct reactor *reactor;
	struct log *log;
	struct metadata *metadata;
	const char *name;     /* of this node, a valid one */
	const char *identity; /* printable, shorter than MEMBER_IDENTITY_BYTES */
	const char *about;    /* a JSON object for those who look */
	uint64_t lease_ns, drift_ppm;
};
/* Takes the name and reads who else is there; ready(): 0 and this node has a lease; -EEXIST another daemon has the
 * name; or -errno of the store; with a sentence in members_why(). After an error it is to be left as well. 0 or
 * -ENOMEM. */
must_check int members_join(const struct members_options *o, void (*ready)(struct members *m, int res, void *context),
			    void *context, struct members **out);
const char *members_why(const struct members *m);
/* Gives the lease back and frees everything, then gone(). May be called while it joins. */
void members_leave(struct members *m, void (*gone)(void *context), void *context);
void members_abandon(struct members *m); /* for the simulator: as a crash does */

/* ---- this node's lease ---- */

/* Has this node a lease at this moment? */
bool members_may_serve(const struct members *m);
uint64_t members_until_ns(const struct members *m); /* when its right to serve ends, if the lease is not kept */
/* The revision of its key; 0: there is none now. A transaction that holds for a head has it as a condition. */
uint64_t members_lease_revision(const struct members *m);
const char *members_name(const struct members *m);
uint64_t members_lease_ns(const struct members *m); /* how long a lease is */

/* Who is told, in the order of listening; what it has no call for it is not told. */
struct members_listener {
	void (*lapsed)(struct members_listener *l); /* the lease has run out, as far as this node can tell */
	/* There is a lease again. is_new: it is another one: what others did meanwhile is to be read before anything is
	 * served, and members_may_serve() says yes already. */
	void (*returned)(struct members_listener *l, bool is_new);
	void (*changed)(struct members_listener *l, const char *node); /* it has come, gone, or is another's view now */
	struct list link;                                              /* the members' */
};
void members_listen(struct members *m, struct members_listener *l);
void members_unlisten(struct members_listener *l); /* after members_leave(), too */

/* ---- who is there ---- */

enum member_state { MEMBER_SERVING, MEMBER_STOPPED, MEMBER_LOST };
const char *member_state_name(enum member_state s);

struct member_view {
	char name[MEMBER_NAME_BYTES];
	enum member_state state; /* SERVING: it has a lease. LOST: it had one, and did not give it back */
	bool is_self;
	uint64_t lease_revision; /* of its lease's key, as far as this node knows; 0: it has none */
	uint64_t since_ns;       /* wall clock: in this state; 0: not known */
	const char *about;       /* JSON object, from the store: not to be trusted; the members' */
};
/* Calls each() for every node that the store knows, by name. */
void members_each(const struct members *m, void (*each)(const struct member_view *v, void *context), void *context);
/* false: the store does not know it. */
bool members_find(const struct members *m, const char *name, struct member_view *out);
/* As far as this node knows: what counts is the store, by the condition that its lease's key does not exist. */
bool members_is_alive(const struct members *m, const char *name);
