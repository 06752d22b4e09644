/*
 * set_drain.c: the command that has a disk drained, or no more, and what sees to it that it comes about.
 *
 *   drain    one transaction: the disk's key says so. From then on nothing is placed there
 *   look     now and then, while a disk is to be left, or is away: attached volumes leave it (leave.c), and one that
 *            nobody uses is attached for that, by a command of the set's own:
 *   rehome   CHECK -> WAIT -> END         attaches the volume, or, when it has left the disk, detaches it again
 *
 * Invariants
 *  1. What is being drained is in the store alone: a restart, or another head of a volume, goes on with it.
 *  2. A volume that the set has attached for itself stands in nobody's way: who wants to attach or delete it has it
 *     detached first (command_end_rehoming()).
 *
 * Owner: the set.
 */
#include "daemon/core/size_text.h"
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DRAINS_LOOK_NS (2 * NS_PER_S)

/* ---- what lies on a disk ---- */

static void drain_count(const struct tree_record *t, void *context)
{
	if (t->state == TREE_LIVE)
		*(uint64_t *)context += t->n_data_blocks * BLOCK_BYTES;
}

static uint64_t drain_bytes(const struct set_disk *d)
{
	uint64_t bytes = 0;
	if (set_disk_runs_here(d))
		disk_trees_each(d->disk, drain_count, &bytes);
	return bytes;
}

/* The first thing that is known to keep a volume from leaving it. */
static const char *drain_why(const struct set_disk *d)
{
	if (!set_disk_is_running(d))
		return "it does not run: bring it back, or remove it with --force";
	list_each (node, &d->set->volumes) {
		struct set_volume *entry = container_of(node, struct set_volume, link);
		const char *why = leave_why(entry);
		if (why && volume_facts_disk(&entry->facts, &d->facts.uuid))
			return why;
		if (entry->why[0] && !entry->head && volume_facts_disk(&entry->facts, &d->facts.uuid))
			return entry->why;
	}
	return "";
}

void drain_view(const struct set_disk *d, struct disk_view *view)
{
	quarry_assert(d->set && !view->drain.is_wanted);
	view->drain.is_wanted = d->facts.is_draining;
	if (!d->facts.is_draining || !set_disk_is_ours(d)) /* that node knows how far it is */
		return;
	uint64_t took_ns = reactor_now_ns(d->set->reactor) - d->drain_ns;
	view->drain.left_bytes = drain_bytes(d);
	view->drain.is_done = set_disk_users(d, NULL, 0) == 0;
	if (view->drain.is_done)
		return;
	text_print(view->drain.why, sizeof(view->drain.why), "%s", drain_why(d));
	uint64_t done = d->drain_bytes > view->drain.left_bytes ? d->drain_bytes - view->drain.left_bytes : 0;
	if (done > 0 && d->drain_ns > 0)
		view->drain.eta_s =
		    (uint64_t)((double)view->drain.left_bytes / (double)done * (double)took_ns / (double)NS_PER_S) + 1;
}

/* ---- drain ---- */

/* Have the others room for what lies there? */
static int drain_check_room(struct command *c)
{
	const struct set_disk *d = c->disk;
	uint64_t room = 0, bytes = drain_bytes(d);
	char needed[SIZE_TEXT_BYTES], there[SIZE_TEXT_BYTES];
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *other = c->set->disks[i];
		if (set_disk_is_running(other) && other != d && !other->facts.is_draining &&
		    strcmp(other->facts.pool, d->facts.pool) == 0)
			room += set_disk_room(other) * BLOCK_BYTES;
	}
	if (bytes <= room)
		return 0;
	return command_refuse(c, -ENOSPC, "no-space",
			      "disk %s holds %s of data, and the other disks of pool %s have room for %s: add a disk",
			      d->facts.name, size_text(bytes, needed), d->facts.pool, size_text(room, there));
}

