/*
 * writer.c: gathers the data writes of one turn into few vectored writes, and feeds a checkpoint's pages to the device.
 *
 * Blocks are allocated one after the other, so the requests that arrive in one turn mostly lie side by side on the
 * disk, wherever in their volumes they belong: thirty-two random writes of 4 KiB become one write of 128 KiB.
 *
 * Invariants
 *  1. A batch is contiguous on the disk, at most 512 KiB and 128 segments.
 *  2. Each part of a batch counts once in its request's `owed`; the request hears when the batch is done.
 *  3. At most PAGE_BATCHES_MAX batches of pages are in flight: a checkpoint shares the device with the clients.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>
#include <stdlib.h>

static void batch_done(struct op *op, int res);

int writer_init(struct writer *w, struct disk *d)
{
	*w = (struct writer){.disk = d, .n_free = BATCHES_MAX};
	w->batches = calloc(BATCHES_MAX, sizeof(struct batch));
	if (!w->batches)
		return -ENOMEM;
	list_init(&w->free);
	list_init(&w->queue);
	list_init(&w->frames);
	list_init(&w->waiters);
	for (unsigned i = 0; i < BATCHES_MAX; i++) {
		op_init(&w->batches[i].op, batch_done);
		w->batches[i].disk = d;
		list_append(&w->free, &w->batches[i].link);
	}
	return 0;
}

void writer_fini(struct writer *w)
{
	free(w->batches);
	w->batches = NULL;
}

uint32_t iov_cut(const struct iovec *iov, uint32_t n_iov, uint64_t from_bytes, uint64_t len_bytes, struct iovec *out,
		 uint32_t out_max)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < n_iov && len_bytes > 0; i++) {
		if (from_bytes >= iov[i].iov_len) {
			from_bytes -= iov[i].iov_len;
			continue;
		}
		if (n == out_max)
			return 0;
		uint64_t len = min_u64(iov[i].iov_len - from_bytes, len_bytes);
		out[n++] = (struct iovec){(char *)iov[i].iov_base + from_bytes, len};
		from_bytes = 0;
		len_bytes -= len;
	}
	quarry_assert(len_bytes == 0);
	return n;
}

static struct batch *batch_take(struct writer *w, uint64_t block, bool is_pages)
{
	struct list *link = list_pop(&w->free);
	quarry_assert(link);
	struct batch *b = container_of(link, struct batch, link);
	w->n_free--;
	b->block = block;
	b->n_blocks = 0;
	b->n_iov = b->n_parts = 0;
	b->is_pages = is_pages;
	return b;
}

/* PAGE_BATCHES_MAX batches are kept for pages, whatever the clients do. */
bool writer_has_room(struct writer *w, uint32_t n_runs, struct waiter *waiter)
{
	if (w->n_free >= n_runs + PAGE_BATCHES_MAX)
		return true;
	if (waiter)
		list_append(&w->waiters, &waiter->link);
	return false;
}

void writer_add(struct writer *w, struct disk_io *io, uint32_t first, struct run run)
{
	struct batch *b = list_is_empty(&w->queue) ? NULL : container_of(w->queue.prev, struct batch, link);
	uint32_t n = 0;
	if (b && !b->is_pages && b->block + b->n_blocks == run.block && b->n_parts < BATCH_IOV_MAX &&
	    (b->n_blocks + run.n_blocks) * BLOCK_BYTES <= BATCH_BYTES_MAX)
		n = iov_cut(io->iov, io->n_iov, (uint64_t)first * BLOCK_BYTES, (uint64_t)run.n_blocks * BLOCK_BYTES,
			    b->iov + b->n_iov, BATCH_IOV_MAX - b->n_iov);
	if (n == 0) {
		b = batch_take(w, run.block, false);
		n = iov_cut(io->iov, io->n_iov, (uint64_t)first * BLOCK_BYTES, (uint64_t)run.n_blocks * BLOCK_BYTES,
			    b->iov, BATCH_IOV_MAX);
		quarry_assert(n > 0);
		list_append(&w->queue, &b->link);
	}
	b->n_iov += n;
	b->n_blocks += run.n_blocks;
	b->parts[b->n_parts++] = (struct batch_part){.io = io};
	io->own.owed++;
	disk_turn(w->disk);
}

void writer_add_frame(struct writer *w, struct frame *f)
{
	quarry_assert(f->state == FRAME_WRITING && !list_is_linked(&f->link));
	list_append(&w->frames, &f->link);
	disk_turn(w->disk);
}

/* Fills a batch with waiting pages that lie side by side. */
static void frames_gather(struct writer *w)
{
	struct frame *f = container_of(w->frames.next, struct frame, link);
	struct batch *b = batch_take(w, f->block, true);
	while (!list_is_empty(&w->frames) && b->n_iov < BATCH_IOV_MAX) {
		f = container_of(w->frames.next, struct frame, link);
		if (f->block != b->block + b->n_blocks)
			break;
		list_remove(&f->link);
		b->iov[b->n_iov++] = (struct iovec){f->page, BLOCK_BYTES};
		b->parts[b->n_parts++] = (struct batch_part){.frame = f};
		b->n_blocks++;
	}
	w->n_page_batches++;
	counter_add(&w->disk->counters.page_writes, b->n_blocks);
	list_append(&w->queue, &b->link);
}

void writer_submit(struct writer *w)
{
	struct disk *d = w->disk;
	while (!list_is_empty(&w->frames) && w->n_page_batches < PAGE_BATCHES_MAX)
		frames_gather(w);
	for (struct list *link; (link = list_pop(&w->queue)) != NULL;) {
		struct batch *b = container_of(link, struct batch, link);
		counter_add(&d->counters.data_writes, !b->is_pages);
		flusher_note_written(&d->flusher, b->n_blocks * BLOCK_BYTES);
		d->n_requests++;
		file_write(d->file, &b->op, b->iov, b->n_iov, b->block * BLOCK_BYTES);
	}
}

/* The device is done with the batch, or never had it: tells whose parts it held, and puts it back. */
static void batch_end(struct batch *b)
{
	struct disk *d = b->disk;
	struct writer *w = &d->writer;
	for (uint32_t i = 0; i < b->n_parts; i++) {
		if (b->parts[i].frame) {
			pages_written(&d->pages, b->parts[i].frame);
			continue;
		}
		struct disk_io *io = b->parts[i].io;
		quarry_assert(io->own.owed > 0);
		if (--io->own.owed > 0)
			continue;
		if (disk_is_alive(d))
			journal_data_done(&d->journal, io->own.sequence);
		else
			disk_io_wake(io);
	}
	if (b->is_pages) {
		w->n_page_batches--;
		checkpoint_poke(&d->checkpoint);
		if (!list_is_empty(&w->frames))
			disk_turn(d);
	}
	list_append(&w->free, &b->link);
	w->n_free++;
	waiters_wake(d, &w->waiters, 0);
}

static void batch_done(struct op *op, int res)
{
	struct batch *b = container_of(op, struct batch, op);
	struct disk *d = b->disk;
	if (res < 0)
		disk_fail_io(d, res, "writing blocks %llu to %llu", (unsigned long long)b->block,
			     (unsigned long long)(b->block + b->n_blocks - 1));
	batch_end(b);
	disk_request_ended(d);
}

void writer_drop(struct writer *w)
{
	quarry_assert(!disk_is_alive(w->disk));
	for (struct list *link; (link = list_pop(&w->queue)) != NULL;)
		batch_end(container_of(link, struct batch, link));
}
