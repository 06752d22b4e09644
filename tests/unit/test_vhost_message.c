/*
 * test_vhost_message.c: every message of vhost-user, right and wrong, as a VMM sends it.
 */
#include "tests/unit/vhost_world.h"

#include <CUnit/Basic.h>
#include <string.h>

struct message_world {
	struct vhost_world w;
	struct vmm v;
};

static void world_open(struct message_world *m)
{
	vhost_world_start(&m->w, &(struct vhost_world_options){0});
	vmm_connect(&m->w, &m->v, "vm1");
}

/* With the acknowledgements that most tests ask for. */
static void world_open_agreed(struct message_world *m)
{
	world_open(m);
	CU_ASSERT_EQUAL(vmm_features(&m->v, 0), 0);
}

static void world_close(struct message_world *m)
{
	vmm_close(&m->v);
	vhost_world_end(&m->w);
}

/* A refused message of a client without acknowledgements ends the connection, and is told in an event. */
static void expect_end(struct message_world *m)
{
	CU_ASSERT_TRUE(vmm_is_ended(&m->v));
	CU_ASSERT_EQUAL(vhost_server_counters(m->w.server)->failed, 1);
	world_close(m);
}

/* ---- frames ---- */

static void another_version_ends_the_connection(void)
{
	struct message_world m;
	uint8_t header[VHOST_HEADER_BYTES] = {VHOST_GET_FEATURES, 0, 0, 0, 2};

	world_open(&m);
	vmm_send(&m.v, header, sizeof(header), NULL);
	expect_end(&m);
}

static void a_payload_that_is_too_long_ends_the_connection(void)
{
	struct message_world m;
	uint8_t header[VHOST_HEADER_BYTES] = {VHOST_GET_FEATURES, 0, 0, 0, VHOST_VERSION};

	world_open(&m);
	put_le32(header + 8, VHOST_PAYLOAD_MAX + 1);
	vmm_send(&m.v, header, sizeof(header), NULL);
	expect_end(&m);
}

static void a_reply_to_nothing_ends_the_connection(void)
{
	struct message_world m;

	world_open(&m);
	vmm_tell(&m.v, VHOST_GET_FEATURES, VHOST_FLAG_REPLY, NULL, 0, NULL);
	expect_end(&m);
}

static void an_unknown_message_is_refused(void)
{
	struct message_world m;

	world_open_agreed(&m);
	CU_ASSERT_EQUAL(vmm_ask(&m.v, 39, NULL, 0, NULL), 1);
	CU_ASSERT_EQUAL(vmm_ask(&m.v, 0xffffffff, NULL, 0, NULL), 1);
	vmm_tell(&m.v, 39, 0, NULL, 0, NULL); /* nobody would hear of it */
	expect_end(&m);
}

static void a_message_that_is_too_short_is_refused(void)
{
	static const uint32_t kinds[] = {VHOST_SET_FEATURES,   VHOST_SET_MEM_TABLE,  VHOST_SET_LOG_BASE,
					 VHOST_SET_VRING_NUM,  VHOST_SET_VRING_ADDR, VHOST_SET_VRING_KICK,
					 VHOST_GET_CONFIG,     VHOST_SET_CONFIG,     VHOST_SET_INFLIGHT_FD,
					 VHOST_ADD_MEM_REG,    VHOST_REM_MEM_REG,    VHOST_GET_INFLIGHT_FD,
					 VHOST_GET_VRING_BASE, VHOST_SET_VRING_BASE};
	struct message_world m;
	uint8_t zeros[7] = {0};

	world_open_agreed(&m);
	for (size_t i = 0; i < array_size(kinds); i++)
		CU_ASSERT_EQUAL(vmm_ask(&m.v, kinds[i], zeros, sizeof(zeros), NULL), 1);
	world_close(&m);
}

static void descriptors_that_nobody_wants_are_closed(void)
{
	struct message_world m;

	world_open_agreed(&m);
	struct fds fds = {.fd = {m.v.kick, m.v.call, m.v.memory[0]}, .n = 3};
	CU_ASSERT_EQUAL(vmm_ask(&m.v, VHOST_SET_OWNER, NULL, 0, &fds), 0);
	CU_ASSERT_EQUAL(vmm_ask(&m.v, VHOST_SET_VRING_KICK, "\0\0\0\0\0\0\0", 8, &fds), 1);
	CU_ASSERT_EQUAL(vmm_ask(&m.v, VHOST_SET_BACKEND_REQ_FD, NULL, 0, &fds), 1);
	world_close(&m); /* counts them */
}

