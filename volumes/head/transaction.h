/*
 * transaction.h: a request to the metadata store that owns its texts.
 *
 * Usage: begin, add conditions and changes, submit; done() comes with the store's answer; then clear. Running out of
 * memory while adding is remembered and reported by transaction_submit().
 */
#pragma once

#include "daemon/metadata/metadata.h"

#define KEY_BYTES 96

struct transaction {
	struct metadata_request request;
	char keys[METADATA_CHANGES_MAX + METADATA_CONDITIONS_MAX][KEY_BYTES];
	char *values[METADATA_CHANGES_MAX];
	uint32_t n_keys;
	bool is_out_of_memory;
};

void transaction_begin(struct transaction *t, void (*done)(struct metadata_request *q, int res));
/* The key must have this revision; 0: must not exist. */
void transaction_condition(struct transaction *t, uint64_t revision, const char *format, ...) printf_like(3, 4);
/* value: becomes the transaction's; NULL: there was no memory to make it. */
void transaction_put(struct transaction *t, char *value, const char *format, ...) printf_like(3, 4);
void transaction_delete(struct transaction *t, const char *format, ...) printf_like(2, 3);
/* How many more changes (with a condition each) there is room for. */
uint32_t transaction_room(const struct transaction *t);
/* 0, or -ENOMEM when something could not be added: nothing was submitted then. */
must_check int transaction_submit(struct transaction *t, struct metadata *m);
void transaction_clear(struct transaction *t);
struct transaction *transaction_of(struct metadata_request *q);

/* The keys of the store (volume_set.h has their list). */
#define CLUSTER_KEY     "cluster"
#define DELETED_KEY     "deleted"
#define POOL_KEY        "pools/%s"
#define DISK_KEY        "disks/%s"
#define VOLUME_KEY      "volumes/%s"
#define VOLUME_NAME_KEY "volume-names/%s"
#define CHUNK_KEY       "placement/%s/%u"
#define CHUNK_PREFIX    "placement/%s/"
#define SNAPSHOT_KEY    "snapshots/%s/%llu"
#define SNAPSHOT_PREFIX "snapshots/%s/"
#define NODE_DRAIN_KEY  "drains/%s"
#define BALANCE_KEY     "balance"
