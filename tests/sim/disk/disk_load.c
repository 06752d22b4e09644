/*
 * disk_load.c: random requests on the trees of a simulated disk, within what a disk asks of its caller.
 *
 * What the load takes care of (volumes/disk/disk.h)
 *  1. No two overlapping changes of a tree in flight, and no read or map of what is being changed.
 *  2. Nothing is changed on a tree while it is being forked; nothing at all is asked of one that is being dropped or
 *     swapped. While a range of a volume's trees is being cut, none of them comes, goes or is copied.
 *  3. Epochs never decrease, and grow with every fork.
 *  4. One command at a time on a volume's record. A fence may make requests in flight stale.
 */
#include "tests/sim/disk/disk_world.h"

#include "daemon/core/checksum.h"

#include <string.h>

/* ---- choosing ---- */

static bool overlaps(const struct disk_io *a, uint64_t first, uint64_t n)
{
	return a->first < first + n && first < a->first + a->n_blocks;
}

static bool is_range_change(enum disk_op op)
{
	return op == DISK_WRITE || op == DISK_TRIM || op == DISK_COPY || op == DISK_COPY_HOLES || op == DISK_CUT;
}

/* Nothing else may be asked of the tree meanwhile. */
static bool is_exclusive(enum disk_op op)
{
	return op == DISK_DROP || op == DISK_SWAP;
}

/* Is the request of the slot about this tree? */
static bool slot_names(const struct disk_world *w, const struct slot *s, uint32_t tree)
{
	if (s->io.op == DISK_CUT)
		return s->cut_volume == world_volume_of(w, tree);
	return s->tree == tree || s->other == tree;
}

/* May this be asked of the tree now? (1, 2) */
static bool is_allowed(const struct disk_world *w, uint32_t tree, enum disk_op op, uint64_t first, uint64_t n)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++) {
		const struct slot *s = &w->slots[i];
		if (!s->is_busy || !slot_names(w, s, tree))
			continue;
		if (is_exclusive(op) || is_exclusive(s->io.op))
			return false;
		if (op == DISK_FORK || s->io.op == DISK_FORK) {
			if (op == s->io.op || (s->io.op == DISK_FORK && is_range_change(op)))
				return false;
			continue;
		}
		if ((is_range_change(op) || is_range_change(s->io.op)) && overlaps(&s->io, first, n))
			return false;
	}
	return true;
}

/* A live tree, or ORACLE_NONE. */
static uint32_t pick_tree(struct disk_world *w)
{
	uint32_t trees[WORLD_TREES_MAX];
	uint32_t n = world_live_trees(w, trees);

	return n > 0 ? trees[world_pick(w, n)] : ORACLE_NONE;
}

static uint32_t pick_length(struct disk_world *w, uint32_t most)
{
	static const uint32_t lengths[] = {1, 4, 64, 64};
	uint32_t length = 1 + (uint32_t)world_pick(w, lengths[world_pick(w, array_size(lengths))]);

	if (world_one_in(w, 8))
		length = DISK_IO_BLOCKS_MAX;
	return (uint32_t)min_u64(length, most);
}

struct range {
	uint32_t tree, cell, n;
	uint64_t first;
};

/* Some blocks inside one window of a live tree where this may be asked. */
static bool pick_range(struct disk_world *w, enum disk_op op, struct range *r)
{
	const struct oracle_window *window = &w->settings.windows[world_pick(w, w->settings.n_windows)];

	r->tree = pick_tree(w);
	if (r->tree == ORACLE_NONE)
		return false;
	uint32_t offset = (uint32_t)world_pick(w, window->n_blocks);
	r->n = pick_length(w, window->n_blocks - offset);
	r->first = window->first + offset;
	r->cell = offset;
	for (const struct oracle_window *before = w->settings.windows; before < window; before++)
		r->cell += before->n_blocks;
	return is_allowed(w, r->tree, op, r->first, r->n);
}

/* ---- requests on blocks ---- */

