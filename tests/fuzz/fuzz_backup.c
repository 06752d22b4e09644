/*
 * fuzz_backup.c: what reads the files of a backup repository.
 *
 * The first byte of the input chooses the parser, the rest is what it gets:
 *
 *   0  the file `repository`, as it is
 *   1  the same, with the sum of its first line made right
 *   2  a leaf
 *   3  the table of a pack; the first 8 bytes: where its chunks end and how many it has
 *   4  a backup's contents
 *   5  a chunk, sealed rightly
 *   6  a whole pack, in a file
 *   7  a whole backup's file
 *
 * What is taken must be what its own writer would write again: the same bytes for leaves, the same records.
 */
#include "cli/backup/files.h"
#include "cli/backup/identity.h"
#include "cli/backup/leaf.h"
#include "cli/backup/pack.h"
#include "cli/backup/record.h"
#include "cli/text.h"

#include <sodium.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct vault vault = {.repository_id = {'f', 'u', 'z', 'z'}};

static void identity_run(const uint8_t *data, size_t size)
{
	struct identity identity;
	char why[IDENTITY_WHY_BYTES];
	if (identity_parse(&identity, data, size, why) < 0)
		quarry_assert(strlen(why) > 0);
}

static void identity_summed_run(const uint8_t *data, size_t size)
{
	uint8_t hash[ID_BYTES];
	char sum[2 * ID_BYTES + 1];
	size_t n_line = 0;
	while (n_line < size && data[n_line] != '\n')
		n_line++;
	crypto_generichash(hash, sizeof(hash), data, n_line, NULL, 0);
	hex_write(sum, hash, sizeof(hash));
	auto_free char *text = malloc(n_line + sizeof(sum) + 2);
	memcpy(text, data, n_line);
	text[n_line] = '\n';
	memcpy(text + n_line + 1, sum, sizeof(sum) - 1);
	text[n_line + sizeof(sum)] = '\n';
	identity_run((const uint8_t *)text, n_line + sizeof(sum) + 1);
}

static void leaf_run_one(const uint8_t *data, size_t size)
{
	struct leaf *leaf = leaf_create();
	size_t n_bytes = 0;
	if (leaf_decode(leaf, data, size) == 0) {
		uint8_t *again = leaf_encode(leaf, &n_bytes);
		struct leaf *second = leaf_create();
		/* runs that touch may have been written as two; what is written again is the shortest form of the same */
		quarry_assert(n_bytes <= size && leaf_decode(second, again, n_bytes) == 0);
		quarry_assert(leaf_n_data(leaf) == leaf_n_data(second));
		leaf_destroy(second);
		free(again);
	}
	leaf_destroy(leaf);
}

static void table_run(const uint8_t *data, size_t size)
{
	struct pack_table table;
	if (size < 8)
		return;
	if (pack_table_parse(data + 8, size - 8, get_le32(data), get_le32(data + 4), &table) < 0)
		return;
	uint64_t end = PACK_HEADER_BYTES;
	for (uint32_t i = 0; i < table.n_entries; i++) {
		quarry_assert(table.entries[i].offset == end);
		end += table.entries[i].n_bytes;
	}
	quarry_assert(end == get_le32(data));
	pack_table_free(&table);
}

static void record_check(const struct record *r)
{
	for (uint32_t i = 0; i < r->n_leaves; i++)
		quarry_assert(record_leaf_id(r, r->leaves[i].number) == &r->leaves[i].id);
	auto_free char *title = record_title(r);
	quarry_assert(strchr(title, '@') && !strchr(title, '/'));
}

static void record_run(const uint8_t *data, size_t size)
{
	struct record *r = record_create();
	if (record_parse(r, data, size) == 0)
		record_check(r);
	record_destroy(r);
}

static void chunk_run(const uint8_t *data, size_t size)
{
	static uint8_t out[PIECE_BYTES];
	struct packer *p = packer_create();
	struct chunk_id id = {{1}};
	size_t n_bytes = 0;
	uint8_t *sealed = malloc(size + SEAL_BYTES_MAX);
	vault_seal(&vault, KIND_DATA, &id, data, size, sealed);
	/* no input has the hash that was asked for */
	quarry_assert(chunk_decode(p, &vault, KIND_DATA, &id, sealed, size + vault_seal_bytes(&vault), out, sizeof(out),
				   &n_bytes) < 0);
	free(sealed);
	packer_destroy(p);
}

static void pack_run(const uint8_t *data, size_t size)
{
	struct pack_table table;
	int fd = memfd_create("pack", MFD_CLOEXEC);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	if (pack_table_read(&vault, fd, "00000000000000000000000000000000", &table) == 0)
		pack_table_free(&table);
	close(fd);
}

static void file_run(const uint8_t *data, size_t size)
{
	struct record *r = record_create();
	if (record_decode(&vault, r, "00000000000000000000000000000000", data, size) == 0)
		record_check(r);
	record_destroy(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const parsers[])(const uint8_t *, size_t) = {
	    identity_run, identity_summed_run, leaf_run_one, table_run, record_run, chunk_run, pack_run, file_run,
	};
	vault_library_begin();
	if (size > 0)
		parsers[data[0] % array_size(parsers)](data + 1, size - 1);
	return 0;
}
