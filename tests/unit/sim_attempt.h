/*
 * sim_attempt.h: operations on a simulated reactor that remember their result, for tests of the simulator itself.
 */
#pragma once

#include "tests/sim/sim.h"

#define STEPS_MAX 100000u

struct attempt {
	struct op op;
	struct iovec iov;
	bool is_done;
	int res;
};

static inline void attempt_done(struct op *op, int res)
{
	struct attempt *t = container_of(op, struct attempt, op);

	t->is_done = true;
	t->res = res;
}

static inline bool attempt_is_done(void *context)
{
	return ((struct attempt *)context)->is_done;
}
