/*
 * test_metadata_etcd.c: the metadata store in etcd: the rules of every store, then several processes, endpoints that
 * fail, compaction, TLS and passwords. Each test has an etcd of its own on a loopback port; without Debian's etcd-server
 * all are skipped.
 */
#include "daemon/metadata/etcd_format.h"
#include "tests/unit/metadata_rules.h"

#include <CUnit/Basic.h>
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- an etcd ---- */

struct etcd {
	char folder[40], url[64];
	const char *scheme;
	uint16_t port;
	pid_t pid;
};

static uint16_t port_free(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 || getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		abort();
	close(fd);
	return ntohs(a.sin_port);
}

static size_t ignore(char *bytes, size_t size, size_t n, void *context)
{
	return size * n;
}

/* HTTP's status; 0: no answer. */
static long post(const struct etcd *e, const char *path, const char *body)
{
	char url[128];
	long status = 0;
	CURL *easy = curl_easy_init();
	snprintf(url, sizeof(url), "%s%s", e->url, path);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, ignore);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L); /* is it there at all? */
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, 2000L);
	if (curl_easy_perform(easy) == CURLE_OK)
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(easy);
	return status;
}

/* Starts it on the port it has, with the data it had, and waits until it serves. */
static void etcd_run(struct etcd *e)
{
	char peer[64], data[64];
	bool has_tls = strcmp(e->scheme, "https") == 0;
	snprintf(peer, sizeof(peer), "http://127.0.0.1:%u", port_free());
	snprintf(data, sizeof(data), "%s/data", e->folder);
	snprintf(e->url, sizeof(e->url), "%s://127.0.0.1:%u", e->scheme, e->port);
	e->pid = fork();
	if (e->pid == 0) {
		int null = open("/dev/null", O_RDWR);
		dup2(null, 1);
		dup2(null, 2);
		execlp("etcd", "etcd", "--data-dir", data, "--listen-client-urls", e->url, "--advertise-client-urls",
		       e->url, "--listen-peer-urls", peer, has_tls ? "--auto-tls" : NULL, (char *)NULL);
		_exit(127);
	}
	/* poll: until it serves, at most ten seconds */
	for (int i = 0; i < 200 && post(e, "/v3/kv/range", "{\"key\":\"Lw==\"}") == 0; i++)
		(void)poll(NULL, 0, 50);
}

static void etcd_kill(struct etcd *e)
{
	kill(e->pid, SIGKILL);
	waitpid(e->pid, NULL, 0);
}

static void etcd_start(struct etcd *e, const char *scheme)
{
	*e = (struct etcd){.scheme = scheme, .port = port_free()};
	snprintf(e->folder, sizeof(e->folder), "/tmp/quarry-test-etcd-XXXXXX");
	if (!mkdtemp(e->folder))
		abort();
	etcd_run(e);
}

static int removed(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return remove(path);
}

