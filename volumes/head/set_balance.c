/*
 * set_balance.c: when a disk of a pool is much fuller than another, who has segments move, and of which volume.
 *
 *   look     now and then: is the gap wide in some pool, and was it so the last time? Then a volume that this node
 *            serves, or that nobody does, is chosen, and the lock is taken
 *   lock     one transaction: the store names the node that has segments move, one of all
 *   turn     the volume moves one segment after the other (leave.c), and rests after each until all have told how full
 *            their disks are; when it has none to move any more, the next has its turn; without a next the lock is given
 *            up
 *
 * Invariants
 *  1. It begins when the gap is BALANCE_START or wider, and ends when no volume has a pair of disks as far apart as
 *     BALANCE_STOP: what is written or deleted meanwhile does not make it begin again at once.
 *  2. The lock keeps the cluster from moving much at once, no more: a move is safe without it.
 *  3. A resync, a drain and missing copies go first.
 *
 * Owner: the set.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_NS (15 * NS_PER_S)
#define REST_NS (3 * NS_PER_S) /* other nodes tell how full their disks are within that */
/* A volume of which nothing could be moved is left alone for so long. */
#define SKIP_NS (600 * NS_PER_S)

/* ---- the lock ---- */

bool balance_put(struct volume_set *s, const char *text, uint64_t revision)
{
	struct set_balance *b = &s->balance;
	json_t *value = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
	const char *node = json_string_value(json_object_get(value, "node"));
	bool is_good = !text || (node && name_is_valid(node));
	if (revision > b->revision) {
		b->revision = revision;
		b->is_locked = text != NULL; /* one that cannot be read is nobody's */
		text_print(b->node, sizeof(b->node), "%s", text && is_good ? node : "");
	}
	json_decref(value);
	return is_good;
}

static bool balance_has_lock(const struct volume_set *s)
{
	return !s->members || (s->balance.is_locked && set_node_is_self(s, s->balance.node));
}

/* Has a node it that is alive? */
static bool balance_is_anothers(const struct volume_set *s)
{
	const struct set_balance *b = &s->balance;
	return b->is_locked && b->node[0] && !set_node_is_self(s, b->node) && set_node_is_alive(s, b->node);
}

static char *lock_to_json(const char *node)
{
	json_t *value = json_pack("{s:s}", "node", node);
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
	json_decref(value);
	return text;
}

static int lock_decide(struct command *c)
{
	struct volume_set *s = c->set;
	struct set_balance *b = &s->balance;
	char key[KEY_BYTES];
	if (b->is_wanted == balance_has_lock(s) || balance_is_anothers(s))
		return 0;
	transaction_condition(&c->transaction, b->is_locked ? b->revision : 0, BALANCE_KEY);
	text_print(key, sizeof(key), LEASE_KEY, b->node);
	if (b->is_wanted && b->is_locked && b->node[0])
		transaction_condition(&c->transaction, 0, "%s", key);
	if (b->is_wanted)
		transaction_put(&c->transaction, lock_to_json(s->node_name), BALANCE_KEY);
	else
		transaction_delete(&c->transaction, BALANCE_KEY);
	return 1;
}

static void lock_apply(struct command *c, uint64_t revision)
{
	struct set_balance *b = &c->set->balance;
	quarry_assert(revision > b->revision);
	b->revision = revision;
	b->is_locked = b->is_wanted;
	text_print(b->node, sizeof(b->node), "%s", b->is_wanted ? c->set->node_name : "");
}

const struct command_kind command_balance = {
    .name = "balance", .run = command_change_run, .decide = lock_decide, .apply = lock_apply};

static void lock_over(struct set_command *o, int res)
{
	struct volume_set *s = set_own_ended(o);
	if (res == 0 && s->balance.is_wanted && balance_has_lock(s))
		balance_look(s);
}

static void lock_want(struct volume_set *s, bool is_wanted)
{
	s->balance.is_wanted = is_wanted;
	if (s->members && balance_has_lock(s) != is_wanted) /* the next look wants it again, if there is no memory */
		set_order_own(s, SET_BALANCE, lock_over);
}

/* ---- whose turn it is ---- */

static struct set_volume *balance_volume(const struct volume_set *s)
{
	return s->balance.has_volume ? set_volume_by_uuid((struct volume_set *)s, &s->balance.volume) : NULL;
}

bool balance_is_wanted(const struct set_volume *entry)
{
	const struct set_balance *b = &entry->set->balance;
	return b->has_volume && uuid_equal(&b->volume, &entry->facts.uuid) && balance_has_lock(entry->set) &&
	       !entry->facts.is_deleting;
}

static struct set_volume *balance_next(struct volume_set *s)
{
	uint64_t now_ns = reactor_now_ns(s->reactor);
	list_each (link, &s->volumes) {
		struct set_volume *entry = container_of(link, struct set_volume, link);
		if (now_ns >= entry->balance_after_ns && balance_may_help(entry))
			return entry;
	}
	return NULL;
}

