/*
 * peer_request.c: each request of another node's head, from arrival to reply.
 *
 *   DRAIN -> MEMORY -> DISK -> HARDEN -> REPLY -> FREE        HARDEN only with FUA; what is refused goes to REPLY
 *   ORDER ------------------------------> REPLY -> FREE        a request of the control API
 *   DAMAGE -----------------------------> REPLY -> FREE        blocks that a disk of the other node has lost
 *
 *   DRAIN    a HELLO waits until what came in earlier sessions of the volume is through, a DROP until what names its
 *            tree is
 *   MEMORY   what answers with data or a list waits for a buffer
 *   DISK     asks the disk, and takes its answer
 *   HARDEN   a flush makes what was written durable
 *   ORDER    the control API carries it out
 *   DAMAGE   the head of the volume heals it
 *   REPLY    the answer is on its way
 *
 * Invariants
 *  1. The disk is touched only while the session is not over, which is asked in the very turn: it may have been closed.
 *  2. A request is one of its session until the disk has answered, however long its reply takes.
 *  3. Blocks that do not match their checksums are never handed to the disk; nor are any that came with a refused
 *     request.
 *  4. A reply of data tells only of a session that is still the newest, or of a tree that never changes: what has no
 *     session finds disk and tree in the turn in which it asks.
 *
 * Owner: the connection. The kernel may hold `out` and `data` until sent().
 */
#include "replication/peer_server_internal.h"

#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t zero_block[BLOCK_BYTES] __attribute__((aligned(BLOCK_BYTES)));

static void request_run(struct peer_request *r);

static void request_goto(struct peer_request *r, enum peer_request_stage stage)
{
	r->stage = stage;
}

static bool request_has_list(const struct peer_request *r)
{
	return r->header.type == PEER_MAP || r->header.type == PEER_TREES || r->header.type == PEER_STAMPS;
}

static bool request_is_reader(const struct peer_request *r)
{
	return r->header.flags & PEER_READER;
}

static bool request_has_blocks(const struct peer_request *r)
{
	return r->header.type == PEER_WRITE || r->header.type == PEER_COPY || r->header.type == PEER_HEAL;
}

static struct peer_server *server_of(const struct peer_request *r)
{
	return r->connection->server;
}

/* What must hold in each stage. */
static void request_check(const struct peer_request *r)
{
	quarry_assert(r->stage != PEER_REQUEST_FREE);
	quarry_assert(r->err <= 0);
	quarry_assert(r->stage != PEER_REQUEST_ORDER || (r->header.type == PEER_ORDER && !r->session));
	quarry_assert(r->stage != PEER_REQUEST_DAMAGE || (r->header.type == PEER_DAMAGE && !r->session));
	if (r->stage < PEER_REQUEST_ORDER && !request_is_reader(r))
		quarry_assert(r->session && list_is_linked(&r->link));
}

/* ---- doors ---- */

static void request_answered(struct disk_io *io, int res)
{
	struct peer_request *r = container_of(io, struct peer_request, io);
	quarry_assert(r->stage == PEER_REQUEST_DISK || r->stage == PEER_REQUEST_HARDEN);
	r->err = res;
	request_run(r);
}

static void request_again(struct op *op, int res)
{
	request_run(container_of(op, struct peer_request, op));
}

void peer_request_wake(struct peer_request *r)
{
	if (r->stage == PEER_REQUEST_DRAIN && r->op.kind == OP_NONE)
		reactor_defer(server_of(r)->options.reactor, &r->op, 0);
}

static void request_has_memory(struct buffer_waiter *w, void *data)
{
	struct peer_request *r = container_of(w, struct peer_request, waiter);
	quarry_assert(r->stage == PEER_REQUEST_MEMORY && !r->data);
	r->data = data;
	request_run(r);
}

static void request_give_back(struct peer_request *r)
{
	if (r->data)
		buffers_put(server_of(r)->options.buffers, r->data, r->data_bytes);
	r->data = NULL;
}

static void request_free(struct peer_request *r)
{
	quarry_assert(!r->session && r->op.kind == OP_NONE);
	free(r->answer);
	r->answer = NULL;
	request_give_back(r);
	request_goto(r, PEER_REQUEST_FREE);
	list_prepend(&r->connection->free, &r->link);
	client_request_done(r->connection);
}

