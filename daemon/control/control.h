/*
 * control.h: the control API: HTTP and JSON on a unix socket, and on TCP with a bearer token.
 *
 * libmicrohttpd receives and sends on a thread of its own; what touches volumes and disks is done on the node's
 * reactor. docs/openapi.yaml is the contract.
 */
#pragma once

#include "daemon/config.h"
#include "daemon/control/snapshot.h"

struct control;

#define CONTROL_WHY_BYTES 300

struct control_options {
	struct log *log;
	const struct config *config; /* borrowed until the end */
	struct snapshot_sources sources;
	uint64_t started_wall_ns;
};
/* Listens and answers. 0, or -errno with one line in why. On the reactor's thread, as all calls. */
must_check int control_start(const struct control_options *o, char why[static CONTROL_WHY_BYTES], struct control **out);
/* What another node has sent on; it is answered by peer_order_answer(), before control_stop() ends. */
void control_take_order(struct control *c, struct peer_order *o);
/* Takes no more requests, lets those under way end (commands for CONTROL_GRACE_S, then their clients are told to ask
 * again), frees everything, calls stopped(). A command that outlasts it ends with the volume set. */
void control_stop(struct control *c, void (*stopped)(void *context), void *context);
#define CONTROL_GRACE_S 5
