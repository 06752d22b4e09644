/*
 * copies_world.h: a volume with several copies on the disks of a simulated machine, and what each of its cells holds.
 */
#pragma once

#include "tests/unit/head_world.h"

#define CELLS       48u /* of 16 KiB, in each of two segments */
#define CELL_BYTES  (16 * KIB)
#define CELL_BLOCKS (CELL_BYTES / BLOCK_BYTES)

struct bench {
	struct head_world w;
	struct volume *v;
	uint8_t *data, *back;
	uint8_t model[2][CELLS]; /* what every byte of a cell is */
	uint64_t random;
};

/* n_disks disks of equal size, and "vm1" of 2 GiB attached. */
void bench_open(struct bench *b, uint64_t seed, uint32_t n_disks, uint32_t replicas);
/* Two disks of different sizes, and two copies. */
void bench_open_sizes(struct bench *b, uint64_t seed, uint64_t first_bytes, uint64_t second_bytes);
void bench_close(struct bench *b);
/* After a stop or a crash. */
void bench_start_again(struct bench *b);
uint64_t cell_pos(uint32_t segment, uint32_t cell);
int bench_put(struct bench *b, uint32_t segment, uint32_t cell, uint8_t byte, unsigned flags);
/* Random writes, trims and zeroes. */
void bench_change(struct bench *b, uint32_t n);
bool is_all(const uint8_t *data, uint8_t byte, uint64_t n);
void bench_check(struct bench *b);

/* ---- looking at one copy ---- */

struct look {
	struct disk_io io;
	struct iovec iov;
	bool is_done;
	int res;
};
/* What l->io says is asked of a disk of this node, with the memory l->iov; waits. */
int look_ask_at(struct head_world *w, const struct set_disk *d, const struct uuid *volume, uint64_t tree,
		struct look *l);
/* What l->io says of a cell is asked of one copy; waits. */
int look_ask(struct bench *b, uint32_t disk, struct look *l);
/* Reads one copy. */
int look_at(struct bench *b, uint32_t disk, uint64_t pos, uint8_t *out, struct look *l);
/* Every disk that counts has what the model has. */
void bench_check_copies(struct bench *b);
/* The place of a cell's nth block on a disk. */
uint64_t cell_block(struct bench *b, uint32_t disk, uint32_t segment, uint32_t cell, uint32_t n);
const struct volume_disk_facts *bench_facts(struct bench *b, uint32_t disk);
/* The first of those where a segment lies. */
uint32_t bench_disk_of(struct bench *b, uint32_t segment);

/* ---- requests that are not waited for at once ---- */

/* On a cell, as world_request_start(). */
void bench_request_start(struct bench *b, struct world_request *r, enum volume_op op, uint64_t pos);

/* ---- disks that come back ---- */

/* For world_until(), with the bench. */
bool all_are_current(void *context);
/* The disk is opened anew, as `quarry disk add PATH` does. */
void bench_return(struct bench *b, uint32_t disk);
