/*
 * set_snapshots.c: the commands that take snapshots, of one or several volumes at one point, and that roll back.
 *
 *   CHECK -> ATTACH -> COMPARE -> RESERVE -> FLUSH -> CLAIM -> FORK -> RECORD -> SWEEP -> DETACH -> END
 *              +---------+-----------+------------------+-------+--- on error --^
 *
 *   ATTACH   volumes that nobody uses are attached for the command's own work, and seen by no frontend
 *   COMPARE  (rollback) a volume that has what the snapshot has is left as it is: a repeated command changes nothing
 *   RESERVE  a head that has used up its tree ids takes more from the record [TREEID]
 *   FLUSH    if much was written since the last one, and while writes go on: so that the flush for which these wait in
 *            FORK is a short one
 *   CLAIM    a barrier of each is claimed; when all are, their epochs are closed in one turn, which is the point
 *   FORK     each drains, forks its tree on all of its disks, durably, and lets go of the writes it held back [SNAPHOLD];
 *            the barrier goes on to complete the epoch, which nobody waits for
 *   RECORD   one transaction over all records [SNAPREC]; after it disks may be joined again [PLACEBAR]
 *   SWEEP    (rollback) the former live tree is dropped
 *
 * Invariants
 *  1. What is in the point: for every volume all writes sent before that turn, none after. So a write that was sent when
 *     another had been completed is in it only with the other.
 *  2. A tree id is given out once: the head takes it from the range that its attachment recorded [TREEID].
 *  3. Trees that were forked and not recorded are debris: dropped at the next join of their disk; here only when it is
 *     certain that the store has not recorded them.
 *  4. A rollback is a fork of the snapshot that becomes the live tree. Nobody else uses the volume meanwhile, so what
 *     COMPARE has seen stays so.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_STAGES(X)                                                                                             \
	X(CHECK) X(ATTACH) X(COMPARE) X(RESERVE) X(FLUSH) X(CLAIM) X(FORK) X(RECORD) X(SWEEP) X(DETACH) X(END)
#define X(name) SNAPSHOT_##name,
enum snapshot_stage { SNAPSHOT_STAGES(X) };
#undef X

/* One volume's part in it. */
struct snapshot_point {
	struct command *command;
	struct set_volume *entry;
	const char *name;
	struct volume_io io; /* FLUSH */
	struct barrier_rider rider;
	struct fork fork;
	struct snapshot_facts facts; /* to be recorded */
	bool is_attached_here, is_claimed, is_forking;
};

struct snapshot_work {
	struct snapshot_point points[SET_TARGETS_MAX];
	struct record_member members[SET_TARGETS_MAX];
	uint32_t n, owed, disk;          /* disk: SWEEP's */
	bool is_rollback, is_unrecorded; /* is_unrecorded: the store certainly knows nothing of the forks */
	struct tree_batch *batch;
	struct volume_base *base; /* COMPARE */
	struct volume_changes changes;
	struct volume_extent first, scratch[VOLUME_CHANGES_SCRATCH];
};

void snapshot_work_free(struct snapshot_work *w)
{
	if (!w)
		return;
	for (uint32_t i = 0; i < w->n; i++)
		fork_abandon(&w->points[i].fork);
	tree_batch_abandon(w->batch);
	free(w->base); /* abandoned with the heads that it has open */
	free(w);
}

static void snapshot_run(struct command *c);

/* The one door for what waits on all points: the last one goes on. */
static void snapshot_count_down(struct command *c)
{
	quarry_assert(c->snapshots->owed > 0);
	if (--c->snapshots->owed == 0)
		snapshot_run(c);
}

/* ---- CHECK ---- */

static int snapshot_work_create(struct command *c, bool is_rollback)
{
	struct snapshot_work *w = calloc(1, sizeof(*w));
	if (!w)
		return command_refuse(c, -ENOMEM, "no-memory", "there is no memory to carry this out");
	w->is_rollback = is_rollback;
	w->is_unrecorded = true;
	c->snapshots = w;
	return 0;
}

