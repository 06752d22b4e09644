/*
 * test_volume_set.c: the set's commands: what they do, that they may be repeated (P6), what they refuse and how;
 * starts, stops, crashes, and a metadata store that loses replies and doubles requests.
 */
#include "tests/unit/fake_doors.h"
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISK_BYTES (64 * MIB)

/* ---- views ---- */

struct look {
	uint32_t n;
	struct volume_view volumes[8];
	struct disk_view disks[8];
	struct pool_view pools[8];
};

static void look_at_volume(const struct volume_view *v, void *context)
{
	struct look *l = context;
	l->volumes[l->n++] = *v;
}

static void look_at_disk(const struct disk_view *v, void *context)
{
	struct look *l = context;
	l->disks[l->n++] = *v;
}

static void look_at_pool(const struct pool_view *v, void *context)
{
	struct look *l = context;
	l->pools[l->n++] = *v;
}

static struct look look_volumes(struct head_world *w)
{
	struct look l = {0};
	volume_set_volumes(w->set, look_at_volume, &l);
	return l;
}

static struct look look_disks(struct head_world *w)
{
	struct look l = {0};
	volume_set_disks(w->set, look_at_disk, &l);
	return l;
}

static struct look look_pools(struct head_world *w)
{
	struct look l = {0};
	volume_set_pools(w->set, look_at_pool, &l);
	return l;
}

static bool no_volume_is_left(void *context)
{
	return list_is_empty(&((struct head_world *)context)->set->volumes);
}

/* ---- volumes ---- */

static void volumes_are_created_once(void)
{
	struct head_world w;
	world_open(&w, 1);
	CU_ASSERT_EQUAL(world_start(&w), 0); /* without any disk */
	CU_ASSERT_EQUAL(world_create(&w, "vm1", GIB), 0);
	CU_ASSERT_EQUAL(world_create(&w, "vm1", GIB), 0);
	CU_ASSERT_EQUAL(world_create(&w, "vm1", 2 * GIB), -EEXIST);
	CU_ASSERT_EQUAL(world_create(&w, "a", 512), 0);
	CU_ASSERT_EQUAL(world_create(&w, "vm3", 4096 * TIB), 0);
	CU_ASSERT_EQUAL(world_create(&w, "vm4", 0), -EINVAL);
	CU_ASSERT_EQUAL(world_create(&w, "vm4", 1000), -EINVAL);
	CU_ASSERT_EQUAL(world_create(&w, "vm4", 4096 * TIB + 512), -EINVAL);
	CU_ASSERT_EQUAL(world_create(&w, "", GIB), -EINVAL);
	CU_ASSERT_EQUAL(world_create(&w, "-vm", GIB), -EINVAL);
	CU_ASSERT_EQUAL(world_create(&w, "a/b", GIB), -EINVAL);
	CU_ASSERT_EQUAL(world_create(&w, "a123456789a123456789a123456789a123456789a123456789a123456789a123", GIB),
			-EINVAL);
	struct set_command c = order(SET_VOLUME_CREATE, "vm5");
	c.size_bytes = GIB;
	c.replicas = 2;
	CU_ASSERT_EQUAL(world_command(&w, &c), -ENOSPC);
	CU_ASSERT(strstr(c.why, "2 copies must lie in 2 failure domains") != NULL);
	c.replicas = 1;
	c.min_replicas = 2;
	CU_ASSERT_EQUAL(world_command(&w, &c), -EINVAL);
	struct set_command set = order(SET_VOLUME_SET, "vm1");
	set.min_replicas = 2;
	CU_ASSERT_EQUAL(world_command(&w, &set), -EINVAL);
	set.min_replicas = 1; /* which it has */
	CU_ASSERT_EQUAL(world_command(&w, &set), 0);
	c.min_replicas = 0;
	text_print(c.pool, sizeof(c.pool), "nowhere");
	CU_ASSERT_EQUAL(world_command(&w, &c), -ENOENT);
	struct look l = look_volumes(&w);
	CU_ASSERT_EQUAL(l.n, 3);
	CU_ASSERT_STRING_EQUAL(l.volumes[0].name, "a");
	CU_ASSERT_STRING_EQUAL(l.volumes[2].name, "vm3");
	world_stop(&w);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_EQUAL(look_volumes(&w).n, 3);
	world_close(&w);
}

