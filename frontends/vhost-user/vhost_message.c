/*
 * vhost_message.c: what each message of the protocol does.
 *
 * Plain functions: a message that has to wait for requests in flight does so before (vhost_connection.c, DRAIN), as
 * message_drains() tells. A message that makes no sense is refused: with REPLY_ACK its sender is told, else the
 * connection ends, since the two sides would no longer mean the same.
 *
 * Owner: the connection.
 */
#include "frontends/vhost-user/vhost_internal.h"

#include <errno.h>

/* A VMM whose region grows takes it away and brings the larger one with the messages that follow at once; with this much
 * time for a machine as busy as it likes. */
#define MEMORY_GAP_NS (5 * NS_PER_S)

/* ---- helpers ---- */

static struct reactor *reactor_of(const struct vhost_connection *c)
{
	return c->door->server->reactor;
}

static struct vhost_queue *queue_at(struct vhost_connection *c, uint64_t index)
{
	return index < c->n_queues ? &c->queues[index] : NULL;
}

/* Messages about a queue begin with its number. */
static struct vhost_queue *queue_named(struct vhost_connection *c)
{
	return queue_at(c, get_le32(c->payload));
}

static uint8_t *reply_begin(struct vhost_connection *c, uint32_t len_bytes)
{
	quarry_assert(VHOST_HEADER_BYTES + len_bytes <= sizeof(c->reply));
	c->has_reply = true;
	c->reply_bytes = len_bytes;
	memset(c->reply, 0, VHOST_HEADER_BYTES + len_bytes);
	return c->reply + VHOST_HEADER_BYTES;
}

static int reply_number(struct vhost_connection *c, uint64_t n)
{
	put_le64(reply_begin(c, 8), n);
	return 0;
}

/* The only descriptor of the message, now the caller's; -1: there is not exactly one. */
static int fd_take(struct vhost_connection *c)
{
	if (c->fds.n != 1)
		return -1;
	int fd = c->fds.fd[0];
	c->fds.n = 0;
	return fd;
}

static void queues_each(struct vhost_connection *c, void (*each)(struct vhost_queue *q))
{
	for (uint32_t i = 0; i < c->n_queues; i++)
		each(&c->queues[i]);
}

/* ---- features ---- */

static int set_features(struct vhost_connection *c)
{
	uint64_t features = get_le64(c->payload);

	if (features & ~device_features(c->door))
		return -EINVAL;
	c->features = features;
	c->memory.is_logging = features & VHOST_F_LOG_ALL;
	return 0;
}

static int set_protocol_features(struct vhost_connection *c)
{
	uint64_t features = get_le64(c->payload);

	if (features & ~VHOST_PROTOCOL_FEATURES)
		return -EINVAL;
	c->protocol = features;
	return 0;
}

/* ---- memory ---- */

static struct vhost_region region_read(const uint8_t *at)
{
	return (struct vhost_region){.guest = get_le64(at),
				     .len_bytes = get_le64(at + 8),
				     .user = get_le64(at + 16),
				     .file_pos = get_le64(at + 24)};
}

static int set_mem_table(struct vhost_connection *c)
{
	uint32_t n = get_le32(c->payload);
	int res = 0;

	if (n > FDS_MAX || n != c->fds.n || c->payload_bytes < VHOST_TABLE_HEAD_BYTES + n * VHOST_REGION_BYTES)
		return -EINVAL;
	memory_clear(&c->memory);
	for (uint32_t i = 0; i < n && res == 0; i++) {
		struct vhost_region region =
		    region_read(c->payload + VHOST_TABLE_HEAD_BYTES + (size_t)i * VHOST_REGION_BYTES);
		res = memory_add(&c->memory, reactor_of(c), c->fds.fd[i], &region);
	}
	queues_each(c, queue_relocate);
	return res;
}

static int add_mem_reg(struct vhost_connection *c)
{
	struct vhost_region region = region_read(c->payload + 8);
	int res = c->fds.n == 1 ? memory_add(&c->memory, reactor_of(c), c->fds.fd[0], &region) : -EINVAL;

	queues_each(c, queue_relocate);
	return res;
}

