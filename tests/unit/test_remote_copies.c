/*
 * test_remote_copies.c: copies on the disks of several nodes, which speak to each other over the simulated network: where
 * they are placed, what becomes of them when a node goes and comes back, and who may be the head.
 */
#include "tests/unit/remote_world.h"

/* Has the disk of this node a live tree of the volume? */
static bool has_tree(struct head_world *w, const char *disk, const struct uuid *volume)
{
	return disk_tree_find(disk_of(w, disk)->disk, volume, 1) != NULL;
}

/* ---- who is seen ---- */

static void disks_come_and_go(void)
{
	struct cluster c;
	cluster_open(&c, 1, 3);
	struct head_world *w = &c.nodes[0];
	const struct set_disk *far = disk_of(w, "n2-d11"), *near = disk_of(&c.nodes[1], "n2-d11");
	CU_ASSERT_EQUAL(far->state, SET_DISK_RUNNING);
	CU_ASSERT_PTR_NULL(far->disk);
	CU_ASSERT_EQUAL(set_disk_room(far), set_disk_room(near));
	world_disconnect(w, &c.nodes[1]);
	CU_ASSERT_EQUAL(far->state, SET_DISK_ABSENT);
	CU_ASSERT_PTR_NOT_NULL(strstr(far->why, "cannot be reached"));
	world_connect(w, &c.nodes[1]);
	let_settle(&c);
	CU_ASSERT_EQUAL(far->state, SET_DISK_RUNNING);
	world_stop(&c.nodes[1]);
	let_settle(&c);
	CU_ASSERT_EQUAL(far->state, SET_DISK_ABSENT);
	CU_ASSERT_EQUAL_FATAL(world_start(&c.nodes[1]), 0);
	world_let_pass(w, 5 * NS_PER_S);
	CU_ASSERT_EQUAL(far->state, SET_DISK_RUNNING);
	cluster_close(&c);
}

/* ---- placement ---- */

static void first_copy_is_the_heads(void)
{
	struct cluster c;
	uint64_t disks, n[N_NODES] = {0};
	cluster_open(&c, 2, 3);
	struct head_world *w = &c.nodes[1];
	struct volume *v = volume_with_copies(w, "v", 2), *one = volume_with_copies(w, "one", 1);
	for (uint32_t i = 0; i < 200; i++) {
		CU_ASSERT_EQUAL_FATAL(placement_choose(v, 0, 0, &disks), 0);
		CU_ASSERT_EQUAL(__builtin_popcountll(disks), 2);
		for (uint32_t d = 0; d < N_NODES; d++)
			n[d] += disks >> d & 1;
	}
	uint32_t own = disk_of(w, "n2-d11")->index;
	CU_ASSERT_EQUAL(n[own], 200);
	for (uint32_t d = 0; d < N_NODES; d++)
		CU_ASSERT(n[d] > 60);
	CU_ASSERT_EQUAL(placement_choose(v, 1ull << own, 0, &disks), 0); /* unless it is full */
	CU_ASSERT_EQUAL(disks, 7 & ~(1ull << own));
	CU_ASSERT_EQUAL(placement_choose(one, 0, 0, &disks), 0); /* a single copy goes nowhere else */
	CU_ASSERT_EQUAL(disks, 1ull << own);
	CU_ASSERT_EQUAL(placement_choose(one, 1ull << own, 0, &disks), -ENOSPC);
	cluster_close(&c);
}

static void domains_are_nodes_and_racks(void)
{
	struct cluster c;
	struct pool_facts pool = {.name = "default", .failure_domain = DOMAIN_NODE};
	cluster_open(&c, 3, 3);
	struct head_world *w = &c.nodes[0];
	CU_ASSERT_EQUAL(placement_domains(w->set, &pool, 0), 3);
	pool.failure_domain = DOMAIN_RACK; /* two nodes are in one, the third in none */
	CU_ASSERT_EQUAL(placement_domains(w->set, &pool, 0), 2);
	pool.failure_domain = DOMAIN_ZONE; /* nobody says: each for itself */
	CU_ASSERT_EQUAL(placement_domains(w->set, &pool, 0), 3);
	struct set_command create = order(SET_VOLUME_CREATE, "four");
	create.size_bytes = VOLUME_BYTES;
	create.replicas = 4;
	CU_ASSERT_EQUAL(world_command(w, &create), -ENOSPC);
	CU_ASSERT_PTR_NOT_NULL(strstr(create.why, "are in 3:"));
	w->set->has_peers = false;
	create.replicas = 2;
	CU_ASSERT_EQUAL(world_command(w, &create), -ENOSPC);
	CU_ASSERT_PTR_NOT_NULL(strstr(create.why, "without peer.listen"));
	cluster_close(&c);
}

/* ---- copies ---- */

