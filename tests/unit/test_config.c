/*
 * test_config.c: defaults, every kind of wrong value with its line and key, and the rules between keys.
 */
#include "daemon/config.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static int parse(const char *text, struct config *c, struct heard *h)
{
	*h = (struct heard){.report = {.say = heard_say}};
	return config_parse("q.conf", text, c, &h->report);
}

/* The text is refused with exactly these lines. */
static void expect(const char *text, const char *line)
{
	struct config c;
	struct heard h;
	char whole[1100];
	CU_ASSERT_EQUAL(parse(text, &c, &h), -EINVAL);
	snprintf(whole, sizeof(whole), "%s\n", line);
	CU_ASSERT_STRING_EQUAL(h.lines, whole);
	unsigned n_lines = 1;
	for (const char *at = line; (at = strchr(at, '\n')) != NULL; at++)
		n_lines++;
	CU_ASSERT_EQUAL(h.report.n_errors, n_lines);
	if (strcmp(h.lines, whole) != 0)
		printf("\n  got:  %s  want: %s", h.lines, whole);
}

/* The same, in a file where everything else is in order: `text` stands on line 2. */
static void expect_beside_name(const char *text, const char *line)
{
	char whole[2048];
	snprintf(whole, sizeof(whole), "node = { name = \"n1\"; };\n%s\n", text);
	expect(whole, line);
}

static void test_defaults(void)
{
	struct config c;
	struct heard h;
	CU_ASSERT_EQUAL(parse("node = { name = \"n1\"; };", &c, &h), 0);
	CU_ASSERT_STRING_EQUAL(h.lines, "");
	CU_ASSERT_STRING_EQUAL(c.node.name, "n1");
	CU_ASSERT_STRING_EQUAL(c.node.data_dir, "/var/lib/quarry");
	CU_ASSERT_EQUAL(c.node.cache_mb, 256);
	CU_ASSERT_EQUAL(c.node.n_labels, 0);
	CU_ASSERT_STRING_EQUAL(c.control.socket, "/run/quarry/control.sock");
	CU_ASSERT_STRING_EQUAL(c.control.listen, "");
	CU_ASSERT_EQUAL(c.cluster.lease_ms, 5000);
	CU_ASSERT_EQUAL(c.cluster.drift_ppm, 1000);
	CU_ASSERT_EQUAL(c.cluster.replica_timeout_ms, 700);
	CU_ASSERT_EQUAL(c.cluster.rebuild_after_s, 600);
	CU_ASSERT_EQUAL(c.metadata.backend, CONFIG_EMBEDDED);
	CU_ASSERT_STRING_EQUAL(c.nbd.socket, "/run/quarry/nbd.sock");
	CU_ASSERT_EQUAL(c.nbd.tls, CONFIG_TLS_OFF);
	CU_ASSERT_EQUAL(c.nbd.max_connections, 256);
	CU_ASSERT_STRING_EQUAL(c.vhost.dir, "/run/quarry/vhost");
	CU_ASSERT_EQUAL(c.log.level, LOG_INFO);
}

static void test_everything_set(void)
{
	struct config c;
	struct heard h;
	const char *text =
	    "# a comment\n"
	    "node = { name = \"rack-3.n_1\"; data_dir = \"/srv/q\"; reactors = 1; cache_mb = 1024;\n"
	    "         labels = { zone = \"a\"; rack = \"r7\"; }; };\n"
	    "control = { socket = \"/tmp/c.sock\"; listen = \"127.0.0.1:9750\"; token_file = \"/etc/t\";\n"
	    "            tls = \"off\"; cert_dir = \"\"; };\n"
	    "peer = { listen = \"\"; key_file = \"\"; insecure = false; };\n"
	    "cluster = { lease_ms = 9000; drift_ppm = 50; replica_timeout_ms = 900; rebuild_after_s = 60; };\n"
	    "metadata = { backend = \"embedded\"; endpoints = []; prefix = \"/q2\"; };\n"
	    "nbd = { socket = \"/tmp/n.sock\"; listen = \"[::]:10809\"; tls = \"require\";\n"
	    "        cert_dir = \"/etc/certs\"; psk_file = \"/etc/psk\"; max_connections = 9; };\n"
	    "vhost = { dir = \"/tmp/v\"; poll_us = 30; file_memory = true; };\n"
	    "log = { level = \"debug\"; };\n";
	CU_ASSERT_EQUAL(parse(text, &c, &h), 0);
	CU_ASSERT_STRING_EQUAL(h.lines, "");
	CU_ASSERT_STRING_EQUAL(c.node.name, "rack-3.n_1");
	CU_ASSERT_EQUAL(c.node.cache_mb, 1024);
	CU_ASSERT_EQUAL_FATAL(c.node.n_labels, 2);
	CU_ASSERT_STRING_EQUAL(c.node.labels[1].key, "rack");
	CU_ASSERT_STRING_EQUAL(c.node.labels[1].value, "r7");
	CU_ASSERT_STRING_EQUAL(c.control.listen, "127.0.0.1:9750");
	CU_ASSERT_EQUAL(c.cluster.rebuild_after_s, 60);
	CU_ASSERT_STRING_EQUAL(c.metadata.prefix, "/q2");
	CU_ASSERT_STRING_EQUAL(c.nbd.listen, "[::]:10809");
	CU_ASSERT_EQUAL(c.nbd.tls, CONFIG_TLS_REQUIRE);
	CU_ASSERT_EQUAL(c.nbd.max_connections, 9);
	CU_ASSERT_EQUAL(c.vhost.poll_us, 30);
	CU_ASSERT_TRUE(c.vhost.file_memory);
	CU_ASSERT_EQUAL(c.log.level, LOG_DEBUG);
}

