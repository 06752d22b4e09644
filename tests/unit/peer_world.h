/*
 * peer_world.h: a node with a disk and a peer server, and another node that talks to it, message by message, on the
 * simulated network.
 */
#pragma once

#include "tests/unit/one_disk.h"

#include "replication/peer_server.h"

#define CALLS_MAX  160u
#define LINES_MAX  3u
#define SMALL_DISK (64 * MIB)

struct world;

/* A request on its way, and what came back. */
struct call {
	struct peer_out out;
	bool is_used, is_answered, is_sent; /* the answer may be there first */
	struct peer_header header, reply;
	struct peer_message *message; /* of the reply */
	uint8_t *head, *data, *reply_data;
	struct iovec iov;
};

/* A connection of the other node. */
struct line {
	struct world *world;
	struct peer_connection *wire;
	struct stream *stream;
	uint64_t next_id, session, generation;
	struct uuid volume;
	bool has_ended;
	int res;
	struct call calls[CALLS_MAX];
};

struct world {
	struct one_disk one; /* its machine is the server's */
	struct sim_machine *far;
	struct buffers *buffers;
	struct peer_server *server;
	bool is_stopped, has_no_disk;
	bool holds_orders;       /* else they are answered at once, with their own text */
	struct peer_order *held; /* the last of these */
	struct peer_damage told; /* the last that came */
	int damage_res;          /* what it is answered */
	struct line lines[LINES_MAX];
};

static inline struct disk *world_find_disk(const struct uuid *uuid, void *context)
{
	struct world *w = context;
	const struct uuid mine = uuid_make(1, 1);
	return !w->has_no_disk && uuid_equal(uuid, &mine) ? w->one.disk : NULL;
}

/* The answer to an order: its text, with a status that nothing else has. */
static inline void order_echo(struct peer_order *o)
{
	char *text = calloc(1, PEER_TEXT_MAX);
	memcpy(text, o->text, o->text_bytes);
	peer_order_answer(o, 299, text, o->text_bytes);
}

static inline void world_take_order(struct peer_order *o, void *context)
{
	struct world *w = context;
	w->held = w->holds_orders ? o : NULL;
	if (!w->held)
		order_echo(o);
}

static inline void world_take_damage(struct peer_damage *d, void *context)
{
	struct world *w = context;
	w->told = *d;
	peer_damage_answer(d, w->damage_res);
}

static inline uint32_t world_list_disks(struct peer_disk *out, void *context)
{
	*out = (struct peer_disk){.uuid = uuid_make(1, 1), .n_blocks = 100, .room_blocks = 50};
	return 1;
}

static inline void world_start_server(struct world *w)
{
	char why[PEER_WHY_BYTES];
	struct peer_server_options o = {.reactor = sim_reactor(w->one.machine),
					.log = w->one.log,
					.buffers = w->buffers,
					.cluster = uuid_make(1, 3),
					.node_name = "n1",
					.listen = "n1:9751",
					.connections_max = LINES_MAX - 1,
					.find_disk = world_find_disk,
					.take_order = world_take_order,
					.take_damage = world_take_damage,
					.list_disks = world_list_disks,
					.context = w};
	CU_ASSERT_EQUAL_FATAL(peer_server_start(&o, why, &w->server), 0);
}

static inline void world_open(struct world *w)
{
	memset(w, 0, sizeof(*w));
	one_open(&w->one, SMALL_DISK, 4 * MIB);
	w->far = sim_machine_create(w->one.sim, "n2");
	CU_ASSERT_EQUAL_FATAL(buffers_create(sim_reactor(w->one.machine), 2 * MIB, 0, &w->buffers), 0);
	world_start_server(w);
}

static inline void world_stopped(void *context)
{
	((struct world *)context)->is_stopped = true;
}

static inline bool world_is_stopped(void *context)
{
	return ((struct world *)context)->is_stopped;
}

static inline void world_stop_server(struct world *w)
{
	w->is_stopped = false;
	peer_server_stop(w->server, world_stopped, w);
	CU_ASSERT_EQUAL_FATAL(sim_run(w->one.sim, world_is_stopped, w, ONE_STEPS_MAX), SIM_DONE);
	CU_ASSERT_EQUAL(buffers_used_bytes(w->buffers), 0);
	w->server = NULL;
}

