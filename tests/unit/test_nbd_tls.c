/*
 * test_nbd_tls.c: TLS as a converter in memory, and the NBD server behind it: certificates, keys, and those who have
 * none.
 *
 * The client's side is GnuTLS too, over push and pull functions that step the simulated world. Keys and certificates
 * are made anew in a temporary folder.
 */
#include "tests/unit/nbd_world.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FIXED     (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)
#define PEM_BYTES 8192u

static struct nbd_world world;
static struct nbd_client client;
static char folder[] = "/tmp/quarry-nbd-tls-XXXXXX";

/* ---- keys and certificates ---- */

struct identity {
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t certificate;
};

static struct identity ca, other_ca, server_id, client_id, stranger_id;

static void path_in_folder(char path[static 128], const char *sub, const char *name)
{
	snprintf(path, 128, "%s/%s/%s", folder, sub, name);
}

static void write_file(const char *sub, const char *name, const void *data, size_t len_bytes)
{
	char path[128];

	path_in_folder(path, sub, name);
	FILE *f = fopen(path, "w");
	quarry_assert(f != NULL);
	quarry_assert(fwrite(data, 1, len_bytes, f) == len_bytes);
	quarry_assert(fclose(f) == 0);
}

static struct identity identity_make(const char *name, const struct identity *issuer)
{
	struct identity id;
	uint8_t serial = (uint8_t)name[0];
	time_t now = time(NULL);

	quarry_assert(gnutls_x509_privkey_init(&id.key) == 0 && gnutls_x509_crt_init(&id.certificate) == 0);
	quarry_assert(gnutls_x509_privkey_generate(id.key, GNUTLS_PK_ECDSA,
						   GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0) == 0);
	quarry_assert(gnutls_x509_crt_set_version(id.certificate, 3) == 0);
	quarry_assert(gnutls_x509_crt_set_serial(id.certificate, &serial, 1) == 0);
	gnutls_x509_crt_set_activation_time(id.certificate, now - 3600);
	gnutls_x509_crt_set_expiration_time(id.certificate, now + 3600);
	gnutls_x509_crt_set_dn_by_oid(id.certificate, GNUTLS_OID_X520_COMMON_NAME, 0, name, (unsigned)strlen(name));
	gnutls_x509_crt_set_key(id.certificate, id.key);
	gnutls_x509_crt_set_basic_constraints(id.certificate, issuer == NULL, -1);
	const struct identity *by = issuer ? issuer : &id;
	quarry_assert(gnutls_x509_crt_sign2(id.certificate, by->certificate, by->key, GNUTLS_DIG_SHA256, 0) == 0);
	return id;
}

static void identity_free(struct identity *id)
{
	gnutls_x509_crt_deinit(id->certificate);
	gnutls_x509_privkey_deinit(id->key);
}

static void identity_write(const struct identity *id, const char *sub, const char *certificate, const char *key)
{
	char pem[PEM_BYTES];
	size_t size = sizeof(pem);

	quarry_assert(gnutls_x509_crt_export(id->certificate, GNUTLS_X509_FMT_PEM, pem, &size) == 0);
	write_file(sub, certificate, pem, size);
	if (!key)
		return;
	size = sizeof(pem);
	quarry_assert(gnutls_x509_privkey_export(id->key, GNUTLS_X509_FMT_PEM, pem, &size) == 0);
	write_file(sub, key, pem, size);
}

static int make_keys(void)
{
	static const char keys[] = "alice:000102030405060708090a0b0c0d0e0f\n";
	char path[128];

	quarry_assert(mkdtemp(folder) != NULL);
	for (int i = 0; i < 3; i++) {
		path_in_folder(path, (const char *const[]){"strict", "open", "psk"}[i], "");
		quarry_assert(mkdir(path, 0700) == 0);
	}
	ca = identity_make("authority", NULL);
	other_ca = identity_make("impostor", NULL);
	server_id = identity_make("server", &ca);
	client_id = identity_make("client", &ca);
	stranger_id = identity_make("stranger", &other_ca);
	identity_write(&ca, "strict", "ca-cert.pem", NULL);
	identity_write(&server_id, "strict", "server-cert.pem", "server-key.pem");
	identity_write(&server_id, "open", "server-cert.pem", "server-key.pem");
	write_file("psk", "keys.psk", keys, sizeof(keys) - 1);
	return 0;
}

