/*
 * disk_check_journal.c: the journal after the checkpoint: what recovery would replay, and whether it could.
 *
 *      replay_from        break      break + 64                     (sequences; position = sequence modulo ring length)
 *   ---|--- valid ---------|-- in flight --|--- a valid block here: completed blocks are gone, in a power loss or without
 *
 * Invariants
 *  1. A record up to the highest flush mark is durable with its data: data that do not match are damage. Past the mark
 *     they may be lost in a power loss; recovery then drops the record.
 *  2. A record takes only blocks that the checkpoint does not use, and no two records take the same one: blocks are
 *     reused only after the next checkpoint.
 *  3. Nothing is applied; of what records do to each other only the slots in use are followed.
 */
#include "volumes/disk/disk_check_internal.h"

#include "daemon/core/checksum.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct replay {
	struct check *k;
	uint64_t replay_from, end; /* the first sequence that is not there */
	uint64_t flushed;          /* the highest mark */
	uint64_t sequence;         /* of the block at hand */
	uint64_t n_records, n_dropped;
	bool is_closed;               /* the last record says that the daemon closed the disk */
	bool has_dropped;             /* a record before was dropped */
	struct uuid *trees, *volumes; /* the volume by slot; zero: a free slot */
	bool *is_live;                /* by tree slot */
	uint64_t *tree_ids;
	uint8_t *block; /* the journal block at hand: records point into it */
};

static uint64_t journal_block_of(const struct check *k, uint64_t sequence)
{
	return JOURNAL_START + sequence % k->superblock.journal_blocks;
}

/* Is the block of this sequence where it belongs, whole? */
static bool journal_load(struct check *k, uint64_t sequence, struct journal_header *h)
{
	uint64_t block = journal_block_of(k, sequence);

	return block < k->c->n_blocks && check_read(k, block, k->block) &&
	       journal_block_open(k->block, &k->superblock.disk, h) == 0 && h->sequence == sequence;
}

/* ---- where the journal ends ---- */

static void find_end(struct replay *r)
{
	struct check *k = r->k;
	struct journal_header h;

	r->end = r->replay_from;
	/* At most one round: a ring cannot hold more than itself. */
	while (r->end - r->replay_from < k->superblock.journal_blocks && journal_load(k, r->end, &h)) {
		r->flushed = max_u64(r->flushed, h.flushed);
		r->end++;
	}
	k->c->journal_blocks_to_replay = r->end - r->replay_from;
}

/* A valid block of this disk somewhere in the ring, not of the journal that replays. */
static void explain_stray(struct replay *r, uint64_t block, const struct journal_header *h)
{
	struct check *k = r->k;

	if (journal_block_of(k, h->sequence) != block)
		check_error(k,
			    "journal: disk block %" PRIu64 " holds the journal block with sequence %" PRIu64
			    ", which belongs elsewhere: a write was misdirected",
			    block, h->sequence);
	else if (h->checkpoint > k->superblock.checkpoint)
		check_error(k,
			    "journal: the block with sequence %" PRIu64 " knows of checkpoint %" PRIu64
			    ", but the newest superblock is of %" PRIu64
			    ": newer superblocks are lost; the disk must not be used, or it goes back in time",
			    h->sequence, h->checkpoint, k->superblock.checkpoint);
	else if (h->sequence >= r->end && h->flushed >= r->end)
		check_error(k,
			    "journal: the block with sequence %" PRIu64
			    " is missing, but a later one says that it was flushed: the "
			    "medium has lost completed writes; they must come from another replica",
			    r->end);
	else if (h->sequence >= r->end + JOURNAL_IN_FLIGHT_MAX)
		check_warn(k,
			   "journal: the block with sequence %" PRIu64 " is missing, but %" PRIu64
			   " is there: writes that were never flushed are lost, as a power loss may do; if there was "
			   "none, the "
			   "medium has lost them",
			   r->end, h->sequence);
}

static void scan_ring(struct replay *r)
{
	struct check *k = r->k;
	uint64_t errors = k->c->errors;

	for (uint64_t i = 0; i < k->superblock.journal_blocks && k->err == 0; i++) {
		uint64_t block = JOURNAL_START + i;
		struct journal_header h;

		if (block >= k->c->n_blocks)
			break;
		if (!check_read(k, block, k->block)) {
			if (k->err == 0)
				check_warn(k, "journal: disk block %" PRIu64 " cannot be read", block);
			continue;
		}
		if (journal_block_open(k->block, &k->superblock.disk, &h) == 0)
			explain_stray(r, block, &h);
		if (k->c->errors > errors)
			break; /* what follows says the same again */
	}
}

/* ---- records ---- */

