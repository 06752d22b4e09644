/*
 * journal_format.c: writes, reads and checks the journal's blocks and the records in them.
 *
 * disk_format.h has the byte tables. Plain computation on bytes, like disk_format.c, under the same invariants: a
 * reader checks everything before it returns anything, a writer asserts what its reader checks, unnamed bytes are zero.
 *
 * A journal block is believed only whole: its checksum, begun with the disk's UUID, covers every byte, and every record
 * in it must decode. There is no half of a journal block; what does not fit is where the journal ends (or was damaged,
 * which recovery tells apart by what it finds further on).
 */
#include "volumes/disk/disk_format_internal.h"

#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"

#include <errno.h>

#define RECORD_ORDERED 1u
#define RECORD_ALIGN   8u

/* ---- the bytes, as structs; every field lies at a multiple of its size ---- */

struct journal_bytes {
	uint32_t magic, crc;
	uint64_t sequence, flushed, checkpoint;
	uint16_t n_records, used_bytes;
	uint8_t zero[28];
};
_Static_assert(offsetof(struct journal_bytes, crc) == 4, "format");
_Static_assert(offsetof(struct journal_bytes, sequence) == 8, "format");
_Static_assert(offsetof(struct journal_bytes, flushed) == 16, "format");
_Static_assert(offsetof(struct journal_bytes, checkpoint) == 24, "format");
_Static_assert(offsetof(struct journal_bytes, n_records) == 32, "format");
_Static_assert(offsetof(struct journal_bytes, used_bytes) == 34, "format");
_Static_assert(sizeof(struct journal_bytes) == JOURNAL_HEADER_BYTES, "format");

struct record_head {
	uint8_t type, flags;
	uint16_t len_bytes;
	uint32_t slot;
};
_Static_assert(sizeof(struct record_head) == 8, "format");

/* What follows the head, by type; offsets in the table of disk_format.h are these plus 8. */
union record_body {
	struct {
		uint64_t first, sum;
	} write; /* then the pointers */
	struct {
		uint64_t first, n_blocks, epoch;
	} range; /* HOLES too */
	struct {
		struct uuid volume;
		uint64_t tree_id, epoch, parent_id;
	} create;
	struct {
		struct uuid volume;
		uint64_t tree_id, epoch;
		uint32_t child_slot, zero;
	} fork;
	struct {
		uint64_t zero;
	} plain; /* DROP, CLEAN */
	struct {
		struct uuid volume;
		uint64_t generation, session, size_blocks;
	} fence;
	struct {
		struct uuid volume;
		uint64_t epoch;
	} complete;
	struct {
		struct uuid volume;
	} forget;
	struct {
		uint32_t other_slot, zero;
	} swap;
};
_Static_assert(sizeof(((union record_body *)0)->write) == 16, "format");
_Static_assert(sizeof(((union record_body *)0)->range) == 24, "format");
_Static_assert(sizeof(((union record_body *)0)->create) == 40, "format");
_Static_assert(offsetof(union record_body, fork.child_slot) == 32, "format");
_Static_assert(sizeof(((union record_body *)0)->fork) == 40, "format");
_Static_assert(sizeof(((union record_body *)0)->plain) == 8, "format");
_Static_assert(sizeof(((union record_body *)0)->fence) == 40, "format");
_Static_assert(sizeof(((union record_body *)0)->complete) == 24, "format");
_Static_assert(sizeof(((union record_body *)0)->forget) == 16, "format");
_Static_assert(sizeof(((union record_body *)0)->swap) == 8, "format");
_Static_assert(sizeof(struct record_head) + sizeof(((union record_body *)0)->write) +
		       DISK_WRITE_BLOCKS_MAX * sizeof(struct pointer) ==
		   RECORD_BYTES_MAX,
	       "format");
_Static_assert(RECORD_BYTES_MAX <= JOURNAL_ROOM_BYTES, "a journal block holds the longest record");

/* ---- journal blocks ---- */

