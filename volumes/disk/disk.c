/*
 * disk.c: the life of a disk: opened, recovered, running, failed or closed; and what may be asked of it meanwhile.
 *
 *   (opened) --lock--> RECOVERING --recovery.c--> RUNNING --disk_close()--> CLOSING --last checkpoint--> CLOSED
 *                          |                         |                        |
 *                          +-------- error ----------+------> FAILED <--------+
 *
 * Invariants
 *  1. Nothing is read before the lock is held on the description that carries the I/O, and nothing is written before
 *     recovery's flush.
 *  2. n_requests counts requests and operations under way; a disk is freed only at 0.
 *  3. FAILED is final until the disk is opened again: whoever waits gets -EIO, and no change is acknowledged.
 *  4. What was woken runs at the end of the turn, before data, pages and journal are submitted: so all requests of one
 *     turn share writes.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_MIN_BYTES (4 * MIB)
#define RESERVE_BESIDE  64u /* trees and volumes that a small disk takes when its data have filled it */

/* ---- waking, and the end of a turn ---- */

void disk_turn(struct disk *d)
{
	reactor_at_turn_end(d->reactor, &d->hook);
}

void waiter_wake(struct disk *d, struct waiter *w, int res)
{
	quarry_assert(!list_is_linked(&w->link));
	w->res = res;
	list_append(&d->woken, &w->link);
	disk_turn(d);
}

void waiters_wake(struct disk *d, struct list *waiters, int res)
{
	for (struct list *link; (link = list_pop(waiters)) != NULL;)
		waiter_wake(d, container_of(link, struct waiter, link), res);
}

static void disk_end(struct disk *d);

static void turn_end(struct turn_hook *h)
{
	struct disk *d = container_of(h, struct disk, hook);
	struct list now;
	list_init(&now);
	list_splice(&now, &d->woken); /* those woken by these wait for the next turn */
	for (struct list *link; (link = list_pop(&now)) != NULL;) {
		struct waiter *w = container_of(link, struct waiter, link);
		w->wake(w, w->res);
	}
	if (d->state == DISK_CLOSED) { /* one of those woken has closed it */
		disk_end(d);
		return;
	}
	if (disk_is_alive(d)) {
		writer_submit(&d->writer);
		journal_submit(&d->journal);
	} else {
		writer_drop(&d->writer);
	}
	if (!list_is_empty(&d->woken))
		disk_turn(d);
}

/* ---- failure ---- */

static void close_go_on(struct disk *d);

static void tell_opened(struct op *op, int res)
{
	struct disk *d = container_of(op, struct disk, opened_op);
	(void)res;
	close_go_on(d);
	d->options.opened(d, d->opened_res, d->options.context);
}

static void after_failure(struct waiter *w, int res)
{
	struct disk *d = container_of(w, struct disk, fail_waiter);
	(void)res;
	disk_requests_fail(d);
	waiters_wake(d, &d->pages.waiters, -EIO);
	waiters_wake(d, &d->space.waiters, -EIO);
	waiters_wake(d, &d->journal.waiters, -EIO);
	waiters_wake(d, &d->writer.waiters, -EIO);
	if (!d->flusher.is_busy)
		waiters_wake(d, &d->flusher.waiting, -EIO);
	checkpoint_poke(&d->checkpoint);
	if (d->options.failed && d->opened_res == 0)
		d->options.failed(d, d->options.context);
	disk_request_ended(d);
}

void disk_fail(struct disk *d, const char *format, ...)
{
	va_list args;
	if (!disk_is_alive(d))
		return;
	va_start(args, format);
	vsnprintf(d->why, sizeof d->why, format, args);
	va_end(args);
	bool was_open = d->state != DISK_RECOVERING;
	d->state = DISK_FAILED;
	log_event(d->log, LOG_ERROR, "disk-failed", d->name, "%s", d->why);
	if (!was_open)
		return; /* recovery ends by itself and tells */
	d->n_requests++;
	waiter_wake(d, &d->fail_waiter, -EIO);
}

