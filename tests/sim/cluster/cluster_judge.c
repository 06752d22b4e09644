/*
 * cluster_judge.c: the end of a seed: what was wrong is over, the cluster heals by itself, and everything is compared.
 *
 *   heal     nodes start, disks that failed are opened anew, volumes are attached
 *   settle   within SETTLE_NS: every volume has one head, all its copies are current, as many as it is to have, apart from
 *            each other; nothing moves, nothing is freed; what is drained is empty, and is then drained no more
 *   scrub    every disk: what has rotted there, and nobody has read, is healed
 *   compare  every cell of every volume and snapshot, at its head, and on each disk by itself; the rest of each copy
 *   empty    all volumes are deleted, some are rolled back before; nothing is left on any disk
 *   leave    nodes stop; each disk is checked as `quarry disk check` does; the store holds nothing that nobody names
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_world.h"
#include "tests/sim/sim_check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_NS    (300 * NS_PER_S)
#define REBALANCE_NS (50 * NS_PER_S)

/* ---- settle ---- */

/* What keeps the volume from being whole; NULL: nothing. One that was given up is none any more. */
static const char *volume_trouble(struct cluster *c, const struct model_volume *v)
{
	const struct volume *head = NULL;
	uint32_t n_heads = 0;
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		const struct volume *one = client_head(&c->nodes[i], v);
		head = one ? one : head;
		n_heads += one != NULL;
	}
	if (n_heads == 0 && c->is_keeping_drains && !volume_facts_are_replicated(&v->facts.record))
		return NULL; /* only its own node can have it, which may be drained */
	if (n_heads != 1)
		return n_heads ? "it has two heads" : "it has no head";
	if (head->why[0])
		return head->why;
	if (head->resync)
		return "a resync does not end";
	if (head->move || head->leave)
		return "its segments are still being moved";
	if (!list_is_empty(&head->requests) && !barrier_is_resting(head))
		return "its requests do not end";
	return spread_trouble(c, v);
}

static const char *drain_trouble(struct cluster *c, const char **who)
{
	const char *why = NULL;
	for (uint32_t i = 0; i < c->n_disks && !why; i++) {
		const struct cluster_disk *d = &c->disks[i];
		*who = d->name;
		why = c->is_keeping_drains                 ? spread_drain_trouble(c, d)
		      : disk_is_there(d) && d->is_draining ? "it is being drained"
							   : NULL;
	}
	for (uint32_t i = 0; i < c->n_nodes && !why; i++) {
		*who = c->nodes[i].name;
		why = c->is_keeping_drains     ? spread_node_trouble(c, &c->nodes[i])
		      : c->node_is_draining[i] ? "it is being drained"
					       : NULL;
	}
	return why;
}

static const char *node_trouble(const struct cluster_node *n)
{
	if (n->state != NODE_UP)
		return "it is not up";
	if (!members_may_serve(n->members))
		return "it has no lease";
	if (!list_is_empty(&n->set->commands) || !list_is_empty(&n->set->aside))
		return "a command does not end";
	if (n->set->balance.is_on)
		return "it still rebalances";
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		struct disk_stats stats;
		if (!n->set->disks[i] || n->set->disks[i]->facts.is_removed)
			continue;
		if (n->set->disks[i]->state != SET_DISK_RUNNING)
			return "a disk does not run";
		if (!n->set->disks[i]->disk)
			continue;
		disk_stats(n->set->disks[i]->disk, &stats);
		if (stats.dying_trees > 0)
			return "what was dropped is not freed";
	}
	return NULL;
}

