/*
 * volume_attach.c: a node becomes the head of a volume, and ceases to be.
 *
 *   RECORD -> LAYOUT -> JOIN -> (MARK -> RECONCILE) -> BARRIER -> (ADMIT) -> END     attach: in brackets, with several
 *               +---------------- on error -------------------------------^        copies
 *   (a foreign volume goes to END before RECORD: see invariant 4)
 *   DRAIN -> FLUSH -> FORGET -> END                              detach
 *
 *   RECORD   one transaction: generation + 1, a fresh range of epochs [EPRANGE], the owner, the attachment [ATTACHREC]
 *   LAYOUT   which disks have segments together
 *   JOIN     every disk that the record names, in parallel: fence, session, tree; not those that it calls stale
 *   MARK     those that could not be joined are marked stale, if every segment has another current copy [UNREACH] [LASTSEG]
 *   RECONCILE   what any of them wrote after L is taken from one source for each segment [UNION] (reconcile.c)
 *   BARRIER  closes the first epoch of the new range, so that all disks agree where they stand [RECBAR]
 *   ADMIT    an older copy of a disk that was accepted, and that some segment needs, counts from now on (attach_older.c)
 *   DRAIN    frontends end their clients, requests in flight finish
 *   FLUSH    a last barrier; a volume that cannot have one (its disk failed, it is fenced) is detached all the same
 *   FORGET   the record loses the attachment; not when the daemon stops, which brings it back at the next start
 *
 * Invariants
 *  1. Until it serves no frontend can reach the volume; entry->head is set from RECORD's success on.
 *  2. A disk that cannot be joined is LOST: a volume with one copy serves what lies elsewhere, and says so in its `why`;
 *     one with several serves all, or nothing.
 *  3. A volume is being attached or detached by at most one of these at a time: entry->attach.
 *  4. A volume whose record is older than what a disk remembers of it is not attached, and nothing is recorded or dropped:
 *     an old copy of the store was put back, and it does not name the placements and snapshots made since. The record says
 *     for each disk which generation it was told last, so this holds for one that is away for a while, too. A take-over
 *     begins above all that the disks of this node remember, and names those that hold data. A disk of another node says so
 *     itself: it refuses the generation, and is not joined.
 *  5. In a cluster the record changes hands only while this node has its lease, and, from another node, only when that
 *     has none: both are conditions of the transaction. The other's head has ended before [LEASEEND], its lease counts
 *     from when it asked for it [LEASESEND]. A volume whose data are on another node's disks is not attached here.
 */
#include "volumes/head/attach_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIES_MAX 8u /* one more for each disk that fails meanwhile */

static void attach_run(struct attach *a);

void attach_complete(struct attach *a, int res)
{
	if (a->err == 0)
		a->err = res;
	attach_run(a);
}

static struct attach *attach_begin(struct set_volume *entry,
				   void (*done)(struct set_volume *entry, int res, void *context), void *context)
{
	struct attach *a = calloc(1, sizeof(*a));
	quarry_assert(!entry->attach);
	if (!a)
		return NULL;
	a->entry = entry;
	a->done = done;
	a->context = context;
	entry->attach = a;
	return a;
}

static void attach_end(struct attach *a)
{
	struct set_volume *entry = a->entry;
	void (*done)(struct set_volume * entry, int res, void *context) = a->done;
	void *context = a->context;
	int err = a->err;
	entry->attach = NULL;
	free(a);
	if (err != 0 && !entry->head && set_volume_returns(entry)) /* recorded, and no more */
		returns_look(entry->set);
	done(entry, err, context);
}

/* ---- what the disks remember ---- */

static void memory_add_tree(const struct tree_record *t, void *context)
{
	struct attach_memory *m = context;
	if (!uuid_equal(&t->volume, m->volume))
		return;
	m->epoch = max_u64(m->epoch, max_u64(pointer_epoch(t->root), t->fork_epoch));
	m->tree = max_u64(m->tree, t->tree_id);
	m->n_blocks += t->state == TREE_LIVE ? t->n_data_blocks : 0;
}

