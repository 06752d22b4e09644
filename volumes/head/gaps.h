/*
 * gaps.h: which blocks of a volume cannot be filled, as a set of ranges.
 */
#pragma once

#include "daemon/core/base.h"

/* When there are more, what is added is told as one with its neighbour, and what lies between them with it. */
#define GAPS_MAX 4096u

struct gap {
	uint64_t first, end; /* blocks */
};

/* In order; no two touch. Zeros: there is none. Owner: whoever has it. */
struct gaps {
	uint32_t n;
	uint64_t n_blocks; /* in all of them */
	struct gap all[GAPS_MAX];
};

/* Adding what is there, and removing what is not, changes nothing. */
void gaps_add(struct gaps *g, uint64_t first, uint64_t end);
void gaps_remove(struct gaps *g, uint64_t first, uint64_t end);
