/*
 * set_exports.c: the commands that attach a snapshot, read-only, and detach it: over NBD, over vhost-user, or both.
 *
 *   attach   CHECK -> RECORD -> (UNDO) -> END
 *   detach   CHECK -> (DRAIN) -> RECORD -> END
 *
 *   UNDO     over vhost-user, when no socket could be made for it: the record loses the attachment again
 *   DRAIN    of the last attachment: its clients end. Of one of two, its clients are told after RECORD
 *
 * The key of the snapshot says which node serves it; a restart of the daemon brings it back. Several snapshots of a
 * volume may be attached at a time, and the volume too.
 *
 * Invariants
 *  1. A snapshot is served before its attachment is recorded, so that what is recorded can be served.
 *  2. Both attachments of a snapshot share one head; it is let go with the last of them.
 *  3. Who attaches one only to copy it says so (temporary), and may have company: the last of them detaches it. One that was
 *     killed leaves it attached, and in nobody's way: the next one that copies it detaches it, or a deletion does.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum export_stage { EXPORT_CHECK, EXPORT_DRAIN, EXPORT_RECORD, EXPORT_UNDO };

/* The node that serves it already, or has its data. */
static int export_check_here(struct command *c)
{
	const struct snapshot_facts *f = &c->snapshot->facts;
	const char *node = f->attached_nbd[0] ? f->attached_nbd : f->attached_vhost;
	if (!c->set->members || node[0] == 0)
		return command_check_here(c, c->volume);
	if (set_node_is_self(c->set, node)) /* wherever the volume is by now */
		return 0;
	return command_refuse_elsewhere(c, node, "snapshot %s is attached on node %s: run this there", c->order->object,
					node);
}

/* The order's object is NAME@SNAP. */
static int export_find(struct command *c)
{
	struct set_target *t = &c->order->targets[0];
	const char *at = strchr(c->order->object, '@');
	size_t len = (size_t)(at - c->order->object);
	if (len >= sizeof(t->volume) || strlen(at + 1) >= sizeof(t->snapshot))
		return command_refuse_missing(c, "snapshot", c->order->object);
	snprintf(t->volume, sizeof(t->volume), "%.*s", (int)len, c->order->object);
	snprintf(t->snapshot, sizeof(t->snapshot), "%s", at + 1);
	return command_find_snapshot(c) == 0 ? export_check_here(c) : c->err;
}

/* ---- the record ---- */

static bool export_is_about(const struct command *c, const char *frontend)
{
	return c->order->other[0] == 0 || strcmp(c->order->other, frontend) == 0;
}

/* What the store is to hold of the snapshot. */
static struct snapshot_facts export_wanted(const struct command *c)
{
	struct snapshot_facts facts = c->snapshot->facts;
	bool is_attached = c->kind == &command_export && c->stage != EXPORT_UNDO;
	const char *node = is_attached ? c->set->node_name : "";
	if (export_is_about(c, "nbd"))
		text_print(facts.attached_nbd, sizeof(facts.attached_nbd), "%s", node);
	if (export_is_about(c, "nbd"))
		facts.is_temporary = is_attached && c->order->temporary;
	if (export_is_about(c, "vhost-user")) {
		text_print(facts.attached_vhost, sizeof(facts.attached_vhost), "%s", node);
		facts.vhost_queues = is_attached ? c->order->queues : 0;
	}
	return facts;
}

static int export_change(struct record_update *u, struct volume_facts *facts)
{
	facts->history++;
	return 0;
}

static void export_extend(struct record_update *u, struct transaction *t)
{
	const struct command *c = container_of(u, struct command, update);
	struct snapshot_facts facts = export_wanted(c);
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&c->volume->facts.uuid, uuid);
	transaction_put(t, snapshot_to_json(&facts), SNAPSHOT_KEY, uuid, (unsigned long long)facts.tree);
}

static void export_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	if (res != 0) {
		command_refuse_store(c, res);
	} else {
		c->snapshot->facts = export_wanted(c);
		c->snapshot->facts.revision = u->revision;
	}
	c->kind->run(c);
}

static void export_record(struct command *c, enum export_stage stage)
{
	c->stage = stage;
	c->update.change = export_change;
	c->update.extend = export_extend;
	c->update.done = export_recorded;
	record_update_start(&c->update, c->volume);
}

/* ---- attach ---- */

/* 1: attach it; 0: it is attached; -errno. */
static int export_check(struct command *c)
{
	if (export_find(c) != 0 || command_check_frontend(c) != 0)
		return c->err;
	const struct set_snapshot *snap = c->snapshot;
	uint32_t queues = c->order->queues;
	bool is_attached = order_is_vhost(c) ? snapshot_has_door(snap) : snapshot_has_export(snap);
	if (!is_attached || !snap->is_served) /* the second: it could not be brought back */
		return is_attached || command_check_node_takes(c, c->set->node_name) == 0 ? 1 : c->err;
	if (snap->facts.is_temporary && !order_is_vhost(c) && !c->order->temporary)
		return 1; /* now somebody wants it to stay */
	if (queues > 0 && queues != snapshot_vhost_queues(snap))
		return command_refuse(c, -EEXIST, "exists", "snapshot %s is attached with %u queues: detach it first",
				      c->order->object, snapshot_vhost_queues(snap));
	return 0;
}

