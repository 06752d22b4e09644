/*
 * test_fill.c: a volume that is served while its first content is being brought: a model of every block says what a read
 * must give, with a filler and clients at work in any order, crashes and restarts in between.
 */
#include "daemon/core/bytes.h"
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES  (512 * MIB) /* far from full */
#define BLOCK       4096u
#define UNIT        FILL_UNIT_BYTES
#define UNIT_BLOCKS (UNIT / BLOCK)
#define SOURCE      "/repo/old@s1"

static struct head_world w;
static uint8_t *data, *back;

static struct set_command fill_order(uint64_t size_bytes, const char *source)
{
	struct set_command c = {.kind = SET_VOLUME_CREATE, .size_bytes = size_bytes};
	text_print(c.object, sizeof(c.object), "vm1");
	text_print(c.fill, sizeof(c.fill), "%s", source);
	return c;
}

static struct volume *fill_volume(uint64_t size_bytes)
{
	struct set_command c = fill_order(size_bytes, SOURCE);
	CU_ASSERT_EQUAL_FATAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&w, "vm1"), 0);
	struct volume *v = world_head(&w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(v->fill);
	return v;
}

static struct volume *open_world(uint64_t seed, uint64_t size_bytes)
{
	world_open(&w, seed);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	data = world_memory(256 * KIB);
	back = world_memory(256 * KIB);
	return fill_volume(size_bytes);
}

static void close_world(void)
{
	world_close(&w);
	free(data);
	free(back);
}

static struct volume *restart(bool is_crash)
{
	if (is_crash)
		world_crash(&w, SIM_POWER_LOSS);
	else
		world_stop(&w);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	return world_head(&w, "vm1");
}

static int put(struct volume *v, uint64_t block, uint32_t n_blocks, uint8_t stamp, unsigned flags)
{
	memset(data, stamp, (size_t)n_blocks * BLOCK);
	return world_write(&w, v, block * BLOCK, data, (uint64_t)n_blocks * BLOCK, flags);
}

/* The stamp of a block; -errno. */
static int get(struct volume *v, uint64_t block)
{
	int res = world_read(&w, v, block * BLOCK, back, BLOCK);
	for (uint32_t i = 1; i < BLOCK && res == 0; i++)
		CU_ASSERT_EQUAL_FATAL(back[i], back[0]);
	return res ? res : back[0];
}

static int settle(struct volume *v, uint64_t unit, uint64_t n)
{
	return world_op(&w, v, VOLUME_ZERO, unit * UNIT, n * UNIT, VOLUME_FILL);
}

static int record(struct volume *v)
{
	return world_op(&w, v, VOLUME_FLUSH, 0, 0, VOLUME_FILL);
}

/* ---- requests that wait ---- */

static void waiting_start(struct world_request *x, struct volume *v, enum volume_op op, uint64_t pos, uint64_t len,
			  unsigned flags)
{
	void *memory = world_memory(len);
	memset(memory, 0x55, len);
	*x = (struct world_request){.io = {.op = op, .flags = flags, .pos_bytes = pos, .len_bytes = len},
				    .iov = {memory, len}};
	world_request_start(v, x);
}

static int waiting_end(struct world_request *x)
{
	world_until(&w, world_request_is_done, x);
	free(x->iov.iov_base);
	return x->res;
}

/* What the filler is told; returns how many ranges. */
static uint32_t wanted(struct volume *v, uint64_t *pos, uint64_t *len)
{
	struct world_request ask;
	uint32_t n = 0;
	waiting_start(&ask, v, VOLUME_READ, 0, VOLUME_FILL_WANTED_BYTES, VOLUME_FILL);
	world_until(&w, world_request_is_done, &ask);
	CU_ASSERT_EQUAL(ask.res, 0);
	const uint8_t *pairs = ask.iov.iov_base;
	*pos = get_le64(pairs);
	*len = get_le64(pairs + 8);
	while (get_le64(pairs + n * 16 + 8) > 0)
		n++;
	free(ask.iov.iov_base);
	return n;
}

/* ---- the tests ---- */

static void a_read_waits_for_its_unit(void)
{
	struct volume *v = open_world(1, 8 * UNIT);
	struct world_request read;
	uint64_t pos, len;
	CU_ASSERT_EQUAL(wanted(v, &pos, &len), 0); /* after a while, and nobody wants anything */
	waiting_start(&read, v, VOLUME_READ, 3 * UNIT + BLOCK, BLOCK, 0);
	world_let_pass(&w, 5 * NS_PER_S);
	CU_ASSERT_FALSE(read.is_done);
	CU_ASSERT_EQUAL(wanted(v, &pos, &len), 1);
	CU_ASSERT_EQUAL(pos, 3 * UNIT);
	CU_ASSERT_EQUAL(len, UNIT);
	CU_ASSERT_EQUAL(put(v, 3 * UNIT_BLOCKS, 2, 7, VOLUME_FILL), 0);
	CU_ASSERT_FALSE(read.is_done);
	CU_ASSERT_EQUAL(settle(v, 3, 1), 0);
	world_until(&w, world_request_is_done, &read);
	CU_ASSERT_EQUAL(((uint8_t *)read.iov.iov_base)[0], 7);
	CU_ASSERT_EQUAL(waiting_end(&read), 0);
	CU_ASSERT_EQUAL(get(v, 3 * UNIT_BLOCKS + 2), 0); /* a hole of the source */
	close_world();
}

