/*
 * main_history.c: sim-history: runs volume sets with snapshots, clones and rollbacks on the simulator, seed after seed,
 * until one fails.
 *
 *     sim-history [--seeds N] [--first S] [--jobs J] [--verbose]
 *
 * Each job is a process of its own, so that an assertion costs that job only and its seed is known.
 * Exit status: 0 all seeds held, 1 one failed, 2 wrong usage.
 */
#include "tests/sim/history/history_world.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOBS_MAX         64u
#define SEED_SECONDS_MAX 300u /* a seed that takes longer hangs inside a turn */

struct options {
	uint64_t first, n_seeds;
	uint32_t jobs;
	bool is_verbose;
};

/* Shared by the jobs: which seed each is at, and what all have counted. */
struct board {
	uint64_t seed[JOBS_MAX];
	struct history_totals totals[JOBS_MAX];
	uint64_t n_done[JOBS_MAX];
};

static _Noreturn void usage(void)
{
	fprintf(stderr, "usage: sim-history [--seeds N] [--first S] [--jobs J] [--verbose]\n");
	exit(2);
}

static uint64_t number(const char *text)
{
	char *end;

	errno = 0;
	uint64_t n = strtoull(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0')
		usage();
	return n;
}

static struct options options_read(int argc, char **argv)
{
	static const struct option longs[] = {{"seeds", required_argument, NULL, 'n'},
					      {"first", required_argument, NULL, 's'},
					      {"jobs", required_argument, NULL, 'j'},
					      {"verbose", no_argument, NULL, 'v'},
					      {NULL, 0, NULL, 0}};
	struct options o = {.first = 1, .n_seeds = 100, .jobs = 1};

	for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) >= 0;) {
		if (c == 'n')
			o.n_seeds = number(optarg);
		else if (c == 's')
			o.first = number(optarg);
		else if (c == 'j')
			o.jobs = (uint32_t)number(optarg);
		else if (c == 'v')
			o.is_verbose = true;
		else
			usage();
	}
	if (optind < argc || o.jobs == 0 || o.jobs > JOBS_MAX)
		usage();
	return o;
}

static void totals_add(struct history_totals *sum, const struct history_totals *t)
{
	sum->operations += t->operations;
	sum->crashes += t->crashes;
	sum->snapshots += t->snapshots;
	sum->clones += t->clones;
	sum->rollbacks += t->rollbacks;
	sum->deletes += t->deletes;
	sum->resizes += t->resizes;
	sum->diffs += t->diffs;
	sum->measures += t->measures;
	sum->checks += t->checks;
}

static _Noreturn void job_run(const struct options *o, struct board *b, uint32_t job)
{
	for (uint64_t i = job; i < o->n_seeds; i += o->jobs) {
		b->seed[job] = o->first + i;
		alarm(SEED_SECONDS_MAX);
		struct history_totals t = history_run(b->seed[job], o->is_verbose);
		totals_add(&b->totals[job], &t);
		b->n_done[job]++;
	}
	fflush(stdout);
	_Exit(0);
}

static void failure_tell(uint64_t seed, int status)
{
	if (WIFSIGNALED(status))
		printf("seed %" PRIu64 ": ended by signal %d%s\n", seed, WTERMSIG(status),
		       WTERMSIG(status) == SIGALRM ? " (it took too long)" : "");
	printf("repeat it with: sim-history --seeds 1 --first %" PRIu64 " --verbose\n", seed);
}

static void totals_tell(const struct options *o, const struct board *b)
{
	struct history_totals t = {0};
	uint64_t n = 0;

	for (uint32_t job = 0; job < o->jobs; job++) {
		totals_add(&t, &b->totals[job]);
		n += b->n_done[job];
	}
	printf("%" PRIu64 " seeds: %" PRIu64 " operations, %" PRIu64 " crashes, %" PRIu64 " snapshots, %" PRIu64
	       " clones, %" PRIu64 " rollbacks, %" PRIu64 " deletes, %" PRIu64 " resizes, %" PRIu64 " diffs, %" PRIu64
	       " measures, %" PRIu64 " checks\n",
	       n, t.operations, t.crashes, t.snapshots, t.clones, t.rollbacks, t.deletes, t.resizes, t.diffs,
	       t.measures, t.checks);
}

/* Starts the jobs, waits for all; at the first failure the others are ended. */
static bool jobs_run(const struct options *o, struct board *b)
{
	pid_t pids[JOBS_MAX];
	bool has_failed = false;
	int status;

	fflush(stdout);
	for (uint32_t job = 0; job < o->jobs; job++) {
		pids[job] = fork();
		if (pids[job] == 0)
			job_run(o, b, job);
		quarry_assert(pids[job] > 0);
	}
	for (pid_t ended; (ended = wait(&status)) > 0;) {
		uint32_t job = 0;
		while (job < o->jobs && pids[job] != ended)
			job++;
		quarry_assert(job < o->jobs);
		pids[job] = -1;
		if (status == 0 || has_failed)
			continue;
		has_failed = true;
		failure_tell(b->seed[job], status);
		for (uint32_t other = 0; other < o->jobs; other++) {
			if (pids[other] > 0)
				kill(pids[other], SIGKILL);
		}
	}
	return !has_failed;
}

int main(int argc, char **argv)
{
	struct options o = options_read(argc, argv);
	struct board *b = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	quarry_assert(b != MAP_FAILED);
	setvbuf(stdout, NULL, _IOLBF, 0); /* in order with the disk's log */
	bool has_held = jobs_run(&o, b);
	totals_tell(&o, b);
	munmap(b, sizeof(*b));
	return has_held ? 0 : 1;
}
