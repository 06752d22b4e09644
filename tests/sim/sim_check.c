/*
 * sim_check.c: the offline check of a simulated disk.
 */
#include "tests/sim/sim_check.h"

#include <stdio.h>

static int check_read(void *context, uint64_t block, void *out)
{
	sim_file_peek(((struct sim_check *)context)->medium, block, out);
	return 0;
}

static void check_say(void *context, const char *line)
{
	struct sim_check *c = context;
	if (c->n_findings < FINDINGS_KEPT_MAX)
		snprintf(c->findings[c->n_findings], sizeof(c->findings[0]), "%s", line);
	c->n_findings++;
}

void sim_check_init(struct sim_check *c, struct sim_file *medium)
{
	*c = (struct sim_check){.check = {.read = check_read,
					  .say = check_say,
					  .context = c,
					  .n_blocks = sim_file_size_bytes(medium) / BLOCK_BYTES},
				.medium = medium};
}
