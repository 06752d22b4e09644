/*
 * etcd_lane.c: requests of the metadata store, one after another, each through as many exchanges as it takes.
 *
 *   IDLE -> ASK -> EXCHANGE -> SETTLE -> ANSWER -> IDLE
 *            |  ^      |  (a page more; an endpoint that failed; a token that is not known any more)
 *         LOGIN +--- PAUSE
 *
 * Invariants
 *  1. A transaction with changes is sent again only when nothing of it can have reached a server, or a server has said
 *     that it did not carry it out. Else its outcome is unknown: -ETIMEDOUT, never a guess. (curl itself sends again when
 *     a kept connection turns out to be closed: a transaction may be doubled, as metadata.h says.)
 *  2. Everything else may be asked again, and is, of every endpoint, until the request's deadline.
 *  3. A list is of one revision, however many pages it has; when that was compacted meanwhile it begins anew.
 *  4. A transaction is answered after the watch has told of its changes, or could not for a second.
 *
 * Owner: the store's thread. A request is the caller's again with its message.
 */
#include "daemon/metadata/etcd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int etcd_lane_init(struct etcd_lane *l, struct etcd_store *s)
{
	*l = (struct etcd_lane){.store = s};
	list_init(&l->queue);
	return etcd_transfer_init(&l->transfer, s);
}

void etcd_lane_fini(struct etcd_lane *l)
{
	quarry_assert(!l->q);
	etcd_transfer_fini(&l->transfer);
}

static void lane_check(const struct etcd_lane *l)
{
	quarry_assert((l->stage == LANE_IDLE) == (l->q == NULL));
	quarry_assert(!l->transfer.is_running || l->stage == LANE_EXCHANGE || l->stage == LANE_LOGIN);
	quarry_assert(l->n_failed <= l->store->n_endpoints);
}

static bool lane_may_repeat(const struct metadata_request *q)
{
	return q->op != METADATA_TRANSACT || q->n_changes == 0;
}

static uint64_t lane_left_ms(const struct etcd_lane *l)
{
	uint64_t now_ms = etcd_now_ms();
	return l->deadline_ms > now_ms ? l->deadline_ms - now_ms : 0;
}

static enum flow lane_take(struct etcd_lane *l)
{
	struct etcd_store *s = l->store;
	pthread_mutex_lock(&s->mutex);
	struct list *node = list_pop(&l->queue);
	pthread_mutex_unlock(&s->mutex);
	if (!node)
		return FLOW_WAIT;
	l->q = container_of(node, struct metadata_request, link);
	l->deadline_ms = etcd_now_ms() + ETCD_REQUEST_MS;
	l->n_failed = 0;
	l->list_revision = 0;
	l->res = 0;
	l->error[0] = '\0';
	return FLOW_NEXT;
}

static void lane_ask(struct etcd_lane *l)
{
	struct metadata_request *q = l->q;
	const char *prefix = l->store->prefix;
	uint64_t left_ms = lane_left_ms(l);
	char *body = NULL;
	switch (q->op) {
	case METADATA_GET:
	case METADATA_LIST:
		body = etcd_range_text(&(struct etcd_range){
		    .prefix = prefix,
		    .key = q->key,
		    .is_list = q->op == METADATA_LIST,
		    .after = q->op == METADATA_LIST && q->n_items > 0 ? q->items[q->n_items - 1].key : NULL,
		    .revision = l->list_revision,
		});
		break;
	case METADATA_TRANSACT:
		body = etcd_transaction_text(prefix, q);
		break;
	case METADATA_GRANT:
	case METADATA_KEEP:
	case METADATA_REVOKE:
		body = etcd_lease_text(q);
		break;
	}
	/* 0 would mean no limit */
	uint64_t try_ms = lane_may_repeat(q) ? min_u64(left_ms, ETCD_READ_MS) : left_ms;
	etcd_transfer_start(&l->transfer, etcd_path(q->op), body, max_u64(try_ms, 1));
}

/* ---- what an exchange means ---- */

enum verdict {
	VERDICT_DONE,  /* res says how */
	VERDICT_AGAIN, /* ask at once: the next page, a new token, from the beginning */
	VERDICT_FAILED /* this endpoint did not serve: the next */
};

