/*
 * vhost_memory.c: guest memory of several regions.
 *
 * Invariants
 *  1. A region's offset in its file and its guest address differ from each other and from its address here, so that a
 *     device that takes one for another is found.
 *  2. An allocation may cross from a region into the one that touches it; it never covers a gap.
 */
#include "tests/vhost/vhost_memory.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE        4096ull
#define FIRST_GPA   PAGE /* an address of 0 means "none" */
#define GAP         (1ull << 30)
#define FILE_OFFSET (3 * PAGE)

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static int region_map(struct vhost_memory *m, struct vhost_region *r)
{
	r->fd = memfd_create("guest-memory", MFD_CLOEXEC);
	if (r->fd < 0 || ftruncate(r->fd, (off_t)(r->file_offset + r->size)) < 0)
		return -errno;
	if (mmap(m->base + r->gpa, r->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, r->fd,
		 (off_t)r->file_offset) == MAP_FAILED)
		return -errno;
	return 0;
}

int vhost_memory_init(struct vhost_memory *m, unsigned n_regions, uint64_t size)
{
	uint64_t each = round_up(size / n_regions + PAGE, PAGE), gpa = FIRST_GPA;
	int res;

	*m = (struct vhost_memory){.n = n_regions};
	for (unsigned i = 0; i < n_regions; i++) {
		gpa += i != 0 && i % 2 == 0 ? GAP : 0;
		m->regions[i] =
		    (struct vhost_region){.gpa = gpa, .size = each, .file_offset = FILE_OFFSET * (i + 1), .fd = -1};
		gpa += each;
	}
	m->span = gpa;
	m->base = mmap(NULL, m->span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->base == MAP_FAILED)
		return -errno;
	for (unsigned i = 0; i < n_regions; i++) {
		res = region_map(m, &m->regions[i]);
		if (res < 0)
			return res;
	}
	return 0;
}

void vhost_memory_fini(struct vhost_memory *m)
{
	for (unsigned i = 0; i < m->n; i++) {
		if (m->regions[i].fd >= 0)
			close(m->regions[i].fd);
	}
	if (m->base && m->base != MAP_FAILED)
		munmap(m->base, m->span);
	*m = (struct vhost_memory){0};
}

/* Bytes from `used` of region `at` to the next gap (invariant 2). */
static uint64_t room(const struct vhost_memory *m)
{
	uint64_t n = m->regions[m->at].size - m->used;

	if (m->at + 1 < m->n && m->regions[m->at].gpa + m->regions[m->at].size == m->regions[m->at + 1].gpa)
		n += m->regions[m->at + 1].size;
	return n;
}

uint64_t vhost_memory_take(struct vhost_memory *m, uint64_t len, uint64_t align)
{
	while (m->at < m->n) {
		uint64_t start = round_up(m->regions[m->at].gpa + m->used, align);

		if (start + len <= m->regions[m->at].gpa + m->used + room(m)) {
			m->used = start + len - m->regions[m->at].gpa;
			if (m->used > m->regions[m->at].size) { /* it has reached into the next one */
				m->used -= m->regions[m->at].size;
				m->at++;
			}
			return start;
		}
		m->at++;
		m->used = 0;
	}
	return 0;
}
