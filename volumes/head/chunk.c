/*
 * chunk.c: where the segments of a volume lie, 256 to a chunk, one key of the metadata store each, cached.
 *
 *   not in memory -> is_loading -> loaded -> evicted
 *                        |  ^
 *                        +-> is_broken, while something pins it: read again by the next who asks
 *
 * Invariants
 *  1. volume->chunks[n] is NULL, or the chunk numbered n, which is also in the cache's list of use.
 *  2. A loaded chunk holds what the store was last known to hold; it changes only when the store has said so.
 *  3. At most CHUNKS_MAX chunks are loaded, beside those that are pinned (P8); the longest unused goes first.
 *  4. What a broken chunk says is never used: neither to read (its data would look like holes) nor to write it back.
 *  5. A chunk without a key (revision 0) is a chunk of holes: it is kept like any other, so nobody asks twice.
 *
 * Owner: the volume's reactor.
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void chunk_bit_set(uint64_t *bits, uint64_t segment, bool is_set)
{
	uint64_t bit = 1ull << segment % 64;
	uint64_t *word = &bits[segment % PLACEMENT_CHUNK / 64];
	*word = is_set ? *word | bit : *word & ~bit;
}

struct chunk *chunk_get(struct volume *v, uint64_t segment)
{
	uint64_t number = segment / PLACEMENT_CHUNK;
	quarry_assert(number < v->n_chunks);
	struct chunk *c = v->chunks[number];
	return c && !c->is_loading && !c->is_broken ? c : NULL;
}

static void chunk_use(struct chunk *c)
{
	struct list *used = &c->volume->set->chunks.used;
	if (used->prev == &c->link)
		return;
	list_remove(&c->link);
	list_append(used, &c->link);
}

enum placed chunk_find(struct volume *v, uint64_t segment, uint64_t *disks)
{
	struct chunk *c = chunk_get(v, segment);
	if (!c)
		return PLACED_UNKNOWN;
	chunk_use(c);
	*disks = c->disks[segment % PLACEMENT_CHUNK];
	if (*disks == 0)
		return PLACED_NOWHERE;
	return chunk_bit(c->moving, segment) ? PLACED_MOVING : PLACED_ON_DISKS;
}

uint64_t chunk_skip_empty(struct volume *v, uint64_t segment, uint64_t end)
{
	while (segment < end) {
		struct chunk *c = chunk_get(v, segment);
		if (!c || c->n_placed > 0)
			break;
		segment = (segment / PLACEMENT_CHUNK + 1) * PLACEMENT_CHUNK;
	}
	return min_u64(segment, end);
}

static void chunk_put(struct chunk *c, uint64_t segment, uint64_t disks)
{
	uint64_t *at = &c->disks[segment % PLACEMENT_CHUNK];
	quarry_assert(disks != 0 && __builtin_popcountll(disks) <= (int)SEGMENT_DISKS_MAX);
	c->n_placed += *at == 0;
	*at = disks;
}

struct chunk *chunk_pinned(const struct volume *v, uint64_t segment)
{
	struct chunk *c = v->chunks[segment / PLACEMENT_CHUNK];
	quarry_assert(c && c->pins > 0);
	return c;
}

void chunk_place(struct chunk *c, uint64_t segment, uint64_t disks)
{
	chunk_move(c, segment, disks);
	chunk_bit_set(c->fresh, segment, !c->is_loading && !c->is_broken);
	chunk_bit_set(c->moving, segment, false);
}

void chunk_move(struct chunk *c, uint64_t segment, uint64_t disks)
{
	c->is_again = c->is_loading; /* what is being read may be older */
	if (!c->is_loading && !c->is_broken)
		chunk_put(c, segment, disks);
}

/* ---- the cache ---- */

static bool chunk_may_go(const struct chunk *c)
{
	return !c->is_loading && list_is_empty(&c->others) && c->pins == 0 && c->fresh_in_flight == 0;
}

void chunk_evict(struct chunk *c)
{
	struct chunk_cache *cache = &c->volume->set->chunks;
	quarry_assert(chunk_may_go(c));
	quarry_assert(c->volume->chunks[c->number] == c && cache->n > 0);
	c->volume->chunks[c->number] = NULL;
	list_remove(&c->link);
	cache->n--;
	free(c);
}

static void chunks_make_room(struct chunk_cache *cache)
{
	list_each_safe (node, &cache->used) {
		struct chunk *c = container_of(node, struct chunk, link);
		if (cache->n < CHUNKS_MAX)
			return;
		if (chunk_may_go(c))
			chunk_evict(c);
	}
}

