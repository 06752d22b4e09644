/*
 * tally.c: what a copy carried, in little memory, to hold what its target gives back against.
 *
 * A region of the volume has one sum of 64 bits: every block that is put adds its number, every block that is taken
 * subtracts it. The number is a keyed hash of the block's bytes and place, with a key that lives as long as the tally.
 *
 * 1. A block of zeros counts 0, so that a hole and zeros are the same, and holes need not be read.
 * 2. Sums know no order: pieces come as they are done, and need not be the same both times.
 * 3. A sum of 0 is wrong once in 2^64: differences neither cancel out nor follow from the data, for the key is random.
 */
#include "cli/tally.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define REGION_BYTES_MIN (1ull << 20)
#define N_REGIONS_MAX    (1u << 16) /* 512 KiB of sums */

_Static_assert(TALLY_KEY_BYTES == crypto_shorthash_KEYBYTES, "the hash's key");
_Static_assert(sizeof(uint64_t) == crypto_shorthash_BYTES, "a block's number");
_Static_assert(REGION_BYTES_MIN % TALLY_BLOCK_BYTES == 0, "a block lies in one region");

void tally_begin(struct tally *t, uint64_t size_bytes)
{
	quarry_assert(size_bytes > 0);
	*t = (struct tally){.region_bytes = REGION_BYTES_MIN};
	while ((size_bytes - 1) / t->region_bytes >= N_REGIONS_MAX)
		t->region_bytes *= 2;
	t->n_regions = (uint32_t)((size_bytes - 1) / t->region_bytes + 1);
	t->sums = calloc(t->n_regions, sizeof(*t->sums));
	if (!t->sums || sodium_init() < 0)
		abort();
	randombytes_buf(t->key, sizeof(t->key));
}

void tally_end(struct tally *t)
{
	free(t->sums);
	t->sums = NULL;
}

static bool block_is_zero(const uint8_t *data, size_t n_bytes)
{
	return data[0] == 0 && memcmp(data, data + 1, n_bytes - 1) == 0;
}

/* The last block of all may be a short one. */
static uint64_t block_number(const struct tally *t, const uint8_t *data, size_t n_bytes, uint64_t pos_bytes)
{
	uint8_t key[TALLY_KEY_BYTES];
	uint64_t number, place;
	if (block_is_zero(data, n_bytes))
		return 0;
	memcpy(key, t->key, sizeof(key));
	memcpy(&place, key, sizeof(place));
	place ^= pos_bytes;
	memcpy(key, &place, sizeof(place));
	crypto_shorthash((uint8_t *)&number, data, n_bytes, key);
	return number;
}

static void tally_count(struct tally *t, const void *data, uint64_t len_bytes, uint64_t pos_bytes, bool is_put)
{
	quarry_assert(t->sums && pos_bytes % TALLY_BLOCK_BYTES == 0);
	for (uint64_t done = 0; done < len_bytes; done += TALLY_BLOCK_BYTES) {
		uint64_t n = len_bytes - done < TALLY_BLOCK_BYTES ? len_bytes - done : TALLY_BLOCK_BYTES;
		uint64_t region = (pos_bytes + done) / t->region_bytes;
		uint64_t number = block_number(t, (const uint8_t *)data + done, n, pos_bytes + done);
		quarry_assert(region < t->n_regions);
		t->sums[region] += is_put ? number : -number;
	}
}

void tally_put(struct tally *t, const void *data, uint64_t len_bytes, uint64_t pos_bytes)
{
	tally_count(t, data, len_bytes, pos_bytes, true);
}

void tally_take(struct tally *t, const void *data, uint64_t len_bytes, uint64_t pos_bytes)
{
	tally_count(t, data, len_bytes, pos_bytes, false);
}

bool tally_is_even(const struct tally *t, uint64_t *pos_bytes, uint64_t *end_bytes)
{
	for (uint32_t i = 0; i < t->n_regions; i++) {
		if (t->sums[i] == 0)
			continue;
		*pos_bytes = i * t->region_bytes;
		*end_bytes = *pos_bytes + t->region_bytes;
		return false;
	}
	return true;
}