static void renames_may_be_repeated(void)
{
	struct head_world w;
	world_open(&w, 2);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_EQUAL(world_create(&w, "old", GIB), 0);
	CU_ASSERT_EQUAL(world_create(&w, "third", GIB), 0);
	struct set_command c = order_other(SET_VOLUME_RENAME, "old", "new");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	c = order_other(SET_VOLUME_RENAME, "old", "new");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	c = order_other(SET_VOLUME_RENAME, "other", "new");
	CU_ASSERT_EQUAL(world_command(&w, &c), -ENOENT);
	c = order_other(SET_VOLUME_RENAME, "new", "third");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EEXIST);
	c = order_other(SET_VOLUME_RENAME, "new", "bad name");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EINVAL);
	CU_ASSERT_EQUAL(world_create(&w, "old", 2 * GIB), 0); /* the name is free */
	CU_ASSERT_STRING_EQUAL(look_volumes(&w).volumes[0].name, "new");
	world_stop(&w);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct look l = look_volumes(&w);
	CU_ASSERT_EQUAL(l.n, 3);
	CU_ASSERT_STRING_EQUAL(l.volumes[1].name, "old");
	CU_ASSERT_EQUAL(l.volumes[1].size_bytes, 2 * GIB);
	world_close(&w);
}

static void attachments_may_be_repeated(void)
{
	struct head_world w;
	world_open(&w, 3);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_EQUAL(world_attach(&w, "vm1"), -ENOENT);
	CU_ASSERT_EQUAL(world_create(&w, "vm1", GIB), 0);
	CU_ASSERT_PTR_NULL(volume_get(w.set, "vm1"));
	CU_ASSERT_EQUAL(world_attach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_attach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_head(&w, "vm1")->generation, 1);
	struct set_command c = order_other(SET_VOLUME_ATTACH, "vm1", "nbd");
	c.read_only = true;
	CU_ASSERT_EQUAL(world_command(&w, &c), -EEXIST);
	c = order_other(SET_VOLUME_ATTACH, "vm1", "vhost-user");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EOPNOTSUPP); /* no such frontend is there */
	c = order_other(SET_VOLUME_ATTACH, "vm1", "floppy");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EINVAL);
	c = order(SET_VOLUME_DELETE, "vm1");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EBUSY);
	CU_ASSERT_STRING_EQUAL(c.code, "in-use");
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_PTR_NULL(world_head(&w, "vm1"));
	world_stop(&w);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_PTR_NULL(world_head(&w, "vm1")); /* stays detached */
	world_close(&w);
}

/* ---- the frontend that has a socket for every volume ---- */