static void who_asks_first_is_told_at_once(void)
{
	struct volume *v = open_world(2, 8 * UNIT);
	struct world_request ask, read;
	waiting_start(&ask, v, VOLUME_READ, 0, VOLUME_FILL_WANTED_BYTES, VOLUME_FILL);
	waiting_start(&read, v, VOLUME_READ, 6 * UNIT, BLOCK, 0);
	world_until(&w, world_request_is_done, &ask);
	CU_ASSERT_EQUAL(get_le64(ask.iov.iov_base), 6 * UNIT);
	CU_ASSERT_EQUAL(waiting_end(&ask), 0);
	CU_ASSERT_EQUAL(settle(v, 0, 8), 0);
	CU_ASSERT_EQUAL(waiting_end(&read), 0);
	close_world();
}

static void a_clients_write_wins(void)
{
	struct volume *v = open_world(3, 4 * UNIT);
	CU_ASSERT_EQUAL(put(v, 2, 3, 9, 0), 0);
	CU_ASSERT_EQUAL(put(v, 10, 1, 0, 0), 0); /* zeros, too */
	for (uint32_t i = 20; i < 60; i += 2)    /* more runs than one answer of the disk tells of */
		CU_ASSERT_EQUAL(put(v, i, 1, i % 4 ? 9 : 0, 0), 0);
	CU_ASSERT_EQUAL(put(v, 0, 64, 7, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(settle(v, 0, 1), 0);
	for (uint32_t i = 0; i < 64; i++) {
		int is = i >= 2 && i < 5 ? 9 : i == 10 ? 0 : i >= 20 && i < 60 && i % 2 == 0 ? (i % 4 ? 9 : 0) : 7;
		CU_ASSERT_EQUAL(get(v, i), is);
	}
	CU_ASSERT_EQUAL(put(v, 0, 64, 8, VOLUME_FILL), 0); /* brought once more: nothing is left to write */
	CU_ASSERT_EQUAL(get(v, 0), 7);
	close_world();
}

static void what_keeps_part_of_a_block_waits(void)
{
	struct volume *v = open_world(4, 4 * UNIT);
	struct world_request write, zero;
	uint64_t pos, len;
	waiting_start(&write, v, VOLUME_WRITE, UNIT + 512, 512, 0);
	waiting_start(&zero, v, VOLUME_ZERO, 3 * UNIT + 512, BLOCK, 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 2 * UNIT + 512, BLOCK, 0), 0); /* of no whole block */
	world_let_pass(&w, NS_PER_S);
	CU_ASSERT_FALSE(write.is_done || zero.is_done);
	CU_ASSERT_EQUAL(wanted(v, &pos, &len), 2);
	for (uint64_t unit = 1; unit < 4; unit++) {
		CU_ASSERT_EQUAL(put(v, unit * UNIT_BLOCKS, 3, 7, VOLUME_FILL), 0);
		CU_ASSERT_EQUAL(settle(v, unit, 1), 0);
	}
	CU_ASSERT_EQUAL(waiting_end(&write), 0);
	CU_ASSERT_EQUAL(waiting_end(&zero), 0);
	CU_ASSERT_EQUAL(world_read(&w, v, UNIT, back, BLOCK), 0);
	CU_ASSERT_EQUAL(back[511], 7);
	CU_ASSERT_EQUAL(back[512], 0x55);
	CU_ASSERT_EQUAL(back[1024], 7);
	CU_ASSERT_EQUAL(get(v, 2 * UNIT_BLOCKS), 7);
	CU_ASSERT_EQUAL(world_read(&w, v, 3 * UNIT, back, 2 * BLOCK), 0);
	CU_ASSERT_EQUAL(back[511], 7);
	CU_ASSERT_EQUAL(back[512], 0);
	CU_ASSERT_EQUAL(back[BLOCK + 511], 0);
	CU_ASSERT_EQUAL(back[BLOCK + 512], 7);
	close_world();
}

static void expect_stamps(struct volume *v, uint64_t block, uint64_t n, int stamp)
{
	for (uint64_t i = 0; i < n; i++)
		CU_ASSERT_EQUAL(get(v, block + i), stamp);
}

/* In a segment that has a place and in one that has none yet; whoever ends meanwhile, what comes later is left out. */
static void what_is_discarded_waits_for_nobody(void)
{
	struct volume *v = open_world(16, 2 * GIB);
	uint64_t start = reactor_now_ns(w.set->reactor), far = 1100 * UNIT_BLOCKS, odd = 2 * UNIT_BLOCKS + 3;
	CU_ASSERT_EQUAL(put(v, 0, 1, 9, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, odd * BLOCK, 3 * UNIT, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, (far + 1) * BLOCK, 2 * BLOCK, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, 8 * UNIT, UNIT, VOLUME_NO_HOLE), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 9 * UNIT, 2 * GIB - 9 * UNIT - (2 * GIB - far * BLOCK), 0), 0);
	CU_ASSERT(reactor_now_ns(w.set->reactor) - start < NS_PER_S);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_FLUSH, 0, 0, 0), 0);
	v = restart(true);
	for (uint64_t block = 0; block < 16 * UNIT_BLOCKS; block += 64)
		CU_ASSERT_EQUAL(put(v, block, 64, 7, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(put(v, far - 1, 8, 7, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(settle(v, 0, 2048), 0);
	CU_ASSERT_EQUAL(get(v, 0), 9);
	expect_stamps(v, 1, odd - 1, 7);
	expect_stamps(v, odd, 3 * UNIT_BLOCKS, 0);
	expect_stamps(v, odd + 3 * UNIT_BLOCKS, 8 * UNIT_BLOCKS - odd - 3 * UNIT_BLOCKS, 7);
	expect_stamps(v, 8 * UNIT_BLOCKS, 8 * UNIT_BLOCKS, 0);
	expect_stamps(v, far - 1, 1, 0);
	expect_stamps(v, far, 1, 7);
	expect_stamps(v, far + 1, 2, 0);
	expect_stamps(v, far + 3, 4, 7);
	close_world();
}

/* Whichever copy is asked what was written. */
static void a_discard_is_on_every_copy(void)
{
	world_open(&w, 18);
	world_add_disk(&w, DISK_BYTES);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	data = world_memory(256 * KIB);
	back = world_memory(256 * KIB);
	set_pool_find(w.set, "default")->facts.failure_domain = DOMAIN_DISK;
	struct set_command create = fill_order(16 * UNIT, SOURCE);
	create.replicas = 2;
	CU_ASSERT_EQUAL_FATAL(world_command(&w, &create), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&w, "vm1"), 0);
	for (uint32_t half = 0; half < 2; half++) {
		struct volume *v = world_head(&w, "vm1");
		uint64_t unit = half * 8;
		CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, (unit + 1) * UNIT, 4 * UNIT, VOLUME_FUA), 0);
		for (uint64_t block = unit * UNIT_BLOCKS; block < (unit + 8) * UNIT_BLOCKS; block += 64)
			CU_ASSERT_EQUAL(put(v, block, 64, 7, VOLUME_FILL), 0);
		CU_ASSERT_EQUAL(settle(v, unit, 8), 0);
		for (uint64_t block = unit * UNIT_BLOCKS; block < (unit + 8) * UNIT_BLOCKS; block += 13) {
			uint64_t at = block / UNIT_BLOCKS - unit;
			CU_ASSERT_EQUAL(get(v, block), at >= 1 && at < 5 ? 0 : 7);
		}
	}
	close_world();
}

