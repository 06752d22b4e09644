/*
 * uring_world.h: what the tests of the io_uring reactor have in common: a reactor with a folder of its own, ops that
 * can be waited for, and running every test twice, once as this kernel allows and once as older ones do.
 */
#pragma once

#include "daemon/core/reactor.h"

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WORLD_LIMIT_S 300 /* a lost wake-up would hang for ever */

static bool is_plain; /* the mode under test */

struct world {
	struct reactor *reactor;
	char dir[64];
	char path[96];
};

static inline void world_open_with(struct world *w, uint32_t n_entries, uint32_t spin_max_us)
{
	struct reactor_options options = {.n_entries = n_entries, .spin_max_us = spin_max_us, .is_plain = is_plain};

	*w = (struct world){.reactor = NULL};
	snprintf(w->dir, sizeof w->dir, "/var/tmp/quarry-test-XXXXXX"); /* /tmp may lack direct I/O */
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(w->dir));
	snprintf(w->path, sizeof w->path, "%s/x", w->dir);
	CU_ASSERT_EQUAL_FATAL(reactor_create(&options, &w->reactor), 0);
}

static inline void world_open(struct world *w)
{
	world_open_with(w, 0, 0);
}

static inline void world_close(struct world *w)
{
	reactor_destroy(w->reactor);
	unlink(w->path);
	CU_ASSERT_EQUAL(rmdir(w->dir), 0); /* nothing else was left behind */
}

/* An op that stops the reactor when `n_left` such ops have come back. */
struct wait {
	struct op op;
	struct reactor *reactor;
	int res;
	bool is_done;
	unsigned *n_left;
};

static inline void wait_done(struct op *op, int res)
{
	struct wait *w = container_of(op, struct wait, op);

	CU_ASSERT_FALSE(w->is_done);
	w->res = res;
	w->is_done = true;
	if (w->n_left == NULL || --*w->n_left == 0)
		reactor_stop(w->reactor);
}

static inline void wait_init(struct wait *w, struct reactor *r)
{
	*w = (struct wait){.reactor = r};
	op_init(&w->op, wait_done);
}

/* Runs the reactor until the op is back. */
static inline int wait_for(struct wait *w)
{
	while (!w->is_done)
		reactor_run(w->reactor);
	w->is_done = false;
	return w->res;
}

static inline struct file *world_file(struct world *w, uint64_t size_bytes)
{
	struct file *f;

	CU_ASSERT_EQUAL_FATAL(reactor_file_open(w->reactor, w->path, FILE_CREATE, &f), 0);
	CU_ASSERT_EQUAL(file_set_size(f, size_bytes), 0);
	return f;
}

static inline unsigned char *pages(size_t len_bytes)
{
	void *data = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CU_ASSERT_PTR_NOT_EQUAL_FATAL(data, MAP_FAILED);
	return data;
}

static inline void fill(unsigned char *data, size_t len_bytes, unsigned seed)
{
	for (size_t i = 0; i < len_bytes; i++)
		data[i] = (unsigned char)(i * 7 + i / 4096 + seed);
}

struct world_test {
	const char *name;
	void (*run)(void);
};

static inline int set_newest(void)
{
	is_plain = false;
	return 0;
}

static inline int set_plain(void)
{
	is_plain = true;
	return 0;
}

/* The main function of such a test. */
static inline int world_tests_run(const struct world_test *tests, size_t n_tests)
{
	CU_initialize_registry();
	CU_pSuite suites[] = {CU_add_suite("io_uring", set_newest, NULL),
			      CU_add_suite("io_uring, plain", set_plain, NULL)};
	for (size_t s = 0; s < array_size(suites); s++)
		for (size_t i = 0; i < n_tests; i++)
			CU_add_test(suites[s], tests[i].name, tests[i].run);
	alarm(WORLD_LIMIT_S);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
