/*
 * members.c: takes a node's name, keeps its lease, and knows who else is there.
 *
 *   GRANT -> CLAIM -> (WATCH -> LIST_LEASES -> LIST_NODES) -> HOLD -> LEAVE -> REVOKE -> GONE
 *     ^        | ^                                             |
 *     |        v |                                             |  the lease has run out
 *     |     LOOK -> EVICT, or PAUSE while another has the name |
 *     +--------------------------------------------------------+
 *
 *   GRANT    a lease of the store
 *   CLAIM    one transaction: the key of this node's lease, which must not be there, and what is known of the node
 *   LOOK     who has the key? This very claim, whose answer was lost; a predecessor, which is dead: EVICT; another
 *            daemon: its lease is given time to end, and then the name is taken
 *   HOLD     serving; the lease is kept by a request of its own, that waits for nothing else
 *
 * Invariants
 *  1. until_ns is never later than the store's end of the lease: it counts from before the request that granted or kept
 *     it, less what the clock may be slow.
 *  2. While the store answers that the lease was kept, its key has been there all the time: nobody else can have had
 *     the name. When it has run out, another lease begins with CLAIM, and the listeners are told that it is another.
 *  3. One request of `call` is under way at a time, and one of `keep`; both are over before GONE.
 *  4. The copies follow the store by its watch; what is older than a copy is not taken.
 *
 * Owner: the store's reactor.
 */
#include "daemon/metadata/member_list.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMBERS_STAGES(X)                                                                                              \
	X(GRANT) X(CLAIM) X(LOOK) X(EVICT) X(PAUSE) X(LIST_LEASES) X(LIST_NODES) X(HOLD) X(LEAVE) X(REVOKE) X(GONE)
#define X(name) MEMBERS_##name,
enum members_stage { MEMBERS_STAGES(X) };
#undef X

#define PAUSE_NS       (200 * NS_PER_MS) /* before a claim is tried again */
#define KEEP_PARTS     3u                /* a lease is kept after this part of its time */
#define RETRY_PARTS    20u               /* and when that failed, again after this part */
#define RIVAL_GRACE_NS (3 * NS_PER_S)    /* a store may end leases this late */
#define LEASE_MAX_MS   (24ull * 3600 * 1000)

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

static void members_run(struct members *m);
static void members_mark(struct members *m);

/* ---- the copies ---- */

static bool member_is_self(const struct members *m, const struct member *n)
{
	return strcmp(n->name, m->name) == 0;
}

static void members_tell(struct members *m, const struct member *n)
{
	list_each_safe (node, &m->listeners) {
		struct members_listener *l = container_of(node, struct members_listener, link);
		if (l->changed && m->is_joined)
			l->changed(l, n->name);
	}
}

static void lease_appeared(struct members *m, struct member *n, const struct metadata_item *item)
{
	bool is_new = n->lease_revision == 0;
	if (item->revision <= n->gone_revision || item->revision <= n->lease_revision)
		return;
	n->lease_revision = item->revision;
	n->is_mark_wanted = false;
	if (is_new && m->is_joined && !member_is_self(m, n))
		log_event(m->log, LOG_NOTICE, "node-joined", n->name, "node %s is there", n->name);
	members_tell(m, n);
}

static void lease_vanished(struct members *m, struct member *n, uint64_t revision)
{
	if (n->lease_revision == 0 || revision <= n->lease_revision)
		return;
	n->lease_revision = 0;
	n->gone_revision = revision;
	if (member_is_self(m, n))
		return; /* keeping it says so, and what to do */
	if (n->state == MEMBER_STOPPED) {
		log_event(m->log, LOG_NOTICE, "node-left", n->name, "node %s has stopped", n->name);
	} else {
		log_event(
		    m->log, LOG_WARNING, "node-lost", n->name,
		    "node %s does not renew its lease: it has died, or cannot reach the metadata store; what is "
		    "attached there answers nothing until it is back, or is attached elsewhere: by itself what has "
		    "several copies and is attached over NBD, else with --takeover",
		    n->name);
		n->since_ns = reactor_wall_ns(m->reactor);
		n->is_mark_wanted = true;
		members_mark(m);
	}
	members_tell(m, n);
}

