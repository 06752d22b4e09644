/*
 * sim_disk.c: simulated files and block devices, and every way in which they fail.
 *
 * The fault model
 *  1. A device is made of blocks of 4 KiB. Each has a durable content (zeros before the first write) and the versions
 *     written since, the newest last; a version is in flight until its write is delivered.
 *  2. A flush makes durable what had been *delivered* when it was submitted; nothing else ever has to become durable.
 *  3. Kill: delivered writes stay. A write in flight lands whole, not at all, or block by block at random; a flush in
 *     flight happened or did not. All of that is settled before the next process starts (the lock sees to it).
 *  4. Power loss: each block by itself keeps its durable content or any one of the versions since, delivered or not. A
 *     block that was between two contents may be torn: its 512-byte sectors are a mix of both, or garbage (torn_ppm).
 *  5. A punch leaves each block of its range zero or as it was, and counts as a write of it.
 *  6. A read returns, for each block, its content when the read is delivered; where a write is in flight: the old
 *     content, the new one, or a mix of sectors.
 *  7. On demand or at a rate: reads, writes and flushes fail (a failed write landed or not, block by block; a failed
 *     flush has made nothing durable and lost nothing: a later one may succeed); bits flip; writes are misdirected
 *     (reported as done, landed elsewhere); operations take long; blocks can not be read until they are rewritten.
 *  8. Sizes are durable at once. Nothing else changes content behind the process's back.
 * What the process must not do, and is stopped for by an assertion
 *  A. write or punch a block while a write or punch of it is in flight;
 *  B. change or free the memory of a write in flight;
 *  C. use memory, positions or lengths that O_DIRECT would refuse;
 *  D. close a file with operations in flight.
 *
 * A file keeps only blocks that were written, in a hash table, so that a large one costs nothing until it is used.
 * `volatile_blocks` lists the blocks that have versions: only those are visited by a flush and by a power loss.
 */
#include "tests/sim/sim_file.h"

#include <errno.h>

#define PUNCH_KEEPS_PPM 250000u

/* One operation in flight. A write knows its blocks: their newest version is the one in flight. */
struct sim_io {
	struct sim_event event; /* first */
	struct sim_file *file;
	struct sim_handle *handle;
	struct op *op; /* NULL: its process is dead */
	enum op_kind kind;
	uint64_t first, n; /* blocks touched */
	uint64_t mark;     /* FLUSH: completions before it was submitted */
	struct list link;
	struct sim_block *blocks[]; /* WRITE */
};

/* ---- memory of an operation: a walk over its iovecs ---- */

struct memory_walk {
	const struct iovec *iov;
	size_t offset;
};

static void walk_begin(struct memory_walk *w, const struct op *op)
{
	w->iov = op->iov;
	w->offset = 0;
}

/* Calls for each contiguous piece of the next len bytes: copies to or from `at`, or compares (returns equality). */
enum walk_action { WALK_GATHER, WALK_SCATTER, WALK_COMPARE };
static bool walk_next(struct memory_walk *w, enum walk_action action, uint8_t *at, size_t len)
{
	bool is_equal = true;

	while (len > 0) {
		size_t piece = min_u64(len, w->iov->iov_len - w->offset);
		uint8_t *memory = (uint8_t *)w->iov->iov_base + w->offset;
		if (action == WALK_GATHER)
			memcpy(at, memory, piece);
		else if (action == WALK_SCATTER)
			memcpy(memory, at, piece);
		else
			is_equal = is_equal && memcmp(memory, at, piece) == 0;
		at += piece;
		len -= piece;
		w->offset += piece;
		if (w->offset == w->iov->iov_len) {
			w->iov++;
			w->offset = 0;
		}
	}
	return is_equal;
}

/* The part of block number `block` that the range covers. */
struct block_part {
	uint32_t offset, len;
};
static struct block_part part_of(uint64_t block, uint64_t pos_bytes, uint64_t len_bytes)
{
	uint64_t start = max_u64(pos_bytes, block * BLOCK_BYTES);
	uint64_t end = min_u64(pos_bytes + len_bytes, (block + 1) * BLOCK_BYTES);

	return (struct block_part){(uint32_t)(start % BLOCK_BYTES), (uint32_t)(end - start)};
}

/* ---- reading ---- */

