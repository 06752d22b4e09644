/*
 * vhost_client.c: the connection of a VMM to a vhost-user-blk device: negotiation, memory, rings, reconnecting.
 *
 *   init -> connect -> start -> (stop <-> start of single queues) -> drop -> connect -> start ...
 *
 * Invariants
 *  1. Rings and guest memory outlive the connection: a guest does not know that there is one.
 *  2. The region of requests in flight is asked of the server once and handed back to every later one; it is asked for
 *     anew after a reset, as QEMU does.
 *  3. Every message that changes something waits for its acknowledgement where REPLY_ACK was agreed on.
 *
 * Owner: one thread; all calls block, with a limit.
 */
#include "tests/vhost/vhost_client.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/vhost/vhost_slot.h"

#define LOG_PAGE 4096ull
/* up to the limits of write-zeroes: what QEMU 7.2 asks for, and all that its own server answers */
#define CONFIG_BYTES offsetof(struct virtio_blk_config, max_secure_erase_sectors)

#define PROTOCOL_WANTED                                                                                                \
	(VU_BIT(VU_P_MQ) | VU_BIT(VU_P_LOG_SHMFD) | VU_BIT(VU_P_REPLY_ACK) | VU_BIT(VU_P_BACKEND_REQ) |                \
	 VU_BIT(VU_P_CONFIG) | VU_BIT(VU_P_INFLIGHT_SHMFD) | VU_BIT(VU_P_RESET_DEVICE) |                               \
	 VU_BIT(VU_P_CONFIGURE_MEM_SLOTS))

#define FEATURES_WANTED                                                                                                \
	(VU_F_VERSION_1 | VU_F_PROTOCOL_FEATURES | VU_BIT(VIRTIO_BLK_F_SEG_MAX) | VU_BIT(VIRTIO_BLK_F_SIZE_MAX) |      \
	 VU_BIT(VIRTIO_BLK_F_RO) | VU_BIT(VIRTIO_BLK_F_BLK_SIZE) | VU_BIT(VIRTIO_BLK_F_TOPOLOGY) |                     \
	 VU_BIT(VIRTIO_BLK_F_MQ) | VU_BIT(VIRTIO_BLK_F_DISCARD) | VU_BIT(VIRTIO_BLK_F_WRITE_ZEROES) |                  \
	 VU_BIT(VIRTIO_BLK_F_FLUSH) | VU_BIT(VIRTIO_BLK_F_CONFIG_WCE))

__attribute__((format(printf, 3, 4))) static int failed(struct vhost_client *c, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(c->why, sizeof(c->why), format, args);
	va_end(args);
	return error < 0 ? error : -EPROTO;
}

static bool has(const struct vhost_client *c, enum vu_protocol_feature f)
{
	return c->protocol & VU_BIT(f);
}

/* ---- messages ---- */

int vhost_client_send(struct vhost_client *c, const struct vu_message *m, const int *fds, unsigned n_fds)
{
	char control[CMSG_SPACE(sizeof(int) * VU_FDS_MAX)] __attribute__((aligned(8))) = {0};
	struct iovec iov = {.iov_base = (void *)m, .iov_len = VU_HEADER_BYTES + m->size};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (iov.iov_len > sizeof(*m))
		iov.iov_len = sizeof(*m); /* a lie about the size */
	if (n_fds > 0) {
		struct cmsghdr *cmsg;

		h.msg_control = control;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		cmsg = CMSG_FIRSTHDR(&h);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n_fds);
	}
	n = sendmsg(c->fd, &h, MSG_NOSIGNAL);
	if (n < 0)
		return failed(c, errno == EBADF ? -ENOTCONN : -errno, "message %u was not sent: %s", m->request,
			      strerror(errno));
	return 0;
}

