/*
 * disk_judge.c: whether what a simulated disk holds is sound: its image, by the offline check, and what it shows after
 * a recovery, by the oracle.
 */
#include "tests/sim/disk/disk_world.h"
#include "tests/sim/sim_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* ---- the offline check ---- */

static int check(struct disk_world *w, struct sim_check *c, bool skip_data)
{
	w->totals.checks++;
	sim_check_init(c, w->medium);
	c->check.skip_data = skip_data;
	return disk_check_run(&c->check);
}

void world_check(struct disk_world *w, bool is_closed_clean)
{
	struct sim_check c;
	int res = check(w, &c, w->has_bad_cells);
	const struct disk_check *found = &c.check;

	if (w->is_lenient)
		return;
	if (res == 0 && found->errors == 0 &&
	    (!is_closed_clean || (found->is_clean && found->journal_blocks_to_replay == 0)))
		return;
	for (uint32_t i = 0; i < FINDINGS_KEPT_MAX && c.findings[i][0]; i++)
		printf("  check: %s\n", c.findings[i]);
	world_fail(w, "check answered %d with %" PRIu64 " errors; clean %d, %" PRIu64 " journal blocks to replay", res,
		   found->errors, found->is_clean, found->journal_blocks_to_replay);
}

void world_check_finds(struct disk_world *w)
{
	struct sim_check c;
	int res = check(w, &c, false);
	const struct disk_check *found = &c.check;

	if (res != -EUCLEAN || found->errors == 0 || c.n_findings == 0)
		world_fail(w, "check answered %d with %" PRIu64 " errors where a data block is damaged", res,
			   found->errors);
}

void world_check_empty(struct disk_world *w)
{
	struct sim_check c;
	int res = check(w, &c, false);
	const struct disk_check *found = &c.check;

	if (res != 0 || found->data_blocks > 0 || found->trees > 0)
		world_fail(w, "check of an empty disk answered %d, with %" PRIu64 " data blocks and %" PRIu64 " trees",
			   res, found->data_blocks, found->trees);
}

/* ---- judging ---- */

static void see_tree(const struct tree_record *t, void *context)
{
	struct disk_world *w = context;

	if (t->state != TREE_LIVE)
		return;
	uint32_t tree = oracle_tree_find(w->oracle, t->tree_id);
	if (tree == ORACLE_NONE)
		world_fail(w, "tree %" PRIu64 " is there, and nobody made it", t->tree_id);
	uint32_t volume = world_volume_of(w, tree);
	if (!uuid_equal(&t->volume, &w->volumes[volume].uuid))
		world_fail(w, "tree %" PRIu64 " belongs to another volume", t->tree_id);
	struct disk_tree *handle = disk_tree_find(w->disk, &t->volume, t->tree_id);
	if (handle == NULL)
		world_fail(w, "tree %" PRIu64 " is listed and not found", t->tree_id);
	world_handle_set(w, tree, handle);
	oracle_see_tree(w->oracle, tree);
}

/* The raw answer of a read while the oracle does not know yet what to expect. */
static void see_done(struct disk_io *io, int res)
{
	struct slot *s = container_of(io, struct slot, io);
	struct disk_world *w = s->world;

	if (res != 0 && res != -EIO)
		world_fail(w, "read after recovery answered %d", res);
	for (uint32_t i = 0; i < io->n_blocks; i++) {
		bool is_bad = res == -EIO && (io->bad_blocks >> i & 1);
		uint64_t token = content_token(s->memory + (uint64_t)i * BLOCK_BYTES);
		oracle_see(w->oracle, s->tree, s->cell + i, is_bad ? ORACLE_BAD : token);
	}
	s->is_busy = false;
	w->n_busy--;
	w->n_done++;
}

static bool has_free_slot(void *context)
{
	return ((struct disk_world *)context)->n_busy < WORLD_SLOTS;
}

/* done NULL: the slot's own, which judges the answer. */
static void see_cells(struct disk_world *w, uint32_t tree, uint32_t cell, uint32_t n,
		      void (*done)(struct disk_io *io, int res))
{
	if (world_wait(w, has_free_slot, "read") == SIM_CRASH_DUE)
		world_fail(w, "a crash is due while reading");
	struct slot *s = slot_take(w);
	if (done != NULL)
		s->io.done = done;
	s->io.op = DISK_READ;
	s->io.tree = w->handles[tree];
	s->io.first = oracle_cell_block(w->oracle, cell);
	s->io.n_blocks = n;
	s->tree = tree;
	s->cell = cell;
	slot_use_memory(s, n);
	slot_submit(s);
}