static void request_sent(struct peer_out *out, int res)
{
	struct peer_request *r = container_of(out, struct peer_request, out);
	quarry_assert(r->stage == PEER_REQUEST_REPLY);
	request_free(r);
}

void peer_request_init(struct peer_request *r, struct peer_client_connection *c)
{
	*r = (struct peer_request){.stage = PEER_REQUEST_FREE,
				   .connection = c,
				   .io.done = request_answered,
				   .waiter.ready = request_has_memory,
				   .out.sent = request_sent};
	op_init(&r->op, request_again);
	list_init(&r->link);
}

/* ---- DRAIN ---- */

/* Does another request of the session name the tree that this one drops? */
static bool drop_must_wait(const struct peer_request *r)
{
	list_each (node, &r->session->requests) {
		const struct peer_request *other = container_of(node, struct peer_request, link);
		if (other != r && other->tree && other->tree == r->tree)
			return true;
	}
	return false;
}

static enum flow request_drain(struct peer_request *r)
{
	bool must_wait = false;
	if (r->header.type == PEER_HELLO)
		must_wait = !session_is_first(r->session);
	else if (r->header.type == PEER_DROP)
		must_wait = drop_must_wait(r);
	return must_wait ? FLOW_WAIT : FLOW_NEXT;
}

/* ---- MEMORY ---- */

static enum flow request_memory(struct peer_request *r)
{
	struct buffers *buffers = server_of(r)->options.buffers;
	bool is_read = r->header.type == PEER_READ;
	if (r->data || (!is_read && !request_has_list(r)))
		return FLOW_NEXT;
	r->data_bytes = is_read ? (uint32_t)r->n_blocks * BLOCK_BYTES : LIST_BYTES;
	r->data = buffers_get(buffers, r->data_bytes);
	if (r->data)
		return FLOW_NEXT;
	buffers_wait(buffers, &r->waiter, r->data_bytes);
	return FLOW_WAIT;
}

/* ---- DISK ---- */

/* May the disk be asked? A session may have ended while its request waited. */
static bool request_is_current(const struct peer_request *r)
{
	if (r->header.type == PEER_HELLO)
		return r->session->state == PEER_SESSION_OPENING;
	return session_is_newest(r->session);
}

static void ask_write(struct peer_request *r)
{
	uint8_t *at = r->data;
	uint32_t n = 0;
	for (uint32_t i = 0; i < r->n_blocks; i++) {
		bool is_hole = i < 64 && r->zero_blocks >> i & 1;
		r->iov[n++] = (struct iovec){is_hole ? (void *)zero_block : at, BLOCK_BYTES};
		if (!is_hole) /* without data there is not even an `at` */
			at += BLOCK_BYTES;
	}
	r->io.iov = r->iov;
	r->io.n_iov = n;
	r->io.crcs = r->crcs;
	r->io.epochs = r->epochs; /* of a COPY */
	r->io.zero_blocks = r->zero_blocks;
	r->io.is_ordered = r->header.flags & PEER_ORDERED;
}
_Static_assert(PEER_WRITE_BLOCKS <= DISK_IO_IOV_MAX, "a vector for each block");
_Static_assert(PEER_WRITE_BLOCKS == DISK_WRITE_BLOCKS_MAX, "what a node may send, a disk takes as one record");
_Static_assert(PEER_READ_BLOCKS == DISK_IO_BLOCKS_MAX, "and reads at once");

static void ask_read(struct peer_request *r)
{
	r->iov[0] = (struct iovec){r->data, r->data_bytes};
	r->io.iov = r->iov;
	r->io.n_iov = 1;
}

static void ask_map(struct peer_request *r)
{
	r->io.extents = r->data;
	r->io.extents_max = PEER_MAP_EXTENTS;
	r->io.since = r->since;
}

static void ask_stamps(struct peer_request *r)
{
	r->io.stamps = r->data;
	r->io.stamps_max = PEER_STAMP_RUNS;
}

