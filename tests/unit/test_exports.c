/*
 * test_exports.c: snapshots attached over NBD, over vhost-user and both ways; what is refused meanwhile; across
 * renames, restarts, crashes, and a store that fails.
 */
#include "tests/unit/fake_doors.h"

#include <errno.h>
#include <string.h>

#define DISK_BYTES (64 * MIB)
#define BLOCK      4096u

static struct head_world w;
static struct doors d;
static uint8_t *data;

/* A volume with a snapshot: it holds ones, and the volume twos. */
static void open_world(uint64_t seed)
{
	world_open(&w, seed);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	d = (struct doors){.hooks = {.open = doors_open}};
	volume_set_doors(w.set, &d.hooks);
	data = world_memory(BLOCK);
	struct volume *v = world_volume(&w, "vm1", GIB);
	memset(data, 1, BLOCK);
	CU_ASSERT_EQUAL_FATAL(world_write(&w, v, 0, data, BLOCK, 0), 0);
	CU_ASSERT_EQUAL_FATAL(world_snapshot(&w, "vm1@s"), 0);
	memset(data, 2, BLOCK);
	CU_ASSERT_EQUAL_FATAL(world_write(&w, v, 0, data, BLOCK, 0), 0);
}

static void close_world(void)
{
	world_close(&w);
	free(data);
}

static int command(enum set_command_kind kind, const char *object, const char *frontend, uint32_t queues)
{
	struct set_command c = order_other(kind, object, frontend);
	c.queues = queues;
	return world_command(&w, &c);
}

static int attach(const char *frontend)
{
	return command(SET_VOLUME_ATTACH, "vm1@s", frontend, 0);
}

static int detach(const char *frontend)
{
	return command(SET_VOLUME_DETACH, "vm1@s", frontend, 0);
}

static bool is_exported(void)
{
	struct volume *v = volume_get(w.set, "vm1@s");
	if (v)
		volume_put(v);
	return v != NULL;
}

/* Only what the frontend holds is looked at: the head, and what it reads. */
static void expect_a_good_door(uint32_t queues)
{
	CU_ASSERT_PTR_NOT_NULL_FATAL(d.volume);
	CU_ASSERT_TRUE(volume_is_read_only(d.volume));
	CU_ASSERT_NOT_EQUAL(volume_snapshot_number(d.volume), 0);
	CU_ASSERT_EQUAL(volume_vhost_queues(d.volume), queues);
	CU_ASSERT_EQUAL(world_read(&w, d.volume, 0, data, BLOCK), 0);
	CU_ASSERT_EQUAL(data[0], 1);
	CU_ASSERT_EQUAL(world_write(&w, d.volume, 0, data, BLOCK, 0), -EROFS);
}

static void look_at_snapshot(const struct snapshot_view *v, void *context)
{
	*(struct snapshot_view *)context = *v;
}

static struct snapshot_view look(void)
{
	struct snapshot_view v = {0};
	volume_set_snapshots(w.set, look_at_snapshot, &v);
	return v;
}

