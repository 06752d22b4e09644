/*
 * test_copies.c: volumes with several copies: all get every change, a damaged one is healed from another, and one that
 * fails is marked stale before anything that it missed completes, but never the last.
 */
#include "tests/unit/copies_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- changes ---- */

static void every_copy_gets_every_change(void)
{
	for (uint32_t replicas = 2; replicas <= 5; replicas++) {
		struct bench b;
		bench_open(&b, 100 + replicas, 5, replicas);
		bench_change(&b, 200);
		/* parts of blocks, merged on every copy */
		memset(b.data, 0x55, MIB);
		CU_ASSERT_EQUAL(world_write(&b.w, b.v, cell_pos(0, 3) + 512, b.data, CELL_BYTES - 1024, 0), 0);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 3, 0x66, 0), 0);
		CU_ASSERT_EQUAL(world_op(&b.w, b.v, VOLUME_FLUSH, 0, 0, 0), 0);
		bench_check(&b);
		bench_check_copies(&b);
		for (uint32_t i = 0; i < 5; i++)
			CU_ASSERT_EQUAL(b.v->disks[i].written, b.v->disks[i].flushed);
		world_stop(&b.w);
		bench_start_again(&b);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

static void reads_are_shared_out(void)
{
	struct bench b;
	uint64_t reads[2];
	bench_open(&b, 1, 2, 2);
	for (uint32_t cell = 0; cell < CELLS; cell++)
		CU_ASSERT_EQUAL(bench_put(&b, 0, cell, 1, 0), 0);
	for (uint32_t i = 0; i < 2; i++)
		reads[i] = counter_get(&disk_counters(b.w.set->disks[i]->disk)->reads);
	bench_check(&b);
	for (uint32_t i = 0; i < 2; i++)
		CU_ASSERT(counter_get(&disk_counters(b.w.set->disks[i]->disk)->reads) - reads[i] > CELLS / 4);
	bench_close(&b);
}

/* ---- healing ---- */

static void a_damaged_block_is_healed(void)
{
	struct bench b;
	bench_open(&b, 2, 2, 2);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 7, VOLUME_FUA), 0);
	for (uint32_t disk = 0; disk < 2; disk++)
		for (uint32_t n = 0; n < CELL_BLOCKS; n++) {
			struct sim_file *file = world_disk_file(&b.w, disk + 1);
			uint64_t block = cell_block(&b, disk, 0, 0, n);
			uint32_t healed = world_events(&b.w, "blocks-healed");
			if (n % 2)
				sim_file_break(file, block);
			else
				sim_file_flip(file, block, 1000 + n);
			for (uint32_t i = 0; i < 4; i++) { /* whichever copy is read */
				b.v->disks[disk ^ 1].asked += i % 2 ? 100 : 0;
				CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(0, 0), b.back, CELL_BYTES), 0);
				b.v->disks[disk ^ 1].asked -= i % 2 ? 100 : 0;
				CU_ASSERT(is_all(b.back, 7, CELL_BYTES));
			}
			CU_ASSERT_EQUAL(world_events(&b.w, "blocks-healed"), healed + 1);
			bench_check_copies(&b);
		}
	CU_ASSERT_EQUAL(b.v->disks[0].state, VOLUME_DISK_JOINED);
	bench_close(&b);
}

/* Each copy has damage where the other has none: together they are whole. And a write of part of a block that is damaged. */
static void two_damaged_copies_are_one_whole(void)
{
	struct bench b;
	bench_open(&b, 3, 2, 2);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 7, VOLUME_FUA), 0);
	sim_file_flip(world_disk_file(&b.w, 1), cell_block(&b, 0, 0, 0, 1), 5);
	sim_file_flip(world_disk_file(&b.w, 2), cell_block(&b, 1, 0, 0, 2), 6);
	CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(0, 0), b.back, CELL_BYTES), 0);
	CU_ASSERT(is_all(b.back, 7, CELL_BYTES));
	CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(0, 0), b.back, CELL_BYTES), 0);
	b.v->disks[0].asked += 100;
	CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(0, 0), b.back, CELL_BYTES), 0);
	b.v->disks[0].asked -= 100;
	bench_check_copies(&b);
	for (uint32_t disk = 0; disk < 2; disk++) {
		sim_file_flip(world_disk_file(&b.w, disk + 1), cell_block(&b, disk, 0, 0, 0), 9);
		b.v->disks[disk ^ 1].asked += 100;
		memset(b.data, 7, SECTOR_BYTES);
		CU_ASSERT_EQUAL(world_write(&b.w, b.v, cell_pos(0, 0) + 512, b.data, 512, 0), 0);
		b.v->disks[disk ^ 1].asked -= 100;
		bench_check_copies(&b);
	}
	bench_close(&b);
}

