/*
 * cluster_upkeep.c: what people do to the cluster itself while it works: disks and nodes are drained, disks added and
 * removed, also by force, and volumes get more copies or fewer.
 *
 * A disk that is added was formatted, and recorded, by a daemon that died then: the command opens it.
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_world.h"

#include <errno.h>

#define DOMAINS_MIN 2u /* nodes with disks that are left when one is removed */

/* ---- disks that are there ---- */

static void disk_drained(struct cluster_order *o, int res)
{
	o->cluster->totals.drains += res == 0 && !o->command.cancel;
}

static void disk_removed(struct cluster_order *o, int res)
{
	o->cluster->totals.removals += res == 0 && !o->command.force;
	o->cluster->totals.forced_removals += res == 0 && o->command.force;
	o->disk->is_away = o->disk->is_away || res == 0;
}

static void disk_order(struct cluster *c, struct cluster_order *o, enum set_command_kind kind)
{
	o->volume = NULL;
	o->command.kind = kind;
	text_print(o->command.object, sizeof(o->command.object), "%s", o->disk->name);
	o->ended = kind == SET_DISK_DRAIN ? disk_drained : disk_removed;
	order_give(c, o);
}

/* Any that is there, and whose node can be told. */
static bool disk_pick(struct cluster *c, struct cluster_order *o)
{
	o->disk = &c->disks[pick(c, c->n_disks)];
	o->node = &c->nodes[o->disk->node];
	o->command = (struct set_command){.n_targets = 0};
	return node_is_awake(o->node) && disk_is_there(o->disk);
}

void upkeep_drain_disk(struct cluster *c, struct cluster_order *o)
{
	if (!disk_pick(c, o))
		return;
	o->command.cancel = one_in(c, 4);
	disk_order(c, o, SET_DISK_DRAIN);
}

void upkeep_remove_disk(struct cluster *c, struct cluster_order *o)
{
	if (disk_pick(c, o))
		disk_order(c, o, SET_DISK_REMOVE);
}

static uint32_t domains_without(const struct cluster *c, const struct cluster_disk *out)
{
	uint64_t nodes = 0;
	for (uint32_t i = 0; i < c->n_disks; i++)
		if (disk_is_there(&c->disks[i]) && &c->disks[i] != out)
			nodes |= 1ull << c->disks[i].node;
	return (uint32_t)__builtin_popcountll(nodes);
}

/* One that everything can do without now; it may be another's turn before the command is carried out. */
static void act_remove_by_force(struct cluster *c, struct cluster_order *o)
{
	bool is_told = disk_pick(c, o);
	if (!disk_is_there(o->disk) || o->node->paused_until_ns || !(spread_spare(c) >> (o->disk - c->disks) & 1) ||
	    domains_without(c, o->disk) < DOMAINS_MIN)
		return;
	if (!is_told) /* its node is lost: another one is told */
		o->node = order_node(c, NULL);
	if (!o->node)
		return;
	o->command.force = true;
	disk_order(c, o, SET_DISK_REMOVE);
}

/* ---- disks that are new, or return ---- */

/* Its node opens it when it is told to, or starts. */
static void act_add_disk(struct cluster *c)
{
	struct cluster_disk *d = &c->disks[pick(c, c->n_disks)];
	if (d->is_spare && store_put_disk(c, d) == 0)
		cluster_say(c, &c->nodes[d->node], "has a new disk: %s", d->name);
}

void upkeep_add_spares(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_disks; i++)
		if (c->disks[i].is_spare && store_put_disk(c, &c->disks[i]) != 0)
			cluster_fail(c, "%s cannot be added", c->disks[i].name);
}

/* With accept_older it is never formatted: that takes a thread, which is no part of this world. */
void upkeep_return_disks(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_disks; i++) {
		struct cluster_disk *d = &c->disks[i];
		struct cluster_node *n = &c->nodes[d->node];
		struct set_disk *mine = node_is_awake(n) ? set_disk_by_uuid(n->set, &d->uuid) : NULL;
		struct cluster_order *o = order_free(c);
		bool is_broken = mine && (mine->state == SET_DISK_FAILED || mine->state == SET_DISK_ABSENT);
		if (!o || !is_broken || !disk_is_there(d))
			continue;
		if (mine->is_older)
			cluster_fail(c, "%s is taken for an older copy: %s", d->name, mine->why);
		*o = (struct cluster_order){
		    .node = n, .disk = d, .command = {.kind = SET_DISK_ADD, .accept_older = true}};
		text_print(o->command.path, sizeof(o->command.path), "%s", d->path);
		order_give(c, o);
	}
}

/* ---- nodes ---- */

static void node_drained(struct cluster_order *o, int res)
{
	o->cluster->totals.node_drains += res == 0 && !o->command.cancel;
}

