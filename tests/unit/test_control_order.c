/*
 * test_control_order.c: what requests of the control API mean, and how wrong ones are refused: plain functions of
 * texts.
 */
#include "daemon/control/order.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct order order;
static struct refusal refusal;

/* The path may carry one query: "/v1/events?after=3". */
static int read_order(const char *method, const char *target, const char *body)
{
	static char path[2048];
	struct order_text text = {.method = method, .path = path, .body = body, .body_bytes = body ? strlen(body) : 0};
	snprintf(path, sizeof(path), "%s", target);
	char *rest = strchr(path, '?');
	if (rest)
		*rest++ = '\0';
	while (rest) {
		char *one = strsep(&rest, "&");
		char *value = strchr(one, '=');
		if (value)
			*value++ = '\0';
		text.queries[text.n_queries++] = (struct order_query){one, value};
	}
	memset(&refusal, 0, sizeof(refusal));
	return order_read(&text, &order, &refusal);
}

static void expect_refusal(const char *method, const char *target, const char *body, unsigned status, const char *code,
			   const char *message)
{
	CU_ASSERT_EQUAL(read_order(method, target, body), -EINVAL);
	CU_ASSERT_EQUAL(refusal.status, status);
	CU_ASSERT_STRING_EQUAL(refusal.code, code);
	CU_ASSERT_PTR_NOT_NULL(strstr(refusal.message, message));
	if (!strstr(refusal.message, message))
		printf("\n  %s %s %s\n  got:  %u %s %s\n  want: %s\n", method, target, body ? body : "", refusal.status,
		       refusal.code, refusal.message, message);
	CU_ASSERT_PTR_NULL(strchr(refusal.message, '\n'));
}

static void expect_invalid(const char *method, const char *target, const char *body, const char *message)
{
	expect_refusal(method, target, body, 400, "invalid", message);
}

static void test_looks(void)
{
	CU_ASSERT_EQUAL(read_order("GET", "/v1/version", NULL), 0);
	CU_ASSERT_EQUAL(order.show, ORDER_VERSION);
	CU_ASSERT(!order.is_command);
	CU_ASSERT_EQUAL(order.status, 200);
	CU_ASSERT_EQUAL(read_order("GET", "/metrics", NULL), 0);
	CU_ASSERT_EQUAL(order.show, ORDER_METRICS);
	CU_ASSERT_EQUAL(read_order("POST", "/v1/nodes/n1/drain", NULL), 0);
	CU_ASSERT(order.show == ORDER_NODE && order.command.kind == SET_NODE_DRAIN && !order.command.cancel);
	CU_ASSERT_EQUAL(read_order("DELETE", "/v1/nodes/n1/drain", NULL), 0);
	CU_ASSERT_TRUE(order.command.cancel);
	CU_ASSERT_EQUAL(read_order("GET", "/v1/volumes/vm7", NULL), 0);
	CU_ASSERT_EQUAL(order.show, ORDER_VOLUME);
	CU_ASSERT_STRING_EQUAL(order.object, "vm7");
}

static void test_percent_encoding(void)
{
	CU_ASSERT_EQUAL(read_order("GET", "/v1/disks/%2fsrv%2Fa%20b.img", NULL), 0);
	CU_ASSERT_STRING_EQUAL(order.object, "/srv/a b.img");
	expect_refusal("GET", "/v1/disks/%2", NULL, 404, "not-found", "no such resource");
	expect_refusal("GET", "/v1/disks/%zz", NULL, 404, "not-found", "no such resource");
	expect_refusal("GET", "/v1/disks/%00", NULL, 404, "not-found", "no such resource");
	expect_refusal("GET", "/v1/disks/%0a", NULL, 404, "not-found", "no such resource");
}

