/*
 * vhost_slot.c: the bytes of a request in guest memory, in any layout that virtio allows.
 *
 * A slot's area:   0  table of indirect descriptors
 *               2048  status, in a plain layout
 *               4080  header, so that it touches the data
 *               4096  data, and room for gaps between scattered pieces
 *
 * Invariants
 *  1. The pieces that the device reads come first; together they are header and data to write. Those that it writes are
 *     data to read and, last, the status byte.
 *  2. No two pieces overlap, and the bytes between them are nobody's.
 */
#include "tests/vhost/vhost_slot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TABLE_BYTES  (VHOST_PIECES_MAX * 16u)
#define STATUS_AT    2048u
#define HEADER_BYTES 16u
#define DATA_AT      4096u
#define GAP_MAX      48u
#define CUTS_MAX     24u /* of each direction; both, and what is fused, stay below VHOST_PIECES_MAX and any seg_max */
#define NO_STATUS    0xeeu

_Static_assert(TABLE_BYTES <= STATUS_AT, "the table ends before the status");
_Static_assert(2 * (CUTS_MAX + 1) <= VHOST_PIECES_MAX, "an odd layout fits");

uint64_t vhost_dice(uint64_t *state, uint64_t n)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ull;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return (x ^ (x >> 31)) % n;
}

uint64_t vhost_slot_area_bytes(uint32_t data_max)
{
	return (DATA_AT + data_max + (GAP_MAX + 1) * VHOST_PIECES_MAX + HEADER_BYTES + 4096u) / 4096u * 4096u;
}

struct vhost_slot *vhost_slot_get(struct vhost_queue *q)
{
	for (unsigned i = 0; i < q->n_slots && q->n_used_slots < q->n_slots; i++) {
		struct vhost_slot *s = &q->slots[q->next_slot];

		q->next_slot = (q->next_slot + 1) % q->n_slots;
		if (!s->is_used) {
			s->is_used = true;
			q->n_used_slots++;
			return s;
		}
	}
	return NULL;
}

void vhost_slot_put(struct vhost_slot *s)
{
	s->is_used = false;
	s->queue->n_used_slots--;
}

/* ---- layouts ---- */

static void piece_add(struct vhost_slot *s, uint64_t addr, uint32_t len, bool is_writable)
{
	if (len > 0)
		s->pieces[s->n_pieces++] = (struct vhost_piece){.addr = addr, .len = len, .is_writable = is_writable};
}

static void lay_plain(struct vhost_slot *s, uint32_t n_out, uint32_t n_in)
{
	piece_add(s, s->area + DATA_AT - HEADER_BYTES, HEADER_BYTES, false);
	piece_add(s, s->area + DATA_AT, n_out, false);
	piece_add(s, s->area + DATA_AT, n_in, true);
	piece_add(s, s->area + STATUS_AT, 1, true);
}

static void lay_fused(struct vhost_slot *s, uint32_t n_out, uint32_t n_in)
{
	piece_add(s, s->area + DATA_AT - HEADER_BYTES, HEADER_BYTES + n_out, false);
	piece_add(s, n_in ? s->area + DATA_AT : s->area + STATUS_AT, n_in + 1, true);
}

/* Lengths of the pieces of a stream, cut at random places; addresses come later. */
static void cut(struct vhost_slot *s, uint32_t len, bool is_writable, uint64_t *dice)
{
	uint32_t n_cuts = (uint32_t)vhost_dice(dice, CUTS_MAX), rest = len;

	for (uint32_t i = 0; i < n_cuts && rest > 1; i++) {
		/* small pieces and large ones, and some that end where sectors do */
		uint64_t d = vhost_dice(dice, 4);
		uint32_t most = d == 0 ? 16 : d == 1 ? 600 : rest - 1;
		uint32_t n = 1 + (uint32_t)vhost_dice(dice, most < rest ? most : rest - 1);

		if (d == 3 && n > 512)
			n -= n % 512;
		piece_add(s, 0, n, is_writable);
		rest -= n;
	}
	piece_add(s, 0, rest, is_writable);
}

static void lay_odd(struct vhost_slot *s, uint32_t n_out, uint32_t n_in, uint64_t *dice)
{
	unsigned order[VHOST_PIECES_MAX];
	uint64_t at;

	cut(s, HEADER_BYTES + n_out, false, dice);
	cut(s, n_in + 1, true, dice);
	for (unsigned i = 0; i < s->n_pieces; i++) {
		unsigned k = (unsigned)vhost_dice(dice, i + 1);

		order[i] = order[k];
		order[k] = i;
	}
	at = s->area + STATUS_AT + vhost_dice(dice, DATA_AT - STATUS_AT);
	for (unsigned i = 0; i < s->n_pieces; i++) {
		s->pieces[order[i]].addr = at;
		at += s->pieces[order[i]].len + vhost_dice(dice, GAP_MAX + 1);
	}
}