/* They are sent by nobody who means well. */
static void descriptors_that_do_not_close_end_the_connection(void)
{
	static const uint32_t kinds[] = {VHOST_SET_OWNER, VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL,
					 VHOST_SET_BACKEND_REQ_FD, VHOST_SET_MEM_TABLE};
	struct message_world m;

	world_open_agreed(&m);
	int slow = sim_slow_create(m.w.sim);
	struct fds fds = {.fd = {slow}, .n = 1};
	for (size_t i = 0; i < array_size(kinds); i++) {
		uint8_t payload[VHOST_TABLE_HEAD_BYTES + VHOST_REGION_BYTES] = {kinds[i] == VHOST_SET_MEM_TABLE};
		CU_ASSERT_EQUAL(vmm_ask(&m.v, kinds[i], payload, sizeof(payload), &fds), i > 0);
		CU_ASSERT_TRUE(vmm_is_ended(&m.v));
		CU_ASSERT_EQUAL(vhost_server_counters(m.w.server)->failed, i + 1);
		CU_ASSERT_EQUAL(reactor_fds_held(m.w.reactor), i + 1);
		vmm_drop(&m.v);
		vmm_reconnect(&m.v, "vm1");
		CU_ASSERT_EQUAL(vmm_features(&m.v, 0), 0);
	}
	sim_fd_close(m.w.sim, slow);
	world_close(&m);
}

/* Who comes again and again with more of them is not let in before they are closed; others are. */
static void descriptors_that_do_not_close_are_bounded(void)
{
	struct message_world m;
	struct vmm other;
	struct fds fds = {.n = FDS_MAX};

	world_open_agreed(&m);
	for (uint32_t i = 0; i < fds.n; i++)
		fds.fd[i] = sim_slow_create(m.w.sim);
	for (uint32_t n = FDS_MAX; n <= 72; n += FDS_MAX) {
		CU_ASSERT_EQUAL(vmm_features(&m.v, 0), 0);
		CU_ASSERT_EQUAL(vmm_ask(&m.v, VHOST_SET_OWNER, NULL, 0, &fds), 0);
		CU_ASSERT_TRUE(vmm_is_ended(&m.v));
		CU_ASSERT_EQUAL(reactor_fds_held(m.w.reactor), n);
		vmm_drop(&m.v);
		vmm_reconnect(&m.v, "vm1");
	}
	CU_ASSERT_TRUE(vmm_is_ended(&m.v));
	vmm_connect(&m.w, &other, WORLD_SNAPSHOT);
	CU_ASSERT_EQUAL(vmm_features(&other, 0), 0);
	vmm_drop(&m.v);
	sim_slow_end(m.w.sim);
	vmm_reconnect(&m.v, "vm1");
	CU_ASSERT_EQUAL(vmm_features(&m.v, 0), 0);
	for (uint32_t i = 0; i < fds.n; i++)
		sim_fd_close(m.w.sim, fds.fd[i]);
	vmm_close(&other);
	world_close(&m);
}

/* Whatever it is, and whether it makes sense: who wants an acknowledgement gets an answer. */
static void every_message_is_answered(void)
{
	struct message_world m;
	uint8_t payload[64] = {0};

	world_open_agreed(&m);
	for (uint32_t kind = VHOST_GET_FEATURES; kind <= VHOST_REM_MEM_REG; kind++) {
		bool is_question = kind == VHOST_GET_INFLIGHT_FD; /* which has a length of its own */
		put_le64(payload, kind == VHOST_SET_PROTOCOL_FEATURES ? VHOST_PROTOCOL_FEATURES : 0);
		vmm_tell(&m.v, kind, VHOST_FLAG_NEED_ACK, payload, is_question ? VHOST_INFLIGHT_BYTES : sizeof(payload),
			 NULL);
		CU_ASSERT_PTR_NOT_NULL(vmm_hear(&m.v, kind, NULL));
	}
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->failed), 0);
	world_close(&m);
}

/* ---- features ---- */

static void features_that_are_not_offered_are_refused(void)
{
	struct message_world m;

	world_open_agreed(&m);
	CU_ASSERT_EQUAL(vmm_ask_number(&m.v, VHOST_SET_FEATURES, 1ull << 63), 1);
	CU_ASSERT_EQUAL(vmm_ask_number(&m.v, VHOST_SET_PROTOCOL_FEATURES, 1ull << 40), 1);
	world_close(&m);
}

