/*
 * join.c: a volume begins to use a disk: the first words of a head to a disk of its volume.
 *
 *   FENCE -> CREATE -> COMPLETE -> END
 *
 *   FENCE     the volume's generation becomes durable there, lower ones are refused from now on [FENCEDUR]; a session
 *             begins
 *   CREATE    an empty tree, where the disk has none of this volume yet
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

static void join_answered(struct disk_io *io, int res)
{
	struct join *j = container_of(io, struct join, io);
	j->err = res;
	j->is_answered = true;
	join_run(j);
}

static const struct volume_facts *join_facts(const struct join *j)
{
	return &j->volume->entry->facts;
}

static struct disk *join_disk(const struct join *j)
{
	return j->volume->set->disks[j->disk]->disk;
}

/* Sends a request unless the disk has gone away meanwhile. */
static enum flow join_send(struct join *j, enum disk_op op)
{
	if (!set_disk_is_running(j->volume->set->disks[j->disk])) {
		j->err = -EIO;
		return FLOW_NEXT;
	}
	j->io.op = op;
	j->io.done = join_answered;
	j->io.volume = join_facts(j)->uuid;
	j->is_answered = false;
	disk_submit(join_disk(j), &j->io);
	return FLOW_WAIT;
}

static enum flow join_fence(struct join *j)
{
	j->io.generation = j->volume->generation;
	j->io.size_blocks = blocks_of(join_facts(j)->size_bytes);
	return join_send(j, DISK_FENCE);
}

static enum flow join_create(struct join *j)
{
	struct volume_disk *vd = &j->volume->disks[j->disk];
	j->remembered = j->io.complete_epoch;
	vd->session = j->io.new_session;
	vd->tree = disk_tree_find(join_disk(j), &join_facts(j)->uuid, join_facts(j)->live_tree);
	if (vd->tree)
		return FLOW_NEXT;
	j->io.tree_id = join_facts(j)->live_tree;
	j->io.parent_id = 0;
	j->io.epoch = j->volume->epoch;
	j->io.session = vd->session;
	return join_send(j, DISK_CREATE);
}

static enum flow join_complete(struct join *j)
{
	struct volume_disk *vd = &j->volume->disks[j->disk];
	if (!vd->tree)
		vd->tree = j->io.new_tree;
	quarry_assert(vd->tree);
	if (j->complete_epoch <= j->remembered)
		return FLOW_NEXT;
	j->io.epoch = j->complete_epoch;
	return join_send(j, DISK_COMPLETE);
}

static void join_end(struct join *j)
{
	struct volume *v = j->volume;
	const struct set_disk *d = v->set->disks[j->disk];
	bool is_recorded = volume_facts_disk(&v->entry->facts, &d->facts.uuid) != NULL;
	if (j->err == 0)
		v->disks[j->disk].state = VOLUME_DISK_JOINED;
	else
		v->disks[j->disk].state = is_recorded ? VOLUME_DISK_LOST : VOLUME_DISK_UNUSED;
	if (j->err != 0)
		log_event(v->set->log, LOG_ERROR, "disk-not-joined", v->entry->facts.name,
			  "volume %s cannot use disk %s (%s): %s%s", v->entry->facts.name, d->facts.name, d->facts.path,
			  strerror(-j->err),
			  j->err == -ESTALE
			      ? ": the disk has seen a newer generation of it; was the metadata restored from a "
				"backup?"
			      : "");
	j->done(j, j->err);
	free(j);
}

static void join_run(struct join *j)
{
	for (;;) {
		if (j->err != 0)
			j->stage = JOIN_END;
		switch (j->stage) {
		case JOIN_FENCE:
			j->stage = JOIN_CREATE;
			if (join_fence(j) == FLOW_WAIT)
				return;
			break;
		case JOIN_CREATE:
			j->stage = JOIN_COMPLETE;
			if (join_create(j) == FLOW_WAIT)
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
