/*
 * test_uring_shared.c: memory, events and descriptors of other processes under io_uring, above all memory whose file is
 * cut off under the mapping.
 */
#include "tests/unit/uring_world.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define PAGE_BYTES 4096u

static int memory_make(uint64_t len_bytes)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL_FATAL(ftruncate(fd, (off_t)len_bytes), 0);
	return fd;
}

/* ---- memory ---- */

static void a_mapping_is_what_others_see(void)
{
	struct world w;
	struct mapping *m;

	world_open(&w);
	int fd = memory_make(4 * PAGE_BYTES);
	unsigned char byte = 7;
	CU_ASSERT_EQUAL(pwrite(fd, &byte, 1, 5000), 1);
	CU_ASSERT_TRUE(reactor_fd_is_memory(w.reactor, fd));
	CU_ASSERT_EQUAL_FATAL(reactor_map(w.reactor, fd, 5000, 3000, &m), 0); /* neither end on a page */
	CU_ASSERT_EQUAL(m->data[0], 7);
	CU_ASSERT_EQUAL(m->len_bytes, 3000);
	m->data[2999] = 9;
	CU_ASSERT_EQUAL(pread(fd, &byte, 1, 7999), 1);
	CU_ASSERT_EQUAL(byte, 9);
	CU_ASSERT_FALSE(m->is_broken);
	mapping_close(m);
	close(fd);
	world_close(&w);
}

static void what_a_file_has_not_is_not_mapped(void)
{
	struct world w;
	struct mapping *m;

	world_open(&w);
	int fd = memory_make(2 * PAGE_BYTES);
	CU_ASSERT_EQUAL(reactor_map(w.reactor, fd, 0, 2 * PAGE_BYTES + 1, &m), -EINVAL);
	CU_ASSERT_EQUAL(reactor_map(w.reactor, fd, 3 * PAGE_BYTES, 1, &m), -EINVAL);
	CU_ASSERT_EQUAL(reactor_map(w.reactor, fd, UINT64_MAX, 2, &m), -EINVAL);
	CU_ASSERT_EQUAL(reactor_map(w.reactor, fd, 0, 0, &m), -EINVAL);
	int event = eventfd(0, EFD_CLOEXEC);
	CU_ASSERT_EQUAL(reactor_map(w.reactor, event, 0, PAGE_BYTES, &m), -EINVAL); /* no file at all */
	CU_ASSERT_FALSE(reactor_fd_is_memory(w.reactor, event));
	close(event);
	close(fd);
	int of_disk = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	CU_ASSERT_TRUE(of_disk >= 0);
	CU_ASSERT_FALSE(reactor_fd_is_memory(w.reactor, of_disk));
	close(of_disk);
	world_close(&w);
}

/* The daemon reads and writes on, and finds zeros; its neighbours' memory is as it was. */
static void memory_that_is_cut_off_reads_as_zeros(void)
{
	struct world w;
	struct mapping *cut, *whole;

	world_open(&w);
	int fd = memory_make(8 * PAGE_BYTES), other = memory_make(PAGE_BYTES);
	CU_ASSERT_EQUAL_FATAL(reactor_map(w.reactor, fd, 0, 8 * PAGE_BYTES, &cut), 0);
	CU_ASSERT_EQUAL_FATAL(reactor_map(w.reactor, other, 0, PAGE_BYTES, &whole), 0);
	memset(cut->data, 1, 8 * PAGE_BYTES);
	memset(whole->data, 2, PAGE_BYTES);
	CU_ASSERT_EQUAL_FATAL(ftruncate(fd, PAGE_BYTES), 0);
	CU_ASSERT_EQUAL(cut->data[0], 1); /* what is still there */
	CU_ASSERT_FALSE(cut->is_broken);
	volatile unsigned char *at = cut->data + 7 * PAGE_BYTES + 9;
	CU_ASSERT_EQUAL(*at, 0);
	CU_ASSERT_TRUE(cut->is_broken);
	*at = 5;
	CU_ASSERT_EQUAL(*at, 5);
	CU_ASSERT_EQUAL(cut->data[0], 0); /* all of it is ours now */
	unsigned char byte = 0;
	CU_ASSERT_EQUAL(pread(fd, &byte, 1, 0), 1);
	CU_ASSERT_EQUAL(byte, 1); /* and nothing of ours reaches the other side */
	CU_ASSERT_FALSE(whole->is_broken);
	CU_ASSERT_EQUAL(whole->data[PAGE_BYTES - 1], 2);
	mapping_close(cut);
	mapping_close(whole);
	close(fd);
	close(other);
	world_close(&w);
}

