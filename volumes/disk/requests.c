/*
 * requests.c: every request to a disk, from submission to done().
 *
 *   READ HEAL           ADMIT -> LOOK -> READ -> REPLY             (HEAL writes there)
 *   WRITE COPY          ADMIT -> CHANGE -> GATHER -> DRAIN -> REPLY
 *   TRIM COPY_HOLES CUT         ADMIT -> STEP (and back, leaf by leaf) -> GATHER -> DRAIN -> REPLY
 *   MAP MEASURE STAMPS          ADMIT -> SCAN -> REPLY
 *   FLUSH               ADMIT -> FLUSH -> REPLY
 *   CREATE DROP FENCE COMPLETE FORGET SWAP     ADMIT -> CHANGE -> GATHER -> FLUSH -> REPLY
 *   FORK                ADMIT -> QUIET -> CHANGE (and back, see 5) -> GATHER -> FLUSH -> REPLY
 *
 * Invariants
 *  1. CHANGE happens in one turn: path prepared, blocks taken, record appended, state changed, data handed to the
 *     writer. So the order of records is the order of changes, and replay repeats it.
 *  2. `owed` counts what the device may still touch; a request is answered only at 0, however it failed.
 *  3. Changes are admitted in order of arrival; one that must wait for room holds up those behind it, never a read.
 *  4. A request waits in one place at a time: by own.link in the admission list or at its journal block, by own.waiter
 *     for pages, counts, room or a flush.
 *  5. A fork happens in a turn in which nothing is in flight on its tree [FORKWAIT]: what was admitted while it waited in
 *     CHANGE is waited for, too.
 *
 * Owner: the disk's reactor, from disk_submit() to done().
 */
#include "volumes/disk/disk_internal.h"
#include "volumes/disk/requests_internal.h"

#include "daemon/core/checksum.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Each with what a request waits for there. */
#define DISK_IO_STAGES(X)                                                                                              \
	X(DONE, "nothing")                                                                                             \
	X(ADMIT, "room for changes, which a checkpoint makes")                                                         \
	X(QUIET, "the changes in flight on its tree")                                                                  \
	X(LOOK, "pages of its tree, or a free read")                                                                   \
	X(READ, "the device, to read or heal")                                                                         \
	X(SCAN, "pages of its tree")                                                                                   \
	X(STEP, "pages, counts or room in the journal")                                                                \
	X(CHANGE, "pages, counts, blocks or room in the journal")                                                      \
	X(GATHER, "its data and the journal up to its record")                                                         \
	X(DRAIN, "the device, to be done with its memory")                                                             \
	X(FLUSH, "the device's flush")                                                                                 \
	X(REPLY, "its turn")
enum disk_io_stage {
#define STAGE_NAME(name, waits_for) IO_##name,
	DISK_IO_STAGES(STAGE_NAME)
#undef STAGE_NAME
};
static const struct {
	const char *name, *waits_for;
} stage_texts[] = {
#define STAGE_TEXT(name, waits_for) {#name, waits_for},
    DISK_IO_STAGES(STAGE_TEXT)
#undef STAGE_TEXT
};

_Static_assert(BATCH_IOV_MAX >= DISK_IO_IOV_MAX, "a run's memory fits a batch of the writer");

#define STEPS_A_TURN 16u /* leaves trimmed or pieces mapped before others get their turn */

static void disk_io_run(struct disk_io *io);

static void io_goto(struct disk_io *io, enum disk_io_stage stage)
{
	io->own.stage = stage;
}

static bool is_change(enum disk_op op)
{
	return op != DISK_READ && op != DISK_HEAL && op != DISK_MAP && op != DISK_MEASURE && op != DISK_STAMPS &&
	       op != DISK_FLUSH;
}

/* Of one tree's blocks. */
static bool is_change_of_data(enum disk_op op)
{
	return op == DISK_WRITE || op == DISK_TRIM || op == DISK_COPY || op == DISK_COPY_HOLES;
}

static bool is_look(enum disk_op op)
{
	return op == DISK_READ || op == DISK_HEAL || op == DISK_MAP || op == DISK_STAMPS;
}

