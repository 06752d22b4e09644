/*
 * node.h: one node of quarry: its metadata store, disks, volumes, NBD server and control API, started and stopped in
 * order.
 *
 * Nothing of a node is global: several may live in one process, each on a reactor of its own.
 */
#pragma once

#include "daemon/config.h"
#include "daemon/core/reactor.h"

struct node;

#define NODE_WHY_BYTES 400

struct node_options {
	struct reactor *reactor;
	struct log *log;
	const struct config *config; /* borrowed until the node has ended */
	/* Called once when everything serves. */
	void (*started)(struct node *n, void *context);
	/* Called once, last, when all is closed and freed: 0, or the -errno of a start that failed, with the reason. */
	void (*ended)(int res, const char *why, void *context);
	void *context;
};
/* Begins to start; the rest happens on the reactor. 0 or -ENOMEM (nothing is called then). */
must_check int node_start(const struct node_options *o, struct node **out);
/* Stops in order: the API, the clients, the volumes with a last checkpoint of each disk, the store. May be called while
 * the node starts; a second call does nothing. */
void node_stop(struct node *n);
/* What the node does now, for people: "recovering the disks". */
const char *node_stage_text(const struct node *n);
