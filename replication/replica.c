/*
 * replica.c: one interface for a disk of this node and for one of another.
 *
 *   CLOSED --FENCE--> OPENING --answered--> OPEN --stale, failed, late, gone--> LOST --FENCE--> OPENING
 *                         +------------------ refused, late, gone ----------------^
 *
 * Invariants
 *  1. An answer counts only in the session that its request was asked in: after the replica was lost, even a good
 *     answer is -ENOTCONN [SESSION].
 *  2. lost() is called once for each session, and for an attempt to begin one.
 *  3. A handle of a tree is used only while the session is the disk's newest: a head elsewhere may have fenced this one
 *     and dropped the tree. What a reader looks at is not dropped while it does.
 *
 * Owner: the head.
 */
#include "replication/replica.h"

#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void replica_init(struct replica *r, struct reactor *reactor, const struct uuid *volume, const struct uuid *disk_uuid,
		  void (*lost)(struct replica *r, int res))
{
	quarry_assert(lost);
	*r = (struct replica){.reactor = reactor, .volume = *volume, .disk_uuid = *disk_uuid, .lost = lost};
}

void replica_lose(struct replica *r, int res)
{
	quarry_assert(res < 0);
	if (r->state != REPLICA_OPEN && r->state != REPLICA_OPENING)
		return;
	r->state = REPLICA_LOST;
	r->session = 0;
	r->tree = NULL;
	r->lost(r, res);
}

/* A FENCE has been answered. */
static void replica_begin(struct replica *r, const struct replica_io *rio)
{
	r->state = REPLICA_OPEN;
	r->session = rio->io.new_session;
	r->seen_sessions = 0;
	r->complete_epoch = rio->io.complete_epoch;
	r->is_suspect = rio->io.is_suspect;
}

void replica_open_reader(struct replica *r)
{
	quarry_assert(r->state == REPLICA_CLOSED || r->state == REPLICA_LOST);
	r->is_reader = true;
	r->attempts++;
	r->state = REPLICA_OPEN;
}

static bool op_only_looks(enum disk_op op)
{
	return op == DISK_READ || op == DISK_HEAL || op == DISK_MAP || op == DISK_MEASURE || op == DISK_STAMPS;
}

static bool op_is_for_readers(enum disk_op op)
{
	return op == DISK_READ || op == DISK_HEAL || op == DISK_MAP;
}

/* Is this answer the end of the session? What cannot be read is no loss, nor is a full disk; a disk that failed to
 * change or flush something has failed, and a write that was damaged on its way is missing there. */
static bool answer_is_loss(const struct replica *r, enum disk_op op, int res)
{
	if (r->is_reader)
		return false;
	if (res == -ENOTCONN || res == -ETIMEDOUT || res == -ESTALE || res == -ESHUTDOWN)
		return true;
	if (op == DISK_FENCE)
		return res != 0;
	return !r->is_only_copy && !op_only_looks(op) && (res == -EIO || res == -EBADMSG);
}

/* The one door of every answer. */
static void replica_answered(struct replica_io *rio, int res)
{
	struct replica *r = rio->replica;
	bool is_fence = rio->io.op == DISK_FENCE;
	bool is_current = r->attempts == rio->attempt && r->state == (is_fence ? REPLICA_OPENING : REPLICA_OPEN);
	if (!is_current)
		res = -ENOTCONN;
	else if (is_fence && res == 0)
		replica_begin(r, rio);
	else if (res != 0 && answer_is_loss(r, rio->io.op, res))
		replica_lose(r, res);
	rio->done(rio, res);
}

/* ---- a disk of this node ---- */

/* Asked for every request, and of a look once more when it has been answered. */
static bool local_is_newest(struct replica *r)
{
	if (r->state != REPLICA_OPEN || r->is_reader)
		return r->state == REPLICA_OPEN;
	uint64_t sessions = disk_sessions(r->disk);
	if (r->seen_sessions == sessions)
		return true;
	if (!disk_session_is(r->disk, &r->volume, r->generation, r->session))
		return false;
	r->seen_sessions = sessions;
	return true;
}

static void local_done(struct disk_io *io, int res)
{
	struct replica_io *rio = container_of(io, struct replica_io, io);
	struct replica *r = rio->replica;
	if (res == 0 && op_only_looks(io->op) && r->attempts == rio->attempt && !local_is_newest(r))
		res = -ESTALE;
	replica_answered(rio, res);
}

