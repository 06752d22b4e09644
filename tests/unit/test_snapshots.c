/*
 * test_snapshots.c: the commands of history on a whole volume set: take, read, delete, roll back, clone, compare,
 * measure, schedule; refused and interrupted ones; across restarts and crashes.
 */
#include "tests/unit/history_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void tree_count(const struct tree_record *t, void *context)
{
	uint32_t *n = context;
	n[t->state == TREE_DYING]++;
}

static uint32_t disk_trees(uint32_t number, bool counts_dying)
{
	uint32_t n[2] = {0};
	struct set_disk *d = w.set->disks[number];
	disk_trees_each(d->disk, tree_count, n);
	return n[0] + (counts_dying ? n[1] : 0);
}

static bool is_swept(void *context)
{
	return list_is_empty(&w.set->commands);
}

static void sweep(void)
{
	world_until(&w, is_swept, NULL);
}

static void command_over(struct set_command *o, int res)
{
	CU_ASSERT_EQUAL(res, 0);
}

/* ---- take, read, delete ---- */

static void a_snapshot_stays_as_it_was(void)
{
	open_world(1, 2);
	struct volume *v = world_volume(&w, "vm1", 4 * GIB);
	for (uint64_t i = 0; i < 4; i++)
		put(v, i * (GIB / BLOCK), (uint8_t)(1 + i));
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	for (uint64_t i = 0; i < 4; i++)
		put(v, i * (GIB / BLOCK), (uint8_t)(11 + i));
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@b"), 0);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 0, 4 * GIB, 0), 0);
	CU_ASSERT_EQUAL(world_attach(&w, "vm1@a"), 0);
	CU_ASSERT_EQUAL(world_attach(&w, "vm1@b"), 0);
	for (uint64_t i = 0; i < 4; i++) {
		CU_ASSERT_EQUAL(get(world_export(&w, "vm1@a"), i * (GIB / BLOCK)), (int)(1 + i));
		CU_ASSERT_EQUAL(get(world_export(&w, "vm1@b"), i * (GIB / BLOCK)), (int)(11 + i));
		CU_ASSERT_EQUAL(get(v, i * (GIB / BLOCK)), 0);
	}
	memset(data, 1, BLOCK);
	CU_ASSERT_EQUAL(world_write(&w, world_export(&w, "vm1@a"), 0, data, BLOCK, 0), -EROFS);
	/* attachments come back, whatever ended the daemon */
	for (int crash = 0; crash < 2; crash++) {
		if (crash)
			world_crash(&w, SIM_POWER_LOSS);
		else
			world_stop(&w);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		CU_ASSERT_EQUAL(get(world_export(&w, "vm1@a"), 0), 1);
		CU_ASSERT_EQUAL(get(world_export(&w, "vm1@b"), 0), 11);
	}
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@a"), -EBUSY);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1@a"), 0);
	CU_ASSERT_PTR_NULL(world_export(&w, "vm1@a"));
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@a"), 0);
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@a"), 0); /* the answer was lost, say */
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@c"), -ENOENT);
	CU_ASSERT_EQUAL(get(world_export(&w, "vm1@b"), GIB / BLOCK), 12);
	close_world();
}

static void deleting_gives_the_space_back(void)
{
	open_world(2, 1);
	struct volume *v = world_volume(&w, "vm1", GIB);
	struct disk_stats before, after;
	for (uint64_t i = 0; i < 20; i++)
		put(v, i * 300, 7);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	struct set_measure m = world_measure(&w, "vm1@a");
	CU_ASSERT_EQUAL(m.data_bytes, 20 * BLOCK);
	CU_ASSERT_EQUAL(m.unique_bytes, 0);
	CU_ASSERT_EQUAL(m.frees_bytes, 0);
	for (uint64_t i = 0; i < 12; i++)
		put(v, i * 300, 8);
	disk_checkpoint(w.set->disks[0]->disk); /* so that pages have blocks */
	world_let_pass(&w, NS_PER_S);
	m = world_measure(&w, "vm1@a");
	CU_ASSERT_EQUAL(m.unique_bytes, 12 * BLOCK);
	CU_ASSERT_TRUE(m.frees_bytes > m.unique_bytes);
	CU_ASSERT_EQUAL(world_measure(&w, "vm1").unique_bytes, 12 * BLOCK);
	disk_stats(w.set->disks[0]->disk, &before);
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@a"), 0);
	sweep();
	CU_ASSERT_EQUAL(disk_trees(0, false), 1);
	world_let_pass(&w, 5 * NS_PER_S);
	disk_checkpoint(w.set->disks[0]->disk);
	world_let_pass(&w, NS_PER_S);
	disk_stats(w.set->disks[0]->disk, &after);
	CU_ASSERT_EQUAL(disk_trees(0, true), 1);
	uint64_t freed = after.free_blocks + after.waiting_blocks - before.free_blocks - before.waiting_blocks;
	/* exact, but for the blocks of the disk's own tables */
	CU_ASSERT_TRUE(freed >= m.frees_bytes / BLOCK && freed <= m.frees_bytes / BLOCK + 4);
	close_world();
}

