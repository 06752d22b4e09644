/*
 * vhost_world.c: the vhost-user server's simulated world, and a VMM in it.
 *
 *   the first region      0x0000 ring: descriptors, driver's and device's part
 *                         0x4000 a slot per token: header, status
 *                         0x8000 an indirect table per token
 *                        0x10000 data; it goes on in the second region
 */
#include "tests/unit/vhost_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MAX    2000000u
#define SLOTS_AT     0x4000u
#define SLOT_BYTES   128u
#define SLOTS        128u /* by token */
#define SLOT_STATUS  16u
#define TABLES_AT    0x8000u
#define TABLE_BYTES  0x800u /* 128 descriptors */
#define TABLES       16u
#define DRIVER_AT    0x1000u
#define DEVICE_AT    0x2000u
#define USER_GAP     0x40000000ull /* the second region is for the VMM where it likes */
#define PACKED_FIRST 0x80008000u   /* base of a packed ring that begins: both wrap counters set */

/* ---- the world ---- */

void vhost_world_start(struct vhost_world *w, const struct vhost_world_options *o)
{
	*w = (struct vhost_world){0};
	w->sim = sim_create(o->seed ? o->seed : 1);
	w->machine = sim_machine_create(w->sim, "n1");
	w->reactor = sim_reactor(w->machine);
	quarry_assert(log_create(-1, LOG_DEBUG, &w->log) == 0);
	quarry_assert(buffers_create(w->reactor, o->budget_bytes ? o->budget_bytes : 8 * MIB, 0, &w->buffers) == 0);
	w->set = fake_set_create(w->reactor);
	uint64_t size_bytes = o->volume_bytes ? o->volume_bytes : WORLD_VOLUME_BYTES;
	w->readonly = fake_volume_add(w->set, &(struct fake_options){.name = WORLD_SNAPSHOT,
								     .size_bytes = size_bytes,
								     .snapshot_number = 0x1f,
								     .is_read_only = true});
	w->vm = fake_volume_add(w->set, &(struct fake_options){.name = "vm1", .size_bytes = size_bytes});
	for (uint32_t i = 0; i < o->n_more; i++) {
		char name[] = "more0";
		name[4] = (char)('0' + i);
		w->more[i] = fake_volume_add(w->set, &(struct fake_options){.name = name, .size_bytes = size_bytes});
	}
	struct vhost_server_options options = {.reactor = w->reactor,
					       .log = w->log,
					       .volumes = w->set,
					       .buffers = w->buffers,
					       .dir = WORLD_DIR,
					       .poll_us = o->poll_us,
					       .file_memory = o->file_memory};
	quarry_assert(vhost_server_start(&options, &w->server) == 0);
}

void vhost_world_pass(struct vhost_world *w, uint64_t duration_ns)
{
	sim_run_for(w->sim, duration_ns);
}

static bool world_run(struct vhost_world *w, bool (*is_done)(void *context), void *context)
{
	return sim_run(w->sim, is_done, context, STEPS_MAX) == SIM_DONE;
}

static void note_stopped(void *context)
{
	*(bool *)context = true;
}
static bool is_true(void *context)
{
	return *(bool *)context;
}

void vhost_world_stop_server(struct vhost_world *w)
{
	bool is_stopped = false;

	vhost_server_stop(w->server, note_stopped, &is_stopped);
	quarry_assert(world_run(w, is_true, &is_stopped));
	quarry_assert(buffers_used_bytes(w->buffers) == 0);
	w->server = NULL;
}

void vhost_world_end(struct vhost_world *w)
{
	if (w->server)
		vhost_world_stop_server(w);
	vhost_world_pass(w, NS_PER_S); /* bytes and signals on their way */
	quarry_assert(sim_n_fds(w->sim) == 0);
	fake_set_destroy(w->set);
	buffers_destroy(w->buffers);
	log_destroy(w->log);
	sim_destroy(w->sim);
}

/* ---- a VMM's connection ---- */

static void vmm_connected(struct op *op, int res)
{
	quarry_assert(res == 0);
	container_of(op, struct vmm, connect_op)->is_connected = true;
}

static void vmm_sent(struct op *op, int res)
{
	struct vmm *v = container_of(op, struct vmm, send_op);

	if (res < 0)
		v->error = res;
}

