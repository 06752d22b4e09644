/*
 * peers.c: the door of this node's disks for other nodes, and a connection to each of these.
 *
 *   members --changed--> a look: a client for each node that is alive and has an address; none for others
 *
 * The volume set is told of each node that can be asked; its heads have copies on the disks there. A node that has lost
 * its lease, and answers, is still asked: whether a disk has what it was given does not depend on leases. Beside that it
 * is asked every ROOMS_NS how full its disks are, for people, and to carry out requests of the control API.
 *
 * Invariants
 *  1. Of a node there is at most one client; one whose address has changed is closed before another is made.
 *  2. The cluster's key decides who comes in. Without one nothing is encrypted, which the configuration allows on a
 *     loopback address only.
 *  3. Of each node at most PEERS_ORDERS_MAX orders are under way. Their texts are their senders' until done(). The set has
 *     been told that a node is gone before its client is.
 *  4. stopped() comes when the server and the last client are gone, and with them whatever a disk might still write
 *     into.
 *
 * Owner: the reactor.
 */
#include "daemon/peers.h"

#include "daemon/core/checksum.h"
#include "daemon/core/tls.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Beside what the members tell: for what had no memory, and for asking. */
#define LOOK_NS NS_PER_S
/* Asked of each node, so that the store has nothing to do with what changes all the time. */
#define ROOMS_NS       (10 * NS_PER_S)
#define ROOMS_LIMIT_NS (5 * NS_PER_S)

struct peer {
	struct list link;
	struct peers *peers;
	char name[MEMBER_NAME_BYTES], address[CONFIG_TEXT_MAX];
	struct peer_client *client;
	uint32_t n_orders; /* under way */
	bool is_wanted, is_closing;
	struct peers_order ask; /* how full its disks are */
	bool is_asking;
	uint64_t asked_ns; /* 0: never in this connection */
	struct disk_rooms rooms;
};

struct peers {
	struct peers_options options;
	struct tls_credentials *credentials; /* NULL: peer.insecure */
	struct peer_server *server;
	struct list all;
	struct members_listener listener;
	struct timer look;
	char ask_text[BLOCK_BYTES]; /* of rooms_ask() */
	uint32_t ask_bytes;
	void (*take_order)(struct peer_order *o, void *context);
	void *take_context;
	bool is_stopping;
	void (*stopped)(void *context);
	void *context;
};

/* ---- the door ---- */

static struct disk *find_disk(const struct uuid *disk, void *context)
{
	const struct peers *p = context;
	return volume_set_disk(p->options.volumes, disk);
}

static uint32_t list_disks(struct peer_disk *out, void *context)
{
	const struct peers *p = context;
	return volume_set_list_disks(p->options.volumes, out);
}

static void disk_closes(struct disk *disk, void *context)
{
	const struct peers *p = context;
	if (p->server)
		peer_server_disk_closes(p->server, disk);
}

static void take_order(struct peer_order *o, void *context)
{
	const struct peers *p = context;
	if (p->take_order)
		p->take_order(o, p->take_context);
	else
		peer_order_answer(o, 0, NULL, 0);
}

static void damage_healed(void *context, int res)
{
	peer_damage_answer(context, res);
}

static void take_damage(struct peer_damage *d, void *context)
{
	const struct peers *p = context;
	volume_set_heal(p->options.volumes, d, damage_healed, d);
}

void peers_on_order(struct peers *p, void (*take)(struct peer_order *o, void *context), void *context)
{
	p->take_order = take;
	p->take_context = context;
}

/* ---- the others ---- */

static struct peer *peer_find(const struct peers *p, const char *name)
{
	list_each (node, &p->all) {
		struct peer *peer = container_of(node, struct peer, link);
		if (strcmp(peer->name, name) == 0)
			return peer;
	}
	return NULL;
}

static void peers_end(struct peers *p);

static void peer_closed(void *context)
{
	struct peer *peer = context;
	struct peers *p = peer->peers;
	list_remove(&peer->link);
	free(peer);
	peers_end(p);
}

static void peer_changed(struct peer_client *client, bool is_up, void *context)
{
	const struct peer *peer = context;
	volume_set_peer_changed(peer->peers->options.volumes, peer->name, client, is_up);
}

static void peer_close(struct peer *peer)
{
	if (peer->is_closing)
		return;
	peer->is_closing = true;
	peer_client_close(peer->client, peer_closed, peer);
}

