/*
 * space.c: which blocks of the disk are used, how often, and which may be taken.
 *
 * The disk is cut into regions of 2,048 blocks, each with a count page. A few regions are resident: their counts are
 * in memory, exact, and blocks are allocated from them only, one after the other. Changes to all other regions gather
 * as deltas, in three maps by age: `current` (since the last cut), `frozen` (of the checkpoint under way), `log`
 * (durable with the last checkpoint, but not yet merged into count pages).
 *
 *      count of a block = count page + log + frozen + current            (a resident region holds this sum)
 *
 *   block:  free --alloc, take--> used --last drop--> freed since the cut --cut--> frozen --flushed checkpoint--> free
 *
 * Invariants
 *  1. A block is allocated only if its count was 0 in the last flushed checkpoint and it was not touched since
 *     [ckfree]. So replay finds the data of every record it may need, and a read of a freed block finds its bytes.
 *  2. A resident region has no entries in the three maps: they are absorbed when it becomes resident. It is dirty then.
 *  3. free_blocks is the sum of region_free. For a region that is not resident it counts what is known to be free; a
 *     merge makes it exact, and never lowers it.
 *  4. Data leave reserve_blocks free, new records and copies of shared pages floor_blocks: a checkpoint always finds
 *     room, in few regions (cut_blocks_spread), and so does whatever frees something.
 */
#include "volumes/disk/space_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PREFETCH_BELOW 256u /* blocks left in the region that data goes to, when the next one is fetched */
#define DELTAS_MIN     8192u
#define REGIONS_MAX    (DELTA_LOG_MAX / 8) /* so that their count pages never fill the log of deltas at a cut */
#define CHANGE_SAFE    (DELTA_CHANGE_MAX - 64)

/* Blocks of the region that are counted: neither before the data nor past the end. */
static uint32_t region_blocks(const struct space *s, uint32_t region)
{
	uint64_t from = max_u64((uint64_t)region * COUNTS_PER_PAGE, s->data_start);
	uint64_t to = min_u64((uint64_t)(region + 1) * COUNTS_PER_PAGE, s->n_blocks);
	return to > from ? (uint32_t)(to - from) : 0;
}

/* ---- life ---- */

uint32_t space_regions_for(uint64_t cache_bytes)
{
	uint64_t n = cache_bytes / 8 / (sizeof(struct region) + BLOCK_BYTES);
	return (uint32_t)min_u64(REGIONS_MAX, max_u64(REGIONS_MIN, n));
}

int space_init(struct space *s, struct disk *d, const struct superblock *sb, uint64_t n_blocks, uint32_t regions_max)
{
	*s = (struct space){.disk = d, .n_blocks = n_blocks, .data_start = JOURNAL_START + sb->journal_blocks};
	s->n_regions = (uint32_t)regions_of(n_blocks);
	s->regions_max = regions_max;
	s->deltas_max = (uint32_t)min_u64(DELTA_LOG_MAX, max_u64(DELTAS_MIN, n_blocks / 16));
	for (unsigned i = 0; i < SPACE_CLASSES; i++)
		s->cursor[i].region = -1;
	list_init(&s->regions);
	list_init(&s->waiters);
	table_init(&s->index);
	s->resident = calloc(s->n_regions, sizeof(struct region *));
	s->region_free = calloc(s->n_regions, sizeof(uint16_t));
	s->region_deltas = calloc(s->n_regions, sizeof(uint16_t));
	s->region_unpunched = calloc(s->n_regions, sizeof(uint16_t));
	if (!s->resident || !s->region_free || !s->region_deltas || !s->region_unpunched ||
	    table_grow(&s->index, s->n_regions) || deltas_init(&s->log, s->deltas_max) ||
	    deltas_init(&s->frozen, s->deltas_max) || deltas_init(&s->current, s->deltas_max))
		return -ENOMEM;
	return 0;
}

static void region_free_memory(struct region *r)
{
	free(r->counts);
	free(r);
}