static int read_all(struct vhost_client *c, int fd, void *to, size_t len, int *with_fd)
{
	char control[CMSG_SPACE(sizeof(int) * VU_FDS_MAX)] __attribute__((aligned(8)));

	for (size_t at = 0; at < len;) {
		struct iovec iov = {.iov_base = (uint8_t *)to + at, .iov_len = len - at};
		struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
		ssize_t n;

		h.msg_controllen = sizeof(control);
		n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return failed(c, -ETIMEDOUT, "no answer within %u s", c->o.seconds_max);
		if (n <= 0)
			return failed(c, -ENOTCONN, "the server closed the connection");
		for (struct cmsghdr *m = CMSG_FIRSTHDR(&h); m && with_fd; m = CMSG_NXTHDR(&h, m)) {
			if (m->cmsg_type == SCM_RIGHTS)
				memcpy(with_fd, CMSG_DATA(m), sizeof(int));
		}
		at += (size_t)n;
	}
	return 0;
}

static int message_read(struct vhost_client *c, int from, struct vu_message *m, int *fd)
{
	int res = read_all(c, from, m, VU_HEADER_BYTES, fd);

	if (res < 0)
		return res;
	if (m->size > sizeof(*m) - VU_HEADER_BYTES || (m->flags & 3) != VU_VERSION)
		return failed(c, -EPROTO, "the server sent message %u with flags %#x and %u bytes", m->request,
			      m->flags, m->size);
	return m->size > 0 ? read_all(c, from, m->bytes, m->size, NULL) : 0;
}

int vhost_client_receive(struct vhost_client *c, struct vu_message *m, int *fd)
{
	return message_read(c, c->fd, m, fd);
}

static int receive_reply(struct vhost_client *c, struct vu_message *m, int *fd)
{
	uint32_t request = m->request;
	int res = vhost_client_receive(c, m, fd);

	if (res < 0)
		return res;
	if (m->request != request || !(m->flags & VU_REPLY))
		return failed(c, -EPROTO, "the reply to message %u is message %u, flags %#x", request, m->request,
			      m->flags);
	return 0;
}

static int ask(struct vhost_client *c, struct vu_message *m, const int *fds, unsigned n_fds, int *fd)
{
	int res;

	m->flags |= VU_VERSION;
	res = vhost_client_send(c, m, fds, n_fds);
	return res < 0 ? res : receive_reply(c, m, fd);
}

int vhost_client_tell(struct vhost_client *c, struct vu_message *m, const int *fds, unsigned n_fds)
{
	uint32_t request = m->request;
	int res;

	m->flags |= VU_VERSION;
	if (!has(c, VU_P_REPLY_ACK))
		return vhost_client_send(c, m, fds, n_fds);
	m->flags |= VU_NEED_REPLY;
	res = vhost_client_send(c, m, fds, n_fds);
	if (res == 0)
		res = receive_reply(c, m, NULL);
	if (res == 0 && m->number != 0)
		return failed(c, -EINVAL, "the server refuses message %u", request);
	return res;
}

static int get_number(struct vhost_client *c, enum vu_request request, uint64_t *number)
{
	struct vu_message m = {.request = request};
	int res = ask(c, &m, NULL, 0, NULL);

	if (res == 0 && m.size != 8)
		return failed(c, -EPROTO, "the reply to message %u has %u bytes", request, m.size);
	*number = m.number;
	return res;
}

static int set_number(struct vhost_client *c, enum vu_request request, uint64_t number)
{
	struct vu_message m = {.request = request, .size = 8, .number = number};

	return vhost_client_tell(c, &m, NULL, 0);
}

/* ---- negotiation ---- */

static int dial(struct vhost_client *c)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = c->o.seconds_max};

	snprintf(to.sun_path, sizeof(to.sun_path), "%s", c->o.path);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return failed(c, -errno, "no socket: %s", strerror(errno));
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(c->fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		int error = -errno;

		close(c->fd);
		c->fd = -1;
		return failed(c, error, "%s: %s", c->o.path, strerror(-error));
	}
	return 0;
}

