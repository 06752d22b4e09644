/*
 * disk_slots.c: requests to the simulated disk: sent, answered, and their answers held against the oracle.
 *
 *   free --slot_take()--> prepared --slot_submit()--> busy --answer--> free
 *                                       ^              |
 *                                       +-world_retry()+  a trim that a fence cut short
 *
 * Invariants
 *  1. Every answer is judged at once: what was read, mapped or refused must be what the history allows.
 *  2. A slot that was cut short keeps its range, so that nothing is asked of it before it was submitted again.
 */
#include "tests/sim/disk/disk_world.h"

#include "daemon/core/checksum.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

static const char *op_name(enum disk_op op)
{
	static const char *const names[] = {[DISK_READ] = "read",
					    [DISK_WRITE] = "write",
					    [DISK_TRIM] = "trim",
					    [DISK_MAP] = "map",
					    [DISK_FLUSH] = "flush",
					    [DISK_CREATE] = "create",
					    [DISK_FORK] = "fork",
					    [DISK_DROP] = "drop",
					    [DISK_FENCE] = "fence",
					    [DISK_FORGET] = "forget",
					    [DISK_COMPLETE] = "complete",
					    [DISK_MEASURE] = "measure",
					    [DISK_STAMPS] = "stamps",
					    [DISK_COPY] = "copy",
					    [DISK_COPY_HOLES] = "copy holes",
					    [DISK_SWAP] = "swap",
					    [DISK_CUT] = "cut"};

	quarry_assert(op < array_size(names) && names[op]);
	return names[op];
}

void slots_say(const struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		const struct slot *s = &w->slots[i];
		if (s->is_busy)
			printf("  in flight: %s blocks %" PRIu64 "+%" PRIu64 ", stage %u\n", op_name(s->io.op),
			       s->io.first, s->io.n_blocks, s->io.own.stage);
	}
}

/* ---- answers ---- */

static void check_read(struct slot *s, int res)
{
	struct disk_world *w = s->world;

	if (res != 0 && (res != -EIO || s->io.bad_blocks == 0))
		world_fail(w, "read answered %d, bad blocks %" PRIx64, res, s->io.bad_blocks);
	for (uint32_t i = 0; i < s->io.n_blocks; i++) {
		uint64_t expected = oracle_expect(w->oracle, s->tree, s->cell + i);
		bool is_bad = s->io.bad_blocks >> i & 1;
		uint64_t token = content_token(s->memory + (uint64_t)i * BLOCK_BYTES);
		if (expected == ORACLE_UNKNOWN && (is_bad ? w->has_bad_cells : token != CONTENT_WRONG))
			continue;
		bool may_be_bad = expected == ORACLE_BAD || w->is_shaky;
		if ((is_bad ? !may_be_bad : expected == ORACLE_BAD) && !w->is_lenient)
			world_fail(w, "read of tree %" PRIu64 " block %" PRIu64 ": %s",
				   oracle_tree_id(w->oracle, s->tree), s->io.first + i,
				   is_bad ? "unreadable, but it is sound" : "readable, but it is damaged");
		if (w->is_lenient ? !is_bad && token == CONTENT_WRONG : !is_bad && token != expected)
			world_fail(w, "read of tree %" PRIu64 " block %" PRIu64 " returned %" PRIx64 ", not %" PRIx64,
				   oracle_tree_id(w->oracle, s->tree), s->io.first + i, token, expected);
	}
}

static bool is_all_zeros(const struct disk_io *io)
{
	return io->zero_blocks == (io->n_blocks == 64 ? UINT64_MAX : (1ull << io->n_blocks) - 1);
}

/* What a map says of one block; NULL: nothing, it did not change since. */
static void check_mapped(struct slot *s, uint64_t block, const struct disk_extent *e)
{
	struct disk_world *w = s->world;
	uint64_t expected = oracle_expect(w->oracle, s->tree, s->cell + (uint32_t)(block - s->io.first));
	bool is_known = expected != 0 && expected != ORACLE_BAD; /* its epoch is */

	if (expected == ORACLE_UNKNOWN || (expected == ORACLE_BAD && w->is_lenient))
		return;
	if (e == NULL && (s->io.since == 0 || (is_known && token_epoch(expected) >= s->io.since)))
		world_fail(w, "map since %" PRIu64 " leaves out block %" PRIu64 ", written in %" PRIu64, s->io.since,
			   block, token_epoch(expected));
	if (e != NULL && e->is_data != (expected != 0))
		world_fail(w, "map says that block %" PRIu64 " is %s, not %" PRIx64, block,
			   e->is_data ? "data" : "a hole", expected);
	if (e != NULL && e->epoch < s->io.since)
		world_fail(w, "map since %" PRIu64 " tells of block %" PRIu64 " in %" PRIu64, s->io.since, block,
			   e->epoch);
}

