/*
 * test_remote_doubt.c: several nodes, and something that is slow, fails for a moment, or of which nobody knows whether it has
 * happened: nothing waits for ever, and what was made is not taken apart.
 */
#include "tests/unit/remote_world.h"

static struct set_volume *volume_or_what_is_left(struct head_world *w, const char *name)
{
	list_each (node, &w->set->volumes) {
		struct set_volume *v = container_of(node, struct set_volume, link);
		if (strcmp(v->facts.name, name) == 0)
			return v;
	}
	return NULL;
}

/* It is not known whether the mark of a disk that failed has been made, and the watch is the first to tell that it has. */
static void a_mark_that_the_watch_tells(void)
{
	for (uint64_t seed = 60; seed < 90; seed++) {
		struct cluster c;
		struct world_request write = {.io = {.op = VOLUME_WRITE, .len_bytes = BLOCK_BYTES}};
		cluster_open(&c, seed, 2);
		struct head_world *w = &c.nodes[0];
		volume_with_copies(w, "v", 2);
		write_one(&c, w, "v", 0, 1);
		world_hide_store(w, true);
		sim_file_fail(world_disk_file(w, 11), OP_WRITE, 0, EIO);
		memset(c.data, 2, BLOCK_BYTES);
		write.iov = (struct iovec){c.data, BLOCK_BYTES};
		world_request_start(world_head(w, "v"), &write);
		world_let_pass(w, (1 + seed % 5) * 200 * NS_PER_MS);
		world_hide_store(w, false);
		commands_wake(w->set); /* what the store has told meanwhile is taken in */
		world_until(w, world_request_is_done, &write);
		CU_ASSERT_EQUAL(write.res, 0);
		uint32_t far = disk_of(w, "n2-d11")->index;
		CU_ASSERT_EQUAL(world_head(w, "v")->disks[far].state, VOLUME_DISK_STALE);
		struct set_command add = {.kind = SET_DISK_ADD, .path = "d11"};
		CU_ASSERT_EQUAL(world_command(&c.nodes[1], &add), 0);
		world_let_pass(w, 20 * NS_PER_S);
		CU_ASSERT_EQUAL(stale_copies(w, "v"), 0);
		cluster_close(&c);
	}
}

/* A volume "v" with a block and a snapshot, and the order for its clone. */
static struct world_order source_to_clone(struct cluster *c, struct head_world *w)
{
	struct world_order clone = {.command = order_other(SET_VOLUME_CLONE, "v", "clone")};
	volume_with_copies(w, "v", 2);
	write_one(c, w, "v", 0, 1);
	CU_ASSERT_EQUAL(world_snapshot(w, "v@s"), 0);
	clone.command.n_targets = 1;
	text_print(clone.command.targets[0].volume, VOLUME_NAME_MAX, "v");
	text_print(clone.command.targets[0].snapshot, VOLUME_NAME_MAX, "s");
	return clone;
}

/* It is not known whether a clone has been recorded as good: then it is there, whole, or not at all. */
static void a_clone_in_doubt(void)
{
	uint32_t n_there = 0;
	for (uint64_t seed = 100; seed < 160; seed++) {
		struct cluster c;
		cluster_open(&c, seed, 2);
		struct head_world *w = &c.nodes[0];
		struct world_order clone = source_to_clone(&c, w);
		world_order_start(w, &clone);
		while (!volume_or_what_is_left(w, "clone"))
			CU_ASSERT_FATAL(sim_step(w->sim));
		for (uint64_t n = 0; n < seed - 100 && !clone.is_done; n++)
			sim_step(w->sim);
		world_hide_store(w, true);
		world_let_pass(w, (1 + seed % 5) * 50 * NS_PER_MS);
		world_hide_store(w, false);
		world_until(w, world_order_is_done, &clone);
		commands_wake(w->set);
		world_let_pass(w, 40 * NS_PER_S);
		struct set_volume *there = set_volume_find(w->set, "clone");
		CU_ASSERT(there || clone.res != 0);
		CU_ASSERT(there || !volume_or_what_is_left(w, "clone"));
		if (there) {
			CU_ASSERT_EQUAL_FATAL(world_attach(w, "clone"), 0);
			expect_one(&c, w, "clone", 0, 1);
			n_there++;
		}
		cluster_close(&c);
	}
	CU_ASSERT(n_there > 10);
}

