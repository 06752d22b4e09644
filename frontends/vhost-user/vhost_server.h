/*
 * vhost_server.h: volumes and snapshots as disks of virtual machines: vhost-user-blk, one socket for each attached one.
 *
 * Owner: one reactor; all calls on its thread.
 */
#pragma once

#include "daemon/core/buffers.h"
#include "daemon/core/log.h"
#include "daemon/core/metrics.h"
#include "volumes/head/volume.h"

#define VHOST_WHY_BYTES 256

struct vhost_server;

struct vhost_server_options {
	struct reactor *reactor;
	struct log *log;
	struct volume_set *volumes;
	struct buffers *buffers;
	const char *dir;  /* of the sockets: DIR/NAME.sock, DIR/NAME@SNAP.sock */
	uint32_t poll_us; /* rings are looked at for so long after the last request; 0: only when kicked */
	bool file_memory; /* guests' memory may lie in files that are not in memory */
};
/* Opens a socket for everything attached over vhost-user, and for what will be. 0 or -errno. */
must_check int vhost_server_start(const struct vhost_server_options *o, struct vhost_server **out);
/* Finishes what is in flight, disconnects, removes the sockets, frees everything. */
void vhost_server_stop(struct vhost_server *s, void (*stopped)(void *context), void *context);

struct vhost_counters {
	counter n_doors, n_connections, n_requests;         /* now */
	counter accepted, refused, failed;                  /* failed: disconnected for a mistake of theirs */
	counter reads, writes, flushes, trims, zeroes, ids; /* requests by what they were */
	counter unsupported, errors, broken_rings, resumed;
	counter read_bytes, write_bytes, bounced_bytes; /* bounced: reads that went through a buffer of ours */
	counter kicks, calls, rereads, waits_buffers, waits_requests;
};
const struct vhost_counters *vhost_server_counters(const struct vhost_server *s);
/* Virtual machines that are connected to the volume of this name. */
uint32_t vhost_server_clients(const struct vhost_server *s, const char *name);
/* Requests older than age_ns: one line each. */
void vhost_server_slow_requests(struct vhost_server *s, uint64_t age_ns, void (*each)(const char *line, void *context),
				void *context);
