/*
 * vhost_memory.h: a guest's memory as its VMM has shared it: regions, addresses, and the log of changed pages.
 */
#pragma once

#include "daemon/core/reactor.h"
#include "frontends/vhost-user/vhost_format.h"

struct vhost_region {
	uint64_t guest, len_bytes, user; /* addresses of the guest and of the VMM */
	uint64_t file_pos;
	uint8_t *host;
	struct mapping *mapping; /* NULL: somebody else's memory (tests) */
};

struct vhost_memory {
	struct vhost_region regions[VHOST_REGIONS_MAX];
	uint32_t n_regions;
	struct mapping *log; /* a bit per guest page; NULL: none */
	bool is_logging;
};

/* A memfd may claim any size, and mapping it takes of the 128 TiB of addresses that everybody shares. Of one client: */
#define VHOST_MEMORY_BYTES_MAX (4 * TIB)
#define VHOST_LOG_BYTES_MAX    (4 * GIB) /* enough for 47 bits of guest addresses */

/* Guest address to memory: *len_bytes is cut to what lies there in one piece, at least 1. NULL: nothing lies there. */
uint8_t *memory_at(const struct vhost_memory *m, uint64_t guest, uint64_t *len_bytes);
/* The VMM's address to memory, all of len_bytes in one region; NULL: it is not. */
uint8_t *memory_at_user(const struct vhost_memory *m, uint64_t user, uint64_t len_bytes);
/* Takes the region in, mapping the descriptor, which stays the caller's. 0; -EINVAL, -EEXIST it overlaps, -ENOSPC,
 * -E2BIG: more than VHOST_MEMORY_BYTES_MAX in all; or of mapping it. */
must_check int memory_add(struct vhost_memory *m, struct reactor *r, int fd, const struct vhost_region *region);
must_check int memory_remove(struct vhost_memory *m, const struct vhost_region *region); /* 0 or -ENOENT */
/* All regions go; the log stays. */
void memory_clear(struct vhost_memory *m);
bool memory_is_broken(const struct vhost_memory *m);
/* Somebody looks for pages that changed: these did. */
void memory_changed(const struct vhost_memory *m, const void *at, uint64_t len_bytes);
static inline void memory_note(const struct vhost_memory *m, const void *at, uint64_t len_bytes)
{
	if (m->is_logging && m->log)
		memory_changed(m, at, len_bytes);
}
