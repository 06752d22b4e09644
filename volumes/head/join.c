/*
 * join.c: a volume begins to use a disk: the first words of a head to a disk of its volume.
 *
 *   NAME -> FENCE -> LIST -> CREATE -> DROP -> COMPLETE -> END
 *
 *   NAME      the record names a disk that is new to the volume, as one that is left. So whatever becomes of this, and of its
 *             head, what is there is known: it is used the next time, or goes with the volume, or when the disk is drained or
 *             removed (reaper.c, leave.c). Who started it records that it counts
 *   FENCE     the volume's generation becomes durable there, lower ones are refused from now on [FENCEDUR]; a session
 *             begins
 *   LIST      which trees are there
 *   CREATE    empty trees on a disk that is new to the volume: the live one, and one for every recorded snapshot, which all
 *             have nothing there. A disk that the record names has had its trees since before it was named: one that lacks the
 *             live one is refused with -ENODATA, unless who started it knows that the record is older than the disks
 *   DROP      trees of the volume that nobody names: deleted snapshots, and what interrupted attempts have left
 *   COMPLETE  the last complete epoch, on a disk that is new to the volume [PLACEL]
 *
 * Each is skipped where there is nothing to do; an error ends it. Owner: whoever started it, until done(); then it is
 * freed.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void join_run(struct join *j);

static void join_answered(struct replica_io *rio, int res)
{
	struct join *j = container_of(rio, struct join, rio);
	j->err = res;
	j->is_answered = true;
	join_run(j);
}

static const struct volume_facts *join_facts(const struct join *j)
{
	return &j->volume->entry->facts;
}

static const struct set_disk *join_disk(const struct join *j)
{
	return j->volume->set->disks[j->disk];
}

/* ---- NAME ---- */

/* It is, or an earlier attempt has named it, and told it of this generation. */
static bool join_is_named(const struct join *j, struct volume_facts *facts)
{
	const struct volume_disk_facts *known = volume_facts_disk(facts, &join_disk(j)->facts.uuid);
	return known && (!known->is_new || known->generation == j->volume->generation);
}

static int join_change_name(struct record_update *u, struct volume_facts *facts)
{
	const struct join *j = container_of(u, struct join, update);
	const struct uuid *uuid = &join_disk(j)->facts.uuid;
	if (join_is_named(j, facts))
		return 0;
	if (!volume_facts_name_disk(facts, uuid, j->volume->generation))
		return -ENOSPC;
	struct volume_disk_facts *known = volume_facts_disk(facts, uuid);
	known->is_left = known->is_stale = known->is_new = true;
	return 0;
}

static void join_extend_name(struct record_update *u, struct transaction *t)
{
	const struct set_disk *d = join_disk(container_of(u, struct join, update));
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&d->facts.uuid, uuid);
	transaction_condition(t, placement_revision(d), DISK_KEY, uuid);
}

static void join_named(struct record_update *u, int res)
{
	struct join *j = container_of(u, struct join, update);
	if (res == -ESTALE || res == -ENOENT)
		volume_fence(j->volume, "another head has attached it");
	j->err = res;
	join_run(j);
}

static enum flow join_name(struct join *j)
{
	if (join_is_named(j, &j->volume->entry->facts))
		return FLOW_NEXT;
	j->update = (struct record_update){.generation = j->volume->generation,
					   .head = j->volume,
					   .change = join_change_name,
					   .extend = join_extend_name,
					   .done = join_named};
	record_update_start(&j->update, j->volume->entry);
	return FLOW_WAIT;
}

/* ---- what the disk is asked ---- */

/* Sends a request unless the disk has gone away meanwhile. */
static enum flow join_send(struct join *j, enum disk_op op)
{
	if (!set_disk_is_running(j->volume->set->disks[j->disk])) {
		j->err = -EIO;
		return FLOW_NEXT;
	}
	struct replica *replica = &j->volume->disks[j->disk].replica;
	if (op == DISK_FENCE)
		replica = volume_disk_replica(j->volume, j->disk);
	j->rio.io.op = op;
	j->rio.done = join_answered;
	j->is_answered = false;
	replica_submit(replica, &j->rio);
	return FLOW_WAIT;
}

static enum flow join_fence(struct join *j)
{
	j->volume->disks[j->disk].is_older = false;
	j->rio.io.generation = j->volume->generation;
	j->rio.io.size_blocks = blocks_of(join_facts(j)->size_bytes);
	return join_send(j, DISK_FENCE);
}

static void join_batched(void *context, int res)
{
	struct join *j = context;
	j->batch = NULL;
	j->err = res;
	join_run(j);
}

/* Has the disk gone away meanwhile? */
static bool join_is_stranded(struct join *j)
{
	if (!set_disk_is_running(j->volume->set->disks[j->disk]))
		j->err = -EIO;
	return j->err != 0;
}

static enum flow join_batch(struct join *j, struct tree_batch *batch)
{
	if (!batch) {
		j->err = -ENOMEM;
		return FLOW_NEXT;
	}
	j->batch = batch;
	tree_batch_start(batch, join_batched, j);
	return FLOW_WAIT;
}

