/*
 * deltas.c: a map from block number to the change of its reference count, in eight bytes an entry.
 *
 * Changes of counts whose count page is not in memory gather here, so that a random free costs eight bytes and not the
 * reading and writing of a page. Open addressing with linear probing; a slot holds the entry just as the delta log
 * keeps it on disk (disk_format.h).
 *
 * Invariants
 *  1. 0 marks an empty slot: block 0 is a superblock and has no count.
 *  2. At most half of the slots are used, so a probe ends soon.
 *  3. Removal moves later entries of the cluster back: there are no tombstones, and a lookup may stop at an empty slot.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_MASK ((1ull << BLOCK_NUMBER_BITS) - 1)

static uint32_t home_of(const struct deltas *d, uint64_t block)
{
	return (uint32_t)(block * 0x9E3779B97F4A7C15ull >> 32) & d->mask;
}

int deltas_init(struct deltas *d, uint32_t n_max)
{
	uint32_t size = 64;
	while (size < 2 * n_max)
		size *= 2;
	*d = (struct deltas){.slots = calloc(size, sizeof(uint64_t)), .mask = size - 1};
	return d->slots ? 0 : -ENOMEM;
}

void deltas_fini(struct deltas *d)
{
	free(d->slots);
	*d = (struct deltas){0};
}

/* The slot that holds the block, or the empty one where it would go. */
static uint32_t slot_of(const struct deltas *d, uint64_t block)
{
	uint32_t i = home_of(d, block);
	while (d->slots[i] && (d->slots[i] & BLOCK_MASK) != block)
		i = (i + 1) & d->mask;
	return i;
}

bool deltas_get(const struct deltas *d, uint64_t block, struct delta *out)
{
	if (d->n == 0)
		return false;
	uint64_t word = d->slots[slot_of(d, block)];
	if (!word)
		return false;
	*out = delta_unpack(word);
	return true;
}

void deltas_put(struct deltas *d, struct delta delta)
{
	quarry_assert(delta.block != 0);
	uint32_t i = slot_of(d, delta.block);
	if (!d->slots[i])
		d->n++;
	quarry_assert(d->n <= d->mask / 2 + 1);
	d->slots[i] = delta_pack(delta);
}

void deltas_remove(struct deltas *d, uint64_t block)
{
	uint32_t hole = slot_of(d, block);
	if (!d->slots[hole])
		return;
	quarry_assert(d->n > 0);
	d->n--;
	d->slots[hole] = 0;
	for (uint32_t i = (hole + 1) & d->mask; d->slots[i]; i = (i + 1) & d->mask) {
		uint32_t home = home_of(d, d->slots[i] & BLOCK_MASK);
		/* An entry may move back into the hole unless its home lies behind the hole, cyclically. */
		if (((i - home) & d->mask) < ((i - hole) & d->mask))
			continue;
		d->slots[hole] = d->slots[i];
		d->slots[i] = 0;
		hole = i;
	}
}

void deltas_clear(struct deltas *d)
{
	if (d->n > 0)
		memset(d->slots, 0, ((size_t)d->mask + 1) * sizeof(uint64_t));
	d->n = 0;
}

struct delta delta_combine(struct delta old, struct delta d)
{
	quarry_assert(old.block == d.block);
	d.is_zero = !old.was_zero && (d.is_zero || (d.was_zero && d.change == 0 && old.is_zero));
	d.change += old.change;
	d.was_zero = old.was_zero;
	return d;
}
