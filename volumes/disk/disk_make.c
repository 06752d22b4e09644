/*
 * disk_make.c: disk_format(): makes a quarry disk of a file or block device.
 *
 *   LOCK* -> HEAD -> TAIL -> JUDGE -> ERASE* -> SETTLE -> FIRST -> SECOND -> FLUSH -> ENDED
 *     +--------+-------+-------+--- refused, or any I/O error -------------------------^
 *
 *   LOCK      tried again for a while: a process that was killed keeps its lock, or the device, until its ring has ended
 *
 * An empty disk is two equal superblocks and nothing else: checkpoint 1 (slots 1 and 3), no trees, no volumes, a count
 * index that is a hole (every block is free), a journal to be replayed from sequence 1, where nothing is.
 *
 * Invariants
 *  1. Nothing is changed before it is known what is there: not the size of an existing file, not one byte. Whatever is
 *     not zeros in the first or last MiB is somebody's data and stays, unless `force` says otherwise.
 *  2. At every moment the medium holds the old disk, or no disk, or the new disk whole: all old superblocks are erased
 *     and flushed (SETTLE) before a new one is written; the new one is whole by itself and flushed before we say so.
 *  3. No journal block of an earlier disk is ever replayed: a new UUID begins every journal checksum, so a stale block
 *     does not fit. The ring is erased nevertheless when the medium was not blank, for the case that somebody formats
 *     with the same UUID again (a restored configuration, a test): then the checksum alone would not tell them apart.
 *  4. A file that was made here and did not become a disk is removed again.
 *  5. The lock is held from before the first look, the one at the size too, until the end: no running daemon has the
 *     disk, none can take it.
 *
 * It needs I/O before anything runs, so it runs the reactor itself, turn by turn, until its own request has ended: the
 * reactor must not be running, and whatever else was submitted to it is delivered in those turns too. A
 * reactor_stop() that arrives meanwhile is not lost: what is under way is short, ends, and the stop is passed on.
 *
 * Owner: the caller's thread; the request lives on its stack, the two buffers of 1 MiB on the heap.
 */
#include "volumes/disk/disk_format_internal.h"
#include "volumes/disk/disk_internal.h"

#include "daemon/core/checksum.h"
#include "daemon/core/size_text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_BYTES       MIB /* at either end: covers all that foreign.c knows, and what others keep at the end */
#define FIRST_CHECKPOINT 1u
#define FIRST_SEQUENCE   1u

#define MAKE_STAGES(X) X(LOCK) X(HEAD) X(TAIL) X(JUDGE) X(ERASE) X(SETTLE) X(FIRST) X(SECOND) X(FLUSH) X(ENDED)
enum make_stage {
#define X(name) MAKE_##name,
	MAKE_STAGES(X)
#undef X
};

/* What each stage was waiting for when it failed, for the message. */
static const char *const make_doing[] = {
    [MAKE_LOCK] = "lock",
    [MAKE_HEAD] = "begin",
    [MAKE_TAIL] = "read the beginning of",
    [MAKE_JUDGE] = "read the end of",
    [MAKE_ERASE] = "erase what was on",
    [MAKE_SETTLE] = "erase what was on",
    [MAKE_FIRST] = "flush",
    [MAKE_SECOND] = "write the first superblock of",
    [MAKE_FLUSH] = "write the second superblock of",
    [MAKE_ENDED] = "flush the superblocks of",
};

struct extent {
	uint64_t pos_bytes, len_bytes;
};

struct make {
	struct op op;
	struct iovec iov;
	struct timer timer;
	uint64_t lock_since_ns;
	enum make_stage stage;
	int err;
	bool is_waiting; /* the op or the timer is the reactor's */
	bool is_created; /* the file, by us */
	struct reactor *reactor;
	struct file *file;
	const char *path;
	const struct disk_format_options *options;
	char *why;
	uint8_t *head, *tail; /* LOOK_BYTES each; after JUDGE: zeros to erase with, and the superblock */
	uint64_t size_bytes;  /* of the file or device when it was opened */
	uint64_t look_bytes;  /* of either end */
	struct superblock superblock;
	struct extent erase[3]; /* beginning, end, ring */
	unsigned n_erase, erasing;
};

