/*
 * test_uring_streams.c: listeners and streams of the io_uring reactor, over unix and TCP sockets.
 */
#include "tests/unit/uring_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

/* ---- streams ---- */

/* Two ends of one connection, made through a listener. */
struct pair {
	struct listener *listener;
	struct stream *server, *client;
};

static void pair_open(struct pair *p, struct world *w, const char *address)
{
	struct wait accept_op, connect_op;

	CU_ASSERT_EQUAL_FATAL(reactor_listen(w->reactor, address, &p->listener), 0);
	wait_init(&accept_op, w->reactor);
	wait_init(&connect_op, w->reactor);
	listener_accept(p->listener, &accept_op.op, &p->server);
	reactor_connect(w->reactor, &connect_op.op, address, &p->client);
	CU_ASSERT_EQUAL_FATAL(wait_for(&connect_op), 0);
	CU_ASSERT_EQUAL_FATAL(wait_for(&accept_op), 0);
}

static void pair_close(struct pair *p)
{
	stream_close(p->server);
	stream_close(p->client);
	listener_close(p->listener);
}

static void bytes_go_both_ways(struct world *w, const char *address)
{
	struct wait send_op, recv_op;
	char in[16] = "";
	struct pair p;

	pair_open(&p, w, address);
	wait_init(&send_op, w->reactor);
	wait_init(&recv_op, w->reactor);
	stream_recv(p.server, &recv_op.op, &(struct iovec){in, sizeof in}, 1);
	stream_send(p.client, &send_op.op, &(struct iovec){"hello", 5}, 1);
	CU_ASSERT_EQUAL(wait_for(&recv_op), 5);
	CU_ASSERT_EQUAL(wait_for(&send_op), 0);
	CU_ASSERT_STRING_EQUAL(in, "hello");
	/* scattered, and in the other direction */
	char a[2], b[3];
	struct iovec parts[] = {{a, sizeof a}, {b, sizeof b}}, words[] = {{"wor", 3}, {"ld", 2}};
	stream_recv_all(p.client, &recv_op.op, parts, 2);
	stream_send(p.server, &send_op.op, words, 2);
	CU_ASSERT_EQUAL(wait_for(&send_op), 0);
	CU_ASSERT_EQUAL(wait_for(&recv_op), 0);
	CU_ASSERT_EQUAL(memcmp(a, "wo", 2), 0);
	CU_ASSERT_EQUAL(memcmp(b, "rld", 3), 0);
	pair_close(&p);
}

static void unix_streams_work(void)
{
	struct world w;

	world_open(&w);
	bytes_go_both_ways(&w, w.path);
	CU_ASSERT_EQUAL(access(w.path, F_OK), -1); /* removed with its listener */
	world_close(&w);
}

/* A port that was free a moment ago. */
static unsigned free_port(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t in_bytes = sizeof in;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
	CU_ASSERT_EQUAL(getsockname(fd, (struct sockaddr *)&in, &in_bytes), 0);
	close(fd);
	return ntohs(in.sin_port);
}

static void tcp_streams_work(void)
{
	char address[64];
	struct world w;
	struct pair p;

	world_open(&w);
	snprintf(address, sizeof address, "127.0.0.1:%u", free_port());
	bytes_go_both_ways(&w, address);
	snprintf(address, sizeof address, "localhost:%u", free_port()); /* a name: resolved on a thread */
	bytes_go_both_ways(&w, address);
	pair_open(&p, &w, address);
	CU_ASSERT_TRUE(strncmp(stream_peer(p.server), "127.0.0.1:", 10) == 0 ||
		       strncmp(stream_peer(p.server), "[::1]:", 6) == 0);
	pair_close(&p);
	world_close(&w);
}

static void bad_addresses_are_refused(void)
{
	static const char *const bad[] = {"",       "nonsense", "1.2.3.4", "1.2.3.4:", "1.2.3.4:99999", "1.2.3.4:80x",
					  "::1:80", "[::1]80",  "[::1:80", "[]:",      "1.2.3.4:123456"};
	char long_path[200];
	struct listener *l;
	struct stream *s;
	struct world w;
	struct wait op;

	world_open(&w);
	wait_init(&op, w.reactor);
	for (size_t i = 0; i < array_size(bad); i++) {
		CU_ASSERT_EQUAL(reactor_listen(w.reactor, bad[i], &l), -EINVAL);
		reactor_connect(w.reactor, &op.op, bad[i], &s);
		CU_ASSERT_FALSE(op.is_done);
		CU_ASSERT_EQUAL(wait_for(&op), -EINVAL);
	}
	memset(long_path, '/', sizeof long_path - 1);
	long_path[sizeof long_path - 1] = '\0';
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, long_path, &l), -ENAMETOOLONG);
	reactor_connect(w.reactor, &op.op, long_path, &s);
	CU_ASSERT_EQUAL(wait_for(&op), -ENAMETOOLONG);
	reactor_connect(w.reactor, &op.op, w.path, &s);
	CU_ASSERT_EQUAL(wait_for(&op), -ENOENT);
	char address[64];
	snprintf(address, sizeof address, "127.0.0.1:%u", free_port());
	reactor_connect(w.reactor, &op.op, address, &s);
	CU_ASSERT_EQUAL(wait_for(&op), -ECONNREFUSED);
	reactor_connect(w.reactor, &op.op, "name.invalid:80", &s);
	int res = wait_for(&op);
	CU_ASSERT_TRUE(res == -EHOSTUNREACH || res == -EAGAIN); /* EAGAIN: no name server here */
	world_close(&w);
}

