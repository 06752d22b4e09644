/*
 * oracle.c: judges what a recovered disk shows, from the history of requests.
 *
 * The question: is there a set of requests, containing all that must be there, such that the old content (base) with
 * the whole requests of the set applied in their order is what was seen? And does no ordered write stand in the set
 * without every request that had completed before it was submitted [RMWDEP]?
 *
 * The answer is exact and needs no search. Walk from the newest request to the oldest and keep each one that can be
 * kept: all its cells are either resolved (a kept, newer request covers them) or show just what it wrote. Keeping a
 * request only ever resolves cells, which makes it easier for older ones; so the set found is the largest, and if a
 * request is not in it, it is in none. An ordered write that misses a predecessor is forbidden, and the walk repeated.
 *
 * A trim may be long and is not atomic: each of its cells stands for itself, but a trim that must be there is whole;
 * of one that was done in part, the cells that it spared are as it left them or as they were.
 *
 * A fork copies: a request on a tree shows in the tree and in every tree forked from it (or from such a one) later. A
 * tree that is not there constrains nothing.
 *
 * Invariants
 *  1. `live` is what a read returns of cells that nothing in flight covers; it changes when a request completes.
 *  2. The history (`log`) holds every request since the last judgement, in the order of submission.
 *  3. A request is open, completed or refused; refused ones are never in the set; tokens are never used twice.
 *  4. Trees are numbered in the order in which they were made: a child's number is above its parent's.
 */
#include "tests/sim/oracle.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_OF_BLOCK   (BLOCK_BYTES / 8)
#define WORD_STEP        0x9e3779b97f4a7c15ull
#define WRITE_BLOCKS_MAX 64u

enum request_state { REQUEST_OPEN, REQUEST_COMPLETED, REQUEST_REFUSED };

struct request {
	enum oracle_kind kind;
	enum request_state state;
	uint32_t tree; /* MAKE, FORK: the new one */
	uint32_t parent;
	uint64_t first, n_blocks;
	uint64_t zero_blocks;
	uint64_t token; /* of block 0; the others follow */
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
	bool is_lenient; /* of the judgement under way: a damaged cell may be anything */
};

/* ---- contents ---- */

void content_fill(uint64_t token, void *block)
{
	uint64_t *words = block;

	if (token == 0) {
		memset(block, 0, BLOCK_BYTES);
		return;
	}
	for (uint64_t i = 0; i < WORDS_OF_BLOCK; i++)
		words[i] = token + i * WORD_STEP;
}

uint64_t content_token(const void *block)
{
	const uint64_t *words = block;
	uint64_t token = words[0], wrong = 0;

	if (token == 0) {
		for (uint64_t i = 0; i < WORDS_OF_BLOCK; i++)
			wrong |= words[i];
	} else {
		for (uint64_t i = 0; i < WORDS_OF_BLOCK; i++)
			wrong |= words[i] ^ (token + i * WORD_STEP);
	}
	return wrong ? CONTENT_WRONG : token;
}

/* ---- cells ---- */

static const struct oracle_window *window_of(const struct oracle *o, uint64_t block, uint32_t *cell)
{
	*cell = 0;
	for (uint32_t i = 0; i < o->n_windows; i++) {
		const struct oracle_window *w = &o->windows[i];
		if (block >= w->first && block - w->first < w->n_blocks) {
			*cell += (uint32_t)(block - w->first);
			return w;
		}
		*cell += w->n_blocks;
	}
	return NULL;
}

uint32_t oracle_cells(const struct oracle *o)
{
	return o->n_cells;
}

uint64_t oracle_cell_block(const struct oracle *o, uint32_t cell)
{
	quarry_assert(cell < o->n_cells);
	for (uint32_t i = 0;; i++) {
		if (cell < o->windows[i].n_blocks)
			return o->windows[i].first + cell;
		cell -= o->windows[i].n_blocks;
	}
}