/* Can the copies of every volume there still lie apart without it? */
static int drain_check_domains(struct command *c)
{
	const struct set_disk *d = c->disk;
	const struct set_pool *pool = set_pool_find(c->set, d->facts.pool);
	if (!pool)
		return 0;
	uint32_t n = placement_domains(c->set, &pool->facts, d);
	list_each (node, &c->set->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (v->facts.is_deleting || !volume_facts_disk(&v->facts, &d->facts.uuid) || v->facts.replicas <= n ||
		    v->facts.replicas == 1)
			continue;
		return command_refuse(
		    c, -ENOSPC, "no-space",
		    "volume %s has %u copies in failure domains of their own (%s), and without disk %s pool %s has %u: "
		    "add a disk, or lower its --replicas",
		    v->facts.name, v->facts.replicas, failure_domain_name(pool->facts.failure_domain), d->facts.name,
		    d->facts.pool, n);
	}
	return 0;
}

static int drain_decide(struct command *c)
{
	char uuid[UUID_TEXT_BYTES];
	if (command_find_disk(c) != 0 || command_check_disk_here(c, c->disk) != 0)
		return c->err;
	if (c->disk->facts.is_draining != c->order->cancel)
		return 0;
	if (!c->order->cancel && !set_disk_is_running(c->disk))
		return command_refuse(c, -EIO, "failed",
				      "disk %s does not run (%s): bring it back, or remove it with --force",
				      c->disk->facts.name, c->disk->why);
	if (!c->order->cancel && (drain_check_domains(c) != 0 || drain_check_room(c) != 0))
		return c->err;
	c->disk_facts = c->disk->facts;
	c->disk_facts.is_draining = !c->order->cancel;
	uuid_to_text(&c->disk->facts.uuid, uuid);
	transaction_condition(&c->transaction, c->disk->facts.revision, DISK_KEY, uuid);
	transaction_put(&c->transaction, disk_to_json(&c->disk_facts), DISK_KEY, uuid);
	return 1;
}

static void drain_apply(struct command *c, uint64_t revision)
{
	struct set_disk *d = c->disk;
	quarry_assert(revision > 0);
	d->facts.is_draining = c->disk_facts.is_draining;
	d->facts.revision = revision;
	d->drain_ns = d->drain_bytes = 0;
	d->is_drain_told = false;
	if (d->facts.is_draining)
		log_event(c->set->log, LOG_NOTICE, "disk-draining", d->facts.name,
			  "disk %s (%s) is being drained: what lies there goes to the other disks of pool %s",
			  d->facts.name, d->facts.path, d->facts.pool);
	else
		log_event(c->set->log, LOG_NOTICE, "disk-drain-cancelled", d->facts.name,
			  "disk %s (%s) is drained no more: what has left it stays where it is", d->facts.name,
			  d->facts.path);
	drains_look(c->set);
}

const struct command_kind command_disk_drain = {
    .name = "disk drain", .run = command_change_run, .decide = drain_decide, .apply = drain_apply};

/* ---- what is away ---- */

bool set_disk_is_gone(const struct set_disk *d)
{
	if (d->state == SET_DISK_REMOVED)
		return true;
	return d->gone_ns > 0 && (d->set->has_peers || set_disk_is_ours(d)) &&
	       reactor_now_ns(d->set->reactor) - d->gone_ns >= d->set->rebuild_after_ns;
}

/* Is it to be seen to later? */
static bool drain_look_away(struct set_disk *d)
{
	bool is_away = !d->facts.is_removed && !set_disk_is_running(d);
	if (!is_away)
		d->gone_ns = 0;
	else if (d->gone_ns == 0)
		d->gone_ns = max_u64(reactor_now_ns(d->set->reactor), 1);
	return is_away;
}

/* ---- rehome ---- */

enum rehome_stage { REHOME_CHECK, REHOME_WAIT };

static void rehome_done(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	if (res != 0)
		command_refuse(c, -EIO, "failed", "volume %s: %s", entry->facts.name, entry->why);
	c->kind->run(c);
}