void disk_fail_io(struct disk *d, int err, const char *format, ...)
{
	const char *what = strerrordesc_np(-err), *remedy = "see to the device";
	char doing[80];
	va_list args;
	va_start(args, format);
	vsnprintf(doing, sizeof doing, format, args);
	va_end(args);
	if (err == -ENOSPC) {
		what = "no space is left on the file system that its file lies on";
		remedy = "make room there";
	} else if (err == -EDQUOT) {
		what = "the quota of the file system that its file lies on is used up";
		remedy = "raise it";
	}
	disk_fail(d, "%s failed: %s: %s, then `quarry disk add` its path or start quarryd again", doing,
		  what ? what : "an unknown error", remedy);
}

void disk_tree_to_text(const struct disk *d, const struct uuid *volume, uint64_t tree_id,
		       char text[static TREE_TEXT_BYTES])
{
	const struct disk_options *o = &d->options;
	char name[TREE_TEXT_BYTES - 40];
	_Static_assert(sizeof name >= UUID_TEXT_BYTES, "a UUID has room");
	if (o->name_volume)
		o->name_volume(volume, name, sizeof name, o->context);
	else
		uuid_to_text(volume, name);
	snprintf(text, TREE_TEXT_BYTES, "volume %s, tree %llu", name, (unsigned long long)tree_id);
}

void disk_report_damage(struct disk *d, const char *what, uint64_t block, const char *format, ...)
{
	char text[256];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	log_event(d->log, LOG_ERROR, "damage", d->name, "%s block %llu of the disk: %s", what,
		  (unsigned long long)block, text);
}

/* ---- opening ---- */

static void lock_again(struct timer *t);

/* Every part that needs no superblock. */
static int disk_init(struct disk *d, const struct disk_options *o)
{
	d->options = *o;
	d->reactor = o->reactor;
	d->log = o->log;
	snprintf(d->path, sizeof d->path, "%s", o->path);
	snprintf(d->name, sizeof d->name, "disk %.60s", o->path);
	list_init(&d->dying);
	list_init(&d->woken);
	turn_hook_init(&d->hook, turn_end);
	timer_init(&d->lock_timer, lock_again);
	timer_init(&d->scrub_timer, scrub_due);
	op_init(&d->opened_op, tell_opened);
	d->fail_waiter.wake = after_failure;
	list_init(&d->fail_waiter.link);
	list_init(&d->close_waiter.link);
	table_init(&d->tree_table);
	table_init(&d->volume_table);
	list_init(&d->pages.waiters);
	list_init(&d->space.waiters);
	list_init(&d->space.regions);
	list_init(&d->journal.waiters);
	d->runs = calloc(RUNS_MAX, sizeof(*d->runs));
	if (!d->runs)
		return -ENOMEM;
	disk_requests_init(d);
	flusher_init(&d->flusher, d);
	drop_init(&d->drop, d);
	punch_init(&d->punch, d);
	int res = checkpoint_init(&d->checkpoint, d);
	return res ? res : writer_init(&d->writer, d);
}

static void disk_free(struct disk *d)
{
	for (uint32_t i = 0; i < d->n_tree_slots; i++)
		free(d->trees[i]);
	free(d->trees);
	free(d->volumes);
	free(d->runs);
	if (d->scrub)
		scrub_destroy(d->scrub);
	if (d->recovery)
		recovery_destroy(d->recovery);
	checkpoint_fini(&d->checkpoint);
	writer_fini(&d->writer);
	journal_fini(&d->journal);
	space_fini(&d->space);
	pages_fini(&d->pages);
	table_fini(&d->tree_table);
	table_fini(&d->volume_table);
	if (d->file)
		file_close(d->file);
	free(d);
}

