/*
 * test_disk_check.c: the offline check finds every breakage, names it, and finds nothing on a sound disk.
 *
 * Disks are made by hand (disk_image.h), with one thing wrong each under right checksums; and with single bits flipped
 * in every block in use.
 */
#include "tests/unit/disk_image.h"
#include "volumes/disk/disk.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdio.h>

#define TEXT_BYTES (256 * KIB)

struct bench {
	struct disk_check check;
	struct image *image;
	uint64_t unreadable; /* block; 0: none */
	int error;           /* what reading it returns */
	char *text;          /* everything said */
	size_t len;
	unsigned n_lines;
};

static int bench_read(void *context, uint64_t block, void *out)
{
	struct bench *b = context;

	CU_ASSERT_TRUE_FATAL(block < b->check.n_blocks);
	if (block == b->unreadable && block != 0)
		return b->error;
	memcpy(out, image_block(b->image, block), BLOCK_BYTES);
	return 0;
}

static void bench_say(void *context, const char *line)
{
	struct bench *b = context;

	CU_ASSERT_PTR_NULL(strchr(line, '\n'));
	if (b->len + strlen(line) + 2 < TEXT_BYTES)
		b->len += (size_t)snprintf(b->text + b->len, TEXT_BYTES - b->len, "%s\n", line);
	b->n_lines++;
}

static struct bench bench_make(enum broken broken)
{
	struct bench b = {.image = image_make(broken), .text = calloc(1, TEXT_BYTES), .error = -EIO};

	b.check.n_blocks = b.image->n_blocks;
	return b;
}

static int bench_run(struct bench *b)
{
	b->check.read = bench_read;
	b->check.say = bench_say;
	b->check.context = b;
	b->len = b->n_lines = 0;
	b->text[0] = '\0';
	return disk_check_run(&b->check);
}

static void bench_free(struct bench *b)
{
	image_free(b->image);
	free(b->text);
}

/* ---- a sound disk ---- */

static void sound_disk_is_sound(void)
{
	struct bench b = bench_make(BROKEN_NOTHING);

	b.check.is_verbose = true;
	CU_ASSERT_EQUAL(bench_run(&b), 0);
	CU_ASSERT_EQUAL(b.check.errors, 0);
	CU_ASSERT_EQUAL(b.check.warnings, 0);
	CU_ASSERT_EQUAL(b.check.trees, 6);
	CU_ASSERT_EQUAL(b.check.pages,
			8); /* two roots and two leaves A, leaf B, the small root, the dying root and leaf */
	CU_ASSERT_EQUAL(b.check.data_blocks, 10 + 1 + 4 + 3 + 2);
	CU_ASSERT_EQUAL(b.check.journal_blocks_to_replay, IMAGE_END - IMAGE_REPLAY);
	CU_ASSERT_FALSE(b.check.is_clean);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "flushed up to 201 of 203; 1 were not complete"));
	if (b.check.errors + b.check.warnings > 0)
		puts(b.text);
	b.check.is_verbose = false;
	CU_ASSERT_EQUAL(bench_run(&b), 0);
	CU_ASSERT_EQUAL(b.n_lines, 0);
	bench_free(&b);
}

static void new_disk_is_sound(void)
{
	struct bench b = bench_make(BROKEN_NOTHING);
	struct superblock sb = {.disk = image_uuid(1),
				.checkpoint = 1,
				.n_blocks = IMAGE_BLOCKS,
				.replay_from = 1,
				.journal_blocks = journal_blocks_for(IMAGE_BLOCKS),
				.is_clean = true};

	memset(b.image->blocks, 0, b.image->n_blocks * BLOCK_BYTES);
	superblock_encode(&sb, image_block(b.image, superblock_slot_block(1)));
	superblock_encode(&sb, image_block(b.image, superblock_slot_block(3)));
	CU_ASSERT_EQUAL(bench_run(&b), 0);
	CU_ASSERT_EQUAL(b.n_lines, 0);
	CU_ASSERT_TRUE(b.check.is_clean);
	bench_free(&b);
}

/* ---- one thing wrong ---- */

