/*
 * history_scenario.c: the story of a seed: volumes, snapshots, clones, rollbacks, in any order, with crashes in between.
 *
 * Everything is done one after the other, but a snapshot finds writes in flight: of these, each is in it or not. An
 * operation that a crash has cut off has happened or not; what the set says after its restart decides, and from then on
 * the model knows. Some volumes are served while they are filled (history_fill.c). After every round all cells of all
 * volumes and snapshots are read, some differences are asked for, and the disks are checked.
 */
#include "tests/sim/history/history_world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PENDING_MAX 4u

/* A write, trim or zero of one cell. */
struct cell_io {
	struct volume_io io;
	struct history_world *world;
	struct iovec iov;
	uint32_t memory[BLOCK_BYTES / sizeof(uint32_t)] __attribute__((aligned(4096)));
	struct model_volume *volume;
	uint32_t cell, old_value, old_version, value, version;
	bool is_done;
};
static struct cell_io *ios; /* PENDING_MAX */

/* ---- the model ---- */

static struct model_volume *pick_volume(struct history_world *w)
{
	for (uint32_t tries = 0; tries < 20; tries++) {
		struct model_volume *m = &w->volumes[world_pick(w, VOLUMES_MAX)];
		if (m->exists)
			return m;
	}
	return NULL;
}

static struct model_volume *free_volume(struct history_world *w)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (!w->volumes[i].exists)
			return &w->volumes[i];
	return NULL;
}

static struct model_snapshot *pick_snapshot(struct history_world *w, struct model_volume *m)
{
	return m && m->n_snapshots ? &m->snapshots[world_pick(w, m->n_snapshots)] : NULL;
}

static void forget_snapshot(struct model_volume *m, struct model_snapshot *s)
{
	*s = m->snapshots[--m->n_snapshots];
}

static struct set_command command_on(enum set_command_kind kind, const struct model_volume *m,
				     const struct model_snapshot *s)
{
	struct set_command c = {.kind = kind, .n_targets = 1};
	text_print(c.object, sizeof(c.object), "%s", m->name);
	text_print(c.targets[0].volume, sizeof(c.targets[0].volume), "%s", m->name);
	text_print(c.targets[0].snapshot, sizeof(c.targets[0].snapshot), "%s", s ? s->name : "");
	return c;
}

/* The command succeeds, or a crash is due (false). */
static bool must(struct history_world *w, struct set_command *c)
{
	int res;
	bool is_done = world_command(w, c, &res);
	if (is_done && res != 0)
		world_fail(w, "command %d on %s@%s answers %d: %s", c->kind, c->object, c->targets[0].snapshot, res,
			   c->why);
	return is_done;
}

/* ---- cells ---- */

static void cell_done(struct volume_io *io, int res)
{
	struct cell_io *one = container_of(io, struct cell_io, io);
	struct history_world *w = one->world;
	if (res != 0)
		world_fail(w, "cell %u of %s answers %d", one->cell, one->volume->name, res);
	one->is_done = true;
	w->n_busy--;
	w->are_cells_done = w->n_busy == 0;
}

/* The model changes when it is submitted; *one knows what was there before. */
static void cell_submit(struct history_world *w, struct cell_io *one, struct model_volume *m, uint32_t cell)
{
	bool is_write = !world_one_in(w, 4);
	one->world = w;
	one->volume = m;
	one->cell = cell;
	one->is_done = false;
	one->old_value = m->live.value[cell];
	one->old_version = m->live.version[cell];
	one->value = is_write ? ++w->next_value : 0;
	one->version = is_write ? one->value : one->old_value ? ++w->next_value : one->old_version;
	for (uint32_t i = 0; i < array_size(one->memory); i++)
		one->memory[i] = one->value;
	one->iov = (struct iovec){one->memory, BLOCK_BYTES};
	one->io = (struct volume_io){.op = is_write             ? VOLUME_WRITE
					   : world_one_in(w, 2) ? VOLUME_TRIM
								: VOLUME_ZERO,
				     .flags = w->is_power ? VOLUME_FUA : 0,
				     .pos_bytes = cell_block(cell) * BLOCK_BYTES,
				     .len_bytes = BLOCK_BYTES,
				     .iov = &one->iov,
				     .n_iov = 1,
				     .done = cell_done};
	m->live.value[cell] = one->value;
	m->live.version[cell] = one->version;
	w->n_busy++;
	volume_submit(world_head(w, m), &one->io);
}

