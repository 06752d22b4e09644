/*
 * test_disk_copy.c: what a copy from another disk asks of a disk: stamps, blocks and holes with epochs of their own, the
 * swap of two trees, the cut of a range; live, and after the journal has been replayed.
 */
#include "tests/unit/one_disk.h"

#define DISK_BYTES  (64 * MIB)
#define CACHE_BYTES (4 * MIB)
#define STAMPS      40u
#define NOTHING     UINT64_MAX /* `before`: nothing there is too new */

struct stamps {
	struct disk_stamp s[STAMPS];
	uint32_t n;
};

static struct stamps stamps_of(struct one_disk *o, struct disk_tree *t, uint64_t first, uint64_t n, uint32_t room)
{
	struct stamps out = {.n = 0};
	CU_ASSERT_EQUAL_FATAL(
	    one_call(
		o,
		(struct disk_io){
		    .op = DISK_STAMPS, .tree = t, .first = first, .n_blocks = n, .stamps = out.s, .stamps_max = room}),
	    0);
	out.n = o->io.n_stamps;
	return out;
}

static void expect_data(const struct stamps *s, uint32_t i, uint64_t first, uint64_t epoch, uint8_t content)
{
	uint8_t block[BLOCK_BYTES];
	memset(block, content, sizeof(block));
	CU_ASSERT_FATAL(i < s->n);
	CU_ASSERT_TRUE(s->s[i].is_data);
	CU_ASSERT_EQUAL(s->s[i].first, first);
	CU_ASSERT_EQUAL(s->s[i].n_blocks, 1);
	CU_ASSERT_EQUAL(s->s[i].epoch, epoch);
	CU_ASSERT_EQUAL(s->s[i].crc, crc32c(0, block, sizeof(block)));
}

static void expect_holes(const struct stamps *s, uint32_t i, uint64_t first, uint64_t n, uint64_t epoch)
{
	CU_ASSERT_FATAL(i < s->n);
	CU_ASSERT_FALSE(s->s[i].is_data);
	CU_ASSERT_EQUAL(s->s[i].first, first);
	CU_ASSERT_EQUAL(s->s[i].n_blocks, n);
	CU_ASSERT_EQUAL(s->s[i].epoch, epoch);
	CU_ASSERT_EQUAL(s->s[i].crc, 0);
}

/* A hole of so many blocks from `first`, all of one epoch, and nothing else there. */
static void expect_hole_at(struct one_disk *o, struct disk_tree *t, uint64_t first, uint64_t n, uint64_t epoch)
{
	struct stamps s = stamps_of(o, t, first, n, STAMPS);
	CU_ASSERT_EQUAL(s.n, 1);
	expect_holes(&s, 0, first, n, epoch);
}

static void expect_block(struct one_disk *o, struct disk_tree *t, uint64_t block, uint64_t epoch, uint8_t content)
{
	struct stamps s = stamps_of(o, t, block, 1, STAMPS);
	expect_data(&s, 0, block, epoch, content);
	o->iov = (struct iovec){o->memory, BLOCK_BYTES};
	struct disk_io io = {.op = DISK_READ, .tree = t, .first = block, .n_blocks = 1, .iov = &o->iov, .n_iov = 1};
	CU_ASSERT_EQUAL(one_call(o, io), 0);
	CU_ASSERT_EQUAL(o->memory[0], content);
	CU_ASSERT_EQUAL(o->memory[BLOCK_BYTES - 1], content);
}

/* Blocks of one content, the epochs growing by one from block to block; bits of `zeros` are holes. */
static int copy(struct one_disk *o, struct disk_tree *t, struct disk_io io, uint64_t epoch, uint8_t content)
{
	static uint64_t epochs[DISK_IO_BLOCKS_MAX];
	CU_ASSERT_FATAL(io.n_blocks <= DISK_IO_BLOCKS_MAX);
	memset(o->memory, content, io.n_blocks * BLOCK_BYTES);
	for (uint32_t i = 0; i < io.n_blocks; i++) {
		o->crcs[i] = block_crc(KIND_DATA, o->memory);
		epochs[i] = epoch + i;
	}
	o->iov = (struct iovec){o->memory, io.n_blocks * BLOCK_BYTES};
	io.op = DISK_COPY;
	io.tree = t;
	io.iov = &o->iov;
	io.n_iov = 1;
	io.crcs = o->crcs;
	io.epochs = epochs;
	return one_call(o, io);
}

