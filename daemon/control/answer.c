/*
 * answer.c: makes the JSON of docs/openapi.yaml from a snapshot.
 *
 * Invariants
 *  1. Every key that the description calls required is always there; what is not known is null.
 *  2. Keys come in the description's order, so that people can read them.
 *  3. No memory is never a half answer: the text is whole or NULL.
 */
#include "daemon/control/answer_internal.h"

#include "daemon/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- small values ---- */

static void put_counter(json_t *object, const char *key, const counter *c)
{
	put_number(object, key, counter_get(c));
}

static void put_latency(json_t *object, const char *key, const struct histogram *h)
{
	json_t *o = json_object();
	put_counter(o, "count", &h->n);
	put_counter(o, "sum_ns", &h->sum_ns);
	put_number(o, "p50_ns", histogram_quantile_ns(h, 0.5));
	put_number(o, "p99_ns", histogram_quantile_ns(h, 0.99));
	put_json(object, key, o);
}

static const char *domain_name(enum failure_domain d)
{
	static const char *const names[] = {"disk", "node", "rack", "zone"};
	quarry_assert((size_t)d < array_size(names));
	return names[d];
}

/* ---- pools ---- */

static json_t *pool_json(const struct pool_view *v)
{
	json_t *o = json_object();
	put_text(o, "name", v->name);
	put_uuid(o, "uuid", &v->uuid);
	put_number(o, "replicas", v->replicas);
	put_number(o, "min_replicas", v->min_replicas);
	put_text(o, "failure_domain", domain_name(v->failure_domain));
	put_number(o, "disks", v->n_disks);
	put_number(o, "volumes", v->n_volumes);
	put_number(o, "size_bytes", v->size_bytes);
	put_number(o, "used_bytes", v->used_bytes);
	put_number(o, "free_bytes", v->free_bytes);
	put_number(o, "provisioned_bytes", v->provisioned_bytes);
	return o;
}

/* ---- disks ---- */

static uint64_t bytes_of(uint64_t blocks)
{
	return blocks * BLOCK_BYTES;
}

/* What waits for a checkpoint is free: a write that finds nothing else waits for it. The same of disks and of pools. */
static uint64_t not_used_blocks(const struct disk_stats *s)
{
	return s->free_blocks + s->waiting_blocks;
}

static uint64_t used_blocks(const struct disk_stats *s)
{
	uint64_t not_used = not_used_blocks(s);
	return s->n_blocks > not_used ? s->n_blocks - not_used : 0;
}

static json_t *disk_counters_json(const struct disk_counters *c)
{
	if (!c)
		return json_null();
	json_t *o = json_object();
	put_counter(o, "reads", &c->reads);
	put_counter(o, "writes", &c->writes);
	put_counter(o, "trims", &c->trims);
	put_counter(o, "flushes", &c->flushes);
	put_counter(o, "read_bytes", &c->read_bytes);
	put_counter(o, "write_bytes", &c->write_bytes);
	put_counter(o, "checksum_errors", &c->checksum_errors);
	put_counter(o, "io_errors", &c->io_errors);
	put_counter(o, "cache_hits", &c->cache_hits);
	put_counter(o, "cache_misses", &c->cache_misses);
	put_latency(o, "read_latency", &c->read_ns);
	put_latency(o, "write_latency", &c->write_ns);
	put_latency(o, "flush_latency", &c->flush_ns);
	return o;
}

static json_t *scrub_json(const struct disk_view *v)
{
	const struct disk_scrub *s = &v->scrub;
	json_t *o = json_object();
	put_bool(o, "running", s->is_running);
	put_number(o, "done_bytes", bytes_of(s->done_blocks));
	put_number(o, "total_bytes", bytes_of(s->total_blocks));
	put_number(o, "bad_blocks", s->bad_blocks);
	put_number(o, "healed_blocks", s->healed_blocks);
	put_bool(o, "healing", v->is_healing);
	put_number(o, "straightened_leaves", s->straightened_leaves);
	put_time(o, "started_at", s->started_wall_ns);
	put_time(o, "ended_at", s->is_running ? 0 : s->ended_wall_ns);
	return o;
}

