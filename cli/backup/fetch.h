/*
 * fetch.h: a run of blocks of a backup, read from its chunks by a worker.
 */
#pragma once

#include "cli/backup/repository.h"

#define FETCH_BLOCKS_MAX 256u

/* Consecutive blocks that come from one chunk. */
struct fetch_part {
	struct chunk_id id;
	uint32_t block, n_blocks, at; /* within what is fetched; first block within the chunk */
	int error;                    /* 0, or as of repository_chunk(): the part has no data */
};

/* Owner: the command; its worker's from fetch_submit() until the job is taken, which sets is_done. */
struct fetch {
	struct job job; /* the first member: a job that is taken is a fetch */
	const struct repository *repository;
	uint32_t n_blocks; /* room in data */
	struct fetch_part parts[FETCH_BLOCKS_MAX];
	uint32_t n_parts;
	uint8_t *data, *chunk;
	int error; /* the first part's that has one */
	bool is_done;
};

void fetch_init(struct fetch *f, const struct repository *r, uint32_t n_blocks);
void fetch_fini(struct fetch *f);
/* What the leaf has from this block on; 0 parts: all is hole. */
void fetch_plan(struct fetch *f, const struct leaf *leaf, uint32_t first_block);
void fetch_submit(struct fetch *f, struct workers *workers);
/* Is it lost, and not just out of reach now? */
bool fetch_error_is_damage(int error);
/* An error of it that may pass: neither damage, nor a pack that has gone; 0: there is none. */
int fetch_passing_error(const struct fetch *f);
/* The next run of parts that touch each other, from part *i on, which is moved behind it; false: there is none. */
bool fetch_next_run(const struct fetch *f, uint32_t *i, uint32_t *block, uint32_t *n_blocks);