/* Both frontends beside each other, each coming and going alone; recorded with the number of queues. */
static void attachments_beside_each_other(void)
{
	struct head_world w;
	struct doors d = {.hooks = {.open = doors_open}};
	world_open(&w, 1);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_EQUAL(world_create(&w, "vm1", GIB), 0);
	volume_set_doors(w.set, &d.hooks);
	d.res = -EADDRINUSE;
	struct set_command c = order_other(SET_VOLUME_ATTACH, "vm1", "vhost-user");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EIO);
	CU_ASSERT_PTR_NULL(world_head(&w, "vm1")); /* nothing is left of the attempt */
	CU_ASSERT_EQUAL(world_attach(&w, "vm1"), 0);
	c = order_other(SET_VOLUME_ATTACH, "vm1", "vhost-user");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EIO);
	CU_ASSERT_PTR_NOT_NULL(world_head(&w, "vm1")); /* NBD clients have not noticed */
	CU_ASSERT_EQUAL(doors_of(&w), 0);
	d.res = 0;
	c = order_other(SET_VOLUME_ATTACH, "vm1", "vhost-user");
	c.queues = VOLUME_VHOST_QUEUES_MAX + 1;
	CU_ASSERT_EQUAL(world_command(&w, &c), -EINVAL);
	c.queues = 5;
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(d.queues, 5);
	CU_ASSERT_EQUAL(world_command(&w, &c), 0); /* again: it is done */
	CU_ASSERT_EQUAL(d.opened, 1);
	c.queues = 6;
	CU_ASSERT_EQUAL(world_command(&w, &c), -EEXIST);
	c = order_other(SET_VOLUME_RENAME, "vm1", "vm2");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(d.renamed, 1);
	c = order_other(SET_VOLUME_DETACH, "vm2", "nbd");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(d.nbd_detached, 1);
	CU_ASSERT_PTR_NULL(volume_get(w.set, "vm2"));
	CU_ASSERT_EQUAL(doors_of(&w), 1);
	c = order_other(SET_VOLUME_ATTACH, "vm2", "nbd");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	c = order_other(SET_VOLUME_DETACH, "vm2", "vhost-user");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(d.vhost_detached, 1);
	CU_ASSERT_EQUAL(doors_of(&w), 0);
	c = order_other(SET_VOLUME_ATTACH, "vm2", "vhost-user");
	c.queues = 7;
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	world_stop(&w);
	CU_ASSERT_EQUAL(d.detaching, 1);
	CU_ASSERT_EQUAL(world_start(&w), 0); /* it comes back with both */
	CU_ASSERT_EQUAL(doors_of(&w), 1);
	CU_ASSERT_EQUAL(volume_vhost_queues(world_head(&w, "vm2")), 7);
	c = order_other(SET_VOLUME_DETACH, "vm2", "");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_PTR_NULL(world_head(&w, "vm2"));
	world_close(&w);
}

struct client {
	struct volume_watch watch;
	struct volume *volume;
	uint32_t resized, detaching;
};

static void client_event(struct volume_watch *watch, enum volume_event e)
{
	struct client *c = container_of(watch, struct client, watch);
	if (e == VOLUME_RESIZED) {
		c->resized++;
		return;
	}
	c->detaching++;
	volume_watch_stop(c->volume, &c->watch);
	volume_put(c->volume);
}

static void count_export(struct volume *v, void *context)
{
	++*(uint32_t *)context;
}