/* Nothing that counts was answered. */
static enum verdict lane_lost(struct etcd_lane *l)
{
	struct etcd_transfer *t = &l->transfer;
	/* A last try that was cut short by the deadline says less than the one before it. */
	if (t->code != CURLE_OPERATION_TIMEDOUT || l->error[0] == '\0')
		snprintf(l->error, sizeof(l->error), "%s: %.120s", l->store->endpoints[t->endpoint], t->error);
	etcd_endpoint_failed(t);
	if (!t->was_sent || lane_may_repeat(l->q))
		return VERDICT_FAILED;
	etcd_watch_restart(&l->store->watch);
	l->res = -ETIMEDOUT;
	return VERDICT_DONE;
}

/* The server refused. */
static enum verdict lane_refused(struct etcd_lane *l, int code, const char *text)
{
	struct etcd_transfer *t = &l->transfer;
	snprintf(t->error, sizeof(t->error), "%s", text);
	snprintf(l->error, sizeof(l->error), "%s: %.120s", l->store->endpoints[t->endpoint], text);
	switch (code) {
	case ETCD_UNAUTHENTICATED:
		etcd_token_forget(l->store);
		return l->store->user ? VERDICT_AGAIN : (l->res = -EACCES, VERDICT_DONE);
	case ETCD_NOT_FOUND:
		l->res = -ENOENT;
		return VERDICT_DONE;
	case ETCD_NO_SPACE:
		l->res = -ENOSPC;
		return VERDICT_DONE;
	case ETCD_COMPACTED:
		if (l->q->op != METADATA_LIST)
			break;
		metadata_request_clear(l->q);
		l->list_revision = 0;
		return VERDICT_AGAIN;
	case 3: /* invalid argument */
	case 7: /* permission denied */
	case 9: /* failed precondition */
		break;
	default: /* no leader, a leader that changed, a time-out inside: what became of the request is not known */
		return lane_lost(l);
	}
	log_event(l->store->log, LOG_ERROR, "metadata-refused", l->store->endpoints[t->endpoint],
		  "the metadata store refuses a request: %s; check the rights of its user and its version", text);
	l->res = code == 7 ? -EACCES : -EIO;
	return VERDICT_DONE;
}

static enum verdict lane_read(struct etcd_lane *l, const json_t *answer)
{
	struct metadata_request *q = l->q;
	struct etcd_header header = {0};
	bool is_last = true;
	bool is_stream = q->op == METADATA_KEEP;
	if (etcd_read_header(is_stream ? json_object_get(answer, "result") : answer, &header) < 0) {
		l->res = -EBADMSG;
		return VERDICT_DONE;
	}
	if (!etcd_cluster_is_ours(&l->transfer, header.cluster_id))
		return lane_lost(l);
	switch (q->op) {
	case METADATA_GET:
	case METADATA_LIST:
		l->res = etcd_read_range(answer, l->store->prefix, q, &is_last);
		if (l->list_revision == 0)
			l->list_revision = q->revision = header.revision;
		if (l->res == 0 && q->op == METADATA_GET && q->n_items == 0)
			l->res = -ENOENT;
		return is_last || l->res < 0 ? VERDICT_DONE : VERDICT_AGAIN;
	case METADATA_TRANSACT:
		l->res = etcd_read_transaction(answer, q);
		return VERDICT_DONE;
	case METADATA_GRANT:
	case METADATA_KEEP:
	case METADATA_REVOKE:
		l->res = etcd_read_lease(answer, q);
		return VERDICT_DONE;
	}
	return VERDICT_DONE;
}

static enum verdict lane_judge(struct etcd_lane *l)
{
	const char *text = NULL;
	json_t *answer = etcd_transfer_answer(&l->transfer);
	if (!answer)
		return lane_lost(l);
	int code = etcd_read_error(answer, &text);
	enum verdict verdict = code ? lane_refused(l, code, text) : lane_read(l, answer);
	json_decref(answer);
	if (verdict == VERDICT_DONE && l->res == -EBADMSG) {
		/* Whatever it is, it is no answer; a transaction may have been carried out all the same. */
		snprintf(l->transfer.error, sizeof(l->transfer.error), "an answer that is not etcd's");
		l->res = 0;
		return lane_lost(l);
	}
	return verdict;
}

/* The next endpoint at once, unless all have failed in a row: then after a pause, so that nobody spins. */
static enum etcd_lane_stage lane_failed(struct etcd_lane *l)
{
	l->until_ms = etcd_now_ms() + ETCD_PAUSE_MS;
	metadata_request_clear(l->q);
	l->list_revision = 0;
	if (++l->n_failed < l->store->n_endpoints)
		return LANE_ASK;
	l->n_failed = 0;
	if (!l->store->is_cut_off)
		log_event(l->store->log, LOG_ERROR, "metadata-unreachable", l->store->prefix,
			  "no endpoint of the metadata store serves (%s): commands wait, then fail, until one does",
			  l->error);
	l->store->is_cut_off = true;
	return LANE_PAUSE;
}

