/*
 * cluster_client.c: clients that read, change and flush volumes at whatever head they find, and check what they are told.
 *
 * They find every head that believes to serve, also one that was fenced or stood still. Who asks a head when a newer one
 * serves gets no answer but an error (P4). What a client reads, and that a change or a flush was acknowledged, is the
 * oracle's matter.
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BLOCK 250u /* the cells of a segment lie in two leaves */

uint64_t cell_block(uint32_t cell)
{
	return cell / CELLS_EACH * SEGMENT_BLOCKS + FIRST_BLOCK + cell % CELLS_EACH;
}

struct volume *client_head(const struct cluster_node *n, const struct model_volume *v)
{
	struct set_volume *entry = n->state == NODE_UP ? set_volume_find(n->set, v->name) : NULL;
	bool is_there = entry && entry->head && entry->head->state == VOLUME_SERVING && entry->facts.is_attached_nbd;
	return is_there ? entry->head : NULL;
}

/* ---- answers ---- */

static void io_end(struct cluster_io *one)
{
	quarry_assert(one->is_used && one->volume->n_ios > 0);
	one->volume->n_ios--;
	one->is_used = false;
}

static void read_check(struct cluster_io *one)
{
	char why[ORACLE_WHY_BYTES];
	for (uint32_t i = 0; i < one->n_cells; i++) {
		uint64_t token = content_token(one->memory + (size_t)i * BLOCK_BYTES);
		if (!oracle_read(one->volume->cells, one->first_cell + i, one->mark, token, why))
			cluster_fail(one->cluster, "%s of %s was read: %s", one->node->name, one->volume->name, why);
	}
}

static void io_say(struct cluster_io *one, const char *what)
{
	static const char *const names[] = {"read", "write", "flush", "trim", "zero", "map"};
	bool is_write = one->io.op == VOLUME_WRITE;
	cluster_say(one->cluster, one->node, "%s %s%s of %s, cells %u+%u %llx (generation %llu)", what,
		    names[one->io.op], one->io.flags & VOLUME_FUA ? " FUA" : "", one->volume->name, one->first_cell,
		    one->n_cells,
		    (unsigned long long)(is_write ? oracle_change_token(one->volume->cells, one->request, 0) : 0),
		    (unsigned long long)one->generation);
}

static void io_failed(struct cluster_io *one, int res)
{
	struct cluster *c = one->cluster;
	c->totals.errors++;
	if (c->is_quiet)
		cluster_fail(c, "operation %d on cell %u of %s at %s answers %d, when all is well", one->io.op,
			     one->first_cell, one->volume->name, one->node->name, res);
	cluster_say(c, one->node, "operation %d on %s, cells %u+%u, fails: %s", one->io.op, one->volume->name,
		    one->first_cell, one->n_cells, strerror(-res));
	if (one->io.op != VOLUME_READ && one->io.op != VOLUME_FLUSH)
		oracle_change_done(one->volume->cells, one->request, false, false);
}

static void io_done(struct volume_io *io, int res)
{
	struct cluster_io *one = container_of(io, struct cluster_io, io);
	struct cluster *c = one->cluster;
	if (res == 0 && one->is_stale)
		cluster_fail(c, "%s answers for %s with generation %llu, when %llu is served", one->node->name,
			     one->volume->name, (unsigned long long)one->generation,
			     (unsigned long long)one->volume->generation);
	if (res == 0)
		io_say(one, "has done:");
	if (res != 0) {
		io_failed(one, res);
	} else if (io->op == VOLUME_READ) {
		c->totals.reads++;
		read_check(one);
	} else if (io->op == VOLUME_FLUSH) {
		oracle_flushed(one->volume->cells, one->mark);
	} else {
		c->totals.writes++;
		oracle_change_done(one->volume->cells, one->request, true, io->flags & VOLUME_FUA);
	}
	io_end(one);
}

/* ---- requests ---- */

static struct cluster_io *io_free(struct cluster *c)
{
	for (uint32_t i = 0; i < IOS_MAX; i++)
		if (!c->ios[i].is_used)
			return &c->ios[i];
	return NULL;
}

