/*
 * pack.h: packs: files of chunks with their table at the end.
 */
#pragma once

#include "cli/backup/vault.h"

struct pack_entry {
	struct chunk_id id;
	uint32_t offset, n_bytes; /* of the sealed chunk in the file */
};

/* ---- writing: a pack grows in memory and is written as one file ---- */

struct pack_builder {
	uint8_t *data;
	size_t n_bytes, room;
	struct pack_entry *entries;
	uint32_t n_entries, entries_room;
};

struct pack_builder *pack_builder_create(const struct vault *v);
void pack_builder_destroy(struct pack_builder *b);
/* Room for one more chunk of n_bytes, to write to; pack_added() then says what it became. */
uint8_t *pack_room(struct pack_builder *b, size_t n_bytes);
void pack_added(struct pack_builder *b, const struct chunk_id *id, size_t n_bytes);
/* Appends table and end; data and n_bytes are the file then. Writes its name. */
void pack_finish(struct pack_builder *b, const struct vault *v, char name[static FILE_NAME_BYTES]);

/* ---- reading ---- */

struct pack_table {
	struct pack_entry *entries;
	uint32_t n_entries;
};

/* Takes a table apart: plain is what was sealed, the file's chunks end at end_bytes. 0, or -EBADMSG. */
must_check int pack_table_parse(const uint8_t *plain, size_t n_bytes, uint64_t end_bytes, uint32_t n_chunks,
				struct pack_table *table);
/* Reads the table of an open file and holds it against the file's name. 0; -EBADMSG: damaged; another -errno. */
must_check int pack_table_read(const struct vault *v, int fd, const char *name, struct pack_table *table);
void pack_table_free(struct pack_table *table);
