/*
 * vhost_slot.h: requests of a vhost-user-blk client: where their bytes lie in guest memory, and sending them.
 *
 *   vhost_slot_get -> vhost_slot_prepare -> (vhost_slot_write) -> vhost_slot_submit -> vhost_queue_push
 *   vhost_queue_take -> vhost_slot_status, (vhost_slot_read) -> vhost_slot_put
 */
#pragma once

#include "tests/vhost/vhost_client.h"

/* How the bytes of a request are cut into pieces. */
enum vhost_layout {
	VHOST_LAYOUT_PLAIN, /* header, data, status: what Linux sends for small requests */
	VHOST_LAYOUT_FUSED, /* header with data to write, data to read with status: as few pieces as possible */
	VHOST_LAYOUT_ODD,   /* cut anywhere, the pieces scattered in any order (by a seed) */
};

/* Where the descriptors of the pieces stand. */
enum vhost_table { VHOST_TABLE_DIRECT, VHOST_TABLE_INDIRECT, VHOST_TABLE_MIXED };

struct vhost_shape {
	enum vhost_layout layout;
	enum vhost_table table;
	uint64_t *dice; /* state of the generator; needed by ODD and MIXED */
};

uint64_t vhost_dice(uint64_t *state, uint64_t n);

uint64_t vhost_slot_area_bytes(uint32_t data_max);

/* Pieces for a header of 16 bytes, so much data in one direction, and a status byte; writes the header. */
struct vhost_slot *vhost_slot_get(struct vhost_queue *q);
void vhost_slot_put(struct vhost_slot *s);
void vhost_slot_prepare(struct vhost_slot *s, uint32_t type, uint64_t sector, uint32_t data_len,
			struct vhost_shape shape);
void vhost_slot_write(struct vhost_slot *s, const void *data, uint32_t len);
void vhost_slot_read(const struct vhost_slot *s, void *data, uint32_t len);
uint8_t vhost_slot_status(const struct vhost_slot *s);

/* False when the ring has no room. */
bool vhost_slot_submit(struct vhost_slot *s);
struct vhost_slot *vhost_queue_take(struct vhost_queue *q, uint32_t *len);

/*
 * One request from beginning to end; answers the status byte (VIRTIO_BLK_S_...), or -errno. `data` is read from or
 * written to by the request's kind.
 */
int vhost_queue_do(struct vhost_queue *q, uint32_t type, uint64_t sector, void *data, uint32_t len,
		   struct vhost_shape shape);
