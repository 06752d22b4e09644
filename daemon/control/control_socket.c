/*
 * control_socket.c: makes the control API's listening sockets and reads its secrets, at start; everything may block.
 */
#include "daemon/control/control_socket.h"

#include "daemon/core/unix_socket.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG        64
#define FILE_BYTES_MAX (256 * KIB) /* a certificate chain is some KiB */

static int printf_like(3, 4) refuse(char why[static CONTROL_WHY_BYTES], int res, const char *format, ...)
{
	va_list args;
	quarry_assert(res < 0);
	va_start(args, format);
	vsnprintf(why, CONTROL_WHY_BYTES, format, args);
	va_end(args);
	return res;
}

/* ---- unix ---- */

/* Removes a socket that nobody listens on. 0, or -EADDRINUSE, or -EEXIST: it is no socket. */
static int clear_stale(const struct sockaddr_un *address)
{
	struct stat st;
	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (unix_socket_is_served(address))
		return -EADDRINUSE;
	return unlink(address->sun_path) == 0 ? 0 : -errno;
}

int control_socket_unix(const char *path, char why[static CONTROL_WHY_BYTES])
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(address.sun_path))
		return refuse(why, -ENAMETOOLONG, "control.socket: %s: the path is too long for a socket", path);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	int res = clear_stale(&address);
	if (res == -EADDRINUSE)
		return refuse(why, res, "control.socket: %s: another daemon answers there", path);
	if (res < 0)
		return refuse(why, res, "control.socket: %s: %s", path, strerror(-res));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return refuse(why, -errno, "control.socket: %s", strerror(errno));
	/* Nobody can connect before listen(), so the mode is in force from the start. */
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, 0660) < 0 ||
	    listen(fd, BACKLOG) < 0) {
		res = refuse(why, -errno, "control.socket: %s: %s", path, strerror(errno));
		close(fd);
		return res;
	}
	return fd;
}

/* ---- TCP ---- */

static int listen_at(const struct addrinfo *a)
{
	const int yes = 1;
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
		int res = -errno;
		close(fd);
		return res;
	}
	return fd;
}

int control_socket_tcp(const char *address, char why[static CONTROL_WHY_BYTES])
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
	char host[CONFIG_TEXT_MAX];
	const char *colon = strrchr(address, ':');
	quarry_assert(colon && strlen(address) < sizeof(host));
	config_address_host(address, host);
	int error = getaddrinfo(host, colon + 1, &hints, &found);
	if (error != 0)
		return refuse(why, -EADDRNOTAVAIL, "control.listen: %s: %s", address, gai_strerror(error));
	int fd = -EADDRNOTAVAIL;
	for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
		fd = listen_at(a);
	freeaddrinfo(found);
	return fd >= 0 ? fd : refuse(why, fd, "control.listen: %s: %s", address, strerror(-fd));
}

/* ---- secrets ---- */

char *control_file_read(const char *key, const char *path, char why[static CONTROL_WHY_BYTES])
{
	struct stat st;
	char *text = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	errno = fd < 0 || fstat(fd, &st) < 0         ? errno
		: !S_ISREG(st.st_mode)               ? EINVAL
		: st.st_size > (off_t)FILE_BYTES_MAX ? EFBIG
						     : 0;
	if (errno == 0) {
		text = calloc(1, (size_t)st.st_size + 1);
		if (text && pread(fd, text, (size_t)st.st_size, 0) != st.st_size) {
			free(text);
			text = NULL;
			errno = EIO;
		}
	}
	if (!text)
		(void)!refuse(why, -EINVAL, "%s: %s: cannot be read: %s", key, path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return text;
}

int control_token_read(const char *path, char token[static CONTROL_TOKEN_MAX], char why[static CONTROL_WHY_BYTES])
{
	char *text = control_file_read("control.token_file", path, why);
	if (!text)
		return -EINVAL;
	size_t begin = strspn(text, " \t\r\n"), len = strcspn(text + begin, " \t\r\n");
	int res = 0;
	if (len < CONTROL_TOKEN_MIN || len >= CONTROL_TOKEN_MAX)
		res = refuse(why, -EINVAL, "control.token_file: %s: the token must have %u to %u characters", path,
			     CONTROL_TOKEN_MIN, CONTROL_TOKEN_MAX - 1);
	else
		snprintf(token, CONTROL_TOKEN_MAX, "%.*s", (int)len, text + begin);
	explicit_bzero(text, strlen(text));
	free(text);
	return res;
}

bool control_token_matches(const char *token, const char *authorization)
{
	static const char scheme[] = "Bearer ";
	if (!authorization || strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
		return false;
	const char *given = authorization + sizeof(scheme) - 1;
	size_t n_token = strlen(token), n_given = strlen(given);
	unsigned char differs = n_token != n_given;
	for (size_t i = 0; i < n_given; i++)
		differs |= (unsigned char)(given[i] ^ token[n_token ? i % n_token : 0]);
	return n_token > 0 && differs == 0;
}
