/*
 * fake_volume.c: volumes in memory.
 *
 * Content is a table of 4 KiB blocks that exist from their first write on; trimming and zeroing whole blocks removes
 * them, so that block status has holes to tell. Requests are carried out when they are submitted and complete on the
 * next turn, in order, unless they are held.
 *
 * Invariants
 *  1. An io is in exactly one list from its submission to its done(): `ready` or `held`.
 *  2. done() is never called inside volume_submit().
 */
#include "tests/unit/fake_volume.h"

#include "daemon/core/list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_VOLUMES 64u

struct volume {
	struct volume_set *set;
	char name[2 * VOLUME_NAME_MAX + 2];
	struct uuid uuid;
	uint64_t size_bytes, largest_bytes; /* largest_bytes: that it ever had */
	uint64_t snapshot_number;
	uint32_t n_bases;
	bool is_read_only, is_null, holds, is_detached;
	uint8_t **blocks;
	uint64_t n_blocks;
	struct list ready, held, watches;
	struct op op; /* delivers what is ready */
	int fail[VOLUME_MAP + 1];
	uint64_t fail_at[VOLUME_MAP + 1];
	struct fake_counts counts;
	struct volume_counters counters;
};

struct volume_set {
	struct reactor *reactor;
	struct volume volumes[FAKE_VOLUMES]; /* in order of name, as the test adds them */
	uint32_t n_volumes;
};

/* ---- content ---- */

static void content_copy(struct volume *v, uint64_t pos_bytes, uint8_t *out, const uint8_t *in, uint64_t len_bytes)
{
	while (len_bytes > 0) {
		uint8_t **block = &v->blocks[pos_bytes / BLOCK_BYTES];
		uint64_t skip = pos_bytes % BLOCK_BYTES, n = min_u64(BLOCK_BYTES - skip, len_bytes);
		if (in) {
			if (!*block)
				*block = calloc(1, BLOCK_BYTES);
			quarry_assert(*block != NULL);
			memcpy(*block + skip, in, n);
			in += n;
		} else if (*block) {
			memcpy(out, *block + skip, n);
		} else {
			memset(out, 0, n);
		}
		if (out)
			out += n;
		pos_bytes += n;
		len_bytes -= n;
	}
}

static void content_zero(struct volume *v, uint64_t pos_bytes, uint64_t len_bytes, bool keeps_blocks)
{
	static const uint8_t zeros[BLOCK_BYTES];

	while (len_bytes > 0) {
		uint8_t **block = &v->blocks[pos_bytes / BLOCK_BYTES];
		uint64_t n = min_u64(BLOCK_BYTES - pos_bytes % BLOCK_BYTES, len_bytes);
		if (keeps_blocks || (*block && n < BLOCK_BYTES)) {
			content_copy(v, pos_bytes, NULL, zeros, n);
		} else {
			free(*block);
			*block = NULL;
		}
		pos_bytes += n;
		len_bytes -= n;
	}
}

static void content_map(struct volume *v, struct volume_io *io)
{
	uint64_t pos_bytes = io->pos_bytes, end_bytes = pos_bytes + io->len_bytes;

	quarry_assert(io->extents && io->extents_max > 0 && io->len_bytes > 0);
	while (pos_bytes < end_bytes) {
		bool is_data = v->is_null || v->blocks[pos_bytes / BLOCK_BYTES] != NULL;
		uint64_t n = min_u64(BLOCK_BYTES - pos_bytes % BLOCK_BYTES, end_bytes - pos_bytes);
		struct volume_extent *last = &io->extents[io->n_extents - 1];
		if (io->n_extents > 0 && last->is_data == is_data)
			last->len_bytes += n;
		else if (io->n_extents == io->extents_max)
			return;
		else
			io->extents[io->n_extents++] = (struct volume_extent){.len_bytes = n, .is_data = is_data};
		pos_bytes += n;
	}
}

/* ---- requests ---- */

