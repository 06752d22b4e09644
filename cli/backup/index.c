/*
 * index.c: where each chunk is: a hash table in memory, made from the packs' own tables when a repository is opened, so
 * that nothing on disk can disagree with the packs.
 *
 * 1. Ids are hashes already: their first bytes choose the slot. Slots are probed in a row; at most 3 in 4 are taken.
 * 2. Nothing is ever taken out.
 */
#include "cli/backup/index.h"

#include <pthread.h>

struct slot {
	struct chunk_id id;
	struct index_place place; /* n_bytes 0: free */
	uint8_t mark;
};

struct index {
	pthread_mutex_t lock; /* all below */
	struct slot *slots;
	uint64_t n_slots, n_taken; /* n_slots is a power of two */
};

#define SLOTS_FIRST 1024u

static struct slot *slots_create(uint64_t n)
{
	struct slot *slots = calloc(n, sizeof(*slots));
	if (!slots)
		abort();
	return slots;
}

struct index *index_create(void)
{
	struct index *index = calloc(1, sizeof(*index));
	if (!index)
		abort();
	pthread_mutex_init(&index->lock, NULL);
	index->n_slots = SLOTS_FIRST;
	index->slots = slots_create(SLOTS_FIRST);
	return index;
}

void index_destroy(struct index *index)
{
	if (!index)
		return;
	pthread_mutex_destroy(&index->lock);
	free(index->slots);
	free(index);
}

/* The chunk's slot, or the free one where it belongs. */
static struct slot *slot_of_locked(const struct index *index, const struct chunk_id *id)
{
	uint64_t at;
	memcpy(&at, id, sizeof(at));
	for (;; at++) {
		struct slot *slot = &index->slots[at & (index->n_slots - 1)];
		if (slot->place.n_bytes == 0 || id_is_equal(&slot->id, id))
			return slot;
	}
}

static void grow_locked(struct index *index)
{
	struct slot *old = index->slots;
	uint64_t n_old = index->n_slots;
	index->n_slots *= 2;
	index->slots = slots_create(index->n_slots);
	for (uint64_t i = 0; i < n_old; i++) {
		if (old[i].place.n_bytes > 0)
			*slot_of_locked(index, &old[i].id) = old[i];
	}
	free(old);
}

bool index_add(struct index *index, const struct chunk_id *id, struct index_place place)
{
	quarry_assert(place.n_bytes > 0);
	pthread_mutex_lock(&index->lock);
	if (index->n_taken >= index->n_slots / 4 * 3)
		grow_locked(index);
	struct slot *slot = slot_of_locked(index, id);
	bool is_new = slot->place.n_bytes == 0;
	if (is_new) {
		*slot = (struct slot){.id = *id, .place = place};
		index->n_taken++;
	}
	pthread_mutex_unlock(&index->lock);
	return is_new;
}

void index_move(struct index *index, const struct chunk_id *id, struct index_place place)
{
	pthread_mutex_lock(&index->lock);
	struct slot *slot = slot_of_locked(index, id);
	quarry_assert(slot->place.n_bytes > 0 && place.n_bytes > 0);
	slot->place = place;
	pthread_mutex_unlock(&index->lock);
}

bool index_find(struct index *index, const struct chunk_id *id, struct index_place *place)
{
	pthread_mutex_lock(&index->lock);
	*place = slot_of_locked(index, id)->place;
	pthread_mutex_unlock(&index->lock);
	return place->n_bytes > 0;
}

bool index_mark(struct index *index, const struct chunk_id *id, uint8_t mark)
{
	pthread_mutex_lock(&index->lock);
	struct slot *slot = slot_of_locked(index, id);
	bool is_there = slot->place.n_bytes > 0;
	if (is_there)
		slot->mark = mark;
	pthread_mutex_unlock(&index->lock);
	return is_there;
}

uint8_t index_marked(struct index *index, const struct chunk_id *id)
{
	pthread_mutex_lock(&index->lock);
	const struct slot *slot = slot_of_locked(index, id);
	uint8_t mark = slot->place.n_bytes > 0 ? slot->mark : 0;
	pthread_mutex_unlock(&index->lock);
	return mark;
}

uint64_t index_n(struct index *index)
{
	pthread_mutex_lock(&index->lock);
	uint64_t n = index->n_taken;
	pthread_mutex_unlock(&index->lock);
	return n;
}