static void a_node_goes_and_comes_back(void)
{
	struct cluster c;
	cluster_open(&c, 4, 3);
	struct head_world *w = &c.nodes[0];
	volume_with_copies(w, "v", 3);
	struct uuid uuid = set_volume_find(w->set, "v")->facts.uuid;
	write_one(&c, w, "v", 0, 1);
	CU_ASSERT(has_tree(&c.nodes[1], "n2-d11", &uuid) && has_tree(&c.nodes[2], "n3-d21", &uuid));
	world_stop(&c.nodes[2]);
	write_one(&c, w, "v", 0, 2);
	CU_ASSERT_EQUAL(stale_copies(w, "v"), 1);
	write_one(&c, w, "v", 1, 3); /* a segment that it will not have */
	cluster_start_again(&c, 2);
	world_let_pass(w, 20 * NS_PER_S);
	CU_ASSERT_EQUAL(stale_copies(w, "v"), 0);
	CU_ASSERT_EQUAL(world_events(w, "copy-current"), 1);
	expect_one(&c, w, "v", 0, 2);
	/* It has all, and can be the head. */
	CU_ASSERT_EQUAL(world_detach(w, "v"), 0);
	let_settle(&c);
	CU_ASSERT_EQUAL(world_attach(&c.nodes[2], "v"), 0);
	CU_ASSERT_EQUAL(stale_copies(&c.nodes[2], "v"), 0);
	expect_one(&c, &c.nodes[2], "v", 0, 2);
	expect_one(&c, &c.nodes[2], "v", 1, 3);
	cluster_close(&c);
}

static void any_node_can_be_the_head(void)
{
	struct cluster c;
	cluster_open(&c, 5, 2);
	struct head_world *w = &c.nodes[2]; /* which has no disk */
	volume_with_copies(w, "v", 2);
	write_one(&c, w, "v", 0, 1);
	CU_ASSERT_EQUAL(world_snapshot(w, "v@s"), 0);
	write_one(&c, w, "v", 0, 2);
	CU_ASSERT_EQUAL(world_clone(w, "v@s", "clone"), 0);
	let_settle(&c);
	CU_ASSERT_EQUAL(world_attach(&c.nodes[0], "v"), -EREMOTE);
	CU_ASSERT_EQUAL(world_attach(&c.nodes[0], "clone"), 0);
	expect_one(&c, &c.nodes[0], "clone", 0, 1);
	CU_ASSERT_EQUAL(world_attach(w, "v@s"), 0);
	memset(c.data, 1, BLOCK_BYTES);
	CU_ASSERT_EQUAL(world_read(w, world_export(w, "v@s"), 0, c.back, BLOCK_BYTES), 0);
	CU_ASSERT_EQUAL(memcmp(c.data, c.back, BLOCK_BYTES), 0);
	CU_ASSERT_EQUAL(world_detach(w, "v@s"), 0);
	CU_ASSERT_EQUAL(world_detach(w, "v"), 0);
	let_settle(&c);
	CU_ASSERT_EQUAL(world_attach(&c.nodes[1], "v"), 0);
	expect_one(&c, &c.nodes[1], "v", 0, 2);
	cluster_close(&c);
}

static void taken_over_with_its_data(void)
{
	struct cluster c;
	cluster_open(&c, 6, 3);
	struct head_world *w = &c.nodes[0];
	volume_with_copies(w, "v", 3);
	write_one(&c, w, "v", 0, 1);
	let_settle(&c);
	world_end_lease(w);
	world_let_pass(w, 10 * NS_PER_MS);
	struct set_command take = order_other(SET_VOLUME_ATTACH, "v", "nbd");
	take.takeover = true;
	CU_ASSERT_EQUAL(world_command(&c.nodes[1], &take), 0);
	expect_one(&c, &c.nodes[1], "v", 0, 1);
	write_one(&c, &c.nodes[1], "v", 0, 2);
	world_let_pass(w, 10 * NS_PER_S);
	CU_ASSERT_PTR_NULL(world_head(w, "v"));
	CU_ASSERT_EQUAL(stale_copies(&c.nodes[1], "v"), 0);
	expect_one(&c, &c.nodes[1], "v", 0, 2);
	cluster_close(&c);
}

