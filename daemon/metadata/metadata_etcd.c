/*
 * metadata_etcd.c: the metadata store in etcd: opening, the thread, closing.
 *
 *   reactor: submit --queue--> thread: call lane, keep lane --message--> reactor: done()
 *                              thread: watch ----------------inbox-----> reactor: changed()
 *
 * Invariants
 *  1. Everything of curl's belongs to the thread, and to the opener before that runs.
 *  2. A key of the store is PREFIX/KEY in etcd; nothing outside the prefix is read or written.
 *  3. A request is in one lane: KEEP in the keep lane, the others in the call lane; each lane has one at a time, so their
 *     order is that of submission.
 *  4. What was posted before an answer was told before it: both come from the one thread, in order.
 *
 * Ownership: the queues and is_stopping belong to the mutex; the rest to the thread.
 */
#include "daemon/metadata/etcd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WAIT_MAX_MS 1000 /* a bound of every sleep, so that a lost wake-up costs no more */

_Static_assert(ETCD_ENDPOINTS_MAX == array_size(((struct metadata_etcd_options *)0)->endpoints),
	       "as many as can be told");

static struct etcd_store *store_of(struct metadata *m)
{
	return container_of(m, struct etcd_store, base);
}

uint64_t etcd_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / NS_PER_MS;
}

/* ---- the thread ---- */

/* One turn: what has come, what can go on, then sleep. Returns a request that was run by hand. */
static struct metadata_request *store_turn(struct etcd_store *s)
{
	int n_running;
	curl_multi_perform(s->multi, &n_running);
	etcd_transfers_collect(s);
	if (s->has_thread)
		etcd_watch_run(&s->watch);
	struct metadata_request *by_hand = etcd_lane_run(&s->call);
	if (by_hand)
		return by_hand;
	if (s->has_thread)
		(void)etcd_lane_run(&s->keep);
	uint64_t now_ms = etcd_now_ms(), wakes_ms = now_ms + WAIT_MAX_MS;
	wakes_ms = min_u64(wakes_ms, etcd_lane_wakes_ms(&s->call));
	wakes_ms = min_u64(wakes_ms, etcd_lane_wakes_ms(&s->keep));
	if (s->has_thread)
		wakes_ms = min_u64(wakes_ms, etcd_watch_wakes_ms(&s->watch));
	/* A transfer that was just started is performed at once: curl says so by its own time-out. */
	curl_multi_poll(s->multi, NULL, 0, wakes_ms > now_ms ? (int)(wakes_ms - now_ms) : 0, NULL);
	return NULL;
}

static bool store_is_stopping(struct etcd_store *s)
{
	pthread_mutex_lock(&s->mutex);
	bool is_stopping = s->is_stopping;
	pthread_mutex_unlock(&s->mutex);
	return is_stopping;
}

static void *store_thread(void *context)
{
	struct etcd_store *s = context;
	while (!store_is_stopping(s))
		(void)store_turn(s);
	return NULL;
}

/* ---- the store's calls, on the reactor ---- */

static void store_submit(struct metadata *m, struct metadata_request *q)
{
	struct etcd_store *s = store_of(m);
	struct etcd_lane *lane = q->op == METADATA_KEEP ? &s->keep : &s->call;
	pthread_mutex_lock(&s->mutex);
	quarry_assert(!s->is_stopping);
	list_append(&lane->queue, &q->link);
	pthread_mutex_unlock(&s->mutex);
	curl_multi_wakeup(s->multi);
}

static void store_destroy(struct etcd_store *s)
{
	etcd_lane_fini(&s->call);
	etcd_lane_fini(&s->keep);
	etcd_watch_fini(&s->watch);
	if (s->multi)
		curl_multi_cleanup(s->multi);
	pthread_mutex_destroy(&s->mutex);
	for (uint32_t i = 0; i < s->n_endpoints; i++)
		free(s->endpoints[i]);
	free(s->prefix);
	free(s->ca_file);
	free(s->cert_file);
	free(s->key_file);
	free(s->user);
	free(s->password);
	free(s->token);
	metadata_fini(&s->base);
	free(s);
}