static int copy_holes(struct one_disk *o, struct disk_tree *t, uint64_t first, uint64_t n, uint64_t epoch,
		      uint64_t before)
{
	return one_call(
	    o, (struct disk_io){
		   .op = DISK_COPY_HOLES, .tree = t, .first = first, .n_blocks = n, .epoch = epoch, .before = before});
}

static int command(struct one_disk *o, enum disk_op op, struct disk_tree *t, uint64_t id, uint64_t epoch)
{
	return one_call(o, (struct disk_io){.op = op, .tree = t, .tree_id = id, .epoch = epoch});
}

/* The process dies, or the machine; the disk recovers from its journal. */
static void crash(struct one_disk *o, enum sim_crash_kind kind)
{
	sim_crash(o->machine, kind);
	disk_abandon(o->disk);
	one_open_disk(o);
}

/* ---- stamps ---- */

static void stamps_tell(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *t = one_create(&o, 1);
	expect_hole_at(&o, t, 0, 1ull << 40, 0);             /* a tree without a page */
	CU_ASSERT_EQUAL(one_write(&o, t, 10, 2, 0xa1), 0);   /* epoch 2 */
	CU_ASSERT_EQUAL(one_write(&o, t, 11, 1, 0xa2), 0);   /* 3 */
	CU_ASSERT_EQUAL(one_trim(&o, t, 10, 1), 0);          /* 4 */
	CU_ASSERT_EQUAL(one_write(&o, t, 1000, 1, 0xa3), 0); /* 5 */
	struct stamps s = stamps_of(&o, t, 0, 1ull << 40, STAMPS);
	CU_ASSERT_EQUAL(s.n, 6);
	expect_holes(&s, 0, 0, 10, 0);
	expect_holes(&s, 1, 10, 1, 4);
	expect_data(&s, 2, 11, 3, 0xa2);
	expect_holes(&s, 3, 12, 1000 - 12, 0); /* across leaves */
	expect_data(&s, 4, 1000, 5, 0xa3);
	expect_holes(&s, 5, 1001, (1ull << 40) - 1001, 0); /* and to where the tree has no pages */
	s = stamps_of(&o, t, 5, 1000, 3);                  /* ends early when room runs out */
	CU_ASSERT_EQUAL(s.n, 3);
	expect_holes(&s, 0, 5, 5, 0);
	expect_data(&s, 2, 11, 3, 0xa2);
	CU_ASSERT_EQUAL(one_call(&o, (struct disk_io){.op = DISK_STAMPS, .tree = t}), -EINVAL);
	one_close(&o);
}

/* A block is never known as younger than it is, whatever is trimmed beside it, and however the tree grows. */
static void holes_keep_their_epochs(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *t = one_create(&o, 1);
	CU_ASSERT_EQUAL(one_write(&o, t, 0, 4, 1), 0);
	CU_ASSERT_EQUAL(one_write(&o, t, 300, 4, 1), 0);
	uint64_t first = o.epoch + 1;
	CU_ASSERT_EQUAL(one_trim(&o, t, 0, 256), 0);
	CU_ASSERT_EQUAL(one_trim(&o, t, 256, 256), 0); /* nothing is left below the page above */
	struct stamps s = stamps_of(&o, t, 0, 65536, STAMPS);
	CU_ASSERT_EQUAL(s.n, 3);
	expect_holes(&s, 0, 0, 256, first);
	expect_holes(&s, 1, 256, 256, first + 1);
	expect_holes(&s, 2, 512, 65536 - 512, 0);
	struct disk_tree *u = one_create(&o, 2);
	CU_ASSERT_EQUAL(one_write(&o, u, 3, 1, 1), 0);
	CU_ASSERT_EQUAL(one_trim(&o, u, 0, 256), 0); /* the root itself */
	uint64_t trimmed = o.epoch;
	CU_ASSERT_EQUAL(one_write(&o, u, 1 << 20, 1, 1), 0);
	expect_hole_at(&o, u, 0, 256, trimmed);
	expect_hole_at(&o, u, 256, (1 << 20) - 256, 0);
	one_close(&o);
}

/* ---- blocks ---- */