static void attach_refuse_foreign(struct attach *a, const char *format, ...) printf_like(2, 3);
static void attach_refuse_foreign(struct attach *a, const char *format, ...)
{
	char reason[SET_WHY_BYTES / 2];
	va_list args;
	a->is_behind = true;
	if (a->options.is_takeover)
		return;
	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	a->err = -ESTALE;
	text_print(a->entry->why, sizeof(a->entry->why),
		   "%s: was an older metadata.db put back? Put back the newest, or attach with --takeover and give up "
		   "what was placed and snapshotted since",
		   reason);
}

/* Data are written to a disk only once the record names it, and an attachment reaches a disk only once the record says
 * so. Every disk is asked, also those that the record does not name: an old one may not know of them yet. */
static void attach_ask_disk(struct attach *a, const struct set_disk *d)
{
	struct attach_memory *m = &a->memory;
	const struct volume_disk_facts *named = volume_facts_disk(&a->entry->facts, &d->facts.uuid);
	struct volume_record record;

	if (!disk_volume(d->disk, m->volume, &record))
		return;
	m->generation = max_u64(m->generation, record.generation);
	m->epoch = max_u64(m->epoch, record.complete_epoch);
	m->n_blocks = 0;
	if (!named || a->options.is_takeover)
		disk_trees_each(d->disk, memory_add_tree, m);
	uint64_t told = named && named->generation > 0 ? named->generation : a->entry->facts.generation;
	if (record.generation > told)
		attach_refuse_foreign(a, "disk %s knows generation %" PRIu64 " of it, the metadata only %" PRIu64,
				      d->facts.name, record.generation, told);
	if (named || m->n_blocks == 0)
		return;
	m->unnamed |= 1ull << d->index;
	attach_refuse_foreign(a, "disk %s holds data of it that the metadata do not know of", d->facts.name);
}

static bool attach_is_foreign(struct attach *a)
{
	const struct volume_set *s = a->entry->set;
	a->memory.volume = &a->entry->facts.uuid;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (set_disk_runs_here(s->disks[i]))
			attach_ask_disk(a, s->disks[i]);
	return a->err != 0;
}

/* ---- RECORD ---- */

/* Those that are there will be told of the new generation; one that is not stays at the one it was told last. */
static bool attach_name_disks(const struct attach *a, struct volume_facts *facts)
{
	const struct volume_set *s = a->entry->set;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		if (!d || !set_disk_is_running(d))
			continue;
		bool is_named = volume_facts_disk(facts, &d->facts.uuid) || a->memory.unnamed >> i & 1;
		if (is_named && !volume_facts_name_disk(facts, &d->facts.uuid, facts->generation))
			return false;
	}
	return true;
}

static int attach_refuse_node(struct attach *a, int err, const char *format, ...) printf_like(3, 4);
static int attach_refuse_node(struct attach *a, int err, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(a->entry->why, sizeof(a->entry->why), format, args);
	va_end(args);
	a->is_explained = true;
	return err;
}

/* Another node that the record, as it is now, gives the volume to; NULL: none. */
static const char *attach_other_owner(const struct attach *a)
{
	const struct volume_facts *f = &a->entry->facts;
	bool is_other = volume_facts_are_attached(f) && f->owner[0] && !set_node_is_self(a->entry->set, f->owner);
	return is_other ? f->owner : NULL;
}