/* ---- refusing ---- */

static int refuse(struct make *m, int err, const char *format, ...) printf_like(3, 4);
static int refuse(struct make *m, int err, const char *format, ...)
{
	va_list args;

	quarry_assert(err < 0);
	va_start(args, format);
	vsnprintf(m->why, WHY_BYTES, format, args);
	va_end(args);
	return err;
}

/* ---- the dispatcher ---- */

static void make_run(struct make *m);

static void make_check(const struct make *m)
{
	quarry_assert(!m->is_waiting);
	quarry_assert(m->stage <= MAKE_ENDED);
	quarry_assert(m->erasing <= m->n_erase);
	if (m->stage >= MAKE_FIRST)
		quarry_assert(m->erasing == m->n_erase || m->err != 0);
}

static void make_complete(struct op *op, int res)
{
	struct make *m = container_of(op, struct make, op);

	quarry_assert(m->is_waiting);
	m->is_waiting = false;
	if (res < 0)
		m->err = refuse(m, res, "could not %s %s: %s", make_doing[m->stage], m->path, strerror(-res));
	make_run(m);
}

static void make_read(struct make *m, void *data, uint64_t len_bytes, uint64_t pos_bytes)
{
	quarry_assert(!m->is_waiting);
	quarry_assert(len_bytes <= LOOK_BYTES && pos_bytes + len_bytes <= m->size_bytes);
	m->is_waiting = true;
	m->iov = (struct iovec){data, len_bytes};
	if (len_bytes == 0)
		reactor_defer(m->reactor, &m->op, 0);
	else
		file_read(m->file, &m->op, &m->iov, 1, pos_bytes);
}

static void make_write(struct make *m, void *data, uint64_t len_bytes, uint64_t pos_bytes)
{
	quarry_assert(!m->is_waiting);
	quarry_assert(len_bytes > 0 && len_bytes <= LOOK_BYTES);
	m->is_waiting = true;
	m->iov = (struct iovec){data, len_bytes};
	file_write(m->file, &m->op, &m->iov, 1, pos_bytes);
}

static void make_flush(struct make *m)
{
	quarry_assert(!m->is_waiting);
	m->is_waiting = true;
	file_flush(m->file, &m->op);
}

static enum flow make_lock(struct make *m);
static int make_judge(struct make *m);
static enum flow make_erase(struct make *m);
static void make_write_superblock(struct make *m, unsigned copy);

/* A stage is what to do when the operation before it has ended. */
static void make_run(struct make *m)
{
	for (;;) {
		make_check(m);
		if (m->err != 0)
			m->stage = MAKE_ENDED;
		switch (m->stage) {
		case MAKE_LOCK:
			if (make_lock(m) == FLOW_WAIT)
				return;
			m->stage = MAKE_HEAD;
			break;
		case MAKE_HEAD:
			make_read(m, m->head, m->look_bytes, 0);
			m->stage = MAKE_TAIL;
			return;
		case MAKE_TAIL:
			make_read(m, m->tail, m->look_bytes, m->size_bytes - m->look_bytes);
			m->stage = MAKE_JUDGE;
			return;
		case MAKE_JUDGE:
			m->err = make_judge(m);
			m->stage = MAKE_ERASE;
			break;
		case MAKE_ERASE:
			if (make_erase(m) == FLOW_WAIT)
				return;
			m->stage = MAKE_SETTLE;
			break;
		case MAKE_SETTLE:
			make_flush(m);
			m->stage = MAKE_FIRST;
			return;
		case MAKE_FIRST:
			make_write_superblock(m, 0);
			m->stage = MAKE_SECOND;
			return;
		case MAKE_SECOND:
			make_write_superblock(m, 1);
			m->stage = MAKE_FLUSH;
			return;
		case MAKE_FLUSH:
			make_flush(m);
			m->stage = MAKE_ENDED;
			return;
		case MAKE_ENDED:
			reactor_stop(m->reactor);
			return;
		}
	}
}

