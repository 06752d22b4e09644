/*
 * oracle_judge.c: judges what a recovered disk shows, from the history of requests.
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
 * A swap that was in flight has happened or not: what was seen is explained without it or, after that has failed, with it.
 * Then all that had completed before it began must be there: it is ordered.
 *
 * A fork copies: a request on a tree shows in the tree and in every tree forked from it (or from such a one) later. A
 * tree that is not there constrains nothing.
 */
#include "tests/sim/oracle_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
		if (t->parent == ORACLE_NONE || t->made_by == ORACLE_NONE || t->made_by < oracle_request_number(o, r))
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
		if (!t->is_seen || t->is_resolved[cell] || t->seen[cell] == value ||
		    oracle_content_stays(r, t->seen[cell]))
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
		const struct tree *t = &o->trees[i];
		if (t->is_seen && !oracle_content_stays(r, t->seen[cell]) && tree_descends(o, i, r))
			t->is_resolved[cell] = 1;
	}
}

/* Walks over the request's cells. A write is kept whole or not at all; each cell of a trim is trimmed or not. */
static bool cells_judge(struct oracle *o, const struct request *r, bool is_resolving)
{
	bool is_whole = true;
	struct cover c;

	for (uint32_t w = 0; w < o->n_windows; w++) {
		if (!oracle_cover(o, r, w, &c))
			continue;
		for (uint32_t i = 0; i < c.n; i++) {
			if (cell_allows(o, r, c.cell + i, oracle_request_value(r, c.offset + i))) {
				if (is_resolving)
					cell_resolve(o, r, c.cell + i);
			} else if (!oracle_request_spares(r, c.cell + i)) {
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
		      oracle_request_number(j->o, r), j->o->trees[r->tree].id, r->first, r->n_blocks,
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
		oracle_cells_drop(&t->base);
		oracle_cells_drop(&t->live);
		t->is_live = t->is_used = t->is_seen;
		t->is_seen = false;
		t->made_by = t->parent = ORACLE_NONE;
		if (!t->is_live)
			continue;
		t->base = t->seen;
		t->seen = NULL;
		t->live = oracle_cells_make(o, t->base);
	}
	oracle_log_clear(o);
	o->n_completions = o->flushed_upto = 0;
	o->had_power_loss = o->swap.is_open = false;
}

static bool judge_all(const struct judgement *j)
{
	for (uint32_t i = 0; i < j->o->n_log; i++)
		j->o->log[i].is_forbidden = false;
	do {
		walk(j->o);
	} while (forbid_orphans(j->o));
	return judge_requests(j) && judge_trees(j);
}

/* What was seen under an id belongs to the other tree's content. */
static void swap_suppose(struct oracle *o)
{
	struct tree *a = oracle_tree_at(o, o->swap.a), *b = oracle_tree_at(o, o->swap.b);
	uint64_t *seen = a->seen;
	bool is_seen = a->is_seen;

	a->seen = b->seen;
	a->is_seen = b->is_seen;
	b->seen = seen;
	b->is_seen = is_seen;
	oracle_swap_make(o);
}

bool oracle_judge(struct oracle *o, enum oracle_leniency leniency, char why[static ORACLE_WHY_BYTES])
{
	struct judgement j = {.o = o, .leniency = leniency, .why = why};

	o->is_lenient = leniency == ORACLE_DAMAGED;
	bool is_explained = judge_all(&j);
	if (!is_explained && o->swap.is_open) {
		swap_suppose(o);
		is_explained = judge_all(&j);
	}
	if (!is_explained)
		return false;
	history_restart(o);
	quarry_assert(o->n_log == 0);
	return true;
}