static void refused_turn(struct op *op, int res)
{
	replica_answered(container_of(op, struct replica_io, op), res);
}

static void replica_refuse(struct replica_io *rio, int res)
{
	op_init(&rio->op, refused_turn);
	reactor_defer(rio->replica->reactor, &rio->op, res);
}

static bool op_names_a_tree(enum disk_op op)
{
	return op == DISK_READ || op == DISK_HEAL || op == DISK_WRITE || op == DISK_TRIM || op == DISK_MAP ||
	       op == DISK_FORK || op == DISK_DROP || op == DISK_STAMPS || op == DISK_COPY || op == DISK_COPY_HOLES ||
	       op == DISK_SWAP;
}

static void local_submit(struct replica *r, struct replica_io *rio)
{
	if (rio->io.op != DISK_FENCE && !local_is_newest(r)) {
		replica_refuse(rio, -ESTALE);
		return;
	}
	if (op_names_a_tree(rio->io.op)) {
		if (!r->tree || r->tree_id != rio->tree)
			r->tree = disk_tree_find(r->disk, &r->volume, rio->tree);
		r->tree_id = rio->tree;
		rio->io.tree = r->tree;
		if (!r->tree) {
			replica_refuse(rio, -ENOENT);
			return;
		}
		if (rio->io.op == DISK_DROP)
			r->tree = NULL;
	}
	rio->io.session = r->session;
	rio->io.done = local_done;
	disk_submit(r->disk, &rio->io);
}

/* ---- a disk of another node ---- */

static enum peer_type remote_type(enum disk_op op)
{
	switch (op) {
	case DISK_READ:
		return PEER_READ;
	case DISK_WRITE:
		return PEER_WRITE;
	case DISK_TRIM:
		return PEER_TRIM;
	case DISK_MAP:
		return PEER_MAP;
	case DISK_FLUSH:
		return PEER_FLUSH;
	case DISK_CREATE:
		return PEER_CREATE;
	case DISK_FORK:
		return PEER_FORK;
	case DISK_DROP:
		return PEER_DROP;
	case DISK_FENCE:
		return PEER_HELLO;
	case DISK_COMPLETE:
		return PEER_COMPLETE;
	case DISK_FORGET:
		return PEER_FORGET;
	case DISK_STAMPS:
		return PEER_STAMPS;
	case DISK_COPY:
		return PEER_COPY;
	case DISK_COPY_HOLES:
		return PEER_COPY_HOLES;
	case DISK_SWAP:
		return PEER_SWAP;
	case DISK_CUT:
		return PEER_CUT;
	case DISK_HEAL:
		return PEER_HEAL;
	case DISK_MEASURE:
		break;
	}
	quarry_assert(!"another node's disk is not measured from here");
	return PEER_PING;
}

static bool op_has_data(enum disk_op op)
{
	return op == DISK_WRITE || op == DISK_COPY || op == DISK_HEAL;
}

/* Blocks that are holes, and do not travel. */
static uint64_t remote_holes(const struct disk_io *io)
{
	return io->op == DISK_HEAL ? 0 : io->zero_blocks;
}

/* What a HEAL writes was read elsewhere: its sums are not at hand. */
static void remote_sum(const struct disk_io *io, uint32_t *crcs)
{
	uint32_t crc = 0;
	uint64_t n_bytes = 0, block = 0;
	for (uint32_t i = 0; i < io->n_iov; i++) {
		const uint8_t *at = io->iov[i].iov_base;
		for (uint64_t left = io->iov[i].iov_len, take; left > 0; left -= take, at += take) {
			take = min_u64(left, BLOCK_BYTES - n_bytes);
			crc = crc32c(crc, at, take);
			n_bytes += take;
			if (n_bytes < BLOCK_BYTES)
				continue;
			quarry_assert(block < io->n_blocks);
			crcs[block++] = crc;
			n_bytes = crc = 0;
		}
	}
	quarry_assert(block == io->n_blocks && n_bytes == 0);
}

