/*
 * etcd_transfer.c: one HTTP exchange with etcd: endpoint, TLS, token, answer.
 *
 * Invariants
 *  1. A transfer is running from start() until it is marked done or stopped; its body and its answer stay until the
 *     next start.
 *  2. was_sent is false only when no byte of the request can have reached a server: then, and only then, a transaction
 *     may be sent again.
 *  3. An answer is bounded, whatever the server sends; so is a line of the watch.
 *  4. The token is the store's; a transfer takes the one that there is when it starts.
 *
 * Owner: the store's thread (the opener, before that runs).
 */
#include "daemon/metadata/etcd_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t transfer_more(char *bytes, size_t size, size_t n, void *context)
{
	struct etcd_transfer *t = context;
	size_t more = size * n;
	quarry_assert(t->is_running);
	if (t->len + more > ETCD_ANSWER_MAX)
		return 0; /* curl ends the transfer with an error */
	if (t->len + more + 1 > t->room) {
		size_t room = (t->len + more + 1) * 2;
		char *answer = realloc(t->answer, room);
		if (!answer)
			return 0;
		t->answer = answer;
		t->room = room;
	}
	memcpy(t->answer + t->len, bytes, more);
	t->len += more;
	t->answer[t->len] = '\0';
	if (t->grown)
		t->grown(t);
	return t->is_unwanted ? 0 : more;
}

int etcd_transfer_init(struct etcd_transfer *t, struct etcd_store *s)
{
	*t = (struct etcd_transfer){.store = s, .easy = curl_easy_init()};
	if (!t->easy)
		return -ENOMEM;
	curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
	curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, transfer_more);
	curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->error);
	curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(t->easy, CURLOPT_PROXY, "");
	curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)ETCD_CONNECT_MS);
	curl_easy_setopt(t->easy, CURLOPT_TCP_KEEPALIVE, 1L); /* finds the other side gone under a silent watch */
	curl_easy_setopt(t->easy, CURLOPT_TCP_KEEPIDLE, 3L);
	curl_easy_setopt(t->easy, CURLOPT_TCP_KEEPINTVL, 2L);
	if (s->ca_file)
		curl_easy_setopt(t->easy, CURLOPT_CAINFO, s->ca_file);
	if (s->cert_file)
		curl_easy_setopt(t->easy, CURLOPT_SSLCERT, s->cert_file);
	if (s->key_file)
		curl_easy_setopt(t->easy, CURLOPT_SSLKEY, s->key_file);
	return 0;
}

void etcd_transfer_fini(struct etcd_transfer *t)
{
	if (!t->easy)
		return;
	etcd_transfer_stop(t);
	curl_easy_cleanup(t->easy);
	curl_slist_free_all(t->headers);
	free(t->body);
	free(t->answer);
}

static void transfer_headers(struct etcd_transfer *t)
{
	char line[1024];
	curl_slist_free_all(t->headers);
	t->headers = curl_slist_append(NULL, "Content-Type: application/json");
	if (t->headers)
		t->headers = curl_slist_append(t->headers, "Expect:");
	if (t->headers && t->store->token && snprintf(line, sizeof(line), "Authorization: %s", t->store->token) > 0)
		t->headers = curl_slist_append(t->headers, line);
	curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
}

void etcd_transfer_start(struct etcd_transfer *t, const char *path, char *body, uint64_t timeout_ms)
{
	struct etcd_store *s = t->store;
	char url[512];
	quarry_assert(!t->is_running);
	free(t->body);
	t->body = body;
	t->len = 0;
	t->is_done = t->is_unwanted = t->was_sent = false;
	t->status = 0;
	t->error[0] = '\0';
	t->endpoint = s->endpoint;
	if (t->answer)
		t->answer[0] = '\0';
	snprintf(url, sizeof(url), "%s%s", s->endpoints[t->endpoint], path);
	transfer_headers(t);
	if (!body || !t->headers) {
		t->code = CURLE_OUT_OF_MEMORY;
		t->is_done = true;
		return;
	}
	curl_easy_setopt(t->easy, CURLOPT_URL, url);
	curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
	curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
	t->is_running = true;
	if (curl_multi_add_handle(s->multi, t->easy) != CURLM_OK) {
		t->is_running = false;
		t->code = CURLE_OUT_OF_MEMORY;
		t->is_done = true;
	}
}

