/*
 * test_damage.c: what the scrub of a disk finds damaged is healed from another copy, though nobody has read it: in the live
 * volume and in snapshots, on the head's node and on others, attached or not; and what no copy has is told, and left.
 */
#include "tests/unit/copies_world.h"
#include "tests/unit/remote_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct disk_scrub scrub_of(const struct set_disk *d)
{
	struct disk_scrub s;
	disk_scrub_status(d->disk, &s);
	return s;
}

/* Nothing is being scrubbed, and all that was found is healed, or is not for now. */
static bool scrub_has_ended(void *context)
{
	const struct set_disk *d = context;
	return !scrub_of(d).is_running && !damage_is_healing(d);
}

static void scrub(struct head_world *w, struct set_disk *d)
{
	struct set_command c = order(SET_DISK_SCRUB, d->facts.name);
	CU_ASSERT_EQUAL(world_command(w, &c), 0);
	world_until(w, scrub_has_ended, d);
}

static void bench_scrub(struct bench *b)
{
	for (uint32_t i = 0; i < b->w.n_disks; i++)
		scrub(&b->w, b->w.set->disks[i]);
}

/* Others of the cell may be rotten. */
static void bench_rot(struct bench *b, uint32_t disk, uint32_t cell, uint32_t n)
{
	struct look l;
	(void)look_at(b, disk, cell_pos(0, cell), b->back, &l);
	uint64_t block = pointer_block(l.io.own.pointers[n]);
	CU_ASSERT(block > 0);
	sim_file_flip(world_disk_file(&b->w, disk + 1), block, 100 + cell);
}

/* ---- on one node ---- */

static void what_a_scrub_finds_is_healed(void)
{
	struct bench b;
	bench_open(&b, 1, 2, 2);
	for (uint32_t cell = 0; cell < CELLS; cell++)
		CU_ASSERT_EQUAL(bench_put(&b, 0, cell, (uint8_t)(1 + cell), VOLUME_FUA), 0);
	for (uint32_t n = 0; n < CELL_BLOCKS; n++) {
		bench_rot(&b, 0, 1, n);
		bench_rot(&b, 1, 2, n);
	}
	bench_rot(&b, 0, 40, 3);
	sim_file_break(world_disk_file(&b.w, 2), cell_block(&b, 1, 0, 20, 1));
	uint64_t reads = counter_get(&b.v->counters.reads);
	bench_scrub(&b);
	CU_ASSERT_EQUAL(counter_get(&b.v->counters.reads), reads);
	bench_check_copies(&b);
	CU_ASSERT(world_events(&b.w, "blocks-healed") > 0);
	for (uint32_t i = 0; i < 2; i++) {
		struct disk_scrub s = scrub_of(b.w.set->disks[i]);
		CU_ASSERT(s.bad_blocks >=
			  CELL_BLOCKS + 1); /* with the one that cannot be read its neighbours are not */
		CU_ASSERT_EQUAL(s.healed_blocks, s.bad_blocks);
		CU_ASSERT_EQUAL(s.settled_checksum_errors,
				counter_get(&disk_counters(b.w.set->disks[i]->disk)->checksum_errors));
		CU_ASSERT_EQUAL(b.v->disks[i].state, VOLUME_DISK_JOINED);
	}
	bench_scrub(&b);
	CU_ASSERT_EQUAL(scrub_of(b.w.set->disks[0]).bad_blocks + scrub_of(b.w.set->disks[1]).bad_blocks, 0);
	CU_ASSERT_EQUAL(b.w.set->damage.n, 0);
	bench_close(&b);
}

/* A block that only a snapshot has, and one that it shares with the volume. */
static void snapshots_are_healed(void)
{
	struct bench b;
	bench_open(&b, 2, 3, 3);
	for (uint32_t cell = 0; cell < 4; cell++)
		CU_ASSERT_EQUAL(bench_put(&b, 0, cell, 7, VOLUME_FUA), 0);
	uint64_t block = cell_block(&b, 1, 0, 0, 2);
	CU_ASSERT_EQUAL(world_snapshot(&b.w, "vm1@s"), 0);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 8, VOLUME_FUA), 0);
	sim_file_flip(world_disk_file(&b.w, 2), block, 5);
	bench_rot(&b, 1, 3, 0);
	bench_scrub(&b);
	struct disk_scrub first = scrub_of(b.w.set->disks[1]);
	CU_ASSERT(first.bad_blocks == 3 ||
		  first.bad_blocks == 2); /* each tree that has it, unless it was healed before */
	CU_ASSERT_EQUAL(first.healed_blocks, first.bad_blocks);
	CU_ASSERT_PTR_NOT_NULL(strstr(world_event(&b.w, "blocks-healed"), "vm1"));
	bench_check_copies(&b);
	bench_scrub(&b);
	CU_ASSERT_EQUAL(scrub_of(b.w.set->disks[1]).bad_blocks, 0);
	CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_rollback(&b.w, "vm1@s"), 0);
	CU_ASSERT_EQUAL(world_attach(&b.w, "vm1"), 0);
	b.v = world_head(&b.w, "vm1");
	b.model[0][0] = 7;
	bench_check_copies(&b);
	bench_close(&b);
}

