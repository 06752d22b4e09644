/*
 * test_metadata.c: the store in memory and the embedded one: the rules of every store, then what is particular to each.
 */
#include "tests/unit/metadata_rules.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int bench_open_embedded(struct bench *b)
{
	b->why[0] = '\0';
	return metadata_open_embedded(b->reactor, b->log, b->path, b->why, &b->store);
}

static void test_rules_in_memory(void)
{
	struct bench b;
	bench_start(&b);
	CU_ASSERT_EQUAL_FATAL(metadata_open_memory(b.reactor, &b.store), 0);
	rules(&b);
	bench_end(&b);
}

static void test_rules_embedded(void)
{
	struct bench b;
	bench_start(&b);
	CU_ASSERT_EQUAL_FATAL(bench_open_embedded(&b), 0);
	rules(&b);
	bench_end(&b);
}

/* ---- the store in memory ---- */

/* The rules hold however late the answers are. */
static void test_memory_late(void)
{
	struct bench b;
	bench_start(&b);
	CU_ASSERT_EQUAL_FATAL(metadata_open_memory(b.reactor, &b.store), 0);
	metadata_memory_set_faults(b.store, &(struct metadata_faults){.delay_max_ns = 200 * NS_PER_US});
	rules(&b);
	bench_end(&b);
}

/* A counter raised with conditions and rereading counts right, whatever is lost or doubled. */
static void test_memory_faults(void)
{
	struct bench b;
	int n_unknown = 0, n_refused = 0;
	bench_start(&b);
	CU_ASSERT_EQUAL_FATAL(metadata_open_memory(b.reactor, &b.store), 0);
	metadata_memory_set_faults(b.store, &(struct metadata_faults){.lost_percent = 30, .doubled_percent = 30});
	for (int i = 0; i < 200;) {
		char before[16], after[16];
		snprintf(before, sizeof(before), "%d", i);
		snprintf(after, sizeof(after), "%d", i + 1);
		if (i > 0 || revision_of(&b, "counter", after) > 0)
			CU_ASSERT(revision_of(&b, "counter", before) > 0 || revision_of(&b, "counter", after) > 0);
		if (revision_of(&b, "counter", after) > 0) {
			i++;
			continue;
		}
		int res = put_if(&b, "counter", after, revision_of(&b, "counter", before));
		n_unknown += res == -ETIMEDOUT;
		n_refused += res == -EAGAIN;
		CU_ASSERT(res == 0 || res == -ETIMEDOUT || res == -EAGAIN);
	}
	CU_ASSERT(n_unknown > 0);
	CU_ASSERT(n_refused > 0);
	bench_end(&b);
}

/* A client that crashes takes its requests with it; what was answered stays. */
static void test_memory_crash(void)
{
	struct bench b;
	struct reactor *second;
	struct asked lost = {.q = {.op = METADATA_TRANSACT, .n_changes = 1, .done = asked_done}};
	bench_start(&b);
	CU_ASSERT_EQUAL_FATAL(metadata_open_memory(b.reactor, &b.store), 0);
	CU_ASSERT(put(&b, "kept", "yes") > 0);
	lost.q.changes[0] = (struct metadata_change){.key = "lost", .value = "yes"};
	metadata_memory_set_faults(b.store, &(struct metadata_faults){.delay_max_ns = 3600 * NS_PER_S});
	metadata_submit(b.store, &lost.q);
	CU_ASSERT_EQUAL_FATAL(reactor_create(&(struct reactor_options){0}, &second), 0);
	reactor_destroy(b.reactor);
	b.reactor = second;
	metadata_memory_crash(b.store, second);
	metadata_memory_set_faults(b.store, &(struct metadata_faults){0});
	CU_ASSERT(revision_of(&b, "kept", "yes") > 0);
	CU_ASSERT_EQUAL(revision_of(&b, "lost", "yes"), 0);
	CU_ASSERT_EQUAL(lost.n_done, 0);
	bench_end(&b);
}

/* ---- the embedded store ---- */

static void test_embedded_reopens(void)
{
	struct bench b;
	bench_start(&b);
	CU_ASSERT_EQUAL_FATAL(bench_open_embedded(&b), 0);
	uint64_t revision = put(&b, "a", "1");
	put(&b, "b", "2");
	put(&b, "b", NULL);
	metadata_close(b.store);
	CU_ASSERT_EQUAL_FATAL(bench_open_embedded(&b), 0);
	CU_ASSERT_EQUAL(revision_of(&b, "a", "1"), revision);
	CU_ASSERT_EQUAL(revision_of(&b, "b", "2"), 0);
	CU_ASSERT_EQUAL(put(&b, "c", "3"), revision + 3); /* the counter went on, deleted keys counted */
	bench_end(&b);
}