static enum etcd_lane_stage lane_after_login(struct etcd_lane *l)
{
	int res = etcd_login_end(&l->transfer);
	if (res == 0)
		return LANE_ASK;
	snprintf(l->error, sizeof(l->error), "%s: %.120s", l->store->endpoints[l->transfer.endpoint],
		 l->transfer.error);
	if (res == -EAGAIN) {
		etcd_endpoint_failed(&l->transfer);
		return lane_failed(l);
	}
	log_event(l->store->log, LOG_ERROR, "metadata-refused", l->store->user,
		  "the metadata store does not accept this user and password: %s", l->transfer.error);
	l->res = -EACCES;
	return LANE_ANSWER;
}

static enum etcd_lane_stage lane_after_exchange(struct etcd_lane *l)
{
	enum verdict verdict = lane_judge(l);
	if (verdict == VERDICT_FAILED)
		return lane_failed(l);
	if (l->res != -ETIMEDOUT && l->store->is_cut_off) {
		log_event(l->store->log, LOG_NOTICE, "metadata-reachable", l->store->prefix,
			  "the metadata store serves again at %s", l->store->endpoints[l->transfer.endpoint]);
		l->store->is_cut_off = false;
	}
	if (verdict == VERDICT_AGAIN)
		return LANE_ASK;
	l->until_ms = etcd_now_ms() + ETCD_SETTLE_MS;
	return l->res == 0 && l->q->op == METADATA_TRANSACT && l->q->changed != 0 ? LANE_SETTLE : LANE_ANSWER;
}

/* The watch has told, or cannot. It tells all watchers; the answer need not. */
static enum flow lane_settle(struct etcd_lane *l)
{
	struct etcd_watch *watch = &l->store->watch;
	bool is_late = etcd_now_ms() >= l->until_ms;
	if (watch->seen_revision < l->q->revision && !is_late)
		return FLOW_WAIT;
	if (watch->seen_revision < l->q->revision)
		etcd_watch_restart(watch);
	return FLOW_NEXT;
}

static void lane_deliver(struct message *message)
{
	struct metadata_request *q = container_of(message, struct metadata_request, message);
	metadata_answer(q->store, q, q->res);
}

/* Hands the request back: by a message, or by hand while the store is being opened. */
static struct metadata_request *lane_answer(struct etcd_lane *l)
{
	struct metadata_request *q = l->q;
	quarry_assert(l->res <= 0);
	l->q = NULL;
	q->res = l->res;
	q->changed = 0; /* the watch tells of it */
	if (!l->store->has_thread)
		return q;
	q->message.deliver = lane_deliver;
	reactor_post(l->store->base.reactor, &q->message);
	return NULL;
}

struct metadata_request *etcd_lane_run(struct etcd_lane *l)
{
	struct metadata_request *by_hand;
	for (;;) {
		lane_check(l);
		switch (l->stage) {
		case LANE_IDLE:
			if (lane_take(l) == FLOW_WAIT)
				return NULL;
			l->stage = LANE_ASK;
			break;
		case LANE_ASK:
			if (lane_left_ms(l) == 0) {
				l->res = -ETIMEDOUT;
				l->stage = LANE_ANSWER;
			} else if (etcd_login_is_needed(l->store)) {
				etcd_login_start(&l->transfer);
				l->stage = LANE_LOGIN;
			} else {
				lane_ask(l);
				l->stage = LANE_EXCHANGE;
			}
			break;
		case LANE_LOGIN:
			if (!l->transfer.is_done)
				return NULL;
			l->stage = lane_after_login(l);
			break;
		case LANE_EXCHANGE:
			if (!l->transfer.is_done)
				return NULL;
			l->stage = lane_after_exchange(l);
			break;
		case LANE_PAUSE:
			if (etcd_now_ms() < l->until_ms)
				return NULL;
			l->stage = LANE_ASK;
			break;
		case LANE_SETTLE:
			if (lane_settle(l) == FLOW_WAIT)
				return NULL;
			l->stage = LANE_ANSWER;
			break;
		case LANE_ANSWER:
			l->stage = LANE_IDLE;
			by_hand = lane_answer(l);
			if (by_hand)
				return by_hand;
			break;
		}
	}
}

uint64_t etcd_lane_wakes_ms(const struct etcd_lane *l)
{
	return l->stage == LANE_PAUSE || l->stage == LANE_SETTLE ? l->until_ms : UINT64_MAX;
}
