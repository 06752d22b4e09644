/*
 * test_balance.c: disks of a pool that differ much in how full they are: segments move to the emptier ones, once, while the
 * volume is used or when nobody does, across crashes, and never to where they should not lie.
 */
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES  (64 * MIB)
#define SEGMENT_PUT (2 * MIB) /* of data, in each segment */
#define PUT_BYTES   (256 * KIB)
#define LONG_NS     (200 * NS_PER_S)

struct bench {
	struct head_world w;
	uint8_t *data, *back;
	uint32_t n_segments;
};

static struct set_disk *disk_at(struct bench *b, uint32_t i)
{
	return b->w.set->disks[i];
}

static int drain(struct bench *b, uint32_t disk, bool cancel)
{
	struct set_command c = order(SET_DISK_DRAIN, disk_at(b, disk)->facts.name);
	c.cancel = cancel;
	return world_command(&b->w, &c);
}

static void put_segment(struct bench *b, const char *name, uint64_t segment, uint8_t value, uint64_t bytes)
{
	struct volume *v = world_head(&b->w, name);
	memset(b->data, value, PUT_BYTES);
	for (uint64_t at = 0; at < bytes; at += PUT_BYTES)
		CU_ASSERT_EQUAL(world_write(&b->w, v, segment * SEGMENT_BYTES + at, b->data, PUT_BYTES, VOLUME_FUA), 0);
}

/* All disks but the last have data; that one is empty, and is drained until fill_end(). */
static void bench_open(struct bench *b, uint64_t seed, uint32_t n_disks, uint32_t n_segments, uint32_t replicas)
{
	*b = (struct bench){.data = world_memory(PUT_BYTES), .back = world_memory(PUT_BYTES), .n_segments = n_segments};
	world_open(&b->w, seed);
	for (uint32_t i = 0; i < n_disks; i++)
		world_add_disk(&b->w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&b->w), 0);
	CU_ASSERT_EQUAL_FATAL(drain(b, n_disks - 1, false), 0);
	CU_ASSERT_EQUAL_FATAL(world_create_copies(&b->w, "vm1", n_segments * GIB, replicas), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&b->w, "vm1"), 0);
	for (uint32_t i = 0; i < n_segments; i++)
		put_segment(b, "vm1", i, (uint8_t)(i + 1), SEGMENT_PUT);
}

static void bench_close(struct bench *b)
{
	world_close(&b->w);
	free(b->data);
	free(b->back);
}

static void bench_check(struct bench *b)
{
	struct volume *v = world_head(&b->w, "vm1");
	for (uint64_t i = 0; i < b->n_segments; i++)
		for (uint64_t at = 0; at < SEGMENT_PUT; at += PUT_BYTES) {
			memset(b->data, (int)i + 1, PUT_BYTES);
			CU_ASSERT_EQUAL(world_read(&b->w, v, i * SEGMENT_BYTES + at, b->back, PUT_BYTES), 0);
			CU_ASSERT_EQUAL(memcmp(b->data, b->back, PUT_BYTES), 0);
		}
}

static uint32_t gap(struct bench *b)
{
	const struct set_disk *full, *empty;
	return balance_gap(b->w.set, "default", &full, &empty);
}

static uint64_t moves(struct bench *b)
{
	return set_volume_find(b->w.set, "vm1")->n_moves;
}

/* What is foreseen at first is about what comes. While a segment is copied it takes room on both disks. */
static void look_until_it_ends(struct bench *b)
{
	struct balance_view v;
	uint64_t first_bytes = 0, moved_bytes = 0, left_bytes = 0;
	for (uint32_t i = 0; i < LONG_NS / NS_PER_S; i++) {
		world_let_pass(&b->w, NS_PER_S);
		volume_set_balance(b->w.set, &v);
		if (!v.node[0])
			continue;
		first_bytes = first_bytes ? first_bytes : v.moved_bytes + v.left_bytes;
		CU_ASSERT_EQUAL(v.eta_s > 0, v.moved_bytes > 0);
		left_bytes = v.left_bytes;
		moved_bytes = v.moved_bytes;
	}
	CU_ASSERT_EQUAL(v.node[0], '\0');
	CU_ASSERT(moved_bytes > first_bytes / 2 && moved_bytes < 2 * first_bytes);
	CU_ASSERT(left_bytes < first_bytes / 2);
}