static void vmm_received(struct op *op, int res)
{
	struct vmm *v = container_of(op, struct vmm, receive_op);

	v->is_receiving = false;
	if (res < 0) {
		v->has_ended = true;
		v->error = res;
	}
}

void vmm_reconnect(struct vmm *v, const char *volume)
{
	char address[128];

	snprintf(address, sizeof(address), WORLD_DIR "/%s.sock", volume);
	quarry_assert(!v->stream);
	v->is_connected = v->has_ended = false;
	v->error = 0;
	reactor_connect(v->world->reactor, &v->connect_op, address, &v->stream);
	quarry_assert(world_run(v->world, is_true, &v->is_connected));
}

void vmm_connect(struct vhost_world *w, struct vmm *v, const char *volume)
{
	*v = (struct vmm){.world = w, .inflight = -1};
	op_init(&v->connect_op, vmm_connected);
	op_init(&v->send_op, vmm_sent);
	op_init(&v->receive_op, vmm_received);
	for (uint32_t i = 0; i < 2; i++)
		v->memory[i] = sim_memory_create(w->sim, VMM_REGION_BYTES);
	v->kick = sim_counter_create(w->sim);
	v->call = sim_counter_create(w->sim);
	v->err = sim_counter_create(w->sim);
	vmm_reconnect(v, volume);
}

static bool vmm_is_idle(void *context)
{
	struct vmm *v = context;
	return v->receive_op.kind == OP_NONE && v->send_op.kind == OP_NONE;
}

void vmm_drop(struct vmm *v)
{
	if (!v->stream)
		return;
	stream_shutdown(v->stream);
	quarry_assert(world_run(v->world, vmm_is_idle, v));
	stream_close(v->stream);
	v->stream = NULL;
	reactor_fds_close(v->world->reactor, &v->fds);
}

static void fd_end(struct vmm *v, int *fd)
{
	if (*fd >= 0)
		sim_fd_close(v->world->sim, *fd);
	*fd = -1;
}

void vmm_close(struct vmm *v)
{
	vmm_drop(v);
	fd_end(v, &v->memory[0]);
	fd_end(v, &v->memory[1]);
	fd_end(v, &v->kick);
	fd_end(v, &v->call);
	fd_end(v, &v->err);
	fd_end(v, &v->inflight);
}

static bool vmm_has_sent(void *context)
{
	return ((struct vmm *)context)->send_op.kind == OP_NONE;
}

void vmm_send(struct vmm *v, const void *data, uint32_t len_bytes, const struct fds *fds)
{
	v->send_fds = fds ? *fds : (struct fds){.n = 0};
	v->send_iov = (struct iovec){(void *)(uintptr_t)data, len_bytes};
	stream_send_fds(v->stream, &v->send_op, &v->send_iov, 1, &v->send_fds);
	world_run(v->world, vmm_has_sent, v); /* unless the server does not read it at all */
	if (v->send_op.kind == OP_NONE)
		return;
	stream_shutdown(v->stream);
	quarry_assert(world_run(v->world, vmm_has_sent, v));
}

void vmm_tell(struct vmm *v, uint32_t kind, uint32_t flags, const void *payload, uint32_t len_bytes,
	      const struct fds *fds)
{
	uint8_t bytes[VHOST_HEADER_BYTES + VHOST_PAYLOAD_MAX];

	quarry_assert(len_bytes <= VHOST_PAYLOAD_MAX);
	put_le32(bytes, kind);
	put_le32(bytes + 4, flags | VHOST_VERSION);
	put_le32(bytes + 8, len_bytes);
	if (len_bytes > 0)
		memcpy(bytes + VHOST_HEADER_BYTES, payload, len_bytes);
	vmm_send(v, bytes, VHOST_HEADER_BYTES + len_bytes, fds);
}

static bool vmm_has_received(void *context)
{
	return !((struct vmm *)context)->is_receiving;
}

