/*
 * metadata_memory.c: the metadata store in memory, on its reactor: for tests and the simulator.
 *
 *   submit -> queue -> carry out -> answer        each arrow a turn, or a random delay
 *
 * Invariants
 *  1. Items are sorted by key, and no two have the same.
 *  2. A request is carried out on a turn after its submission and answered on one after that, so a client may crash
 *     on either side of it; the next request is not looked at before.
 *  3. The revision grows by one with every transaction that has changes, and every item's is at most that.
 *  4. A lease whose time has come is ended before the next request is carried out, and by a timer when there is none.
 *  5. With faults set, a transaction may be answered with -ETIMEDOUT whether it was carried out, is never, or will be once
 *     others have been, and may be carried out twice; a get or list may be answered so, too.
 *
 * Owner: the reactor.
 */
#include "daemon/metadata/metadata_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct memory_store {
	struct metadata base;
	struct metadata_item *items; /* sorted by key */
	size_t n_items, items_room;
	uint64_t revision;
	struct list queue;   /* requests not yet answered, by link, in order of submission */
	bool is_carried_out; /* the first of them, with this result: */
	int res;
	struct op turn;     /* deferred while the queue has members and no delay runs */
	struct timer delay; /* runs while the queue's first member is late */
	struct lease_table leases;
	struct timer expiry; /* runs until the first lease ends */
	struct metadata_faults faults;
	struct metadata_request *late; /* answered, and still under way; its texts are its own */
};

static struct memory_store *memory_of(struct metadata *m)
{
	return container_of(m, struct memory_store, base);
}

