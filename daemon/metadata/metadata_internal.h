/*
 * metadata_internal.h: what the implementations of the metadata store share.
 */
#pragma once

#include "daemon/metadata/metadata.h"

/* Sets up the common part of a store. 0 or -ENOMEM. */
must_check int metadata_init(struct metadata *m, const struct metadata_ops *ops, struct reactor *r);
/* Takes it down again: for a store that could not be opened, and by metadata_close(). */
void metadata_fini(struct metadata *m);
/* On the reactor: tells the watches what a transaction changed, then answers the request. */
void metadata_answer(struct metadata *m, struct metadata_request *q, int res);
/* Asserts that a request is well formed: texts set, counts within bounds, no key changed twice. */
void metadata_request_check(const struct metadata_request *q);
/* Appends an item with copies of its texts to the request's result. 0 or -ENOMEM. */
must_check int metadata_request_add(struct metadata_request *q, const struct metadata_item *item);

/* ---- changes that no request of this process made ---- */

/* On the reactor: tells the watches now. */
void metadata_tell(struct metadata *m, const struct metadata_item *item);
void metadata_tell_lost(struct metadata *m);
/* From any thread: the same by a message, in order with what that thread posts. Copies the texts. Without memory it
 * becomes a loss. All that one transaction has changed is told in one call, and so in one turn of the reactor. */
void metadata_inbox_changed(struct metadata *m, const struct metadata_item *items, size_t n_items);
void metadata_inbox_lost(struct metadata *m);
/* Its message died with the reactor. */
void metadata_inbox_forget(struct metadata *m);

/* ---- leases of the stores that keep them themselves ---- */

struct lease {
	uint64_t id, ttl_ns, ends_ns; /* on the clock of the one who keeps it */
	struct list link;
};
struct lease_table {
	struct list leases;
};
void lease_table_init(struct lease_table *t);
void lease_table_fini(struct lease_table *t);
struct lease *lease_find(struct lease_table *t, uint64_t id);
/* NULL: no memory. id is any number that none has, not 0. */
struct lease *lease_grant(struct lease_table *t, uint64_t id, uint64_t ttl_ns, uint64_t now_ns);
void lease_end(struct lease *lease);
/* The one that ends first; NULL: there is none. */
struct lease *lease_next(struct lease_table *t);