static void clients_are_told_of_a_detach(void)
{
	struct head_world w;
	struct client c = {.watch.event = client_event};
	uint32_t exports = 0;
	world_open(&w, 4);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	world_volume(&w, "vm1", GIB);
	c.volume = volume_get(w.set, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(c.volume);
	volume_watch_start(c.volume, &c.watch);
	volume_each_export(w.set, count_export, &exports);
	CU_ASSERT_EQUAL(exports, 1);
	CU_ASSERT_EQUAL(volume_size_bytes(c.volume), GIB);
	CU_ASSERT_STRING_EQUAL(volume_name(c.volume), "vm1");
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(c.detaching, 1);
	volume_each_export(w.set, count_export, &exports);
	CU_ASSERT_EQUAL(exports, 1);
	world_close(&w);
}

static void a_deleted_volume_gives_its_space_back(void)
{
	struct head_world w;
	uint8_t *data = world_memory(MIB);
	memset(data, 7, MIB);
	world_open(&w, 5);
	world_add_disk(&w, DISK_BYTES);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	uint64_t before = look_pools(&w).pools[0].free_bytes;
	struct volume *v = world_volume(&w, "vm1", 600 * GIB); /* three chunks of placements */
	for (uint32_t i = 0; i < 12; i++)
		CU_ASSERT_EQUAL(world_write(&w, v, i * 50 * GIB, data, MIB, 0), 0);
	struct look l = look_volumes(&w);
	CU_ASSERT_EQUAL(l.volumes[0].allocated_bytes, 12 * MIB);
	CU_ASSERT_EQUAL(l.volumes[0].n_disks, 2);
	CU_ASSERT(l.volumes[0].is_serving);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(look_volumes(&w).volumes[0].allocated_bytes, 12 * MIB);
	struct set_command c = order(SET_VOLUME_DELETE, "vm1");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(world_create(&w, "vm1", GIB), 0); /* the name is free at once */
	c = order(SET_VOLUME_DELETE, "vm1");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	c = order(SET_VOLUME_DELETE, "vm1");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	c = order(SET_VOLUME_DELETE, "vm2");
	CU_ASSERT_EQUAL(world_command(&w, &c), -ENOENT);
	world_until(&w, no_volume_is_left, &w);
	world_stop(&w);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_EQUAL(look_volumes(&w).n, 0);
	CU_ASSERT(look_pools(&w).pools[0].free_bytes + 64 * 4096 >= before);
	world_close(&w);
	free(data);
}

static void a_deletion_goes_on_after_a_crash(void)
{
	for (uint32_t steps = 1; steps < 400; steps += 7) {
		struct head_world w;
		uint8_t *data = world_memory(MIB);
		memset(data, 7, MIB);
		world_open(&w, 6);
		world_add_disk(&w, DISK_BYTES);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		struct volume *v = world_volume(&w, "vm1", 600 * GIB);
		for (uint32_t i = 0; i < 5; i++)
			CU_ASSERT_EQUAL(world_write(&w, v, i * 140 * GIB, data, MIB, 0), 0);
		struct uuid uuid = *volume_uuid(v);
		CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
		struct set_command c = order(SET_VOLUME_DELETE, "vm1");
		CU_ASSERT_EQUAL(world_command(&w, &c), 0);
		for (uint32_t i = 0; i < steps && !no_volume_is_left(&w); i++)
			sim_step(w.sim);
		world_crash(&w, SIM_POWER_LOSS);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		world_until(&w, no_volume_is_left, &w);
		struct volume_record record;
		CU_ASSERT_FALSE(disk_volume(w.set->disks[0]->disk, &uuid, &record));
		world_close(&w);
		free(data);
	}
}

/* ---- pools and disks ---- */

/* Thin volumes may promise more than a number holds. */
static void what_a_pool_promises_has_a_bound(void)
{
	struct head_world w;
	char name[] = "v0";
	world_open(&w, 31);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	for (; name[1] < '5'; name[1]++) {
		CU_ASSERT_PTR_NOT_NULL_FATAL(world_volume(&w, name, GIB));
		set_volume_find(w.set, name)->facts.size_bytes = 1ull << 62;
	}
	CU_ASSERT_EQUAL(look_pools(&w).pools[0].provisioned_bytes, INT64_MAX);
	CU_ASSERT_EQUAL(look_pools(&w).pools[0].n_full, 0);
	for (name[1] = '0'; name[1] < '5'; name[1]++)
		set_volume_find(w.set, name)->facts.size_bytes = GIB;
	CU_ASSERT_EQUAL(look_pools(&w).pools[0].provisioned_bytes, 5 * GIB);
	set_volume_find(w.set, "v1")->head->full_ns = 1;
	CU_ASSERT_EQUAL(look_pools(&w).pools[0].n_full, 1);
	world_close(&w);
}

static void pools_are_kept_in_order(void)
{
	struct head_world w;
	world_open(&w, 7);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct set_command c = order(SET_POOL_CREATE, "fast");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	c = order(SET_POOL_CREATE, "fast");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	c = order(SET_POOL_CREATE, "fast");
	c.has_failure_domain = true;
	c.failure_domain = DOMAIN_RACK;
	CU_ASSERT_EQUAL(world_command(&w, &c), -EEXIST);
	c.kind = SET_POOL_SET;
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(look_pools(&w).pools[1].failure_domain, DOMAIN_RACK);
	c = order(SET_POOL_CREATE, "safe");
	c.replicas = 6;
	c.failure_domain = DOMAIN_DISK;
	c.has_failure_domain = true;
	CU_ASSERT_EQUAL(world_command(&w, &c), -EINVAL);
	CU_ASSERT(strstr(c.why, "1 to 5 are") != NULL);
	c = order(SET_POOL_DELETE, "default");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EBUSY);
	c = order(SET_POOL_DELETE, "fast");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	c = order(SET_POOL_DELETE, "safe");
	CU_ASSERT_EQUAL(world_command(&w, &c), -ENOENT);
	c = order(SET_POOL_SET, "fast");
	CU_ASSERT_EQUAL(world_command(&w, &c), -ENOENT);
	CU_ASSERT_EQUAL(look_pools(&w).n, 1);
	CU_ASSERT_EQUAL(look_pools(&w).pools[0].n_disks, 1);
	world_close(&w);
}