/* One disk has two damaged blocks, of which each of the others can read one; all of them are mended. */
static void three_damaged_copies_are_one_whole(void)
{
	struct bench b;
	struct look l;
	bench_open(&b, 5, 3, 3);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 7, VOLUME_FUA), 0);
	uint64_t bad[3][3];
	for (uint32_t disk = 0; disk < 3; disk++)
		for (uint32_t n = 1; n < 3; n++)
			bad[disk][n] = cell_block(&b, disk, 0, 0, n);
	for (uint32_t n = 1; n < 3; n++) {
		sim_file_flip(world_disk_file(&b.w, 1), bad[0][n], 5);
		sim_file_flip(world_disk_file(&b.w, 1 + n), bad[n][n], 6);
	}
	b.v->disks[1].asked +=
	    50; /* it is asked first for what the first one cannot read, and has the second block alone */
	b.v->disks[2].asked += 100;
	CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(0, 0), b.back, CELL_BYTES), 0);
	CU_ASSERT(is_all(b.back, 7, CELL_BYTES));
	b.v->disks[1].asked -= 50;
	b.v->disks[2].asked -= 100;
	CU_ASSERT_EQUAL(look_at(&b, 0, cell_pos(0, 0), b.back, &l), 0);
	CU_ASSERT_EQUAL(look_at(&b, 1, cell_pos(0, 0), b.back, &l), 0); /* it had been asked, too */
	bench_close(&b);
}

/* Each of them rewrites it, one after the other. */
static void two_readers_heal_one_block(void)
{
	for (uint64_t seed = 300; seed < 320; seed++) {
		struct bench b;
		struct world_request reads[3];
		bench_open(&b, seed, 2, 2);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 7, VOLUME_FUA), 0);
		sim_file_flip(world_disk_file(&b.w, 1), cell_block(&b, 0, 0, 0, 1), 5);
		b.v->disks[1].asked += 100;
		for (uint32_t i = 0; i < array_size(reads); i++)
			bench_request_start(&b, &reads[i], VOLUME_READ, cell_pos(0, 0));
		for (uint32_t i = 0; i < array_size(reads); i++) {
			world_until(&b.w, world_request_is_done, &reads[i]);
			CU_ASSERT_EQUAL(reads[i].res, 0);
		}
		b.v->disks[1].asked -= 100;
		bench_check_copies(&b);
		bench_close(&b);
	}
}

static void a_block_that_is_lost_everywhere_is_an_error(void)
{
	struct bench b;
	bench_open(&b, 4, 2, 2);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 7, VOLUME_FUA), 0);
	for (uint32_t disk = 0; disk < 2; disk++)
		sim_file_flip(world_disk_file(&b.w, disk + 1), cell_block(&b, disk, 0, 0, 1), 5);
	CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(0, 0), b.back, CELL_BYTES), -EIO);
	CU_ASSERT(world_events(&b.w, "block-lost") > 0);
	CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(0, 0) + 2 * BLOCK_BYTES, b.back, BLOCK_BYTES), 0);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 8, 0), 0); /* and writing it mends it */
	bench_check(&b);
	bench_check_copies(&b);
	bench_close(&b);
}

/* ---- failures ---- */

