/*
 * snapshot.c: copies what the API shows.
 *
 * Invariants
 *  1. snapshot_take() runs on the reactor that owns all it looks at; afterwards the snapshot points to nothing of
 *     theirs.
 *  2. Without memory a snapshot is short, and says so; it never fails half way.
 */
#include "daemon/control/snapshot.h"

#include <stdlib.h>
#include <string.h>

/* One more member of an array whose room is always the next power of two; NULL: no memory. */
static void *array_grow(struct snapshot *s, void *array, size_t *n, size_t member_bytes)
{
	char *members = *(void **)array;
	if ((*n & (*n - 1)) == 0) {
		char *larger = realloc(members, (*n ? *n * 2 : 1) * member_bytes);
		if (!larger) {
			s->is_short = true; /* what there was is kept */
			return NULL;
		}
		*(void **)array = members = larger;
	}
	return members + (*n)++ * member_bytes;
}

static void *copy_of(struct snapshot *s, const void *from, size_t bytes)
{
	void *copy = from ? malloc(bytes) : NULL;
	if (copy)
		memcpy(copy, from, bytes);
	s->is_short |= from && !copy;
	return copy;
}

static bool uuid_is_named(const struct uuid *u, const char *name)
{
	char text[UUID_TEXT_BYTES];
	uuid_to_text(u, text);
	return strcasecmp(text, name) == 0;
}

static void take_disk(const struct disk_view *v, void *context)
{
	struct snapshot *s = context;
	bool is_wanted = !(s->only_parts & SNAPSHOT_DISKS) || strcmp(v->name, s->only) == 0 ||
			 (!v->is_elsewhere && strcmp(v->path, s->only) == 0) || uuid_is_named(&v->uuid, s->only);
	struct snapshot_disk *to = is_wanted ? array_grow(s, &s->disks, &s->n_disks, sizeof(*to)) : NULL;
	if (!to)
		return;
	*to = (struct snapshot_disk){.view = *v};
	to->view.counters = copy_of(s, v->counters, sizeof(*v->counters));
}

static void take_adding(const struct disk_adding_view *v, void *context)
{
	struct snapshot *s = context;
	struct disk_adding_view *to = array_grow(s, &s->adding, &s->n_adding, sizeof(*to));
	if (to)
		*to = *v;
}

static void take_volume(const struct volume_view *v, void *context)
{
	struct snapshot *s = context;
	size_t len = s->parts & SNAPSHOT_HISTORY ? strcspn(s->only, "@") : strlen(s->only);
	bool is_wanted =
	    !(s->only_parts & SNAPSHOT_VOLUMES) || (strlen(v->name) == len && memcmp(v->name, s->only, len) == 0);
	struct snapshot_volume *to = is_wanted ? array_grow(s, &s->volumes, &s->n_volumes, sizeof(*to)) : NULL;
	if (!to)
		return;
	*to = (struct snapshot_volume){.view = *v};
	to->view.counters = copy_of(s, v->counters, sizeof(*v->counters));
}

static void take_pool(const struct pool_view *v, void *context)
{
	struct snapshot *s = context;
	bool is_wanted = !(s->only_parts & SNAPSHOT_POOLS) || strcmp(v->name, s->only) == 0;
	struct pool_view *to = is_wanted ? array_grow(s, &s->pools, &s->n_pools, sizeof(*to)) : NULL;
	if (to)
		*to = *v;
}

static void take_snapshot(const struct snapshot_view *v, void *context)
{
	struct snapshot *s = context;
	size_t len = strcspn(s->only, "@");
	const char *name = s->only[len] ? s->only + len + 1 : NULL;
	bool is_wanted =
	    !(s->only_parts & SNAPSHOT_HISTORY) ||
	    (strlen(v->volume) == len && memcmp(v->volume, s->only, len) == 0 && (!name || strcmp(name, v->name) == 0));
	struct snapshot_view *to = is_wanted ? array_grow(s, &s->snapshots, &s->n_snapshots, sizeof(*to)) : NULL;
	if (to)
		*to = *v;
}

static void take_node(const struct member_view *v, void *context)
{
	struct snapshot *s = context;
	bool is_wanted = !(s->only_parts & SNAPSHOT_NODES) || strcmp(v->name, s->only) == 0;
	struct snapshot_node *to = is_wanted ? array_grow(s, &s->nodes, &s->n_nodes, sizeof(*to)) : NULL;
	if (!to)
		return;
	*to = (struct snapshot_node){.view = *v};
	to->view.about = copy_of(s, v->about, strlen(v->about) + 1);
}

static void take_line(const char *line, void *context)
{
	struct snapshot *s = context;
	char **to = array_grow(s, &s->lines, &s->n_lines, sizeof(*to));
	if (!to)
		return;
	*to = copy_of(s, line, strlen(line) + 1);
	if (!*to)
		s->n_lines--;
}

/* What is known of this node's disks is there already; those of others have told how full they are, or have not. */
static void take_rooms(struct snapshot *s, const struct snapshot_sources *from)
{
	for (size_t i = 0; i < s->n_disks; i++) {
		struct snapshot_disk *d = &s->disks[i];
		const struct disk_room *room =
		    d->view.is_elsewhere ? from->peer_room(from->peers, d->view.node, &d->view.uuid) : NULL;
		if (room)
			d->room = *room;
	}
}