static uint64_t pick_zero_blocks(struct disk_world *w, uint32_t n)
{
	uint64_t all = n == 64 ? UINT64_MAX : (1ull << n) - 1;

	if (world_one_in(w, 12))
		return all;
	return world_one_in(w, 6) ? sim_split(&w->random_state) & all : 0;
}

static void fill_write(struct slot *s)
{
	for (uint32_t i = 0; i < s->io.n_blocks; i++) {
		uint8_t *block = s->memory + (uint64_t)i * BLOCK_BYTES;
		content_fill(oracle_token(s->world->oracle, s->request, i), block);
		s->crcs[i] = crc32c(0, block, BLOCK_BYTES);
	}
	s->io.crcs = s->crcs;
}

static struct slot *take_for_range(struct disk_world *w, enum disk_op op, const struct range *r)
{
	struct slot *s = slot_take(w);

	if (s == NULL)
		return NULL;
	s->io.op = op;
	s->io.tree = w->handles[r->tree];
	s->io.first = r->first;
	s->io.n_blocks = r->n;
	s->io.epoch = w->epoch;
	s->io.session = world_session(w, r->tree);
	s->tree = r->tree;
	s->cell = r->cell;
	return s;
}

bool load_write(struct disk_world *w)
{
	struct range r;

	if (!pick_range(w, DISK_WRITE, &r))
		return false;
	struct slot *s = take_for_range(w, DISK_WRITE, &r);
	if (s == NULL)
		return false;
	struct oracle_write write = {.tree = r.tree,
				     .first = r.first,
				     .n_blocks = r.n,
				     .zero_blocks = pick_zero_blocks(w, r.n),
				     .epoch = w->epoch,
				     .is_ordered = world_one_in(w, 8)};
	s->request = oracle_write(w->oracle, &write);
	s->io.zero_blocks = write.zero_blocks;
	s->io.is_ordered = write.is_ordered;
	fill_write(s);
	slot_use_memory(s, r.n);
	slot_submit(s);
	return true;
}

bool load_read(struct disk_world *w)
{
	struct range r;

	if (!pick_range(w, DISK_READ, &r))
		return false;
	struct slot *s = take_for_range(w, DISK_READ, &r);
	if (s == NULL)
		return false;
	slot_use_memory(s, r.n);
	slot_submit(s);
	return true;
}

static bool load_map(struct disk_world *w)
{
	struct range r;

	if (!pick_range(w, DISK_MAP, &r))
		return false;
	struct slot *s = take_for_range(w, DISK_MAP, &r);
	if (s == NULL)
		return false;
	s->io.extents = s->extents;
	s->io.extents_max = 1 + (uint32_t)world_pick(w, WORLD_EXTENTS);
	s->io.since = world_one_in(w, 3) ? world_pick(w, w->epoch + 2) : 0;
	slot_submit(s);
	return true;
}

static bool trim_submit(struct disk_world *w, const struct range *r, uint64_t first, uint64_t n)
{
	if (!is_allowed(w, r->tree, DISK_TRIM, first, n))
		return false;
	struct slot *s = take_for_range(w, DISK_TRIM, r);
	if (s == NULL)
		return false;
	s->io.first = first;
	s->io.n_blocks = n;
	s->request = oracle_trim(w->oracle, r->tree, first, n);
	slot_submit(s);
	return true;
}

/* A few blocks, a window, or a stretch of the volume with all that is in it. */
bool load_trim(struct disk_world *w)
{
	struct range r;

	if (!pick_range(w, DISK_TRIM, &r))
		return false;
	struct disk_io wide = {.first = r.first, .n_blocks = r.n};
	uint64_t pick = world_pick(w, 8);
	if (pick == 0)
		wide.n_blocks += world_pick(w, 1000);
	else if (pick == 1)
		wide = (struct disk_io){.first = world_pick(w, 1ull << 17), .n_blocks = 1 + world_pick(w, 1ull << 34)};
	return trim_submit(w, &r, wide.first, wide.n_blocks);
}