static json_t *drain_json(const struct disk_view *v)
{
	json_t *o = json_object();
	put_bool(o, "done", v->drain.is_done);
	put_number(o, "left_bytes", v->drain.left_bytes);
	put_number_if(o, "eta_s", v->drain.eta_s > 0, v->drain.eta_s);
	put_text(o, "why", v->drain.why);
	return o;
}

static json_t *cache_json(const struct disk_stats *s)
{
	json_t *o = json_object();
	put_number(o, "pages", s->cache_pages);
	put_number(o, "pages_max", s->cache_pages_max);
	put_number(o, "dirty_pages", s->dirty_pages);
	return o;
}

static json_t *journal_json(const struct disk_stats *s)
{
	json_t *o = json_object();
	put_number(o, "size_bytes", bytes_of(s->journal_blocks));
	put_number(o, "used_bytes", bytes_of(s->journal_used));
	return o;
}

/* Of a disk that another node has, what is known here is whether that node is there. */
static const char *disk_state_text(const struct disk_view *v)
{
	if (v->is_elsewhere)
		return v->why[0] ? "unreachable" : "elsewhere";
	return disk_state_name(v->is_open ? v->state : DISK_FAILED);
}

/* How full it is, and since when that is known: of this node's, now (null). */
static void put_room(json_t *o, const struct disk_view *v)
{
	const struct disk_room *room = &container_of(v, const struct snapshot_disk, view)->room;
	bool is_told = v->is_elsewhere && room->wall_ns > 0;
	put_number_if(o, "used_bytes", v->is_open || is_told,
		      is_told ? room->used_bytes : bytes_of(used_blocks(&v->stats)));
	put_number_if(o, "free_bytes", v->is_open || is_told,
		      is_told ? room->free_bytes : bytes_of(not_used_blocks(&v->stats)));
	put_time(o, "sampled_at", is_told ? room->wall_ns : 0);
}

static json_t *disk_json(const struct answer_context *c, const struct disk_view *v)
{
	json_t *o = json_object();
	bool is_known = v->is_open;
	put_text(o, "name", v->name);
	put_uuid(o, "uuid", &v->uuid);
	put_text(o, "node", v->node);
	put_text(o, "path", v->path);
	put_text(o, "pool", v->pool);
	put_text(o, "state", disk_state_text(v));
	put_text(o, "why", v->why);
	put_bool(o, "reserved", v->is_reserved);
	put_number_if(o, "size_bytes", is_known || v->is_elsewhere, bytes_of(v->stats.n_blocks));
	put_room(o, v);
	put_number_if(o, "waiting_bytes", is_known, bytes_of(v->stats.waiting_blocks));
	put_number_if(o, "reserve_bytes", is_known, bytes_of(v->stats.reserve_blocks));
	put_json(o, "cache", is_known ? cache_json(&v->stats) : json_null());
	put_json(o, "journal", is_known ? journal_json(&v->stats) : json_null());
	put_number_if(o, "checkpoints", is_known, v->stats.checkpoints);
	put_number_if(o, "recovery_ns", is_known, v->stats.recovery_ns);
	put_json(o, "scrub", is_known ? scrub_json(v) : json_null());
	put_json(o, "drain", v->drain.is_wanted ? drain_json(v) : json_null());
	put_json(o, "counters", disk_counters_json(v->counters));
	return o;
}

/* ---- volumes ---- */

static json_t *volume_counters_json(const struct volume_counters *c)
{
	if (!c)
		return json_null();
	json_t *o = json_object();
	put_counter(o, "reads", &c->reads);
	put_counter(o, "writes", &c->writes);
	put_counter(o, "trims", &c->trims);
	put_counter(o, "zeroes", &c->zeroes);
	put_counter(o, "flushes", &c->flushes);
	put_counter(o, "maps", &c->maps);
	put_counter(o, "read_bytes", &c->read_bytes);
	put_counter(o, "write_bytes", &c->write_bytes);
	put_counter(o, "trim_bytes", &c->trim_bytes);
	put_counter(o, "errors", &c->errors);
	put_counter(o, "no_space", &c->no_space);
	put_latency(o, "read_latency", &c->read_ns);
	put_latency(o, "write_latency", &c->write_ns);
	put_latency(o, "flush_latency", &c->flush_ns);
	return o;
}

