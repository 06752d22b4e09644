/*
 * metadata_rules.c: the rules of metadata.h, the same for every store. Each step submits a request and runs the reactor
 * until it is answered.
 */
#include "tests/unit/metadata_rules.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a store and what is asked of it ---- */

void asked_done(struct metadata_request *q, int res)
{
	struct asked *a = container_of(q, struct asked, q);
	a->res = res;
	a->n_done++;
	reactor_stop(a->reactor);
}

void bench_start(struct bench *b)
{
	memset(b, 0, sizeof(*b));
	snprintf(b->folder, sizeof(b->folder), "%s", "/tmp/quarry-test-XXXXXX");
	if (!mkdtemp(b->folder) || reactor_create(&(struct reactor_options){0}, &b->reactor) < 0 ||
	    log_create(-1, LOG_ERROR, &b->log) < 0)
		abort();
	snprintf(b->path, sizeof(b->path), "%s/metadata.db", b->folder);
}

void bench_end(struct bench *b)
{
	static const char *const suffixes[] = {"", "-lock", "-wal", "-shm", "-journal"};
	char path[96];
	if (b->store)
		metadata_close(b->store);
	wait_ns(b, 0); /* what the store's thread had posted is delivered */
	log_destroy(b->log);
	reactor_destroy(b->reactor);
	for (size_t i = 0; i < array_size(suffixes); i++) {
		snprintf(path, sizeof(path), "%s%s", b->path, suffixes[i]);
		unlink(path);
	}
	CU_ASSERT_EQUAL(rmdir(b->folder), 0);
}

int ask(struct bench *b, struct asked *a)
{
	a->q.done = asked_done;
	a->reactor = b->reactor;
	a->n_done = 0;
	metadata_submit(b->store, &a->q);
	CU_ASSERT_EQUAL(a->n_done, 0); /* never answered inline */
	while (a->n_done == 0)
		reactor_run(b->reactor);
	return a->res;
}

/* The value's revision; 0 when the key does not exist or has another value. */
uint64_t revision_of(struct bench *b, const char *key, const char *value)
{
	struct asked a = {.q = {.op = METADATA_GET, .key = key}};
	uint64_t revision = 0;
	if (ask(b, &a) == 0) {
		CU_ASSERT_EQUAL_FATAL(a.q.n_items, 1);
		CU_ASSERT_STRING_EQUAL(a.q.items[0].key, key);
		if (strcmp(a.q.items[0].value, value) == 0)
			revision = a.q.items[0].revision;
	}
	metadata_request_clear(&a.q);
	return revision;
}

int put_if(struct bench *b, const char *key, const char *value, uint64_t revision)
{
	struct asked a = {.q = {.op = METADATA_TRANSACT, .n_conditions = 1, .n_changes = 1}};
	a.q.conditions[0] = (struct metadata_condition){key, revision};
	a.q.changes[0] = (struct metadata_change){.key = key, .value = value};
	return ask(b, &a);
}

/* The revision it got, 0 on failure. */
uint64_t put(struct bench *b, const char *key, const char *value)
{
	struct asked a = {.q = {.op = METADATA_TRANSACT, .n_changes = 1}};
	a.q.changes[0] = (struct metadata_change){.key = key, .value = value};
	return ask(b, &a) == 0 ? a.q.revision : 0;
}

/* ---- rules for every store ---- */

static void rule_get_and_put(struct bench *b)
{
	struct asked missing = {.q = {.op = METADATA_GET, .key = "volumes/none"}};
	CU_ASSERT_EQUAL(ask(b, &missing), -ENOENT);
	CU_ASSERT_EQUAL(missing.q.n_items, 0);
	uint64_t first = put(b, "pools/a", "{\"n\":1}");
	CU_ASSERT(first > 0);
	CU_ASSERT_EQUAL(revision_of(b, "pools/a", "{\"n\":1}"), first);
	uint64_t second = put(b, "pools/a", "{\"n\":2}");
	CU_ASSERT_EQUAL(second, first + 1);
	CU_ASSERT_EQUAL(revision_of(b, "pools/a", "{\"n\":2}"), second);
	CU_ASSERT_EQUAL(put(b, "pools/a", NULL), second + 1);
	CU_ASSERT_EQUAL(ask(b, &missing), -ENOENT);
	CU_ASSERT_EQUAL(revision_of(b, "pools/a", "{\"n\":2}"), 0);
}

