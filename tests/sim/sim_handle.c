/*
 * sim_handle.c: files as a process opens them, and the test's own hand on their content and faults.
 *
 * A handle belongs to the process that opened it; when that dies, the handle forgets its file and waits to be closed,
 * or for the end of the world. The lock is one per file and goes with the handle that has it. A device is opened for
 * writing once at a time: -EBUSY.
 */
#include "tests/sim/sim_file.h"

#include <errno.h>
#include <stdio.h>

#define LATENCY_MIN_NS (2 * NS_PER_US)
#define TORN_PPM       (1000000u / 6)

/* ---- handles: what the process has open ---- */

static bool is_held(const struct sim_file *f)
{
	list_each (node, &f->machine->handles) {
		const struct sim_handle *h = container_of(node, struct sim_handle, link);
		if (h->file == f && !(h->flags & FILE_READ_ONLY))
			return true;
	}
	return false;
}

int sim_file_open(struct reactor *r, const char *path, unsigned flags, struct file **out)
{
	struct sim_reactor *home = sim_reactor_of(r);
	struct sim_file *f = sim_file_find(home->machine, path);

	quarry_assert(!home->is_dead);
	if (f != NULL && (flags & FILE_CREATE))
		return -EEXIST;
	if (f == NULL && !(flags & FILE_CREATE))
		return -ENOENT;
	if (f != NULL && f->is_device && !(flags & FILE_READ_ONLY) && is_held(f))
		return -EBUSY;
	if (f == NULL)
		f = sim_file_create(home->machine, path, 0);
	struct sim_handle *h = calloc(1, sizeof(*h));
	if (h == NULL)
		return -ENOMEM;
	*h = (struct sim_handle){.base = {.reactor = r, .is_device = f->is_device}, .file = f, .flags = flags};
	list_init(&h->link);
	list_append(&home->machine->handles, &h->link);
	*out = &h->base;
	return 0;
}

void sim_handle_close(struct file *base)
{
	struct sim_handle *h = handle_of(base);

	if (h->file != NULL) {
		quarry_assert(h->n_ops == 0); /* D */
		if (h->file->locked_by == h)
			h->file->locked_by = NULL;
	}
	list_remove(&h->link);
	free(h);
}

int sim_handle_lock(struct file *base)
{
	struct sim_handle *h = handle_of(base);

	quarry_assert(h->file != NULL);
	if (h->file->locked_by != NULL && h->file->locked_by != h)
		return -EAGAIN;
	h->file->locked_by = h;
	return 0;
}

int64_t sim_handle_size(struct file *base)
{
	const struct sim_handle *h = handle_of(base);

	quarry_assert(h->file != NULL);
	return (int64_t)h->file->size_bytes;
}

int sim_handle_set_size(struct file *base, uint64_t size_bytes)
{
	struct sim_handle *h = handle_of(base);

	quarry_assert(h->file != NULL);
	if ((h->flags & FILE_READ_ONLY) || h->file->is_device)
		return -EINVAL;
	sim_file_resize(h->file, size_bytes);
	return 0;
}

int sim_handle_reserve(struct file *base, uint64_t pos_bytes, uint64_t len_bytes, _Atomic uint64_t *written_bytes)
{
	struct sim_handle *h = handle_of(base);
	struct sim_file *f = h->file;

	quarry_assert(f != NULL);
	quarry_assert(pos_bytes % BLOCK_BYTES == 0 && len_bytes % BLOCK_BYTES == 0);
	if (pos_bytes + len_bytes > f->size_bytes)
		sim_file_resize(f, pos_bytes + len_bytes);
	for (uint64_t slot = 0; slot < f->table_size; slot++) {
		struct sim_block *b = f->table[slot];
		if (b != NULL && b->number * BLOCK_BYTES - pos_bytes < len_bytes &&
		    b->number * BLOCK_BYTES >= pos_bytes)
			sim_file_poke(f, b->number, NULL);
	}
	if (written_bytes != NULL)
		*written_bytes += len_bytes;
	return 0;
}

int sim_handle_remove(struct file *base, const char *path)
{
	struct sim_handle *h = handle_of(base);

	quarry_assert(h->file != NULL);
	if (h->file->is_removed || strcmp(h->file->path, path) != 0)
		return -ENOENT;
	h->file->is_removed = true;
	return 0;
}

/* ---- the test's hand on a file ---- */

struct sim_file *sim_file_find(struct sim_machine *m, const char *path)
{
	list_each (node, &m->files) {
		struct sim_file *f = container_of(node, struct sim_file, link);
		if (!f->is_removed && strcmp(f->path, path) == 0)
			return f;
	}
	return NULL;
}

struct sim_file *sim_file_create(struct sim_machine *m, const char *path, uint64_t size_bytes)
{
	struct sim_file *f = calloc(1, sizeof(*f));

	quarry_assert(f != NULL);
	quarry_assert(strlen(path) < sizeof(f->path));
	quarry_assert(sim_file_find(m, path) == NULL);
	snprintf(f->path, sizeof(f->path), "%s", path);
	f->machine = m;
	f->size_bytes = size_bytes;
	f->faults = (struct sim_file_faults){
	    .torn_ppm = TORN_PPM, .latency_min_ns = LATENCY_MIN_NS, .latency_max_ns = m->sim->latency_max_ns};
	list_init(&f->volatile_blocks);
	list_init(&f->in_flight);
	blocks_grow(f);
	list_append(&m->files, &f->link);
	return f;
}

