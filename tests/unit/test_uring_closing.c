/*
 * test_uring_closing.c: descriptors of other processes whose close() waits for somebody else: a FUSE server that does
 * not answer, a socket that lingers. The reactor must not wait, neither then nor at its end.
 */
#include "tests/unit/fuse_world.h"
#include "tests/unit/uring_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#define AT_ONCE_S 5  /* nothing here takes a millisecond; a machine may be busy */
#define LINGER_S  60 /* whoever waits, waits so long */
#define LOOK_NS   (5 * NS_PER_MS)

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* Closing the last descriptor of near waits: there is something unsent, and far does not read. */
static void linger_make(int *near, int *far)
{
	struct linger linger = {.l_onoff = 1, .l_linger = LINGER_S};
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t at_bytes = sizeof at;
	static const char data[65536];
	int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CU_ASSERT_EQUAL_FATAL(bind(listening, (struct sockaddr *)&at, sizeof at), 0);
	CU_ASSERT_EQUAL_FATAL(listen(listening, 1), 0);
	CU_ASSERT_EQUAL_FATAL(getsockname(listening, (struct sockaddr *)&at, &at_bytes), 0);
	*near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL_FATAL(connect(*near, (struct sockaddr *)&at, sizeof at), 0);
	*far = accept(listening, NULL, NULL);
	CU_ASSERT_FATAL(*far >= 0);
	CU_ASSERT_EQUAL(setsockopt(*near, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
	while (send(*near, data, sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	close(listening);
}

static void turn_take(struct world *w)
{
	struct wait wait;

	wait_init(&wait, w->reactor);
	reactor_defer(w->reactor, &wait.op, 0);
	CU_ASSERT_EQUAL(wait_for(&wait), 0);
}

/* Looks again every few milliseconds. */
struct look {
	struct timer timer;
	struct reactor *reactor;
};

static void look_again(struct timer *t)
{
	struct look *l = container_of(t, struct look, timer);

	if (reactor_fds_held(l->reactor) > 0)
		timer_start(l->reactor, &l->timer, LOOK_NS);
	else
		reactor_stop(l->reactor);
}

/* A thread that does not come back ends the test by its limit. */
static void wait_for_none_held(struct world *w)
{
	struct look look = {.reactor = w->reactor};

	timer_init(&look.timer, look_again);
	timer_start(w->reactor, &look.timer, LOOK_NS);
	reactor_run(w->reactor);
	CU_ASSERT_EQUAL(reactor_fds_held(w->reactor), 0);
}

static void ordinary_ones_are_closed_at_once(void)
{
	struct world w;
	int ends[2];

	world_open(&w);
	CU_ASSERT_EQUAL_FATAL(pipe2(ends, O_CLOEXEC), 0);
	struct fds fds = {.fd = {memfd_create("test", MFD_CLOEXEC), eventfd(0, EFD_CLOEXEC), ends[0], ends[1]}, .n = 4};
	struct fds before = fds;
	reactor_fds_close(w.reactor, &fds);
	CU_ASSERT_EQUAL(fds.n, 0);
	CU_ASSERT_EQUAL(reactor_fds_held(w.reactor), 0);
	for (uint32_t i = 0; i < before.n; i++)
		CU_ASSERT_EQUAL(fcntl(before.fd[i], F_GETFD), -1);
	world_close(&w);
}

static void others_are_closed_soon(void)
{
	struct world w;

	world_open(&w);
	struct fds fds = {.fd = {open("/proc/self/exe", O_RDONLY | O_CLOEXEC), open("/dev/null", O_RDWR | O_CLOEXEC)},
			  .n = 2};
	struct fds before = fds;
	reactor_fds_close(w.reactor, &fds);
	wait_for_none_held(&w);
	for (uint32_t i = 0; i < before.n; i++)
		CU_ASSERT_EQUAL(fcntl(before.fd[i], F_GETFD), -1);
	world_close(&w);
}

static void a_socket_that_lingers_holds_nobody_up(void)
{
	struct world w;
	int near, far;

	world_open(&w);
	linger_make(&near, &far);
	struct fds fds = {.fd = {near}, .n = 1};
	time_t began_s = now_s();
	reactor_fds_close(w.reactor, &fds);
	turn_take(&w); /* the kernel closes on the way out of a call */
	CU_ASSERT(now_s() - began_s < AT_ONCE_S);
	CU_ASSERT_EQUAL(reactor_fds_held(w.reactor), 1);
	close(far);
	wait_for_none_held(&w);
	world_close(&w);
}

static void a_fuse_file_holds_nobody_up(void)
{
	struct world w;
	struct fuse_world fuse;
	struct event *e;
	const char *why;
	int fd = fuse_world_open(&fuse, &why);

	if (fd < 0) {
		printf("skipped: %s ", why);
		return;
	}
	world_open(&w);
	time_t began_s = now_s();
	CU_ASSERT_FALSE(reactor_fd_is_memory(w.reactor, fd));
	struct fds fds = {.fd = {dup(fd)}, .n = 1};
	reactor_fds_close(w.reactor, &fds);
	CU_ASSERT_EQUAL(reactor_event_open(w.reactor, dup(fd), NULL, NULL, &e), -EINVAL);
	struct stream *stream;
	CU_ASSERT_EQUAL(reactor_stream_take(w.reactor, dup(fd), &stream), -ENOTSOCK);
	turn_take(&w);
	CU_ASSERT(now_s() - began_s < AT_ONCE_S);
	CU_ASSERT_EQUAL(reactor_fds_held(w.reactor), 3);
	fuse_world_close(&fuse);
	wait_for_none_held(&w);
	close(fd);
	world_close(&w);
}

static void the_reactor_ends_before_what_it_holds(void)
{
	struct world w;
	int near, far;

	world_open(&w);
	linger_make(&near, &far);
	struct fds fds = {.fd = {near}, .n = 1};
	reactor_fds_close(w.reactor, &fds);
	time_t began_s = now_s();
	world_close(&w);
	CU_ASSERT(now_s() - began_s < AT_ONCE_S);
	close(far);
}

static void listen_to_nothing(void *context) {}

static void only_counters_and_pipes_are_events(void)
{
	struct world w;
	struct event *e;
	int near, far, ends[2];

	world_open(&w);
	linger_make(&near, &far);
	time_t began_s = now_s();
	CU_ASSERT_EQUAL(reactor_event_open(w.reactor, near, listen_to_nothing, NULL, &e), -EINVAL);
	CU_ASSERT_EQUAL(reactor_event_open(w.reactor, open("/dev/null", O_RDWR | O_CLOEXEC), NULL, NULL, &e), -EINVAL);
	turn_take(&w);
	CU_ASSERT(now_s() - began_s < AT_ONCE_S);
	close(far);
	CU_ASSERT_EQUAL_FATAL(pipe2(ends, O_CLOEXEC), 0);
	CU_ASSERT_EQUAL_FATAL(reactor_event_open(w.reactor, ends[0], listen_to_nothing, NULL, &e), 0);
	event_close(e);
	turn_take(&w);
	close(ends[1]);
	wait_for_none_held(&w);
	world_close(&w);
}

/* ---- what comes over a socket ---- */

static void fds_send(int socket, const int *fds, uint32_t n)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control = {.bytes = {0}};
	struct iovec iov = {(char[]){"x"}, 1};
	struct msghdr m = {
	    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(n * sizeof(int))};

	CU_ASSERT_FATAL(n <= 16);
	control.header =
	    (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n * sizeof(int))};
	memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
	CU_ASSERT_EQUAL(sendmsg(socket, &m, MSG_NOSIGNAL), 1);
}

/* User Mode Linux is called over one. Its other end may have sent what does not close at once. */
static void a_unix_stream_can_be_signalled(void)
{
	struct world w;
	struct event *e;
	int near, far, pair[2];
	uint64_t n = 0;

	world_open(&w);
	linger_make(&near, &far);
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	CU_ASSERT_EQUAL_FATAL(reactor_event_open(w.reactor, pair[0], NULL, NULL, &e), 0);
	event_signal(e);
	turn_take(&w);
	event_close(e); /* the write that is under way comes to its end */
	turn_take(&w);
	CU_ASSERT_EQUAL(recv(pair[1], &n, sizeof n, MSG_DONTWAIT), sizeof n);
	CU_ASSERT_EQUAL(n, 1);
	CU_ASSERT_EQUAL(reactor_fds_held(w.reactor), 0);
	close(pair[1]);

	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	CU_ASSERT_EQUAL(reactor_event_open(w.reactor, dup(pair[0]), listen_to_nothing, NULL, &e), -EINVAL);
	CU_ASSERT_EQUAL(reactor_fds_held(w.reactor), 0);
	CU_ASSERT_EQUAL_FATAL(reactor_event_open(w.reactor, pair[0], NULL, NULL, &e), 0);
	event_close(e);
	turn_take(&w);
	close(pair[1]);

	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	CU_ASSERT_EQUAL_FATAL(reactor_event_open(w.reactor, pair[0], NULL, NULL, &e), 0);
	fds_send(pair[1], &near, 1);
	close(near);
	time_t began_s = now_s();
	event_close(e);
	turn_take(&w);
	CU_ASSERT(now_s() - began_s < AT_ONCE_S);
	CU_ASSERT_EQUAL(reactor_fds_held(w.reactor), 1);
	close(far);
	wait_for_none_held(&w);
	close(pair[1]);
	world_close(&w);
}

static struct stream *stream_open(struct world *w, int *far)
{
	struct stream *s;
	int pair[2];

	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	CU_ASSERT_EQUAL_FATAL(reactor_stream_take(w->reactor, pair[0], &s), 0);
	*far = pair[1];
	return s;
}

/* A message that nobody has read goes with its socket, and what is in it. */
static void what_was_not_read_holds_nobody_up(void)
{
	struct world w;
	int near, far, socket;

	world_open(&w);
	struct stream *s = stream_open(&w, &socket);
	linger_make(&near, &far);
	fds_send(socket, &near, 1);
	close(near);
	time_t began_s = now_s();
	stream_close(s);
	turn_take(&w);
	CU_ASSERT(now_s() - began_s < AT_ONCE_S);
	CU_ASSERT_EQUAL(reactor_fds_held(w.reactor), 1);
	CU_ASSERT_EQUAL(send(socket, "x", 1, MSG_NOSIGNAL), -1); /* and nothing more comes */
	close(far);
	wait_for_none_held(&w);
	close(socket);
	world_close(&w);
}

/* More than the receiver asked for; the last of them lingers. */
static void what_was_not_wanted_holds_nobody_up(void)
{
	struct world w;
	struct wait wait;
	struct fds got = {.n = 0};
	int near, far, socket, fds[FDS_MAX + 2];
	char byte;
	struct iovec iov = {&byte, 1};

	world_open(&w);
	struct stream *s = stream_open(&w, &socket);
	linger_make(&near, &far);
	for (uint32_t i = 0; i < array_size(fds); i++)
		fds[i] = i < FDS_MAX + 1 ? eventfd(0, EFD_CLOEXEC) : near;
	fds_send(socket, fds, array_size(fds));
	for (uint32_t i = 0; i < array_size(fds); i++)
		close(fds[i]);
	time_t began_s = now_s();
	wait_init(&wait, w.reactor);
	stream_recv_fds(s, &wait.op, &iov, 1, &got);
	CU_ASSERT_EQUAL(wait_for(&wait), 0);
	CU_ASSERT_EQUAL(got.n, FDS_MAX);
	CU_ASSERT_EQUAL(reactor_fds_held(w.reactor), 1);
	reactor_fds_close(w.reactor, &got);
	turn_take(&w);
	CU_ASSERT(now_s() - began_s < AT_ONCE_S);
	close(far);
	wait_for_none_held(&w);
	stream_close(s);
	close(socket);
	world_close(&w);
}

int main(void)
{
	static const struct world_test tests[] = {
	    {"ordinary ones are closed at once", ordinary_ones_are_closed_at_once},
	    {"others are closed soon", others_are_closed_soon},
	    {"a unix stream can be signalled", a_unix_stream_can_be_signalled},
	    {"a socket that lingers holds nobody up", a_socket_that_lingers_holds_nobody_up},
	    {"a FUSE file holds nobody up", a_fuse_file_holds_nobody_up},
	    {"the reactor ends before what it holds", the_reactor_ends_before_what_it_holds},
	    {"only counters and pipes are events", only_counters_and_pipes_are_events},
	    {"what was not read holds nobody up", what_was_not_read_holds_nobody_up},
	    {"what was not wanted holds nobody up", what_was_not_wanted_holds_nobody_up},
	};

	return world_tests_run(tests, array_size(tests));
}
