/*
 * set_volumes.c: the commands that create, rename, attach, detach and delete volumes.
 *
 * A name belongs to at most one volume: the key volume-names/NAME is made, moved and deleted in the same transaction
 * as the volume's record, on the condition that nobody else has it.
 */
#include "daemon/core/size_text.h"
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int command_check_size(struct command *c, uint64_t size_bytes)
{
	char size[SIZE_TEXT_BYTES];
	if (size_bytes > 0 && size_bytes % SECTOR_BYTES == 0 && size_bytes <= VOLUME_BYTES_MAX)
		return 0;
	return command_refuse(c, -EINVAL, "invalid",
			      "a volume of %s is not possible: the size is a multiple of 512 bytes, at most 4096T",
			      size_text(size_bytes, size));
}

/* ---- create: one transaction ---- */

static int volume_create_exists(struct command *c, const struct set_volume *there)
{
	const struct set_command *o = c->order;
	const struct volume_facts *f = &there->facts;
	uint32_t replicas = o->replicas ? o->replicas : f->replicas;
	char size[SIZE_TEXT_BYTES];
	if (f->size_bytes == o->size_bytes && f->replicas == replicas && strcmp(f->pool, order_pool(o)) == 0 &&
	    strcmp(f->fill.source, o->fill) == 0)
		return 0;
	if (o->fill[0] && !f->fill.source[0])
		return command_refuse(c, -EEXIST, "exists",
				      "volume %s exists, and nothing is missing in it: it was filled before, or is "
				      "another; choose another name",
				      o->object);
	return command_refuse(c, -EEXIST, "exists",
			      "volume %s exists with other properties (%s in pool %s): choose another name, or resize "
			      "or delete it",
			      o->object, size_text(f->size_bytes, size), f->pool);
}

static int volume_create_facts(struct command *c, const struct set_pool *pool)
{
	struct volume_facts *f = &c->volume_facts;
	volume_facts_clear(f);
	*f = (struct volume_facts){.uuid = set_random_uuid(c->set),
				   .size_bytes = c->order->size_bytes,
				   .replicas = c->order->replicas ? c->order->replicas : pool->facts.replicas,
				   .live_tree = 1,
				   .next_tree = 2,
				   .created_ns = reactor_wall_ns(c->set->reactor)};
	text_print(f->name, sizeof(f->name), "%s", c->order->object);
	text_print(f->pool, sizeof(f->pool), "%s", pool->facts.name);
	text_print(f->fill.source, sizeof(f->fill.source), "%s", c->order->fill);
	f->min_replicas =
	    c->order->min_replicas ? c->order->min_replicas : (uint32_t)min_u64(pool->facts.min_replicas, f->replicas);
	f->trees = calloc(1, sizeof(*f->trees));
	if (!f->trees)
		return command_refuse(c, -ENOMEM, "no-memory", "there is no memory for one more volume");
	f->trees[0] = (struct tree_facts){.id = 1, .state = TREE_IS_LIVE};
	f->n_trees = 1;
	return 0;
}

static char *name_to_json(const struct uuid *uuid)
{
	return cluster_to_json(uuid); /* {"uuid": ...} */
}

static int volume_create_decide(struct command *c)
{
	const struct set_command *o = c->order;
	const struct set_volume *there = set_volume_find(c->set, o->object);
	struct set_pool *pool = NULL;
	char uuid[UUID_TEXT_BYTES];
	int err = command_check_name(c, o->object);
	if (err == 0)
		err = command_check_size(c, o->size_bytes);
	if (err == 0 && o->fill[0] && o->size_bytes > FILL_BYTES_MAX)
		err = command_refuse(
		    c, -EINVAL, "invalid",
		    "a volume of more than %llu TiB cannot be attached before it is filled: restore it first",
		    (unsigned long long)(FILL_BYTES_MAX / TIB));
	if (err == 0)
		err = command_check_pool(c, &pool);
	if (err == 0)
		err = command_check_replicas(c, o->replicas ? o->replicas : pool->facts.replicas, o->min_replicas);
	if (err == 0 && there)
		return volume_create_exists(c, there);
	if (err == 0)
		err = command_check_domains(c, pool, o->replicas ? o->replicas : pool->facts.replicas);
	if (err == 0)
		err = volume_create_facts(c, pool);
	if (err != 0)
		return err;
	uuid_to_text(&c->volume_facts.uuid, uuid);
	command_enter_pool(c, pool);
	transaction_condition(&c->transaction, 0, VOLUME_NAME_KEY, o->object);
	transaction_condition(&c->transaction, 0, VOLUME_KEY, uuid);
	transaction_put(&c->transaction, volume_to_json(&c->volume_facts), VOLUME_KEY, uuid);
	transaction_put(&c->transaction, name_to_json(&c->volume_facts.uuid), VOLUME_NAME_KEY, o->object);
	return 1;
}

