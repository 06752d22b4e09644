/*
 * history_fill.c: a volume that is served while its first content is brought, and the filler that brings it.
 *
 * The filler remembers nothing: it brings some units, is killed, brings others or the same once more. What clients see is
 * the model's: a cell's source until it is written. Who has to look at a cell has its unit brought first.
 */
#include "tests/sim/history/history_world.h"

#include <errno.h>

#define UNIT_BLOCKS (FILL_UNIT_BYTES / BLOCK_BYTES)

bool filler_is_wanted(struct history_world *w, struct model_volume *m)
{
	struct set_volume *entry = set_volume_find(w->set, m->name);
	bool is_wanted = entry && entry->facts.fill.source[0] != 0;
	if (is_wanted && !m->is_filling)
		world_fail(w, "%s was whole, and is to be filled again", m->name);
	m->is_filling = is_wanted;
	return is_wanted;
}

static uint64_t unit_of(uint32_t cell)
{
	return cell_block(cell) / UNIT_BLOCKS;
}

static uint64_t n_units(const struct model_volume *m)
{
	return m->live.size_gib * GIB / FILL_UNIT_BYTES;
}

/* false: a crash is due. */
static bool filler_ask(struct history_world *w, struct model_volume *m, const struct volume_io *io)
{
	int res;
	if (!world_submit(w, world_head(w, m), io, &res))
		return false;
	if (res != 0)
		world_fail(w, "the filler of %s: operation %d at %llu answers %d", m->name, io->op,
			   (unsigned long long)io->pos_bytes, res);
	return true;
}

static bool bring_cells(struct history_world *w, struct model_volume *m, uint64_t first, uint64_t end)
{
	static uint32_t memory[BLOCK_BYTES / sizeof(uint32_t)] __attribute__((aligned(4096)));
	struct iovec iov = {memory, BLOCK_BYTES};
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		struct volume_io io = {.op = VOLUME_WRITE,
				       .flags = VOLUME_FILL,
				       .pos_bytes = cell_block(cell) * BLOCK_BYTES,
				       .len_bytes = BLOCK_BYTES,
				       .iov = &iov,
				       .n_iov = 1};
		if (m->source[cell] == 0 || unit_of(cell) < first || unit_of(cell) >= end)
			continue;
		for (uint32_t i = 0; i < array_size(memory); i++)
			memory[i] = m->source[cell];
		if (!filler_ask(w, m, &io))
			return false;
	}
	return true;
}

static bool settle(struct history_world *w, struct model_volume *m, uint64_t first, uint64_t end)
{
	struct volume_io io = {.op = VOLUME_ZERO,
			       .flags = VOLUME_FILL,
			       .pos_bytes = first * FILL_UNIT_BYTES,
			       .len_bytes = (end - first) * FILL_UNIT_BYTES};
	return filler_ask(w, m, &io);
}

static bool record(struct history_world *w, struct model_volume *m)
{
	struct volume_io io = {.op = VOLUME_FLUSH, .flags = VOLUME_FILL};
	bool is_done = filler_ask(w, m, &io);
	if (is_done && !filler_is_wanted(w, m))
		w->totals.fills++;
	return is_done;
}

bool filler_bring_cell(struct history_world *w, struct model_volume *m, uint32_t cell)
{
	uint64_t unit = unit_of(cell);
	return !filler_is_wanted(w, m) || (bring_cells(w, m, unit, unit + 1) && settle(w, m, unit, unit + 1));
}

bool filler_visit(struct history_world *w, struct model_volume *m)
{
	if (!filler_is_wanted(w, m))
		return true;
	uint64_t first = world_one_in(w, 2) ? 0 : world_pick(w, n_units(m));
	uint64_t end = world_one_in(w, 3) ? n_units(m) : first + 1 + world_pick(w, n_units(m) - first);
	if (!bring_cells(w, m, first, end))
		return false;
	if (world_one_in(w, 4)) /* it is killed */
		return true;
	return settle(w, m, first, end) && (world_one_in(w, 2) || record(w, m));
}

void filler_bring_all(struct history_world *w, struct model_volume *m)
{
	if (!filler_is_wanted(w, m))
		return;
	sim_crash_at(w->machine, 0);
	if (!bring_cells(w, m, 0, n_units(m)) || !settle(w, m, 0, n_units(m)) || (world_one_in(w, 2) && !record(w, m)))
		world_fail(w, "a crash is due that nobody asked for");
}

void filler_choose_source(struct history_world *w, struct model_volume *m)
{
	m->is_filling = true;
	for (uint32_t cell = 0; cell < CELLS; cell++) {
		bool has_data = cell_is_inside(&m->live, cell) && world_one_in(w, 2);
		m->source[cell] = m->live.value[cell] = has_data ? ++w->next_value : 0;
		m->live.version[cell] = has_data ? w->next_value : 0;
	}
}
