/*
 * test_node_drain.c: a node of three is drained: what lies on its disks and what is attached there goes to the others, what
 * cannot go is named, and neither a stop nor a crash leaves it half drained.
 */
#include "tests/unit/remote_world.h"

#define N_WRITTEN 4u /* segments of each volume */

/* n1 has a second disk. */
static void drain_open(struct cluster *c, uint64_t seed, bool has_peers)
{
	cluster_make(c, seed, N_NODES);
	world_add_disk(&c->nodes[0], DISK_BYTES);
	for (uint32_t i = 0; i < N_NODES; i++)
		c->nodes[i].has_peers = has_peers;
	cluster_start(c);
}

static void volume_make(struct cluster *c, struct head_world *w, const char *name, uint32_t replicas)
{
	volume_with_copies(w, name, replicas);
	for (uint64_t segment = 0; segment < N_WRITTEN; segment++)
		write_one(c, w, name, segment, (uint8_t)(segment + 1));
	world_let_pass(w, 100 * NS_PER_MS);
}

static void volume_check(struct cluster *c, struct head_world *w, const char *name)
{
	for (uint64_t segment = 0; segment < N_WRITTEN; segment++)
		expect_one(c, w, name, segment, (uint8_t)(segment + 1));
}

static int node_drain(struct head_world *w, const char *node, bool cancel)
{
	struct set_command c = order(SET_NODE_DRAIN, node);
	c.cancel = cancel;
	return world_command(w, &c);
}

static struct node_drain_view drain_of(struct head_world *w, const char *node)
{
	struct node_drain_view v;
	volume_set_node_drain(w->set, node, &v);
	return v;
}

static bool is_drained(void *context)
{
	struct head_world *w = context;
	return drain_of(w, "n1").is_done;
}

/* ---- what goes ---- */

