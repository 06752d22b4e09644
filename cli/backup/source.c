/*
 * source.c: asks a server which parts of a volume hold data and which have changed.
 *
 * 1. What the server does not tell counts as data and as changed: then more is read, never less.
 * 2. A block is as good as all of its bytes: one that is changed or data in part is so as a whole.
 * 3. An answer without progress, or none, is an error. No more is kept of one than the question covered.
 */
#include "cli/backup/source.h"

#include <errno.h>
#include <libnbd.h>

#define QUESTION_BYTES_MAX (1ull << 30) /* well below the 32 bits that every server takes */
#define EXTENTS_MAX_KEPT   (1u << 20)
#define FLAG_CHANGED       1u /* of qemu:dirty-bitmap */

void source_begin(struct source *s, struct endpoint *volume, const char *changes)
{
	*s = (struct source){.volume = volume, .changes.name = changes};
	if (volume->knows_holes)
		s->holes.name = LIBNBD_CONTEXT_BASE_ALLOCATION;
}

void source_end(struct source *s)
{
	free(s->holes.extents);
	free(s->changes.extents);
}

static void extent_keep(struct source_context *context, uint64_t end_bytes, uint32_t flags)
{
	if (context->n == context->room) {
		context->room = context->room ? context->room * 2 : 1024;
		context->extents = reallocarray(context->extents, context->room, sizeof(*context->extents));
		if (!context->extents)
			abort();
	}
	context->extents[context->n++] = (struct source_extent){.end_bytes = end_bytes, .flags = flags};
}

static int answer_take(void *user_data, const char *name, uint64_t pos_bytes, uint32_t *entries, size_t n_entries,
		       int *error)
{
	struct source *s = user_data;
	struct source_context *context = NULL;
	(void)error;
	if (s->holes.name && strcmp(name, s->holes.name) == 0)
		context = &s->holes;
	else if (s->changes.name && strcmp(name, s->changes.name) == 0)
		context = &s->changes;
	if (!context || context->n > 0)
		return 0;
	for (size_t i = 0; i + 1 < n_entries && context->n < EXTENTS_MAX_KEPT && entries[i] > 0; i += 2) {
		pos_bytes += entries[i];
		extent_keep(context, pos_bytes, entries[i + 1]);
	}
	return 0;
}

/* Asks about what begins at pos_bytes; each context then has an answer that begins there. */
static int source_ask(struct source *s, uint64_t pos_bytes)
{
	uint64_t len_bytes = s->volume->size_bytes - pos_bytes;
	nbd_extent_callback callback = {.callback = answer_take, .user_data = s};
	s->holes.n = s->holes.next = s->changes.n = s->changes.next = 0;
	if (len_bytes > QUESTION_BYTES_MAX)
		len_bytes = QUESTION_BYTES_MAX;
	if (!s->holes.name)
		extent_keep(&s->holes, pos_bytes + len_bytes, 0);
	if (!s->changes.name)
		extent_keep(&s->changes, pos_bytes + len_bytes, FLAG_CHANGED);
	if ((s->holes.name || s->changes.name) &&
	    nbd_block_status(s->volume->nbd, len_bytes, pos_bytes, callback, 0) < 0)
		return nbd_get_errno() ? nbd_get_errno() : EIO;
	return s->holes.n > 0 && s->changes.n > 0 ? 0 : EPROTO;
}

/* The extent where pos_bytes lies; NULL: the answer does not reach so far. */
static const struct source_extent *extent_at(struct source_context *context, uint64_t pos_bytes)
{
	while (context->next < context->n && context->extents[context->next].end_bytes <= pos_bytes)
		context->next++;
	return context->next < context->n ? &context->extents[context->next] : NULL;
}

void masks_set(uint32_t *mask, uint64_t leaf_bytes, uint64_t from_bytes, uint64_t to_bytes)
{
	quarry_assert(from_bytes >= leaf_bytes && to_bytes > from_bytes && to_bytes - leaf_bytes <= LEAF_BYTES);
	uint32_t first = (uint32_t)((from_bytes - leaf_bytes) / BLOCK_BYTES);
	uint32_t end = (uint32_t)((to_bytes - leaf_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES);
	for (uint32_t block = first; block < end; block++) {
		if (block % PIECE_BLOCKS == 0 && end - block >= PIECE_BLOCKS) {
			mask[block / PIECE_BLOCKS] = UINT32_MAX;
			block += PIECE_BLOCKS - 1;
		} else {
			mask[block / PIECE_BLOCKS] |= 1u << block % PIECE_BLOCKS;
		}
	}
}

int source_look(struct source *s, uint32_t leaf, struct source_masks *masks)
{
	uint64_t leaf_bytes = leaf * LEAF_BYTES, pos_bytes = leaf_bytes, end_bytes = leaf_bytes + LEAF_BYTES;
	memset(masks, 0, sizeof(*masks));
	quarry_assert(leaf_bytes < s->volume->size_bytes);
	if (end_bytes > s->volume->size_bytes)
		end_bytes = s->volume->size_bytes;
	while (pos_bytes < end_bytes) {
		const struct source_extent *hole = extent_at(&s->holes, pos_bytes);
		const struct source_extent *change = extent_at(&s->changes, pos_bytes);
		if (!hole || !change) {
			int error = source_ask(s, pos_bytes);
			if (error)
				return error;
			continue;
		}
		uint64_t to_bytes = hole->end_bytes < change->end_bytes ? hole->end_bytes : change->end_bytes;
		if (to_bytes > end_bytes)
			to_bytes = end_bytes;
		quarry_assert(to_bytes > pos_bytes);
		if (!(hole->flags & LIBNBD_STATE_ZERO))
			masks_set(masks->data, leaf_bytes, pos_bytes, to_bytes);
		if (change->flags & FLAG_CHANGED)
			masks_set(masks->changed, leaf_bytes, pos_bytes, to_bytes);
		pos_bytes = to_bytes;
	}
	return 0;
}
