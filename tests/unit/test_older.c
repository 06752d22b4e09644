/*
 * test_older.c: an older copy of a disk is put back while nothing runs. The store remembers a checkpoint, and it is not
 * opened; where the store remembers none, nothing of it is served all the same: the disk is compared as a whole with the
 * other copy, however often its node fails meanwhile.
 */
#include "tests/unit/copies_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OLDER 2u /* its number */

/* What a disk held once. */
struct image {
	uint64_t n_blocks;
	uint8_t *blocks;
};

static void image_take(struct bench *b, struct image *i)
{
	struct sim_file *file = world_disk_file(&b->w, OLDER);
	i->n_blocks = sim_file_size_bytes(file) / BLOCK_BYTES;
	i->blocks = world_memory(i->n_blocks * BLOCK_BYTES);
	for (uint64_t at = 0; at < i->n_blocks; at++)
		sim_file_peek(file, at, i->blocks + at * BLOCK_BYTES);
}

/* As after a release that did not tell the store how far the disk was. */
static void store_forget(struct bench *b)
{
	struct disk_facts facts;
	struct uuid id = uuid_make(5, OLDER);
	char uuid[UUID_TEXT_BYTES], key[KEY_BYTES], why[WHY_BYTES];
	uuid_to_text(&id, uuid);
	text_print(key, sizeof(key), DISK_KEY, uuid);
	char *value = world_get(&b->w, key);
	CU_ASSERT_EQUAL_FATAL(disk_from_json(uuid, value, &facts, why), 0);
	free(value);
	CU_ASSERT(facts.checkpoint > 0);
	facts.checkpoint = facts.seen_ns = 0;
	world_put(&b->w, key, disk_to_json(&facts));
}

static void image_return(struct bench *b, struct image *i)
{
	for (uint64_t at = 0; at < i->n_blocks; at++)
		sim_file_poke(world_disk_file(&b->w, OLDER), at, i->blocks + at * BLOCK_BYTES);
	free(i->blocks);
}

/* The store does not tell. */
static void image_put_back(struct bench *b, struct image *i)
{
	image_return(b, i);
	store_forget(b);
}

/* Nothing runs; then the disk is the image. */
static void image_put_back_stopped(struct bench *b, struct image *i)
{
	world_stop(&b->w);
	image_put_back(b, i);
	bench_start_again(b);
	CU_ASSERT_PTR_NOT_NULL_FATAL(b->v);
}

static void image_take_stopped(struct bench *b, struct image *i)
{
	world_stop(&b->w);
	image_take(b, i);
	bench_start_again(b);
}

static void expect_right(struct bench *b)
{
	bench_check(b);
	world_until(&b->w, all_are_current, b);
	bench_check(b);
	bench_check_copies(b);
}

static void bench_attach(struct bench *b)
{
	CU_ASSERT_EQUAL_FATAL(world_attach(&b->w, "vm1"), 0);
	b->v = world_head(&b->w, "vm1");
}

static void bench_roll_back(struct bench *b, uint8_t kept[2][CELLS])
{
	CU_ASSERT_EQUAL_FATAL(world_detach(&b->w, "vm1"), 0);
	CU_ASSERT_EQUAL_FATAL(world_rollback(&b->w, "vm1@s"), 0);
	memcpy(b->model, kept, sizeof(b->model));
	bench_attach(b);
}

/* An image without the volume, and a new volume of the same name. */
static void bench_begin_anew(struct bench *b, struct image *i, uint32_t replicas)
{
	struct set_command c = order(SET_VOLUME_DELETE, "vm1");
	CU_ASSERT_EQUAL_FATAL(world_detach(&b->w, "vm1"), 0);
	CU_ASSERT_EQUAL_FATAL(world_command(&b->w, &c), 0);
	world_let_pass(&b->w, 10 * NS_PER_S);
	image_take_stopped(b, i);
	CU_ASSERT_EQUAL_FATAL(world_create_copies(&b->w, "vm1", 2 * GIB, replicas), 0);
	bench_attach(b);
}

static void it_is_not_opened(void)
{
	struct bench b;
	struct image older;
	bench_open(&b, 5, 2, 2);
	bench_change(&b, 40);
	image_take_stopped(&b, &older);
	bench_change(&b, 40);
	world_stop(&b.w);
	image_return(&b, &older);
	bench_start_again(&b);
	CU_ASSERT_NOT_EQUAL(b.w.set->disks[OLDER - 1]->state, SET_DISK_RUNNING);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.w.set->disks[OLDER - 1]->why, "is an older copy"));
	bench_check(&b);
	CU_ASSERT_TRUE(bench_facts(&b, OLDER - 1)->is_stale);
	bench_close(&b);
}

/* From before the volume was, from before it was rolled back, from before the last start. */
static void it_is_found_at_attach(void)
{
	enum { BEFORE_VOLUME, BEFORE_ROLLBACK, BEFORE_START, N };
	for (unsigned when = 0; when < N; when++) {
		struct bench b;
		struct image older;
		uint8_t kept[2][CELLS];
		bench_open(&b, 10 + when, 2, 2);
		if (when == BEFORE_VOLUME)
			bench_begin_anew(&b, &older, 2);
		bench_change(&b, 40);
		CU_ASSERT_EQUAL_FATAL(world_snapshot(&b.w, "vm1@s"), 0);
		memcpy(kept, b.model, sizeof(kept));
		bench_change(&b, 40);
		if (when != BEFORE_VOLUME)
			image_take_stopped(&b, &older);
		if (when == BEFORE_ROLLBACK)
			bench_roll_back(&b, kept);
		bench_change(&b, 40);
		image_put_back_stopped(&b, &older);
		CU_ASSERT_PTR_NOT_NULL(strstr(world_event(&b.w, "disk-not-joined"), "an older copy of the disk"));
		expect_right(&b);
		bench_close(&b);
	}
}

