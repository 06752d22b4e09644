/*
 * sim_blocks.c: the blocks of a simulated file: durable contents, the versions written since, and what a power loss
 * makes of them. The fault model stands at the top of sim_disk.c.
 *
 * Invariants
 *  1. A block's versions are a list from the oldest to the newest; only the newest may be in flight.
 *  2. A block is in its file's volatile_blocks exactly while it has versions.
 *  3. Each content belongs to one version or is one durable content; it is never shared.
 */
#include "tests/sim/sim_file.h"

#define SECTORS_PER_BLOCK (BLOCK_BYTES / SECTOR_BYTES)
#define TABLE_SIZE_FIRST  256u /* a power of two */

/* ---- blocks ---- */

static uint64_t table_slot(const struct sim_file *f, uint64_t number)
{
	uint64_t slot = number * 0x9e3779b97f4a7c15ull >> 20;

	for (;; slot++) {
		struct sim_block *b = f->table[slot & (f->table_size - 1)];
		if (b == NULL || b->number == number)
			return slot & (f->table_size - 1);
	}
}

struct sim_block *block_find(const struct sim_file *f, uint64_t number)
{
	return f->table[table_slot(f, number)];
}

void blocks_grow(struct sim_file *f)
{
	struct sim_block **old = f->table;
	uint64_t old_size = f->table_size;

	f->table_size = old_size ? old_size * 2 : TABLE_SIZE_FIRST;
	f->table = calloc(f->table_size, sizeof(*f->table));
	quarry_assert(f->table != NULL);
	for (uint64_t i = 0; i < old_size; i++) {
		if (old[i] != NULL)
			f->table[table_slot(f, old[i]->number)] = old[i];
	}
	free(old);
}

struct sim_block *block_make(struct sim_file *f, uint64_t number)
{
	if (f->n_blocks * 2 >= f->table_size)
		blocks_grow(f);
	uint64_t slot = table_slot(f, number);
	if (f->table[slot] != NULL)
		return f->table[slot];
	struct sim_block *b = calloc(1, sizeof(*b));
	quarry_assert(b != NULL);
	b->number = number;
	list_init(&b->volatile_link);
	f->n_blocks++;
	return f->table[slot] = b;
}

uint8_t *content_copy(const uint8_t *content)
{
	uint8_t *copy = malloc(BLOCK_BYTES);

	quarry_assert(copy != NULL);
	if (content != NULL)
		memcpy(copy, content, BLOCK_BYTES);
	else
		memset(copy, 0, BLOCK_BYTES);
	return copy;
}

/* The content after the newest delivered write; NULL: zeros. */
const uint8_t *block_settled(const struct sim_block *b)
{
	const uint8_t *content = b->durable;

	for (const struct sim_version *v = b->oldest; v != NULL && v->completion != 0; v = v->newer)
		content = v->data;
	return content;
}

/* The content with the write in flight. */
const uint8_t *block_newest(const struct sim_block *b)
{
	return b->newest != NULL ? b->newest->data : b->durable;
}

struct sim_version *version_add(struct sim_file *f, struct sim_block *b, uint8_t *data)
{
	struct sim_version *v = calloc(1, sizeof(*v));

	quarry_assert(v != NULL);
	quarry_assert(!block_is_in_flight(b)); /* A */
	v->data = data;
	if (b->newest != NULL)
		b->newest->newer = v;
	else
		b->oldest = v;
	b->newest = v;
	if (!list_is_linked(&b->volatile_link))
		list_append(&f->volatile_blocks, &b->volatile_link);
	return v;
}

static void version_free(struct sim_version *v)
{
	free(v->data);
	free(v);
}

/* The write in flight did not land. */
void version_drop_newest(struct sim_block *b)
{
	struct sim_version *before = NULL, *last = b->newest;

	quarry_assert(block_is_in_flight(b));
	for (struct sim_version *v = b->oldest; v != last; v = v->newer)
		before = v;
	b->newest = before;
	if (before != NULL) {
		before->newer = NULL;
	} else {
		b->oldest = NULL;
		list_remove(&b->volatile_link);
	}
	version_free(last);
}

