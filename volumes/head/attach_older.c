/*
 * attach_older.c: what becomes, when a volume is attached, of a disk that an older copy was put back of.
 *
 * A copy from before the disk was opened last does not open (set_older.c). What comes here is one that was accepted, which the
 * record says, or one that only the other disks of a volume can tell.
 *
 * Invariants
 *  1. It is marked stale since 0, with no tree, if every segment has another current copy.
 *  2. Else one that was accepted stays, and nothing that was known of any copy holds: all are made equal from the beginning
 *     on, each segment by a disk that is no such copy, where there is one (reconcile.c); and before the volume is served the
 *     record says of what is stale that it is so since 0.
 *  3. What the record says of an accepted copy it says until then: a crash before only begins it again.
 *
 * Owner: the attach.
 */
#include "volumes/head/attach_internal.h"

#include <errno.h>
#include <string.h>

static void attach_tell_older(struct attach *a, uint32_t disk)
{
	struct volume *v = a->entry->head;
	const struct set_disk *d = v->set->disks[disk];
	quarry_assert(v->disks[disk].state == VOLUME_DISK_LOST);
	v->disks[disk].is_older = true;
	log_event(v->set->log, LOG_ERROR, "disk-not-joined", a->entry->facts.name,
		  "volume %s cannot use disk %s (%s): %s", a->entry->facts.name, d->facts.name, d->facts.path,
		  volume_is_replicated(v) ? "an older copy of the disk was put back: all of it is compared with the "
					    "other copies before it counts again"
					  : OLDER_DISK_HINT);
}

/* A disk has its trees before the record names it: one that lacks the live one is an older copy, put back. Only where the
 * record itself is older than the disks, and was taken over, all current ones may lack what it names, and are joined once
 * more to get it (FLOW_WAIT). */
enum flow attach_judge_lacking(struct attach *a)
{
	const struct volume *v = a->entry->head;
	uint64_t lacking = a->lacking, current = 0;
	a->lacking = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		current |= (uint64_t)(v->disks[i].state == VOLUME_DISK_LOST || v->disks[i].state == VOLUME_DISK_JOINED)
			   << i;
	for (uint64_t left = lacking; left != 0 && a->err == 0; left &= left - 1)
		if (a->is_behind && (lacking == current || !volume_is_replicated(v)))
			attach_join_disk(a, (uint32_t)__builtin_ctzll(left), true);
		else
			attach_tell_older(a, (uint32_t)__builtin_ctzll(left));
	return a->owed > 0 ? FLOW_WAIT : FLOW_NEXT;
}

/* The first epoch of the head whose the last complete one is: every attach has had a range of the same length [EPRANGE]. */
static uint64_t attach_served_base(const struct attach *a)
{
	uint64_t base = a->last.epoch_base, behind = base > a->remembered ? base - a->remembered : 0;
	uint64_t n = (behind + EPOCHS_PER_ATTACH - 1) / EPOCHS_PER_ATTACH * EPOCHS_PER_ATTACH;
	return n <= base ? base - n : 0;
}

/* Bit per disk: of those that are joined, the ones that the record says an older copy was accepted of. */
static uint64_t attach_accepted(const struct attach *a)
{
	const struct volume *v = a->entry->head;
	const struct volume_facts *facts = &a->entry->facts;
	uint64_t disks = 0;
	for (uint32_t i = 0; i < facts->n_disks; i++) {
		const struct set_disk *d = set_disk_by_uuid(v->set, &facts->disks[i].uuid);
		if (d && facts->disks[i].is_older)
			disks |= 1ull << d->index;
	}
	return disks & volume_joined(v);
}

/* A head serves after its first barrier, which every current disk has answered [RECBAR]: each has been fenced by it, and
 * once a later epoch is complete, each remembers one of that head's. A disk of which that is not so is an older copy, put
 * back [OLDER]. The fences tell of the attach before this one, the epochs of the head that served before attaches that
 * ended early, too. */
static bool attach_is_older(const struct attach *a, uint32_t disk)
{
	uint64_t base = attach_served_base(a);
	if (base == a->last.epoch_base && a->generations_were[disk] < a->last.generation)
		return true;
	return a->remembered > base && a->complete[disk] < base;
}

static void attach_find_older(struct attach *a)
{
	struct volume *v = a->entry->head;
	uint64_t judged = volume_joined(v) & ~attach_accepted(a);
	for (; judged != 0; judged &= judged - 1) {
		uint32_t i = (uint32_t)__builtin_ctzll(judged);
		if (!attach_is_older(a, i))
			continue;
		volume_disk_lose(v, i, -ENODATA);
		attach_tell_older(a, i);
	}
}

static void attach_judge_accepted(struct attach *a)
{
	struct volume *v = a->entry->head;
	uint64_t accepted = attach_accepted(a);
	a->has_older = accepted != 0 && layout_without(v, volume_joined(v) & ~accepted) > 0;
	if (a->has_older)
		log_event(v->set->log, LOG_WARNING, "copy-older-used", a->entry->facts.name,
			  "volume %s has segments of which an older copy of a disk is the only one left; it was "
			  "accepted: what was written there since is lost",
			  a->entry->facts.name);
	for (; accepted != 0 && !a->has_older; accepted &= accepted - 1) {
		volume_disk_lose(v, (uint32_t)__builtin_ctzll(accepted), -ENODATA);
		attach_tell_older(a, (uint32_t)__builtin_ctzll(accepted));
	}
}

void attach_judge_older(struct attach *a)
{
	quarry_assert(volume_is_replicated(a->entry->head));
	attach_find_older(a);
	attach_judge_accepted(a);
}

/* ---- ADMIT ---- */

static int attach_change_admit(struct record_update *u, struct volume_facts *facts)
{
	quarry_assert(attach_of(u)->has_older);
	for (uint32_t i = 0; i < facts->n_disks; i++) {
		struct volume_disk_facts *known = &facts->disks[i];
		known->is_older = false;
		if (known->is_stale)
			known->since = known->had_before = 0;
	}
	return 0;
}

static void attach_admitted(struct record_update *u, int res)
{
	struct attach *a = attach_of(u);
	if (res != 0)
		text_print(a->entry->why, sizeof(a->entry->why),
			   "it could not be recorded that an older copy of a disk counts: %s", strerror(-res));
	attach_complete(a, res);
}

enum flow attach_admit(struct attach *a)
{
	if (!a->has_older)
		return FLOW_NEXT;
	a->update = (struct record_update){
	    .generation = a->entry->head->generation, .change = attach_change_admit, .done = attach_admitted};
	record_update_start(&a->update, a->entry);
	return FLOW_WAIT;
}
