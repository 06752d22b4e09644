/*
 * unix_socket.c: is somebody behind a unix socket?
 */
#include "daemon/core/unix_socket.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_peer_dead(int fd)
{
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0)
		return false; /* of another namespace of processes: nothing is known */
	return kill(peer.pid, 0) < 0 && errno == ESRCH;
}

bool unix_socket_is_served(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool is_served = true;

	quarry_assert(address->sun_family == AF_UNIX);
	if (fd < 0)
		return true;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		is_served = !is_peer_dead(fd);
	else
		is_served = errno != ECONNREFUSED && errno != ENOENT; /* EAGAIN: it listens, and its backlog is full */
	close(fd);
	return is_served;
}