static void what_an_interrupted_delete_left_goes_at_the_start(void)
{
	open_world(3, 1);
	struct volume *v = world_volume(&w, "vm1", GIB);
	put(v, 1, 1);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@b"), 0);
	CU_ASSERT_EQUAL(disk_trees(0, false), 3);
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@a"), 0);
	world_crash(&w, SIM_KILL); /* recorded, and nothing dropped */
	CU_ASSERT_EQUAL(world_start(&w), 0);
	sweep();
	CU_ASSERT_EQUAL(disk_trees(0, false), 2);
	CU_ASSERT_PTR_NULL(snapshot_find(set_volume_find(w.set, "vm1"), "a"));
	CU_ASSERT_EQUAL(set_volume_find(w.set, "vm1")->n_snapshots, 1);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@b"), 0); /* of a volume that is not attached */
	sweep();
	CU_ASSERT_EQUAL(disk_trees(0, false), 1);
	CU_ASSERT_TRUE(list_is_empty(&set_volume_find(w.set, "vm1")->snapshots));
	CU_ASSERT_PTR_NULL(world_head(&w, "vm1"));
	close_world();
}

#define MANY 2000u

static const char *nth(uint32_t n)
{
	static char name[16];
	text_print(name, sizeof(name), "vm1@s%u", n);
	return name;
}

/* Each has a block of its own, and they go in another order. */
static void thousands_of_one_volume(void)
{
	world_open(&w, 20);
	world_add_disk(&w, 512 * MIB);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	data = world_memory(16 * BLOCK);
	back = world_memory(16 * BLOCK);
	struct volume *v = world_volume(&w, "vm1", GIB);
	struct set_volume *entry = set_volume_find(w.set, "vm1");
	for (uint32_t i = 0; i < MANY; i++) {
		put(v, i % 700 * 256, (uint8_t)(i % 250 + 1));
		CU_ASSERT_EQUAL_FATAL(world_snapshot(&w, nth(i)), 0);
	}
	CU_ASSERT_EQUAL(entry->n_snapshots, MANY);
	world_crash(&w, SIM_KILL);
	CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
	entry = set_volume_find(w.set, "vm1");
	for (uint32_t i = 0; i < MANY; i++) { /* 1009 and MANY have no factor in common */
		uint32_t n = (uint32_t)(i * 1009ull % MANY);
		struct set_snapshot *snap = snapshot_find(entry, nth(n) + strlen("vm1@"));
		CU_ASSERT_EQUAL_FATAL(snapshot_open(snap), 0);
		CU_ASSERT_EQUAL(get(snap->head, n % 700 * 256), n % 250 + 1);
		CU_ASSERT_EQUAL(get(snap->head, (n + 1) % 700 * 256), n < 699 ? 0 : (n - 699) % 250 + 1);
		snapshot_close(snap);
		CU_ASSERT_EQUAL_FATAL(world_snapshot_delete(&w, nth(n)), 0);
	}
	sweep();
	CU_ASSERT_EQUAL(entry->n_snapshots, 0);
	CU_ASSERT_EQUAL(disk_trees(0, false), 1);
	close_world();
}

static void commands_may_be_repeated(void)
{
	open_world(4, 1);
	struct set_command c = {.kind = SET_SNAPSHOT_CREATE, .n_targets = 2};
	CU_ASSERT_EQUAL(world_create(&w, "vm1", GIB), 0);
	CU_ASSERT_EQUAL(world_create(&w, "vm2", GIB), 0);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	CU_ASSERT_EQUAL(set_volume_find(w.set, "vm1")->n_snapshots, 1);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@-bad"), -EINVAL);
	CU_ASSERT_EQUAL(world_snapshot(&w, "nobody@a"), -ENOENT);
	text_print(c.targets[0].volume, sizeof(c.targets[0].volume), "%s", "vm1");
	text_print(c.targets[0].snapshot, sizeof(c.targets[0].snapshot), "%s", "a");
	text_print(c.targets[1].volume, sizeof(c.targets[1].volume), "%s", "vm2");
	text_print(c.targets[1].snapshot, sizeof(c.targets[1].snapshot), "%s", "a");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EEXIST);
	text_print(c.targets[1].volume, sizeof(c.targets[1].volume), "%s", "vm1");
	text_print(c.targets[1].snapshot, sizeof(c.targets[1].snapshot), "%s", "b");
	CU_ASSERT_EQUAL(world_command(&w, &c), -EINVAL); /* one volume twice */
	CU_ASSERT_EQUAL(world_rollback(&w, "vm1@nothing"), -ENOENT);
	CU_ASSERT_EQUAL(world_clone(&w, "vm1@nothing", "vm3"), -ENOENT);
	CU_ASSERT_EQUAL(world_clone(&w, "vm1@a", "vm2"), -EEXIST);
	CU_ASSERT_EQUAL(world_clone(&w, "vm1@a", "vm3"), 0);
	CU_ASSERT_EQUAL(world_clone(&w, "vm1@a", "vm3"), 0);
	c = (struct set_command){.kind = SET_VOLUME_DELETE, .object = "vm1"};
	CU_ASSERT_EQUAL(world_command(&w, &c), -EBUSY); /* it has a snapshot */
	CU_ASSERT_PTR_NOT_NULL(strstr(c.why, "--snapshots"));
	c.with_snapshots = true;
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	world_let_pass(&w, 20 * NS_PER_S);
	CU_ASSERT_EQUAL(w.set->volumes.next->next->next, &w.set->volumes); /* vm2 and vm3 */
	close_world();
}