static void order_drain_node(struct cluster *c, struct cluster_order *o, bool cancel)
{
	o->volume = NULL;
	o->command = (struct set_command){.kind = SET_NODE_DRAIN, .cancel = cancel};
	text_print(o->command.object, sizeof(o->command.object), "%s", o->node->name);
	o->ended = node_drained;
	order_give(c, o);
}

static void act_drain_node(struct cluster *c, struct cluster_order *o)
{
	o->node = &c->nodes[pick(c, c->n_nodes)];
	bool is_draining = c->node_is_draining[o->node->number];
	if (node_is_awake(o->node))
		order_drain_node(c, o, is_draining ? !one_in(c, 3) : one_in(c, 10));
}

/* ---- how many copies ---- */

static void replicas_changed(struct cluster_order *o, int res)
{
	o->cluster->totals.replica_changes += res == 0 && !o->command.is_unchanged;
}

/* Of a volume whose writes never wait for more copies they never will: see io_may_be_passed(). */
static void act_set_replicas(struct cluster *c, struct cluster_order *o)
{
	struct model_volume *v = o->volume;
	uint32_t replicas = 1 + (uint32_t)pick(c, min_u64(c->n_nodes, 4)), at_least = v->facts.record.min_replicas;
	o->command = (struct set_command){.kind = SET_VOLUME_SET, .replicas = replicas};
	if (at_least > replicas)
		o->command.min_replicas = replicas;
	else if (v->min_replicas > 1 && one_in(c, 3))
		o->command.min_replicas = 1 + (uint32_t)pick(c, replicas);
	text_print(o->command.object, sizeof(o->command.object), "%s", v->name);
	o->ended = replicas_changed;
	order_give(c, o);
}

/* ---- any of them ---- */

static struct model_volume *volume_pick(struct cluster *c)
{
	struct model_volume *v = &c->volumes[pick(c, VOLUMES_MAX)];
	return v->cells && v->doubt == DOUBT_NONE && !v->is_lost ? v : NULL;
}

void upkeep_act(struct cluster *c)
{
	struct cluster_order *o = order_free(c);
	struct model_volume *v = volume_pick(c);
	enum habit habit = 1u << pick(c, 3);
	if (!o || !(c->habits & habit))
		return;
	*o = (struct cluster_order){.cluster = c};
	if (habit == HABIT_NODES)
		return act_drain_node(c, o);
	if (habit == HABIT_DISKS)
		return one_in(c, 2) ? act_add_disk(c) : act_remove_by_force(c, o);
	o->volume = v;
	o->node = v ? order_node(c, v) : NULL;
	if (o->node)
		act_set_replicas(c, o);
}

/* ---- at the end ---- */

static void cancel_nodes(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		struct cluster_order *o = order_free(c);
		if (!o || !c->node_is_draining[i] || !node_is_awake(&c->nodes[i]))
			continue;
		*o = (struct cluster_order){.node = &c->nodes[i]};
		order_drain_node(c, o, true);
	}
}

void upkeep_cancel_drains(struct cluster *c)
{
	cancel_nodes(c);
	for (uint32_t i = 0; i < c->n_disks; i++) {
		struct cluster_disk *d = &c->disks[i];
		struct cluster_node *n = &c->nodes[d->node];
		const struct set_disk *mine = !disk_is_there(d) ? NULL : node_disk(n, d);
		struct cluster_order *o = order_free(c);
		if (!o || !mine || !node_is_awake(n) || !mine->facts.is_draining || mine->facts.drains_with_node)
			continue;
		*o = (struct cluster_order){.node = n, .disk = d, .command = {.cancel = true}};
		disk_order(c, o, SET_DISK_DRAIN);
	}
}

static void lost_order(struct cluster *c, struct model_volume *v, enum set_command_kind kind)
{
	struct cluster_order *o = order_free(c);
	struct cluster_node *n = order_node(c, v);
	if (!o || !n)
		return;
	*o = (struct cluster_order){.node = n};
	o->command = (struct set_command){.kind = kind, .with_snapshots = kind == SET_VOLUME_DELETE};
	text_print(o->command.object, sizeof(o->command.object), "%s", v->facts.record.name);
	order_give(c, o);
}

void upkeep_delete_lost(struct cluster *c)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
		struct model_volume *v = &c->volumes[i];
		if (!v->is_lost || v->n_ios > 0)
			continue;
		if (!v->facts.exists)
			volume_forget(v);
		else if (volume_facts_are_attached(&v->facts.record))
			lost_order(c, v, SET_VOLUME_DETACH);
		else if (!v->facts.record.is_deleting)
			lost_order(c, v, SET_VOLUME_DELETE);
	}
}