static void store_close(struct metadata *m)
{
	struct etcd_store *s = store_of(m);
	pthread_mutex_lock(&s->mutex);
	quarry_assert(list_is_empty(&s->call.queue) && list_is_empty(&s->keep.queue));
	s->is_stopping = true;
	pthread_mutex_unlock(&s->mutex);
	curl_multi_wakeup(s->multi);
	if (s->has_thread)
		pthread_join(s->thread, NULL);
	store_destroy(s);
}

static const struct metadata_ops store_ops = {.submit = store_submit, .close = store_close};

/* ---- open ---- */

/* A copy of what is set; false: no memory. */
static bool copy(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return *to || !from;
}

/* Everything that curl will be asked for. 0 or -errno. */
static int store_prepare(struct etcd_store *s, const struct metadata_etcd_options *o)
{
	bool enough = copy(&s->prefix, o->prefix) && copy(&s->ca_file, o->ca_file) &&
		      copy(&s->cert_file, o->cert_file) && copy(&s->key_file, o->key_file) && copy(&s->user, o->user) &&
		      copy(&s->password, o->password);
	for (uint32_t i = 0; i < o->n_endpoints && enough; i++) {
		enough = copy(&s->endpoints[i], o->endpoints[i]);
		s->n_endpoints += enough;
		/* "http://host:2379/" is the same as without the slash */
		size_t len = enough ? strlen(s->endpoints[i]) : 0;
		if (len > 0 && s->endpoints[i][len - 1] == '/')
			s->endpoints[i][len - 1] = '\0';
	}
	size_t prefix_len = enough ? strlen(s->prefix) : 0;
	while (prefix_len > 0 && s->prefix[prefix_len - 1] == '/')
		s->prefix[--prefix_len] = '\0';
	if (!enough || !(s->multi = curl_multi_init()))
		return -ENOMEM;
	return 0;
}

/* The first answer of any endpoint: it is etcd, lets us in, and says where the watch begins. */
static int store_make_contact(struct etcd_store *s, char why[static METADATA_WHY_BYTES])
{
	struct metadata_request hello = {.op = METADATA_GET, .key = ""};
	list_init(&hello.link);
	list_append(&s->call.queue, &hello.link);
	quarry_assert(!s->has_thread);
	while (store_turn(s) != &hello)
		;
	metadata_request_clear(&hello);
	s->watch.seen_revision = hello.revision;
	if (hello.res == 0 || hello.res == -ENOENT)
		return 0;
	const char *what = hello.res == -EACCES ? "etcd does not let us in" : "no endpoint of etcd answers";
	snprintf(why, METADATA_WHY_BYTES, "%s: %.150s", what, s->call.error);
	return hello.res == -ETIMEDOUT ? -EHOSTUNREACH : hello.res;
}

int metadata_open_etcd(struct reactor *r, struct log *log, const struct metadata_etcd_options *o,
		       char why[static METADATA_WHY_BYTES], struct metadata **out)
{
	quarry_assert(o->n_endpoints > 0 && o->n_endpoints <= ETCD_ENDPOINTS_MAX);
	quarry_assert(o->prefix && !o->user == !o->password);
	struct etcd_store *s = calloc(1, sizeof(*s));
	snprintf(why, METADATA_WHY_BYTES, "no memory for the metadata store");
	if (!s || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || metadata_init(&s->base, &store_ops, r) < 0) {
		free(s);
		return -ENOMEM;
	}
	s->log = log;
	pthread_mutex_init(&s->mutex, NULL);
	int res = store_prepare(s, o);
	if (res == 0)
		res = etcd_lane_init(&s->call, s);
	if (res == 0)
		res = etcd_lane_init(&s->keep, s);
	if (res == 0)
		res = etcd_watch_init(&s->watch, s);
	if (res == 0)
		res = store_make_contact(s, why);
	if (res == 0) {
		s->has_thread = true; /* before it runs: it looks */
		res = -pthread_create(&s->thread, NULL, store_thread, s);
		if (res < 0)
			s->has_thread = false; /* else it is the thread's to read */
	}
	if (res < 0) {
		store_destroy(s);
		return res;
	}
	*out = &s->base;
	return 0;
}
