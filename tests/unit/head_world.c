/*
 * head_world.c: a volume set with real disks on a simulated machine.
 */
#include "tests/unit/head_world.h"

#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_world_done(void *context)
{
	return ((struct head_world *)context)->is_done;
}

void world_until(struct head_world *w, bool (*is_done)(void *context), void *context)
{
	enum sim_outcome outcome = sim_run(w->sim, is_done, context, WORLD_STEPS_MAX);
	CU_ASSERT_EQUAL_FATAL(outcome, SIM_DONE);
}

static void world_wait(struct head_world *w)
{
	world_until(w, is_world_done, w);
	w->is_done = false;
}

void world_let_pass(struct head_world *w, uint64_t duration_ns)
{
	CU_ASSERT_EQUAL_FATAL(sim_run_for(w->sim, duration_ns), SIM_DONE);
}

void *world_memory(size_t len_bytes)
{
	void *memory = aligned_alloc(BLOCK_BYTES, (len_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES);
	CU_ASSERT_PTR_NOT_NULL_FATAL(memory);
	return memory;
}

/* ---- the store ---- */

struct world_transaction {
	struct transaction transaction;
	struct head_world *world;
};

static void world_transacted(struct metadata_request *q, int res)
{
	struct head_world *w = container_of(transaction_of(q), struct world_transaction, transaction)->world;
	w->is_done = true;
	w->res = res;
}

void world_put(struct head_world *w, const char *key, char *value)
{
	struct world_transaction t = {.world = w};
	transaction_begin(&t.transaction, world_transacted);
	transaction_put(&t.transaction, value, "%s", key);
	CU_ASSERT_EQUAL_FATAL(transaction_submit(&t.transaction, w->metadata), 0);
	world_wait(w);
	CU_ASSERT_EQUAL_FATAL(w->res, 0);
	transaction_clear(&t.transaction);
}

void world_open(struct head_world *w, uint64_t seed)
{
	struct pool_facts pool = {.name = "default", .replicas = 1, .min_replicas = 1};
	*w = (struct head_world){.cluster = uuid_make(1, 2), .pool = uuid_make(3, 4)};
	w->sim = sim_create(seed);
	w->machine = sim_machine_create(w->sim, "n1");
	CU_ASSERT_EQUAL_FATAL(log_create(-1, LOG_INFO, &w->log), 0);
	CU_ASSERT_EQUAL_FATAL(metadata_open_memory(sim_reactor(w->machine), &w->metadata), 0);
	pool.uuid = w->pool;
	world_put(w, "cluster", cluster_to_json(&w->cluster));
	world_put(w, "pools/default", pool_to_json(&pool));
}

void world_open_beside(struct head_world *w, struct head_world *first, const char *node_name)
{
	*w = (struct head_world){.sim = first->sim,
				 .machine = first->machine,
				 .metadata = first->metadata,
				 .log = first->log,
				 .cluster = first->cluster,
				 .pool = first->pool,
				 .node_name = node_name,
				 .n_disks = 10,
				 .first = first,
				 .is_cluster = true};
	first->is_cluster = true;
}

static const char *world_node(const struct head_world *w)
{
	return w->node_name ? w->node_name : "n1";
}

void world_add_disk(struct head_world *w, uint64_t size_bytes)
{
	struct disk_facts facts = {.uuid = uuid_make(5, ++w->n_disks), .pool = "default", .size_bytes = size_bytes};
	struct disk_format_options o = {
	    .disk = facts.uuid, .pool = w->pool, .cluster = w->cluster, .label = facts.name, .force = false};
	char why[WHY_BYTES], uuid[UUID_TEXT_BYTES], key[KEY_BYTES];
	text_print(facts.node, sizeof(facts.node), "%s", world_node(w));
	text_print(facts.path, sizeof(facts.path), "d%u", w->n_disks);
	text_print(facts.name, sizeof(facts.name), "%s-d%u", world_node(w), w->n_disks);
	uuid_to_text(&facts.uuid, uuid);
	text_print(key, sizeof(key), DISK_KEY, uuid);
	sim_file_create(w->machine, facts.path, size_bytes);
	CU_ASSERT_EQUAL_FATAL(disk_format(sim_reactor(w->machine), facts.path, &o, why), 0);
	world_put(w, key, disk_to_json(&facts));
}

struct sim_file *world_disk_file(struct head_world *w, uint32_t number)
{
	char path[16];
	text_print(path, sizeof(path), "d%u", number);
	return sim_file_find(w->machine, path);
}

/* ---- life ---- */

static void world_ready(struct volume_set *s, int res, void *context)
{
	struct head_world *w = context;
	w->is_done = true;
	w->res = res;
}

static void world_joined(struct members *m, int res, void *context)
{
	struct head_world *w = context;
	w->is_done = true;
	w->res = res;
}

static void world_join(struct head_world *w)
{
	const struct members_options o = {.reactor = sim_reactor(w->machine),
					  .log = w->log,
					  .metadata = w->metadata,
					  .name = world_node(w),
					  .identity = world_node(w),
					  .about = w->about ? w->about : "{}",
					  .lease_ns = WORLD_LEASE_NS,
					  .drift_ppm = 1000};
	CU_ASSERT_EQUAL_FATAL(members_join(&o, world_joined, w, &w->members), 0);
	world_wait(w);
	CU_ASSERT_EQUAL_FATAL(w->res, 0);
}

static void world_left(void *context)
{
	struct head_world *w = context;
	w->is_done = true;
	w->members = NULL;
}

/* ---- other nodes ---- */

static void world_address(const struct head_world *w, char *address, size_t room)
{
	text_print(address, room, "n1:97%s", world_node(w) + 1); /* one machine has them all */
}

static struct disk *world_find_disk(const struct uuid *disk, void *context)
{
	return volume_set_disk(((struct head_world *)context)->set, disk);
}

static uint32_t world_list_disks(struct peer_disk *out, void *context)
{
	return volume_set_list_disks(((struct head_world *)context)->set, out);
}

static void world_damage_healed(void *context, int res)
{
	peer_damage_answer(context, res);
}

static void world_take_damage(struct peer_damage *d, void *context)
{
	volume_set_heal(((struct head_world *)context)->set, d, world_damage_healed, d);
}

static void world_disk_closes(struct disk *disk, void *context)
{
	peer_server_disk_closes(((struct head_world *)context)->server, disk);
}

static void world_let_peers_in(struct volume_set *s, void *context)
{
	struct head_world *w = context;
	char address[16], why[PEER_WHY_BYTES];
	if (w->disks_open)
		w->disks_open(w);
	if (!w->has_peers)
		return;
	world_address(w, address, sizeof(address));
	CU_ASSERT_EQUAL_FATAL(buffers_create(sim_reactor(w->machine), 4 * MIB, 0, &w->buffers), 0);
	const struct peer_server_options o = {.reactor = sim_reactor(w->machine),
					      .log = w->log,
					      .buffers = w->buffers,
					      .cluster = w->cluster,
					      .node_name = world_node(w),
					      .listen = address,
					      .find_disk = world_find_disk,
					      .list_disks = world_list_disks,
					      .take_damage = world_take_damage,
					      .context = w};
	CU_ASSERT_EQUAL_FATAL(peer_server_start(&o, why, &w->server), 0);
	volume_set_on_disk_close(s, world_disk_closes, w);
}

static void world_peer_changed(struct peer_client *c, bool is_up, void *context)
{
	const struct world_peer *p = context;
	volume_set_peer_changed(p->world->set, p->node, c, is_up);
}

void world_connect(struct head_world *w, struct head_world *other)
{
	struct world_peer *p = w->peers;
	while (p->client)
		p++;
	CU_ASSERT_FATAL(p < w->peers + WORLD_PEERS_MAX);
	*p = (struct world_peer){.world = w};
	text_print(p->node, sizeof(p->node), "%s", world_node(other));
	world_address(other, p->address, sizeof(p->address));
	const struct peer_client_options o = {.reactor = sim_reactor(w->machine),
					      .log = w->log,
					      .cluster = w->cluster,
					      .node_name = world_node(w),
					      .address = p->address,
					      .timeout_ns = 700 * NS_PER_MS,
					      .changed = world_peer_changed,
					      .context = p};
	CU_ASSERT_EQUAL_FATAL(peer_client_create(&o, &p->client), 0);
}

static void world_peer_closed(void *context)
{
	struct world_peer *p = context;
	p->client = NULL;
	p->world->is_done = true;
}

static void world_close_peer(struct head_world *w, struct world_peer *p)
{
	peer_client_close(p->client, world_peer_closed, p);
	world_wait(w);
}

void world_disconnect(struct head_world *w, struct head_world *other)
{
	for (uint32_t i = 0; i < WORLD_PEERS_MAX; i++)
		if (w->peers[i].client && strcmp(w->peers[i].node, world_node(other)) == 0)
			world_close_peer(w, &w->peers[i]);
}

static void world_detached(void *context)
{
	((struct head_world *)context)->is_done = true;
}

static void world_server_stopped(void *context)
{
	struct head_world *w = context;
	w->server = NULL;
	w->is_done = true;
}

static void world_part(struct head_world *w)
{
	if (!w->server)
		return;
	volume_set_detach(w->set, world_detached, w);
	world_wait(w);
	for (uint32_t i = 0; i < WORLD_PEERS_MAX; i++)
		if (w->peers[i].client)
			world_close_peer(w, &w->peers[i]);
	volume_set_on_disk_close(w->set, NULL, NULL);
	peer_server_stop(w->server, world_server_stopped, w);
	world_wait(w);
	buffers_destroy(w->buffers);
}

struct world_asked {
	struct metadata_request q;
	struct head_world *world;
};

static void world_asked_done(struct metadata_request *q, int res)
{
	struct head_world *w = container_of(q, struct world_asked, q)->world;
	w->is_done = true;
	w->res = res;
}

static void world_ask(struct head_world *w, struct world_asked *a)
{
	metadata_submit(w->metadata, &a->q);
	world_wait(w);
	CU_ASSERT_EQUAL_FATAL(w->res, 0);
}

char *world_get(struct head_world *w, const char *key)
{
	struct world_asked get = {.q = {.op = METADATA_GET, .key = key, .done = world_asked_done}, .world = w};
	world_ask(w, &get);
	char *value = strdup(get.q.items[0].value);
	metadata_request_clear(&get.q);
	return value;
}

void world_hide_store(struct head_world *w, bool is_hidden)
{
	uint32_t percent = is_hidden ? 100 : 0;
	struct metadata_faults faults = {.lost_percent = percent, .unread_percent = percent};
	metadata_memory_set_faults(w->metadata, &faults);
}

void world_end_lease(struct head_world *w)
{
	char key[KEY_BYTES];
	text_print(key, sizeof(key), LEASE_KEY, world_node(w));
	struct world_asked get = {.q = {.op = METADATA_GET, .key = key, .done = world_asked_done}, .world = w};
	world_ask(w, &get);
	struct world_asked end = {.q = {.op = METADATA_REVOKE, .lease = get.q.items[0].lease, .done = world_asked_done},
				  .world = w};
	metadata_request_clear(&get.q);
	world_ask(w, &end);
}

int world_start(struct head_world *w)
{
	if (w->is_cluster)
		world_join(w);
	struct volume_set_options o = {.reactor = sim_reactor(w->machine),
				       .log = w->log,
				       .metadata = w->metadata,
				       .node_name = world_node(w),
				       .is_store_own = !w->is_cluster,
				       .members = w->members,
				       .cache_bytes = w->cache_bytes ? w->cache_bytes : WORLD_CACHE_BYTES,
				       .n_parts = w->n_parts,
				       .rebuild_after_ns = 600 * NS_PER_S,
				       .has_peers = w->has_peers,
				       .disks_open = world_let_peers_in};
	CU_ASSERT_EQUAL_FATAL(volume_set_start(&o, world_ready, w, &w->set), 0);
	world_wait(w);
	return w->res;
}

static void world_stopped(void *context)
{
	struct head_world *w = context;
	w->is_done = true;
	w->set = NULL;
}

void world_stop(struct head_world *w)
{
	world_part(w);
	volume_set_stop(w->set, world_stopped, w);
	world_wait(w);
	if (!w->members)
		return;
	members_leave(w->members, world_left, w);
	world_wait(w);
}

void world_crash(struct head_world *w, enum sim_crash_kind kind)
{
	sim_crash(w->machine, kind);
	if (w->set)
		volume_set_abandon(w->set);
	if (w->members)
		members_abandon(w->members);
	w->set = NULL;
	w->members = NULL;
	w->is_done = false;
	metadata_memory_crash(w->metadata, sim_reactor(w->machine));
}

void world_close(struct head_world *w)
{
	if (w->set)
		world_stop(w);
	if (w->first)
		return;
	metadata_close(w->metadata);
	sim_destroy(w->sim);
	log_destroy(w->log);
}

/* ---- commands ---- */

struct world_command {
	struct set_command command;
	struct head_world *world;
};

static void world_command_done(struct set_command *c, int res)
{
	struct head_world *w = container_of(c, struct world_command, command)->world;
	w->is_done = true;
	w->res = res;
}

int world_command(struct head_world *w, struct set_command *c)
{
	struct world_command wrapped = {.command = *c, .world = w};
	wrapped.command.done = world_command_done;
	volume_set_command(w->set, &wrapped.command);
	world_wait(w);
	*c = wrapped.command;
	text_print(w->why, sizeof(w->why), "%s", c->why);
	CU_ASSERT(w->res == 0 || (c->why[0] && c->code[0]));
	return w->res;
}

static struct set_command command_on(enum set_command_kind kind, const char *object)
{
	struct set_command c = {.kind = kind};
	text_print(c.object, sizeof(c.object), "%s", object);
	return c;
}

static void world_order_done(struct set_command *command, int res)
{
	struct world_order *o = container_of(command, struct world_order, command);
	o->is_done = true;
	o->res = res;
}

void world_order_start(struct head_world *w, struct world_order *o)
{
	o->command.done = world_order_done;
	volume_set_command(w->set, &o->command);
}

bool world_order_is_done(void *context)
{
	return ((struct world_order *)context)->is_done;
}

int world_create(struct head_world *w, const char *name, uint64_t size_bytes)
{
	struct set_command c = command_on(SET_VOLUME_CREATE, name);
	c.size_bytes = size_bytes;
	return world_command(w, &c);
}

int world_attach(struct head_world *w, const char *name)
{
	struct set_command c = command_on(SET_VOLUME_ATTACH, name);
	text_print(c.other, sizeof(c.other), "nbd");
	return world_command(w, &c);
}

int world_detach(struct head_world *w, const char *name)
{
	struct set_command c = command_on(SET_VOLUME_DETACH, name);
	return world_command(w, &c);
}

int world_create_copies(struct head_world *w, const char *name, uint64_t size_bytes, uint32_t replicas)
{
	struct set_command c = command_on(SET_VOLUME_CREATE, name);
	c.size_bytes = size_bytes;
	c.replicas = replicas;
	return world_command(w, &c);
}

struct volume *world_head(struct head_world *w, const char *name)
{
	struct set_volume *entry = set_volume_find(w->set, name);
	return entry ? entry->head : NULL;
}

struct volume *world_volume(struct head_world *w, const char *name, uint64_t size_bytes)
{
	CU_ASSERT_EQUAL_FATAL(world_create(w, name, size_bytes), 0);
	CU_ASSERT_EQUAL_FATAL(world_attach(w, name), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(world_head(w, name));
	return world_head(w, name);
}

/* ---- snapshots ---- */

/* "NAME@SNAP", "NAME" */
static struct set_target target_of(const char *name)
{
	struct set_target t = {0};
	const char *at = strchr(name, '@');
	text_print(t.volume, sizeof(t.volume), "%.*s", (int)(at ? (size_t)(at - name) : strlen(name)), name);
	text_print(t.snapshot, sizeof(t.snapshot), "%s", at ? at + 1 : "");
	return t;
}

static struct set_command command_on_snapshot(enum set_command_kind kind, const char *name)
{
	struct set_command c = command_on(kind, name);
	c.targets[c.n_targets++] = target_of(name);
	return c;
}

int world_snapshot(struct head_world *w, const char *name)
{
	struct set_command c = command_on_snapshot(SET_SNAPSHOT_CREATE, name);
	return world_command(w, &c);
}

int world_snapshot_delete(struct head_world *w, const char *name)
{
	struct set_command c = command_on_snapshot(SET_SNAPSHOT_DELETE, name);
	return world_command(w, &c);
}

int world_rollback(struct head_world *w, const char *name)
{
	struct set_command c = command_on_snapshot(SET_SNAPSHOT_ROLLBACK, name);
	return world_command(w, &c);
}

int world_clone(struct head_world *w, const char *name, const char *clone)
{
	struct set_command c = command_on_snapshot(SET_VOLUME_CLONE, name);
	text_print(c.other, sizeof(c.other), "%s", clone);
	return world_command(w, &c);
}

struct volume *world_export(struct head_world *w, const char *name)
{
	struct set_snapshot *snap = snapshot_find_export(w->set, name);
	return snap && snap->is_served ? snap->head : NULL;
}

struct set_measure world_measure(struct head_world *w, const char *name)
{
	struct set_command c = command_on(SET_VOLUME_MEASURE, name);
	CU_ASSERT_EQUAL_FATAL(world_command(w, &c), 0);
	return c.measure;
}

struct set_changes world_changes(struct head_world *w, const char *name, const char *since)
{
	struct set_command c = command_on_snapshot(SET_VOLUME_CHANGES, name);
	c.since = target_of(since);
	CU_ASSERT_EQUAL_FATAL(world_command(w, &c), 0);
	return c.changes;
}

/* ---- requests ---- */

struct world_io {
	struct volume_io io;
	struct head_world *world;
};

static void world_io_done(struct volume_io *io, int res)
{
	struct head_world *w = container_of(io, struct world_io, io)->world;
	w->is_done = true;
	w->res = res;
}

static int world_io(struct head_world *w, struct volume *v, struct world_io *io)
{
	io->world = w;
	io->io.done = world_io_done;
	volume_submit(v, &io->io);
	CU_ASSERT_FALSE(w->is_done); /* never inside the call */
	world_wait(w);
	return w->res;
}

static int world_transfer(struct head_world *w, struct volume *v, struct volume_io io, void *data)
{
	struct iovec iov = {data, io.len_bytes};
	struct world_io one = {.io = io};
	one.io.iov = &iov;
	one.io.n_iov = 1;
	return world_io(w, v, &one);
}

int world_write(struct head_world *w, struct volume *v, uint64_t pos, const void *data, uint64_t len, unsigned flags)
{
	struct volume_io io = {.op = VOLUME_WRITE, .pos_bytes = pos, .len_bytes = len, .flags = flags};
	return world_transfer(w, v, io, (void *)data);
}

int world_read(struct head_world *w, struct volume *v, uint64_t pos, void *data, uint64_t len)
{
	struct volume_io io = {.op = VOLUME_READ, .pos_bytes = pos, .len_bytes = len};
	return world_transfer(w, v, io, data);
}

/* The first segment has a sector more than the others, so that merged edges leave a piece of both outer ones. */
static int world_transfer_cut(struct head_world *w, struct volume *v, struct volume_io io, uint8_t *data)
{
	struct iovec iov[VOLUME_IOV_MAX];
	uint64_t each = io.len_bytes / io.n_iov / SECTOR_BYTES * SECTOR_BYTES, first = each + SECTOR_BYTES;
	struct world_io one = {.io = io};
	CU_ASSERT_FATAL(io.n_iov > 2 && io.n_iov <= VOLUME_IOV_MAX);
	iov[0] = (struct iovec){data, first};
	for (uint32_t i = 1; i < io.n_iov; i++)
		iov[i] = (struct iovec){data + first + (i - 1) * each, each};
	iov[io.n_iov - 1].iov_len = io.len_bytes - first - (io.n_iov - 2) * each;
	one.io.iov = iov;
	return world_io(w, v, &one);
}

int world_write_cut(struct head_world *w, struct volume *v, uint64_t pos, void *data, uint64_t len, uint32_t n_iov)
{
	struct volume_io io = {.op = VOLUME_WRITE, .pos_bytes = pos, .len_bytes = len, .n_iov = n_iov};
	return world_transfer_cut(w, v, io, data);
}

int world_read_cut(struct head_world *w, struct volume *v, uint64_t pos, void *data, uint64_t len, uint32_t n_iov)
{
	struct volume_io io = {.op = VOLUME_READ, .pos_bytes = pos, .len_bytes = len, .n_iov = n_iov};
	return world_transfer_cut(w, v, io, data);
}

int world_op(struct head_world *w, struct volume *v, enum volume_op op, uint64_t pos, uint64_t len, unsigned flags)
{
	struct world_io one = {.io = {.op = op, .pos_bytes = pos, .len_bytes = len, .flags = flags}};
	return world_io(w, v, &one);
}

static void world_request_done(struct volume_io *io, int res)
{
	struct world_request *r = container_of(io, struct world_request, io);
	r->is_done = true;
	r->res = res;
}

void world_request_start(struct volume *v, struct world_request *r)
{
	r->is_done = false;
	r->io.iov = &r->iov;
	r->io.n_iov = 1;
	r->io.done = world_request_done;
	volume_submit(v, &r->io);
	CU_ASSERT_FALSE(r->is_done); /* never inside the call */
}

bool world_request_is_done(void *context)
{
	return ((struct world_request *)context)->is_done;
}

uint32_t world_map(struct head_world *w, struct volume *v, uint64_t pos, uint64_t len, struct volume_extent *out,
		   uint32_t max)
{
	struct world_io one = {
	    .io = {.op = VOLUME_MAP, .pos_bytes = pos, .len_bytes = len, .extents = out, .extents_max = max}};
	CU_ASSERT_EQUAL_FATAL(world_io(w, v, &one), 0);
	CU_ASSERT(one.io.n_extents > 0);
	return one.io.n_extents;
}

static void world_compared(struct volume_changes *changes, int res)
{
	struct world_comparison *c = container_of(changes, struct world_comparison, changes);
	c->is_done = true;
	c->res = res;
}

void world_comparison_start(struct world_comparison *c, struct volume_base *base, uint64_t len_bytes)
{
	c->is_done = false;
	c->changes = (struct volume_changes){.base = base,
					     .len_bytes = len_bytes,
					     .extents = c->extents,
					     .extents_max = array_size(c->extents),
					     .scratch = c->scratch,
					     .done = world_compared};
	volume_changes_submit(&c->changes);
	CU_ASSERT_FALSE(c->is_done); /* never inside the call */
}

bool world_comparison_is_done(void *context)
{
	return ((struct world_comparison *)context)->is_done;
}

uint32_t world_events(struct head_world *w, const char *code)
{
	static struct log_event_view events[256];
	size_t n = log_events(w->log, 0, events, array_size(events));
	uint32_t found = 0;
	for (size_t i = 0; i < n; i++)
		found += strcmp(events[i].code, code) == 0;
	return found;
}

const char *world_event(struct head_world *w, const char *code)
{
	static struct log_event_view events[256];
	size_t n = log_events(w->log, 0, events, array_size(events));
	const char *text = "";
	for (size_t i = 0; i < n; i++)
		if (strcmp(events[i].code, code) == 0)
			text = events[i].text;
	return text;
}
