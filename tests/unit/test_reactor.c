/*
 * test_reactor.c: the shared half of the reactor on a clock that is moved by hand, then the io_uring reactor against
 * real files, sockets, threads and a process that is killed; once as this kernel allows and once as older ones do.
 */
#include "daemon/core/reactor_ops.h"

#include <CUnit/Basic.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the shared half ---- */

static uint64_t fake_now_ns;

static uint64_t fake_clock(struct reactor *r)
{
	return fake_now_ns;
}

static const struct reactor_ops fake_ops = {.now_ns = fake_clock};

/* What was called, in order, as text. */
static char story[64];

static void tell(char what)
{
	size_t len = strlen(story);

	if (len + 1 < sizeof story) {
		story[len] = what;
		story[len + 1] = '\0';
	}
}

static void story_is(const char *expected)
{
	CU_ASSERT_STRING_EQUAL(story, expected);
	story[0] = '\0';
}

struct told_timer {
	struct timer timer;
	struct reactor *reactor;
	struct told_timer *other; /* to stop when fired */
	uint64_t again_ns;        /* != UINT64_MAX: start again with this delay */
	char name;
};

static void told_fired(struct timer *t)
{
	struct told_timer *told = container_of(t, struct told_timer, timer);

	CU_ASSERT_FALSE(timer_is_running(t));
	CU_ASSERT_TRUE(t->at_ns <= fake_now_ns);
	tell(told->name);
	if (told->other != NULL)
		timer_stop(told->reactor, &told->other->timer);
	if (told->again_ns != UINT64_MAX)
		timer_start(told->reactor, t, told->again_ns);
}

static void told_timer_init(struct told_timer *t, struct reactor *r, char name)
{
	*t = (struct told_timer){.reactor = r, .name = name, .again_ns = UINT64_MAX};
	timer_init(&t->timer, told_fired);
}

static void timers_fire_in_order_and_never_early(void)
{
	struct told_timer a, b, c;
	struct reactor r;

	reactor_base_init(&r, &fake_ops);
	fake_now_ns = 1000;
	told_timer_init(&a, &r, 'a');
	told_timer_init(&b, &r, 'b');
	told_timer_init(&c, &r, 'c');
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), UINT64_MAX);
	timer_start(&r, &c.timer, 30);
	timer_start(&r, &a.timer, 10);
	timer_start(&r, &b.timer, 20);
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), 1010);
	fake_now_ns = 1009;
	CU_ASSERT_FALSE(reactor_base_deliver(&r));
	story_is("");
	fake_now_ns = 1025;
	CU_ASSERT_TRUE(reactor_base_deliver(&r));
	story_is("ab");
	CU_ASSERT_TRUE(timer_is_running(&c.timer));
	timer_start(&r, &c.timer, 50); /* restarted: later than it was */
	fake_now_ns = 1060;
	CU_ASSERT_FALSE(reactor_base_deliver(&r));
	fake_now_ns = 1075;
	reactor_base_deliver(&r);
	story_is("c");
	timer_start(&r, &c.timer, UINT64_MAX); /* for ever, not in the past */
	CU_ASSERT_FALSE(reactor_base_deliver(&r));
	timer_stop(&r, &c.timer);
	timer_stop(&r, &c.timer);
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), UINT64_MAX);
	reactor_base_fini(&r);
}

static void a_timer_may_stop_another_that_is_due(void)
{
	struct told_timer a, b;
	struct reactor r;

	reactor_base_init(&r, &fake_ops);
	told_timer_init(&a, &r, 'a');
	told_timer_init(&b, &r, 'b');
	a.other = &b;
	timer_start(&r, &a.timer, 1);
	timer_start(&r, &b.timer, 2);
	fake_now_ns += 10;
	reactor_base_deliver(&r);
	story_is("a");
	CU_ASSERT_FALSE(timer_is_running(&b.timer));
	CU_ASSERT_FALSE(reactor_base_deliver(&r));
	reactor_base_fini(&r);
}

static void without_delay_means_the_next_turn(void)
{
	struct told_timer a;
	struct reactor r;

	reactor_base_init(&r, &fake_ops);
	told_timer_init(&a, &r, 'a');
	a.again_ns = 0;
	timer_start(&r, &a.timer, 0);
	for (int i = 0; i < 3; i++) { /* the clock stands still */
		CU_ASSERT_TRUE(reactor_base_deliver(&r));
		story_is("a");
		CU_ASSERT_TRUE(timer_is_running(&a.timer));
	}
	timer_stop(&r, &a.timer);
	reactor_base_fini(&r);
}

#define N_TIMERS 500

static uint64_t n_fired, last_fired_ns;

static void count_fired(struct timer *t)
{
	CU_ASSERT_TRUE(t->at_ns >= last_fired_ns);
	CU_ASSERT_TRUE(t->at_ns <= fake_now_ns);
	last_fired_ns = t->at_ns;
	n_fired++;
}

/* Starts, restarts and stops at random; what fires is exactly what a simple count says, in order of time. */
static void many_timers_agree_with_a_simple_count(void)
{
	static struct timer timers[N_TIMERS];
	struct reactor r;

	reactor_base_init(&r, &fake_ops);
	srand(3);
	for (int i = 0; i < N_TIMERS; i++)
		timer_init(&timers[i], count_fired);
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < 200; i++) {
			struct timer *t = &timers[rand() % N_TIMERS];
			if (rand() % 3 == 0)
				timer_stop(&r, t);
			else
				timer_start(&r, t, (uint64_t)rand() % 1000);
		}
		fake_now_ns += (uint64_t)rand() % 300;
		uint64_t n_due = 0, next_ns = UINT64_MAX;
		for (int i = 0; i < N_TIMERS; i++) {
			if (!timer_is_running(&timers[i]))
				continue;
			n_due += timers[i].at_ns <= fake_now_ns;
			next_ns = min_u64(next_ns, timers[i].at_ns);
		}
		CU_ASSERT_EQUAL(reactor_base_next_ns(&r), next_ns);
		n_fired = last_fired_ns = 0;
		reactor_base_deliver(&r);
		CU_ASSERT_EQUAL(n_fired, n_due);
	}
	for (int i = 0; i < N_TIMERS; i++)
		timer_stop(&r, &timers[i]);
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), UINT64_MAX);
	reactor_base_fini(&r);
}