static int rem_mem_reg(struct vhost_connection *c)
{
	struct vhost_region region = region_read(c->payload + 8);
	int res = memory_remove(&c->memory, &region);

	timer_start(reactor_of(c), &c->gap, MEMORY_GAP_NS);
	queues_each(c, queue_relocate);
	return res;
}

static int set_log_base(struct vhost_connection *c)
{
	uint64_t len = get_le64(c->payload), pos = get_le64(c->payload + 8);
	struct mapping *log;

	if (c->fds.n != 1 || len > VHOST_LOG_BYTES_MAX)
		return -EINVAL;
	int res = reactor_map(reactor_of(c), c->fds.fd[0], pos, len, &log);
	if (res != 0)
		return res;
	if (c->memory.log)
		mapping_close(c->memory.log);
	c->memory.log = log;
	return reply_number(c, 0); /* answered whenever LOG_SHMFD was agreed on: QEMU waits for it */
}

/* ---- rings ---- */

static int set_vring_num(struct vhost_connection *c)
{
	struct vhost_queue *q = queue_named(c);
	uint32_t size = get_le32(c->payload + 4);

	if (!q || q->is_running || size == 0 || size > VRING_SIZE_MAX)
		return -EINVAL;
	if (!(c->features & VIRTIO_F_RING_PACKED) && (size & (size - 1)) != 0)
		return -EINVAL;
	q->ring.size = size;
	return 0;
}

static int set_vring_addr(struct vhost_connection *c)
{
	struct vhost_queue *q = queue_named(c);

	if (!q)
		return -EINVAL;
	q->desc_user = get_le64(c->payload + 8);
	q->used_user = get_le64(c->payload + 16);
	q->avail_user = get_le64(c->payload + 24);
	q->has_addresses = true;
	queue_relocate(q);
	return 0;
}

static int set_vring_base(struct vhost_connection *c)
{
	struct vhost_queue *q = queue_named(c);

	if (!q || q->is_running)
		return -EINVAL;
	q->base = get_le32(c->payload + 4);
	return 0;
}

/* The ring is stopped until it is given a kick again. Nothing of it is in flight. */
static int get_vring_base(struct vhost_connection *c)
{
	struct vhost_queue *q = queue_named(c);

	if (!q)
		return -EINVAL;
	q->is_started = false;
	queue_stop(q);
	if (q->kick)
		event_close(q->kick);
	if (q->call)
		event_close(q->call);
	q->kick = q->call = NULL;
	vhost_door_choose(c->door);
	uint8_t *reply = reply_begin(c, VHOST_VRING_STATE_BYTES);
	put_le32(reply, q->index);
	put_le32(reply + 4, q->base);
	return 0;
}

static void queue_kicked(void *context)
{
	struct vhost_queue *q = context;

	counter_add(&q->connection->door->server->counters.kicks, 1);
	queue_pump(q);
}

/* Takes over the message's descriptor as one of a queue's events; NULL it is to have none. */
static int event_set(struct vhost_connection *c, struct vhost_queue *q, struct event **e,
		     void (*signalled)(void *context))
{
	struct event *new = NULL;
	int fd = get_le64(c->payload) & VHOST_VRING_NO_FD ? -1 : fd_take(c);

	if (!(get_le64(c->payload) & VHOST_VRING_NO_FD)) {
		int res = fd < 0 ? -EINVAL : reactor_event_open(reactor_of(c), fd, signalled, q, &new);
		if (res != 0)
			return res;
	}
	if (*e)
		event_close(*e);
	*e = new;
	return 0;
}

