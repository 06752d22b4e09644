/*
 * copy.h: copies one endpoint into another, many pieces at a time, holes as holes.
 */
#pragma once

#include "cli/endpoint.h"

/* Ctrl-C and SIGTERM, taken as something that can be waited for, so that a command can tidy up. */
struct interrupt {
	int fd;
};
must_check enum status interrupt_begin(struct cli *c, struct interrupt *i);
void interrupt_end(struct interrupt *i);

struct copy_job {
	struct endpoint *source, *target;
	struct interrupt *interrupt;
	bool is_verified; /* what was written is read back and held against what was read */
};

/* Copies all of the source, which is not empty, to the beginning of the target and flushes the target. The target may be
 * larger; of an odd source the last piece is filled up with zeros to 512 bytes. *copied_bytes: what was not hole. */
must_check enum status copy_run(struct cli *c, const struct copy_job *job, uint64_t *copied_bytes);
