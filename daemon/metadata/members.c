/*
 * members.c: takes a node's name, and keeps its lease. Who else is there: members_others.c.
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
 *
 * Owner: the store's reactor.
 */
#include "daemon/metadata/members_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_NS       (200 * NS_PER_MS) /* before a claim is tried again */
#define KEEP_PARTS     3u                /* a lease is kept after this part of its time */
#define RETRY_PARTS    20u               /* and when that failed, again after this part */
#define RIVAL_GRACE_NS (3 * NS_PER_S)    /* a store may end leases this late */
#define LEASE_MAX_MS   (24ull * 3600 * 1000)

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
void members_run(struct members *m)
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