static void test_unknown_paths(void)
{
	static const char *const paths[] = {"/",
					    "/v1",
					    "/v1/",
					    "/v1//volumes",
					    "/v2/volumes",
					    "/v1/volumes/",
					    "v1/volumes",
					    "/v1/volumes/a/b",
					    "/v1/disks/a/scrub/now",
					    "/1/2/3/4/5/6/7/8/9",
					    "/metrics/"};
	for (size_t i = 0; i < array_size(paths); i++)
		expect_refusal("GET", paths[i], NULL, 404, "not-found", "no such resource");
	char longest[1500];
	memset(longest, 'a', sizeof(longest));
	longest[0] = '/';
	longest[sizeof(longest) - 1] = '\0';
	expect_refusal("GET", longest, NULL, 404, "not-found", "no such resource");
	longest[600] = '\0';
	memcpy(longest, "/v1/volumes/", 12);
	expect_refusal("GET", longest, NULL, 404, "not-found", "there is nothing with a name of 588 bytes");
}

static void test_wrong_methods(void)
{
	expect_refusal("PUT", "/v1/volumes", NULL, 405, "method-not-allowed", "this resource knows: GET, POST");
	CU_ASSERT_STRING_EQUAL(refusal.allow, "GET, POST");
	expect_refusal("POST", "/v1/volumes/a", "{}", 405, "method-not-allowed", "GET, PATCH, DELETE");
	expect_refusal("get", "/v1/volumes", NULL, 405, "method-not-allowed", "GET, POST");
	expect_refusal("DELETE", "/metrics", NULL, 405, "method-not-allowed", "GET");
}

static void test_history(void)
{
	struct order o;
	struct refusal why;
	struct order_text t = {.method = "GET", .path = "/v1/volumes/vm%201/snapshots/s"};
	expect_refusal("GET", "/v1/volumes/vm%201/snapshots/s", NULL, 404, "not-found", "no snapshot");
	t.path = "/v1/volumes/vm1/snapshots/s1";
	CU_ASSERT_EQUAL(order_read(&t, &o, &why), 0);
	CU_ASSERT_TRUE(o.is_command && o.command.kind == SET_VOLUME_MEASURE && o.show == ORDER_SNAPSHOT);
	CU_ASSERT_STRING_EQUAL(o.command.object, "vm1@s1");
	CU_ASSERT_STRING_EQUAL(o.command.targets[0].volume, "vm1");
	t.path = "/v1/volumes/vm1/changes";
	t.n_queries = 3;
	t.queries[0] = (struct order_query){"since", "golden%40base"};
	t.queries[1] = (struct order_query){"until", "s2"};
	t.queries[2] = (struct order_query){"from", "8192"};
	CU_ASSERT_EQUAL(order_read(&t, &o, &why), 0);
	CU_ASSERT_STRING_EQUAL(o.command.since.volume, "golden");
	CU_ASSERT_STRING_EQUAL(o.command.since.snapshot, "base");
	CU_ASSERT_STRING_EQUAL(o.command.targets[0].volume, "vm1");
	CU_ASSERT_STRING_EQUAL(o.command.targets[0].snapshot, "s2");
	CU_ASSERT_EQUAL(o.command.pos_bytes, 8192);
	t.queries[0].value = "%4";
	CU_ASSERT_EQUAL(order_read(&t, &o, &why), -EINVAL);
	expect_refusal("POST", "/v1/snapshots", "{\"snapshots\":[\"a@b\",\"c\"]}", 400, "invalid", "VOLUME@SNAPSHOT");
	expect_refusal("PUT", "/v1/volumes/a/schedule", "{\"every_s\":0,\"keep\":1}", 400, "invalid", "every_s");
	expect_refusal("PUT", "/v1/volumes/a/schedule", "{\"every_s\":9,\"keep\":1}", 400, "invalid",
		       "every_s: is out of range: " SCHEDULE_LIMITS);
	expect_refusal("PUT", "/v1/volumes/a/schedule", "{\"every_s\":10,\"keep\":16384}", 400, "invalid",
		       "keep: is out of range: " SCHEDULE_LIMITS);
	CU_ASSERT_EQUAL(read_order("PUT", "/v1/volumes/a/schedule", "{\"every_s\":10,\"keep\":16383}"), 0);
	expect_refusal("PUT", "/v1/volumes/a/schedule", "{\"every_s\":50}", 400, "invalid", "keep");
}

