/*
 * sim_file.h: the structures of a simulated file, shared by sim_blocks.c, sim_disk.c and sim_handle.c.
 */
#pragma once

#include "tests/sim/sim_internal.h"

#include <stdlib.h>
#include <string.h>

struct sim_version {
	struct sim_version *newer;
	uint8_t *data;       /* NULL: zeros */
	uint64_t completion; /* the file's count when it was delivered; 0: in flight */
};

struct sim_block {
	uint64_t number;
	uint8_t *durable; /* NULL: zeros */
	struct sim_version *oldest, *newest;
	bool is_broken;
	struct list volatile_link; /* linked exactly while it has versions */
};

struct sim_failure {
	bool is_armed;
	uint32_t skip;
	int error;
};

struct sim_file {
	struct sim_machine *machine;
	char path[SIM_NAME_BYTES];
	uint64_t size_bytes;
	bool is_device, is_removed; /* removed: no path leads to it, and it stays for those who have it open */
	struct sim_handle *locked_by;
	uint64_t n_completions;
	struct sim_block **table; /* linear probing; NULL: free */
	uint64_t table_size, n_blocks;
	struct list volatile_blocks, in_flight;
	struct sim_file_faults faults;
	struct sim_failure failures[OP_PUNCH + 1];
	struct sim_file_stats stats;
	struct list link;
};

struct sim_handle {
	struct file base;      /* first */
	struct sim_file *file; /* NULL: of a dead process */
	unsigned flags;
	uint32_t n_ops;
	struct list link;
};

static inline struct sim_handle *handle_of(struct file *f)
{
	return container_of(f, struct sim_handle, base);
}

/* sim_blocks.c */
struct sim_block *block_find(const struct sim_file *f, uint64_t number); /* NULL: never written */
struct sim_block *block_make(struct sim_file *f, uint64_t number);
void block_free(struct sim_block *b);
void blocks_grow(struct sim_file *f);
uint8_t *content_copy(const uint8_t *content); /* NULL: zeros */
void content_flip(uint8_t *content, uint32_t bit);
/* Mixes in sectors of another content, and garbage. */
void content_tear(struct sim *s, uint8_t *content, const uint8_t *other, bool has_garbage);
const uint8_t *block_settled(const struct sim_block *b); /* after the newest delivered write; NULL: zeros */
const uint8_t *block_newest(const struct sim_block *b);  /* with the write in flight; NULL: zeros */
static inline bool block_is_in_flight(const struct sim_block *b)
{
	return b->newest != NULL && b->newest->completion == 0;
}
struct sim_version *version_add(struct sim_file *f, struct sim_block *b, uint8_t *data); /* in flight; takes data */
void version_drop_newest(struct sim_block *b);   /* the write in flight did not land */
void version_settle_oldest(struct sim_block *b); /* becomes the durable content */
void block_drop_versions(struct sim_block *b);
void file_lose_power(struct sim_file *f);
