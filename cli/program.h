/*
 * program.h: runs quarryd for what it alone knows: `quarryd --check-disk`, `quarryd --import-embedded`.
 */
#pragma once

#include "cli/cli.h"

#include <sys/types.h>

struct program {
	pid_t pid;
	int said_fd; /* what it says on standard error */
};
/* Begins it with these arguments, NULL at the end, the first of which becomes its name; its standard output goes to
 * output_fd, or to ours when that is negative. Else refused. */
enum status program_begin(struct cli *c, char **arguments, int output_fd, struct program *p);
/* Waits for its end: DONE with its exit status, and what it said on standard error, without its name, to be freed. */
enum status program_end(struct cli *c, struct program *p, int *exit_status, char **said);
