/*
 * errand.c: carries out what another node has been asked and cannot do.
 *
 *   taken --read--> its command --done--> a look --> answered          a look alone has no command
 *            +- cannot be read, refused ---------------^
 *
 * Invariants
 *  1. An errand is never sent on: if it is not this node's either, because the volume has just moved, the answer says
 *     whose it is, as any refusal does. So there is no way round in circles.
 *  2. It is answered exactly once. One that was abandoned has been, and is freed when its command ends.
 *  3. Who has the cluster's key may do all that who reaches the control socket may: it can write to the disks anyway.
 *
 * The answer is made on the reactor, where the API's own are made on a thread of theirs: it is about single objects, and
 * has at most PEER_TEXT_MAX bytes.
 */
#include "daemon/control/errand.h"

#include "daemon/control/forward_text.h"
#include "daemon/control/look.h"
#include "daemon/core/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct errand {
	struct list link;
	struct errands *all;
	struct peer_order *from; /* NULL: it was answered, and its command goes on */
	struct order order;
	struct refusal refusal;
	struct snapshot snapshot;
	bool is_refused;
};

/* The text with room up to the end of its last block, or NULL. */
static char *text_round_up(char *text, size_t len)
{
	char *longer = text ? realloc(text, (len + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES) : NULL;
	if (!longer)
		free(text);
	return longer;
}

static void answer_with(struct peer_order *from, unsigned status, char *text)
{
	size_t len = text ? strlen(text) : 0;
	text = text_round_up(text, len);
	peer_order_answer(from, text ? status : 0, text, text ? (uint32_t)len : 0);
}

static void refuse(struct peer_order *from, const struct refusal *why)
{
	answer_with(from, why->status, answer_refusal(why));
}

static void refuse_closed(struct peer_order *from)
{
	struct refusal why;
	order_refuse(&why, 503, "busy", "the daemon that is to do this is starting or stopping; ask again");
	refuse(from, &why);
}

static void errand_free(struct errand *e)
{
	snapshot_clear(&e->snapshot);
	free(e->order.command.changes.extents);
	free(e);
}

static void errand_answer(struct errand *e)
{
	struct errands *all = e->all;
	const struct answer_context *c = &all->answers;
	struct refusal *why = &e->refusal;
	char *text = e->is_refused ? NULL : answer_make(c, &e->order, &e->snapshot, why);
	if (text && strlen(text) > PEER_TEXT_MAX) {
		free(text);
		text = NULL;
		order_refuse(why, 409, "elsewhere", "the answer is too large to be passed on: ask node %s itself",
			     c->config->node.name);
	}
	if (text)
		answer_with(e->from, e->order.status, text);
	else
		refuse(e->from, why);
	list_remove(&e->link);
	errand_free(e);
	if (list_is_empty(&all->all))
		all->idle(all);
}

static void errand_done(struct set_command *command, int res)
{
	struct errand *e = container_of(command, struct errand, order.command);
	if (!e->from) {
		errand_free(e);
		return;
	}
	e->is_refused = res < 0;
	if (res < 0)
		order_refusal_of(command, res, &e->refusal);
	else
		look_take(&e->order, e->all->sources, &e->snapshot);
	errand_answer(e);
}

static int errand_read(struct errand *e)
{
	struct order_text text;
	const struct peer_order *from = e->from;
	char *copy = malloc(from->text_bytes + 1);
	if (!copy) {
		order_refuse(&e->refusal, 500, "internal", "the daemon has no memory for this request");
		return -ENOMEM;
	}
	memcpy(copy, from->text, from->text_bytes);
	copy[from->text_bytes] = '\0';
	int res = forward_text_read(copy, from->text_bytes, &text);
	if (res < 0)
		order_refuse(&e->refusal, 400, "invalid", "node %s has sent on what is no request", from->node);
	else
		res = order_read(&text, &e->order, &e->refusal);
	if (res == 0)
		log_line(e->all->answers.log, e->order.is_command ? LOG_INFO : LOG_DEBUG, "errand",
			 "for node %s: %s %s", from->node, text.method, text.path);
	free(copy);
	return res;
}

void errands_take(struct errands *all, struct peer_order *from)
{
	struct errand *e = all->is_open ? calloc(1, sizeof(*e)) : NULL;
	if (!e) {
		refuse_closed(from);
		return;
	}
	e->all = all;
	e->from = from;
	list_init(&e->link);
	list_append(&all->all, &e->link);
	e->is_refused = errand_read(e) < 0;
	if (!e->is_refused && e->order.is_command) {
		e->order.command.done = errand_done;
		volume_set_command(all->sources->volumes, &e->order.command);
		return;
	}
	if (!e->is_refused)
		look_take(&e->order, all->sources, &e->snapshot);
	errand_answer(e);
}

void errands_init(struct errands *e, const struct answer_context *answers, const struct snapshot_sources *sources,
		  void (*idle)(struct errands *e))
{
	e->answers = *answers;
	e->answers.is_from_afar = true;
	e->sources = sources;
	e->idle = idle;
	e->is_open = true;
	list_init(&e->all);
}

void errands_close(struct errands *e)
{
	e->is_open = false;
}

void errands_abandon(struct errands *all)
{
	quarry_assert(!all->is_open);
	for (struct list *node; (node = list_pop(&all->all)) != NULL;) {
		struct errand *e = container_of(node, struct errand, link);
		struct peer_order *from = e->from;
		e->from = NULL;
		refuse_closed(from);
	}
}
