/*
 * set_schedule.c: the command that sets a volume's schedule, and the clock that takes snapshots by it.
 *
 *   timer -> a volume is due -> snapshot create (auto-YYYYMMDD-HHMMSS) -> delete the oldest beyond `keep` -> timer
 *
 * The volume's record keeps the schedule; when the next snapshot is due follows from when the last was taken, so a
 * restart takes what fell due meanwhile once, and no more. Snapshots that people took are never deleted here. Of
 * several nodes the one that has the volume takes them.
 *
 * The orders are the set's own and stand in the same line as people's commands. One that is refused is told in an event
 * and tried again after SCHEDULE_RETRY_S.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SCHEDULE_RETRY_S 60u
#define SCHEDULE_LOOK_S  60u /* at least this often, since the wall clock may be set */

/* ---- the command ---- */

enum { SCHEDULE_CHECK, SCHEDULE_WAIT };

static int schedule_change(struct record_update *u, struct volume_facts *facts)
{
	const struct set_command *o = container_of(u, struct command, update)->order;
	facts->schedule = (struct schedule_facts){.every_s = o->every_s, .keep = o->every_s ? o->keep : 0};
	return 0;
}

static void schedule_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	if (res != 0)
		command_refuse_store(c, res);
	c->volume->schedule_retry_ns = 0;
	schedules_plan(c->set);
	c->kind->run(c);
}

static int schedule_check(struct command *c)
{
	const struct set_command *o = c->order;
	if (command_find_volume(c) != 0)
		return c->err;
	bool is_every = o->every_s >= SCHEDULE_EVERY_MIN_S && o->every_s <= SCHEDULE_EVERY_MAX_S;
	if (o->every_s == 0 || (is_every && o->keep > 0 && o->keep <= SCHEDULE_KEEP_MAX))
		return 0;
	return command_refuse(c, -EINVAL, "invalid", SCHEDULE_LIMITS);
}

static void schedule_run(struct command *c)
{
	if (c->stage == SCHEDULE_CHECK) {
		c->stage = SCHEDULE_WAIT;
		if (schedule_check(c) == 0) {
			c->update.change = schedule_change;
			c->update.done = schedule_recorded;
			record_update_start(&c->update, c->volume);
			return;
		}
	}
	command_end(c);
}

const struct command_kind command_schedule = {.name = "snapshot schedule", .run = schedule_run};

_Static_assert(SCHEDULE_KEEP_MAX + 1 == SNAPSHOTS_MAX, "one more is taken before the oldest goes");

/* ---- when ---- */

uint64_t schedule_next_ns(const struct set_volume *entry)
{
	const struct schedule_facts *s = &entry->facts.schedule;
	uint64_t last_ns = 0;
	if (s->every_s == 0 || entry->facts.is_deleting)
		return 0;
	/* a snapshot from further in the future was taken while the wall clock was wrong: none would be taken until then */
	uint64_t latest_ns = reactor_wall_ns(entry->set->reactor) + s->every_s * NS_PER_S;
	list_each (node, &entry->snapshots) {
		const struct snapshot_facts *f = &container_of(node, struct set_snapshot, link)->facts;
		if (f->is_scheduled && f->created_ns <= latest_ns)
			last_ns = max_u64(last_ns, f->created_ns);
	}
	return max_u64(max_u64(last_ns + s->every_s * NS_PER_S, entry->schedule_retry_ns), 1);
}

void schedules_plan(struct volume_set *s)
{
	uint64_t now_ns = reactor_wall_ns(s->reactor), wait_ns = UINT64_MAX;
	list_each (node, &s->volumes) {
		const struct set_volume *v = container_of(node, struct set_volume, link);
		uint64_t next_ns = v->is_schedule_busy || !set_volume_is_here(v) ? 0 : schedule_next_ns(v);
		if (next_ns != 0)
			wait_ns = min_u64(wait_ns, next_ns > now_ns ? next_ns - now_ns : 0);
	}
	if (timer_is_running(&s->schedule_timer))
		timer_stop(s->reactor, &s->schedule_timer);
	if (wait_ns != UINT64_MAX && !s->is_stopping)
		timer_start(s->reactor, &s->schedule_timer, min_u64(wait_ns, SCHEDULE_LOOK_S * NS_PER_S));
}