json_t *attachment_json(const struct answer_context *c, const struct attachment *a)
{
	bool is_nbd = strcmp(a->frontend, "nbd") == 0;
	json_t *o = json_object(), *uris;
	if (is_nbd) {
		uris = nbd_uris_json(c, a->name);
	} else {
		char path[CONFIG_TEXT_MAX + 2 * SET_TEXT_MAX + 8];
		snprintf(path, sizeof(path), "%s/%s.sock", c->config->vhost.dir, a->name);
		uris = json_array();
		json_array_append_new(uris, json_string(path));
	}
	const char *first = json_string_value(json_array_get(uris, 0));
	put_text(o, "frontend", a->frontend);
	put_text(o, "uri", first ? first : "");
	put_json(o, "uris", uris);
	put_bool(o, "read_only", a->is_read_only);
	if (!is_nbd)
		put_number(o, "queues", a->queues);
	return o;
}

/* The view is one of the snapshot's. Clients are counted when one volume is asked for. */
static json_t *attachment_with_clients(const struct answer_context *c, const struct snapshot *s,
				       const struct volume_view *v, const char *frontend)
{
	const struct snapshot_volume *of = container_of(v, const struct snapshot_volume, view);
	json_t *o = attachment_json(
	    c, &(struct attachment){
		   .frontend = frontend, .name = v->name, .is_read_only = v->is_read_only, .queues = v->vhost_queues});
	bool is_nbd = strcmp(frontend, "nbd") == 0;
	if (v->is_elsewhere) { /* where it listens is that node's to say */
		put_text(o, "uri", "");
		put_json(o, "uris", json_array());
	}
	put_number_if(o, "clients", !v->is_elsewhere && s->only_parts & SNAPSHOT_VOLUMES,
		      is_nbd ? of->n_nbd_clients : of->n_vhost_clients);
	return o;
}

static const char *volume_state(const struct volume_view *v)
{
	if (v->is_deleting)
		return "deleting";
	if (!v->is_attached_nbd && !v->is_attached_vhost)
		return "detached";
	if (v->is_elsewhere)
		return v->is_node_alive ? "elsewhere" : "failing";
	return v->is_serving ? "serving" : "failing";
}

static json_t *volume_disks_json(const struct snapshot *s, const struct volume_view *v)
{
	json_t *array = json_array();
	quarry_assert(v->n_disks <= array_size(v->on_disk));
	for (uint32_t i = 0; i < v->n_disks; i++) {
		json_t *o = json_object();
		const char *name = snapshot_disk_name(s, &v->on_disk[i].disk);
		put_uuid(o, "uuid", &v->on_disk[i].disk);
		put_text(o, "name", name ? name : "");
		put_number(o, "allocated_bytes", v->on_disk[i].allocated_bytes);
		json_array_append_new(array, o);
	}
	return array;
}

