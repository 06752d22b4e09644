/*
 * disk_world.h: one simulated machine with one quarry disk, the oracle that judges it, and requests in flight.
 *
 * Every mistake of the disk ends the process through world_fail(), with the seed in its message.
 */
#pragma once

#include "tests/sim/disk/disk_leaves.h"
#include "tests/sim/oracle.h"
#include "tests/sim/sim.h"
#include "volumes/disk/disk.h"

#define WORLD_SLOTS        16u
#define WORLD_VOLUMES      3u /* two with trees, one that comes and goes */
#define WORLD_TREE_VOLUMES 2u
#define WORLD_TREES_WANTED 8u  /* no more are made while so many live */
#define WORLD_TREES_MANY   40u /* but on a full disk, to use up its reserve */
#define WORLD_TREES_MAX    64u /* a crash may bring back what was being dropped */
#define WORLD_EXTENTS      40u
#define WORLD_PATH         "d1"

struct disk_world;

/* One request in flight and its memory. */
struct slot {
	struct disk_io io; /* first */
	struct disk_world *world;
	bool is_busy;
	bool is_cut_short; /* TRIM: a fence came between; it waits to be submitted again, and its range with it */
	int res;           /* of the last one */
	uint32_t tree;
	uint32_t cell;                      /* READ, MAP, STAMPS: of the first block */
	uint32_t request;                   /* the oracle's; ORACLE_NONE: none */
	uint64_t shared;                    /* TRIM: leaves that other trees might share when it was submitted */
	uint64_t least_free;                /* TRIM, COPY_HOLES, CUT: blocks, after any step since then */
	uint64_t mark;                      /* FLUSH */
	uint32_t other;                     /* SWAP: the other tree */
	uint32_t requests[WORLD_TREES_MAX]; /* CUT: the oracle's, one for each tree of the volume */
	uint32_t n_requests, cut_volume;
	bool must_be_refused, may_be_refused; /* COPY: something there is, or may be, too new */
	uint32_t volume;
	uint8_t *memory;
	struct iovec iov[DISK_IO_BLOCKS_MAX];
	uint32_t crcs[DISK_IO_BLOCKS_MAX];
	uint64_t epochs[DISK_IO_BLOCKS_MAX];
	struct disk_extent extents[WORLD_EXTENTS];
	struct disk_stamp stamps[WORLD_EXTENTS];
};

/* What a volume's record says: after the last command that was answered, and after the one that is under way. */
struct volume_facts {
	bool exists;
	uint64_t generation, complete_epoch;
};
struct volume_state {
	struct uuid uuid;
	struct volume_facts done, asked;
	uint64_t session; /* the newest that was answered */
	bool is_busy;
};

struct world_settings {
	uint64_t disk_bytes;
	uint64_t cache_bytes; /* of the next opening */
	struct oracle_window windows[ORACLE_WINDOWS_MAX];
	uint32_t n_windows;
	bool is_reserved, is_device, is_punch_refused;
};

/* What is counted while a seed runs. */
#define WORLD_TOTALS(X)                                                                                                \
	X(requests)                                                                                                    \
	X(crashes)                                                                                                     \
	X(power_losses)                                                                                                \
	X(crashes_in_recovery)                                                                                         \
	X(reopened) X(enospc) X(trims_in_part) X(failures) X(damaged) X(checks) X(scrubs) X(shaken)
struct world_totals {
#define X(name) uint64_t name;
	WORLD_TOTALS(X)
#undef X
};

struct disk_world {
	uint64_t seed;
	uint64_t random_state; /* of the test's choices */
	bool is_verbose;
	struct world_settings settings;
	struct sim *sim;
	struct sim_machine *machine;
	struct sim_file *medium;
	struct log *log;
	struct disk *disk;
	bool is_opened, is_closed, has_failed;
	int open_res;
	struct oracle *oracle;
	struct leaves *leaves;
	struct volume_state volumes[WORLD_VOLUMES];
	struct disk_tree **handles; /* by the oracle's number */
	uint32_t handles_max;
	uint64_t epoch, next_tree_id;
	uint32_t trees_wanted;
	struct slot *slots; /* WORLD_SLOTS */
	uint32_t n_busy;
	uint64_t n_done;
	bool has_bad_cells; /* a data block was damaged, and a dying tree or the last checkpoint may still name it */
	bool is_lenient;    /* structures were damaged: errors are no mistake */
	bool was_shaken;    /* is_shaky was set since the disk was last opened, or for its opening */
	bool is_shaky;      /* a read fails once: an error may be answered, and then nothing is wrong but the answer */
	struct world_totals totals;
};