/* Adds a volume; -errno when it cannot take part. */
static int snapshot_add(struct command *c, const struct set_target *t)
{
	struct snapshot_work *w = c->snapshots;
	struct set_volume *entry = set_volume_find(c->set, t->volume);
	if (!entry)
		return command_refuse_missing(c, "volume", t->volume);
	for (uint32_t i = 0; i < w->n; i++)
		if (w->points[i].entry == entry)
			return command_refuse(c, -EINVAL, "invalid", "volume %s is named twice", t->volume);
	if (command_check_here(c, entry) != 0 || command_check_whole(c, entry, "snapshotted") != 0)
		return c->err;
	w->points[w->n++] = (struct snapshot_point){.command = c, .entry = entry, .name = t->snapshot};
	return 0;
}

/* 1: take it; 0: all of it exists; -errno. */
static int snapshot_create_check(struct command *c)
{
	const struct set_command *o = c->order;
	uint32_t n_there = 0;
	bool is_one_moment = true;
	uint64_t created_ns = 0;
	const char *there = "", *missing = "";
	if (o->n_targets == 0)
		return command_refuse(c, -EINVAL, "invalid", "say which snapshot to take: NAME@SNAP");
	if (snapshot_work_create(c, false) != 0)
		return c->err;
	for (uint32_t i = 0; i < o->n_targets; i++) {
		if (command_check_name(c, o->targets[i].snapshot) != 0 || snapshot_add(c, &o->targets[i]) != 0)
			return c->err;
		const struct set_snapshot *snap = snapshot_find(c->snapshots->points[i].entry, o->targets[i].snapshot);
		n_there += snap != NULL;
		*(snap ? &there : &missing) = o->targets[i].volume;
		is_one_moment &= !snap || created_ns == 0 || snap->facts.created_ns == created_ns;
		created_ns = snap ? snap->facts.created_ns : created_ns;
	}
	if (n_there == o->n_targets && !is_one_moment)
		return command_refuse(c, -EEXIST, "exists",
				      "these snapshots exist, and were not taken at one moment: choose other names");
	if (n_there == o->n_targets)
		return 0;
	if (n_there > 0)
		return command_refuse(c, -EEXIST, "exists",
				      "volume %s has a snapshot of that name already, volume %s has not: choose "
				      "another name",
				      there, missing);
	return 1;
}

static int snapshot_rollback_check(struct command *c)
{
	if (command_find_snapshot(c) != 0)
		return c->err;
	const struct volume_facts *f = &c->volume->facts;
	if (c->volume->head || f->is_attached_nbd || f->is_attached_vhost)
		return command_refuse(c, -EBUSY, "in-use",
				      "volume %s is attached, and what its clients see would change under them: "
				      "quarry volume detach %s, then roll back",
				      f->name, f->name);
	if (snapshot_work_create(c, true) != 0 || snapshot_add(c, &c->order->targets[0]) != 0)
		return c->err;
	return 1;
}

/* ---- ATTACH, DETACH ---- */

static void snapshot_attached(struct set_volume *entry, int res, void *context)
{
	struct snapshot_point *p = context;
	p->is_attached_here = res == 0;
	if (res != 0)
		command_refuse(p->command, -EIO, "failed", "volume %s: %s", entry->facts.name, entry->why);
	snapshot_count_down(p->command);
}

static void snapshot_attach(struct command *c)
{
	struct attach_options o = {.is_return = true};
	struct snapshot_work *w = c->snapshots;
	w->owed = 1; /* this loop's own */
	for (uint32_t i = 0; i < w->n; i++) {
		if (w->points[i].entry->head)
			continue;
		w->owed++;
		volume_attach(w->points[i].entry, &o, snapshot_attached, &w->points[i]);
	}
	snapshot_count_down(c);
}

static void snapshot_detached(struct set_volume *entry, int res, void *context)
{
	struct snapshot_point *p = context;
	snapshot_count_down(p->command);
}

static void snapshot_detach(struct command *c)
{
	struct snapshot_work *w = c->snapshots;
	w->owed = 1;
	for (uint32_t i = 0; i < w->n; i++) {
		if (!w->points[i].is_attached_here)
			continue;
		w->owed++;
		volume_detach(w->points[i].entry, false, snapshot_detached, &w->points[i]);
	}
	snapshot_count_down(c);
}