/* ---- LOCK ---- */

static void make_lock_again(struct timer *t)
{
	struct make *m = container_of(t, struct make, timer);

	quarry_assert(m->is_waiting && m->stage == MAKE_LOCK);
	m->is_waiting = false;
	make_run(m);
}

static int make_measure(struct make *m)
{
	int64_t size = file_size_bytes(m->file);

	if (size < 0)
		return refuse(m, (int)size, "cannot tell the size of %s: %s", m->path, strerror((int)-size));
	m->size_bytes = (uint64_t)size;
	m->look_bytes = min_u64(m->size_bytes / SECTOR_BYTES * SECTOR_BYTES, LOOK_BYTES);
	return 0;
}

static enum flow make_lock(struct make *m)
{
	int res = disk_take_file(m->reactor, m->path, 0, m->lock_since_ns, &m->file);

	if (res == -EAGAIN) {
		m->is_waiting = true;
		timer_start(m->reactor, &m->timer, DISK_LOCK_RETRY_NS);
		return FLOW_WAIT;
	}
	if (res == -EBUSY)
		m->err = refuse(m, res, "%s is in use by another process, or %s", m->path,
				m->file ? "by this one, under another name of the same file" : "mounted");
	else if (res < 0)
		m->err = refuse(m, res, "cannot lock %s: %s", m->path, strerror(-res));
	else
		m->err = make_measure(m);
	return FLOW_NEXT;
}

/* ---- JUDGE: may it be formatted, and how large will it be? ---- */

/* What of quarry's own the beginning holds, so that the message can name the pool; false: nothing. */
static bool find_quarry(const struct make *m, struct superblock *out)
{
	char unused[WHY_BYTES];

	for (unsigned slot = 0; slot < SUPERBLOCK_SLOTS; slot++) {
		uint64_t at = superblock_slot_block(slot) * BLOCK_BYTES;
		if (at + BLOCK_BYTES <= m->look_bytes &&
		    superblock_decode(m->head + at, out, unused) == SUPERBLOCK_VALID)
			return true;
	}
	return false;
}

static int refuse_data(struct make *m)
{
	const char *name = foreign_name(m->head, m->look_bytes);
	char pool[UUID_TEXT_BYTES];
	struct superblock sb;

	if (find_quarry(m, &sb)) {
		uuid_to_text(&sb.pool, pool);
		return refuse(m, -EEXIST, "%s is the existing quarry disk %s (pool %s); --force would destroy it",
			      m->path, sb.label, pool);
	}
	if (name)
		return refuse(m, -EEXIST, "%s holds %s; --force would destroy it", m->path, name);
	return refuse(m, -EEXIST, "%s is not empty: there is data near its end; --force would destroy it", m->path);
}

static bool is_blank(const struct make *m)
{
	/* What is no whole number of sectors was made by somebody, and its last bytes cannot be looked at. */
	return m->size_bytes % SECTOR_BYTES == 0 && bytes_are_zero(m->head, m->look_bytes) &&
	       bytes_are_zero(m->tail, m->look_bytes);
}

static int refuse_small(struct make *m, uint64_t size_bytes)
{
	char size[SIZE_TEXT_BYTES], least[SIZE_TEXT_BYTES];

	return refuse(m, -EINVAL, "%s is too small for a disk: it has %s, and a disk needs at least %s", m->path,
		      size_text(size_bytes, size), size_text(DISK_MIN_BLOCKS * BLOCK_BYTES, least));
}