struct told_op {
	struct op op;
	struct reactor *reactor;
	int n_again;
	int res;
};

static void told_done(struct op *op, int res)
{
	struct told_op *told = container_of(op, struct told_op, op);

	CU_ASSERT_EQUAL(op->kind, OP_NONE);
	told->res = res;
	tell('d');
	if (told->n_again-- > 0)
		reactor_defer(told->reactor, op, res);
}

static void what_is_deferred_comes_one_turn_later(void)
{
	struct reactor r;
	struct told_op told = {.reactor = &r, .n_again = 1};

	reactor_base_init(&r, &fake_ops);
	op_init(&told.op, told_done);
	reactor_defer(&r, &told.op, -ENOSPC);
	story_is("");
	CU_ASSERT_EQUAL(told.op.kind, OP_DEFER);
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), 0);
	CU_ASSERT_TRUE(reactor_base_deliver(&r));
	story_is("d");
	CU_ASSERT_EQUAL(told.res, -ENOSPC);
	CU_ASSERT_TRUE(reactor_base_deliver(&r)); /* deferred again from within done() */
	story_is("d");
	CU_ASSERT_FALSE(reactor_base_deliver(&r));
	reactor_base_fini(&r);
}

struct told_hook {
	struct turn_hook hook;
	struct reactor *reactor;
	struct told_hook *sets;
	char name;
};

static void told_run(struct turn_hook *h)
{
	struct told_hook *told = container_of(h, struct told_hook, hook);

	tell(told->name);
	if (told->sets != NULL)
		reactor_at_turn_end(told->reactor, &told->sets->hook);
}

static void hooks_run_once_a_turn(void)
{
	struct told_hook a, b;
	struct reactor r;

	reactor_base_init(&r, &fake_ops);
	a = (struct told_hook){.reactor = &r, .sets = &b, .name = 'a'};
	b = (struct told_hook){.reactor = &r, .sets = NULL, .name = 'b'};
	turn_hook_init(&a.hook, told_run);
	turn_hook_init(&b.hook, told_run);
	reactor_base_turn_end(&r);
	story_is("");
	reactor_at_turn_end(&r, &a.hook);
	reactor_at_turn_end(&r, &a.hook);
	reactor_base_turn_end(&r); /* what a sets still belongs to this turn */
	story_is("ab");
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), UINT64_MAX);
	b.sets = &a; /* in a circle: each once a turn, and the next turn comes at once */
	reactor_at_turn_end(&r, &a.hook);
	reactor_base_turn_end(&r);
	story_is("ab");
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), 0);
	b.sets = NULL;
	reactor_base_turn_end(&r);
	story_is("ab");
	CU_ASSERT_EQUAL(reactor_base_next_ns(&r), UINT64_MAX);
	reactor_base_fini(&r);
}

/* ---- the io_uring reactor: a world ---- */

static bool is_plain; /* the mode under test */

struct world {
	struct reactor *reactor;
	char dir[64];
	char path[96];
};

static void world_open_with(struct world *w, uint32_t n_entries, uint32_t spin_max_us)
{
	struct reactor_options options = {.n_entries = n_entries, .spin_max_us = spin_max_us, .is_plain = is_plain};

	snprintf(w->dir, sizeof w->dir, "/var/tmp/quarry-test-XXXXXX"); /* /tmp may lack direct I/O */
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(w->dir));
	snprintf(w->path, sizeof w->path, "%s/x", w->dir);
	CU_ASSERT_EQUAL_FATAL(reactor_create(&options, &w->reactor), 0);
}

static void world_open(struct world *w)
{
	world_open_with(w, 0, 0);
}

static void world_close(struct world *w)
{
	reactor_destroy(w->reactor);
	unlink(w->path);
	CU_ASSERT_EQUAL(rmdir(w->dir), 0); /* nothing else was left behind */
}

/* An op that stops the reactor when `n_left` such ops have come back. */
struct wait {
	struct op op;
	struct reactor *reactor;
	int res;
	bool is_done;
	unsigned *n_left;
};

static void wait_done(struct op *op, int res)
{
	struct wait *w = container_of(op, struct wait, op);

	CU_ASSERT_FALSE(w->is_done);
	w->res = res;
	w->is_done = true;
	if (w->n_left == NULL || --*w->n_left == 0)
		reactor_stop(w->reactor);
}

static void wait_init(struct wait *w, struct reactor *r)
{
	*w = (struct wait){.reactor = r};
	op_init(&w->op, wait_done);
}

/* Runs the reactor until the op is back. */
static int wait_for(struct wait *w)
{
	while (!w->is_done)
		reactor_run(w->reactor);
	w->is_done = false;
	return w->res;
}

static struct file *world_file(struct world *w, uint64_t size_bytes)
{
	struct file *f;

	CU_ASSERT_EQUAL_FATAL(reactor_file_open(w->reactor, w->path, FILE_CREATE, &f), 0);
	CU_ASSERT_EQUAL(file_set_size(f, size_bytes), 0);
	return f;
}

static unsigned char *pages(size_t len_bytes)
{
	void *data = mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CU_ASSERT_PTR_NOT_EQUAL_FATAL(data, MAP_FAILED);
	return data;
}

static void fill(unsigned char *data, size_t len_bytes, unsigned seed)
{
	for (size_t i = 0; i < len_bytes; i++)
		data[i] = (unsigned char)(i * 7 + i / 4096 + seed);
}

/* ---- files ---- */

