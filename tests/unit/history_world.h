/*
 * history_world.h: what the tests of history share: one volume set, and blocks that are told apart by the byte that fills them.
 */
#pragma once

#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)
#define BLOCK      4096u

static struct head_world w;
static uint8_t *data, *back;

static void open_world(uint64_t seed, uint32_t n_disks)
{
	world_open(&w, seed);
	for (uint32_t i = 0; i < n_disks; i++)
		world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	data = world_memory(16 * BLOCK);
	back = world_memory(16 * BLOCK);
}

static void close_world(void)
{
	world_close(&w);
	free(data);
	free(back);
}

static void put(struct volume *v, uint64_t block, uint8_t stamp)
{
	memset(data, stamp, BLOCK);
	CU_ASSERT_EQUAL_FATAL(world_write(&w, v, block * BLOCK, data, BLOCK, 0), 0);
}

/* The stamp of a block; -1: it cannot be read. */
static int get(struct volume *v, uint64_t block)
{
	if (!v || world_read(&w, v, block * BLOCK, back, BLOCK) != 0)
		return -1;
	for (uint32_t i = 1; i < BLOCK; i++)
		CU_ASSERT_EQUAL_FATAL(back[i], back[0]);
	return back[0];
}
