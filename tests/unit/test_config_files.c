/*
 * test_config_files.c: what a configuration names must let a daemon start; all that does not is said, with its line.
 */
#include "daemon/config.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct heard {
	struct config_report report;
	char lines[4096];
};

static void heard_say(struct config_report *report, const char *line)
{
	struct heard *h = container_of(report, struct heard, report);
	size_t used = strlen(h->lines);
	snprintf(h->lines + used, sizeof(h->lines) - used, "%s\n", line);
}

static char folder[64];

static void file_make(const char *name, const char *text)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

/* A configuration whose four places are in the folder, with `more` on line 2; every @ in it becomes the folder. What is
 * said is in *h. */
static int look(const char *more, struct heard *h)
{
	static const char begin[] = "node = { name = \"n\"; data_dir = \"@/data/deep\"; };\n";
	char text[2048] = "";
	struct config c;
	*h = (struct heard){.report = {.say = heard_say}};
	for (unsigned part = 0; part < 2; part++)
		for (const char *at = part == 0 ? begin : more; *at; at++) {
			size_t used = strlen(text);
			snprintf(text + used, sizeof(text) - used, *at == '@' ? "%s" : "%.1s",
				 *at == '@' ? folder : at);
		}
	CU_ASSERT_EQUAL_FATAL(config_parse("q.conf", text, &c, &h->report), 0);
	return config_check_files("q.conf", &c, &h->report);
}

#define PLACES                                                                                                         \
	"control = { socket = \"@/run/c.sock\"; }; nbd = { socket = \"@/run/n.sock\"; }; vhost = { dir = "             \
	"\"@/run/v\"; };"

static void what_can_be_made_is_right_and_is_not_made(void)
{
	struct heard h;
	CU_ASSERT_EQUAL(look(PLACES, &h), 0);
	CU_ASSERT_STRING_EQUAL(h.lines, "");
	char path[128];
	snprintf(path, sizeof(path), "%s/run", folder);
	CU_ASSERT_NOT_EQUAL(access(path, F_OK), 0);
}

static void folders_that_cannot_be_made_are_named(void)
{
	struct heard h;
	char want[1024];
	file_make("file", "");
	CU_ASSERT_EQUAL(look("control = { socket = \"@/file/c.sock\"; };\nnbd = { socket = \"@/file\"; };\n"
			     "vhost = { dir = \"@/file/v\"; };",
			     &h),
			-EINVAL);
	snprintf(want, sizeof(want),
		 "q.conf:2: control.socket: no files can be made in the folder %s/file: %s/file: Not a directory\n"
		 "q.conf:3: nbd.socket: %s/file is there and is no socket\n"
		 "q.conf:4: vhost.dir: no files can be made in the folder %s/file/v: %s/file: Not a directory\n",
		 folder, folder, folder, folder, folder);
	CU_ASSERT_STRING_EQUAL(h.lines, want);
	CU_ASSERT_EQUAL(h.report.n_errors, 3);
}

static void secrets_that_cannot_be_used_are_named(void)
{
	struct heard h;
	file_make("short", "secret\n");
	file_make("token", "0123456789abcdef\n");
	file_make("keys.psk", "backup:00112233445566778899aabbccddeeff\n");
	CU_ASSERT_EQUAL(look("control = { socket = \"@/c\"; listen = \"127.0.0.1:9750\"; token_file = \"@/token\"; };"
			     "nbd = { socket = \"@/n\"; tls = \"require\"; psk_file = \"@/keys.psk\"; };"
			     "vhost = { dir = \"@/v\"; };",
			     &h),
			0);
	CU_ASSERT_STRING_EQUAL(h.lines, "");
	static const char *const control[][2] = {
	    {"token_file = \"@/none\";", "/none: cannot be read: No such file or directory"},
	    {"token_file = \"@/short\";", "control.token_file: "},
	    {"token_file = \"@/token\"; tls = \"on\"; cert_dir = \"@/data\";", "server-cert.pem: cannot be read"},
	};
	for (size_t i = 0; i < array_size(control); i++) {
		char more[512];
		snprintf(more, sizeof(more),
			 "control = { socket = \"@/c\"; listen = \"127.0.0.1:9750\";\n%s };"
			 "nbd = { socket = \"@/n\"; }; vhost = { dir = \"@/v\"; };",
			 control[i][0]);
		CU_ASSERT_EQUAL(look(more, &h), -EINVAL);
		CU_ASSERT_PTR_NOT_NULL(strstr(h.lines, "q.conf:3: control."));
		CU_ASSERT_PTR_NOT_NULL(strstr(h.lines, control[i][1]));
	}
}

static void credentials_of_nbd_are_loaded(void)
{
	static const char *const nbd[][2] = {
	    {"tls = \"on\"; cert_dir = \"@/none\";", "q.conf:2: nbd.cert_dir: "},
	    {"tls = \"require\"; psk_file = \"@/none\";", "q.conf:2: nbd.psk_file: "},
	};
	for (size_t i = 0; i < array_size(nbd); i++) {
		struct heard h;
		char more[512];
		snprintf(more, sizeof(more),
			 "nbd = { socket = \"@/n\"; %s }; control = { socket = \"@/c\"; }; vhost = { dir = \"@/v\"; };",
			 nbd[i][0]);
		CU_ASSERT_EQUAL(look(more, &h), -EINVAL);
		CU_ASSERT_EQUAL(strncmp(h.lines, nbd[i][1], strlen(nbd[i][1])), 0);
		CU_ASSERT_EQUAL(h.report.n_errors, 1);
	}
}

static int entry_remove(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return remove(path);
}

int main(void)
{
	snprintf(folder, sizeof(folder), "/tmp/quarry-files-XXXXXX");
	if (!mkdtemp(folder))
		return 1;
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("config files", NULL, NULL);
	CU_add_test(suite, "what can be made is right, and is not made", what_can_be_made_is_right_and_is_not_made);
	CU_add_test(suite, "folders that cannot be made are named", folders_that_cannot_be_made_are_named);
	CU_add_test(suite, "secrets that cannot be used are named", secrets_that_cannot_be_used_are_named);
	CU_add_test(suite, "credentials of NBD are loaded", credentials_of_nbd_are_loaded);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return nftw(folder, entry_remove, 8, FTW_DEPTH | FTW_PHYS) != 0 || failures != 0;
}
