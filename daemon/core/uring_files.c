/*
 * uring_files.c: files and block devices of the io_uring reactor: everything about them that is not I/O.
 *
 * These calls block. They are made when disks are added, opened, grown and closed, never on the path of a request.
 *
 * Invariants
 *  1. The lock is on the open file description that carries the I/O. Such a lock goes when the last reference to the
 *     description goes, and a request in the ring holds one: a new opener cannot get the lock while a killed process's
 *     writes may still land.
 *  2. The description is never O_NONBLOCK: io_uring would answer -EAGAIN instead of waiting.
 *
 * Owner: the reactor that opened the file.
 */
#include "daemon/core/uring_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define RESERVE_STEP_BYTES MIB

static struct uring_file *file_of(struct file *f)
{
	return container_of(f, struct uring_file, base);
}

static int open_flags(unsigned flags)
{
	int result = O_CLOEXEC | O_NOCTTY;

	result |= flags & FILE_READ_ONLY ? O_RDONLY : O_RDWR;
	result |= flags & FILE_CREATE ? O_CREAT | O_EXCL : 0;
	result |= flags & FILE_BUFFERED ? 0 : O_DIRECT;
	return result;
}

/* A file system without O_DIRECT says so after it has made the file, which nobody has asked for then. -errno. */
static int open_failed(const char *path, unsigned flags)
{
	int res = -errno;
	struct stat st;

	if (res == -EINVAL && (flags & FILE_CREATE) && lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
		unlink(path);
	return res;
}

/* Looks before it opens: opening a pipe or a terminal would wait, and may do things. For a device that is to be
 * written, O_EXCL refuses (-EBUSY) one that is mounted or part of something else. */
static int path_open(const char *path, unsigned flags, struct stat *st)
{
	int how = open_flags(flags);

	if (!(flags & FILE_CREATE)) {
		if (stat(path, st) < 0)
			return -errno;
		if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
			return -ENOTSUP;
		if (S_ISBLK(st->st_mode) && !(flags & FILE_READ_ONLY))
			how |= O_EXCL;
	}
	int fd = open(path, how, 0600);
	if (fd < 0)
		return open_failed(path, flags);
	if (fstat(fd, st) < 0 || (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))) {
		close(fd);
		return -ENOTSUP; /* replaced in between */
	}
	return fd;
}

int uring_file_open(struct reactor *r, const char *path, unsigned flags, struct file **out)
{
	struct stat st;

	quarry_assert((flags & ~(unsigned)(FILE_READ_ONLY | FILE_CREATE | FILE_BUFFERED)) == 0);
	quarry_assert(!(flags & FILE_CREATE) || !(flags & FILE_READ_ONLY));
	struct uring_file *f = calloc(1, sizeof *f);
	if (f == NULL)
		return -ENOMEM;
	int fd = path_open(path, flags, &st);
	if (fd < 0) {
		free(f);
		return fd;
	}
	f->base.reactor = r;
	f->base.is_device = S_ISBLK(st.st_mode);
	f->fd = fd;
	f->is_read_only = (flags & FILE_READ_ONLY) != 0;
	*out = &f->base;
	return 0;
}

/* Unlocks by name: the kernel may keep a reference a moment longer than the descriptor. */
void uring_file_close(struct file *base)
{
	struct uring_file *f = file_of(base);
	struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	fcntl(f->fd, F_OFD_SETLK, &whole);
	close(f->fd);
	free(f);
}

int uring_file_lock(struct file *base)
{
	struct uring_file *f = file_of(base);
	struct flock whole = {.l_type = f->is_read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(f->fd, F_OFD_SETLK, &whole) == 0)
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

int64_t uring_file_size_bytes(struct file *base)
{
	struct uring_file *f = file_of(base);
	struct stat st;
	uint64_t size_bytes;

	if (base->is_device)
		return ioctl(f->fd, BLKGETSIZE64, &size_bytes) < 0 ? -errno : (int64_t)size_bytes;
	return fstat(f->fd, &st) < 0 ? -errno : (int64_t)st.st_size;
}

int uring_file_set_size(struct file *base, uint64_t size_bytes)
{
	if (base->is_device)
		return -ENOTSUP;
	if (size_bytes > INT64_MAX)
		return -EFBIG;
	return ftruncate(file_of(base)->fd, (off_t)size_bytes) < 0 ? -errno : 0;
}

/* Writes zeros over the range, in steps. Allocating alone would leave extents marked unwritten, whose marks later
 * writes would have to clear one by one. */
static int zeros_write(int fd, const void *zeros, uint64_t pos_bytes, uint64_t len_bytes,
		       _Atomic uint64_t *written_bytes)
{
	while (len_bytes > 0) {
		ssize_t n = pwrite(fd, zeros, min_u64(len_bytes, RESERVE_STEP_BYTES), (off_t)pos_bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		pos_bytes += (uint64_t)n;
		len_bytes -= (uint64_t)n;
		if (written_bytes)
			atomic_fetch_add_explicit(written_bytes, (uint64_t)n, memory_order_relaxed);
	}
	return fdatasync(fd) < 0 ? -errno : 0;
}

int uring_file_reserve(struct file *base, uint64_t pos_bytes, uint64_t len_bytes, _Atomic uint64_t *written_bytes)
{
	struct uring_file *f = file_of(base);

	quarry_assert(pos_bytes <= INT64_MAX && len_bytes <= INT64_MAX - pos_bytes);
	if (len_bytes == 0)
		return 0;
	/* In one piece where the file system can; it also tells now rather than half-way that there is no room. */
	if (!base->is_device && fallocate(f->fd, 0, (off_t)pos_bytes, (off_t)len_bytes) < 0 && errno != EOPNOTSUPP)
		return -errno;
	void *zeros = mmap(NULL, RESERVE_STEP_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (zeros == MAP_FAILED)
		return -ENOMEM;
	int res = zeros_write(f->fd, zeros, pos_bytes, len_bytes, written_bytes);
	munmap(zeros, RESERVE_STEP_BYTES);
	return res;
}

int uring_file_remove(struct file *base, const char *path)
{
	struct stat ours, there;

	if (fstat(file_of(base)->fd, &ours) < 0 || lstat(path, &there) < 0)
		return -errno;
	if (ours.st_dev != there.st_dev || ours.st_ino != there.st_ino)
		return -ENOENT; /* somebody else's by now */
	return unlink(path) < 0 ? -errno : 0;
}
