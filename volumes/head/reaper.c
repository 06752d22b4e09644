/*
 * reaper.c: deletes a volume in the background, across restarts: first its data on every disk, then what the store
 * keeps.
 *
 *   (CONFIRM ->)
 *   LOOK -> FENCE -> TREES -> DROP* -> TREES* -> FORGET -> LOOK ... (each disk) ... -> LIST -> ERASE ... -> RECORD -> END
 *     |                                                                               ^
 *     +-> PARKED: a disk that holds its data is not there, or fails; looks again when it is back, or was removed by force,
 *         and now and then: a disk of another node may have been away without its being noticed here
 *
 *   CONFIRM  of a clone that came to nothing: the transaction that was to make it good may not have been answered, and still
 *            be carried out. One more change of the record keeps it from that; or it was, and the volume stays
 *   LOOK     what does this disk hold of the volume? Nothing: the next disk
 *   FENCE    a session of our own; the volume's former head is refused from now on
 *   TREES    which of its trees are there; DROP: each of them. The disk frees them in the background, TREES looks again
 *            until they are gone
 *   FORGET   the disk's record of the volume
 *   ERASE    the placements, then the snapshots, some keys at a time; RECORD: the volume's record last, so that nothing
 *            is ever forgotten half way
 *
 * Invariants
 *  1. The record exists until no disk that is there holds anything of the volume, and no placement key is left.
 *  2. Each step may be repeated: after a restart all begins with LOOK.
 *  3. A disk that was removed by force is not waited for; when no volume names it any more, its key goes too.
 *
 * A disk of another node is asked like one of this node, but only if the record names it.
 *
 * Owner: entry->reap.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REAP_STAGES(X)                                                                                                 \
	X(LOOK) X(FENCE) X(TREES) X(DROP) X(FORGET) X(LIST) X(ERASE) X(RECORD) X(END) X(PARKED) X(CONFIRM)
#define X(name) REAP_##name,
enum reap_stage { REAP_STAGES(X) };
#undef X

#define REAP_POLL_NS   (200 * NS_PER_MS) /* a large tree takes the disk seconds to free */
#define REAP_RETRY_NS  (5 * NS_PER_S)    /* after the store failed */
#define REAP_PARKED_NS (30 * NS_PER_S)

struct reap {
	enum reap_stage stage;
	int err;
	bool is_busy, is_stopping, has_tree;
	bool is_told;  /* that it waits, and why */
	uint32_t disk; /* index of the one at hand */
	struct set_volume *entry;
	struct replica replica; /* of the disk at hand */
	struct replica_io rio;
	struct replica_trees trees;
	uint32_t n_dropped; /* of these */
	struct metadata_request list;
	char prefix[KEY_BYTES];
	uint32_t n_prefixes; /* done with */
	struct transaction transaction;
	struct record_update confirm;
	struct timer timer;
};

#define N_PREFIXES 2u /* of keys that exist for the volume, beside its record: placements, snapshots */

static void reap_run(struct reap *r);

/* ---- the one door ---- */

static void reap_complete(struct reap *r, int res)
{
	quarry_assert(r->is_busy);
	r->is_busy = false;
	r->err = res;
	if (r->is_stopping) {
		set_stop_run(r->entry->set); /* which asks again, and we are gone */
		return;
	}
	reap_run(r);
}

static void reap_disk_done(struct replica_io *rio, int res)
{
	bool is_gone = res == -ENOENT && rio->io.op == DISK_DROP; /* by an earlier try */
	reap_complete(container_of(rio, struct reap, rio), is_gone ? 0 : res);
}

static void reap_trees_done(struct replica_trees *t, int res)
{
	reap_complete(container_of(t, struct reap, trees), res);
}

static void reap_listed(struct metadata_request *q, int res)
{
	reap_complete(container_of(q, struct reap, list), res);
}

static void reap_transacted(struct metadata_request *q, int res)
{
	reap_complete(container_of(transaction_of(q), struct reap, transaction), res);
}

