/*
 * cluster_store.h: the metadata store of a simulated cluster, as its nodes see it: far away, and not always there.
 *
 * There is one, in memory, on a machine of its own that never fails. Each process of a node has a client of it, a struct
 * metadata like any other. What travels between the two takes time, stands still while the way is blocked in that direction,
 * and may arrive when nobody waits for it any more. The store's own faults are those of metadata.h.
 */
#pragma once

#include "daemon/metadata/metadata.h"
#include "tests/sim/sim.h"

struct cluster_store;
struct store_client;

struct cluster_store *cluster_store_open(struct sim *s);
void cluster_store_close(struct cluster_store *store); /* it has no client any more */
struct metadata *cluster_store_memory(struct cluster_store *store);

/* Of the node's present process: closed by metadata_close(), or by its crash. The number says whose way it takes. */
#define STORE_NODES_MAX 8u
struct store_client *store_client_open(struct cluster_store *store, uint32_t node, struct reactor *r);
struct metadata *store_client_metadata(struct store_client *c);
void store_client_crash(struct store_client *c); /* the process has died; the client is gone */

enum store_way { STORE_TO, STORE_FROM, STORE_WAYS };
/* What stood still goes on when the way is free again; of what nobody waits for any more, a part. */
void cluster_store_block(struct cluster_store *store, uint32_t node, enum store_way way, bool is_blocked);
bool cluster_store_is_blocked(const struct cluster_store *store, uint32_t node, enum store_way way);
/* The node's client has missed what it was not told yet, as after a compaction. */
void cluster_store_forget_news(struct cluster_store *store, uint32_t node);
