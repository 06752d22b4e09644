/*
 * metadata_rules.h: the rules that every metadata store must pass, and the bench that they are tried on.
 */
#pragma once

#include "daemon/metadata/metadata.h"

struct bench {
	struct reactor *reactor;
	struct log *log;
	struct metadata *store;
	char folder[32], path[64];
	char why[METADATA_WHY_BYTES];
};

struct asked {
	struct metadata_request q;
	struct reactor *reactor;
	int res, n_done;
};

void asked_done(struct metadata_request *q, int res);

struct watcher {
	struct metadata_watch watch;
	char seen[256];
	uint64_t revision;
};

/* Appends "KEY=VALUE " to what it has seen. */
void watcher_changed(struct metadata_watch *w, const struct metadata_item *item);

void bench_start(struct bench *b); /* a folder, a reactor, a log; the store is opened by who tests one */
void bench_end(struct bench *b);
/* Submits and runs the reactor until the answer. */
int ask(struct bench *b, struct asked *a);
/* The value's revision; 0 when the key does not exist or has another value. */
uint64_t revision_of(struct bench *b, const char *key, const char *value);
int put_if(struct bench *b, const char *key, const char *value, uint64_t revision);
/* The revision it got, 0 on failure. */
uint64_t put(struct bench *b, const char *key, const char *value);
uint64_t grant(struct bench *b, uint64_t ttl_ns);
int ask_lease(struct bench *b, enum metadata_op op, uint64_t lease);
int put_leased(struct bench *b, const char *key, uint64_t lease);
/* Lets time pass on the reactor, and with it the store's. */
void wait_ns(struct bench *b, uint64_t ns);
/* All of them, on an empty store. */
void rules(struct bench *b);