bool load_trim_of_youngest(struct disk_world *w)
{
	uint32_t trees[WORLD_TREES_MAX], n = world_live_trees(w, trees);
	struct range r;

	if (n == 0 || !pick_range(w, DISK_TRIM, &r))
		return false;
	r.tree = trees[n - 1];
	return trim_submit(w, &r, r.first, 1);
}

/* ---- what a copy from another disk asks ---- */

static uint32_t trees_in_making(const struct disk_world *w)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		n += w->slots[i].is_busy && (w->slots[i].io.op == DISK_FORK || w->slots[i].io.op == DISK_CREATE);
	return n;
}

static bool is_being_cut(const struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		if (w->slots[i].is_busy && w->slots[i].io.op == DISK_CUT)
			return true;
	return false;
}

/* An epoch that the source may have had it from, and what the target may have that is too new. */
static void pick_epochs(struct disk_world *w, struct slot *s)
{
	s->io.epoch = world_one_in(w, 3) ? w->epoch : 1 + world_pick(w, w->epoch);
	s->io.before = world_one_in(w, 3) ? 1 + world_pick(w, w->epoch + 1) : UINT64_MAX;
}

static bool load_copy(struct disk_world *w)
{
	struct range r;

	if (!pick_range(w, DISK_COPY, &r))
		return false;
	struct slot *s = take_for_range(w, DISK_COPY, &r);
	if (s == NULL)
		return false;
	pick_epochs(w, s);
	s->must_be_refused = s->may_be_refused = false;
	for (uint32_t i = 0; i < r.n; i++) {
		uint64_t there = oracle_expect(w->oracle, r.tree, r.cell + i);
		bool is_known = there != 0 && there != ORACLE_UNKNOWN && there != ORACLE_BAD; /* its epoch is */
		bool is_newer = is_known && token_epoch(there) >= s->io.before;
		s->epochs[i] = s->io.epoch;
		s->must_be_refused |= is_newer;
		s->may_be_refused |= is_newer || (!is_known && s->io.before != UINT64_MAX);
	}
	struct oracle_write write = {.tree = r.tree,
				     .first = r.first,
				     .n_blocks = r.n,
				     .zero_blocks = pick_zero_blocks(w, r.n),
				     .epoch = s->io.epoch};
	s->request = oracle_write(w->oracle, &write);
	s->io.zero_blocks = write.zero_blocks;
	s->io.epochs = s->epochs;
	fill_write(s);
	slot_use_memory(s, r.n);
	slot_submit(s);
	return true;
}

static bool load_copy_holes(struct disk_world *w)
{
	struct range r;

	if (!pick_range(w, DISK_COPY_HOLES, &r))
		return false;
	uint64_t n = r.n + (world_one_in(w, 4) ? world_pick(w, 1000) : 0);
	if (!is_allowed(w, r.tree, DISK_COPY_HOLES, r.first, n))
		return false;
	struct slot *s = take_for_range(w, DISK_COPY_HOLES, &r);
	if (s == NULL)
		return false;
	pick_epochs(w, s);
	s->io.n_blocks = n;
	if (w->has_bad_cells) /* the oracle does not know of which epoch a damaged block is */
		s->io.before = UINT64_MAX;
	s->request = oracle_copy_holes(w->oracle, r.tree, r.first, n, s->io.before);
	slot_submit(s);
	return true;
}

static bool load_stamps(struct disk_world *w)
{
	struct range r;

	if (!pick_range(w, DISK_STAMPS, &r))
		return false;
	struct slot *s = take_for_range(w, DISK_STAMPS, &r);
	if (s == NULL)
		return false;
	s->io.stamps = s->stamps;
	s->io.stamps_max = 1 + (uint32_t)world_pick(w, WORLD_EXTENTS);
	slot_submit(s);
	return true;
}