static void volume_create_apply(struct command *c, uint64_t revision)
{
	quarry_assert(revision > 0);
	c->volume_facts.revision = revision;
	command_entered_pool(c, c->volume_facts.pool, revision);
	if (!set_volume_put(c->set, &c->volume_facts))
		command_refuse(c, -ENOMEM, "no-memory",
			       "it is done, but there is no memory to remember it: start the daemon again");
}

const struct command_kind command_volume_create = {
    .name = "volume create", .run = command_change_run, .decide = volume_create_decide, .apply = volume_create_apply};

/* ---- commands that change a record: CHECK -> UPDATE -> END ---- */

enum update_command_stage { UPDATE_CHECK, UPDATE_WAIT };

static struct command *command_of(struct record_update *u)
{
	return container_of(u, struct command, update);
}

static void update_done(struct record_update *u, int res)
{
	struct command *c = command_of(u);
	if (res == -ENOENT)
		command_refuse(c, -ENOENT, "not-found", "volume %s is gone", c->order->object);
	else if (res == -ESTALE)
		command_refuse(c, -EBUSY, "busy",
			       "another node has attached volume %s meanwhile: quarry volume show %s", c->order->object,
			       c->order->object);
	else if (res != 0 && c->err == 0)
		command_refuse_store(c, res);
	c->kind->run(c);
}

static void update_start(struct command *c, int (*change)(struct record_update *u, struct volume_facts *facts),
			 void (*extend)(struct record_update *u, struct transaction *t))
{
	quarry_assert(c->volume && record_update_is_idle(&c->update));
	c->update.change = change;
	c->update.extend = extend;
	c->update.done = update_done;
	record_update_start(&c->update, c->volume);
}

/* ---- rename ---- */

static int rename_change(struct record_update *u, struct volume_facts *facts)
{
	const struct set_command *o = command_of(u)->order;
	text_print(facts->renamed_from, sizeof(facts->renamed_from), "%s", o->object);
	text_print(facts->name, sizeof(facts->name), "%s", o->other);
	return 0;
}

static void rename_extend(struct record_update *u, struct transaction *t)
{
	const struct command *c = command_of(u);
	transaction_condition(t, 0, VOLUME_NAME_KEY, c->order->other);
	transaction_put(t, name_to_json(&c->volume->facts.uuid), VOLUME_NAME_KEY, c->order->other);
	transaction_delete(t, VOLUME_NAME_KEY, c->order->object);
}

/* 1: go on; 0: it is done already; -errno. */
static int rename_check(struct command *c)
{
	const struct set_command *o = c->order;
	const struct set_volume *there = set_volume_find(c->set, o->other);
	c->volume = set_volume_find(c->set, o->object);
	if (command_check_name(c, o->other) != 0)
		return c->err;
	if (!c->volume && there && strcmp(there->facts.renamed_from, o->object) == 0)
		return 0;
	if (command_find_volume(c) != 0)
		return c->err;
	if (volume_facts_are_attached(&c->volume->facts) && command_check_here(c, c->volume) != 0)
		return c->err; /* its clients are to be told */
	if (there == c->volume)
		return 0;
	if (command_check_whole(c, c->volume, "renamed") != 0)
		return c->err;
	if (there)
		return command_refuse(c, -EEXIST, "exists", "volume %s exists: choose another name", o->other);
	return 1;
}

static void rename_run(struct command *c)
{
	if (c->stage == UPDATE_CHECK) {
		c->stage = UPDATE_WAIT;
		if (rename_check(c) == 1) {
			update_start(c, rename_change, rename_extend);
			return;
		}
		c->order->is_unchanged = c->err == 0;
	} else if (c->err == 0) {
		set_volume_sort(c->volume);
		snapshot_rename(c->volume);
		if (c->volume->head)
			volume_tell(c->volume->head, VOLUME_RENAMED);
	}
	command_end(c);
}

