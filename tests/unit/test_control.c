/*
 * test_control.c: the control API over real sockets: answers, refusals, long polls, slow commands, tokens, metrics, and
 * its end with requests under way.
 *
 * The reactor runs on the main thread; the client's script on another, with blocking sockets.
 */
#include "daemon/control/answer.h"
#include "daemon/control/control.h"
#include "tests/unit/fake_volume_set.h"

#include <CUnit/Basic.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define TOKEN "correct-horse-battery"

/* No other node is there: test_forward.c has some. */
void peer_order_answer(struct peer_order *o, unsigned http_status, char *text, uint32_t text_bytes)
{
	abort();
}

struct bench {
	struct reactor *reactor;
	struct log *log;
	struct config config;
	struct fake_volume_set *set;
	struct control *control;
	char folder[32], why[CONTROL_WHY_BYTES];
	int port;
	void (*script)(struct bench *b);
	pthread_t thread;
	struct message ended, release, stop;
	bool is_stopping, has_ended;
};

struct reply {
	int status;
	char text[256 * 1024]; /* headers and body */
	char *body;
	json_t *json;
};

/* ---- an HTTP client of a few lines ---- */

static int client_connect(struct bench *b)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", b->config.control.socket);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static int client_connect_tcp(struct bench *b)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)b->port)};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void client_send(int fd, const char *method, const char *target, const char *header, const char *body)
{
	char head[1024];
	size_t n_body = body ? strlen(body) : 0;
	int n = snprintf(head, sizeof(head),
			 "%s %s HTTP/1.1\r\nHost: quarry\r\nConnection: close\r\n%sContent-Length: %zu\r\n\r\n", method,
			 target, header, n_body);
	if (send(fd, head, (size_t)n, MSG_NOSIGNAL) == n && n_body > 0)
		(void)!send(fd, body, n_body, MSG_NOSIGNAL); /* the server may have answered early */
}

static void client_receive(int fd, struct reply *r)
{
	size_t used = 0;
	ssize_t n;
	*r = (struct reply){0};
	while ((n = recv(fd, r->text + used, sizeof(r->text) - 1 - used, 0)) > 0)
		used += (size_t)n;
	close(fd);
	sscanf(r->text, "HTTP/1.1 %d", &r->status);
	r->body = strstr(r->text, "\r\n\r\n");
	r->body = r->body ? r->body + 4 : r->text + used;
	r->json = json_loads(r->body, 0, NULL);
}

/* The reply of the last request; its JSON is freed by the next. */
static struct reply *ask_with(struct bench *b, const char *method, const char *target, const char *header,
			      const char *body, bool over_tcp)
{
	static struct reply reply;
	json_decref(reply.json);
	reply = (struct reply){0};
	int fd = over_tcp ? client_connect_tcp(b) : client_connect(b);
	CU_ASSERT(fd >= 0);
	if (fd < 0)
		return &reply;
	client_send(fd, method, target, header, body);
	client_receive(fd, &reply);
	return &reply;
}

static struct reply *ask(struct bench *b, const char *method, const char *target, const char *body)
{
	return ask_with(b, method, target, "", body, false);
}

static const char *text_at(const struct reply *r, const char *key)
{
	const char *text = json_string_value(json_object_get(r->json, key));
	return text ? text : "(none)";
}

static void expect_error(const struct reply *r, int status, const char *code)
{
	json_t *error = json_object_get(r->json, "error");
	const char *got = json_string_value(json_object_get(error, "code"));
	CU_ASSERT_EQUAL(r->status, status);
	CU_ASSERT_STRING_EQUAL(got ? got : "(none)", code);
	CU_ASSERT(json_string_length(json_object_get(error, "message")) > 0);
}

/* ---- the bench ---- */

static void bench_ended(void *context)
{
	struct bench *b = context;
	b->control = NULL;
	reactor_stop(b->reactor);
}

static void bench_begin_stop(struct bench *b)
{
	if (b->is_stopping)
		return;
	b->is_stopping = true;
	control_stop(b->control, bench_ended, b);
}

static void script_ended(struct message *m)
{
	bench_begin_stop(container_of(m, struct bench, ended));
}
static void stop_deliver(struct message *m)
{
	bench_begin_stop(container_of(m, struct bench, stop));
}
static void release_deliver(struct message *m)
{
	fake_release(container_of(m, struct bench, release)->set);
}

