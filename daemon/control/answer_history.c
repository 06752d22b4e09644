/*
 * answer_history.c: the JSON of snapshots, of schedules, of volumes that are being filled, and of what has changed.
 *
 * Invariants: as in answer.c.
 */
#include "daemon/control/answer_internal.h"

#include <stdio.h>
#include <string.h>

/* What only a measurement knows, of all the disks or not at all; NULL: there was none. */
static void put_measure(json_t *o, const struct set_measure *m)
{
	bool is_missing = m && m->missing[0];
	put_json(o, "unmeasured", is_missing ? json_string(m->missing) : json_null());
	if (!m || is_missing) {
		put_json(o, "unique_bytes", json_null());
		put_json(o, "shared_bytes", json_null());
		put_json(o, "frees_bytes", json_null());
		return;
	}
	quarry_assert(m->unique_bytes <= m->data_bytes && m->unique_bytes <= m->frees_bytes);
	put_number(o, "unique_bytes", m->unique_bytes);
	put_number(o, "shared_bytes", m->data_bytes - m->unique_bytes);
	put_number(o, "frees_bytes", m->frees_bytes);
}

uint64_t answer_data_bytes(uint64_t seen_bytes, const struct set_measure *m)
{
	return m && !m->missing[0] ? m->data_bytes : seen_bytes;
}

const struct set_measure *order_measure(const struct order *o)
{
	return o->is_command && o->command.kind == SET_VOLUME_MEASURE ? &o->command.measure : NULL;
}

json_t *schedule_json(const struct volume_view *v)
{
	if (v->every_s == 0)
		return json_null();
	json_t *o = json_object();
	put_number(o, "every_s", v->every_s);
	put_number(o, "keep", v->keep);
	put_time(o, "next_at", v->next_snapshot_ns);
	return o;
}

void volume_history_json(json_t *o, const struct volume_view *v, const struct set_measure *m)
{
	put_number(o, "snapshots", v->n_snapshots);
	put_number(o, "snapshots_bytes", v->snapshots_bytes);
	put_number(o, "reclaiming_bytes", v->reclaiming_bytes);
	put_measure(o, v->is_elsewhere ? NULL : m);
	put_json(o, "cloned_from", v->cloned_from[0] ? json_string(v->cloned_from) : json_null());
	put_json(o, "schedule", schedule_json(v));
}

json_t *schedules_json(const struct snapshot *s)
{
	json_t *array = json_array();
	for (size_t i = 0; i < s->n_volumes; i++) {
		const struct volume_view *v = &s->volumes[i].view;
		if (v->every_s == 0)
			continue;
		json_t *o = schedule_json(v);
		put_text(o, "volume", v->name);
		json_array_append_new(array, o);
	}
	return array;
}

/* The first ranges of what cannot be had. */
static json_t *unfillable_json(const struct volume_view *v)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < v->n_unfillable && i < array_size(v->unfillable); i++)
		json_array_append_new(array,
				      json_pack("{s:I,s:I}", "offset_bytes", (json_int_t)v->unfillable[i].pos_bytes,
						"length_bytes", (json_int_t)v->unfillable[i].len_bytes));
	return array;
}

/* The uris are those of who fills the volume. */
json_t *fill_json(const struct answer_context *c, const struct volume_view *v)
{
	if (!v->fill_source[0])
		return json_null();
	char name[SET_TEXT_MAX + sizeof(VOLUME_FILL_ENDING)];
	snprintf(name, sizeof(name), "%s%s", v->name, VOLUME_FILL_ENDING);
	json_t *o = json_object();
	json_t *export = attachment_json(c, &(struct attachment){.frontend = "nbd", .name = name});
	put_text(o, "source", v->fill_source);
	put_number(o, "filled_bytes", v->filled_bytes);
	put_number(o, "recorded_bytes", v->recorded_bytes);
	put_number(o, "unfillable_bytes", v->unfillable_bytes);
	put_number(o, "unfillable_ranges", v->n_unfillable);
	put_json(o, "unfillable", unfillable_json(v));
	put_bool(o, "active", v->is_filling);
	json_object_set(o, "uri", json_object_get(export, "uri"));
	json_object_set(o, "uris", json_object_get(export, "uris"));
	json_decref(export);
	return o;
}

json_t *fills_json(const struct answer_context *c, const struct snapshot *s)
{
	json_t *array = json_array();
	for (size_t i = 0; i < s->n_volumes; i++) {
		const struct volume_view *v = &s->volumes[i].view;
		if (!v->fill_source[0] || v->is_deleting)
			continue;
		json_t *o = fill_json(c, v);
		put_text(o, "volume", v->name);
		put_number(o, "size_bytes", v->size_bytes);
		json_array_append_new(array, o);
	}
	return array;
}

json_t *reclaiming_json(const struct snapshot *s)
{
	json_t *o = json_object();
	uint64_t trees = 0, blocks = 0, per_s = 0;
	for (size_t i = 0; i < s->n_disks; i++) {
		const struct disk_stats *stats = &s->disks[i].view.stats;
		trees += stats->dying_trees;
		blocks += stats->dying_blocks;
		per_s += stats->dying_blocks_per_s;
	}
	put_number(o, "trees", trees);
	put_number(o, "bytes", blocks * BLOCK_BYTES);
	put_number(o, "bytes_per_s", per_s * BLOCK_BYTES);
	return o;
}

