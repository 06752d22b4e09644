/*
 * sim.h: a simulated world behind reactor.h: machines, files, streams, time and chance, all from one seed.
 *
 * The world is one thread. A machine runs one process at a time: one reactor, whose files outlive it. Whoever has a
 * reactor of a machine (sim_reactor()) uses reactor.h as ever; the test steps the world and breaks it.
 *
 *     struct sim *world = sim_create(seed);
 *     struct sim_machine *m = sim_machine_create(world, "n1");
 *     struct sim_file *medium = sim_file_create(m, "d1", 16 * MIB);
 *     ... disk_open() with sim_reactor(m) and the path "d1" ...
 *     sim_crash_at(m, sim_io_index(m) + 17);
 *     if (sim_run(world, is_done, context, 100000) == SIM_CRASH_DUE) {
 *             sim_crash(m, SIM_POWER_LOSS);      the ops and timers of the old process are gone, its locks too
 *             disk_abandon(disk);                its memory goes
 *             ... disk_open() with sim_reactor(m), which is a new one ...
 *     }
 *     sim_destroy(world);
 *
 * Everything is decided by the seed and by the order of the calls: a run can be repeated exactly.
 * The fault model of files stands at the top of sim_disk.c, that of streams at the top of sim_net.c.
 */
#pragma once

#include "daemon/core/reactor.h"

struct sim;
struct sim_machine;
struct sim_file;

/* ---- the world ---- */

struct sim *sim_create(uint64_t seed);
/* Everything that lives in it goes; the code under test has been closed or abandoned before. */
void sim_destroy(struct sim *s);
uint64_t sim_now_ns(const struct sim *s);

/* Chance of the world, for tests as well; reactor_random() has a stream of its own on every machine. */
uint64_t sim_random(struct sim *s);
uint64_t sim_below(struct sim *s, uint64_t n); /* 0 .. n - 1; n > 0 */
bool sim_chance(struct sim *s, uint32_t per_million);
/* The next number of a stream of the test's own (splitmix64): what the test asks for does not shift what happens. */
uint64_t sim_split(uint64_t *state);

enum sim_outcome {
	SIM_DONE,      /* the predicate holds */
	SIM_IDLE,      /* nothing can happen any more */
	SIM_CRASH_DUE, /* a machine has reached its sim_crash_at(); call sim_crash() */
	SIM_TOO_LONG,  /* the limit of steps is reached */
};
/* One turn of the machine where something happens next, at random among equals. false: nothing can happen. */
bool sim_step(struct sim *s);
/* Steps until is_done(context), which is asked before every step; NULL: until idle. */
enum sim_outcome sim_run(struct sim *s, bool (*is_done)(void *context), void *context, uint64_t steps_max);
/* Lets virtual time pass, with all that happens in it. Returns as sim_run(), SIM_DONE when the time is over. */
enum sim_outcome sim_run_for(struct sim *s, uint64_t duration_ns);

/* ---- machines ---- */

struct sim_machine *sim_machine_create(struct sim *s, const char *name);
struct reactor *sim_reactor(struct sim_machine *m); /* of the process that runs now */

enum sim_crash_kind {
	SIM_KILL,       /* the process dies: what completed stays, every I/O in flight lands or not */
	SIM_POWER_LOSS, /* the machine stops: what was not flushed lands or not, block by block */
};
/* The process dies between two turns; a new one begins at once with a new reactor. Old handles and streams may still
 * be closed (that does nothing), old timers stopped. */
void sim_crash(struct sim_machine *m, enum sim_crash_kind kind);

/* File operations submitted and delivered so far, counted together. */
uint64_t sim_io_index(const struct sim_machine *m);
/* The process stops at the moment when its file I/O number `index` is submitted or delivered (0: never): that one does
 * not happen, nor does anything after it. sim_run() then returns SIM_CRASH_DUE. */
void sim_crash_at(struct sim_machine *m, uint64_t index);
bool sim_crash_is_due(const struct sim_machine *m);
/* The process takes no turn until then, as one that was sent SIGSTOP: what comes for it waits. A crash ends that. */
void sim_pause_until(struct sim_machine *m, uint64_t until_ns);

/* Its clock goes so much faster than the world's time, or slower; before anybody has looked at it. */
void sim_clock_drift(struct sim_machine *m, int32_t ppm);
/* Somebody sets its wall clock. reactor_now_ns() goes on as before. */
void sim_wall_jump(struct sim_machine *m, int64_t ahead_ns);

/* ---- files ---- */