static void test_disk_add(void)
{
	CU_ASSERT_EQUAL(
	    read_order("POST", "/v1/disks",
		       "{\"path\": \"/srv/d1\", \"size_bytes\": 1073741824, \"pool\": \"fast\", \"reserve\": true, "
		       "\"force\": false, \"accept_older\": true}"),
	    0);
	CU_ASSERT(order.is_command);
	CU_ASSERT_EQUAL(order.command.kind, SET_DISK_ADD);
	CU_ASSERT_EQUAL(order.status, 201);
	CU_ASSERT_STRING_EQUAL(order.command.path, "/srv/d1");
	CU_ASSERT_STRING_EQUAL(order.command.pool, "fast");
	CU_ASSERT_EQUAL(order.command.size_bytes, GIB);
	CU_ASSERT(order.command.reserve);
	CU_ASSERT(!order.command.force);
	CU_ASSERT(order.command.accept_older);
	CU_ASSERT_STRING_EQUAL(order.object, "/srv/d1");
	expect_invalid("POST", "/v1/disks", "{\"path\": \"here\"}", "path: must be absolute");
	expect_invalid("POST", "/v1/disks", "{\"path\": \"/a\\u0000b\"}", "not JSON");
	expect_invalid("POST", "/v1/disks", "{\"path\": \"/a\\nb\"}", "path: has a control character");
	expect_invalid("POST", "/v1/disks", "{}", "path: is missing");
	expect_invalid("POST", "/v1/disks", "{\"path\": \"/a\", \"pool\": \"\"}",
		       "pool: must be a text that is not empty");
	char body[512];
	snprintf(body, sizeof(body), "{\"path\": \"/%0300d\"}", 7);
	expect_invalid("POST", "/v1/disks", body, "path: has 301 bytes, at most 255 fit");
}

static void test_disk_commands(void)
{
	CU_ASSERT_EQUAL(read_order("DELETE", "/v1/disks/d1?force=true", NULL), 0);
	CU_ASSERT_EQUAL(order.command.kind, SET_DISK_REMOVE);
	CU_ASSERT(order.command.force);
	CU_ASSERT_STRING_EQUAL(order.command.object, "d1");
	CU_ASSERT_EQUAL(order.show, ORDER_NOTHING);
	expect_invalid("DELETE", "/v1/disks/d1?force=yes", NULL, "force: must be true or false");
	expect_invalid("DELETE", "/v1/disks/d1?force", NULL, "force: must be true or false");
	expect_invalid("DELETE", "/v1/disks/d1?forse=true", NULL, "forse: unknown query");
	CU_ASSERT_EQUAL(read_order("POST", "/v1/disks/d1/scrub", NULL), 0);
	CU_ASSERT_EQUAL(order.command.kind, SET_DISK_SCRUB);
	CU_ASSERT_EQUAL(order.status, 202);
}

