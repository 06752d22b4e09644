/*
 * fake_volume_set.c: see fake_volume_set.h. It has one disk, one pool, and the volumes that were created.
 */
#include "tests/unit/fake_volume_set.h"

#include "frontends/nbd/nbd_server.h"
#include "frontends/vhost-user/vhost_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VOLUMES_MAX 8

struct fake_volume_set {
	struct reactor *reactor;
	struct volume_view volumes[VOLUMES_MAX];
	uint32_t n_volumes;
	struct volume_counters counters;
	struct disk_counters disk_counters;
	struct list queue;
	struct op turn;
	struct set_command *held;
	_Atomic bool is_holding;
};

static void fake_turn(struct op *op, int res);

struct fake_volume_set *fake_volume_set_create(struct reactor *r)
{
	struct fake_volume_set *s = calloc(1, sizeof(*s));
	if (!s)
		abort();
	s->reactor = r;
	list_init(&s->queue);
	op_init(&s->turn, fake_turn);
	counter_add(&s->counters.reads, 5);
	histogram_add(&s->counters.read_ns, 1500);
	histogram_add(&s->counters.read_ns, 70 * NS_PER_S);
	return s;
}

void fake_volume_set_destroy(struct fake_volume_set *s)
{
	quarry_assert(!s->held && list_is_empty(&s->queue));
	free(s);
}

struct volume_set *fake_as_set(struct fake_volume_set *s)
{
	return (struct volume_set *)s;
}
static struct fake_volume_set *fake_of(struct volume_set *s)
{
	return (struct fake_volume_set *)s;
}
bool fake_is_holding(const struct fake_volume_set *s)
{
	return atomic_load((_Atomic bool *)&s->is_holding);
}

/* ---- commands ---- */

static struct volume_view *fake_find(struct fake_volume_set *s, const char *name)
{
	for (uint32_t i = 0; i < s->n_volumes; i++) {
		if (strcmp(s->volumes[i].name, name) == 0)
			return &s->volumes[i];
	}
	return NULL;
}

static int fake_fail(struct set_command *c, int res, const char *code, const char *why)
{
	snprintf(c->code, sizeof(c->code), "%s", code);
	snprintf(c->why, sizeof(c->why), "%s", why);
	return res;
}

static int fake_create(struct fake_volume_set *s, struct set_command *c)
{
	struct volume_view *v = &s->volumes[s->n_volumes];
	if (strcmp(c->object, "full") == 0)
		return fake_fail(c, -ENOSPC, "no-space", "the pool is full");
	if (strcmp(c->object, "taken") == 0)
		return fake_fail(c, -EEXIST, "exists", "it is there with another size");
	if (s->n_volumes == VOLUMES_MAX)
		return -ENOMEM;
	*v = (struct volume_view){
	    .size_bytes = c->size_bytes, .replicas = 1, .created_ns = 1000 * NS_PER_S, .n_disks = 1};
	snprintf(v->name, sizeof(v->name), "%s", c->object);
	snprintf(v->pool, sizeof(v->pool), "%s", "default");
	v->uuid.bytes[15] = (uint8_t)++s->n_volumes;
	v->on_disk[0].allocated_bytes = 4096;
	return 0;
}

static int fake_carry_out(struct fake_volume_set *s, struct set_command *c)
{
	struct volume_view *v = fake_find(s, c->object);
	if (c->kind == SET_VOLUME_CREATE)
		return fake_create(s, c);
	if (!v)
		return fake_fail(c, -ENOENT, "not-found", "there is no such volume");
	if (c->kind == SET_VOLUME_ATTACH) {
		v->is_attached_nbd = v->is_serving = true;
		v->is_read_only = c->read_only;
		v->counters = &s->counters;
	} else if (c->kind == SET_VOLUME_DETACH) {
		v->is_attached_nbd = v->is_serving = false;
		v->counters = NULL;
	} else if (c->kind == SET_VOLUME_RENAME) {
		snprintf(v->name, sizeof(v->name), "%s", c->other);
	} else if (c->kind == SET_VOLUME_DELETE) {
		*v = s->volumes[--s->n_volumes];
	} else {
		return -EOPNOTSUPP;
	}
	return 0;
}

