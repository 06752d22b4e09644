/*
 * test_disk_requests.c: the order of a disk's requests where they wait for room: a fork and the writes on its tree.
 */
#include "tests/unit/head_world.h"
#include "volumes/disk/disk_internal.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES   (64 * MIB)
#define WRITES_MAX   400u
#define RECORD_BYTES 40u /* no record is smaller than that of a write of one block */

struct crowd {
	struct volume_io ios[WRITES_MAX], late;
	struct iovec iov;
	struct disk_io fork;
	uint32_t n, n_done;
	bool is_forked, is_late_done;
};
static struct crowd crowd;

static void crowd_done(struct volume_io *io, int res)
{
	CU_ASSERT_EQUAL(res, 0);
	if (io == &crowd.late)
		crowd.is_late_done = true;
	else
		crowd.n_done++;
}

static void crowd_forked(struct disk_io *io, int res)
{
	CU_ASSERT_EQUAL(res, 0);
	crowd.is_forked = true;
}

static void crowd_write(struct volume *v, struct volume_io *io, uint64_t block)
{
	*io = (struct volume_io){.op = VOLUME_WRITE,
				 .pos_bytes = block * BLOCK_BYTES,
				 .len_bytes = BLOCK_BYTES,
				 .iov = &crowd.iov,
				 .n_iov = 1,
				 .done = crowd_done};
	volume_submit(v, io);
}

static bool crowd_is_over(void *context)
{
	return crowd.is_forked && crowd.is_late_done && crowd.n_done == crowd.n;
}

/* The journal has as many blocks in flight as it may, on a slow device, and no room in the one that is being filled. */
static void fill_the_journal(struct head_world *w, struct volume *v)
{
	const struct disk *d = w->set->disks[0]->disk;
	sim_file_faults(world_disk_file(w, 1))->slow_ppm = 1000000;
	sim_file_faults(world_disk_file(w, 1))->slow_ns = NS_PER_S;
	while (journal_has_room((struct journal *)&d->journal, 1, RECORD_BYTES, NULL)) {
		CU_ASSERT_FATAL(crowd.n < WRITES_MAX);
		crowd_write(v, &crowd.ios[crowd.n], crowd.n);
		crowd.n++;
		sim_step(w->sim); /* the turn in which the disk sends what it was given */
	}
}

static void a_fork_waits_for_what_came_while_it_waited(void)
{
	struct head_world w;
	uint8_t *data = world_memory(BLOCK_BYTES);
	memset(data, 1, BLOCK_BYTES);
	world_open(&w, 1);
	world_add_disk(&w, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	struct volume *v = world_volume(&w, "vm1", GIB), *other = world_volume(&w, "vm2", GIB);
	CU_ASSERT_EQUAL(world_write(&w, v, 0, data, BLOCK_BYTES, 0), 0);
	CU_ASSERT_EQUAL(world_write(&w, other, 0, data, BLOCK_BYTES, 0), 0);
	crowd = (struct crowd){.iov = {data, BLOCK_BYTES}};
	fill_the_journal(&w, other);
	struct disk_tree *tree = disk_tree_find(w.set->disks[0]->disk, volume_uuid(v), volume_tree(v));
	crowd.fork = (struct disk_io){.op = DISK_FORK,
				      .tree = tree,
				      .volume = *volume_uuid(v),
				      .tree_id = 1000,
				      .session = v->disks[0].replica.session,
				      .epoch = v->epoch,
				      .done = crowd_forked};
	CU_ASSERT_EQUAL(tree->n_changes, 0);
	disk_submit(w.set->disks[0]->disk, &crowd.fork);
	crowd_write(v, &crowd.late, 0);
	CU_ASSERT_EQUAL(crowd.fork.own.sequence, 0);
	while (crowd.fork.own.sequence == 0 && !crowd.is_forked)
		sim_step(w.sim);
	CU_ASSERT_EQUAL(tree->n_changes, 0);
	CU_ASSERT_TRUE(crowd.is_late_done);
	world_until(&w, crowd_is_over, NULL);
	world_close(&w);
	free(data);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("disk requests", NULL, NULL);
	CU_add_test(suite, "a fork waits for what came while it waited", a_fork_waits_for_what_came_while_it_waited);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