static int remove_keys(void)
{
	static const char *const files[] = {"strict/ca-cert.pem",   "strict/server-cert.pem", "strict/server-key.pem",
					    "open/server-cert.pem", "open/server-key.pem",    "psk/keys.psk"};
	char path[128];

	for (size_t i = 0; i < array_size(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
		unlink(path);
	}
	for (int i = 0; i < 3; i++) {
		path_in_folder(path, (const char *const[]){"strict", "open", "psk"}[i], "");
		rmdir(path);
	}
	identity_free(&ca);
	identity_free(&other_ca);
	identity_free(&server_id);
	identity_free(&client_id);
	identity_free(&stranger_id);
	return rmdir(folder);
}

/* ---- a client under TLS ---- */

struct tls_client {
	gnutls_session_t session;
	gnutls_certificate_credentials_t x509;
	gnutls_psk_client_credentials_t psk;
};

static ssize_t pull(gnutls_transport_ptr_t context, void *data, size_t len_bytes)
{
	struct nbd_client *c = context;
	const uint8_t *p = client_take(c, 1);

	if (!p)
		return 0; /* the end */
	size_t more = (size_t)min_u64(len_bytes - 1, c->end - c->start);
	memcpy(data, p, 1 + more);
	c->start += more;
	return (ssize_t)(1 + more);
}

static ssize_t push(gnutls_transport_ptr_t context, const void *data, size_t len_bytes)
{
	client_send(context, data, len_bytes);
	return (ssize_t)len_bytes;
}

struct tls_as {
	const struct identity *identity; /* shows this certificate */
	const char *psk_key;             /* or uses this key, as alice */
	bool is_old;                     /* speaks TLS 1.2 at most */
	bool is_ancient;                 /* 1.1 */
};

static void tls_begin(struct tls_client *t, const struct tls_as *as)
{
	const char *priorities = as->is_ancient ? "NORMAL:-VERS-ALL:+VERS-TLS1.1"
				 : as->is_old   ? "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK"
						: "NORMAL:+ECDHE-PSK:+DHE-PSK";
	*t = (struct tls_client){0};
	quarry_assert(gnutls_init(&t->session, GNUTLS_CLIENT) == 0);
	quarry_assert(gnutls_priority_set_direct(t->session, priorities, NULL) == 0);
	quarry_assert(gnutls_certificate_allocate_credentials(&t->x509) == 0);
	if (as->identity)
		quarry_assert(gnutls_certificate_set_x509_key(t->x509, (gnutls_x509_crt_t[]){as->identity->certificate},
							      1, as->identity->key) == 0);
	if (as->psk_key) {
		gnutls_datum_t key = {(uint8_t *)(uintptr_t)as->psk_key, (unsigned)strlen(as->psk_key)};
		quarry_assert(gnutls_psk_allocate_client_credentials(&t->psk) == 0);
		quarry_assert(gnutls_psk_set_client_credentials(t->psk, "alice", &key, GNUTLS_PSK_KEY_HEX) == 0);
		gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, t->psk);
	} else {
		gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, t->x509);
	}
	gnutls_transport_set_ptr(t->session, &client);
	gnutls_transport_set_pull_function(t->session, pull);
	gnutls_transport_set_push_function(t->session, push);
}

static void client_end(struct tls_client *t)
{
	gnutls_deinit(t->session);
	gnutls_certificate_free_credentials(t->x509);
	if (t->psk)
		gnutls_psk_free_client_credentials(t->psk);
}

/* Shakes hands; 0, or what GnuTLS says. In TLS 1.3 a server refuses a certificate after the client's part is done: the
 * first byte read then tells. */
static int client_handshake(struct tls_client *t)
{
	int res;
	do
		res = gnutls_handshake(t->session);
	while (res < 0 && !gnutls_error_is_fatal(res));
	return res;
}

static void tls_send(struct tls_client *t, const void *data, size_t len_bytes)
{
	const uint8_t *p = data;
	while (len_bytes > 0) {
		ssize_t n = gnutls_record_send(t->session, p, len_bytes);
		quarry_assert(n > 0);
		p += n;
		len_bytes -= (size_t)n;
	}
}

static bool tls_take(struct tls_client *t, void *data, size_t len_bytes)
{
	uint8_t *p = data;
	while (len_bytes > 0) {
		ssize_t n = gnutls_record_recv(t->session, p, len_bytes);
		if (n <= 0)
			return false;
		p += n;
		len_bytes -= (size_t)n;
	}
	return true;
}

static void tls_option(struct tls_client *t, uint32_t option, const void *data, uint32_t len_bytes)
{
	uint8_t bytes[256];

	put_be64(bytes, NBD_OPTION_MAGIC);
	put_be32(bytes + 8, option);
	put_be32(bytes + 12, len_bytes);
	if (len_bytes > 0)
		memcpy(bytes + 16, data, len_bytes);
	tls_send(t, bytes, 16 + len_bytes);
}

