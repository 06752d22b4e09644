/*
 * set_cluster.h: what a set has to do with other nodes: which of them does what, what they change, and its own lease.
 *
 * One reactor owns everything here, as in head_internal.h, which includes it.
 */
#pragma once

#include "daemon/metadata/members.h"
#include "volumes/head/volume.h"
#include "volumes/head/volume_set.h"

struct command;
struct set_disk;
struct set_load;
struct set_volume;
struct volume_facts;

/* What the store's watch has told and is not yet in the copies. */
struct set_watch {
	struct metadata_watch watch;
	struct list news; /* in the order of the changes */
	uint32_t n_news;
	bool is_missed;    /* some are not in it: the store is to be read again */
	bool is_loading;   /* that is under way */
	struct timer wait; /* before it is tried again */
	struct set_load *load;
};

/* How this node's lease stands, and who waits for it. */
struct set_lease {
	struct members_listener listener;
	bool is_lapsed;      /* this node has none */
	bool is_unsure;      /* it has another one, and has not read yet what others did meanwhile */
	bool is_over;        /* it is so for longer than clients are kept waiting */
	struct list waiting; /* requests that have been carried out, by own.line */
	struct timer patience;
};
#define LEASE_PATIENCE_NS (30 * NS_PER_S) /* the longest pause for a client; then it gets an error */

/* ---- set_nodes.c ---- */

bool set_node_is_self(const struct volume_set *s, const char *node);
bool set_disk_is_ours(const struct set_disk *d);
bool set_node_is_alive(const struct volume_set *s, const char *node);
#define MEMBER_LABEL_BYTES 65u
/* The node's label of this kind ("rack", "zone"), as it tells of itself; false: it has none. */
bool set_node_label(const struct volume_set *s, const char *node, const char *kind,
		    char out[static MEMBER_LABEL_BYTES]);
/* Can no two copies lie on both disks (by index)? */
bool set_disks_share_domain(const struct volume_set *s, enum failure_domain domain, uint32_t a, uint32_t b);
bool volume_facts_are_attached(const struct volume_facts *facts);
/* Where the volume is attached, else where its data are: of several copies, the first node of these that is alive. "":
 * nowhere, any node may have it. */
const char *set_volume_node(const struct set_volume *entry);
/* Can only another node be its head? */
bool set_volume_is_elsewhere(const struct set_volume *entry);
/* Does this node look after it, as its schedule asks? A volume without data that nobody has attached: none does. */
bool set_volume_is_here(const struct set_volume *entry);
/* Refused, with a sentence that names the node; the order's `node` is it, if it is alive. */
int printf_like(3, 4) command_refuse_elsewhere(struct command *c, const char *node, const char *format, ...);
/* 0, or refused with the name of the node on which the command is to be run. */
must_check int command_check_here(struct command *c, const struct set_volume *entry);
must_check int command_check_disk_here(struct command *c, const struct set_disk *d);
/* The record has another generation than the head that is here: somebody else is the head now. */
void set_volume_check_head(struct set_volume *entry);
/* Deletions that are this node's to carry out and that nobody does are begun. */
void reaps_look(struct volume_set *s);
/* Recorded as attached here? */
bool set_volume_returns(const struct set_volume *entry);
/* A disk is back: a volume with several copies that is recorded as attached here, and has no head, is attached: soon, as a
 * command of the set's own. */
void return_want(struct set_volume *entry);
/* Some that are recorded as attached here, and have no head, could not be: they are tried again now and then. */
void returns_init(struct volume_set *s);
void returns_look(struct volume_set *s);
void returns_stop(struct volume_set *s);
/* The fenced head is let go: soon, as a command of the set's own. */
void release_want(struct set_volume *entry);

/* ---- set_takeover.c: what a lost node had attached ---- */

void takeovers_init(struct volume_set *s);
void takeovers_look(struct volume_set *s); /* a node has come or gone */
void takeovers_put_off(
    struct volume_set *s); /* it has started, or had no lease: so may other nodes, which are slower */
void takeovers_stop(struct volume_set *s);

/* ---- set_watch.c ---- */

void set_watch_start(struct volume_set *s);
bool set_watch_stop(struct volume_set *s); /* true: it has stopped; false: asks again, something is under way */
void set_watch_abandon(struct volume_set *s);
/* Between two commands: what others have changed is taken into the copies. FLOW_WAIT: commands_wake() follows. */
must_check enum flow set_watch_settle(struct volume_set *s);
void set_watch_missed(struct volume_set *s); /* the store is to be read again */

/* ---- set_lease.c ---- */

void set_lease_start(struct volume_set *s);
void set_lease_stop(struct volume_set *s);
/* May the head answer its clients? [LEASEEND] */
bool set_lease_holds(const struct volume_set *s);
/* The request has been carried out and may not be answered now: it waits. 0, or -EIO: it has waited long enough. */
must_check int set_lease_await(struct volume_set *s, struct volume_io *io);
/* May the volume's clients still be kept waiting for the store, or the lease? */
bool set_lease_is_patient(const struct volume *v);
/* The volume's requests wait no more. */
void set_lease_drain(struct volume *v);
void set_lease_sure(struct volume_set *s);             /* all that others did is known */
const char *set_lease_why(const struct volume_set *s); /* what is wrong with it; NULL: nothing */

/* ---- set_peers.c ---- */

void set_disk_lose(struct set_disk *d, const char *why); /* another node's cannot be asked any more */
struct peer_client *set_peer_client(struct volume_set *s, const char *node); /* NULL: it cannot be asked */
void set_peers_abandon(struct volume_set *s);
