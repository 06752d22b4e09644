/*
 * jobs.c: the processes that go through the seeds, and the board on which they say where they are.
 *
 * Job k of n takes the seeds k, k + n, k + 2n ... of those kept and then those asked for. At the first that fails, the
 * others are ended.
 */
#include "tests/sim/jobs.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEED_SECONDS_MAX 300u /* a seed that takes longer hangs inside a turn */

/* Shared by the jobs. */
struct board {
	uint64_t seed[JOBS_MAX]; /* that each is at */
	uint64_t counters[JOBS_MAX][JOBS_COUNTERS_MAX];
	uint64_t n_done[JOBS_MAX];
};

_Noreturn void jobs_usage(const struct jobs *j)
{
	fprintf(stderr, "usage: %s [--seeds N] [--first S] [--jobs J]%s [--verbose]\n", j->program, j->usage);
	exit(2);
}

static uint64_t number(const struct jobs *j, const char *text)
{
	char *end;
	errno = 0;
	uint64_t n = strtoull(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0')
		jobs_usage(j);
	return n;
}

void jobs_option(struct jobs *j, int option)
{
	if (option == 'n')
		j->n_seeds = number(j, optarg);
	else if (option == 's')
		j->first = number(j, optarg);
	else if (option == 'j')
		j->n = (uint32_t)number(j, optarg);
	else if (option == 'v')
		j->is_verbose = true;
	else
		jobs_usage(j);
}

static uint64_t seed_at(const struct jobs *j, uint64_t i)
{
	return i < j->n_kept ? j->kept[i] : j->first + i - j->n_kept;
}

static _Noreturn void job_run(const struct jobs *j, struct board *b, uint32_t job)
{
	for (uint64_t i = job; i < j->n_kept + j->n_seeds; i += j->n) {
		b->seed[job] = seed_at(j, i);
		alarm(SEED_SECONDS_MAX);
		j->run(j, b->seed[job], b->counters[job]);
		b->n_done[job]++;
	}
	fflush(stdout);
	_Exit(0);
}

static void failure_tell(const struct jobs *j, uint64_t seed, int status)
{
	if (WIFSIGNALED(status))
		printf("seed %" PRIu64 ": ended by signal %d%s\n", seed, WTERMSIG(status),
		       WTERMSIG(status) == SIGALRM ? " (it took too long)" : "");
	printf("repeat it with: %s --seeds 1 --first %" PRIu64 "%s --verbose\n", j->program, seed, j->repeat_option);
}

static void counters_tell(const struct jobs *j, const struct board *b)
{
	uint64_t n_done = 0;
	for (uint32_t job = 0; job < j->n; job++)
		n_done += b->n_done[job];
	printf("%" PRIu64 " seeds:", n_done);
	for (uint32_t i = 0; i < j->n_names; i++) {
		uint64_t sum = 0;
		for (uint32_t job = 0; job < j->n; job++)
			sum += b->counters[job][i];
		printf("%s %" PRIu64 " %s", i ? "," : "", sum, j->names[i]);
	}
	printf("\n");
}

static bool board_run(const struct jobs *j, struct board *b)
{
	pid_t pids[JOBS_MAX];
	bool has_failed = false;
	int status;
	fflush(stdout);
	for (uint32_t job = 0; job < j->n; job++) {
		pids[job] = fork();
		if (pids[job] == 0)
			job_run(j, b, job);
		quarry_assert(pids[job] > 0);
	}
	for (pid_t ended; (ended = wait(&status)) > 0;) {
		uint32_t job = 0;
		while (job < j->n && pids[job] != ended)
			job++;
		quarry_assert(job < j->n);
		pids[job] = -1;
		if (status == 0 || has_failed)
			continue;
		has_failed = true;
		failure_tell(j, b->seed[job], status);
		for (uint32_t other = 0; other < j->n; other++) {
			if (pids[other] > 0)
				kill(pids[other], SIGKILL);
		}
	}
	return !has_failed;
}

bool jobs_run(const struct jobs *j)
{
	struct board *b = mmap(NULL, sizeof(*b), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	quarry_assert(b != MAP_FAILED && j->n_names <= JOBS_COUNTERS_MAX);
	if (j->n == 0 || j->n > JOBS_MAX)
		jobs_usage(j);
	setvbuf(stdout, NULL, _IOLBF, 0); /* in order with the disk's log */
	bool has_held = board_run(j, b);
	counters_tell(j, b);
	munmap(b, sizeof(*b));
	return has_held;
}

uint64_t jobs_read_kept(const struct jobs *j, const char *path, uint64_t kept[static JOBS_KEPT_MAX])
{
	char line[200];
	uint64_t n = 0;
	FILE *in = fopen(path, "re");
	if (in == NULL) {
		fprintf(stderr, "%s: cannot read %s: %s\n", j->program, path, strerror(errno));
		exit(2);
	}
	while (fgets(line, sizeof(line), in) != NULL && n < JOBS_KEPT_MAX) {
		if (line[0] >= '0' && line[0] <= '9')
			kept[n++] = strtoull(line, NULL, 10);
	}
	fclose(in);
	return n;
}

int jobs_main(int argc, char **argv, struct jobs j)
{
	static const struct option options[] = {{"replay", required_argument, NULL, 'r'}, JOBS_OPTIONS, {0}};
	static uint64_t kept[JOBS_KEPT_MAX];
	j.usage = " [--replay FILE]";
	j.repeat_option = "";
	j.first = j.n = 1;
	j.n_seeds = 100;
	j.kept = kept;
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) >= 0;)
		if (c == 'r')
			j.n_kept = jobs_read_kept(&j, optarg, kept);
		else
			jobs_option(&j, c);
	if (optind < argc)
		jobs_usage(&j);
	return jobs_run(&j) ? 0 : 1;
}
