/*
 * cluster_node.c: the cluster, and the life and death of its nodes.
 *
 *   DOWN -> JOINING -> STARTING -> UP -> STOPPING -> DOWN       as daemon/node.c, without the frontends
 *             \__________\__________\_______\_crash__^
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_BYTES   (24 * MIB)
#define BUFFERS_BYTES (4 * MIB)
#define SLICE_NS      (50 * NS_PER_MS) /* at most so late is a crash that is due, or a start */
#define RETRY_NS      (500 * NS_PER_MS)
#define DRIFT_PPM     450u /* of each: two of them differ by less than what members_join() is told */

/* ---- saying ---- */

static void trace_line(const struct cluster *c, uint64_t at_ns, const char *who)
{
	printf("%11.6f  %-6s ", (double)at_ns / (double)NS_PER_S, who);
}

void cluster_say(struct cluster *c, const struct cluster_node *n, const char *format, ...)
{
	va_list args;
	if (!c->is_traced)
		return;
	cluster_tell_events(c);
	trace_line(c, sim_now_ns(c->sim), n ? n->name : "");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

void cluster_tell_events(struct cluster *c)
{
	static struct log_event_view views[64];
	if (!c->is_traced)
		return;
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		struct cluster_node *n = &c->nodes[i];
		size_t n_views;
		while ((n_views = log_events(n->log, n->events_told, views, array_size(views))) > 0)
			for (size_t j = 0; j < n_views; j++) {
				n->events_told = views[j].sequence;
				trace_line(c, views[j].wall_ns, n->name);
				printf("    %s %s: %s\n", views[j].code, views[j].object, views[j].text);
			}
	}
}

void cluster_count_events(struct cluster *c)
{
	static struct log_event_view views[64];
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		uint64_t after = 0;
		size_t n;
		while ((n = log_events(c->nodes[i].log, after, views, array_size(views))) > 0)
			for (size_t j = 0; j < n; j++) {
				after = views[j].sequence;
				c->totals.takeovers += strcmp(views[j].code, "volume-taken-over") == 0;
				c->totals.resyncs += strcmp(views[j].code, "copy-current") == 0;
				c->totals.healed += strcmp(views[j].code, "blocks-healed") == 0;
				if (strcmp(views[j].code, "copies-differ") == 0)
					cluster_fail(c, "%s", views[j].text);
				c->totals.rebalances += strcmp(views[j].code, "rebalance-begun") == 0;
			}
	}
}

_Noreturn void cluster_fail(struct cluster *c, const char *format, ...)
{
	va_list args;
	cluster_tell_events(c);
	printf("seed %" PRIu64 ": at %.3f s: ", c->seed, (double)sim_now_ns(c->sim) / (double)NS_PER_S);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	abort();
}

uint64_t pick(struct cluster *c, uint64_t n)
{
	return sim_below(c->sim, n);
}

/* ---- disks ---- */

static struct cluster_disk *disk_add(struct cluster *c, struct cluster_node *n)
{
	struct cluster_disk *d = &c->disks[c->n_disks];
	quarry_assert(c->n_disks < DISKS_MAX);
	*d = (struct cluster_disk){.uuid = uuid_make(5, ++c->n_disks), .node = n->number};
	text_print(d->path, sizeof(d->path), "d%u", c->n_disks);
	text_print(d->name, sizeof(d->name), "%s-d%u", n->name, c->n_disks);
	d->file = sim_file_create(n->machine, d->path, DISK_BYTES);
	return d;
}

uint32_t cluster_disk_number(const struct cluster *c, const struct uuid *uuid)
{
	uint32_t i = 0;
	while (i < c->n_disks && !uuid_equal(&c->disks[i].uuid, uuid))
		i++;
	return i < c->n_disks ? i : DISKS_MAX;
}

struct set_disk *node_disk(const struct cluster_node *n, const struct cluster_disk *d)
{
	struct set_disk *found = n->state == NODE_UP ? set_disk_by_uuid(n->set, &d->uuid) : NULL;
	return set_disk_runs_here(found) ? found : NULL;
}

/* ---- the store, before anybody lives ---- */

struct waited {
	struct metadata_request q;
	bool is_done;
	int res;
};

static void waited_done(struct metadata_request *q, int res)
{
	struct waited *w = container_of(q, struct waited, q);
	w->is_done = true;
	w->res = res;
}