/* After the last start no epoch was closed: the daemon was killed at once. The older one lacks what came before. */
static void it_is_found_after_a_short_stay(void)
{
	struct bench b;
	struct image older;
	bench_open(&b, 15, 2, 2);
	bench_change(&b, 40);
	image_take_stopped(&b, &older);
	bench_change(&b, 40);
	world_stop(&b.w);
	bench_start_again(&b);
	for (uint32_t cell = 0; cell < 5; cell++)
		CU_ASSERT_EQUAL(bench_put(&b, 0, cell, (uint8_t)(1 + cell), VOLUME_FUA), 0);
	world_crash(&b.w, SIM_KILL);
	image_put_back(&b, &older);
	bench_start_again(&b);
	CU_ASSERT_PTR_NOT_NULL_FATAL(b.v);
	expect_right(&b);
	bench_close(&b);
}

/* Where there is no other copy, what the older one lacks is an error, and not zeros. */
static void a_single_copy_is_an_error(void)
{
	struct bench b;
	struct image older;
	bench_open(&b, 16, 2, 1);
	for (bool is_there = false; !is_there;) { /* until it lies on that disk */
		bench_begin_anew(&b, &older, 1);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 7, VOLUME_FUA), 0);
		is_there = bench_disk_of(&b, 0) == OLDER - 1;
		if (!is_there)
			free(older.blocks);
	}
	image_put_back_stopped(&b, &older);
	CU_ASSERT_EQUAL(world_read(&b.w, b.v, 0, b.back, CELL_BYTES), -EIO);
	CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 8, 0), -EIO);
	CU_ASSERT_EQUAL(world_read(&b.w, b.v, 0, b.back, CELL_BYTES), -EIO);
	bench_close(&b);
}

/* A disk that has missed something already is not the one that is put back, either. */
static void it_is_found_in_a_resync(void)
{
	for (uint64_t seed = 20; seed < 24; seed++) {
		struct bench b;
		struct image older;
		bench_open(&b, seed, 2, 2);
		bench_change(&b, 40);
		image_take_stopped(&b, &older);
		bench_change(&b, 60);
		world_let_pass(&b.w, 10 * NS_PER_S);
		sim_file_fail(world_disk_file(&b.w, OLDER), OP_WRITE, 0, EIO);
		CU_ASSERT_EQUAL(bench_put(&b, 0, 0, 1, VOLUME_FUA), 0);
		CU_ASSERT(bench_facts(&b, OLDER - 1)->is_stale);
		bench_change(&b, 20);
		image_put_back_stopped(&b, &older);
		expect_right(&b);
		bench_close(&b);
	}
}

struct attaching {
	struct set_command command;
	bool is_done;
};

static void attached(struct set_command *c, int res)
{
	container_of(c, struct attaching, command)->is_done = true;
}

/* The volume is attached, and after so many steps of the world its node fails; false: it was attached before. */
static bool attach_and_fail(struct bench *b, uint32_t n_steps)
{
	struct attaching a = {.command = order_other(SET_VOLUME_ATTACH, "vm1", "nbd")};
	a.command.done = attached;
	volume_set_command(b->w.set, &a.command);
	for (uint32_t i = 0; i < n_steps && !a.is_done; i++)
		sim_step(b->w.sim);
	world_crash(&b->w, n_steps % 2 ? SIM_POWER_LOSS : SIM_KILL);
	return !a.is_done;
}

/* The node may fail between the moment when it has told the disk of itself and the one when the record tells of it. */
static void it_is_found_whenever_the_node_fails(void)
{
	bool goes_on = true;
	for (uint32_t n = 0; goes_on; n++) {
		struct bench b;
		struct image older;
		bench_open(&b, 100 + n, 2, 2);
		bench_change(&b, 40);
		image_take_stopped(&b, &older);
		bench_change(&b, 60);
		CU_ASSERT_EQUAL_FATAL(world_detach(&b.w, "vm1"), 0);
		world_stop(&b.w);
		image_put_back(&b, &older);
		CU_ASSERT_EQUAL_FATAL(world_start(&b.w), 0);
		goes_on = attach_and_fail(&b, n);
		bench_start_again(&b);
		if (!b.v)
			bench_attach(&b);
		expect_right(&b);
		bench_close(&b);
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("older copies of disks", NULL, NULL);
	CU_add_test(suite, "it is not opened", it_is_not_opened);
	CU_add_test(suite, "it is found at attach", it_is_found_at_attach);
	CU_add_test(suite, "it is found after a short stay", it_is_found_after_a_short_stay);
	CU_add_test(suite, "a single copy is an error", a_single_copy_is_an_error);
	CU_add_test(suite, "it is found in a resync", it_is_found_in_a_resync);
	CU_add_test(suite, "it is found whenever the node fails", it_is_found_whenever_the_node_fails);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