struct disk_world *world_create(uint64_t seed, bool is_verbose);
void world_destroy(struct disk_world *w);

_Noreturn void world_fail(struct disk_world *w, const char *format, ...) printf_like(2, 3);
void world_say(struct disk_world *w, const char *format, ...) printf_like(2, 3); /* when verbose */

uint64_t world_pick(struct disk_world *w, uint64_t n); /* 0 .. n - 1 */
bool world_one_in(struct disk_world *w, uint64_t n);

/* ---- life ---- */

void world_format(struct disk_world *w);
enum world_open { WORLD_OPENED, WORLD_CRASHED, WORLD_REFUSED };
/* Recovers; WORLD_CRASHED: the crash that was set is due. */
enum world_open world_open(struct disk_world *w);
void world_close(struct disk_world *w);
/* The read after a few others fails, once, from here until world_steady(). */
void world_shake(struct disk_world *w, uint64_t reads_max);
void world_steady(struct disk_world *w);
void world_crash(struct disk_world *w, enum sim_crash_kind kind);
/* The head's first act on a volume after opening: a new generation and session. */
void world_fence(struct disk_world *w);

/* ---- judging: disk_judge.c ---- */

/* Verifies the image; it must be sound, and clean after a close. */
void world_check(struct disk_world *w, bool is_closed);
/* Verifies the image, where a data block in use is damaged: it must be found. */
void world_check_finds(struct disk_world *w);
/* Verifies the image of a disk without trees: no data, no trees. */
void world_check_empty(struct disk_world *w);
/* Reads everything and has the oracle judge it. */
void world_verify(struct disk_world *w);
/* Reads everything while it runs; each answer is judged. */
void world_look(struct disk_world *w);

/* ---- waiting ---- */

/* A step of the world, and a look at what it left free, for what is under way leaf by leaf. */
void world_step(struct disk_world *w);
void world_look_at_room(struct disk_world *w);
/* Steps until the predicate holds. SIM_DONE or SIM_CRASH_DUE; when nothing gets on, it is a mistake. */
enum sim_outcome world_wait(struct disk_world *w, bool (*is_done)(void *w), const char *what);
bool world_is_idle(void *w);            /* nothing in flight */
void world_retry(struct disk_world *w); /* submits again what was cut short, where the volume's session is known */

/* ---- requests: disk_slots.c ---- */

void slots_say(const struct disk_world *w);   /* what is in flight, for the message of a failure */
struct slot *slot_take(struct disk_world *w); /* a free one, prepared; NULL: none */
void slot_submit(struct slot *s);
/* Submits and waits; its result, or -EINTR when the crash is due. */
int slot_call(struct slot *s);
void slot_use_memory(struct slot *s, uint32_t n_blocks); /* cuts it into random pieces */
uint64_t world_session(const struct disk_world *w, uint32_t tree);
static inline uint32_t world_volume_of(const struct disk_world *w, uint32_t tree)
{
	return (uint32_t)(oracle_tree_id(w->oracle, tree) % WORLD_TREE_VOLUMES);
}
void world_handle_set(struct disk_world *w, uint32_t tree, struct disk_tree *handle);
uint32_t world_live_trees(const struct disk_world *w, uint32_t out[static WORLD_TREES_MAX]);

/* disk_load.c: random requests until n have been submitted and all are answered, or a crash is due, or the disk failed.
 */
struct load {
	uint32_t n_requests;
	uint32_t concurrency; /* 1 .. WORLD_SLOTS */
	uint32_t write_weight;
};
enum sim_outcome load_run(struct disk_world *w, const struct load *l);
/* One request of a kind, as load_run() makes them; false: none is possible now. */
bool load_write(struct disk_world *w);
bool load_read(struct disk_world *w);
bool load_trim(struct disk_world *w);
bool load_trim_of_youngest(struct disk_world *w); /* one block of the tree that was made last */
bool load_fork(struct disk_world *w);
bool load_drop(struct disk_world *w);
bool load_create(struct disk_world *w);
