/*
 * disk_internal.h: what the files of volumes/disk share: the parts of a disk and who owns what.
 *
 *   disk.c        life: open, close, failure, stats        requests.c   every disk_io: stages and dispatcher
 *   journal.c     records, in-flight window, flush mark    flusher.c    the shared device flush
 *   pages.c       frames of cached pages                   tree.c       pages as trees: walk, change, apply records
 *   space.c       counts, free blocks, allocation          deltas.c     changes of counts outside resident regions
 *   space_cut.c   the space around a checkpoint
 *   table.c       trees of records                         checkpoint.c makes all of it durable at one point
 *   writer.c      data writes of one turn, gathered        recovery.c   the only way to start
 *   drop.c        frees dying trees                        punch.c      gives freed space back below
 *   scrub.c       verifies and straightens trees       scrub_tables.c verifies what checkpoints write beside them
 *
 * One reactor owns everything here; there are no locks. No function but those that say "waits" needs more than one
 * turn.
 */
#pragma once

#include "volumes/disk/disk.h"

/* ---- waiting inside the disk ---- */

/* Wakes all that wait now, in order, at the end of this turn: never inside the change that made it possible. */
void waiters_wake(struct disk *d, struct list *waiters, int res);
void waiter_wake(struct disk *d, struct waiter *w, int res);
/* There is something to do at the end of this turn: the woken run, then data and pages, then the journal are
 * submitted. */
void disk_turn(struct disk *d);

/* ---- pages: frames of the cache ---- */

enum frame_state {
	FRAME_FREE,
	FRAME_LOADING, /* being read; waiters wait */
	FRAME_CLEAN,   /* equals its block; may be evicted */
	FRAME_DIRTY,   /* has no block yet; its virtual block number names this frame */
	FRAME_WRITING, /* sealed: has a block, its write is under way; may not be changed or evicted */
};

/* A page without a block is named by a virtual number: FRAME_BIT | index. It never reaches the disk. */
#define FRAME_BIT (1ull << 47)
_Static_assert(DISK_MAX_BLOCKS <= FRAME_BIT, "virtual block numbers must not be real ones");
static inline bool pointer_is_virtual(struct pointer p)
{
	return pointer_block(p) & FRAME_BIT;
}

struct frame {
	struct page *page;
	struct disk *disk;
	uint64_t block; /* LOADING CLEAN WRITING: where it lies */
	union {
		struct pointer sealed; /* WRITING: the pointer its parents take */
		uint64_t newest;       /* DIRTY: no epoch below is higher */
	};
	uint32_t refs;        /* DIRTY: how many pointers name it (forks share dirty pages too) */
	uint32_t hash_next;   /* index + 1; 0: end */
	uint32_t guard;       /* pages.guard when it was last looked up */
	uint8_t state, level; /* level: 1 = leaf */
	bool is_referenced;   /* used since the clock hand passed */
	bool is_orphan;       /* WRITING: nothing names it any more: free when written */
	bool is_bare;         /* WRITING: only a buffer of a checkpoint (counts, records, tables): free when written */
	uint32_t expected_crc;
	struct list link; /* dirty list of its level, or queue of the page writer */
	struct list waiters;
	struct op op;
	struct iovec iov;
};

struct pages {
	struct disk *disk;
	uint8_t *memory; /* frames_max pages: address space, used as frames are touched */
	size_t memory_bytes;
	struct frame *frames;
	uint32_t n_frames;   /* for pages: the share, and in recovery what the journal's writer had */
	uint32_t n_share;    /* what they are after recovery */
	uint32_t frames_max; /* those above n_frames are lent to checkpoints */
	uint32_t n_touched;  /* frames above were never used */
	uint32_t *heads, heads_mask;
	uint32_t hand, guard;
	struct list free;  /* below n_frames */
	struct list spare; /* above: their memory is given back */
	struct list dirty[TREE_HEIGHT_MAX + 1];
	struct list waiters; /* for a free frame */
	uint32_t n_dirty, n_writing, n_loading, n_cached;
	uint32_t dirty_max;
};

/* How many frames a cache of so many bytes has, and how many of them may be dirty on a disk of n_blocks. */
uint32_t pages_frames_for(uint64_t cache_bytes);
uint32_t pages_dirty_for(uint32_t n_frames, uint64_t n_blocks);
struct pages_size {
	uint32_t n_share, n_frames; /* n_frames: in recovery, at least the share */
	uint32_t n_bare;            /* that a checkpoint may need beside pages */
	uint32_t dirty_max;         /* in recovery */
};
must_check int pages_init(struct pages *p, struct disk *d, const struct pages_size *size);
/* Recovery has ended with a checkpoint: what it had beside the share is given back. */
void pages_settle(struct pages *p, uint32_t dirty_max);
void pages_fini(struct pages *p);
/* From here on, what pages_find() returns is not evicted until the next guard: a record's path stays while it is
 * applied. */
