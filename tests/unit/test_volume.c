/*
 * test_volume.c: the data path of a volume: every way of cutting a request, holes, zeros, order, atomicity of edges,
 * flushes; against a plain array of bytes, on real disks of a simulated machine.
 */
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)

static void fill(uint8_t *data, size_t len, uint32_t stamp)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(stamp * 31 + i * 7 + i / 509 + 1);
}

static bool is_zero(const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (data[i])
			return false;
	return true;
}

/* ---- one request after the other ---- */

static void what_is_written_is_read(void)
{
	struct head_world w;
	uint8_t *data = world_memory(MIB), *back = world_memory(MIB);
	world_open(&w, 1);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 3 * GIB);
	fill(data, MIB, 1);
	CU_ASSERT_EQUAL(world_read(&w, v, GIB - 4096, back, 8192), 0);
	CU_ASSERT_TRUE(is_zero(back, 8192));
	CU_ASSERT_EQUAL(world_write(&w, v, GIB - MIB / 2, data, MIB, 0), 0); /* two segments */
	CU_ASSERT_EQUAL(world_read(&w, v, GIB - MIB / 2, back, MIB), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, MIB), 0);
	world_stop(&w);
	CU_ASSERT_EQUAL(world_start(&w), 0); /* brought back */
	v = world_head(&w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	CU_ASSERT_EQUAL(v->generation, 2);
	CU_ASSERT_EQUAL(world_read(&w, v, GIB - MIB / 2, back, MIB), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, MIB), 0);
	world_close(&w);
	free(data);
	free(back);
}

/* All segments that a request may have, in blocks whose first and last are merged: two more for the disk. */
static void many_segments_and_both_edges(void)
{
	struct head_world w;
	uint8_t *data = world_memory(256 * KIB), *back = world_memory(256 * KIB);
	uint64_t pos = 512, len = 256 * KIB - 1024;
	world_open(&w, 24);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", GIB);
	fill(data, len, 3);
	CU_ASSERT_EQUAL(world_write_cut(&w, v, pos, data, len, VOLUME_IOV_MAX), 0);
	CU_ASSERT_EQUAL(world_read(&w, v, pos, back, len), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, len), 0);
	memset(back, 0, len);
	CU_ASSERT_EQUAL(world_read_cut(&w, v, pos, back, len, VOLUME_IOV_MAX), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, len), 0);
	CU_ASSERT_EQUAL(world_read(&w, v, 0, back, 512), 0);
	CU_ASSERT_TRUE(is_zero(back, 512));
	CU_ASSERT_EQUAL(world_read(&w, v, pos + len, back, 512), 0);
	CU_ASSERT_TRUE(is_zero(back, 512));
	world_close(&w);
	free(data);
	free(back);
}

static void wrong_requests_are_refused(void)
{
	struct head_world w;
	uint8_t *data = world_memory(8192);
	world_open(&w, 2);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 10 * MIB);
	CU_ASSERT_EQUAL(world_write(&w, v, 100, data, 512, 0), -EINVAL);
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 100, 0), -EINVAL);
	CU_ASSERT_EQUAL(world_read(&w, v, 0, data, 0), -EINVAL);
	CU_ASSERT_EQUAL(world_read(&w, v, 10 * MIB - 512, data, 1024), -EINVAL);
	CU_ASSERT_EQUAL(world_read(&w, v, UINT64_MAX - 511, data, 512), -EINVAL);
	CU_ASSERT_EQUAL(world_read(&w, v, 10 * MIB - 512, data, 512), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, 11 * MIB, 0), -EINVAL);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, 0, MIB, VOLUME_FAST_ZERO | VOLUME_NO_HOLE), -ENOTSUP);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, 0, MIB, VOLUME_FAST_ZERO), 0);
	CU_ASSERT_EQUAL(v->counters.errors, 7);
	world_close(&w);
	free(data);
}

static void holes_cost_nothing(void)
{
	struct head_world w;
	struct volume_extent extents[8];
	uint8_t *data = world_memory(MIB);
	world_open(&w, 3);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 64 * TIB);
	memset(data, 0, MIB);
	CU_ASSERT_EQUAL(world_write(&w, v, 5 * TIB, data, MIB, 0), 0); /* zeros */
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, 64 * TIB, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, 512, 64 * TIB - 1024, 0), 0);
	CU_ASSERT_EQUAL(v->entry->facts.n_disks, 0); /* nothing was placed */
	CU_ASSERT_EQUAL(world_map(&w, v, 0, 64 * TIB, extents, 8), 1);
	CU_ASSERT_EQUAL(extents[0].len_bytes, 64 * TIB);
	CU_ASSERT_FALSE(extents[0].is_data);
	fill(data, 4096, 9);
	CU_ASSERT_EQUAL(world_write(&w, v, 33 * TIB + 8192, data, 4096, 0), 0);
	CU_ASSERT_EQUAL(world_map(&w, v, 33 * TIB + 512, 16384, extents, 8), 3);
	CU_ASSERT_EQUAL(extents[0].len_bytes, 8192 - 512);
	CU_ASSERT_TRUE(extents[1].is_data && extents[1].len_bytes == 4096);
	CU_ASSERT_EQUAL(world_map(&w, v, 0, 64 * TIB, extents, 8), 3);
	CU_ASSERT_EQUAL(world_map(&w, v, 0, 64 * TIB, extents, 2), 2); /* room ran out */
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, 64 * TIB, 0), 0);
	CU_ASSERT_EQUAL(world_map(&w, v, 0, 64 * TIB, extents, 8), 1);
	world_close(&w);
	free(data);
}