/* The cells that a request covers, one range per window. */
struct cover {
	uint32_t cell, n;
	uint64_t offset; /* of the first one, in the request */
};

static bool cover_window(const struct oracle *o, const struct request *r, uint32_t window, struct cover *out)
{
	const struct oracle_window *w = &o->windows[window];
	uint64_t end = w->first + w->n_blocks;
	uint64_t from = max_u64(r->first, w->first);
	uint64_t to = r->n_blocks > UINT64_MAX - r->first ? end : min_u64(r->first + r->n_blocks, end);

	if (from >= to)
		return false;
	out->cell = (uint32_t)(from - w->first);
	for (uint32_t i = 0; i < window; i++)
		out->cell += o->windows[i].n_blocks;
	out->n = (uint32_t)(to - from);
	out->offset = from - r->first;
	return true;
}

static uint64_t request_value(const struct request *r, uint64_t offset)
{
	if (r->kind != ORACLE_WRITE || (r->zero_blocks >> offset & 1))
		return 0;
	return r->token + offset;
}

static bool request_spares(const struct request *r, uint32_t cell)
{
	return r->is_spared != NULL && r->is_spared[cell];
}

static uint64_t *cells_make(const struct oracle *o, const uint64_t *from)
{
	uint64_t *cells = calloc(o->n_cells, sizeof(*cells));

	quarry_assert(cells != NULL);
	if (from != NULL)
		memcpy(cells, from, o->n_cells * sizeof(*cells));
	return cells;
}

static void cells_drop(uint64_t **cells)
{
	free(*cells);
	*cells = NULL;
}

/* ---- the history ---- */

struct oracle *oracle_create(const struct oracle_window *windows, uint32_t n_windows)
{
	struct oracle *o = calloc(1, sizeof(*o));

	quarry_assert(o != NULL);
	quarry_assert(n_windows > 0 && n_windows <= ORACLE_WINDOWS_MAX);
	memcpy(o->windows, windows, n_windows * sizeof(*windows));
	o->n_windows = n_windows;
	for (uint32_t i = 0; i < n_windows; i++)
		o->n_cells += windows[i].n_blocks;
	o->next_serial = 1;
	return o;
}

static void log_clear(struct oracle *o)
{
	for (uint32_t i = 0; i < o->n_log; i++)
		free(o->log[i].is_spared);
	o->n_log = 0;
}

void oracle_destroy(struct oracle *o)
{
	log_clear(o);
	for (uint32_t i = 0; i < o->n_trees; i++) {
		cells_drop(&o->trees[i].base);
		cells_drop(&o->trees[i].live);
		cells_drop(&o->trees[i].seen);
		free(o->trees[i].is_resolved);
	}
	free(o->trees);
	free(o->log);
	free(o);
}

static struct tree *tree_at(const struct oracle *o, uint32_t tree)
{
	quarry_assert(tree < o->n_trees);
	return &o->trees[tree];
}

static struct request *log_append(struct oracle *o, enum oracle_kind kind, uint32_t tree)
{
	if (o->n_log == o->log_max) {
		o->log_max = o->log_max ? o->log_max * 2 : 256;
		o->log = realloc(o->log, o->log_max * sizeof(*o->log));
		quarry_assert(o->log != NULL);
	}
	struct request *r = &o->log[o->n_log++];
	*r = (struct request){.kind = kind, .tree = tree, .parent = ORACLE_NONE, .submitted_at = o->n_completions};
	return r;
}

static uint32_t request_number(const struct oracle *o, const struct request *r)
{
	return (uint32_t)(r - o->log);
}

