/*
 * main_disk.c: sim-disk: runs the disk on the simulator, seed after seed, until one fails.
 *
 *     sim-disk [--seeds N] [--first S] [--jobs J] [--every-index] [--replay FILE] [--verbose]
 *
 * With --replay, the seeds in the file are run before (one a line, the rest of the line says why it is kept).
 * Exit status: 0 all seeds held, 1 one failed, 2 wrong usage.
 */
#include "tests/sim/disk/disk_scenario.h"
#include "tests/sim/jobs.h"

static const char *const names[] = {
#define X(name) #name,
    WORLD_TOTALS(X)
#undef X
};

static void counters_add(uint64_t *counters, const struct world_totals *t)
{
	uint32_t i = 0;
#define X(name) counters[i++] += t->name;
	WORLD_TOTALS(X)
#undef X
}

static void run_random(const struct jobs *j, uint64_t seed, uint64_t *counters)
{
	struct world_totals t = scenario_random(seed, j->is_verbose);
	counters_add(counters, &t);
}

static void run_every_index(const struct jobs *j, uint64_t seed, uint64_t *counters)
{
	struct world_totals t = scenario_every_index(seed, j->is_verbose);
	counters_add(counters, &t);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"replay", required_argument, NULL, 'r'}, {"every-index", no_argument, NULL, 'e'}, JOBS_OPTIONS, {0}};
	static uint64_t kept[JOBS_KEPT_MAX];
	const char *replay = NULL;
	struct jobs j = {.program = "sim-disk",
			 .usage = " [--every-index] [--replay FILE]",
			 .first = 1,
			 .n_seeds = 100,
			 .n = 1,
			 .kept = kept,
			 .repeat_option = "",
			 .run = run_random,
			 .names = names,
			 .n_names = array_size(names)};
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
		if (c == 'r') {
			replay = optarg;
		} else if (c == 'e') {
			j.run = run_every_index;
			j.repeat_option = " --every-index";
		} else {
			jobs_option(&j, c);
		}
	}
	if (optind < argc)
		jobs_usage(&j);
	if (replay != NULL && j.run == run_random)
		j.n_kept = jobs_read_kept(&j, replay, kept);
	return jobs_run(&j) ? 0 : 1;
}