static void file_destroy(struct sim_file *f)
{
	for (uint64_t slot = 0; slot < f->table_size; slot++) {
		if (f->table[slot] != NULL)
			block_free(f->table[slot]);
	}
	free(f->table);
	free(f);
}

void sim_files_destroy(struct sim_machine *m)
{
	sim_files_crash(m, SIM_KILL);
	for (struct list *node; (node = list_pop(&m->dead_handles)) != NULL;)
		free(container_of(node, struct sim_handle, link));
	for (struct list *node; (node = list_pop(&m->files)) != NULL;)
		file_destroy(container_of(node, struct sim_file, link));
}

uint64_t sim_file_size_bytes(const struct sim_file *f)
{
	return f->size_bytes;
}

void sim_file_resize(struct sim_file *f, uint64_t size_bytes)
{
	uint64_t end = (size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;

	f->size_bytes = size_bytes;
	for (uint64_t slot = 0; slot < f->table_size; slot++) {
		if (f->table[slot] != NULL && f->table[slot]->number >= end)
			sim_file_poke(f, f->table[slot]->number, NULL);
	}
}

void sim_file_set_device(struct sim_file *f, bool is_device)
{
	f->is_device = is_device;
}

void sim_file_move(struct sim_file *f, struct sim_machine *to)
{
	list_each (node, &f->machine->handles)
		quarry_assert(container_of(node, struct sim_handle, link)->file != f);
	quarry_assert(sim_file_find(to, f->path) == NULL || f->machine == to);
	list_remove(&f->link);
	list_append(&to->files, &f->link);
	f->machine = to;
}

void sim_file_peek(const struct sim_file *f, uint64_t block, void *out)
{
	const struct sim_block *b = block_find(f, block);
	const uint8_t *content = b != NULL ? block_settled(b) : NULL;

	if (content != NULL)
		memcpy(out, content, BLOCK_BYTES);
	else
		memset(out, 0, BLOCK_BYTES);
}

void sim_file_poke(struct sim_file *f, uint64_t block, const void *content)
{
	struct sim_block *b = block_make(f, block);

	quarry_assert(!block_is_in_flight(b));
	block_drop_versions(b);
	free(b->durable);
	b->durable = content != NULL ? content_copy(content) : NULL;
	b->is_broken = false;
}

static int number_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void sim_file_each(struct sim_file *f, void (*each)(uint64_t block, const void *content, void *context), void *context)
{
	uint64_t *numbers = malloc((f->n_blocks + 1) * sizeof(*numbers));
	uint64_t n = 0;

	quarry_assert(numbers != NULL);
	for (uint64_t slot = 0; slot < f->table_size; slot++) {
		if (f->table[slot] != NULL && block_settled(f->table[slot]) != NULL)
			numbers[n++] = f->table[slot]->number;
	}
	qsort(numbers, n, sizeof(*numbers), number_order);
	for (uint64_t i = 0; i < n; i++)
		each(numbers[i], block_settled(block_find(f, numbers[i])), context);
	free(numbers);
}

struct save_context {
	FILE *out;
	bool is_bad;
};

static void save_block(uint64_t block, const void *content, void *context)
{
	struct save_context *c = context;

	if (fseeko(c->out, (off_t)(block * BLOCK_BYTES), SEEK_SET) != 0 || fwrite(content, BLOCK_BYTES, 1, c->out) != 1)
		c->is_bad = true;
}

int sim_file_save(struct sim_file *f, const char *path)
{
	struct save_context c = {.out = fopen(path, "we")};
	uint8_t last[BLOCK_BYTES];

	if (c.out == NULL)
		return -errno;
	sim_file_each(f, save_block, &c);
	if (f->size_bytes >= BLOCK_BYTES) { /* gives the file its size */
		sim_file_peek(f, f->size_bytes / BLOCK_BYTES - 1, last);
		save_block(f->size_bytes / BLOCK_BYTES - 1, last, &c);
	}
	return fclose(c.out) != 0 || c.is_bad ? -EIO : 0;
}

/* ---- faults ---- */

struct sim_file_faults *sim_file_faults(struct sim_file *f)
{
	return &f->faults;
}

void sim_file_flip(struct sim_file *f, uint64_t block, uint32_t bit)
{
	struct sim_block *b = block_make(f, block);

	quarry_assert(bit < BLOCK_BYTES * 8);
	if (b->durable == NULL)
		b->durable = content_copy(NULL);
	content_flip(b->durable, bit);
	for (struct sim_version *v = b->oldest; v != NULL; v = v->newer) {
		if (v->completion == 0)
			continue;
		if (v->data == NULL)
			v->data = content_copy(NULL);
		content_flip(v->data, bit);
	}
}

void sim_file_break(struct sim_file *f, uint64_t block)
{
	block_make(f, block)->is_broken = true;
}

void sim_file_fail(struct sim_file *f, enum op_kind kind, uint32_t skip, int error)
{
	quarry_assert(kind >= OP_READ && kind <= OP_PUNCH);
	quarry_assert(error >= 0);
	f->failures[kind] = (struct sim_failure){.is_armed = error != 0, .skip = skip, .error = error};
}

struct sim_file_stats sim_file_stats(const struct sim_file *f)
{
	struct sim_file_stats stats = f->stats;

	stats.blocks = f->n_blocks;
	return stats;
}