uint32_t oracle_write(struct oracle *o, const struct oracle_write *w)
{
	struct request *r = log_append(o, ORACLE_WRITE, w->tree);
	uint32_t cell;

	quarry_assert(oracle_tree_is_live(o, w->tree));
	quarry_assert(w->n_blocks > 0 && w->n_blocks <= WRITE_BLOCKS_MAX);
	const struct oracle_window *first = window_of(o, w->first, &cell);
	const struct oracle_window *last = window_of(o, w->first + w->n_blocks - 1, &cell);
	quarry_assert(first != NULL && first == last);
	r->first = w->first;
	r->n_blocks = w->n_blocks;
	r->zero_blocks = w->zero_blocks;
	r->is_ordered = w->is_ordered;
	r->token = o->next_serial++ << 32 | (w->epoch & 0xffffff) << 8;
	tree_at(o, w->tree)->n_changes++;
	return request_number(o, r);
}

uint64_t oracle_token(const struct oracle *o, uint32_t request, uint32_t i)
{
	quarry_assert(request < o->n_log && o->log[request].kind == ORACLE_WRITE);
	return request_value(&o->log[request], i);
}

uint32_t oracle_trim(struct oracle *o, uint32_t tree, uint64_t first, uint64_t n_blocks)
{
	struct request *r = log_append(o, ORACLE_TRIM, tree);

	quarry_assert(oracle_tree_is_live(o, tree));
	r->first = first;
	r->n_blocks = n_blocks;
	tree_at(o, tree)->n_changes++;
	return request_number(o, r);
}

static uint32_t tree_add(struct oracle *o, uint64_t id, uint32_t parent)
{
	quarry_assert(oracle_tree_find(o, id) == ORACLE_NONE);
	if (o->n_trees == o->trees_max) {
		o->trees_max = o->trees_max ? o->trees_max * 2 : 64;
		o->trees = realloc(o->trees, o->trees_max * sizeof(*o->trees));
		quarry_assert(o->trees != NULL);
	}
	o->trees[o->n_trees] = (struct tree){.id = id, .parent = parent, .made_by = o->n_log, .is_used = true};
	return o->n_trees++;
}

uint32_t oracle_make(struct oracle *o, uint64_t tree_id)
{
	uint32_t tree = tree_add(o, tree_id, ORACLE_NONE);

	return request_number(o, log_append(o, ORACLE_CREATE, tree));
}

uint32_t oracle_fork(struct oracle *o, uint32_t parent, uint64_t tree_id)
{
	quarry_assert(oracle_tree_is_live(o, parent));
	uint32_t tree = tree_add(o, tree_id, parent);
	struct request *r = log_append(o, ORACLE_FORK, tree);
	r->parent = parent;
	tree_at(o, parent)->n_changes++;
	return request_number(o, r);
}

uint32_t oracle_drop(struct oracle *o, uint32_t tree)
{
	struct tree *t = tree_at(o, tree);

	quarry_assert(t->is_live && t->n_changes == 0);
	t->is_live = false;
	return request_number(o, log_append(o, ORACLE_DROP, tree));
}

uint32_t oracle_request_tree(const struct oracle *o, uint32_t request)
{
	quarry_assert(request < o->n_log);
	return o->log[request].tree;
}

static void request_apply_live(struct oracle *o, const struct request *r, bool is_known)
{
	struct tree *t = tree_at(o, r->tree);
	struct cover c;

	for (uint32_t w = 0; w < o->n_windows && t->live != NULL; w++) {
		if (!cover_window(o, r, w, &c))
			continue;
		for (uint32_t i = 0; i < c.n; i++) {
			uint64_t *live = &t->live[c.cell + i];
			if (request_spares(r, c.cell + i)) /* what was a hole is one still */
				*live = *live == 0 ? 0 : ORACLE_UNKNOWN;
			else
				*live = is_known ? request_value(r, c.offset + i) : ORACLE_UNKNOWN;
		}
	}
}

/* A fork waits for the writes in flight on its parent [FORKWAIT]: when it completes, none that came before is open. */
static void check_fork_waited(const struct oracle *o, const struct request *fork)
{
	for (const struct request *r = o->log; r < fork; r++) {
		bool is_change = r->kind == ORACLE_WRITE || r->kind == ORACLE_TRIM;
		quarry_assert(!is_change || r->tree != fork->parent || r->is_answered);
	}
}

