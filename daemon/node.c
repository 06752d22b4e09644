/*
 * node.c: puts a node together, and takes it apart.
 *
 *   FOLDERS -> STORE -> JOIN -> VOLUMES -> CLIENTS -> CONTROL -> RUN
 *      |         |       |         |          |          |        v
 *      +---------+-------+---------+----------+----------+------> HUSH -> DISCONNECT -> RELEASE -> PART -> UNLOAD
 *                      on error, or asked to stop                          END <- CLOSE <- LEAVE <-----------+
 *
 *   STORE    waits for as long as it takes until etcd can be reached: after a loss of power it may start later than we
 *   JOIN     of a cluster: the node takes its name and its lease
 *   LEAVE    gives them back, when all that needs them is gone
 *
 * Invariants
 *  1. Parts are started from the bottom up and stopped from the top down: no part is without what it uses. The way down
 *     skips what was not started.
 *  2. Clients are let in only when all volumes that can serve do; the API comes last, so whoever it answers finds all.
 *  3. A stop that is asked for during the start takes effect between two parts, or while one waits for others, never
 *     within one.
 *  4. ended() is called exactly once, after everything was freed.
 *
 * Owner: the reactor.
 */
#include "daemon/node.h"

#include "daemon/control/control.h"
#include "daemon/core/buffers.h"
#include "daemon/metadata/members.h"
#include "daemon/node_store.h"
#include "daemon/peers.h"
#include "daemon/place.h"
#include "frontends/nbd/nbd_server.h"
#include "frontends/vhost-user/vhost_server.h"
#include "volumes/head/volume_set.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define IO_BUFFERS_BYTES (48 * MIB) /* promised beside cache_mb: quarry.conf(5) */
#define IO_RESERVE_BYTES (8 * MIB)  /* of these, for small requests: 256 of 32 KiB, one for every connection */

#define STORE_PAUSE_NS (NS_PER_S)        /* before an etcd that cannot be reached is asked again */
#define STORE_TELL_NS  (30 * NS_PER_S)   /* it is said this often that we wait for it */
#define PLACE_PAUSE_NS (100 * NS_PER_MS) /* a daemon that was killed keeps its lock */
#define PLACE_WAIT_NS  (10 * NS_PER_S)   /* until its last requests are done: not for longer than this */

#define NODE_STAGES(X)                                                                                                 \
	X(FOLDERS, "making its folders")                                                                               \
	X(STORE, "opening the metadata store, or waiting for it")                                                      \
	X(JOIN, "joining the cluster")                                                                                 \
	X(VOLUMES, "recovering the disks and attaching volumes")                                                       \
	X(CLIENTS, "listening for NBD and vhost-user clients")                                                         \
	X(CONTROL, "listening for commands")                                                                           \
	X(RUN, "serving")                                                                                              \
	X(HUSH, "finishing commands")                                                                                  \
	X(DISCONNECT, "disconnecting NBD clients")                                                                     \
	X(RELEASE, "disconnecting virtual machines")                                                                   \
	X(DETACH, "detaching volumes")                                                                                 \
	X(PART, "disconnecting other nodes")                                                                           \
	X(UNLOAD, "closing the disks with a last checkpoint")                                                          \
	X(LEAVE, "leaving the cluster")                                                                                \
	X(CLOSE, "closing the metadata store")                                                                         \
	X(END, "ended")

enum node_stage {
#define X(name, text) NODE_##name,
	NODE_STAGES(X)
#undef X
};

struct node {
	struct reactor *reactor;
	struct log *log;
	const struct config *config;
	struct node_options options;
	enum node_stage stage;
	bool is_stop_asked;
	bool is_awaited;  /* the part at hand has been told, and has not answered yet */
	bool is_detached; /* the volumes are: nothing is asked of other nodes any more */
	bool is_in_run;   /* the dispatcher is at work, and sees an answer that comes at once by itself */
	int res;          /* of a start that failed */
	char why[NODE_WHY_BYTES];
	uint64_t started_wall_ns;
	struct op begin;

	struct buffers *buffers;
	struct place place;
	struct timer pause; /* of STORE */
	uint64_t place_since_ns, told_ns;
	struct metadata *metadata;
	struct members *members; /* NULL: the store is this node's alone */
	struct volume_set *volumes;
	struct nbd_server *nbd;
	struct vhost_server *vhost;
	struct peers *peers; /* NULL: other nodes are not let in */
	struct control *control;
};

static void node_run(struct node *n);

const char *node_stage_text(const struct node *n)
{
	static const char *const texts[] = {
#define X(name, text) [NODE_##name] = text,
	    NODE_STAGES(X)
#undef X
	};
	quarry_assert((size_t)n->stage < array_size(texts));
	return texts[n->stage];
}