struct sim_file *sim_file_create(struct sim_machine *m, const char *path, uint64_t size_bytes);
struct sim_file *sim_file_find(struct sim_machine *m, const char *path); /* NULL: none */
uint64_t sim_file_size_bytes(const struct sim_file *f);
void sim_file_resize(struct sim_file *f, uint64_t size_bytes); /* the device has grown or shrunk */
void sim_file_set_device(struct sim_file *f, bool is_device);  /* what file_is_device() says; before it is opened */
/* Moves the file, with what is in it, to another machine; nobody has it open. */
void sim_file_move(struct sim_file *f, struct sim_machine *to);

/* The block as a read would find it now (the newest completed write), without any fault. */
void sim_file_peek(const struct sim_file *f, uint64_t block, void *out);
/* Makes the block this, durably, behind the back of whoever has the file open. No write to it is in flight. */
void sim_file_poke(struct sim_file *f, uint64_t block, const void *content);
/* Calls each() for every block that was ever written and is not all a hole, in ascending order. */
void sim_file_each(struct sim_file *f, void (*each)(uint64_t block, const void *content, void *context), void *context);
/* Writes the present content to a real file, to look at with other tools. 0 or -errno. */
must_check int sim_file_save(struct sim_file *f, const char *path);

/* ---- faults of files; none unless asked for ---- */

struct sim_file_faults {
	uint32_t read_error_ppm;  /* a read fails with -EIO, once */
	uint32_t write_error_ppm; /* a write fails with -EIO; each of its blocks landed or did not */
	uint32_t flush_error_ppm; /* a flush fails with -EIO and has made nothing durable */
	uint32_t flip_ppm;        /* a written block has one bit flipped */
	uint32_t misdirect_ppm;   /* a written block lands on another one instead */
	uint32_t torn_ppm; /* of blocks that a power loss caught between two contents: sectors mixed or garbage */
	uint32_t slow_ppm; /* an operation takes slow_ns longer */
	uint64_t slow_ns;
	uint64_t latency_min_ns, latency_max_ns;
	bool is_punch_refused; /* -EOPNOTSUPP */
};
struct sim_file_faults *sim_file_faults(struct sim_file *f);          /* to change in place */
void sim_file_flip(struct sim_file *f, uint64_t block, uint32_t bit); /* bit 0 .. 32767, durably */
/* Reads of the block fail with -EIO until it is written again. */
void sim_file_break(struct sim_file *f, uint64_t block);
/* The operation of this kind that completes after `skip` others fails with -errno `error`; 0: none does. */
void sim_file_fail(struct sim_file *f, enum op_kind kind, uint32_t skip, int error);

struct sim_file_stats {
	uint64_t reads, writes, flushes, punches, read_bytes, write_bytes, punch_bytes;
	uint64_t torn_blocks, lost_blocks; /* at power losses */
	uint64_t blocks;                   /* that the world keeps in memory */
};
struct sim_file_stats sim_file_stats(const struct sim_file *f);

/* ---- the network; an address with a slash belongs to one machine, any other to all of them ---- */

/* Bytes between the two stand still, connecting times out, until it is healed. */
void sim_net_partition(struct sim_machine *a, struct sim_machine *b, bool is_parted);
/* The same of bytes in one direction. */
void sim_net_block(struct sim_machine *from, struct sim_machine *to, bool is_blocked);
bool sim_net_is_blocked(const struct sim_machine *from, const struct sim_machine *to);
/* Every connection between the two breaks with -ECONNRESET at both ends; a == b: its connections to itself. */
void sim_net_cut(struct sim_machine *a, struct sim_machine *b);

/* ---- descriptors that processes hand to each other; see sim_shared.c. The test plays the other process ---- */

int sim_memory_create(struct sim *s, uint64_t len_bytes); /* as memfd_create() and ftruncate() */
uint8_t *sim_memory_at(struct sim *s, int fd, uint64_t *len_bytes);
void sim_memory_set_file(struct sim *s, int fd, bool is_file); /* of a file system on a disk or elsewhere */
void sim_memory_cut(struct sim *s, int fd);                    /* its file shrinks under everybody */
int sim_counter_create(struct sim *s);                         /* as eventfd() */
void sim_counter_signal(struct sim *s, int fd);
uint64_t sim_counter_take(struct sim *s, int fd); /* how often it was signalled since */
/* What a reactor closes of this kind is held, as by a FUSE server, until sim_slow_end(). */
int sim_slow_create(struct sim *s);
void sim_slow_end(struct sim *s);
/* One end as a stream of the machine's process, the other as a descriptor to give away. */
int sim_stream_create(struct sim_machine *m, struct stream **near);
int sim_fd_copy(struct sim *s, int fd); /* as dup(); -1: there is no such */
void sim_fd_close(struct sim *s, int fd);
uint32_t sim_n_fds(const struct sim *s); /* open now */
