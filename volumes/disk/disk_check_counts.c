/*
 * disk_check_counts.c: the reference counts on the disk against the references that were found.
 *
 *   count of a block = its count page (a hole in the index: 0) + its entry in the delta log = pointers to it
 *
 * Too low is dangerous: the block is given away while something still points to it. Too high is a leak: space that
 * cannot be used. Where pages are lost, blocks below them have counts without pointers; then leaks are not told, since
 * they most likely are none.
 *
 * Invariant: regions are compared in ascending order, and so are suspects collected; the delta log is read once along.
 */
#include "volumes/disk/disk_check_internal.h"

#include "daemon/core/bytes.h"

#include <inttypes.h>
#include <string.h>

struct compare {
	struct check *k;
	uint32_t next_delta;
	uint64_t leak_first, leak_blocks; /* the run of leaked blocks at hand */
	uint64_t n_leaked;
};

/* ---- findings ---- */

static void leak_end(struct compare *m)
{
	if (m->leak_blocks > 0 && m->k->n_lost_pages == 0)
		check_error(m->k,
			    "disk blocks %" PRIu64 " to %" PRIu64
			    ": leak: counted as used, but nothing points to them: %" PRIu64
			    " KiB cannot be used; no data is lost",
			    m->leak_first, m->leak_first + m->leak_blocks - 1,
			    m->leak_blocks * (BLOCK_BYTES / (uint64_t)KIB));
	m->leak_blocks = 0;
}

static void leak_add(struct compare *m, uint64_t block)
{
	quarry_assert(m->leak_blocks == 0 || block >= m->leak_first + m->leak_blocks);
	m->n_leaked++;
	if (m->leak_blocks == 0 || m->leak_first + m->leak_blocks != block) {
		leak_end(m);
		m->leak_first = block;
	}
	m->leak_blocks++;
}

static void tell_wrong_count(struct compare *m, uint64_t block, uint32_t count, uint32_t refs)
{
	struct check *k = m->k;
	const char *use = use_name(refs_use(k, block));

	quarry_assert(count != refs && refs > 0);
	quarry_assert(k->n_suspects <= SUSPECTS_MAX);
	leak_end(m);
	if (count > refs) {
		m->n_leaked++;
		if (k->n_lost_pages > 0)
			return;
		check_error(k,
			    "disk block %" PRIu64
			    " (%s): leak: its count is %u but %u pointers name it: it will never be freed; "
			    "no data is lost",
			    block, use, count, refs);
	} else if (count == 0) {
		check_error(k,
			    "disk block %" PRIu64
			    " (%s) is in use by %u pointers but counted as free: a new write may overwrite it",
			    block, use, refs);
	} else {
		check_error(k,
			    "disk block %" PRIu64
			    " (%s): its count is %u but %u pointers name it: it would be freed while it is in use",
			    block, use, count, refs);
	}
	if (k->n_suspects < SUSPECTS_MAX)
		k->suspects[k->n_suspects++] = block;
}

static void compare_block(struct compare *m, uint64_t block, uint32_t count)
{
	uint32_t refs = refs_count(m->k, block);

	if (count == refs)
		return;
	if (refs == 0)
		leak_add(m, block);
	else
		tell_wrong_count(m, block, count, refs);
}

/* ---- one region ---- */

/* The region's entries of the delta log, applied to its counts. */
static void apply_deltas(struct compare *m, uint64_t region, int32_t counts[static COUNTS_PER_PAGE], bool is_known)
{
	struct check *k = m->k;

	for (; m->next_delta < k->n_deltas; m->next_delta++) {
		struct delta d = delta_unpack(k->deltas[m->next_delta]);
		int32_t *count = &counts[d.block % COUNTS_PER_PAGE], before = *count;

		if (d.block / COUNTS_PER_PAGE > region)
			return;
		if (!is_known || d.block / COUNTS_PER_PAGE < region)
			continue; /* out of order: told already */
		*count += d.change;
		if (*count < 0 || *count > UINT16_MAX)
			check_error(k, "delta log: disk block %" PRIu64 " would have the count %d", d.block, *count);
		if (d.was_zero && before != 0)
			check_error(k,
				    "delta log: disk block %" PRIu64
				    " is said to have had no count, but its count page says %d",
				    d.block, before);
		/* The reverse need not be: that a shared block's count has reached 0 is known only with its count page.
		 */
		if (d.is_zero && (before == 0 || *count != 0))
			check_error(k,
				    "delta log: disk block %" PRIu64
				    " is said to be free now, but its count goes from %d to %d",
				    d.block, before, *count);
		*count = *count < 0 ? 0 : *count;
	}
}

