/*
 * tls.c: GnuTLS between two pieces of memory.
 *
 * GnuTLS pulls from `arrived` and pushes into `filling`; whoever owns the socket moves bytes from the one end and to
 * the other. While `flying` is being sent, `filling` takes what comes next, and then they change places.
 *
 *      socket --> arrived --pull--> GnuTLS --tls_read()--> plain
 *      socket <-- flying <-swap- filling <--push-- GnuTLS <--tls_write()-- plain
 *
 * Invariants
 *  1. Pull and push never wait: an empty `arrived` and a full `filling` say EAGAIN.
 *  2. tls_write() is called only with room for a whole record, so that a record is never left half pushed.
 *  3. Only TLS 1.2 and 1.3 are spoken (1.3 between nodes), and a client cannot start a second handshake.
 *  4. Between nodes both sides prove that they have the cluster's key: there is no other way to agree on anything.
 *  5. Where a certificate authority was given, the handshake fails unless the client's certificate is signed by it.
 */
#include "daemon/core/tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARRIVED_BYTES      (64u * 1024u)
#define DEPART_BYTES       (128u * 1024u)
#define RECORD_EXTRA_BYTES 512u /* more than header, nonce, padding and tag of any cipher take */

#define PRIORITIES     "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%NO_TICKETS"
#define PRIORITIES_PSK PRIORITIES ":+ECDHE-PSK:+DHE-PSK:+PSK"
/* Between nodes nothing older is spoken, and the key alone, with a fresh exchange for each connection, says who one is. */
#define PRIORITIES_PEER "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK:%NO_TICKETS"
#define PEER_IDENTITY   "quarry"

struct tls_credentials {
	gnutls_certificate_credentials_t x509;
	gnutls_psk_server_credentials_t psk;
	gnutls_psk_client_credentials_t psk_client; /* of a peer: either may begin */
	uint8_t key[TLS_KEY_BYTES_MAX];
	unsigned key_bytes;
	gnutls_priority_t priorities;
	bool asks_for_certificate;
};

struct tls {
	struct tls_credentials *credentials;
	gnutls_session_t session;
	const char *why;
	uint32_t arrived_start, arrived_end;
	uint32_t n_filling, n_flying;
	bool is_established;
	uint8_t *filling, *flying; /* DEPART_BYTES each */
	uint8_t arrived[ARRIVED_BYTES];
	uint8_t depart[2][DEPART_BYTES];
};

/* ---- credentials ---- */

/* `group` and `key` are of the configuration. */
static int say(char why[static TLS_WHY_BYTES], const char *group, const char *key, const char *path, const char *what)
{
	snprintf(why, TLS_WHY_BYTES, "%s.%s: %.120s%s%.60s", group, key, path, path[0] ? ": " : "", what);
	return -EINVAL;
}

static int load_x509(struct tls_credentials *c, const struct tls_server_files *f, char why[static TLS_WHY_BYTES])
{
	char ca[512], certificate[512], key[512];

	if ((size_t)snprintf(ca, sizeof(ca), "%s/ca-cert.pem", f->cert_dir) >= sizeof(ca))
		return say(why, f->group, "cert_dir", "", "the path is too long");
	snprintf(certificate, sizeof(certificate), "%s/server-cert.pem", f->cert_dir);
	snprintf(key, sizeof(key), "%s/server-key.pem", f->cert_dir);
	if (access(certificate, R_OK) != 0) /* GnuTLS does not say which of the two it cannot read, nor why */
		return say(why, f->group, "cert_dir", certificate, strerror(errno));
	if (access(key, R_OK) != 0)
		return say(why, f->group, "cert_dir", key, strerror(errno));
	if (gnutls_certificate_allocate_credentials(&c->x509) < 0)
		return -ENOMEM;
	int res = gnutls_certificate_set_x509_key_file(c->x509, certificate, key, GNUTLS_X509_FMT_PEM);
	if (res < 0)
		return say(why, f->group, "cert_dir", certificate, gnutls_strerror(res));
	if (access(ca, F_OK) != 0)
		return 0; /* any client may come, the server still shows who it is */
	res = gnutls_certificate_set_x509_trust_file(c->x509, ca, GNUTLS_X509_FMT_PEM);
	if (res <= 0)
		return say(why, f->group, "cert_dir", ca, res == 0 ? "holds no certificate" : gnutls_strerror(res));
	c->asks_for_certificate = true;
	return 0;
}

