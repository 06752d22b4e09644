/*
 * test_disk_counts.c: the reference counts of a tiny disk, by all sequences of a few operations.
 *
 * Three trees at most: the first, and what is forked from them. An operation writes a block of a tree (in one of two
 * leaves), trims one, forks a tree, drops one, or lets a checkpoint pass. After every sequence the trees hold what they
 * should, a measurement says what is shared, the offline check finds every count right, and when all trees are dropped
 * every block is free.
 */
#include "tests/sim/sim_check.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/checksum.h"

#define DISK_BYTES (16 * MIB)
#define TREES_MAX  3u
#define LENGTH     4u
#define CELLS      2u /* block 0 of two leaves */

enum step {
	WRITE_FIRST,
	WRITE_LAST,
	WRITE_OTHER_LEAF,
	TRIM_FIRST,
	FORK_FIRST,
	FORK_LAST,
	DROP_FIRST,
	CHECKPOINT,
	N_OPS
};

struct model_tree {
	bool exists;
	uint64_t id;
	uint32_t version[CELLS]; /* 0: a hole */
};

struct tiny {
	struct sim *sim;
	struct sim_machine *machine;
	struct disk *disk;
	struct log *log;
	struct uuid volume;
	struct model_tree trees[TREES_MAX + LENGTH];
	uint32_t n_trees;
	uint64_t session, epoch, next_id;
	uint32_t next_version;
	bool is_done;
	int res;
};

static uint8_t memory[BLOCK_BYTES] __attribute__((aligned(4096)));

static bool is_done(void *context)
{
	return ((struct tiny *)context)->is_done;
}

static void wait_done(struct tiny *t)
{
	CU_ASSERT_EQUAL_FATAL(sim_run(t->sim, is_done, t, 1000000), SIM_DONE);
	t->is_done = false;
}

static void opened(struct disk *d, int res, void *context)
{
	struct tiny *t = context;
	t->is_done = true;
	t->res = res;
}

static void closed(struct disk *d, void *context)
{
	((struct tiny *)context)->is_done = true;
}

struct tiny_io {
	struct disk_io io;
	struct tiny *tiny;
};

static void io_done(struct disk_io *io, int res)
{
	struct tiny *t = container_of(io, struct tiny_io, io)->tiny;
	t->is_done = true;
	t->res = res;
}

static struct disk_io submit(struct tiny *t, struct disk_io io)
{
	static struct tiny_io one;
	one = (struct tiny_io){.io = io, .tiny = t};
	one.io.done = io_done;
	one.io.volume = t->volume;
	one.io.session = t->session;
	disk_submit(t->disk, &one.io);
	wait_done(t);
	CU_ASSERT_EQUAL_FATAL(t->res, 0);
	return one.io;
}

static void tiny_open_disk(struct tiny *t)
{
	struct disk_options o = {.reactor = sim_reactor(t->machine),
				 .log = t->log,
				 .path = "d1",
				 .cache_bytes = 4 * MIB,
				 .opened = opened,
				 .context = t};
	char why[WHY_BYTES];
	CU_ASSERT_EQUAL_FATAL(disk_open(&o, &t->disk, why), 0);
	wait_done(t);
	CU_ASSERT_EQUAL_FATAL(t->res, 0);
	t->session = submit(t, (struct disk_io){.op = DISK_FENCE, .generation = 1, .size_blocks = 1024}).new_session;
}

