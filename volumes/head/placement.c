/*
 * placement.c: gives segments their disks, at their first write, and records it before anything is written there.
 *
 *   REST -> CHOOSE -> JOIN -> CLEAR -> RECORD -> REST
 *              ^        |       |
 *              +--------+-------+ a disk could not be joined or cleared: choose again without it
 *
 *   CHOOSE   picks disks for every segment that requests wait for, as many segments as one transaction holds
 *            (placement_choose.c)
 *   JOIN     one after the other, the disks that hold nothing of the volume yet: fence, tree, complete epoch [PLACEL]
 *   CLEAR    a segment begins as a hole: what lies in its place since before an older store was put back is trimmed, and
 *            flushed before anybody may find it there
 *   RECORD   one transaction over the chunks' keys and, when a disk is new, the volume's record, on the condition that
 *            none of the disks was removed
 *
 * Invariants
 *  1. A write goes only to a segment whose placement the store has confirmed; a failed or unknown outcome is settled by
 *     reading the chunk again, never by assuming.
 *  2. Requests that want the same segment, or segments placed in the same round, share one transaction.
 *  3. From the first JOIN to the outcome no barrier runs, and none is under way when it begins [PLACEBAR].
 *  4. A segment moves to other disks only while it is fresh: no write of it has ever succeeded, none is in flight, and
 *     new ones wait (its `moving` bit).
 *  5. Picked chunks are pinned until the outcome. Picked disks are in use from CHOOSE on, so that they are not removed
 *     meanwhile, and the transaction is on the condition that they were not.
 *
 * Owner: the volume.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* On as many the record of a placement is conditional for the sake of its picks; one more is the volume's record, and one each
 * the disks that it names anew. */
#define PICKS_CONDITIONS_MAX 16u
_Static_assert(PICKS_CONDITIONS_MAX + SET_DISKS_MAX <= METADATA_CONDITIONS_MAX,
	       "a transaction has room for all of them");

enum placer_stage { PLACER_REST, PLACER_CHOOSE, PLACER_JOIN, PLACER_CLEAR, PLACER_RECORD };

/* ---- CHOOSE ---- */

static struct place_pick *pick_find(struct placer *p, uint64_t segment)
{
	for (uint32_t i = 0; i < p->n_picks; i++)
		if (p->picks[i].segment == segment)
			return &p->picks[i];
	return NULL;
}

static bool pick_is_first_of_chunk(const struct placer *p, uint32_t i)
{
	for (uint32_t j = 0; j < i; j++)
		if (p->picks[j].segment / PLACEMENT_CHUNK == p->picks[i].segment / PLACEMENT_CHUNK)
			return false;
	return true;
}

static uint32_t picks_chunks(const struct placer *p)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < p->n_picks; i++)
		n += pick_is_first_of_chunk(p, i);
	return n;
}

/* Bit per disk that any pick has. */
static uint64_t picks_disks(const struct placer *p)
{
	uint64_t disks = 0;
	for (uint32_t i = 0; i < p->n_picks; i++)
		disks |= p->picks[i].disks;
	return disks;
}

/* Room for one more pick, whatever its chunk and its disks? */
static bool picks_have_room(const struct volume *v)
{
	const struct placer *p = &v->placer;
	uint32_t n_disks = (uint32_t)__builtin_popcountll(picks_disks(p)) + v->entry->facts.replicas;
	return p->n_picks < PLACE_PICKS_MAX && picks_chunks(p) + n_disks < PICKS_CONDITIONS_MAX;
}

bool placer_uses_disk(const struct volume *v, uint32_t disk)
{
	const struct placer *p = &v->placer;
	return (picks_disks(p) | p->new_disks) >> disk & 1 || (p->join && p->join->disk == disk);
}