static void test_pools(void)
{
	CU_ASSERT_EQUAL(read_order("POST", "/v1/pools",
				   "{\"name\":\"p\",\"replicas\":2,\"min_replicas\":1,\"failure_domain\":\"rack\"}"),
			0);
	CU_ASSERT_EQUAL(order.command.kind, SET_POOL_CREATE);
	CU_ASSERT_STRING_EQUAL(order.command.object, "p");
	CU_ASSERT_EQUAL(order.command.replicas, 2);
	CU_ASSERT_EQUAL(order.command.failure_domain, DOMAIN_RACK);
	CU_ASSERT(order.command.has_failure_domain);
	CU_ASSERT_EQUAL(read_order("PATCH", "/v1/pools/p", "{\"min_replicas\":2}"), 0);
	CU_ASSERT_EQUAL(order.command.kind, SET_POOL_SET);
	CU_ASSERT_EQUAL(order.command.replicas, 0);
	CU_ASSERT(!order.command.has_failure_domain);
	expect_invalid("PATCH", "/v1/pools/p", "{}", "nothing to change");
	expect_invalid("POST", "/v1/pools", "{\"name\":\"p\",\"failure_domain\":\"town\"}",
		       "failure_domain: must be one of");
	expect_invalid("POST", "/v1/pools", "{\"name\":\"p\",\"replicas\":0}",
		       "replicas: must be a whole number from 1 to 16");
	expect_invalid("POST", "/v1/pools", "{\"name\":\"p\",\"replicas\":1.5}", "replicas: must be");
	expect_invalid("POST", "/v1/pools", "{\"name\":\"p/q\"}", "name: must be of letters");
}

static void test_volume_create(void)
{
	CU_ASSERT_EQUAL(read_order("POST", "/v1/volumes", "{\"name\":\"vm-1.a_b\",\"size_bytes\":4503599627370496}"),
			0);
	CU_ASSERT_EQUAL(order.command.size_bytes, VOLUME_BYTES_MAX);
	CU_ASSERT_STRING_EQUAL(order.object, "vm-1.a_b");
	static const char *const sizes[] = {"0", "-512", "511", "513", "4503599627371008", "1e3", "\"512\"", "true"};
	for (size_t i = 0; i < array_size(sizes); i++) {
		char body[128];
		snprintf(body, sizeof(body), "{\"name\":\"v\",\"size_bytes\":%s}", sizes[i]);
		expect_invalid("POST", "/v1/volumes", body,
			       i < 5 ? "size_bytes: must be a multiple of 512 bytes, at most 4096T"
				     : "size_bytes: must be a whole number of bytes");
	}
	expect_invalid("POST", "/v1/volumes", "{\"name\":\"v\",\"size_bytes\":99999999999999999999}", "not JSON");
	expect_invalid("POST", "/v1/volumes", "{\"name\":\"-v\",\"size_bytes\":512}", "name: must be of letters");
	expect_invalid("POST", "/v1/volumes", "{\"name\":\"\\u00e4\",\"size_bytes\":512}", "name: must be of letters");
	expect_invalid(
	    "POST", "/v1/volumes",
	    "{\"name\":\"a123456789b123456789c123456789d123456789e123456789f123456789g123\",\"size_bytes\":512}",
	    "at most 63 characters");
}

static void test_bodies(void)
{
	expect_invalid("POST", "/v1/volumes", NULL, "the body is missing");
	expect_invalid("POST", "/v1/volumes", "{", "the body is not JSON: line 1, column 1");
	expect_invalid("POST", "/v1/volumes", "[1]", "not an object");
	expect_invalid("POST", "/v1/volumes", "{\"name\":\"a\",\"name\":\"b\",\"size_bytes\":512}", "not JSON");
	expect_invalid("POST", "/v1/volumes", "{\"name\":\"a\",\"size_bytes\":512} x", "not JSON");
	expect_invalid("POST", "/v1/volumes", "{\"nam\":\"a\"}", "nam: unknown key; there are: name size_bytes pool");
	expect_invalid("POST", "/v1/volumes", "{\"a\\nb\":1}", "a?b: unknown key");
	expect_invalid("GET", "/v1/volumes", "{}", "takes no body");
	expect_invalid("DELETE", "/v1/volumes/a", "{}", "takes no body");
	expect_invalid("GET", "/v1/volumes?all=true", NULL, "all: unknown query");
	expect_invalid("GET", "/v1/events?a=1&b=1&c=1&d=1", NULL, "a: unknown query");
	/* nested deeper than any stack should follow */
	char *deep = malloc(60001);
	memset(deep, '[', 60000);
	deep[60000] = '\0';
	expect_invalid("POST", "/v1/volumes", deep, "not JSON");
	free(deep);
}