static int load_psk(struct tls_credentials *c, const struct tls_server_files *f, char why[static TLS_WHY_BYTES])
{
	const char *path = f->psk_file;

	if (access(path, R_OK) != 0)
		return say(why, f->group, "psk_file", path, strerror(errno));
	if (gnutls_psk_allocate_server_credentials(&c->psk) < 0)
		return -ENOMEM;
	int res = gnutls_psk_set_server_credentials_file(c->psk, path);
	return res < 0 ? say(why, f->group, "psk_file", path, gnutls_strerror(res)) : 0;
}

int tls_load_server(const struct tls_server_files *f, char why[static TLS_WHY_BYTES], struct tls_credentials **out)
{
	bool has_x509 = f->cert_dir && f->cert_dir[0], has_psk = f->psk_file && f->psk_file[0];

	if (!has_x509 && !has_psk)
		return say(why, f->group, "tls", "", "needs cert_dir or psk_file beside it");
	struct tls_credentials *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	int res = has_x509 ? load_x509(c, f, why) : 0;
	if (res == 0 && has_psk)
		res = load_psk(c, f, why);
	if (res == 0 && gnutls_priority_init(&c->priorities, has_psk ? PRIORITIES_PSK : PRIORITIES, NULL) < 0)
		res = say(why, f->group, "tls", "", "gnutls does not know the priorities " PRIORITIES_PSK);
	if (res != 0) {
		tls_unload(c);
		return res;
	}
	quarry_assert(c->x509 != NULL || c->psk != NULL);
	*out = c;
	return 0;
}

/* ---- the key that all nodes of a cluster share ---- */

/* The file's first word: the key in hexadecimal digits. 0 or -EINVAL with why; the file's content is wiped. */
static int key_read(const char *path, uint8_t key[static TLS_KEY_BYTES_MAX], unsigned *len,
		    char why[static TLS_WHY_BYTES])
{
	char text[2 * TLS_KEY_BYTES_MAX + 64] = "";
	struct stat st;
	FILE *f = fopen(path, "re");
	if (!f)
		return say(why, "peer", "key_file", path, strerror(errno));
	bool is_open_to_others = fstat(fileno(f), &st) < 0 || (st.st_mode & (S_IRWXG | S_IRWXO)) != 0;
	size_t n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	size_t n_digits = strspn(text, "0123456789abcdefABCDEF"), key_bytes = TLS_KEY_BYTES_MAX;
	bool is_word = text[n_digits] == '\0' || strchr(" \t\r\n", text[n_digits]) != NULL;
	const gnutls_datum_t hex = {.data = (unsigned char *)text, .size = (unsigned)n_digits};
	bool is_key = is_word && n_digits % 2 == 0 && n_digits / 2 >= TLS_KEY_BYTES_MIN &&
		      n_digits / 2 <= TLS_KEY_BYTES_MAX && gnutls_hex_decode(&hex, key, &key_bytes) == 0;
	gnutls_memset(text, 0, sizeof(text));
	if (is_open_to_others)
		return say(why, "peer", "key_file", path, "must be its owner's alone: chmod 600");
	if (!is_key)
		return say(why, "peer", "key_file", path, "needs 64 to 128 hexadecimal digits on its first line");
	*len = (unsigned)key_bytes;
	return 0;
}

/* The server's side asks for the key of a name. */
static int key_of(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
	const struct tls *t = gnutls_session_get_ptr(session);
	const struct tls_credentials *c = t->credentials;
	quarry_assert(c->key_bytes > 0);
	if (strcmp(name, PEER_IDENTITY) != 0)
		return -1;
	key->data = gnutls_malloc(c->key_bytes);
	if (!key->data)
		return -1;
	memcpy(key->data, c->key, c->key_bytes);
	key->size = c->key_bytes;
	return 0;
}

int tls_load_peer(const char *key_file, char why[static TLS_WHY_BYTES], struct tls_credentials **out)
{
	struct tls_credentials *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	int res = key_read(key_file, c->key, &c->key_bytes, why);
	const gnutls_datum_t key = {.data = c->key, .size = c->key_bytes};
	if (res == 0 && (gnutls_psk_allocate_server_credentials(&c->psk) < 0 ||
			 gnutls_psk_allocate_client_credentials(&c->psk_client) < 0 ||
			 gnutls_psk_set_client_credentials(c->psk_client, PEER_IDENTITY, &key, GNUTLS_PSK_KEY_RAW) < 0))
		res = -ENOMEM;
	if (res == 0 && gnutls_priority_init(&c->priorities, PRIORITIES_PEER, NULL) < 0)
		res = say(why, "peer", "key_file", "", "gnutls does not know the priorities " PRIORITIES_PEER);
	if (res != 0) {
		tls_unload(c);
		return res;
	}
	gnutls_psk_set_server_credentials_function(c->psk, key_of);
	*out = c;
	return 0;
}

