/*
 * recovery.c: the only way to start: the newest checkpoint, then the journal after it, then a checkpoint of its own.
 *
 *   SUPERBLOCKS -> TABLES -> RECORDS -> DELTAS -> SCAN -> BEYOND -> FETCH -> VERIFY -> APPLY -+-> FLUSH -> CHECKPOINT
 *                                                                    ^                        |              |
 *                                                                    +------ next batch ------+              v
 *                                                                                                           END
 *
 * SCAN finds where the journal ends and the highest flush mark; BEYOND looks whether it really ends there. The records
 * are replayed in batches: FETCH reads journal blocks, and the data of every record that no flush mark covers; VERIFY
 * holds them against their sums [RECSUM]; APPLY does, in order, what the records say, with the code that did it live.
 *
 * Invariants
 *  1. Nothing is written before FLUSH has ended [RECFLUSH], so recovery can be interrupted anywhere and begun again.
 *  2. A record past the last known flush counts whole or not at all (P5); an ordered one not after a dropped one
 *     [RMWDEP].
 *  3. The journal goes on at its end + ring length [SEQSKIP]: no stale block can continue it.
 *  4. Damage is told, never skipped: a hole in the journal, a superblock older than the journal, a record that does
 *     not fit. So is a disk that is older than the one its caller has known (checkpoint_min), before anything else of it is
 *     read: each recovery ends with a checkpoint, so what was copied before is behind it.
 */
#include "volumes/disk/disk_internal.h"
#include "volumes/disk/recovery_internal.h"

#include "daemon/core/size_text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void recovery_run(struct recovery *r);

int recovery_fail(struct recovery *r, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(r->disk->why, sizeof r->disk->why, format, args);
	va_end(args);
	return -EBADMSG;
}

/* ---- its door: reads, pages, flush, checkpoint ---- */

static void read_done(struct op *op, int res)
{
	struct recovery_op *o = container_of(op, struct recovery_op, op);
	struct recovery *r = o->recovery;
	quarry_assert(r->owed > 0);
	o->res = res;
	if (res < 0)
		r->read_res = res;
	if (--r->owed == 0)
		recovery_run(r);
}

static void woken(struct waiter *w, int res)
{
	struct recovery *r = container_of(w, struct recovery, waiter);
	r->wait_res = res;
	r->is_woken = true;
	recovery_run(r);
}

void recovery_read(struct recovery *r, unsigned slot, void *memory, uint64_t block, uint64_t n_blocks)
{
	struct recovery_op *o = &r->ops[slot];
	o->recovery = r;
	o->iov = (struct iovec){memory, n_blocks * BLOCK_BYTES};
	op_init(&o->op, read_done);
	r->owed++;
	file_read(r->disk->file, &o->op, &o->iov, 1, block * BLOCK_BYTES);
}

/* ---- superblocks ---- */

static int check_superblock(struct recovery *r);

static enum flow recovery_superblocks(struct recovery *r)
{
	if (r->cursor == 0) {
		int64_t size = file_size_bytes(r->disk->file);
		if (size < (int64_t)(DISK_MIN_BLOCKS * BLOCK_BYTES)) {
			r->err = recovery_fail(r, "is only %lld bytes long: this is no quarry disk", (long long)size);
			return FLOW_NEXT;
		}
		r->device_blocks = (uint64_t)size / BLOCK_BYTES;
		for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++)
			recovery_read(r, i, r->buffer + i * BLOCK_BYTES, superblock_slot_block(i), 1);
		r->cursor = 1;
	}
	if (r->owed > 0)
		return FLOW_WAIT;
	r->err = check_superblock(r);
	return FLOW_NEXT;
}