static void what_is_written_is_read(void)
{
	const size_t len = 64 * KIB;
	unsigned char *out = pages(len), *in = pages(len);
	struct world w;
	struct wait op;

	world_open(&w);
	struct file *f = world_file(&w, MIB);
	struct iovec one = {out, len}, parts[] = {{in, 4096}, {in + 4096, 512}, {in + 4608, len - 4608}};
	fill(out, len, 1);
	wait_init(&op, w.reactor);
	file_write(f, &op.op, &one, 1, 8192);
	CU_ASSERT_FALSE(op.is_done);
	CU_ASSERT_EQUAL(wait_for(&op), 0);
	file_flush(f, &op.op);
	CU_ASSERT_EQUAL(wait_for(&op), 0);
	file_read(f, &op.op, parts, 3, 8192);
	CU_ASSERT_EQUAL(wait_for(&op), 0);
	CU_ASSERT_EQUAL(memcmp(in, out, len), 0);
	file_write(f, &op.op, parts, 3, 512 * KIB); /* gathered */
	CU_ASSERT_EQUAL(wait_for(&op), 0);
	memset(in, 0, len);
	file_read(f, &op.op, &(struct iovec){in, len}, 1, 512 * KIB);
	CU_ASSERT_EQUAL(wait_for(&op), 0);
	CU_ASSERT_EQUAL(memcmp(in, out, len), 0);
	file_close(f);
	world_close(&w);
	munmap(out, len);
	munmap(in, len);
}

static void reading_past_the_end_is_an_error(void)
{
	unsigned char *data = pages(16384);
	struct world w;
	struct wait op;

	world_open(&w);
	struct file *f = world_file(&w, 8192);
	wait_init(&op, w.reactor);
	file_read(f, &op.op, &(struct iovec){data, 8192}, 1, 0);
	CU_ASSERT_EQUAL(wait_for(&op), 0);
	file_read(f, &op.op, &(struct iovec){data, 8192}, 1, 4096); /* half of it is there */
	CU_ASSERT_EQUAL(wait_for(&op), -EIO);
	file_read(f, &op.op, &(struct iovec){data, 4096}, 1, 8192);
	CU_ASSERT_EQUAL(wait_for(&op), -EIO);
	CU_ASSERT_EQUAL(file_set_size(f, 5000), 0);
	file_read(f, &op.op, &(struct iovec){data, 8192}, 1, 0); /* ends within a sector */
	CU_ASSERT_EQUAL(wait_for(&op), -EIO);
	CU_ASSERT_EQUAL(file_size_bytes(f), 5000);
	file_close(f);
	world_close(&w);
	munmap(data, 16384);
}

#define N_MANY 400

/* Far more at once than the ring of eight has room for. */
static void a_full_ring_loses_nothing(void)
{
	static struct wait ops[N_MANY];
	static struct iovec iovs[N_MANY];
	unsigned char *data = pages(N_MANY * BLOCK_BYTES), *back = pages(N_MANY * BLOCK_BYTES);
	unsigned n_left = N_MANY;
	struct world w;

	world_open_with(&w, 8, 0);
	struct file *f = world_file(&w, N_MANY * BLOCK_BYTES);
	fill(data, N_MANY * BLOCK_BYTES, 2);
	for (unsigned i = 0; i < N_MANY; i++) {
		wait_init(&ops[i], w.reactor);
		ops[i].n_left = &n_left;
		iovs[i] = (struct iovec){data + i * BLOCK_BYTES, BLOCK_BYTES};
		file_write(f, &ops[i].op, &iovs[i], 1, i * BLOCK_BYTES);
	}
	CU_ASSERT_TRUE(counter_get(&reactor_counters(w.reactor)->ring_full) > 0);
	reactor_run(w.reactor);
	CU_ASSERT_EQUAL(n_left, 0);
	for (unsigned i = 0; i < N_MANY; i++)
		CU_ASSERT_TRUE(ops[i].is_done && ops[i].res == 0);
	ops[0].is_done = false;
	n_left = 1;
	file_read(f, &ops[0].op, &(struct iovec){back, N_MANY * BLOCK_BYTES}, 1, 0);
	CU_ASSERT_EQUAL(wait_for(&ops[0]), 0);
	CU_ASSERT_EQUAL(memcmp(data, back, N_MANY * BLOCK_BYTES), 0);
	file_close(f);
	world_close(&w);
	munmap(data, N_MANY * BLOCK_BYTES);
	munmap(back, N_MANY * BLOCK_BYTES);
}

static int64_t allocated_bytes(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : (int64_t)st.st_blocks * 512;
}

static void space_is_reserved_and_given_back(void)
{
	unsigned char *data = pages(BLOCK_BYTES);
	struct world w;
	struct wait op;

	world_open(&w);
	struct file *f = world_file(&w, 0);
	CU_ASSERT_EQUAL(file_reserve(f, 0, 3 * MIB + BLOCK_BYTES), 0);
	CU_ASSERT_EQUAL(file_size_bytes(f), (int64_t)(3 * MIB + BLOCK_BYTES));
	CU_ASSERT_TRUE(allocated_bytes(w.path) >= (int64_t)(3 * MIB));
	wait_init(&op, w.reactor);
	file_punch(f, &op.op, MIB, 2 * MIB);
	int res = wait_for(&op);
	CU_ASSERT_TRUE(res == 0 || res == -EOPNOTSUPP);
	if (res == 0)
		CU_ASSERT_TRUE(allocated_bytes(w.path) < (int64_t)(2 * MIB));
	CU_ASSERT_EQUAL(file_size_bytes(f), (int64_t)(3 * MIB + BLOCK_BYTES)); /* keeps its size */
	file_read(f, &op.op, &(struct iovec){data, BLOCK_BYTES}, 1, 3 * MIB);
	CU_ASSERT_EQUAL(wait_for(&op), 0);
	file_close(f);
	world_close(&w);
	munmap(data, BLOCK_BYTES);
}