/* The others beside it are healed all the same; and it is not tried for ever. */
static void what_no_copy_has_is_told(void)
{
	struct bench b;
	bench_open(&b, 3, 2, 2);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 7, VOLUME_FUA), 0);
	for (uint32_t n = 0; n < CELL_BLOCKS; n++)
		bench_rot(&b, 0, 0, n);
	struct look l;
	uint64_t block = cell_block(&b, 1, 0, 0, 1);
	sim_file_flip(world_disk_file(&b.w, 2), block, 9);
	scrub(&b.w, b.w.set->disks[0]);
	CU_ASSERT(world_events(&b.w, "block-lost") > 0);
	struct disk_scrub s = scrub_of(b.w.set->disks[0]);
	CU_ASSERT_EQUAL(s.bad_blocks, CELL_BLOCKS);
	CU_ASSERT_EQUAL(s.healed_blocks, CELL_BLOCKS - 1);
	CU_ASSERT_EQUAL(b.w.set->damage.n, 0);
	CU_ASSERT_EQUAL(look_at(&b, 0, cell_pos(0, 0), b.back, &l), -EIO);
	CU_ASSERT_EQUAL(l.io.bad_blocks, 2);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 8, VOLUME_FUA), 0);
	bench_check_copies(&b);
	bench_close(&b);
}

static void one_copy_has_no_other(void)
{
	struct bench b;
	bench_open(&b, 4, 1, 1);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 7, VOLUME_FUA), 0);
	bench_rot(&b, 0, 0, 0);
	scrub(&b.w, b.w.set->disks[0]);
	CU_ASSERT_EQUAL(scrub_of(b.w.set->disks[0]).bad_blocks, 1);
	CU_ASSERT_EQUAL(scrub_of(b.w.set->disks[0]).healed_blocks, 0);
	CU_ASSERT_EQUAL(b.w.set->damage.n, 0);
	bench_close(&b);
}

static bool nothing_waits(void *context)
{
	const struct bench *b = context;
	return b->w.set->damage.n == 0 && !b->w.set->damage.is_busy;
}

/* The only other copy is stale: it is not asked before it is current again. */
static void a_copy_that_comes_back_has_it(void)
{
	struct bench b;
	bench_open(&b, 5, 2, 2);
	for (uint32_t cell = 0; cell < 4; cell++)
		CU_ASSERT_EQUAL(bench_put(&b, 0, cell, 7, VOLUME_FUA), 0);
	sim_file_fail(world_disk_file(&b.w, 2), OP_WRITE, 0, EIO);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 8, VOLUME_FUA), 0);
	CU_ASSERT_EQUAL(b.v->disks[1].state, VOLUME_DISK_STALE);
	bench_rot(&b, 0, 1, 0);
	scrub(&b.w, b.w.set->disks[0]);
	CU_ASSERT_EQUAL(scrub_of(b.w.set->disks[0]).healed_blocks, 0);
	CU_ASSERT_EQUAL(b.w.set->damage.n, 1);
	bench_return(&b, 1);
	world_until(&b.w, all_are_current, &b);
	world_until(&b.w, nothing_waits, &b);
	CU_ASSERT_EQUAL(scrub_of(b.w.set->disks[0]).healed_blocks, 1);
	bench_check_copies(&b);
	bench_close(&b);
}

static bool volume_is_detached(void *context)
{
	return !world_head(context, "vm1");
}

/* The set attaches it for itself, and lets it go again. */
static void what_nobody_has_attached_is_healed(void)
{
	struct bench b;
	bench_open(&b, 6, 2, 2);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 7, VOLUME_FUA), 0);
	bench_rot(&b, 1, 0, 2);
	CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
	scrub(&b.w, b.w.set->disks[1]);
	CU_ASSERT_EQUAL(scrub_of(b.w.set->disks[1]).healed_blocks, 1);
	world_until(&b.w, volume_is_detached, &b.w);
	CU_ASSERT_EQUAL(world_attach(&b.w, "vm1"), 0);
	b.v = world_head(&b.w, "vm1");
	bench_check_copies(&b);
	bench_close(&b);
}