static uint64_t features_wanted(const struct vhost_client *c)
{
	uint64_t f = FEATURES_WANTED;

	f |= c->o.is_packed ? VU_F_RING_PACKED : 0;
	f |= c->o.without_event_idx ? 0 : VU_BIT(VIRTIO_RING_F_EVENT_IDX);
	f |= c->o.without_indirect ? 0 : VU_BIT(VIRTIO_RING_F_INDIRECT_DESC);
	return f & c->features_offered;
}

static uint64_t protocol_wanted(const struct vhost_client *c)
{
	uint64_t p = PROTOCOL_WANTED;

	p &= c->o.without_inflight ? ~VU_BIT(VU_P_INFLIGHT_SHMFD) : ~0ull;
	p &= c->o.without_mem_slots ? ~VU_BIT(VU_P_CONFIGURE_MEM_SLOTS) : ~0ull;
	p &= c->o.without_reply_ack ? ~VU_BIT(VU_P_REPLY_ACK) : ~0ull;
	return p & c->protocol_offered;
}

static int backend_channel(struct vhost_client *c)
{
	struct vu_message m = {.request = VU_SET_BACKEND_REQ_FD};
	int pair[2], res;

	if (!has(c, VU_P_BACKEND_REQ))
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return failed(c, -errno, "no socket pair: %s", strerror(errno));
	res = vhost_client_tell(c, &m, &pair[1], 1);
	close(pair[1]);
	c->backend_fd = pair[0];
	return res;
}

int vhost_client_read_config(struct vhost_client *c)
{
	struct vu_message m = {.request = VU_GET_CONFIG, .size = VU_CONFIG_HEADER_BYTES + CONFIG_BYTES};
	int res;

	m.config.size = CONFIG_BYTES;
	res = ask(c, &m, NULL, 0, NULL);
	if (res == 0 && (m.size != VU_CONFIG_HEADER_BYTES + CONFIG_BYTES || m.config.size != CONFIG_BYTES))
		return failed(c, -EPROTO, "the answer about the configuration has %u bytes", m.size);
	if (res == 0)
		memcpy(&c->config, m.config.bytes, CONFIG_BYTES);
	return res;
}

static int negotiate(struct vhost_client *c)
{
	uint64_t wanted;
	int res = get_number(c, VU_GET_FEATURES, &c->features_offered);

	if (res == 0 && !(c->features_offered & VU_F_PROTOCOL_FEATURES))
		return failed(c, -EPROTO, "the server offers no protocol features");
	if (res == 0)
		res = get_number(c, VU_GET_PROTOCOL_FEATURES, &c->protocol_offered);
	if (res < 0)
		return res;
	wanted = features_wanted(c);
	if (c->o.is_packed && !(wanted & VU_F_RING_PACKED))
		return failed(c, -EOPNOTSUPP, "the server has no packed rings");
	if (c->features & ~c->features_offered)
		return failed(c, -EPROTO, "the server no longer offers features %#llx",
			      (unsigned long long)(c->features & ~c->features_offered));
	c->features = c->features ? c->features : wanted;
	c->protocol = 0; /* acknowledgements begin with the message that agrees on them */
	res = set_number(c, VU_SET_PROTOCOL_FEATURES, protocol_wanted(c));
	c->protocol = protocol_wanted(c);
	if (res == 0 && has(c, VU_P_MQ))
		res = get_number(c, VU_GET_QUEUE_NUM, &c->n_queues_offered);
	if (res == 0 && has(c, VU_P_CONFIGURE_MEM_SLOTS))
		res = get_number(c, VU_GET_MAX_MEM_SLOTS, &c->mem_slots_offered);
	if (res == 0)
		res = backend_channel(c);
	if (res == 0) {
		struct vu_message owner = {.request = VU_SET_OWNER};

		res = vhost_client_tell(c, &owner, NULL, 0);
	}
	if (res == 0 && has(c, VU_P_CONFIG))
		res = vhost_client_read_config(c);
	return res;
}

int vhost_client_connect(struct vhost_client *c)
{
	int res = dial(c);

	if (res == 0)
		res = negotiate(c);
	if (res == 0 && has(c, VU_P_MQ) && c->n_queues_offered < c->o.n_queues)
		res = failed(c, -E2BIG, "the server has %llu queues", (unsigned long long)c->n_queues_offered);
	if (res < 0)
		vhost_client_drop(c);
	return res;
}