static uint64_t asked(struct vmm *v, uint32_t kind)
{
	vmm_tell(v, kind, 0, NULL, 0, NULL);
	const uint8_t *reply = vmm_hear(v, kind, NULL);
	return reply ? get_le64(reply) : 0;
}

static void only_a_read_only_volume_says_so(void)
{
	struct message_world m;
	struct vmm other;

	world_open(&m);
	vmm_connect(&m.w, &other, WORLD_SNAPSHOT);
	CU_ASSERT_FALSE(asked(&m.v, VHOST_GET_FEATURES) & VIRTIO_BLK_F_RO);
	CU_ASSERT_TRUE(asked(&other, VHOST_GET_FEATURES) & VIRTIO_BLK_F_RO);
	CU_ASSERT_FALSE(asked(&other, VHOST_GET_FEATURES) & (VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES));
	CU_ASSERT_EQUAL(asked(&m.v, VHOST_GET_PROTOCOL_FEATURES), VHOST_PROTOCOL_FEATURES);
	CU_ASSERT_EQUAL(asked(&m.v, VHOST_GET_QUEUE_NUM), 4);
	CU_ASSERT_EQUAL(asked(&m.v, VHOST_GET_MAX_MEM_SLOTS), VHOST_REGIONS_MAX);
	vmm_close(&other);
	world_close(&m);
}

/* ---- rings ---- */

static void a_ring_of_a_wrong_size_or_number_is_refused(void)
{
	struct message_world m;

	world_open_agreed(&m);
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_NUM, 0, 0), 1);
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_NUM, 0, 24), 1); /* a split one is a power of two */
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_NUM, 0, 2 * VRING_SIZE_MAX), 1);
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_NUM, 0, 65535), 1);
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_NUM, 0, UINT32_MAX), 1);
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_NUM, 4, 16), 1);
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_BASE, 4, 16), 1);
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_ENABLE, 0, 2), 1);
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_NUM, 3, 16), 0);
	world_close(&m);
}

static void a_ring_that_runs_is_not_changed(void)
{
	struct message_world m;

	world_open(&m);
	CU_ASSERT_EQUAL_FATAL(vmm_start(&m.v, false), 0);
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_NUM, 0, 8), 1);
	CU_ASSERT_EQUAL(vmm_ask_queue(&m.v, VHOST_SET_VRING_BASE, 0, 8), 1);
	CU_ASSERT_EQUAL(vmm_inflight(&m.v), 1);
	world_close(&m);
}

/* Features may be set anew while rings run (a log is begun so). A packed ring has smaller parts than a split one. */
static void a_ring_that_runs_keeps_its_kind(void)
{
	struct message_world m;
	uint8_t where[VHOST_VRING_ADDR_BYTES] = {0};

	world_open(&m);
	CU_ASSERT_EQUAL_FATAL(vmm_start(&m.v, false), 0);
	uint64_t features = asked(&m.v, VHOST_GET_FEATURES);
	CU_ASSERT_TRUE((features & VIRTIO_F_RING_PACKED) != 0);
	CU_ASSERT_EQUAL(vmm_ask_number(&m.v, VHOST_SET_FEATURES, features), 0);
	put_le64(where + 8, VMM_USER);
	put_le64(where + 16, VMM_USER + VMM_REGION_BYTES - VRING_EVENT_BYTES);
	put_le64(where + 24, VMM_USER + VMM_REGION_BYTES - VRING_EVENT_BYTES);
	CU_ASSERT_EQUAL(vmm_ask(&m.v, VHOST_SET_VRING_ADDR, where, sizeof(where), NULL), 0);
	CU_ASSERT_EQUAL(counter_get(&vhost_server_counters(m.w.server)->broken_rings), 1);
	sim_counter_signal(m.w.sim, m.v.kick);
	world_close(&m);
}

static void a_ring_without_a_kick_is_refused(void)
{
	struct message_world m;

	world_open_agreed(&m);
	CU_ASSERT_EQUAL(vmm_ask_number(&m.v, VHOST_SET_VRING_KICK, VHOST_VRING_NO_FD), 1);
	CU_ASSERT_EQUAL(vmm_ask_number(&m.v, VHOST_SET_VRING_CALL, VHOST_VRING_NO_FD), 0);
	world_close(&m);
}

