/*
 * record.c: one backup's file.
 *
 * 1. The file's name is a hash of "VOLUME@SNAPSHOT", so that a name is taken once, and keyed where the repository is
 *    encrypted, so that it tells nothing.
 * 2. A record that was decoded has names that are valid, a size that is possible, and leaves in order inside that size.
 */
#include "cli/backup/record.h"

#include "cli/backup/files.h"
#include "cli/call.h"
#include "cli/text.h"
#include "cli/values.h"

#include <errno.h>

struct record *record_create(void)
{
	struct record *r = calloc(1, sizeof(*r));
	if (!r)
		abort();
	return r;
}

void record_destroy(struct record *r)
{
	if (!r)
		return;
	json_decref(r->description);
	free(r->leaves);
	free(r);
}

void record_add_leaf(struct record *r, uint32_t number, const struct chunk_id *id)
{
	quarry_assert(r->n_leaves == 0 || r->leaves[r->n_leaves - 1].number < number);
	if (r->n_leaves == r->room) {
		r->room = r->room ? r->room * 2 : 64;
		r->leaves = reallocarray(r->leaves, r->room, sizeof(*r->leaves));
		if (!r->leaves)
			abort();
	}
	r->leaves[r->n_leaves++] = (struct record_leaf){.number = number, .id = *id};
}

uint32_t record_leaf_at(const struct record *r, uint64_t number)
{
	uint32_t low = 0, high = r->n_leaves;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (r->leaves[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct chunk_id *record_leaf_id(const struct record *r, uint32_t number)
{
	uint32_t at = record_leaf_at(r, number);
	return at < r->n_leaves && r->leaves[at].number == number ? &r->leaves[at].id : NULL;
}

uint64_t record_number(const struct record *r, const char *key)
{
	return number_at(r->description, key);
}

const char *record_text(const struct record *r, const char *key)
{
	return text_at(r->description, key);
}

char *record_title(const struct record *r)
{
	return text_format("%s@%s", record_text(r, RECORD_VOLUME), record_text(r, RECORD_SNAPSHOT));
}

void record_file_name(const struct vault *v, const char *title, char name[static FILE_NAME_BYTES])
{
	struct chunk_id id = vault_name(v, KIND_NAME, title, strlen(title));
	hex_write(name, id.bytes, (FILE_NAME_BYTES - 1) / 2);
}

/* What the seal is about: the file's name. */
static struct chunk_id about_name(const char *name)
{
	struct chunk_id about = {{0}};
	memcpy(about.bytes, name, strnlen(name, ID_BYTES));
	return about;
}

uint8_t *record_encode(const struct vault *v, const struct record *r, size_t *n_bytes)
{
	auto_free char *text = json_dumps(r->description, JSON_COMPACT | JSON_SORT_KEYS);
	size_t n_text = text ? strlen(text) : 0;
	quarry_assert(text && n_text <= DESCRIPTION_BYTES_MAX);
	size_t n_plain = 8 + n_text + (size_t)r->n_leaves * BACKUP_LEAF_BYTES;
	*n_bytes = BACKUP_HEADER_BYTES + n_plain + vault_seal_bytes(v);
	uint8_t *plain = malloc(n_plain), *data = malloc(*n_bytes);
	if (!plain || !data)
		abort();
	put_le32(plain, (uint32_t)n_text);
	memcpy(plain + 4, text, n_text);
	put_le32(plain + 4 + n_text, r->n_leaves);
	uint8_t *at = plain + 8 + n_text;
	for (uint32_t i = 0; i < r->n_leaves; i++, at += BACKUP_LEAF_BYTES) {
		put_le32(at, r->leaves[i].number);
		memcpy(at + 4, &r->leaves[i].id, ID_BYTES);
	}
	struct chunk_id about = about_name(r->name);
	memcpy(data, BACKUP_MAGIC, 8);
	memcpy(data + 8, v->repository_id, REPOSITORY_ID_BYTES);
	vault_seal(v, KIND_BACKUP, &about, plain, n_plain, data + BACKUP_HEADER_BYTES);
	free(plain);
	return data;
}

static bool description_is_sane(const json_t *d)
{
	uint64_t size_bytes = number_at(d, RECORD_SIZE);
	return name_is_valid(text_at(d, RECORD_VOLUME)) && name_is_valid(text_at(d, RECORD_SNAPSHOT)) &&
	       size_bytes > 0 && size_bytes <= VOLUME_BYTES_MAX && size_bytes % 512 == 0 &&
	       number_at(d, RECORD_SEQUENCE) > 0 && number_at(d, RECORD_SEQUENCE) <= SEQUENCE_MAX;
}

int record_parse(struct record *r, const uint8_t *plain, size_t n_bytes)
{
	quarry_assert(!r->description && r->n_leaves == 0);
	if (n_bytes < 8)
		return -EBADMSG;
	uint32_t n_text = get_le32(plain);
	if (n_text > DESCRIPTION_BYTES_MAX || n_text > n_bytes - 8)
		return -EBADMSG;
	r->description = json_loadb((const char *)plain + 4, n_text, JSON_REJECT_DUPLICATES, NULL);
	if (!description_is_sane(r->description))
		return -EBADMSG;
	uint32_t n_leaves = get_le32(plain + 4 + n_text);
	uint64_t n_all = leaves_of(record_number(r, RECORD_SIZE));
	if (n_bytes - 8 - n_text != (uint64_t)n_leaves * BACKUP_LEAF_BYTES)
		return -EBADMSG;
	const uint8_t *at = plain + 8 + n_text;
	for (uint32_t i = 0; i < n_leaves; i++, at += BACKUP_LEAF_BYTES) {
		struct chunk_id id;
		uint32_t number = get_le32(at);
		if (number >= n_all || (i > 0 && number <= r->leaves[i - 1].number))
			return -EBADMSG;
		memcpy(&id, at + 4, ID_BYTES);
		record_add_leaf(r, number, &id);
	}
	return 0;
}

int record_decode(const struct vault *v, struct record *r, const char *name, const uint8_t *data, size_t n_bytes)
{
	char wanted[FILE_NAME_BYTES];
	struct chunk_id about = about_name(name);
	size_t n_plain = 0;
	if (n_bytes < BACKUP_HEADER_BYTES || memcmp(data, BACKUP_MAGIC, 8) != 0 ||
	    memcmp(data + 8, v->repository_id, REPOSITORY_ID_BYTES) != 0)
		return -EBADMSG;
	uint8_t *plain = malloc(n_bytes);
	if (!plain)
		return -ENOMEM;
	int error = vault_open(v, KIND_BACKUP, &about, data + BACKUP_HEADER_BYTES, n_bytes - BACKUP_HEADER_BYTES, plain,
			       &n_plain);
	if (!error)
		error = record_parse(r, plain, n_plain);
	free(plain);
	if (error)
		return error;
	auto_free char *title = record_title(r);
	record_file_name(v, title, wanted);
	snprintf(r->name, sizeof(r->name), "%s", name);
	return strcmp(wanted, name) == 0 ? 0 : -EBADMSG;
}
