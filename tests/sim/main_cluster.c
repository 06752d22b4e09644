/*
 * main_cluster.c: sim-cluster: runs whole clusters on the simulator, seed after seed, until one fails.
 *
 *     sim-cluster [--seeds N] [--first S] [--jobs J] [--replay FILE] [--verbose]
 *
 * With --verbose it tells everything that happens: time, node, event. With --replay, the seeds in the file are run before.
 * Exit status: 0 all seeds held, 1 one failed, 2 wrong usage.
 */
#include "tests/sim/cluster/cluster_world.h"
#include "tests/sim/jobs.h"

static const char *const names[] = {
#define X(name) #name,
    CLUSTER_TOTALS(X)
#undef X
};

static void run(const struct jobs *j, uint64_t seed, uint64_t *counters)
{
	struct cluster_totals t = cluster_run(seed, j->is_verbose);
	uint32_t i = 0;
#define X(name) counters[i++] += t.name;
	CLUSTER_TOTALS(X)
#undef X
}

int main(int argc, char **argv)
{
	return jobs_main(
	    argc, argv,
	    (struct jobs){.program = "sim-cluster", .run = run, .names = names, .n_names = array_size(names)});
}