static void *script_run(void *context)
{
	struct bench *b = context;
	b->script(b);
	reactor_post(b->reactor, &b->ended);
	return NULL;
}

static void bench_create(struct bench *b)
{
	*b = (struct bench){.folder = "/tmp/quarry-test-XXXXXX"};
	b->ended.deliver = script_ended;
	b->stop.deliver = stop_deliver;
	b->release.deliver = release_deliver;
	config_defaults(&b->config);
	snprintf(b->config.node.name, sizeof(b->config.node.name), "%s", "n1");
	if (!mkdtemp(b->folder) || reactor_create(&(struct reactor_options){0}, &b->reactor) < 0 ||
	    log_create(-1, LOG_ERROR, &b->log) < 0)
		abort();
	b->set = fake_volume_set_create(b->reactor);
	snprintf(b->config.control.socket, sizeof(b->config.control.socket), "%s/c.sock", b->folder);
}

static int bench_start(struct bench *b)
{
	const struct control_options o = {
	    .log = b->log,
	    .config = &b->config,
	    .sources = {.reactor = b->reactor, .volumes = fake_as_set(b->set)},
	    .started_wall_ns = 1700000000 * NS_PER_S,
	};
	return control_start(&o, b->why, &b->control);
}

static void bench_run(struct bench *b, void (*script)(struct bench *b))
{
	b->script = script;
	pthread_create(&b->thread, NULL, script_run, b);
	while (b->control)
		reactor_run(b->reactor);
	pthread_join(b->thread, NULL);
}

static void bench_destroy(struct bench *b)
{
	char path[64];
	struct stat st;
	CU_ASSERT_EQUAL(stat(b->config.control.socket, &st), -1); /* the socket went with the API */
	fake_volume_set_destroy(b->set);
	reactor_destroy(b->reactor);
	log_destroy(b->log);
	snprintf(path, sizeof(path), "%s/token", b->folder);
	unlink(path);
	CU_ASSERT_EQUAL(rmdir(b->folder), 0);
}

static void run_script(void (*script)(struct bench *b))
{
	struct bench b;
	bench_create(&b);
	CU_ASSERT_EQUAL_FATAL(bench_start(&b), 0);
	bench_run(&b, script);
	bench_destroy(&b);
}

/* ---- answers ---- */

static void script_answers(struct bench *b)
{
	struct reply *r = ask(b, "GET", "/v1/version", NULL);
	CU_ASSERT_EQUAL(r->status, 200);
	CU_ASSERT_STRING_EQUAL(text_at(r, "api"), "v1");
	CU_ASSERT_STRING_EQUAL(text_at(r, "node"), "n1");
	CU_ASSERT_PTR_NOT_NULL(strstr(r->text, "Content-Type: application/json"));

	r = ask(b, "POST", "/v1/volumes", "{\"name\":\"vm1\",\"size_bytes\":1048576}");
	CU_ASSERT_EQUAL(r->status, 201);
	CU_ASSERT_STRING_EQUAL(text_at(r, "name"), "vm1");
	CU_ASSERT_STRING_EQUAL(text_at(r, "state"), "detached");
	CU_ASSERT_STRING_EQUAL(text_at(r, "created_at"), "1970-01-01T00:16:40.000Z");
	CU_ASSERT(json_is_null(json_object_get(r->json, "counters")));

	r = ask(b, "POST", "/v1/volumes/vm1/attachments", "{\"frontend\":\"nbd\"}");
	CU_ASSERT_EQUAL(r->status, 201);
	CU_ASSERT_STRING_EQUAL(text_at(r, "uri"), "nbd+unix:///vm1?socket=/run/quarry/nbd.sock");

	r = ask(b, "GET", "/v1/volumes/vm1", NULL);
	CU_ASSERT_STRING_EQUAL(text_at(r, "state"), "serving");
	json_t *latency = json_object_get(json_object_get(r->json, "counters"), "read_latency");
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(latency, "count")), 2);
	json_t *disk = json_array_get(json_object_get(r->json, "disks"), 0);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(disk, "name")), "d1");

	r = ask(b, "PATCH", "/v1/volumes/vm1", "{\"name\":\"vm2\"}");
	CU_ASSERT_EQUAL(r->status, 200);
	CU_ASSERT_STRING_EQUAL(text_at(r, "name"), "vm2");
	r = ask(b, "DELETE", "/v1/volumes/vm2", NULL);
	CU_ASSERT_EQUAL(r->status, 200);
	CU_ASSERT_STRING_EQUAL(r->body, "{}\n");
	expect_error(ask(b, "GET", "/v1/volumes/vm2", NULL), 404, "not-found");
}