/* ---- several volumes at one point ---- */

struct pair {
	struct volume_io io[2];
	struct iovec iov;
	struct volume *v[2];
	uint32_t n; /* pairs written */
	bool is_over, is_stopping;
};

static void pair_done(struct volume_io *io, int res);

/* The same stamp to the first volume, and when that is done to the second. */
static void pair_write(struct pair *p, unsigned which)
{
	memset(data, (int)(p->n & 0xff), BLOCK);
	p->iov = (struct iovec){data, BLOCK};
	p->io[which] = (struct volume_io){
	    .op = VOLUME_WRITE, .pos_bytes = 0, .len_bytes = BLOCK, .iov = &p->iov, .n_iov = 1, .done = pair_done};
	volume_submit(p->v[which], &p->io[which]);
}

static struct pair pair;

static void pair_done(struct volume_io *io, int res)
{
	CU_ASSERT_EQUAL_FATAL(res, 0);
	unsigned next = io == &pair.io[0];
	pair.n += next == 0;
	if (next == 0 && pair.is_stopping)
		pair.is_over = true;
	else
		pair_write(&pair, next);
}

static bool pair_is_over(void *context)
{
	return pair.is_over;
}

static bool is_held(void *context)
{
	return ((struct volume *)context)->is_held;
}

static bool is_taken(void *context)
{
	return snapshot_find(set_volume_find(w.set, "vm1"), context) != NULL;
}

static void much_is_flushed_before_writes_wait(void)
{
	open_world(18, 1);
	struct volume *v = world_volume(&w, "vm1", GIB);
	for (uint64_t b = 0; b < 200; b++)
		put(v, b, 1);
	CU_ASSERT_FATAL(v->disks[0].written - v->disks[0].flushed > 128);
	struct set_command c = {.kind = SET_SNAPSHOT_CREATE,
				.n_targets = 1,
				.targets = {{.volume = "vm1", .snapshot = "a"}},
				.done = command_over};
	volume_set_command(w.set, &c);
	world_until(&w, is_held, v);
	CU_ASSERT_EQUAL(v->disks[0].flushed, v->disks[0].written);
	world_until(&w, is_taken, "a");
	sweep();
	close_world();
}

static void several_volumes_have_one_point(void)
{
	for (uint64_t seed = 100; seed < 130; seed++) {
		struct set_command c = {.kind = SET_SNAPSHOT_CREATE, .n_targets = 2};
		open_world(seed, 2);
		pair = (struct pair){.n = 1, .v = {world_volume(&w, "vm1", GIB), world_volume(&w, "vm2", GIB)}};
		pair_write(&pair, 0);
		for (int i = 0; i < 2; i++) {
			text_print(c.targets[i].volume, sizeof(c.targets[i].volume), "vm%d", i + 1);
			text_print(c.targets[i].snapshot, sizeof(c.targets[i].snapshot), "%s", "s");
		}
		world_let_pass(&w, sim_below(w.sim, 50 * NS_PER_MS));
		CU_ASSERT_EQUAL(world_command(&w, &c), 0);
		pair.is_stopping = true;
		world_until(&w, pair_is_over, NULL);
		CU_ASSERT_TRUE(pair.n > 1);
		CU_ASSERT_EQUAL(world_attach(&w, "vm1@s"), 0);
		CU_ASSERT_EQUAL(world_attach(&w, "vm2@s"), 0);
		int first = get(world_export(&w, "vm1@s"), 0), second = get(world_export(&w, "vm2@s"), 0);
		CU_ASSERT_TRUE(first >= 0 && second >= 0);
		/* the second volume's write was sent when the first's was done */
		CU_ASSERT_TRUE(((first - second) & 0xff) <= 1);
		CU_ASSERT_EQUAL(world_command(&w, &c), 0); /* again: they are there */
		CU_ASSERT_TRUE(c.is_unchanged);
		close_world();
	}
}