static void all_of_it_goes(void)
{
	struct cluster c;
	drain_open(&c, 1, true);
	struct head_world *w = &c.nodes[0];
	volume_make(&c, w, "used", 2);
	volume_make(&c, w, "idle", 2);
	CU_ASSERT_EQUAL(world_snapshot(w, "idle@s"), 0);
	CU_ASSERT_EQUAL(world_detach(w, "idle"), 0);
	struct set_command drain = order(SET_NODE_DRAIN, "n1");
	CU_ASSERT_EQUAL(world_command(&c.nodes[1], &drain), -EREMOTE);
	CU_ASSERT_STRING_EQUAL(drain.node, "n1");
	CU_ASSERT_EQUAL(node_drain(w, "n1", false), 0);
	CU_ASSERT_TRUE(drain_of(w, "n1").is_wanted);
	CU_ASSERT_FALSE(drain_of(w, "n1").is_done);
	drain = order(SET_NODE_DRAIN, "n1");
	CU_ASSERT_EQUAL(world_command(w, &drain), 0);
	CU_ASSERT_TRUE(drain.is_unchanged);
	world_until(w, is_drained, w);
	world_until(w, is_drained, &c.nodes[1]); /* others know, too */
	CU_ASSERT_STRING_EQUAL(drain_of(w, "n1").why, "");
	CU_ASSERT_EQUAL(world_events(w, "volume-moved"), 1);
	struct head_world *to = only_head(&c, "used");
	CU_ASSERT_FATAL(to && to != w);
	volume_check(&c, to, "used");
	world_let_pass(w, 5 * NS_PER_S);
	CU_ASSERT_EQUAL(world_events(w, "node-drained"), 1);
	CU_ASSERT_EQUAL(world_attach(&c.nodes[1], "idle"), 0);
	volume_check(&c, &c.nodes[1], "idle");
	for (uint32_t i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(set_disk_users(w->set->disks[i], NULL, 0), 0);
	cluster_close(&c);
}

static void nothing_new_comes_meanwhile(void)
{
	struct cluster c;
	drain_open(&c, 2, true);
	struct head_world *w = &c.nodes[0];
	volume_make(&c, &c.nodes[1], "v", 2);
	CU_ASSERT_EQUAL(world_snapshot(&c.nodes[1], "v@s"), 0);
	CU_ASSERT_EQUAL(node_drain(w, "n1", false), 0);
	world_until(w, is_drained, w);
	struct set_command move = order_other(SET_VOLUME_MOVE, "v", "n1");
	CU_ASSERT_EQUAL(world_command(&c.nodes[1], &move), -EBUSY);
	CU_ASSERT_PTR_NOT_NULL(strstr(move.why, "node n1 is being drained"));
	CU_ASSERT_EQUAL(world_detach(&c.nodes[1], "v"), 0);
	world_let_pass(w, 10 * NS_PER_MS);
	CU_ASSERT_EQUAL(world_attach(w, "v"), -EBUSY);
	CU_ASSERT_EQUAL(world_attach(w, "v@s"), -EBUSY);
	struct set_command cancel = order(SET_DISK_DRAIN, "n1-d1");
	cancel.cancel = true;
	CU_ASSERT_EQUAL(world_command(w, &cancel), -EBUSY);
	CU_ASSERT_PTR_NOT_NULL(strstr(cancel.why, "quarry node drain n1 --cancel"));
	CU_ASSERT_EQUAL(node_drain(w, "n1", true), 0);
	world_let_pass(w, 10 * NS_PER_MS);
	CU_ASSERT_FALSE(w->set->disks[0]->facts.is_draining);
	CU_ASSERT_FALSE(drain_of(&c.nodes[2], "n1").is_wanted);
	CU_ASSERT_EQUAL(world_attach(w, "v"), 0);
	volume_check(&c, w, "v");
	cluster_close(&c);
}

/* ---- what does not go ---- */

static void what_stays_is_named(void)
{
	struct cluster c;
	drain_open(&c, 3, true);
	struct head_world *w = &c.nodes[0];
	volume_make(&c, w, "alone", 1);
	volume_make(&c, w, "v", 2);
	CU_ASSERT_EQUAL(world_snapshot(w, "v@s"), 0);
	CU_ASSERT_EQUAL(world_attach(w, "v@s"), 0);
	CU_ASSERT_EQUAL(node_drain(w, "n1", false), 0);
	world_let_pass(w, 20 * NS_PER_S);
	CU_ASSERT_PTR_NOT_NULL(strstr(drain_of(w, "n1").why, "volume alone has one copy"));
	CU_ASSERT_EQUAL(drain_of(w, "n1").n_attached, 1);
	volume_check(&c, w, "alone"); /* it serves */
	struct set_command set = order(SET_VOLUME_SET, "alone");
	set.replicas = 2;
	CU_ASSERT_EQUAL(world_command(w, &set), 0);
	world_let_pass(w, 20 * NS_PER_S);
	CU_ASSERT_PTR_NOT_NULL(strstr(drain_of(w, "n1").why, "snapshot v@s is attached on this node"));
	CU_ASSERT_EQUAL(world_detach(w, "v@s"), 0);
	world_until(w, is_drained, w);
	struct head_world *to = only_head(&c, "alone");
	CU_ASSERT_FATAL(to && to != w);
	volume_check(&c, to, "alone");
	volume_check(&c, only_head(&c, "v"), "v");
	cluster_close(&c);
}

static void what_cannot_be_is_refused(void)
{
	struct cluster c;
	drain_open(&c, 4, true);
	struct head_world *w = &c.nodes[0];
	volume_make(&c, w, "three", 3);
	struct set_command drain = order(SET_NODE_DRAIN, "n1");
	CU_ASSERT_EQUAL(world_command(w, &drain), -ENOSPC);
	CU_ASSERT_PTR_NOT_NULL(strstr(drain.why, "volume three has 3 copies"));
	CU_ASSERT_PTR_NOT_NULL(strstr(drain.why, "without node n1"));
	CU_ASSERT_EQUAL(node_drain(w, "n9", false), -ENOENT);
	CU_ASSERT_EQUAL(node_drain(w, "n1", true), 0); /* it is not */
	world_stop(&c.nodes[2]);
	world_let_pass(w, 10 * NS_PER_MS);
	drain = order(SET_NODE_DRAIN, "n3");
	CU_ASSERT_EQUAL(world_command(w, &drain), -EIO);
	CU_ASSERT_PTR_NOT_NULL(strstr(drain.why, "is not alive"));
	cluster_start_again(&c, 2);
	cluster_close(&c);

	struct head_world one;
	world_open(&one, 5);
	CU_ASSERT_EQUAL_FATAL(world_start(&one), 0);
	CU_ASSERT_EQUAL(node_drain(&one, "n1", false), -EINVAL);
	CU_ASSERT_EQUAL(node_drain(&one, "n2", false), -ENOENT);
	world_close(&one);
}

/* ---- stops and crashes ---- */

static void a_stop_anywhere_is_gone_on_from(void)
{
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct cluster c;
		struct world_order drain = {.command = order(SET_NODE_DRAIN, "n1")};
		drain_open(&c, 100 + seed, true);
		struct head_world *w = &c.nodes[0];
		volume_make(&c, w, "v", 2);
		world_order_start(w, &drain);
		world_until(w, world_order_is_done, &drain);
		CU_ASSERT_EQUAL(drain.res, 0);
		for (uint64_t n = 0; n < 40 * seed && !is_drained(w); n++)
			sim_step(w->sim);
		uint32_t node = seed % N_NODES;
		world_stop(&c.nodes[node]);
		world_let_pass(&c.nodes[(node + 1) % N_NODES], seed % 5 * NS_PER_S);
		cluster_start_again(&c, node);
		for (uint32_t i = 0; i < N_NODES; i++)
			if (i != node)
				world_let_pass(&c.nodes[i], 5 * NS_PER_S);
		world_until(w, is_drained, w);
		world_let_pass(w, NS_PER_S);
		struct head_world *to = only_head(&c, "v");
		CU_ASSERT_FATAL(to && to != w);
		volume_check(&c, to, "v");
		cluster_close(&c);
	}
}