static bool waited_is_done(void *context)
{
	return ((struct waited *)context)->is_done;
}

/* Any faults of the store's own are this one's, too. */
static int store_put(struct cluster *c, const char *key, char *value)
{
	struct waited w = {.q = {.op = METADATA_TRANSACT,
				 .changes = {{.key = key, .value = value}},
				 .n_changes = 1,
				 .done = waited_done}};
	metadata_submit(cluster_store_memory(c->store), &w.q);
	while (sim_run(c->sim, waited_is_done, &w, 100000) != SIM_DONE)
		cluster_pass(c, NS_PER_MS); /* a crash that is due must happen */
	free(value);
	return w.res;
}

static void disk_make(struct cluster *c, struct cluster_node *n, bool is_spare)
{
	struct cluster_disk *d = disk_add(c, n);
	struct disk_format_options o = {.disk = d->uuid, .pool = c->pool, .cluster = c->id, .label = d->name};
	char why[WHY_BYTES];
	int res = disk_format(sim_reactor(n->machine), d->path, &o, why);
	quarry_assert(res == 0);
	d->is_spare = is_spare;
	if (!is_spare)
		res = store_put_disk(c, d);
	quarry_assert(res == 0);
}

int store_put_disk(struct cluster *c, const struct cluster_disk *d)
{
	const struct cluster_node *n = &c->nodes[d->node];
	struct disk_facts facts = {.uuid = d->uuid, .pool = "default", .size_bytes = DISK_BYTES};
	char uuid[UUID_TEXT_BYTES], key[KEY_BYTES];
	text_print(facts.node, sizeof(facts.node), "%s", n->name);
	text_print(facts.path, sizeof(facts.path), "%s", d->path);
	text_print(facts.name, sizeof(facts.name), "%s", d->name);
	uuid_to_text(&d->uuid, uuid);
	text_print(key, sizeof(key), DISK_KEY, uuid);
	return store_put(c, key, disk_to_json(&facts));
}

/* ---- up ---- */

static void node_ready(struct volume_set *s, int res, void *context)
{
	struct cluster_node *n = context;
	if (n->state != NODE_STARTING)
		return;
	if (res == 0) {
		n->state = NODE_UP;
		cluster_say(n->cluster, n, "is up");
		return;
	}
	cluster_say(n->cluster, n, "does not start: %s %s", strerror(-res), volume_set_why(s));
	node_stop(n);
	n->start_at_ns = sim_now_ns(n->cluster->sim) + RETRY_NS;
}

static void node_let_peers_in(struct volume_set *s, void *context)
{
	struct cluster_node *n = context;
	char why[PEERS_WHY_BYTES];
	const struct peers_options o = {.reactor = sim_reactor(n->machine),
					.log = n->log,
					.buffers = n->buffers,
					.config = n->config,
					.members = n->members,
					.volumes = s};
	int res = peers_start(&o, why, &n->peers);
	if (res < 0)
		cluster_fail(n->cluster, "%s lets nobody in: %s", n->name, why);
}

static void node_joined(struct members *m, int res, void *context)
{
	struct cluster_node *n = context;
	if (n->state != NODE_JOINING)
		return;
	if (res != 0) {
		cluster_say(n->cluster, n, "cannot join: %s", members_why(m));
		node_stop(n);
		n->start_at_ns = sim_now_ns(n->cluster->sim) + RETRY_NS;
		return;
	}
	const struct volume_set_options o = {.reactor = sim_reactor(n->machine),
					     .log = n->log,
					     .metadata = store_client_metadata(n->store),
					     .node_name = n->name,
					     .members = m,
					     .cache_bytes =
						 n->cluster->habits & HABIT_DISKS ? 2 * CACHE_BYTES : CACHE_BYTES,
					     .n_parts = 32,
					     .rebuild_after_ns = n->config->cluster.rebuild_after_s * NS_PER_S,
					     .has_peers = true,
					     .disks_open = node_let_peers_in};
	n->state = NODE_STARTING;
	res = volume_set_start(&o, node_ready, n, &n->set);
	quarry_assert(res == 0);
}

