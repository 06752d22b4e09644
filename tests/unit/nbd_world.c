/*
 * nbd_world.c: the NBD server's simulated world for tests.
 */
#include "tests/unit/nbd_world.h"

#include <stdlib.h>
#include <string.h>

#define STEPS_MAX    2000000u
#define CLIENT_BYTES (1u << 16)

/* ---- the world ---- */

void world_start(struct nbd_world *w, const struct nbd_world_options *o)
{
	char why[NBD_WHY_BYTES];

	*w = (struct nbd_world){0};
	w->sim = sim_create(o->seed ? o->seed : 1);
	w->machine = sim_machine_create(w->sim, "n1");
	w->reactor = sim_reactor(w->machine);
	quarry_assert(log_create(-1, LOG_DEBUG, &w->log) == 0);
	quarry_assert(buffers_create(w->reactor, o->budget_bytes ? o->budget_bytes : 8 * MIB, o->reserve_bytes,
				     &w->buffers) == 0);
	w->set = fake_set_create(w->reactor);
	uint64_t size_bytes = o->volume_bytes ? o->volume_bytes : WORLD_VOLUME_BYTES;
	w->readonly = fake_volume_add(
	    w->set, &(struct fake_options){.name = "snap", .size_bytes = size_bytes, .is_read_only = true});
	w->vm = fake_volume_add(w->set, &(struct fake_options){.name = "vm1", .size_bytes = size_bytes});
	struct nbd_server_options options = {
	    .reactor = w->reactor,
	    .log = w->log,
	    .volumes = w->set,
	    .buffers = w->buffers,
	    .socket = WORLD_ADDRESS,
	    .tls = o->tls,
	    .cert_dir = o->cert_dir,
	    .psk_file = o->psk_file,
	    .max_connections = o->max_connections,
	};
	quarry_assert(nbd_server_start(&options, why, &w->server) == 0);
}

bool world_run(struct nbd_world *w, bool (*is_done)(void *context), void *context)
{
	return sim_run(w->sim, is_done, context, STEPS_MAX) == SIM_DONE;
}

void world_pass(struct nbd_world *w, uint64_t duration_ns)
{
	sim_run_for(w->sim, duration_ns);
}

static void note_stopped(void *context)
{
	*(bool *)context = true;
}
static bool is_true(void *context)
{
	return *(bool *)context;
}

void world_stop_server(struct nbd_world *w)
{
	bool is_stopped = false;

	nbd_server_stop(w->server, note_stopped, &is_stopped);
	quarry_assert(world_run(w, is_true, &is_stopped));
	quarry_assert(buffers_used_bytes(w->buffers) == 0);
	w->server = NULL;
}

void world_end(struct nbd_world *w)
{
	if (w->server)
		world_stop_server(w);
	fake_set_destroy(w->set);
	buffers_destroy(w->buffers);
	log_destroy(w->log);
	sim_destroy(w->sim);
}

/* ---- a client's bytes ---- */

static void client_receive(struct nbd_client *c)
{
	if (c->is_paused || c->has_ended || c->receive_op.kind != OP_NONE)
		return;
	if (c->start == c->end)
		c->start = c->end = 0;
	if (c->size - c->end < CLIENT_BYTES) {
		c->size = c->size * 2 + CLIENT_BYTES;
		c->bytes = realloc(c->bytes, c->size);
		quarry_assert(c->bytes != NULL);
	}
	c->receive_iov = (struct iovec){.iov_base = c->bytes + c->end, .iov_len = c->size - c->end};
	stream_recv(c->stream, &c->receive_op, &c->receive_iov, 1);
}

/* Goes on by itself, so that no client is slow that a test does not pause. */
static void client_received(struct op *op, int res)
{
	struct nbd_client *c = container_of(op, struct nbd_client, receive_op);

	if (res <= 0) {
		c->has_ended = true;
		c->error = res;
	} else {
		c->end += (size_t)res;
		client_receive(c);
	}
}

static void client_sent(struct op *op, int res)
{
	struct nbd_client *c = container_of(op, struct nbd_client, send_op);
	if (res < 0)
		c->error = res;
}

static void client_connected(struct op *op, int res)
{
	struct nbd_client *c = container_of(op, struct nbd_client, connect_op);
	quarry_assert(res == 0);
	c->is_connected = true;
}

void client_connect(struct nbd_world *w, struct nbd_client *c)
{
	*c = (struct nbd_client){.world = w};
	op_init(&c->connect_op, client_connected);
	op_init(&c->send_op, client_sent);
	op_init(&c->receive_op, client_received);
	reactor_connect(w->reactor, &c->connect_op, WORLD_ADDRESS, &c->stream);
	quarry_assert(world_run(w, is_true, &c->is_connected));
	client_receive(c);
}

static bool client_is_idle(void *context)
{
	struct nbd_client *c = context;
	return c->receive_op.kind == OP_NONE && c->send_op.kind == OP_NONE;
}

void client_close(struct nbd_client *c)
{
	c->is_paused = true;
	stream_shutdown(c->stream);
	quarry_assert(world_run(c->world, client_is_idle, c));
	stream_close(c->stream);
	free(c->bytes);
	c->bytes = NULL;
}

void client_send_begin(struct nbd_client *c, const void *data, size_t len_bytes)
{
	quarry_assert(c->send_op.kind == OP_NONE);
	c->send_iov = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = len_bytes};
	stream_send(c->stream, &c->send_op, &c->send_iov, 1);
}

static bool client_has_sent(void *context)
{
	struct nbd_client *c = context;
	return c->send_op.kind == OP_NONE;
}

