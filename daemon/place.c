/*
 * place.c: node.lock in the folder of a node: one daemon at a time, one name for ever, and the identity of that place.
 *
 * The identity is made of what no other running daemon can have together with the lock: this boot of this machine, and
 * the file that is locked. A daemon that finds its own identity in the cluster's store so knows that whoever wrote it
 * is dead. A copied folder is another file, and so another place.
 *
 * The file holds the node's name. Under another name the node would find none of its disks, which the store knows by
 * it.
 */
#include "daemon/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int printf_like(3, 4) place_refuse(char why[static PLACE_WHY_BYTES], int res, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(why, PLACE_WHY_BYTES, format, args);
	va_end(args);
	return res;
}

/* Another at each start of the machine; "" where the kernel does not tell. */
static void boot_read(char *text, size_t room)
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, room - 1) : 0;
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

/* The name that the file holds is this one; or it holds none, and gets this. */
static int place_claim(struct place *p, const char *folder, const char *node, char why[static PLACE_WHY_BYTES])
{
	char name[80] = "";
	ssize_t n = pread(p->fd, name, sizeof(name) - 1, 0);
	int len = snprintf(NULL, 0, "%s\n", node);
	name[n > 0 ? strcspn(name, "\n") : 0] = '\0';
	if (n < 0)
		return place_refuse(why, -errno, "node.data_dir: %s/node.lock: %s", folder, strerror(errno));
	if (name[0] && strcmp(name, node) != 0)
		return place_refuse(
		    why, -EINVAL,
		    "node.name: %s is the folder of node \"%s\": write node.name = \"%s\" again, or give node \"%s\" "
		    "a data_dir of its own",
		    folder, name, name, node);
	if (!name[0] && dprintf(p->fd, "%s\n", node) != len)
		return place_refuse(why, -EIO, "node.data_dir: %s/node.lock cannot be written", folder);
	return 0;
}

int place_take(struct place *p, const char *folder, const char *node, char why[static PLACE_WHY_BYTES])
{
	char path[300], boot[40], host[65] = "?";
	struct stat st;
	int len = snprintf(path, sizeof(path), "%s/node.lock", folder);
	p->fd = -1;
	quarry_assert(len > 0 && len < (int)sizeof(path));
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || fstat(fd, &st) < 0) {
		int res = -errno;
		if (fd >= 0)
			close(fd);
		return place_refuse(why, res, "node.data_dir: %s: %s", path, strerror(-res));
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int res = errno == EWOULDBLOCK ? -EBUSY : -errno;
		close(fd);
		return place_refuse(why, res, "node.data_dir: %s is %s: give each quarryd its own", folder,
				    res == -EBUSY ? "in use by another quarryd" : strerror(-res));
	}
	p->fd = fd;
	int res = place_claim(p, folder, node, why);
	if (res < 0) {
		place_leave(p);
		return res;
	}
	boot_read(boot, sizeof(boot));
	gethostname(host, sizeof(host) - 1);
	/* The end is what tells places apart: it must not be what is cut. */
	snprintf(p->identity, sizeof(p->identity), "%.30s:%.40s (%.36s %llx.%llx)", host, folder, boot,
		 (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	return 0;
}

void place_leave(struct place *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}