static void a_disk_that_fails_is_marked(void)
{
	static const enum op_kind kinds[] = {OP_WRITE, OP_FLUSH};
	for (uint32_t i = 0; i < 2; i++) {
		struct bench b;
		bench_open(&b, 10 + i, 3, 2);
		bench_change(&b, 60);
		uint32_t disk = bench_disk_of(&b, 0);
		uint64_t complete = b.v->complete_epoch;
		sim_file_fail(world_disk_file(&b.w, disk + 1), kinds[i], 0, EIO);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 99, VOLUME_FUA), 0); /* on the other copy, and durable */
		CU_ASSERT_EQUAL(b.v->disks[disk].state, VOLUME_DISK_STALE);
		CU_ASSERT_FATAL(bench_facts(&b, disk) && bench_facts(&b, disk)->is_stale);
		CU_ASSERT(bench_facts(&b, disk)->since > complete);
		CU_ASSERT(bench_facts(&b, disk)->since <= b.v->epoch);
		CU_ASSERT_EQUAL(world_events(&b.w, "copy-stale"), 1);
		bench_check(&b);
		bench_change(&b, 60);
		CU_ASSERT_EQUAL(world_op(&b.w, b.v, VOLUME_FLUSH, 0, 0, 0), 0);
		world_let_pass(&b.w, 3 * NS_PER_S);
		CU_ASSERT(b.v->complete_epoch >= bench_facts(&b, disk)->since); /* epochs go on without it */
		bench_check(&b);
		bench_check_copies(&b);
		uint64_t since = bench_facts(&b, disk)->since;
		world_stop(&b.w);
		bench_start_again(&b); /* the disk is back, and is not read */
		CU_ASSERT_PTR_NOT_NULL_FATAL(b.v);
		CU_ASSERT_EQUAL(b.v->disks[disk].state, VOLUME_DISK_STALE);
		CU_ASSERT_EQUAL(bench_facts(&b, disk)->since, since);
		bench_check(&b);
		bench_close(&b);
	}
}

/* While the store cannot be reached, nothing that the disk has missed completes, not even with an error; nor is it read. */
static void nothing_completes_before_the_mark(void)
{
	struct bench b;
	struct world_request write, read, flush;
	struct metadata_faults away = {.lost_percent = 0, .delay_max_ns = 20 * NS_PER_S}, here = {0};
	bench_open(&b, 20, 2, 2);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 1, VOLUME_FUA), 0);
	metadata_memory_set_faults(b.w.metadata, &away);
	sim_file_fail(world_disk_file(&b.w, 1), OP_WRITE, 0, EIO);
	memset(b.data, 2, CELL_BYTES);
	bench_request_start(&b, &write, VOLUME_WRITE, cell_pos(0, 0));
	bench_request_start(&b, &read, VOLUME_READ, cell_pos(0, 0));
	world_let_pass(&b.w, 100 * NS_PER_MS);
	bench_request_start(&b, &flush, VOLUME_FLUSH, 0);
	while (!write.is_done) {
		CU_ASSERT_FATAL(sim_step(b.w.sim));
		CU_ASSERT(!(write.is_done || read.is_done || flush.is_done) || bench_facts(&b, 0)->is_stale);
	}
	metadata_memory_set_faults(b.w.metadata, &here);
	world_until(&b.w, world_request_is_done, &read);
	world_until(&b.w, world_request_is_done, &flush);
	CU_ASSERT_EQUAL(write.res | read.res | flush.res, 0);
	CU_ASSERT(is_all(b.back, 2, CELL_BYTES));
	bench_close(&b);
}

static void the_mark_is_tried_until_it_lands(void)
{
	struct bench b;
	struct world_request write;
	struct metadata_faults away = {.lost_percent = 100}, here = {0};
	bench_open(&b, 21, 3, 3);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 1, VOLUME_FUA), 0);
	metadata_memory_set_faults(b.w.metadata, &away);
	sim_file_fail(world_disk_file(&b.w, 1), OP_WRITE, 0, EIO);
	memset(b.data, 2, CELL_BYTES);
	bench_request_start(&b, &write, VOLUME_WRITE, cell_pos(0, 0));
	world_let_pass(&b.w, 5 * NS_PER_S);
	metadata_memory_set_faults(b.w.metadata, &here);
	world_until(&b.w, world_request_is_done, &write);
	CU_ASSERT_EQUAL(write.res, 0);
	CU_ASSERT(bench_facts(&b, 0)->is_stale);
	bench_close(&b);
}