/* A filler that gives up what is damaged settles a unit of which it has brought nothing: when the process ends before that
 * is recorded, another one may bring it. */
static void what_is_zeroed_outlives_what_is_not_recorded(void)
{
	struct volume *v = open_world(20, 8 * UNIT);
	CU_ASSERT_EQUAL(settle(v, 0, 2), 0);
	CU_ASSERT_EQUAL(record(v), 0);
	CU_ASSERT_EQUAL(settle(v, 2, 2), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, 2 * UNIT, UNIT, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 3 * UNIT, 4 * BLOCK, VOLUME_FUA), 0);
	v = restart(true);
	for (uint64_t block = 2 * UNIT_BLOCKS; block < 4 * UNIT_BLOCKS; block += 64)
		CU_ASSERT_EQUAL(put(v, block, 64, 7, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(settle(v, 2, 2), 0);
	expect_stamps(v, 2 * UNIT_BLOCKS, UNIT_BLOCKS + 4, 0);
	expect_stamps(v, 3 * UNIT_BLOCKS + 4, 4, 7);
	close_world();
}

/* On a disk that is full a hint is taken as far as it needs no room; what was written goes. */
static void a_discard_on_a_full_disk(void)
{
	world_open(&w, 19);
	world_add_disk(&w, 64 * MIB);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	data = world_memory(256 * KIB);
	back = world_memory(256 * KIB);
	struct volume *v = fill_volume(2 * GIB);
	uint64_t n = 0;
	while (put(v, n, 64, 9, 0) == 0)
		n += 64;
	while (put(v, n, 1, 9, 0) == 0)
		n++;
	CU_ASSERT(n > 32 * UNIT_BLOCKS);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, GIB, GIB, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, GIB, GIB, 0), -ENOSPC); /* there is no place for it */
	for (uint64_t unit = 520; unit < 1020; unit++) /* each takes a page, and there are not as many */
		CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, unit * UNIT, BLOCK, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, UNIT, 512 * UNIT, 0), 0);
	world_let_pass(&w, 10 * NS_PER_S); /* freed by a checkpoint */
	CU_ASSERT_EQUAL(put(v, 2 * UNIT_BLOCKS, 64, 8, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(put(v, 1019 * UNIT_BLOCKS, 64, 8, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(settle(v, 0, 2048), 0);
	CU_ASSERT_EQUAL(get(v, 0), 9);
	CU_ASSERT_EQUAL(get(v, 2 * UNIT_BLOCKS), 0);
	CU_ASSERT_EQUAL(get(v, 1019 * UNIT_BLOCKS), 8); /* it was never written: the hint was not taken */
	close_world();
}

/* Zeros that were to stay fail there, as a write does, and both copies are as current as before. */
static void zeros_on_a_full_disk_cost_no_copy(void)
{
	world_open(&w, 21);
	world_add_disk(&w, 64 * MIB);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	data = world_memory(256 * KIB);
	back = world_memory(256 * KIB);
	set_pool_find(w.set, "default")->facts.failure_domain = DOMAIN_DISK;
	struct set_command create = fill_order(GIB, SOURCE);
	create.replicas = 2;
	CU_ASSERT_EQUAL_FATAL(world_command(&w, &create), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&w, "vm1"), 0);
	struct volume *v = world_head(&w, "vm1");
	uint64_t n = 0, n_failed = 0;
	while (put(v, n, 64, 9, 0) == 0)
		n += 64;
	while (put(v, n, 1, 9, 0) == 0)
		n++;
	CU_ASSERT(n > 32 * UNIT_BLOCKS);
	for (uint64_t unit = 64; unit < 1000; unit++) { /* each takes a page, and there are not as many */
		int res = world_op(&w, v, VOLUME_ZERO, unit * UNIT, BLOCK, 0);
		CU_ASSERT(res == 0 || res == -ENOSPC);
		n_failed += res != 0;
	}
	CU_ASSERT(n_failed > 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, UNIT, 999 * UNIT, 0), -ENOSPC);
	CU_ASSERT_EQUAL(v->disks[0].state, VOLUME_DISK_JOINED);
	CU_ASSERT_EQUAL(v->disks[1].state, VOLUME_DISK_JOINED);
	CU_ASSERT_EQUAL(get(v, 0), 9);
	expect_stamps(v, UNIT_BLOCKS, 4, 0); /* what was written has gone all the same */
	close_world();
}

/* All that its pages hold are holes then, and some of these are still to be filled: of unit 0 alone the root is a leaf. */
static void a_trimmed_unit_is_no_reason_to_leave_out_another(void)
{
	for (uint64_t unit = 0; unit < 8; unit += 5) {
		struct volume *v = open_world(15, 8 * UNIT);
		CU_ASSERT_EQUAL(put(v, unit * UNIT_BLOCKS, 2, 7, VOLUME_FILL), 0);
		CU_ASSERT_EQUAL(settle(v, unit, 1), 0);
		CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, unit * UNIT, UNIT, VOLUME_FUA), 0);
		v = restart(true);
		CU_ASSERT_EQUAL(put(v, unit * UNIT_BLOCKS, 2, 7, VOLUME_FILL), 0); /* brought once more, to no avail */
		CU_ASSERT_EQUAL(put(v, 3 * UNIT_BLOCKS, 2, 8, VOLUME_FILL), 0);
		CU_ASSERT_EQUAL(put(v, 4 * UNIT_BLOCKS, 2, 9, VOLUME_FILL), 0);
		CU_ASSERT_EQUAL(settle(v, 0, 8), 0);
		CU_ASSERT_EQUAL(get(v, 3 * UNIT_BLOCKS), 8);
		CU_ASSERT_EQUAL(get(v, 4 * UNIT_BLOCKS), 9);
		CU_ASSERT_EQUAL(get(v, unit * UNIT_BLOCKS), 0);
		close_world();
	}
}

