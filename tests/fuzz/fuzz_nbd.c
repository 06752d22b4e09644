/*
 * fuzz_nbd.c: a client that sends any bytes at all.
 *
 * Byte 0 of an input says how the connection begins and how the volume behaves (see below), byte 1 is the seed of the
 * simulated world, which cuts the stream into pieces of any size; the rest is what the client sends. After it the
 * client leaves. Then the server must have answered or ended the connection, must serve somebody else, and must be left
 * with no request, buffer or reference: the asserts of server and world see to that.
 */
#include "tests/unit/nbd_world.h"

#include <errno.h>
#include <string.h>

#define VOLUME_BYTES (2 * MIB) /* small, so that no input makes the server send for long */
#define BUDGET_BYTES MIB

enum {
	BEGINS_SIMPLE = 1,     /* an export was agreed on */
	BEGINS_STRUCTURED = 2, /* the same, with structured replies and base:allocation */
	FAILS_READS = 4,
	FAILS_WRITES = 8,
	LEAVES_AT_ONCE = 16, /* when it has sent; else when the server has fallen silent */
	CHECKS_ANOTHER = 32, /* another client is served beside it */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Somebody else sees nothing of it. */
static void check_another(struct nbd_world *w)
{
	struct nbd_client other;

	client_connect(w, &other);
	client_go(&other, "snap", false);
	client_request(&other, &(struct client_request){.command = NBD_CMD_READ, .cookie = 9, .len_bytes = 4096});
	struct simple_reply r = client_simple_reply(&other);
	quarry_assert(r.magic == NBD_SIMPLE_REPLY_MAGIC && r.cookie == 9 && r.error == NBD_OK);
	quarry_assert(client_take(&other, 4096) != NULL);
	client_close(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nbd_world w;
	struct nbd_client c;

	if (size < 2)
		return 0;
	uint8_t how = data[0];
	world_start(&w, &(struct nbd_world_options){
			    .seed = data[1] + 1u, .budget_bytes = BUDGET_BYTES, .volume_bytes = VOLUME_BYTES});
	if (how & FAILS_READS)
		fake_volume_fail(w.vm, VOLUME_READ, -EIO);
	if (how & FAILS_WRITES)
		fake_volume_fail(w.vm, VOLUME_WRITE, -ENOSPC);
	client_connect(&w, &c);
	if (how & (BEGINS_SIMPLE | BEGINS_STRUCTURED))
		client_go(&c, "vm1", how & BEGINS_STRUCTURED);
	client_send(&c, data + 2, size - 2);
	if (!(how & LEAVES_AT_ONCE))
		world_pass(&w, 20 * NS_PER_MS);
	if (how & CHECKS_ANOTHER)
		check_another(&w);
	client_close(&c);
	world_end(&w);
	return 0;
}