static void copies_keep_epochs(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *t = one_create(&o, 1);
	o.epoch = 100;
	CU_ASSERT_EQUAL(one_write(&o, t, 20, 1, 0xb0), 0); /* epoch 101 */
	struct disk_io io = {.first = 18, .n_blocks = 4, .before = 101, .zero_blocks = 1};
	CU_ASSERT_EQUAL(copy(&o, t, io, 50, 0xb1), -EEXIST);
	expect_hole_at(&o, t, 18, 2, 0); /* nothing of it was made */
	expect_block(&o, t, 20, 101, 0xb0);
	io.before = 102;
	CU_ASSERT_EQUAL(copy(&o, t, io, 50, 0xb1), 0);
	for (int is_replayed = 0; is_replayed <= 1; is_replayed++) {
		t = one_tree(&o, 1);
		expect_hole_at(&o, t, 18, 1, 50);
		expect_block(&o, t, 19, 51, 0xb1);
		expect_block(&o, t, 20, 52, 0xb1); /* older than what was there: the source says so */
		expect_block(&o, t, 21, 53, 0xb1);
		crash(&o, SIM_KILL);
	}
	t = one_tree(&o, 1);
	CU_ASSERT_EQUAL(copy(&o, t, (struct disk_io){.n_blocks = 1, .before = NOTHING}, EPOCH_MAX + 1, 1), -EINVAL);
	CU_ASSERT_EQUAL(copy(&o, t, (struct disk_io){.n_blocks = 0, .before = NOTHING}, 1, 1), -EINVAL);
	CU_ASSERT_EQUAL(copy_holes(&o, t, 0, DISK_HOLES_BLOCKS_MAX + 1, 1, NOTHING), -EINVAL);
	o.session--;
	CU_ASSERT_EQUAL(copy(&o, t, (struct disk_io){.n_blocks = 1, .before = NOTHING}, 1, 1), -ESTALE);
	CU_ASSERT_EQUAL(copy_holes(&o, t, 0, 1, 1, NOTHING), -ESTALE);
	CU_ASSERT_EQUAL(command(&o, DISK_SWAP, t, 2, 0), -ESTALE);
	CU_ASSERT_EQUAL(one_call(&o, (struct disk_io){.op = DISK_CUT, .n_blocks = 10}), -ESTALE);
	o.session++;
	one_close(&o);
}

/* Why a piece of a live tree is held while it is copied: a trim of a hole leaves no epoch, so `before` does not know of it,
 * and a copy that was read at the source before the trim brings back what was trimmed. */
static void a_trimmed_hole_refuses_nothing(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *t = one_create(&o, 1);
	o.epoch = 100;
	CU_ASSERT_EQUAL(one_trim(&o, t, 5, 1), 0); /* of epoch 101 = r */
	expect_hole_at(&o, t, 5, 1, 0);
	CU_ASSERT_EQUAL(copy(&o, t, (struct disk_io){.first = 5, .n_blocks = 1, .before = 101}, 7, 0xb3), 0);
	expect_block(&o, t, 5, 7, 0xb3);
	one_close(&o);
}

/* Holes that are there already are no change: nothing is written. */
static void known_holes_cost_nothing(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *t = one_create(&o, 1);
	struct disk_io io = {.first = 7, .n_blocks = 1, .before = NOTHING, .zero_blocks = 1};
	CU_ASSERT_EQUAL(copy(&o, t, io, 5, 0), 0);
	expect_hole_at(&o, t, 7, 1, 5);
	CU_ASSERT_EQUAL(copy_holes(&o, t, 1 << 20, 1 << 16, 6, NOTHING), 0);
	uint64_t sequence = o.disk->journal.sequence;
	CU_ASSERT_EQUAL(copy(&o, t, io, 5, 0), 0);
	CU_ASSERT_EQUAL(copy_holes(&o, t, 1 << 20, 1 << 16, 6, NOTHING), 0);
	CU_ASSERT_EQUAL(o.disk->journal.sequence, sequence);
	one_close(&o);
}

