/*
 * test_cli_backup_files.c: what stands in the files of a backup repository: names, seals, chunks, leaves, packs, records
 * and the identity, there and back, and with every bit and length wrong.
 */
#include "cli/backup/files.h"
#include "cli/backup/identity.h"
#include "cli/backup/leaf.h"
#include "cli/backup/pack.h"
#include "cli/backup/record.h"
#include "cli/text.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct vault plain_vault = {.repository_id = {1, 2, 3}};

static struct vault secret_vault(uint8_t first)
{
	struct vault v = {.repository_id = {1, 2, 3}};
	uint8_t key[KEY_BYTES] = {first};
	vault_set_key(&v, key);
	return v;
}

/* ---- seals and chunks ---- */

static void seal_goes_there_and_back(const struct vault *v)
{
	uint8_t sealed[100], out[100];
	struct chunk_id about = {{7}}, other = {{8}};
	size_t n = 0, n_sealed = 5 + vault_seal_bytes(v);
	vault_seal(v, KIND_DATA, &about, "hello", 5, sealed);
	CU_ASSERT_EQUAL(vault_open(v, KIND_DATA, &about, sealed, n_sealed, out, &n), 0);
	CU_ASSERT_EQUAL(n, 5);
	CU_ASSERT_EQUAL(memcmp(out, "hello", 5), 0);
	CU_ASSERT_EQUAL(vault_open(v, KIND_LEAF, &about, sealed, n_sealed, out, &n), -EBADMSG);
	CU_ASSERT_EQUAL(vault_open(v, KIND_DATA, &other, sealed, n_sealed, out, &n), -EBADMSG);
	for (size_t length = 0; length < n_sealed; length++)
		CU_ASSERT_EQUAL(vault_open(v, KIND_DATA, &about, sealed, length, out, &n), -EBADMSG);
	for (size_t bit = 0; bit < 8 * n_sealed; bit++) {
		sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CU_ASSERT_EQUAL(vault_open(v, KIND_DATA, &about, sealed, n_sealed, out, &n), -EBADMSG);
		sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void test_a_seal_holds_against_every_bit(void)
{
	struct vault secret = secret_vault(1), other = secret_vault(2);
	uint8_t first[100], second[100], out[100];
	struct chunk_id about = {{7}};
	size_t n = 0;
	seal_goes_there_and_back(&plain_vault);
	seal_goes_there_and_back(&secret);
	vault_seal(&secret, KIND_DATA, &about, "hello", 5, first);
	vault_seal(&secret, KIND_DATA, &about, "hello", 5, second);
	CU_ASSERT_NOT_EQUAL(memcmp(first, second, 5 + vault_seal_bytes(&secret)), 0);
	CU_ASSERT_EQUAL(vault_open(&other, KIND_DATA, &about, first, 5 + vault_seal_bytes(&secret), out, &n), -EBADMSG);
}

static void test_names_tell_nothing_without_the_key(void)
{
	struct vault secret = secret_vault(1), other = secret_vault(2);
	struct chunk_id a = vault_name(&plain_vault, KIND_DATA, "x", 1), b = vault_name(&secret, KIND_DATA, "x", 1);
	struct chunk_id c = vault_name(&other, KIND_DATA, "x", 1), d = vault_name(&secret, KIND_LEAF, "x", 1);
	struct chunk_id again = vault_name(&secret, KIND_DATA, "x", 1);
	CU_ASSERT_FALSE(id_is_equal(&a, &b));
	CU_ASSERT_FALSE(id_is_equal(&b, &c));
	CU_ASSERT_FALSE(id_is_equal(&b, &d));
	CU_ASSERT_TRUE(id_is_equal(&b, &again));
}

static void chunk_goes_there_and_back(const struct vault *v, const uint8_t *data, size_t n_bytes, bool is_smaller)
{
	struct packer *p = packer_create();
	uint8_t *sealed = malloc(chunk_room(n_bytes)), *out = malloc(n_bytes);
	struct chunk_id id = vault_name(v, KIND_DATA, data, n_bytes), other = {{1}};
	size_t n = 0, n_sealed = chunk_encode(p, v, KIND_DATA, &id, data, n_bytes, sealed);
	CU_ASSERT(n_sealed <= chunk_room(n_bytes));
	CU_ASSERT_EQUAL(n_sealed < n_bytes, is_smaller);
	CU_ASSERT_EQUAL(chunk_decode(p, v, KIND_DATA, &id, sealed, n_sealed, out, n_bytes, &n), 0);
	CU_ASSERT_EQUAL(n, n_bytes);
	CU_ASSERT_EQUAL(memcmp(out, data, n_bytes), 0);
	CU_ASSERT_EQUAL(chunk_decode(p, v, KIND_DATA, &id, sealed, n_sealed, out, n_bytes - 1, &n), -EBADMSG);
	CU_ASSERT_EQUAL(chunk_decode(p, v, KIND_DATA, &other, sealed, n_sealed, out, n_bytes, &n), -EBADMSG);
	/* sealed as that id, but something else inside */
	uint8_t wrong[] = {CHUNK_STORED, 'x'}, unknown[] = {9, 'x'}, bad_zstd[] = {CHUNK_ZSTD, 'x', 'y'}, seal[64];
	vault_seal(v, KIND_DATA, &id, wrong, sizeof(wrong), seal);
	CU_ASSERT_EQUAL(chunk_decode(p, v, KIND_DATA, &id, seal, 2 + vault_seal_bytes(v), out, n_bytes, &n), -EBADMSG);
	vault_seal(v, KIND_DATA, &id, unknown, sizeof(unknown), seal);
	CU_ASSERT_EQUAL(chunk_decode(p, v, KIND_DATA, &id, seal, 2 + vault_seal_bytes(v), out, n_bytes, &n), -EBADMSG);
	vault_seal(v, KIND_DATA, &id, bad_zstd, sizeof(bad_zstd), seal);
	CU_ASSERT_EQUAL(chunk_decode(p, v, KIND_DATA, &id, seal, 3 + vault_seal_bytes(v), out, n_bytes, &n), -EBADMSG);
	vault_seal(v, KIND_DATA, &id, "", 0, seal);
	CU_ASSERT_EQUAL(chunk_decode(p, v, KIND_DATA, &id, seal, vault_seal_bytes(v), out, n_bytes, &n), -EBADMSG);
	free(sealed);
	free(out);
	packer_destroy(p);
}

static void test_a_chunk_is_what_its_name_says(void)
{
	static uint8_t noise[PIECE_BYTES], text[PIECE_BYTES];
	struct vault secret = secret_vault(1);
	uint32_t state = 1;
	for (size_t i = 0; i < sizeof(noise); i++) {
		state = state * 1664525 + 1013904223;
		noise[i] = (uint8_t)(state >> 24);
		text[i] = (uint8_t)("the same words "[i % 15]);
	}
	chunk_goes_there_and_back(&plain_vault, noise, sizeof(noise), false);
	chunk_goes_there_and_back(&secret, noise, BLOCK_BYTES, false);
	chunk_goes_there_and_back(&plain_vault, text, sizeof(text), true);
	chunk_goes_there_and_back(&secret, text, sizeof(text), true);
}

/* ---- leaves ---- */

static void test_a_leaf_goes_there_and_back(void)
{
	struct leaf *leaf = leaf_create(), *again = leaf_create();
	struct chunk_id a = {{1}}, b = {{2}}, unused = {{3}};
	uint32_t n_unused = leaf_add(leaf, &unused), n_b = leaf_add(leaf, &b), n_a = leaf_add(leaf, &a);
	size_t n_bytes = 0;
	CU_ASSERT_EQUAL(n_unused, 0);
	for (uint32_t i = 0; i < PIECE_BLOCKS; i++)
		leaf_set(leaf, i, n_a, i);
	leaf_set(leaf, 5, n_b, 0);
	leaf_set_hole(leaf, 6);
	leaf_set(leaf, LEAF_BLOCKS - 1, n_b, PIECE_BLOCKS - 1);
	uint8_t *data = leaf_encode(leaf, &n_bytes);
	CU_ASSERT_EQUAL(n_bytes, LEAF_HEADER_BYTES + 2 * ID_BYTES + 4 * LEAF_RUN_BYTES);
	CU_ASSERT_EQUAL(leaf_decode(again, data, n_bytes), 0);
	CU_ASSERT_EQUAL(again->n_ids, 2);
	CU_ASSERT_EQUAL(leaf_n_data(again), PIECE_BLOCKS);
	for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
		CU_ASSERT_EQUAL(leaf->chunk[i] == 0, again->chunk[i] == 0);
		if (leaf->chunk[i] && again->chunk[i]) {
			CU_ASSERT_EQUAL(leaf->at[i], again->at[i]);
			CU_ASSERT(id_is_equal(&leaf->ids[leaf->chunk[i] - 1], &again->ids[again->chunk[i] - 1]));
		}
	}
	/* equal maps are equal bytes */
	size_t n_again = 0;
	uint8_t *second = leaf_encode(again, &n_again);
	CU_ASSERT_EQUAL(n_again, n_bytes);
	CU_ASSERT_EQUAL(memcmp(data, second, n_bytes), 0);
	free(second);
	free(data);
	leaf_destroy(leaf);
	leaf_destroy(again);
}

static void test_the_largest_leaf_fits(void)
{
	struct leaf *leaf = leaf_create();
	size_t n_bytes = 0;
	for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
		struct chunk_id id = {{0}};
		memcpy(&id, &i, sizeof(i));
		leaf_set(leaf, i, leaf_add(leaf, &id), i % 2 ? 0 : 31);
	}
	uint8_t *data = leaf_encode(leaf, &n_bytes);
	CU_ASSERT_EQUAL(n_bytes, LEAF_PLAIN_MAX);
	struct leaf *again = leaf_create();
	CU_ASSERT_EQUAL(leaf_decode(again, data, n_bytes), 0);
	CU_ASSERT_EQUAL(leaf_n_data(again), LEAF_BLOCKS);
	free(data);
	leaf_destroy(leaf);
	leaf_destroy(again);
}

