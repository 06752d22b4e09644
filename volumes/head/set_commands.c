/*
 * set_commands.c: the queue of commands, and the commands that are one transaction.
 *
 *   submitted -> in line -> carried out -> done()          one at a time, in the order of submission
 *                              |   ^
 *                              +-> aside (a disk being written through: others pass)
 *
 * In a cluster, what other nodes have changed is taken into the copies between two commands (set_watch.c).
 *
 *   change_run():   DECIDE -> TRANSACT -> APPLY            DECIDE looks at this node's copy of the store
 *                      ^          |
 *                      +- RELOAD -+  refused, or the outcome is unknown
 *
 * Invariants
 *  1. At most one command is carried out; it is the first of set->commands, and has `own`. Those aside are in no line.
 *  2. A command is atomic: what it changes in the store is one transaction, and its copies follow the store, never
 *     lead.
 *  3. It may be repeated (P6): DECIDE finds what an earlier try or an earlier command has done already, and that is
 *     success.
 *  4. A command that fails has `why` and `code`.
 *
 * Owner: the set.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHANGE_TRIES_MAX 8u /* a store that refuses this often is not refusing because of a race */

static const struct command_kind *const kinds[] = {
    [SET_DISK_ADD] = &command_disk_add,
    [SET_DISK_REMOVE] = &command_disk_remove,
    [SET_DISK_DRAIN] = &command_disk_drain,
    [SET_REHOME] = &command_rehome,
    [SET_DISKS_SEEN] = &command_seen,
    [SET_DISK_SCRUB] = &command_disk_scrub,
    [SET_NODE_DRAIN] = &command_node_drain,
    [SET_NODE_DISKS] = &command_node_disks,
    [SET_BALANCE] = &command_balance,
    [SET_POOL_CREATE] = &command_pool_create,
    [SET_POOL_SET] = &command_pool_set,
    [SET_POOL_DELETE] = &command_pool_delete,
    [SET_VOLUME_CREATE] = &command_volume_create,
    [SET_VOLUME_DELETE] = &command_volume_delete,
    [SET_VOLUME_RESIZE] = &command_volume_resize,
    [SET_VOLUME_RENAME] = &command_volume_rename,
    [SET_VOLUME_SET] = &command_volume_set,
    [SET_VOLUME_ATTACH] = &command_volume_attach,
    [SET_VOLUME_DETACH] = &command_volume_detach,
    [SET_VOLUME_MOVE] = &command_volume_move,
    [SET_VOLUME_MEASURE] = &command_measure,
    [SET_VOLUME_SCHEDULE] = &command_schedule,
    [SET_VOLUME_CLONE] = &command_clone,
    [SET_VOLUME_CHANGES] = &command_changes,
    [SET_SNAPSHOT_CREATE] = &command_snapshot_create,
    [SET_SNAPSHOT_DELETE] = &command_snapshot_delete,
    [SET_SNAPSHOT_ROLLBACK] = &command_snapshot_rollback,
    [SET_SWEEP] = &command_sweep,
    [SET_RELEASE] = &command_release,
    [SET_RETURN] = &command_return,
    [SET_TAKEOVER] = &command_takeover,
};

/* ---- refusing ---- */

int command_refuse(struct command *c, int err, const char *code, const char *format, ...)
{
	va_list args;
	quarry_assert(err < 0);
	va_start(args, format);
	vsnprintf(c->order->why, sizeof(c->order->why), format, args);
	va_end(args);
	text_print(c->order->code, sizeof(c->order->code), "%s", code);
	c->err = err;
	return err;
}

int command_refuse_missing(struct command *c, const char *noun, const char *name)
{
	return command_refuse(c, -ENOENT, "not-found", MISSING_FORMAT, noun, name, noun);
}

int command_refuse_store(struct command *c, int err)
{
	if (err == -EBUSY || err == -EAGAIN)
		return command_refuse(c, -EBUSY, "busy", "others keep changing the same: try again");
	return command_refuse(c, -EIO, "store-failed",
			      "the metadata store failed (%s): nothing was changed that it confirmed; "
			      "look at the log and try again",
			      strerror(-err));
}