static int pick_add(struct volume *v, uint64_t segment, uint64_t full, bool is_move)
{
	struct placer *p = &v->placer;
	struct place_pick *pick = &p->picks[p->n_picks];
	int err = placement_choose(v, full | p->refused, p->failed, &pick->disks);
	if (err == -ENOSPC && p->failed != 0)
		return -EIO; /* the room may be there, on a disk that cannot be used */
	if (err != 0)
		return err;
	pick->segment = segment;
	pick->is_move = is_move;
	chunk_get(v, segment)->pins++;
	p->n_picks++;
	return 0;
}

static void picks_clear(struct volume *v)
{
	struct placer *p = &v->placer;
	for (uint32_t i = 0; i < p->n_picks; i++)
		chunk_pinned(v, p->picks[i].segment)->pins--;
	p->n_picks = 0;
}

/* A request whose segment has a disk meanwhile, or whose chunk must be read again, is sent back to look. */
static void choose_for_request(struct volume *v, struct volume_io *io)
{
	struct placer *p = &v->placer;
	uint64_t segment = io->own.cursor / SEGMENT_BYTES;
	uint64_t disks;
	enum placed placed = chunk_find(v, segment, &disks);
	if (placed == PLACED_MOVING || pick_find(p, segment))
		return;
	if (placed != PLACED_NOWHERE)
		return volume_io_wake(io, 0);
	if (!picks_have_room(v))
		return;
	int err = pick_add(v, segment, 0, false);
	io->own.is_short = err == -EIO && v->entry->facts.min_replicas > 1; /* it waits for more disks */
	if (err != 0)
		volume_io_wake(io, io->own.is_short ? 0 : err);
}

/* All parts that wait for the segment's move get the answer. */
static void moves_answer(struct volume *v, uint64_t segment, int res)
{
	struct chunk *c = v->chunks[segment / PLACEMENT_CHUNK];
	quarry_assert(c->pins > 0); /* pinned since it was picked: it is there */
	chunk_bit_set(c->moving, segment, false);
	list_each_safe (node, &v->placer.moving) {
		struct part *part = container_of(node, struct part, link);
		if (part->segment != segment)
			continue;
		list_remove(&part->link);
		quarry_assert(c->pins > 0);
		c->pins--;
		part_moved(part, res);
	}
}

/* Disks that any part has tried for this segment. */
static uint64_t moves_tried(const struct volume *v, uint64_t segment)
{
	uint64_t tried = 0;
	list_each (node, &v->placer.moving) {
		const struct part *part = container_of(node, struct part, link);
		if (part->segment == segment)
			tried |= part->tried;
	}
	return tried;
}

/* Decides one segment's move. true: the list has changed, look at it anew. */
static bool choose_for_move(struct volume *v, const struct part *part)
{
	uint64_t segment = part->segment;
	struct chunk *c = chunk_get(v, segment);
	if (!c) /* being read again: the placer runs when it is here */
		return false;
	if (pick_find(&v->placer, segment) || !picks_have_room(v))
		return false;
	int err = -ENOSPC; /* something was written there after all: it stays */
	if (chunk_bit(c->fresh, segment)) {
		if (c->fresh_in_flight > 0)
			return false;
		err = pick_add(v, segment, moves_tried(v, segment), true);
	}
	if (err != 0)
		moves_answer(v, segment, err);
	return err != 0;
}

static void choose_moves(struct volume *v)
{
	bool has_changed;
	do {
		has_changed = false;
		list_each (node, &v->placer.moving) {
			has_changed = choose_for_move(v, container_of(node, struct part, link));
			if (has_changed)
				break;
		}
	} while (has_changed);
}

static void placer_choose(struct volume *v)
{
	picks_clear(v);
	choose_moves(v); /* first: requests may wait for their outcome */
	list_each_safe (node, &v->placer.wanting)
		choose_for_request(v, container_of(node, struct volume_io, own.line));
}

/* ---- JOIN ---- */

/* A disk among the picks that the volume does not use yet; SET_DISKS_MAX: none. */
static uint32_t placer_unjoined(const struct volume *v)
{
	for (uint64_t disks = picks_disks(&v->placer); disks != 0; disks &= disks - 1)
		if (v->disks[__builtin_ctzll(disks)].state != VOLUME_DISK_JOINED)
			return (uint32_t)__builtin_ctzll(disks);
	return SET_DISKS_MAX;
}

