/*
 * nbd_server.h: volumes as NBD exports, on a unix socket, a TCP address, or both.
 *
 * Fixed newstyle only. Every volume that is attached over NBD is the export of its name; any number of connections may
 * use one export (they share the volume's head, so a FLUSH or FUA on one covers what completed on the others).
 *
 * A client can take no more than its share: request slots and I/O buffers are bounded for all connections together, and
 * one connection gets at most half of what is free (see nbd_request.c). A client that holds buffers which others wait
 * for, and moves fewer bytes than that in NBD_STALL_S, is disconnected, and so is one that has not agreed on an export
 * within NBD_HANDSHAKE_S.
 *
 * Owner: one reactor; all calls on its thread.
 */
#pragma once

#include "daemon/core/buffers.h"
#include "daemon/core/log.h"
#include "daemon/core/metrics.h"
#include "daemon/core/tls.h"
#include "frontends/nbd/nbd_format.h"
#include "volumes/head/volume.h"

struct nbd_server;

#define NBD_BLOCK_MIN           SECTOR_BYTES        /* what clients may address */
#define NBD_BLOCK_PREFERRED     BLOCK_BYTES         /* what needs no read before a write */
#define NBD_PAYLOAD_MAX         VOLUME_IO_BYTES_MAX /* of one read or write */
#define NBD_CONNECTIONS_DEFAULT 256u
#define NBD_HANDSHAKE_S         30u
#define NBD_STALL_S             30u
#define NBD_WHY_BYTES           TLS_WHY_BYTES
#define NBD_EXPORT_NAME_BYTES   (2 * VOLUME_NAME_MAX + 2) /* NAME or NAME@SNAP, with the final zero */

enum nbd_tls_mode {
	NBD_TLS_OFF,     /* STARTTLS is refused */
	NBD_TLS_ON,      /* STARTTLS is there for who asks */
	NBD_TLS_REQUIRE, /* nothing but STARTTLS and ABORT is answered before it */
};
must_check int nbd_tls_mode_from_text(const char *text, enum nbd_tls_mode *out); /* "off" "on" "require"; -EINVAL */

struct nbd_server_options {
	struct reactor *reactor;
	struct log *log;
	struct volume_set *volumes;
	struct buffers *buffers;
	const char *socket; /* path; NULL or "": none */
	const char *listen; /* "host:port"; NULL or "": none */
	enum nbd_tls_mode tls;
	/* X.509: server-cert.pem, server-key.pem; with ca-cert.pem there, a client must show a certificate signed by
	 * it. */
	const char *cert_dir;
	const char *psk_file;     /* lines NAME:HEXKEY; beside or instead of cert_dir */
	uint32_t max_connections; /* 0: NBD_CONNECTIONS_DEFAULT */
};

/* Listens. 0, or -errno with one line in why that says what is wrong and where. */
must_check int nbd_server_start(const struct nbd_server_options *o, char why[static NBD_WHY_BYTES],
				struct nbd_server **out);
/* Takes no new connections or requests, answers those in flight (bounded in time), disconnects, frees the server,
 * calls stopped(). */
void nbd_server_stop(struct nbd_server *s, void (*stopped)(void *context), void *context);
/* For the simulator: frees the memory at once, as a crash does; nothing is told or returned to anybody. */
void nbd_server_abandon(struct nbd_server *s);

struct nbd_counters {
	counter accepted, refused;             /* connections; refused: over the limit */
	counter handshakes_failed, stalled;    /* ended: broken or late handshake; too slow while others waited */
	counter tls_handshakes;                /* that succeeded */
	counter requests[NBD_N_COMMANDS];      /* by NBD_CMD_* */
	counter requests_refused;              /* answered with an error before the volume saw them */
	counter errors;                        /* that the volume gave */
	counter read_bytes, write_bytes;       /* payload */
	counter receives, sends;               /* system calls' worth: how well requests and replies are gathered */
	counter n_connections, n_requests;     /* now */
	counter waits_buffers, waits_requests; /* times a connection had to wait for its share */
};
const struct nbd_counters *nbd_server_counters(const struct nbd_server *s);

struct nbd_connection_view {
	uint64_t number;     /* of this server, from 1: names it in log lines */
	const char *stage;   /* "NEGOTIATE", "TRANSMIT", ... */
	const char *export_; /* "" before one was agreed on */
	const char *peer;    /* "unix" or the address */
	bool is_tls, is_structured;
	uint32_t n_requests; /* in flight */
	uint64_t held_bytes; /* of I/O buffers */
	uint64_t requests, read_bytes, write_bytes, age_ns;
};
/* Calls each() for every connection, oldest first; what the view points to is valid during the call. */
void nbd_server_connections(struct nbd_server *s, void (*each)(const struct nbd_connection_view *v, void *context),
			    void *context);
/* Requests older than age_ns: one line each with stage, age and what it waits for. */
void nbd_server_slow_requests(struct nbd_server *s, uint64_t age_ns, void (*each)(const char *line, void *context),
			      void *context);
