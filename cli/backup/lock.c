/*
 * lock.c: the file `lock`: who writes in a repository.
 *
 *   {"token":…,"host":…,"boot":…,"pid":…,"start":…,"at":…}
 *
 * 1. The file appears with its contents: it is written under another name and linked; where there are no links, it is
 *    made with O_EXCL. One that is still empty belongs to somebody who is just starting.
 * 2. A lock is stale when its process is known to be gone (same machine, same boot, same set of process numbers), when
 *    the machine has been booted since, or when, from elsewhere, nothing was heard for half an hour; clocks may differ
 *    by minutes, not by more.
 * 3. Taking over is a rename of the stale file to a name of one's own: only one can do it. Whoever took away a lock that
 *    is not the stale one puts it back.
 * 4. A writer that lost its lock nevertheless (it was suspended for an hour) finds another token before it records or
 *    deletes anything, and ends. Packs that it has written by then are whole and harm nobody.
 */
#include "cli/backup/lock.h"

#include "cli/backup/files.h"
#include "cli/text.h"
#include "cli/values.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK_FILE      "lock"
#define LOCK_BYTES_MAX 4096u
#define ALIVE_EVERY_S  60u
#define STALE_S        1800u
#define EMPTY_STALE_S  60u
#define TEXT_BYTES     128u
#define TRIES_MAX      5

static uint64_t now_s(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec;
}

/* ---- who one is ---- */

/* The first line of a small file of /proc; "" when there is none. */
static void proc_line(const char *path, char out[static TEXT_BYTES])
{
	FILE *file = fopen(path, "re");
	out[0] = '\0';
	if (!file)
		return;
	if (!fgets(out, TEXT_BYTES, file))
		out[0] = '\0';
	fclose(file);
	out[strcspn(out, "\n")] = '\0';
}

/* This boot and this set of process numbers: only in the same one says a number which process it is. */
static void boot_text(char out[static TEXT_BYTES])
{
	char boot[TEXT_BYTES], space[64];
	proc_line("/proc/sys/kernel/random/boot_id", boot);
	ssize_t n = readlink("/proc/self/ns/pid", space, sizeof(space) - 1);
	space[n > 0 ? n : 0] = '\0';
	snprintf(out, TEXT_BYTES, "%.60s %.60s", boot, space);
}

/* When a process began, in the kernel's ticks; 0: there is none, or one that has ended and was not waited for. A number
 * may be used again, the pair not. */
static uint64_t process_start(uint64_t pid)
{
	auto_free char *path = text_format("/proc/%llu/stat", (unsigned long long)pid);
	char line[1024];
	unsigned long long start = 0;
	char state = '\0';
	FILE *file = fopen(path, "re");
	if (!file)
		return 0;
	const char *behind = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
	fclose(file);
	/* the 22nd value; the second, the name in brackets, may hold anything */
	if (!behind ||
	    sscanf(behind + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
		   &state, &start) != 2 ||
	    state == 'Z' || state == 'X')
		return 0;
	return start;
}

static char *lock_text(const struct lock *lock)
{
	char host[TEXT_BYTES] = "", boot[TEXT_BYTES];
	(void)gethostname(host, sizeof(host) - 1);
	boot_text(boot);
	json_auto_t *value =
	    json_pack("{sssssssIsIsI}", "token", lock->token, "host", host, "boot", boot, "pid", (json_int_t)getpid(),
		      "start", (json_int_t)process_start((uint64_t)getpid()), "at", (json_int_t)lock->at_s);
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
	if (!text)
		abort();
	return text;
}

/* ---- the file ---- */

/* NULL: nobody's, or unreadable. */
static json_t *lock_read(int dir_fd)
{
	uint8_t *data = NULL;
	size_t n_bytes = 0;
	if (file_read(dir_fd, LOCK_FILE, LOCK_BYTES_MAX, &data, &n_bytes) < 0)
		return NULL;
	json_t *value = json_loadb((char *)data, n_bytes, 0, NULL);
	free(data);
	return value;
}

