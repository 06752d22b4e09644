/*
 * test_measure.c: what a volume with copies on the disks of several nodes takes: all are asked, or nothing is said.
 */
#include "tests/unit/remote_world.h"

/* What the disks themselves say of a tree. */
struct tally {
	uint64_t data, own, pages;
};
static void tally_done(struct disk_io *io, int res)
{
	CU_ASSERT_EQUAL(res, 0);
	io->extents_max = 1; /* it has ended */
}

static void tally(struct head_world *w, const char *disk, const struct uuid *volume, uint64_t tree, struct tally *out)
{
	struct disk_io io = {.op = DISK_MEASURE, .volume = *volume, .tree_id = tree, .done = tally_done};
	disk_submit(disk_of(w, disk)->disk, &io);
	while (io.extents_max == 0)
		world_let_pass(w, NS_PER_MS);
	out->data += io.data_blocks;
	out->own += io.own_data_blocks;
	out->pages += io.own_pages;
}

static void the_figures_count_all_disks(void)
{
	enum { LEAVES = PEER_MEASURE_STEPS + 5 }; /* more than one answer tells of */
	struct cluster c;
	struct tally t = {0};
	cluster_open(&c, 12, 3);
	struct head_world *w = &c.nodes[0];
	volume_with_copies(w, "v", 3);
	const struct set_volume *entry = set_volume_find(w->set, "v");
	for (uint64_t i = 0; i < LEAVES; i++)
		CU_ASSERT_EQUAL_FATAL(
		    world_write(w, world_head(w, "v"), i * MIB, memset(c.data, 5, BLOCK_BYTES), BLOCK_BYTES, 0), 0);
	CU_ASSERT_EQUAL(world_snapshot(w, "v@a"), 0);
	struct set_measure m = world_measure(w, "v@a");
	CU_ASSERT_EQUAL(m.data_bytes, 3 * LEAVES * BLOCK_BYTES);
	CU_ASSERT(m.unique_bytes == 0 && m.missing[0] == 0);
	CU_ASSERT_EQUAL(world_op(w, world_head(w, "v"), VOLUME_TRIM, 0, VOLUME_BYTES, 0), 0);
	write_one(&c, w, "v", 0, 6);
	for (uint32_t i = 0; i < N_NODES; i++)
		disk_checkpoint(disk_of(&c.nodes[i], i == 0 ? "n1-d1" : i == 1 ? "n2-d11" : "n3-d21")->disk);
	world_let_pass(w, NS_PER_S);
	const struct uuid *uuid = &entry->facts.uuid;
	uint64_t tree = container_of(entry->snapshots.next, struct set_snapshot, link)->facts.tree;
	tally(w, "n1-d1", uuid, tree, &t);
	tally(&c.nodes[1], "n2-d11", uuid, tree, &t);
	tally(&c.nodes[2], "n3-d21", uuid, tree, &t);
	m = world_measure(w, "v@a");
	CU_ASSERT_EQUAL(m.missing[0], 0);
	CU_ASSERT_EQUAL(m.unique_bytes, 3 * LEAVES * BLOCK_BYTES);
	CU_ASSERT_EQUAL(m.data_bytes, t.data * BLOCK_BYTES);
	CU_ASSERT_EQUAL(m.unique_bytes, t.own * BLOCK_BYTES);
	CU_ASSERT_EQUAL(m.frees_bytes, (t.own + t.pages) * BLOCK_BYTES);
	CU_ASSERT(t.pages > 3 * LEAVES);
	CU_ASSERT_EQUAL(world_measure(w, "v").unique_bytes, 3 * BLOCK_BYTES);
	/* a disk that is away: nobody knows what it holds */
	world_stop(&c.nodes[2]);
	let_settle(&c);
	m = world_measure(w, "v@a");
	CU_ASSERT_PTR_NOT_NULL(strstr(m.missing, "disk n3-d21 of node n3 cannot be asked: its node cannot be reached"));
	write_one(&c, w, "v", 0, 7); /* nor when it is known to be stale */
	CU_ASSERT_EQUAL(stale_copies(w, "v"), 1);
	CU_ASSERT(world_measure(w, "v").missing[0] != 0);
	cluster_start_again(&c, 2);
	world_let_pass(w, 20 * NS_PER_S);
	m = world_measure(w, "v@a");
	CU_ASSERT(m.missing[0] == 0 && m.unique_bytes == t.own * BLOCK_BYTES);
	cluster_close(&c);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("measure", NULL, NULL);
	CU_add_test(suite, "the figures count all disks", the_figures_count_all_disks);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