/* False: it does not come. A receive may then be under way, and is found again by the next call. */
static bool vmm_take(struct vmm *v, uint8_t *to, uint32_t len_bytes, bool with_fds)
{
	if (v->has_ended || len_bytes == 0)
		return !v->has_ended;
	v->is_receiving = true;
	v->receive_iov = (struct iovec){to, len_bytes};
	if (with_fds) {
		reactor_fds_close(v->world->reactor, &v->fds);
		stream_recv_fds(v->stream, &v->receive_op, &v->receive_iov, 1, &v->fds);
	} else {
		stream_recv_all(v->stream, &v->receive_op, &v->receive_iov, 1);
	}
	if (!world_run(v->world, vmm_has_received, v)) { /* a server that owes an answer and does not give it */
		stream_shutdown(v->stream);
		quarry_assert(world_run(v->world, vmm_has_received, v));
	}
	return !v->has_ended;
}

const uint8_t *vmm_hear(struct vmm *v, uint32_t kind, uint32_t *len_bytes)
{
	uint8_t header[VHOST_HEADER_BYTES];
	uint32_t len;

	do {
		if (!vmm_take(v, header, sizeof(header), true))
			return NULL;
		len = get_le32(header + 8);
		quarry_assert(get_le32(header + 4) == (VHOST_VERSION | VHOST_FLAG_REPLY) && len <= sizeof(v->reply));
		if (!vmm_take(v, v->reply, len, false))
			return NULL;
	} while (get_le32(header) != kind);
	if (len_bytes)
		*len_bytes = len;
	return v->reply;
}

bool vmm_is_ended(struct vmm *v)
{
	uint8_t byte;

	return !vmm_take(v, &byte, 1, false);
}

int vmm_answer(struct vmm *v, uint32_t kind)
{
	const uint8_t *reply = vmm_hear(v, kind, NULL);

	return reply ? (int)get_le64(reply) : -1;
}

int vmm_ask(struct vmm *v, uint32_t kind, const void *payload, uint32_t len_bytes, const struct fds *fds)
{
	vmm_tell(v, kind, VHOST_FLAG_NEED_ACK, payload, len_bytes, fds);
	return vmm_answer(v, kind);
}

int vmm_ask_number(struct vmm *v, uint32_t kind, uint64_t number)
{
	uint8_t payload[8];

	put_le64(payload, number);
	return vmm_ask(v, kind, payload, sizeof(payload), NULL);
}

int vmm_ask_queue(struct vmm *v, uint32_t kind, uint32_t queue, uint32_t number)
{
	return vmm_ask_number(v, kind, (uint64_t)number << 32 | queue);
}

/* ---- before the guest runs ---- */

int vmm_features(struct vmm *v, uint64_t without)
{
	vmm_tell(v, VHOST_GET_FEATURES, 0, NULL, 0, NULL);
	const uint8_t *reply = vmm_hear(v, VHOST_GET_FEATURES, NULL);
	if (!reply)
		return -1;
	uint64_t features = get_le64(reply) & ~(without | VHOST_F_LOG_ALL);
	uint8_t payload[8];
	if (!v->is_packed)
		features &= ~VIRTIO_F_RING_PACKED;
	put_le64(payload, VHOST_PROTOCOL_FEATURES);
	vmm_tell(v, VHOST_SET_PROTOCOL_FEATURES, 0, payload, sizeof(payload), NULL);
	return vmm_ask_number(v, VHOST_SET_FEATURES, features);
}

static void region_fill(uint8_t *at, uint32_t i)
{
	put_le64(at, VMM_GUEST + i * VMM_REGION_BYTES);
	put_le64(at + 8, VMM_REGION_BYTES);
	put_le64(at + 16, VMM_USER + i * USER_GAP);
}

int vmm_memory(struct vmm *v)
{
	uint8_t table[VHOST_TABLE_HEAD_BYTES + 2 * VHOST_REGION_BYTES] = {2};
	struct fds fds = {.fd = {v->memory[0], v->memory[1]}, .n = 2};

	for (uint32_t i = 0; i < 2; i++)
		region_fill(table + VHOST_TABLE_HEAD_BYTES + i * VHOST_REGION_BYTES, i);
	return vmm_ask(v, VHOST_SET_MEM_TABLE, table, sizeof(table), &fds);
}