/* May this node be its head? The transaction says whether that is still so. */
static int attach_check_node(struct attach *a)
{
	struct volume_set *s = a->entry->set;
	const struct volume_facts *f = &a->entry->facts;
	const char *owner = attach_other_owner(a);
	if (!s->members)
		return 0;
	if (members_lease_revision(s->members) == 0)
		return attach_refuse_node(a, -ETIMEDOUT, "%s", "this node has no lease of the metadata store now");
	if (owner && set_node_is_alive(s, owner))
		return attach_refuse_node(a, -EREMOTE, "it is attached on node %s, which is alive: detach it there",
					  owner);
	if (owner && !a->options.is_takeover && !a->options.is_from_lost)
		return attach_refuse_node(
		    a, -EREMOTE, "it is attached on node %s, which is not alive: attach it with --takeover", owner);
	for (uint32_t i = 0; i < f->n_disks && !volume_facts_are_replicated(f); i++) {
		const struct set_disk *d = set_disk_by_uuid(s, &f->disks[i].uuid);
		if (d && !d->facts.is_removed && d->facts.node[0] && !set_disk_is_ours(d))
			return attach_refuse_node(a, -EREMOTE, "its data are on disk %s of node %s: attach it there",
						  d->facts.name, d->facts.node);
	}
	return 0;
}

static void attach_extend(struct record_update *u, struct transaction *t)
{
	const struct attach *a = attach_of(u);
	const struct volume_set *s = a->entry->set;
	const char *owner = attach_other_owner(a);
	if (!s->members)
		return;
	transaction_condition(t, members_lease_revision(s->members), LEASE_KEY, s->node_name);
	if (owner)
		transaction_condition(t, 0, LEASE_KEY, owner);
}

static int attach_change(struct record_update *u, struct volume_facts *facts)
{
	struct attach *a = attach_of(u);
	int err = attach_check_node(a);
	if (err != 0)
		return err;
	if (facts->is_deleting)
		return -ENOENT;
	if (facts->epoch_base > EPOCH_MAX - 2 * EPOCHS_PER_ATTACH || facts->generation >= INT64_MAX)
		return -EOVERFLOW;
	if (facts->next_tree > INT64_MAX - 2 * TREES_PER_ATTACH)
		return -EOVERFLOW;
	if (a->options.is_takeover) {
		if (a->memory.epoch > EPOCH_MAX - 2 * EPOCHS_PER_ATTACH ||
		    a->memory.tree > INT64_MAX - 2 * TREES_PER_ATTACH || a->memory.generation >= INT64_MAX)
			return -EOVERFLOW;
		facts->generation = max_u64(facts->generation, a->memory.generation);
		facts->epoch_base = max_u64(facts->epoch_base, a->memory.epoch + 1);
		facts->next_tree = max_u64(facts->next_tree, a->memory.tree + 1);
	}
	a->last.generation = facts->generation;
	a->last.epoch_base = facts->epoch_base;
	facts->generation++;
	if (!attach_name_disks(a, facts))
		return -EMFILE;
	facts->epoch_base += EPOCHS_PER_ATTACH;
	facts->next_tree += TREES_PER_ATTACH; /* [TREEID] */
	snprintf(facts->owner, sizeof(facts->owner), "%s", a->entry->set->node_name);
	if (a->options.is_return)
		return 0;
	facts->is_attached_nbd |= a->options.is_nbd;
	facts->is_attached_vhost |= a->options.is_vhost;
	facts->is_read_only = a->options.is_read_only;
	if (a->options.is_vhost)
		facts->vhost_queues = a->options.vhost_queues;
	return 0;
}

static void attach_recorded(struct record_update *u, int res)
{
	struct attach *a = attach_of(u);
	if (res == -EAGAIN)
		text_print(
		    a->entry->why, sizeof(a->entry->why),
		    "the lease of this node, or of the one that had the volume, has changed meanwhile: try again");
	else if (res != 0 && !a->is_explained)
		text_print(a->entry->why, sizeof(a->entry->why), "its attachment could not be recorded: %s",
			   strerror(-res));
	attach_complete(a, res);
}

static void attach_record(struct attach *a)
{
	a->update.change = attach_change;
	a->update.extend = attach_extend;
	a->update.done = attach_recorded;
	record_update_start(&a->update, a->entry);
}

