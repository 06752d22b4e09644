/*
 * notify.c: sd_notify without libsystemd: one datagram per message.
 */
#include "daemon/notify.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void notify_open(struct notify *n)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = getenv("NOTIFY_SOCKET");
	n->fd = -1;
	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
		return;
	size_t len = strlen(path);
	memcpy(address.sun_path, path, len);
	if (path[0] == '@') /* an abstract name: its first byte is zero */
		address.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, address_len) < 0) {
		close(fd);
		fd = -1;
	}
	n->fd = fd;
}

void notify_close(struct notify *n)
{
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
}

void notify_send(struct notify *n, const char *format, ...)
{
	char text[512];
	va_list args;
	if (n->fd < 0)
		return;
	va_start(args, format);
	int len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	quarry_assert(len > 0 && (size_t)len < sizeof(text));
	(void)!send(n->fd, text, (size_t)len, MSG_NOSIGNAL);
}
