/*
 * cluster_rot.c: blocks at rest lose a bit: data of one copy of a segment, while the others have it whole.
 *
 *   NONE --chosen--> WAITS --a checkpoint that began after it was durable--> DONE --it is the only current copy--> NONE
 *
 * Of a segment only one disk's copy rots as long as it lies there, and only what is durable on all; when no other copy is current
 * any more the block is whole again. So there always is a good one, though not always one that can be reached: then a read is
 * an error, and never wrong data.
 * At the end all disks are scrubbed, and nothing rotten is left; some seeds scrub a disk now and then, and compare copies.
 * Only what a checkpoint holds rots: a record of the journal that does not match its data is a write that a crash cut short.
 *
 * Owner: the test.
 */
#include "tests/sim/cluster/cluster_world.h"

#define BLOCK_BITS (BLOCK_BYTES * 8u)
#define SCRUBS_NS  (300 * NS_PER_S)

static uint64_t checkpoint_of(const struct cluster *c, const struct cluster_disk *d)
{
	const struct set_disk *mine = node_disk(&c->nodes[d->node], d);
	return mine && mine->disk ? disk_superblock(mine->disk)->checkpoint : 0;
}

/* Copies of the cell's segment that have all that is durable. */
static uint64_t cell_copies(struct cluster *c, const struct model_volume *v, uint32_t cell)
{
	return facts_placed(c, v, cell / CELLS_EACH) & v->facts.in_sync;
}

static struct cluster_disk *rot_choose_disk(struct cluster *c, struct model_volume *v, uint32_t cell)
{
	uint64_t copies = cell_copies(c, v, cell);
	uint32_t *chosen = &v->rotten[cell / CELLS_EACH];
	if (__builtin_popcountll(copies) < 2)
		return NULL;
	if (*chosen == 0 || !(facts_placed(c, v, cell / CELLS_EACH) >> (*chosen - 1) & 1))
		*chosen = 1 + (uint32_t)__builtin_ctzll(copies);
	return copies >> (*chosen - 1) & 1 ? &c->disks[*chosen - 1] : NULL;
}

static struct rot *rot_free(struct cluster *c)
{
	for (uint32_t i = 0; i < ROT_MAX; i++)
		if (c->rot[i].state == ROT_NONE)
			return &c->rot[i];
	return NULL;
}

void rot_act(struct cluster *c)
{
	struct model_volume *v = &c->volumes[pick(c, VOLUMES_MAX)];
	struct rot *r = rot_free(c);
	uint64_t token;
	if (!r || !v->cells || v->rollback.point || v->doubt != DOUBT_NONE)
		return;
	uint32_t cell = (uint32_t)pick(c, oracle_volume_cells(v->cells));
	struct cluster_disk *d = rot_choose_disk(c, v, cell);
	if (!d || !oracle_settled(v->cells, cell, &token) || token == 0 || checkpoint_of(c, d) == 0)
		return;
	*r = (struct rot){.state = ROT_WAITS,
			  .disk = d,
			  .volume = v,
			  .volume_number = v->number,
			  .cell = cell,
			  .token = token,
			  .checkpoint = checkpoint_of(c, d)};
}

/* Is everything as it was when it was chosen? */
static bool rot_stands(struct cluster *c, const struct rot *r)
{
	uint64_t token, copies = cell_copies(c, r->volume, r->cell);
	return r->volume->cells && r->volume->number == r->volume_number && !r->volume->rollback.point &&
	       oracle_settled(r->volume->cells, r->cell, &token) && token == r->token &&
	       __builtin_popcountll(copies) >= 2 && copies >> (r->disk - c->disks) & 1;
}

static void rot_find(uint64_t block, const void *content, void *context)
{
	struct rot *r = context;
	if (r->n_flips < ROT_FLIPS_MAX && content_token(content) == r->token)
		r->flips[r->n_flips++].block = block;
}

/* Wherever the disk has it: one of these is what its tree names. */
static void rot_begin(struct cluster *c, struct rot *r)
{
	r->n_flips = 0;
	sim_file_each(r->disk->file, rot_find, r);
	for (uint32_t i = 0; i < r->n_flips; i++) {
		r->flips[i].bit = (uint32_t)pick(c, BLOCK_BITS);
		sim_file_flip(r->disk->file, r->flips[i].block, r->flips[i].bit);
	}
	r->state = r->n_flips > 0 ? ROT_DONE : ROT_NONE;
	c->totals.rotten += r->n_flips > 0;
	cluster_say(c, &c->nodes[r->disk->node], "%s: cell %u of %s, %llx, rots", r->disk->name, r->cell,
		    r->volume->name, (unsigned long long)r->token);
}

/* It is whole again, but where it was healed or overwritten. */
static void rot_end(struct cluster *c, struct rot *r)
{
	static uint8_t block[BLOCK_BYTES] __attribute__((aligned(4096)));
	for (uint32_t i = 0; i < r->n_flips; i++) {
		sim_file_peek(r->disk->file, r->flips[i].block, block);
		block[r->flips[i].bit / 8] ^= (uint8_t)(1u << r->flips[i].bit % 8);
		if (content_token(block) == r->token)
			sim_file_flip(r->disk->file, r->flips[i].block, r->flips[i].bit);
	}
	r->state = ROT_NONE;
	cluster_say(c, &c->nodes[r->disk->node], "%s: cell %u, %llx, is whole", r->disk->name, r->cell,
		    (unsigned long long)r->token);
}