static bool join_is_recorded(const struct join *j)
{
	return volume_facts_use_disk(join_facts(j), &join_disk(j)->facts.uuid);
}

static void join_listed(struct replica_trees *t, int res)
{
	struct join *j = container_of(t, struct join, trees);
	j->err = res;
	join_run(j);
}

static enum flow join_list(struct join *j)
{
	j->remembered = j->rio.io.complete_epoch;
	j->generation_was = j->rio.io.generation_was;
	if (join_is_stranded(j))
		return FLOW_NEXT;
	j->trees.done = join_listed;
	replica_trees_ask(&j->volume->disks[j->disk].replica, &j->trees);
	return FLOW_WAIT;
}

static enum flow join_create(struct join *j)
{
	if (join_is_stranded(j))
		return FLOW_NEXT;
	if (join_is_recorded(j) && replica_trees_have(&j->trees, join_facts(j)->live_tree))
		return FLOW_NEXT;
	if (join_is_recorded(j) && !j->may_make_live) {
		j->err = -ENODATA;
		return FLOW_NEXT;
	}
	return join_batch(j, tree_batch_missing(j->volume, j->disk));
}

static enum flow join_drop(struct join *j)
{
	return join_is_stranded(j) ? FLOW_NEXT : join_batch(j, tree_batch_orphans(j->volume, j->disk));
}

static enum flow join_complete(struct join *j)
{
	if (join_is_stranded(j))
		return FLOW_NEXT;
	if (j->complete_epoch <= j->remembered)
		return FLOW_NEXT;
	j->rio.io.epoch = j->complete_epoch;
	return join_send(j, DISK_COMPLETE);
}

static const char *join_hint(const struct join *j)
{
	if (j->err == -ESTALE)
		return ": the disk has seen a newer generation of it; was the metadata restored from a backup?";
	return "";
}

static void join_end(struct join *j)
{
	struct volume *v = j->volume;
	const struct set_disk *d = v->set->disks[j->disk];
	bool is_recorded = join_is_recorded(j);
	if (j->err == 0 && (!set_disk_is_running(d) || v->disks[j->disk].replica.state != REPLICA_OPEN))
		j->err = -EIO;   /* it failed, or is being removed, while the last answer was on its way */
	if (j->err == -ENOTCONN) /* the same, to people */
		j->err = -EIO;
	if (j->err == 0)
		v->disks[j->disk].state = VOLUME_DISK_JOINED;
	else
		v->disks[j->disk].state = is_recorded ? VOLUME_DISK_LOST : VOLUME_DISK_UNUSED;
	if (j->err != 0) /* the next attempt begins with a session of its own */
		replica_lose(&v->disks[j->disk].replica, j->err);
	bool is_put_off = j->err == -EAGAIN;
	if (j->err != 0 && j->err != -ENODATA && !is_put_off) /* the second is the attach's to judge */
		log_event(v->set->log, LOG_ERROR, "disk-not-joined", v->entry->facts.name,
			  "volume %s cannot use disk %s (%s): %s%s", v->entry->facts.name, d->facts.name, d->facts.path,
			  strerror(-j->err), join_hint(j));
	j->done(j, j->err);
	replica_trees_clear(&j->trees);
	free(j);
}

static void join_run(struct join *j)
{
	for (;;) {
		if (j->err != 0)
			j->stage = JOIN_END;
		switch (j->stage) {
		case JOIN_NAME:
			j->stage = JOIN_FENCE;
			if (join_name(j) == FLOW_WAIT)
				return;
			break;
		case JOIN_FENCE:
			j->stage = JOIN_LIST;
			if (join_fence(j) == FLOW_WAIT)
				return;
			break;
		case JOIN_LIST:
			j->stage = JOIN_CREATE;
			if (join_list(j) == FLOW_WAIT)
				return;
			break;
		case JOIN_CREATE:
			j->stage = JOIN_DROP;
			if (join_create(j) == FLOW_WAIT)
				return;
			break;
		case JOIN_DROP:
			j->stage = JOIN_COMPLETE;
			if (join_drop(j) == FLOW_WAIT)
				return;
			break;
		case JOIN_COMPLETE:
			j->stage = JOIN_END;
			if (join_complete(j) == FLOW_WAIT)
				return;
			break;
		case JOIN_END:
			join_end(j);
			return;
		}
	}
}

int join_start(struct volume *v, uint32_t disk, uint64_t complete_epoch, void (*done)(struct join *j, int res),
	       void *context, struct join **out)
{
	struct join *j = calloc(1, sizeof(*j));
	quarry_assert(v->disks[disk].state != VOLUME_DISK_JOINED);
	quarry_assert(set_disk_is_running(v->set->disks[disk]));
	if (!j)
		return -ENOMEM;
	*j = (struct join){
	    .volume = v, .disk = disk, .complete_epoch = complete_epoch, .done = done, .context = context};
	*out = j;
	join_run(j);
	return 0;
}

void join_abandon(struct join *j)
{
	if (!j)
		return;
	record_update_abandon(&j->update);
	tree_batch_abandon(j->batch);
	replica_trees_clear(&j->trees);
	free(j);
}