/* ---- what moves ---- */

static void a_new_disk_gets_its_part(void)
{
	for (uint32_t replicas = 1; replicas <= 2; replicas++) {
		struct bench b;
		bench_open(&b, replicas, 2 + replicas, 16, replicas);
		CU_ASSERT(gap(&b) < BALANCE_START);
		world_let_pass(&b.w, LONG_NS);
		CU_ASSERT_EQUAL(moves(&b), 0);
		CU_ASSERT_EQUAL(drain(&b, 1 + replicas, true), 0);
		CU_ASSERT(gap(&b) >= BALANCE_START);
		look_until_it_ends(&b);
		CU_ASSERT(gap(&b) < BALANCE_START);
		uint64_t n = moves(&b);
		CU_ASSERT(n > 0 && n < 16);
		CU_ASSERT_EQUAL(world_events(&b.w, "rebalance-begun"), 1);
		CU_ASSERT_EQUAL(world_events(&b.w, "rebalance-ended"), 1);
		bench_check(&b);
		struct volume *v = world_head(&b.w, "vm1");
		for (uint64_t i = 0; i < 16; i++) {
			uint64_t disks = 0;
			CU_ASSERT_EQUAL(chunk_find(v, i, &disks), PLACED_ON_DISKS);
			CU_ASSERT_EQUAL((uint32_t)__builtin_popcountll(disks), replicas);
		}
		world_let_pass(&b.w, 10 * LONG_NS); /* and nothing moves back */
		CU_ASSERT_EQUAL(moves(&b), n);
		bench_close(&b);
	}
}

static void what_nobody_uses_moves_too(void)
{
	struct bench b;
	bench_open(&b, 5, 3, 16, 1);
	CU_ASSERT_EQUAL(world_snapshot(&b.w, "vm1@s"), 0);
	CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
	CU_ASSERT_EQUAL(drain(&b, 2, true), 0);
	world_let_pass(&b.w, LONG_NS);
	CU_ASSERT(gap(&b) < BALANCE_START && moves(&b) > 0);
	CU_ASSERT_PTR_NULL(set_volume_find(b.w.set, "vm1")->head); /* and is detached again */
	CU_ASSERT_EQUAL(world_attach(&b.w, "vm1"), 0);
	bench_check(&b);
	bench_close(&b);
}

/* It goes on from the chunk where it was; the volume has shrunk since, and has no such chunk any more. */
static void a_volume_that_has_shrunk_moves_from_its_start(void)
{
	struct bench b;
	bench_open(&b, 7, 3, 16, 1);
	set_volume_find(b.w.set, "vm1")->balance_chunk = 3;
	CU_ASSERT_EQUAL(drain(&b, 2, true), 0);
	world_let_pass(&b.w, LONG_NS);
	CU_ASSERT(gap(&b) < BALANCE_START && moves(&b) > 0);
	bench_check(&b);
	bench_close(&b);
}

static void clients_go_on_meanwhile(void)
{
	struct bench b;
	bench_open(&b, 6, 3, 16, 1);
	CU_ASSERT_EQUAL(drain(&b, 2, true), 0);
	for (uint32_t i = 0; i < 400; i++) {
		uint32_t segment = i * 7 % 16;
		memset(b.data, (int)segment + 1, PUT_BYTES);
		CU_ASSERT_EQUAL(world_write(&b.w, world_head(&b.w, "vm1"), segment * SEGMENT_BYTES + i % 8 * PUT_BYTES,
					    b.data, PUT_BYTES, 0),
				0);
		world_let_pass(&b.w, 500 * NS_PER_MS);
	}
	CU_ASSERT(gap(&b) < BALANCE_START && moves(&b) > 0);
	bench_check(&b);
	bench_close(&b);
}

