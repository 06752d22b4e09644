/*
 * space_internal.h: what space.c and space_cut.c share: bits and blocks of regions, and how many are in memory.
 */
#pragma once

#include "volumes/disk/disk_internal.h"

#define REGIONS_MIN 4u
#define REPLAY_REGIONS                                                                                                 \
	4u            /* times regions_max: may be resident in replay; the checkpoint after it has frames for them */
#define LOADS_MAX 32u /* count pages being read at once for a checkpoint */

static inline bool bit_get(const uint64_t *bits, uint32_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}
static inline void bit_set(uint64_t *bits, uint32_t i)
{
	bits[i / 64] |= 1ull << (i % 64);
}
static inline void bit_clear(uint64_t *bits, uint32_t i)
{
	bits[i / 64] &= ~(1ull << (i % 64));
}

static inline uint32_t bits_count(const uint64_t *bits)
{
	uint32_t n = 0;
	for (unsigned i = 0; i < REGION_WORDS; i++)
		n += (uint32_t)__builtin_popcountll(bits[i]);
	return n;
}

static inline uint32_t region_of(uint64_t block)
{
	return (uint32_t)(block / COUNTS_PER_PAGE);
}
static inline uint32_t bit_of(uint64_t block)
{
	return (uint32_t)(block % COUNTS_PER_PAGE);
}

static inline bool delta_ends_free(struct delta d)
{
	return d.is_zero || (d.was_zero && d.change == 0);
}

/* Space below was freed there that punch.c may want to give back, once the region is resident. */
static inline void region_note_unpunched(struct space *s, uint32_t region, uint32_t n)
{
	s->region_unpunched[region] = (uint16_t)min_u64(s->region_unpunched[region] + n, UINT16_MAX);
}
