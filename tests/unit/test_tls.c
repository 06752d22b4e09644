/*
 * test_tls.c: TLS between two nodes that have the cluster's key, and those that have not. (Certificates, and names with
 * keys, are tried with the NBD server: test_nbd_tls.c.)
 */
#include "daemon/core/tls.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_A "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
#define KEY_B "10112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

static char folder[] = "/tmp/quarry-tls-XXXXXX";

static const char *key_file(const char *text, mode_t mode)
{
	static char path[64];
	snprintf(path, sizeof(path), "%s/key", folder);
	FILE *f = fopen(path, "w");
	quarry_assert(f != NULL);
	quarry_assert(fputs(text, f) >= 0);
	quarry_assert(fclose(f) == 0);
	quarry_assert(chmod(path, mode) == 0);
	return path;
}

static struct tls_credentials *key_load(const char *text)
{
	struct tls_credentials *c = NULL;
	char why[TLS_WHY_BYTES] = "";
	CU_ASSERT_EQUAL_FATAL(tls_load_peer(key_file(text, 0600), why, &c), 0);
	return c;
}

/* ---- two sessions and the bytes between them ---- */

struct two {
	struct tls *client, *server;
	int client_res, server_res;
	uint64_t n_carried;
};

/* Carries what one has to say to the other; piece: at most so many bytes at a time. */
static void carry(struct two *w, struct tls *from, struct tls *to, int *to_res, size_t piece)
{
	struct iovec out = tls_depart(from);
	const uint8_t *at = out.iov_base;
	for (size_t left = out.iov_len; left > 0 && (*to_res == 0 || *to_res == -EAGAIN);) {
		struct iovec room = tls_room(to);
		size_t n = min_u64(min_u64(room.iov_len, left), piece);
		memcpy(room.iov_base, at, n);
		tls_arrived(to, (uint32_t)n);
		w->n_carried += n;
		at += n;
		left -= n;
		if (*to_res == -EAGAIN)
			*to_res = tls_handshake(to);
	}
}

static void shake_hands(struct two *w, struct tls_credentials *client, struct tls_credentials *server, size_t piece)
{
	*w = (struct two){.server_res = -EAGAIN};
	CU_ASSERT_EQUAL_FATAL(tls_create(client, TLS_CLIENT, &w->client), 0);
	CU_ASSERT_EQUAL_FATAL(tls_create(server, TLS_SERVER, &w->server), 0);
	w->client_res = tls_handshake(w->client);
	for (int i = 0; i < 20; i++) {
		carry(w, w->client, w->server, &w->server_res, piece);
		carry(w, w->server, w->client, &w->client_res, piece);
	}
}

static void two_free(struct two *w)
{
	tls_destroy(w->client);
	tls_destroy(w->server);
}

static void say_and_hear(struct two *w, struct tls *from, struct tls *to, uint8_t seed)
{
	static uint8_t said[TLS_WRITE_MAX], heard[TLS_WRITE_MAX];
	int res = 0;
	size_t n = 0;
	for (size_t i = 0; i < sizeof(said); i++)
		said[i] = (uint8_t)(seed + i * 7);
	CU_ASSERT_TRUE(tls_can_write(from));
	CU_ASSERT_EQUAL(tls_write(from, said, sizeof(said)), 0);
	carry(w, from, to, &res, SIZE_MAX);
	while (n < sizeof(heard) && (res = tls_read(to, heard + n, (uint32_t)(sizeof(heard) - n))) > 0)
		n += (size_t)res;
	CU_ASSERT_EQUAL(n, sizeof(said));
	CU_ASSERT_EQUAL(memcmp(said, heard, sizeof(said)), 0);
}

/* ---- tests ---- */

static void test_same_key(void)
{
	static const size_t pieces[] = {1, 7, 100, SIZE_MAX};
	struct tls_credentials *c = key_load(KEY_A "\n");
	for (size_t i = 0; i < array_size(pieces); i++) {
		struct two w;
		shake_hands(&w, c, c, pieces[i]);
		CU_ASSERT_EQUAL(w.client_res, 0);
		CU_ASSERT_EQUAL(w.server_res, 0);
		for (uint8_t n = 0; n < 5; n++) {
			say_and_hear(&w, w.client, w.server, n);
			say_and_hear(&w, w.server, w.client, (uint8_t)(n + 100));
		}
		two_free(&w);
	}
	tls_unload(c);
}