void space_fini(struct space *s)
{
	for (uint32_t i = 0; i < s->n_regions && s->resident; i++)
		if (s->resident[i])
			region_free_memory(s->resident[i]);
	free(s->resident);
	free(s->region_free);
	free(s->region_deltas);
	free(s->region_unpunched);
	table_fini(&s->index);
	deltas_fini(&s->log);
	deltas_fini(&s->frozen);
	deltas_fini(&s->current);
	s->resident = NULL;
}

void space_start(struct space *s)
{
	for (uint32_t i = 0; i < s->n_regions; i++) {
		struct pointer p = s->index.slots[i];
		uint64_t n = pointer_is_hole(p) ? region_blocks(s, i) : pointer_epoch(p);
		s->region_free[i] = (uint16_t)min_u64(n, region_blocks(s, i));
	}
	deltas_each(word, &s->log)
	{
		struct delta d = delta_unpack(word);
		uint32_t region = region_of(d.block);
		s->region_deltas[region]++;
		region_note_unpunched(s, region, d.change < 0);
		if (d.is_zero)
			s->region_free[region]++;
		else if (d.was_zero && d.change > 0 && s->region_free[region] > 0)
			s->region_free[region]--;
	}
	for (uint32_t i = 0; i < s->n_regions; i++)
		s->free_blocks += s->region_free[i];
}

/* ---- resident regions ---- */

/* How many of the region's blocks may be allocated has changed. */
static void region_recount(struct space *s, struct region *r)
{
	uint32_t n = bits_count(r->free), old = s->region_free[r->number];
	s->free_blocks += n;
	s->free_blocks -= old;
	s->resident_free += n;
	s->region_free[r->number] = (uint16_t)n;
}

static void region_mark_dirty(struct space *s, struct region *r)
{
	r->is_referenced = true;
	if (r->is_dirty)
		return;
	r->is_dirty = true;
	s->n_dirty++;
}

/* Adds what the three maps know of one block to its count, and removes it there. */
static void region_absorb_block(struct space *s, struct region *r, uint64_t block)
{
	struct delta in_log = {0}, in_frozen = {0}, in_current = {0};
	bool logged = deltas_get(&s->log, block, &in_log);
	bool is_frozen = deltas_get(&s->frozen, block, &in_frozen);
	bool is_current = deltas_get(&s->current, block, &in_current);
	uint32_t i = bit_of(block);
	if (!logged && !is_frozen && !is_current) {
		if (r->counts[i] == 0)
			bit_set(r->free, i);
		return;
	}
	int32_t count = r->counts[i] + in_log.change + in_frozen.change + in_current.change;
	quarry_assert(count >= 0 && count <= UINT16_MAX);
	r->counts[i] = (uint16_t)count;
	region_mark_dirty(s, r);
	s->waiting_blocks -= is_current && delta_ends_free(in_current);
	s->frozen_waiting -= is_frozen && delta_ends_free(in_frozen);
	deltas_remove(&s->log, block);
	deltas_remove(&s->frozen, block);
	deltas_remove(&s->current, block);
	if (count > 0)
		return;
	if (is_current) {
		bit_set(r->freed_current, i);
		s->waiting_blocks++;
	} else if (is_frozen) {
		bit_set(r->freed_frozen, i);
		s->frozen_waiting++;
	} else {
		bit_set(r->free, i);
		bit_set(r->unpunched, i);
	}
}

/* The counts are in memory: from now on the region is resident. */
static void region_begin(struct space *s, struct region *r)
{
	uint64_t from = max_u64((uint64_t)r->number * COUNTS_PER_PAGE, s->data_start);
	uint64_t to = min_u64((uint64_t)(r->number + 1) * COUNTS_PER_PAGE, s->n_blocks);
	r->is_loading = false;
	if (s->region_deltas[r->number] > 0) {
		for (uint64_t block = from; block < to; block++)
			region_absorb_block(s, r, block);
		s->region_deltas[r->number] = 0;
	} else {
		for (uint64_t block = from; block < to; block++)
			if (r->counts[bit_of(block)] == 0)
				bit_set(r->free, bit_of(block));
	}
	/* Which blocks these were is not known any more: punching what is a hole already does no harm. */
	if (s->region_unpunched[r->number] >= PUNCH_RUN_MIN)
		memcpy(r->unpunched, r->free, sizeof r->unpunched);
	s->region_unpunched[r->number] = 0;
	region_recount(s, r);
}