static int set_vring_event(struct vhost_connection *c)
{
	struct vhost_queue *q = queue_at(c, get_le64(c->payload) & VHOST_VRING_FD_INDEX);

	if (!q)
		return -EINVAL;
	if (c->kind == VHOST_SET_VRING_ERR)
		return event_set(c, q, &q->err, NULL);
	if (c->kind == VHOST_SET_VRING_CALL) {
		int res = event_set(c, q, &q->call, NULL);
		queue_completed(q); /* what was completed while there was no call */
		return res;
	}
	if (get_le64(c->payload) & VHOST_VRING_NO_FD)
		return -EOPNOTSUPP; /* a ring without a kick would have to be polled for ever */
	int res = event_set(c, q, &q->kick, queue_kicked);
	if (res != 0)
		return res;
	q->is_started = true;
	vhost_door_choose(c->door);
	guest_tell_waiting(c);
	queue_judge(q);
	return 0;
}

static int set_vring_enable(struct vhost_connection *c)
{
	struct vhost_queue *q = queue_named(c);
	uint32_t is_enabled = get_le32(c->payload + 4);

	if (!q || is_enabled > 1)
		return -EINVAL;
	q->is_disabled = is_enabled == 0;
	queue_judge(q);
	queue_pump(q);
	return 0;
}

static void queue_reset(struct vhost_queue *q)
{
	q->is_started = q->is_disabled = q->has_addresses = false;
	queue_stop(q);
	q->ring.size = 0;
	q->base = 0;
}

/* The device as it was when the client came; its memory and protocol features stay. */
static int reset_device(struct vhost_connection *c)
{
	queues_each(c, queue_reset);
	c->wce = true;
	inflight_keep_wce(c);
	inflight_drop(c);
	c->features = 0;
	c->memory.is_logging = false;
	vhost_door_choose(c->door);
	return 0;
}

static void queue_disown(struct vhost_queue *q)
{
	q->is_started = false;
	queue_stop(q);
}

static int reset_owner(struct vhost_connection *c)
{
	queues_each(c, queue_disown);
	vhost_door_choose(c->door);
	return 0;
}

/* ---- configuration ---- */

static int get_config(struct vhost_connection *c)
{
	uint8_t config[VHOST_CONFIG_BYTES_MAX] = {0};
	uint32_t offset = get_le32(c->payload), len = get_le32(c->payload + 4);

	/* an answer without bytes says that there is no such part */
	bool is_there = offset <= sizeof(config) && len <= sizeof(config) - offset;
	config_fill(c, config);
	uint8_t *reply = reply_begin(c, is_there ? VHOST_CONFIG_HEAD_BYTES + len : 0);
	if (!is_there)
		return 0;
	put_le32(reply, offset);
	put_le32(reply + 4, len);
	put_le32(reply + 8, get_le32(c->payload + 8));
	memcpy(reply + VHOST_CONFIG_HEAD_BYTES, config + offset, len);
	return 0;
}

/* Only the write cache may be set. What a VMM writes along with it is not looked at: the size may just have changed. */
static int set_config(struct vhost_connection *c)
{
	uint8_t config[BLK_CONFIG_BYTES];
	uint32_t offset = get_le32(c->payload), len = get_le32(c->payload + 4);
	const uint8_t *bytes = c->payload + VHOST_CONFIG_HEAD_BYTES;

	if (len > c->payload_bytes - VHOST_CONFIG_HEAD_BYTES || offset > sizeof(config) ||
	    len > sizeof(config) - offset)
		return -EINVAL;
	config_fill(c, config);
	if (offset > BLK_CONFIG_WCE || offset + len <= BLK_CONFIG_WCE)
		return memcmp(config + offset, bytes, len) == 0 ? 0 : -EINVAL;
	c->wce = bytes[BLK_CONFIG_WCE - offset] != 0;
	inflight_keep_wce(c);
	return 0;
}

static int set_backend_req_fd(struct vhost_connection *c)
{
	struct stream *stream;
	int fd = fd_take(c);

	if (fd < 0)
		return -EINVAL;
	int res = reactor_stream_take(reactor_of(c), fd, &stream);
	if (res != 0)
		return res;
	if (c->is_noticing || c->backend) { /* one is enough; QEMU gives it once a connection */
		stream_close(stream);
		return -EEXIST;
	}
	c->backend = stream;
	return 0;
}