static void what_is_not_there_is_no_hole(void)
{
	struct volume *v = open_world(5, 8 * UNIT);
	struct volume_extent e[8];
	CU_ASSERT_EQUAL(settle(v, 1, 2), 0);
	CU_ASSERT_EQUAL(world_map(&w, v, 0, 8 * UNIT, e, 8), 1);
	CU_ASSERT_TRUE(e[0].is_data && e[0].len_bytes == UNIT);
	CU_ASSERT_EQUAL(world_map(&w, v, UNIT, 7 * UNIT, e, 8), 1);
	CU_ASSERT_TRUE(!e[0].is_data && e[0].len_bytes == 2 * UNIT);
	CU_ASSERT_EQUAL(world_map(&w, v, 3 * UNIT, 5 * UNIT, e, 8), 1);
	CU_ASSERT_TRUE(e[0].is_data && e[0].len_bytes == 5 * UNIT);
	close_world();
}

/* Compared with a snapshot of another volume: what is yet to be brought differs, whatever it will be. */
static void what_is_not_there_has_changed(void)
{
	struct volume *v = open_world(15, 8 * UNIT);
	struct volume_base *base = NULL;
	struct world_comparison c;
	CU_ASSERT_PTR_NOT_NULL_FATAL(world_volume(&w, "vm2", 8 * UNIT));
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm2@s"), 0);
	CU_ASSERT_EQUAL(settle(v, 1, 2), 0);
	CU_ASSERT_EQUAL_FATAL(volume_base_open(v, "vm2@s", &base), 0);
	world_comparison_start(&c, base, 8 * UNIT);
	world_until(&w, world_comparison_is_done, &c);
	CU_ASSERT_EQUAL(c.res, 0);
	CU_ASSERT_EQUAL_FATAL(c.changes.n_extents, 3);
	CU_ASSERT_TRUE(c.extents[0].is_changed && c.extents[0].len_bytes == UNIT);
	CU_ASSERT_TRUE(!c.extents[1].is_changed && c.extents[1].len_bytes == 2 * UNIT);
	CU_ASSERT_TRUE(c.extents[2].is_changed && c.extents[2].is_data && c.extents[2].len_bytes == 5 * UNIT);
	volume_base_close(base);
	close_world();
}