/* A lease dies with the process, its keys with the next start; the rest stays. */
static void test_embedded_reopens_without_leases(void)
{
	struct bench b;
	bench_start(&b);
	CU_ASSERT_EQUAL_FATAL(bench_open_embedded(&b), 0);
	uint64_t lease = grant(&b, 60 * NS_PER_S);
	CU_ASSERT_EQUAL(put_leased(&b, "held", lease), 0);
	CU_ASSERT_EQUAL(put_leased(&b, "taken", lease), 0);
	CU_ASSERT(put(&b, "taken", "free") > 0);
	metadata_close(b.store);
	CU_ASSERT_EQUAL_FATAL(bench_open_embedded(&b), 0);
	CU_ASSERT_EQUAL(revision_of(&b, "held", "held"), 0);
	CU_ASSERT(revision_of(&b, "taken", "free") > 0);
	CU_ASSERT_EQUAL(ask_lease(&b, METADATA_KEEP, lease), -ENOENT);
	bench_end(&b);
}

static void test_embedded_is_exclusive(void)
{
	struct bench b;
	struct metadata *second = NULL;
	char pid[32];
	bench_start(&b);
	CU_ASSERT_EQUAL_FATAL(bench_open_embedded(&b), 0);
	CU_ASSERT_EQUAL(metadata_open_embedded(b.reactor, b.log, b.path, b.why, &second), -EBUSY);
	snprintf(pid, sizeof(pid), "process %ld", (long)getpid());
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, pid));
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, b.path));
	CU_ASSERT(put(&b, "still", "works") > 0);
	bench_end(&b);
}

/* The child writes the numbers from 1 on as fast as it can and says each one that was answered. */
static _Noreturn void write_until_killed(struct bench *b, int said_fd)
{
	struct metadata *store;
	if (metadata_open_embedded(b->reactor, b->log, b->path, b->why, &store) < 0)
		_exit(1);
	b->store = store;
	for (uint32_t i = 1;; i++) {
		char value[16];
		snprintf(value, sizeof(value), "%u", i);
		struct asked a = {.reactor = b->reactor,
				  .q = {.op = METADATA_TRANSACT, .n_changes = 2, .done = asked_done}};
		a.q.changes[0] = (struct metadata_change){.key = "left", .value = value};
		a.q.changes[1] = (struct metadata_change){.key = "right", .value = value};
		metadata_submit(store, &a.q);
		while (a.n_done == 0)
			reactor_run(b->reactor);
		if (a.res < 0 || write(said_fd, &i, sizeof(i)) != sizeof(i))
			_exit(1);
	}
}

static uint32_t number_at(struct bench *b, const char *key)
{
	struct asked a = {.q = {.op = METADATA_GET, .key = key}};
	uint32_t number = ask(b, &a) == 0 ? (uint32_t)strtoul(a.q.items[0].value, NULL, 10) : 0;
	metadata_request_clear(&a.q);
	return number;
}

/* What was answered before kill -9 is there, whole, and the lock died with its holder. */
static void test_embedded_survives_kill(void)
{
	for (unsigned round = 0; round < 5; round++) {
		struct bench b;
		int said[2];
		uint32_t number = 0, last = 0;
		bench_start(&b);
		CU_ASSERT_EQUAL_FATAL(pipe(said), 0);
		pid_t child = fork();
		if (child == 0) {
			struct bench own = b;
			close(said[0]);
			if (reactor_create(&(struct reactor_options){0}, &own.reactor) < 0)
				_exit(1);
			write_until_killed(&own, said[1]);
		}
		close(said[1]);
		while (last < 10 + round * 7 && read(said[0], &number, sizeof(number)) == sizeof(number))
			last = number;
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		while (read(said[0], &number, sizeof(number)) == sizeof(number))
			last = number;
		close(said[0]);
		CU_ASSERT(last >= 10);
		CU_ASSERT_EQUAL_FATAL(bench_open_embedded(&b), 0);
		CU_ASSERT(number_at(&b, "left") >= last);
		CU_ASSERT(number_at(&b, "left") <= last + 1);
		CU_ASSERT_EQUAL(number_at(&b, "left"), number_at(&b, "right"));
		bench_end(&b);
	}
}

/* A closed store with one well-known entry. */
static void bench_make_closed(struct bench *b)
{
	bench_start(b);
	CU_ASSERT_EQUAL_FATAL(bench_open_embedded(b), 0);
	CU_ASSERT(put(b, "volumes/1", "needle-in-the-store") > 0);
	metadata_close(b->store);
	b->store = NULL;
}

