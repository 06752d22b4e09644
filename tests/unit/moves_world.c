/*
 * moves_world.c: see the header.
 */
#include "tests/unit/moves_world.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)

void bench_open(struct bench *b, uint64_t seed, uint32_t n_disks, uint32_t replicas)
{
	*b = (struct bench){.data = world_memory(MIB), .back = world_memory(MIB), .random = seed};
	world_open(&b->w, seed);
	for (uint32_t i = 0; i < n_disks; i++)
		world_add_disk(&b->w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&b->w), 0);
	CU_ASSERT_EQUAL_FATAL(world_create_copies(&b->w, "vm1", SEGMENTS * GIB, replicas), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&b->w, "vm1"), 0);
	b->v = world_head(&b->w, "vm1");
}

void bench_close(struct bench *b)
{
	world_close(&b->w);
	free(b->data);
	free(b->back);
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

void bench_change_one(struct bench *b)
{
	uint64_t r = sim_split(&b->random);
	uint32_t segment = (uint32_t)(r % SEGMENTS), cell = (uint32_t)(r / 8 % CELLS);
	uint8_t byte = (uint8_t)(1 + r / 1024 % 200);
	if (r >> 40 & 3) {
		CU_ASSERT_EQUAL(bench_put(b, segment, cell, byte, r >> 42 & 1 ? VOLUME_FUA : 0), 0);
		return;
	}
	enum volume_op op = r >> 43 & 1 ? VOLUME_TRIM : VOLUME_ZERO;
	CU_ASSERT_EQUAL(world_op(&b->w, b->v, op, cell_pos(segment, cell), CELL_BYTES, 0), 0);
	b->model[segment][cell] = 0;
}

void bench_change(struct bench *b, uint32_t n)
{
	while (n-- > 0)
		bench_change_one(b);
}

bool is_all(const uint8_t *data, uint8_t byte, uint64_t n)
{
	return data[0] == byte && memcmp(data, data + 1, n - 1) == 0;
}

uint32_t bench_wrong(struct bench *b, struct volume *v, uint8_t model[SEGMENTS][CELLS])
{
	uint32_t n = 0;
	for (uint32_t segment = 0; segment < SEGMENTS; segment++)
		for (uint32_t cell = 0; cell < CELLS; cell++) {
			memset(b->back, 0xee, CELL_BYTES);
			int res = world_read(&b->w, v, cell_pos(segment, cell), b->back, CELL_BYTES);
			n += res != 0 || !is_all(b->back, model[segment][cell], CELL_BYTES);
		}
	return n;
}

void bench_check(struct bench *b)
{
	CU_ASSERT_EQUAL(bench_wrong(b, b->v, b->model), 0);
}

void bench_check_copies(struct bench *b)
{
	for (uint32_t disk = 0; disk < b->w.n_disks; disk++) {
		uint32_t asked[SET_DISKS_MAX];
		for (uint32_t i = 0; i < SET_DISKS_MAX;
		     i++) { /* the others seem busy: this one is read where it can be */
			asked[i] = b->v->disks[i].asked;
			b->v->disks[i].asked += i == disk ? 0 : 1000;
		}
		bench_check(b);
		for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
			b->v->disks[i].asked = asked[i];
	}
}

uint32_t bench_disk_of(struct bench *b, uint32_t segment)
{
	uint64_t disks = 0;
	CU_ASSERT_EQUAL_FATAL(chunk_find(b->v, segment, &disks), PLACED_ON_DISKS);
	return (uint32_t)__builtin_ctzll(disks);
}

const char *disk_name(struct bench *b, uint32_t disk)
{
	return b->w.set->disks[disk]->facts.name;
}

int bench_drain(struct bench *b, uint32_t disk, bool cancel)
{
	struct set_command c = order(SET_DISK_DRAIN, disk_name(b, disk));
	c.cancel = cancel;
	return world_command(&b->w, &c);
}

int bench_remove(struct bench *b, uint32_t disk)
{
	struct set_command c = order(SET_DISK_REMOVE, disk_name(b, disk));
	return world_command(&b->w, &c);
}

bool disk_is_left(void *context)
{
	struct wanted *wanted = context;
	const struct set_volume *entry = set_volume_find(wanted->b->w.set, "vm1");
	const struct set_disk *d = wanted->b->w.set->disks[wanted->disk];
	return !volume_facts_disk((struct volume_facts *)&entry->facts, &d->facts.uuid) &&
	       !(entry->head && (entry->head->leave || entry->head->move));
}

void bench_until_left(struct bench *b, uint32_t disk)
{
	struct wanted wanted = {.b = b, .disk = disk};
	world_until(&b->w, disk_is_left, &wanted);
}

void bench_start_again(struct bench *b)
{
	CU_ASSERT_EQUAL_FATAL(world_start(&b->w), 0);
	b->v = world_head(&b->w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(b->v);
}

static void blocks_count(const struct tree_record *t, void *context)
{
	if (t->state == TREE_LIVE)
		*(uint64_t *)context += t->n_data_blocks;
}

uint64_t bench_blocks(struct bench *b, uint32_t disk)
{
	uint64_t n = 0;
	disk_trees_each(b->w.set->disks[disk]->disk, blocks_count, &n);
	return n;
}

void bench_snapshot(struct bench *b, const char *name)
{
	CU_ASSERT_EQUAL_FATAL(world_snapshot(&b->w, name), 0);
	memcpy(b->kept, b->model, sizeof(b->model));
}

struct volume *bench_export(struct bench *b, const char *name)
{
	struct set_command c = order_other(SET_VOLUME_ATTACH, name, "nbd");
	CU_ASSERT_EQUAL_FATAL(world_command(&b->w, &c), 0);
	struct volume *v = world_export(&b->w, name);
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	return v;
}