static void both_attachments_come_and_go_alone(void)
{
	open_world(1);
	CU_ASSERT_EQUAL(attach("floppy"), -EINVAL);
	CU_ASSERT_EQUAL(command(SET_VOLUME_ATTACH, "vm1@s", "vhost-user", VOLUME_VHOST_QUEUES_MAX + 1), -EINVAL);
	CU_ASSERT_EQUAL(command(SET_VOLUME_ATTACH, "vm1@s", "nbd", 2), -EINVAL);
	CU_ASSERT_EQUAL(command(SET_VOLUME_ATTACH, "vm1@none", "vhost-user", 0), -ENOENT);
	CU_ASSERT_EQUAL(attach("vhost-user"), 0);
	expect_a_good_door(VOLUME_VHOST_QUEUES_DEFAULT);
	CU_ASSERT_STRING_EQUAL(volume_name(d.volume), "vm1@s");
	CU_ASSERT_FALSE(is_exported());
	CU_ASSERT_TRUE(look().is_attached_vhost && !look().is_attached_nbd);
	CU_ASSERT_EQUAL(attach("vhost-user"), 0); /* again: it is done */
	CU_ASSERT_EQUAL(d.opened, 1);
	CU_ASSERT_EQUAL(command(SET_VOLUME_ATTACH, "vm1@s", "vhost-user", 3), -EEXIST);
	CU_ASSERT_EQUAL(attach("nbd"), 0);
	CU_ASSERT_TRUE(is_exported());
	CU_ASSERT_TRUE(look().is_attached_vhost && look().is_attached_nbd);
	CU_ASSERT_EQUAL(detach("vhost-user"), 0);
	CU_ASSERT_EQUAL(d.vhost_detached, 1);
	CU_ASSERT_TRUE(is_exported());
	CU_ASSERT_EQUAL(doors_of(&w), 0);
	CU_ASSERT_EQUAL(command(SET_VOLUME_ATTACH, "vm1@s", "vhost-user", 3), 0);
	expect_a_good_door(3);
	CU_ASSERT_EQUAL(detach("nbd"), 0);
	CU_ASSERT_EQUAL(detach("nbd"), 0);
	CU_ASSERT_EQUAL(d.nbd_detached, 1);
	CU_ASSERT_FALSE(is_exported());
	expect_a_good_door(3);
	CU_ASSERT_EQUAL(attach("nbd"), 0);
	CU_ASSERT_EQUAL(detach(""), 0);
	CU_ASSERT_EQUAL(d.detaching, 1);
	CU_ASSERT_EQUAL(doors_of(&w), 0);
	CU_ASSERT_FALSE(is_exported());
	CU_ASSERT_FALSE(look().is_attached_vhost || look().is_attached_nbd);
	close_world();
}

static void what_is_attached_is_not_deleted(void)
{
	open_world(2);
	CU_ASSERT_EQUAL(attach("vhost-user"), 0);
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@s"), -EBUSY);
	CU_ASSERT_PTR_NOT_NULL(strstr(w.why, "is attached"));
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	struct set_command c = {.kind = SET_VOLUME_DELETE, .object = "vm1", .with_snapshots = true};
	CU_ASSERT_EQUAL(world_command(&w, &c), -EBUSY);
	expect_a_good_door(VOLUME_VHOST_QUEUES_DEFAULT); /* nor does it need its volume to be attached */
	CU_ASSERT_EQUAL(detach("vhost-user"), 0);
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@s"), 0);
	close_world();
}

static void a_door_that_does_not_open_leaves_nothing(void)
{
	open_world(3);
	d.res = -EADDRINUSE;
	CU_ASSERT_EQUAL(attach("vhost-user"), -EIO);
	CU_ASSERT_FALSE(look().is_attached_vhost);
	CU_ASSERT_EQUAL(attach("nbd"), 0);
	CU_ASSERT_EQUAL(attach("vhost-user"), -EIO);
	CU_ASSERT_TRUE(is_exported()); /* NBD clients have not noticed */
	CU_ASSERT_EQUAL(doors_of(&w), 0);
	d.res = -ENAMETOOLONG;
	CU_ASSERT_EQUAL(attach("vhost-user"), -EINVAL);
	d.res = 0;
	CU_ASSERT_EQUAL(attach("vhost-user"), 0);
	expect_a_good_door(VOLUME_VHOST_QUEUES_DEFAULT);
	CU_ASSERT_EQUAL(detach(""), 0);
	volume_set_doors(w.set, NULL);
	CU_ASSERT_EQUAL(attach("vhost-user"), -EOPNOTSUPP);
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@s"), 0);
	close_world();
}

static void a_door_moves_with_the_name(void)
{
	open_world(4);
	CU_ASSERT_EQUAL(attach("vhost-user"), 0);
	CU_ASSERT_EQUAL(command(SET_VOLUME_RENAME, "vm1", "vm2", 0), 0);
	CU_ASSERT_EQUAL(d.renamed, 1);
	CU_ASSERT_STRING_EQUAL(volume_name(d.volume), "vm2@s");
	CU_ASSERT_EQUAL(command(SET_VOLUME_DETACH, "vm2@s", "vhost-user", 0), 0);
	CU_ASSERT_EQUAL(doors_of(&w), 0);
	close_world();
}

static void open_door(struct volume *v, void *context)
{
	char why[64];
	CU_ASSERT_EQUAL(doors_open(&d.hooks, v, why, sizeof(why)), 0);
}