static void remote_fill(struct peer_call *call, struct peer_message *m)
{
	const struct replica_io *rio = container_of(call, struct replica_io, call);
	const struct disk_io *io = &rio->io;
	bool makes_tree = io->op == DISK_CREATE || io->op == DISK_FORK;
	m->tree_id = makes_tree ? io->tree_id : rio->tree;
	m->parent_id = io->op == DISK_FORK ? rio->tree : io->parent_id;
	m->first = io->first;
	m->n_blocks = io->n_blocks;
	m->epoch = io->epoch;
	m->since = io->since;
	m->size_blocks = io->size_blocks;
	m->before = io->before;
	m->other_id = io->op == DISK_SWAP ? io->tree_id : 0;
	if (io->op == DISK_FORK && !uuid_equal(&io->volume, &rio->replica->volume)) {
		m->child[0] = get_le64(io->volume.bytes);
		m->child[1] = get_le64(io->volume.bytes + 8);
	}
	if (!op_has_data(io->op))
		return;
	m->zero_blocks = remote_holes(io);
	if (io->op == DISK_HEAL)
		remote_sum(io, m->crcs);
	if (io->op == DISK_WRITE)
		memcpy(m->crcs, io->crcs, io->n_blocks * sizeof(m->crcs[0]));
	for (uint32_t i = 0; io->op == DISK_COPY && i < io->n_blocks; i++) {
		bool is_data = peer_block_is_there(m, i);
		m->stamps[i] =
		    (struct peer_stamp){.crc = is_data ? io->crcs[i] : 0, .is_data = is_data, .epoch = io->epochs[i]};
	}
}

/* The memory of the blocks that are not zeros, in order. */
static uint32_t remote_cut(struct replica_io *rio)
{
	const struct disk_io *io = &rio->io;
	uint64_t pos = 0, holes = remote_holes(io);
	uint32_t n = 0;
	for (uint32_t i = 0; i < io->n_iov; i++) {
		uint64_t end = pos + io->iov[i].iov_len;
		for (uint64_t at = pos; at < end;) {
			uint64_t next = min_u64(end, (at / BLOCK_BYTES + 1) * BLOCK_BYTES), block = at / BLOCK_BYTES;
			bool is_hole = block < 64 && holes >> block & 1;
			uint8_t *base = (uint8_t *)io->iov[i].iov_base + (at - pos);
			struct iovec *last = n > 0 ? &rio->data[n - 1] : NULL;
			if (!is_hole && last && (uint8_t *)last->iov_base + last->iov_len == base)
				last->iov_len += next - at;
			else if (!is_hole)
				rio->data[n++] = (struct iovec){base, next - at};
			quarry_assert(n < PEER_OUT_DATA_MAX);
			at = next;
		}
		pos = end;
	}
	quarry_assert(pos == io->n_blocks * BLOCK_BYTES);
	return n;
}

/* Copies a block, or zeros, to its place in the reader's memory, wherever that is cut. */
static void remote_lay(const struct disk_io *io, uint64_t block, const uint8_t *data)
{
	uint64_t from = block * BLOCK_BYTES, end = from + BLOCK_BYTES, pos = 0;
	for (uint32_t i = 0; i < io->n_iov && pos < end; i++) {
		uint64_t next = pos + io->iov[i].iov_len;
		uint64_t a = max_u64(from, pos), b = min_u64(end, next);
		uint8_t *to = (uint8_t *)io->iov[i].iov_base + (a - pos);
		if (a < b && data)
			memcpy(to, data + (a - from), b - a);
		else if (a < b)
			memset(to, 0, b - a);
		pos = next;
	}
}

static int remote_take_read(struct disk_io *io, const struct peer_in *in)
{
	const struct peer_message *m = &in->message;
	const uint8_t *data = in->data;
	if (m->n_blocks != io->n_blocks)
		return -EIO;
	io->bad_blocks = m->bad_blocks;
	for (uint32_t i = 0; i < m->n_blocks; i++) {
		bool is_there = peer_block_is_there(m, i);
		if (!(m->bad_blocks >> i & 1))
			remote_lay(io, i, is_there ? data : NULL);
		if (is_there) /* without data there is not even a `data` */
			data += BLOCK_BYTES;
	}
	return io->bad_blocks ? -EIO : 0;
}

/* Extents in order, in the range, and without gaps unless only what changed was asked for. */
static int remote_take_map(struct disk_io *io, const struct peer_in *in)
{
	const struct peer_message *m = &in->message;
	uint64_t at = io->first, end = io->first + io->n_blocks;
	for (uint64_t i = 0; i < m->n_entries && io->n_extents < io->extents_max; i++) {
		const struct peer_extent *e = &m->extents[i];
		if (e->first < at || e->first >= end || e->n_blocks > end - e->first)
			return -EIO;
		if (io->since == 0 && e->first != at)
			return -EIO;
		io->extents[io->n_extents++] = (struct disk_extent){
		    .first = e->first, .n_blocks = e->n_blocks, .is_data = e->is_data, .epoch = e->epoch};
		at = e->first + e->n_blocks;
	}
	/* Less than there was room for means: that was all. */
	return m->is_last || io->n_extents == io->extents_max ? 0 : -EIO;
}

