/*
 * heal.c: blocks that a disk cannot read are read from another copy, and rewritten in their places where they are bad.
 *
 *   part: FETCH, SETTLE -> HEAL:   for each bad block, one by one:  READ elsewhere -> REWRITE where it failed
 *
 * This is rare, so it is simple: a block at a time, and one disk after the other. Each block may come from another disk, so
 * two disks with damage in different places still make one good answer.
 *
 * Invariants
 *  1. What is handed on was verified by the disk that it came from (P3), and nothing changes the range meanwhile: the
 *     request has it locked.
 *  2. A disk rewrites only what its own checksum names; a copy that differs stays as it is, and is told of.
 *
 * Owner: the part.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <inttypes.h>

void heal_begin(struct part *p)
{
	const struct disk_io *io = &p->first.rio.io;
	quarry_assert(io->op == DISK_READ && io->iov == p->iov && io->bad_blocks != 0 && !io->is_shared);
	p->heal = (struct heal){.resume = p->stage,
				.first = io->first,
				.n_iov = io->n_iov,
				.bad = io->bad_blocks,
				.origin = 1ull << p->first.disk,
				.failed = 1ull << p->first.disk};
	p->err = 0;
	p->stage = PART_HEAL;
}

void heal_answered(struct part *p)
{
	struct heal *h = &p->heal;
	uint64_t disk = 1ull << p->first.disk;
	bool is_good = p->err == 0;
	p->err = 0;
	if (h->is_rewriting) {
		h->rewrite &= ~disk;
		h->n_healed += is_good;
		h->n_failed += !is_good;
	} else if (is_good) {
		h->is_rewriting = true;
		h->rewrite = volume_good(p->volume, h->failed);
	} else {
		h->failed |= disk;
	}
}

static void heal_ask(struct part *p, enum disk_op op, uint32_t disk)
{
	struct heal *h = &p->heal;
	struct disk_io *io = &p->first.rio.io;
	uint64_t block = (uint64_t)__builtin_ctzll(h->bad);
	struct slice s = {.iov = p->iov, .n_iov = h->n_iov};
	slice_skip(&s, block * BLOCK_BYTES);
	io->op = op;
	io->first = h->first + block;
	io->n_blocks = 1;
	io->iov = h->iov;
	io->n_iov = slice_take(&s, BLOCK_BYTES, h->iov, array_size(h->iov));
	part_ask(p, disk);
}

/* The volume's, or of what it reads, a snapshot's. */
static void part_name(const struct part *p, char out[static SNAPSHOT_NAME_BYTES])
{
	const struct set_snapshot *snap = NULL;
	if (p->request->own.heal.disk)
		snap = snapshot_by_tree(p->volume->entry, p->request->own.heal.tree);
	text_print(out, SNAPSHOT_NAME_BYTES, "%s%s%s", volume_name(p->volume), snap ? "@" : "",
		   snap ? snap->facts.name : "");
}

static void heal_tell_lost(const struct part *p)
{
	char name[SNAPSHOT_NAME_BYTES];
	part_name(p, name);
	log_event(p->volume->set->log, LOG_ERROR, "block-lost", name,
		  "block %" PRIu64 " of volume %s cannot be read from any copy: its readers get an I/O error",
		  p->heal.first + (uint64_t)__builtin_ctzll(p->heal.bad), name);
}

static void heal_tell(const struct part *p)
{
	const struct heal *h = &p->heal;
	char name[SNAPSHOT_NAME_BYTES];
	part_name(p, name);
	p->request->own.heal.n_left += h->n_failed;
	const char *disk = p->volume->set->disks[__builtin_ctzll(h->origin)]->facts.name;
	if (h->n_healed > 0)
		log_event(p->volume->set->log, LOG_WARNING, "blocks-healed", name,
			  "%u of the blocks from %" PRIu64 " on of volume %s could not be read on disk %s: they were "
			  "read from another copy, and rewritten",
			  h->n_healed, h->first, name, disk);
	if (h->n_failed > 0)
		log_event(p->volume->set->log, LOG_ERROR, "blocks-not-healed", name,
			  "%u of the blocks from %" PRIu64 " on of volume %s can neither be read nor rewritten on disk "
			  "%s: they were read from another copy; scrub the disk, or replace it",
			  h->n_failed, h->first, name, disk);
}

enum flow heal_run(struct part *p)
{
	struct heal *h = &p->heal;
	while (h->bad != 0 && p->err == 0) {
		part_find_again(p);
		uint64_t others = volume_good(p->volume, p->disks & ~h->failed);
		if (h->is_rewriting && h->rewrite != 0) {
			heal_ask(p, DISK_HEAL, (uint32_t)__builtin_ctzll(h->rewrite));
			return FLOW_WAIT;
		}
		if (h->is_rewriting) { /* the next block */
			h->is_rewriting = false;
			h->bad &= h->bad - 1;
			h->failed = h->origin;
		} else if (others == 0) {
			heal_tell_lost(p);
			p->err = -EIO;
		} else {
			heal_ask(p, DISK_READ, volume_reader(p->volume, others, h->first));
			return FLOW_WAIT;
		}
	}
	heal_tell(p);
	return FLOW_NEXT;
}