/* The type of the next option reply; its data is skipped. 0: none. */
static uint32_t tls_option_reply(struct tls_client *t)
{
	uint8_t header[NBD_OPTION_REPLY_HEADER_BYTES], data[256];

	if (!tls_take(t, header, sizeof(header)))
		return 0;
	quarry_assert(get_be64(header) == NBD_OPTION_REPLY_MAGIC && get_be32(header + 16) <= sizeof(data));
	if (get_be32(header + 16) > 0 && !tls_take(t, data, get_be32(header + 16)))
		return 0;
	return get_be32(header + 12);
}

/* ---- the server's world ---- */

static void begin(enum nbd_tls_mode mode, const char *certificates, bool has_psk)
{
	char certs[128], keys[128];

	path_in_folder(certs, certificates ? certificates : "", "");
	path_in_folder(keys, "psk", "keys.psk");
	world_start(&world, &(struct nbd_world_options){.tls = mode,
							.cert_dir = certificates ? certs : NULL,
							.psk_file = has_psk ? keys : NULL});
	client_connect(&world, &client);
	client_greet(&client, FIXED);
}

static void starttls(void)
{
	client_option(&client, NBD_OPT_STARTTLS, NULL, 0);
	CU_ASSERT_EQUAL(client_option_reply(&client).type, NBD_REP_ACK);
}

static void end(void)
{
	client_close(&client);
	world_end(&world);
}

#define ALICE "000102030405060708090a0b0c0d0e0f"
static const uint8_t go_vm1[] = {0, 0, 0, 3, 'v', 'm', '1', 0, 0};

/* Does this client get as far as an export? */
static bool is_let_in(const struct tls_as *as)
{
	struct tls_client t;
	bool is_in = false;

	starttls();
	tls_begin(&t, as);
	if (client_handshake(&t) == 0) {
		uint8_t header[NBD_OPTION_HEADER_BYTES];
		put_be64(header, NBD_OPTION_MAGIC);
		put_be32(header + 8, NBD_OPT_LIST);
		put_be32(header + 12, 0);
		if (gnutls_record_send(t.session, header, sizeof(header)) > 0)
			is_in = tls_option_reply(&t) == NBD_REP_SERVER;
	}
	client_end(&t);
	return is_in;
}

/* ---- who is let in ---- */

static void test_a_shared_key_lets_in(void)
{
	for (int is_old = 0; is_old < 2; is_old++) {
		begin(NBD_TLS_REQUIRE, NULL, true);
		CU_ASSERT(is_let_in(&(struct tls_as){.psk_key = ALICE, .is_old = is_old}));
		CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->tls_handshakes), 1);
		end();
	}
}

static void test_another_key_does_not(void)
{
	for (int is_old = 0; is_old < 2; is_old++) {
		begin(NBD_TLS_REQUIRE, NULL, true);
		CU_ASSERT_FALSE(
		    is_let_in(&(struct tls_as){.psk_key = "ff0102030405060708090a0b0c0d0e0f", .is_old = is_old}));
		world_pass(&world, NS_PER_S);
		CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->n_connections), 0);
		CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->handshakes_failed), 1);
		end();
	}
}

static void test_with_an_authority_only_its_clients_are_let_in(void)
{
	static const struct {
		struct identity *identity;
		bool is_let_in;
	} cases[] = {{&client_id, true}, {&stranger_id, false}, {NULL, false}};

	for (size_t i = 0; i < 2 * array_size(cases); i++) {
		begin(NBD_TLS_ON, "strict", false);
		CU_ASSERT_EQUAL(is_let_in(&(struct tls_as){.identity = cases[i / 2].identity, .is_old = i % 2}),
				cases[i / 2].is_let_in);
		end();
	}
}

static void test_without_an_authority_anybody_is(void)
{
	begin(NBD_TLS_ON, "open", false);
	CU_ASSERT(is_let_in(&(struct tls_as){0}));
	end();
}

static void test_certificates_and_keys_beside_each_other(void)
{
	begin(NBD_TLS_REQUIRE, "strict", true);
	CU_ASSERT(is_let_in(&(struct tls_as){.psk_key = ALICE}));
	end();
	begin(NBD_TLS_REQUIRE, "strict", true);
	CU_ASSERT(is_let_in(&(struct tls_as){.identity = &client_id}));
	end();
	begin(NBD_TLS_REQUIRE, "strict", true);
	CU_ASSERT_FALSE(is_let_in(&(struct tls_as){.identity = &stranger_id}));
	end();
}