void vmm_region_tell(struct vmm *v, uint32_t kind, uint32_t i)
{
	uint8_t payload[VHOST_ONE_REGION_BYTES] = {0};
	struct fds fds = {.fd = {v->memory[i]}, .n = kind == VHOST_ADD_MEM_REG};

	region_fill(payload + 8, i);
	vmm_tell(v, kind, VHOST_FLAG_NEED_ACK, payload, sizeof(payload), &fds);
}

int vmm_region(struct vmm *v, uint32_t kind, uint32_t i)
{
	vmm_region_tell(v, kind, i);
	return vmm_answer(v, kind);
}

static void inflight_fill(const struct vmm *v, uint8_t payload[static VHOST_INFLIGHT_BYTES_MAX])
{
	memset(payload, 0, VHOST_INFLIGHT_BYTES_MAX);
	put_le64(payload, v->inflight_bytes);
	put_le16(payload + 16, 1);
	put_le16(payload + 18, VMM_RING_SIZE);
}

int vmm_inflight(struct vmm *v)
{
	uint8_t payload[VHOST_INFLIGHT_BYTES_MAX];

	if (v->inflight < 0) {
		inflight_fill(v, payload);
		vmm_tell(v, VHOST_GET_INFLIGHT_FD, 0, payload, sizeof(payload), NULL);
		const uint8_t *reply = vmm_hear(v, VHOST_GET_INFLIGHT_FD, NULL);
		if (!reply || v->fds.n != 1)
			return -1;
		v->inflight_bytes = (uint32_t)get_le64(reply);
		v->inflight = v->fds.fd[0];
		v->fds.n = 0;
	}
	inflight_fill(v, payload);
	return vmm_ask(v, VHOST_SET_INFLIGHT_FD, payload, sizeof(payload), &(struct fds){.fd = {v->inflight}, .n = 1});
}

int vmm_ring(struct vmm *v, uint32_t base)
{
	uint8_t payload[VHOST_VRING_ADDR_BYTES] = {0}, which[VHOST_VRING_FD_BYTES] = {0};
	int res = vmm_ask_queue(v, VHOST_SET_VRING_NUM, 0, VMM_RING_SIZE);

	put_le64(payload + 8, VMM_USER);
	put_le64(payload + 16, VMM_USER + DEVICE_AT);
	put_le64(payload + 24, VMM_USER + DRIVER_AT);
	if (res == 0)
		res = vmm_ask(v, VHOST_SET_VRING_ADDR, payload, sizeof(payload), NULL);
	if (res == 0)
		res = vmm_ask_queue(v, VHOST_SET_VRING_BASE, 0, base);
	if (res == 0)
		res = vmm_ask(v, VHOST_SET_VRING_CALL, which, sizeof(which), &(struct fds){.fd = {v->call}, .n = 1});
	if (res == 0)
		res = vmm_ask(v, VHOST_SET_VRING_ERR, which, sizeof(which), &(struct fds){.fd = {v->err}, .n = 1});
	if (res == 0)
		res = vmm_ask(v, VHOST_SET_VRING_KICK, which, sizeof(which), &(struct fds){.fd = {v->kick}, .n = 1});
	return res == 0 ? vmm_ask_queue(v, VHOST_SET_VRING_ENABLE, 0, 1) : res;
}

int vmm_start(struct vmm *v, bool is_packed)
{
	vmm_ring_init(v, is_packed);
	int res = vmm_features(v, 0);

	if (res == 0)
		res = vmm_memory(v);
	if (res == 0)
		res = vmm_inflight(v);
	return res == 0 ? vmm_ring(v, is_packed ? PACKED_FIRST : 0) : res;
}

/* ---- the guest ---- */

uint8_t *vmm_at(struct vmm *v, uint64_t guest)
{
	uint64_t at = guest - VMM_GUEST;

	quarry_assert(guest >= VMM_GUEST && at < 2 * VMM_REGION_BYTES);
	return sim_memory_at(v->world->sim, v->memory[at / VMM_REGION_BYTES], NULL) + at % VMM_REGION_BYTES;
}

void vmm_ring_init(struct vmm *v, bool is_packed)
{
	uint8_t *at = vmm_at(v, VMM_GUEST);
	void *const parts[3] = {at, at + DRIVER_AT, at + DEVICE_AT};

	memset(at, 0, SLOTS_AT);
	v->is_packed = is_packed;
	vhost_ring_init(&v->ring, is_packed, true, VMM_RING_SIZE, parts);
}

