/*
 * nbd_message.c: what is said to a client of a request: parts of what was read, the end, an error.
 *
 * A message is a piece's header and perhaps a payload, which is the piece's buffer or a constant; it is queued here and
 * sent by nbd_transmission.c.
 *
 * Owner: the connection.
 */
#include "frontends/nbd/nbd_internal.h"

#include "daemon/core/checksum.h"

void message_set(struct nbd_piece *p, uint32_t header_bytes, const void *payload, uint32_t payload_bytes)
{
	quarry_assert(header_bytes <= MESSAGE_HEADER_BYTES);
	quarry_assert(header_bytes + payload_bytes > 0);
	p->header_bytes = header_bytes;
	p->payload = payload;
	p->payload_bytes = payload_bytes;
}

void message_queue(struct nbd_piece *p)
{
	struct nbd_request *r = p->request;
	struct nbd_connection *c = r->connection;

	quarry_assert(p->stage == PIECE_IDLE || p->stage == PIECE_FILLED);
	p->stage = PIECE_QUEUED;
	r->n_sending++;
	list_append(r->in_progress && r->n_queued > 0 ? &r->following : &c->queue, &p->link);
	connection_wake(c);
}

void message_chunk(struct nbd_piece *p, uint16_t type, bool is_last, uint32_t len_bytes)
{
	struct nbd_chunk chunk = {
	    .flags = is_last ? NBD_CHUNK_DONE : 0, .type = type, .cookie = p->request->cookie, .len_bytes = len_bytes};
	nbd_chunk_encode(p->header, &chunk);
}

/* One part of a read. A part that is all zeros is told as a hole: reading it is truthful, and no byte of it travels. */
void message_read_chunk(struct nbd_piece *p)
{
	struct nbd_request *r = p->request;
	bool is_last = p->pos_bytes + p->len_bytes == r->end_bytes;

	if (!(r->flags & NBD_CMD_DF) && bytes_are_zero(p->buffer, p->len_bytes)) {
		message_chunk(p, NBD_CHUNK_OFFSET_HOLE, is_last, 12);
		put_be64(p->header + 20, p->pos_bytes);
		put_be32(p->header + 28, p->len_bytes);
		message_set(p, NBD_HOLE_CHUNK_BYTES, NULL, 0);
	} else {
		message_chunk(p, NBD_CHUNK_OFFSET_DATA, is_last, 8 + p->len_bytes);
		put_be64(p->header + 20, p->pos_bytes);
		message_set(p, NBD_DATA_CHUNK_BYTES, p->buffer, p->len_bytes);
	}
	r->is_answered |= is_last;
}

void message_read_simple(struct nbd_piece *p)
{
	struct nbd_request *r = p->request;
	bool is_first = p->pos_bytes == r->pos_bytes;

	if (is_first)
		nbd_simple_reply_encode(p->header, r->cookie, NBD_OK);
	message_set(p, is_first ? NBD_SIMPLE_REPLY_BYTES : 0, p->buffer, p->len_bytes);
	r->is_answered |= p->pos_bytes + p->len_bytes == r->end_bytes;
}

void message_error(struct nbd_piece *p)
{
	struct nbd_request *r = p->request;
	uint32_t why_bytes = (uint32_t)strlen(r->why);

	quarry_assert(r->error != NBD_OK && why_bytes <= NBD_STRING_MAX);
	if (!r->connection->terms.is_structured) {
		nbd_simple_reply_encode(p->header, r->cookie, r->error);
		message_set(p, NBD_SIMPLE_REPLY_BYTES, NULL, 0);
		return;
	}
	message_chunk(p, NBD_CHUNK_ERROR, true, 6 + why_bytes);
	put_be32(p->header + 20, r->error);
	put_be16(p->header + 24, (uint16_t)why_bytes);
	message_set(p, NBD_ERROR_CHUNK_BYTES, r->why, why_bytes);
}

/* Done, and nothing more to say. */
void message_done(struct nbd_piece *p)
{
	struct nbd_request *r = p->request;

	if (r->command == NBD_CMD_READ && r->connection->terms.is_structured) { /* of no bytes */
		message_chunk(p, NBD_CHUNK_NONE, true, 0);
		message_set(p, NBD_CHUNK_HEADER_BYTES, NULL, 0);
		return;
	}
	nbd_simple_reply_encode(p->header, r->cookie, NBD_OK);
	message_set(p, NBD_SIMPLE_REPLY_BYTES, NULL, 0);
}
