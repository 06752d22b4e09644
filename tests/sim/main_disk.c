/*
 * main_disk.c: sim-disk: runs the disk on the simulator, seed after seed, until one fails.
 *
 *     sim-disk [--seeds N] [--first S] [--jobs J] [--every-index] [--replay FILE] [--verbose]
 *
 * Each job is a process of its own, so that an assertion of the disk costs that job only and its seed is known. With
 * --replay, the seeds in the file are run before (one a line, the rest of the line says why it is kept).
 * Exit status: 0 all seeds held, 1 one failed, 2 wrong usage.
 */
#include "tests/sim/disk/disk_scenario.h"

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
#define KEPT_SEEDS_MAX   4096u

struct options {
	uint64_t first, n_seeds;
	uint32_t jobs;
	bool every_index, is_verbose;
	const char *replay;
};

/* Shared by the jobs: which seed each is at, and what all have counted. */
struct board {
	uint64_t seed[JOBS_MAX];
	struct world_totals totals[JOBS_MAX];
	uint64_t n_done[JOBS_MAX];
};

struct plan {
	const struct options *options;
	uint64_t kept[KEPT_SEEDS_MAX];
	uint64_t n_kept;
};

static _Noreturn void usage(void)
{
	fprintf(stderr,
		"usage: sim-disk [--seeds N] [--first S] [--jobs J] [--every-index] [--replay FILE] [--verbose]\n");
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
					      {"replay", required_argument, NULL, 'r'},
					      {"every-index", no_argument, NULL, 'e'},
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
		else if (c == 'r')
			o.replay = optarg;
		else if (c == 'e')
			o.every_index = true;
		else if (c == 'v')
			o.is_verbose = true;
		else
			usage();
	}
	if (optind < argc || o.jobs == 0 || o.jobs > JOBS_MAX)
		usage();
	return o;
}

static void kept_read(struct plan *p)
{
	char line[200];
	FILE *in = fopen(p->options->replay, "re");

	if (in == NULL) {
		fprintf(stderr, "sim-disk: cannot read %s: %s\n", p->options->replay, strerror(errno));
		exit(2);
	}
	while (fgets(line, sizeof(line), in) != NULL && p->n_kept < KEPT_SEEDS_MAX) {
		if (line[0] >= '0' && line[0] <= '9')
			p->kept[p->n_kept++] = strtoull(line, NULL, 10);
	}
	fclose(in);
}

static void totals_add(struct world_totals *sum, const struct world_totals *t)
{
	sum->requests += t->requests;
	sum->crashes += t->crashes;
	sum->power_losses += t->power_losses;
	sum->crashes_in_recovery += t->crashes_in_recovery;
	sum->reopened += t->reopened;
	sum->enospc += t->enospc;
	sum->trims_in_part += t->trims_in_part;
	sum->failures += t->failures;
	sum->damaged += t->damaged;
	sum->checks += t->checks;
	sum->scrubs += t->scrubs;
	sum->shaken += t->shaken;
}

static uint64_t seed_at(const struct plan *p, uint64_t i)
{
	return i < p->n_kept ? p->kept[i] : p->options->first + i - p->n_kept;
}

static _Noreturn void job_run(const struct plan *p, struct board *b, uint32_t job)
{
	const struct options *o = p->options;

	for (uint64_t i = job; i < p->n_kept + o->n_seeds; i += o->jobs) {
		b->seed[job] = seed_at(p, i);
		alarm(SEED_SECONDS_MAX);
		struct world_totals t = o->every_index ? scenario_every_index(b->seed[job], o->is_verbose)
						       : scenario_random(b->seed[job], o->is_verbose);
		totals_add(&b->totals[job], &t);
		b->n_done[job]++;
	}
	fflush(stdout);
	_Exit(0);
}

static void failure_tell(const struct options *o, uint64_t seed, int status)
{
	if (WIFSIGNALED(status))
		printf("seed %" PRIu64 ": ended by signal %d%s\n", seed, WTERMSIG(status),
		       WTERMSIG(status) == SIGALRM ? " (it took too long)" : "");
	printf("repeat it with: sim-disk --seeds 1 --first %" PRIu64 "%s --verbose\n", seed,
	       o->every_index ? " --every-index" : "");
}

static void totals_tell(const struct options *o, const struct board *b)
{
	struct world_totals t = {0};
	uint64_t n = 0;

	for (uint32_t job = 0; job < o->jobs; job++) {
		totals_add(&t, &b->totals[job]);
		n += b->n_done[job];
	}
	printf("%" PRIu64 " seeds: %" PRIu64 " requests, %" PRIu64 " crashes (%" PRIu64 " power losses, %" PRIu64
	       " in recovery), %" PRIu64 " closes, %" PRIu64 " failed disks, %" PRIu64 " damages, %" PRIu64
	       " reads that failed once, %" PRIu64 " refusals for space (%" PRIu64 " trims in part), %" PRIu64
	       " scrubs, %" PRIu64 " checks\n",
	       n, t.requests, t.crashes, t.power_losses, t.crashes_in_recovery, t.reopened, t.failures, t.damaged,
	       t.shaken, t.enospc, t.trims_in_part, t.scrubs, t.checks);
}

/* Starts the jobs, waits for all; at the first failure the others are ended. */
static bool jobs_run(const struct plan *p, struct board *b)
{
	const struct options *o = p->options;
	pid_t pids[JOBS_MAX];
	bool has_failed = false;
	int status;

	fflush(stdout);
	for (uint32_t job = 0; job < o->jobs; job++) {
		pids[job] = fork();
		if (pids[job] == 0)
			job_run(p, b, job);
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
		failure_tell(o, b->seed[job], status);
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
	struct plan *p = calloc(1, sizeof(*p));
	struct board *b = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	quarry_assert(p != NULL && b != MAP_FAILED);
	setvbuf(stdout, NULL, _IOLBF, 0); /* in order with the disk's log */
	p->options = &o;
	if (o.replay != NULL && !o.every_index)
		kept_read(p);
	bool has_held = jobs_run(p, b);
	totals_tell(&o, b);
	free(p);
	munmap(b, sizeof(*b));
	return has_held ? 0 : 1;
}