struct strays {
	struct volume_facts *facts;
	const struct set_disk *disk;
	uint32_t n;
};

static void stray_look(const struct tree_record *t, void *context)
{
	struct strays *s = context;
	s->n += uuid_equal(&t->volume, &s->facts->uuid) && !volume_facts_use_disk(s->facts, &s->disk->facts.uuid);
}

/* Disks that have a tree of the volume, and are none of its own. */
static uint32_t strays_of(struct cluster *c, struct set_volume *v)
{
	struct strays s = {.facts = &v->facts};
	for (uint32_t i = 0; i < N_NODES; i++)
		for (uint32_t disk = 0; disk < SET_DISKS_MAX; disk++) {
			s.disk = c->nodes[i].set->disks[disk];
			if (s.disk && s.disk->disk)
				disk_trees_each(s.disk->disk, stray_look, &s);
		}
	return s.n;
}

/* While a clone is made, its source is written to where nothing was, on a disk that it had not used. That is no part of the
 * snapshot, and the clone knows nothing of that disk: what it writes there itself must not be looked for on it. */
static void a_clone_while_its_source_grows(void)
{
	for (uint64_t seed = 200; seed < 300; seed++) {
		struct cluster c;
		struct world_request write = {
		    .io = {.op = VOLUME_WRITE, .pos_bytes = SEGMENT_BYTES, .len_bytes = BLOCK_BYTES}};
		cluster_open(&c, seed, 3);
		struct head_world *w = &c.nodes[0];
		struct world_order clone = source_to_clone(&c, w);
		struct metadata_faults slow = {.delay_max_ns = 30 * NS_PER_MS}, none = {0};
		metadata_memory_set_faults(w->metadata, &slow);
		memset(c.data, 2, BLOCK_BYTES);
		write.iov = (struct iovec){c.data, BLOCK_BYTES};
		world_request_start(world_head(w, "v"), &write);
		for (uint64_t n = 0; n < 4 * (seed - 200); n++)
			sim_step(w->sim);
		world_order_start(w, &clone);
		world_until(w, world_order_is_done, &clone);
		world_until(w, world_request_is_done, &write);
		CU_ASSERT(clone.res == 0 && write.res == 0);
		CU_ASSERT_EQUAL(strays_of(&c, set_volume_find(w->set, "clone")), 0);
		metadata_memory_set_faults(w->metadata, &none);
		CU_ASSERT_EQUAL_FATAL(world_attach(w, "clone"), 0);
		expect_one(&c, w, "clone", 0, 1);
		for (uint64_t segment = 1; segment < 6; segment++)
			write_one(&c, w, "clone", segment, (uint8_t)(10 + segment));
		for (uint32_t i = 1; i < N_NODES; i++) {
			CU_ASSERT_EQUAL(world_detach(&c.nodes[i - 1], "clone"), 0);
			let_settle(&c);
			CU_ASSERT_EQUAL_FATAL(world_attach(&c.nodes[i], "clone"), 0);
			expect_one(&c, &c.nodes[i], "clone", 0, 1);
			for (uint64_t segment = 1; segment < 6; segment++)
				expect_one(&c, &c.nodes[i], "clone", segment, (uint8_t)(10 + segment));
		}
		cluster_close(&c);
	}
}

/* Another node detaches it while the head's has no lease; then that has one again, and attaches it. */
static void attached_again_after_another_has_detached_it(void)
{
	struct cluster c;
	cluster_open(&c, 13, 2);
	struct head_world *w = &c.nodes[0];
	volume_with_copies(w, "v", 2);
	write_one(&c, w, "v", 0, 1);
	let_settle(&c);
	world_end_lease(w);
	world_let_pass(w, 10 * NS_PER_MS);
	CU_ASSERT_EQUAL(world_detach(&c.nodes[1], "v"), 0);
	world_let_pass(w, 5 * NS_PER_S);
	CU_ASSERT_EQUAL(world_attach(w, "v"), 0);
	CU_ASSERT_STRING_EQUAL(set_volume_find(w->set, "v")->facts.owner, "n1");
	world_stop(w);
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(world_head(w, "v"));
	expect_one(&c, w, "v", 0, 1);
	cluster_close(&c);
}

