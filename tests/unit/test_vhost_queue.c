/*
 * test_vhost_queue.c: rings of a guest that begin, stop, go on and are taken up again; memory that changes under them.
 */
#include "tests/unit/vhost_world.h"

#include <CUnit/Basic.h>
#include <stdlib.h>
#include <string.h>

/* ---- a server, or a connection, that ends meanwhile ---- */

/* What was in flight when the connection broke is carried out; what the guest sees of it, it sees once. */
static void requests_in_flight_are_taken_up(bool is_packed)
{
	struct guest_world m;
	uint32_t token, len, seen = 0;

	guest_world_open(&m, NULL, is_packed);
	fake_volume_hold(m.w.vm, true);
	for (uint32_t i = 0; i < 5; i++)
		vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, i, 8 * i, VMM_DATA, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(fake_volume_n_held(m.w.vm), 5);
	fake_volume_let_go(m.w.vm, 3); /* out of order */
	vhost_world_pass(&m.w, NS_PER_S);
	vmm_drop(&m.v);
	vmm_reconnect(&m.v, "vm1");
	CU_ASSERT_EQUAL(vmm_features(&m.v, 0), 0);
	CU_ASSERT_EQUAL(vmm_memory(&m.v), 0);
	CU_ASSERT_EQUAL(vmm_inflight(&m.v), 0);
	CU_ASSERT_EQUAL(vmm_ring(&m.v, vhost_ring_lost_base(&m.v.ring, is_packed ? 0x80008000u : 0)), 0);
	fake_volume_hold(m.w.vm, false);
	while (fake_volume_n_held(m.w.vm) > 0)
		fake_volume_let_go(m.w.vm, 0);
	for (uint32_t i = 0; i < 5; i++) {
		CU_ASSERT_EQUAL_FATAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
		seen |= 1u << token;
	}
	CU_ASSERT_EQUAL(seen, 31);
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	guest_world_close(&m);
}

static void requests_in_flight_are_taken_up_split(void)
{
	requests_in_flight_are_taken_up(false);
}
static void requests_in_flight_are_taken_up_packed(void)
{
	requests_in_flight_are_taken_up(true);
}

/* Its requests in flight are lost with a server that is killed: it has not completed one of them. */
static void lose(struct guest_world *m)
{
	uint8_t *area = sim_memory_at(m->w.sim, m->v.inflight, NULL);
	uint8_t *record = malloc(m->v.inflight_bytes), *ring = malloc(VMM_REGION_BYTES);

	CU_ASSERT_FATAL(record && ring);
	memcpy(record, area, m->v.inflight_bytes);
	memcpy(ring, vmm_at(&m->v, VMM_GUEST), VMM_REGION_BYTES);
	vmm_drop(&m->v);
	fake_volume_hold(m->w.vm, false);
	while (fake_volume_n_held(m->w.vm) > 0)
		fake_volume_let_go(m->w.vm, 0);
	vhost_world_pass(&m->w, NS_PER_S);
	memcpy(area, record, m->v.inflight_bytes);
	memcpy(vmm_at(&m->v, VMM_GUEST), ring, VMM_REGION_BYTES);
	free(record);
	free(ring);
}

static void take_all_requests(struct guest_world *m, struct vmm others[static WORLD_MORE_MAX])
{
	static const char *const names[WORLD_MORE_MAX] = {"more0", "more1", "more2", "more3"};

	for (uint32_t i = 0; i < WORLD_MORE_MAX; i++) {
		vmm_connect(&m->w, &others[i], names[i]);
		CU_ASSERT_EQUAL_FATAL(vmm_start(&others[i], false), 0);
		fake_volume_hold(m->w.more[i], true);
		for (uint32_t n = 0; n < VMM_RING_SIZE; n++)
			vmm_request(&others[i], &(struct vmm_request){BLK_T_IN, n, 0, VMM_DATA, 512, true, 0});
		vhost_world_pass(&m->w, NS_PER_S);
		CU_ASSERT_EQUAL_FATAL(fake_volume_n_held(m->w.more[i]), VMM_RING_SIZE);
	}
}

static void let_all_go(struct guest_world *m, struct vmm others[static WORLD_MORE_MAX])
{
	for (uint32_t i = 0; i < WORLD_MORE_MAX; i++) {
		fake_volume_hold(m->w.more[i], false);
		while (fake_volume_n_held(m->w.more[i]) > 0)
			fake_volume_let_go(m->w.more[i], 0);
		vmm_close(&others[i]);
	}
}

