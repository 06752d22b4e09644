/*
 * test_replicas.c: the number of copies of a volume is changed while clients write, and while nobody does; through crashes
 * at any point; and what was placed with too few gets the rest when there are disks for it.
 */
#include "tests/unit/moves_world.h"
#include "volumes/head/move_internal.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int bench_set_replicas(struct bench *b, uint32_t replicas)
{
	struct set_command c = order(SET_VOLUME_SET, "vm1");
	c.replicas = replicas;
	return world_command(&b->w, &c);
}

/* As many copies of each segment as there are to be, all current, and the record knows it. */
static bool copies_are_even(void *context)
{
	struct bench *b = context;
	const struct volume *v = b->v;
	const struct volume_facts *f = &v->entry->facts;
	for (uint32_t i = 0; i < v->layout.n; i++)
		if (volume_good(v, v->layout.sets[i].disks) != v->layout.sets[i].disks ||
		    (uint32_t)__builtin_popcountll(v->layout.sets[i].disks) != f->replicas)
			return false;
	return !f->is_uneven && !v->leave && !v->move && !v->resync;
}

/* Of data of the live tree, on all disks. */
static uint64_t bench_all_blocks(struct bench *b)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < b->w.n_disks; i++)
		n += bench_blocks(b, i);
	return n;
}

/* To any number from any other; with a snapshot, whose copies go along. */
static void the_number_goes_up_and_down(void)
{
	for (uint64_t seed = 0; seed < 48; seed++) {
		struct bench b;
		uint32_t before = 1 + seed % 4, after = 1 + seed / 4 % 4;
		if (before == after)
			continue;
		bench_open(&b, 100 + seed, 4, before);
		bench_change(&b, 100);
		if (seed >= 16)
			bench_snapshot(&b, "vm1@before");
		bench_change(&b, 20);
		uint64_t n_blocks = bench_all_blocks(&b) / before;
		CU_ASSERT_EQUAL_FATAL(bench_set_replicas(&b, after), 0);
		CU_ASSERT_EQUAL(bench_set_replicas(&b, after), 0); /* P6 */
		if (seed < 16) {
			world_until(&b.w, copies_are_even, &b);
			CU_ASSERT_EQUAL(bench_all_blocks(&b), n_blocks * after);
		}
		for (uint32_t n = 0; n < 20000 && !copies_are_even(&b); n++)
			bench_change_one(&b);
		CU_ASSERT_TRUE_FATAL(copies_are_even(&b));
		CU_ASSERT_EQUAL(world_events(&b.w, "copy-stale"), 0);
		bench_check(&b);
		bench_check_copies(&b);
		world_stop(&b.w);
		bench_start_again(&b);
		CU_ASSERT_TRUE(copies_are_even(&b));
		bench_check(&b);
		bench_check_copies(&b);
		if (seed >= 16)
			CU_ASSERT_EQUAL(bench_wrong(&b, bench_export(&b, "vm1@before"), b.kept), 0);
		bench_close(&b);
	}
}

/* One that had two, and has one, goes on as one of several: any of its disks may fail when it has two again. */
static void one_copy_and_two_again(void)
{
	struct bench b;
	bench_open(&b, 300, 2, 2);
	bench_change(&b, 100);
	CU_ASSERT_EQUAL_FATAL(bench_set_replicas(&b, 1), 0);
	world_until(&b.w, copies_are_even, &b);
	world_crash(&b.w, SIM_KILL);
	bench_start_again(&b);
	bench_check(&b);
	CU_ASSERT_EQUAL_FATAL(bench_set_replicas(&b, 2), 0);
	world_until(&b.w, copies_are_even, &b);
	sim_file_fail(world_disk_file(&b.w, 1), OP_WRITE, 0, EIO);
	bench_change(&b, 60);
	CU_ASSERT_EQUAL(world_events(&b.w, "copy-stale"), 1);
	bench_check(&b);
	bench_close(&b);
}

/* A disk fails right after a volume with one copy has got its second: nothing is lost, no client is told. */
static void the_second_copy_counts(void)
{
	for (uint32_t disk = 0; disk < 2; disk++) {
		struct bench b;
		bench_open(&b, 310 + disk, 2, 1);
		bench_change(&b, 100);
		CU_ASSERT_EQUAL_FATAL(bench_set_replicas(&b, 2), 0);
		world_until(&b.w, copies_are_even, &b);
		sim_file_fail(world_disk_file(&b.w, disk + 1), OP_WRITE, 0, EIO);
		bench_change(&b, 60);
		CU_ASSERT_EQUAL(b.v->disks[disk].state, VOLUME_DISK_STALE);
		bench_check(&b);
		world_crash(&b.w, SIM_POWER_LOSS);
		bench_close(&b);
	}
}