/* Takes the newest valid superblock; says what the others are. */
static int choose_superblock(struct recovery *r)
{
	struct disk *d = r->disk;
	struct superblock sb;
	char why[WHY_BYTES], first_why[WHY_BYTES] = "";
	enum superblock_verdict worst = SUPERBLOCK_BLANK;
	bool found = false;
	for (unsigned i = 0; i < SUPERBLOCK_SLOTS / 2; i++)
		if (r->ops[i].res < 0 && r->ops[i + SUPERBLOCK_SLOTS / 2].res < 0)
			return recovery_fail(r,
					     "superblock slots %u and %u cannot be read: whether they hold the newest "
					     "checkpoint cannot be "
					     "told; start again, or copy the disk with a tool that reads around errors",
					     i, i + SUPERBLOCK_SLOTS / 2);
	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++) {
		if (r->ops[i].res < 0) {
			log_event(d->log, LOG_ERROR, "damage", d->name, "superblock slot %u cannot be read (error %d)",
				  i, -r->ops[i].res);
			continue;
		}
		enum superblock_verdict v = superblock_decode(r->buffer + i * BLOCK_BYTES, &sb, why);
		if (v == SUPERBLOCK_NEWER)
			return recovery_fail(r, "%s", why);
		if (v == SUPERBLOCK_VALID && (!found || sb.checkpoint > d->superblock.checkpoint)) {
			d->superblock = sb;
			found = true;
		} else if (v == SUPERBLOCK_DAMAGED || v == SUPERBLOCK_FOREIGN) {
			if (worst == SUPERBLOCK_BLANK)
				snprintf(first_why, sizeof first_why, "%s", why);
			worst = v;
			if (v == SUPERBLOCK_DAMAGED)
				log_event(d->log, LOG_ERROR, "damage", d->name, "superblock slot %u: %s", i, why);
		}
	}
	if (found)
		return 0;
	if (worst == SUPERBLOCK_DAMAGED)
		return recovery_fail(r, "no valid superblock is left: %.150s", first_why);
	const char *what = worst == SUPERBLOCK_FOREIGN ? first_why : "it is blank: format it with `quarry disk add`";
	return recovery_fail(r, "this is no quarry disk: %.150s", what);
}

/* "2026-11-26 05:12 UTC" */
static const char *minute_text(uint64_t wall_ns, char text[static 32])
{
	time_t seconds = (time_t)(wall_ns / NS_PER_S);
	struct tm utc;
	if (!gmtime_r(&seconds, &utc) || strftime(text, 32, "%Y-%m-%d %H:%M UTC", &utc) == 0)
		snprintf(text, 32, "a time unknown");
	return text;
}

static int refuse_older(struct recovery *r)
{
	const struct disk *d = r->disk;
	char written[32], seen[32];
	(void)recovery_fail(r,
			    "is an older copy, of %s (checkpoint %llu); it was here at %llu, %s. Put the newest back; "
			    "if it is lost for good: `quarry disk add PATH --accept-older`",
			    minute_text(d->superblock.wall_ns, written), (unsigned long long)d->superblock.checkpoint,
			    (unsigned long long)d->options.checkpoint_min, minute_text(d->options.seen_wall_ns, seen));
	return -ESTALE;
}

static int check_superblock(struct recovery *r)
{
	struct disk *d = r->disk;
	char old[SIZE_TEXT_BYTES], new[SIZE_TEXT_BYTES];
	int res = choose_superblock(r);
	if (res < 0)
		return res;
	const struct superblock *sb = &d->superblock;
	snprintf(d->name, sizeof d->name, "disk %.*s", (int)DISK_LABEL_BYTES, sb->label);
	if (d->options.cluster && !uuid_is_zero(&sb->cluster) && !uuid_equal(&sb->cluster, d->options.cluster)) {
		char text[UUID_TEXT_BYTES];
		uuid_to_text(&sb->cluster, text);
		return recovery_fail(r, "belongs to another cluster (%s): it is left alone", text);
	}
	if (sb->checkpoint < d->options.checkpoint_min)
		return refuse_older(r);
	if (sb->n_blocks > r->device_blocks)
		return recovery_fail(r, "has shrunk from %s to %s: restore its size, with what lay at its end",
				     size_text(sb->n_blocks * BLOCK_BYTES, old),
				     size_text(r->device_blocks * BLOCK_BYTES, new));
	if (sb->features_read_only & ~FEATURES_READ_ONLY_KNOWN)
		d->options.is_read_only = true;
	uint64_t n_blocks = min_u64(r->device_blocks, DISK_MAX_BLOCKS);
	if (n_blocks > sb->n_blocks)
		log_event(d->log, LOG_NOTICE, "disk-grown", d->name, "the device has grown from %s to %s",
			  size_text(sb->n_blocks * BLOCK_BYTES, old), size_text(n_blocks * BLOCK_BYTES, new));
	return disk_size_parts(d, n_blocks);
}

