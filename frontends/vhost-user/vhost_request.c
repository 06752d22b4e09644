/*
 * vhost_request.c: one request of a guest, from its descriptors to its status byte.
 *
 *   BEGIN -> MEMORY -> SERVE <-> GATHER -> ANSWER -> FREE
 *     |                                      ^
 *     +---- refused, or has no data ---------+
 *
 * Data is served in pieces, one after the other: of a read as many segments as the volume takes at once, straight into
 * the guest's memory; everything else as much as our buffer holds.
 *
 * The guest's memory is not ours
 *  - What is written goes through a buffer of ours, and is summed there: a guest that changes its page meanwhile cannot
 *    make checksum and data differ.
 *  - What is read is verified where it landed. A block that does not match there proves nothing: the guest, or a device
 *    of its own, may have written to that page. So it is read again into a buffer of ours, and only what does not match
 *    there is damage. The guest gets the right bytes either way.
 *  - Memory that is not aligned to sectors, or cut more finely than that, goes through our buffer too.
 *
 * Invariants
 *  1. chain.pieces[first_piece .. end_piece) is the data and nothing else: neither header nor status.
 *  2. A request has at most one piece with the volume. The buffer is its own from MEMORY to ANSWER.
 *  3. Everything read from the guest is copied before it is looked at: header, ranges.
 *  4. Whatever happens, the chain goes back to the guest once, by ANSWER; only of a volume that is being detached it
 *     stays in flight.
 */
#include "frontends/vhost-user/vhost_internal.h"

#include <errno.h>
#include <stdio.h>

static void blk_run(struct vhost_request *r);

static struct vhost_server *vhost_of(const struct vhost_request *r)
{
	return r->queue->connection->door->server;
}

static struct volume *volume_of(const struct vhost_request *r)
{
	return r->queue->connection->door->volume;
}

static bool blk_reads(const struct vhost_request *r)
{
	return r->type == BLK_T_IN;
}

static void blk_refuse(struct vhost_request *r, uint8_t status)
{
	quarry_assert(status != BLK_S_OK);
	if (r->status != BLK_S_OK)
		return;
	r->status = status;
	counter_add(status == BLK_S_UNSUPP ? &vhost_of(r)->counters.unsupported : &vhost_of(r)->counters.errors, 1);
}

/* ---- the guest's memory ---- */

/* Moves len_bytes between the guest's data, from where the request stands, and our memory. */
static void data_copy(struct vhost_request *r, uint8_t *ours, uint64_t len_bytes, bool to_guest)
{
	uint32_t at = r->at_piece;
	uint64_t skip = r->at_skip;

	while (len_bytes > 0) {
		quarry_assert(at < r->end_piece);
		struct iovec *piece = &r->chain.pieces[at];
		uint64_t n = min_u64(len_bytes, piece->iov_len - skip);
		if (to_guest)
			memcpy((uint8_t *)piece->iov_base + skip, ours, n);
		else
			memcpy(ours, (uint8_t *)piece->iov_base + skip, n);
		ours += n;
		len_bytes -= n;
		skip = 0;
		at++;
	}
}

static void data_advance(struct vhost_request *r, uint64_t len_bytes)
{
	r->done_bytes += len_bytes;
	while (len_bytes > 0) {
		uint64_t n = min_u64(len_bytes, r->chain.pieces[r->at_piece].iov_len - r->at_skip);
		len_bytes -= n;
		r->at_skip += n;
		if (r->at_skip < r->chain.pieces[r->at_piece].iov_len)
			break;
		r->at_piece++;
		r->at_skip = 0;
	}
}

/* The log learns of what was written; for direct reads the device wrote it. */
static void data_note(struct vhost_request *r, uint64_t len_bytes)
{
	uint32_t at = r->at_piece;
	uint64_t skip = r->at_skip;

	for (; len_bytes > 0; at++, skip = 0) {
		uint64_t n = min_u64(len_bytes, r->chain.pieces[at].iov_len - skip);
		memory_note(&r->queue->connection->memory, (uint8_t *)r->chain.pieces[at].iov_base + skip, n);
		len_bytes -= n;
	}
}