/* New data, in blocks of their own. */
static bool is_write(enum disk_op op)
{
	return op == DISK_WRITE || op == DISK_COPY;
}

static bool is_stepped(enum disk_op op)
{
	return op == DISK_TRIM || op == DISK_COPY_HOLES || op == DISK_CUT;
}

/* ---- doors ---- */

static void io_woken(struct waiter *w, int res)
{
	struct disk_io *io = container_of(w, struct disk_io, own.waiter);
	if (res < 0)
		io->own.err = res;
	if (io->own.stage == IO_FLUSH)
		io->own.is_flushed = true;
	disk_io_run(io);
}

static void io_again(struct op *op, int res)
{
	struct disk_io *io = container_of(op, struct disk_io, own.op);
	(void)res;
	disk_io_run(io);
}

void disk_io_wake(struct disk_io *io)
{
	disk_io_run(io);
}

void disk_requests_init(struct disk *d)
{
	list_init(&d->admission);
	list_init(&d->free_runs);
	list_init(&d->run_waiters);
	for (unsigned i = 0; i < RUNS_MAX; i++) {
		d->runs[i].io = NULL;
		list_append(&d->free_runs, &d->runs[i].link);
	}
	d->n_free_runs = RUNS_MAX;
}

void disk_submit(struct disk *d, struct disk_io *io)
{
	quarry_assert(io->done);
	memset(&io->own, 0, offsetof(struct disk_io, own.pointers) - offsetof(struct disk_io, own));
	io->own.disk = d;
	io->own.started_ns = reactor_now_ns(d->reactor);
	io->own.waiter.wake = io_woken;
	list_init(&io->own.waiter.link);
	list_init(&io->own.link);
	op_init(&io->own.op, io_again);
	io->own.cursor = io->first;
	io->n_extents = io->n_stamps = 0;
	io->data_blocks = io->own_data_blocks = io->own_pages = io->next = 0;
	io->bad_blocks = 0;
	d->n_requests++;
	io_goto(io, IO_ADMIT);
	io->own.is_submitting = true;
	disk_io_run(io);
	io->own.is_submitting = false;
}

/* ---- admission ---- */

/* Volume record of a tree, as of now. */
static const struct disk_volume *volume_of(struct disk *d, struct disk_tree *t)
{
	if (t->volume_slot < 0 || !d->volumes[t->volume_slot].is_used ||
	    !uuid_equal(&d->volumes[t->volume_slot].record.volume, &t->record.volume)) {
		const struct disk_volume *v = disk_volume_find(d, &t->record.volume);
		if (!v)
			return NULL;
		t->volume_slot = (int32_t)(v - d->volumes);
	}
	return &d->volumes[t->volume_slot];
}

static int check_tree(struct disk *d, const struct disk_io *io)
{
	struct disk_tree *t = io->tree;
	if (!t || t->disk != d || t->record.state != TREE_LIVE)
		return -ENOENT;
	if (is_look(io->op))
		return 0;
	const struct disk_volume *v = volume_of(d, t);
	if (!v || io->session != v->record.session)
		return -ESTALE;
	if ((io->op == DISK_WRITE || io->op == DISK_TRIM) && io->epoch <= t->record.fork_epoch)
		return -EINVAL;
	return 0;
}

/* A cut is of the volume's trees, whichever there are. */
static int check_cut(struct disk *d, const struct disk_io *io)
{
	const struct disk_volume *v = disk_volume_find(d, &io->volume);
	return v && io->session == v->record.session ? 0 : -ESTALE;
}

/* Of what works in a session, at admission and in the turn of each change. */
static int check_session(struct disk *d, const struct disk_io *io)
{
	bool has_tree = is_change_of_data(io->op) || io->op == DISK_FORK || io->op == DISK_DROP || io->op == DISK_SWAP;
	if (io->op == DISK_CUT)
		return check_cut(d, io);
	return has_tree ? check_tree(d, io) : 0;
}

static int check_epochs(const struct disk_io *io)
{
	for (uint32_t i = 0; i < io->n_blocks; i++)
		if (io->epochs[i] > EPOCH_MAX)
			return -EINVAL;
	return 0;
}