void etcd_transfer_stop(struct etcd_transfer *t)
{
	if (t->is_running)
		curl_multi_remove_handle(t->store->multi, t->easy);
	t->is_running = t->is_done = false;
}

void etcd_transfers_collect(struct etcd_store *s)
{
	CURLMsg *message;
	int n_left;
	while ((message = curl_multi_info_read(s->multi, &n_left)) != NULL) {
		struct etcd_transfer *t = NULL;
		long request_bytes = 0;
		CURLcode code = message->data.result; /* the message is gone after the removal */
		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		quarry_assert(t && t->is_running && !t->is_done);
		curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &t->status);
		curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &request_bytes);
		curl_multi_remove_handle(s->multi, t->easy);
		t->code = code;
		t->was_sent = request_bytes > 0;
		t->is_running = false;
		t->is_done = true;
	}
}

/* What is no JSON may still be words for people: the first line, if all of it can be printed. */
static void transfer_explain(struct etcd_transfer *t)
{
	size_t len = t->answer ? strcspn(t->answer, "\r\n") : 0;
	for (size_t i = 0; i < len; i++)
		if (t->answer[i] < ' ' || t->answer[i] > '~')
			len = 0;
	snprintf(t->error, sizeof(t->error), "HTTP status %ld without JSON%s%.*s", t->status, len ? ": " : "",
		 (int)(len < 120 ? len : 120), len ? t->answer : "");
}

json_t *etcd_transfer_answer(struct etcd_transfer *t)
{
	json_error_t error;
	quarry_assert(t->is_done);
	if (t->code != CURLE_OK) {
		if (t->error[0] == '\0')
			snprintf(t->error, sizeof(t->error), "%s", curl_easy_strerror(t->code));
		return NULL;
	}
	json_t *answer = json_loadb(t->answer ? t->answer : "", t->len, JSON_REJECT_DUPLICATES, &error);
	if (!answer)
		transfer_explain(t);
	return answer;
}

/* ---- logins ---- */

bool etcd_login_is_needed(const struct etcd_store *s)
{
	return s->user && !s->token;
}

void etcd_login_start(struct etcd_transfer *t)
{
	struct etcd_store *s = t->store;
	quarry_assert(etcd_login_is_needed(s));
	etcd_transfer_start(t, "/v3/auth/authenticate", etcd_login_text(s->user, s->password), ETCD_READ_MS);
}

int etcd_login_end(struct etcd_transfer *t)
{
	const char *token, *text = NULL;
	json_t *answer = etcd_transfer_answer(t);
	int code = answer ? etcd_read_error(answer, &text) : 0, res = -EAGAIN;
	if (answer && code == 0 && (token = etcd_read_token(answer)) && strlen(token) < 900) {
		free(t->store->token);
		t->store->token = strdup(token);
		res = t->store->token ? 0 : -EAGAIN;
	} else if (text) {
		snprintf(t->error, sizeof(t->error), "%s", text);
		res = code == ETCD_UNAVAILABLE || t->status >= 500 ? -EAGAIN : -EACCES;
	}
	json_decref(answer);
	return res;
}

void etcd_token_forget(struct etcd_store *s)
{
	free(s->token);
	s->token = NULL;
}

/* ---- endpoints ---- */

void etcd_endpoint_failed(struct etcd_transfer *t)
{
	struct etcd_store *s = t->store;
	if (s->endpoint == t->endpoint && s->n_endpoints > 1) {
		s->endpoint = (s->endpoint + 1) % s->n_endpoints;
		log_line(s->log, LOG_WARNING, "metadata", "%s does not serve (%s): asking %s",
			 s->endpoints[t->endpoint], t->error, s->endpoints[s->endpoint]);
	}
	quarry_assert(s->endpoint < s->n_endpoints);
}

bool etcd_cluster_is_ours(struct etcd_transfer *t, uint64_t cluster_id)
{
	struct etcd_store *s = t->store;
	if (s->cluster_id == 0)
		s->cluster_id = cluster_id;
	if (s->cluster_id == cluster_id)
		return true;
	snprintf(t->error, sizeof(t->error), "it belongs to another etcd cluster");
	log_event(
	    s->log, LOG_ERROR, "metadata-foreign", s->endpoints[t->endpoint],
	    "this endpoint of the metadata store belongs to another etcd cluster than the others: it is not used; "
	    "correct metadata.endpoints");
	return false;
}
