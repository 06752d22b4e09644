/*
 * uring_shared.c: what other processes hand over: descriptors, memory, events.
 *
 *   event:    open -> [polled while open] --event_close()--> closing (its poll and its write are asked back) -> freed
 *   mapping:  open --its file shrinks and we touch what is gone (SIGBUS)--> broken: zeros of our own -> closed
 *
 * Memory of another process may vanish under us: whoever holds the file can shrink it, and to demand a sealed one would
 * shut out the memory of ordinary virtual machines. Reading or writing behind its end raises SIGBUS, which would end
 * the daemon and with it everybody else's volumes. So the handler lays anonymous memory over the whole mapping and marks
 * it broken; the access goes on and finds zeros. The kernel's own accesses for I/O answer -EFAULT in the same case.
 *
 * Invariants
 *  1. An event outlives its poll and its write: it is freed when neither is with the kernel.
 *  2. At most one write of an event is under way; signals meanwhile make one more after it.
 *  3. The poll of an event goes on by itself and fires at each signal; so nobody reads the counter until the event is
 *     closed. It is read then, since the next one who listens shall not hear of what was meant for us.
 *  4. Writes go through the ring: one to a pipe that is full, or to a counter at its end, must not hold up the reactor.
 *  5. An event is an eventfd or a pipe; one that we only signal may be a unix stream, as User Mode Linux has them.
 *     Anything else might wait where these do not: the kernel asks a FUSE server when its file is polled, and a write
 *     to a file that does not come back would keep us from ever ending.
 *  6. The SIGBUS handler looks at its own thread's mappings only; a mapping is in the list while it is mapped.
 *
 * Owner: the reactor.
 */
#include "daemon/core/uring_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- descriptors ---- */

void uring_fds_prepare(struct op *op, struct msghdr *header, struct fds_control *control)
{
	struct cmsghdr *rights = (struct cmsghdr *)control->bytes;

	memset(control, 0, sizeof *control);
	header->msg_control = control->bytes;
	header->msg_controllen = sizeof control->bytes;
	if (op->kind == OP_RECV_FDS)
		return;
	if (op->fds->n == 0) {
		header->msg_control = NULL;
		header->msg_controllen = 0;
		return;
	}
	header->msg_controllen = CMSG_SPACE(op->fds->n * sizeof(int));
	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(op->fds->n * sizeof(int));
	memcpy(CMSG_DATA(rights), op->fds->fd, op->fds->n * sizeof(int));
}

void uring_fds_take(struct op *op, struct msghdr *header)
{
	int beyond[FDS_SENT_MAX];
	uint32_t n_beyond = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (op->fds->n < FDS_MAX)
				op->fds->fd[op->fds->n++] = fd;
			else
				beyond[n_beyond++] = fd;
			quarry_assert(n_beyond <= FDS_SENT_MAX);
		}
	}
	if (n_beyond > 0)
		uring_fds_close(op->stream->reactor, beyond, n_beyond);
}

/* ---- memory ---- */

/* Files of tmpfs and hugetlbfs have seals, if only the one that forbids others; no other has, nor is it asked. */
bool uring_fd_is_memory(struct reactor *r, int fd)
{
	return fcntl(fd, F_GET_SEALS) >= 0;
}

struct uring_mapping {
	struct mapping base;
	uint8_t *begin; /* of what is mapped: begins and ends at pages */
	size_t mapped_bytes;
	struct uring_mapping *next;
};

/* Of this thread's reactor, for the handler, which gets nothing else to start from. */
static _Thread_local struct uring_mapping *volatile mappings;

