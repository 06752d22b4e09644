/*
 * fuzz_superblock.c: any bytes as a superblock, and as the beginning of a foreign disk. The first byte says what is put
 * right before: bit 0 the magic, bit 1 the version, bit 2 the checksum's constants, bit 3 the checksum.
 *
 * What is accepted must be the same block when it is written again.
 */
#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"
#include "volumes/disk/disk_format.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_superblock(const uint8_t *block)
{
	uint8_t again[BLOCK_BYTES];
	struct superblock sb;
	char why[WHY_BYTES] = "";
	enum superblock_verdict v = superblock_decode(block, &sb, why);

	quarry_assert((v == SUPERBLOCK_VALID) == (why[0] == '\0'));
	if (v != SUPERBLOCK_VALID)
		return;
	quarry_assert(memchr(sb.label, '\0', sizeof(sb.label)) != NULL);
	quarry_assert(JOURNAL_START + sb.journal_blocks < sb.n_blocks);
	if (sb.features_read_only || sb.features_forget)
		return; /* of a newer quarry: this one would not write it so */
	superblock_encode(&sb, again);
	quarry_assert(memcmp(again, block, BLOCK_BYTES) == 0);
}

static void try_foreign(const uint8_t *data, size_t size)
{
	/* Exactly as long as the input, so that a sanitizer sees one byte too far. */
	uint8_t *head = malloc(size ? size : 1);
	const char *name;

	memcpy(head, data, size);
	name = foreign_name(head, size);
	quarry_assert((name == NULL) == bytes_are_zero(head, size));
	quarry_assert(name == NULL || name[0] != '\0');
	free(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t block[BLOCK_BYTES] = {0};
	uint8_t right = size > 0 ? data[0] : 0;

	try_foreign(data, size);
	if (size > 1)
		memcpy(block, data + 1, size - 1 < BLOCK_BYTES ? size - 1 : BLOCK_BYTES);
	if (right & 1)
		memcpy(block, SUPERBLOCK_MAGIC, 8);
	if (right & 2)
		put_le32(block + 12, DISK_FORMAT_VERSION);
	if (right & 4) {
		put_le64(block + 120, CRC64_POLYNOMIAL);
		put_le64(block + 128, 0);
	}
	if (right & 8) {
		put_le32(block + 8, 0);
		put_le32(block + 8, crc32c(0, block, BLOCK_BYTES));
	}
	try_superblock(block);
	return 0;
}
