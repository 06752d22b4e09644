/* copy_scenario.h: the stories that a seed of sim-copy tells; see copy_scenario.c. */
#pragma once

#include "daemon/core/base.h"

#define COPY_TOTALS(X)                                                                                                 \
	X(copies)                                                                                                      \
	X(crashes)                                                                                                     \
	X(power_losses)                                                                                                \
	X(disk_failures)                                                                                               \
	X(changed_blocks) /* at attach */                                                                              \
	X(copied_blocks)                                                                                               \
	X(client_changes) /* while a live tree was copied */
struct copy_totals {
#define X(name) uint64_t name;
	COPY_TOTALS(X)
#undef X
};
/* Ends the process where something is wrong, with the seed in its message. */
struct copy_totals copy_scenario(uint64_t seed, bool is_verbose);
