/*
 * look.c: what an order looks at, and which node can tell it.
 *
 * Of what another node has, this one knows what the store says: names and sizes. The rest is that node's to tell: what
 * is free, how a volume does, what a snapshot takes.
 *
 * On the reactor; nothing is owned.
 */
#include "daemon/control/look.h"

#include "daemon/control/answer.h"

#include <stdio.h>
#include <string.h>

/* Of which objects only the one that is named is wanted. */
static unsigned only_parts(const struct order *o)
{
	bool names_snapshots = o->show == ORDER_SNAPSHOTS || o->show == ORDER_SNAPSHOT || o->show == ORDER_ATTACHMENT;
	if (o->show == ORDER_POOL)
		return SNAPSHOT_POOLS;
	if (o->show == ORDER_DISK)
		return SNAPSHOT_DISKS;
	if (o->show == ORDER_VOLUME)
		return SNAPSHOT_VOLUMES;
	if (o->show == ORDER_NODE)
		return SNAPSHOT_NODES;
	return names_snapshots && o->object[0] ? SNAPSHOT_VOLUMES | SNAPSHOT_HISTORY : 0;
}

void look_take(const struct order *o, const struct snapshot_sources *from, struct snapshot *s)
{
	s->parts = answer_parts(o);
	s->slow_age_ns = o->older_than_ms * NS_PER_MS;
	s->only_parts = only_parts(o);
	memcpy(s->only, o->object, sizeof(s->only));
	if (s->parts != 0)
		snapshot_take(s, from);
}

/* A volume that is being deleted may have left its name to another: with two of a name, this node tells what it knows. */
static const char *node_of(const struct snapshot *s)
{
	if (s->parts & SNAPSHOT_VOLUMES) {
		const struct volume_view *v = s->n_volumes == 1 ? &s->volumes[0].view : NULL;
		return v && v->is_elsewhere && v->is_node_alive ? v->node : NULL;
	}
	const struct disk_view *d = s->n_disks == 1 ? &s->disks[0].view : NULL;
	return d && d->is_elsewhere && !d->why[0] ? d->node : NULL;
}

/* How far its draining is a node knows itself. */
static bool node_is_elsewhere(const char *name, const struct snapshot_sources *from)
{
	struct member_view m;
	struct node_drain_view drain;
	volume_set_node_drain(from->volumes, name, &drain);
	return drain.is_wanted && members_find(from->members, name, &m) && !m.is_self && m.state == MEMBER_SERVING;
}

/* Of a disk, a volume or a snapshot. */
static void find_elsewhere(const struct order *o, const struct snapshot_sources *from, char node[static SET_TEXT_MAX])
{
	struct snapshot s = {0};
	s.only_parts = o->show == ORDER_DISK ? SNAPSHOT_DISKS : SNAPSHOT_VOLUMES;
	s.parts = s.only_parts;
	snprintf(s.only, sizeof(s.only), "%.*s", (int)strcspn(o->object, o->show == ORDER_DISK ? "" : "@"), o->object);
	snapshot_take(&s, from);
	const char *name = node_of(&s);
	if (name)
		snprintf(node, SET_TEXT_MAX, "%s", name);
	snapshot_clear(&s);
}

bool look_is_elsewhere(const struct order *o, const struct snapshot_sources *from, char node[static SET_TEXT_MAX])
{
	bool is_look = !o->is_command || o->command.kind == SET_VOLUME_MEASURE;
	bool is_one = (o->show == ORDER_VOLUME || o->show == ORDER_DISK || o->show == ORDER_SNAPSHOT ||
		       o->show == ORDER_SNAPSHOTS) &&
		      o->object[0];
	node[0] = '\0';
	if (!is_look || !from->members)
		return false;
	if (o->show == ORDER_NODE && node_is_elsewhere(o->object, from))
		snprintf(node, SET_TEXT_MAX, "%s", o->object);
	if (is_one)
		find_elsewhere(o, from, node);
	return node[0] != '\0';
}