static void peer_open(struct peers *p, const char *name, const char *address)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	if (!peer)
		return; /* the next look tries again */
	snprintf(peer->name, sizeof(peer->name), "%s", name);
	snprintf(peer->address, sizeof(peer->address), "%s", address);
	peer->peers = p;
	peer->is_wanted = true;
	list_init(&peer->link);
	const struct peer_client_options o = {
	    .reactor = p->options.reactor,
	    .log = p->options.log,
	    .cluster = *volume_set_cluster(p->options.volumes),
	    .node_name = p->options.config->node.name,
	    .address = peer->address,
	    .credentials = p->credentials,
	    .timeout_ns = p->options.config->cluster.replica_timeout_ms * NS_PER_MS,
	    .changed = peer_changed,
	    .context = peer,
	};
	if (peer_client_create(&o, &peer->client) < 0)
		free(peer);
	else
		list_append(&p->all, &peer->link);
}

/* What the node says of itself is not to be trusted: an address is a text of bounded length, or it has none. */
static void look_at_member(const struct member_view *v, void *context)
{
	struct peers *p = context;
	struct peer *peer = peer_find(p, v->name);
	json_t *about = json_loads(v->about, JSON_REJECT_DUPLICATES, NULL);
	const char *address = json_string_value(json_object_get(about, "peer"));
	bool is_there = v->state == MEMBER_SERVING || (peer && peer_client_is_up(peer->client));
	bool is_wanted = !v->is_self && is_there && address && address[0] && strlen(address) < sizeof(peer->address);
	if (peer)
		peer->is_wanted = is_wanted && strcmp(peer->address, address) == 0;
	else if (is_wanted)
		peer_open(p, v->name, address);
	json_decref(about);
}

/* ---- how full their disks are ---- */

static void rooms_told(struct peers_order *o, int res)
{
	struct peer *peer = container_of(o, struct peer, ask);
	peer->is_asking = false;
	if (res == 0 && o->http_status == 200)
		disk_rooms_read(o->answer, peer->name, reactor_wall_ns(peer->peers->options.reactor), &peer->rooms);
	free(o->answer);
	o->answer = NULL;
}

static void rooms_ask(struct peer *peer)
{
	struct peers *p = peer->peers;
	uint64_t now_ns = reactor_now_ns(p->options.reactor);
	if (!peer_client_is_up(peer->client))
		peer->asked_ns = 0;
	if (peer->is_asking || (peer->asked_ns && now_ns - peer->asked_ns < ROOMS_NS))
		return;
	peer->ask = (struct peers_order){
	    .text = p->ask_text, .text_bytes = p->ask_bytes, .limit_ns = ROOMS_LIMIT_NS, .done = rooms_told};
	if (peers_order_send(p, peer->name, &peer->ask) < 0)
		return;
	peer->is_asking = true;
	peer->asked_ns = now_ns;
}

const struct disk_room *peers_room(const struct peers *p, const char *node, const struct uuid *disk)
{
	const struct peer *peer = peer_find(p, node);
	return peer ? disk_rooms_find(&peer->rooms, disk) : NULL;
}

static void look_fired(struct timer *t)
{
	struct peers *p = container_of(t, struct peers, look);
	quarry_assert(!p->is_stopping);
	list_each (node, &p->all)
		container_of(node, struct peer, link)->is_wanted = false;
	members_each(p->options.members, look_at_member, p);
	list_each_safe (node, &p->all) {
		struct peer *peer = container_of(node, struct peer, link);
		if (!peer->is_wanted)
			peer_close(peer);
		else
			rooms_ask(peer);
	}
	timer_start(p->options.reactor, &p->look, LOOK_NS);
}

/* A node has come or gone: many may at once, and one look sees them all. */
static void members_changed(struct members_listener *l, const char *node)
{
	struct peers *p = container_of(l, struct peers, listener);
	timer_start(p->options.reactor, &p->look, 0);
}

enum peer_answer peers_answer(const struct peers *p, const char *node)
{
	const struct peer *peer = peer_find(p, node);
	if (!peer || peer->is_closing)
		return PEER_NOT_ASKED;
	return peer_client_is_up(peer->client) ? PEER_ANSWERS : PEER_IS_SILENT;
}

/* ---- orders ---- */

static struct peers_order *order_of(struct peer_call *call)
{
	return container_of(call, struct peers_order, call);
}