/* As the frontend does when it starts. */
static void restart(bool is_crash)
{
	if (is_crash)
		world_crash(&w, SIM_POWER_LOSS);
	else
		world_stop(&w);
	d = (struct doors){.hooks = {.open = doors_open}};
	CU_ASSERT_EQUAL(world_start(&w), 0);
	volume_each_door(w.set, open_door, NULL);
	volume_set_doors(w.set, &d.hooks);
}

static void attachments_come_back(void)
{
	open_world(5);
	CU_ASSERT_EQUAL(command(SET_VOLUME_ATTACH, "vm1@s", "vhost-user", 5), 0);
	CU_ASSERT_EQUAL(attach("nbd"), 0);
	for (int crash = 0; crash < 2; crash++) {
		restart(crash);
		CU_ASSERT_TRUE(is_exported());
		expect_a_good_door(5);
	}
	CU_ASSERT_EQUAL(detach("nbd"), 0);
	for (int crash = 0; crash < 2; crash++) {
		restart(crash);
		CU_ASSERT_FALSE(is_exported());
		expect_a_good_door(5);
	}
	CU_ASSERT_EQUAL(detach("vhost-user"), 0);
	restart(true);
	CU_ASSERT_EQUAL(doors_of(&w), 0);
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@s"), 0);
	close_world();
}

/* Whatever a command says of an attachment, it may be repeated, and then it is so. */
static void a_store_that_fails_is_tried_again(void)
{
	for (uint64_t seed = 100; seed < 130; seed++) {
		open_world(seed);
		for (uint32_t i = 0; i < 6; i++) {
			const char *frontend = i % 3 == 1 ? "nbd" : "vhost-user";
			metadata_memory_set_faults(w.metadata, &(struct metadata_faults){.delay_max_ns = NS_PER_MS,
											 .lost_percent = 70,
											 .doubled_percent = 20});
			d.res = i % 2 ? 0 : -EADDRINUSE; /* the record is put back then, or cannot be */
			attach(frontend);
			detach(seed % 2 ? frontend : "");
			metadata_memory_set_faults(w.metadata, &(struct metadata_faults){0});
			d.res = 0;
			CU_ASSERT_EQUAL(detach(""), 0);
			CU_ASSERT_PTR_NULL(d.volume);
			CU_ASSERT_FALSE(is_exported());
			CU_ASSERT_EQUAL(attach(frontend), 0);
			CU_ASSERT_EQUAL(attach("vhost-user"), 0);
			expect_a_good_door(VOLUME_VHOST_QUEUES_DEFAULT);
			CU_ASSERT_EQUAL(is_exported(), strcmp(frontend, "nbd") == 0);
			CU_ASSERT_EQUAL(detach("vhost-user"), 0);
			CU_ASSERT_EQUAL(detach("nbd"), 0);
		}
		CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@s"), 0);
		close_world();
	}
}

/* ---- attached only to be copied ---- */

static int copy_begins(void)
{
	struct set_command c = order_other(SET_VOLUME_ATTACH, "vm1@s", "nbd");
	c.temporary = true;
	return world_command(&w, &c);
}

static int copy_ends(void)
{
	struct set_command c = order_other(SET_VOLUME_DETACH, "vm1@s", "nbd");
	c.temporary = true;
	return world_command(&w, &c);
}

static void the_last_copy_detaches(void)
{
	open_world(20);
	CU_ASSERT_EQUAL(copy_begins(), 0);
	struct volume *one = volume_get(w.set, "vm1@s");
	CU_ASSERT_PTR_NOT_NULL_FATAL(one);
	CU_ASSERT_EQUAL(copy_begins(), 0);
	struct volume *two = volume_get(w.set, "vm1@s");
	CU_ASSERT_PTR_EQUAL(one, two);
	CU_ASSERT_TRUE(look().is_temporary);
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@s"), -EBUSY);
	volume_put(one);
	CU_ASSERT_EQUAL(copy_ends(), 0); /* the other goes on */
	CU_ASSERT_TRUE(look().is_attached_nbd);
	volume_put(two);
	CU_ASSERT_EQUAL(copy_ends(), 0);
	CU_ASSERT_FALSE(look().is_attached_nbd);
	CU_ASSERT_FALSE(look().is_temporary);
	/* what somebody attached stays, whether before or after */
	CU_ASSERT_EQUAL(attach("nbd"), 0);
	CU_ASSERT_EQUAL(copy_begins(), 0);
	CU_ASSERT_FALSE(look().is_temporary);
	CU_ASSERT_EQUAL(copy_ends(), 0);
	CU_ASSERT_TRUE(is_exported());
	CU_ASSERT_EQUAL(detach("nbd"), 0);
	CU_ASSERT_EQUAL(copy_begins(), 0);
	CU_ASSERT_EQUAL(attach("nbd"), 0);
	CU_ASSERT_EQUAL(copy_ends(), 0);
	CU_ASSERT_TRUE(is_exported());
	close_world();
}

