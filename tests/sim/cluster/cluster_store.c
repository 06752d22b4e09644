/*
 * cluster_store.c: one metadata store, and the clients that the nodes have of it.
 *
 *   client: in line --depart--> GOING --arrive--> AT_STORE --answered--> COMING --arrive--> done()
 *                                 \ blocked: stands still until the way is free /
 *   given up after its time-out, with -ETIMEDOUT; the journey goes on without it
 *
 * Invariants
 *  1. A client has one request on its way in each of two lanes, as etcd's has: KEEP in one of its own. So requests are carried
 *     out in the order of submission, but for those that were given up, which may be carried out later than others.
 *  2. A journey has its own copy of what is asked: it outlives its client.
 *  3. What changes in the store is told to each client in its order. A transaction is answered when its client has been told
 *     of its changes, or a little earlier (etcd's watch may be late).
 *  4. What happens on the way to the store happens in turns of the store's machine, what happens on the way back in the
 *     node's: so it dies with the node, and waits while that stands still.
 *
 * Owner: the world.
 */
#include "tests/sim/cluster/cluster_store.h"

#include "daemon/metadata/metadata_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WAY_MIN_NS        (50 * NS_PER_US)
#define WAY_MAX_NS        (20 * NS_PER_MS)
#define TIMEOUT_NS        (5 * NS_PER_S)
#define NEWS_EARLY_ONE_IN 8u /* a transaction is answered before the watch has told of it */

enum journey_stage { GOING, AT_STORE, COMING };

struct lane {
	struct list line; /* metadata_requests */
	struct metadata_request *asked;
	struct journey *journey; /* its */
	struct timer limit;
	struct store_client *client;
};

struct journey {
	struct list link; /* the store's */
	struct cluster_store *store;
	struct lane *lane; /* NULL: nobody waits for it */
	uint32_t node;
	enum journey_stage stage;
	bool is_held; /* the way is blocked */
	struct metadata_request request;
	int res;
	struct timer timer;
};

struct news {
	struct list link;
	uint64_t at_ns;
	struct metadata_item item;
};

struct store_client {
	struct metadata base;
	struct list link; /* the store's */
	struct cluster_store *store;
	uint32_t node;
	struct lane call, keep;
	struct list news; /* on their way, in order */
	struct timer news_timer;
};

struct cluster_store {
	struct sim *sim;
	struct sim_machine *machine;
	struct metadata *memory;
	struct metadata_watch watch;
	struct list clients, journeys;
	bool is_blocked[STORE_NODES_MAX][STORE_WAYS];
};

static struct store_client *client_of(struct metadata *m)
{
	return container_of(m, struct store_client, base);
}

static uint64_t way_ns(struct sim *s)
{
	uint64_t chance = sim_random(s);
	return WAY_MIN_NS + ((WAY_MAX_NS - WAY_MIN_NS) * (chance >> 32) >> 32 >> chance % 8);
}

static char *text_copy(const char *text)
{
	char *copy = text ? strdup(text) : NULL;
	quarry_assert(copy || !text);
	return copy;
}

/* ---- journeys ---- */

static void journey_arrive(struct timer *t);

static struct journey *journey_begin(struct lane *l, const struct metadata_request *q)
{
	struct store_client *c = l->client;
	struct journey *j = calloc(1, sizeof(*j));
	quarry_assert(j);
	j->store = c->store;
	j->lane = l;
	j->node = c->node;
	j->request.op = q->op;
	j->request.key = text_copy(q->key);
	j->request.n_conditions = q->n_conditions;
	j->request.n_changes = q->n_changes;
	j->request.lease = q->lease;
	j->request.ttl_ns = q->ttl_ns;
	for (uint32_t i = 0; i < q->n_conditions; i++)
		j->request.conditions[i] =
		    (struct metadata_condition){text_copy(q->conditions[i].key), q->conditions[i].revision};
	for (uint32_t i = 0; i < q->n_changes; i++)
		j->request.changes[i] = (struct metadata_change){text_copy(q->changes[i].key),
								 text_copy(q->changes[i].value), q->changes[i].lease};
	timer_init(&j->timer, journey_arrive);
	list_init(&j->link);
	list_append(&c->store->journeys, &j->link);
	timer_start(sim_reactor(c->store->machine), &j->timer, way_ns(c->store->sim));
	return j;
}

static void journey_end(struct journey *j)
{
	quarry_assert(!j->lane && !timer_is_running(&j->timer));
	metadata_request_clear(&j->request);
	free((char *)j->request.key);
	for (uint32_t i = 0; i < j->request.n_conditions; i++)
		free((char *)j->request.conditions[i].key);
	for (uint32_t i = 0; i < j->request.n_changes; i++) {
		free((char *)j->request.changes[i].key);
		free((char *)j->request.changes[i].value);
	}
	list_remove(&j->link);
	free(j);
}