void pages_guard(struct pages *p);
/* The frame of a pointer's page, or NULL when it is not in the cache. */
struct frame *pages_find(struct pages *p, struct pointer pointer);
/* Waits: begins to read the page or joins a read under way; w is woken with 0 or -EIO, and looks again. */
void pages_load(struct pages *p, struct pointer pointer, unsigned level, struct waiter *w);
/* Can n frames be had this turn without waiting? If not and w is given, w waits for it. */
bool pages_have(struct pages *p, uint32_t n, struct waiter *w);
/* The same of bare ones. */
bool pages_have_bare(struct pages *p, uint32_t n, struct waiter *w);
/* A dirty frame with refs 1 and undefined content, which will have no epoch above newest; pages_have() said yes. */
struct frame *pages_new_dirty(struct pages *p, unsigned level, uint64_t newest);
/* A clean frame that nothing shares becomes dirty where it is. */
void pages_dirty_in_place(struct pages *p, struct frame *f, uint64_t newest);
/* A buffer for a checkpoint's other blocks: WRITING, bare, zeroed. */
struct frame *pages_new_bare(struct pages *p);
/* Dirty -> WRITING at `block`, with the pointer its parents take. */
void pages_seal(struct pages *p, struct frame *f, uint64_t block, struct pointer sealed);
/* The page's write is on the device. */
void pages_written(struct pages *p, struct frame *f);
/* Nothing names the frame any more: a dirty one is freed, a clean one forgotten, one being written when written. */
void pages_forget(struct pages *p, struct frame *f);
static inline uint32_t frame_index(const struct pages *p, const struct frame *f)
{
	return (uint32_t)(f - p->frames);
}
static inline struct pointer frame_pointer(const struct pages *p, const struct frame *f)
{
	return pointer_make(0, FRAME_BIT | frame_index(p, f), 0);
}

/* ---- deltas: a map from block to change of count ---- */

