/*
 * test_disk_intact.c: whether a disk may lack what it had answered: after a loss of power, until it is told of a complete epoch
 * [INTACT]; not after a process that was killed, nor after a clean end.
 */
#include "tests/unit/one_disk.h"

#define DISK_BYTES (64 * MIB)

/* As its next head is told. */
static bool is_suspect(struct one_disk *o)
{
	one_volume(o, 1);
	return o->io.is_suspect;
}

static void crash(struct one_disk *o, enum sim_crash_kind kind)
{
	sim_crash(o->machine, kind);
	disk_abandon(o->disk);
	o->disk = NULL;
}

/* It begins with the first FENCE, whose answer counts. */
static bool is_suspect_after(struct one_disk *o, enum sim_crash_kind kind)
{
	crash(o, kind);
	one_open_disk(o);
	return o->io.is_suspect;
}

static void complete(struct one_disk *o)
{
	struct disk_io io = {.op = DISK_COMPLETE, .epoch = ++o->epoch};
	CU_ASSERT_EQUAL(one_call(o, io), 0);
}

static void after_a_loss_of_power_until_an_epoch_is_complete(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, 8 * MIB);
	CU_ASSERT_FALSE(o.io.is_suspect);
	CU_ASSERT_EQUAL(one_write(&o, one_create(&o, 1), 0, 8, 1), 0);
	CU_ASSERT(is_suspect_after(&o, SIM_POWER_LOSS));
	CU_ASSERT(is_suspect(&o));
	CU_ASSERT(is_suspect_after(&o, SIM_KILL));
	one_close_disk(&o);
	one_open_disk(&o);
	CU_ASSERT(o.io.is_suspect);
	complete(&o);
	CU_ASSERT_FALSE(is_suspect(&o));
	CU_ASSERT_FALSE(is_suspect_after(&o, SIM_KILL));
	CU_ASSERT(is_suspect_after(&o, SIM_POWER_LOSS));
	one_close(&o);
}

static void not_after_a_kill_or_a_clean_end(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, 8 * MIB);
	CU_ASSERT_EQUAL(one_write(&o, one_create(&o, 1), 0, 8, 1), 0);
	CU_ASSERT_FALSE(is_suspect_after(&o, SIM_KILL));
	CU_ASSERT_EQUAL(one_write(&o, one_tree(&o, 1), 0, 8, 2), 0);
	one_close_disk(&o);
	sim_crash(o.machine, SIM_POWER_LOSS);
	one_open_disk(&o);
	CU_ASSERT_FALSE(o.io.is_suspect);
	CU_ASSERT(is_suspect_after(&o, SIM_POWER_LOSS));
	one_close(&o);
}

/* A recovery that a second loss, or a kill, cuts off at any of its operations has not forgotten it. */
static void however_recovery_is_interrupted(void)
{
	for (uint64_t at = 1; at < 80; at++) {
		struct one_disk o;
		one_open(&o, DISK_BYTES, 8 * MIB);
		CU_ASSERT_EQUAL(one_write(&o, one_create(&o, 1), 0, 8, 1), 0);
		crash(&o, SIM_POWER_LOSS);
		struct disk_options options = {.reactor = sim_reactor(o.machine),
					       .log = o.log,
					       .path = "d1",
					       .cache_bytes = o.cache_bytes,
					       .opened = one_opened,
					       .context = &o};
		char why[WHY_BYTES];
		sim_crash_at(o.machine, sim_io_index(o.machine) + at);
		CU_ASSERT_EQUAL_FATAL(disk_open(&options, &o.disk, why), 0);
		(void)sim_run(o.sim, one_is_done, &o, ONE_STEPS_MAX);
		o.is_done = false;
		sim_crash(o.machine, at % 2 ? SIM_KILL : SIM_POWER_LOSS);
		disk_abandon(o.disk);
		one_open_disk(&o);
		CU_ASSERT(o.io.is_suspect);
		one_close(&o);
	}
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return CU_get_error();
	CU_pSuite suite = CU_add_suite("disk: whether it is intact", NULL, NULL);
	CU_add_test(suite, "after a loss of power, until an epoch is complete",
		    after_a_loss_of_power_until_an_epoch_is_complete);
	CU_add_test(suite, "not after a kill or a clean end", not_after_a_kill_or_a_clean_end);
	CU_add_test(suite, "however recovery is interrupted", however_recovery_is_interrupted);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	bool has_failed = CU_get_number_of_failures() > 0;
	CU_cleanup_registry();
	return has_failed;
}
