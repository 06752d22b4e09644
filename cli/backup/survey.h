/*
 * survey.h: is a backup whole: is every chunk that it needs in the repository?
 */
#pragma once

#include "cli/backup/lost.h"

/* What a chunk is known for; as marks of the index. */
enum survey_mark {
	MARK_NONE = 0,
	MARK_USED = 1, /* some backup needs it */
	MARK_BAD = 2,  /* it was read, and is not what it was */
};

enum survey_result { SURVEY_WHOLE, SURVEY_HURT };

/* Walks over a backup's leaves. SURVEY_HURT: chunks are missing or marked bad. *n_data: blocks that are no holes. */
must_check enum survey_result survey_record(const struct repository *r, struct worker *w, const struct record *record,
					    uint64_t *n_data);
struct loss {
	struct lost lost;    /* where; of a leaf that is lost, all that it may map, holes as well */
	uint64_t data_bytes; /* how much of it was data */
	uint64_t n_missing;  /* times that something is needed which is in no pack */
};
/* The caller's then: lost_fini(). */
void survey_loss(const struct repository *r, struct worker *w, const struct record *record, struct loss *loss);
/* Marks all that a backup needs as used. SURVEY_HURT: a leaf of it is lost, and what that needs is not known. */
must_check enum survey_result survey_use(const struct repository *r, struct worker *w, const struct record *record);
