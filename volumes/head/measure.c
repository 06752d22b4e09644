/*
 * measure.c: the command that tells what a volume or a snapshot takes of the disks, exactly.
 *
 *   CHECK -> MEASURE (all disks at once) -> END
 *
 * Each disk walks the tree as a drop would, and stops where others share: so a snapshot that nothing has changed since
 * costs one page, and one that shares nothing costs reading its maps. Other commands pass meanwhile; the trees measured
 * may then be dropped under it.
 *
 * A disk of another node is asked piece by piece (MEASURE), so that no answer takes long.
 *
 * Invariants
 *  1. Every disk that the volume's record names is asked, but those that the volume has left or that were removed: what
 *     lies there is nobody's.
 *  2. One that cannot be asked leaves the figures unknown, and `missing` says which: they are never just too small.
 *
 * Owner: the set's reactor. The work is its command's.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MEASURE_CHECK, MEASURE_END };

/* Of one piece: it may wait for a slow disk at each of its pages. */
#define MEASURE_TIMEOUT_NS (60 * NS_PER_S)

struct measure_work {
	struct command *command;
	struct uuid volume;
	uint64_t tree;
	uint32_t owed;
	struct measure_disk {
		struct measure_work *work;
		struct uuid disk;
		struct disk_io io;     /* of this node, or */
		struct peer_call call; /* of another: */
		uint64_t next;         /* where its next piece begins; 0: there is none */
		uint64_t data_blocks, own_data_blocks, own_pages;
	} disks[SET_DISKS_MAX];
};

void measure_work_free(struct measure_work *w)
{
	free(w);
}

/* ---- the end ---- */

/* Does the record still name what was measured? Else disks that had dropped it by then were not counted. */
static bool measure_is_named(const struct measure_work *w, const struct set_volume *entry)
{
	if (entry->facts.live_tree == w->tree)
		return true;
	list_each (node, &entry->snapshots) {
		const struct snapshot_facts *f = &container_of(node, struct set_snapshot, link)->facts;
		if (f->tree == w->tree)
			return !f->is_deleting;
	}
	return false;
}

static void measure_over(struct measure_work *w)
{
	struct command *c = w->command;
	struct set_measure *m = &c->order->measure;
	const struct set_volume *entry = set_volume_by_uuid(c->set, &w->volume);
	bool is_gone = !entry || entry->facts.is_deleting || (c->snapshot && !measure_is_named(w, entry));
	if (is_gone)
		command_refuse(c, -ENOENT, "not-found", "%s cannot be measured: it was deleted meanwhile",
			       c->order->object);
	else if (!measure_is_named(w, entry))
		text_print(m->missing, sizeof(m->missing), "it was rolled back meanwhile: ask again");
	/* what is written and trimmed under the walk is counted where it was seen */
	m->unique_bytes = min_u64(m->unique_bytes, m->data_bytes);
	m->frees_bytes = max_u64(m->frees_bytes, m->unique_bytes);
	command_step_back_in(c);
}

/* The first is told. */
static void measure_miss(struct measure_work *w, const char *disk, const char *node, const char *why)
{
	struct set_measure *m = &w->command->order->measure;
	if (m->missing[0] == 0)
		text_print(m->missing, sizeof(m->missing), "disk %s of node %s cannot be asked: %s", disk, node, why);
}

static void measure_answered(struct measure_disk *at, int res)
{
	struct measure_work *w = at->work;
	struct set_measure *m = &w->command->order->measure;
	quarry_assert(w->owed > 0);
	if (res == 0) {
		m->data_bytes += at->data_blocks * BLOCK_BYTES;
		m->unique_bytes += at->own_data_blocks * BLOCK_BYTES;
		m->frees_bytes += (at->own_data_blocks + at->own_pages) * BLOCK_BYTES;
	} else if (res != -ENOENT) { /* where the tree is not, it takes nothing: a stale copy may lack a snapshot */
		const struct set_disk *d = set_disk_by_uuid(w->command->set, &at->disk);
		measure_miss(w, d ? d->facts.name : "?", d ? d->facts.node : "?", strerror(-res));
	}
	if (--w->owed == 0)
		measure_over(w);
}

/* ---- a disk of this node ---- */

static void measure_done_here(struct disk_io *io, int res)
{
	struct measure_disk *at = container_of(io, struct measure_disk, io);
	at->data_blocks = io->data_blocks;
	at->own_data_blocks = io->own_data_blocks;
	at->own_pages = io->own_pages;
	measure_answered(at, res);
}