static void test_answers(void)
{
	run_script(script_answers);
}

static void script_lists(struct bench *b)
{
	static const char *const targets[] = {"/v1/pools", "/v1/disks",  "/v1/volumes",
					      "/v1/nodes", "/v1/events", "/v1/requests"};
	for (size_t i = 0; i < array_size(targets); i++) {
		struct reply *r = ask(b, "GET", targets[i], NULL);
		CU_ASSERT_EQUAL(r->status, 200);
		CU_ASSERT(json_is_array(json_object_get(r->json, targets[i] + strlen("/v1/"))));
	}
	struct reply *r = ask(b, "GET", "/v1/disks", NULL);
	json_t *adding = json_array_get(json_object_get(r->json, "adding"), 0);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(adding, "path")), "/srv/d2");
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(adding, "size_bytes")), (json_int_t)GIB);
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(adding, "written_bytes")), (json_int_t)(3 * MIB));
	r = ask(b, "GET", "/v1/disks/%2Fsrv%2Fd%201", NULL); /* by its path */
	CU_ASSERT_STRING_EQUAL(text_at(r, "name"), "d1");
	uint64_t free_bytes = (uint64_t)json_integer_value(json_object_get(r->json, "free_bytes"));
	uint64_t used_bytes = (uint64_t)json_integer_value(json_object_get(r->json, "used_bytes"));
	CU_ASSERT_EQUAL(free_bytes, 201000 * 4096ull); /* with what waits for a checkpoint */
	CU_ASSERT_EQUAL(free_bytes + used_bytes, GIB);
	r = ask(b, "GET", "/v1/disks/00000000-0000-0000-0000-000000000000", NULL); /* by its UUID */
	CU_ASSERT_STRING_EQUAL(text_at(r, "name"), "d1");
	r = ask(b, "GET", "/v1/requests?older_than_ms=10", NULL);
	CU_ASSERT_EQUAL(json_array_size(json_object_get(r->json, "requests")), 1);
	r = ask(b, "GET", "/v1/status", NULL);
	CU_ASSERT(json_is_true(json_object_get(r->json, "healthy")));
	r = ask(b, "GET", "/v1/nodes/n1", NULL);
	CU_ASSERT_STRING_EQUAL(text_at(r, "state"), "running");
	CU_ASSERT(json_integer_value(json_object_get(r->json, "memory_bytes")) > 0);
	expect_error(ask(b, "GET", "/v1/nodes/n2", NULL), 404, "not-found");
	r = ask(b, "GET", "/v1/usage", NULL);
	CU_ASSERT_EQUAL(json_array_size(json_object_get(r->json, "disks")), 1);
	r = ask(b, "GET", "/v1/top", NULL);
	CU_ASSERT(json_integer_value(json_object_get(r->json, "monotonic_ns")) > 0);
}

static void test_lists(void)
{
	run_script(script_lists);
}

static void script_refusals(struct bench *b)
{
	expect_error(ask(b, "GET", "/nothing", NULL), 404, "not-found");
	struct reply *r = ask(b, "PUT", "/v1/volumes", "{}");
	expect_error(r, 405, "method-not-allowed");
	CU_ASSERT_PTR_NOT_NULL(strstr(r->text, "Allow: GET, POST"));
	expect_error(ask(b, "POST", "/v1/volumes", "{"), 400, "invalid");
	expect_error(ask(b, "POST", "/v1/volumes", "{\"name\":\"full\",\"size_bytes\":512}"), 507, "no-space");
	expect_error(ask(b, "POST", "/v1/volumes", "{\"name\":\"taken\",\"size_bytes\":512}"), 409, "exists");
	expect_error(ask(b, "DELETE", "/v1/volumes/none", NULL), 404, "not-found");
	expect_error(ask(b, "GET", "/v1/volumes/none/snapshots", NULL), 404, "not-found");
	expect_error(ask(b, "GET", "/v1/volumes?a=1&b=1&c=1&d=1&e=1&f=1&g=1&h=1&i=1", NULL), 400, "invalid");
	size_t len = 70000;
	char *large = malloc(len + 1);
	memset(large, ' ', len);
	large[len] = '\0';
	expect_error(ask(b, "POST", "/v1/volumes", large), 413, "too-large");
	large[65536] = '\0'; /* as large as may be: blanks are no JSON, though */
	expect_error(ask(b, "POST", "/v1/volumes", large), 400, "invalid");
	free(large);
}

