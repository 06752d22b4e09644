/*
 * history_world.h: a whole volume set on a simulated machine, and a trivial model of what its volumes hold.
 *
 * The model knows a few cells of each volume, blocks that lie in different leaves and segments. A cell has a value and a
 * version: the number of the write that made it, which forks inherit. So two points that agree in a cell's version have
 * not changed it since they were the same, and a block that one version alone names is unique to whoever names it.
 */
#pragma once

#include "tests/sim/sim.h"
#include "volumes/head/head_internal.h"

#define CELLS          24u
#define VOLUMES_MAX    5u
#define SNAPSHOTS_EACH 6u

struct point {
	uint32_t value[CELLS]; /* 0: a hole */
	uint32_t version[CELLS];
	uint32_t size_gib;
};

struct model_snapshot {
	char name[16];
	struct point point;
};

struct model_volume {
	bool exists, is_attached;
	char name[16];
	struct point live;
	struct model_snapshot snapshots[SNAPSHOTS_EACH];
	uint32_t n_snapshots;
	bool is_filling;
	uint32_t source[CELLS]; /* what its filler brings */
};

/* What is counted while a seed runs. */
#define HISTORY_TOTALS(X)                                                                                              \
	X(operations)                                                                                                  \
	X(crashes)                                                                                                     \
	X(snapshots)                                                                                                   \
	X(clones)                                                                                                      \
	X(rollbacks)                                                                                                   \
	X(deletes)                                                                                                     \
	X(resizes)                                                                                                     \
	X(fills)                                                                                                       \
	X(diffs)                                                                                                       \
	X(measures)                                                                                                    \
	X(checks)                                                                                                      \
	X(disk_failures)
struct history_totals {
#define X(name) uint64_t name;
	HISTORY_TOTALS(X)
#undef X
};

struct history_world {
	uint64_t seed;
	bool is_verbose, is_power;
	uint32_t copies, n_disks; /* of every volume; of the machine */
	struct sim *sim;
	struct sim_machine *machine;
	struct metadata *metadata;
	struct log *log;
	struct volume_set *set;
	struct uuid cluster, pool;
	struct model_volume volumes[VOLUMES_MAX];
	uint32_t next_value, next_name;
	bool is_done;
	int res;
	uint32_t n_busy; /* cells in flight */
	bool are_cells_done;
	struct history_totals totals;
};

_Noreturn void world_fail(struct history_world *w, const char *format, ...) printf_like(2, 3);
void world_say(struct history_world *w, const char *format, ...) printf_like(2, 3);
uint64_t world_pick(struct history_world *w, uint64_t n);
bool world_one_in(struct history_world *w, uint64_t n);

void world_open(struct history_world *w, uint64_t seed, bool is_verbose);
void world_close(struct history_world *w);
void world_start(struct history_world *w); /* through crashes, when chance asks for them */
void world_stop(struct history_world *w);
void world_crash(struct history_world *w);
/* Waits for is_done; false: a crash is due. */
bool world_wait(struct history_world *w);
bool world_wait_for(struct history_world *w, bool *flag); /* the same, for another flag than is_done */
/* Waits until nothing is being freed and no command is in line. */
void world_settle(struct history_world *w);
/* The disks are sound; when is_empty, nothing is allocated. Not while the set runs. */
void world_check_disks(struct history_world *w, bool is_empty);
/* false: a crash is due; else *res. */
bool world_command(struct history_world *w, struct set_command *c, int *res);

uint64_t cell_block(uint32_t cell);
static inline bool cell_is_inside(const struct point *p, uint32_t cell)
{
	return cell % 3 < p->size_gib;
}
/* The value of a cell of a volume or of a snapshot's head. */
uint32_t world_read(struct history_world *w, struct volume *v, uint32_t cell);
/* What each current copy of the cell is, of a cell that was read. */
void world_check_copies(struct history_world *w, struct volume *v, uint32_t cell, uint32_t value);
struct volume *world_head(struct history_world *w, const struct model_volume *m);
/* A request as a client's: false: a crash is due; else *res. */
bool world_submit(struct history_world *w, struct volume *v, const struct volume_io *io, int *res);

/* ---- history_fill.c: the filler of an attached volume; what returns a bool: false, a crash is due ---- */

void filler_choose_source(struct history_world *w, struct model_volume *m);
bool filler_is_wanted(struct history_world *w, struct model_volume *m); /* it is not whole yet */
bool filler_bring_cell(struct history_world *w, struct model_volume *m, uint32_t cell);
bool filler_visit(struct history_world *w, struct model_volume *m); /* brings something, and may be killed */
void filler_bring_all(struct history_world *w, struct model_volume *m);

/* ---- history_scenario.c ---- */

struct history_totals history_run(uint64_t seed, bool is_verbose);