static enum disk_op ask_op(const struct peer_request *r)
{
	switch (r->header.type) {
	case PEER_HELLO:
		return DISK_FENCE;
	case PEER_WRITE:
		return DISK_WRITE;
	case PEER_TRIM:
		return DISK_TRIM;
	case PEER_READ:
		return DISK_READ;
	case PEER_FLUSH:
		return DISK_FLUSH;
	case PEER_COMPLETE:
		return DISK_COMPLETE;
	case PEER_FORK:
		return DISK_FORK;
	case PEER_DROP:
		return DISK_DROP;
	case PEER_CREATE:
		return DISK_CREATE;
	case PEER_MAP:
		return DISK_MAP;
	case PEER_FORGET:
		return DISK_FORGET;
	case PEER_STAMPS:
		return DISK_STAMPS;
	case PEER_COPY:
		return DISK_COPY;
	case PEER_COPY_HOLES:
		return DISK_COPY_HOLES;
	case PEER_SWAP:
		return DISK_SWAP;
	case PEER_CUT:
		return DISK_CUT;
	case PEER_HEAL:
		return DISK_HEAL;
	case PEER_MEASURE:
		return DISK_MEASURE;
	case PEER_GREETING:
	case PEER_PING:
	case PEER_TREES:
	case PEER_ORDER:
	case PEER_DISKS:
	case PEER_DAMAGE:
		break;
	}
	quarry_assert(!"a request that the disk is asked");
	return DISK_FLUSH;
}

/* Of what has no session: 0, or -ENOENT. */
static int request_find(struct peer_request *r)
{
	const struct peer_server *s = server_of(r);
	r->disk = s->options.find_disk(&r->header.disk, s->options.context);
	r->tree = r->disk ? disk_tree_find(r->disk, &r->header.volume, r->tree_id) : NULL;
	if (!r->disk && r->header.type == PEER_MEASURE)
		return -ESHUTDOWN; /* a tree that is not there takes nothing; a disk that is not there has not been asked */
	return r->tree ? 0 : -ENOENT;
}

static enum flow request_ask(struct peer_request *r)
{
	if (request_is_reader(r))
		r->err = request_find(r);
	else
		r->err = request_is_current(r) ? 0 : -ESTALE;
	if (r->err != 0)
		return FLOW_NEXT;
	if (r->header.type == PEER_TREES)
		return FLOW_NEXT; /* the disk has them in memory: they are listed with the reply */
	memset(&r->io, 0, offsetof(struct disk_io, own));
	r->io.done = request_answered;
	r->io.op = ask_op(r);
	r->io.tree = r->tree;
	r->io.first = r->first;
	r->io.n_blocks = r->n_blocks;
	r->io.epoch = r->epoch;
	r->io.session = r->session ? r->session->number : 0;
	r->io.volume = r->header.type == PEER_FORK ? r->child : r->header.volume;
	r->io.tree_id = r->header.type == PEER_SWAP ? r->other_id : r->tree_id;
	r->io.parent_id = r->parent_id;
	r->io.generation = r->header.generation;
	r->io.size_blocks = r->size_blocks;
	r->io.before = r->before;
	r->io.steps_max = PEER_MEASURE_STEPS;
	if (request_has_blocks(r))
		ask_write(r);
	else if (r->header.type == PEER_READ)
		ask_read(r);
	else if (r->header.type == PEER_MAP)
		ask_map(r);
	else if (r->header.type == PEER_STAMPS)
		ask_stamps(r);
	disk_submit(r->disk, &r->io);
	return FLOW_WAIT;
}

/* Bit i for each of n blocks. */
static uint64_t bits_of(uint64_t n)
{
	return n >= 64 ? UINT64_MAX : (1ull << n) - 1;
}

/* The disk has answered. */
static void request_take(struct peer_request *r)
{
	struct peer_session *s = r->session;
	bool is_read = r->header.type == PEER_READ || request_has_list(r);
	r->bad_blocks = 0;
	if (r->header.type == PEER_READ && r->err == -EIO && r->io.bad_blocks != bits_of(r->n_blocks)) {
		r->err = 0; /* what is good is told */
		r->bad_blocks = r->io.bad_blocks;
	}
	if (r->header.type == PEER_HELLO && r->err == 0 && s->state == PEER_SESSION_OPENING) {
		s->number = r->io.new_session;
		s->state = PEER_SESSION_OPEN;
		if (!session_is_newest(s)) /* a head of this node was faster */
			r->err = -ESTALE;
	} else if (r->header.type == PEER_HELLO && r->err == 0) {
		r->err = -ESTALE;
	} else if (is_read && r->err == 0 && s && !session_is_newest(s)) {
		r->err = -ESTALE;
	}
}