static void two_moments_are_no_point(void)
{
	struct set_command c = {.kind = SET_SNAPSHOT_CREATE, .n_targets = 2};
	open_world(7, 2);
	for (int i = 0; i < 2; i++) {
		text_print(c.targets[i].volume, sizeof(c.targets[i].volume), "vm%d", i + 1);
		text_print(c.targets[i].snapshot, sizeof(c.targets[i].snapshot), "%s", "s");
		(void)world_volume(&w, c.targets[i].volume, GIB);
	}
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@s"), 0);
	world_let_pass(&w, NS_PER_MS);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm2@s"), 0);
	CU_ASSERT_EQUAL(world_command(&w, &c), -EEXIST);
	CU_ASSERT_FALSE(c.is_unchanged);
	close_world();
}

/* ---- views ---- */

struct sizes {
	uint64_t allocated[3], snapshots[3], disks[3], data[4];
	uint32_t n, n_snapshots;
};

static void sizes_take_volume(const struct volume_view *v, void *context)
{
	struct sizes *s = context;
	CU_ASSERT_FATAL(s->n < 3);
	s->allocated[s->n] = v->allocated_bytes / BLOCK;
	s->snapshots[s->n] = v->snapshots_bytes / BLOCK;
	for (uint32_t i = 0; i < v->n_disks; i++)
		s->disks[s->n] += v->on_disk[i].allocated_bytes / BLOCK;
	s->n++;
}

static void sizes_take_snapshot(const struct snapshot_view *v, void *context)
{
	struct sizes *s = context;
	CU_ASSERT_FATAL(s->n_snapshots < 4);
	s->data[s->n_snapshots++] = v->data_bytes / BLOCK;
}

static void views_tell_what_each_takes(void)
{
	struct sizes s = {0};
	open_world(6, 2);
	for (uint64_t n = 1; n <= 3; n++) {
		char name[] = "vm0", snapshot[] = "vm0@a";
		name[2] = snapshot[2] = (char)('0' + n);
		struct volume *v = world_volume(&w, name, 40 * GIB);
		for (uint64_t i = 0; i < 10 * n; i++)
			put(v, i * (GIB / BLOCK), 1);
		CU_ASSERT_EQUAL(world_snapshot(&w, snapshot), 0);
		put(v, 1, 2);
	}
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm2@b"), 0);
	volume_set_volumes(w.set, sizes_take_volume, &s);
	volume_set_snapshots(w.set, sizes_take_snapshot, &s);
	CU_ASSERT_EQUAL(s.n, 3);
	CU_ASSERT_EQUAL(s.n_snapshots, 4);
	for (uint64_t n = 1; n <= 3; n++) {
		CU_ASSERT_EQUAL(s.allocated[n - 1], 10 * n + 1);
		CU_ASSERT_EQUAL(s.disks[n - 1], 10 * n + 1);
		CU_ASSERT_EQUAL(s.snapshots[n - 1], n == 2 ? 41 : 10 * n);
	}
	CU_ASSERT_EQUAL(s.data[0], 10);
	CU_ASSERT_EQUAL(s.data[1], 20);
	CU_ASSERT_EQUAL(s.data[2], 21);
	CU_ASSERT_EQUAL(s.data[3], 30);
	close_world();
}

/* ---- roll back, clone ---- */

static void a_rollback_brings_back_content_and_size(void)
{
	open_world(5, 2);
	struct volume *v = world_volume(&w, "vm1", 2 * GIB);
	put(v, 0, 1);
	put(v, GIB / BLOCK, 2);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	put(v, 0, 3);
	put(v, 5, 4);
	struct set_command c = {.kind = SET_VOLUME_RESIZE, .object = "vm1", .size_bytes = 6 * GIB};
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	put(v, 5 * GIB / BLOCK, 9);
	CU_ASSERT_EQUAL(world_rollback(&w, "vm1@a"), -EBUSY);
	CU_ASSERT_PTR_NOT_NULL(strstr(w.why, "detach"));
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@b"), 0);
	CU_ASSERT_EQUAL(world_rollback(&w, "vm1@a"), 0);
	CU_ASSERT_PTR_NULL(world_head(&w, "vm1"));
	CU_ASSERT_EQUAL(world_attach(&w, "vm1"), 0);
	v = world_head(&w, "vm1");
	CU_ASSERT_EQUAL(volume_size_bytes(v), 2 * GIB);
	CU_ASSERT_EQUAL(get(v, 0), 1);
	CU_ASSERT_EQUAL(get(v, 5), 0);
	CU_ASSERT_EQUAL(get(v, GIB / BLOCK), 2);
	put(v, 5, 6);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_rollback(&w, "vm1@b"), 0); /* and forward again */
	world_crash(&w, SIM_POWER_LOSS);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	CU_ASSERT_EQUAL(world_attach(&w, "vm1"), 0);
	v = world_head(&w, "vm1");
	CU_ASSERT_EQUAL(volume_size_bytes(v), 6 * GIB);
	CU_ASSERT_EQUAL(get(v, 0), 3);
	CU_ASSERT_EQUAL(get(v, 5), 4);
	CU_ASSERT_EQUAL(get(v, 5 * GIB / BLOCK), 9);
	CU_ASSERT_EQUAL(disk_trees(0, false), 3);
	close_world();
}

