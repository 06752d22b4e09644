/*
 * test_ahead.c: what has changed in a volume costs by what has changed: however many segments hold data, on one disk or on
 * several.
 */
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)
#define BLOCK      4096u
#define N_CHUNKS   3u
#define SIZE_BYTES ((uint64_t)N_CHUNKS * PLACEMENT_CHUNK * GIB)
#define EVERY      9u /* segments from one that holds data to the next */

static struct head_world w;
static uint8_t *data;

static struct volume *open_world(uint64_t seed, uint32_t n_disks)
{
	world_open(&w, seed);
	for (uint32_t i = 0; i < n_disks; i++)
		world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	data = world_memory(BLOCK);
	memset(data, 7, BLOCK);
	struct volume *v = world_volume(&w, "vm1", SIZE_BYTES);
	for (uint64_t pos = 0; pos < SIZE_BYTES; pos += EVERY * GIB)
		CU_ASSERT_EQUAL_FATAL(world_write(&w, v, pos, data, BLOCK, 0), 0);
	CU_ASSERT_EQUAL_FATAL(world_snapshot(&w, "vm1@a"), 0);
	return v;
}

static void close_world(void)
{
	world_close(&w);
	free(data);
}

static struct volume *restart(void)
{
	world_stop(&w);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	return world_head(&w, "vm1");
}

struct cost {
	uint64_t page_reads, chunks;
};

static struct cost cost_now(const struct volume *v)
{
	struct cost cost = {0};
	for (uint32_t i = 0; i < w.n_disks; i++)
		cost.page_reads += disk_counters(w.set->disks[i]->disk)->page_reads;
	for (uint32_t i = 0; i < v->n_chunks; i++)
		cost.chunks += v->chunks[i] != NULL;
	return cost;
}

/* Only these positions have changed, a block each. */
static void expect_changes(const uint64_t *pos, uint32_t n)
{
	struct set_changes c = world_changes(&w, "vm1", "vm1@a");
	uint64_t at = 0;
	uint32_t found = 0;
	for (uint32_t i = 0; i < c.n_extents; at += c.extents[i++].len_bytes) {
		if (!c.extents[i].is_changed)
			continue;
		CU_ASSERT_FATAL(found < n);
		CU_ASSERT_EQUAL(at, pos[found]);
		CU_ASSERT_EQUAL(c.extents[i].len_bytes, BLOCK);
		CU_ASSERT_TRUE(c.extents[i].is_data);
		found++;
	}
	CU_ASSERT_EQUAL(at, SIZE_BYTES);
	CU_ASSERT_EQUAL(found, n);
	free(c.extents);
}

static const uint64_t none[1];

static void only_what_changed_is_read(void)
{
	for (uint32_t n_disks = 1; n_disks <= 3; n_disks += 2) {
		open_world(1, n_disks);
		struct volume *v = restart();
		struct cost before = cost_now(v);
		expect_changes(none, 0);
		struct cost after = cost_now(v);
		CU_ASSERT_EQUAL(after.chunks, before.chunks);
		CU_ASSERT(after.page_reads - before.page_reads <= n_disks); /* roots */
		const uint64_t pos[] = {EVERY * GIB + 8 * BLOCK, 33 * EVERY * GIB};
		for (uint32_t i = 0; i < 2; i++)
			CU_ASSERT_EQUAL(world_write(&w, v, pos[i], data, BLOCK, 0), 0);
		v = restart();
		before = cost_now(v);
		expect_changes(pos, 2);
		after = cost_now(v);
		CU_ASSERT(after.chunks - before.chunks <= 2);
		CU_ASSERT(after.page_reads - before.page_reads <= n_disks + 2 * 4);
		close_world();
	}
}

static void all_that_changed_is_told(void)
{
	struct volume *v = open_world(2, 3);
	static uint64_t pos[N_CHUNKS * PLACEMENT_CHUNK];
	uint32_t n = 0;
	for (uint64_t at = 0; at < SIZE_BYTES; at += EVERY * GIB)
		pos[n++] = at;
	for (uint32_t i = 0; i < n; i++)
		CU_ASSERT_EQUAL_FATAL(world_write(&w, v, pos[i], data, BLOCK, 0), 0);
	expect_changes(pos, n);
	restart();
	expect_changes(pos, n);
	close_world();
}

/* A disk's tombstone at the top of its tree covers what lies on the other one. */
static void a_tombstone_counts_where_its_segment_lies(void)
{
	struct volume *v = open_world(3, 2);
	uint64_t alone = 0, disks;
	for (uint64_t pos = 0; pos < SIZE_BYTES; pos += EVERY * GIB) {
		CU_ASSERT_EQUAL_FATAL(chunk_find(v, pos / GIB, &disks), PLACED_ON_DISKS);
		if (pos == 0)
			alone = disks;
		if (disks == alone) /* all of this disk's segments: its tree is one tombstone */
			CU_ASSERT_EQUAL_FATAL(world_op(&w, v, VOLUME_TRIM, pos, GIB, 0), 0);
	}
	struct set_changes c = world_changes(&w, "vm1", "vm1@a");
	uint64_t at = 0;
	for (uint32_t i = 0; i < c.n_extents; at += c.extents[i++].len_bytes)
		for (uint64_t pos = 0; pos < SIZE_BYTES; pos += EVERY * GIB) {
			CU_ASSERT_EQUAL_FATAL(chunk_find(v, pos / GIB, &disks), PLACED_ON_DISKS);
			if (pos < at || pos >= at + c.extents[i].len_bytes)
				continue;
			CU_ASSERT_EQUAL(c.extents[i].is_changed, disks == alone);
			CU_ASSERT_FALSE(c.extents[i].is_data);
		}
	CU_ASSERT_EQUAL(at, SIZE_BYTES);
	free(c.extents);
	close_world();
}

/* It may have changed anything then: its rows are asked for one by one, and only those fail that it still cannot read. */
static void a_disk_that_cannot_say_is_asked_row_by_row(void)
{
	for (uint32_t failing = 1; failing <= 3; failing++) {
		struct volume *v = open_world(4, 3);
		const uint64_t pos[] = {EVERY * GIB + 8 * BLOCK, 33 * EVERY * GIB};
		for (uint32_t i = 0; i < 2; i++)
			CU_ASSERT_EQUAL(world_write(&w, v, pos[i], data, BLOCK, 0), 0);
		restart();
		sim_file_fail(world_disk_file(&w, failing), OP_READ, 0, EIO);
		expect_changes(pos, 2);
		close_world();
	}
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("ahead", NULL, NULL);
	CU_add_test(suite, "only what changed is read", only_what_changed_is_read);
	CU_add_test(suite, "all that changed is told", all_that_changed_is_told);
	CU_add_test(suite, "a tombstone counts where its segment lies", a_tombstone_counts_where_its_segment_lies);
	CU_add_test(suite, "a disk that cannot say is asked row by row", a_disk_that_cannot_say_is_asked_row_by_row);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
