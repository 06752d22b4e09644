/*
 * test_oracle.c: the oracle of the disk simulation accepts exactly what can be explained.
 *
 * Examples by hand, and small random histories against a search of all subsets of their requests.
 */
#include "tests/sim/oracle.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

static const struct oracle_window window = {.first = 100, .n_blocks = 6};

struct history {
	struct oracle *o;
	uint32_t tree;
	char why[ORACLE_WHY_BYTES];
};

static uint32_t made(struct oracle *o, uint64_t id)
{
	uint32_t request = oracle_make(o, id);

	oracle_done(o, request, true, false);
	return oracle_request_tree(o, request);
}

static struct history history_begin(void)
{
	struct history h = {.o = oracle_create(&window, 1)};

	h.tree = made(h.o, 1);
	return h;
}

static uint32_t write_open(struct history *h, uint32_t cell, uint32_t n, bool is_ordered)
{
	return oracle_write(
	    h->o,
	    &(struct oracle_write){
		.tree = h->tree, .first = window.first + cell, .n_blocks = n, .epoch = 5, .is_ordered = is_ordered});
}

static uint32_t write_done(struct history *h, uint32_t cell, uint32_t n, bool is_ordered)
{
	uint32_t request = write_open(h, cell, n, is_ordered);

	oracle_done(h->o, request, true, false);
	return request;
}

static void flush(struct history *h)
{
	oracle_flush_done(h->o, oracle_flush_begin(h->o));
}

/* Sees the tree with these tokens and judges. */
static bool shows(struct history *h, bool is_power_loss, const uint64_t cells[6])
{
	oracle_crash(h->o, is_power_loss);
	oracle_see_tree(h->o, h->tree);
	for (uint32_t i = 0; i < 6; i++)
		oracle_see(h->o, h->tree, i, cells[i]);
	return oracle_judge(h->o, ORACLE_STRICT, h->why);
}

static void contents_tell_their_token(void)
{
	_Alignas(8) uint8_t block[BLOCK_BYTES];
	struct history h = history_begin();
	uint64_t token = oracle_token(h.o, write_open(&h, 0, 2, false), 1);

	content_fill(token, block);
	CU_ASSERT_EQUAL(content_token(block), token);
	CU_ASSERT_EQUAL(token_epoch(token), 5);
	block[4095] ^= 1;
	CU_ASSERT_EQUAL(content_token(block), CONTENT_WRONG);
	content_fill(0, block);
	CU_ASSERT_EQUAL(content_token(block), 0);
	block[700] ^= 1;
	CU_ASSERT_EQUAL(content_token(block), CONTENT_WRONG);
	oracle_destroy(h.o);
}

static void completed_survives_a_kill(void)
{
	struct history h = history_begin();
	uint64_t a = oracle_token(h.o, write_done(&h, 1, 2, false), 0);

	CU_ASSERT_FALSE(shows(&h, false, (uint64_t[6]){0}));
	CU_ASSERT_TRUE(shows(&h, false, (uint64_t[6]){0, a, a + 1}));
	CU_ASSERT_FALSE(shows(&h, false, (uint64_t[6]){0})); /* it is the base now */
	CU_ASSERT_FALSE(shows(&h, true, (uint64_t[6]){0}));
	oracle_destroy(h.o);
}

static void power_loss_takes_what_was_not_flushed(void)
{
	struct history h = history_begin();
	uint64_t a = oracle_token(h.o, write_done(&h, 1, 2, false), 0);

	flush(&h);
	uint64_t b = oracle_token(h.o, write_done(&h, 2, 2, false), 0);
	CU_ASSERT_FALSE(shows(&h, true, (uint64_t[6]){0}));
	CU_ASSERT_FALSE(shows(&h, true, (uint64_t[6]){0, a, b}));            /* torn */
	CU_ASSERT_FALSE(shows(&h, true, (uint64_t[6]){0, a, a + 1, b + 1})); /* torn */
	CU_ASSERT_FALSE(shows(&h, true, (uint64_t[6]){0, a, a + 1, CONTENT_WRONG}));
	CU_ASSERT_TRUE(shows(&h, true, (uint64_t[6]){0, a, a + 1}));
	oracle_destroy(h.o);
}

static void flush_covers_what_had_completed(void)
{
	struct history h = history_begin();
	uint32_t open = write_open(&h, 0, 1, false);
	uint64_t mark = oracle_flush_begin(h.o);

	oracle_done(h.o, open, true, false);
	oracle_flush_done(h.o, mark);
	CU_ASSERT_TRUE(shows(&h, true, (uint64_t[6]){0}));
	oracle_destroy(h.o);
}

