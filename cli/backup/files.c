/*
 * files.c: whole files.
 *
 * 1. A name of the repository never stands for a part of a file: it is given by rename() after fsync(), and the
 *    directory is made durable after that.
 * 2. A file is never changed under its name.
 * 3. What a crash leaves has a name that begins with "tmp-", which nothing reads.
 */
#include "cli/backup/files.h"

#include "cli/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static int all_write(int fd, const uint8_t *data, size_t n_bytes)
{
	while (n_bytes > 0) {
		ssize_t n = write(fd, data, n_bytes);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		n_bytes -= (size_t)n;
	}
	return 0;
}

/* Some network and user-space file systems have no fsync() for directories; their rename() has to do. */
int dir_sync(int dir_fd)
{
	if (fsync(dir_fd) == 0 || errno == EINVAL || errno == ENOTSUP || errno == ENOSYS || errno == EBADF)
		return 0;
	return -errno;
}

static int temporary_write(int dir_fd, const char *name, const void *data, size_t n_bytes)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int error = all_write(fd, data, n_bytes);
	if (!error && fsync(fd) < 0)
		error = -errno;
	/* NFS may tell only now that the server is full */
	if (close(fd) < 0 && !error)
		error = -errno;
	return error;
}

int file_write(int dir_fd, const char *name, const void *data, size_t n_bytes)
{
	uint8_t random[8];
	char digits[2 * sizeof(random) + 1];
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -errno;
	hex_write(digits, random, sizeof(random));
	auto_free char *temporary = text_format(TEMPORARY_PREFIX "%s", digits);
	int error = temporary_write(dir_fd, temporary, data, n_bytes);
	if (!error && renameat(dir_fd, temporary, dir_fd, name) < 0)
		error = -errno;
	if (error)
		(void)unlinkat(dir_fd, temporary, 0);
	return error ? error : dir_sync(dir_fd);
}

bool file_is_gone(int dir_fd, const char *name)
{
	struct stat stat;
	return fstatat(dir_fd, name, &stat, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

int file_remove(int dir_fd, const char *name)
{
	return unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT ? 0 : -errno;
}

int file_read_at(int fd, void *data, size_t n_bytes, uint64_t pos_bytes)
{
	for (size_t done = 0; done < n_bytes;) {
		ssize_t n = pread(fd, (char *)data + done, n_bytes - done, (off_t)(pos_bytes + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		done += (size_t)n;
	}
	return 0;
}

int file_open(int dir_fd, const char *name)
{
	struct stat stat;
	int error = 0, fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &stat) < 0)
		error = -errno;
	else if (!S_ISREG(stat.st_mode))
		error = -EISDIR;
	if (error)
		close(fd);
	return error ? error : fd;
}

int file_read(int dir_fd, const char *name, size_t max_bytes, uint8_t **data, size_t *n_bytes)
{
	struct stat stat;
	int error = 0, fd = file_open(dir_fd, name);
	*data = NULL;
	if (fd < 0)
		return fd;
	if (fstat(fd, &stat) < 0)
		error = -errno;
	else if ((uint64_t)stat.st_size > max_bytes)
		error = -EFBIG;
	if (!error) {
		*n_bytes = (size_t)stat.st_size;
		*data = malloc(*n_bytes + 1);
		error = *data ? file_read_at(fd, *data, *n_bytes, 0) : -ENOMEM;
	}
	close(fd);
	if (error) {
		free(*data);
		*data = NULL;
	}
	return error;
}

/* ---- names ---- */

static int name_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int names_read(int dir_fd, struct names *names)
{
	*names = (struct names){0};
	size_t room = 0;
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return -errno;
	errno = 0;
	for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (names->n == room) {
			room = room ? room * 2 : 64;
			names->list = reallocarray(names->list, room, sizeof(*names->list));
			if (!names->list)
				abort();
		}
		names->list[names->n++] = text_format("%s", entry->d_name);
		errno = 0;
	}
	int error = -errno;
	closedir(dir);
	if (names->n > 0)
		qsort(names->list, names->n, sizeof(*names->list), name_compare);
	return error;
}

void names_free(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->list[i]);
	free(names->list);
	*names = (struct names){0};
}

/* ---- digits ---- */

static const char digits[] = "0123456789abcdef";

void hex_write(char *out, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		*out++ = digits[bytes[i] >> 4];
		*out++ = digits[bytes[i] & 15];
	}
	*out = '\0';
}

bool hex_read(uint8_t *out, size_t n, const char *text)
{
	if (strlen(text) != 2 * n)
		return false;
	for (size_t i = 0; i < n; i++) {
		const char *high = strchr(digits, text[2 * i]), *low = strchr(digits, text[2 * i + 1]);
		if (!high || !low)
			return false;
		out[i] = (uint8_t)((high - digits) << 4 | (low - digits));
	}
	return true;
}
