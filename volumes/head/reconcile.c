/*
 * reconcile.c: when a volume with several copies is attached, its disks may differ in what was on its way when the last
 * head stopped: each has some of the writes after L, the last complete epoch. Before anything is served they become equal.
 *
 *   SURVEY -> FORK -> COPY -> SWAP -> DROP -> END
 *     | ^        +------+---on error----^ | ^
 *     | +---------from another source-----+ |
 *     +---------nobody wrote after L--------+         as after every clean end
 *
 *   SURVEY   asks every joined disk whether it wrote anything after L
 *   FORK     each disk forks its live tree: what it is about to take over lands in the fork
 *   COPY     segment by segment: from one source to each other disk that is joined, all that either wrote after L [UNION]
 *   SWAP     each disk exchanges the two trees: it has taken over everything, or nothing, wherever a crash comes [COPYATOM]
 *   DROP     of what the live tree was, or of what the forks have become; after a crash whoever joins the disk next drops
 *            what nobody names
 *
 * Invariants
 *  1. The source of a segment is a disk that did not lose power, if there is one [INTACT], and before that one of which no
 *     older copy was accepted. It is read from its live tree, which stays as it is until the SWAP.
 *  2. Whatever fails, nothing but the forks has changed, or all of a disk: it may begin again from the same L.
 *  3. A source that cannot be read is none: another disk of the segment is, from the start again; but none that lost power in
 *     place of one that did not, since it may lack completed writes. Where each has something that it cannot read, those
 *     blocks alone stay as each has them: they are nobody's loss but their readers' (P3), and no reason not to serve the
 *     rest. A disk that lost power keeps none of its own in such a place: then the volume is not served.
 *
 * Owner: the attach.
 */
#include "volumes/head/head_internal.h"

#include "replication/copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define RECONCILE_STAGES(X) X(SURVEY) X(FORK) X(COPY) X(SWAP) X(DROP) X(END)
#define X(name)             RECONCILE_##name,
enum reconcile_stage { RECONCILE_STAGES(X) };
#undef X

struct reconcile_io {
	struct replica_io rio;
	struct reconcile *reconcile;
	struct disk_extent extent;
	uint32_t disk;
};

struct reconcile {
	enum reconcile_stage stage;
	int err;
	struct volume *volume;
	uint64_t since;
	uint64_t disks;   /* bit per disk: that take part */
	uint64_t unread;  /* of these, those that could not be read as a source */
	bool has_changes; /* somebody wrote something since */
	bool is_again;    /* a source could not be read: from the start, with another one */
	uint64_t fork;    /* id of the forks' tree */
	uint32_t owed;
	struct reconcile_io *ios; /* SET_DISKS_MAX */
	struct placement_walk walk;
	uint32_t segment; /* of the walk's chunk, that is being copied */
	uint64_t targets; /* of it, those that are still to be */
	uint32_t source, target;
	struct copy *copy; /* under way */
	struct op op;
	void (*done)(void *context, int res);
	void *context;
};

static void reconcile_begin(struct reconcile *r);
static void reconcile_run(struct reconcile *r);

/* ---- asking all disks at once ---- */

static void reconcile_answered(struct replica_io *rio, int res)
{
	struct reconcile_io *one = container_of(rio, struct reconcile_io, rio);
	struct reconcile *r = one->reconcile;
	quarry_assert(r->owed > 0);
	r->owed--;
	if (r->stage == RECONCILE_SURVEY && res == 0)
		r->has_changes |= rio->io.n_extents > 0;
	if (res != 0 && r->stage != RECONCILE_DROP) { /* what is not dropped now is dropped by the next join */
		volume_disk_lose(r->volume, one->disk, res);
		r->err = -EAGAIN;
	}
	if (r->owed == 0)
		reconcile_run(r);
}

static void reconcile_ask(struct reconcile *r, enum disk_op op)
{
	struct volume *v = r->volume;
	r->owed = 1; /* this loop's own */
	for (uint64_t left = r->disks; left != 0; left &= left - 1) {
		uint32_t disk = (uint32_t)__builtin_ctzll(left);
		struct reconcile_io *one = &r->ios[disk];
		struct disk_io *io = &one->rio.io;
		one->reconcile = r;
		one->disk = disk;
		one->rio.done = reconcile_answered;
		one->rio.tree = op == DISK_DROP ? r->fork : volume_tree(v);
		io->op = op;
		io->first = 0;
		io->n_blocks = v->n_chunks * (uint64_t)PLACEMENT_CHUNK * SEGMENT_BLOCKS;
		io->since = r->since;
		io->extents = &one->extent;
		io->extents_max = 1;
		io->volume = v->entry->facts.uuid;
		io->tree_id = r->fork;
		io->epoch = v->epoch - 1; /* no earlier head has used a later one [EPRANGE] */
		r->owed++;
		replica_submit(&v->disks[disk].replica, &one->rio);
	}
	r->owed--;
}

