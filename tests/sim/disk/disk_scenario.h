/*
 * disk_scenario.h: what a seed of the disk simulation goes through.
 */
#pragma once

#include "tests/sim/disk/disk_world.h"

/* Rounds of load, each ended by a crash, a close or nothing; damage; a full disk; drops. */
struct world_totals scenario_random(uint64_t seed, bool is_verbose);
/* A short load with a crash at each of its I/Os in turn, and inside the recoveries. */
struct world_totals scenario_every_index(uint64_t seed, bool is_verbose);
