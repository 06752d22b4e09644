/*
 * oracle.c: the history of requests: what each cell may read as now. Its judgement is oracle_judge.c's.
 *
 * Invariants
 *  1. `live` is what a read returns of cells that nothing in flight covers; it changes when a request completes.
 *  2. The history (`log`) holds every request since the last judgement, in the order of submission.
 *  3. A request is open, completed or refused; refused ones are never in the set; tokens are never used twice.
 *  4. Trees are numbered in the order in which they were made: a child's number is above its parent's.
 */
#include "tests/sim/oracle_internal.h"

#include <stdlib.h>
#include <string.h>

#define WORDS_OF_BLOCK   (BLOCK_BYTES / 8)
#define WORD_STEP        0x9e3779b97f4a7c15ull
#define WRITE_BLOCKS_MAX 64u

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

bool oracle_cover(const struct oracle *o, const struct request *r, uint32_t window, struct cover *out)
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

uint64_t oracle_request_value(const struct request *r, uint64_t offset)
{
	if (r->kind != ORACLE_WRITE || (r->zero_blocks >> offset & 1))
		return 0;
	return r->token + offset;
}

bool oracle_request_spares(const struct request *r, uint32_t cell)
{
	return r->is_spared != NULL && r->is_spared[cell];
}

uint64_t *oracle_cells_make(const struct oracle *o, const uint64_t *from)
{
	uint64_t *cells = calloc(o->n_cells, sizeof(*cells));

	quarry_assert(cells != NULL);
	if (from != NULL)
		memcpy(cells, from, o->n_cells * sizeof(*cells));
	return cells;
}

void oracle_cells_drop(uint64_t **cells)
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

void oracle_log_clear(struct oracle *o)
{
	for (uint32_t i = 0; i < o->n_log; i++)
		free(o->log[i].is_spared);
	o->n_log = 0;
}

void oracle_destroy(struct oracle *o)
{
	oracle_log_clear(o);
	for (uint32_t i = 0; i < o->n_trees; i++) {
		oracle_cells_drop(&o->trees[i].base);
		oracle_cells_drop(&o->trees[i].live);
		oracle_cells_drop(&o->trees[i].seen);
		free(o->trees[i].is_resolved);
	}
	free(o->trees);
	free(o->log);
	free(o);
}

struct tree *oracle_tree_at(const struct oracle *o, uint32_t tree)
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
	*r = (struct request){
	    .kind = kind, .tree = tree, .parent = ORACLE_NONE, .before = UINT64_MAX, .submitted_at = o->n_completions};
	return r;
}

uint32_t oracle_request_number(const struct oracle *o, const struct request *r)
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
	oracle_tree_at(o, w->tree)->n_changes++;
	return oracle_request_number(o, r);
}

uint64_t oracle_token(const struct oracle *o, uint32_t request, uint32_t i)
{
	quarry_assert(request < o->n_log && o->log[request].kind == ORACLE_WRITE);
	return oracle_request_value(&o->log[request], i);
}

uint32_t oracle_trim(struct oracle *o, uint32_t tree, uint64_t first, uint64_t n_blocks)
{
	struct request *r = log_append(o, ORACLE_TRIM, tree);

	quarry_assert(oracle_tree_is_live(o, tree));
	r->first = first;
	r->n_blocks = n_blocks;
	oracle_tree_at(o, tree)->n_changes++;
	return oracle_request_number(o, r);
}

uint32_t oracle_copy_holes(struct oracle *o, uint32_t tree, uint64_t first, uint64_t n_blocks, uint64_t before)
{
	uint32_t request = oracle_trim(o, tree, first, n_blocks);

	o->log[request].before = before;
	return request;
}

bool oracle_content_stays(const struct request *r, uint64_t token)
{
	bool is_written = token != 0 && token != ORACLE_BAD && token != ORACLE_UNKNOWN && token != CONTENT_WRONG;

	return r->kind == ORACLE_TRIM && r->before != UINT64_MAX && is_written && token_epoch(token) >= r->before;
}

void oracle_swap_begin(struct oracle *o, uint32_t a, uint32_t b)
{
	quarry_assert(!o->swap.is_open && a != b);
	quarry_assert(oracle_tree_is_live(o, a) && oracle_tree_is_live(o, b));
	quarry_assert(oracle_tree_at(o, a)->n_changes == 0 && oracle_tree_at(o, b)->n_changes == 0);
	o->swap.is_open = true;
	o->swap.a = a;
	o->swap.b = b;
	o->swap.submitted_at = o->n_completions;
}

