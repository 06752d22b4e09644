/*
 * test_placement.c: where segments get their disks: at their first write, in shared transactions, weighted by free space; and
 * elsewhere when a disk turns out to be full.
 */
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)
#define WRITES     120u

/* ---- many first writes at once ---- */

struct burst {
	struct volume_io ios[WRITES];
	struct iovec iov;
	uint32_t n_done, n_failed;
	int res;
};
static struct burst burst;

static void burst_done(struct volume_io *io, int res)
{
	burst.n_done++;
	burst.n_failed += res != 0;
	if (res != 0)
		burst.res = res;
}

static bool burst_is_over(void *context)
{
	return burst.n_done == *(uint32_t *)context;
}

static void burst_write(struct head_world *w, struct volume *v, uint32_t n, uint64_t spacing, void *data)
{
	burst = (struct burst){.iov = {data, 4096}};
	for (uint32_t i = 0; i < n; i++) {
		burst.ios[i] = (struct volume_io){.op = VOLUME_WRITE,
						  .pos_bytes = i * spacing,
						  .len_bytes = 4096,
						  .iov = &burst.iov,
						  .n_iov = 1,
						  .done = burst_done};
		volume_submit(v, &burst.ios[i]);
	}
	world_until(w, burst_is_over, &n);
}

struct transactions {
	struct metadata_watch watch;
	uint32_t n;
	uint64_t revision;
};

static void transactions_count(struct metadata_watch *watch, const struct metadata_item *item)
{
	struct transactions *t = container_of(watch, struct transactions, watch);
	if (item->revision != t->revision)
		t->n++;
	t->revision = item->revision;
}

static void first_writes_share_transactions(void)
{
	struct head_world w;
	struct transactions t = {.watch = {.prefix = "placement/", .changed = transactions_count}};
	uint8_t *data = world_memory(4096);
	memset(data, 1, 4096);
	world_open(&w, 1);
	for (uint32_t i = 0; i < 4; i++)
		world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 64 * TIB);
	metadata_watch_start(w.metadata, &t.watch);
	burst_write(&w, v, 60, 4096, data); /* one segment */
	CU_ASSERT_EQUAL(t.n, 1);
	burst_write(&w, v, 60, GIB, data); /* one chunk */
	CU_ASSERT_EQUAL(burst.n_failed, 0);
	CU_ASSERT(t.n <= 3);
	t.n = 0;
	burst_write(&w, v, WRITES, 500 * GIB, data); /* a chunk each: 15 to a transaction */
	CU_ASSERT_EQUAL(burst.n_failed, 0);
	CU_ASSERT(t.n <= 2 * (WRITES / 15 + 1));
	CU_ASSERT_EQUAL(v->entry->facts.n_disks, 4);
	metadata_watch_stop(w.metadata, &t.watch);
	world_close(&w);
	free(data);
}

static void chunks_are_cached_within_a_bound(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	memset(data, 1, 4096);
	world_open(&w, 2);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 4096 * TIB);
	CU_ASSERT_EQUAL(world_write(&w, v, 4095 * TIB, data, 4096, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, 4095 * TIB, 0), 0); /* looks into every chunk */
	CU_ASSERT(w.set->chunks.n <= CHUNKS_MAX);
	memset(data, 0, 4096);
	CU_ASSERT_EQUAL(world_read(&w, v, 4095 * TIB, data, 4096), 0);
	CU_ASSERT_EQUAL(data[0], 1);
	world_close(&w);
	free(data);
}

static void free_space_is_the_weight(void)
{
	struct head_world w;
	uint32_t n[2] = {0};
	world_open(&w, 3);
	world_add_disk(&w, 32 * MIB);
	world_add_disk(&w, 256 * MIB);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", TIB);
	for (uint32_t i = 0; i < 1000; i++) {
		uint64_t disks;
		CU_ASSERT_EQUAL_FATAL(placement_choose(v, 0, &disks), 0);
		n[disks >> 1]++;
	}
	CU_ASSERT(n[0] > 40 && n[0] < 200);
	uint64_t disks;
	CU_ASSERT_EQUAL(placement_choose(v, 1, &disks), 0);
	CU_ASSERT_EQUAL(disks, 2);
	CU_ASSERT_EQUAL(placement_choose(v, 3, &disks), -ENOSPC);
	world_close(&w);
}

static void without_disks_there_is_no_place(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	memset(data, 1, 4096);
	world_open(&w, 4);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", GIB);
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, 0), -ENOSPC);
	CU_ASSERT_EQUAL(world_read(&w, v, 0, data, 4096), 0);
	world_close(&w);
	free(data);
}