static void order_fill(struct peer_call *call, struct peer_message *m)
{
	const struct peers_order *o = order_of(call);
	m->text_bytes = o->text_bytes;
	m->n_blocks = o->data.iov_len / BLOCK_BYTES;
	for (uint32_t i = 0; i < m->n_blocks; i++)
		m->crcs[i] = crc32c(0, o->text + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
}

static int order_take(struct peer_call *call, const struct peer_in *in)
{
	struct peers_order *o = order_of(call);
	quarry_assert(in->message.text_bytes <= in->header.data_bytes && !o->answer);
	o->http_status = (unsigned)in->message.http_status;
	o->answer = strndup(in->data, in->message.text_bytes);
	return o->answer ? 0 : -ENOMEM;
}

static void order_done(struct peer_call *call, int res)
{
	struct peers_order *o = order_of(call);
	quarry_assert(o->peer->n_orders > 0 && (res == 0) == (o->answer != NULL));
	o->peer->n_orders--;
	o->done(o, res);
}

int peers_order_send(struct peers *p, const char *node, struct peers_order *o)
{
	struct peer *peer = peer_find(p, node);
	quarry_assert(o->done && o->text_bytes > 0 && o->text_bytes <= PEER_TEXT_MAX && !o->answer);
	if (!peer || peer->is_closing || !peer_client_is_up(peer->client))
		return -ENOTCONN;
	if (!peer_client_has(peer->client, PEER_TAKES_ORDERS))
		return -EOPNOTSUPP;
	if (peer->n_orders == PEERS_ORDERS_MAX)
		return -EBUSY;
	peer->n_orders++;
	o->peer = peer;
	o->data = (struct iovec){o->text, (o->text_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES};
	o->call = (struct peer_call){
	    .type = PEER_ORDER,
	    .timeout_ns = max_u64(o->limit_ns, p->options.config->cluster.replica_timeout_ms * NS_PER_MS),
	    .fill = order_fill,
	    .data = &o->data,
	    .n_data = 1,
	    .take = order_take,
	    .done = order_done,
	};
	peer_client_call(peer->client, &o->call);
	return 0;
}

/* ---- life ---- */

int peers_start(const struct peers_options *o, char why[static PEERS_WHY_BYTES], struct peers **out)
{
	char reason[TLS_WHY_BYTES] = "", server_why[PEER_WHY_BYTES] = "";
	struct peers *p = calloc(1, sizeof(*p));
	snprintf(why, PEERS_WHY_BYTES, "peer.listen: no memory");
	if (!p)
		return -ENOMEM;
	p->options = *o;
	list_init(&p->all);
	timer_init(&p->look, look_fired);
	p->ask_bytes = (uint32_t)snprintf(p->ask_text, sizeof(p->ask_text), "GET\n/v1/disks\n");
	int res = o->config->peer.key_file[0] ? tls_load_peer(o->config->peer.key_file, reason, &p->credentials) : 0;
	if (res < 0) {
		snprintf(why, PEERS_WHY_BYTES, "%s", reason);
		free(p);
		return res;
	}
	const struct peer_server_options server = {
	    .reactor = o->reactor,
	    .log = o->log,
	    .buffers = o->buffers,
	    .cluster = *volume_set_cluster(o->volumes),
	    .node_name = o->config->node.name,
	    .listen = o->config->peer.listen,
	    .credentials = p->credentials,
	    .find_disk = find_disk,
	    .take_order = take_order,
	    .take_damage = take_damage,
	    .list_disks = list_disks,
	    .context = p,
	};
	res = peer_server_start(&server, server_why, &p->server);
	if (res < 0) {
		snprintf(why, PEERS_WHY_BYTES, "peer.listen: %s", server_why);
		tls_unload(p->credentials);
		free(p);
		return res;
	}
	volume_set_on_disk_close(o->volumes, disk_closes, p);
	p->listener = (struct members_listener){.changed = members_changed};
	members_listen(o->members, &p->listener);
	timer_start(o->reactor, &p->look, 0);
	*out = p;
	return 0;
}

static void peers_end(struct peers *p)
{
	if (!p->is_stopping || p->server || !list_is_empty(&p->all))
		return;
	void (*stopped)(void *context) = p->stopped;
	void *context = p->context;
	tls_unload(p->credentials);
	free(p);
	stopped(context);
}

static void server_stopped(void *context)
{
	struct peers *p = context;
	p->server = NULL;
	peers_end(p);
}

void peers_stop(struct peers *p, void (*stopped)(void *context), void *context)
{
	quarry_assert(!p->is_stopping && stopped);
	p->is_stopping = true;
	p->stopped = stopped;
	p->context = context;
	timer_stop(p->options.reactor, &p->look);
	members_unlisten(&p->listener);
	volume_set_on_disk_close(p->options.volumes, NULL, NULL);
	list_each_safe (node, &p->all)
		peer_close(container_of(node, struct peer, link));
	peer_server_stop(p->server, server_stopped, p);
}

void peers_abandon(struct peers *p)
{
	for (struct list *node; (node = list_pop(&p->all)) != NULL;) {
		struct peer *peer = container_of(node, struct peer, link);
		peer_client_abandon(peer->client);
		free(peer->ask.answer);
		free(peer);
	}
	if (p->server)
		peer_server_abandon(p->server);
	tls_unload(p->credentials);
	free(p);
}
