/*
 * tls.h: TLS as a converter between plain and ciphered bytes in memory: it knows no socket and never waits.
 */
#pragma once

#include "daemon/core/base.h"

#include <sys/uio.h>

#define TLS_WHY_BYTES     200
#define TLS_KEY_BYTES_MIN 32u
#define TLS_KEY_BYTES_MAX 64u

/* Certificates and keys; immutable after loading, shared by all sessions. */
struct tls_credentials;

/* Of a server: certificates in a folder (server-cert.pem, server-key.pem, ca-cert.pem where clients must show one too), a file
 * of names with keys, or both. */
struct tls_server_files {
	const char *group; /* of the configuration, for messages: "nbd" */
	const char *cert_dir, *psk_file;
};
must_check int tls_load_server(const struct tls_server_files *f, char why[static TLS_WHY_BYTES],
			       struct tls_credentials **out);
/* Of a node among nodes, for both sides: the cluster's key (peer.key_file). */
must_check int tls_load_peer(const char *key_file, char why[static TLS_WHY_BYTES], struct tls_credentials **out);
void tls_unload(struct tls_credentials *c); /* NULL is fine */

/* One session. Owner: its connection. */
struct tls;
enum tls_side { TLS_SERVER, TLS_CLIENT };
must_check int tls_create(struct tls_credentials *c, enum tls_side side, struct tls **out);
void tls_destroy(struct tls *t); /* NULL is fine */

/* ---- ciphered side ---- */

/* Room for what comes from the other side; at least one byte whenever a call below said -EAGAIN. */
struct iovec tls_room(struct tls *t);
void tls_arrived(struct tls *t, uint32_t len_bytes);
/* What is to be sent to it, taken out: it stays as it is until the next call. Length 0: nothing. */
struct iovec tls_depart(struct tls *t);

/* ---- plain side ---- */

/* 0 done; -EAGAIN more must arrive; -ENOBUFS what is to be sent must depart first; else -EPROTO with tls_why().
 * After every call something may wait to depart. */
must_check int tls_handshake(struct tls *t);
/* Bytes read; 0 the other side has ended; -EAGAIN; -EPROTO. */
must_check int tls_read(struct tls *t, void *data, uint32_t len_bytes);
/* Is there room to depart for one more call of tls_write()? */
bool tls_can_write(const struct tls *t);
#define TLS_WRITE_MAX 16384u /* one record */
/* Ciphers len_bytes (1 to TLS_WRITE_MAX). 0 or -EPROTO. */
must_check int tls_write(struct tls *t, const void *data, uint32_t len_bytes);
/* Says goodbye in TLS's own words. */
void tls_end(struct tls *t);
/* Why the last call said -EPROTO. */
const char *tls_why(const struct tls *t);