int disk_take_file(struct reactor *r, const char *path, unsigned flags, uint64_t since_ns, struct file **file)
{
	int res = *file ? 0 : reactor_file_open(r, path, flags, file);
	bool is_held = res == -EBUSY;
	if (res == 0) {
		res = file_lock(*file);
		is_held = res == -EAGAIN;
	}
	if (!is_held)
		return res;
	return reactor_now_ns(r) - since_ns < DISK_LOCK_PATIENCE_NS ? -EAGAIN : -EBUSY;
}

static int open_or_wait(struct disk *d)
{
	unsigned flags = d->options.is_read_only ? FILE_READ_ONLY : 0;
	int res = disk_take_file(d->reactor, d->path, flags, d->lock_since_ns, &d->file);
	if (res == -EAGAIN) {
		timer_start(d->reactor, &d->lock_timer, DISK_LOCK_RETRY_NS);
		return 0;
	}
	if (res == -EBUSY)
		snprintf(d->why, sizeof d->why, "another process uses this disk, or %s: end that first",
			 d->file ? "this one does under another name of the same file" : "it is mounted");
	else if (res < 0 && d->file)
		snprintf(d->why, sizeof d->why, "cannot lock the disk (error %d)", -res);
	else if (res < 0)
		snprintf(d->why, sizeof d->why, "cannot be opened (%s)",
			 res == -EINVAL ? NO_DIRECT_IO : strerror(-res));
	return res < 0 ? res : recovery_start(d);
}

/*
 * Recovery has as much as the process had that wrote the journal, be the share as small as it may: it can write no
 * checkpoint before it has replayed all, since it does not know yet which blocks the rest of the journal names. Beside
 * the share a checkpoint has frames for all that it may have to write except pages. Both are address space, that costs
 * memory only when it is used.
 */
int disk_size_parts(struct disk *d, uint64_t n_blocks)
{
	uint64_t share = max_u64(d->options.cache_bytes, CACHE_MIN_BYTES);
	uint64_t replay = max_u64(share, d->superblock.cache_bytes);
	uint32_t n_share = pages_frames_for(share), dirty_max = pages_dirty_for(pages_frames_for(replay), n_blocks);
	int res = space_init(&d->space, d, &d->superblock, n_blocks, space_regions_for(replay));
	if (res < 0)
		return res;
	/* Of the frames that it had as many as may have been dirty at two cuts, and as many again for looking. */
	struct pages_size size = {.n_share = n_share,
				  .n_frames = (uint32_t)max_u64(n_share, 4ull * dirty_max),
				  .n_bare = cut_frames_max(d, dirty_max),
				  .dirty_max = dirty_max};
	res = pages_init(&d->pages, d, &size);
	if (res == 0)
		res = journal_init(&d->journal, d, d->superblock.journal_blocks);
	if (res == 0)
		disk_set_reserve(d);
	return res;
}

void disk_settle_parts(struct disk *d)
{
	pages_settle(&d->pages, pages_dirty_for(d->pages.n_share, d->space.n_blocks));
	d->space.regions_max = space_regions_for(max_u64(d->options.cache_bytes, CACHE_MIN_BYTES));
	space_shrink(&d->space);
	disk_set_reserve(d);
}

/* What one checkpoint may need is the floor, and what must be free for it to be found. Data leave as much as it may need
 * once more: for what they and trims of shared pages make grow, and for new trees and volumes of a full disk. */
void disk_set_reserve(struct disk *d)
{
	d->space.floor_blocks = cut_blocks_max(d) + cut_blocks_spread(d);
	d->space.reserve_blocks = d->space.floor_blocks + cut_blocks_max(d) + RESERVE_BESIDE;
}

static void lock_again(struct timer *t)
{
	struct disk *d = container_of(t, struct disk, lock_timer);
	int res = open_or_wait(d);
	if (res < 0)
		disk_recovered(d, res);
}