static void test_old_versions_are_not_spoken(void)
{
	begin(NBD_TLS_ON, "open", false);
	CU_ASSERT_FALSE(is_let_in(&(struct tls_as){.is_ancient = true}));
	end();
}

/* ---- the protocol around it ---- */

static void test_where_tls_is_required_nothing_goes_before_it(void)
{
	static const uint32_t options[] = {NBD_OPT_LIST, NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_STRUCTURED_REPLY, 4711};

	begin(NBD_TLS_REQUIRE, NULL, true);
	for (size_t i = 0; i < array_size(options); i++) {
		client_option(&client, options[i], go_vm1, sizeof(go_vm1));
		CU_ASSERT_EQUAL(client_option_reply(&client).type, NBD_REP_ERR_TLS_REQD);
	}
	client_option(&client, NBD_OPT_ABORT, NULL, 0);
	CU_ASSERT_EQUAL(client_option_reply(&client).type, NBD_REP_ACK);
	end();
	begin(NBD_TLS_REQUIRE, NULL, true);
	client_option(&client, NBD_OPT_EXPORT_NAME, "vm1", 3);
	CU_ASSERT(client_is_ended(&client));
	end();
}

static void test_where_it_is_offered_the_clear_is_served_too(void)
{
	begin(NBD_TLS_ON, NULL, true);
	client_option(&client, NBD_OPT_GO, go_vm1, sizeof(go_vm1));
	CU_ASSERT_EQUAL(client_option_reply(&client).type, NBD_REP_INFO);
	end();
}

static void test_starttls_with_data_or_twice_is_invalid(void)
{
	struct tls_client t;

	begin(NBD_TLS_ON, NULL, true);
	client_option(&client, NBD_OPT_STARTTLS, "x", 1);
	CU_ASSERT_EQUAL(client_option_reply(&client).type, NBD_REP_ERR_INVALID);
	starttls();
	tls_begin(&t, &(struct tls_as){.psk_key = ALICE});
	CU_ASSERT_EQUAL_FATAL(client_handshake(&t), 0);
	tls_option(&t, NBD_OPT_STARTTLS, NULL, 0);
	CU_ASSERT_EQUAL(tls_option_reply(&t), NBD_REP_ERR_INVALID);
	client_end(&t);
	end();
}

/* Structured replies agreed on in the clear do not count afterwards. */
static void test_what_was_said_in_the_clear_is_forgotten(void)
{
	struct tls_client t;
	uint8_t reply[NBD_SIMPLE_REPLY_BYTES + 512], request[NBD_REQUEST_BYTES];

	begin(NBD_TLS_ON, NULL, true);
	client_option(&client, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	CU_ASSERT_EQUAL(client_option_reply(&client).type, NBD_REP_ACK);
	starttls();
	tls_begin(&t, &(struct tls_as){.psk_key = ALICE});
	CU_ASSERT_EQUAL_FATAL(client_handshake(&t), 0);
	tls_option(&t, NBD_OPT_GO, go_vm1, sizeof(go_vm1));
	while (tls_option_reply(&t) == NBD_REP_INFO) {
	}
	client_request_encode(request, &(struct client_request){.command = NBD_CMD_READ, .len_bytes = 512});
	tls_send(&t, request, sizeof(request));
	CU_ASSERT_FATAL(tls_take(&t, reply, sizeof(reply)));
	CU_ASSERT_EQUAL(get_be32(reply), NBD_SIMPLE_REPLY_MAGIC);
	client_end(&t);
	end();
}

/* Bytes that somebody slipped in behind STARTTLS must never count as the secured client's. */
static void test_what_is_sent_ahead_of_the_handshake_ends_it(void)
{
	uint8_t both[2 * NBD_OPTION_HEADER_BYTES];

	begin(NBD_TLS_ON, NULL, true);
	put_be64(both, NBD_OPTION_MAGIC);
	put_be32(both + 8, NBD_OPT_STARTTLS);
	put_be32(both + 12, 0);
	memcpy(both + 16, both, 16);
	put_be32(both + 24, NBD_OPT_STRUCTURED_REPLY);
	client_send(&client, both, sizeof(both));
	/* in two pieces the first may be answered before the second is there; then it is no handshake either */
	const uint8_t *p = client_take(&client, NBD_OPTION_REPLY_HEADER_BYTES);
	CU_ASSERT(p == NULL || get_be32(p + 12) == NBD_REP_ACK);
	world_pass(&world, NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->n_connections), 0);
	end();
}

