/*
 * parts.c: the pool of parts: made at the start, handed out in order of arrival, and what is said of one.
 *
 * Owner: the set.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define EDGES_BYTES (2 * BLOCK_BYTES)
#define MORE_COPIES (PART_COPIES_MAX - 1)

static const char *const stage_names[] = {
#define X(name) #name,
    PART_STAGES(X)
#undef X
};
static const char *const kind_names[] = {
    [PART_READ] = "read", [PART_WRITE] = "write", [PART_ZEROS] = "zeros", [PART_TRIM] = "trim",
    [PART_MAP] = "map",   [PART_AHEAD] = "ahead", [PART_FLUSH] = "flush", [PART_COMPLETE] = "complete",
};

/* ---- the pool ---- */

static void *parts_map(uint32_t n, size_t each)
{
	return mmap(NULL, n * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int parts_init(struct parts *p, uint32_t n, bool has_edges)
{
	list_init(&p->free);
	list_init(&p->line);
	p->n = n;
	p->all = calloc(n, sizeof(*p->all));
	if (has_edges) {
		p->edges = parts_map(n, EDGES_BYTES);
		p->more = parts_map(n, MORE_COPIES * sizeof(*p->more));
	}
	if (!p->all || p->edges == MAP_FAILED || p->more == MAP_FAILED)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		p->all[i].pool = p;
		p->all[i].edges = has_edges ? p->edges + (size_t)i * EDGES_BYTES : NULL;
		p->all[i].more = has_edges ? p->more + (size_t)i * MORE_COPIES : NULL;
		list_append(&p->free, &p->all[i].link);
	}
	return 0;
}

void parts_fini(struct parts *p)
{
	if (p->edges && p->edges != MAP_FAILED)
		munmap(p->edges, (size_t)p->n * EDGES_BYTES);
	if (p->more && p->more != MAP_FAILED)
		munmap(p->more, (size_t)p->n * MORE_COPIES * sizeof(*p->more));
	free(p->all);
	p->all = NULL;
	p->edges = NULL;
	p->more = NULL;
}

struct part *part_get(struct parts *pool, struct volume_io *io)
{
	struct part *p = io->own.part;
	io->own.part = NULL;
	if (p && p->pool != pool) { /* got for data, and there was nothing to carry any more */
		part_put(p);
		p = NULL;
	}
	if (!p && list_is_empty(&pool->line)) {
		struct list *node = list_pop(&pool->free);
		p = node ? container_of(node, struct part, link) : NULL;
	}
	if (!p) {
		list_append(&pool->line, &io->own.line);
		return NULL;
	}
	quarry_assert(p->stage == PART_FREE);
	p->request = io;
	p->volume = io->own.volume;
	return p;
}

/* The first in line gets it into his hand, so that nobody who comes later takes it from him. */
void part_put(struct part *p)
{
	struct parts *pool = p->pool;
	struct list *next = list_pop(&pool->line);
	p->stage = PART_FREE;
	if (!next) {
		list_prepend(&pool->free, &p->link);
		return;
	}
	struct volume_io *io = container_of(next, struct volume_io, own.line);
	quarry_assert(!io->own.part);
	io->own.part = p;
	p->volume = io->own.volume;
	volume_io_wake(io, 0);
}

/* Stage, and what it waits for: of one that is at its disk, what the disk says. */
void part_to_text(const struct part *p, char *text, size_t room)
{
	const struct set_disk *d =
	    p->volume->set->disks[p->owed > 0 ? p->first.disk : (uint32_t)__builtin_ctzll(p->disks)];
	char waits_for[128] = "goes on";
	if (p->owed > 0)
		disk_io_to_text(&p->first.rio.io, waits_for, sizeof(waits_for));
	else if (p->stage == PART_HELD)
		snprintf(waits_for, sizeof(waits_for), "waits for a snapshot that is being taken");
	else if (p->stage == PART_MOVE)
		snprintf(waits_for, sizeof(waits_for), "waits for another disk, since this one is full");
	snprintf(text, room, "%s of %" PRIu64 " blocks at %" PRIu64 " on disk %s: %s: %s", kind_names[p->kind],
		 p->n_blocks, p->block, d ? d->facts.name : "?", stage_names[p->stage], waits_for);
}