int command_check_whole(struct command *c, const struct set_volume *entry, const char *what)
{
	const struct fill_facts *fill = &entry->facts.fill;
	if (fill->source[0] == 0)
		return 0;
	return command_refuse(
	    c, -EBUSY, "in-use",
	    "volume %s cannot be %s while it is being filled from %s: wait until that is done (quarry volume show "
	    "%s), or delete it",
	    entry->facts.name, what, fill->source, entry->facts.name);
}

int command_find_volume(struct command *c)
{
	c->volume = set_volume_find(c->set, c->order->object);
	if (c->volume)
		return 0;
	return command_refuse_missing(c, "volume", c->order->object);
}

int command_find_snapshot(struct command *c)
{
	const struct set_target *t = &c->order->targets[0];
	char name[SNAPSHOT_NAME_BYTES];
	c->volume = set_volume_find(c->set, t->volume);
	if (!c->volume)
		return command_refuse_missing(c, "volume", t->volume);
	c->snapshot = snapshot_find(c->volume, t->snapshot);
	if (c->snapshot)
		return 0;
	text_print(name, sizeof(name), "%s@%s", t->volume, t->snapshot);
	return command_refuse_missing(c, "snapshot", name);
}

static void history_loaded(struct set_load *l, int res)
{
	struct command *c = l->context;
	if (res != 0)
		command_refuse_store(c, res);
	c->kind->run(c);
}

enum flow command_settle_history(struct command *c, const struct set_volume *entry)
{
	if (!entry || !entry->is_history_short || c->has_loaded)
		return FLOW_NEXT;
	c->has_loaded = true;
	set_load_start(&c->load, c->set, history_loaded, c);
	return FLOW_WAIT;
}

/* ---- one transaction ---- */

static void change_decide(struct command *c);

static void change_finish(struct command *c)
{
	transaction_clear(&c->transaction);
	c->kind->run(c);
}

static void change_loaded(struct set_load *l, int res)
{
	struct command *c = l->context;
	if (res != 0) {
		command_refuse_store(c, res);
		change_finish(c);
		return;
	}
	change_decide(c);
}

static void change_answered(struct metadata_request *q, int res)
{
	struct command *c = container_of(transaction_of(q), struct command, transaction);
	if (res == 0) {
		c->kind->apply(c, q->revision);
		change_finish(c);
		return;
	}
	transaction_clear(&c->transaction);
	if ((res != -EAGAIN && res != -ETIMEDOUT) || ++c->tries == CHANGE_TRIES_MAX) {
		command_refuse_store(c, res);
		change_finish(c);
		return;
	}
	set_load_start(&c->load, c->set, change_loaded, c);
}

static void change_decide(struct command *c)
{
	transaction_begin(&c->transaction, change_answered);
	int decision = c->kind->decide(c);
	if (decision == 1) {
		int err = transaction_submit(&c->transaction, c->set->metadata);
		if (err == 0)
			return;
		decision = command_refuse(c, err, "no-memory", "there is no memory to do this");
	}
	quarry_assert(decision == 0 || c->err == decision);
	if (decision == 0 && c->tries == 0) /* behind a refused or unknown outcome it may be this command's own */
		c->order->is_unchanged = true;
	change_finish(c);
}

void change_run(struct command *c)
{
	quarry_assert(c->kind->decide && c->kind->apply && c->err == 0);
	change_decide(c);
}

void command_change_run(struct command *c)
{
	enum { CHANGE_BEGIN, CHANGE_OVER };
	if (c->stage == CHANGE_OVER)
		return command_end(c);
	c->stage = CHANGE_OVER;
	change_run(c);
}

/* ---- the line ---- */

static void command_destroy(struct command *c)
{
	transaction_clear(&c->transaction);
	volume_facts_clear(&c->volume_facts);
	snapshot_work_free(c->snapshots);
	clone_work_free(c->clone);
	sweep_work_free(c->sweep);
	measure_work_free(c->measure);
	changes_work_free(c->changes);
	free(c);
}

static void command_done(struct set_command *order, int res)
{
	quarry_assert(res == 0 || (order->why[0] && order->code[0]));
	list_remove(&order->link);
	order->own = NULL;
	order->done(order, res);
}

