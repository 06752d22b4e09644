/*
 * cluster_orders.c: commands on volumes of all kinds at all nodes, and what they have come to.
 *
 * A command that succeeded has done what it says; one that was refused has done nothing. Of one that failed otherwise, or
 * whose node died, nobody knows: a snapshot, or a clone, is then in doubt until the store is looked into at the end, and a
 * rollback until a head serves again. What a snapshot made in such a way holds is known all the same.
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the model ---- */

void volume_forget(struct model_volume *v)
{
	struct cluster_facts facts = v->facts; /* the store's */
	oracle_volume_destroy(v->cells);
	point_free(v->rollback.point);
	for (uint32_t i = 0; i < SNAPSHOTS_EACH; i++)
		point_free(v->snapshots[i].point);
	*v = (struct model_volume){.facts = facts};
}

static void snapshot_forget(struct model_snapshot *s)
{
	point_free(s->point);
	*s = (struct model_snapshot){.name = ""};
}

static struct model_volume *volume_make(struct cluster *c, uint32_t n_segments, uint32_t min_replicas)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
		struct model_volume *v = &c->volumes[i];
		if (v->name[0] || v->facts.exists)
			continue;
		*v = (struct model_volume){
		    .number = ++c->next_name, .n_segments = n_segments, .min_replicas = min_replicas};
		text_print(v->name, sizeof(v->name), "v%u", v->number);
		return v;
	}
	return NULL;
}

static struct model_snapshot *snapshot_make(struct cluster *c, struct model_volume *v)
{
	for (uint32_t i = 0; i < SNAPSHOTS_EACH; i++) {
		if (v->snapshots[i].name[0])
			continue;
		text_print(v->snapshots[i].name, sizeof(v->snapshots[i].name), "s%u", ++c->next_name);
		return &v->snapshots[i];
	}
	return NULL;
}

/* One that is certainly there. */
static struct model_snapshot *snapshot_pick(struct cluster *c, struct model_volume *v)
{
	uint32_t from = (uint32_t)pick(c, SNAPSHOTS_EACH);
	for (uint32_t i = 0; i < SNAPSHOTS_EACH; i++) {
		struct model_snapshot *s = &v->snapshots[(from + i) % SNAPSHOTS_EACH];
		if (s->name[0] && s->point && s->doubt == DOUBT_NONE)
			return s;
	}
	return NULL;
}

static bool is_refused(int res)
{
	return res == -EREMOTE || res == -EBUSY || res == -EINVAL || res == -EEXIST || res == -ENOENT;
}

/* ---- what they have come to ---- */

static void snapshot_done(struct cluster_order *o, int res)
{
	struct model_snapshot *s = o->snapshot;
	o->cluster->totals.snapshots += res == 0;
	if (is_refused(res))
		return snapshot_forget(s);
	s->doubt = res == 0 ? DOUBT_NONE : DOUBT_EXISTS;
	s->point = point_take(o->volume->cells, o->mark);
}

static void snapshot_deleted(struct cluster_order *o, int res)
{
	o->cluster->totals.deletes += res == 0;
	if (res == 0)
		snapshot_forget(o->snapshot);
	else
		o->snapshot->doubt = is_refused(res) ? DOUBT_NONE : DOUBT_GONE;
}

void rollback_decide(struct model_volume *v, const struct volume *head)
{
	if (head->entry->facts.live_tree != v->rollback.live_tree)
		oracle_roll_back(v->cells, v->rollback.point);
	point_free(v->rollback.point);
	v->rollback.point = NULL;
}

static void rolled_back(struct cluster_order *o, int res)
{
	struct model_volume *v = o->volume;
	o->cluster->totals.rollbacks += res == 0;
	o->snapshot->doubt = DOUBT_NONE;
	v->is_quiet = false;
	if (res != 0 && !is_refused(res))
		return; /* until a head serves */
	if (res == 0)
		oracle_roll_back(v->cells, v->rollback.point);
	point_free(v->rollback.point);
	v->rollback.point = NULL;
}

