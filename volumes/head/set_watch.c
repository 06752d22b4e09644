/*
 * set_watch.c: what other nodes change in the store comes into this node's copies.
 *
 *   watch -> news (a list) -> between two commands: into the copies, one after the other
 *                   missed -> between two commands: all is read again
 *
 * A command relies on the copies from its first stage to its last, so nothing is taken in while one is carried out.
 * What this node itself has changed comes by the watch as well, and is no news: the copies have its revision already.
 *
 * Invariants
 *  1. News are applied in the order of the changes, and none before the set has been loaded once.
 *  2. The copies are as new as the store was a moment ago, or is_missed is set and they will be read again.
 *
 * Owner: the set. Without a cluster there is no watch, for nobody else changes anything; but what this node has missed of its
 * own is read again in the same way.
 */
#include "volumes/head/head_internal.h"

#include <stdlib.h>
#include <string.h>

#define WATCH_RETRY_NS NS_PER_S /* after the store could not be read */
#define NEWS_MAX       4096u    /* that wait for a command to end; with more it is cheaper to read all again */

struct set_news {
	struct list link;
	struct metadata_item item;
};

static void news_free(struct set_news *n)
{
	free(n->item.key);
	free(n->item.value);
	free(n);
}

static void news_forget(struct set_watch *w)
{
	for (struct list *node; (node = list_pop(&w->news)) != NULL;)
		news_free(container_of(node, struct set_news, link));
	w->n_news = 0;
}

static struct volume_set *set_of(struct metadata_watch *w)
{
	return container_of(w, struct volume_set, watch.watch);
}

/* Keys that no copy is kept of. */
static bool news_is_of_no_copy(const char *key)
{
	static const char *const prefixes[] = {"placement/", "volume-names/", "leases/", "nodes/"};
	for (size_t i = 0; i < array_size(prefixes); i++)
		if (strncmp(key, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

void set_watch_missed(struct volume_set *s)
{
	s->watch.is_missed = true;
	commands_wake(s);
}

static void watch_lost(struct metadata_watch *w)
{
	set_watch_missed(set_of(w));
}

static void watch_changed(struct metadata_watch *w, const struct metadata_item *item)
{
	struct volume_set *s = set_of(w);
	if (news_is_of_no_copy(item->key) || s->watch.is_missed)
		return; /* the second: it will be in what is read */
	struct set_news *n = s->watch.n_news < NEWS_MAX ? calloc(1, sizeof(*n)) : NULL;
	if (n) {
		list_init(&n->link);
		n->item = (struct metadata_item){.revision = item->revision, .key = strdup(item->key)};
		n->item.value = item->value ? strdup(item->value) : NULL;
	}
	if (n && n->item.key && (n->item.value || !item->value)) {
		list_append(&s->watch.news, &n->link);
		s->watch.n_news++;
	} else {
		if (n)
			news_free(n);
		s->watch.is_missed = true;
	}
	commands_wake(s);
}

/* The lists do not say what has been removed, the copies do. */
static void watch_take_out(struct volume_set *s)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (s->disks[i] && s->disks[i]->facts.is_removed && s->disks[i]->state != SET_DISK_REMOVED)
			set_disk_take_out(s->disks[i]);
}

static void watch_loaded(struct set_load *l, int res)
{
	struct volume_set *s = l->context;
	quarry_assert(s->watch.is_loading && s->watch.load == l);
	s->watch.is_loading = false;
	s->watch.load = NULL;
	free(l);
	if (res == 0) {
		watch_take_out(s);
		if (!s->watch.is_missed) /* else what was read may be from before the lease */
			set_lease_sure(s);
		reaps_look(s);
		drains_look(s);
		takeovers_look(s);
		schedules_plan(s);
		commands_wake(s);
	} else {
		s->watch.is_missed = true;
		timer_start(s->reactor, &s->watch.wait, WATCH_RETRY_NS);
	}
	if (s->is_stopping)
		commands_wake(s);
}

static void watch_wait_over(struct timer *t)
{
	commands_wake(container_of(t, struct volume_set, watch.wait));
}

/* What was told before is in what is read now. */
static enum flow watch_reload(struct volume_set *s)
{
	struct set_watch *w = &s->watch;
	if (timer_is_running(&w->wait))
		return FLOW_NEXT; /* commands go on with what is known: the store decides */
	w->load = calloc(1, sizeof(*w->load));
	if (!w->load) {
		timer_start(s->reactor, &w->wait, WATCH_RETRY_NS);
		return FLOW_NEXT;
	}
	w->is_missed = false;
	w->is_loading = true;
	news_forget(w);
	set_load_start(w->load, s, watch_loaded, s);
	return FLOW_WAIT;
}

enum flow set_watch_settle(struct volume_set *s)
{
	struct set_watch *w = &s->watch;
	if (s->start || s->is_stopping)
		return FLOW_NEXT;
	if (w->is_loading)
		return FLOW_WAIT;
	if (w->is_missed && watch_reload(s) == FLOW_WAIT)
		return FLOW_WAIT;
	if (list_is_empty(&w->news))
		return FLOW_NEXT;
	for (struct list *node; (node = list_pop(&w->news)) != NULL;) {
		struct set_news *n = container_of(node, struct set_news, link);
		set_load_apply(s, &n->item);
		news_free(n);
	}
	w->n_news = 0;
	reaps_look(s);
	drains_look(s);
	takeovers_look(s);
	schedules_plan(s);
	return FLOW_NEXT;
}

void set_watch_start(struct volume_set *s)
{
	list_init(&s->watch.news);
	timer_init(&s->watch.wait, watch_wait_over);
	s->watch.watch = (struct metadata_watch){.prefix = "", .changed = watch_changed, .lost = watch_lost};
	if (s->members)
		metadata_watch_start(s->metadata, &s->watch.watch);
}

bool set_watch_stop(struct volume_set *s)
{
	if (s->watch.is_loading)
		return false;
	if (s->members && list_is_linked(&s->watch.watch.link))
		metadata_watch_stop(s->metadata, &s->watch.watch);
	timer_stop(s->reactor, &s->watch.wait);
	news_forget(&s->watch);
	return true;
}

void set_watch_abandon(struct volume_set *s)
{
	if (s->watch.load)
		metadata_request_clear(&s->watch.load->request);
	free(s->watch.load);
	news_forget(&s->watch);
}