static void trims_leave_edges_and_zeroes_do_not(void)
{
	struct head_world w;
	struct volume_extent extents[8];
	uint8_t *data = world_memory(32768), *back = world_memory(32768);
	world_open(&w, 4);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", GIB);
	fill(data, 32768, 3);
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 32768, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 512, 12288, 0), 0);
	memset(data + 4096, 0, 8192);
	CU_ASSERT_EQUAL(world_read(&w, v, 0, back, 32768), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, 32768), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, 16384 + 512, 12288, 0), 0);
	memset(data + 16384 + 512, 0, 12288);
	CU_ASSERT_EQUAL(world_read(&w, v, 0, back, 32768), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, 32768), 0);
	CU_ASSERT_EQUAL(world_map(&w, v, 0, 32768, extents, 8), 5);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, 4096, 8192, VOLUME_NO_HOLE), 0); /* allocated zeros */
	CU_ASSERT_EQUAL(world_map(&w, v, 0, 32768, extents, 8), 3);
	CU_ASSERT_EQUAL(world_read(&w, v, 0, back, 32768), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, 32768), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 512, 1024, 0), 0); /* less than a block: nothing */
	CU_ASSERT_EQUAL(world_read(&w, v, 0, back, 32768), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, 32768), 0);
	world_close(&w);
	free(data);
	free(back);
}

/* ---- many at once, against a model ---- */

#define WINDOW_BYTES (2 * MIB)
#define WINDOWS      3u
#define SLOTS        24u

struct slot {
	struct volume_io io;
	struct load *load;
	struct iovec iov[40];
	uint8_t *memory;
	bool is_busy;
	uint32_t window, from; /* in the window */
	uint8_t *expected;     /* what a read must give; of the moment of its submission */
};
struct load {
	struct head_world *w;
	struct volume *v;
	uint8_t *model[WINDOWS];
	struct slot slots[SLOTS];
	uint32_t n_busy, n_done, n_left, n_overlapping;
	bool has_flush;
};

static const uint64_t window_at[WINDOWS] = {0, GIB - MIB, 3 * GIB - 2 * MIB};

/* Cuts the memory into iovecs at random sectors. */
static uint32_t slot_cut(struct slot *s, uint32_t len)
{
	struct sim *sim = s->load->w->sim;
	uint32_t n = 0, at = 0, pieces = 1 + (uint32_t)sim_below(sim, 38);
	while (at < len) {
		uint32_t piece = (uint32_t)(1 + sim_below(sim, len / 512 / pieces + 2)) * 512;
		if (piece > len - at || n == array_size(s->iov) - 1)
			piece = len - at;
		s->iov[n++] = (struct iovec){s->memory + at, piece};
		at += piece;
	}
	return n;
}

static void slot_submit(struct slot *s);

static void slot_done(struct volume_io *io, int res)
{
	struct slot *s = container_of(io, struct slot, io);
	struct load *l = s->load;
	CU_ASSERT_EQUAL_FATAL(res, 0);
	if (io->op == VOLUME_READ)
		CU_ASSERT_EQUAL_FATAL(memcmp(s->memory, s->expected, io->len_bytes), 0);
	s->is_busy = false;
	l->n_busy--;
	l->n_done++;
	if (l->n_left > 0) {
		l->n_left--;
		slot_submit(s);
	}
}

/* The model changes at submission: overlapping requests are carried out in that order. */
static void slot_model(struct slot *s, enum volume_op op, uint32_t len)
{
	uint8_t *at = s->load->model[s->window] + s->from;
	uint32_t first = (s->from + 4095) / 4096 * 4096, last = (s->from + len) / 4096 * 4096;
	if (op == VOLUME_READ)
		memcpy(s->expected, at, len);
	else if (op == VOLUME_WRITE)
		memcpy(at, s->memory, len);
	else if (op == VOLUME_ZERO)
		memset(at, 0, len);
	else if (op == VOLUME_TRIM && last > first)
		memset(s->load->model[s->window] + first, 0, last - first);
}