/* Is there another current copy of it, or is it none itself? */
static bool rot_may_stay(struct cluster *c, const struct rot *r)
{
	if (!r->volume->cells || r->volume->number != r->volume_number)
		return true;
	uint64_t copies = cell_copies(c, r->volume, r->cell);
	return !(copies >> (r->disk - c->disks) & 1) || __builtin_popcountll(copies) >= 2;
}

void rot_pass(struct cluster *c)
{
	for (uint32_t i = 0; i < ROT_MAX; i++) {
		struct rot *r = &c->rot[i];
		uint64_t checkpoint = r->state == ROT_WAITS ? checkpoint_of(c, r->disk) : 0;
		if (r->state == ROT_DONE && !rot_may_stay(c, r))
			rot_end(c, r);
		if (r->state != ROT_WAITS)
			continue;
		if (!rot_stands(c, r) || checkpoint == 0)
			r->state = ROT_NONE;
		else if (checkpoint >= r->checkpoint + 2)
			rot_begin(c, r);
		else
			disk_checkpoint(node_disk(&c->nodes[r->disk->node], r->disk)->disk);
	}
}

/* ---- comparing copies ---- */

static struct volume *compare_head(struct cluster *c, const struct model_volume *v)
{
	for (uint32_t i = 0; i < c->n_nodes && v->cells; i++) {
		struct volume *head = node_is_awake(&c->nodes[i]) ? client_head(&c->nodes[i], v) : NULL;
		if (head && volume_facts_are_replicated(&head->entry->facts))
			return head;
	}
	return NULL;
}

static void compare_all(struct cluster *c)
{
	uint64_t end_ns = sim_now_ns(c->sim) + SCRUBS_NS;
	for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
		struct volume *head = compare_head(c, &c->volumes[i]);
		uint64_t n_compared = head ? head->entry->n_compared : 0;
		if (!head)
			continue;
		compare_now(head);
		while (head->entry->n_compared == n_compared && sim_now_ns(c->sim) < end_ns)
			cluster_pass(c, 100 * NS_PER_MS);
		if (head->entry->n_compared == n_compared || head->entry->unlike_blocks > 0)
			cluster_fail(c, "the copies of %s: %llu blocks differ", c->volumes[i].name,
				     (unsigned long long)head->entry->unlike_blocks);
		c->totals.compared++;
	}
}

/* ---- scrubs ---- */

static struct set_disk *scrub_disk(struct cluster *c, uint32_t i)
{
	struct cluster_node *n = &c->nodes[c->disks[i].node];
	struct set_disk *mine = node_is_awake(n) && n->set ? node_disk(n, &c->disks[i]) : NULL;
	return mine && mine->disk ? mine : NULL;
}

void rot_scrub(struct cluster *c)
{
	uint32_t i = (uint32_t)pick(c, c->n_disks);
	uint64_t bytes_per_s = one_in(c, 2) ? 0 : MIB;
	const struct set_disk *d = scrub_disk(c, i);
	struct volume *head = compare_head(c, &c->volumes[pick(c, VOLUMES_MAX)]);
	if (d && disk_scrub_start(d->disk, bytes_per_s, one_in(c, 2)) == 0)
		cluster_say(c, &c->nodes[c->disks[i].node], "%s: a scrub begins", c->disks[i].name);
	if (head)
		compare_now(head);
}

static bool scrubs_have_ended(struct cluster *c)
{
	for (uint32_t i = 0; i < c->n_disks; i++) {
		const struct set_disk *d = scrub_disk(c, i);
		struct disk_scrub scrub = {.is_running = false};
		if (d)
			disk_scrub_status(d->disk, &scrub);
		if (scrub.is_running || (d && damage_is_healing(d)))
			return false;
	}
	return true;
}

void rot_scrub_all(struct cluster *c)
{
	if (!cluster_until(c, scrubs_have_ended, SCRUBS_NS)) /* that were begun before */
		cluster_fail(c, "a scrub, or what it has found, does not end");
	for (uint32_t i = 0; i < c->n_disks; i++) {
		struct set_command scrub = {.kind = SET_DISK_SCRUB};
		text_print(scrub.object, sizeof(scrub.object), "%s", c->disks[i].name);
		if (scrub_disk(c, i) && order_wait(c, &c->nodes[c->disks[i].node], &scrub) != 0)
			cluster_fail(c, "%s cannot be scrubbed: %s", c->disks[i].name, scrub.why);
	}
	if (!cluster_until(c, scrubs_have_ended, SCRUBS_NS))
		cluster_fail(c, "a scrub, or what it has found, does not end");
	for (uint32_t i = 0; i < c->n_disks; i++) {
		const struct set_disk *d = scrub_disk(c, i);
		struct disk_scrub scrub = {.bad_blocks = 0};
		if (d)
			disk_scrub_status(d->disk, &scrub);
		if (scrub.healed_blocks != scrub.bad_blocks)
			cluster_fail(c, "%s: of %llu damaged blocks %llu are healed", c->disks[i].name,
				     (unsigned long long)scrub.bad_blocks, (unsigned long long)scrub.healed_blocks);
		c->totals.scrubbed += scrub.healed_blocks;
	}
	if (c->seed >= SEEDS_UNSCRUBBED)
		compare_all(c);
}