static void cloned(struct cluster_order *o, int res)
{
	o->cluster->totals.clones += res == 0;
	o->snapshot->doubt = DOUBT_NONE;
	if (is_refused(res))
		return volume_forget(o->clone);
	o->clone->doubt = res == 0 ? DOUBT_NONE : DOUBT_EXISTS;
	o->clone->cells = oracle_volume_clone(o->snapshot->point, o->clone->number);
}

static void volume_deleted(struct cluster_order *o, int res)
{
	o->cluster->totals.deletes += res == 0;
	o->volume->is_quiet = false;
	if (res == 0)
		volume_forget(o->volume);
	else
		o->volume->doubt = is_refused(res) ? DOUBT_NONE : DOUBT_GONE;
}

static void volume_moved(struct cluster_order *o, int res)
{
	o->cluster->totals.moves += res == 0;
}

static void order_end(struct cluster_order *o, int res)
{
	o->is_used = false;
	if (o->ended)
		o->ended(o, res);
}

static void order_done(struct set_command *command, int res)
{
	struct cluster_order *o = container_of(command, struct cluster_order, command);
	cluster_say(o->cluster, o->node, "command %d on %s %s: %d %s", command->kind, command->object,
		    command->targets[0].snapshot, res, command->why);
	order_end(o, res);
}

void orders_forget(struct cluster *c, const struct cluster_node *n)
{
	for (uint32_t i = 0; i < ORDERS_MAX; i++)
		if (c->orders[i].is_used && c->orders[i].node == n)
			order_end(&c->orders[i], -ETIMEDOUT);
}

bool orders_are_idle(struct cluster *c)
{
	for (uint32_t i = 0; i < ORDERS_MAX; i++)
		if (c->orders[i].is_used)
			return false;
	return true;
}

/* ---- giving them ---- */

struct cluster_order *order_free(struct cluster *c)
{
	for (uint32_t i = 0; i < ORDERS_MAX; i++)
		if (!c->orders[i].is_used)
			return &c->orders[i];
	return NULL;
}

void order_give(struct cluster *c, struct cluster_order *o)
{
	cluster_say(c, o->node, "is given command %d on %s %s %s", o->command.kind, o->command.object,
		    o->command.targets[0].snapshot, o->command.other);
	o->cluster = c;
	o->is_used = true;
	o->command.done = order_done;
	volume_set_command(o->node->set, &o->command);
}

struct cluster_node *order_node(struct cluster *c, const struct model_volume *v)
{
	uint32_t from = (uint32_t)pick(c, c->n_nodes);
	for (uint32_t i = 0; i < c->n_nodes && v; i++)
		if (node_is_awake(&c->nodes[i]) && client_head(&c->nodes[i], v))
			return &c->nodes[i];
	for (uint32_t i = 0; i < c->n_nodes; i++)
		if (node_is_awake(&c->nodes[(from + i) % c->n_nodes]))
			return &c->nodes[(from + i) % c->n_nodes];
	return NULL;
}

struct set_command order_command(enum set_command_kind kind, const struct model_volume *v,
				 const struct model_snapshot *s)
{
	struct set_command command = {.kind = kind, .n_targets = s ? 1 : 0};
	text_print(command.object, sizeof(command.object), "%s", v->name);
	if (!s)
		return command;
	text_print(command.targets[0].volume, sizeof(command.targets[0].volume), "%s", v->name);
	text_print(command.targets[0].snapshot, sizeof(command.targets[0].snapshot), "%s", s->name);
	return command;
}

static struct model_volume *volume_pick(struct cluster *c)
{
	struct model_volume *v = &c->volumes[pick(c, VOLUMES_MAX)];
	return v->cells && v->doubt == DOUBT_NONE && !v->rollback.point && !v->is_lost ? v : NULL;
}

static void act_snapshot(struct cluster *c, struct cluster_order *o)
{
	struct model_snapshot *s = snapshot_make(c, o->volume);
	if (!s)
		return;
	o->snapshot = s;
	o->mark = oracle_now(o->volume->cells);
	o->command = order_command(SET_SNAPSHOT_CREATE, o->volume, s);
	o->ended = snapshot_done;
	order_give(c, o);
}