/* A virtual machine is stopped right after its VMM has connected again, while others have all the requests that there
 * are: nothing is in flight any more when it is told where its ring stands. */
static void a_ring_stops_when_all_is_taken_up(bool is_packed)
{
	struct guest_world m;
	struct vmm others[WORLD_MORE_MAX];
	uint8_t queue[VHOST_VRING_STATE_BYTES] = {0};
	uint32_t token, len;

	guest_world_open(&m, &(struct vhost_world_options){.n_more = WORLD_MORE_MAX}, is_packed);
	fake_volume_hold(m.w.vm, true);
	for (uint32_t i = 0; i < 5; i++)
		vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, i, 8 * i, VMM_DATA, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	lose(&m);
	take_all_requests(&m, others);
	vmm_reconnect(&m.v, "vm1");
	CU_ASSERT_EQUAL(vmm_features(&m.v, 0), 0);
	CU_ASSERT_EQUAL(vmm_memory(&m.v), 0);
	CU_ASSERT_EQUAL(vmm_inflight(&m.v), 0);
	CU_ASSERT_EQUAL(vmm_ring(&m.v, vhost_ring_lost_base(&m.v.ring, is_packed ? 0x80008000u : 0)), 0);
	vmm_tell(&m.v, VHOST_GET_VRING_BASE, 0, queue, sizeof(queue), NULL);
	vhost_world_pass(&m.w, NS_PER_S);
	let_all_go(&m, others);
	CU_ASSERT_PTR_NOT_NULL(vmm_hear(&m.v, VHOST_GET_VRING_BASE, NULL));
	for (uint32_t i = 0; i < 5; i++)
		CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	guest_world_close(&m);
}

static void a_ring_stops_when_all_is_taken_up_split(void)
{
	a_ring_stops_when_all_is_taken_up(false);
}
static void a_ring_stops_when_all_is_taken_up_packed(void)
{
	a_ring_stops_when_all_is_taken_up(true);
}

/* A server that stops while the volume is detached answers nothing: the next one finds these requests in flight. */
static void a_detached_volume_leaves_requests_in_flight(void)
{
	struct guest_world m;
	uint32_t token, len;

	guest_world_open(&m, NULL, false);
	fake_volume_detach(m.w.vm);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 1, 0, VMM_DATA, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	CU_ASSERT_TRUE(vmm_is_ended(&m.v));
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->n_doors), 1);
	guest_world_close(&m);
}

static void memory_that_is_cut_off_ends_the_connection(void)
{
	struct guest_world m;

	guest_world_open(&m, NULL, false);
	sim_memory_cut(m.w.sim, m.v.memory[1]);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 1, 0, VMM_GUEST + VMM_REGION_BYTES, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_TRUE(vmm_is_ended(&m.v));
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->failed), 1);
	CU_ASSERT_EQUAL(sim_run(m.w.sim, NULL, NULL, 10000), SIM_IDLE); /* and nothing turns on and on */
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->n_connections), 0);
	guest_world_close(&m);
}

/* ---- memory that changes ---- */

static void memory_goes_when_nothing_is_in_flight(void)
{
	struct guest_world m;
	uint32_t token, len;

	guest_world_open(&m, NULL, false);
	fake_volume_hold(m.w.vm, true);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, 1, 0, VMM_GUEST + VMM_REGION_BYTES, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	vmm_region_tell(&m.v, VHOST_REM_MEM_REG, 1);
	vhost_world_pass(&m.w, NS_PER_S);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, 2, 0, VMM_DATA, 4096, false, 0}); /* has to wait */
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(fake_volume_n_held(m.w.vm), 1);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	fake_volume_hold(m.w.vm, false);
	fake_volume_let_go(m.w.vm, 0);
	CU_ASSERT_EQUAL(vmm_answer(&m.v, VHOST_REM_MEM_REG), 0);
	for (uint32_t i = 1; i <= 2; i++) {
		CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
		CU_ASSERT_EQUAL(token, i);
	}
	guest_world_close(&m);
}

/* As QEMU does with a region that grows, while its guest goes on: the ring, or what a request is about, is away for a
 * moment, and nobody is told. */