/* The bytes that the disk will have; a size that was asked for must be the size it gets. */
static int judge_size(struct make *m, uint64_t *size_bytes)
{
	uint64_t asked = m->options->size_bytes;
	char size[SIZE_TEXT_BYTES], asked_size[SIZE_TEXT_BYTES];

	*size_bytes = asked ? asked : m->size_bytes;
	if (file_is_device(m->file) && *size_bytes != m->size_bytes)
		return refuse(m, -EINVAL, "%s is a device of %s, not %s, and is used whole: leave out the size",
			      m->path, size_text(m->size_bytes, size), size_text(asked, asked_size));
	if (*size_bytes < m->size_bytes && !m->options->force)
		return refuse(m, -EINVAL,
			      "%s is a file of %s, more than the %s asked for: leave out the size, or --force", m->path,
			      size_text(m->size_bytes, size), size_text(asked, asked_size));
	if (*size_bytes < DISK_MIN_BLOCKS * BLOCK_BYTES)
		return refuse_small(m, *size_bytes);
	if (*size_bytes > DISK_MAX_BLOCKS * BLOCK_BYTES)
		return refuse(m, -EINVAL, "%s is too large: a disk has at most 4 PiB", m->path);
	return 0;
}

static int judge_identity(struct make *m, uint64_t n_blocks)
{
	const struct disk_format_options *o = m->options;
	const char *fault;

	if (!o->label || strlen(o->label) >= DISK_LABEL_BYTES)
		return refuse(m, -EINVAL, "the disk's label is missing or longer than %u bytes", DISK_LABEL_BYTES - 1);
	m->superblock = (struct superblock){
	    .disk = o->disk,
	    .pool = o->pool,
	    .cluster = o->cluster,
	    .checkpoint = FIRST_CHECKPOINT,
	    .n_blocks = n_blocks,
	    .journal_blocks = journal_blocks_for(n_blocks),
	    .replay_from = FIRST_SEQUENCE,
	    .is_clean = true,
	    .is_reserved = o->reserve,
	    .wall_ns = reactor_wall_ns(m->reactor),
	};
	memcpy(m->superblock.label, o->label, strlen(o->label) + 1); /* fits: see above */
	fault = superblock_fault(&m->superblock);
	if (fault)
		return refuse(m, -EINVAL, "cannot format %s: %s", m->path, fault);
	return 0;
}

/* The file gets its size and, if asked for, its space. */
static int take_space(struct make *m, uint64_t size_bytes)
{
	char size[SIZE_TEXT_BYTES];
	int res = 0;

	if (file_is_device(m->file))
		return 0; /* has its size and its space */
	if (size_bytes != m->size_bytes)
		res = file_set_size(m->file, size_bytes);
	if (res == 0 && m->options->reserve)
		res = file_reserve(m->file, 0, size_bytes, m->options->written_bytes);
	if (res < 0) /* what had been there is as it was; where that fails too, its size tells how far this came */
		(void)!file_set_size(m->file, m->size_bytes);
	if (res == -ENOSPC || res == -EDQUOT || res == -EFBIG)
		return refuse(m, res, "the file system has no room for %s with %s", m->path,
			      size_text(size_bytes, size));
	if (res < 0)
		return refuse(m, res, "could not give %s its %s: %s", m->path, size_text(size_bytes, size),
			      strerror(-res));
	return 0;
}

static void plan_erasing(struct make *m, uint64_t size_bytes)
{
	uint64_t ring = m->superblock.journal_blocks * BLOCK_BYTES;
	uint64_t end = min_u64(size_bytes, m->size_bytes) / SECTOR_BYTES * SECTOR_BYTES;

	quarry_assert(size_bytes >= 2 * LOOK_BYTES);
	quarry_assert((JOURNAL_START + m->superblock.journal_blocks) * BLOCK_BYTES <= size_bytes);
	m->erase[m->n_erase++] = (struct extent){0, LOOK_BYTES};
	if (end > 2 * LOOK_BYTES)
		m->erase[m->n_erase++] = (struct extent){end - LOOK_BYTES, LOOK_BYTES};
	m->erase[m->n_erase++] = (struct extent){JOURNAL_START * BLOCK_BYTES, ring};
}