static void slot_submit(struct slot *s)
{
	static const enum volume_op ops[] = {VOLUME_READ,  VOLUME_READ, VOLUME_WRITE, VOLUME_WRITE,
					     VOLUME_WRITE, VOLUME_TRIM, VOLUME_ZERO,  VOLUME_FLUSH};
	struct load *l = s->load;
	struct sim *sim = l->w->sim;
	enum volume_op op = ops[sim_below(sim, array_size(ops))];
	uint32_t len_max = sim_chance(sim, 200000) ? WINDOW_BYTES : 40960;
	uint32_t grain = sim_chance(sim, 500000) ? 4096 : 512;
	s->window = (uint32_t)sim_below(sim, WINDOWS);
	s->from = (uint32_t)sim_below(sim, WINDOW_BYTES / grain) * grain;
	uint32_t len = (uint32_t)(1 + sim_below(sim, len_max / grain)) * grain;
	if (len > WINDOW_BYTES - s->from)
		len = WINDOW_BYTES - s->from;
	if (op == VOLUME_WRITE)
		fill(s->memory, len, (uint32_t)sim_random(sim));
	if (op == VOLUME_WRITE && sim_chance(sim, 100000))
		memset(s->memory, 0, len);
	slot_model(s, op, len);
	s->io = (struct volume_io){.op = op,
				   .pos_bytes = window_at[s->window] + s->from,
				   .len_bytes = len,
				   .iov = s->iov,
				   .n_iov = slot_cut(s, len),
				   .done = slot_done};
	if (op == VOLUME_ZERO)
		s->io.flags = sim_chance(sim, 300000) ? VOLUME_NO_HOLE : 0;
	if (sim_chance(sim, 100000))
		s->io.flags |= VOLUME_FUA;
	s->is_busy = true;
	l->n_busy++;
	volume_submit(l->v, &s->io);
}

static bool load_is_over(void *context)
{
	return ((struct load *)context)->n_busy == 0;
}

static void load_open(struct load *l, struct head_world *w, struct volume *v)
{
	*l = (struct load){.w = w, .v = v};
	for (uint32_t i = 0; i < WINDOWS; i++) {
		l->model[i] = world_memory(WINDOW_BYTES);
		memset(l->model[i], 0, WINDOW_BYTES);
	}
	for (uint32_t i = 0; i < SLOTS; i++) {
		l->slots[i].load = l;
		l->slots[i].memory = world_memory(WINDOW_BYTES);
		l->slots[i].expected = world_memory(WINDOW_BYTES);
	}
}

static void load_run(struct load *l, uint32_t n)
{
	l->n_left = n;
	for (uint32_t i = 0; i < SLOTS; i++)
		slot_submit(&l->slots[i]);
	world_until(l->w, load_is_over, l);
	for (uint32_t i = 0; i < WINDOWS; i++) {
		uint8_t *back = l->slots[0].memory;
		CU_ASSERT_EQUAL_FATAL(world_read(l->w, l->v, window_at[i], back, WINDOW_BYTES), 0);
		CU_ASSERT_EQUAL_FATAL(memcmp(back, l->model[i], WINDOW_BYTES), 0);
	}
}

static void load_close(struct load *l)
{
	for (uint32_t i = 0; i < WINDOWS; i++)
		free(l->model[i]);
	for (uint32_t i = 0; i < SLOTS; i++) {
		free(l->slots[i].memory);
		free(l->slots[i].expected);
	}
}

static void random_requests_follow_the_model(void)
{
	for (uint64_t seed = 10; seed < 14; seed++) {
		struct head_world w;
		struct load l;
		world_open(&w, seed);
		for (uint32_t i = 0; i < 3; i++)
			world_add_disk(&w, DISK_BYTES);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		load_open(&l, &w, world_volume(&w, "vm1", 3 * GIB));
		load_run(&l, 400);
		world_stop(&w);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		l.v = world_head(&w, "vm1");
		CU_ASSERT_PTR_NOT_NULL_FATAL(l.v);
		load_run(&l, 100);
		load_close(&l);
		world_close(&w);
	}
}

/* ---- promises ---- */