static void etcd_end(struct etcd *e)
{
	etcd_kill(e);
	CU_ASSERT_EQUAL(nftw(e->folder, removed, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static bool etcd_is_installed(void)
{
	char *const words[] = {"etcd", "--version", NULL};
	posix_spawn_file_actions_t quiet;
	pid_t pid;
	int status = -1;
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&quiet, 2, "/dev/null", O_WRONLY, 0);
	if (posix_spawnp(&pid, words[0], &quiet, NULL, words, environ) == 0)
		waitpid(pid, &status, 0);
	posix_spawn_file_actions_destroy(&quiet);
	return status == 0;
}

static int bench_open(struct bench *b, const struct etcd *e, const char *prefix)
{
	struct metadata_etcd_options o = {.endpoints = {e->url}, .n_endpoints = 1, .prefix = prefix};
	return metadata_open_etcd(b->reactor, b->log, &o, b->why, &b->store);
}

static void world_start(struct etcd *e, struct bench *b)
{
	etcd_start(e, "http");
	bench_start(b);
	CU_ASSERT_EQUAL_FATAL(bench_open(b, e, "/quarry"), 0);
}

static void world_end(struct etcd *e, struct bench *b)
{
	bench_end(b);
	etcd_end(e);
}

/* ---- tests ---- */

static void test_rules(void)
{
	struct etcd e;
	struct bench b;
	world_start(&e, &b);
	rules(&b);
	world_end(&e, &b);
}

static void test_many_pages(void)
{
	struct etcd e;
	struct bench b;
	world_start(&e, &b);
	const unsigned n = ETCD_PAGE_ITEMS * 2 + 7;
	char keys[METADATA_CHANGES_MAX][16];
	for (unsigned i = 0; i < n; i += METADATA_CHANGES_MAX) {
		struct asked a = {.q = {.op = METADATA_TRANSACT}};
		for (unsigned j = 0; j < METADATA_CHANGES_MAX && i + j < n; j++) {
			snprintf(keys[j], sizeof(keys[j]), "p/%05u", i + j);
			a.q.changes[a.q.n_changes++] = (struct metadata_change){.key = keys[j], .value = "x"};
		}
		CU_ASSERT_EQUAL(ask(&b, &a), 0);
	}
	put(&b, "q", "beyond");
	struct asked list = {.q = {.op = METADATA_LIST, .key = "p/"}};
	CU_ASSERT_EQUAL(ask(&b, &list), 0);
	CU_ASSERT_EQUAL_FATAL(list.q.n_items, n);
	for (unsigned i = 0; i < n; i++) {
		char key[16];
		snprintf(key, sizeof(key), "p/%05u", i);
		CU_ASSERT_STRING_EQUAL(list.q.items[i].key, key);
	}
	metadata_request_clear(&list.q);
	world_end(&e, &b);
}

/* Waits until the watcher has seen so much. */
static void wait_seen(struct bench *b, struct watcher *w, const char *seen)
{
	for (int i = 0; i < 1000 && strlen(w->seen) < strlen(seen); i++)
		wait_ns(b, 10 * NS_PER_MS);
	CU_ASSERT_STRING_EQUAL(w->seen, seen);
}

/* Two nodes of one cluster see each other's changes, another cluster's not. */
static void test_two_nodes(void)
{
	struct etcd e;
	struct bench b, second, other;
	struct watcher w = {.watch = {.prefix = "v/", .changed = watcher_changed}};
	world_start(&e, &b);
	bench_start(&second);
	bench_start(&other);
	CU_ASSERT_EQUAL_FATAL(bench_open(&second, &e, "/quarry/"), 0);
	CU_ASSERT_EQUAL_FATAL(bench_open(&other, &e, "/quarry2"), 0);
	metadata_watch_start(b.store, &w.watch);
	put(&second, "v/a", "1");
	put(&other, "v/a", "foreign");
	put(&b, "v/b", "2");
	CU_ASSERT_STRING_EQUAL(w.seen, "v/a=1 v/b=2 "); /* one's own answer comes after all that was before it */
	put(&second, "v/a", NULL);
	wait_seen(&b, &w, "v/a=1 v/b=2 v/a=(gone) ");
	uint64_t lease = grant(&second, 30 * NS_PER_S);
	CU_ASSERT_EQUAL(put_leased(&second, "v/l", lease), 0);
	CU_ASSERT_EQUAL(ask_lease(&b, METADATA_REVOKE, lease), 0);
	wait_seen(&b, &w, "v/a=1 v/b=2 v/a=(gone) v/l=held v/l=(gone) ");
	CU_ASSERT_EQUAL(put_if(&b, "v/b", "3", revision_of(&second, "v/b", "2")), 0);
	CU_ASSERT_EQUAL(put_if(&second, "v/b", "4", w.revision - 1), -EAGAIN);
	metadata_watch_stop(b.store, &w.watch);
	bench_end(&other);
	bench_end(&second);
	world_end(&e, &b);
}

/* An endpoint that is not there costs nothing but its attempt. */
static void test_dead_endpoint(void)
{
	struct etcd e;
	struct bench b;
	char dead[64];
	etcd_start(&e, "http");
	bench_start(&b);
	snprintf(dead, sizeof(dead), "http://127.0.0.1:%u", port_free());
	struct metadata_etcd_options o = {.endpoints = {dead, e.url}, .n_endpoints = 2, .prefix = "/quarry"};
	CU_ASSERT_EQUAL_FATAL(metadata_open_etcd(b.reactor, b.log, &o, b.why, &b.store), 0);
	rules(&b);
	world_end(&e, &b);
}

static void test_nobody_there(void)
{
	struct bench b;
	struct etcd e = {.url = ""};
	bench_start(&b);
	snprintf(e.url, sizeof(e.url), "http://127.0.0.1:%u", port_free());
	CU_ASSERT_EQUAL(bench_open(&b, &e, "/quarry"), -EHOSTUNREACH);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, e.url));
	CU_ASSERT_PTR_NULL(b.store);
	bench_end(&b);
}

