/*
 * test_vhost_memory.c: a guest's memory as real memory of another process: how much of it one client may have mapped.
 */
#include "frontends/vhost-user/vhost_memory.h"
#include "tests/unit/uring_world.h"

#include <errno.h>

static int region_add(struct world *w, struct vhost_memory *m, int fd, uint64_t at, uint64_t len_bytes)
{
	return memory_add(m, w->reactor, fd, &(struct vhost_region){.guest = at, .user = at, .len_bytes = len_bytes});
}

/* ThreadSanitizer leaves a process 1.5 TiB of addresses: the share of one client does not fit there. */
#ifdef __SANITIZE_THREAD__
#define SHARE_FITS 0
#else
#define SHARE_FITS 1
#endif

/* A file of no content and any size costs its owner nothing; addresses are ours. */
static void one_client_has_its_share_of_addresses(void)
{
	struct vhost_memory *m = calloc(1, sizeof *m);
	struct world w;
	int fd = memfd_create("test", MFD_CLOEXEC);

	CU_ASSERT_FATAL(m != NULL && fd >= 0);
	CU_ASSERT_EQUAL_FATAL(ftruncate(fd, (off_t)(64 * TIB)), 0);
	world_open(&w);
	CU_ASSERT_EQUAL(region_add(&w, m, fd, 0, VHOST_MEMORY_BYTES_MAX + 4096), -E2BIG);
	CU_ASSERT_EQUAL(region_add(&w, m, fd, 0, UINT64_MAX), -E2BIG);
	if (SHARE_FITS) {
		CU_ASSERT_EQUAL(region_add(&w, m, fd, 0, VHOST_MEMORY_BYTES_MAX / 2), 0);
		CU_ASSERT_EQUAL(region_add(&w, m, fd, 8 * TIB, VHOST_MEMORY_BYTES_MAX / 2 + 4096), -E2BIG);
		CU_ASSERT_EQUAL(region_add(&w, m, fd, 8 * TIB, VHOST_MEMORY_BYTES_MAX / 2), 0);
		CU_ASSERT_EQUAL(region_add(&w, m, fd, 16 * TIB, 4096), -E2BIG);
		memory_clear(m);
	}
	CU_ASSERT_EQUAL(region_add(&w, m, fd, 16 * TIB, 4096), 0);
	memory_clear(m);
	world_close(&w);
	close(fd);
	free(m);
}

int main(void)
{
	static const struct world_test tests[] = {
	    {"one client has its share of addresses", one_client_has_its_share_of_addresses},
	};

	return world_tests_run(tests, array_size(tests));
}