static void request_completed(struct oracle *o, struct request *r)
{
	struct tree *t = tree_at(o, r->tree);

	r->state = REQUEST_COMPLETED;
	r->completed_at = ++o->n_completions;
	switch (r->kind) {
	case ORACLE_WRITE:
	case ORACLE_TRIM:
		request_apply_live(o, r, true);
		return;
	case ORACLE_FORK:
		check_fork_waited(o, r);
		t->live = cells_make(o, tree_at(o, r->parent)->live);
		o->flushed_upto = max_u64(o->flushed_upto, r->submitted_at);
		break;
	case ORACLE_CREATE:
		t->live = cells_make(o, NULL);
		break;
	case ORACLE_DROP:
		cells_drop(&t->live);
		break;
	}
	r->is_durable = true;
	t->is_live = r->kind != ORACLE_DROP;
}

void oracle_done(struct oracle *o, uint32_t request, bool is_completed, bool is_refused)
{
	struct request *r = &o->log[request];

	quarry_assert(request < o->n_log && r->state == REQUEST_OPEN);
	quarry_assert(!is_completed || !is_refused);
	r->is_answered = true;
	if (r->kind == ORACLE_WRITE || r->kind == ORACLE_TRIM)
		tree_at(o, r->tree)->n_changes--;
	else if (r->kind == ORACLE_FORK)
		tree_at(o, r->parent)->n_changes--;
	if (is_completed)
		request_completed(o, r);
	else if (is_refused)
		r->state = REQUEST_REFUSED;
	else if (r->kind == ORACLE_WRITE || r->kind == ORACLE_TRIM)
		request_apply_live(o, r, false);
	if (is_refused && r->kind == ORACLE_DROP)
		tree_at(o, r->tree)->is_live = true;
}

void oracle_done_in_part(struct oracle *o, uint32_t request, bool (*is_spared)(uint64_t block, void *context),
			 void *context)
{
	struct request *r = &o->log[request];

	quarry_assert(request < o->n_log && r->kind == ORACLE_TRIM && r->is_spared == NULL);
	r->is_spared = calloc(o->n_cells, sizeof(*r->is_spared));
	quarry_assert(r->is_spared != NULL);
	for (uint32_t cell = 0; cell < o->n_cells; cell++)
		r->is_spared[cell] = is_spared(oracle_cell_block(o, cell), context);
	oracle_done(o, request, true, false);
}

uint64_t oracle_flush_begin(const struct oracle *o)
{
	return o->n_completions;
}

void oracle_flush_done(struct oracle *o, uint64_t mark)
{
	o->flushed_upto = max_u64(o->flushed_upto, mark);
}

/* ---- while it runs ---- */

bool oracle_tree_is_live(const struct oracle *o, uint32_t tree)
{
	return tree_at(o, tree)->is_live;
}
uint32_t oracle_trees(const struct oracle *o)
{
	return o->n_trees;
}
uint64_t oracle_tree_id(const struct oracle *o, uint32_t tree)
{
	return tree_at(o, tree)->id;
}
uint32_t oracle_tree_changes(const struct oracle *o, uint32_t tree)
{
	return tree_at(o, tree)->n_changes;
}

uint32_t oracle_tree_find(const struct oracle *o, uint64_t tree_id)
{
	for (uint32_t i = 0; i < o->n_trees; i++) {
		if (o->trees[i].is_used && o->trees[i].id == tree_id)
			return i;
	}
	return ORACLE_NONE;
}

uint64_t oracle_expect(const struct oracle *o, uint32_t tree, uint32_t cell)
{
	const struct tree *t = tree_at(o, tree);

	quarry_assert(t->live != NULL && cell < o->n_cells);
	return t->live[cell];
}

