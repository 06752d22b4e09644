/*
 * record_update.c: changing volumes' records in the metadata store, and this node's copy of them.
 *
 *   TURN -> CHANGE -> TRANSACT -> END
 *             ^          |
 *             +- REREAD <+ a condition failed, or the outcome is unknown; one record after the other
 *                  ^- WAIT    nor can the record be read, and a head needs the outcome
 *
 * Invariants
 *  1. Of one volume, only the first in entry->updates is past TURN, so nobody's decision is overtaken by another's of
 *     this node; what other nodes change is seen as a failed condition.
 *  2. entry->facts changes only here, and only to what the store is known to hold.
 *  3. Nothing is resent blindly: after a failed condition or an unknown outcome the record is read, and if it already
 *     is what was wanted (a reply was lost, or the transaction doubled), that is success. One that was not answered can
 *     take effect as long as the record is what it was then, so only another that has changed it ends the doubt. One that
 *     was refused may have taken effect before, when it was carried out twice: that, too, is in doubt until the record is
 *     read.
 *  4. An update of several volumes stands in the lines of all from the start, so that two such never wait for each
 *     other.
 *
 * Owner: whoever embeds it; it is his again at done().
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UPDATE_STAGES(X) X(IDLE) X(TURN) X(CHANGE) X(TRANSACT) X(REREAD) X(WAIT) X(END)
#define X(name)          UPDATE_##name,
enum update_stage { UPDATE_STAGES(X) };
#undef X

#define UPDATE_TRIES_MAX 16u /* a record that changes under every one of these is being fought over */
#define UPDATE_WAIT_NS   NS_PER_S

static void update_complete(struct record_update *u, int res);

static struct record_update *update_of_transaction(struct metadata_request *q)
{
	return container_of(transaction_of(q), struct record_update, own.transaction);
}

static void update_transacted(struct metadata_request *q, int res)
{
	update_complete(update_of_transaction(q), res);
}

static void update_reread_done(struct metadata_request *q, int res)
{
	update_complete(container_of(q, struct record_update, own.read), res);
}

static void update_turn_came(struct op *op, int res)
{
	update_complete(container_of(op, struct record_update, own.op), res);
}

static void update_waited(struct timer *t)
{
	update_complete(container_of(t, struct record_update, own.again), 0);
}

/* ---- the stages' work ---- */

static struct record_member *update_member(struct record_update *u, uint32_t i)
{
	quarry_assert(i < u->own.n_members);
	return &u->own.members[i];
}

static enum flow update_turn(struct record_update *u)
{
	for (uint32_t i = 0; i < u->own.n_members; i++)
		if (update_member(u, i)->entry->updates.next != &update_member(u, i)->turn)
			return FLOW_WAIT;
	return FLOW_NEXT;
}

static void member_forget(struct record_member *m)
{
	free(m->wanted_text);
	m->wanted_text = NULL;
	volume_facts_clear(&m->wanted);
	volume_facts_clear(&m->found);
}

/* Makes the wanted record out of the one at hand. */
static int member_change(struct record_update *u, struct record_member *m)
{
	const struct volume_facts *facts = &m->entry->facts;
	member_forget(m);
	m->base_revision = facts->revision;
	if (m->generation != 0 && facts->generation != m->generation)
		return -ESTALE;
	int err = volume_facts_copy(facts, &m->wanted);
	if (err != 0 || !u->change)
		return err;
	err = u->change(u, &m->wanted);
	if (err != 0)
		return err;
	m->wanted_text = volume_to_json(&m->wanted);
	return m->wanted_text ? 0 : -ENOMEM;
}

static int update_change(struct record_update *u)
{
	int err = 0;
	for (uint32_t i = 0; i < u->own.n_members && err == 0; i++)
		err = member_change(u, update_member(u, i));
	return err;
}

static int update_transact(struct record_update *u)
{
	struct transaction *t = &u->own.transaction;
	transaction_begin(t, update_transacted);
	for (uint32_t i = 0; i < u->own.n_members; i++) {
		const struct record_member *m = update_member(u, i);
		char uuid[UUID_TEXT_BYTES];
		uuid_to_text(&m->wanted.uuid, uuid);
		transaction_condition(t, m->base_revision, VOLUME_KEY, uuid);
		if (u->change)
			transaction_put(t, strdup(m->wanted_text), VOLUME_KEY, uuid);
	}
	if (u->extend)
		u->extend(u, t);
	return transaction_submit(t, u->own.members[0].entry->set->metadata);
}

/* The store holds the wanted record with this revision: from now on it is ours too. */
static void member_adopt(struct record_member *m, uint64_t revision)
{
	struct volume_facts *facts = &m->entry->facts;
	if (revision < facts->revision) { /* the watch was quicker, and another node's change as well */
		volume_facts_clear(&m->wanted);
		return;
	}
	quarry_assert(m->wanted.generation >= facts->generation);
	volume_facts_clear(facts);
	*facts = m->wanted;
	facts->revision = revision;
	m->wanted = (struct volume_facts){0};
}