int disk_open(const struct disk_options *o, struct disk **out, char why[static WHY_BYTES])
{
	struct disk *d = calloc(1, sizeof(*d));
	quarry_assert(o->reactor && o->log && o->path && o->opened);
	if (!d)
		return -ENOMEM;
	int res = disk_init(d, o);
	if (res == 0) {
		d->lock_since_ns = reactor_now_ns(d->reactor);
		res = open_or_wait(d);
	}
	if (res < 0) {
		snprintf(why, WHY_BYTES, "%s", d->why);
		disk_free(d);
		return res;
	}
	*out = d;
	return 0;
}

void disk_recovered(struct disk *d, int res)
{
	quarry_assert(d->state == DISK_RECOVERING || d->state == DISK_FAILED);
	d->opened_res = res;
	d->state = res < 0 ? DISK_FAILED : DISK_RUNNING;
	reactor_defer(d->reactor, &d->opened_op, 0);
	if (d->is_close_wanted)
		disk_close(d, d->closed, d->closed_context);
	if (res < 0 || d->is_close_wanted)
		return;
	d->scrubbed_wall_ns = d->superblock.scrubbed_wall_ns;
	scrub_schedule(d);
	drop_poke(&d->drop);
	punch_poke(&d->punch); /* what was freed before may still hold space below */
}

/* ---- closing ---- */

/* Does anybody still come back to this disk: a request, an operation of one that failed, the news that it is open? */
static bool is_owed(const struct disk *d)
{
	return d->n_requests > 0 || d->opened_op.kind != OP_NONE;
}

static void closed_now(struct waiter *w, int res)
{
	struct disk *d = container_of(w, struct disk, close_waiter);
	(void)res;
	d->is_close_late = is_owed(d);
	if (!d->is_close_late)
		d->state = DISK_CLOSED; /* freed when the turn that this is part of has no more use for it */
}

/* Something that a close may have waited for has ended. */
static void close_go_on(struct disk *d)
{
	if (!d->is_close_late || is_owed(d))
		return;
	d->is_close_late = false;
	waiter_wake(d, &d->close_waiter, 0);
}

static void disk_end(struct disk *d)
{
	quarry_assert(d->state == DISK_CLOSED && list_is_empty(&d->woken));
	d->closed(d, d->closed_context);
	punch_stop(&d->punch);
	timer_stop(d->reactor, &d->scrub_timer);
	list_remove(&d->hook.link);
	disk_free(d);
}

/* Requests and background work have ended: now the last checkpoint, then the end. */
static void close_down(struct disk *d)
{
	d->is_closing_down = true;
	d->close_waiter.wake = closed_now;
	if (d->state == DISK_FAILED || d->options.is_read_only) {
		waiter_wake(d, &d->close_waiter, 0);
		return;
	}
	d->checkpoint.is_clean = true;
	checkpoint_wait(&d->checkpoint, &d->close_waiter);
}

void disk_request_ended(struct disk *d)
{
	quarry_assert(d->n_requests > 0);
	d->n_requests--;
	close_go_on(d);
	if (d->n_requests == 0 && (d->state == DISK_CLOSING || (d->state == DISK_FAILED && d->is_close_wanted)) &&
	    !d->is_closing_down)
		close_down(d);
}

void disk_close(struct disk *d, void (*closed)(struct disk *d, void *context), void *context)
{
	d->closed = closed;
	d->closed_context = context;
	d->is_close_wanted = true;
	if (d->state == DISK_RECOVERING)
		return;
	if (d->state == DISK_RUNNING)
		d->state = DISK_CLOSING;
	disk_scrub_stop(d);
	d->n_requests++;
	disk_admit(d);
	disk_request_ended(d);
}

void disk_abandon(struct disk *d)
{
	timer_stop(d->reactor, &d->lock_timer);
	timer_stop(d->reactor, &d->scrub_timer);
	drop_stop(&d->drop);
	punch_stop(&d->punch);
	list_remove(&d->hook.link);
	disk_free(d);
}