static json_t *volume_json(const struct answer_context *c, const struct snapshot *s, const struct volume_view *v,
			   const struct set_measure *measure)
{
	json_t *o = json_object(), *attachments = json_array();
	if (v->is_attached_nbd)
		json_array_append_new(attachments, attachment_with_clients(c, s, v, "nbd"));
	if (v->is_attached_vhost)
		json_array_append_new(attachments, attachment_with_clients(c, s, v, "vhost-user"));
	put_text(o, "name", v->name);
	put_uuid(o, "uuid", &v->uuid);
	put_text(o, "pool", v->pool);
	put_json(o, "node", v->node[0] ? json_string(v->node) : json_null());
	put_number(o, "size_bytes", v->size_bytes);
	put_number_if(o, "allocated_bytes", !v->is_elsewhere, answer_data_bytes(v->allocated_bytes, measure));
	volume_history_json(o, v, measure);
	json_t *fill = fill_json(c, v);
	if (v->fill_source[0])
		put_number_if(fill, "clients", s->only_parts & SNAPSHOT_VOLUMES,
			      container_of(v, const struct snapshot_volume, view)->n_fillers);
	put_json(o, "fill", fill);
	put_number(o, "replicas", v->replicas);
	put_number(o, "min_replicas", v->min_replicas);
	put_json(o, "copies", volume_copies_json(s, v));
	put_number(o, "degraded_bytes", v->degraded_bytes);
	put_number(o, "differing_blocks", v->differing_blocks);
	put_number(o, "surplus_bytes", v->surplus_bytes);
	put_text(o, "copies_why", v->copies_why);
	put_text(o, "state", volume_state(v));
	put_text(o, "why", v->why);
	put_bool(o, "read_only", v->is_read_only);
	put_json(o, "attachments", attachments);
	put_json(o, "disks", volume_disks_json(s, v));
	put_number(o, "generation", v->generation);
	put_number(o, "epoch", v->epoch);
	put_time(o, "created_at", v->created_ns);
	put_json(o, "counters", volume_counters_json(v->counters));
	return o;
}

/* The one that was asked for; one that is being deleted may have left its name to another. */
static const struct volume_view *volume_shown(const struct snapshot *s)
{
	const struct volume_view *shown = NULL;
	for (size_t i = 0; i < s->n_volumes; i++) {
		if (!shown || shown->is_deleting)
			shown = &s->volumes[i].view;
	}
	return shown;
}

/* ---- version, status ---- */

static json_t *version_json(const struct answer_context *c)
{
	json_t *o = json_object();
	put_text(o, "version", QUARRY_VERSION);
	put_text(o, "api", QUARRY_API);
	put_text(o, "node", c->config->node.name);
	return o;
}

static void add_problem(const struct problem *p, void *context)
{
	json_t *o = json_object();
	put_text(o, "code", p->code);
	put_text(o, "object", p->object);
	put_text(o, "message", p->message);
	json_array_append_new(context, o);
}

static uint64_t attached_volumes(const struct snapshot *s)
{
	uint64_t n = 0;
	for (size_t i = 0; i < s->n_volumes; i++)
		n += s->volumes[i].view.is_attached_nbd || s->volumes[i].view.is_attached_vhost;
	return n;
}

/* Null: no node moves segments to emptier disks. */
static json_t *balance_json(const struct balance_view *v)
{
	if (!v->node[0])
		return json_null();
	json_t *o = json_object();
	put_text(o, "node", v->node);
	put_text(o, "volume", v->volume);
	put_number(o, "moved_bytes", v->moved_bytes);
	put_number(o, "left_bytes", v->left_bytes);
	put_number_if(o, "eta_s", v->eta_s > 0, v->eta_s);
	return o;
}

static json_t *status_json(const struct answer_context *c, const struct snapshot *s)
{
	json_t *o = json_object(), *problems = json_array();
	health_each(s, add_problem, problems);
	put_bool(o, "healthy", json_array_size(problems) == 0);
	put_text(o, "node", c->config->node.name);
	put_text(o, "version", QUARRY_VERSION);
	put_time(o, "started_at", c->started_wall_ns);
	put_number(o, "uptime_s", answer_uptime_s(c));
	put_json(o, "problems", problems);
	put_number(o, "pools", s->n_pools);
	put_number(o, "disks", s->n_disks);
	put_number(o, "volumes", s->n_volumes);
	put_number(o, "attached_volumes", attached_volumes(s));
	put_json(o, "schedules", schedules_json(s));
	put_json(o, "fills", fills_json(c, s));
	put_json(o, "reclaiming", reclaiming_json(s));
	put_json(o, "balance", balance_json(&s->balance));
	return o;
}

/* ---- events, usage, top, slow requests ---- */

