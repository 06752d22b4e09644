/*
 * drop.c: frees dying trees in the background, a step at a time, across restarts.
 *
 * A step changes counts and the tree's cursor in memory only; the next checkpoint makes both durable together, and
 * after a crash what was freed since is freed again. So a step needs no journal record.
 *
 * It goes on while there is room for what a step may touch, and as a deferred op between the turns of the clients'
 * requests. While clients are served it stays behind them: a few steps, some of which read a page, then a pause; but not
 * when room is short, for then they wait for what it frees. A part whose page or count cannot be read, twice, is given
 * up: it stays allocated, which is told here and by `disk check`, and nothing behind it has to wait.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>

#define STEPS_A_TURN    8u /* then others have theirs: about 0.1 ms of work, or as many reads */
#define PAUSE_NS        (NS_PER_MS / 2)
#define SHORT_PART      32u /* with less than this part of the disk free, it hurries */
#define RATE_NS         NS_PER_S
#define STEP_DELTAS_MAX (PAGE_POINTERS + 4 * TREE_HEIGHT_MAX)

static void drop_run(struct drop *p);

/* The tree's next part cannot be read: a second time it is given up, since what is lost then never comes back. */
static void drop_failed(struct drop *p, struct disk_tree *t)
{
	struct disk *d = p->disk;
	char name[TREE_TEXT_BYTES];
	uint64_t first, n_blocks;
	if (!t->is_doubted) {
		t->is_doubted = true;
		return;
	}
	t->is_doubted = false;
	if (!tree_drop_give_up(t, &first, &n_blocks))
		return;
	p->lost_parts++;
	if (t->has_lost_parts) /* a broken region of counts may hit very many parts of a tree */
		return;
	t->has_lost_parts = true;
	disk_tree_to_text(d, &t->record.volume, t->record.tree_id, name);
	log_event(d->log, LOG_ERROR, "space-lost", d->name,
		  "%s, is deleted, but not all of its space can be freed: what names its blocks is damaged, first of "
		  "all for the %llu KiB from KiB %llu on; `quarry disk check` shows which blocks stay taken",
		  name, (unsigned long long)n_blocks * (BLOCK_BYTES / KIB),
		  (unsigned long long)first * (BLOCK_BYTES / KIB));
}

static void drop_woken(struct waiter *w, int res)
{
	struct drop *p = container_of(w, struct drop, waiter);
	if (res < 0 && p->disk->state == DISK_RUNNING)
		drop_failed(p, container_of(p->disk->dying.next, struct disk_tree, dying));
	drop_run(p);
}

static void drop_again(struct op *op, int res)
{
	(void)res;
	drop_run(container_of(op, struct drop, again));
}

static void drop_paused(struct timer *t)
{
	drop_run(container_of(t, struct drop, pause));
}

void drop_init(struct drop *p, struct disk *d)
{
	*p = (struct drop){.disk = d};
	p->waiter.wake = drop_woken;
	list_init(&p->waiter.link);
	op_init(&p->again, drop_again);
	timer_init(&p->pause, drop_paused);
}

static void drop_end(struct drop *p)
{
	p->is_running = false;
	disk_request_ended(p->disk);
}

/* ---- behind the clients ---- */

static bool drop_is_behind(struct drop *p)
{
	const struct disk *d = p->disk;
	const struct disk_counters *c = &d->counters;
	uint64_t served = counter_get(&c->reads) + counter_get(&c->writes) + counter_get(&c->trims);
	bool is_busy = served != p->served;
	p->served = served;
	return is_busy && d->space.free_blocks > d->space.reserve_blocks + d->space.n_blocks / SHORT_PART;
}

/* After so many steps the clients have their turn, longer when there are some. */
static void drop_rest(struct drop *p)
{
	struct disk *d = p->disk;
	if (drop_is_behind(p))
		timer_start(d->reactor, &p->pause, PAUSE_NS);
	else
		reactor_defer(d->reactor, &p->again, 0);
}

static void drop_count(struct drop *p, uint64_t n_blocks)
{
	uint64_t now = reactor_now_ns(p->disk->reactor), passed = now - p->rate.since_ns;
	if (passed >= RATE_NS) {
		p->rate.per_s = passed < 2 * RATE_NS ? p->rate.blocks * NS_PER_S / passed : 0;
		p->rate.since_ns = now;
		p->rate.blocks = 0;
	}
	p->rate.blocks += n_blocks;
}

uint64_t drop_blocks_per_s(const struct drop *p)
{
	return reactor_now_ns(p->disk->reactor) - p->rate.since_ns < 2 * RATE_NS ? p->rate.per_s : 0;
}

void drop_stop(struct drop *p)
{
	timer_stop(p->disk->reactor, &p->pause);
}

static void drop_run(struct drop *p)
{
	struct disk *d = p->disk;
	quarry_assert(p->is_running && !timer_is_running(&p->pause));
	quarry_assert(p->steps_left <= STEPS_A_TURN);
	if (p->steps_left == 0)
		p->steps_left = STEPS_A_TURN;
	for (; p->steps_left > 0; p->steps_left--) {
		if (d->state != DISK_RUNNING || list_is_empty(&d->dying)) {
			drop_end(p);
			return;
		}
		if (!space_has_delta_room(&d->space, STEP_DELTAS_MAX) || disk_n_dirty(d) >= d->pages.dirty_max) {
			checkpoint_want(&d->checkpoint); /* pokes when it has ended */
			drop_end(p);
			return;
		}
		struct disk_tree *t = container_of(d->dying.next, struct disk_tree, dying);
		uint64_t n_before = t->record.n_data_blocks;
		int res = tree_drop_step(t, &p->waiter);
		drop_count(p, n_before - t->record.n_data_blocks);
		if (res == -EAGAIN)
			return;
		if (res < 0) {
			drop_failed(p, t);
			continue;
		}
		t->is_doubted = false;
		if (res == 1) {
			disk_tree_end(t);
			disk_watch_limits(d);
		}
	}
	disk_watch_limits(d);
	drop_rest(p);
}

void drop_poke(struct drop *p)
{
	struct disk *d = p->disk;
	if (p->is_running || d->state != DISK_RUNNING || d->options.is_read_only || list_is_empty(&d->dying))
		return;
	p->is_running = true;
	d->n_requests++;
	reactor_defer(d->reactor, &p->again, 0);
}