void tls_unload(struct tls_credentials *c)
{
	if (!c)
		return;
	if (c->x509)
		gnutls_certificate_free_credentials(c->x509);
	if (c->psk)
		gnutls_psk_free_server_credentials(c->psk);
	if (c->psk_client)
		gnutls_psk_free_client_credentials(c->psk_client);
	if (c->priorities)
		gnutls_priority_deinit(c->priorities);
	gnutls_memset(c->key, 0, sizeof(c->key));
	free(c);
}

/* ---- what GnuTLS calls ---- */

static ssize_t tls_pull(gnutls_transport_ptr_t context, void *data, size_t len_bytes)
{
	struct tls *t = context;
	uint32_t there = t->arrived_end - t->arrived_start;

	quarry_assert(t->arrived_end <= ARRIVED_BYTES && t->arrived_start <= t->arrived_end);
	if (there == 0) {
		gnutls_transport_set_errno(t->session, EAGAIN);
		return -1;
	}
	uint32_t n = (uint32_t)min_u64(there, len_bytes);
	memcpy(data, t->arrived + t->arrived_start, n);
	t->arrived_start += n;
	return (ssize_t)n;
}

static ssize_t tls_push(gnutls_transport_ptr_t context, const void *data, size_t len_bytes)
{
	struct tls *t = context;
	uint32_t n = (uint32_t)min_u64(DEPART_BYTES - t->n_filling, len_bytes);

	quarry_assert(t->n_filling <= DEPART_BYTES);
	if (n == 0) {
		gnutls_transport_set_errno(t->session, EAGAIN);
		return -1;
	}
	memcpy(t->filling + t->n_filling, data, n);
	t->n_filling += n;
	return (ssize_t)n;
}

/* The client's certificate, after the handshake showed that it has the key. */
static int check_client(gnutls_session_t session)
{
	struct tls *t = gnutls_session_get_ptr(session);
	unsigned status = 0;

	if (gnutls_auth_get_type(session) != GNUTLS_CRD_CERTIFICATE)
		return 0; /* PSK: the key itself was the proof */
	if (!t->credentials->asks_for_certificate)
		return 0;
	int res = gnutls_certificate_verify_peers2(session, &status);
	if (res < 0 || status != 0) {
		t->why = res < 0 ? "the client showed no certificate" : "the client's certificate is not trusted";
		return GNUTLS_E_CERTIFICATE_ERROR;
	}
	return 0;
}

/* ---- a session ---- */

static int session_prepare(struct tls *t, enum tls_side side)
{
	struct tls_credentials *c = t->credentials;

	if (gnutls_priority_set(t->session, c->priorities) < 0)
		return -EPROTO;
	if (c->x509 && gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, c->x509) < 0)
		return -EPROTO;
	void *psk = side == TLS_CLIENT ? (void *)c->psk_client : (void *)c->psk;
	if (psk && gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, psk) < 0)
		return -EPROTO;
	if (c->asks_for_certificate)
		gnutls_certificate_server_set_request(t->session, GNUTLS_CERT_REQUIRE);
	gnutls_session_set_ptr(t->session, t);
	gnutls_session_set_verify_function(t->session, check_client);
	gnutls_transport_set_ptr(t->session, t);
	gnutls_transport_set_pull_function(t->session, tls_pull);
	gnutls_transport_set_push_function(t->session, tls_push);
	return 0;
}