static void measure_here(struct measure_disk *at, struct set_disk *d)
{
	struct measure_work *w = at->work;
	at->io =
	    (struct disk_io){.op = DISK_MEASURE, .volume = w->volume, .tree_id = w->tree, .done = measure_done_here};
	w->owed++;
	disk_submit(d->disk, &at->io);
}

/* ---- a disk of another node ---- */

static void measure_piece_fill(struct peer_call *call, struct peer_message *m)
{
	const struct measure_disk *at = container_of(call, struct measure_disk, call);
	m->tree_id = at->work->tree;
	m->first = at->next;
}

static int measure_piece_take(struct peer_call *call, const struct peer_in *in)
{
	struct measure_disk *at = container_of(call, struct measure_disk, call);
	const struct peer_message *m = &in->message;
	if (!m->is_last && m->first <= at->next)
		return -EIO; /* it does not get on */
	at->next = m->is_last ? 0 : m->first;
	at->data_blocks = m->data_blocks;
	at->own_data_blocks += m->own_data_blocks;
	at->own_pages += m->own_pages;
	/* no disk has more blocks, and the sum over all must not run over */
	uint64_t most = max_u64(at->data_blocks, max_u64(at->own_data_blocks, at->own_pages));
	return most > PEER_BLOCK_MAX / SET_DISKS_MAX ? -EIO : 0;
}

static void measure_piece_done(struct peer_call *call, int res);

/* 0, or it cannot be asked any more. */
static int measure_piece(struct measure_disk *at)
{
	const struct set_disk *d = set_disk_by_uuid(at->work->command->set, &at->disk);
	if (!set_disk_is_running(d) || !d->client)
		return -ENOTCONN;
	at->call = (struct peer_call){.type = PEER_MEASURE,
				      .flags = PEER_READER,
				      .volume = at->work->volume,
				      .disk = at->disk,
				      .timeout_ns = MEASURE_TIMEOUT_NS,
				      .fill = measure_piece_fill,
				      .take = measure_piece_take,
				      .done = measure_piece_done};
	peer_client_call(d->client, &at->call);
	return 0;
}

static void measure_piece_done(struct peer_call *call, int res)
{
	struct measure_disk *at = container_of(call, struct measure_disk, call);
	bool is_over = res != 0 || at->next == 0;
	if (!is_over && at->work->command->set->is_stopping)
		res = -ESHUTDOWN;
	else if (!is_over)
		res = measure_piece(at);
	if (is_over || res != 0)
		measure_answered(at, res);
}

static void measure_there(struct measure_disk *at, struct set_disk *d)
{
	struct measure_work *w = at->work;
	if (!set_disk_is_running(d))
		measure_miss(w, d->facts.name, d->facts.node, d->why);
	else if (!peer_client_has(d->client, PEER_MEASURES))
		measure_miss(w, d->facts.name, d->facts.node, "it runs an older release of quarry");
	else if (measure_piece(at) == 0)
		w->owed++;
}

/* ---- all of them ---- */

static void measure_send(struct measure_work *w, struct set_disk *d)
{
	struct measure_disk *at = &w->disks[d->index];
	const struct volume_disk_facts *known = volume_facts_disk(&w->command->volume->facts, &d->facts.uuid);
	at->work = w;
	at->disk = d->facts.uuid;
	if ((known && known->is_left) || d->facts.is_removed)
		return; /* what it has left there counts no more */
	if (set_disk_runs_here(d) && disk_tree_find(d->disk, &w->volume, w->tree))
		measure_here(at, d);
	else if (known && set_disk_is_ours(d) && !set_disk_runs_here(d))
		measure_miss(w, d->facts.name, d->facts.node, d->why[0] ? d->why : "it does not run");
	else if (known && !set_disk_is_ours(d))
		measure_there(at, d);
}

/* true: something was sent. */
static bool measure_begin(struct command *c, uint64_t tree)
{
	struct measure_work *w = calloc(1, sizeof(*w));
	const struct volume_facts *facts = &c->volume->facts;
	if (!w) {
		command_refuse(c, -ENOMEM, "no-memory", "there is no memory to measure it");
		return false;
	}
	w->command = c;
	w->volume = facts->uuid;
	w->tree = tree;
	c->measure = w;
	for (uint32_t i = 0; i < facts->n_disks; i++) {
		const struct volume_disk_facts *known = &facts->disks[i];
		if (!known->is_left && !set_disk_by_uuid(c->set, &known->uuid))
			measure_miss(w, "?", "?", "this node does not know it");
	}
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (c->set->disks[i])
			measure_send(w, c->set->disks[i]);
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