/* The head, as the record says. */
static int attach_make_head(struct attach *a)
{
	const struct volume_facts *facts = &a->entry->facts;
	struct volume *v;
	int err = volume_create(a->entry, a->entry->facts.size_bytes, &v);
	if (err != 0) {
		text_print(a->entry->why, sizeof(a->entry->why), "there is no memory to attach it");
		return err;
	}
	v->generation = facts->generation;
	v->is_read_only = facts->is_read_only;
	v->epoch = facts->epoch_base;
	v->epoch_end = facts->epoch_base + EPOCHS_PER_ATTACH;
	v->next_tree = facts->next_tree - TREES_PER_ATTACH;
	v->tree_end = facts->next_tree;
	err = facts->fill.source[0] ? fill_begin(v) : 0;
	if (err != 0) {
		text_print(a->entry->why, sizeof(a->entry->why),
			   "there is no memory to attach it while it is being filled");
		volume_destroy(v);
		return err;
	}
	a->entry->head = v;
	a->entry->why[0] = 0;
	return 0;
}

/* ---- LAYOUT ---- */

static void attach_walked(struct placement_walk *w, int res)
{
	struct attach *a = w->context;
	int err = res ? res : layout_take(w->volume, w);
	if (err == 0 && placement_walk_next(w))
		return;
	if (err != 0 &&
	    !volume_is_replicated(w->volume)) { /* what cannot be read fails what lies there, not the rest */
		w->volume->layout.is_short = true;
		err = 0;
	}
	if (err != 0)
		text_print(a->entry->why, sizeof(a->entry->why),
			   "where its segments lie cannot be read from the metadata store: %s", strerror(-err));
	attach_complete(a, err);
}

static enum flow attach_layout(struct attach *a)
{
	a->walk = (struct placement_walk){.volume = a->entry->head, .next = attach_walked, .context = a};
	return placement_walk_next(&a->walk) ? FLOW_WAIT : FLOW_NEXT;
}

/* ---- JOIN ---- */

static void attach_joined(struct join *j, int res)
{
	struct attach *a = j->context;
	quarry_assert(a->owed > 0 && a->joins[j->disk] == j);
	a->joins[j->disk] = NULL;
	a->owed--;
	a->remembered = max_u64(a->remembered, j->remembered);
	a->generations_were[j->disk] = j->generation_was;
	a->complete[j->disk] = j->remembered;
	a->lacking |= (uint64_t)(res == -ENODATA) << j->disk;
	attach_complete(a, 0); /* an error made the disk LOST; the volume goes on with the others */
}

void attach_join_disk(struct attach *a, uint32_t disk, bool may_make_live)
{
	if (join_start(a->entry->head, disk, 0, attach_joined, a, &a->joins[disk]) != 0)
		return;
	a->joins[disk]->may_make_live = may_make_live; /* no join ends at once */
	a->owed++;
}

static void attach_join(struct attach *a)
{
	struct volume *v = a->entry->head;
	const struct volume_facts *facts = &a->entry->facts;
	v->is_greeting = true;
	for (uint32_t i = 0; i < facts->n_disks; i++) {
		struct set_disk *d = set_disk_known(v->set, &facts->disks[i].uuid);
		if (!d) {
			a->err = -EMFILE;
			text_print(a->entry->why, sizeof(a->entry->why), "its record names more than %u disks",
				   SET_DISKS_MAX);
			break;
		}
		if (facts->disks[i].is_new)
			continue; /* it is not used yet */
		v->disks[d->index].state = facts->disks[i].is_stale ? VOLUME_DISK_STALE : VOLUME_DISK_LOST;
		if (facts->disks[i].is_stale)
			continue;
		bool is_recorded = facts->disks[i].generation == v->generation; /* or it has come back just now */
		if (!set_disk_is_running(d) || !is_recorded)
			continue;
		attach_join_disk(a, d->index, false);
	}
}

