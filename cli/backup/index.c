/*
 * index.c: where each chunk is: a hash table in memory, made from the packs' own tables when a repository is opened, so
 * that nothing on disk can disagree with the packs.
 *
 * 1. Ids are hashes already: their first bytes choose the slot. Slots are probed in a row; at most 3 in 4 are taken.
 * 2. Nothing is ever taken out.
 * 3. A chunk that lies in several packs, as after a prune that was killed, has several places: one of the packs may be
 *    damaged, and the others serve. This is rare, so the further ones are in a list of their own.
 */
#include "cli/backup/index.h"

#include <pthread.h>

struct other {
	struct index_place place;
	struct other *next;
};

struct slot {
	struct chunk_id id;
	struct index_place place; /* n_bytes 0: free */
	struct other *others;
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
	for (uint64_t i = 0; i < index->n_slots; i++) {
		for (struct other *next, *other = index->slots[i].others; other; other = next) {
			next = other->next;
			free(other);
		}
	}
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

/* Where the pointer to the place in this pack is, or the end of the list. */
static struct other **other_of_locked(struct slot *slot, uint32_t pack)
{
	struct other **at = &slot->others;
	while (*at && (*at)->place.pack != pack)
		at = &(*at)->next;
	return at;
}

static void other_insert_locked(struct other **at, struct index_place place)
{
	struct other *other = malloc(sizeof(*other));
	if (!other)
		abort();
	*other = (struct other){.place = place, .next = *at};
	*at = other;
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
	} else if (slot->place.pack != place.pack && place.pack != PACK_IN_WORK) {
		struct other **at = other_of_locked(slot, place.pack);
		if (!*at)
			other_insert_locked(at, place);
	}
	pthread_mutex_unlock(&index->lock);
	return is_new;
}

void index_move(struct index *index, const struct chunk_id *id, struct index_place place)
{
	pthread_mutex_lock(&index->lock);
	struct slot *slot = slot_of_locked(index, id);
	quarry_assert(slot->place.n_bytes > 0 && place.n_bytes > 0);
	if (slot->place.pack != place.pack) {
		struct other **at = other_of_locked(slot, place.pack), *old = *at;
		if (old) {
			*at = old->next;
			free(old);
		}
		other_insert_locked(&slot->others, slot->place);
	}
	slot->place = place;
	pthread_mutex_unlock(&index->lock);
}

bool index_find_other(struct index *index, const struct chunk_id *id, uint32_t n, struct index_place *place)
{
	pthread_mutex_lock(&index->lock);
	const struct slot *slot = slot_of_locked(index, id);
	const struct other *other = slot->others;
	bool is_found = slot->place.n_bytes > 0;
	*place = slot->place;
	for (; is_found && n > 0; n--) {
		is_found = other != NULL;
		if (other) {
			*place = other->place;
			other = other->next;
		}
	}
	pthread_mutex_unlock(&index->lock);
	return is_found;
}

bool index_find(struct index *index, const struct chunk_id *id, struct index_place *place)
{
	pthread_mutex_lock(&index->lock);
	*place = slot_of_locked(index, id)->place;
	pthread_mutex_unlock(&index->lock);
	return place->n_bytes > 0;
}

bool index_next_shared(const struct index *index, uint64_t *at, struct chunk_id *id)
{
	while (*at < index->n_slots && !index->slots[*at].others)
		++*at;
	if (*at == index->n_slots)
		return false;
	*id = index->slots[(*at)++].id;
	return true;
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