static void act_snapshot_delete(struct cluster *c, struct cluster_order *o)
{
	o->snapshot = snapshot_pick(c, o->volume);
	if (!o->snapshot)
		return;
	o->snapshot->doubt = DOUBT_GONE;
	o->command = order_command(SET_SNAPSHOT_DELETE, o->volume, o->snapshot);
	o->ended = snapshot_deleted;
	order_give(c, o);
}

static void act_rollback(struct cluster *c, struct cluster_order *o)
{
	struct model_volume *v = o->volume;
	o->snapshot = snapshot_pick(c, v);
	if (!o->snapshot || v->n_ios > 0 || v->is_quiet || v->rollback.point)
		return;
	v->is_quiet = true;
	v->rollback.point = point_copy(o->snapshot->point);
	v->rollback.live_tree = v->facts.record.live_tree;
	o->snapshot->doubt = DOUBT_EXISTS; /* nobody deletes it meanwhile */
	o->command = order_command(SET_SNAPSHOT_ROLLBACK, v, o->snapshot);
	o->ended = rolled_back;
	order_give(c, o);
}

static void detached_for_rollback(struct cluster_order *o, int res)
{
	struct cluster_order next = {.node = o->node, .volume = o->volume};
	if (res != 0 || !node_is_awake(o->node) || o->volume->doubt != DOUBT_NONE)
		return;
	*o = next; /* it is free again */
	act_rollback(o->node->cluster, o);
}

/* Nobody rolls a volume back that clients have. */
static void act_detach_and_rollback(struct cluster *c, struct cluster_order *o)
{
	if (!snapshot_pick(c, o->volume))
		return;
	o->command = order_command(SET_VOLUME_DETACH, o->volume, NULL);
	o->ended = detached_for_rollback;
	order_give(c, o);
}

static void act_clone(struct cluster *c, struct cluster_order *o)
{
	if (o->volume->has_ballast)
		return; /* disks would become full when it moves by itself */
	o->snapshot = snapshot_pick(c, o->volume);
	o->clone = o->snapshot ? volume_make(c, o->volume->n_segments, o->volume->min_replicas) : NULL;
	if (!o->clone)
		return;
	o->snapshot->doubt = DOUBT_EXISTS;
	o->command = order_command(SET_VOLUME_CLONE, o->volume, o->snapshot);
	text_print(o->command.other, sizeof(o->command.other), "%s", o->clone->name);
	o->ended = cloned;
	order_give(c, o);
}

/* Of a volume that nobody has attached, and that is not the last. */
static void act_volume_delete(struct cluster *c, struct cluster_order *o)
{
	struct model_volume *v = o->volume;
	if (v->number == 1 || v->n_ios > 0 || v->is_quiet)
		return;
	for (uint32_t i = 0; i < ORDERS_MAX; i++)
		if (c->orders[i].is_used && c->orders[i].volume == v)
			return;
	v->is_quiet = true;
	o->command = order_command(SET_VOLUME_DELETE, v, NULL);
	o->command.with_snapshots = true;
	o->ended = volume_deleted;
	order_give(c, o);
}

static void act_attach(struct cluster *c, struct cluster_order *o, bool takeover)
{
	if (one_in(c, 2))
		o->node = order_node(c, NULL);
	o->command = order_command(SET_VOLUME_ATTACH, o->volume, NULL);
	o->command.takeover = takeover;
	text_print(o->command.other, sizeof(o->command.other), "nbd");
	order_give(c, o);
}

static void act_detach(struct cluster *c, struct cluster_order *o)
{
	o->command = order_command(SET_VOLUME_DETACH, o->volume, NULL);
	order_give(c, o);
}

static void act_move(struct cluster *c, struct cluster_order *o)
{
	o->command = order_command(SET_VOLUME_MOVE, o->volume, NULL);
	text_print(o->command.other, sizeof(o->command.other), "%s", c->nodes[pick(c, c->n_nodes)].name);
	o->ended = volume_moved;
	order_give(c, o);
}