static void taken_over_when_its_node_is_lost(void)
{
	for (uint64_t seed = 20; seed < 30; seed++) {
		struct cluster c;
		cluster_open(&c, seed, 3);
		struct head_world *w = &c.nodes[0];
		volume_with_copies(w, "v", 3);
		volume_with_copies(w, "alone", 1);
		write_one(&c, w, "v", 0, 1);
		write_one(&c, w, "alone", 0, 1);
		let_settle(&c);
		world_stop(w);
		world_let_pass(&c.nodes[1], 30 * NS_PER_S);
		CU_ASSERT_PTR_NULL(only_head(&c, "v")); /* who was stopped is about to come back */
		world_put(&c.nodes[1], "nodes/n1", strdup("{\"state\":\"lost\",\"since_ns\":1,\"about\":{}}"));
		world_let_pass(&c.nodes[1], 2 * NS_PER_S);
		struct head_world *to = only_head(&c, "v");
		CU_ASSERT_PTR_NOT_NULL_FATAL(to);
		CU_ASSERT_EQUAL(world_events(to, "volume-taken-over"), 1);
		CU_ASSERT_PTR_NULL(only_head(&c, "alone")); /* nobody could read it */
		CU_ASSERT(set_volume_find(to->set, "v")->facts.is_attached_nbd);
		expect_one(&c, to, "v", 0, 1);
		write_one(&c, to, "v", 0, 2);
		/* It comes back, and has its single copy, and no more. */
		CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
		world_let_pass(w, 20 * NS_PER_S);
		CU_ASSERT_PTR_EQUAL(only_head(&c, "v"), to);
		expect_one(&c, w, "alone", 0, 1);
		CU_ASSERT_EQUAL(stale_copies(to, "v"), 0);
		expect_one(&c, to, "v", 0, 2);
		cluster_close(&c);
	}
}

static void handed_over(void)
{
	struct cluster c;
	cluster_open(&c, 12, 3);
	struct head_world *w = &c.nodes[0];
	volume_with_copies(w, "v", 2);
	volume_with_copies(w, "alone", 1);
	write_one(&c, w, "v", 0, 1);
	write_one(&c, w, "alone", 0, 1);
	let_settle(&c);
	struct set_command move = order_other(SET_VOLUME_MOVE, "v", "n3");
	CU_ASSERT_EQUAL(world_command(&c.nodes[1], &move), -EREMOTE);
	CU_ASSERT_STRING_EQUAL(move.node, "n1");
	move = order_other(SET_VOLUME_MOVE, "v", "n4");
	CU_ASSERT_EQUAL(world_command(w, &move), -ENOENT);
	move = order_other(SET_VOLUME_MOVE, "alone", "n3");
	CU_ASSERT_EQUAL(world_command(w, &move), -EINVAL);
	move = order_other(SET_VOLUME_MOVE, "v", "n3");
	CU_ASSERT_EQUAL(world_command(w, &move), 0);
	CU_ASSERT_FALSE(move.is_unchanged);
	let_settle(&c);
	CU_ASSERT_PTR_EQUAL(only_head(&c, "v"), &c.nodes[2]);
	expect_one(&c, &c.nodes[2], "v", 0, 1);
	write_one(&c, &c.nodes[2], "v", 0, 2);
	move = order_other(SET_VOLUME_MOVE, "v", "n3");
	CU_ASSERT_EQUAL(world_command(w, &move), 0);
	CU_ASSERT(move.is_unchanged);
	CU_ASSERT_EQUAL(stale_copies(w, "v"), 0);
	CU_ASSERT_EQUAL(world_detach(&c.nodes[2], "v"), 0);
	let_settle(&c);
	move = order_other(SET_VOLUME_MOVE, "v", "n1");
	CU_ASSERT_EQUAL(world_command(w, &move), -EINVAL); /* nobody serves it */
	cluster_close(&c);
}

/* The node that is to have it is gone by then: it stays where it was, and is served there again. */
static void not_handed_to_who_has_gone(void)
{
	uint32_t n_refused = 0;
	for (uint64_t seed = 0; seed < 6; seed++) {
		struct cluster c;
		struct world_order move = {.command = order_other(SET_VOLUME_MOVE, "v", "n3")};
		cluster_open(&c, 40 + seed, 3);
		struct head_world *w = &c.nodes[0];
		volume_with_copies(w, "v", 2);
		write_one(&c, w, "v", 0, 1);
		world_order_start(w, &move);
		if (seed % 2)
			world_stop(&c.nodes[2]);
		else
			world_end_lease(&c.nodes[2]);
		world_until(w, world_order_is_done, &move);
		if (seed % 2 && move.res == 0) /* it had it before it stopped, and has it when it is back */
			cluster_start_again(&c, 2);
		world_let_pass(w, 5 * NS_PER_S);
		struct head_world *now = only_head(&c, "v");
		CU_ASSERT_PTR_NOT_NULL_FATAL(now);
		CU_ASSERT_EQUAL(move.res == 0, now == &c.nodes[2]);
		n_refused += move.res != 0;
		expect_one(&c, now, "v", 0, 1);
		if (!c.nodes[2].set)
			cluster_start_again(&c, 2);
		cluster_close(&c);
	}
	CU_ASSERT(n_refused > 0);
}