const struct command_kind command_volume_rename = {.name = "volume rename", .run = rename_run};

/* ---- delete: the record says so, the name is free, the reaper does the rest ---- */

static int delete_change(struct record_update *u, struct volume_facts *facts)
{
	struct command *c = command_of(u);
	if (volume_facts_are_attached(facts))
		return command_refuse(c, -EBUSY, "in-use", "volume %s is attached%s%s: detach it first",
				      c->order->object, c->set->members ? " on node " : "",
				      c->set->members ? facts->owner : "");
	if (c->set->members) { /* who frees its space */
		const char *node = set_volume_node(c->volume);
		text_print(facts->owner, sizeof(facts->owner), "%s", node[0] ? node : c->set->node_name);
	}
	if (facts->generation >= INT64_MAX)
		return -EOVERFLOW;
	facts->is_deleting = true;
	facts->generation++; /* fences whoever may still believe to be its head */
	return 0;
}

static void delete_extend(struct record_update *u, struct transaction *t)
{
	const struct command *c = command_of(u);
	transaction_delete(t, VOLUME_NAME_KEY, c->volume->facts.name);
	deleted_put(c->set, t, &c->deleted);
}

/* They go with the volume only when that was asked for, and never under a reader. */
static void delete_check_snapshots(struct command *c)
{
	list_each (node, &c->volume->snapshots) {
		const struct set_snapshot *snap = container_of(node, struct set_snapshot, link);
		if ((snap->head || snapshot_is_attached(snap)) && !snapshot_is_left(snap))
			command_refuse(c, -EBUSY, "in-use",
				       "snapshot %s@%s is attached: detach it first (quarry volume detach %s@%s)",
				       c->order->object, snap->facts.name, c->order->object, snap->facts.name);
	}
	if (c->err == 0 && c->volume->n_snapshots > 0 && !c->order->with_snapshots)
		command_refuse(c, -EBUSY, "in-use",
			       "volume %s has %u snapshots: delete them first, or with it by --snapshots",
			       c->order->object, c->volume->n_snapshots);
}

static void volume_delete_run(struct command *c)
{
	if (c->stage == UPDATE_CHECK) {
		if (command_end_rehoming(c, set_volume_find(c->set, c->order->object)) == FLOW_WAIT)
			return;
		c->stage = UPDATE_WAIT;
		c->order->is_unchanged =
		    !set_volume_find(c->set, c->order->object) && deleted_has(c->set, "volume", c->order->object);
		if (c->order->is_unchanged)
			return command_end(c);
		c->deleted = deleted_make("volume", c->order->object);
		if (command_find_volume(c) == 0 && c->volume->head)
			command_refuse(c, -EBUSY, "in-use", "volume %s is attached: detach it first", c->order->object);
		if (c->err == 0)
			delete_check_snapshots(c);
		if (c->err == 0 && exports_end_left(c) == FLOW_WAIT) {
			c->stage = UPDATE_CHECK; /* who knows what has come meanwhile */
			return;
		}
		if (c->err == 0) {
			update_start(c, delete_change, delete_extend);
			return;
		}
	} else if (c->err == 0) {
		deleted_add(c->set, &c->deleted);
		if (!c->set->members || set_node_is_self(c->set, c->volume->facts.owner))
			reap_start(c->volume);
	}
	command_end(c);
}

const struct command_kind command_volume_delete = {.name = "volume delete", .run = volume_delete_run};

/* ---- attach and detach ---- */

static void attach_done(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	if (res != 0)
		command_refuse(c, res == -ENOENT || res == -EREMOTE ? res : -EIO,
			       res == -EREMOTE ? "elsewhere" : "failed", "volume %s: %s", entry->facts.name,
			       entry->why);
	c->kind->run(c);
}

bool order_is_vhost(const struct command *c)
{
	return strcmp(c->order->other, "vhost-user") == 0;
}