/* ---- COMPARE ---- */

/* What cannot be compared is rolled back. */
static void rollback_compared(struct volume_changes *changes, int res)
{
	struct snapshot_work *w = container_of(changes, struct snapshot_work, changes);
	struct command *c = w->points[0].command;
	volume_base_close(w->base);
	w->base = NULL;
	c->order->is_unchanged = res == 0 && !w->first.is_changed && w->first.len_bytes == changes->len_bytes;
	snapshot_run(c);
}

/* What has changed since is not looked for to its end: the first extent is either changed or all of the volume. */
static enum flow rollback_compare(struct command *c)
{
	struct snapshot_work *w = c->snapshots;
	struct volume *v = w->points[0].entry->head;
	if (!w->is_rollback || v->size_bytes != c->snapshot->facts.size_bytes ||
	    volume_base_open(v, c->snapshot->facts.name, &w->base) != 0)
		return FLOW_NEXT;
	w->changes = (struct volume_changes){.base = w->base,
					     .len_bytes = v->size_bytes,
					     .extents = &w->first,
					     .extents_max = 1,
					     .scratch = w->scratch,
					     .done = rollback_compared};
	volume_changes_submit(&w->changes);
	return FLOW_WAIT;
}

/* ---- RESERVE ---- */

static int reserve_change(struct record_update *u, struct volume_facts *facts)
{
	if (facts->next_tree > INT64_MAX - 2 * TREES_PER_ATTACH)
		return -EOVERFLOW;
	facts->next_tree += TREES_PER_ATTACH;
	return 0;
}

static void reserve_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	for (uint32_t i = 0; i < u->own.n_members && res == 0; i++) {
		const struct set_volume *entry = u->own.members[i].entry;
		entry->head->next_tree = entry->facts.next_tree - TREES_PER_ATTACH;
		entry->head->tree_end = entry->facts.next_tree;
	}
	if (res != 0)
		command_refuse_store(c, res);
	snapshot_run(c);
}

static enum flow snapshot_reserve(struct command *c)
{
	struct snapshot_work *w = c->snapshots;
	uint32_t n = 0;
	for (uint32_t i = 0; i < w->n; i++) {
		const struct volume *v = w->points[i].entry->head;
		if (v->next_tree >= v->tree_end)
			w->members[n++] =
			    (struct record_member){.entry = w->points[i].entry, .generation = v->generation};
	}
	if (n == 0)
		return FLOW_NEXT;
	c->update.change = reserve_change;
	c->update.extend = NULL;
	c->update.done = reserve_recorded;
	record_update_start_many(&c->update, w->members, n);
	return FLOW_WAIT;
}

/* ---- FLUSH ---- */

/* A device makes fewer durable in little more time than none. */
#define MANY_WRITES 128u

static bool has_much_to_flush(const struct volume *v)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (v->disks[i].written - v->disks[i].flushed >= MANY_WRITES)
			return true;
	return false;
}

/* An error is that of a disk, which will not fork either. */
static void snapshot_flushed(struct volume_io *io, int res)
{
	snapshot_count_down(container_of(io, struct snapshot_point, io)->command);
}

static void snapshot_flush(struct command *c)
{
	struct snapshot_work *w = c->snapshots;
	w->owed = 1; /* this loop's own */
	for (uint32_t i = 0; i < w->n; i++) {
		struct volume *v = w->points[i].entry->head;
		if (!has_much_to_flush(v))
			continue;
		w->owed++;
		w->points[i].io = (struct volume_io){.op = VOLUME_FLUSH, .done = snapshot_flushed};
		volume_submit_internal(v, &w->points[i].io);
	}
	snapshot_count_down(c);
}

/* ---- CLAIM, FORK ---- */

static void snapshot_forked(struct fork *f, int res)
{
	struct snapshot_point *p = f->context;
	if (res != 0)
		command_refuse(p->command, res == -ENOSPC ? -ENOSPC : -EIO, res == -ENOSPC ? "no-space" : "failed",
			       "volume %s: a disk refused the snapshot: %s", p->entry->facts.name, strerror(-res));
	barrier_forked(p->entry->head, res);
	snapshot_count_down(p->command);
}

