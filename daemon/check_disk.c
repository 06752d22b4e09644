/*
 * check_disk.c: verifies a disk offline: opens the file or device, asks disk_check.c, says what it says.
 *
 * It locks the disk as a reader for as long as it looks: a daemon that has it open holds a writer's lock, and what it
 * writes meanwhile would look like damage.
 */
#include "daemon/check_disk.h"

#include "volumes/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int read_block(void *context, uint64_t block, void *out)
{
	int fd = *(int *)context;
	size_t done = 0;
	while (done < BLOCK_BYTES) {
		ssize_t n = pread(fd, (char *)out + done, BLOCK_BYTES - done, (off_t)(block * BLOCK_BYTES + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

static void say(void *context, const char *line)
{
	printf("%s\n", line);
}

/* 0 or -errno; -EAGAIN: somebody else writes to it. */
static int lock_to_read(int fd)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
	struct timespec step = {.tv_nsec = DISK_LOCK_RETRY_NS};

	for (uint64_t waited_ns = 0; fcntl(fd, F_OFD_SETLK, &lock) < 0; waited_ns += DISK_LOCK_RETRY_NS) {
		if (errno != EAGAIN && errno != EACCES)
			return -errno;
		if (waited_ns >= DISK_LOCK_PATIENCE_NS)
			return -EAGAIN;
		nanosleep(&step, NULL);
	}
	return 0;
}

/* 0 with the descriptor, or the exit status after saying why. */
static int open_locked(const char *path, int *out)
{
	int res, fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "quarryd: %s: %s\n", path, strerror(errno));
		return CHECK_DISK_NOT_OPENED;
	}
	res = lock_to_read(fd);
	if (res == -EAGAIN)
		fprintf(stderr,
			"quarryd: %s: in use by a running quarryd; stop it first, or scrub the disk while it runs\n",
			path);
	else if (res < 0)
		fprintf(stderr, "quarryd: %s: cannot be locked: %s\n", path, strerror(-res));
	if (res < 0) {
		close(fd);
		return res == -EAGAIN ? CHECK_DISK_IN_USE : CHECK_DISK_NOT_OPENED;
	}
	*out = fd;
	return 0;
}

static int conclude(const char *path, const struct disk_check *c, int res)
{
	if (res != 0 && res != -EUCLEAN) {
		fprintf(stderr, "quarryd: %s: %s\n", path,
			res == -ENODEV    ? "not a quarry disk"
			: res == -ENOTSUP ? "a disk of a newer quarry: use a newer quarryd"
					  : strerror(-res));
		return 1;
	}
	printf(
	    "%s: %s: %llu errors, %llu warnings; %llu trees, %llu pages, %llu data blocks; %s, %llu journal blocks to "
	    "replay\n",
	    path, res == 0 ? "sound" : "DAMAGED", (unsigned long long)c->errors, (unsigned long long)c->warnings,
	    (unsigned long long)c->trees, (unsigned long long)c->pages, (unsigned long long)c->data_blocks,
	    c->is_clean ? "closed cleanly" : "not closed cleanly", (unsigned long long)c->journal_blocks_to_replay);
	return res == 0 ? 0 : 1;
}

int check_disk(const char *path, bool is_verbose)
{
	int fd, status = open_locked(path, &fd);
	if (status != 0)
		return status;
	off_t end = lseek(fd, 0, SEEK_END);
	struct disk_check c = {
	    .read = read_block,
	    .say = say,
	    .context = &fd,
	    .n_blocks = end > 0 ? (uint64_t)end / BLOCK_BYTES : 0,
	    .is_verbose = is_verbose,
	};
	status = conclude(path, &c, disk_check_run(&c));
	close(fd);
	return status;
}
