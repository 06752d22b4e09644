/*
 * format.h: what stands in the files of a backup repository. docs/backup-format.md tells the whole; the tables are the
 * same. Numbers are little-endian. Nothing that was read is used before it was checked against its limit here.
 *
 *   REPOSITORY/repository, repository.copy      text: identity, version, features, the wrapped key
 *   REPOSITORY/backups/ID, ID.copy              one backup each: its description and its table of leaves
 *   REPOSITORY/packs/ID                         chunks: data and leaves
 *   REPOSITORY/lock                             while somebody writes
 *   tmp-*                                       a file under way; what a crash left of one is nothing
 *
 * A volume is cut into pieces of 128 KiB and these into blocks of 4 KiB. A leaf is the map of 512 pieces (64 MiB): which
 * block stands where in which chunk, or is a hole. A chunk of data holds up to 32 blocks of one piece, without those
 * that are zero. 128 KiB: of a system's files 64 KiB compress to 0.272, 128 KiB to 0.269, 256 KiB to 0.261 of their
 * size, and from 32 KiB on chunks find the same few equals (402 to 409 of 417 MiB were unique); so larger chunks gain
 * little, and smaller ones double the index.
 */
#pragma once

#include "cli/cli.h"

#include <endian.h>
#include <string.h>

#define REPOSITORY_FORMAT  "quarry-backup-repository"
#define REPOSITORY_VERSION 1

#define BLOCK_BYTES      4096u
#define PIECE_BLOCKS     32u
#define PIECE_BYTES      (PIECE_BLOCKS * BLOCK_BYTES)
#define LEAF_PIECES      512u
#define LEAF_BLOCKS      (LEAF_PIECES * PIECE_BLOCKS)
#define LEAF_BYTES       ((uint64_t)LEAF_BLOCKS * BLOCK_BYTES)
#define VOLUME_BYTES_MAX (1ull << 50)
#define LEAVES_MAX       (VOLUME_BYTES_MAX / LEAF_BYTES)

#define ID_BYTES            32u
#define REPOSITORY_ID_BYTES 16u
#define KEY_BYTES           32u
#define SALT_BYTES          16u
#define FILE_NAME_BYTES     33u /* 16 bytes of an id in hexadecimal digits, and the end */

/* The name of a chunk: a hash of what it is and holds, keyed in an encrypted repository. */
struct chunk_id {
	uint8_t bytes[ID_BYTES];
};
_Static_assert(sizeof(struct chunk_id) == ID_BYTES, "a chunk's id as it stands in files");

/* What is named or sealed; the byte is part of every hash. */
enum kind {
	KIND_DATA = 1,
	KIND_LEAF = 2,
	KIND_TABLE = 3,  /* of a pack */
	KIND_BACKUP = 4, /* the description and table of leaves */
	KIND_KEY = 5,    /* the wrapped key */
	KIND_NAME = 6,   /* of a backup's file: hash of "VOLUME@SNAPSHOT" */
};

/*
 * Sealed bytes: encrypted  nonce 24 | XChaCha20-Poly1305 of the bytes | tag 16
 *               plain      the bytes | first 16 of BLAKE2b-256(kind 1 | about 32 | bytes)
 */
#define SEAL_NONCE_BYTES 24u
#define SEAL_TAG_BYTES   16u
#define SEAL_BYTES_MAX   (SEAL_NONCE_BYTES + SEAL_TAG_BYTES)

/*
 * A chunk, sealed:
 * offset  size  what
 *      0     1  how it is packed: 0 as it is, 1 zstd
 *      1     n  the bytes
 */
#define CHUNK_HEADER_BYTES 1u
#define CHUNK_STORED       0u
#define CHUNK_ZSTD         1u

/*
 * A leaf, as a chunk of kind LEAF:
 * offset  size  what
 *      0     4  number of chunks, c
 *      4     4  number of runs, r
 *      8   32c  the chunks' ids
 *  8+32c    8r  runs, in the order of their blocks:
 *               0  2  first block, within the leaf
 *               2  1  number of blocks
 *               3  1  first block within the chunk
 *               4  4  number of the chunk, from 0
 * What no run names is a hole. A run does not cross a piece's border.
 */
#define LEAF_HEADER_BYTES 8u
#define LEAF_RUN_BYTES    8u
#define LEAF_PLAIN_MAX    (LEAF_HEADER_BYTES + LEAF_BLOCKS * (ID_BYTES + LEAF_RUN_BYTES))

/*
 * A pack:
 * offset  size  what
 *      0     8  "QRYPACK1"
 *      8    16  the repository's id
 *     24     .  chunks, one behind the other
 *      .     .  the table, sealed about the repository: for each chunk its id (32) and the bytes it takes here (4)
 *   -16     4  bytes of the sealed table
 *   -12     4  number of chunks
 *    -8     8  "QRYPEND1"
 * Its name is the beginning of the table's hash.
 */
#define PACK_MAGIC        "QRYPACK1"
#define PACK_END_MAGIC    "QRYPEND1"
#define PACK_HEADER_BYTES 24u
#define PACK_FOOTER_BYTES 16u
#define PACK_ENTRY_BYTES  36u
#define PACK_BYTES        (32u << 20) /* a pack is closed when it has reached this */
#define PACK_BYTES_MAX    (64u << 20) /* none is larger */
#define PACK_CHUNKS_MAX   (1u << 20)

/*
 * A backup's file:
 * offset  size  what
 *      0     8  "QRYBACK1"
 *      8    16  the repository's id
 *     24     .  sealed about the name: 4 bytes length of the description, the description (JSON), 4 bytes number of
 *               leaves, and for each that is not all hole, in order: its number (4), its id (32)
 */
#define BACKUP_MAGIC          "QRYBACK1"
#define BACKUP_HEADER_BYTES   24u
#define BACKUP_LEAF_BYTES     36u
#define DESCRIPTION_BYTES_MAX (64u << 10)
#define BACKUP_PLAIN_MAX      (8ull + DESCRIPTION_BYTES_MAX + LEAVES_MAX * BACKUP_LEAF_BYTES)

static inline uint16_t get_le16(const uint8_t *p)
{
	uint16_t v;
	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}
static inline uint32_t get_le32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}
static inline uint64_t get_le64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}
static inline void put_le16(uint8_t *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof(v));
}
static inline void put_le32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}
static inline bool id_is_equal(const struct chunk_id *a, const struct chunk_id *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}
