/*
 * test_disk_make.c: disk_format() makes a disk of what is blank and of nothing else, and tells why not. On the
 * simulator, with each of its operations failing in turn.
 */
#include "daemon/core/checksum.h"
#include "tests/sim/sim.h"
#include "volumes/disk/disk.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct uuid disk_uuid = {{0xd1, 1, 2, 3}};
static const struct uuid pool_uuid = {{0xb0, 4, 5, 6}};
static const struct uuid cluster_uuid = {{0xc1, 7, 8, 9}};

#define MEDIUM_BYTES (32 * MIB)

struct bench {
	struct sim *world;
	struct sim_machine *machine;
	struct disk_format_options options;
	char why[WHY_BYTES];
};

static struct bench bench_make(void)
{
	struct bench b = {.world = sim_create(5)};

	b.machine = sim_machine_create(b.world, "n1");
	b.options =
	    (struct disk_format_options){.disk = disk_uuid, .pool = pool_uuid, .cluster = cluster_uuid, .label = "d1"};
	return b;
}

static int bench_format(struct bench *b)
{
	return disk_format(sim_reactor(b->machine), "d1", &b->options, b->why);
}

static struct superblock slot_of(struct sim_file *f, unsigned slot, enum superblock_verdict want)
{
	uint8_t block[BLOCK_BYTES];
	char why[WHY_BYTES];
	struct superblock sb = {.checkpoint = 0};

	sim_file_peek(f, superblock_slot_block(slot), block);
	CU_ASSERT_EQUAL(superblock_decode(block, &sb, why), want);
	return sb;
}

static void formatting_makes_an_empty_disk(void)
{
	struct bench b = bench_make();
	struct sim_file *f = sim_file_create(b.machine, "d1", MEDIUM_BYTES + 512);

	CU_ASSERT_EQUAL(bench_format(&b), 0);
	sim_crash(b.machine, SIM_POWER_LOSS); /* it is durable */
	slot_of(f, 0, SUPERBLOCK_BLANK);
	slot_of(f, 2, SUPERBLOCK_BLANK);
	for (unsigned slot = 1; slot <= 3; slot += 2) {
		struct superblock sb = slot_of(f, slot, SUPERBLOCK_VALID);
		CU_ASSERT_EQUAL(sb.checkpoint, 1);
		CU_ASSERT_EQUAL(sb.n_blocks, MEDIUM_BYTES / BLOCK_BYTES);
		CU_ASSERT_EQUAL(sb.journal_blocks, journal_blocks_for(sb.n_blocks));
		CU_ASSERT_EQUAL(sb.replay_from, 1);
		CU_ASSERT_EQUAL(sb.n_tree_slots + sb.n_volume_slots + sb.n_deltas, 0);
		CU_ASSERT_TRUE(pointer_is_hole(sb.counts));
		CU_ASSERT_TRUE(uuid_equal(&sb.disk, &disk_uuid) && uuid_equal(&sb.pool, &pool_uuid));
		CU_ASSERT_STRING_EQUAL(sb.label, "d1");
	}
	sim_destroy(b.world);
}

static void formatting_creates_a_file(void)
{
	struct bench b = bench_make();

	CU_ASSERT_EQUAL(bench_format(&b), -ENOENT);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "give the size"));
	b.options.size_bytes = MEDIUM_BYTES;
	b.options.reserve = true;
	CU_ASSERT_EQUAL(bench_format(&b), 0);
	struct sim_file *f = sim_file_find(b.machine, "d1");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL(sim_file_size_bytes(f), MEDIUM_BYTES);
	CU_ASSERT_TRUE(slot_of(f, 1, SUPERBLOCK_VALID).is_reserved);
	sim_destroy(b.world);
}

