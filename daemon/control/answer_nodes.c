/*
 * answer_nodes.c: what the API says of nodes: of this one what it knows, of others what they have told the store.
 *
 * What another node has written is checked before it is shown: a member of a type that it should not have is left out.
 */
#include "daemon/control/answer_internal.h"

#include "daemon/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t memory_bytes(void)
{
	unsigned long long total = 0, resident = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (!f)
		return 0;
	if (fscanf(f, "%llu %llu", &total, &resident) != 2)
		resident = 0;
	fclose(f);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t answer_uptime_s(const struct answer_context *c)
{
	uint64_t now = c->wall_ns();
	return now > c->started_wall_ns ? (now - c->started_wall_ns) / NS_PER_S : 0;
}

static uint64_t disks_of(const struct snapshot *s, const char *node)
{
	uint64_t n = 0;
	for (size_t i = 0; i < s->n_disks; i++)
		n += strcmp(s->disks[i].view.node, node) == 0;
	return n;
}

static uint64_t attached_on(const struct snapshot *s, const char *node)
{
	uint64_t n = 0;
	for (size_t i = 0; i < s->n_volumes; i++) {
		const struct volume_view *v = &s->volumes[i].view;
		n += (v->is_attached_nbd || v->is_attached_vhost) && strcmp(v->node, node) == 0;
	}
	return n;
}

/* null: it is not being drained. How far it is only the node itself knows. */
static json_t *drain_json(const struct node_drain_view *v, bool is_self)
{
	if (!v->is_wanted)
		return json_null();
	json_t *o = json_object();
	put_bool(o, "done", v->is_done);
	put_number_if(o, "left_bytes", is_self || v->is_done, v->left_bytes);
	put_number(o, "attached_volumes", v->n_attached);
	put_number_if(o, "eta_s", v->eta_s > 0, v->eta_s);
	put_text(o, "why", v->why);
	return o;
}

/* ---- this node ---- */

/* n is NULL where the store is this node's alone. */
static json_t *own_json(const struct answer_context *c, const struct snapshot *s, const struct snapshot_node *n)
{
	const struct config *config = c->config;
	const struct member_view *m = n ? &n->view : NULL;
	quarry_assert(!m || strcmp(m->name, config->node.name) == 0);
	json_t *o = json_object(), *labels = json_object(), *nbd = json_object();
	uint64_t memory = memory_bytes();
	for (uint32_t i = 0; i < config->node.n_labels; i++)
		put_text(labels, config->node.labels[i].key, config->node.labels[i].value);
	put_text(nbd, "socket", config->nbd.socket);
	put_text(nbd, "listen", config->nbd.listen);
	put_number(nbd, "connections", counter_get(&s->nbd.n_connections));
	put_text(o, "name", config->node.name);
	put_text(o, "state", m && m->state != MEMBER_SERVING ? "lost" : "running");
	put_time(o, "since", c->started_wall_ns);
	put_json(o, "labels", labels);
	put_text(o, "version", QUARRY_VERSION);
	put_time(o, "started_at", c->started_wall_ns);
	put_number(o, "uptime_s", answer_uptime_s(c));
	put_number(o, "disks", disks_of(s, config->node.name));
	put_number(o, "attached_volumes", attached_on(s, config->node.name));
	put_number(o, "cache_bytes", config->node.cache_mb * MIB);
	put_number_if(o, "memory_bytes", memory > 0, memory);
	put_json(o, "nbd", nbd);
	put_json(o, "peer", json_pack("{s:s,s:n}", "listen", config->peer.listen, "answers"));
	put_json(o, "drain", n ? drain_json(&n->drain, true) : json_null());
	return o;
}

/* ---- another ---- */

/* What is a text; else an empty one. */
static const char *text_of(const json_t *about, const char *key)
{
	const char *text = json_string_value(json_object_get(about, key));
	return text ? text : "";
}

static json_t *labels_of(const json_t *about)
{
	json_t *labels = json_object(), *value;
	const char *key;
	json_object_foreach(json_object_get(about, "labels"), key, value)
	{
		if (json_is_string(value))
			json_object_set(labels, key, value);
	}
	return labels;
}

/* Whether it answers; null: nobody asks. */
static json_t *peer_of(const json_t *about, enum peer_answer answer)
{
	json_t *peer = json_object();
	put_text(peer, "listen", text_of(about, "peer"));
	put_json(peer, "answers", answer == PEER_NOT_ASKED ? json_null() : json_boolean(answer == PEER_ANSWERS));
	return peer;
}

static json_t *other_json(const struct answer_context *c, const struct snapshot *s, const struct snapshot_node *n)
{
	const struct member_view *m = &n->view;
	json_t *about = json_loads(m->about, JSON_REJECT_DUPLICATES, NULL), *o = json_object(), *nbd = json_object();
	bool is_running = m->state == MEMBER_SERVING;
	quarry_assert(!m->is_self && m->about);
	uint64_t now_ns = c->wall_ns();
	bool is_known = is_running && m->since_ns > 0 && now_ns >= m->since_ns;
	put_json(nbd, "socket", json_null());
	put_text(nbd, "listen", text_of(about, "nbd"));
	put_json(nbd, "connections", json_null());
	put_text(o, "name", m->name);
	put_text(o, "state", is_running ? "running" : member_state_name(m->state));
	put_time(o, "since", m->since_ns);
	put_json(o, "labels", labels_of(about));
	put_text(o, "version", text_of(about, "version"));
	put_time(o, "started_at", is_running ? m->since_ns : 0);
	put_number_if(o, "uptime_s", is_known, (now_ns - m->since_ns) / NS_PER_S);
	put_number(o, "disks", disks_of(s, m->name));
	put_number(o, "attached_volumes", attached_on(s, m->name));
	put_json(o, "cache_bytes", json_null());
	put_json(o, "memory_bytes", json_null());
	put_json(o, "nbd", nbd);
	put_json(o, "peer", peer_of(about, n->answer));
	put_json(o, "drain", drain_json(&n->drain, false));
	json_decref(about);
	return o;
}

/* ---- which of them ---- */

static json_t *member_json(const struct answer_context *c, const struct snapshot *s, const struct snapshot_node *n)
{
	return n->view.is_self ? own_json(c, s, n) : other_json(c, s, n);
}

json_t *nodes_json(const struct answer_context *c, const struct snapshot *s)
{
	json_t *array = json_array();
	for (size_t i = 0; i < s->n_nodes; i++)
		json_array_append_new(array, member_json(c, s, &s->nodes[i]));
	if (s->n_nodes == 0)
		json_array_append_new(array, own_json(c, s, NULL));
	return array;
}

json_t *node_json(const struct answer_context *c, const struct snapshot *s, const char *name)
{
	for (size_t i = 0; i < s->n_nodes; i++)
		if (strcmp(s->nodes[i].view.name, name) == 0)
			return member_json(c, s, &s->nodes[i]);
	return strcmp(name, c->config->node.name) == 0 ? own_json(c, s, NULL) : NULL;
}