static void lease_changed(struct members *m, const struct metadata_item *item)
{
	struct member *n = member_get(&m->all, item->key + strlen(LEASES_PREFIX));
	if (n && item->value)
		lease_appeared(m, n, item);
	else if (n)
		lease_vanished(m, n, item->revision);
}

static void node_changed(struct members *m, const struct metadata_item *item)
{
	struct member *n = member_get(&m->all, item->key + strlen(NODES_PREFIX));
	if (!n || item->revision <= n->revision)
		return;
	n->revision = item->revision;
	if (item->value)
		member_read(n, item->value);
	members_tell(m, n);
}

static void leases_watched(struct metadata_watch *w, const struct metadata_item *item)
{
	lease_changed(container_of(w, struct members, leases_watch), item);
}

static void nodes_watched(struct metadata_watch *w, const struct metadata_item *item)
{
	node_changed(container_of(w, struct members, nodes_watch), item);
}

/* Changes were missed: all is listed anew, when nothing else is under way. */
static void members_missed(struct metadata_watch *w)
{
	struct members *m = container_of(w, struct members, leases_watch);
	m->is_missed = true;
	if (m->stage == MEMBERS_HOLD)
		members_run(m);
}

/* Who was alive and is not in the list has gone while nobody looked. */
static void leases_listed(struct members *m)
{
	for (uint32_t i = 0; i < m->call.n_items; i++)
		lease_changed(m, &m->call.items[i]);
	list_each (link, &m->all) {
		struct member *n = container_of(link, struct member, link);
		bool is_there = false;
		for (uint32_t i = 0; i < m->call.n_items && !is_there; i++)
			is_there = strcmp(m->call.items[i].key + strlen(LEASES_PREFIX), n->name) == 0;
		if (!is_there)
			lease_vanished(m, n, m->call.revision);
	}
}

static void nodes_listed(struct members *m)
{
	for (uint32_t i = 0; i < m->call.n_items; i++)
		node_changed(m, &m->call.items[i]);
	list_each (link, &m->all) {
		struct member *n = container_of(link, struct member, link);
		n->is_mark_wanted |= n->lease_revision == 0 && n->state == MEMBER_SERVING && n->revision != 0;
	}
	members_mark(m);
}

/* ---- a node whose lease is gone is recorded as lost, by whoever is the first ---- */

static void mark_done(struct metadata_request *q, int res)
{
	struct members *m = container_of(q, struct members, mark);
	struct member *n = member_find(&m->all, m->mark_name);
	m->is_marking = false;
	free(m->mark_text);
	m->mark_text = NULL;
	if (n && res == -ETIMEDOUT)
		n->is_mark_wanted = n->lease_revision == 0;
	if (m->stage == MEMBERS_GONE)
		members_run(m);
	else
		members_mark(m); /* of a refused one the watch has told, or will */
}

static void members_mark(struct members *m)
{
	struct member *n = NULL;
	list_each (link, &m->all) {
		struct member *one = container_of(link, struct member, link);
		if (one->is_mark_wanted && !member_is_self(m, one))
			n = one;
	}
	if (!n || m->is_marking || m->is_leaving || m->lease_revision == 0)
		return;
	n->is_mark_wanted = false;
	if (n->revision == 0 || n->state != MEMBER_SERVING)
		return members_mark(m);
	uint64_t since_ns = n->since_ns ? n->since_ns : reactor_wall_ns(m->reactor);
	m->mark_text = member_to_text(MEMBER_LOST, since_ns, n->about ? n->about : "{}");
	if (!m->mark_text)
		return;
	snprintf(m->mark_name, sizeof(m->mark_name), "%s", n->name);
	snprintf(m->mark_lease_key, sizeof(m->mark_lease_key), LEASE_KEY, n->name);
	snprintf(m->mark_node_key, sizeof(m->mark_node_key), NODE_KEY, n->name);
	m->mark = (struct metadata_request){.op = METADATA_TRANSACT,
					    .conditions = {{m->mark_lease_key, 0}, {m->mark_node_key, n->revision}},
					    .n_conditions = 2,
					    .changes = {{.key = m->mark_node_key, .value = m->mark_text}},
					    .n_changes = 1,
					    .done = mark_done};
	m->is_marking = true;
	metadata_submit(m->metadata, &m->mark);
}

