/*
 * recovery_replay.c: reads the journal and does again what it says.
 *
 * Blocks were allocated in the order of the records, so the data of a batch mostly lie side by side: reading them back
 * to verify them takes a few large reads, not one a record.
 */
#include "volumes/disk/recovery_internal.h"

#include "daemon/core/checksum.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- journal blocks ---- */

enum flow chunk_read(struct recovery *r, uint64_t sequence)
{
	const struct superblock *sb = &r->disk->superblock;
	if (!r->is_reading && r->chunk_at < r->chunk_n)
		return FLOW_NEXT;
	if (!r->is_reading) {
		uint64_t at = sequence % sb->journal_blocks;
		r->chunk_n = (uint32_t)min_u64(RECOVERY_BUFFER_BLOCKS, sb->journal_blocks - at);
		r->chunk_at = 0;
		r->is_reading = true;
		r->read_res = 0;
		recovery_read(r, 0, r->buffer, JOURNAL_START + at, r->chunk_n);
		return FLOW_WAIT;
	}
	if (r->read_res < 0 && r->chunk_n > 1 && !r->is_single) { /* some block of them cannot be read: one by one */
		r->read_res = 0;
		for (uint32_t i = 0; i < r->chunk_n; i++)
			recovery_read(r, i, r->buffer + i * BLOCK_BYTES,
				      JOURNAL_START + sequence % sb->journal_blocks + i, 1);
		r->is_single = true;
		return FLOW_WAIT;
	}
	r->is_reading = false;
	for (uint32_t i = 0; i < r->chunk_n; i++) {
		r->is_unreadable[i] = r->read_res < 0 && r->ops[i].res < 0;
		if (r->is_unreadable[i]) /* no old content of the buffer passes for it */
			memset(r->buffer + i * BLOCK_BYTES, 0, BLOCK_BYTES);
	}
	r->is_single = false;
	return FLOW_NEXT;
}

/* ---- batches ---- */

void replay_begin(struct recovery *r)
{
	r->replayed = r->disk->superblock.replay_from;
	r->record_at = 0;
	r->chunk_at = r->chunk_n = 0;
}

/* Adds the record at the cursor to the batch, with room for its data if they are to be verified. 0; 1: the batch is
 * full. */
static int batch_add(struct recovery *r, const struct record *record)
{
	struct batch_record *b = &r->batch[r->n_batch];
	uint32_t n_data = 0;
	bool is_doubtful = record->type == RECORD_WRITE && r->replayed > r->known_flushed;
	for (uint64_t i = 0; is_doubtful && i < record->n_blocks; i++)
		n_data += !pointer_is_hole(record->pointers[i]);
	if (r->n_batch == RECOVERY_RECORDS_MAX || r->n_data + n_data > RECOVERY_DATA_BLOCKS)
		return 1;
	*b = (struct batch_record){
	    .record = *record, .sequence = r->replayed, .data = r->n_data, .is_doubtful = is_doubtful};
	r->n_data += n_data;
	r->n_batch++;
	return 0;
}

/* Fills the batch from the journal blocks in the buffer. */
static void batch_fill(struct recovery *r)
{
	const struct superblock *sb = &r->disk->superblock;
	for (; r->chunk_at < r->chunk_n && r->replayed < r->next; r->chunk_at++, r->replayed++, r->record_at = 0) {
		struct journal_header h;
		const uint8_t *block = chunk_block(r);
		if (journal_block_open(block, &sb->disk, &h) < 0 || h.sequence != r->replayed) {
			r->err =
			    recovery_fail(r, "journal block %llu was whole, and cannot be read any more: start again",
					  (unsigned long long)r->replayed);
			return;
		}
		if (r->record_at == 0)
			r->record_at = JOURNAL_HEADER_BYTES;
		while (r->record_at < h.used_bytes) {
			struct record record;
			int len = record_decode(block + r->record_at, h.used_bytes - r->record_at, &record);
			quarry_assert(len > 0); /* journal_block_open() looked at every record */
			if (batch_add(r, &record))
				return;
			r->record_at += (uint32_t)len;
		}
	}
}

/* Some data could not be read: block by block, so that only what is damaged is missing. */
static void batch_read_singly(struct recovery *r)
{
	uint32_t at = 0;
	r->is_data_single = true;
	for (uint32_t i = 0; i < r->n_batch; i++) {
		const struct record *record = &r->batch[i].record;
		for (uint64_t k = 0; r->batch[i].is_doubtful && k < record->n_blocks; k++) {
			if (pointer_is_hole(record->pointers[k]))
				continue;
			recovery_read(r, at, r->data + (size_t)at * BLOCK_BYTES, pointer_block(record->pointers[k]), 1);
			at++;
		}
	}
	quarry_assert(at == r->n_data && at > 0);
}

/* Reads the data of the doubtful records, runs that lie side by side at once. */
static void batch_read_data(struct recovery *r)
{
	uint64_t start = 0, n = 0;
	uint32_t at = 0, n_ops = 0;
	r->read_res = 0;
	r->is_data_single = false;
	for (uint32_t i = 0; i < r->n_batch; i++) {
		struct batch_record *b = &r->batch[i];
		for (uint64_t k = 0; b->is_doubtful && k < b->record.n_blocks; k++) {
			uint64_t block = pointer_block(b->record.pointers[k]);
			if (block == 0)
				continue;
			if (!space_is_block(&r->disk->space, block)) {
				r->err =
				    recovery_fail(r, "a journal record names block %llu, which is no block of the disk",
						  (unsigned long long)block);
				return;
			}
			if (n > 0 && block == start + n) {
				n++;
				continue;
			}
			if (n > 0)
				recovery_read(r, n_ops++, r->data + (size_t)at * BLOCK_BYTES, start, n);
			at += (uint32_t)n;
			start = block;
			n = 1;
		}
	}
	if (n > 0)
		recovery_read(r, n_ops++, r->data + (size_t)at * BLOCK_BYTES, start, n);
}