static int check_range(const struct disk_io *io)
{
	uint64_t span = tree_span(TREE_HEIGHT_MAX);
	if (io->n_blocks == 0 || io->first >= span || io->n_blocks > span - io->first)
		return -EINVAL;
	bool has_data = io->op == DISK_READ || io->op == DISK_HEAL || is_write(io->op);
	uint64_t n_max = is_write(io->op) ? DISK_WRITE_BLOCKS_MAX : DISK_IO_BLOCKS_MAX;
	if (has_data && (io->n_blocks > n_max || io->n_iov == 0 || io->n_iov > DISK_IO_IOV_MAX))
		return -EINVAL;
	if (io->op == DISK_COPY_HOLES && io->n_blocks > DISK_HOLES_BLOCKS_MAX)
		return -EINVAL;
	return io->op == DISK_COPY ? check_epochs(io) : 0;
}

static int io_check(struct disk *d, const struct disk_io *io)
{
	if (d->state == DISK_CLOSING || d->state == DISK_CLOSED)
		return -ESHUTDOWN;
	if (d->state != DISK_RUNNING)
		return -EIO;
	if ((is_change(io->op) || io->op == DISK_HEAL) && d->options.is_read_only)
		return -EROFS;
	switch (io->op) {
	case DISK_READ:
	case DISK_HEAL:
	case DISK_MAP:
	case DISK_STAMPS:
		return check_range(io) < 0 ? -EINVAL : check_tree(d, io);
	case DISK_WRITE:
	case DISK_TRIM:
	case DISK_COPY:
	case DISK_COPY_HOLES:
	case DISK_CUT:
		return check_range(io) < 0 || io->epoch > EPOCH_MAX ? -EINVAL : check_session(d, io);
	case DISK_FORK:
	case DISK_DROP:
	case DISK_SWAP:
		return io->epoch > EPOCH_MAX ? -EINVAL : check_session(d, io);
	case DISK_MEASURE:
	case DISK_FLUSH:
	case DISK_CREATE:
	case DISK_FENCE:
	case DISK_COMPLETE:
	case DISK_FORGET:
		return io->epoch > EPOCH_MAX ? -EINVAL : 0;
	}
	return -EINVAL;
}

bool disk_has_change_room(const struct disk *d)
{
	return disk_n_dirty(d) < d->pages.dirty_max && space_has_delta_room(&d->space, CHANGE_DELTAS_MAX);
}

/* How many blocks it takes for data. */
static uint64_t io_data_blocks(const struct disk_io *io)
{
	return is_write(io->op) ? io->n_blocks - (uint64_t)__builtin_popcountll(io->zero_blocks) : 0;
}

/* Does it take blocks for good beside data: a new record, new pages, or copies of those that snapshots share? What
 * cannot, works on the fullest disk (P7). */
static bool io_grows(struct disk *d, const struct disk_io *io)
{
	switch (io->op) {
	case DISK_TRIM:
	case DISK_CUT:
		return io->own.is_growing;
	case DISK_WRITE: /* of zeros */
	case DISK_COPY:
	case DISK_COPY_HOLES:
		return true;
	case DISK_CREATE:
	case DISK_FORK:
		return !disk_tree_find(d, &io->volume, io->tree_id);
	case DISK_FENCE:
		return !disk_volume_find(d, &io->volume);
	case DISK_READ:
	case DISK_HEAL:
	case DISK_MAP:
	case DISK_MEASURE:
	case DISK_STAMPS:
	case DISK_FLUSH:
	case DISK_DROP:
	case DISK_COMPLETE:
	case DISK_FORGET:
	case DISK_SWAP:
		break;
	}
	return false;
}

static bool io_has_blocks(struct disk *d, const struct disk_io *io)
{
	uint64_t n = io_data_blocks(io);
	if (n > 0)
		return space_has_room(&d->space, n);
	return !io_grows(d, io) || space_has_room_to_grow(&d->space, disk_n_dirty(d));
}