static void a_disk_with_data_is_removed_only_by_force(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	memset(data, 1, 4096);
	world_open(&w, 8);
	for (uint32_t i = 0; i < 3; i++)
		world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct set_command c = order(SET_DISK_REMOVE, "d3");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(world_command(&w, &c), 0); /* by any of its names */
	c = order(SET_DISK_REMOVE, "n1-d3");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	c = order(SET_DISK_REMOVE, "d4");
	CU_ASSERT_EQUAL(world_command(&w, &c), -ENOENT);
	struct volume *v = world_volume(&w, "vm1", 40 * GIB);
	for (uint32_t i = 0; i < 40; i++)
		CU_ASSERT_EQUAL(world_write(&w, v, i * GIB, data, 4096, 0), 0);
	CU_ASSERT_EQUAL(v->entry->facts.n_disks, 2);
	c = order(SET_DISK_REMOVE, "n1-d1");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EBUSY);
	CU_ASSERT(strstr(c.why, "vm1") != NULL);
	c.force = true;
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(look_disks(&w).n, 1);
	uint32_t failed = 0;
	for (uint32_t i = 0; i < 40; i++)
		failed += world_read(&w, v, i * GIB, data, 4096) == -EIO;
	CU_ASSERT(failed > 5 && failed < 35);
	world_stop(&w);
	CU_ASSERT_EQUAL(world_start(&w), 0); /* and it is still known that something lay there */
	v = world_head(&w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	for (uint32_t i = 0; i < 40; i++)
		failed -= world_read(&w, v, i * GIB, data, 4096) == -EIO;
	CU_ASSERT_EQUAL(failed, 0);
	CU_ASSERT_FALSE(look_volumes(&w).volumes[0].is_serving);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	c = order(SET_VOLUME_DELETE, "vm1");
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	world_until(&w, no_volume_is_left, &w);
	CU_ASSERT_PTR_NULL(w.set->disks[0]); /* nothing names it any more */
	world_close(&w);
	free(data);
}

static void a_disk_that_does_not_open_keeps_nobody_waiting(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096), *garbage = world_memory(4096);
	memset(data, 1, 4096);
	memset(garbage, 0xa5, 4096);
	world_open(&w, 9);
	world_add_disk(&w, DISK_BYTES);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", 40 * GIB);
	for (uint32_t i = 0; i < 40; i++)
		CU_ASSERT_EQUAL(world_write(&w, v, i * GIB, data, 4096, 0), 0);
	world_stop(&w);
	for (unsigned slot = 0; slot < SUPERBLOCK_SLOTS; slot++)
		sim_file_poke(world_disk_file(&w, 2), superblock_slot_block(slot), garbage);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT(world_events(&w, "disk-not-opened") > 0);
	struct look l = look_disks(&w);
	CU_ASSERT(l.disks[0].is_open && !l.disks[1].is_open && l.disks[1].why[0]);
	v = world_head(&w, "vm1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	uint32_t failed = 0;
	for (uint32_t i = 0; i < 40; i++)
		failed += world_read(&w, v, i * GIB, data, 4096) == -EIO;
	CU_ASSERT(failed > 5 && failed < 35);
	l = look_volumes(&w);
	CU_ASSERT(!l.volumes[0].is_serving && strstr(l.volumes[0].why, "n1-d2"));
	world_let_pass(&w, 3 * NS_PER_S);
	world_close(&w);
	free(data);
	free(garbage);
}

/* ---- trouble ---- */