/* Clients overwrite, trim and take snapshots while it is found and healed: nothing newer is lost. */
static void clients_go_on_meanwhile(void)
{
	for (uint64_t seed = 0; seed < 12; seed++) {
		struct bench b;
		struct set_command c;
		bench_open(&b, 100 + seed, 2, 2);
		for (uint32_t cell = 0; cell < CELLS; cell++)
			CU_ASSERT_EQUAL(bench_put(&b, 0, cell, (uint8_t)(1 + cell), VOLUME_FUA), 0);
		for (uint32_t cell = 0; cell < CELLS; cell++)
			for (uint32_t n = 0; n < CELL_BLOCKS; n++)
				bench_rot(&b, cell % 2, cell, n);
		for (uint32_t i = 0; i < 2; i++) {
			c = order(SET_DISK_SCRUB, b.w.set->disks[i]->facts.name);
			CU_ASSERT_EQUAL(world_command(&b.w, &c), 0);
		}
		for (uint32_t i = 0; i < 6; i++) {
			bench_change(&b, 5);
			if (i == seed % 6)
				CU_ASSERT_EQUAL(world_snapshot(&b.w, "vm1@s"), 0);
		}
		for (uint32_t i = 0; i < 2; i++)
			world_until(&b.w, scrub_has_ended, b.w.set->disks[i]);
		world_until(&b.w, nothing_waits, &b);
		bench_check_copies(&b);
		bench_check(&b);
		CU_ASSERT_EQUAL(world_events(&b.w, "block-lost"), 0);
		bench_close(&b);
	}
}

/* What only the journal holds and does not match its sum is a write that a crash has cut short: no such rot here. */
static void bench_checkpoint(struct bench *b)
{
	for (uint32_t i = 0; i < b->w.n_disks; i++)
		disk_checkpoint(b->w.set->disks[i]->disk);
	world_let_pass(&b->w, NS_PER_S);
}