/* Into a snapshot, which others share, of an epoch from before its fork. */
static void copies_into_shared_trees(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *live = one_create(&o, 1);
	CU_ASSERT_EQUAL(one_write(&o, live, 0, 64, 0xc1), 0);
	CU_ASSERT_EQUAL(command(&o, DISK_FORK, live, 2, o.epoch), 0);
	struct disk_tree *snapshot = one_tree(&o, 2);
	uint64_t epoch = o.epoch;
	CU_ASSERT_EQUAL(copy(&o, snapshot, (struct disk_io){.first = 3, .n_blocks = 1, .before = NOTHING}, 1, 0xc2), 0);
	CU_ASSERT_EQUAL(copy_holes(&o, snapshot, 10, 2, 1, NOTHING), 0);
	for (int is_replayed = 0; is_replayed <= 1; is_replayed++) {
		live = one_tree(&o, 1);
		snapshot = one_tree(&o, 2);
		expect_block(&o, live, 3, epoch, 0xc1);
		expect_block(&o, live, 10, epoch, 0xc1);
		expect_block(&o, snapshot, 3, 1, 0xc2);
		expect_block(&o, snapshot, 4, epoch, 0xc1);
		expect_hole_at(&o, snapshot, 10, 2, 1);
		crash(&o, SIM_KILL);
	}
	/* replaced again, and by then private: nothing of it may be lost or leak */
	snapshot = one_tree(&o, 2);
	CU_ASSERT_EQUAL(copy(&o, snapshot, (struct disk_io){.first = 3, .n_blocks = 1, .before = NOTHING}, 1, 0xc3), 0);
	expect_block(&o, snapshot, 3, 1, 0xc3);
	expect_block(&o, one_tree(&o, 1), 3, epoch, 0xc1);
	CU_ASSERT_EQUAL(command(&o, DISK_DROP, one_tree(&o, 1), 0, 0), 0);
	expect_block(&o, snapshot, 4, epoch, 0xc1);
	one_close(&o);
}

/* ---- holes ---- */

static void holes_are_made(struct one_disk *o)
{
	struct disk_tree *t = one_create(o, 1);
	o->epoch = 100;
	CU_ASSERT_EQUAL(one_write(o, t, 250, 20, 0xd1), 0); /* 101: the ends of two leaves */
	CU_ASSERT_EQUAL(one_write(o, t, 600, 1, 0xd2), 0);  /* 102 */
	CU_ASSERT_EQUAL(copy_holes(o, t, 252, 1 << 20, 40, 102), 0);
}

static void expect_holes_made(struct one_disk *o)
{
	struct disk_tree *t = one_tree(o, 1);
	expect_block(o, t, 251, 101, 0xd1);
	expect_hole_at(o, t, 252, 600 - 252, 40);
	expect_block(o, t, 600, 102, 0xd2); /* too new */
	expect_hole_at(o, t, 601, (1 << 20) + 252 - 601, 40);
	expect_hole_at(o, t, (1 << 20) + 252, 1 << 20, 0);
}

static void holes_of_an_epoch(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	holes_are_made(&o);
	expect_holes_made(&o);
	crash(&o, SIM_KILL);
	expect_holes_made(&o);
	one_close_disk(&o); /* through a checkpoint */
	one_open_disk(&o);
	expect_holes_made(&o);
	one_close(&o);
}

/* A TiB of holes costs pages by the 256 MiB, not by the MiB, and one page when all have one epoch. */
static void many_holes_cost_little(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *t = one_create(&o, 1);
	for (uint64_t first = 0; first < 1 << 24;
	     first += DISK_HOLES_BLOCKS_MAX) /* all that a page of height 3 covers */
		CU_ASSERT_EQUAL(copy_holes(&o, t, first, DISK_HOLES_BLOCKS_MAX, 9, NOTHING), 0);
	expect_hole_at(&o, t, 0, 1ull << 24, 9);
	CU_ASSERT_TRUE(pointer_is_hole(t->record.root));
	CU_ASSERT_EQUAL(o.disk->pages.n_dirty, 0);
	one_close(&o);
}

/* ---- swap ---- */

