/*
 * survey.c: walks over what backups need.
 */
#include "cli/backup/survey.h"

struct survey {
	const struct repository *repository;
	struct worker *worker;
	bool is_marking;
	uint64_t n_data, n_lost; /* blocks */
	uint64_t n_leaves_lost;
};

static bool chunk_is_there(const struct survey *s, const struct chunk_id *id)
{
	struct index_place place;
	return index_find(s->repository->index, id, &place) && index_marked(s->repository->index, id) != MARK_BAD;
}

static void survey_leaf(struct survey *s, const struct chunk_id *id)
{
	int error = 0;
	struct leaf_run run;
	struct leaf *leaf = chunk_is_there(s, id) ? repository_leaf(s->repository, s->worker, id, &error) : NULL;
	if (!leaf) {
		s->n_lost += LEAF_BLOCKS;
		s->n_leaves_lost++;
		return;
	}
	for (uint32_t block = 0; leaf_next_run(leaf, &block, LEAF_BLOCKS, &run);) {
		s->n_data += run.n_blocks;
		if (!chunk_is_there(s, &leaf->ids[run.chunk]))
			s->n_lost += run.n_blocks;
		else if (s->is_marking)
			index_mark(s->repository->index, &leaf->ids[run.chunk], MARK_USED);
	}
	if (s->is_marking)
		index_mark(s->repository->index, id, MARK_USED);
	leaf_destroy(leaf);
}

static void survey_run(struct survey *s, const struct record *record)
{
	for (uint32_t i = 0; i < record->n_leaves; i++)
		survey_leaf(s, &record->leaves[i].id);
}

enum survey_result survey_record(const struct repository *r, struct worker *w, const struct record *record,
				 uint64_t *n_data)
{
	struct survey s = {.repository = r, .worker = w};
	survey_run(&s, record);
	*n_data = s.n_data;
	return s.n_lost ? SURVEY_HURT : SURVEY_WHOLE;
}

uint64_t survey_lost(const struct repository *r, struct worker *w, const struct record *record)
{
	struct survey s = {.repository = r, .worker = w};
	survey_run(&s, record);
	return s.n_lost;
}

enum survey_result survey_use(const struct repository *r, struct worker *w, const struct record *record)
{
	struct survey s = {.repository = r, .worker = w, .is_marking = true};
	survey_run(&s, record);
	return s.n_leaves_lost ? SURVEY_HURT : SURVEY_WHOLE;
}
