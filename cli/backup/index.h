/*
 * index.h: where each chunk of a repository is.
 */
#pragma once

#include "cli/backup/format.h"

/* Any thread may use it; a lock inside. */
struct index;

#define PACK_IN_WORK UINT32_MAX /* the pack that holds it is not written yet */

struct index_place {
	uint32_t pack; /* number of the pack in the repository's list */
	uint32_t offset, n_bytes;
};

struct index *index_create(void);
void index_destroy(struct index *index);
/* False: the chunk is there already; this place is remembered behind the others. */
bool index_add(struct index *index, const struct chunk_id *id, struct index_place place);
/* Gives a chunk that is there this place, before all others; one that it has already comes first. */
void index_move(struct index *index, const struct chunk_id *id, struct index_place place);
/* Its first place. */
bool index_find(struct index *index, const struct chunk_id *id, struct index_place *place);
/* Its n-th place, counted from 0; false: it has fewer. */
bool index_find_other(struct index *index, const struct chunk_id *id, uint32_t n, struct index_place *place);
/* The next chunk that has several places, from slot *at on, which is 0 at first; nobody adds any meanwhile. */
bool index_next_shared(const struct index *index, uint64_t *at, struct chunk_id *id);
/* A mark on a chunk, 0 at first, for the one who counts or checks. Setting: false: it is not there. */
bool index_mark(struct index *index, const struct chunk_id *id, uint8_t mark);
uint8_t index_marked(struct index *index, const struct chunk_id *id);
uint64_t index_n(struct index *index);