/* Index of the key, or of the first greater one. */
static size_t memory_search(const struct memory_store *s, const char *key)
{
	size_t low = 0, high = s->n_items;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (strcmp(s->items[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct metadata_item *memory_find(const struct memory_store *s, const char *key)
{
	size_t i = memory_search(s, key);
	return i < s->n_items && strcmp(s->items[i].key, key) == 0 ? &s->items[i] : NULL;
}

/* ---- carrying out ---- */

static int memory_get(struct memory_store *s, struct metadata_request *q)
{
	const struct metadata_item *item = memory_find(s, q->key);
	q->revision = s->revision;
	return item ? metadata_request_add(q, item) : -ENOENT;
}

static int memory_list(struct memory_store *s, struct metadata_request *q)
{
	int res = 0;
	size_t prefix_len = strlen(q->key);
	q->revision = s->revision;
	for (size_t i = memory_search(s, q->key); i < s->n_items && res == 0; i++) {
		const struct metadata_item *item = &s->items[i];
		if (strncmp(item->key, q->key, prefix_len) != 0)
			break;
		res = metadata_request_add(q, item);
	}
	return res;
}

static bool memory_conditions_hold(const struct memory_store *s, const struct metadata_request *q)
{
	for (uint32_t i = 0; i < q->n_conditions; i++) {
		const struct metadata_item *item = memory_find(s, q->conditions[i].key);
		if ((item ? item->revision : 0) != q->conditions[i].revision)
			return false;
	}
	return true;
}

/* Makes room so that no change of the request can fail for memory half way. */
static int memory_make_room(struct memory_store *s, size_t n_more)
{
	if (s->n_items + n_more <= s->items_room)
		return 0;
	size_t room = (s->n_items + n_more) * 2;
	struct metadata_item *items = realloc(s->items, room * sizeof(*items));
	if (!items)
		return -ENOMEM;
	s->items = items;
	s->items_room = room;
	return 0;
}

static bool memory_delete(struct memory_store *s, const char *key)
{
	struct metadata_item *item = memory_find(s, key);
	if (!item)
		return false;
	size_t i = (size_t)(item - s->items);
	free(item->key);
	free(item->value);
	memmove(item, item + 1, (s->n_items - i - 1) * sizeof(*item));
	s->n_items--;
	return true;
}

/* Takes ownership of value and, when the key is new, of key_copy; frees the latter else. */
static void memory_put(struct memory_store *s, char *key_copy, char *value, uint64_t lease)
{
	size_t i = memory_search(s, key_copy);
	if (i < s->n_items && strcmp(s->items[i].key, key_copy) == 0) {
		free(key_copy);
		free(s->items[i].value);
		s->items[i].value = value;
	} else {
		quarry_assert(s->n_items < s->items_room);
		memmove(&s->items[i + 1], &s->items[i], (s->n_items - i) * sizeof(s->items[0]));
		s->items[i] = (struct metadata_item){.key = key_copy, .value = value};
		s->n_items++;
	}
	s->items[i].revision = s->revision;
	s->items[i].lease = lease;
}

/* ---- leases ---- */

static void memory_watch_leases(struct memory_store *s)
{
	struct lease *first = lease_next(&s->leases);
	uint64_t now_ns = reactor_now_ns(s->base.reactor);
	timer_stop(s->base.reactor, &s->expiry);
	if (first)
		timer_start(s->base.reactor, &s->expiry, first->ends_ns > now_ns ? first->ends_ns - now_ns : 0);
}

/* One revision for all its keys, as for a transaction. */
static void memory_end_lease(struct memory_store *s, struct lease *lease)
{
	uint64_t id = lease->id;
	bool has_grown = false;
	lease_end(lease);
	for (size_t i = 0; i < s->n_items;) {
		if (s->items[i].lease != id) {
			i++;
			continue;
		}
		s->revision += !has_grown;
		has_grown = true;
		metadata_inbox_changed(&s->base,
				       &(struct metadata_item){.key = s->items[i].key, .revision = s->revision}, 1);
		memory_delete(s, s->items[i].key);
	}
}

static void memory_end_leases(struct memory_store *s)
{
	struct lease *first;
	while ((first = lease_next(&s->leases)) && first->ends_ns <= reactor_now_ns(s->base.reactor))
		memory_end_lease(s, first);
	memory_watch_leases(s);
}

static void memory_expired(struct timer *t)
{
	memory_end_leases(container_of(t, struct memory_store, expiry));
}

static int memory_lease(struct memory_store *s, struct metadata_request *q)
{
	uint64_t now_ns = reactor_now_ns(s->base.reactor);
	struct lease *lease = q->op == METADATA_GRANT ? NULL : lease_find(&s->leases, q->lease);
	if (q->op == METADATA_GRANT) {
		do {
			q->lease = reactor_random(s->base.reactor) >> 1;
		} while (q->lease == 0 || lease_find(&s->leases, q->lease));
		lease = lease_grant(&s->leases, q->lease, q->ttl_ns, now_ns);
		if (!lease)
			return -ENOMEM;
	}
	if (!lease)
		return -ENOENT;
	if (q->op == METADATA_REVOKE) {
		memory_end_lease(s, lease);
	} else {
		q->ttl_ns = lease->ttl_ns;
		lease->ends_ns = now_ns + lease->ttl_ns;
	}
	memory_watch_leases(s);
	return 0;
}

static bool memory_leases_hold(struct memory_store *s, const struct metadata_request *q)
{
	for (uint32_t i = 0; i < q->n_changes; i++) {
		if (q->changes[i].lease != 0 && !lease_find(&s->leases, q->changes[i].lease))
			return false;
	}
	return true;
}

/* ---- transactions ---- */

static int memory_transact(struct memory_store *s, struct metadata_request *q)
{
	struct metadata_change copies[METADATA_CHANGES_MAX] = {0};
	if (!memory_conditions_hold(s, q))
		return -EAGAIN;
	if (!memory_leases_hold(s, q))
		return -ENOENT;
	bool enough = memory_make_room(s, q->n_changes) == 0;
	for (uint32_t i = 0; i < q->n_changes && enough; i++) {
		copies[i].key = strdup(q->changes[i].key);
		copies[i].value = q->changes[i].value ? strdup(q->changes[i].value) : NULL;
		enough = copies[i].key && (copies[i].value || !q->changes[i].value);
	}
	if (!enough) {
		for (uint32_t i = 0; i < q->n_changes; i++) {
			free((char *)copies[i].key);
			free((char *)copies[i].value);
		}
		return -ENOMEM;
	}
	if (q->n_changes > 0)
		s->revision++;
	q->revision = s->revision;
	for (uint32_t i = 0; i < q->n_changes; i++) {
		bool changed = true;
		if (copies[i].value) {
			memory_put(s, (char *)copies[i].key, (char *)copies[i].value, q->changes[i].lease);
		} else {
			changed = memory_delete(s, copies[i].key);
			free((char *)copies[i].key);
		}
		q->changed |= (uint32_t)changed << i;
	}
	return 0;
}

/* ---- faults ---- */

static bool memory_chance(struct memory_store *s, uint32_t percent)
{
	quarry_assert(percent <= 100);
	return percent > 0 && reactor_random(s->base.reactor) % 100 < percent;
}

static void memory_late_free(struct metadata_request *late)
{
	for (uint32_t i = 0; late && i < late->n_conditions; i++)
		free((char *)late->conditions[i].key);
	for (uint32_t i = 0; late && i < late->n_changes; i++) {
		free((char *)late->changes[i].key);
		free((char *)late->changes[i].value);
	}
	free(late);
}

static void memory_late_done(struct metadata_request *q, int res)
{
	memory_late_free(q);
}

/* Keeps a copy, to be carried out when nobody expects it any more. */
static void memory_keep_late(struct memory_store *s, const struct metadata_request *q)
{
	struct metadata_request *late = s->late ? NULL : calloc(1, sizeof(*late));
	if (!late)
		return;
	late->op = METADATA_TRANSACT;
	late->n_conditions = q->n_conditions;
	late->n_changes = q->n_changes;
	late->done = memory_late_done;
	list_init(&late->link);
	for (uint32_t i = 0; i < q->n_conditions; i++)
		late->conditions[i] =
		    (struct metadata_condition){strdup(q->conditions[i].key), q->conditions[i].revision};
	for (uint32_t i = 0; i < q->n_changes; i++) {
		const struct metadata_change *c = &q->changes[i];
		late->changes[i] =
		    (struct metadata_change){strdup(c->key), c->value ? strdup(c->value) : NULL, c->lease};
	}
	s->late = late;
}

static void memory_late(struct memory_store *s)
{
	struct metadata_request *late = s->late;
	if (!late || !memory_chance(s, 50))
		return;
	s->late = NULL;
	metadata_answer(&s->base, late, memory_transact(s, late));
}

static int memory_transact_with_faults(struct memory_store *s, struct metadata_request *q)
{
	if (memory_chance(s, s->faults.lost_percent)) {
		if (memory_chance(s, 50))
			(void)!memory_transact(s, q); /* carried out, and the reply is lost */
		else if (memory_chance(s, 50))
			memory_keep_late(s, q);
		return -ETIMEDOUT;
	}
	int res = memory_transact(s, q);
	if (res == 0 && memory_chance(s, s->faults.doubled_percent))
		res = memory_transact(s, q);
	return res;
}

static int memory_carry_out(struct memory_store *s, struct metadata_request *q)
{
	memory_end_leases(s);
	memory_late(s);
	switch (q->op) {
	case METADATA_GET:
		return memory_chance(s, s->faults.unread_percent) ? -ETIMEDOUT : memory_get(s, q);
	case METADATA_LIST:
		return memory_chance(s, s->faults.unread_percent) ? -ETIMEDOUT : memory_list(s, q);
	case METADATA_TRANSACT:
		return memory_transact_with_faults(s, q);
	case METADATA_GRANT:
	case METADATA_KEEP:
	case METADATA_REVOKE:
		return memory_lease(s, q);
	}
	return -EINVAL;
}

/* ---- order and time ---- */

static void memory_arm(struct memory_store *s)
{
	if (list_is_empty(&s->queue) || s->turn.kind != OP_NONE || timer_is_running(&s->delay))
		return;
	if (s->faults.delay_max_ns > 0)
		timer_start(s->base.reactor, &s->delay, reactor_random(s->base.reactor) % s->faults.delay_max_ns);
	else
		reactor_defer(s->base.reactor, &s->turn, 0);
}

/* Carries out the first request, or answers it: done() may submit more, or end with the store closed, so the next is
 * armed before. */
static void memory_step(struct memory_store *s)
{
	quarry_assert(!list_is_empty(&s->queue));
	struct metadata_request *q = container_of(s->queue.next, struct metadata_request, link);
	if (!s->is_carried_out) {
		s->res = memory_carry_out(s, q);
		s->is_carried_out = true;
		quarry_assert(q->revision <= s->revision);
		memory_arm(s);
		return;
	}
	s->is_carried_out = false;
	list_remove(&q->link);
	memory_arm(s);
	metadata_answer(&s->base, q, s->res);
}

static void memory_turn(struct op *op, int res)
{
	quarry_assert(res == 0);
	memory_step(container_of(op, struct memory_store, turn));
}

static void memory_delayed(struct timer *t)
{
	memory_step(container_of(t, struct memory_store, delay));
}

static void memory_submit(struct metadata *m, struct metadata_request *q)
{
	struct memory_store *s = memory_of(m);
	list_append(&s->queue, &q->link);
	memory_arm(s);
}

static void memory_close(struct metadata *m)
{
	struct memory_store *s = memory_of(m);
	quarry_assert(list_is_empty(&s->queue));
	quarry_assert(s->turn.kind == OP_NONE && !timer_is_running(&s->delay));
	for (size_t i = 0; i < s->n_items; i++) {
		free(s->items[i].key);
		free(s->items[i].value);
	}
	free(s->items);
	memory_late_free(s->late);
	timer_stop(s->base.reactor, &s->expiry);
	lease_table_fini(&s->leases);
	metadata_fini(&s->base);
	free(s);
}

static const struct metadata_ops memory_ops = {.submit = memory_submit, .close = memory_close};

int metadata_open_memory(struct reactor *r, struct metadata **out)
{
	struct memory_store *s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	if (metadata_init(&s->base, &memory_ops, r) < 0) {
		free(s);
		return -ENOMEM;
	}
	list_init(&s->queue);
	lease_table_init(&s->leases);
	timer_init(&s->expiry, memory_expired);
	op_init(&s->turn, memory_turn);
	timer_init(&s->delay, memory_delayed);
	*out = &s->base;
	return 0;
}

void metadata_memory_set_faults(struct metadata *m, const struct metadata_faults *faults)
{
	struct memory_store *s = memory_of(m);
	quarry_assert(m->ops == &memory_ops);
	quarry_assert(faults->lost_percent <= 100 && faults->doubled_percent <= 100 && faults->unread_percent <= 100);
	s->faults = *faults;
}

void metadata_memory_crash(struct metadata *m, struct reactor *r)
{
	struct memory_store *s = memory_of(m);
	quarry_assert(m->ops == &memory_ops);
	/* The requests' memory and the reactor's lists died with the client: nothing of them is touched. */
	list_init(&s->queue);
	s->is_carried_out = false;
	list_init(&s->base.watches);
	op_init(&s->turn, memory_turn);
	timer_init(&s->delay, memory_delayed);
	s->base.reactor = r;
	metadata_inbox_forget(&s->base);
	timer_init(&s->expiry, memory_expired);
	memory_watch_leases(s);
}
