/*
 * vhost_request.c: one request of a guest, from its descriptors to its status byte.
 *
 *   BEGIN -> MEMORY -> SERVE <-> GATHER -> ANSWER -> FREE
 *     |                                      ^
 *     +---- refused, or has no data ---------+
 *
 * Data is served in pieces, several at a time: of a read as many segments as the volume takes at once, straight into
 * the guest's memory; everything else as much as a buffer of ours holds. A request waits in line for its first buffer
 * only; further ones it takes while there are plenty. Ranges go one after the other.
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
 *  2. It waits in line for a buffer only while nothing of it is with the volume. Its buffers are its own until ANSWER.
 *  3. Everything read from the guest is copied before it is looked at: header, ranges.
 *  4. Pieces are disjoint and in order: what is to be read again begins at the first that did not match.
 *  5. Whatever happens, the chain goes back to the guest once, by ANSWER; only of a volume that is being detached it
 *     stays in flight.
 */
#include "frontends/vhost-user/vhost_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ID_NUMBER_DIGITS 8u /* of a snapshot, in hexadecimal */

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

static void blk_refuse(struct vhost_request *r, uint8_t status, const char *why)
{
	struct vhost_server *s = vhost_of(r);
	char text[2 * VHOST_TEXT_BYTES];

	quarry_assert(status != BLK_S_OK);
	if (r->status != BLK_S_OK)
		return;
	r->status = status;
	counter_add(status == BLK_S_UNSUPP ? &s->counters.unsupported : &s->counters.errors, 1);
	if (!log_writes(s->log, LOG_DEBUG)) /* a guest may ask for as many as it likes */
		return;
	blk_to_text(r, reactor_now_ns(s->reactor), text);
	log_line(s->log, LOG_DEBUG, "vhost", "%s: answered with an error: %s", text, why);
}

/* ---- the guest's memory ---- */

/* Moves len_bytes between the guest's data, from this place on, and our memory. */
static void data_copy(struct vhost_request *r, struct data_cursor c, uint8_t *ours, uint64_t len_bytes, bool to_guest)
{
	while (len_bytes > 0) {
		quarry_assert(c.at < r->end_piece);
		struct iovec *piece = &r->chain.pieces[c.at];
		uint64_t n = min_u64(len_bytes, piece->iov_len - c.skip);
		if (to_guest)
			memcpy((uint8_t *)piece->iov_base + c.skip, ours, n);
		else
			memcpy(ours, (uint8_t *)piece->iov_base + c.skip, n);
		ours += n;
		len_bytes -= n;
		c.skip = 0;
		c.at++;
	}
}

static void data_advance(struct vhost_request *r, uint64_t len_bytes)
{
	struct data_cursor *c = &r->next;

	r->begun_bytes += len_bytes;
	while (len_bytes > 0) {
		uint64_t n = min_u64(len_bytes, r->chain.pieces[c->at].iov_len - c->skip);
		len_bytes -= n;
		c->skip += n;
		if (c->skip < r->chain.pieces[c->at].iov_len)
			break;
		c->at++;
		c->skip = 0;
	}
}

static void data_rewind(struct vhost_request *r, uint64_t pos_bytes)
{
	r->next = (struct data_cursor){.at = r->first_piece};
	r->begun_bytes = 0;
	data_advance(r, pos_bytes);
}