static void memory_that_comes_again_is_used(bool is_packed)
{
	struct guest_world m;
	uint32_t token, len;

	guest_world_open(&m, NULL, is_packed);
	for (uint32_t region = 0; region < 2; region++) {
		CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
		CU_ASSERT_EQUAL(vmm_region(&m.v, VHOST_REM_MEM_REG, region), 0);
		vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, 1, 0, VMM_GUEST + VMM_REGION_BYTES, 4096, false, 0});
		vhost_world_pass(&m.w, NS_PER_S);
		CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
		CU_ASSERT_EQUAL(vmm_region(&m.v, VHOST_ADD_MEM_REG, region), 0);
		CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	}
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	vhost_world_pass(&m.w, 60 * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->broken_rings), 0);
	guest_world_close(&m);
}

static void memory_that_comes_again_is_used_split(void)
{
	memory_that_comes_again_is_used(false);
}
static void memory_that_comes_again_is_used_packed(void)
{
	memory_that_comes_again_is_used(true);
}

/* The ring, or what a request is about, is not there after a while: that is told, once, and it still may come. */
static void memory_that_does_not_come_again_is_missed(void)
{
	struct guest_world m;
	uint32_t token, len;

	for (uint32_t region = 0; region < 2; region++) {
		guest_world_open(&m, NULL, false);
		const counter *n_broken = &vhost_server_counters(m.w.server)->broken_rings;
		CU_ASSERT_EQUAL(vmm_region(&m.v, VHOST_REM_MEM_REG, region), 0);
		vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, 1, 0, VMM_GUEST + VMM_REGION_BYTES, 4096, false, 0});
		vhost_world_pass(&m.w, 4 * NS_PER_S);
		CU_ASSERT_EQUAL(counter_get(n_broken), 0);
		vhost_world_pass(&m.w, 2 * NS_PER_S);
		CU_ASSERT_EQUAL(counter_get(n_broken), 1);
		vhost_world_pass(&m.w, 60 * NS_PER_S);
		CU_ASSERT_EQUAL(counter_get(n_broken), 1);
		CU_ASSERT_EQUAL(vmm_region(&m.v, VHOST_ADD_MEM_REG, region), 0);
		CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
		guest_world_close(&m);
	}
}

/* It was away when the guest's next driver set up its ring, which began when it came: nothing is missing later. */
static void memory_that_comes_to_a_ring_that_waits_is_not_missed(void)
{
	struct guest_world m;
	uint8_t queue[VHOST_VRING_STATE_BYTES] = {0};

	guest_world_open(&m, NULL, false);
	vmm_tell(&m.v, VHOST_GET_VRING_BASE, 0, queue, sizeof(queue), NULL);
	CU_ASSERT_PTR_NOT_NULL(vmm_hear(&m.v, VHOST_GET_VRING_BASE, NULL));
	CU_ASSERT_EQUAL(vmm_region(&m.v, VHOST_REM_MEM_REG, 0), 0);
	CU_ASSERT_EQUAL(vmm_ring(&m.v, 0), 0);
	CU_ASSERT_EQUAL(vmm_region(&m.v, VHOST_ADD_MEM_REG, 0), 0);
	CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 512), BLK_S_OK);
	vhost_world_pass(&m.w, 60 * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->broken_rings), 0);
	CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 512), BLK_S_OK);
	guest_world_close(&m);
}

/* What was in flight for a former connection is taken up when its memory is there. */
static void what_is_taken_up_waits_for_its_memory(bool is_packed)
{
	struct guest_world m;
	uint32_t token, len;

	guest_world_open(&m, NULL, is_packed);
	fake_volume_hold(m.w.vm, true);
	for (uint32_t i = 0; i < 3; i++) {
		uint64_t data = i < 2 ? VMM_DATA : VMM_GUEST + VMM_REGION_BYTES;
		vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, i, 0, data, 512, false, 0});
	}
	vhost_world_pass(&m.w, NS_PER_S);
	lose(&m);
	vmm_reconnect(&m.v, "vm1");
	CU_ASSERT_EQUAL(vmm_features(&m.v, 0), 0);
	CU_ASSERT_EQUAL(vmm_inflight(&m.v), 0);
	CU_ASSERT_EQUAL(vmm_ring(&m.v, vhost_ring_lost_base(&m.v.ring, is_packed ? 0x80008000u : 0)), 0);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->broken_rings), 1);
	CU_ASSERT_EQUAL(vmm_region(&m.v, VHOST_ADD_MEM_REG, 0), 0);
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->broken_rings), 2);
	CU_ASSERT_EQUAL(vmm_region(&m.v, VHOST_ADD_MEM_REG, 1), 0);
	for (uint32_t i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	guest_world_close(&m);
}