static void what_cannot_be_had_is_an_error_there_alone(void)
{
	struct volume *v = open_world(6, 4 * UNIT);
	struct world_request read;
	CU_ASSERT_EQUAL(put(v, 1, 1, 9, 0), 0);
	waiting_start(&read, v, VOLUME_READ, 0, BLOCK, 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, UNIT, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(waiting_end(&read), -EIO);
	CU_ASSERT_EQUAL(get(v, 1), 9); /* written since */
	CU_ASSERT_EQUAL(get(v, 2), -EIO);
	CU_ASSERT_EQUAL(world_write(&w, v, 512, data, 512, 0), -EIO);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, UNIT, VOLUME_FILL | VOLUME_FUA), 0);
	CU_ASSERT_EQUAL(world_events(&w, "fill-damaged"), 1);
	CU_ASSERT_EQUAL(settle(v, 1, 3), 0);
	CU_ASSERT_EQUAL(get(v, UNIT_BLOCKS), 0);
	CU_ASSERT_EQUAL(record(v), 0); /* not the end */
	CU_ASSERT_PTR_NOT_NULL_FATAL(v->fill);
	CU_ASSERT_EQUAL(put(v, 0, 2, 7, VOLUME_FILL), 0); /* it can be had after all */
	CU_ASSERT_EQUAL(settle(v, 0, 1), 0);
	CU_ASSERT_EQUAL(get(v, 0), 7);
	CU_ASSERT_EQUAL(get(v, 1), 9);
	CU_ASSERT_EQUAL(record(v), 0);
	CU_ASSERT_PTR_NULL(v->fill);
	close_world();
}

/* A write that keeps a part of a block needs that one alone, whatever else of its unit is hurt. */
static void what_cannot_be_had_hurts_no_other_block(void)
{
	struct volume *v = open_world(22, 2 * GIB);
	uint64_t hurt = 5 * BLOCK;
	CU_ASSERT_EQUAL(put(v, 0, 5, 7, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(put(v, 6, 64, 7, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, hurt, BLOCK, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(settle(v, 1, 1), 0); /* all hole */
	memset(data, 9, 256 * KIB);
	CU_ASSERT_EQUAL(world_write(&w, v, hurt + 512, data, 512, 0), -EIO);
	CU_ASSERT_EQUAL(world_write(&w, v, hurt - BLOCK + 512, data, BLOCK, 0), -EIO); /* its end lies there */
	CU_ASSERT_EQUAL(world_write(&w, v, hurt + 512, data, BLOCK, 0), -EIO);         /* its begin */
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, hurt + 512, 512, 0), -EIO);
	CU_ASSERT_EQUAL(world_write(&w, v, 512, data, 512, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, 2 * BLOCK - 512, 1024, 0), 0);
	CU_ASSERT_EQUAL(world_write(&w, v, 4 * BLOCK + 512, data, 2 * BLOCK, 0), 0); /* over it as a whole */
	CU_ASSERT_EQUAL(world_write(&w, v, hurt + 1024, data + BLOCK, 512, 0), 0);   /* it was written since */
	CU_ASSERT_EQUAL(world_write(&w, v, hurt + 512, data, 256 * KIB, 0), 0);      /* 65 blocks */
	CU_ASSERT_EQUAL(world_read(&w, v, 0, back, 64 * BLOCK), 0);
	CU_ASSERT_EQUAL(back[511], 7);
	CU_ASSERT_EQUAL(back[512], 9);
	CU_ASSERT_EQUAL(back[1024], 7);
	CU_ASSERT_EQUAL(back[2 * BLOCK - 513], 7);
	CU_ASSERT_EQUAL(back[2 * BLOCK - 512], 0);
	CU_ASSERT_EQUAL(back[2 * BLOCK + 512], 7);
	CU_ASSERT_EQUAL(get(v, 5), 9);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, UNIT - BLOCK, BLOCK, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(put(v, UNIT_BLOCKS - 1, 1, 8, 0), 0);
	CU_ASSERT_EQUAL(world_read(&w, v, UNIT - BLOCK, back, 2 * BLOCK), 0); /* the other one is a hole */
	CU_ASSERT_EQUAL(back[0], 8);
	CU_ASSERT_EQUAL(back[BLOCK], 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, GIB, UNIT, VOLUME_FILL), 0); /* in a segment that lies nowhere */
	CU_ASSERT_EQUAL(world_write(&w, v, GIB + 512, data, 512, 0), -EIO);
	CU_ASSERT_EQUAL(put(v, 3, 1, 6, 0), 0);
	close_world();
}

/* Of a unit with hurt blocks the rest has been written; what is told are these blocks, however often. */
static void what_cannot_be_had_is_told_exactly(void)
{
	struct volume *v = open_world(17, 4 * UNIT + 512);
	struct volume_view view = {.size_bytes = v->size_bytes};
	for (unsigned round = 0; round < 2; round++) {
		CU_ASSERT_EQUAL(put(v, UNIT_BLOCKS, 1, 7, VOLUME_FILL), 0);
		CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, UNIT + BLOCK, 3 * BLOCK, VOLUME_FILL), 0);
		CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, UNIT + 8 * BLOCK, BLOCK, VOLUME_FILL), 0);
		CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 3 * UNIT, UNIT + 512, VOLUME_FILL), 0);
		CU_ASSERT_EQUAL(world_events(&w, "fill-damaged"), 3);
	}
	CU_ASSERT_PTR_NOT_NULL(strstr(world_event(&w, "fill-damaged"), "3145728+1049088"));
	fill_view(v->entry, &view);
	CU_ASSERT_EQUAL(view.unfillable_bytes, 4 * BLOCK + UNIT + 512);
	CU_ASSERT_EQUAL(view.n_unfillable, 3);
	CU_ASSERT_EQUAL(view.unfillable[0].pos_bytes, UNIT + BLOCK);
	CU_ASSERT_EQUAL(view.unfillable[0].len_bytes, 3 * BLOCK);
	CU_ASSERT_EQUAL(view.unfillable[2].len_bytes, UNIT + 512);
	CU_ASSERT_EQUAL(get(v, UNIT_BLOCKS), 7);
	CU_ASSERT_EQUAL(get(v, UNIT_BLOCKS + 1), -EIO);
	CU_ASSERT_EQUAL(put(v, UNIT_BLOCKS + 1, 2, 8, VOLUME_FILL), 0); /* some of it can be had now */
	fill_view(v->entry, &view);
	CU_ASSERT_EQUAL(view.unfillable_bytes, 2 * BLOCK + UNIT + 512);
	CU_ASSERT_EQUAL(get(v, UNIT_BLOCKS + 1), 8);
	CU_ASSERT_EQUAL(settle(v, 1, 1), 0);
	fill_view(v->entry, &view);
	CU_ASSERT_EQUAL(view.unfillable_bytes, UNIT + 512);
	CU_ASSERT_EQUAL(view.n_unfillable, 1);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, UNIT, UNIT, VOLUME_FILL), 0); /* it is complete already */
	CU_ASSERT_EQUAL(get(v, UNIT_BLOCKS + 3), 0);
	fill_view(v->entry, &view);
	CU_ASSERT_EQUAL(view.n_unfillable, 1);
	close_world();
}

