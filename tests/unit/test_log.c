/*
 * test_log.c: the form of a line, what is shown of hostile arguments, the ring of events, several threads at once.
 */
#include "daemon/core/log.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RING_EVENTS 1024

/* A log whose lines come out of a pipe. */
struct fixture {
	struct log *log;
	int out[2];
	char text[65536];
};

static uint64_t fixed_clock(void *context)
{
	return *(uint64_t *)context;
}

static uint64_t fixed_ns = 1000000000ull * 1700000000ull + 7 * NS_PER_MS;

static void fixture_open(struct fixture *f, enum log_level level)
{
	CU_ASSERT_EQUAL_FATAL(pipe2(f->out, O_NONBLOCK), 0);
	CU_ASSERT_EQUAL_FATAL(log_create(f->out[1], level, &f->log), 0);
	log_set_clock(f->log, fixed_clock, &fixed_ns);
}

/* Everything that was written so far. */
static const char *fixture_text(struct fixture *f)
{
	ssize_t n = read(f->out[0], f->text, sizeof f->text - 1);

	f->text[n > 0 ? n : 0] = '\0';
	return f->text;
}

static void fixture_close(struct fixture *f)
{
	log_destroy(f->log);
	close(f->out[0]);
	close(f->out[1]);
}

static void a_line_has_its_form(void)
{
	struct fixture f;

	fixture_open(&f, LOG_INFO);
	log_line(f.log, LOG_ERROR, "disk", "write failed at block %d", 77);
	CU_ASSERT_STRING_EQUAL(fixture_text(&f), "<3>2023-11-14T22:13:20.007Z disk: error: write failed at block 77\n");
	log_line(f.log, LOG_INFO, "nbd", "listening");
	CU_ASSERT_STRING_EQUAL(fixture_text(&f), "<6>2023-11-14T22:13:20.007Z nbd: info: listening\n");
	log_event(f.log, LOG_WARNING, "disk-slow", "disk d1", "took %s", "long");
	CU_ASSERT_STRING_EQUAL(fixture_text(&f),
			       "<4>2023-11-14T22:13:20.007Z disk d1: warning: took long [disk-slow]\n");
	fixture_close(&f);
}

static void levels_filter_lines_but_not_events(void)
{
	struct log_event_view view[2];
	struct fixture f;

	fixture_open(&f, LOG_WARNING);
	log_line(f.log, LOG_NOTICE, "nbd", "not shown");
	log_event(f.log, LOG_INFO, "volume-created", "volume v", "kept");
	CU_ASSERT_STRING_EQUAL(fixture_text(&f), "");
	CU_ASSERT_EQUAL(log_events(f.log, 0, view, 2), 1);
	CU_ASSERT_STRING_EQUAL(view[0].text, "kept");
	CU_ASSERT_STRING_EQUAL(view[0].code, "volume-created");
	CU_ASSERT_STRING_EQUAL(view[0].object, "volume v");
	CU_ASSERT_EQUAL(view[0].level, LOG_INFO);
	CU_ASSERT_EQUAL(view[0].wall_ns, fixed_ns);
	fixture_close(&f);
}

static void hostile_text_is_escaped(void)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
	    {"a\nb", "a\\x0ab"},
	    {"\x1b[31mred", "\\x1b[31mred"},
	    {"\x7f\r\t", "\\x7f\\x0d\\x09"},
	    {"Gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x92\xbe", "Gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x92\xbe"},
	    {"\xc2\x85next", "\\xc2\\x85next"},           /* a control character in two bytes */
	    {"\xe2\x80\xa8", "\\xe2\\x80\\xa8"},          /* a line separator */
	    {"\xc0\xaf", "\\xc0\\xaf"},                   /* longer than need be */
	    {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},          /* the same in three */
	    {"\xed\xa0\x80", "\\xed\\xa0\\x80"},          /* half a pair */
	    {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* past the end of Unicode */
	    {"cut\xe2\x82", "cut\\xe2\\x82"},
	    {"\xff\xfe", "\\xff\\xfe"},
	};
	struct log_event_view view;
	struct log *log;

	CU_ASSERT_EQUAL_FATAL(log_create(-1, LOG_INFO, &log), 0);
	for (size_t i = 0; i < array_size(cases); i++) {
		log_event(log, LOG_INFO, "x", cases[i].in, "%s", cases[i].in);
		CU_ASSERT_EQUAL(log_events(log, i, &view, 1), 1);
		CU_ASSERT_STRING_EQUAL(view.text, cases[i].out);
		CU_ASSERT_STRING_EQUAL(view.object, cases[i].out);
	}
	log_destroy(log);
}

