/*
 * uring_closing.c: what other processes have handed over is closed where nobody waits for it.
 *
 *   descriptor --of a kind that closes at once--> closed
 *              --any other---------------------> held --a thread of its own has closed it--> gone
 *
 * close() may take as long as somebody else likes: a file of FUSE or of a network asks its server first, a TCP socket
 * that lingers waits until its peer has read, and a unix socket closes what lies unread in it. Whoever may send us
 * descriptors could stop every volume with one of these. They are not given to io_uring either: its workers are few,
 * flushes of disks need them, and a ring does not end before they have come back.
 *
 * A process in whose name a FUSE server is asked does not end before that has answered, nor do its descriptors if it is
 * killed, locks of disks among them. A server that is ended, or its connection aborted, frees it. What ends in order has
 * closed its disks and sockets before.
 *
 * Invariants
 *  1. What a descriptor is, is asked so that nobody else is asked: its seals, its name, its socket. Neither fstat() nor
 *     poll(): both ask a FUSE server.
 *  2. A thread touches its own struct and the common one, which goes with its last user; the reactor may be gone.
 *
 * Owner: the reactor; a thread its struct closing.
 */
#include "daemon/core/uring_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define NAME_BYTES  64u         /* of what a descriptor leads to: longer ones are none that we know */
#define STACK_BYTES (64 * 1024) /* a thread calls close() and nothing else */

struct closers {
	_Atomic uint32_t n_users; /* the reactor and the threads */
	_Atomic uint32_t n_held;  /* descriptors */
};

/* A thread's descriptors. */
struct closing {
	struct closers *closers;
	uint32_t n;
	int fds[FDS_SENT_MAX];
};

int closers_create(struct closers **out)
{
	*out = calloc(1, sizeof **out);
	if (*out == NULL)
		return -ENOMEM;
	(*out)->n_users = 1;
	return 0;
}

void closers_put(struct closers *c)
{
	if (atomic_fetch_sub(&c->n_users, 1) == 1)
		free(c);
}

uint32_t uring_fds_held(struct reactor *r)
{
	return uring_of(r)->closers->n_held;
}

/* ---- what closes at once ---- */

/* Of the two kinds an eventfd is told by its name only. What lies in a file system has a path, with a slash. */
bool fd_is_event(int fd)
{
	char path[NAME_BYTES], name[NAME_BYTES] = "";

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, name, sizeof name - 1);
	return n > 0 && (strcmp(name, "anon_inode:[eventfd]") == 0 || strncmp(name, "pipe:[", 6) == 0);
}

bool fd_is_unix_stream(int fd)
{
	int family = 0, type = 0, is_listening = 1;

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &(socklen_t){sizeof family}) == 0 && family == AF_UNIX &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof type}) == 0 && type == SOCK_STREAM &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &(socklen_t){sizeof is_listening}) == 0 &&
	       !is_listening;
}

/* Nothing more comes into it, and nothing lies in it that would be closed with it. how: of shutdown(). */
static bool socket_is_empty(int fd, int how)
{
	int n_unread = 0;

	shutdown(fd, how);
	return ioctl(fd, SIOCINQ, &n_unread) == 0 && n_unread == 0;
}

/* One end of a socket may be known under several numbers: the others can still be written to. */
static bool fd_closes_at_once(struct reactor *r, int fd)
{
	return uring_fd_is_memory(r, fd) || fd_is_event(fd) || (fd_is_unix_stream(fd) && socket_is_empty(fd, SHUT_RD));
}

/* ---- what may not ---- */

static void *closing_run(void *context)
{
	struct closing *c = context;

	for (uint32_t i = 0; i < c->n; i++) {
		close(c->fds[i]);
		c->closers->n_held--;
	}
	closers_put(c->closers);
	free(c);
	return NULL;
}

/* With all signals blocked: they are for the threads of the program. */
static int closing_start(struct closing *c)
{
	pthread_t thread;
	pthread_attr_t attributes;
	sigset_t all, before;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int res = -pthread_create(&thread, &attributes, closing_run, c);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return res;
}

/* Without memory or a thread they stay open, and held: better than to wait. */
static void fds_hold(struct uring *u, const int *fds, uint32_t n)
{
	struct closing *c = calloc(1, sizeof *c);

	quarry_assert(n > 0 && n <= FDS_SENT_MAX);
	u->closers->n_held += n;
	if (c == NULL)
		return;
	*c = (struct closing){.closers = u->closers, .n = n};
	memcpy(c->fds, fds, n * sizeof *fds);
	u->closers->n_users++;
	if (closing_start(c) < 0) {
		closers_put(u->closers);
		free(c);
	}
}

/* ---- entry points ---- */

void uring_fds_close(struct reactor *r, const int *fds, uint32_t n)
{
	int held[FDS_SENT_MAX];
	uint32_t n_held = 0;

	quarry_assert(n <= FDS_SENT_MAX);
	for (uint32_t i = 0; i < n; i++)
		if (fd_closes_at_once(r, fds[i]))
			close(fds[i]);
		else
			held[n_held++] = fds[i];
	if (n_held > 0)
		fds_hold(uring_of(r), held, n_held);
}

void uring_socket_close(struct reactor *r, int fd)
{
	if (socket_is_empty(fd, SHUT_RDWR))
		close(fd);
	else
		fds_hold(uring_of(r), &fd, 1);
}