/* ---- COPY ---- */

/* The one that is being copied. */
static uint64_t reconcile_segment(const struct reconcile *r)
{
	return (uint64_t)(r->walk.number - 1) * PLACEMENT_CHUNK + r->segment;
}

/* Those of which no older copy was accepted (attach_older.c), if there are any. */
static uint64_t reconcile_newest(const struct reconcile *r, uint64_t disks)
{
	struct set_volume *entry = r->volume->entry;
	uint64_t newest = 0;
	for (uint64_t left = disks; left != 0; left &= left - 1) {
		const struct set_disk *d = r->volume->set->disks[__builtin_ctzll(left)];
		const struct volume_disk_facts *known = volume_facts_disk(&entry->facts, &d->facts.uuid);
		if (!known || !known->is_older)
			newest |= left & -left;
	}
	return newest ? newest : disks;
}

static bool disk_is_intact(const struct reconcile *r, uint32_t disk)
{
	return !r->volume->disks[disk].replica.is_suspect;
}

/* One that is intact, if there is one; of these, one that can be read. */
static uint32_t reconcile_source(const struct reconcile *r, uint64_t disks)
{
	uint64_t newest = reconcile_newest(r, disks), intact = 0;
	for (uint64_t left = newest; left != 0; left &= left - 1)
		if (disk_is_intact(r, (uint32_t)__builtin_ctzll(left)))
			intact |= left & -left;
	uint64_t sources = intact ? intact : newest, readable = sources & ~r->unread;
	return (uint32_t)__builtin_ctzll(readable ? readable : sources);
}

/* Not only data: where they are cannot be read either. */
static void reconcile_explain_unread(struct reconcile *r)
{
	struct set_volume *entry = r->volume->entry;
	const struct set_disk *d = r->volume->set->disks[r->source];
	text_print(entry->why, sizeof(entry->why),
		   "what was written last to its segment %" PRIu64 " can be found on none of its disks: remove disk %s "
		   "(%s) with --force, and the volume goes on with its other copies",
		   reconcile_segment(r), d->facts.name, d->facts.path);
	r->err = -EIO;
}

static void reconcile_tell_skipped(const struct reconcile *r, const struct copy_progress *p)
{
	const char *name = r->volume->entry->facts.name;
	log_event(r->volume->set->log, LOG_ERROR, "blocks-not-agreed", name,
		  "%" PRIu64 " blocks of volume %s from block %" PRIu64
		  " on were being written at a crash, and disk %s "
		  "cannot read them: disk %s keeps what it has there; writing them mends them",
		  p->skipped_blocks, name, p->skipped_first, r->volume->set->disks[r->source]->facts.name,
		  r->volume->set->disks[r->target]->facts.name);
}

static bool reconcile_source_is_unread(const struct reconcile *r)
{
	return r->unread >> r->source & 1;
}

/* May the target keep what it has where the source cannot be read? */
static bool reconcile_may_skip(const struct reconcile *r)
{
	bool may_lack_writes = disk_is_intact(r, r->source) && !disk_is_intact(r, r->target);
	return reconcile_source_is_unread(r) && !may_lack_writes;
}

static void reconcile_copied(int res, const struct copy_progress *p, void *context)
{
	struct reconcile *r = context;
	r->copy = NULL;
	r->err = res;
	if (p->skipped_blocks > 0)
		reconcile_tell_skipped(r, p);
	bool is_unread = res == -EIO && p->failed == COPY_SOURCE && volume_disk_is_good(r->volume, r->source);
	if (is_unread && reconcile_source_is_unread(r)) {
		reconcile_explain_unread(r);
		return reconcile_run(r);
	}
	if (is_unread) {
		r->unread |= 1ull << r->source;
		r->is_again = true;
		r->err = 0;
	}
	if (r->err != 0 && p->failed != COPY_NEITHER) {
		volume_disk_lose(r->volume, p->failed == COPY_SOURCE ? r->source : r->target, res);
		r->err = -EAGAIN;
	}
	reconcile_run(r);
}

static int reconcile_copy(struct reconcile *r)
{
	struct volume *v = r->volume;
	struct copy_options o = {.reactor = v->set->reactor,
				 .source = &v->disks[r->source].replica,
				 .target = &v->disks[r->target].replica,
				 .source_tree = volume_tree(v),
				 .target_tree = r->fork,
				 .first = reconcile_segment(r) * SEGMENT_BLOCKS,
				 .n_blocks = SEGMENT_BLOCKS,
				 .since = r->since,
				 .before = COPY_ALL,
				 .skips_unread = reconcile_may_skip(r),
				 .done = reconcile_copied,
				 .context = r};
	return copy_start(&o, &r->copy);
}