/* What must hold in each stage; at the top of every turn of the dispatcher. */
static void node_check(const struct node *n)
{
	quarry_assert(n->stage <= NODE_END);
	quarry_assert(!n->members || n->metadata);
	quarry_assert(!n->volumes || n->metadata);
	quarry_assert(!n->nbd || n->volumes);
	quarry_assert(!n->vhost || n->volumes);
	quarry_assert(!n->peers || (n->volumes && n->members));
	quarry_assert(!n->control || n->volumes);
	quarry_assert(n->stage != NODE_RUN || (n->control && n->res == 0));
	quarry_assert(n->stage != NODE_END || (!n->control && !n->nbd && !n->vhost && !n->volumes && !n->metadata));
}

static void printf_like(3, 4) node_fail(struct node *n, int res, const char *format, ...)
{
	va_list args;
	quarry_assert(res < 0 && n->res == 0);
	n->res = res;
	va_start(args, format);
	vsnprintf(n->why, sizeof(n->why), format, args);
	va_end(args);
}

/* ---- up ---- */

/* Makes the folder and those above it that are missing. 0 or -errno. */
static int folder_make(const char *path)
{
	char part[CONFIG_TEXT_MAX];
	size_t len = strlen(path);
	quarry_assert(len < sizeof(part));
	memcpy(part, path, len + 1);
	for (char *slash = part + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
		*slash = '\0';
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -errno;
	}
	return mkdir(part, 0750) < 0 && errno != EEXIST ? -errno : 0;
}

static void folder_make_for(struct node *n, const char *key, const char *path, bool is_file)
{
	char folder[CONFIG_TEXT_MAX];
	snprintf(folder, sizeof(folder), "%s", path);
	char *end = is_file ? strrchr(folder, '/') : NULL;
	if (end == folder || path[0] == '\0' || n->res < 0)
		return;
	if (end)
		*end = '\0';
	int res = folder_make(folder);
	if (res < 0)
		node_fail(n, res, "%s: cannot make the folder %s: %s", key, folder, strerror(-res));
}

static void node_make_folders(struct node *n)
{
	folder_make_for(n, "node.data_dir", n->config->node.data_dir, false);
	folder_make_for(n, "control.socket", n->config->control.socket, true);
	folder_make_for(n, "nbd.socket", n->config->nbd.socket, true);
	folder_make_for(n, "vhost.dir", n->config->vhost.dir, false);
	if (n->res == 0 && buffers_create(n->reactor, IO_BUFFERS_BYTES, IO_RESERVE_BYTES, &n->buffers) < 0)
		node_fail(n, -ENOMEM, "no memory for %llu MiB of I/O buffers", IO_BUFFERS_BYTES / MIB);
}

/* A daemon that was killed may hold the folder for a moment. */
static enum flow node_take_place(struct node *n)
{
	char why[PLACE_WHY_BYTES] = "";
	uint64_t now_ns = reactor_now_ns(n->reactor);
	if (n->place.fd >= 0 || n->config->metadata.backend != CONFIG_ETCD)
		return FLOW_NEXT;
	int res = place_take(&n->place, n->config->node.data_dir, n->config->node.name, why);
	if (n->place_since_ns == 0)
		n->place_since_ns = now_ns;
	if (res == -EBUSY && now_ns - n->place_since_ns < PLACE_WAIT_NS) {
		timer_start(n->reactor, &n->pause, PLACE_PAUSE_NS);
		return FLOW_WAIT;
	}
	if (res < 0)
		node_fail(n, res, "%s", why);
	return FLOW_NEXT;
}

static enum flow node_open_store(struct node *n)
{
	char why[NODE_STORE_WHY_BYTES] = "";
	uint64_t now_ns = reactor_now_ns(n->reactor);
	if (n->is_stop_asked)
		return FLOW_NEXT;
	if (node_take_place(n) == FLOW_WAIT)
		return FLOW_WAIT;
	int res = n->res ? n->res : node_store_open(n->reactor, n->log, n->config, why, &n->metadata);
	if (res == 0 || n->res < 0)
		return FLOW_NEXT;
	if (res != -EHOSTUNREACH) {
		node_fail(n, res, "%s", why);
		return FLOW_NEXT;
	}
	if (n->told_ns == 0 || now_ns - n->told_ns >= STORE_TELL_NS) {
		log_event(n->log, LOG_WARNING, "metadata-awaited", n->config->node.name,
			  "%s: waiting until one does; start etcd, or correct metadata.endpoints", why);
		n->told_ns = now_ns;
	}
	timer_start(n->reactor, &n->pause, STORE_PAUSE_NS);
	return FLOW_WAIT;
}

