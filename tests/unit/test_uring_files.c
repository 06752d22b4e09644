/*
 * test_uring_files.c: files of the io_uring reactor: transfers, sizes, locks, and what a killed process leaves behind.
 */
#include "tests/unit/uring_world.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

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

static int64_t allocated_bytes(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : (int64_t)st.st_blocks * 512;
}

static void space_is_reserved_and_given_back(void)
{
	unsigned char *data = pages(BLOCK_BYTES);
	_Atomic uint64_t written = 0;
	struct world w;
	struct wait op;

	world_open(&w);
	struct file *f = world_file(&w, 0);
	CU_ASSERT_EQUAL(file_reserve(f, 0, 3 * MIB + BLOCK_BYTES, &written), 0);
	CU_ASSERT_EQUAL(written, 3 * MIB + BLOCK_BYTES);
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
	CU_ASSERT_EQUAL(file_reserve(f, 0, len, NULL), 0);
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

static const struct world_test tests[] = {
    {"what is written is read", what_is_written_is_read},
    {"reading past the end is an error", reading_past_the_end_is_an_error},
    {"space is reserved and given back", space_is_reserved_and_given_back},
    {"only files and devices are opened", only_files_and_devices_are_opened},
    {"a lock keeps others out", a_lock_keeps_others_out},
    {"a killed writer holds its lock until its writes have landed",
     a_killed_writer_holds_its_lock_until_its_writes_have_landed},
};

int main(void)
{
	return world_tests_run(tests, array_size(tests));
}