/* Counts of blocks that are never counted must be 0, or the page is not what it says. */
static bool region_is_sound(const struct space *s, const struct region *r)
{
	uint64_t start = (uint64_t)r->number * COUNTS_PER_PAGE;
	for (uint32_t i = 0; i < COUNTS_PER_PAGE; i++)
		if (!space_is_block(s, start + i) && r->counts[i] != 0)
			return false;
	return true;
}

static void region_loaded(struct op *op, int res);

static void region_read(struct region *r)
{
	struct space *s = &r->disk->space;
	op_init(&r->op, region_loaded);
	r->iov = (struct iovec){r->counts, BLOCK_BYTES};
	file_read(r->disk->file, &r->op, &r->iov, 1, pointer_block(s->index.slots[r->number]) * BLOCK_BYTES);
}

static void region_loaded(struct op *op, int res)
{
	struct region *r = container_of(op, struct region, op);
	struct disk *d = r->disk;
	struct space *s = &d->space;
	struct pointer p = s->index.slots[r->number];
	quarry_assert(r->is_loading && s->n_loading > 0);
	if (res < 0 && !r->is_read_again && disk_is_alive(d)) { /* 8 MiB are not lost for one bad moment */
		r->is_read_again = true;
		region_read(r);
		return;
	}
	s->n_loading--;
	if (res == 0 && (block_crc(KIND_COUNTS, r->counts) != pointer_crc(p) || !region_is_sound(s, r)))
		res = -EBADMSG;
	if (res == 0) {
		region_begin(s, r);
	} else {
		disk_report_damage(
		    d, "counts", pointer_block(p),
		    "the reference counts of blocks %llu to %llu cannot be read (error %d): no block is taken "
		    "from there any more",
		    (unsigned long long)r->number * COUNTS_PER_PAGE,
		    (unsigned long long)(r->number + 1) * COUNTS_PER_PAGE - 1, -res);
		r->is_loading = false;
		r->is_damaged = true;
		s->free_blocks -= s->region_free[r->number];
		s->region_free[r->number] = 0;
	}
	waiters_wake(d, &r->waiters,
		     0); /* they ask again: who needs a count gets -EIO, who needs a block another region */
	waiters_wake(d, &s->waiters, 0);
	disk_request_ended(d);
}

static struct region *region_create(struct space *s, uint32_t number)
{
	/* The one allocation beside the data path: once every 8 MiB of writes at most, and kept for reuse by libc. */
	struct region *r = calloc(1, sizeof(*r));
	quarry_assert(r);
	r->counts = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
	quarry_assert(r->counts);
	r->disk = s->disk;
	r->number = number;
	r->is_referenced = true;
	list_init(&r->waiters);
	list_append(&s->regions, &r->link);
	s->resident[number] = r;
	s->n_resident++;
	return r;
}

int space_make_resident(struct space *s, uint32_t number, struct waiter *w)
{
	quarry_assert(number < s->n_regions);
	struct region *r = s->resident[number];
	if (r && !r->is_loading) {
		r->is_referenced = true;
		return r->is_damaged ? -EIO : 0;
	}
	if (!r) {
		struct pointer p = s->index.slots[number];
		r = region_create(s, number);
		if (pointer_is_hole(p)) {
			memset(r->counts, 0, BLOCK_BYTES);
			region_begin(s, r);
			return 0;
		}
		r->is_loading = true;
		s->n_loading++;
		s->disk->n_requests++; /* nobody may wait for it, but the file stays open until it is here */
		region_read(r);
	}
	if (w)
		list_append(&r->waiters, &w->link);
	return -EAGAIN;
}