/* Of what cannot be had nothing is there because somebody tried to bring it. */
static void what_could_not_be_brought_is_told_still(void)
{
	world_open(&w, 23);
	world_add_disk(&w, 64 * MIB);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	data = world_memory(256 * KIB);
	back = world_memory(256 * KIB);
	struct volume *v = fill_volume(256 * MIB);
	struct volume_view view = {.size_bytes = v->size_bytes};
	uint64_t first = 200 * UNIT_BLOCKS, n = 0;
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 200 * UNIT, UNIT, VOLUME_FILL), 0);
	while (put(v, n, 64, 9, 0) == 0)
		n += 64;
	CU_ASSERT_EQUAL(put(v, first, 64, 7, VOLUME_FILL), -ENOSPC);
	fill_view(v->entry, &view);
	CU_ASSERT_EQUAL(view.unfillable_bytes, UNIT);
	CU_ASSERT_EQUAL(get(v, first), -EIO);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, 8 * UNIT, 0), 0);
	world_let_pass(&w, 10 * NS_PER_S); /* freed by a checkpoint */
	CU_ASSERT_EQUAL(put(v, first, 64, 7, VOLUME_FILL), 0);
	fill_view(v->entry, &view);
	CU_ASSERT_EQUAL(view.unfillable_bytes, UNIT - 64 * BLOCK);
	CU_ASSERT_EQUAL(get(v, first), 7);
	close_world();
}

static void nobody_waits_for_ever(void)
{
	struct volume *v = open_world(7, 4 * UNIT);
	uint64_t start = reactor_now_ns(w.set->reactor);
	CU_ASSERT_EQUAL(put(v, 1, 1, 9, 0), 0);
	CU_ASSERT_EQUAL(get(v, 0), -EIO);
	CU_ASSERT_TRUE(reactor_now_ns(w.set->reactor) - start >= 30 * NS_PER_S);
	CU_ASSERT_EQUAL(get(v, 1), 9);
	CU_ASSERT_EQUAL(world_events(&w, "fill-stalled"), 1);
	CU_ASSERT_EQUAL(settle(v, 0, 1), 0);
	CU_ASSERT_EQUAL(get(v, 0), 0);
	struct world_request read;
	waiting_start(&read, v, VOLUME_READ, UNIT, BLOCK, 0);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0); /* ends who waits */
	CU_ASSERT_EQUAL(waiting_end(&read), -ESHUTDOWN);
	close_world();
}

static void who_goes_on_to_wait_is_sent_away_too(void)
{
	struct volume *v = open_world(13, 4 * UNIT);
	struct world_request read, whole;
	uint64_t start = reactor_now_ns(w.set->reactor);
	waiting_start(&read, v, VOLUME_READ, UNIT - BLOCK, 2 * BLOCK, 0);
	waiting_start(&whole, v, VOLUME_ZERO, 0, UNIT, VOLUME_FILL); /* the read is on its way to the next unit */
	v->state = VOLUME_DRAINING;
	fill_drain(v);
	CU_ASSERT_EQUAL(waiting_end(&read), -ESHUTDOWN);
	CU_ASSERT_EQUAL(waiting_end(&whole), 0);
	CU_ASSERT(reactor_now_ns(w.set->reactor) - start < NS_PER_S);
	v->state = VOLUME_SERVING;
	close_world();
}

static void flushes_share_a_record(void)
{
	struct volume *v = open_world(14, 4 * UNIT);
	struct world_request flushes[4];
	CU_ASSERT_EQUAL(settle(v, 0, 2), 0);
	for (unsigned i = 0; i < array_size(flushes); i++)
		waiting_start(&flushes[i], v, VOLUME_FLUSH, 0, 0, VOLUME_FILL);
	for (unsigned i = 0; i < array_size(flushes); i++)
		CU_ASSERT_EQUAL(waiting_end(&flushes[i]), 0);
	CU_ASSERT_EQUAL(v->entry->facts.fill.filled_bytes, 2 * UNIT);
	CU_ASSERT_EQUAL(settle(v, 2, 2), 0);
	for (unsigned i = 0; i < array_size(flushes); i++)
		waiting_start(&flushes[i], v, VOLUME_FLUSH, 0, 0, VOLUME_FILL);
	for (unsigned i = 0; i < array_size(flushes); i++)
		CU_ASSERT_EQUAL(waiting_end(&flushes[i]), 0);
	CU_ASSERT_PTR_NULL(v->fill);
	close_world();
}