static void tiny_open(struct tiny *t)
{
	struct disk_format_options o = {
	    .disk = uuid_make(1, 1), .pool = uuid_make(1, 2), .cluster = uuid_make(1, 3), .label = "d1"};
	char why[WHY_BYTES];
	*t = (struct tiny){.volume = uuid_make(1, 4), .epoch = 1, .next_id = 1};
	t->sim = sim_create(1);
	t->machine = sim_machine_create(t->sim, "n1");
	CU_ASSERT_EQUAL_FATAL(log_create(-1, LOG_ERROR, &t->log), 0);
	sim_file_create(t->machine, "d1", DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(disk_format(sim_reactor(t->machine), "d1", &o, why), 0);
	tiny_open_disk(t);
	t->trees[t->n_trees++] = (struct model_tree){.exists = true, .id = t->next_id};
	submit(t, (struct disk_io){.op = DISK_CREATE, .tree_id = t->next_id++, .epoch = t->epoch});
}

static struct model_tree *tree_at(struct tiny *t, bool is_last)
{
	struct model_tree *found = NULL;
	for (uint32_t i = 0; i < t->n_trees && (is_last || !found); i++)
		if (t->trees[i].exists)
			found = &t->trees[i];
	return found;
}

static uint32_t n_living(const struct tiny *t)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < t->n_trees; i++)
		n += t->trees[i].exists;
	return n;
}

static void tiny_write(struct tiny *t, struct model_tree *m, uint32_t cell)
{
	struct iovec iov = {memory, BLOCK_BYTES};
	memset(memory, (int)++t->next_version, BLOCK_BYTES);
	uint32_t crc = crc32c(0, memory, BLOCK_BYTES);
	submit(t, (struct disk_io){.op = DISK_WRITE,
				   .tree = disk_tree_find(t->disk, &t->volume, m->id),
				   .first = cell * 256ull,
				   .n_blocks = 1,
				   .epoch = ++t->epoch,
				   .iov = &iov,
				   .n_iov = 1,
				   .crcs = &crc});
	m->version[cell] = t->next_version;
}

static void tiny_fork(struct tiny *t, struct model_tree *m)
{
	if (n_living(t) == TREES_MAX)
		return;
	submit(t, (struct disk_io){.op = DISK_FORK,
				   .tree = disk_tree_find(t->disk, &t->volume, m->id),
				   .tree_id = t->next_id,
				   .epoch = ++t->epoch});
	struct model_tree child = *m;
	child.id = t->next_id++;
	t->trees[t->n_trees++] = child;
}

static void tiny_drop(struct tiny *t, struct model_tree *m)
{
	submit(t, (struct disk_io){.op = DISK_DROP, .tree = disk_tree_find(t->disk, &t->volume, m->id)});
	m->exists = false;
}

static void tiny_do(struct tiny *t, enum step op)
{
	struct model_tree *first = tree_at(t, false), *last = tree_at(t, true);
	switch (op) {
	case WRITE_FIRST:
		return tiny_write(t, first, 0);
	case WRITE_LAST:
		return tiny_write(t, last, 0);
	case WRITE_OTHER_LEAF:
		return tiny_write(t, last, 1);
	case TRIM_FIRST:
		submit(t, (struct disk_io){.op = DISK_TRIM,
					   .tree = disk_tree_find(t->disk, &t->volume, first->id),
					   .n_blocks = 256,
					   .epoch = ++t->epoch});
		first->version[0] = 0;
		return;
	case FORK_FIRST:
		return tiny_fork(t, first);
	case FORK_LAST:
		return tiny_fork(t, last);
	case DROP_FIRST:
		if (n_living(t) > 1)
			tiny_drop(t, first);
		return;
	case CHECKPOINT:
		disk_checkpoint(t->disk);
		CU_ASSERT_EQUAL_FATAL(sim_run_for(t->sim, 20 * NS_PER_MS), SIM_DONE);
		return;
	case N_OPS:
		break;
	}
	quarry_assert(!"no operation");
}

/* ---- judging ---- */

static bool is_shared(const struct tiny *t, const struct model_tree *m, uint32_t cell)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < t->n_trees; i++)
		n += t->trees[i].exists && t->trees[i].version[cell] == m->version[cell];
	return n > 1;
}