/* 0, -EEXIST: there is one, -ENOENT: a prune that tidies up has taken our file for one that was left, or another -errno. */
static int lock_make(struct lock *lock)
{
	auto_free char *text = lock_text(lock);
	auto_free char *temporary = text_format(TEMPORARY_PREFIX "%s", lock->token);
	int error = file_write(lock->dir_fd, temporary, text, strlen(text));
	if (error)
		return error;
	error = linkat(lock->dir_fd, temporary, lock->dir_fd, LOCK_FILE, 0) < 0 ? -errno : 0;
	(void)unlinkat(lock->dir_fd, temporary, 0);
	if (error == 0 || error == -EEXIST || error == -ENOENT)
		return error;
	int fd = openat(lock->dir_fd, LOCK_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	return file_write(lock->dir_fd, LOCK_FILE, text, strlen(text));
}

static bool lock_is_stale(int dir_fd, const json_t *other)
{
	char host[TEXT_BYTES] = "", boot[TEXT_BYTES];
	struct stat stat;
	(void)gethostname(host, sizeof(host) - 1);
	boot_text(boot);
	if (!json_is_object(other))
		return fstatat(dir_fd, LOCK_FILE, &stat, 0) == 0 && stat.st_size == 0 &&
		       (uint64_t)stat.st_mtime + EMPTY_STALE_S < now_s();
	if (strcmp(text_at(other, "boot"), boot) == 0) {
		uint64_t start = process_start(number_at(other, "pid"));
		return start == 0 || start != number_at(other, "start");
	}
	size_t n_boot = strcspn(boot, " ");
	bool is_other_boot = strncmp(text_at(other, "boot"), boot, n_boot + 1) != 0;
	if (strcmp(text_at(other, "host"), host) == 0 && is_other_boot)
		return true;
	return number_at(other, "at") + STALE_S < now_s();
}

/* Takes away the lock that was read as `stale`, and no other. */
static void lock_take_away(const struct lock *lock, const json_t *stale)
{
	auto_free char *aside = text_format(TEMPORARY_PREFIX "lock-%s", lock->token);
	uint8_t *data = NULL;
	size_t n_bytes = 0;
	if (renameat(lock->dir_fd, LOCK_FILE, lock->dir_fd, aside) < 0)
		return;
	if (file_read(lock->dir_fd, aside, LOCK_BYTES_MAX, &data, &n_bytes) == 0) {
		json_auto_t *moved = n_bytes ? json_loadb((char *)data, n_bytes, 0, NULL) : NULL;
		free(data);
		if (strcmp(text_at(moved, "token"), text_at(stale, "token")) != 0)
			(void)linkat(lock->dir_fd, aside, lock->dir_fd, LOCK_FILE, 0);
	}
	(void)unlinkat(lock->dir_fd, aside, 0);
}

/* Neither one nor the beginning of one: nobody here ever leaves such a thing, so nobody takes it away. */
static bool lock_is_foreign(int dir_fd, const json_t *other)
{
	struct stat stat;
	return !json_is_object(other) && fstatat(dir_fd, LOCK_FILE, &stat, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (!S_ISREG(stat.st_mode) || stat.st_size > 0);
}

static enum status lock_refuse(struct cli *c, int dir_fd, const char *path, const json_t *other)
{
	auto_free char *host = text_printable(text_at(other, "host"));
	if (lock_is_foreign(dir_fd, other))
		return cli_refuse(
		    c, "in-use",
		    "'%s/" LOCK_FILE "' does not say who writes in the repository; remove it if nobody does", path);
	if (!json_is_object(other))
		return cli_refuse(c, "in-use", "repository '%s' is in use by somebody who has just begun; try again",
				  path);
	return cli_refuse(
	    c, "in-use",
	    "repository '%s' is in use by process %llu on '%.64s'; wait for its end, or remove '%s/" LOCK_FILE
	    "' if it has ended for sure",
	    path, (unsigned long long)number_at(other, "pid"), host, path);
}

enum status lock_take(struct cli *c, struct lock *lock, int dir_fd, const char *path)
{
	uint8_t random[16];
	*lock = (struct lock){.dir_fd = dir_fd, .at_s = now_s()};
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return cli_refuse(c, "local", "cannot get random bytes: %s", strerror(errno));
	hex_write(lock->token, random, sizeof(random));
	for (int i = 0; i < TRIES_MAX; i++) {
		int error = lock_make(lock);
		lock->is_held = error == 0;
		if (lock->is_held)
			return DONE;
		if (error == -ENOENT && i + 1 < TRIES_MAX)
			continue;
		if (error != -EEXIST)
			return cli_refuse(c, error == -ENOSPC ? "no-space" : "local",
					  "cannot write in repository '%s': %s", path, strerror(-error));
		json_auto_t *other = lock_read(dir_fd);
		if (!lock_is_stale(dir_fd, other))
			return lock_refuse(c, dir_fd, path, other);
		lock_take_away(lock, other);
	}
	return cli_refuse(c, "in-use", "repository '%s' is in use; try again", path);
}

enum status lock_check(struct cli *c, struct lock *lock, const char *path)
{
	json_auto_t *now = lock_read(lock->dir_fd);
	quarry_assert(lock->is_held);
	if (strcmp(text_at(now, "token"), lock->token) != 0) {
		lock->is_held = false;
		return cli_refuse(c, "in-use",
				  "the lock of repository '%s' was taken by somebody else; nothing was recorded", path);
	}
	if (now_s() - lock->at_s < ALIVE_EVERY_S)
		return DONE;
	lock->at_s = now_s();
	auto_free char *text = lock_text(lock);
	int error = file_write(lock->dir_fd, LOCK_FILE, text, strlen(text));
	if (error)
		return cli_refuse(c, "local", "cannot write in repository '%s': %s", path, strerror(-error));
	return DONE;
}

bool lock_is_taken(int dir_fd)
{
	struct stat stat;
	json_auto_t *other = lock_read(dir_fd);
	return fstatat(dir_fd, LOCK_FILE, &stat, AT_SYMLINK_NOFOLLOW) == 0 && !lock_is_stale(dir_fd, other);
}

void lock_release(struct lock *lock)
{
	if (!lock->is_held)
		return;
	json_auto_t *now = lock_read(lock->dir_fd);
	if (strcmp(text_at(now, "token"), lock->token) == 0)
		(void)unlinkat(lock->dir_fd, LOCK_FILE, 0);
	lock->is_held = false;
}