void commands_wake(struct volume_set *s)
{
	if (s->command_op.kind == OP_NONE)
		reactor_defer(s->reactor, &s->command_op, 0);
}

void order_free_internal(struct set_command *o)
{
	if (o->is_internal)
		free(o);
}

static void own_done(struct set_command *o, int res)
{
	order_free_internal(o);
}

/* NULL: one is in line, by this bit of its kind, or there is no memory. */
static struct set_command *own_create(uint32_t *orders, enum set_command_kind kind,
				      void (*done)(struct set_command *o, int res))
{
	struct set_command *o = *orders >> kind & 1 ? NULL : calloc(1, sizeof(*o));
	_Static_assert(array_size(kinds) <= 32, "there is a bit for each");
	if (!o)
		return NULL;
	*orders |= 1u << kind;
	o->kind = kind;
	o->is_internal = true;
	o->done = done;
	return o;
}

void order_own(struct set_volume *entry, enum set_command_kind kind)
{
	struct set_command *o = own_create(&entry->orders, kind, own_done);
	if (!o)
		return;
	o->volume = entry->facts.uuid;
	text_print(o->object, sizeof(o->object), "%s", entry->facts.name);
	volume_set_command(entry->set, o);
}

void set_order_own(struct volume_set *s, enum set_command_kind kind, void (*done)(struct set_command *o, int res))
{
	struct set_command *o = own_create(&s->orders, kind, done);
	if (!o)
		return;
	o->set = s;
	volume_set_command(s, o);
}

struct volume_set *set_own_ended(struct set_command *o)
{
	struct volume_set *s = o->set;
	quarry_assert(o->is_internal && s && s->orders >> o->kind & 1);
	s->orders &= ~(1u << o->kind);
	order_free_internal(o);
	return s;
}

struct set_volume *command_find_own(struct command *c)
{
	quarry_assert(c->order->is_internal);
	c->volume = set_volume_by_uuid(c->set, &c->order->volume);
	if (c->volume)
		c->volume->orders &= ~(1u << c->order->kind);
	return c->volume;
}

/* What it is about, as the user named it: all snapshots of one consistent point, an object, or the path of a disk. */
static void order_to_text(const struct set_command *o, char *out, size_t out_bytes)
{
	size_t n = 0;
	text_print(out, out_bytes, "%s", o->object[0] ? o->object : o->path);
	for (uint32_t i = 0; i < o->n_targets && !o->object[0]; i++, n += strlen(out + n))
		text_print(out + n, out_bytes - n, "%s%s@%s", i ? " " : "", o->targets[i].volume,
			   o->targets[i].snapshot);
}

void command_end(struct command *c)
{
	struct volume_set *s = c->set;
	struct set_command *order = c->order;
	char object[2 * SET_TEXT_MAX];
	int err = c->err;
	order_to_text(order, object, sizeof(object));
	if (err != 0)
		log_line(s->log, LOG_INFO, "command", "%s %s: refused (%s): %s", c->kind->name, object, order->code,
			 order->why);
	command_destroy(c);
	commands_wake(s);
	command_done(order, err);
}

static bool target_ends(const struct set_target *t)
{
	return memchr(t->volume, 0, sizeof(t->volume)) && memchr(t->snapshot, 0, sizeof(t->snapshot));
}

/* Texts come from outside: they end, or the command is refused. */
static bool order_texts_end(const struct set_command *o)
{
	bool all_end = memchr(o->object, 0, sizeof(o->object)) && memchr(o->other, 0, sizeof(o->other)) &&
		       memchr(o->path, 0, sizeof(o->path)) && memchr(o->pool, 0, sizeof(o->pool)) &&
		       target_ends(&o->since) && o->n_targets <= SET_TARGETS_MAX;
	for (uint32_t i = 0; i < SET_TARGETS_MAX && all_end; i++)
		all_end = target_ends(&o->targets[i]);
	return all_end;
}

