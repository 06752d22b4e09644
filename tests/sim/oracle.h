/*
 * oracle.h: what a disk may hold: the history of requests, what each cell may read as now, and whether what a recovered
 * disk shows can be explained.
 *
 * A cell is one block of a tree inside one of the windows that the test uses. Its value is a token: 0 for zeros, else a
 * number that no two written blocks share, of which the block's bytes are made (content_fill()).
 */
#pragma once

#include "daemon/core/base.h"

struct oracle;

#define ORACLE_NONE        UINT32_MAX
#define ORACLE_WINDOWS_MAX 8u
#define ORACLE_BAD         UINT64_MAX /* a cell whose block is damaged: reads as -EIO */
#define ORACLE_WHY_BYTES   300u

struct oracle_window {
	uint64_t first;
	uint32_t n_blocks;
};

enum oracle_kind { ORACLE_WRITE, ORACLE_TRIM, ORACLE_CREATE, ORACLE_FORK, ORACLE_DROP };

/* ---- contents ---- */

void content_fill(uint64_t token, void *block);
#define CONTENT_WRONG  (UINT64_MAX - 1)
#define ORACLE_UNKNOWN (UINT64_MAX - 2)    /* expected of a cell whose last change was answered with an error */
uint64_t content_token(const void *block); /* CONTENT_WRONG: no content_fill() made this */
static inline uint64_t token_epoch(uint64_t token)
{
	return token >> 8 & 0xffffff;
}

/* ---- the history ---- */

struct oracle *oracle_create(const struct oracle_window *windows, uint32_t n_windows);
void oracle_destroy(struct oracle *o);
uint32_t oracle_cells(const struct oracle *o); /* of one tree */
uint64_t oracle_cell_block(const struct oracle *o, uint32_t cell);

/* Each begins a request and returns its number, good until the next oracle_judge(). The order of the calls is the
 * order of the requests; those that overlap are not in flight together. */
struct oracle_write {
	uint32_t tree;
	uint64_t first;
	uint32_t n_blocks;    /* inside one window, at most 64 */
	uint64_t zero_blocks; /* bit i: block i is written as zeros */
	uint64_t epoch;
	bool is_ordered;
};
uint32_t oracle_write(struct oracle *o, const struct oracle_write *w);
uint64_t oracle_token(const struct oracle *o, uint32_t request, uint32_t i); /* of its block number i */
uint32_t oracle_trim(struct oracle *o, uint32_t tree, uint64_t first, uint64_t n_blocks);
/* As a trim, but what is of an epoch >= before stays. */
uint32_t oracle_copy_holes(struct oracle *o, uint32_t tree, uint64_t first, uint64_t n_blocks, uint64_t before);
/* Two trees exchange what they hold: one such at a time, and nothing else in flight on either. From its completion on the
 * content keeps its number, and the numbers have each other's id. */
void oracle_swap_begin(struct oracle *o, uint32_t a, uint32_t b);
void oracle_swap_done(struct oracle *o, bool is_completed, bool is_refused);
uint32_t oracle_make(struct oracle *o, uint64_t tree_id); /* an empty tree */
uint32_t oracle_fork(struct oracle *o, uint32_t parent, uint64_t tree_id);
uint32_t oracle_drop(struct oracle *o, uint32_t tree);
uint32_t oracle_request_tree(const struct oracle *o, uint32_t request); /* MAKE, FORK: the new tree */
/* res 0: completed; -ENOSPC, -ESTALE and the like with is_refused: nothing of it was done; else nobody knows. */
void oracle_done(struct oracle *o, uint32_t request, bool is_completed, bool is_refused);
/* A trim completed, but for cells that may have stayed as they were. */
void oracle_done_in_part(struct oracle *o, uint32_t request, bool (*is_spared)(uint64_t block, void *context),
			 void *context);
/* A flush covers what had completed when it began. */
uint64_t oracle_flush_begin(const struct oracle *o);
void oracle_flush_done(struct oracle *o, uint64_t mark);

/* ---- while it runs ---- */

bool oracle_tree_is_live(const struct oracle *o, uint32_t tree); /* made, and not asked to be dropped */
uint32_t oracle_trees(const struct oracle *o);                   /* numbers in use are below this */
uint32_t oracle_tree_find(const struct oracle *o, uint64_t tree_id);
uint64_t oracle_tree_id(const struct oracle *o, uint32_t tree);
uint32_t oracle_tree_changes(const struct oracle *o, uint32_t tree); /* writes, trims and forks of it in flight */
/* What the cell reads as, when nothing is in flight on it. */
uint64_t oracle_expect(const struct oracle *o, uint32_t tree, uint32_t cell);
/* Every cell with this token is damaged from now on. The history must be empty (just judged). Returns how many. */
uint32_t oracle_damage(struct oracle *o, uint64_t token);

/* ---- after a crash ---- */

/* What was in flight is open; with power_loss, so is what completed and was not flushed. */
void oracle_crash(struct oracle *o, bool is_power_loss);
void oracle_see_tree(struct oracle *o, uint32_t tree); /* it exists; the others do not */
void oracle_see(struct oracle *o, uint32_t tree, uint32_t cell, uint64_t token);
enum oracle_leniency {
	ORACLE_STRICT,
	ORACLE_DAMAGED, /* the medium was damaged: anything may be lost or unreadable, nothing may be torn or wrong */
};
/* Is what was seen the old content and some of the requests, whole, in their order, with all that were promised? true:
 * it is the new content, and the history begins anew; ids may have been exchanged, by a swap that was in flight. false: why
 * says what cannot be explained. */
bool oracle_judge(struct oracle *o, enum oracle_leniency leniency, char why[static ORACLE_WHY_BYTES]);