/* Two in turn, each by a write first. */
static void each_mapping_breaks_by_itself(void)
{
	struct world w;
	struct mapping *m[3];
	int fds[3];

	world_open(&w);
	for (int i = 0; i < 3; i++) {
		fds[i] = memory_make(PAGE_BYTES);
		CU_ASSERT_EQUAL_FATAL(reactor_map(w.reactor, fds[i], 0, PAGE_BYTES, &m[i]), 0);
	}
	for (int i = 2; i >= 0; i -= 2) {
		CU_ASSERT_EQUAL(ftruncate(fds[i], 0), 0);
		*(volatile unsigned char *)m[i]->data = 1;
		CU_ASSERT_TRUE(m[i]->is_broken);
	}
	CU_ASSERT_FALSE(m[1]->is_broken);
	for (int i = 0; i < 3; i++) {
		mapping_close(m[i]);
		close(fds[i]);
	}
	world_close(&w);
}

/* Disk I/O into memory that is gone fails, and that is all. */
static void io_into_memory_that_is_gone_fails(void)
{
	struct world w;
	struct mapping *m;
	struct wait wait;

	world_open(&w);
	struct file *f = world_file(&w, PAGE_BYTES);
	int fd = memory_make(PAGE_BYTES);
	CU_ASSERT_EQUAL_FATAL(reactor_map(w.reactor, fd, 0, PAGE_BYTES, &m), 0);
	CU_ASSERT_EQUAL(ftruncate(fd, 0), 0);
	struct iovec iov = {m->data, PAGE_BYTES};
	wait_init(&wait, w.reactor);
	file_read(f, &wait.op, &iov, 1, 0);
	CU_ASSERT(wait_for(&wait) < 0);
	file_close(f);
	mapping_close(m);
	close(fd);
	world_close(&w);
}

/* A SIGBUS that is nobody's mapping ends the process, as it does without us. */
static void other_faults_end_the_process(void)
{
	struct world w;
	struct mapping *m;
	int status;

	world_open(&w);
	int fd = memory_make(PAGE_BYTES), other = memory_make(PAGE_BYTES);
	CU_ASSERT_EQUAL_FATAL(reactor_map(w.reactor, fd, 0, PAGE_BYTES, &m), 0);
	volatile unsigned char *foreign = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
	CU_ASSERT_PTR_NOT_EQUAL_FATAL(foreign, MAP_FAILED);
	CU_ASSERT_EQUAL(ftruncate(other, 0), 0);
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		*foreign = 1;
		_exit(0);
	}
	CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
	CU_ASSERT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	munmap((void *)(uintptr_t)foreign, PAGE_BYTES);
	mapping_close(m);
	close(fd);
	close(other);
	world_close(&w);
}

static void memory_of_ours_is_shared_by_its_descriptor(void)
{
	struct world w;
	struct mapping *m, *again;
	int fd;

	world_open(&w);
	CU_ASSERT_EQUAL_FATAL(reactor_share(w.reactor, 5000, &fd, &m), 0);
	CU_ASSERT_EQUAL(m->data[4999], 0);
	m->data[4999] = 3;
	CU_ASSERT_EQUAL_FATAL(reactor_map(w.reactor, fd, 0, 5000, &again), 0);
	CU_ASSERT_EQUAL(again->data[4999], 3);
	mapping_close(m);
	mapping_close(again);
	close(fd);
	world_close(&w);
}

/* ---- events ---- */

struct heard {
	struct reactor *reactor;
	unsigned n;
};

static void hear(void *context)
{
	struct heard *h = context;

	h->n++;
	reactor_stop(h->reactor);
}

