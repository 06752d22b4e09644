/*
 * buffers.c: a buddy allocator over one arena, and the line of those who wait for it.
 *
 * The arena is cut into 1 MiB buffers; a buffer of order o (4 KiB << o) splits into two of order o - 1, its buddies,
 * and joins its buddy again as soon as both are free. What is known about a buffer stands beside the arena, one cell
 * per 4 KiB, so a free buffer's memory is never touched: memory that no request has used yet costs nothing.
 *
 *   CELL_INSIDE --split--> CELL_FREE --get--> CELL_USED --put--> CELL_FREE --join--> CELL_INSIDE
 *
 * Invariants
 *  1. Every 4 KiB of the arena belongs to exactly one buffer, free or used; only its first cell says so, the others are
 *     CELL_INSIDE.
 *  2. A free buffer's buddy is not a free buffer of the same order, and lies in the same pool: a pool is whole MiB.
 *  3. used_bytes is the sum of the used buffers' sizes, rounded up to their orders.
 *  4. There are two lines: for small buffers and for large ones. The common pool is for the one who came first of both,
 *     and whoever waits for it is not overtaken: so a big request ends up with a whole free MiB. The reserve is for
 *     small buffers alone.
 *  5. ready() is called at the end of a turn, never inside buffers_put().
 *
 * Owner: one reactor.
 */
#include "daemon/core/buffers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define N_ORDERS 9u /* 4 KiB to 1 MiB */
_Static_assert(BUFFER_MIN_BYTES << (N_ORDERS - 1) == BUFFER_MAX_BYTES, "orders cover the sizes");

/* Huge pages are 2 MiB: with the arena on such a boundary, large transfers pin few of them. */
#define ARENA_ALIGN_BYTES (2 * MIB)

/* Under the address sanitizer a buffer that was given back may not be touched. */
#if defined(__SANITIZE_ADDRESS__)
#define HAS_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_POISON 1
#endif
#endif
#ifdef HAS_POISON
#include <sanitizer/asan_interface.h>
#define memory_forbid(p, n) __asan_poison_memory_region((p), (n))
#define memory_allow(p, n)  __asan_unpoison_memory_region((p), (n))
#else
#define memory_forbid(p, n) ((void)(p), (void)(n))
#define memory_allow(p, n)  ((void)(p), (void)(n))
#endif

enum cell_state { CELL_INSIDE, CELL_FREE, CELL_USED };

struct cell {
	struct list link; /* of a free buffer: in the list of its order */
	uint8_t state, order;
};

enum pool { POOL_COMMON, POOL_RESERVE, N_POOLS };
enum line { LINE_SMALL, LINE_LARGE, N_LINES };

struct buffers {
	struct reactor *reactor;
	char *arena;
	uint64_t budget_bytes, reserve_bytes, used_bytes; /* the reserve begins the arena */
	struct cell *cells;
	struct list free_of[N_POOLS][N_ORDERS];
	struct list lines[N_LINES];
	uint64_t n_waited; /* numbers those in line */
	struct turn_hook serve;
	void (*begun)(void *context); /* somebody waits; NULL: nobody asked to be told */
	void *begun_context;
};

static uint64_t order_bytes(unsigned order)
{
	return (uint64_t)BUFFER_MIN_BYTES << order;
}

static unsigned order_of(uint32_t len_bytes)
{
	unsigned order = 0;

	quarry_assert(len_bytes > 0);
	quarry_assert(len_bytes <= BUFFER_MAX_BYTES);
	while (order_bytes(order) < len_bytes)
		order++;
	return order;
}

static void *cell_data(const struct buffers *b, const struct cell *c)
{
	return b->arena + (size_t)(c - b->cells) * BUFFER_MIN_BYTES;
}

static struct cell *cell_buddy(struct buffers *b, struct cell *c, unsigned order)
{
	return b->cells + ((size_t)(c - b->cells) ^ (size_t)1 << order);
}

static enum pool pool_of(const struct buffers *b, const struct cell *c)
{
	return (uint64_t)(c - b->cells) * BUFFER_MIN_BYTES < b->reserve_bytes ? POOL_RESERVE : POOL_COMMON;
}