/* ---- memory ---- */

static struct vu_region region_of(const struct vhost_client *c, unsigned i)
{
	const struct vhost_region *r = &c->memory.regions[i];

	return (struct vu_region){.guest_addr = r->gpa,
				  .size = r->size,
				  .user_addr = (uint64_t)(uintptr_t)(c->memory.base + r->gpa),
				  .mmap_offset = r->file_offset};
}

int vhost_client_memory_table(struct vhost_client *c)
{
	struct vu_message m = {.request = VU_SET_MEM_TABLE, .size = 8 + 32 * c->memory.n};
	int fds[VU_REGIONS_MAX];

	m.memory.n = c->memory.n;
	for (unsigned i = 0; i < c->memory.n; i++) {
		m.memory.regions[i] = region_of(c, i);
		fds[i] = c->memory.regions[i].fd;
	}
	return vhost_client_tell(c, &m, fds, c->memory.n);
}

int vhost_client_region_add(struct vhost_client *c, unsigned i)
{
	struct vu_message m = {.request = VU_ADD_MEM_REG, .size = sizeof(m.one_region)};

	m.one_region.region = region_of(c, i);
	return vhost_client_tell(c, &m, &c->memory.regions[i].fd, 1);
}

int vhost_client_region_remove(struct vhost_client *c, unsigned i)
{
	struct vu_message m = {.request = VU_REM_MEM_REG, .size = sizeof(m.one_region)};

	m.one_region.region = region_of(c, i);
	return vhost_client_tell(c, &m, NULL, 0);
}

static int memory_give(struct vhost_client *c)
{
	int res = 0;

	if (c->has_given_memory)
		return 0;
	if (!has(c, VU_P_CONFIGURE_MEM_SLOTS) || c->mem_slots_offered < c->memory.n)
		res = vhost_client_memory_table(c);
	else
		for (unsigned i = 0; i < c->memory.n && res == 0; i++)
			res = vhost_client_region_add(c, i);
	c->has_given_memory = res == 0;
	return res;
}

int vhost_client_log(struct vhost_client *c, bool is_on)
{
	struct vu_message m = {.request = VU_SET_LOG_BASE, .size = sizeof(m.log)};
	int res = 0;

	if (!(c->features_offered & VU_F_LOG_ALL) || !has(c, VU_P_LOG_SHMFD))
		return failed(c, -EOPNOTSUPP, "the server keeps no log of dirty pages");
	if (is_on && !c->log) {
		c->log_size = (c->memory.span / LOG_PAGE / 8 + LOG_PAGE) / LOG_PAGE * LOG_PAGE;
		c->log_fd = memfd_create("dirty-pages", MFD_CLOEXEC);
		if (c->log_fd < 0 || ftruncate(c->log_fd, (off_t)c->log_size) < 0)
			return failed(c, -errno, "no log: %s", strerror(errno));
		c->log = mmap(NULL, c->log_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->log_fd, 0);
	}
	if (is_on) {
		m.flags = VU_VERSION;
		m.log.mmap_size = c->log_size;
		res = ask(c, &m, &c->log_fd, 1, NULL);
	}
	c->features = is_on ? c->features | VU_F_LOG_ALL : c->features & ~VU_F_LOG_ALL;
	return res == 0 ? set_number(c, VU_SET_FEATURES, c->features) : res;
}

/* ---- requests in flight over restarts (invariant 2) ---- */