void node_start(struct cluster_node *n)
{
	quarry_assert(n->state == NODE_DOWN && !n->store);
	cluster_say(n->cluster, n, "starts");
	n->state = NODE_JOINING;
	n->store = store_client_open(n->cluster->store, n->number, sim_reactor(n->machine));
	int res = buffers_create(sim_reactor(n->machine), BUFFERS_BYTES, 0, &n->buffers);
	quarry_assert(res == 0);
	const struct members_options o = {.reactor = sim_reactor(n->machine),
					  .log = n->log,
					  .metadata = store_client_metadata(n->store),
					  .name = n->name,
					  .identity = n->name,
					  .about = n->about,
					  .lease_ns = LEASE_NS,
					  .drift_ppm = 1000};
	res = members_join(&o, node_joined, n, &n->members);
	quarry_assert(res == 0);
}

/* ---- down: each part says when it is gone ---- */

static void node_left(void *context)
{
	struct cluster_node *n = context;
	n->members = NULL;
	metadata_close(store_client_metadata(n->store));
	n->store = NULL;
	buffers_destroy(n->buffers);
	n->buffers = NULL;
	n->state = NODE_DOWN;
	cluster_say(n->cluster, n, "is down");
}

static void node_unloaded(void *context)
{
	struct cluster_node *n = context;
	n->set = NULL;
	members_leave(n->members, node_left, n);
}

static void node_parted(void *context)
{
	struct cluster_node *n = context;
	n->peers = NULL;
	volume_set_stop(n->set, node_unloaded, n);
}

static void node_detached(void *context)
{
	struct cluster_node *n = context;
	if (n->peers)
		peers_stop(n->peers, node_parted, n);
	else
		node_parted(n);
}

void node_stop(struct cluster_node *n)
{
	quarry_assert(n->state != NODE_DOWN && n->state != NODE_STOPPING);
	n->state = NODE_STOPPING;
	if (n->set)
		volume_set_detach(n->set, node_detached, n);
	else
		members_leave(n->members, node_left, n);
}

void node_crash(struct cluster_node *n, enum sim_crash_kind kind, uint64_t down_ns)
{
	struct cluster *c = n->cluster;
	uint64_t disks = 0;
	quarry_assert(n->state != NODE_DOWN);
	cluster_say(c, n, "%s", kind == SIM_KILL ? "is killed" : "loses power");
	sim_crash(n->machine, kind);
	if (n->set)
		volume_set_abandon(n->set);
	if (n->peers)
		peers_abandon(n->peers);
	members_abandon(n->members);
	store_client_crash(n->store);
	buffers_abandon(n->buffers);
	n->set = NULL;
	n->peers = NULL;
	n->members = NULL;
	n->store = NULL;
	n->buffers = NULL;
	n->state = NODE_DOWN;
	n->paused_until_ns = 0;
	n->start_at_ns = sim_now_ns(c->sim) + down_ns;
	clients_forget(c, n);
	orders_forget(c, n);
	if (kind == SIM_KILL) {
		c->totals.kills++;
		return;
	}
	c->totals.power_losses++;
	for (uint32_t i = 0; i < c->n_disks; i++)
		disks |= (uint64_t)(c->disks[i].node == n->number) << i;
	facts_power_lost(c, disks);
}

/* ---- time ---- */

static void nodes_see_to(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		struct cluster_node *n = &c->nodes[i];
		if (sim_crash_is_due(n->machine))
			node_crash(n, n->crash_kind, pick(c, 10 * NS_PER_S));
		if (n->paused_until_ns && sim_now_ns(c->sim) >= n->paused_until_ns) {
			n->paused_until_ns = 0;
			sim_pause_until(n->machine, 0);
			cluster_say(c, n, "goes on");
			if (n->state == NODE_UP)
				clients_knock(c, n);
		}
		if (n->state == NODE_DOWN && sim_now_ns(c->sim) >= n->start_at_ns)
			node_start(n);
	}
}

void cluster_pass(struct cluster *c, uint64_t duration_ns)
{
	uint64_t end_ns = sim_now_ns(c->sim) + duration_ns;
	do {
		nodes_see_to(c);
		uint64_t now_ns = sim_now_ns(c->sim);
		if (now_ns < end_ns)
			(void)sim_run_for(c->sim, min_u64(end_ns - now_ns, SLICE_NS));
	} while (sim_now_ns(c->sim) < end_ns);
	nodes_see_to(c);
}

