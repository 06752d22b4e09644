/*
 * fuzz_check.c: the offline check on a disk that a script of the input has changed.
 *
 * The disk is that of tests/unit/disk_image.h, made once; each input changes some of its blocks and every change is
 * taken back after. The script is a row of
 *
 *   0 block at n bytes     these bytes come there
 *   1 block at to kind     a pointer to another block of the disk, with its right checksum
 *   2 block at             one 16-byte entry becomes zero
 *   3 block to             a copy of one block over another
 *   4                      all checksums from the data up to the superblocks are made right again
 *   5 block                a superblock's or a journal block's own checksum is made right
 *
 * where `block` is one of those that the disk uses. Whatever they do, the check ends, stays inside the disk, says a
 * bounded number of lines, and its result agrees with its counts.
 */
#include "tests/unit/disk_image.h"
#include "volumes/disk/disk.h"

#include <errno.h>

#define CHANGED_MAX 512u
#define RESEAL_MAX  4096u
#define STEPS_MAX   200u
#define LINES_MAX   1000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
	struct image *image;
	uint64_t used[CHANGED_MAX]; /* blocks worth changing */
	uint32_t n_used;
	uint64_t changed[CHANGED_MAX];
	uint8_t *before; /* what they held */
	uint32_t n_changed, n_resealed, n_lines;
	const uint8_t *data;
	size_t size;
};

/* Made once in a process: it takes longer than a run. */
static struct world *world_get(void)
{
	static struct world *world;

	if (world)
		return world;
	world = calloc(1, sizeof(*world));
	world->image = image_make(BROKEN_NOTHING);
	world->before = malloc((size_t)CHANGED_MAX * BLOCK_BYTES);
	for (uint64_t b = 0; b < world->image->n_blocks && world->n_used < CHANGED_MAX; b++)
		if (!bytes_are_zero(image_block(world->image, b), BLOCK_BYTES))
			world->used[world->n_used++] = b;
	return world;
}

/* The block, to be changed; NULL: too many are. */
static uint8_t *change(struct world *w, uint64_t block)
{
	uint8_t *at = image_block(w->image, block);

	quarry_assert(block < w->image->n_blocks);
	for (uint32_t i = 0; i < w->n_changed; i++)
		if (w->changed[i] == block)
			return at;
	if (w->n_changed == CHANGED_MAX)
		return NULL;
	w->changed[w->n_changed] = block;
	memcpy(w->before + (size_t)w->n_changed++ * BLOCK_BYTES, at, BLOCK_BYTES);
	return at;
}

