/*
 * members_internal.h: what members.c, which is about this node, and members_others.c, about the others, share.
 */
#pragma once

#include "daemon/metadata/member_list.h"

#define MEMBERS_STAGES(X)                                                                                              \
	X(GRANT) X(CLAIM) X(LOOK) X(EVICT) X(PAUSE) X(LIST_LEASES) X(LIST_NODES) X(HOLD) X(LEAVE) X(REVOKE) X(GONE)
#define X(name) MEMBERS_##name,
enum members_stage { MEMBERS_STAGES(X) };
#undef X

#define LEASES_PREFIX "leases/"
#define NODES_PREFIX  "nodes/"
#define KEY_ROOM      (sizeof(LEASES_PREFIX) + MEMBER_NAME_BYTES)

struct members {
	struct reactor *reactor;
	struct log *log;
	struct metadata *metadata;
	char name[MEMBER_NAME_BYTES], identity[MEMBER_IDENTITY_BYTES], *about;
	uint64_t lease_ns, drift_ppm;

	enum members_stage stage;
	bool is_busy; /* call is under way */
	bool is_joined, is_leaving, is_lapsed, is_rival_told;
	bool is_missed; /* changes of the store: the lists are to be read again */
	int err;
	char why[MEMBERS_WHY_BYTES];
	uint64_t rival_until_ns; /* 0: none was met */

	uint64_t lease, asked_ns, ttl_ns; /* of the one at hand; 0: none */
	uint64_t until_ns, lease_revision;
	uint64_t since_ns; /* wall clock: of this process */

	struct metadata_request call;
	char lease_key[KEY_ROOM], node_key[KEY_ROOM];
	char *lease_text, *node_text;
	struct timer pause;

	struct metadata_request keep;
	bool is_keeping;
	uint64_t keep_asked_ns;
	struct timer keep_timer, end_timer;

	struct metadata_request mark;
	bool is_marking;
	char mark_name[MEMBER_NAME_BYTES], mark_lease_key[KEY_ROOM], mark_node_key[KEY_ROOM], *mark_text;

	struct metadata_watch leases_watch, nodes_watch;
	struct list all;
	struct list listeners;

	void (*ready)(struct members *m, int res, void *context);
	void *context;
	void (*gone)(void *context);
	void *gone_context;
};

/* ---- members.c ---- */

void members_run(struct members *m);

/* ---- members_others.c ---- */

bool member_is_self(const struct members *m, const struct member *n);
/* Of the watches. */
void leases_watched(struct metadata_watch *w, const struct metadata_item *item);
void nodes_watched(struct metadata_watch *w, const struct metadata_item *item);
void members_missed(struct metadata_watch *w); /* of the leases': it goes for both */
/* m->call has listed them. */
void leases_listed(struct members *m);
void nodes_listed(struct members *m);