/* ---- lines ---- */

static inline void call_forget(struct call *c)
{
	free(c->message);
	free(c->head);
	free(c->data);
	free(c->reply_data);
	memset(c, 0, sizeof(*c));
}

static inline struct call *line_call_of(struct line *l, uint64_t id)
{
	for (uint32_t i = 0; i < CALLS_MAX; i++)
		if (l->calls[i].is_used && l->calls[i].header.request_id == id)
			return &l->calls[i];
	CU_FAIL_FATAL("an answer to nothing");
	return NULL;
}

static inline void *line_place(struct peer_connection *wire, const struct peer_in *in)
{
	return malloc(in->header.data_bytes);
}

static inline void line_displaced(struct peer_connection *wire, const struct peer_in *in)
{
	free(in->data);
}

static inline void line_arrived(struct peer_connection *wire, const struct peer_in *in)
{
	struct call *c = line_call_of(peer_connection_context(wire), in->header.request_id);
	CU_ASSERT_TRUE(in->is_intact);
	CU_ASSERT_FALSE(c->is_answered);
	CU_ASSERT_EQUAL(in->header.type, c->header.type);
	CU_ASSERT_TRUE(in->header.flags & PEER_REPLY);
	c->is_answered = true;
	c->reply = in->header;
	*c->message = in->message;
	c->reply_data = in->data;
}

static inline void line_ended(struct peer_connection *wire, int res, const char *why)
{
	struct line *l = peer_connection_context(wire);
	l->has_ended = true;
	l->res = res;
}

static inline void call_sent(struct peer_out *out, int res)
{
	container_of(out, struct call, out)->is_sent = true;
}

static inline void line_opened(struct op *op, int res)
{
	CU_ASSERT_EQUAL_FATAL(res, 0);
}

static inline bool line_has_stream(void *context)
{
	struct line *l = context;
	return l->stream != NULL;
}

static inline struct line *line_open(struct world *w, unsigned i)
{
	static const struct peer_connection_calls calls = {
	    .place = line_place, .arrived = line_arrived, .displaced = line_displaced, .ended = line_ended};
	struct line *l = &w->lines[i];
	struct op op;
	*l = (struct line){.world = w, .generation = 5, .volume = uuid_make(2, 7)};
	op_init(&op, line_opened);
	reactor_connect(sim_reactor(w->far), &op, "n1:9751", &l->stream);
	CU_ASSERT_EQUAL_FATAL(sim_run(w->one.sim, line_has_stream, l, ONE_STEPS_MAX), SIM_DONE);
	one_let_pass(&w->one, NS_PER_MS);
	struct peer_connection_options o = {
	    .reactor = sim_reactor(w->far), .stream = l->stream, .calls = &calls, .context = l};
	CU_ASSERT_EQUAL_FATAL(peer_connection_create(&o, &l->wire), 0);
	return l;
}

static inline bool line_has_ended(void *context)
{
	return ((struct line *)context)->has_ended;
}

static inline void line_close(struct line *l)
{
	if (!l->wire)
		return;
	if (!l->has_ended)
		peer_connection_close(l->wire, 0, "the test ends it");
	CU_ASSERT_EQUAL(sim_run(l->world->one.sim, line_has_ended, l, ONE_STEPS_MAX), SIM_DONE);
	peer_connection_destroy(l->wire);
	l->wire = NULL;
	for (uint32_t i = 0; i < CALLS_MAX; i++)
		call_forget(&l->calls[i]);
}

static inline void world_close(struct world *w)
{
	for (unsigned i = 0; i < LINES_MAX; i++)
		line_close(&w->lines[i]);
	if (w->server)
		world_stop_server(w);
	one_close_disk(&w->one);
	buffers_destroy(w->buffers);
	one_close(&w->one);
}

/* ---- calls ---- */

static inline struct peer_header line_header(struct line *l, enum peer_type type)
{
	bool of_none = type == PEER_GREETING || type == PEER_PING || type == PEER_ORDER || type == PEER_DISKS;
	struct peer_header h = {.type = type, .request_id = ++l->next_id};
	if (of_none)
		return h;
	h.generation = l->generation;
	h.session = type == PEER_HELLO ? 0 : l->session;
	h.volume = l->volume;
	h.disk = uuid_make(1, 1);
	return h;
}