static void memory_is_gone(int signal, siginfo_t *info, void *context)
{
	uint8_t *at = info->si_addr;

	for (struct uring_mapping *m = mappings; m != NULL; m = m->next) {
		if (at < m->begin || at >= m->begin + m->mapped_bytes)
			continue;
		if (mmap(m->begin, m->mapped_bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
			break;
		m->base.is_broken = true;
		return;
	}
	struct sigaction ordinary = {.sa_handler = SIG_DFL};
	sigaction(SIGBUS, &ordinary, NULL); /* not ours: it happens again, and ends the process */
}

static void guard_install(void)
{
	struct sigaction before, action = {.sa_sigaction = memory_is_gone, .sa_flags = SA_SIGINFO};

	sigemptyset(&action.sa_mask);
	if (sigaction(SIGBUS, NULL, &before) == 0 && before.sa_sigaction != memory_is_gone)
		sigaction(SIGBUS, &action, NULL);
}

/* Maps [pos_bytes, pos_bytes + len_bytes), widened to pages of the file's own size (huge ones perhaps). */
static int file_map(struct reactor *r, int fd, uint64_t pos_bytes, uint64_t len_bytes, struct mapping **out)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || len_bytes == 0 || pos_bytes > (uint64_t)st.st_size ||
	    len_bytes > (uint64_t)st.st_size - pos_bytes)
		return -EINVAL;
	uint64_t page = max_u64((uint64_t)st.st_blksize, (uint64_t)sysconf(_SC_PAGESIZE));
	uint64_t first = pos_bytes - pos_bytes % page, end = pos_bytes + len_bytes;
	if (end > INT64_MAX - page)
		return -EINVAL;
	end = (end + page - 1) / page * page;
	struct uring_mapping *m = calloc(1, sizeof *m);
	if (m == NULL)
		return -ENOMEM;
	void *begin = mmap(NULL, end - first, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)first);
	if (begin == MAP_FAILED) {
		int res = -errno;
		free(m);
		return res;
	}
	madvise(begin, end - first, MADV_DONTDUMP); /* a core dump is for our memory, not for that of guests */
	m->begin = begin;
	m->mapped_bytes = end - first;
	m->base = (struct mapping){.reactor = r, .data = m->begin + (pos_bytes - first), .len_bytes = len_bytes};
	m->next = mappings;
	mappings = m;
	guard_install();
	*out = &m->base;
	return 0;
}

int uring_map(struct reactor *r, int fd, uint64_t pos_bytes, uint64_t len_bytes, struct mapping **out)
{
	return file_map(r, fd, pos_bytes, len_bytes, out);
}

int uring_share(struct reactor *r, uint64_t len_bytes, int *fd, struct mapping **out)
{
	quarry_assert(len_bytes > 0 && len_bytes <= INT32_MAX);
	*fd = memfd_create("quarry", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0)
		return -errno;
	int res = ftruncate(*fd, (off_t)len_bytes) < 0 ? -errno : file_map(r, *fd, 0, len_bytes, out);
	if (res < 0)
		close(*fd);
	return res;
}

void uring_mapping_close(struct mapping *base)
{
	struct uring_mapping *m = container_of(base, struct uring_mapping, base);

	if (mappings == m) {
		mappings = m->next;
	} else {
		struct uring_mapping *before = mappings;
		while (before->next != m)
			before = before->next;
		before->next = m->next;
	}
	munmap(m->begin, m->mapped_bytes);
	free(m);
}

/* ---- events ---- */

struct uring_event {
	struct event base;
	int fd;
	bool is_polled, is_writing; /* with the kernel */
	bool is_signalled;          /* once more, when the write is over */
	bool is_closing;
	struct turn_hook hook;
};

static const uint64_t event_one = 1;

static struct uring_event *event_of(struct event *e)
{
	return container_of(e, struct uring_event, base);
}

static void event_submitted(struct uring *u, struct io_uring_sqe *sqe, const struct uring_event *e, unsigned what)
{
	io_uring_sqe_set_data64(sqe, (uintptr_t)e | what);
	u->n_in_flight++;
}

static void event_poll(struct uring_event *e)
{
	struct uring *u = uring_of(e->base.reactor);
	struct io_uring_sqe *sqe = uring_sqe(u);

	quarry_assert(!e->is_polled);
	io_uring_prep_poll_multishot(sqe, e->fd, POLLIN);
	event_submitted(u, sqe, e, EVENT_POLLED);
	e->is_polled = true;
}

