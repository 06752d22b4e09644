/*
 * test_waiting.c: changes that wait for copies, or until it is recorded which disk has missed them: they are carried out
 * when that has come, and keep from others neither the disks' requests nor the ranges that a resync needs.
 */
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)
#define IO_BYTES   (16 * KIB)
#define WRITES_MAX 600u /* more than there are requests of disks */
_Static_assert(WRITES_MAX > PARTS_DEFAULT, "all of them could be taken");

struct bench {
	struct head_world w;
	struct volume *v; /* two copies, and both must be current */
	uint8_t *data, *back;
	struct world_request first, writes[WRITES_MAX];
};

static struct bench *bench_open(uint64_t seed, uint32_t n_disks, uint32_t replicas)
{
	struct bench *b = calloc(1, sizeof(*b));
	CU_ASSERT_PTR_NOT_NULL_FATAL(b);
	b->data = world_memory(MIB);
	b->back = world_memory(MIB);
	world_open(&b->w, seed);
	for (uint32_t i = 0; i < n_disks; i++)
		world_add_disk(&b->w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&b->w), 0);
	CU_ASSERT_EQUAL_FATAL(world_create_copies(&b->w, "vm1", 2 * GIB, replicas), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&b->w, "vm1"), 0);
	b->v = world_head(&b->w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(b->v);
	b->v->entry->facts.min_replicas = 2;
	memset(b->data, 1, MIB);
	CU_ASSERT_EQUAL(world_write(&b->w, b->v, 0, b->data, MIB, 0), 0);
	return b;
}

static void bench_close(struct bench *b)
{
	world_close(&b->w);
	free(b->data);
	free(b->back);
	free(b);
}

static void write_start(struct bench *b, struct world_request *r, uint64_t pos, uint64_t len)
{
	*r = (struct world_request){.io = {.op = VOLUME_WRITE, .pos_bytes = pos, .len_bytes = len},
				    .iov = {b->data, len}};
	world_request_start(b->v, r);
}

/* The n writes, side by side; of each what the bench's data say. */
static void bench_write(struct bench *b, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		write_start(b, &b->writes[i], i * IO_BYTES, IO_BYTES);
}

static uint32_t bench_done(const struct bench *b, uint32_t n, int res)
{
	uint32_t n_done = 0;
	for (uint32_t i = 0; i < n; i++)
		n_done += b->writes[i].is_done && b->writes[i].res == res;
	return n_done;
}

/* The disk is opened anew, as `quarry disk add PATH` does. */
static void bench_return(struct bench *b, uint32_t disk)
{
	struct set_command c = {.kind = SET_DISK_ADD};
	text_print(c.path, sizeof(c.path), "d%u", disk + 1);
	CU_ASSERT_EQUAL_FATAL(world_command(&b->w, &c), 0);
}

static uint64_t bench_now_ns(const struct bench *b)
{
	return reactor_now_ns(b->w.set->reactor);
}

/* Both copies hold `byte` in [pos, pos + len), whichever is read. */
static void bench_check(struct bench *b, uint64_t pos, uint64_t len, uint8_t byte)
{
	for (uint32_t disk = 0; disk < 2; disk++) {
		CU_ASSERT_EQUAL(b->v->disks[disk].state, VOLUME_DISK_JOINED);
		b->v->disks[disk].asked += 100; /* the other one is asked */
		CU_ASSERT_EQUAL(world_read(&b->w, b->v, pos, b->back, len), 0);
		b->v->disks[disk].asked -= 100;
		for (uint64_t i = 0; i < len; i++)
			CU_ASSERT_FATAL(b->back[i] == byte);
	}
}