/* ---- memory ---- */

static int table_of(struct vmm *v, uint64_t guest, uint64_t len_bytes, uint64_t user, uint64_t file_pos)
{
	uint8_t table[VHOST_TABLE_HEAD_BYTES + VHOST_REGION_BYTES] = {1};

	put_le64(table + 8, guest);
	put_le64(table + 16, len_bytes);
	put_le64(table + 24, user);
	put_le64(table + 32, file_pos);
	return vmm_ask(v, VHOST_SET_MEM_TABLE, table, sizeof(table), &(struct fds){.fd = {v->memory[0]}, .n = 1});
}

static void memory_in_a_file_is_refused(void)
{
	for (int is_allowed = 0; is_allowed <= 1; is_allowed++) {
		struct message_world m;

		vhost_world_start(&m.w, &(struct vhost_world_options){.file_memory = is_allowed});
		vmm_connect(&m.w, &m.v, "vm1");
		CU_ASSERT_EQUAL(vmm_features(&m.v, 0), 0);
		sim_memory_set_file(m.w.sim, m.v.memory[0], true);
		CU_ASSERT_EQUAL(table_of(&m.v, 4096, 8192, 1 << 20, 0), !is_allowed);
		sim_memory_set_file(m.w.sim, m.v.memory[0], false);
		CU_ASSERT_EQUAL(table_of(&m.v, 4096, 8192, 1 << 20, 0), 0);
		world_close(&m);
	}
}

static void memory_that_is_not_there_is_refused(void)
{
	struct message_world m;

	world_open_agreed(&m);
	CU_ASSERT_EQUAL(table_of(&m.v, 4096, 8192, 1 << 20, 0), 0);
	CU_ASSERT_EQUAL(table_of(&m.v, 4096, 2 * VMM_REGION_BYTES, 1 << 20, 0), 1); /* longer than its file */
	CU_ASSERT_EQUAL(table_of(&m.v, 4096, 8192, 1 << 20, VMM_REGION_BYTES - 4096), 1);
	CU_ASSERT_EQUAL(table_of(&m.v, UINT64_MAX - 4096, 8192, 1 << 20, 0), 1);
	CU_ASSERT_EQUAL(table_of(&m.v, 4096, 8192, UINT64_MAX - 4096, 0), 1);
	CU_ASSERT_EQUAL(table_of(&m.v, 4096, 8192, 1 << 20, UINT64_MAX - 4096), 1);
	CU_ASSERT_EQUAL(table_of(&m.v, 4096, 0, 1 << 20, 0), 1);
	world_close(&m);
}

static int region_ask(struct vmm *v, uint32_t kind, uint64_t guest, uint32_t n_fds)
{
	uint8_t payload[VHOST_ONE_REGION_BYTES] = {0};
	struct fds fds = {.fd = {v->memory[0], v->memory[1]}, .n = n_fds};

	put_le64(payload + 8, guest);
	put_le64(payload + 16, 65536);
	put_le64(payload + 24, guest + VMM_USER);
	return vmm_ask(v, kind, payload, sizeof(payload), &fds);
}

static void regions_come_and_go(void)
{
	struct message_world m;

	world_open_agreed(&m);
	for (uint32_t i = 0; i < VHOST_REGIONS_MAX; i++)
		CU_ASSERT_EQUAL(region_ask(&m.v, VHOST_ADD_MEM_REG, i * 65536, 1), 0);
	CU_ASSERT_EQUAL(region_ask(&m.v, VHOST_ADD_MEM_REG, VHOST_REGIONS_MAX * 65536, 1), 1); /* no slot is left */
	CU_ASSERT_EQUAL(region_ask(&m.v, VHOST_ADD_MEM_REG, 0, 1), 1);                         /* it overlaps */
	CU_ASSERT_EQUAL(region_ask(&m.v, VHOST_REM_MEM_REG, 65536, 0), 0);
	CU_ASSERT_EQUAL(region_ask(&m.v, VHOST_REM_MEM_REG, 65536, 0), 1);
	CU_ASSERT_EQUAL(region_ask(&m.v, VHOST_ADD_MEM_REG, 65536, 2), 1); /* which of the two? */
	CU_ASSERT_EQUAL(region_ask(&m.v, VHOST_ADD_MEM_REG, 65536, 1), 0);
	world_close(&m);
}