static void ordered_needs_its_predecessors(void)
{
	for (int is_ordered = 0; is_ordered <= 1; is_ordered++) {
		struct history h = history_begin();
		write_done(&h, 0, 1, false);
		uint64_t b = oracle_token(h.o, write_done(&h, 3, 1, is_ordered), 0);
		CU_ASSERT_EQUAL(shows(&h, true, (uint64_t[6]){0, 0, 0, b}), !is_ordered);
		oracle_destroy(h.o);
	}
}

static void refused_leaves_nothing(void)
{
	struct history h = history_begin();
	uint32_t refused = write_open(&h, 0, 1, false);
	uint64_t a = oracle_token(h.o, refused, 0);

	oracle_done(h.o, refused, false, true);
	CU_ASSERT_EQUAL(oracle_expect(h.o, h.tree, 0), 0);
	CU_ASSERT_FALSE(shows(&h, false, (uint64_t[6]){a}));
	CU_ASSERT_TRUE(shows(&h, false, (uint64_t[6]){0}));
	oracle_destroy(h.o);
}

static void trims_are_whole_when_promised(void)
{
	for (int is_completed = 0; is_completed <= 1; is_completed++) {
		struct history h = history_begin();
		uint64_t a = oracle_token(h.o, write_done(&h, 0, 4, false), 0);
		uint32_t trim = oracle_trim(h.o, h.tree, 0, UINT64_MAX);
		if (is_completed)
			oracle_done(h.o, trim, true, false);
		CU_ASSERT_EQUAL(oracle_expect(h.o, h.tree, 1), is_completed ? 0 : a + 1);
		CU_ASSERT_EQUAL(shows(&h, false, (uint64_t[6]){a, 0, a + 2, 0}), !is_completed);
		oracle_destroy(h.o);
	}
}

static bool is_first_or_third(uint64_t block, void *context)
{
	return block == window.first || block == window.first + 2;
}

/* What a trim spared is as it was, or gone; the rest of it must be gone. */
static void trims_in_part(void)
{
	for (uint32_t cell = 0; cell < 4; cell++) {
		struct history h = history_begin();
		uint64_t a = oracle_token(h.o, write_done(&h, 0, 3, false), 0);
		oracle_done_in_part(h.o, oracle_trim(h.o, h.tree, 0, UINT64_MAX), is_first_or_third, NULL);
		CU_ASSERT_EQUAL(oracle_expect(h.o, h.tree, 0), ORACLE_UNKNOWN);
		CU_ASSERT_EQUAL(oracle_expect(h.o, h.tree, 1), 0);
		CU_ASSERT_EQUAL(oracle_expect(h.o, h.tree, 3), 0); /* a hole before and after */
		uint64_t shown[6] = {0};
		shown[cell] = cell < 3 ? a + cell : 0;
		CU_ASSERT_EQUAL(shows(&h, false, shown), cell != 1);
		oracle_destroy(h.o);
	}
}

static void forks_copy_and_part(void)
{
	struct history h = history_begin();
	uint64_t a = oracle_token(h.o, write_done(&h, 0, 1, false), 0);
	uint32_t fork = oracle_fork(h.o, h.tree, 2);
	oracle_done(h.o, fork, true, false);
	uint32_t child = oracle_request_tree(h.o, fork);
	uint64_t b = oracle_token(h.o, write_done(&h, 0, 1, false), 0);

	CU_ASSERT_EQUAL(oracle_expect(h.o, child, 0), a);
	CU_ASSERT_EQUAL(oracle_expect(h.o, h.tree, 0), b);
	CU_ASSERT_FALSE(shows(&h, true, (uint64_t[6]){b})); /* the child is missing */
	oracle_crash(h.o, true);
	oracle_see_tree(h.o, h.tree);
	oracle_see_tree(h.o, child); /* and lacks the write that the fork made durable */
	CU_ASSERT_FALSE(oracle_judge(h.o, ORACLE_STRICT, h.why));
	oracle_crash(h.o, true);
	oracle_see_tree(h.o, h.tree);
	oracle_see_tree(h.o, child);
	oracle_see(h.o, h.tree, 0, a);
	oracle_see(h.o, child, 0, a);
	CU_ASSERT_TRUE(oracle_judge(h.o, ORACLE_STRICT, h.why));
	oracle_destroy(h.o);
}