static struct chunk *chunk_create(struct volume *v, uint32_t number)
{
	struct chunk *c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->volume = v;
	c->number = number;
	list_init(&c->others);
	list_init(&c->waiters);
	list_append(&v->set->chunks.used, &c->link);
	v->set->chunks.n++;
	v->chunks[number] = c;
	return c;
}

void chunks_fini(struct volume *v)
{
	for (uint32_t i = 0; i < v->n_chunks; i++) {
		struct chunk *c = v->chunks[i];
		if (!c)
			continue;
		if (c->read)
			metadata_request_clear(&c->read->request);
		free(c->read);
		c->read = NULL;
		c->is_loading = false;
		c->pins = c->fresh_in_flight = 0;
		list_init(&c->others);
		chunk_evict(c);
	}
	free(v->chunks);
	v->chunks = NULL;
	v->n_chunks = 0;
}

/* ---- JSON: {"segments": {"3": ["DISK-UUID", ...], ...}}, segments counted from the chunk's first ---- */

/* The disks of one segment, as a mask. */
static int segment_from_json(struct volume_set *s, json_t *array, uint64_t *disks)
{
	size_t n = json_array_size(array);
	if (n == 0 || n > SEGMENT_DISKS_MAX)
		return -EINVAL;
	*disks = 0;
	for (size_t i = 0; i < n; i++) {
		const char *text = json_string_value(json_array_get(array, i));
		struct uuid uuid;
		if (!text || uuid_from_text(text, &uuid) < 0)
			return -EINVAL;
		const struct set_disk *d = set_disk_known(s, &uuid);
		if (!d)
			return -EMFILE;
		if (*disks >> d->index & 1)
			return -EINVAL;
		*disks |= 1ull << d->index;
	}
	return 0;
}

int chunk_read_json(struct volume_set *s, const char *text,
		    int (*each)(void *context, uint32_t segment, uint64_t disks), void *context)
{
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	json_t *segments = json_object_get(root, "segments"), *array;
	const char *name;
	int err = json_is_object(segments) ? 0 : -EINVAL;
	json_object_foreach(segments, name, array)
	{
		char *end;
		unsigned long segment = strtoul(name, &end, 10);
		uint64_t disks;
		if (err == 0 && (end == name || *end || segment >= PLACEMENT_CHUNK))
			err = -EINVAL;
		if (err == 0)
			err = segment_from_json(s, array, &disks);
		if (err == 0)
			err = each(context, (uint32_t)segment, disks);
	}
	json_decref(root);
	return err;
}

static int chunk_take_segment(void *context, uint32_t segment, uint64_t disks)
{
	chunk_put(context, segment, disks);
	return 0;
}

static int segment_to_json(json_t *segments, const struct chunk *c, uint64_t at, uint64_t disks)
{
	char uuid[UUID_TEXT_BYTES], name[24];
	json_t *array = json_array();
	int err = 0;
	for (; disks != 0; disks &= disks - 1) {
		uuid_to_text(&c->volume->set->disks[__builtin_ctzll(disks)]->facts.uuid, uuid);
		err |= json_array_append_new(array, json_string(uuid));
	}
	snprintf(name, sizeof(name), "%u", (unsigned)at);
	return json_object_set_new(segments, name, array) | err;
}

char *chunk_to_json(const struct chunk *c, const struct place_pick *picks, uint32_t n_picks)
{
	json_t *root = json_object(), *segments = json_object();
	int err = root && segments ? 0 : -ENOMEM;
	for (uint32_t i = 0; i < PLACEMENT_CHUNK && err == 0; i++)
		if (c->disks[i] != 0)
			err = segment_to_json(segments, c, i, c->disks[i]);
	for (uint32_t i = 0; i < n_picks && err == 0; i++)
		if (picks[i].segment / PLACEMENT_CHUNK == c->number)
			err = segment_to_json(segments, c, picks[i].segment % PLACEMENT_CHUNK, picks[i].disks);
	if (json_object_set_new(root, "segments", segments) < 0 || err != 0) {
		json_decref(root);
		return NULL;
	}
	char *text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return text;
}

/* ---- loading ---- */

static void chunk_wake_all(struct chunk *c, int err)
{
	for (struct list *node = c->waiters.next; node != &c->waiters; node = c->waiters.next)
		volume_io_wake(container_of(node, struct volume_io, own.line), err);
	struct list others;
	list_init(&others);
	list_splice(&others, &c->others);
	for (struct list *node; (node = list_pop(&others)) != NULL;) {
		struct chunk_waiter *w = container_of(node, struct chunk_waiter, link);
		w->loaded(w, err);
	}
}

