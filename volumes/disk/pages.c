/*
 * pages.c: the cache of pages: a fixed number of frames, the disk's share, found by block number.
 *
 *   FREE --load--> LOADING --read--> CLEAN --dirty in place--> DIRTY --seal--> WRITING --written--> CLEAN
 *    +--new dirty-------------------------------------------->  ^                +--(orphan, bare)--> FREE
 *
 * Invariants
 *  1. LOADING, CLEAN and WRITING frames that somebody may look up are in the hash, once; DIRTY, bare and orphaned ones
 *     are not: a dirty page is named by its frame.
 *  2. Only CLEAN frames are evicted, by a clock hand (second chance), and none that was looked up since pages_guard().
 *  3. A WRITING frame's bytes do not change: who wants to change that page takes a new frame and copies.
 *  4. n_dirty + n_writing is bounded by the checkpoint's limits to about half of the frames, so that loads always find
 *     some.
 *  5. Frames above n_frames are only for the buffers of a checkpoint that has more to write beside pages than a very
 *     small share holds: it never waits for what only its end would free. Their memory is given back as soon as they
 *     are free.
 */
#include "volumes/disk/disk_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define GUARDED_MAX (4 * TREE_HEIGHT_MAX) /* the paths to two leaves, with room to spare */
#define DIRTY_MIN   32u

static uint32_t *head_of(struct pages *p, uint64_t block)
{
	return &p->heads[(uint32_t)(block * 0x9E3779B97F4A7C15ull >> 32) & p->heads_mask];
}

static void hash_insert(struct pages *p, struct frame *f)
{
	uint32_t *head = head_of(p, f->block);
	f->hash_next = *head;
	*head = frame_index(p, f) + 1;
}

static void hash_remove(struct pages *p, struct frame *f)
{
	uint32_t *at = head_of(p, f->block);
	while (*at != frame_index(p, f) + 1) {
		quarry_assert(*at != 0);
		at = &p->frames[*at - 1].hash_next;
	}
	*at = f->hash_next;
	f->hash_next = 0;
}

static struct frame *hash_find(struct pages *p, uint64_t block)
{
	for (uint32_t i = *head_of(p, block); i != 0; i = p->frames[i - 1].hash_next)
		if (p->frames[i - 1].block == block)
			return &p->frames[i - 1];
	return NULL;
}

/*
 * How a share of the cache is spent: 3/4 on frames of pages, 1/8 on resident regions, the rest on what finds them. Of
 * the frames a quarter may be dirty: while a checkpoint writes these, as many may become dirty again, and half are left
 * for looking. A small disk takes less, so that the reserve that its checkpoints need stays a small part of it.
 */
uint32_t pages_frames_for(uint64_t cache_bytes)
{
	return (uint32_t)min_u64(cache_bytes / 4 * 3 / (BLOCK_BYTES + sizeof(struct frame)), UINT32_MAX / 4);
}

uint32_t pages_dirty_for(uint32_t n_frames, uint64_t n_blocks)
{
	return (uint32_t)min_u64(n_frames / 4, max_u64(DIRTY_MIN, n_blocks / 128));
}

int pages_init(struct pages *p, struct disk *d, const struct pages_size *size)
{
	quarry_assert(size->n_frames >= size->n_share && size->dirty_max > 0);
	quarry_assert(size->n_frames / 2 >= size->dirty_max); /* dirty, and as many being written */
	uint32_t n_heads = 64;
	while (n_heads < size->n_share)
		n_heads *= 2;
	*p = (struct pages){.disk = d,
			    .n_frames = size->n_frames,
			    .n_share = size->n_share,
			    .frames_max = size->n_frames + size->n_bare,
			    .dirty_max = size->dirty_max,
			    .heads_mask = n_heads - 1};
	p->memory_bytes = (size_t)p->frames_max * BLOCK_BYTES;
	p->memory =
	    mmap(NULL, p->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->memory == MAP_FAILED)
		p->memory = NULL;
	p->frames = calloc(p->frames_max, sizeof(struct frame));
	p->heads = calloc(n_heads, sizeof(uint32_t));
	list_init(&p->free);
	list_init(&p->spare);
	list_init(&p->waiters);
	for (unsigned i = 0; i < array_size(p->dirty); i++)
		list_init(&p->dirty[i]);
	if (p->memory && p->frames && p->heads)
		return 0;
	pages_fini(p);
	return -ENOMEM;
}

void pages_fini(struct pages *p)
{
	if (p->memory)
		munmap(p->memory, p->memory_bytes);
	free(p->frames);
	free(p->heads);
	p->memory = NULL;
	p->frames = NULL;
	p->heads = NULL;
}

