/*
 * changes.c: what differs between a volume and an earlier point, for frontends and for the control plane.
 *
 *   FIRST -> SECOND -> MERGE -> (FIRST ...) -> END
 *
 *   FIRST    asks the volume what it changed since the two were the same, as far as the scratch memory goes
 *   SECOND   asks the base the same of this window; not when the base is an ancestor: it has changed nothing since
 *   MERGE    lays one over the other: a block that either has changed counts as changed
 *
 * "The same" is decided by the lines of their records (history.h). No bitmap is kept: the trees are Merkle trees whose
 * pointers carry the highest epoch below, so what is older is not looked at.
 *
 * Invariants
 *  1. Whatever differs is told; what is told was written, trimmed or zeroed on one of both sides since they were the same,
 *     or is a hole on both.
 *  2. While a base is open its snapshot has a head, and is not deleted by this node.
 *  3. A base of another node's volume is not read: that node may move its segments, or delete it. Nor need it be where it
 *     is an ancestor.
 *
 * Owner: the reactor of both volumes.
 */
#include "volumes/head/command_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHANGES_STAGES(X) X(FIRST) X(SECOND) X(MERGE) X(END)
#define X(name)           CHANGES_##name,
enum changes_stage { CHANGES_STAGES(X) };
#undef X

struct volume_base {
	struct volume *volume;
	struct set_snapshot *snapshot; /* NULL: an ancestor of another node's volume */
	uint64_t since;                /* the first epoch that counts as changed */
	bool is_ancestor;
};

/* ---- bases ---- */

/* A volume as it was at one of its snapshots, or, with NULL, as it is. */
static void point_lineage(const struct set_volume *entry, const struct set_snapshot *snap, struct lineage *out)
{
	const struct volume_facts *f = &entry->facts;
	if (snap)
		lineage_of(f, snap->facts.branch, snap->facts.epoch, out);
	else
		lineage_of(f, f->live_tree, EPOCH_MAX, out);
}

static struct common base_common(const struct set_volume *entry, const struct set_snapshot *at,
				 const struct set_snapshot *base)
{
	struct lineage a, b;
	point_lineage(entry, at, &a);
	point_lineage(base->entry, base, &b);
	return lineage_common(&a, &b);
}

/* Of another volume, which is another node's. Of the same one, what this node reads is a snapshot that is attached here, and
 * nothing is taken away under that (leave.c). */
static bool base_is_elsewhere(const struct set_volume *entry, const struct set_snapshot *base)
{
	return base->entry != entry && set_volume_is_elsewhere(base->entry);
}

static struct set_snapshot *base_find(struct volume *v, const char *since)
{
	return strchr(since, '@') ? snapshot_find_export(v->set, since) : snapshot_find(v->entry, since);
}

/* Its head, which is to tell what it has changed. */
static int base_open_snapshot(struct volume *v, struct set_snapshot *snap)
{
	if (snapshot_open(snap) != 0)
		return -ENOMEM;
	/* what a volume erased when it shrank lies behind its end, and has changed */
	if (volume_grow_chunks(snap->head, v->size_bytes) != 0) {
		snapshot_close(snap);
		return -ENOMEM;
	}
	return 0;
}

int volume_base_open(struct volume *v, const char *since, struct volume_base **out)
{
	struct set_snapshot *snap = base_find(v, since);
	if (!snap)
		return -ENOENT;
	struct common common = base_common(v->entry, v->snapshot, snap);
	bool is_elsewhere = base_is_elsewhere(v->entry, snap);
	if (is_elsewhere && !common.is_ancestor_of_a)
		return -EREMOTE;
	struct volume_base *b = calloc(1, sizeof(*b));
	if (!b || (!is_elsewhere && base_open_snapshot(v, snap) != 0)) {
		free(b);
		return -ENOMEM;
	}
	*b = (struct volume_base){.volume = v,
				  .snapshot = is_elsewhere ? NULL : snap,
				  .since = common.epoch + 1,
				  .is_ancestor = common.is_ancestor_of_a};
	*out = b;
	return 0;
}

void volume_base_close(struct volume_base *b)
{
	if (b->snapshot)
		snapshot_close(b->snapshot);
	free(b);
}

/* It was this node's when it was opened, and another one has taken its volume since. */
static bool base_is_lost(const struct volume_base *b)
{
	return !b->is_ancestor && (b->snapshot->facts.is_deleting || base_is_elsewhere(b->volume->entry, b->snapshot));
}

void volume_each_base(struct volume *v, void (*each)(const char *name, void *context), void *context)
{
	list_each_safe (node, &v->entry->snapshots) {
		const struct snapshot_facts *f = &container_of(node, struct set_snapshot, link)->facts;
		if (!f->is_deleting && (!v->snapshot || f->tree < v->snapshot->facts.tree))
			each(f->name, context);
	}
}