static void placer_refuse(struct placer *p, uint32_t disk, int err)
{
	p->refused |= 1ull << disk;
	if (err != -ENOSPC)
		p->failed |= 1ull << disk;
	p->stage = PLACER_CHOOSE;
}

static void placer_give_up(struct volume *v, int err);
static int placer_judge(struct volume *v, int res);

static void placer_joined(struct join *j, int res)
{
	struct volume *v = j->volume;
	struct placer *p = &v->placer;
	quarry_assert(p->stage == PLACER_JOIN && p->join == j);
	p->join = NULL;
	if (res == -EAGAIN) { /* what is known of the disk is not the newest */
		placer_give_up(v, placer_judge(v, res));
		return;
	}
	if (res == 0)
		p->new_disks |= 1ull << j->disk;
	else
		placer_refuse(p, j->disk, res);
	placer_run(v);
}

static enum flow placer_join(struct volume *v)
{
	struct placer *p = &v->placer;
	uint32_t disk = placer_unjoined(v);
	if (disk == SET_DISKS_MAX)
		return FLOW_NEXT;
	quarry_assert(p->is_joining && !p->join);
	int err = -EIO; /* it has failed, and may be in a resync, while another was being joined */
	if (placement_may_take(v, v->set->disks[disk]))
		err = join_start(v, disk, v->complete_epoch, placer_joined, NULL, &p->join);
	if (err == 0)
		return FLOW_WAIT;
	placer_refuse(p, disk, err);
	return FLOW_NEXT;
}

/* ---- CLEAR: MAP -> the next copy, or TRIM -> FLUSH -> the next copy ---- */

static void clear_begin(struct placer *p)
{
	p->clear_op = DISK_MAP;
	p->n_clear = 0;
	p->clear_disks = p->picks[0].disks;
}

static void clear_next(struct placer *p)
{
	p->clear_op = DISK_MAP;
	p->clear_disks &= p->clear_disks - 1;
	if (p->clear_disks == 0 && ++p->n_clear < p->n_picks)
		p->clear_disks = p->picks[p->n_clear].disks;
}

/* The disk that is being cleared, of the pick that is. */
static uint32_t clear_disk(const struct placer *p)
{
	quarry_assert(p->n_clear < p->n_picks && p->clear_disks != 0);
	return (uint32_t)__builtin_ctzll(p->clear_disks);
}

static void placer_cleared(struct replica_io *rio, int res)
{
	struct placer *p = container_of(rio, struct placer, rio);
	const struct disk_io *io = &rio->io;
	struct volume *v = container_of(p, struct volume, placer);
	quarry_assert(p->stage == PLACER_CLEAR && p->is_clearing);
	p->is_clearing = false;
	if (res < 0) {
		placer_refuse(p, clear_disk(p), res);
	} else if (io->op == DISK_MAP && io->n_extents > 0) {
		p->clear_op = DISK_TRIM;
	} else if (io->op == DISK_TRIM) {
		p->clear_op = DISK_FLUSH;
	} else {
		clear_next(p);
	}
	placer_run(v);
}

static enum flow placer_clear(struct volume *v)
{
	struct placer *p = &v->placer;
	if (p->n_clear == p->n_picks)
		return FLOW_NEXT;
	uint32_t disk = clear_disk(p);
	quarry_assert(p->is_joining && !p->is_clearing);
	if (!volume_disk_is_good(v, disk)) {
		placer_refuse(p, disk, -EIO);
		return FLOW_NEXT;
	}
	p->rio = (struct replica_io){.io = {.op = p->clear_op,
					    .epoch = v->epoch,
					    .first = p->picks[p->n_clear].segment * SEGMENT_BLOCKS,
					    .n_blocks = SEGMENT_BLOCKS,
					    .since = p->clear_op == DISK_MAP,
					    .extents = &p->extent,
					    .extents_max = 1},
				     .tree = volume_tree(v),
				     .done = placer_cleared};
	p->is_clearing = true;
	replica_submit(&v->disks[disk].replica, &p->rio);
	return FLOW_WAIT;
}