struct wrong_run {
	uint16_t block;
	uint8_t n_blocks, at;
	uint32_t chunk;
};

static int leaf_of(uint32_t n_ids, const struct wrong_run *runs, uint32_t n_runs)
{
	uint8_t data[1024] = {0}, *at = data + LEAF_HEADER_BYTES + (size_t)n_ids * ID_BYTES;
	put_le32(data, n_ids);
	put_le32(data + 4, n_runs);
	for (uint32_t i = 0; i < n_runs; i++, at += LEAF_RUN_BYTES) {
		put_le16(at, runs[i].block);
		at[2] = runs[i].n_blocks;
		at[3] = runs[i].at;
		put_le32(at + 4, runs[i].chunk);
	}
	struct leaf *leaf = leaf_create();
	int error = leaf_decode(leaf, data, (size_t)(at - data));
	leaf_destroy(leaf);
	return error;
}
#define LEAF_OF(N_IDS, ...)                                                                                            \
	leaf_of(N_IDS, (const struct wrong_run[]){__VA_ARGS__},                                                        \
		sizeof((const struct wrong_run[]){__VA_ARGS__}) / sizeof(struct wrong_run))

static void test_a_wrong_leaf_is_refused(void)
{
	CU_ASSERT_EQUAL(LEAF_OF(1, {0, 32, 0, 0}), 0);
	CU_ASSERT_EQUAL(LEAF_OF(1, {0, 32, 1, 0}), -EBADMSG);    /* behind the chunk's end */
	CU_ASSERT_EQUAL(LEAF_OF(1, {1, 32, 0, 0}), -EBADMSG);    /* over a piece's border */
	CU_ASSERT_EQUAL(LEAF_OF(1, {0, 0, 0, 0}), -EBADMSG);     /* nothing */
	CU_ASSERT_EQUAL(LEAF_OF(1, {0, 1, 0, 1}), -EBADMSG);     /* no such chunk */
	CU_ASSERT_EQUAL(LEAF_OF(1, {16384, 1, 0, 0}), -EBADMSG); /* behind the leaf's end */
	CU_ASSERT_EQUAL(LEAF_OF(1, {65535, 1, 0, 0}), -EBADMSG);
	CU_ASSERT_EQUAL(LEAF_OF(1, {1, 1, 0, 0}, {1, 1, 1, 0}), -EBADMSG); /* twice the same block */
	CU_ASSERT_EQUAL(LEAF_OF(1, {2, 1, 0, 0}, {1, 1, 1, 0}), -EBADMSG); /* out of order */
	CU_ASSERT_EQUAL(LEAF_OF(2, {0, 1, 0, 1}, {1, 1, 0, 0}), -EBADMSG); /* chunks out of order */
	CU_ASSERT_EQUAL(LEAF_OF(2, {0, 1, 0, 0}), -EBADMSG);               /* one is not used */
	uint8_t header[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	struct leaf *leaf = leaf_create();
	CU_ASSERT_EQUAL(leaf_decode(leaf, header, sizeof(header)), -EBADMSG);
	CU_ASSERT_EQUAL(leaf_decode(leaf, header, 0), -EBADMSG);
	leaf_destroy(leaf);
}

/* ---- packs ---- */

/* A pack of two chunks in a file of its own; the name is not given to it. */
static int pack_file(const struct vault *v, char name[static FILE_NAME_BYTES], uint8_t **data, size_t *n_bytes)
{
	struct pack_builder *b = pack_builder_create(v);
	struct chunk_id a = {{1}}, z = {{2}};
	memcpy(pack_room(b, 10), "0123456789", 10);
	pack_added(b, &a, 10);
	memcpy(pack_room(b, 5), "abcde", 5);
	pack_added(b, &z, 5);
	pack_finish(b, v, name);
	int fd = memfd_create("pack", MFD_CLOEXEC);
	CU_ASSERT_EQUAL_FATAL(write(fd, b->data, b->n_bytes), (ssize_t)b->n_bytes);
	*data = malloc(b->n_bytes);
	memcpy(*data, b->data, b->n_bytes);
	*n_bytes = b->n_bytes;
	pack_builder_destroy(b);
	return fd;
}

static void pack_holds(const struct vault *v)
{
	char name[FILE_NAME_BYTES], other_name[FILE_NAME_BYTES];
	uint8_t *data = NULL;
	size_t n_bytes = 0;
	struct pack_table table;
	int fd = pack_file(v, name, &data, &n_bytes);
	CU_ASSERT_EQUAL_FATAL(pack_table_read(v, fd, name, &table), 0);
	CU_ASSERT_EQUAL_FATAL(table.n_entries, 2);
	CU_ASSERT_EQUAL(table.entries[1].offset, PACK_HEADER_BYTES + 10);
	CU_ASSERT_EQUAL(table.entries[1].n_bytes, 5);
	CU_ASSERT_EQUAL(table.entries[1].id.bytes[0], 2);
	pack_table_free(&table);
	memcpy(other_name, name, sizeof(name));
	other_name[0] = other_name[0] == '0' ? '1' : '0';
	CU_ASSERT_EQUAL(pack_table_read(v, fd, other_name, &table), -EBADMSG);
	/* every bit but those of the chunks, which have seals of their own */
	for (size_t at = 0; at < n_bytes; at++) {
		if (at >= PACK_HEADER_BYTES && at < PACK_HEADER_BYTES + 15)
			continue;
		uint8_t byte = data[at] ^ (uint8_t)(1u << at % 8);
		CU_ASSERT_EQUAL(pwrite(fd, &byte, 1, (off_t)at), 1);
		CU_ASSERT_EQUAL(pack_table_read(v, fd, name, &table), -EBADMSG);
		CU_ASSERT_EQUAL(pwrite(fd, &data[at], 1, (off_t)at), 1);
	}
	for (size_t length = 0; length < n_bytes; length++) {
		CU_ASSERT_EQUAL(ftruncate(fd, 0), 0);
		CU_ASSERT_EQUAL(pwrite(fd, data, length, 0), (ssize_t)length);
		CU_ASSERT_EQUAL(pack_table_read(v, fd, name, &table), -EBADMSG);
	}
	free(data);
	close(fd);
}

static void test_a_pack_holds_against_every_bit_and_length(void)
{
	struct vault secret = secret_vault(1);
	pack_holds(&plain_vault);
	pack_holds(&secret);
}

static void test_a_wrong_table_is_refused(void)
{
	uint8_t plain[2 * PACK_ENTRY_BYTES] = {0};
	struct pack_table table;
	put_le32(plain + ID_BYTES, 10);
	put_le32(plain + PACK_ENTRY_BYTES + ID_BYTES, 5);
	CU_ASSERT_EQUAL(pack_table_parse(plain, sizeof(plain), PACK_HEADER_BYTES + 15, 2, &table), 0);
	pack_table_free(&table);
	CU_ASSERT_EQUAL(pack_table_parse(plain, sizeof(plain), PACK_HEADER_BYTES + 16, 2, &table), -EBADMSG);
	CU_ASSERT_EQUAL(pack_table_parse(plain, sizeof(plain), PACK_HEADER_BYTES + 14, 2, &table), -EBADMSG);
	CU_ASSERT_EQUAL(pack_table_parse(plain, sizeof(plain), PACK_HEADER_BYTES + 15, 1, &table), -EBADMSG);
	CU_ASSERT_EQUAL(pack_table_parse(plain, sizeof(plain), PACK_HEADER_BYTES + 15, UINT32_MAX, &table), -EBADMSG);
	CU_ASSERT_EQUAL(pack_table_parse(plain, 0, PACK_HEADER_BYTES, 0, &table), -EBADMSG);
	put_le32(plain + ID_BYTES, UINT32_MAX);
	CU_ASSERT_EQUAL(pack_table_parse(plain, sizeof(plain), PACK_HEADER_BYTES + 15, 2, &table), -EBADMSG);
	put_le32(plain + ID_BYTES, 0);
	CU_ASSERT_EQUAL(pack_table_parse(plain, sizeof(plain), PACK_HEADER_BYTES + 5, 2, &table), -EBADMSG);
}

/* ---- records ---- */

static struct record *record_sample(const struct vault *v)
{
	struct record *r = record_create();
	struct chunk_id id = {{5}};
	r->description = json_pack("{sssssssssIsI}", RECORD_VOLUME, "vm1", RECORD_SNAPSHOT, "monday",
				   RECORD_VOLUME_UUID, "u", RECORD_SNAPSHOT_ID, "1", RECORD_SIZE,
				   (json_int_t)(3 * LEAF_BYTES - 512), RECORD_SEQUENCE, (json_int_t)4);
	record_add_leaf(r, 0, &id);
	record_add_leaf(r, 2, &id);
	record_file_name(v, "vm1@monday", r->name);
	return r;
}

static void test_a_record_goes_there_and_back(void)
{
	struct vault secret = secret_vault(1);
	const struct vault *vaults[] = {&plain_vault, &secret};
	for (size_t i = 0; i < array_size(vaults); i++) {
		struct record *r = record_sample(vaults[i]), *again = record_create();
		size_t n_bytes = 0;
		uint8_t *data = record_encode(vaults[i], r, &n_bytes);
		CU_ASSERT_EQUAL(record_decode(vaults[i], again, r->name, data, n_bytes), 0);
		auto_free char *title = record_title(again);
		CU_ASSERT_STRING_EQUAL(title, "vm1@monday");
		CU_ASSERT_EQUAL(again->n_leaves, 2);
		CU_ASSERT_PTR_NOT_NULL(record_leaf_id(again, 2));
		CU_ASSERT_PTR_NULL(record_leaf_id(again, 1));
		CU_ASSERT_PTR_NULL(record_leaf_id(again, 3));
		for (size_t at = 0; at < n_bytes; at++) {
			struct record *wrong = record_create();
			data[at] ^= (uint8_t)(1u << at % 8);
			CU_ASSERT_EQUAL(record_decode(vaults[i], wrong, r->name, data, n_bytes), -EBADMSG);
			data[at] ^= (uint8_t)(1u << at % 8);
			record_destroy(wrong);
		}
		free(data);
		record_destroy(again);
		record_destroy(r);
	}
}

/* The plain bytes of a record with some text for a description and leaves. */
static int record_of(const char *text, const uint32_t *numbers, uint32_t n_leaves, uint32_t n_said)
{
	uint8_t plain[1024] = {0};
	size_t n_text = strlen(text);
	put_le32(plain, (uint32_t)n_text);
	memcpy(plain + 4, text, n_text);
	put_le32(plain + 4 + n_text, n_said);
	for (uint32_t i = 0; i < n_leaves; i++)
		put_le32(plain + 8 + n_text + (size_t)i * BACKUP_LEAF_BYTES, numbers[i]);
	struct record *r = record_create();
	int error = record_parse(r, plain, 8 + n_text + (size_t)n_leaves * BACKUP_LEAF_BYTES);
	record_destroy(r);
	return error;
}

static void test_a_wrong_record_is_refused(void)
{
	static const char good[] = "{\"volume\":\"v\",\"snapshot\":\"s\",\"size_bytes\":134217728,\"sequence\":1}";
	static const char *const wrong[] = {
	    "",
	    "[]",
	    "{",
	    "{}",
	    "null",
	    "{\"volume\":\"../v\",\"snapshot\":\"s\",\"size_bytes\":512,\"sequence\":1}",
	    "{\"volume\":\"v\",\"snapshot\":\"s@t\",\"size_bytes\":512,\"sequence\":1}",
	    "{\"volume\":\"v\",\"snapshot\":\"s\",\"size_bytes\":513,\"sequence\":1}",
	    "{\"volume\":\"v\",\"snapshot\":\"s\",\"size_bytes\":-512,\"sequence\":1}",
	    "{\"volume\":\"v\",\"snapshot\":\"s\",\"size_bytes\":0,\"sequence\":1}",
	    "{\"volume\":\"v\",\"snapshot\":\"s\",\"size_bytes\":9223372036854775296,\"sequence\":1}",
	    "{\"volume\":\"v\",\"snapshot\":\"s\",\"size_bytes\":512}",
	    "{\"volume\":\"v\",\"snapshot\":\"s\",\"size_bytes\":512,\"sequence\":9223372036854775807}",
	    "{\"volume\":\"v\",\"volume\":\"w\",\"snapshot\":\"s\",\"size_bytes\":512,\"sequence\":1}",
	};
	CU_ASSERT_EQUAL(record_of(good, (const uint32_t[]){0, 1}, 2, 2), 0);
	CU_ASSERT_EQUAL(record_of(good, (const uint32_t[]){1, 0}, 2, 2), -EBADMSG);
	CU_ASSERT_EQUAL(record_of(good, (const uint32_t[]){1, 1}, 2, 2), -EBADMSG);
	CU_ASSERT_EQUAL(record_of(good, (const uint32_t[]){2}, 1, 1), -EBADMSG);
	CU_ASSERT_EQUAL(record_of(good, (const uint32_t[]){0}, 1, 2), -EBADMSG);
	CU_ASSERT_EQUAL(record_of(good, NULL, 0, UINT32_MAX), -EBADMSG);
	for (size_t i = 0; i < array_size(wrong); i++)
		CU_ASSERT_EQUAL(record_of(wrong[i], NULL, 0, 0), -EBADMSG);
	uint8_t long_text[12] = {0xff, 0xff, 0xff, 0xff};
	struct record *r = record_create();
	CU_ASSERT_EQUAL(record_parse(r, long_text, sizeof(long_text)), -EBADMSG);
	record_destroy(r);
}

/* ---- identity ---- */

static void test_the_identity_and_its_key(void)
{
	struct identity identity, again;
	struct vault made, opened;
	char why[IDENTITY_WHY_BYTES];
	static const char key[] = "0123456789abcdef0123456789abcdef", other[] = "0123456789abcdef0123456789abcdeF";
	identity_make(&identity, &made, key, 32);
	auto_free char *text = identity_encode(&identity);
	CU_ASSERT_EQUAL_FATAL(identity_parse(&again, (uint8_t *)text, strlen(text), why), 0);
	CU_ASSERT_TRUE(again.is_encrypted);
	CU_ASSERT_EQUAL(identity_unlock(&again, &opened, key, 32), 0);
	CU_ASSERT_EQUAL(memcmp(&made, &opened, sizeof(made)), 0);
	CU_ASSERT_EQUAL(identity_unlock(&again, &opened, other, 32), -EACCES);
	CU_ASSERT_EQUAL(identity_unlock(&again, &opened, key, 31), -EACCES);
	for (size_t at = 0; at < strlen(text); at++) {
		text[at] ^= 1;
		CU_ASSERT_EQUAL(identity_parse(&again, (uint8_t *)text, strlen(text), why), -EBADMSG);
		text[at] ^= 1;
		CU_ASSERT_EQUAL(identity_parse(&again, (uint8_t *)text, at, why), -EBADMSG);
	}
	identity_make(&identity, &made, NULL, 0);
	auto_free char *plain = identity_encode(&identity);
	CU_ASSERT_EQUAL(identity_parse(&again, (uint8_t *)plain, strlen(plain), why), 0);
	CU_ASSERT_FALSE(again.is_encrypted);
}

/* ---- files ---- */

static void test_files_are_whole_or_not_there(void)
{
	char path[] = "/tmp/quarry-test-files.XXXXXX";
	uint8_t *data = NULL;
	size_t n_bytes = 0;
	struct names names;
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(path));
	int dir_fd = open(path, O_RDONLY | O_DIRECTORY);
	CU_ASSERT_EQUAL(file_write(dir_fd, "b", "old", 3), 0);
	CU_ASSERT_EQUAL(file_write(dir_fd, "b", "hello", 5), 0);
	CU_ASSERT_EQUAL(file_write(dir_fd, "a", "", 0), 0);
	CU_ASSERT_EQUAL(mkdirat(dir_fd, "folder", 0700), 0);
	CU_ASSERT(file_write(dir_fd, "folder", "x", 1) < 0);
	CU_ASSERT_EQUAL(names_read(dir_fd, &names), 0);
	CU_ASSERT_EQUAL_FATAL(names.n, 3); /* no temporary one is left */
	CU_ASSERT_STRING_EQUAL(names.list[0], "a");
	names_free(&names);
	CU_ASSERT_EQUAL(file_read(dir_fd, "b", 5, &data, &n_bytes), 0);
	CU_ASSERT_EQUAL(n_bytes, 5);
	CU_ASSERT_EQUAL(memcmp(data, "hello", 5), 0);
	free(data);
	CU_ASSERT_EQUAL(file_read(dir_fd, "b", 4, &data, &n_bytes), -EFBIG);
	CU_ASSERT_EQUAL(file_read(dir_fd, "c", 4, &data, &n_bytes), -ENOENT);
	CU_ASSERT_EQUAL(file_read(dir_fd, "folder", 4, &data, &n_bytes), -EISDIR);
	CU_ASSERT_EQUAL(file_remove(dir_fd, "a"), 0);
	CU_ASSERT_EQUAL(file_remove(dir_fd, "a"), 0);
	CU_ASSERT_EQUAL(file_remove(dir_fd, "b"), 0);
	CU_ASSERT_EQUAL(unlinkat(dir_fd, "folder", AT_REMOVEDIR), 0);
	close(dir_fd);
	CU_ASSERT_EQUAL(rmdir(path), 0);
}