static void test_syntax(void)
{
	expect("node = { name = \"n1\";\n nonsense\n};",
	       "q.conf:3: syntax error at or before: }; (a setting is NAME = VALUE; and texts stand in quotes)");
	expect("node = { name = \"n1\";", "q.conf:1: syntax error at or before: node = { name = \"n1\"; (a setting is "
					  "NAME = VALUE; and texts stand in "
					  "quotes)");
	expect(
	    "node = {\n",
	    "q.conf:2: syntax error at or before the end: is a bracket or quote still open, or a semicolon missing?");
	expect("node = { name = \"a\"; };\nnode = { name = \"b\"; };", "q.conf:2: duplicate setting name");
	expect("node = { name = \"n1\"; };\n  @include \"/etc/passwd\"\n", "q.conf:2: @include is not supported");
	expect("", "q.conf: node.name: is missing; every node needs a name: node = { name = \"n1\"; };");
	expect("node = { cache_mb = 64; };",
	       "q.conf:1: node.name: is missing; every node needs a name: node = { name = \"n1\"; };");
}

static void test_unknown_keys(void)
{
	expect_beside_name("nbdd = { };", "q.conf:2: nbdd: unknown key; did you mean nbd?");
	expect_beside_name("frob = { };",
			   "q.conf:2: frob: unknown key; there are: node control peer cluster metadata nbd vhost log");
	expect_beside_name("nbd = { sokcet = \"/s\"; };",
			   "q.conf:2: nbd.sokcet: unknown key; did you mean nbd.socket?");
	expect_beside_name("metadata = { endpoint = []; };",
			   "q.conf:2: metadata.endpoint: unknown key; did you mean metadata.endpoints?");
	expect_beside_name("vhost = { polling = 1; };",
			   "q.conf:2: vhost.polling: unknown key; vhost has: dir poll_us file_memory");
	expect("node = { name = \"n1\";\n\n cache = 5; };",
	       "q.conf:3: node.cache: unknown key; node has: name data_dir reactors cache_mb labels");
	expect_beside_name("log = 5;", "q.conf:2: log: must be a group, as in log = { ... };");
}