/* ---- the lease's time ---- */

static uint64_t lease_usable_ns(const struct members *m, uint64_t ttl_ns)
{
	return ttl_ns - ttl_ns / 1000000 * m->drift_ppm;
}

bool members_may_serve(const struct members *m)
{
	return reactor_now_ns(m->reactor) < m->until_ns;
}

uint64_t members_until_ns(const struct members *m)
{
	return m->until_ns;
}

uint64_t members_lease_revision(const struct members *m)
{
	return m->lease_revision;
}

static void lease_lapse(struct members *m, const char *reason)
{
	if (m->is_lapsed || !m->is_joined)
		return;
	m->is_lapsed = true;
	log_event(m->log, LOG_ERROR, "lease-lost", m->name,
		  "this node has no lease any more (%s): its volumes answer nothing until it has one again", reason);
	list_each_safe (node, &m->listeners) {
		struct members_listener *l = container_of(node, struct members_listener, link);
		if (l->lapsed)
			l->lapsed(l);
	}
}

static void lease_return(struct members *m, bool is_new)
{
	if (m->is_lapsed)
		log_event(m->log, LOG_NOTICE, "lease-returned", m->name, "this node has %s lease again",
			  is_new ? "a" : "its");
	bool is_told = m->is_joined && (m->is_lapsed || is_new);
	m->is_lapsed = false;
	if (!is_told)
		return;
	list_each_safe (node, &m->listeners) {
		struct members_listener *l = container_of(node, struct members_listener, link);
		if (l->returned)
			l->returned(l, is_new);
	}
}

static void end_fired(struct timer *t)
{
	struct members *m = container_of(t, struct members, end_timer);
	uint64_t now_ns = reactor_now_ns(m->reactor);
	if (now_ns < m->until_ns)
		timer_start(m->reactor, t, m->until_ns - now_ns);
	else
		lease_lapse(m, "the metadata store could not be reached in time to renew it");
}

static void lease_prolong(struct members *m, uint64_t asked_ns, uint64_t ttl_ns)
{
	uint64_t now_ns = reactor_now_ns(m->reactor);
	m->ttl_ns = ttl_ns;
	m->until_ns = max_u64(m->until_ns, asked_ns + lease_usable_ns(m, ttl_ns));
	timer_start(m->reactor, &m->end_timer, m->until_ns > now_ns ? m->until_ns - now_ns : 0);
	timer_start(m->reactor, &m->keep_timer, ttl_ns / KEEP_PARTS);
}

static void keep_done(struct metadata_request *q, int res)
{
	struct members *m = container_of(q, struct members, keep);
	m->is_keeping = false;
	if (m->is_leaving || m->stage == MEMBERS_GONE)
		return members_run(m);
	if (q->lease != m->lease)
		return; /* the one before */
	if (res == 0) {
		bool was_over = !members_may_serve(m); /* whoever has found it so waits to be told that it is back */
		lease_prolong(m, m->keep_asked_ns, q->ttl_ns);
		if (was_over)
			lease_lapse(m, "it was renewed too late");
		if (m->is_lapsed && members_may_serve(m))
			lease_return(m, false);
		return;
	}
	if (res != -ENOENT) { /* the store could not be reached: as often as it takes */
		timer_start(m->reactor, &m->keep_timer, m->ttl_ns / RETRY_PARTS);
		return;
	}
	m->lease = m->lease_revision = m->until_ns = 0;
	lease_lapse(m, "the metadata store has ended it");
	if (m->stage == MEMBERS_HOLD)
		members_run(m);
}