static void io_choose(struct cluster *c, struct cluster_io *one)
{
	struct volume_io *io = &one->io;
	uint32_t what = (uint32_t)pick(c, 20);
	uint32_t n = 1 + (uint32_t)(one_in(c, 3) ? pick(c, IO_BLOCKS_MAX) : 0);
	uint32_t segment = (uint32_t)pick(c, one->volume->n_segments), cell = (uint32_t)pick(c, CELLS_EACH - n + 1);
	io->op = what < 10 ? VOLUME_WRITE : what < 11 ? VOLUME_TRIM : what < 12 ? VOLUME_ZERO : VOLUME_READ;
	if (what == 19)
		io->op = VOLUME_FLUSH;
	if (io->op == VOLUME_WRITE && one_in(c, 5))
		io->flags = VOLUME_FUA;
	one->first_cell = segment * CELLS_EACH + cell;
	one->n_cells = io->op == VOLUME_FLUSH ? 0 : n;
	io->pos_bytes = io->op == VOLUME_FLUSH ? 0 : cell_block(one->first_cell) * BLOCK_BYTES;
	io->len_bytes = (uint64_t)one->n_cells * BLOCK_BYTES;
	one->iov = (struct iovec){one->memory, io->len_bytes};
	io->iov = &one->iov;
	io->n_iov = 1;
}

static void io_enter(struct cluster_io *one)
{
	struct oracle_volume *cells = one->volume->cells;
	one->mark = oracle_now(cells);
	if (one->io.op == VOLUME_READ || one->io.op == VOLUME_FLUSH)
		return;
	one->request = oracle_change(cells, one->first_cell, one->n_cells, one->io.op != VOLUME_WRITE, one->is_stale);
	for (uint32_t i = 0; i < one->n_cells && one->io.op == VOLUME_WRITE; i++)
		content_fill(oracle_change_token(cells, one->request, i), one->memory + (size_t)i * BLOCK_BYTES);
}

/* A change that waits for more copies is passed by others of the same blocks: nobody could say which was the last. */
static bool io_may_be_passed(struct cluster *c, const struct cluster_io *one)
{
	for (uint32_t i = 0; i < IOS_MAX && one->volume->min_replicas > 1 && one->io.op != VOLUME_READ; i++) {
		const struct cluster_io *other = &c->ios[i];
		if (other != one && other->is_used && other->volume == one->volume && other->io.op != VOLUME_READ &&
		    other->first_cell < one->first_cell + one->n_cells &&
		    one->first_cell < other->first_cell + other->n_cells)
			return true;
	}
	return false;
}

static void client_ask(struct cluster *c, struct cluster_node *n, struct model_volume *v, struct volume *head)
{
	struct cluster_io *one = io_free(c);
	if (!one)
		return;
	one->io = (struct volume_io){.done = io_done};
	one->node = n;
	one->volume = v;
	one->generation = head->generation;
	one->is_stale = head->generation < v->generation;
	io_choose(c, one);
	if (io_may_be_passed(c, one))
		return;
	one->is_used = true;
	io_enter(one);
	v->n_ios++;
	io_say(one, "is asked:");
	volume_submit(head, &one->io);
}

/* Notes the newest head that serves, wherever it is. */
static void heads_look(struct cluster *c, struct model_volume *v)
{
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		const struct volume *head = client_head(&c->nodes[i], v);
		if (head)
			v->generation = max_u64(v->generation, head->generation);
	}
}

void client_act(struct cluster *c, struct model_volume *v)
{
	struct cluster_node *n = &c->nodes[pick(c, c->n_nodes)];
	heads_look(c, v);
	if (!v->cells || v->is_quiet)
		return;
	for (uint32_t i = 0; i < c->n_nodes; i++) {
		struct cluster_node *at = &c->nodes[(n->number + i) % c->n_nodes];
		struct volume *head = node_is_awake(at) ? client_head(at, v) : NULL;
		if (head && v->rollback.point && head->generation == v->generation)
			rollback_decide(v, head);
		if (head && !v->rollback.point)
			return client_ask(c, at, v, head);
	}
}

void clients_knock(struct cluster *c, struct cluster_node *n)
{
	for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
		struct model_volume *v = &c->volumes[i];
		bool is_open = v->cells && !v->is_quiet && !v->rollback.point;
		struct volume *head = is_open ? client_head(n, v) : NULL;
		heads_look(c, v);
		if (head)
			client_ask(c, n, v, head);
	}
}

void clients_forget(struct cluster *c, const struct cluster_node *n)
{
	for (uint32_t i = 0; i < IOS_MAX; i++) {
		struct cluster_io *one = &c->ios[i];
		if (!one->is_used || one->node != n)
			continue;
		if (one->io.op != VOLUME_READ && one->io.op != VOLUME_FLUSH)
			oracle_change_done(one->volume->cells, one->request, false, false);
		io_end(one);
	}
}

