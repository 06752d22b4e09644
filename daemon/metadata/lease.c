/*
 * lease.c: the leases of a store that keeps them itself: a list of a few, each with the time at which it ends.
 *
 * Invariants
 *  1. Ids are never 0, and no two leases have the same.
 *  2. A lease that is in the table has not been ended; whether its time has come is for the keeper to ask.
 *
 * Owner: the keeper (the memory store's reactor, the embedded store's thread).
 */
#include "daemon/metadata/metadata_internal.h"

#include <stdlib.h>

void lease_table_init(struct lease_table *t)
{
	list_init(&t->leases);
}

void lease_table_fini(struct lease_table *t)
{
	struct list *node;
	while ((node = list_pop(&t->leases)) != NULL)
		free(container_of(node, struct lease, link));
}

struct lease *lease_find(struct lease_table *t, uint64_t id)
{
	list_each_safe (node, &t->leases) {
		struct lease *lease = container_of(node, struct lease, link);
		if (lease->id == id)
			return lease;
	}
	return NULL;
}

struct lease *lease_grant(struct lease_table *t, uint64_t id, uint64_t ttl_ns, uint64_t now_ns)
{
	quarry_assert(id != 0 && !lease_find(t, id));
	struct lease *lease = calloc(1, sizeof(*lease));
	if (!lease)
		return NULL;
	*lease = (struct lease){.id = id, .ttl_ns = ttl_ns, .ends_ns = now_ns + ttl_ns};
	list_init(&lease->link);
	list_append(&t->leases, &lease->link);
	return lease;
}

void lease_end(struct lease *lease)
{
	quarry_assert(list_is_linked(&lease->link));
	list_remove(&lease->link);
	free(lease);
}

struct lease *lease_next(struct lease_table *t)
{
	struct lease *first = NULL;
	list_each_safe (node, &t->leases) {
		struct lease *lease = container_of(node, struct lease, link);
		if (!first || lease->ends_ns < first->ends_ns)
			first = lease;
	}
	return first;
}