uint32_t oracle_damage(struct oracle *o, uint64_t token)
{
	uint32_t n = 0;

	quarry_assert(o->n_log == 0 && token != 0);
	for (uint32_t i = 0; i < o->n_trees; i++) {
		struct tree *t = &o->trees[i];
		for (uint32_t cell = 0; t->live != NULL && cell < o->n_cells; cell++) {
			if (t->live[cell] != token)
				continue;
			t->live[cell] = t->base[cell] = ORACLE_BAD;
			n++;
		}
	}
	return n;
}

/* ---- after a crash ---- */

void oracle_crash(struct oracle *o, bool is_power_loss)
{
	o->had_power_loss = o->had_power_loss || is_power_loss;
	for (uint32_t i = 0; i < o->n_trees; i++) {
		struct tree *t = &o->trees[i];
		t->n_changes = 0;
		t->is_seen = false;
		cells_drop(&t->seen);
	}
}

void oracle_see_tree(struct oracle *o, uint32_t tree)
{
	struct tree *t = tree_at(o, tree);

	quarry_assert(t->is_used && !t->is_seen);
	t->is_seen = true;
	t->seen = cells_make(o, NULL);
}

void oracle_see(struct oracle *o, uint32_t tree, uint32_t cell, uint64_t token)
{
	quarry_assert(tree_at(o, tree)->is_seen && cell < o->n_cells);
	o->trees[tree].seen[cell] = token;
}

/* ---- judgement ---- */

struct judgement {
	struct oracle *o;
	enum oracle_leniency leniency;
	char *why;
};

static bool object(const struct judgement *j, const char *format, ...) printf_like(2, 3);
static bool object(const struct judgement *j, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(j->why, ORACLE_WHY_BYTES, format, args);
	va_end(args);
	return false;
}

static const char *kind_name(enum oracle_kind kind)
{
	static const char *const names[] = {"write", "trim", "create", "fork", "drop"};

	return names[kind];
}

static bool request_is_flushed(const struct oracle *o, const struct request *r)
{
	return r->completed_at != 0 && (r->is_durable || r->completed_at <= o->flushed_upto);
}

static bool request_must_be(const struct judgement *j, const struct request *r)
{
	if (j->leniency == ORACLE_DAMAGED)
		return false;
	return request_is_flushed(j->o, r) || (!j->o->had_power_loss && r->state == REQUEST_COMPLETED);
}

/* Does this tree's content come from the request's tree as it was after the request? (story: a fork copies) */
static bool tree_descends(const struct oracle *o, uint32_t tree, const struct request *r)
{
	while (tree != r->tree) {
		const struct tree *t = &o->trees[tree];
		if (t->parent == ORACLE_NONE || t->made_by == ORACLE_NONE || t->made_by < request_number(o, r))
			return false;
		tree = t->parent;
	}
	return true;
}

/* Could the cell, in every tree that has it from the request's tree, be as the request left it? */
static bool cell_allows(const struct oracle *o, const struct request *r, uint32_t cell, uint64_t value)
{
	for (uint32_t i = r->tree; i < o->n_trees; i++) {
		const struct tree *t = &o->trees[i];
		if (!t->is_seen || t->is_resolved[cell] || t->seen[cell] == value)
			continue;
		if (t->seen[cell] == ORACLE_BAD && o->is_lenient)
			continue;
		if (tree_descends(o, i, r))
			return false;
	}
	return true;
}

static void cell_resolve(struct oracle *o, const struct request *r, uint32_t cell)
{
	for (uint32_t i = r->tree; i < o->n_trees; i++) {
		if (o->trees[i].is_seen && tree_descends(o, i, r))
			o->trees[i].is_resolved[cell] = 1;
	}
}