static void only_files_and_devices_are_opened(void)
{
	struct file *f;
	struct world w;

	world_open(&w);
	CU_ASSERT_EQUAL(reactor_file_open(w.reactor, w.path, 0, &f), -ENOENT);
	CU_ASSERT_EQUAL(reactor_file_open(w.reactor, w.dir, 0, &f), -ENOTSUP);
	CU_ASSERT_EQUAL(reactor_file_open(w.reactor, "/dev/null", 0, &f), -ENOTSUP);
	CU_ASSERT_EQUAL(mkfifo(w.path, 0600), 0);
	CU_ASSERT_EQUAL(reactor_file_open(w.reactor, w.path, FILE_READ_ONLY, &f), -ENOTSUP); /* and does not hang */
	CU_ASSERT_EQUAL(reactor_file_open(w.reactor, w.path, FILE_CREATE, &f), -EEXIST);
	unlink(w.path);
	f = world_file(&w, 4096);
	CU_ASSERT_FALSE(file_is_device(f));
	file_close(f);
	world_close(&w);
}

static void a_lock_keeps_others_out(void)
{
	struct file *first, *second, *reader;
	struct world w;

	world_open(&w);
	first = world_file(&w, 4096);
	CU_ASSERT_EQUAL(reactor_file_open(w.reactor, w.path, 0, &second), 0);
	CU_ASSERT_EQUAL(reactor_file_open(w.reactor, w.path, FILE_READ_ONLY, &reader), 0);
	CU_ASSERT_EQUAL(file_lock(first), 0);
	CU_ASSERT_EQUAL(file_lock(first), 0); /* its own */
	CU_ASSERT_EQUAL(file_lock(second), -EAGAIN);
	CU_ASSERT_EQUAL(file_lock(reader), -EAGAIN);
	file_close(first);
	CU_ASSERT_EQUAL(file_lock(reader), 0);
	CU_ASSERT_EQUAL(file_lock(second), -EAGAIN);
	file_close(reader);
	CU_ASSERT_EQUAL(file_lock(second), 0);
	file_close(second);
	world_close(&w);
}

/* ---- a killed process's writes in flight hold its lock (DESIGN: Recovery) ---- */

#define N_IN_FLIGHT  64
#define WRITE_BYTES  (1u << 20)
#define LOCK_LIMIT_S 60

struct endless {
	struct op op;
	struct file *file;
	struct iovec iov;
	uint64_t pos_bytes;
	int ready_fd; /* the first one tells when it has landed once; else -1 */
};

static void endless_write(struct op *op, int res)
{
	struct endless *e = container_of(op, struct endless, op);

	if (e->ready_fd >= 0) {
		ssize_t n = write(e->ready_fd, "r", 1);
		quarry_assert(n == 1);
		e->ready_fd = -1;
	}
	memset(e->iov.iov_base, ((unsigned char *)e->iov.iov_base)[0] + 1, 512);
	file_write(e->file, op, &e->iov, 1, e->pos_bytes);
}

