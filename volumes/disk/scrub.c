/*
 * scrub.c: reads all that the disk holds from the device, verifies it, and straightens leaves that lie in many runs.
 *
 *   FIND -> SETTLE -> READ -> VERIFY -> (PLACE -> WRITE -> SWAP) -> PAUSE -> FIND ...
 *     \-> (no tree is left) TABLES -> COMPARE -> TABLES ... -> END
 *
 * First the trees, leaf by leaf. FIND notes the leaf's pointers; SETTLE waits until every write that was under way then
 * is on the device, so that what is read is what the pointers say or is damaged. Straightening writes the leaf's data
 * once more, side by side, and then SWAP lets those pointers that are still the same name the new blocks.
 *
 * Then what the last checkpoint wrote beside them, a batch at a time (scrub_tables.c): TABLES reads it while no checkpoint
 * is under way, COMPARE holds it against what named it.
 *
 * Invariants
 *  1. From FIND to the end of READ the scrub counts as a read in flight: no block it looks at is reused [PIN].
 *  2. SWAP changes where blocks lie, never what they hold; so it needs no record: after a crash the old places are
 *     still right, since they are not reused before the next checkpoint [ckfree].
 *  3. Only blocks that this tree alone names are moved: its leaf is unshared, and each block's count is 1.
 *  4. Each finding is counted once, told as an event, and the scrub goes on.
 *  5. A scrub that is due begins by itself, slowly; one that is asked for meanwhile makes it as fast as was asked.
 *  6. It heals nothing itself: whoever has the disk open is told of each damaged block of data, and may know of a copy.
 */
#include "volumes/disk/scrub_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SCRUB_SLOW_BYTES_PER_S (8 * MIB)          /* of one that is due: a TiB takes a day and a half */
#define SCRUB_DELAY_NS         (600 * NS_PER_S)   /* after a start or a failed one: others come first */
#define SCRUB_LOOK_NS          (86400 * NS_PER_S) /* so often at least it looks at the clock, which people set */

static void scrub_run(struct scrub *s);

/* What this page covers is done with; level 1: the leaf at the cursor. */
static void scrub_skip(struct scrub *s, unsigned level)
{
	s->cursor = (s->cursor / tree_span(level) + 1) * tree_span(level);
	s->is_unaskable = false;
}

/* ---- its door ---- */

static void scrub_skip_unread(struct scrub *s)
{
	s->status.bad_blocks++;
	scrub_skip(s, s->missing);
}

/* What could not be read was told where it was found: what lies below a page that is not known is skipped, and a leaf is
 * verified but not straightened where only that is in doubt. */
static void scrub_woken(struct waiter *w, int res)
{
	struct scrub *s = container_of(w, struct scrub, waiter);
	if (res < 0 && s->stage != SCRUB_FIND)
		s->woken_err = res;
	else if (res < 0 && s->is_asking)
		s->is_unaskable = true;
	else if (res < 0)
		scrub_skip_unread(s);
	scrub_run(s);
}

static void scrub_op_done(struct op *op, int res)
{
	struct scrub_op *o = container_of(op, struct scrub_op, op);
	struct scrub *s = o->scrub;
	o->res = res;
	quarry_assert(s->owed > 0);
	if (--s->owed == 0)
		scrub_run(s);
}

static void scrub_tick(struct timer *t)
{
	scrub_run(container_of(t, struct scrub, timer));
}

static void scrub_again(struct op *op, int res)
{
	(void)res;
	scrub_run(container_of(op, struct scrub, again));
}

/* ---- finding the next leaf ---- */

static bool scrub_is_at(const struct scrub *s, const struct disk_tree *t)
{
	return t->record.tree_id == s->tree_id && uuid_equal(&t->record.volume, &s->volume);
}

