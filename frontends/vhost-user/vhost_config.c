/*
 * vhost_config.c: what the device says of itself: features and configuration space (virtio 1.2, 5.2).
 *
 * No SIZE_MAX: any length of a segment is taken, and a limit of 0 would be read as one. The write cache is reported as
 * on, or guests would never flush.
 */
#include "frontends/vhost-user/vhost_internal.h"

#define LOGICAL_PER_PHYSICAL_EXP 3u   /* 4096 = 512 << 3 */
#define OPT_IO_BLOCKS            512u /* 256 KiB: what is written whole or not at all */

uint64_t device_features(const struct vhost_door *d)
{
	uint64_t features = VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE | VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_TOPOLOGY |
			    VIRTIO_BLK_F_CONFIG_WCE | VHOST_F_LOG_ALL | VIRTIO_F_ANY_LAYOUT | VIRTIO_F_INDIRECT_DESC |
			    VIRTIO_F_EVENT_IDX | VHOST_F_PROTOCOL_FEATURES | VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED;

	if (d->n_queues > 1)
		features |= VIRTIO_BLK_F_MQ;
	if (volume_is_read_only(d->volume))
		return features | VIRTIO_BLK_F_RO;
	return features | VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES;
}

void config_fill(const struct vhost_connection *c, uint8_t config[static BLK_CONFIG_BYTES])
{
	const struct vhost_door *d = c->door;
	bool is_writable = !volume_is_read_only(d->volume);

	memset(config, 0, BLK_CONFIG_BYTES);
	put_le64(config + BLK_CONFIG_CAPACITY, volume_size_bytes(d->volume) / SECTOR_BYTES);
	put_le32(config + BLK_CONFIG_SEG_MAX, VHOST_SEG_MAX);
	put_le32(config + BLK_CONFIG_BLK_SIZE, SECTOR_BYTES);
	config[BLK_CONFIG_PHYSICAL_EXP] = LOGICAL_PER_PHYSICAL_EXP;
	put_le16(config + BLK_CONFIG_MIN_IO, 1u << LOGICAL_PER_PHYSICAL_EXP);
	put_le32(config + BLK_CONFIG_OPT_IO, OPT_IO_BLOCKS);
	config[BLK_CONFIG_WCE] = c->wce;
	put_le16(config + BLK_CONFIG_NUM_QUEUES, (uint16_t)d->n_queues);
	if (!is_writable)
		return;
	put_le32(config + BLK_CONFIG_DISCARD_SECTORS, VHOST_DISCARD_SECTORS_MAX);
	put_le32(config + BLK_CONFIG_DISCARD_SEGMENTS, VHOST_RANGES_MAX);
	put_le32(config + BLK_CONFIG_DISCARD_ALIGNMENT, BLOCK_BYTES / SECTOR_BYTES);
	put_le32(config + BLK_CONFIG_ZEROES_SECTORS, VHOST_ZEROES_SECTORS_MAX);
	put_le32(config + BLK_CONFIG_ZEROES_SEGMENTS, VHOST_RANGES_MAX);
	config[BLK_CONFIG_ZEROES_MAY_UNMAP] = 1;
}