static void a_store_that_loses_replies_changes_nothing(void)
{
	struct metadata_faults faults = {.lost_percent = 25, .doubled_percent = 25, .delay_max_ns = NS_PER_MS};
	struct metadata_faults none = {0};
	for (uint64_t seed = 1; seed < 25; seed++) {
		struct head_world w;
		uint8_t *data = world_memory(4096), *back = world_memory(4096);
		world_open(&w, 100 + seed);
		world_add_disk(&w, DISK_BYTES);
		world_add_disk(&w, DISK_BYTES);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		metadata_memory_set_faults(w.metadata, &faults);
		struct volume *v = world_volume(&w, "vm1", 800 * GIB);
		for (uint32_t i = 0; i < 30; i++) {
			memset(data, (int)i + 1, 4096);
			CU_ASSERT_EQUAL(world_write(&w, v, i * 25 * GIB, data, 4096, 0), 0);
		}
		struct set_command c = order_other(SET_VOLUME_RENAME, "vm1", "vm2");
		CU_ASSERT_EQUAL(world_command(&w, &c), 0);
		c = order(SET_VOLUME_RESIZE, "vm2");
		c.size_bytes = 900 * GIB;
		CU_ASSERT_EQUAL(world_command(&w, &c), 0);
		CU_ASSERT_EQUAL(world_create(&w, "gone", GIB), 0);
		c = order(SET_VOLUME_DELETE, "gone");
		CU_ASSERT_EQUAL(world_command(&w, &c), 0);
		c = order(SET_POOL_CREATE, "p");
		CU_ASSERT_EQUAL(world_command(&w, &c), 0);
		c = order(SET_POOL_DELETE, "p");
		CU_ASSERT_EQUAL(world_command(&w, &c), 0);
		world_stop(&w);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		v = world_head(&w, "vm2");
		CU_ASSERT_PTR_NOT_NULL_FATAL(v);
		CU_ASSERT_EQUAL(volume_size_bytes(v), 900 * GIB);
		CU_ASSERT_FALSE(v->is_fenced);
		for (uint32_t i = 0; i < 30; i++) {
			memset(data, (int)i + 1, 4096);
			CU_ASSERT_EQUAL(world_read(&w, v, i * 25 * GIB, back, 4096), 0);
			CU_ASSERT_EQUAL(memcmp(data, back, 4096), 0);
		}
		metadata_memory_set_faults(w.metadata, &none);
		world_close(&w);
		free(data);
		free(back);
	}
}

static void a_first_start_founds_a_cluster(void)
{
	struct head_world w = {0};
	w.sim = sim_create(11);
	w.machine = sim_machine_create(w.sim, "n1");
	CU_ASSERT_EQUAL_FATAL(log_create(-1, LOG_INFO, &w.log), 0);
	CU_ASSERT_EQUAL_FATAL(metadata_open_memory(sim_reactor(w.machine), &w.metadata), 0);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_EQUAL(look_pools(&w).n, 1);
	CU_ASSERT_STRING_EQUAL(look_pools(&w).pools[0].name, "default");
	struct uuid cluster = w.set->cluster;
	CU_ASSERT_FALSE(uuid_is_zero(&cluster));
	world_stop(&w);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT(uuid_equal(&cluster, &w.set->cluster));
	world_close(&w);
}

static void ignore_command(struct set_command *c, int res) {}

static void a_crash_at_any_moment_of_attach_is_survived(void)
{
	for (uint32_t steps = 1; steps < 120; steps += 3) {
		struct head_world w;
		uint8_t *data = world_memory(4096);
		struct set_command c = order_other(SET_VOLUME_ATTACH, "vm1", "nbd");
		memset(data, 5, 4096);
		world_open(&w, 12);
		world_add_disk(&w, DISK_BYTES);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		struct volume *v = world_volume(&w, "vm1", GIB);
		CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, VOLUME_FUA), 0);
		CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
		c.done = ignore_command;
		volume_set_command(w.set, &c);
		for (uint32_t i = 0; i < steps; i++)
			sim_step(w.sim);
		world_crash(&w, SIM_POWER_LOSS);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		CU_ASSERT_EQUAL(world_attach(&w, "vm1"), 0);
		memset(data, 0, 4096);
		CU_ASSERT_EQUAL(world_read(&w, world_head(&w, "vm1"), 0, data, 4096), 0);
		CU_ASSERT_EQUAL(data[4095], 5);
		world_close(&w);
		free(data);
	}
}

