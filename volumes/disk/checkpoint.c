/*
 * checkpoint.c: makes all that the disk knows durable as of one point of the journal, beside the clients' writes.
 *
 *   IDLE -> PREPARE -> (cut) -> WRITE -> SETTLE -> FLUSH -> SUPERBLOCK -> SEAL -> DRAIN -> IDLE
 *
 *   PREPARE     waits for room: blocks in resident regions, frames, the journal's window
 *   the cut     in one turn: the journal is cut at a block's boundary; every dirty page, record, count page and table
 *               page gets a fresh block, from the leaves up (cut.c). From here on a change of these takes a new frame
 *   WRITE       their writes end
 *   SETTLE      data and journal of all records before the cut are on the device [CKPTWAIT]
 *   FLUSH       one device flush for all of these
 *   SUPERBLOCK  both copies of the new superblock are written
 *   SEAL        another flush; only now may anything be reused: journal, blocks, superblock slots [SBFLUSH]
 *   DRAIN       reads that began before the cut end: they may read blocks freed since [PIN]
 *
 * Invariants
 *  1. One checkpoint at a time; its number is the last flushed one's plus one.
 *  2. Until SEAL ends, nothing of the last checkpoint is overwritten: its blocks are used or frozen, its journal is
 *     behind journal.tail, its superblock is in the other pair of slots.
 *  3. After a failure nothing is reused and nobody is told that a checkpoint ended.
 */
#include "volumes/disk/checkpoint_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINT_STAGES(X) X(IDLE) X(PREPARE) X(WRITE) X(SETTLE) X(FLUSH) X(SUPERBLOCK) X(SEAL) X(DRAIN) X(FAILED)
enum checkpoint_stage {
#define STAGE_NAME(name) CHECKPOINT_##name,
	CHECKPOINT_STAGES(STAGE_NAME)
#undef STAGE_NAME
};

static void checkpoint_run(struct checkpoint *c);

static void checkpoint_goto(struct checkpoint *c, enum checkpoint_stage stage)
{
	c->stage = stage;
}

bool checkpoint_is_idle(const struct checkpoint *c)
{
	return c->stage == CHECKPOINT_IDLE;
}

/* ---- its door: pages written, the journal settled, a flush, a superblock, the last old read ---- */

static void woken(struct waiter *w, int res)
{
	struct checkpoint *c = container_of(w, struct checkpoint, waiter);
	if (res < 0)
		c->err = res;
	c->is_flushed = true;
	checkpoint_run(c);
}

void checkpoint_poke(struct checkpoint *c)
{
	bool is_under_way = c->stage != CHECKPOINT_IDLE && c->stage != CHECKPOINT_FAILED;
	if (is_under_way && !list_is_linked(&c->waiter.link))
		waiter_wake(c->disk, &c->waiter, 0);
}

void checkpoint_fini(struct checkpoint *c)
{
	free(c->words);
	free(c->memory);
	c->words = NULL;
	c->memory = NULL;
}

int checkpoint_init(struct checkpoint *c, struct disk *d)
{
	*c = (struct checkpoint){.disk = d};
	c->words = calloc(DELTA_LOG_MAX, sizeof(*c->words));
	c->memory = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	c->waiter.wake = woken;
	list_init(&c->waiter.link);
	list_init(&c->waiters);
	list_init(&c->late);
	return c->words && c->memory ? 0 : -ENOMEM;
}

static void checkpoint_begin(struct checkpoint *c)
{
	quarry_assert(c->stage == CHECKPOINT_IDLE);
	c->is_wanted = c->is_shrunk = false;
	c->err = 0;
	c->started_ns = reactor_now_ns(c->disk->reactor);
	c->disk->n_requests++;
	checkpoint_goto(c, CHECKPOINT_PREPARE);
	list_splice(&c->waiters, &c->late);
	checkpoint_poke(c);
}

void checkpoint_want(struct checkpoint *c)
{
	if (!disk_is_alive(c->disk) || c->is_wanted)
		return;
	c->is_wanted = true;
	if (c->stage == CHECKPOINT_IDLE)
		checkpoint_begin(c);
}

void checkpoint_wait(struct checkpoint *c, struct waiter *w)
{
	list_append(&c->late, &w->link);
	checkpoint_want(c);
}

/* ---- stages ---- */

static enum flow checkpoint_prepare(struct checkpoint *c)
{
	struct disk *d = c->disk;
	struct journal *j = &d->journal;
	if (!c->is_shrunk) /* what is resident may have to be written: once, since more may have to come in below */
		space_shrink(&d->space);
	c->is_shrunk = true;
	int res;
	do /* a region that was never written is there at once, and wants a block of its own then */
		res = space_prepare_checkpoint(&d->space, cut_blocks_needed(d), &c->waiter);
	while (res == 0 && d->space.resident_free < cut_blocks_needed(d));
	if (res == -EAGAIN)
		return FLOW_WAIT;
	if (res < 0) {
		disk_fail(d,
			  "no blocks are left for a checkpoint (%llu needed, %llu free): the disk is too full to go on "
			  "safely",
			  (unsigned long long)cut_blocks_needed(d), (unsigned long long)d->space.free_blocks);
		c->err = res;
		return FLOW_NEXT;
	}
	if (!pages_have_bare(&d->pages, cut_frames_needed(d), &c->waiter))
		return FLOW_WAIT;
	if (j->n_records > 0 && j->sequence > j->complete + JOURNAL_IN_FLIGHT_MAX)
		return FLOW_WAIT; /* journal_advance() pokes */
	return FLOW_NEXT;
}