static int inflight_give(struct vhost_client *c)
{
	struct vu_message m = {.request = VU_GET_INFLIGHT_FD, .size = sizeof(m.inflight)};
	int res;

	if (!has(c, VU_P_INFLIGHT_SHMFD))
		return 0;
	if (c->inflight_fd < 0) {
		m.inflight.n_queues = (uint16_t)c->o.n_queues;
		m.inflight.queue_size = c->o.queue_size;
		res = ask(c, &m, NULL, 0, &c->inflight_fd);
		if (res < 0)
			return res;
		if (c->inflight_fd < 0 || m.inflight.mmap_size == 0)
			return failed(c, -EPROTO, "the server gives no region for requests in flight");
		c->inflight = m.inflight;
	}
	m = (struct vu_message){.request = VU_SET_INFLIGHT_FD, .size = sizeof(m.inflight), .inflight = c->inflight};
	m.inflight.n_queues = (uint16_t)c->o.n_queues;
	m.inflight.queue_size = c->o.queue_size;
	return vhost_client_tell(c, &m, &c->inflight_fd, 1);
}

/* ---- queues ---- */

static int queue_state(struct vhost_queue *q, enum vu_request request, uint32_t number)
{
	struct vu_message m = {.request = request, .size = 8, .state = {.index = q->index, .num = number}};

	return vhost_client_tell(q->client, &m, NULL, 0);
}

static int queue_fd(struct vhost_queue *q, enum vu_request request, int fd)
{
	struct vu_message m = {.request = request, .size = 8, .number = q->index};

	return vhost_client_tell(q->client, &m, &fd, 1);
}

static int queue_addr(struct vhost_queue *q)
{
	struct vhost_client *c = q->client;
	struct vu_message m = {.request = VU_SET_VRING_ADDR, .size = sizeof(m.addr)};

	m.addr.index = q->index;
	m.addr.desc = (uint64_t)(uintptr_t)vhost_memory_at(&c->memory, q->parts[0]);
	m.addr.avail = (uint64_t)(uintptr_t)vhost_memory_at(&c->memory, q->parts[1]);
	m.addr.used = (uint64_t)(uintptr_t)vhost_memory_at(&c->memory, q->parts[2]);
	m.addr.flags = c->features & VU_F_LOG_ALL ? 1 : 0;
	m.addr.log = q->parts[2];
	return vhost_client_tell(c, &m, NULL, 0);
}

int vhost_queue_start(struct vhost_queue *q)
{
	int res = queue_state(q, VU_SET_VRING_NUM, q->ring.size);

	if (res == 0)
		res = queue_state(q, VU_SET_VRING_BASE, q->last_base);
	if (res == 0)
		res = queue_addr(q);
	if (res == 0)
		res = queue_fd(q, VU_SET_VRING_CALL, q->call);
	if (res == 0)
		res = queue_fd(q, VU_SET_VRING_ERR, q->err);
	if (res == 0)
		res = queue_fd(q, VU_SET_VRING_KICK, q->kick);
	if (res == 0)
		res = queue_state(q, VU_SET_VRING_ENABLE, 1);
	if (res < 0)
		return res;
	q->is_started = true;
	/* what was made available while nobody listened; a call that was lost with the old server */
	vhost_queue_kick(q);
	eventfd_write(q->call, 1);
	return 0;
}

int vhost_queue_stop(struct vhost_queue *q)
{
	struct vu_message m = {.request = VU_GET_VRING_BASE, .size = 8, .state = {.index = q->index}};
	int res = ask(q->client, &m, NULL, 0, NULL);

	if (res == 0 && (m.size != 8 || m.state.index != q->index))
		return failed(q->client, -EPROTO, "the answer about queue %u is about %u", q->index, m.state.index);
	if (res == 0) {
		q->last_base = m.state.num;
		q->is_started = false;
	}
	return res;
}

int vhost_client_start(struct vhost_client *c)
{
	int res;

	if (!c->has_rings)
		vhost_client_forget(c, c->o.is_packed);
	res = inflight_give(c);
	if (res == 0)
		res = set_number(c, VU_SET_FEATURES, c->features);
	if (res == 0)
		res = memory_give(c);
	for (unsigned i = 0; i < c->o.n_queues && res == 0; i++)
		res = vhost_queue_start(&c->queues[i]);
	return res;
}