static void clones_live_and_die_alone(void)
{
	open_world(6, 2);
	struct volume *v = world_volume(&w, "vm1", 3 * GIB), *c1, *c2;
	put(v, 0, 1);
	put(v, GIB / BLOCK, 2);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	put(v, 0, 3);
	put(v, 2 * GIB / BLOCK, 4); /* placed after the snapshot */
	CU_ASSERT_EQUAL(world_clone(&w, "vm1@a", "c1"), 0);
	CU_ASSERT_EQUAL(world_attach(&w, "c1"), 0);
	c1 = world_head(&w, "c1");
	CU_ASSERT_EQUAL(get(c1, 0), 1);
	CU_ASSERT_EQUAL(get(c1, GIB / BLOCK), 2);
	CU_ASSERT_EQUAL(get(c1, 2 * GIB / BLOCK), 0);
	put(c1, 0, 5);
	put(c1, 2 * GIB / BLOCK, 6);
	CU_ASSERT_EQUAL(world_snapshot(&w, "c1@b"), 0);
	CU_ASSERT_EQUAL(world_clone(&w, "c1@b", "c2"), 0);
	CU_ASSERT_EQUAL(world_attach(&w, "c2"), 0);
	c2 = world_head(&w, "c2");
	CU_ASSERT_EQUAL(get(c2, 0), 5);
	CU_ASSERT_EQUAL(get(c2, GIB / BLOCK), 2);
	put(c2, GIB / BLOCK, 7);
	/* the parents go */
	struct set_command c = {.kind = SET_VOLUME_DELETE, .object = "vm1", .with_snapshots = true};
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(world_detach(&w, "c1"), 0);
	c = (struct set_command){.kind = SET_VOLUME_DELETE, .object = "c1", .with_snapshots = true};
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	world_let_pass(&w, 20 * NS_PER_S);
	CU_ASSERT_PTR_NULL(set_volume_find(w.set, "c1"));
	CU_ASSERT_EQUAL(get(c2, 0), 5);
	CU_ASSERT_EQUAL(get(c2, GIB / BLOCK), 7);
	CU_ASSERT_EQUAL(get(c2, 2 * GIB / BLOCK), 6);
	CU_ASSERT_EQUAL(disk_trees(0, true) + disk_trees(1, true), 2);
	close_world();
}

/* A disk that joins when snapshots exist reads as holes in them, and takes part in what comes after. */
static void a_disk_that_joins_late_knows_the_snapshots(void)
{
	open_world(7, 2);
	struct volume *v = world_volume(&w, "vm1", 40 * GIB);
	put(v, 0, 1);
	CU_ASSERT_EQUAL(v->entry->facts.n_disks, 1);
	for (uint32_t i = 0; i < 40; i++) {
		char name[32];
		text_print(name, sizeof(name), "vm1@s%u", i);
		CU_ASSERT_EQUAL(world_snapshot(&w, name), 0);
	}
	for (uint64_t i = 1; i < 40; i++)
		put(v, i * (GIB / BLOCK), (uint8_t)i);
	CU_ASSERT_EQUAL_FATAL(v->entry->facts.n_disks, 2);
	CU_ASSERT_EQUAL(disk_trees(0, false), 41);
	CU_ASSERT_EQUAL(disk_trees(1, false), 41);
	CU_ASSERT_EQUAL(world_attach(&w, "vm1@s7"), 0);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@late"), 0);
	CU_ASSERT_EQUAL(world_attach(&w, "vm1@late"), 0);
	for (uint64_t i = 1; i < 40; i++) {
		CU_ASSERT_EQUAL(get(world_export(&w, "vm1@s7"), i * (GIB / BLOCK)), 0);
		CU_ASSERT_EQUAL(get(world_export(&w, "vm1@late"), i * (GIB / BLOCK)), (int)i);
	}
	close_world();
}

/* What asks for a barrier while one is under way gets the next one, also when nothing is written any more. */
static void a_barrier_that_is_asked_for_comes(void)
{
	for (uint64_t steps = 0; steps < 40; steps++) {
		open_world(400 + steps, 2);
		struct volume *v = world_volume(&w, "vm1", GIB);
		put(v, 0, 1);
		while (barrier_is_resting(v))
			sim_step(w.sim);
		for (uint64_t i = 0; i < steps; i++)
			sim_step(w.sim);
		if (steps % 2)
			CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
		CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
		close_world();
	}
}

/* ---- what is interrupted leaves nothing ---- */