/* ---- the journal's end ---- */

static void scan_begin(struct recovery *r)
{
	space_start(&r->disk->space);
	r->next = r->disk->superblock.replay_from;
	r->known_flushed = r->next - 1;
}

static enum flow recovery_scan(struct recovery *r)
{
	struct disk *d = r->disk;
	const struct superblock *sb = &d->superblock;
	for (;;) {
		struct journal_header h;
		if (chunk_read(r, r->next) == FLOW_WAIT)
			return FLOW_WAIT;
		if (r->is_unreadable[r->chunk_at]) {
			r->err = recovery_fail(r,
					       "journal block %llu cannot be read: whether it is the journal's end or "
					       "holds completed writes cannot be told; copy the disk with a tool that "
					       "reads around errors, and run `quarry disk check` on the copy",
					       (unsigned long long)r->next);
			return FLOW_NEXT;
		}
		bool is_whole = journal_block_open(chunk_block(r), &sb->disk, &h) == 0;
		if (!is_whole || h.sequence != r->next || r->next - sb->replay_from >= sb->journal_blocks)
			return FLOW_NEXT;
		if (h.checkpoint > sb->checkpoint) {
			r->err = recovery_fail(
			    r,
			    "journal block %llu is newer than every superblock (checkpoint %llu, found %llu): "
			    "a superblock was lost, and with it the way to the data; run `quarry disk check`",
			    (unsigned long long)h.sequence, (unsigned long long)h.checkpoint,
			    (unsigned long long)sb->checkpoint);
			return FLOW_NEXT;
		}
		r->known_flushed = max_u64(r->known_flushed, h.flushed);
		r->next++;
		r->chunk_at++;
	}
}

static void beyond_begin(struct recovery *r)
{
	r->cursor = r->next + 1;
	r->chunk_at = r->chunk_n = 0;
}

/* Is there a valid block of this journal behind its end that says that the end was flushed? Others may be there after a
 * power loss: what the device had completed and not flushed is lost or not, block by block, however much it was. */
static enum flow recovery_beyond(struct recovery *r)
{
	struct disk *d = r->disk;
	const struct superblock *sb = &d->superblock;
	uint64_t end = sb->replay_from + sb->journal_blocks;
	while (r->cursor < end) {
		struct journal_header h;
		if (chunk_read(r, r->cursor) == FLOW_WAIT)
			return FLOW_WAIT;
		const uint8_t *block = chunk_block(r);
		r->chunk_at++;
		uint64_t expected = r->cursor++;
		if (journal_block_open(block, &sb->disk, &h) < 0 || h.sequence != expected)
			continue;
		if (h.flushed < r->next) {
			r->last_beyond = h.sequence;
			continue;
		}
		r->err = recovery_fail(
		    r,
		    "journal block %llu is damaged, but block %llu after it is whole: completed writes would be "
		    "lost; run `quarry disk check`",
		    (unsigned long long)r->next, (unsigned long long)h.sequence);
		return FLOW_NEXT;
	}
	return FLOW_NEXT;
}

/* ---- the end ---- */

