/*
 * uring_clock.c: what time it is, numbers by chance, and which run of the machine this is.
 *
 * Owner: the reactor, which has the numbers that were fetched.
 */
#include "daemon/core/uring_internal.h"

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t uring_now_ns(struct reactor *r)
{
	return clock_ns(CLOCK_BOOTTIME);
}

uint64_t uring_wall_ns(struct reactor *r)
{
	return clock_ns(CLOCK_REALTIME);
}

/* The kernel's own numbers, fetched by the dozen: they end up in UUIDs and session numbers. */
uint64_t uring_random(struct reactor *r)
{
	struct uring *u = uring_of(r);

	if (u->n_random == 0) {
		ssize_t n = getrandom(u->random, sizeof u->random, 0);
		quarry_assert(n == (ssize_t)sizeof u->random); /* up to 256 bytes are never cut short */
		u->n_random = RANDOM_NUMBERS;
	}
	return u->random[--u->n_random];
}

/* The kernel makes it anew at each start of the machine. A disk asks for it when it is opened. */
struct uuid uring_boot(struct reactor *r)
{
	char text[UUID_TEXT_BYTES] = "";
	struct uuid boot = {0};
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	if (fd >= 0)
		close(fd);
	if (n != (ssize_t)sizeof(text) - 1 || uuid_from_text(text, &boot) != 0)
		memset(&boot, 0, sizeof(boot));
	return boot;
}