/* After a crash: what was in flight is there or not. */
static void cells_adopt(struct history_world *w, struct cell_io *one, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct model_volume *m = one[i].volume;
		uint32_t found;
		if (one[i].is_done)
			continue;
		if (!filler_bring_cell(w, m, one[i].cell))
			world_fail(w, "a crash is due during a look");
		found = world_read(w, world_head(w, m), one[i].cell);
		if (found != one[i].value && found != one[i].old_value)
			world_fail(w, "cell %u of %s is %u, neither %u nor %u", one[i].cell, m->name, found,
				   one[i].old_value, one[i].value);
		if (found == one[i].value)
			continue;
		m->live.value[one[i].cell] = one[i].old_value;
		m->live.version[one[i].cell] = one[i].old_version;
	}
	w->n_busy = 0;
	w->are_cells_done = false;
}

static uint32_t cells_begin(struct history_world *w, struct model_volume *m, uint32_t n)
{
	uint32_t used = 0;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t cell = (uint32_t)world_pick(w, CELLS);
		bool is_taken = !cell_is_inside(&m->live, cell);
		for (uint32_t j = 0; j < used; j++)
			is_taken |= ios[j].cell == cell;
		if (!is_taken)
			cell_submit(w, &ios[used++], m, cell);
	}
	return used;
}

/* ---- operations: true, or a crash is due and has been lived through ---- */

static void restart(struct history_world *w)
{
	world_crash(w);
	if (world_one_in(w, 3))
		world_check_disks(w, false);
	world_start(w);
}

static bool attach(struct history_world *w, struct model_volume *m)
{
	struct set_command c = command_on(SET_VOLUME_ATTACH, m, NULL);
	text_print(c.other, sizeof(c.other), "nbd");
	if (world_head(w, m))
		return true;
	if (must(w, &c))
		return true;
	restart(w);
	return world_head(w, m) != NULL;
}

static bool detach(struct history_world *w, struct model_volume *m)
{
	struct set_command c = command_on(SET_VOLUME_DETACH, m, NULL);
	if (!world_head(w, m) || must(w, &c))
		return true;
	restart(w);
	return world_head(w, m) == NULL;
}

/* What waits for its unit gets it; what does not may be there before the filler. */
static bool cells_bring(struct history_world *w, struct model_volume *m, uint32_t n)
{
	bool is_brought = world_one_in(w, 2) || filler_visit(w, m);
	for (uint32_t i = 0; i < n && is_brought; i++)
		if (!ios[i].is_done && (ios[i].value == 0 || world_one_in(w, 2)))
			is_brought = filler_bring_cell(w, m, ios[i].cell);
	return is_brought;
}

static void do_write(struct history_world *w, struct model_volume *m)
{
	if (!attach(w, m))
		return;
	uint32_t n = cells_begin(w, m, 1 + (uint32_t)world_pick(w, PENDING_MAX));
	if (n == 0 || (cells_bring(w, m, n) && world_wait_for(w, &w->are_cells_done)))
		return;
	restart(w);
	cells_adopt(w, ios, n);
}

static void do_create(struct history_world *w, bool is_filled)
{
	struct model_volume *m = free_volume(w);
	if (!m)
		return;
	*m = (struct model_volume){.exists = true, .live.size_gib = 1 + (uint32_t)world_pick(w, 3)};
	text_print(m->name, sizeof(m->name), "v%u", ++w->next_name);
	struct set_command c = command_on(SET_VOLUME_CREATE, m, NULL);
	c.size_bytes = m->live.size_gib * GIB;
	c.replicas = w->copies;
	world_say(w, "create %s of %u GiB%s", m->name, m->live.size_gib, is_filled ? ", to be filled" : "");
	if (is_filled) {
		filler_choose_source(w, m);
		text_print(c.fill, sizeof(c.fill), "/repository/v@s");
	}
	if (must(w, &c))
		return;
	restart(w);
	m->exists = set_volume_find(w->set, m->name) != NULL;
}

/* A snapshot's cells that were written when it was taken are as they were before, or as after. */
static void adopt_snapshot(struct history_world *w, struct model_volume *m, struct model_snapshot *s, uint32_t n)
{
	struct set_snapshot *snap = snapshot_find(set_volume_find(w->set, m->name), s->name);
	if (!snap || snapshot_open(snap) != 0)
		world_fail(w, "snapshot %s@%s is not there", m->name, s->name);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t cell = ios[i].cell, found = world_read(w, snap->head, cell);
		if (found != ios[i].value && found != ios[i].old_value)
			world_fail(w, "cell %u of %s@%s is %u, neither %u nor %u", cell, m->name, s->name, found,
				   ios[i].old_value, ios[i].value);
		bool is_new = found == ios[i].value;
		s->point.value[cell] = found;
		s->point.version[cell] = is_new ? ios[i].version : ios[i].old_version;
	}
	snapshot_close(snap);
}

