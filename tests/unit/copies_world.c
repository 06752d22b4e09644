/*
 * copies_world.c: see the header.
 */
#include "tests/unit/copies_world.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)

static void bench_begin(struct bench *b, uint32_t replicas)
{
	CU_ASSERT_EQUAL_FATAL(world_start(&b->w), 0);
	CU_ASSERT_EQUAL_FATAL(world_create_copies(&b->w, "vm1", 2 * GIB, replicas), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&b->w, "vm1"), 0);
	b->v = world_head(&b->w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(b->v);
}

void bench_open(struct bench *b, uint64_t seed, uint32_t n_disks, uint32_t replicas)
{
	*b = (struct bench){.data = world_memory(MIB), .back = world_memory(MIB), .random = seed};
	world_open(&b->w, seed);
	for (uint32_t i = 0; i < n_disks; i++)
		world_add_disk(&b->w, DISK_BYTES);
	bench_begin(b, replicas);
}

void bench_open_sizes(struct bench *b, uint64_t seed, uint64_t first_bytes, uint64_t second_bytes)
{
	*b = (struct bench){.data = world_memory(MIB), .back = world_memory(MIB), .random = seed};
	world_open(&b->w, seed);
	world_add_disk(&b->w, first_bytes);
	world_add_disk(&b->w, second_bytes);
	bench_begin(b, 2);
}

void bench_close(struct bench *b)
{
	world_close(&b->w);
	free(b->data);
	free(b->back);
}

void bench_start_again(struct bench *b)
{
	CU_ASSERT_EQUAL_FATAL(world_start(&b->w), 0);
	b->v = world_head(&b->w, "vm1");
}

uint64_t cell_pos(uint32_t segment, uint32_t cell)
{
	return segment * GIB + cell * 5 * CELL_BYTES;
}

int bench_put(struct bench *b, uint32_t segment, uint32_t cell, uint8_t byte, unsigned flags)
{
	memset(b->data, byte, CELL_BYTES);
	int res = world_write(&b->w, b->v, cell_pos(segment, cell), b->data, CELL_BYTES, flags);
	if (res == 0)
		b->model[segment][cell] = byte;
	return res;
}

void bench_change(struct bench *b, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t segment = (uint32_t)(sim_split(&b->random) % 2),
			 cell = (uint32_t)(sim_split(&b->random) % CELLS);
		if (sim_split(&b->random) % 4) {
			CU_ASSERT_EQUAL(bench_put(b, segment, cell, (uint8_t)(1 + i % 200), i % 3 ? 0 : VOLUME_FUA), 0);
			continue;
		}
		enum volume_op op = sim_split(&b->random) % 2 ? VOLUME_TRIM : VOLUME_ZERO;
		CU_ASSERT_EQUAL(world_op(&b->w, b->v, op, cell_pos(segment, cell), CELL_BYTES, 0), 0);
		b->model[segment][cell] = 0;
	}
}

bool is_all(const uint8_t *data, uint8_t byte, uint64_t n)
{
	return data[0] == byte && memcmp(data, data + 1, n - 1) == 0;
}

void bench_check(struct bench *b)
{
	for (uint32_t segment = 0; segment < 2; segment++)
		for (uint32_t cell = 0; cell < CELLS; cell++) {
			memset(b->back, 0xee, CELL_BYTES);
			CU_ASSERT_EQUAL(world_read(&b->w, b->v, cell_pos(segment, cell), b->back, CELL_BYTES), 0);
			CU_ASSERT(is_all(b->back, b->model[segment][cell], CELL_BYTES));
		}
}

/* ---- looking at one copy ---- */

static void look_done(struct disk_io *io, int res)
{
	struct look *l = container_of(io, struct look, io);
	l->is_done = true;
	l->res = res;
}

static bool look_is_done(void *context)
{
	return ((struct look *)context)->is_done;
}

int look_ask_at(struct head_world *w, const struct set_disk *d, const struct uuid *volume, uint64_t tree,
		struct look *l)
{
	l->io.tree = disk_tree_find(d->disk, volume, tree);
	l->io.n_blocks = l->iov.iov_len / BLOCK_BYTES;
	l->io.iov = &l->iov;
	l->io.n_iov = 1;
	l->io.done = look_done;
	l->is_done = false;
	CU_ASSERT_PTR_NOT_NULL_FATAL(l->io.tree);
	disk_submit(d->disk, &l->io);
	world_until(w, look_is_done, l);
	return l->res;
}

int look_ask(struct bench *b, uint32_t disk, struct look *l)
{
	return look_ask_at(&b->w, b->w.set->disks[disk], volume_uuid(b->v), volume_tree(b->v), l);
}

int look_at(struct bench *b, uint32_t disk, uint64_t pos, uint8_t *out, struct look *l)
{
	*l = (struct look){.io = {.op = DISK_READ, .first = pos / BLOCK_BYTES}, .iov = {out, CELL_BYTES}};
	return look_ask(b, disk, l);
}

void bench_check_copies(struct bench *b)
{
	struct look l;
	for (uint32_t segment = 0; segment < 2; segment++) {
		uint64_t disks;
		if (chunk_find(b->v, segment, &disks) != PLACED_ON_DISKS)
			continue;
		for (uint32_t disk = 0; disk < b->w.n_disks; disk++)
			for (uint32_t cell = 0; cell < CELLS && disks >> disk & 1; cell++) {
				if (b->v->disks[disk].state != VOLUME_DISK_JOINED)
					continue;
				CU_ASSERT_EQUAL(look_at(b, disk, cell_pos(segment, cell), b->back, &l), 0);
				CU_ASSERT(is_all(b->back, b->model[segment][cell], CELL_BYTES));
			}
	}
}

uint64_t cell_block(struct bench *b, uint32_t disk, uint32_t segment, uint32_t cell, uint32_t n)
{
	struct look l;
	CU_ASSERT_EQUAL(look_at(b, disk, cell_pos(segment, cell), b->back, &l), 0);
	uint64_t block = pointer_block(l.io.own.pointers[n]);
	CU_ASSERT(block > 0);
	return block;
}

const struct volume_disk_facts *bench_facts(struct bench *b, uint32_t disk)
{
	return volume_facts_disk(&b->v->entry->facts, &b->w.set->disks[disk]->facts.uuid);
}

uint32_t bench_disk_of(struct bench *b, uint32_t segment)
{
	uint64_t disks = 0;
	CU_ASSERT_EQUAL_FATAL(chunk_find(b->v, segment, &disks), PLACED_ON_DISKS);
	return (uint32_t)__builtin_ctzll(disks);
}

void bench_request_start(struct bench *b, struct world_request *r, enum volume_op op, uint64_t pos)
{
	uint64_t len = op == VOLUME_FLUSH ? 0 : CELL_BYTES;
	*r = (struct world_request){.io = {.op = op, .pos_bytes = pos, .len_bytes = len},
				    .iov = {op == VOLUME_READ ? b->back : b->data, len}};
	world_request_start(b->v, r);
}

bool all_are_current(void *context)
{
	struct bench *b = context;
	for (uint32_t i = 0; i < b->v->entry->facts.n_disks; i++)
		if (b->v->entry->facts.disks[i].is_stale)
			return false;
	return !b->v->resync;
}

void bench_return(struct bench *b, uint32_t disk)
{
	struct set_command c = {.kind = SET_DISK_ADD};
	text_print(c.path, sizeof(c.path), "d%u", disk + 1);
	CU_ASSERT_EQUAL_FATAL(world_command(&b->w, &c), 0);
}