/* ---- RECORD ---- */

static struct volume *volume_of_update(struct record_update *u)
{
	return container_of(u, struct placer_update, update)->volume;
}

/* One that was joined in vain, and removed since, holds nothing that counts, and the store may know it no more. */
static bool placer_names(const struct volume *v, uint32_t disk)
{
	const struct set_disk *d = v->set->disks[disk];
	return v->placer.new_disks >> disk & 1 && d && !d->facts.is_removed;
}

/* Every disk that holds a tree of the volume counts from now on. */
static int placer_change(struct record_update *u, struct volume_facts *facts)
{
	struct volume *v = volume_of_update(u);
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		if (!placer_names(v, i))
			continue;
		const struct uuid *uuid = &v->set->disks[i]->facts.uuid;
		if (!volume_facts_take_disk(facts, uuid, v->generation))
			return -ENOSPC;
	}
	return 0;
}

/* What has become known of it since it was chosen counts as well: while other disks were joined it may have begun to be
 * drained, and a volume may have left it. */
uint64_t placement_revision(const struct set_disk *d)
{
	return d->facts.is_draining || d->facts.is_removed ? REVISION_NONE : d->facts.revision;
}

static void placer_extend(struct record_update *u, struct transaction *t)
{
	struct volume *v = volume_of_update(u);
	struct placer *p = &v->placer;
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&v->entry->facts.uuid, uuid);
	for (uint32_t i = 0; i < p->n_picks; i++) {
		if (!pick_is_first_of_chunk(p, i))
			continue;
		const struct chunk *c = chunk_pinned(v, p->picks[i].segment);
		bool is_known = chunk_get(v, p->picks[i].segment) == c; /* else it is being read again: nothing holds */
		transaction_condition(t, is_known ? c->revision : REVISION_NONE, CHUNK_KEY, uuid, c->number);
		if (is_known)
			transaction_put(t, chunk_to_json(c, p->picks, p->n_picks), CHUNK_KEY, uuid, c->number);
	}
	for (uint64_t disks = picks_disks(p); disks != 0; disks &= disks - 1) {
		const struct set_disk *d = v->set->disks[__builtin_ctzll(disks)];
		uuid_to_text(&d->facts.uuid, uuid);
		transaction_condition(t, placement_revision(d), DISK_KEY, uuid);
	}
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		if (!placer_names(v, i) || picks_disks(p) >> i & 1)
			continue;
		uuid_to_text(&v->set->disks[i]->facts.uuid, uuid);
		transaction_condition(t, v->set->disks[i]->facts.revision, DISK_KEY, uuid);
	}
}

/* The store has recorded the picks. */
static void placer_apply(struct volume *v, uint64_t revision)
{
	struct placer *p = &v->placer;
	for (uint32_t i = 0; i < p->n_picks; i++) {
		struct chunk *c = chunk_pinned(v, p->picks[i].segment);
		uint64_t before;
		if (p->picks[i].is_move && chunk_find(v, p->picks[i].segment, &before) == PLACED_MOVING)
			layout_remove(v, before);
		layout_add(v, p->picks[i].disks);
		chunk_place(c, p->picks[i].segment, p->picks[i].disks);
		c->revision = revision;
	}
}

/* What the store holds is not known: the chunks are read again, and requests there wait for it. */
static void placer_doubt(struct volume *v)
{
	struct placer *p = &v->placer;
	struct chunk *chunks[PLACE_PICKS_MAX];
	uint32_t n = 0;
	for (uint32_t i = 0; i < p->n_picks; i++)
		layout_add(v, p->picks[i].disks);
	for (uint32_t i = 0; i < p->n_picks; i++)
		if (pick_is_first_of_chunk(p, i))
			chunks[n++] = chunk_pinned(v, p->picks[i].segment);
	picks_clear(v);
	for (uint32_t i = 0; i < n; i++)
		chunk_reload(chunks[i]);
}

