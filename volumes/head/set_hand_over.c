/*
 * set_hand_over.c: the command that has another node serve a volume: volume move.
 *
 *   CHECK -> DETACH -> END
 *
 *   DETACH   as a detach, but for its record: it stays attached, and the other node owns it, which hears of that and attaches
 *            it by itself (set_nodes.c: return)
 *
 * A node that is being drained orders it for itself (set_node_drain.c).
 *
 * Invariant: from the record on, whatever dies, one node has it: the new owner, which had its lease then, or who takes it
 * over from that. Without the record it is this node's as before, and is attached again.
 *
 * Owner: the set.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <string.h>

enum hand_over_stage { HAND_OVER_CHECK, HAND_OVER_DETACH };

static int hand_over_check_node(struct command *c)
{
	struct member_view view;
	const char *node = c->order->other;
	bool is_known = c->set->members ? members_find(c->set->members, node, &view) : set_node_is_self(c->set, node);
	if (!is_known)
		return command_refuse_missing(c, "node", node);
	if (c->set->members && !set_node_is_alive(c->set, node))
		return command_refuse(c, -EIO, "failed",
				      "node %s is not alive: start it, or choose another (quarry node list)", node);
	return command_check_node_takes(c, node);
}

/* The set's own: this node is being drained. 1: go on; 0: not as things are by now. */
static int hand_over_check_own(struct command *c)
{
	return command_find_own(c) && node_drain_choose(c->volume, c->order->other, sizeof(c->order->other));
}

/* 1: go on; 0: it is there already; -errno. */
static int hand_over_check(struct command *c)
{
	if (command_find_volume(c) != 0 || hand_over_check_node(c) != 0)
		return c->err;
	const struct volume_facts *f = &c->volume->facts;
	if (!volume_facts_are_attached(f))
		return command_refuse(
		    c, -EINVAL, "invalid",
		    "volume %s is not attached: quarry volume attach %s on node %s has it served there", f->name,
		    f->name, c->order->other);
	if (strcmp(f->owner, c->order->other) == 0)
		return 0;
	if (command_check_here(c, c->volume) != 0)
		return c->err;
	if (f->is_attached_vhost)
		return command_refuse(
		    c, -EBUSY, "in-use",
		    "volume %s is attached over vhost-user, and its client is on this node: quarry volume "
		    "detach %s --vhost-user, then move it",
		    f->name, f->name);
	if (!volume_facts_are_replicated(f))
		return command_refuse(c, -EINVAL, "invalid",
				      "volume %s has one copy, and only the node of its disk can serve it", f->name);
	if (command_check_whole(c, c->volume, "moved") != 0)
		return c->err;
	if (!c->volume->head)
		return command_refuse(c, -EIO, "failed", "volume %s is not served here now: %s", f->name,
				      c->volume->why);
	return 1;
}

static void hand_over_done(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	if (res != 0) {
		command_refuse(c, res, "failed", "volume %s is not moved: %s", c->order->object, entry->why);
		return_want(entry);
	}
	c->kind->run(c);
}

static void hand_over_run(struct command *c)
{
	if (c->stage == HAND_OVER_CHECK) {
		c->stage = HAND_OVER_DETACH;
		int verdict = c->order->is_internal ? hand_over_check_own(c) : hand_over_check(c);
		c->order->is_unchanged = verdict == 0;
		if (verdict == 1)
			return volume_hand_over(c->volume, c->order->other, hand_over_done, c);
	} else if (c->err == 0) {
		log_event(c->set->log, LOG_NOTICE, "volume-moved", c->volume->facts.name,
			  "volume %s is served by node %s from now on", c->volume->facts.name, c->order->other);
	}
	command_end(c);
}

const struct command_kind command_volume_move = {.name = "volume move", .run = hand_over_run};