static void test_wrong_values(void)
{
	expect("node = { name = 5; };", "q.conf:1: node.name: must be a text in quotes");
	expect(
	    "node = { name = \"\"; };",
	    "q.conf:1: node.name: must be of letters, digits, '.', '_' and '-', and begin with one of the first two");
	expect("node = { name = \"n1\"; cache_mb = 15; };",
	       "q.conf:1: node.cache_mb: must be a whole number from 16 to 1048576");
	expect("node = { name = \"n1\"; cache_mb = \"64\"; };",
	       "q.conf:1: node.cache_mb: must be a whole number from 16 to 1048576");
	expect("node = { name = \"n1\"; cache_mb = 64.0; };",
	       "q.conf:1: node.cache_mb: must be a whole number from 16 to 1048576");
	expect("node = { name = \"n1\"; cache_mb = 99999999999L; };",
	       "q.conf:1: node.cache_mb: must be a whole number from 16 to 1048576");
	expect("node = { name = \"n1\"; cache_mb = -1; };",
	       "q.conf:1: node.cache_mb: must be a whole number from 16 to 1048576");
	expect("node = { name = \"n1\"; data_dir = \"\"; };", "q.conf:1: node.data_dir: must not be empty");
	expect("node = { name = \"n1\"; data_dir = \"here\"; };", "q.conf:1: node.data_dir: must be an absolute path");
	expect("node = { name = \"n1\"; data_dir = \"/a\\x01b\"; };",
	       "q.conf:1: node.data_dir: has a control character");
	expect_beside_name("peer = { insecure = 1; };", "q.conf:2: peer.insecure: must be true or false");
	expect_beside_name(
	    "log = { level = \"loud\"; };",
	    "q.conf:2: log.level: must be one of \"error\", \"warning\", \"notice\", \"info\", \"debug\"");
	expect_beside_name("metadata = { prefix = \"quarry\"; };",
			   "q.conf:2: metadata.prefix: must begin with a slash");
}

static void test_addresses(void)
{
	static const char *const wrong[] = {"10809", "host", "host:", "host:1x", ":5", "ho st:5", "[]:5", "[::1:5"};
	static const char *const right[] = {"127.0.0.1:1", "a-b.example:65535", "[::1]:10809", "0.0.0.0:10809"};
	char text[128];
	struct config c;
	struct heard h;
	expect_beside_name("nbd = { listen = \"host:65536\"; };",
			   "q.conf:2: nbd.listen: must have a port from 1 to 65535");
	expect_beside_name("nbd = { listen = \"host:0\"; };", "q.conf:2: nbd.listen: must have a port from 1 to 65535");
	expect_beside_name("nbd = { listen = \"::1:10809\"; };",
			   "q.conf:2: nbd.listen: must have an IPv6 address in brackets, as in \"[::1]:9750\"");
	for (size_t i = 0; i < array_size(wrong); i++) {
		snprintf(text, sizeof(text), "nbd = { listen = \"%s\"; };", wrong[i]);
		expect_beside_name(text, "q.conf:2: nbd.listen: must be HOST:PORT, as in \"127.0.0.1:9750\"");
	}
	for (size_t i = 0; i < array_size(right); i++) {
		snprintf(text, sizeof(text), "node={name=\"n\";}; nbd = { listen = \"%s\"; };", right[i]);
		CU_ASSERT_EQUAL(parse(text, &c, &h), 0);
	}
	CU_ASSERT(config_address_is_loopback("127.0.0.1:5"));
	CU_ASSERT(config_address_is_loopback("127.1.2.3:5"));
	CU_ASSERT(config_address_is_loopback("[::1]:5"));
	CU_ASSERT(config_address_is_loopback("localhost:5"));
	CU_ASSERT(!config_address_is_loopback("0.0.0.0:5"));
	CU_ASSERT(!config_address_is_loopback("localhost.example:5"));
	CU_ASSERT(!config_address_is_loopback("[::]:5"));
	CU_ASSERT(config_address_is_loopback("127.1:5"));
	CU_ASSERT(config_address_is_loopback("[0:0:0:0:0:0:0:1]:5"));
	CU_ASSERT(!config_address_is_loopback("127.example:5")); /* a name: nobody knows where it leads */
	CU_ASSERT(!config_address_is_loopback("10.127.0.1:5"));
	static const char *const any[] = {"0.0.0.0:5", "[::]:5", "0:5", "[0::0]:5"};
	static const char *const one[] = {"10.0.0.1:5", "[fd00::1]:5", "localhost:5", "[::1]:5", "0.example:5"};
	for (size_t i = 0; i < array_size(any); i++)
		CU_ASSERT(config_address_is_any(any[i]));
	for (size_t i = 0; i < array_size(one); i++)
		CU_ASSERT(!config_address_is_any(one[i]));
	char host[CONFIG_TEXT_MAX];
	config_address_host("[fd00::1]:5", host);
	CU_ASSERT_STRING_EQUAL(host, "fd00::1");
	config_address_host("n1.example:5", host);
	CU_ASSERT_STRING_EQUAL(host, "n1.example");
}

