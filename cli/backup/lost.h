/*
 * lost.h: which bytes of a volume cannot be had from its backup.
 */
#pragma once

#include "cli/backup/fetch.h"

struct lost_range {
	uint64_t begin, end; /* bytes of the volume */
};

/* In order; no two touch. Zeros: nothing. Owner: whoever has it. */
struct lost {
	struct lost_range *ranges;
	uint32_t n, room;
	uint64_t n_bytes;
};

void lost_fini(struct lost *l); /* nothing again */
void lost_add(struct lost *l, uint64_t begin, uint64_t end);
/* The parts of what was fetched from `pos_bytes` on that could not be had; what of it is behind `size_bytes` is nothing. */
void lost_add_fetch(struct lost *l, const struct fetch *f, uint64_t pos_bytes, uint64_t size_bytes);
/* "8192 bytes: 1048576+4096, 2097152+4096"; to be freed. */
char *lost_text(const struct lost *l);
/* Each as {"offset_bytes": ..., "length_bytes": ...}. */
json_t *lost_json(const struct lost *l);
