/*
 * forward.c: a request that another node is to carry out.
 *
 *   prepared --sent--> done(): that node's answer, or none        prepared --cannot be sent--> refused, or a look here
 *
 * Invariants
 *  1. It is sent to one node, once. Who is sent one carries it out or refuses it, and sends it nowhere (errand.c).
 *  2. Its client waits for a bounded time; what then becomes of a command is not known here, and the refusal says so.
 *     Commands may be repeated (P6).
 */
#include "daemon/control/forward.h"

#include "daemon/control/forward_text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMAND_LIMIT_NS (60 * NS_PER_S)
#define LOOK_LIMIT_NS    (3 * NS_PER_S)

void forward_prepare(struct forward *f, const struct order_text *text)
{
	quarry_assert(!f->order.text);
	(void)!forward_text_write(text, &f->order.text, &f->order.text_bytes);
}

bool forward_is_look(const struct order *o)
{
	return !o->is_command || o->command.kind == SET_VOLUME_MEASURE;
}

/* A vhost-user socket is for a machine on the same host. */
static bool is_bound_to_host(const struct order *o)
{
	return o->is_command && o->command.kind == SET_VOLUME_ATTACH && strcmp(o->command.other, "nbd") != 0;
}

static void forward_answered(struct peers_order *o, int res)
{
	struct forward *f = container_of(o, struct forward, order);
	f->done(f, res);
}

bool forward_send(struct forward *f, const struct snapshot_sources *from, const struct order *o, const char *node)
{
	quarry_assert(f->done);
	if (f->is_tried || !f->order.text || !node[0] || is_bound_to_host(o))
		return false;
	f->is_tried = true;
	f->order.limit_ns = forward_is_look(o) ? LOOK_LIMIT_NS : COMMAND_LIMIT_NS;
	f->order.done = forward_answered;
	snprintf(f->node, sizeof(f->node), "%s", node);
	f->res = from->peer_order(from->peers, node, &f->order);
	return f->res == 0;
}

void forward_refuse(const struct forward *f, int res, struct refusal *why)
{
	quarry_assert(res < 0 && f->node[0]);
	if (res == -ETIMEDOUT)
		order_refuse(
		    why, 504, "unreachable",
		    "node %.64s, which is to do this, has not answered within %llu s and may do it yet: look how "
		    "it is (quarry node show %.64s), and repeat the command, which is safe",
		    f->node, f->order.limit_ns / NS_PER_S, f->node);
	else if (res == -ENOTCONN)
		order_refuse(why, 504, "unreachable",
			     "the connection to node %.64s, which is to do this, broke before it answered, and it may "
			     "have done it: look how it is (quarry node show %.64s), and repeat the command, which is "
			     "safe",
			     f->node, f->node);
	else
		order_refuse(
		    why, 504, "unreachable",
		    "node %.64s, which is to do this, could not take it (%s): repeat the command, or run it there",
		    f->node, strerror(-res));
}

void forward_explain(const struct forward *f, struct refusal *why)
{
	const char *reason = f->res == -EBUSY        ? "it has not answered many others yet"
			     : f->res == -EOPNOTSUPP ? "its release of quarry takes no requests from others"
						     : "it cannot be reached from this node now";
	size_t used = strlen(why->message);
	if (f->res < 0)
		snprintf(why->message + used, sizeof(why->message) - used, " (%s)", reason);
}

char *forward_take_answer(struct forward *f)
{
	char *text = f->order.answer;
	f->order.answer = NULL;
	return text;
}

void forward_clear(struct forward *f)
{
	free(f->order.text);
	free(f->order.answer);
	f->order.text = f->order.answer = NULL;
}
