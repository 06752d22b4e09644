/*
 * vhost_wire.h: messages between a VMM and a vhost-user device, as the specification of vhost-user lays them out.
 *
 *   OFFSET SIZE  a message, little-endian
 *        0    4  request
 *        4    4  flags: bits 0-1 version (1), bit 2 this is a reply, bit 3 a reply is wanted
 *        8    4  size of the payload in bytes
 *       12    -  payload; file descriptors travel beside the header (SCM_RIGHTS)
 */
#pragma once

#include <stdint.h>

#define VU_VERSION    0x1u
#define VU_REPLY      0x4u
#define VU_NEED_REPLY 0x8u

#define VU_REGIONS_MAX      8u
#define VU_FDS_MAX          8u
#define VU_CONFIG_BYTES_MAX 256u
#define VU_NO_FD            0x100u /* in the payload of KICK, CALL, ERR: no file descriptor comes along */

enum vu_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_LOG_BASE = 6,
	VU_SET_LOG_FD = 7,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_GET_INFLIGHT_FD = 31,
	VU_SET_INFLIGHT_FD = 32,
	VU_RESET_DEVICE = 34,
	VU_GET_MAX_MEM_SLOTS = 36,
	VU_ADD_MEM_REG = 37,
	VU_REM_MEM_REG = 38,
};

#define VU_BACKEND_CONFIG_CHANGE 2u

enum vu_protocol_feature {
	VU_P_MQ = 0,
	VU_P_LOG_SHMFD = 1,
	VU_P_REPLY_ACK = 3,
	VU_P_BACKEND_REQ = 5,
	VU_P_CONFIG = 9,
	VU_P_INFLIGHT_SHMFD = 12,
	VU_P_RESET_DEVICE = 13,
	VU_P_CONFIGURE_MEM_SLOTS = 15,
};

#define VU_BIT(n)              (1ull << (n))
#define VU_F_LOG_ALL           VU_BIT(26)
#define VU_F_PROTOCOL_FEATURES VU_BIT(30)
#define VU_F_VERSION_1         VU_BIT(32)
#define VU_F_RING_PACKED       VU_BIT(34)

struct vu_vring_state {
	uint32_t index, num;
} __attribute__((packed));

struct vu_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log; /* addresses in the VMM's memory, not the guest's */
} __attribute__((packed));

struct vu_region {
	uint64_t guest_addr, size, user_addr, mmap_offset;
} __attribute__((packed));

struct vu_memory {
	uint32_t n, padding;
	struct vu_region regions[VU_REGIONS_MAX];
} __attribute__((packed));

struct vu_one_region {
	uint64_t padding;
	struct vu_region region;
} __attribute__((packed));

struct vu_log {
	uint64_t mmap_size, mmap_offset;
} __attribute__((packed));

/* QEMU sends four bytes more than the fields have. */
struct vu_inflight {
	uint64_t mmap_size, mmap_offset;
	uint16_t n_queues, queue_size;
	uint32_t padding;
} __attribute__((packed));

struct vu_config {
	uint32_t offset, size, flags;
	uint8_t bytes[VU_CONFIG_BYTES_MAX];
} __attribute__((packed));

struct vu_message {
	uint32_t request, flags, size;
	union {
		uint64_t number;
		struct vu_vring_state state;
		struct vu_vring_addr addr;
		struct vu_memory memory;
		struct vu_one_region one_region;
		struct vu_log log;
		struct vu_inflight inflight;
		struct vu_config config;
		uint8_t bytes[512];
	} __attribute__((packed));
} __attribute__((packed));

#define VU_HEADER_BYTES        12u
#define VU_CONFIG_HEADER_BYTES 12u

_Static_assert(sizeof(struct vu_region) == 32, "a region has 32 bytes");
_Static_assert(sizeof(struct vu_vring_addr) == 40, "a ring's addresses have 40 bytes");
_Static_assert(sizeof(struct vu_inflight) == 24, "as QEMU sends it");
