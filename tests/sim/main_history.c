/*
 * main_history.c: sim-history: runs volume sets with snapshots, clones and rollbacks on the simulator, seed after seed,
 * until one fails.
 *
 *     sim-history [--seeds N] [--first S] [--jobs J] [--replay FILE] [--verbose]
 *
 * Exit status: 0 all seeds held, 1 one failed, 2 wrong usage.
 */
#include "tests/sim/history/history_world.h"
#include "tests/sim/jobs.h"

static const char *const names[] = {
#define X(name) #name,
    HISTORY_TOTALS(X)
#undef X
};

static void run(const struct jobs *j, uint64_t seed, uint64_t *counters)
{
	struct history_totals t = history_run(seed, j->is_verbose);
	uint32_t i = 0;
#define X(name) counters[i++] += t.name;
	HISTORY_TOTALS(X)
#undef X
}

int main(int argc, char **argv)
{
	return jobs_main(
	    argc, argv,
	    (struct jobs){.program = "sim-history", .run = run, .names = names, .n_names = array_size(names)});
}
