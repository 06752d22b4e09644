/*
 * leave_purpose.c: what segments of a volume are to move for, and what is known to keep them from it. leave.c has them move.
 *
 * A disk is left first, then each segment gets as many copies as it is to have, then it is seen to that no disk is much fuller
 * than another.
 *
 * Invariants
 *  1. What is needed can be done, as far as is known: a disk that is only to be left when it is back is not waited for here.
 *  2. An obstacle is told as long as what it was met with is needed, and the head that met it is here.
 *
 * Plain functions of the set's copies; the obstacle is the volume's.
 */
#include "volumes/head/head_internal.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- what for ---- */

/* Its copies are to be made anew, or forgotten, and there are disks for them: of a volume that nobody serves, the record need
 * not know yet that they are stale, unless one may be the only one. */
static bool disk_is_to_be_replaced(const struct set_volume *entry, const struct volume_disk_facts *known,
				   const struct set_disk *d)
{
	const struct set_pool *pool = set_pool_find(entry->set, entry->facts.pool);
	bool is_stale = known->is_stale || (entry->facts.replicas > 1 && !entry->head);
	return set_disk_is_gone(d) && volume_facts_are_replicated(&entry->facts) && is_stale && pool &&
	       placement_domains_running(entry->set, &pool->facts) >= entry->facts.replicas;
}

/* One that is new, and may be joined at any time, is in nobody's way before it is to be empty. */
static bool disk_is_to_be_dropped(const struct set_volume *entry, const struct volume_disk_facts *known,
				  const struct set_disk *d)
{
	const struct volume *v = entry->head;
	bool is_being_joined = v && (placer_uses_disk(v, d->index) || move_uses_disk(v, d->index));
	if (d->state == SET_DISK_REMOVED)
		return true;
	return set_disk_is_running(d) && !is_being_joined && (!known->is_new || d->facts.is_draining);
}

/* Can something be done about it now? */
bool leave_wants_disk(const struct set_volume *entry, const struct volume_disk_facts *known)
{
	const struct set_disk *d = set_disk_by_uuid(entry->set, &known->uuid);
	if (!d)
		return false;
	if (known->is_left)
		return disk_is_to_be_dropped(entry, known, d);
	return (d->facts.is_draining && set_disk_is_running(d)) || disk_is_to_be_replaced(entry, known, d);
}

static bool leave_wants_any(const struct set_volume *entry)
{
	for (uint32_t i = 0; i < entry->facts.n_disks; i++)
		if (leave_wants_disk(entry, &entry->facts.disks[i]))
			return true;
	return false;
}

static bool leave_is_needed_for(const struct set_volume *entry, enum leave_purpose purpose)
{
	switch (purpose) {
	case LEAVE_FOR_DISK:
		return leave_wants_any(entry);
	case LEAVE_FOR_COPIES:
		return even_is_needed(entry);
	case LEAVE_FOR_BALANCE:
		return balance_is_wanted(entry);
	}
	return false;
}

bool leave_is_urgent(const struct set_volume *entry)
{
	return leave_is_needed_for(entry, LEAVE_FOR_DISK) || leave_is_needed_for(entry, LEAVE_FOR_COPIES);
}

bool leave_is_needed(const struct set_volume *entry)
{
	return leave_is_urgent(entry) || balance_is_wanted(entry);
}

/* ---- what keeps it from going on ---- */

const char *leave_why(const struct set_volume *entry, enum leave_purpose purpose)
{
	const struct leave_obstacle *o = &entry->obstacle;
	bool is_here = entry->head != NULL; /* else another node does it, and knows */
	return is_here && o->text[0] && o->purpose == purpose && leave_is_needed_for(entry, purpose) ? o->text : NULL;
}

void leave_forget_why(struct set_volume *entry)
{
	entry->obstacle.text[0] = 0;
}

void leave_obstruct(struct set_volume *entry, enum leave_purpose purpose, const char *format, ...)
{
	struct leave_obstacle *o = &entry->obstacle;
	va_list args;
	o->purpose = purpose;
	va_start(args, format);
	vsnprintf(o->text, sizeof(o->text), format, args);
	va_end(args);
	quarry_assert(o->text[0] != 0);
}