/* What a volume cannot be while it is filled is refused; false: it is whole. */
static bool is_refused(struct history_world *w, struct model_volume *m, struct set_command *c)
{
	int res;
	if (!filler_is_wanted(w, m))
		return false;
	if (!world_command(w, c, &res))
		restart(w);
	else if (res != -EBUSY)
		world_fail(w, "command %d on %s, which is being filled, answers %d", c->kind, m->name, res);
	return true;
}

static void do_snapshot(struct history_world *w, struct model_volume *m)
{
	if (m->n_snapshots == SNAPSHOTS_EACH)
		return;
	struct model_snapshot *s = &m->snapshots[m->n_snapshots];
	text_print(s->name, sizeof(s->name), "s%u", ++w->next_name);
	struct set_command c = command_on(SET_SNAPSHOT_CREATE, m, s);
	if (is_refused(w, m, &c))
		return;
	uint32_t n = world_head(w, m) && world_one_in(w, 2) ? cells_begin(w, m, PENDING_MAX) : 0;
	if (n > 0 && world_one_in(w, 2))
		sim_step(w->sim);
	world_say(w, "snapshot %s@%s with %u writes in flight", m->name, s->name, n);
	int res = 0;
	bool is_done = world_command(w, &c, &res);
	if (is_done && n > 0)
		is_done = world_wait_for(w, &w->are_cells_done);
	if (is_done && res != 0)
		world_fail(w, "snapshot %s@%s: %d: %s", m->name, s->name, res, c.why);
	if (!is_done) {
		restart(w);
		cells_adopt(w, ios, n);
	}
	if (!snapshot_find(set_volume_find(w->set, m->name), s->name))
		return;
	s->point = m->live;
	m->n_snapshots++;
	w->totals.snapshots++;
	adopt_snapshot(w, m, s, n);
}

static void do_delete_snapshot(struct history_world *w, struct model_volume *m)
{
	struct model_snapshot *s = pick_snapshot(w, m);
	if (!s)
		return;
	struct set_command c = command_on(SET_SNAPSHOT_DELETE, m, s);
	world_say(w, "delete %s@%s", m->name, s->name);
	w->totals.deletes++;
	if (must(w, &c)) {
		forget_snapshot(m, s);
		return;
	}
	restart(w);
	if (!snapshot_find(set_volume_find(w->set, m->name), s->name))
		forget_snapshot(m, s);
}

/* Which of two points is it? Their cells are looked at; where both agree it does not matter. */
static bool is_at(struct history_world *w, struct model_volume *m, const struct point *p)
{
	struct set_volume *entry = set_volume_find(w->set, m->name);
	if (entry->facts.size_bytes != p->size_gib * GIB)
		return false;
	while (!attach(w, m))
		;
	for (uint32_t cell = 0; cell < CELLS; cell++)
		if (cell_is_inside(p, cell) && world_read(w, world_head(w, m), cell) != p->value[cell])
			return false;
	return true;
}

/* Nothing was done since: nothing is to be done (P6). */
static void repeat_rollback(struct history_world *w, struct model_volume *m, const struct model_snapshot *s)
{
	struct set_command c = command_on(SET_SNAPSHOT_ROLLBACK, m, s);
	if (!must(w, &c))
		restart(w);
	else if (!c.is_unchanged)
		world_fail(w, "%s is rolled back to %s twice", m->name, s->name);
}

static void do_rollback(struct history_world *w, struct model_volume *m)
{
	struct model_snapshot *s = pick_snapshot(w, m);
	if (!s || !detach(w, m))
		return;
	struct set_command c = command_on(SET_SNAPSHOT_ROLLBACK, m, s);
	world_say(w, "roll %s back to %s", m->name, s->name);
	w->totals.rollbacks++;
	if (must(w, &c)) {
		m->live = s->point;
		return repeat_rollback(w, m, s);
	}
	restart(w);
	if (is_at(w, m, &s->point))
		m->live = s->point; /* where both have the same values, versions may be the other's: told as changed */
	else if (!is_at(w, m, &m->live))
		world_fail(w, "%s is neither as before the rollback nor as after", m->name);
}