/* NAME@SNAP is attached and detached in another way than a volume. */
static const struct command_kind *order_command_kind(const struct set_command *o)
{
	bool is_snapshot = strchr(o->object, '@') != NULL;
	if (is_snapshot && o->kind == SET_VOLUME_ATTACH)
		return &command_export;
	if (is_snapshot && o->kind == SET_VOLUME_DETACH)
		return &command_unexport;
	return kinds[o->kind];
}

static void order_refuse(struct set_command *o, int err, const char *code, const char *why)
{
	text_print(o->code, sizeof(o->code), "%s", code);
	text_print(o->why, sizeof(o->why), "%s", why);
	command_done(o, err);
}

static void command_begin(struct volume_set *s, struct set_command *o)
{
	if (s->is_stopping)
		return order_refuse(o, -ESHUTDOWN, "stopping", "the daemon is stopping");
	if ((unsigned)o->kind >= array_size(kinds) || !order_texts_end(o))
		return order_refuse(o, -EINVAL, "invalid", "the command is malformed");
	struct command *c = calloc(1, sizeof(*c));
	if (!c)
		return order_refuse(o, -ENOMEM, "no-memory", "there is no memory to carry this out");
	c->order = o;
	c->set = s;
	c->kind = order_command_kind(o);
	transaction_begin(&c->transaction, NULL);
	o->own = c;
	c->kind->run(c);
}

/* Is a command being carried out? Those that others may pass rely on nothing meanwhile. */
static bool commands_are_busy(const struct volume_set *s)
{
	return !list_is_empty(&s->commands) && container_of(s->commands.next, struct set_command, link)->own &&
	       !((struct command *)container_of(s->commands.next, struct set_command, link)->own)->is_resuming;
}

static void commands_turn(struct op *op, int res)
{
	struct volume_set *s = container_of(op, struct volume_set, command_op);
	if (s->start) /* it attaches what a command of the set's own might as well; its end wakes them */
		return;
	if (!commands_are_busy(s) && set_watch_settle(s) == FLOW_WAIT)
		return;
	if (list_is_empty(&s->commands)) {
		set_stop_run(s);
		return;
	}
	struct set_command *o = container_of(s->commands.next, struct set_command, link);
	struct command *c = o->own;
	if (!c) {
		command_begin(s, o); /* o may be gone after */
	} else if (c->is_resuming) {
		c->is_resuming = false;
		c->kind->run(c);
	}
	if (list_is_empty(&s->commands) || !container_of(s->commands.next, struct set_command, link)->own)
		commands_wake(s); /* an empty line too: a stop may wait for it */
}

void volume_set_command(struct volume_set *s, struct set_command *c)
{
	quarry_assert(c->done);
	c->own = NULL;
	c->why[0] = c->code[0] = c->node[0] = 0;
	c->is_unchanged = false;
	list_append(&s->commands, &c->link);
	commands_wake(s);
}

void command_step_aside(struct command *c)
{
	list_remove(&c->order->link);
	list_append(&c->set->aside, &c->order->link);
	commands_wake(c->set);
}

/* Behind the one that is carried out, before all that have not begun. */
void command_step_back_in(struct command *c)
{
	struct list *first = c->set->commands.next;
	bool is_busy = first != &c->set->commands && container_of(first, struct set_command, link)->own;
	c->is_resuming = true;
	list_remove(&c->order->link);
	list_prepend(is_busy ? first : &c->set->commands, &c->order->link);
	commands_wake(c->set);
}

/* ---- the end of the set ---- */

void commands_init(struct volume_set *s)
{
	list_init(&s->commands);
	list_init(&s->aside);
	op_init(&s->command_op, commands_turn);
}

static void commands_abandon_list(struct list *list)
{
	for (struct list *node; (node = list_pop(list)) != NULL;) {
		struct set_command *o = container_of(node, struct set_command, link);
		struct command *c = o->own;
		if (!c) {
			order_free_internal(o);
			continue;
		}
		record_update_abandon(&c->update);
		metadata_request_clear(&c->load.request);
		if (c->maker)
			disk_maker_abandon(c->maker);
		command_destroy(c);
		order_free_internal(o);
	}
}

void commands_abandon(struct volume_set *s)
{
	commands_abandon_list(&s->commands);
	commands_abandon_list(&s->aside);
}