/* ---- BEGIN: header, data, status ---- */

/* The header is taken off the front of what we may read, wherever it is cut. False: it is not there. */
static bool header_take(struct vhost_request *r)
{
	struct vring_chain *c = &r->chain;
	uint8_t header[BLK_HEADER_BYTES];
	uint32_t done = 0, i = 0;

	if (c->readable_bytes < sizeof(header))
		return false;
	while (done < sizeof(header)) {
		struct iovec *piece = &c->pieces[i];
		uint32_t n = (uint32_t)min_u64(sizeof(header) - done, piece->iov_len);
		memcpy(header + done, piece->iov_base, n);
		done += n;
		piece->iov_base = (uint8_t *)piece->iov_base + n;
		piece->iov_len -= n;
		i += piece->iov_len == 0;
	}
	c->readable_bytes -= sizeof(header);
	r->first_piece = i;
	r->type = get_le32(header);
	r->pos_bytes = get_le64(header + 8);
	return true;
}

/* The status is the last byte that we may write. */
static bool status_take(struct vhost_request *r)
{
	struct vring_chain *c = &r->chain;

	if (c->writable_bytes == 0)
		return false;
	struct iovec *last = &c->pieces[c->n_pieces - 1];
	last->iov_len--;
	r->status_at = (uint8_t *)last->iov_base + last->iov_len;
	c->writable_bytes--;
	c->n_pieces -= last->iov_len == 0;
	return true;
}

/* Where the data is: what a read writes comes after all that is readable. */
static void data_find(struct vhost_request *r)
{
	bool is_written = r->type == BLK_T_IN || r->type == BLK_T_GET_ID;

	if (is_written)
		r->first_piece = r->chain.n_readable;
	r->end_piece = is_written ? r->chain.n_pieces : r->chain.n_readable;
	r->len_bytes = is_written ? r->chain.writable_bytes : r->chain.readable_bytes;
	r->at_piece = r->first_piece;
	r->at_skip = r->done_bytes = 0;
}

static void id_answer(struct vhost_request *r)
{
	uint8_t id[BLK_ID_BYTES] = {0};
	char uuid[UUID_TEXT_BYTES];
	uint32_t n = 0;

	/* 20 of the 32 digits: a serial has no room for more */
	uuid_to_text(volume_uuid(volume_of(r)), uuid);
	for (const char *at = uuid; *at && n < sizeof(id); at++)
		if (*at != '-')
			id[n++] = (uint8_t)*at;
	uint64_t len = min_u64(r->len_bytes, sizeof(id));
	data_copy(r, id, len, true);
	data_note(r, len);
	r->written_bytes = (uint32_t)len;
	counter_add(&vhost_of(r)->counters.ids, 1);
}

static void ranges_take(struct vhost_request *r)
{
	if (r->len_bytes == 0 || r->len_bytes % BLK_RANGE_BYTES != 0 || r->len_bytes > sizeof(r->ranges)) {
		blk_refuse(r, r->len_bytes > sizeof(r->ranges) ? BLK_S_UNSUPP : BLK_S_IOERR);
		return;
	}
	data_copy(r, r->ranges, r->len_bytes, false);
	r->n_ranges = (uint32_t)(r->len_bytes / BLK_RANGE_BYTES);
	r->next_range = 0;
}

static void transfer_check(struct vhost_request *r)
{
	uint64_t sectors = volume_size_bytes(volume_of(r)) / SECTOR_BYTES;

	if (r->len_bytes % SECTOR_BYTES != 0 || r->pos_bytes > sectors ||
	    r->len_bytes / SECTOR_BYTES > sectors - r->pos_bytes)
		blk_refuse(r, BLK_S_IOERR);
	else
		r->pos_bytes *= SECTOR_BYTES;
}

/* Can the volume put the next bytes right there? */
static bool memory_is_direct(const struct vhost_request *r)
{
	for (uint32_t i = r->first_piece; i < r->end_piece; i++)
		if (((uintptr_t)r->chain.pieces[i].iov_base | r->chain.pieces[i].iov_len) % SECTOR_BYTES != 0)
			return false;
	return true;
}