/* ---- the stages' work ---- */

#define HALF (VOLUME_CHANGES_SCRATCH / 2)

static void changes_run(struct volume_changes *c);

static void changes_fail(struct volume_changes *c, int res)
{
	c->own.stage = CHANGES_END;
	c->done(c, res);
}

static void changes_answered(struct volume_io *io, int res)
{
	struct volume_changes *c = container_of(io, struct volume_changes, own.io);
	if (res != 0)
		changes_fail(c, res);
	else
		changes_run(c);
}

static void changes_ask(struct volume_changes *c, struct volume *v, struct volume_extent *extents)
{
	c->own.io = (struct volume_io){.op = VOLUME_MAP,
				       .pos_bytes = c->own.cursor,
				       .len_bytes = c->own.window_end - c->own.cursor,
				       .extents = extents,
				       .extents_max = HALF,
				       .since = c->base->since,
				       .done = changes_answered};
	volume_submit_internal(v, &c->own.io);
}

static uint64_t extents_bytes(const struct volume_extent *e, uint32_t n)
{
	uint64_t bytes = 0;
	for (uint32_t i = 0; i < n; i++)
		bytes += e[i].len_bytes;
	return bytes;
}

static void changes_first(struct volume_changes *c)
{
	c->own.window_end = c->pos_bytes + c->len_bytes;
	changes_ask(c, c->base->volume, c->scratch);
}

/* Behind this the base has never had anything: the volume has grown since it was opened. */
static uint64_t base_end(const struct volume_base *b)
{
	return b->snapshot->head->n_chunks * PLACEMENT_CHUNK * SEGMENT_BYTES;
}

/* FLOW_NEXT: there is nothing to ask it. */
static enum flow changes_second(struct volume_changes *c)
{
	c->own.n_first = c->own.io.n_extents;
	c->own.n_second = 0;
	c->own.window_end = c->own.cursor + extents_bytes(c->scratch, c->own.n_first);
	quarry_assert(c->own.window_end > c->own.cursor);
	if (c->base->is_ancestor || base_end(c->base) <= c->own.cursor)
		return FLOW_NEXT;
	uint64_t window_end = c->own.window_end;
	c->own.window_end = min_u64(window_end, base_end(c->base));
	changes_ask(c, c->base->snapshot->head, c->scratch + HALF);
	c->own.window_end = window_end;
	return FLOW_WAIT;
}

static bool changes_add(struct volume_changes *c, uint64_t len_bytes, bool is_changed, bool is_data)
{
	struct volume_extent *last = c->n_extents ? &c->extents[c->n_extents - 1] : NULL;
	if (last && last->is_changed == is_changed && last->is_data == is_data) {
		last->len_bytes += len_bytes;
		return true;
	}
	if (c->n_extents == c->extents_max)
		return false;
	c->extents[c->n_extents++] =
	    (struct volume_extent){.len_bytes = len_bytes, .is_changed = is_changed, .is_data = is_data};
	return true;
}

/* A row of extents being walked over; behind its end nothing has changed. */
struct strip {
	const struct volume_extent *extents;
	uint32_t n, index;
	uint64_t left_bytes; /* of the one at hand */
};

static struct volume_extent strip_at(struct strip *s, uint64_t max_bytes)
{
	if (s->left_bytes == 0 && s->index < s->n)
		s->left_bytes = s->extents[s->index].len_bytes;
	if (s->index == s->n)
		return (struct volume_extent){.len_bytes = max_bytes};
	struct volume_extent e = s->extents[s->index];
	e.len_bytes = s->left_bytes;
	return e;
}

static void strip_advance(struct strip *s, uint64_t bytes)
{
	if (s->index == s->n)
		return;
	quarry_assert(bytes <= s->left_bytes);
	s->left_bytes -= bytes;
	s->index += s->left_bytes == 0;
}

/* How far both answers reach. */
static uint64_t changes_window(const struct volume_changes *c)
{
	uint64_t second = c->own.cursor + extents_bytes(c->scratch + HALF, c->own.n_second);
	bool is_cut = c->own.n_second > 0 && second < min_u64(c->own.window_end, base_end(c->base));
	return is_cut ? second : c->own.window_end;
}