static void begin_journal(struct recovery *r)
{
	struct disk *d = r->disk;
	journal_start(&d->journal, r->next + d->superblock.journal_blocks);
	log_line(d->log, LOG_INFO, "disk",
		 "%s: recovered to checkpoint %llu and %llu journal blocks: %llu records replayed, %llu dropped",
		 d->name, (unsigned long long)d->superblock.checkpoint,
		 (unsigned long long)(r->next - d->superblock.replay_from), (unsigned long long)d->replayed_records,
		 (unsigned long long)d->dropped_records);
	if (r->last_beyond >=
	    r->next + JOURNAL_IN_FLIGHT_MAX) /* of a process that was killed, no more can be missing */
		log_event(
		    d->log, LOG_WARNING, "journal-cut", d->name,
		    "journal blocks from %llu to %llu were complete, never flushed, and are not all there: writes "
		    "after "
		    "the last flush are lost, as a power loss may do; if there was none, the medium has lost them",
		    (unsigned long long)r->next, (unsigned long long)r->last_beyond);
	if (d->dropped_records > 0)
		log_event(
		    d->log, LOG_NOTICE, "writes-dropped", d->name,
		    "%llu writes that no flush had covered were incomplete after the power loss and do not count; "
		    "the first of them: %s",
		    (unsigned long long)d->dropped_records, r->first_dropped);
}

static void recovery_end(struct recovery *r)
{
	struct disk *d = r->disk;
	int err = r->err ? r->err : d->state == DISK_FAILED ? -EIO : 0;
	if (!err && !d->options.is_read_only)
		disk_settle_parts(d);
	d->recovery_ns = reactor_now_ns(d->reactor) - r->started_ns;
	d->recovery = NULL;
	recovery_destroy(r);
	if (err && !d->options.is_probe)
		log_event(d->log, LOG_ERROR, "disk-unusable", d->name, "%s", d->why[0] ? d->why : strerror(-err));
	disk_recovered(d, err);
	disk_request_ended(d);
}

/*
 * Did the machine lose power with the disk open? What was not flushed may be gone then, whole records of it without a trace,
 * so every volume is suspect from here on, until it is told of a complete epoch [INTACT]. A process that was killed has lost
 * nothing that was answered. The count is durable, with the run of the machine, before anything is answered: with the
 * checkpoint that ends the recovery. Where it is not known whether the machine still runs, it is said not to.
 */
static void note_power_loss(struct recovery *r)
{
	struct superblock *sb = &r->disk->superblock;
	struct uuid boot = reactor_boot(r->disk->reactor);
	bool is_same_run = !uuid_is_zero(&boot) && uuid_equal(&boot, &sb->boot);
	bool was_closed = sb->is_clean && r->next == sb->replay_from;
	sb->power_losses += !is_same_run && !was_closed;
	sb->boot = boot;
}

static enum flow recovery_flush(struct recovery *r)
{
	struct disk *d = r->disk;
	if (r->is_begun)
		return r->is_woken ? FLOW_NEXT : FLOW_WAIT;
	r->is_begun = true;
	begin_journal(r);
	if (d->options.is_read_only)
		return FLOW_NEXT;
	note_power_loss(r);
	r->is_woken = false;
	flusher_wait(&d->flusher, &r->waiter);
	return FLOW_WAIT;
}

static enum flow recovery_checkpoint(struct recovery *r)
{
	if (r->is_begun)
		return r->is_woken ? FLOW_NEXT : FLOW_WAIT;
	r->is_begun = true;
	r->is_woken = false;
	checkpoint_wait(&r->disk->checkpoint, &r->waiter);
	return FLOW_WAIT;
}

static void recovery_goto(struct recovery *r, enum recovery_stage stage)
{
	r->stage = stage;
	r->is_begun = false;
	r->cursor = 0;
}

