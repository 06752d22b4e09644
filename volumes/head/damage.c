/*
 * damage.c: what scrubs of this node's disks find damaged is healed: one place after the other is told to the node that has
 * the volume attached, whose head has the block from another copy (damage_heal.c).
 *
 *   found -> waits -> HEAL -> whole
 *              ^-------+ not now: later; -> given up: no copy has it
 *
 * Invariants
 *  1. One place at a time, and slowly: clients come first.
 *  2. A place is let go when it is whole, when it is nobody's any more, or when there is no copy left to hope for. What waits
 *     when the daemon stops is found by the next scrub.
 *  3. Here nothing is known of where a block can be had, and nothing decided: the head is asked, wherever it is by then.
 *  4. Memory: DAMAGE_PLACES_MAX places. What finds no room is found by the next scrub.
 *
 * Owner: the set.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DAMAGE_PLACES_MAX 4096u
/* After a try that came to nothing; twice as long each time, up to: */
#define DAMAGE_RETRY_NS     (2 * NS_PER_S)
#define DAMAGE_RETRY_MAX_NS (300 * NS_PER_S)
/* So long a place is about to be healed, for those who wait for it: a head may have to be attached first. After that, or when
 * it takes a copy to come back, it may be healed some time. */
#define DAMAGE_SOON_NS (16 * NS_PER_S)
/* A head may have to wait for a client's write, and reads block by block. */
#define DAMAGE_TIMEOUT_NS (5 * NS_PER_S)

static uint64_t damage_now_ns(const struct volume_set *s)
{
	return reactor_now_ns(s->reactor);
}

/* ---- the list ---- */

static bool place_holds(const struct damage_place *p, const struct peer_damage *at)
{
	return p->at.tree_id == at->tree_id && uuid_equal(&p->at.disk, &at->disk) &&
	       uuid_equal(&p->at.volume, &at->volume) && at->first >= p->at.first &&
	       at->first + at->n_blocks <= p->at.first + p->at.n_blocks;
}

/* Does the place reach to the block, in what one request heals? A place lies in one window, and so in one segment. */
static bool place_takes(struct damage_place *p, const struct damage_place *block)
{
	struct damage_place window = *p;
	window.at.first -= window.at.first % PEER_READ_BLOCKS;
	window.at.n_blocks = PEER_READ_BLOCKS;
	if (p->delay_ns != 0 || p->scrub_ns != block->scrub_ns || block->at.first < p->at.first ||
	    !place_holds(&window, &block->at))
		return false;
	uint64_t i = block->at.first - p->at.first;
	p->at.n_blocks = max_u64(p->at.n_blocks, i + 1);
	p->bad |= 1ull << i;
	return true;
}

static uint64_t place_n_bad(const struct damage_place *p)
{
	return (uint64_t)__builtin_popcountll(p->bad);
}

static bool damage_grow(struct damage *g)
{
	uint32_t room = g->room ? 2 * g->room : 16;
	struct damage_place *places = NULL;
	if (g->n < g->room)
		return true;
	if (room <= DAMAGE_PLACES_MAX)
		places = realloc(g->places, room * sizeof(places[0]));
	if (!places)
		return false;
	g->places = places;
	g->room = room;
	return true;
}

static void damage_put(struct damage *g, const struct damage_place *p)
{
	quarry_assert(g->n < g->room && p->at.n_blocks > 0 && p->at.n_blocks <= PEER_READ_BLOCKS);
	quarry_assert(p->bad & 1 && p->bad >> (p->at.n_blocks - 1) == 1);
	g->places[g->n++] = *p;
}

static struct damage_place damage_take(struct damage *g, uint32_t i)
{
	quarry_assert(i < g->n);
	struct damage_place p = g->places[i];
	g->n--;
	memmove(&g->places[i], &g->places[i + 1], (g->n - i) * sizeof(g->places[0]));
	return p;
}

/* When the next is due; 0: none waits. */
static uint64_t damage_due_ns(const struct damage *g, uint32_t *which)
{
	uint64_t due_ns = 0;
	for (uint32_t i = 0; i < g->n; i++) {
		if (due_ns != 0 && g->places[i].after_ns >= due_ns)
			continue;
		due_ns = g->places[i].after_ns;
		*which = i;
	}
	return due_ns;
}