static void check_io(const struct volume *v, const struct volume_io *io)
{
	uint64_t total_bytes = 0;

	quarry_assert(io->done != NULL);
	quarry_assert(io->pos_bytes % SECTOR_BYTES == 0 && io->len_bytes % SECTOR_BYTES == 0);
	quarry_assert(io->pos_bytes <= v->largest_bytes && io->len_bytes <= v->largest_bytes - io->pos_bytes);
	quarry_assert(!v->is_read_only || io->op == VOLUME_READ || io->op == VOLUME_MAP || io->op == VOLUME_FLUSH);
	quarry_assert(io->op == VOLUME_FLUSH || io->len_bytes > 0);
	if (io->op != VOLUME_READ && io->op != VOLUME_WRITE)
		return;
	quarry_assert(io->len_bytes <= VOLUME_IO_BYTES_MAX && io->n_iov >= 1 && io->n_iov <= 64);
	for (uint32_t i = 0; i < io->n_iov; i++) {
		quarry_assert((uintptr_t)io->iov[i].iov_base % SECTOR_BYTES == 0);
		total_bytes += io->iov[i].iov_len;
	}
	quarry_assert(total_bytes == io->len_bytes);
}

static void carry_out(struct volume *v, struct volume_io *io)
{
	uint64_t pos_bytes = io->pos_bytes;

	io->n_extents = 0;
	if (io->op == VOLUME_MAP)
		content_map(v, io);
	if (v->is_null)
		return;
	if (io->op == VOLUME_TRIM || io->op == VOLUME_ZERO)
		content_zero(v, io->pos_bytes, io->len_bytes, io->flags & VOLUME_NO_HOLE);
	if (io->op != VOLUME_READ && io->op != VOLUME_WRITE)
		return;
	for (uint32_t i = 0; i < io->n_iov; i++) {
		uint8_t *data = io->iov[i].iov_base;
		bool reads = io->op == VOLUME_READ;
		content_copy(v, pos_bytes, reads ? data : NULL, reads ? NULL : data, io->iov[i].iov_len);
		pos_bytes += io->iov[i].iov_len;
	}
}

static int wanted_result(const struct volume *v, const struct volume_io *io)
{
	if (v->is_detached)
		return -ESHUTDOWN;
	if (io->pos_bytes + io->len_bytes > v->size_bytes) /* it was checked by who sent it, and has shrunk since */
		return -EINVAL;
	if (io->op == VOLUME_ZERO && (io->flags & VOLUME_FAST_ZERO) && (io->flags & VOLUME_NO_HOLE))
		return -ENOTSUP;
	uint64_t at = v->fail_at[io->op];
	bool touches = at == UINT64_MAX || (at >= io->pos_bytes && at < io->pos_bytes + io->len_bytes);
	if (touches && v->fail[io->op] == -EBADMSG && !(io->flags & VOLUME_SHARED))
		return 0; /* nobody else wrote to this memory */
	return touches ? v->fail[io->op] : 0;
}

static void make_ready(struct volume *v, struct volume_io *io)
{
	list_append(&v->ready, &io->own.link);
	if (v->op.kind == OP_NONE)
		reactor_defer(v->set->reactor, &v->op, 0);
}

void volume_submit(struct volume *v, struct volume_io *io)
{
	check_io(v, io);
	v->counts.ops[io->op]++;
	v->counts.in_flight++;
	v->counts.n_fua += (io->flags & VOLUME_FUA) != 0;
	v->counts.n_no_hole += (io->flags & VOLUME_NO_HOLE) != 0;
	v->counts.n_fast_zero += (io->flags & VOLUME_FAST_ZERO) != 0;
	v->counts.last_pos_bytes = io->pos_bytes;
	v->counts.last_len_bytes = io->len_bytes;
	io->own.err = wanted_result(v, io);
	if (io->own.err == 0)
		carry_out(v, io);
	if (v->holds)
		list_append(&v->held, &io->own.link);
	else
		make_ready(v, io);
}