static void update_adopt(struct record_update *u)
{
	quarry_assert(u->change);
	for (uint32_t i = 0; i < u->own.n_members; i++)
		member_adopt(update_member(u, i), u->revision);
}

/* What did the store say of the transaction? */
static enum flow update_judge(struct record_update *u)
{
	struct metadata_request *q = &u->own.transaction.request;
	int res = u->own.err;
	u->own.err = 0;
	u->revision = q->revision;
	if (res == 0) {
		u->is_certain = true;
		u->own.is_open = false;
		if (u->change)
			update_adopt(u);
	} else if (res != -EAGAIN && res != -ETIMEDOUT) {
		u->own.err = res;
	} else {
		u->own.is_refused = res == -EAGAIN;
		u->own.is_open = true; /* refused may be its double */
		u->own.at = 0;
		transaction_clear(&u->own.transaction);
		return FLOW_WAIT;
	}
	transaction_clear(&u->own.transaction);
	return FLOW_NEXT;
}

static void update_reread(struct record_update *u)
{
	char uuid[UUID_TEXT_BYTES];
	struct transaction *t = &u->own.transaction;
	struct set_volume *entry = update_member(u, u->own.at)->entry;
	uuid_to_text(&entry->facts.uuid, uuid);
	transaction_begin(t, NULL);
	transaction_condition(t, 0, VOLUME_KEY, uuid); /* makes the key's text, which must outlive this function */
	u->own.read = (struct metadata_request){.op = METADATA_GET, .key = t->keys[0], .done = update_reread_done};
	metadata_submit(entry->set->metadata, &u->own.read);
}

/* Keeps what was read of one record. 0, or what is wrong with it. */
static int member_found(struct record_update *u, struct record_member *m)
{
	const struct metadata_item *item = u->own.read.items;
	struct volume_facts *facts = &m->entry->facts;
	char why[WHY_BYTES], uuid[UUID_TEXT_BYTES];
	if (u->own.err != 0)
		return u->own.err;
	m->found_revision = item->revision;
	m->has_changed = item->revision != m->base_revision;
	m->is_as_wanted = m->has_changed && u->change && strcmp(item->value, m->wanted_text) == 0;
	uuid_to_text(&facts->uuid, uuid);
	int err = volume_from_json(uuid, item->value, &m->found, why);
	if (err != 0)
		log_event(m->entry->set->log, LOG_ERROR, "record-damaged", facts->name,
			  "the record of volume %s in the metadata store cannot be used: %s", facts->name, why);
	return err;
}

/* The record in the store takes the place of ours. */
static void member_take_over(struct record_member *m)
{
	struct volume_facts *facts = &m->entry->facts;
	if (m->found_revision < facts->revision) { /* the watch knows better */
		volume_facts_clear(&m->found);
		return;
	}
	if (m->found.history != facts->history) /* somebody has made or deleted snapshots that we do not know of */
		snapshots_missed(m->entry);
	volume_facts_clear(facts);
	*facts = m->found;
	facts->revision = m->found_revision;
	m->found = (struct volume_facts){0};
	set_volume_check_head(m->entry);
}

/* All records are read. true: they are not what was wanted, decide again; false: the end, with own.err. */
static bool update_take_over(struct record_update *u)
{
	bool has_changed = false, is_as_wanted = true;
	for (uint32_t i = 0; i < u->own.n_members; i++) {
		has_changed |= update_member(u, i)->has_changed;
		is_as_wanted &= update_member(u, i)->is_as_wanted;
	}
	u->own.is_open &= !has_changed;
	if (is_as_wanted) { /* one transaction: all have its revision */
		u->revision = u->own.members[0].found_revision;
		update_adopt(u);
		return false;
	}
	for (uint32_t i = 0; i < u->own.n_members; i++)
		member_take_over(update_member(u, i));
	if (u->own.is_refused && !has_changed) {
		u->own.err = -EAGAIN; /* it was one of extend()'s conditions, on which earlier ones fail as well */
		u->own.is_open = false;
	} else if (!u->change) {
		u->own.err = u->own.is_refused ? -EAGAIN : -ETIMEDOUT;
	} else if (++u->own.tries > UPDATE_TRIES_MAX) {
		u->own.err = -EBUSY;
	}
	return u->own.err == 0;
}

/* A record has been read. FLOW_WAIT: the next is being read. */
static enum flow update_reread_next(struct record_update *u)
{
	u->own.err = member_found(u, update_member(u, u->own.at));
	metadata_request_clear(&u->own.read);
	if (u->own.err != 0 || ++u->own.at == u->own.n_members)
		return FLOW_NEXT;
	update_reread(u);
	return FLOW_WAIT;
}

static bool update_must_wait(const struct record_update *u)
{
	return u->own.is_open && u->own.err != -ENOENT && u->head && volume_needs_outcome(u->head);
}