int command_check_frontend(struct command *c)
{
	const struct set_command *o = c->order;
	bool is_attach = o->kind == SET_VOLUME_ATTACH;
	if (strcmp(o->other, "nbd") != 0 && !order_is_vhost(c) && (is_attach || o->other[0]))
		return command_refuse(c, -EINVAL, "invalid",
				      "nothing can be attached as '%.40s': give nbd or vhost-user", o->other);
	if (o->queues > VOLUME_VHOST_QUEUES_MAX || (o->queues > 0 && !order_is_vhost(c)))
		return command_refuse(c, -EINVAL, "invalid", "queues: 1 to %u, and only for vhost-user",
				      VOLUME_VHOST_QUEUES_MAX);
	if (is_attach && order_is_vhost(c) && !c->set->doors)
		return command_refuse(c, -EOPNOTSUPP, "not-available", "this daemon serves no vhost-user clients");
	return 0;
}

int command_open_door(struct command *c, struct volume *v)
{
	char why[SET_WHY_BYTES / 2] = "";
	struct volume_doors *doors = c->set->doors;
	int res = doors ? doors->open(doors, v, why, sizeof(why)) : -ESHUTDOWN;
	if (res == 0)
		return 0;
	return command_refuse(c, res == -ENAMETOOLONG ? -EINVAL : -EIO, res == -ENAMETOOLONG ? "invalid" : "io-error",
			      "%s %s is not attached: %s", v->snapshot ? "snapshot" : "volume", c->order->object,
			      why[0] ? why : strerror(-res));
}

enum attach_verdict { ATTACH_IS_DONE, ATTACH_NEW, ATTACH_BESIDE };

/* Two attachments of one volume reach the same head, so they agree on its content; both write or neither. */
static int attach_check(struct command *c)
{
	const struct set_command *o = c->order;
	if (command_find_volume(c) != 0 || command_check_frontend(c) != 0)
		return c->err;
	if (!o->takeover && command_check_here(c, c->volume) != 0)
		return c->err;
	const struct volume_facts *f = &c->volume->facts;
	if (o->read_only && command_check_whole(c, c->volume, "attached read-only") != 0)
		return c->err;
	if (!c->volume->head)
		return command_check_node_takes(c, c->set->node_name) != 0 ? c->err : ATTACH_NEW;
	if (f->is_read_only != o->read_only)
		return command_refuse(c, -EEXIST, "exists", "volume %s is attached %s already: detach it first",
				      o->object, f->is_read_only ? "read-only" : "for writing");
	if (order_is_vhost(c) && f->is_attached_vhost && o->queues > 0 &&
	    o->queues != volume_vhost_queues(c->volume->head))
		return command_refuse(c, -EEXIST, "exists", "volume %s is attached with %u queues: detach it first",
				      o->object, volume_vhost_queues(c->volume->head));
	if (order_is_vhost(c) ? f->is_attached_vhost : f->is_attached_nbd)
		return ATTACH_IS_DONE;
	return command_check_node_takes(c, c->set->node_name) != 0 ? c->err : ATTACH_BESIDE;
}

static int attach_beside_change(struct record_update *u, struct volume_facts *facts)
{
	const struct command *c = command_of(u);
	/* The head may have been left over: another node has detached the volume while this one had no lease. */
	text_print(facts->owner, sizeof(facts->owner), "%s", c->set->node_name);
	facts->is_attached_nbd |= !order_is_vhost(c);
	facts->is_attached_vhost |= order_is_vhost(c);
	if (order_is_vhost(c))
		facts->vhost_queues = c->order->queues;
	return 0;
}

static int detach_change(struct record_update *u, struct volume_facts *facts)
{
	const struct command *c = command_of(u);
	bool all = c->order->other[0] == 0;
	facts->is_attached_nbd &= order_is_vhost(c);
	facts->is_attached_vhost &= !all && !order_is_vhost(c);
	if (facts->is_attached_nbd || facts->is_attached_vhost)
		return 0;
	facts->is_read_only = false;
	facts->owner[0] = 0;
	return 0;
}

/* The head that is there is the volume's, or another node has one by now. */
static void attach_beside(struct command *c)
{
	c->update.generation = c->set->members ? c->volume->head->generation : 0;
	update_start(c, attach_beside_change, NULL);
}

enum attach_command_stage { ATTACH_CHECK, ATTACH_WAIT, ATTACH_UNDONE };

