/*
 * fork.c: forks one tree of a volume on every disk that has a current copy of it, in parallel.
 *
 * A disk answers a fork when it is durable, with all that was written before; so a fork that is done is a flush, too.
 *
 * Invariants
 *  1. All disks, or it has failed: a snapshot that lacks a disk would read as holes there.
 *  2. It is sent in the session of the volume's head [SESSION], with an epoch that no write of the parent exceeds.
 *
 * Owner: whoever embeds it, and may free it in done().
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct fork_io {
	struct replica_io rio;
	struct fork *fork;
	uint32_t disk;
	uint64_t written; /* of the parent, when it was sent */
};

bool fork_reaches_all(const struct volume *v, char *why, size_t room)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = v->set->disks[i];
		enum volume_disk_state state = v->disks[i].state;
		bool is_left_out =
		    state == VOLUME_DISK_UNUSED || state == VOLUME_DISK_STALE || state == VOLUME_DISK_SYNCING;
		if (is_left_out || volume_disk_is_good(v, i))
			continue;
		text_print(why, room, "disk %s (%s), which holds part of it, cannot be used: %s", d->facts.name,
			   d->facts.path, d->why[0] ? d->why : "it could not be joined");
		return false;
	}
	return !v->is_fenced;
}

static void fork_end(struct fork *f)
{
	free(f->ios);
	f->ios = NULL;
	f->done(f, f->err); /* it may be gone */
}

static int fork_tell_missing(const struct fork *f, uint32_t disk)
{
	const struct volume *v = f->volume;
	log_event(v->set->log, LOG_ERROR, "tree-missing", v->entry->facts.name,
		  "disk %s lacks a tree of volume %s that the metadata store names: nothing was forked there",
		  v->set->disks[disk]->facts.name, v->entry->facts.name);
	return -EIO;
}

static void fork_answered(struct replica_io *rio, int res)
{
	struct fork_io *one = container_of(rio, struct fork_io, rio);
	struct fork *f = one->fork;
	struct volume_disk *vd = &f->volume->disks[one->disk];
	quarry_assert(f->owed > 0);
	if (res == 0)
		vd->flushed = max_u64(vd->flushed, one->written);
	if (res == 0)
		f->disks |= 1ull << one->disk;
	else if (f->err == 0)
		f->err = res == -ENOENT ? fork_tell_missing(f, one->disk) : res;
	if (--f->owed == 0)
		fork_end(f);
}

static void fork_turn(struct op *op, int res)
{
	struct fork *f = container_of(op, struct fork, op);
	quarry_assert(f->owed > 0);
	if (--f->owed == 0)
		fork_end(f);
}

static void fork_send(struct fork *f, uint32_t disk)
{
	struct volume *v = f->volume;
	struct fork_io *one = &f->ios[f->n_ios++];
	one->fork = f;
	one->disk = disk;
	one->written = v->disks[disk].written;
	one->rio.io.op = DISK_FORK;
	one->rio.io.volume = f->to_volume;
	one->rio.io.tree_id = f->to;
	one->rio.io.epoch = f->epoch;
	one->rio.tree = f->from;
	one->rio.done = fork_answered;
	f->owed++;
	replica_submit(&v->disks[disk].replica, &one->rio);
}

void fork_start(struct fork *f)
{
	struct volume *v = f->volume;
	char why[SET_WHY_BYTES];
	quarry_assert(f->done && f->from != f->to);
	f->err = fork_reaches_all(v, why, sizeof(why)) ? 0 : -EIO;
	f->n_ios = 0;
	f->disks = 0;
	resync_stop(v); /* its disk has not what is forked now */
	resync_want(v);
	move_stop(v); /* nor has what a segment takes along */
	f->ios = calloc(SET_DISKS_MAX, sizeof(*f->ios));
	if (!f->ios)
		f->err = -ENOMEM;
	op_init(&f->op, fork_turn);
	f->owed = 1;
	reactor_defer(v->set->reactor, &f->op, 0);
	for (uint32_t i = 0; i < SET_DISKS_MAX && f->err == 0; i++)
		if (v->disks[i].state == VOLUME_DISK_JOINED && !(f->left_out >> i & 1))
			fork_send(f, i);
}

bool fork_covers(const struct fork *f, struct volume_facts *facts)
{
	for (uint32_t i = 0; i < facts->n_disks; i++) {
		const struct set_disk *d = set_disk_by_uuid(f->volume->set, &facts->disks[i].uuid);
		if (!facts->disks[i].is_stale && (!d || !(f->disks >> d->index & 1)))
			return false;
	}
	return true;
}

void fork_abandon(struct fork *f)
{
	free(f->ios);
	f->ios = NULL;
}