static bool load_swap(struct disk_world *w)
{
	uint32_t a = pick_tree(w), b = pick_tree(w);

	for (uint32_t i = 0; i < WORLD_SLOTS; i++)
		if (w->slots[i].is_busy && w->slots[i].io.op == DISK_SWAP)
			return false; /* the oracle follows one at a time */
	if (a == ORACLE_NONE || a == b || world_volume_of(w, a) != world_volume_of(w, b) ||
	    !is_allowed(w, a, DISK_SWAP, 0, 0) || !is_allowed(w, b, DISK_SWAP, 0, 0))
		return false;
	struct slot *s = slot_take(w);
	if (s == NULL)
		return false;
	s->io.op = DISK_SWAP;
	s->io.tree = w->handles[a];
	s->io.tree_id = oracle_tree_id(w->oracle, b);
	s->io.session = world_session(w, a);
	s->tree = a;
	s->other = b;
	oracle_swap_begin(w->oracle, a, b);
	slot_submit(s);
	return true;
}

/* A part of a window, in all trees of a volume. */
static bool load_cut(struct disk_world *w)
{
	uint32_t trees[WORLD_TREES_MAX], n = world_live_trees(w, trees);
	struct range r;

	if (!pick_range(w, DISK_CUT, &r) || is_being_cut(w) || trees_in_making(w) > 0)
		return false;
	uint32_t volume = world_volume_of(w, r.tree);
	for (uint32_t i = 0; i < n; i++)
		if (world_volume_of(w, trees[i]) == volume && !is_allowed(w, trees[i], DISK_CUT, r.first, r.n))
			return false;
	struct slot *s = slot_take(w);
	if (s == NULL)
		return false;
	s->io.op = DISK_CUT;
	s->io.volume = w->volumes[volume].uuid;
	s->io.session = w->volumes[volume].session;
	s->io.first = r.first;
	s->io.n_blocks = r.n;
	s->cut_volume = volume;
	for (uint32_t i = 0; i < n; i++)
		if (world_volume_of(w, trees[i]) == volume)
			s->requests[s->n_requests++] = oracle_trim(w->oracle, trees[i], r.first, r.n);
	slot_submit(s);
	return true;
}

static bool load_flush(struct disk_world *w)
{
	struct slot *s = slot_take(w);

	if (s == NULL)
		return false;
	s->io.op = DISK_FLUSH;
	slot_submit(s);
	return true;
}

/* ---- commands on trees ---- */

static bool has_room_for_tree(const struct disk_world *w)
{
	uint32_t trees[WORLD_TREES_MAX];

	return world_live_trees(w, trees) + trees_in_making(w) < w->trees_wanted;
}

/* The volume of a tree is in its id. */
static uint64_t next_tree_id(struct disk_world *w)
{
	return w->next_tree_id++ * WORLD_TREE_VOLUMES + world_pick(w, WORLD_TREE_VOLUMES);
}

bool load_create(struct disk_world *w)
{
	struct slot *s = has_room_for_tree(w) && !is_being_cut(w) ? slot_take(w) : NULL;

	if (s == NULL)
		return false;
	s->io.op = DISK_CREATE;
	s->io.tree_id = next_tree_id(w);
	s->io.volume = w->volumes[s->io.tree_id % WORLD_TREE_VOLUMES].uuid;
	s->io.epoch = w->epoch++;
	s->request = oracle_make(w->oracle, s->io.tree_id);
	slot_submit(s);
	return true;
}

bool load_fork(struct disk_world *w)
{
	uint32_t parent = pick_tree(w);

	if (parent == ORACLE_NONE || !has_room_for_tree(w) || is_being_cut(w) ||
	    !is_allowed(w, parent, DISK_FORK, 0, 0))
		return false;
	struct slot *s = slot_take(w);
	if (s == NULL)
		return false;
	s->io.op = DISK_FORK;
	s->io.tree = w->handles[parent];
	s->io.session = world_session(w, parent);
	s->io.tree_id = next_tree_id(w);
	s->io.volume = w->volumes[s->io.tree_id % WORLD_TREE_VOLUMES].uuid;
	s->io.epoch = w->epoch++;
	s->tree = parent;
	s->request = oracle_fork(w->oracle, parent, s->io.tree_id);
	slot_submit(s);
	return true;
}

