/*
 * uring_streams.c: addresses, listeners and streams of the io_uring reactor.
 *
 *   listener: open --listener_close()--> closing (while an accept is in the ring) --its completion--> freed
 *   connect:  [name being resolved, on a thread of its own] -> address 1 -> address 2 ... -> stream, or the last error
 *
 * Invariants
 *  1. A listener or stream outlives every op of it: a listener that is closed early waits for its accept, and closing a
 *     stream with an op under way is the caller's mistake.
 *  2. Nothing here waits for the network but the thread that resolves a name, which nobody waits for in turn.
 *  3. A unix socket's file is removed only if it is still the one that was bound.
 *  4. Sockets are never O_NONBLOCK: io_uring waits for them itself, and would answer -EAGAIN otherwise.
 *
 * Owner: the reactor; the resolving thread has only its own struct until it posts it back.
 */
#include "daemon/core/unix_socket.h"
#include "daemon/core/uring_internal.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOST_BYTES 256u /* a DNS name has at most 253 characters */
#define PORT_BYTES 6u
#define PORT_MAX   65535ul

static struct uring_stream *stream_of(struct stream *s)
{
	return container_of(s, struct uring_stream, base);
}

/* ---- addresses ---- */

static bool is_unix_address(const char *address)
{
	return strchr(address, '/') != NULL;
}

static int unix_address_fill(struct sockaddr_un *un, const char *path)
{
	size_t len = strlen(path);

	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (len >= sizeof un->sun_path)
		return -ENAMETOOLONG;
	memcpy(un->sun_path, path, len + 1);
	return 0;
}

struct host_port {
	char host[HOST_BYTES]; /* "": any address of this machine */
	char port[PORT_BYTES];
};

static bool is_port(const char *text)
{
	size_t n_digits = strspn(text, "0123456789");

	return n_digits > 0 && n_digits < PORT_BYTES && text[n_digits] == '\0' && strtoul(text, NULL, 10) <= PORT_MAX;
}

/* "host:port" or "[host]:port"; a host with colons needs its brackets. */
static int host_port_parse(const char *address, struct host_port *out)
{
	bool is_bracketed = address[0] == '[';
	const char *host = address + is_bracketed;
	const char *end = strchr(host, is_bracketed ? ']' : ':');
	if (end == NULL)
		return -EINVAL;
	const char *port = end + is_bracketed;
	if (*port != ':' || !is_port(port + 1) || (size_t)(end - host) >= HOST_BYTES)
		return -EINVAL;
	snprintf(out->host, sizeof out->host, "%.*s", (int)(end - host), host);
	snprintf(out->port, sizeof out->port, "%s", port + 1);
	return 0;
}

/* All addresses of a name; blocks unless flags has AI_NUMERICHOST. */
static int host_port_resolve(const struct host_port *hp, int flags, struct addrinfo **out)
{
	struct addrinfo hints = {
	    .ai_family = AF_UNSPEC,
	    .ai_socktype = SOCK_STREAM,
	    .ai_flags = flags | AI_NUMERICSERV,
	};

	switch (getaddrinfo(hp->host[0] != '\0' ? hp->host : NULL, hp->port, &hints, out)) {
	case 0:
		return 0;
	case EAI_MEMORY:
		return -ENOMEM;
	case EAI_AGAIN:
		return -EAGAIN;
	case EAI_SYSTEM:
		return -errno;
	default:
		return -EHOSTUNREACH; /* no such name, or no address of a kind we know */
	}
}

/* ---- streams ---- */

