/*
 * layout.c: which disks hold segments of a volume together, and how many: read when it is attached, kept while it is.
 *
 * A volume with several copies must know this of all its segments, not only of those whose chunks are cached: a disk
 * that has the only current copy of any of them is not given up [LASTSEG], and status says how many copies there are of
 * what. One with a single copy may get more while it is attached. There are few such sets of disks, whatever the volume's
 * size, so this is small.
 *
 * Invariants
 *  1. Every set that a recorded segment lies on is here, unless it is short, as that of a volume with one copy may be. One
 *     whose placement was sent and whose outcome is not known is, too: then there may be one segment too many, which errs on
 *     the safe side.
 *  2. Nothing is placed without the memory to note it here.
 *
 * Owner: the volume.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct layout_set *layout_find(struct layout *l, uint64_t disks)
{
	for (uint32_t i = 0; i < l->n; i++)
		if (l->sets[i].disks == disks)
			return &l->sets[i];
	return NULL;
}

/* What others have reserved, and add when the store has answered them: a placement and a move. */
#define PROMISED_MAX (PLACE_PICKS_MAX + 1)

int layout_reserve(struct volume *v, uint32_t n)
{
	struct layout *l = &v->layout;
	n += PROMISED_MAX;
	if (l->room - l->n >= n)
		return 0;
	uint32_t room = 2 * (l->n + n);
	struct layout_set *sets = realloc(l->sets, room * sizeof(*sets));
	if (!sets)
		return -ENOMEM;
	l->sets = sets;
	l->room = room;
	return 0;
}

void layout_add(struct volume *v, uint64_t disks)
{
	struct layout *l = &v->layout;
	struct layout_set *set = layout_find(l, disks);
	quarry_assert(disks != 0 && (set || l->n < l->room));
	if (!set) {
		set = &l->sets[l->n++];
		*set = (struct layout_set){.disks = disks};
	}
	set->n_segments++;
}

void layout_remove(struct volume *v, uint64_t disks)
{
	struct layout_set *set = layout_find(&v->layout, disks);
	if (!set && v->layout.is_short)
		return;
	quarry_assert(set && set->n_segments > 0);
	if (--set->n_segments == 0)
		*set = v->layout.sets[--v->layout.n];
}

uint64_t layout_without(const struct volume *v, uint64_t disks)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < v->layout.n; i++)
		if ((v->layout.sets[i].disks & disks) == 0)
			n += v->layout.sets[i].n_segments;
	return n;
}

uint64_t layout_degraded(const struct volume *v, uint64_t disks, uint32_t *fewest)
{
	uint64_t n = 0;
	*fewest = v->entry->facts.replicas;
	for (uint32_t i = 0; i < v->layout.n; i++) {
		uint32_t n_copies = (uint32_t)__builtin_popcountll(v->layout.sets[i].disks & disks);
		if (n_copies >= v->entry->facts.replicas)
			continue;
		n += v->layout.sets[i].n_segments;
		*fewest = (uint32_t)min_u64(*fewest, n_copies);
	}
	return n;
}

uint64_t layout_surplus(const struct volume *v)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < v->layout.n; i++)
		if ((uint32_t)__builtin_popcountll(v->layout.sets[i].disks) > v->entry->facts.replicas)
			n += v->layout.sets[i].n_segments;
	return n;
}

void layout_fini(struct volume *v)
{
	free(v->layout.sets);
	v->layout = (struct layout){0};
}

/* ---- walking over all segments: one chunk after the other ---- */

static int walk_take(void *context, uint32_t segment, uint64_t disks)
{
	((struct placement_walk *)context)->disks[segment] = disks;
	return 0;
}

static void walk_got(struct metadata_request *q, int res)
{
	struct placement_walk *w = container_of(q, struct placement_walk, request);
	int err = res == -ENOENT ? 0 : res; /* a chunk of holes has no key */
	if (res == 0)
		err = chunk_read_json(w->volume->set, q->items[0].value, walk_take, w);
	metadata_request_clear(q);
	w->is_under_way = false;
	w->next(w, err);
}

bool placement_walk_next(struct placement_walk *w)
{
	char uuid[UUID_TEXT_BYTES];
	quarry_assert(w->next && !w->is_under_way);
	if (w->number >= w->volume->n_chunks) /* more, if it began where the volume had chunks before it shrank */
		return false;
	memset(w->disks, 0, sizeof(w->disks));
	uuid_to_text(&w->volume->entry->facts.uuid, uuid);
	snprintf(w->key, sizeof(w->key), CHUNK_KEY, uuid, w->number++);
	w->request = (struct metadata_request){.op = METADATA_GET, .key = w->key, .done = walk_got};
	w->is_under_way = true;
	metadata_submit(w->volume->set->metadata, &w->request);
	return true;
}

void placement_walk_abandon(struct placement_walk *w)
{
	if (w->is_under_way)
		metadata_request_clear(&w->request);
}

int layout_take(struct volume *v, const struct placement_walk *w)
{
	for (uint32_t i = 0; i < PLACEMENT_CHUNK; i++) {
		if (w->disks[i] == 0)
			continue;
		int err = layout_reserve(v, 1);
		if (err != 0)
			return err;
		layout_add(v, w->disks[i]);
	}
	return 0;
}