static void trees_swap(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *live = one_create(&o, 1);
	CU_ASSERT_EQUAL(one_write(&o, live, 0, 64, 0xe1), 0); /* epoch 2 */
	CU_ASSERT_EQUAL(command(&o, DISK_FORK, live, 9, 50), 0);
	struct disk_tree *fork = one_tree(&o, 9);
	CU_ASSERT_EQUAL(copy(&o, fork, (struct disk_io){.first = 5, .n_blocks = 1, .before = NOTHING}, 30, 0xe2), 0);
	CU_ASSERT_EQUAL(copy(&o, fork, (struct disk_io){.first = 1 << 18, .n_blocks = 1, .before = NOTHING}, 31, 0xe3),
			0);
	CU_ASSERT_EQUAL(command(&o, DISK_SWAP, live, 1, 0), -EINVAL);
	CU_ASSERT_EQUAL(command(&o, DISK_SWAP, live, 77, 0), -ENOENT);
	CU_ASSERT_EQUAL(command(&o, DISK_SWAP, live, 9, 0), 0);
	for (int n_crashes = 0; n_crashes <= 2; n_crashes++) {
		live = one_tree(&o, 1);
		expect_block(&o, live, 5, 30, 0xe2);
		expect_block(&o, live, 1 << 18, 31, 0xe3);
		expect_block(&o, live, 6, 2, 0xe1);
		expect_block(&o, one_tree(&o, 9), 5, 2, 0xe1);
		CU_ASSERT_EQUAL(disk_tree_blocks(live), 65);
		crash(&o, n_crashes == 0 ? SIM_KILL : SIM_POWER_LOSS); /* it was answered: it is durable */
	}
	CU_ASSERT_EQUAL(command(&o, DISK_DROP, one_tree(&o, 9), 0, 0), 0);
	o.epoch = 60;
	live = one_tree(&o, 1);
	CU_ASSERT_EQUAL(one_write(&o, live, 6, 1, 0xe4), 0);
	expect_block(&o, live, 5, 30, 0xe2);
	expect_block(&o, live, 6, 61, 0xe4);
	expect_block(&o, live, 7, 2, 0xe1);
	one_close(&o);
}

/* A swap that was answered is there after any crash: so it is answered only when the data of all earlier records are on
 * the device, for it goes with any of these that recovery drops. */
static void a_swap_waits_for_earlier_data(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *t = one_create(&o, 1);
	CU_ASSERT_EQUAL(command(&o, DISK_FORK, t, 2, 5), 0);
	struct journal *j = &o.disk->journal;
	uint64_t sequence = j->sequence;
	j->window[sequence % JOURNAL_WINDOW].data_owed++; /* as a write whose data are slow */
	CU_ASSERT_EQUAL(command(&o, DISK_COMPLETE, NULL, 0, 5), 0);
	CU_ASSERT(j->complete >= sequence && j->settled < sequence);
	o.io = (struct disk_io){
	    .op = DISK_SWAP, .tree = t, .tree_id = 2, .volume = o.volume, .session = o.session, .done = one_io_done};
	disk_submit(o.disk, &o.io);
	one_let_pass(&o, NS_PER_S);
	CU_ASSERT_FALSE(o.is_done);
	journal_data_done(j, sequence);
	one_wait(&o);
	CU_ASSERT_EQUAL(o.res, 0);
	one_close(&o);
}

/* Neither with what belongs to another volume, nor while one of them is being written to. */
static void swaps_refused(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *t = one_create(&o, 1);
	CU_ASSERT_EQUAL(command(&o, DISK_FORK, t, 2, 5), 0);
	struct disk_tree *other = one_tree(&o, 2);
	other->n_changes++; /* as a write in flight does */
	CU_ASSERT_EQUAL(command(&o, DISK_SWAP, t, 2, 0), -EBUSY);
	CU_ASSERT_EQUAL(command(&o, DISK_SWAP, other, 1, 0), -EBUSY);
	other->n_changes--;
	CU_ASSERT_EQUAL(command(&o, DISK_SWAP, t, 2, 0), 0);
	one_volume(&o, 2);
	struct disk_tree *foreign = one_create(&o, 7);
	CU_ASSERT_EQUAL(command(&o, DISK_SWAP, foreign, 2, 0), -ENOENT);
	one_close(&o);
}

/* ---- cut ---- */

static int cut(struct one_disk *o, uint64_t first, uint64_t n)
{
	return one_call(o, (struct disk_io){.op = DISK_CUT, .first = first, .n_blocks = n});
}