static void reap_look_again(struct reap *r)
{
	r->err = 0;
	r->disk = 0;
	r->stage = REAP_LOOK;
}

static void reap_timer_fired(struct timer *t)
{
	struct reap *r = container_of(t, struct reap, timer);
	if (r->stage == REAP_PARKED)
		reap_look_again(r);
	reap_run(r);
}

static void reap_pause(struct reap *r, uint64_t delay_ns)
{
	timer_start(r->entry->set->reactor, &r->timer, delay_ns);
}

/* ---- what a disk holds ---- */

static struct set_disk *reap_disk(const struct reap *r)
{
	return r->disk < SET_DISKS_MAX ? r->entry->set->disks[r->disk] : NULL;
}

static void holding_count(const struct tree_record *t, void *context)
{
	struct reap *r = context;
	r->has_tree |= uuid_equal(&t->volume, &r->entry->facts.uuid);
}

/* Has it something of the volume, as far as can be told from here? */
static bool reap_holds(struct reap *r, struct set_disk *d)
{
	struct volume_record record;
	if (!d->disk)
		return volume_facts_disk(&r->entry->facts, &d->facts.uuid) != NULL;
	r->has_tree = false;
	disk_trees_each(d->disk, holding_count, r);
	return r->has_tree || disk_volume(d->disk, &r->entry->facts.uuid, &record);
}

/* Goes on to the next disk with something of the volume. false: a disk that has is not there. */
static bool reap_look(struct reap *r)
{
	for (; r->disk < SET_DISKS_MAX; r->disk++) {
		struct set_disk *d = reap_disk(r);
		if (!d || d->state == SET_DISK_REMOVED)
			continue;
		if (!set_disk_is_running(d)) {
			if (!volume_facts_disk(&r->entry->facts, &d->facts.uuid))
				continue;
			text_print(r->entry->why, sizeof(r->entry->why), "its deletion waits for disk %s (%s): %s",
				   d->facts.name, d->facts.path, d->why);
			return false;
		}
		if (reap_holds(r, d))
			return true;
	}
	return true;
}

/* ---- requests to the disk ---- */

static void reap_lost(struct replica *replica, int res)
{
	/* the answer says so, too; and what is asked next is refused */
}

static void reap_fence(struct reap *r)
{
	const struct set_disk *d = reap_disk(r);
	const struct volume_facts *f = &r->entry->facts;
	struct volume_record record = {0};
	replica_init(&r->replica, r->entry->set->reactor, &f->uuid, &d->facts.uuid, reap_lost);
	r->replica.disk = d->disk;
	r->replica.client = d->client;
	/* The disk may know a later generation, when an older store was put back. */
	if (d->disk)
		disk_volume(d->disk, &f->uuid, &record);
	r->rio.io.generation = max_u64(f->generation, record.generation);
	quarry_assert(r->rio.io.generation > 0); /* see CONFIRM: without one nobody is fenced, and no HELLO is one */
	r->rio.io.size_blocks = blocks_of(f->size_bytes);
}

void reap_leave_disk(struct set_volume *entry, const struct set_disk *d)
{
	if (entry->reap && entry->reap->disk == d->index)
		replica_lose(&entry->reap->replica, -ENOTCONN);
}

/* Is the disk at hand still the one that it has a session with? */
static bool reap_has_session(const struct reap *r)
{
	return set_disk_is_running(reap_disk(r)) && r->replica.state == REPLICA_OPEN;
}

/* Asks the disk at hand, if it is still there. */
static bool reap_send(struct reap *r, enum disk_op op)
{
	if (op == DISK_FENCE && set_disk_is_running(reap_disk(r)))
		reap_fence(r);
	else if (!reap_has_session(r))
		return false;
	r->rio.io.op = op;
	r->rio.io.volume = r->entry->facts.uuid;
	r->rio.done = reap_disk_done;
	r->is_busy = true;
	replica_submit(&r->replica, &r->rio);
	return true;
}

