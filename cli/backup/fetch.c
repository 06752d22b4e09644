/*
 * fetch.c: reads blocks of a backup.
 *
 * 1. Every chunk is held against its name before its blocks count (repository_chunk()).
 * 2. A part that cannot be had does not keep the others from being read.
 */
#include "cli/backup/fetch.h"

#include <errno.h>
#include <string.h>

void fetch_init(struct fetch *f, const struct repository *r, uint32_t n_blocks)
{
	quarry_assert(n_blocks > 0 && n_blocks <= FETCH_BLOCKS_MAX && n_blocks % PIECE_BLOCKS == 0);
	f->repository = r;
	f->n_blocks = n_blocks;
	f->data = malloc((size_t)n_blocks * BLOCK_BYTES);
	f->chunk = malloc(PIECE_BYTES);
	if (!f->data || !f->chunk)
		abort();
}

void fetch_fini(struct fetch *f)
{
	free(f->data);
	free(f->chunk);
}

void fetch_plan(struct fetch *f, const struct leaf *leaf, uint32_t first_block)
{
	struct leaf_run run;
	f->n_parts = 0;
	for (uint32_t block = first_block; leaf_next_run(leaf, &block, first_block + f->n_blocks, &run);) {
		quarry_assert(f->n_parts < FETCH_BLOCKS_MAX);
		f->parts[f->n_parts++] = (struct fetch_part){.id = leaf->ids[run.chunk],
							     .block = run.block - first_block,
							     .n_blocks = run.n_blocks,
							     .at = run.at};
	}
}

/* Runs in a worker. */
static void fetch_work(struct job *job, struct worker *w)
{
	struct fetch *f = (struct fetch *)job;
	size_t n_bytes = 0;
	f->error = 0;
	for (uint32_t i = 0; i < f->n_parts; i++) {
		struct fetch_part *part = &f->parts[i];
		if (i > 0 && id_is_equal(&part->id, &part[-1].id))
			part->error = part[-1].error;
		else
			part->error = repository_chunk(f->repository, w, KIND_DATA, &part->id, f->chunk, PIECE_BYTES,
						       &n_bytes, NULL);
		if (!part->error && (size_t)(part->at + part->n_blocks) * BLOCK_BYTES > n_bytes)
			part->error = -EBADMSG;
		if (!part->error)
			memcpy(f->data + (size_t)part->block * BLOCK_BYTES, f->chunk + (size_t)part->at * BLOCK_BYTES,
			       (size_t)part->n_blocks * BLOCK_BYTES);
		else if (!f->error)
			f->error = part->error;
	}
}

void fetch_submit(struct fetch *f, struct workers *workers)
{
	f->job.work = fetch_work;
	f->is_done = false;
	workers_submit(workers, &f->job);
}

bool fetch_error_is_damage(int error)
{
	return error == -ENOENT || error == -EBADMSG;
}

static bool error_may_pass(int error)
{
	return error && error != -ESTALE && !fetch_error_is_damage(error);
}

int fetch_passing_error(const struct fetch *f)
{
	int error = error_may_pass(f->error) ? f->error : 0;
	for (uint32_t i = 0; i < f->n_parts && !error; i++)
		error = error_may_pass(f->parts[i].error) ? f->parts[i].error : 0;
	return error;
}

bool fetch_next_run(const struct fetch *f, uint32_t *i, uint32_t *block, uint32_t *n_blocks)
{
	while (*i < f->n_parts && f->parts[*i].error)
		++*i;
	if (*i == f->n_parts)
		return false;
	*block = f->parts[*i].block;
	uint32_t end = *block + f->parts[*i].n_blocks;
	while (++*i < f->n_parts && f->parts[*i].block == end && !f->parts[*i].error)
		end += f->parts[*i].n_blocks;
	*n_blocks = end - *block;
	return true;
}