static void damage_reads_as_such(void)
{
	struct history h = history_begin();
	uint64_t a = oracle_token(h.o, write_done(&h, 0, 1, false), 0);

	CU_ASSERT_TRUE(shows(&h, false, (uint64_t[6]){a}));
	CU_ASSERT_EQUAL(oracle_damage(h.o, a), 1);
	CU_ASSERT_EQUAL(oracle_expect(h.o, h.tree, 0), ORACLE_BAD);
	CU_ASSERT_FALSE(shows(&h, false, (uint64_t[6]){0}));
	CU_ASSERT_TRUE(shows(&h, false, (uint64_t[6]){ORACLE_BAD}));
	oracle_destroy(h.o);
}

/* ---- against a search ---- */

#define REQUESTS_MAX 9u
#define TREES_MAX    3u

struct small_request {
	enum oracle_kind kind;
	uint32_t tree, parent, cell, n, number;
	uint64_t zero_blocks, token;
	bool is_completed, is_flushed, is_ordered;
	uint32_t submitted_at, completed_at; /* completions */
};

struct small {
	struct oracle *o;
	struct small_request requests[REQUESTS_MAX];
	uint32_t n, n_trees, n_completed;
	bool is_power_loss;
};

struct small_content {
	bool is_there[TREES_MAX];
	uint64_t cells[TREES_MAX][6];
};

static uint64_t chance(uint64_t *state, uint64_t n)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 11) % n;
}

static void small_apply(const struct small_request *r, struct small_content *c)
{
	if (r->kind == ORACLE_FORK) {
		c->is_there[r->tree] = c->is_there[r->parent];
		memcpy(c->cells[r->tree], c->cells[r->parent], sizeof(c->cells[0]));
		return;
	}
	for (uint32_t i = 0; i < r->n; i++) {
		bool is_zero = r->kind == ORACLE_TRIM || (r->zero_blocks >> i & 1);
		c->cells[r->tree][r->cell + i] = is_zero ? 0 : r->token + i;
	}
}

static struct small_content small_content_of(const struct small *m, uint32_t subset)
{
	struct small_content c = {.is_there = {true}};

	for (uint32_t i = 0; i < m->n; i++) {
		if (subset >> i & 1)
			small_apply(&m->requests[i], &c);
	}
	for (uint32_t t = 0; t < TREES_MAX; t++) {
		if (!c.is_there[t])
			memset(c.cells[t], 0, sizeof(c.cells[t]));
	}
	return c;
}

static bool subset_is_lawful(const struct small *m, uint32_t subset)
{
	for (uint32_t i = 0; i < m->n; i++) {
		const struct small_request *r = &m->requests[i];
		bool must = r->is_flushed || (r->is_completed && !m->is_power_loss);
		if (must && !(subset >> i & 1))
			return false;
		for (uint32_t k = 0; r->is_ordered && (subset >> i & 1) && k < i; k++) {
			const struct small_request *before = &m->requests[k];
			if (before->is_completed && before->completed_at <= r->submitted_at && !(subset >> k & 1))
				return false;
		}
	}
	return true;
}

static bool search(const struct small *m, const struct small_content *seen)
{
	for (uint32_t subset = 0; subset < 1u << m->n; subset++) {
		struct small_content c = small_content_of(m, subset);
		if (subset_is_lawful(m, subset) && memcmp(&c, seen, sizeof(c)) == 0)
			return true;
	}
	return false;
}

static bool judge(struct small *m, const struct small_content *seen)
{
	char why[ORACLE_WHY_BYTES];

	oracle_crash(m->o, m->is_power_loss);
	for (uint32_t t = 0; t < m->n_trees; t++) {
		if (!seen->is_there[t])
			continue;
		oracle_see_tree(m->o, t);
		for (uint32_t cell = 0; cell < 6; cell++)
			oracle_see(m->o, t, cell, seen->cells[t][cell]);
	}
	return oracle_judge(m->o, ORACLE_STRICT, why);
}

/* The newest n small requests are one request, which completes now; sometimes a flush follows. */
static void small_complete(struct small *m, uint32_t n, uint64_t *state)
{
	struct small_request *last = &m->requests[m->n - 1];

	m->n_completed++;
	for (uint32_t i = 0; i < n; i++) {
		last[-(int)i].is_completed = true;
		last[-(int)i].completed_at = m->n_completed;
	}
	oracle_done(m->o, last->number, true, false);
	if (last->kind == ORACLE_FORK) {
		for (uint32_t i = 0; i < m->n; i++) {
			struct small_request *before = &m->requests[i];
			before->is_flushed |= before->is_completed && before->completed_at <= last->submitted_at;
		}
		last->is_flushed = true;
	}
	if (chance(state, 4) > 0)
		return;
	oracle_flush_done(m->o, oracle_flush_begin(m->o));
	for (uint32_t i = 0; i < m->n; i++)
		m->requests[i].is_flushed = m->requests[i].is_completed;
}