/* Takes over what the store holds; what is fresh or moving stays so. */
static int chunk_take(struct chunk *c, const struct metadata_request *q, int res)
{
	c->n_placed = 0;
	c->revision = 0;
	memset(c->disks, 0, sizeof(c->disks));
	if (res == -ENOENT)
		return 0;
	if (res != 0)
		return res;
	c->revision = q->items[0].revision;
	return chunk_read_json(c->volume->set, q->items[0].value, chunk_take_segment, c);
}

static int chunk_read(struct chunk *c);

static void chunk_read_done(struct metadata_request *q, int res)
{
	struct chunk_read *read = container_of(q, struct chunk_read, request);
	struct chunk *c = read->chunk;
	struct volume *v = c->volume;
	quarry_assert(c->is_loading && c->read == read);
	if (res == -ETIMEDOUT && set_lease_is_patient(v)) { /* the store cannot be reached: as often as it takes */
		metadata_submit(v->set->metadata, q);
		return;
	}
	int err = chunk_take(c, q, res);
	if (err != 0)
		log_event(v->set->log, LOG_ERROR, "placement-unreadable", v->entry->facts.name,
			  "the placement of segments %u to %u of volume %s cannot be used (%s): requests there fail",
			  c->number * PLACEMENT_CHUNK, (c->number + 1) * PLACEMENT_CHUNK - 1, v->entry->facts.name,
			  strerror(-err));
	metadata_request_clear(q);
	free(read);
	c->read = NULL;
	c->is_loading = false;
	v->n_chunk_reads--;
	c->is_broken = err != 0;
	if (c->is_again) {
		c->is_again = false;
		if (chunk_read(c) == 0)
			return;
		c->is_broken = true; /* without memory nothing is known of it */
		err = -ENOMEM;
	}
	c->pins++; /* who waits may let go of it */
	chunk_wake_all(c, err ? -EIO : 0);
	c->pins--;
	if (err != 0) {
		placement_moves_fail(v, c->number, -EIO);
		if (chunk_may_go(c))
			chunk_evict(c);
	}
	placer_run(v);
}

static int chunk_read(struct chunk *c)
{
	struct volume *v = c->volume;
	struct chunk_read *read = calloc(1, sizeof(*read));
	char uuid[UUID_TEXT_BYTES];
	quarry_assert(!c->is_loading);
	if (!read)
		return -ENOMEM;
	uuid_to_text(&v->entry->facts.uuid, uuid);
	snprintf(read->key, sizeof(read->key), CHUNK_KEY, uuid, c->number);
	read->chunk = c;
	read->request = (struct metadata_request){.op = METADATA_GET, .key = read->key, .done = chunk_read_done};
	c->read = read;
	c->is_loading = true;
	v->n_chunk_reads++;
	metadata_submit(v->set->metadata, &read->request);
	return 0;
}

/* It is on its way. 0 or -ENOMEM. */
static int chunk_fetch(struct volume *v, uint64_t segment)
{
	uint32_t number = (uint32_t)(segment / PLACEMENT_CHUNK);
	struct chunk *c = v->chunks[number];
	if (!c) {
		chunks_make_room(&v->set->chunks);
		c = chunk_create(v, number);
		if (!c)
			return -ENOMEM;
	}
	int err = c->is_loading ? 0 : chunk_read(c);
	if (err != 0) {
		if (chunk_may_go(c))
			chunk_evict(c);
	}
	return err;
}

int chunk_load(struct volume *v, uint64_t segment, struct volume_io *io)
{
	int err = chunk_fetch(v, segment);
	if (err == 0)
		list_append(&v->chunks[segment / PLACEMENT_CHUNK]->waiters, &io->own.line);
	return err;
}

int chunk_await(struct volume *v, uint64_t segment, struct chunk_waiter *w)
{
	int err = chunk_fetch(v, segment);
	if (err == 0)
		list_append(&v->chunks[segment / PLACEMENT_CHUNK]->others, &w->link);
	return err;
}

void chunks_reload(struct volume *v)
{
	for (uint32_t i = 0; i < v->n_chunks; i++)
		if (v->chunks[i])
			chunk_reload(v->chunks[i]);
}

void chunk_reload(struct chunk *c)
{
	if (chunk_may_go(c))
		chunk_evict(c);
	else if (c->is_loading)
		c->is_again = true;
	else if (chunk_read(c) != 0) /* its revision is old: the next transaction fails and comes here again */
		log_line(c->volume->set->log, LOG_WARNING, "placement",
			 "no memory to read a placement of volume %s again", c->volume->entry->facts.name);
}
