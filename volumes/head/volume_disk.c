/*
 * volume_disk.c: a volume's dealings with its disks: which of them can be asked, which is asked, and the end of one.
 *
 *   UNUSED -> JOINED -> LOST -> STALE -> SYNCING -> JOINED        from LOST on with several copies only: stale.c,
 *                                 ^---------+                     resync.c
 *
 * Invariants
 *  1. A JOINED disk's replica is open; the first thing that it fails to change, or its end, makes it LOST. Of the only
 *     copy, a failure is the request's alone.
 *  2. Reads go to JOINED disks alone; to one of this node, if there is one.
 *
 * Owner: the volume.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <string.h>

static void volume_disk_lost(struct replica *r, int res)
{
	struct volume_disk *vd = container_of(r, struct volume_disk, replica);
	struct volume *v = vd->volume;
	uint32_t disk = (uint32_t)(vd - v->disks);
	log_line(v->set->log, LOG_INFO, "replica", "volume %s: its session with disk %s has ended: %s", volume_name(v),
		 v->set->disks[disk]->facts.name, strerror(-res));
	if (vd->state == VOLUME_DISK_SYNCING && !vd->is_switching) {
		vd->state = VOLUME_DISK_STALE; /* as before */
		vd->written = vd->flushed = 0;
		return;
	}
	if (vd->state != VOLUME_DISK_JOINED && vd->state != VOLUME_DISK_SYNCING)
		return; /* whoever joins it sees by himself */
	vd->state = VOLUME_DISK_LOST;
	if (res == -ESTALE)
		volume_fence(v, "disk %s has heard of a newer attachment of it", v->set->disks[disk]->facts.name);
	if (volume_is_replicated(v) && !v->snapshot)
		stale_note(v, disk);
}

struct replica *volume_disk_replica(struct volume *v, uint32_t disk)
{
	struct volume_disk *vd = &v->disks[disk];
	const struct set_disk *d = v->set->disks[disk];
	quarry_assert(set_disk_is_running(d) && vd->state != VOLUME_DISK_JOINED);
	if (!vd->volume)
		replica_init(&vd->replica, v->set->reactor, &v->entry->facts.uuid, &d->facts.uuid, volume_disk_lost);
	vd->volume = v;
	vd->replica.disk = d->disk;
	vd->replica.client = d->client;
	vd->replica.is_only_copy = !volume_is_replicated(v);
	return &vd->replica;
}

void volume_disk_lose(struct volume *v, uint32_t disk, int res)
{
	struct volume_disk *vd = &v->disks[disk];
	if (vd->state != VOLUME_DISK_JOINED && vd->state != VOLUME_DISK_SYNCING) {
		if (vd->volume) /* a session that was not used yet ends as well */
			replica_lose(&vd->replica, res);
		return;
	}
	quarry_assert(vd->replica.state == REPLICA_OPEN);
	replica_lose(&vd->replica, res);
	quarry_assert(vd->state != VOLUME_DISK_JOINED && vd->state != VOLUME_DISK_SYNCING);
}

uint64_t volume_joined(const struct volume *v)
{
	uint64_t joined = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		joined |= (uint64_t)(v->disks[i].state == VOLUME_DISK_JOINED) << i;
	return joined;
}

/* Bit per disk: those of this node. */
static uint64_t disks_here(const struct volume *v, uint64_t disks)
{
	uint64_t here = 0;
	for (uint64_t left = disks; left != 0; left &= left - 1)
		if (v->set->disks[__builtin_ctzll(left)]->disk)
			here |= left & -left;
	return here;
}

/* Among those that have equally little to do the block decides, so that all take part. */
uint32_t volume_reader_of_many(const struct volume *v, uint64_t disks, uint64_t block)
{
	uint64_t here = disks_here(v, disks);
	disks = here ? here : disks;
	uint32_t n = (uint32_t)__builtin_popcountll(disks), turn = 0, reader = SET_DISKS_MAX;
	uint64_t least = UINT64_MAX;
	for (uint64_t left = disks; left != 0; left &= left - 1, turn++) {
		uint32_t disk = (uint32_t)__builtin_ctzll(left);
		uint64_t rank = (uint64_t)v->disks[disk].asked * n + (turn + block / PART_BLOCKS) % n;
		if (rank >= least)
			continue;
		least = rank;
		reader = disk;
	}
	quarry_assert(reader < SET_DISKS_MAX);
	return reader;
}
