/*
 * vhost_format.h: bytes of the vhost-user protocol and of the virtio rings and block device.
 *
 * Sources: the vhost-user specification of QEMU (docs/interop/vhost-user.rst) and virtio 1.2. All little-endian.
 *
 *   OFFSET SIZE  a message
 *        0    4  request
 *        4    4  flags: bits 0-1 version (1), bit 2 this is a reply, bit 3 the sender wants an acknowledgement
 *        8    4  bytes of the payload
 *       12    -  payload; descriptors travel beside the first byte (SCM_RIGHTS)
 */
#pragma once

#include "daemon/core/base.h"

/* ---- messages ---- */

#define VHOST_HEADER_BYTES  12u
#define VHOST_PAYLOAD_MAX   4096u
#define VHOST_VERSION       1u
#define VHOST_VERSION_MASK  3u
#define VHOST_FLAG_REPLY    4u
#define VHOST_FLAG_NEED_ACK 8u

enum vhost_message_kind {
	VHOST_GET_FEATURES = 1,
	VHOST_SET_FEATURES = 2,
	VHOST_SET_OWNER = 3,
	VHOST_RESET_OWNER = 4,
	VHOST_SET_MEM_TABLE = 5,
	VHOST_SET_LOG_BASE = 6,
	VHOST_SET_LOG_FD = 7,
	VHOST_SET_VRING_NUM = 8,
	VHOST_SET_VRING_ADDR = 9,
	VHOST_SET_VRING_BASE = 10,
	VHOST_GET_VRING_BASE = 11,
	VHOST_SET_VRING_KICK = 12,
	VHOST_SET_VRING_CALL = 13,
	VHOST_SET_VRING_ERR = 14,
	VHOST_GET_PROTOCOL_FEATURES = 15,
	VHOST_SET_PROTOCOL_FEATURES = 16,
	VHOST_GET_QUEUE_NUM = 17,
	VHOST_SET_VRING_ENABLE = 18,
	VHOST_SET_BACKEND_REQ_FD = 21,
	VHOST_GET_CONFIG = 24,
	VHOST_SET_CONFIG = 25,
	VHOST_GET_INFLIGHT_FD = 31,
	VHOST_SET_INFLIGHT_FD = 32,
	VHOST_RESET_DEVICE = 34,
	VHOST_GET_MAX_MEM_SLOTS = 36,
	VHOST_ADD_MEM_REG = 37,
	VHOST_REM_MEM_REG = 38,
};

#define VHOST_BACKEND_CONFIG_CHANGE 2u /* our own message, without payload, on the backend channel */

#define VHOST_P_MQ             (1ull << 0)
#define VHOST_P_LOG_SHMFD      (1ull << 1)
#define VHOST_P_REPLY_ACK      (1ull << 3)
#define VHOST_P_BACKEND_REQ    (1ull << 5)
#define VHOST_P_CONFIG         (1ull << 9)
#define VHOST_P_INFLIGHT_SHMFD (1ull << 12)
#define VHOST_P_RESET_DEVICE   (1ull << 13)
#define VHOST_P_CONFIGURE_MEM  (1ull << 15)
#define VHOST_PROTOCOL_FEATURES                                                                                        \
	(VHOST_P_MQ | VHOST_P_LOG_SHMFD | VHOST_P_REPLY_ACK | VHOST_P_BACKEND_REQ | VHOST_P_CONFIG |                   \
	 VHOST_P_INFLIGHT_SHMFD | VHOST_P_RESET_DEVICE | VHOST_P_CONFIGURE_MEM)

/*
 *   OFFSET SIZE  SET_VRING_NUM, _BASE, _ENABLE, GET_VRING_BASE
 *        0    4  queue
 *        4    4  number; a base of a packed ring: bits 0-14 next available, 15 its wrap counter, 16-30 next used, 31
 *                its wrap counter
 *
 *   OFFSET SIZE  SET_VRING_ADDR; addresses are the front-end's own
 *        0    4  queue
 *        4    4  flags
 *        8    8  descriptors (packed: the ring)
 *       16    8  used ring (packed: device event suppression)
 *       24    8  available ring (packed: driver event suppression)
 *       32    8  guest address of the used ring, for the log
 *
 *   OFFSET SIZE  SET_VRING_KICK, _CALL, _ERR: 8 bytes
 *        0    1  queue
 *        1    1  bit 0: no descriptor comes along
 */
