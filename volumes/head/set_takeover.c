/*
 * set_takeover.c: a volume that was attached on a node which is lost is attached here, so that its clients find it again.
 *
 *   look       now and then, while there is such a volume: is it this node's turn?
 *   takeover   CHECK -> ATTACH -> END      a command of the set's own
 *
 * Whose turn it is nobody decides: each node waits a little longer than the one before it, those with a current copy
 * first, another one first for each volume; and who comes first has it by the transaction of its attach.
 *
 * Invariants
 *  1. Only what a node had that is lost is taken, not what one had that was stopped: that is about to come back. Only what
 *     has several copies: a single one cannot be reached without its node. Only what is attached over NBD alone: who uses a
 *     vhost-user socket is on the lost node.
 *  2. The attach is on the condition that the lost node has no lease: so its head has ended [LEASEEND].
 *  3. A node that has just started, or had no lease for a while, waits: others may only be slower than itself.
 *
 * Owner: the set.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_NS     (100 * NS_PER_MS)
#define LOOK_MAX_NS NS_PER_S
/* A daemon that was killed and is started again ends the lease of its predecessor, and has one of its own at once. */
#define WAIT_NS  (300 * NS_PER_MS)
#define RANK_NS  (300 * NS_PER_MS) /* for each node that goes first */
#define RETRY_NS (2 * NS_PER_S)
/* Longer, when a copy cannot be asked whose node is alive: another node may reach all. */
#define REACH_NS (5 * NS_PER_S)
/* After the start of this node, and after it had no lease, so many leases: the same may have befallen all. */
#define SETTLE_LEASES 3u

/* ---- which volumes ---- */

static bool node_is_lost(const struct volume_set *s, const char *node)
{
	struct member_view view;
	return members_find(s->members, node, &view) && view.state == MEMBER_LOST;
}

static bool volume_is_orphaned(const struct set_volume *entry)
{
	const struct volume_facts *f = &entry->facts;
	bool is_for_nbd = f->is_attached_nbd && !f->is_attached_vhost;
	return is_for_nbd && volume_facts_are_replicated(f) && !f->is_deleting && !entry->head && !entry->attach &&
	       f->owner[0] && !set_node_is_self(entry->set, f->owner) && node_is_lost(entry->set, f->owner);
}

/* ---- whose turn ---- */

struct turn {
	const char *nodes[SET_DISKS_MAX]; /* alive and not being drained, with a copy that the record calls current */
	uint32_t n;
	bool reaches_any, reaches_all; /* of these copies, from here */
};

static void turn_add(struct turn *t, const struct set_disk *d)
{
	t->reaches_any |= set_disk_is_running(d);
	t->reaches_all &= set_disk_is_running(d);
	if (set_node_is_draining(d->set, d->facts.node)) /* it goes last */
		return;
	for (uint32_t i = 0; i < t->n; i++)
		if (strcmp(t->nodes[i], d->facts.node) == 0)
			return;
	quarry_assert(t->n < SET_DISKS_MAX);
	t->nodes[t->n++] = d->facts.node;
}

static void turn_find(const struct set_volume *entry, struct turn *t)
{
	const struct volume_facts *f = &entry->facts;
	*t = (struct turn){.reaches_all = true, .reaches_any = f->n_disks == 0};
	for (uint32_t i = 0; i < f->n_disks; i++) {
		const struct set_disk *d = set_disk_by_uuid(entry->set, &f->disks[i].uuid);
		if (d && !f->disks[i].is_stale && set_node_is_alive(entry->set, d->facts.node))
			turn_add(t, d);
	}
}

/* How many nodes go before this one. The first differs from volume to volume, so that not all come to one node. */
static uint32_t turn_rank(const struct turn *t, const struct set_volume *entry)
{
	uint32_t n = t->n, first = n > 0 ? entry->facts.uuid.bytes[0] % n : 0;
	for (uint32_t i = 0; i < n; i++)
		if (set_node_is_self(entry->set, t->nodes[(first + i) % n]))
			return i;
	return n;
}