static struct disk_tree *scrub_tree(struct scrub *s)
{
	struct disk *d = s->disk;
	for (; s->slot < d->n_tree_slots; s->slot++, s->cursor = 0) {
		struct disk_tree *t = d->trees[s->slot];
		if (!t || t->record.state != TREE_LIVE)
			continue;
		if (s->cursor > 0 && !scrub_is_at(s, t))
			s->cursor = 0;
		if (s->cursor == 0)
			memset(s->path, 0, sizeof s->path);
		s->volume = t->record.volume;
		s->tree_id = t->record.tree_id;
		if (t->record.height > 0 && s->cursor < tree_span(t->record.height))
			return t;
	}
	return NULL;
}

void scrub_add(struct scrub *s, enum block_kind kind, struct pointer p, uint32_t first, uint32_t n, uint8_t *memory)
{
	struct scrub_op *o = &s->ops[s->n_ops++];
	quarry_assert(s->n_ops <= SCRUB_READS_MAX);
	*o = (struct scrub_op){.scrub = s,
			       .kind = kind,
			       .pointer = p,
			       .first = first,
			       .n_blocks = n,
			       .iov = {memory, (size_t)n * BLOCK_BYTES}};
}

/* A page that is dirty or that a checkpoint is just writing is not on the device yet. */
static bool page_is_written(struct disk *d, struct pointer p)
{
	const struct frame *f = pointer_is_virtual(p) ? NULL : pages_find(&d->pages, p);
	return f && f->state == FRAME_CLEAN;
}

/* Notes the reads of the leaf at the cursor: its data in runs, and the pages on the way to it that were not read yet. */
static void scrub_note(struct scrub *s, struct disk_tree *t, const struct pointer path[TREE_HEIGHT_MAX + 1])
{
	s->n_ops = s->n_data = 0;
	uint32_t n_runs = 0;
	for (uint32_t i = 0, n; i < PAGE_POINTERS; i += n) {
		uint64_t block = pointer_block(s->pointers[i]);
		for (n = 1; i + n < PAGE_POINTERS && block && pointer_block(s->pointers[i + n]) == block + n;)
			n++;
		if (block == 0)
			continue;
		scrub_add(s, KIND_DATA, s->pointers[i], i, n, s->data + (size_t)i * BLOCK_BYTES);
		s->n_data += n;
		n_runs++;
	}
	s->is_swappable = s->straighten && n_runs >= SCRUB_RUNS_MIN && !s->is_unaskable;
	for (unsigned level = 1; level <= t->record.height; level++) {
		bool is_seen = path[level].low == s->path[level].low && path[level].high == s->path[level].high;
		if (is_seen || pointer_is_hole(path[level]) || !page_is_written(s->disk, path[level]))
			continue;
		s->path[level] = path[level];
		scrub_add(s, KIND_PAGE, path[level], 0, 1, s->data + (size_t)(PAGE_POINTERS + level) * BLOCK_BYTES);
	}
	s->leaf_bytes = (uint64_t)s->n_data * BLOCK_BYTES;
}

/* Is the block named by nobody else? What is younger than the last fork is not; else its count says. */
static int block_is_private(struct disk_tree *t, struct pointer p, struct waiter *w)
{
	if (pointer_is_hole(p) || pointer_epoch(p) > t->record.fork_epoch)
		return 1;
	int count = space_count(&t->disk->space, pointer_block(p), w);
	return count < 0 ? count : count == 1;
}

/* Whether the leaf at the cursor may be straightened, if that is wanted. 0, or -EAGAIN: waits. */
static int scrub_ask(struct scrub *s, struct disk_tree *t)
{
	int res = s->is_swappable ? tree_path_is_private(t, s->cursor, 1, &s->waiter) : 0;
	for (uint32_t i = 0; i < PAGE_POINTERS && res == 1; i++)
		res = block_is_private(t, s->pointers[i], &s->waiter);
	s->is_swappable = res == 1;
	s->is_asking = res == -EAGAIN;
	return res == -EAGAIN ? res : 0;
}

/* The level of the first page on the way to the cursor that is not in the cache: the one that is waited for. */
static unsigned scrub_missing(struct scrub *s, struct disk_tree *t)
{
	struct pages *pages = &s->disk->pages;
	struct pointer p = t->record.root;
	unsigned level = t->record.height;
	for (struct frame *f; level > 1 && !pointer_is_hole(p) && (f = pages_find(pages, p)) != NULL; level--)
		p = f->page->p[s->cursor >> (PAGE_SHIFT * (level - 1)) & (PAGE_POINTERS - 1)];
	return level;
}