/* Locks the file and writes to all of it for ever. */
static _Noreturn void child_write_for_ever(const char *path, int ready_fd)
{
	static struct endless writes[N_IN_FLIGHT];
	struct reactor_options options = {.is_plain = is_plain};
	struct reactor *r;
	struct file *f;

	if (reactor_create(&options, &r) < 0 || reactor_file_open(r, path, 0, &f) < 0 || file_lock(f) < 0)
		_exit(1);
	for (unsigned i = 0; i < N_IN_FLIGHT; i++) {
		void *data = mmap(NULL, WRITE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		writes[i] =
		    (struct endless){.file = f, .iov = {data, WRITE_BYTES}, .pos_bytes = (uint64_t)i * WRITE_BYTES};
		writes[i].ready_fd = i == 0 ? ready_fd : -1;
		memset(data, 1, 512);
		op_init(&writes[i].op, endless_write);
		file_write(f, &writes[i].op, &writes[i].iov, 1, writes[i].pos_bytes);
	}
	reactor_run(r);
	_exit(1);
}

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Tries until the lock is free; how long that took, or UINT64_MAX. */
static uint64_t lock_when_free(struct file *f)
{
	uint64_t began_ns = monotonic_ns();

	for (;;) { /* poll: until LOCK_LIMIT_S */
		uint64_t took_ns = monotonic_ns() - began_ns;
		if (file_lock(f) == 0)
			return took_ns;
		if (took_ns > LOCK_LIMIT_S * NS_PER_S)
			return UINT64_MAX;
		sched_yield();
	}
}

static void read_all(struct world *w, struct file *f, unsigned char *data)
{
	struct wait op;

	wait_init(&op, w->reactor);
	for (unsigned i = 0; i < N_IN_FLIGHT; i++) {
		file_read(f, &op.op, &(struct iovec){data + (size_t)i * WRITE_BYTES, WRITE_BYTES}, 1,
			  (uint64_t)i * WRITE_BYTES);
		CU_ASSERT_EQUAL(wait_for(&op), 0);
	}
}

static void a_killed_writer_holds_its_lock_until_its_writes_have_landed(void)
{
	const size_t len = (size_t)N_IN_FLIGHT * WRITE_BYTES;
	unsigned char *before = pages(len), *after = pages(len);
	struct world w;
	int ready[2], status;
	char byte;

	world_open(&w);
	struct file *f = world_file(&w, len);
	CU_ASSERT_EQUAL(file_reserve(f, 0, len), 0);
	CU_ASSERT_EQUAL_FATAL(pipe2(ready, O_CLOEXEC), 0);
	pid_t child = fork();
	if (child == 0) {
		close(ready[0]);
		child_write_for_ever(w.path, ready[1]);
	}
	close(ready[1]);
	CU_ASSERT_EQUAL(read(ready[0], &byte, 1), 1);
	CU_ASSERT_EQUAL(file_lock(f), -EAGAIN); /* it lives */
	CU_ASSERT_EQUAL(kill(child, SIGKILL), 0);
	CU_ASSERT_TRUE(lock_when_free(f) != UINT64_MAX);
	read_all(&w, f, before); /* from here on nothing of the dead one may land */
	CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
	CU_ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	read_all(&w, f, after);
	CU_ASSERT_EQUAL(memcmp(before, after, len), 0);
	CU_ASSERT_TRUE(before[0] > 0); /* it had written */
	close(ready[0]);
	file_close(f);
	world_close(&w);
	munmap(before, len);
	munmap(after, len);
}

/* ---- streams ---- */

/* Two ends of one connection, made through a listener. */
struct pair {
	struct listener *listener;
	struct stream *server, *client;
};

static void pair_open(struct pair *p, struct world *w, const char *address)
{
	struct wait accept_op, connect_op;

	CU_ASSERT_EQUAL_FATAL(reactor_listen(w->reactor, address, &p->listener), 0);
	wait_init(&accept_op, w->reactor);
	wait_init(&connect_op, w->reactor);
	listener_accept(p->listener, &accept_op.op, &p->server);
	reactor_connect(w->reactor, &connect_op.op, address, &p->client);
	CU_ASSERT_EQUAL_FATAL(wait_for(&connect_op), 0);
	CU_ASSERT_EQUAL_FATAL(wait_for(&accept_op), 0);
}

static void pair_close(struct pair *p)
{
	stream_close(p->server);
	stream_close(p->client);
	listener_close(p->listener);
}

static void bytes_go_both_ways(struct world *w, const char *address)
{
	struct wait send_op, recv_op;
	char in[16] = "";
	struct pair p;

	pair_open(&p, w, address);
	wait_init(&send_op, w->reactor);
	wait_init(&recv_op, w->reactor);
	stream_recv(p.server, &recv_op.op, &(struct iovec){in, sizeof in}, 1);
	stream_send(p.client, &send_op.op, &(struct iovec){"hello", 5}, 1);
	CU_ASSERT_EQUAL(wait_for(&recv_op), 5);
	CU_ASSERT_EQUAL(wait_for(&send_op), 0);
	CU_ASSERT_STRING_EQUAL(in, "hello");
	/* scattered, and in the other direction */
	char a[2], b[3];
	struct iovec parts[] = {{a, sizeof a}, {b, sizeof b}}, words[] = {{"wor", 3}, {"ld", 2}};
	stream_recv_all(p.client, &recv_op.op, parts, 2);
	stream_send(p.server, &send_op.op, words, 2);
	CU_ASSERT_EQUAL(wait_for(&send_op), 0);
	CU_ASSERT_EQUAL(wait_for(&recv_op), 0);
	CU_ASSERT_EQUAL(memcmp(a, "wo", 2), 0);
	CU_ASSERT_EQUAL(memcmp(b, "rld", 3), 0);
	pair_close(&p);
}

static void unix_streams_work(void)
{
	struct world w;

	world_open(&w);
	bytes_go_both_ways(&w, w.path);
	CU_ASSERT_EQUAL(access(w.path, F_OK), -1); /* removed with its listener */
	world_close(&w);
}

/* A port that was free a moment ago. */
static unsigned free_port(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t in_bytes = sizeof in;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
	CU_ASSERT_EQUAL(getsockname(fd, (struct sockaddr *)&in, &in_bytes), 0);
	close(fd);
	return ntohs(in.sin_port);
}

static void tcp_streams_work(void)
{
	char address[64];
	struct world w;
	struct pair p;

	world_open(&w);
	snprintf(address, sizeof address, "127.0.0.1:%u", free_port());
	bytes_go_both_ways(&w, address);
	snprintf(address, sizeof address, "localhost:%u", free_port()); /* a name: resolved on a thread */
	bytes_go_both_ways(&w, address);
	pair_open(&p, &w, address);
	CU_ASSERT_TRUE(strncmp(stream_peer(p.server), "127.0.0.1:", 10) == 0 ||
		       strncmp(stream_peer(p.server), "[::1]:", 6) == 0);
	pair_close(&p);
	world_close(&w);
}

static void bad_addresses_are_refused(void)
{
	static const char *const bad[] = {"",       "nonsense", "1.2.3.4", "1.2.3.4:", "1.2.3.4:99999", "1.2.3.4:80x",
					  "::1:80", "[::1]80",  "[::1:80", "[]:",      "1.2.3.4:123456"};
	char long_path[200];
	struct listener *l;
	struct stream *s;
	struct world w;
	struct wait op;

	world_open(&w);
	wait_init(&op, w.reactor);
	for (size_t i = 0; i < array_size(bad); i++) {
		CU_ASSERT_EQUAL(reactor_listen(w.reactor, bad[i], &l), -EINVAL);
		reactor_connect(w.reactor, &op.op, bad[i], &s);
		CU_ASSERT_FALSE(op.is_done);
		CU_ASSERT_EQUAL(wait_for(&op), -EINVAL);
	}
	memset(long_path, '/', sizeof long_path - 1);
	long_path[sizeof long_path - 1] = '\0';
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, long_path, &l), -ENAMETOOLONG);
	reactor_connect(w.reactor, &op.op, long_path, &s);
	CU_ASSERT_EQUAL(wait_for(&op), -ENAMETOOLONG);
	reactor_connect(w.reactor, &op.op, w.path, &s);
	CU_ASSERT_EQUAL(wait_for(&op), -ENOENT);
	char address[64];
	snprintf(address, sizeof address, "127.0.0.1:%u", free_port());
	reactor_connect(w.reactor, &op.op, address, &s);
	CU_ASSERT_EQUAL(wait_for(&op), -ECONNREFUSED);
	reactor_connect(w.reactor, &op.op, "name.invalid:80", &s);
	int res = wait_for(&op);
	CU_ASSERT_TRUE(res == -EHOSTUNREACH || res == -EAGAIN); /* EAGAIN: no name server here */
	world_close(&w);
}