bool load_drop(struct disk_world *w)
{
	uint32_t trees[WORLD_TREES_MAX], tree = pick_tree(w);

	if (tree == ORACLE_NONE || world_live_trees(w, trees) < 2 || !is_allowed(w, tree, DISK_DROP, 0, 0))
		return false;
	struct slot *s = slot_take(w);
	if (s == NULL)
		return false;
	s->io.op = DISK_DROP;
	s->io.tree = w->handles[tree];
	s->io.session = world_session(w, tree);
	s->tree = tree;
	s->request = oracle_drop(w->oracle, tree);
	slot_submit(s);
	return true;
}

/* ---- commands on volumes ---- */

static void facts_ask(struct disk_world *w, struct slot *s, struct volume_facts *f)
{
	if (s->io.op == DISK_FENCE) {
		f->exists = true;
		f->generation += world_pick(w, 3);
		s->io.generation = f->generation;
		s->io.size_blocks = 1ull << 40;
	} else if (s->io.op == DISK_COMPLETE) {
		f->complete_epoch = max_u64(f->complete_epoch, w->epoch);
		s->io.epoch = f->complete_epoch;
	} else {
		*f = (struct volume_facts){.exists = false};
	}
}

static bool load_volume(struct disk_world *w)
{
	uint32_t volume = (uint32_t)world_pick(w, WORLD_VOLUMES);
	struct volume_state *v = &w->volumes[volume];
	enum disk_op op = world_one_in(w, 2) ? DISK_FENCE : DISK_COMPLETE;

	if (volume >= WORLD_TREE_VOLUMES && world_one_in(w, 3))
		op = DISK_FORGET;
	if (v->is_busy || (op == DISK_COMPLETE && !v->done.exists))
		return false;
	struct slot *s = slot_take(w);
	if (s == NULL)
		return false;
	s->io.op = op;
	s->io.volume = v->uuid;
	s->volume = volume;
	v->is_busy = true;
	v->asked = v->done;
	facts_ask(w, s, &v->asked);
	slot_submit(s);
	return true;
}

/* ---- the load ---- */

static bool load_tend(struct disk_world *w)
{
	if (world_one_in(w, 2)) {
		disk_checkpoint(w->disk);
		world_say(w, "> checkpoint");
	} else if (disk_scrub_start(w->disk, world_one_in(w, 2) ? 0 : 64 * MIB, world_one_in(w, 2)) == 0) {
		world_say(w, "> scrub");
		w->totals.scrubs++;
	}
	return false; /* nothing to wait for */
}

struct choice {
	bool (*submit)(struct disk_world *w);
	uint32_t weight;
};

static bool load_one(struct disk_world *w, const struct load *l)
{
	const struct choice choices[] = {{load_write, l->write_weight},
					 {load_read, 16},
					 {load_trim, 6},
					 {load_map, 4},
					 {load_flush, 8},
					 {load_copy, 8},
					 {load_copy_holes, 4},
					 {load_stamps, 4},
					 {load_swap, 2},
					 {load_cut, 1},
					 {load_fork, 2},
					 {load_drop, 1},
					 {load_create, 1},
					 {load_volume, 3},
					 {load_tend, 1}};
	uint64_t total = 0;

	for (size_t i = 0; i < array_size(choices); i++)
		total += choices[i].weight;
	uint64_t pick = world_pick(w, total);
	for (size_t i = 0; i < array_size(choices); i++) {
		if (pick < choices[i].weight)
			return choices[i].submit(w);
		pick -= choices[i].weight;
	}
	return false;
}

enum sim_outcome load_run(struct disk_world *w, const struct load *l)
{
	uint32_t submitted = 0;
	uint64_t tries = 0;

	while (submitted < l->n_requests && tries++ < 20ull * l->n_requests && !w->has_failed) {
		if (world_one_in(w, 40))
			w->epoch++;
		while (w->n_busy < l->concurrency && submitted < l->n_requests && !world_one_in(w, 4) && !w->has_failed)
			submitted += load_one(w, l);
		world_step(w);
		world_retry(w);
		if (sim_crash_is_due(w->machine))
			return SIM_CRASH_DUE;
	}
	return world_wait(w, world_is_idle, "answer");
}