static void test_silence_in_the_handshake_is_ended(void)
{
	begin(NBD_TLS_ON, NULL, true);
	starttls();
	world_pass(&world, (NBD_HANDSHAKE_S + 1) * NS_PER_S);
	CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->n_connections), 0);
	CU_ASSERT(client_is_ended(&client));
	end();
}

static void test_garbage_in_the_handshake_is_ended(void)
{
	uint8_t junk[5000];
	unsigned seed = 11;

	for (int round = 0; round < 20; round++) {
		begin(NBD_TLS_ON, "open", true);
		starttls();
		for (size_t i = 0; i < sizeof(junk); i++)
			junk[i] = (uint8_t)rand_r(&seed);
		if (round % 2)
			memcpy(junk, "\x16\x03\x01\x02\x00\x01", 6); /* looks like a hello */
		client_send(&client, junk, sizeof(junk));
		world_pass(&world, (NBD_HANDSHAKE_S + 1) * NS_PER_S); /* it may look like half of a long record */
		CU_ASSERT_EQUAL(counter_get(&nbd_server_counters(world.server)->n_connections), 0);
		end();
	}
}

static void test_data_of_every_size_and_a_goodbye(void)
{
	static const uint32_t lens[] = {512, 4096, 16384, 65536 + 512, 3 << 20};
	struct tls_client t;
	uint8_t header[NBD_REQUEST_BYTES], reply[NBD_SIMPLE_REPLY_BYTES];
	uint8_t *data = malloc(3 << 20), *back = malloc(3 << 20);
	unsigned seed = 3;

	begin(NBD_TLS_REQUIRE, NULL, true);
	starttls();
	tls_begin(&t, &(struct tls_as){.psk_key = ALICE});
	CU_ASSERT_EQUAL_FATAL(client_handshake(&t), 0);
	tls_option(&t, NBD_OPT_GO, go_vm1, sizeof(go_vm1));
	while (tls_option_reply(&t) == NBD_REP_INFO) {
	}
	for (size_t i = 0; i < array_size(lens); i++) {
		struct client_request q = {
		    .command = NBD_CMD_WRITE, .cookie = i, .pos_bytes = 512, .len_bytes = lens[i]};
		for (uint32_t k = 0; k < lens[i]; k++)
			data[k] = (uint8_t)rand_r(&seed);
		client_request_encode(header, &q);
		tls_send(&t, header, sizeof(header));
		tls_send(&t, data, lens[i]);
		CU_ASSERT_FATAL(tls_take(&t, reply, sizeof(reply)));
		CU_ASSERT(get_be32(reply + 4) == NBD_OK && get_be64(reply + 8) == i);
		q.command = NBD_CMD_READ;
		client_request_encode(header, &q);
		tls_send(&t, header, sizeof(header));
		CU_ASSERT_FATAL(tls_take(&t, reply, sizeof(reply)) && tls_take(&t, back, lens[i]));
		CU_ASSERT_EQUAL(memcmp(data, back, lens[i]), 0);
	}
	client_request_encode(header, &(struct client_request){.command = NBD_CMD_DISC});
	tls_send(&t, header, sizeof(header));
	CU_ASSERT_EQUAL(gnutls_record_recv(t.session, back, 1), 0); /* a proper end, not a cut stream */
	client_end(&t);
	end();
	free(data);
	free(back);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("nbd_tls", make_keys, remove_keys);
	CU_ADD_TEST(suite, test_a_shared_key_lets_in);
	CU_ADD_TEST(suite, test_another_key_does_not);
	CU_ADD_TEST(suite, test_with_an_authority_only_its_clients_are_let_in);
	CU_ADD_TEST(suite, test_without_an_authority_anybody_is);
	CU_ADD_TEST(suite, test_certificates_and_keys_beside_each_other);
	CU_ADD_TEST(suite, test_old_versions_are_not_spoken);
	CU_ADD_TEST(suite, test_where_tls_is_required_nothing_goes_before_it);
	CU_ADD_TEST(suite, test_where_it_is_offered_the_clear_is_served_too);
	CU_ADD_TEST(suite, test_starttls_with_data_or_twice_is_invalid);
	CU_ADD_TEST(suite, test_what_was_said_in_the_clear_is_forgotten);
	CU_ADD_TEST(suite, test_what_is_sent_ahead_of_the_handshake_ends_it);
	CU_ADD_TEST(suite, test_silence_in_the_handshake_is_ended);
	CU_ADD_TEST(suite, test_garbage_in_the_handshake_is_ended);
	CU_ADD_TEST(suite, test_data_of_every_size_and_a_goodbye);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