static void a_flush_covers_whoever_wrote(void)
{
	struct head_world w;
	uint8_t *data = world_memory(8192), *back = world_memory(8192);
	world_open(&w, 20);
	world_add_disk(&w, DISK_BYTES);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 20 * GIB);
	for (uint32_t i = 0; i < 20; i++) { /* on both disks, as chance has it */
		fill(data, 8192, i);
		CU_ASSERT_EQUAL(world_write(&w, v, i * GIB + 512, data, 7168, 0), 0);
	}
	CU_ASSERT_EQUAL(v->entry->facts.n_disks, 2);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_FLUSH, 0, 0, 0), 0);
	world_crash(&w, SIM_POWER_LOSS);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	v = world_head(&w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	for (uint32_t i = 0; i < 20; i++) {
		fill(data, 8192, i);
		CU_ASSERT_EQUAL(world_read(&w, v, i * GIB + 512, back, 7168), 0);
		CU_ASSERT_EQUAL(memcmp(data, back, 7168), 0);
	}
	fill(data, 8192, 77);
	CU_ASSERT_EQUAL(world_write(&w, v, 3 * GIB, data, 8192, VOLUME_FUA), 0);
	world_crash(&w, SIM_POWER_LOSS);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	v = world_head(&w, "vm1");
	CU_ASSERT_EQUAL(world_read(&w, v, 3 * GIB, back, 8192), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, 8192), 0);
	world_close(&w);
	free(data);
	free(back);
}

static void a_full_pool_refuses_writes_and_nothing_else(void)
{
	struct head_world w;
	uint8_t *data = world_memory(MIB), *back = world_memory(MIB);
	uint32_t written = 0;
	int res;
	world_open(&w, 21);
	world_add_disk(&w, 32 * MIB);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", GIB);
	fill(data, MIB, 1);
	while ((res = world_write(&w, v, written * MIB, data, MIB, 0)) == 0)
		written++;
	CU_ASSERT_EQUAL(res, -ENOSPC);
	CU_ASSERT(written > 10 && written < 32);
	CU_ASSERT_EQUAL(world_read(&w, v, (written - 1) * MIB, back, MIB), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, MIB), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, 8 * MIB, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_FLUSH, 0, 0, 0), 0);
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4 * MIB / 4, 0), 0); /* there is room again */
	CU_ASSERT(v->counters.no_space > 0);
	world_close(&w);
	free(data);
	free(back);
}

static void a_read_only_volume_refuses_changes(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	struct set_command c = {.kind = SET_VOLUME_ATTACH, .object = "vm1", .other = "nbd", .read_only = true};
	world_open(&w, 22);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_EQUAL(world_create(&w, "vm1", GIB), 0);
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	struct volume *v = world_head(&w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	CU_ASSERT_TRUE(volume_is_read_only(v));
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, 0), -EROFS);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, 4096, 0), -EROFS);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_ZERO, 0, 4096, 0), -EROFS);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_FLUSH, 0, 0, 0), 0);
	CU_ASSERT_EQUAL(world_read(&w, v, 0, data, 4096), 0);
	world_close(&w);
	free(data);
}

static void a_failed_disk_fails_what_lies_there(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	uint64_t on[2] = {0};
	world_open(&w, 23);
	world_add_disk(&w, DISK_BYTES);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 20 * GIB);
	fill(data, 4096, 5);
	for (uint32_t i = 0; i < 20; i++) {
		uint64_t disks;
		CU_ASSERT_EQUAL(world_write(&w, v, i * GIB, data, 4096, 0), 0);
		CU_ASSERT_EQUAL_FATAL(chunk_find(v, i, &disks), PLACED_ON_DISKS);
		on[disks >> 1] = i * GIB;
	}
	sim_file_fail(world_disk_file(&w, 1), OP_WRITE, 0, EIO);
	CU_ASSERT_EQUAL(world_write(&w, v, on[0], data, 4096, 0), -EIO);
	CU_ASSERT_EQUAL(world_read(&w, v, on[0], data, 4096), -EIO);
	CU_ASSERT_EQUAL(world_write(&w, v, on[1], data, 4096, 0), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_FLUSH, 0, 0, 0),
			-EIO); /* writes were lost with it: nobody is told otherwise */
	CU_ASSERT(strstr(v->why, "n1-d1") != NULL);
	CU_ASSERT_EQUAL(world_events(&w, "disk-failed"), 1);
	world_let_pass(&w, 3 * NS_PER_S);
	world_close(&w);
	free(data);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("volume", NULL, NULL);
	CU_add_test(suite, "what is written is read", what_is_written_is_read);
	CU_add_test(suite, "many segments and both edges", many_segments_and_both_edges);
	CU_add_test(suite, "wrong requests are refused", wrong_requests_are_refused);
	CU_add_test(suite, "holes cost nothing", holes_cost_nothing);
	CU_add_test(suite, "trims leave edges and zeroes do not", trims_leave_edges_and_zeroes_do_not);
	CU_add_test(suite, "random requests follow the model", random_requests_follow_the_model);
	CU_add_test(suite, "a flush covers whoever wrote", a_flush_covers_whoever_wrote);
	CU_add_test(suite, "a full pool refuses writes and nothing else", a_full_pool_refuses_writes_and_nothing_else);
	CU_add_test(suite, "a read-only volume refuses changes", a_read_only_volume_refuses_changes);
	CU_add_test(suite, "a failed disk fails what lies there", a_failed_disk_fails_what_lies_there);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