static const struct {
	enum broken broken;
	unsigned errors, warnings;
	const char *finding, *also; /* what the lines must hold */
} breakages[] = {
    {BROKEN_LEAF_EPOCH, 4, 0, "block 1280: epoch 4 is above the 3", "resync would miss"},
    {BROKEN_TOMBSTONE_EPOCH, 2, 0, "epoch 9 is above the 4", "volume 01112233-4455-0000-0000-000000000000 tree 2"},
    {BROKEN_HOLE_CHECKSUM, 2, 0, "block 21: a hole has a checksum", "tree 1"},
    {BROKEN_DATA_OUTSIDE, 2, 0, "block 30: its data would be in disk block 8192", "outside the data area"},
    {BROKEN_DATA_IN_JOURNAL, 2, 0, "block 30: its data would be in disk block 35", "outside the data area"},
    {BROKEN_DATA_CHECKSUM, 2, 0, "tree 1 block 5 (byte 20480): the data in disk block", "does not match its checksum"},
    {BROKEN_DATA_IS_PAGE, 2, 0, "tree 1: the page of blocks 1280 to 1535", "is also used as data"},
    {BROKEN_PAGE_CHECKSUM, 2, 1, "the page of blocks 1280 to 1535 (1 MiB)", "lost on this disk"},
    {BROKEN_PAGE_OUTSIDE, 2, 0, "block 2304: its page would be in disk block 3", "outside the data area"},
    {BROKEN_PAGE_AT_TWO_HEIGHTS, 1, 0, "is also used as a leaf page", "tree 4"},
    {BROKEN_PAGE_PRIVATE_YET_SHARED, 1, 0, "a write to one would change the others", "is the page of blocks 0 to 255"},
    {BROKEN_COUNT_ZERO, 1, 0, "in use by 2 pointers but counted as free", "is block 5 of volume"},
    {BROKEN_COUNT_LOW, 1, 0, "its count is 1 but 2 pointers name it", "is block 5 of volume"},
    {BROKEN_COUNT_HIGH, 1, 0, "leak: its count is 3 but 2 pointers name it", "is block 5 of volume"},
    {BROKEN_COUNT_LEAKED, 1, 0, "disk blocks 2520 to 2522: leak", "12 KiB cannot be used"},
    {BROKEN_COUNT_OUTSIDE, 1, 0, "disk block 37 has a count of 1", "no block that is counted"},
    {BROKEN_COUNT_PAGE_CHECKSUM, 1, 0, "counts of disk blocks 0 to 2047", "no data is lost"},
    {BROKEN_INDEX_FREE_HIGH, 1, 0, "2049 are said to be free, but 2048 are", "more free space"},
    {BROKEN_INDEX_FREE_LOW, 0, 1, "2047 are said to be free, but 2048 are", "warning"},
    {BROKEN_INDEX_CHECKSUM, 1, 0, "count index, slots from 0 on", "does not match"},
    {BROKEN_INDEX_PAST_END, 1, 0, "count index: slot 4 is used", "ends at 4"},
    {BROKEN_DELTA_ORDER, 1, 0, "delta log: entry 4", "not in order"},
    {BROKEN_DELTA_OUTSIDE, 1, 0, "changes the count of disk block 8193", "which has none"},
    {BROKEN_DELTA_NEGATIVE, 1, 0, "would have the count -1", "delta log"},
    {BROKEN_DELTA_WAS_ZERO, 1, 0, "said to have had no count", "its count page says 1"},
    {BROKEN_DELTA_IS_ZERO, 1, 0, "said to be free now", "goes from 1 to 2"},
    {BROKEN_DELTA_TAIL, 1, 0, "holds entries past the end", "delta log"},
    {BROKEN_DELTA_POINTERS, 1, 0, "names a block past the end", "delta log"},
    {BROKEN_DELTA_CHECKSUM, 1, 0, "delta log: entries 512 to 521", "counts are not known"},
    {BROKEN_DELTA_PAGE_CHECKSUM, 1, 0, "delta log: its page of pointers", "counts are not known"},
    {BROKEN_TREE_TWICE, 1, 0, "volume 02112233-4455-0000-0000-000000000000 tree 3 is in slots 2 and 5", "chance"},
    {BROKEN_TREE_RECORD_CHECKSUM, 1, 0, "table of trees, slot 5", "a tree is lost on this disk"},
    {BROKEN_TREE_RECORD_WRONG, 1, 0, "slot 5: the record in disk block", "is no tree record"},
    {BROKEN_TREE_RECORD_SHARED, 1, 0, "is also used as a record", "table of trees"},
    {BROKEN_TREE_NUMBER, 1, 0, "tree 1 has 14 data blocks, its record says 15", "no data is lost"},
    {BROKEN_TREE_ROOT_OUTSIDE, 1, 0, "tree 6: the page of blocks 0 to 255", "outside the data area"},
    {BROKEN_TREES_CHECKSUM, 1, 1, "table of trees, slots from 0 on", "most likely hide the pointers"},
    {BROKEN_TREES_PAST_END, 1, 0, "table of trees: slot 255 is used", "ends at 255"},
    {BROKEN_SLOT_CHECKSUM, 1, 0, "table of trees, slot 200", "an empty slot has a checksum"},
    {BROKEN_VOLUME_TWICE, 1, 0, "volume 01112233-4455-0000-0000-000000000000 has two records", "slots 0 and 1"},
    {BROKEN_VOLUME_RECORD_CHECKSUM, 1, 0, "table of volumes, slot 1", "fence of a volume is lost"},
    {BROKEN_VOLUME_RECORD_WRONG, 1, 0, "table of volumes, slot 1", "is no volume record"},
    {BROKEN_JOURNAL_FLUSHED_GONE, 1, 0, "sequence 204 is missing, but a later one says that it was flushed",
     "another replica"},
    {BROKEN_JOURNAL_COMPLETED_GONE, 0, 1, "sequence 204 is missing, but 268 is there", "never flushed"},
    {BROKEN_JOURNAL_CHECKPOINT, 1, 0, "knows of checkpoint 7, but the newest superblock is of 6", "back in time"},
    {BROKEN_JOURNAL_MISPLACED, 1, 0, "disk block 183 holds the journal block with sequence 150", "misdirected"},
    {BROKEN_JOURNAL_FLUSHED_DATA, 1, 0, "sequence 200: the data of volume 01112233", "blocks 100 to 102 were flushed"},
    {BROKEN_JOURNAL_FLUSHED_SUM, 1, 0, "sequence 200", "do not match their record"},
    {BROKEN_JOURNAL_TAKES_USED, 1, 0, "sequence 200", "which is in use (data)"},
    {BROKEN_JOURNAL_TAKES_TWICE, 1, 0, "sequence 200", "which is in use (data of the journal)"},
    {BROKEN_JOURNAL_OUTSIDE, 1, 0, "block 102 in disk block 32", "outside the data area"},
    {BROKEN_JOURNAL_NO_TREE, 1, 0, "a record of type 1 for slot 77 does not fit", "no live tree"},
    {BROKEN_JOURNAL_DYING_TREE, 1, 0, "a record of type 1 for slot 4 does not fit", "no live tree"},
    {BROKEN_JOURNAL_SLOT_IN_USE, 2, 0, "a record of type 3 for slot 4 does not fit", "slot of its new tree"},
    {BROKEN_JOURNAL_TWO_LEAVES, 1, 0, "a record of type 2 for slot 0 does not fit", "inside one leaf"},
    {BROKEN_JOURNAL_HOLES_TWO_LEAVES, 1, 0, "a record of type 12 for slot 0 does not fit", "inside one leaf"},
    {BROKEN_JOURNAL_SWAP_ALONE, 1, 0, "a record of type 7 for slot 6 does not fit", "no other live tree"},
    {BROKEN_JOURNAL_SWAP_FOREIGN, 1, 0, "a record of type 7 for slot 6 does not fit", "another volume's"},
    {BROKEN_JOURNAL_AFTER_CLEAN, 1, 0, "a record of type 1 for slot 2 does not fit", "the disk was closed"},
    {BROKEN_JOURNAL_NO_VOLUME, 1, 0, "a record of type 9 for slot 1 does not fit", "does not belong to its volume"},
    {BROKEN_JOURNAL_OTHER_VOLUME, 2, 0, "a record of type 8 for slot 1 does not fit", "belongs to another volume"},
};