struct slow_lines {
	uint32_t n;
	char last[400];
};

static void slow_line(const char *line, void *context)
{
	struct slow_lines *l = context;
	CU_ASSERT(strlen(line) > 10);
	text_print(l->last, sizeof(l->last), "%s", line);
	l->n++;
}

static void ignore_io(struct volume_io *io, int res) {}

static void slow_requests_are_named(void)
{
	struct head_world w;
	uint8_t *data = world_memory(4096);
	struct iovec iov = {data, 4096};
	struct volume_io io = {.op = VOLUME_WRITE, .len_bytes = 4096, .iov = &iov, .n_iov = 1, .done = ignore_io};
	struct slow_lines l = {0};
	memset(data, 1, 4096);
	world_open(&w, 13);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", GIB);
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, 4096, 0), 0);
	sim_file_faults(world_disk_file(&w, 1))->slow_ppm = 1000000;
	sim_file_faults(world_disk_file(&w, 1))->slow_ns = 10 * NS_PER_S;
	volume_submit(v, &io);
	world_let_pass(&w, 2 * NS_PER_S);
	volume_set_slow_requests(w.set, NS_PER_S, slow_line, &l);
	CU_ASSERT_EQUAL(l.n, 2); /* the request and its part, which says where it stands in the disk */
	CU_ASSERT_PTR_NOT_NULL(
	    strstr(l.last, "write of 1 blocks at 0 on disk n1-d1: SETTLE: GATHER, waits for its data"));
	CU_ASSERT_PTR_NOT_NULL(strstr(l.last, ", 1 at the device"));
	sim_file_faults(world_disk_file(&w, 1))->slow_ppm = 0;
	world_let_pass(&w, 20 * NS_PER_S);
	l.n = 0;
	volume_set_slow_requests(w.set, NS_PER_S, slow_line, &l);
	CU_ASSERT_EQUAL(l.n, 0);
	world_close(&w);
	free(data);
}

/* ---- disk add: formats on a thread, so on a real reactor ---- */

struct real {
	struct reactor *reactor;
	struct head_world w;
	char folder[64];
	struct set_command command, second;
	int step;
	bool is_second_refused;
};

static void real_stopped(void *context)
{
	reactor_stop(((struct real *)context)->reactor);
}

static void real_done(struct set_command *c, int res);

static void real_add(struct real *r, uint64_t size_bytes)
{
	r->command = (struct set_command){.kind = SET_DISK_ADD, .size_bytes = size_bytes, .done = real_done};
	text_print(r->command.path, sizeof(r->command.path), "%s/d1", r->folder);
	volume_set_command(r->w.set, &r->command);
}

static void real_done(struct set_command *c, int res)
{
	struct real *r = container_of(c, struct real, command);
	switch (r->step++) {
	case 0: /* the same again */
		CU_ASSERT_EQUAL(res, 0);
		CU_ASSERT_EQUAL(look_disks(&r->w).n, 1);
		CU_ASSERT_STRING_EQUAL(look_disks(&r->w).disks[0].name, "n1-d1");
		real_add(r, 32 * MIB);
		return;
	case 1: /* another size */
		CU_ASSERT_EQUAL(res, 0);
		real_add(r, 64 * MIB);
		return;
	case 2: /* removed, and added again: it holds data of a quarry disk, but nothing of anybody */
		CU_ASSERT_EQUAL(res, -EEXIST);
		r->command = order(SET_DISK_REMOVE, "n1-d1");
		r->command.done = real_done;
		volume_set_command(r->w.set, &r->command);
		return;
	case 3:
		CU_ASSERT_EQUAL(res, 0);
		CU_ASSERT_EQUAL(look_disks(&r->w).n, 0);
		real_add(r, 32 * MIB);
		return;
	case 4:
		CU_ASSERT_EQUAL(res, 0);
		real_add(r, 33); /* not whole blocks */
		return;
	default:
		CU_ASSERT_EQUAL(res, -EINVAL);
		volume_set_stop(r->w.set, real_stopped, r);
	}
}