static void do_clone(struct history_world *w, struct model_volume *m)
{
	struct model_snapshot *s = pick_snapshot(w, m);
	struct model_volume *clone = free_volume(w);
	if (!s || !clone)
		return;
	struct set_command c = command_on(SET_VOLUME_CLONE, m, s);
	*clone = (struct model_volume){.exists = true, .live = s->point};
	text_print(clone->name, sizeof(clone->name), "v%u", ++w->next_name);
	text_print(c.other, sizeof(c.other), "%s", clone->name);
	world_say(w, "clone %s@%s to %s", m->name, s->name, clone->name);
	w->totals.clones++;
	if (must(w, &c))
		return;
	restart(w);
	clone->exists = set_volume_find(w->set, clone->name) != NULL;
}

static void do_delete_volume(struct history_world *w, struct model_volume *m)
{
	if (!detach(w, m))
		return;
	struct set_command c = command_on(SET_VOLUME_DELETE, m, NULL);
	c.with_snapshots = true;
	world_say(w, "delete %s", m->name);
	if (must(w, &c)) {
		m->exists = false;
		return;
	}
	restart(w);
	m->exists = set_volume_find(w->set, m->name) != NULL;
}

/* Cells beyond the end are gone. */
static void cut_cells(struct history_world *w, struct model_volume *m)
{
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		if (cell_is_inside(&m->live, cell) || m->live.value[cell] == 0)
			continue;
		m->live.value[cell] = 0;
		m->live.version[cell] = ++w->next_value;
	}
}

static void do_resize(struct history_world *w, struct model_volume *m)
{
	uint32_t old = m->live.size_gib, size = 1 + (uint32_t)world_pick(w, 3);
	struct set_command c = command_on(SET_VOLUME_RESIZE, m, NULL);
	c.size_bytes = size * GIB;
	c.force = true;
	if (is_refused(w, m, &c))
		return;
	world_say(w, "resize %s from %u to %u GiB", m->name, old, size);
	w->totals.resizes++;
	if (must(w, &c)) {
		m->live.size_gib = size;
		cut_cells(w, m);
		return;
	}
	restart(w);
	m->live.size_gib = (uint32_t)(set_volume_find(w->set, m->name)->facts.size_bytes / GIB);
	if (m->live.size_gib == size)
		return cut_cells(w, m);
	/* what a shrink that was cut off has erased may be gone already */
	while (!attach(w, m))
		;
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		if (cell % 3 < size || !cell_is_inside(&m->live, cell) || m->live.value[cell] == 0)
			continue;
		if (world_read(w, world_head(w, m), cell) == 0) {
			m->live.value[cell] = 0;
			m->live.version[cell] = ++w->next_value;
		}
	}
}

/* ---- disks that fail, and come back ---- */

/* One that has failed, or whose copies are not all current. */
static bool is_degraded(struct history_world *w)
{
	for (uint32_t i = 0; i < w->n_disks; i++)
		if (w->set->disks[i]->state != SET_DISK_RUNNING)
			return true;
	list_each (node, &w->set->volumes) {
		const struct volume_facts *f = &container_of(node, struct set_volume, link)->facts;
		for (uint32_t i = 0; i < f->n_disks; i++)
			if (f->disks[i].is_stale && !f->disks[i].is_new && !f->is_deleting)
				return true;
	}
	return false;
}

/* A write or a flush fails on one of the disks, while all others are well. */
static void do_fail_disk(struct history_world *w, struct model_volume *m)
{
	char path[16];
	if (w->copies == 1 || is_degraded(w) || !attach(w, m))
		return;
	sim_crash_at(w->machine, 0);
	text_print(path, sizeof(path), "d%u", 1 + (uint32_t)world_pick(w, w->n_disks));
	struct sim_file *file = sim_file_find(w->machine, path);
	world_say(w, "disk %s is about to fail", path);
	sim_file_fail(file, world_one_in(w, 3) ? OP_FLUSH : OP_WRITE, (uint32_t)world_pick(w, 6), EIO);
	for (uint32_t i = 0; i < 6; i++)
		do_write(w, m);
	sim_file_fail(file, OP_WRITE, 0, 0);
	sim_file_fail(file, OP_FLUSH, 0, 0);
	(void)sim_run_for(w->sim, 100 * NS_PER_MS); /* all volumes have recorded it */
	w->totals.disk_failures += is_degraded(w);
}