/* true: go on behind it; false: the room for extents is full. */
static bool changes_merge(struct volume_changes *c)
{
	uint64_t end = changes_window(c);
	struct strip a = {.extents = c->scratch, .n = c->own.n_first};
	struct strip b = {.extents = c->scratch + HALF, .n = c->own.n_second};
	while (c->own.cursor < end) {
		uint64_t left = end - c->own.cursor;
		struct volume_extent x = strip_at(&a, left), y = strip_at(&b, left);
		uint64_t len = min_u64(min_u64(x.len_bytes, y.len_bytes), left);
		/* what only the base has changed may be data or a hole here */
		bool is_changed = x.is_changed || y.is_changed;
		if (!changes_add(c, len, is_changed, x.is_changed ? x.is_data : is_changed))
			return false;
		strip_advance(&a, len);
		strip_advance(&b, len);
		c->own.cursor += len;
	}
	return true;
}

/* ---- the dispatcher ---- */

static void changes_run(struct volume_changes *c)
{
	for (;;) {
		switch ((enum changes_stage)c->own.stage) {
		case CHANGES_FIRST: /* the volume has answered */
			if (base_is_lost(c->base)) {
				changes_fail(c, -ESTALE);
				return;
			}
			c->own.stage = CHANGES_SECOND;
			if (changes_second(c) == FLOW_WAIT)
				return;
			c->own.stage = CHANGES_MERGE;
			break;
		case CHANGES_SECOND: /* the base has, too; what it told may have been cut away while it was read */
			if (base_is_lost(c->base)) {
				changes_fail(c, -ESTALE);
				return;
			}
			c->own.n_second = c->own.io.n_extents;
			c->own.stage = CHANGES_MERGE;
			break;
		case CHANGES_MERGE:
			c->own.stage = CHANGES_END;
			if (!changes_merge(c) || c->own.cursor == c->pos_bytes + c->len_bytes)
				break;
			c->own.stage = CHANGES_FIRST;
			changes_first(c);
			return;
		case CHANGES_END:
			c->done(c, 0);
			return;
		}
	}
}

void volume_changes_submit(struct volume_changes *c)
{
	quarry_assert(c->done && c->extents && c->extents_max > 0 && c->scratch);
	c->n_extents = 0;
	c->own.stage = CHANGES_FIRST;
	c->own.cursor = c->pos_bytes;
	changes_first(c);
}

/* ---- the command: CHECK -> (ATTACH) -> LOOK* -> (DETACH) -> END ---- */

#define DIFF_STAGES(X) X(CHECK) X(ATTACH) X(LOOK) X(DETACH) X(END)
#define X(name)        DIFF_##name,
enum diff_stage { DIFF_STAGES(X) };
#undef X

#define DIFF_EXTENTS_MAX 4096u /* of one answer */

struct changes_work {
	struct command *command;
	struct volume *volume;
	struct set_snapshot *until; /* NULL: the live volume */
	struct volume_base *base;
	struct volume_changes changes;
	struct volume_extent scratch[VOLUME_CHANGES_SCRATCH];
};

void changes_work_free(struct changes_work *w)
{
	if (w)
		free(w->base); /* abandoned with the heads that it has open */
	free(w);
}

static void diff_attached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	c->is_attached_here = res == 0;
	if (res != 0)
		command_refuse(c, -EIO, "failed", "volume %s: %s", entry->facts.name, entry->why);
	c->kind->run(c);
}

static void diff_detached(struct set_volume *entry, int res, void *context)
{
	struct command *c = context;
	c->kind->run(c);
}

static void diff_base_name(const struct command *c, char name[static SNAPSHOT_NAME_BYTES])
{
	const struct set_target *since = &c->order->since;
	text_print(name, SNAPSHOT_NAME_BYTES, "%s@%s", since->volume[0] ? since->volume : c->volume->facts.name,
		   since->snapshot);
}

/* What differs can be told where both are. A volume that nobody has attached can be anywhere its copies are reached. */
static int diff_check_base(struct command *c)
{
	char name[SNAPSHOT_NAME_BYTES], how[2 * NAME_BYTES + 64] = "neither can be moved: each has one copy";
	diff_base_name(c, name);
	const struct set_snapshot *base = snapshot_find_export(c->set, name);
	if (!base || !base_is_elsewhere(c->volume, base) || base_common(c->volume, c->snapshot, base).is_ancestor_of_a)
		return 0;
	const struct volume_facts *f = &c->volume->facts, *other = &base->entry->facts;
	const char *node = set_volume_node(base->entry);
	if (volume_facts_are_replicated(f) && !volume_facts_are_attached(f))
		return command_refuse_elsewhere(c, node, "snapshot %s is of a volume of node %s: run this there", name,
						node);
	if (volume_facts_are_replicated(f))
		text_print(how, sizeof(how), "quarry volume move %s %s", f->name, node);
	else if (volume_facts_are_replicated(other))
		text_print(how, sizeof(how), "quarry volume move %s %s", other->name, c->set->node_name);
	return command_refuse(
	    c, -EREMOTE, "elsewhere",
	    "snapshot %s is of a volume of node %s, and volume %s is one of node %s: they can be compared "
	    "where one node has both (%s)",
	    name, node, f->name, c->set->node_name, how);
}