static void keep_fired(struct timer *t)
{
	struct members *m = container_of(t, struct members, keep_timer);
	if (m->is_keeping || m->lease == 0 || m->is_leaving)
		return;
	m->is_keeping = true;
	m->keep_asked_ns = reactor_now_ns(m->reactor);
	m->keep = (struct metadata_request){.op = METADATA_KEEP, .lease = m->lease, .done = keep_done};
	metadata_submit(m->metadata, &m->keep);
}

/* ---- the stages' requests ---- */

static void call_done(struct metadata_request *q, int res)
{
	struct members *m = container_of(q, struct members, call);
	m->is_busy = false;
	m->err = res;
	members_run(m);
}

static void members_call(struct members *m, struct metadata_request q)
{
	quarry_assert(!m->is_busy);
	m->is_busy = true;
	m->call = q;
	m->call.done = call_done;
	metadata_submit(m->metadata, &m->call);
}

static void members_call_claim(struct members *m)
{
	free(m->lease_text);
	free(m->node_text);
	m->lease_text = lease_to_text(m->identity, m->since_ns, m->lease_ns / NS_PER_MS);
	m->node_text = member_to_text(MEMBER_SERVING, m->since_ns, m->about);
	quarry_assert(m->lease_text && m->node_text); /* without a few hundred bytes there is no node */
	members_call(m, (struct metadata_request){.op = METADATA_TRANSACT,
						  .conditions = {{m->lease_key, 0}},
						  .n_conditions = 1,
						  .changes = {{m->lease_key, m->lease_text, m->lease},
							      {.key = m->node_key, .value = m->node_text}},
						  .n_changes = 2});
}

static void members_call_leave(struct members *m)
{
	free(m->node_text);
	m->node_text = member_to_text(MEMBER_STOPPED, reactor_wall_ns(m->reactor), m->about);
	quarry_assert(m->node_text);
	members_call(m, (struct metadata_request){.op = METADATA_TRANSACT,
						  .conditions = {{m->lease_key, m->lease_revision}},
						  .n_conditions = 1,
						  .changes = {{.key = m->node_key, .value = m->node_text}},
						  .n_changes = 1});
}

/* Submits what the stage asks for. */
static void members_ask(struct members *m)
{
	switch (m->stage) {
	case MEMBERS_GRANT:
		m->asked_ns = reactor_now_ns(m->reactor);
		members_call(m, (struct metadata_request){.op = METADATA_GRANT, .ttl_ns = m->lease_ns});
		return;
	case MEMBERS_CLAIM:
		members_call_claim(m);
		return;
	case MEMBERS_LOOK:
		members_call(m, (struct metadata_request){.op = METADATA_GET, .key = m->lease_key});
		return;
	case MEMBERS_EVICT:
		members_call(m, (struct metadata_request){.op = METADATA_REVOKE, .lease = m->call.lease});
		return;
	case MEMBERS_PAUSE:
		timer_start(m->reactor, &m->pause, PAUSE_NS);
		return;
	case MEMBERS_LIST_LEASES:
		m->is_missed = false;
		members_call(m, (struct metadata_request){.op = METADATA_LIST, .key = LEASES_PREFIX});
		return;
	case MEMBERS_LIST_NODES:
		members_call(m, (struct metadata_request){.op = METADATA_LIST, .key = NODES_PREFIX});
		return;
	case MEMBERS_LEAVE:
		members_call_leave(m);
		return;
	case MEMBERS_REVOKE:
		members_call(m, (struct metadata_request){.op = METADATA_REVOKE, .lease = m->lease});
		return;
	case MEMBERS_HOLD:
	case MEMBERS_GONE:
		break;
	}
	quarry_assert(!"a stage that asks for nothing");
}

/* ---- what the answers mean ---- */

static void printf_like(3, 4) members_fail(struct members *m, int res, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(m->why, sizeof(m->why), format, args);
	va_end(args);
	m->err = res;
}