/* Extents must tell data from holes, in order, and leave out only what did not change since. */
static void check_map(struct slot *s, int res)
{
	struct disk_world *w = s->world;
	uint64_t at = s->io.first, end = s->io.first + s->io.n_blocks;

	if (res == -EIO && (w->is_lenient || w->is_shaky))
		return;
	if (res != 0)
		world_fail(w, "map answered %d", res);
	for (uint32_t i = 0; i < s->io.n_extents; i++) {
		const struct disk_extent *e = &s->extents[i];
		if (e->first < at || e->n_blocks == 0 || e->first >= end || e->n_blocks > end - e->first)
			world_fail(w, "map of %" PRIu64 "+%" PRIu64 ": extent %u is %" PRIu64 "+%" PRIu64, s->io.first,
				   s->io.n_blocks, i, e->first, e->n_blocks);
		while (at < e->first)
			check_mapped(s, at++, NULL);
		while (at < e->first + e->n_blocks)
			check_mapped(s, at++, e);
	}
	while (at < end && s->io.n_extents < s->io.extents_max)
		check_mapped(s, at++, NULL);
}

/* ---- trims on a full disk ---- */

static bool is_spared(uint64_t block, void *context)
{
	const struct slot *s = context;

	return s->shared >> leaf_of_block(s->world->leaves, block) & 1;
}

/* One that is answered with -ENOSPC did all that it could, and there is something that it had to leave. */
static void check_spared(struct slot *s)
{
	struct disk_world *w = s->world;

	w->totals.trims_in_part++;
	if (w->is_lenient)
		return;
	for (uint32_t cell = 0; cell < oracle_cells(w->oracle); cell++) {
		uint64_t block = oracle_cell_block(w->oracle, cell);
		bool is_inside = block >= s->io.first && block - s->io.first < s->io.n_blocks;
		if (is_inside && is_spared(block, s) && oracle_expect(w->oracle, s->tree, cell) != 0)
			return;
	}
	world_fail(w, "trim of tree %" PRIu64 " answered -ENOSPC, and no other tree shares what it was to free",
		   oracle_tree_id(w->oracle, s->tree));
}

static uint64_t shared_leaves(struct disk_world *w, uint32_t tree)
{
	struct disk_stats stats;

	disk_stats(w->disk, &stats);
	if (stats.dying_trees == 0)
		leaves_drained(w->leaves);
	return leaves_shared(w->leaves, tree);
}

/* ---- stamps ---- */

/* What a stamp says of one block. */
static void check_stamped(struct slot *s, uint64_t block, const struct disk_stamp *stamp)
{
	struct disk_world *w = s->world;
	uint64_t expected = oracle_expect(w->oracle, s->tree, s->cell + (uint32_t)(block - s->io.first));
	uint8_t content[BLOCK_BYTES];

	if (expected == ORACLE_UNKNOWN || expected == ORACLE_BAD)
		return;
	if (stamp->is_data != (expected != 0))
		world_fail(w, "stamps say that block %" PRIu64 " is %s, not %" PRIx64, block,
			   stamp->is_data ? "data" : "a hole", expected);
	if (!stamp->is_data)
		return;
	content_fill(expected, content);
	if (stamp->epoch != token_epoch(expected) || stamp->crc != crc32c(0, content, sizeof(content)))
		world_fail(w,
			   "stamps say that block %" PRIu64 " is of epoch %" PRIu64 " with checksum %08x, not %" PRIx64,
			   block, stamp->epoch, stamp->crc, expected);
}

