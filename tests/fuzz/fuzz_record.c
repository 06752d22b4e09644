/*
 * fuzz_record.c: any bytes as a journal record, a tree record, a volume record or a delta.
 *
 * What is accepted must survive being written again: the encoder asserts what the format promises, and the bytes must
 * be the same ones, so that nothing is read in two ways.
 */
#include "volumes/disk/disk_format.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Exactly as many bytes as there are, so that a sanitizer sees one too far; aligned, as in a block. */
static void try_record(const uint8_t *data, size_t size)
{
	uint8_t *at = aligned_alloc(8, (size + 15) / 8 * 8), *again = aligned_alloc(8, RECORD_BYTES_MAX);
	uint8_t *end = at + (size + 15) / 8 * 8 - size / 8 * 8;
	struct record r;
	int len;

	size = size / 8 * 8;
	memcpy(end, data, size);
	len = record_decode(end, (uint32_t)size, &r);
	if (len >= 0) {
		quarry_assert(len > 0 && (size_t)len <= size && (uint32_t)len == record_bytes(&r));
		quarry_assert(record_encode(&r, again) == (uint32_t)len);
		quarry_assert(memcmp(again, end, (size_t)len) == 0);
	}
	free(at);
	free(again);
}

static void try_tree_record(const uint8_t *block)
{
	uint8_t again[BLOCK_BYTES];
	struct tree_record t;

	if (tree_record_decode(block, &t) != 0)
		return;
	tree_record_encode(&t, again);
	quarry_assert(memcmp(again, block, BLOCK_BYTES) == 0);
}

static void try_volume_record(const uint8_t *block)
{
	uint8_t again[BLOCK_BYTES];
	struct volume_record v;

	if (volume_record_decode(block, &v) != 0)
		return;
	volume_record_encode(&v, again);
	quarry_assert(memcmp(again, block, BLOCK_BYTES) == 0);
}

static void try_delta(const uint8_t *data)
{
	uint64_t word;
	struct delta d;

	memcpy(&word, data, sizeof(word));
	d = delta_unpack(word);
	if (d.change >= -DELTA_CHANGE_MAX) /* the one value that packing refuses */
		quarry_assert(delta_pack(d) == word);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t block[BLOCK_BYTES] = {0};

	try_record(data, size < BLOCK_BYTES ? size : BLOCK_BYTES);
	memcpy(block, data, size < BLOCK_BYTES ? size : BLOCK_BYTES);
	try_tree_record(block);
	try_volume_record(block);
	try_delta(block);
	return 0;
}
