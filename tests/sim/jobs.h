/*
 * jobs.h: runs a simulation seed after seed, in several processes, until one fails.
 *
 * Each job is a process of its own, so that an assertion costs that job only and its seed is known.
 */
#pragma once

#include "daemon/core/base.h"

#include <getopt.h>

#define JOBS_MAX          64u
#define JOBS_COUNTERS_MAX 40u
#define JOBS_KEPT_MAX     4096u

struct jobs {
	const char *program; /* what the user calls it */
	const char *usage;   /* its options */
	uint64_t first, n_seeds;
	uint32_t n; /* processes */
	bool is_verbose;
	const uint64_t *kept; /* n_kept seeds that are run before */
	uint64_t n_kept;
	const char *repeat_option; /* what a failed seed needs to be repeated beside --first; "" */
	/* Goes through one seed, or ends the process; adds to the counters, which have these names. */
	void (*run)(const struct jobs *j, uint64_t seed, uint64_t *counters);
	const char *const *names;
	uint32_t n_names;
};

/* The options of all simulations, for getopt_long(). */
#define JOBS_OPTIONS                                                                                                   \
	{"seeds", required_argument, NULL, 'n'}, {"first", required_argument, NULL, 's'},                              \
	    {"jobs", required_argument, NULL, 'j'},                                                                    \
	{                                                                                                              \
		"verbose", no_argument, NULL, 'v'                                                                      \
	}

_Noreturn void jobs_usage(const struct jobs *j); /* ends with 2 */
/* One of JOBS_OPTIONS, with its optarg; anything else ends with the usage. */
void jobs_option(struct jobs *j, int option);
/* false: a seed failed, which was said; what was counted is said in any case. */
bool jobs_run(const struct jobs *j);
/* The seeds of a file, one a line, the rest of the line says why it is kept; returns how many, or ends with 2. */
uint64_t jobs_read_kept(const struct jobs *j, const char *path, uint64_t kept[static JOBS_KEPT_MAX]);
/* The main() of a simulation without options of its own: j names it, its run() and its counters. --replay FILE runs kept
 * seeds before. */
int jobs_main(int argc, char **argv, struct jobs j);