/* One node makes the volume smaller while another begins to serve it: what that has acknowledged is there after. */
static void resized_by_its_head_alone(void)
{
	uint32_t n_small = 0, n_large = 0;
	for (uint64_t seed = 0; seed < 160; seed++) {
		struct cluster c;
		struct world_order resize = {.command = order(SET_VOLUME_RESIZE, "v")};
		struct world_order attach = {.command = order_other(SET_VOLUME_ATTACH, "v", "nbd")};
		cluster_open(&c, 50, 3);
		volume_with_copies(&c.nodes[0], "v", 2);
		write_one(&c, &c.nodes[0], "v", 0, 1);
		CU_ASSERT_EQUAL(world_detach(&c.nodes[0], "v"), 0);
		let_settle(&c);
		resize.command.size_bytes = 2 * GIB;
		resize.command.force = true;
		world_order_start(&c.nodes[0], &resize);
		for (uint64_t n = 0; n < 2 * seed; n++)
			sim_step(c.nodes[0].sim);
		world_order_start(&c.nodes[1], &attach);
		world_until(&c.nodes[0], world_order_is_done, &attach);
		struct head_world *w = attach.res == 0 ? &c.nodes[1] : &c.nodes[0];
		memset(c.data, 9, BLOCK_BYTES);
		bool is_written = attach.res == 0 && world_write(w, world_head(w, "v"), 3 * SEGMENT_BYTES, c.data,
								 BLOCK_BYTES, VOLUME_FUA) == 0;
		world_until(&c.nodes[0], world_order_is_done, &resize);
		let_settle(&c);
		n_large += is_written;
		n_small += resize.res == 0;
		CU_ASSERT_FALSE(is_written && resize.res == 0);
		if (is_written) {
			CU_ASSERT_EQUAL(world_detach(w, "v"), 0);
			CU_ASSERT_EQUAL_FATAL(world_attach(w, "v"), 0);
			expect_one(&c, w, "v", 3, 9);
		}
		cluster_close(&c);
	}
	CU_ASSERT(n_small > 0 && n_large > 0);
}

static void deleted_everywhere(void)
{
	struct cluster c;
	cluster_open(&c, 7, 3);
	struct head_world *w = &c.nodes[0];
	volume_with_copies(w, "v", 3);
	struct uuid uuid = set_volume_find(w->set, "v")->facts.uuid;
	struct volume_record record;
	write_one(&c, w, "v", 0, 1);
	CU_ASSERT_EQUAL(world_detach(w, "v"), 0);
	world_stop(&c.nodes[2]);
	struct set_command delete = order(SET_VOLUME_DELETE, "v");
	CU_ASSERT_EQUAL(world_command(w, &delete), 0);
	world_let_pass(w, 5 * NS_PER_S);
	CU_ASSERT_FALSE(disk_volume(disk_of(&c.nodes[1], "n2-d11")->disk, &uuid, &record));
	CU_ASSERT_PTR_NOT_NULL(set_volume_by_uuid(w->set, &uuid)); /* it waits for the third */
	CU_ASSERT_EQUAL_FATAL(world_start(&c.nodes[2]), 0);
	world_let_pass(w, 10 * NS_PER_S);
	CU_ASSERT_PTR_NULL(set_volume_by_uuid(w->set, &uuid));
	CU_ASSERT_FALSE(disk_volume(disk_of(&c.nodes[2], "n3-d21")->disk, &uuid, &record));
	cluster_close(&c);
}

/* Its head's node is the first to come back after all were gone: it waits for the disks. */
static void returns_when_its_disks_do(void)
{
	struct cluster c;
	cluster_open(&c, 8, 2);
	struct head_world *w = &c.nodes[2];
	volume_with_copies(w, "v", 2);
	write_one(&c, w, "v", 0, 1);
	for (uint32_t i = N_NODES; i-- > 0;)
		world_stop(&c.nodes[i]);
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	world_connect(w, &c.nodes[0]);
	world_connect(w, &c.nodes[1]);
	CU_ASSERT_PTR_NULL(world_head(w, "v"));
	CU_ASSERT_PTR_NOT_NULL(strstr(set_volume_find(w->set, "v")->why, "no current copy that can be reached"));
	CU_ASSERT_EQUAL_FATAL(world_start(&c.nodes[0]), 0);
	CU_ASSERT_EQUAL_FATAL(world_start(&c.nodes[1]), 0);
	world_let_pass(w, 20 * NS_PER_S);
	CU_ASSERT_PTR_NOT_NULL_FATAL(world_head(w, "v"));
	CU_ASSERT_EQUAL(world_events(w, "volume-returned"), 1);
	expect_one(&c, w, "v", 0, 1);
	CU_ASSERT_EQUAL(stale_copies(w, "v"), 0);
	cluster_close(&c);
}

/* ---- copies that go elsewhere ---- */

/* Bit per disk, as the node numbers them. */
static uint64_t disks_of_segment(struct head_world *w, const char *name, uint64_t segment)
{
	uint64_t disks = 0;
	CU_ASSERT_EQUAL(chunk_find(world_head(w, name), segment, &disks), PLACED_ON_DISKS);
	return disks;
}