static void the_last_copy_is_never_marked(void)
{
	struct bench b;
	bench_open(&b, 22, 3, 3);
	bench_change(&b, 100);
	for (uint32_t disk = 0; disk < 2; disk++) {
		sim_file_fail(world_disk_file(&b.w, disk + 1), OP_WRITE, 0, EIO);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 0, (uint8_t)(210 + disk), VOLUME_FUA), 0);
		CU_ASSERT(bench_facts(&b, disk)->is_stale);
	}
	sim_file_fail(world_disk_file(&b.w, 3), OP_WRITE, 0, EIO);
	uint8_t before = b.model[0][0];
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 220, VOLUME_FUA), -EIO);
	CU_ASSERT_FALSE(bench_facts(&b, 2)->is_stale);
	CU_ASSERT_TRUE(b.v->is_fenced);
	CU_ASSERT_EQUAL(world_read(&b.w, b.v, 0, b.back, CELL_BYTES), -EIO);
	CU_ASSERT(strstr(b.v->why, "current copy") != NULL);
	CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
	world_stop(&b.w);
	CU_ASSERT_EQUAL_FATAL(world_start(&b.w), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&b.w, "vm1"), 0); /* all three are back: the third one counts */
	b.v = world_head(&b.w, "vm1");
	CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(0, 0), b.back, CELL_BYTES), 0);
	CU_ASSERT(b.back[0] == before || b.back[0] == 220); /* that write was answered with an error: either is true */
	b.model[0][0] = b.back[0];
	bench_check(&b);
	bench_close(&b);
}

/* A disk whose part of the volume the others have not at all: nothing is marked, nothing is served. */
static void each_segment_needs_a_current_copy(void)
{
	struct bench b;
	bench_open(&b, 23, 4, 2);
	memset(b.data, 1, CELL_BYTES);
	for (uint64_t seed = 23; b.v; seed++) { /* until the segments lie on disjoint disks */
		uint64_t first, second;
		CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 1, VOLUME_FUA) | bench_put(&b, 1, 0, 1, VOLUME_FUA), 0);
		CU_ASSERT_EQUAL(chunk_find(b.v, 0, &first) | chunk_find(b.v, 1, &second), PLACED_ON_DISKS);
		if ((first & second) == 0)
			break;
		bench_close(&b);
		bench_open(&b, seed + 1, 4, 2);
	}
	uint64_t disks;
	CU_ASSERT_EQUAL(chunk_find(b.v, 1, &disks), PLACED_ON_DISKS);
	bench_check_copies(&b);
	CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
	world_stop(&b.w);
	for (uint32_t disk = 0; disk < 4; disk++) /* both copies of the second segment are away */
		if (disks >> disk & 1) {
			struct sim_file *file = world_disk_file(&b.w, disk + 1);
			sim_file_move(file, sim_machine_create(b.w.sim, disk % 2 ? "away1" : "away0"));
		}
	CU_ASSERT_EQUAL_FATAL(world_start(&b.w), 0);
	CU_ASSERT_EQUAL(world_attach(&b.w, "vm1"), -EIO);
	CU_ASSERT(strstr(b.w.why, "no current copy") != NULL);
	CU_ASSERT_EQUAL(world_events(&b.w, "copy-stale"), 0);
	bench_close(&b);
}

/* A single segment is enough: its last disk is not marked, though all others have current copies elsewhere. */
static void one_segment_alone_is_enough(void)
{
	struct bench b;
	uint64_t disks[2];
	bench_open(&b, 28, 3, 2);
	for (uint64_t seed = 28;; seed++) { /* until the segments have one disk in common */
		CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 1, VOLUME_FUA) | bench_put(&b, 1, 0, 1, VOLUME_FUA), 0);
		for (uint32_t i = 0; i < 2; i++)
			CU_ASSERT_EQUAL_FATAL(chunk_find(b.v, i, &disks[i]), PLACED_ON_DISKS);
		if (disks[0] != disks[1])
			break;
		bench_close(&b);
		bench_open(&b, seed + 1, 3, 2);
	}
	uint32_t first = (uint32_t)__builtin_ctzll(disks[0] & disks[1]);
	uint32_t second = (uint32_t)__builtin_ctzll(disks[0] & ~disks[1]);
	sim_file_fail(world_disk_file(&b.w, first + 1), OP_WRITE, 0, EIO);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 1, 2, VOLUME_FUA), 0);
	sim_file_fail(world_disk_file(&b.w, second + 1), OP_WRITE, 0, EIO);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 2, 3, VOLUME_FUA), -EIO);
	CU_ASSERT_FALSE(bench_facts(&b, second)->is_stale);
	CU_ASSERT_TRUE(b.v->is_fenced);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.v->why, "of 1 of its segments"));
	bench_close(&b);
}

