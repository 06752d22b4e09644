/*
 * survey.c: walks over what backups need.
 */
#include "cli/backup/survey.h"

struct survey {
	const struct repository *repository;
	struct worker *worker;
	bool is_marking;
	uint64_t n_data, n_good; /* blocks; n_good: of these, that can be had */
	uint64_t n_leaves_lost, n_missing, size_bytes;
	struct lost *lost;
};

static bool chunk_is_there(struct survey *s, const struct chunk_id *id)
{
	struct index_place place;
	bool is_somewhere = index_find(s->repository->index, id, &place);
	s->n_missing += !is_somewhere;
	return is_somewhere && index_marked(s->repository->index, id) != MARK_BAD;
}

static void survey_lose(struct survey *s, uint64_t pos_bytes, uint64_t n_blocks)
{
	uint64_t end = pos_bytes + n_blocks * BLOCK_BYTES;
	lost_add(s->lost, pos_bytes, end < s->size_bytes ? end : s->size_bytes);
}

static void survey_leaf(struct survey *s, const struct record_leaf *at)
{
	int error = 0;
	struct leaf_run run;
	uint64_t pos_bytes = at->number * LEAF_BYTES;
	struct leaf *leaf =
	    chunk_is_there(s, &at->id) ? repository_leaf(s->repository, s->worker, &at->id, &error) : NULL;
	if (!leaf) {
		survey_lose(s, pos_bytes, LEAF_BLOCKS);
		s->n_leaves_lost++;
		return;
	}
	for (uint32_t block = 0; leaf_next_run(leaf, &block, LEAF_BLOCKS, &run);) {
		s->n_data += run.n_blocks;
		bool is_there = chunk_is_there(s, &leaf->ids[run.chunk]);
		s->n_good += is_there ? run.n_blocks : 0;
		if (!is_there)
			survey_lose(s, pos_bytes + (uint64_t)run.block * BLOCK_BYTES, run.n_blocks);
		else if (s->is_marking)
			index_mark(s->repository->index, &leaf->ids[run.chunk], MARK_USED);
	}
	if (s->is_marking)
		index_mark(s->repository->index, &at->id, MARK_USED);
	leaf_destroy(leaf);
}

static void survey_run(struct survey *s, const struct record *record)
{
	s->size_bytes = record_number(record, RECORD_SIZE);
	for (uint32_t i = 0; i < record->n_leaves; i++)
		survey_leaf(s, &record->leaves[i]);
}

enum survey_result survey_record(const struct repository *r, struct worker *w, const struct record *record,
				 uint64_t *n_data)
{
	struct lost lost = {0};
	struct survey s = {.repository = r, .worker = w, .lost = &lost};
	survey_run(&s, record);
	*n_data = s.n_data;
	enum survey_result result = lost.n > 0 ? SURVEY_HURT : SURVEY_WHOLE;
	lost_fini(&lost);
	return result;
}

void survey_loss(const struct repository *r, struct worker *w, const struct record *record, struct loss *loss)
{
	*loss = (struct loss){0};
	struct survey s = {.repository = r, .worker = w, .lost = &loss->lost};
	survey_run(&s, record);
	loss->n_missing = s.n_missing;
	loss->data_bytes = loss->lost.n_bytes;
	/* how much data a lost leaf mapped follows from how much there was in all */
	uint64_t all_bytes = record_number(record, RECORD_DATA), good_bytes = s.n_good * BLOCK_BYTES;
	if (s.n_leaves_lost > 0 && all_bytes >= good_bytes && all_bytes - good_bytes < loss->data_bytes)
		loss->data_bytes = all_bytes - good_bytes;
}

enum survey_result survey_use(const struct repository *r, struct worker *w, const struct record *record)
{
	struct lost lost = {0};
	struct survey s = {.repository = r, .worker = w, .is_marking = true, .lost = &lost};
	survey_run(&s, record);
	lost_fini(&lost);
	return s.n_leaves_lost ? SURVEY_HURT : SURVEY_WHOLE;
}