/* ---- configuration ---- */

static const uint8_t *config_ask(struct vmm *v, uint32_t offset, uint32_t len, uint32_t *len_bytes)
{
	uint8_t payload[VHOST_CONFIG_HEAD_BYTES] = {0};

	put_le32(payload, offset);
	put_le32(payload + 4, len);
	vmm_tell(v, VHOST_GET_CONFIG, 0, payload, sizeof(payload), NULL);
	return vmm_hear(v, VHOST_GET_CONFIG, len_bytes);
}

static void the_configuration_tells_the_size(void)
{
	struct message_world m;
	uint32_t len;

	world_open_agreed(&m);
	const uint8_t *config = config_ask(&m.v, 0, BLK_CONFIG_BYTES, &len) + VHOST_CONFIG_HEAD_BYTES;
	CU_ASSERT_EQUAL(len, VHOST_CONFIG_HEAD_BYTES + BLK_CONFIG_BYTES);
	CU_ASSERT_EQUAL(get_le64(config + BLK_CONFIG_CAPACITY), WORLD_VOLUME_BYTES / 512);
	CU_ASSERT_EQUAL(get_le32(config + BLK_CONFIG_BLK_SIZE), 512);
	CU_ASSERT_EQUAL(config[BLK_CONFIG_WCE], 1);
	CU_ASSERT_EQUAL(get_le16(config + BLK_CONFIG_NUM_QUEUES), 4);
	fake_volume_resize(m.w.vm, WORLD_VOLUME_BYTES / 2);
	config = config_ask(&m.v, 0, 8, &len) + VHOST_CONFIG_HEAD_BYTES;
	CU_ASSERT_EQUAL(get_le64(config), WORLD_VOLUME_BYTES / 1024);
	world_close(&m);
}

static void a_part_of_the_configuration_that_is_not_there_has_no_bytes(void)
{
	struct message_world m;
	uint32_t len;

	world_open_agreed(&m);
	CU_ASSERT_PTR_NOT_NULL(config_ask(&m.v, 0, VHOST_CONFIG_BYTES_MAX, &len));
	CU_ASSERT_EQUAL(len, VHOST_CONFIG_HEAD_BYTES + VHOST_CONFIG_BYTES_MAX);
	CU_ASSERT_PTR_NOT_NULL(config_ask(&m.v, 1, VHOST_CONFIG_BYTES_MAX, &len));
	CU_ASSERT_EQUAL(len, 0);
	CU_ASSERT_PTR_NOT_NULL(config_ask(&m.v, UINT32_MAX, 60, &len));
	CU_ASSERT_EQUAL(len, 0);
	CU_ASSERT_PTR_NOT_NULL(config_ask(&m.v, 50, UINT32_MAX, &len));
	CU_ASSERT_EQUAL(len, 0);
	world_close(&m);
}

static int config_set(struct vmm *v, uint32_t offset, uint32_t len, const uint8_t *bytes)
{
	uint8_t payload[VHOST_CONFIG_HEAD_BYTES + VHOST_CONFIG_BYTES_MAX] = {0};

	put_le32(payload, offset);
	put_le32(payload + 4, len);
	memcpy(payload + VHOST_CONFIG_HEAD_BYTES, bytes, min_u64(len, VHOST_CONFIG_BYTES_MAX));
	return vmm_ask(v, VHOST_SET_CONFIG, payload, VHOST_CONFIG_HEAD_BYTES + (uint32_t)min_u64(len, 60), NULL);
}

static void only_the_write_cache_can_be_set(void)
{
	struct message_world m;
	uint8_t config[VHOST_CONFIG_BYTES_MAX] = {0};
	uint32_t len;

	world_open_agreed(&m);
	CU_ASSERT_EQUAL(config_set(&m.v, BLK_CONFIG_WCE, 1, config), 0);
	CU_ASSERT_EQUAL(config_ask(&m.v, BLK_CONFIG_WCE, 1, &len)[VHOST_CONFIG_HEAD_BYTES], 0);
	memcpy(config, config_ask(&m.v, 0, BLK_CONFIG_BYTES, &len) + VHOST_CONFIG_HEAD_BYTES, BLK_CONFIG_BYTES);
	CU_ASSERT_EQUAL(config_set(&m.v, 0, 8, config), 0); /* what it is */
	config[0] ^= 1;
	CU_ASSERT_EQUAL(config_set(&m.v, 0, 8, config), 1);
	CU_ASSERT_EQUAL(config_set(&m.v, BLK_CONFIG_WCE, UINT32_MAX, config), 1);
	CU_ASSERT_EQUAL(config_set(&m.v, BLK_CONFIG_BYTES, 1, config), 1);
	CU_ASSERT_EQUAL(config_set(&m.v, BLK_CONFIG_BYTES + 1, 0, config), 1);
	world_close(&m);
}