static void snapshot_fork(struct snapshot_point *p)
{
	struct volume *v = p->entry->head;
	bool is_rollback = p->command->snapshots->is_rollback;
	p->fork = (struct fork){.volume = v,
				.from = is_rollback ? p->command->snapshot->facts.tree : p->entry->facts.live_tree,
				.to = p->facts.tree,
				.to_volume = p->entry->facts.uuid,
				.epoch = v->barrier.epoch,
				.done = snapshot_forked,
				.context = p};
	p->facts.epoch = v->barrier.epoch;
	fork_start(&p->fork);
}

static void snapshot_reached(struct barrier_rider *r)
{
	struct snapshot_point *p = container_of(r, struct snapshot_point, rider);
	struct barrier *b = &p->entry->head->barrier;
	if (b->stage == BARRIER_FORK)
		return snapshot_fork(p);
	if (b->stage == BARRIER_SETTLE && b->err != 0 && p->command->err == 0)
		command_refuse(p->command, -EIO, "failed", "volume %s: its disks answer: %s", p->entry->facts.name,
			       strerror(-b->err));
	snapshot_count_down(p->command);
}

static void snapshot_claim(struct command *c)
{
	struct snapshot_work *w = c->snapshots;
	char why[SET_WHY_BYTES];
	for (uint32_t i = 0; i < w->n; i++)
		if (!fork_reaches_all(w->points[i].entry->head, why, sizeof(why))) {
			command_refuse(c, -EIO, "failed", "volume %s: %.300s", w->points[i].entry->facts.name,
				       w->points[i].entry->head->is_fenced ? "it is fenced" : why);
			return snapshot_run(c);
		}
	w->owed = w->n;
	for (uint32_t i = 0; i < w->n; i++) {
		w->points[i].rider.reached = snapshot_reached;
		w->points[i].is_claimed = true;
		barrier_claim(w->points[i].entry->head, &w->points[i].rider);
	}
}

static void snapshot_take_ids(struct command *c)
{
	struct snapshot_work *w = c->snapshots;
	uint64_t now_ns = reactor_wall_ns(c->set->reactor); /* the same for all: they are known by it */
	for (uint32_t i = 0; i < w->n; i++) {
		struct snapshot_point *p = &w->points[i];
		struct volume *v = p->entry->head;
		const struct volume_facts *f = &p->entry->facts;
		quarry_assert(v->next_tree < v->tree_end);
		p->facts = (struct snapshot_facts){.tree = v->next_tree++,
						   .branch = f->live_tree,
						   .size_bytes = f->size_bytes,
						   .created_ns = now_ns,
						   .is_scheduled = c->order->is_scheduled};
		text_print(p->facts.name, sizeof(p->facts.name), "%s", p->name);
	}
}

/* All are claimed: this turn is the point. */
static void snapshot_close_all(struct command *c)
{
	struct snapshot_work *w = c->snapshots;
	w->owed = w->n;
	for (uint32_t i = 0; i < w->n; i++)
		w->points[i].is_forking = true;
	for (uint32_t i = 0; i < w->n; i++)
		barrier_close_claimed(w->points[i].entry->head);
}

/* ---- RECORD ---- */

static struct snapshot_point *point_of(struct record_update *u, const struct volume_facts *facts)
{
	struct snapshot_work *w = container_of(u, struct command, update)->snapshots;
	for (uint32_t i = 0; i < w->n; i++)
		if (uuid_equal(&w->points[i].entry->facts.uuid, &facts->uuid))
			return &w->points[i];
	quarry_assert(!"an update of what it was not started for");
	return NULL;
}

static const char *const returned = "a disk of volume %s has just become current again: repeat the command";

static int snapshot_change(struct record_update *u, struct volume_facts *facts)
{
	struct snapshot_point *p = point_of(u, facts);
	static const char *const too_many = "volume %s has as many snapshots as it can have: delete some";
	if (p->entry->n_snapshots >= SNAPSHOTS_MAX)
		return command_refuse(p->command, -EMFILE, "in-use", too_many, facts->name);
	if (!fork_covers(&p->fork, facts))
		return command_refuse(p->command, -EAGAIN, "busy", returned, facts->name);
	facts->history++;
	return 0;
}