static void a_dead_socket_is_replaced_and_a_live_one_is_not(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct listener *l, *second;
	struct world w;

	world_open(&w);
	snprintf(un.sun_path, sizeof un.sun_path, "%s", w.path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	close(fd); /* dies without removing it */
	CU_ASSERT_EQUAL(access(w.path, F_OK), 0);
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &l), 0);
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &second), -EADDRINUSE);
	/* a path that came to belong to somebody else stays */
	unlink(w.path);
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &second), 0);
	listener_close(l);
	CU_ASSERT_EQUAL(access(w.path, F_OK), 0);
	listener_close(second);
	CU_ASSERT_EQUAL(access(w.path, F_OK), -1);
	/* and so does what never was a socket */
	close(open(w.path, O_CREAT | O_WRONLY, 0600));
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &l), -EADDRINUSE);
	CU_ASSERT_EQUAL(access(w.path, F_OK), 0);
	world_close(&w);
}

/* What io_uring holds of a killed process answers for a moment after it is gone: here we hold it. */
static void a_socket_that_outlives_its_process_is_replaced(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct listener *l;
	struct world w;
	int status;

	world_open(&w);
	snprintf(un.sun_path, sizeof un.sun_path, "%s", w.path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	pid_t pid = fork();
	if (pid == 0)
		_exit(listen(fd, 8) < 0);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(status, 0);
	int client = socket(AF_UNIX, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL(connect(client, (struct sockaddr *)&un, sizeof un), 0); /* it answers */
	close(client);
	CU_ASSERT_EQUAL_FATAL(reactor_listen(w.reactor, w.path, &l), 0);
	listener_close(l);
	close(fd);
	world_close(&w);
}

static void closing_a_listener_ends_its_accept(void)
{
	struct listener *l;
	struct stream *s;
	struct world w;
	struct wait op, tick;

	world_open(&w);
	wait_init(&op, w.reactor);
	wait_init(&tick, w.reactor);
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &l), 0);
	listener_accept(l, &op.op, &s);
	reactor_defer(w.reactor, &tick.op, 0);
	CU_ASSERT_EQUAL(wait_for(&tick), 0); /* one turn: the kernel has it */
	reactor_defer(w.reactor, &tick.op, 0);
	CU_ASSERT_EQUAL(wait_for(&tick), 0);
	CU_ASSERT_FALSE(op.is_done);
	listener_close(l);
	CU_ASSERT_FALSE(op.is_done);
	CU_ASSERT_EQUAL(wait_for(&op), -ECANCELED);
	/* once more before the kernel has seen it */
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &l), 0);
	listener_accept(l, &op.op, &s);
	listener_close(l);
	CU_ASSERT_EQUAL(wait_for(&op), -ECANCELED);
	world_close(&w);
}

/* The ring has no room for the accept: it is given back from the line. */
static void closing_a_listener_finds_an_accept_in_the_line(void)
{
	static struct wait reads[16];
	unsigned char *data = pages(BLOCK_BYTES);
	struct iovec iov = {data, BLOCK_BYTES};
	unsigned n_left = 16;
	struct listener *l;
	struct stream *s;
	struct world w;
	struct wait op;

	world_open_with(&w, 8, 0);
	struct file *f = world_file(&w, BLOCK_BYTES);
	char path[128];
	snprintf(path, sizeof path, "%s/socket", w.dir);
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, path, &l), 0);
	wait_init(&op, w.reactor);
	for (size_t i = 0; i < array_size(reads); i++) {
		wait_init(&reads[i], w.reactor);
		reads[i].n_left = &n_left;
		file_read(f, &reads[i].op, &iov, 1, 0);
	}
	listener_accept(l, &op.op, &s);
	listener_close(l);
	CU_ASSERT_FALSE(op.is_done);
	CU_ASSERT_EQUAL(wait_for(&op), -ECANCELED);
	while (n_left > 0)
		reactor_run(w.reactor);
	file_close(f);
	world_close(&w);
	munmap(data, BLOCK_BYTES);
}