/* ---- what has nobody ---- */

void order_detach_broken(struct cluster *c)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
		struct model_volume *v = &c->volumes[i];
		struct cluster_order *o = order_free(c);
		struct cluster_node *n = v->cells && v->facts.record.replicas == 1 ? order_node(c, v) : NULL;
		struct volume *head = n ? client_head(n, v) : NULL;
		if (!o || !head || !head->why[0])
			continue;
		*o = (struct cluster_order){.node = n, .volume = v};
		act_detach(c, o);
	}
}

void order_attach_lost(struct cluster *c)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
		struct model_volume *v = &c->volumes[i];
		struct cluster_order *o = order_free(c);
		struct cluster_node *n = order_node(c, NULL);
		if (!o || !n || !v->cells || v->is_quiet || v->is_lost || !v->facts.exists ||
		    v->facts.record.is_deleting || v->facts.record.is_attached_nbd)
			continue;
		*o = (struct cluster_order){.node = n, .volume = v};
		act_attach(c, o, false);
	}
}

/* ---- any of them ---- */

void order_act(struct cluster *c)
{
	struct cluster_order *o = order_free(c);
	struct model_volume *v = volume_pick(c);
	struct cluster_node *n = v ? order_node(c, v) : NULL;
	if (!o || !n)
		return;
	*o = (struct cluster_order){.node = n, .volume = v};
	switch (pick(c, 16)) {
	case 0:
	case 1:
	case 2:
		return act_snapshot(c, o);
	case 3:
	case 4:
		return act_snapshot_delete(c, o);
	case 5:
	case 6:
		return act_detach_and_rollback(c, o);
	case 7:
		return act_clone(c, o);
	case 8:
		return act_volume_delete(c, o);
	case 9:
		return act_detach(c, o);
	case 10:
		return act_attach(c, o, one_in(c, 2));
	case 11:
	case 12:
		return act_move(c, o);
	case 13:
	case 14:
		return upkeep_drain_disk(c, o);
	case 15:
		if (one_in(c, 3))
			upkeep_remove_disk(c, o);
		return;
	}
}

/* ---- one that is waited for ---- */

struct waited {
	struct set_command command;
	bool is_done;
	int res;
};

static void waited_done(struct set_command *command, int res)
{
	struct waited *w = container_of(command, struct waited, command);
	w->is_done = true;
	w->res = res;
}

int order_wait(struct cluster *c, struct cluster_node *n, struct set_command *command)
{
	struct waited w = {.command = *command};
	w.command.done = waited_done;
	volume_set_command(n->set, &w.command);
	for (uint32_t i = 0; i < 120000 && !w.is_done; i++)
		cluster_pass(c, NS_PER_MS);
	if (!w.is_done)
		cluster_fail(c, "command %d on %s is never answered", command->kind, command->object);
	*command = w.command;
	return w.res;
}

struct model_volume *order_create_volume(struct cluster *c, uint32_t replicas, uint32_t min_replicas)
{
	struct model_volume *v = volume_make(c, SEGMENTS_MAX, min_replicas);
	struct cluster_node *n = &c->nodes[pick(c, c->n_nodes)];
	struct set_command create = order_command(SET_VOLUME_CREATE, v, NULL), attach;
	create.size_bytes = v->n_segments * GIB;
	create.replicas = replicas;
	create.min_replicas = min_replicas;
	if (order_wait(c, n, &create) != 0)
		cluster_fail(c, "%s cannot be made: %s", v->name, create.why);
	attach = order_command(SET_VOLUME_ATTACH, v, NULL);
	text_print(attach.other, sizeof(attach.other), "nbd");
	if (order_wait(c, n, &attach) != 0)
		cluster_fail(c, "%s cannot be attached: %s", v->name, attach.why);
	v->cells = oracle_volume_create(v->n_segments, v->number);
	return v;
}
