/*
 * test_vhost_server.c: the clients of one volume: which of them is served, how many there may be, who has to go.
 */
#include "tests/unit/vhost_world.h"

#include <CUnit/Basic.h>
#include <string.h>

static const struct vmm_request read_request = {BLK_T_IN, 1, 0, VMM_DATA, 4096, false, 0};

static uint32_t n_events(const struct vhost_world *w, const char *code)
{
	struct log_event_view events[64];
	size_t n = log_events(w->log, 0, events, array_size(events));
	uint32_t n_found = 0;

	for (size_t i = 0; i < n; i++)
		n_found += strcmp(events[i].code, code) == 0;
	return n_found;
}

/* ---- whose rings are served ---- */

static void one_client_runs_at_a_time(void)
{
	struct guest_world m;
	struct vmm other;
	uint32_t token, len;

	guest_world_open(&m, NULL, false);
	vmm_connect(&m.w, &other, "vm1");
	CU_ASSERT_EQUAL(vmm_start(&other, false), 0);
	vmm_request(&other, &(struct vmm_request){BLK_T_IN, 1, 0, VMM_DATA, 4096, false, 0});
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&other.ring, &token, &len));
	CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 512), BLK_S_OK);
	vmm_drop(&m.v);
	CU_ASSERT_EQUAL(vmm_completion(&other, &token, &len), BLK_S_OK);
	vmm_close(&other);
	guest_world_close(&m);
}

static void ring_stop(struct vmm *v)
{
	uint8_t queue[VHOST_VRING_STATE_BYTES] = {0};

	vmm_tell(v, VHOST_GET_VRING_BASE, 0, queue, sizeof(queue), NULL);
	CU_ASSERT_PTR_NOT_NULL(vmm_hear(v, VHOST_GET_VRING_BASE, NULL));
}

/* QEMU stops the rings of a guest that reboots or is paused, newer ones reset the device as well; firmware takes its time
 * then. A second machine on the same disk waits all the while. */
static void a_guest_that_reboots_keeps_its_volume(void)
{
	struct guest_world m;
	struct vmm other;
	uint32_t token, len;

	guest_world_open(&m, NULL, false);
	vmm_connect(&m.w, &other, "vm1");
	CU_ASSERT_EQUAL(vmm_start(&other, false), 0);
	vmm_request(&other, &read_request);
	for (uint32_t with_reset = 0; with_reset < 2; with_reset++) {
		ring_stop(&m.v);
		if (with_reset)
			CU_ASSERT_EQUAL(vmm_ask(&m.v, VHOST_RESET_DEVICE, NULL, 0, NULL), 0);
		vhost_world_pass(&m.w, 60 * NS_PER_S);
		CU_ASSERT_FALSE(vhost_ring_take(&other.ring, &token, &len));
		CU_ASSERT_EQUAL_FATAL(vmm_start(&m.v, false), 0);
		CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 512), BLK_S_OK);
	}
	CU_ASSERT_EQUAL(n_events(&m.w, "vhost-client-waits"), 1);
	ring_stop(&m.v); /* and its VMM ends */
	vmm_drop(&m.v);
	CU_ASSERT_EQUAL(vmm_completion(&other, &token, &len), BLK_S_OK);
	vmm_close(&other);
	guest_world_close(&m);
}

/* The source of a migration stays connected until it is told to end, and may have to go on if the destination cannot. */
static void a_guest_that_moves_leaves_its_volume(void)
{
	struct guest_world m;
	struct vmm other;
	uint32_t token, len;

	guest_world_open(&m, NULL, false);
	vmm_connect(&m.w, &other, "vm1");
	uint64_t features = VHOST_F_LOG_ALL | VHOST_F_PROTOCOL_FEATURES | VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX;
	CU_ASSERT_EQUAL(vmm_ask_number(&m.v, VHOST_SET_FEATURES, features), 0);
	ring_stop(&m.v);
	CU_ASSERT_EQUAL(vmm_start(&other, false), 0);
	CU_ASSERT_EQUAL(vmm_do(&other, &read_request), BLK_S_OK);
	CU_ASSERT_EQUAL(n_events(&m.w, "vhost-client-waits"), 0);
	CU_ASSERT_EQUAL_FATAL(vmm_start(&m.v, false), 0); /* too early */
	vmm_request(&m.v, &read_request);
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_FALSE(vhost_ring_take(&m.v.ring, &token, &len));
	vmm_close(&other);
	CU_ASSERT_EQUAL(vmm_completion(&m.v, &token, &len), BLK_S_OK);
	guest_world_close(&m);
}

/* ---- places ---- */

static void clients_beyond_the_limit_are_refused(void)
{
	struct vhost_world w;
	struct vmm clients[5];

	vhost_world_start(&w, &(struct vhost_world_options){0});
	for (size_t i = 0; i < array_size(clients); i++) {
		vmm_connect(&w, &clients[i], "vm1");
		CU_ASSERT_EQUAL(vmm_features(&clients[i], 0), i < 4 ? 0 : -1);
	}
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(w.server)->refused), 1);
	CU_ASSERT_EQUAL(vmm_start(&clients[0], false), 0);
	for (size_t i = 0; i < array_size(clients); i++)
		vmm_close(&clients[i]);
	vhost_world_end(&w);
}