static void test_refusals(void)
{
	run_script(script_refusals);
}

/* A body of unknown length that never ends within the limit. */
static void script_chunked(struct bench *b)
{
	static const char head[] =
	    "POST /v1/volumes HTTP/1.1\r\nHost: q\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
	static struct reply r;
	char chunk[4200];
	int fd = client_connect(b);
	CU_ASSERT_EQUAL(send(fd, head, sizeof(head) - 1, MSG_NOSIGNAL), (ssize_t)sizeof(head) - 1);
	int n = snprintf(chunk, sizeof(chunk), "1000\r\n%4096s\r\n", "");
	for (int i = 0; i < 20; i++)
		CU_ASSERT_EQUAL(send(fd, chunk, (size_t)n, MSG_NOSIGNAL), n);
	CU_ASSERT_EQUAL(send(fd, "0\r\n\r\n", 5, MSG_NOSIGNAL), 5);
	client_receive(fd, &r);
	expect_error(&r, 413, "too-large");
	json_decref(r.json);
}

static void test_chunked(void)
{
	run_script(script_chunked);
}

/* ---- events ---- */

static void *log_later(void *context)
{
	struct bench *b = context;
	poll(NULL, 0, 50);
	log_event(b->log, LOG_WARNING, "disk-failed", "disk d1", "it is gone");
	return NULL;
}

static void script_events(struct bench *b)
{
	pthread_t logger;
	log_event(b->log, LOG_NOTICE, "first", "volume vm1", "something");
	struct reply *r = ask(b, "GET", "/v1/events?wait=60", NULL); /* there is one: no wait */
	json_t *event = json_array_get(json_object_get(r->json, "events"), 0);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(event, "code")), "first");
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(event, "sequence")), 1);
	CU_ASSERT_STRING_EQUAL(text_at(r, "started_at"), "2023-11-14T22:13:20.000Z");
	r = ask(b, "GET", "/v1/events?after=1", NULL);
	CU_ASSERT_EQUAL(json_array_size(json_object_get(r->json, "events")), 0);
	pthread_create(&logger, NULL, log_later, b);
	r = ask(b, "GET", "/v1/events?after=1&wait=60", NULL); /* comes as soon as there is one */
	pthread_join(logger, NULL);
	CU_ASSERT_EQUAL(json_array_size(json_object_get(r->json, "events")), 1);
	r = ask(b, "GET", "/v1/events?after=2&wait=1", NULL); /* or without, when the time is over */
	CU_ASSERT_EQUAL(r->status, 200);
	CU_ASSERT_EQUAL(json_array_size(json_object_get(r->json, "events")), 0);
}

static void test_events(void)
{
	run_script(script_events);
}

/* ---- slow commands, and the end ---- */

static void wait_until_held(struct bench *b)
{
	for (int i = 0; i < 5000 && !fake_is_holding(b->set); i++)
		poll(NULL, 0, 1);
	CU_ASSERT(fake_is_holding(b->set));
}

/* Others are served while a command takes long. */
static void script_slow_command(struct bench *b)
{
	static struct reply slow;
	int fd = client_connect(b);
	client_send(fd, "POST", "/v1/volumes", "", "{\"name\":\"held\",\"size_bytes\":512}");
	wait_until_held(b);
	CU_ASSERT_EQUAL(ask(b, "GET", "/v1/status", NULL)->status, 200);
	CU_ASSERT_EQUAL(ask(b, "POST", "/v1/volumes", "{\"name\":\"other\",\"size_bytes\":512}")->status, 201);
	reactor_post(b->reactor, &b->release);
	client_receive(fd, &slow);
	CU_ASSERT_EQUAL(slow.status, 201);
	json_decref(slow.json);
}

static void test_slow_command(void)
{
	run_script(script_slow_command);
}