static void crashes_leave_no_debris(void)
{
	for (uint64_t at = 1; at < 60; at++) {
		struct set_command snapshot = {.kind = SET_SNAPSHOT_CREATE, .n_targets = 1},
				   clone = {.kind = SET_VOLUME_CLONE, .n_targets = 1, .other = "c1"};
		open_world(200 + at, 2);
		struct volume *v = world_volume(&w, "vm1", 20 * GIB);
		for (uint64_t i = 0; i < 20; i++)
			put(v, i * (GIB / BLOCK), 1);
		CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
		bool is_clone = at % 2;
		struct set_command *c = is_clone ? &clone : &snapshot;
		text_print(c->targets[0].volume, sizeof(c->targets[0].volume), "%s", "vm1");
		text_print(c->targets[0].snapshot, sizeof(c->targets[0].snapshot), "%s", is_clone ? "a" : "b");
		c->done = command_over;
		volume_set_command(w.set, c);
		/* so many steps into it */
		for (uint64_t i = 0; i < at * 2; i++)
			sim_step(w.sim);
		world_crash(&w, at % 3 ? SIM_KILL : SIM_POWER_LOSS);
		CU_ASSERT_EQUAL_FATAL(world_start(&w), 0);
		sweep();
		world_let_pass(&w, 20 * NS_PER_S);
		struct set_volume *entry = set_volume_find(w.set, "vm1");
		uint32_t n = 1 + entry->n_snapshots + (set_volume_find(w.set, "c1") != NULL);
		CU_ASSERT_EQUAL(disk_trees(0, true), n);
		CU_ASSERT_EQUAL(disk_trees(1, true), n);
		CU_ASSERT_EQUAL(w.set->volumes.next->next == &w.set->volumes, !set_volume_find(w.set, "c1"));
		CU_ASSERT_EQUAL(get(world_head(&w, "vm1"), 0), 1);
		close_world();
	}
}

/* ---- what changed ---- */

static bool is_changed(const struct set_changes *c, uint64_t block)
{
	uint64_t at = 0;
	for (uint32_t i = 0; i < c->n_extents; i++) {
		if (block * BLOCK >= at && block * BLOCK < at + c->extents[i].len_bytes)
			return c->extents[i].is_changed;
		at += c->extents[i].len_bytes;
	}
	CU_FAIL("the extents end early");
	return false;
}

static void expect_changes(const char *name, const char *since, const uint64_t *blocks, uint32_t n)
{
	struct set_changes c = world_changes(&w, name, since);
	CU_ASSERT_EQUAL(c.next_bytes, c.size_bytes);
	uint32_t n_changed = 0;
	for (uint64_t b = 0; b < 40; b++)
		n_changed += is_changed(&c, b);
	for (uint32_t i = 0; i < n; i++)
		CU_ASSERT_TRUE(is_changed(&c, blocks[i]));
	CU_ASSERT_EQUAL(n_changed, n);
	free(c.extents);
}

static void changes_are_right_after_rollbacks_and_between_clones(void)
{
	open_world(8, 2);
	struct volume *v = world_volume(&w, "vm1", 2 * GIB);
	for (uint64_t b = 0; b < 40; b++)
		put(v, b, 1);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@a"), 0);
	expect_changes("vm1", "vm1@a", NULL, 0);
	put(v, 3, 2);
	CU_ASSERT_EQUAL(world_op(&w, v, VOLUME_TRIM, 5 * BLOCK, 2 * BLOCK, 0), 0);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@b"), 0);
	put(v, 9, 3);
	expect_changes("vm1@b", "vm1@a", (uint64_t[]){3, 5, 6}, 3);
	expect_changes("vm1@a", "vm1@b", (uint64_t[]){3, 5, 6}, 3);
	expect_changes("vm1", "vm1@a", (uint64_t[]){3, 5, 6, 9}, 4);
	expect_changes("vm1", "vm1@b", (uint64_t[]){9}, 1);
	expect_changes("vm1@a", "vm1@a", NULL, 0);
	CU_ASSERT_EQUAL(world_detach(&w, "vm1"), 0);
	CU_ASSERT_EQUAL(world_rollback(&w, "vm1@a"), 0);
	expect_changes("vm1", "vm1@a", NULL, 0);                  /* of a volume that is not attached */
	expect_changes("vm1", "vm1@b", (uint64_t[]){3, 5, 6}, 3); /* b's change undone */
	CU_ASSERT_EQUAL(world_attach(&w, "vm1"), 0);
	put(world_head(&w, "vm1"), 20, 4);
	expect_changes("vm1", "vm1@b", (uint64_t[]){3, 5, 6, 20}, 4);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@c"), 0);
	expect_changes("vm1@c", "vm1@b", (uint64_t[]){3, 5, 6, 20}, 4);
	CU_ASSERT_EQUAL(world_clone(&w, "vm1@b", "c1"), 0);
	CU_ASSERT_EQUAL(world_attach(&w, "c1"), 0);
	put(world_head(&w, "c1"), 30, 5);
	expect_changes("c1", "vm1@b", (uint64_t[]){30}, 1);
	expect_changes("c1", "vm1@c", (uint64_t[]){3, 5, 6, 20, 30}, 5);
	expect_changes("c1", "vm1@a", (uint64_t[]){3, 5, 6, 30}, 4);
	/* a snapshot between goes, and its line is pruned: the answers stay */
	CU_ASSERT_EQUAL(world_snapshot_delete(&w, "vm1@a"), 0);
	sweep();
	expect_changes("c1", "vm1@c", (uint64_t[]){3, 5, 6, 20, 30}, 5);
	expect_changes("vm1", "vm1@b", (uint64_t[]){3, 5, 6, 20}, 4);
	close_world();
}