/* Of those that have sent nothing whole the one that came first has to go; who has spoken stays. */
static void who_says_nothing_gives_up_its_place(void)
{
	static const uint8_t half[] = {VHOST_GET_FEATURES, 0, 0, 0, VHOST_VERSION};
	struct vhost_world w;
	struct vmm clients[6];

	vhost_world_start(&w, &(struct vhost_world_options){0});
	for (size_t i = 0; i < 4; i++)
		vmm_connect(&w, &clients[i], "vm1");
	CU_ASSERT_EQUAL(vmm_features(&clients[0], 0), 0);
	vmm_send(&clients[1], half, sizeof(half), NULL);
	for (size_t i = 4; i < array_size(clients); i++) {
		vmm_connect(&w, &clients[i], "vm1");
		CU_ASSERT_EQUAL(vmm_features(&clients[i], 0), 0);
	}
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(w.server)->failed), 2);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(w.server)->n_connections), 4);
	CU_ASSERT_EQUAL(vmm_features(&clients[0], 0), 0);
	CU_ASSERT_EQUAL(vmm_features(&clients[1], 0), -1);
	CU_ASSERT_EQUAL(vmm_features(&clients[2], 0), -1);
	CU_ASSERT_EQUAL(vmm_features(&clients[3], 0), 0);
	for (size_t i = 0; i < array_size(clients); i++)
		vmm_close(&clients[i]);
	vhost_world_end(&w);
}

/* ---- messages that take long ---- */

static uint32_t n_connections(const struct vhost_world *w)
{
	return (uint32_t)counter_get(&vhost_server_counters(w->server)->n_connections);
}

/* Its first byte, a part of its header, the header, a part of what follows. */
static void half_a_message_has_a_limit(void)
{
	static const uint32_t lengths[] = {1, VHOST_HEADER_BYTES - 1, VHOST_HEADER_BYTES, VHOST_HEADER_BYTES + 7};
	uint8_t message[VHOST_HEADER_BYTES + 8] = {VHOST_SET_FEATURES, 0, 0, 0, VHOST_VERSION, 0, 0, 0, 8};
	struct vhost_world w;
	struct vmm v;

	vhost_world_start(&w, &(struct vhost_world_options){0});
	for (uint32_t i = 0; i < array_size(lengths); i++) {
		vmm_connect(&w, &v, "vm1");
		vhost_world_pass(&w, 3600 * NS_PER_S); /* nothing at all is not half of anything */
		vmm_send(&v, message, lengths[i], NULL);
		vhost_world_pass(&w, 9 * NS_PER_S);
		CU_ASSERT_EQUAL(n_connections(&w), 1);
		vhost_world_pass(&w, 2 * NS_PER_S);
		CU_ASSERT_EQUAL(n_connections(&w), 0);
		CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(w.server)->failed), i + 1);
		vmm_close(&v);
	}
	vhost_world_end(&w);
}

static void a_message_may_come_in_parts(void)
{
	uint8_t message[VHOST_HEADER_BYTES] = {VHOST_GET_FEATURES, 0, 0, 0, VHOST_VERSION};
	struct vhost_world w;
	struct vmm v;

	vhost_world_start(&w, &(struct vhost_world_options){0});
	vmm_connect(&w, &v, "vm1");
	for (uint32_t i = 0; i < 3; i++) {
		vmm_send(&v, message, 5, NULL);
		vhost_world_pass(&w, 9 * NS_PER_S);
		vmm_send(&v, message + 5, sizeof(message) - 5, NULL);
		CU_ASSERT_PTR_NOT_NULL(vmm_hear(&v, VHOST_GET_FEATURES, NULL));
		vhost_world_pass(&w, 3600 * NS_PER_S);
		CU_ASSERT_EQUAL(n_connections(&w), 1);
	}
	vmm_close(&v);
	vhost_world_end(&w);
}

static void half_a_message_does_not_take_a_guest_its_disk(void)
{
	static const uint8_t message[VHOST_HEADER_BYTES] = {VHOST_GET_FEATURES, 0, 0, 0, VHOST_VERSION};
	struct guest_world m;

	guest_world_open(&m, NULL, false);
	vmm_send(&m.v, message, 5, NULL);
	for (uint32_t i = 0; i < 3; i++) {
		vhost_world_pass(&m.w, 15 * NS_PER_S);
		CU_ASSERT_EQUAL(vmm_read(&m.v, 0, VMM_DATA, 512), BLK_S_OK);
	}
	vmm_send(&m.v, message + 5, sizeof(message) - 5, NULL);
	CU_ASSERT_PTR_NOT_NULL(vmm_hear(&m.v, VHOST_GET_FEATURES, NULL));
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->failed), 0);
	guest_world_close(&m);
}

/* ---- telling ---- */

static void clients_that_come_and_go_are_told_of(void)
{
	struct guest_world m;
	struct log_event_view events[8];

	guest_world_open(&m, NULL, false);
	vmm_drop(&m.v);
	vhost_world_pass(&m.w, NS_PER_S);
	size_t n = log_events(m.w.log, 0, events, array_size(events));
	CU_ASSERT_EQUAL_FATAL(n, 2);
	CU_ASSERT_STRING_EQUAL(events[0].code, "vhost-client-connected");
	CU_ASSERT_STRING_EQUAL(events[0].object, "vm1");
	CU_ASSERT_STRING_EQUAL(events[1].code, "vhost-client-disconnected");
	guest_world_close(&m);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
#define T(name) {#name, name}
	    T(one_client_runs_at_a_time),
	    T(a_guest_that_reboots_keeps_its_volume),
	    T(a_guest_that_moves_leaves_its_volume),
	    T(clients_beyond_the_limit_are_refused),
	    T(who_says_nothing_gives_up_its_place),
	    T(half_a_message_has_a_limit),
	    T(a_message_may_come_in_parts),
	    T(half_a_message_does_not_take_a_guest_its_disk),
	    T(clients_that_come_and_go_are_told_of),
	};

	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("vhost-user server", NULL, NULL);
	for (size_t i = 0; i < array_size(tests); i++)
		CU_add_test(suite, tests[i].name, tests[i].run);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