static void formatting_refuses_what_holds_data(void)
{
	static const uint64_t places[] = {0, MIB / BLOCK_BYTES - 1, MEDIUM_BYTES / BLOCK_BYTES - 1};
	uint8_t block[BLOCK_BYTES] = {0}, after[BLOCK_BYTES];

	block[BLOCK_BYTES - 1] = 1;
	for (size_t i = 0; i < array_size(places); i++) {
		struct bench b = bench_make();
		struct sim_file *f = sim_file_create(b.machine, "d1", MEDIUM_BYTES);
		sim_file_poke(f, places[i], block);
		b.options.size_bytes = 2 * MEDIUM_BYTES;
		CU_ASSERT_EQUAL(bench_format(&b), -EEXIST);
		CU_ASSERT_PTR_NOT_NULL(strstr(b.why, i == 2 ? "near its end" : "holds data"));
		CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "--force"));
		CU_ASSERT_EQUAL(sim_file_size_bytes(f), MEDIUM_BYTES); /* untouched */
		CU_ASSERT_EQUAL(sim_file_stats(f).writes, 0);
		b.options.force = true;
		b.options.size_bytes = 0;
		CU_ASSERT_EQUAL(bench_format(&b), 0);
		sim_file_peek(f, places[i], after);
		CU_ASSERT_TRUE(bytes_are_zero(after, BLOCK_BYTES));
		slot_of(f, 1, SUPERBLOCK_VALID);
		sim_destroy(b.world);
	}
}

static void formatting_refuses_a_quarry_disk(void)
{
	struct bench b = bench_make();
	struct sim_file *f = sim_file_create(b.machine, "d1", MEDIUM_BYTES);
	struct journal_header h = {.sequence = 1, .checkpoint = 1, .used_bytes = JOURNAL_HEADER_BYTES};
	_Alignas(8) uint8_t block[BLOCK_BYTES] = {0};
	struct superblock sb = {.disk = disk_uuid,
				.checkpoint = 8,
				.n_blocks = DISK_MIN_BLOCKS,
				.replay_from = 9,
				.journal_blocks = JOURNAL_MIN_BLOCKS,
				.label = "old"};

	CU_ASSERT_EQUAL(bench_format(&b), 0);
	CU_ASSERT_EQUAL(bench_format(&b), -EEXIST);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "existing quarry disk d1 (pool b0040506-"));
	/* Formatted again with the same UUID, nothing of the old one is left: slots of both checkpoints, the journal.
	 */
	superblock_encode(&sb, block);
	sim_file_poke(f, superblock_slot_block(0), block);
	memset(block, 0, sizeof block);
	journal_block_seal(block, &h, &disk_uuid);
	sim_file_poke(f, JOURNAL_START + 1, block);
	sim_file_poke(f, JOURNAL_START + journal_blocks_for(MEDIUM_BYTES / BLOCK_BYTES) - 1, block);
	b.options.force = true;
	CU_ASSERT_EQUAL(bench_format(&b), 0);
	slot_of(f, 0, SUPERBLOCK_BLANK);
	slot_of(f, 1, SUPERBLOCK_VALID);
	sim_file_peek(f, JOURNAL_START + 1, block);
	CU_ASSERT_TRUE(bytes_are_zero(block, sizeof block));
	sim_file_peek(f, JOURNAL_START + journal_blocks_for(MEDIUM_BYTES / BLOCK_BYTES) - 1, block);
	CU_ASSERT_TRUE(bytes_are_zero(block, sizeof block));
	sim_destroy(b.world);
}

static void formatting_refuses_bad_sizes(void)
{
	struct bench b = bench_make();
	struct sim_file *f = sim_file_create(b.machine, "d1", MEDIUM_BYTES);

	b.options.size_bytes = DISK_MIN_BLOCKS * BLOCK_BYTES - 1;
	b.options.force = true;
	CU_ASSERT_EQUAL(bench_format(&b), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "too small"));
	b.options.force = false;
	b.options.size_bytes = MEDIUM_BYTES / 2;
	CU_ASSERT_EQUAL(bench_format(&b), -EINVAL);
	CU_ASSERT_STRING_EQUAL(b.why,
			       "d1 is a file of 32M, more than the 16M asked for: leave out the size, or --force");
	b.options.size_bytes = DISK_MAX_BLOCKS * BLOCK_BYTES + BLOCK_BYTES;
	CU_ASSERT_EQUAL(bench_format(&b), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "too large"));
	sim_file_set_device(f, true);
	b.options.size_bytes = MEDIUM_BYTES / 2;
	CU_ASSERT_EQUAL(bench_format(&b), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "used whole"));
	CU_ASSERT_EQUAL(sim_file_stats(f).writes, 0);
	b.options.size_bytes = 0;
	b.options.label = "a label that is far too long for the sixty-four bytes it has to fit in";
	CU_ASSERT_EQUAL(bench_format(&b), -EINVAL);
	b.options.label = "bell\a";
	CU_ASSERT_EQUAL(bench_format(&b), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "label"));
	sim_destroy(b.world);
}