static void rule_list_has_prefix_and_order(struct bench *b)
{
	put(b, "list/b", "2");
	put(b, "list/a", "1");
	put(b, "list/ab", "3");
	put(b, "list0", "outside");
	put(b, "lisu", "outside");
	struct asked a = {.q = {.op = METADATA_LIST, .key = "list/"}};
	CU_ASSERT_EQUAL(ask(b, &a), 0);
	CU_ASSERT_EQUAL_FATAL(a.q.n_items, 3);
	CU_ASSERT_STRING_EQUAL(a.q.items[0].key, "list/a");
	CU_ASSERT_STRING_EQUAL(a.q.items[1].key, "list/ab");
	CU_ASSERT_STRING_EQUAL(a.q.items[2].key, "list/b");
	CU_ASSERT_STRING_EQUAL(a.q.items[2].value, "2");
	CU_ASSERT(a.q.items[2].revision < a.q.items[0].revision);
	CU_ASSERT(a.q.revision >= a.q.items[1].revision);
	metadata_request_clear(&a.q);
	struct asked none = {.q = {.op = METADATA_LIST, .key = "nothing/"}};
	CU_ASSERT_EQUAL(ask(b, &none), 0);
	CU_ASSERT_EQUAL(none.q.n_items, 0);
}

static void rule_conditions(struct bench *b)
{
	CU_ASSERT_EQUAL(put_if(b, "c", "first", 0), 0);
	uint64_t revision = revision_of(b, "c", "first");
	CU_ASSERT_EQUAL(put_if(b, "c", "again", 0), -EAGAIN);            /* it exists */
	CU_ASSERT_EQUAL(put_if(b, "c", "again", revision + 1), -EAGAIN); /* another revision */
	CU_ASSERT_EQUAL(put_if(b, "other", "x", revision), -EAGAIN);     /* does not exist */
	CU_ASSERT_EQUAL(revision_of(b, "c", "first"), revision);
	CU_ASSERT_EQUAL(put_if(b, "c", "second", revision), 0);
	CU_ASSERT_EQUAL(put_if(b, "c", "third", revision), -EAGAIN); /* a resent request does not act twice */
	CU_ASSERT(revision_of(b, "c", "second") > revision);
	/* Deleted and made again, a key never gets a revision it had before. */
	put(b, "c", NULL);
	CU_ASSERT_EQUAL(put_if(b, "c", "first", 0), 0);
	CU_ASSERT(revision_of(b, "c", "first") > revision + 1);
}

static void rule_all_or_nothing(struct bench *b)
{
	struct asked a = {.q = {.op = METADATA_TRANSACT, .n_conditions = 2, .n_changes = 3}};
	uint64_t kept = put(b, "atom/kept", "old"), gone = put(b, "atom/gone", "old");
	a.q.conditions[0] = (struct metadata_condition){"atom/kept", kept};
	a.q.conditions[1] = (struct metadata_condition){"atom/gone", gone + 1};
	a.q.changes[0] = (struct metadata_change){.key = "atom/kept", .value = "new"};
	a.q.changes[1] = (struct metadata_change){.key = "atom/gone", .value = NULL};
	a.q.changes[2] = (struct metadata_change){.key = "atom/made", .value = "new"};
	CU_ASSERT_EQUAL(ask(b, &a), -EAGAIN);
	CU_ASSERT_EQUAL(revision_of(b, "atom/kept", "old"), kept);
	CU_ASSERT_EQUAL(revision_of(b, "atom/gone", "old"), gone);
	CU_ASSERT_EQUAL(revision_of(b, "atom/made", "new"), 0);
	a.q.conditions[1].revision = gone;
	CU_ASSERT_EQUAL(ask(b, &a), 0);
	CU_ASSERT_EQUAL(a.q.revision, gone + 1);
	CU_ASSERT_EQUAL(revision_of(b, "atom/kept", "new"), gone + 1);
	CU_ASSERT_EQUAL(revision_of(b, "atom/gone", "old"), 0);
	CU_ASSERT_EQUAL(revision_of(b, "atom/made", "new"), gone + 1);
}

static void rule_only_conditions(struct bench *b)
{
	uint64_t revision = put(b, "guard", "x");
	struct asked a = {.q = {.op = METADATA_TRANSACT, .n_conditions = 1}};
	a.q.conditions[0] = (struct metadata_condition){"guard", revision};
	CU_ASSERT_EQUAL(ask(b, &a), 0);
	CU_ASSERT_EQUAL(a.q.revision, revision);
	CU_ASSERT_EQUAL(put(b, "guard", "y"), revision + 1);
	CU_ASSERT_EQUAL(ask(b, &a), -EAGAIN);
}