static void what_is_taken_up_waits_for_its_memory_split(void)
{
	what_is_taken_up_waits_for_its_memory(false);
}
static void what_is_taken_up_waits_for_its_memory_packed(void)
{
	what_is_taken_up_waits_for_its_memory(true);
}

/* ---- a machine that moves ---- */

/* Changed pages are told from now on, in so many bytes of a log that has 4,096. */
static int log_begin(struct guest_world *m, uint64_t len_bytes)
{
	uint8_t where[VHOST_LOG_BYTES] = {0}, payload[8];
	int log = sim_memory_create(m->w.sim, 4096);

	put_le64(where, len_bytes);
	vmm_tell(&m->v, VHOST_SET_LOG_BASE, 0, where, sizeof(where), &(struct fds){.fd = {log}, .n = 1});
	CU_ASSERT_PTR_NOT_NULL(vmm_hear(&m->v, VHOST_SET_LOG_BASE, NULL));
	put_le64(payload, VHOST_F_LOG_ALL | VHOST_F_PROTOCOL_FEATURES | VIRTIO_F_VERSION_1 | VIRTIO_BLK_F_FLUSH |
			      VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX |
			      (m->v.is_packed ? VIRTIO_F_RING_PACKED : 0));
	CU_ASSERT_EQUAL(vmm_ask(&m->v, VHOST_SET_FEATURES, payload, sizeof(payload), NULL), 0);
	return log;
}

static bool is_logged(struct guest_world *m, int log, uint64_t guest)
{
	const uint8_t *bits = sim_memory_at(m->w.sim, log, NULL);
	uint64_t page = guest / VHOST_LOG_PAGE;

	return bits[page / 8] >> page % 8 & 1;
}

/* What a read brought, and the status and the ring, are in the log of changed pages; what a write took is not. */
static void changed_pages_are_logged(bool is_packed)
{
	struct guest_world m;

	guest_world_open(&m, NULL, is_packed);
	int log = log_begin(&m, 4096);
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_FALSE(is_logged(&m, log, VMM_DATA));
	CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA + 4096, 8192), BLK_S_OK);
	CU_ASSERT_FALSE(is_logged(&m, log, VMM_DATA));
	CU_ASSERT_TRUE(is_logged(&m, log, VMM_DATA + 4096));
	CU_ASSERT_TRUE(is_logged(&m, log, VMM_DATA + 8192));
	CU_ASSERT_FALSE(is_logged(&m, log, VMM_DATA + 12288));
	CU_ASSERT_TRUE(is_logged(&m, log, VMM_GUEST + 0x4000));                   /* the status */
	CU_ASSERT_TRUE(is_logged(&m, log, VMM_GUEST + (is_packed ? 0 : 0x2000))); /* the used ring */
	CU_ASSERT_TRUE(is_logged(&m, log, VMM_GUEST + 0x2000));                   /* which kicks are wanted */
	sim_fd_close(m.w.sim, log);
	guest_world_close(&m);
}

static void changed_pages_are_logged_split(void)
{
	changed_pages_are_logged(false);
}
static void changed_pages_are_logged_packed(void)
{
	changed_pages_are_logged(true);
}

/* Its VMM loses pages of its own guest, and nobody else anything. */
static void a_log_that_is_too_short_is_not_left(void)
{
	struct guest_world m;

	guest_world_open(&m, NULL, false);
	int log = log_begin(&m, 1);
	CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 8192), BLK_S_OK);
	const uint8_t *bytes = sim_memory_at(m.w.sim, log, NULL);
	for (uint32_t i = 1; i < 4096; i++)
		CU_ASSERT_EQUAL(bytes[i], 0);
	sim_fd_close(m.w.sim, log);
	guest_world_close(&m);
}

/* ---- rings ---- */

static void a_ring_is_stopped_when_nothing_is_in_flight(void)
{
	struct guest_world m;
	uint8_t queue[VHOST_VRING_STATE_BYTES] = {0};
	uint32_t token, len;

	guest_world_open(&m, NULL, false);
	fake_volume_hold(m.w.vm, true);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 1, 0, VMM_DATA, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	vmm_tell(&m.v, VHOST_GET_VRING_BASE, 0, queue, sizeof(queue), NULL);
	vhost_world_pass(&m.w, NS_PER_S);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 2, 8, VMM_DATA, 4096, false, 0}); /* comes too late */
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	fake_volume_hold(m.w.vm, false);
	fake_volume_let_go(m.w.vm, 0);
	const uint8_t *reply = vmm_hear(&m.v, VHOST_GET_VRING_BASE, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	CU_ASSERT_EQUAL(get_le32(reply + 4), 1);
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	CU_ASSERT_EQUAL(token, 1);
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	CU_ASSERT_EQUAL(vmm_ring(&m.v, 1), 0); /* goes on where it stood */
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	CU_ASSERT_EQUAL(token, 2);
	guest_world_close(&m);
}

