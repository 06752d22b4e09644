/*
 * control_client.c: which connection makes room for another.
 *
 *   accepted -> IDLE <-> BUSY -> closed
 *                 |
 *                 +-> dismissed: shut down, libmicrohttpd sees the end and closes it
 *
 * Invariants
 *  1. A client is linked in `idle` exactly when it has no whole request and was not dismissed.
 *  2. Beside the dismissed there are never more than n_max, while any is idle.
 */
#include "daemon/control/control_client.h"

#include <stdlib.h>
#include <sys/socket.h>

struct control_client {
	struct list link; /* in idle */
	int fd;           /* libmicrohttpd's */
	bool is_dismissed;
};

void control_clients_init(struct control_clients *all, uint32_t n_max)
{
	quarry_assert(n_max > 0);
	*all = (struct control_clients){.n_max = n_max};
	list_init(&all->idle);
}

static void dismiss_longest_idle(struct control_clients *all)
{
	struct list *first = list_pop(&all->idle);
	if (!first)
		return;
	struct control_client *c = container_of(first, struct control_client, link);
	quarry_assert(!c->is_dismissed);
	c->is_dismissed = true;
	all->n_dismissed++;
	shutdown(c->fd, SHUT_RDWR);
}

struct control_client *control_client_add(struct control_clients *all, int fd)
{
	struct control_client *c = calloc(1, sizeof(*c));
	if (!c) {
		shutdown(fd, SHUT_RDWR);
		return NULL;
	}
	quarry_assert(all->n >= all->n_dismissed);
	if (all->n - all->n_dismissed >= all->n_max)
		dismiss_longest_idle(all);
	c->fd = fd;
	list_init(&c->link);
	list_append(&all->idle, &c->link);
	all->n++;
	return c;
}

void control_client_remove(struct control_clients *all, struct control_client *c)
{
	if (!c)
		return;
	quarry_assert(all->n > 0);
	all->n--;
	all->n_dismissed -= c->is_dismissed;
	list_remove(&c->link);
	free(c);
}

void control_client_begin(struct control_clients *all, struct control_client *c)
{
	quarry_assert(all->n > 0);
	if (c)
		list_remove(&c->link);
}

void control_client_rest(struct control_clients *all, struct control_client *c)
{
	if (!c || c->is_dismissed)
		return;
	list_remove(&c->link);
	list_append(&all->idle, &c->link);
}