static void node_pause_over(struct timer *t)
{
	node_run(container_of(t, struct node, pause));
}

static void node_joined(struct members *m, int res, void *context)
{
	struct node *n = context;
	quarry_assert(n->stage == NODE_JOIN && n->is_awaited);
	if (res < 0)
		node_fail(n, res, "%s", members_why(m));
	n->is_awaited = false;
	node_run(n);
}

static void node_join(struct node *n)
{
	char *about = node_store_about(n->config);
	const struct members_options o = {
	    .reactor = n->reactor,
	    .log = n->log,
	    .metadata = n->metadata,
	    .name = n->config->node.name,
	    .identity = n->place.identity,
	    .about = about,
	    .lease_ns = n->config->cluster.lease_ms * NS_PER_MS,
	    .drift_ppm = n->config->cluster.drift_ppm,
	};
	int res = about ? members_join(&o, node_joined, n, &n->members) : -ENOMEM;
	free(about);
	n->is_awaited = res == 0;
	if (res < 0)
		node_fail(n, res, "no memory to join the cluster");
}

static void volumes_ready(struct volume_set *s, int res, void *context)
{
	struct node *n = context;
	quarry_assert(n->stage == NODE_VOLUMES && n->is_awaited);
	quarry_assert(n->volumes == s);
	if (n->res < 0)
		res = 0; /* its end is decided: the door for other nodes does not open */
	if (res < 0 && volume_set_why(s)[0] && !n->members)
		node_fail(n, res, "%s/metadata.db: %s", n->config->node.data_dir, volume_set_why(s));
	else if (res < 0 && volume_set_why(s)[0])
		node_fail(n, res, "%s", volume_set_why(s));
	else if (res < 0)
		node_fail(n, res, "the volumes cannot be loaded: %s", strerror(-res));
	n->is_awaited = false;
	if (!n->is_in_run)
		node_run(n);
}

static void node_let_nodes_in(struct node *n);

/* Other nodes' disks are needed to bring volumes back, and this node's by others. */
static void volumes_disks_open(struct volume_set *s, void *context)
{
	struct node *n = context;
	quarry_assert(n->stage == NODE_VOLUMES && n->volumes == s);
	node_let_nodes_in(n);
}

static void node_load_volumes(struct node *n)
{
	const struct volume_set_options o = {
	    .reactor = n->reactor,
	    .log = n->log,
	    .metadata = n->metadata,
	    .node_name = n->config->node.name,
	    .is_store_own = n->config->metadata.backend == CONFIG_EMBEDDED,
	    .members = n->members,
	    .cache_bytes = n->config->node.cache_mb * MIB,
	    .rebuild_after_ns = n->config->cluster.rebuild_after_s * NS_PER_S,
	    .has_peers = n->members && n->config->peer.listen[0],
	    .disks_open = volumes_disks_open,
	};
	int res = volume_set_start(&o, volumes_ready, n, &n->volumes);
	n->is_awaited = res == 0;
	if (res < 0)
		node_fail(n, res, "the volumes cannot be loaded: %s", strerror(-res));
}

static enum nbd_tls_mode nbd_tls(const struct config *config)
{
	_Static_assert((int)CONFIG_TLS_OFF == NBD_TLS_OFF && (int)CONFIG_TLS_REQUIRE == NBD_TLS_REQUIRE,
		       "the same order");
	return (enum nbd_tls_mode)config->nbd.tls;
}

static void node_let_clients_in(struct node *n)
{
	char why[NBD_WHY_BYTES] = "";
	const struct nbd_server_options o = {
	    .reactor = n->reactor,
	    .log = n->log,
	    .volumes = n->volumes,
	    .buffers = n->buffers,
	    .socket = n->config->nbd.socket,
	    .listen = n->config->nbd.listen,
	    .tls = nbd_tls(n->config),
	    .cert_dir = n->config->nbd.cert_dir,
	    .psk_file = n->config->nbd.psk_file,
	    .max_connections = (uint32_t)n->config->nbd.max_connections,
	};
	if (!o.socket[0] && !o.listen[0])
		return;
	int res = nbd_server_start(&o, why, &n->nbd);
	if (res < 0)
		node_fail(n, res, "%s", why);
}

static void node_let_machines_in(struct node *n)
{
	const struct vhost_server_options o = {
	    .reactor = n->reactor,
	    .log = n->log,
	    .volumes = n->volumes,
	    .buffers = n->buffers,
	    .dir = n->config->vhost.dir,
	    .poll_us = (uint32_t)n->config->vhost.poll_us,
	    .file_memory = n->config->vhost.file_memory,
	};
	if (n->res < 0)
		return;
	int res = vhost_server_start(&o, &n->vhost);
	if (res < 0)
		node_fail(n, res, "the vhost-user sockets cannot be made: %s", strerror(-res));
}