/* Where it stood when its memory was not there is where it was told to begin. */
static void a_ring_that_never_ran_keeps_its_base(void)
{
	struct guest_world m;
	uint8_t queue[VHOST_VRING_STATE_BYTES] = {0};

	vhost_world_start(&m.w, &(struct vhost_world_options){0});
	vmm_connect(&m.w, &m.v, "vm1");
	CU_ASSERT_EQUAL(vmm_features(&m.v, 0), 0);
	CU_ASSERT_EQUAL(vmm_ring(&m.v, 77), 0);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->broken_rings), 1);
	vmm_tell(&m.v, VHOST_GET_VRING_BASE, 0, queue, sizeof(queue), NULL);
	const uint8_t *reply = vmm_hear(&m.v, VHOST_GET_VRING_BASE, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	CU_ASSERT_EQUAL(get_le32(reply + 4), 77);
	guest_world_close(&m);
}

/* The guest's next driver begins anew, with an area that the VMM has kept: what it says of the broken ring is over. */
static void a_ring_that_broke_can_begin_anew(bool is_packed)
{
	struct guest_world m;
	uint8_t queue[VHOST_VRING_STATE_BYTES] = {0};

	guest_world_open(&m, NULL, is_packed);
	CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 512), BLK_S_OK);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, 1, 0, 0x10, 512, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->broken_rings), 1);
	vmm_tell(&m.v, VHOST_GET_VRING_BASE, 0, queue, sizeof(queue), NULL);
	CU_ASSERT_PTR_NOT_NULL(vmm_hear(&m.v, VHOST_GET_VRING_BASE, NULL));
	vmm_ring_init(&m.v, is_packed);
	CU_ASSERT_EQUAL(vmm_ring(&m.v, is_packed ? 0x80008000u : 0), 0);
	CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 512), BLK_S_OK);
	guest_world_close(&m);
}

static void a_split_ring_that_broke_can_begin_anew(void)
{
	a_ring_that_broke_can_begin_anew(false);
}
static void a_packed_ring_that_broke_can_begin_anew(void)
{
	a_ring_that_broke_can_begin_anew(true);
}

/* The device is as it was when the client came, and its next driver may want another kind of ring. */
static void a_reset_waits_for_requests_in_flight(void)
{
	struct guest_world m;
	uint32_t token, len;

	guest_world_open(&m, NULL, false);
	CU_ASSERT_EQUAL(vmm_set_cache(&m.v, false), 0);
	fake_volume_hold(m.w.vm, true);
	vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, 1, 0, VMM_DATA, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	vmm_tell(&m.v, VHOST_RESET_DEVICE, VHOST_FLAG_NEED_ACK, NULL, 0, NULL);
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(fake_volume_n_held(m.w.vm), 1);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	fake_volume_hold(m.w.vm, false);
	fake_volume_let_go(m.w.vm, 0);
	CU_ASSERT_EQUAL(vmm_answer(&m.v, VHOST_RESET_DEVICE), 0);
	CU_ASSERT_TRUE(vhost_ring_take(&m.v.ring, &token, &len));
	vmm_request(&m.v,
		    &(struct vmm_request){BLK_T_OUT, 2, 8, VMM_DATA, 4096, false, 0}); /* to a device that is off */
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(fake_volume_counts(m.w.vm).ops[VOLUME_WRITE], 1);
	CU_ASSERT_EQUAL_FATAL(vmm_start(&m.v, true), 0);
	uint32_t n_fua = fake_volume_counts(m.w.vm).n_fua;
	CU_ASSERT_EQUAL(vmm_write(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(fake_volume_counts(m.w.vm).n_fua, n_fua); /* the cache is on again */
	guest_world_close(&m);
}

#define TURN_REQUESTS 64u /* VHOST_TAKE_MAX, whose header does not go with the VMM's */

/* It takes so many in one turn and looks again in the next. Finding nothing then, it has to ask for kicks. */
static void a_turn_full_of_requests_is_followed_by_kicks(bool is_packed)
{
	struct guest_world m;
	uint32_t token, len;

	guest_world_open(&m, NULL, is_packed);
	for (uint32_t n = TURN_REQUESTS - 1; n <= TURN_REQUESTS + 1; n++) {
		for (uint32_t i = 0; i < n; i++)
			vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, i, 0, VMM_DATA, 4096, false, 0});
		for (uint32_t i = 0; i < n; i++)
			CU_ASSERT_EQUAL_FATAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
		vhost_world_pass(&m.w, NS_PER_S);
		CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	}
	guest_world_close(&m);
}

