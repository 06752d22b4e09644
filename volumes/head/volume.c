/*
 * volume.c: the life of an attached volume, and what frontends ask of it.
 *
 *   JOINING -> SERVING -> DRAINING -> gone
 *
 *   JOINING   its disks are being fenced; no frontend knows of it
 *   SERVING   requests are carried out
 *   DRAINING  new requests get -ESHUTDOWN; frontends have been told and put their references; when the last reference
 *             and the last request are gone, whoever drains it goes on
 *
 * Invariants
 *  1. A reference is taken only while SERVING, and holds the volume in memory; so does every request in flight.
 *  2. A fenced volume stays fenced: it answers everything with -EIO until it is detached.
 *
 * Owner: the set's reactor.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- life ---- */

static void volume_drained_turn(struct op *op, int res)
{
	struct volume *v = container_of(op, struct volume, drained_op);
	void (*drained)(struct volume * v) = v->drained;
	v->drained = NULL;
	drained(v);
}

uint32_t volume_chunks_for(uint64_t size_bytes)
{
	uint64_t segments = (size_bytes + SEGMENT_BYTES - 1) / SEGMENT_BYTES;
	return (uint32_t)((segments + PLACEMENT_CHUNK - 1) / PLACEMENT_CHUNK);
}

int volume_create(struct set_volume *entry, uint64_t size_bytes, struct volume **out)
{
	struct volume *v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->n_chunks = volume_chunks_for(size_bytes);
	v->chunks = calloc(v->n_chunks, sizeof(*v->chunks));
	if (!v->chunks) {
		free(v);
		return -ENOMEM;
	}
	v->set = entry->set;
	v->entry = entry;
	v->state = VOLUME_JOINING;
	v->size_bytes = size_bytes;
	list_init(&v->held);
	list_init(&v->requests);
	list_init(&v->watches);
	op_init(&v->drained_op, volume_drained_turn);
	volume_io_init_locks(v);
	placer_init(v);
	barrier_init(v);
	stale_init(v);
	resync_init(v);
	compare_init(v);
	leave_init(v);
	*out = v;
	return 0;
}

void volume_destroy(struct volume *v)
{
	quarry_assert(v->refs == 0 && list_is_empty(&v->requests) && list_is_empty(&v->watches));
	quarry_assert(v->n_chunk_reads == 0);
	quarry_assert(placer_is_idle(v) && barrier_is_resting(v) && !stale_is_busy(v) && !v->resync);
	quarry_assert(!v->move && !v->leave && compare_is_over(v));
	volume_abandon(v);
}

void volume_abandon(struct volume *v)
{
	placer_abandon(v);
	barrier_abandon(v);
	stale_abandon(v);
	resync_abandon(v);
	compare_abandon(v);
	leave_abandon(v);
	layout_fini(v);
	fill_abandon(v);
	chunks_fini(v);
	free(v);
}

int volume_grow_chunks(struct volume *v, uint64_t size_bytes)
{
	uint32_t n = volume_chunks_for(size_bytes);
	if (n <= v->n_chunks)
		return 0;
	struct chunk **chunks = realloc(v->chunks, n * sizeof(*chunks));
	if (!chunks)
		return -ENOMEM;
	memset(chunks + v->n_chunks, 0, (n - v->n_chunks) * sizeof(*chunks));
	v->chunks = chunks;
	v->n_chunks = n;
	return 0;
}

void volume_tell(struct volume *v, enum volume_event e)
{
	list_each_safe (node, &v->watches) {
		struct volume_watch *w = container_of(node, struct volume_watch, link);
		w->event(w, e);
	}
}

void volume_start_draining(struct volume *v, void (*drained)(struct volume *v))
{
	quarry_assert(v->state != VOLUME_DRAINING && !v->drained);
	v->state = VOLUME_DRAINING;
	v->drained = drained;
	volume_tell(v, VOLUME_DETACHING);
	fill_drain(v);
	set_lease_drain(v);
	resync_stop(v);
	compare_stop(v);
	leave_stop(v);
	volume_check_drained(v);
}

