/*
 * fuzz_vhost_messages.c: a VMM and a guest that say and do anything: messages with descriptors, rings, requests, in any
 * order, over several connections.
 *
 *   OFFSET SIZE
 *        0    1  how it begins and how the volume behaves (below)
 *        1    1  the seed of the world, which cuts what is sent into pieces of any size
 *        2    -  steps: a byte that says which (modulo their number), and what the step reads
 *
 * After the last step the VMM leaves. Then an honest one must be served (of another volume, if this one was detached),
 * and the server must be left with no request, buffer, reference or descriptor: the asserts of server and world see to
 * that.
 */
#include "tests/unit/vhost_world.h"

#include <errno.h>
#include <string.h>

#define VOLUME_BYTES (2 * MIB)
#define BUDGET_BYTES MIB
#define STEPS_MAX    64u /* an input tells a short story, or the fuzzer would be slow */
#define WAIT_NS      (2 * NS_PER_MS)
#define BYTES_MAX    512u
#define BACKENDS_MAX 3u

enum {
	BEGINS = 1, /* the VMM has set up everything, and its guest runs */
	IS_PACKED = 2,
	FAILS_READS = 4, /* as damaged: it is read again where the guest cannot write */
	FAILS_WRITES = 8,
	HOLDS = 16, /* requests stay with the volume until a step lets them go */
	POLLS = 32,
	IS_READ_ONLY = 64,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct story {
	struct vhost_world w;
	struct vmm v;
	struct volume *volume;
	const char *name;
	struct stream *backends[BACKENDS_MAX]; /* the VMM's ends of channels for the server's own messages */
	uint32_t n_backends;
	bool is_detached;
	const uint8_t *at, *end;
};

/* What is not there reads as zeros. */
static uint64_t take(struct story *s, uint32_t n_bytes)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < n_bytes && s->at < s->end; i++)
		n |= (uint64_t)*s->at++ << 8 * i;
	return n;
}

static uint32_t take_bytes(struct story *s, uint8_t *to, uint32_t len_max)
{
	uint32_t len = (uint32_t)min_u64(min_u64(take(s, 2) % (len_max + 1), len_max), (uint64_t)(s->end - s->at));

	memcpy(to, s->at, len);
	s->at += len;
	return len;
}

/* Up to eight of what the VMM has: a byte for each. */
static struct fds take_fds(struct story *s)
{
	const int has[] = {s->v.memory[0], s->v.memory[1], s->v.kick, s->v.call, s->v.err, s->v.inflight};
	struct fds fds = {.n = 0};

	for (uint32_t n = (uint32_t)take(s, 1) % (FDS_MAX + 1); fds.n < n;) {
		int fd = has[take(s, 1) % array_size(has)];
		fds.fd[fds.n++] = fd < 0 ? s->v.kick : fd;
	}
	return fds;
}

/* ---- steps ---- */

/* A message whose header is true. */
static void step_message(struct story *s)
{
	uint8_t payload[BYTES_MAX] = {0};
	uint32_t kind = (uint32_t)take(s, 1), flags = (uint32_t)take(s, 1);
	struct fds fds = take_fds(s);
	uint32_t len = take_bytes(s, payload, sizeof(payload));

	vmm_tell(&s->v, kind, flags & VHOST_FLAG_NEED_ACK, payload, len, &fds);
}

/* The same with zeros up to a length: most fields are zero, and most messages long enough. */
static void step_padded(struct story *s)
{
	uint8_t payload[VHOST_PAYLOAD_MAX] = {0};
	uint32_t kind = (uint32_t)take(s, 1), len = (uint32_t)take(s, 2) % (VHOST_PAYLOAD_MAX + 1);
	struct fds fds = take_fds(s);

	take_bytes(s, payload, 64);
	vmm_tell(&s->v, kind, VHOST_FLAG_NEED_ACK, payload, len, &fds);
}

static void step_bytes(struct story *s)
{
	uint8_t bytes[BYTES_MAX];
	struct fds fds = take_fds(s);
	uint32_t len = take_bytes(s, bytes, sizeof(bytes));

	if (len > 0)
		vmm_send(&s->v, bytes, len, &fds);
}

/* A ring's state or event, of any queue. */
static void step_ring(struct story *s)
{
	static const uint32_t kinds[] = {VHOST_SET_VRING_NUM,  VHOST_SET_VRING_BASE, VHOST_GET_VRING_BASE,
					 VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ENABLE};
	uint32_t kind = kinds[take(s, 1) % array_size(kinds)];
	struct fds fds = take_fds(s);
	uint8_t payload[8] = {0};

	payload[0] = (uint8_t)take(s, 1) % 8;
	put_le32(payload + 4, (uint32_t)take(s, 4));
	vmm_tell(&s->v, kind, VHOST_FLAG_NEED_ACK, payload, sizeof(payload), &fds);
}

