/*
 * cluster_oracle.h: what every block of a volume may hold.
 *
 * A cell is one block that the test uses. It has the versions that requests gave it, in the order of their submission, which
 * is that of their execution: overlapping requests of a head are carried out so, and heads follow one another. A version is
 * certain when it was acknowledged, and can be lost from then on only where every current disk of its segment has lost power
 * since and it was not flushed (P1). So a read may find the newest certain version, or any younger one.
 *
 * A value is a token: 0 for zeros, else a number that no two written blocks share (content_fill()).
 */
#pragma once

#include "tests/sim/oracle.h"

#define CELLS_EACH    12u /* of a segment */
#define IO_BLOCKS_MAX 6u  /* of a request; it is atomic (P5) */

struct oracle_volume;

/* How far a volume was at some moment. */
struct oracle_mark {
	uint64_t moment;
};

/* All zeros. The number is one that no other volume of the run has. */
struct oracle_volume *oracle_volume_create(uint32_t n_segments, uint32_t number);
void oracle_volume_destroy(struct oracle_volume *v);
uint32_t oracle_volume_cells(const struct oracle_volume *v);
struct oracle_mark oracle_now(struct oracle_volume *v);

/* ---- requests ---- */

/* A change of cells side by side in one segment; returns its number. has_zeros: every block becomes zeros. is_void: a
 * fenced head was asked: it can have no effect. */
uint32_t oracle_change(struct oracle_volume *v, uint32_t first_cell, uint32_t n_cells, bool has_zeros, bool is_void);
/* Of its cell number i. */
uint64_t oracle_change_token(const struct oracle_volume *v, uint32_t request, uint32_t i);
/* It was acknowledged, durably or not; or nobody knows. */
void oracle_change_done(struct oracle_volume *v, uint32_t request, bool is_certain, bool is_durable);
/* A flush that began at the mark has completed. */
void oracle_flushed(struct oracle_volume *v, struct oracle_mark mark);
/* A read that began at the mark has found this. false: with a sentence in why. */
bool oracle_read(struct oracle_volume *v, uint32_t cell, struct oracle_mark mark, uint64_t token,
		 char why[static ORACLE_WHY_BYTES]);

/* The cell's content, when it can be nothing else and is durable, and nothing is under way there. false: it is not so. */
bool oracle_settled(const struct oracle_volume *v, uint32_t cell, uint64_t *token);

/* ---- losses ---- */

/* These disks have lost power: bit per disk. */
void oracle_power_lost(struct oracle_volume *v, uint64_t disks);
/* Of the segment these are current, now: what all of them have lost since may be gone. Returns how many versions. */
uint32_t oracle_current(struct oracle_volume *v, uint32_t segment, uint64_t disks);

/* ---- points: what a snapshot may hold ---- */

struct point;
/* Of a snapshot that began at the mark, and ends now. */
struct point *point_take(const struct oracle_volume *v, struct oracle_mark mark);
struct point *point_copy(const struct point *p);
void point_free(struct point *p);
/* From now on it is what was read. */
bool point_read(struct point *p, uint32_t cell, uint64_t token, char why[static ORACLE_WHY_BYTES]);
/* The volume, where nothing is under way, holds the point. */
void oracle_roll_back(struct oracle_volume *v, const struct point *p);
struct oracle_volume *oracle_volume_clone(const struct point *p, uint32_t number);