/* The store failed where it should not: a start ends with that; later it is tried again. */
static enum members_stage members_failed(struct members *m)
{
	if (m->is_joined || m->err == -ETIMEDOUT)
		return MEMBERS_PAUSE;
	members_fail(m, m->err, "the metadata store does not let this node in: %s", strerror(-m->err));
	return MEMBERS_HOLD;
}

static enum members_stage members_granted(struct members *m)
{
	if (m->err != 0)
		return members_failed(m);
	m->lease = m->call.lease;
	m->ttl_ns = m->call.ttl_ns;
	return MEMBERS_CLAIM;
}

static enum members_stage members_claimed(struct members *m, uint64_t revision)
{
	m->err = 0;
	m->rival_until_ns = 0;
	m->is_rival_told = false;
	m->lease_revision = revision;
	lease_prolong(m, m->asked_ns, m->ttl_ns);
	lease_return(m, true);
	return MEMBERS_LIST_LEASES; /* also when it was away: others came and went meanwhile */
}

static enum members_stage members_after_claim(struct members *m)
{
	if (m->err == 0)
		return members_claimed(m, m->call.revision);
	if (m->err == -ENOENT) /* that took longer than the lease */
		return MEMBERS_GRANT;
	return m->err == -EAGAIN || m->err == -ETIMEDOUT ? MEMBERS_LOOK : members_failed(m);
}

/* Another daemon has the name: it may be one that has died, whose lease ends; or it lives. */
static enum members_stage members_meet_rival(struct members *m, const struct lease_facts *lease)
{
	uint64_t now_ns = reactor_now_ns(m->reactor);
	if (m->rival_until_ns == 0)
		m->rival_until_ns = now_ns + 2 * min_u64(lease->lease_ms, LEASE_MAX_MS) * NS_PER_MS + RIVAL_GRACE_NS;
	if (now_ns < m->rival_until_ns)
		return MEMBERS_PAUSE;
	if (m->is_joined) {
		if (!m->is_rival_told)
			log_event(
			    m->log, LOG_ERROR, "node-name-taken", m->name,
			    "another daemon (%.100s) has taken the name of this node while it had no lease: stop one "
			    "of the two, or give it another node.name",
			    lease->identity);
		m->is_rival_told = true;
		return MEMBERS_PAUSE;
	}
	members_fail(m, -EEXIST,
		     "node.name: \"%s\" is the name of a node that is alive (%.100s): give each node a name of its own",
		     m->name, lease->identity);
	return MEMBERS_HOLD;
}

static enum members_stage members_looked(struct members *m)
{
	if (m->err == -ENOENT)
		return MEMBERS_PAUSE;
	if (m->err != 0)
		return members_failed(m);
	quarry_assert(m->call.n_items == 1);
	const struct metadata_item *item = &m->call.items[0];
	if (item->lease == m->lease && m->lease != 0)
		return members_claimed(m, item->revision);
	struct lease_facts lease;
	lease_read(&lease, item->value);
	if (strcmp(lease.identity, m->identity) != 0 || item->lease == 0)
		return members_meet_rival(m, &lease);
	m->call.lease = item->lease; /* for EVICT */
	return MEMBERS_EVICT;
}

/* Where the answer that has come leads. */
static enum members_stage members_next(struct members *m)
{
	switch (m->stage) {
	case MEMBERS_GRANT:
		return members_granted(m);
	case MEMBERS_CLAIM:
		return members_after_claim(m);
	case MEMBERS_LOOK:
		return members_looked(m);
	case MEMBERS_EVICT:
		return MEMBERS_PAUSE;
	case MEMBERS_PAUSE:
		return m->lease ? MEMBERS_CLAIM : MEMBERS_GRANT;
	case MEMBERS_LIST_LEASES:
		if (m->err != 0)
			return MEMBERS_LIST_LEASES;
		leases_listed(m);
		return MEMBERS_LIST_NODES;
	case MEMBERS_LIST_NODES:
		if (m->err != 0)
			return MEMBERS_LIST_NODES;
		nodes_listed(m);
		return MEMBERS_HOLD;
	case MEMBERS_LEAVE:
		return MEMBERS_REVOKE;
	case MEMBERS_REVOKE:
		return MEMBERS_GONE;
	case MEMBERS_HOLD:
	case MEMBERS_GONE:
		break;
	}
	return m->stage;
}

