/*
 * sim_check.h: the offline check of a simulated disk, and what it finds.
 */
#pragma once

#include "tests/sim/sim.h"
#include "volumes/disk/disk.h"

#define FINDINGS_KEPT_MAX 12u

struct sim_check {
	struct disk_check check; /* for disk_check_run() */
	struct sim_file *medium;
	char findings[FINDINGS_KEPT_MAX][200]; /* the first of them; "" behind the last */
	uint64_t n_findings;
};

void sim_check_init(struct sim_check *c, struct sim_file *medium);