static void test_lengths(void)
{
	char text[1200], path[600];
	memset(path, 'p', sizeof(path));
	path[0] = '/';
	path[108] = '\0';
	snprintf(text, sizeof(text), "nbd = { socket = \"%s\"; };", path);
	expect_beside_name(text, "q.conf:2: nbd.socket: has 108 bytes, at most 107 fit");
	path[108] = 'p';
	path[256] = '\0';
	snprintf(text, sizeof(text), "nbd = { cert_dir = \"%s\"; };", path);
	expect_beside_name(text, "q.conf:2: nbd.cert_dir: has 256 bytes, at most 255 fit");
	path[0] = 'p';
	path[64] = '\0';
	snprintf(text, sizeof(text), "node = { name = \"%s\"; };", path);
	expect(text, "q.conf:1: node.name: has 64 bytes, at most 63 fit");
}

static void test_lists(void)
{
	expect("node = { name = \"n1\"; labels = \"a\"; };",
	       "q.conf:1: node.labels: must be a group, as in { zone = \"a\"; }");
	expect("node = { name = \"n1\"; labels = {\n zone = 5; }; };",
	       "q.conf:2: node.labels.zone: must be a short name in quotes");
	expect("node = { name = \"n1\"; labels = { zone = \"a b\"; }; };",
	       "q.conf:1: node.labels.zone: must be a short name in quotes");
	expect_beside_name("metadata = { endpoints = \"http://x\"; };",
			   "q.conf:2: metadata.endpoints: must be a list, as in [\"http://127.0.0.1:2379\"]");
	expect_beside_name("metadata = { endpoints = [\"http://x:1\", \"ftp://y\"]; };",
			   "q.conf:2: metadata.endpoints: member 2 must be a URL that begins with http:// or https://");
	expect_beside_name("metadata = { backend = \"etcd\"; endpoints = [\"http://x:1\",\n\"http://y:99999\"]; };",
			   "q.conf:3: metadata.endpoints: member 2 must have a port from 1 to 65535");
	expect_beside_name("metadata = { backend = \"etcd\"; endpoints = [\"https://\"]; };",
			   "q.conf:2: metadata.endpoints: member 1 must have a host, as in \"http://127.0.0.1:2379\"");
	expect_beside_name("metadata = { backend = \"etcd\"; endpoints = [2379]; };",
			   "q.conf:2: metadata.endpoints: member 1 must be a text in quotes, as in "
			   "\"http://127.0.0.1:2379\"");
	char text[2048] = "node = { name = \"n1\"; labels = {";
	for (int i = 0; i < 17; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), " l%d = \"v\";", i);
	snprintf(text + strlen(text), sizeof(text) - strlen(text), "}; };");
	expect(text, "q.conf:1: node.labels: has 17 labels, at most 16 are kept");
}

static void test_rules_between_keys(void)
{
	expect_beside_name("control = { socket = \"\"; };",
			   "q.conf:2: control.socket: without it and control.listen nobody can give orders");
	expect_beside_name("control = { listen = \"127.0.0.1:9750\"; };",
			   "q.conf:2: control.listen: needs control.token_file, which holds the bearer token");
	expect_beside_name("control = { token_file = \"/t\"; listen = \"10.0.0.1:9750\"; };",
			   "q.conf:2: control.listen: needs control.tls = \"on\" except on a loopback address");
	expect_beside_name("control = { tls = \"on\"; };",
			   "q.conf:2: control.tls: needs control.cert_dir with server-cert.pem and server-key.pem");
	expect_beside_name("nbd = { tls = \"on\"; };", "q.conf:2: nbd.tls: needs nbd.cert_dir or nbd.psk_file");
	expect_beside_name("nbd = { socket = \"/run/quarry/control.sock\"; };",
			   "q.conf:2: nbd.socket: is control.socket too; give each its own");
	expect_beside_name("cluster = { lease_ms = 700; };",
			   "q.conf: cluster.replica_timeout_ms: must be below cluster.lease_ms (700)");
}

