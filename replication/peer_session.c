/*
 * peer_session.c: which session is the newest of a volume on a disk, and what is still under way of earlier ones.
 *
 *   OPENING --fenced--> OPEN --next HELLO, connection lost, disk closes, FORGET--> OVER --requests through--> gone
 *      +------------------- refused, or the same ----------------------------------^
 *
 * Invariants
 *  1. Of one volume on one disk at most one session is not OVER.
 *  2. A session is in its bucket until its last request is through, in the order of arrival. The HELLO of a later one
 *     waits until it is the first: so when a HELLO is answered, nothing that came in an earlier session can still
 *     happen.
 *  3. A tree that a request in flight names is not dropped: the DROP waits for it, and from the DROP's arrival on
 *     nobody finds the tree. The remembered handle is used only while the session is the disk's newest, since only
 *     sessions drop trees.
 *
 * The disk is asked for its newest session at every request: a head of this node fences by call, past this server.
 *
 * Owner: the server's reactor.
 */
#include "replication/peer_server_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct list *bucket_of(struct peer_server *s, const struct uuid *volume, const struct uuid *disk)
{
	uint32_t v, d; /* random bits, both */
	memcpy(&v, volume->bytes + 12, sizeof(v));
	memcpy(&d, disk->bytes + 12, sizeof(d));
	return &s->buckets[(v ^ d) % SESSION_BUCKETS];
}

static bool session_is_of(const struct peer_session *s, const struct uuid *volume, const struct uuid *disk)
{
	return uuid_equal(&s->volume, volume) && uuid_equal(&s->disk_uuid, disk);
}

static struct peer_session *session_first(struct peer_server *server, const struct uuid *volume,
					  const struct uuid *disk)
{
	list_each (node, bucket_of(server, volume, disk)) {
		struct peer_session *s = container_of(node, struct peer_session, link);
		if (session_is_of(s, volume, disk))
			return s;
	}
	return NULL;
}

/* The one that is not over. */
static struct peer_session *session_newest(struct peer_server *server, const struct uuid *volume,
					   const struct uuid *disk)
{
	struct peer_session *newest = NULL;
	list_each (node, bucket_of(server, volume, disk)) {
		struct peer_session *s = container_of(node, struct peer_session, link);
		if (s->state == PEER_SESSION_OVER || !session_is_of(s, volume, disk))
			continue;
		quarry_assert(!newest);
		newest = s;
	}
	return newest;
}

struct peer_session *session_begin(struct peer_client_connection *c, const struct peer_header *h, struct disk *disk)
{
	struct peer_server *server = c->server;
	struct peer_session *older = session_newest(server, &h->volume, &h->disk);
	struct peer_session *s = server->n_sessions < PEER_SESSIONS_MAX ? calloc(1, sizeof(*s)) : NULL;
	if (!s)
		return NULL;
	*s = (struct peer_session){.state = PEER_SESSION_OPENING,
				   .server = server,
				   .connection = c,
				   .volume = h->volume,
				   .disk_uuid = h->disk,
				   .disk = disk,
				   .generation = h->generation};
	list_init(&s->link);
	list_init(&s->of_connection);
	list_init(&s->requests);
	if (older)
		session_end(older);
	list_append(bucket_of(server, &h->volume, &h->disk), &s->link);
	list_append(&c->sessions, &s->of_connection);
	counter_set(&server->counters.n_sessions, ++server->n_sessions);
	return s;
}

struct peer_session *session_find(struct peer_client_connection *c, const struct peer_header *h)
{
	struct peer_session *s = session_newest(c->server, &h->volume, &h->disk);
	if (!s || s->connection != c || s->state != PEER_SESSION_OPEN)
		return NULL;
	if (s->number != h->session || s->generation != h->generation)
		return NULL;
	return session_is_newest(s) ? s : NULL;
}

int session_refusal(const struct peer_client_connection *c, const struct peer_header *h)
{
	const struct peer_server_options *o = &c->server->options;
	const struct disk *disk = o->find_disk(&h->disk, o->context);
	struct volume_record record;
	bool is_fenced = disk && disk_volume(disk, &h->volume, &record) && record.generation > h->generation;
	return is_fenced || session_newest(c->server, &h->volume, &h->disk) ? -ESTALE : -ESHUTDOWN;
}

bool session_is_newest(const struct peer_session *s)
{
	struct volume_record record;
	if (s->state != PEER_SESSION_OPEN || !disk_volume(s->disk, &s->volume, &record))
		return false;
	return record.session == s->number && record.generation == s->generation;
}

bool session_is_first(const struct peer_session *s)
{
	return session_first(s->server, &s->volume, &s->disk_uuid) == s;
}

/* A DROP of it has come, and is not through. */
static bool tree_is_dropping(const struct peer_session *s, uint64_t tree_id)
{
	if (s->n_drops == 0)
		return false;
	list_each (node, &s->requests) {
		const struct peer_request *r = container_of(node, struct peer_request, link);
		if (r->header.type == PEER_DROP && r->tree_id == tree_id)
			return true;
	}
	return false;
}

struct disk_tree *session_tree(struct peer_session *s, uint64_t tree_id)
{
	quarry_assert(session_is_newest(s));
	if (tree_is_dropping(s, tree_id))
		return NULL;
	if (!s->tree || s->tree_id != tree_id) {
		s->tree = disk_tree_find(s->disk, &s->volume, tree_id);
		s->tree_id = tree_id;
	}
	return s->tree;
}

void session_enter(struct peer_session *s, struct peer_request *r)
{
	quarry_assert(!r->session && s->state != PEER_SESSION_OVER);
	r->session = s;
	list_append(&s->requests, &r->link);
	if (r->header.type != PEER_DROP)
		return;
	s->n_drops++;
	s->tree = NULL;
}

static void session_free_if_through(struct peer_session *s)
{
	struct peer_server *server = s->server;
	if (s->state != PEER_SESSION_OVER || !list_is_empty(&s->requests))
		return;
	quarry_assert(!list_is_linked(&s->of_connection) && server->n_sessions > 0);
	list_remove(&s->link);
	counter_set(&server->counters.n_sessions, --server->n_sessions);
	struct peer_session *next = session_first(server, &s->volume, &s->disk_uuid);
	free(s);
	if (next && !list_is_empty(&next->requests)) /* its HELLO, which may wait for this */
		peer_request_wake(container_of(next->requests.next, struct peer_request, link));
}

void session_leave(struct peer_session *s, struct peer_request *r)
{
	quarry_assert(r->session == s);
	list_remove(&r->link);
	r->session = NULL;
	if (r->header.type == PEER_DROP)
		s->n_drops--;
	if (s->n_drops > 0)
		list_each_safe (node, &s->requests)
			peer_request_wake(container_of(node, struct peer_request, link));
	session_free_if_through(s);
}

void session_end(struct peer_session *s)
{
	if (s->state == PEER_SESSION_OVER)
		return;
	s->state = PEER_SESSION_OVER;
	s->tree = NULL;
	list_remove(&s->of_connection);
	session_free_if_through(s);
}
