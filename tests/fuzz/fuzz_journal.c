/*
 * fuzz_journal.c: any bytes as a journal block. The first byte says what is put right before, so that the checksum does
 * not keep the fuzzer out: bit 0 the magic, bit 1 the used bytes (the length of the input), bit 2 the checksum.
 *
 * What is opened must be the same block when its records are written and sealed again.
 */
#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"
#include "volumes/disk/disk_format.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct uuid disk = {{0xd1, 5}};

static void write_again(const uint8_t *block, const struct journal_header *h)
{
	_Alignas(8) uint8_t again[BLOCK_BYTES];
	uint32_t at = JOURNAL_HEADER_BYTES;
	unsigned n = 0;

	while (at < h->used_bytes) {
		struct record r;
		int len = record_decode(block + at, h->used_bytes - at, &r);

		quarry_assert(len > 0);
		quarry_assert(record_encode(&r, again + at) == (uint32_t)len);
		at += (uint32_t)len;
		n++;
	}
	quarry_assert(at == h->used_bytes && n == h->n_records);
	journal_block_seal(again, h, &disk);
	quarry_assert(memcmp(again, block, BLOCK_BYTES) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_Alignas(8) uint8_t block[BLOCK_BYTES] = {0};
	struct journal_header h;
	uint8_t right = size > 0 ? data[0] : 0;

	if (size > 1)
		memcpy(block, data + 1, size - 1 < BLOCK_BYTES ? size - 1 : BLOCK_BYTES);
	if (right & 1)
		put_le32(block, JOURNAL_MAGIC);
	if (right & 2)
		put_le16(block + 34, (uint16_t)(size - 1 < BLOCK_BYTES ? (size - 1) / 8 * 8 : BLOCK_BYTES));
	if (right & 4) {
		put_le32(block + 4, 0);
		put_le32(block + 4, crc32c(crc32c(0, disk.bytes, sizeof(disk.bytes)), block, BLOCK_BYTES));
	}
	if (journal_block_open(block, &disk, &h) == 0)
		write_again(block, &h);
	return 0;
}