static void placer_wake_all(struct volume *v, int err)
{
	list_each_safe (node, &v->placer.wanting)
		volume_io_wake(container_of(node, struct volume_io, own.line), err);
}

static void placer_answer_moves(struct volume *v, int res)
{
	struct place_pick picks[PLACE_PICKS_MAX];
	uint32_t n_picks = v->placer.n_picks;
	memcpy(picks, v->placer.picks, n_picks * sizeof(picks[0]));
	for (uint32_t i = 0; i < n_picks; i++)
		if (picks[i].is_move)
			moves_answer(v, picks[i].segment, res);
}

/* What those who wait are told: 0 look again, or an error. */
static int placer_judge(struct volume *v, int res)
{
	/* What the store knows better is heard when the detach is over, and that waits for who waits here. */
	if (res == -EAGAIN && v->state == VOLUME_DRAINING)
		return -ESHUTDOWN;
	if (res == 0 || res == -EAGAIN || (res == -ETIMEDOUT && (!v->set->members || set_lease_is_patient(v))))
		return 0;
	if (res == -ESTALE || res == -ENOENT)
		volume_fence(v, "another head has attached it");
	else
		log_event(v->set->log, LOG_ERROR, "placement-failed", v->entry->facts.name,
			  "no placement could be recorded for volume %s: the metadata store says: %s",
			  v->entry->facts.name, strerror(-res));
	return -EIO;
}

/* A disk that was joined and lost before anything was placed there is none of the volume's; one that the record names by
 * now is to be marked. */
static void placer_judge_lost(struct volume *v)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (v->disks[i].state == VOLUME_DISK_LOST &&
		    !volume_facts_use_disk(&v->entry->facts, &v->set->disks[i]->facts.uuid)) {
			v->disks[i].state = VOLUME_DISK_UNUSED;
			v->placer.new_disks &= ~(1ull << i);
		}
	stale_wake(v);
}

static void placer_rest(struct volume *v)
{
	v->placer.stage = PLACER_REST;
	v->placer.is_joining = false;
	if (volume_is_replicated(v))
		placer_judge_lost(v);
	barrier_run(v);
	placer_run(v);
}

/* Nothing was recorded. Those who wait are told: 0 look again, or an error. */
static void placer_give_up(struct volume *v, int err)
{
	placer_answer_moves(v, -ENOSPC);
	picks_clear(v);
	placer_wake_all(v, err);
	placer_rest(v);
	leave_want(v); /* a disk may be named, and not used */
}

static void placer_recorded(struct record_update *u, int res)
{
	struct volume *v = volume_of_update(u);
	struct placer *p = &v->placer;
	bool is_applied = res == 0 && u->is_certain;
	uint64_t revision = u->revision;
	quarry_assert(p->stage == PLACER_RECORD && &p->update->update == u);
	free(p->update);
	p->update = NULL;
	int err = placer_judge(v, res);
	if (res == 0)
		p->new_disks = 0;
	if (is_applied)
		placer_apply(v, revision);
	placer_answer_moves(v, is_applied ? 0 : -ENOSPC);
	if (is_applied)
		picks_clear(v);
	else
		placer_doubt(v);
	placer_wake_all(v, err);
	placer_rest(v);
	leave_want(v); /* the record may name a disk that came to nothing, or has begun to be drained since */
}

static bool picks_have_move(const struct placer *p)
{
	bool has_move = false;
	for (uint32_t i = 0; i < p->n_picks; i++)
		has_move |= p->picks[i].is_move;
	return has_move;
}

static int placer_record(struct volume *v)
{
	struct placer *p = &v->placer;
	quarry_assert(p->n_picks > 0 && !p->update);
	if (layout_reserve(v, p->n_picks) != 0)
		return -ENOMEM;
	p->update = calloc(1, sizeof(*p->update));
	if (!p->update)
		return -ENOMEM;
	p->update->volume = v;
	p->update->update.generation = v->generation;
	/* One that moves a segment may not take effect after others have written there: its outcome is waited for. */
	bool has_move = picks_have_move(p);
	p->update->update.change = p->new_disks || has_move ? placer_change : NULL;
	p->update->update.head = has_move ? v : NULL;
	p->update->update.extend = placer_extend;
	p->update->update.done = placer_recorded;
	record_update_start(&p->update->update, v->entry);
	return 0;
}