/* A free frame joins its kind. */
static void frame_put(struct pages *p, struct frame *f)
{
	quarry_assert(f->state == FRAME_FREE && !list_is_linked(&f->link));
	if (frame_index(p, f) < p->n_frames) {
		list_append(&p->free, &f->link);
		return;
	}
	list_append(&p->spare, &f->link);
	/* A system call for each page: only what a checkpoint has borrowed comes here. */
	madvise(f->page, BLOCK_BYTES, MADV_DONTNEED);
}

static void frame_free(struct pages *p, struct frame *f)
{
	f->state = FRAME_FREE;
	f->is_orphan = f->is_bare = false;
	frame_put(p, f);
	waiters_wake(p->disk, &p->waiters, 0);
}

/* Frees the next clean frame that was not used since the hand last passed. NULL: none is clean and unguarded. */
static struct frame *evict(struct pages *p)
{
	for (uint32_t step = 0; step < 2 * p->n_touched; step++) {
		struct frame *f = &p->frames[p->hand];
		p->hand = (p->hand + 1) % p->n_touched;
		if (f->state != FRAME_CLEAN || f->guard == p->guard)
			continue;
		if (f->is_referenced) {
			f->is_referenced = false;
			continue;
		}
		hash_remove(p, f);
		p->n_cached--;
		f->state = FRAME_FREE;
		return f;
	}
	return NULL;
}

/* The first of a list, or one that was never used, of which there are n. NULL: there is none. */
static struct frame *frame_unused(struct pages *p, struct list *list, uint32_t n)
{
	struct list *link = list_pop(list);
	if (link)
		return container_of(link, struct frame, link);
	if (p->n_touched >= n)
		return NULL;
	struct frame *f = &p->frames[p->n_touched];
	f->page = (struct page *)(p->memory + (size_t)p->n_touched * BLOCK_BYTES);
	p->n_touched++;
	list_init(&f->link);
	list_init(&f->waiters);
	f->disk = p->disk;
	return f;
}

/* A frame for the caller, or NULL; one above n_frames only if it may borrow. */
static struct frame *frame_take(struct pages *p, bool may_borrow)
{
	struct frame *f = frame_unused(p, &p->free, p->n_frames);
	if (!f)
		f = evict(p);
	if (!f && may_borrow)
		f = frame_unused(p, &p->spare, p->frames_max);
	if (f) {
		quarry_assert(f->state == FRAME_FREE && list_is_empty(&f->waiters));
		f->refs = 0;
		f->is_referenced = true;
		f->is_orphan = f->is_bare = false;
	}
	return f;
}

static bool have(struct pages *p, uint32_t n, uint32_t n_frames, struct waiter *w)
{
	uint32_t busy = p->n_dirty + p->n_writing + p->n_loading;
	if (busy + n + GUARDED_MAX <= n_frames)
		return true;
	if (w)
		list_append(&p->waiters, &w->link);
	return false;
}

bool pages_have(struct pages *p, uint32_t n, struct waiter *w)
{
	return have(p, n, p->n_frames, w);
}

bool pages_have_bare(struct pages *p, uint32_t n, struct waiter *w)
{
	return have(p, n, p->frames_max, w);
}

void pages_settle(struct pages *p, uint32_t dirty_max)
{
	quarry_assert(p->n_dirty == 0 && p->n_writing == 0 && p->n_loading == 0);
	p->n_frames = p->n_share;
	p->dirty_max = dirty_max;
	for (uint32_t i = p->n_frames; i < p->n_touched; i++) {
		struct frame *f = &p->frames[i];
		if (f->state == FRAME_CLEAN) {
			hash_remove(p, f);
			p->n_cached--;
			f->state = FRAME_FREE;
		}
		list_remove(&f->link);
		frame_put(p, f);
	}
}

void pages_guard(struct pages *p)
{
	p->guard++;
}

struct frame *pages_find(struct pages *p, struct pointer pointer)
{
	uint64_t block = pointer_block(pointer);
	if (block & FRAME_BIT) {
		struct frame *f = &p->frames[block & (FRAME_BIT - 1)];
		quarry_assert(f->state == FRAME_DIRTY);
		return f;
	}
	struct frame *f = hash_find(p, block);
	if (!f || f->state == FRAME_LOADING)
		return NULL;
	f->is_referenced = true;
	f->guard = p->guard;
	return f;
}