static void deliver(struct op *op, int res)
{
	struct volume *v = container_of(op, struct volume, op);
	struct list now;

	(void)res;
	list_init(&now);
	list_splice(&now, &v->ready);
	for (struct list *node; (node = list_pop(&now)) != NULL;) {
		struct volume_io *io = container_of(node, struct volume_io, own.link);
		v->counts.in_flight--;
		io->done(io, io->own.err);
	}
}

/* ---- what frontends ask ---- */

struct volume *volume_get(struct volume_set *set, const char *name)
{
	for (uint32_t i = 0; i < set->n_volumes; i++) {
		struct volume *v = &set->volumes[i];
		if (strcmp(v->name, name) == 0 && !v->is_detached) {
			v->counts.references++;
			return v;
		}
	}
	return NULL;
}

void volume_put(struct volume *v)
{
	quarry_assert(v->counts.references > 0);
	v->counts.references--;
}

const char *volume_name(const struct volume *v)
{
	return v->name;
}
uint64_t volume_snapshot_number(const struct volume *v)
{
	return v->snapshot_number;
}

const struct uuid *volume_uuid(const struct volume *v)
{
	return &v->uuid;
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

void volume_each_export(struct volume_set *set, void (*each)(struct volume *v, void *context), void *context)
{
	for (uint32_t i = 0; i < set->n_volumes; i++)
		if (!set->volumes[i].is_detached)
			each(&set->volumes[i], context);
}

/* The only base is "s1": the first half of what is asked for has changed since then. */
struct volume_base {
	struct volume *volume;
	struct op op;
	struct volume_changes *changes;
};

int volume_base_open(struct volume *v, const char *since, struct volume_base **out)
{
	struct volume_base *b = strcmp(since, "s1") == 0 ? calloc(1, sizeof(*b)) : NULL;
	if (!b)
		return -ENOENT;
	b->volume = v;
	*out = b;
	return 0;
}

void volume_base_close(struct volume_base *b)
{
	quarry_assert(!b->changes);
	free(b);
}

void volume_each_base(struct volume *v, void (*each)(const char *name, void *context), void *context)
{
	if (v->is_read_only)
		each("s1", context);
	for (uint32_t i = 0; i < v->n_bases; i++) {
		char name[16];
		snprintf(name, sizeof(name), "base-%u", i);
		each(name, context);
	}
}

static void fake_changes_turn(struct op *op, int res)
{
	struct volume_base *b = container_of(op, struct volume_base, op);
	struct volume_changes *c = b->changes;
	uint64_t half = c->len_bytes / 2;
	b->changes = NULL;
	c->n_extents = c->extents_max > 1 && half > 0 && half < c->len_bytes ? 2 : 1;
	c->extents[0] = (struct volume_extent){.len_bytes = half ? half : c->len_bytes, .is_changed = true};
	if (c->n_extents == 2)
		c->extents[1] = (struct volume_extent){.len_bytes = c->len_bytes - half};
	c->done(c, 0);
}

void volume_changes_submit(struct volume_changes *c)
{
	struct volume_base *b = c->base;
	quarry_assert(!b->changes && c->scratch && c->extents_max > 0 && c->len_bytes > 0);
	b->changes = c;
	op_init(&b->op, fake_changes_turn);
	reactor_defer(b->volume->set->reactor, &b->op, 0);
}

/* Every volume here is attached over both frontends. */
void volume_each_door(struct volume_set *set, void (*each)(struct volume *v, void *context), void *context)
{
	volume_each_export(set, each, context);
}

void volume_set_doors(struct volume_set *set, struct volume_doors *doors) {}

uint32_t volume_vhost_queues(const struct volume *v)
{
	return 4;
}

void volume_hold(struct volume *v)
{
	quarry_assert(!v->is_detached);
	v->counts.references++;
}

void volume_watch_start(struct volume *v, struct volume_watch *w)
{
	quarry_assert(v->counts.references > 0);
	v->counts.watches++;
	list_append(&v->watches, &w->link);
}

void volume_watch_stop(struct volume *v, struct volume_watch *w)
{
	quarry_assert(v->counts.watches > 0);
	v->counts.watches--;
	list_remove(&w->link);
}

/* ---- what tests ask ---- */

struct volume_set *fake_set_create(struct reactor *r)
{
	struct volume_set *set = calloc(1, sizeof(*set));

	quarry_assert(set != NULL);
	set->reactor = r;
	return set;
}

void fake_set_destroy(struct volume_set *set)
{
	for (uint32_t i = 0; i < set->n_volumes; i++) {
		struct volume *v = &set->volumes[i];
		quarry_assert(v->counts.references == 0 && v->counts.in_flight == 0 && v->counts.watches == 0);
		for (uint64_t b = 0; v->blocks && b < v->n_blocks; b++)
			free(v->blocks[b]);
		free(v->blocks);
	}
	free(set);
}

struct volume *fake_volume_add(struct volume_set *set, const struct fake_options *o)
{
	quarry_assert(set->n_volumes < FAKE_VOLUMES && strlen(o->name) < sizeof(set->volumes[0].name));
	struct volume *v = &set->volumes[set->n_volumes++];
	v->set = set;
	memcpy(v->name, o->name, strlen(o->name) + 1);
	v->uuid = uuid_make(1, set->n_volumes);
	v->size_bytes = v->largest_bytes = o->size_bytes;
	v->is_read_only = o->is_read_only;
	v->is_null = o->is_null;
	v->snapshot_number = o->snapshot_number;
	v->n_bases = o->n_bases;
	v->n_blocks = (o->size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
	if (!v->is_null) {
		v->blocks = calloc(v->n_blocks + 1, sizeof(*v->blocks));
		quarry_assert(v->blocks != NULL);
	}
	list_init(&v->ready);
	list_init(&v->held);
	list_init(&v->watches);
	op_init(&v->op, deliver);
	return v;
}

void fake_volume_fail(struct volume *v, enum volume_op op, int res)
{
	fake_volume_fail_at(v, op, UINT64_MAX, res);
}

void fake_volume_fail_at(struct volume *v, enum volume_op op, uint64_t pos_bytes, int res)
{
	v->fail[op] = res;
	v->fail_at[op] = pos_bytes;
}

void fake_volume_hold(struct volume *v, bool holds)
{
	v->holds = holds;
}

uint32_t fake_volume_n_held(const struct volume *v)
{
	uint32_t n = 0;
	list_each (node, &v->held)
		n++;
	return n;
}

void fake_volume_let_go(struct volume *v, uint32_t index)
{
	list_each_safe (node, &v->held) {
		if (index-- > 0)
			continue;
		list_remove(node);
		make_ready(v, container_of(node, struct volume_io, own.link));
		return;
	}
	quarry_assert(!"a request of this index is held");
}

static void tell(struct volume *v, enum volume_event e)
{
	list_each_safe (node, &v->watches) {
		struct volume_watch *w = container_of(node, struct volume_watch, link);
		w->event(w, e);
	}
}

void fake_volume_resize(struct volume *v, uint64_t size_bytes)
{
	quarry_assert(size_bytes <= v->n_blocks * BLOCK_BYTES);
	v->size_bytes = size_bytes;
	v->largest_bytes = max_u64(v->largest_bytes, size_bytes);
	tell(v, VOLUME_RESIZED);
}

void fake_volume_detach(struct volume *v)
{
	v->is_detached = true;
	tell(v, VOLUME_DETACHING);
}

void fake_volume_peek(struct volume *v, uint64_t pos_bytes, void *data, uint64_t len_bytes)
{
	content_copy(v, pos_bytes, data, NULL, len_bytes);
}

void fake_volume_poke(struct volume *v, uint64_t pos_bytes, const void *data, uint64_t len_bytes)
{
	content_copy(v, pos_bytes, NULL, data, len_bytes);
}

bool fake_volume_is_data(const struct volume *v, uint64_t pos_bytes)
{
	return v->blocks[pos_bytes / BLOCK_BYTES] != NULL;
}

struct fake_counts fake_volume_counts(const struct volume *v)
{
	return v->counts;
}