static enum flow scrub_find(struct scrub *s)
{
	struct disk *d = s->disk;
	struct disk_tree *t;
	s->is_asking = false;
	for (unsigned steps = 0; (t = scrub_tree(s)) != NULL; steps++) {
		struct pointer path[TREE_HEIGHT_MAX + 1];
		struct disk_extent piece;
		uint64_t end = tree_span(t->record.height);
		if (steps == 64) {
			reactor_defer(d->reactor, &s->again, 0);
			return FLOW_WAIT;
		}
		s->missing = scrub_missing(s, t);
		int res = tree_look(t, s->cursor, end, 0, &piece, &s->waiter);
		if (res == 0)
			res = tree_path(t, s->cursor, path, &s->waiter);
		if (res == -EAGAIN)
			return FLOW_WAIT;
		if (res == 0 && pointer_is_hole(path[1]) && !piece.is_data) {
			s->cursor = leaf_start(piece.first + piece.n_blocks);
			s->is_unaskable = false;
			continue;
		}
		pages_guard(&d->pages);
		if (res == 0)
			res = tree_get(t, s->cursor, PAGE_POINTERS, s->pointers, &s->waiter);
		if (res == -EAGAIN)
			return FLOW_WAIT;
		if (res == 0) {
			scrub_note(s, t, path);
			return scrub_ask(s, t) == -EAGAIN ? FLOW_WAIT : FLOW_NEXT;
		}
		scrub_skip_unread(s);
	}
	return FLOW_NEXT;
}

/* ---- reading and verifying ---- */

static void scrub_pin(struct scrub *s)
{
	struct disk *d = s->disk;
	s->is_pinned = true;
	s->read_side = d->read_side;
	d->reads_in_flight[s->read_side]++;
	s->settle_at = d->journal.n_records > 0 ? d->journal.sequence : d->journal.sequence - 1;
}

static void scrub_unpin(struct scrub *s)
{
	struct disk *d = s->disk;
	if (!s->is_pinned)
		return;
	s->is_pinned = false;
	if (--d->reads_in_flight[s->read_side] == 0 && s->read_side != d->read_side)
		checkpoint_poke(&d->checkpoint);
}

/* What was under way when the leaf was found is on the device. */
static enum flow scrub_settle(struct scrub *s)
{
	struct journal *j = &s->disk->journal;
	if (j->settled >= s->settle_at)
		return FLOW_NEXT;
	list_append(&j->waiters, &s->waiter.link);
	return FLOW_WAIT;
}

static void scrub_read(struct scrub *s)
{
	for (uint32_t i = 0; i < s->n_ops; i++) {
		struct scrub_op *o = &s->ops[i];
		op_init(&o->op, scrub_op_done);
		s->owed++;
		file_read(s->disk->file, &o->op, &o->iov, 1, pointer_block(o->pointer) * BLOCK_BYTES);
	}
}

static void scrub_found(struct scrub *s, const char *what, struct pointer p, uint64_t block, int res)
{
	struct disk *d = s->disk;
	s->status.bad_blocks++;
	s->is_swappable = false;
	counter_add(&d->counters.checksum_errors, 1);
	char tree[TREE_TEXT_BYTES];
	disk_tree_to_text(d, &s->volume, s->tree_id, tree);
	disk_report_damage(d, what, pointer_block(p), "scrub: block %llu of %s %s", (unsigned long long)block, tree,
			   res < 0 ? "cannot be read" : "does not match its checksum");
}

/* A block of the leaf at the cursor. */
static void scrub_found_data(struct scrub *s, uint32_t i, int res)
{
	const struct disk_options *o = &s->disk->options;
	scrub_found(s, "data", s->pointers[i], s->cursor + i, res);
	if (o->damaged)
		o->damaged(&s->volume, s->tree_id, s->cursor + i, o->context);
}