/* What is not durable may go with the power: it was flushed before. */
static void a_crash_anywhere_is_gone_on_from(void)
{
	for (uint64_t seed = 0; seed < 160; seed++) {
		struct bench b;
		uint32_t before = 1 + seed % 3, after = 1 + (seed + 1 + seed / 3 % 2) % 3;
		bench_open(&b, 400 + seed, 3, before);
		bench_change(&b, 80);
		if (seed % 2 == 0)
			bench_snapshot(&b, "vm1@before");
		CU_ASSERT_EQUAL(world_op(&b.w, b.v, VOLUME_FLUSH, 0, 0, 0), 0);
		struct world_order set = {.command = order(SET_VOLUME_SET, "vm1")};
		set.command.replicas = after;
		world_order_start(&b.w, &set);
		for (uint64_t n = 0; n < 13 * seed; n++)
			sim_step(b.w.sim);
		bool was_told = set.is_done;
		world_crash(&b.w, seed % 4 < 2 ? SIM_POWER_LOSS : SIM_KILL);
		bench_start_again(&b);
		CU_ASSERT(!was_told || b.v->entry->facts.replicas == after);
		bench_check(&b);
		bench_change(&b, 10);
		world_until(&b.w, copies_are_even, &b);
		bench_check(&b);
		bench_check_copies(&b);
		if (seed % 2 == 0)
			CU_ASSERT_EQUAL(bench_wrong(&b, bench_export(&b, "vm1@before"), b.kept), 0);
		world_stop(&b.w);
		bench_start_again(&b);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

static bool record_is_even(void *context)
{
	const struct set_volume *entry = set_volume_find(((struct bench *)context)->w.set, "vm1");
	return !entry->facts.is_uneven && !entry->head;
}

/* The set attaches it for that, and nobody else can tell. */
static void a_volume_that_nobody_uses_gets_them_too(void)
{
	for (uint32_t before = 1; before <= 3; before++) {
		struct bench b;
		bench_open(&b, 600 + before, 3, before);
		bench_change(&b, 100);
		CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
		CU_ASSERT_EQUAL_FATAL(bench_set_replicas(&b, before == 3 ? 1 : before + 1), 0);
		world_until(&b.w, record_is_even, &b);
		CU_ASSERT_EQUAL(world_attach(&b.w, "vm1"), 0);
		b.v = world_head(&b.w, "vm1");
		CU_ASSERT_TRUE(copies_are_even(&b));
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

static void what_cannot_be_is_refused(void)
{
	struct bench b;
	bench_open(&b, 620, 2, 2);
	CU_ASSERT_EQUAL(bench_set_replicas(&b, 3), -ENOSPC);
	CU_ASSERT(strstr(b.w.why, "failure domains") != NULL);
	CU_ASSERT_EQUAL(bench_set_replicas(&b, 6), -EINVAL);
	struct set_command c = order(SET_VOLUME_SET, "vm1");
	c.min_replicas = 2;
	CU_ASSERT_EQUAL(world_command(&b.w, &c), 0);
	CU_ASSERT_EQUAL(bench_set_replicas(&b, 1), -EINVAL);
	CU_ASSERT_EQUAL(b.v->entry->facts.replicas, 2);
	c = order(SET_VOLUME_SET, "vm1");
	c.replicas = c.min_replicas = 1;
	CU_ASSERT_EQUAL(world_command(&b.w, &c), 0);
	world_until(&b.w, copies_are_even, &b);
	bench_close(&b);
}

static void held(struct places_hold *h)
{
	quarry_assert(h->is_held);
}

static bool a_copy_is_about_to_go(void *context)
{
	const struct bench *b = context;
	return b->v->move && b->v->move->stage == MOVE_STILL;
}

/* The copy that was to stay fails before the other one goes: that stays then. */
static void the_last_current_copy_stays(void)
{
	struct bench b;
	struct places_hold hold = {.held = held};
	uint64_t disks = 0;
	bench_open(&b, 625, 2, 2);
	bench_change(&b, 40);
	places_hold(b.v, &hold);
	CU_ASSERT_EQUAL(bench_set_replicas(&b, 1), 0);
	world_until(&b.w, a_copy_is_about_to_go, &b);
	uint32_t out = b.v->move->order.out;
	sim_file_fail(world_disk_file(&b.w, 2 - out), OP_WRITE, 0, EIO);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 9, VOLUME_FUA), 0);
	CU_ASSERT_EQUAL(b.v->disks[1 - out].state, VOLUME_DISK_STALE);
	places_let_go(b.v, &hold);
	world_let_pass(&b.w, 5 * NS_PER_S);
	for (uint32_t segment = 0; segment < SEGMENTS; segment++) {
		CU_ASSERT_EQUAL(chunk_find(b.v, segment, &disks), PLACED_ON_DISKS);
		CU_ASSERT_EQUAL(disks, 1ull << out); /* of the copies it is the stale one that goes */
	}
	bench_check(&b);
	world_crash(&b.w, SIM_KILL);
	bench_start_again(&b);
	bench_check(&b);
	bench_close(&b);
}

/* A volume with one copy, one of whose disks has failed. */
static void all_of_a_single_copy_must_be_there(void)
{
	struct bench b;
	bench_open(&b, 630, 3, 1);
	for (uint32_t segment = 0; segment < SEGMENTS; segment++)
		CU_ASSERT_EQUAL(bench_put(&b, segment, 0, 5, 0), 0);
	uint32_t disk = bench_disk_of(&b, 1);
	sim_file_fail(world_disk_file(&b.w, disk + 1), OP_WRITE, 0, EIO);
	(void)bench_put(&b, 1, 1, 6, VOLUME_FUA);
	CU_ASSERT_NOT_EQUAL(b.w.set->disks[disk]->state, SET_DISK_RUNNING);
	CU_ASSERT_EQUAL(bench_set_replicas(&b, 2), -EIO);
	CU_ASSERT(strstr(b.w.why, disk_name(&b, disk)) != NULL);
	CU_ASSERT_EQUAL(b.v->entry->facts.replicas, 1);
	bench_close(&b);
}

/* A volume with one copy goes on beside placements that cannot be read. It is not known where all of it lies. */
static void all_placements_must_be_known(void)
{
	struct bench b;
	char uuid[UUID_TEXT_BYTES], key[KEY_BYTES];
	bench_open(&b, 640, 2, 1);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 5, VOLUME_FUA), 0);
	uuid_to_text(&b.v->entry->facts.uuid, uuid);
	text_print(key, sizeof(key), CHUNK_KEY, uuid, 0);
	char *chunk = world_get(&b.w, key);
	world_stop(&b.w);
	world_put(&b.w, key, strdup("{"));
	bench_start_again(&b);
	CU_ASSERT_EQUAL(bench_set_replicas(&b, 2), -EIO);
	CU_ASSERT(strstr(b.w.why, "could not be read") != NULL);
	CU_ASSERT_EQUAL(b.v->entry->facts.replicas, 1);
	CU_ASSERT_EQUAL(world_detach(&b.w, "vm1"), 0);
	CU_ASSERT_EQUAL(bench_set_replicas(&b, 2), -EIO);
	world_let_pass(&b.w, 5 * NS_PER_S);
	CU_ASSERT_PTR_NULL(world_head(&b.w, "vm1")); /* it was attached for that, and is no more */
	CU_ASSERT_EQUAL(world_attach(&b.w, "vm1"), 0);
	world_stop(&b.w);
	world_put(&b.w, key, chunk);
	bench_start_again(&b);
	CU_ASSERT_EQUAL(bench_set_replicas(&b, 2), 0);
	world_until(&b.w, copies_are_even, &b);
	bench_check(&b);
	bench_check_copies(&b);
	bench_close(&b);
}

