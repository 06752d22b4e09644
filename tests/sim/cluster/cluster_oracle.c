/*
 * cluster_oracle.c: the versions of every cell, and whether what was read can be one of them.
 *
 *   version: begun --acknowledged--> certain --flushed--> durable
 *               \--error, crash--> over         \--all current disks lost power--> open to loss --read--> certain, or gone
 *
 * Invariants
 *  1. Of a cell's versions the newest that is certain and not open to loss is the floor: a read that began later than it
 *     became so finds it, or a younger one.
 *  2. What a read has decided stays so: an unknown outcome becomes certain when it is seen, and is gone when an older version
 *     is seen after its end.
 *  3. Of a request that was seen in one cell and is gone in another, it was torn (P5).
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_oracle.h"

#include "volumes/head/volume.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_REQUEST UINT32_MAX

struct version {
	uint64_t token;
	uint32_t request;                      /* NO_REQUEST: it was there before */
	uint64_t certain_at, over_at, open_at; /* moments; 0: not */
	uint64_t lost;                         /* bit per disk that lost power since it began */
	bool is_durable, is_gone;
};

struct cell {
	struct version *versions; /* the oldest first */
	uint32_t n, room;
};

struct change {
	uint32_t first_cell, n_cells;
	uint64_t token;      /* of its first cell; the others follow. 0: zeros */
	uint32_t seen, gone; /* bit per cell, since it was open to loss last */
};

struct oracle_volume {
	uint32_t n_cells;
	struct cell *cells;
	struct change *changes;
	uint32_t n_changes, changes_room;
	uint64_t moment, next_token;
};

struct point {
	uint32_t n_cells;
	struct point_cell {
		uint64_t *tokens; /* any of these */
		uint32_t n;
	} * cells;
};

static void *more(void *memory, uint32_t n, uint32_t *room, size_t each)
{
	if (n < *room)
		return memory;
	*room = *room ? 2 * *room : 16;
	memory = realloc(memory, *room * each);
	quarry_assert(memory);
	return memory;
}

static struct version *cell_add(struct cell *c, struct version v)
{
	c->versions = more(c->versions, c->n, &c->room, sizeof(v));
	c->versions[c->n] = v;
	return &c->versions[c->n++];
}

/* Tokens of different volumes differ as well: clones share what their source wrote. */
static struct oracle_volume *volume_make(uint32_t n_cells, uint64_t first_token)
{
	struct oracle_volume *v = calloc(1, sizeof(*v));
	quarry_assert(v);
	v->n_cells = n_cells;
	v->cells = calloc(n_cells, sizeof(*v->cells));
	quarry_assert(v->cells);
	v->moment = 1;
	v->next_token = first_token;
	return v;
}

struct oracle_volume *oracle_volume_create(uint32_t n_segments, uint32_t number)
{
	struct oracle_volume *v = volume_make(n_segments * CELLS_EACH, ((uint64_t)number + 1) << 32);
	for (uint32_t i = 0; i < v->n_cells; i++)
		cell_add(&v->cells[i],
			 (struct version){.request = NO_REQUEST, .certain_at = 1, .over_at = 1, .is_durable = true});
	return v;
}

void oracle_volume_destroy(struct oracle_volume *v)
{
	for (uint32_t i = 0; v && i < v->n_cells; i++)
		free(v->cells[i].versions);
	if (v)
		free(v->cells);
	if (v)
		free(v->changes);
	free(v);
}

uint32_t oracle_volume_cells(const struct oracle_volume *v)
{
	return v->n_cells;
}

struct oracle_mark oracle_now(struct oracle_volume *v)
{
	return (struct oracle_mark){v->moment++};
}

/* ---- requests ---- */

uint32_t oracle_change(struct oracle_volume *v, uint32_t first_cell, uint32_t n_cells, bool has_zeros, bool is_void)
{
	uint32_t request = v->n_changes;
	quarry_assert(n_cells > 0 && n_cells <= IO_BLOCKS_MAX && first_cell + n_cells <= v->n_cells);
	v->changes = more(v->changes, v->n_changes, &v->changes_room, sizeof(*v->changes));
	v->changes[v->n_changes++] =
	    (struct change){.first_cell = first_cell, .n_cells = n_cells, .token = has_zeros ? 0 : v->next_token};
	v->next_token += has_zeros ? 0 : n_cells;
	for (uint32_t i = 0; i < n_cells && !is_void; i++)
		cell_add(&v->cells[first_cell + i],
			 (struct version){.token = oracle_change_token(v, request, i), .request = request});
	v->moment++;
	return request;
}

uint64_t oracle_change_token(const struct oracle_volume *v, uint32_t request, uint32_t i)
{
	const struct change *c = &v->changes[request];
	quarry_assert(request < v->n_changes && i < c->n_cells);
	return c->token ? c->token + i : 0;
}

