/*
 * test_set_nodes.c: several nodes on one store: what each sees and may do, and what becomes of a volume whose node has
 * no lease. The nodes are volume sets in one process, each with its own lease, over a store that may be slow.
 */
#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES   (64 * MIB)
#define VOLUME_BYTES (2 * GIB)

struct cluster {
	struct head_world n1, n2;
};

static void cluster_open(struct cluster *c, uint64_t seed)
{
	world_open(&c->n1, seed);
	world_open_beside(&c->n2, &c->n1, "n2");
	world_add_disk(&c->n1, DISK_BYTES);
	world_add_disk(&c->n2, DISK_BYTES);
	CU_ASSERT_EQUAL_FATAL(world_start(&c->n1), 0);
	CU_ASSERT_EQUAL_FATAL(world_start(&c->n2), 0);
}

static void cluster_close(struct cluster *c)
{
	world_close(&c->n2);
	world_close(&c->n1);
}

/* News travel within a turn or two. */
static void settle(struct cluster *c)
{
	world_let_pass(&c->n1, 10 * NS_PER_MS);
}

struct count {
	uint32_t n, n_elsewhere;
};
static void count_disk(const struct disk_view *v, void *context)
{
	struct count *c = context;
	c->n++;
	c->n_elsewhere += v->is_elsewhere;
}
static void count_volume(const struct volume_view *v, void *context)
{
	struct count *c = context;
	c->n++;
	c->n_elsewhere += v->is_elsewhere;
}

static struct count disks_of(struct head_world *w)
{
	struct count c = {0};
	volume_set_disks(w->set, count_disk, &c);
	return c;
}
static struct count volumes_of(struct head_world *w)
{
	struct count c = {0};
	volume_set_volumes(w->set, count_volume, &c);
	return c;
}

static int world_takeover(struct head_world *w, const char *name)
{
	struct set_command c = order_other(SET_VOLUME_ATTACH, name, "nbd");
	c.takeover = true;
	return world_command(w, &c);
}

/* ---- what each sees ---- */

static void test_all_see_all(void)
{
	struct cluster c;
	cluster_open(&c, 1);
	CU_ASSERT_EQUAL(disks_of(&c.n1).n, 2);
	CU_ASSERT_EQUAL(disks_of(&c.n2).n_elsewhere, 1);
	CU_ASSERT_EQUAL(world_create(&c.n1, "v", VOLUME_BYTES), 0);
	settle(&c);
	CU_ASSERT_EQUAL(volumes_of(&c.n2).n, 1);
	CU_ASSERT_EQUAL(world_create(&c.n2, "v", VOLUME_BYTES), 0); /* the same: done */
	CU_ASSERT_EQUAL(world_create(&c.n2, "v", 2 * VOLUME_BYTES), -EEXIST);
	struct set_command rename = order_other(SET_VOLUME_RENAME, "v", "u");
	CU_ASSERT_EQUAL(world_command(&c.n2, &rename), 0);
	settle(&c);
	CU_ASSERT_PTR_NULL(set_volume_find(c.n1.set, "v"));
	CU_ASSERT_EQUAL(world_attach(&c.n1, "u"), 0);
	settle(&c);
	CU_ASSERT_EQUAL(volumes_of(&c.n2).n_elsewhere, 1);
	CU_ASSERT_EQUAL(volumes_of(&c.n1).n_elsewhere, 0);
	CU_ASSERT_EQUAL(world_detach(&c.n1, "u"), 0);
	struct set_command delete = order(SET_VOLUME_DELETE, "u");
	CU_ASSERT_EQUAL(world_command(&c.n2, &delete), 0);
	world_let_pass(&c.n1, 2 * NS_PER_S);
	CU_ASSERT_EQUAL(volumes_of(&c.n1).n, 0);
	CU_ASSERT_EQUAL(volumes_of(&c.n2).n, 0);
	cluster_close(&c);
}

