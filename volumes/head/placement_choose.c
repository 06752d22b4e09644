/*
 * placement_choose.c: which disks a segment is to lie on: by chance, weighted by the room that they have, each in a failure
 * domain of its own, and one of the head's own node first.
 *
 * It looks at the set as it is at this moment and keeps nothing; whether the choice holds is decided by the transaction
 * that records it (placement.c).
 *
 * Owner: the volume.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <string.h>

/* More than all writes in flight can take: 512 of 256 KiB. */
#define NARROW_BLOCKS (128 * MIB / BLOCK_BYTES)

static bool disk_is_of_pool(const struct set_disk *d, const char *pool)
{
	return d && !d->facts.is_removed && strcmp(d->facts.pool, pool) == 0;
}

/* A single copy stays with its head: without another one, a connection that breaks would be an I/O error. */
bool placement_may_take(struct volume *v, const struct set_disk *d)
{
	if (!disk_is_of_pool(d, v->entry->facts.pool) || !set_disk_is_running(d) || d->facts.is_draining)
		return false;
	if (!d->disk && !volume_is_replicated(v))
		return false;
	const struct volume_disk_facts *known = volume_facts_disk(&v->entry->facts, &d->facts.uuid);
	enum volume_disk_state state = v->disks[d->index].state;
	bool is_current = state == VOLUME_DISK_UNUSED || state == VOLUME_DISK_JOINED;
	return is_current && !(known && known->is_stale && !known->is_new);
}

/* What the disks of a pool have room for, and which of them may be chosen together. */
struct candidates {
	struct volume_set *set;
	enum failure_domain domain;
	uint64_t disks;                  /* bit per disk that runs and may take a copy */
	uint64_t here;                   /* of these, those of this node */
	uint32_t domains[SET_DISKS_MAX]; /* of each of these: the first disk of its failure domain */
	uint64_t rooms[SET_DISKS_MAX];   /* 0: it is full, excluded, or shares its domain with one that was chosen */
};

static void candidates_add(struct candidates *c, uint32_t disk)
{
	uint32_t first = 0;
	while (first < disk && !(c->disks >> first & 1 && set_disks_share_domain(c->set, c->domain, first, disk)))
		first++;
	c->domains[disk] = first;
	c->disks |= 1ull << disk;
	c->here |= (uint64_t)set_disk_is_ours(c->set->disks[disk]) << disk;
}

static uint32_t candidates_domains(const struct candidates *c)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		n += c->disks >> i & 1 && c->domains[i] == i;
	return n;
}

static uint32_t pool_domains(struct volume_set *s, const struct pool_facts *pool, uint64_t except, bool must_run)
{
	struct candidates c = {.set = s, .domain = pool->failure_domain};
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		if (!disk_is_of_pool(d, pool->name) || d->facts.is_draining || except >> i & 1)
			continue;
		if (must_run ? set_disk_is_running(d) : s->has_peers || set_disk_is_ours(d))
			candidates_add(&c, i);
	}
	return candidates_domains(&c);
}

uint32_t placement_domains(struct volume_set *s, const struct pool_facts *pool, uint64_t except)
{
	return pool_domains(s, pool, except, false);
}

uint32_t placement_domains_running(struct volume_set *s, const struct pool_facts *pool)
{
	return pool_domains(s, pool, 0, true);
}

uint32_t placement_narrowest(const struct volume *v, uint64_t disks)
{
	uint64_t least = NARROW_BLOCKS;
	uint32_t narrowest = SET_DISKS_MAX;
	for (; disks != 0; disks &= disks - 1) {
		uint32_t disk = (uint32_t)__builtin_ctzll(disks);
		uint64_t room = set_disk_room(v->set->disks[disk]);
		if (room >= least)
			continue;
		least = room;
		narrowest = disk;
	}
	return narrowest;
}

static uint64_t candidates_room(const struct candidates *c, uint64_t among)
{
	uint64_t total = 0;
	for (; among != 0; among &= among - 1)
		total += c->rooms[__builtin_ctzll(among)];
	return total;
}

/* Takes one by chance, of these if any of them has room; no other of its domain can be taken after. false: there is no
 * room anywhere. */
static bool candidates_take(struct candidates *c, uint64_t among, uint64_t *disks)
{
	if (candidates_room(c, among) == 0)
		among = c->disks;
	uint64_t total = candidates_room(c, among);
	if (total == 0)
		return false;
	uint64_t at = reactor_random(c->set->reactor) % total;
	while (at >= c->rooms[__builtin_ctzll(among)]) {
		at -= c->rooms[__builtin_ctzll(among)];
		among &= among - 1;
	}
	uint32_t disk = (uint32_t)__builtin_ctzll(among);
	quarry_assert(c->rooms[disk] > 0);
	*disks |= 1ull << disk;
	for (uint64_t left = c->disks; left != 0; left &= left - 1)
		if (c->domains[__builtin_ctzll(left)] == c->domains[disk])
			c->rooms[__builtin_ctzll(left)] = 0;
	return true;
}

int placement_choose(struct volume *v, uint64_t full, uint64_t failed, uint64_t *disks)
{
	const struct set_pool *pool = set_pool_find(v->set, v->entry->facts.pool);
	struct candidates c = {.set = v->set, .domain = pool ? pool->facts.failure_domain : DOMAIN_DISK};
	bool has_disks = false;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		has_disks |= disk_is_of_pool(v->set->disks[i], v->entry->facts.pool);
		if (!placement_may_take(v, v->set->disks[i]) || failed >> i & 1)
			continue;
		candidates_add(&c, i);
		c.rooms[i] = full >> i & 1 ? 0 : set_disk_room(v->set->disks[i]);
	}
	const struct volume_facts *facts = &v->entry->facts;
	uint64_t n = min_u64(min_u64(facts->replicas, SEGMENT_DISKS_MAX), candidates_domains(&c));
	if (n < facts->min_replicas)
		return has_disks ? -EIO : -ENOSPC;
	for (*disks = 0; n > 0; n--) /* the first copy is the head's own */
		if (!candidates_take(&c, *disks ? c.disks : c.here, disks))
			return -ENOSPC;
	return 0;
}

bool placement_is_free(struct volume *v, uint32_t disk, uint64_t others)
{
	const struct set_pool *pool = set_pool_find(v->set, v->entry->facts.pool);
	bool is_free = pool && placement_may_take(v, v->set->disks[disk]);
	for (uint64_t left = others; left != 0 && is_free; left &= left - 1)
		is_free =
		    !set_disks_share_domain(v->set, pool->facts.failure_domain, disk, (uint32_t)__builtin_ctzll(left));
	return is_free;
}

int placement_choose_other(struct volume *v, uint64_t others, uint64_t refused, uint32_t *disk)
{
	const struct set_pool *pool = set_pool_find(v->set, v->entry->facts.pool);
	struct candidates c = {.set = v->set, .domain = pool ? pool->facts.failure_domain : DOMAIN_DISK};
	uint64_t taken = 0;
	bool has_here = false;
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		if (refused >> i & 1 || !placement_is_free(v, i, others))
			continue;
		candidates_add(&c, i);
		c.rooms[i] = set_disk_room(v->set->disks[i]);
	}
	for (uint64_t left = others; left != 0; left &= left - 1)
		has_here |= set_disk_is_ours(v->set->disks[__builtin_ctzll(left)]);
	if (!candidates_take(&c, has_here ? c.disks : c.here, &taken)) /* one copy is the head's own */
		return -ENOSPC;
	*disk = (uint32_t)__builtin_ctzll(taken);
	return 0;
}