/* Stamps follow each other from the first block on, to the last or until there is no room. */
static void check_stamps(struct slot *s, int res)
{
	struct disk_world *w = s->world;
	uint64_t at = s->io.first, end = s->io.first + s->io.n_blocks;

	if (res == -EIO && (w->is_lenient || w->is_shaky))
		return;
	if (res != 0)
		world_fail(w, "stamps answered %d", res);
	for (uint32_t i = 0; i < s->io.n_stamps; i++) {
		const struct disk_stamp *stamp = &s->stamps[i];
		if (stamp->first != at || stamp->n_blocks == 0 || stamp->n_blocks > end - at ||
		    (stamp->is_data && stamp->n_blocks > 1))
			world_fail(w, "stamp %u of %" PRIu64 "+%" PRIu64 " is %" PRIu64 "+%" PRIu64, i, s->io.first,
				   s->io.n_blocks, stamp->first, stamp->n_blocks);
		while (at < stamp->first + stamp->n_blocks)
			check_stamped(s, at++, stamp);
	}
	if (at < end && s->io.n_stamps < s->io.stamps_max)
		world_fail(w, "stamps of %" PRIu64 "+%" PRIu64 " end at %" PRIu64, s->io.first, s->io.n_blocks, at);
}

/* Leaf by leaf: the answer comes after the decision, and what was done before it stays. */
static bool goes_by_leaves(enum disk_op op)
{
	return op == DISK_TRIM || op == DISK_COPY_HOLES || op == DISK_CUT;
}

static uint64_t free_blocks_now(const struct disk_world *w)
{
	struct disk_stats stats;

	disk_stats(w->disk, &stats);
	return stats.free_blocks;
}

static void check_enospc(struct slot *s)
{
	struct disk_world *w = s->world;
	struct disk_stats stats;

	disk_stats(w->disk, &stats);
	s->least_free = min_u64(s->least_free, stats.free_blocks);
	w->totals.enospc++;
	if (s->io.op == DISK_DROP || s->io.op == DISK_COMPLETE || s->io.op == DISK_FORGET)
		world_fail(w, "%s answered -ENOSPC", op_name(s->io.op));
	if (s->io.op == DISK_TRIM)
		check_spared(s);
	/* New records, and what may copy leaves that snapshots share, reach into the reserve, but not to its end. A leaf for
	 * whose copy there was no room may lie before others freed some. */
	bool is_write = s->io.op == DISK_WRITE || s->io.op == DISK_COPY;
	uint64_t free_blocks = goes_by_leaves(s->io.op) ? s->least_free : stats.free_blocks;
	uint64_t slack = is_write ? 2 * DISK_IO_BLOCKS_MAX * WORLD_SLOTS : 0;
	if (free_blocks > stats.reserve_blocks + slack)
		world_fail(w, "%s answered -ENOSPC with %" PRIu64 " blocks free and a reserve of %" PRIu64,
			   op_name(s->io.op), free_blocks, stats.reserve_blocks);
}

void world_look_at_room(struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		struct slot *s = &w->slots[i];
		if (s->is_busy && goes_by_leaves(s->io.op))
			s->least_free = min_u64(s->least_free, free_blocks_now(w));
	}
}

/* Only a fence that is under way, or came between, makes a session stale. */
static void check_estale(struct slot *s)
{
	struct disk_world *w = s->world;
	const struct volume_state *v = s->tree == ORACLE_NONE ? NULL : &w->volumes[world_volume_of(w, s->tree)];

	if (s->io.op == DISK_CUT)
		v = &w->volumes[s->cut_volume];
	if (disk_state(w->disk) == DISK_FAILED) /* a fence that was not answered made it so */
		return;
	if (v == NULL || (!v->is_busy && v->session == s->io.session))
		world_fail(w, "%s answered -ESTALE in session %" PRIu64, op_name(s->io.op), s->io.session);
}

static void volume_answer(struct slot *s, int res)
{
	struct disk_world *w = s->world;
	struct volume_state *v = &w->volumes[s->volume];

	v->is_busy = false;
	if (res != 0)
		return;
	if (s->io.op == DISK_FENCE) {
		if (s->io.new_session <= v->session)
			world_fail(w, "fence answered session %" PRIu64 ", not above %" PRIu64, s->io.new_session,
				   v->session);
		if (s->io.complete_epoch != v->done.complete_epoch)
			world_fail(w, "fence answered complete epoch %" PRIu64 ", not %" PRIu64, s->io.complete_epoch,
				   v->done.complete_epoch);
		v->session = s->io.new_session;
	} else if (s->io.op == DISK_FORGET) {
		v->session = 0;
	}
	v->done = v->asked;
}

