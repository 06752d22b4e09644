/*
 * test_forward.c: requests that are sent on to another node, and errands, which other nodes have sent on: over a volume
 * set of names only, and nodes that answer as they are told.
 */
#include "daemon/control/errand.h"
#include "daemon/control/forward.h"
#include "daemon/control/forward_text.h"
#include "tests/unit/fake_volume_set.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- sent on ---- */

struct sender {
	struct forward forward;
	int res;
	unsigned n_sent, n_done;
	int done_res;
};

static int fake_peer_order(struct peers *p, const char *node, struct peers_order *o)
{
	struct sender *s = (struct sender *)p;
	CU_ASSERT_STRING_EQUAL(node, "n2");
	s->n_sent++;
	return s->res;
}

static void sender_done(struct forward *f, int res)
{
	struct sender *s = container_of(f, struct sender, forward);
	s->n_done++;
	s->done_res = res;
}

static void sender_make(struct sender *s, const char *method, const char *path, struct order *o)
{
	const struct order_text text = {.method = method, .path = path};
	struct refusal why;
	*s = (struct sender){.forward.done = sender_done};
	CU_ASSERT_EQUAL_FATAL(order_read(&text, o, &why), 0);
	forward_prepare(&s->forward, &text);
}

static bool sender_send(struct sender *s, const struct order *o)
{
	const struct snapshot_sources from = {.peers = (struct peers *)s, .peer_order = fake_peer_order};
	return forward_send(&s->forward, &from, o, "n2");
}

static void once_to_one_node(void)
{
	struct sender s;
	struct order o;
	sender_make(&s, "DELETE", "/v1/volumes/v", &o);
	CU_ASSERT_FALSE(forward_is_look(&o));
	CU_ASSERT_TRUE(sender_send(&s, &o));
	CU_ASSERT_FALSE(sender_send(&s, &o));
	CU_ASSERT_EQUAL(s.n_sent, 1);
	s.forward.order.answer = strdup("{}");
	s.forward.order.done(&s.forward.order, 0);
	CU_ASSERT_EQUAL(s.n_done, 1);
	char *text = forward_take_answer(&s.forward);
	CU_ASSERT_STRING_EQUAL(text, "{}");
	CU_ASSERT_PTR_NULL(forward_take_answer(&s.forward));
	free(text);
	forward_clear(&s.forward);
	sender_make(&s, "GET", "/v1/volumes/v", &o);
	uint64_t limit_ns = s.forward.order.limit_ns;
	CU_ASSERT_TRUE(forward_is_look(&o));
	CU_ASSERT_TRUE(sender_send(&s, &o));
	CU_ASSERT(s.forward.order.limit_ns > limit_ns && s.forward.order.limit_ns <= 10 * NS_PER_S);
	forward_clear(&s.forward);
	sender_make(&s, "GET", "/v1/volumes/v/snapshots/s", &o); /* a command of the volume set that changes nothing */
	CU_ASSERT_TRUE(o.is_command);
	CU_ASSERT_TRUE(forward_is_look(&o));
	forward_clear(&s.forward);
}

/* A socket for machines on this host is of no use on another. */
static void what_is_bound_to_the_host(void)
{
	static const char *const frontends[] = {"nbd", "vhost-user"};
	for (size_t i = 0; i < array_size(frontends); i++) {
		struct sender s = {.forward.done = sender_done};
		char body[64];
		struct order o;
		struct refusal why;
		snprintf(body, sizeof(body), "{\"frontend\": \"%s\"}", frontends[i]);
		const struct order_text text = {
		    .method = "POST", .path = "/v1/volumes/v/attachments", .body = body, .body_bytes = strlen(body)};
		CU_ASSERT_EQUAL_FATAL(order_read(&text, &o, &why), 0);
		forward_prepare(&s.forward, &text);
		CU_ASSERT_EQUAL(sender_send(&s, &o), i == 0);
		forward_clear(&s.forward);
	}
}

static void expect_words(const struct refusal *why, const char *words)
{
	CU_ASSERT_PTR_NOT_NULL(strstr(why->message, words));
	if (!strstr(why->message, words))
		printf("\n  got: %s  want: %s\n", why->message, words);
}

