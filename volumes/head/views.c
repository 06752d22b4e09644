/*
 * views.c: what people look at: disks, volumes and pools as they are now, copied out; and requests that take long.
 *
 * Nothing here changes anything, waits or keeps anything.
 */
#include "volumes/head/head_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- disks ---- */

static enum disk_state view_disk_state(const struct set_disk *d)
{
	if (d->disk && d->state != SET_DISK_OPENING)
		return disk_state(d->disk);
	return d->state == SET_DISK_OPENING ? DISK_RECOVERING : DISK_CLOSED;
}

static void disk_view_fill(const struct set_disk *d, struct disk_view *v)
{
	*v = (struct disk_view){.uuid = d->facts.uuid, .is_reserved = d->facts.is_reserved};
	text_print(v->name, sizeof(v->name), "%s", d->facts.name);
	text_print(v->path, sizeof(v->path), "%s", d->facts.path);
	text_print(v->pool, sizeof(v->pool), "%s", d->facts.pool);
	text_print(v->node, sizeof(v->node), "%s", d->facts.node);
	text_print(v->why, sizeof(v->why), "%s", d->why);
	v->is_elsewhere = d->set->members && !set_disk_is_ours(d);
	if (v->is_elsewhere && !set_node_is_alive(d->set, v->node))
		text_print(v->why, sizeof(v->why), "its node %s is not alive", v->node);
	v->state = view_disk_state(d);
	drain_view(d, v);
	v->is_open = d->disk && (d->state == SET_DISK_RUNNING || d->state == SET_DISK_FAILED);
	if (!v->is_open) {
		v->stats.n_blocks = d->facts.size_bytes / BLOCK_BYTES;
		return;
	}
	quarry_assert(d->disk && v->state != DISK_CLOSED);
	disk_stats(d->disk, &v->stats);
	disk_scrub_status(d->disk, &v->scrub);
	v->is_healing = damage_is_healing(d);
	v->counters = disk_counters(d->disk);
}

/* The disk whose name comes next after `after`; NULL: there is none. */
static const struct set_disk *disk_next(const struct volume_set *s, const struct set_disk *after)
{
	const struct set_disk *next = NULL;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		if (!d || d->facts.is_removed || d->facts.path[0] == 0)
			continue;
		bool is_later = !after || strcmp(d->facts.name, after->facts.name) > 0;
		if (is_later && (!next || strcmp(d->facts.name, next->facts.name) < 0))
			next = d;
	}
	return next;
}

void volume_set_disks(struct volume_set *s, void (*each)(const struct disk_view *v, void *context), void *context)
{
	for (const struct set_disk *d = disk_next(s, NULL); d; d = disk_next(s, d)) {
		struct disk_view v;
		disk_view_fill(d, &v);
		each(&v, context);
	}
}

/* ---- what the trees of all disks take: one pass over each disk, sorted, whoever asks for it afterwards ---- */

struct tree_size {
	struct uuid volume;
	uint64_t tree, blocks;
	uint32_t disk; /* index */
	bool is_dying;
};
struct tree_sizes {
	struct tree_size *all; /* by volume, tree and disk */
	uint32_t n, room, disk;
};

static void tree_size_count(const struct tree_record *t, void *context)
{
	((struct tree_sizes *)context)->room++;
}

static void tree_size_add(const struct tree_record *t, void *context)
{
	struct tree_sizes *sizes = context;
	quarry_assert(sizes->n < sizes->room);
	sizes->all[sizes->n++] = (struct tree_size){.volume = t->volume,
						    .tree = t->tree_id,
						    .blocks = t->n_data_blocks,
						    .disk = sizes->disk,
						    .is_dying = t->state == TREE_DYING};
}

static int tree_size_compare(const void *a, const void *b)
{
	const struct tree_size *x = a, *y = b;
	int order = memcmp(&x->volume, &y->volume, sizeof(x->volume));
	if (order == 0)
		order = (x->tree > y->tree) - (x->tree < y->tree);
	return order ? order : (x->disk > y->disk) - (x->disk < y->disk);
}

static void tree_sizes_each_disk(struct volume_set *s, struct tree_sizes *sizes,
				 void (*each)(const struct tree_record *t, void *context))
{
	for (sizes->disk = 0; sizes->disk < SET_DISKS_MAX; sizes->disk++)
		if (set_disk_runs_here(s->disks[sizes->disk]))
			disk_trees_each(s->disks[sizes->disk]->disk, each, sizes);
}