/* A disk and its file's path belong to their node. */
static void test_disks_are_their_nodes(void)
{
	struct cluster c;
	cluster_open(&c, 2);
	struct set_command scrub = order(SET_DISK_SCRUB, "n1-d1");
	CU_ASSERT_EQUAL(world_command(&c.n2, &scrub), -EREMOTE);
	CU_ASSERT_STRING_EQUAL(scrub.code, "elsewhere");
	CU_ASSERT_PTR_NOT_NULL(strstr(scrub.why, "node n1"));
	CU_ASSERT_PTR_NULL(set_disk_find(c.n2.set, "d1"));
	CU_ASSERT_PTR_NOT_NULL(set_disk_find(c.n1.set, "d1"));
	struct set_command removal = order(SET_DISK_REMOVE, "n1-d1");
	removal.force = true;
	CU_ASSERT_EQUAL(world_command(&c.n2, &removal), -EREMOTE); /* its node is alive */
	cluster_close(&c);
}

/* ---- one head ---- */

static void test_attached_once(void)
{
	struct cluster c;
	cluster_open(&c, 3);
	struct volume *v = world_volume(&c.n1, "v", VOLUME_BYTES);
	void *data = world_memory(BLOCK_BYTES);
	memset(data, 7, BLOCK_BYTES);
	CU_ASSERT_EQUAL(world_write(&c.n1, v, 0, data, BLOCK_BYTES, 0), 0);
	settle(&c);
	CU_ASSERT_EQUAL(world_attach(&c.n2, "v"), -EREMOTE);
	CU_ASSERT_EQUAL(world_takeover(&c.n2, "v"), -EREMOTE);
	CU_ASSERT_PTR_NOT_NULL(strstr(c.n2.why, "n1, which is alive"));
	CU_ASSERT_EQUAL(world_detach(&c.n2, "v"), -EREMOTE);
	CU_ASSERT_EQUAL(world_snapshot(&c.n2, "v@s"), -EREMOTE);
	CU_ASSERT_EQUAL(world_detach(&c.n1, "v"), 0);
	settle(&c);
	CU_ASSERT_EQUAL(world_attach(&c.n2, "v"), -EREMOTE); /* its data are there */
	CU_ASSERT_PTR_NOT_NULL(strstr(c.n2.why, "disks of node n1"));
	CU_ASSERT_EQUAL(world_attach(&c.n1, "v"), 0);
	free(data);
	cluster_close(&c);
}

/* Both want it at the same moment, over a store that is slow and loses answers: one gets it. */
static bool racers_are_done(void *context)
{
	struct world_order *r = context;
	return r[0].is_done && r[1].is_done;
}

static void test_race_to_attach(void)
{
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct cluster c;
		cluster_open(&c, seed);
		CU_ASSERT_EQUAL(world_create(&c.n1, "v", VOLUME_BYTES), 0);
		settle(&c);
		metadata_memory_set_faults(c.n1.metadata, &(struct metadata_faults){.delay_max_ns = 20 * NS_PER_MS,
										    .lost_percent = 20,
										    .doubled_percent = 20});
		struct world_order r[2] = {{.command = order_other(SET_VOLUME_ATTACH, "v", "nbd")},
					   {.command = order_other(SET_VOLUME_ATTACH, "v", "nbd")}};
		world_order_start(&c.n1, &r[0]);
		world_order_start(&c.n2, &r[1]);
		world_until(&c.n1, racers_are_done, r);
		CU_ASSERT_EQUAL((r[0].res == 0) + (r[1].res == 0), 1);
		CU_ASSERT_EQUAL((world_head(&c.n1, "v") != NULL) + (world_head(&c.n2, "v") != NULL), 1);
		metadata_memory_set_faults(c.n1.metadata, &(struct metadata_faults){0});
		cluster_close(&c);
	}
}

/* ---- without a lease ---- */

static void block_start(struct world_request *r, struct volume *v, enum volume_op op, void *data)
{
	*r = (struct world_request){.io = {.op = op, .len_bytes = BLOCK_BYTES}, .iov = {data, BLOCK_BYTES}};
	world_request_start(v, r);
}