static void test_volume_patch(void)
{
	CU_ASSERT_EQUAL(read_order("PATCH", "/v1/volumes/a", "{\"name\":\"b\"}"), 0);
	CU_ASSERT_EQUAL(order.command.kind, SET_VOLUME_RENAME);
	CU_ASSERT_STRING_EQUAL(order.command.object, "a");
	CU_ASSERT_STRING_EQUAL(order.command.other, "b");
	CU_ASSERT_STRING_EQUAL(order.object, "b"); /* what is shown after */
	CU_ASSERT_EQUAL(read_order("PATCH", "/v1/volumes/a", "{\"size_bytes\":1024,\"force\":true}"), 0);
	CU_ASSERT_EQUAL(order.command.kind, SET_VOLUME_RESIZE);
	CU_ASSERT(order.command.force);
	CU_ASSERT_EQUAL(read_order("PATCH", "/v1/volumes/a", "{\"replicas\":2}"), 0);
	CU_ASSERT_EQUAL(order.command.kind, SET_VOLUME_SET);
	expect_invalid("PATCH", "/v1/volumes/a", "{}", "one kind of change at a time");
	expect_invalid("PATCH", "/v1/volumes/a", "{\"force\":true}", "one kind of change at a time");
	expect_invalid("PATCH", "/v1/volumes/a", "{\"name\":\"b\",\"size_bytes\":512}", "one kind of change at a time");
}

static void test_attachments(void)
{
	CU_ASSERT_EQUAL(read_order("POST", "/v1/volumes/a/attachments", "{\"frontend\":\"nbd\",\"read_only\":true}"),
			0);
	CU_ASSERT_EQUAL(order.command.kind, SET_VOLUME_ATTACH);
	CU_ASSERT_STRING_EQUAL(order.command.other, "nbd");
	CU_ASSERT(order.command.read_only);
	CU_ASSERT_EQUAL(order.show, ORDER_ATTACHMENT);
	expect_invalid("POST", "/v1/volumes/a/attachments", "{\"frontend\":\"iscsi\"}", "frontend: must be one of");
	expect_invalid("POST", "/v1/volumes/a/attachments", "{\"frontend\":\"nbd\",\"temporary\":true}",
		       "temporary: goes with");
	expect_invalid("POST", "/v1/volumes/a@s/attachments", "{\"frontend\":\"vhost-user\",\"temporary\":true}",
		       "temporary: goes with");
	CU_ASSERT_EQUAL(read_order("POST", "/v1/volumes/a@s/attachments", "{\"frontend\":\"nbd\",\"temporary\":true}"),
			0);
	CU_ASSERT_EQUAL(read_order("DELETE", "/v1/volumes/a/attachments", NULL), 0);
	CU_ASSERT_EQUAL(order.command.kind, SET_VOLUME_DETACH);
	CU_ASSERT_STRING_EQUAL(order.command.other, "");
	CU_ASSERT_EQUAL(read_order("DELETE", "/v1/volumes/a/attachments/vhost-user", NULL), 0);
	CU_ASSERT_STRING_EQUAL(order.command.other, "vhost-user");
	expect_invalid("DELETE", "/v1/volumes/a/attachments/x", NULL, "frontend: must be one of");
}

