/*
 * set_exports.c: the commands that attach a snapshot, read-only, and detach it.
 *
 *   attach   CHECK -> RECORD -> OPEN -> END
 *   detach   CHECK -> DRAIN -> RECORD -> END
 *
 * The key of the snapshot says which node serves it; a restart of the daemon brings it back. Several snapshots of a
 * volume may be attached at a time, and the volume too.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum export_stage { EXPORT_CHECK, EXPORT_DRAIN, EXPORT_RECORD };

/* The order's object is NAME@SNAP. */
static int export_find(struct command *c)
{
	struct set_target *t = &c->order->targets[0];
	const char *at = strchr(c->order->object, '@');
	size_t len = (size_t)(at - c->order->object);
	if (len >= sizeof(t->volume) || strlen(at + 1) >= sizeof(t->snapshot))
		return command_refuse(c, -ENOENT, "not-found", "there is no snapshot \"%.140s\"", c->order->object);
	snprintf(t->volume, sizeof(t->volume), "%.*s", (int)len, c->order->object);
	snprintf(t->snapshot, sizeof(t->snapshot), "%s", at + 1);
	return command_find_snapshot(c);
}

static int export_change(struct record_update *u, struct volume_facts *facts)
{
	facts->history++;
	return 0;
}

static void export_extend(struct record_update *u, struct transaction *t)
{
	const struct command *c = container_of(u, struct command, update);
	struct snapshot_facts facts = c->snapshot->facts;
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&c->volume->facts.uuid, uuid);
	text_print(facts.attached_nbd, sizeof(facts.attached_nbd), "%s",
		   c->kind == &command_export ? c->set->node_name : "");
	transaction_put(t, snapshot_to_json(&facts), SNAPSHOT_KEY, uuid, (unsigned long long)facts.tree);
}

static void export_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	if (res != 0) {
		command_refuse_store(c, res);
	} else {
		text_print(c->snapshot->facts.attached_nbd, sizeof(c->snapshot->facts.attached_nbd), "%s",
			   c->kind == &command_export ? c->set->node_name : "");
		c->snapshot->facts.revision = u->revision;
	}
	c->kind->run(c);
}

static void export_record(struct command *c)
{
	c->stage = EXPORT_RECORD;
	c->update.change = export_change;
	c->update.extend = export_extend;
	c->update.done = export_recorded;
	record_update_start(&c->update, c->volume);
}

/* ---- attach ---- */

/* 1: attach it; 0: it is attached; -errno. */
static int export_check(struct command *c)
{
	const char *frontend = c->order->other;
	if (strcmp(frontend, "nbd") != 0)
		return command_refuse(c, -EOPNOTSUPP, "not-available",
				      "a snapshot cannot be attached as \"%.40s\" in this release: give nbd", frontend);
	if (export_find(c) != 0)
		return c->err;
	return !c->snapshot->facts.attached_nbd[0];
}

static void export_run(struct command *c)
{
	if (c->stage == EXPORT_CHECK) {
		int res = export_check(c);
		/* opened before it is recorded, so that what is recorded can be served */
		if (res == 1 && snapshot_open(c->snapshot) == 0)
			return export_record(c);
		if (res == 1)
			command_refuse(c, -ENOMEM, "no-memory", "there is no memory to attach it");
	} else if (c->err != 0) {
		snapshot_close(c->snapshot);
	}
	command_end(c);
}

const struct command_kind command_export = {.name = "snapshot attach", .run = export_run};

/* ---- detach ---- */

static void unexport_drained(struct volume *v)
{
	struct set_snapshot *snap = v->snapshot;
	struct command *c = container_of(v->set->commands.next, struct set_command, link)->own;
	quarry_assert(c && c->kind == &command_unexport && c->snapshot == snap);
	snap->head->state = VOLUME_SERVING; /* the set itself may use it on */
	snapshot_close(snap);
	export_record(c);
}

static void unexport_run(struct command *c)
{
	if (c->stage == EXPORT_CHECK) {
		if (export_find(c) == 0 && c->snapshot->facts.attached_nbd[0]) {
			c->stage = EXPORT_DRAIN;
			if (!c->snapshot->head || !snapshot_is_attached(c->snapshot))
				return export_record(c); /* it could not be brought back */
			volume_start_draining(c->snapshot->head, unexport_drained);
			return;
		}
	}
	command_end(c);
}

const struct command_kind command_unexport = {.name = "snapshot detach", .run = unexport_run};

void exports_return(struct set_volume *entry)
{
	list_each (node, &entry->snapshots) {
		struct set_snapshot *snap = container_of(node, struct set_snapshot, link);
		if (!snapshot_is_attached(snap) || snapshot_open(snap) == 0)
			continue;
		log_event(entry->set->log, LOG_ERROR, "volume-not-attached", entry->facts.name,
			  "snapshot %s of volume %s was attached and could not be brought back: no memory",
			  snap->facts.name, entry->facts.name);
	}
}