static void scrub_verify(struct scrub *s)
{
	for (uint32_t i = 0; i < s->n_ops; i++) {
		const struct scrub_op *o = &s->ops[i];
		if (o->kind == KIND_PAGE) {
			if (o->res < 0 || block_crc(KIND_PAGE, o->iov.iov_base) != pointer_crc(o->pointer))
				scrub_found(s, "page", o->pointer, s->cursor, o->res);
			continue;
		}
		for (uint32_t k = 0; k < o->n_blocks; k++) {
			struct pointer p = s->pointers[o->first + k];
			if (o->res < 0 || block_crc(KIND_DATA, (uint8_t *)o->iov.iov_base + (size_t)k * BLOCK_BYTES) !=
					      pointer_crc(p))
				scrub_found_data(s, o->first + k, o->res);
		}
		s->status.done_blocks += o->n_blocks;
	}
}

/* ---- straightening ---- */

/* Straightening takes no more of the dirty pages than the clients leave. */
static bool has_dirty_room(const struct disk *d)
{
	return d->pages.n_dirty + d->space.n_dirty < d->pages.dirty_max / 4 * 3;
}

/* The error that woke it, once. */
static int scrub_take_error(struct scrub *s)
{
	int err = s->woken_err;
	s->woken_err = 0;
	return err;
}

/* Takes fresh blocks for the leaf's data, side by side where the disk has room. */
static enum flow scrub_place(struct scrub *s)
{
	struct disk *d = s->disk;
	if (!has_dirty_room(d)) {
		checkpoint_wait(&d->checkpoint, &s->waiter);
		return FLOW_WAIT;
	}
	s->n_runs = 0; /* nothing is kept from one turn to the next until all is taken */
	if (scrub_take_error(s) < 0 || !space_has_room(&d->space, s->n_data)) {
		s->is_swappable = false;
		return FLOW_NEXT;
	}
	for (uint32_t n = 0; n < s->n_data;) {
		int res = space_alloc(&d->space, SPACE_DATA, s->n_data - n, &s->runs[s->n_runs], &s->waiter);
		if (res == 0) {
			n += s->runs[s->n_runs++].n_blocks;
			continue;
		}
		while (s->n_runs > 0)
			space_give_back(&d->space, s->runs[--s->n_runs]);
		if (res == -EAGAIN)
			return FLOW_WAIT;
		s->is_swappable = false;
		return FLOW_NEXT;
	}
	if (s->n_runs > SCRUB_RUNS_MIN / 2) { /* the free space is no straighter than the leaf */
		while (s->n_runs > 0)
			space_give_back(&d->space, s->runs[--s->n_runs]);
		s->is_swappable = false;
	}
	for (uint32_t i = 0; i < s->n_runs; i++)
		space_keep(&d->space, s->runs[i]);
	return FLOW_NEXT;
}