static void loaded(struct op *op, int res)
{
	struct frame *f = container_of(op, struct frame, op);
	struct disk *d = f->disk;
	struct pages *p = &d->pages;
	struct list waiters;
	list_init(&waiters);
	list_splice(&waiters, &f->waiters);
	quarry_assert(f->state == FRAME_LOADING && p->n_loading > 0);
	p->n_loading--;
	if (res == 0 && block_crc(KIND_PAGE, f->page) != f->expected_crc) {
		disk_report_damage(d, "page", f->block, "a page of pointers does not match its checksum");
		res = -EIO;
	} else if (res < 0) {
		counter_add(&d->counters.io_errors, 1);
		disk_report_damage(d, "page", f->block, "a page of pointers cannot be read (error %d)", -res);
		res = -EIO;
	}
	if (res == 0) {
		f->state = FRAME_CLEAN;
		p->n_cached++;
	} else {
		hash_remove(p, f);
		frame_free(p, f);
	}
	waiters_wake(p->disk, &waiters, res);
	waiters_wake(p->disk, &p->waiters, 0);
}

void pages_load(struct pages *p, struct pointer pointer, unsigned level, struct waiter *w)
{
	uint64_t block = pointer_block(pointer);
	quarry_assert(!pointer_is_virtual(pointer) && block != 0);
	struct frame *f = hash_find(p, block);
	if (f && f->state == FRAME_LOADING) {
		list_append(&f->waiters, &w->link);
		return;
	}
	quarry_assert(!f);
	if (!pages_have(p, 1, w))
		return;
	pages_guard(p); /* whoever waits for a page looks at all of them anew */
	f = frame_take(p, false);
	quarry_assert(f);
	f->state = FRAME_LOADING;
	f->level = (uint8_t)level;
	f->block = block;
	f->expected_crc = pointer_crc(pointer);
	hash_insert(p, f);
	p->n_loading++;
	list_append(&f->waiters, &w->link);
	counter_add(&p->disk->counters.page_reads, 1);
	op_init(&f->op, loaded);
	f->iov = (struct iovec){f->page, BLOCK_BYTES};
	file_read(p->disk->file, &f->op, &f->iov, 1, block * BLOCK_BYTES);
}

struct frame *pages_new_dirty(struct pages *p, unsigned level, uint64_t newest)
{
	struct frame *f = frame_take(p, false);
	quarry_assert(f && level >= 1 && level <= TREE_HEIGHT_MAX);
	f->state = FRAME_DIRTY;
	f->level = (uint8_t)level;
	f->block = FRAME_BIT | frame_index(p, f);
	f->newest = newest;
	f->refs = 1;
	list_append(&p->dirty[level], &f->link);
	p->n_dirty++;
	return f;
}

void pages_dirty_in_place(struct pages *p, struct frame *f, uint64_t newest)
{
	quarry_assert(f->state == FRAME_CLEAN);
	hash_remove(p, f);
	p->n_cached--;
	f->state = FRAME_DIRTY;
	f->block = FRAME_BIT | frame_index(p, f);
	f->newest = newest;
	f->refs = 1;
	list_append(&p->dirty[f->level], &f->link);
	p->n_dirty++;
}

struct frame *pages_new_bare(struct pages *p)
{
	struct frame *f = frame_take(p, true);
	quarry_assert(f);
	f->state = FRAME_WRITING;
	f->is_bare = true;
	p->n_writing++;
	memset(f->page, 0, BLOCK_BYTES);
	return f;
}

void pages_seal(struct pages *p, struct frame *f, uint64_t block, struct pointer sealed)
{
	quarry_assert(f->state == FRAME_DIRTY && f->refs > 0 && p->n_dirty > 0);
	list_remove(&f->link);
	p->n_dirty--;
	p->n_writing++;
	f->state = FRAME_WRITING;
	f->block = block;
	f->sealed = sealed;
	hash_insert(p, f);
}

void pages_written(struct pages *p, struct frame *f)
{
	quarry_assert(f->state == FRAME_WRITING && p->n_writing > 0);
	p->n_writing--;
	if (f->is_bare || f->is_orphan) {
		frame_free(p, f);
		return;
	}
	f->state = FRAME_CLEAN;
	p->n_cached++;
	waiters_wake(p->disk, &p->waiters, 0);
}

void pages_forget(struct pages *p, struct frame *f)
{
	switch ((enum frame_state)f->state) {
	case FRAME_DIRTY:
		list_remove(&f->link);
		p->n_dirty--;
		frame_free(p, f);
		return;
	case FRAME_CLEAN:
		hash_remove(p, f);
		p->n_cached--;
		frame_free(p, f);
		return;
	case FRAME_WRITING:
		hash_remove(p, f);
		f->is_orphan = true;
		return;
	case FRAME_FREE:
	case FRAME_LOADING:
		quarry_assert(!"only a page that somebody named can be forgotten");
	}
}
