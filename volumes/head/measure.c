/*
 * measure.c: the command that tells what a volume or a snapshot takes of the disks, exactly.
 *
 *   CHECK -> MEASURE (all disks at once) -> END
 *
 * Each disk walks the tree as a drop would, and stops where others share: so a snapshot that nothing has changed since
 * costs one page, and one that shares nothing costs reading its maps. Other commands pass meanwhile; the trees measured
 * may then be dropped under it, which the disk answers with -ENOENT.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MEASURE_CHECK, MEASURE_END };

struct measure_work {
	struct command *command;
	uint32_t owed;
	int err;
	struct measure_io {
		struct disk_io io;
		struct measure_work *work;
	} ios[SET_DISKS_MAX];
};

void measure_work_free(struct measure_work *w)
{
	free(w);
}

static void measure_over(struct measure_work *w)
{
	struct command *c = w->command;
	if (w->err != 0)
		command_refuse(c, w->err == -ENOENT ? -ENOENT : -EIO, w->err == -ENOENT ? "not-found" : "failed",
			       "%s cannot be measured: %s", c->order->object,
			       w->err == -ENOENT ? "it was deleted meanwhile" : strerror(-w->err));
	command_step_back_in(c);
}

static void measure_answered(struct disk_io *io, int res)
{
	struct measure_work *w = container_of(io, struct measure_io, io)->work;
	struct set_measure *m = &w->command->order->measure;
	quarry_assert(w->owed > 0);
	if (res != 0 && w->err == 0)
		w->err = res;
	if (res == 0) {
		m->data_bytes += io->data_blocks * BLOCK_BYTES;
		m->unique_bytes += io->own_data_blocks * BLOCK_BYTES;
		m->frees_bytes += (io->own_data_blocks + io->own_pages) * BLOCK_BYTES;
	}
	if (--w->owed == 0)
		measure_over(w);
}

static void measure_send(struct measure_work *w, struct set_disk *d, uint64_t tree)
{
	struct disk_io *io = &w->ios[d->index].io;
	struct volume_facts *facts = &w->command->volume->facts;
	const struct uuid *uuid = &facts->uuid;
	const struct volume_disk_facts *known = volume_facts_disk(facts, &d->facts.uuid);
	if ((known && known->is_left) || !disk_tree_find(d->disk, uuid, tree))
		return; /* what it has left there counts no more */
	w->ios[d->index].work = w;
	*io = (struct disk_io){.op = DISK_MEASURE, .volume = *uuid, .tree_id = tree, .done = measure_answered};
	w->owed++;
	disk_submit(d->disk, io);
}

/* Sends to every disk that runs; true: something was sent. */
static bool measure_begin(struct command *c, uint64_t tree)
{
	struct measure_work *w = calloc(1, sizeof(*w));
	if (!w) {
		command_refuse(c, -ENOMEM, "no-memory", "there is no memory to measure it");
		return false;
	}
	w->command = c;
	c->measure = w;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		struct set_disk *d = c->set->disks[i];
		if (set_disk_runs_here(d))
			measure_send(w, d, tree);
	}
	return w->owed > 0;
}

static int measure_check(struct command *c)
{
	struct set_command *o = c->order;
	o->measure = (struct set_measure){0};
	if (strchr(o->object, '@')) {
		c->snapshot = snapshot_find_export(c->set, o->object);
		c->volume = c->snapshot ? c->snapshot->entry : NULL;
		return c->snapshot ? 0 : command_refuse_missing(c, "snapshot", o->object);
	}
	return command_find_volume(c);
}

static void measure_run(struct command *c)
{
	if (c->stage == MEASURE_CHECK) {
		c->stage = MEASURE_END;
		if (measure_check(c) == 0 &&
		    measure_begin(c, c->snapshot ? c->snapshot->facts.tree : c->volume->facts.live_tree)) {
			command_step_aside(c);
			return;
		}
	}
	command_end(c);
}

const struct command_kind command_measure = {.name = "measure", .run = measure_run};