static void cell_set_free(struct buffers *b, struct cell *c, unsigned order)
{
	c->state = CELL_FREE;
	c->order = (uint8_t)order;
	list_prepend(&b->free_of[pool_of(b, c)][order], &c->link); /* last in, first out: its memory is warm */
}

/* ---- life ---- */

/* Maps the arena at a multiple of its alignment, giving back what is too much at either end. */
static char *arena_map(uint64_t len_bytes)
{
	size_t all = len_bytes + ARENA_ALIGN_BYTES;
	char *at = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	size_t before = -(uintptr_t)at % ARENA_ALIGN_BYTES;
	size_t after = all - before - len_bytes;
	if (before > 0)
		munmap(at, before);
	if (after > 0)
		munmap(at + before + len_bytes, after);
	madvise(at + before, len_bytes, MADV_HUGEPAGE); /* a wish: kernels without them work as well */
	return at + before;
}

static void serve_waiters(struct turn_hook *h);

int buffers_create(struct reactor *r, uint64_t budget_bytes, uint64_t reserve_bytes, struct buffers **out)
{
	uint64_t n_cells = budget_bytes / BUFFER_MIN_BYTES;

	quarry_assert(budget_bytes > 0);
	quarry_assert(budget_bytes % BUFFER_MAX_BYTES == 0 && reserve_bytes % BUFFER_MAX_BYTES == 0);
	quarry_assert(reserve_bytes < budget_bytes);
	struct buffers *b = calloc(1, sizeof *b);
	struct cell *cells = calloc(n_cells, sizeof *cells);
	char *arena = arena_map(budget_bytes);
	if (b == NULL || cells == NULL || arena == NULL) {
		if (arena != NULL)
			munmap(arena, budget_bytes);
		free(cells);
		free(b);
		return -ENOMEM;
	}
	*b = (struct buffers){
	    .reactor = r, .arena = arena, .budget_bytes = budget_bytes, .reserve_bytes = reserve_bytes, .cells = cells};
	for (unsigned order = 0; order < N_ORDERS; order++) {
		list_init(&b->free_of[POOL_COMMON][order]);
		list_init(&b->free_of[POOL_RESERVE][order]);
	}
	list_init(&b->lines[LINE_SMALL]);
	list_init(&b->lines[LINE_LARGE]);
	turn_hook_init(&b->serve, serve_waiters);
	for (uint64_t i = 0; i < n_cells; i++)
		list_init(&cells[i].link);
	for (uint64_t i = n_cells; i > 0; i -= 1u << (N_ORDERS - 1))
		cell_set_free(b, &cells[i - (1u << (N_ORDERS - 1))], N_ORDERS - 1);
	memory_forbid(arena, budget_bytes);
	*out = b;
	return 0;
}

void buffers_destroy(struct buffers *b)
{
	quarry_assert(b->used_bytes == 0);
	quarry_assert(list_is_empty(&b->lines[LINE_SMALL]) && list_is_empty(&b->lines[LINE_LARGE]));
	buffers_abandon(b);
}

void buffers_abandon(struct buffers *b)
{
	list_remove(&b->serve.link);
	memory_allow(b->arena, b->budget_bytes);
	munmap(b->arena, b->budget_bytes);
	free(b->cells);
	free(b);
}

/* ---- taking and giving back ---- */

/* Takes the smallest free buffer that fits and splits it down; whoever waits is not asked. */
static void *buffer_take(struct buffers *b, enum pool pool, unsigned order)
{
	unsigned from = order;

	while (from < N_ORDERS && list_is_empty(&b->free_of[pool][from]))
		from++;
	if (from == N_ORDERS)
		return NULL;
	struct cell *c = container_of(list_pop(&b->free_of[pool][from]), struct cell, link);
	quarry_assert(c->state == CELL_FREE && c->order == from);
	while (from > order)
		from--, cell_set_free(b, cell_buddy(b, c, from), from);
	c->state = CELL_USED;
	c->order = (uint8_t)order;
	b->used_bytes += order_bytes(order);
	quarry_assert(b->used_bytes <= b->budget_bytes);
	memory_allow(cell_data(b, c), order_bytes(order));
	return cell_data(b, c);
}

static enum line line_of(unsigned order)
{
	return order_bytes(order) <= BUFFER_SMALL_BYTES ? LINE_SMALL : LINE_LARGE;
}

