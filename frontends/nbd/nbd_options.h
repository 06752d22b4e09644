/*
 * nbd_options.h: the data of options, taken apart. Plain functions of bytes that came from a stranger.
 */
#pragma once

#include "frontends/nbd/nbd_format.h"

/* Bytes inside somebody else's buffer; not zero-terminated. */
struct nbd_text {
	const uint8_t *bytes;
	uint32_t len_bytes;
};

/* Longer names and texts with zero bytes break the protocol. */
bool nbd_text_is_valid(struct nbd_text text);
bool nbd_text_equal(struct nbd_text a, struct nbd_text b);
struct nbd_text nbd_text_of(const char *text);

/* INFO and GO. */
struct nbd_info_query {
	struct nbd_text name;
	bool wants_name, wants_description, wants_block_size;
};
/* 0, or -EINVAL: lengths that do not add up, or a bad name. */
must_check int nbd_info_query_decode(struct nbd_text data, struct nbd_info_query *out);

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
#define NBD_BITMAP_PREFIX      "qemu:dirty-bitmap:"
#define NBD_BITMAP_QUERIES_MAX 8u
struct nbd_meta_query {
	struct nbd_text name;
	uint32_t n_queries;
	bool names_allocation;                           /* "base:allocation" is among the queries */
	bool names_base;                                 /* "base:", the wildcard of its namespace */
	bool names_bitmaps;                              /* "qemu:" or "qemu:dirty-bitmap:", the wildcards of theirs */
	struct nbd_text bitmaps[NBD_BITMAP_QUERIES_MAX]; /* names behind "qemu:dirty-bitmap:"; more are passed over */
	uint32_t n_bitmaps;
};
must_check int nbd_meta_query_decode(struct nbd_text data, struct nbd_meta_query *out);