/* The next copy of the segments in hand; FLOW_NEXT: there is none left, or an error. */
static enum flow reconcile_next_copy(struct reconcile *r)
{
	for (; r->segment < PLACEMENT_CHUNK && r->err == 0; r->segment++) {
		uint64_t disks = r->walk.disks[r->segment] & r->disks;
		if (r->targets == 0 && (disks & (disks - 1)) != 0) { /* it is entered here */
			r->source = reconcile_source(r, disks);
			r->targets = disks & ~(1ull << r->source);
		}
		if (r->targets == 0)
			continue;
		r->target = (uint32_t)__builtin_ctzll(r->targets);
		r->err = reconcile_copy(r);
		if (r->err == 0)
			return FLOW_WAIT;
	}
	return FLOW_NEXT;
}

static void reconcile_walked(struct placement_walk *w, int res)
{
	struct reconcile *r = w->context;
	r->segment = 0;
	r->targets = 0;
	r->err = res;
	reconcile_run(r);
}

/* After a copy, or a chunk: the next. */
static enum flow reconcile_go_on(struct reconcile *r)
{
	if (r->err == 0 && r->targets != 0) {
		r->targets &= r->targets - 1;
		r->segment += r->targets == 0;
	}
	if (r->walk.number > 0 && reconcile_next_copy(r) == FLOW_WAIT)
		return FLOW_WAIT;
	return r->err == 0 && placement_walk_next(&r->walk) ? FLOW_WAIT : FLOW_NEXT;
}

/* ---- beginning, and beginning again ---- */

static void reconcile_begin(struct reconcile *r)
{
	struct volume *v = r->volume;
	r->stage = RECONCILE_SURVEY;
	r->err = 0;
	r->disks = volume_joined(v);
	r->has_changes = r->is_again = false;
	r->walk = (struct placement_walk){.volume = v, .next = reconcile_walked, .context = r};
	r->segment = 0;
	r->targets = 0;
	reconcile_ask(r, DISK_MAP);
	if (r->owed == 0)
		reconcile_run(r);
}

/* A tree id that nobody has used [TREEID]. */
static bool reconcile_take_id(struct reconcile *r)
{
	struct volume *v = r->volume;
	if (v->next_tree < v->tree_end) {
		r->fork = v->next_tree++;
		return true;
	}
	text_print(v->entry->why, sizeof(v->entry->why), "its disks fail while they are made equal");
	r->err = -EIO;
	return false;
}

static void reconcile_end(struct reconcile *r)
{
	void (*done)(void *context, int res) = r->done;
	void *context = r->context;
	int err = r->err;
	free(r->ios);
	free(r);
	done(context, err);
}

/* ---- the dispatcher ---- */

static void reconcile_run(struct reconcile *r)
{
	for (;;) {
		switch (r->stage) {
		case RECONCILE_SURVEY:
			if (r->owed > 0)
				return;
			r->stage = RECONCILE_END;
			if (r->err != 0 || !r->has_changes || (r->disks & (r->disks - 1)) == 0 || !reconcile_take_id(r))
				break;
			r->stage = RECONCILE_FORK;
			reconcile_ask(r, DISK_FORK);
			return;
		case RECONCILE_FORK:
			r->stage = r->err ? RECONCILE_SWAP : RECONCILE_COPY;
			break;
		case RECONCILE_COPY:
			if (!r->is_again && reconcile_go_on(r) == FLOW_WAIT)
				return;
			r->stage = RECONCILE_SWAP;
			if (r->err != 0 || r->is_again)
				break;
			reconcile_ask(r, DISK_SWAP);
			return;
		case RECONCILE_SWAP: /* done, or not begun: the forks' tree is nobody's any more */
			r->stage = RECONCILE_DROP;
			reconcile_ask(r, DISK_DROP);
			return;
		case RECONCILE_DROP:
			if (r->is_again)
				return reconcile_begin(r);
			r->stage = RECONCILE_END;
			break;
		case RECONCILE_END:
			reconcile_end(r);
			return;
		}
	}
}

static void reconcile_turn(struct op *op, int res)
{
	reconcile_begin(container_of(op, struct reconcile, op));
}

int reconcile_start(struct volume *v, uint64_t since, void (*done)(void *context, int res), void *context,
		    struct reconcile **out)
{
	struct reconcile *r = calloc(1, sizeof(*r));
	if (r)
		r->ios = calloc(SET_DISKS_MAX, sizeof(*r->ios));
	if (!r || !r->ios) {
		free(r);
		return -ENOMEM;
	}
	r->volume = v;
	r->since = since;
	r->done = done;
	r->context = context;
	op_init(&r->op, reconcile_turn);
	*out = r;
	reactor_defer(v->set->reactor, &r->op, 0);
	return 0;
}

void reconcile_abandon(struct reconcile *r)
{
	if (!r)
		return;
	placement_walk_abandon(&r->walk);
	if (r->copy)
		copy_forget(r->copy);
	free(r->ios);
	free(r);
}
