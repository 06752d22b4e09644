/*
 * vhost_world.h: the vhost-user server over volumes in memory in a simulated world, and a VMM with a guest that talks
 * to it: messages with descriptors, memory of two regions, a ring of tests/vhost (split or packed).
 *
 * Everything is synchronous for the test: a call steps the world until what it asks for has happened, or nothing can
 * happen any more.
 */
#pragma once

#include "daemon/core/bytes.h"
#include "frontends/vhost-user/vhost_format.h"
#include "frontends/vhost-user/vhost_server.h"
#include "tests/sim/sim.h"
#include "tests/unit/fake_volume.h"
#include "tests/vhost/vhost_ring.h"

#define WORLD_DIR          "/vhost"
#define WORLD_VOLUME_BYTES (64 * MIB)
#define WORLD_SNAPSHOT                                                                                                 \
	"a-volume-that-has-a-name-of-some-length@before-the-upgrade-of-its-system" /* more than a name has */
#define WORLD_MORE_MAX   4u
#define VMM_RING_SIZE    256u
#define VMM_REGION_BYTES (512 * KIB)
#define VMM_GUEST        0x10000ull     /* guest address of the first region; the second follows it */
#define VMM_USER         0x7f0000000ull /* the VMM's own address of the first; the second lies elsewhere */
#define VMM_DATA         (VMM_GUEST + 0x10000)
#define VMM_REPLY_MAX    (VHOST_HEADER_BYTES + VHOST_CONFIG_HEAD_BYTES + VHOST_CONFIG_BYTES_MAX)

struct vhost_world {
	struct sim *sim;
	struct sim_machine *machine;
	struct reactor *reactor;
	struct log *log;
	struct buffers *buffers;
	struct volume_set *set;
	struct volume *vm, *readonly; /* "vm1", and WORLD_SNAPSHOT */
	struct volume *more[WORLD_MORE_MAX];
	struct vhost_server *server; /* NULL: stopped */
};

struct vhost_world_options {
	uint64_t seed;         /* 0: 1 */
	uint64_t budget_bytes; /* 0: 8 MiB */
	uint64_t volume_bytes; /* 0: WORLD_VOLUME_BYTES */
	uint32_t poll_us;
	bool file_memory;
	uint32_t n_more; /* volumes beside "vm1" and WORLD_SNAPSHOT: "more0" and so on */
};
void vhost_world_start(struct vhost_world *w, const struct vhost_world_options *o);
/* Stops the server, and asserts that nothing is left of it. */
void vhost_world_stop_server(struct vhost_world *w);
/* The same, and no descriptor is open that a VMM of the test has not. */
void vhost_world_end(struct vhost_world *w);
void vhost_world_pass(struct vhost_world *w, uint64_t duration_ns);

/* ---- a VMM ---- */

struct vmm {
	struct vhost_world *world;
	struct stream *stream;
	struct op connect_op, send_op, receive_op;
	struct iovec send_iov, receive_iov;
	bool is_connected, is_receiving, has_ended;
	int error;                /* of the last send or receive */
	struct fds send_fds, fds; /* fds: came with the reply, the VMM's until the next one */
	uint8_t reply[VMM_REPLY_MAX];

	int memory[2], kick, call, err; /* descriptors; -1: none */
	int inflight;                   /* the area that the server made; -1: none */
	uint32_t inflight_bytes;
	bool is_packed;
	struct vhost_ring ring; /* queue 0 */
};
void vmm_connect(struct vhost_world *w, struct vmm *v, const char *volume);
/* Closes the connection; memory, descriptors and ring stay, for vmm_reconnect(). */
void vmm_drop(struct vmm *v);
void vmm_reconnect(struct vmm *v, const char *volume);
/* Drops it and closes everything it has. */
void vmm_close(struct vmm *v);
/* The server has ended the connection. */
bool vmm_is_ended(struct vmm *v);

/* Bytes as they are, with descriptors beside the first. */
void vmm_send(struct vmm *v, const void *data, uint32_t len_bytes, const struct fds *fds);
/* A message; fds are the VMM's and stay so. */
void vmm_tell(struct vmm *v, uint32_t kind, uint32_t flags, const void *payload, uint32_t len_bytes,
	      const struct fds *fds);
/* The server's next message of this kind, others before it are passed over; its payload, and how long it is. NULL: none
 * comes. */
const uint8_t *vmm_hear(struct vmm *v, uint32_t kind, uint32_t *len_bytes);
/* A message that wants an acknowledgement: 0 it was carried out, 1 refused, -1 the connection is gone. */
int vmm_ask(struct vmm *v, uint32_t kind, const void *payload, uint32_t len_bytes, const struct fds *fds);
int vmm_answer(struct vmm *v, uint32_t kind); /* to one that was told with VHOST_FLAG_NEED_ACK */
int vmm_ask_number(struct vmm *v, uint32_t kind, uint64_t number);
int vmm_ask_queue(struct vmm *v, uint32_t kind, uint32_t queue, uint32_t number);

/* What a VMM does before its guest runs, piece by piece; each returns 0, as vmm_ask(). */
int vmm_features(struct vmm *v, uint64_t without);
int vmm_memory(struct vmm *v);
/* One of its two regions, added or removed (VHOST_ADD_MEM_REG, VHOST_REM_MEM_REG): the message, and its answer. */
void vmm_region_tell(struct vmm *v, uint32_t kind, uint32_t i);
int vmm_region(struct vmm *v, uint32_t kind, uint32_t i);
int vmm_inflight(struct vmm *v);            /* asks for an area if it has none, and hands it over */
int vmm_ring(struct vmm *v, uint32_t base); /* queue 0: size, place, base, call, err, kick, enabled */
/* All of it. */
int vmm_start(struct vmm *v, bool is_packed);

/* ---- its guest ---- */

uint8_t *vmm_at(struct vmm *v, uint64_t guest);
/* Makes memory for the ring anew. */
void vmm_ring_init(struct vmm *v, bool is_packed);
/* A request of data at `data`, in one piece or cut into some of equal length, header and status in a place of the
 * token's; kicked if the device wants that. */
struct vmm_request {
	uint32_t type, token;
	uint64_t sector, data;
	uint32_t len_bytes;
	bool is_indirect;
	uint32_t n_cuts; /* pieces; 0: one. More than a few need is_indirect */
};
void vmm_request(struct vmm *v, const struct vmm_request *r);
/* The next completion; its status, or -1: none comes. */
int vmm_completion(struct vmm *v, uint32_t *token, uint32_t *len_bytes);
int vmm_do(struct vmm *v, const struct vmm_request *r);
int vmm_read(struct vmm *v, uint64_t sector, uint64_t data, uint32_t len_bytes); /* by an indirect table */
int vmm_write(struct vmm *v, uint64_t sector, uint64_t data, uint32_t len_bytes);
int vmm_set_cache(struct vmm *v, bool is_on);

/* ---- all of it: a guest that runs on "vm1" ---- */

struct guest_world {
	struct vhost_world w;
	struct vmm v;
};
void guest_world_open(struct guest_world *m, const struct vhost_world_options *o, bool is_packed); /* o: NULL: none */
void guest_world_close(struct guest_world *m);