/* Neither side gets through, whoever has which. */
static void test_other_key(void)
{
	struct tls_credentials *a = key_load(KEY_A), *b = key_load(KEY_B);
	for (int i = 0; i < 2; i++) {
		struct two w;
		shake_hands(&w, i ? a : b, i ? b : a, SIZE_MAX);
		CU_ASSERT_NOT_EQUAL(w.client_res, 0);
		CU_ASSERT_EQUAL(w.server_res, -EPROTO);
		CU_ASSERT(strlen(tls_why(w.server)) > 0);
		two_free(&w);
	}
	tls_unload(a);
	tls_unload(b);
}

/* A byte that was changed on the way is noticed, wherever it is. */
static void test_tampered(void)
{
	struct tls_credentials *c = key_load(KEY_A);
	for (size_t at = 0; at < 64; at++) {
		struct two w;
		uint8_t plain[42] = "forty-two bytes that somebody else touched";
		shake_hands(&w, c, c, SIZE_MAX);
		CU_ASSERT_EQUAL(tls_write(w.client, plain, sizeof(plain)), 0);
		struct iovec out = tls_depart(w.client), room = tls_room(w.server);
		CU_ASSERT_FATAL(out.iov_len > at && out.iov_len <= room.iov_len);
		memcpy(room.iov_base, out.iov_base, out.iov_len);
		((uint8_t *)room.iov_base)[at] ^= 0x10;
		tls_arrived(w.server, (uint32_t)out.iov_len);
		int res = tls_read(w.server, plain, sizeof(plain));
		CU_ASSERT(res == -EPROTO || res == -EAGAIN); /* the latter: a length that says more is to come */
		two_free(&w);
	}
	tls_unload(c);
}

/* Any bytes instead of a handshake. */
static void test_garbage(void)
{
	struct tls_credentials *c = key_load(KEY_A);
	struct tls *t;
	CU_ASSERT_EQUAL_FATAL(tls_create(c, TLS_SERVER, &t), 0);
	struct iovec room = tls_room(t);
	memset(room.iov_base, 'G', 600);
	tls_arrived(t, 600);
	CU_ASSERT_EQUAL(tls_handshake(t), -EPROTO);
	tls_destroy(t);
	tls_unload(c);
}

static void expect_refused(const char *path, const char *words)
{
	struct tls_credentials *c = NULL;
	char why[TLS_WHY_BYTES] = "";
	CU_ASSERT_EQUAL(tls_load_peer(path, why, &c), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "peer.key_file"));
	CU_ASSERT_PTR_NOT_NULL(strstr(why, path));
	CU_ASSERT_PTR_NOT_NULL(strstr(why, words));
	CU_ASSERT_PTR_NULL(strstr(why, "0011")); /* the key itself is never said */
	CU_ASSERT_PTR_NULL(c);
}

static void test_key_files(void)
{
	expect_refused("/nonexistent/key", "No such file");
	expect_refused(key_file(KEY_A, 0640), "chmod 600");
	expect_refused(key_file("", 0600), "hexadecimal");
	expect_refused(key_file("0011223344", 0600), "hexadecimal");
	expect_refused(key_file(KEY_A "0", 0600), "hexadecimal");
	expect_refused(key_file(KEY_A "x", 0600), "hexadecimal");
	expect_refused(key_file(KEY_A KEY_A "00", 0600), "hexadecimal");
	tls_unload(key_load(KEY_A KEY_A));
	tls_unload(key_load(KEY_A " the key of the test\n"));
}

int main(void)
{
	if (!mkdtemp(folder) || CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("TLS between nodes", NULL, NULL);
	CU_add_test(suite, "the same key", test_same_key);
	CU_add_test(suite, "another key", test_other_key);
	CU_add_test(suite, "bytes that were changed", test_tampered);
	CU_add_test(suite, "garbage", test_garbage);
	CU_add_test(suite, "key files", test_key_files);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	unlink(key_file("", 0600));
	rmdir(folder);
	return failures == 0 ? 0 : 1;
}