/* Before all records are read once more. */
static void update_wait(struct record_update *u)
{
	transaction_clear(&u->own.transaction);
	u->own.at = u->own.tries = 0;
	u->own.is_refused = false;
	timer_start(u->own.members[0].entry->set->reactor, &u->own.again, UPDATE_WAIT_NS);
}

static void update_end(struct record_update *u)
{
	int err = u->own.err;
	for (uint32_t i = 0; i < u->own.n_members; i++) {
		struct record_member *m = update_member(u, i);
		struct list *updates = &m->entry->updates;
		list_remove(&m->turn);
		member_forget(m);
		if (list_is_empty(updates))
			continue;
		struct record_update *next = container_of(updates->next, struct record_member, turn)->update;
		if (next->own.op.kind == OP_NONE)
			reactor_defer(m->entry->set->reactor, &next->own.op, 0);
	}
	u->own.stage = UPDATE_IDLE;
	u->done(u, err);
}

/* ---- the dispatcher ---- */

/* What must hold whenever the dispatcher is entered: an update that is past TURN is the first in every line (1). */
static void update_check(const struct record_update *u)
{
	quarry_assert(u->own.stage != UPDATE_IDLE && u->own.n_members > 0);
	for (uint32_t i = 0; i < u->own.n_members && u->own.stage > UPDATE_TURN; i++)
		quarry_assert(u->own.members[i].entry->updates.next == &u->own.members[i].turn);
}

static void update_run(struct record_update *u)
{
	for (;;) {
		update_check(u);
		switch ((enum update_stage)u->own.stage) {
		case UPDATE_TURN:
			if (update_turn(u) == FLOW_WAIT)
				return;
			u->own.stage = UPDATE_CHANGE;
			break;
		case UPDATE_CHANGE:
			u->own.err = update_change(u);
			if (u->own.err == 0)
				u->own.err = update_transact(u);
			if (u->own.err == 0) {
				u->own.stage = UPDATE_TRANSACT;
				return;
			}
			transaction_clear(&u->own.transaction);
			u->own.stage = UPDATE_END;
			break;
		case UPDATE_TRANSACT:
			if (update_judge(u) == FLOW_NEXT) {
				u->own.stage = UPDATE_END;
				break;
			}
			update_reread(u);
			u->own.stage = UPDATE_REREAD;
			return;
		case UPDATE_REREAD:
			if (update_reread_next(u) == FLOW_WAIT)
				return;
			u->own.stage = u->own.err == 0 && update_take_over(u) ? UPDATE_CHANGE : UPDATE_END;
			break;
		case UPDATE_WAIT:
			update_reread(u);
			u->own.stage = UPDATE_REREAD;
			return;
		case UPDATE_END:
			if (update_must_wait(u)) {
				u->own.stage = UPDATE_WAIT;
				update_wait(u);
				return;
			}
			update_end(u);
			return;
		case UPDATE_IDLE: /* update_check() has seen to it */
			return;
		}
	}
}

static void update_complete(struct record_update *u, int res)
{
	u->own.err = res;
	update_run(u);
}

static void update_begin(struct record_update *u, struct record_member *members, uint32_t n_members)
{
	bool is_first = true;
	u->own.members = members;
	u->own.n_members = n_members;
	u->own.stage = UPDATE_TURN;
	op_init(&u->own.op, update_turn_came);
	timer_init(&u->own.again, update_waited);
	transaction_begin(&u->own.transaction, update_transacted);
	for (uint32_t i = 0; i < n_members; i++) {
		struct record_member *m = update_member(u, i);
		is_first &= list_is_empty(&m->entry->updates);
		m->update = u;
		list_append(&m->entry->updates, &m->turn);
	}
	if (is_first)
		reactor_defer(members[0].entry->set->reactor, &u->own.op, 0);
}

static void update_reset(struct record_update *u)
{
	quarry_assert(u->done && (u->change || !u->head));
	quarry_assert(record_update_is_idle(u));
	memset(&u->own, 0, sizeof(u->own));
	u->is_certain = false;
}

void record_update_start(struct record_update *u, struct set_volume *entry)
{
	update_reset(u);
	u->own.one.entry = entry;
	u->own.one.generation = u->generation;
	update_begin(u, &u->own.one, 1);
}

void record_update_start_many(struct record_update *u, struct record_member *members, uint32_t n_members)
{
	quarry_assert(n_members >= 1 && n_members <= RECORD_MEMBERS_MAX);
	update_reset(u);
	update_begin(u, members, n_members);
}

bool record_update_is_idle(const struct record_update *u)
{
	return u->own.stage == UPDATE_IDLE;
}

void record_update_abandon(struct record_update *u)
{
	if (record_update_is_idle(u))
		return;
	timer_stop(u->own.members[0].entry->set->reactor, &u->own.again);
	transaction_clear(&u->own.transaction);
	metadata_request_clear(&u->own.read);
	for (uint32_t i = 0; i < u->own.n_members; i++)
		member_forget(update_member(u, i));
	u->own.stage = UPDATE_IDLE;
}