/* As an honest VMM says it: what is acknowledged or not is the server's to decide. */
static void step_honest(struct story *s)
{
	switch (take(s, 1) % 10) {
	case 0:
		(void)vmm_features(&s->v, take(s, 8));
		break;
	case 1:
		(void)vmm_memory(&s->v);
		break;
	case 2:
		(void)vmm_inflight(&s->v);
		break;
	case 3:
		(void)vmm_ring(&s->v, (uint32_t)take(s, 4));
		break;
	case 4:
		(void)vmm_start(&s->v, take(s, 1) & 1);
		break;
	case 5:
		vmm_tell(&s->v, VHOST_RESET_DEVICE, VHOST_FLAG_NEED_ACK, NULL, 0, NULL);
		break;
	case 6:
		(void)vmm_ring(&s->v, vhost_ring_lost_base(&s->v.ring, (uint32_t)take(s, 4)));
		break;
	case 7:
		(void)vmm_region(&s->v, VHOST_REM_MEM_REG, take(s, 1) & 1);
		break;
	case 8:
		(void)vmm_region(&s->v, VHOST_ADD_MEM_REG, take(s, 1) & 1);
		break;
	default:
		(void)vmm_ask_queue(&s->v, VHOST_GET_VRING_BASE, 0, 0);
	}
}

/* What a DISCARD or WRITE_ZEROES is about: one range, where it lies in one piece of the guest's memory. */
static void range_put(struct story *s, const struct vmm_request *r)
{
	uint64_t at = r->data - VMM_GUEST;

	if ((r->type != BLK_T_DISCARD && r->type != BLK_T_WRITE_ZEROES) ||
	    at % VMM_REGION_BYTES > VMM_REGION_BYTES - BLK_RANGE_BYTES || at >= 2 * VMM_REGION_BYTES)
		return;
	uint8_t *range = vmm_at(&s->v, r->data);
	put_le64(range, take(s, 2));
	put_le32(range + 8, (uint32_t)take(s, 2));
	put_le32(range + 12, (uint32_t)take(s, 1));
}

static void step_request(struct story *s)
{
	struct vmm_request r = {.type = (uint32_t)take(s, 1) % 16}; /* one by one: C leaves the order of a list open */

	r.token = (uint32_t)take(s, 1);
	r.sector = take(s, 2);
	r.data = VMM_DATA + take(s, 3);
	r.len_bytes = (uint32_t)take(s, 3);
	r.is_indirect = r.token & 0x80;
	range_put(s, &r);
	vmm_request(&s->v, &r);
}

static void step_memory(struct story *s)
{
	uint8_t bytes[BYTES_MAX];
	uint64_t at = take(s, 2);
	uint32_t len = take_bytes(s, bytes, sizeof(bytes));

	memcpy(vmm_at(&s->v, VMM_GUEST) + at, bytes, len); /* the first region has more than 2^16 bytes */
}

static void step_kick(struct story *s)
{
	sim_counter_signal(s->w.sim, s->v.kick);
	vhost_world_pass(&s->w, WAIT_NS);
}

static void step_volume(struct story *s)
{
	uint32_t n_held = fake_volume_n_held(s->volume);

	switch (take(s, 1) % 5) {
	case 0:
		if (n_held > 0)
			fake_volume_let_go(s->volume, (uint32_t)take(s, 1) % n_held);
		break;
	case 1:
		fake_volume_resize(s->volume, (1 + take(s, 2) % (VOLUME_BYTES / SECTOR_BYTES)) * SECTOR_BYTES);
		break;
	case 2:
		fake_volume_hold(s->volume, take(s, 1) & 1);
		break;
	case 4: /* and the story ends: nobody can connect to it any more */
		fake_volume_detach(s->volume);
		s->at = s->end;
		s->is_detached = true;
		break;
	default:
		fake_volume_fail(s->volume, VOLUME_READ, take(s, 1) & 1 ? -EBADMSG : 0);
	}
}

static void step_cut(struct story *s)
{
	sim_memory_cut(s->w.sim, s->v.memory[take(s, 1) & 1]);
}

static void step_reconnect(struct story *s)
{
	vmm_drop(&s->v);
	if (take(s, 1) & 1)
		vhost_world_pass(&s->w, WAIT_NS);
	vmm_reconnect(&s->v, s->name);
}

