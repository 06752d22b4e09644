/*
 * members_others.c: who else is there: copies of what the store has of all nodes, told to the listeners; and a node whose lease
 * is gone is recorded as lost.
 *
 * Invariants
 *  1. The copies follow the store by its watch; what is older than a copy is not taken.
 *  2. One mark is under way at a time, and it is over before GONE.
 *
 * Owner: the store's reactor.
 */
#include "daemon/metadata/members_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void members_mark(struct members *m);

/* ---- the copies ---- */

bool member_is_self(const struct members *m, const struct member *n)
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

void leases_watched(struct metadata_watch *w, const struct metadata_item *item)
{
	lease_changed(container_of(w, struct members, leases_watch), item);
}

void nodes_watched(struct metadata_watch *w, const struct metadata_item *item)
{
	node_changed(container_of(w, struct members, nodes_watch), item);
}

/* Changes were missed: all is listed anew, when nothing else is under way. */
void members_missed(struct metadata_watch *w)
{
	struct members *m = container_of(w, struct members, leases_watch);
	m->is_missed = true;
	if (m->stage == MEMBERS_HOLD)
		members_run(m);
}

/* Who was alive and is not in the list has gone while nobody looked. */
void leases_listed(struct members *m)
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

void nodes_listed(struct members *m)
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
	quarry_assert(m->is_marking);
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
	quarry_assert(m->mark_text == NULL); /* invariant 2 */
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