/* Changes wait while dirty pages, deltas or blocks are short; a checkpoint makes room for all three. */
static int io_has_room(struct disk *d, const struct disk_io *io)
{
	const struct space *s = &d->space;
	if (!disk_has_change_room(d))
		return -EAGAIN;
	if (io_has_blocks(d, io))
		return 0;
	bool may_come = s->waiting_blocks + s->frozen_waiting + s->held_blocks > 0 ||
			!checkpoint_is_idle(&d->checkpoint) || (io_data_blocks(io) == 0 && disk_n_dirty(d) > 0);
	return may_come ? -EAGAIN : -ENOSPC;
}

/* As io_has_room(), but a trim goes past a leaf for which there will be none: what snapshots share it does not free
 * anyway (P7). */
static int io_find_room(struct disk *d, struct disk_io *io)
{
	int res = io_has_room(d, io);
	if (res != -ENOSPC || (io->op != DISK_TRIM && io->op != DISK_CUT))
		return res;
	request_step_over(io);
	return io_has_room(d, io);
}

/* The tree's changes in flight are counted from admission to reply, for forks to wait for [FORKWAIT], and who looks at it,
 * for its memory to stay when it is dropped meanwhile. */
static void io_count(struct disk_io *io)
{
	if ((!is_change_of_data(io->op) && !is_look(io->op)) || io->own.is_counted)
		return;
	io->own.is_counted = true;
	io->tree->n_changes += is_change_of_data(io->op);
	io->tree->n_lookers += is_look(io->op);
}

static void io_uncount(struct disk_io *io)
{
	if (!io->own.is_counted)
		return;
	io->own.is_counted = false;
	if (is_look(io->op)) {
		quarry_assert(io->tree->n_lookers > 0);
		io->tree->n_lookers--;
		return;
	}
	quarry_assert(io->tree->n_changes > 0);
	if (--io->tree->n_changes == 0)
		waiters_wake(io->own.disk, &io->tree->waiters, 0);
}

static enum flow io_admit(struct disk_io *io)
{
	struct disk *d = io->own.disk;
	int res = io_check(d, io);
	if (res == 0 && is_change(io->op))
		res = list_is_empty(&d->admission) ? io_find_room(d, io) : -EAGAIN;
	if (res == -EAGAIN) {
		checkpoint_want(&d->checkpoint);
		list_append(&d->admission, &io->own.link);
		return FLOW_WAIT;
	}
	io->own.err = res;
	if (res == 0)
		io_count(io);
	return FLOW_NEXT;
}

/* Much may have happened since it was admitted: others took the room that was meant for it, a fence made its session
 * stale [SESSION]. Asked in the very turn of the change. FLOW_WAIT: it is to be admitted anew. */
static enum flow io_still_admitted(struct disk_io *io)
{
	int res = check_session(io->own.disk, io);
	if (res == 0)
		res = io_find_room(io->own.disk, io);
	if (res == -EAGAIN)
		return FLOW_WAIT;
	io->own.err = res;
	return FLOW_NEXT;
}

void disk_admit(struct disk *d)
{
	struct list now;
	list_init(&now);
	list_splice(&now, &d->admission);
	for (struct list *link; (link = list_pop(&now)) != NULL;)
		disk_io_run(container_of(link, struct disk_io, own.link));
}

void disk_watch_limits(struct disk *d)
{
	struct space *s = &d->space;
	bool near = disk_n_dirty(d) >= d->pages.dirty_max ||
		    d->journal.sequence - d->journal.tail >= d->journal.n_blocks / 2 ||
		    space_deltas(s) >= s->deltas_max / 4 * 3 ||
		    (s->waiting_blocks > s->free_blocks / 4 && s->waiting_blocks >= PAGE_POINTERS);
	if (near && checkpoint_is_idle(&d->checkpoint))
		checkpoint_want(&d->checkpoint);
	else
		punch_note_freed(&d->punch);
}

/* ---- flush, replies ---- */

static bool is_quiet(const struct disk_io *io)
{
	return io->own.err != 0 || io->op != DISK_FORK || io->tree->n_changes == 0;
}

static enum flow io_quiet(struct disk_io *io)
{
	if (is_quiet(io))
		return FLOW_NEXT;
	list_append(&io->tree->waiters, &io->own.waiter.link);
	return FLOW_WAIT;
}