static void test_endpoints(void)
{
	static const char *const good[] = {"http://h", "https://h:1", "http://10.0.0.1:2379/", "http://[fe80::1]:2379",
					   "http://h:65535"};
	static const struct {
		const char *url, *fault;
	} bad[] = {
	    {"h:2379", "must be a URL that begins with http:// or https://"},
	    {"ftp://h:1", "must be a URL that begins with http:// or https://"},
	    {"http://", "must have a host, as in \"http://127.0.0.1:2379\""},
	    {"http://:2379", "must be HOST:PORT, as in \"127.0.0.1:9750\""},
	    {"http://h:", "must be HOST:PORT, as in \"127.0.0.1:9750\""},
	    {"http://h:x", "must be HOST:PORT, as in \"127.0.0.1:9750\""},
	    {"http://[]:1", "must be HOST:PORT, as in \"127.0.0.1:9750\""},
	    {"http://[::1:1", "must be HOST:PORT, as in \"127.0.0.1:9750\""},
	    {"http://h:1:2", "must have an IPv6 address in brackets, as in \"[::1]:9750\""},
	    {"http://h:0", "must have a port from 1 to 65535"},
	    {"http://h:65536", "must have a port from 1 to 65535"},
	    {"http://h:1/x", "must have no path"},
	};
	char text[200], wanted[200];
	struct config c;
	struct heard h;
	for (size_t i = 0; i < array_size(good); i++) {
		snprintf(text, sizeof(text),
			 "node = { name = \"n1\"; };\nmetadata = { backend = \"etcd\"; endpoints = [\"%s\"]; };\n",
			 good[i]);
		CU_ASSERT_EQUAL(parse(text, &c, &h), 0);
		CU_ASSERT_STRING_EQUAL(c.metadata.endpoints[0], good[i]);
	}
	for (size_t i = 0; i < array_size(bad); i++) {
		snprintf(text, sizeof(text),
			 "metadata = { backend = \"etcd\"; endpoints = [\"http://h:1\", \"%s\"]; };", bad[i].url);
		snprintf(wanted, sizeof(wanted), "q.conf:2: metadata.endpoints: member 2 %s", bad[i].fault);
		expect_beside_name(text, wanted);
	}
}

static void test_what_has_no_effect_is_told(void)
{
	struct config c;
	struct heard h;
	CU_ASSERT_EQUAL(
	    parse("node = { name = \"n1\"; };\nnbd = { psk_file = \"/p\";\ncert_dir = \"/c\"; };\n", &c, &h), 0);
	CU_ASSERT_EQUAL(h.report.n_errors, 0);
	CU_ASSERT_EQUAL(h.report.n_warnings, 2);
	CU_ASSERT_STRING_EQUAL(
	    h.lines,
	    "q.conf:3: warning: nbd.cert_dir: has no effect while nbd.tls is \"off\": clients are not encrypted\n"
	    "q.conf:2: warning: nbd.psk_file: has no effect while nbd.tls is \"off\": clients are not encrypted\n");
	CU_ASSERT_EQUAL(parse("node = { name = \"n1\"; };\npeer = { key_file = \"/k\"; };\n", &c, &h), 0);
	CU_ASSERT_STRING_EQUAL(h.lines,
			       "q.conf:2: warning: peer.key_file: has no effect without peer.listen: other nodes "
			       "cannot reach this one\n");
	CU_ASSERT_EQUAL(parse("node = { name = \"n1\"; };\nnbd = { tls = \"on\"; psk_file = \"/p\"; };\n", &c, &h), 0);
	CU_ASSERT_STRING_EQUAL(h.lines, "");
}

static void test_what_is_not_there_yet(void)
{
	expect_beside_name("peer = { listen = \"127.0.0.1:9751\"; };",
			   "q.conf:2: peer.listen: goes with metadata.backend = \"etcd\" only\n"
			   "q.conf:2: peer.listen: needs peer.key_file, which holds the cluster's key");
	expect_beside_name("peer = { listen = \"10.0.0.1:9751\"; insecure = true; };\n"
			   "metadata = { backend = \"etcd\"; endpoints = [\"http://x:1\"]; };",
			   "q.conf:2: peer.listen: needs peer.key_file: peer.insecure is for a loopback address only");
	expect_beside_name(
	    "peer = { listen = \"0.0.0.0:9751\"; key_file = \"/k\"; };\n"
	    "metadata = { backend = \"etcd\"; endpoints = [\"http://x:1\"]; };",
	    "q.conf:2: peer.listen: other nodes connect to this very address: give one of this node's, as "
	    "in \"10.0.0.1:9751\"");
	expect_beside_name("metadata = { ca_file = \"/etc/ca.pem\"; };",
			   "q.conf:2: metadata.ca_file: goes with backend = \"etcd\" only");
	expect_beside_name("metadata = { user = \"u\"; password_file = \"/etc/p\"; };",
			   "q.conf:2: metadata.user: goes with backend = \"etcd\" only\n"
			   "q.conf:2: metadata.password_file: goes with backend = \"etcd\" only");
	expect_beside_name("metadata = { backend = \"etcd\"; };",
			   "q.conf:2: metadata.backend: \"etcd\" needs endpoints, as in [\"http://127.0.0.1:2379\"]");
	expect_beside_name("metadata = { backend = \"etcd\"; endpoints = [\"http://x:1\"]; ca_file = \"/c\"; };",
			   "q.conf:2: metadata.ca_file: needs endpoints that begin with https://");
	expect_beside_name("metadata = { backend = \"etcd\"; endpoints = [\"https://x:1\"]; cert_file = \"/c\";\n"
			   "user = \"u\"; };",
			   "q.conf:2: metadata: cert_file and key_file go together\n"
			   "q.conf:2: metadata: user and password_file go together");
	expect_beside_name("metadata = { endpoints = [\"http://x:1\"]; };",
			   "q.conf:2: metadata.endpoints: go with backend = \"etcd\" only");
	expect("node = { name = \"n1\"; reactors = 2; };",
	       "q.conf:1: node.reactors: more than 1 is not available in this release");
}

