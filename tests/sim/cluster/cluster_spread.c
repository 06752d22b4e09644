/*
 * cluster_spread.c: where the copies of volumes lie, as the store says, and whether that is where they are to lie.
 *
 * The failure domain is the node. Where too few of them have a disk that takes a copy, and has room for one, copies may be
 * wanting.
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_world.h"

static bool disk_takes(const struct cluster *c, const struct cluster_disk *d)
{
	return disk_is_there(d) && !d->is_draining && !c->node_is_draining[d->node];
}

struct taken {
	struct uuid volume;
	uint64_t n_blocks;
};

static void tree_add(const struct tree_record *t, void *context)
{
	struct taken *taken = context;
	if (uuid_equal(&t->volume, &taken->volume))
		taken->n_blocks += t->n_data_blocks;
}

/* Blocks of all trees that a volume has on a disk; what several of them point to counts several times. */
static uint64_t volume_blocks(const struct set_disk *d, const struct uuid *volume)
{
	struct taken taken = {.volume = *volume};
	if (d && d->disk)
		disk_trees_each(d->disk, tree_add, &taken);
	return taken.n_blocks;
}

/* As its own node knows it; NULL: it does not run. */
static const struct set_disk *disk_of_node(const struct cluster *c, const struct cluster_disk *d)
{
	const struct cluster_node *n = &c->nodes[d->node];
	return n->state == NODE_UP ? set_disk_by_uuid(n->set, &d->uuid) : NULL;
}

/* Nodes that copies of the volume can lie on: with room for as much of it as any node has. */
static uint32_t spread_domains(const struct cluster *c, const struct uuid *volume)
{
	uint64_t has[NODES_MAX] = {0}, room[NODES_MAX] = {0}, needed = 0;
	uint32_t n = 0;
	for (uint32_t i = 0; i < c->n_disks; i++) {
		const struct set_disk *d = disk_of_node(c, &c->disks[i]);
		uint64_t blocks = volume_blocks(d, volume);
		has[c->disks[i].node] += blocks;
		needed = max_u64(needed, has[c->disks[i].node]);
		if (d && disk_takes(c, &c->disks[i]))
			room[c->disks[i].node] += set_disk_room(d) + blocks;
	}
	for (uint32_t i = 0; i < c->n_nodes; i++)
		n += room[i] > 0 && room[i] >= needed;
	return n;
}

static bool shares_a_node(const struct cluster *c, uint64_t disks)
{
	uint64_t nodes = 0;
	for (uint64_t left = disks; left != 0; left &= left - 1)
		nodes |= 1ull << c->disks[__builtin_ctzll(left)].node;
	return __builtin_popcountll(nodes) < __builtin_popcountll(disks);
}

const char *spread_trouble(struct cluster *c, const struct model_volume *v)
{
	const struct volume_facts *f = &v->facts.record;
	bool has_domains = spread_domains(c, &f->uuid) >= f->replicas;
	for (uint32_t i = 0; i < f->n_disks; i++) {
		bool is_removed = c->removed >> cluster_disk_number(c, &f->disks[i].uuid) & 1;
		if (is_removed && has_domains)
			return "it still knows a disk that was removed";
		if (!is_removed && f->disks[i].is_stale && !f->disks[i].is_new)
			return "a copy is not current";
	}
	for (uint32_t s = 0; s < v->n_segments; s++) {
		uint64_t placed = facts_placed(c, v, s);
		uint32_t n = (uint32_t)__builtin_popcountll(placed);
		if (n > 0 && !(placed & ~c->removed))
			return "a segment has no copy";
		if (n > f->replicas)
			return "a segment has too many copies";
		if (n > 0 && n < f->replicas && has_domains)
			return "a segment has too few copies";
		if (shares_a_node(c, placed))
			return "two copies lie on one node";
	}
	return f->is_uneven && has_domains ? "its record says that it is uneven" : NULL;
}

static bool volume_is_named(const struct model_volume *v, const struct cluster_disk *d)
{
	return v->facts.exists && volume_facts_disk((struct volume_facts *)&v->facts.record, &d->uuid);
}

/* One that never had two copies stays on its node. */
static bool volume_has_elsewhere(const struct cluster *c, const struct model_volume *v, const struct cluster_disk *d)
{
	if (volume_facts_are_replicated(&v->facts.record))
		return spread_domains(c, &v->facts.record.uuid) >= v->facts.record.replicas;
	for (uint32_t i = 0; i < c->n_disks; i++)
		if (c->disks[i].node == d->node && disk_takes(c, &c->disks[i]))
			return true;
	return false;
}

const char *spread_drain_trouble(struct cluster *c, const struct cluster_disk *d)
{
	for (uint32_t i = 0; i < VOLUMES_MAX && d->is_draining && disk_is_there(d); i++)
		if (volume_is_named(&c->volumes[i], d) && volume_has_elsewhere(c, &c->volumes[i], d))
			return "it is drained, and not empty";
	return NULL;
}

static bool all_nodes_are_drained(const struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_nodes; i++)
		if (!c->node_is_draining[i])
			return false;
	return true;
}

const char *spread_node_trouble(struct cluster *c, const struct cluster_node *n)
{
	if (!c->node_is_draining[n->number] || all_nodes_are_drained(c))
		return NULL;
	for (uint32_t i = 0; i < c->n_disks; i++)
		if (c->disks[i].node == n->number && disk_is_there(&c->disks[i]) && !c->disks[i].is_draining)
			return "it is drained, and a disk of it is not";
	for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
		const struct model_volume *v = &c->volumes[i];
		if (v->facts.exists && volume_facts_are_replicated(&v->facts.record) && client_head(n, v))
			return "it is drained, and serves a volume";
	}
	return NULL;
}

uint64_t spread_spare(struct cluster *c)
{
	uint64_t spare = UINT64_MAX;
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		for (uint32_t s = 0; s < SEGMENTS_MAX && c->volumes[i].facts.exists; s++) {
			uint64_t current = facts_placed(c, &c->volumes[i], s) & c->volumes[i].facts.in_sync;
			if (__builtin_popcountll(current) == 1)
				spare &= ~current;
		}
	return spare;
}