/* Refuses what makes no sense. The stage after is MEMORY, or ANSWER when nothing is to be done. */
static void blk_open(struct vhost_request *r)
{
	struct vhost_counters *n = &vhost_of(r)->counters;
	bool has_status = status_take(r);

	if (!header_take(r)) {
		blk_refuse(r, BLK_S_IOERR);
		return;
	}
	if (!has_status) {
		blk_refuse(r, BLK_S_IOERR);
		return;
	}
	data_find(r);
	switch (r->type) {
	case BLK_T_IN:
		counter_add(&n->reads, 1);
		transfer_check(r);
		r->is_private = !memory_is_direct(r);
		break;
	case BLK_T_OUT:
		counter_add(&n->writes, 1);
		transfer_check(r);
		break;
	case BLK_T_FLUSH:
		counter_add(&n->flushes, 1);
		break;
	case BLK_T_GET_ID:
		id_answer(r);
		break;
	case BLK_T_DISCARD:
	case BLK_T_WRITE_ZEROES:
		counter_add(r->type == BLK_T_DISCARD ? &n->trims : &n->zeroes, 1);
		ranges_take(r);
		break;
	default:
		blk_refuse(r, BLK_S_UNSUPP);
	}
	if ((r->type == BLK_T_OUT || r->n_ranges > 0) && volume_is_read_only(volume_of(r)))
		blk_refuse(r, BLK_S_IOERR);
}

static bool blk_has_work(const struct vhost_request *r)
{
	if (r->status != BLK_S_OK || r->is_left)
		return false;
	switch (r->type) {
	case BLK_T_IN:
	case BLK_T_OUT:
		return r->done_bytes < r->len_bytes;
	case BLK_T_FLUSH:
		return r->done_bytes == 0;
	case BLK_T_DISCARD:
	case BLK_T_WRITE_ZEROES:
		return r->next_range < r->n_ranges;
	default:
		return false;
	}
}

/* ---- MEMORY ---- */

static void buffer_came(struct buffer_waiter *w, void *data)
{
	struct vhost_request *r = container_of(w, struct vhost_request, waiter);

	quarry_assert(r->stage == VHOST_REQUEST_MEMORY && r->is_waiting);
	r->is_waiting = false;
	r->buffer = data;
	blk_run(r);
}

static void buffer_give_back(struct vhost_request *r)
{
	if (r->buffer)
		buffers_put(vhost_of(r)->buffers, r->buffer, r->buffer_bytes);
	r->buffer = NULL;
}

static enum flow blk_memory(struct vhost_request *r)
{
	struct buffers *b = vhost_of(r)->buffers;

	if (r->buffer || !(r->type == BLK_T_OUT || (blk_reads(r) && r->is_private)))
		return FLOW_NEXT;
	r->buffer_bytes = (uint32_t)min_u64(r->len_bytes - r->done_bytes, BUFFER_MAX_BYTES);
	r->buffer = buffers_get(b, r->buffer_bytes);
	if (r->buffer)
		return FLOW_NEXT;
	counter_add(&vhost_of(r)->counters.waits_buffers, 1);
	r->is_waiting = true;
	buffers_wait(b, &r->waiter, r->buffer_bytes);
	return FLOW_WAIT;
}

/* ---- SERVE ---- */

static bool writes_through(const struct vhost_request *r)
{
	const struct vhost_connection *c = r->queue->connection;

	/* virtio 1.2, 5.2.6.2: a driver that cannot flush, or turned the cache off, has its writes durable at once */
	return !c->wce || !(c->features & (VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_CONFIG_WCE));
}

/* The next segments of the guest's memory, as they are. */
static void piece_direct(struct vhost_request *r)
{
	uint64_t skip = r->at_skip;
	uint32_t n = 0;

	r->piece_bytes = 0;
	for (uint32_t i = r->at_piece; i < r->end_piece && n < VHOST_PIECE_IOVECS; i++, skip = 0) {
		struct iovec piece = r->chain.pieces[i];
		uint64_t len = min_u64(piece.iov_len - skip, VOLUME_IO_BYTES_MAX - r->piece_bytes);
		if (piece.iov_len == 0)
			continue;
		if (len == 0)
			break;
		r->iov[n++] = (struct iovec){(uint8_t *)piece.iov_base + skip, len};
		r->piece_bytes += len;
	}
	r->io.n_iov = n;
	r->io.flags = VOLUME_SHARED;
}