/* The log learns of what was written; for direct reads the device wrote it. */
static void data_note(struct vhost_request *r, struct data_cursor c, uint64_t len_bytes)
{
	for (; len_bytes > 0; c.at++, c.skip = 0) {
		uint64_t n = min_u64(len_bytes, r->chain.pieces[c.at].iov_len - c.skip);
		memory_note(&r->queue->connection->memory, (uint8_t *)r->chain.pieces[c.at].iov_base + c.skip, n);
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
	data_rewind(r, 0);
}

/* 20 of the UUID's 32 digits: a serial has no room for more. A guest may have a snapshot beside its volume and must not
 * take the two for one: a snapshot's has 12, and its number. */
static void id_make(const struct volume *v, uint8_t id[static BLK_ID_BYTES])
{
	uint64_t number = volume_snapshot_number(v);
	char uuid[UUID_TEXT_BYTES], digits[ID_NUMBER_DIGITS + 1];
	uint32_t n = 0;

	uuid_to_text(volume_uuid(v), uuid);
	for (const char *at = uuid; *at && n < BLK_ID_BYTES; at++)
		if (*at != '-')
			id[n++] = (uint8_t)*at;
	if (number == 0)
		return;
	snprintf(digits, sizeof(digits), "%08" PRIx32, (uint32_t)number);
	memcpy(id + BLK_ID_BYTES - ID_NUMBER_DIGITS, digits, ID_NUMBER_DIGITS);
}

static void id_answer(struct vhost_request *r)
{
	uint8_t id[BLK_ID_BYTES] = {0};

	id_make(volume_of(r), id);
	uint64_t len = min_u64(r->len_bytes, sizeof(id));
	data_copy(r, r->next, id, len, true);
	data_note(r, r->next, len);
	r->written_bytes = (uint32_t)len;
	counter_add(&vhost_of(r)->counters.ids, 1);
}

static void ranges_take(struct vhost_request *r)
{
	if (r->len_bytes == 0 || r->len_bytes % BLK_RANGE_BYTES != 0 || r->len_bytes > sizeof(r->ranges)) {
		blk_refuse(r, r->len_bytes > sizeof(r->ranges) ? BLK_S_UNSUPP : BLK_S_IOERR,
			   "no whole number of ranges, or too many");
		return;
	}
	data_copy(r, r->next, r->ranges, r->len_bytes, false);
	r->n_ranges = (uint32_t)(r->len_bytes / BLK_RANGE_BYTES);
	r->next_range = 0;
}

static void transfer_check(struct vhost_request *r)
{
	uint64_t sectors = volume_size_bytes(volume_of(r)) / SECTOR_BYTES;

	if (r->len_bytes % SECTOR_BYTES != 0 || r->pos_bytes > sectors ||
	    r->len_bytes / SECTOR_BYTES > sectors - r->pos_bytes)
		blk_refuse(r, BLK_S_IOERR, "no whole sectors of the volume");
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

	if (!header_take(r) || !has_status) {
		blk_refuse(r, BLK_S_IOERR, "it has no header, or no room for a status");
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
		blk_refuse(r, BLK_S_UNSUPP, "an unknown type");
	}
	if ((r->type == BLK_T_OUT || r->n_ranges > 0) && volume_is_read_only(volume_of(r)))
		blk_refuse(r, BLK_S_IOERR, "the volume can only be read");
}

/* There is something that no piece has taken. */
static bool blk_has_work(const struct vhost_request *r)
{
	if (r->status != BLK_S_OK || r->is_left)
		return false;
	switch (r->type) {
	case BLK_T_IN:
	case BLK_T_OUT:
		return r->begun_bytes < r->len_bytes;
	case BLK_T_FLUSH:
		return r->begun_bytes == 0;
	case BLK_T_DISCARD:
	case BLK_T_WRITE_ZEROES:
		return r->next_range < r->n_ranges;
	default:
		return false;
	}
}

/* ---- MEMORY ---- */

static bool blk_needs_buffer(const struct vhost_request *r)
{
	return r->type == BLK_T_OUT || (blk_reads(r) && r->is_private);
}

static uint32_t buffer_wanted(const struct vhost_request *r)
{
	return (uint32_t)min_u64(r->len_bytes - r->begun_bytes, BUFFER_MAX_BYTES);
}

static bool buffers_are_plenty(const struct buffers *b)
{
	return buffers_used_bytes(b) < buffers_budget_bytes(b) / 2;
}

/* A piece that can go to the volume now, with the memory it needs; NULL: none can. */
static struct vhost_piece *piece_ready(struct vhost_request *r)
{
	struct buffers *b = vhost_of(r)->buffers;
	uint32_t i = 0;

	while (i < VHOST_PIECES && r->pieces[i].is_working)
		i++;
	bool is_serial = r->type != BLK_T_IN && r->type != BLK_T_OUT;
	if (i == VHOST_PIECES || (is_serial && r->n_working > 0))
		return NULL;
	struct vhost_piece *p = &r->pieces[i];
	r->n_pieces = (uint32_t)max_u64(r->n_pieces, i + 1);
	if (p->buffer || !blk_needs_buffer(r))
		return p;
	if (r->n_working > 0 && !buffers_are_plenty(b))
		return NULL;
	p->buffer_bytes = buffer_wanted(r);
	p->buffer = buffers_get(b, p->buffer_bytes);
	return p->buffer ? p : NULL;
}

static void buffer_came(struct buffer_waiter *w, void *data)
{
	struct vhost_request *r = container_of(w, struct vhost_request, waiter);

	quarry_assert(r->stage == VHOST_REQUEST_MEMORY && r->is_waiting && !r->pieces[0].buffer);
	r->is_waiting = false;
	r->pieces[0].buffer = data;
	blk_run(r);
}

static void buffers_give_back(struct vhost_request *r)
{
	for (uint32_t i = 0; i < r->n_pieces; i++) {
		struct vhost_piece *p = &r->pieces[i];
		if (p->buffer)
			buffers_put(vhost_of(r)->buffers, p->buffer, p->buffer_bytes);
		p->buffer = NULL;
	}
}

static enum flow blk_memory(struct vhost_request *r)
{
	if (piece_ready(r))
		return FLOW_NEXT;
	quarry_assert(r->n_working == 0 && !r->pieces[0].buffer);
	counter_add(&vhost_of(r)->counters.waits_buffers, 1);
	r->is_waiting = true;
	r->pieces[0].buffer_bytes = buffer_wanted(r);
	buffers_wait(vhost_of(r)->buffers, &r->waiter, r->pieces[0].buffer_bytes);
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
static void piece_direct(struct vhost_piece *p)
{
	const struct vhost_request *r = p->request;
	uint64_t skip = p->from.skip;
	uint32_t n = 0;

	p->len_bytes = 0;
	for (uint32_t i = p->from.at; i < r->end_piece && n < VHOST_PIECE_IOVECS; i++, skip = 0) {
		struct iovec piece = r->chain.pieces[i];
		uint64_t len = min_u64(piece.iov_len - skip, VOLUME_IO_BYTES_MAX - p->len_bytes);
		if (piece.iov_len == 0)
			continue;
		if (len == 0)
			break;
		p->iov[n++] = (struct iovec){(uint8_t *)piece.iov_base + skip, len};
		p->len_bytes += len;
	}
	p->io.n_iov = n;
	p->io.flags = VOLUME_SHARED;
}

static void piece_buffered(struct vhost_piece *p)
{
	struct vhost_request *r = p->request;

	p->len_bytes = min_u64(r->len_bytes - r->begun_bytes, p->buffer_bytes);
	p->iov[0] = (struct iovec){p->buffer, p->len_bytes};
	p->io.n_iov = 1;
	p->io.flags = r->type == BLK_T_OUT && writes_through(r) ? VOLUME_FUA : 0;
	if (r->type == BLK_T_OUT)
		data_copy(r, p->from, p->buffer, p->len_bytes, false);
}

static void serve_transfer(struct vhost_piece *p)
{
	struct vhost_request *r = p->request;

	p->io.op = blk_reads(r) ? VOLUME_READ : VOLUME_WRITE;
	p->is_direct = !blk_needs_buffer(r);
	p->pos_bytes = r->begun_bytes;
	p->from = r->next;
	if (p->is_direct)
		piece_direct(p);
	else
		piece_buffered(p);
	p->io.iov = p->iov;
	p->io.pos_bytes = r->pos_bytes + p->pos_bytes;
	p->io.len_bytes = p->len_bytes;
	data_advance(r, p->len_bytes);
}

/* 0, or the status of a range that makes no sense. */
static uint8_t serve_range(struct vhost_piece *p)
{
	struct vhost_request *r = p->request;
	const uint8_t *range = r->ranges + (size_t)r->next_range * BLK_RANGE_BYTES;
	uint64_t sector = get_le64(range), n = get_le32(range + 8), flags = get_le32(range + 12);
	uint64_t sectors = volume_size_bytes(volume_of(r)) / SECTOR_BYTES;
	bool is_discard = r->type == BLK_T_DISCARD;

	if (flags & ~(uint64_t)(is_discard ? 0 : BLK_RANGE_UNMAP))
		return BLK_S_UNSUPP;
	if (n == 0 || n > (is_discard ? VHOST_DISCARD_SECTORS_MAX : VHOST_ZEROES_SECTORS_MAX) || sector > sectors ||
	    n > sectors - sector)
		return BLK_S_IOERR;
	p->io.op = is_discard ? VOLUME_TRIM : VOLUME_ZERO;
	p->io.flags =
	    (is_discard || flags & BLK_RANGE_UNMAP ? 0 : VOLUME_NO_HOLE) | (writes_through(r) ? VOLUME_FUA : 0);
	p->io.pos_bytes = sector * SECTOR_BYTES;
	p->io.len_bytes = n * SECTOR_BYTES;
	r->next_range++;
	return BLK_S_OK;
}

static void serve_piece(struct vhost_piece *p)
{
	struct vhost_request *r = p->request;

	p->len_bytes = 0;
	p->io.iov = NULL;
	p->io.n_iov = 0;
	if (r->type == BLK_T_IN || r->type == BLK_T_OUT) {
		serve_transfer(p);
	} else if (r->type == BLK_T_FLUSH) {
		p->io.op = VOLUME_FLUSH;
		p->io.flags = 0;
		p->io.pos_bytes = p->io.len_bytes = 0;
		r->begun_bytes = 1;
	} else {
		uint8_t status = serve_range(p);
		if (status != BLK_S_OK) {
			blk_refuse(r, status, "a range that makes no sense");
			return;
		}
	}
	p->is_working = true;
	r->n_working++;
	volume_submit(volume_of(r), &p->io);
}

/* As many pieces as there is memory for. */
static void blk_serve(struct vhost_request *r)
{
	struct vhost_piece *p;

	while (r->again_bytes == UINT64_MAX && blk_has_work(r) && (p = piece_ready(r)) != NULL)
		serve_piece(p);
}

/* ---- GATHER ---- */

static void piece_read(struct vhost_piece *p)
{
	struct vhost_request *r = p->request;

	if (!p->is_direct) {
		counter_add(&vhost_of(r)->counters.bounced_bytes, p->len_bytes);
		data_copy(r, p->from, p->buffer, p->len_bytes, true);
	}
	data_note(r, p->from, p->len_bytes);
}

static void blk_served(struct volume_io *io, int res)
{
	struct vhost_piece *p = container_of(io, struct vhost_piece, io);
	struct vhost_request *r = p->request;
	struct vhost_counters *n = &vhost_of(r)->counters;

	quarry_assert(r->stage == VHOST_REQUEST_GATHER && p->is_working && r->n_working > 0);
	p->is_working = false;
	r->n_working--;
	if (res == -EBADMSG) { /* again, where the guest cannot write */
		quarry_assert(p->is_direct);
		r->again_bytes = min_u64(r->again_bytes, p->pos_bytes);
		counter_add(&n->rereads, 1);
	} else if (res == -ESHUTDOWN) {
		r->is_left = true;
	} else if (res != 0) {
		blk_refuse(r, res == -ENOTSUP ? BLK_S_UNSUPP : BLK_S_IOERR, strerror(-res));
	} else if (p->len_bytes > 0) {
		counter_add(blk_reads(r) ? &n->read_bytes : &n->write_bytes, p->len_bytes);
		if (blk_reads(r))
			piece_read(p);
	}
	blk_run(r);
}

/* FLOW_NEXT: all is done, or the next pieces can go. */
static enum flow blk_gather(struct vhost_request *r)
{
	if (r->n_working == 0) {
		if (r->again_bytes != UINT64_MAX) {
			r->is_private = true;
			data_rewind(r, r->again_bytes);
			r->again_bytes = UINT64_MAX;
		}
		return FLOW_NEXT;
	}
	bool may_go = r->again_bytes == UINT64_MAX && blk_has_work(r);
	return may_go && piece_ready(r) ? FLOW_NEXT : FLOW_WAIT;
}

/* ---- ANSWER ---- */

static void blk_answer(struct vhost_request *r)
{
	struct vhost_queue *q = r->queue;
	struct vhost_connection *c = q->connection;
	struct vhost_server *s = vhost_of(r);

	quarry_assert(r->n_working == 0);
	buffers_give_back(r);
	if (blk_reads(r) && r->status == BLK_S_OK)
		r->written_bytes = (uint32_t)r->len_bytes;
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

/* What must hold whenever the dispatcher is entered. */
static void blk_check(const struct vhost_request *r)
{
	quarry_assert(r->stage != VHOST_REQUEST_FREE && r->queue->n_requests > 0);
	quarry_assert(r->n_working <= VHOST_PIECES);
	quarry_assert(r->begun_bytes <= max_u64(r->len_bytes, 1)); /* a flush is one step without bytes */
	quarry_assert(r->n_working == 0 || (r->stage != VHOST_REQUEST_BEGIN && r->stage != VHOST_REQUEST_ANSWER));
}

static void blk_run(struct vhost_request *r)
{
	for (;;) {
		blk_check(r);
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
			blk_serve(r);
			r->stage = VHOST_REQUEST_GATHER;
			break;
		case VHOST_REQUEST_GATHER:
			if (blk_gather(r) == FLOW_WAIT)
				return;
			r->stage = blk_has_work(r) ? VHOST_REQUEST_MEMORY : VHOST_REQUEST_ANSWER;
			break;
		case VHOST_REQUEST_ANSWER:
			blk_answer(r);
			return;
		case VHOST_REQUEST_FREE: /* blk_check() has seen to it */
			return;
		}
	}
}

void blk_init(struct vhost_request *r)
{
	list_init(&r->link);
	for (uint32_t i = 0; i < VHOST_PIECES; i++) {
		r->pieces[i].request = r;
		r->pieces[i].io.done = blk_served;
	}
}

void blk_begin(struct vhost_request *r, struct vhost_queue *q)
{
	struct vhost_server *s = q->connection->door->server;

	quarry_assert(r->stage == VHOST_REQUEST_FREE && r->n_working == 0);
	r->queue = q;
	r->started_ns = reactor_now_ns(s->reactor);
	r->status = BLK_S_OK;
	r->status_at = NULL;
	r->type = UINT32_MAX;
	r->written_bytes = r->n_ranges = r->next_range = 0;
	r->begun_bytes = r->len_bytes = 0;
	r->again_bytes = UINT64_MAX;
	r->is_private = r->is_waiting = r->is_left = false;
	r->waiter.ready = buffer_came;
	r->n_pieces = 0;
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
