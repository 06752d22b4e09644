/*
 * forward.h: a request of this node's client that another node is to carry out: sent there, and its answer.
 *
 * Owner: the request's; everything but forward_prepare() and forward_clear() on the reactor.
 */
#pragma once

#include "daemon/control/order.h"
#include "daemon/control/snapshot.h"

struct forward {
	struct peers_order order;
	char node[SET_TEXT_MAX]; /* that it was sent to, or should have been */
	int res;                 /* why it could not be sent; 0: it was, or need not be */
	bool is_tried;           /* it is sent on once */
	void (*done)(struct forward *f, int res);
};

/* Any thread: keeps the request as it came. Without memory, or too long, it will not be sent on. */
void forward_prepare(struct forward *f, const struct order_text *text);
/* Is it only a look, which this node can answer in part, from what the store says? */
bool forward_is_look(const struct order *o);
/* Sends it to the node; done() follows. false: it cannot be sent, and f->res may say why. */
bool forward_send(struct forward *f, const struct snapshot_sources *from, const struct order *o, const char *node);
/* The refusal when the node has not answered: done() with res. */
void forward_refuse(const struct forward *f, int res, struct refusal *why);
/* Adds to the refusal of a command for another node why that node was not asked. */
void forward_explain(const struct forward *f, struct refusal *why);
/* The answer's text, to be freed by the caller; once. */
char *forward_take_answer(struct forward *f);
void forward_clear(struct forward *f);