static int rollback_change(struct record_update *u, struct volume_facts *facts)
{
	struct snapshot_point *p = point_of(u, facts);
	static const char *const too_many_lines = "volume %s has snapshots from between %u rollbacks, and no room for "
						  "one more: delete those of some";
	bool used[LINES_MAX];
	if (facts->is_attached_nbd || facts->is_attached_vhost)
		return command_refuse(p->command, -EBUSY, "in-use", "volume %s is attached: detach it first",
				      facts->name);
	if (!fork_covers(&p->fork, facts))
		return command_refuse(p->command, -EAGAIN, "busy", returned, facts->name);
	int err = history_roll_back(facts, p->facts.tree, &p->command->snapshot->facts);
	if (err == -EMFILE)
		return command_refuse(p->command, err, "in-use", too_many_lines, facts->name, LINES_MAX);
	if (err != 0)
		return err;
	facts->live_from = p->command->snapshot->facts.tree;
	facts->history++;
	snapshots_mark_lines(p->entry, facts, used);
	history_prune(facts, used);
	return 0;
}

static void snapshot_extend(struct record_update *u, struct transaction *t)
{
	struct snapshot_work *w = container_of(u, struct command, update)->snapshots;
	for (uint32_t i = 0; i < w->n; i++) {
		char uuid[UUID_TEXT_BYTES];
		uuid_to_text(&w->points[i].entry->facts.uuid, uuid);
		transaction_put(t, snapshot_to_json(&w->points[i].facts), SNAPSHOT_KEY, uuid,
				(unsigned long long)w->points[i].facts.tree);
	}
}

static void snapshot_recorded(struct record_update *u, int res)
{
	struct command *c = container_of(u, struct command, update);
	struct snapshot_work *w = c->snapshots;
	if (res != 0 && c->err == 0)
		command_refuse_store(c, res);
	for (uint32_t i = 0; i < w->n && res == 0 && !w->is_rollback; i++) {
		struct snapshot_point *p = &w->points[i];
		p->facts.revision = u->revision;
		if (!snapshot_put(p->entry, &p->facts))
			snapshots_missed(p->entry);
		log_event(c->set->log, LOG_INFO, "snapshot-created", p->entry->facts.name,
			  "volume %s has the snapshot %s", p->entry->facts.name, p->facts.name);
	}
	if (res == 0 && w->is_rollback)
		log_event(c->set->log, LOG_NOTICE, "volume-rolled-back", c->volume->facts.name,
			  "volume %s is as it was when its snapshot %s was taken", c->volume->facts.name,
			  c->snapshot->facts.name);
	snapshot_run(c);
}

static void snapshot_record(struct command *c)
{
	struct snapshot_work *w = c->snapshots;
	for (uint32_t i = 0; i < w->n; i++)
		w->members[i] = (struct record_member){.entry = w->points[i].entry,
						       .generation = w->points[i].entry->head->generation};
	w->is_unrecorded = false;
	c->update.change = w->is_rollback ? rollback_change : snapshot_change;
	c->update.extend = w->is_rollback ? NULL : snapshot_extend;
	c->update.done = snapshot_recorded;
	record_update_start_many(&c->update, w->members, w->n);
}

/* ---- RELEASE, SWEEP ---- */

static void snapshot_release(struct command *c)
{
	struct snapshot_work *w = c->snapshots;
	for (uint32_t i = 0; i < w->n; i++)
		if (w->points[i].is_claimed)
			barrier_release(w->points[i].entry->head);
}

static void snapshot_swept(void *context, int res)
{
	struct command *c = context;
	c->snapshots->batch = NULL;
	snapshot_run(c);
}