static void a_split_ring_asks_for_kicks_after_a_full_turn(void)
{
	a_turn_full_of_requests_is_followed_by_kicks(false);
}

static void a_packed_ring_asks_for_kicks_after_a_full_turn(void)
{
	a_turn_full_of_requests_is_followed_by_kicks(true);
}

/* A MiB of what is written in one turn, and the rest in the next ones, though nothing is completed meanwhile. */
static void a_turn_full_of_data_is_followed_by_another(void)
{
	struct guest_world m;
	uint32_t token, len;

	guest_world_open(&m, NULL, false);
	for (uint32_t n = 1; n <= 7; n++) {
		fake_volume_hold(m.w.vm, true);
		for (uint32_t i = 0; i < n; i++)
			vmm_request(&m.v, &(struct vmm_request){BLK_T_OUT, i, 1024 * i, VMM_DATA, 512 * KIB, false, 0});
		vhost_world_pass(&m.w, NS_PER_S);
		CU_ASSERT_EQUAL(fake_volume_n_held(m.w.vm), n);
		fake_volume_hold(m.w.vm, false);
		while (fake_volume_n_held(m.w.vm) > 0)
			fake_volume_let_go(m.w.vm, 0);
		for (uint32_t i = 0; i < n; i++)
			CU_ASSERT_EQUAL_FATAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
		CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 4096), BLK_S_OK);
	}
	guest_world_close(&m);
}

static void a_polled_ring_is_served_without_kicks(void)
{
	struct guest_world m;
	uint32_t token, len;

	guest_world_open(&m, &(struct vhost_world_options){.poll_us = 50}, false);
	for (uint32_t i = 0; i < 20; i++) {
		vmm_request(&m.v, &(struct vmm_request){BLK_T_IN, i, 0, VMM_DATA, 4096, false, 0});
		CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	}
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(sim_run(m.w.sim, NULL, NULL, 10000), SIM_IDLE); /* it does not look for ever */
	guest_world_close(&m);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
#define T(name) {#name, name}
	    T(requests_in_flight_are_taken_up_split),
	    T(requests_in_flight_are_taken_up_packed),
	    T(a_ring_stops_when_all_is_taken_up_split),
	    T(a_ring_stops_when_all_is_taken_up_packed),
	    T(a_detached_volume_leaves_requests_in_flight),
	    T(memory_that_is_cut_off_ends_the_connection),
	    T(memory_goes_when_nothing_is_in_flight),
	    T(memory_that_comes_again_is_used_split),
	    T(memory_that_comes_again_is_used_packed),
	    T(memory_that_does_not_come_again_is_missed),
	    T(memory_that_comes_to_a_ring_that_waits_is_not_missed),
	    T(what_is_taken_up_waits_for_its_memory_split),
	    T(what_is_taken_up_waits_for_its_memory_packed),
	    T(changed_pages_are_logged_split),
	    T(changed_pages_are_logged_packed),
	    T(a_log_that_is_too_short_is_not_left),
	    T(a_ring_is_stopped_when_nothing_is_in_flight),
	    T(a_ring_that_never_ran_keeps_its_base),
	    T(a_split_ring_that_broke_can_begin_anew),
	    T(a_packed_ring_that_broke_can_begin_anew),
	    T(a_reset_waits_for_requests_in_flight),
	    T(a_split_ring_asks_for_kicks_after_a_full_turn),
	    T(a_packed_ring_asks_for_kicks_after_a_full_turn),
	    T(a_turn_full_of_data_is_followed_by_another),
	    T(a_polled_ring_is_served_without_kicks),
	};

	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("vhost-user queues", NULL, NULL);
	for (size_t i = 0; i < array_size(tests); i++)
		CU_add_test(suite, tests[i].name, tests[i].run);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