static void peer_describe(struct uring_stream *s)
{
	struct sockaddr_storage peer;
	socklen_t peer_bytes = sizeof peer;
	char host[PEER_BYTES - PORT_BYTES - 3], port[PORT_BYTES];

	snprintf(s->peer, sizeof s->peer, s->is_tcp ? "tcp" : "unix");
	if (!s->is_tcp || getpeername(s->fd, (struct sockaddr *)&peer, &peer_bytes) < 0)
		return;
	if (getnameinfo((struct sockaddr *)&peer, peer_bytes, host, sizeof host, port, sizeof port,
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		return;
	snprintf(s->peer, sizeof s->peer, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
}

/* A connected socket becomes a stream. */
static void stream_begin(struct uring_stream *s)
{
	static const int one = 1;

	if (s->is_tcp) /* small replies must not wait for acknowledgements of earlier ones; a wish, so unchecked */
		setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	peer_describe(s);
}

static void stream_free(struct uring_stream *s)
{
	quarry_assert(s->receiving == NULL);
	quarry_assert(s->sending == NULL);
	if (s->found != NULL)
		freeaddrinfo(s->found);
	if (s->fd >= 0 && s->is_tcp)
		close(s->fd);
	else if (s->fd >= 0)
		uring_socket_close(s->base.reactor, s->fd);
	free(s);
}

void uring_stream_close(struct stream *s)
{
	stream_free(stream_of(s));
}

/* Wakes what waits in either direction: a receive ends, a send fails. Fails only when the other side was quicker. */
void uring_stream_shutdown(struct stream *s)
{
	shutdown(stream_of(s)->fd, SHUT_RDWR);
}

const char *uring_stream_peer(const struct stream *s)
{
	return container_of(s, const struct uring_stream, base)->peer;
}

/* ---- listening ---- */

/* Does a living process listen there? What is no socket is nobody's to replace either. */
static bool is_unix_address_in_use(const struct sockaddr_un *un)
{
	struct stat st;

	if (lstat(un->sun_path, &st) < 0)
		return false;
	return !S_ISSOCK(st.st_mode) || unix_socket_is_served(un);
}

static int unix_bind(int fd, const struct sockaddr_un *un)
{
	if (bind(fd, (const struct sockaddr *)un, sizeof *un) == 0)
		return 0;
	if (errno != EADDRINUSE || is_unix_address_in_use(un))
		return -errno;
	unlink(un->sun_path);
	return bind(fd, (const struct sockaddr *)un, sizeof *un) == 0 ? 0 : -errno;
}

/* A listening socket, or -errno; remembers which file it made. */
static int unix_listen(struct uring_listener *l, const char *path)
{
	struct stat st;
	int res = unix_address_fill(&l->unix_address, path);

	if (res < 0)
		return res;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	res = unix_bind(fd, &l->unix_address);
	if (res == 0 && (listen(fd, SOMAXCONN) < 0 || lstat(path, &st) < 0))
		res = -errno;
	if (res < 0) {
		close(fd);
		return res;
	}
	l->unix_device = st.st_dev;
	l->unix_inode = st.st_ino;
	return fd;
}

static int tcp_listen_at(const struct addrinfo *at)
{
	static const int one = 1;
	int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); /* a restart must not wait for old connections */
	if (bind(fd, at->ai_addr, at->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0) {
		int res = -errno;
		close(fd);
		return res;
	}
	return fd;
}

static int tcp_listen(const char *address)
{
	struct host_port hp;
	struct addrinfo *found;
	int res = host_port_parse(address, &hp);

	if (res == 0)
		res = host_port_resolve(&hp, AI_PASSIVE, &found);
	if (res < 0)
		return res;
	res = -EADDRNOTAVAIL;
	for (const struct addrinfo *at = found; at != NULL && res < 0; at = at->ai_next)
		res = tcp_listen_at(at);
	freeaddrinfo(found);
	return res;
}

int uring_listen(struct reactor *r, const char *address, struct listener **out)
{
	struct uring_listener *l = calloc(1, sizeof *l);

	if (l == NULL)
		return -ENOMEM;
	l->base.reactor = r;
	l->fd = is_unix_address(address) ? unix_listen(l, address) : tcp_listen(address);
	if (l->fd < 0) {
		int res = l->fd;
		free(l);
		return res;
	}
	*out = &l->base;
	return 0;
}

/* ---- accepting ---- */

static void listener_free(struct uring_listener *l)
{
	quarry_assert(l->is_closing);
	quarry_assert(l->accepting == NULL);
	close(l->fd);
	free(l);
}

static void unix_file_remove(const struct uring_listener *l)
{
	const char *path = l->unix_address.sun_path;
	struct stat st;

	if (path[0] == '\0' || lstat(path, &st) < 0)
		return;
	if (st.st_dev == l->unix_device && st.st_ino == l->unix_inode)
		unlink(path);
}

void uring_listener_close(struct listener *base)
{
	struct uring_listener *l = container_of(base, struct uring_listener, base);

	quarry_assert(!l->is_closing);
	l->is_closing = true;
	unix_file_remove(l);
	if (l->accepting != NULL)
		uring_cancel(uring_of(base->reactor), l->accepting);
	if (l->accepting == NULL)
		listener_free(l);
}

static int stream_accept(struct uring_listener *l, int fd, struct stream **out)
{
	struct uring_stream *s = calloc(1, sizeof *s);

	if (s == NULL) {
		close(fd);
		return -ENOMEM;
	}
	s->base.reactor = l->base.reactor;
	s->fd = fd;
	s->is_tcp = l->unix_address.sun_path[0] == '\0';
	stream_begin(s);
	*out = &s->base;
	return 0;
}

/* Errors of the connection that was to be accepted, which is gone; the next one may be fine. */
static bool is_of_one_connection(int res)
{
	return res == -ECONNABORTED || res == -EPROTO || res == -ENETDOWN || res == -ENETUNREACH || res == -EHOSTDOWN ||
	       res == -EHOSTUNREACH || res == -ENONET || res == -ENOPROTOOPT;
}

bool uring_accept_is_over(struct op *op, int *res)
{
	struct uring_listener *l = container_of(op->listener, struct uring_listener, base);

	if (l->is_closing) {
		if (*res >= 0)
			close(*res);
		*res = -ECANCELED;
		listener_free(l);
		return true;
	}
	if (*res == -EINTR || *res == -EAGAIN || is_of_one_connection(*res))
		return false;
	if (*res >= 0)
		*res = stream_accept(l, *res, op->new_stream);
	return true;
}

/* ---- a socket that somebody else has connected ---- */

static bool is_connected_unix_stream(int fd)
{
	struct sockaddr_un peer;
	int type = 0, family = 0;
	socklen_t type_bytes = sizeof type, family_bytes = sizeof family, peer_bytes = sizeof peer;

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_bytes) == 0 && type == SOCK_STREAM &&
	       getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &family_bytes) == 0 && family == AF_UNIX &&
	       getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) == 0;
}