/* Copies between a buffer and the bytes [from, from + len) of the stream of pieces of one direction. */
static void stream_copy(const struct vhost_slot *s, bool is_writable, uint32_t from, void *buffer, uint32_t len,
			bool is_in)
{
	const struct vhost_memory *m = &s->queue->client->memory;
	uint8_t *b = buffer;
	uint32_t pos = 0;

	for (unsigned i = 0; i < s->n_pieces && len > 0; i++) {
		const struct vhost_piece *p = &s->pieces[i];
		uint32_t skip, n;

		if (p->is_writable != is_writable)
			continue;
		if (pos + p->len > from) {
			skip = from - pos;
			n = p->len - skip < len ? p->len - skip : len;
			if (is_in)
				memcpy(b, vhost_memory_at(m, p->addr + skip), n);
			else
				memcpy(vhost_memory_at(m, p->addr + skip), b, n);
			b += n;
			from += n;
			len -= n;
		}
		pos += p->len;
	}
}

static bool type_reads(uint32_t type)
{
	return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
}

void vhost_slot_prepare(struct vhost_slot *s, uint32_t type, uint64_t sector, uint32_t data_len,
			struct vhost_shape shape)
{
	struct virtio_blk_outhdr header = {.type = type, .sector = sector};
	uint32_t n_in = type_reads(type) ? data_len : 0, n_out = data_len - n_in;

	s->type = type;
	s->sector = sector;
	s->data_len = data_len;
	s->n_pieces = 0;
	switch (shape.layout) {
	case VHOST_LAYOUT_PLAIN:
		lay_plain(s, n_out, n_in);
		break;
	case VHOST_LAYOUT_FUSED:
		lay_fused(s, n_out, n_in);
		break;
	case VHOST_LAYOUT_ODD:
		lay_odd(s, n_out, n_in, shape.dice);
		break;
	}
	s->n_direct = shape.table == VHOST_TABLE_DIRECT     ? s->n_pieces
		      : shape.table == VHOST_TABLE_INDIRECT ? 0
							    : (unsigned)vhost_dice(shape.dice, s->n_pieces);
	s->status_addr = s->pieces[s->n_pieces - 1].addr + s->pieces[s->n_pieces - 1].len - 1;
	*(uint8_t *)vhost_memory_at(&s->queue->client->memory, s->status_addr) = NO_STATUS;
	stream_copy(s, false, 0, &header, sizeof(header), false);
}

void vhost_slot_write(struct vhost_slot *s, const void *data, uint32_t len)
{
	stream_copy(s, false, HEADER_BYTES, (void *)data, len, false);
}

void vhost_slot_read(const struct vhost_slot *s, void *data, uint32_t len)
{
	stream_copy(s, true, 0, data, len, true);
}

uint8_t vhost_slot_status(const struct vhost_slot *s)
{
	return *(uint8_t *)vhost_memory_at(&s->queue->client->memory, s->status_addr);
}

/* ---- sending and completing ---- */

bool vhost_slot_submit(struct vhost_slot *s)
{
	struct vhost_chain chain = {.pieces = s->pieces,
				    .n = s->n_pieces,
				    .n_direct = s->n_direct,
				    .table = vhost_memory_at(&s->queue->client->memory, s->area),
				    .table_addr = s->area,
				    .token = (uint32_t)(s - s->queue->slots)};

	return vhost_ring_add(&s->queue->ring, &chain);
}

struct vhost_slot *vhost_queue_take(struct vhost_queue *q, uint32_t *len)
{
	uint32_t token, n;

	if (!vhost_ring_take(&q->ring, &token, &n))
		return NULL;
	if (len)
		*len = n;
	return &q->slots[token];
}

/* What the device says it has written into the request's memory: all of it when the request succeeded. */
static int answer_of(struct vhost_slot *s, uint32_t len)
{
	struct vhost_client *c = s->queue->client;
	uint8_t status = vhost_slot_status(s);
	uint32_t all = 1 + (type_reads(s->type) ? s->data_len : 0);

	if (status == NO_STATUS || len == 0 || len > all || (status == VIRTIO_BLK_S_OK && len != all)) {
		snprintf(c->why, sizeof(c->why), "request of type %u ended with status %#x and %u bytes written",
			 s->type, status, len);
		return -EPROTO;
	}
	return status;
}

int vhost_queue_do(struct vhost_queue *q, uint32_t type, uint64_t sector, void *data, uint32_t len,
		   struct vhost_shape shape)
{
	struct vhost_client *c = q->client;
	struct vhost_slot *s = vhost_slot_get(q), *done;
	uint32_t n_written;
	int res;

	if (!s)
		return -EBUSY;
	vhost_slot_prepare(s, type, sector, len, shape);
	if (!type_reads(type))
		vhost_slot_write(s, data, len);
	if (!vhost_slot_submit(s)) {
		vhost_slot_put(s);
		return -ENOSPC;
	}
	vhost_queue_push(q);
	while (!(done = vhost_queue_take(q, &n_written))) {
		if (q->ring.why) {
			snprintf(c->why, sizeof(c->why), "the server %s (%u)", q->ring.why, q->ring.why_id);
			return -EPROTO;
		}
		if (vhost_ring_want_call(&q->ring))
			continue;
		res = vhost_client_wait(c, (int)c->o.seconds_max * 1000);
		if (res == 0)
			snprintf(c->why, sizeof(c->why), "no completion within %u s", c->o.seconds_max);
		if (res <= 0)
			return res == 0 ? -ETIMEDOUT : res;
	}
	if (done != s)
		return -EPROTO;
	res = answer_of(s, n_written);
	if (res == VIRTIO_BLK_S_OK && type_reads(type))
		vhost_slot_read(s, data, len);
	vhost_slot_put(s);
	return res;
}