static void take_back(struct world *w)
{
	for (uint32_t i = 0; i < w->n_changed; i++)
		memcpy(image_block(w->image, w->changed[i]), w->before + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
	w->n_changed = 0;
}

/* ---- the script ---- */

static uint32_t take(struct world *w, unsigned n_bytes)
{
	uint32_t value = 0;

	for (; n_bytes > 0 && w->size > 0; n_bytes--, w->size--)
		value = value << 8 | *w->data++;
	return value;
}

static uint64_t take_block(struct world *w)
{
	return w->used[take(w, 1) % w->n_used];
}

/* Makes the pointers from `p` down right: what they name, they name with its checksum. height 0: not a page. */
static struct pointer reseal(struct world *w, struct pointer p, enum block_kind kind, unsigned height,
			     enum block_kind leaf)
{
	uint64_t block = pointer_block(p);
	uint8_t *at;

	if (block == 0 || block >= w->image->n_blocks || w->n_resealed++ > RESEAL_MAX)
		return p;
	at = change(w, block);
	if (!at)
		return p;
	for (unsigned i = 0; i < PAGE_POINTERS && height > 0; i++) {
		struct pointer child;
		memcpy(&child, at + i * sizeof(child), sizeof(child));
		child = reseal(w, child, height > 1 ? KIND_PAGE : leaf, height - 1, leaf);
		memcpy(at + i * sizeof(child), &child, sizeof(child));
	}
	return pointer_make(block_crc(kind, at), block, pointer_epoch(p));
}

static void reseal_tree(struct world *w, struct pointer record)
{
	struct tree_record t;
	uint64_t block = pointer_block(record);
	uint8_t *at = block < w->image->n_blocks && block != 0 ? change(w, block) : NULL;

	if (!at || tree_record_decode(at, &t) != 0 || t.height == 0)
		return;
	t.root = reseal(w, t.root, KIND_PAGE, t.height, KIND_DATA);
	tree_record_encode(&t, at);
}

static void reseal_all(struct world *w)
{
	struct superblock sb;
	char why[WHY_BYTES];

	w->n_resealed = 0;
	for (unsigned slot = 0; slot < SUPERBLOCK_SLOTS; slot++) {
		uint8_t *block = change(w, superblock_slot_block(slot));
		uint64_t trees;

		if (!block || superblock_decode(block, &sb, why) != SUPERBLOCK_VALID)
			continue;
		trees = pointer_block(sb.trees);
		for (unsigned i = 0; i < 8 && trees != 0 && trees < w->image->n_blocks; i++) {
			struct pointer record;
			memcpy(&record, image_block(w->image, trees) + i * sizeof(record), sizeof(record));
			reseal_tree(w, record);
		}
		sb.trees = reseal(w, sb.trees, KIND_PAGE, table_height(sb.n_tree_slots), KIND_RECORD);
		sb.volumes = reseal(w, sb.volumes, KIND_PAGE, table_height(sb.n_volume_slots), KIND_RECORD);
		sb.counts = reseal(w, sb.counts, KIND_PAGE, table_height(regions_of(sb.n_blocks)), KIND_COUNTS);
		sb.deltas = reseal(w, sb.deltas, KIND_PAGE, 1, KIND_DELTAS);
		if (sb.features_read_only == 0)
			superblock_encode(&sb, block);
	}
}

static void reseal_own(struct world *w, uint64_t block)
{
	uint8_t *at = change(w, block);
	unsigned crc_at = block < JOURNAL_START ? 8 : 4;
	const struct uuid *disk = &w->image->superblock.disk;

	if (!at)
		return;
	put_le32(at + crc_at, 0);
	put_le32(at + crc_at,
		 crc32c(block < JOURNAL_START ? 0 : crc32c(0, disk->bytes, sizeof(disk->bytes)), at, BLOCK_BYTES));
}

static void step_bytes(struct world *w)
{
	uint8_t *at = change(w, take_block(w));
	uint32_t offset = take(w, 2) % BLOCK_BYTES, n = take(w, 1) % 33;

	for (; at && n > 0 && offset < BLOCK_BYTES && w->size > 0; n--)
		at[offset++] = (uint8_t)take(w, 1);
}

static void step_pointer(struct world *w)
{
	static const enum block_kind kinds[] = {KIND_DATA, KIND_PAGE, KIND_COUNTS, KIND_RECORD, KIND_DELTAS};
	uint8_t *at = change(w, take_block(w));
	uint32_t offset = take(w, 1) * sizeof(struct pointer);
	uint64_t to = take_block(w);
	struct pointer p =
	    pointer_make(block_crc(kinds[take(w, 1) % array_size(kinds)], image_block(w->image, to)), to, 1);

	if (at)
		memcpy(at + offset, &p, sizeof(p));
}

static void step(struct world *w)
{
	uint64_t from;
	uint8_t *at;

	switch (take(w, 1) % 6) {
	case 0:
		step_bytes(w);
		break;
	case 1:
		step_pointer(w);
		break;
	case 2:
		at = change(w, take_block(w));
		if (at)
			memset(at + take(w, 1) * sizeof(struct pointer), 0, sizeof(struct pointer));
		break;
	case 3:
		from = take_block(w);
		at = change(w, take_block(w));
		if (at)
			memmove(at, image_block(w->image, from), BLOCK_BYTES);
		break;
	case 4:
		reseal_all(w);
		break;
	case 5:
		reseal_own(w, take_block(w));
		break;
	}
}

/* ---- the check ---- */

static int world_read(void *context, uint64_t block, void *out)
{
	struct world *w = context;

	quarry_assert(block < w->image->n_blocks);
	memcpy(out, image_block(w->image, block), BLOCK_BYTES);
	return 0;
}

static void world_say(void *context, const char *line)
{
	struct world *w = context;

	quarry_assert(line[0] != '\0' && strchr(line, '\n') == NULL);
	quarry_assert(++w->n_lines <= LINES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world *w = world_get();
	struct disk_check c = {.read = world_read, .say = world_say, .context = w, .n_blocks = w->image->n_blocks};
	int res;

	w->data = data;
	w->size = size;
	w->n_lines = 0;
	for (unsigned i = 0; i < STEPS_MAX && w->size > 0; i++)
		step(w);
	c.is_verbose = true;
	res = disk_check_run(&c);
	quarry_assert(res == 0 || res == -EUCLEAN || res == -ENODEV || res == -ENOTSUP);
	quarry_assert((res != 0) == (c.errors > 0));
	quarry_assert(size > 0 || (res == 0 && c.warnings == 0));
	take_back(w);
	return 0;
}
