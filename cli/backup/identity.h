/*
 * identity.h: the file `repository`: what the directory is, what one must know to read it, and the wrapped key.
 *
 * Two lines: a JSON object, and the BLAKE2b-256 of the first line (without its end) in hexadecimal digits. This much is
 * the same in every version, so that any release can tell a later version from a damaged file.
 */
#pragma once

#include "cli/backup/vault.h"

#define IDENTITY_FILE      "repository"
#define IDENTITY_BYTES_MAX 4096u
#define IDENTITY_WHY_BYTES 160u
#define WRAPPED_BYTES      (KEY_BYTES + SEAL_BYTES_MAX)

struct identity {
	uint8_t id[REPOSITORY_ID_BYTES];
	bool is_encrypted;
	uint8_t salt[SALT_BYTES];
	uint8_t wrapped[WRAPPED_BYTES]; /* the repository's key, sealed with the one of the key file */
	char created_at[32];
};

/* A new one; key: that of the vault; key_file NULL: not encrypted. */
void identity_make(struct identity *identity, struct vault *v, const void *key_file, size_t n_bytes);
/* The keys for a repository: 0, or -EACCES: it is another key file. */
must_check int identity_unlock(const struct identity *identity, struct vault *v, const void *key_file, size_t n_bytes);
/* To be freed. */
char *identity_encode(const struct identity *identity);
/* 0; -EBADMSG: damaged; -ENOTSUP: of a later release, with what it needs in why. */
must_check int identity_parse(struct identity *identity, const uint8_t *data, size_t n_bytes,
			      char why[static IDENTITY_WHY_BYTES]);
/* "2025-01-31T12:34:56Z" */
void time_now_text(char text[static 32]);