/* To be freed. Without memory nothing is counted, and the log says so. */
static struct tree_sizes tree_sizes_take(struct volume_set *s)
{
	struct tree_sizes sizes = {0};
	tree_sizes_each_disk(s, &sizes, tree_size_count);
	if (sizes.room == 0)
		return sizes;
	sizes.all = calloc(sizes.room, sizeof(*sizes.all));
	if (!sizes.all) {
		log_line(s->log, LOG_WARNING, "views", "no memory to count what the trees of the volumes take");
		return sizes;
	}
	tree_sizes_each_disk(s, &sizes, tree_size_add);
	qsort(sizes.all, sizes.n, sizeof(*sizes.all), tree_size_compare);
	return sizes;
}

/* The first entry of the volume with this tree or a later one; index n: there is none, nor any other behind. */
static uint32_t tree_sizes_find(const struct tree_sizes *sizes, const struct uuid *volume, uint64_t tree)
{
	struct tree_size key = {.volume = *volume, .tree = tree};
	uint32_t low = 0, high = sizes->n;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (tree_size_compare(&sizes->all[middle], &key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* ---- volumes ---- */

static void volume_view_tree(const struct set_volume *entry, const struct tree_size *t, struct volume_view *v)
{
	uint64_t bytes = t->blocks * BLOCK_BYTES;
	if (t->is_dying) {
		v->reclaiming_bytes += bytes;
	} else if (t->tree != entry->facts.live_tree) {
		v->snapshots_bytes += bytes;
	} else if (bytes > 0 && v->n_disks < array_size(v->on_disk)) {
		v->on_disk[v->n_disks].disk = entry->set->disks[t->disk]->facts.uuid;
		v->on_disk[v->n_disks++].allocated_bytes = bytes;
		v->allocated_bytes += bytes;
	}
}

static void volume_view_disks(const struct set_volume *entry, const struct tree_sizes *sizes, struct volume_view *v)
{
	const struct uuid *uuid = &entry->facts.uuid;
	for (uint32_t i = tree_sizes_find(sizes, uuid, 0); i < sizes->n && uuid_equal(&sizes->all[i].volume, uuid); i++)
		volume_view_tree(entry, &sizes->all[i], v);
}

/* The disk that is being resynced, and how far it is; NULL: none. */
static const struct uuid *volume_view_resync(const struct set_volume *entry, struct volume_view *v)
{
	struct resync_progress p = {.disk = SET_DISKS_MAX};
	if (entry->head)
		resync_look(entry->head, &p);
	if (p.disk == SET_DISKS_MAX)
		return NULL;
	v->resync.is_running = true;
	v->resync.copied_bytes = p.copied_bytes;
	v->resync.percent = (uint32_t)(100 * p.done);
	v->resync.eta_s = p.eta_s;
	return &entry->set->disks[p.disk]->facts.uuid;
}

static void volume_view_copies_why(const struct set_volume *entry, struct volume_view *v)
{
	const char *why = leave_why(entry, LEAVE_FOR_DISK);
	if (!why)
		why = leave_why(entry, LEAVE_FOR_COPIES);
	text_print(v->copies_why, sizeof(v->copies_why), "%s", why ? why : "");
}

/* Of a volume with several copies. */
static void volume_view_copies(const struct set_volume *entry, struct volume_view *v)
{
	const struct volume_facts *f = &entry->facts;
	if (!volume_facts_are_replicated(f))
		return;
	const struct uuid *resyncing = volume_view_resync(entry, v);
	for (uint32_t i = 0; i < f->n_disks; i++) {
		if (f->disks[i].is_left)
			continue;
		v->copies[v->n_copies].disk = f->disks[i].uuid;
		v->copies[v->n_copies].is_resyncing = resyncing && uuid_equal(resyncing, &f->disks[i].uuid);
		v->copies[v->n_copies++].is_stale = f->disks[i].is_stale;
		v->n_stale += f->disks[i].is_stale;
	}
	v->fewest_copies = f->replicas;
	v->is_rebuilding = entry->head && entry->head->is_rebuild_told;
	v->is_evening = even_is_needed(entry);
	v->differing_blocks = entry->unlike_blocks;
	volume_view_copies_why(entry, v);
	if (!entry->head)
		return;
	v->degraded_bytes = layout_degraded(entry->head, volume_joined(entry->head), &v->fewest_copies) * SEGMENT_BYTES;
	v->surplus_bytes = layout_surplus(entry->head) * SEGMENT_BYTES;
}

/* What is due already, or always was, as the first one of a schedule, is taken now. */
static uint64_t volume_view_next_ns(const struct set_volume *entry)
{
	uint64_t next_ns = schedule_next_ns(entry);
	return next_ns ? max_u64(next_ns, reactor_wall_ns(entry->set->reactor)) : 0;
}

static void volume_view_fill(struct set_volume *entry, const struct tree_sizes *sizes, struct volume_view *v)
{
	const struct volume_facts *f = &entry->facts;
	const struct volume *head = entry->head;
	*v = (struct volume_view){.uuid = f->uuid,
				  .size_bytes = f->size_bytes,
				  .replicas = f->replicas,
				  .min_replicas = f->min_replicas,
				  .is_attached_nbd = f->is_attached_nbd,
				  .is_attached_vhost = f->is_attached_vhost,
				  .vhost_queues = f->vhost_queues ? f->vhost_queues : VOLUME_VHOST_QUEUES_DEFAULT,
				  .is_read_only = f->is_read_only,
				  .is_deleting = f->is_deleting,
				  .generation = f->generation,
				  .created_ns = f->created_ns,
				  .n_snapshots = entry->n_snapshots,
				  .every_s = f->schedule.every_s,
				  .keep = f->schedule.keep,
				  .next_snapshot_ns = volume_view_next_ns(entry)};
	text_print(v->cloned_from, sizeof(v->cloned_from), "%s", f->cloned_from);
	text_print(v->name, sizeof(v->name), "%s", f->name);
	text_print(v->pool, sizeof(v->pool), "%s", f->pool);
	text_print(v->why, sizeof(v->why), "%s", head ? head->why : entry->why);
	text_print(v->node, sizeof(v->node), "%s", set_volume_node(entry));
	v->is_elsewhere = set_volume_is_elsewhere(entry);
	v->is_node_alive = set_node_is_alive(entry->set, v->node);
	if (v->is_elsewhere && !v->is_node_alive && volume_facts_are_attached(f))
		text_print(v->why, sizeof(v->why), "it is attached on node %s, which is not alive", v->node);
	volume_view_disks(entry, sizes, v);
	volume_view_copies(entry, v);
	fill_view(entry, v);
	if (!head)
		return;
	v->is_serving = head->state == VOLUME_SERVING && !head->is_fenced && head->why[0] == 0;
	v->epoch = head->epoch;
	v->counters = &head->counters;
}

void volume_set_volumes(struct volume_set *s, void (*each)(const struct volume_view *v, void *context), void *context)
{
	struct tree_sizes sizes = tree_sizes_take(s);
	list_each (node, &s->volumes) {
		struct volume_view v;
		volume_view_fill(container_of(node, struct set_volume, link), &sizes, &v);
		each(&v, context);
	}
	free(sizes.all);
}

/* ---- snapshots ---- */

static uint64_t tree_data_bytes(const struct tree_sizes *sizes, const struct uuid *volume, uint64_t tree)
{
	uint64_t blocks = 0;
	for (uint32_t i = tree_sizes_find(sizes, volume, tree); i < sizes->n; i++) {
		const struct tree_size *t = &sizes->all[i];
		if (t->tree != tree || !uuid_equal(&t->volume, volume))
			break;
		blocks += t->is_dying ? 0 : t->blocks;
	}
	return blocks * BLOCK_BYTES;
}

static void snapshot_view_fill(const struct set_snapshot *snap, const struct tree_sizes *sizes, struct snapshot_view *v)
{
	const struct snapshot_facts *f = &snap->facts;
	*v = (struct snapshot_view){.is_elsewhere = set_volume_is_elsewhere(snap->entry),
				    .size_bytes = f->size_bytes,
				    .data_bytes = tree_data_bytes(sizes, &snap->entry->facts.uuid, f->tree),
				    .created_ns = f->created_ns,
				    .epoch = f->epoch,
				    .is_attached_nbd = f->attached_nbd[0] != 0,
				    .is_attached_vhost = f->attached_vhost[0] != 0,
				    .vhost_queues = snapshot_vhost_queues(snap),
				    .is_temporary = f->is_temporary,
				    .is_deleting = f->is_deleting,
				    .is_scheduled = f->is_scheduled};
	text_print(v->volume, sizeof(v->volume), "%s", snap->entry->facts.name);
	text_print(v->name, sizeof(v->name), "%s", f->name);
}

void volume_set_snapshots(struct volume_set *s, void (*each)(const struct snapshot_view *v, void *context),
			  void *context)
{
	struct tree_sizes sizes = tree_sizes_take(s);
	list_each (node, &s->volumes) {
		struct set_volume *entry = container_of(node, struct set_volume, link);
		list_each (link, &entry->snapshots) {
			struct snapshot_view v;
			snapshot_view_fill(container_of(link, struct set_snapshot, link), &sizes, &v);
			each(&v, context);
		}
	}
	free(sizes.all);
}

/* ---- pools ---- */

static void pool_view_count(struct volume_set *s, struct pool_view *v)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		struct disk_stats stats;
		if (!d || d->facts.is_removed || strcmp(d->facts.pool, v->name) != 0)
			continue;
		v->n_disks++;
		v->n_disks_here += set_disk_is_ours(d);
		if (!set_disk_runs_here(d))
			continue;
		disk_stats(d->disk, &stats);
		uint64_t is_free = stats.free_blocks + stats.waiting_blocks;
		v->size_bytes += stats.n_blocks * BLOCK_BYTES;
		v->free_bytes += is_free * BLOCK_BYTES;
		v->used_bytes += (stats.n_blocks - is_free) * BLOCK_BYTES;
	}
	list_each (node, &s->volumes) {
		const struct set_volume *volume = container_of(node, struct set_volume, link);
		if (volume->facts.is_deleting || strcmp(volume->facts.pool, v->name) != 0)
			continue;
		v->n_volumes++;
		v->n_full += volume->head && volume->head->full_ns != 0;
		/* thin volumes may promise more than a number of JSON can say */
		v->provisioned_bytes = min_u64(v->provisioned_bytes + volume->facts.size_bytes, INT64_MAX);
	}
}

void volume_set_pools(struct volume_set *s, void (*each)(const struct pool_view *v, void *context), void *context)
{
	list_each (node, &s->pools) {
		const struct pool_facts *f = &container_of(node, struct set_pool, link)->facts;
		struct pool_view v = {.uuid = f->uuid,
				      .replicas = f->replicas,
				      .min_replicas = f->min_replicas,
				      .failure_domain = f->failure_domain};
		text_print(v.name, sizeof(v.name), "%s", f->name);
		pool_view_count(s, &v);
		each(&v, context);
	}
}

/* ---- what takes long ---- */

static void slow_parts(const struct parts *pool, const struct volume_io *io,
		       void (*each)(const char *line, void *context), void *context)
{
	char text[320], line[340];
	for (uint32_t i = 0; i < pool->n; i++) {
		const struct part *p = &pool->all[i];
		if (p->stage == PART_FREE || p->request != io)
			continue;
		part_to_text(p, text, sizeof(text));
		text_print(line, sizeof(line), "    %s", text);
		each(line, context);
	}
}

struct slow_look {
	uint64_t now_ns, age_ns;
	void (*each)(const char *line, void *context);
	void *context;
};

static void slow_head(struct volume *head, void *context)
{
	const struct slow_look *l = context;
	list_each (node, &head->requests) {
		const struct volume_io *io = container_of(node, struct volume_io, own.link);
		char text[300], line[340];
		if (l->now_ns - io->own.started_ns < l->age_ns)
			break; /* they are in order of arrival */
		volume_io_to_text(io, text, sizeof(text));
		text_print(line, sizeof(line), "%s, for %.1f s", text,
			   (double)(l->now_ns - io->own.started_ns) / (double)NS_PER_S);
		l->each(line, l->context);
		slow_parts(&head->set->parts, io, l->each, l->context);
		slow_parts(&head->set->flushes, io, l->each, l->context);
	}
}

void volume_set_slow_requests(struct volume_set *s, uint64_t age_ns, void (*each)(const char *line, void *context),
			      void *context)
{
	struct slow_look l = {.now_ns = reactor_now_ns(s->reactor), .age_ns = age_ns, .each = each, .context = context};
	list_each (node, &s->volumes) {
		struct set_volume *entry = container_of(node, struct set_volume, link);
		if (entry->head)
			slow_head(entry->head, &l);
		snapshots_each_head(entry, slow_head, &l);
	}
}