static void long_text_is_cut_and_says_so(void)
{
	char text[5000];
	struct fixture f;
	struct log_event_view view;

	fixture_open(&f, LOG_INFO);
	for (size_t len = 300; len < sizeof text; len += 7) {
		memset(text, len % 2 ? '\n' : 'x', len);
		text[len] = '\0';
		log_line(f.log, LOG_INFO, "area", "%s", text);
		const char *line = fixture_text(&f);
		CU_ASSERT_EQUAL(strchr(line, '\n') - line, (ptrdiff_t)strlen(line) - 1);
		bool is_cut = len * (len % 2 ? 4 : 1) >= 1024;
		CU_ASSERT_EQUAL(strstr(line, "...") != NULL, is_cut);
		char code[16];
		snprintf(code, sizeof code, "x%zu", len); /* no flood */
		log_event(f.log, LOG_INFO, code, text, "%s", text);
		fixture_text(&f);
		CU_ASSERT_EQUAL(log_events(f.log, (len - 300) / 7, &view, 1), 1);
		CU_ASSERT_TRUE(strlen(view.text) < sizeof view.text && strlen(view.text) > 0);
		CU_ASSERT_EQUAL(strcmp(view.object + strlen(view.object) - 3, "..."), 0);
	}
	fixture_close(&f);
}

static void the_ring_forgets_the_oldest(void)
{
	static struct log_event_view view[RING_EVENTS + 1];
	struct log *log;

	CU_ASSERT_EQUAL_FATAL(log_create(-1, LOG_INFO, &log), 0);
	CU_ASSERT_EQUAL(log_events(log, 0, view, 1), 0);
	for (int i = 1; i <= RING_EVENTS + 10; i++) {
		char object[16];
		snprintf(object, sizeof object, "x%d", i); /* no flood */
		log_event(log, LOG_INFO, "tick", object, "%d", i);
	}
	CU_ASSERT_EQUAL(log_events(log, 0, view, RING_EVENTS + 1), RING_EVENTS);
	CU_ASSERT_EQUAL(view[0].sequence, 11);
	CU_ASSERT_STRING_EQUAL(view[0].text, "11");
	CU_ASSERT_EQUAL(view[RING_EVENTS - 1].sequence, RING_EVENTS + 10);
	CU_ASSERT_EQUAL(log_events(log, RING_EVENTS + 8, view, 8), 2);
	CU_ASSERT_EQUAL(view[0].sequence, RING_EVENTS + 9);
	CU_ASSERT_EQUAL(log_events(log, 20, view, 3), 3);
	CU_ASSERT_EQUAL(view[2].sequence, 23);
	CU_ASSERT_EQUAL(log_events(log, RING_EVENTS + 10, view, 8), 0);
	CU_ASSERT_EQUAL(log_events(log, UINT64_MAX, view, 8), 0);
	log_destroy(log);
}

/* A flood of one kind leaves what others said where it was. */
static void a_flood_is_counted(void)
{
	static struct log_event_view view[RING_EVENTS];
	uint64_t now_ns = fixed_ns;
	struct fixture f;

	fixture_open(&f, LOG_INFO);
	log_set_clock(f.log, fixed_clock, &now_ns);
	log_event(f.log, LOG_ERROR, "disk-failed", "disk d2", "before");
	for (int i = 0; i < 5000; i++) {
		now_ns++;
		log_event(f.log, LOG_ERROR, "damage", "disk d1", "block 7");
	}
	CU_ASSERT_EQUAL(log_events(f.log, 0, view, RING_EVENTS), 1 + 16);
	CU_ASSERT_STRING_EQUAL(view[0].text, "before");
	CU_ASSERT_EQUAL(view[0].n_more, 0);
	CU_ASSERT_EQUAL(view[0].last_wall_ns, view[0].wall_ns);
	CU_ASSERT_EQUAL(view[16].n_more, 5000 - 16);
	CU_ASSERT_EQUAL(view[16].last_wall_ns, now_ns);
	CU_ASSERT_EQUAL(view[16].wall_ns, fixed_ns + 16);
	fixture_text(&f);
	for (int i = 0; i < 5000; i++)
		log_event(f.log, LOG_ERROR, "damage", "disk d1", "block %d", 100 + i);
	CU_ASSERT_EQUAL(strncmp(fixture_text(&f), "<3>", 3), 0);
	CU_ASSERT_EQUAL(log_events(f.log, 0, view, RING_EVENTS), 1 + 128);
	CU_ASSERT_STRING_EQUAL(view[128].text, "block 211");
	CU_ASSERT_EQUAL(view[128].n_more, 5000 - (128 - 16));
	log_event(f.log, LOG_ERROR, "damage", "disk d2", "block 7"); /* of another */
	now_ns += 1200 * NS_PER_S;                                   /* and after a while two more */
	for (int i = 0; i < 5; i++)
		log_event(f.log, LOG_ERROR, "damage", "disk d1", "block 9%d", i);
	CU_ASSERT_EQUAL(log_events(f.log, 0, view, RING_EVENTS), 1 + 128 + 1 + 2);
	CU_ASSERT_STRING_EQUAL(view[131].text, "block 91");
	CU_ASSERT_EQUAL(view[131].n_more, 3);
	now_ns -= 1000000 * NS_PER_S; /* the clock was wrong */
	log_event(f.log, LOG_ERROR, "damage", "disk d1", "block 1");
	now_ns += 600 * NS_PER_S;
	log_event(f.log, LOG_ERROR, "damage", "disk d1", "block 2");
	CU_ASSERT_EQUAL(log_events(f.log, 0, view, RING_EVENTS), 1 + 128 + 1 + 2 + 1);
	fixture_close(&f);
}