static enum flow io_flush(struct disk_io *io)
{
	if (io->own.is_flushed)
		return FLOW_NEXT;
	flusher_wait(&io->own.disk->flusher, &io->own.waiter);
	return FLOW_WAIT;
}

static void io_reply(struct disk_io *io)
{
	struct disk *d = io->own.disk;
	uint64_t took_ns = reactor_now_ns(d->reactor) - io->own.started_ns;
	if (io->own.is_submitting) {
		reactor_defer(d->reactor, &io->own.op, 0);
		return;
	}
	quarry_assert(io->own.owed == 0 && !list_is_linked(&io->own.link) && !list_is_linked(&io->own.waiter.link));
	io_uncount(io);
	if (io->op == DISK_READ) {
		if (io->own.err == -EIO &&
		    io->bad_blocks == 0) /* nobody knows where they are: a page or the disk failed */
			io->bad_blocks = io->n_blocks == 64 ? UINT64_MAX : (1ull << io->n_blocks) - 1;
		counter_add(&d->counters.reads, 1);
		counter_add(&d->counters.read_bytes, io->n_blocks * BLOCK_BYTES);
		histogram_add(&d->counters.read_ns, took_ns);
	} else if (is_write(io->op)) {
		counter_add(&d->counters.writes, 1);
		counter_add(&d->counters.write_bytes, io->n_blocks * BLOCK_BYTES);
		histogram_add(&d->counters.write_ns, took_ns);
	} else if (is_stepped(io->op)) {
		counter_add(&d->counters.trims, 1);
	}
	io_goto(io, IO_DONE);
	int err = io->own.err == 0 && io->own.has_skipped ? -ENOSPC : io->own.err;
	io->done(io, err);
	disk_request_ended(d);
}

static enum disk_io_stage first_stage(const struct disk_io *io)
{
	switch (io->op) {
	case DISK_READ:
	case DISK_HEAL:
		return IO_LOOK;
	case DISK_MAP:
	case DISK_MEASURE:
	case DISK_STAMPS:
		return IO_SCAN;
	case DISK_TRIM:
	case DISK_COPY_HOLES:
	case DISK_CUT:
		return IO_STEP;
	case DISK_FLUSH:
		return IO_FLUSH;
	case DISK_FORK:
		return IO_QUIET;
	case DISK_WRITE:
	case DISK_COPY:
	case DISK_CREATE:
	case DISK_DROP:
	case DISK_FENCE:
	case DISK_COMPLETE:
	case DISK_FORGET:
	case DISK_SWAP:
		return IO_CHANGE;
	}
	return IO_REPLY;
}

static bool needs_flush(enum disk_op op)
{
	return !is_write(op) && !is_stepped(op);
}

static enum flow io_scan(struct disk_io *io)
{
	return io->op == DISK_STAMPS ? request_stamp(io) : request_scan(io, STEPS_A_TURN);
}

/* What it was admitted for, if it still is; then it waits for the record of its last change: with nothing changed there
 * is none to wait for. */
static enum flow io_change(struct disk_io *io)
{
	struct disk *d = io->own.disk;
	if (io->own.err)
		return FLOW_NEXT;
	enum flow flow = io->op == DISK_TRIM         ? request_step(io, STEPS_A_TURN)
			 : io->op == DISK_COPY_HOLES ? request_step_holes(io, STEPS_A_TURN)
			 : io->op == DISK_CUT        ? request_step_cut(io, STEPS_A_TURN)
						     : request_change(io);
	if (flow == FLOW_WAIT)
		return FLOW_WAIT;
	disk_watch_limits(d);
	if (io->own.err == 0 && io->own.sequence > 0)
		journal_wait(&d->journal, io, io->own.owed > 0);
	return FLOW_NEXT;
}

static enum disk_io_stage after_change(const struct disk_io *io)
{
	if (io->own.err)
		return IO_DRAIN;
	if (io->own.sequence > 0)
		return IO_GATHER;
	return needs_flush(io->op) ? IO_FLUSH : IO_REPLY;
}