static bool region_may_go(const struct space *s, const struct region *r)
{
	if (r->is_dirty || r->is_loading || r->is_damaged || r->n_held > 0 || !list_is_empty(&r->waiters))
		return false;
	for (unsigned i = 0; i < SPACE_CLASSES; i++)
		if (s->cursor[i].region == r->number)
			return false;
	return bits_count(r->freed_current) == 0 && bits_count(r->freed_frozen) == 0;
}

/* Blocks that are worth punching: those in long runs. */
static uint32_t region_unpunched(const struct region *r)
{
	uint32_t n = 0, run = 0;
	for (uint32_t i = 0; i <= COUNTS_PER_PAGE; i++) {
		if (i < COUNTS_PER_PAGE && bit_get(r->free, i) && bit_get(r->unpunched, i)) {
			run++;
			continue;
		}
		n += run >= PUNCH_RUN_MIN ? run : 0;
		run = 0;
	}
	return n;
}

void space_shrink(struct space *s)
{
	uint32_t n = 2 * s->n_resident; /* twice around: the second chance, and then the bound */
	while (s->n_resident > s->regions_max && n-- > 0) {
		struct region *r = container_of(list_pop(&s->regions), struct region, link);
		if (!region_may_go(s, r) || r->is_referenced) {
			r->is_referenced = false;
			list_append(&s->regions, &r->link);
			continue;
		}
		region_note_unpunched(s, r->number, region_unpunched(r));
		s->resident[r->number] = NULL;
		s->n_resident--;
		s->resident_free -= s->region_free[r->number];
		region_free_memory(r);
	}
}

/* ---- allocation ---- */

/* The region that blocks of this class come from next: the emptiest, so that writes stay contiguous however much
 * random overwrites have scattered the free blocks; among equals the next one after the last, and the other class's
 * region only if there is no other. A pass over two bytes a region, once for up to 2,048 blocks. -1: nothing is
 * free. */
static int64_t region_choose(struct space *s, enum space_class class, bool resident_only)
{
	int64_t other = s->cursor[class == SPACE_DATA ? SPACE_PAGES : SPACE_DATA].region, best = -1;
	for (uint32_t step = 0; step < s->n_regions; step++) {
		uint32_t i = s->search + step < s->n_regions ? s->search + step : s->search + step - s->n_regions;
		if (s->region_free[i] == 0 || (best >= 0 && best != other && s->region_free[i] <= s->region_free[best]))
			continue;
		if (resident_only && (!s->resident[i] || s->resident[i]->is_loading))
			continue;
		if (best < 0 || i != other)
			best = i;
	}
	if (best >= 0)
		s->search = (uint32_t)(best + 1) % s->n_regions;
	return best;
}

/* The next run of at most n free bits from `from` on, cyclically. */
static uint32_t run_find(const struct region *r, uint32_t from, uint32_t n, uint32_t *n_out)
{
	uint32_t i = from % COUNTS_PER_PAGE;
	for (uint32_t step = 0; step <= COUNTS_PER_PAGE; step++, i = (i + 1) % COUNTS_PER_PAGE) {
		if (i % 64 == 0 && r->free[i / 64] == 0) {
			step += 63;
			i += 63;
			continue;
		}
		if (bit_get(r->free, i))
			break;
	}
	uint32_t len = 0;
	while (len < n && i + len < COUNTS_PER_PAGE && bit_get(r->free, i + len))
		len++;
	*n_out = len;
	return i;
}

static void run_take(struct space *s, struct region *r, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++) {
		quarry_assert(r->counts[i] == 0);
		bit_clear(r->free, i);
		bit_clear(r->unpunched, i);
	}
	quarry_assert(s->region_free[r->number] >= n && s->free_blocks >= n && s->resident_free >= n);
	s->region_free[r->number] -= (uint16_t)n;
	s->free_blocks -= n;
	s->resident_free -= n;
}