static void bench_expect_refusal(struct bench *b, int res, const char *word)
{
	CU_ASSERT_EQUAL(bench_open_embedded(b), res);
	CU_ASSERT_PTR_NOT_NULL(strstr(b->why, word));
	CU_ASSERT_PTR_NOT_NULL(strstr(b->why, b->path));
	CU_ASSERT_PTR_NULL(strchr(b->why, '\n'));
	bench_end(b);
}

/* One flipped bit in a value, which SQLite itself does not see. */
static void test_embedded_flipped_bit(void)
{
	struct bench b;
	bench_make_closed(&b);
	FILE *f = fopen(b.path, "r+");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	static char content[1 << 20];
	size_t n = fread(content, 1, sizeof(content), f);
	char *at = memmem(content, n, "needle", 6);
	CU_ASSERT_PTR_NOT_NULL_FATAL(at);
	at[2] ^= 1;
	rewind(f);
	CU_ASSERT_EQUAL(fwrite(content, 1, n, f), n);
	fclose(f);
	bench_expect_refusal(&b, -EUCLEAN, "volumes/1");
}

/* The page with the table's root overwritten. */
static void test_embedded_damaged_page(void)
{
	struct bench b;
	bench_make_closed(&b);
	int fd = open(b.path, O_RDWR);
	char noise[4096];
	memset(noise, 0xa5, sizeof(noise));
	CU_ASSERT_EQUAL(pwrite(fd, noise, sizeof(noise), 4096), sizeof(noise));
	close(fd);
	bench_expect_refusal(&b, -EUCLEAN, "damaged");
}

static void test_embedded_not_a_database(void)
{
	struct bench b;
	bench_start(&b);
	FILE *f = fopen(b.path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	for (int i = 0; i < 1000; i++)
		fputs("this is not a database at all\n", f);
	fclose(f);
	bench_expect_refusal(&b, -EUCLEAN, "not a metadata store");
}

static void run_sql(const struct bench *b, const char *text)
{
	sqlite3 *db;
	CU_ASSERT_EQUAL_FATAL(sqlite3_open(b->path, &db), SQLITE_OK);
	CU_ASSERT_EQUAL(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void test_embedded_newer_schema(void)
{
	struct bench b;
	bench_make_closed(&b);
	run_sql(&b, "PRAGMA user_version = 7");
	bench_expect_refusal(&b, -ENOTSUP, "schema 7");
}

static void test_embedded_foreign_database(void)
{
	struct bench b;
	bench_start(&b);
	run_sql(&b, "CREATE TABLE recipes (name TEXT)");
	bench_expect_refusal(&b, -ENOTSUP, "another program");
}

/* An entry with a revision that the counter has not reached was not written by us. */
static void test_embedded_counter_behind(void)
{
	struct bench b;
	bench_make_closed(&b);
	run_sql(&b, "UPDATE state SET revision = 0");
	bench_expect_refusal(&b, -EUCLEAN, "damaged");
}

static void test_embedded_no_folder(void)
{
	struct bench b;
	struct metadata *store = NULL;
	bench_start(&b);
	CU_ASSERT_EQUAL(metadata_open_embedded(b.reactor, b.log, "/nonexistent/m.db", b.why, &store), -ENOENT);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "/nonexistent/m.db"));
	CU_ASSERT_PTR_NULL(store);
	bench_end(&b);
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("metadata", NULL, NULL);
	CU_add_test(suite, "rules, in memory", test_rules_in_memory);
	CU_add_test(suite, "rules, embedded", test_rules_embedded);
	CU_add_test(suite, "memory: late answers", test_memory_late);
	CU_add_test(suite, "memory: lost and doubled", test_memory_faults);
	CU_add_test(suite, "memory: the client crashes", test_memory_crash);
	CU_add_test(suite, "embedded: reopens", test_embedded_reopens);
	CU_add_test(suite, "embedded: leases die with the process", test_embedded_reopens_without_leases);
	CU_add_test(suite, "embedded: one process at a time", test_embedded_is_exclusive);
	CU_add_test(suite, "embedded: kill -9", test_embedded_survives_kill);
	CU_add_test(suite, "embedded: a flipped bit", test_embedded_flipped_bit);
	CU_add_test(suite, "embedded: a damaged page", test_embedded_damaged_page);
	CU_add_test(suite, "embedded: not a database", test_embedded_not_a_database);
	CU_add_test(suite, "embedded: a newer schema", test_embedded_newer_schema);
	CU_add_test(suite, "embedded: another program's", test_embedded_foreign_database);
	CU_add_test(suite, "embedded: counter behind", test_embedded_counter_behind);
	CU_add_test(suite, "embedded: no folder", test_embedded_no_folder);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