/* Once what is under way is over. */
static void damage_plan(struct volume_set *s)
{
	struct damage *g = &s->damage;
	uint32_t i;
	uint64_t now_ns = damage_now_ns(s), due_ns = damage_due_ns(g, &i);
	if (due_ns == 0 || g->is_busy || s->is_stopping)
		return;
	due_ns = max_u64(max_u64(due_ns, g->rest_until_ns), now_ns + 1);
	timer_stop(s->reactor, &g->timer);
	timer_start(s->reactor, &g->timer, due_ns - now_ns);
}

/* What finds no room is told of, once until all is through. */
static void damage_keep(struct volume_set *s, const struct damage_place *p)
{
	const struct set_disk *d = set_disk_by_uuid(s, &p->at.disk);
	if (damage_grow(&s->damage))
		return damage_put(&s->damage, p);
	if (s->damage.is_full || !d)
		return;
	s->damage.is_full = true;
	log_event(s->log, LOG_WARNING, "scrub-behind", d->facts.name,
		  "the scrub of disk %s finds more damage than is healed at once: scrub it again", d->facts.name);
}

void damage_note(struct set_disk *d, const struct uuid *volume, uint64_t tree, uint64_t block)
{
	struct damage *g = &d->set->damage;
	struct set_volume *entry = set_volume_by_uuid(d->set, volume);
	struct disk_scrub scrub;
	if (!entry || entry->facts.is_deleting || !volume_facts_are_replicated(&entry->facts))
		return; /* there is no other copy */
	disk_scrub_status(d->disk, &scrub);
	struct damage_place p = {
	    .at = {.volume = *volume, .disk = d->facts.uuid, .tree_id = tree, .first = block, .n_blocks = 1},
	    .bad = 1,
	    .scrub_ns = scrub.started_wall_ns,
	    .after_ns = max_u64(damage_now_ns(d->set), 1)};
	for (uint32_t i = 0; i < g->n; i++)
		if (place_holds(&g->places[i], &p.at)) { /* an earlier scrub's: it is found anew, block by block */
			damage_take(g, i);
			break;
		}
	if (g->n > 0 && place_takes(&g->places[g->n - 1], &p))
		return;
	damage_keep(d->set, &p);
	damage_plan(d->set);
}

bool damage_is_healing(const struct set_disk *d)
{
	const struct damage *g = &d->set->damage;
	if (g->is_busy && uuid_equal(&g->now.at.disk, &d->facts.uuid))
		return true;
	for (uint32_t i = 0; i < g->n; i++)
		if (g->places[i].delay_ns < DAMAGE_SOON_NS && uuid_equal(&g->places[i].at.disk, &d->facts.uuid))
			return true;
	return false;
}

/* ---- how it has ended ---- */

/* May a copy come back that has it? */
static bool place_has_hope(struct volume_set *s, const struct damage_place *p)
{
	const struct set_volume *entry = set_volume_by_uuid(s, &p->at.volume);
	for (uint32_t i = 0; entry && i < entry->facts.n_disks; i++) {
		const struct set_disk *d = set_disk_by_uuid(s, &entry->facts.disks[i].uuid);
		if (entry->facts.disks[i].is_stale || !set_disk_is_running(d))
			return true;
	}
	return false;
}

static void damage_put_off(struct volume_set *s, int res)
{
	struct damage_place *p = &s->damage.now;
	if (res == -EIO)
		p->delay_ns = max_u64(p->delay_ns, DAMAGE_SOON_NS / 2);
	p->delay_ns = min_u64(max_u64(2 * p->delay_ns, DAMAGE_RETRY_NS), DAMAGE_RETRY_MAX_NS);
	p->after_ns = damage_now_ns(s) + p->delay_ns;
	damage_keep(s, p);
}

/* One block that cannot be had kept the others from being looked at: each is tried by itself. */
static void damage_split(struct volume_set *s)
{
	struct damage_place p = s->damage.now;
	uint64_t first = p.at.first;
	p.delay_ns = 0;
	p.after_ns = max_u64(damage_now_ns(s), 1);
	p.at.n_blocks = 1;
	p.bad = 1;
	for (uint64_t left = s->damage.now.bad; left != 0; left &= left - 1) {
		p.at.first = first + (uint64_t)__builtin_ctzll(left);
		damage_keep(s, &p);
	}
}