/* ---- schedules ---- */

static void look_next(const struct volume_view *v, void *context)
{
	*(uint64_t *)context = v->next_snapshot_ns;
}

static uint64_t next_ns(void)
{
	uint64_t ns = 0;
	volume_set_volumes(w.set, look_next, &ns);
	return ns;
}

/* The first one is taken now, and not long ago. */
static void a_new_schedule_tells_when(void)
{
	open_world(24, 1);
	put(world_volume(&w, "vm1", GIB), 0, 1);
	struct set_volume *entry = set_volume_find(w.set, "vm1");
	CU_ASSERT_EQUAL(next_ns(), 0);
	entry->is_schedule_busy = true; /* as while it waits for other commands */
	struct set_command c = {.kind = SET_VOLUME_SCHEDULE, .object = "vm1", .every_s = 3600, .keep = 9};
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(next_ns(), reactor_wall_ns(w.set->reactor));
	entry->is_schedule_busy = false;
	schedules_plan(w.set);
	uint64_t from_ns = reactor_wall_ns(w.set->reactor);
	world_let_pass(&w, NS_PER_S);
	CU_ASSERT_EQUAL(entry->n_snapshots, 1);
	CU_ASSERT(next_ns() >= from_ns + 3600 * NS_PER_S && next_ns() <= from_ns + 3601 * NS_PER_S);
	close_world();
}

static void a_schedule_takes_and_keeps(void)
{
	open_world(9, 1);
	struct volume *v = world_volume(&w, "vm1", GIB);
	put(v, 0, 1);
	struct set_command c = {.kind = SET_VOLUME_SCHEDULE, .object = "vm1", .every_s = 9, .keep = 3};
	CU_ASSERT_EQUAL(world_command(&w, &c), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(w.why, SCHEDULE_LIMITS));
	c.every_s = 3600;
	c.keep = SCHEDULE_KEEP_MAX + 1;
	CU_ASSERT_EQUAL(world_command(&w, &c), -EINVAL);
	c.keep = 3;
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	CU_ASSERT_EQUAL(world_snapshot(&w, "vm1@mine"), 0);
	world_let_pass(&w, 10ull * 3600 * NS_PER_S + NS_PER_S);
	struct set_volume *entry = set_volume_find(w.set, "vm1");
	CU_ASSERT_EQUAL(entry->n_snapshots, 4);
	CU_ASSERT_PTR_NOT_NULL(snapshot_find(entry, "mine"));
	CU_ASSERT_EQUAL(disk_trees(0, true), 5);
	world_stop(&w);
	CU_ASSERT_EQUAL(world_start(&w), 0);
	world_let_pass(&w, 2ull * 3600 * NS_PER_S);
	entry = set_volume_find(w.set, "vm1");
	CU_ASSERT_EQUAL(entry->n_snapshots, 4);
	CU_ASSERT_PTR_NOT_NULL(snapshot_find(entry, "mine"));
	c = (struct set_command){.kind = SET_VOLUME_SCHEDULE, .object = "vm1"};
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	uint64_t history = entry->facts.history;
	world_let_pass(&w, 5ull * 3600 * NS_PER_S);
	CU_ASSERT_EQUAL(entry->facts.history, history);
	close_world();
}

/* The wall clock was a year ahead when the last one was taken. */
static void a_schedule_survives_a_wrong_clock(void)
{
	open_world(21, 1);
	put(world_volume(&w, "vm1", GIB), 0, 1);
	struct set_command c = {.kind = SET_VOLUME_SCHEDULE, .object = "vm1", .every_s = 3600, .keep = 9};
	CU_ASSERT_EQUAL(world_command(&w, &c), 0);
	world_let_pass(&w, NS_PER_S);
	struct set_volume *entry = set_volume_find(w.set, "vm1");
	CU_ASSERT_EQUAL_FATAL(entry->n_snapshots, 1);
	container_of(entry->snapshots.next, struct set_snapshot, link)->facts.created_ns += 365ull * 86400 * NS_PER_S;
	world_let_pass(&w, 2ull * 3600 * NS_PER_S + 120 * NS_PER_S);
	CU_ASSERT_TRUE(entry->n_snapshots == 3 || entry->n_snapshots == 4);
	close_world();
}

