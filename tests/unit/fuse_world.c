/*
 * fuse_world.c: see fuse_world.h.
 *
 *   test:   fork ------------------------------------------------------> the descriptor comes by a socket, then a byte
 *   server:   namespace, mount --fork--> opener: open(), send it, close(), send a byte
 *                                 +----> server: answers all, up to the opener's FLUSH; then nothing
 */
#include "tests/unit/fuse_world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_NODE  2u
#define FILE_BYTES (1u << 20)
#define LIMIT_S    60 /* a test that is lost does not leave it behind */

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

/* -1 in place of a descriptor: there is none. */
static void fd_send(int socket, int fd)
{
	char byte = fd >= 0;
	union control control = {.bytes = {0}};
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof control;
		control.header = (struct cmsghdr){
		    .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
		memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
	}
	if (sendmsg(socket, &m, MSG_NOSIGNAL) != 1)
		_exit(1);
}

static int fd_receive(int socket)
{
	char byte = 0;
	int fd = -1;
	union control control;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};

	if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC) == 1 && byte == 1 && CMSG_FIRSTHDR(&m) != NULL)
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

/* ---- the server ---- */

static void answer(int device, uint64_t unique, const void *data, size_t len_bytes)
{
	char out[sizeof(struct fuse_out_header) + 256];
	struct fuse_out_header h = {.len = (uint32_t)(sizeof h + len_bytes), .unique = unique};

	memcpy(out, &h, sizeof h);
	if (len_bytes > 0)
		memcpy(out + sizeof h, data, len_bytes);
	if (write(device, out, h.len) < 0)
		_exit(1);
}

static struct fuse_attr attr_of(uint64_t node)
{
	return (struct fuse_attr){.ino = node,
				  .size = node == FILE_NODE ? FILE_BYTES : 0,
				  .mode = node == FILE_NODE ? S_IFREG | 0666 : S_IFDIR | 0777,
				  .nlink = 1,
				  .blksize = 4096};
}

static void serve_one(int device, const struct fuse_in_header *h)
{
	struct fuse_init_out init = {
	    .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_write = 4096};
	struct fuse_entry_out entry = {.nodeid = FILE_NODE, .attr = attr_of(FILE_NODE)};
	struct fuse_attr_out attr = {.attr = attr_of(h->nodeid)};
	struct fuse_open_out opened = {.fh = 1};

	switch (h->opcode) {
	case FUSE_INIT:
		answer(device, h->unique, &init, sizeof init);
		break;
	case FUSE_LOOKUP:
		answer(device, h->unique, &entry, sizeof entry);
		break;
	case FUSE_GETATTR:
		answer(device, h->unique, &attr, sizeof attr);
		break;
	case FUSE_OPEN:
		answer(device, h->unique, &opened, sizeof opened);
		break;
	case FUSE_FORGET:
		break;
	default: /* FLUSH of the opener, ACCESS and the like */
		answer(device, h->unique, NULL, 0);
	}
}

/* Up to the opener's close(); then whoever asks waits. */
static void serve(int device)
{
	static union {
		struct fuse_in_header h;
		char bytes[FUSE_MIN_READ_BUFFER];
	} in;
	bool is_over = false;

	for (;;) {
		ssize_t n = read(device, &in, sizeof in);
		if (n < 0 && errno != EINTR && errno != EAGAIN && errno != ENOENT)
			_exit(1);
		if (n <= 0 || is_over)
			continue;
		serve_one(device, &in.h);
		is_over = in.h.opcode == FUSE_FLUSH;
	}
}

static void opener_run(const char *path, int socket)
{
	struct stat st;
	int fd = stat(path, &st) == 0 ? open(path, O_RDWR | O_CLOEXEC) : -1;

	fd_send(socket, fd);
	if (fd >= 0)
		close(fd);
	fd_send(socket, -1);
	_exit(0);
}

static void server_run(const char *dir, int socket)
{
	char options[96], path[64];
	int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	alarm(LIMIT_S);
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
	bool is_mounted = device >= 0 && unshare(geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
			  mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
			  mount("quarry-test", dir, "fuse", MS_NOSUID | MS_NODEV, options) == 0;
	if (!is_mounted) {
		fd_send(socket, -1);
		_exit(0);
	}
	snprintf(path, sizeof path, "%s/file", dir);
	if (fork() == 0)
		opener_run(path, socket);
	serve(device);
}

int fuse_world_open(struct fuse_world *f, const char **why)
{
	int pair[2], fd = -1;

	*why = "no FUSE file system can be mounted here";
	*f = (struct fuse_world){.dir = "/tmp/quarry-fuse-XXXXXX"};
	if (mkdtemp(f->dir) == NULL)
		return -1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		rmdir(f->dir);
		return -1;
	}
	fflush(NULL);
	f->server = fork();
	if (f->server == 0) {
		close(pair[0]);
		server_run(f->dir, pair[1]);
	}
	close(pair[1]);
	if (f->server > 0)
		fd = fd_receive(pair[0]);
	if (fd >= 0)
		(void)fd_receive(pair[0]); /* the opener has closed it */
	close(pair[0]);
	if (fd < 0)
		fuse_world_close(f);
	return fd;
}

void fuse_world_close(struct fuse_world *f)
{
	if (f->server > 0) {
		kill(f->server, SIGKILL);
		waitpid(f->server, NULL, 0);
	}
	rmdir(f->dir);
}
