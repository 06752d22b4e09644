/*
 * order.h: what a request of the control API asks for, once its method, path, query and body have been understood.
 *
 * Understanding is a plain function of texts: it touches no socket and no volume, and is tested and fuzzed alone.
 */
#pragma once

#include "volumes/head/volume_set.h"

#define ORDER_BODY_BYTES_MAX (64 * KIB)
#define ORDER_PATH_BYTES_MAX 1024u
#define ORDER_QUERIES_MAX    8u
#define ORDER_EVENTS_MAX     1000u
#define ORDER_WAIT_S_MAX     60u
#define ORDER_EXTENTS_MAX    4096u

/* What to show, and, after a command, of what. */
enum order_kind {
	ORDER_VERSION,
	ORDER_STATUS,
	ORDER_NODES,
	ORDER_NODE,
	ORDER_POOLS,
	ORDER_POOL,
	ORDER_DISKS,
	ORDER_DISK,
	ORDER_VOLUMES,
	ORDER_VOLUME,
	ORDER_ATTACHMENT,
	ORDER_SNAPSHOTS,
	ORDER_SNAPSHOT,
	ORDER_CHANGES,
	ORDER_EVENTS,
	ORDER_USAGE,
	ORDER_TOP,
	ORDER_REQUESTS,
	ORDER_METRICS,
	ORDER_NOTHING, /* {} */
};

struct order {
	enum order_kind show;
	unsigned status; /* of success: 200, 201 or 202 */
	bool is_command; /* then the command comes first */
	struct set_command command;
	char object[SET_TEXT_MAX]; /* what is shown: name of the pool, disk (or its UUID or path), volume, NAME@SNAP,
					* node */
	uint64_t after, limit, wait_s; /* EVENTS */
	uint64_t older_than_ms;        /* REQUESTS */
};

struct order_query {
	const char *name, *value; /* value NULL: it had no "=" */
};

/* A request as HTTP gives it; texts are borrowed. */
struct order_text {
	const char *method, *path; /* the path still percent-encoded */
	struct order_query queries[ORDER_QUERIES_MAX];
	uint32_t n_queries; /* more than ORDER_QUERIES_MAX: the rest was left out, and the request is refused */
	const char *body;
	size_t body_bytes;
};

struct refusal {
	unsigned status;
	char code[32];
	char message[SET_WHY_BYTES];
	char allow[64]; /* 405: the methods that the resource knows */
};

/* 0, or -EINVAL with the refusal filled. */
must_check int order_read(const struct order_text *text, struct order *out, struct refusal *why);
/* The refusal of a command that failed with res: by its code where it gave one. */
void order_refusal_of(const struct set_command *c, int res, struct refusal *why);
void printf_like(4, 5) order_refuse(struct refusal *why, unsigned status, const char *code, const char *format, ...);
