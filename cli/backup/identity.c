/*
 * identity.c: the file `repository`.
 *
 * 1. A feature that is not known means that the repository cannot be read rightly: it is refused, never guessed.
 * 2. The key that data is sealed with is random and never leaves the repository unwrapped; another key file needs only
 *    this file written anew.
 */
#include "cli/backup/identity.h"

#include "cli/backup/files.h"
#include "cli/text.h"
#include "cli/values.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <time.h>

#define FEATURE_ZSTD   "zstd"
#define FEATURE_HASH   "blake2b-256"
#define FEATURE_CIPHER "xchacha20-poly1305"

void time_now_text(char text[static 32])
{
	struct timespec now;
	struct tm tm;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (!gmtime_r(&now.tv_sec, &tm) || strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		abort();
}

/* ---- keys ---- */

static struct vault wrapping_vault(const struct identity *identity, const void *key_file, size_t n_bytes)
{
	struct vault wrapping = {0};
	uint8_t key[KEY_BYTES];
	memcpy(wrapping.repository_id, identity->id, REPOSITORY_ID_BYTES);
	vault_wrapping_key(key, key_file, n_bytes, identity->salt);
	vault_set_key(&wrapping, key);
	explicit_bzero(key, sizeof(key));
	return wrapping;
}

void identity_make(struct identity *identity, struct vault *v, const void *key_file, size_t n_bytes)
{
	uint8_t key[KEY_BYTES];
	*identity = (struct identity){.is_encrypted = key_file != NULL};
	*v = (struct vault){0};
	time_now_text(identity->created_at);
	randombytes_buf(identity->id, REPOSITORY_ID_BYTES);
	memcpy(v->repository_id, identity->id, REPOSITORY_ID_BYTES);
	if (!key_file)
		return;
	randombytes_buf(identity->salt, SALT_BYTES);
	randombytes_buf(key, KEY_BYTES);
	struct vault wrapping = wrapping_vault(identity, key_file, n_bytes);
	struct chunk_id self = vault_self(&wrapping);
	vault_seal(&wrapping, KIND_KEY, &self, key, KEY_BYTES, identity->wrapped);
	vault_set_key(v, key);
	explicit_bzero(key, sizeof(key));
	explicit_bzero(&wrapping, sizeof(wrapping));
}

int identity_unlock(const struct identity *identity, struct vault *v, const void *key_file, size_t n_bytes)
{
	uint8_t key[KEY_BYTES];
	size_t n_key = 0;
	*v = (struct vault){0};
	memcpy(v->repository_id, identity->id, REPOSITORY_ID_BYTES);
	quarry_assert(identity->is_encrypted == (key_file != NULL));
	if (!key_file)
		return 0;
	struct vault wrapping = wrapping_vault(identity, key_file, n_bytes);
	struct chunk_id self = vault_self(&wrapping);
	int error = vault_open(&wrapping, KIND_KEY, &self, identity->wrapped, WRAPPED_BYTES, key, &n_key);
	explicit_bzero(&wrapping, sizeof(wrapping));
	if (error)
		return -EACCES;
	quarry_assert(n_key == KEY_BYTES);
	vault_set_key(v, key);
	explicit_bzero(key, sizeof(key));
	return 0;
}

/* ---- text ---- */

static void line_sum(const void *line, size_t n_bytes, char sum[static 2 * ID_BYTES + 1])
{
	uint8_t hash[ID_BYTES];
	if (crypto_generichash(hash, sizeof(hash), line, n_bytes, NULL, 0) < 0)
		abort();
	hex_write(sum, hash, sizeof(hash));
}

char *identity_encode(const struct identity *identity)
{
	char id[2 * REPOSITORY_ID_BYTES + 1], salt[2 * SALT_BYTES + 1], wrapped[2 * WRAPPED_BYTES + 1];
	char sum[2 * ID_BYTES + 1];
	hex_write(id, identity->id, REPOSITORY_ID_BYTES);
	hex_write(salt, identity->salt, SALT_BYTES);
	hex_write(wrapped, identity->wrapped, WRAPPED_BYTES);
	json_auto_t *needs = json_pack("[ss]", FEATURE_HASH, FEATURE_ZSTD);
	json_auto_t *value = json_pack("{sssisOssss}", "format", REPOSITORY_FORMAT, "version", REPOSITORY_VERSION,
				       "needs", needs, "id", id, "created_at", identity->created_at);
	if (!needs || !value)
		abort();
	if (identity->is_encrypted &&
	    (json_array_append_new(needs, json_string(FEATURE_CIPHER)) < 0 ||
	     json_object_set_new(value, "key", json_pack("{ssss}", "salt", salt, "wrapped", wrapped)) < 0))
		abort();
	auto_free char *line = json_dumps(value, JSON_COMPACT);
	if (!line)
		abort();
	line_sum(line, strlen(line), sum);
	return text_format("%s\n%s\n", line, sum);
}

static int needs_check(const json_t *needs, bool *is_encrypted, char why[static IDENTITY_WHY_BYTES])
{
	static const char *const known[] = {FEATURE_HASH, FEATURE_ZSTD, FEATURE_CIPHER};
	size_t i;
	json_t *need;
	*is_encrypted = false;
	json_array_foreach((json_t *)needs, i, need)
	{
		const char *text = json_string_value(need);
		bool is_known = false;
		for (size_t k = 0; text && k < array_size(known); k++)
			is_known |= strcmp(text, known[k]) == 0;
		if (!is_known) {
			auto_free char *shown = text_printable(text ? text : "?");
			snprintf(why, IDENTITY_WHY_BYTES, "needs '%.40s', which this release does not know", shown);
			return -ENOTSUP;
		}
		*is_encrypted |= strcmp(text, FEATURE_CIPHER) == 0;
	}
	return 0;
}

static int fields_take(struct identity *identity, const json_t *value, char why[static IDENTITY_WHY_BYTES])
{
	const json_t *key = json_object_get(value, "key");
	if (strcmp(text_at(value, "format"), REPOSITORY_FORMAT) != 0)
		return -EBADMSG;
	if (number_at(value, "version") != REPOSITORY_VERSION) {
		snprintf(why, IDENTITY_WHY_BYTES, "has version %llu, this release knows %d",
			 (unsigned long long)number_at(value, "version"), REPOSITORY_VERSION);
		return -ENOTSUP;
	}
	int error = needs_check(json_object_get(value, "needs"), &identity->is_encrypted, why);
	if (error)
		return error;
	snprintf(identity->created_at, sizeof(identity->created_at), "%s", text_at(value, "created_at"));
	if (!hex_read(identity->id, REPOSITORY_ID_BYTES, text_at(value, "id")))
		return -EBADMSG;
	if (identity->is_encrypted && (!hex_read(identity->salt, SALT_BYTES, text_at(key, "salt")) ||
				       !hex_read(identity->wrapped, WRAPPED_BYTES, text_at(key, "wrapped"))))
		return -EBADMSG;
	return 0;
}

int identity_parse(struct identity *identity, const uint8_t *data, size_t n_bytes, char why[static IDENTITY_WHY_BYTES])
{
	char sum[2 * ID_BYTES + 1];
	*identity = (struct identity){0};
	snprintf(why, IDENTITY_WHY_BYTES, "is damaged");
	const uint8_t *end = n_bytes ? memchr(data, '\n', n_bytes) : NULL;
	if (!end || n_bytes > IDENTITY_BYTES_MAX)
		return -EBADMSG;
	size_t n_line = (size_t)(end - data);
	line_sum(data, n_line, sum);
	sum[2 * ID_BYTES] = '\n';
	if (n_bytes - n_line - 1 != sizeof(sum) || memcmp(end + 1, sum, sizeof(sum)) != 0)
		return -EBADMSG;
	json_auto_t *value = json_loadb((const char *)data, n_line, JSON_REJECT_DUPLICATES, NULL);
	return json_is_object(value) ? fields_take(identity, value, why) : -EBADMSG;
}
