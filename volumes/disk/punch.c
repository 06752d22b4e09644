/*
 * punch.c: gives freed space back to what lies below: holes in a file, discards on a device.
 *
 * After a checkpoint, runs of free blocks that still hold space below are punched one after the other, at leisure.
 * While a run is punched its blocks are held, so nobody writes there meanwhile; who finds no room then waits for their
 * release. What is held is never of the reserve: checkpoints do not wait. A disk with reserved space is never punched.
 *
 *   freed, quiet for a while --checkpoint--> free, unpunched --region resident, a second later--> punched
 *
 * An idle disk wants no checkpoint for what was freed, so a timer does. Regions that are not resident are fetched one
 * after the other, those where as many blocks were freed as a run needs; that merges what the delta log knows of them.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>

#define PUNCH_RUN_MAX  256u               /* blocks that nobody can write to meanwhile */
#define PUNCH_PAUSE_NS (2 * NS_PER_MS)    /* between two requests: the clients come first */
#define PUNCH_DELAY_NS (1000 * NS_PER_MS) /* after a checkpoint: blocks that are reused at once need no hole */
#define QUIET_NS       (2 * NS_PER_S)     /* without a block freed: then a checkpoint disturbs nobody */
#define QUIET_TICKS    15u                /* so often at most it waits for quiet */

static void punched(struct op *op, int res);
static void punch_next(struct timer *t);
static void punch_fetched(struct waiter *w, int res);
static void punch_quiet(struct timer *t);

void punch_init(struct punch *p, struct disk *d)
{
	*p = (struct punch){.disk = d};
	op_init(&p->op, punched);
	timer_init(&p->timer, punch_next);
	timer_init(&p->quiet, punch_quiet);
	p->waiter.wake = punch_fetched;
	list_init(&p->waiter.link);
}

void punch_stop(struct punch *p)
{
	timer_stop(p->disk->reactor, &p->timer);
	timer_stop(p->disk->reactor, &p->quiet);
}

static bool punch_is_possible(const struct punch *p)
{
	const struct disk *d = p->disk;
	return !p->is_off && !d->superblock.is_reserved && d->state == DISK_RUNNING && !d->options.is_read_only;
}

void punch_poke(struct punch *p)
{
	if (punch_is_possible(p) && !p->is_running && !timer_is_running(&p->timer))
		timer_start(p->disk->reactor, &p->timer, PUNCH_DELAY_NS);
}

/* ---- quiet ---- */

static void quiet_begin(struct punch *p)
{
	p->quiet_waiting = p->disk->space.waiting_blocks;
	timer_start(p->disk->reactor, &p->quiet, QUIET_NS);
}

void punch_note_freed(struct punch *p)
{
	if (p->disk->space.waiting_blocks < PUNCH_RUN_MIN || timer_is_running(&p->quiet) || !punch_is_possible(p))
		return;
	p->quiet_ticks = 0;
	quiet_begin(p);
}

static void punch_quiet(struct timer *t)
{
	struct punch *p = container_of(t, struct punch, quiet);
	struct disk *d = p->disk;
	if (!punch_is_possible(p) || d->space.waiting_blocks < PUNCH_RUN_MIN)
		return; /* a checkpoint has come meanwhile */
	if (d->space.waiting_blocks != p->quiet_waiting && ++p->quiet_ticks < QUIET_TICKS)
		quiet_begin(p);
	else
		disk_checkpoint(d);
}

/* ---- punching ---- */

/* The longest way from `from` that is free and unpunched; 0: nothing. */
static uint32_t run_at(const struct region *r, uint32_t from)
{
	uint32_t n = 0;
	while (from + n < COUNTS_PER_PAGE) {
		uint32_t i = from + n;
		if (!(r->free[i / 64] & r->unpunched[i / 64] & 1ull << (i % 64)))
			break;
		n++;
	}
	return n;
}

