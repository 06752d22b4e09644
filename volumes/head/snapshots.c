/*
 * snapshots.c: the set's copies of what the store holds of snapshots, and the heads that serve them.
 *
 *   no head <-> SERVING -> DRAINING -> no head
 *
 * A snapshot's head is a volume of the set's that only reads: it needs no generation, no session and no lease, since
 * what it reads never changes. It lives while the snapshot is attached or the set itself reads from it.
 *
 * Invariants
 *  1. entry->snapshots is sorted by tree id, which is the order in which they were taken.
 *  2. No two that are not being deleted have the same name.
 *  3. A snapshot with a head is not deleted by this node: its trees stay on the disks. Another node may have its volume, and
 *     delete what is not attached: then its copy here stays, marked, while its head is used.
 *  4. All attachments of a snapshot together are one use of its head: is_served.
 *
 * Owner: the set.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct set_snapshot *snapshot_of(struct list *node)
{
	return container_of(node, struct set_snapshot, link);
}

/* ---- finding ---- */

struct set_snapshot *snapshot_find(struct set_volume *entry, const char *name)
{
	list_each (node, &entry->snapshots)
		if (!snapshot_of(node)->facts.is_deleting && strcmp(snapshot_of(node)->facts.name, name) == 0)
			return snapshot_of(node);
	return NULL;
}

struct set_snapshot *snapshot_by_tree(struct set_volume *entry, uint64_t tree)
{
	list_each (node, &entry->snapshots)
		if (snapshot_of(node)->facts.tree == tree)
			return snapshot_of(node);
	return NULL;
}

struct set_snapshot *snapshot_find_export(struct volume_set *s, const char *name)
{
	char volume[NAME_BYTES];
	const char *at = strchr(name, '@');
	if (!at || (size_t)(at - name) >= sizeof(volume))
		return NULL;
	snprintf(volume, sizeof(volume), "%.*s", (int)(at - name), name);
	struct set_volume *entry = set_volume_find(s, volume);
	return entry ? snapshot_find(entry, at + 1) : NULL;
}

/* ---- taking in ---- */

struct set_snapshot *snapshot_put(struct set_volume *entry, const struct snapshot_facts *facts)
{
	struct list *before = &entry->snapshots; /* new ones are the last */
	while (before->prev != &entry->snapshots && snapshot_of(before->prev)->facts.tree > facts->tree)
		before = before->prev;
	struct set_snapshot *snap = before->prev == &entry->snapshots ? NULL : snapshot_of(before->prev);
	if (snap && snap->facts.tree == facts->tree) {
		if (facts->revision <= snap->facts.revision)
			return snap;
		entry->n_snapshots -= !snap->facts.is_deleting;
	} else {
		snap = calloc(1, sizeof(*snap));
		if (!snap)
			return NULL;
		snap->entry = entry;
		list_append(before, &snap->link);
	}
	snap->facts = *facts;
	entry->n_snapshots += !facts->is_deleting;
	return snap;
}

void snapshot_mark_deleting(struct set_snapshot *snap)
{
	quarry_assert(snap->facts.is_deleting || snap->entry->n_snapshots > 0);
	snap->entry->n_snapshots -= !snap->facts.is_deleting;
	snap->facts.is_deleting = true;
}

void snapshot_remove(struct set_snapshot *snap)
{
	quarry_assert(!snap->head && snap->uses == 0);
	snapshot_mark_deleting(snap); /* it counts no more */
	list_remove(&snap->link);
	free(snap);
}

void snapshots_fini(struct set_volume *entry)
{
	for (struct list *node; (node = list_pop(&entry->snapshots)) != NULL;) {
		if (snapshot_of(node)->head)
			volume_abandon(snapshot_of(node)->head);
		free(snapshot_of(node));
	}
}

void snapshots_mark_lines(const struct set_volume *entry, const struct volume_facts *facts, bool used[LINES_MAX])
{
	memset(used, 0, LINES_MAX * sizeof(used[0]));
	list_each (node, &entry->snapshots)
		for (uint32_t i = 0; i < facts->n_trees; i++)
			used[i] |= !snapshot_of(node)->facts.is_deleting &&
				   snapshot_of(node)->facts.branch == facts->trees[i].id;
}

/* ---- heads ---- */

bool snapshots_are_deleting(const struct set_volume *entry)
{
	list_each (node, &entry->snapshots)
		if (snapshot_of(node)->facts.is_deleting)
			return true;
	return false;
}