static bool is_moving(void *context)
{
	return world_head(&((struct bench *)context)->w, "vm1")->move != NULL;
}

static void a_crash_anywhere_is_gone_on_from(void)
{
	for (uint64_t seed = 0; seed < 24; seed++) {
		struct bench b;
		bench_open(&b, 100 + seed, 3, 18, 1);
		CU_ASSERT_EQUAL(world_op(&b.w, world_head(&b.w, "vm1"), VOLUME_FLUSH, 0, 0, 0), 0);
		CU_ASSERT_EQUAL(drain(&b, 2, true), 0);
		world_until(&b.w, is_moving, &b);
		for (uint64_t n = 0; n < 30 * seed; n++)
			sim_step(b.w.sim);
		world_crash(&b.w, seed % 2 ? SIM_POWER_LOSS : SIM_KILL);
		CU_ASSERT_EQUAL_FATAL(world_start(&b.w), 0);
		bench_check(&b);
		world_let_pass(&b.w, LONG_NS);
		CU_ASSERT(gap(&b) < BALANCE_START);
		bench_check(&b);
		bench_close(&b);
	}
}

/* ---- what does not ---- */

/* As many copies as there are disks: each has all, however full that makes it. */
static void copies_stay_apart(void)
{
	struct bench b;
	b = (struct bench){.data = world_memory(PUT_BYTES), .back = world_memory(PUT_BYTES), .n_segments = 12};
	world_open(&b.w, 7);
	world_add_disk(&b.w, DISK_BYTES);
	world_add_disk(&b.w, 4 * DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&b.w), 0);
	CU_ASSERT_EQUAL_FATAL(world_create_copies(&b.w, "vm1", 12 * GIB, 2), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&b.w, "vm1"), 0);
	for (uint32_t i = 0; i < 12; i++)
		put_segment(&b, "vm1", i, (uint8_t)(i + 1), SEGMENT_PUT);
	CU_ASSERT(gap(&b) >= BALANCE_START);
	world_let_pass(&b.w, LONG_NS);
	CU_ASSERT_EQUAL(moves(&b), 0);
	CU_ASSERT_EQUAL(world_events(&b.w, "rebalance-begun"), 0);
	bench_check(&b);
	bench_close(&b);
}

/* One that would make the empty disk the fuller one. */
static void too_large_a_segment_stays(void)
{
	struct bench b;
	bench_open(&b, 8, 2, 1, 1);
	put_segment(&b, "vm1", 0, 1, 36 * MIB);
	CU_ASSERT_EQUAL(drain(&b, 1, true), 0);
	world_let_pass(&b.w, LONG_NS);
	CU_ASSERT_EQUAL(moves(&b), 0);
	CU_ASSERT(set_disk_room(disk_at(&b, 1)) * BLOCK_BYTES > 50 * MIB); /* and has left nothing there */
	CU_ASSERT_EQUAL(world_events(&b.w, "rebalance-ended"), 1);
	bench_check(&b);
	bench_close(&b);
}

/* ---- the lock ---- */

#define N_NODES 3u

static uint32_t n_at_it(struct head_world *nodes)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < N_NODES; i++)
		n += nodes[i].set->balance.has_volume;
	return n;
}