/* What was kept last has left the ring: it is told anew. */
static void what_is_out_of_sight_is_told_again(void)
{
	static struct log_event_view view[RING_EVENTS];
	struct log *log;

	CU_ASSERT_EQUAL_FATAL(log_create(-1, LOG_INFO, &log), 0);
	for (int i = 0; i < 20; i++)
		log_event(log, LOG_INFO, "tick", "x", "same");
	for (int i = 1; i <= RING_EVENTS; i++) {
		char object[16];
		snprintf(object, sizeof object, "x%d", i % 64);
		log_event(log, LOG_INFO, object, "x", "%d", i);
	}
	log_event(log, LOG_INFO, "tick", "x", "same");
	CU_ASSERT_EQUAL(log_events(log, RING_EVENTS + 16, view, RING_EVENTS), 1);
	CU_ASSERT_STRING_EQUAL(view[0].code, "tick");
	log_destroy(log);
}

static void levels_have_names(void)
{
	enum log_level level = LOG_NOTICE;

	for (enum log_level i = LOG_ERROR; i <= LOG_DEBUG; i++) {
		CU_ASSERT_EQUAL(log_level_from_text(log_level_name(i), &level), 0);
		CU_ASSERT_EQUAL(level, i);
	}
	CU_ASSERT_EQUAL(log_level_from_text("loud", &level), -EINVAL);
	CU_ASSERT_EQUAL(log_level_from_text("", &level), -EINVAL);
}

#define N_THREADS 4
#define N_EACH    200

static void *write_many(void *context)
{
	for (int i = 0; i < N_EACH; i++) {
		char code[16];
		snprintf(code, sizeof code, "t%03d", i); /* no flood */
		log_event(context, LOG_INFO, code, "thread", "%0200d", i);
		log_line(context, LOG_INFO, "thread", "%0200d", i);
	}
	return NULL;
}

static void threads_do_not_mix_lines(void)
{
	char path[] = "/tmp/quarry-test-log-XXXXXX", line[512];
	pthread_t threads[N_THREADS];
	static struct log_event_view view[RING_EVENTS];
	int fd = mkstemp(path), n_lines = 0;
	struct log *log;

	CU_ASSERT_TRUE_FATAL(fd >= 0);
	unlink(path);
	CU_ASSERT_EQUAL(fcntl(fd, F_SETFL, O_APPEND), 0);
	CU_ASSERT_EQUAL_FATAL(log_create(fd, LOG_INFO, &log), 0);
	for (int i = 0; i < N_THREADS; i++)
		CU_ASSERT_EQUAL(pthread_create(&threads[i], NULL, write_many, log), 0);
	for (int i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT_EQUAL(log_events(log, 0, view, RING_EVENTS), N_THREADS * N_EACH);
	FILE *f = fdopen(fd, "r");
	rewind(f);
	while (fgets(line, sizeof line, f) != NULL) {
		CU_ASSERT_EQUAL(memcmp(line, "<6>", 3), 0);
		CU_ASSERT_TRUE(strlen(line) == 28 + strlen("thread: info: ") + 200 + strlen("\n") ||
			       strlen(line) == 28 + strlen("thread: info: ") + 200 + strlen(" [t000]\n"));
		n_lines++;
	}
	CU_ASSERT_EQUAL(n_lines, 2 * N_THREADS * N_EACH);
	fclose(f);
	log_destroy(log);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("log", NULL, NULL);
	CU_add_test(suite, "a line has its form", a_line_has_its_form);
	CU_add_test(suite, "levels filter lines but not events", levels_filter_lines_but_not_events);
	CU_add_test(suite, "hostile text is escaped", hostile_text_is_escaped);
	CU_add_test(suite, "long text is cut and says so", long_text_is_cut_and_says_so);
	CU_add_test(suite, "the ring forgets the oldest", the_ring_forgets_the_oldest);
	CU_add_test(suite, "a flood is counted", a_flood_is_counted);
	CU_add_test(suite, "what is out of sight is told again", what_is_out_of_sight_is_told_again);
	CU_add_test(suite, "levels have names", levels_have_names);
	CU_add_test(suite, "threads do not mix lines", threads_do_not_mix_lines);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
