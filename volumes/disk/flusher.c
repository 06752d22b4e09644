/*
 * flusher.c: the device flush that all who wait share.
 *
 * One flush is under way at a time; whoever comes meanwhile waits for the next, since the device promises only what it
 * had completed before the flush was submitted. A flush is never retried: a device that failed one may have dropped
 * the data.
 *
 * Invariants
 *  1. candidate is journal.settled as it was at submission [KFPREFIX]; it becomes journal.flushed when the flush
 *     succeeds.
 *  2. `running` holds those who came before the submission, `waiting` those who came after.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>

/* Without clients' flushes the disk flushes by itself after so much: it bounds the data that recovery has to read
 * again. */
#define FLUSH_EVERY_BYTES (512 * MIB)

static void flush_done(struct op *op, int res);
static void flush_begin(struct flusher *f);

static void background_done(struct waiter *w, int res)
{
	(void)w;
	(void)res; /* a failed flush has failed the disk */
}

void flusher_init(struct flusher *f, struct disk *d)
{
	*f = (struct flusher){.disk = d};
	op_init(&f->op, flush_done);
	list_init(&f->waiting);
	list_init(&f->running);
	f->background.wake = background_done;
	list_init(&f->background.link);
}

static void flush_begin(struct flusher *f)
{
	quarry_assert(!f->is_busy && list_is_empty(&f->running));
	f->is_busy = true;
	f->disk->n_requests++;
	f->candidate = f->disk->journal.settled;
	f->unflushed_bytes = 0;
	f->started_ns = reactor_now_ns(f->disk->reactor);
	list_splice(&f->running, &f->waiting);
	counter_add(&f->disk->counters.flushes, 1);
	file_flush(f->disk->file, &f->op);
}

static void flush_done(struct op *op, int res)
{
	struct flusher *f = container_of(op, struct flusher, op);
	struct disk *d = f->disk;
	quarry_assert(f->is_busy);
	f->is_busy = false;
	histogram_add(&d->counters.flush_ns, reactor_now_ns(d->reactor) - f->started_ns);
	if (res < 0)
		disk_fail_io(d, res, "flushing what was written since the last flush");
	if (disk_is_alive(d))
		d->journal.flushed = max_u64(d->journal.flushed, f->candidate);
	waiters_wake(d, &f->running, disk_is_alive(d) ? 0 : -EIO);
	if (!disk_is_alive(d))
		waiters_wake(d, &f->waiting, -EIO);
	else if (!list_is_empty(&f->waiting))
		flush_begin(f);
	disk_request_ended(d);
}

void flusher_wait(struct flusher *f, struct waiter *w)
{
	list_append(&f->waiting, &w->link);
	if (!f->is_busy)
		flush_begin(f);
}

void flusher_note_written(struct flusher *f, uint64_t bytes)
{
	f->unflushed_bytes += bytes;
	if (f->unflushed_bytes >= FLUSH_EVERY_BYTES && !list_is_linked(&f->background.link))
		flusher_wait(f, &f->background);
}