/* It has run out and cannot be renewed: no answer, until it is back; then the same answer as ever. */
static void test_waits_for_its_lease(void)
{
	struct cluster c;
	struct world_request read, write;
	cluster_open(&c, 4);
	struct volume *v = world_volume(&c.n1, "v", VOLUME_BYTES);
	void *data = world_memory(BLOCK_BYTES), *back = world_memory(BLOCK_BYTES);
	memset(data, 7, BLOCK_BYTES);
	CU_ASSERT_EQUAL(world_write(&c.n1, v, 0, data, BLOCK_BYTES, 0), 0);
	/* renewals take longer than the lease */
	metadata_memory_set_faults(c.n1.metadata, &(struct metadata_faults){.delay_max_ns = 20 * NS_PER_S});
	for (uint32_t i = 0; i < 100 && !c.n1.set->lease.is_lapsed; i++)
		world_let_pass(&c.n1, 100 * NS_PER_MS);
	CU_ASSERT_FATAL(c.n1.set->lease.is_lapsed);
	block_start(&write, v, VOLUME_WRITE, data);
	block_start(&read, v, VOLUME_READ, back);
	world_let_pass(&c.n1, 500 * NS_PER_MS);
	if (c.n1.set->lease.is_lapsed) {
		CU_ASSERT_FALSE(read.is_done || write.is_done);
		CU_ASSERT_PTR_NOT_NULL(strstr(v->why, "no lease"));
	}
	metadata_memory_set_faults(c.n1.metadata, &(struct metadata_faults){0});
	world_until(&c.n1, world_request_is_done, &read);
	world_until(&c.n1, world_request_is_done, &write);
	CU_ASSERT_EQUAL(read.res, 0);
	CU_ASSERT_EQUAL(write.res, 0);
	CU_ASSERT_EQUAL(memcmp(data, back, BLOCK_BYTES), 0);
	CU_ASSERT_EQUAL(v->why[0], 0);
	CU_ASSERT(world_events(&c.n1, "lease-lost") > 0);
	free(data);
	free(back);
	cluster_close(&c);
}

/* The store has ended it, and nobody took the volume: it goes on by itself. */
static void test_lease_ended_and_nobody_came(void)
{
	struct cluster c;
	cluster_open(&c, 5);
	struct volume *v = world_volume(&c.n1, "v", VOLUME_BYTES);
	void *data = world_memory(BLOCK_BYTES);
	memset(data, 7, BLOCK_BYTES);
	world_end_lease(&c.n1);
	world_let_pass(&c.n1, WORLD_LEASE_NS);
	CU_ASSERT_EQUAL(world_events(&c.n1, "lease-lost"), 1);
	CU_ASSERT_EQUAL(world_events(&c.n1, "lease-returned"), 1);
	CU_ASSERT_EQUAL(world_head(&c.n1, "v"), v);
	CU_ASSERT_EQUAL(world_write(&c.n1, v, 0, data, BLOCK_BYTES, 0), 0);
	free(data);
	cluster_close(&c);
}

/* Another node has taken it over meanwhile: what was asked of the old head fails, and the head goes. */
static void test_taken_over(void)
{
	struct cluster c;
	struct world_request read;
	cluster_open(&c, 6);
	struct volume *v = world_volume(&c.n1, "v", VOLUME_BYTES); /* nothing is written: any node can have it */
	void *data = world_memory(BLOCK_BYTES);
	world_end_lease(&c.n1);
	settle(&c);
	CU_ASSERT_FALSE(members_is_alive(c.n2.members, "n1"));
	CU_ASSERT_EQUAL(world_attach(&c.n2, "v"), -EREMOTE);
	v->refs++; /* a client, which is slow to go */
	CU_ASSERT_EQUAL(world_takeover(&c.n2, "v"), 0);
	block_start(&read, v, VOLUME_READ, data);
	world_until(&c.n1, world_request_is_done, &read);
	CU_ASSERT_EQUAL(read.res, -EIO);
	volume_put(v);
	world_let_pass(&c.n1, 2 * WORLD_LEASE_NS);
	CU_ASSERT_PTR_NULL(world_head(&c.n1, "v"));
	CU_ASSERT_EQUAL(world_events(&c.n1, "volume-fenced"), 1);
	CU_ASSERT_EQUAL(world_write(&c.n2, world_head(&c.n2, "v"), 0, data, BLOCK_BYTES, 0), 0);
	CU_ASSERT_EQUAL(world_attach(&c.n1, "v"), -EREMOTE);
	free(data);
	cluster_close(&c);
}