static void test_all_errors_are_said(void)
{
	struct config c;
	struct heard h;
	CU_ASSERT_EQUAL(parse("node = { nam = \"n1\"; cache_mb = 1; };\nnbd = { tls = 4; socket = \"x\"; };", &c, &h),
			-EINVAL);
	CU_ASSERT_EQUAL(h.report.n_errors, 5);
	CU_ASSERT_PTR_NOT_NULL(strstr(h.lines, "node.nam:"));
	CU_ASSERT_PTR_NOT_NULL(strstr(h.lines, "node.name:"));
	CU_ASSERT_PTR_NOT_NULL(strstr(h.lines, "node.cache_mb:"));
	CU_ASSERT_PTR_NOT_NULL(strstr(h.lines, "nbd.tls:"));
	CU_ASSERT_PTR_NOT_NULL(strstr(h.lines, "nbd.socket:"));
}

static void test_files(void)
{
	struct config c;
	struct heard h = {.report = {.say = heard_say}};
	CU_ASSERT_EQUAL(config_load("/nonexistent/q.conf", &c, &h.report), -ENOENT);
	CU_ASSERT_STRING_EQUAL(h.lines, "/nonexistent/q.conf: cannot be read: No such file or directory\n");
	CU_ASSERT_EQUAL(config_load("/tmp", &c, &h.report), -EISDIR);
	CU_ASSERT_EQUAL(config_load("/dev/zero", &c, &h.report), -EINVAL);
	char path[] = "/tmp/quarry-test-XXXXXX";
	int fd = mkstemp(path);
	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(write(fd, "node={name=\"x\";};", 17), 17);
	CU_ASSERT_EQUAL(config_load(path, &c, &h.report), 0);
	CU_ASSERT_STRING_EQUAL(c.node.name, "x");
	CU_ASSERT_EQUAL(ftruncate(fd, 2 * MIB), 0);
	CU_ASSERT_EQUAL(config_load(path, &c, &h.report), -EFBIG);
	close(fd);
	unlink(path);
}

/* What is installed as an example must be accepted (the tests run at the top of the tree). */
static void test_sample(void)
{
	struct config c;
	struct heard h = {.report = {.say = heard_say}};
	CU_ASSERT_EQUAL(config_load("packaging/quarry.conf", &c, &h.report), 0);
	CU_ASSERT_STRING_EQUAL(h.lines, "");
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("config", NULL, NULL);
	CU_add_test(suite, "defaults", test_defaults);
	CU_add_test(suite, "everything set", test_everything_set);
	CU_add_test(suite, "syntax", test_syntax);
	CU_add_test(suite, "unknown keys", test_unknown_keys);
	CU_add_test(suite, "wrong values", test_wrong_values);
	CU_add_test(suite, "addresses", test_addresses);
	CU_add_test(suite, "lengths", test_lengths);
	CU_add_test(suite, "lists", test_lists);
	CU_add_test(suite, "rules between keys", test_rules_between_keys);
	CU_add_test(suite, "endpoints", test_endpoints);
	CU_add_test(suite, "what has no effect is told", test_what_has_no_effect_is_told);
	CU_add_test(suite, "what is not there yet", test_what_is_not_there_yet);
	CU_add_test(suite, "all errors are said", test_all_errors_are_said);
	CU_add_test(suite, "files", test_files);
	CU_add_test(suite, "the sample", test_sample);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