/* Points the class's cursor at a region with free blocks that is resident. 0; -EAGAIN; -ENOSPC. */
static int cursor_place(struct space *s, enum space_class class, struct waiter *w)
{
	int64_t region = s->cursor[class].region;
	while (region < 0 || s->region_free[region] == 0) {
		if (s->free_blocks == 0)
			return -ENOSPC;
		/* Pages are given blocks at a cut, where nothing can wait: whatever is resident will do. */
		region = region_choose(s, class, w == NULL);
		if (region < 0)
			return -ENOSPC;
		int res = space_make_resident(s, (uint32_t)region, w);
		if (res < 0 && res != -EIO)
			return res;
		if (res == -EIO) { /* damaged: another is chosen */
			s->free_blocks -= s->region_free[region];
			s->region_free[region] = 0;
		}
		s->cursor[class].region = region;
		s->cursor[class].next = 0;
	}
	return 0;
}

int space_alloc(struct space *s, enum space_class class, uint32_t n, struct run *out, struct waiter *w)
{
	quarry_assert(n > 0);
	int res = cursor_place(s, class, w);
	if (res < 0)
		return res;
	int64_t region = s->cursor[class].region;
	struct region *r = s->resident[region];
	quarry_assert(r && !r->is_loading);
	uint32_t len, first = run_find(r, s->cursor[class].next, n, &len);
	quarry_assert(len > 0);
	run_take(s, r, first, len);
	s->cursor[class].next = first + len;
	*out = (struct run){(uint64_t)region * COUNTS_PER_PAGE + first, len};
	if (class == SPACE_DATA && s->region_free[region] < PREFETCH_BELOW &&
	    s->region_free[region] + len >= PREFETCH_BELOW) {
		int64_t next = region_choose(s, class, false);
		if (next >= 0 && space_make_resident(s, (uint32_t)next, NULL) == 0)
			s->search = (uint32_t)next;
	}
	return 0;
}

void space_keep(struct space *s, struct run run)
{
	s->resident[region_of(run.block)]->n_held++;
}

void space_let_go(struct space *s, struct run run)
{
	struct region *r = s->resident[region_of(run.block)];
	quarry_assert(r && r->n_held > 0);
	r->n_held--;
}

void space_hold(struct space *s, struct region *r, uint32_t first, uint32_t n)
{
	quarry_assert(space_has_room(s, n));
	run_take(s, r, first, n);
	s->held_blocks += n;
	space_keep(s, (struct run){(uint64_t)r->number * COUNTS_PER_PAGE + first, n});
}

void space_release_hold(struct space *s, struct run run)
{
	quarry_assert(s->held_blocks >= run.n_blocks);
	s->held_blocks -= run.n_blocks;
	space_let_go(s, run);
	space_give_back(s, run);
	disk_admit(s->disk);
}

void space_give_back(struct space *s, struct run run)
{
	struct region *r = s->resident[region_of(run.block)];
	quarry_assert(r && bit_of(run.block) + run.n_blocks <= COUNTS_PER_PAGE);
	for (uint32_t i = bit_of(run.block); i < bit_of(run.block) + run.n_blocks; i++) {
		quarry_assert(r->counts[i] == 0 && !bit_get(r->free, i));
		bit_set(r->free, i);
	}
	s->region_free[r->number] += (uint16_t)run.n_blocks;
	s->free_blocks += run.n_blocks;
	s->resident_free += run.n_blocks;
}

bool space_has_room(const struct space *s, uint64_t n)
{
	return s->free_blocks >= n + s->reserve_blocks;
}

bool space_has_room_to_grow(const struct space *s, uint64_t n_dirty)
{
	return s->free_blocks >= s->floor_blocks + n_dirty + 2 * TREE_HEIGHT_MAX;
}

uint64_t space_regions_bound(const struct space *s, uint32_t dirty_max)
{
	/* What replay leaves resident, or what a checkpoint finds dirty when it has let go of the rest. */
	return min_u64(s->n_regions, (uint64_t)REPLAY_REGIONS * s->regions_max + dirty_max + LOADS_MAX);
}