static void a_vmm_is_told_of_a_new_size(void)
{
	struct message_world m;
	struct stream *near;
	uint8_t header[VHOST_HEADER_BYTES];

	world_open_agreed(&m);
	int fd = sim_stream_create(m.w.machine, &near);
	struct fds fds = {.fd = {fd}, .n = 1};
	CU_ASSERT_EQUAL(vmm_ask(&m.v, VHOST_SET_BACKEND_REQ_FD, NULL, 0, &fds), 0);
	CU_ASSERT_EQUAL(vmm_ask(&m.v, VHOST_SET_BACKEND_REQ_FD, NULL, 0, &fds), 1); /* one is enough */
	sim_fd_close(m.w.sim, fd);
	fake_volume_resize(m.w.vm, WORLD_VOLUME_BYTES / 2);
	struct stream *messages = m.v.stream; /* the same VMM listens to its other stream */
	m.v.stream = near;
	m.v.receive_iov = (struct iovec){header, sizeof(header)};
	stream_recv_all(near, &m.v.receive_op, &m.v.receive_iov, 1);
	vhost_world_pass(&m.w, NS_PER_S);
	CU_ASSERT_EQUAL(m.v.receive_op.kind, OP_NONE);
	CU_ASSERT_EQUAL(get_le32(header), VHOST_BACKEND_CONFIG_CHANGE);
	CU_ASSERT_EQUAL(get_le32(header + 8), 0);
	stream_close(near);
	m.v.stream = messages;
	world_close(&m);
}

/* ---- requests in flight ---- */

static void inflight_ask(struct vmm *v, uint32_t len_bytes, uint16_t n_queues, uint16_t size)
{
	uint8_t payload[VHOST_PAYLOAD_MAX] = {0};

	put_le16(payload + 16, n_queues);
	put_le16(payload + 18, size);
	vmm_tell(v, VHOST_GET_INFLIGHT_FD, 0, payload, len_bytes, NULL);
}

static void an_area_is_made_with_or_without_padding(void)
{
	struct message_world m;
	uint32_t len = 0;

	world_open_agreed(&m);
	inflight_ask(&m.v, VHOST_INFLIGHT_BYTES, 4, 128);
	const uint8_t *reply = vmm_hear(&m.v, VHOST_GET_INFLIGHT_FD, &len);
	CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
	CU_ASSERT_EQUAL(len, VHOST_INFLIGHT_BYTES);
	CU_ASSERT_EQUAL_FATAL(m.v.fds.n, 1);
	uint64_t bytes = 0;
	sim_memory_at(m.w.sim, m.v.fds.fd[0], &bytes);
	CU_ASSERT_EQUAL(bytes, get_le64(reply));
	CU_ASSERT_TRUE(bytes >= 4 * INFLIGHT_QUEUE_BYTES(128));
	inflight_ask(&m.v, VHOST_INFLIGHT_BYTES_MAX, 1, 1);
	CU_ASSERT_PTR_NOT_NULL(vmm_hear(&m.v, VHOST_GET_INFLIGHT_FD, &len));
	CU_ASSERT_EQUAL(len, VHOST_INFLIGHT_BYTES_MAX);
	world_close(&m);
}

static void an_area_of_a_wrong_shape_is_not_made(void)
{
	static const uint16_t shapes[][2] = {{0, 16}, {5, 16}, {1, 0}, {1, VRING_SIZE_MAX + 1}, {0xffff, 0xffff}};
	struct message_world m;

	world_open_agreed(&m);
	for (size_t i = 0; i < array_size(shapes); i++) {
		inflight_ask(&m.v, VHOST_INFLIGHT_BYTES_MAX, shapes[i][0], shapes[i][1]);
		const uint8_t *reply = vmm_hear(&m.v, VHOST_GET_INFLIGHT_FD, NULL);
		CU_ASSERT_PTR_NOT_NULL_FATAL(reply);
		CU_ASSERT_EQUAL(get_le64(reply), 0);
		CU_ASSERT_EQUAL(m.v.fds.n, 0);
	}
	world_close(&m);
}