static void a_cut_is_of_all_trees(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *live = one_create(&o, 1);
	CU_ASSERT_EQUAL(one_write(&o, live, 100, 60, 0xf1), 0);
	CU_ASSERT_EQUAL(one_write(&o, live, 2000, 1, 0xf1), 0);
	CU_ASSERT_EQUAL(command(&o, DISK_FORK, live, 2, o.epoch), 0);
	CU_ASSERT_EQUAL(one_write(&o, live, 130, 60, 0xf2), 0);
	CU_ASSERT_EQUAL(command(&o, DISK_FORK, live, 3, o.epoch), 0);
	one_volume(&o, 2);
	struct disk_tree *foreign = one_create(&o, 1);
	CU_ASSERT_EQUAL(one_write(&o, foreign, 100, 60, 0xf3), 0);
	uint64_t foreign_epoch = o.epoch;
	one_volume(&o, 1);
	CU_ASSERT_EQUAL(cut(&o, 0, 1 << 18), 0);
	for (int is_replayed = 0; is_replayed <= 1; is_replayed++) {
		for (uint64_t id = 1; id <= 3; id++) {
			struct stamps s = stamps_of(&o, one_tree(&o, id), 0, 1 << 18, STAMPS);
			CU_ASSERT_EQUAL(s.n, 1);
			expect_holes(&s, 0, 0, 1 << 18, 0);
			CU_ASSERT_EQUAL(disk_tree_blocks(one_tree(&o, id)), 0);
		}
		one_volume(&o, 2);
		expect_block(&o, one_tree(&o, 1), 159, foreign_epoch, 0xf3);
		crash(&o, SIM_KILL);
	}
	CU_ASSERT_EQUAL(cut(&o, 0, 1 << 18), 0); /* nothing is left to cut */
	one_close(&o);
}

/* What is beside the range stays. */
static void a_cut_keeps_the_rest(void)
{
	struct one_disk o;
	one_open(&o, DISK_BYTES, CACHE_BYTES);
	struct disk_tree *live = one_create(&o, 1);
	CU_ASSERT_EQUAL(one_write(&o, live, 255, 3, 0xf4), 0);
	CU_ASSERT_EQUAL(cut(&o, 256, 1), 0);
	expect_block(&o, live, 255, o.epoch, 0xf4);
	expect_hole_at(&o, live, 256, 1, 0);
	expect_block(&o, live, 257, o.epoch, 0xf4);
	one_close(&o);
}

/* What a segment leaves goes from the fullest disk, and what takes its place has room then (P7). */
static void a_cut_makes_room(void)
{
	struct one_disk o;
	one_open(&o, 16 * MIB, CACHE_BYTES);
	struct disk_tree *live = one_create(&o, 1);
	uint64_t at = 0;
	while (one_write(&o, live, at, 64, 0xf5) == 0)
		at += 64;
	CU_ASSERT_EQUAL(o.res, -ENOSPC);
	struct disk_io io = {.first = 1 << 20, .n_blocks = 64, .before = NOTHING};
	CU_ASSERT_EQUAL(copy(&o, live, io, 1, 0xf6), -ENOSPC);
	CU_ASSERT_EQUAL(copy_holes(&o, live, 0, 64, 1, NOTHING), 0);
	CU_ASSERT_EQUAL(cut(&o, 0, 1 << 18), 0);
	CU_ASSERT_EQUAL(disk_tree_blocks(live), 0);
	CU_ASSERT_EQUAL(copy(&o, live, io, 1, 0xf6), 0);
	one_close(&o);
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("what a copy asks of a disk", NULL, NULL);
	CU_add_test(suite, "stamps", stamps_tell);
	CU_add_test(suite, "holes keep their epochs", holes_keep_their_epochs);
	CU_add_test(suite, "copies keep their epochs", copies_keep_epochs);
	CU_add_test(suite, "a trimmed hole refuses nothing", a_trimmed_hole_refuses_nothing);
	CU_add_test(suite, "holes that are known cost nothing", known_holes_cost_nothing);
	CU_add_test(suite, "copies into shared trees", copies_into_shared_trees);
	CU_add_test(suite, "holes of an epoch", holes_of_an_epoch);
	CU_add_test(suite, "many holes cost little", many_holes_cost_little);
	CU_add_test(suite, "two trees swap", trees_swap);
	CU_add_test(suite, "a swap waits for earlier data", a_swap_waits_for_earlier_data);
	CU_add_test(suite, "swaps that are refused", swaps_refused);
	CU_add_test(suite, "a cut is of all trees of the volume", a_cut_is_of_all_trees);
	CU_add_test(suite, "a cut keeps the rest", a_cut_keeps_the_rest);
	CU_add_test(suite, "a cut makes room", a_cut_makes_room);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