/* The same, and another node attaches it at the same time: one of the two has it, and the record says which. */
static void attached_again_while_another_attaches_it(void)
{
	uint32_t n_first = 0;
	for (uint64_t seed = 40; seed < 60; seed++) {
		struct cluster c;
		cluster_open(&c, seed, 2);
		struct head_world *w = &c.nodes[0], *other = &c.nodes[1];
		volume_with_copies(w, "v", 2);
		write_one(&c, w, "v", 0, 1);
		let_settle(&c);
		world_end_lease(w);
		world_let_pass(w, 10 * NS_PER_MS);
		CU_ASSERT_EQUAL(world_detach(other, "v"), 0);
		world_let_pass(w, 5 * NS_PER_S);
		struct world_order again = {.command = order_other(SET_VOLUME_ATTACH, "v", "nbd")}, there = again;
		world_order_start(other, &there);
		for (uint64_t n = seed % 20; n > 0; n--)
			sim_step(w->sim);
		world_order_start(w, &again);
		world_until(w, world_order_is_done, &again);
		world_until(w, world_order_is_done, &there);
		CU_ASSERT((again.res == 0) != (there.res == 0));
		n_first += again.res == 0;
		world_let_pass(w, 20 * NS_PER_S);
		CU_ASSERT_PTR_NOT_NULL(world_head(again.res == 0 ? w : other, "v"));
		CU_ASSERT_PTR_NULL(world_head(again.res == 0 ? other : w, "v"));
		CU_ASSERT_STRING_EQUAL(set_volume_find(w->set, "v")->facts.owner, again.res == 0 ? "n1" : "n2");
		cluster_close(&c);
	}
	CU_ASSERT(n_first < 20);
}

static void order_returns(struct head_world *w)
{
	list_each (node, &w->set->volumes)
		order_own(container_of(node, struct set_volume, link), SET_RETURN);
}

/* While a start waits for the disks of other nodes, commands of the set's own wait for it: it attaches the same volumes. */
static void commands_wait_for_the_start(void)
{
	struct cluster c;
	cluster_open(&c, 9, 2);
	struct head_world *w = &c.nodes[0];
	volume_with_copies(w, "v", 2);
	write_one(&c, w, "v", 0, 1);
	world_stop(w);
	w->disks_open = order_returns;
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(world_head(w, "v"));
	world_let_pass(w, 100 * NS_PER_MS);
	CU_ASSERT(list_is_empty(&w->set->commands));
	expect_one(&c, w, "v", 0, 1);
	cluster_close(&c);
}

static bool disk_has_failed(void *context)
{
	return ((struct set_disk *)context)->state == SET_DISK_FAILED;
}

/* A disk of another node fails while a volume is deleted there, and is back before anybody elsewhere has noticed. */
static void deleted_from_a_disk_that_failed_for_a_moment(void)
{
	for (uint64_t seed = 40; seed < 50; seed++) {
		struct cluster c;
		cluster_open(&c, seed, 2);
		struct head_world *w = &c.nodes[0];
		volume_with_copies(w, "v", 2);
		write_one(&c, w, "v", 0, 1);
		CU_ASSERT_EQUAL(world_detach(w, "v"), 0);
		sim_file_fail(world_disk_file(w, 11), OP_WRITE, (uint32_t)(seed % 3), EIO);
		struct set_command delete = order(SET_VOLUME_DELETE, "v"), add = {.kind = SET_DISK_ADD, .path = "d11"};
		CU_ASSERT_EQUAL(world_command(w, &delete), 0);
		world_until(&c.nodes[1], disk_has_failed, disk_of(&c.nodes[1], "n2-d11"));
		CU_ASSERT_EQUAL(world_command(&c.nodes[1], &add), 0);
		world_let_pass(w, 90 * NS_PER_S);
		CU_ASSERT(list_is_empty(&w->set->volumes));
		cluster_close(&c);
	}
}