/* How many blocks the index says are free in the region, against its count page. */
static void compare_free(struct compare *m, uint64_t region, uint64_t n_free)
{
	struct check *k = m->k;
	uint64_t said = pointer_epoch(k->count_pointers[region]), first = region * COUNTS_PER_PAGE;

	if (pointer_is_hole(k->count_pointers[region]) || said == n_free)
		return;
	if (said > n_free)
		check_error(k,
			    "count index: disk blocks %" PRIu64 " to %" PRIu64 ": %" PRIu64
			    " are said to be free, but %" PRIu64 " are: the disk shows more free space than it has",
			    first, first + COUNTS_PER_PAGE - 1, said, n_free);
	else
		check_warn(k,
			   "count index: disk blocks %" PRIu64 " to %" PRIu64 ": %" PRIu64
			   " are said to be free, but %" PRIu64 " are: the rest is found when the region is next used",
			   first, first + COUNTS_PER_PAGE - 1, said, n_free);
}

/* Loads a region's count page; false: it is not known, or cannot be read. */
static bool load_counts(struct check *k, uint64_t region, int32_t counts[static COUNTS_PER_PAGE])
{
	memset(counts, 0, COUNTS_PER_PAGE * sizeof(counts[0]));
	if (k->region_is_lost[region])
		return false;
	if (pointer_is_hole(k->count_pointers[region]))
		return true;
	if (check_load(k, k->count_pointers[region], KIND_COUNTS, k->block) != BLOCK_GOOD)
		return false;
	for (unsigned i = 0; i < COUNTS_PER_PAGE; i++)
		counts[i] = get_le16(k->block + i * 2);
	return true;
}

static void compare_region(struct compare *m, uint64_t region)
{
	int32_t counts[COUNTS_PER_PAGE];
	struct check *k = m->k;
	uint64_t first = region * COUNTS_PER_PAGE, n_free = 0;
	bool is_known = load_counts(k, region, counts);

	for (unsigned i = 0; i < COUNTS_PER_PAGE && is_known; i++)
		if (!check_in_data_area(k, first + i)) {
			if (counts[i] != 0 && first + i < k->superblock.n_blocks && first + i >= k->n_blocks)
				continue; /* of the missing end of the disk, which was told */
			if (counts[i] != 0)
				check_error(k,
					    "disk block %" PRIu64
					    " has a count of %d, but no block that is counted is there",
					    first + i, counts[i]);
		} else if (counts[i] == 0) {
			n_free++;
		}
	apply_deltas(m, region, counts, is_known);
	if (!is_known)
		return;
	compare_free(m, region, n_free);
	for (unsigned i = 0; i < COUNTS_PER_PAGE; i++)
		if (check_in_data_area(k, first + i))
			compare_block(m, first + i, (uint32_t)counts[i]);
}

void check_counts(struct check *k)
{
	struct compare m = {.k = k};

	for (uint64_t region = 0; region < k->n_regions && k->err == 0; region++)
		/* A region without counts and without references takes no look at all. */
		if (k->regions[region] || !pointer_is_hole(k->count_pointers[region]) || m.next_delta < k->n_deltas)
			compare_region(&m, region);
	leak_end(&m);
	if (k->n_lost_pages > 0 && m.n_leaked > 0)
		check_warn(
		    k,
		    "%" PRIu64
		    " blocks have counts for which no pointer was found; the damaged pages above most likely hide "
		    "the pointers",
		    m.n_leaked);
	check_note(k, "reference counts compared");
}
