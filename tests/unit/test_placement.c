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

/* The store knows something newer of the disk, which is not taken in while a command is carried out: so the command that
 * waits for the write, or the end of the set, does not wait for ever. */
static void a_detach_ends_though_a_placement_cannot_be_recorded(void)
{
	struct metadata_faults slow = {.delay_max_ns = 30 * NS_PER_MS};
	for (uint64_t seed = 10; seed < 20; seed++) {
		struct head_world w;
		char key[KEY_BYTES], uuid[UUID_TEXT_BYTES];
		uint8_t *data = world_memory(4096);
		memset(data, 1, 4096);
		world_open(&w, seed);
		world_add_disk(&w, DISK_BYTES);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		struct volume *v = world_volume(&w, "vm1", TIB);
		if (seed % 2) { /* the disk is joined: it is the record that is refused */
			CU_ASSERT_EQUAL(world_write(&w, v, GIB, data, 4096, 0), 0);
		}
		uuid_to_text(&w.set->disks[0]->facts.uuid, uuid);
		snprintf(key, sizeof(key), DISK_KEY, uuid);
		world_put(&w, key, world_get(&w, key));
		metadata_memory_set_faults(w.metadata, &slow);
		struct world_request r = {.io = {.op = VOLUME_WRITE, .len_bytes = 4096}, .iov = {data, 4096}};
		world_request_start(v, &r);
		if (seed < 15) {
			CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
		} else {
			world_stop(&w);
		}
		CU_ASSERT(r.is_done);
		CU_ASSERT_EQUAL(r.res, -ESHUTDOWN);
		world_close(&w);
		free(data);
	}
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
		CU_ASSERT_EQUAL_FATAL(placement_choose(v, 0, 0, &disks), 0);
		n[disks >> 1]++;
	}
	CU_ASSERT(n[0] > 40 && n[0] < 200);
	uint64_t disks;
	CU_ASSERT_EQUAL(placement_choose(v, 1, 0, &disks), 0);
	CU_ASSERT_EQUAL(disks, 2);
	CU_ASSERT_EQUAL(placement_choose(v, 3, 0, &disks), -ENOSPC);
	world_close(&w);
}

static struct volume *attach_copies(struct head_world *w, const char *name, uint32_t replicas)
{
	CU_ASSERT_EQUAL_FATAL(world_create_copies(w, name, TIB, replicas), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(w, name), 0);
	return world_head(w, name);
}

