/*
 * cluster_schedule.c: the story of a seed.
 *
 * A cluster of three to five nodes begins; volumes are made; then, in turns of some length, clients ask, people give
 * commands, and things go wrong, as often as the seed's character has it; in between all may be left in peace for a while.
 * At the end everything heals and is judged.
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_world.h"

#include <stdlib.h>
#include <string.h>

#define START_NS       (60 * NS_PER_S)
#define UPKEEP_PERCENT 8u
#define JUMP_ONE_IN    25u /* turns */
#define ROT_ONE_IN     15u
#define SCRUB_ONE_IN   20u

static bool all_are_up(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_nodes; i++)
		if (c->nodes[i].state != NODE_UP)
			return false;
	return true;
}

static bool all_see_all(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_nodes; i++)
		for (uint32_t d = 0; d < c->n_disks; d++) {
			const struct set_disk *seen = set_disk_by_uuid(c->nodes[i].set, &c->disks[d].uuid);
			if (disk_is_there(&c->disks[d]) && !set_disk_is_running(seen))
				return false;
		}
	return true;
}

static void begin(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_nodes; i++)
		node_start(&c->nodes[i]);
	if (!cluster_until(c, all_are_up, START_NS) || !cluster_until(c, all_see_all, START_NS))
		cluster_fail(c, "the cluster does not begin");
	uint32_t n_volumes = 1 + (uint32_t)pick(c, 2);
	for (uint32_t i = 0; i < n_volumes; i++) {
		uint32_t replicas = one_in(c, 8) ? 1 : 2 + (uint32_t)pick(c, min_u64(c->n_nodes, 4) - 1);
		struct model_volume *v = order_create_volume(c, replicas, replicas > 1 && one_in(c, 5) ? 2 : 1);
		if (c->habits & HABIT_BALLAST)
			client_fill_ballast(c, v);
	}
	if (c->habits & HABIT_BALLAST && one_in(c, 2))
		upkeep_add_spares(c);
}

static void turn(struct cluster *c, uint32_t ios_max, uint32_t trouble_percent, uint32_t orders_percent)
{
	for (uint64_t n = pick(c, ios_max + 1); n > 0; n--)
		client_act(c, &c->volumes[pick(c, VOLUMES_MAX)]);
	if (pick(c, 100) < orders_percent)
		order_act(c);
	if (c->habits && pick(c, 100) < UPKEEP_PERCENT)
		upkeep_act(c);
	if (c->habits & HABIT_CLOCKS && one_in(c, JUMP_ONE_IN))
		fault_jump(c);
	if (c->habits & HABIT_ROT && one_in(c, ROT_ONE_IN))
		rot_act(c);
	if (c->is_scrubbing && one_in(c, SCRUB_ONE_IN))
		rot_scrub(c);
	if (pick(c, 100) < trouble_percent)
		fault_act(c);
	if (one_in(c, 20))
		upkeep_return_disks(c);
	if (one_in(c, 6))
		order_attach_lost(c);
	uint64_t length_ns = 1 + (pick(c, 800 * NS_PER_MS) >> pick(c, 6));
	cluster_pass(c, length_ns);
	faults_pass(c, length_ns);
	rot_pass(c);
}

struct cluster_totals cluster_run(uint64_t seed, bool is_traced)
{
	struct cluster *c = malloc(sizeof(*c));
	quarry_assert(c);
	cluster_open(c, seed, is_traced);
	begin(c);
	uint32_t trouble_percent = 2 + (uint32_t)pick(c, 12), orders_percent = (uint32_t)pick(c, 12);
	uint32_t n_turns = 200 + (uint32_t)pick(c, 200), ios_max = 2 + (uint32_t)pick(c, 8);
	for (uint32_t i = 0; i < n_turns; i++)
		turn(c, ios_max, trouble_percent, orders_percent);
	cluster_judge(c);
	cluster_count_events(c);
	struct cluster_totals totals = c->totals;
	cluster_close(c);
	free(c);
	return totals;
}
