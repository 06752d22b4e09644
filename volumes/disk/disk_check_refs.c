/*
 * disk_check_refs.c: who points to which block, as the check finds out by walking.
 *
 * Two maps: one from every block to how often it is pointed to and as what, in arrays of one region each; one from
 * every page of a tree to what was found below it, so that a page shared by many trees is walked once.
 *
 * Invariants
 *  1. A block has one use: who points to it as something else is told, and the first use stays.
 *  2. A page is in pages_seen exactly if it was reached by a pointer whose checksum it matched.
 */
#include "volumes/disk/disk_check_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SLOTS_FIRST 1024u

const char *use_name(enum block_use use)
{
	static const char *const names[] = {
	    [USE_NONE] = "unused",
	    [USE_DATA] = "data",
	    [USE_PAGE + 1] = "a leaf page",
	    [USE_PAGE + 2] = "a page of height 2",
	    [USE_PAGE + 3] = "a page of height 3",
	    [USE_PAGE + 4] = "a page of height 4",
	    [USE_PAGE + 5] = "a page of height 5",
	    [USE_PAGE + 6] = "a page of height 6",
	    [USE_TABLE] = "a page of a table",
	    [USE_RECORD] = "a record",
	    [USE_COUNTS] = "a count page",
	    [USE_DELTAS] = "a block of the delta log",
	    [USE_JOURNAL] = "data of the journal",
	};

	quarry_assert((size_t)use < array_size(names));
	return names[use] ? names[use] : "?";
}

int refs_init(struct check *k)
{
	k->n_regions = regions_of(k->n_blocks);
	k->regions = calloc(k->n_regions, sizeof(*k->regions));
	k->count_pointers = calloc(k->n_regions, sizeof(*k->count_pointers));
	k->region_is_lost = calloc(k->n_regions, 1);
	k->pages.slots = calloc(SLOTS_FIRST, sizeof(*k->pages.slots));
	k->pages.n_slots = SLOTS_FIRST;
	return k->regions && k->count_pointers && k->region_is_lost && k->pages.slots ? 0 : -ENOMEM;
}

void refs_fini(struct check *k)
{
	for (uint64_t i = 0; i < k->n_regions && k->regions; i++)
		free(k->regions[i]);
	free(k->regions);
	free(k->count_pointers);
	free(k->region_is_lost);
	free(k->pages.slots);
}

/* ---- blocks ---- */

static struct refs_region *region_at(const struct check *k, uint64_t block)
{
	quarry_assert(block < k->n_blocks);
	return k->regions[block / COUNTS_PER_PAGE];
}

enum block_use refs_add(struct check *k, uint64_t block, enum block_use use)
{
	struct refs_region *r = region_at(k, block);
	unsigned i = block % COUNTS_PER_PAGE;
	enum block_use before;

	quarry_assert(use != USE_NONE && check_in_data_area(k, block));
	if (!r) {
		r = k->regions[block / COUNTS_PER_PAGE] = calloc(1, sizeof(*r));
		if (!r) {
			k->err = -ENOMEM;
			return USE_NONE;
		}
	}
	before = (enum block_use)r->use[i];
	if (before == USE_NONE)
		r->use[i] = (uint8_t)use;
	if (use != USE_JOURNAL && r->refs[i] < UINT16_MAX)
		r->refs[i]++;
	return before;
}

enum block_use refs_use(const struct check *k, uint64_t block)
{
	const struct refs_region *r = region_at(k, block);

	return r ? (enum block_use)r->use[block % COUNTS_PER_PAGE] : USE_NONE;
}

uint32_t refs_count(const struct check *k, uint64_t block)
{
	const struct refs_region *r = region_at(k, block);

	return r ? r->refs[block % COUNTS_PER_PAGE] : 0;
}

bool refs_add_only(struct check *k, uint64_t block, enum block_use use, const char *what)
{
	enum block_use before = refs_add(k, block, use);

	if (before == USE_NONE)
		return true;
	check_error(k, "%s: disk block %" PRIu64 " is also used as %s: one of the two will overwrite the other", what,
		    block, use_name(before));
	return false;
}

/* ---- pages ---- */

static struct page_seen *slot_of(const struct pages_seen *p, uint64_t block)
{
	uint64_t i = block * 0x9E3779B97F4A7C15ull;

	quarry_assert(p->n < p->n_slots && (p->n_slots & (p->n_slots - 1)) == 0);
	for (i = (i ^ i >> 32) & (p->n_slots - 1); p->slots[i].block != 0; i = (i + 1) & (p->n_slots - 1))
		if (p->slots[i].block == block)
			break;
	return &p->slots[i];
}

struct page_seen *pages_seen_find(const struct check *k, uint64_t block)
{
	struct page_seen *s = slot_of(&k->pages, block);

	return s->block == block ? s : NULL;
}

static bool pages_seen_double(struct check *k)
{
	struct pages_seen bigger = {.n = k->pages.n, .n_slots = k->pages.n_slots * 2};

	bigger.slots = calloc(bigger.n_slots, sizeof(*bigger.slots));
	if (!bigger.slots) {
		k->err = -ENOMEM;
		return false;
	}
	for (uint64_t i = 0; i < k->pages.n_slots; i++)
		if (k->pages.slots[i].block != 0)
			*slot_of(&bigger, k->pages.slots[i].block) = k->pages.slots[i];
	free(k->pages.slots);
	k->pages = bigger;
	return true;
}

struct page_seen *pages_seen_add(struct check *k, uint64_t block)
{
	struct page_seen *s;

	quarry_assert(block != 0);
	if (k->pages.n * 2 >= k->pages.n_slots && !pages_seen_double(k))
		return NULL;
	s = slot_of(&k->pages, block);
	quarry_assert(s->block == 0);
	s->block = block;
	k->pages.n++;
	return s;
}
