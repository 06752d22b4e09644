/*
 * metadata.c: what every metadata store does alike: checks of requests, results, watches, leases.
 *
 * Invariants
 *  1. A request belongs to the store from metadata_submit() to done(), which comes on a later turn of the store's
 *     reactor, exactly once.
 *  2. Watches hear of a change before the transaction that made it is answered, and in the order in which the changes
 *     were made.
 *  3. Results (items) belong to the request; the caller frees them with metadata_request_clear().
 *
 * Owner: the reactor that the store was opened with. What a store does on a thread of its own ends with a message.
 */
#include "daemon/metadata/metadata_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void metadata_init(struct metadata *m, const struct metadata_ops *ops, struct reactor *r)
{
	quarry_assert(ops->submit && ops->close);
	quarry_assert(r);
	m->ops = ops;
	m->reactor = r;
	list_init(&m->watches);
}

void metadata_close(struct metadata *m)
{
	quarry_assert(list_is_empty(&m->watches));
	m->ops->close(m);
}

void metadata_request_check(const struct metadata_request *q)
{
	quarry_assert(q->done);
	quarry_assert(q->op == METADATA_TRANSACT || q->key);
	if (q->op != METADATA_TRANSACT)
		return;
	quarry_assert(q->n_conditions <= METADATA_CONDITIONS_MAX);
	quarry_assert(q->n_changes <= METADATA_CHANGES_MAX);
	for (uint32_t i = 0; i < q->n_conditions; i++)
		quarry_assert(q->conditions[i].key);
	for (uint32_t i = 0; i < q->n_changes; i++) {
		quarry_assert(q->changes[i].key);
		for (uint32_t j = 0; j < i; j++)
			quarry_assert(strcmp(q->changes[i].key, q->changes[j].key) != 0);
	}
}

void metadata_submit(struct metadata *m, struct metadata_request *q)
{
	metadata_request_check(q);
	q->items = NULL;
	q->n_items = 0;
	q->revision = 0;
	q->res = 0;
	q->changed = 0;
	q->store = m;
	list_init(&q->link);
	m->ops->submit(m, q);
}

int metadata_request_add(struct metadata_request *q, const char *key, const char *value, uint64_t revision)
{
	quarry_assert(q->op != METADATA_TRANSACT);
	quarry_assert(revision > 0);
	/* Room grows by doubling: it is full exactly when the number of items is a power of two (or zero). */
	if ((q->n_items & (q->n_items - 1)) == 0) {
		size_t room = q->n_items ? (size_t)q->n_items * 2 : 1;
		struct metadata_item *items = realloc(q->items, room * sizeof(*items));
		if (!items)
			return -ENOMEM;
		q->items = items;
	}
	struct metadata_item item = {.key = strdup(key), .value = strdup(value), .revision = revision};
	if (!item.key || !item.value) {
		free(item.key);
		free(item.value);
		return -ENOMEM;
	}
	q->items[q->n_items++] = item;
	return 0;
}

void metadata_request_clear(struct metadata_request *q)
{
	for (uint32_t i = 0; i < q->n_items; i++) {
		free(q->items[i].key);
		free(q->items[i].value);
	}
	free(q->items);
	q->items = NULL;
	q->n_items = 0;
}

void metadata_watch_start(struct metadata *m, struct metadata_watch *w)
{
	quarry_assert(w->changed && w->prefix);
	list_init(&w->link);
	list_append(&m->watches, &w->link);
}

void metadata_watch_stop(struct metadata *m, struct metadata_watch *w)
{
	quarry_assert(list_is_linked(&w->link));
	quarry_assert(!list_is_empty(&m->watches));
	list_remove(&w->link);
}

/* changed() may stop its own watch, not another. */
static void metadata_tell(struct metadata *m, const struct metadata_item *item)
{
	list_each_safe (node, &m->watches) {
		struct metadata_watch *w = container_of(node, struct metadata_watch, link);
		if (strncmp(item->key, w->prefix, strlen(w->prefix)) == 0)
			w->changed(w, item);
	}
}

void metadata_answer(struct metadata *m, struct metadata_request *q, int res)
{
	quarry_assert(!list_is_linked(&q->link));
	quarry_assert(q->changed == 0 || q->op == METADATA_TRANSACT);
	for (uint32_t i = 0; i < q->n_changes && q->op == METADATA_TRANSACT; i++) {
		struct metadata_item item = {
		    .key = (char *)q->changes[i].key,
		    .value = (char *)q->changes[i].value,
		    .revision = q->revision,
		};
		if (q->changed & (1u << i))
			metadata_tell(m, &item);
	}
	if (res < 0)
		metadata_request_clear(q);
	q->res = res;
	q->done(q, res);
}

int metadata_lease(struct metadata *m, const char *key, uint64_t ttl_ns, struct metadata_request *q)
{
	if (ttl_ns == 0 || key[0] == '\0')
		return -EINVAL;
	/* One node, one process: the store's lock is the lease, and the key only shows it. */
	q->op = METADATA_TRANSACT;
	q->n_conditions = 0;
	q->n_changes = 1;
	q->changes[0] = (struct metadata_change){.key = key, .value = "{}"};
	metadata_submit(m, q);
	return 0;
}