static void node_let_nodes_in(struct node *n)
{
	char why[PEERS_WHY_BYTES] = "";
	const struct peers_options o = {
	    .reactor = n->reactor,
	    .log = n->log,
	    .buffers = n->buffers,
	    .config = n->config,
	    .members = n->members,
	    .volumes = n->volumes,
	};
	if (n->res < 0 || !n->config->peer.listen[0])
		return;
	int res = peers_start(&o, why, &n->peers);
	if (res < 0)
		node_fail(n, res, "%s", why);
}

static void take_order(struct peer_order *o, void *context)
{
	struct node *n = context;
	control_take_order(n->control, o);
}

static void node_let_commands_in(struct node *n)
{
	char why[CONTROL_WHY_BYTES] = "";
	const struct control_options o = {
	    .log = n->log,
	    .config = n->config,
	    .sources = {.reactor = n->reactor,
			.metadata = n->metadata,
			.members = n->members,
			.peers = n->peers,
			.peer_answer = peers_answer,
			.peer_order = peers_order_send,
			.peer_room = peers_room,
			.volumes = n->volumes,
			.nbd = n->nbd,
			.vhost = n->vhost,
			.buffers = n->buffers},
	    .started_wall_ns = n->started_wall_ns,
	};
	int res = control_start(&o, why, &n->control);
	if (res < 0)
		node_fail(n, res, "%s", why);
	else if (n->peers)
		peers_on_order(n->peers, take_order, n);
}

static void node_announce(struct node *n)
{
	log_event(n->log, LOG_NOTICE, "node-started", n->config->node.name, "serving: control %s, NBD %s%s%s",
		  n->config->control.socket, n->config->nbd.socket, n->config->nbd.listen[0] ? " and " : "",
		  n->config->nbd.listen);
	n->options.started(n, n->options.context);
}

/* ---- down: each part says when it is gone ---- */

static void node_part_gone(struct node *n, enum node_stage stage)
{
	quarry_assert(n->stage == stage);
	quarry_assert(n->is_awaited);
	n->is_awaited = false;
	if (!n->is_in_run)
		node_run(n);
}

static void control_gone(void *context)
{
	struct node *n = context;
	n->control = NULL;
	if (n->peers)
		peers_on_order(n->peers, NULL, NULL);
	node_part_gone(n, NODE_HUSH);
}

static void nbd_gone(void *context)
{
	struct node *n = context;
	n->nbd = NULL;
	node_part_gone(n, NODE_DISCONNECT);
}

static void vhost_gone(void *context)
{
	struct node *n = context;
	n->vhost = NULL;
	node_part_gone(n, NODE_RELEASE);
}

static void peers_gone(void *context)
{
	struct node *n = context;
	n->peers = NULL;
	node_part_gone(n, NODE_PART);
}

static void volumes_detached(void *context)
{
	struct node *n = context;
	n->is_detached = true;
	node_part_gone(n, NODE_DETACH);
}

static void volumes_gone(void *context)
{
	struct node *n = context;
	n->volumes = NULL;
	node_part_gone(n, NODE_UNLOAD);
}

static void members_gone(void *context)
{
	struct node *n = context;
	n->members = NULL;
	node_part_gone(n, NODE_LEAVE);
}

static enum flow node_await(struct node *n)
{
	return n->is_awaited ? FLOW_WAIT : FLOW_NEXT;
}

/* Tells the part of this stage to go, once; it may be gone before this returns. */
static enum flow node_take_down(struct node *n)
{
	if (n->is_awaited)
		return FLOW_WAIT;
	n->is_awaited = true;
	if (n->stage == NODE_HUSH && n->control)
		control_stop(n->control, control_gone, n);
	else if (n->stage == NODE_DISCONNECT && n->nbd)
		nbd_server_stop(n->nbd, nbd_gone, n);
	else if (n->stage == NODE_RELEASE && n->vhost)
		vhost_server_stop(n->vhost, vhost_gone, n);
	else if (n->stage == NODE_DETACH && n->volumes && !n->is_detached)
		volume_set_detach(n->volumes, volumes_detached, n);
	else if (n->stage == NODE_PART && n->peers)
		peers_stop(n->peers, peers_gone, n);
	else if (n->stage == NODE_UNLOAD && n->volumes)
		volume_set_stop(n->volumes, volumes_gone, n);
	else if (n->stage == NODE_LEAVE && n->members)
		members_leave(n->members, members_gone, n);
	else
		n->is_awaited = false;
	return n->is_awaited ? FLOW_WAIT : FLOW_NEXT;
}