/* Brings the data together in memory, in order, and writes the runs. */
static void scrub_write(struct scrub *s)
{
	uint32_t at = 0, run = 0, in_run = 0;
	for (uint32_t i = 0; i < PAGE_POINTERS; i++) {
		struct pointer p = s->pointers[i];
		s->moved[i] = p;
		if (pointer_is_hole(p))
			continue;
		memmove(s->data + (size_t)at++ * BLOCK_BYTES, s->data + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
		s->moved[i] = pointer_make(pointer_crc(p), s->runs[run].block + in_run, pointer_epoch(p));
		if (++in_run == s->runs[run].n_blocks) {
			run++;
			in_run = 0;
		}
	}
	quarry_assert(at == s->n_data && run == s->n_runs);
	at = 0;
	for (uint32_t i = 0; i < s->n_runs; i++) {
		struct scrub_op *o = &s->ops[i];
		o->iov = (struct iovec){s->data + (size_t)at * BLOCK_BYTES, (size_t)s->runs[i].n_blocks * BLOCK_BYTES};
		at += s->runs[i].n_blocks;
		op_init(&o->op, scrub_op_done);
		s->owed++;
		flusher_note_written(&s->disk->flusher, o->iov.iov_len);
		file_write(s->disk->file, &o->op, &o->iov, 1, s->runs[i].block * BLOCK_BYTES);
	}
}

/* The new blocks take the places of those that are still named; the others were written anew meanwhile. */
static enum flow scrub_swap(struct scrub *s)
{
	struct disk *d = s->disk;
	struct disk_tree *t = disk_tree_at(d, s->slot);
	struct pointer now[PAGE_POINTERS];
	int res = scrub_take_error(s), is_private = 0;
	uint32_t n_swapped = 0;
	for (uint32_t i = 0; i < s->n_runs; i++)
		if (s->ops[i].res < 0)
			disk_fail_io(d, s->ops[i].res, "writing a straightened leaf");
	bool is_there = t && t->record.state == TREE_LIVE && scrub_is_at(s, t);
	if (res == 0 && is_there && disk_is_alive(d)) {
		pages_guard(&d->pages);
		res = tree_prepare(t, s->cursor, &s->waiter);
		if (res == 0)
			res = tree_get(t, s->cursor, PAGE_POINTERS, now, &s->waiter);
		if (res == 0)
			res = is_private = tree_path_is_private(t, s->cursor, 1, &s->waiter);
	}
	if (res == -EAGAIN)
		return FLOW_WAIT;
	for (uint32_t i = 0; i < PAGE_POINTERS; i++) {
		struct pointer old = s->pointers[i];
		if (pointer_is_hole(old))
			continue;
		bool is_same = is_private == 1 && now[i].low == old.low && now[i].high == old.high &&
			       block_is_private(t, old, NULL) == 1;
		if (!is_same || !disk_is_alive(d)) {
			space_give_back(&d->space, (struct run){pointer_block(s->moved[i]), 1});
			continue;
		}
		space_take(&d->space, pointer_block(s->moved[i]), 1);
		tree_set(t, s->cursor + i, &s->moved[i], 1);
		n_swapped++;
	}
	for (uint32_t i = 0; i < s->n_runs; i++)
		space_let_go(&d->space, s->runs[i]);
	s->status.straightened_leaves += n_swapped > 0;
	disk_watch_limits(d);
	return FLOW_NEXT;
}

/* ---- the tables ---- */

/* What the last checkpoint wrote is read before the next one begins to take its place; then its blocks are pinned. */
static enum flow scrub_tables(struct scrub *s)
{
	struct disk *d = s->disk;
	if (!checkpoint_is_idle(&d->checkpoint)) {
		list_append(&d->checkpoint.waiters, &s->waiter.link);
		return FLOW_WAIT;
	}
	s->n_ops = 0;
	s->is_whole = !scrub_tables_note(s);
	if (s->is_whole)
		return FLOW_NEXT;
	s->leaf_bytes = (uint64_t)s->n_ops * BLOCK_BYTES;
	scrub_pin(s);
	scrub_read(s);
	return FLOW_NEXT;
}

/* ---- the walk ---- */

/* Slower than asked for when the rate says so; and between two leaves the clients get their turn. */
static void scrub_pause(struct scrub *s)
{
	if (s->bytes_per_s == 0 || s->leaf_bytes == 0)
		reactor_defer(s->disk->reactor, &s->again, 0);
	else
		timer_start(s->disk->reactor, &s->timer, s->leaf_bytes * NS_PER_S / s->bytes_per_s);
}

/* It has seen everything, and all of it is whole: what was met until now is history. */
static void scrub_settle_errors(struct scrub *s)
{
	const struct disk_counters *c = &s->disk->counters;
	if (s->status.is_running || !s->is_whole || s->status.bad_blocks > s->status.healed_blocks)
		return;
	s->status.settled_checksum_errors = counter_get(&c->checksum_errors);
	s->status.settled_io_errors = counter_get(&c->io_errors);
}

static void scrub_end(struct scrub *s)
{
	struct disk *d = s->disk;
	scrub_unpin(s);
	s->status.is_running = false;
	s->status.ended_wall_ns = reactor_wall_ns(d->reactor);
	scrub_settle_errors(s);
	if (s->is_whole) /* the next checkpoint makes it durable */
		d->scrubbed_wall_ns = s->status.ended_wall_ns;
	scrub_schedule(d);
	log_event(d->log, s->status.bad_blocks ? LOG_ERROR : LOG_INFO, "scrub-ended", d->name,
		  "%llu blocks verified, %llu damaged (of which %llu are healed), %llu leaves straightened",
		  (unsigned long long)s->status.done_blocks, (unsigned long long)s->status.bad_blocks,
		  (unsigned long long)s->status.healed_blocks, (unsigned long long)s->status.straightened_leaves);
	disk_request_ended(d);
}

/* What must hold whenever the dispatcher is entered: reads are in flight only where they are waited for, and what they
 * read stays as it is meanwhile [PIN]. */
static void scrub_check(const struct scrub *s)
{
	bool waits = s->stage == SCRUB_READ || s->stage == SCRUB_WRITE || s->stage == SCRUB_COMPARE;
	bool reads =
	    s->stage == SCRUB_SETTLE || s->stage == SCRUB_READ || s->stage == SCRUB_VERIFY || s->stage == SCRUB_COMPARE;
	quarry_assert(s->owed == 0 || waits);
	quarry_assert(s->is_pinned == reads || s->stage == SCRUB_END);
}

/* It is to stop, and nothing that it has taken is to be given back first. */
static void scrub_divert(struct scrub *s)
{
	bool is_over = s->is_stopping || s->disk->state != DISK_RUNNING;
	bool may_stop = s->stage != SCRUB_WRITE && s->stage != SCRUB_SWAP;
	if (is_over && may_stop && s->owed == 0)
		s->stage = SCRUB_END;
}

/* Read this function to know a whole scrub. */
static void scrub_run(struct scrub *s)
{
	while (s->status.is_running) {
		scrub_check(s);
		scrub_divert(s);
		switch (s->stage) {
		case SCRUB_FIND:
			if (scrub_find(s) == FLOW_WAIT)
				return;
			s->stage = scrub_tree(s) ? SCRUB_SETTLE : SCRUB_TABLES;
			if (s->stage == SCRUB_SETTLE)
				scrub_pin(s);
			break;
		case SCRUB_SETTLE:
			if (scrub_settle(s) == FLOW_WAIT)
				return;
			s->stage = SCRUB_READ;
			scrub_read(s);
			break;
		case SCRUB_READ:
			if (s->owed > 0)
				return;
			s->stage = SCRUB_VERIFY;
			break;
		case SCRUB_VERIFY:
			scrub_verify(s);
			scrub_unpin(s);
			s->stage = s->is_swappable ? SCRUB_PLACE : SCRUB_PAUSE;
			break;
		case SCRUB_PLACE:
			if (scrub_place(s) == FLOW_WAIT)
				return;
			s->stage = s->is_swappable ? SCRUB_WRITE : SCRUB_PAUSE;
			if (s->is_swappable)
				scrub_write(s);
			break;
		case SCRUB_WRITE:
			if (s->owed > 0)
				return;
			s->stage = SCRUB_SWAP;
			break;
		case SCRUB_SWAP:
			if (scrub_swap(s) == FLOW_WAIT)
				return;
			s->stage = SCRUB_PAUSE;
			break;
		case SCRUB_PAUSE:
			scrub_skip(s, 1);
			s->stage = SCRUB_FIND;
			scrub_pause(s);
			return;
		case SCRUB_TABLES:
			if (scrub_tables(s) == FLOW_WAIT)
				return;
			s->stage = s->is_whole ? SCRUB_END : SCRUB_COMPARE;
			break;
		case SCRUB_COMPARE:
			if (s->owed > 0)
				return;
			scrub_tables_compare(s);
			scrub_unpin(s);
			s->stage = SCRUB_TABLES;
			scrub_pause(s);
			return;
		case SCRUB_END:
			scrub_end(s);
			return;
		}
	}
}

int disk_scrub_start(struct disk *d, uint64_t bytes_per_s, bool straighten)
{
	struct scrub *s = d->scrub;
	struct disk_scrub last;
	if (d->state != DISK_RUNNING)
		return -EIO;
	if (s && s->status.is_running && s->is_slow && !s->is_stopping) {
		s->is_slow = false;
		s->bytes_per_s = bytes_per_s;
		return 0;
	}
	if (s && s->status.is_running)
		return -EBUSY;
	disk_scrub_status(d, &last);
	if (s)
		scrub_destroy(s);
	d->scrub = s = calloc(1, sizeof(*s));
	if (s)
		s->data = aligned_alloc(BLOCK_BYTES, (size_t)(PAGE_POINTERS + TREE_HEIGHT_MAX + 1) * BLOCK_BYTES);
	if (!s || !s->data) {
		free(s);
		d->scrub = NULL;
		return -ENOMEM;
	}
	s->disk = d;
	s->bytes_per_s = bytes_per_s;
	s->straighten = straighten && !d->options.is_read_only;
	s->waiter.wake = scrub_woken;
	list_init(&s->waiter.link);
	timer_init(&s->timer, scrub_tick);
	op_init(&s->again, scrub_again);
	s->status = (struct disk_scrub){.is_running = true,
					.started_wall_ns = reactor_wall_ns(d->reactor),
					.settled_checksum_errors = last.settled_checksum_errors,
					.settled_io_errors = last.settled_io_errors};
	for (uint32_t i = 0; i < d->n_tree_slots; i++)
		if (d->trees[i] && d->trees[i]->record.state == TREE_LIVE)
			s->status.total_blocks += d->trees[i]->record.n_data_blocks;
	s->status.total_blocks += scrub_tables_blocks(d);
	d->n_requests++;
	reactor_defer(d->reactor, &s->again, 0);
	return 0;
}

/* ---- when it is due ---- */

/* If the last one ended at a time that is yet to come, a clock was wrong: nobody knows when it was. */
static uint64_t scrub_due_at(const struct disk *d, uint64_t now_ns)
{
	return d->scrubbed_wall_ns > now_ns ? 0 : d->scrubbed_wall_ns + d->options.scrub_every_ns;
}

void scrub_schedule(struct disk *d)
{
	uint64_t now_ns = reactor_wall_ns(d->reactor), due_ns = scrub_due_at(d, now_ns);
	if (d->options.scrub_every_ns == 0 || d->options.is_read_only || d->state != DISK_RUNNING)
		return;
	uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
	timer_start(d->reactor, &d->scrub_timer, max_u64(SCRUB_DELAY_NS, min_u64(wait_ns, SCRUB_LOOK_NS)));
}

void scrub_due(struct timer *t)
{
	struct disk *d = container_of(t, struct disk, scrub_timer);
	uint64_t now_ns = reactor_wall_ns(d->reactor);
	bool is_due = now_ns >= scrub_due_at(d, now_ns);
	if (is_due && disk_scrub_start(d, SCRUB_SLOW_BYTES_PER_S, true) == 0)
		d->scrub->is_slow = true;
	else
		scrub_schedule(d);
}

void disk_scrub_stop(struct disk *d)
{
	struct scrub *s = d->scrub;
	timer_stop(d->reactor, &d->scrub_timer);
	if (!s || !s->status.is_running)
		return;
	s->is_stopping = true;
	if (timer_is_running(&s->timer)) { /* it pauses: no need to wait for it */
		timer_stop(d->reactor, &s->timer);
		scrub_run(s);
	}
}

void disk_scrub_status(const struct disk *d, struct disk_scrub *out)
{
	*out = d->scrub ? d->scrub->status : (struct disk_scrub){0};
}

void disk_scrub_healed(struct disk *d, uint64_t started_wall_ns, uint64_t n_blocks)
{
	struct scrub *s = d->scrub;
	if (!s || s->status.started_wall_ns != started_wall_ns)
		return; /* a later one has begun, which finds what is still damaged */
	s->status.healed_blocks = min_u64(s->status.healed_blocks + n_blocks, s->status.bad_blocks);
	scrub_settle_errors(s);
}

void scrub_destroy(struct scrub *s)
{
	timer_stop(s->disk->reactor, &s->timer);
	free(s->data);
	free(s);
}