static void balance_begin(struct volume_set *s, struct set_volume *entry)
{
	struct set_balance *b = &s->balance;
	const struct set_disk *full, *empty;
	quarry_assert(balance_has_lock(s) && entry->set == s);
	(void)balance_gap(s, entry->facts.pool, &full, &empty);
	if (!b->is_on && full)
		log_event(
		    s->log, LOG_NOTICE, "rebalance-begun", entry->facts.pool,
		    "disk %s of pool %s is %u %% full, and disk %s %u %%: segments of volumes move to the emptier ones",
		    full->facts.name, entry->facts.pool, balance_fill(full), empty->facts.name, balance_fill(empty));
	if (!b->is_on)
		b->began_ns = reactor_now_ns(s->reactor);
	b->is_on = b->has_volume = true;
	b->is_without_head = false;
	b->volume = entry->facts.uuid;
	if (entry->head)
		leave_want(entry->head);
	drains_look(s); /* who has no head gets one for that */
}

static void balance_end(struct volume_set *s)
{
	struct set_balance *b = &s->balance;
	if (b->is_on)
		log_event(
		    s->log, LOG_NOTICE, "rebalance-ended", s->node_name,
		    "no volume of this node has segments any more that should lie elsewhere: %llu moved, with %llu MiB",
		    (unsigned long long)b->n_moved, (unsigned long long)(b->moved_bytes / MIB));
	b->is_on = b->is_seen = false;
	b->n_moved = b->moved_bytes = 0;
	lock_want(s, false);
}

void balance_turn_over(struct set_volume *entry, uint64_t n_moved, uint64_t moved_bytes)
{
	struct volume_set *s = entry->set;
	struct set_balance *b = &s->balance;
	b->n_moved += n_moved;
	b->moved_bytes += moved_bytes;
	if (entry->head)
		entry->head->leave_delay_ns = REST_NS;
	if (n_moved > 0)
		return;
	entry->balance_after_ns = reactor_now_ns(s->reactor) + SKIP_NS;
	if (balance_is_wanted(entry))
		b->has_volume = false;
	balance_look(s);
}

/* ---- look ---- */

static bool balance_is_needed(const struct volume_set *s)
{
	list_each (link, &s->pools) {
		const struct set_disk *full, *empty;
		uint32_t gap = balance_gap(s, container_of(link, struct set_pool, link)->facts.name, &full, &empty);
		if (gap >= (s->balance.is_on ? BALANCE_STOP : BALANCE_START))
			return true;
	}
	return false;
}

/* Is it at it, or about to be? */
static bool balance_goes_on(struct set_volume *entry)
{
	struct set_balance *b = &entry->set->balance;
	if (entry->head)
		return entry->head->leave || balance_may_help(entry);
	bool was_without = b->is_without_head; /* it could not be attached since the last look */
	b->is_without_head = true;
	if (was_without)
		entry->balance_after_ns = reactor_now_ns(entry->set->reactor) + SKIP_NS;
	return !was_without;
}

static void balance_fired(struct timer *t)
{
	struct volume_set *s = container_of(t, struct volume_set, balance.timer);
	struct set_balance *b = &s->balance;
	timer_start(s->reactor, &b->timer, LOOK_NS);
	if (!set_lease_holds(s) || balance_is_anothers(s)) {
		b->has_volume = false;
		return;
	}
	struct set_volume *entry = balance_volume(s);
	if (entry && balance_is_wanted(entry) && balance_goes_on(entry))
		return;
	b->has_volume = false;
	entry = balance_is_needed(s) ? balance_next(s) : NULL;
	if (!entry) {
		balance_end(s);
	} else if (!b->is_seen) {
		b->is_seen = true; /* it may be over by the next look */
	} else if (balance_has_lock(s)) {
		balance_begin(s, entry);
	} else {
		lock_want(s, true);
	}
}

void balance_init(struct volume_set *s)
{
	timer_init(&s->balance.timer, balance_fired);
}

void balance_start(struct volume_set *s)
{
	timer_start(s->reactor, &s->balance.timer, LOOK_NS);
}

void balance_look(struct volume_set *s)
{
	if (s->is_stopping)
		return;
	timer_stop(s->reactor, &s->balance.timer);
	timer_start(s->reactor, &s->balance.timer, 1);
}

void balance_stop(struct volume_set *s)
{
	timer_stop(s->reactor, &s->balance.timer);
}

void volume_set_balance(const struct volume_set *s, struct balance_view *view)
{
	const struct set_volume *entry = balance_volume(s);
	*view = (struct balance_view){.moved_bytes = s->balance.moved_bytes};
	text_print(view->node, sizeof(view->node), "%s",
		   !s->members && s->balance.is_on ? s->node_name : s->balance.node);
	if (entry)
		text_print(view->volume, sizeof(view->volume), "%s", entry->facts.name);
	if (!s->balance.is_on) /* the node that has it on knows how far it is */
		return;
	list_each (link, &s->pools)
		view->left_bytes += balance_left_bytes(s, container_of(link, struct set_pool, link)->facts.name);
	view->eta_s = drain_eta_s(view->moved_bytes + view->left_bytes, view->left_bytes,
				  reactor_now_ns(s->reactor) - s->balance.began_ns);
}
