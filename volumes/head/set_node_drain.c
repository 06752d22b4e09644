/*
 * set_node_drain.c: the command that has a whole node drained, or no more, and what sees to it that it comes about.
 *
 *   drain    one transaction: a key of the store says so. From then on the node is given nothing new: no attachment, no
 *            disk
 *   look     now and then, on that node alone: its disks are marked as being drained, by a command of the set's own, and
 *            are left like others (set_drain.c); what is attached there over NBD is handed over (set_hand_over.c)
 *   marks    one transaction for some of the disks: those of a node that is drained no more lose the mark again
 *
 * Invariants
 *  1. The key alone decides. The marks of the disks follow it, however often the node dies between the two; a disk that
 *     was drained by itself before stays so.
 *  2. What cannot go, a volume with one copy, a client over vhost-user, stays where it is and serves: it is named, with
 *     what can be done.
 *
 * Owner: the set.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MARKS_MAX 8u /* disks of one transaction */

/* ---- the set's copy of the keys ---- */

static struct set_node_drain *node_drain_find(const struct volume_set *s, const char *node)
{
	list_each (link, &s->node_drains) {
		struct set_node_drain *n = container_of(link, struct set_node_drain, link);
		if (strcmp(n->node, node) == 0)
			return n;
	}
	return NULL;
}

bool set_node_is_draining(const struct volume_set *s, const char *node)
{
	return node_drain_find(s, node) != NULL;
}

int node_drain_put(struct volume_set *s, const char *node, uint64_t revision)
{
	struct set_node_drain *n = node_drain_find(s, node);
	if (!name_is_valid(node))
		return -EINVAL;
	if (n) {
		n->revision = max_u64(n->revision, revision);
		return 0;
	}
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->revision = revision;
	text_print(n->node, sizeof(n->node), "%s", node);
	list_append(&s->node_drains, &n->link);
	return 0;
}

void node_drain_take_out(struct volume_set *s, const char *node, uint64_t revision)
{
	struct set_node_drain *n = node_drain_find(s, node);
	if (!n || n->revision >= revision)
		return;
	list_remove(&n->link);
	free(n);
}

void node_drains_fini(struct volume_set *s)
{
	for (struct list *link; (link = list_pop(&s->node_drains)) != NULL;)
		free(container_of(link, struct set_node_drain, link));
}

/* ---- drain ---- */

static int node_drain_check_node(struct command *c)
{
	const char *node = c->order->object;
	struct member_view view;
	if (!c->set->members && !set_node_is_self(c->set, node))
		return command_refuse_missing(c, "node", node);
	if (!c->set->members)
		return command_refuse(
		    c, -EINVAL, "invalid",
		    "node %s has a store of its own: there is no other node that could have what it has", node);
	if (!members_find(c->set->members, node, &view))
		return command_refuse_missing(c, "node", node);
	if (set_node_is_self(c->set, node))
		return 0;
	if (set_node_is_alive(c->set, node))
		return command_refuse_elsewhere(c, node, "run this on node %s", node);
	if (c->order->cancel)
		return 0;
	return command_refuse(c, -EIO, "failed",
			      "node %s is not alive: start it; if it is lost for good, remove its disks: quarry disk "
			      "remove DISK --force",
			      node);
}

/* Can all that lies on its disks lie elsewhere? */
static int node_drain_check_disks(struct command *c)
{
	struct leaving leaving = {.noun = "node", .name = c->order->object};
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = c->set->disks[i];
		if (!d || d->facts.is_removed || !set_disk_is_ours(d))
			continue;
		leaving.disks |= 1ull << i;
		if (!set_disk_is_running(d))
			return command_refuse(c, -EIO, "failed",
					      "disk %s does not run (%s): bring it back, or remove it with --force",
					      d->facts.name, d->why);
	}
	return drain_check_rest(c, &leaving);
}