/* Clients are not kept waiting for ever. */
static void test_patience_ends(void)
{
	struct cluster c;
	struct world_request read, later;
	cluster_open(&c, 7);
	struct volume *v = world_volume(&c.n1, "v", VOLUME_BYTES);
	void *data = world_memory(BLOCK_BYTES);
	metadata_memory_set_faults(c.n1.metadata, &(struct metadata_faults){.delay_max_ns = 2000 * NS_PER_S});
	world_let_pass(&c.n1, 2 * WORLD_LEASE_NS);
	CU_ASSERT_FATAL(c.n1.set->lease.is_lapsed);
	block_start(&read, v, VOLUME_READ, data);
	world_let_pass(&c.n1, LEASE_PATIENCE_NS - 3 * WORLD_LEASE_NS);
	CU_ASSERT_FALSE(read.is_done);
	world_until(&c.n1, world_request_is_done, &read);
	CU_ASSERT_EQUAL(read.res, -EIO);
	block_start(&later, v, VOLUME_READ, data);
	world_let_pass(&c.n1, NS_PER_MS);
	CU_ASSERT(later.is_done);
	CU_ASSERT_EQUAL(later.res, -EIO);
	CU_ASSERT_EQUAL(world_events(&c.n1, "lease-waited"), 2); /* both nodes */
	metadata_memory_set_faults(c.n1.metadata, &(struct metadata_faults){0});
	world_let_pass(&c.n1, 4000 * NS_PER_S);
	block_start(&later, v, VOLUME_READ, data);
	world_until(&c.n1, world_request_is_done, &later);
	CU_ASSERT_EQUAL(later.res, 0);
	free(data);
	cluster_close(&c);
}

static bool pool_has(struct head_world *w, const char *pool, const char *volume)
{
	const struct set_volume *v = set_volume_find(w->set, volume);
	return v && strcmp(v->facts.pool, pool) == 0;
}

/* One node fills a pool while another deletes it: one of them is refused, whatever they have heard of each other. */
static void test_pool_deleted_and_filled(void)
{
	uint32_t n_deleted = 0;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct cluster c;
		struct world_order r[2] = {{.command = order(SET_VOLUME_CREATE, "v")},
					   {.command = order(SET_POOL_DELETE, "p")}};
		struct set_command pool = order(SET_POOL_CREATE, "p");
		cluster_open(&c, seed);
		CU_ASSERT_EQUAL(world_command(&c.n1, &pool), 0);
		settle(&c);
		text_print(r[0].command.pool, sizeof(r[0].command.pool), "p");
		r[0].command.size_bytes = VOLUME_BYTES;
		metadata_memory_set_faults(c.n1.metadata, &(struct metadata_faults){.delay_max_ns = 20 * NS_PER_MS,
										    .lost_percent = 10,
										    .doubled_percent = 10});
		world_order_start(seed % 2 ? &c.n1 : &c.n2, &r[seed % 2 ? 0 : 1]);
		world_let_pass(&c.n1, seed % 3 * 10 * NS_PER_MS);
		world_order_start(seed % 2 ? &c.n2 : &c.n1, &r[seed % 2 ? 1 : 0]);
		world_until(&c.n1, racers_are_done, r);
		metadata_memory_set_faults(c.n1.metadata, &(struct metadata_faults){0});
		world_let_pass(&c.n1, NS_PER_S);
		CU_ASSERT_EQUAL(r[0].res == 0, pool_has(&c.n2, "p", "v"));
		CU_ASSERT_FALSE(r[0].res == 0 && !set_pool_find(c.n2.set, "p"));
		CU_ASSERT_FALSE(r[0].res == 0 && r[1].res == 0);
		n_deleted += r[1].res == 0;
		CU_ASSERT_EQUAL(world_create(&c.n1, "later", VOLUME_BYTES), 0);
		cluster_close(&c);
	}
	CU_ASSERT(n_deleted > 5 && n_deleted < 55); /* both happen */
}