/* ---- taking and deleting ---- */

static struct set_command *schedule_order(struct set_volume *entry, enum set_command_kind kind, const char *name,
					  void (*done)(struct set_command *c, int res))
{
	struct set_command *o = calloc(1, sizeof(*o));
	if (!o)
		return NULL;
	o->kind = kind;
	o->is_internal = o->is_scheduled = true;
	o->volume = entry->facts.uuid;
	o->n_targets = 1;
	o->done = done;
	text_print(o->targets[0].volume, sizeof(o->targets[0].volume), "%s", entry->facts.name);
	text_print(o->targets[0].snapshot, sizeof(o->targets[0].snapshot), "%s", name);
	text_print(o->object, sizeof(o->object), "%s@%s", o->targets[0].volume, o->targets[0].snapshot);
	return o;
}

static void thin_done(struct set_command *o, int res)
{
	order_free_internal(o); /* one in use stays until the next snapshot is taken */
}

/* The oldest of the schedule's that are too many. */
static void schedule_thin(struct volume_set *s, struct set_volume *entry)
{
	uint32_t n = 0;
	list_each (node, &entry->snapshots) {
		const struct snapshot_facts *f = &container_of(node, struct set_snapshot, link)->facts;
		n += f->is_scheduled && !f->is_deleting;
	}
	list_each (node, &entry->snapshots) {
		const struct set_snapshot *snap = container_of(node, struct set_snapshot, link);
		if (n <= entry->facts.schedule.keep || entry->facts.schedule.keep == 0)
			return;
		if (!snap->facts.is_scheduled || snap->facts.is_deleting)
			continue;
		n--;
		if ((snap->head || snapshot_is_attached(snap)) && !snapshot_is_left(snap))
			continue;
		struct set_command *o = schedule_order(entry, SET_SNAPSHOT_DELETE, snap->facts.name, thin_done);
		if (o)
			volume_set_command(s, o);
	}
}

static void schedule_taken(struct set_command *o, int res)
{
	struct volume_set *s = o->set;
	struct set_volume *entry = set_volume_by_uuid(s, &o->volume);
	if (entry) {
		entry->is_schedule_busy = false;
		if (res != 0 && !s->is_stopping) {
			entry->schedule_retry_ns = reactor_wall_ns(s->reactor) + SCHEDULE_RETRY_S * NS_PER_S;
			log_event(s->log, LOG_WARNING, "schedule-failed", entry->facts.name,
				  "volume %s: its schedule could not take a snapshot: %s; it tries again in a minute",
				  entry->facts.name, o->why);
		} else if (res == 0) {
			schedule_thin(s, entry);
		}
	}
	order_free_internal(o);
	schedules_plan(s);
}

static void schedule_take(struct volume_set *s, struct set_volume *entry, uint64_t now_ns)
{
	char name[NAME_BYTES];
	time_t seconds = (time_t)(now_ns / NS_PER_S);
	struct tm utc;
	gmtime_r(&seconds, &utc);
	size_t n = strftime(name, sizeof(name), "auto-%Y%m%d-%H%M%S", &utc);
	quarry_assert(n > 0);
	struct set_command *o = schedule_order(entry, SET_SNAPSHOT_CREATE, name, schedule_taken);
	if (!o)
		return;
	o->set = s;
	entry->is_schedule_busy = true;
	volume_set_command(s, o);
}

static void schedule_timer_fired(struct timer *t)
{
	struct volume_set *s = container_of(t, struct volume_set, schedule_timer);
	uint64_t now_ns = reactor_wall_ns(s->reactor);
	list_each (node, &s->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		uint64_t next_ns = v->is_schedule_busy || !set_volume_is_here(v) ? 0 : schedule_next_ns(v);
		if (next_ns != 0 && next_ns <= now_ns)
			schedule_take(s, v, now_ns);
	}
	schedules_plan(s);
}

void schedules_init(struct volume_set *s)
{
	timer_init(&s->schedule_timer, schedule_timer_fired);
}

void schedules_stop(struct volume_set *s)
{
	if (timer_is_running(&s->schedule_timer))
		timer_stop(s->reactor, &s->schedule_timer);
}