void volume_check_drained(struct volume *v)
{
	if (!v->drained || v->refs > 0 || v->n_requests > 0 || v->n_chunk_reads > 0 || !placer_is_idle(v) ||
	    v->resync || v->leave || v->move || !compare_is_over(v) || v->drained_op.kind != OP_NONE)
		return;
	reactor_defer(v->set->reactor, &v->drained_op, 0);
}

bool volume_needs_outcome(const struct volume *v)
{
	return !v->is_fenced && (v->state == VOLUME_SERVING || v->n_requests > 0);
}

void volume_fence(struct volume *v, const char *format, ...)
{
	char reason[SET_WHY_BYTES / 2];
	va_list args;
	if (v->is_fenced)
		return;
	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	v->is_fenced = true;
	text_print(v->why, sizeof(v->why), "fenced: %s; detach it and attach it again", reason);
	log_event(v->set->log, LOG_ERROR, "volume-fenced", v->entry->facts.name,
		  "volume %s answers nothing any more: %s", v->entry->facts.name, reason);
	set_lease_drain(v);
	if (v->set->members)
		release_want(v->entry);
	if (volume_is_replicated(v)) /* who waits for a mark waits in vain */
		stale_wake(v);
}

/* Why what lies on a disk that is not good cannot be had. */
static const char *volume_disk_why(const struct volume *v, uint32_t disk)
{
	if (v->set->disks[disk]->why[0])
		return v->set->disks[disk]->why;
	if (v->disks[disk].is_older)
		return OLDER_DISK_HINT;
	return "it was not there, or not as it should be, when the volume was attached: detach the volume and attach "
	       "it again";
}

void volume_explain(struct volume *v)
{
	if (v->is_fenced)
		return;
	const char *why = v->snapshot ? NULL : set_lease_why(v->set);
	text_print(v->why, sizeof(v->why), "%s", why ? why : "");
	for (uint32_t i = 0; i < SET_DISKS_MAX && !why; i++) {
		const struct set_disk *d = v->set->disks[i];
		bool is_copy =
		    v->disks[i].state == VOLUME_DISK_STALE || volume_is_replicated(v); /* others have it, too */
		if (v->disks[i].state == VOLUME_DISK_UNUSED || volume_disk_is_good(v, i) || is_copy)
			continue;
		text_print(v->why, sizeof(v->why), "what lies on disk %s (%s) answers with an I/O error: %s",
			   d->facts.name, d->facts.path, volume_disk_why(v, i));
		return;
	}
}

/* ---- what frontends ask ---- */

static bool volume_is_exported(const struct set_volume *entry)
{
	return entry->head && entry->head->state == VOLUME_SERVING && entry->facts.is_attached_nbd;
}

static bool snapshot_is_serving(const struct set_snapshot *snap)
{
	return snap->is_served && snap->head->state == VOLUME_SERVING;
}

/* The volume that this is the filler's export of; NULL: there is none, or it is whole. */
static struct set_volume *volume_find_fill(struct volume_set *set, const char *name)
{
	char plain[SNAPSHOT_NAME_BYTES];
	text_print(plain, sizeof(plain), "%.*s", (int)(strlen(name) - strlen(VOLUME_FILL_ENDING)), name);
	struct set_volume *entry = set_volume_find(set, plain);
	return entry && entry->head && entry->head->fill ? entry : NULL;
}