/* Two heads could move segments; one does at a time, and both do in the end. */
static void one_node_at_a_time(void)
{
	static const char *const names[] = {"n1", "n2", "n3"}, *const volumes[] = {"v1", "v2"};
	struct head_world nodes[N_NODES];
	struct bench b = {.data = world_memory(PUT_BYTES), .back = world_memory(PUT_BYTES)};
	uint32_t most = 0;
	world_open(&nodes[0], 9);
	for (uint32_t i = 0; i < N_NODES; i++) {
		if (i > 0)
			world_open_beside(&nodes[i], &nodes[0], names[i]);
		nodes[i].n_disks = 10 * i;
		nodes[i].has_peers = true;
		world_add_disk(&nodes[i], DISK_BYTES);
		if (i == 2)
			world_add_disk(&nodes[i], 2 * DISK_BYTES);
	}
	for (uint32_t i = 0; i < N_NODES; i++)
		CU_ASSERT_EQUAL_FATAL(world_start(&nodes[i]), 0);
	for (uint32_t i = 0; i < N_NODES * N_NODES; i++)
		if (i / N_NODES != i % N_NODES)
			world_connect(&nodes[i / N_NODES], &nodes[i % N_NODES]);
	world_let_pass(&nodes[0], 200 * NS_PER_MS);
	struct set_command drain_n3 = order(SET_NODE_DRAIN, "n3");
	CU_ASSERT_EQUAL_FATAL(world_command(&nodes[2], &drain_n3), 0);
	world_let_pass(&nodes[0], NS_PER_S);
	for (uint32_t i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL_FATAL(world_create_copies(&nodes[i], volumes[i], 8 * GIB, 2), 0);
		CU_ASSERT_EQUAL_FATAL(world_attach(&nodes[i], volumes[i]), 0);
		for (uint64_t n = 0; n < 8; n++) {
			memset(b.data, (int)n + 1, PUT_BYTES);
			for (uint64_t at = 0; at < SEGMENT_PUT; at += PUT_BYTES)
				CU_ASSERT_EQUAL(world_write(&nodes[i], world_head(&nodes[i], volumes[i]),
							    n * SEGMENT_BYTES + at, b.data, PUT_BYTES, 0),
						0);
		}
	}
	drain_n3.cancel = true;
	CU_ASSERT_EQUAL_FATAL(world_command(&nodes[2], &drain_n3), 0);
	for (uint32_t i = 0; i < 4000; i++) {
		world_let_pass(&nodes[0], 100 * NS_PER_MS);
		most = n_at_it(nodes) > most ? n_at_it(nodes) : most;
	}
	CU_ASSERT_EQUAL(most, 1);
	uint64_t n_moves = 0;
	for (uint32_t i = 0; i < 2; i++) {
		n_moves += set_volume_find(nodes[i].set, volumes[i])->n_moves;
		for (uint64_t n = 0; n < 8; n++) {
			memset(b.data, (int)n + 1, PUT_BYTES);
			CU_ASSERT_EQUAL(world_read(&nodes[i], world_head(&nodes[i], volumes[i]), n * SEGMENT_BYTES,
						   b.back, PUT_BYTES),
					0);
			CU_ASSERT_EQUAL(memcmp(b.data, b.back, PUT_BYTES), 0);
		}
	}
	CU_ASSERT(n_moves > 0);
	for (uint32_t i = 0; i < N_NODES; i++)
		CU_ASSERT_FALSE(nodes[i].set->balance.is_locked); /* it is given up */
	for (uint32_t i = N_NODES; i-- > 0;)
		world_close(&nodes[i]);
	free(b.data);
	free(b.back);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("balance", NULL, NULL);
	CU_add_test(suite, "a new disk gets its part", a_new_disk_gets_its_part);
	CU_add_test(suite, "what nobody uses moves, too", what_nobody_uses_moves_too);
	CU_add_test(suite, "a volume that has shrunk moves from its start",
		    a_volume_that_has_shrunk_moves_from_its_start);
	CU_add_test(suite, "clients go on meanwhile", clients_go_on_meanwhile);
	CU_add_test(suite, "a crash anywhere is gone on from", a_crash_anywhere_is_gone_on_from);
	CU_add_test(suite, "copies stay apart", copies_stay_apart);
	CU_add_test(suite, "too large a segment stays", too_large_a_segment_stays);
	CU_add_test(suite, "one node at a time", one_node_at_a_time);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failed = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failed ? 1 : 0;
}