/* Sends the message; data: the blocks that it has, taken over. */
static inline struct call *line_send(struct line *l, struct peer_header h, const struct peer_message *m, uint8_t *data)
{
	struct call *c = l->calls;
	while (c->is_used)
		CU_ASSERT_FATAL(++c < l->calls + CALLS_MAX);
	c->is_used = true;
	c->head = malloc(PEER_HEADER_BYTES + PEER_BODY_MAX);
	c->message = calloc(1, sizeof(*c->message));
	c->data = data;
	c->out.sent = call_sent;
	peer_out_encode(&c->out, &h, m, c->head);
	c->header = h;
	c->iov = (struct iovec){data, h.data_bytes};
	c->out.data = &c->iov;
	c->out.n_data = data ? 1 : 0;
	peer_connection_send(l->wire, &c->out);
	return c;
}

static inline bool call_is_answered(void *context)
{
	const struct call *c = context;
	return c->is_answered && c->is_sent;
}

static inline void call_wait(struct line *l, struct call *c)
{
	CU_ASSERT_EQUAL_FATAL(sim_run(l->world->one.sim, call_is_answered, c, ONE_STEPS_MAX), SIM_DONE);
}

/* One call; its status as -errno. *reply: the message that came, if it is asked for. */
static inline int line_call(struct line *l, enum peer_type type, struct peer_message m, struct peer_message *reply)
{
	struct call *c = line_send(l, line_header(l, type), &m, NULL);
	call_wait(l, c);
	int res = peer_status_to_errno(c->reply.status);
	if (type == PEER_HELLO && res == 0)
		l->session = c->reply.session;
	if (reply)
		*reply = *c->message;
	call_forget(c);
	return res;
}

static inline int line_greet(struct line *l)
{
	struct peer_message m = {.node = {.cluster = uuid_make(1, 3), .name = "n2"}};
	return line_call(l, PEER_GREETING, m, NULL);
}

static inline int line_hello(struct line *l)
{
	return line_call(l, PEER_HELLO, (struct peer_message){.size_blocks = 1 << 18}, NULL);
}

/* A line with a session. */
static inline struct line *line_begin(struct world *w, unsigned i)
{
	struct line *l = line_open(w, i);
	CU_ASSERT_EQUAL_FATAL(line_greet(l), 0);
	CU_ASSERT_EQUAL_FATAL(line_hello(l), 0);
	return l;
}

/* A WRITE or a HEAL of blocks of this stamp. */
static inline struct call *line_give(struct line *l, struct peer_header h, struct peer_message m, uint8_t stamp)
{
	uint8_t *data = aligned_alloc(BLOCK_BYTES, PEER_DATA_MAX), *at = data;
	for (uint32_t i = 0; i < m.n_blocks; i++) {
		if (!peer_block_is_there(&m, i))
			continue;
		memset(at, stamp, BLOCK_BYTES);
		m.crcs[i] = crc32c(0, at, BLOCK_BYTES);
		at += BLOCK_BYTES;
	}
	return line_send(l, h, &m, data);
}

static inline struct call *line_write(struct line *l, struct peer_message m, uint32_t flags, uint8_t stamp)
{
	struct peer_header h = line_header(l, PEER_WRITE);
	h.flags = flags;
	return line_give(l, h, m, stamp);
}

static inline int call_end(struct line *l, struct call *c)
{
	call_wait(l, c);
	int res = peer_status_to_errno(c->reply.status);
	call_forget(c);
	return res;
}

/* All blocks that are read are of this stamp, or holes: 0; else how many are not. */
static inline int line_read_differs(struct line *l, uint64_t tree, uint64_t first, uint32_t n, uint8_t stamp)
{
	struct peer_message m = {.tree_id = tree, .first = first, .n_blocks = n};
	struct call *c = line_send(l, line_header(l, PEER_READ), &m, NULL);
	int differs = 0;
	call_wait(l, c);
	CU_ASSERT_EQUAL_FATAL(c->reply.status, PEER_STATUS_OK);
	const uint8_t *at = c->reply_data;
	for (uint32_t i = 0; i < n; i++) {
		uint8_t found = 0;
		if (peer_block_is_there(c->message, i)) {
			found = *at;
			at += BLOCK_BYTES;
		}
		differs += found != stamp;
	}
	call_forget(c);
	return differs;
}
