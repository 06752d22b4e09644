/*
 * errand.h: requests of the control API that other nodes have sent on, because this node is the one to carry them out.
 *
 * Owner: the reactor; all calls on its thread.
 */
#pragma once

#include "daemon/control/answer.h"
#include "replication/peer_server.h"

struct errands {
	struct answer_context answers;
	const struct snapshot_sources *sources;
	/* The last of them has ended. */
	void (*idle)(struct errands *e);
	struct list all; /* that have not been answered */
	bool is_open;
};

void errands_init(struct errands *e, const struct answer_context *answers, const struct snapshot_sources *sources,
		  void (*idle)(struct errands *e));
void errands_take(struct errands *e, struct peer_order *from);
/* No more are taken: whoever sends one is told to ask again. */
void errands_close(struct errands *e);
/* Those under way are answered so, too; their commands go on, and free what they need at their end. */
void errands_abandon(struct errands *e);
