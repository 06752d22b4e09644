/*
 * tally.h: what a copy carried, in little memory, to hold what its target gives back against.
 */
#pragma once

#include "cli/cli.h"

#define TALLY_BLOCK_BYTES 4096u
#define TALLY_KEY_BYTES   16u

struct tally {
	uint8_t key[TALLY_KEY_BYTES];
	uint64_t region_bytes;
	uint32_t n_regions;
	uint64_t *sums; /* one for each region; 0: as much was taken as was put */
};

void tally_begin(struct tally *t, uint64_t size_bytes);
void tally_end(struct tally *t);
/* In any order and in any pieces that begin and end with a block; only the end of all may lie within one. */
void tally_put(struct tally *t, const void *data, uint64_t len_bytes, uint64_t pos_bytes);
void tally_take(struct tally *t, const void *data, uint64_t len_bytes, uint64_t pos_bytes);
/* Whether what was taken is what was put; if not, a range where it is not. */
must_check bool tally_is_even(const struct tally *t, uint64_t *pos_bytes, uint64_t *end_bytes);