/* Its only current copy answers too late when it is brought back, and no disk comes or goes after that. */
static void brought_back_when_a_slow_disk_is_not_slow_any_more(void)
{
	struct cluster c;
	cluster_open(&c, 8, 2);
	struct head_world *w = &c.nodes[0];
	volume_with_copies(w, "v", 2);
	write_one(&c, w, "v", 0, 2);
	sim_file_fail(world_disk_file(w, 1), OP_WRITE, 0, EIO);
	write_one(&c, w, "v", 0, 1);
	CU_ASSERT_EQUAL(stale_copies(w, "v"), 1);
	world_stop(w);
	struct sim_file_faults *faults = sim_file_faults(world_disk_file(w, 11));
	faults->slow_ns = 2 * NS_PER_S;
	faults->slow_ppm = 1000000;
	CU_ASSERT_EQUAL_FATAL(world_start(w), 0);
	CU_ASSERT_EQUAL(world_events(w, "volume-not-attached"), 1);
	world_connect(w, &c.nodes[1]);
	world_let_pass(w, 5 * NS_PER_S);
	CU_ASSERT_EQUAL(disk_of(w, "n2-d11")->state, SET_DISK_RUNNING);
	CU_ASSERT_PTR_NULL_FATAL(world_head(w, "v"));
	faults->slow_ppm = 0;
	world_let_pass(w, 40 * NS_PER_S);
	CU_ASSERT_PTR_NOT_NULL_FATAL(world_head(w, "v"));
	expect_one(&c, w, "v", 0, 1);
	CU_ASSERT_EQUAL(stale_copies(w, "v"), 0);
	cluster_close(&c);
}

/* An attach that is recorded and comes no further is no different. */
static void attached_when_a_slow_disk_is_not_slow_any_more(void)
{
	struct cluster c;
	cluster_open(&c, 14, 2);
	struct head_world *w = &c.nodes[0];
	volume_with_copies(w, "v", 2);
	write_one(&c, w, "v", 0, 2);
	sim_file_fail(world_disk_file(w, 1), OP_WRITE, 0, EIO);
	write_one(&c, w, "v", 0, 1);
	CU_ASSERT_EQUAL(world_detach(w, "v"), 0);
	struct sim_file_faults *faults = sim_file_faults(world_disk_file(w, 11));
	faults->slow_ns = 2 * NS_PER_S;
	faults->slow_ppm = 1000000;
	CU_ASSERT_EQUAL(world_attach(w, "v"), -EIO);
	faults->slow_ppm = 0;
	world_let_pass(w, 40 * NS_PER_S);
	CU_ASSERT_PTR_NOT_NULL_FATAL(world_head(w, "v"));
	expect_one(&c, w, "v", 0, 1);
	cluster_close(&c);
}

static void tree_count(const struct tree_record *t, void *context)
{
	*(uint32_t *)context += t->state == TREE_LIVE;
}

static uint32_t trees_of_others(struct cluster *c)
{
	uint32_t n = 0;
	for (uint32_t i = 1; i < N_NODES; i++)
		for (uint32_t d = 0; d < SET_DISKS_MAX; d++)
			if (c->nodes[i].set->disks[d] && c->nodes[i].set->disks[d]->disk)
				disk_trees_each(c->nodes[i].set->disks[d]->disk, tree_count, &n);
	return n;
}