static void formatting_refuses_a_disk_in_use(void)
{
	for (int is_device = 0; is_device <= 1; is_device++) {
		struct bench b = bench_make();
		struct file *file;
		sim_file_set_device(sim_file_create(b.machine, "d1", MEDIUM_BYTES), is_device);
		CU_ASSERT_EQUAL_FATAL(reactor_file_open(sim_reactor(b.machine), "d1", 0, &file), 0);
		CU_ASSERT_EQUAL_FATAL(file_lock(file), 0);
		b.options.force = true;
		CU_ASSERT_EQUAL(bench_format(&b), -EBUSY);
		CU_ASSERT_PTR_NOT_NULL(strstr(b.why, is_device ? "in use by another process, or mounted" : "in use"));
		file_close(file);
		CU_ASSERT_EQUAL(bench_format(&b), 0);
		sim_destroy(b.world);
	}
}

struct dying_process {
	struct timer timer;
	struct file *file;
};

static void process_is_gone(struct timer *t)
{
	file_close(container_of(t, struct dying_process, timer)->file);
}

/* A process that was killed keeps its lock, or the device itself, for a moment longer. */
static void formatting_waits_for_a_killed_process(void)
{
	for (int is_device = 0; is_device <= 1; is_device++) {
		struct bench b = bench_make();
		struct dying_process p;
		sim_file_set_device(sim_file_create(b.machine, "d1", MEDIUM_BYTES), is_device);
		CU_ASSERT_EQUAL_FATAL(reactor_file_open(sim_reactor(b.machine), "d1", 0, &p.file), 0);
		CU_ASSERT_EQUAL_FATAL(file_lock(p.file), 0);
		timer_init(&p.timer, process_is_gone);
		timer_start(sim_reactor(b.machine), &p.timer, 500 * NS_PER_MS);
		uint64_t begun = sim_now_ns(b.world);
		CU_ASSERT_EQUAL(bench_format(&b), 0);
		CU_ASSERT(sim_now_ns(b.world) - begun >= 500 * NS_PER_MS);
		sim_destroy(b.world);
	}
}

/* Each operation in turn fails: told with what was being done, and never a disk that looks good but is not. */
static void formatting_tells_of_errors(void)
{
	static const struct {
		enum op_kind kind;
		uint32_t skip;
		const char *why;
	} fail[] = {
	    {OP_READ, 0, "read the beginning"},
	    {OP_READ, 1, "read the end"},
	    {OP_FLUSH, 0, "flush"},
	    {OP_WRITE, 0, "first superblock"},
	    {OP_WRITE, 1, "second superblock"},
	    {OP_FLUSH, 1, "flush the superblocks"},
	};

	for (size_t i = 0; i < array_size(fail); i++) {
		struct bench b = bench_make();
		struct sim_file *f = sim_file_create(b.machine, "d1", MEDIUM_BYTES);
		sim_file_fail(f, fail[i].kind, fail[i].skip, EIO);
		CU_ASSERT_EQUAL(bench_format(&b), -EIO);
		CU_ASSERT_PTR_NOT_NULL(strstr(b.why, fail[i].why));
		CU_ASSERT_PTR_NOT_NULL(strstr(b.why, "d1"));
		b.options.force = true;
		CU_ASSERT_EQUAL(bench_format(&b), 0);
		sim_destroy(b.world);
	}
}

/* ---- on a real file, with the real reactor ---- */

static int read_real(void *context, uint64_t block, void *out)
{
	int fd = *(int *)context;

	return pread(fd, out, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) == BLOCK_BYTES ? 0 : -EIO;
}

