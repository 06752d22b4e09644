/*
 * nbd_tls.h: TLS as a converter between plain and ciphered bytes in memory: it knows no socket and never waits.
 */
#pragma once

#include "daemon/core/base.h"
#include "frontends/nbd/nbd_server.h"

#include <sys/uio.h>

/* Certificates and keys; immutable after loading, shared by all sessions. */
struct nbd_tls_credentials;
must_check int nbd_tls_load(const char *cert_dir, const char *psk_file, char why[static NBD_WHY_BYTES],
			    struct nbd_tls_credentials **out);
void nbd_tls_unload(struct nbd_tls_credentials *c); /* NULL is fine */

/* One session. Owner: its connection. */
struct nbd_tls;
must_check int nbd_tls_create(struct nbd_tls_credentials *c, struct nbd_tls **out);
void nbd_tls_destroy(struct nbd_tls *t); /* NULL is fine */

/* ---- ciphered side ---- */

/* Room for what comes from the client; at least one byte whenever a call below said -EAGAIN. */
struct iovec nbd_tls_room(struct nbd_tls *t);
void nbd_tls_arrived(struct nbd_tls *t, uint32_t len_bytes);
/* What is to be sent to the client, taken out: it stays as it is until the next call. Length 0: nothing. */
struct iovec nbd_tls_depart(struct nbd_tls *t);

/* ---- plain side ---- */

/* 0 done; -EAGAIN more must arrive; -ENOBUFS what is to be sent must depart first; else -EPROTO with nbd_tls_why().
 * After every call something may wait to depart. */
must_check int nbd_tls_handshake(struct nbd_tls *t);
/* Bytes read; 0 the client has ended; -EAGAIN; -EPROTO. */
must_check int nbd_tls_read(struct nbd_tls *t, void *data, uint32_t len_bytes);
/* Is there room to depart for one more call of nbd_tls_write()? */
bool nbd_tls_can_write(const struct nbd_tls *t);
#define NBD_TLS_WRITE_MAX 16384u /* one record */
/* Ciphers len_bytes (1 to NBD_TLS_WRITE_MAX). 0 or -EPROTO. */
must_check int nbd_tls_write(struct nbd_tls *t, const void *data, uint32_t len_bytes);
/* Says goodbye in TLS's own words. */
void nbd_tls_end(struct nbd_tls *t);
/* Why the last call said -EPROTO. */
const char *nbd_tls_why(const struct nbd_tls *t);
