/*
 * metadata.c: what every metadata store does alike: checks of requests, results, watches, leases.
 *
 * Invariants
 *  1. A request belongs to the store from metadata_submit() to done(), which comes on a later turn of the store's
 *     reactor, exactly once.
 *  2. Watches hear of a change before the transaction that made it is answered, and in the order in which the changes
 *     were made.
 *  3. Results (items) belong to the request; the caller frees them with metadata_request_clear().
 *  4. Changes that no request made (a lease ran out, another node wrote) come through the inbox, which a store may fill
 *     from its own thread; they keep their order among themselves and with the answers of that thread.
 *
 * Owner: the reactor that the store was opened with. What a store does on a thread of its own ends with a message.
 */
#include "daemon/metadata/metadata_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- changes that no request of this process made ---- */

/* It outlives a store that is closed while its message is under way. */
struct metadata_inbox {
	struct metadata *store; /* the reactor's; NULL: closed */
	struct message message;
	pthread_mutex_t mutex;
	struct list news; /* the mutex's, like the rest */
	bool is_posted, has_lost;
};

struct news {
	struct metadata_item item;
	struct list link;
};

static void news_free(struct list *all)
{
	struct list *node;
	while ((node = list_pop(all)) != NULL) {
		struct news *n = container_of(node, struct news, link);
		free(n->item.key);
		free(n->item.value);
		free(n);
	}
}

static void inbox_free(struct metadata_inbox *in)
{
	quarry_assert(!in->is_posted);
	news_free(&in->news);
	pthread_mutex_destroy(&in->mutex);
	free(in);
}

static void inbox_deliver(struct message *message)
{
	struct metadata_inbox *in = container_of(message, struct metadata_inbox, message);
	struct list *node;
	pthread_mutex_lock(&in->mutex);
	in->is_posted = false;
	bool has_lost = in->has_lost;
	in->has_lost = false;
	if (in->store && has_lost) {
		pthread_mutex_unlock(&in->mutex);
		metadata_tell_lost(in->store);
		pthread_mutex_lock(&in->mutex);
	}
	while (in->store && (node = list_pop(&in->news)) != NULL) {
		struct news *n = container_of(node, struct news, link);
		pthread_mutex_unlock(&in->mutex);
		metadata_tell(in->store, &n->item);
		free(n->item.key);
		free(n->item.value);
		free(n);
		pthread_mutex_lock(&in->mutex);
	}
	pthread_mutex_unlock(&in->mutex);
	if (!in->store)
		inbox_free(in);
}

/* With the mutex held. */
static void inbox_post_locked(struct metadata *m)
{
	struct metadata_inbox *in = m->inbox;
	if (in->is_posted)
		return;
	in->is_posted = true;
	reactor_post(m->reactor, &in->message);
}

static struct news *news_make(const struct metadata_item *item)
{
	struct news *n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->item = (struct metadata_item){.key = strdup(item->key), .revision = item->revision, .lease = item->lease};
	n->item.value = item->value ? strdup(item->value) : NULL;
	if (n->item.key && (n->item.value || !item->value))
		return n;
	free(n->item.key);
	free(n->item.value);
	free(n);
	return NULL;
}

void metadata_inbox_changed(struct metadata *m, const struct metadata_item *items, size_t n_items)
{
	struct metadata_inbox *in = m->inbox;
	struct list news;
	bool enough = true;
	list_init(&news);
	for (size_t i = 0; i < n_items && enough; i++) {
		struct news *n = news_make(&items[i]);
		enough = n != NULL;
		if (n)
			list_append(&news, &n->link);
	}
	pthread_mutex_lock(&in->mutex);
	if (enough)
		list_splice(&in->news, &news); /* at once: who hears of one hears of all */
	else
		in->has_lost = true;
	inbox_post_locked(m);
	pthread_mutex_unlock(&in->mutex);
	news_free(&news);
}

void metadata_inbox_lost(struct metadata *m)
{
	pthread_mutex_lock(&m->inbox->mutex);
	m->inbox->has_lost = true;
	inbox_post_locked(m);
	pthread_mutex_unlock(&m->inbox->mutex);
}

void metadata_inbox_forget(struct metadata *m)
{
	m->inbox->is_posted = false;
	news_free(&m->inbox->news);
}

/* ---- stores ---- */

int metadata_init(struct metadata *m, const struct metadata_ops *ops, struct reactor *r)
{
	quarry_assert(ops->submit && ops->close);
	quarry_assert(r);
	m->ops = ops;
	m->reactor = r;
	list_init(&m->watches);
	m->inbox = calloc(1, sizeof(*m->inbox));
	if (!m->inbox)
		return -ENOMEM;
	m->inbox->store = m;
	m->inbox->message.deliver = inbox_deliver;
	list_init(&m->inbox->news);
	pthread_mutex_init(&m->inbox->mutex, NULL);
	return 0;
}

void metadata_fini(struct metadata *m)
{
	struct metadata_inbox *in = m->inbox;
	in->store = NULL;
	if (!in->is_posted) /* else its message frees it; nobody posts any more */
		inbox_free(in);
}

void metadata_close(struct metadata *m)
{
	quarry_assert(list_is_empty(&m->watches));
	m->ops->close(m);
}

void metadata_request_check(const struct metadata_request *q)
{
	quarry_assert(q->done);
	quarry_assert((q->op != METADATA_GET && q->op != METADATA_LIST) || q->key);
	quarry_assert((q->op != METADATA_KEEP && q->op != METADATA_REVOKE) || q->lease != 0);
	quarry_assert(q->op != METADATA_GRANT || q->ttl_ns >= NS_PER_S);
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

int metadata_request_add(struct metadata_request *q, const struct metadata_item *item)
{
	quarry_assert(q->op == METADATA_GET || q->op == METADATA_LIST);
	quarry_assert(item->revision > 0);
	/* Room grows by doubling: it is full exactly when the number of items is a power of two (or zero). */
	if ((q->n_items & (q->n_items - 1)) == 0) {
		size_t room = q->n_items ? (size_t)q->n_items * 2 : 1;
		struct metadata_item *items = realloc(q->items, room * sizeof(*items));
		if (!items)
			return -ENOMEM;
		q->items = items;
	}
	struct metadata_item copy = *item;
	copy.key = strdup(item->key);
	copy.value = strdup(item->value);
	if (!copy.key || !copy.value) {
		free(copy.key);
		free(copy.value);
		return -ENOMEM;
	}
	q->items[q->n_items++] = copy;
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
void metadata_tell(struct metadata *m, const struct metadata_item *item)
{
	list_each_safe (node, &m->watches) {
		struct metadata_watch *w = container_of(node, struct metadata_watch, link);
		if (strncmp(item->key, w->prefix, strlen(w->prefix)) == 0)
			w->changed(w, item);
	}
}

void metadata_tell_lost(struct metadata *m)
{
	list_each_safe (node, &m->watches) {
		struct metadata_watch *w = container_of(node, struct metadata_watch, link);
		if (w->lost)
			w->lost(w);
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
		    .lease = q->changes[i].lease,
		};
		if (q->changed & (1u << i))
			metadata_tell(m, &item);
	}
	if (res < 0)
		metadata_request_clear(q);
	q->res = res;
	q->done(q, res);
}