static void a_dead_socket_is_replaced_and_a_live_one_is_not(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct listener *l, *second;
	struct world w;

	world_open(&w);
	snprintf(un.sun_path, sizeof un.sun_path, "%s", w.path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	close(fd); /* dies without removing it */
	CU_ASSERT_EQUAL(access(w.path, F_OK), 0);
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &l), 0);
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &second), -EADDRINUSE);
	/* a path that came to belong to somebody else stays */
	unlink(w.path);
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &second), 0);
	listener_close(l);
	CU_ASSERT_EQUAL(access(w.path, F_OK), 0);
	listener_close(second);
	CU_ASSERT_EQUAL(access(w.path, F_OK), -1);
	/* and so does what never was a socket */
	close(open(w.path, O_CREAT | O_WRONLY, 0600));
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &l), -EADDRINUSE);
	CU_ASSERT_EQUAL(access(w.path, F_OK), 0);
	world_close(&w);
}

static void closing_a_listener_ends_its_accept(void)
{
	struct listener *l;
	struct stream *s;
	struct world w;
	struct wait op, tick;

	world_open(&w);
	wait_init(&op, w.reactor);
	wait_init(&tick, w.reactor);
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &l), 0);
	listener_accept(l, &op.op, &s);
	reactor_defer(w.reactor, &tick.op, 0);
	CU_ASSERT_EQUAL(wait_for(&tick), 0); /* one turn: the kernel has it */
	reactor_defer(w.reactor, &tick.op, 0);
	CU_ASSERT_EQUAL(wait_for(&tick), 0);
	CU_ASSERT_FALSE(op.is_done);
	listener_close(l);
	CU_ASSERT_FALSE(op.is_done);
	CU_ASSERT_EQUAL(wait_for(&op), -ECANCELED);
	/* once more before the kernel has seen it */
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, w.path, &l), 0);
	listener_accept(l, &op.op, &s);
	listener_close(l);
	CU_ASSERT_EQUAL(wait_for(&op), -ECANCELED);
	world_close(&w);
}

/* The ring has no room for the accept: it is given back from the line. */
static void closing_a_listener_finds_an_accept_in_the_line(void)
{
	static struct wait reads[16];
	unsigned char *data = pages(BLOCK_BYTES);
	struct iovec iov = {data, BLOCK_BYTES};
	unsigned n_left = 16;
	struct listener *l;
	struct stream *s;
	struct world w;
	struct wait op;

	world_open_with(&w, 8, 0);
	struct file *f = world_file(&w, BLOCK_BYTES);
	char path[128];
	snprintf(path, sizeof path, "%s/socket", w.dir);
	CU_ASSERT_EQUAL(reactor_listen(w.reactor, path, &l), 0);
	wait_init(&op, w.reactor);
	for (size_t i = 0; i < array_size(reads); i++) {
		wait_init(&reads[i], w.reactor);
		reads[i].n_left = &n_left;
		file_read(f, &reads[i].op, &iov, 1, 0);
	}
	listener_accept(l, &op.op, &s);
	listener_close(l);
	CU_ASSERT_FALSE(op.is_done);
	CU_ASSERT_EQUAL(wait_for(&op), -ECANCELED);
	while (n_left > 0)
		reactor_run(w.reactor);
	file_close(f);
	world_close(&w);
	munmap(data, BLOCK_BYTES);
}

static void an_end_is_told_from_an_error(void)
{
	struct wait send_op, recv_op;
	char in[16];
	struct world w;
	struct pair p;

	world_open(&w);
	pair_open(&p, &w, w.path);
	wait_init(&send_op, w.reactor);
	wait_init(&recv_op, w.reactor);
	/* half of what was wanted, then the end */
	stream_recv_all(p.server, &recv_op.op, &(struct iovec){in, 16}, 1);
	stream_send(p.client, &send_op.op, &(struct iovec){"12345678", 8}, 1);
	CU_ASSERT_EQUAL(wait_for(&send_op), 0);
	stream_shutdown(p.client);
	CU_ASSERT_EQUAL(wait_for(&recv_op), -ECONNRESET);
	stream_recv(p.server, &recv_op.op, &(struct iovec){in, 16}, 1);
	CU_ASSERT_EQUAL(wait_for(&recv_op), 0);
	/* sending to nobody: an error, and no SIGPIPE */
	stream_send(p.server, &send_op.op, &(struct iovec){"x", 1}, 1);
	CU_ASSERT_EQUAL(wait_for(&send_op), -EPIPE);
	pair_close(&p);
	world_close(&w);
}

static void shutdown_delivers_what_waits(const char *address, struct world *w)
{
	const size_t len = 64 * MIB; /* more than any socket's buffers hold */
	unsigned char *data = pages(len);
	struct wait send_op, recv_op, tick;
	char in[16];
	struct pair p;

	pair_open(&p, w, address);
	wait_init(&send_op, w->reactor);
	wait_init(&recv_op, w->reactor);
	wait_init(&tick, w->reactor);
	stream_recv(p.server, &recv_op.op, &(struct iovec){in, sizeof in}, 1);
	stream_send(p.server, &send_op.op, &(struct iovec){data, len}, 1);
	for (int i = 0; i < 3; i++) { /* the kernel has both */
		reactor_defer(w->reactor, &tick.op, 0);
		CU_ASSERT_EQUAL(wait_for(&tick), 0);
	}
	CU_ASSERT_FALSE(recv_op.is_done);
	CU_ASSERT_FALSE(send_op.is_done);
	stream_shutdown(p.server);
	CU_ASSERT_TRUE(wait_for(&recv_op) <= 0);
	CU_ASSERT_TRUE(wait_for(&send_op) < 0);
	pair_close(&p);
	munmap(data, len);
}