static struct version *version_of(struct oracle_volume *v, uint32_t cell, uint32_t request)
{
	struct cell *c = &v->cells[cell];
	for (uint32_t i = c->n; i-- > 0;)
		if (c->versions[i].request == request)
			return &c->versions[i];
	return NULL;
}

void oracle_change_done(struct oracle_volume *v, uint32_t request, bool is_certain, bool is_durable)
{
	const struct change *c = &v->changes[request];
	uint64_t now = v->moment++;
	for (uint32_t i = 0; i < c->n_cells; i++) {
		struct version *one = version_of(v, c->first_cell + i, request);
		if (!one)
			continue; /* void, or rolled back since */
		one->over_at = now;
		one->certain_at = is_certain ? now : 0;
		one->is_durable = is_certain && is_durable;
	}
}

void oracle_flushed(struct oracle_volume *v, struct oracle_mark mark)
{
	for (uint32_t i = 0; i < v->n_cells; i++) {
		struct cell *c = &v->cells[i];
		for (uint32_t j = 0; j < c->n; j++)
			if (c->versions[j].certain_at && c->versions[j].certain_at <= mark.moment &&
			    !c->versions[j].open_at)
				c->versions[j].is_durable = true;
	}
	v->moment++;
}

/* ---- reading ---- */

static uint32_t cell_floor(const struct cell *c, struct oracle_mark mark)
{
	for (uint32_t i = c->n; i-- > 0;) {
		const struct version *v = &c->versions[i];
		if (!v->is_gone && v->certain_at && v->certain_at <= mark.moment && !v->open_at)
			return i;
	}
	return 0;
}

static void cell_to_text(const struct oracle_volume *v, const struct cell *c, char *text, size_t room)
{
	size_t at = 0;
	for (uint32_t i = c->n > 8 ? c->n - 8 : 0; i < c->n && at < room; i++) {
		const struct version *one = &c->versions[i];
		at += (size_t)snprintf(text + at, room - at, " %" PRIx64 "%s%s%s%s", one->token,
				       one->is_gone      ? "(gone)"
				       : one->certain_at ? ""
				       : one->over_at    ? "?"
							 : "...",
				       one->is_durable ? "!" : "", one->open_at ? "(open)" : "", "");
	}
}

/* The request was seen, or is not there. false: in another cell it is the other way round. */
static bool change_note(struct oracle_volume *v, uint32_t cell, const struct version *one, bool is_seen,
			char why[static ORACLE_WHY_BYTES])
{
	if (one->request == NO_REQUEST)
		return true;
	struct change *c = &v->changes[one->request];
	uint32_t bit = 1u << (cell - c->first_cell);
	if (is_seen)
		c->seen |= bit;
	else
		c->gone |= bit;
	if (!c->seen || !c->gone)
		return true;
	snprintf(why, ORACLE_WHY_BYTES, "the request of cells %u to %u that wrote %" PRIx64 " is there in part only",
		 c->first_cell, c->first_cell + c->n_cells - 1, c->token);
	return false;
}

/* What was found decides what was not known. */
static bool cell_decide(struct oracle_volume *v, uint32_t cell, uint32_t found, struct oracle_mark mark,
			char why[static ORACLE_WHY_BYTES])
{
	struct cell *c = &v->cells[cell];
	struct version *one = &c->versions[found];
	for (uint32_t i = found; i < c->n; i++) /* some may have come to pass after the read */
		if (!c->versions[i].is_gone && (!c->versions[i].over_at || c->versions[i].over_at > mark.moment))
			return true;
	for (uint32_t i = found + 1; i < c->n; i++)
		if (!c->versions[i].is_gone && c->versions[i].open_at > mark.moment)
			return true;
	for (uint32_t i = found + 1; i < c->n; i++) {
		if (c->versions[i].is_gone)
			continue;
		c->versions[i].is_gone = true;
		if (!change_note(v, cell, &c->versions[i], false, why))
			return false;
	}
	if (!one->certain_at)
		one->certain_at = v->moment++;
	if (one->open_at && one->open_at <= mark.moment)
		one->open_at = one->lost = 0;
	return one->token == 0 || change_note(v, cell, one, true, why);
}

bool oracle_read(struct oracle_volume *v, uint32_t cell, struct oracle_mark mark, uint64_t token,
		 char why[static ORACLE_WHY_BYTES])
{
	struct cell *c = &v->cells[cell];
	uint32_t floor = cell_floor(c, mark);
	v->moment++;
	for (uint32_t i = c->n; i-- > floor;)
		if (!c->versions[i].is_gone && c->versions[i].token == token)
			return cell_decide(v, cell, i, mark, why);
	int n = snprintf(why, ORACLE_WHY_BYTES, "cell %u is %" PRIx64 "%s; its versions from the %uth on:", cell, token,
			 token == CONTENT_WRONG ? " (torn, or nobody's)" : "", floor);
	cell_to_text(v, c, why + n, ORACLE_WHY_BYTES - (size_t)n);
	return false;
}

