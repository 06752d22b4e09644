/*
 * test_disk_recovery.c: a medium that cannot be read while the disk recovers: what was completed is there, is refused with an
 * error, or the disk says that it cannot tell; it is never silently what it was before (P1, P3). What a power loss takes
 * is no damage. And pages beyond the cache, read after a start.
 */
#include "tests/unit/head_world.h"
#include "volumes/disk/disk_internal.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)
#define N_BLOCKS   200u
#define OLD        1
#define NEW        2

/* Block i of the volume, one write each: `stamp` in every byte. */
static void write_blocks(struct head_world *w, uint8_t stamp, bool is_flushed)
{
	struct volume *v = world_head(w, "vm1");
	uint8_t *data = world_memory(4096);
	memset(data, stamp, 4096);
	for (uint64_t i = 0; i < N_BLOCKS; i++)
		CU_ASSERT_EQUAL_FATAL(world_write(w, v, i * 4096, data, 4096, 0), 0);
	if (is_flushed)
		CU_ASSERT_EQUAL(world_op(w, v, VOLUME_FLUSH, 0, 0, 0), 0);
	free(data);
}

/* A world that has just been killed: NEW was completed over OLD, and is in the journal only. */
static void killed_world(struct head_world *w, uint64_t seed, bool is_flushed)
{
	world_open(w, seed);
	world_add_disk(w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	world_volume(w, "vm1", GIB);
	write_blocks(w, OLD, true);
	disk_checkpoint(w->set->disks[0]->disk);
	world_let_pass(w, NS_PER_S);
	write_blocks(w, NEW, is_flushed);
}

struct verdict {
	uint32_t n_new, n_refused, n_wrong;
};

static struct verdict read_all(struct head_world *w)
{
	struct verdict verdict = {0};
	struct volume *v = world_head(w, "vm1");
	uint8_t *data = world_memory(4096);
	for (uint64_t i = 0; i < N_BLOCKS; i++) {
		int res = v ? world_read(w, v, i * 4096, data, 4096) : -EIO;
		verdict.n_refused += res != 0;
		verdict.n_new += res == 0 && data[0] == NEW;
		verdict.n_wrong += res == 0 && data[0] != NEW;
	}
	free(data);
	return verdict;
}

static void a_read_that_fails_once_costs_nothing(void)
{
	for (uint32_t skip = 0; skip < 24; skip++) {
		struct head_world w;
		killed_world(&w, 10 + skip, skip % 2);
		world_crash(&w, SIM_KILL);
		sim_file_fail(world_disk_file(&w, 1), OP_READ, skip, EIO);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		CU_ASSERT_EQUAL(read_all(&w).n_wrong, 0);
		sim_file_fail(world_disk_file(&w, 1), OP_READ, 0, 0);
		world_stop(&w);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		CU_ASSERT_EQUAL(read_all(&w).n_new, N_BLOCKS);
		world_close(&w);
	}
}

static void a_journal_block_that_cannot_be_read_is_no_end(void)
{
	for (uint32_t i = 0; i < 12; i++) {
		struct head_world w;
		killed_world(&w, 100 + i, i % 2);
		struct superblock sb = *disk_superblock(w.set->disks[0]->disk);
		world_crash(&w, SIM_KILL);
		uint64_t sequence = sb.replay_from + i * 15;
		sim_file_break(world_disk_file(&w, 1), JOURNAL_START + sequence % sb.journal_blocks);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		CU_ASSERT_NOT_EQUAL(w.set->disks[0]->state, SET_DISK_RUNNING);
		CU_ASSERT_PTR_NOT_NULL(strstr(w.set->disks[0]->why, "cannot be read"));
		CU_ASSERT_EQUAL(read_all(&w).n_refused, N_BLOCKS);
		world_close(&w);
	}
}

/* An older checkpoint is valid, and what followed it was punched or is not in the journal any more. */
static void a_superblock_that_cannot_be_read_is_no_old_one(void)
{
	for (unsigned pair = 0; pair < SUPERBLOCK_SLOTS / 2; pair++) {
		struct head_world w;
		killed_world(&w, 150, true);
		world_stop(&w);
		for (unsigned copy = 0; copy < 2; copy++)
			sim_file_break(world_disk_file(&w, 1), superblock_slot_block(superblock_slot(pair, copy)));
		CU_ASSERT_EQUAL(world_start(&w), 0);
		CU_ASSERT_NOT_EQUAL(w.set->disks[0]->state, SET_DISK_RUNNING);
		CU_ASSERT_PTR_NOT_NULL(strstr(w.set->disks[0]->why, "cannot be read"));
		world_close(&w);
	}
}

static void data_that_cannot_be_read_is_refused(void)
{
	struct head_world w;
	killed_world(&w, 200, false);
	struct disk *d = w.set->disks[0]->disk;
	struct disk_tree *t = disk_tree_find(d, volume_uuid(world_head(&w, "vm1")), 1);
	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	struct pointer p;
	struct waiter waiter = {0};
	list_init(&waiter.link);
	CU_ASSERT_EQUAL_FATAL(tree_get(t, 7, 1, &p, &waiter), 0);
	uint64_t data_block = pointer_block(p);
	world_crash(&w, SIM_KILL);
	sim_file_break(world_disk_file(&w, 1), data_block);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct verdict verdict = read_all(&w);
	CU_ASSERT_EQUAL(verdict.n_wrong, 0);
	CU_ASSERT_EQUAL(verdict.n_refused, 1);
	CU_ASSERT_EQUAL(verdict.n_new, N_BLOCKS - 1);
	CU_ASSERT(world_events(&w, "damage") > 0);
	world_close(&w);
}

/* More completed, unflushed journal blocks than may be in flight: a power loss leaves any of them. */
static void a_power_loss_with_many_unflushed_journal_blocks(void)
{
	uint8_t *data = world_memory(4096);
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct head_world w;
		world_open(&w, seed);
		world_add_disk(&w, 512 * MIB);
		CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
		struct volume *v = world_volume(&w, "vm1", GIB);
		memset(data, NEW, 4096);
		CU_ASSERT_EQUAL_FATAL(world_write(&w, v, 0, data, 4096, 0), 0);
		CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_FLUSH, 0, 0, 0), 0);
		for (uint64_t i = 1; i <= 300; i++)
			CU_ASSERT_EQUAL_FATAL(world_write(&w, v, i * 4096, data, 4096, 0), 0);
		world_crash(&w, SIM_POWER_LOSS);
		CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
		CU_ASSERT_EQUAL(w.set->disks[0]->state, SET_DISK_RUNNING);
		v = world_head(&w, "vm1");
		CU_ASSERT_PTR_NOT_NULL_FATAL(v);
		CU_ASSERT_EQUAL(world_read(&w, v, 0, data, 4096), 0);
		CU_ASSERT_EQUAL(data[0], NEW);
		world_close(&w);
	}
	free(data);
}

