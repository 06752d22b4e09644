/*
 * fuzz_vhost_ring.c: whatever a guest writes into its rings, tables and record of requests in flight.
 *
 *   OFFSET SIZE
 *        0    1  bit 0 packed, 1 event suppression, 2 indirect, 3 a record is kept, 4 begin again half-way, 5 no event
 *        1    1  size of the ring as a power of two, modulo 8
 *        2    -  the guest's memory, repeated to fill it; the record too
 */
#include "frontends/vhost-user/vring.h"

#include <stdlib.h>

#define MEMORY_BYTES 0x10000u
#define GUEST        0x1000u
#define STEPS        64u

struct fuzz_memory {
	_Alignas(4096) uint8_t memory[MEMORY_BYTES];
	_Alignas(64) uint8_t inflight[INFLIGHT_QUEUE_BYTES(128)];
};

static void touch(const struct vring_chain *c)
{
	uint64_t readable = 0, writable = 0;

	for (uint32_t i = 0; i < c->n_pieces; i++) {
		uint8_t *at = c->pieces[i].iov_base;
		volatile uint8_t first = at[0],
				 last = at[c->pieces[i].iov_len - 1]; /* inside, or the sanitizer says so */
		(void)first, (void)last;
		if (i < c->n_readable)
			readable += c->pieces[i].iov_len;
		else
			writable += c->pieces[i].iov_len;
	}
	quarry_assert(readable == c->readable_bytes && writable == c->writable_bytes);
}

static void serve(struct vring *v, struct vring_chain *c)
{
	for (uint32_t i = 0; i < STEPS && vring_next(v, c) == 1; i++) {
		touch(c);
		if (i % 3 == 2)
			continue; /* stays in flight */
		vring_complete(v, c, i);
		if (vring_wants_call(v))
			vring_set_kicks(v, i & 1);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 3)
		return 0;
	struct fuzz_memory *f = aligned_alloc(4096, (sizeof(*f) + 4095) / 4096 * 4096);
	struct vring_chain *c = malloc(sizeof(*c));
	struct vring *v = calloc(1, sizeof(*v));
	quarry_assert(f && c && v);
	size_t n = size - 2;
	for (size_t i = 0; i < sizeof(f->memory); i++)
		f->memory[i] = data[2 + i % n];
	for (size_t i = 0; i < sizeof(f->inflight); i++)
		f->inflight[i] = data[2 + (n - 1 - i % n)];
	struct vhost_memory memory = {
	    .n_regions = 2,
	    .regions = {{.guest = GUEST, .len_bytes = 0x8000, .host = f->memory},
			{.guest = GUEST + 0x8000, .len_bytes = 0x8000, .host = f->memory + 0x8000}}};
	*v = (struct vring){.memory = &memory,
			    .size = 1u << data[1] % 8,
			    .is_packed = data[0] & 1,
			    .has_event_idx = data[0] & 2,
			    .has_indirect = data[0] & 4,
			    .desc = f->memory,
			    .avail = f->memory + 0x1000,
			    .used = f->memory + 0x2000,
			    .inflight = data[0] & 8 ? f->inflight : NULL};
	vring_start(v, get_le16(f->memory), false);
	serve(v, c);
	if (data[0] & 16) {
		vring_start(v, vring_base(v), false);
		serve(v, c);
	}
	free(v);
	free(c);
	free(f);
	return 0;
}