static void shutdown_ends_both_directions(void)
{
	char address[64];
	struct world w;

	world_open(&w);
	shutdown_delivers_what_waits(w.path, &w);
	snprintf(address, sizeof address, "127.0.0.1:%u", free_port());
	shutdown_delivers_what_waits(address, &w);
	world_close(&w);
}

#define N_PARTS 100

/* Many odd pieces out, other odd pieces in, far beyond the sockets' buffers: nothing is lost or doubled. */
static void long_transfers_are_continued(void)
{
	const size_t len = 8 * MIB;
	unsigned char *out = pages(len), *in = pages(len);
	static struct iovec out_iov[N_PARTS], in_iov[N_PARTS];
	struct wait send_op, recv_op;
	struct world w;
	struct pair p;

	world_open(&w);
	pair_open(&p, &w, w.path);
	fill(out, len, 3);
	srand(5);
	size_t out_at = 0, in_at = 0;
	for (unsigned i = 0; i < N_PARTS; i++) {
		size_t out_len = i == N_PARTS - 1 ? len - out_at : (size_t)rand() % (len / N_PARTS) + 1;
		size_t in_len = i == N_PARTS - 1 ? len - in_at : (size_t)rand() % (len / N_PARTS) + 1;
		out_iov[i] = (struct iovec){out + out_at, out_len};
		in_iov[i] = (struct iovec){in + in_at, in_len};
		out_at += out_len;
		in_at += in_len;
	}
	wait_init(&send_op, w.reactor);
	wait_init(&recv_op, w.reactor);
	stream_send(p.client, &send_op.op, out_iov, N_PARTS);
	stream_recv_all(p.server, &recv_op.op, in_iov, N_PARTS);
	CU_ASSERT_EQUAL(wait_for(&send_op), 0);
	CU_ASSERT_EQUAL(wait_for(&recv_op), 0);
	CU_ASSERT_EQUAL(memcmp(in, out, len), 0);
	pair_close(&p);
	world_close(&w);
	munmap(out, len);
	munmap(in, len);
}

/* ---- time and threads ---- */

struct stopper {
	struct timer timer;
	struct reactor *reactor;
	uint64_t fired_ns;
};

static void stopper_fired(struct timer *t)
{
	struct stopper *s = container_of(t, struct stopper, timer);

	s->fired_ns = reactor_now_ns(s->reactor);
	reactor_stop(s->reactor);
}

static void stop_after(struct stopper *s, struct reactor *r, uint64_t delay_ns)
{
	*s = (struct stopper){.reactor = r};
	timer_init(&s->timer, stopper_fired);
	timer_start(r, &s->timer, delay_ns);
}

static void timers_follow_the_clock(void)
{
	struct stopper s;
	struct world w;

	world_open_with(&w, 0, 50);
	for (uint64_t delay_ns = 1; delay_ns < 30 * NS_PER_MS; delay_ns = delay_ns * 13 + 1) {
		uint64_t began_ns = reactor_now_ns(w.reactor);
		stop_after(&s, w.reactor, delay_ns);
		reactor_run(w.reactor);
		CU_ASSERT_TRUE(s.fired_ns - began_ns >= delay_ns);
	}
	CU_ASSERT_TRUE(reactor_wall_ns(w.reactor) > 1600000000ull * NS_PER_S);
	CU_ASSERT_NOT_EQUAL(reactor_random(w.reactor), reactor_random(w.reactor));
	world_close(&w);
}

static uint64_t thread_cpu_ns(void)
{
	struct timespec used;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * NS_PER_S + (uint64_t)used.tv_nsec;
}

static void at_rest_nothing_spins(void)
{
	struct stopper s;
	struct world w;

	world_open_with(&w, 0, 100);
	uint64_t before_ns = thread_cpu_ns();
	stop_after(&s, w.reactor, 300 * NS_PER_MS);
	reactor_run(w.reactor);
	CU_ASSERT_TRUE(thread_cpu_ns() - before_ns < 30 * NS_PER_MS);
	CU_ASSERT_TRUE(counter_get(&reactor_counters(w.reactor)->spins) <= 2);
	CU_ASSERT_TRUE(counter_get(&reactor_counters(w.reactor)->sleeps) >= 1);
	world_close(&w);
}

static void spinning_that_never_pays_stops(void)
{
	struct stopper s;
	struct world w;

	world_open_with(&w, 0, 100);
	for (int i = 0; i < 200; i++) { /* what wakes it is always further away than the bound */
		stop_after(&s, w.reactor, NS_PER_MS);
		reactor_run(w.reactor);
	}
	CU_ASSERT_TRUE(counter_get(&reactor_counters(w.reactor)->spins) < 30);
	CU_ASSERT_TRUE(counter_get(&reactor_counters(w.reactor)->spin_ns) < 30 * 2 * NS_PER_MS);
	world_close(&w);
}

#define N_SENDERS 3
#define N_EACH    2000

struct numbered {
	struct message message;
	struct sender *sender;
	unsigned number;
};

struct sender {
	pthread_t thread;
	struct reactor *reactor;
	unsigned n_received;
	unsigned *n_left;
	struct numbered messages[N_EACH];
};

static void numbered_deliver(struct message *m)
{
	struct numbered *n = container_of(m, struct numbered, message);

	CU_ASSERT_EQUAL(n->number, n->sender->n_received); /* in the order of posting */
	n->sender->n_received++;
	if (--*n->sender->n_left == 0)
		reactor_stop(n->sender->reactor);
}

static void *send_all(void *context)
{
	struct sender *s = context;

	for (unsigned i = 0; i < N_EACH; i++) {
		s->messages[i] = (struct numbered){.message.deliver = numbered_deliver, .sender = s, .number = i};
		reactor_post(s->reactor, &s->messages[i].message);
		if (i % 64 == 0)
			sched_yield(); /* let it fall asleep now and then */
	}
	return NULL;
}

