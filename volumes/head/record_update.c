/*
 * record_update.c: changing one volume's record in the metadata store, and this node's copy of it.
 *
 *   TURN -> CHANGE -> TRANSACT -> END
 *             ^          |
 *             +- REREAD <+ a condition failed, or the outcome is unknown
 *
 * Invariants
 *  1. Of one volume, only the first in entry->updates is past TURN, so nobody's decision is overtaken by another's of
 *     this node; what other nodes change is seen as a failed condition.
 *  2. entry->facts changes only here, and only to what the store is known to hold.
 *  3. Nothing is resent blindly: after a failed condition or an unknown outcome the record is read, and if it already
 *     is what was wanted (a reply was lost, or the transaction doubled), that is success.
 *
 * Owner: whoever embeds it; it is his again at done().
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UPDATE_STAGES(X) X(IDLE) X(TURN) X(CHANGE) X(TRANSACT) X(REREAD) X(END)
#define X(name)          UPDATE_##name,
enum update_stage { UPDATE_STAGES(X) };
#undef X

#define UPDATE_TRIES_MAX 16u /* a record that changes under every one of these is being fought over */

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

/* ---- the stages' work ---- */

static enum flow update_turn(struct record_update *u)
{
	return u->own.entry->updates.next == &u->own.turn ? FLOW_NEXT : FLOW_WAIT;
}

/* Makes the wanted record out of the one at hand. */
static int update_change(struct record_update *u)
{
	const struct volume_facts *facts = &u->own.entry->facts;
	free(u->own.wanted_text);
	u->own.wanted_text = NULL;
	volume_facts_clear(&u->own.wanted);
	if (u->generation != 0 && facts->generation != u->generation)
		return -ESTALE;
	int err = volume_facts_copy(facts, &u->own.wanted);
	if (err != 0 || !u->change)
		return err;
	err = u->change(u, &u->own.wanted);
	if (err != 0)
		return err;
	u->own.wanted_text = volume_to_json(&u->own.wanted);
	return u->own.wanted_text ? 0 : -ENOMEM;
}

static int update_transact(struct record_update *u)
{
	struct transaction *t = &u->own.transaction;
	char uuid[UUID_TEXT_BYTES];
	uuid_to_text(&u->own.wanted.uuid, uuid);
	transaction_begin(t, update_transacted);
	transaction_condition(t, u->own.entry->facts.revision, VOLUME_KEY, uuid);
	if (u->change)
		transaction_put(t, strdup(u->own.wanted_text), VOLUME_KEY, uuid);
	if (u->extend)
		u->extend(u, t);
	return transaction_submit(t, u->own.entry->set->metadata);
}

/* The store holds the wanted record with this revision: from now on it is ours too. */
static void update_adopt(struct record_update *u, uint64_t revision)
{
	struct volume_facts *facts = &u->own.entry->facts;
	quarry_assert(u->change);
	quarry_assert(u->own.wanted.generation >= facts->generation);
	volume_facts_clear(facts);
	*facts = u->own.wanted;
	facts->revision = revision;
	u->own.wanted = (struct volume_facts){0};
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
		if (u->change)
			update_adopt(u, q->revision);
	} else if (res != -EAGAIN && res != -ETIMEDOUT) {
		u->own.err = res;
	} else {
		u->own.is_refused = res == -EAGAIN;
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
	uuid_to_text(&u->own.entry->facts.uuid, uuid);
	transaction_begin(t, NULL);
	transaction_condition(t, 0, VOLUME_KEY, uuid); /* makes the key's text, which must outlive this function */
	u->own.read = (struct metadata_request){.op = METADATA_GET, .key = t->keys[0], .done = update_reread_done};
	metadata_submit(u->own.entry->set->metadata, &u->own.read);
}

/* Takes over what was read. true: the record is not what was wanted, decide again; false: the end, with own.err. */
static bool update_take_over(struct record_update *u)
{
	struct volume_facts *facts = &u->own.entry->facts, found;
	const struct metadata_item *item = u->own.read.items;
	char why[WHY_BYTES], uuid[UUID_TEXT_BYTES];
	if (u->own.err != 0)
		return false;
	bool has_changed = item->revision != facts->revision;
	if (has_changed && u->change && strcmp(item->value, u->own.wanted_text) == 0) {
		update_adopt(u, item->revision);
		return false;
	}
	uuid_to_text(&facts->uuid, uuid);
	u->own.err = volume_from_json(uuid, item->value, &found, why);
	if (u->own.err != 0) {
		log_event(u->own.entry->set->log, LOG_ERROR, "record-damaged", facts->name,
			  "the record of volume %s in the metadata store cannot be used: %s", facts->name, why);
		return false;
	}
	volume_facts_clear(facts);
	*facts = found;
	facts->revision = item->revision;
	if (u->own.is_refused && !has_changed)
		u->own.err = -EAGAIN; /* it was one of extend()'s conditions */
	else if (!u->change)
		u->own.err = u->own.is_refused ? -EAGAIN : -ETIMEDOUT;
	else if (++u->own.tries > UPDATE_TRIES_MAX)
		u->own.err = -EBUSY;
	return u->own.err == 0;
}

static void update_end(struct record_update *u)
{
	struct set_volume *entry = u->own.entry;
	int err = u->own.err;
	list_remove(&u->own.turn);
	free(u->own.wanted_text);
	u->own.wanted_text = NULL;
	volume_facts_clear(&u->own.wanted);
	if (!list_is_empty(&entry->updates)) {
		struct record_update *next = container_of(entry->updates.next, struct record_update, own.turn);
		if (next->own.op.kind == OP_NONE)
			reactor_defer(entry->set->reactor, &next->own.op, 0);
	}
	u->own.stage = UPDATE_IDLE;
	u->done(u, err);
}

/* ---- the dispatcher ---- */

static void update_run(struct record_update *u)
{
	for (;;) {
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
			u->own.stage = update_take_over(u) ? UPDATE_CHANGE : UPDATE_END;
			metadata_request_clear(&u->own.read);
			break;
		case UPDATE_END:
			update_end(u);
			return;
		case UPDATE_IDLE:
			quarry_assert(!"an update that nobody started");
		}
	}
}

static void update_complete(struct record_update *u, int res)
{
	u->own.err = res;
	update_run(u);
}

void record_update_start(struct record_update *u, struct set_volume *entry)
{
	quarry_assert(u->done);
	quarry_assert(record_update_is_idle(u));
	memset(&u->own, 0, sizeof(u->own));
	u->is_certain = false;
	u->own.entry = entry;
	u->own.stage = UPDATE_TURN;
	op_init(&u->own.op, update_turn_came);
	transaction_begin(&u->own.transaction, update_transacted);
	bool is_first = list_is_empty(&entry->updates);
	list_append(&entry->updates, &u->own.turn);
	if (is_first)
		reactor_defer(entry->set->reactor, &u->own.op, 0);
}

bool record_update_is_idle(const struct record_update *u)
{
	return u->own.stage == UPDATE_IDLE;
}

void record_update_abandon(struct record_update *u)
{
	if (record_update_is_idle(u))
		return;
	transaction_clear(&u->own.transaction);
	metadata_request_clear(&u->own.read);
	free(u->own.wanted_text);
	volume_facts_clear(&u->own.wanted);
	u->own.stage = UPDATE_IDLE;
}
