/*
 * etcd_watch.c: what changes in etcd, told to the watches of this process.
 *
 *   REST -> (LOGIN) -> STREAM -> REST ...        a stream is one HTTP answer that goes on, a line for each batch
 *
 * Invariants
 *  1. seen_revision is the last one whose changes all have been told; a stream begins right after it, so nothing is
 *     told twice or left out, however often it breaks.
 *  2. Only when etcd has compacted what follows seen_revision are changes missed; then the watches are told so, and it
 *     goes on with the oldest that is left.
 *  3. One batch has all changes of its revisions: the last change's revision is the new seen_revision. (The header's may
 *     be ahead of it.)
 *
 * Owner: the store's thread.
 */
#include "daemon/metadata/etcd_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REST_MS 200 /* before a stream that ended begins anew */

static void watch_grown(struct etcd_transfer *t);

int etcd_watch_init(struct etcd_watch *w, struct etcd_store *s)
{
	*w = (struct etcd_watch){.store = s};
	int res = etcd_transfer_init(&w->transfer, s);
	if (res == 0)
		w->transfer.grown = watch_grown;
	return res;
}

void etcd_watch_fini(struct etcd_watch *w)
{
	etcd_transfer_fini(&w->transfer);
}

/* All changes of one line; etcd sends those of one transaction in one. 0, -EBADMSG: the stream is not to be trusted any more;
 * -ENOMEM. */
static int watch_tell(struct etcd_watch *w, const struct etcd_news *news)
{
	size_t n_events = json_array_size(news->events), n = 0;
	struct metadata_item *items = calloc(n_events ? n_events : 1, sizeof(*items));
	uint64_t seen = w->seen_revision;
	int res = items ? 0 : -ENOMEM;
	for (size_t i = 0; i < n_events && res == 0; i++) {
		res = etcd_read_event(json_array_get(news->events, i), w->store->prefix, &items[n]);
		if (res < 0)
			break;
		seen = max_u64(seen, items[n].revision);
		if (items[n].revision > w->seen_revision) {
			n++;
			continue;
		}
		free(items[n].key);
		free(items[n].value);
	}
	if (res == 0 && n > 0)
		metadata_inbox_changed(&w->store->base, items, n);
	for (size_t i = 0; i < n; i++) {
		free(items[i].key);
		free(items[i].value);
	}
	free(items);
	w->seen_revision = res == 0 ? seen : w->seen_revision;
	return res < 0 ? res : 0;
}

static void watch_missed(struct etcd_watch *w, uint64_t compact_revision)
{
	log_event(
	    w->store->log, LOG_WARNING, "metadata-missed", w->store->prefix,
	    "changes of the metadata store were compacted before this node could read them: it reads everything again");
	metadata_inbox_lost(&w->store->base);
	w->seen_revision = max_u64(w->seen_revision, compact_revision - 1);
}

/* One line. 0, or -errno: begin anew. */
static int watch_line(struct etcd_watch *w, const char *line, size_t len)
{
	struct etcd_news news;
	const char *text;
	json_error_t error;
	json_t *json = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	int res = -EBADMSG;
	if (json && etcd_read_error(json, &text) == ETCD_UNAUTHENTICATED)
		etcd_token_forget(w->store);
	else if (json && etcd_read_news(json, &news) == 0 && etcd_cluster_is_ours(&w->transfer, news.cluster_id)) {
		res = watch_tell(w, &news);
		if (res == 0 && news.is_canceled) {
			if (news.compact_revision > 0)
				watch_missed(w, news.compact_revision);
			else /* a member that was restarted does not know our token, and says so in this way only */
				etcd_token_forget(w->store);
			res = -ECANCELED;
		}
	}
	json_decref(json);
	return res;
}

/* More of the stream is there: its whole lines are read and forgotten. */
static void watch_grown(struct etcd_transfer *t)
{
	struct etcd_watch *w = container_of(t, struct etcd_watch, transfer);
	char *end;
	size_t at = 0;
	if (w->stage != WATCH_STREAM)
		return;
	while (!t->is_unwanted && (end = memchr(t->answer + at, '\n', t->len - at)) != NULL) {
		size_t len = (size_t)(end - t->answer) - at;
		t->is_unwanted = watch_line(w, t->answer + at, len) < 0;
		at += len + 1;
	}
	quarry_assert(at <= t->len);
	memmove(t->answer, t->answer + at, t->len - at);
	t->len -= at;
	t->answer[t->len] = '\0';
}

static void watch_rest(struct etcd_watch *w)
{
	w->stage = WATCH_REST;
	w->until_ms = etcd_now_ms() + REST_MS;
}

void etcd_watch_restart(struct etcd_watch *w)
{
	if (w->stage == WATCH_REST)
		return;
	etcd_transfer_stop(&w->transfer);
	watch_rest(w);
}

void etcd_watch_run(struct etcd_watch *w)
{
	struct etcd_store *s = w->store;
	switch (w->stage) {
	case WATCH_REST:
		if (etcd_now_ms() < w->until_ms)
			return;
		if (etcd_login_is_needed(s)) {
			w->stage = WATCH_LOGIN;
			etcd_login_start(&w->transfer);
		} else {
			w->stage = WATCH_STREAM;
			etcd_transfer_start(&w->transfer, "/v3/watch", etcd_watch_text(s->prefix, w->seen_revision + 1),
					    0);
		}
		return;
	case WATCH_LOGIN:
		if (!w->transfer.is_done)
			return;
		if (etcd_login_end(&w->transfer) == -EAGAIN)
			etcd_endpoint_failed(&w->transfer);
		watch_rest(w);
		w->until_ms = s->token ? 0 : w->until_ms;
		return;
	case WATCH_STREAM:
		if (!w->transfer.is_done)
			return;
		if (!w->transfer.is_unwanted && w->transfer.code != CURLE_OK) {
			json_decref(etcd_transfer_answer(&w->transfer)); /* the reason, for the log */
			etcd_endpoint_failed(&w->transfer);
		}
		watch_rest(w);
		return;
	}
}

uint64_t etcd_watch_wakes_ms(const struct etcd_watch *w)
{
	return w->stage == WATCH_REST ? w->until_ms : UINT64_MAX;
}