/* A node that died: its disks can be given up by another, and are not used when it is back. */
static void test_dead_nodes_disk(void)
{
	struct cluster c;
	cluster_open(&c, 8);
	world_end_lease(&c.n2);
	settle(&c);
	struct set_command removal = order(SET_DISK_REMOVE, "n2-d11");
	CU_ASSERT_EQUAL(world_command(&c.n1, &removal), -EREMOTE);
	removal = order(SET_DISK_REMOVE, "n2-d11");
	removal.force = true;
	CU_ASSERT_EQUAL(world_command(&c.n1, &removal), 0);
	world_let_pass(&c.n1, WORLD_LEASE_NS);
	CU_ASSERT_EQUAL(disks_of(&c.n1).n, 1);
	CU_ASSERT_EQUAL(disks_of(&c.n2).n, 1); /* it has one again, and has heard */
	cluster_close(&c);
}

/* Everything dies at once: each node has its own again, and a name that the store has given is given. */
static void test_all_die(void)
{
	struct cluster c;
	cluster_open(&c, 9);
	struct volume *v = world_volume(&c.n1, "v", VOLUME_BYTES);
	void *data = world_memory(BLOCK_BYTES), *back = world_memory(BLOCK_BYTES);
	memset(data, 7, BLOCK_BYTES);
	CU_ASSERT_EQUAL(world_write(&c.n1, v, 0, data, BLOCK_BYTES, VOLUME_FUA), 0);
	world_volume(&c.n2, "u", VOLUME_BYTES);
	world_crash(&c.n1, SIM_KILL); /* one process, as it is one machine */
	volume_set_abandon(c.n2.set);
	members_abandon(c.n2.members);
	c.n2.set = NULL;
	c.n2.members = NULL;
	CU_ASSERT_EQUAL_FATAL(world_start(&c.n1), 0);
	CU_ASSERT_EQUAL_FATAL(world_start(&c.n2), 0);
	settle(&c);
	v = world_head(&c.n1, "v");
	CU_ASSERT_PTR_NOT_NULL_FATAL(v);
	CU_ASSERT_PTR_NOT_NULL(world_head(&c.n2, "u"));
	CU_ASSERT_PTR_NULL(world_head(&c.n1, "u"));
	CU_ASSERT_EQUAL(world_read(&c.n1, v, 0, back, BLOCK_BYTES), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, BLOCK_BYTES), 0);
	free(data);
	free(back);
	cluster_close(&c);
}

int main(void)
{
	CU_pSuite suite;
	if (CU_initialize_registry() != CUE_SUCCESS || !(suite = CU_add_suite("nodes of a set", NULL, NULL)))
		return 1;
	CU_add_test(suite, "all see all", test_all_see_all);
	CU_add_test(suite, "disks are their nodes'", test_disks_are_their_nodes);
	CU_add_test(suite, "attached once", test_attached_once);
	CU_add_test(suite, "a race to attach", test_race_to_attach);
	CU_add_test(suite, "waits for its lease", test_waits_for_its_lease);
	CU_add_test(suite, "lease ended, nobody came", test_lease_ended_and_nobody_came);
	CU_add_test(suite, "taken over", test_taken_over);
	CU_add_test(suite, "patience ends", test_patience_ends);
	CU_add_test(suite, "a pool is deleted and filled", test_pool_deleted_and_filled);
	CU_add_test(suite, "a dead node's disk", test_dead_nodes_disk);
	CU_add_test(suite, "all die", test_all_die);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures > 0;
}
