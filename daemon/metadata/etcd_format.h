/*
 * etcd_format.h: what is said to etcd's HTTP gateway (v3 API, JSON) and what it answers.
 *
 * Every function is of its arguments alone. Keys and values travel in base64, 64-bit numbers as texts. Bodies are for
 * free(); NULL: no memory. Answers come from the network: what is missing or of a wrong type is -EBADMSG, never a guess.
 */
#pragma once

#include "daemon/metadata/metadata_internal.h"

#include <jansson.h>

#define ETCD_PAGE_ITEMS 500 /* of a list, so that an answer stays far below what is taken from a server */

/* ---- what is said ---- */

struct etcd_range {
	const char *prefix; /* of all keys of this cluster, without the final slash */
	const char *key;    /* METADATA_LIST: of all keys that begin so */
	bool is_list;
	const char *after; /* the last key of the page before; NULL: the first page */
	uint64_t revision; /* at which the later pages are read; 0: now */
};
char *etcd_range_text(const struct etcd_range *r);
char *etcd_transaction_text(const char *prefix, const struct metadata_request *q);
char *etcd_lease_text(const struct metadata_request *q);
char *etcd_watch_text(const char *prefix, uint64_t from_revision);
char *etcd_login_text(const char *user, const char *password);
/* Under which path a request is sent. */
const char *etcd_path(enum metadata_op op);

/* ---- what is answered ---- */

struct etcd_header {
	uint64_t cluster_id, revision;
};
must_check int etcd_read_header(const json_t *answer, struct etcd_header *out);
/* Appends the page's items to the request, without the prefix; is_last: no more follow. */
must_check int etcd_read_range(const json_t *answer, const char *prefix, struct metadata_request *q, bool *is_last);
/* 0 with revision and changed set, or -EAGAIN: the conditions did not hold. */
must_check int etcd_read_transaction(const json_t *answer, struct metadata_request *q);
/* GRANT: lease and ttl_ns; KEEP: ttl_ns, or -ENOENT. */
must_check int etcd_read_lease(const json_t *answer, struct metadata_request *q);
/* The token of a login, borrowed from the answer; NULL: there is none. */
const char *etcd_read_token(const json_t *answer);

/* One line of a watch. */
struct etcd_news {
	uint64_t cluster_id, revision, compact_revision;
	bool is_canceled;
	const json_t *events; /* NULL: none; borrowed from the line */
};
must_check int etcd_read_news(const json_t *line, struct etcd_news *out);
/* The texts are for free(). */
must_check int etcd_read_event(const json_t *event, const char *prefix, struct metadata_item *out);

/* An error, as the gateway tells it. */
enum etcd_error {
	ETCD_NOT_FOUND = 5,        /* a lease that has run out */
	ETCD_NO_SPACE = 8,         /* the store's quota is used up */
	ETCD_COMPACTED = 11,       /* the revision is forgotten */
	ETCD_UNAVAILABLE = 14,     /* no leader, a leader that changed, a member that is stopping */
	ETCD_UNAUTHENTICATED = 16, /* the token is not known (any more) */
};
/* 0: the answer is no error. text is borrowed. */
int etcd_read_error(const json_t *answer, const char **text);

/* ---- base64; exposed for the tests ---- */

char *base64_encode(const void *bytes, size_t len);
/* The bytes with a final zero; NULL: not base64, or a zero inside. For free(). */
char *base64_decode(const char *text);