static void see_whole_tree(struct disk_world *w, uint32_t tree, void (*done)(struct disk_io *io, int res))
{
	uint32_t cell = 0;

	for (uint32_t i = 0; i < w->settings.n_windows; i++) {
		uint32_t end = cell + w->settings.windows[i].n_blocks;
		while (cell < end) {
			uint32_t n = (uint32_t)min_u64(end - cell, DISK_IO_BLOCKS_MAX);
			see_cells(w, tree, cell, n, done);
			cell += n;
		}
	}
}

static bool facts_are(const struct volume_facts *f, bool exists, const struct volume_record *r)
{
	if (f->exists != exists)
		return false;
	return !exists || (f->generation == r->generation && f->complete_epoch == r->complete_epoch);
}

static void verify_volumes(struct disk_world *w)
{
	for (uint32_t i = 0; i < WORLD_VOLUMES; i++) {
		struct volume_state *v = &w->volumes[i];
		struct volume_record r = {.generation = 0};
		bool exists = disk_volume(w->disk, &v->uuid, &r);
		bool is_done = facts_are(&v->done, exists, &r), is_asked = facts_are(&v->asked, exists, &r);
		if (!is_done && !is_asked && !w->is_lenient)
			world_fail(w,
				   "volume %u: exists %d, generation %" PRIu64 ", complete %" PRIu64
				   "; answered %d %" PRIu64 " %" PRIu64 ", asked %d %" PRIu64 " %" PRIu64,
				   i, exists, r.generation, r.complete_epoch, v->done.exists, v->done.generation,
				   v->done.complete_epoch, v->asked.exists, v->asked.generation,
				   v->asked.complete_epoch);
		if (exists && is_done && r.session < v->session && !w->is_lenient)
			world_fail(w, "volume %u: session %" PRIu64 " is below %" PRIu64, i, r.session, v->session);
		v->done = v->asked = (struct volume_facts){exists, r.generation, r.complete_epoch};
		v->session = exists ? r.session : 0;
	}
}

void world_verify(struct disk_world *w)
{
	char why[ORACLE_WHY_BYTES];
	uint32_t n = oracle_trees(w->oracle);

	quarry_assert(w->n_busy == 0 && w->is_opened && w->open_res == 0);
	oracle_crash(w->oracle, false);
	for (uint32_t i = 0; i < n; i++)
		world_handle_set(w, i, NULL);
	disk_trees_each(w->disk, see_tree, w);
	for (uint32_t i = 0; i < n; i++) {
		if (w->handles[i] != NULL)
			see_whole_tree(w, i, see_done);
	}
	if (world_wait(w, world_is_idle, "read") == SIM_CRASH_DUE)
		world_fail(w, "a crash is due while reading");
	if (!oracle_judge(w->oracle, w->is_lenient ? ORACLE_DAMAGED : ORACLE_STRICT, why))
		world_fail(w, "%s", why);
	for (uint32_t i = 0; i < n; i++)
		leaves_recovered(w->leaves, i, oracle_tree_is_live(w->oracle, i));
	for (uint32_t i = 0; i < n; i++) { /* a swap that was in flight may have been made */
		uint64_t id = oracle_tree_is_live(w->oracle, i) ? oracle_tree_id(w->oracle, i) : 0;
		if (id != 0)
			world_handle_set(w, i, disk_tree_find(w->disk, &w->volumes[world_volume_of(w, i)].uuid, id));
	}
	verify_volumes(w);
	world_say(w, "judged");
}

void world_look(struct disk_world *w)
{
	uint32_t trees[WORLD_TREES_MAX], n = world_live_trees(w, trees);

	quarry_assert(w->n_busy == 0);
	for (uint32_t i = 0; i < n; i++)
		see_whole_tree(w, trees[i], NULL);
	if (world_wait(w, world_is_idle, "read") == SIM_CRASH_DUE)
		world_fail(w, "a crash is due while reading");
}