struct volume *volume_get(struct volume_set *set, const char *name)
{
	bool is_fill = volume_name_is_fill(name);
	struct set_volume *entry = is_fill ? volume_find_fill(set, name) : set_volume_find(set, name);
	struct set_snapshot *snap = entry ? NULL : snapshot_find_export(set, name);
	if (snap && snapshot_has_export(snap) && snapshot_is_serving(snap)) {
		snap->head->refs++;
		return snap->head;
	}
	if (!entry || !entry->head || entry->head->state != VOLUME_SERVING)
		return NULL;
	if (!entry->facts.is_attached_nbd && !is_fill) /* it is filled for virtual machines, too */
		return NULL;
	entry->head->refs++;
	return entry->head;
}

void volume_put(struct volume *v)
{
	quarry_assert(v->refs > 0);
	v->refs--;
	volume_check_drained(v);
}

void volume_set_doors(struct volume_set *set, struct volume_doors *doors)
{
	set->doors = doors;
}

void volume_each_door(struct volume_set *set, void (*each)(struct volume *v, void *context), void *context)
{
	list_each_safe (node, &set->volumes) {
		struct set_volume *entry = container_of(node, struct set_volume, link);
		if (entry->head && entry->head->state == VOLUME_SERVING && entry->facts.is_attached_vhost)
			each(entry->head, context);
		list_each_safe (link, &entry->snapshots) {
			struct set_snapshot *snap = container_of(link, struct set_snapshot, link);
			if (snapshot_has_door(snap) && snapshot_is_serving(snap))
				each(snap->head, context);
		}
	}
}

uint32_t volume_vhost_queues(const struct volume *v)
{
	if (v->snapshot)
		return snapshot_vhost_queues(v->snapshot);
	return v->entry->facts.vhost_queues ? v->entry->facts.vhost_queues : VOLUME_VHOST_QUEUES_DEFAULT;
}

void volume_hold(struct volume *v)
{
	quarry_assert(v->state == VOLUME_SERVING);
	v->refs++;
}

const char *volume_name(const struct volume *v)
{
	return v->snapshot ? v->name : v->entry->facts.name;
}

const struct uuid *volume_uuid(const struct volume *v)
{
	return &v->entry->facts.uuid;
}

uint64_t volume_snapshot_number(const struct volume *v)
{
	return v->snapshot ? v->snapshot->facts.tree : 0;
}

uint64_t volume_size_bytes(const struct volume *v)
{
	return v->size_bytes;
}

bool volume_is_read_only(const struct volume *v)
{
	return v->is_read_only;
}

const struct volume_counters *volume_counters(const struct volume *v)
{
	return &v->counters;
}

struct next_export {
	const char *after;
	struct volume *next;
};

static void next_export_consider(struct volume *v, void *context)
{
	struct next_export *n = context;
	const char *name = volume_name(v);
	if (v->snapshot && (!snapshot_has_export(v->snapshot) || !snapshot_is_serving(v->snapshot)))
		return;
	if (strcmp(name, n->after) > 0 && (!n->next || strcmp(name, volume_name(n->next)) < 0))
		n->next = v;
}

/* A volume's snapshots are not always its neighbours by name ("vm", "vm-2", "vm@a"): the next one is looked for among
 * all, which costs little, since only those that are attached have heads. */
void volume_each_export(struct volume_set *set, void (*each)(struct volume *v, void *context), void *context)
{
	struct next_export n = {.after = ""};
	do {
		n.next = NULL;
		list_each (node, &set->volumes) {
			struct set_volume *entry = container_of(node, struct set_volume, link);
			if (volume_is_exported(entry))
				next_export_consider(entry->head, &n);
			if (!entry->facts.is_deleting)
				snapshots_each_head(entry, next_export_consider, &n);
		}
		if (n.next) {
			n.after = volume_name(n.next);
			each(n.next, context);
		}
	} while (n.next);
}

void volume_watch_start(struct volume *v, struct volume_watch *w)
{
	quarry_assert(v->refs > 0 && w->event);
	list_append(&v->watches, &w->link);
}

void volume_watch_stop(struct volume *v, struct volume_watch *w)
{
	quarry_assert(list_is_linked(&w->link));
	list_remove(&w->link);
}