/* ---- MARK ---- */

/* Which disk keeps a segment from having a current copy, and why. */
static void attach_explain_missing(struct attach *a, uint64_t n_segments)
{
	const struct volume *v = a->entry->head;
	text_print(a->entry->why, sizeof(a->entry->why), "%" PRIu64 " of its segments have no current copy",
		   n_segments);
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = v->set->disks[i];
		if (v->disks[i].state != VOLUME_DISK_LOST)
			continue;
		text_print(a->entry->why, sizeof(a->entry->why),
			   "%" PRIu64
			   " of its segments have no current copy that can be reached: bring back disk %s (%s): "
			   "%s",
			   n_segments, d->facts.name, d->facts.path, d->why[0] ? d->why : "it could not be joined");
		return;
	}
}

static void attach_marked(struct volume *v)
{
	if (!stale_is_settled(v))
		return;
	v->stale.settled = NULL;
	attach_complete(v->entry->attach, v->is_fenced ? -ESTALE : 0);
}

/* Those that were not reached may lack what came after L. FLOW_WAIT: attach_complete() follows. */
static enum flow attach_mark(struct attach *a)
{
	struct volume *v = a->entry->head;
	uint64_t n_lost = 0;
	v->complete_epoch = a->remembered;
	if (!volume_is_replicated(v))
		return FLOW_NEXT;
	attach_judge_older(a);
	uint64_t n_segments = layout_without(v, volume_joined(v));
	if (n_segments > 0) {
		attach_explain_missing(a, n_segments);
		a->err = -EIO;
		return FLOW_NEXT;
	}
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (v->disks[i].state == VOLUME_DISK_LOST) {
			stale_note(v, i); /* since L + 1 [UNREACH] */
			n_lost++;
		}
	if (n_lost == 0)
		return FLOW_NEXT;
	v->stale.settled = attach_marked;
	return FLOW_WAIT;
}

/* ---- RECONCILE ---- */

static void attach_explain_barrier(struct attach *a)
{
	const struct volume *v = a->entry->head;
	a->err = -EIO;
	text_print(a->entry->why, sizeof(a->entry->why), "%s",
		   v->why[0] ? v->why : "its disks cannot agree on what is written: they fail while it is attached");
}

static void attach_reconciled(void *context, int res)
{
	struct attach *a = context;
	a->reconcile = NULL;
	attach_complete(a, res);
}

static enum flow attach_reconcile(struct attach *a)
{
	struct volume *v = a->entry->head;
	if (!volume_is_replicated(v))
		return FLOW_NEXT;
	a->err = reconcile_start(v, a->has_older ? 0 : v->complete_epoch + 1, attach_reconciled, a, &a->reconcile);
	return a->err ? FLOW_NEXT : FLOW_WAIT;
}

/* Disks fail one after the other: some of that is lived through. */
static bool attach_is_tired(struct attach *a)
{
	return ++a->n_tries >= TRIES_MAX || a->entry->head->is_fenced;
}

static bool attach_begins_again(struct attach *a)
{
	if (a->err != -EAGAIN)
		return false;
	a->err = 0;
	if (!attach_is_tired(a))
		return true;
	attach_explain_barrier(a);
	return false;
}

/* ---- BARRIER, FLUSH ---- */

static void attach_barrier_ended(struct volume *v, int res)
{
	attach_complete(v->entry->attach, 0); /* a failed disk has an event of its own, and does not stop the rest */
}

/* Has every disk that counts answered the COMPLETE of the epoch that was closed last [RECBAR]? A volume with one copy has
 * nobody to agree with. */
static bool attach_is_barred(const struct attach *a)
{
	const struct volume *v = a->entry->head;
	return !volume_is_replicated(v) || v->complete_epoch + 1 == v->epoch;
}