/* At its first write a connection ends, at any moment: then nobody knows what the disk there has done; it is used or not. */
static void a_disk_that_is_joined_in_vain(void)
{
	uint32_t n_in_vain = 0;
	for (uint64_t n_steps = 0; n_steps < 120; n_steps++) {
		struct cluster c;
		struct world_request write = {.io = {.op = VOLUME_WRITE, .len_bytes = BLOCK_BYTES}};
		cluster_open(&c, 5, 3);
		struct head_world *w = &c.nodes[0], *other = &c.nodes[1 + n_steps % 2];
		write.iov = (struct iovec){c.data, BLOCK_BYTES};
		memset(c.data, 1, BLOCK_BYTES);
		world_request_start(volume_with_copies(w, "v", 2), &write);
		for (uint64_t n = 0; n < n_steps / 2 && !write.is_done; n++)
			CU_ASSERT_FATAL(sim_step(w->sim));
		bool is_early = !write.is_done;
		world_disconnect(w, other);
		world_until(w, world_request_is_done, &write);
		CU_ASSERT_EQUAL(write.res, 0);
		n_in_vain += is_early && trees_of_others(&c) == 2;
		write_one(&c, w, "v", 0, 2);
		world_connect(w, other);
		world_let_pass(w, 30 * NS_PER_S);
		CU_ASSERT_EQUAL(stale_copies(w, "v"), 0);
		expect_one(&c, w, "v", 0, 2);
		CU_ASSERT_EQUAL(world_detach(w, "v"), 0);
		CU_ASSERT_EQUAL_FATAL(world_attach(other, "v"),
				      0); /* what it has, if it counts, has not missed the second write */
		expect_one(&c, other, "v", 0, 2);
		CU_ASSERT_EQUAL(world_detach(other, "v"), 0);
		struct set_command delete = order(SET_VOLUME_DELETE, "v");
		CU_ASSERT_EQUAL(world_command(w, &delete), 0);
		world_let_pass(w, 30 * NS_PER_S);
		CU_ASSERT_EQUAL(trees_of_others(&c), 0);
		cluster_close(&c);
	}
	CU_ASSERT(n_in_vain > 0);
}

/* A clone that a disk of another node has refused was never attached, and is deleted there as well. */
static void a_clone_that_fails_is_deleted(void)
{
	struct cluster c;
	cluster_open(&c, 7, 3);
	struct head_world *w = &c.nodes[0];
	volume_with_copies(w, "v", 3);
	write_one(&c, w, "v", 0, 1);
	CU_ASSERT_EQUAL(world_snapshot(w, "v@s"), 0);
	sim_file_fail(world_disk_file(w, 11), OP_WRITE, 0, EIO);
	CU_ASSERT_EQUAL(world_clone(w, "v@s", "clone"), -EIO);
	struct set_command add = {.kind = SET_DISK_ADD, .path = "d11"};
	CU_ASSERT_EQUAL(world_command(&c.nodes[1], &add), 0);
	world_let_pass(w, 20 * NS_PER_S);
	list_each (node, &w->set->volumes)
		CU_ASSERT_STRING_EQUAL(container_of(node, struct set_volume, link)->facts.name, "v");
	for (uint32_t i = 0; i < WORLD_PEERS_MAX; i++)
		if (w->peers[i].client)
			CU_ASSERT_EQUAL(peer_client_counters(w->peers[i].client)->connections, 1);
	CU_ASSERT_EQUAL(stale_copies(w, "v"), 0);
	cluster_close(&c);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("doubt among several nodes", NULL, NULL);
	CU_add_test(suite, "brought back when a slow disk is not slow any more",
		    brought_back_when_a_slow_disk_is_not_slow_any_more);
	CU_add_test(suite, "a mark that the watch tells", a_mark_that_the_watch_tells);
	CU_add_test(suite, "a clone in doubt", a_clone_in_doubt);
	CU_add_test(suite, "a clone while its source grows", a_clone_while_its_source_grows);
	CU_add_test(suite, "attached again after another has detached it",
		    attached_again_after_another_has_detached_it);
	CU_add_test(suite, "attached again while another attaches it", attached_again_while_another_attaches_it);
	CU_add_test(suite, "commands wait for the start", commands_wait_for_the_start);
	CU_add_test(suite, "attached when a slow disk is not slow any more",
		    attached_when_a_slow_disk_is_not_slow_any_more);
	CU_add_test(suite, "a disk that is joined in vain", a_disk_that_is_joined_in_vain);
	CU_add_test(suite, "a clone that fails is deleted", a_clone_that_fails_is_deleted);
	CU_add_test(suite, "deleted from a disk that failed for a moment",
		    deleted_from_a_disk_that_failed_for_a_moment);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures > 0;
}