/* What the client has sent was read, and so is ahead of whatever is sent on another connection from now on. */
static void wait_until_read(int fd)
{
	int n_unread = 1;
	for (int i = 0; i < 5000 && n_unread > 0; i++) {
		CU_ASSERT_EQUAL_FATAL(ioctl(fd, SIOCOUTQ, &n_unread), 0);
		poll(NULL, 0, 1);
	}
	CU_ASSERT_EQUAL(n_unread, 0);
}

/* A command that ends within the grace is answered, a poll for events at once; new requests are told to come back. */
static void script_stop_with_requests(struct bench *b)
{
	static struct reply slow, follower;
	int fd = client_connect(b), fd_follower = client_connect(b), fd_late = client_connect(b);
	client_send(fd_follower, "GET", "/v1/events?wait=60", "", NULL);
	wait_until_read(fd_follower);
	client_send(fd, "POST", "/v1/volumes", "", "{\"name\":\"held\",\"size_bytes\":512}");
	wait_until_held(b);
	reactor_post(b->reactor, &b->stop);
	client_receive(fd_follower, &follower);
	CU_ASSERT_EQUAL(follower.status, 200);
	json_decref(follower.json);
	client_send(fd_late, "GET", "/v1/status", "", NULL);
	client_receive(fd_late, &slow);
	expect_error(&slow, 503, "busy");
	json_decref(slow.json);
	reactor_post(b->reactor, &b->release);
	client_receive(fd, &slow);
	CU_ASSERT_EQUAL(slow.status, 201);
	json_decref(slow.json);
}

static void test_stop_with_requests(void)
{
	run_script(script_stop_with_requests);
}

/* A command that outlasts the grace: its client is told, the command ends later, nobody is harmed. */
static void script_stop_with_endless_command(struct bench *b)
{
	static struct reply slow;
	int fd = client_connect(b);
	client_send(fd, "POST", "/v1/volumes", "", "{\"name\":\"held\",\"size_bytes\":512}");
	wait_until_held(b);
	reactor_post(b->reactor, &b->stop);
	client_receive(fd, &slow);
	expect_error(&slow, 503, "busy");
	json_decref(slow.json);
}

static void test_stop_with_endless_command(void)
{
	struct bench b;
	bench_create(&b);
	CU_ASSERT_EQUAL_FATAL(bench_start(&b), 0);
	bench_run(&b, script_stop_with_endless_command);
	CU_ASSERT(fake_is_holding(b.set));
	fake_release(b.set); /* the API is gone by now */
	bench_destroy(&b);
}

/* A client that sends half a request and then nothing does not hold up the end. */
static void script_silent_client(struct bench *b)
{
	static const char half[] = "POST /v1/volumes HTTP/1.1\r\nHost: q\r\nContent-Length: 100\r\n\r\n{";
	int fd = client_connect(b);
	CU_ASSERT_EQUAL(send(fd, half, sizeof(half) - 1, MSG_NOSIGNAL), (ssize_t)sizeof(half) - 1);
	CU_ASSERT_EQUAL(ask(b, "GET", "/v1/status", NULL)->status, 200);
	reactor_post(b->reactor, &b->stop);
	static struct reply r;
	client_receive(fd, &r); /* ends when the API does */
	json_decref(r.json);
}

static void test_silent_client(void)
{
	run_script(script_silent_client);
}

/* ---- sockets and tokens ---- */

static void test_socket(void)
{
	struct bench b, second;
	struct stat st;
	bench_create(&b);
	/* what a dead process left behind is replaced */
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", b.config.control.socket);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	CU_ASSERT_EQUAL_FATAL(bench_start(&b), 0);
	CU_ASSERT_EQUAL(stat(b.config.control.socket, &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 0777, 0660);
	/* what a live one listens on is not */
	bench_create(&second);
	snprintf(second.config.control.socket, sizeof(second.config.control.socket), "%s", b.config.control.socket);
	CU_ASSERT_EQUAL(bench_start(&second), -EADDRINUSE);
	CU_ASSERT_PTR_NOT_NULL(strstr(second.why, b.config.control.socket));
	/* nor is what is no socket at all */
	snprintf(second.config.control.socket, sizeof(second.config.control.socket), "%s/file", second.folder);
	fd = open(second.config.control.socket, O_CREAT | O_WRONLY, 0600);
	close(fd);
	CU_ASSERT_EQUAL(bench_start(&second), -EEXIST);
	unlink(second.config.control.socket);
	bench_destroy(&second);
	bench_run(&b, script_lists);
	bench_destroy(&b);
}

/* A port that was free a moment ago. */
static int free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t len = sizeof(address);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(fd, (struct sockaddr *)&address, len) < 0 || getsockname(fd, (struct sockaddr *)&address, &len) < 0)
		abort();
	close(fd);
	return ntohs(address.sin_port);
}