bool oracle_settled(const struct oracle_volume *v, uint32_t cell, uint64_t *token)
{
	const struct cell *c = &v->cells[cell];
	uint32_t n = c->n;
	while (n > 0 && c->versions[n - 1].is_gone)
		n--;
	quarry_assert(n > 0);
	const struct version *one = &c->versions[n - 1];
	*token = one->token;
	return one->certain_at && one->is_durable && !one->open_at;
}

/* ---- losses ---- */

void oracle_power_lost(struct oracle_volume *v, uint64_t disks)
{
	for (uint32_t i = 0; i < v->n_cells; i++)
		for (uint32_t j = 0; j < v->cells[i].n; j++)
			v->cells[i].versions[j].lost |= disks;
	v->moment++;
}

uint32_t oracle_current(struct oracle_volume *v, uint32_t segment, uint64_t disks)
{
	uint32_t n = 0;
	for (uint32_t i = segment * CELLS_EACH; i < (segment + 1) * CELLS_EACH && disks; i++)
		for (uint32_t j = 0; j < v->cells[i].n; j++) {
			struct version *one = &v->cells[i].versions[j];
			if (one->is_durable || one->open_at || one->is_gone || (disks & ~one->lost) != 0)
				continue;
			one->open_at = v->moment;
			if (one->request != NO_REQUEST)
				v->changes[one->request].seen = v->changes[one->request].gone = 0;
			n++;
		}
	v->moment++;
	return n;
}

/* ---- points ---- */

struct point *point_take(const struct oracle_volume *v, struct oracle_mark mark)
{
	struct point *p = calloc(1, sizeof(*p));
	quarry_assert(p);
	p->n_cells = v->n_cells;
	p->cells = calloc(v->n_cells, sizeof(*p->cells));
	quarry_assert(p->cells);
	for (uint32_t i = 0; i < v->n_cells; i++) {
		const struct cell *c = &v->cells[i];
		struct point_cell *to = &p->cells[i];
		to->tokens = malloc((c->n + 1) * sizeof(*to->tokens));
		quarry_assert(to->tokens);
		for (uint32_t j = cell_floor(c, mark); j < c->n; j++)
			if (!c->versions[j].is_gone)
				to->tokens[to->n++] = c->versions[j].token;
		quarry_assert(to->n > 0);
	}
	return p;
}

struct point *point_copy(const struct point *p)
{
	struct point *copy = calloc(1, sizeof(*copy));
	quarry_assert(copy);
	copy->n_cells = p->n_cells;
	copy->cells = calloc(p->n_cells, sizeof(*copy->cells));
	quarry_assert(copy->cells);
	for (uint32_t i = 0; i < p->n_cells; i++) {
		copy->cells[i].n = p->cells[i].n;
		copy->cells[i].tokens = malloc(p->cells[i].n * sizeof(*p->cells[i].tokens));
		quarry_assert(copy->cells[i].tokens);
		memcpy(copy->cells[i].tokens, p->cells[i].tokens, p->cells[i].n * sizeof(*p->cells[i].tokens));
	}
	return copy;
}

void point_free(struct point *p)
{
	for (uint32_t i = 0; p && i < p->n_cells; i++)
		free(p->cells[i].tokens);
	if (p)
		free(p->cells);
	free(p);
}

bool point_read(struct point *p, uint32_t cell, uint64_t token, char why[static ORACLE_WHY_BYTES])
{
	struct point_cell *c = &p->cells[cell];
	for (uint32_t i = 0; i < c->n; i++)
		if (c->tokens[i] == token) {
			c->tokens[0] = token;
			c->n = 1;
			return true;
		}
	snprintf(why, ORACLE_WHY_BYTES, "cell %u is %" PRIx64 ", and can be %" PRIx64 " or %u others", cell, token,
		 c->tokens[0], c->n - 1);
	return false;
}

static void cells_take(struct oracle_volume *v, const struct point *p)
{
	quarry_assert(v->n_cells == p->n_cells);
	uint64_t now = v->moment++;
	for (uint32_t i = 0; i < v->n_cells; i++) {
		const struct point_cell *from = &p->cells[i];
		v->cells[i].n = 0;
		for (uint32_t j = 0; j < from->n; j++)
			cell_add(&v->cells[i], (struct version){.token = from->tokens[j],
								.request = NO_REQUEST,
								.certain_at = from->n == 1 ? now : 0,
								.over_at = now,
								.is_durable = true});
	}
}

void oracle_roll_back(struct oracle_volume *v, const struct point *p)
{
	cells_take(v, p);
}

struct oracle_volume *oracle_volume_clone(const struct point *p, uint32_t number)
{
	struct oracle_volume *v = volume_make(p->n_cells, ((uint64_t)number + 1) << 32);
	cells_take(v, p);
	return v;
}
