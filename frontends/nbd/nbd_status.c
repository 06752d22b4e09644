/*
 * nbd_status.c: the answers to BLOCK_STATUS: base:allocation, and qemu:dirty-bitmap:SNAPSHOT for what changed since one.
 *
 * With base:allocation alone the extents are asked for and encoded in the request's buffer. With bitmaps, the contexts are
 * asked for one after the other, each into memory of its own in one larger buffer, and answered by one chunk each:
 *
 *   piece 1 ... piece n - 1, piece 0         in this order: the buffer is piece 0's, and goes back when it was sent
 *
 * Neighbours of the same state are one extent on the wire, which knows no extent of 4 GiB or more.
 */
#include "frontends/nbd/nbd_internal.h"

/* What a request with bitmaps works in. */
struct status_memory {
	struct volume_changes changes;
	struct nbd_request *request;
	uint32_t index; /* of the context that is being asked for */
	uint32_t n[PIECES];
	struct volume_extent extents[STATUS_BITMAP_EXTENTS], scratch[VOLUME_CHANGES_SCRATCH];
	uint8_t encoded[PIECES][STATUS_BITMAP_EXTENTS * NBD_EXTENT_BYTES];
};
_Static_assert(sizeof(struct status_memory) <= BUFFER_MAX_BYTES, "it fits into a buffer");
_Static_assert(STATUS_BITMAPS_MAX + 1 <= PIECES, "each context has a piece");

uint32_t status_buffer_bytes(const struct nbd_connection *c)
{
	return c->n_bases ? (uint32_t)sizeof(struct status_memory) : STATUS_BUFFER_BYTES;
}

uint32_t status_n_contexts(const struct nbd_connection *c)
{
	return c->n_bases + c->terms.reports_allocation;
}

static struct status_memory *memory_of(struct nbd_request *r)
{
	return (struct status_memory *)(void *)r->pieces[0].buffer;
}

/* ---- encoding ---- */

static uint32_t state_of(const struct volume_extent *e, bool is_bitmap)
{
	if (is_bitmap)
		return e->is_changed ? NBD_STATE_DIRTY : 0;
	return e->is_data ? 0 : NBD_STATE_HOLE | NBD_STATE_ZERO;
}

/* out may be the extents themselves: what is written at 8 * n was read before from 16 * n. Returns how many there are. */
static uint32_t encode(const struct volume_extent *extents, uint32_t n_extents, uint64_t left_bytes, bool is_bitmap,
		       uint8_t *out)
{
	uint32_t n = 0, state_before = 0;
	for (uint32_t i = 0; i < n_extents && left_bytes > 0; i++) {
		struct volume_extent e = extents[i];
		uint32_t state = state_of(&e, is_bitmap);
		uint32_t len_bytes = (uint32_t)min_u64(e.len_bytes, left_bytes);
		uint8_t *at = out + (size_t)n * NBD_EXTENT_BYTES;

		quarry_assert(len_bytes > 0);
		left_bytes -= len_bytes;
		if (n > 0 && state == state_before) {
			at -= NBD_EXTENT_BYTES;
			len_bytes += get_be32(at); /* the sum is at most the request's 32 bits of length */
		} else {
			n++;
		}
		put_be32(at, len_bytes);
		put_be32(at + 4, state);
		state_before = state;
	}
	return n;
}

/* ---- asking ---- */

static void status_ask(struct nbd_request *r);

/* A context has been answered: encodes it, and asks for the next. true: all are. */
bool status_answered(struct nbd_request *r)
{
	struct nbd_connection *c = r->connection;
	struct nbd_piece *p = &r->pieces[0];
	struct status_memory *m = memory_of(r);
	if (c->n_bases == 0)
		return true;
	bool is_bitmap = !c->terms.reports_allocation || m->index > 0;
	uint32_t n = is_bitmap ? m->changes.n_extents : p->io.n_extents;
	m->n[m->index] = encode(m->extents, n, p->len_bytes, is_bitmap, m->encoded[m->index]);
	if (++m->index == status_n_contexts(c))
		return true;
	status_ask(r);
	return false;
}

static void status_changed(struct volume_changes *changes, int res)
{
	struct status_memory *m = container_of(changes, struct status_memory, changes);
	request_piece_done(&m->request->pieces[0], res);
}

static void status_ask(struct nbd_request *r)
{
	struct nbd_connection *c = r->connection;
	struct nbd_piece *p = &r->pieces[0];
	struct status_memory *m = memory_of(r);
	uint32_t max = r->flags & NBD_CMD_REQ_ONE ? 1 : STATUS_BITMAP_EXTENTS;
	if (c->terms.reports_allocation && m->index == 0) {
		request_piece_map(p, m->extents, max);
		return;
	}
	m->changes = (struct volume_changes){.base = c->bases[m->index - c->terms.reports_allocation],
					     .pos_bytes = p->pos_bytes,
					     .len_bytes = p->len_bytes,
					     .extents = m->extents,
					     .extents_max = max,
					     .scratch = m->scratch,
					     .done = status_changed};
	request_piece_lend(p);
	volume_changes_submit(&m->changes);
}

void status_begin(struct nbd_request *r)
{
	struct nbd_piece *p = &r->pieces[0];
	if (r->connection->n_bases == 0) {
		uint32_t max = r->flags & NBD_CMD_REQ_ONE ? 1 : STATUS_EXTENTS;
		request_piece_map(p, (struct volume_extent *)(void *)p->buffer, max);
		return;
	}
	memory_of(r)->request = r;
	memory_of(r)->index = 0;
	status_ask(r);
}

/* ---- answering ---- */

static void status_message(struct nbd_piece *p, bool is_last, uint32_t id, const uint8_t *encoded, uint32_t n)
{
	message_chunk(p, NBD_CHUNK_BLOCK_STATUS, is_last, 4 + n * NBD_EXTENT_BYTES);
	put_be32(p->header + 20, id);
	message_set(p, NBD_STATUS_CHUNK_BYTES, encoded, n * NBD_EXTENT_BYTES);
	message_queue(p);
}

void status_reply(struct nbd_request *r)
{
	struct nbd_connection *c = r->connection;
	struct nbd_piece *p = &r->pieces[0];
	struct status_memory *m = memory_of(r);
	if (c->n_bases == 0) {
		uint32_t n = encode(p->io.extents, p->io.n_extents, p->len_bytes, false, p->buffer);
		status_message(p, true, NBD_CONTEXT_ALLOCATION, p->buffer, n);
		return;
	}
	uint32_t n_contexts = status_n_contexts(c), first = NBD_CONTEXT_ALLOCATION + !c->terms.reports_allocation;
	for (uint32_t i = 1; i < n_contexts; i++)
		status_message(&r->pieces[i], false, first + i, m->encoded[i], m->n[i]);
	status_message(p, true, first, m->encoded[0], m->n[0]);
}