static int area_give(struct vmm *v, uint64_t len_bytes, uint64_t pos_bytes, uint16_t n_queues, uint16_t size)
{
	uint8_t payload[VHOST_INFLIGHT_BYTES_MAX] = {0};

	put_le64(payload, len_bytes);
	put_le64(payload + 8, pos_bytes);
	put_le16(payload + 16, n_queues);
	put_le16(payload + 18, size);
	return vmm_ask(v, VHOST_SET_INFLIGHT_FD, payload, sizeof(payload), &(struct fds){.fd = {v->memory[0]}, .n = 1});
}

static void an_area_of_a_wrong_size_or_place_is_refused(void)
{
	struct message_world m;
	uint64_t needed = INFLIGHT_QUEUE_BYTES(VMM_RING_SIZE) + INFLIGHT_TAIL_BYTES, all = VMM_REGION_BYTES;

	world_open_agreed(&m);
	CU_ASSERT_EQUAL(area_give(&m.v, all, 0, 1, VMM_RING_SIZE), 0);
	CU_ASSERT_EQUAL(area_give(&m.v, all, 1, 1, VMM_RING_SIZE), 1);
	CU_ASSERT_EQUAL(area_give(&m.v, needed - 1, 0, 1, VMM_RING_SIZE), 1);
	CU_ASSERT_EQUAL(area_give(&m.v, all, all - 4096, 1, VMM_RING_SIZE), 1); /* behind the end of the file */
	CU_ASSERT_EQUAL(area_give(&m.v, all, UINT64_MAX - 4095, 1, VMM_RING_SIZE), 1);
	CU_ASSERT_EQUAL(area_give(&m.v, all, 0, 0, VMM_RING_SIZE), 1);
	CU_ASSERT_EQUAL(area_give(&m.v, all, 0, 5, VMM_RING_SIZE), 1);
	CU_ASSERT_EQUAL(area_give(&m.v, all, 0, 1, 0), 1);
	CU_ASSERT_EQUAL(area_give(&m.v, UINT64_MAX, 0, 0xffff, 0xffff), 1);
	world_close(&m);
}

/* Its answer repeats the payload, and has no room for any length. */
static void an_over_long_question_for_an_area_is_refused(void)
{
	struct message_world m;

	world_open(&m);
	inflight_ask(&m.v, VHOST_PAYLOAD_MAX, 1, 16);
	expect_end(&m);
	world_open(&m);
	inflight_ask(&m.v, VHOST_INFLIGHT_BYTES_MAX + 1, 1, 16);
	expect_end(&m);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
#define T(name) {#name, name}
	    T(another_version_ends_the_connection),
	    T(a_payload_that_is_too_long_ends_the_connection),
	    T(a_reply_to_nothing_ends_the_connection),
	    T(an_unknown_message_is_refused),
	    T(a_message_that_is_too_short_is_refused),
	    T(descriptors_that_nobody_wants_are_closed),
	    T(descriptors_that_do_not_close_end_the_connection),
	    T(descriptors_that_do_not_close_are_bounded),
	    T(every_message_is_answered),
	    T(features_that_are_not_offered_are_refused),
	    T(only_a_read_only_volume_says_so),
	    T(a_ring_of_a_wrong_size_or_number_is_refused),
	    T(a_ring_that_runs_is_not_changed),
	    T(a_ring_that_runs_keeps_its_kind),
	    T(a_ring_without_a_kick_is_refused),
	    T(memory_in_a_file_is_refused),
	    T(memory_that_is_not_there_is_refused),
	    T(regions_come_and_go),
	    T(the_configuration_tells_the_size),
	    T(a_part_of_the_configuration_that_is_not_there_has_no_bytes),
	    T(only_the_write_cache_can_be_set),
	    T(a_vmm_is_told_of_a_new_size),
	    T(an_area_is_made_with_or_without_padding),
	    T(an_area_of_a_wrong_shape_is_not_made),
	    T(an_area_of_a_wrong_size_or_place_is_refused),
	    T(an_over_long_question_for_an_area_is_refused),
	};

	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("vhost-user messages", NULL, NULL);
	for (size_t i = 0; i < array_size(tests); i++)
		CU_add_test(suite, tests[i].name, tests[i].run);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