static int make_judge(struct make *m)
{
	bool was_blank = is_blank(m);
	uint64_t size_bytes;
	int res;

	if (!was_blank && !m->options->force)
		return refuse_data(m);
	res = judge_size(m, &size_bytes);
	if (res == 0)
		res = judge_identity(m, size_bytes / BLOCK_BYTES);
	if (res == 0)
		res = take_space(m, size_bytes);
	if (res < 0)
		return res;
	if (!was_blank)
		plan_erasing(m, size_bytes);
	memset(m->head, 0, LOOK_BYTES);
	superblock_encode(&m->superblock, m->tail);
	return 0;
}

/* ---- ERASE and the superblocks ---- */

static enum flow make_erase(struct make *m)
{
	struct extent *e = &m->erase[m->erasing];
	uint64_t len_bytes;

	if (m->erasing == m->n_erase)
		return FLOW_NEXT;
	len_bytes = min_u64(e->len_bytes, LOOK_BYTES);
	make_write(m, m->head, len_bytes, e->pos_bytes);
	e->pos_bytes += len_bytes;
	e->len_bytes -= len_bytes;
	if (e->len_bytes == 0)
		m->erasing++;
	return FLOW_WAIT;
}

static void make_write_superblock(struct make *m, unsigned copy)
{
	uint64_t block = superblock_slot_block(superblock_slot(FIRST_CHECKPOINT, copy));

	quarry_assert(copy < 2);
	quarry_assert(block < JOURNAL_START);
	make_write(m, m->tail, BLOCK_BYTES, block * BLOCK_BYTES);
}

/* ---- opening and running ---- */

static int make_open(struct make *m)
{
	int res = reactor_file_open(m->reactor, m->path, 0, &m->file);

	if (res == -ENOENT && m->options->size_bytes == 0)
		return refuse(m, res, "%s does not exist: give the size of the file to make, such as --size 10G",
			      m->path);
	if (res == -ENOENT && m->options->size_bytes < DISK_MIN_BLOCKS * BLOCK_BYTES)
		return refuse_small(m, m->options->size_bytes);
	if (res == -ENOENT) {
		res = reactor_file_open(m->reactor, m->path, FILE_CREATE, &m->file);
		m->is_created = res == 0;
	}
	if (res == -ENOENT)
		return refuse(m, res, "the folder of %s is not there: make it first", m->path);
	if (res == -ENOTSUP)
		return refuse(m, res, "%s is neither a regular file nor a block device", m->path);
	if (res == -EINVAL)
		return refuse(m, res, "cannot open %s: " NO_DIRECT_IO, m->path);
	if (res < 0 && res != -EBUSY) /* LOCK tries again */
		return refuse(m, res, "cannot open %s: %s", m->path, strerror(-res));
	m->lock_since_ns = reactor_now_ns(m->reactor);
	return 0;
}

/* Turns of the reactor until the request has ended; the stop that ends a run is ours, any other is passed on. */
static void make_wait(struct make *m)
{
	unsigned n_runs = 0;

	make_run(m);
	do {
		reactor_run(m->reactor);
		n_runs++;
	} while (m->stage != MAKE_ENDED || m->is_waiting);
	if (n_runs > 1)
		reactor_stop(m->reactor);
}

int disk_format(struct reactor *r, const char *path, const struct disk_format_options *o, char why[static WHY_BYTES])
{
	struct make m = {.reactor = r, .path = path, .options = o, .why = why};
	int res;

	quarry_assert(path != NULL && o != NULL);
	why[0] = '\0';
	op_init(&m.op, make_complete);
	timer_init(&m.timer, make_lock_again);
	m.head = aligned_alloc(BLOCK_BYTES, LOOK_BYTES);
	m.tail = aligned_alloc(BLOCK_BYTES, LOOK_BYTES);
	res = m.head && m.tail ? make_open(&m) : refuse(&m, -ENOMEM, "out of memory");
	if (res == 0) {
		make_wait(&m);
		res = m.err;
	}
	if (res < 0 && m.is_created)
		(void)!file_remove(m.file, path); /* else it stays, empty: the next try takes it */
	if (m.file)
		file_close(m.file);
	free(m.head);
	free(m.tail);
	quarry_assert(!m.is_waiting);
	quarry_assert((res == 0) == (why[0] == '\0'));
	return res;
}