static void export_undo(struct command *c)
{
	if (!snapshot_has_export(c->snapshot))
		snapshot_serve_end(c->snapshot); /* nobody could reach it */
	export_record(c, EXPORT_UNDO);
}

static void export_run(struct command *c)
{
	switch ((enum export_stage)c->stage) {
	case EXPORT_CHECK:
		if (export_check(c) != 1)
			break;
		if (snapshot_serve(c->snapshot) == 0)
			return export_record(c, EXPORT_RECORD);
		command_refuse(c, -ENOMEM, "no-memory", "there is no memory to attach it");
		break;
	case EXPORT_RECORD:
		if (c->err != 0 && !snapshot_has_export(c->snapshot) && !snapshot_has_door(c->snapshot))
			snapshot_serve_end(c->snapshot);
		if (c->err == 0 && order_is_vhost(c) && command_open_door(c, c->snapshot->head) != 0)
			return export_undo(c);
		break;
	case EXPORT_DRAIN:
	case EXPORT_UNDO:
		break;
	}
	command_end(c);
}

const struct command_kind command_export = {.name = "snapshot attach", .run = export_run};

/* ---- detach ---- */

static void export_drained(struct volume *v)
{
	struct set_snapshot *snap = v->snapshot;
	struct command *c = container_of(v->set->commands.next, struct set_command, link)->own;
	quarry_assert(c && c->volume == snap->entry);
	v->state = VOLUME_SERVING; /* the set itself may use it on */
	snapshot_serve_end(snap);
	c->kind->run(c);
}

void export_drain(struct command *c, const struct set_snapshot *snap)
{
	quarry_assert(snap->is_served && c->volume == snap->entry);
	volume_start_draining(snap->head, export_drained);
}

/* Of who copied it: does it stay, for others that do, or because somebody wants it to? */
static bool unexport_must_not(const struct command *c)
{
	const struct set_snapshot *snap = c->snapshot;
	return c->order->temporary && (!snap->facts.is_temporary || (snap->head && snap->head->refs > 0));
}

/* Has it the attachment that is to go? */
static bool unexport_has_work(struct command *c)
{
	if (export_find(c) != 0 || command_check_frontend(c) != 0)
		return false;
	const struct snapshot_facts *f = &c->snapshot->facts;
	if (unexport_must_not(c))
		return false;
	return (export_is_about(c, "nbd") && f->attached_nbd[0]) ||
	       (export_is_about(c, "vhost-user") && f->attached_vhost[0]);
}

/* The other attachment stays: the head goes on, and only clients of this one are ended. */
static bool unexport_leaves_other(const struct command *c)
{
	return c->order->other[0] &&
	       (order_is_vhost(c) ? snapshot_has_export(c->snapshot) : snapshot_has_door(c->snapshot));
}

static void unexport_run(struct command *c)
{
	switch ((enum export_stage)c->stage) {
	case EXPORT_CHECK:
		if (!unexport_has_work(c)) {
			c->order->is_unchanged = c->err == 0;
			break;
		}
		if (!c->snapshot->is_served || unexport_leaves_other(c)) /* the first: it could not be brought back */
			return export_record(c, EXPORT_RECORD);
		c->stage = EXPORT_DRAIN;
		return export_drain(c, c->snapshot);
	case EXPORT_DRAIN:
		return export_record(c, EXPORT_RECORD);
	case EXPORT_RECORD:
		if (c->err == 0 && c->snapshot->is_served)
			volume_tell(c->snapshot->head, order_is_vhost(c) ? VOLUME_VHOST_DETACHED : VOLUME_NBD_DETACHED);
		break;
	case EXPORT_UNDO:
		break;
	}
	command_end(c);
}

const struct command_kind command_unexport = {.name = "snapshot detach", .run = unexport_run};

/* ---- with the volume ---- */

enum flow exports_end_left(struct command *c)
{
	list_each (node, &c->volume->snapshots) {
		const struct set_snapshot *snap = container_of(node, struct set_snapshot, link);
		if (!snap->is_served || !snapshot_is_left(snap))
			continue;
		export_drain(c, snap);
		return FLOW_WAIT;
	}
	return FLOW_NEXT;
}

/* ---- at the start ---- */

void exports_return(struct set_volume *entry)
{
	list_each (node, &entry->snapshots) {
		struct set_snapshot *snap = container_of(node, struct set_snapshot, link);
		if (!snapshot_has_export(snap) && !snapshot_has_door(snap))
			continue;
		if (snapshot_serve(snap) == 0)
			continue;
		log_event(entry->set->log, LOG_ERROR, "volume-not-attached", entry->facts.name,
			  "snapshot %s of volume %s was attached and could not be brought back: no memory",
			  snap->facts.name, entry->facts.name);
	}
}
