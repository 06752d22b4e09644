/*
 * set_peers.c: the disks of other nodes, as this one sees them: whether their node can be asked, whether it serves them,
 * and what they have room for.
 *
 *   node   DOWN --connected--> UP --asks DISKS, again every ASK_NS--> UP --connection lost--> DOWN
 *   disk   ABSENT --its node tells of it--> RUNNING --its node tells of it no more, or is down--> ABSENT
 *
 * Invariants
 *  1. A disk of another node is RUNNING if and only if it has a client, which is up: its node has told of it over that
 *     connection.
 *  2. Before a client is given up, no replica has a session over it any more.
 *  3. What a node tells counts for the disks that the store says are its own.
 *
 * Owner: the set.
 */
#include "volumes/head/head_internal.h"

#include <stdlib.h>
#include <string.h>

#define ASK_NS NS_PER_S

struct set_peer {
	struct list link;
	struct volume_set *set;
	char node[NAME_BYTES];
	struct peer_client *client; /* NULL: it is down */
	struct peer_call call;
	bool is_asking; /* call is under way */
	struct timer wait;
	struct peer_disk disks[PEER_DISKS_MAX]; /* as it has told last */
	uint32_t n_disks;
};

static struct set_peer *peer_find(struct volume_set *s, const char *node)
{
	list_each (link, &s->peers) {
		struct set_peer *p = container_of(link, struct set_peer, link);
		if (strcmp(p->node, node) == 0)
			return p;
	}
	return NULL;
}

struct peer_client *set_peer_client(struct volume_set *s, const char *node)
{
	const struct set_peer *p = peer_find(s, node);
	return p ? p->client : NULL;
}

/* ---- its disks ---- */

static bool disk_is_of_peer(const struct set_disk *d, const struct set_peer *p)
{
	return d && !set_disk_is_ours(d) && strcmp(d->facts.node, p->node) == 0;
}

static const struct peer_disk *peer_disk_find(const struct set_peer *p, const struct uuid *uuid)
{
	for (uint32_t i = 0; i < p->n_disks; i++)
		if (uuid_equal(&p->disks[i].uuid, uuid))
			return &p->disks[i];
	return NULL;
}

static void peer_look_at_disk(const struct set_peer *p, struct set_disk *d)
{
	const struct peer_disk *told = p->client ? peer_disk_find(p, &d->facts.uuid) : NULL;
	if (!told) {
		set_disk_lose(d, p->client ? "its node does not serve it" : "its node cannot be reached");
		return;
	}
	d->n_blocks = told->n_blocks;
	d->room_blocks = told->room_blocks;
	if (d->state != SET_DISK_ABSENT)
		return;
	d->state = SET_DISK_RUNNING;
	d->client = p->client;
	d->why[0] = 0;
	set_disk_returned(d);
}

static void peer_look(const struct set_peer *p)
{
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++)
		if (disk_is_of_peer(p->set->disks[i], p))
			peer_look_at_disk(p, p->set->disks[i]);
	set_start_look(p->set);
}

void set_disk_lose(struct set_disk *d, const char *why)
{
	quarry_assert(!set_disk_is_ours(d) && !d->disk);
	if (d->state == SET_DISK_ABSENT)
		text_print(d->why, sizeof(d->why), "%s", why);
	if (!d->client)
		return;
	quarry_assert(d->state != SET_DISK_ABSENT);
	if (d->state == SET_DISK_RUNNING)
		d->state = SET_DISK_ABSENT;
	d->client = NULL;
	text_print(d->why, sizeof(d->why), "%s", why);
	set_disk_leave_heads(d);
	set_explain(d->set);
	drains_look(d->set);
}

/* ---- asking ---- */

static int peer_take(struct peer_call *call, const struct peer_in *in)
{
	struct set_peer *p = container_of(call, struct set_peer, call);
	p->n_disks = (uint32_t)in->message.n_entries;
	memcpy(p->disks, in->message.disks, p->n_disks * sizeof(p->disks[0]));
	return 0;
}

static void peer_free_if_down(struct set_peer *p)
{
	if (p->client || p->is_asking)
		return;
	list_remove(&p->link);
	free(p);
}

static void peer_told(struct peer_call *call, int res)
{
	struct set_peer *p = container_of(call, struct set_peer, call);
	quarry_assert(p->is_asking);
	p->is_asking = false;
	if (p->client)
		timer_start(p->set->reactor, &p->wait, ASK_NS); /* also after an error: it may be slow for a while */
	if (p->client && res == 0)
		peer_look(p);
	peer_free_if_down(p);
}

static void peer_ask(struct set_peer *p)
{
	if (p->is_asking || !p->client)
		return; /* the first: its end asks again */
	p->is_asking = true;
	p->call = (struct peer_call){.type = PEER_DISKS, .take = peer_take, .done = peer_told};
	peer_client_call(p->client, &p->call);
}

static void peer_wait_over(struct timer *t)
{
	peer_ask(container_of(t, struct set_peer, wait));
}

/* ---- who says that a node is there ---- */

static struct set_peer *peer_create(struct volume_set *s, const char *node)
{
	struct set_peer *p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->set = s;
	text_print(p->node, sizeof(p->node), "%s", node);
	timer_init(&p->wait, peer_wait_over);
	list_append(&s->peers, &p->link);
	return p;
}

void volume_set_peer_changed(struct volume_set *s, const char *node, struct peer_client *client, bool is_up)
{
	struct set_peer *p = peer_find(s, node);
	if (!p && is_up)
		p = peer_create(s, node);
	if (!p)
		return;
	timer_stop(s->reactor, &p->wait);
	p->client = is_up ? client : NULL;
	p->n_disks = 0;
	if (is_up) {
		peer_ask(p);
		return;
	}
	peer_look(p);
	peer_free_if_down(p);
}

void set_peers_abandon(struct volume_set *s)
{
	for (struct list *link; (link = list_pop(&s->peers)) != NULL;)
		free(container_of(link, struct set_peer, link));
}

/* ---- this node's disks, for others ---- */

uint32_t volume_set_list_disks(struct volume_set *s, struct peer_disk *out)
{
	uint32_t n = 0;
	_Static_assert(SET_DISKS_MAX <= PEER_DISKS_MAX, "all that a node has can be told");
	for (uint32_t i = 0; i < SET_DISKS_MAX; i++) {
		const struct set_disk *d = s->disks[i];
		struct disk_stats stats;
		if (!set_disk_runs_here(d))
			continue;
		disk_stats(d->disk, &stats);
		out[n++] = (struct peer_disk){
		    .uuid = d->facts.uuid, .n_blocks = stats.n_blocks, .room_blocks = set_disk_room(d)};
	}
	return n;
}