/* etcd is killed and comes back: requests meanwhile have no known outcome, later ones work, the watch missed nothing. */
static void test_restart(void)
{
	struct etcd e;
	struct bench b;
	struct watcher w = {.watch = {.prefix = "r/", .changed = watcher_changed}};
	world_start(&e, &b);
	metadata_watch_start(b.store, &w.watch);
	CU_ASSERT(put(&b, "r/a", "1") > 0);
	etcd_kill(&e);
	struct asked down = {.q = {.op = METADATA_TRANSACT, .n_changes = 1}};
	down.q.changes[0] = (struct metadata_change){.key = "r/down", .value = "x"};
	CU_ASSERT_EQUAL(ask(&b, &down), -ETIMEDOUT);
	etcd_run(&e);
	CU_ASSERT(put(&b, "r/b", "2") > 0);
	wait_seen(&b, &w, "r/a=1 r/b=2 ");
	metadata_watch_stop(b.store, &w.watch);
	world_end(&e, &b);
}

/* etcd hangs: what was sent may have been carried out. Rereading tells, and there is one outcome. */
static void test_hang(void)
{
	struct etcd e;
	struct bench b;
	world_start(&e, &b);
	CU_ASSERT(put(&b, "h", "before") > 0);
	kill(e.pid, SIGSTOP);
	CU_ASSERT_EQUAL(waitpid(e.pid, NULL, WUNTRACED), e.pid); /* until its last thread stands still */
	struct asked a = {.q = {.op = METADATA_TRANSACT, .n_changes = 1}};
	a.q.changes[0] = (struct metadata_change){.key = "h", .value = "after"};
	uint64_t from_ns = reactor_now_ns(b.reactor);
	CU_ASSERT_EQUAL(ask(&b, &a), -ETIMEDOUT);
	CU_ASSERT(reactor_now_ns(b.reactor) - from_ns < 8 * NS_PER_S);
	kill(e.pid, SIGCONT);
	CU_ASSERT((revision_of(&b, "h", "before") > 0) != (revision_of(&b, "h", "after") > 0));
	world_end(&e, &b);
}

static void watcher_lost(struct metadata_watch *w)
{
	struct watcher *watcher = container_of(w, struct watcher, watch);
	size_t used = strlen(watcher->seen);
	snprintf(watcher->seen + used, sizeof(watcher->seen) - used, "(lost) ");
}

/* While the node could not reach etcd others wrote, and etcd has forgotten what: the watch says so, and goes on. */
static void test_compacted(void)
{
	struct etcd e;
	struct bench b, other;
	struct watcher w = {.watch = {.prefix = "c/", .changed = watcher_changed, .lost = watcher_lost}};
	char body[64];
	world_start(&e, &b);
	uint16_t port = e.port;
	metadata_watch_start(b.store, &w.watch);
	CU_ASSERT(put(&b, "c/a", "1") > 0);
	etcd_kill(&e);
	e.port = port_free(); /* where the node does not look */
	etcd_run(&e);
	bench_start(&other);
	CU_ASSERT_EQUAL_FATAL(bench_open(&other, &e, "/quarry"), 0);
	put(&other, "c/b", "unseen");
	put(&other, "c/b", "unseen too");
	uint64_t last = put(&other, "c/b", "last");
	bench_end(&other);
	snprintf(body, sizeof(body), "{\"revision\":\"%llu\"}", (unsigned long long)last);
	CU_ASSERT_EQUAL(post(&e, "/v3/kv/compaction", body), 200);
	etcd_kill(&e);
	e.port = port;
	etcd_run(&e);
	wait_seen(&b, &w, "c/a=1 (lost) c/b=last ");
	CU_ASSERT(put(&b, "c/d", "3") > 0);
	wait_seen(&b, &w, "c/a=1 (lost) c/b=last c/d=3 ");
	metadata_watch_stop(b.store, &w.watch);
	world_end(&e, &b);
}