static void do_return_disk(struct history_world *w)
{
	for (uint32_t i = 0; i < w->n_disks; i++) {
		struct set_command c = {.kind = SET_DISK_ADD};
		if (w->set->disks[i]->state != SET_DISK_FAILED)
			continue;
		text_print(c.path, sizeof(c.path), "%s", w->set->disks[i]->facts.path);
		world_say(w, "disk %s is opened again", c.path);
		if (!must(w, &c))
			return restart(w);
	}
	if (world_one_in(w, 2)) /* a resync gets somewhere, perhaps */
		(void)sim_run_for(w->sim, world_pick(w, 20) * NS_PER_MS);
	if (sim_crash_is_due(w->machine))
		restart(w);
}

/* All volumes that have to be are attached, so all disks become current. */
static void heal(struct history_world *w)
{
	do_return_disk(w);
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		while (w->volumes[i].exists && !attach(w, &w->volumes[i]))
			;
	for (uint32_t i = 0; i < 300 && is_degraded(w); i++)
		if (sim_run_for(w->sim, NS_PER_S) != SIM_DONE)
			world_fail(w, "a crash is due while disks become current");
	if (is_degraded(w))
		world_fail(w, "a disk does not become current again");
}

/* ---- judging ---- */

static void judge_point(struct history_world *w, struct volume *v, const struct point *p)
{
	if (volume_size_bytes(v) != p->size_gib * GIB)
		world_fail(w, "%s has %" PRIu64 " bytes", volume_name(v), volume_size_bytes(v));
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		if (!cell_is_inside(p, cell))
			continue;
		uint32_t found = world_read(w, v, cell);
		if (found != p->value[cell])
			world_fail(w, "cell %u of %s is %u, not %u", cell, volume_name(v), found, p->value[cell]);
		world_check_copies(w, v, cell, found);
	}
}

static void judge_volume(struct history_world *w, struct model_volume *m)
{
	struct set_volume *entry = set_volume_find(w->set, m->name);
	if (!entry || entry->n_snapshots != m->n_snapshots)
		world_fail(w, "%s has %u snapshots, not %u", m->name, entry ? entry->n_snapshots : 0, m->n_snapshots);
	while (!attach(w, m))
		;
	filler_bring_all(w, m);
	judge_point(w, world_head(w, m), &m->live);
	for (uint32_t i = 0; i < m->n_snapshots; i++) {
		struct set_snapshot *snap = snapshot_find(entry, m->snapshots[i].name);
		if (!snap || snapshot_open(snap) != 0)
			world_fail(w, "snapshot %s@%s is not there", m->name, m->snapshots[i].name);
		/* cppcheck-suppress nullPointerRedundantCheck ; world_fail() does not return */
		judge_point(w, snap->head, &m->snapshots[i].point);
		snapshot_close(snap);
	}
}

static bool is_told(const struct set_changes *c, uint32_t cell)
{
	uint64_t at = 0, byte = cell_block(cell) * BLOCK_BYTES;
	for (uint32_t i = 0; i < c->n_extents; i++) {
		if (byte >= at && byte < at + c->extents[i].len_bytes)
			return c->extents[i].is_changed;
		at += c->extents[i].len_bytes;
	}
	return false;
}

/* All that differs is told; of one volume's history nothing else is, but holes. */
static void judge_diff(struct history_world *w, struct model_volume *m)
{
	struct model_volume *other = world_one_in(w, 3) ? pick_volume(w) : m;
	struct model_snapshot *since = pick_snapshot(w, other),
			      *until = world_one_in(w, 2) ? pick_snapshot(w, m) : NULL;
	if (!since)
		return;
	struct set_command c = command_on(SET_VOLUME_CHANGES, m, until);
	text_print(c.since.volume, sizeof(c.since.volume), "%s", other->name);
	text_print(c.since.snapshot, sizeof(c.since.snapshot), "%s", since->name);
	const struct point *a = until ? &until->point : &m->live, *b = &since->point;
	w->totals.diffs++;
	if (!must(w, &c) || c.changes.next_bytes != c.changes.size_bytes)
		world_fail(w, "the changes of %s end early", m->name);
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		if (!cell_is_inside(a, cell))
			continue;
		bool is_different = a->value[cell] != (cell_is_inside(b, cell) ? b->value[cell] : 0);
		bool may_be =
		    a->version[cell] != b->version[cell] || other != m || (a->value[cell] == 0 && b->value[cell] == 0);
		bool told = is_told(&c.changes, cell);
		if (told ? !may_be : is_different)
			world_fail(w, "from %s@%s to %s@%s cell %u is told as %s: %u, then %u", other->name,
				   since->name, m->name, until ? until->name : "", cell, told ? "changed" : "the same",
				   b->value[cell], a->value[cell]);
	}
	free(c.changes.extents);
}