static void why_it_was_not(void)
{
	static const struct {
		int res;
		const char *words;
	} unsent[] = {{-ENOTCONN, "run this there (it cannot be reached"},
		      {-EBUSY, "run this there (it has not answered many"},
		      {-EOPNOTSUPP, "run this there (its release"}},
	  unanswered[] = {{-ETIMEDOUT, "node n2, which is to do this, has not answered within 60 s"},
			  {-ENOTCONN, "the connection to node n2, which is to do this, broke"},
			  {-EBADMSG, "node n2, which is to do this, could not take it"}};
	struct sender s;
	struct order o;
	struct refusal why;
	for (size_t i = 0; i < array_size(unsent); i++) {
		sender_make(&s, "DELETE", "/v1/volumes/v", &o);
		s.res = unsent[i].res;
		CU_ASSERT_FALSE(sender_send(&s, &o));
		order_refuse(&why, 409, "elsewhere", "run this there");
		forward_explain(&s.forward, &why);
		expect_words(&why, unsent[i].words);
		forward_clear(&s.forward);
	}
	for (size_t i = 0; i < array_size(unanswered); i++) {
		sender_make(&s, "DELETE", "/v1/volumes/v", &o);
		CU_ASSERT_TRUE(sender_send(&s, &o));
		s.forward.order.done(&s.forward.order, unanswered[i].res);
		CU_ASSERT_EQUAL(s.done_res, unanswered[i].res);
		forward_refuse(&s.forward, s.done_res, &why);
		expect_words(&why, unanswered[i].words);
		CU_ASSERT_EQUAL(why.status, 504);
		CU_ASSERT_STRING_EQUAL(why.code, "unreachable");
		forward_clear(&s.forward);
	}
}

/* ---- errands ---- */

struct bench {
	struct reactor *reactor;
	struct log *log;
	struct config config;
	struct fake_volume_set *set;
	struct answer_context answers;
	struct snapshot_sources sources;
	struct errands errands;
	unsigned n_idle;
	struct timer moment;
};

/* An order of another node, and what it was answered. */
struct asked {
	struct peer_order order;
	char text[512];
	unsigned n_answers, status;
	char *answer;
};

void peer_order_answer(struct peer_order *o, unsigned http_status, char *text, uint32_t text_bytes)
{
	struct asked *a = container_of(o, struct asked, order);
	CU_ASSERT_EQUAL(++a->n_answers, 1);
	CU_ASSERT_PTR_NOT_NULL_FATAL(text);
	a->status = http_status;
	a->answer = strndup(text, text_bytes);
	free(text);
}

static uint64_t no_time(void)
{
	return 0;
}

static void idle(struct errands *e)
{
	container_of(e, struct bench, errands)->n_idle++;
}

static void bench_open(struct bench *b)
{
	*b = (struct bench){0};
	config_defaults(&b->config);
	snprintf(b->config.node.name, sizeof(b->config.node.name), "n1");
	snprintf(b->config.nbd.listen, sizeof(b->config.nbd.listen), "10.0.0.1:10809");
	if (reactor_create(&(struct reactor_options){0}, &b->reactor) < 0 || log_create(-1, LOG_ERROR, &b->log) < 0)
		abort();
	b->set = fake_volume_set_create(b->reactor);
	b->answers = (struct answer_context){.config = &b->config, .log = b->log, .wall_ns = no_time};
	b->sources = (struct snapshot_sources){.reactor = b->reactor, .volumes = fake_as_set(b->set)};
	errands_init(&b->errands, &b->answers, &b->sources, idle);
}

static void bench_close(struct bench *b)
{
	fake_volume_set_destroy(b->set);
	reactor_destroy(b->reactor);
	log_destroy(b->log);
}

static void moment_over(struct timer *t)
{
	reactor_stop(container_of(t, struct bench, moment)->reactor);
}

/* Long enough for the volume set, which answers on its next turn. */
static void let_pass(struct bench *b)
{
	timer_init(&b->moment, moment_over);
	timer_start(b->reactor, &b->moment, 2 * NS_PER_MS);
	reactor_run(b->reactor);
}

static void asked_take(struct bench *b, struct asked *a, const char *text)
{
	*a = (struct asked){0};
	snprintf(a->text, sizeof(a->text), "%s", text);
	a->order = (struct peer_order){.node = "n2", .text = a->text, .text_bytes = (uint32_t)strlen(text)};
	errands_take(&b->errands, &a->order);
}