static void every_breakage_is_named(void)
{
	bool is_covered[BROKEN_JOURNAL_OTHER_VOLUME + 1] = {[BROKEN_NOTHING] = true};

	for (size_t i = 0; i < array_size(breakages); i++) {
		struct bench b = bench_make(breakages[i].broken);
		int res = bench_run(&b);
		bool is_right = res == (breakages[i].errors ? -EUCLEAN : 0) && b.check.errors == breakages[i].errors &&
				b.check.warnings == breakages[i].warnings && strstr(b.text, breakages[i].finding) &&
				strstr(b.text, breakages[i].also);
		CU_ASSERT_TRUE(is_right);
		if (!is_right)
			printf("\nbreakage %zu (\"%s\"): %d, %u errors, %u warnings:\n%s\n", i, breakages[i].finding,
			       res, (unsigned)b.check.errors, (unsigned)b.check.warnings, b.text);
		is_covered[breakages[i].broken] = true;
		bench_free(&b);
	}
	for (size_t i = 0; i < array_size(is_covered); i++)
		CU_ASSERT_TRUE(is_covered[i]);
}

/* ---- flipped bits ---- */

/* Is the block part of what the check looks at, so that any bit of it matters? */
static bool is_in_use(const struct image *g, uint64_t block)
{
	if (block < JOURNAL_START)
		return block % SUPERBLOCK_SPACING == 0;
	/* A journal block that is known flushed; a later one that is broken is where the journal ends. */
	if (block < JOURNAL_START + g->superblock.journal_blocks)
		return block >= JOURNAL_START + IMAGE_REPLAY && block <= JOURNAL_START + IMAGE_FLUSHED;
	return g->counts[block] > 0 || block == g->journaled_data - 3;
}