/* The volume serves and the record has the attachment: now it needs a socket, or the attachment goes again. */
static bool attach_has_door(struct command *c)
{
	if (!order_is_vhost(c) || c->err != 0 || !c->volume->head)
		return true;
	return command_open_door(c, c->volume->head) == 0;
}

static void attach_undo(struct command *c)
{
	c->stage = ATTACH_UNDONE;
	if (c->volume->facts.is_attached_nbd)
		update_start(c, detach_change, NULL);
	else
		volume_detach(c->volume, true, attach_done, c);
}

static void attach_begin_new(struct command *c)
{
	struct attach_options o = {.is_nbd = !order_is_vhost(c),
				   .is_vhost = order_is_vhost(c),
				   .vhost_queues = c->order->queues,
				   .is_read_only = c->order->read_only,
				   .is_takeover = c->order->takeover};
	volume_attach(c->volume, &o, attach_done, c);
}

static void volume_attach_run(struct command *c)
{
	int verdict;
	switch (c->stage) {
	case ATTACH_CHECK:
		if (command_end_rehoming(c, set_volume_find(c->set, c->order->object)) == FLOW_WAIT)
			return;
		c->stage = ATTACH_WAIT;
		verdict = attach_check(c);
		if (verdict == ATTACH_NEW)
			return attach_begin_new(c);
		if (verdict == ATTACH_BESIDE)
			return attach_beside(c);
		break;
	case ATTACH_WAIT:
		if (!attach_has_door(c))
			return attach_undo(c);
		break;
	}
	command_end(c);
}

const struct command_kind command_volume_attach = {.name = "volume attach", .run = volume_attach_run};

enum detach_command_stage { DETACH_CHECK, DETACH_ALL, DETACH_ONE };

/* One of two attachments goes: the volume stays as it is, its clients of that kind are ended. */
static bool detach_leaves_other(const struct command *c)
{
	const struct volume_facts *f = &c->volume->facts;
	return c->order->other[0] != 0 && f->is_attached_nbd && f->is_attached_vhost;
}

/* Has it the attachment that is to go? */
static bool detach_has_work(const struct command *c)
{
	const struct volume_facts *f = &c->volume->facts;
	if (c->order->other[0] == 0)
		return f->is_attached_nbd || f->is_attached_vhost;
	return order_is_vhost(c) ? f->is_attached_vhost : f->is_attached_nbd;
}

/* That of a node which is not alive may be taken from it, as long as it has not come back. */
static void detach_extend(struct record_update *u, struct transaction *t)
{
	const struct command *c = command_of(u);
	const char *owner = c->volume->facts.owner;
	if (c->set->members && owner[0] && !set_node_is_self(c->set, owner))
		transaction_condition(t, 0, LEASE_KEY, owner);
}

static int detach_check(struct command *c)
{
	if (command_find_volume(c) != 0 || command_check_frontend(c) != 0)
		return c->err;
	const struct volume_facts *f = &c->volume->facts;
	if (volume_facts_are_attached(f) && set_node_is_alive(c->set, f->owner))
		return command_check_here(c, c->volume);
	return 0;
}

/* A volume that could not be brought back is recorded as attached and has no head: only the record changes. */
static void volume_detach_run(struct command *c)
{
	if (c->stage == DETACH_CHECK) {
		c->stage = DETACH_ALL;
		if (detach_check(c) != 0)
			return command_end(c);
		if (c->order->temporary) { /* no attachment of a volume is */
			c->order->is_unchanged = true;
			return command_end(c);
		}
		if (detach_has_work(c) && detach_leaves_other(c) && c->volume->head)
			c->stage = DETACH_ONE;
		if (c->stage == DETACH_ALL && c->volume->head && (detach_has_work(c) || c->order->other[0] == 0))
			return volume_detach(c->volume, true, attach_done, c);
		if (detach_has_work(c))
			return update_start(c, detach_change, detach_extend);
		c->order->is_unchanged = true;
	} else if (c->err == 0 && c->stage == DETACH_ONE && c->volume->head) {
		volume_tell(c->volume->head, order_is_vhost(c) ? VOLUME_VHOST_DETACHED : VOLUME_NBD_DETACHED);
	} else if (c->err == 0) {
		c->volume->why[0] = 0;
	}
	command_end(c);
}

const struct command_kind command_volume_detach = {.name = "volume detach", .run = volume_detach_run};