/* What must hold whenever the dispatcher is entered. */
static void recovery_check(const struct recovery *r)
{
	const struct disk *d = r->disk;
	quarry_assert(r->n_batch <= RECOVERY_RECORDS_MAX && (r->stage != RECOVERY_APPLY || r->batch_at <= r->n_batch));
	quarry_assert(r->n_data <= RECOVERY_DATA_BLOCKS && r->chunk_at <= r->chunk_n);
	/* nothing is written before the flush [RECFLUSH], nor forgotten before all is replayed */
	quarry_assert(r->stage >= RECOVERY_FLUSH || !d->flusher.is_busy);
	quarry_assert(r->stage >= RECOVERY_CHECKPOINT || checkpoint_is_idle(&d->checkpoint));
}

/* Read this function to know a whole recovery. */
static void recovery_run(struct recovery *r)
{
	while (r->owed == 0) {
		recovery_check(r);
		if (r->err || r->disk->state == DISK_FAILED)
			recovery_goto(r, RECOVERY_END);
		switch (r->stage) {
		case RECOVERY_SUPERBLOCKS:
			if (recovery_superblocks(r) == FLOW_WAIT)
				return;
			recovery_goto(r, RECOVERY_TABLES);
			break;
		case RECOVERY_TABLES:
			if (recovery_tables(r) == FLOW_WAIT)
				return;
			recovery_goto(r, RECOVERY_RECORDS);
			break;
		case RECOVERY_RECORDS:
			if (recovery_records(r) == FLOW_WAIT)
				return;
			recovery_goto(r, RECOVERY_DELTAS);
			break;
		case RECOVERY_DELTAS:
			if (recovery_deltas(r) == FLOW_WAIT)
				return;
			scan_begin(r);
			recovery_goto(r, RECOVERY_SCAN);
			break;
		case RECOVERY_SCAN:
			if (recovery_scan(r) == FLOW_WAIT)
				return;
			recovery_goto(r, RECOVERY_BEYOND);
			beyond_begin(r);
			break;
		case RECOVERY_BEYOND:
			if (recovery_beyond(r) == FLOW_WAIT)
				return;
			replay_begin(r);
			recovery_goto(r, RECOVERY_FETCH);
			break;
		case RECOVERY_FETCH:
			if (replay_fetch(r) == FLOW_WAIT)
				return;
			recovery_goto(r, r->n_batch > 0 ? RECOVERY_VERIFY : RECOVERY_FLUSH);
			break;
		case RECOVERY_VERIFY:
			replay_verify(r);
			recovery_goto(r, RECOVERY_APPLY);
			break;
		case RECOVERY_APPLY:
			if (replay_apply(r) == FLOW_WAIT)
				return;
			recovery_goto(r, RECOVERY_FETCH);
			break;
		case RECOVERY_FLUSH:
			if (recovery_flush(r) == FLOW_WAIT)
				return;
			recovery_goto(r, r->disk->options.is_read_only ? RECOVERY_END : RECOVERY_CHECKPOINT);
			break;
		case RECOVERY_CHECKPOINT:
			if (recovery_checkpoint(r) == FLOW_WAIT)
				return;
			recovery_goto(r, RECOVERY_END);
			break;
		case RECOVERY_END:
			recovery_end(r);
			return;
		}
	}
}

int recovery_start(struct disk *d)
{
	struct recovery *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->disk = d;
	r->started_ns = reactor_now_ns(d->reactor);
	r->waiter.wake = woken;
	list_init(&r->waiter.link);
	r->buffer = aligned_alloc(BLOCK_BYTES, RECOVERY_BUFFER_BLOCKS * BLOCK_BYTES);
	r->data = aligned_alloc(BLOCK_BYTES, RECOVERY_DATA_BLOCKS * BLOCK_BYTES);
	if (!r->buffer || !r->data) {
		recovery_destroy(r);
		return -ENOMEM;
	}
	d->recovery = r;
	d->n_requests++;
	recovery_run(r);
	return 0;
}

void recovery_destroy(struct recovery *r)
{
	free(r->buffer);
	free(r->data);
	free(r);
}