/* The store does not answer, and what it was asked comes about, or not: the head goes by what is. */
static void an_outcome_in_doubt_is_waited_for(void)
{
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct bench b;
		struct world_order set = {.command = order(SET_VOLUME_SET, "vm1")};
		struct metadata_faults faults = {.unread_percent = 30, .lost_percent = 50, .delay_max_ns = NS_PER_S},
				       none = {0};
		bench_open(&b, 700 + seed, 3, 1 + seed % 2);
		bench_change(&b, 40);
		metadata_memory_set_faults(b.w.metadata, &faults);
		set.command.replicas = 2 + seed % 2;
		world_order_start(&b.w, &set);
		world_until(&b.w, world_order_is_done, &set);
		metadata_memory_set_faults(b.w.metadata, &none);
		bench_change(&b, 40);
		world_let_pass(&b.w, 90 * NS_PER_S);
		CU_ASSERT_TRUE(copies_are_even(&b));
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* A segment that was placed while a disk was away has its second copy soon after that is back. */
static void what_was_placed_with_too_few_gets_the_rest(void)
{
	for (uint64_t seed = 0; seed < 8; seed++) {
		struct bench b;
		uint64_t disks = 0;
		bench_open(&b, 800 + seed, 2, 2);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 1, VOLUME_FUA), 0);
		sim_file_fail(world_disk_file(&b.w, 1 + seed % 2), OP_WRITE, 0, EIO);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 1, 2, VOLUME_FUA), 0);
		CU_ASSERT_EQUAL(bench_put(&b, 1, 0, 3, VOLUME_FUA), 0);
		CU_ASSERT_EQUAL(chunk_find(b.v, 1, &disks), PLACED_ON_DISKS);
		CU_ASSERT_EQUAL(__builtin_popcountll(disks), 1);
		world_let_pass(&b.w, 5 * NS_PER_S);
		CU_ASSERT_EQUAL(world_events(&b.w, "leave-stalled"), 0);
		struct set_command c = {.kind = SET_DISK_ADD};
		text_print(c.path, sizeof(c.path), "d%u", (unsigned)(1 + seed % 2));
		CU_ASSERT_EQUAL_FATAL(world_command(&b.w, &c), 0);
		for (uint32_t n = 0; n < 100 * seed; n++)
			sim_step(b.w.sim);
		CU_ASSERT_EQUAL(bench_put(&b, 2, 0, 4, VOLUME_FUA), 0); /* it may be resynced now */
		world_until(&b.w, copies_are_even, &b);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* A placement whose outcome was not known counts beside the one that came about (placer_doubt()): no segment lies there, and
 * to look for it is not begun again at once each time. */
