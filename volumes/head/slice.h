/*
 * slice.h: walking over a client's scattered memory, and the checksums of the blocks it holds. Plain functions.
 */
#pragma once

#include "daemon/core/base.h"

#include <sys/uio.h>

/* A place in a row of iovecs; everything below moves it forward, and never past their end. */
struct slice {
	const struct iovec *iov;
	uint32_t n_iov, index;
	uint64_t skip; /* bytes of iov[index] that lie before the place */
};

void slice_skip(struct slice *s, uint64_t len_bytes);
/* Appends iovecs for the next len_bytes at out, which has room for room; returns how many. */
uint32_t slice_take(struct slice *s, uint64_t len_bytes, struct iovec *out, uint32_t room);
void slice_copy_to(struct slice *s, void *to, uint64_t len_bytes);
/* from == NULL: zeros. */
void slice_fill_from(struct slice *s, const void *from, uint64_t len_bytes);
/* Are the next len_bytes all zero? */
bool slice_is_zero(struct slice s, uint64_t len_bytes);

/* CRC-32C of each of n_blocks (at most 64) blocks that lie in the iovecs, wherever these are cut; returns a mask of
 * those that are all zeros. */
must_check uint64_t blocks_sum(const struct iovec *iov, uint32_t n_iov, uint32_t n_blocks, uint32_t *crcs);
