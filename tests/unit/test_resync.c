/*
 * test_resync.c: disks that come back take over what they have missed, whatever fails meanwhile.
 */
#include "tests/unit/copies_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void a_disk_that_is_back_takes_over_what_it_missed(void)
{
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct bench b;
		bench_open(&b, 300 + seed, 3, 2 + seed % 2);
		b.w.cache_bytes = 0;
		bench_change(&b, 100);
		world_let_pass(&b.w, 3 * NS_PER_S);
		uint32_t disk = bench_disk_of(&b, 0);
		sim_file_fail(world_disk_file(&b.w, disk + 1), OP_WRITE, 0, EIO);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 1, 77, 0), 0);
		bench_change(&b, 20);
		bench_return(&b, disk);
		world_until(&b.w, all_are_current, &b);
		CU_ASSERT_EQUAL(b.v->disks[disk].state, VOLUME_DISK_JOINED);
		CU_ASSERT_EQUAL(world_events(&b.w, "copy-current"), 1);
		bench_check(&b);
		bench_check_copies(&b);
		bench_change(&b, 30); /* and it is one like the others */
		bench_check_copies(&b);
		world_crash(&b.w, SIM_POWER_LOSS);
		bench_start_again(&b);
		CU_ASSERT_EQUAL(b.v->disks[disk].state, VOLUME_DISK_JOINED);
		bench_close(&b);
	}
}