static int node_drain_decide(struct command *c)
{
	const char *node = c->order->object;
	if (node_drain_check_node(c) != 0)
		return c->err;
	const struct set_node_drain *there = node_drain_find(c->set, node);
	if (!there == c->order->cancel)
		return 0;
	if (!c->order->cancel && node_drain_check_disks(c) != 0)
		return c->err;
	transaction_condition(&c->transaction, there ? there->revision : 0, NODE_DRAIN_KEY, node);
	if (c->order->cancel)
		transaction_delete(&c->transaction, NODE_DRAIN_KEY, node);
	else
		transaction_put(&c->transaction, strdup("{}"), NODE_DRAIN_KEY, node);
	return 1;
}

static void node_drain_apply(struct command *c, uint64_t revision)
{
	struct volume_set *s = c->set;
	const char *node = c->order->object;
	s->is_node_drain_told = false;
	if (c->order->cancel) {
		node_drain_take_out(s, node, revision);
		log_event(s->log, LOG_NOTICE, "node-drain-cancelled", node,
			  "node %s is drained no more: what has left it stays where it is", node);
	} else if (node_drain_put(s, node, revision) == 0) {
		log_event(
		    s->log, LOG_NOTICE, "node-draining", node,
		    "node %s is being drained: its data go to the disks of other nodes, and what is attached there "
		    "over NBD is served by them",
		    node);
	} else {
		command_refuse(c, -ENOMEM, "no-memory",
			       "it is done, but there is no memory to remember it: start the daemon again");
	}
	drains_look(s);
}

const struct command_kind command_node_drain = {
    .name = "node drain", .run = command_change_run, .decide = node_drain_decide, .apply = node_drain_apply};

int command_check_node_takes(struct command *c, const char *node)
{
	if (!set_node_is_draining(c->set, node))
		return 0;
	return command_refuse(
	    c, -EBUSY, "in-use",
	    "node %s is being drained: choose another node, or drain it no more (quarry node drain %s "
	    "--cancel)",
	    node, node);
}

/* ---- marks ---- */

static bool marks_concern(const struct set_disk *d)
{
	if (!d || d->facts.is_removed || d->facts.revision == 0 || !set_disk_is_ours(d))
		return false;
	return set_node_is_draining(d->set, d->set->node_name) ? !d->facts.is_draining : d->facts.drains_with_node;
}

static int marks_decide(struct command *c)
{
	bool is_wanted = set_node_is_draining(c->set, c->set->node_name);
	uint32_t n = 0;
	c->seen_disks = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX && n < MARKS_MAX; i++) {
		if (!marks_concern(c->set->disks[i]))
			continue;
		struct disk_facts facts = c->set->disks[i]->facts;
		char uuid[UUID_TEXT_BYTES];
		facts.is_draining = facts.drains_with_node = is_wanted;
		uuid_to_text(&facts.uuid, uuid);
		transaction_condition(&c->transaction, facts.revision, DISK_KEY, uuid);
		transaction_put(&c->transaction, disk_to_json(&facts), DISK_KEY, uuid);
		c->seen_disks |= 1ull << i;
		n++;
	}
	return n > 0;
}

static void marks_apply(struct command *c, uint64_t revision)
{
	bool is_wanted = set_node_is_draining(c->set, c->set->node_name);
	for (uint64_t left = c->seen_disks; left != 0; left &= left - 1) {
		struct set_disk *d = c->set->disks[__builtin_ctzll(left)];
		quarry_assert(d && revision > d->facts.revision);
		d->facts.is_draining = d->facts.drains_with_node = is_wanted;
		d->facts.revision = revision;
		d->drain_ns = d->drain_bytes = 0;
		d->is_drain_told = false;
	}
}

const struct command_kind command_node_disks = {
    .name = "node disks", .run = command_change_run, .decide = marks_decide, .apply = marks_apply};

static void marks_over(struct set_command *o, int res)
{
	struct volume_set *s = set_own_ended(o);
	if (res == 0) /* there may be more than one transaction takes */
		drains_look(s);
}

/* true: it is to be looked at again. */
static bool marks_look(struct volume_set *s)
{
	bool is_needed = false;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		is_needed |= marks_concern(s->disks[i]);
	if (is_needed)
		set_order_own(s, SET_NODE_DISKS, marks_over);
	return is_needed;
}