static bool journal_header_is_sane(const struct journal_header *h)
{
	return h->sequence > 0 && h->sequence <= SEQUENCE_MAX && h->flushed < h->sequence && h->checkpoint > 0 &&
	       h->checkpoint <= SEQUENCE_MAX && h->used_bytes >= JOURNAL_HEADER_BYTES && h->used_bytes <= BLOCK_BYTES &&
	       h->used_bytes % RECORD_ALIGN == 0;
}

/* Begun with the disk's UUID, so that another disk's journal, or an earlier one's on this medium, never fits. */
static uint32_t journal_block_crc(const uint8_t *block, const struct uuid *disk)
{
	return block_crc_without(crc32c(0, disk->bytes, sizeof(disk->bytes)), block,
				 offsetof(struct journal_bytes, crc));
}

/* Do the records fill exactly the bytes used, and decode? */
static bool journal_records_are_sane(const uint8_t *block, const struct journal_header *h)
{
	uint32_t at = JOURNAL_HEADER_BYTES, n = 0;
	struct record r;

	while (at < h->used_bytes) {
		int len = record_decode(block + at, h->used_bytes - at, &r);
		if (len < 0)
			return false;
		at += (uint32_t)len;
		n++;
	}
	return n == h->n_records;
}

void journal_block_seal(uint8_t block[static BLOCK_BYTES], const struct journal_header *h, const struct uuid *disk)
{
	struct journal_bytes b = {
	    .magic = JOURNAL_MAGIC,
	    .sequence = h->sequence,
	    .flushed = h->flushed,
	    .checkpoint = h->checkpoint,
	    .n_records = h->n_records,
	    .used_bytes = h->used_bytes,
	};

	quarry_assert(journal_header_is_sane(h));
	quarry_assert(!uuid_is_zero(disk));
	memcpy(block, &b, sizeof(b));
	memset(block + h->used_bytes, 0, BLOCK_BYTES - h->used_bytes);
	put_le32(block + offsetof(struct journal_bytes, crc), journal_block_crc(block, disk));
}

int journal_block_open(const uint8_t block[static BLOCK_BYTES], const struct uuid *disk, struct journal_header *out)
{
	struct journal_bytes b;

	memcpy(&b, block, sizeof(b));
	if (b.magic != JOURNAL_MAGIC || b.crc != journal_block_crc(block, disk))
		return -EBADMSG;
	*out = (struct journal_header){
	    .sequence = b.sequence,
	    .flushed = b.flushed,
	    .checkpoint = b.checkpoint,
	    .n_records = b.n_records,
	    .used_bytes = b.used_bytes,
	};
	if (!journal_header_is_sane(out) || !bytes_are_zero(b.zero, sizeof(b.zero)) ||
	    !bytes_are_zero(block + out->used_bytes, BLOCK_BYTES - out->used_bytes) ||
	    !journal_records_are_sane(block, out))
		return -EBADMSG;
	return 0;
}

/* ---- records ---- */

/* Length of the body, without WRITE's pointers; 0: no such type. */
static uint32_t record_body_bytes(enum record_type type)
{
	const union record_body *b = NULL;

	switch (type) {
	case RECORD_WRITE:
		return sizeof(b->write);
	case RECORD_RANGE:
	case RECORD_HOLES:
		return sizeof(b->range);
	case RECORD_CREATE:
		return sizeof(b->create);
	case RECORD_FORK:
		return sizeof(b->fork);
	case RECORD_DROP:
	case RECORD_CLEAN:
		return sizeof(b->plain);
	case RECORD_FENCE:
		return sizeof(b->fence);
	case RECORD_COMPLETE:
		return sizeof(b->complete);
	case RECORD_FORGET:
		return sizeof(b->forget);
	case RECORD_SWAP:
		return sizeof(b->swap);
	case RECORD_DROP_STEP:
		break; /* reserved */
	}
	return 0;
}

uint32_t record_bytes(const struct record *r)
{
	uint32_t body = record_body_bytes(r->type);

	quarry_assert(body > 0);
	quarry_assert(r->type != RECORD_WRITE || r->n_blocks <= DISK_WRITE_BLOCKS_MAX);
	return (uint32_t)sizeof(struct record_head) + body +
	       (r->type == RECORD_WRITE ? (uint32_t)(r->n_blocks * sizeof(struct pointer)) : 0);
}