/* A volume with two copies, one of them on the second node, whose head is the first. */
static void two_copies_here_and_there(struct cluster *c, uint64_t seed)
{
	struct head_world *w = &c->nodes[0];
	cluster_open(c, seed, 3);
	world_stop(&c->nodes[2]);
	volume_with_copies(w, "v", 2);
	for (uint64_t segment = 0; segment < 3; segment++)
		write_one(c, w, "v", segment, (uint8_t)(1 + segment));
	CU_ASSERT_EQUAL(world_snapshot(w, "v@s"), 0);
	write_one(c, w, "v", 1, 9);
	CU_ASSERT_EQUAL_FATAL(world_start(&c->nodes[2]), 0);
	world_let_pass(w, 3 * NS_PER_S); /* its disk is told of */
}

/* All of it lies on the first and the third node, and the third alone has it. */
static void expect_moved(struct cluster *c)
{
	struct head_world *w = &c->nodes[0];
	const struct set_disk *near = disk_of(w, "n1-d1"), *far = disk_of(w, "n3-d21");
	for (uint64_t segment = 0; segment < 3; segment++)
		CU_ASSERT_EQUAL(disks_of_segment(w, "v", segment), 1ull << near->index | 1ull << far->index);
	CU_ASSERT_EQUAL(set_volume_find(w->set, "v")->facts.n_disks, 2);
	CU_ASSERT_EQUAL(stale_copies(w, "v"), 0);
	CU_ASSERT_EQUAL(world_detach(w, "v"), 0);
	world_stop(w);
	world_let_pass(&c->nodes[2], WORLD_LEASE_NS);
	CU_ASSERT_EQUAL(world_attach(&c->nodes[2], "v"), 0);
	expect_one(c, &c->nodes[2], "v", 0, 1);
	expect_one(c, &c->nodes[2], "v", 1, 9);
	expect_one(c, &c->nodes[2], "v", 2, 3);
	CU_ASSERT_EQUAL(world_attach(&c->nodes[2], "v@s"), 0);
	memset(c->data, 2, BLOCK_BYTES);
	struct volume *s = world_export(&c->nodes[2], "v@s");
	CU_ASSERT_EQUAL(world_read(&c->nodes[2], s, SEGMENT_BYTES, c->back, BLOCK_BYTES), 0);
	CU_ASSERT_EQUAL(memcmp(c->data, c->back, BLOCK_BYTES), 0);
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
}

static void drained_to_another_node(void)
{
	struct cluster c;
	two_copies_here_and_there(&c, 9);
	struct head_world *w = &c.nodes[0];
	struct uuid uuid = set_volume_find(w->set, "v")->facts.uuid;
	struct set_command drain = order(SET_DISK_DRAIN, "n2-d11");
	CU_ASSERT_EQUAL(world_command(w, &drain), -EREMOTE);
	CU_ASSERT_EQUAL(world_command(&c.nodes[1], &drain), 0);
	world_let_pass(w, 20 * NS_PER_S);
	CU_ASSERT_EQUAL(world_events(&c.nodes[1], "disk-drained"), 1);
	CU_ASSERT_FALSE(has_tree(&c.nodes[1], "n2-d11", &uuid));
	expect_moved(&c);
	cluster_close(&c);
}

static void expect_snapshot(struct cluster *c, struct head_world *w)
{
	for (uint64_t segment = 0; segment < 3; segment++) {
		memset(c->data, (int)(1 + segment), BLOCK_BYTES);
		struct volume *s = world_export(w, "v@s");
		CU_ASSERT_EQUAL(world_read(w, s, segment * SEGMENT_BYTES, c->back, BLOCK_BYTES), 0);
		CU_ASSERT_EQUAL(memcmp(c->data, c->back, BLOCK_BYTES), 0);
	}
}

