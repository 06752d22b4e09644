/*
 * journal.c: the ring of journal blocks: what was asked of the disk since the last checkpoint, in order.
 *
 *                 tail              settled   complete          sequence
 *   ring: --------|=================|---------|-----------------|o--------   (o: the open block, gathering records)
 *          reusable  replay needs     data of   in flight: at most
 *                                     some is   64 blocks
 *                                     missing
 *
 * Records of one turn gather in the open block; at the end of the turn it is sealed and submitted. When 64 blocks are
 * in flight it stays open and goes on gathering, so that many small requests share a block just when the device is
 * busy.
 *
 * Invariants
 *  1. tail <= settled + 1 <= complete + 1 <= sequence, and sequence - tail < n_blocks.
 *  2. A submitted block has a sequence below (complete + 1) + 64: recovery takes a valid block further on for damage.
 *  3. A request completes when its data are on the device and its block and all earlier ones are; an ordered one
 *     [RMWDEP] when everything up to its block is settled.
 *  4. The flush mark in a block is never above settled as it was when that flush was submitted [KFPREFIX].
 *
 * Owner: the disk's reactor. A block's memory belongs to the device until its op is delivered.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define JOURNAL_BUFFERS (2 * JOURNAL_IN_FLIGHT_MAX)

static struct journal_block *block_at(struct journal *j, uint64_t sequence)
{
	return &j->window[sequence % JOURNAL_WINDOW];
}

static uint8_t *memory_at(struct journal *j, uint64_t sequence)
{
	return j->memory + sequence % JOURNAL_BUFFERS * BLOCK_BYTES;
}

int journal_init(struct journal *j, struct disk *d, uint64_t n_blocks)
{
	*j = (struct journal){.disk = d, .n_blocks = n_blocks};
	list_init(&j->waiters);
	j->memory = aligned_alloc(BLOCK_BYTES, JOURNAL_BUFFERS * BLOCK_BYTES);
	for (unsigned i = 0; i < JOURNAL_WINDOW; i++) {
		j->window[i].journal = j;
		list_init(&j->window[i].requests);
	}
	return j->memory ? 0 : -ENOMEM;
}

void journal_fini(struct journal *j)
{
	free(j->memory);
	j->memory = NULL;
}

static void block_begin(struct journal *j)
{
	struct journal_block *b = block_at(j, j->sequence);
	quarry_assert(list_is_empty(&b->requests) && b->data_owed == 0);
	b->sequence = j->sequence;
	b->is_done = false;
	j->used_bytes = JOURNAL_HEADER_BYTES;
	j->n_records = 0;
}

void journal_start(struct journal *j, uint64_t sequence)
{
	quarry_assert(sequence > 0);
	j->sequence = j->tail = sequence;
	j->complete = j->settled = j->flushed = sequence - 1;
	block_begin(j);
}

/* May the open block be submitted: is it inside the in-flight window? */
static bool window_is_open(const struct journal *j)
{
	return j->sequence <= j->complete + JOURNAL_IN_FLIGHT_MAX;
}

/* Would one more block fit into ring and window after the open one? */
static bool ring_has_room(const struct journal *j, uint64_t n)
{
	return j->sequence + n + 1 < j->tail + j->n_blocks && j->sequence + n < j->settled + JOURNAL_WINDOW;
}

bool journal_has_room(struct journal *j, uint32_t n_records, uint32_t bytes, struct waiter *w)
{
	quarry_assert(bytes > 0 && bytes <= JOURNAL_ROOM_BYTES);
	uint64_t per_block = JOURNAL_ROOM_BYTES / bytes;
	uint64_t n_blocks = n_records / per_block + 1;
	bool fits_open = j->used_bytes + (uint64_t)n_records * bytes <= BLOCK_BYTES;
	if (ring_has_room(j, 0) && fits_open)
		return true;
	if (ring_has_room(j, n_blocks) && j->sequence + n_blocks <= j->complete + JOURNAL_IN_FLIGHT_MAX)
		return true;
	if (w)
		list_append(&j->waiters, &w->link);
	return false;
}

/* ---- completion ---- */

static bool request_may_end(const struct journal *j, const struct disk_io *io)
{
	if (io->own.owed > 0 || io->own.sequence > j->complete)
		return false;
	bool is_ordered = io->is_ordered || io->op == DISK_SWAP; /* as its record is */
	return !is_ordered || io->own.sequence <= j->settled;
}