static void read_block(struct sim_file *f, uint64_t number, uint8_t *out)
{
	struct sim *s = f->machine->sim;
	struct sim_block *b = block_find(f, number);
	const uint8_t *content = b == NULL ? NULL : block_settled(b);

	if (b == NULL || !block_is_in_flight(b)) {
		if (content != NULL)
			memcpy(out, content, BLOCK_BYTES);
		else
			memset(out, 0, BLOCK_BYTES);
		return;
	}
	uint64_t chance = sim_below(s, 3);
	uint8_t *old = content_copy(content);
	uint8_t *new = content_copy(block_newest(b));
	memcpy(out, chance == 0 ? old : new, BLOCK_BYTES);
	if (chance == 2)
		content_tear(s, out, old, false);
	free(old);
	free(new);
}

static int read_happen(struct sim_io *io)
{
	struct op *op = io->op;
	struct memory_walk walk;
	uint8_t content[BLOCK_BYTES];

	if (op->pos_bytes + op->len_bytes > io->file->size_bytes)
		return -EIO;
	walk_begin(&walk, op);
	for (uint64_t number = io->first; number < io->first + io->n; number++) {
		struct sim_block *b = block_find(io->file, number);
		struct block_part part = part_of(number, op->pos_bytes, op->len_bytes);
		if (b != NULL && b->is_broken)
			return -EIO;
		read_block(io->file, number, content);
		walk_next(&walk, WALK_SCATTER, content + part.offset, part.len);
	}
	io->file->stats.reads++;
	io->file->stats.read_bytes += op->len_bytes;
	return 0;
}

/* ---- writing ---- */

static bool punch_is_in_flight(const struct sim_file *f, uint64_t first, uint64_t n)
{
	list_each (node, &f->in_flight) {
		const struct sim_io *io = container_of(node, struct sim_io, link);
		if (io->kind == OP_PUNCH && io->first < first + n && first < io->first + io->n)
			return true;
	}
	return false;
}

static void write_begin(struct sim_io *io)
{
	struct op *op = io->op;
	struct memory_walk walk;

	quarry_assert(!punch_is_in_flight(io->file, io->first, io->n)); /* A */
	walk_begin(&walk, op);
	for (uint64_t i = 0; i < io->n; i++) {
		struct sim_block *b = block_make(io->file, io->first + i);
		struct block_part part = part_of(b->number, op->pos_bytes, op->len_bytes);
		uint8_t *content = part.len == BLOCK_BYTES ? malloc(BLOCK_BYTES) : content_copy(block_newest(b));
		quarry_assert(content != NULL);
		walk_next(&walk, WALK_GATHER, content + part.offset, part.len);
		version_add(io->file, b, content);
		io->blocks[i] = b;
	}
}

/* The block's write did not land where it should, but on some other block. */
static void block_misdirect(struct sim_file *f, struct sim_block *b)
{
	struct sim_block *victim = block_make(f, sim_below(f->machine->sim, f->size_bytes / BLOCK_BYTES));

	if (block_is_in_flight(victim))
		return;
	uint8_t *content = content_copy(b->newest->data);
	version_drop_newest(b);
	version_add(f, victim, content)->completion = ++f->n_completions;
}

static void block_landed(struct sim_file *f, struct sim_block *b)
{
	struct sim *s = f->machine->sim;

	quarry_assert(block_is_in_flight(b));
	b->newest->completion = ++f->n_completions;
	b->is_broken = false;
	if (sim_chance(s, f->faults.flip_ppm))
		content_flip(b->newest->data, (uint32_t)sim_below(s, BLOCK_BYTES * 8));
}

/* Ends a write of which each block lands with the given chance. */
static void write_settle(struct sim_io *io, uint32_t lands_ppm)
{
	for (uint64_t i = 0; i < io->n; i++) {
		if (sim_chance(io->file->machine->sim, lands_ppm))
			block_landed(io->file, io->blocks[i]);
		else
			version_drop_newest(io->blocks[i]);
	}
}

static int write_happen(struct sim_io *io)
{
	struct op *op = io->op;
	struct sim_file *f = io->file;
	struct memory_walk walk;

	walk_begin(&walk, op);
	for (uint64_t i = 0; i < io->n; i++) {
		struct sim_block *b = io->blocks[i];
		struct block_part part = part_of(b->number, op->pos_bytes, op->len_bytes);
		bool is_untouched = walk_next(&walk, WALK_COMPARE, b->newest->data + part.offset, part.len);
		quarry_assert(is_untouched); /* B */
		if (sim_chance(f->machine->sim, f->faults.misdirect_ppm))
			block_misdirect(f, b);
		if (block_is_in_flight(b))
			block_landed(f, b);
	}
	f->size_bytes = max_u64(f->size_bytes, op->pos_bytes + op->len_bytes);
	f->stats.writes++;
	f->stats.write_bytes += op->len_bytes;
	return 0;
}