static int diff_check(struct command *c)
{
	struct set_command *o = c->order;
	o->changes = (struct set_changes){0};
	if (o->targets[0].snapshot[0] ? command_find_snapshot(c) != 0 : false)
		return c->err;
	text_print(o->object, sizeof(o->object), "%s", o->targets[0].volume);
	if (command_find_volume(c) != 0 || command_check_here(c, c->volume) != 0 || diff_check_base(c) != 0)
		return c->err;
	c->changes = calloc(1, sizeof(*c->changes));
	uint64_t max = o->extents_max ? min_u64(o->extents_max, DIFF_EXTENTS_MAX) : DIFF_EXTENTS_MAX;
	o->extents_max = max;
	o->changes.extents = calloc(max, sizeof(*o->changes.extents));
	if (!c->changes || !o->changes.extents)
		return command_refuse(c, -ENOMEM, "no-memory", "there is no memory for the answer");
	c->changes->command = c;
	return 0;
}

static void diff_looked(struct volume_changes *changes, int res)
{
	struct command *c = container_of(changes, struct changes_work, changes)->command;
	struct set_changes *out = &c->order->changes;
	if (res != 0)
		command_refuse(c, -EIO, "failed", "volume %s: its disks answer: %s", c->volume->facts.name,
			       strerror(-res));
	out->n_extents = changes->n_extents;
	out->next_bytes = c->order->pos_bytes + extents_bytes(out->extents, out->n_extents);
	c->kind->run(c);
}

/* FLOW_NEXT: refused, or nothing lies there. */
static enum flow diff_look(struct command *c)
{
	struct changes_work *w = c->changes;
	struct set_command *o = c->order;
	char full[SNAPSHOT_NAME_BYTES];
	diff_base_name(c, full);
	if (c->snapshot && snapshot_open(c->snapshot) != 0) {
		command_refuse(c, -ENOMEM, "no-memory", "there is no memory to read the snapshot");
		return FLOW_NEXT;
	}
	w->until = c->snapshot;
	w->volume = w->until ? w->until->head : c->volume->head;
	o->changes.size_bytes = w->volume->size_bytes;
	int res = volume_base_open(w->volume, full, &w->base);
	if (res == -ENOENT)
		command_refuse_missing(c, "snapshot", full);
	else if (res != 0)
		command_refuse(c, res, "no-memory", "snapshot %s cannot be compared with: %s", full, strerror(-res));
	else if (o->pos_bytes % BLOCK_BYTES != 0 || o->pos_bytes > w->volume->size_bytes)
		command_refuse(c, -EINVAL, "invalid", "from: is a multiple of 4096, at most the size");
	o->changes.next_bytes = o->pos_bytes;
	if (c->err != 0 || o->pos_bytes == w->volume->size_bytes)
		return FLOW_NEXT;
	w->changes = (struct volume_changes){.base = w->base,
					     .pos_bytes = o->pos_bytes,
					     .len_bytes = w->volume->size_bytes - o->pos_bytes,
					     .extents = o->changes.extents,
					     .extents_max = (uint32_t)o->extents_max,
					     .scratch = w->scratch,
					     .done = diff_looked};
	volume_changes_submit(&w->changes);
	return FLOW_WAIT;
}

static void diff_close(struct command *c)
{
	struct changes_work *w = c->changes;
	if (!w)
		return;
	if (w->base)
		volume_base_close(w->base);
	w->base = NULL;
	if (w->until)
		snapshot_close(w->until);
}

static void diff_run(struct command *c)
{
	for (;;) {
		switch ((enum diff_stage)c->stage) {
		case DIFF_CHECK:
			c->stage = diff_check(c) == 0 ? DIFF_ATTACH : DIFF_END;
			if (c->stage == DIFF_ATTACH && !c->snapshot && !c->volume->head) {
				struct attach_options o = {.is_return = true};
				volume_attach(c->volume, &o, diff_attached, c);
				return;
			}
			break;
		case DIFF_ATTACH:
			c->stage = c->err ? DIFF_DETACH : DIFF_LOOK;
			if (c->err == 0 && diff_look(c) == FLOW_WAIT)
				return;
			break;
		case DIFF_LOOK:
			diff_close(c);
			c->stage = DIFF_DETACH;
			if (c->is_attached_here) {
				volume_detach(c->volume, false, diff_detached, c);
				return;
			}
			break;
		case DIFF_DETACH:
			c->stage = DIFF_END;
			break;
		case DIFF_END:
			command_end(c);
			return;
		}
	}
}

const struct command_kind command_changes = {.name = "changes", .run = diff_run};