static void rule_values_of_any_size(struct bench *b)
{
	size_t len = 300 * 1024;
	char *value = malloc(len + 1);
	CU_ASSERT_PTR_NOT_NULL_FATAL(value);
	for (size_t i = 0; i < len; i++)
		value[i] = (char)('a' + i % 26);
	value[len] = '\0';
	CU_ASSERT(put(b, "large", value) > 0);
	CU_ASSERT(revision_of(b, "large", value) > 0);
	CU_ASSERT(put(b, "empty", "") > 0);
	CU_ASSERT(revision_of(b, "empty", "") > 0);
	CU_ASSERT(put(b, "quote's\" -- \xc3\xa4", "'; DROP TABLE item; --") > 0);
	CU_ASSERT(revision_of(b, "quote's\" -- \xc3\xa4", "'; DROP TABLE item; --") > 0);
	free(value);
}

/* Requests are carried out in the order of submission, without waiting for answers. */
static void rule_order(struct bench *b)
{
	struct asked puts[20] = {0}, get = {.q = {.op = METADATA_GET, .key = "order"}};
	char values[20][12];
	for (int i = 0; i < 20; i++) {
		snprintf(values[i], sizeof(values[i]), "%d", i);
		puts[i].reactor = b->reactor;
		puts[i].q.op = METADATA_TRANSACT;
		puts[i].q.n_changes = 1;
		puts[i].q.changes[0] = (struct metadata_change){.key = "order", .value = values[i]};
		puts[i].q.done = asked_done;
		metadata_submit(b->store, &puts[i].q);
	}
	CU_ASSERT_EQUAL(ask(b, &get), 0);
	CU_ASSERT_STRING_EQUAL(get.q.items[0].value, "19");
	for (int i = 0; i < 20; i++) {
		CU_ASSERT_EQUAL(puts[i].n_done, 1);
		CU_ASSERT_EQUAL(puts[i].q.revision, puts[0].q.revision + (unsigned)i);
	}
	metadata_request_clear(&get.q);
}

void watcher_changed(struct metadata_watch *w, const struct metadata_item *item)
{
	struct watcher *watcher = container_of(w, struct watcher, watch);
	size_t used = strlen(watcher->seen);
	snprintf(watcher->seen + used, sizeof(watcher->seen) - used, "%s=%s ", item->key,
		 item->value ? item->value : "(gone)");
	CU_ASSERT(item->revision >= watcher->revision);
	watcher->revision = item->revision;
}

static void rule_watches(struct bench *b)
{
	struct watcher w = {.watch = {.prefix = "w/", .changed = watcher_changed}};
	put(b, "w/before", "0");
	metadata_watch_start(b->store, &w.watch);
	put(b, "w/a", "1");
	put(b, "elsewhere", "1");
	put_if(b, "w/a", "refused", 0);
	put(b, "w/never-was", NULL);
	put(b, "w/a", "2");
	put(b, "w/before", NULL);
	metadata_watch_stop(b->store, &w.watch);
	put(b, "w/a", "3");
	CU_ASSERT_STRING_EQUAL(w.seen, "w/a=1 w/a=2 w/before=(gone) ");
}

uint64_t grant(struct bench *b, uint64_t ttl_ns)
{
	struct asked a = {.q = {.op = METADATA_GRANT, .ttl_ns = ttl_ns}};
	CU_ASSERT_EQUAL_FATAL(ask(b, &a), 0);
	CU_ASSERT(a.q.lease != 0);
	CU_ASSERT(a.q.ttl_ns >= ttl_ns);
	return a.q.lease;
}

int ask_lease(struct bench *b, enum metadata_op op, uint64_t lease)
{
	struct asked a = {.q = {.op = op, .lease = lease}};
	int res = ask(b, &a);
	if (op == METADATA_KEEP && res == 0)
		CU_ASSERT(a.q.ttl_ns >= NS_PER_S);
	return res;
}

int put_leased(struct bench *b, const char *key, uint64_t lease)
{
	struct asked a = {.q = {.op = METADATA_TRANSACT, .n_changes = 1}};
	a.q.changes[0] = (struct metadata_change){.key = key, .value = "held", .lease = lease};
	return ask(b, &a);
}

static uint64_t lease_of(struct bench *b, const char *key)
{
	struct asked a = {.q = {.op = METADATA_GET, .key = key}};
	uint64_t lease = ask(b, &a) == 0 ? a.q.items[0].lease : 0;
	metadata_request_clear(&a.q);
	return lease;
}

/* Time passes on the reactor, and with it the store's. */
struct pause {
	struct timer timer;
	struct reactor *reactor;
	bool is_over;
};