static json_t *events_json(const struct answer_context *c, const struct order *order)
{
	quarry_assert(order->limit >= 1 && order->limit <= ORDER_EVENTS_MAX);
	struct log_event_view *events = calloc(order->limit, sizeof(*events));
	json_t *o = events ? json_object() : NULL, *array = json_array();
	size_t n = events ? log_events(c->log, order->after, events, order->limit) : 0;
	for (size_t i = 0; i < n; i++) {
		json_t *e = json_object();
		put_number(e, "sequence", events[i].sequence);
		put_time(e, "time", events[i].wall_ns);
		put_text(e, "level", log_level_name(events[i].level));
		put_text(e, "code", events[i].code);
		put_text(e, "object", events[i].object);
		put_text(e, "message", events[i].text);
		put_number(e, "more", events[i].n_more);
		put_time(e, "last_time", events[i].last_wall_ns);
		json_array_append_new(array, e);
	}
	free(events);
	put_json(o, "events", array);
	put_time(o, "started_at", c->started_wall_ns);
	return o;
}

static json_t *usage_pools_json(const struct snapshot *s)
{
	json_t *array = json_array();
	for (size_t i = 0; i < s->n_pools; i++) {
		json_t *o = json_object();
		put_text(o, "name", s->pools[i].name);
		put_number(o, "size_bytes", s->pools[i].size_bytes);
		put_number(o, "used_bytes", s->pools[i].used_bytes);
		put_number(o, "free_bytes", s->pools[i].free_bytes);
		put_number(o, "provisioned_bytes", s->pools[i].provisioned_bytes);
		json_array_append_new(array, o);
	}
	return array;
}

static json_t *usage_disks_json(const struct snapshot *s)
{
	json_t *array = json_array();
	for (size_t i = 0; i < s->n_disks; i++) {
		const struct disk_view *v = &s->disks[i].view;
		json_t *o = json_object();
		put_text(o, "name", v->name);
		put_uuid(o, "uuid", &v->uuid);
		put_text(o, "pool", v->pool);
		put_number_if(o, "size_bytes", v->is_open || v->is_elsewhere, bytes_of(v->stats.n_blocks));
		put_room(o, v);
		json_array_append_new(array, o);
	}
	return array;
}

static json_t *usage_json(const struct snapshot *s)
{
	json_t *o = json_object(), *volumes = json_array();
	for (size_t i = 0; i < s->n_volumes; i++) {
		const struct volume_view *v = &s->volumes[i].view;
		json_t *one = json_object();
		put_text(one, "name", v->name);
		put_text(one, "pool", v->pool);
		put_number(one, "size_bytes", v->size_bytes);
		put_number(one, "allocated_bytes", v->allocated_bytes);
		put_number(one, "snapshots", v->n_snapshots);
		put_number(one, "snapshots_bytes", v->snapshots_bytes);
		put_number(one, "reclaiming_bytes", v->reclaiming_bytes);
		put_json(one, "disks", volume_disks_json(s, v));
		json_array_append_new(volumes, one);
	}
	put_json(o, "pools", usage_pools_json(s));
	put_json(o, "disks", usage_disks_json(s));
	put_json(o, "volumes", volumes);
	return o;
}

static json_t *top_json(const struct snapshot *s)
{
	json_t *o = json_object(), *volumes = json_array(), *disks = json_array();
	for (size_t i = 0; i < s->n_volumes; i++) {
		const struct volume_view *v = &s->volumes[i].view;
		if (!v->counters)
			continue;
		json_t *one = json_object();
		put_text(one, "name", v->name);
		put_json(one, "counters", volume_counters_json(v->counters));
		json_array_append_new(volumes, one);
	}
	for (size_t i = 0; i < s->n_disks; i++) {
		const struct disk_view *v = &s->disks[i].view;
		if (!v->counters)
			continue;
		json_t *one = json_object();
		put_text(one, "name", v->name);
		put_json(one, "counters", disk_counters_json(v->counters));
		json_array_append_new(disks, one);
	}
	put_number(o, "monotonic_ns", s->now_ns);
	put_json(o, "volumes", volumes);
	put_json(o, "disks", disks);
	return o;
}

static json_t *slow_json(const struct snapshot *s)
{
	json_t *o = json_object(), *array = json_array();
	for (size_t i = 0; i < s->n_lines; i++)
		json_array_append_new(array, json_string(s->lines[i]));
	put_json(o, "requests", array);
	return o;
}

