/*
 * notify.h: tells the service manager how the daemon is, by sd_notify(3)'s protocol: a datagram to NOTIFY_SOCKET.
 */
#pragma once

#include "daemon/core/base.h"

struct notify {
	int fd; /* -1: nobody wants to know */
};
/* Connects to the socket that the environment names; without one all calls do nothing. */
void notify_open(struct notify *n);
void notify_close(struct notify *n);
/* Lines of VARIABLE=VALUE: "READY=1", "STATUS=...". Never blocks; a manager that does not listen is no error. */
void printf_like(2, 3) notify_send(struct notify *n, const char *format, ...);