static void real_second_done(struct set_command *c, int res)
{
	struct real *r = container_of(c, struct real, second);
	CU_ASSERT_EQUAL(res, -EAGAIN);
	CU_ASSERT_STRING_EQUAL(c->code, "busy");
	CU_ASSERT_EQUAL(r->step, 0); /* at once, not after the first */
	r->is_second_refused = true;
}

static void real_ready(struct volume_set *s, int res, void *context)
{
	struct real *r = context;
	CU_ASSERT_EQUAL(res, 0);
	real_add(r, 32 * MIB);
	r->second = r->command;
	r->second.done = real_second_done;
	volume_set_command(s, &r->second);
}

static void disks_are_added(void)
{
	struct real r = {.folder = "/tmp/quarry-set-XXXXXX"};
	struct reactor_options options = {0};
	char path[96];
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(r.folder));
	CU_ASSERT_EQUAL_FATAL(reactor_create(&options, &r.reactor), 0);
	CU_ASSERT_EQUAL_FATAL(log_create(-1, LOG_INFO, &r.w.log), 0);
	CU_ASSERT_EQUAL_FATAL(metadata_open_memory(r.reactor, &r.w.metadata), 0);
	struct volume_set_options o = {.reactor = r.reactor,
				       .log = r.w.log,
				       .metadata = r.w.metadata,
				       .node_name = "n1",
				       .cache_bytes = WORLD_CACHE_BYTES};
	CU_ASSERT_EQUAL_FATAL(volume_set_start(&o, real_ready, &r, &r.w.set), 0);
	reactor_run(r.reactor);
	CU_ASSERT_EQUAL(r.step, 6);
	CU_ASSERT(r.is_second_refused);
	metadata_close(r.w.metadata);
	reactor_destroy(r.reactor);
	log_destroy(r.w.log);
	snprintf(path, sizeof(path), "%s/d1", r.folder);
	CU_ASSERT_EQUAL(unlink(path), 0);
	CU_ASSERT_EQUAL(rmdir(r.folder), 0);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("volume set", NULL, NULL);
	CU_add_test(suite, "volumes are created once", volumes_are_created_once);
	CU_add_test(suite, "renames may be repeated", renames_may_be_repeated);
	CU_add_test(suite, "attachments may be repeated", attachments_may_be_repeated);
	CU_add_test(suite, "attachments beside each other", attachments_beside_each_other);
	CU_add_test(suite, "clients are told of a detach", clients_are_told_of_a_detach);
	CU_add_test(suite, "a deleted volume gives its space back", a_deleted_volume_gives_its_space_back);
	CU_add_test(suite, "a deletion goes on after a crash", a_deletion_goes_on_after_a_crash);
	CU_add_test(suite, "what a pool promises", what_a_pool_promises_has_a_bound);
	CU_add_test(suite, "pools are kept in order", pools_are_kept_in_order);
	CU_add_test(suite, "a disk with data is removed only by force", a_disk_with_data_is_removed_only_by_force);
	CU_add_test(suite, "a disk that does not open keeps nobody waiting",
		    a_disk_that_does_not_open_keeps_nobody_waiting);
	CU_add_test(suite, "a store that loses replies changes nothing", a_store_that_loses_replies_changes_nothing);
	CU_add_test(suite, "a first start founds a cluster", a_first_start_founds_a_cluster);
	CU_add_test(suite, "a crash at any moment of attach is survived", a_crash_at_any_moment_of_attach_is_survived);
	CU_add_test(suite, "slow requests are named", slow_requests_are_named);
	CU_add_test(suite, "disks are added", disks_are_added);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