static void the_end_is_recorded(void)
{
	struct volume *v = open_world(8, 3 * UNIT + 512); /* an odd end */
	uint64_t last = 3 * UNIT_BLOCKS;
	memset(data, 7, 512);
	CU_ASSERT_EQUAL(settle(v, 0, 2), 0);
	CU_ASSERT_EQUAL(record(v), 0);
	v = restart(true);
	CU_ASSERT_EQUAL(get(v, 2 * UNIT_BLOCKS - 1), 0); /* what was recorded need not be brought again */
	CU_ASSERT_EQUAL(settle(v, 2, 1), 0);
	CU_ASSERT_EQUAL(world_write(&w, v, last * BLOCK, data, 512, VOLUME_FILL), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, 3 * UNIT, 512, VOLUME_FILL), 0);
	CU_ASSERT_PTR_NOT_NULL(volume_get(w.set, "vm1" VOLUME_FILL_ENDING));
	volume_put(v);
	CU_ASSERT_EQUAL(record(v), 0);
	CU_ASSERT_PTR_NULL(v->fill);
	CU_ASSERT_PTR_NULL(volume_get(w.set, "vm1" VOLUME_FILL_ENDING));
	CU_ASSERT_EQUAL(record(v), -ESHUTDOWN);
	CU_ASSERT_EQUAL(world_events(&w, "volume-filled"), 1);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@s"), 0);
	v = restart(false);
	CU_ASSERT_PTR_NULL(v->fill);
	CU_ASSERT_EQUAL(world_read(&w, v, last * BLOCK, back, 512), 0);
	CU_ASSERT_EQUAL(back[0], 7);
	close_world();
}

static int resize(uint64_t size_bytes)
{
	struct set_command c = {.kind = SET_VOLUME_RESIZE, .size_bytes = size_bytes};
	text_print(c.object, sizeof(c.object), "vm1");
	return world_command(&w, &c);
}

static int rename_to(const char *name)
{
	struct set_command c = {.kind = SET_VOLUME_RENAME};
	text_print(c.object, sizeof(c.object), "vm1");
	text_print(c.other, sizeof(c.other), "%s", name);
	return world_command(&w, &c);
}

static void what_cannot_be_done_yet_is_refused(void)
{
	struct volume *v = open_world(9, 4 * UNIT);
	struct set_command same = fill_order(4 * UNIT, SOURCE), other = fill_order(4 * UNIT, "/repo/old@s2"),
			   plain = fill_order(4 * UNIT, ""), large = fill_order(FILL_BYTES_MAX + UNIT, SOURCE);
	CU_ASSERT_EQUAL(world_command(&w, &same), 0);
	CU_ASSERT_EQUAL(world_command(&w, &other), -EEXIST);
	CU_ASSERT_EQUAL(world_command(&w, &plain), -EEXIST);
	text_print(large.object, sizeof(large.object), "large");
	CU_ASSERT_EQUAL(world_command(&w, &large), -EINVAL);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@s"), -EBUSY);
	CU_ASSERT_PTR_NOT_NULL(strstr(w.why, SOURCE));
	CU_ASSERT_EQUAL(resize(8 * UNIT), -EBUSY);
	CU_ASSERT_EQUAL(rename_to("vm2"), -EBUSY);
	/* and what a filler must not ask for */
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, BLOCK, UNIT, VOLUME_FILL), -EINVAL);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, UNIT + 512, VOLUME_FILL), -EINVAL);
	CU_ASSERT_EQUAL(world_write(&w, v, 512, data, BLOCK, VOLUME_FILL), -EINVAL);
	CU_ASSERT_EQUAL(world_read(&w, v, 0, back, BLOCK / 2), -EIO); /* a client without a filler */
	struct set_command delete = {.kind = SET_VOLUME_DELETE};
	text_print(delete.object, sizeof(delete.object), "vm1");
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_command(&w, &delete), 0);
	close_world();
}

/* ---- at random ---- */

#define UNITS  6u
#define BLOCKS (UNITS * UNIT_BLOCKS)
#define STEPS  150u

struct model {
	uint8_t now[BLOCKS]; /* what a client must read, once its unit is there */
	bool is_there[UNITS];
};

static uint8_t source_stamp(uint64_t block)
{
	return block % 7 == 0 ? 0 : (uint8_t)(100 + block % 50);
}

/* Brings a unit, or only part of it: as a filler that is killed. */
static void model_fill(struct model *m, struct volume *v, uint32_t unit, bool is_whole)
{
	uint64_t first = (uint64_t)unit * UNIT_BLOCKS;
	for (uint64_t at = first, n; at < first + UNIT_BLOCKS; at += n + 1) {
		for (n = 0; at + n < first + UNIT_BLOCKS && source_stamp(at + n) != 0; n++)
			memset(data + n * BLOCK, source_stamp(at + n), BLOCK);
		if (!is_whole && sim_random(w.sim) % 8 == 0)
			return;
		if (n > 0)
			CU_ASSERT_EQUAL_FATAL(world_write(&w, v, at * BLOCK, data, n * BLOCK, VOLUME_FILL), 0);
	}
	if (!is_whole)
		return;
	CU_ASSERT_EQUAL_FATAL(settle(v, unit, 1), 0);
	m->is_there[unit] = true;
}