/* Each block of a trim is a small request of its own, since a trim is not atomic. */
static void small_add_trim(struct small *m, struct small_request r, uint64_t *state)
{
	r.kind = ORACLE_TRIM;
	uint32_t n = 1 + (uint32_t)chance(state, 6 - r.cell);
	n = n < REQUESTS_MAX - m->n ? n : REQUESTS_MAX - m->n;
	r.n = 1;
	r.number = oracle_trim(m->o, r.tree, window.first + r.cell, n);
	for (uint32_t i = 0; i < n; i++, r.cell++)
		m->requests[m->n++] = r;
	small_complete(m, n, state);
}

static void small_add(struct small *m, uint64_t *state)
{
	struct small_request *r = &m->requests[m->n];
	uint64_t pick = chance(state, 10);

	*r = (struct small_request){.tree = (uint32_t)chance(state, m->n_trees), .submitted_at = m->n_completed};
	r->cell = (uint32_t)chance(state, 6);
	if (pick == 1 || pick == 2) {
		small_add_trim(m, *r, state);
		return;
	}
	m->n++;
	if (pick == 0 && m->n_trees < TREES_MAX) {
		r->kind = ORACLE_FORK;
		r->parent = r->tree;
		r->number = oracle_fork(m->o, r->parent, 1 + m->n_trees);
		r->tree = m->n_trees++;
		small_complete(m, 1, state);
		return;
	}
	r->n = 1 + (uint32_t)chance(state, 6 - r->cell);
	struct oracle_write w = {.tree = r->tree, .first = window.first + r->cell, .n_blocks = r->n};
	w.zero_blocks = r->zero_blocks = chance(state, 3) ? 0 : chance(state, 64);
	w.is_ordered = r->is_ordered = chance(state, 4) == 0;
	r->kind = ORACLE_WRITE;
	r->number = oracle_write(m->o, &w);
	for (uint32_t i = 0; i < r->n; i++)
		r->token = (r->zero_blocks >> i & 1) ? r->token : oracle_token(m->o, r->number, i) - i;
	small_complete(m, 1, state);
}

/* What is seen: the content of some subset, sometimes with a cell of another one. */
static struct small_content small_seen(const struct small *m, uint64_t *state)
{
	struct small_content c = small_content_of(m, (uint32_t)chance(state, 1u << m->n));
	struct small_content other = small_content_of(m, (uint32_t)chance(state, 1u << m->n));
	uint32_t tree = (uint32_t)chance(state, m->n_trees), cell = (uint32_t)chance(state, 6);

	if (chance(state, 4) == 0 && c.is_there[tree] && other.is_there[tree])
		c.cells[tree][cell] = other.cells[tree][cell];
	return c;
}

static void agrees_with_a_search(void)
{
	uint64_t state = 88172645463325252ull;
	uint32_t accepted = 0, rejected = 0, wrong = 0;

	for (uint32_t round = 0; round < 20000; round++) {
		struct small m = {.o = oracle_create(&window, 1), .n_trees = 1};
		made(m.o, 1);
		m.is_power_loss = chance(&state, 4) > 0;
		uint32_t n = 1 + (uint32_t)chance(&state, REQUESTS_MAX);
		while (m.n < n)
			small_add(&m, &state);
		struct small_content seen = small_seen(&m, &state);
		bool expected = search(&m, &seen);
		accepted += expected;
		rejected += !expected;
		wrong += judge(&m, &seen) != expected;
		oracle_destroy(m.o);
	}
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT_TRUE(accepted > 2000 && rejected > 2000);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("oracle", NULL, NULL);
	CU_ADD_TEST(suite, contents_tell_their_token);
	CU_ADD_TEST(suite, completed_survives_a_kill);
	CU_ADD_TEST(suite, power_loss_takes_what_was_not_flushed);
	CU_ADD_TEST(suite, flush_covers_what_had_completed);
	CU_ADD_TEST(suite, ordered_needs_its_predecessors);
	CU_ADD_TEST(suite, refused_leaves_nothing);
	CU_ADD_TEST(suite, trims_are_whole_when_promised);
	CU_ADD_TEST(suite, trims_in_part);
	CU_ADD_TEST(suite, forks_copy_and_part);
	CU_ADD_TEST(suite, damage_reads_as_such);
	CU_ADD_TEST(suite, agrees_with_a_search);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	bool has_failed = CU_get_number_of_failures() > 0;
	CU_cleanup_registry();
	return has_failed;
}