static void test_digits(void)
{
	uint8_t bytes[2];
	char text[5];
	CU_ASSERT_TRUE(hex_read(bytes, 2, "0afF") == false);
	CU_ASSERT_TRUE(hex_read(bytes, 2, "0aff"));
	hex_write(text, bytes, 2);
	CU_ASSERT_STRING_EQUAL(text, "0aff");
	CU_ASSERT_FALSE(hex_read(bytes, 2, "0af"));
	CU_ASSERT_FALSE(hex_read(bytes, 2, "0aff0"));
	CU_ASSERT_FALSE(hex_read(bytes, 2, "0ag0"));
}

/* What somebody put where a pack was is not waited for. */
static void test_only_files_are_read(void)
{
	char folder[] = "/tmp/quarry-test.XXXXXX";
	uint8_t *data = NULL;
	size_t n = 0;
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	int dir = open(folder, O_RDONLY | O_DIRECTORY);
	CU_ASSERT_FATAL(dir >= 0);
	CU_ASSERT_EQUAL(mkfifoat(dir, "pack", 0600), 0);
	CU_ASSERT_EQUAL(file_open(dir, "pack"), -EISDIR);
	CU_ASSERT_EQUAL(file_read(dir, "pack", 100, &data, &n), -EISDIR);
	CU_ASSERT_PTR_NULL(data);
	CU_ASSERT_EQUAL(file_open(dir, "."), -EISDIR);
	CU_ASSERT_EQUAL(file_open(AT_FDCWD, "/dev/zero"), -EISDIR);
	CU_ASSERT_EQUAL(file_open(dir, "nothing"), -ENOENT);
	CU_ASSERT_EQUAL(unlinkat(dir, "pack", 0), 0);
	close(dir);
	rmdir(folder);
}

int main(void)
{
	vault_library_begin();
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli_backup_files", NULL, NULL);
	CU_ADD_TEST(suite, test_a_seal_holds_against_every_bit);
	CU_ADD_TEST(suite, test_names_tell_nothing_without_the_key);
	CU_ADD_TEST(suite, test_a_chunk_is_what_its_name_says);
	CU_ADD_TEST(suite, test_a_leaf_goes_there_and_back);
	CU_ADD_TEST(suite, test_the_largest_leaf_fits);
	CU_ADD_TEST(suite, test_a_wrong_leaf_is_refused);
	CU_ADD_TEST(suite, test_a_pack_holds_against_every_bit_and_length);
	CU_ADD_TEST(suite, test_a_wrong_table_is_refused);
	CU_ADD_TEST(suite, test_a_record_goes_there_and_back);
	CU_ADD_TEST(suite, test_a_wrong_record_is_refused);
	CU_ADD_TEST(suite, test_the_identity_and_its_key);
	CU_ADD_TEST(suite, test_files_are_whole_or_not_there);
	CU_ADD_TEST(suite, test_digits);
	CU_ADD_TEST(suite, test_only_files_are_read);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