void vmm_request(struct vmm *v, const struct vmm_request *r)
{
	uint64_t slot = VMM_GUEST + SLOTS_AT + r->token % SLOTS * SLOT_BYTES;
	bool is_written = r->type == BLK_T_IN || r->type == BLK_T_GET_ID;
	uint32_t n_cuts = r->n_cuts ? r->n_cuts : 1;
	struct vhost_piece pieces[TABLE_BYTES / 16] = {{.addr = slot, .len = BLK_HEADER_BYTES}};
	struct vhost_chain c = {.pieces = pieces, .n = 1, .token = r->token};

	quarry_assert(n_cuts + 2 <= array_size(pieces) && r->len_bytes % n_cuts == 0);
	c.table_addr = VMM_GUEST + TABLES_AT + r->token % TABLES * TABLE_BYTES;
	for (uint32_t i = 0; i < n_cuts && r->len_bytes > 0; i++) {
		uint32_t len = r->len_bytes / n_cuts;
		pieces[c.n++] = (struct vhost_piece){r->data + (uint64_t)i * len, len, is_written};
	}
	pieces[c.n++] = (struct vhost_piece){slot + SLOT_STATUS, 1, true};
	c.table = vmm_at(v, c.table_addr);
	c.n_direct = r->is_indirect ? 0 : c.n;
	put_le32(vmm_at(v, slot), r->type);
	put_le32(vmm_at(v, slot + 4), 0);
	put_le64(vmm_at(v, slot + 8), r->sector);
	*vmm_at(v, slot + SLOT_STATUS) = 0xff;
	if (!vhost_ring_add(&v->ring, &c))
		return; /* the ring is full */
	if (vhost_ring_needs_kick(&v->ring))
		sim_counter_signal(v->world->sim, v->kick);
}

struct vmm_wait {
	struct vmm *vmm;
	uint32_t *token, *len_bytes;
};

static bool completion_came(void *context)
{
	struct vmm_wait *w = context;
	return vhost_ring_take(&w->vmm->ring, w->token, w->len_bytes) || w->vmm->ring.why;
}

int vmm_completion(struct vmm *v, uint32_t *token, uint32_t *len_bytes)
{
	struct vmm_wait w = {v, token, len_bytes};

	if (!world_run(v->world, completion_came, &w) || v->ring.why)
		return -1;
	return *vmm_at(v, VMM_GUEST + SLOTS_AT + *token % SLOTS * SLOT_BYTES + SLOT_STATUS);
}

int vmm_do(struct vmm *v, const struct vmm_request *r)
{
	uint32_t token, len_bytes;

	vmm_request(v, r);
	return vmm_completion(v, &token, &len_bytes);
}

int vmm_read(struct vmm *v, uint64_t sector, uint64_t data, uint32_t len_bytes)
{
	return vmm_do(v, &(struct vmm_request){BLK_T_IN, 2, sector, data, len_bytes, true, 0});
}

int vmm_write(struct vmm *v, uint64_t sector, uint64_t data, uint32_t len_bytes)
{
	return vmm_do(v, &(struct vmm_request){BLK_T_OUT, 1, sector, data, len_bytes, false, 0});
}

int vmm_set_cache(struct vmm *v, bool is_on)
{
	uint8_t payload[VHOST_CONFIG_HEAD_BYTES + 1] = {0};

	put_le32(payload, BLK_CONFIG_WCE);
	put_le32(payload + 4, 1);
	payload[VHOST_CONFIG_HEAD_BYTES] = is_on;
	return vmm_ask(v, VHOST_SET_CONFIG, payload, sizeof(payload), NULL);
}

/* ---- a guest that runs ---- */

void guest_world_open(struct guest_world *m, const struct vhost_world_options *o, bool is_packed)
{
	vhost_world_start(&m->w, o ? o : &(struct vhost_world_options){0});
	vmm_connect(&m->w, &m->v, "vm1");
	quarry_assert(vmm_start(&m->v, is_packed) == 0);
}

void guest_world_close(struct guest_world *m)
{
	vmm_close(&m->v);
	vhost_world_end(&m->w);
}
