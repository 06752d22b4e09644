/*
 * set_pools.c: the commands on pools: each is one transaction, decided by this node's copy.
 *
 * Invariants
 *  1. The pool "default" exists from the first start and stays.
 *  2. No pool asks for more copies than can be kept here.
 *  3. A pool with disks or volumes is not deleted.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <string.h>

static const char default_pool[] = "default";

const char *order_pool(const struct set_command *o)
{
	return o->pool[0] ? o->pool : default_pool;
}

/* Is the redundancy something that this release can keep? */
int command_check_replicas(struct command *c, uint32_t replicas, uint32_t min_replicas)
{
	if (replicas > VOLUME_REPLICAS_MAX)
		return command_refuse(c, -EINVAL, "invalid", "%u copies are not possible: 1 to %u are", replicas,
				      VOLUME_REPLICAS_MAX);
	if (replicas > 0 && min_replicas > replicas)
		return command_refuse(
		    c, -EINVAL, "invalid",
		    "--min-replicas %u is more than there are copies (%u): writes would wait for ever", min_replicas,
		    replicas);
	return 0;
}

int command_check_name(struct command *c, const char *name)
{
	if (name_is_valid(name))
		return 0;
	return command_refuse(
	    c, -EINVAL, "invalid",
	    "'%.80s' is no valid name: 1 to %u letters, digits, '.', '_' or '-', beginning with a letter or "
	    "digit",
	    name, VOLUME_NAME_MAX);
}

int command_check_pool(struct command *c, struct set_pool **out)
{
	*out = set_pool_find(c->set, order_pool(c->order));
	if (*out)
		return 0;
	return command_refuse_missing(c, "pool", order_pool(c->order));
}

static void pool_apply(struct command *c, uint64_t revision)
{
	c->pool.revision = revision;
	if (!set_pool_put(c->set, &c->pool))
		command_refuse(c, -ENOMEM, "no-memory",
			       "it is done, but there is no memory to remember it: start the daemon again");
}

/* What the order asks for, over what is there. */
static struct pool_facts pool_wanted(const struct set_command *o, struct pool_facts pool)
{
	if (o->replicas > 0)
		pool.replicas = o->replicas;
	if (o->min_replicas > 0)
		pool.min_replicas = o->min_replicas;
	if (o->has_failure_domain)
		pool.failure_domain = o->failure_domain;
	return pool;
}

static bool pools_are_alike(const struct pool_facts *a, const struct pool_facts *b)
{
	return a->replicas == b->replicas && a->min_replicas == b->min_replicas &&
	       a->failure_domain == b->failure_domain;
}

void pool_facts_init(struct volume_set *s, const char *name, struct pool_facts *out)
{
	*out = (struct pool_facts){.uuid = set_random_uuid(s),
				   .replicas = 1,
				   .min_replicas = 1,
				   .failure_domain = s->members ? DOMAIN_NODE : DOMAIN_DISK};
	text_print(out->name, sizeof(out->name), "%s", name);
}

/* ---- create ---- */

static int pool_create_decide(struct command *c)
{
	const struct set_command *o = c->order;
	const struct set_pool *there = set_pool_find(c->set, o->object);
	pool_facts_init(c->set, o->object, &c->pool);
	c->pool = pool_wanted(o, c->pool);
	int err = command_check_name(c, o->object);
	if (err == 0)
		err = command_check_replicas(c, c->pool.replicas, c->pool.min_replicas);
	if (err != 0)
		return err;
	if (there && pools_are_alike(&there->facts, &c->pool))
		return 0;
	if (there)
		return command_refuse(c, -EEXIST, "exists",
				      "pool %s exists with other properties: change them with quarry pool set",
				      o->object);
	transaction_condition(&c->transaction, 0, POOL_KEY, c->pool.name);
	transaction_put(&c->transaction, pool_to_json(&c->pool), POOL_KEY, c->pool.name);
	return 1;
}

const struct command_kind command_pool_create = {
    .name = "pool create", .run = command_change_run, .decide = pool_create_decide, .apply = pool_apply};