static void asked_expect(struct bench *b, struct asked *a, unsigned status, const char *words)
{
	for (int i = 0; i < 100 && a->n_answers == 0; i++)
		let_pass(b);
	CU_ASSERT_EQUAL_FATAL(a->n_answers, 1);
	CU_ASSERT_EQUAL(a->status, status);
	CU_ASSERT_PTR_NOT_NULL(strstr(a->answer, words));
	if (!strstr(a->answer, words))
		printf("\n  got: %s  want: %s\n", a->answer, words);
	free(a->answer);
}

static void errands_are_carried_out(void)
{
	struct bench b;
	struct asked a;
	bench_open(&b);
	asked_take(&b, &a, "POST\n/v1/volumes\n{\"name\": \"v\", \"size_bytes\": 1048576}");
	asked_expect(&b, &a, 201, "\"name\":\"v\"");
	asked_take(&b, &a, "POST\n/v1/volumes/v/attachments\n{\"frontend\": \"nbd\"}");
	asked_expect(&b, &a, 201, "\"uri\":\"nbd://10.0.0.1:10809/v\""); /* one that can be reached from there */
	asked_take(&b, &a, "GET\n/v1/volumes/v\n");
	asked_expect(&b, &a, 200, "\"state\":\"serving\"");
	/* what is only good to listen on is no address: the one that other nodes reach is */
	snprintf(b.config.nbd.listen, sizeof(b.config.nbd.listen), "0.0.0.0:10809");
	snprintf(b.config.peer.listen, sizeof(b.config.peer.listen), "[fd00::1]:9751");
	asked_take(&b, &a, "GET\n/v1/volumes/v\n");
	asked_expect(&b, &a, 200, "\"uri\":\"nbd://[fd00::1]:10809/v\"");
	snprintf(b.config.peer.listen, sizeof(b.config.peer.listen), "127.0.0.1:9751");
	snprintf(b.config.control.listen, sizeof(b.config.control.listen), "10.0.0.7:9750");
	asked_take(&b, &a, "GET\n/v1/volumes/v\n");
	asked_expect(&b, &a, 200, "\"uri\":\"nbd://10.0.0.7:10809/v\"");
	char host[256] = "", uri[300];
	b.config.control.listen[0] = '\0';
	CU_ASSERT_EQUAL(gethostname(host, sizeof(host) - 1), 0);
	snprintf(uri, sizeof(uri), "\"uri\":\"nbd://%s:10809/v\"", host);
	asked_take(&b, &a, "GET\n/v1/volumes/v\n");
	asked_expect(&b, &a, 200, uri);
	asked_take(&b, &a, "POST\n/v1/volumes\n{\"name\": \"full\", \"size_bytes\": 1048576}");
	asked_expect(&b, &a, 507, "no-space");
	asked_take(&b, &a, "GET\n/v1/none\n");
	asked_expect(&b, &a, 404, "not-found");
	asked_take(&b, &a, "no request");
	asked_expect(&b, &a, 400, "node n2 has sent on what is no request");
	CU_ASSERT_TRUE(list_is_empty(&b.errands.all));
	CU_ASSERT_EQUAL(b.n_idle, 9);
	bench_close(&b);
}

static void an_end_with_errands_under_way(void)
{
	struct bench b;
	struct asked held, late;
	bench_open(&b);
	asked_take(&b, &held, "POST\n/v1/volumes\n{\"name\": \"held\", \"size_bytes\": 1048576}");
	let_pass(&b);
	CU_ASSERT_TRUE(fake_is_holding(b.set));
	errands_close(&b.errands);
	asked_take(&b, &late, "GET\n/v1/volumes\n");
	asked_expect(&b, &late, 503, "ask again");
	CU_ASSERT_EQUAL(held.n_answers, 0);
	errands_abandon(&b.errands);
	asked_expect(&b, &held, 503, "ask again");
	CU_ASSERT_TRUE(list_is_empty(&b.errands.all));
	fake_release(b.set); /* the command ends after its errand */
	let_pass(&b);
	bench_close(&b);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("forward", NULL, NULL);
	CU_add_test(suite, "once, to one node", once_to_one_node);
	CU_add_test(suite, "what is bound to the host", what_is_bound_to_the_host);
	CU_add_test(suite, "why it was not", why_it_was_not);
	CU_add_test(suite, "errands are carried out", errands_are_carried_out);
	CU_add_test(suite, "an end with errands under way", an_end_with_errands_under_way);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