/* ---- the dispatcher ---- */

void placer_run(struct volume *v)
{
	struct placer *p = &v->placer;
	while (!p->join && !p->update && !p->is_clearing) {
		switch ((enum placer_stage)p->stage) {
		case PLACER_REST:
			if (list_is_empty(&p->wanting) && list_is_empty(&p->moving)) {
				volume_check_drained(v);
				return;
			}
			p->refused = p->failed = 0;
			p->stage = PLACER_CHOOSE;
			break;
		case PLACER_CHOOSE:
			placer_choose(v);
			if (p->n_picks == 0) { /* all are answered, or wait for writes in flight */
				p->stage = PLACER_REST;
				p->is_joining = false;
				barrier_run(v);
				leave_want(v);
				return;
			}
			if (!p->is_joining && (!barrier_is_resting(v) || move_is_naming(v)))
				return; /* its end calls again [PLACEBAR] */
			p->is_joining = true;
			p->stage = PLACER_JOIN;
			break;
		case PLACER_JOIN:
			if (placer_join(v) == FLOW_WAIT)
				return;
			if (p->stage == PLACER_CHOOSE)
				break;
			clear_begin(p);
			p->stage = PLACER_CLEAR;
			break;
		case PLACER_CLEAR:
			if (placer_clear(v) == FLOW_WAIT)
				return;
			if (p->stage == PLACER_CHOOSE)
				break;
			p->stage = PLACER_RECORD;
			if (placer_record(v) != 0)
				placer_give_up(v, -ENOMEM);
			return;
		case PLACER_RECORD:
			quarry_assert(!"without an update under way");
		}
	}
}

static void placer_turn(struct op *op, int res)
{
	placer_run(container_of(op, struct volume, placer.op));
}

/* On the next turn, so that all that comes in this one shares a transaction. */
static void placer_wake(struct volume *v)
{
	if (v->placer.op.kind == OP_NONE)
		reactor_defer(v->set->reactor, &v->placer.op, 0);
}

void placement_want(struct volume *v, struct volume_io *io)
{
	list_append(&v->placer.wanting, &io->own.line);
	placer_wake(v);
}

void placement_move(struct volume *v, struct part *part)
{
	struct chunk *c = chunk_get(v, part->segment);
	quarry_assert(c && !list_is_linked(&part->link));
	part->tried |= part->full;
	c->pins++;
	chunk_bit_set(c->moving, part->segment, true);
	list_append(&v->placer.moving, &part->link);
	placer_wake(v);
}

void placement_moves_fail(struct volume *v, uint32_t chunk, int err)
{
	struct list *moving = &v->placer.moving;
	for (struct list *node = moving->next; node != moving;) {
		uint64_t segment = container_of(node, struct part, link)->segment;
		node = node->next;
		if (segment / PLACEMENT_CHUNK != chunk)
			continue;
		moves_answer(v, segment, err);
		node = moving->next;
	}
}

void placer_init(struct volume *v)
{
	struct placer *p = &v->placer;
	p->stage = PLACER_REST;
	list_init(&p->wanting);
	list_init(&p->moving);
	op_init(&p->op, placer_turn);
}

bool placer_is_idle(const struct volume *v)
{
	const struct placer *p = &v->placer;
	return p->stage == PLACER_REST && list_is_empty(&p->wanting) && list_is_empty(&p->moving) &&
	       p->op.kind == OP_NONE;
}

void placer_abandon(struct volume *v)
{
	struct placer *p = &v->placer;
	if (p->update)
		record_update_abandon(&p->update->update);
	free(p->update);
	join_abandon(p->join);
	p->update = NULL;
	p->join = NULL;
}