void client_send(struct nbd_client *c, const void *data, size_t len_bytes)
{
	if (len_bytes == 0)
		return;
	client_send_begin(c, data, len_bytes);
	quarry_assert(world_run(c->world, client_has_sent, c));
}

struct wanted {
	struct nbd_client *client;
	size_t len_bytes;
};

static bool client_has(void *context)
{
	struct wanted *want = context;
	struct nbd_client *c = want->client;

	return c->end - c->start >= want->len_bytes || c->has_ended;
}

const uint8_t *client_take(struct nbd_client *c, size_t len_bytes)
{
	struct wanted want = {.client = c, .len_bytes = len_bytes};

	world_run(c->world, client_has, &want);
	if (c->end - c->start < len_bytes)
		return NULL;
	const uint8_t *p = c->bytes + c->start;
	c->start += len_bytes;
	return p;
}

static bool client_has_end(void *context)
{
	struct nbd_client *c = context;
	return c->has_ended || c->end > c->start;
}

bool client_is_ended(struct nbd_client *c)
{
	world_run(c->world, client_has_end, c);
	return c->has_ended && c->start == c->end;
}

bool client_hears_nothing(struct nbd_client *c)
{
	world_pass(c->world, NS_PER_S);
	return c->start == c->end;
}

void client_pause(struct nbd_client *c, bool is_paused)
{
	c->is_paused = is_paused;
	client_receive(c);
}

/* ---- the protocol ---- */

void client_greet(struct nbd_client *c, uint32_t flags)
{
	uint8_t answer[4];
	const uint8_t *p = client_take(c, NBD_GREETING_BYTES);

	quarry_assert(p && get_be64(p) == NBD_GREETING_MAGIC && get_be64(p + 8) == NBD_OPTION_MAGIC);
	quarry_assert(get_be16(p + 16) == (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES));
	put_be32(answer, flags);
	client_send(c, answer, sizeof(answer));
}

void client_option(struct nbd_client *c, uint32_t option, const void *data, uint32_t len_bytes)
{
	uint8_t header[NBD_OPTION_HEADER_BYTES];

	put_be64(header, NBD_OPTION_MAGIC);
	put_be32(header + 8, option);
	put_be32(header + 12, len_bytes);
	client_send(c, header, sizeof(header));
	client_send(c, data, len_bytes);
}

struct option_reply client_option_reply(struct nbd_client *c)
{
	const uint8_t *p = client_take(c, NBD_OPTION_REPLY_HEADER_BYTES);
	if (!p)
		return (struct option_reply){0};
	struct option_reply r = {
	    .magic = get_be64(p), .option = get_be32(p + 8), .type = get_be32(p + 12), .len_bytes = get_be32(p + 16)};
	r.data = client_take(c, r.len_bytes);
	return r;
}

static void client_option_acked(struct nbd_client *c)
{
	struct option_reply r;

	do {
		r = client_option_reply(c);
		quarry_assert(r.magic == NBD_OPTION_REPLY_MAGIC && (r.type & NBD_REP_ERROR) == 0);
	} while (r.type != NBD_REP_ACK);
}

void client_go(struct nbd_client *c, const char *export_, bool is_structured)
{
	static const char context[] = "base:allocation";
	uint32_t name_bytes = (uint32_t)strlen(export_), context_bytes = sizeof(context) - 1;
	uint8_t data[512];

	quarry_assert(name_bytes < 256);
	client_greet(c, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	put_be32(data, name_bytes);
	memcpy(data + 4, export_, name_bytes);
	if (is_structured) {
		client_option(c, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		client_option_acked(c);
		put_be32(data + 4 + name_bytes, 1);
		put_be32(data + 8 + name_bytes, context_bytes);
		memcpy(data + 12 + name_bytes, context, context_bytes);
		client_option(c, NBD_OPT_SET_META_CONTEXT, data, 12 + name_bytes + context_bytes);
		client_option_acked(c);
	}
	put_be16(data + 4 + name_bytes, 0);
	client_option(c, NBD_OPT_GO, data, 6 + name_bytes);
	client_option_acked(c);
}

void client_request_encode(uint8_t out[static NBD_REQUEST_BYTES], const struct client_request *r)
{
	put_be32(out, NBD_REQUEST_MAGIC);
	put_be16(out + 4, r->flags);
	put_be16(out + 6, r->command);
	put_be64(out + 8, r->cookie);
	put_be64(out + 16, r->pos_bytes);
	put_be32(out + 24, r->len_bytes);
}

void client_request(struct nbd_client *c, const struct client_request *r)
{
	uint8_t bytes[NBD_REQUEST_BYTES];

	client_request_encode(bytes, r);
	client_send(c, bytes, sizeof(bytes));
}

struct simple_reply client_simple_reply(struct nbd_client *c)
{
	const uint8_t *p = client_take(c, NBD_SIMPLE_REPLY_BYTES);
	if (!p)
		return (struct simple_reply){0};
	return (struct simple_reply){.magic = get_be32(p), .error = get_be32(p + 4), .cookie = get_be64(p + 8)};
}

struct chunk client_chunk(struct nbd_client *c)
{
	const uint8_t *p = client_take(c, NBD_CHUNK_HEADER_BYTES);
	if (!p)
		return (struct chunk){0};
	struct chunk k = {.magic = get_be32(p),
			  .flags = get_be16(p + 4),
			  .type = get_be16(p + 6),
			  .cookie = get_be64(p + 8),
			  .len_bytes = get_be32(p + 16)};
	k.data = client_take(c, k.len_bytes);
	return k;
}