static void messages_of_threads_arrive_in_order(void)
{
	static struct sender senders[N_SENDERS];
	unsigned n_left = N_SENDERS * N_EACH;
	struct world w;

	world_open(&w);
	for (int i = 0; i < N_SENDERS; i++) {
		senders[i].reactor = w.reactor;
		senders[i].n_received = 0;
		senders[i].n_left = &n_left;
		CU_ASSERT_EQUAL(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
	}
	reactor_run(w.reactor);
	CU_ASSERT_EQUAL(n_left, 0);
	for (int i = 0; i < N_SENDERS; i++) {
		pthread_join(senders[i].thread, NULL);
		CU_ASSERT_EQUAL(senders[i].n_received, N_EACH);
	}
	world_close(&w);
}

/* Two reactors on two threads hand one message back and forth: no wake-up is lost. */
struct ball {
	struct message message;
	struct reactor *here, *there;
	unsigned n_left;
};

static void ball_deliver(struct message *m)
{
	struct ball *b = container_of(m, struct ball, message);
	struct reactor *here = b->here;

	b->here = b->there;
	b->there = here;
	if (--b->n_left == 0) {
		reactor_stop(b->here);
		reactor_stop(here);
	} else {
		reactor_post(b->here, m);
	}
}

struct partner {
	pthread_t thread;
	struct reactor *reactor;
};

static void *partner_run(void *context)
{
	struct partner *p = context;

	reactor_run(p->reactor); /* created and destroyed by another thread */
	return NULL;
}

static void no_wake_up_is_lost(void)
{
	struct reactor_options options = {.is_plain = is_plain};
	struct partner partner;
	struct world w;

	world_open(&w);
	CU_ASSERT_EQUAL_FATAL(reactor_create(&options, &partner.reactor), 0);
	struct ball ball = {
	    .message.deliver = ball_deliver, .here = w.reactor, .there = partner.reactor, .n_left = 20000};
	CU_ASSERT_EQUAL(pthread_create(&partner.thread, NULL, partner_run, &partner), 0);
	reactor_post(w.reactor, &ball.message);
	reactor_run(w.reactor);
	CU_ASSERT_EQUAL(ball.n_left, 0);
	pthread_join(partner.thread, NULL);
	reactor_destroy(partner.reactor);
	world_close(&w);
}

static struct reactor *signalled;

static void on_signal(int number)
{
	reactor_stop(signalled);
}

static void a_signal_handler_may_stop_it(void)
{
	struct world w;

	world_open(&w);
	signalled = w.reactor;
	signal(SIGUSR1, on_signal);
	pid_t parent = getpid(), child = fork();
	if (child == 0) {
		kill(parent, SIGUSR1);
		_exit(0);
	}
	reactor_run(w.reactor);
	signal(SIGUSR1, SIG_DFL);
	CU_ASSERT_EQUAL(waitpid(child, NULL, 0), child);
	reactor_stop(w.reactor); /* before it runs: ends after one turn */
	reactor_run(w.reactor);
	world_close(&w);
}

static const struct {
	const char *name;
	void (*run)(void);
} uring_tests[] = {
    {"what is written is read", what_is_written_is_read},
    {"reading past the end is an error", reading_past_the_end_is_an_error},
    {"a full ring loses nothing", a_full_ring_loses_nothing},
    {"space is reserved and given back", space_is_reserved_and_given_back},
    {"only files and devices are opened", only_files_and_devices_are_opened},
    {"a lock keeps others out", a_lock_keeps_others_out},
    {"a killed writer holds its lock until its writes have landed",
     a_killed_writer_holds_its_lock_until_its_writes_have_landed},
    {"unix streams work", unix_streams_work},
    {"TCP streams work", tcp_streams_work},
    {"bad addresses are refused", bad_addresses_are_refused},
    {"a dead socket is replaced and a live one is not", a_dead_socket_is_replaced_and_a_live_one_is_not},
    {"closing a listener ends its accept", closing_a_listener_ends_its_accept},
    {"closing a listener finds an accept in the line", closing_a_listener_finds_an_accept_in_the_line},
    {"an end is told from an error", an_end_is_told_from_an_error},
    {"shutdown ends both directions", shutdown_ends_both_directions},
    {"long transfers are continued", long_transfers_are_continued},
    {"timers follow the clock", timers_follow_the_clock},
    {"at rest nothing spins", at_rest_nothing_spins},
    {"spinning that never pays stops", spinning_that_never_pays_stops},
    {"messages of threads arrive in order", messages_of_threads_arrive_in_order},
    {"no wake-up is lost", no_wake_up_is_lost},
    {"a signal handler may stop it", a_signal_handler_may_stop_it},
};

static int set_newest(void)
{
	is_plain = false;
	return 0;
}

static int set_plain(void)
{
	is_plain = true;
	return 0;
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite shared = CU_add_suite("shared half", NULL, NULL);
	CU_add_test(shared, "timers fire in order and never early", timers_fire_in_order_and_never_early);
	CU_add_test(shared, "a timer may stop another that is due", a_timer_may_stop_another_that_is_due);
	CU_add_test(shared, "without delay means the next turn", without_delay_means_the_next_turn);
	CU_add_test(shared, "many timers agree with a simple count", many_timers_agree_with_a_simple_count);
	CU_add_test(shared, "what is deferred comes one turn later", what_is_deferred_comes_one_turn_later);
	CU_add_test(shared, "hooks run once a turn", hooks_run_once_a_turn);
	CU_pSuite suites[] = {CU_add_suite("io_uring", set_newest, NULL),
			      CU_add_suite("io_uring, plain", set_plain, NULL)};
	for (size_t s = 0; s < array_size(suites); s++)
		for (size_t i = 0; i < array_size(uring_tests); i++)
			CU_add_test(suites[s], uring_tests[i].name, uring_tests[i].run);
	alarm(300); /* a lost wake-up would hang for ever */
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