int tls_create(struct tls_credentials *c, enum tls_side side, struct tls **out)
{
	struct tls *t = malloc(sizeof(*t)); /* its buffers stay untouched until they are used */

	quarry_assert(c != NULL);
	quarry_assert(side == TLS_SERVER || c->psk_client);
	if (!t)
		return -ENOMEM;
	t->credentials = c;
	t->session = NULL;
	t->why = "";
	t->arrived_start = t->arrived_end = t->n_filling = t->n_flying = 0;
	t->is_established = false;
	t->filling = t->depart[0];
	t->flying = t->depart[1];
	if (gnutls_init(&t->session, (side == TLS_CLIENT ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_NONBLOCK |
					 GNUTLS_NO_SIGNAL) < 0) {
		free(t);
		return -ENOMEM;
	}
	if (session_prepare(t, side) != 0) {
		tls_destroy(t);
		return -EPROTO;
	}
	*out = t;
	return 0;
}

void tls_destroy(struct tls *t)
{
	if (!t)
		return;
	gnutls_deinit(t->session);
	free(t);
}

const char *tls_why(const struct tls *t)
{
	return t->why;
}

/* ---- ciphered side ---- */

struct iovec tls_room(struct tls *t)
{
	if (t->arrived_start == t->arrived_end)
		t->arrived_start = t->arrived_end = 0;
	if (t->arrived_end == ARRIVED_BYTES && t->arrived_start > 0) {
		memmove(t->arrived, t->arrived + t->arrived_start, t->arrived_end - t->arrived_start);
		t->arrived_end -= t->arrived_start;
		t->arrived_start = 0;
	}
	quarry_assert(t->arrived_end < ARRIVED_BYTES); /* GnuTLS said EAGAIN, so it has taken all that was there */
	return (struct iovec){.iov_base = t->arrived + t->arrived_end, .iov_len = ARRIVED_BYTES - t->arrived_end};
}

void tls_arrived(struct tls *t, uint32_t len_bytes)
{
	quarry_assert(len_bytes <= ARRIVED_BYTES - t->arrived_end);
	t->arrived_end += len_bytes;
}

struct iovec tls_depart(struct tls *t)
{
	uint8_t *flown = t->flying;

	t->flying = t->filling;
	t->n_flying = t->n_filling;
	t->filling = flown;
	t->n_filling = 0;
	quarry_assert(t->flying != t->filling);
	return (struct iovec){.iov_base = t->flying, .iov_len = t->n_flying};
}

/* ---- plain side ---- */

/* What went wrong for good, in words; a reason noted earlier is the better one. */
static int tls_failed(struct tls *t, int res)
{
	quarry_assert(res < 0);
	if (t->why[0] == 0)
		t->why = gnutls_strerror(res);
	return -EPROTO;
}

int tls_handshake(struct tls *t)
{
	quarry_assert(!t->is_established);
	for (;;) {
		int res = gnutls_handshake(t->session);
		if (res == GNUTLS_E_SUCCESS) {
			t->is_established = true;
			return 0;
		}
		if (res == GNUTLS_E_AGAIN)
			return gnutls_record_get_direction(t->session) == 0 ? -EAGAIN : -ENOBUFS;
		if (gnutls_error_is_fatal(res)) {
			gnutls_alert_send_appropriate(t->session, res); /* lets the client say why */
			return tls_failed(t, res);
		}
		/* a warning: go on; each took at least one record of what had arrived, so this ends */
	}
}

int tls_read(struct tls *t, void *data, uint32_t len_bytes)
{
	quarry_assert(t->is_established && len_bytes > 0);
	for (;;) {
		ssize_t res = gnutls_record_recv(t->session, data, len_bytes);
		if (res >= 0)
			return (int)res;
		if (res == GNUTLS_E_AGAIN)
			return -EAGAIN;
		if (res == GNUTLS_E_REHANDSHAKE || gnutls_error_is_fatal((int)res))
			return tls_failed(t, (int)res);
	}
}

bool tls_can_write(const struct tls *t)
{
	return DEPART_BYTES - t->n_filling >= TLS_WRITE_MAX + RECORD_EXTRA_BYTES;
}

int tls_write(struct tls *t, const void *data, uint32_t len_bytes)
{
	quarry_assert(t->is_established && tls_can_write(t));
	quarry_assert(len_bytes > 0 && len_bytes <= TLS_WRITE_MAX);
	const uint8_t *next = data;
	while (len_bytes > 0) { /* more than one record only if the client asked for smaller ones */
		ssize_t res = gnutls_record_send(t->session, next, len_bytes);
		if (res <= 0)
			return tls_failed(t, res < 0 ? (int)res : GNUTLS_E_PUSH_ERROR);
		next += res;
		len_bytes -= (uint32_t)res;
	}
	return 0;
}

void tls_end(struct tls *t)
{
	if (t->is_established)
		(void)gnutls_bye(t->session, GNUTLS_SHUT_WR);
}