static void what_only_counts_is_not_looked_for_without_end(void)
{
	struct bench b;
	uint64_t n_steps = 0;
	bench_open(&b, 900, 2, 2);
	bench_change(&b, 20);
	CU_ASSERT_EQUAL_FATAL(layout_reserve(b.v, 1), 0);
	layout_add(b.v, 1);
	leave_obstruct(b.v->entry, LEAVE_FOR_COPIES, "there is no room");
	CU_ASSERT_STRING_EQUAL(leave_why(b.v->entry, LEAVE_FOR_COPIES), "there is no room");
	CU_ASSERT_PTR_NULL(leave_why(b.v->entry, LEAVE_FOR_DISK)); /* it keeps nothing on a disk */
	CU_ASSERT_STRING_EQUAL(drain_why(b.w.set->disks[0]), "");
	leave_want(b.v);
	for (uint64_t end_ns = reactor_now_ns(b.w.set->reactor) + 60 * NS_PER_S;
	     reactor_now_ns(b.w.set->reactor) < end_ns; n_steps++)
		sim_step(b.w.sim);
	CU_ASSERT(n_steps < 5000);
	CU_ASSERT_EQUAL(world_events(&b.w, "leave-stalled"), 0);
	CU_ASSERT_EQUAL(bench_drain(&b, 0, false), -ENOSPC);
	CU_ASSERT_EQUAL_FATAL(bench_set_replicas(&b, 1), 0); /* what there is to do is done */
	world_let_pass(&b.w, 60 * NS_PER_S);
	CU_ASSERT_TRUE(copies_are_even(&b));
	bench_check(&b);
	bench_close(&b);
}

static void bench_remove_by_force(struct bench *b, uint32_t disk)
{
	struct set_command c = order(SET_DISK_REMOVE, disk_name(b, disk));
	c.force = true;
	CU_ASSERT_EQUAL_FATAL(world_command(&b->w, &c), 0);
}

