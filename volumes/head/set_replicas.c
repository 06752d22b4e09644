/*
 * set_replicas.c: the command that changes how many copies a volume has, and how many it must have (`volume set`).
 *
 *   CHECK -> (ATTACH) -> RECORD -> END
 *
 *   ATTACH   a volume with one copy that nobody uses is attached for the set itself, as for a drain (set_drain.c)
 *   RECORD   one change of the record; copies are made, or dropped, in the background then (even.c, leave.c)
 *
 * Invariants
 *  1. A volume with one copy becomes one with several only while it is attached and all of its disks are joined: each
 *     knows the attachment, as the disks of a volume with several copies always do at the next attach [RECBAR].
 *  2. It stays one of that kind for good, also with one copy: nothing else tells where its copies have been.
 *
 * Owner: the set.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>

enum replicas_stage { REPLICAS_CHECK, REPLICAS_ATTACH, REPLICAS_RECORD };

static uint32_t wanted_replicas(const struct command *c)
{
	return c->order->replicas ? c->order->replicas : c->volume->facts.replicas;
}

static bool replicas_change(const struct command *c)
{
	return wanted_replicas(c) != c->volume->facts.replicas;
}

/* Does it get a second copy for the first time? */
static bool becomes_replicated(const struct command *c)
{
	return wanted_replicas(c) > 1 && !volume_facts_are_replicated(&c->volume->facts);
}

int command_check_domains(struct command *c, const struct set_pool *pool, uint32_t replicas)
{
	uint32_t n = placement_domains(c->set, &pool->facts, 0);
	if (replicas == 1 || n >= replicas)
		return 0;
	return command_refuse(
	    c, -ENOSPC, "no-space",
	    "%u copies must lie in %u failure domains (%s), and the disks of pool %s are in %u%s: add disks, "
	    "or give fewer replicas or another --failure-domain to the pool",
	    replicas, replicas, failure_domain_name(pool->facts.failure_domain), pool->facts.name, n,
	    c->set->members && !c->set->has_peers ? " (without peer.listen only those of this node count)" : "");
}

static int replicas_check_pool(struct command *c)
{
	const struct set_pool *pool = set_pool_find(c->set, c->volume->facts.pool);
	if (wanted_replicas(c) <= c->volume->facts.replicas || !pool)
		return 0;
	return command_check_domains(c, pool, wanted_replicas(c));
}

/* 1: go on; 0: it is as wished; -errno. */
static int replicas_check(struct command *c)
{
	const struct set_command *o = c->order;
	if (command_find_volume(c) != 0)
		return c->err;
	const struct volume_facts *f = &c->volume->facts;
	uint32_t at_least = o->min_replicas ? o->min_replicas : f->min_replicas;
	if (command_check_replicas(c, wanted_replicas(c), at_least) != 0)
		return c->err;
	if (!replicas_change(c))
		return at_least != f->min_replicas;
	if ((volume_facts_are_attached(f) || becomes_replicated(c)) && command_check_here(c, c->volume) != 0)
		return c->err;
	return replicas_check_pool(c) != 0 ? c->err : 1;
}

/* ---- ATTACH ---- */

static void replicas_attached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	if (res != 0)
		command_refuse(c, res, "failed", "volume %s cannot be attached for that: %s", entry->facts.name,
			       entry->why);
	c->kind->run(c);
}

/* FLOW_NEXT: it has a head, or needs none. */
static enum flow replicas_attach(struct command *c)
{
	struct attach_options o = {.is_return = true};
	if (!becomes_replicated(c) || c->volume->head)
		return FLOW_NEXT;
	if (volume_facts_are_attached(&c->volume->facts)) {
		command_refuse(c, -EIO, "failed", "volume %s is not served now: %s", c->volume->facts.name,
			       c->volume->why);
		return FLOW_NEXT;
	}
	c->volume->is_rehoming = true;
	volume_attach(c->volume, &o, replicas_attached, c);
	return FLOW_WAIT;
}