/* ---- requests in flight ---- */

static int get_inflight_fd(struct vhost_connection *c)
{
	uint32_t n_queues = get_le16(c->payload + 16), size = get_le16(c->payload + 18);
	int fd = -1;

	if (c->payload_bytes > VHOST_INFLIGHT_BYTES_MAX)
		return -EINVAL;
	int res = inflight_make(c, n_queues, size, &fd);
	uint8_t *reply = reply_begin(c, c->payload_bytes); /* with the padding that was sent */
	if (res != 0)
		return 0; /* an area of no bytes: there is none */
	put_le64(reply, inflight_bytes(n_queues, size));
	put_le16(reply + 16, (uint16_t)n_queues);
	put_le16(reply + 18, (uint16_t)size);
	c->send_fds = (struct fds){.fd = {fd}, .n = 1};
	return 0;
}

static int set_inflight_fd(struct vhost_connection *c)
{
	for (uint32_t i = 0; i < c->n_queues; i++)
		if (c->queues[i].is_running)
			return -EBUSY;
	return c->fds.n == 1 ? inflight_take(c, c->fds.fd[0], c->payload) : -EINVAL;
}

/* ---- the table ---- */

static int nothing_to_do(struct vhost_connection *c)
{
	return 0;
}

static int get_features(struct vhost_connection *c)
{
	return reply_number(c, device_features(c->door));
}
static int get_protocol_features(struct vhost_connection *c)
{
	return reply_number(c, VHOST_PROTOCOL_FEATURES);
}
static int get_queue_num(struct vhost_connection *c)
{
	return reply_number(c, c->n_queues);
}
static int get_max_mem_slots(struct vhost_connection *c)
{
	return reply_number(c, VHOST_REGIONS_MAX);
}

enum drain { DRAIN_NOTHING, DRAIN_QUEUE, DRAIN_ALL };

static const struct message_rule {
	uint32_t payload_min; /* bytes */
	enum drain drain;     /* what has to be finished before */
	int (*apply)(struct vhost_connection *c);
} messages[] = {
    [VHOST_GET_FEATURES] = {0, DRAIN_NOTHING, get_features},
    [VHOST_SET_FEATURES] = {8, DRAIN_NOTHING, set_features},
    [VHOST_SET_OWNER] = {0, DRAIN_NOTHING, nothing_to_do},
    [VHOST_RESET_OWNER] = {0, DRAIN_ALL, reset_owner},
    [VHOST_SET_MEM_TABLE] = {VHOST_TABLE_HEAD_BYTES, DRAIN_ALL, set_mem_table},
    [VHOST_SET_LOG_BASE] = {VHOST_LOG_BYTES, DRAIN_NOTHING, set_log_base},
    [VHOST_SET_LOG_FD] = {0, DRAIN_NOTHING, nothing_to_do}, /* an event for the log, which we have no use for */
    [VHOST_SET_VRING_NUM] = {VHOST_VRING_STATE_BYTES, DRAIN_NOTHING, set_vring_num},
    [VHOST_SET_VRING_ADDR] = {VHOST_VRING_ADDR_BYTES, DRAIN_QUEUE, set_vring_addr},
    [VHOST_SET_VRING_BASE] = {VHOST_VRING_STATE_BYTES, DRAIN_NOTHING, set_vring_base},
    [VHOST_GET_VRING_BASE] = {VHOST_VRING_STATE_BYTES, DRAIN_QUEUE, get_vring_base},
    [VHOST_SET_VRING_KICK] = {VHOST_VRING_FD_BYTES, DRAIN_NOTHING, set_vring_event},
    [VHOST_SET_VRING_CALL] = {VHOST_VRING_FD_BYTES, DRAIN_NOTHING, set_vring_event},
    [VHOST_SET_VRING_ERR] = {VHOST_VRING_FD_BYTES, DRAIN_NOTHING, set_vring_event},
    [VHOST_GET_PROTOCOL_FEATURES] = {0, DRAIN_NOTHING, get_protocol_features},
    [VHOST_SET_PROTOCOL_FEATURES] = {8, DRAIN_NOTHING, set_protocol_features},
    [VHOST_GET_QUEUE_NUM] = {0, DRAIN_NOTHING, get_queue_num},
    [VHOST_SET_VRING_ENABLE] = {VHOST_VRING_STATE_BYTES, DRAIN_QUEUE, set_vring_enable},
    [VHOST_SET_BACKEND_REQ_FD] = {0, DRAIN_NOTHING, set_backend_req_fd},
    [VHOST_GET_CONFIG] = {VHOST_CONFIG_HEAD_BYTES, DRAIN_NOTHING, get_config},
    [VHOST_SET_CONFIG] = {VHOST_CONFIG_HEAD_BYTES, DRAIN_NOTHING, set_config},
    [VHOST_GET_INFLIGHT_FD] = {VHOST_INFLIGHT_BYTES, DRAIN_NOTHING, get_inflight_fd},
    [VHOST_SET_INFLIGHT_FD] = {VHOST_INFLIGHT_BYTES, DRAIN_NOTHING, set_inflight_fd},
    [VHOST_RESET_DEVICE] = {0, DRAIN_ALL, reset_device},
    [VHOST_GET_MAX_MEM_SLOTS] = {0, DRAIN_NOTHING, get_max_mem_slots},
    [VHOST_ADD_MEM_REG] = {VHOST_ONE_REGION_BYTES, DRAIN_NOTHING, add_mem_reg},
    [VHOST_REM_MEM_REG] = {VHOST_ONE_REGION_BYTES, DRAIN_ALL, rem_mem_reg},
};