/* ---- the dispatcher ---- */

static void members_free(struct members *m)
{
	members_clear(&m->all);
	metadata_request_clear(&m->call);
	free(m->about);
	free(m->lease_text);
	free(m->node_text);
	free(m->mark_text);
	free(m);
}

static void members_end(struct members *m)
{
	void (*gone)(void *context) = m->gone;
	void *context = m->gone_context;
	if (m->is_keeping || m->is_marking)
		return;
	timer_stop(m->reactor, &m->pause);
	timer_stop(m->reactor, &m->keep_timer);
	timer_stop(m->reactor, &m->end_timer);
	metadata_watch_stop(m->metadata, &m->leases_watch);
	metadata_watch_stop(m->metadata, &m->nodes_watch);
	members_free(m);
	gone(context);
}

/* The lease is given back while the store can be reached; else it runs out by itself. */
static enum members_stage members_first_of_leaving(const struct members *m)
{
	if (m->lease != 0 && m->lease_revision != 0 && !m->is_lapsed)
		return MEMBERS_LEAVE;
	return m->lease != 0 && !m->is_lapsed ? MEMBERS_REVOKE : MEMBERS_GONE;
}

static void members_held(struct members *m)
{
	void (*ready)(struct members * m, int res, void *context) = m->ready;
	if (m->is_joined || !ready)
		return;
	m->ready = NULL;
	m->is_joined = m->err == 0;
	if (m->is_joined &&
	    !members_may_serve(m)) /* it took so long that the lease has run out: that is told, next turn */
		timer_start(m->reactor, &m->end_timer, 0);
	ready(m, m->err, m->context);
}

/* An answer has come, or a pause is over; or it is to leave. */
static void members_run(struct members *m)
{
	if (m->is_busy)
		return;
	if (m->stage != MEMBERS_GONE && m->stage != MEMBERS_HOLD) {
		m->stage = members_next(m);
		metadata_request_clear(&m->call);
	}
	if (m->is_leaving && m->stage < MEMBERS_LEAVE)
		m->stage = members_first_of_leaving(m);
	switch (m->stage) {
	case MEMBERS_HOLD:
		if (m->err == 0 && (m->lease == 0 || m->is_missed)) { /* while the lists were read */
			m->stage = m->lease == 0 ? MEMBERS_GRANT : MEMBERS_LIST_LEASES;
			members_ask(m);
			return;
		}
		members_held(m); /* may begin to leave */
		return;
	case MEMBERS_GONE:
		members_end(m);
		return;
	case MEMBERS_GRANT:
	case MEMBERS_CLAIM:
	case MEMBERS_LOOK:
	case MEMBERS_EVICT:
	case MEMBERS_PAUSE:
	case MEMBERS_LIST_LEASES:
	case MEMBERS_LIST_NODES:
	case MEMBERS_LEAVE:
	case MEMBERS_REVOKE:
		members_ask(m);
		return;
	}
}

static void pause_fired(struct timer *t)
{
	members_run(container_of(t, struct members, pause));
}

/* ---- life ---- */