static void who_is_away_at_the_start_is_marked(void)
{
	struct bench b;
	bench_open(&b, 24, 3, 3);
	bench_change(&b, 100);
	CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
	uint64_t complete = 0;
	world_stop(&b.w);
	sim_file_move(world_disk_file(&b.w, 2), sim_machine_create(b.w.sim, "away"));
	CU_ASSERT_EQUAL_FATAL(world_start(&b.w), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(&b.w, "vm1"), 0);
	b.v = world_head(&b.w, "vm1");
	CU_ASSERT_EQUAL(b.v->disks[1].state, VOLUME_DISK_STALE);
	CU_ASSERT_FATAL(bench_facts(&b, 1)->is_stale);
	CU_ASSERT(bench_facts(&b, 1)->since > complete && bench_facts(&b, 1)->since < b.v->epoch);
	bench_check(&b);
	bench_change(&b, 50);
	bench_check(&b);
	bench_check_copies(&b);
	bench_close(&b);
}

/* What does not fit on one disk changes nothing on the other, and no copy is lost by it. */
static void a_full_disk_costs_no_copy(void)
{
	for (uint32_t larger = 0; larger < 2; larger++) {
		struct bench b;
		int res = 0;
		bench_open_sizes(&b, 25 + larger, larger ? 200 * MIB : 24 * MIB, larger ? 24 * MIB : 200 * MIB);
		for (uint32_t i = 0; i < 4000 && res == 0; i++) {
			memset(b.data, (int)(i % 250 + 1), 256 * KIB);
			res = world_write(&b.w, b.v, i * 256 * KIB, b.data, 256 * KIB, 0);
		}
		CU_ASSERT_EQUAL(res, -ENOSPC);
		CU_ASSERT(world_events(&b.w, "pool-full") > 0);
		for (uint32_t cell = 0; cell < CELLS; cell++) { /* overwriting goes on while there is room */
			res = bench_put(&b, 0, cell, 9, 0);
			CU_ASSERT(res == 0 || res == -ENOSPC);
			struct look l;
			CU_ASSERT_EQUAL(look_at(&b, 0, cell_pos(0, cell), b.data, &l), 0);
			CU_ASSERT_EQUAL(look_at(&b, 1, cell_pos(0, cell), b.back, &l), 0);
			CU_ASSERT_EQUAL(memcmp(b.data, b.back, CELL_BYTES), 0);
		}
		CU_ASSERT_EQUAL(world_op(&b.w, b.v, VOLUME_TRIM, 0, 2 * GIB, 0), 0); /* always works (P7) */
		memset(b.model, 0, sizeof(b.model));
		CU_ASSERT_EQUAL(b.v->disks[0].state, VOLUME_DISK_JOINED);
		CU_ASSERT_EQUAL(b.v->disks[1].state, VOLUME_DISK_JOINED);
		bench_change(&b, 20);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* Many at once, of which some find room on one disk and not on the other: afterwards all copies that count are equal. */
static void a_race_for_the_last_room_leaves_copies_equal(void)
{
	static struct world_request lates[100];
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct bench b;
		struct look l;
		bench_open_sizes(&b, 200 + seed, 24 * MIB, (22 + seed / 4) * MIB);
		for (uint32_t round = 0; round < 20; round++) {
			memset(b.data, (int)round + 1, CELL_BYTES);
			for (uint32_t i = 0; i < array_size(lates); i++)
				bench_request_start(&b, &lates[i], VOLUME_WRITE,
						    (round * array_size(lates) + i) * CELL_BYTES);
			for (uint32_t i = 0; i < array_size(lates); i++) {
				world_until(&b.w, world_request_is_done, &lates[i]);
				CU_ASSERT(lates[i].res == 0 || lates[i].res == -ENOSPC);
			}
		}
		CU_ASSERT(world_events(&b.w, "pool-full") > 0);
		CU_ASSERT_FALSE(b.v->is_fenced);
		uint32_t n_joined =
		    (b.v->disks[0].state == VOLUME_DISK_JOINED) + (b.v->disks[1].state == VOLUME_DISK_JOINED);
		CU_ASSERT(n_joined >= 1);
		for (uint32_t i = 0; i < 20 * array_size(lates) && n_joined == 2; i++) {
			CU_ASSERT_EQUAL(look_at(&b, 0, i * CELL_BYTES, b.data, &l), 0);
			CU_ASSERT_EQUAL(look_at(&b, 1, i * CELL_BYTES, b.back, &l), 0);
			CU_ASSERT_EQUAL(memcmp(b.data, b.back, CELL_BYTES), 0);
		}
		bench_close(&b);
	}
}

static void with_too_few_copies_writes_wait_then_fail(void)
{
	struct bench b;
	struct world_request write;
	bench_open(&b, 27, 3, 3);
	bench_change(&b, 50);
	b.v->entry->facts.min_replicas = 2;
	sim_file_fail(world_disk_file(&b.w, 1), OP_WRITE, 0, EIO);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 1, 0), 0); /* two are left */
	sim_file_fail(world_disk_file(&b.w, 2), OP_WRITE, 0, EIO);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 1, 2, 0), -EIO); /* it was under way: the only copy that is left may have it */
	b.model[0][1] = 2;
	bench_request_start(&b, &write, VOLUME_WRITE, cell_pos(0, 2));
	world_let_pass(&b.w, 15 * NS_PER_S);
	CU_ASSERT_FALSE(write.is_done);
	CU_ASSERT_EQUAL(world_events(&b.w, "copies-too-few"), 1);
	world_until(&b.w, world_request_is_done, &write);
	CU_ASSERT_EQUAL(write.res, -EIO);
	bench_check(&b); /* reads go on */
	bench_request_start(&b, &write, VOLUME_WRITE, cell_pos(0, 2));
	sim_step(b.w.sim);
	volume_fence(b.v, "the test says so"); /* who waits is told */
	world_let_pass(&b.w, NS_PER_S);        /* at once, not when it has waited long enough */
	CU_ASSERT_TRUE(write.is_done);
	CU_ASSERT_EQUAL(write.res, -EIO);
	bench_close(&b);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("copies", NULL, NULL);
	CU_add_test(suite, "every copy gets every change", every_copy_gets_every_change);
	CU_add_test(suite, "reads are shared out", reads_are_shared_out);
	CU_add_test(suite, "a damaged block is healed", a_damaged_block_is_healed);
	CU_add_test(suite, "two damaged copies are one whole", two_damaged_copies_are_one_whole);
	CU_add_test(suite, "three damaged copies are one whole", three_damaged_copies_are_one_whole);
	CU_add_test(suite, "two readers heal one block", two_readers_heal_one_block);
	CU_add_test(suite, "a block that is lost everywhere is an error", a_block_that_is_lost_everywhere_is_an_error);
	CU_add_test(suite, "a disk that fails is marked", a_disk_that_fails_is_marked);
	CU_add_test(suite, "nothing completes before the mark", nothing_completes_before_the_mark);
	CU_add_test(suite, "the mark is tried until it lands", the_mark_is_tried_until_it_lands);
	CU_add_test(suite, "the last copy is never marked", the_last_copy_is_never_marked);
	CU_add_test(suite, "each segment needs a current copy", each_segment_needs_a_current_copy);
	CU_add_test(suite, "one segment alone is enough", one_segment_alone_is_enough);
	CU_add_test(suite, "who is away at the start is marked", who_is_away_at_the_start_is_marked);
	CU_add_test(suite, "a full disk costs no copy", a_full_disk_costs_no_copy);
	CU_add_test(suite, "a race for the last room leaves copies equal",
		    a_race_for_the_last_room_leaves_copies_equal);
	CU_add_test(suite, "with too few copies writes wait, then fail", with_too_few_copies_writes_wait_then_fail);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
