/*
 * nbd_world.h: an NBD server over volumes in memory in a simulated world, and clients that send it bytes.
 *
 * Everything is synchronous for the test: a call steps the world until what it asks for has happened, or nothing can
 * happen any more.
 */
#pragma once

#include "frontends/nbd/nbd_server.h"
#include "tests/sim/sim.h"
#include "tests/unit/fake_volume.h"

#define WORLD_ADDRESS      "/nbd.sock"
#define WORLD_VOLUME_BYTES (64 * MIB)

struct nbd_world {
	struct sim *sim;
	struct sim_machine *machine;
	struct reactor *reactor;
	struct log *log;
	struct buffers *buffers;
	struct volume_set *set;
	struct volume *vm, *readonly; /* exports "vm1" and "snap" */
	struct nbd_server *server;    /* NULL: stopped */
};

struct nbd_world_options {
	uint64_t seed;                        /* 0: 1 */
	uint64_t budget_bytes, reserve_bytes; /* of I/O buffers; 0: 8 MiB, and no reserve */
	uint64_t volume_bytes;                /* 0: WORLD_VOLUME_BYTES */
	uint32_t max_connections;
	enum nbd_tls_mode tls;
	const char *cert_dir, *psk_file;
};
void world_start(struct nbd_world *w, const struct nbd_world_options *o);
/* Stops the server, waits until it is gone, and asserts that nothing is left over. Clients are closed before or after.
 */
void world_stop_server(struct nbd_world *w);
void world_end(struct nbd_world *w);
/* Lets all happen that happens by itself within so much time. */
void world_pass(struct nbd_world *w, uint64_t duration_ns);
bool world_run(struct nbd_world *w, bool (*is_done)(void *context), void *context);

struct nbd_client {
	struct nbd_world *world;
	struct stream *stream;
	struct op connect_op, send_op, receive_op;
	struct iovec send_iov, receive_iov;
	uint8_t *bytes; /* received and not taken yet: bytes[start .. end) */
	size_t start, end, size;
	bool is_connected, is_paused, has_ended;
	int error; /* of the last send or receive */
};
void client_connect(struct nbd_world *w, struct nbd_client *c);
void client_close(struct nbd_client *c);
/* Sends all; returns when the kernel has it, or cannot take it. */
void client_send(struct nbd_client *c, const void *data, size_t len_bytes);
/* Begins to send; data stays the caller's until the op is idle. */
void client_send_begin(struct nbd_client *c, const void *data, size_t len_bytes);
/* The next len_bytes received; NULL when they do not come. Valid until the next call. */
const uint8_t *client_take(struct nbd_client *c, size_t len_bytes);
/* Nothing more comes and the server has ended the connection. */
bool client_is_ended(struct nbd_client *c);
/* Nothing is there to take, and nothing comes within a second. */
bool client_hears_nothing(struct nbd_client *c);
/* Receives nothing until it is called with false again. */
void client_pause(struct nbd_client *c, bool is_paused);

/* ---- the protocol ---- */

void client_greet(struct nbd_client *c, uint32_t flags);
void client_option(struct nbd_client *c, uint32_t option, const void *data, uint32_t len_bytes);
/* Takes one option reply's header; its data follows. */
struct option_reply {
	uint64_t magic;
	uint32_t option, type, len_bytes;
	const uint8_t *data;
};
struct option_reply client_option_reply(struct nbd_client *c);
/* Greets, agrees on structured replies and base:allocation if asked for, and on the export. */
void client_go(struct nbd_client *c, const char *export_, bool is_structured);

struct client_request {
	uint16_t flags, command;
	uint64_t cookie, pos_bytes;
	uint32_t len_bytes;
};
void client_request(struct nbd_client *c, const struct client_request *r);
void client_request_encode(uint8_t out[static NBD_REQUEST_BYTES], const struct client_request *r);

struct simple_reply {
	uint32_t magic, error;
	uint64_t cookie;
};
struct simple_reply client_simple_reply(struct nbd_client *c);

struct chunk {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie;
	uint32_t len_bytes;
	const uint8_t *data;
};
struct chunk client_chunk(struct nbd_client *c);