static const char *trouble(struct cluster *c, const char **who)
{
	const char *why = NULL;
	for (uint32_t i = 0; i < c->n_nodes && !why; i++) {
		why = node_trouble(&c->nodes[i]);
		*who = c->nodes[i].name;
	}
	for (uint32_t i = 0; i < VOLUMES_MAX && !why; i++) {
		const struct model_volume *v = &c->volumes[i];
		if (v->facts.exists && (v->facts.record.is_deleting || v->is_lost))
			why = "it is not deleted";
		else if (v->cells)
			why = volume_trouble(c, v);
		*who = v->facts.exists ? v->facts.record.name : v->name;
	}
	if (!why)
		why = drain_trouble(c, who);
	if (!why) {
		why = facts_left_over(c);
		*who = "the store";
	}
	if (!why && (!orders_are_idle(c) || !clients_are_idle(c))) {
		why = "requests do not end";
		*who = "";
	}
	return why;
}

/* A volume in doubt is there or not, as the store says. */
static void doubts_end(struct cluster *c)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
		struct model_volume *v = &c->volumes[i];
		if (!v->cells || v->doubt == DOUBT_NONE || v->is_quiet)
			continue;
		bool is_there = v->facts.exists && !v->facts.record.is_deleting;
		cluster_say(c, NULL, "%s is %sthere after all", v->name, is_there ? "" : "not ");
		if (is_there)
			v->doubt = DOUBT_NONE;
		else
			volume_forget(v);
	}
}

static void tend(struct cluster *c)
{
	if (orders_are_idle(c))
		doubts_end(c);
	rot_pass(c);
	upkeep_return_disks(c);
	upkeep_delete_lost(c);
	if (!c->is_keeping_drains)
		upkeep_cancel_drains(c);
	order_detach_broken(c);
	order_attach_lost(c);
	for (uint32_t i = 0; i < c->n_nodes; i++)
		for (uint32_t d = 0; d < SET_DISKS_MAX && c->nodes[i].state == NODE_UP; d++)
			if (c->nodes[i].set->disks[d] && c->nodes[i].set->disks[d]->disk)
				disk_checkpoint(c->nodes[i].set->disks[d]->disk); /* a dropped tree is gone with it */
}

static void explain_request(const char *line, void *context)
{
	const struct cluster_node *n = context;
	printf("  %s: waits: %s\n", n->name, line);
}

/* What the nodes themselves say of what they wait for. */
static void explain(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		struct cluster_node *n = &c->nodes[i];
		if (n->state != NODE_UP)
			continue;
		list_each (node, &n->set->volumes) {
			const struct set_volume *v = container_of(node, struct set_volume, link);
			printf("  %s: %s%s%s owned by %s, %s; %s %s\n", n->name, v->facts.name,
			       v->facts.is_deleting ? ", being deleted," : "", v->reap ? " (by us)" : "",
			       v->facts.owner[0] ? v->facts.owner : "nobody",
			       v->head ? "served here" : "not served here", v->why, v->obstacle.text);
			if (v->head && v->head->why[0])
				printf("    %s\n", v->head->why);
		}
		for (uint32_t d = 0; d < SET_DISKS_MAX; d++)
			if (n->set->disks[d] && n->set->disks[d]->state != SET_DISK_RUNNING)
				printf("  %s: disk %s does not run: %s\n", n->name, n->set->disks[d]->facts.name,
				       n->set->disks[d]->why);
		for (uint32_t d = 0; d < SET_DISKS_MAX; d++)
			if (n->set->disks[d] && n->set->disks[d]->disk)
				printf("  %s: disk %s has room for %llu blocks\n", n->name,
				       n->set->disks[d]->facts.name,
				       (unsigned long long)set_disk_room(n->set->disks[d]));
		volume_set_slow_requests(n->set, 0, explain_request, n);
	}
}

static void settle(struct cluster *c)
{
	uint64_t end_ns = sim_now_ns(c->sim) + SETTLE_NS;
	const char *who = "", *why;
	for (;;) {
		tend(c);
		cluster_pass(c, 500 * NS_PER_MS);
		why = trouble(c, &who);
		if (!why)
			return;
		if (sim_now_ns(c->sim) >= end_ns)
			explain(c);
		if (sim_now_ns(c->sim) >= end_ns)
			cluster_fail(c, "%s does not become whole again: %s", who, why);
	}
}