/* Stamps in order and without gaps, from the first block asked for on. */
static int remote_take_stamps(struct disk_io *io, const struct peer_in *in)
{
	const struct peer_message *m = &in->message;
	uint64_t at = io->first, end = io->first + io->n_blocks;
	for (uint64_t i = 0; i < m->n_entries && io->n_stamps < io->stamps_max; i++) {
		const struct peer_stamp *s = &m->stamps[i];
		if (s->first != at || s->n_blocks > end - at)
			return -EIO;
		io->stamps[io->n_stamps++] = (struct disk_stamp){.first = s->first,
								 .n_blocks = s->n_blocks,
								 .epoch = s->epoch,
								 .crc = s->crc,
								 .is_data = s->is_data};
		at += s->n_blocks;
	}
	return at > io->first ? 0 : -EIO; /* who asks again shall come to an end */
}

static int remote_take(struct peer_call *call, const struct peer_in *in)
{
	struct replica_io *rio = container_of(call, struct replica_io, call);
	if (rio->io.op == DISK_READ)
		return remote_take_read(&rio->io, in);
	if (rio->io.op == DISK_MAP)
		return remote_take_map(&rio->io, in);
	if (rio->io.op == DISK_STAMPS)
		return remote_take_stamps(&rio->io, in);
	if (rio->io.op == DISK_FENCE) {
		rio->io.new_session = in->header.session;
		rio->io.complete_epoch = in->message.epoch;
		rio->io.generation_was = in->message.generation_was;
		rio->io.is_suspect = in->message.is_suspect;
	}
	return 0;
}

/* An answer that is an error has no body: then no block can be read there, as a disk of this node says itself. */
static void remote_done(struct peer_call *call, int res)
{
	struct replica_io *rio = container_of(call, struct replica_io, call);
	struct disk_io *io = &rio->io;
	if (io->op == DISK_READ && res == -EIO && io->bad_blocks == 0)
		io->bad_blocks = io->n_blocks == 64 ? UINT64_MAX : (1ull << io->n_blocks) - 1;
	replica_answered(rio, res);
}

static void remote_submit(struct replica *r, struct replica_io *rio)
{
	rio->io.n_extents = rio->io.n_stamps = 0;
	rio->io.bad_blocks = 0;
	rio->call.type = remote_type(rio->io.op);
	rio->call.flags = rio->io.op == DISK_WRITE && rio->io.is_ordered ? PEER_ORDERED : 0;
	if (r->is_reader)
		rio->call.flags |= PEER_READER;
	rio->call.volume = r->volume;
	rio->call.disk = r->disk_uuid;
	rio->call.generation = r->is_reader ? 0 : r->generation;
	rio->call.session = rio->io.op == DISK_FENCE || r->is_reader ? 0 : r->session;
	rio->call.fill = remote_fill;
	rio->call.take = remote_take;
	rio->call.done = remote_done;
	rio->call.data = rio->data;
	rio->call.n_data = op_has_data(rio->io.op) ? remote_cut(rio) : 0;
	peer_client_call(r->client, &rio->call);
}

/* ---- submission ---- */

void replica_submit(struct replica *r, struct replica_io *rio)
{
	quarry_assert(rio->done);
	quarry_assert(rio->io.op != DISK_MAP || rio->io.extents_max <= PEER_MAP_EXTENTS);
	quarry_assert(rio->io.op != DISK_STAMPS || rio->io.stamps_max <= PEER_STAMP_RUNS);
	rio->replica = r;
	if (rio->io.op != DISK_FORK || uuid_is_zero(&rio->io.volume))
		rio->io.volume = r->volume;
	quarry_assert(!r->is_reader || op_is_for_readers(rio->io.op));
	if (rio->io.op == DISK_FENCE) {
		quarry_assert(r->state == REPLICA_CLOSED || r->state == REPLICA_LOST);
		r->state = REPLICA_OPENING;
		r->is_reader = false;
		r->attempts++;
		r->generation = rio->io.generation;
	}
	rio->attempt = r->attempts;
	if (rio->io.op != DISK_FENCE && r->state != REPLICA_OPEN) {
		replica_refuse(rio, -ENOTCONN);
		return;
	}
	quarry_assert((r->disk != NULL) != (r->client != NULL));
	if (r->disk)
		local_submit(r, rio);
	else
		remote_submit(r, rio);
}