static void an_end_is_told_from_an_error(void)
{
	struct wait send_op, recv_op;
	char in[16];
	struct world w;
	struct pair p;

	world_open(&w);
	pair_open(&p, &w, w.path);
	wait_init(&send_op, w.reactor);
	wait_init(&recv_op, w.reactor);
	/* half of what was wanted, then the end */
	stream_recv_all(p.server, &recv_op.op, &(struct iovec){in, 16}, 1);
	stream_send(p.client, &send_op.op, &(struct iovec){"12345678", 8}, 1);
	CU_ASSERT_EQUAL(wait_for(&send_op), 0);
	stream_shutdown(p.client);
	CU_ASSERT_EQUAL(wait_for(&recv_op), -ECONNRESET);
	stream_recv(p.server, &recv_op.op, &(struct iovec){in, 16}, 1);
	CU_ASSERT_EQUAL(wait_for(&recv_op), 0);
	/* sending to nobody: an error, and no SIGPIPE */
	stream_send(p.server, &send_op.op, &(struct iovec){"x", 1}, 1);
	CU_ASSERT_EQUAL(wait_for(&send_op), -EPIPE);
	pair_close(&p);
	world_close(&w);
}

static void shutdown_delivers_what_waits(const char *address, struct world *w)
{
	const size_t len = 64 * MIB; /* more than any socket's buffers hold */
	unsigned char *data = pages(len);
	struct wait send_op, recv_op, tick;
	char in[16];
	struct pair p;

	pair_open(&p, w, address);
	wait_init(&send_op, w->reactor);
	wait_init(&recv_op, w->reactor);
	wait_init(&tick, w->reactor);
	stream_recv(p.server, &recv_op.op, &(struct iovec){in, sizeof in}, 1);
	stream_send(p.server, &send_op.op, &(struct iovec){data, len}, 1);
	for (int i = 0; i < 3; i++) { /* the kernel has both */
		reactor_defer(w->reactor, &tick.op, 0);
		CU_ASSERT_EQUAL(wait_for(&tick), 0);
	}
	CU_ASSERT_FALSE(recv_op.is_done);
	CU_ASSERT_FALSE(send_op.is_done);
	stream_shutdown(p.server);
	CU_ASSERT_TRUE(wait_for(&recv_op) <= 0);
	CU_ASSERT_TRUE(wait_for(&send_op) < 0);
	pair_close(&p);
	munmap(data, len);
}

static void shutdown_ends_both_directions(void)
{
	char address[64];
	struct world w;

	world_open(&w);
	shutdown_delivers_what_waits(w.path, &w);
	snprintf(address, sizeof address, "127.0.0.1:%u", free_port());
	shutdown_delivers_what_waits(address, &w);
	world_close(&w);
}

#define N_PARTS 100

/* Many odd pieces out, other odd pieces in, far beyond the sockets' buffers: nothing is lost or doubled. */
static void long_transfers_are_continued(void)
{
	const size_t len = 8 * MIB;
	unsigned char *out = pages(len), *in = pages(len);
	static struct iovec out_iov[N_PARTS], in_iov[N_PARTS];
	struct wait send_op, recv_op;
	struct world w;
	struct pair p;

	world_open(&w);
	pair_open(&p, &w, w.path);
	fill(out, len, 3);
	srand(5);
	size_t out_at = 0, in_at = 0;
	for (unsigned i = 0; i < N_PARTS; i++) {
		size_t out_len = i == N_PARTS - 1 ? len - out_at : (size_t)rand() % (len / N_PARTS) + 1;
		size_t in_len = i == N_PARTS - 1 ? len - in_at : (size_t)rand() % (len / N_PARTS) + 1;
		out_iov[i] = (struct iovec){out + out_at, out_len};
		in_iov[i] = (struct iovec){in + in_at, in_len};
		out_at += out_len;
		in_at += in_len;
	}
	wait_init(&send_op, w.reactor);
	wait_init(&recv_op, w.reactor);
	stream_send(p.client, &send_op.op, out_iov, N_PARTS);
	stream_recv_all(p.server, &recv_op.op, in_iov, N_PARTS);
	CU_ASSERT_EQUAL(wait_for(&send_op), 0);
	CU_ASSERT_EQUAL(wait_for(&recv_op), 0);
	CU_ASSERT_EQUAL(memcmp(in, out, len), 0);
	pair_close(&p);
	world_close(&w);
	munmap(out, len);
	munmap(in, len);
}

static const struct world_test tests[] = {
    {"unix streams work", unix_streams_work},
    {"TCP streams work", tcp_streams_work},
    {"bad addresses are refused", bad_addresses_are_refused},
    {"a dead socket is replaced and a live one is not", a_dead_socket_is_replaced_and_a_live_one_is_not},
    {"a socket that outlives its process is replaced", a_socket_that_outlives_its_process_is_replaced},
    {"closing a listener ends its accept", closing_a_listener_ends_its_accept},
    {"closing a listener finds an accept in the line", closing_a_listener_finds_an_accept_in_the_line},
    {"an end is told from an error", an_end_is_told_from_an_error},
    {"shutdown ends both directions", shutdown_ends_both_directions},
    {"long transfers are continued", long_transfers_are_continued},
};

int main(void)
{
	return world_tests_run(tests, array_size(tests));
}