/* The write that was under way when the disk failed, and those that came after it, of the same blocks and of others. */
static void writes_succeed_when_the_disk_is_back_in_time(void)
{
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct bench *b = bench_open(seed, 2, 2);
		uint64_t began_ns = bench_now_ns(b);
		sim_file_fail(world_disk_file(&b->w, 2), OP_WRITE, 0, EIO);
		memset(b->data, 2, MIB);
		write_start(b, &b->writes[0], 0, IO_BYTES);
		write_start(b, &b->writes[1], 256 * KIB + 512, IO_BYTES); /* merged */
		world_let_pass(&b->w, NS_PER_S);
		CU_ASSERT_EQUAL(b->v->disks[1].state, VOLUME_DISK_STALE);
		write_start(b, &b->writes[2], 0, IO_BYTES);
		write_start(b, &b->writes[3], 8 * KIB + 512, IO_BYTES);
		write_start(b, &b->writes[4], 512 * KIB, 512 * KIB);
		write_start(b, &b->writes[5], GIB - 256 * KIB, 512 * KIB); /* into a segment of its own */
		write_start(b, &b->first, GIB + MIB, IO_BYTES);            /* the same, where nothing lies */
		world_let_pass(&b->w, NS_PER_S);
		CU_ASSERT_FALSE(b->first.is_done);
		CU_ASSERT_EQUAL(bench_done(b, 6, 0) + bench_done(b, 6, -EIO), 0);
		CU_ASSERT_EQUAL(world_read(&b->w, b->v, 0, b->back, MIB), 0); /* reads go on */
		CU_ASSERT_EQUAL(world_events(&b->w, "copies-too-few"), 1);
		bench_return(b, 1);
		for (uint32_t i = 0; i < 6; i++) {
			world_until(&b->w, world_request_is_done, &b->writes[i]);
			CU_ASSERT_EQUAL(b->writes[i].res, 0);
		}
		world_until(&b->w, world_request_is_done, &b->first);
		CU_ASSERT_EQUAL(b->first.res, 0);
		CU_ASSERT(bench_now_ns(b) - began_ns < 10 * NS_PER_S);
		bench_check(b, 0, 24 * KIB, 2);
		bench_check(b, 256 * KIB + 512, IO_BYTES, 2);
		bench_check(b, 512 * KIB, 512 * KIB, 2);
		bench_check(b, GIB - 256 * KIB, 512 * KIB, 2);
		bench_check(b, GIB + MIB, IO_BYTES, 2);
		bench_check(b, 300 * KIB, 4 * KIB, 1);
		bench_close(b);
	}
}

/* It is not told again and again that it may wait. */
static void a_write_fails_when_it_has_waited_long_enough(void)
{
	struct bench *b = bench_open(20, 2, 2);
	sim_file_fail(world_disk_file(&b->w, 2), OP_WRITE, 0, EIO);
	write_start(b, &b->first, MIB, IO_BYTES);
	world_let_pass(&b->w, NS_PER_S);
	bench_write(b, 3);
	for (uint32_t i = 0; i < 6; i++) {
		world_let_pass(&b->w, 3 * NS_PER_S);
		CU_ASSERT_EQUAL(bench_done(b, 3, -EIO), 0);
		stale_more_copies(b->v); /* which are not enough */
	}
	world_let_pass(&b->w, 3 * NS_PER_S);
	CU_ASSERT_EQUAL(bench_done(b, 3, -EIO), 3);
	CU_ASSERT_EQUAL(b->first.res, -EIO);
	CU_ASSERT_EQUAL(world_events(&b->w, "copies-too-few"), 1);
	bench_close(b);
}

