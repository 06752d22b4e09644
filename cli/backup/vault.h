/*
 * vault.h: how the things of a repository are named, sealed and packed.
 */
#pragma once

#include "cli/backup/format.h"

/* Set when a repository is opened, then immutable: any thread may use it. */
struct vault {
	bool is_encrypted;
	uint8_t repository_id[REPOSITORY_ID_BYTES];
	uint8_t seal_key[KEY_BYTES], name_key[KEY_BYTES];
};

/* Must come first in a process. */
void vault_library_begin(void);
/* The keys of an encrypted repository from its random one. */
void vault_set_key(struct vault *v, const uint8_t key[static KEY_BYTES]);
/* The key that wraps a repository's: from the contents of a key file and the repository's salt. */
void vault_wrapping_key(uint8_t out[static KEY_BYTES], const void *file, size_t n_bytes,
			const uint8_t salt[static SALT_BYTES]);

struct chunk_id vault_name(const struct vault *v, enum kind kind, const void *data, size_t n_bytes);
/* What belongs to the repository itself is sealed about this. */
struct chunk_id vault_self(const struct vault *v);
size_t vault_seal_bytes(const struct vault *v);
/* Writes n_bytes + vault_seal_bytes(); out must not overlap. */
void vault_seal(const struct vault *v, enum kind kind, const struct chunk_id *about, const void *data, size_t n_bytes,
		void *out);
/* 0 and the length in *out_bytes (at most n_bytes), or -EBADMSG: it is not what was sealed. */
must_check int vault_open(const struct vault *v, enum kind kind, const struct chunk_id *about, const void *sealed,
			  size_t n_bytes, void *out, size_t *out_bytes);

/* Working memory of one thread that packs and unpacks chunks. */
struct packer;
struct packer *packer_create(void);
void packer_destroy(struct packer *p);

/* Room that a sealed chunk of n_bytes needs at most. */
size_t chunk_room(size_t n_bytes);
/* Packs and seals; returns the bytes written to out. */
size_t chunk_encode(struct packer *p, const struct vault *v, enum kind kind, const struct chunk_id *id,
		    const void *data, size_t n_bytes, void *out);
/* Opens, unpacks and holds the result against its id. 0, or -EBADMSG. */
must_check int chunk_decode(struct packer *p, const struct vault *v, enum kind kind, const struct chunk_id *id,
			    const void *sealed, size_t n_sealed, void *out, size_t room_bytes, size_t *out_bytes);