/* ---- flushing and punching ---- */

static int flush_happen(struct sim_io *io)
{
	list_each_safe (node, &io->file->volatile_blocks) {
		struct sim_block *b = container_of(node, struct sim_block, volatile_link);
		while (b->oldest != NULL && b->oldest->completion != 0 && b->oldest->completion <= io->mark)
			version_settle_oldest(b);
	}
	io->file->stats.flushes++;
	return 0;
}

static void punch_block(struct sim_file *f, struct sim_block *b)
{
	if (sim_chance(f->machine->sim, PUNCH_KEEPS_PPM) || block_newest(b) == NULL)
		return;
	version_add(f, b, NULL)->completion = ++f->n_completions;
}

static int punch_happen(struct sim_io *io)
{
	struct sim_file *f = io->file;

	if (f->faults.is_punch_refused)
		return -EOPNOTSUPP;
	if (io->n <= f->table_size) {
		for (uint64_t i = 0; i < io->n; i++) {
			struct sim_block *b = block_find(f, io->first + i);
			if (b != NULL)
				punch_block(f, b);
		}
	} else {
		for (uint64_t slot = 0; slot < f->table_size; slot++) {
			struct sim_block *b = f->table[slot];
			if (b != NULL && b->number >= io->first && b->number - io->first < io->n)
				punch_block(f, b);
		}
	}
	f->stats.punches++;
	f->stats.punch_bytes += io->n * BLOCK_BYTES;
	return 0;
}

static void punch_begin(struct sim_io *io)
{
	quarry_assert(!punch_is_in_flight(io->file, io->first, io->n)); /* A */
	list_each (node, &io->file->volatile_blocks) {
		struct sim_block *b = container_of(node, struct sim_block, volatile_link);
		bool is_inside = b->number >= io->first && b->number - io->first < io->n;
		quarry_assert(!is_inside || !block_is_in_flight(b)); /* A */
	}
}

/* ---- operations ---- */

static uint32_t error_ppm(const struct sim_file *f, enum op_kind kind)
{
	return kind == OP_READ    ? f->faults.read_error_ppm
	       : kind == OP_WRITE ? f->faults.write_error_ppm
	       : kind == OP_FLUSH ? f->faults.flush_error_ppm
				  : 0;
}

/* The error that this operation fails with, by order or by chance; 0: none. */
static int io_error(struct sim_io *io)
{
	struct sim_failure *failure = &io->file->failures[io->kind];

	if (failure->is_armed && failure->skip-- == 0) {
		failure->is_armed = false;
		return -failure->error;
	}
	return sim_chance(io->file->machine->sim, error_ppm(io->file, io->kind)) ? -EIO : 0;
}

static void io_free(struct sim_io *io)
{
	list_remove(&io->link);
	free(io);
}

static int io_settle(struct sim_io *io)
{
	int error = io_error(io);

	if (error != 0 && io->kind == OP_WRITE)
		write_settle(io, 500000);
	if (error != 0)
		return error;
	switch (io->kind) {
	case OP_READ:
		return read_happen(io);
	case OP_WRITE:
		return write_happen(io);
	case OP_FLUSH:
		return flush_happen(io);
	case OP_PUNCH:
		return punch_happen(io);
	case OP_NONE:
	case OP_ACCEPT:
	case OP_CONNECT:
	case OP_RECV:
	case OP_RECV_ALL:
	case OP_RECV_FDS:
	case OP_SEND:
	case OP_SEND_FDS:
	case OP_DEFER:
		break;
	}
	quarry_assert(!"not an operation of a file");
	return -EINVAL;
}

/* The process died before it learned of it; sim_files_crash() decides what happened. */
static void io_vanish(struct sim_event *e)
{
	struct sim_io *io = container_of(e, struct sim_io, event);

	io->op->kind = OP_NONE;
	io->op = NULL;
}

