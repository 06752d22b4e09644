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

uint64_t drain_bytes(const struct set_disk *d)
{
	uint64_t bytes = 0;
	if (set_disk_runs_here(d))
		disk_trees_each(d->disk, drain_count, &bytes);
	return bytes;
}

/* The first thing that is known to keep a volume from leaving it. */
const char *drain_why(const struct set_disk *d)
{
	if (!set_disk_is_running(d))
		return "it does not run: bring it back, or remove it with --force";
	list_each (node, &d->set->volumes) {
		struct set_volume *entry = container_of(node, struct set_volume, link);
		const char *why = leave_why(entry, LEAVE_FOR_DISK);
		if (why && volume_facts_disk(&entry->facts, &d->facts.uuid))
			return why;
		if (entry->why[0] && !entry->head && volume_facts_disk(&entry->facts, &d->facts.uuid))
			return entry->why;
	}
	return "";
}

uint64_t drain_eta_s(uint64_t from_bytes, uint64_t left_bytes, uint64_t took_ns)
{
	if (from_bytes <= left_bytes)
		return 0;
	double left = (double)left_bytes / (double)(from_bytes - left_bytes);
	return (uint64_t)(left * (double)took_ns / (double)NS_PER_S) + 1;
}

void drain_view(const struct set_disk *d, struct disk_view *view)
{
	quarry_assert(d->set && !view->drain.is_wanted);
	view->drain.is_wanted = d->facts.is_draining;
	view->drain.is_with_node = d->facts.drains_with_node;
	if (!d->facts.is_draining || !set_disk_is_ours(d)) /* that node knows how far it is */
		return;
	uint64_t took_ns = reactor_now_ns(d->set->reactor) - d->drain_ns;
	view->drain.left_bytes = drain_bytes(d);
	view->drain.is_done = set_disk_users(d, NULL, 0) == 0;
	if (view->drain.is_done)
		return;
	text_print(view->drain.why, sizeof(view->drain.why), "%s", drain_why(d));
	if (d->drain_ns > 0)
		view->drain.eta_s = drain_eta_s(d->drain_bytes, view->drain.left_bytes, took_ns);
}

/* ---- drain ---- */

/* Is it of another node that lives, and has not told of it yet? */
static bool disk_is_unknown(const struct set_disk *d)
{
	return !set_disk_is_ours(d) && d->n_blocks == 0 && !d->facts.is_removed &&
	       set_node_is_alive(d->set, d->facts.node);
}

/* Have the others of the pool room for what lies there? What is not known is tried. */
static int drain_check_room(struct command *c, const struct leaving *l, const char *pool)
{
	uint64_t room = 0, bytes = 0;
	bool is_unknown = false;
	char needed[SIZE_TEXT_BYTES], there[SIZE_TEXT_BYTES];
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = c->set->disks[i];
		if (!d || strcmp(d->facts.pool, pool) != 0)
			continue;
		if (l->disks >> i & 1)
			bytes += drain_bytes(d);
		else if (set_disk_is_running(d) && !d->facts.is_draining)
			room += set_disk_room(d) * BLOCK_BYTES;
		is_unknown |= disk_is_unknown(d);
	}
	if (bytes <= room || is_unknown)
		return 0;
	return command_refuse(c, -ENOSPC, "no-space",
			      "%s %s holds %s of data, and the other disks of pool %s have room for %s: add a disk",
			      l->noun, l->name, size_text(bytes, needed), pool, size_text(room, there));
}

static bool volume_is_on(const struct set_volume *v, uint64_t disks)
{
	for (uint32_t i = 0; i < v->facts.n_disks; i++) {
		const struct set_disk *d = set_disk_by_uuid(v->set, &v->facts.disks[i].uuid);
		if (d && disks >> d->index & 1)
			return true;
	}
	return false;
}

/* Can the copies of every volume there still lie apart without it? */
static int drain_check_domains(struct command *c, const struct leaving *l, const struct pool_facts *pool)
{
	uint32_t n = placement_domains(c->set, pool, l->disks);
	list_each (node, &c->set->volumes) {
		const struct volume_facts *f = &container_of(node, struct set_volume, link)->facts;
		if (f->is_deleting || strcmp(f->pool, pool->name) != 0 || f->replicas <= n || f->replicas == 1 ||
		    !volume_is_on(container_of(node, struct set_volume, link), l->disks))
			continue;
		return command_refuse(
		    c, -ENOSPC, "no-space",
		    "volume %s has %u copies in failure domains of their own (%s), and without %s %s pool %s has %u: "
		    "add a disk, or lower its --replicas",
		    f->name, f->replicas, failure_domain_name(pool->failure_domain), l->noun, l->name, pool->name, n);
	}
	return 0;
}

int drain_check_rest(struct command *c, const struct leaving *l)
{
	list_each (node, &c->set->pools) {
		const struct pool_facts *pool = &container_of(node, struct set_pool, link)->facts;
		if (drain_check_domains(c, l, pool) != 0 || drain_check_room(c, l, pool->name) != 0)
			return c->err;
	}
	return 0;
}

static int drain_check(struct command *c)
{
	const struct set_disk *d = c->disk;
	if (!set_disk_is_running(d))
		return command_refuse(c, -EIO, "failed",
				      "disk %s does not run (%s): bring it back, or remove it with --force",
				      d->facts.name, d->why);
	struct leaving leaving = {.disks = 1ull << d->index, .noun = "disk", .name = d->facts.name};
	return drain_check_rest(c, &leaving);
}

static int drain_check_cancel(struct command *c)
{
	const struct disk_facts *f = &c->disk->facts;
	if (!f->drains_with_node)
		return 0;
	return command_refuse(c, -EBUSY, "in-use",
			      "disk %s is drained with all of node %s: quarry node drain %s --cancel ends that",
			      f->name, f->node, f->node);
}

static int drain_decide(struct command *c)
{
	char uuid[UUID_TEXT_BYTES];
	if (command_find_disk(c) != 0 || command_check_disk_here(c, c->disk) != 0)
		return c->err;
	if (c->disk->facts.is_draining != c->order->cancel)
		return 0;
	if ((c->order->cancel ? drain_check_cancel(c) : drain_check(c)) != 0)
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

static bool rehome_is_needed(const struct set_volume *entry)
{
	return leave_is_needed(entry) || heal_wants_head(entry);
}

static bool rehome_may_attach(struct set_volume *entry)
{
	return !entry->head && !entry->facts.is_deleting && !volume_facts_are_attached(&entry->facts) &&
	       set_volume_is_here(entry) && rehome_is_needed(entry);
}

static bool rehome_may_detach(struct set_volume *entry)
{
	return entry_is_rehoming(entry) && entry->head->state == VOLUME_SERVING &&
	       (!rehome_is_needed(entry) || entry->head->is_fenced);
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
	if (d->is_drain_told || d->facts.drains_with_node || set_disk_users(d, NULL, 0) > 0)
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
	bool is_needed = node_drain_look(s);
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
		is_needed |= entry->is_rehoming || (!entry->facts.is_deleting && rehome_is_needed(entry));
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
