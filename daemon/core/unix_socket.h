/*
 * unix_socket.h: is somebody behind a unix socket, or was it left behind by a process that is gone?
 */
#pragma once

#include "daemon/core/base.h"

#include <sys/un.h>

/* Is the socket at this address served by a living process, as far as can be told? Any thread; does not wait.
 *
 * A socket may answer for a moment after its process was killed and reaped: the kernel ends the io_uring that holds it
 * later. So whoever answers is asked for its process, too (SO_PEERCRED, unix(7)). */
must_check bool unix_socket_is_served(const struct sockaddr_un *address);