/* Drops what this command has left that nobody names: one disk of one volume after the other. */
static enum flow snapshot_sweep(struct command *c)
{
	struct snapshot_work *w = c->snapshots;
	if (c->err == 0 ? !w->is_rollback : !w->is_unrecorded)
		return FLOW_NEXT;
	for (; w->disk < w->n * SET_DISKS_MAX; w->disk++) {
		struct volume *v = w->points[w->disk / SET_DISKS_MAX].entry->head;
		uint32_t disk = w->disk % SET_DISKS_MAX;
		if (!v || v->disks[disk].state != VOLUME_DISK_JOINED || !volume_disk_is_good(v, disk))
			continue;
		w->batch = tree_batch_orphans(v, disk);
		if (!w->batch)
			continue;
		w->disk++;
		tree_batch_start(w->batch, snapshot_swept, c);
		return FLOW_WAIT;
	}
	return FLOW_NEXT;
}

/* ---- the dispatcher ---- */

/* 1: go on; 0: nothing is to be done; -errno; -EAGAIN: called again. */
static int snapshot_check(struct command *c)
{
	for (uint32_t i = 0; i < c->order->n_targets; i++) {
		struct set_volume *entry = set_volume_find(c->set, c->order->targets[i].volume);
		if (command_settle_history(c, entry) == FLOW_WAIT)
			return -EAGAIN;
		if (c->kind == &command_snapshot_rollback && command_end_rehoming(c, entry) == FLOW_WAIT)
			return -EAGAIN;
	}
	if (c->err != 0)
		return c->err;
	return c->kind == &command_snapshot_create ? snapshot_create_check(c) : snapshot_rollback_check(c);
}

/* What must hold whenever the dispatcher is entered: who waits on all points goes on when the last has come. */
static void snapshot_work_check(const struct command *c)
{
	const struct snapshot_work *w = c->snapshots;
	quarry_assert(!w || w->owed == 0);
	quarry_assert(!w || !w->batch);
}

static void snapshot_run(struct command *c)
{
	for (;;) {
		int res;
		snapshot_work_check(c);
		switch ((enum snapshot_stage)c->stage) {
		case SNAPSHOT_CHECK:
			res = snapshot_check(c);
			if (res == -EAGAIN)
				return;
			c->stage = res == 1 ? SNAPSHOT_ATTACH : SNAPSHOT_END;
			c->order->is_unchanged = res == 0;
			if (res != 1)
				break;
			snapshot_attach(c);
			return;
		case SNAPSHOT_ATTACH:
			c->stage = SNAPSHOT_COMPARE;
			if (c->err == 0 && rollback_compare(c) == FLOW_WAIT)
				return;
			break;
		case SNAPSHOT_COMPARE:
			c->stage = c->err || c->order->is_unchanged ? SNAPSHOT_SWEEP : SNAPSHOT_RESERVE;
			if (c->stage == SNAPSHOT_RESERVE && snapshot_reserve(c) == FLOW_WAIT)
				return;
			break;
		case SNAPSHOT_RESERVE:
			c->stage = c->err ? SNAPSHOT_SWEEP : SNAPSHOT_FLUSH;
			if (c->err != 0)
				break;
			snapshot_flush(c);
			return;
		case SNAPSHOT_FLUSH:
			c->stage = SNAPSHOT_CLAIM;
			snapshot_claim(c);
			return;
		case SNAPSHOT_CLAIM: /* all barriers wait for a word, or one has failed */
			if (c->err == 0)
				snapshot_take_ids(c);
			c->stage = c->err ? SNAPSHOT_RECORD : SNAPSHOT_FORK;
			if (c->err != 0)
				break;
			snapshot_close_all(c);
			return;
		case SNAPSHOT_FORK:
			c->stage = SNAPSHOT_RECORD;
			if (c->err != 0)
				break;
			snapshot_record(c);
			return;
		case SNAPSHOT_RECORD:
			snapshot_release(c);
			c->stage = SNAPSHOT_SWEEP;
			break;
		case SNAPSHOT_SWEEP:
			if (snapshot_sweep(c) == FLOW_WAIT)
				return;
			c->stage = SNAPSHOT_DETACH;
			snapshot_detach(c);
			return;
		case SNAPSHOT_DETACH:
			c->stage = SNAPSHOT_END;
			break;
		case SNAPSHOT_END:
			command_end(c);
			return;
		}
	}
}

const struct command_kind command_snapshot_create = {.name = "snapshot create", .run = snapshot_run};
const struct command_kind command_snapshot_rollback = {.name = "snapshot rollback", .run = snapshot_run};