/* Wakes the requests of a block that have nothing more to wait for. */
static void block_wake_requests(struct journal *j, struct journal_block *b)
{
	list_each_safe (node, &b->requests) {
		struct disk_io *io = container_of(node, struct disk_io, own.link);
		if (!disk_is_alive(j->disk) || request_may_end(j, io)) {
			list_remove(node);
			disk_io_wake(io);
		}
	}
}

static void journal_advance(struct journal *j)
{
	uint64_t complete = j->complete, settled = j->settled;
	while (j->complete + 1 < j->sequence && block_at(j, j->complete + 1)->is_done)
		block_wake_requests(j, block_at(j, ++j->complete));
	while (j->settled < j->complete && block_at(j, j->settled + 1)->data_owed == 0)
		block_wake_requests(j, block_at(j, ++j->settled));
	if (complete == j->complete && settled == j->settled)
		return;
	waiters_wake(j->disk, &j->waiters, 0);
	checkpoint_poke(&j->disk->checkpoint);
	if (j->n_records > 0)
		disk_turn(j->disk);
}

void journal_data_done(struct journal *j, uint64_t sequence)
{
	struct journal_block *b = block_at(j, sequence);
	quarry_assert(b->sequence == sequence && b->data_owed > 0);
	b->data_owed--;
	journal_advance(j);
	if (b->sequence == sequence && b->sequence <= j->complete)
		block_wake_requests(j, b);
}

static void block_written(struct op *op, int res)
{
	struct journal_block *b = container_of(op, struct journal_block, op);
	struct journal *j = b->journal;
	if (res < 0)
		disk_fail_io(j->disk, res, "writing the journal");
	if (!disk_is_alive(j->disk)) {
		block_wake_requests(j, b);
		disk_request_ended(j->disk);
		return;
	}
	b->is_done = true;
	journal_advance(j);
	disk_request_ended(j->disk);
}

/* ---- appending ---- */

static void block_close(struct journal *j)
{
	struct disk *d = j->disk;
	struct journal_block *b = block_at(j, j->sequence);
	uint8_t *memory = memory_at(j, j->sequence);
	quarry_assert(j->n_records > 0 && window_is_open(j) && ring_has_room(j, 0));
	struct journal_header h = {.sequence = j->sequence,
				   .flushed = j->flushed,
				   .checkpoint = d->superblock.checkpoint,
				   .n_records = (uint16_t)j->n_records,
				   .used_bytes = (uint16_t)j->used_bytes};
	journal_block_seal(memory, &h, &d->superblock.disk);
	op_init(&b->op, block_written);
	b->iov = (struct iovec){memory, BLOCK_BYTES};
	counter_add(&d->counters.journal_writes, 1);
	d->n_requests++;
	file_write(d->file, &b->op, &b->iov, 1, (JOURNAL_START + j->sequence % j->n_blocks) * BLOCK_BYTES);
	flusher_note_written(&d->flusher, BLOCK_BYTES);
	j->sequence++;
	block_begin(j);
}

uint64_t journal_append(struct journal *j, const struct record *r)
{
	uint32_t bytes = record_bytes(r);
	if (j->used_bytes + bytes > BLOCK_BYTES)
		block_close(j);
	j->used_bytes += record_encode(r, memory_at(j, j->sequence) + j->used_bytes);
	j->n_records++;
	quarry_assert(j->used_bytes <= BLOCK_BYTES);
	disk_turn(j->disk);
	return j->sequence;
}

void journal_wait(struct journal *j, struct disk_io *io, bool data_owed)
{
	struct journal_block *b = block_at(j, io->own.sequence);
	if (!data_owed && request_may_end(j, io))
		return; /* a long trim's last record may be on the device before its last look */
	quarry_assert(b->sequence == io->own.sequence);
	b->data_owed += data_owed;
	list_append(&b->requests, &io->own.link);
}

uint64_t journal_last(const struct journal *j)
{
	if (j->n_records > 0)
		return j->sequence;
	return j->complete + 1 < j->sequence ? j->sequence - 1 : 0;
}

uint64_t journal_cut(struct journal *j)
{
	if (j->n_records > 0)
		block_close(j);
	return j->sequence - 1;
}

void journal_submit(struct journal *j)
{
	if (j->n_records > 0 && window_is_open(j) && disk_is_alive(j->disk))
		block_close(j);
}