static bool reap_list_trees(struct reap *r)
{
	if (!reap_has_session(r))
		return false;
	replica_trees_clear(&r->trees);
	r->trees.done = reap_trees_done;
	r->n_dropped = 0;
	r->is_busy = true;
	replica_trees_ask(&r->replica, &r->trees);
	return true;
}

/* ---- the store ---- */

static void reap_list(struct reap *r)
{
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&r->entry->facts.uuid, uuid);
	quarry_assert(r->n_prefixes < N_PREFIXES);
	int len = r->n_prefixes == 0 ? snprintf(r->prefix, sizeof(r->prefix), CHUNK_PREFIX, uuid)
				     : snprintf(r->prefix, sizeof(r->prefix), SNAPSHOT_PREFIX, uuid);
	quarry_assert(len > 0 && len < (int)sizeof(r->prefix));
	r->list = (struct metadata_request){.op = METADATA_LIST, .key = r->prefix, .done = reap_listed};
	r->is_busy = true;
	metadata_submit(r->entry->set->metadata, &r->list);
}

static void reap_transact(struct reap *r)
{
	r->is_busy = true;
	if (transaction_submit(&r->transaction, r->entry->set->metadata) != 0)
		quarry_assert(!"a transaction that only deletes needs no memory");
}

static void reap_erase(struct reap *r)
{
	transaction_begin(&r->transaction, reap_transacted);
	for (uint32_t i = 0; i < r->list.n_items && i < METADATA_CHANGES_MAX; i++)
		transaction_delete(&r->transaction, "%s", r->list.items[i].key);
	metadata_request_clear(&r->list);
	reap_transact(r);
}

/* Was the disk removed by force, and is this the last volume that names it? */
static bool reap_is_last_user(const struct reap *r, const struct set_disk *d)
{
	return d && d->state == SET_DISK_REMOVED && d->facts.revision != 0 && set_disk_users(d, NULL, 0) == 1 &&
	       volume_facts_disk(&r->entry->facts, &d->facts.uuid);
}

static void reap_record(struct reap *r)
{
	struct volume_set *s = r->entry->set;
	char uuid[UUID_TEXT_BYTES];
	transaction_begin(&r->transaction, reap_transacted);
	uuid_to_text(&r->entry->facts.uuid, uuid);
	transaction_delete(&r->transaction, VOLUME_KEY, uuid);
	for (uint32_t i = 0; i < SET_DISKS_MAX && transaction_room(&r->transaction) > 0; i++)
		if (reap_is_last_user(r, s->disks[i])) {
			uuid_to_text(&s->disks[i]->facts.uuid, uuid);
			transaction_delete(&r->transaction, DISK_KEY, uuid);
		}
	reap_transact(r);
}

static void reap_end(struct reap *r)
{
	struct set_volume *entry = r->entry;
	struct volume_set *s = entry->set;
	bool is_forgotten[SET_DISKS_MAX] = {0};
	log_event(s->log, LOG_INFO, "volume-deleted", entry->facts.name, "volume %s is deleted and its space is free",
		  entry->facts.name);
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		is_forgotten[i] = reap_is_last_user(r, s->disks[i]);
	entry->reap = NULL;
	reap_abandon(r);
	set_volume_gone(entry);
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (is_forgotten[i])
			set_disk_forget(s->disks[i]);
}

static void reap_park(struct reap *r)
{
	const struct set_disk *d = reap_disk(r);
	if (r->err != 0)
		text_print(r->entry->why, sizeof(r->entry->why), "its deletion stopped at disk %s: %s",
			   d ? d->facts.name : "?", strerror(-r->err));
	if (!r->is_told)
		log_event(r->entry->set->log, LOG_WARNING, "deletion-waits", r->entry->facts.name,
			  "volume %s: %s; it goes on when the disk is back (quarry disk add PATH) or given up (quarry "
			  "disk remove %s --force)",
			  r->entry->facts.name, r->entry->why, d ? d->facts.name : "DISK");
	r->is_told = true;
	r->stage = REAP_PARKED;
	reap_pause(r, REAP_PARKED_NS);
}

