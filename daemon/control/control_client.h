/*
 * control_client.h: the connections of one of the control API's sockets, and which of them makes room for another.
 *
 * libmicrohttpd accepts no more than a fixed number, and whoever connects and says nothing holds one of them. So when
 * all places are taken, the client that has been without a whole request for longest is disconnected: nobody who has
 * something to say waits for somebody who has not. One whose request is carried out is left in peace.
 *
 * Owner: the thread of the socket's libmicrohttpd.
 */
#pragma once

#include "daemon/core/list.h"

struct MHD_Connection;

struct control_clients {
	struct list idle; /* without a whole request; the longest first */
	uint32_t n, n_dismissed, n_max;
};
struct control_client;

void control_clients_init(struct control_clients *all, uint32_t n_max);
/* A connection has been accepted; NULL: no memory, and it is disconnected. */
struct control_client *control_client_add(struct control_clients *all, int fd);
void control_client_remove(struct control_clients *all, struct control_client *c); /* c may be NULL */
/* Its request is whole: from now on it keeps its place. */
void control_client_begin(struct control_clients *all, struct control_client *c);
/* Its request is answered, and it may send another. */
void control_client_rest(struct control_clients *all, struct control_client *c);