/* As many copies as disks, and one of these is gone for good: with one copy fewer all is well again. */
static void fewer_copies_are_the_way_out(void)
{
	for (uint32_t disk = 0; disk < 3; disk++) {
		struct bench b;
		bench_open(&b, 810 + disk, 3, 3);
		bench_change(&b, 40);
		const struct uuid gone = b.w.set->disks[disk]->facts.uuid;
		bench_remove_by_force(&b, disk);
		bench_change(&b, 40);
		CU_ASSERT_EQUAL_FATAL(bench_set_replicas(&b, 2), 0);
		world_until(&b.w, copies_are_even, &b);
		world_let_pass(&b.w, 5 * NS_PER_S);
		CU_ASSERT_PTR_NULL(volume_facts_disk(&b.v->entry->facts, &gone));
		CU_ASSERT_EQUAL(world_events(&b.w, "leave-stalled"), 0);
		bench_check(&b);
		bench_check_copies(&b);
		bench_close(&b);
	}
}

/* It was told of on disks that have nothing of it any more, but its trees. */
static void a_single_copy_forgets_disks_that_are_gone(void)
{
	struct bench b;
	bench_open(&b, 820, 3, 3);
	bench_change(&b, 40);
	CU_ASSERT_EQUAL_FATAL(bench_set_replicas(&b, 1), 0);
	world_until(&b.w, copies_are_even, &b);
	for (uint32_t disk = 0; disk < 3; disk++) {
		const struct uuid gone = b.w.set->disks[disk]->facts.uuid;
		uint64_t disks = 0;
		for (uint32_t i = 0; i < b.v->layout.n; i++)
			disks |= b.v->layout.sets[i].disks;
		if (disks >> disk & 1)
			continue;
		CU_ASSERT_PTR_NOT_NULL(volume_facts_disk(&b.v->entry->facts, &gone));
		bench_remove_by_force(&b, disk);
		bench_change(&b, 10);
		world_let_pass(&b.w, 5 * NS_PER_S);
		CU_ASSERT_PTR_NULL(volume_facts_disk(&b.v->entry->facts, &gone));
	}
	bench_check(&b);
	bench_close(&b);
}

/* What had several copies has been on any disks: so has what comes of it. */
static void a_clone_is_of_its_kind(void)
{
	struct bench b;
	bench_open(&b, 830, 3, 2);
	bench_change(&b, 40);
	bench_snapshot(&b, "vm1@before");
	CU_ASSERT_EQUAL_FATAL(bench_set_replicas(&b, 1), 0);
	world_until(&b.w, copies_are_even, &b);
	CU_ASSERT_EQUAL_FATAL(world_clone(&b.w, "vm1@before", "vm2"), 0);
	const struct set_volume *entry = set_volume_find(b.w.set, "vm2");
	CU_ASSERT_PTR_NOT_NULL_FATAL(entry);
	CU_ASSERT_EQUAL(entry->facts.replicas, 1);
	CU_ASSERT_TRUE(volume_facts_are_replicated(&entry->facts));
	bench_close(&b);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("replicas", NULL, NULL);
	CU_add_test(suite, "the number goes up and down", the_number_goes_up_and_down);
	CU_add_test(suite, "one copy, and two again", one_copy_and_two_again);
	CU_add_test(suite, "the second copy counts", the_second_copy_counts);
	CU_add_test(suite, "a crash anywhere is gone on from", a_crash_anywhere_is_gone_on_from);
	CU_add_test(suite, "a volume that nobody uses gets them, too", a_volume_that_nobody_uses_gets_them_too);
	CU_add_test(suite, "what cannot be is refused", what_cannot_be_is_refused);
	CU_add_test(suite, "the last current copy stays", the_last_current_copy_stays);
	CU_add_test(suite, "all of a single copy must be there", all_of_a_single_copy_must_be_there);
	CU_add_test(suite, "all placements must be known", all_placements_must_be_known);
	CU_add_test(suite, "an outcome in doubt is waited for", an_outcome_in_doubt_is_waited_for);
	CU_add_test(suite, "what was placed with too few gets the rest", what_was_placed_with_too_few_gets_the_rest);
	CU_add_test(suite, "what only counts is not looked for without end",
		    what_only_counts_is_not_looked_for_without_end);
	CU_add_test(suite, "fewer copies are the way out", fewer_copies_are_the_way_out);
	CU_add_test(suite, "a single copy forgets disks that are gone", a_single_copy_forgets_disks_that_are_gone);
	CU_add_test(suite, "a clone is of its kind", a_clone_is_of_its_kind);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
