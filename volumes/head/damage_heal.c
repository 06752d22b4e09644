/*
 * damage_heal.c: blocks that a scrub has found damaged on one disk of a volume are healed by the volume's head, as a read that
 * comes across them is.
 *
 *   asked -> READ of that disk alone; what it cannot read is had elsewhere and rewritten (heal.c) -> answered
 *         -> no head: the set attaches the volume for itself, if nobody has; it is asked again
 *
 * Invariants
 *  1. It is a read like a client's: it waits its turn among the requests on the same blocks [READLOCK], a detach waits for it,
 *     and only copies that are current are asked. A write that came first has put another block there, which is read, and
 *     is good; one that comes later waits.
 *  2. A disk rewrites a block only with the bytes that its own checksum names, so whatever happened meanwhile, nothing newer
 *     is ever overwritten.
 *  3. A snapshot's tree is read in the sessions of the live volume: its segments lie where the volume's do.
 *
 * Owner: the set, until done().
 */
#include "volumes/head/head_internal.h"

#include <errno.h>
#include <stdlib.h>

#define HEALS_MAX 16u /* of all nodes that ask */
/* The set's own attachment of a volume stays for so long after it was asked last. */
#define HEAL_HEAD_NS (30 * NS_PER_S)

struct heal_request {
	struct list link; /* the set's */
	struct volume_set *set;
	struct peer_damage at;
	struct volume_io io;
	struct iovec iov;
	struct op op; /* to answer what was not begun */
	void (*done)(void *context, int res);
	void *context;
};

/* ---- its end ---- */

static void heal_request_end(struct heal_request *h, int res)
{
	void (*done)(void *context, int res) = h->done;
	void *context = h->context;
	struct volume_set *s = h->set;
	quarry_assert(s->n_heals > 0);
	s->n_heals--;
	list_remove(&h->link);
	free(h->iov.iov_base);
	free(h);
	if (s->is_stopping)
		commands_wake(s);
	done(context, res);
}

static void heal_request_refused(struct op *op, int res)
{
	heal_request_end(container_of(op, struct heal_request, op), res);
}

/* Blocks of the tree that clients, or readers of the snapshot, can address; 0: there is no such tree. */
static uint64_t tree_blocks(struct set_volume *entry, uint64_t tree)
{
	const struct set_snapshot *snap = snapshot_by_tree(entry, tree);
	if (tree == entry->facts.live_tree)
		return blocks_of(entry->facts.size_bytes);
	return snap && !snap->facts.is_deleting ? blocks_of(snap->facts.size_bytes) : 0;
}

/* What it says of the blocks there. Only who was asked to the end has answered. */
static int heal_request_result(const struct heal_request *h, int res)
{
	struct set_volume *entry = set_volume_by_uuid(h->set, &h->at.volume);
	const struct set_disk *d = set_disk_by_uuid(h->set, &h->at.disk);
	const struct volume *v = entry ? entry->head : NULL;
	if (res == -ENODEV) /* the segment has moved away */
		return 0;
	if (res == -EINVAL || !entry || tree_blocks(entry, h->at.tree_id) == 0)
		return -ENOENT;
	if (!v || !d || v->is_fenced || !volume_disk_is_good(v, d->index))
		return -EBUSY;
	if (res == 0)
		return h->io.own.heal.n_left > 0 ? -EIO : 0;
	return res == -EIO ? -EIO : -EBUSY;
}

static void heal_request_done(struct volume_io *io, int res)
{
	struct heal_request *h = container_of(io, struct heal_request, io);
	heal_request_end(h, heal_request_result(h, res));
}

/* ---- a head for it ---- */

bool heal_wants_head(const struct set_volume *entry)
{
	return entry->heal_until_ns > reactor_now_ns(entry->set->reactor);
}

static void heal_want_head(struct set_volume *entry)
{
	if (volume_facts_are_attached(&entry->facts) || !set_volume_is_here(entry) || entry->attach)
		return;
	entry->heal_until_ns = reactor_now_ns(entry->set->reactor) + HEAL_HEAD_NS;
	if (!entry->head)
		drains_look(entry->set);
}

/* ---- its beginning ---- */

/* 0, or what is wrong: see peer_damage_answer(). */
static int heal_request_find(struct heal_request *h, struct volume **v, uint32_t *disk)
{
	struct set_volume *entry = set_volume_by_uuid(h->set, &h->at.volume);
	const struct set_disk *d = set_disk_by_uuid(h->set, &h->at.disk);
	if (!entry || entry->facts.is_deleting || !d)
		return -ENOENT;
	uint64_t n_blocks = tree_blocks(entry, h->at.tree_id);
	if (n_blocks == 0 || h->at.first >= n_blocks)
		return entry->is_history_short ? -EBUSY : -ENOENT;
	heal_want_head(entry);
	*v = entry->head;
	*disk = d->index;
	if (!*v || (*v)->state != VOLUME_SERVING || (*v)->is_fenced || !volume_disk_is_good(*v, d->index))
		return -EBUSY;
	/* a snapshot may be larger than the volume is now */
	return volume_grow_chunks(*v, n_blocks * BLOCK_BYTES);
}

static bool range_is_sane(const struct peer_damage *at)
{
	return at->n_blocks > 0 && at->n_blocks <= DISK_IO_BLOCKS_MAX &&
	       at->first / SEGMENT_BLOCKS == (at->first + at->n_blocks - 1) / SEGMENT_BLOCKS;
}

static int heal_request_begin(struct heal_request *h)
{
	struct volume *v = NULL;
	uint32_t disk = 0;
	int res = range_is_sane(&h->at) ? heal_request_find(h, &v, &disk) : -ENOENT;
	if (res == 0 && h->set->n_heals > HEALS_MAX)
		res = -EBUSY;
	if (res != 0)
		return res;
	h->iov = (struct iovec){aligned_alloc(BLOCK_BYTES, h->at.n_blocks * BLOCK_BYTES), h->at.n_blocks * BLOCK_BYTES};
	if (!h->iov.iov_base)
		return -ENOMEM;
	h->io = (struct volume_io){.op = VOLUME_READ,
				   .pos_bytes = h->at.first * BLOCK_BYTES,
				   .len_bytes = h->iov.iov_len,
				   .iov = &h->iov,
				   .n_iov = 1,
				   .done = heal_request_done};
	volume_submit_heal(v, &h->io, disk, h->at.tree_id);
	return 0;
}

void volume_set_heal(struct volume_set *s, const struct peer_damage *at, void (*done)(void *context, int res),
		     void *context)
{
	struct heal_request *h = calloc(1, sizeof(*h));
	quarry_assert(at && done);
	if (!h)
		return done(context, -ENOMEM);
	h->set = s;
	h->at = *at;
	h->done = done;
	h->context = context;
	s->n_heals++;
	list_append(&s->heals, &h->link);
	int res = heal_request_begin(h);
	if (res == 0)
		return;
	op_init(&h->op, heal_request_refused);
	reactor_defer(s->reactor, &h->op, res);
}

void heals_abandon(struct volume_set *s)
{
	for (struct list *node; (node = list_pop(&s->heals)) != NULL;) {
		struct heal_request *h = container_of(node, struct heal_request, link);
		free(h->iov.iov_base);
		free(h);
	}
}