static void test_queries(void)
{
	CU_ASSERT_EQUAL(read_order("GET", "/v1/events", NULL), 0);
	CU_ASSERT_EQUAL(order.limit, ORDER_EVENTS_MAX);
	CU_ASSERT_EQUAL(read_order("GET", "/v1/events?after=12&limit=3&wait=60", NULL), 0);
	CU_ASSERT_EQUAL(order.after, 12);
	CU_ASSERT_EQUAL(order.limit, 3);
	CU_ASSERT_EQUAL(order.wait_s, 60);
	expect_invalid("GET", "/v1/events?wait=61", NULL, "wait: must be a whole number of at most 60");
	expect_invalid("GET", "/v1/events?limit=0", NULL, "limit: must be at least 1");
	expect_invalid("GET", "/v1/events?limit=1001", NULL, "limit: must be");
	expect_invalid("GET", "/v1/events?after=-1", NULL, "after: must be");
	expect_invalid("GET", "/v1/events?after=+1", NULL, "after: must be");
	expect_invalid("GET", "/v1/events?after=1x", NULL, "after: must be");
	expect_invalid("GET", "/v1/events?after=", NULL, "after: must be");
	expect_invalid("GET", "/v1/events?after", NULL, "after: must be");
	expect_invalid("GET", "/v1/events?after=99999999999999999999999", NULL, "after: must be");
	CU_ASSERT_EQUAL(read_order("GET", "/v1/requests", NULL), 0);
	CU_ASSERT_EQUAL(order.older_than_ms, 1000);
	CU_ASSERT_EQUAL(read_order("GET", "/v1/requests?older_than_ms=0", NULL), 0);
	CU_ASSERT_EQUAL(order.older_than_ms, 0);
}

static void test_failures_of_commands(void)
{
	struct set_command c = {.code = "no-space", .why = "the pool default is full"};
	struct refusal why;
	order_refusal_of(&c, -EIO, &why);
	CU_ASSERT_EQUAL(why.status, 507); /* the code decides where there is one */
	CU_ASSERT_STRING_EQUAL(why.code, "no-space");
	CU_ASSERT_STRING_EQUAL(why.message, "the pool default is full");
	c = (struct set_command){0};
	static const struct {
		int res;
		unsigned status;
		const char *code;
	} expected[] = {
	    {-EINVAL, 400, "invalid"}, {-ENOENT, 404, "not-found"}, {-EEXIST, 409, "exists"},
	    {-EBUSY, 409, "in-use"},   {-ENOSPC, 507, "no-space"},  {-EOPNOTSUPP, 501, "not-available"},
	    {-ESHUTDOWN, 503, "busy"}, {-EIO, 500, "io-error"},     {-EPERM, 500, "internal"},
	};
	for (size_t i = 0; i < array_size(expected); i++) {
		order_refusal_of(&c, expected[i].res, &why);
		CU_ASSERT_EQUAL(why.status, expected[i].status);
		CU_ASSERT_STRING_EQUAL(why.code, expected[i].code);
		CU_ASSERT(strlen(why.message) > 0);
	}
	snprintf(c.code, sizeof(c.code), "%s", "never-heard-of");
	order_refusal_of(&c, -ENOENT, &why);
	CU_ASSERT_EQUAL(why.status, 404);
	CU_ASSERT_STRING_EQUAL(why.code, "not-found");
	order_refusal_of(&c, -EPERM, &why);
	CU_ASSERT_EQUAL(why.status, 500);
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("orders of the control API", NULL, NULL);
	CU_add_test(suite, "looks", test_looks);
	CU_add_test(suite, "percent-encoding", test_percent_encoding);
	CU_add_test(suite, "unknown paths", test_unknown_paths);
	CU_add_test(suite, "wrong methods", test_wrong_methods);
	CU_add_test(suite, "history", test_history);
	CU_add_test(suite, "disk add", test_disk_add);
	CU_add_test(suite, "disk commands", test_disk_commands);
	CU_add_test(suite, "pools", test_pools);
	CU_add_test(suite, "volume create", test_volume_create);
	CU_add_test(suite, "bodies", test_bodies);
	CU_add_test(suite, "volume patch", test_volume_patch);
	CU_add_test(suite, "attachments", test_attachments);
	CU_add_test(suite, "queries", test_queries);
	CU_add_test(suite, "failures of commands", test_failures_of_commands);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