int members_join(const struct members_options *o, void (*ready)(struct members *m, int res, void *context),
		 void *context, struct members **out)
{
	struct members *m = calloc(1, sizeof(*m));
	char *about = strdup(o->about);
	quarry_assert(o->lease_ns > 0 && o->drift_ppm < 1000000 && ready);
	quarry_assert(strlen(o->name) < sizeof(m->name) && strlen(o->identity) < sizeof(m->identity));
	if (!m || !about) {
		free(m);
		free(about);
		return -ENOMEM;
	}
	m->reactor = o->reactor;
	m->log = o->log;
	m->metadata = o->metadata;
	m->about = about;
	m->lease_ns = max_u64(o->lease_ns, NS_PER_S);
	m->drift_ppm = o->drift_ppm;
	m->ready = ready;
	m->context = context;
	m->since_ns = reactor_wall_ns(m->reactor);
	snprintf(m->name, sizeof(m->name), "%s", o->name);
	snprintf(m->identity, sizeof(m->identity), "%s", o->identity);
	snprintf(m->lease_key, sizeof(m->lease_key), LEASE_KEY, o->name);
	snprintf(m->node_key, sizeof(m->node_key), NODE_KEY, o->name);
	list_init(&m->listeners);
	list_init(&m->all);
	timer_init(&m->pause, pause_fired);
	timer_init(&m->keep_timer, keep_fired);
	timer_init(&m->end_timer, end_fired);
	m->leases_watch =
	    (struct metadata_watch){.prefix = LEASES_PREFIX, .changed = leases_watched, .lost = members_missed};
	m->nodes_watch = (struct metadata_watch){.prefix = NODES_PREFIX, .changed = nodes_watched};
	metadata_watch_start(m->metadata, &m->leases_watch);
	metadata_watch_start(m->metadata, &m->nodes_watch);
	m->stage = MEMBERS_GRANT;
	members_ask(m);
	*out = m;
	return 0;
}

const char *members_why(const struct members *m)
{
	return m->why;
}

const char *members_name(const struct members *m)
{
	return m->name;
}

uint64_t members_lease_ns(const struct members *m)
{
	return m->lease_ns;
}

void members_leave(struct members *m, void (*gone)(void *context), void *context)
{
	quarry_assert(!m->is_leaving && gone);
	m->is_leaving = true;
	m->ready = NULL;
	while (!list_is_empty(&m->listeners)) /* nobody is told any more */
		list_pop(&m->listeners);
	m->gone = gone;
	m->gone_context = context;
	timer_stop(m->reactor, &m->pause);
	timer_stop(m->reactor, &m->keep_timer);
	if (m->stage == MEMBERS_PAUSE)
		m->stage = MEMBERS_HOLD; /* nothing is awaited any more */
	members_run(m);
}

void members_abandon(struct members *m)
{
	metadata_request_clear(&m->keep);
	metadata_request_clear(&m->mark);
	members_free(m);
}

void members_listen(struct members *m, struct members_listener *l)
{
	list_init(&l->link);
	list_append(&m->listeners, &l->link);
}

void members_unlisten(struct members_listener *l)
{
	list_remove(&l->link);
}

/* ---- looking ---- */

static void member_view_fill(const struct members *m, const struct member *n, struct member_view *v)
{
	*v = (struct member_view){.lease_revision = n->lease_revision,
				  .state = n->lease_revision ? MEMBER_SERVING : n->state,
				  .is_self = member_is_self(m, n),
				  .since_ns = n->since_ns,
				  .about = n->about ? n->about : "{}"};
	memcpy(v->name, n->name, sizeof(v->name));
	if (v->is_self)
		v->state = m->is_lapsed ? MEMBER_LOST : MEMBER_SERVING;
	else if (!n->lease_revision && n->state == MEMBER_SERVING)
		v->state = MEMBER_LOST; /* about to be recorded */
}

void members_each(const struct members *m, void (*each)(const struct member_view *v, void *context), void *context)
{
	list_each (link, &m->all) {
		struct member_view v;
		member_view_fill(m, container_of(link, struct member, link), &v);
		each(&v, context);
	}
}

bool members_find(const struct members *m, const char *name, struct member_view *out)
{
	const struct member *n = member_find(&m->all, name);
	if (n)
		member_view_fill(m, n, out);
	return n != NULL;
}

bool members_is_alive(const struct members *m, const char *name)
{
	const struct member *n = member_find(&m->all, name);
	return n && (n->lease_revision != 0 || (member_is_self(m, n) && !m->is_lapsed));
}