/* Nobody waits for it any more. */
static void journey_orphan(struct journey *j)
{
	j->lane = NULL;
	if (j->stage != COMING)
		return;
	timer_stop(j->request.store->reactor, &j->timer);
	journey_end(j);
}

static void journey_answered(struct metadata_request *q, int res)
{
	struct journey *j = container_of(q, struct journey, request);
	quarry_assert(j->stage == AT_STORE);
	j->stage = COMING;
	j->res = res;
	if (!j->lane)
		return journey_end(j);
	j->request.store = &j->lane->client->base; /* whose turns it waits for now */
	timer_start(j->request.store->reactor, &j->timer, way_ns(j->store->sim));
}

static void lane_answer(struct lane *l, int res);
static void client_tell(struct store_client *c, uint64_t revision);

static void journey_come_home(struct journey *j)
{
	struct lane *l = j->lane;
	struct metadata_request *q = l->asked;
	int res = j->res;
	q->items = j->request.items;
	q->n_items = j->request.n_items;
	q->revision = j->request.revision;
	q->lease = j->request.lease;
	q->ttl_ns = j->request.ttl_ns;
	j->request.items = NULL;
	j->request.n_items = 0;
	j->lane = NULL;
	l->journey = NULL;
	if (q->op == METADATA_TRANSACT && res == 0 && sim_below(j->store->sim, NEWS_EARLY_ONE_IN) > 0)
		client_tell(l->client, q->revision);
	journey_end(j);
	lane_answer(l, res);
}

static void journey_arrive(struct timer *t)
{
	struct journey *j = container_of(t, struct journey, timer);
	enum store_way way = j->stage == GOING ? STORE_TO : STORE_FROM;
	j->is_held = j->store->is_blocked[j->node][way];
	if (j->is_held)
		return;
	if (j->stage == COMING)
		return journey_come_home(j);
	j->stage = AT_STORE;
	j->request.done = journey_answered;
	metadata_submit(j->store->memory, &j->request);
}

static void journey_release(struct journey *j)
{
	struct sim *s = j->store->sim;
	j->is_held = false;
	if (!j->lane && sim_below(s, 2) == 0)
		journey_end(j); /* its connection has broken */
	else
		timer_start(j->stage == GOING ? sim_reactor(j->store->machine) : j->request.store->reactor, &j->timer,
			    way_ns(s));
}

/* ---- lanes ---- */

static void lane_depart(struct lane *l)
{
	struct store_client *c = l->client;
	if (l->asked || list_is_empty(&l->line))
		return;
	l->asked = container_of(list_pop(&l->line), struct metadata_request, link);
	l->journey = journey_begin(l, l->asked);
	timer_start(c->base.reactor, &l->limit, TIMEOUT_NS);
}

static void lane_answer(struct lane *l, int res)
{
	struct metadata_request *q = l->asked;
	timer_stop(l->client->base.reactor, &l->limit);
	l->asked = NULL;
	lane_depart(l);
	metadata_answer(&l->client->base, q, res); /* its owner may close the client */
}

static void lane_late(struct timer *t)
{
	struct lane *l = container_of(t, struct lane, limit);
	struct journey *j = l->journey;
	l->journey = NULL;
	journey_orphan(j);
	lane_answer(l, -ETIMEDOUT);
}

static void lane_init(struct lane *l, struct store_client *c)
{
	l->client = c;
	list_init(&l->line);
	timer_init(&l->limit, lane_late);
}

/* ---- news ---- */

static void news_free(struct news *n)
{
	free(n->item.key);
	free(n->item.value);
	free(n);
}

/* All that has arrived, and what is of this revision or an older one. */
static void client_tell(struct store_client *c, uint64_t revision)
{
	uint64_t now_ns = sim_now_ns(c->store->sim);
	if (c->store->is_blocked[c->node][STORE_FROM])
		return;
	while (!list_is_empty(&c->news)) {
		struct news *n = container_of(c->news.next, struct news, link);
		if (n->at_ns > now_ns && n->item.revision > revision)
			break;
		list_remove(&n->link);
		metadata_tell(&c->base, &n->item);
		news_free(n);
	}
	timer_stop(c->base.reactor, &c->news_timer);
	if (list_is_empty(&c->news))
		return;
	const struct news *next = container_of(c->news.next, struct news, link);
	timer_start(c->base.reactor, &c->news_timer, next->at_ns > now_ns ? next->at_ns - now_ns : 0);
}

static void client_news_due(struct timer *t)
{
	client_tell(container_of(t, struct store_client, news_timer), 0);
}

