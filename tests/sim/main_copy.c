/*
 * main_copy.c: sim-copy: copies between the disks of a volume on the simulator, seed after seed, until one fails.
 *
 *     sim-copy [--seeds N] [--first S] [--jobs J] [--replay FILE] [--verbose]
 *
 * Exit status: 0 all seeds held, 1 one failed, 2 wrong usage.
 */
#include "tests/sim/copy/copy_scenario.h"
#include "tests/sim/jobs.h"

static const char *const names[] = {
#define X(name) #name,
    COPY_TOTALS(X)
#undef X
};

static void run(const struct jobs *j, uint64_t seed, uint64_t *counters)
{
	struct copy_totals t = copy_scenario(seed, j->is_verbose);
	uint32_t i = 0;
#define X(name) counters[i++] += t.name;
	COPY_TOTALS(X)
#undef X
}

int main(int argc, char **argv)
{
	return jobs_main(
	    argc, argv, (struct jobs){.program = "sim-copy", .run = run, .names = names, .n_names = array_size(names)});
}