static void name_slot(const struct replay *r, uint32_t slot, char text[static TREE_NAME_BYTES])
{
	struct check_tree t = {.slot = slot};

	quarry_assert(slot < DISK_TREES_MAX);
	t.record.volume = r->trees[slot];
	t.record.tree_id = r->tree_ids[slot];
	tree_name(&t, text);
}

/* Does the data of a write record match it? Unknown counts as yes. */
static bool data_matches(struct replay *r, const struct record *w)
{
	struct check *k = r->k;
	uint64_t sum = 0;

	if (k->c->skip_data)
		return true;
	for (uint64_t i = 0; i < w->n_blocks; i++) {
		if (pointer_is_hole(w->pointers[i]))
			continue;
		if (check_load(k, w->pointers[i], KIND_DATA, k->block) != BLOCK_GOOD)
			return k->err != 0;
		sum = crc64(sum, k->block, BLOCK_BYTES);
	}
	return sum == w->sum;
}

/* The blocks that a write takes must be free in the checkpoint, and taken once. false: told as an error. */
static bool blocks_are_free(struct replay *r, const struct record *w)
{
	struct check *k = r->k;
	char name[TREE_NAME_BYTES];

	name_slot(r, w->slot, name);
	for (uint64_t i = 0; i < w->n_blocks; i++) {
		uint64_t block = pointer_block(w->pointers[i]);
		enum block_use before;

		if (block == 0)
			continue;
		if (!check_in_data_area(k, block)) {
			check_error(k,
				    "journal: sequence %" PRIu64 ": %s block %" PRIu64 " in disk block %" PRIu64
				    ", which %s",
				    r->sequence, name, w->first + i, block, block_state_text(BLOCK_OUTSIDE));
			return false;
		}
		before = refs_add(k, block, USE_JOURNAL);
		if (before == USE_NONE)
			continue;
		check_error(k,
			    "journal: sequence %" PRIu64 ": %s block %" PRIu64 " would take disk block %" PRIu64
			    ", which is in use (%s): recovery will refuse the disk",
			    r->sequence, name, w->first + i, block, use_name(before));
		return false;
	}
	return true;
}

static void replay_write(struct replay *r, const struct record *w)
{
	bool is_durable = r->sequence <= r->flushed, matches;
	char name[TREE_NAME_BYTES];

	if (!blocks_are_free(r, w))
		return;
	matches = data_matches(r, w);
	if (!matches && is_durable) {
		name_slot(r, w->slot, name);
		check_error(r->k,
			    "journal: sequence %" PRIu64 ": the data of %s blocks %" PRIu64 " to %" PRIu64
			    " were flushed but do not match their record: they are damaged on this disk",
			    r->sequence, name, w->first, w->first + w->n_blocks - 1);
	}
	if (!is_durable && (!matches || (w->is_ordered && r->has_dropped))) {
		r->has_dropped = true;
		r->n_dropped++;
	}
}

static void refuse_record(struct replay *r, const struct record *w, const char *why)
{
	check_error(r->k, "journal: sequence %" PRIu64 ": a record of type %u for slot %u does not fit: %s",
		    r->sequence, (unsigned)w->type, w->slot, why);
}

static void replay_new_tree(struct replay *r, const struct record *w, uint32_t slot)
{
	if (!uuid_is_zero(&r->trees[slot])) {
		refuse_record(r, w, "the slot of its new tree is in use");
		return;
	}
	r->trees[slot] = w->volume;
	r->tree_ids[slot] = w->tree_id;
	r->is_live[slot] = true;
}

static void replay_volume(struct replay *r, const struct record *w)
{
	struct uuid *at = &r->volumes[w->slot];
	bool is_here = uuid_equal(at, &w->volume);

	if (w->type == RECORD_FENCE && !is_here && !uuid_is_zero(at))
		refuse_record(r, w, "the slot belongs to another volume");
	else if (w->type != RECORD_FENCE && !is_here && !r->k->has_lost_volumes)
		refuse_record(r, w, "the slot does not belong to its volume");
	else
		*at = w->type == RECORD_FORGET ? (struct uuid){{0}} : w->volume;
}

/* Of two live trees of one volume; what they hold is not followed. */
static void replay_swap(struct replay *r, const struct record *w)
{
	bool is_there = r->is_live[w->other_slot] || r->k->n_lost_pages > 0;
	if (!is_there)
		refuse_record(r, w, "there is no other live tree");
	else if (r->is_live[w->other_slot] && !uuid_equal(&r->trees[w->slot], &r->trees[w->other_slot]))
		refuse_record(r, w, "the other tree is another volume's");
	if (r->sequence > r->flushed && r->has_dropped)
		r->n_dropped++;
}

