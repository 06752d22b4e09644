/*
 * store.c: puts chunks into a repository.
 *
 * 1. A chunk is in the index as soon as it is put, so that its equals are not put again; it is durable when store_end()
 *    has returned 0, and nothing that needs it may be recorded before.
 * 2. A pack that cannot be written leaves nothing behind; the first reason is kept and everything ends with it.
 */
#include "cli/backup/store.h"

#include "cli/backup/files.h"

void store_begin(struct store *s, struct repository *r, struct workers *workers)
{
	*s = (struct store){.repository = r, .workers = workers};
}

bool store_has_room(const struct store *s)
{
	for (unsigned i = 0; i < PACKS_IN_WORK; i++) {
		if (!s->packs[i].builder)
			return true;
	}
	return false;
}

static void pack_work(struct job *job, struct worker *w)
{
	struct store_pack *pack = (struct store_pack *)job;
	const struct repository *r = pack->store->repository;
	(void)w;
	pack_finish(pack->builder, &r->vault, pack->name);
	pack->error = file_write(r->packs_fd, pack->name, pack->builder->data, pack->builder->n_bytes);
}

static void written_add(struct store *s, const char *name)
{
	s->written = reallocarray(s->written, s->n_written + 1, sizeof(*s->written));
	if (!s->written)
		abort();
	memcpy(s->written[s->n_written++], name, FILE_NAME_BYTES);
}

bool store_has_written(const struct store *s, const char *name)
{
	for (uint32_t i = 0; i < s->n_written; i++) {
		if (strcmp(s->written[i], name) == 0)
			return true;
	}
	return false;
}

void store_free(struct store *s)
{
	free(s->written);
}

static void pack_submit(struct store *s)
{
	struct store_pack *pack = s->packs;
	quarry_assert(s->growing && store_has_room(s));
	while (pack->builder)
		pack++;
	*pack = (struct store_pack){.job.work = pack_work, .store = s, .builder = s->growing};
	s->growing = NULL;
	workers_submit(s->workers, &pack->job);
}

bool store_took(struct store *s, struct job *job)
{
	for (unsigned i = 0; i < PACKS_IN_WORK; i++) {
		struct store_pack *pack = &s->packs[i];
		if (job != &pack->job)
			continue;
		if (!pack->error)
			written_add(s, pack->name);
		else if (!s->error)
			s->error = pack->error;
		pack_builder_destroy(pack->builder);
		pack->builder = NULL;
		return true;
	}
	return false;
}

static void store_append(struct store *s, const struct chunk_id *id, const void *sealed, size_t n_bytes)
{
	if (!s->growing)
		s->growing = pack_builder_create(&s->repository->vault);
	memcpy(pack_room(s->growing, n_bytes), sealed, n_bytes);
	pack_added(s->growing, id, n_bytes);
	s->stored_bytes += n_bytes;
	s->n_chunks++;
	if (s->growing->n_bytes >= PACK_BYTES)
		pack_submit(s);
}

void store_put(struct store *s, const struct chunk_id *id, const void *sealed, size_t n_bytes)
{
	struct index_place place = {.pack = PACK_IN_WORK, .n_bytes = (uint32_t)n_bytes};
	quarry_assert(store_has_room(s));
	if (index_add(s->repository->index, id, place))
		store_append(s, id, sealed, n_bytes);
}

void store_move(struct store *s, const struct chunk_id *id, const void *sealed, size_t n_bytes)
{
	struct index_place place = {.pack = PACK_IN_WORK, .n_bytes = (uint32_t)n_bytes};
	quarry_assert(store_has_room(s));
	index_move(s->repository->index, id, place);
	store_append(s, id, sealed, n_bytes);
}

void store_put_plain(struct store *s, struct packer *p, enum kind kind, const struct chunk_id *id, const void *data,
		     size_t n_bytes)
{
	struct index_place place;
	if (index_find(s->repository->index, id, &place))
		return;
	uint8_t *sealed = malloc(chunk_room(n_bytes));
	if (!sealed)
		abort();
	size_t n = chunk_encode(p, &s->repository->vault, kind, id, data, n_bytes, sealed);
	store_put(s, id, sealed, n);
	free(sealed);
}

int store_end(struct store *s)
{
	bool is_busy = true;
	while (s->growing && !store_has_room(s)) {
		bool was_ours = store_took(s, workers_wait(s->workers));
		quarry_assert(was_ours);
	}
	if (s->growing)
		pack_submit(s);
	while (is_busy) {
		is_busy = false;
		for (unsigned i = 0; i < PACKS_IN_WORK; i++)
			is_busy |= s->packs[i].builder != NULL;
		if (is_busy) {
			bool was_ours = store_took(s, workers_wait(s->workers));
			quarry_assert(was_ours);
		}
	}
	return s->error;
}
