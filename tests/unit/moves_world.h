/*
 * moves_world.h: a volume of three segments whose segments leave disks, what each of its cells holds, and what a snapshot does.
 */
#pragma once

#include "tests/unit/head_world.h"

#define SEGMENTS   3u
#define CELLS      40u /* of 16 KiB, in each segment */
#define CELL_BYTES (16 * KIB)

struct bench {
	struct head_world w;
	struct volume *v;
	uint8_t *data, *back;
	uint8_t model[SEGMENTS][CELLS]; /* what every byte of a cell is */
	uint8_t kept[SEGMENTS][CELLS];  /* the same of the snapshot */
	uint64_t random;
};

struct wanted {
	struct bench *b;
	uint32_t disk;
};

void bench_open(struct bench *b, uint64_t seed, uint32_t n_disks, uint32_t replicas);
void bench_close(struct bench *b);
uint64_t cell_pos(uint32_t segment, uint32_t cell);
int bench_put(struct bench *b, uint32_t segment, uint32_t cell, uint8_t byte, unsigned flags);
void bench_change_one(struct bench *b);
void bench_change(struct bench *b, uint32_t n);
bool is_all(const uint8_t *data, uint8_t byte, uint64_t n);
uint32_t bench_wrong(struct bench *b, struct volume *v, uint8_t model[SEGMENTS][CELLS]);
void bench_check(struct bench *b);
/* What a disk itself has of the volume: every copy by the chunk is as the model says. */
void bench_check_copies(struct bench *b);
uint32_t bench_disk_of(struct bench *b, uint32_t segment);
const char *disk_name(struct bench *b, uint32_t disk);
int bench_drain(struct bench *b, uint32_t disk, bool cancel);
int bench_remove(struct bench *b, uint32_t disk);
bool disk_is_left(void *context);
void bench_until_left(struct bench *b, uint32_t disk);
void bench_start_again(struct bench *b);
/* Of data that lie on a disk. */
uint64_t bench_blocks(struct bench *b, uint32_t disk);
void bench_snapshot(struct bench *b, const char *name);
struct volume *bench_export(struct bench *b, const char *name);