void vhost_client_drop(struct vhost_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	if (c->backend_fd >= 0)
		close(c->backend_fd);
	c->fd = c->backend_fd = -1;
	c->has_given_memory = false;
	for (unsigned i = 0; i < c->o.n_queues; i++) {
		struct vhost_queue *q = &c->queues[i];

		if (q->is_started)
			q->last_base = vhost_ring_lost_base(&q->ring, q->last_base);
		q->is_started = false;
	}
}

static uint32_t base_at_start(bool is_packed)
{
	return is_packed ? 0x80008000u : 0; /* both positions 0, both wrap counters 1 */
}

static void queue_forget(struct vhost_queue *q)
{
	struct vhost_client *c = q->client;
	uint32_t sizes[3];
	void *parts[3];

	vhost_ring_sizes(false, c->o.queue_size, sizes); /* the larger ones: room for both kinds */
	for (unsigned i = 0; i < 3; i++) {
		parts[i] = vhost_memory_at(&c->memory, q->parts[i]);
		memset(parts[i], 0, sizes[i]);
	}
	vhost_ring_init(&q->ring, c->o.is_packed, c->features & VU_BIT(VIRTIO_RING_F_EVENT_IDX), c->o.queue_size,
			parts);
	q->last_base = base_at_start(c->o.is_packed);
	for (unsigned i = 0; i < q->n_slots; i++)
		q->slots[i].is_used = false;
	q->n_used_slots = 0;
}

void vhost_client_forget(struct vhost_client *c, bool is_packed)
{
	c->o.is_packed = is_packed;
	c->features = features_wanted(c);
	if (c->inflight_fd >= 0)
		close(c->inflight_fd);
	c->inflight_fd = -1;
	for (unsigned i = 0; i < c->o.n_queues; i++)
		queue_forget(&c->queues[i]);
	c->has_rings = true;
}

int vhost_client_reset(struct vhost_client *c)
{
	struct vu_message m = {.request = VU_RESET_DEVICE};

	if (!has(c, VU_P_RESET_DEVICE))
		return failed(c, -EOPNOTSUPP, "the server cannot be reset");
	for (unsigned i = 0; i < c->o.n_queues; i++)
		c->queues[i].is_started = false;
	return vhost_client_tell(c, &m, NULL, 0);
}

/* ---- notices and waiting ---- */

int vhost_client_notice(struct vhost_client *c, int timeout_ms)
{
	struct pollfd fd = {.fd = c->backend_fd, .events = POLLIN};
	struct vu_message m;
	int res = c->backend_fd < 0 ? 0 : poll(&fd, 1, timeout_ms);

	if (res <= 0)
		return res < 0 ? -errno : 0;
	res = message_read(c, c->backend_fd, &m, NULL);
	if (res < 0)
		return res;
	if (m.flags & VU_NEED_REPLY) {
		struct vu_message reply = {.request = m.request, .flags = VU_VERSION | VU_REPLY, .size = 8};

		if (write(c->backend_fd, &reply, VU_HEADER_BYTES + 8) < 0)
			return -errno;
	}
	return (int)m.request;
}

void vhost_queue_kick(struct vhost_queue *q)
{
	eventfd_write(q->kick, 1);
}

void vhost_queue_push(struct vhost_queue *q)
{
	if (vhost_ring_needs_kick(&q->ring) && q->is_started)
		vhost_queue_kick(q);
}

int vhost_client_wait(struct vhost_client *c, int timeout_ms)
{
	struct pollfd fds[VHOST_QUEUES_MAX + 1] = {{.fd = c->fd, .events = POLLIN}};
	unsigned n = 1;
	int res;

	for (unsigned i = 0; i < c->o.n_queues; i++)
		fds[n++] = (struct pollfd){.fd = c->queues[i].call, .events = POLLIN};
	res = poll(fds, n, timeout_ms);
	if (res < 0)
		return errno == EINTR ? 0 : -errno;
	for (unsigned i = 1; i < n; i++) {
		eventfd_t count;

		if (fds[i].revents & POLLIN)
			eventfd_read(fds[i].fd, &count);
	}
	/* nothing is asked outside of a call, so whatever comes is the end */
	if (fds[0].revents != 0 || c->fd < 0)
		return failed(c, -ENOTCONN, "the server closed the connection");
	return res > 0;
}