static void step_take(struct story *s)
{
	uint32_t token, len_bytes;

	(void)vhost_ring_take(&s->v.ring, &token, &len_bytes);
	s->v.ring.why = NULL; /* whoever writes into its own rings finds nonsense there */
	if (take(s, 1) & 1)
		vhost_ring_unwant_call(&s->v.ring);
	else
		(void)vhost_ring_want_call(&s->v.ring);
}

/* A channel for the server's own messages; the VMM may be deaf on it from the beginning. */
static void step_backend(struct story *s)
{
	struct stream *near;

	if (s->n_backends == BACKENDS_MAX)
		return;
	int fd = sim_stream_create(s->w.machine, &near);
	vmm_tell(&s->v, VHOST_SET_BACKEND_REQ_FD, VHOST_FLAG_NEED_ACK, NULL, 0, &(struct fds){.fd = {fd}, .n = 1});
	sim_fd_close(s->w.sim, fd);
	if (take(s, 1) & 1)
		stream_close(near);
	else
		s->backends[s->n_backends++] = near;
}

static void step(struct story *s)
{
	static void (*const steps[])(struct story * s) = {
	    step_message, step_padded, step_bytes,  step_ring, step_honest,    step_request, step_backend,
	    step_memory,  step_kick,   step_volume, step_cut,  step_reconnect, step_take,
	};
	uint8_t which = (uint8_t)take(s, 1);

	if (s->v.error != 0 || !s->v.stream) {
		vmm_drop(&s->v);
		vmm_reconnect(&s->v, s->name);
	}
	steps[which % array_size(steps)](s);
	if (which & 0x80)
		vhost_world_pass(&s->w, WAIT_NS);
}

/* ---- after it ---- */

static void let_all_go(struct story *s)
{
	fake_volume_hold(s->volume, false);
	while (fake_volume_n_held(s->volume) > 0)
		fake_volume_let_go(s->volume, 0);
	fake_volume_fail(s->volume, VOLUME_READ, 0);
	fake_volume_fail(s->volume, VOLUME_WRITE, 0);
	fake_volume_resize(s->volume, VOLUME_BYTES);
}

static void honest_client(struct story *s)
{
	struct vmm other;
	uint8_t wanted[SECTOR_BYTES];
	struct vmm_request read = {.type = BLK_T_IN, .sector = 3, .data = VMM_DATA, .len_bytes = SECTOR_BYTES};

	vmm_connect(&s->w, &other, s->name);
	quarry_assert(vmm_start(&other, false) == 0);
	fake_volume_peek(s->volume, 3 * SECTOR_BYTES, wanted, sizeof(wanted));
	quarry_assert(vmm_do(&other, &read) == BLK_S_OK);
	quarry_assert(memcmp(vmm_at(&other, VMM_DATA), wanted, sizeof(wanted)) == 0);
	vmm_close(&other);
}

static void story_is_about(struct story *s, bool is_read_only)
{
	s->volume = is_read_only ? s->w.readonly : s->w.vm;
	s->name = is_read_only ? WORLD_SNAPSHOT : "vm1";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct story s = {0};

	if (size < 2)
		return 0;
	uint8_t how = data[0];
	vhost_world_start(&s.w, &(struct vhost_world_options){.seed = data[1] + 1u,
							      .budget_bytes = BUDGET_BYTES,
							      .volume_bytes = VOLUME_BYTES,
							      .poll_us = how & POLLS ? 2 : 0});
	story_is_about(&s, how & IS_READ_ONLY);
	s.at = data + 2;
	s.end = data + size;
	vmm_connect(&s.w, &s.v, s.name);
	vmm_ring_init(&s.v, how & IS_PACKED);
	if (how & BEGINS)
		quarry_assert(vmm_start(&s.v, how & IS_PACKED) == 0);
	fake_volume_fail(s.volume, VOLUME_READ, how & FAILS_READS ? -EBADMSG : 0);
	fake_volume_fail(s.volume, VOLUME_WRITE, how & FAILS_WRITES ? -ENOSPC : 0);
	fake_volume_hold(s.volume, how & HOLDS);
	for (uint32_t i = 0; i < STEPS_MAX && s.at < s.end; i++)
		step(&s);
	let_all_go(&s);
	while (s.n_backends > 0)
		stream_close(s.backends[--s.n_backends]);
	vmm_close(&s.v);
	vhost_world_pass(&s.w, NS_PER_S / 10); /* it may have come and gone faster than the server sees */
	if (s.is_detached)
		story_is_about(&s, !(how & IS_READ_ONLY));
	honest_client(&s);
	vhost_world_end(&s.w);
	return 0;
}
