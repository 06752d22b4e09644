/*
 * slice.c: walking over a client's scattered memory.
 *
 * Invariant: a slice's place is inside an iovec or at the very end of the row; an iovec of no length is stepped over.
 */
#include "volumes/head/slice.h"

#include "daemon/core/checksum.h"

#include <string.h>

/* The next piece of contiguous memory, at most len_bytes long; the slice moves behind it. */
static struct iovec slice_next(struct slice *s, uint64_t len_bytes)
{
	while (s->index < s->n_iov && s->skip == s->iov[s->index].iov_len) {
		s->index++;
		s->skip = 0;
	}
	quarry_assert(s->index < s->n_iov);
	const struct iovec *at = &s->iov[s->index];
	struct iovec piece = {(uint8_t *)at->iov_base + s->skip, min_u64(len_bytes, at->iov_len - s->skip)};
	s->skip += piece.iov_len;
	return piece;
}

void slice_skip(struct slice *s, uint64_t len_bytes)
{
	while (len_bytes > 0)
		len_bytes -= slice_next(s, len_bytes).iov_len;
}

uint32_t slice_take(struct slice *s, uint64_t len_bytes, struct iovec *out, uint32_t room)
{
	uint32_t n = 0;
	while (len_bytes > 0) {
		quarry_assert(n < room);
		out[n] = slice_next(s, len_bytes);
		len_bytes -= out[n++].iov_len;
	}
	return n;
}

void slice_copy_to(struct slice *s, void *to, uint64_t len_bytes)
{
	for (uint8_t *at = to; len_bytes > 0;) {
		struct iovec piece = slice_next(s, len_bytes);
		memcpy(at, piece.iov_base, piece.iov_len);
		at += piece.iov_len;
		len_bytes -= piece.iov_len;
	}
}

void slice_fill_from(struct slice *s, const void *from, uint64_t len_bytes)
{
	for (const uint8_t *at = from; len_bytes > 0;) {
		struct iovec piece = slice_next(s, len_bytes);
		if (at) {
			memcpy(piece.iov_base, at, piece.iov_len);
			at += piece.iov_len;
		} else {
			memset(piece.iov_base, 0, piece.iov_len);
		}
		len_bytes -= piece.iov_len;
	}
}

bool slice_is_zero(struct slice s, uint64_t len_bytes)
{
	while (len_bytes > 0) {
		struct iovec piece = slice_next(&s, len_bytes);
		if (!bytes_are_zero(piece.iov_base, piece.iov_len))
			return false;
		len_bytes -= piece.iov_len;
	}
	return true;
}

/* The checksum of one block; *is_zero tells whether all of it is zero. */
static uint32_t block_sum(struct slice *s, bool *is_zero)
{
	uint32_t crc = 0;
	*is_zero = true;
	for (uint64_t left = BLOCK_BYTES; left > 0;) {
		struct iovec piece = slice_next(s, left);
		crc = crc32c(crc, piece.iov_base, piece.iov_len);
		*is_zero = *is_zero && bytes_are_zero(piece.iov_base, piece.iov_len);
		left -= piece.iov_len;
	}
	return crc;
}

uint64_t blocks_sum(const struct iovec *iov, uint32_t n_iov, uint32_t n_blocks, uint32_t *crcs)
{
	struct slice s = {.iov = iov, .n_iov = n_iov};
	uint64_t zero_blocks = 0;
	quarry_assert(n_blocks > 0 && n_blocks <= 65);
	for (uint32_t i = 0; i < n_blocks; i++) {
		bool is_zero;
		crcs[i] = block_sum(&s, &is_zero);
		zero_blocks |= i < 64 ? (uint64_t)is_zero << i : 0; /* the 65th of an unaligned write is written */
	}
	return zero_blocks;
}
