/*
 * metadata_internal.h: what the implementations of the metadata store share.
 */
#pragma once

#include "daemon/metadata/metadata.h"

/* Sets up the common part of a store. */
void metadata_init(struct metadata *m, const struct metadata_ops *ops, struct reactor *r);
/* On the reactor: tells the watches what a transaction changed, then answers the request. */
void metadata_answer(struct metadata *m, struct metadata_request *q, int res);
/* Asserts that a request is well formed: texts set, counts within bounds, no key changed twice. */
void metadata_request_check(const struct metadata_request *q);
/* Appends an item with copies of key and value to the request's result. 0 or -ENOMEM. */
must_check int metadata_request_add(struct metadata_request *q, const char *key, const char *value, uint64_t revision);