/* ---- compare: at the heads ---- */

static struct cluster_node *head_node(struct cluster *c, const struct model_volume *v)
{
	for (uint32_t i = 0; i < c->n_nodes; i++)
		if (client_head(&c->nodes[i], v))
			return &c->nodes[i];
	cluster_fail(c, "%s has lost its head", v->name);
}

static uint64_t must_read(struct cluster *c, struct volume *head, const char *name, uint32_t cell)
{
	uint64_t token;
	int res = client_read(c, head, cell, &token);
	if (res != 0)
		cluster_fail(c, "cell %u of %s cannot be read: %d", cell, name, res);
	return token;
}

static void compare_live(struct cluster *c, struct model_volume *v, uint64_t *tokens)
{
	char why[ORACLE_WHY_BYTES];
	struct volume *head = client_head(head_node(c, v), v);
	if (v->rollback.point)
		rollback_decide(v, head);
	client_check_ballast(c, v, head);
	for (uint32_t cell = 0; cell < oracle_volume_cells(v->cells); cell++) {
		struct oracle_mark mark = oracle_now(v->cells);
		tokens[cell] = must_read(c, head, v->name, cell);
		if (!oracle_read(v->cells, cell, mark, tokens[cell], why))
			cluster_fail(c, "%s at its end: %s", v->name, why);
	}
}

/* ---- compare: each disk by itself ---- */

struct look {
	struct disk_io io;
	bool is_done;
	int res;
};

static void look_done(struct disk_io *io, int res)
{
	struct look *l = container_of(io, struct look, io);
	l->is_done = true;
	l->res = res;
}

static void look(struct cluster *c, struct disk *d, struct look *l)
{
	l->io.done = look_done;
	disk_submit(d, &l->io);
	while (!l->is_done)
		cluster_pass(c, NS_PER_MS);
}

static void compare_cell(struct cluster *c, const struct cluster_disk *d, struct disk_tree *tree, const char *name,
			 uint32_t cell, uint64_t token)
{
	static uint8_t memory[BLOCK_BYTES] __attribute__((aligned(4096)));
	struct iovec iov = {memory, BLOCK_BYTES};
	struct look l = {
	    .io = {.op = DISK_READ, .tree = tree, .first = cell_block(cell), .n_blocks = 1, .iov = &iov, .n_iov = 1}};
	look(c, node_disk(&c->nodes[d->node], d)->disk, &l);
	if (l.res != 0)
		cluster_fail(c, "cell %u of %s cannot be read on %s: %d", cell, name, d->name, l.res);
	if (content_token(memory) != token)
		cluster_fail(c, "cell %u of %s is %llx on %s, and %llx at its head", cell, name,
			     (unsigned long long)content_token(memory), d->name, (unsigned long long)token);
}

/* Every block of data, of all segments, as a mask of cells: nothing lies elsewhere. */
static void compare_map(struct cluster *c, const struct cluster_disk *d, struct disk_tree *tree, const char *name,
			uint32_t segment)
{
	struct disk_extent extents[64];
	struct look l = {.io = {.op = DISK_MAP,
				.tree = tree,
				.first = segment * SEGMENT_BLOCKS,
				.n_blocks = SEGMENT_BLOCKS,
				.extents = extents,
				.extents_max = array_size(extents)}};
	look(c, node_disk(&c->nodes[d->node], d)->disk, &l);
	if (l.res != 0)
		cluster_fail(c, "%s has no map of %s: %d", d->name, name, l.res);
	for (uint32_t i = 0; i < l.io.n_extents; i++) {
		const struct disk_extent *e = &extents[i];
		uint64_t first = cell_block(segment * CELLS_EACH), ballast = ballast_block(segment);
		if (e->first >= ballast && e->first + e->n_blocks <= ballast + BALLAST_BLOCKS)
			continue;
		if (e->is_data && (e->first < first || e->first + e->n_blocks > first + CELLS_EACH))
			cluster_fail(c, "%s has data of %s at block %llu, where nobody wrote", d->name, name,
				     (unsigned long long)e->first);
	}
}

