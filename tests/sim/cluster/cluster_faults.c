/*
 * cluster_faults.c: what may befall a cluster, one thing at a time, any of them while others last.
 *
 * What has a length ends by chance, a little later; faults_heal() ends all of it.
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_world.h"

#include <errno.h>
#include <stdio.h>

#define DOWN_MAX_NS  (25 * NS_PER_S)
#define PAUSE_MAX_NS (8 * NS_PER_S)
#define JUMP_MAX_NS  (30 * 86400 * NS_PER_S)
#define LAST_NS      (3 * NS_PER_S) /* what ends by chance takes so long, on the average */

static struct cluster_node *node_pick(struct cluster *c)
{
	return &c->nodes[pick(c, c->n_nodes)];
}

/* Mostly short. */
static uint64_t some_ns(struct cluster *c, uint64_t max_ns)
{
	return pick(c, max_ns) >> pick(c, 6);
}

/* ---- nodes ---- */

static void crash(struct cluster *c, enum sim_crash_kind kind)
{
	struct cluster_node *n = node_pick(c);
	if (n->state == NODE_DOWN || sim_crash_is_due(n->machine))
		return;
	if (one_in(c, 2))
		return node_crash(n, kind, some_ns(c, DOWN_MAX_NS));
	n->crash_kind = kind;
	sim_crash_at(n->machine, sim_io_index(n->machine) + 1 + pick(c, 60));
}

static void crash_all(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_nodes; i++)
		if (c->nodes[i].state != NODE_DOWN)
			node_crash(&c->nodes[i], SIM_POWER_LOSS, some_ns(c, DOWN_MAX_NS));
}

static void stop(struct cluster *c)
{
	struct cluster_node *n = node_pick(c);
	if (!node_is_awake(n))
		return;
	cluster_say(c, n, "is stopped");
	n->start_at_ns = sim_now_ns(c->sim) + some_ns(c, DOWN_MAX_NS);
	node_stop(n);
}

static void pause(struct cluster *c)
{
	struct cluster_node *n = node_pick(c);
	if (n->state == NODE_DOWN || n->paused_until_ns)
		return;
	n->paused_until_ns = sim_now_ns(c->sim) + NS_PER_MS + some_ns(c, PAUSE_MAX_NS);
	sim_pause_until(n->machine, UINT64_MAX - 1);
	c->totals.pauses++;
	cluster_say(c, n, "stands still for %llu ms",
		    (unsigned long long)((n->paused_until_ns - sim_now_ns(c->sim)) / NS_PER_MS));
}

/* ---- ways ---- */

static void block(struct cluster *c)
{
	struct cluster_node *a = node_pick(c), *b = node_pick(c);
	if (a == b)
		return;
	bool is_one_way = one_in(c, 2);
	sim_net_block(a->machine, b->machine, true);
	if (!is_one_way)
		sim_net_block(b->machine, a->machine, true);
	c->totals.partitions++;
	cluster_say(c, a, "is not heard by %s%s", b->name, is_one_way ? "" : ", nor the other way");
}

static void isolate(struct cluster *c)
{
	struct cluster_node *a = node_pick(c);
	for (uint32_t i = 0; i < c->n_nodes; i++)
		if (&c->nodes[i] != a)
			sim_net_partition(a->machine, c->nodes[i].machine, true);
	c->totals.partitions++;
	cluster_say(c, a, "is cut off from the other nodes");
}

static void cut(struct cluster *c)
{
	struct cluster_node *a = node_pick(c), *b = node_pick(c);
	cluster_say(c, a, "and %s: their connections break", b->name);
	sim_net_cut(a->machine, b->machine);
}

static void block_store(struct cluster *c)
{
	uint32_t from = (uint32_t)pick(c, c->n_nodes), to = one_in(c, 4) ? c->n_nodes : from + 1;
	uint32_t ways = 1 + (uint32_t)pick(c, 3);
	if (to == c->n_nodes && from + 1 != to)
		from = 0;
	c->totals.outages++;
	for (uint32_t i = from; i < to; i++) {
		cluster_store_block(c->store, i, STORE_TO, ways & 1);
		cluster_store_block(c->store, i, STORE_FROM, ways & 2);
		cluster_say(c, &c->nodes[i], "%s%s",
			    ways & 1 ? "is not heard by the store" : "hears nothing of the store",
			    ways == 3 ? ", nor hears of it" : "");
	}
}

static void trouble_store(struct cluster *c)
{
	struct metadata_faults faults = {.delay_max_ns = pick(c, 20) * NS_PER_MS,
					 .lost_percent = (uint32_t)pick(c, 30),
					 .doubled_percent = (uint32_t)pick(c, 20),
					 .unread_percent = (uint32_t)pick(c, 10)};
	metadata_memory_set_faults(cluster_store_memory(c->store), &faults);
	c->totals.outages++;
	cluster_say(c, NULL, "the store loses %u%% of transactions, doubles %u%%", faults.lost_percent,
		    faults.doubled_percent);
}