static void model_check(const struct model *m, struct volume *v)
{
	for (uint64_t i = 0; i < BLOCKS; i++)
		if (m->is_there[i / UNIT_BLOCKS])
			CU_ASSERT_EQUAL_FATAL(get(v, i), m->now[i]);
}

static void model_discard(struct model *m, struct volume *v, uint64_t block)
{
	uint64_t n = 1 + sim_random(w.sim) % min_u64(2 * UNIT_BLOCKS, BLOCKS - block);
	enum volume_op op = sim_random(w.sim) % 2 ? VOLUME_TRIM : VOLUME_ZERO;
	CU_ASSERT_EQUAL_FATAL(world_op(&w, v, op, block * BLOCK, n * BLOCK, VOLUME_FUA), 0);
	memset(m->now + block, 0, n);
}

static void model_write(struct model *m, struct volume *v, uint64_t block)
{
	uint32_t n = 1 + (uint32_t)(sim_random(w.sim) % min_u64(20, BLOCKS - block));
	uint8_t stamp = (uint8_t)(sim_random(w.sim) % 3 * 11);
	CU_ASSERT_EQUAL_FATAL(put(v, block, n, stamp, VOLUME_FUA), 0);
	memset(m->now + block, stamp, n);
}

static void the_model_holds_whatever_happens(void)
{
	for (uint64_t seed = 100; seed < 112; seed++) {
		static struct model m;
		struct volume *v = open_world(seed, UNITS * UNIT);
		memset(&m, 0, sizeof(m));
		for (uint64_t i = 0; i < BLOCKS; i++)
			m.now[i] = source_stamp(i);
		for (uint32_t step = 0; step < STEPS; step++) {
			uint64_t dice = sim_random(w.sim) % 16, block = sim_random(w.sim) % BLOCKS;
			if (dice < 7)
				model_write(&m, v, block);
			else if (dice < 9)
				model_discard(&m, v, block);
			else if (dice < 12 && v->fill)
				model_fill(&m, v, (uint32_t)(block / UNIT_BLOCKS), dice == 9);
			else if (dice < 14 && v->fill)
				CU_ASSERT_EQUAL_FATAL(record(v), 0);
			if (dice < 14)
				continue;
			v = restart(dice == 14);
			for (uint32_t unit = 0; unit < UNITS; unit++)
				m.is_there[unit] = !v->fill || unit < v->entry->facts.fill.filled_bytes / UNIT;
			model_check(&m, v);
		}
		for (uint32_t unit = 0; unit < UNITS && v->fill; unit++)
			model_fill(&m, v, unit, true);
		if (v->fill)
			CU_ASSERT_EQUAL(record(v), 0);
		CU_ASSERT_PTR_NULL(v->fill);
		model_check(&m, v);
		close_world();
	}
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("fill", NULL, NULL);
	CU_add_test(suite, "a read waits for its unit", a_read_waits_for_its_unit);
	CU_add_test(suite, "who asks first is told at once", who_asks_first_is_told_at_once);
	CU_add_test(suite, "a client's write wins", a_clients_write_wins);
	CU_add_test(suite, "what keeps part of a block waits", what_keeps_part_of_a_block_waits);
	CU_add_test(suite, "what is discarded waits for nobody", what_is_discarded_waits_for_nobody);
	CU_add_test(suite, "a discard is on every copy", a_discard_is_on_every_copy);
	CU_add_test(suite, "a discard on a full disk", a_discard_on_a_full_disk);
	CU_add_test(suite, "zeros on a full disk cost no copy", zeros_on_a_full_disk_cost_no_copy);
	CU_add_test(suite, "what is zeroed outlives what is not recorded",
		    what_is_zeroed_outlives_what_is_not_recorded);
	CU_add_test(suite, "a trimmed unit is no reason to leave out another",
		    a_trimmed_unit_is_no_reason_to_leave_out_another);
	CU_add_test(suite, "what is not there is no hole", what_is_not_there_is_no_hole);
	CU_add_test(suite, "what is not there has changed", what_is_not_there_has_changed);
	CU_add_test(suite, "what cannot be had", what_cannot_be_had_is_an_error_there_alone);
	CU_add_test(suite, "what cannot be had hurts no other block", what_cannot_be_had_hurts_no_other_block);
	CU_add_test(suite, "what cannot be had is told exactly", what_cannot_be_had_is_told_exactly);
	CU_add_test(suite, "what could not be brought is told still", what_could_not_be_brought_is_told_still);
	CU_add_test(suite, "nobody waits for ever", nobody_waits_for_ever);
	CU_add_test(suite, "who goes on to wait is sent away, too", who_goes_on_to_wait_is_sent_away_too);
	CU_add_test(suite, "flushes share a record", flushes_share_a_record);
	CU_add_test(suite, "the end is recorded", the_end_is_recorded);
	CU_add_test(suite, "what is refused", what_cannot_be_done_yet_is_refused);
	CU_add_test(suite, "a model at random", the_model_holds_whatever_happens);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