/* Attached by the set for itself, and by nobody else? */
static bool entry_is_rehoming(const struct set_volume *entry)
{
	return entry->is_rehoming && entry->head && !volume_facts_are_attached(&entry->facts);
}

static bool rehome_may_attach(struct set_volume *entry)
{
	return !entry->head && !entry->facts.is_deleting && !volume_facts_are_attached(&entry->facts) &&
	       set_volume_is_here(entry) && leave_is_needed(entry);
}

static bool rehome_may_detach(struct set_volume *entry)
{
	return entry_is_rehoming(entry) && entry->head->state == VOLUME_SERVING &&
	       (!leave_is_needed(entry) || entry->head->is_fenced);
}

static void rehome_run(struct command *c)
{
	struct attach_options o = {.is_return = true};
	if (c->stage == REHOME_CHECK) {
		c->stage = REHOME_WAIT;
		if (!command_find_own(c))
			return command_end(c);
		if (rehome_may_attach(c->volume)) {
			c->volume->is_rehoming = true;
			return volume_attach(c->volume, &o, rehome_done, c);
		}
		if (rehome_may_detach(c->volume)) {
			c->volume->is_rehoming = false;
			return volume_detach(c->volume, false, rehome_done, c);
		}
	}
	command_end(c);
}

const struct command_kind command_rehome = {.name = "rehome", .run = rehome_run};

enum flow command_end_rehoming(struct command *c, struct set_volume *entry)
{
	if (!entry || !entry_is_rehoming(entry) || entry->head->state != VOLUME_SERVING)
		return FLOW_NEXT;
	entry->is_rehoming = false;
	volume_detach(entry, false, rehome_done, c);
	return FLOW_WAIT;
}

/* ---- look ---- */

static void drain_look_disk(struct set_disk *d)
{
	if (!d->facts.is_draining || !set_disk_runs_here(d))
		return;
	if (d->drain_ns == 0) {
		d->drain_ns = reactor_now_ns(d->set->reactor);
		d->drain_bytes = drain_bytes(d);
	}
	if (d->is_drain_told || set_disk_users(d, NULL, 0) > 0)
		return;
	d->is_drain_told = true;
	log_event(
	    d->set->log, LOG_NOTICE, "disk-drained", d->facts.name,
	    "disk %s (%s) holds nothing of any volume any more: remove it (quarry disk remove %s), or use it again "
	    "(quarry disk drain %s --cancel)",
	    d->facts.name, d->facts.path, d->facts.name, d->facts.name);
}

static void drains_fired(struct timer *t)
{
	struct volume_set *s = container_of(t, struct volume_set, drain_timer);
	bool is_needed = false;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		if (!s->disks[i])
			continue;
		drain_look_disk(s->disks[i]);
		is_needed |= drain_look_away(s->disks[i]);
	}
	list_each (node, &s->volumes) {
		struct set_volume *entry = container_of(node, struct set_volume, link);
		if (!entry->head && !entry->attach)
			entry->is_rehoming = false;
		is_needed |= entry->is_rehoming || (!entry->facts.is_deleting && leave_is_needed(entry));
		if (entry->head)
			leave_want(entry->head);
		if (rehome_may_attach(entry) || rehome_may_detach(entry))
			order_own(entry, SET_REHOME);
	}
	if (is_needed && !s->is_stopping)
		timer_start(s->reactor, &s->drain_timer, DRAINS_LOOK_NS);
}

void drains_init(struct volume_set *s)
{
	timer_init(&s->drain_timer, drains_fired);
}

void drains_look(struct volume_set *s)
{
	if (s->is_stopping)
		return;
	timer_stop(s->reactor, &s->drain_timer);
	timer_start(s->reactor, &s->drain_timer, 1);
}

void drains_stop(struct volume_set *s)
{
	timer_stop(s->reactor, &s->drain_timer);
}