/* How many points hold this very block? */
static uint32_t holders(struct history_world *w, uint32_t cell, uint32_t version)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
		const struct model_volume *m = &w->volumes[i];
		if (!m->exists)
			continue;
		n += m->live.version[cell] == version;
		for (uint32_t k = 0; k < m->n_snapshots; k++)
			n += m->snapshots[k].point.version[cell] == version;
	}
	return n;
}

static void judge_measure(struct history_world *w, struct model_volume *m)
{
	struct model_snapshot *s = pick_snapshot(w, m);
	const struct point *p = s ? &s->point : &m->live;
	struct set_command c = command_on(SET_VOLUME_MEASURE, m, NULL);
	uint64_t data = 0, unique = 0;
	if (s)
		text_print(c.object, sizeof(c.object), "%s@%s", m->name, s->name);
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		if (p->value[cell] == 0)
			continue;
		data++;
		unique += holders(w, cell, p->version[cell]) == 1;
	}
	w->totals.measures++;
	if (!must(w, &c))
		world_fail(w, "a crash is due that nobody asked for");
	/* With several copies: a segment that was placed while a disk was away has fewer of them, and one that is on its way to
	 * another disk one more; and what one disk took over from another it has in blocks of its own, though a snapshot has
	 * them, too. */
	uint64_t is_data = c.measure.data_bytes / BLOCK_BYTES, is_unique = c.measure.unique_bytes / BLOCK_BYTES;
	bool is_right =
	    is_data >= data && is_data <= data * (w->copies + 1) && is_unique >= unique && is_unique <= is_data;
	if (w->copies == 1)
		is_right = is_data == data && is_unique == unique;
	if (!is_right)
		world_fail(w, "%s: %" PRIu64 " bytes, %" PRIu64 " unique; not %" PRIu64 " and %" PRIu64, c.object,
			   c.measure.data_bytes, c.measure.unique_bytes, data * BLOCK_BYTES, unique * BLOCK_BYTES);
}

static void judge(struct history_world *w)
{
	sim_crash_at(w->machine, 0);
	heal(w);
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (w->volumes[i].exists)
			judge_volume(w, &w->volumes[i]);
	world_settle(w);
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (w->volumes[i].exists) {
			judge_diff(w, &w->volumes[i]);
			judge_measure(w, &w->volumes[i]);
		}
	world_stop(w);
	world_check_disks(w, false);
	world_start(w);
}

/* ---- the story ---- */

static void one_operation(struct history_world *w)
{
	struct model_volume *m = pick_volume(w);
	if (!m)
		return do_create(w, world_one_in(w, 3));
	if (w->copies > 1 && world_one_in(w, 8))
		return is_degraded(w) ? do_return_disk(w) : do_fail_disk(w, m);
	switch (world_pick(w, 20)) {
	case 0:
		return do_create(w, world_one_in(w, 2));
	case 1:
	case 2:
	case 3:
	case 4:
		return do_snapshot(w, m);
	case 5:
	case 6:
		return do_delete_snapshot(w, m);
	case 7:
	case 8:
		return do_rollback(w, m);
	case 9:
	case 10:
		return do_clone(w, m);
	case 11:
		return do_resize(w, m);
	case 12:
		if (world_one_in(w, 2))
			return do_delete_volume(w, m);
		(void)detach(w, m);
		return;
	default:
		return do_write(w, m);
	}
}

struct history_totals history_run(uint64_t seed, bool is_verbose)
{
	struct history_world w;
	ios = aligned_alloc(4096, PENDING_MAX * sizeof(*ios));
	quarry_assert(ios);
	memset(ios, 0, PENDING_MAX * sizeof(*ios));
	world_open(&w, seed, is_verbose);
	world_start(&w);
	for (uint32_t round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < 25; i++) {
			sim_crash_at(w.machine,
				     world_one_in(&w, 6) ? sim_io_index(w.machine) + 1 + world_pick(&w, 40) : 0);
			one_operation(&w);
			w.totals.operations++;
			sim_crash_at(w.machine, 0);
		}
		judge(&w);
	}
	for (uint32_t i = 0; i < VOLUMES_MAX; i++)
		if (w.volumes[i].exists)
			do_delete_volume(&w, &w.volumes[i]);
	world_settle(&w);
	world_stop(&w);
	world_check_disks(&w, true);
	world_close(&w);
	free(ios);
	return w.totals;
}