#define VHOST_VRING_STATE_BYTES 8u
#define VHOST_VRING_ADDR_BYTES  40u
#define VHOST_VRING_FD_BYTES    8u
#define VHOST_VRING_NO_FD       0x100u
#define VHOST_VRING_FD_INDEX    0xffu

/*
 *   OFFSET SIZE  a region of memory
 *        0    8  guest address
 *        8    8  bytes
 *       16    8  the front-end's own address
 *       24    8  where it begins in its descriptor
 *   SET_MEM_TABLE: u32 n, u32 padding, n regions. ADD_MEM_REG, REM_MEM_REG: u64 padding, one region.
 */
#define VHOST_REGION_BYTES     32u
#define VHOST_TABLE_HEAD_BYTES 8u
#define VHOST_ONE_REGION_BYTES 40u

/*
 *   OFFSET SIZE  GET_INFLIGHT_FD, SET_INFLIGHT_FD
 *        0    8  bytes of the area
 *        8    8  where it begins in its descriptor
 *       16    2  queues
 *       18    2  entries of a queue
 *   QEMU sends four bytes of padding more.
 *
 *   SET_LOG_BASE: u64 bytes, u64 where it begins in its descriptor
 *   GET_CONFIG, SET_CONFIG: u32 offset, u32 bytes, u32 flags, the bytes
 */
#define VHOST_INFLIGHT_BYTES     20u
#define VHOST_INFLIGHT_BYTES_MAX 24u
#define VHOST_LOG_BYTES          16u
#define VHOST_CONFIG_HEAD_BYTES  12u
#define VHOST_CONFIG_BYTES_MAX   256u

/* ---- device features ---- */

#define VIRTIO_BLK_F_SEG_MAX      (1ull << 2)
#define VIRTIO_BLK_F_RO           (1ull << 5)
#define VIRTIO_BLK_F_BLK_SIZE     (1ull << 6)
#define VIRTIO_BLK_F_FLUSH        (1ull << 9)
#define VIRTIO_BLK_F_TOPOLOGY     (1ull << 10)
#define VIRTIO_BLK_F_CONFIG_WCE   (1ull << 11)
#define VIRTIO_BLK_F_MQ           (1ull << 12)
#define VIRTIO_BLK_F_DISCARD      (1ull << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (1ull << 14)
#define VHOST_F_LOG_ALL           (1ull << 26)
#define VIRTIO_F_ANY_LAYOUT       (1ull << 27)
#define VIRTIO_F_INDIRECT_DESC    (1ull << 28)
#define VIRTIO_F_EVENT_IDX        (1ull << 29)
#define VHOST_F_PROTOCOL_FEATURES (1ull << 30)
#define VIRTIO_F_VERSION_1        (1ull << 32)
#define VIRTIO_F_RING_PACKED      (1ull << 34)

/* ---- configuration space of a block device: virtio 1.2, 5.2.4 ---- */

#define BLK_CONFIG_BYTES             60u
#define BLK_CONFIG_CAPACITY          0u  /* 8, sectors of 512 bytes */
#define BLK_CONFIG_SEG_MAX           12u /* 4 */
#define BLK_CONFIG_BLK_SIZE          20u /* 4 */
#define BLK_CONFIG_PHYSICAL_EXP      24u /* 1, logical blocks of a physical one, as a power of two */
#define BLK_CONFIG_MIN_IO            26u /* 2, in logical blocks */
#define BLK_CONFIG_OPT_IO            28u /* 4, in logical blocks */
#define BLK_CONFIG_WCE               32u /* 1 */
#define BLK_CONFIG_NUM_QUEUES        34u /* 2 */
#define BLK_CONFIG_DISCARD_SECTORS   36u /* 4 */
#define BLK_CONFIG_DISCARD_SEGMENTS  40u /* 4 */
#define BLK_CONFIG_DISCARD_ALIGNMENT 44u /* 4, sectors */
#define BLK_CONFIG_ZEROES_SECTORS    48u /* 4 */
#define BLK_CONFIG_ZEROES_SEGMENTS   52u /* 4 */
#define BLK_CONFIG_ZEROES_MAY_UNMAP  56u /* 1 */

/* ---- requests of a block device: virtio 1.2, 5.2.6 ---- */

