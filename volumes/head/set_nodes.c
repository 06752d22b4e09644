/*
 * set_nodes.c: which node of a cluster does what.
 *
 *   a volume     is served where it is attached; while nobody has it attached, only the node with its data can
 *   a disk       is its node's
 *   a deletion   belongs to the node that has the volume's data; of one without any, to the node that was told
 *   names, pools, schedules, sizes of nobody's volumes are the store's: any node changes them there
 *
 * Where a command can only be carried out on another node it is refused with that node's name, for the control API to
 * send it there.
 *
 *   release   CHECK -> DETACH -> END      a head that another node has taken over is let go, with its clients
 *   return    CHECK -> ATTACH -> END      a volume whose disks were not there at the start is attached after all
 *
 * Without a cluster everything is here. Owner: the set.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool set_node_is_self(const struct volume_set *s, const char *node)
{
	return strcmp(node, s->node_name) == 0;
}

bool set_disk_is_ours(const struct set_disk *d)
{
	return set_node_is_self(d->set, d->facts.node);
}

bool set_node_is_alive(const struct volume_set *s, const char *node)
{
	return !s->members || set_node_is_self(s, node) || members_is_alive(s->members, node);
}

bool volume_facts_are_attached(const struct volume_facts *facts)
{
	return facts->is_attached_nbd || facts->is_attached_vhost;
}

bool set_node_label(const struct volume_set *s, const char *node, const char *kind, char out[static MEMBER_LABEL_BYTES])
{
	struct member_view view;
	if (!s->members || !members_find(s->members, node, &view))
		return false;
	json_t *about = json_loads(view.about, JSON_REJECT_DUPLICATES, NULL);
	const char *label = json_string_value(json_object_get(json_object_get(about, "labels"), kind));
	bool has_label = label && label[0] && strlen(label) < MEMBER_LABEL_BYTES;
	if (has_label)
		text_print(out, MEMBER_LABEL_BYTES, "%s", label);
	json_decref(about);
	return has_label;
}

/* Racks and zones are made of nodes: the disks of one node share both. A node that is in none is one of its own. */
bool set_disks_share_domain(const struct volume_set *s, enum failure_domain domain, uint32_t a, uint32_t b)
{
	const char *one = s->disks[a]->facts.node, *other = s->disks[b]->facts.node;
	char label[MEMBER_LABEL_BYTES], same[MEMBER_LABEL_BYTES];
	if (domain == DOMAIN_DISK || strcmp(one, other) == 0)
		return a == b || domain != DOMAIN_DISK;
	if (domain == DOMAIN_NODE)
		return false;
	const char *kind = failure_domain_name(domain);
	return set_node_label(s, one, kind, label) && set_node_label(s, other, kind, same) && strcmp(label, same) == 0;
}

const char *set_volume_node(const struct set_volume *entry)
{
	const struct volume_facts *f = &entry->facts;
	bool is_replicated = volume_facts_are_replicated(f);
	if (volume_facts_are_attached(f) && f->owner[0])
		return f->owner;
	for (uint32_t i = 0; i < f->n_disks; i++) {
		const struct set_disk *d = set_disk_by_uuid(entry->set, &f->disks[i].uuid);
		bool has_node = d && !d->facts.is_removed && d->facts.node[0];
		if (has_node && (!is_replicated || set_node_is_alive(entry->set, d->facts.node)))
			return d->facts.node;
	}
	return "";
}

bool set_volume_is_elsewhere(const struct set_volume *entry)
{
	const char *node = set_volume_node(entry);
	if (volume_facts_are_replicated(&entry->facts) && !volume_facts_are_attached(&entry->facts))
		return false; /* with several copies any node can */
	return entry->set->members && node[0] && !set_node_is_self(entry->set, node);
}

bool set_volume_is_here(const struct set_volume *entry)
{
	return !entry->set->members || set_node_is_self(entry->set, set_volume_node(entry));
}

int command_refuse_elsewhere(struct command *c, const char *node, const char *format, ...)
{
	char why[SET_WHY_BYTES];
	va_list args;
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	if (set_node_is_alive(c->set, node))
		text_print(c->order->node, sizeof(c->order->node), "%s", node);
	return command_refuse(c, -EREMOTE, "elsewhere", "%s", why);
}

int command_check_here(struct command *c, const struct set_volume *entry)
{
	const struct volume_facts *f = &entry->facts;
	const char *node = set_volume_node(entry);
	if (!set_volume_is_elsewhere(entry))
		return 0;
	if (!volume_facts_are_attached(f))
		return command_refuse_elsewhere(
		    c, node, "the data of volume %s are on disks of node %s: run this there", f->name, node);
	if (set_node_is_alive(c->set, node))
		return command_refuse_elsewhere(c, node, "volume %s is attached on node %s: run this there", f->name,
						node);
	return command_refuse(
	    c, -EREMOTE, "elsewhere",
	    "volume %s is attached on node %s, which is not alive: start that node, or detach the volume "
	    "here",
	    f->name, node);
}

