/*
 * remote_world.h: three nodes with a disk each, or two of them, over the simulated network: for tests of what they do together.
 */
#pragma once

#include "tests/unit/head_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DISK_BYTES   (64 * MIB)
#define VOLUME_BYTES (8 * GIB)
#define N_NODES      3u

struct cluster {
	struct head_world nodes[N_NODES];
	uint8_t *data, *back;
};

static inline void let_settle(struct cluster *c)
{
	world_let_pass(&c->nodes[0], 200 * NS_PER_MS);
}

/* The nodes, of which the last have no disk; nothing runs. */
static inline void cluster_make(struct cluster *c, uint64_t seed, uint32_t n_with_disks)
{
	static const char *const names[] = {"n1", "n2", "n3"};
	static const char *const about[] = {"{\"labels\":{\"rack\":\"r1\"}}", "{\"labels\":{\"rack\":\"r1\"}}", "{}"};
	world_open(&c->nodes[0], seed);
	for (uint32_t i = 0; i < N_NODES; i++) {
		struct head_world *w = &c->nodes[i];
		if (i > 0)
			world_open_beside(w, &c->nodes[0], names[i]);
		w->n_disks = 10 * i;
		w->has_peers = true;
		w->about = about[i];
		if (i < n_with_disks)
			world_add_disk(w, DISK_BYTES);
	}
	c->data = world_memory(BLOCK_BYTES);
	c->back = world_memory(BLOCK_BYTES);
}

/* They reach each other, unless they let no peers in; no two copies share a node. */
static inline void cluster_start(struct cluster *c)
{
	for (uint32_t i = 0; i < N_NODES; i++)
		CU_ASSERT_EQUAL_FATAL(world_start(&c->nodes[i]), 0);
	for (uint32_t i = 0; i < N_NODES; i++)
		for (uint32_t j = 0; c->nodes[i].has_peers && j < N_NODES; j++)
			if (i != j)
				world_connect(&c->nodes[i], &c->nodes[j]);
	struct set_command domain = order(SET_POOL_SET, "default");
	domain.failure_domain = DOMAIN_NODE;
	domain.has_failure_domain = true;
	CU_ASSERT_EQUAL_FATAL(world_command(&c->nodes[0], &domain), 0);
	let_settle(c);
}

static inline void cluster_open(struct cluster *c, uint64_t seed, uint32_t n_with_disks)
{
	cluster_make(c, seed, n_with_disks);
	cluster_start(c);
}

/* A node that was stopped. */
static inline void cluster_start_again(struct cluster *c, uint32_t node)
{
	CU_ASSERT_EQUAL_FATAL(world_start(&c->nodes[node]), 0);
	for (uint32_t i = 0; i < N_NODES; i++)
		if (i != node && c->nodes[i].set)
			world_connect(&c->nodes[node], &c->nodes[i]);
}

static inline void cluster_close(struct cluster *c)
{
	for (uint32_t i = N_NODES; i-- > 0;)
		world_close(&c->nodes[i]);
	free(c->data);
	free(c->back);
}

static inline struct set_disk *disk_of(struct head_world *w, const char *name)
{
	struct set_disk *d = set_disk_find(w->set, name);
	CU_ASSERT_PTR_NOT_NULL_FATAL(d);
	return d;
}

static inline struct volume *volume_with_copies(struct head_world *w, const char *name, uint32_t replicas)
{
	struct set_command create = order(SET_VOLUME_CREATE, name);
	create.size_bytes = VOLUME_BYTES;
	create.replicas = replicas;
	CU_ASSERT_EQUAL_FATAL(world_command(w, &create), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(w, name), 0);
	return world_head(w, name);
}

static inline void write_one(struct cluster *c, struct head_world *w, const char *name, uint64_t segment, uint8_t value)
{
	memset(c->data, value, BLOCK_BYTES);
	CU_ASSERT_EQUAL(world_write(w, world_head(w, name), segment * SEGMENT_BYTES, c->data, BLOCK_BYTES, 0), 0);
}

static inline void expect_one(struct cluster *c, struct head_world *w, const char *name, uint64_t segment,
			      uint8_t value)
{
	memset(c->data, value, BLOCK_BYTES);
	CU_ASSERT_EQUAL(world_read(w, world_head(w, name), segment * SEGMENT_BYTES, c->back, BLOCK_BYTES), 0);
	CU_ASSERT_EQUAL(memcmp(c->data, c->back, BLOCK_BYTES), 0);
}

/* The only node that has a head of it; NULL: none. */
static inline struct head_world *only_head(struct cluster *c, const char *name)
{
	struct head_world *w = NULL;
	for (uint32_t i = 0; i < N_NODES; i++)
		if (c->nodes[i].set && world_head(&c->nodes[i], name)) {
			CU_ASSERT_PTR_NULL(w);
			w = &c->nodes[i];
		}
	return w;
}

static inline uint32_t stale_copies(struct head_world *w, const char *name)
{
	const struct volume_facts *f = &set_volume_find(w->set, name)->facts;
	uint32_t n = 0;
	for (uint32_t i = 0; i < f->n_disks; i++)
		n += f->disks[i].is_stale && !f->disks[i].is_new;
	return n;
}