/* ---- what is attached there ---- */

struct choice {
	const struct set_volume *entry;
	char node[NAME_BYTES]; /* "": none yet */
	bool has_copy;         /* it has a current one, */
	uint32_t n_attached;   /* and serves so many volumes */
};

static uint32_t node_attached(const struct volume_set *s, const char *node)
{
	uint32_t n = 0;
	list_each (link, &s->volumes) {
		const struct set_volume *v = container_of(link, struct set_volume, link);
		n += volume_facts_are_attached(&v->facts) && strcmp(v->facts.owner, node) == 0;
	}
	return n;
}

static bool node_has_copy(const struct set_volume *entry, const char *node)
{
	for (uint32_t i = 0; i < entry->facts.n_disks; i++) {
		const struct set_disk *d = set_disk_by_uuid(entry->set, &entry->facts.disks[i].uuid);
		if (d && !entry->facts.disks[i].is_stale && strcmp(d->facts.node, node) == 0)
			return true;
	}
	return false;
}

static void choice_look(const struct member_view *v, void *context)
{
	struct choice *c = context;
	struct volume_set *s = c->entry->set;
	if (v->is_self || v->state != MEMBER_SERVING || set_node_is_draining(s, v->name))
		return;
	bool has_copy = node_has_copy(c->entry, v->name);
	uint32_t n_attached = node_attached(s, v->name);
	if (c->node[0] && (c->has_copy != has_copy ? c->has_copy : c->n_attached <= n_attached))
		return;
	c->has_copy = has_copy;
	c->n_attached = n_attached;
	text_print(c->node, sizeof(c->node), "%s", v->name);
}

/* Is it attached here, or a snapshot of it, and the node is being drained? */
static bool node_is_to_lose(const struct set_volume *entry)
{
	return set_volume_returns(entry) && set_node_is_draining(entry->set, entry->set->node_name);
}

static bool volume_may_go(const struct set_volume *entry)
{
	const struct volume_facts *f = &entry->facts;
	return !f->is_attached_vhost && volume_facts_are_replicated(f) && !f->fill.source[0] && entry->head &&
	       !entry->attach && entry->head->state == VOLUME_SERVING && !entry->head->is_fenced;
}

bool node_drain_choose(const struct set_volume *entry, char *node, size_t room)
{
	struct choice c = {.entry = entry};
	if (!entry->set->members || !node_is_to_lose(entry) || !volume_may_go(entry))
		return false;
	members_each(entry->set->members, choice_look, &c);
	text_print(node, room, "%s", c.node);
	return c.node[0] != 0;
}

/* What keeps it on this node, and what to do; false: nothing does. */
static bool volume_stays(const struct set_volume *entry, char *why, size_t room)
{
	const struct volume_facts *f = &entry->facts;
	char node[NAME_BYTES];
	bool is_here = node_is_to_lose(entry);
	if (f->is_deleting)
		return false;
	if (is_here && f->is_attached_vhost)
		text_print(why, room,
			   "volume %s is attached over vhost-user, and its client is on this node: end the client, and "
			   "quarry volume detach %s --vhost-user",
			   f->name, f->name);
	else if (is_here && f->fill.source[0])
		text_print(why, room, "volume %s is being filled from %s, and goes when that is done", f->name,
			   f->fill.source);
	else if (!volume_facts_are_replicated(f) && (is_here || (f->n_disks > 0 && set_volume_is_here(entry))))
		text_print(why, room,
			   "volume %s has one copy, which other nodes cannot take over: give it a second one (quarry "
			   "volume set %s --replicas 2), and it goes by itself",
			   f->name, f->name);
	else if (is_here && !entry->head && entry->why[0])
		text_print(why, room, "volume %s is not served here now: %s", f->name, entry->why);
	else if (is_here && !node_drain_choose(entry, node, sizeof(node)) && volume_may_go(entry))
		text_print(why, room, "no other node is alive that could serve volume %s: start one", f->name);
	else
		return false;
	return true;
}