/* ---- looking ---- */

const char *disk_state_name(enum disk_state s)
{
	static const char *const names[] = {"recovering", "running", "failed", "closing", "closed"};
	return (unsigned)s < array_size(names) ? names[s] : "unknown";
}

struct disk_tree *disk_tree_find(struct disk *d, const struct uuid *volume, uint64_t tree_id)
{
	for (uint32_t i = 0; i < d->n_tree_slots; i++) {
		struct disk_tree *t = d->trees[i];
		if (t && t->record.state == TREE_LIVE && t->record.tree_id == tree_id &&
		    uuid_equal(&t->record.volume, volume))
			return t;
	}
	return NULL;
}

uint64_t disk_tree_blocks(const struct disk_tree *t)
{
	return t->record.n_data_blocks;
}

void disk_trees_each(struct disk *d, void (*each)(const struct tree_record *t, void *context), void *context)
{
	for (uint32_t i = 0; i < d->n_tree_slots; i++)
		if (d->trees[i] && !d->trees[i]->is_gone)
			each(&d->trees[i]->record, context);
}

bool disk_volume(const struct disk *d, const struct uuid *volume, struct volume_record *out)
{
	const struct disk_volume *v = disk_volume_find((struct disk *)d, volume);
	if (v)
		*out = v->record;
	return v != NULL;
}

bool disk_session_is(const struct disk *d, const struct uuid *volume, uint64_t generation, uint64_t session)
{
	const struct disk_volume *v = disk_volume_find((struct disk *)d, volume);
	return v && v->record.generation == generation && v->record.session == session;
}

uint64_t disk_sessions(const struct disk *d)
{
	return d->n_sessions;
}

enum disk_state disk_state(const struct disk *d)
{
	return d->state;
}
const char *disk_why(const struct disk *d)
{
	return d->why;
}
const struct superblock *disk_superblock(const struct disk *d)
{
	return &d->superblock;
}
struct reactor *disk_reactor(const struct disk *d)
{
	return d->reactor;
}
const struct disk_counters *disk_counters(const struct disk *d)
{
	return &d->counters;
}

void disk_checkpoint(struct disk *d)
{
	if (d->state == DISK_RUNNING && !d->options.is_read_only)
		checkpoint_want(&d->checkpoint);
}

void disk_stats(const struct disk *d, struct disk_stats *out)
{
	*out = (struct disk_stats){
	    .n_blocks = d->space.n_blocks,
	    .free_blocks = d->space.free_blocks,
	    .waiting_blocks = d->space.waiting_blocks + d->space.frozen_waiting,
	    .reserve_blocks = d->space.reserve_blocks,
	    .cache_pages = d->pages.n_cached,
	    .cache_pages_max = d->pages.n_frames,
	    .dirty_pages = d->pages.n_dirty,
	    .dirty_pages_max = d->pages.dirty_max,
	    .regions_resident = d->space.n_resident,
	    .deltas = space_deltas(&d->space),
	    .journal_blocks = d->journal.n_blocks,
	    .journal_used = d->journal.sequence - d->journal.tail,
	    .checkpoint = d->superblock.checkpoint,
	    .checkpoints = d->checkpoints,
	    .checkpoint_last_ns = d->checkpoint_last_ns,
	    .recovery_ns = d->recovery_ns,
	    .replayed_records = d->replayed_records,
	    .dropped_records = d->dropped_records,
	    .punched_blocks = d->punch.punched_blocks,
	    .lost_parts = d->drop.lost_parts,
	    .dying_blocks_per_s = drop_blocks_per_s(&d->drop),
	};
	for (const struct list *node = d->dying.next; node != &d->dying; node = node->next) {
		out->dying_trees++;
		out->dying_blocks += container_of(node, struct disk_tree, dying)->record.n_data_blocks;
	}
}