static void script_token(struct bench *b)
{
	static const char *const wrong[] = {"",
					    "Authorization: Bearer\r\n",
					    "Authorization: Bearer \r\n",
					    "Authorization: Bearer correct-horse-batter\r\n",
					    "Authorization: Bearer " TOKEN "y\r\n",
					    "Authorization: Basic " TOKEN "\r\n",
					    "Authorization: Bearer " TOKEN TOKEN "\r\n"};
	for (size_t i = 0; i < array_size(wrong); i++)
		expect_error(ask_with(b, "GET", "/v1/status", wrong[i], NULL, true), 401, "unauthorized");
	struct reply *r = ask_with(b, "GET", "/v1/status", "Authorization: Bearer " TOKEN "\r\n", NULL, true);
	CU_ASSERT_EQUAL(r->status, 200);
	r = ask_with(b, "GET", "/v1/status", "", NULL, false); /* the unix socket has its permissions */
	CU_ASSERT_EQUAL(r->status, 200);
}

static void write_token(const struct bench *b, const char *token)
{
	FILE *f = fopen(b->config.control.token_file, "w");
	if (!f)
		abort();
	fputs(token, f);
	fclose(f);
}

static void test_token(void)
{
	struct bench b;
	bench_create(&b);
	b.port = free_port();
	snprintf(b.config.control.listen, sizeof(b.config.control.listen), "127.0.0.1:%d", b.port);
	snprintf(b.config.control.token_file, sizeof(b.config.control.token_file), "%s/token", b.folder);
	CU_ASSERT_EQUAL(bench_start(&b), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "No such file"));
	write_token(&b, "short\n");
	CU_ASSERT_EQUAL(bench_start(&b), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "the token must have 16 to 255 characters"));
	write_token(&b, "  " TOKEN "\n");
	CU_ASSERT_EQUAL_FATAL(bench_start(&b), 0);
	bench_run(&b, script_token);
	bench_destroy(&b);
}

/* ---- metrics ---- */

/* Every sample's metric has a TYPE before it, numbers are numbers, and names are in the reference. */
static void check_metrics(char *text, const char *reference)
{
	char *rest = text, *line, type_of[128] = "";
	unsigned n_samples = 0;
	while ((line = strsep(&rest, "\n")) != NULL && *line) {
		char name[128], quoted[140];
		double number;
		if (sscanf(line, "# TYPE %127s", name) == 1) {
			snprintf(type_of, sizeof(type_of), "%s", name);
			snprintf(quoted, sizeof(quoted), "`%s`", name);
			CU_ASSERT_PTR_NOT_NULL(strstr(reference, quoted));
			if (!strstr(reference, quoted))
				printf("\n  not in docs/reference/metrics.md: %s\n", name);
			continue;
		}
		if (line[0] == '#')
			continue;
		n_samples++;
		CU_ASSERT_EQUAL(strncmp(line, type_of, strlen(type_of)), 0);
		const char *space = strrchr(line, ' ');
		CU_ASSERT_PTR_NOT_NULL_FATAL(space);
		CU_ASSERT_EQUAL(sscanf(space, " %lf", &number), 1);
	}
	CU_ASSERT(n_samples > 50);
}

static char *file_text(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = calloc(1, 1 << 20);
	if (f && text && fread(text, 1, (1 << 20) - 1, f) > 0)
		fclose(f);
	return text;
}

/* Names in the reference's tables that the page does not have. */
static void check_reference(const char *reference, const char *page)
{
	for (const char *at = reference; (at = strstr(at, "\n| `")) != NULL; at++) {
		char name[128], type[160];
		sscanf(at + 4, "%127[^`]", name);
		snprintf(type, sizeof(type), "# TYPE %s ", name);
		CU_ASSERT_PTR_NOT_NULL(strstr(page, type));
		if (!strstr(page, type))
			printf("\n  in docs/reference/metrics.md only: %s\n", name);
	}
}