/* ---- the dispatcher ---- */

/* The stages on one disk: the stage is what has been asked. true: go on at once. */
static bool reap_run_disk(struct reap *r)
{
	bool is_sent = true;
	switch (r->stage) {
	case REAP_LOOK:
		if (!reap_look(r)) {
			reap_park(r);
			return false;
		}
		r->stage = r->disk == SET_DISKS_MAX ? REAP_LIST : REAP_FENCE;
		if (r->stage == REAP_LIST)
			return true;
		is_sent = reap_send(r, DISK_FENCE);
		break;
	case REAP_FENCE:
		r->stage = REAP_TREES;
		is_sent = reap_list_trees(r);
		break;
	case REAP_TREES:
	case REAP_DROP:
		if (r->n_dropped < r->trees.n) {
			r->stage = REAP_DROP;
			r->rio.tree = r->trees.ids[r->n_dropped++];
			is_sent = reap_send(r, DISK_DROP);
		} else if (r->trees.n + r->trees.n_dying > 0) { /* what was dropped is being freed */
			r->stage = REAP_FENCE;
			reap_pause(r, REAP_POLL_NS);
			return false;
		} else {
			r->stage = REAP_FORGET;
			is_sent = reap_send(r, DISK_FORGET);
		}
		break;
	case REAP_FORGET:
		r->disk++;
		r->stage = REAP_LOOK;
		return true;
	case REAP_LIST:
	case REAP_ERASE:
	case REAP_RECORD:
	case REAP_END:
	case REAP_PARKED:
	case REAP_CONFIRM:
		quarry_assert(!"not a stage on a disk");
	}
	if (!is_sent)
		r->stage = REAP_LOOK; /* the disk is gone; LOOK says what that means */
	return !is_sent;
}

/* The stages in the store. true: go on at once. */
static bool reap_run_store(struct reap *r)
{
	if (r->stage == REAP_LIST) {
		reap_list(r);
		r->stage = REAP_ERASE;
		return false;
	}
	if (r->stage == REAP_ERASE) {
		bool has_more = r->list.n_items > 0;
		r->n_prefixes += !has_more;
		r->stage = r->n_prefixes < N_PREFIXES ? REAP_LIST : REAP_RECORD;
		if (has_more)
			reap_erase(r);
		return !has_more;
	}
	reap_record(r);
	r->stage = REAP_END;
	return false;
}

/* Another node may be slow, or away for a moment: it begins again with that disk. */
static void reap_disk_failed(struct reap *r)
{
	bool is_fenced = r->err == -ESTALE && r->stage == REAP_FENCE;
	bool may_pass = r->err == -ETIMEDOUT || r->err == -ENOTCONN || r->err == -EBUSY || r->err == -ESTALE;
	if (!may_pass || is_fenced) {
		reap_park(r);
		return;
	}
	r->err = 0;
	r->stage = REAP_LOOK;
	reap_pause(r, REAP_RETRY_NS);
}

/* ---- CONFIRM ---- */

static int reap_confirm_change(struct record_update *u, struct volume_facts *facts)
{
	if (!facts->is_deleting)
		return -ECANCELED;
	facts->generation++;
	return 0;
}

static void reap_confirmed(struct record_update *u, int res)
{
	reap_complete(container_of(u, struct reap, confirm), res);
}

static void reap_confirm(struct reap *r)
{
	r->confirm = (struct record_update){.change = reap_confirm_change, .done = reap_confirmed};
	r->is_busy = true;
	record_update_start(&r->confirm, r->entry);
}

/* It is a volume like any other after all, or its record has gone by itself. */
static void reap_give_up(struct reap *r)
{
	struct set_volume *entry = r->entry;
	entry->reap = NULL;
	entry->why[0] = 0;
	reap_abandon(r);
	set_watch_missed(entry->set);
}