/* A node that serves a snapshot reads where it knows it to lie: nothing is taken away there by the node of the volume. */
static void not_drained_under_a_snapshot(void)
{
	struct cluster c;
	two_copies_here_and_there(&c, 14);
	struct head_world *w = &c.nodes[1];
	struct set_command move = order_other(SET_VOLUME_MOVE, "v", "n2");
	CU_ASSERT_EQUAL(world_command(&c.nodes[0], &move), 0);
	let_settle(&c);
	CU_ASSERT_EQUAL_FATAL(world_attach(w, "v@s"), 0);
	expect_snapshot(&c, w);
	move = order_other(SET_VOLUME_MOVE, "v", "n1");
	CU_ASSERT_EQUAL(world_command(w, &move), 0);
	let_settle(&c);
	CU_ASSERT_PTR_EQUAL(only_head(&c, "v"), &c.nodes[0]);
	struct set_command drain = order(SET_DISK_DRAIN, "n2-d11");
	CU_ASSERT_EQUAL(world_command(w, &drain), 0);
	world_let_pass(w, 20 * NS_PER_S);
	CU_ASSERT_EQUAL(world_events(w, "disk-drained"), 0);
	CU_ASSERT_PTR_NOT_NULL(
	    strstr(world_event(&c.nodes[0], "leave-stalled"), "snapshot s of volume v is attached on node n2"));
	expect_snapshot(&c, w);
	CU_ASSERT_EQUAL(world_detach(w, "v@s"), 0);
	world_let_pass(w, 70 * NS_PER_S);
	CU_ASSERT_EQUAL(world_events(w, "disk-drained"), 1);
	for (uint64_t segment = 0; segment < 3; segment++)
		expect_one(&c, &c.nodes[0], "v", segment, segment == 1 ? 9 : (uint8_t)(1 + segment));
	cluster_close(&c);
}

/* Nobody has it attached: one node sees to it, and only one. */
static void drained_by_one_node(void)
{
	struct cluster c;
	two_copies_here_and_there(&c, 10);
	struct head_world *w = &c.nodes[0];
	struct uuid uuid = set_volume_find(w->set, "v")->facts.uuid;
	CU_ASSERT_EQUAL(world_detach(w, "v"), 0);
	let_settle(&c);
	uint64_t generation = set_volume_find(w->set, "v")->facts.generation;
	struct set_command drain = order(SET_DISK_DRAIN, "n2-d11");
	CU_ASSERT_EQUAL(world_command(&c.nodes[1], &drain), 0);
	world_let_pass(w, 20 * NS_PER_S);
	CU_ASSERT_EQUAL(world_events(&c.nodes[1], "disk-drained"), 1);
	CU_ASSERT_FALSE(has_tree(&c.nodes[1], "n2-d11", &uuid));
	CU_ASSERT_EQUAL(set_volume_find(w->set, "v")->facts.generation, generation + 1);
	CU_ASSERT_PTR_NULL(world_head(w, "v"));
	CU_ASSERT_EQUAL(world_attach(w, "v"), 0);
	expect_one(&c, w, "v", 0, 1); /* and the chunk is known */
	expect_one(&c, w, "v", 1, 9);
	expect_one(&c, w, "v", 2, 3);
	expect_moved(&c);
	cluster_close(&c);
}

static void made_anew_when_a_node_is_gone(void)
{
	struct cluster c;
	two_copies_here_and_there(&c, 11);
	struct head_world *w = &c.nodes[0];
	struct uuid uuid = set_volume_find(w->set, "v")->facts.uuid;
	world_stop(&c.nodes[1]);
	world_let_pass(w, 300 * NS_PER_S); /* half of rebuild_after */
	CU_ASSERT_EQUAL(world_events(w, "rebuild-begun"), 0);
	world_let_pass(w, 330 * NS_PER_S);
	CU_ASSERT_EQUAL(world_events(w, "rebuild-begun"), 1);
	struct set_volume *entry = set_volume_find(w->set, "v");
	CU_ASSERT_EQUAL(entry->facts.n_disks, 3); /* it is not forgotten what is there, */
	CU_ASSERT_EQUAL_FATAL(world_start(&c.nodes[1]), 0);
	world_let_pass(w, 20 * NS_PER_S);
	CU_ASSERT_FALSE(has_tree(&c.nodes[1], "n2-d11", &uuid)); /* and it goes when the disk is back */
	expect_moved(&c);
	cluster_close(&c);
}

/* ---- compared with a snapshot of another volume ---- */

/* v with two snapshots, which differ in segment 1, and a clone of the first. Both are on the first node. */
static void volume_and_clone(struct cluster *c, uint64_t seed)
{
	struct head_world *w = &c->nodes[0];
	cluster_open(c, seed, 2);
	volume_with_copies(w, "v", 2);
	write_one(c, w, "v", 0, 1);
	write_one(c, w, "v", 1, 2);
	CU_ASSERT_EQUAL(world_snapshot(w, "v@a"), 0);
	write_one(c, w, "v", 1, 3);
	CU_ASSERT_EQUAL(world_snapshot(w, "v@b"), 0);
	CU_ASSERT_EQUAL(world_clone(w, "v@a", "clone"), 0);
	let_settle(c);
}

static struct set_command changes_order(const char *since)
{
	struct set_command o = order(SET_VOLUME_CHANGES, "clone");
	text_print(o.targets[0].volume, sizeof(o.targets[0].volume), "clone");
	text_print(o.since.volume, sizeof(o.since.volume), "v");
	text_print(o.since.snapshot, sizeof(o.since.snapshot), "%s", since);
	o.n_targets = 1;
	return o;
}