/* Disks of equal size, and "vm1" with so many copies. */
static struct volume *open_copies(struct head_world *w, uint64_t seed, uint32_t n_disks, uint32_t replicas)
{
	world_open(w, seed);
	for (uint32_t i = 0; i < n_disks; i++)
		world_add_disk(w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	return attach_copies(w, "vm1", replicas);
}

static void copies_are_chosen_from_domains_of_their_own(void)
{
	struct head_world w;
	uint64_t disks, n[3] = {0};
	struct volume *v = open_copies(&w, 9, 3, 2), *many = attach_copies(&w, "vm2", 3);
	for (uint32_t i = 0; i < 300; i++) {
		CU_ASSERT_EQUAL_FATAL(placement_choose(v, 0, 0, &disks), 0);
		CU_ASSERT_EQUAL(__builtin_popcountll(disks), 2);
		for (uint32_t d = 0; d < 3; d++)
			n[d] += disks >> d & 1;
	}
	CU_ASSERT(n[0] > 140 && n[1] > 140 && n[2] > 140);
	CU_ASSERT_EQUAL(placement_choose(many, 0, 0, &disks), 0);
	CU_ASSERT_EQUAL(disks, 7);
	CU_ASSERT_EQUAL(placement_choose(v, 3, 0, &disks), -ENOSPC); /* two are full: one is not enough */
	CU_ASSERT_EQUAL(placement_choose(v, 0, 1, &disks), 0);       /* one cannot be used: the other two are left */
	CU_ASSERT_EQUAL(disks, 6);
	w.set->disks[0]->state = w.set->disks[1]->state = SET_DISK_FAILED;
	CU_ASSERT_EQUAL(placement_choose(v, 0, 0, &disks),
			0); /* two have failed: what is left is better than nothing */
	CU_ASSERT_EQUAL(disks, 4);
	v->entry->facts.min_replicas = 2; /* unless somebody says otherwise */
	CU_ASSERT_EQUAL(placement_choose(v, 0, 0, &disks), -EIO);
	v->entry->facts.min_replicas = 1;
	w.set->disks[0]->state = w.set->disks[1]->state = SET_DISK_RUNNING;
	set_pool_find(w.set, "default")->facts.failure_domain = DOMAIN_NODE;
	CU_ASSERT_EQUAL(placement_choose(v, 0, 0, &disks), 0); /* one node is one domain */
	CU_ASSERT_EQUAL(__builtin_popcountll(disks), 1);
	world_close(&w);
}

/* How many segments have fewer copies than they should when only these disks count, and how few the worst. */
static void degraded_are_counted(struct volume *v, const uint64_t *places, uint32_t n)
{
	for (uint64_t disks = 0; disks < 16; disks++) {
		uint64_t n_degraded = 0;
		uint32_t least = 3, fewest;
		for (uint32_t i = 0; i < n; i++) {
			uint32_t copies = (uint32_t)__builtin_popcountll(places[i] & disks);
			n_degraded += copies < 3;
			least = copies < least ? copies : least;
		}
		CU_ASSERT_EQUAL(layout_degraded(v, disks, &fewest), n_degraded);
		CU_ASSERT_EQUAL(fewest, least);
	}
}

static void copies_are_recorded_together(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	uint64_t before[20], after;
	memset(data, 1, 4096);
	struct volume *v = open_copies(&w, 10, 4, 3);
	for (uint64_t i = 0; i < 20; i++) {
		CU_ASSERT_EQUAL(world_write(&w, v, i * 40 * GIB, data, 4096, 0), 0);
		CU_ASSERT_EQUAL_FATAL(chunk_find(v, i * 40, &before[i]), PLACED_ON_DISKS);
		CU_ASSERT_EQUAL(__builtin_popcountll(before[i]), 3);
	}
	CU_ASSERT_EQUAL(layout_without(v, 0), 20);
	uint64_t without_first = layout_without(v, 1);
	CU_ASSERT(without_first > 0 && without_first < 20);
	world_stop(&w);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	v = world_head(&w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	CU_ASSERT_EQUAL(layout_without(v, 0), 20); /* read from the store */
	CU_ASSERT_EQUAL(layout_without(v, 1), without_first);
	degraded_are_counted(v, before, 20);
	for (uint64_t i = 0; i < 20; i++) {
		CU_ASSERT_EQUAL(world_read(&w, v, i * 40 * GIB, data, 4096), 0);
		CU_ASSERT_EQUAL(chunk_find(v, i * 40, &after), PLACED_ON_DISKS);
		CU_ASSERT_EQUAL(after, before[i]);
	}
	world_close(&w);
	free(data);
}

static int count_segments(void *context, uint32_t segment, uint64_t disks)
{
	*(uint64_t *)context += disks;
	return 0;
}

/* What the store says of a segment's disks is not trusted. */
static void sets_of_disks_are_checked(void)
{
#define A "\"00000000-0000-4005-8000-000000000001\""
	static const struct {
		const char *text;
		int res;
	} cases[] = {
	    {"{\"segments\": {\"3\": [" A "]}}", 0},
	    {"{\"segments\": {\"255\": [" A ", \"00000000-0000-4005-8000-000000000002\"]}}", 0},
	    {"{\"segments\": {\"256\": [" A "]}}", -EINVAL},
	    {"{\"segments\": {\"3\": []}}", -EINVAL},
	    {"{\"segments\": {\"3\": [" A ", " A "]}}", -EINVAL},
	    {"{\"segments\": {\"3\": [" A ", 7]}}", -EINVAL},
	    {"{\"segments\": {\"3\": " A "}}", -EINVAL},
	    {"{\"segments\": {\"x\": [" A "]}}", -EINVAL},
	    {"{\"segments\": {\"3\": [" A "," A "," A "," A "," A "," A "]}}", -EINVAL},
	    {"{\"segments\": []}", -EINVAL},
	    {"", -EINVAL},
	};
#undef A
	struct head_world w;
	world_open(&w, 11);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	for (size_t i = 0; i < array_size(cases); i++) {
		uint64_t sum = 0;
		CU_ASSERT_EQUAL(chunk_read_json(w.set, cases[i].text, count_segments, &sum), cases[i].res);
		CU_ASSERT_EQUAL(sum > 0, cases[i].res == 0);
	}
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

static int first_res, second_res;
static bool is_second_over;

static void first_ended(struct volume *v, int res)
{
	first_res = res;
}

static void second_ended(struct volume *v, int res)
{
	second_res = res;
	is_second_over = true;
}

static bool second_is_over(void *context)
{
	return is_second_over;
}

static bool barrier_flushes(void *context)
{
	return ((struct volume *)context)->barrier.stage == BARRIER_FLUSH;
}

/* A placement waits for it, and finds no disk any more: the next barrier begins inside the end of the first. */
static void who_waits_for_a_barrier_is_told_how_it_ended(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	memset(data, 1, 4096);
	world_open(&w, 8);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 2 * GIB);
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, 0), 0);
	first_res = second_res = 1;
	is_second_over = false;
	sim_file_fail(world_disk_file(&w, 1), OP_FLUSH, 0, EIO);
	barrier_now(v, first_ended);
	world_until(&w, barrier_flushes, v);
	burst = (struct burst){.iov = {data, 4096}};
	burst.ios[0] = (struct volume_io){
	    .op = VOLUME_WRITE, .pos_bytes = GIB, .len_bytes = 4096, .iov = &burst.iov, .n_iov = 1, .done = burst_done};
	volume_submit(v, &burst.ios[0]);
	barrier_now(v, second_ended);
	world_until(&w, second_is_over, NULL);
	CU_ASSERT_EQUAL(first_res, -EIO);
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
	CU_add_test(suite, "a detach ends though a placement cannot be recorded",
		    a_detach_ends_though_a_placement_cannot_be_recorded);
	CU_add_test(suite, "chunks are cached within a bound", chunks_are_cached_within_a_bound);
	CU_add_test(suite, "free space is the weight", free_space_is_the_weight);
	CU_add_test(suite, "copies are chosen from domains of their own", copies_are_chosen_from_domains_of_their_own);
	CU_add_test(suite, "copies are recorded together", copies_are_recorded_together);
	CU_add_test(suite, "who waits for a barrier is told how it ended",
		    who_waits_for_a_barrier_is_told_how_it_ended);
	CU_add_test(suite, "sets of disks are checked", sets_of_disks_are_checked);
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