static void attach_looks_again(struct volume *v)
{
	if (stale_is_busy(v))
		return;
	v->stale.settled = NULL;
	attach_complete(v->entry->attach, 0);
}

static void attach_serve(struct attach *a)
{
	struct volume *v = a->entry->head;
	v->state = VOLUME_SERVING;
	if (v->is_fenced && v->set->members) /* by another node, at once */
		release_want(v->entry);
	volume_explain(v);
	move_tidy(v);
	resync_want(v);
	leave_want(v);
	compare_want(v);
	if (v->why[0])
		log_event(v->set->log, LOG_WARNING, "volume-degraded", a->entry->facts.name, "volume %s: %s",
			  a->entry->facts.name, v->why);
}

/* ---- DRAIN, FORGET ---- */

static void detach_drained(struct volume *v)
{
	attach_complete(v->entry->attach, 0);
}

static int detach_change(struct record_update *u, struct volume_facts *facts)
{
	const struct attach *a = attach_of(u);
	text_print(facts->owner, sizeof(facts->owner), "%s", a->heir);
	if (!a->heir[0])
		facts->is_attached_nbd = facts->is_attached_vhost = facts->is_read_only = false;
	return 0;
}

static void detach_recorded(struct record_update *u, int res)
{
	struct attach *a = attach_of(u);
	if (res == -ESTALE && a->entry->set->members)
		res = 0; /* another node has it: there is nothing to forget */
	if (res != 0)
		text_print(a->entry->why, sizeof(a->entry->why), "its detachment could not be recorded: %s",
			   strerror(-res));
	attach_complete(a, res);
}

/* Who is lost or has stopped by now does not get it: it stays this node's. */
static void detach_extend(struct record_update *u, struct transaction *t)
{
	const struct attach *a = attach_of(u);
	struct member_view heir;
	bool is_there = a->heir[0] && members_find(a->entry->set->members, a->heir, &heir);
	if (a->heir[0])
		transaction_condition(t, is_there && heir.lease_revision ? heir.lease_revision : REVISION_NONE,
				      LEASE_KEY, a->heir);
}

static void detach_forget(struct attach *a)
{
	a->update.extend = detach_extend;
	a->update.change = detach_change;
	a->update.done = detach_recorded;
	record_update_start(&a->update, a->entry);
}

/* A mark is on its way to the store: the head stays until its outcome is known. */
static bool attach_waits_for_mark(struct attach *a)
{
	struct volume *v = a->entry->head;
	if (!v || !stale_is_busy(v))
		return false;
	v->stale.settled = attach_looks_again;
	return true;
}

static void attach_drop_head(struct attach *a)
{
	if (a->entry->head)
		volume_destroy(a->entry->head);
	a->entry->head = NULL;
}

/* Who failed meanwhile is marked, and it begins once more. */
static enum attach_stage attach_after_reconcile(struct attach *a)
{
	if (attach_begins_again(a))
		return ATTACH_JOIN;
	return a->err ? ATTACH_END : ATTACH_BARRIER;
}

static enum attach_stage attach_after_barrier(struct attach *a)
{
	if (attach_is_barred(a))
		return ATTACH_ADMIT;
	if (!attach_is_tired(a))
		return ATTACH_JOIN;
	attach_explain_barrier(a);
	return ATTACH_END;
}

/* ---- the dispatcher: read it to know both ways ---- */