struct pools_and_sources {
	struct snapshot *snapshot;
	const struct snapshot_sources *from;
};

static void add_room(const struct disk_view *v, void *context)
{
	const struct pools_and_sources *to = context;
	const struct disk_room *room = v->is_elsewhere ? to->from->peer_room(to->from->peers, v->node, &v->uuid) : NULL;
	for (size_t i = 0; room && i < to->snapshot->n_pools; i++) {
		struct pool_view *pool = &to->snapshot->pools[i];
		if (strcmp(pool->name, v->pool) != 0)
			continue;
		pool->n_disks_here++;
		pool->size_bytes += v->stats.n_blocks * BLOCK_BYTES;
		pool->used_bytes += room->used_bytes;
		pool->free_bytes += room->free_bytes;
	}
}

static void count_client(const struct nbd_connection_view *c, void *context)
{
	struct snapshot_volume *v = context;
	size_t len = strlen(v->view.name);
	if (strncmp(c->export_, v->view.name, len) != 0)
		return;
	v->n_nbd_clients += c->export_[len] == 0;
	v->n_fillers += strcmp(c->export_ + len, VOLUME_FILL_ENDING) == 0;
}

static void count_clients(struct snapshot *s, const struct snapshot_sources *from)
{
	for (size_t i = 0; i < s->n_volumes; i++) {
		struct snapshot_volume *v = &s->volumes[i];
		if ((v->view.is_attached_nbd || v->view.fill_source[0]) && from->nbd)
			nbd_server_connections(from->nbd, count_client, v);
		if (v->view.is_attached_vhost && from->vhost)
			v->n_vhost_clients = vhost_server_clients(from->vhost, v->view.name);
	}
}

void snapshot_take(struct snapshot *s, const struct snapshot_sources *from)
{
	quarry_assert(!s->disks && !s->volumes && !s->pools && !s->lines);
	s->now_ns = reactor_now_ns(from->reactor);
	if (s->parts & SNAPSHOT_DISKS) {
		volume_set_disks(from->volumes, take_disk, s);
		volume_set_disks_adding(from->volumes, take_adding, s);
		if (from->peers)
			take_rooms(s, from);
	}
	if (s->parts & SNAPSHOT_VOLUMES)
		volume_set_volumes(from->volumes, take_volume, s);
	if (s->only_parts & SNAPSHOT_VOLUMES) /* of each volume it would be too much to ask */
		count_clients(s, from);
	if (s->parts & SNAPSHOT_POOLS) {
		volume_set_pools(from->volumes, take_pool, s);
		volume_set_balance(from->volumes, &s->balance);
	}
	if ((s->parts & SNAPSHOT_POOLS) && from->peers)
		volume_set_disks(from->volumes, add_room, &(struct pools_and_sources){s, from});
	if (s->parts & SNAPSHOT_HISTORY)
		volume_set_snapshots(from->volumes, take_snapshot, s);
	if ((s->parts & SNAPSHOT_NODES) && from->members)
		members_each(from->members, take_node, s);
	for (size_t i = 0; i < s->n_nodes; i++)
		volume_set_node_drain(from->volumes, s->nodes[i].view.name, &s->nodes[i].drain);
	for (size_t i = 0; i < s->n_nodes && from->peers; i++)
		s->nodes[i].answer = from->peer_answer(from->peers, s->nodes[i].view.name);
	if (s->parts & SNAPSHOT_SLOW) {
		volume_set_slow_requests(from->volumes, s->slow_age_ns, take_line, s);
		if (from->nbd)
			nbd_server_slow_requests(from->nbd, s->slow_age_ns, take_line, s);
		if (from->vhost)
			vhost_server_slow_requests(from->vhost, s->slow_age_ns, take_line, s);
	}
	if ((s->parts & SNAPSHOT_NBD) && from->nbd)
		memcpy(&s->nbd, nbd_server_counters(from->nbd), sizeof(s->nbd));
	if ((s->parts & SNAPSHOT_NBD) && from->vhost)
		memcpy(&s->vhost, vhost_server_counters(from->vhost), sizeof(s->vhost));
	s->is_metadata_broken = from->metadata && from->metadata->is_broken;
	if (from->buffers) {
		s->buffers_used_bytes = buffers_used_bytes(from->buffers);
		s->buffers_budget_bytes = buffers_budget_bytes(from->buffers);
	}
}

void snapshot_clear(struct snapshot *s)
{
	for (size_t i = 0; i < s->n_disks; i++)
		free((void *)s->disks[i].view.counters);
	for (size_t i = 0; i < s->n_volumes; i++)
		free((void *)s->volumes[i].view.counters);
	for (size_t i = 0; i < s->n_lines; i++)
		free(s->lines[i]);
	for (size_t i = 0; i < s->n_nodes; i++)
		free((void *)s->nodes[i].view.about);
	free(s->nodes);
	free(s->disks);
	free(s->adding);
	free(s->volumes);
	free(s->pools);
	free(s->snapshots);
	free(s->lines);
	*s = (struct snapshot){0};
}

const char *snapshot_disk_name(const struct snapshot *s, const struct uuid *disk)
{
	for (size_t i = 0; i < s->n_disks; i++) {
		if (uuid_equal(&s->disks[i].view.uuid, disk))
			return s->disks[i].view.name;
	}
	return NULL;
}