/* The oldest version becomes the durable content. */
void version_settle_oldest(struct sim_block *b)
{
	struct sim_version *v = b->oldest;

	quarry_assert(v != NULL);
	free(b->durable);
	b->durable = v->data;
	v->data = NULL;
	b->oldest = v->newer;
	if (b->oldest == NULL) {
		b->newest = NULL;
		list_remove(&b->volatile_link);
	}
	version_free(v);
}

void block_drop_versions(struct sim_block *b)
{
	for (struct sim_version *v = b->oldest, *newer; v != NULL; v = newer) {
		newer = v->newer;
		version_free(v);
	}
	b->oldest = b->newest = NULL;
	list_remove(&b->volatile_link);
}

void block_free(struct sim_block *b)
{
	block_drop_versions(b);
	free(b->durable);
	free(b);
}

/* A mix of two contents by sectors, some of which may be garbage. */
void content_tear(struct sim *s, uint8_t *content, const uint8_t *other, bool has_garbage)
{
	for (uint32_t i = 0; i < SECTORS_PER_BLOCK; i++) {
		uint8_t *sector = content + i * SECTOR_BYTES;
		uint64_t chance = sim_random(s);
		if (has_garbage && chance % 4 == 0) {
			for (uint32_t k = 0; k < SECTOR_BYTES; k += 8, chance = sim_random(s))
				memcpy(sector + k, &chance, 8);
		} else if (chance % 2 == 0) {
			if (other != NULL)
				memcpy(sector, other + i * SECTOR_BYTES, SECTOR_BYTES);
			else
				memset(sector, 0, SECTOR_BYTES);
		}
	}
}

void content_flip(uint8_t *content, uint32_t bit)
{
	content[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/* ---- power loss ---- */

/* Power loss: the block keeps one of its contents. `newest_ppm` of all keep the newest, `durable_ppm` the durable one,
 * the others any. */
static void block_lose_power(struct sim_file *f, struct sim_block *b, uint32_t newest_ppm, uint32_t durable_ppm)
{
	struct sim *s = f->machine->sim;
	const struct sim_version *kept = b->newest;
	const uint8_t *before = b->durable;
	uint64_t n = 0;

	for (const struct sim_version *v = b->oldest; v != NULL; v = v->newer)
		n++;
	uint64_t keep = sim_chance(s, newest_ppm) ? n : sim_chance(s, durable_ppm) ? 0 : sim_below(s, n + 1);
	f->stats.lost_blocks += keep < n;
	if (keep > 0) {
		kept = b->oldest;
		for (uint64_t i = 1; i < keep; i++, kept = kept->newer)
			before = kept->data;
		uint8_t *content = content_copy(kept->data);
		if (sim_chance(s, f->faults.torn_ppm)) {
			content_tear(s, content, before, sim_below(s, 2) == 0);
			f->stats.torn_blocks++;
		}
		free(b->durable);
		b->durable = content;
	}
	block_drop_versions(b);
}

void file_lose_power(struct sim_file *f)
{
	/* How much the device's cache had written by itself: nothing, all, or chance. */
	static const struct {
		uint32_t newest_ppm, durable_ppm;
	} tempers[] = {{0, 0}, {0, 0}, {0, 1000000}, {1000000, 0}, {900000, 500000}, {50000, 950000}};
	uint64_t temper = sim_below(f->machine->sim, array_size(tempers));

	list_each_safe (node, &f->volatile_blocks) {
		block_lose_power(f, container_of(node, struct sim_block, volatile_link), tempers[temper].newest_ppm,
				 tempers[temper].durable_ppm);
	}
	quarry_assert(list_is_empty(&f->volatile_blocks));
}