/* ---- set ---- */

static int pool_set_decide(struct command *c)
{
	const struct set_command *o = c->order;
	const struct set_pool *there = set_pool_find(c->set, o->object);
	if (!there)
		return command_refuse_missing(c, "pool", o->object);
	c->pool = pool_wanted(o, there->facts);
	int err = command_check_replicas(c, c->pool.replicas, c->pool.min_replicas);
	if (err != 0)
		return err;
	if (pools_are_alike(&there->facts, &c->pool))
		return 0;
	transaction_condition(&c->transaction, there->facts.revision, POOL_KEY, c->pool.name);
	transaction_put(&c->transaction, pool_to_json(&c->pool), POOL_KEY, c->pool.name);
	return 1;
}

const struct command_kind command_pool_set = {
    .name = "pool set", .run = command_change_run, .decide = pool_set_decide, .apply = pool_apply};

/* ---- what comes into one ---- */

/* In a cluster its record is written again: a node that deletes the pool, and has not heard of what came into it, is
 * refused then. The pool "default" is never deleted. */
static bool pool_is_marked(const struct command *c, const char *pool)
{
	return c->set->members && strcmp(pool, default_pool) != 0;
}

void command_enter_pool(struct command *c, const struct set_pool *pool)
{
	const struct pool_facts *f = &pool->facts;
	transaction_condition(&c->transaction, f->revision, POOL_KEY, f->name);
	if (pool_is_marked(c, f->name))
		transaction_put(&c->transaction, pool_to_json(f), POOL_KEY, f->name);
}

void command_entered_pool(struct command *c, const char *pool, uint64_t revision)
{
	struct set_pool *there = set_pool_find(c->set, pool);
	if (there && pool_is_marked(c, pool))
		there->facts.revision = revision;
}

/* ---- delete ---- */

static uint32_t pool_disks(const struct volume_set *s, const char *name)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		n += s->disks[i] && !s->disks[i]->facts.is_removed && strcmp(s->disks[i]->facts.pool, name) == 0;
	return n;
}

static uint32_t pool_volumes(struct volume_set *s, const char *name)
{
	uint32_t n = 0;
	list_each (node, &s->volumes)
		n += strcmp(container_of(node, struct set_volume, link)->facts.pool, name) == 0;
	return n;
}

static int pool_delete_decide(struct command *c)
{
	const struct set_command *o = c->order;
	const struct set_pool *there = set_pool_find(c->set, o->object);
	if (!there && deleted_has(c->set, "pool", o->object))
		return 0; /* perhaps by the try before */
	if (!there)
		return command_refuse_missing(c, "pool", o->object);
	if (strcmp(o->object, default_pool) == 0)
		return command_refuse(c, -EBUSY, "in-use", "the pool \"default\" is always there");
	uint32_t disks = pool_disks(c->set, o->object), volumes = pool_volumes(c->set, o->object);
	if (disks > 0 || volumes > 0)
		return command_refuse(
		    c, -EBUSY, "in-use",
		    "pool %s has %u disk%s and %u volume%s: remove them first (a volume just deleted is counted "
		    "until its space is free)",
		    o->object, disks, disks == 1 ? "" : "s", volumes, volumes == 1 ? "" : "s");
	transaction_condition(&c->transaction, there->facts.revision, POOL_KEY, o->object);
	transaction_delete(&c->transaction, POOL_KEY, o->object);
	c->deleted = deleted_make("pool", o->object);
	deleted_put(c->set, &c->transaction, &c->deleted);
	return 1;
}

static void pool_delete_apply(struct command *c, uint64_t revision)
{
	struct set_pool *there = set_pool_find(c->set, c->order->object);
	quarry_assert(there);
	set_pool_remove(there);
	deleted_add(c->set, &c->deleted);
}

const struct command_kind command_pool_delete = {
    .name = "pool delete", .run = command_change_run, .decide = pool_delete_decide, .apply = pool_delete_apply};