/* Who copied it was killed, or the daemon was: nothing waits for them. */
static void a_killed_copy_is_in_nobodys_way(void)
{
	for (int crash = 0; crash < 2; crash++) {
		open_world(21);
		CU_ASSERT_EQUAL(copy_begins(), 0);
		if (crash) {
			world_crash(&w, SIM_KILL);
			CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
			CU_ASSERT_TRUE(look().is_temporary);
		}
		CU_ASSERT_TRUE(is_exported());
		CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@s"), 0);
		CU_ASSERT_PTR_NULL(volume_get(w.set, "vm1@s"));
		world_stop(&w);
		CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
		CU_ASSERT_EQUAL(set_volume_find(w.set, "vm1")->n_snapshots, 0);
		close_world();
	}
	open_world(22);
	CU_ASSERT_EQUAL(copy_begins(), 0);
	CU_ASSERT_EQUAL(attach("vhost-user"), 0); /* somebody does use it */
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@s"), -EBUSY);
	close_world();
}

static void a_killed_copy_goes_with_the_volume(void)
{
	struct set_command delete = {.kind = SET_VOLUME_DELETE, .object = "vm1"};
	for (int crash = 0; crash < 2; crash++) {
		open_world(23);
		CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
		CU_ASSERT_EQUAL(copy_begins(), 0);
		struct volume *copied = volume_get(w.set, "vm1@s");
		CU_ASSERT_PTR_NOT_NULL_FATAL(copied);
		delete.with_snapshots = true;
		CU_ASSERT_EQUAL(world_command(&w, &delete), -EBUSY); /* not killed yet */
		volume_put(copied);
		delete.with_snapshots = false;
		CU_ASSERT_EQUAL(world_command(&w, &delete), -EBUSY);
		CU_ASSERT_TRUE(is_exported());
		delete.with_snapshots = true;
		CU_ASSERT_EQUAL(world_command(&w, &delete), 0);
		CU_ASSERT_PTR_NULL(volume_get(w.set, "vm1@s"));
		if (crash)
			world_crash(&w, SIM_KILL);
		else
			world_stop(&w);
		CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
		CU_ASSERT_PTR_NULL(set_volume_find(w.set, "vm1"));
		close_world();
	}
}

/* Of a volume nothing is attached only to be copied: whoever lets go of a copy leaves it alone. */
static void a_volume_stays_when_a_copy_ends(void)
{
	struct set_command c = order_other(SET_VOLUME_DETACH, "vm1", "nbd");
	open_world(24);
	CU_ASSERT_EQUAL_FATAL(
	    world_command(&w, &(struct set_command){.kind = SET_VOLUME_ATTACH, .object = "vm1", .other = "nbd"}), 0);
	c.temporary = true;
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_TRUE(set_volume_find(w.set, "vm1")->facts.is_attached_nbd);
	close_world();
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("exports", NULL, NULL);
	CU_add_test(suite, "both attachments come and go alone", both_attachments_come_and_go_alone);
	CU_add_test(suite, "what is attached is not deleted", what_is_attached_is_not_deleted);
	CU_add_test(suite, "a door that does not open", a_door_that_does_not_open_leaves_nothing);
	CU_add_test(suite, "a door moves with the name", a_door_moves_with_the_name);
	CU_add_test(suite, "attachments come back", attachments_come_back);
	CU_add_test(suite, "the last copy detaches", the_last_copy_detaches);
	CU_add_test(suite, "a killed copy is in nobody's way", a_killed_copy_is_in_nobodys_way);
	CU_add_test(suite, "a killed copy goes with the volume", a_killed_copy_goes_with_the_volume);
	CU_add_test(suite, "a volume stays when a copy ends", a_volume_stays_when_a_copy_ends);
	CU_add_test(suite, "a store that fails", a_store_that_fails_is_tried_again);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