int command_check_disk_here(struct command *c, const struct set_disk *d)
{
	if (!c->set->members || set_disk_is_ours(d))
		return 0;
	return command_refuse_elsewhere(c, d->facts.node, "disk %s is on node %s: run this there", d->facts.name,
					d->facts.node);
}

void set_volume_check_head(struct set_volume *entry)
{
	const struct volume_facts *f = &entry->facts;
	if (!entry->set->members || !entry->head || entry->attach || f->generation <= entry->head->generation)
		return;
	quarry_assert(entry->head->entry == entry && !entry->head->snapshot);
	if (f->is_deleting)
		volume_fence(entry->head, "it has been deleted");
	else
		volume_fence(entry->head, "node %s has attached it", f->owner[0] ? f->owner : "?");
}

/* ---- deletions ---- */

void reaps_look(struct volume_set *s)
{
	if (!s->members || s->is_stopping)
		return;
	list_each (node, &s->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		bool is_idle =
		    !v->reap && !v->head && !v->attach && list_is_empty(&v->updates) && !snapshots_are_read(v);
		if (v->facts.is_deleting && is_idle && set_node_is_self(s, v->facts.owner))
			reap_start(v);
	}
}

/* ---- release ---- */

enum release_stage { RELEASE_CHECK, RELEASE_DETACH };

static void release_detached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	set_watch_missed(c->set); /* its record may be gone: then the copy goes as well */
	returns_look(c->set);     /* or this node has it still */
	c->kind->run(c);
}

static void release_run(struct command *c)
{
	if (c->stage == RELEASE_CHECK) {
		c->stage = RELEASE_DETACH;
		if (command_find_own(c) && c->volume->head && c->volume->head->is_fenced &&
		    c->volume->head->state == VOLUME_SERVING && !c->volume->attach) {
			volume_detach(c->volume, false, release_detached, c);
			return;
		}
	}
	command_end(c);
}

const struct command_kind command_release = {.name = "release", .run = release_run};

void release_want(struct set_volume *entry)
{
	quarry_assert(entry->set->members && entry->head && entry->head->is_fenced);
	order_own(entry, SET_RELEASE);
}

/* ---- return ---- */

enum return_stage { RETURN_CHECK, RETURN_ATTACH };

/* Before it is tried again; twice as long each time, up to: */
#define RETURN_MIN_NS (2 * NS_PER_S)
#define RETURN_MAX_NS (30 * NS_PER_S)

bool set_volume_returns(const struct set_volume *entry)
{
	const struct volume_facts *f = &entry->facts;
	return !f->is_deleting && volume_facts_are_attached(f) && set_node_is_self(entry->set, f->owner);
}

static void return_attached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	if (res == 0)
		log_event(c->set->log, LOG_NOTICE, "volume-returned", entry->facts.name,
			  "volume %s was attached, and is served again", entry->facts.name);
	if (res == 0 && entry->facts.is_attached_vhost)
		c->err = command_open_door(c, entry->head); /* the log has what is wrong */
	c->kind->run(c);
}

static void return_run(struct command *c)
{
	const struct attach_options o = {.is_return = true};
	if (c->stage == RETURN_CHECK) {
		c->stage = RETURN_ATTACH;
		if (command_find_own(c) && set_volume_returns(c->volume) && !c->volume->head && !c->volume->attach) {
			volume_attach(c->volume, &o, return_attached, c);
			return;
		}
	}
	command_end(c);
}

const struct command_kind command_return = {.name = "return", .run = return_run};

/* What kept it from being attached may have been anything, and may pass without anybody's hearing of it. */
static void returns_fired(struct timer *t)
{
	struct volume_set *s = container_of(t, struct volume_set, return_timer);
	bool is_needed = false;
	list_each (node, &s->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (!set_volume_returns(v) || v->head)
			continue;
		is_needed = true;
		if (!v->attach)
			order_own(v, SET_RETURN);
	}
	s->return_delay_ns = is_needed ? min_u64(2 * s->return_delay_ns, RETURN_MAX_NS) : RETURN_MIN_NS;
	if (is_needed)
		timer_start(s->reactor, &s->return_timer, s->return_delay_ns);
}

void returns_init(struct volume_set *s)
{
	timer_init(&s->return_timer, returns_fired);
	s->return_delay_ns = RETURN_MIN_NS;
}

void returns_look(struct volume_set *s)
{
	if (!s->is_stopping && !timer_is_running(&s->return_timer))
		timer_start(s->reactor, &s->return_timer, s->return_delay_ns);
}

void returns_stop(struct volume_set *s)
{
	timer_stop(s->reactor, &s->return_timer);
}

void return_want(struct set_volume *entry)
{
	struct volume_set *s = entry->set;
	if (!s->start && !s->is_stopping && !entry->head && !entry->attach &&
	    volume_facts_are_replicated(&entry->facts) && set_volume_returns(entry))
		order_own(entry, SET_RETURN);
}