/* ---- atomicity ---- */

static bool is_answered;

static void write_answered(struct volume_io *io, int res)
{
	is_answered = true;
}

static bool is_write_answered(void *context)
{
	return is_answered;
}

/* 256 KiB that begin inside a block touch 65 blocks, and are one write all the same (P5). */
static void an_unaligned_write_is_whole_or_not_at_all(void)
{
	uint8_t *data = world_memory(512 * KIB);
	uint32_t n_none = 0, n_all = 0;
	for (uint32_t steps = 1; steps < 450; steps += 5) {
		struct head_world w;
		world_open(&w, steps);
		world_add_disk(&w, DISK_BYTES);
		CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
		struct volume *v = world_volume(&w, "vm1", GIB);
		memset(data, OLD, 512 * KIB);
		CU_ASSERT_EQUAL_FATAL(world_write(&w, v, 0, data, 512 * KIB, VOLUME_FUA), 0);
		memset(data, NEW, 256 * KIB);
		struct iovec iov = {data, 256 * KIB};
		struct volume_io io = {.op = VOLUME_WRITE,
				       .pos_bytes = 512,
				       .len_bytes = 256 * KIB,
				       .iov = &iov,
				       .n_iov = 1,
				       .done = write_answered};
		is_answered = false;
		volume_submit(v, &io);
		sim_run(w.sim, is_write_answered, NULL, steps);
		world_crash(&w, steps % 2 ? SIM_KILL : SIM_POWER_LOSS);
		CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
		v = world_head(&w, "vm1");
		CU_ASSERT_EQUAL_FATAL(world_read(&w, v, 0, data, 512 * KIB), 0);
		uint32_t n = 0;
		for (uint32_t i = 512; i < 512 + 256 * KIB; i++)
			n += data[i] == NEW;
		n_none += n == 0;
		n_all += n == 256 * KIB;
		world_close(&w);
	}
	CU_ASSERT_EQUAL(n_none + n_all, 90);
	CU_ASSERT(n_none > 0 && n_all > 0);
	free(data);
}

/* ---- the cache ---- */

static void more_leaves_are_read_than_there_are_frames(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	uint64_t n_leaves = 3000;
	world_open(&w, 300);
	world_add_disk(&w, 256 * MIB);
	w.cache_bytes = 8 * MIB;
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 8 * GIB);
	memset(data, NEW, 4096);
	for (uint64_t i = 0; i < n_leaves; i++)
		CU_ASSERT_EQUAL_FATAL(world_write(&w, v, i * MIB, data, 4096, 0), 0);
	world_stop(&w);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	struct disk_stats stats;
	disk_stats(w.set->disks[0]->disk, &stats);
	CU_ASSERT(stats.cache_pages_max < n_leaves); /* or the test shows nothing */
	v = world_head(&w, "vm1");
	for (uint64_t i = 0; i < n_leaves; i++) {
		CU_ASSERT_EQUAL_FATAL(world_read(&w, v, i * MIB, data, 4096), 0);
		CU_ASSERT_EQUAL(data[0], NEW);
	}
	world_close(&w);
	free(data);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("disk recovery", NULL, NULL);
	CU_add_test(suite, "a read that fails once costs nothing", a_read_that_fails_once_costs_nothing);
	CU_add_test(suite, "a journal block that cannot be read is no end",
		    a_journal_block_that_cannot_be_read_is_no_end);
	CU_add_test(suite, "a superblock that cannot be read is no old one",
		    a_superblock_that_cannot_be_read_is_no_old_one);
	CU_add_test(suite, "data that cannot be read is refused", data_that_cannot_be_read_is_refused);
	CU_add_test(suite, "a power loss with many unflushed journal blocks",
		    a_power_loss_with_many_unflushed_journal_blocks);
	CU_add_test(suite, "an unaligned write is whole or not at all", an_unaligned_write_is_whole_or_not_at_all);
	CU_add_test(suite, "more leaves are read than there are frames", more_leaves_are_read_than_there_are_frames);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