static void compare_copies(struct cluster *c, const struct model_volume *v, const char *name, uint64_t tree_id,
			   const uint64_t *tokens)
{
	for (uint32_t segment = 0; segment < v->n_segments; segment++) {
		uint64_t placed = facts_placed(c, v, segment) & ~c->removed;
		for (uint32_t i = 0; i < c->n_disks; i++) {
			const struct cluster_disk *d = &c->disks[i];
			if (!(placed >> i & 1))
				continue;
			if (!node_disk(&c->nodes[d->node], d))
				cluster_fail(c, "%s does not run, and has a copy of %s", d->name, name);
			struct disk_tree *tree =
			    disk_tree_find(node_disk(&c->nodes[d->node], d)->disk, &v->facts.record.uuid, tree_id);
			if (!tree)
				cluster_fail(c, "%s has no tree %llu of %s", d->name, (unsigned long long)tree_id,
					     name);
			for (uint32_t cell = segment * CELLS_EACH; cell < (segment + 1) * CELLS_EACH; cell++)
				compare_cell(c, d, tree, name, cell, tokens[cell]);
			compare_map(c, d, tree, name, segment);
			c->totals.checks++;
		}
	}
}

/* ---- compare: snapshots ---- */

static void compare_snapshot(struct cluster *c, struct model_volume *v, struct model_snapshot *s)
{
	char why[ORACLE_WHY_BYTES], name[SNAPSHOT_NAME_BYTES];
	uint64_t tokens[SEGMENTS_MAX * CELLS_EACH];
	struct cluster_node *n = head_node(c, v);
	struct set_command attach = {.kind = SET_VOLUME_ATTACH, .other = "nbd"};
	text_print(name, sizeof(name), "%s@%s", v->name, s->name);
	text_print(attach.object, sizeof(attach.object), "%s", name);
	if (order_wait(c, n, &attach) != 0)
		cluster_fail(c, "%s cannot be attached: %s", name, attach.why);
	struct set_snapshot *snap = snapshot_find_export(n->set, name);
	if (!snap || !snap->is_served)
		cluster_fail(c, "%s is not served", name);
	for (uint32_t cell = 0; cell < oracle_volume_cells(v->cells); cell++) {
		tokens[cell] = must_read(c, snap->head, name, cell);
		if (!point_read(s->point, cell, tokens[cell], why))
			cluster_fail(c, "%s: %s", name, why);
	}
	compare_copies(c, v, name, snap->facts.tree, tokens);
	attach.kind = SET_VOLUME_DETACH;
	if (order_wait(c, n, &attach) != 0)
		cluster_fail(c, "%s cannot be detached: %s", name, attach.why);
}

static void compare_volume(struct cluster *c, struct model_volume *v)
{
	uint64_t tokens[SEGMENTS_MAX * CELLS_EACH];
	compare_live(c, v, tokens);
	compare_copies(c, v, v->name, v->facts.record.live_tree, tokens);
	for (uint32_t i = 0; i < SNAPSHOTS_EACH; i++) {
		struct model_snapshot *s = &v->snapshots[i];
		if (!s->name[0] || !s->point)
			continue;
		bool is_there = facts_have_snapshot(c, v, s->name);
		if (!is_there && s->doubt == DOUBT_NONE)
			cluster_fail(c, "%s has lost its snapshot %s", v->name, s->name);
		if (is_there)
			compare_snapshot(c, v, s);
	}
}

/* ---- empty ---- */

/* A node may not have heard yet what the last command did at another, or a disk is just being left. */
#define LAG_NS (5 * NS_PER_S)