/* ---- HARDEN ---- */

static enum flow request_harden(struct peer_request *r)
{
	if (!request_is_current(r)) {
		r->err = -ESTALE;
		return FLOW_NEXT;
	}
	r->io.op = DISK_FLUSH;
	disk_submit(r->disk, &r->io);
	return FLOW_WAIT;
}

/* ---- REPLY ---- */

static void tree_insert(const struct tree_record *t, void *context)
{
	struct peer_request *r = context;
	struct peer_message *m = &server_of(r)->reply;
	if (t->tree_id <= r->tree_id || !uuid_equal(&t->volume, &r->header.volume))
		return;
	uint64_t at = m->n_entries;
	while (at > 0 && m->trees[at - 1].id > t->tree_id)
		at--;
	if (at == PEER_LIST_MAX) {
		m->is_last = 0;
		return;
	}
	if (m->n_entries == PEER_LIST_MAX)
		m->is_last = 0; /* the highest of them falls out */
	else
		m->n_entries++;
	memmove(&m->trees[at + 1], &m->trees[at], (m->n_entries - 1 - at) * sizeof(m->trees[0]));
	m->trees[at] = (struct peer_tree){
	    .id = t->tree_id, .parent_id = t->parent_id, .epoch = t->fork_epoch, .is_dying = t->state != TREE_LIVE};
}

static void reply_map(const struct peer_request *r, struct peer_message *m)
{
	const struct disk_extent *extents = r->data;
	m->n_entries = r->io.n_extents;
	m->is_last = r->io.n_extents < PEER_MAP_EXTENTS;
	for (uint32_t i = 0; i < r->io.n_extents; i++) {
		const struct disk_extent *e = &extents[i];
		m->extents[i] = (struct peer_extent){
		    .first = e->first, .n_blocks = e->n_blocks, .epoch = e->epoch, .is_data = e->is_data};
		if (e->first + e->n_blocks >= r->first + r->n_blocks)
			m->is_last = 1;
	}
}

static void reply_stamps(const struct peer_request *r, struct peer_message *m)
{
	const struct disk_stamp *stamps = r->data;
	m->n_entries = r->io.n_stamps;
	for (uint32_t i = 0; i < r->io.n_stamps; i++) {
		const struct disk_stamp *s = &stamps[i];
		m->stamps[i] = (struct peer_stamp){.crc = s->crc,
						   .is_data = s->is_data,
						   .epoch = s->epoch,
						   .first = s->first,
						   .n_blocks = s->n_blocks};
		m->is_last = s->first + s->n_blocks == r->first + r->n_blocks;
	}
}

/* The blocks that are good and not all zeros, side by side, each with its checksum: the disk has compared it with its
 * own, which it keeps to itself. */
static void reply_read(struct peer_request *r, struct peer_message *m)
{
	const uint8_t *data = r->data;
	m->n_blocks = r->n_blocks;
	m->bad_blocks = r->bad_blocks;
	for (uint32_t i = 0; i < r->n_blocks; i++) {
		const uint8_t *block = data + (size_t)i * BLOCK_BYTES;
		m->crcs[i] = 0;
		if (r->bad_blocks >> i & 1)
			continue;
		if (bytes_are_zero(block, BLOCK_BYTES)) {
			m->zero_blocks |= 1ull << i;
			continue;
		}
		m->crcs[i] = crc32c(0, block, BLOCK_BYTES);
		struct iovec *last = r->out.n_data > 0 ? &r->iov[r->out.n_data - 1] : NULL;
		if (last && (const uint8_t *)last->iov_base + last->iov_len == block)
			last->iov_len += BLOCK_BYTES;
		else
			r->iov[r->out.n_data++] = (struct iovec){(void *)block, BLOCK_BYTES};
	}
	r->out.data = r->iov;
}
_Static_assert((PEER_READ_BLOCKS + 1) / 2 <= PEER_OUT_DATA_MAX, "runs of blocks with holes between");