/* ---- which of them ---- */

unsigned answer_parts(const struct order *o)
{
	switch (o->show) {
	case ORDER_STATUS:
		return SNAPSHOT_DISKS | SNAPSHOT_VOLUMES | SNAPSHOT_POOLS | SNAPSHOT_NODES;
	case ORDER_NODES:
	case ORDER_NODE:
		return SNAPSHOT_DISKS | SNAPSHOT_VOLUMES | SNAPSHOT_NBD | SNAPSHOT_NODES;
	case ORDER_POOLS:
	case ORDER_POOL:
		return SNAPSHOT_POOLS;
	case ORDER_DISKS:
	case ORDER_DISK:
		return SNAPSHOT_DISKS;
	case ORDER_ATTACHMENT:
		if (strchr(o->object, '@'))
			return SNAPSHOT_HISTORY;
		return SNAPSHOT_VOLUMES;
	case ORDER_VOLUMES:
	case ORDER_VOLUME:
	case ORDER_TOP:
		return SNAPSHOT_DISKS | SNAPSHOT_VOLUMES;
	case ORDER_SNAPSHOTS:
	case ORDER_SNAPSHOT:
		return SNAPSHOT_VOLUMES | SNAPSHOT_HISTORY;
	case ORDER_USAGE:
		return SNAPSHOT_DISKS | SNAPSHOT_VOLUMES | SNAPSHOT_POOLS;
	case ORDER_REQUESTS:
		return SNAPSHOT_SLOW;
	case ORDER_METRICS:
		return SNAPSHOT_DISKS | SNAPSHOT_VOLUMES | SNAPSHOT_POOLS | SNAPSHOT_NBD | SNAPSHOT_NODES;
	case ORDER_VERSION:
	case ORDER_EVENTS:
	case ORDER_CHANGES:
	case ORDER_NOTHING:
		break;
	}
	return 0;
}

static json_t *refuse_missing(const char *noun, const struct order *o, struct refusal *why)
{
	order_refuse(why, 404, "not-found", MISSING_FORMAT, noun, o->object, noun);
	return NULL;
}

static json_t *list_json(const char *key, json_t *array)
{
	json_t *o = json_object();
	put_json(o, key, array);
	return o;
}

/* What has no name yet stands beside the disks, so that a disk in the list is one that can be shown. */
static json_t *disks_json(const struct answer_context *c, const struct snapshot *s)
{
	json_t *o = json_object(), *disks = json_array(), *adding = json_array();
	for (size_t i = 0; i < s->n_disks; i++)
		json_array_append_new(disks, disk_json(c, &s->disks[i].view));
	for (size_t i = 0; i < s->n_adding; i++) {
		const struct disk_adding_view *v = &s->adding[i];
		json_t *one = json_object();
		put_text(one, "path", v->path);
		put_text(one, "pool", v->pool);
		put_bool(one, "reserved", v->is_reserved);
		put_number_if(one, "size_bytes", v->size_bytes > 0, v->size_bytes);
		put_number(one, "written_bytes", v->written_bytes);
		json_array_append_new(adding, one);
	}
	put_json(o, "disks", disks);
	put_json(o, "adding", adding);
	return o;
}

static json_t *objects_json(const struct answer_context *c, const struct order *o, const struct snapshot *s)
{
	if (o->show == ORDER_DISKS)
		return disks_json(c, s);
	json_t *array = json_array();
	if (o->show == ORDER_POOLS) {
		for (size_t i = 0; i < s->n_pools; i++)
			json_array_append_new(array, pool_json(&s->pools[i]));
		return list_json("pools", array);
	}
	if (o->show == ORDER_VOLUMES) {
		for (size_t i = 0; i < s->n_volumes; i++)
			json_array_append_new(array, volume_json(c, s, &s->volumes[i].view, NULL));
		return list_json("volumes", array);
	}
	quarry_assert(o->show == ORDER_NODES);
	json_decref(array);
	return list_json("nodes", nodes_json(c, s));
}