/* ---- beginning and end ---- */

static int queue_make(struct vhost_client *c, unsigned index)
{
	struct vhost_queue *q = &c->queues[index];
	uint32_t sizes[3];

	q->client = c;
	q->index = index;
	q->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->n_slots = c->o.n_slots;
	q->slots = calloc(q->n_slots, sizeof(*q->slots));
	if (q->kick < 0 || q->call < 0 || q->err < 0 || !q->slots)
		return failed(c, -ENOMEM, "no room for queue %u", index);
	vhost_ring_sizes(false, c->o.queue_size, sizes);
	for (unsigned i = 0; i < 3; i++) {
		q->parts[i] = vhost_memory_take(&c->memory, sizes[i], 64);
		if (q->parts[i] == 0)
			return failed(c, -ENOMEM, "no guest memory for queue %u", index);
	}
	for (unsigned i = 0; i < q->n_slots; i++) {
		q->slots[i].queue = q;
		q->slots[i].area = vhost_memory_take(&c->memory, vhost_slot_area_bytes(c->o.data_max), 4096);
		if (q->slots[i].area == 0)
			return failed(c, -ENOMEM, "no guest memory for request %u", i);
	}
	return 0;
}

int vhost_client_init(struct vhost_client *c, const struct vhost_options *o)
{
	uint64_t bytes;
	int res;

	memset(c, 0, sizeof(*c));
	c->o = *o;
	c->fd = c->backend_fd = c->inflight_fd = c->log_fd = -1;
	c->o.n_queues = o->n_queues ? o->n_queues : 1;
	c->o.queue_size = o->queue_size ? o->queue_size : 128;
	c->o.n_slots = o->n_slots ? o->n_slots : c->o.queue_size / 2;
	c->o.data_max = o->data_max ? o->data_max : 1u << 20;
	c->o.n_regions = o->n_regions ? o->n_regions : 3;
	c->o.seconds_max = o->seconds_max ? o->seconds_max : 60;
	for (unsigned i = 0; i < VHOST_QUEUES_MAX; i++)
		c->queues[i].kick = c->queues[i].call = c->queues[i].err = -1;
	if (c->o.n_queues > VHOST_QUEUES_MAX || c->o.queue_size > VHOST_RING_SIZE_MAX ||
	    c->o.n_regions > VHOST_REGIONS_MAX || strlen(o->path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return failed(c, -EINVAL, "more queues, descriptors, regions or letters than the client has room for");
	/* a slot more for each region: what is lost at its end */
	bytes = (uint64_t)(c->o.n_queues * c->o.n_slots + c->o.n_regions + 1) *
		    (vhost_slot_area_bytes(c->o.data_max) + 4096) +
		c->o.n_queues * (32ull * c->o.queue_size + 8192);
	res = vhost_memory_init(&c->memory, c->o.n_regions, bytes);
	if (res < 0)
		return failed(c, res, "no guest memory: %s", strerror(-res));
	for (unsigned i = 0; i < c->o.n_queues; i++) {
		res = queue_make(c, i);
		if (res < 0)
			return res;
	}
	return 0;
}

void vhost_client_fini(struct vhost_client *c)
{
	vhost_client_drop(c);
	for (unsigned i = 0; i < VHOST_QUEUES_MAX; i++) {
		const int fds[] = {c->queues[i].kick, c->queues[i].call, c->queues[i].err};

		for (unsigned k = 0; k < 3; k++) {
			if (fds[k] >= 0)
				close(fds[k]);
		}
		free(c->queues[i].slots);
	}
	if (c->inflight_fd >= 0)
		close(c->inflight_fd);
	if (c->log)
		munmap(c->log, c->log_size);
	if (c->log_fd >= 0)
		close(c->log_fd);
	vhost_memory_fini(&c->memory);
}
