/*
 * attach_older.c: which of a volume's disks are older copies, put back: what they have is not what the record thinks.
 *
 * Of several copies such a disk is compared as a whole before it counts again: it is stale since 0. What a volume alone had
 * there answers with an I/O error, never with what is old, or empty.
 *
 * Owner: the attach.
 */
#include "volumes/head/attach_internal.h"

#include <errno.h>

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

void attach_find_older(struct attach *a)
{
	struct volume *v = a->entry->head;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		if (v->disks[i].state != VOLUME_DISK_JOINED || !attach_is_older(a, i))
			continue;
		volume_disk_lose(v, i, -ENODATA);
		attach_tell_older(a, i);
	}
}