static void superblock_written(struct op *op, int res)
{
	struct checkpoint *c = container_of(op, struct checkpoint_op, op)->checkpoint;
	quarry_assert(c->owed > 0);
	c->owed--;
	if (res < 0) {
		c->err = res;
		disk_fail_io(c->disk, res, "writing the superblock");
	}
	checkpoint_poke(c);
}

static void superblock_write(struct checkpoint *c)
{
	struct disk *d = c->disk;
	c->superblock.wall_ns = reactor_wall_ns(d->reactor);
	superblock_encode(&c->superblock, c->memory);
	c->iov = (struct iovec){c->memory, BLOCK_BYTES};
	for (unsigned copy = 0; copy < 2; copy++) {
		uint64_t block = superblock_slot_block(superblock_slot(c->superblock.checkpoint, copy));
		op_init(&c->copies[copy].op, superblock_written);
		c->copies[copy].checkpoint = c;
		c->owed++;
		file_write(d->file, &c->copies[copy].op, &c->iov, 1, block * BLOCK_BYTES);
	}
}

/* Everything of the last checkpoint may be reused now. */
static void checkpoint_finish(struct checkpoint *c)
{
	struct disk *d = c->disk;
	uint64_t took_ns = reactor_now_ns(d->reactor) - c->started_ns;
	d->superblock = c->superblock;
	d->journal.tail = c->superblock.replay_from;
	space_thaw(&d->space);
	cut_forget_trees(d);
	d->checkpoints++;
	d->checkpoint_last_ns = took_ns;
	histogram_add(&d->counters.checkpoint_ns, took_ns);
	checkpoint_goto(c, CHECKPOINT_IDLE);
	waiters_wake(d, &c->waiters, 0);
	waiters_wake(d, &d->journal.waiters, 0);
	disk_admit(d);
	punch_poke(&d->punch);
	drop_poke(&d->drop);
	if (c->is_wanted)
		checkpoint_begin(c);
	disk_request_ended(d);
}

static void checkpoint_fail(struct checkpoint *c)
{
	if (c->stage == CHECKPOINT_FAILED)
		return;
	checkpoint_goto(c, CHECKPOINT_FAILED);
	waiters_wake(c->disk, &c->waiters, -EIO);
	waiters_wake(c->disk, &c->late, -EIO);
	disk_request_ended(c->disk);
}

/* What must hold whenever the dispatcher is entered. */
static void checkpoint_check(const struct checkpoint *c)
{
	const struct disk *d = c->disk;
	bool is_cut = c->stage >= CHECKPOINT_WRITE && c->stage <= CHECKPOINT_DRAIN;
	quarry_assert(c->owed == 0 || c->stage == CHECKPOINT_SUPERBLOCK);
	quarry_assert(!is_cut || c->superblock.checkpoint == d->superblock.checkpoint + 1);
	quarry_assert(!is_cut || c->stage < CHECKPOINT_SETTLE || d->pages.n_writing == 0);
	quarry_assert(!is_cut || c->stage < CHECKPOINT_FLUSH || d->journal.settled >= c->cut); /* [CKPTWAIT] */
}

/* Read this function to know a whole checkpoint. */
static void checkpoint_run(struct checkpoint *c)
{
	struct disk *d = c->disk;
	for (;;) {
		checkpoint_check(c);
		if (!disk_is_alive(d) && c->owed == 0) {
			checkpoint_fail(c);
			return;
		}
		switch ((enum checkpoint_stage)c->stage) {
		case CHECKPOINT_IDLE:
		case CHECKPOINT_FAILED:
			return;
		case CHECKPOINT_PREPARE:
			if (checkpoint_prepare(c) == FLOW_WAIT)
				return;
			if (c->err)
				break;
			cut(c);
			checkpoint_goto(c, CHECKPOINT_WRITE);
			disk_admit(d); /* nothing is dirty now: changes need not wait for the end */
			break;
		case CHECKPOINT_WRITE:
			if (d->pages.n_writing > 0)
				return;
			checkpoint_goto(c, CHECKPOINT_SETTLE);
			break;
		case CHECKPOINT_SETTLE:
			if (d->journal.settled < c->cut)
				return;
			c->is_flushed = false;
			checkpoint_goto(c, CHECKPOINT_FLUSH);
			flusher_wait(&d->flusher, &c->waiter);
			return;
		case CHECKPOINT_FLUSH:
			if (!c->is_flushed)
				return;
			checkpoint_goto(c, CHECKPOINT_SUPERBLOCK);
			superblock_write(c);
			return;
		case CHECKPOINT_SUPERBLOCK:
			if (c->owed > 0)
				return;
			c->is_flushed = false;
			checkpoint_goto(c, CHECKPOINT_SEAL);
			flusher_wait(&d->flusher, &c->waiter);
			return;
		case CHECKPOINT_SEAL:
			if (!c->is_flushed)
				return;
			checkpoint_goto(c, CHECKPOINT_DRAIN);
			break;
		case CHECKPOINT_DRAIN:
			if (d->reads_in_flight[!d->read_side] > 0)
				return;
			checkpoint_finish(c);
			return;
		}
	}
}