/* Walks over the request's cells. A write is kept whole or not at all; each cell of a trim is trimmed or not. */
static bool cells_judge(struct oracle *o, const struct request *r, bool is_resolving)
{
	bool is_whole = true;
	struct cover c;

	for (uint32_t w = 0; w < o->n_windows; w++) {
		if (!cover_window(o, r, w, &c))
			continue;
		for (uint32_t i = 0; i < c.n; i++) {
			if (cell_allows(o, r, c.cell + i, request_value(r, c.offset + i))) {
				if (is_resolving)
					cell_resolve(o, r, c.cell + i);
			} else if (!request_spares(r, c.cell + i)) {
				is_whole = false;
			}
		}
	}
	return is_whole;
}

/* Keeps the write or trim if that explains all its cells. */
static void change_judge(struct oracle *o, struct request *r)
{
	r->is_kept = !r->is_forbidden && r->state != REQUEST_REFUSED;
	if (!r->is_kept)
		return;
	r->is_kept = cells_judge(o, r, r->kind == ORACLE_TRIM);
	if (r->is_kept && r->kind == ORACLE_WRITE)
		cells_judge(o, r, true);
}

static bool drop_was_asked(const struct oracle *o, uint32_t tree)
{
	for (uint32_t i = 0; i < o->n_log; i++) {
		if (o->log[i].kind == ORACLE_DROP && o->log[i].tree == tree && o->log[i].state != REQUEST_REFUSED)
			return true;
	}
	return false;
}

static void request_judge(struct oracle *o, struct request *r)
{
	bool is_seen = o->trees[r->tree].is_seen;

	switch (r->kind) {
	case ORACLE_WRITE:
	case ORACLE_TRIM:
		change_judge(o, r);
		return;
	case ORACLE_CREATE:
	case ORACLE_FORK:
		r->is_kept = r->state != REQUEST_REFUSED && (is_seen || drop_was_asked(o, r->tree));
		return;
	case ORACLE_DROP:
		r->is_kept = !is_seen && r->state != REQUEST_REFUSED;
		return;
	}
}

/* One walk from the newest to the oldest. */
static void walk(struct oracle *o)
{
	for (uint32_t i = 0; i < o->n_trees; i++) {
		struct tree *t = &o->trees[i];
		if (t->is_seen && t->is_resolved == NULL)
			t->is_resolved = malloc(o->n_cells);
		if (t->is_seen)
			memset(t->is_resolved, 0, o->n_cells);
	}
	for (uint32_t i = o->n_log; i > 0; i--)
		request_judge(o, &o->log[i - 1]);
}

/* Forbids ordered writes whose predecessors are not all kept; true: there was one. */
static bool forbid_orphans(struct oracle *o)
{
	bool is_any = false;

	for (uint32_t i = 0; i < o->n_log; i++) {
		struct request *r = &o->log[i];
		if (!r->is_ordered || !r->is_kept)
			continue;
		for (uint32_t k = 0; k < i; k++) {
			const struct request *before = &o->log[k];
			if (before->completed_at == 0 || before->completed_at > r->submitted_at || before->is_kept)
				continue;
			r->is_forbidden = is_any = true;
			break;
		}
	}
	return is_any;
}

static bool object_to_loss(const struct judgement *j, const struct request *r)
{
	return object(j, "%s %s %" PRIu32 " is lost or torn: tree %" PRIu64 " blocks %" PRIu64 "+%" PRIu64 "%s",
		      request_is_flushed(j->o, r) ? "flushed" : "completed", kind_name(r->kind),
		      request_number(j->o, r), j->o->trees[r->tree].id, r->first, r->n_blocks,
		      r->is_ordered ? ", ordered" : "");
}

static bool judge_requests(const struct judgement *j)
{
	struct oracle *o = j->o;

	for (uint32_t i = 0; i < o->n_log; i++) {
		if (!o->log[i].is_kept && request_must_be(j, &o->log[i]))
			return object_to_loss(j, &o->log[i]);
	}
	return true;
}