static void store_changed(struct metadata_watch *w, const struct metadata_item *item)
{
	struct cluster_store *store = container_of(w, struct cluster_store, watch);
	list_each (node, &store->clients) {
		struct store_client *c = container_of(node, struct store_client, link);
		struct news *n = calloc(1, sizeof(*n));
		quarry_assert(n);
		n->item =
		    (struct metadata_item){text_copy(item->key), text_copy(item->value), item->revision, item->lease};
		n->at_ns = sim_now_ns(store->sim) + way_ns(store->sim);
		const struct news *last =
		    list_is_empty(&c->news) ? NULL : container_of(c->news.prev, struct news, link);
		if (last && last->item.revision == item->revision) /* what one transaction has changed comes together */
			n->at_ns = last->at_ns;
		else if (last)
			n->at_ns = max_u64(n->at_ns, last->at_ns);
		list_append(&c->news, &n->link);
		if (!timer_is_running(&c->news_timer))
			timer_start(c->base.reactor, &c->news_timer, n->at_ns - sim_now_ns(store->sim));
	}
}

static void client_forget_news(struct store_client *c)
{
	for (struct list *node; (node = list_pop(&c->news)) != NULL;)
		news_free(container_of(node, struct news, link));
}

void cluster_store_forget_news(struct cluster_store *store, uint32_t node)
{
	list_each (at, &store->clients) {
		struct store_client *c = container_of(at, struct store_client, link);
		if (c->node != node || list_is_empty(&c->news))
			continue;
		client_forget_news(c);
		metadata_inbox_lost(&c->base);
	}
}

/* ---- clients ---- */

static void client_submit(struct metadata *m, struct metadata_request *q)
{
	struct store_client *c = client_of(m);
	struct lane *l = q->op == METADATA_KEEP ? &c->keep : &c->call;
	list_append(&l->line, &q->link);
	lane_depart(l);
}

static void client_free(struct store_client *c)
{
	client_forget_news(c);
	list_remove(&c->link);
	metadata_fini(&c->base);
	free(c);
}

static void client_close(struct metadata *m)
{
	struct store_client *c = client_of(m);
	quarry_assert(!c->call.asked && !c->keep.asked && list_is_empty(&c->call.line));
	timer_stop(m->reactor, &c->news_timer);
	client_free(c);
}

static const struct metadata_ops client_ops = {.submit = client_submit, .close = client_close};

struct store_client *store_client_open(struct cluster_store *store, uint32_t node, struct reactor *r)
{
	struct store_client *c = calloc(1, sizeof(*c));
	quarry_assert(c && node < STORE_NODES_MAX);
	int res = metadata_init(&c->base, &client_ops, r);
	quarry_assert(res == 0);
	c->store = store;
	c->node = node;
	lane_init(&c->call, c);
	lane_init(&c->keep, c);
	list_init(&c->news);
	timer_init(&c->news_timer, client_news_due);
	list_init(&c->link);
	list_append(&store->clients, &c->link);
	return c;
}

struct metadata *store_client_metadata(struct store_client *c)
{
	return &c->base;
}

void store_client_crash(struct store_client *c)
{
	if (c->call.journey)
		journey_orphan(c->call.journey);
	if (c->keep.journey)
		journey_orphan(c->keep.journey);
	metadata_inbox_forget(&c->base);
	client_free(c);
}

/* ---- the store ---- */

struct cluster_store *cluster_store_open(struct sim *s)
{
	struct cluster_store *store = calloc(1, sizeof(*store));
	quarry_assert(store);
	store->sim = s;
	store->machine = sim_machine_create(s, "store");
	list_init(&store->clients);
	list_init(&store->journeys);
	int res = metadata_open_memory(sim_reactor(store->machine), &store->memory);
	quarry_assert(res == 0);
	store->watch = (struct metadata_watch){.prefix = "", .changed = store_changed};
	metadata_watch_start(store->memory, &store->watch);
	return store;
}

struct metadata *cluster_store_memory(struct cluster_store *store)
{
	return store->memory;
}

void cluster_store_close(struct cluster_store *store)
{
	quarry_assert(list_is_empty(&store->clients));
	list_each_safe (node, &store->journeys) {
		struct journey *j = container_of(node, struct journey, link);
		quarry_assert(j->stage != AT_STORE);
		timer_stop(sim_reactor(store->machine), &j->timer);
		journey_end(j);
	}
	metadata_watch_stop(store->memory, &store->watch);
	metadata_close(store->memory);
	free(store);
}

bool cluster_store_is_blocked(const struct cluster_store *store, uint32_t node, enum store_way way)
{
	return store->is_blocked[node][way];
}

void cluster_store_block(struct cluster_store *store, uint32_t node, enum store_way way, bool is_blocked)
{
	quarry_assert(node < STORE_NODES_MAX);
	store->is_blocked[node][way] = is_blocked;
	if (is_blocked)
		return;
	list_each_safe (at, &store->journeys) {
		struct journey *j = container_of(at, struct journey, link);
		if (j->is_held && j->node == node && way == (j->stage == GOING ? STORE_TO : STORE_FROM))
			journey_release(j);
	}
	list_each (at, &store->clients) {
		struct store_client *c = container_of(at, struct store_client, link);
		if (c->node == node && way == STORE_FROM && !list_is_empty(&c->news))
			timer_start(c->base.reactor, &c->news_timer, 0);
	}
}