static void fence_done(struct disk_io *io, int res)
{
	CU_ASSERT_EQUAL(res, 0);
	burst.n_done++;
}

/* The disk has heard of a newer head of the volume: there is room, and it cannot be had. */
static void a_disk_that_cannot_be_joined_is_no_full_disk(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	uint32_t n = 1;
	memset(data, 1, 4096);
	world_open(&w, 8);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", GIB);
	struct disk_io fence = {.op = DISK_FENCE,
				.volume = *volume_uuid(v),
				.generation = 1000,
				.size_blocks = SEGMENT_BLOCKS,
				.done = fence_done};
	burst.n_done = 0;
	disk_submit(w.set->disks[0]->disk, &fence);
	world_until(&w, burst_is_over, &n);
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, 0), -EIO);
	CU_ASSERT(world_events(&w, "disk-not-joined") > 0);
	world_close(&w);
	free(data);
}

/* ---- a full disk ---- */

/* Fills one disk through a volume whose single segment lies there. */
static void fill_disk(struct head_world *w, struct volume *v, uint8_t *data)
{
	int res = 0;
	for (uint32_t i = 0; res == 0; i++)
		res = world_write(w, v, i * 64 * KIB, data, 64 * KIB, 0);
	CU_ASSERT_EQUAL(res, -ENOSPC);
}

static void a_fresh_segment_leaves_a_full_disk(void)
{
	struct head_world w;
	uint8_t *data = world_memory(MIB), *back = world_memory(MIB);
	memset(data, 3, MIB);
	world_open(&w, 5);
	for (uint32_t i = 0; i < 2; i++)
		world_add_disk(&w, 32 * MIB);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	fill_disk(&w, world_volume(&w, "filler", GIB), data);
	struct volume *v = world_volume(&w, "vm1", TIB);
	/* A little room is left on the full disk, so it is chosen now and then, and does not hold what is written. */
	for (uint32_t i = 0; i < 150; i++) {
		uint64_t disks;
		CU_ASSERT_EQUAL(world_write(&w, v, i * GIB, data, 128 * KIB, 0), 0);
		CU_ASSERT_EQUAL_FATAL(chunk_find(v, i, &disks), PLACED_ON_DISKS);
		CU_ASSERT_EQUAL(world_read(&w, v, i * GIB, back, 128 * KIB), 0);
		CU_ASSERT_EQUAL(memcmp(data, back, 128 * KIB), 0);
	}
	world_close(&w);
	free(data);
	free(back);
}

static void concurrent_first_writes_move_together(void)
{
	for (uint64_t seed = 30; seed < 50; seed++) {
		struct head_world w;
		uint8_t *data = world_memory(MIB), *back = world_memory(4096);
		uint32_t n = 40;
		memset(data, 3, MIB);
		world_open(&w, seed);
		world_add_disk(&w, 32 * MIB);
		world_add_disk(&w, 32 * MIB);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		struct volume *filler = world_volume(&w, "filler", GIB);
		fill_disk(&w, filler, data);
		uint64_t disks;
		CU_ASSERT_EQUAL_FATAL(chunk_find(filler, 0, &disks), PLACED_ON_DISKS);
		uint32_t full = (uint32_t)__builtin_ctzll(disks);
		struct volume *v = world_volume(&w, "vm1", 100 * GIB);
		/* As if the choice had been made just before the disk was full. */
		w.set->disks[!full]->state = SET_DISK_FAILED;
		burst = (struct burst){.iov = {data, 256 * KIB}};
		for (uint32_t i = 0; i < n; i++) {
			burst.ios[i] = (struct volume_io){.op = VOLUME_WRITE,
							  .pos_bytes = i % 4 * GIB + i * MIB,
							  .len_bytes = 256 * KIB,
							  .iov = &burst.iov,
							  .n_iov = 1,
							  .done = burst_done};
			volume_submit(v, &burst.ios[i]);
		}
		for (uint32_t i = 0; i < seed - 29; i++)
			sim_step(w.sim);
		w.set->disks[!full]->state = SET_DISK_RUNNING;
		world_until(&w, burst_is_over, &n);
		CU_ASSERT(burst.n_failed == 0 || burst.res == -ENOSPC);
		for (uint32_t i = 0; i < n; i++) {
			int res = world_read(&w, v, burst.ios[i].pos_bytes, back, 4096);
			CU_ASSERT_EQUAL(res, 0);
			if (burst.n_failed == 0)
				CU_ASSERT_EQUAL(back[0], 3);
		}
		CU_ASSERT_TRUE(placer_is_idle(v));
		world_close(&w);
		free(data);
		free(back);
	}
}