static void attach_run(struct attach *a)
{
	struct set_volume *entry = a->entry;
	for (;;) {
		switch (a->stage) {
		case ATTACH_RECORD:
			if (a->err == 0)
				a->err = attach_make_head(a);
			a->stage = a->err ? ATTACH_END : ATTACH_LAYOUT;
			if (a->err == 0 && attach_layout(a) == FLOW_WAIT)
				return;
			break;
		case ATTACH_LAYOUT:
			a->stage = a->err ? ATTACH_END : ATTACH_JOIN;
			if (a->err == 0)
				attach_join(a);
			break;
		case ATTACH_JOIN:
			if (a->owed > 0 || attach_judge_lacking(a) == FLOW_WAIT)
				return;
			entry->head->is_greeting = false;
			a->stage = a->err ? ATTACH_END : ATTACH_MARK;
			if (a->err == 0 && attach_mark(a) == FLOW_WAIT)
				return;
			break;
		case ATTACH_MARK:
			a->stage = a->err ? ATTACH_END : ATTACH_RECONCILE;
			if (a->err == 0 && attach_reconcile(a) == FLOW_WAIT)
				return;
			break;
		case ATTACH_RECONCILE:
			a->stage = attach_after_reconcile(a);
			if (a->stage != ATTACH_BARRIER)
				break;
			barrier_now(entry->head, attach_barrier_ended);
			return;
		case ATTACH_BARRIER:
			a->stage = attach_after_barrier(a);
			if (a->stage == ATTACH_ADMIT && attach_admit(a) == FLOW_WAIT)
				return;
			break;
		case ATTACH_ADMIT:
			if (a->err == 0)
				attach_serve(a);
			a->stage = ATTACH_END;
			break;
		case ATTACH_DRAIN:
			a->stage = ATTACH_FLUSH;
			return barrier_now(entry->head, attach_barrier_ended);
		case ATTACH_FLUSH:
			if (attach_waits_for_mark(a))
				return;
			attach_drop_head(a);
			a->stage = ATTACH_FORGET;
			if (a->is_recorded)
				return detach_forget(a);
			break;
		case ATTACH_FORGET:
			a->stage = ATTACH_END;
			break;
		case ATTACH_END:
			if (a->err != 0 && attach_waits_for_mark(a))
				return;
			if (a->err != 0)
				attach_drop_head(a);
			attach_end(a);
			return;
		}
	}
}

void volume_attach(struct set_volume *entry, const struct attach_options *o,
		   void (*done)(struct set_volume *entry, int res, void *context), void *context)
{
	struct attach *a = attach_begin(entry, done, context);
	quarry_assert(!entry->head);
	if (!a) {
		text_print(entry->why, sizeof(entry->why), "there is no memory to attach it");
		done(entry, -ENOMEM, context);
		return;
	}
	a->options = *o;
	a->stage = ATTACH_RECORD;
	if (!attach_is_foreign(a))
		return attach_record(a);
	a->stage = ATTACH_END;
	attach_complete(a, a->err);
}

static void detach_start(struct set_volume *entry, bool is_recorded, const char *heir,
			 void (*done)(struct set_volume *entry, int res, void *context), void *context)
{
	struct attach *a = attach_begin(entry, done, context);
	quarry_assert(entry->head && entry->head->state == VOLUME_SERVING);
	if (!a) {
		text_print(entry->why, sizeof(entry->why), "there is no memory to detach it");
		done(entry, -ENOMEM, context);
		return;
	}
	a->is_recorded = is_recorded;
	text_print(a->heir, sizeof(a->heir), "%s", heir);
	a->update.generation = entry->set->members ? entry->head->generation : 0;
	a->stage = ATTACH_DRAIN;
	volume_start_draining(entry->head, detach_drained);
}

void volume_detach(struct set_volume *entry, bool is_recorded,
		   void (*done)(struct set_volume *entry, int res, void *context), void *context)
{
	detach_start(entry, is_recorded, "", done, context);
}

void volume_hand_over(struct set_volume *entry, const char *node,
		      void (*done)(struct set_volume *entry, int res, void *context), void *context)
{
	quarry_assert(node[0] && !set_node_is_self(entry->set, node));
	detach_start(entry, true, node, done, context);
}

void attach_abandon(struct attach *a)
{
	record_update_abandon(&a->update);
	placement_walk_abandon(&a->walk);
	reconcile_abandon(a->reconcile);
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		join_abandon(a->joins[i]);
	free(a);
}
