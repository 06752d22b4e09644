/*
 * move_cut.c: what a move leaves behind is dropped: on the old disk when it is done, on the target when it has failed, and
 * after a crash, of which the record tells, wherever the segments do not lie. And who keeps them from moving.
 *
 * Nobody forks, nor drops a tree, meanwhile: move_is_switching(). Owner: the move.
 */
#include "volumes/head/move_internal.h"

#define CUT_BLOCKS (SEGMENT_BLOCKS / 4) /* of one request: a volume may have many trees */

/* ---- QUIET, CUT ---- */

struct asked {
	uint32_t disk, n;
};

static void asked_count(struct volume *v, void *context)
{
	struct asked *a = context;
	a->n += v->disks[a->disk].asked;
}

bool volume_disk_is_quiet(struct volume *v, uint32_t disk)
{
	struct asked a = {.disk = disk, .n = v->disks[disk].asked};
	snapshots_each_head(v->entry, asked_count, &a);
	return a.n == 0;
}

/* It has failed, and the target may have something of it. */
void move_turn_back(struct move *m)
{
	m->res = m->err;
	m->err = 0;
	m->is_live = false;
	m->is_switching = true;
	m->cut_disks = disk_bit(m->order.target);
	m->stage = MOVE_QUIET;
}

/* Clients go on. FLOW_NEXT: nobody reads or writes any more what is to be cut. */
enum flow move_quiet(struct move *m)
{
	bool is_quiet = true;
	move_let_go(m);
	for (uint64_t disks = m->cut_disks; disks != 0; disks &= disks - 1)
		is_quiet &= volume_disk_is_quiet(m->volume, (uint32_t)__builtin_ctzll(disks));
	if (is_quiet && !m->volume->is_dropping && !m->volume->barrier.rider)
		return FLOW_NEXT;
	return move_poll(m, MOVE_POLL_NS);
}

/* The next piece. FLOW_NEXT: nothing is left there, or it cannot be reached: then its resync drops it. */
enum flow move_cut(struct move *m)
{
	struct volume *v = m->volume;
	for (; m->cut_disks != 0; m->cut_disks &= m->cut_disks - 1) {
		uint32_t disk = (uint32_t)__builtin_ctzll(m->cut_disks);
		bool has_failed = m->err != 0;
		m->err = 0;
		if (!has_failed && volume_disk_is_good(v, disk) && !v->is_fenced && v->state == VOLUME_SERVING &&
		    m->cut_block < move_end_segment(m) * SEGMENT_BLOCKS) {
			m->rio.io.volume = v->entry->facts.uuid;
			m->rio.io.first = m->cut_block;
			m->rio.io.n_blocks = CUT_BLOCKS;
			m->rio.io.epoch = 0;
			m->rio.tree = volume_tree(v);
			m->cut_block += CUT_BLOCKS;
			move_ask(m, disk, DISK_CUT);
			return FLOW_WAIT;
		}
		m->cut_block = m->order.first * SEGMENT_BLOCKS;
	}
	return FLOW_NEXT;
}

/* ---- tidying ---- */

/* Of the disks of the last move, where the segments do not lie now. */
void move_look_for_rest(struct move *m)
{
	uint64_t placed = 0, disks = 0;
	for (uint64_t segment = m->order.first; segment < move_end_segment(m); segment++)
		if (chunk_find(m->volume, segment, &disks) == PLACED_ON_DISKS)
			placed |= disks;
	m->cut_disks = (disk_bit(m->order.target) | disk_bit(m->order.out)) & ~placed;
	m->is_switching = true;
	m->stage = MOVE_QUIET;
}

int move_change_tidied(struct record_update *u, struct volume_facts *facts)
{
	facts->moving = (struct moving_facts){0};
	return 0;
}

static void move_tidied(void *context, int res, const struct move_order *order)
{
	resync_want(context);
	leave_want(context);
	volume_check_drained(context);
}

static uint32_t move_disk_index(const struct volume *v, const struct uuid *uuid)
{
	const struct set_disk *d = set_disk_by_uuid(v->set, uuid);
	return d ? d->index : SET_DISKS_MAX;
}

void move_tidy(struct volume *v)
{
	const struct moving_facts *last = &v->entry->facts.moving;
	struct move_order order = {.first = last->first,
				   .n_segments = last->n_segments,
				   .out = move_disk_index(v, &last->from),
				   .target = move_disk_index(v, &last->to),
				   .is_tidying = true,
				   .done = move_tidied,
				   .context = v};
	if (v->snapshot || last->n_segments == 0 || last->first / PLACEMENT_CHUNK >= v->n_chunks)
		return;
	if (move_start(v, &order) != 0)
		log_line(v->set->log, LOG_WARNING, "move",
			 "no memory to drop what an interrupted move of volume %s has left; the next attach does it",
			 v->entry->facts.name);
}

/* ---- who keeps segments where they are ---- */

void places_grant(struct volume *v)
{
	if (v->move && v->move->is_switching)
		return;
	for (struct list *node; (node = list_pop(&v->places_wanted)) != NULL;) {
		struct places_hold *h = container_of(node, struct places_hold, link);
		h->is_held = true;
		v->n_places_held++;
		h->held(h);
	}
}

void places_hold(struct volume *v, struct places_hold *h)
{
	quarry_assert(h->held && !h->is_held);
	list_append(&v->places_wanted, &h->link);
	places_grant(v);
}

void places_let_go(struct volume *v, struct places_hold *h)
{
	if (!h->is_held)
		return;
	quarry_assert(v->n_places_held > 0);
	h->is_held = false;
	v->n_places_held--;
}