/* Errors that a request may be answered with, and what they say about it. */
static void check_result(struct slot *s, int res)
{
	struct disk_world *w = s->world;

	if (res == 0)
		return;
	if (res == -ENOSPC)
		check_enospc(s);
	else if (res == -ESTALE)
		check_estale(s);
	else if (res == -EEXIST && s->io.op == DISK_COPY && s->may_be_refused)
		return;
	else if (res != -EIO)
		world_fail(w, "%s answered %d", op_name(s->io.op), res);
	else if (disk_state(w->disk) != DISK_FAILED && !w->is_lenient && !w->is_shaky)
		world_fail(w, "%s answered -EIO on a disk that is %s", op_name(s->io.op),
			   disk_state_name(disk_state(w->disk)));
}

/* Was nothing of it done? What goes leaf by leaf may be done in part. */
static bool is_refusal(const struct slot *s, int res)
{
	return (res == -ENOSPC || res == -ESTALE || res == -EEXIST) && !goes_by_leaves(s->io.op);
}

/* What the answer says about who shares what. */
static void leaves_answer(struct slot *s, int res)
{
	struct leaves *l = s->world->leaves;
	bool is_making = s->io.op == DISK_CREATE || s->io.op == DISK_FORK;
	uint32_t made = is_making ? oracle_request_tree(s->world->oracle, s->request) : ORACLE_NONE;

	if (is_making && res != 0)
		leaves_dropped(l, made);
	else if (s->io.op == DISK_FORK)
		leaves_forked(l, s->tree, made);
	else if (s->io.op == DISK_DROP && res == 0)
		leaves_dropped(l, s->tree);
	else if ((s->io.op == DISK_WRITE || s->io.op == DISK_COPY) && res == 0 && !is_all_zeros(&s->io))
		leaves_written(l, s->tree, s->io.first, s->io.n_blocks);
}

static void request_answer(struct slot *s, int res)
{
	struct oracle *o = s->world->oracle;

	if (s->io.op == DISK_TRIM && res == -ENOSPC)
		oracle_done_in_part(o, s->request, is_spared, s);
	else
		oracle_done(o, s->request, res == 0, is_refusal(s, res));
	leaves_answer(s, res);
}

/* The contents keep their numbers, and are found in the other tree from now on. */
static void swap_answer(struct slot *s, int res)
{
	struct disk_world *w = s->world;
	struct disk_tree *handle = w->handles[s->tree];

	oracle_swap_done(w->oracle, res == 0, is_refusal(s, res));
	if (res != 0)
		return;
	w->handles[s->tree] = w->handles[s->other];
	w->handles[s->other] = handle;
}

static void slot_answer(struct slot *s, int res)
{
	struct disk_world *w = s->world;
	bool is_failed = disk_state(w->disk) == DISK_FAILED;

	if (s->io.op == DISK_READ || s->io.op == DISK_MAP || s->io.op == DISK_STAMPS) {
		if (is_failed && res == -EIO)
			return;
		if (s->io.op == DISK_READ)
			check_read(s, res);
		else if (s->io.op == DISK_MAP)
			check_map(s, res);
		else
			check_stamps(s, res);
		return;
	}
	check_result(s, res);
	if (s->io.op == DISK_COPY && res == 0 && s->must_be_refused)
		world_fail(w, "copy replaced what was of epoch %" PRIu64 " or a later one", s->io.before);
	if (s->request != ORACLE_NONE)
		request_answer(s, res);
	for (uint32_t i = 0; i < s->n_requests; i++)
		oracle_done(w->oracle, s->requests[i], res == 0, false);
	if (s->io.op == DISK_SWAP)
		swap_answer(s, res);
	if (s->volume != ORACLE_NONE)
		volume_answer(s, res);
	if (s->io.op == DISK_FLUSH && res == 0)
		oracle_flush_done(w->oracle, s->mark);
	if ((s->io.op == DISK_CREATE || s->io.op == DISK_FORK) && res == 0)
		world_handle_set(w, oracle_request_tree(w->oracle, s->request), s->io.new_tree);
}