/* Which tree's base the content of this tree goes back to; NULL: it began empty. */
static const struct tree *tree_origin(const struct oracle *o, const struct tree *t)
{
	while (t->made_by != ORACLE_NONE) {
		if (t->parent == ORACLE_NONE)
			return NULL;
		t = &o->trees[t->parent];
	}
	return t;
}

/* For the message: whose token is it? */
static const char *token_story(const struct oracle *o, uint64_t token, char text[static 120])
{
	if (token == 0)
		return "zeros";
	if (token == ORACLE_BAD)
		return "unreadable";
	for (uint32_t i = 0; i < o->n_log; i++) {
		const struct request *r = &o->log[i];
		if (r->kind == ORACLE_WRITE && token - r->token < r->n_blocks) {
			snprintf(text, 120,
				 "block %" PRIu64 " of write %" PRIu32 " (tree %" PRIu64 " at %" PRIu64 "+%" PRIu64
				 ", %s)",
				 token - r->token, i, o->trees[r->tree].id, r->first, r->n_blocks,
				 r->state == REQUEST_COMPLETED ? "completed"
				 : r->state == REQUEST_REFUSED ? "refused"
							       : "open");
			return text;
		}
	}
	snprintf(text, 120, "older data %" PRIx64, token);
	return text;
}

static bool judge_rest(const struct judgement *j, const struct tree *t)
{
	const struct oracle *o = j->o;
	const struct tree *origin = tree_origin(o, t);
	char seen_text[120], base_text[120];

	for (uint32_t cell = 0; cell < o->n_cells; cell++) {
		uint64_t base = origin != NULL ? origin->base[cell] : 0;
		uint64_t seen = t->seen[cell];
		if (t->is_resolved[cell] || seen == base || (seen == ORACLE_BAD && j->leniency == ORACLE_DAMAGED))
			continue;
		return object(j, "tree %" PRIu64 " block %" PRIu64 " shows %s, which nothing explains; before: %s",
			      t->id, oracle_cell_block(o, cell), token_story(o, seen, seen_text),
			      token_story(o, base, base_text));
	}
	return true;
}

static bool judge_trees(const struct judgement *j)
{
	const struct oracle *o = j->o;

	for (uint32_t i = 0; i < o->n_trees; i++) {
		const struct tree *t = &o->trees[i];
		if (!t->is_used)
			continue;
		bool was_there = t->made_by == ORACLE_NONE;
		if (!t->is_seen && was_there && !drop_was_asked(o, i) && j->leniency == ORACLE_STRICT)
			return object(j, "tree %" PRIu64 " is gone, and nobody dropped it", t->id);
		if (t->is_seen && !was_there && o->log[t->made_by].state == REQUEST_REFUSED)
			return object(j, "tree %" PRIu64 " is there, though it was refused", t->id);
		if (t->is_seen && !judge_rest(j, t))
			return false;
	}
	return true;
}

/* What was seen is the base from now on. */
static void history_restart(struct oracle *o)
{
	for (uint32_t i = 0; i < o->n_trees; i++) {
		struct tree *t = &o->trees[i];
		cells_drop(&t->base);
		cells_drop(&t->live);
		t->is_live = t->is_used = t->is_seen;
		t->is_seen = false;
		t->made_by = t->parent = ORACLE_NONE;
		if (!t->is_live)
			continue;
		t->base = t->seen;
		t->seen = NULL;
		t->live = cells_make(o, t->base);
	}
	log_clear(o);
	o->n_completions = o->flushed_upto = 0;
	o->had_power_loss = false;
}

bool oracle_judge(struct oracle *o, enum oracle_leniency leniency, char why[static ORACLE_WHY_BYTES])
{
	struct judgement j = {.o = o, .leniency = leniency, .why = why};

	o->is_lenient = leniency == ORACLE_DAMAGED;
	do {
		walk(o);
	} while (forbid_orphans(o));
	if (!judge_requests(&j) || !judge_trees(&j))
		return false;
	history_restart(o);
	quarry_assert(o->n_log == 0);
	return true;
}