static void piece_buffered(struct vhost_request *r)
{
	r->piece_bytes = min_u64(r->len_bytes - r->done_bytes, r->buffer_bytes);
	r->iov[0] = (struct iovec){r->buffer, r->piece_bytes};
	r->io.n_iov = 1;
	r->io.flags = r->type == BLK_T_OUT && writes_through(r) ? VOLUME_FUA : 0;
	if (r->type == BLK_T_OUT)
		data_copy(r, r->buffer, r->piece_bytes, false);
}

static void serve_transfer(struct vhost_request *r)
{
	r->io.op = blk_reads(r) ? VOLUME_READ : VOLUME_WRITE;
	if (r->buffer)
		piece_buffered(r);
	else
		piece_direct(r);
	r->io.iov = r->iov;
	r->io.pos_bytes = r->pos_bytes + r->done_bytes;
	r->io.len_bytes = r->piece_bytes;
}

/* 0, or the status of a range that makes no sense. */
static uint8_t serve_range(struct vhost_request *r)
{
	const uint8_t *range = r->ranges + (size_t)r->next_range * BLK_RANGE_BYTES;
	uint64_t sector = get_le64(range), n = get_le32(range + 8), flags = get_le32(range + 12);
	uint64_t sectors = volume_size_bytes(volume_of(r)) / SECTOR_BYTES;
	bool is_discard = r->type == BLK_T_DISCARD;

	if (flags & ~(uint64_t)(is_discard ? 0 : BLK_RANGE_UNMAP))
		return BLK_S_UNSUPP;
	if (n == 0 || sector > sectors || n > sectors - sector)
		return BLK_S_IOERR;
	r->io.op = is_discard ? VOLUME_TRIM : VOLUME_ZERO;
	r->io.flags =
	    (is_discard || flags & BLK_RANGE_UNMAP ? 0 : VOLUME_NO_HOLE) | (writes_through(r) ? VOLUME_FUA : 0);
	r->io.pos_bytes = sector * SECTOR_BYTES;
	r->io.len_bytes = n * SECTOR_BYTES;
	r->next_range++;
	return BLK_S_OK;
}

/* FLOW_WAIT: with the volume. */
static enum flow blk_serve(struct vhost_request *r)
{
	r->piece_bytes = 0;
	r->io.iov = NULL;
	r->io.n_iov = 0;
	if (r->type == BLK_T_IN || r->type == BLK_T_OUT) {
		serve_transfer(r);
	} else if (r->type == BLK_T_FLUSH) {
		r->io.op = VOLUME_FLUSH;
		r->io.flags = 0;
		r->io.pos_bytes = r->io.len_bytes = 0;
		r->done_bytes = 1;
	} else {
		uint8_t status = serve_range(r);
		if (status != BLK_S_OK) {
			blk_refuse(r, status);
			return FLOW_NEXT;
		}
	}
	volume_submit(volume_of(r), &r->io);
	return FLOW_WAIT;
}

/* ---- GATHER ---- */

static void blk_served(struct volume_io *io, int res)
{
	struct vhost_request *r = container_of(io, struct vhost_request, io);
	struct vhost_counters *n = &vhost_of(r)->counters;

	quarry_assert(r->stage == VHOST_REQUEST_GATHER);
	if (res == -EBADMSG) { /* again, where the guest cannot write */
		quarry_assert(!r->is_private);
		r->is_private = true;
		counter_add(&n->rereads, 1);
	} else if (res == -ESHUTDOWN) {
		r->is_left = true;
	} else if (res != 0) {
		blk_refuse(r, res == -ENOTSUP ? BLK_S_UNSUPP : BLK_S_IOERR);
	} else if (r->piece_bytes > 0) {
		counter_add(blk_reads(r) ? &n->read_bytes : &n->write_bytes, r->piece_bytes);
		if (blk_reads(r) && r->buffer) {
			counter_add(&n->bounced_bytes, r->piece_bytes);
			data_copy(r, r->buffer, r->piece_bytes, true);
		}
		if (blk_reads(r)) {
			data_note(r, r->piece_bytes);
			r->written_bytes += (uint32_t)r->piece_bytes;
		}
		data_advance(r, r->piece_bytes);
	}
	blk_run(r);
}