static void event_write(struct turn_hook *h)
{
	struct uring_event *e = container_of(h, struct uring_event, hook);
	struct uring *u = uring_of(e->base.reactor);

	if (e->is_writing || !e->is_signalled || e->is_closing)
		return;
	struct io_uring_sqe *sqe = uring_sqe(u);
	io_uring_prep_write(sqe, e->fd, &event_one, sizeof event_one, (uint64_t)-1);
	event_submitted(u, sqe, e, EVENT_WRITTEN);
	e->is_writing = true;
	e->is_signalled = false;
}

int uring_event_open(struct reactor *r, int fd, void (*signalled)(void *context), void *context, struct event **out)
{
	bool is_fit = fd_is_event(fd) || (signalled == NULL && fd_is_unix_stream(fd));
	struct uring_event *e = is_fit ? calloc(1, sizeof *e) : NULL;

	if (e == NULL) {
		uring_fds_close(r, &fd, 1);
		return is_fit ? -ENOMEM : -EINVAL;
	}
	e->base = (struct event){.reactor = r, .signalled = signalled, .context = context};
	e->fd = fd;
	turn_hook_init(&e->hook, event_write);
	if (signalled != NULL)
		event_poll(e);
	*out = &e->base;
	return 0;
}

void uring_event_signal(struct event *base)
{
	struct uring_event *e = event_of(base);

	quarry_assert(!e->is_closing);
	e->is_signalled = true;
	if (!e->is_writing)
		reactor_at_turn_end(base->reactor, &e->hook);
}

static void event_free_when_over(struct uring_event *e)
{
	uint64_t n_signals;
	struct iovec iov = {&n_signals, sizeof n_signals};

	if (!e->is_closing || e->is_polled || e->is_writing)
		return;
	/* Invariant 3. Fails where there is nothing to read. */
	ssize_t n = e->base.signalled != NULL ? preadv2(e->fd, &iov, 1, -1, RWF_NOWAIT) : 0;
	quarry_assert(n <= (ssize_t)sizeof n_signals);
	uring_of(e->base.reactor)->n_closing--;
	list_remove(&e->hook.link);
	uring_fds_close(e->base.reactor, &e->fd, 1);
	free(e);
}

static void event_ask_back(struct uring_event *e, unsigned what)
{
	struct io_uring_sqe *sqe = uring_sqe(uring_of(e->base.reactor));

	io_uring_prep_cancel64(sqe, (uintptr_t)e | what, 0);
	io_uring_sqe_set_data64(sqe, TAG_CANCEL);
}

void uring_event_close(struct event *base)
{
	struct uring_event *e = event_of(base);

	quarry_assert(!e->is_closing);
	e->is_closing = true;
	uring_of(base->reactor)->n_closing++;
	if (e->is_polled)
		event_ask_back(e, EVENT_POLLED);
	if (e->is_writing)
		event_ask_back(e, EVENT_WRITTEN);
	event_free_when_over(e);
}

void uring_event_completed(struct uring *u, const struct io_uring_cqe *cqe)
{
	struct uring_event *e = (struct uring_event *)(uintptr_t)(cqe->user_data & ~(uint64_t)EVENT_MASK);
	bool is_over = !(cqe->flags & IORING_CQE_F_MORE);

	if (is_over) {
		quarry_assert(u->n_in_flight > 0);
		u->n_in_flight--;
	}
	if ((cqe->user_data & EVENT_MASK) == EVENT_WRITTEN) {
		e->is_writing = false;
		if (e->is_signalled && !e->is_closing)
			reactor_at_turn_end(e->base.reactor, &e->hook);
	} else {
		e->is_polled = !is_over;
		if (is_over && !e->is_closing && cqe->res > 0)
			event_poll(e); /* the kernel was short of room for completions */
		if (cqe->res > 0 && !e->is_closing) {
			e->base.signalled(e->base.context); /* may close it */
			return;
		}
	}
	event_free_when_over(e);
}