static void fake_turn(struct op *op, int res)
{
	struct fake_volume_set *s = container_of(op, struct fake_volume_set, turn);
	struct list *node = list_pop(&s->queue);
	struct set_command *c = container_of(node, struct set_command, link);
	if (!list_is_empty(&s->queue))
		reactor_defer(s->reactor, &s->turn, 0);
	if (strcmp(c->object, "held") == 0) {
		quarry_assert(!s->held);
		s->held = c;
		atomic_store(&s->is_holding, true);
		return;
	}
	c->done(c, fake_carry_out(s, c));
}

void fake_release(struct fake_volume_set *s)
{
	struct set_command *c = s->held;
	quarry_assert(c);
	s->held = NULL;
	atomic_store(&s->is_holding, false);
	c->done(c, fake_carry_out(s, c));
}

void volume_set_command(struct volume_set *set, struct set_command *c)
{
	struct fake_volume_set *s = fake_of(set);
	list_init(&c->link);
	list_append(&s->queue, &c->link);
	if (s->turn.kind == OP_NONE)
		reactor_defer(s->reactor, &s->turn, 0);
}

/* ---- looking ---- */

void volume_set_disks(struct volume_set *set, void (*each)(const struct disk_view *v, void *context), void *context)
{
	struct disk_view v = {
	    .name = "d1",
	    .path = "/srv/d 1",
	    .pool = "default",
	    .state = DISK_RUNNING,
	    .is_open = true,
	    .counters = &fake_of(set)->disk_counters,
	};
	v.stats.n_blocks = 262144;
	v.stats.free_blocks = 200000;
	v.stats.waiting_blocks = 1000;
	each(&v, context);
}

void volume_set_node_drain(const struct volume_set *set, const char *node, struct node_drain_view *view)
{
	*view = (struct node_drain_view){0};
}

void volume_set_balance(const struct volume_set *set, struct balance_view *view)
{
	*view = (struct balance_view){
	    .node = "n1", .volume = "vm1", .moved_bytes = MIB, .left_bytes = 3 * MIB, .eta_s = 90};
}

void volume_set_disks_adding(struct volume_set *set, void (*each)(const struct disk_adding_view *v, void *context),
			     void *context)
{
	struct disk_adding_view v = {
	    .path = "/srv/d2", .pool = "default", .size_bytes = GIB, .written_bytes = 3 * MIB, .is_reserved = true};
	each(&v, context);
}

void volume_set_volumes(struct volume_set *set, void (*each)(const struct volume_view *v, void *context), void *context)
{
	struct fake_volume_set *s = fake_of(set);
	for (uint32_t i = 0; i < s->n_volumes; i++)
		each(&s->volumes[i], context);
}

void volume_set_snapshots(struct volume_set *set, void (*each)(const struct snapshot_view *v, void *context),
			  void *context)
{
	struct snapshot_view v = {.size_bytes = GIB, .data_bytes = 8192, .created_ns = 1000 * NS_PER_S, .epoch = 5};
	snprintf(v.volume, sizeof(v.volume), "vm1");
	snprintf(v.name, sizeof(v.name), "s1");
	if (fake_find(fake_of(set), "vm1"))
		each(&v, context);
}

void volume_set_pools(struct volume_set *set, void (*each)(const struct pool_view *v, void *context), void *context)
{
	struct pool_view v = {
	    .name = "default", .replicas = 1, .min_replicas = 1, .n_disks = 1, .size_bytes = GIB, .free_bytes = GIB};
	each(&v, context);
}

void volume_set_slow_requests(struct volume_set *set, uint64_t age_ns, void (*each)(const char *line, void *context),
			      void *context)
{
	if (age_ns < NS_PER_S)
		each("write of vm1: GATHER for 0.5 s, waits for disk d1", context);
}

/* ---- what the library's own would need the rest of the house for ---- */

const struct nbd_counters *nbd_server_counters(const struct nbd_server *s)
{
	return NULL;
}
void nbd_server_slow_requests(struct nbd_server *s, uint64_t age_ns, void (*each)(const char *line, void *context),
			      void *context)
{
}
void nbd_server_connections(struct nbd_server *s, void (*each)(const struct nbd_connection_view *v, void *context),
			    void *context)
{
}
uint32_t vhost_server_clients(const struct vhost_server *s, const char *name)
{
	return 0;
}
const struct vhost_counters *vhost_server_counters(const struct vhost_server *s)
{
	return NULL;
}
void vhost_server_slow_requests(struct vhost_server *s, uint64_t age_ns, void (*each)(const char *line, void *context),
				void *context)
{
}
const char *disk_state_name(enum disk_state state)
{
	return state == DISK_RUNNING ? "running" : "failed";
}