static void must(struct cluster *c, struct cluster_node *n, struct set_command o)
{
	uint64_t end_ns = sim_now_ns(c->sim) + LAG_NS;
	int res = order_wait(c, n, &o);
	while ((res == -EBUSY || res == -EREMOTE || res == -EIO) && sim_now_ns(c->sim) < end_ns) {
		cluster_pass(c, 100 * NS_PER_MS);
		res = order_wait(c, n, &o);
	}
	if (res != 0)
		cluster_fail(c, "%s: command %d on %s fails at the end: %s", n->name, o.kind, o.object, o.why);
}

static void empty_volume(struct cluster *c, const struct model_volume *v)
{
	const struct model_snapshot *s = &v->snapshots[pick(c, SNAPSHOTS_EACH)];
	struct set_command delete = order_command(SET_VOLUME_DELETE, v, NULL);
	struct cluster_node *n = head_node(c, v);
	delete.with_snapshots = true;
	must(c, n, order_command(SET_VOLUME_DETACH, v, NULL));
	if (volume_facts_are_replicated(&v->facts.record))
		n = &c->nodes[pick(c, c->n_nodes)];
	if (s->name[0] && s->point && facts_have_snapshot(c, v, s->name))
		must(c, n, order_command(SET_SNAPSHOT_ROLLBACK, v, s));
	must(c, &c->nodes[pick(c, c->n_nodes)], delete);
}

static bool all_is_deleted(struct cluster *c)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (c->volumes[i].facts.exists)
			return false;
	for (uint32_t i = 0; i < c->n_nodes; i++)
		if (node_trouble(&c->nodes[i]))
			return false;
	return !facts_left_over(c);
}

struct tree_look {
	struct cluster *cluster;
	const struct cluster_disk *disk;
};

static void judge_tree(const struct tree_record *t, void *context)
{
	const struct tree_look *l = context;
	cluster_fail(l->cluster, "%s has tree %llu of a volume that is deleted", l->disk->name,
		     (unsigned long long)t->tree_id);
}

/* Space that nobody names would never be free again. */
static void empty(struct cluster *c)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (c->volumes[i].cells)
			empty_volume(c, &c->volumes[i]);
	if (!cluster_until(c, all_is_deleted, SETTLE_NS))
		cluster_fail(c, "what is deleted is not gone");
	for (uint32_t i = 0; i < c->n_disks; i++) {
		struct tree_look l = {c, &c->disks[i]};
		struct set_disk *d = disk_is_there(l.disk) ? node_disk(&c->nodes[l.disk->node], l.disk) : NULL;
		if (d)
			disk_trees_each(d->disk, judge_tree, &l);
	}
}

/* ---- leave ---- */

static void check_disk(struct cluster *c, const struct cluster_disk *d)
{
	struct sim_check offline;
	sim_check_init(&offline, d->file);
	int res = disk_check_run(&offline.check);
	if (res != 0 || offline.check.errors > 0)
		cluster_fail(c, "%s: the check answers %d: %s", d->name, res, offline.findings[0]);
}

static bool all_are_down(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_nodes; i++)
		if (c->nodes[i].state != NODE_DOWN)
			return false;
	return true;
}

static void leave(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		c->nodes[i].start_at_ns = UINT64_MAX;
		node_stop(&c->nodes[i]);
	}
	if (!cluster_until(c, all_are_down, SETTLE_NS))
		cluster_fail(c, "a node does not stop");
	for (uint32_t i = 0; i < c->n_disks; i++)
		if (disk_is_there(&c->disks[i]))
			check_disk(c, &c->disks[i]);
}

void cluster_judge(struct cluster *c)
{
	faults_heal(c);
	c->is_keeping_drains = c->habits & HABIT_KEEP_DRAINS;
	if (c->is_keeping_drains)
		settle(c);
	c->is_keeping_drains = false;
	settle(c);
	if (c->habits & HABIT_BALLAST) { /* disks may have become unlike meanwhile: they are looked at now and then */
		cluster_pass(c, REBALANCE_NS);
		settle(c);
	}
	rot_scrub_all(c);
	c->is_quiet = true;
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (c->volumes[i].cells)
			compare_volume(c, &c->volumes[i]);
	empty(c);
	leave(c);
}