/* true: it is certain, go on. */
static bool reap_run_confirm(struct reap *r)
{
	int err = r->err;
	r->err = 0;
	if (r->entry->facts.is_deleting && r->entry->facts.generation > 0) {
		r->stage = REAP_LOOK;
		return true;
	}
	if (err == -ECANCELED || err == -ENOENT || !r->entry->facts.is_deleting)
		reap_give_up(r);
	else if (err != 0)
		reap_pause(r, REAP_RETRY_NS);
	else
		reap_confirm(r);
	return false;
}

/* What must hold whenever the dispatcher is entered: the record is there, and nobody serves the volume. */
static void reap_check(const struct reap *r)
{
	quarry_assert(!r->is_busy && r->entry->reap == r);
	quarry_assert(r->stage == REAP_CONFIRM || (r->entry->facts.is_deleting && !r->entry->head));
	quarry_assert(r->disk <= SET_DISKS_MAX && r->n_prefixes <= N_PREFIXES);
}

static void reap_run(struct reap *r)
{
	for (;;) {
		reap_check(r);
		if (r->stage == REAP_CONFIRM && !reap_run_confirm(r))
			return;
		int err = r->err;
		if (err != 0 && r->stage <= REAP_FORGET) {
			reap_disk_failed(r);
			return;
		}
		r->err = 0;
		if (err != 0) { /* the store: from LIST on everything may be repeated */
			r->n_prefixes = 0;
			metadata_request_clear(&r->list);
			r->stage = REAP_LIST;
			reap_pause(r, REAP_RETRY_NS);
			return;
		}
		switch (r->stage) {
		case REAP_LOOK:
		case REAP_FENCE:
		case REAP_TREES:
		case REAP_DROP:
		case REAP_FORGET:
			if (!set_disk_is_running(reap_disk(r)))
				r->stage = REAP_LOOK;
			if (!reap_run_disk(r))
				return;
			break;
		case REAP_LIST:
		case REAP_ERASE:
		case REAP_RECORD:
			if (!reap_run_store(r))
				return;
			break;
		case REAP_END:
			reap_end(r);
			return;
		case REAP_CONFIRM: /* see above */
		case REAP_PARKED:
			return;
		}
	}
}

void reap_start(struct set_volume *entry)
{
	struct reap *r = calloc(1, sizeof(*r));
	quarry_assert(entry->facts.is_deleting && !entry->reap && !entry->head);
	if (!r) {
		log_event(entry->set->log, LOG_WARNING, "deletion-waits", entry->facts.name,
			  "there is no memory to delete volume %s now: it goes on at the next start",
			  entry->facts.name);
		return;
	}
	r->entry = entry;
	r->stage = entry->facts.generation > 0 ? REAP_LOOK : REAP_CONFIRM;
	entry->reap = r;
	timer_init(&r->timer, reap_timer_fired);
	transaction_begin(&r->transaction, reap_transacted);
	reap_pause(r, 0);
}

void reaps_resume(struct volume_set *s)
{
	list_each (node, &s->volumes) {
		struct set_volume *entry = container_of(node, struct set_volume, link);
		struct reap *r = entry->reap;
		if (!r || r->stage != REAP_PARKED)
			continue;
		quarry_assert(!r->is_busy);
		reap_look_again(r);
		r->is_told = false;
		entry->why[0] = 0;
		reap_pause(r, 0);
	}
}

bool reap_stop(struct set_volume *entry)
{
	struct reap *r = entry->reap;
	if (!r)
		return true;
	r->is_stopping = true;
	if (r->is_busy)
		return false;
	timer_stop(entry->set->reactor, &r->timer);
	reap_abandon(r);
	entry->reap = NULL;
	return true;
}

void reap_abandon(struct reap *r)
{
	record_update_abandon(&r->confirm);
	transaction_clear(&r->transaction);
	metadata_request_clear(&r->list);
	replica_trees_clear(&r->trees);
	free(r);
}