static const struct message_rule *message_of(const struct vhost_connection *c)
{
	const struct message_rule *m = c->kind < array_size(messages) ? &messages[c->kind] : NULL;

	return m && m->apply && c->payload_bytes >= m->payload_min ? m : NULL;
}

bool message_drains(struct vhost_connection *c, const struct vhost_queue *q)
{
	const struct message_rule *m = message_of(c);

	/* Every VMM that connects again says this, and may ask for something next that it waits for. */
	if (c->kind == VHOST_SET_VRING_ENABLE && get_le32(c->payload + 4) != 0)
		return false;
	return m && (m->drain == DRAIN_ALL || (m->drain == DRAIN_QUEUE && queue_named(c) == q));
}

/* Are its descriptors mapped? */
static bool message_brings_memory(const struct vhost_connection *c)
{
	return c->kind == VHOST_SET_MEM_TABLE || c->kind == VHOST_ADD_MEM_REG || c->kind == VHOST_SET_LOG_BASE ||
	       c->kind == VHOST_SET_INFLIGHT_FD;
}

/* A page of it that does not come would stop this thread, and with it every volume. */
static int memory_check(const struct vhost_connection *c)
{
	const struct vhost_server *s = c->door->server;

	for (uint32_t i = 0; i < c->fds.n && !s->takes_files; i++) {
		if (reactor_fd_is_memory(s->reactor, c->fds.fd[i]))
			continue;
		log_event(s->log, LOG_WARNING, "vhost-memory-refused", c->door->name,
			  "%s: its VMM shares memory that lies in a file on a disk or a network: give the guest "
			  "memory-backend-memfd, or a file in /dev/shm or hugetlbfs; vhost.file_memory allows others",
			  c->door->name);
		return -ENOTSUP;
	}
	return 0;
}

int message_apply(struct vhost_connection *c)
{
	const struct message_rule *m = message_of(c);

	c->has_reply = false;
	c->reply_bytes = 0;
	if (!m)
		return -EPROTO;
	int res = message_brings_memory(c) ? memory_check(c) : 0;
	if (res == 0)
		res = m->apply(c);
	quarry_assert(res <= 0);
	quarry_assert(res == 0 || !c->has_reply);
	return res;
}
