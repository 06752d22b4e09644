/*
 * record.h: one backup: its description and its table of leaves, as its file holds them.
 */
#pragma once

#include "cli/backup/vault.h"

struct record_leaf {
	uint32_t number; /* which 64 MiB of the volume */
	struct chunk_id id;
};

struct record {
	char name[FILE_NAME_BYTES]; /* of its file */
	json_t *description;
	struct record_leaf *leaves; /* in order; what is not here is all hole */
	uint32_t n_leaves, room;
};

/* The parts of a description that the program relies on; checked by record_decode(). */
#define RECORD_VOLUME      "volume"      /* name */
#define RECORD_VOLUME_UUID "volume_uuid" /* */
#define RECORD_SNAPSHOT    "snapshot"    /* name */
#define RECORD_SNAPSHOT_ID "snapshot_id" /* tells apart two snapshots of one name */
#define RECORD_SIZE        "size_bytes"  /* of the volume */
#define RECORD_DATA        "data_bytes"  /* of it, what is no hole */
#define RECORD_SEQUENCE    "sequence"    /* grows with each backup in a repository, up to SEQUENCE_MAX */
#define RECORD_CREATED_AT  "created_at"

#define SEQUENCE_MAX (1ull << 62) /* far beyond what is ever reached, and still a number of JSON */

struct record *record_create(void);
void record_destroy(struct record *r);
void record_add_leaf(struct record *r, uint32_t number, const struct chunk_id *id);
/* Where among the leaves the one of this number is, or the first behind it; n_leaves: there is none. */
uint32_t record_leaf_at(const struct record *r, uint64_t number);
/* NULL: all hole. */
const struct chunk_id *record_leaf_id(const struct record *r, uint32_t number);
uint64_t record_number(const struct record *r, const char *key);
const char *record_text(const struct record *r, const char *key);
/* "VOLUME@SNAPSHOT"; to be freed. */
char *record_title(const struct record *r);
/* The name of the file of a backup. */
void record_file_name(const struct vault *v, const char *title, char name[static FILE_NAME_BYTES]);
static inline uint64_t leaves_of(uint64_t size_bytes)
{
	return (size_bytes + LEAF_BYTES - 1) / LEAF_BYTES;
}

/* The file's bytes, to be freed. */
uint8_t *record_encode(const struct vault *v, const struct record *r, size_t *n_bytes);
/* What was sealed in the file, without the seal: 0, or -EBADMSG. */
must_check int record_parse(struct record *r, const uint8_t *plain, size_t n_bytes);
/* A whole file, whose name is `name`: 0, or -EBADMSG. */
must_check int record_decode(const struct vault *v, struct record *r, const char *name, const uint8_t *data,
			     size_t n_bytes);