/* Closing asks back what the kernel has of an event: that takes a turn. */
static void turn_take(struct world *w)
{
	struct wait wait;

	wait_init(&wait, w->reactor);
	reactor_defer(w->reactor, &wait.op, 0);
	CU_ASSERT_EQUAL(wait_for(&wait), 0);
}

static void events_are_heard(void)
{
	struct world w;
	struct event *e;

	world_open(&w);
	struct heard h = {.reactor = w.reactor};
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK), kept = dup(fd); /* signalled before anybody listened */
	CU_ASSERT_EQUAL_FATAL(reactor_event_open(w.reactor, fd, hear, &h, &e), 0);
	reactor_run(w.reactor);
	CU_ASSERT(h.n >= 1);
	unsigned before = h.n;
	CU_ASSERT_EQUAL(eventfd_write(kept, 1), 0);
	reactor_run(w.reactor);
	CU_ASSERT(h.n > before);
	event_close(e);
	turn_take(&w);
	close(kept);
	world_close(&w);
}

static void signals_of_a_turn_are_one(void)
{
	struct world w;
	struct event *e;
	eventfd_t n = 0;

	world_open(&w);
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), kept = dup(fd);
	CU_ASSERT_EQUAL_FATAL(reactor_event_open(w.reactor, fd, NULL, NULL, &e), 0);
	event_signal(e);
	event_signal(e);
	turn_take(&w);
	event_close(e); /* the write that is under way comes to its end */
	turn_take(&w);
	CU_ASSERT_EQUAL(eventfd_read(kept, &n), 0);
	CU_ASSERT_EQUAL(n, 1);
	close(kept);
	world_close(&w);
}

/* ---- descriptors ---- */

static void descriptors_travel_beside_bytes(void)
{
	struct world w;
	struct stream *near, *far;
	struct wait sent, received;
	int pair[2];
	char out[] = "abc", in[4];

	world_open(&w);
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	CU_ASSERT_EQUAL_FATAL(reactor_stream_take(w.reactor, pair[0], &near), 0);
	CU_ASSERT_EQUAL_FATAL(reactor_stream_take(w.reactor, pair[1], &far), 0);
	int fd = memory_make(PAGE_BYTES);
	struct fds some = {.fd = {fd, fd}, .n = 2}, got = {.n = 0};
	struct iovec from = {out, 4}, to = {in, 4};
	wait_init(&sent, w.reactor);
	wait_init(&received, w.reactor);
	stream_recv_fds(far, &received.op, &to, 1, &got);
	stream_send_fds(near, &sent.op, &from, 1, &some);
	CU_ASSERT_EQUAL(wait_for(&sent), 0);
	CU_ASSERT_EQUAL(wait_for(&received), 0);
	CU_ASSERT_STRING_EQUAL(in, "abc");
	CU_ASSERT_EQUAL(got.n, 2);
	struct mapping *m;
	CU_ASSERT_EQUAL_FATAL(reactor_map(w.reactor, got.fd[1], 0, PAGE_BYTES, &m), 0);
	mapping_close(m);
	reactor_fds_close(w.reactor, &got);
	stream_close(near);
	stream_close(far);
	close(fd);
	world_close(&w);
}

int main(void)
{
	static const struct world_test tests[] = {
	    {"a mapping is what others see", a_mapping_is_what_others_see},
	    {"what a file has not is not mapped", what_a_file_has_not_is_not_mapped},
	    {"memory that is cut off reads as zeros", memory_that_is_cut_off_reads_as_zeros},
	    {"each mapping breaks by itself", each_mapping_breaks_by_itself},
	    {"I/O into memory that is gone fails", io_into_memory_that_is_gone_fails},
	    {"other faults end the process", other_faults_end_the_process},
	    {"memory of ours is shared by its descriptor", memory_of_ours_is_shared_by_its_descriptor},
	    {"events are heard", events_are_heard},
	    {"signals of a turn are one", signals_of_a_turn_are_one},
	    {"descriptors travel beside bytes", descriptors_travel_beside_bytes},
	};

	return world_tests_run(tests, array_size(tests));
}