static struct buffer_waiter *line_first(const struct buffers *b, enum line line)
{
	const struct list *l = &b->lines[line];

	return list_is_empty(l) ? NULL : container_of(l->next, struct buffer_waiter, link);
}

/* For one who came as the number-th, first of its line: invariant 4. */
static void *buffer_give(struct buffers *b, unsigned order, uint64_t number)
{
	enum line line = line_of(order);
	const struct buffer_waiter *other = line_first(b, line == LINE_SMALL ? LINE_LARGE : LINE_SMALL);
	void *data = NULL;

	if (!other || number < other->number)
		data = buffer_take(b, POOL_COMMON, order);
	return data || line == LINE_LARGE ? data : buffer_take(b, POOL_RESERVE, order);
}

void *buffers_get(struct buffers *b, uint32_t len_bytes)
{
	unsigned order = order_of(len_bytes);

	return line_first(b, line_of(order)) ? NULL : buffer_give(b, order, b->n_waited);
}

bool buffers_are_awaited(const struct buffers *b)
{
	return line_first(b, LINE_SMALL) || line_first(b, LINE_LARGE);
}

void buffers_put(struct buffers *b, void *data, uint32_t len_bytes)
{
	uint64_t pos_bytes = (uint64_t)((char *)data - b->arena);
	unsigned order = order_of(len_bytes);

	quarry_assert((char *)data >= b->arena && pos_bytes < b->budget_bytes);
	quarry_assert(pos_bytes % order_bytes(order) == 0);
	struct cell *c = &b->cells[pos_bytes / BUFFER_MIN_BYTES];
	quarry_assert(c->state == CELL_USED); /* else given back twice */
	quarry_assert(c->order == order);
	b->used_bytes -= order_bytes(order);
	memory_forbid(data, order_bytes(order));
	c->state = CELL_INSIDE;
	for (; order < N_ORDERS - 1; order++) {
		struct cell *buddy = cell_buddy(b, c, order);
		if (buddy->state != CELL_FREE || buddy->order != order)
			break;
		list_remove(&buddy->link);
		buddy->state = CELL_INSIDE;
		c = c < buddy ? c : buddy;
	}
	cell_set_free(b, c, order);
	if (buffers_are_awaited(b))
		reactor_at_turn_end(b->reactor, &b->serve);
}

/* ---- waiting ---- */

void buffers_wait(struct buffers *b, struct buffer_waiter *w, uint32_t len_bytes)
{
	quarry_assert(w->ready != NULL);
	quarry_assert(order_of(len_bytes) < N_ORDERS);
	w->len_bytes = len_bytes;
	w->number = b->n_waited++;
	list_append(&b->lines[line_of(order_of(len_bytes))], &w->link);
	reactor_at_turn_end(b->reactor, &b->serve); /* there may be a buffer already */
	if (b->begun)
		b->begun(b->begun_context);
}

void buffers_watch(struct buffers *b, void (*begun)(void *context), void *context)
{
	quarry_assert(!begun || !b->begun);
	b->begun = begun;
	b->begun_context = context;
}

void buffers_cancel(struct buffers *b, struct buffer_waiter *w)
{
	list_remove(&w->link);
	if (buffers_are_awaited(b)) /* the next may want less than the one that left */
		reactor_at_turn_end(b->reactor, &b->serve);
}

static bool line_serve(struct buffers *b, enum line line)
{
	struct buffer_waiter *w = line_first(b, line);
	void *data = w ? buffer_give(b, order_of(w->len_bytes), w->number) : NULL;

	if (!data)
		return false;
	list_remove(&w->link);
	w->ready(w, data);
	return true;
}

/* ready() may put, get, wait and cancel: the lines are looked at afresh after each. */
static void serve_waiters(struct turn_hook *h)
{
	struct buffers *b = container_of(h, struct buffers, serve);

	while (line_serve(b, LINE_SMALL) || line_serve(b, LINE_LARGE))
		;
}

uint64_t buffers_used_bytes(const struct buffers *b)
{
	return b->used_bytes;
}
uint64_t buffers_budget_bytes(const struct buffers *b)
{
	return b->budget_bytes;
}
