/*
 * fuzz_vhost_ring.c: whatever a guest writes into its rings, tables and record of requests in flight.
 *
 *   OFFSET SIZE
 *        0    1  bit 0 packed, 1 event suppression, 2 indirect, 3 a record is kept, 4 begin again half-way, 5 changed
 *                pages are logged, 6 the record is new
 *        1    1  entries of the ring: split: as a power of two, modulo 8; packed: modulo 128, and one more
 *        2    4  where it begins, as SET_VRING_BASE says it
 *        6    -  the guest's memory, repeated to fill it: the ring's three parts and the record, each at the next
 *                multiple of 16; then anything
 */
#include "frontends/vhost-user/vring.h"

#include <stdlib.h>

#define MEMORY_BYTES 0x10000u
#define GUEST        0x1000u
#define HEAD_BYTES   6u
#define STEPS        64u

enum { IS_PACKED = 1, HAS_EVENTS = 2, HAS_INDIRECT = 4, HAS_RECORD = 8, BEGINS_AGAIN = 16, LOGS = 32, IS_NEW = 64 };

struct fuzz_memory {
	_Alignas(4096) uint8_t memory[MEMORY_BYTES];
	_Alignas(64) uint8_t inflight[INFLIGHT_QUEUE_BYTES(128)];
	uint8_t log[2]; /* of the first pages only */
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

/* What the next request is, and whether there is one, are two questions with one answer. */
static int next_of(struct vring *v, struct vring_chain *c)
{
	bool was_broken = v->is_broken, has_more = vring_has_more(v);
	int res = vring_next(v, c);

	quarry_assert(was_broken ? !has_more && res < 0 : has_more == (res != 0));
	quarry_assert((res < 0) == v->is_broken);
	return res;
}

static void serve(struct vring *v, struct vring_chain *c)
{
	for (uint32_t i = 0; i < STEPS && next_of(v, c) == 1; i++) {
		touch(c);
		if (i % 3 == 2)
			continue; /* stays in flight */
		vring_complete(v, c, i);
		if (vring_wants_call(v))
			vring_set_kicks(v, i & 1);
	}
}

static uint32_t size_of_ring(const uint8_t *data)
{
	return data[0] & IS_PACKED ? data[1] % 128u + 1 : 1u << data[1] % 8;
}

static uint8_t *after(uint8_t *part, uint64_t len_bytes)
{
	return part + (len_bytes + 15) / 16 * 16;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size <= HEAD_BYTES)
		return 0;
	struct fuzz_memory *f = aligned_alloc(4096, (sizeof(*f) + 4095) / 4096 * 4096);
	struct vring_chain *c = malloc(sizeof(*c));
	struct vring *v = calloc(1, sizeof(*v));
	quarry_assert(f && c && v);
	for (size_t i = 0; i < sizeof(f->memory); i++)
		f->memory[i] = data[HEAD_BYTES + i % (size - HEAD_BYTES)];
	struct vring_layout l = vring_layout(size_of_ring(data), data[0] & IS_PACKED);
	uint8_t *avail = after(f->memory, l.desc_bytes), *used = after(avail, l.avail_bytes);
	memcpy(f->inflight, after(used, l.used_bytes), sizeof(f->inflight));
	memset(f->log, 0, sizeof(f->log));
	struct mapping log = {.data = f->log, .len_bytes = sizeof(f->log)};
	struct vhost_memory memory = {
	    .n_regions = 2,
	    .regions = {{.guest = GUEST, .len_bytes = 0x8000, .host = f->memory},
			{.guest = GUEST + 0x8000, .len_bytes = 0x8000, .host = f->memory + 0x8000}},
	    .log = &log,
	    .is_logging = data[0] & LOGS};
	*v = (struct vring){.memory = &memory,
			    .size = size_of_ring(data),
			    .is_packed = data[0] & IS_PACKED,
			    .has_event_idx = data[0] & HAS_EVENTS,
			    .has_indirect = data[0] & HAS_INDIRECT,
			    .desc = f->memory,
			    .avail = avail,
			    .used = used,
			    .inflight = data[0] & HAS_RECORD ? f->inflight : NULL};
	vring_start(v, get_le32(data + 2), data[0] & IS_NEW);
	serve(v, c);
	if (data[0] & BEGINS_AGAIN) {
		vring_start(v, vring_base(v), false);
		serve(v, c);
	}
	vring_stop(v);
	free(v);
	free(c);
	free(f);
	return 0;
}