static void script_metrics(struct bench *b)
{
	ask(b, "POST", "/v1/volumes", "{\"name\":\"vm1\",\"size_bytes\":1048576}");
	ask(b, "POST", "/v1/volumes/vm1/attachments", "{\"frontend\":\"nbd\"}");
	struct reply *r = ask(b, "GET", "/metrics", NULL);
	CU_ASSERT_EQUAL(r->status, 200);
	CU_ASSERT_PTR_NOT_NULL(strstr(r->text, "Content-Type: text/plain; version=0.0.4"));
	CU_ASSERT_PTR_NOT_NULL(
	    strstr(r->body, "quarry_volume_operations_total{volume=\"vm1\",operation=\"read\"} 5\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(r->body, "quarry_volume_size_bytes{volume=\"vm1\"} 1048576\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(r->body, "quarry_disk_free_bytes{disk=\"d1\"} 819200000\n"));
	CU_ASSERT_PTR_NOT_NULL(
	    strstr(r->body, "quarry_volume_latency_seconds_bucket{volume=\"vm1\",operation=\"read\",le=\"+Inf\"} 2\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(
	    r->body, "quarry_volume_latency_seconds_bucket{volume=\"vm1\",operation=\"read\",le=\"0.000002048\"} 1\n"));
	CU_ASSERT_PTR_NOT_NULL(
	    strstr(r->body, "quarry_volume_latency_seconds_count{volume=\"vm1\",operation=\"read\"} 2\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(r->body, "quarry_nbd_connections 0\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(r->body, "quarry_node_draining{node=\"n1\"} 0\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(r->body, "quarry_rebalancing 1\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(r->body, "quarry_rebalance_left_seconds 90\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(r->body, "quarry_volume_resyncing{volume=\"vm1\"} 0\n"));
	char *reference = file_text("docs/reference/metrics.md");
	check_reference(reference, r->body);
	check_metrics(r->body, reference);
	free(reference);
}

static void test_metrics(void)
{
	run_script(script_metrics);
}

/* ---- clients that say nothing ---- */

#define SILENT 100u

/* More than there are places: some say nothing, others begin and never end. */
static void script_silent_clients(struct bench *b)
{
	int fds[SILENT];
	char last;
	for (uint32_t i = 0; i < SILENT; i++) {
		const char *text = i % 3 == 0   ? ""
				   : i % 3 == 1 ? "GET /v1/ver"
						: "POST /v1/volumes HTTP/1.1\r\nHost: q\r\n"
						  "Content-Length: 100\r\n\r\n{";
		fds[i] = client_connect(b);
		CU_ASSERT_FATAL(fds[i] >= 0);
		(void)!send(fds[i], text, strlen(text), MSG_NOSIGNAL); /* it may be gone already */
		if (i % 20 == 19) {
			struct timespec begin, end;
			clock_gettime(CLOCK_MONOTONIC, &begin);
			CU_ASSERT_EQUAL(ask(b, "GET", "/v1/version", NULL)->status, 200);
			clock_gettime(CLOCK_MONOTONIC, &end);
			CU_ASSERT(end.tv_sec - begin.tv_sec < 5);
		}
	}
	CU_ASSERT(recv(fds[0], &last, 1, 0) <= 0); /* the first of them made room */
	for (uint32_t i = 0; i < SILENT; i++)
		close(fds[i]);
	CU_ASSERT_EQUAL(ask(b, "GET", "/v1/version", NULL)->status, 200);
}

static void test_silent_clients(void)
{
	run_script(script_silent_clients);
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("control API", NULL, NULL);
	CU_add_test(suite, "answers", test_answers);
	CU_add_test(suite, "lists", test_lists);
	CU_add_test(suite, "refusals", test_refusals);
	CU_add_test(suite, "a body without end", test_chunked);
	CU_add_test(suite, "events", test_events);
	CU_add_test(suite, "a slow command", test_slow_command);
	CU_add_test(suite, "the end, with requests", test_stop_with_requests);
	CU_add_test(suite, "the end, with an endless command", test_stop_with_endless_command);
	CU_add_test(suite, "the end, with a silent client", test_silent_client);
	CU_add_test(suite, "clients that say nothing", test_silent_clients);
	CU_add_test(suite, "sockets", test_socket);
	CU_add_test(suite, "tokens", test_token);
	CU_add_test(suite, "metrics", test_metrics);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
