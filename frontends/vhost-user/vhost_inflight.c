/*
 * vhost_inflight.c: the area of requests in flight, which outlives us in the hands of the VMM.
 *
 *   | queue 0 | queue 1 | ... | quarry's own tail |        vhost_format.h has the bytes
 *
 * We make it when the VMM asks, map it, and give it away; after we were lost, the VMM gives it back to the next of us.
 * Each queue's part has room for either kind of ring: firmware drives a split ring, and the kernel after it perhaps a
 * packed one on the same area. The tail remembers the kind, and what else the guest believes: whether its writes go
 * through a cache.
 *
 * Owner: the connection.
 */
#include "frontends/vhost-user/vhost_internal.h"

#include <errno.h>

#define AREA_ALIGN_BYTES 64u /* a queue's part has cache lines of its own; its numbers are read and written whole */

enum { KIND_NONE, KIND_SPLIT, KIND_PACKED };

static uint64_t stride_of(uint32_t size)
{
	return (INFLIGHT_QUEUE_BYTES(size) + AREA_ALIGN_BYTES - 1) / AREA_ALIGN_BYTES * AREA_ALIGN_BYTES;
}

uint64_t inflight_bytes(uint32_t n_queues, uint32_t size)
{
	return n_queues * stride_of(size) + INFLIGHT_TAIL_BYTES;
}

static uint8_t *tail_of(const struct vhost_connection *c)
{
	return c->inflight->data + c->inflight_queues * c->inflight_stride;
}

void inflight_drop(struct vhost_connection *c)
{
	for (uint32_t i = 0; i < c->n_queues; i++)
		c->queues[i].ring.inflight = NULL;
	if (c->inflight)
		mapping_close(c->inflight);
	c->inflight = NULL;
}

static bool sizes_are_good(const struct vhost_connection *c, uint32_t n_queues, uint32_t size)
{
	return n_queues > 0 && n_queues <= c->n_queues && size > 0 && size <= VRING_SIZE_MAX;
}

/* Made for the VMM, which gives it back with SET_INFLIGHT_FD before anything is in flight: so it is not kept. */
int inflight_make(struct vhost_connection *c, uint32_t n_queues, uint32_t size, int *fd)
{
	struct mapping *area;

	if (!sizes_are_good(c, n_queues, size))
		return -EINVAL;
	int res = reactor_share(c->door->server->reactor, inflight_bytes(n_queues, size), fd, &area);
	if (res != 0)
		return res;
	uint8_t *tail = area->data + n_queues * stride_of(size);
	put_le64(tail, INFLIGHT_MAGIC);
	tail[INFLIGHT_TAIL_WCE] = c->wce;
	mapping_close(area);
	return 0;
}

int inflight_take(struct vhost_connection *c, int fd, const uint8_t *payload)
{
	uint64_t len = get_le64(payload), pos = get_le64(payload + 8);
	uint32_t n_queues = get_le16(payload + 16), size = get_le16(payload + 18);
	struct mapping *area;

	if (!sizes_are_good(c, n_queues, size) || len < inflight_bytes(n_queues, size) || pos % AREA_ALIGN_BYTES != 0)
		return -EINVAL;
	int res = reactor_map(c->door->server->reactor, fd, pos, inflight_bytes(n_queues, size), &area);
	if (res != 0)
		return res;
	inflight_drop(c);
	c->inflight = area;
	c->inflight_queues = n_queues;
	c->inflight_size = size;
	c->inflight_stride = stride_of(size);
	if (get_le64(tail_of(c)) == INFLIGHT_MAGIC)
		c->wce = tail_of(c)[INFLIGHT_TAIL_WCE] != 0;
	else
		memset(tail_of(c), 0, INFLIGHT_TAIL_BYTES);
	put_le64(tail_of(c), INFLIGHT_MAGIC);
	inflight_keep_wce(c);
	return 0;
}

void inflight_keep_wce(struct vhost_connection *c)
{
	if (c->inflight)
		shared_store8(tail_of(c) + INFLIGHT_TAIL_WCE, c->wce);
}

uint8_t *inflight_of(struct vhost_connection *c, uint32_t index, uint32_t size, bool is_packed, bool *is_new)
{
	uint8_t kind = is_packed ? KIND_PACKED : KIND_SPLIT;

	*is_new = true;
	if (!c->inflight || index >= c->inflight_queues || size > c->inflight_size)
		return NULL;
	uint8_t *kept = tail_of(c) + INFLIGHT_TAIL_KINDS + index;
	*is_new = *kept != kind;
	shared_store8(kept, kind);
	return c->inflight->data + index * c->inflight_stride;
}