/*
 *   OFFSET SIZE  read by us: the header, then the data of a write
 *        0    4  type
 *        4    4  reserved
 *        8    8  sector of 512 bytes
 *   written by us: the data of a read, then one byte of status
 *
 *   OFFSET SIZE  a range of DISCARD and WRITE_ZEROES
 *        0    8  sector
 *        8    4  sectors
 *       12    4  flags: bit 0 may be unmapped
 */
#define BLK_HEADER_BYTES 16u
#define BLK_ID_BYTES     20u
#define BLK_RANGE_BYTES  16u
#define BLK_RANGE_UNMAP  1u

enum { BLK_T_IN = 0, BLK_T_OUT = 1, BLK_T_FLUSH = 4, BLK_T_GET_ID = 8, BLK_T_DISCARD = 11, BLK_T_WRITE_ZEROES = 13 };
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };

/* ---- rings ---- */

/*
 *   OFFSET SIZE  a descriptor of a split ring      OFFSET SIZE  a descriptor of a packed ring
 *        0    8  guest address                          0    8  guest address
 *        8    4  bytes                                  8    4  bytes
 *       12    2  flags                                 12    2  id
 *       14    2  next                                  14    2  flags
 *
 *   available ring: u16 flags, u16 idx, u16 ring[size], u16 used_event
 *   used ring:      u16 flags, u16 idx, {u32 id, u32 bytes written}[size], u16 avail_event
 *   event suppression (packed): u16 offset and wrap counter, u16 flags
 */
#define VRING_DESC_BYTES      16u
#define VRING_USED_ELEM_BYTES 8u
#define VRING_SIZE_MAX        1024u
#define VRING_EVENT_BYTES     4u

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4, DESC_AVAIL = 1 << 7, DESC_USED = 1 << 15 };
enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_DESC = 2 };

/* ---- the area of requests in flight ---- */

/*
 *   OFFSET SIZE  split: a queue                    OFFSET SIZE  packed: a queue
 *        0    8  features (0)                           0    8  features (0)
 *        8    2  version (1)                            8    2  version (1)
 *       10    2  entries                               10    2  entries
 *       12    2  head of the last batch                12    2  head of the free entries
 *       14    2  used index                            14    2  the same before the change under way
 *       16   16* an entry per descriptor               16    2  used index
 *                                                      18    2  the same before the change under way
 *   OFFSET SIZE  an entry                              20    1  used wrap counter
 *        0    1  in flight                             21    1  the same before the change under way
 *        6    2  next of the batch                     32   32* an entry per descriptor
 *        8    8  order of arrival
 *                                                  OFFSET SIZE  an entry
 *                                                       0    1  in flight
 *                                                       2    2  next
 *                                                       4    2  last of the chain
 *                                                       6    2  number in the chain
 *                                                       8    8  order of arrival
 *                                                      16    2  id
 *                                                      18    2  flags
 *                                                      20    4  bytes
 *                                                      24    8  guest address
 */
#define INFLIGHT_VERSION            8u /* of either kind */
#define INFLIGHT_SPLIT_HEAD_BYTES   16u
#define INFLIGHT_SPLIT_ENTRY_BYTES  16u
#define INFLIGHT_PACKED_HEAD_BYTES  32u
#define INFLIGHT_PACKED_ENTRY_BYTES 32u
/* Room for either kind, so that the area fits whatever the guest's next driver chooses. */
#define INFLIGHT_QUEUE_BYTES(size) (INFLIGHT_PACKED_HEAD_BYTES + INFLIGHT_PACKED_ENTRY_BYTES * (uint64_t)(size))
/*
 * Behind the queues, quarry's own (nobody else looks into the area):
 *   OFFSET SIZE
 *        0    8  magic
 *        8    1  the guest's write-cache setting
 *       16    1* per queue: 1 split, 2 packed
 */
#define INFLIGHT_TAIL_BYTES 80u
#define INFLIGHT_TAIL_WCE   8u
#define INFLIGHT_TAIL_KINDS 16u
#define INFLIGHT_MAGIC      0x7472617571627631ull

#define VHOST_QUEUES_MAX  64u
#define VHOST_REGIONS_MAX 64u
#define VHOST_LOG_PAGE    4096u
_Static_assert(INFLIGHT_TAIL_KINDS + VHOST_QUEUES_MAX == INFLIGHT_TAIL_BYTES, "a byte per queue");