static void reply_order(struct peer_request *r, struct peer_message *m)
{
	uint8_t *text = (uint8_t *)r->answer;
	quarry_assert(r->answer_bytes > 0 && r->answer_bytes <= PEER_TEXT_MAX); /* with bytes there is a text */
	m->n_blocks = (r->answer_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
	m->text_bytes = r->answer_bytes;
	m->http_status = r->http_status;
	memset(text + r->answer_bytes, 0, m->n_blocks * BLOCK_BYTES - r->answer_bytes);
	for (uint32_t i = 0; i < m->n_blocks; i++)
		m->crcs[i] = crc32c(0, text + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
	r->iov[0] = (struct iovec){text, m->n_blocks * BLOCK_BYTES};
	r->out.data = r->iov;
	r->out.n_data = 1;
}

static void reply_fill(struct peer_request *r, struct peer_message *m)
{
	memset(m, 0, offsetof(struct peer_message, crcs)); /* the list is filled as far as it is used */
	switch (r->header.type) {
	case PEER_HELLO:
		m->epoch = r->io.complete_epoch;
		m->generation_was = r->io.generation_was;
		m->is_suspect = r->io.is_suspect;
		break;
	case PEER_TREES:
		m->is_last = 1;
		disk_trees_each(r->disk, tree_insert, r);
		break;
	case PEER_MAP:
		reply_map(r, m);
		break;
	case PEER_READ:
		reply_read(r, m);
		break;
	case PEER_STAMPS:
		reply_stamps(r, m);
		break;
	case PEER_ORDER:
		reply_order(r, m);
		break;
	case PEER_MEASURE:
		m->first = r->io.next;
		m->is_last = r->io.next == 0;
		m->data_blocks = r->io.data_blocks;
		m->own_data_blocks = r->io.own_data_blocks;
		m->own_pages = r->io.own_pages;
		break;
	case PEER_GREETING:
	case PEER_PING:
	case PEER_WRITE:
	case PEER_TRIM:
	case PEER_FLUSH:
	case PEER_COMPLETE:
	case PEER_FORK:
	case PEER_DROP:
	case PEER_CREATE:
	case PEER_COPY:
	case PEER_CUT:
	case PEER_FORGET:
	case PEER_COPY_HOLES:
	case PEER_SWAP:
	case PEER_DISKS:
	case PEER_HEAL:
	case PEER_DAMAGE:
		break;
	}
}

/* Status and message go out, unless nobody is there to hear it. */
static void request_send(struct peer_request *r, struct peer_header *h, int res)
{
	struct peer_client_connection *c = r->connection;
	bool is_list = res == 0 && request_has_list(r);
	uint8_t *memory = is_list ? (uint8_t *)r->data + LIST_HEAD_BYTES : r->small;
	h->flags = PEER_REPLY;
	h->status = peer_status_of(res);
	request_goto(r, PEER_REQUEST_REPLY);
	counter_add(&c->server->counters.requests, 1);
	counter_add(&c->server->counters.refused, res != 0);
	counter_add(&c->server->counters.fenced, res == -ESTALE);
	if (c->is_over) {
		request_free(r);
		return;
	}
	peer_out_encode(&r->out, h, &c->server->reply, memory);
	peer_connection_send(c->wire, &r->out);
}

static void request_reply(struct peer_request *r)
{
	struct peer_header h = r->header;
	struct peer_session *s = r->session;
	r->out.n_data = 0;
	if (r->err == 0 && !r->connection->is_over)
		reply_fill(r, &server_of(r)->reply);
	if (h.type == PEER_HELLO)
		h.session = r->err == 0 ? s->number : 0;
	if (request_has_blocks(r) || h.type == PEER_ORDER)
		request_give_back(r);
	if (s) {
		bool is_end = h.type == PEER_HELLO ? r->err != 0 : h.type == PEER_FORGET && r->err == 0;
		if (is_end)
			session_end(s);
		session_leave(s, r);
	}
	request_send(r, &h, r->err);
}

/* ---- the dispatcher ---- */

static void request_run(struct peer_request *r)
{
	for (;;) {
		request_check(r);
		switch (r->stage) {
		case PEER_REQUEST_DRAIN:
			if (request_drain(r) == FLOW_WAIT)
				return;
			request_goto(r, PEER_REQUEST_MEMORY);
			break;
		case PEER_REQUEST_MEMORY:
			if (request_memory(r) == FLOW_WAIT)
				return;
			request_goto(r, PEER_REQUEST_DISK);
			if (request_ask(r) == FLOW_WAIT)
				return;
			break;
		case PEER_REQUEST_DISK:
			request_take(r);
			request_goto(r, r->err == 0 && r->header.flags & PEER_FUA ? PEER_REQUEST_HARDEN
										  : PEER_REQUEST_REPLY);
			if (r->stage == PEER_REQUEST_HARDEN && request_harden(r) == FLOW_WAIT)
				return;
			break;
		case PEER_REQUEST_HARDEN:
			request_goto(r, PEER_REQUEST_REPLY);
			break;
		case PEER_REQUEST_ORDER:
		case PEER_REQUEST_DAMAGE:
			request_goto(r, PEER_REQUEST_REPLY);
			break;
		case PEER_REQUEST_REPLY:
			request_reply(r); /* the request may be gone */
			return;
		case PEER_REQUEST_FREE:
			quarry_assert(!"a request that is free runs");
		}
	}
}

/* ---- arrival ---- */

static bool names_a_tree(enum peer_type type)
{
	return type == PEER_WRITE || type == PEER_TRIM || type == PEER_READ || type == PEER_MAP || type == PEER_FORK ||
	       type == PEER_DROP || type == PEER_STAMPS || type == PEER_COPY || type == PEER_COPY_HOLES ||
	       type == PEER_SWAP || type == PEER_HEAL;
}

/* New trees have an id of their own: the disk's journal holds no other, and its recovery would refuse one. */
static bool new_tree_is_sane(const struct peer_request *r)
{
	return r->tree_id != 0 && r->tree_id != r->parent_id;
}

struct tree_count {
	const struct uuid *volume;
	uint64_t n;
};

static void tree_count(const struct tree_record *t, void *context)
{
	struct tree_count *c = context;
	c->n += uuid_equal(&t->volume, c->volume);
}

/* What the disk asks of whoever forgets a volume. */
static bool session_has_trees(const struct peer_session *s)
{
	struct tree_count c = {.volume = &s->volume};
	disk_trees_each(s->disk, tree_count, &c);
	return c.n > 0;
}

static int request_enter_session(struct peer_request *r)
{
	struct peer_session *s = session_find(r->connection, &r->header);
	enum peer_type type = r->header.type;
	if (!s)
		return session_refusal(r->connection, &r->header);
	if ((type == PEER_CREATE || type == PEER_FORK) && !new_tree_is_sane(r))
		return -EINVAL;
	if (type == PEER_FORGET && session_has_trees(s))
		return -EBUSY;
	if (names_a_tree(type)) {
		r->tree = session_tree(s, type == PEER_FORK ? r->parent_id : r->tree_id);
		if (!r->tree)
			return -ENOENT;
	}
	r->disk = s->disk;
	session_enter(s, r);
	return 0;
}

static int request_begin_session(struct peer_request *r)
{
	struct peer_server *server = server_of(r);
	struct disk *disk = server->options.find_disk(&r->header.disk, server->options.context);
	struct volume_record record;
	if (!disk)
		return -ENOENT;
	/* A head of the past does not end the session of the present one. */
	if (disk_volume(disk, &r->header.volume, &record) && record.generation > r->header.generation)
		return -ESTALE;
	struct peer_session *s = session_begin(r->connection, &r->header, disk);
	if (!s)
		return -EMFILE;
	r->disk = disk;
	session_enter(s, r);
	return 0;
}

void peer_order_answer(struct peer_order *o, unsigned http_status, char *text, uint32_t text_bytes)
{
	struct peer_request *r = container_of(o, struct peer_request, order);
	quarry_assert(r->stage == PEER_REQUEST_ORDER && !r->answer);
	quarry_assert(!text || (http_status >= 100 && http_status < 600));
	r->answer = text;
	r->answer_bytes = text_bytes;
	r->http_status = http_status;
	r->err = text ? 0 : -ENOMEM;
	request_run(r);
}

static void request_start_order(struct peer_request *r, const struct peer_in *in)
{
	const struct peer_server_options *o = &server_of(r)->options;
	r->order = (struct peer_order){
	    .node = r->connection->name, .text = r->data, .text_bytes = (uint32_t)in->message.text_bytes};
	r->answer = NULL;
	if (r->err == 0 && !o->take_order)
		r->err = -EOPNOTSUPP;
	request_goto(r, r->err ? PEER_REQUEST_REPLY : PEER_REQUEST_ORDER);
	if (r->err == 0)
		o->take_order(&r->order, o->context); /* the request may be gone */
	else
		request_run(r);
}

void peer_damage_answer(struct peer_damage *d, int res)
{
	struct peer_request *r = container_of(d, struct peer_request, damage);
	quarry_assert(r->stage == PEER_REQUEST_DAMAGE && res <= 0);
	r->err = res;
	request_run(r);
}

/* It names no session: whose disk that is it tells of, and what it is good for the head sees by itself. */
static void request_start_damage(struct peer_request *r)
{
	const struct peer_server_options *o = &server_of(r)->options;
	r->damage = (struct peer_damage){.volume = r->header.volume,
					 .disk = r->header.disk,
					 .tree_id = r->tree_id,
					 .first = r->first,
					 .n_blocks = r->n_blocks};
	if (r->err == 0 && !o->take_damage)
		r->err = -EOPNOTSUPP;
	request_goto(r, r->err ? PEER_REQUEST_REPLY : PEER_REQUEST_DAMAGE);
	if (r->err == 0)
		o->take_damage(&r->damage, o->context); /* the request may be gone */
	else
		request_run(r);
}

static int request_begin(struct peer_request *r)
{
	if (r->header.type == PEER_DAMAGE || r->header.type == PEER_MEASURE)
		return request_is_reader(r) ? 0 : -EINVAL;
	if (r->header.type == PEER_ORDER || request_is_reader(r))
		return 0;
	return r->header.type == PEER_HELLO ? request_begin_session(r) : request_enter_session(r);
}

/* The volume that a FORK is made in. */
static struct uuid child_of(const struct peer_in *in)
{
	const struct peer_message *m = &in->message;
	struct uuid child;
	put_le64(child.bytes, m->child[0]);
	put_le64(child.bytes + 8, m->child[1]);
	return uuid_is_zero(&child) ? in->header.volume : child;
}

void peer_request_start(struct peer_request *r, const struct peer_in *in)
{
	const struct peer_message *m = &in->message;
	quarry_assert(r->stage == PEER_REQUEST_FREE && !r->session && !r->data);
	r->header = in->header;
	r->disk = NULL;
	r->tree = NULL;
	r->child = child_of(in);
	r->tree_id = m->tree_id;
	r->parent_id = m->parent_id;
	r->first = m->first;
	r->n_blocks = m->n_blocks;
	r->epoch = m->epoch;
	r->since = m->since;
	r->before = m->before;
	r->other_id = m->other_id;
	r->size_blocks = m->size_blocks;
	r->zero_blocks = m->zero_blocks;
	r->data = in->data;
	r->data_bytes = in->header.data_bytes;
	if (in->header.type == PEER_WRITE || in->header.type == PEER_HEAL)
		memcpy(r->crcs, m->crcs, m->n_blocks * sizeof(r->crcs[0]));
	for (uint32_t i = 0; in->header.type == PEER_COPY && i < m->n_blocks; i++) {
		r->crcs[i] = m->stamps[i].crc;
		r->epochs[i] = m->stamps[i].epoch;
	}
	counter_add(&server_of(r)->counters.damaged, !in->is_intact);
	r->err = in->is_intact ? request_begin(r) : -EBADMSG;
	if (in->header.type == PEER_ORDER) {
		request_start_order(r, in);
		return;
	}
	if (in->header.type == PEER_DAMAGE) {
		request_start_damage(r);
		return;
	}
	request_goto(r, r->err ? PEER_REQUEST_REPLY : PEER_REQUEST_DRAIN);
	request_run(r);
}

void peer_request_answer(struct peer_request *r, const struct peer_header *h, int res)
{
	struct peer_header reply = *h;
	quarry_assert(r->stage == PEER_REQUEST_FREE && !r->session && !r->data);
	r->header = *h;
	r->out.n_data = 0;
	request_send(r, &reply, res);
}
