/*
 * etcd_internal.h: the metadata store in etcd, inside.
 *
 * One thread, one curl multi handle, three exchanges at most: the call lane (requests in the order of submission), the
 * keep lane (leases that are kept, which wait for nobody) and the watch (a stream that never ends).
 */
#pragma once

#include "daemon/metadata/etcd_format.h"

#include <curl/curl.h>
#include <pthread.h>

#define ETCD_CONNECT_MS    1000 /* then the next endpoint is tried */
#define ETCD_READ_MS       2000 /* one try of what may be tried again */
#define ETCD_REQUEST_MS    5000 /* a request, with all its tries; and a transaction, which is sent once */
#define ETCD_PAUSE_MS      100  /* between two rounds through endpoints that all failed */
#define ETCD_SETTLE_MS     1000 /* how long an answer waits for the watch to have told of it */
#define ETCD_ANSWER_MAX    (64 * MIB)
#define ETCD_ENDPOINTS_MAX 16

struct etcd_store;

/* One HTTP exchange at a time, over a handle that is used again. */
struct etcd_transfer {
	struct etcd_store *store;
	CURL *easy;
	struct curl_slist *headers;
	char *body;
	char *answer; /* with a final zero */
	size_t len, room;
	void (*grown)(struct etcd_transfer *t); /* NULL, or: called when more of the answer is there */
	bool is_running, is_done;
	bool is_unwanted; /* grown() has seen enough */
	CURLcode code;
	long status;
	bool was_sent; /* at least a part of the request */
	uint32_t endpoint;
	char error[CURL_ERROR_SIZE];
};

#define ETCD_LANE_STAGES(X) X(IDLE) X(ASK) X(LOGIN) X(EXCHANGE) X(PAUSE) X(SETTLE) X(ANSWER)
enum etcd_lane_stage {
#define X(name) LANE_##name,
	ETCD_LANE_STAGES(X)
#undef X
};

struct etcd_lane {
	struct etcd_store *store;
	enum etcd_lane_stage stage;
	struct list queue; /* the mutex's */
	struct metadata_request *q;
	struct etcd_transfer transfer;
	uint64_t deadline_ms, until_ms; /* of the request; of PAUSE and SETTLE */
	uint32_t n_failed;              /* endpoints in this round */
	uint64_t list_revision;         /* at which a list's pages are read */
	int res;
	char error[METADATA_WHY_BYTES];
};

#define ETCD_WATCH_STAGES(X) X(REST) X(LOGIN) X(STREAM)
enum etcd_watch_stage {
#define X(name) WATCH_##name,
	ETCD_WATCH_STAGES(X)
#undef X
};

struct etcd_watch {
	struct etcd_store *store;
	enum etcd_watch_stage stage;
	struct etcd_transfer transfer;
	size_t read_bytes;      /* of the answer, that is: whole lines */
	uint64_t seen_revision; /* every change up to it has been told */
	uint64_t until_ms;      /* REST */
};

struct etcd_store {
	struct metadata base;
	struct log *log;
	char *endpoints[ETCD_ENDPOINTS_MAX];
	uint32_t n_endpoints, endpoint; /* the one in use */
	char *prefix, *ca_file, *cert_file, *key_file, *user, *password;
	char *token; /* of the login; NULL: none */
	uint64_t cluster_id;
	CURLM *multi;
	struct etcd_lane call, keep;
	struct etcd_watch watch;
	bool has_thread, is_cut_off; /* the last try of every endpoint failed: said once */
	pthread_t thread;
	pthread_mutex_t mutex;
	bool is_stopping; /* the mutex's */
};

uint64_t etcd_now_ms(void);

/* ---- etcd_transfer.c ---- */

must_check int etcd_transfer_init(struct etcd_transfer *t, struct etcd_store *s);
void etcd_transfer_fini(struct etcd_transfer *t);
/* Takes the body. Never fails at once: what is wrong is a code when it is done. timeout_ms 0: none. */
void etcd_transfer_start(struct etcd_transfer *t, const char *path, char *body, uint64_t timeout_ms);
void etcd_transfer_stop(struct etcd_transfer *t);
/* Marks the transfers that have ended. */
void etcd_transfers_collect(struct etcd_store *s);
/* The answer as JSON, or NULL with the reason in t->error: nothing came, or no JSON. */
json_t *etcd_transfer_answer(struct etcd_transfer *t);
/* Is a login owed before anything else can be asked? */
bool etcd_login_is_needed(const struct etcd_store *s);
void etcd_login_start(struct etcd_transfer *t);
/* 0: the store has its token; -EACCES refused for good; -EAGAIN: to be tried elsewhere. */
must_check int etcd_login_end(struct etcd_transfer *t);
void etcd_token_forget(struct etcd_store *s);
/* The endpoint did not serve: the next one is used, if nobody has moved on already. */
void etcd_endpoint_failed(struct etcd_transfer *t);
/* All endpoints belong to one cluster; the first that answers says which. */
bool etcd_cluster_is_ours(struct etcd_transfer *t, uint64_t cluster_id);

/* ---- etcd_lane.c ---- */

must_check int etcd_lane_init(struct etcd_lane *l, struct etcd_store *s);
void etcd_lane_fini(struct etcd_lane *l);
/* Runs until it has to wait; a request that is done is answered, or returned to the one who runs the lane by hand. */
struct metadata_request *etcd_lane_run(struct etcd_lane *l);
/* When it wants to run again at the latest; UINT64_MAX: on an event. */
uint64_t etcd_lane_wakes_ms(const struct etcd_lane *l);

/* ---- etcd_watch.c ---- */

must_check int etcd_watch_init(struct etcd_watch *w, struct etcd_store *s);
void etcd_watch_fini(struct etcd_watch *w);
void etcd_watch_run(struct etcd_watch *w);
uint64_t etcd_watch_wakes_ms(const struct etcd_watch *w);
/* It does not say what it should: begins anew, where it had been. */
void etcd_watch_restart(struct etcd_watch *w);