/* When this node is to take it; UINT64_MAX: not as things are. */
static uint64_t turn_due_ns(const struct set_volume *entry)
{
	struct turn t;
	turn_find(entry, &t);
	if (!t.reaches_any) /* or not yet */
		return UINT64_MAX;
	return entry->orphaned_ns + WAIT_NS + turn_rank(&t, entry) * RANK_NS + (t.reaches_all ? 0 : REACH_NS);
}

/* ---- takeover ---- */

enum takeover_stage { TAKEOVER_CHECK, TAKEOVER_ATTACH };

static void takeover_tell(struct command *c, int res)
{
	struct set_volume *entry = c->volume;
	if (res == 0)
		log_event(c->set->log, LOG_WARNING, "volume-taken-over", entry->facts.name,
			  "node %s, where volume %s was attached, is lost: it is attached here now, with all that was "
			  "completed: its clients find it at this node under the same name",
			  c->order->other, entry->facts.name);
	else if (set_volume_returns(entry)) /* as its record says by now */
		log_event(
		    c->set->log, LOG_ERROR, "volume-not-attached", entry->facts.name,
		    "node %s, where volume %s was attached, is lost, and it cannot be served here either: %s; it is "
		    "tried again",
		    c->order->other, entry->facts.name, entry->why);
	else
		entry->why[0] = 0; /* another node was faster, or it has come back */
}

static void takeover_attached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	takeover_tell(c, res);
	if (res != 0)
		entry->orphaned_ns = reactor_now_ns(c->set->reactor) + RETRY_NS;
	c->kind->run(c);
}

static void takeover_run(struct command *c)
{
	const struct attach_options o = {.is_return = true, .is_from_lost = true};
	if (c->stage == TAKEOVER_CHECK) {
		c->stage = TAKEOVER_ATTACH;
		if (command_find_own(c) && volume_is_orphaned(c->volume)) {
			text_print(c->order->other, sizeof(c->order->other), "%s", c->volume->facts.owner);
			volume_attach(c->volume, &o, takeover_attached, c);
			return;
		}
	}
	command_end(c);
}

const struct command_kind command_takeover = {.name = "takeover", .run = takeover_run};

/* ---- look ---- */

static void takeovers_fired(struct timer *timer)
{
	struct volume_set *s = container_of(timer, struct volume_set, takeover_timer);
	uint64_t now_ns = reactor_now_ns(s->reactor);
	uint64_t next_ns = UINT64_MAX;
	list_each (node, &s->volumes) {
		struct set_volume *entry = container_of(node, struct set_volume, link);
		if (!volume_is_orphaned(entry)) {
			entry->orphaned_ns = 0;
			continue;
		}
		if (entry->orphaned_ns == 0)
			entry->orphaned_ns = max_u64(now_ns, s->takeovers_from_ns);
		uint64_t due_ns = turn_due_ns(entry);
		if (set_lease_holds(s) && due_ns <= now_ns)
			order_own(entry, SET_TAKEOVER);
		next_ns = min_u64(next_ns, due_ns > now_ns ? due_ns - now_ns : 0);
		next_ns = min_u64(max_u64(next_ns, LOOK_NS), LOOK_MAX_NS);
	}
	if (next_ns != UINT64_MAX)
		timer_start(s->reactor, &s->takeover_timer, next_ns);
}

void takeovers_init(struct volume_set *s)
{
	timer_init(&s->takeover_timer, takeovers_fired);
}

void takeovers_look(struct volume_set *s)
{
	if (!s->members || s->start || s->is_stopping)
		return;
	timer_stop(s->reactor, &s->takeover_timer);
	timer_start(s->reactor, &s->takeover_timer, 1);
}

void takeovers_put_off(struct volume_set *s)
{
	if (!s->members)
		return;
	s->takeovers_from_ns = reactor_now_ns(s->reactor) + SETTLE_LEASES * members_lease_ns(s->members);
	list_each (node, &s->volumes)
		container_of(node, struct set_volume, link)->orphaned_ns = 0;
	takeovers_look(s);
}

void takeovers_stop(struct volume_set *s)
{
	timer_stop(s->reactor, &s->takeover_timer);
}
