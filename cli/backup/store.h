/*
 * store.h: puts chunks into a repository, pack by pack.
 */
#pragma once

#include "cli/backup/repository.h"

#define PACKS_IN_WORK 2u /* packs being written while another grows: bounds the memory */

struct store_pack {
	struct job job;
	struct store *store;
	struct pack_builder *builder; /* NULL: free */
	char name[FILE_NAME_BYTES];
	int error;
};

/* Owner: the thread of the command. */
struct store {
	struct repository *repository;
	struct workers *workers;
	struct pack_builder *growing; /* NULL: nothing was put since the last pack */
	struct store_pack packs[PACKS_IN_WORK];
	int error;                        /* of the first pack that could not be written */
	char (*written)[FILE_NAME_BYTES]; /* names of the packs that are durable */
	uint32_t n_written;
	uint64_t stored_bytes, n_chunks;
};

void store_begin(struct store *s, struct repository *r, struct workers *workers);
/* False: store_put() must wait until a pack's job was taken. */
bool store_has_room(const struct store *s);
/* The chunk may be in the repository already: then nothing happens. */
void store_put(struct store *s, const struct chunk_id *id, const void *sealed, size_t n_bytes);
/* A chunk that is in the repository gets another place. */
void store_move(struct store *s, const struct chunk_id *id, const void *sealed, size_t n_bytes);
/* Encodes and puts. */
void store_put_plain(struct store *s, struct packer *p, enum kind kind, const struct chunk_id *id, const void *data,
		     size_t n_bytes);
/* Is it one of ours? Then it was dealt with. For every job that is taken. */
bool store_took(struct store *s, struct job *job);
/* Has a pack of that name been written? A pack of the same chunks as an older one has its name. */
bool store_has_written(const struct store *s, const char *name);
/* Writes out what there is and waits for it; other jobs must have been taken. 0 or the -errno of any pack. */
must_check int store_end(struct store *s);
void store_free(struct store *s);