bool clients_are_idle(struct cluster *c)
{
	for (uint32_t i = 0; i < IOS_MAX; i++)
		if (c->ios[i].is_used)
			return false;
	return true;
}

void clients_open(struct cluster *c)
{
	for (uint32_t i = 0; i < IOS_MAX; i++) {
		c->ios[i] = (struct cluster_io){.cluster = c};
		c->ios[i].memory = aligned_alloc(BLOCK_BYTES, (size_t)IO_BLOCKS_MAX * BLOCK_BYTES);
		quarry_assert(c->ios[i].memory);
	}
}

void clients_close(struct cluster *c)
{
	for (uint32_t i = 0; i < IOS_MAX; i++)
		free(c->ios[i].memory);
}

/* ---- one look ---- */

struct look {
	struct volume_io io;
	bool is_done;
	int res;
};

static void look_done(struct volume_io *io, int res)
{
	struct look *l = container_of(io, struct look, io);
	l->is_done = true;
	l->res = res;
}

static int look_wait(struct cluster *c, struct volume *head, struct look *l)
{
	l->io.done = look_done;
	volume_submit(head, &l->io);
	for (uint32_t i = 0; i < 100000 && !l->is_done; i++)
		cluster_pass(c, NS_PER_MS);
	if (!l->is_done)
		cluster_fail(c, "a request at block %llu is never answered",
			     (unsigned long long)(l->io.pos_bytes / BLOCK_BYTES));
	return l->res;
}

static int block_read(struct cluster *c, struct volume *head, uint64_t block, uint64_t *token)
{
	static uint8_t memory[BLOCK_BYTES] __attribute__((aligned(4096)));
	struct iovec iov = {memory, BLOCK_BYTES};
	struct look l = {.io = {.op = VOLUME_READ,
				.pos_bytes = block * BLOCK_BYTES,
				.len_bytes = BLOCK_BYTES,
				.iov = &iov,
				.n_iov = 1}};
	int res = look_wait(c, head, &l);
	*token = content_token(memory);
	return res;
}

int client_read(struct cluster *c, struct volume *head, uint32_t cell, uint64_t *token)
{
	return block_read(c, head, cell_block(cell), token);
}

/* ---- ballast: what nobody changes, and makes segments worth moving ---- */

static uint64_t ballast_token(uint64_t block)
{
	return 1ull << 56 | block;
}

static void ballast_write(struct cluster *c, struct volume *head, uint64_t first, uint32_t n_blocks)
{
	uint8_t *memory = aligned_alloc(BLOCK_BYTES, (size_t)n_blocks * BLOCK_BYTES);
	quarry_assert(memory);
	for (uint32_t i = 0; i < n_blocks; i++)
		content_fill(ballast_token(first + i), memory + (size_t)i * BLOCK_BYTES);
	struct iovec iov = {memory, (size_t)n_blocks * BLOCK_BYTES};
	struct look l = {.io = {.op = VOLUME_WRITE,
				.flags = VOLUME_FUA,
				.pos_bytes = first * BLOCK_BYTES,
				.len_bytes = iov.iov_len,
				.iov = &iov,
				.n_iov = 1}};
	int res = look_wait(c, head, &l);
	if (res != 0)
		cluster_fail(c, "block %llu cannot be written: %d", (unsigned long long)first, res);
	free(memory);
}

static struct volume *any_head(struct cluster *c, const struct model_volume *v)
{
	for (uint32_t i = 0; i < c->n_nodes; i++)
		if (client_head(&c->nodes[i], v))
			return client_head(&c->nodes[i], v);
	cluster_fail(c, "%s has no head", v->name);
}

void client_fill_ballast(struct cluster *c, struct model_volume *v)
{
	for (uint32_t segment = 0; segment < v->n_segments; segment++)
		for (uint32_t at = 0; at < BALLAST_BLOCKS; at += 64)
			ballast_write(c, any_head(c, v), ballast_block(segment) + at, 64);
	v->has_ballast = true;
}

void client_check_ballast(struct cluster *c, struct model_volume *v, struct volume *head)
{
	for (uint32_t segment = 0; segment < v->n_segments && v->has_ballast; segment++)
		for (uint32_t i = 0; i < 4; i++) {
			uint64_t block = ballast_block(segment) + pick(c, BALLAST_BLOCKS), token;
			int res = block_read(c, head, block, &token);
			if (res != 0 || token != ballast_token(block))
				cluster_fail(c, "block %llu of %s reads as %llx: %d", (unsigned long long)block,
					     v->name, (unsigned long long)token, res);
		}
}