static void replay_record(struct replay *r, const struct record *w)
{
	bool needs_tree = w->type == RECORD_WRITE || w->type == RECORD_RANGE || w->type == RECORD_HOLES ||
			  w->type == RECORD_FORK || w->type == RECORD_DROP || w->type == RECORD_SWAP;

	if (r->is_closed)
		refuse_record(r, w, "an earlier one says that the disk was closed");
	r->is_closed = w->type == RECORD_CLEAN;
	if (needs_tree && !r->is_live[w->slot]) {
		if (r->k->n_lost_pages == 0) /* else it may be among what is lost, which was told */
			refuse_record(r, w, "there is no live tree");
		return;
	}
	switch (w->type) {
	case RECORD_WRITE:
		replay_write(r, w);
		break;
	case RECORD_RANGE:
	case RECORD_HOLES:
		if (w->first / PAGE_POINTERS != (w->first + w->n_blocks - 1) / PAGE_POINTERS)
			refuse_record(r, w, "its range is not inside one leaf");
		break;
	case RECORD_CREATE:
		replay_new_tree(r, w, w->slot);
		break;
	case RECORD_FORK:
		replay_new_tree(r, w, w->child_slot);
		break;
	case RECORD_DROP:
		r->is_live[w->slot] = false;
		break;
	case RECORD_FENCE:
	case RECORD_COMPLETE:
	case RECORD_FORGET:
		replay_volume(r, w);
		break;
	case RECORD_SWAP:
		replay_swap(r, w);
		break;
	case RECORD_CLEAN:
	case RECORD_DROP_STEP:
		break;
	}
}

static void replay_block(struct replay *r)
{
	struct check *k = r->k;
	struct journal_header h;
	struct record w;

	if (!journal_load(k, r->sequence, &h))
		return; /* was there a moment ago: an I/O error, which scan_ring() tells */
	memcpy(r->block, k->block, BLOCK_BYTES);
	for (uint32_t at = JOURNAL_HEADER_BYTES; at < h.used_bytes && k->err == 0;) {
		int len = record_decode(r->block + at, h.used_bytes - at, &w);

		quarry_assert(len > 0); /* journal_block_open() has decoded it */
		replay_record(r, &w);
		r->n_records++;
		at += (uint32_t)len;
	}
}

/* ---- the whole ---- */

static int replay_init(struct replay *r)
{
	struct check *k = r->k;

	r->trees = calloc(DISK_TREES_MAX, sizeof(*r->trees));
	r->volumes = calloc(DISK_VOLUMES_MAX, sizeof(*r->volumes));
	r->is_live = calloc(DISK_TREES_MAX, sizeof(*r->is_live));
	r->tree_ids = calloc(DISK_TREES_MAX, sizeof(*r->tree_ids));
	r->block = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	if (!r->trees || !r->volumes || !r->is_live || !r->tree_ids || !r->block)
		return -ENOMEM;
	for (uint32_t i = 0; i < k->n_trees; i++) {
		const struct check_tree *t = &k->trees[i];
		if (t->slot >= DISK_TREES_MAX)
			continue;
		r->trees[t->slot] = t->record.volume;
		r->tree_ids[t->slot] = t->record.tree_id;
		r->is_live[t->slot] = t->record.state == TREE_LIVE;
	}
	for (uint32_t i = 0; i < k->n_volumes; i++)
		if (k->volumes[i].slot < DISK_VOLUMES_MAX)
			r->volumes[k->volumes[i].slot] = k->volumes[i].record.volume;
	return 0;
}

static void replay_fini(struct replay *r)
{
	free(r->trees);
	free(r->volumes);
	free(r->is_live);
	free(r->tree_ids);
	free(r->block);
}

void check_journal(struct check *k)
{
	struct replay r = {
	    .k = k,
	    .replay_from = k->superblock.replay_from,
	    .flushed = k->superblock.replay_from - 1,
	};

	if (k->err != 0)
		return;
	k->err = replay_init(&r);
	if (k->err == 0)
		find_end(&r);
	for (r.sequence = r.replay_from; r.sequence < r.end && k->err == 0; r.sequence++)
		replay_block(&r);
	if (k->err == 0)
		scan_ring(&r);
	k->c->is_clean = r.is_closed || (k->superblock.is_clean && r.end == r.replay_from);
	if (r.end > r.replay_from)
		check_note(k,
			   "journal: %" PRIu64 " blocks with %" PRIu64 " records to replay, flushed up to %" PRIu64
			   " of %" PRIu64 "; %" PRIu64 " were not complete at a power loss and will be dropped",
			   r.end - r.replay_from, r.n_records, r.flushed, r.end - 1, r.n_dropped);
	replay_fini(&r);
}