static bool is_at_disk(void *context)
{
	const struct volume *v = context;
	return v->in_flight[0] + v->in_flight[1] == 4;
}

static void burst_barrier_ended(struct volume *v, int res)
{
	CU_ASSERT_EQUAL(res, 0);
}

/* All parts wait for a move, the move waits for the barrier, and the barrier has to flush. */
static void a_barrier_needs_no_part_of_data(void)
{
	struct head_world w;
	uint8_t *data = world_memory(MIB);
	uint32_t n = 4;
	memset(data, 3, MIB);
	world_open(&w, 7);
	world_add_disk(&w, 32 * MIB);
	world_add_disk(&w, 32 * MIB);
	w.n_parts = n;
	CU_ASSERT_EQUAL(world_start(&w), 0);
	uint32_t full = 0;
	struct volume *v = world_volume(&w, "vm1", 2 * GIB);
	w.set->disks[!full]->state = SET_DISK_FAILED; /* as if the other were chosen just before it was full */
	CU_ASSERT_EQUAL(world_write(&w, v, GIB, data, 4096, 0), 0); /* it has joined the disk by then */
	fill_disk(&w, world_volume(&w, "filler", GIB), data);
	burst = (struct burst){.iov = {data, 256 * KIB}};
	for (uint32_t i = 0; i < n; i++) {
		burst.ios[i] = (struct volume_io){.op = VOLUME_WRITE,
						  .pos_bytes = i * MIB,
						  .len_bytes = 256 * KIB,
						  .iov = &burst.iov,
						  .n_iov = 1,
						  .done = burst_done};
		volume_submit(v, &burst.ios[i]);
	}
	world_until(&w, is_at_disk, v);
	w.set->disks[!full]->state = SET_DISK_RUNNING;
	barrier_now(v, burst_barrier_ended);
	world_until(&w, burst_is_over, &n);
	CU_ASSERT_EQUAL(burst.n_failed, 0);
	CU_ASSERT_TRUE(placer_is_idle(v));
	CU_ASSERT_TRUE(v->disks[full].written > 0 && v->disks[!full].written > 0); /* they have moved */
	world_close(&w);
	free(data);
}

static void burst_metadata_done(struct metadata_request *q, int res)
{
	CU_ASSERT_EQUAL(res, 0);
}

static void a_damaged_chunk_fails_its_segments_alone(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	struct transaction t;
	char uuid[UUID_TEXT_BYTES];
	memset(data, 1, 4096);
	world_open(&w, 6);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", TIB);
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, 0), 0);
	CU_ASSERT_EQUAL(world_write(&w, v, 300 * GIB, data, 4096, 0), 0);
	uuid_to_text(volume_uuid(v), uuid);
	world_stop(&w);
	transaction_begin(&t, burst_metadata_done);
	transaction_put(&t, strdup("{\"segments\": {\"0\": [\"nonsense\"]}}"), CHUNK_KEY, uuid, 0u);
	CU_ASSERT_EQUAL_FATAL(transaction_submit(&t, w.metadata), 0);
	sim_run(w.sim, NULL, NULL, 1000);
	transaction_clear(&t);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	v = world_head(&w, "vm1");
	CU_ASSERT_EQUAL(world_read(&w, v, 0, data, 4096), -EIO);
	CU_ASSERT_EQUAL(world_write(&w, v, 4096, data, 4096, 0), -EIO); /* and is not overwritten */
	CU_ASSERT_EQUAL(world_read(&w, v, 300 * GIB, data, 4096), 0);
	CU_ASSERT_EQUAL(data[0], 1);
	CU_ASSERT(world_events(&w, "placement-unreadable") > 0);
	world_close(&w);
	free(data);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("placement", NULL, NULL);
	CU_add_test(suite, "first writes share transactions", first_writes_share_transactions);
	CU_add_test(suite, "chunks are cached within a bound", chunks_are_cached_within_a_bound);
	CU_add_test(suite, "free space is the weight", free_space_is_the_weight);
	CU_add_test(suite, "without disks there is no place", without_disks_there_is_no_place);
	CU_add_test(suite, "a disk that cannot be joined is no full disk",
		    a_disk_that_cannot_be_joined_is_no_full_disk);
	CU_add_test(suite, "a fresh segment leaves a full disk", a_fresh_segment_leaves_a_full_disk);
	CU_add_test(suite, "concurrent first writes move together", concurrent_first_writes_move_together);
	CU_add_test(suite, "a barrier needs no part of data", a_barrier_needs_no_part_of_data);
	CU_add_test(suite, "a damaged chunk fails its segments alone", a_damaged_chunk_fails_its_segments_alone);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