static void io_happen(struct sim_event *e)
{
	struct sim_io *io = container_of(e, struct sim_io, event);
	struct op *op = io->op;

	if (sim_io_counts(io->file->machine)) {
		io_vanish(e);
		return;
	}
	int res = io_settle(io);
	io->handle->n_ops--;
	io_free(io);
	op_deliver(op, res);
}

/* C: what O_DIRECT asks for. */
static void io_check(const struct sim_handle *h, const struct op *op)
{
	uintptr_t bits = op->pos_bytes | op->len_bytes;

	if (h->flags & FILE_BUFFERED)
		return;
	for (uint32_t i = 0; i < op->n_iov; i++)
		bits |= (uintptr_t)op->iov[i].iov_base | op->iov[i].iov_len;
	quarry_assert(bits % SECTOR_BYTES == 0);
}

static bool io_is_refused(const struct sim_handle *h, const struct op *op)
{
	bool is_change = op->kind == OP_WRITE || op->kind == OP_PUNCH;
	bool is_past_end = op->pos_bytes + op->len_bytes > h->file->size_bytes;

	return is_change && ((h->flags & FILE_READ_ONLY) || (h->file->is_device && is_past_end));
}

void sim_file_submit(struct sim_reactor *r, struct op *op)
{
	struct sim_handle *h = handle_of(op->file);
	struct sim_file *f = h->file;
	struct sim *s = r->machine->sim;

	quarry_assert(f != NULL && f->machine == r->machine);
	io_check(h, op);
	if (sim_io_counts(r->machine)) {
		sim_op_keep(r, op);
		return;
	}
	if (io_is_refused(h, op)) {
		op->kind = OP_NONE;
		reactor_defer(&r->base, op, h->flags & FILE_READ_ONLY ? -EBADF : -ENOSPC);
		return;
	}
	uint64_t first = op->pos_bytes / BLOCK_BYTES;
	uint64_t n = op->len_bytes > 0 ? (op->pos_bytes + op->len_bytes - 1) / BLOCK_BYTES - first + 1 : 0;
	struct sim_io *io = malloc(sizeof(*io) + (op->kind == OP_WRITE ? n : 0) * sizeof(io->blocks[0]));
	quarry_assert(io != NULL);
	*io = (struct sim_io){.event = {.happen = io_happen, .vanish = io_vanish},
			      .file = f,
			      .handle = h,
			      .op = op,
			      .kind = op->kind,
			      .first = first,
			      .n = n,
			      .mark = f->n_completions};
	list_init(&io->link);
	if (op->kind == OP_WRITE)
		write_begin(io);
	else if (op->kind == OP_PUNCH)
		punch_begin(io);
	list_append(&f->in_flight, &io->link);
	h->n_ops++;
	uint64_t slow_ns = sim_chance(s, f->faults.slow_ppm) ? f->faults.slow_ns : 0;
	sim_event_add(r, &io->event, slow_ns + sim_latency_ns(s, f->faults.latency_min_ns, f->faults.latency_max_ns));
}

/* ---- crashes ---- */

/* Kill: what was in flight lands whole, not at all, or in part. */
static void io_settle_killed(struct sim_io *io)
{
	struct sim *s = io->file->machine->sim;
	uint64_t fate = sim_below(s, 3);

	if (io->kind == OP_WRITE)
		write_settle(io, fate == 0 ? 0 : fate == 1 ? 1000000 : 500000);
	else if (io->kind == OP_FLUSH && fate > 0)
		flush_happen(io);
	else if (io->kind == OP_PUNCH && fate > 0)
		punch_happen(io);
}

static void file_crash(struct sim_file *f, enum sim_crash_kind kind)
{
	for (struct list *node; (node = list_pop(&f->in_flight)) != NULL;) {
		struct sim_io *io = container_of(node, struct sim_io, link);
		quarry_assert(io->op == NULL);
		if (kind == SIM_KILL || io->kind == OP_PUNCH)
			io_settle_killed(io);
		io_free(io);
	}
	if (kind == SIM_POWER_LOSS)
		file_lose_power(f);
	f->locked_by = NULL;
}

void sim_files_crash(struct sim_machine *m, enum sim_crash_kind kind)
{
	list_each (node, &m->files)
		file_crash(container_of(node, struct sim_file, link), kind);
	list_each (node, &m->handles)
		container_of(node, struct sim_handle, link)->file = NULL;
	list_splice(&m->dead_handles, &m->handles);
}