/* ---- ANSWER ---- */

static void blk_answer(struct vhost_request *r)
{
	struct vhost_queue *q = r->queue;
	struct vhost_connection *c = q->connection;
	struct vhost_server *s = vhost_of(r);

	buffer_give_back(r);
	if (r->status_at && !r->is_left) {
		*(volatile uint8_t *)r->status_at = r->status;
		memory_note(&c->memory, r->status_at, 1);
	}
	if (!r->is_left)
		vring_complete(&q->ring, &r->chain, r->written_bytes + (r->status_at != NULL));
	list_remove(&r->link);
	r->stage = VHOST_REQUEST_FREE;
	quarry_assert(q->n_requests > 0 && c->n_requests > 0);
	q->n_requests--;
	c->n_requests--;
	counter_set(&s->counters.n_requests, s->counters.n_requests - 1);
	queue_completed(q);
	vhost_give_request(s, r);
}

/* ---- the dispatcher: read it to know the way of every request ---- */

static void blk_run(struct vhost_request *r)
{
	for (;;) {
		switch (r->stage) {
		case VHOST_REQUEST_BEGIN:
			blk_open(r);
			r->stage = blk_has_work(r) ? VHOST_REQUEST_MEMORY : VHOST_REQUEST_ANSWER;
			break;
		case VHOST_REQUEST_MEMORY:
			if (blk_memory(r) == FLOW_WAIT)
				return;
			r->stage = VHOST_REQUEST_SERVE;
			break;
		case VHOST_REQUEST_SERVE:
			r->stage = VHOST_REQUEST_GATHER;
			if (blk_serve(r) == FLOW_WAIT)
				return;
			break;
		case VHOST_REQUEST_GATHER: /* the volume has answered */
			r->stage = blk_has_work(r) ? VHOST_REQUEST_MEMORY : VHOST_REQUEST_ANSWER;
			break;
		case VHOST_REQUEST_ANSWER:
			blk_answer(r);
			return;
		case VHOST_REQUEST_FREE:
			quarry_assert(!"a request that is free runs");
		}
	}
}

void blk_begin(struct vhost_request *r, struct vhost_queue *q)
{
	struct vhost_server *s = q->connection->door->server;

	quarry_assert(r->stage == VHOST_REQUEST_FREE && !r->buffer);
	r->queue = q;
	r->started_ns = reactor_now_ns(s->reactor);
	r->status = BLK_S_OK;
	r->status_at = NULL;
	r->type = UINT32_MAX;
	r->written_bytes = r->n_ranges = r->next_range = 0;
	r->done_bytes = r->len_bytes = r->piece_bytes = 0;
	r->is_private = r->is_waiting = r->is_left = false;
	r->waiter.ready = buffer_came;
	r->io.done = blk_served;
	list_append(&q->requests, &r->link);
	q->n_requests++;
	q->connection->n_requests++;
	counter_set(&s->counters.n_requests, s->counters.n_requests + 1);
	r->stage = VHOST_REQUEST_BEGIN;
	blk_run(r);
}

void blk_to_text(const struct vhost_request *r, uint64_t now_ns, char text[static 2 * VHOST_TEXT_BYTES])
{
	static const char *const stages[] = {
#define X(name) #name,
	    VHOST_REQUEST_STAGES(X)
#undef X
	};
	char who[VHOST_TEXT_BYTES];

	guest_to_text(r->queue->connection, who);
	snprintf(text, 2 * VHOST_TEXT_BYTES, "%s: queue %u: type %u of %llu bytes at %llu: %s for %llu ms%s", who,
		 r->queue->index, r->type, (unsigned long long)r->len_bytes, (unsigned long long)r->pos_bytes,
		 stages[r->stage], (unsigned long long)((now_ns - r->started_ns) / NS_PER_MS),
		 r->is_waiting ? ", waits for a buffer" : "");
}
