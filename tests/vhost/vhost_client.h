/*
 * vhost_client.h: a VMM's side of vhost-user-blk, for tests and measurements.
 *
 *	struct vhost_client c;
 *	vhost_client_init(&c, &(struct vhost_options){.path = "/run/v.sock", .n_queues = 2});
 *	vhost_client_connect(&c);             negotiates; again after the server was lost
 *	vhost_client_start(&c);               memory, rings, requests in flight
 *	s = vhost_slot_get(&c.queues[0]);     a request: vhost_slot.h
 *
 * Everything returns 0 or -errno; c->why then says what happened.
 */
#pragma once

#include <linux/virtio_blk.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/vhost/vhost_memory.h"
#include "tests/vhost/vhost_ring.h"
#include "tests/vhost/vhost_wire.h"

#define VHOST_QUEUES_MAX 16u
#define VHOST_PIECES_MAX 64u

struct vhost_options {
	const char *path;
	unsigned n_queues;   /* 0: 1 */
	uint16_t queue_size; /* 0: 128 */
	unsigned n_slots;    /* of each queue; 0: half the ring */
	uint32_t data_max;   /* bytes of a request; 0: 1 MiB */
	unsigned n_regions;  /* 0: 3 */
	bool is_packed;
	bool without_event_idx, without_indirect, without_inflight, without_mem_slots, without_reply_ack;
	unsigned seconds_max; /* that an answer may take; 0: 60 */
};

/* A request's place: an area of guest memory and what is known of what stands in it. */
struct vhost_slot {
	struct vhost_queue *queue;
	uint64_t area; /* guest address of its memory */
	struct vhost_piece pieces[VHOST_PIECES_MAX];
	unsigned n_pieces, n_direct;
	uint64_t status_addr;
	uint32_t type, data_len;
	uint64_t sector;
	bool is_used;
	uint64_t started_ns;
	void *user;
};

struct vhost_queue {
	struct vhost_client *client;
	unsigned index;
	struct vhost_ring ring;
	uint64_t parts[3]; /* guest addresses of the ring's parts */
	uint32_t last_base;
	int kick, call, err;
	bool is_started;
	struct vhost_slot *slots;
	unsigned n_slots, next_slot, n_used_slots;
};

struct vhost_client {
	struct vhost_options o;
	int fd, backend_fd;
	char why[256];
	uint64_t features_offered, features, protocol_offered, protocol;
	uint64_t n_queues_offered, mem_slots_offered;
	struct virtio_blk_config config;
	struct vhost_memory memory;
	bool has_given_memory; /* to this connection; it stays over a reset */
	struct vhost_queue queues[VHOST_QUEUES_MAX];
	bool has_rings; /* the guest has made its rings */
	int inflight_fd;
	struct vu_inflight inflight;
	int log_fd;
	uint8_t *log;
	uint64_t log_size;
};

int vhost_client_init(struct vhost_client *c, const struct vhost_options *o);
void vhost_client_fini(struct vhost_client *c);

/* Connects and negotiates. Features once agreed on are asked for again, as a running guest does. */
int vhost_client_connect(struct vhost_client *c);
int vhost_client_start(struct vhost_client *c);
/* Drops the connection as a dying server or VMM does; rings, memory and requests in flight stay. */
void vhost_client_drop(struct vhost_client *c);
/* The guest forgets its rings: they are empty again, at start. For RESET_DEVICE and a guest that boots anew. */
void vhost_client_forget(struct vhost_client *c, bool is_packed);

/* Stop with requests in flight, and go on (a VM that is paused). */
int vhost_queue_stop(struct vhost_queue *q);
int vhost_queue_start(struct vhost_queue *q);

int vhost_client_reset(struct vhost_client *c);
int vhost_client_read_config(struct vhost_client *c);
int vhost_client_region_add(struct vhost_client *c, unsigned i);
int vhost_client_region_remove(struct vhost_client *c, unsigned i);
int vhost_client_memory_table(struct vhost_client *c);
/* Dirty pages are noted from now on (live migration), or no longer. */
int vhost_client_log(struct vhost_client *c, bool is_on);

/* A notice of the server: >0 its request, 0 none within so many milliseconds. */
int vhost_client_notice(struct vhost_client *c, int timeout_ms);

/* Messages as they are, for tests that lie: no field is filled in. */
int vhost_client_send(struct vhost_client *c, const struct vu_message *m, const int *fds, unsigned n_fds);
int vhost_client_receive(struct vhost_client *c, struct vu_message *m, int *fd);
/* A message, and the acknowledgement where one was agreed on. */
int vhost_client_tell(struct vhost_client *c, struct vu_message *m, const int *fds, unsigned n_fds);

void vhost_queue_kick(struct vhost_queue *q);
/* Makes all that was added visible and tells the server if it wants to know. */
void vhost_queue_push(struct vhost_queue *q);
/* Waits for a call on one of the queues or the end of the connection: 1, 0 (time), -ENOTCONN. */
int vhost_client_wait(struct vhost_client *c, int timeout_ms);
