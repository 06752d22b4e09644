/*
 * punch.c: gives freed space back to what lies below: holes in a file, discards on a device.
 *
 * After a checkpoint, runs of free blocks that still hold space below are punched one after the other, at leisure.
 * While a run is punched its blocks are held, so nobody writes there meanwhile; who finds no room then waits for their
 * release. What is held is never of the reserve: checkpoints do not wait. A disk with reserved space is never punched.
 *
 * Only resident regions are looked at: one that is not was not freed from in bulk, or its frees are found when it is
 * merged.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>

#define PUNCH_RUN_MIN  16u                /* blocks: smaller runs are not worth a request */
#define PUNCH_RUN_MAX  256u               /* blocks that nobody can write to meanwhile */
#define PUNCH_PAUSE_NS (2 * NS_PER_MS)    /* between two requests: the clients come first */
#define PUNCH_DELAY_NS (1000 * NS_PER_MS) /* after a checkpoint: blocks that are reused at once need no hole */

static void punched(struct op *op, int res);
static void punch_next(struct timer *t);

void punch_init(struct punch *p, struct disk *d)
{
	*p = (struct punch){.disk = d};
	op_init(&p->op, punched);
	timer_init(&p->timer, punch_next);
}

void punch_poke(struct punch *p)
{
	struct disk *d = p->disk;
	if (p->is_off || p->is_running || d->superblock.is_reserved || d->state != DISK_RUNNING ||
	    d->options.is_read_only || timer_is_running(&p->timer))
		return;
	timer_start(d->reactor, &p->timer, PUNCH_DELAY_NS);
}

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

static void punch_next(struct timer *t)
{
	struct punch *p = container_of(t, struct punch, timer);
	struct disk *d = p->disk;
	if (d->state != DISK_RUNNING)
		return;
	struct region *r = punch_find(p);
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