static void every_flipped_bit_is_found(void)
{
	struct bench b = bench_make(BROKEN_NOTHING);
	unsigned n_tried = 0, bit = 17;

	for (uint64_t block = 0; block < b.image->n_blocks; block++) {
		if (!is_in_use(b.image, block))
			continue;
		bit = (bit * 1103515245 + 12345) % (BLOCK_BYTES * 8);
		image_block(b.image, block)[bit / 8] ^= 1u << bit % 8;
		int res = bench_run(&b);
		CU_ASSERT_TRUE(b.check.errors + b.check.warnings > 0);
		CU_ASSERT_EQUAL(res, b.check.errors ? -EUCLEAN : 0);
		if (b.check.errors + b.check.warnings == 0)
			printf("\nnot found: bit %u of block %u\n", bit, (unsigned)block);
		image_block(b.image, block)[bit / 8] ^= 1u << bit % 8;
		n_tried++;
	}
	CU_ASSERT_TRUE(n_tried > 40);
	CU_ASSERT_EQUAL(bench_run(&b), 0); /* all is as before */
	bench_free(&b);
}

static void data_may_be_left_out(void)
{
	struct bench b = bench_make(BROKEN_NOTHING);

	image_block(b.image, b.image->data_block)[7] ^= 1;
	CU_ASSERT_EQUAL(bench_run(&b), -EUCLEAN);
	b.check.skip_data = true;
	CU_ASSERT_EQUAL(bench_run(&b), 0);
	bench_free(&b);
}

static void unreadable_blocks_are_findings(void)
{
	struct bench b = bench_make(BROKEN_NOTHING);
	const uint64_t places[] = {b.image->data_block,
				   b.image->leaf_b,
				   b.image->root_1,
				   pointer_block(b.image->superblock.trees),
				   pointer_block(b.image->superblock.counts),
				   pointer_block(b.image->superblock.deltas),
				   superblock_slot_block(1),
				   JOURNAL_START + 7,
				   JOURNAL_START + IMAGE_REPLAY};

	for (size_t i = 0; i < array_size(places); i++) {
		b.unreadable = places[i];
		b.error = -EIO;
		int res = bench_run(&b);
		CU_ASSERT_TRUE(res == 0 || res == -EUCLEAN);
		CU_ASSERT_TRUE(b.check.errors + b.check.warnings > 0);
		CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "cannot be read"));
		b.error = -EINTR; /* anything else ends the check */
		CU_ASSERT_EQUAL(bench_run(&b), -EINTR);
	}
	bench_free(&b);
}

/* ---- superblocks ---- */

static void superblock_copies_are_told_apart(void)
{
	struct bench b = bench_make(BROKEN_NOTHING);
	uint8_t *slot[SUPERBLOCK_SLOTS];
	struct superblock sb = b.image->superblock;

	for (unsigned i = 0; i < SUPERBLOCK_SLOTS; i++)
		slot[i] = image_block(b.image, superblock_slot_block(i));
	sb.wall_ns = 1;
	superblock_encode(&sb, slot[2]);
	CU_ASSERT_EQUAL(bench_run(&b), -EUCLEAN);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "slot 2 differs from its copy"));
	superblock_encode(&b.image->superblock, slot[2]);
	superblock_encode(&b.image->superblock, slot[3]);
	CU_ASSERT_EQUAL(bench_run(&b), -EUCLEAN);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "slot 3 holds checkpoint 6, which belongs into the other pair"));
	sb.checkpoint = 5;
	sb.disk = image_uuid(99);
	superblock_encode(&sb, slot[3]);
	CU_ASSERT_EQUAL(bench_run(&b), -EUCLEAN);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "slot 3 belongs to another disk"));
	memcpy(slot[3], slot[1], BLOCK_BYTES);
	/* One copy gone: a warning, the disk is usable. Then the checkpoint before must not be taken in its place. */
	memset(slot[0], 0x5a, BLOCK_BYTES);
	CU_ASSERT_EQUAL(bench_run(&b), 0);
	CU_ASSERT_EQUAL(b.check.warnings, 1);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "slot 0 (disk block 0) is not usable"));
	memset(slot[2], 0, BLOCK_BYTES);
	CU_ASSERT_EQUAL(bench_run(&b), -EUCLEAN);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "newer superblocks are lost"));
	bench_free(&b);
}

