/*
 * pack.c: packs.
 *
 * 1. Every byte of a pack is held against something: the magic words, the repository's id, each chunk against its seal,
 *    the table against its seal and the file's name, and the chunks lie without a gap from the header to the table.
 * 2. Lengths are added up in 64 bits and compared with the size that the file has before anything is allocated.
 */
#include "cli/backup/pack.h"

#include "cli/backup/files.h"

#include <errno.h>
#include <sys/stat.h>

/* ---- writing ---- */

struct pack_builder *pack_builder_create(const struct vault *v)
{
	struct pack_builder *b = calloc(1, sizeof(*b));
	if (!b)
		abort();
	memcpy(pack_room(b, PACK_HEADER_BYTES), PACK_MAGIC, 8);
	memcpy(b->data + 8, v->repository_id, REPOSITORY_ID_BYTES);
	b->n_bytes = PACK_HEADER_BYTES;
	return b;
}

void pack_builder_destroy(struct pack_builder *b)
{
	if (!b)
		return;
	free(b->data);
	free(b->entries);
	free(b);
}

uint8_t *pack_room(struct pack_builder *b, size_t n_bytes)
{
	while (b->room - b->n_bytes < n_bytes) {
		b->room = b->room ? b->room * 2 : 1u << 20;
		b->data = realloc(b->data, b->room);
		if (!b->data)
			abort();
	}
	return b->data + b->n_bytes;
}

void pack_added(struct pack_builder *b, const struct chunk_id *id, size_t n_bytes)
{
	quarry_assert(b->room - b->n_bytes >= n_bytes && b->n_bytes + n_bytes <= PACK_BYTES_MAX);
	if (b->n_entries == b->entries_room) {
		b->entries_room = b->entries_room ? b->entries_room * 2 : 256;
		b->entries = reallocarray(b->entries, b->entries_room, sizeof(*b->entries));
		if (!b->entries)
			abort();
	}
	b->entries[b->n_entries++] =
	    (struct pack_entry){.id = *id, .offset = (uint32_t)b->n_bytes, .n_bytes = (uint32_t)n_bytes};
	b->n_bytes += n_bytes;
}

static void pack_name(const struct vault *v, const void *table, size_t n_bytes, char name[static FILE_NAME_BYTES])
{
	struct chunk_id id = vault_name(v, KIND_TABLE, table, n_bytes);
	hex_write(name, id.bytes, (FILE_NAME_BYTES - 1) / 2);
}

void pack_finish(struct pack_builder *b, const struct vault *v, char name[static FILE_NAME_BYTES])
{
	size_t n_plain = (size_t)b->n_entries * PACK_ENTRY_BYTES, n_table = n_plain + vault_seal_bytes(v);
	uint8_t *plain = malloc(n_plain + 1);
	struct chunk_id self = vault_self(v);
	quarry_assert(b->n_entries > 0);
	if (!plain)
		abort();
	for (uint32_t i = 0; i < b->n_entries; i++) {
		memcpy(plain + (size_t)i * PACK_ENTRY_BYTES, &b->entries[i].id, ID_BYTES);
		put_le32(plain + (size_t)i * PACK_ENTRY_BYTES + ID_BYTES, b->entries[i].n_bytes);
	}
	uint8_t *at = pack_room(b, n_table + PACK_FOOTER_BYTES);
	vault_seal(v, KIND_TABLE, &self, plain, n_plain, at);
	put_le32(at + n_table, (uint32_t)n_table);
	put_le32(at + n_table + 4, b->n_entries);
	memcpy(at + n_table + 8, PACK_END_MAGIC, 8);
	b->n_bytes += n_table + PACK_FOOTER_BYTES;
	pack_name(v, plain, n_plain, name);
	free(plain);
}

/* ---- reading ---- */

int pack_table_parse(const uint8_t *plain, size_t n_bytes, uint64_t end_bytes, uint32_t n_chunks,
		     struct pack_table *table)
{
	uint64_t offset = PACK_HEADER_BYTES;
	*table = (struct pack_table){0};
	if (n_chunks == 0 || n_chunks > PACK_CHUNKS_MAX || n_bytes != (size_t)n_chunks * PACK_ENTRY_BYTES ||
	    end_bytes > PACK_BYTES_MAX)
		return -EBADMSG;
	table->entries = calloc(n_chunks, sizeof(*table->entries));
	if (!table->entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_chunks; i++, plain += PACK_ENTRY_BYTES) {
		struct pack_entry *entry = &table->entries[i];
		memcpy(&entry->id, plain, ID_BYTES);
		entry->n_bytes = get_le32(plain + ID_BYTES);
		if (entry->n_bytes == 0 || entry->n_bytes > end_bytes - offset)
			break;
		entry->offset = (uint32_t)offset;
		offset += entry->n_bytes;
		table->n_entries++;
	}
	if (table->n_entries == n_chunks && offset == end_bytes)
		return 0;
	pack_table_free(table);
	return -EBADMSG;
}

/* The sealed table at its place in the file. */
static int table_open(const struct vault *v, const char *name, const uint8_t *sealed, size_t n_table,
		      uint64_t end_bytes, uint32_t n_chunks, struct pack_table *table)
{
	char wanted[FILE_NAME_BYTES];
	struct chunk_id self = vault_self(v);
	size_t n_plain = 0;
	uint8_t *plain = malloc(n_table + 1);
	if (!plain)
		return -ENOMEM;
	int error = vault_open(v, KIND_TABLE, &self, sealed, n_table, plain, &n_plain);
	if (!error) {
		pack_name(v, plain, n_plain, wanted);
		error = strcmp(name, wanted) == 0 ? 0 : -EBADMSG;
	}
	if (!error)
		error = pack_table_parse(plain, n_plain, end_bytes, n_chunks, table);
	free(plain);
	return error;
}

int pack_table_read(const struct vault *v, int fd, const char *name, struct pack_table *table)
{
	struct stat stat;
	uint8_t header[PACK_HEADER_BYTES], footer[PACK_FOOTER_BYTES];
	*table = (struct pack_table){0};
	if (fstat(fd, &stat) < 0)
		return -errno;
	uint64_t size = (uint64_t)stat.st_size;
	if (!S_ISREG(stat.st_mode) || size < sizeof(header) + sizeof(footer) || size > 2ull * PACK_BYTES_MAX)
		return -EBADMSG;
	int error = file_read_at(fd, header, sizeof(header), 0);
	if (!error)
		error = file_read_at(fd, footer, sizeof(footer), size - sizeof(footer));
	if (error)
		return error;
	uint32_t n_table = get_le32(footer), n_chunks = get_le32(footer + 4);
	if (memcmp(header, PACK_MAGIC, 8) != 0 || memcmp(footer + 8, PACK_END_MAGIC, 8) != 0 ||
	    memcmp(header + 8, v->repository_id, REPOSITORY_ID_BYTES) != 0 ||
	    n_table > size - sizeof(header) - sizeof(footer))
		return -EBADMSG;
	uint64_t table_at = size - sizeof(footer) - n_table;
	uint8_t *sealed = malloc((size_t)n_table + 1);
	if (!sealed)
		return -ENOMEM;
	error = file_read_at(fd, sealed, n_table, table_at);
	if (!error)
		error = table_open(v, name, sealed, n_table, table_at, n_chunks, table);
	free(sealed);
	return error;
}

void pack_table_free(struct pack_table *table)
{
	free(table->entries);
	*table = (struct pack_table){0};
}