/* What must hold whenever the dispatcher is entered. */
static void disk_io_check(const struct disk_io *io)
{
	enum disk_io_stage stage = io->own.stage;
	quarry_assert(stage != IO_DONE);
	quarry_assert(io->own.owed == 0 || stage == IO_READ || stage == IO_GATHER || stage == IO_DRAIN);
	quarry_assert(!list_is_linked(&io->own.link) || !list_is_linked(&io->own.waiter.link)); /* 4 */
}

/* What follows from an error, its own or the disk's: the end, once nothing is owed. Who still looks for blocks in a tree
 * that was dropped meanwhile would find its pages freed. */
static void io_divert(struct disk_io *io)
{
	bool is_looking = io->own.stage == IO_LOOK || (io->own.stage == IO_SCAN && is_look(io->op));
	if (is_looking && io->tree->record.state != TREE_LIVE && io->own.err == 0)
		io->own.err = -ENOENT;
	if (!disk_is_alive(io->own.disk) && io->own.err == 0)
		io->own.err = -EIO;
	if (io->own.err && io->own.stage != IO_REPLY)
		io_goto(io, IO_DRAIN);
}

/* Read this function to know what happens to a request. */
static void disk_io_run(struct disk_io *io)
{
	for (;;) {
		disk_io_check(io);
		io_divert(io);
		switch ((enum disk_io_stage)io->own.stage) {
		case IO_ADMIT:
			if (io_admit(io) == FLOW_WAIT)
				return;
			io_goto(io, first_stage(io));
			break;
		case IO_QUIET:
			if (io_quiet(io) == FLOW_WAIT)
				return;
			io_goto(io, IO_CHANGE);
			break;
		case IO_LOOK:
			if (request_look(io) == FLOW_WAIT)
				return;
			io_goto(io, IO_READ);
			break;
		case IO_READ:
			if (io->own.owed > 0)
				return;
			request_verify(io);
			io_goto(io, IO_REPLY);
			break;
		case IO_SCAN:
			if (io_scan(io) == FLOW_WAIT)
				return;
			io_goto(io, IO_REPLY);
			break;
		case IO_STEP: /* a trim is here again for every few leaves: it may be long */
		case IO_CHANGE:
			if (io_still_admitted(io) == FLOW_WAIT) {
				io_goto(io, IO_ADMIT);
				break;
			}
			if (!is_quiet(io)) {
				io_goto(io, IO_QUIET);
				break;
			}
			if (io_change(io) == FLOW_WAIT)
				return;
			io_goto(io, after_change(io));
			break;
		case IO_GATHER:
			if (list_is_linked(&io->own.link))
				return;
			io_goto(io, needs_flush(io->op) ? IO_FLUSH : IO_DRAIN);
			break;
		case IO_FLUSH:
			if (io_flush(io) == FLOW_WAIT)
				return;
			io_goto(io, IO_DRAIN);
			break;
		case IO_DRAIN:
			if (io->own.owed > 0 || list_is_linked(&io->own.link) || list_is_linked(&io->own.waiter.link))
				return;
			io_goto(io, IO_REPLY);
			break;
		case IO_REPLY:
			io_reply(io); /* the request may be gone, or will be here again on the next turn */
			return;
		case IO_DONE: /* disk_io_check() has seen to it */
			return;
		}
	}
}

void disk_io_to_text(const struct disk_io *io, char *text, size_t room)
{
	quarry_assert(io->own.stage < array_size(stage_texts));
	snprintf(text, room, "%s, waits for %s, %u at the device", stage_texts[io->own.stage].name,
		 stage_texts[io->own.stage].waits_for, io->own.owed);
}

void disk_requests_fail(struct disk *d)
{
	disk_admit(d);
	waiters_wake(d, &d->run_waiters, -EIO);
	for (uint32_t i = 0; i < d->n_tree_slots; i++)
		if (d->trees[i])
			waiters_wake(d, &d->trees[i]->waiters, -EIO);
	for (uint64_t i = 0; i < JOURNAL_WINDOW; i++) {
		struct list now;
		list_init(&now);
		list_splice(&now, &d->journal.window[i].requests);
		for (struct list *link; (link = list_pop(&now)) != NULL;)
			disk_io_run(container_of(link, struct disk_io, own.link));
	}
}