/* The moment that it counts, all of it is durable there. */
static void what_it_took_over_outlives_a_power_loss(void)
{
	for (uint64_t seed = 310; seed < 320; seed++) {
		struct bench b;
		bench_open(&b, seed, 2, 2);
		bench_change(&b, 50);
		sim_file_fail(world_disk_file(&b.w, 2), OP_WRITE, 0, EIO);
		bench_change(&b, 150);
		CU_ASSERT_EQUAL(world_op(&b.w, b.v, VOLUME_FLUSH, 0, 0, 0), 0);
		bench_return(&b, 1);
		world_until(&b.w, all_are_current, &b);
		struct volume_record record;
		CU_ASSERT_FATAL(disk_volume(b.w.set->disks[1]->disk, volume_uuid(b.v), &record));
		CU_ASSERT(record.complete_epoch >= b.v->complete_epoch); /* [JOINFLUSH] */
		world_crash(&b.w, SIM_POWER_LOSS);
		bench_start_again(&b);
		CU_ASSERT_EQUAL(b.v->disks[1].state, VOLUME_DISK_JOINED);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* It copies what was missed, not what is there. */
static void what_it_has_is_not_copied_again(void)
{
	struct bench b;
	bench_open(&b, 320, 2, 2);
	memset(b.data, 5, MIB);
	for (uint64_t i = 0; i < 24; i++)
		CU_ASSERT_EQUAL(world_write(&b.w, b.v, i * MIB, b.data, MIB, 0), 0);
	CU_ASSERT_EQUAL(world_op(&b.w, b.v, VOLUME_FLUSH, 0, 0, 0), 0);
	world_let_pass(&b.w, 3 * NS_PER_S);
	sim_file_fail(world_disk_file(&b.w, 2), OP_WRITE, 0, EIO);
	memset(b.data, 6, MIB);
	CU_ASSERT_EQUAL(world_write(&b.w, b.v, 7 * MIB, b.data, 256 * KIB, 0), 0);
	bench_return(&b, 1);
	uint64_t before = counter_get(&disk_counters(b.w.set->disks[1]->disk)->write_bytes);
	world_until(&b.w, all_are_current, &b);
	uint64_t copied = counter_get(&disk_counters(b.w.set->disks[1]->disk)->write_bytes) - before;
	CU_ASSERT(copied <= MIB);
	for (uint32_t disk = 0; disk < 2; disk++) {
		struct look l;
		CU_ASSERT_EQUAL(look_at(&b, disk, 7 * MIB, b.back, &l), 0);
		CU_ASSERT(is_all(b.back, 6, CELL_BYTES));
		CU_ASSERT_EQUAL(look_at(&b, disk, 9 * MIB, b.back, &l), 0);
		CU_ASSERT(is_all(b.back, 5, CELL_BYTES));
	}
	bench_close(&b);
}

/* Clients go on meanwhile, and what they write is on both; snapshots end it, and it begins again. */
static void clients_go_on_while_it_does(void)
{
	for (uint64_t seed = 0; seed < 10; seed++) {
		struct bench b;
		struct world_request late;
		bench_open(&b, 340 + seed, 3, 3);
		bench_change(&b, 150);
		sim_file_fail(world_disk_file(&b.w, 3), OP_WRITE, 0, EIO);
		bench_change(&b, 150);
		CU_ASSERT_EQUAL(world_snapshot(&b.w, "vm1@away"), 0);
		bench_change(&b, 50);
		bench_return(&b, 2);
		for (uint32_t i = 0; !all_are_current(&b) && i < 2000; i++) {
			uint32_t cell = (uint32_t)(sim_split(&b.random) % CELLS);
			memset(b.data, (int)(i % 250 + 1), CELL_BYTES);
			bench_request_start(&b, &late, VOLUME_WRITE, cell_pos(0, cell));
			b.model[0][cell] = (uint8_t)(i % 250 + 1);
			for (uint32_t k = 0; k < 20 && !late.is_done; k++)
				sim_step(b.w.sim);
			world_until(&b.w, world_request_is_done, &late);
			CU_ASSERT_EQUAL(late.res, 0);
			if (i == 3 + seed)
				CU_ASSERT_EQUAL(world_snapshot(&b.w, "vm1@meanwhile"), 0);
		}
		world_until(&b.w, all_are_current, &b);
		bench_check(&b);
		bench_check_copies(&b);
		CU_ASSERT_PTR_NOT_NULL(disk_tree_find(b.w.set->disks[2]->disk, volume_uuid(b.v),
						      snapshot_find(b.v->entry, "away")->facts.tree));
		bench_close(&b);
	}
}

static void a_disk_that_fails_again_is_stale_as_before(void)
{
	for (uint32_t skip = 0; skip < 40; skip++) {
		struct bench b;
		bench_open(&b, 360, 2, 2);
		bench_change(&b, 100);
		sim_file_fail(world_disk_file(&b.w, 2), OP_WRITE, 0, EIO);
		bench_change(&b, 100);
		uint64_t since = bench_facts(&b, 1)->since;
		bench_return(&b, 1);
		sim_file_fail(world_disk_file(&b.w, 2), skip % 2 ? OP_WRITE : OP_FLUSH, skip / 2, EIO);
		world_let_pass(&b.w, 200 * NS_PER_MS);
		bench_change(&b, 10); /* no client is told of it */
		bool was_current = world_events(&b.w, "copy-current") > 0;
		uint64_t since_now = bench_facts(&b, 1)->since;
		CU_ASSERT(!bench_facts(&b, 1)->is_stale || (was_current ? since_now > since : since_now == since));
		bench_check(&b);
		if (b.w.set->disks[1]->state == SET_DISK_FAILED)
			bench_return(&b, 1);
		sim_file_fail(world_disk_file(&b.w, 2), OP_WRITE, 0, 0);
		sim_file_fail(world_disk_file(&b.w, 2), OP_FLUSH, 0, 0);
		world_until(&b.w, all_are_current, &b);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* ---- the outcome of SWITCH ---- */

/* What the store says of a disk, whatever the head takes for true. */
static bool store_says_stale(struct bench *b, uint32_t disk)
{
	char uuid[UUID_TEXT_BYTES], key[64], why[WHY_BYTES];
	struct volume_facts facts = {0};
	uuid_to_text(volume_uuid(b->v), uuid);
	text_print(key, sizeof(key), VOLUME_KEY, uuid);
	char *value = world_get(&b->w, key);
	CU_ASSERT_EQUAL_FATAL(volume_from_json(uuid, value, &facts, why), 0);
	bool is_stale = volume_facts_disk(&facts, &b->w.set->disks[disk]->facts.uuid)->is_stale;
	volume_facts_clear(&facts);
	free(value);
	return is_stale;
}

static bool is_switching(void *context)
{
	return resync_is_switching(((struct bench *)context)->v);
}

/* The second disk has sent to be recorded as current, and from now on nothing is heard of the store. */
static void bench_open_in_doubt(struct bench *b, uint64_t seed)
{
	bench_open(b, seed, 2, 2);
	bench_change(b, 100);
	sim_file_fail(world_disk_file(&b->w, 2), OP_WRITE, 0, EIO);
	bench_change(b, 50);
	bench_return(b, 1);
	world_until(&b->w, is_switching, b);
	world_hide_store(&b->w, true);
}

static void in_doubt_the_disk_counts(void)
{
	for (uint64_t seed = 400; seed < 424; seed++) {
		struct bench b;
		struct world_request write;
		bench_open_in_doubt(&b, seed);
		world_let_pass(&b.w, seed % 3 * NS_PER_S);
		sim_file_fail(world_disk_file(&b.w, 2), OP_WRITE, 0, EIO);
		b.model[0][0] = 201;
		memset(b.data, 201, CELL_BYTES);
		bench_request_start(&b, &write, VOLUME_WRITE, cell_pos(0, 0));
		world_let_pass(&b.w, 5 * NS_PER_S);
		CU_ASSERT_FALSE(write.is_done); /* the record may say that this disk has all */
		world_hide_store(&b.w, false);
		world_until(&b.w, world_request_is_done, &write);
		CU_ASSERT_EQUAL(write.res, 0);
		CU_ASSERT(store_says_stale(&b, 1));
		world_let_pass(&b.w, 5 * NS_PER_S);
		CU_ASSERT(store_says_stale(&b, 1));
		CU_ASSERT(bench_facts(&b, 1)->is_stale);
		bench_return(&b, 1);
		world_until(&b.w, all_are_current, &b);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

static void in_doubt_clients_go_on(void)
{
	for (uint64_t seed = 430; seed < 440; seed++) {
		struct bench b;
		bench_open_in_doubt(&b, seed);
		bench_change(&b, 20);
		world_hide_store(&b.w, false);
		world_until(&b.w, all_are_current, &b);
		CU_ASSERT_EQUAL(b.v->disks[1].state, VOLUME_DISK_JOINED);
		CU_ASSERT_EQUAL(world_events(&b.w, "copy-current"), 1);
		CU_ASSERT_EQUAL(world_events(&b.w, "resync-failed"), 0);
		CU_ASSERT_FALSE(store_says_stale(&b, 1));
		bench_change(&b, 20);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* The transaction is carried out twice, refused the second time, and the record cannot be read: it may say either. */
static void in_doubt_when_refused(void)
{
	struct metadata_faults faults = {.doubled_percent = 100, .unread_percent = 100};
	for (uint64_t seed = 450; seed < 460; seed++) {
		struct bench b;
		bench_open(&b, seed, 2, 2);
		bench_change(&b, 100);
		sim_file_fail(world_disk_file(&b.w, 2), OP_WRITE, 0, EIO);
		bench_change(&b, 50);
		bench_return(&b, 1);
		world_until(&b.w, is_switching, &b);
		metadata_memory_set_faults(b.w.metadata, &faults);
		world_let_pass(&b.w, NS_PER_S);
		CU_ASSERT(resync_is_switching(b.v));
		bench_change(&b, 20);
		world_hide_store(&b.w, false);
		world_until(&b.w, all_are_current, &b);
		CU_ASSERT_EQUAL(world_events(&b.w, "copy-current"), 1);
		CU_ASSERT_EQUAL(world_events(&b.w, "resync-failed"), 0);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* Nobody is left to break a promise to: the end does not wait for the store. */
static void in_doubt_the_daemon_can_end(void)
{
	for (uint64_t seed = 440; seed < 450; seed++) {
		struct bench b;
		bench_open_in_doubt(&b, seed);
		bench_change(&b, 5);
		world_stop(&b.w);
		world_hide_store(&b.w, false);
		bench_start_again(&b);
		world_until(&b.w, all_are_current, &b);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* ---- sources, and turns ---- */

/* The disk itself has what the model has of a segment. */
static void bench_check_segment_on(struct bench *b, uint32_t disk, uint32_t segment)
{
	struct look l;
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		CU_ASSERT_EQUAL(look_at(b, disk, cell_pos(segment, cell), b->back, &l), 0);
		CU_ASSERT(is_all(b->back, b->model[segment][cell], CELL_BYTES));
	}
}

/* A block cannot be read from the first source: there is another. */
static void a_bad_source_is_turned_away(void)
{
	for (uint64_t seed = 460; seed < 464; seed++) {
		struct bench b;
		bench_open(&b, seed, 3, 3);
		bench_change(&b, 100);
		sim_file_fail(world_disk_file(&b.w, 3), OP_WRITE, 0, EIO);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 9, 91, VOLUME_FUA), 0);
		CU_ASSERT_EQUAL(bench_put(&b, 1, 9, 92, VOLUME_FUA), 0);
		sim_file_flip(world_disk_file(&b.w, 1), cell_block(&b, 0, 0, 9, 2), 77);
		sim_file_flip(world_disk_file(&b.w, 2), cell_block(&b, 1, 1, 9, 3), 78);
		bench_return(&b, 2);
		world_until(&b.w, all_are_current, &b);
		CU_ASSERT_EQUAL(world_events(&b.w, "resync-blocked"), 0);
		for (uint32_t segment = 0; segment < 2; segment++)
			bench_check_segment_on(&b, 2, segment);
		bench_check(&b);
		bench_close(&b);
	}
}

/* While pieces of the segment before are under way: they are not forgotten. */
static void what_lies_before_a_bad_block_is_copied(void)
{
	for (uint64_t seed = 480; seed < 500; seed++) {
		struct bench b;
		bench_open(&b, seed, 3, 3);
		bench_change(&b, 40);
		sim_file_fail(world_disk_file(&b.w, 3), OP_WRITE, 0, EIO);
		for (uint32_t cell = 0; cell < CELLS; cell++)
			CU_ASSERT_EQUAL(bench_put(&b, 0, cell, (uint8_t)(100 + cell), 0), 0);
		CU_ASSERT_EQUAL(bench_put(&b, 1, 0, 92, VOLUME_FUA), 0);
		sim_file_flip(world_disk_file(&b.w, 1), cell_block(&b, 0, 1, 0, 1), 78);
		bench_return(&b, 2);
		world_until(&b.w, all_are_current, &b);
		bench_check_segment_on(&b, 2, 0);
		bench_close(&b);
	}
}

static bool has_failed(void *context)
{
	return world_events(context, "resync-blocked") > 0;
}

/* One stale disk lacks a block that nobody has any more; the other, whose turn comes after, becomes current. */
static void one_that_cannot_keeps_none_from_it(void)
{
	struct bench b;
	char told[80];
	bench_open(&b, 470, 4, 2);
	bench_change(&b, 100);
	uint64_t disks[2];
	for (uint32_t segment = 0; segment < 2; segment++)
		CU_ASSERT_EQUAL_FATAL(chunk_find(b.v, segment, &disks[segment]), PLACED_ON_DISKS);
	CU_ASSERT_FATAL(disks[0] != disks[1]);
	uint32_t lost = (disks[0] & ~disks[1]) < (disks[1] & ~disks[0]) ? 0 : 1; /* segment */
	uint32_t first = (uint32_t)__builtin_ctzll(disks[lost] & ~disks[1 - lost]);
	uint32_t second = (uint32_t)__builtin_ctzll(disks[1 - lost] & ~disks[lost]);
	sim_file_fail(world_disk_file(&b.w, first + 1), OP_WRITE, 0, EIO);
	sim_file_fail(world_disk_file(&b.w, second + 1), OP_WRITE, 0, EIO);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 9, 91, VOLUME_FUA), 0);
	CU_ASSERT_EQUAL(bench_put(&b, 1, 9, 92, VOLUME_FUA), 0);
	for (uint32_t disk = 0; disk < 4; disk++)
		if (disk != first && disks[lost] >> disk & 1)
			sim_file_flip(world_disk_file(&b.w, disk + 1), cell_block(&b, disk, lost, 9, 2), 77);
	bench_return(&b, first);
	bench_return(&b, second);
	world_until(&b.w, has_failed, &b.w);
	world_let_pass(&b.w, 10 * NS_PER_S);
	CU_ASSERT(bench_facts(&b, first)->is_stale);
	CU_ASSERT_FALSE(bench_facts(&b, second)->is_stale);
	text_print(told, sizeof(told), "4 KiB at offset %" PRIu64 " cannot be read",
		   cell_pos(lost, 9) + 2 * BLOCK_BYTES);
	CU_ASSERT_PTR_NOT_NULL(strstr(world_event(&b.w, "resync-blocked"), told));
	CU_ASSERT_EQUAL(bench_put(&b, lost, 9, 93, 0), 0); /* written anew, it is no hindrance any more */
	world_until(&b.w, all_are_current, &b);
	bench_check(&b);
	bench_check_copies(&b);
	bench_close(&b);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("resync", NULL, NULL);
	CU_add_test(suite, "a disk that is back takes over what it missed",
		    a_disk_that_is_back_takes_over_what_it_missed);
	CU_add_test(suite, "what it took over outlives a power loss", what_it_took_over_outlives_a_power_loss);
	CU_add_test(suite, "what it has is not copied again", what_it_has_is_not_copied_again);
	CU_add_test(suite, "clients go on while it does", clients_go_on_while_it_does);
	CU_add_test(suite, "a disk that fails again is stale as before", a_disk_that_fails_again_is_stale_as_before);
	CU_add_test(suite, "in doubt the disk counts", in_doubt_the_disk_counts);
	CU_add_test(suite, "in doubt clients go on", in_doubt_clients_go_on);
	CU_add_test(suite, "in doubt the daemon can end", in_doubt_the_daemon_can_end);
	CU_add_test(suite, "in doubt when refused, too", in_doubt_when_refused);
	CU_add_test(suite, "a bad source is turned away", a_bad_source_is_turned_away);
	CU_add_test(suite, "what lies before a bad block is copied", what_lies_before_a_bad_block_is_copied);
	CU_add_test(suite, "one that cannot keeps none from it", one_that_cannot_keeps_none_from_it);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