void oracle_swap_make(struct oracle *o)
{
	struct tree *a = oracle_tree_at(o, o->swap.a), *b = oracle_tree_at(o, o->swap.b);
	uint64_t id = a->id;

	a->id = b->id;
	b->id = id;
	o->swap.is_open = false;
	o->flushed_upto = max_u64(o->flushed_upto, o->swap.submitted_at);
}

void oracle_swap_done(struct oracle *o, bool is_completed, bool is_refused)
{
	quarry_assert(o->swap.is_open);
	if (is_completed)
		oracle_swap_make(o);
	else if (is_refused)
		o->swap.is_open = false;
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

	return oracle_request_number(o, log_append(o, ORACLE_CREATE, tree));
}

uint32_t oracle_fork(struct oracle *o, uint32_t parent, uint64_t tree_id)
{
	quarry_assert(oracle_tree_is_live(o, parent));
	uint32_t tree = tree_add(o, tree_id, parent);
	struct request *r = log_append(o, ORACLE_FORK, tree);
	r->parent = parent;
	oracle_tree_at(o, parent)->n_changes++;
	return oracle_request_number(o, r);
}

uint32_t oracle_drop(struct oracle *o, uint32_t tree)
{
	struct tree *t = oracle_tree_at(o, tree);

	quarry_assert(t->is_live && t->n_changes == 0);
	t->is_live = false;
	return oracle_request_number(o, log_append(o, ORACLE_DROP, tree));
}

uint32_t oracle_request_tree(const struct oracle *o, uint32_t request)
{
	quarry_assert(request < o->n_log);
	return o->log[request].tree;
}

static void request_apply_live(struct oracle *o, const struct request *r, bool is_known)
{
	struct tree *t = oracle_tree_at(o, r->tree);
	struct cover c;

	for (uint32_t w = 0; w < o->n_windows && t->live != NULL; w++) {
		if (!oracle_cover(o, r, w, &c))
			continue;
		for (uint32_t i = 0; i < c.n; i++) {
			uint64_t *live = &t->live[c.cell + i];
			bool is_unclear = !is_known || (r->before != UINT64_MAX && *live == ORACLE_UNKNOWN);
			if (oracle_request_spares(r, c.cell + i)) /* what was a hole is one still */
				*live = *live == 0 ? 0 : ORACLE_UNKNOWN;
			else if (!oracle_content_stays(r, *live))
				*live = is_unclear ? ORACLE_UNKNOWN : oracle_request_value(r, c.offset + i);
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
	struct tree *t = oracle_tree_at(o, r->tree);

	r->state = REQUEST_COMPLETED;
	r->completed_at = ++o->n_completions;
	switch (r->kind) {
	case ORACLE_WRITE:
	case ORACLE_TRIM:
		request_apply_live(o, r, true);
		return;
	case ORACLE_FORK:
		check_fork_waited(o, r);
		t->live = oracle_cells_make(o, oracle_tree_at(o, r->parent)->live);
		o->flushed_upto = max_u64(o->flushed_upto, r->submitted_at);
		break;
	case ORACLE_CREATE:
		t->live = oracle_cells_make(o, NULL);
		break;
	case ORACLE_DROP:
		oracle_cells_drop(&t->live);
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
		oracle_tree_at(o, r->tree)->n_changes--;
	else if (r->kind == ORACLE_FORK)
		oracle_tree_at(o, r->parent)->n_changes--;
	if (is_completed)
		request_completed(o, r);
	else if (is_refused)
		r->state = REQUEST_REFUSED;
	else if (r->kind == ORACLE_WRITE || r->kind == ORACLE_TRIM)
		request_apply_live(o, r, false);
	if (is_refused && r->kind == ORACLE_DROP)
		oracle_tree_at(o, r->tree)->is_live = true;
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
	return oracle_tree_at(o, tree)->is_live;
}
uint32_t oracle_trees(const struct oracle *o)
{
	return o->n_trees;
}
uint64_t oracle_tree_id(const struct oracle *o, uint32_t tree)
{
	return oracle_tree_at(o, tree)->id;
}
uint32_t oracle_tree_changes(const struct oracle *o, uint32_t tree)
{
	return oracle_tree_at(o, tree)->n_changes;
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
	const struct tree *t = oracle_tree_at(o, tree);

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
		oracle_cells_drop(&t->seen);
	}
}

void oracle_see_tree(struct oracle *o, uint32_t tree)
{
	struct tree *t = oracle_tree_at(o, tree);

	quarry_assert(t->is_used && !t->is_seen);
	t->is_seen = true;
	t->seen = oracle_cells_make(o, NULL);
}

void oracle_see(struct oracle *o, uint32_t tree, uint32_t cell, uint64_t token)
{
	quarry_assert(oracle_tree_at(o, tree)->is_seen && cell < o->n_cells);
	o->trees[tree].seen[cell] = token;
}