/* ---- clocks ---- */

void fault_jump(struct cluster *c)
{
	struct cluster_node *n = node_pick(c);
	int64_t ahead_ns = (int64_t)some_ns(c, JUMP_MAX_NS) * (one_in(c, 2) ? 1 : -1);
	sim_wall_jump(n->machine, ahead_ns);
	c->totals.clock_jumps++;
	cluster_say(c, n, "has its clock set: %lld ms ahead", (long long)ahead_ns / (long long)NS_PER_MS);
}

/* ---- disks ---- */

static void fail_disk(struct cluster *c)
{
	static const enum op_kind kinds[] = {OP_WRITE, OP_WRITE, OP_FLUSH, OP_READ};
	const struct cluster_disk *d = &c->disks[pick(c, c->n_disks)];
	enum op_kind kind = kinds[pick(c, array_size(kinds))];
	sim_file_fail(d->file, kind, (uint32_t)pick(c, 20), EIO);
	c->totals.disk_failures++;
	cluster_say(c, &c->nodes[d->node], "%s is about to fail a %s", d->name,
		    kind == OP_WRITE   ? "write"
		    : kind == OP_FLUSH ? "flush"
				       : "read");
}

static void slow_disk(struct cluster *c)
{
	const struct cluster_disk *d = &c->disks[pick(c, c->n_disks)];
	struct sim_file_faults *faults = sim_file_faults(d->file);
	faults->slow_ppm = 100000;
	faults->slow_ns = some_ns(c, 3 * NS_PER_S);
	cluster_say(c, &c->nodes[d->node], "%s is slow", d->name);
}

/* ---- all of it ---- */

/* What lasts ends, each by its own chance. */
static void faults_end_some(struct cluster *c, uint32_t per_million)
{
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		for (uint32_t j = 0; j < c->n_nodes; j++) {
			struct cluster_node *a = &c->nodes[i], *b = &c->nodes[j];
			if (i == j || !sim_net_is_blocked(a->machine, b->machine) || !sim_chance(c->sim, per_million))
				continue;
			sim_net_block(a->machine, b->machine, false);
			cluster_say(c, a, "is heard by %s again", b->name);
		}
		for (uint32_t way = 0; way < STORE_WAYS; way++) {
			if (!cluster_store_is_blocked(c->store, i, way) || !sim_chance(c->sim, per_million))
				continue;
			if (way == STORE_FROM && one_in(c, 4))
				cluster_store_forget_news(c->store, i);
			cluster_store_block(c->store, i, way, false);
			cluster_say(c, &c->nodes[i], "%s the store again",
				    way == STORE_TO ? "is heard by" : "hears of");
		}
	}
	for (uint32_t i = 0; i < c->n_disks; i++)
		if (sim_chance(c->sim, per_million))
			sim_file_faults(c->disks[i].file)->slow_ppm = 0;
	if (sim_chance(c->sim, per_million))
		metadata_memory_set_faults(cluster_store_memory(c->store), &(struct metadata_faults){0});
}

void faults_pass(struct cluster *c, uint64_t passed_ns)
{
	faults_end_some(c, (uint32_t)min_u64(passed_ns * 1000 / (LAST_NS / 1000), 1000000));
}

void fault_act(struct cluster *c)
{
	switch (pick(c, 16)) {
	case 0:
	case 1:
		return crash(c, SIM_KILL);
	case 2:
	case 3:
		return crash(c, SIM_POWER_LOSS);
	case 4:
		return stop(c);
	case 5:
	case 6:
		return pause(c);
	case 7:
	case 8:
		return block(c);
	case 9:
		return isolate(c);
	case 10:
		return cut(c);
	case 11:
		return block_store(c);
	case 12:
		return trouble_store(c);
	case 13:
		return fail_disk(c);
	case 14:
		return slow_disk(c);
	case 15:
		if (one_in(c, 3))
			crash_all(c);
		return;
	}
}

void faults_heal(struct cluster *c)
{
	cluster_say(c, NULL, "all that was wrong ends");
	faults_end_some(c, 1000000);
	for (uint32_t i = 0; i < c->n_disks; i++)
		for (uint32_t kind = 0; kind < 3; kind++) {
			static const enum op_kind kinds[] = {OP_READ, OP_WRITE, OP_FLUSH};
			sim_file_fail(c->disks[i].file, kinds[kind], 0, 0);
		}
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		struct cluster_node *n = &c->nodes[i];
		if (!sim_crash_is_due(n->machine))
			sim_crash_at(n->machine, 0);
		n->start_at_ns = 0;
		if (n->paused_until_ns)
			n->paused_until_ns = 1;
	}
}