static void judge_tree(struct tiny *t, const struct model_tree *m)
{
	struct disk_tree *tree = disk_tree_find(t->disk, &t->volume, m->id);
	uint64_t data = 0, unique = 0;
	CU_ASSERT_PTR_NOT_NULL_FATAL(tree);
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		struct iovec iov = {memory, BLOCK_BYTES};
		submit(
		    t,
		    (struct disk_io){
			.op = DISK_READ, .tree = tree, .first = cell * 256ull, .n_blocks = 1, .iov = &iov, .n_iov = 1});
		CU_ASSERT_EQUAL_FATAL(memory[0], m->version[cell]);
		CU_ASSERT_EQUAL_FATAL(memory[BLOCK_BYTES - 1], m->version[cell]);
		data += m->version[cell] != 0;
		unique += m->version[cell] != 0 && !is_shared(t, m, cell);
	}
	struct disk_io measured = submit(t, (struct disk_io){.op = DISK_MEASURE, .tree_id = m->id});
	CU_ASSERT_EQUAL_FATAL(measured.data_blocks, data);
	CU_ASSERT_EQUAL_FATAL(measured.own_data_blocks, unique);
	CU_ASSERT_EQUAL_FATAL(measured.next, 0);
	uint64_t own = 0, pages = 0;
	struct disk_io piece = {.next = 0};
	do {
		piece = submit(
		    t, (struct disk_io){.op = DISK_MEASURE, .tree_id = m->id, .first = piece.next, .steps_max = 1});
		own += piece.own_data_blocks;
		pages += piece.own_pages;
	} while (piece.next > 0);
	CU_ASSERT_EQUAL_FATAL(own, unique);
	CU_ASSERT_EQUAL_FATAL(pages, measured.own_pages);
}

static bool is_freed(void *context)
{
	struct disk_stats stats;
	disk_stats(((struct tiny *)context)->disk, &stats);
	return stats.dying_trees == 0;
}

static void tiny_check(struct tiny *t, uint32_t n_trees)
{
	struct sim_check c;
	disk_close(t->disk, closed, t);
	wait_done(t);
	sim_check_init(&c, sim_file_find(t->machine, "d1"));
	CU_ASSERT_EQUAL_FATAL(disk_check_run(&c.check), 0);
	CU_ASSERT_EQUAL_FATAL(c.check.errors + c.check.warnings, 0);
	CU_ASSERT_EQUAL_FATAL(c.check.trees, n_trees);
	if (n_trees == 0)
		CU_ASSERT_EQUAL_FATAL(c.check.data_blocks + c.check.pages, 0);
}

static void run_sequence(uint32_t number)
{
	struct tiny t;
	tiny_open(&t);
	for (uint32_t i = 0; i < LENGTH; i++, number /= N_OPS)
		tiny_do(&t, (enum step)(number % N_OPS));
	CU_ASSERT_EQUAL_FATAL(sim_run(t.sim, is_freed, &t, 1000000), SIM_DONE);
	for (uint32_t i = 0; i < t.n_trees; i++)
		if (t.trees[i].exists)
			judge_tree(&t, &t.trees[i]);
	tiny_check(&t, n_living(&t));
	tiny_open_disk(&t);
	for (uint32_t i = 0; i < t.n_trees; i++)
		if (t.trees[i].exists)
			judge_tree(&t, &t.trees[i]);
	for (uint32_t i = 0; i < t.n_trees; i++)
		if (t.trees[i].exists)
			tiny_drop(&t, &t.trees[i]);
	CU_ASSERT_EQUAL_FATAL(sim_run(t.sim, is_freed, &t, 1000000), SIM_DONE);
	tiny_check(&t, 0);
	sim_destroy(t.sim);
	log_destroy(t.log);
}

static void all_sequences(void)
{
	uint32_t n = 1;
	for (uint32_t i = 0; i < LENGTH; i++)
		n *= N_OPS;
	for (uint32_t number = 0; number < n; number++)
		run_sequence(number);
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("reference counts", NULL, NULL);
	CU_add_test(suite, "all sequences of operations", all_sequences);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