/* It stops, or is killed, in the middle of it. */
static void the_set_ends_meanwhile(void)
{
	for (uint64_t seed = 0; seed < 16; seed++) {
		struct bench b;
		bench_open(&b, 200 + seed, 2, 2);
		for (uint32_t cell = 0; cell < CELLS; cell++)
			CU_ASSERT_EQUAL(bench_put(&b, 0, cell, (uint8_t)(1 + cell), VOLUME_FUA), 0);
		bench_checkpoint(&b);
		for (uint32_t cell = 0; cell < CELLS; cell++)
			bench_rot(&b, 0, cell, cell % CELL_BLOCKS);
		struct set_command c = order(SET_DISK_SCRUB, b.w.set->disks[0]->facts.name);
		CU_ASSERT_EQUAL(world_command(&b.w, &c), 0);
		world_let_pass(&b.w, seed / 2 * 300 * NS_PER_US);
		if (seed % 2)
			world_stop(&b.w);
		else
			world_crash(&b.w, SIM_KILL);
		bench_start_again(&b);
		scrub(&b.w, b.w.set->disks[0]);
		/* where nothing was written: now it is known where the rest lies */
		CU_ASSERT_EQUAL(world_read(&b.w, b.v, cell_pos(1, 0), b.back, CELL_BYTES), 0);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* ---- on several nodes ---- */

/* The place of the first block of a segment on the node's own disk. */
static uint64_t place_of(struct head_world *w, struct set_disk *d, const struct uuid *volume, uint64_t tree,
			 uint64_t segment, uint8_t *out)
{
	struct look l = {.io = {.op = DISK_READ, .first = segment * SEGMENT_BLOCKS}, .iov = {out, BLOCK_BYTES}};
	l.res = look_ask_at(w, d, volume, tree, &l);
	CU_ASSERT_EQUAL(l.res, 0);
	return pointer_block(l.io.own.pointers[0]);
}

/* Is the block whole there, and this? */
static bool has_there(struct head_world *w, const char *disk, const char *volume, uint64_t tree, uint8_t value)
{
	uint8_t *out = world_memory(BLOCK_BYTES);
	struct look l = {.io = {.op = DISK_READ, .first = 0}, .iov = {out, BLOCK_BYTES}};
	const struct uuid *uuid = &set_volume_find(w->set, volume)->facts.uuid;
	bool is_so = look_ask_at(w, disk_of(w, disk), uuid, tree, &l) == 0 && is_all(out, value, BLOCK_BYTES);
	free(out);
	return is_so;
}

/* The disk is another node's than the head. */
static void the_head_is_elsewhere(void)
{
	struct cluster c;
	cluster_open(&c, 7, 3);
	struct head_world *head = &c.nodes[0], *far = &c.nodes[1];
	struct set_disk *d = disk_of(far, "n2-d11");
	const struct uuid uuid = *volume_uuid(volume_with_copies(head, "v", 3));
	write_one(&c, head, "v", 0, 3);
	uint64_t old = place_of(far, d, &uuid, 1, 0, c.back);
	CU_ASSERT_EQUAL(world_snapshot(head, "v@s"), 0);
	uint64_t snapshot = snapshot_find(set_volume_find(head->set, "v"), "s")->facts.tree;
	write_one(&c, head, "v", 0, 4);
	CU_ASSERT_EQUAL(world_op(head, world_head(head, "v"), VOLUME_FLUSH, 0, 0, 0), 0);
	uint64_t now = place_of(far, d, &uuid, 1, 0, c.back);
	CU_ASSERT(now != old);
	sim_file_flip(world_disk_file(far, 11), old, 1);
	sim_file_flip(world_disk_file(far, 11), now, 2);
	scrub(far, d);
	CU_ASSERT_EQUAL(scrub_of(d).bad_blocks, 2);
	CU_ASSERT_EQUAL(scrub_of(d).healed_blocks, 2);
	CU_ASSERT(has_there(far, "n2-d11", "v", 1, 4) && has_there(far, "n2-d11", "v", snapshot, 3));
	CU_ASSERT_EQUAL(world_events(head, "blocks-healed"), 2);

	/* the head goes to a third node, which is asked then */
	sim_file_flip(world_disk_file(far, 11), now, 2);
	struct set_command move = order_other(SET_VOLUME_MOVE, "v", "n3");
	CU_ASSERT_EQUAL(world_command(head, &move), 0);
	let_settle(&c);
	scrub(far, d);
	world_let_pass(far, 10 * NS_PER_S);
	CU_ASSERT(has_there(far, "n2-d11", "v", 1, 4));
	CU_ASSERT_EQUAL(world_events(head, "blocks-healed"), 3);
	cluster_close(&c);
}

/* Nobody can be asked for a while, and the volume is attached by nobody: it waits, and is healed in the end. */
static void the_head_is_away(void)
{
	struct cluster c;
	cluster_open(&c, 8, 3);
	struct head_world *head = &c.nodes[0], *far = &c.nodes[2];
	struct set_disk *d = disk_of(far, "n3-d21");
	const struct uuid uuid = *volume_uuid(volume_with_copies(head, "v", 3));
	write_one(&c, head, "v", 0, 3);
	CU_ASSERT_EQUAL(world_op(head, world_head(head, "v"), VOLUME_FLUSH, 0, 0, 0), 0);
	uint64_t block = place_of(far, d, &uuid, 1, 0, c.back);
	sim_file_flip(world_disk_file(far, 21), block, 1);
	world_disconnect(far, head);
	scrub(far, d);
	CU_ASSERT_EQUAL(scrub_of(d).healed_blocks, 0);
	CU_ASSERT_EQUAL(far->set->damage.n, 1);
	world_connect(far, head);
	world_let_pass(far, 30 * NS_PER_S);
	CU_ASSERT_EQUAL(scrub_of(d).healed_blocks, 1);
	CU_ASSERT(has_there(far, "n3-d21", "v", 1, 3));

	sim_file_flip(world_disk_file(far, 21), block, 1);
	CU_ASSERT_EQUAL(world_detach(head, "v"), 0);
	let_settle(&c);
	scrub(far, d);
	world_let_pass(far, 60 * NS_PER_S);
	CU_ASSERT_EQUAL(scrub_of(d).healed_blocks, 1);
	CU_ASSERT(has_there(far, "n3-d21", "v", 1, 3));
	CU_ASSERT_PTR_NULL(only_head(&c, "v")); /* the set that attached it for that has let it go */
	cluster_close(&c);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("damage", NULL, NULL);
	CU_add_test(suite, "what a scrub finds is healed", what_a_scrub_finds_is_healed);
	CU_add_test(suite, "snapshots are healed", snapshots_are_healed);
	CU_add_test(suite, "what no copy has is told", what_no_copy_has_is_told);
	CU_add_test(suite, "one copy has no other", one_copy_has_no_other);
	CU_add_test(suite, "a copy that comes back has it", a_copy_that_comes_back_has_it);
	CU_add_test(suite, "what nobody has attached is healed", what_nobody_has_attached_is_healed);
	CU_add_test(suite, "clients go on meanwhile", clients_go_on_meanwhile);
	CU_add_test(suite, "the set ends meanwhile", the_set_ends_meanwhile);
	CU_add_test(suite, "the head is elsewhere", the_head_is_elsewhere);
	CU_add_test(suite, "the head is away", the_head_is_away);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