static bool range_is_sane(uint64_t first, uint64_t n_blocks)
{
	return n_blocks > 0 && n_blocks <= VOLUME_BLOCKS_MAX && first <= VOLUME_BLOCKS_MAX - n_blocks;
}

static bool write_is_sane(const struct record *r)
{
	if (r->n_blocks > DISK_WRITE_BLOCKS_MAX || !range_is_sane(r->first, r->n_blocks))
		return false;
	for (uint64_t i = 0; i < r->n_blocks; i++)
		if (!pointer_is_sane(r->pointers[i]))
			return false;
	return true;
}

static bool new_tree_is_sane(const struct record *r)
{
	return !uuid_is_zero(&r->volume) && r->tree_id != 0 && r->epoch <= EPOCH_MAX;
}

static bool record_is_sane(const struct record *r)
{
	if (r->is_ordered && r->type != RECORD_WRITE && r->type != RECORD_SWAP)
		return false;
	switch (r->type) {
	case RECORD_WRITE:
		return r->slot < DISK_TREES_MAX && write_is_sane(r);
	case RECORD_RANGE:
	case RECORD_HOLES:
		return r->slot < DISK_TREES_MAX && range_is_sane(r->first, r->n_blocks) && r->epoch <= EPOCH_MAX;
	case RECORD_CREATE:
		return r->slot < DISK_TREES_MAX && new_tree_is_sane(r) && r->parent_id != r->tree_id;
	case RECORD_FORK:
		return r->slot < DISK_TREES_MAX && new_tree_is_sane(r) && r->child_slot < DISK_TREES_MAX &&
		       r->child_slot != r->slot;
	case RECORD_DROP:
		return r->slot < DISK_TREES_MAX;
	case RECORD_FENCE:
		return r->slot < DISK_VOLUMES_MAX && !uuid_is_zero(&r->volume) && r->size_blocks <= VOLUME_BLOCKS_MAX;
	case RECORD_COMPLETE:
		return r->slot < DISK_VOLUMES_MAX && !uuid_is_zero(&r->volume) && r->epoch <= EPOCH_MAX;
	case RECORD_FORGET:
		return r->slot < DISK_VOLUMES_MAX && !uuid_is_zero(&r->volume);
	case RECORD_CLEAN:
		return r->slot == 0;
	case RECORD_SWAP:
		return r->slot < DISK_TREES_MAX && r->other_slot < DISK_TREES_MAX && r->other_slot != r->slot &&
		       r->is_ordered;
	case RECORD_DROP_STEP:
		break;
	}
	return false;
}

static void record_body_encode(const struct record *r, union record_body *b)
{
	switch (r->type) {
	case RECORD_WRITE:
		b->write.first = r->first;
		b->write.sum = r->sum;
		break;
	case RECORD_RANGE:
	case RECORD_HOLES:
		b->range.first = r->first;
		b->range.n_blocks = r->n_blocks;
		b->range.epoch = r->epoch;
		break;
	case RECORD_CREATE:
		b->create.volume = r->volume;
		b->create.tree_id = r->tree_id;
		b->create.epoch = r->epoch;
		b->create.parent_id = r->parent_id;
		break;
	case RECORD_FORK:
		b->fork.volume = r->volume;
		b->fork.tree_id = r->tree_id;
		b->fork.epoch = r->epoch;
		b->fork.child_slot = r->child_slot;
		break;
	case RECORD_FENCE:
		b->fence.volume = r->volume;
		b->fence.generation = r->generation;
		b->fence.session = r->session;
		b->fence.size_blocks = r->size_blocks;
		break;
	case RECORD_COMPLETE:
		b->complete.volume = r->volume;
		b->complete.epoch = r->epoch;
		break;
	case RECORD_FORGET:
		b->forget.volume = r->volume;
		break;
	case RECORD_SWAP:
		b->swap.other_slot = r->other_slot;
		break;
	case RECORD_DROP:
	case RECORD_CLEAN:
	case RECORD_DROP_STEP:
		break; /* nothing but the head */
	}
}