/* ---- snapshots ---- */

static json_t *attached_json(const struct answer_context *c, const struct snapshot_view *v, const char *frontend)
{
	char name[2 * SET_TEXT_MAX];
	snprintf(name, sizeof(name), "%s@%s", v->volume, v->name);
	json_t *o = attachment_json(
	    c,
	    &(struct attachment){.frontend = frontend, .name = name, .is_read_only = true, .queues = v->vhost_queues});
	put_bool(o, "temporary", v->is_temporary && strcmp(frontend, "nbd") == 0);
	return o;
}

static json_t *snapshot_json(const struct answer_context *c, const struct snapshot_view *v, const struct set_measure *m)
{
	json_t *o = json_object(), *attachments = json_array();
	if (v->is_attached_nbd)
		json_array_append_new(attachments, attached_json(c, v, "nbd"));
	if (v->is_attached_vhost)
		json_array_append_new(attachments, attached_json(c, v, "vhost-user"));
	put_text(o, "volume", v->volume);
	put_text(o, "name", v->name);
	put_text(o, "state", v->is_deleting ? "deleting" : "ok");
	put_time(o, "created_at", v->created_ns);
	put_number(o, "size_bytes", v->size_bytes);
	put_number_if(o, "data_bytes", !v->is_elsewhere, answer_data_bytes(v->data_bytes, m));
	put_measure(o, v->is_elsewhere ? NULL : m);
	put_number(o, "epoch", v->epoch);
	put_bool(o, "scheduled", v->is_scheduled);
	put_json(o, "attachments", attachments);
	return o;
}

/* After a command that took them: only these. */
static bool snapshot_is_wanted(const struct order *o, const struct snapshot_view *v)
{
	if (!o->is_command || o->command.kind != SET_SNAPSHOT_CREATE)
		return true;
	for (uint32_t i = 0; i < o->command.n_targets; i++) {
		const struct set_target *t = &o->command.targets[i];
		if (strcmp(t->volume, v->volume) == 0 && strcmp(t->snapshot, v->name) == 0)
			return true;
	}
	return false;
}

json_t *snapshots_json(const struct answer_context *c, const struct order *o, const struct snapshot *s)
{
	json_t *array = json_array();
	for (size_t i = 0; i < s->n_snapshots; i++)
		if (snapshot_is_wanted(o, &s->snapshots[i]))
			json_array_append_new(array, snapshot_json(c, &s->snapshots[i], NULL));
	return json_pack("{s:o}", "snapshots", array);
}

/* The one that was asked for; those that are being deleted may have had its name, too. */
static const struct snapshot_view *snapshot_shown(const struct snapshot *s)
{
	for (size_t i = 0; i < s->n_snapshots; i++)
		if (!s->snapshots[i].is_deleting)
			return &s->snapshots[i];
	return NULL;
}

json_t *snapshot_one_json(const struct answer_context *c, const struct order *o, const struct snapshot *s)
{
	const struct snapshot_view *v = snapshot_shown(s);
	return v ? snapshot_json(c, v, order_measure(o)) : NULL;
}

json_t *snapshot_attachment_json(const struct answer_context *c, const struct order *o, const struct snapshot *s)
{
	const struct snapshot_view *v = snapshot_shown(s);
	return v ? attached_json(c, v, o->command.other) : NULL;
}

/* ---- what has changed ---- */

json_t *changes_json(const struct order *o)
{
	const struct set_changes *c = &o->command.changes;
	json_t *array = json_array();
	uint64_t at = o->command.pos_bytes;
	for (uint32_t i = 0; i < c->n_extents; i++) {
		const struct volume_extent *e = &c->extents[i];
		if (e->is_changed)
			json_array_append_new(array,
					      json_pack("{s:I,s:I,s:b}", "offset_bytes", (json_int_t)at, "length_bytes",
							(json_int_t)e->len_bytes, "zero", (int)!e->is_data));
		at += e->len_bytes;
	}
	json_t *next = c->next_bytes < c->size_bytes ? json_integer((json_int_t)c->next_bytes) : json_null();
	return json_pack("{s:I,s:o,s:o}", "size_bytes", (json_int_t)c->size_bytes, "extents", array, "next", next);
}

/* ---- copies ---- */

static const char *copy_state(const struct volume_view *v, uint32_t i)
{
	if (v->copies[i].is_resyncing)
		return "resyncing";
	return v->copies[i].is_stale ? "stale" : "current";
}

json_t *volume_copies_json(const struct snapshot *s, const struct volume_view *v)
{
	json_t *array = json_array();
	quarry_assert(v->n_copies <= array_size(v->copies));
	for (uint32_t i = 0; i < v->n_copies; i++) {
		const char *name = snapshot_disk_name(s, &v->copies[i].disk);
		json_t *copy = json_object();
		put_uuid(copy, "uuid", &v->copies[i].disk);
		put_text(copy, "name", name ? name : "");
		put_text(copy, "state", copy_state(v, i));
		if (v->copies[i].is_resyncing) {
			put_number(copy, "copied_bytes", v->resync.copied_bytes);
			put_number(copy, "percent", v->resync.percent);
			put_number_if(copy, "eta_s", v->resync.eta_s > 0, v->resync.eta_s);
		}
		json_array_append_new(array, copy);
	}
	return array;
}