/* The key alone decides: after a crash between it and the marks of the disks, these follow it. */
static void a_crash_leaves_no_mark_alone(void)
{
	uint32_t n_wanted = 0;
	for (uint64_t seed = 0; seed < 60; seed++) {
		struct cluster c;
		struct world_order drain = {.command = order(SET_NODE_DRAIN, "n1")};
		drain_open(&c, 200 + seed, false);
		struct head_world *w = &c.nodes[0];
		if (seed % 2) {
			CU_ASSERT_EQUAL(node_drain(w, "n1", false), 0);
			world_let_pass(w, NS_PER_S);
			drain.command.cancel = true;
		}
		world_order_start(w, &drain);
		for (uint64_t n = 0; n < seed; n++)
			sim_step(w->sim);
		world_crash(w, SIM_KILL); /* all: they are one process */
		for (uint32_t i = 1; i < N_NODES; i++) {
			volume_set_abandon(c.nodes[i].set);
			members_abandon(c.nodes[i].members);
			c.nodes[i].set = NULL;
			c.nodes[i].members = NULL;
		}
		for (uint32_t i = 0; i < N_NODES; i++)
			CU_ASSERT_EQUAL_FATAL(world_start(&c.nodes[i]), 0);
		world_let_pass(w, 5 * NS_PER_S);
		bool is_wanted = drain_of(w, "n1").is_wanted;
		n_wanted += is_wanted;
		for (uint32_t i = 0; i < N_NODES; i++)
			CU_ASSERT_EQUAL(drain_of(&c.nodes[i], "n1").is_wanted, is_wanted);
		CU_ASSERT_EQUAL(disk_of(w, "n1-d1")->facts.is_draining, is_wanted);
		CU_ASSERT_EQUAL(disk_of(w, "n1-d2")->facts.is_draining, is_wanted);
		CU_ASSERT_FALSE(disk_of(&c.nodes[1], "n2-d11")->facts.is_draining);
		cluster_close(&c);
	}
	CU_ASSERT(n_wanted > 0 && n_wanted < 60);
}

/* A disk that was drained by itself is drained still when its node is not any more. */
static void a_disk_keeps_its_own_drain(void)
{
	struct cluster c;
	drain_open(&c, 6, true);
	struct head_world *w = &c.nodes[0];
	struct set_command one = order(SET_DISK_DRAIN, "n1-d2");
	CU_ASSERT_EQUAL(world_command(w, &one), 0);
	CU_ASSERT_EQUAL(node_drain(w, "n1", false), 0);
	world_let_pass(w, NS_PER_S);
	CU_ASSERT_TRUE(disk_of(w, "n1-d1")->facts.is_draining);
	CU_ASSERT_EQUAL(node_drain(w, "n1", true), 0);
	world_let_pass(w, NS_PER_S);
	CU_ASSERT_FALSE(disk_of(w, "n1-d1")->facts.is_draining);
	CU_ASSERT_TRUE(disk_of(w, "n1-d2")->facts.is_draining);
	cluster_close(&c);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("node_drain", NULL, NULL);
	CU_add_test(suite, "all of it goes", all_of_it_goes);
	CU_add_test(suite, "nothing new comes meanwhile", nothing_new_comes_meanwhile);
	CU_add_test(suite, "what stays is named", what_stays_is_named);
	CU_add_test(suite, "what cannot be is refused", what_cannot_be_is_refused);
	CU_add_test(suite, "a stop anywhere is gone on from", a_stop_anywhere_is_gone_on_from);
	CU_add_test(suite, "a crash leaves no mark alone", a_crash_leaves_no_mark_alone);
	CU_add_test(suite, "a disk keeps its own drain", a_disk_keeps_its_own_drain);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failed = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failed ? 1 : 0;
}