int uring_stream_take(struct reactor *r, int fd, struct stream **out)
{
	bool is_stream = is_connected_unix_stream(fd);
	struct uring_stream *s = is_stream ? calloc(1, sizeof *s) : NULL;

	if (s == NULL) {
		uring_fds_close(r, &fd, 1);
		return is_stream ? -ENOMEM : -ENOTSOCK;
	}
	s->base.reactor = r;
	s->fd = fd;
	stream_begin(s);
	*out = &s->base;
	return 0;
}

/* ---- connecting ---- */

/* For an op that has begun and cannot go on. */
static void fail_later(struct reactor *r, struct op *op, int res)
{
	op->res = res;
	list_append(&r->deferred, &op->link);
}

/* Opens a socket for the next address of the stream; false when there is none, with *res telling why. */
static bool next_address(struct uring_stream *s, int *res)
{
	for (; s->next != NULL; s->next = s->next->ai_next) {
		if (s->next->ai_addrlen > sizeof s->address)
			continue;
		if (s->fd >= 0)
			close(s->fd);
		s->fd = socket(s->next->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (s->fd < 0) {
			*res = -errno;
			continue;
		}
		memcpy(&s->address, s->next->ai_addr, s->next->ai_addrlen);
		s->address_bytes = s->next->ai_addrlen;
		s->next = s->next->ai_next;
		return true;
	}
	return false;
}

static void connect_submit(struct uring_stream *s, struct op *op)
{
	op->stream = &s->base;
	uring_submit(s->base.reactor, op);
}

static struct uring_stream *stream_make(struct reactor *r, bool is_tcp)
{
	struct uring_stream *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	s->base.reactor = r;
	s->fd = -1;
	s->is_tcp = is_tcp;
	return s;
}

static void connect_unix(struct reactor *r, struct op *op, const char *path)
{
	struct uring_stream *s = stream_make(r, false);
	int res = s == NULL ? -ENOMEM : unix_address_fill(&s->address.un, path);

	if (res == 0) {
		s->address_bytes = sizeof s->address.un;
		s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		res = s->fd < 0 ? -errno : 0;
	}
	if (res == 0) {
		connect_submit(s, op);
		return;
	}
	if (s != NULL)
		stream_free(s);
	fail_later(r, op, res);
}

/* Takes over `found`. */
static void connect_found(struct reactor *r, struct op *op, struct addrinfo *found)
{
	struct uring_stream *s = stream_make(r, true);
	int res = -EADDRNOTAVAIL;

	if (s == NULL) {
		freeaddrinfo(found);
		fail_later(r, op, -ENOMEM);
		return;
	}
	s->found = s->next = found;
	if (next_address(s, &res)) {
		connect_submit(s, op);
		return;
	}
	stream_free(s);
	fail_later(r, op, res);
}

bool uring_connect_is_over(struct op *op, int *res)
{
	struct uring_stream *s = stream_of(op->stream);

	if (*res == -ECANCELED)
		*res = -ETIMEDOUT; /* only the limit of its time cancels it */
	if (*res < 0 && next_address(s, res))
		return false;
	if (*res < 0) {
		stream_free(s);
		return true;
	}
	stream_begin(s);
	*op->new_stream = &s->base;
	return true;
}

/* ---- names, resolved on a thread: getaddrinfo() may wait for a server far away ---- */

struct resolving {
	struct message message;
	pthread_t thread;
	struct reactor *reactor;
	struct op *op;
	struct host_port name;
	struct addrinfo *found;
	int res;
};

static void name_resolved(struct message *m)
{
	struct resolving *w = container_of(m, struct resolving, message);

	uring_of(w->reactor)->n_in_flight--;
	pthread_join(w->thread, NULL); /* it may still be leaving reactor_post(), which must not outlast the reactor */
	if (w->res < 0)
		fail_later(w->reactor, w->op, w->res);
	else
		connect_found(w->reactor, w->op, w->found);
	free(w);
}

static void *name_resolve(void *context)
{
	struct resolving *w = context;

	w->res = host_port_resolve(&w->name, 0, &w->found);
	reactor_post(w->reactor, &w->message);
	return NULL;
}

/* Starts the thread, with all signals blocked: they are for the threads of the program. */
static int resolving_start(struct resolving *w)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int res = -pthread_create(&w->thread, NULL, name_resolve, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return res;
}

static void connect_named(struct reactor *r, struct op *op, const struct host_port *name)
{
	struct resolving *w = calloc(1, sizeof *w);

	if (w == NULL) {
		fail_later(r, op, -ENOMEM);
		return;
	}
	*w = (struct resolving){.message.deliver = name_resolved, .reactor = r, .op = op, .name = *name};
	int res = resolving_start(w);
	if (res < 0) {
		free(w);
		fail_later(r, op, res);
		return;
	}
	uring_of(r)->n_in_flight++;
}

void uring_connect(struct reactor *r, struct op *op, const char *address, struct stream **out)
{
	struct host_port name;
	struct addrinfo *found;

	quarry_assert(op->new_stream == out);
	if (is_unix_address(address)) {
		connect_unix(r, op, address);
		return;
	}
	int res = host_port_parse(address, &name);
	if (res < 0) {
		fail_later(r, op, res);
		return;
	}
	res = host_port_resolve(&name, AI_NUMERICHOST, &found);
	if (res == 0)
		connect_found(r, op, found);
	else if (res == -EHOSTUNREACH)
		connect_named(r, op, &name); /* no number: a name */
	else
		fail_later(r, op, res);
}