/* Which of the first eight segments begin with a block that may differ, as bits. */
static uint32_t changed_segments(struct head_world *w, const char *since)
{
	struct set_command o = changes_order(since);
	uint64_t pos = 0;
	uint32_t changed = 0;
	CU_ASSERT_EQUAL(world_command(w, &o), 0);
	for (uint32_t i = 0; i < o.changes.n_extents; i++) {
		const struct volume_extent *e = &o.changes.extents[i];
		for (uint32_t segment = 0; segment < 8; segment++)
			if (e->is_changed && segment * SEGMENT_BYTES >= pos &&
			    segment * SEGMENT_BYTES < pos + e->len_bytes)
				changed |= 1u << segment;
		pos += e->len_bytes;
	}
	free(o.changes.extents);
	return changed;
}

static void compared_where_both_are(void)
{
	struct cluster c;
	volume_and_clone(&c, 16);
	struct head_world *w = &c.nodes[1];
	CU_ASSERT_EQUAL_FATAL(world_attach(w, "clone"), 0);
	write_one(&c, w, "clone", 0, 4);
	let_settle(&c);
	struct volume_base *base = NULL;
	CU_ASSERT_EQUAL(changed_segments(w, "a"), 1); /* what it descends from need not be read */
	CU_ASSERT_EQUAL(volume_base_open(world_head(w, "clone"), "v@a", &base), 0);
	volume_base_close(base);
	struct set_command o = changes_order("b");
	CU_ASSERT_EQUAL(world_command(w, &o), -EREMOTE);
	CU_ASSERT_STRING_EQUAL(o.code, "elsewhere");
	CU_ASSERT_PTR_NOT_NULL(strstr(o.why, "quarry volume move clone n1"));
	CU_ASSERT_STRING_EQUAL(o.node, ""); /* n1 would refuse it, too */
	CU_ASSERT_EQUAL(volume_base_open(world_head(w, "clone"), "v@b", &base), -EREMOTE);
	struct set_command one = order(SET_VOLUME_SET, "clone");
	one.replicas = 1;
	CU_ASSERT_EQUAL(world_command(w, &one), 0);
	CU_ASSERT_EQUAL(world_command(w, &o), -EREMOTE);
	CU_ASSERT_PTR_NOT_NULL(strstr(o.why, "quarry volume move clone n1")); /* it had several copies: any node can */
	struct set_command move = order_other(SET_VOLUME_MOVE, "clone", "n1");
	CU_ASSERT_EQUAL(world_command(w, &move), 0);
	let_settle(&c);
	CU_ASSERT_EQUAL(changed_segments(&c.nodes[0], "b"), 3);
	CU_ASSERT_EQUAL(world_detach(&c.nodes[0], "clone"), 0);
	let_settle(&c);
	o = changes_order("b");
	CU_ASSERT_EQUAL(world_command(w, &o), -EREMOTE);
	CU_ASSERT_STRING_EQUAL(o.node, "n1"); /* which does it */
	CU_ASSERT_EQUAL(changed_segments(&c.nodes[0], "b"), 3);
	CU_ASSERT_EQUAL(world_detach(&c.nodes[0], "v"), 0);
	let_settle(&c);
	CU_ASSERT_EQUAL(changed_segments(w, "b"), 3);
	cluster_close(&c);
}

static int compare(struct head_world *w, struct volume_base *base)
{
	struct world_comparison comparison;
	world_comparison_start(&comparison, base, VOLUME_BYTES);
	world_until(w, world_comparison_is_done, &comparison);
	return comparison.res;
}

static void hand_to(struct cluster *c, const char *name, struct head_world *from, const char *node)
{
	struct set_command move = order_other(SET_VOLUME_MOVE, name, node);
	CU_ASSERT_EQUAL(world_command(from, &move), 0);
	let_settle(c);
}

/* A client on the first or the second node compares for a long time. Meanwhile the other node gets the volume that it
 * compares with, and deletes all of it. The first node is who frees its space: that waits for the client, if it is there. */