/* One object, which the snapshot has or has not. */
static json_t *object_json(const struct answer_context *c, const struct order *o, const struct snapshot *s,
			   struct refusal *why)
{
	const struct volume_view *v = volume_shown(s);
	if (o->show == ORDER_POOL)
		return s->n_pools ? pool_json(&s->pools[0]) : refuse_missing("pool", o, why);
	if (o->show == ORDER_DISK)
		return s->n_disks ? disk_json(c, &s->disks[0].view) : refuse_missing("disk", o, why);
	if (o->show == ORDER_NODE) {
		json_t *node = node_json(c, s, o->object);
		return node ? node : refuse_missing("node", o, why);
	}
	if (o->show == ORDER_ATTACHMENT && strchr(o->object, '@')) {
		json_t *attachment = snapshot_attachment_json(c, o, s);
		return attachment ? attachment : refuse_missing("snapshot", o, why);
	}
	if (!v)
		return refuse_missing("volume", o, why);
	if (o->show == ORDER_VOLUME)
		return volume_json(c, s, v, order_measure(o));
	quarry_assert(o->show == ORDER_ATTACHMENT);
	return attachment_with_clients(c, s, v, o->command.other);
}

static json_t *history_json(const struct answer_context *c, const struct order *o, const struct snapshot *s,
			    struct refusal *why)
{
	if (o->object[0] && s->n_volumes == 0)
		return refuse_missing("volume", o, why);
	if (o->show == ORDER_SNAPSHOTS)
		return snapshots_json(c, o, s);
	json_t *one = snapshot_one_json(c, o, s);
	return one ? one : refuse_missing("snapshot", o, why);
}

static json_t *answer_json(const struct answer_context *c, const struct order *o, const struct snapshot *s,
			   struct refusal *why)
{
	switch (o->show) {
	case ORDER_VERSION:
		return version_json(c);
	case ORDER_STATUS:
		return status_json(c, s);
	case ORDER_NODES:
	case ORDER_POOLS:
	case ORDER_DISKS:
	case ORDER_VOLUMES:
		return objects_json(c, o, s);
	case ORDER_NODE:
	case ORDER_POOL:
	case ORDER_DISK:
	case ORDER_VOLUME:
	case ORDER_ATTACHMENT:
		return object_json(c, o, s, why);
	case ORDER_SNAPSHOTS:
	case ORDER_SNAPSHOT:
		return history_json(c, o, s, why);
	case ORDER_CHANGES:
		return changes_json(o);
	case ORDER_EVENTS:
		return events_json(c, o);
	case ORDER_USAGE:
		return usage_json(s);
	case ORDER_TOP:
		return top_json(s);
	case ORDER_REQUESTS:
		return slow_json(s);
	case ORDER_NOTHING:
		return json_object();
	case ORDER_METRICS:
		break;
	}
	quarry_assert(!"metrics are no JSON");
	return NULL;
}

/* The text with a final newline, for people at a terminal. Consumes the value. */
static char *text_of(json_t *value)
{
	char *text = value ? json_dumps(value, JSON_COMPACT) : NULL, *longer = NULL;
	size_t len = text ? strlen(text) : 0;
	if (text)
		longer = realloc(text, len + 2);
	if (longer)
		memcpy(longer + len, "\n", 2);
	else
		free(text);
	json_decref(value);
	return longer;
}

char *answer_make(const struct answer_context *c, const struct order *o, const struct snapshot *s, struct refusal *why)
{
	order_refuse(why, 500, "internal", "the daemon has no memory for this answer");
	if (s->is_short)
		return NULL;
	if (o->show == ORDER_METRICS)
		return metrics_text(c, s);
	json_t *value = answer_json(c, o, s, why);
	if (value && o->is_command && o->command.is_unchanged)
		put_bool(value, "unchanged", true);
	return text_of(value);
}

char *answer_refusal(const struct refusal *why)
{
	json_t *o = json_object(), *error = json_object();
	quarry_assert(why->status >= 400 && why->code[0]);
	put_text(error, "code", why->code);
	put_text(error, "message", why->message);
	put_json(o, "error", error);
	return text_of(o);
}