uint32_t record_encode(const struct record *r, uint8_t *at)
{
	uint32_t len_bytes = record_bytes(r), body = record_body_bytes(r->type);
	struct record_head head = {
	    .type = (uint8_t)r->type,
	    .flags = r->is_ordered ? RECORD_ORDERED : 0,
	    .len_bytes = (uint16_t)len_bytes,
	    .slot = r->slot,
	};
	union record_body b;

	quarry_assert(record_is_sane(r));
	quarry_assert(len_bytes <= RECORD_BYTES_MAX && len_bytes % RECORD_ALIGN == 0);
	memset(&b, 0, sizeof(b));
	record_body_encode(r, &b);
	memcpy(at, &head, sizeof(head));
	memcpy(at + sizeof(head), &b, body);
	if (r->type == RECORD_WRITE)
		memcpy(at + sizeof(head) + body, r->pointers, r->n_blocks * sizeof(struct pointer));
	return len_bytes;
}

/* Copies the body's fields; false: bytes that must be zero are not. */
static bool record_body_decode(const union record_body *b, struct record *out)
{
	switch (out->type) {
	case RECORD_WRITE:
		out->first = b->write.first;
		out->sum = b->write.sum;
		return true;
	case RECORD_RANGE:
	case RECORD_HOLES:
		out->first = b->range.first;
		out->n_blocks = b->range.n_blocks;
		out->epoch = b->range.epoch;
		return true;
	case RECORD_CREATE:
		out->volume = b->create.volume;
		out->tree_id = b->create.tree_id;
		out->epoch = b->create.epoch;
		out->parent_id = b->create.parent_id;
		return true;
	case RECORD_FORK:
		out->volume = b->fork.volume;
		out->tree_id = b->fork.tree_id;
		out->epoch = b->fork.epoch;
		out->child_slot = b->fork.child_slot;
		return b->fork.zero == 0;
	case RECORD_DROP:
	case RECORD_CLEAN:
		return b->plain.zero == 0;
	case RECORD_FENCE:
		out->volume = b->fence.volume;
		out->generation = b->fence.generation;
		out->session = b->fence.session;
		out->size_blocks = b->fence.size_blocks;
		return true;
	case RECORD_COMPLETE:
		out->volume = b->complete.volume;
		out->epoch = b->complete.epoch;
		return true;
	case RECORD_FORGET:
		out->volume = b->forget.volume;
		return true;
	case RECORD_SWAP:
		out->other_slot = b->swap.other_slot;
		return b->swap.zero == 0;
	case RECORD_DROP_STEP:
		break;
	}
	return false;
}

/* Does the length fit the type? WRITE's says how many pointers there are. */
static bool record_length_decode(const struct record_head *head, const uint8_t *at, struct record *out)
{
	uint32_t fixed = record_body_bytes(out->type), rest;

	if (fixed == 0 || head->len_bytes < sizeof(*head) + fixed)
		return false;
	rest = head->len_bytes - (uint32_t)sizeof(*head) - fixed;
	if (out->type != RECORD_WRITE)
		return rest == 0;
	out->n_blocks = rest / sizeof(struct pointer);
	out->pointers = (const struct pointer *)(const void *)(at + sizeof(*head) + fixed);
	return rest % sizeof(struct pointer) == 0;
}

int record_decode(const uint8_t *at, uint32_t len_bytes, struct record *out)
{
	struct record_head head;
	union record_body b;

	quarry_assert((uintptr_t)at % RECORD_ALIGN == 0); /* WRITE's pointers are used in place */
	if (len_bytes < sizeof(head))
		return -EBADMSG;
	memcpy(&head, at, sizeof(head));
	*out = (struct record){
	    .type = (enum record_type)head.type,
	    .is_ordered = head.flags & RECORD_ORDERED,
	    .slot = head.slot,
	};
	if (head.len_bytes > len_bytes || (head.flags & ~RECORD_ORDERED) != 0 || !record_length_decode(&head, at, out))
		return -EBADMSG;
	memset(&b, 0, sizeof(b));
	memcpy(&b, at + sizeof(head), record_body_bytes(out->type));
	if (!record_body_decode(&b, out) || !record_is_sane(out))
		return -EBADMSG;
	return head.len_bytes;
}