/* Finds the next run in a resident region, from where the last one ended. */
static struct region *punch_find(struct punch *p)
{
	struct space *s = &p->disk->space;
	for (uint32_t step = 0; step <= s->n_regions; step++) {
		struct region *r = s->resident[p->region];
		if (r && !r->is_loading && !r->is_damaged && s->cursor[SPACE_DATA].region != p->region) {
			for (; p->first < COUNTS_PER_PAGE; p->first += max_u64(1, p->n)) {
				p->n = (uint32_t)min_u64(run_at(r, p->first), PUNCH_RUN_MAX);
				if (p->n >= PUNCH_RUN_MIN)
					return r;
			}
		}
		p->first = 0;
		p->region = (p->region + 1) % s->n_regions;
	}
	return NULL;
}

/* A region that is not resident where enough was freed; -1: there is none. */
static int64_t punch_region(const struct space *s)
{
	for (uint32_t i = 0; i < s->n_regions; i++)
		if (!s->resident[i] && s->region_unpunched[i] >= PUNCH_RUN_MIN)
			return i;
	return -1;
}

/* Fetches the next region, if the bounds of what is resident and dirty allow one more: else a checkpoint makes room, and
 * its end pokes. */
static void punch_fetch(struct punch *p)
{
	struct disk *d = p->disk;
	struct space *s = &d->space;
	int64_t region = punch_region(s);
	if (region < 0)
		return;
	space_shrink(s);
	if (s->n_resident > s->regions_max || disk_n_dirty(d) >= d->pages.dirty_max / 2) {
		if (s->n_dirty > 0)
			disk_checkpoint(d);
		return;
	}
	p->region = (uint32_t)region;
	p->first = 0;
	p->is_running = true;
	d->n_requests++;
	int res = space_make_resident(s, p->region, &p->waiter);
	if (res != -EAGAIN)
		waiter_wake(d, &p->waiter, res);
}

static void punch_fetched(struct waiter *w, int res)
{
	struct punch *p = container_of(w, struct punch, waiter);
	struct disk *d = p->disk;
	(void)res; /* a damaged one stays resident: it is not fetched again */
	p->is_running = false;
	disk_watch_limits(d);
	if (punch_is_possible(p))
		timer_start(d->reactor, &p->timer, PUNCH_PAUSE_NS);
	disk_request_ended(d);
}

static void punch_next(struct timer *t)
{
	struct punch *p = container_of(t, struct punch, timer);
	struct disk *d = p->disk;
	if (!punch_is_possible(p))
		return;
	struct region *r = punch_find(p);
	if (!r)
		punch_fetch(p);
	if (!r || !space_has_room(&d->space, p->n)) /* a full disk needs them at once; the next checkpoint pokes */
		return;
	p->is_running = true;
	d->n_requests++;
	space_hold(&d->space, r, p->first, p->n);
	uint64_t block = (uint64_t)r->number * COUNTS_PER_PAGE + p->first;
	file_punch(d->file, &p->op, block * BLOCK_BYTES, (uint64_t)p->n * BLOCK_BYTES);
}

static void punched(struct op *op, int res)
{
	struct punch *p = container_of(op, struct punch, op);
	struct disk *d = p->disk;
	quarry_assert(p->is_running && p->n > 0 && p->n <= PUNCH_RUN_MAX);
	p->is_running = false;
	space_release_hold(&d->space, (struct run){(uint64_t)p->region * COUNTS_PER_PAGE + p->first, p->n});
	if (res == 0) {
		p->punched_blocks += p->n;
	} else {
		p->is_off = true; /* not a failure: what lies below cannot take space back */
		log_line(d->log, LOG_INFO, "disk",
			 "%s: freed space cannot be given back to the file or device below (error %d)", d->name, -res);
	}
	p->first += p->n;
	if (!p->is_off && d->state == DISK_RUNNING)
		timer_start(d->reactor, &p->timer, PUNCH_PAUSE_NS);
	disk_request_ended(d);
}