static void disk_without_superblock_is_none(void)
{
	struct bench b = bench_make(BROKEN_NOTHING);
	struct superblock sb = b.image->superblock;
	uint8_t *slot = image_block(b.image, 0);

	memset(b.image->blocks, 0, JOURNAL_START * BLOCK_BYTES);
	CU_ASSERT_EQUAL(bench_run(&b), -ENODEV);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "no quarry disk"));
	memset(slot, 1, BLOCK_BYTES);
	CU_ASSERT_EQUAL(bench_run(&b), -ENODEV);
	superblock_encode(&sb, slot);
	slot[100] ^= 1;
	CU_ASSERT_EQUAL(bench_run(&b), -EUCLEAN);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "no superblock is left whole"));
	slot[100] ^= 1;
	slot[12] = 2;
	put_le32(slot + 8, 0);
	put_le32(slot + 8, crc32c(0, slot, BLOCK_BYTES));
	CU_ASSERT_EQUAL(bench_run(&b), -ENOTSUP);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "format version 2"));
	b.check.n_blocks = 5; /* less than all slots */
	CU_ASSERT_EQUAL(bench_run(&b), -ENOTSUP);
	bench_free(&b);
}

static void device_that_changed_its_size_is_explained(void)
{
	struct bench b = bench_make(BROKEN_NOTHING);

	b.check.n_blocks = b.image->leaf_b; /* cuts off the leaf and what comes after */
	CU_ASSERT_EQUAL(bench_run(&b), -EUCLEAN);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "its end is missing"));
	bench_free(&b);
	b = bench_make(BROKEN_NOTHING);
	b.image->superblock.n_blocks = DISK_MIN_BLOCKS + 17; /* the rest of the image was added later */
	b.image->superblock.journal_blocks = JOURNAL_MIN_BLOCKS;
	b.image->superblock.trees = b.image->superblock.volumes = b.image->superblock.counts =
	    b.image->superblock.deltas = (struct pointer){0};
	b.image->superblock.n_deltas = 0;
	image_superblocks(b.image);
	memset(image_block(b.image, JOURNAL_START), 0, 256 * BLOCK_BYTES);
	b.check.is_verbose = true;
	CU_ASSERT_EQUAL(bench_run(&b), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "has grown to 32 MiB"));
	bench_free(&b);
}

/* ---- too much ---- */

static void findings_are_bounded(void)
{
	struct bench b = bench_make(BROKEN_NOTHING);
	struct image *g = b.image;
	struct page leaf = {0}, table = {0};
	uint8_t block[BLOCK_BYTES];
	struct tree_record t = {.volume = image_uuid(1), .tree_id = 1, .height = 1, .state = TREE_LIVE};

	for (unsigned i = 0; i < PAGE_POINTERS; i++) /* 256 pointers to one block that matches none */
		leaf.p[i] = pointer_make(i, g->data_block, 0);
	t.root = image_put(g, KIND_PAGE, &leaf, 0);
	tree_record_encode(&t, block);
	table.p[0] = image_put(g, KIND_RECORD, block, 0);
	g->superblock.trees = image_put(g, KIND_PAGE, &table, 0);
	image_superblocks(g);
	CU_ASSERT_EQUAL(bench_run(&b), -EUCLEAN);
	CU_ASSERT_TRUE(b.check.errors > 256);
	CU_ASSERT_TRUE(b.n_lines < 700);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.text, "more findings"));
	bench_free(&b);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("disk check", NULL, NULL);
	CU_add_test(suite, "a sound disk is sound", sound_disk_is_sound);
	CU_add_test(suite, "a new disk is sound", new_disk_is_sound);
	CU_add_test(suite, "every breakage is named", every_breakage_is_named);
	CU_add_test(suite, "every flipped bit is found", every_flipped_bit_is_found);
	CU_add_test(suite, "data may be left out", data_may_be_left_out);
	CU_add_test(suite, "unreadable blocks are findings", unreadable_blocks_are_findings);
	CU_add_test(suite, "superblock copies are told apart", superblock_copies_are_told_apart);
	CU_add_test(suite, "a disk without a superblock is none", disk_without_superblock_is_none);
	CU_add_test(suite, "a device that changed its size is explained", device_that_changed_its_size_is_explained);
	CU_add_test(suite, "findings are bounded", findings_are_bounded);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