/* ---- which trees are there ---- */

static void trees_end(struct replica_trees *t, int res)
{
	struct replica *r = t->replica;
	if (r->attempts != t->attempt || r->state != REPLICA_OPEN)
		res = -ENOTCONN;
	else if (res != 0 && answer_is_loss(r, DISK_READ, res)) /* it is a look like any other */
		replica_lose(r, res);
	t->done(t, res);
}

static void trees_add(struct replica_trees *t, uint64_t id)
{
	if (t->n == t->room) {
		uint32_t room = t->room ? 2 * t->room : 64;
		uint64_t *ids = realloc(t->ids, room * sizeof(*ids));
		if (!ids) {
			t->err = -ENOMEM;
			return;
		}
		t->ids = ids;
		t->room = room;
	}
	t->ids[t->n++] = id;
}

static void trees_consider(const struct tree_record *record, void *context)
{
	struct replica_trees *t = context;
	if (!uuid_equal(&record->volume, &t->replica->volume))
		return;
	if (record->state == TREE_LIVE)
		trees_add(t, record->tree_id);
	else
		t->n_dying++;
}

static int id_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static void trees_looked(struct op *op, int res)
{
	struct replica_trees *t = container_of(op, struct replica_trees, op);
	if (res == 0 && t->replica->state == REPLICA_OPEN && !local_is_newest(t->replica))
		res = -ESTALE;
	trees_end(t, res);
}

static void trees_look(struct replica *r, struct replica_trees *t)
{
	disk_trees_each(r->disk, trees_consider, t);
	if (t->n > 0)
		qsort(t->ids, t->n, sizeof(t->ids[0]), id_compare);
	reactor_defer(r->reactor, &t->op, t->err);
}

static void trees_fill(struct peer_call *call, struct peer_message *m)
{
	const struct replica_trees *t = container_of(call, struct replica_trees, call);
	m->tree_id = t->after;
}

static int trees_take(struct peer_call *call, const struct peer_in *in)
{
	struct replica_trees *t = container_of(call, struct replica_trees, call);
	const struct peer_message *m = &in->message;
	t->is_last = m->is_last;
	if (m->n_entries == 0 ? !m->is_last : m->trees[0].id <= t->after)
		return -EIO; /* who asks again shall come to an end */
	for (uint64_t i = 0; i < m->n_entries && t->err == 0; i++) {
		t->after = m->trees[i].id;
		if (m->trees[i].is_dying)
			t->n_dying++;
		else
			trees_add(t, t->after);
	}
	return t->err;
}

static void trees_answered(struct peer_call *call, int res)
{
	struct replica_trees *t = container_of(call, struct replica_trees, call);
	struct replica *r = t->replica;
	if (res == 0 && !t->is_last && r->attempts == t->attempt && r->state == REPLICA_OPEN)
		peer_client_call(r->client, &t->call);
	else
		trees_end(t, res);
}

void replica_trees_ask(struct replica *r, struct replica_trees *t)
{
	quarry_assert(t->done && !t->ids && !r->is_reader);
	t->replica = r;
	t->attempt = r->attempts;
	t->n = t->n_dying = t->room = 0;
	t->after = 0;
	t->err = 0;
	op_init(&t->op, trees_looked);
	if (r->state != REPLICA_OPEN || (r->disk && !local_is_newest(r))) {
		reactor_defer(r->reactor, &t->op, r->state == REPLICA_OPEN ? -ESTALE : -ENOTCONN);
		return;
	}
	if (r->disk) {
		trees_look(r, t);
		return;
	}
	t->call = (struct peer_call){.type = PEER_TREES,
				     .volume = r->volume,
				     .disk = r->disk_uuid,
				     .generation = r->generation,
				     .session = r->session,
				     .fill = trees_fill,
				     .take = trees_take,
				     .done = trees_answered};
	peer_client_call(r->client, &t->call);
}

bool replica_trees_have(const struct replica_trees *t, uint64_t id)
{
	return t->n > 0 && bsearch(&id, t->ids, t->n, sizeof(t->ids[0]), id_compare) != NULL;
}

void replica_trees_clear(struct replica_trees *t)
{
	free(t->ids);
	t->ids = NULL;
	t->n = 0;
}