/* ---- a store far away ---- */

static void a_store_that_loses_replies_changes_nothing(void)
{
	for (uint64_t seed = 300; seed < 312; seed++) {
		open_world(seed, 2);
		metadata_memory_set_faults(w.metadata, &(struct metadata_faults){.delay_max_ns = 3 * NS_PER_MS,
										 .lost_percent = 30,
										 .doubled_percent = 20});
		struct volume *v = world_volume(&w, "vm1", 2 * GIB);
		put(v, 0, 1);
		for (uint32_t i = 0; i < 6; i++) {
			char name[32], clone[32];
			text_print(name, sizeof(name), "vm1@s%u", i);
			text_print(clone, sizeof(clone), "c%u", i);
			int res = world_snapshot(&w, name);
			CU_ASSERT_TRUE(res == 0 || res == -EBUSY);
			if (res == 0) {
				CU_ASSERT_EQUAL(world_attach(&w, name), 0);
				CU_ASSERT_EQUAL(get(world_export(&w, name), 0), (int)(1 + i));
				res = world_clone(&w, name, clone); /* -EIO: the outcome is not known */
				CU_ASSERT_TRUE(res == 0 || res == -EBUSY || res == -EIO);
			}
			put(v, 0, (uint8_t)(2 + i));
		}
		metadata_memory_set_faults(w.metadata, &(struct metadata_faults){0});
		world_stop(&w);
		CU_ASSERT_EQUAL(world_start(&w), 0);
		sweep();
		world_let_pass(&w, 20 * NS_PER_S);
		for (uint32_t i = 0; i < 6; i++) {
			char name[32];
			text_print(name, sizeof(name), "vm1@s%u", i);
			if (world_export(&w, name))
				CU_ASSERT_EQUAL(get(world_export(&w, name), 0), (int)(1 + i));
		}
		close_world();
	}
}

/* The record tells of snapshots that this node does not know: they are read without anybody's asking, also by a node with a
 * store of its own. */
static void what_the_record_knows_of_is_read(void)
{
	open_world(70, 1);
	struct volume *v = world_volume(&w, "v", GIB);
	put(v, 0, 1);
	struct set_volume *entry = set_volume_find(w.set, "v");
	char uuid[UUID_TEXT_BYTES], key[KEY_BYTES];
	struct volume_facts facts;
	CU_ASSERT_EQUAL_FATAL(volume_facts_copy(&entry->facts, &facts), 0);
	facts.history++;
	uuid_to_text(&facts.uuid, uuid);
	text_print(key, sizeof(key), VOLUME_KEY, uuid);
	world_put(&w, key, volume_to_json(&facts));
	volume_facts_clear(&facts);
	struct set_command rename = order_other(SET_VOLUME_RENAME, "v", "vm1");
	CU_ASSERT_EQUAL(world_command(&w, &rename), 0);
	CU_ASSERT_EQUAL(entry->facts.history, 1);
	world_let_pass(&w, NS_PER_S);
	CU_ASSERT_FALSE(entry->is_history_short);
	close_world();
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("snapshots", NULL, NULL);
	CU_add_test(suite, "a snapshot stays as it was", a_snapshot_stays_as_it_was);
	CU_add_test(suite, "what the record knows of is read", what_the_record_knows_of_is_read);
	CU_add_test(suite, "deleting gives the space back", deleting_gives_the_space_back);
	CU_add_test(suite, "interrupted deletes", what_an_interrupted_delete_left_goes_at_the_start);
	CU_add_test(suite, "thousands of one volume", thousands_of_one_volume);
	CU_add_test(suite, "commands may be repeated", commands_may_be_repeated);
	CU_add_test(suite, "much is flushed before writes wait", much_is_flushed_before_writes_wait);
	CU_add_test(suite, "several volumes have one point", several_volumes_have_one_point);
	CU_add_test(suite, "two moments are no point", two_moments_are_no_point);
	CU_add_test(suite, "views", views_tell_what_each_takes);
	CU_add_test(suite, "rollback", a_rollback_brings_back_content_and_size);
	CU_add_test(suite, "clones live and die alone", clones_live_and_die_alone);
	CU_add_test(suite, "a disk that joins late", a_disk_that_joins_late_knows_the_snapshots);
	CU_add_test(suite, "barriers that are asked for", a_barrier_that_is_asked_for_comes);
	CU_add_test(suite, "crashes leave no debris", crashes_leave_no_debris);
	CU_add_test(suite, "changes", changes_are_right_after_rollbacks_and_between_clones);
	CU_add_test(suite, "a new schedule tells when", a_new_schedule_tells_when);
	CU_add_test(suite, "schedules", a_schedule_takes_and_keeps);
	CU_add_test(suite, "schedules and a wrong clock", a_schedule_survives_a_wrong_clock);
	CU_add_test(suite, "lost replies", a_store_that_loses_replies_changes_nothing);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