/* A volume that waits for copies has nothing that others need. */
static void a_volume_that_waits_for_copies_stops_no_other(void)
{
	struct bench *b = bench_open(30, 3, 2);
	uint64_t disks;
	CU_ASSERT_EQUAL_FATAL(world_create(&b->w, "vm2", GIB), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&b->w, "vm2"), 0);
	struct volume *other = world_head(&b->w, "vm2");
	CU_ASSERT_EQUAL_FATAL(chunk_find(b->v, 0, &disks), PLACED_ON_DISKS);
	uint32_t disk = (uint32_t)__builtin_ctzll(disks);
	sim_file_fail(world_disk_file(&b->w, disk + 1), OP_WRITE, 0, EIO);
	write_start(b, &b->first, MIB, IO_BYTES);
	world_let_pass(&b->w, NS_PER_S);
	bench_write(b, WRITES_MAX);
	uint64_t began_ns = bench_now_ns(b);
	for (uint64_t i = 0; i < 20; i++)
		CU_ASSERT_EQUAL(world_write(&b->w, other, i * MIB, b->data, 256 * KIB, VOLUME_FUA), 0);
	CU_ASSERT_EQUAL(world_read(&b->w, other, 0, b->back, MIB), 0);
	CU_ASSERT(bench_now_ns(b) - began_ns < 2 * NS_PER_S);
	CU_ASSERT_EQUAL(bench_done(b, WRITES_MAX, 0) + bench_done(b, WRITES_MAX, -EIO), 0);
	bench_return(b, disk);
	world_until(&b->w, world_request_is_done, &b->first);
	CU_ASSERT_EQUAL(b->first.res, 0);
	for (uint32_t i = 0; i < WRITES_MAX; i++) {
		world_until(&b->w, world_request_is_done, &b->writes[i]);
		CU_ASSERT_EQUAL(b->writes[i].res, 0);
	}
	bench_close(b);
}

/* Nor has one that waits until the store has recorded which disk has missed its writes. */
static void a_volume_that_waits_for_a_mark_stops_no_other(void)
{
	struct bench *b = bench_open(40, 3, 3);
	struct metadata_faults away = {.delay_max_ns = 100 * NS_PER_S}, here = {0};
	CU_ASSERT_EQUAL_FATAL(world_create(&b->w, "vm2", GIB), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&b->w, "vm2"), 0);
	struct volume *other = world_head(&b->w, "vm2");
	uint64_t disks;
	CU_ASSERT_EQUAL(world_write(&b->w, other, 0, b->data, MIB, 0), 0);
	CU_ASSERT_EQUAL_FATAL(chunk_find(other, 0, &disks), PLACED_ON_DISKS);
	uint32_t disk = disks & 1 ? 1 : 0; /* that the other has nothing on */
	metadata_memory_set_faults(b->w.metadata, &away);
	sim_file_fail(world_disk_file(&b->w, disk + 1), OP_WRITE, 0, EIO);
	memset(b->data, 2, MIB);
	bench_write(b, WRITES_MAX);
	world_let_pass(&b->w, 2 * NS_PER_S);
	uint64_t began_ns = bench_now_ns(b);
	for (uint64_t i = 0; i < 20; i++)
		CU_ASSERT_EQUAL(world_write(&b->w, other, i * MIB, b->data, 256 * KIB, 0), 0);
	CU_ASSERT(bench_now_ns(b) - began_ns < 2 * NS_PER_S);
	CU_ASSERT_EQUAL(b->v->disks[disk].state, VOLUME_DISK_LOST);
	CU_ASSERT_EQUAL(bench_done(b, WRITES_MAX, 0) + bench_done(b, WRITES_MAX, -EIO), 0); /* (P2) */
	metadata_memory_set_faults(b->w.metadata, &here);
	for (uint32_t i = 0; i < WRITES_MAX; i++) {
		world_until(&b->w, world_request_is_done, &b->writes[i]);
		CU_ASSERT_EQUAL(b->writes[i].res, 0);
	}
	bench_close(b);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("waiting", NULL, NULL);
	CU_add_test(suite, "writes succeed when the disk is back in time",
		    writes_succeed_when_the_disk_is_back_in_time);
	CU_add_test(suite, "a write fails when it has waited long enough",
		    a_write_fails_when_it_has_waited_long_enough);
	CU_add_test(suite, "a volume that waits for copies stops no other",
		    a_volume_that_waits_for_copies_stops_no_other);
	CU_add_test(suite, "a volume that waits for a mark stops no other",
		    a_volume_that_waits_for_a_mark_stops_no_other);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