struct deltas {
	uint64_t *slots; /* packed as on disk; 0: empty (block 0 is never counted) */
	uint32_t n, mask;
};
must_check int deltas_init(struct deltas *d, uint32_t n_max);
void deltas_fini(struct deltas *d);
bool deltas_get(const struct deltas *d, uint64_t block, struct delta *out);
/* Inserts or replaces; a change of 0 stays: the block was touched. There must be room. */
void deltas_put(struct deltas *d, struct delta delta);
void deltas_remove(struct deltas *d, uint64_t block);
void deltas_clear(struct deltas *d);
/* One entry that says what `old` and the later `d` say together. */
struct delta delta_combine(struct delta old, struct delta d);
#define deltas_each(word, d)                                                                                           \
	for (uint32_t word##_at = 0; word##_at <= (d)->mask; word##_at++)                                              \
		for (uint64_t word = (d)->slots[word##_at]; word != 0; word = 0)

/* ---- tables: trees of records, held in memory whole ---- */

struct table {
	uint32_t n_slots; /* capacity: a multiple of 256, or 0 */
	struct pointer *slots;
	struct pointer *pages[4]; /* pointers to pages, by level: [0] to those that hold slots */
	uint32_t n_pages[4];
	uint8_t *is_dirty[4]; /* a byte per page */
	unsigned height;      /* levels of pages: 0 when there is no slot */
};
void table_init(struct table *t);
void table_fini(struct table *t);
must_check int table_grow(struct table *t, uint32_t n_slots); /* 0 or -ENOMEM; new slots are holes */
void table_set(struct table *t, uint32_t slot, struct pointer p);
struct pointer table_root(const struct table *t); /* a hole when it has no slot */

/* ---- space ---- */

enum space_class { SPACE_DATA, SPACE_PAGES, SPACE_CLASSES };

#define REGION_WORDS (COUNTS_PER_PAGE / 64)
struct region { /* resident: its counts are in memory */
	struct disk *disk;
	uint32_t number;
	bool is_loading, is_dirty, is_damaged, has_new_block, is_referenced;
	bool is_read_again;                   /* the first read failed */
	uint32_t n_held;                      /* runs held: it must stay resident */
	uint16_t *counts;                     /* COUNTS_PER_PAGE, 4 KiB aligned */
	uint64_t free[REGION_WORDS];          /* may be allocated now */
	uint64_t freed_current[REGION_WORDS]; /* count fell to 0 since the last cut */
	uint64_t freed_frozen[REGION_WORDS];  /* before it; free when the checkpoint under way is flushed */
	uint64_t unpunched[REGION_WORDS];     /* freed, and the space below still holds it */
	struct list link, waiters;
	struct op op;
	struct iovec iov;
};

struct run {
	uint64_t block;
	uint32_t n_blocks;
};

struct space {
	struct disk *disk;
	uint64_t data_start, n_blocks;
	uint32_t n_regions, regions_max; /* regions_max: resident ones, a soft bound */
	struct region **resident;        /* by number; NULL: not resident */
	uint16_t *region_free;           /* by number: blocks that may be allocated now, as far as known */
	uint16_t *region_deltas;         /* by number: entries in the three maps */
	uint16_t *region_unpunched;      /* by number: blocks freed while not resident, more or less */
	struct list regions;             /* the resident ones, the longest resident first */
	uint32_t n_resident, n_loading, n_dirty;
	struct table index;    /* slot = region; epoch field = free blocks */
	struct deltas log;     /* durable with the last checkpoint, not yet in count pages */
	struct deltas frozen;  /* of the checkpoint under way */
	struct deltas current; /* since the last cut */
	uint32_t deltas_max;   /* of all three together */
	uint64_t free_blocks, resident_free, waiting_blocks, frozen_waiting;
	uint64_t floor_blocks;   /* that the next checkpoint may need, and to find them: never less are free */
	uint64_t held_blocks;    /* free, but being punched: they come back */
	uint64_t reserve_blocks; /* what data leave free: the floor, and as much again for pages and records */
	struct {
		int64_t region; /* -1: none */
		uint32_t next;  /* bit in the region to look at first */
	} cursor[SPACE_CLASSES];
	uint32_t search;     /* where the search for the next region goes on */
	struct list waiters; /* for a region to become resident */
};

must_check int space_init(struct space *s, struct disk *d, const struct superblock *sb, uint64_t n_blocks,
			  uint32_t regions_max);
void space_fini(struct space *s);
/* Once index and delta log are read: what is free where. */
void space_start(struct space *s);
/* Takes up to n contiguous blocks. 0; -EAGAIN: w waits for a region (or NULL); -ENOSPC: nothing is free. */
must_check int space_alloc(struct space *s, enum space_class class, uint32_t n, struct run *out, struct waiter *w);
/* Keeps a run of free blocks of a resident region from being allocated, until it is released; it counts as punched.
 * There must be room for it beside the reserve. The release wakes who waits for room. */
void space_hold(struct space *s, struct region *r, uint32_t first, uint32_t n);
void space_release_hold(struct space *s, struct run run);
/* A run was allocated and will be taken in a later turn: its region must stay resident until space_let_go(). */
void space_keep(struct space *s, struct run run);
void space_let_go(struct space *s, struct run run);
/* Takes back what was allocated and never used. */
void space_give_back(struct space *s, struct run run);
/* Is there room for n more data blocks beside the reserve? */
bool space_has_room(const struct space *s, uint64_t n);
/* Is there room for one more page or record that stays, beside the floor, when all n_dirty of them are new? */
bool space_has_room_to_grow(const struct space *s, uint64_t n_dirty);
/* As many regions as this may be resident when a checkpoint is cut. */
uint64_t space_regions_bound(const struct space *s, uint32_t dirty_max);
/* How many regions a cache of so many bytes keeps resident. */
uint32_t space_regions_for(uint64_t cache_bytes);
/* The count of a block that was just allocated becomes refs. */
void space_take(struct space *s, uint64_t block, uint32_t refs);
void space_add(struct space *s, uint64_t block);
/* One pointer less; is_last: it is known to be the last one (else the count page knows). */
void space_drop(struct space *s, uint64_t block, bool is_last);
/* The count, or -EAGAIN and w waits, or -EIO: its count page is damaged. */
must_check int space_count(struct space *s, uint64_t block, struct waiter *w);
/* Takes the very block that a record names, in replay: 0; -EBADMSG: it is in use or out of range. */
must_check int space_claim(struct space *s, uint64_t block);
/* Can this block's count change once more? A change outside resident regions is bounded by its 14 bits. 0; -EAGAIN;
 * -EIO. */
must_check int space_can_change(struct space *s, uint64_t block, struct waiter *w);
/* Is a block a data or page block of this disk at all? */
static inline bool space_is_block(const struct space *s, uint64_t block)
{
	return block >= s->data_start && block < s->n_blocks;
}
uint32_t space_deltas(const struct space *s);
bool space_has_delta_room(const struct space *s, uint32_t n);
/* For replay, which cannot checkpoint: makes regions resident, those with the most deltas first, until there is room for
 * n more. 0; -EAGAIN and w waits; -ENOMEM: more regions than the cache allows would be needed. */
must_check int space_make_delta_room(struct space *s, uint32_t n, struct waiter *w);
/* For the checkpoint: makes regions resident until n blocks can be allocated at once and the delta log has shrunk; 0,
 * or -EAGAIN and w waits. */
must_check int space_prepare_checkpoint(struct space *s, uint64_t n, struct waiter *w);
/* The cut: what was freed until now waits for this checkpoint. */
void space_freeze(struct space *s);
/* The checkpoint is flushed: what waited may be reused. */
void space_thaw(struct space *s);
void space_shrink(struct space *s); /* lets go of clean regions above the bound */
/* 0; -EAGAIN and w waits; -EIO. */
must_check int space_make_resident(struct space *s, uint32_t region, struct waiter *w);

/* ---- journal ---- */

#define JOURNAL_WINDOW 1024u /* journal blocks whose records may still wait for data */

struct journal_block {
	uint64_t sequence;
	uint8_t *memory;
	struct op op;
	struct iovec iov;
	struct journal *journal;
	bool is_done;         /* the block itself is on the device */
	uint32_t data_owed;   /* requests with a record in it whose data is not there yet */
	struct list requests; /* disk_io.own.link, that wait for it */
};

struct journal {
	struct disk *disk;
	uint64_t n_blocks;              /* of the ring */
	uint64_t sequence;              /* of the open block */
	uint64_t complete;              /* all blocks up to it are on the device */
	uint64_t settled;               /* and all data of their records too [KFPREFIX] */
	uint64_t flushed;               /* known flushed, with data */
	uint64_t tail;                  /* the oldest that recovery would need */
	uint32_t used_bytes, n_records; /* of the open block */
	struct journal_block window[JOURNAL_WINDOW];
	uint8_t *memory;     /* 2 * JOURNAL_IN_FLIGHT_MAX blocks, by sequence */
	struct list waiters; /* for room */
};
must_check int journal_init(struct journal *j, struct disk *d, uint64_t n_blocks);
void journal_fini(struct journal *j);
void journal_start(struct journal *j, uint64_t sequence);
/* Is there room for n records of this size right now? If not and w is given, w waits. */
bool journal_has_room(struct journal *j, uint32_t n_records, uint32_t bytes, struct waiter *w);
/* Appends; returns the sequence of the block it is in. */
uint64_t journal_append(struct journal *j, const struct record *r);
/* io waits for its record: data_owed says that its data is still to come. */
void journal_wait(struct journal *j, struct disk_io *io, bool data_owed);
void journal_data_done(struct journal *j, uint64_t sequence);
/* The last sequence that holds a record and is not complete yet; 0: there is none. */
uint64_t journal_last(const struct journal *j);
/* Closes the open block if it holds anything; the last closed sequence. */
uint64_t journal_cut(struct journal *j);
/* Submits the open block if it holds anything and the window has room. */
void journal_submit(struct journal *j);

/* ---- flusher ---- */

struct flusher {
	struct disk *disk;
	struct op op;
	bool is_busy;
	uint64_t candidate;           /* settled when the flush under way was submitted */
	struct list waiting, running; /* struct waiter */
	uint64_t unflushed_bytes;
	struct waiter background;
	uint64_t started_ns;
};
void flusher_init(struct flusher *f, struct disk *d);
/* w is woken when all that the device had completed before this call is durable. */
void flusher_wait(struct flusher *f, struct waiter *w);
void flusher_note_written(struct flusher *f, uint64_t bytes);

/* ---- writer: data blocks of a turn in few vectored writes; pages of a checkpoint likewise ---- */

#define BATCH_IOV_MAX   128u
#define BATCH_BYTES_MAX (512 * KIB)
struct batch_part {
	struct disk_io *io; /* NULL: a frame */
	struct frame *frame;
};
struct batch {
	struct op op;
	struct disk *disk;
	struct list link;
	uint64_t block;
	uint64_t n_blocks;
	uint32_t n_iov, n_parts;
	bool is_pages;
	struct iovec iov[BATCH_IOV_MAX];
	struct batch_part parts[BATCH_IOV_MAX];
};
#define BATCHES_MAX      256u
#define PAGE_BATCHES_MAX 4u /* of a checkpoint, in flight: it shall not starve the clients */
struct writer {
	struct disk *disk;
	struct batch *batches;
	struct list free, queue /* filled, to be submitted at the end of the turn */,
	    frames /* waiting pages, by frame.link */;
	struct list waiters;
	uint32_t n_free, n_page_batches;
};
must_check int writer_init(struct writer *w, struct disk *d);
void writer_fini(struct writer *w);
/* Are there batches for n more runs? If not, waiter waits. */
bool writer_has_room(struct writer *w, uint32_t n_runs, struct waiter *waiter);
/* Writes blocks [first, first + run.n_blocks) of the request to run.block on. Counts in io->own.owed. */
void writer_add(struct writer *w, struct disk_io *io, uint32_t first, struct run run);
/* Writes a sealed or bare frame to its block. */
void writer_add_frame(struct writer *w, struct frame *f);
void writer_submit(struct writer *w);
/* The disk has failed: what was not submitted yet ends here. */
void writer_drop(struct writer *w);

/* Cuts the request's memory of blocks [first, first + n) into out; returns the segments, 0 when out_max is too
 * small. */
uint32_t iov_cut(const struct iovec *iov, uint32_t n_iov, uint64_t from_bytes, uint64_t len_bytes, struct iovec *out,
		 uint32_t out_max);

/* ---- trees ---- */

struct disk_volume {
	struct volume_record record;
	uint32_t slot;
	uint32_t n_trees;
	bool is_used, is_dirty;
};

struct disk_tree {
	struct tree_record record; /* record.root may be virtual between checkpoints */
	uint32_t slot;
	bool is_dirty;       /* its record differs from the last checkpoint's, or its root has no block yet */
	bool is_gone;        /* all free; the next checkpoint leaves it out */
	bool is_left_out;    /* the checkpoint under way has left it out */
	uint64_t last_epoch; /* highest epoch written or forked since the disk was opened, at least fork_epoch */
	int32_t volume_slot; /* where its volume's record was last found; -1: not looked up */
	uint32_t n_changes;  /* writes and trims in flight */
	uint32_t n_lookers;  /* reads and maps in flight: they come back to this struct */
	struct list waiters; /* for n_changes to reach 0 [FORKWAIT] */
	struct list dying;   /* in disk.dying */
	unsigned drop_level; /* DYING: of the page that the last step needed and did not have */
	bool is_doubted;     /* DYING: the next part could not be read once */
	bool has_lost_parts; /* DYING: a part of it was given up, which was told */
	struct disk *disk;
};

/* What the path to one block needs to be changed in this turn. 0; -EAGAIN and w waits; -EIO. */
must_check int tree_prepare(struct disk_tree *t, uint64_t block, struct waiter *w);
/* Sets the pointer of one block; its path is prepared in this turn. Counts of what it pointed to follow. */
void tree_set(struct disk_tree *t, uint64_t first, const struct pointer *p, uint32_t n);
/* [first, first + n) inside one leaf's span becomes holes of this epoch; prepared like a change. */
void tree_trim_in_leaf(struct disk_tree *t, uint64_t first, uint64_t n_blocks, uint64_t epoch);
/* [first, first + n) inside one leaf's span becomes holes of this epoch, whatever it was; prepared like a change. */
void tree_hole_in_leaf(struct disk_tree *t, uint64_t first, uint64_t n_blocks, uint64_t epoch);
/* The piece of [first, end) that begins at `first`: one block of data, or holes of one epoch. 0; -EAGAIN and w waits;
 * -EIO. */
must_check int tree_stamp(struct disk_tree *t, uint64_t first, uint64_t end, struct disk_stamp *out, struct waiter *w);
/* Copies the pointers of [first, first + n). 0; -EAGAIN and w waits; -EIO. */
must_check int tree_get(struct disk_tree *t, uint64_t first, uint32_t n, struct pointer *out, struct waiter *w);
/* The piece of [first, end) that begins at `first`: a run of data or of holes in one leaf, or a whole subtree that is
 * a hole, or (since > 0) subtrees in a row that did not change since: epoch < since says so. 0; -EAGAIN and w waits;
 * -EIO. */
must_check int tree_look(struct disk_tree *t, uint64_t first, uint64_t end, uint64_t since, struct disk_extent *out,
			 struct waiter *w);
/* The pointers to the pages on the way to the leaf that maps `block`, path[height] first, path[1] the leaf's; a hole
 * from where there is none. 0; -EAGAIN and w waits; -EIO. */
must_check int tree_path(struct disk_tree *t, uint64_t block, struct pointer path[TREE_HEIGHT_MAX + 1],
			 struct waiter *w);
/* Does this tree alone name the pages on the way to `block`, down to the level `lowest` (1: its leaf)? 1 or 0; -EAGAIN and
 * w waits; -EIO. */
must_check int tree_path_is_private(struct disk_tree *t, uint64_t block, unsigned lowest, struct waiter *w);
/* The child becomes a copy of the parent; the root's count was prepared with space_can_change(). */
void tree_fork(struct disk_tree *parent, struct disk_tree *child, uint64_t epoch);
/* Each holds what the other held; no change of either is in flight. */
void tree_swap(struct disk_tree *a, struct disk_tree *b);
/* What would be freed if this tree alone were dropped: pages and data blocks that nobody else points to. The walk does
 * not go below shared pages. 0: go on; 1: all was seen; -EAGAIN and w waits; -EIO. */
struct tree_measure {
	uint64_t cursor, data_blocks, pages;
};
must_check int tree_measure_step(struct disk_tree *t, struct tree_measure *m, struct waiter *w);
/* Frees the dying tree's next part. 0: go on; 1: all is free; -EAGAIN and w waits; -EIO. */
must_check int tree_drop_step(struct disk_tree *t, struct waiter *w);
/* The last step ended with -EIO: what lies below the page or count that it needs stays allocated, and the walk goes on
 * behind it; [*first, *first + *n_blocks) of the tree. false: a page above has left the cache; take a step again. */
must_check bool tree_drop_give_up(struct disk_tree *t, uint64_t *first, uint64_t *n_blocks);
/* First block of the leaf that maps `block`. */
static inline uint64_t leaf_start(uint64_t block)
{
	return block & ~(uint64_t)(PAGE_POINTERS - 1);
}

/* ---- trees and volumes of the disk, by slot ---- */

must_check int disk_grow_slots(struct disk *d, uint32_t n_trees, uint32_t n_volumes); /* 0 or -ENOMEM */
struct disk_tree *disk_tree_at(struct disk *d, uint32_t slot);                        /* NULL: the slot is free */
struct disk_tree *disk_tree_add(struct disk *d, uint32_t slot, const struct tree_record *r);
void disk_tree_begin_drop(struct disk_tree *t);
/* A dying tree is all free: its slot may be used again when a checkpoint without it is flushed. */
void disk_tree_end(struct disk_tree *t);
int32_t disk_slot_for_tree(struct disk *d);
int32_t disk_slot_for_volume(struct disk *d);
struct disk_volume *disk_volume_find(struct disk *d, const struct uuid *volume);

/* ---- applying records: the same code live and in replay ---- */

/* Can the record be applied in this turn? 0; -EAGAIN and w waits; -EIO; in replay -EBADMSG: it does not fit the disk's
 * state. */
must_check int record_prepare(struct disk *d, const struct record *r, bool is_replay, struct waiter *w);
/* Applies it; in replay the blocks it names are claimed. -EBADMSG: damage (replay only). */
must_check int record_apply(struct disk *d, const struct record *r, bool is_replay);

/* ---- checkpoint ---- */

struct delta_log { /* where the last one cut lies */
	uint64_t blocks[PAGE_POINTERS], page;
	uint32_t n_blocks;
};

struct checkpoint {
	struct disk *disk;
	unsigned stage;
	bool is_wanted;  /* another is to follow */
	bool is_clean;   /* the last one of a clean close */
	bool is_flushed; /* the flush waited for has ended */
	bool is_shrunk;  /* clean regions above the bound were let go */
	uint64_t cut;    /* the last journal sequence it covers */
	uint64_t started_ns;
	struct superblock superblock;
	struct delta_log log;
	uint64_t *words; /* deltas_max entries, to sort the log in */
	uint8_t *memory; /* the superblock being written */
	struct checkpoint_op {
		struct op op;
		struct checkpoint *checkpoint;
	} copies[2];
	struct iovec iov;
	uint32_t owed;
	int err;
	struct waiter waiter;
	struct list waiters; /* for the end of the one under way */
	struct list late;    /* came after it began: wait for the next */
};
must_check int checkpoint_init(struct checkpoint *c, struct disk *d);
void checkpoint_fini(struct checkpoint *c);
/* Wants one; begins when the last has ended. */
void checkpoint_want(struct checkpoint *c);
/* Wants one and waits for its end. */
void checkpoint_wait(struct checkpoint *c, struct waiter *w);
void checkpoint_poke(struct checkpoint *c); /* something it waits for has changed */
bool checkpoint_is_idle(const struct checkpoint *c);

/* ---- background work ---- */

struct drop {
	struct disk *disk;
	struct waiter waiter;
	struct op again;
	struct timer pause;
	bool is_running;
	unsigned steps_left; /* until the clients have their turn */
	uint64_t served;     /* clients' requests, when it was last looked */
	struct {
		uint64_t since_ns, blocks, per_s;
	} rate;              /* data blocks that dying trees have let go: in this second, and in the last whole one */
	uint64_t lost_parts; /* subtrees given up since the disk was opened */
};
void drop_init(struct drop *p, struct disk *d);
void drop_poke(struct drop *p);
void drop_stop(struct drop *p); /* the disk is given up */
uint64_t drop_blocks_per_s(const struct drop *p);

#define PUNCH_RUN_MIN 16u /* blocks: smaller runs are not worth a request */

struct punch {
	struct disk *disk;
	struct op op;
	struct timer timer;
	struct waiter waiter; /* for a region */
	struct timer quiet;   /* runs while freed blocks wait for a checkpoint that nobody else may want */
	uint64_t quiet_waiting;
	uint32_t quiet_ticks;
	bool is_running, is_off;
	uint32_t region;
	uint32_t first, n;
	uint64_t punched_blocks;
};
void punch_init(struct punch *p, struct disk *d);
void punch_poke(struct punch *p);
/* Blocks were freed: when the disk falls quiet, a checkpoint makes them free, and they are given back. */
void punch_note_freed(struct punch *p);
void punch_stop(struct punch *p); /* its timers */

struct scrub;
void scrub_destroy(struct scrub *s);
/* Waits until the next one is due. */
void scrub_schedule(struct disk *d);
void scrub_due(struct timer *t);
#define SCRUB_RUNS_MIN 16u /* a leaf whose data lie in so many runs is worth straightening */

struct recovery;
/* Begins; ends with disk_recovered(). 0 or -ENOMEM. */
must_check int recovery_start(struct disk *d);
void recovery_destroy(struct recovery *r);
void disk_recovered(struct disk *d, int res);
/* Opens the file, unless it is open, and locks it. 0; -EAGAIN: another process has it and may be dying: again after
 * DISK_LOCK_RETRY_NS; -EBUSY: it has it since since_ns, which is too long; or -errno. */
must_check int disk_take_file(struct reactor *r, const char *path, unsigned flags, uint64_t since_ns,
			      struct file **file);
/* The superblock is known: makes the parts whose size it gives. 0 or -errno. */
must_check int disk_size_parts(struct disk *d, uint64_t n_blocks);
/* Recovery has ended with a checkpoint: the parts take no more than the disk's share of the cache. */
void disk_settle_parts(struct disk *d);

/* ---- the disk ---- */

#define RUNS_MAX 2048u /* pieces of reads in flight */
struct read_run {
	struct op op;
	struct disk_io *io;
	struct list link;
	uint32_t first, n_blocks; /* of the request */
};

struct disk {
	struct reactor *reactor;
	struct log *log;
	struct file *file;
	struct disk_options options;
	char path[256], name[DISK_LABEL_BYTES + 8];
	char why[WHY_BYTES];
	enum disk_state state;
	struct superblock superblock; /* of the last flushed checkpoint */
	struct pages pages;
	struct space space;
	struct journal journal;
	struct flusher flusher;
	struct writer writer;
	struct checkpoint checkpoint;
	struct drop drop;
	struct punch punch;
	struct scrub *scrub;
	struct timer scrub_timer;  /* until the next one is due */
	uint64_t scrubbed_wall_ns; /* when the last whole one ended */
	struct recovery *recovery;
	struct table tree_table, volume_table;
	struct disk_tree **trees;    /* by slot */
	struct disk_volume *volumes; /* by slot */
	uint32_t n_tree_slots, n_volume_slots, n_trees;
	uint64_t n_sessions;      /* that have begun or ended since it was opened, replayed ones too */
	uint32_t n_dirty_records; /* trees and volumes with is_dirty */
	struct list dying;
	struct list admission; /* requests that wait for room, in order: disk_io.own.link */
	struct read_run *runs;
	struct list free_runs;
	uint32_t n_free_runs;
	struct list run_waiters;
	uint64_t reads_in_flight[2]; /* by side: which side of the last cut they began on [PIN] */
	unsigned read_side;
	uint64_t n_requests; /* under way, all kinds */
	struct list woken;   /* waiters to run at the end of this turn */
	struct turn_hook hook;
	struct timer lock_timer; /* until the lock of a dying process is gone */
	uint64_t lock_since_ns;
	struct op opened_op;
	int opened_res;
	struct waiter fail_waiter, close_waiter;
	bool is_close_wanted, is_closing_down;
	bool is_close_late; /* the last checkpoint has ended, and something is still owed */
	void (*closed)(struct disk *d, void *context);
	void *closed_context;
	struct disk_counters counters;
	uint64_t checkpoints, checkpoint_last_ns, recovery_ns, replayed_records, dropped_records;
};

/* Fails the disk: nothing more is acknowledged. Says why once. */
void disk_fail(struct disk *d, const char *format, ...) printf_like(2, 3);
/* The same for an operation that failed: "DOING failed", what the device or file said, and what to do. */
void disk_fail_io(struct disk *d, int err, const char *format, ...) printf_like(3, 4);
/* A block whose bytes do not match: counted, told as an event. */
void disk_report_damage(struct disk *d, const char *what, uint64_t block, const char *format, ...) printf_like(4, 5);
/* "volume NAME, tree ID". */
#define TREE_TEXT_BYTES 128u
void disk_tree_to_text(const struct disk *d, const struct uuid *volume, uint64_t tree_id,
		       char text[static TREE_TEXT_BYTES]);
/* Room may have come: goes through the requests that wait for admission. */
void disk_admit(struct disk *d);
/* A journal block or the last of its data has ended for this request. */
void disk_io_wake(struct disk_io *io);
/* The disk has failed: every request that waits inside ends with -EIO. */
void disk_requests_fail(struct disk *d);
void disk_requests_init(struct disk *d);
/* Pages that one change may make: those of the paths to two leaves, which may have nothing but the root in common, and, as
 * a tree of one leaf grows to the full height, those between the root and that leaf. (12 in trees of volumes, which end at
 * 4 PiB and so at one height less: what is reckoned for them in blocks.) */
#define CHANGE_PAGES_MAX (1 + 2 * (TREE_HEIGHT_MAX - 1) + (TREE_HEIGHT_MAX - 2))
/* Counts that one change may touch outside resident regions: copies of shared pages along two paths. */
#define CHANGE_DELTAS_MAX (2 * TREE_HEIGHT_MAX * (PAGE_POINTERS + 2))
/* Are there dirty pages and deltas left for one more change? */
bool disk_has_change_room(const struct disk *d);
/* Pages, records and count pages that the next checkpoint must write: at most pages.dirty_max, and what one change adds
 * to it. */
static inline uint32_t disk_n_dirty(const struct disk *d)
{
	return d->pages.n_dirty + d->space.n_dirty + d->n_dirty_records;
}
static inline void disk_tree_mark_dirty(struct disk_tree *t)
{
	t->disk->n_dirty_records += !t->is_dirty;
	t->is_dirty = true;
}
static inline void disk_volume_mark_dirty(struct disk *d, struct disk_volume *v)
{
	d->n_dirty_records += !v->is_dirty;
	v->is_dirty = true;
}
/* Once the parts and tables have their sizes: what is kept for checkpoints. */
void disk_set_reserve(struct disk *d);
/* Upper bound of the blocks that the cut of a checkpoint will take, however much is dirty (cut.c). */
uint64_t cut_blocks_max(const struct disk *d);
/* How many must be free beside, so that a cut finds them in few regions. */
uint64_t cut_blocks_spread(const struct disk *d);
/* As many of them at most are no pages of trees: each wants a frame of its own. */
uint32_t cut_frames_max(const struct disk *d, uint32_t dirty_max);
/* Upper bound of the changes of counts outside resident regions that a cut now would make. */
uint32_t cut_deltas(const struct disk *d);
/* Wants a checkpoint when a limit is near. */
void disk_watch_limits(struct disk *d);
static inline bool disk_is_alive(const struct disk *d)
{
	return d->state != DISK_FAILED && d->state != DISK_CLOSED;
}
/* One request or operation less under way; a closing disk waits for the last. */
void disk_request_ended(struct disk *d);