bool cluster_until(struct cluster *c, bool (*holds)(struct cluster *c), uint64_t limit_ns)
{
	uint64_t end_ns = sim_now_ns(c->sim) + limit_ns;
	while (!holds(c)) {
		if (sim_now_ns(c->sim) >= end_ns)
			return false;
		cluster_pass(c, SLICE_NS);
	}
	return true;
}

/* ---- the cluster ---- */

/* Of the world, so that the trace can be read whatever a node's own clock shows. */
static uint64_t log_clock(void *context)
{
	return sim_now_ns(context);
}

static void node_open(struct cluster *c, uint32_t number)
{
	struct cluster_node *n = &c->nodes[number];
	*n = (struct cluster_node){.cluster = c, .number = number, .config = calloc(1, sizeof(*n->config))};
	quarry_assert(n->config);
	text_print(n->name, sizeof(n->name), "n%u", number + 1);
	text_print(n->address, sizeof(n->address), "%s:97", n->name);
	text_print(n->about, sizeof(n->about), "{\"peer\":\"%s\"}", n->address);
	n->machine = sim_machine_create(c->sim, n->name);
	if (c->habits & HABIT_CLOCKS)
		sim_clock_drift(n->machine, (int32_t)pick(c, 2 * DRIFT_PPM + 1) - (int32_t)DRIFT_PPM);
	text_print(n->config->node.name, sizeof(n->config->node.name), "%s", n->name);
	text_print(n->config->peer.listen, sizeof(n->config->peer.listen), "%s", n->address);
	n->config->cluster.replica_timeout_ms = 700;
	n->config->cluster.rebuild_after_s = one_in(c, 2) ? 15 : 600;
	int res = log_create(-1, LOG_NOTICE, &n->log);
	quarry_assert(res == 0);
	log_set_clock(n->log, log_clock, c->sim);
}

static void pool_put(struct cluster *c)
{
	struct pool_facts pool = {.name = "default", .uuid = c->pool, .replicas = 2, .min_replicas = 1};
	pool.failure_domain = DOMAIN_NODE;
	int res = store_put(c, "cluster", cluster_to_json(&c->id));
	quarry_assert(res == 0);
	res = store_put(c, "pools/default", pool_to_json(&pool));
	quarry_assert(res == 0);
}

/* Of a stream of its own: what a seed does beside this is what it did before there were any. */
static uint32_t habits_choose(uint64_t seed)
{
	uint64_t stream = seed;
	uint32_t habits = seed < SEEDS_PLAIN ? 0 : (uint32_t)sim_split(&stream) % (2 * HABIT_LAST);
	if (habits & HABIT_ROT) /* a copy that is given up could be the last good one */
		habits &= ~(uint32_t)(HABIT_REPLICAS | HABIT_DISKS);
	return habits;
}

/* Disks that are added in the course of things. */
static void spares_make(struct cluster *c)
{
	for (uint32_t n = c->habits & HABIT_DISKS ? 1 + (uint32_t)pick(c, 3) : 0; n > 0; n--)
		disk_make(c, &c->nodes[pick(c, c->n_nodes)], true);
}

void cluster_open(struct cluster *c, uint64_t seed, bool is_traced)
{
	*c = (struct cluster){.seed = seed, .is_traced = is_traced, .id = uuid_make(1, 2), .pool = uuid_make(3, 4)};
	c->habits = habits_choose(seed);
	c->is_scrubbing = seed >= SEEDS_UNSCRUBBED && c->habits & HABIT_ROT;
	c->sim = sim_create(seed);
	c->store = cluster_store_open(c->sim);
	c->n_nodes = 3 + (uint32_t)pick(c, NODES_MAX - 2);
	for (uint32_t i = 0; i < c->n_nodes; i++)
		node_open(c, i);
	pool_put(c);
	for (uint32_t i = 0; i < c->n_nodes; i++)
		for (uint32_t n = 1 + (uint32_t)pick(c, 2); n > 0; n--)
			disk_make(c, &c->nodes[i], false);
	spares_make(c);
	facts_watch(c);
	clients_open(c);
}

void cluster_close(struct cluster *c)
{
	clients_close(c);
	facts_close(c);
	cluster_store_close(c->store);
	sim_destroy(c->sim);
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		log_destroy(c->nodes[i].log);
		free(c->nodes[i].config);
	}
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		volume_forget(&c->volumes[i]);
}
