/*
 * oracle_internal.h: what the files of the oracle share: the history (oracle.c) and its judgement (oracle_judge.c).
 */
#pragma once

#include "tests/sim/oracle.h"

enum request_state { REQUEST_OPEN, REQUEST_COMPLETED, REQUEST_REFUSED };

struct request {
	enum oracle_kind kind;
	enum request_state state;
	uint32_t tree; /* MAKE, FORK: the new one */
	uint32_t parent;
	uint64_t first, n_blocks;
	uint64_t zero_blocks;
	uint64_t before; /* TRIM: what is of this epoch or a later one stays */
	uint64_t token;  /* of block 0; the others follow */
	bool is_ordered, is_durable, is_answered;
	uint64_t submitted_at;      /* completions before it was submitted */
	uint64_t completed_at;      /* its own number; 0: not yet */
	bool is_kept, is_forbidden; /* judgement */
	bool *is_spared;            /* by cell; NULL: none is */
};

struct tree {
	uint64_t id;
	uint32_t parent;  /* ORACLE_NONE: made empty */
	uint32_t made_by; /* request in the log; ORACLE_NONE: it is in the base */
	uint32_t n_changes;
	bool is_used, is_live, is_seen;
	uint64_t *base, *live, *seen; /* by cell; NULL where it is not there */
	uint8_t *is_resolved;
};

struct oracle {
	struct oracle_window windows[ORACLE_WINDOWS_MAX];
	uint32_t n_windows, n_cells;
	struct tree *trees;
	uint32_t n_trees, trees_max;
	struct request *log;
	uint32_t n_log, log_max;
	uint64_t n_completions, flushed_upto, next_serial;
	bool had_power_loss;
	struct {
		bool is_open; /* asked, and not known whether it was made */
		uint32_t a, b;
		uint64_t submitted_at;
	} swap;
	bool is_lenient; /* of the judgement under way: a damaged cell may be anything */
};

/* The cells that a request covers, one range per window. */
struct cover {
	uint32_t cell, n;
	uint64_t offset; /* of the first one, in the request */
};
bool oracle_cover(const struct oracle *o, const struct request *r, uint32_t window,
		  struct cover *out); /* false: none */
/* What the request makes of its block number `offset`. */
uint64_t oracle_request_value(const struct request *r, uint64_t offset);
uint32_t oracle_request_number(const struct oracle *o, const struct request *r);
struct tree *oracle_tree_at(const struct oracle *o, uint32_t tree);
uint64_t *oracle_cells_make(const struct oracle *o, const uint64_t *from); /* NULL: zeros */
void oracle_cells_drop(uint64_t **cells);
/* Was the request done in part, and may this cell have stayed as it was? */
bool oracle_request_spares(const struct request *r, uint32_t cell);
void oracle_log_clear(struct oracle *o);
/* Is this content too new to be replaced by the request's? */
bool oracle_content_stays(const struct request *r, uint64_t token);
/* The swap was made, and with it all that had completed before it began is durable. */
void oracle_swap_make(struct oracle *o);