/* ---- counts ---- */

static struct region *region_resident(const struct space *s, uint64_t block)
{
	struct region *r = s->resident[region_of(block)];
	return r && !r->is_loading && !r->is_damaged ? r : NULL;
}

void space_take(struct space *s, uint64_t block, uint32_t refs)
{
	quarry_assert(space_is_block(s, block) && refs > 0 && refs <= UINT16_MAX);
	struct region *r = region_resident(s, block);
	quarry_assert(r && r->counts[bit_of(block)] == 0 && !bit_get(r->free, bit_of(block)));
	r->counts[bit_of(block)] = (uint16_t)refs;
	region_mark_dirty(s, r);
}

int space_claim(struct space *s, uint64_t block)
{
	if (!space_is_block(s, block))
		return -EBADMSG;
	struct region *r = region_resident(s, block);
	quarry_assert(r);
	uint32_t i = bit_of(block);
	if (!bit_get(r->free, i))
		return -EBADMSG;
	run_take(s, r, i, 1);
	return 0;
}

/* Changes a count outside the resident regions. */
static void delta_change(struct space *s, uint64_t block, int32_t change, bool is_last)
{
	struct delta d = {.block = block};
	if (!deltas_get(&s->current, block, &d))
		s->region_deltas[region_of(block)]++;
	bool was_free = delta_ends_free(d) && d.change != 0;
	d.change += change;
	d.is_zero = !d.was_zero && is_last;
	quarry_assert(d.change >= -DELTA_CHANGE_MAX && d.change <= DELTA_CHANGE_MAX && !was_free);
	deltas_put(&s->current, d);
	s->waiting_blocks += delta_ends_free(d);
}

void space_add(struct space *s, uint64_t block)
{
	quarry_assert(space_is_block(s, block));
	struct region *r = region_resident(s, block);
	if (!r) {
		delta_change(s, block, 1, false);
		return;
	}
	quarry_assert(r->counts[bit_of(block)] > 0 && r->counts[bit_of(block)] < UINT16_MAX);
	r->counts[bit_of(block)]++;
	region_mark_dirty(s, r);
}

void space_drop(struct space *s, uint64_t block, bool is_last)
{
	quarry_assert(space_is_block(s, block));
	struct region *r = region_resident(s, block);
	if (!r) {
		delta_change(s, block, -1, is_last);
		return;
	}
	uint32_t i = bit_of(block);
	quarry_assert(r->counts[i] > 0);
	quarry_assert(!is_last || r->counts[i] == 1);
	if (--r->counts[i] == 0) {
		bit_set(r->freed_current, i);
		s->waiting_blocks++;
	}
	region_mark_dirty(s, r);
}

int space_count(struct space *s, uint64_t block, struct waiter *w)
{
	if (!space_is_block(s, block))
		return -EIO;
	int res = space_make_resident(s, region_of(block), w);
	return res < 0 ? res : s->resident[region_of(block)]->counts[bit_of(block)];
}

int space_can_change(struct space *s, uint64_t block, struct waiter *w)
{
	if (!space_is_block(s, block))
		return -EIO;
	if (region_resident(s, block))
		return 0;
	struct delta in_log = {0}, in_frozen = {0}, in_current = {0};
	deltas_get(&s->log, block, &in_log);
	deltas_get(&s->frozen, block, &in_frozen);
	deltas_get(&s->current, block, &in_current);
	int32_t change = in_log.change + in_frozen.change + in_current.change;
	if (abs(change) < CHANGE_SAFE && abs(in_current.change) < CHANGE_SAFE)
		return 0;
	return space_make_resident(s, region_of(block), w);
}

uint32_t space_deltas(const struct space *s)
{
	return s->log.n + s->frozen.n + s->current.n;
}

/* The cut that empties the maps has changes of its own. */
bool space_has_delta_room(const struct space *s, uint32_t n)
{
	return space_deltas(s) + n + cut_deltas(s->disk) <= s->deltas_max;
}