/* Every disk of the volume holds the snapshot's tree, or what it should hold there cannot be read. */
void snapshot_find_trees(struct volume *v)
{
	const struct volume_facts *facts = &v->entry->facts;
	for (uint32_t i = 0; i < facts->n_disks; i++) {
		struct set_disk *d = set_disk_known(v->set, &facts->disks[i].uuid);
		if (!d)
			continue;
		struct volume_disk *vd = &v->disks[d->index];
		if (vd->state == VOLUME_DISK_JOINED)
			continue;
		/* What a stale disk had when it failed, it has; what its resync makes is not looked at before that is over. */
		if (facts->disks[i].is_left)
			continue;
		bool is_missing = facts->disks[i].is_stale && volume_tree(v) >= facts->disks[i].had_before;
		vd->state = is_missing ? VOLUME_DISK_STALE : VOLUME_DISK_LOST;
		if (is_missing)
			continue;
		/* Of another node's the record is believed: an error there is looked for elsewhere. */
		if (!set_disk_is_running(d) || (d->disk && !disk_tree_find(d->disk, &facts->uuid, volume_tree(v))))
			continue;
		replica_open_reader(volume_disk_replica(v, d->index));
		vd->state = VOLUME_DISK_JOINED;
	}
}

static void snapshot_name(struct volume *v)
{
	text_print(v->name, sizeof(v->name), "%s@%s", v->entry->facts.name, v->snapshot->facts.name);
}

int snapshot_open(struct set_snapshot *snap)
{
	struct volume *v = snap->head;
	if (!v) {
		int err = volume_create(snap->entry, snap->facts.size_bytes, &v);
		if (err != 0)
			return err;
		v->snapshot = snap;
		v->is_read_only = true;
		v->state = VOLUME_SERVING;
		snapshot_name(v);
		snapshot_find_trees(v);
		volume_explain(v);
		snap->head = v;
	}
	snap->uses++;
	return 0;
}

void snapshot_close(struct set_snapshot *snap)
{
	quarry_assert(snap->head && snap->uses > 0);
	if (--snap->uses > 0)
		return;
	volume_destroy(snap->head);
	snap->head = NULL;
	if (snap->facts.is_deleting) /* by another node: it goes with what is read again */
		set_watch_missed(snap->entry->set);
}

void snapshots_missed(struct set_volume *entry)
{
	entry->is_history_short = true;
	set_watch_missed(entry->set);
}

bool snapshots_are_read(const struct set_volume *entry)
{
	list_each (node, &entry->snapshots)
		if (snapshot_of(node)->head)
			return true;
	return false;
}

void snapshot_gone(struct set_snapshot *snap)
{
	if (!snap->head) {
		snapshot_remove(snap);
		return;
	}
	snapshot_mark_deleting(snap);
}

int snapshot_serve(struct set_snapshot *snap)
{
	int err = snap->is_served ? 0 : snapshot_open(snap);
	if (err == 0)
		snap->is_served = true;
	return err;
}

void snapshot_serve_end(struct set_snapshot *snap)
{
	quarry_assert(snap->is_served);
	snap->is_served = false;
	snapshot_close(snap);
}

bool snapshot_is_attached(const struct set_snapshot *snap)
{
	return snap->facts.attached_nbd[0] || snap->facts.attached_vhost[0];
}

bool snapshot_has_export(const struct set_snapshot *snap)
{
	return strcmp(snap->facts.attached_nbd, snap->entry->set->node_name) == 0;
}

bool snapshot_is_left(const struct set_snapshot *snap)
{
	const struct snapshot_facts *f = &snap->facts;
	bool is_idle = !snap->head || (snap->is_served && snap->uses == 1 && snap->head->refs == 0);
	return f->is_temporary && snapshot_has_export(snap) && !f->attached_vhost[0] && is_idle;
}

bool snapshot_has_door(const struct set_snapshot *snap)
{
	return strcmp(snap->facts.attached_vhost, snap->entry->set->node_name) == 0;
}

const struct set_snapshot *snapshot_served_elsewhere(const struct set_volume *entry, const char **node)
{
	const struct volume_set *s = entry->set;
	list_each (link, &entry->snapshots) {
		const struct set_snapshot *snap = snapshot_of(link);
		const char *const nodes[] = {snap->facts.attached_nbd, snap->facts.attached_vhost};
		for (uint32_t i = 0; i < array_size(nodes) && s->members; i++) {
			*node = nodes[i];
			if (nodes[i][0] && !set_node_is_self(s, nodes[i]) && set_node_is_alive(s, nodes[i]))
				return snap;
		}
	}
	return NULL;
}

uint32_t snapshot_vhost_queues(const struct set_snapshot *snap)
{
	return snap->facts.vhost_queues ? snap->facts.vhost_queues : VOLUME_VHOST_QUEUES_DEFAULT;
}

void snapshot_rename(struct set_volume *entry)
{
	list_each (node, &entry->snapshots) {
		struct volume *head = snapshot_of(node)->head;
		if (!head)
			continue;
		snapshot_name(head);
		volume_tell(head, VOLUME_RENAMED);
	}
}

void snapshots_each_head(struct set_volume *entry, void (*each)(struct volume *v, void *context), void *context)
{
	list_each_safe (node, &entry->snapshots)
		if (snapshot_of(node)->head)
			each(snapshot_of(node)->head, context);
}
