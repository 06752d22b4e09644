/*
 * main_copy.c: sim-copy: copies between the disks of a volume on the simulator, seed after seed, until one fails.
 *
 *     sim-copy [--seeds N] [--first S] [--jobs J] [--verbose]
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
	static const struct option options[] = {JOBS_OPTIONS, {0}};
	struct jobs j = {.program = "sim-copy",
			 .usage = "",
			 .first = 1,
			 .n_seeds = 100,
			 .n = 1,
			 .repeat_option = "",
			 .run = run,
			 .names = names,
			 .n_names = array_size(names)};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) >= 0;)
		jobs_option(&j, c);
	if (optind < argc)
		jobs_usage(&j);
	return jobs_run(&j) ? 0 : 1;
}