static void pause_over(struct timer *t)
{
	struct pause *p = container_of(t, struct pause, timer);
	p->is_over = true;
	reactor_stop(p->reactor);
}

void wait_ns(struct bench *b, uint64_t ns)
{
	struct pause p = {.reactor = b->reactor};
	timer_init(&p.timer, pause_over);
	timer_start(b->reactor, &p.timer, ns);
	while (!p.is_over)
		reactor_run(b->reactor);
}

static void rule_lease_is_revoked(struct bench *b)
{
	struct watcher w = {.watch = {.prefix = "l/", .changed = watcher_changed}};
	uint64_t lease = grant(b, 60 * NS_PER_S), other = grant(b, 60 * NS_PER_S);
	CU_ASSERT(lease != other);
	metadata_watch_start(b->store, &w.watch);
	CU_ASSERT_EQUAL(put_leased(b, "l/a", lease), 0);
	CU_ASSERT_EQUAL(put_leased(b, "l/b", lease), 0);
	CU_ASSERT_EQUAL(put_leased(b, "l/other", other), 0);
	CU_ASSERT_EQUAL(put_leased(b, "l/taken", lease), 0);
	CU_ASSERT(put(b, "l/taken", "free") > 0); /* bound no more */
	CU_ASSERT_EQUAL(lease_of(b, "l/a"), lease);
	CU_ASSERT_EQUAL(lease_of(b, "l/taken"), 0);
	CU_ASSERT_EQUAL(ask_lease(b, METADATA_KEEP, lease), 0);
	CU_ASSERT_EQUAL(ask_lease(b, METADATA_REVOKE, lease), 0);
	CU_ASSERT_EQUAL(revision_of(b, "l/a", "held"), 0);
	CU_ASSERT_EQUAL(revision_of(b, "l/b", "held"), 0);
	CU_ASSERT(revision_of(b, "l/other", "held") > 0);
	CU_ASSERT(revision_of(b, "l/taken", "free") > 0);
	while (!strstr(w.seen, "l/b=(gone)"))
		wait_ns(b, NS_PER_MS);
	metadata_watch_stop(b->store, &w.watch);
	CU_ASSERT_STRING_EQUAL(w.seen,
			       "l/a=held l/b=held l/other=held l/taken=held l/taken=free l/a=(gone) l/b=(gone) ");
	CU_ASSERT_EQUAL(ask_lease(b, METADATA_KEEP, lease), -ENOENT);
	CU_ASSERT_EQUAL(ask_lease(b, METADATA_REVOKE, lease), -ENOENT);
	CU_ASSERT_EQUAL(put_leased(b, "l/late", lease), -ENOENT);
	CU_ASSERT_EQUAL(revision_of(b, "l/late", "held"), 0);
	CU_ASSERT_EQUAL(ask_lease(b, METADATA_REVOKE, other), 0);
}

/* Kept, it lasts; left alone, it ends, and its key with it; never before its time. */
static void rule_lease_runs_out(struct bench *b)
{
	struct watcher w = {.watch = {.prefix = "t/", .changed = watcher_changed}};
	uint64_t before_ns = reactor_now_ns(b->reactor), lease = grant(b, NS_PER_S);
	metadata_watch_start(b->store, &w.watch);
	CU_ASSERT_EQUAL(put_leased(b, "t/a", lease), 0);
	for (int i = 0; i < 4; i++) {
		wait_ns(b, NS_PER_S / 2);
		before_ns = reactor_now_ns(b->reactor);
		CU_ASSERT_EQUAL(ask_lease(b, METADATA_KEEP, lease), 0);
	}
	CU_ASSERT(revision_of(b, "t/a", "held") > 0);
	while (!strstr(w.seen, "(gone)"))
		wait_ns(b, 10 * NS_PER_MS);
	metadata_watch_stop(b->store, &w.watch);
	CU_ASSERT(reactor_now_ns(b->reactor) - before_ns >= NS_PER_S);
	CU_ASSERT_STRING_EQUAL(w.seen, "t/a=held t/a=(gone) ");
	CU_ASSERT_EQUAL(revision_of(b, "t/a", "held"), 0);
	CU_ASSERT_EQUAL(ask_lease(b, METADATA_KEEP, lease), -ENOENT);
}

void rules(struct bench *b)
{
	rule_get_and_put(b);
	rule_list_has_prefix_and_order(b);
	rule_conditions(b);
	rule_all_or_nothing(b);
	rule_only_conditions(b);
	rule_values_of_any_size(b);
	rule_order(b);
	rule_watches(b);
	rule_lease_is_revoked(b);
	rule_lease_runs_out(b);
}