static void damage_settle(struct volume_set *s, int res)
{
	const struct damage_place *p = &s->damage.now;
	const struct set_disk *d = set_disk_by_uuid(s, &p->at.disk);
	if (res == 0 && set_disk_runs_here(d))
		disk_scrub_healed(d->disk, p->scrub_ns, place_n_bad(p));
	if (res == 0 || res == -ENOENT)
		return;
	if (res == -EIO && place_n_bad(p) > 1)
		damage_split(s);
	else if (res != -EIO || place_has_hope(s, p))
		damage_put_off(s, res);
}

static void damage_healed(struct volume_set *s, int res)
{
	struct damage *g = &s->damage;
	quarry_assert(g->is_busy && res <= 0);
	g->is_busy = false;
	if (!s->is_stopping)
		damage_settle(s, res);
	g->is_full &= g->n > 0;
	/* behind clients, as a resync is */
	g->rest_until_ns = damage_now_ns(s) + g->now.at.n_blocks * BLOCK_BYTES * NS_PER_S / RESYNC_BUSY_BYTES_PER_S;
	damage_plan(s);
	if (s->is_stopping)
		commands_wake(s);
}

/* ---- HEAL ---- */

static void damage_healed_here(void *context, int res)
{
	damage_healed(context, res);
}

static void damage_call_done(struct peer_call *call, int res)
{
	damage_healed(container_of(call, struct volume_set, damage.call), res);
}

static void damage_call_fill(struct peer_call *call, struct peer_message *m)
{
	const struct volume_set *s = container_of(call, struct volume_set, damage.call);
	m->tree_id = s->damage.now.at.tree_id;
	m->first = s->damage.now.at.first;
	m->n_blocks = s->damage.now.at.n_blocks;
}

/* false: the node cannot be asked. */
static bool damage_ask(struct volume_set *s, const char *node)
{
	struct damage *g = &s->damage;
	struct peer_client *client = set_peer_client(s, node);
	if (!client || !peer_client_has(client, PEER_TAKES_DAMAGE))
		return false;
	g->call = (struct peer_call){.type = PEER_DAMAGE,
				     .flags = PEER_READER,
				     .volume = g->now.at.volume,
				     .disk = g->now.at.disk,
				     .timeout_ns = DAMAGE_TIMEOUT_NS,
				     .fill = damage_call_fill,
				     .done = damage_call_done};
	peer_client_call(client, &g->call);
	return true;
}

static void damage_heal(struct volume_set *s)
{
	struct damage *g = &s->damage;
	const struct set_volume *entry = set_volume_by_uuid(s, &g->now.at.volume);
	const char *node = entry ? set_volume_node(entry) : s->node_name;
	g->is_busy = true;
	if (!s->members || set_node_is_self(s, node))
		volume_set_heal(s, &g->now.at, damage_healed_here, s);
	else if (!damage_ask(s, node))
		damage_healed(s, -EBUSY);
}

static void damage_fired(struct timer *t)
{
	struct volume_set *s = container_of(t, struct volume_set, damage.timer);
	struct damage *g = &s->damage;
	uint32_t i = 0;
	uint64_t due_ns = damage_due_ns(g, &i);
	if (due_ns == 0 || g->is_busy || s->is_stopping)
		return;
	if (due_ns > damage_now_ns(s))
		return damage_plan(s);
	g->now = damage_take(g, i);
	damage_heal(s);
}

/* ---- life ---- */

void damage_init(struct volume_set *s)
{
	timer_init(&s->damage.timer, damage_fired);
	list_init(&s->heals);
}

void damage_stop(struct volume_set *s)
{
	quarry_assert(s->is_stopping);
	timer_stop(s->reactor, &s->damage.timer);
}

bool damage_is_busy(const struct volume_set *s)
{
	return s->damage.is_busy;
}

void damage_fini(struct volume_set *s)
{
	heals_abandon(s);
	free(s->damage.places);
	s->damage.places = NULL;
}
