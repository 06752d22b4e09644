/*
 * disk_format_internal.h: what the readers and writers of disk_format.h's structures share.
 */
#pragma once

#include "volumes/disk/disk_format.h"

#define VOLUME_BLOCKS_MAX (1ull << BLOCK_NUMBER_BITS)
/* Tables grow by whole pages, so the last page of the longest has a slot or more that is never used. */
#define TABLE_SLOTS_MAX (1u << 16)
_Static_assert(DISK_TREES_MAX <= TABLE_SLOTS_MAX && DISK_VOLUMES_MAX <= TABLE_SLOTS_MAX, "format");
/* Far from overflow, whatever is added to a sequence: a ring length at each recovery, a window at each write. */
#define SEQUENCE_MAX (1ull << 62)

/* The checksum of a block as if its own checksum field, 4 bytes at crc_at, were 0. */
uint32_t block_crc_without(uint32_t seed, const uint8_t *block, size_t crc_at);

/* Sound as far as it can be told without knowing the disk: a hole has no checksum, a block is no superblock slot. */
static inline bool pointer_is_sane(struct pointer p)
{
	return pointer_is_hole(p) ? pointer_crc(p) == 0 : pointer_block(p) >= JOURNAL_START;
}

/* NULL, or which rule of the format the superblock breaks. */
const char *superblock_fault(const struct superblock *sb);