static void slot_done(struct disk_io *io, int res)
{
	struct slot *s = container_of(io, struct slot, io);
	struct disk_world *w = s->world;

	quarry_assert(s->is_busy && w->n_busy > 0);
	if (io->op != DISK_READ || res != 0)
		world_say(w, "%s tree %d %" PRIu64 "+%" PRIu64 " (request %d): %d", op_name(io->op),
			  s->tree == ORACLE_NONE ? -1 : (int)oracle_tree_id(w->oracle, s->tree), io->first,
			  io->n_blocks, (int)s->request, res);
	s->res = res;
	slot_answer(s, res);
	if (io->op == DISK_TRIM &&
	    res == -ESTALE) { /* part of it may be done: its blocks are unknown until it is repeated */
		s->is_cut_short = true;
		return;
	}
	s->is_busy = false;
	w->n_busy--;
	w->n_done++;
}

/* ---- slots ---- */

struct slot *slot_take(struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		struct slot *s = &w->slots[i];
		if (s->is_busy)
			continue;
		s->io = (struct disk_io){.done = slot_done};
		s->world = w;
		s->tree = s->other = s->request = s->volume = ORACLE_NONE;
		s->n_requests = 0;
		return s;
	}
	return NULL;
}

void slot_submit(struct slot *s)
{
	struct disk_world *w = s->world;

	quarry_assert(!s->is_busy && w->disk != NULL);
	s->is_busy = true;
	w->n_busy++;
	w->totals.requests++;
	if (s->io.op == DISK_FLUSH)
		s->mark = oracle_flush_begin(w->oracle);
	if (s->io.op == DISK_TRIM)
		s->shared = shared_leaves(w, s->tree);
	s->least_free = free_blocks_now(w);
	if (s->io.op == DISK_CREATE)
		leaves_made(w->leaves, oracle_request_tree(w->oracle, s->request));
	if (s->io.op == DISK_FORK)
		leaves_forked(w->leaves, s->tree, oracle_request_tree(w->oracle, s->request));
	if (s->io.op != DISK_READ)
		world_say(w, "> %s tree %d %" PRIu64 "+%" PRIu64 " (request %d)%s", op_name(s->io.op),
			  s->tree == ORACLE_NONE ? -1 : (int)oracle_tree_id(w->oracle, s->tree), s->io.first,
			  s->io.n_blocks, (int)s->request, s->io.is_ordered ? " ordered" : "");
	disk_submit(w->disk, &s->io);
}

/* Its volume's session is known, and its tree is not being forked. */
static bool can_retry(const struct disk_world *w, const struct slot *s)
{
	if (w->volumes[world_volume_of(w, s->tree)].is_busy)
		return false;
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		const struct slot *other = &w->slots[i];
		if (other->is_busy && other->tree == s->tree && other->io.op == DISK_FORK)
			return false;
	}
	return true;
}

void world_retry(struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		struct slot *s = &w->slots[i];
		if (!s->is_busy || !s->is_cut_short || !can_retry(w, s))
			continue;
		s->is_busy = s->is_cut_short = false;
		w->n_busy--;
		s->io.session = world_session(w, s->tree);
		s->io.epoch = w->epoch;
		s->request = oracle_trim(w->oracle, s->tree, s->io.first, s->io.n_blocks);
		slot_submit(s);
	}
}

int slot_call(struct slot *s)
{
	slot_submit(s);
	if (world_wait(s->world, world_is_idle, op_name(s->io.op)) == SIM_CRASH_DUE)
		return -EINTR;
	return s->res;
}

void slot_use_memory(struct slot *s, uint32_t n_blocks)
{
	struct disk_world *w = s->world;
	uint64_t sectors = (uint64_t)n_blocks * (BLOCK_BYTES / SECTOR_BYTES), at = 0;
	uint32_t n = 0;
	bool is_cut = world_one_in(w, 3);

	while (at < sectors) {
		uint64_t piece = sectors - at;
		if (is_cut && n + 1 < DISK_IO_BLOCKS_MAX)
			piece = 1 + world_pick(w, world_one_in(w, 2) ? piece : min_u64(piece, 20));
		s->iov[n++] = (struct iovec){s->memory + at * SECTOR_BYTES, piece * SECTOR_BYTES};
		at += piece;
	}
	s->io.iov = s->iov;
	s->io.n_iov = n;
	quarry_assert(n <= DISK_IO_BLOCKS_MAX);
}