/* Each of its disks must know the attachment. */
static int replicas_check_disks(struct command *c)
{
	quarry_assert(c->volume->head && !volume_is_replicated(c->volume->head));
	const struct volume *v = c->volume->head;
	if (v->layout.is_short)
		return command_refuse(c, -EIO, "failed",
				      "where the segments of volume %s lie could not be read when it was attached: "
				      "see the events, and attach it anew",
				      c->volume->facts.name);
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = c->set->disks[i];
		if (v->disks[i].state == VOLUME_DISK_UNUSED || volume_disk_is_good(v, i))
			continue;
		return command_refuse(
		    c, -EIO, "failed",
		    "volume %s has data on disk %s (%s), which it cannot use now%s%s: bring that back "
		    "first, and attach the volume anew",
		    c->volume->facts.name, d->facts.name, d->facts.path, d->why[0] ? ": " : "", d->why);
	}
	return 0;
}

/* ---- RECORD ---- */

static int replicas_record(struct record_update *u, struct volume_facts *facts)
{
	const struct set_command *o = container_of(u, struct command, update)->order;
	if (o->min_replicas > 0)
		facts->min_replicas = o->min_replicas;
	if (o->replicas == 0 || o->replicas == facts->replicas)
		return 0;
	facts->was_replicated = volume_facts_are_replicated(facts) && o->replicas == 1;
	facts->replicas = o->replicas;
	facts->is_uneven = true;
	return facts->min_replicas <= facts->replicas ? 0 : -EINVAL;
}

static void head_learns(struct volume *v, void *context)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		v->disks[i].replica.is_only_copy = false;
}

static void replicas_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	struct set_volume *entry = c->volume;
	if (res == -ENOENT)
		command_refuse(c, -ENOENT, "not-found", "volume %s is gone", c->order->object);
	else if (res != 0)
		command_refuse_store(c, res);
	if (res == 0 && volume_facts_are_replicated(&entry->facts)) {
		snapshots_each_head(entry, head_learns, NULL);
		if (entry->head)
			head_learns(entry->head, NULL);
	}
	if (res == 0 && entry->head)
		stale_more_copies(entry->head); /* or fewer are enough */
	c->kind->run(c);
}

static void replicas_tell(struct command *c)
{
	const struct volume_facts *f = &c->volume->facts;
	if (!f->is_uneven)
		return;
	leave_forget_why(c->volume); /* that may be what was missing */
	log_event(c->set->log, LOG_NOTICE, "replicas-changed", f->name,
		  "volume %s is to have %u cop%s: what it has more is dropped, what it has fewer is made", f->name,
		  f->replicas, f->replicas == 1 ? "y" : "ies");
}

/* Copies are made or dropped from now on; and a volume that was attached for this in vain is let go. */
static void replicas_end(struct command *c)
{
	drains_look(c->set);
	command_end(c);
}

static enum flow replicas_record_start(struct command *c)
{
	struct volume *v = c->volume->head;
	if (becomes_replicated(c) && replicas_check_disks(c) != 0)
		return FLOW_NEXT;
	c->update = (struct record_update){.change = replicas_record, .done = replicas_recorded};
	if (becomes_replicated(c)) { /* the head goes by it from then on: it must know whether it came about */
		c->update.head = v;
		c->update.generation = v->generation;
	}
	record_update_start(&c->update, c->volume);
	return FLOW_WAIT;
}

static void volume_set_run(struct command *c)
{
	while (c->err == 0) {
		switch ((enum replicas_stage)c->stage) {
		case REPLICAS_CHECK:
			if (replicas_check(c) != 1)
				return replicas_end(c);
			c->stage = REPLICAS_ATTACH;
			if (replicas_attach(c) == FLOW_WAIT)
				return;
			break;
		case REPLICAS_ATTACH:
			c->stage = REPLICAS_RECORD;
			if (replicas_record_start(c) == FLOW_WAIT)
				return;
			break;
		case REPLICAS_RECORD:
			replicas_tell(c);
			return replicas_end(c);
		}
	}
	replicas_end(c);
}

const struct command_kind command_volume_set = {.name = "volume set", .run = volume_set_run};
