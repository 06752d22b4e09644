/*
 * test_cli_endpoint.c: a connection that ends inside the call that begins an operation.
 */
#include "cli/cli.h"
#include "cli/endpoint.h"

#include <CUnit/Basic.h>
#include <endian.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE_BYTES (1u << 20)

static void say(int fd, const void *data, size_t len)
{
	if (write(fd, data, len) != (ssize_t)len)
		_exit(2);
}

static void hear(int fd, void *data, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read(fd, (char *)data + done, len - done);
		if (n <= 0)
			_exit(3);
		done += (size_t)n;
	}
}

static void answer(int fd, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
	const struct __attribute__((packed)) {
		uint64_t magic;
		uint32_t option, type, len;
	} reply = {htobe64(0x3e889045565a9u), htobe32(option), htobe32(type), htobe32(len)};
	say(fd, &reply, sizeof(reply));
	if (len > 0)
		say(fd, data, len);
}

/* A server that agrees on an export, takes one request, and goes away without an answer. */
static void serve_one_request(int listener)
{
	const struct __attribute__((packed)) {
		char magic[16];
		uint16_t flags;
	} greeting = {"NBDMAGICIHAVEOPT", htobe16(3)};
	const struct __attribute__((packed)) {
		uint16_t type;
		uint64_t size;
		uint16_t flags;
	} info = {0, htobe64(SIZE_BYTES), htobe16(1)};
	struct {
		uint64_t magic;
		uint32_t kind, len;
	} option;
	char data[4096];
	int fd = accept(listener, NULL, NULL);
	say(fd, &greeting, sizeof(greeting));
	hear(fd, data, 4);
	for (;;) {
		hear(fd, &option, sizeof(option));
		hear(fd, data, be32toh(option.len));
		if (be32toh(option.kind) == 7) /* GO */
			break;
		answer(fd, be32toh(option.kind), 0x80000001u, NULL, 0);
	}
	answer(fd, 7, 3, &info, sizeof(info));
	answer(fd, 7, 1, NULL, 0);
	hear(fd, data, 28);
	_exit(0);
}

static void who_waits_is_told_once(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char uri[200], folder[] = "/tmp/quarry-test.XXXXXX";
	static char data[4096];
	struct cli c = {0};
	struct endpoint e;
	struct endpoint_op first, second;
	int state, listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", folder);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", address.sun_path);
	CU_ASSERT_EQUAL_FATAL(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(listener, 1), 0);
	pid_t pid = fork();
	CU_ASSERT_FATAL(pid >= 0);
	if (pid == 0)
		serve_one_request(listener);
	CU_ASSERT_EQUAL_FATAL(endpoint_open_uri(&c, &e, uri), DONE);
	endpoint_read(&e, &first, data, sizeof(data), 0);
	CU_ASSERT_EQUAL(waitpid(pid, &state, 0), pid);
	CU_ASSERT_EQUAL(state, 0);
	CU_ASSERT_FALSE(first.is_done);
	endpoint_write(&e, &second, data, sizeof(data), 0);
	CU_ASSERT_TRUE(first.is_done && second.is_done);
	struct pollfd wait = endpoint_pollfd(&e);
	CU_ASSERT_EQUAL(poll(&wait, 1, 0), 1);
	endpoint_polled(&e, wait.revents);
	wait = endpoint_pollfd(&e);
	CU_ASSERT_EQUAL(poll(&wait, 1, 0), 0);
	endpoint_close(&e);
	close(listener);
	unlink(address.sun_path);
	rmdir(folder);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli endpoint", NULL, NULL);
	CU_add_test(suite, "who waits is told once", who_waits_is_told_once);
	signal(SIGPIPE, SIG_IGN);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