static void node_close_store(struct node *n)
{
	if (n->metadata)
		metadata_close(n->metadata);
	n->metadata = NULL;
	place_leave(&n->place);
	if (n->buffers)
		buffers_destroy(n->buffers);
	n->buffers = NULL;
}

static void node_end(struct node *n)
{
	const struct node_options o = n->options;
	char why[NODE_WHY_BYTES];
	int res = n->res;
	memcpy(why, n->why, sizeof(why));
	free(n);
	o.ended(res, why, o.context);
}

/* ---- the way of a node ---- */

static void node_goto(struct node *n, enum node_stage stage)
{
	quarry_assert(stage > n->stage);
	log_line(n->log, LOG_DEBUG, "node", "%s", node_stage_text(n));
	n->stage = stage;
}

/* The next stage of the start, or the way down when it failed or is no longer wanted. */
static void node_go_on(struct node *n, enum node_stage next)
{
	node_goto(n, n->res < 0 || n->is_stop_asked ? NODE_HUSH : next);
}

/* Goes on until something has to be waited for. False: the node has ended and is gone. */
static bool node_steps(struct node *n)
{
	for (;;) {
		node_check(n);
		switch (n->stage) {
		case NODE_FOLDERS:
			node_make_folders(n);
			node_go_on(n, NODE_STORE);
			break;
		case NODE_STORE:
			if (node_open_store(n) == FLOW_WAIT)
				return true;
			node_go_on(n, n->config->metadata.backend == CONFIG_ETCD ? NODE_JOIN : NODE_VOLUMES);
			break;
		case NODE_JOIN:
			if (!n->members)
				node_join(n);
			if (node_await(n) == FLOW_WAIT && !n->is_stop_asked)
				return true;
			n->is_awaited = false; /* of one that is still joining: it is told to leave */
			node_go_on(n, NODE_VOLUMES);
			break;
		case NODE_VOLUMES:
			if (!n->volumes)
				node_load_volumes(n);
			if (node_await(n) == FLOW_WAIT)
				return true;
			node_go_on(n, NODE_CLIENTS);
			break;
		case NODE_CLIENTS:
			node_let_clients_in(n);
			node_let_machines_in(n);
			node_go_on(n, NODE_CONTROL);
			break;
		case NODE_CONTROL:
			node_let_commands_in(n);
			node_go_on(n, NODE_RUN);
			if (n->stage == NODE_RUN)
				node_announce(n);
			break;
		case NODE_RUN:
			if (!n->is_stop_asked)
				return true;
			log_event(n->log, LOG_NOTICE, "node-stopping", n->config->node.name, "asked to stop");
			node_goto(n, NODE_HUSH);
			break;
		case NODE_HUSH:
		case NODE_DISCONNECT:
		case NODE_RELEASE:
		case NODE_DETACH:
		case NODE_PART:
		case NODE_UNLOAD:
		case NODE_LEAVE: /* part after part, each when the one above it is gone */
			if (node_take_down(n) == FLOW_WAIT)
				return true;
			node_goto(n, n->stage + 1);
			break;
		case NODE_CLOSE:
			node_close_store(n);
			node_goto(n, NODE_END);
			break;
		case NODE_END:
			node_end(n);
			return false;
		}
	}
}

static void node_run(struct node *n)
{
	quarry_assert(!n->is_in_run);
	n->is_in_run = true;
	if (node_steps(n))
		n->is_in_run = false;
}

static void node_begin(struct op *op, int res)
{
	struct node *n = container_of(op, struct node, begin);
	n->started_wall_ns = reactor_wall_ns(n->reactor);
	node_run(n);
}

int node_start(const struct node_options *o, struct node **out)
{
	quarry_assert(o->started && o->ended);
	struct node *n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->reactor = o->reactor;
	n->log = o->log;
	n->config = o->config;
	n->options = *o;
	n->place.fd = -1;
	timer_init(&n->pause, node_pause_over);
	op_init(&n->begin, node_begin);
	reactor_defer(n->reactor, &n->begin, 0);
	*out = n;
	return 0;
}

void node_stop(struct node *n)
{
	bool is_waiting = n->stage == NODE_RUN || n->stage == NODE_JOIN || timer_is_running(&n->pause);
	bool is_first = !n->is_stop_asked;
	n->is_stop_asked = true;
	timer_stop(n->reactor, &n->pause);
	if (is_waiting && is_first)
		node_run(n);
}