static bool snapshot_stays(const struct set_volume *entry, char *why, size_t room)
{
	list_each (link, &entry->snapshots) {
		const struct set_snapshot *snap = container_of(link, struct set_snapshot, link);
		if (!snapshot_has_export(snap) && !snapshot_has_door(snap))
			continue;
		text_print(why, room, "snapshot %s@%s is attached on this node: quarry volume detach %s@%s",
			   entry->facts.name, snap->facts.name, entry->facts.name, snap->facts.name);
		return true;
	}
	return false;
}

/* ---- look ---- */

static bool snapshot_is_on(const struct set_volume *entry, const char *node)
{
	list_each (link, &entry->snapshots) {
		const struct snapshot_facts *f = &container_of(link, struct set_snapshot, link)->facts;
		if (strcmp(f->attached_nbd, node) == 0 || strcmp(f->attached_vhost, node) == 0)
			return true;
	}
	return false;
}

/* Nothing lies there, and nothing is attached: any node knows that. */
static bool node_is_empty(const struct volume_set *s, const char *node)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		if (d && !d->facts.is_removed && strcmp(d->facts.node, node) == 0 &&
		    (!d->facts.is_draining || set_disk_users(d, NULL, 0) > 0))
			return false;
	}
	list_each (link, &s->volumes) {
		const struct set_volume *v = container_of(link, struct set_volume, link);
		if (snapshot_is_on(v, node))
			return false;
	}
	return node_attached(s, node) == 0;
}

void volume_set_node_drain(const struct volume_set *s, const char *node, struct node_drain_view *view)
{
	*view = (struct node_drain_view){.is_wanted = set_node_is_draining(s, node)};
	if (!view->is_wanted)
		return;
	uint64_t now_ns = reactor_now_ns(s->reactor), from_bytes = 0, since_ns = now_ns;
	view->is_done = node_is_empty(s, node);
	view->n_attached = node_attached(s, node);
	if (view->is_done || !set_node_is_self(s, node)) /* that node knows how far it is */
		return;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		if (!d || d->facts.is_removed || !set_disk_is_ours(d))
			continue;
		view->left_bytes += drain_bytes(d);
		from_bytes += d->drain_bytes;
		since_ns = d->drain_ns > 0 ? min_u64(since_ns, d->drain_ns) : since_ns;
		if (!view->why[0] && set_disk_users(d, NULL, 0) > 0)
			text_print(view->why, sizeof(view->why), "%s", drain_why(d));
	}
	view->eta_s = drain_eta_s(from_bytes, view->left_bytes, now_ns - since_ns);
	list_each (link, &s->volumes) {
		const struct set_volume *v = container_of(link, struct set_volume, link);
		char why[SET_WHY_BYTES];
		if (!volume_stays(v, why, sizeof(why)) && !snapshot_stays(v, why, sizeof(why)))
			continue;
		text_print(view->why, sizeof(view->why), "%s", why);
		return;
	}
}

static void node_drain_tell_done(struct volume_set *s)
{
	if (s->is_node_drain_told || !node_is_empty(s, s->node_name))
		return;
	s->is_node_drain_told = true;
	log_event(
	    s->log, LOG_NOTICE, "node-drained", s->node_name,
	    "node %s holds nothing and serves nothing any more: stop it, remove its disks, or use it again (quarry "
	    "node drain %s --cancel)",
	    s->node_name, s->node_name);
}

bool node_drain_look(struct volume_set *s)
{
	bool is_needed = s->members && marks_look(s);
	if (!set_node_is_draining(s, s->node_name))
		return is_needed;
	list_each (link, &s->volumes) {
		struct set_volume *entry = container_of(link, struct set_volume, link);
		char node[NAME_BYTES];
		if (node_drain_choose(entry, node, sizeof(node)))
			order_own(entry, SET_VOLUME_MOVE);
	}
	node_drain_tell_done(s);
	return is_needed || !s->is_node_drain_told;
}