enum flow replay_fetch(struct recovery *r)
{
	if (r->is_fetched) { /* the data have come */
		if (r->read_res < 0 && !r->is_data_single) {
			batch_read_singly(r);
			return FLOW_WAIT;
		}
		r->is_fetched = false;
		return FLOW_NEXT;
	}
	if (r->replayed == r->next) {
		r->n_batch = 0;
		return FLOW_NEXT;
	}
	if (chunk_read(r, r->replayed) == FLOW_WAIT)
		return FLOW_WAIT;
	r->n_batch = r->batch_at = r->n_data = 0;
	batch_fill(r);
	if (r->err)
		return FLOW_NEXT;
	quarry_assert(r->n_batch > 0);
	batch_read_data(r);
	if (r->owed == 0 || r->err)
		return FLOW_NEXT;
	r->is_fetched = true;
	return FLOW_WAIT;
}

/* ---- verification ---- */

/* A block that cannot be read says nothing against its record: that is the medium's doing, not a crash's. */
static bool data_matches(const struct recovery *r, struct batch_record *b)
{
	uint32_t at = b->data;
	uint64_t sum = 0;
	for (uint64_t i = 0; i < b->record.n_blocks; i++) {
		struct pointer p = b->record.pointers[i];
		const uint8_t *data = r->data + (size_t)at * BLOCK_BYTES;
		if (pointer_is_hole(p))
			continue;
		if (r->is_data_single && r->ops[at++].res < 0) {
			b->is_unreadable = true;
			continue;
		}
		at += !r->is_data_single;
		if (block_crc(KIND_DATA, data) != pointer_crc(p))
			return false;
		sum = crc64(sum, data, BLOCK_BYTES);
	}
	return b->is_unreadable || sum == b->record.sum;
}

void replay_verify(struct recovery *r)
{
	for (uint32_t i = 0; i < r->n_batch; i++) {
		struct batch_record *b = &r->batch[i];
		bool is_unknown = b->sequence > r->known_flushed;
		b->is_dropped =
		    (b->is_doubtful && !data_matches(r, b)) || (is_unknown && b->record.is_ordered && r->has_dropped);
		r->has_dropped |= b->is_dropped;
	}
}

/* ---- applying ---- */

/* What a record that is not a whole one wrote, or was to write, as people call it. */
static void record_to_text(struct disk *d, const struct record *record, char text[static RECORD_TEXT_BYTES])
{
	char tree[TREE_TEXT_BYTES] = "a tree that is gone";
	const struct disk_tree *t = disk_tree_at(d, record->slot);
	if (t)
		disk_tree_to_text(d, &t->record.volume, t->record.tree_id, tree);
	if (record->type == RECORD_SWAP)
		snprintf(text, RECORD_TEXT_BYTES, "what was copied from another disk for %s", tree);
	else
		snprintf(text, RECORD_TEXT_BYTES, "%llu blocks from block %llu of %s",
			 (unsigned long long)record->n_blocks, (unsigned long long)record->first, tree);
}

static void drop_one(struct recovery *r, const struct batch_record *b)
{
	if (r->disk->dropped_records++ == 0)
		record_to_text(r->disk, &b->record, r->first_dropped);
}

static void tell_unreadable(struct recovery *r, const struct batch_record *b)
{
	char text[RECORD_TEXT_BYTES];
	record_to_text(r->disk, &b->record, text);
	disk_report_damage(r->disk, "data", pointer_block(b->record.pointers[0]),
			   "%s were written right before the crash, and some of them cannot be read", text);
}

static int apply_one(struct recovery *r, const struct batch_record *b)
{
	struct disk *d = r->disk;
	int res = r->wait_res; /* what it waited for last may be unreadable */
	r->wait_res = 0;
	/* Live, the counts that the records change may all have been resident. */
	if (res == 0)
		res = space_make_delta_room(&d->space, CHANGE_DELTAS_MAX, &r->waiter);
	/* Of a disk whose superblock does not say how large the cache was. */
	if (res == -ENOMEM || (!pages_have(&d->pages, CHANGE_PAGES_MAX, NULL) && d->pages.n_loading == 0))
		return recovery_fail(r, "replaying the journal needs more memory than node.cache_mb allows: raise it "
					"and start again");
	if (res == 0)
		res = record_prepare(d, &b->record, true, &r->waiter);
	if (res == 0)
		res = record_apply(d, &b->record, true);
	if (res == -EBADMSG)
		return recovery_fail(r,
				     "a record of journal block %llu (type %d) does not fit what the disk holds; run "
				     "`quarry disk check`",
				     (unsigned long long)b->sequence, (int)b->record.type);
	if (res < 0 && res != -EAGAIN)
		recovery_fail(r, "the journal cannot be replayed: a page or count page that it needs is damaged; run "
				 "`quarry disk check`");
	return res;
}

enum flow replay_apply(struct recovery *r)
{
	for (; r->batch_at < r->n_batch; r->batch_at++) {
		const struct batch_record *b = &r->batch[r->batch_at];
		if (b->is_dropped) {
			drop_one(r, b);
			continue;
		}
		int res = apply_one(r, b);
		if (res == -EAGAIN)
			return FLOW_WAIT;
		if (res < 0) {
			r->err = res;
			return FLOW_NEXT;
		}
		if (b->is_unreadable)
			tell_unreadable(r, b);
		r->disk->replayed_records++;
	}
	return FLOW_NEXT;
}