static void test_password(void)
{
	struct etcd e;
	struct bench b;
	etcd_start(&e, "http");
	bench_start(&b);
	CU_ASSERT_EQUAL(post(&e, "/v3/auth/user/add", "{\"name\":\"root\",\"password\":\"secret\"}"), 200);
	CU_ASSERT_EQUAL(post(&e, "/v3/auth/role/add", "{\"name\":\"root\"}"), 200);
	CU_ASSERT_EQUAL(post(&e, "/v3/auth/user/grant", "{\"user\":\"root\",\"role\":\"root\"}"), 200);
	CU_ASSERT_EQUAL(post(&e, "/v3/auth/enable", "{}"), 200);
	struct metadata_etcd_options o = {.endpoints = {e.url}, .n_endpoints = 1, .prefix = "/quarry"};
	CU_ASSERT(metadata_open_etcd(b.reactor, b.log, &o, b.why, &b.store) < 0);
	o.user = "root";
	o.password = "wrong";
	CU_ASSERT_EQUAL(metadata_open_etcd(b.reactor, b.log, &o, b.why, &b.store), -EACCES);
	CU_ASSERT_PTR_NULL(strstr(b.why, "wrong"));
	o.password = "secret";
	CU_ASSERT_EQUAL_FATAL(metadata_open_etcd(b.reactor, b.log, &o, b.why, &b.store), 0);
	rules(&b);
	etcd_kill(&e); /* a simple token dies with the server: the store logs in again */
	etcd_run(&e);
	struct watcher w = {.watch = {.prefix = "again/", .changed = watcher_changed}};
	metadata_watch_start(b.store, &w.watch);
	CU_ASSERT(put(&b, "again/a", "1") > 0);
	wait_seen(&b, &w, "again/a=1 ");
	metadata_watch_stop(b.store, &w.watch);
	world_end(&e, &b);
}

static void test_tls(void)
{
	struct etcd e;
	struct bench b;
	char ca[96];
	etcd_start(&e, "https");
	bench_start(&b);
	bool is_told = false; /* that nobody vouches for it; or, on a busy machine, that the handshake took too long */
	for (int i = 0; i < 20 && !is_told; i++) {
		CU_ASSERT_EQUAL(bench_open(&b, &e, "/quarry"), -EHOSTUNREACH);
		is_told = strstr(b.why, "certificate") != NULL;
	}
	CU_ASSERT(is_told);
	snprintf(ca, sizeof(ca), "%s/data/fixtures/client/cert.pem", e.folder);
	struct metadata_etcd_options o = {.endpoints = {e.url}, .n_endpoints = 1, .prefix = "/quarry", .ca_file = ca};
	CU_ASSERT_EQUAL_FATAL(metadata_open_etcd(b.reactor, b.log, &o, b.why, &b.store), 0);
	rules(&b);
	world_end(&e, &b);
}

int main(void)
{
	if (!etcd_is_installed()) {
		puts("skipped: there is no etcd (Debian's etcd-server)");
		return 77;
	}
	curl_global_init(CURL_GLOBAL_DEFAULT);
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("metadata in etcd", NULL, NULL);
	CU_add_test(suite, "rules", test_rules);
	CU_add_test(suite, "a list of many pages", test_many_pages);
	CU_add_test(suite, "two nodes", test_two_nodes);
	CU_add_test(suite, "a dead endpoint", test_dead_endpoint);
	CU_add_test(suite, "nobody there", test_nobody_there);
	CU_add_test(suite, "etcd is killed and comes back", test_restart);
	CU_add_test(suite, "etcd hangs", test_hang);
	CU_add_test(suite, "changes were compacted", test_compacted);
	CU_add_test(suite, "user and password", test_password);
	CU_add_test(suite, "TLS", test_tls);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	curl_global_cleanup();
	return failures == 0 ? 0 : 1;
}