static void formatting_makes_a_real_file(void)
{
	char folder[] = "/tmp/quarry-make-XXXXXX", path[64], why[WHY_BYTES];
	struct disk_format_options o = {
	    .disk = disk_uuid, .label = "real", .reserve = true, .size_bytes = MEDIUM_BYTES};
	struct reactor *r;
	int fd;

	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/d1", folder);
	CU_ASSERT_EQUAL_FATAL(reactor_create(&(struct reactor_options){.n_entries = 8}, &r), 0);
	CU_ASSERT_EQUAL(disk_format(r, path, &o, why), 0);
	CU_ASSERT_EQUAL(disk_format(r, path, &o, why), -EEXIST); /* the reactor can be run again, the lock is gone */
	o.force = true;
	CU_ASSERT_EQUAL(disk_format(r, path, &o, why), 0);
	CU_ASSERT_EQUAL(disk_format(r, folder, &o, why), -ENOTSUP);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "neither a regular file nor a block device"));
	CU_ASSERT_EQUAL(disk_format(r, "/dev/null", &o, why), -ENOTSUP);
	reactor_destroy(r);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	struct disk_check c = {.read = read_real, .context = &fd, .n_blocks = MEDIUM_BYTES / BLOCK_BYTES};
	CU_ASSERT_EQUAL(disk_check_run(&c), 0);
	CU_ASSERT_EQUAL(c.warnings, 0);
	struct stat st;
	CU_ASSERT_EQUAL(fstat(fd, &st), 0);
	CU_ASSERT_TRUE((uint64_t)st.st_blocks * 512 >= MEDIUM_BYTES); /* reserved */
	close(fd);
	unlink(path);
	rmdir(folder);
}

/* Room for half of it: a file that is new is gone again, one that was there has the size it had. */
static void what_finds_no_room_leaves_nothing(void)
{
	char folder[] = "/tmp/quarry-room-XXXXXX", path[64], why[WHY_BYTES];
	struct disk_format_options o = {
	    .disk = disk_uuid, .label = "room", .reserve = true, .size_bytes = MEDIUM_BYTES};
	struct rlimit old, half = {MEDIUM_BYTES / 2, MEDIUM_BYTES / 2};
	struct reactor *r;
	struct stat st;

	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/d1", folder);
	CU_ASSERT_EQUAL_FATAL(getrlimit(RLIMIT_FSIZE, &old), 0);
	half.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	CU_ASSERT_EQUAL_FATAL(reactor_create(&(struct reactor_options){.n_entries = 8}, &r), 0);
	CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_FSIZE, &half), 0);
	CU_ASSERT_EQUAL(disk_format(r, path, &o, why), -EFBIG);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "no room for"));
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "32M"));
	CU_ASSERT_NOT_EQUAL(access(path, F_OK), 0);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CU_ASSERT_EQUAL(ftruncate(fd, MIB), 0);
	CU_ASSERT_EQUAL(disk_format(r, path, &o, why), -EFBIG);
	CU_ASSERT_EQUAL(fstat(fd, &st), 0);
	CU_ASSERT_EQUAL(st.st_size, (off_t)MIB);
	close(fd);
	CU_ASSERT_EQUAL(setrlimit(RLIMIT_FSIZE, &old), 0);
	reactor_destroy(r);
	unlink(path);
	rmdir(folder);
}

/* A file of /proc stands for a file system without O_DIRECT: it can be written, and takes no such open. */
static void formatting_needs_direct_io(void)
{
	struct disk_format_options o = {.disk = disk_uuid, .label = "proc", .size_bytes = MEDIUM_BYTES, .force = true};
	char why[WHY_BYTES];
	struct reactor *r;

	CU_ASSERT_EQUAL_FATAL(reactor_create(&(struct reactor_options){.n_entries = 8}, &r), 0);
	CU_ASSERT_EQUAL(disk_format(r, "/proc/self/coredump_filter", &o, why), -EINVAL);
	CU_ASSERT_STRING_EQUAL(why, "cannot open /proc/self/coredump_filter: " NO_DIRECT_IO);
	reactor_destroy(r);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("disk make", NULL, NULL);
	CU_add_test(suite, "formatting makes an empty disk", formatting_makes_an_empty_disk);
	CU_add_test(suite, "formatting creates a file", formatting_creates_a_file);
	CU_add_test(suite, "formatting refuses what holds data", formatting_refuses_what_holds_data);
	CU_add_test(suite, "formatting refuses a quarry disk", formatting_refuses_a_quarry_disk);
	CU_add_test(suite, "formatting refuses bad sizes and labels", formatting_refuses_bad_sizes);
	CU_add_test(suite, "formatting refuses a disk in use", formatting_refuses_a_disk_in_use);
	CU_add_test(suite, "formatting waits for a killed process", formatting_waits_for_a_killed_process);
	CU_add_test(suite, "formatting tells of errors", formatting_tells_of_errors);
	CU_add_test(suite, "formatting makes a real file", formatting_makes_a_real_file);
	CU_add_test(suite, "formatting needs direct I/O", formatting_needs_direct_io);
	CU_add_test(suite, "what finds no room leaves nothing", what_finds_no_room_leaves_nothing);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
