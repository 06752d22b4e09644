/*
 * test_disk_close.c: how a disk ends that has failed: once, and without turning in vain for what the device still owes;
 * and how it begins anew while the kernel still holds its device or lock for who had it.
 */
#include "tests/unit/one_disk.h"

#define DISK_BYTES (512 * MIB)
#define STEPS_MAX  200u /* as many as operations end, not as many as there are turns meanwhile */

/* No block is left for the last checkpoint: the disk fails in the very turn in which its close is woken. */
static void the_last_checkpoint_finds_no_block(void)
{
	struct one_disk o;
	struct run run;
	one_open(&o, DISK_BYTES, 4 * MIB);
	CU_ASSERT_EQUAL_FATAL(one_write(&o, one_create(&o, 1), 0, 8, 1), 0);
	struct space *s = &o.disk->space;
	for (uint32_t i = 0; i < s->n_regions; i++)
		CU_ASSERT_EQUAL_FATAL(space_make_resident(s, i, NULL), 0);
	while (s->free_blocks > 0)
		CU_ASSERT_EQUAL_FATAL(space_alloc(s, SPACE_DATA, COUNTS_PER_PAGE, &run, NULL), 0);
	one_close_disk(&o);
	CU_ASSERT_EQUAL(one_events(&o, "disk-failed"), 1);
	one_open_disk(&o); /* nothing but the checkpoint is missing */
	CU_ASSERT_EQUAL(one_write(&o, one_tree(&o, 1), 0, 8, 2), 0);
	one_close(&o);
}

/* Some pages of the last checkpoint cannot be written, while others are on their way: the end waits for these, asleep. */
static void a_close_waits_for_the_device(void)
{
	struct one_disk o;
	uint32_t n_steps = 0;
	one_open(&o, DISK_BYTES, 64 * MIB);
	struct disk_tree *t = one_create(&o, 1);
	for (uint64_t i = 0; i < 2 * BATCH_IOV_MAX; i++)
		CU_ASSERT_EQUAL_FATAL(one_write(&o, t, i * PAGE_POINTERS, 1, 1), 0);
	sim_file_faults(o.medium)->slow_ns = NS_PER_S;
	sim_file_faults(o.medium)->slow_ppm = 500000;
	sim_file_fail(o.medium, OP_WRITE, 0, EIO);
	disk_close(o.disk, one_closed, &o);
	while (!o.is_done && n_steps < STEPS_MAX) {
		sim_step(o.sim);
		n_steps++;
	}
	CU_ASSERT(n_steps < STEPS_MAX);
	CU_ASSERT_EQUAL(one_events(&o, "disk-failed"), 1);
	one_wait(&o);
	o.disk = NULL;
	one_close(&o);
}

struct holder {
	struct timer timer;
	struct file *file;
};

static void holder_is_gone(struct timer *t)
{
	file_close(container_of(t, struct holder, timer)->file);
}

static void hold_for(struct one_disk *o, struct holder *h, uint64_t duration_ns)
{
	CU_ASSERT_EQUAL_FATAL(reactor_file_open(sim_reactor(o->machine), "d1", 0, &h->file), 0);
	CU_ASSERT_EQUAL_FATAL(file_lock(h->file), 0);
	timer_init(&h->timer, holder_is_gone);
	timer_start(sim_reactor(o->machine), &h->timer, duration_ns);
}

static void a_disk_that_is_held_for_a_while(void)
{
	for (int is_device = 0; is_device <= 1; is_device++) {
		struct one_disk o;
		struct holder h;
		one_open(&o, DISK_BYTES, 4 * MIB);
		CU_ASSERT_EQUAL_FATAL(one_write(&o, one_create(&o, 1), 0, 8, 1), 0);
		one_close_disk(&o);
		sim_file_set_device(o.medium, is_device);
		hold_for(&o, &h, NS_PER_S);
		one_open_disk(&o);
		CU_ASSERT_EQUAL(one_write(&o, one_tree(&o, 1), 0, 8, 2), 0);
		one_close_disk(&o);
		hold_for(&o, &h, 100 * NS_PER_S);
		struct disk_options options = {
		    .reactor = sim_reactor(o.machine), .log = o.log, .path = "d1", .opened = one_opened, .context = &o};
		char why[WHY_BYTES];
		uint64_t since_ns = reactor_now_ns(sim_reactor(o.machine));
		CU_ASSERT_EQUAL_FATAL(disk_open(&options, &o.disk, why), 0);
		one_wait(&o);
		CU_ASSERT_EQUAL(o.res, -EBUSY);
		CU_ASSERT_TRUE(reactor_now_ns(sim_reactor(o.machine)) - since_ns <
			       6 * NS_PER_S); /* a start waits for it */
		CU_ASSERT_PTR_NOT_NULL(strstr(disk_why(o.disk), "another process uses this disk"));
		CU_ASSERT_EQUAL(strstr(disk_why(o.disk), "mounted") != NULL, is_device);
		one_close(&o);
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("the end of a failed disk", NULL, NULL);
	CU_add_test(suite, "the last checkpoint finds no block", the_last_checkpoint_finds_no_block);
	CU_add_test(suite, "a close waits for the device", a_close_waits_for_the_device);
	CU_add_test(suite, "a disk that is held for a while", a_disk_that_is_held_for_a_while);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