static void what_is_compared_with_goes(uint64_t seed, uint32_t reader)
{
	static const char *const names[] = {"n1", "n2"};
	struct cluster c;
	volume_and_clone(&c, seed);
	struct head_world *w = &c.nodes[reader], *other = &c.nodes[1 - reader];
	struct volume_base *base = NULL;
	CU_ASSERT_EQUAL_FATAL(world_attach(w, "clone"), 0);
	if (reader == 1)
		hand_to(&c, "v", &c.nodes[0], "n2");
	CU_ASSERT_EQUAL_FATAL(volume_base_open(world_head(w, "clone"), "v@b", &base), 0);
	CU_ASSERT_EQUAL(compare(w, base), 0);
	CU_ASSERT_EQUAL(world_snapshot_delete(w, "v@b"), -EBUSY);
	hand_to(&c, "v", w, names[1 - reader]);
	CU_ASSERT_EQUAL(compare(w, base), -ESTALE);
	CU_ASSERT_EQUAL(world_snapshot_delete(other, "v@b"), 0);
	CU_ASSERT_EQUAL(world_snapshot_delete(other, "v@a"), 0);
	CU_ASSERT_EQUAL(world_detach(other, "v"), 0);
	let_settle(&c);
	CU_ASSERT_EQUAL(compare(w, base), -ESTALE);
	struct uuid uuid = set_volume_find(w->set, "v")->facts.uuid;
	struct set_command delete = order(SET_VOLUME_DELETE, "v");
	CU_ASSERT_EQUAL(world_command(other, &delete), 0);
	world_let_pass(w, 5 * NS_PER_S);
	CU_ASSERT_EQUAL(set_volume_by_uuid(other->set, &uuid) == NULL, reader == 1);
	CU_ASSERT_PTR_NULL(set_volume_find(w->set, "v"));
	CU_ASSERT_EQUAL(compare(w, base), -ESTALE);
	volume_base_close(base);
	world_let_pass(w, 5 * NS_PER_S);
	CU_ASSERT_PTR_NULL(set_volume_by_uuid(w->set, &uuid));
	CU_ASSERT_PTR_NULL(set_volume_by_uuid(other->set, &uuid));
	expect_one(&c, w, "clone", 1, 2);
	cluster_close(&c);
}

static bool base_is_being_read(void *context)
{
	return ((struct volume_changes *)context)->own.stage == 1; /* SECOND */
}

/* Another node takes away what is compared with just while it is read. */
static void what_is_compared_with_goes_while_it_is_read(void)
{
	struct cluster c;
	volume_and_clone(&c, 19);
	struct head_world *w = &c.nodes[0];
	struct volume_base *base = NULL;
	CU_ASSERT_EQUAL_FATAL(world_attach(w, "clone"), 0);
	CU_ASSERT_EQUAL_FATAL(volume_base_open(world_head(w, "clone"), "v@b", &base), 0);
	struct set_snapshot *snap = snapshot_find(set_volume_find(w->set, "v"), "b");
	struct world_comparison comparison;
	world_comparison_start(&comparison, base, VOLUME_BYTES);
	world_until(w, base_is_being_read, &comparison.changes);
	CU_ASSERT_FALSE(comparison.is_done);
	snap->facts.is_deleting = true;
	world_until(w, world_comparison_is_done, &comparison);
	CU_ASSERT_EQUAL(comparison.res, -ESTALE);
	snap->facts.is_deleting = false;
	CU_ASSERT_EQUAL(compare(w, base), 0);
	volume_base_close(base);
	cluster_close(&c);
}

static void what_is_compared_with_goes_from_here(void)
{
	what_is_compared_with_goes(17, 0);
}

static void what_is_compared_with_goes_elsewhere(void)
{
	what_is_compared_with_goes(18, 1);
}

int main(void)
{
	CU_pSuite suite;
	if (CU_initialize_registry() != CUE_SUCCESS || !(suite = CU_add_suite("copies on several nodes", NULL, NULL)))
		return 1;
	CU_add_test(suite, "disks come and go", disks_come_and_go);
	CU_add_test(suite, "the first copy is the head's", first_copy_is_the_heads);
	CU_add_test(suite, "domains are nodes and racks", domains_are_nodes_and_racks);
	CU_add_test(suite, "a node goes and comes back", a_node_goes_and_comes_back);
	CU_add_test(suite, "any node can be the head", any_node_can_be_the_head);
	CU_add_test(suite, "taken over with its data", taken_over_with_its_data);
	CU_add_test(suite, "taken over when its node is lost", taken_over_when_its_node_is_lost);
	CU_add_test(suite, "handed over", handed_over);
	CU_add_test(suite, "not handed to who has gone", not_handed_to_who_has_gone);
	CU_add_test(suite, "resized by its head alone", resized_by_its_head_alone);
	CU_add_test(suite, "deleted everywhere", deleted_everywhere);
	CU_add_test(suite, "returns when its disks do", returns_when_its_disks_do);
	CU_add_test(suite, "drained to another node", drained_to_another_node);
	CU_add_test(suite, "not drained under a snapshot", not_drained_under_a_snapshot);
	CU_add_test(suite, "drained by one node", drained_by_one_node);
	CU_add_test(suite, "made anew when a node is gone", made_anew_when_a_node_is_gone);
	CU_add_test(suite, "compared where both are", compared_where_both_are);
	CU_add_test(suite, "what is compared with goes from here", what_is_compared_with_goes_from_here);
	CU_add_test(suite, "what is compared with goes elsewhere", what_is_compared_with_goes_elsewhere);
	CU_add_test(suite, "what is compared with goes while it is read", what_is_compared_with_goes_while_it_is_read);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures > 0;
}
