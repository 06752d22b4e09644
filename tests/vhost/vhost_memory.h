/*
 * vhost_memory.h: guest memory: several shared files, at guest-physical addresses with gaps between some of them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VHOST_REGIONS_MAX 8u

struct vhost_region {
	uint64_t gpa, size, file_offset;
	int fd;
};

/* All of it appears at base + guest-physical address here, so adjacent regions are one piece for us as for a guest. */
struct vhost_memory {
	uint8_t *base;
	uint64_t span;
	struct vhost_region regions[VHOST_REGIONS_MAX];
	unsigned n;
	unsigned at;   /* region that the next allocation comes from */
	uint64_t used; /* bytes of it */
};

/* Regions 0 and 1, 2 and 3 ... touch each other; before every other one there is a gap. */
int vhost_memory_init(struct vhost_memory *m, unsigned n_regions, uint64_t size);
void vhost_memory_fini(struct vhost_memory *m);

/* Guest-physical address of zeroed memory; 0 when there is no room (no allocation lies at address 0). */
uint64_t vhost_memory_take(struct vhost_memory *m, uint64_t len, uint64_t align);

static inline void *vhost_memory_at(const struct vhost_memory *m, uint64_t gpa)
{
	return m->base + gpa;
}
