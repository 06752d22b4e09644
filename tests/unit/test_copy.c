/*
 * test_copy.c: the copy routine between a disk of the own node and one of another, in either direction. What chance and
 * crashes do to it is sim-copy's.
 */
#include "tests/unit/peer_world.h"

#include "replication/copy.h"

#define TREE       1u
#define RANGE      (1ull << 24)
#define DAMAGED    2u /* of the blocks that the source has in damaged_source() */
#define STAMPS_MAX 120u

struct request {
	struct replica_io rio;
	bool is_under_way;
	int res;
};

/* "n1" has a disk and a peer server, "n2" another disk, a client of it, and the copy. */
struct bench {
	struct world world;
	struct peer_client *client;
	struct sim_file *far_medium;
	struct disk *far_disk;
	struct replica far, near; /* as n2 sees them: `near` is local */
	bool is_done, is_copied, is_closed;
	struct request request;
	uint8_t *memory;
	struct iovec iov;
	uint32_t crcs[DISK_IO_BLOCKS_MAX];
	struct copy *copy;
	int res;
	struct copy_progress progress;
	uint64_t held[COPY_LANES]; /* blocks */
	uint32_t n_holds, n_releases;
};

static void bench_lost(struct replica *r, int res) {}

static bool bench_is_up(void *context)
{
	return peer_client_is_up(((struct bench *)context)->client);
}

static void bench_opened(struct disk *d, int res, void *context)
{
	struct bench *b = context;
	b->is_done = res == 0;
}

static bool bench_is_done(void *context)
{
	return ((struct bench *)context)->is_done;
}

static void bench_closed(void *context)
{
	((struct bench *)context)->is_closed = true;
}

static void bench_disk_closed(struct disk *d, void *context)
{
	bench_closed(context);
}

static bool bench_is_closed(void *context)
{
	return ((struct bench *)context)->is_closed;
}

/* ---- requests, one at a time ---- */

static void request_done(struct replica_io *rio, int res)
{
	struct request *r = container_of(rio, struct request, rio);
	r->is_under_way = false;
	r->res = res;
}

static bool request_is_done(void *context)
{
	return !((struct request *)context)->is_under_way;
}

static int ask(struct bench *b, struct replica *r, uint64_t tree, struct disk_io io)
{
	b->request.rio.io = io;
	b->request.rio.tree = tree;
	b->request.rio.done = request_done;
	b->request.is_under_way = true;
	replica_submit(r, &b->request.rio);
	CU_ASSERT_EQUAL_FATAL(sim_run(b->world.one.sim, request_is_done, &b->request, ONE_STEPS_MAX), SIM_DONE);
	return b->request.res;
}

static void write_blocks(struct bench *b, struct replica *r, struct disk_io io, uint8_t content)
{
	memset(b->memory, content, io.n_blocks * BLOCK_BYTES);
	for (uint32_t i = 0; i < io.n_blocks; i++)
		b->crcs[i] = crc32c(0, b->memory, BLOCK_BYTES);
	b->iov = (struct iovec){b->memory, io.n_blocks * BLOCK_BYTES};
	io.op = DISK_WRITE;
	io.iov = &b->iov;
	io.n_iov = 1;
	io.crcs = b->crcs;
	CU_ASSERT_EQUAL(ask(b, r, TREE, io), 0);
}

static void trim_blocks(struct bench *b, struct replica *r, uint64_t first, uint64_t n, uint64_t epoch)
{
	struct disk_io io = {.op = DISK_TRIM, .first = first, .n_blocks = n, .epoch = epoch};
	CU_ASSERT_EQUAL(ask(b, r, TREE, io), 0);
}

static void begin_session(struct bench *b, struct replica *r)
{
	CU_ASSERT_EQUAL(ask(b, r, 0, (struct disk_io){.op = DISK_FENCE, .generation = 5, .size_blocks = 1 << 20}), 0);
	CU_ASSERT_EQUAL(ask(b, r, 0, (struct disk_io){.op = DISK_CREATE, .tree_id = TREE, .epoch = 1}), 0);
}

static uint32_t stamps_take(struct bench *b, struct replica *r, struct disk_stamp out[STAMPS_MAX])
{
	struct disk_io io = {.op = DISK_STAMPS, .n_blocks = RANGE, .stamps = out, .stamps_max = STAMPS_MAX};
	CU_ASSERT_EQUAL(ask(b, r, TREE, io), 0);
	return b->request.rio.io.n_stamps;
}

/* Do both hold the same: checksums, epochs, holes? */
static void expect_equal(struct bench *b)
{
	static struct disk_stamp far[STAMPS_MAX], near[STAMPS_MAX];
	uint32_t n_far = stamps_take(b, &b->far, far), n_near = stamps_take(b, &b->near, near);
	CU_ASSERT_EQUAL(n_far, n_near);
	for (uint32_t i = 0; i < min_u64(n_far, n_near); i++) {
		CU_ASSERT_EQUAL(far[i].first, near[i].first);
		CU_ASSERT_EQUAL(far[i].n_blocks, near[i].n_blocks);
		CU_ASSERT_EQUAL(far[i].epoch, near[i].epoch);
		CU_ASSERT_EQUAL(far[i].crc, near[i].crc);
		CU_ASSERT_EQUAL(far[i].is_data, near[i].is_data);
	}
}

/* ---- the bench ---- */

static void bench_open_client(struct bench *b)
{
	struct peer_client_options o = {.reactor = sim_reactor(b->world.far),
					.log = b->world.one.log,
					.cluster = uuid_make(1, 3),
					.node_name = "n2",
					.address = "n1:9751",
					.timeout_ns = 700 * NS_PER_MS,
					.context = b};
	CU_ASSERT_EQUAL_FATAL(peer_client_create(&o, &b->client), 0);
	CU_ASSERT_EQUAL_FATAL(sim_run(b->world.one.sim, bench_is_up, b, ONE_STEPS_MAX), SIM_DONE);
}

static void bench_open_disk(struct bench *b)
{
	struct disk_format_options format = {
	    .disk = uuid_make(1, 9), .pool = uuid_make(1, 2), .cluster = uuid_make(1, 3), .label = "d2"};
	struct disk_options o = {.reactor = sim_reactor(b->world.far),
				 .log = b->world.one.log,
				 .path = "d2",
				 .cache_bytes = 4 * MIB,
				 .opened = bench_opened,
				 .context = b};
	char why[WHY_BYTES];
	b->far_medium = sim_file_create(b->world.far, "d2", SMALL_DISK);
	CU_ASSERT_EQUAL_FATAL(disk_format(o.reactor, "d2", &format, why), 0);
	CU_ASSERT_EQUAL_FATAL(disk_open(&o, &b->far_disk, why), 0);
	CU_ASSERT_EQUAL_FATAL(sim_run(b->world.one.sim, bench_is_done, b, ONE_STEPS_MAX), SIM_DONE);
}

static struct bench *bench_open(void)
{
	struct bench *b = calloc(1, sizeof(*b));
	const struct uuid volume = uuid_make(2, 7), far = uuid_make(1, 1), near = uuid_make(1, 9);
	CU_ASSERT_FATAL(b != NULL);
	world_open(&b->world);
	bench_open_disk(b);
	bench_open_client(b);
	b->memory = aligned_alloc(BLOCK_BYTES, DISK_IO_BLOCKS_MAX * BLOCK_BYTES);
	replica_init(&b->far, sim_reactor(b->world.far), &volume, &far, bench_lost);
	replica_init(&b->near, sim_reactor(b->world.far), &volume, &near, bench_lost);
	b->far.client = b->client;
	b->near.disk = b->far_disk;
	begin_session(b, &b->far);
	begin_session(b, &b->near);
	return b;
}

static void bench_close(struct bench *b)
{
	peer_client_close(b->client, bench_closed, b);
	CU_ASSERT_EQUAL(sim_run(b->world.one.sim, bench_is_closed, b, ONE_STEPS_MAX), SIM_DONE);
	b->is_closed = false;
	disk_close(b->far_disk, bench_disk_closed, b);
	CU_ASSERT_EQUAL(sim_run(b->world.one.sim, bench_is_closed, b, ONE_STEPS_MAX), SIM_DONE);
	free(b->memory);
	world_close(&b->world);
	free(b);
}

/* ---- copies ---- */

static void copied(int res, const struct copy_progress *p, void *context)
{
	struct bench *b = context;
	CU_ASSERT_FALSE(b->is_copied);
	b->is_copied = true;
	b->copy = NULL;
	b->res = res;
	b->progress = *p;
}

static bool bench_is_copied(void *context)
{
	return ((struct bench *)context)->is_copied;
}

static void copy_begin(struct bench *b, bool to_far, struct copy_options o)
{
	o.reactor = sim_reactor(b->world.far);
	o.source = to_far ? &b->near : &b->far;
	o.target = to_far ? &b->far : &b->near;
	o.source_tree = o.target_tree = TREE;
	o.n_blocks = o.n_blocks ? o.n_blocks : RANGE;
	o.before = o.before ? o.before : COPY_ALL;
	o.done = copied;
	o.context = b;
	b->is_copied = false;
	CU_ASSERT_EQUAL_FATAL(copy_start(&o, &b->copy), 0);
	CU_ASSERT_FALSE(b->is_copied); /* never at once */
}

static int copy_end(struct bench *b)
{
	CU_ASSERT_EQUAL_FATAL(sim_run(b->world.one.sim, bench_is_copied, b, ONE_STEPS_MAX), SIM_DONE);
	return b->res;
}

static int copy(struct bench *b, bool to_far, struct copy_options o)
{
	copy_begin(b, to_far, o);
	return copy_end(b);
}

static struct replica *source_of(struct bench *b, bool to_far)
{
	return to_far ? &b->near : &b->far;
}

static struct replica *target_of(struct bench *b, bool to_far)
{
	return to_far ? &b->far : &b->near;
}

/* ---- tests ---- */

static void a_new_target(void)
{
	for (int to_far = 0; to_far <= 1; to_far++) {
		struct bench *b = bench_open();
		struct replica *source = source_of(b, to_far);
		write_blocks(b, source, (struct disk_io){.first = 200, .n_blocks = 64, .epoch = 3}, 0xa1);
		write_blocks(b, source, (struct disk_io){.first = 1 << 20, .n_blocks = 1, .epoch = 4}, 0xa2);
		trim_blocks(b, source, 230, 7, 6);
		CU_ASSERT_EQUAL(copy(b, to_far, (struct copy_options){0}), 0);
		expect_equal(b);
		CU_ASSERT_EQUAL(b->progress.copied_bytes, (64 - 7 + 1) * BLOCK_BYTES);
		CU_ASSERT_EQUAL(b->progress.copied_holes, 7); /* nothing is done about what was never written */
		CU_ASSERT_EQUAL(b->progress.walked_blocks, RANGE);
		CU_ASSERT_EQUAL(copy(b, to_far, (struct copy_options){0}), 0); /* the same again */
		CU_ASSERT_EQUAL(b->progress.copied_bytes + b->progress.copied_holes, 0);
		bench_close(b);
	}
}

/* What only the target wrote is taken back, what both wrote alike is not sent, what is older is not looked at. */
static void both_wrote(void)
{
	for (int to_far = 0; to_far <= 1; to_far++) {
		struct bench *b = bench_open();
		struct replica *source = source_of(b, to_far), *target = target_of(b, to_far);
		struct disk_io both = {.first = 0, .n_blocks = 40, .epoch = 2};
		write_blocks(b, source, both, 0xb1);
		write_blocks(b, target, both, 0xb1);
		write_blocks(b, source, (struct disk_io){.first = 3, .n_blocks = 1, .epoch = 11}, 0xb2);
		write_blocks(b, target, (struct disk_io){.first = 3, .n_blocks = 1, .epoch = 11}, 0xb3);
		write_blocks(b, target, (struct disk_io){.first = 10, .n_blocks = 2, .epoch = 12}, 0xb4);
		write_blocks(b, target, (struct disk_io){.first = 500, .n_blocks = 1, .epoch = 12}, 0xb4);
		trim_blocks(b, source, 20, 1, 12);
		trim_blocks(b, target, 30, 1, 12);
		write_blocks(b, source, (struct disk_io){.first = 50, .n_blocks = 1, .epoch = 12}, 0xb5);
		write_blocks(b, target, (struct disk_io){.first = 50, .n_blocks = 1, .epoch = 12}, 0xb5);
		CU_ASSERT_EQUAL(copy(b, to_far, (struct copy_options){.since = 11}), 0);
		expect_equal(b);
		CU_ASSERT_EQUAL(b->progress.copied_bytes, 4 * BLOCK_BYTES); /* 3, 10, 11, 30 */
		CU_ASSERT_EQUAL(b->progress.copied_holes, 2);               /* 20, 500 */
		bench_close(b);
	}
}

/* A client's of r, which has gone to both sides, stays. */
static void newer_stays(void)
{
	struct bench *b = bench_open();
	write_blocks(b, &b->near, (struct disk_io){.first = 0, .n_blocks = 8, .epoch = 3}, 0xc1);
	write_blocks(b, &b->far, (struct disk_io){.first = 2, .n_blocks = 1, .epoch = 9}, 0xc2);
	CU_ASSERT_EQUAL(copy(b, true, (struct copy_options){.since = 2, .before = 9}), 0);
	CU_ASSERT_EQUAL(b->progress.copied_bytes, 7 * BLOCK_BYTES);
	write_blocks(b, &b->near, (struct disk_io){.first = 2, .n_blocks = 1, .epoch = 9}, 0xc2);
	expect_equal(b);
	bench_close(b);
}

/* More lies there than one answer tells of. */
static void more_than_an_answer_holds(void)
{
	struct bench *b = bench_open();
	uint64_t n = 2 * PEER_MAP_EXTENTS + 3;
	for (uint64_t i = 0; i < n; i++)
		write_blocks(b, &b->near, (struct disk_io){.first = i * 300, .n_blocks = 1, .epoch = 3},
			     (uint8_t)(1 + i));
	CU_ASSERT_EQUAL(copy(b, true, (struct copy_options){.since = 2}), 0);
	CU_ASSERT_EQUAL(b->progress.copied_bytes, n * BLOCK_BYTES);
	for (uint64_t i = 0; i < n; i++) {
		struct iovec iov = {b->memory, BLOCK_BYTES};
		struct disk_io read = {.op = DISK_READ, .first = i * 300, .n_blocks = 1, .iov = &iov, .n_iov = 1};
		CU_ASSERT_EQUAL(ask(b, &b->far, TREE, read), 0);
		CU_ASSERT_EQUAL(b->memory[0], (uint8_t)(1 + i));
	}
	bench_close(b);
}

/* What was compared, and is another before it is read, is compared anew: sums and epochs go with their data. */
static void a_source_that_changes(void)
{
	struct bench *b = bench_open();
	write_blocks(b, &b->near, (struct disk_io){.first = 0, .n_blocks = 64, .epoch = 3}, 0xd3);
	write_blocks(b, &b->near, (struct disk_io){.first = 64, .n_blocks = 8, .epoch = 3}, 0xd3);
	copy_begin(b, true, (struct copy_options){.bytes_per_s = 64 * BLOCK_BYTES}); /* the second waits for a second */
	one_let_pass(&b->world.one, NS_PER_S / 2);
	CU_ASSERT_FALSE(b->is_copied);
	write_blocks(b, &b->near, (struct disk_io){.first = 66, .n_blocks = 2, .epoch = 4}, 0xd4);
	CU_ASSERT_EQUAL(copy_end(b), 0);
	expect_equal(b);
	struct iovec iov = {b->memory, 8 * BLOCK_BYTES};
	struct disk_io read = {.op = DISK_READ, .first = 64, .n_blocks = 8, .iov = &iov, .n_iov = 1};
	CU_ASSERT_EQUAL(ask(b, &b->far, TREE, read), 0);
	CU_ASSERT_EQUAL(b->memory[2 * BLOCK_BYTES], 0xd4);
	bench_close(b);
}

static void hold(struct copy *c, unsigned lane, uint64_t first, uint64_t n_blocks, void *context)
{
	struct bench *b = context;
	b->n_holds++;
	b->held[lane] = n_blocks;
	if (b->n_holds % 2)
		copy_held(c, lane); /* at once; the others when somebody lets them */
}

static void release(struct copy *c, unsigned lane, void *context)
{
	struct bench *b = context;
	CU_ASSERT_NOT_EQUAL(b->held[lane], 0);
	b->held[lane] = 0;
	b->n_releases++;
}

/* Nothing of a piece happens before it is held, and each is released. */
static void pieces_are_held(void)
{
	struct bench *b = bench_open();
	for (uint64_t i = 0; i < 6; i++)
		write_blocks(b, &b->near, (struct disk_io){.first = i * 1000, .n_blocks = 10, .epoch = 3}, 0xd1);
	copy_begin(b, true, (struct copy_options){.since = 2, .hold = hold, .release = release});
	one_let_pass(&b->world.one, NS_PER_S);
	CU_ASSERT_FALSE(b->is_copied);
	CU_ASSERT_EQUAL(b->n_holds, 6);
	CU_ASSERT_EQUAL(b->n_releases, 3);
	struct copy_progress p;
	copy_progress(b->copy, &p);
	CU_ASSERT_EQUAL(p.copied_bytes, 30 * BLOCK_BYTES);
	char text[100];
	copy_to_text(b->copy, text, sizeof(text));
	CU_ASSERT_STRING_EQUAL(text, "16777216 of 16777216 blocks walked, 3 in HOLD");
	for (unsigned lane = 0; lane < COPY_LANES && b->copy; lane++)
		if (b->held[lane])
			copy_held(b->copy, lane);
	CU_ASSERT_EQUAL(copy_end(b), 0);
	CU_ASSERT_EQUAL(b->n_releases, 6);
	expect_equal(b);
	bench_close(b);
}

/* An hour at the first rate, two seconds at the second. */
static void the_rate_changes(void)
{
	struct bench *b = bench_open();
	struct reactor *reactor = sim_reactor(b->world.far);
	for (uint64_t i = 0; i < 16; i++)
		write_blocks(b, &b->near, (struct disk_io){.first = i * 64, .n_blocks = 64, .epoch = 3}, 0xe1);
	uint64_t bytes = 16 * 64 * BLOCK_BYTES, began = reactor_now_ns(reactor);
	copy_begin(b, true, (struct copy_options){.bytes_per_s = bytes / 3600});
	one_let_pass(&b->world.one, NS_PER_S);
	CU_ASSERT_FALSE(b->is_copied);
	copy_set_rate(b->copy, bytes / 2);
	CU_ASSERT_EQUAL(copy_end(b), 0);
	uint64_t took = reactor_now_ns(reactor) - began;
	CU_ASSERT(took > 2 * NS_PER_S && took < 4 * NS_PER_S);
	CU_ASSERT_EQUAL(b->progress.copied_bytes, bytes);
	expect_equal(b);
	copy_begin(b, false, (struct copy_options){.bytes_per_s = 1}); /* nothing differs: nothing to wait for */
	CU_ASSERT_EQUAL(copy_end(b), 0);
	bench_close(b);
}

static void abandoned(void)
{
	struct bench *b = bench_open();
	write_blocks(b, &b->near, (struct disk_io){.first = 0, .n_blocks = 64, .epoch = 3}, 0xe2);
	copy_begin(b, true, (struct copy_options){0});
	copy_abandon(b->copy); /* before it has begun */
	CU_ASSERT_EQUAL(copy_end(b), -ECANCELED);
	CU_ASSERT_EQUAL(b->progress.failed, COPY_NEITHER);
	for (uint64_t i = 1; i < 4; i++)
		write_blocks(b, &b->near, (struct disk_io){.first = i * 64, .n_blocks = 64, .epoch = 3}, 0xe2);
	copy_begin(b, true, (struct copy_options){.bytes_per_s = 1, .hold = hold, .release = release});
	one_let_pass(&b->world.one, NS_PER_S);
	CU_ASSERT_FALSE(b->is_copied);
	copy_abandon(b->copy); /* some wait for their turn, some to be held */
	for (unsigned lane = 0; lane < COPY_LANES && b->copy; lane++)
		if (b->held[lane])
			copy_held(b->copy, lane);
	CU_ASSERT_EQUAL(copy_end(b), -ECANCELED);
	CU_ASSERT_EQUAL(b->n_holds, b->n_releases);
	bench_close(b);
}

static void damage(struct bench *b, uint64_t block)
{
	struct pointer pointer;
	struct waiter unused = {0};
	struct disk_tree *t = disk_tree_find(b->far_disk, &b->near.volume, TREE);
	CU_ASSERT_EQUAL_FATAL(tree_get(t, block, 1, &pointer, &unused), 0);
	sim_file_flip(b->far_medium, pointer_block(pointer), 77);
}

static void a_damaged_source(void)
{
	struct bench *b = bench_open();
	write_blocks(b, &b->near, (struct disk_io){.first = 70, .n_blocks = 4, .epoch = 3}, 0xf1);
	damage(b, 70 + DAMAGED);
	for (uint64_t i = 0; i < 4; i++)
		write_blocks(b, &b->near, (struct disk_io){.first = 1000 * (i + 1), .n_blocks = 4, .epoch = 3}, 0xf1);
	uint64_t began = sim_now_ns(b->world.one.sim);
	CU_ASSERT_EQUAL(copy(b, true, (struct copy_options){.bytes_per_s = 1}), -EIO);
	CU_ASSERT(sim_now_ns(b->world.one.sim) - began <
		  NS_PER_S); /* those that wait for their turn do not hold it up */
	CU_ASSERT_EQUAL(b->progress.failed, COPY_SOURCE);
	CU_ASSERT_EQUAL(b->progress.failed_first, 70 + DAMAGED);
	CU_ASSERT_EQUAL(b->progress.failed_blocks, 1);
	bench_close(b);
}

/* What cannot be read is stepped over, block by block, when it is asked for: the rest arrives. */
static void damage_is_stepped_over(void)
{
	static const uint64_t bad[] = {70, 72, 73, 200, 201, 363}; /* first, in the middle, a whole piece, last */
	struct bench *b = bench_open();
	write_blocks(b, &b->near, (struct disk_io){.first = 70, .n_blocks = 10, .epoch = 3}, 0xf4);
	write_blocks(b, &b->near, (struct disk_io){.first = 200, .n_blocks = 2, .epoch = 3}, 0xf5);
	write_blocks(b, &b->near, (struct disk_io){.first = 300, .n_blocks = 64, .epoch = 3}, 0xf6);
	write_blocks(b, &b->far, (struct disk_io){.first = 70, .n_blocks = 10, .epoch = 2}, 0x11); /* kept where bad */
	for (uint32_t i = 0; i < array_size(bad); i++)
		damage(b, bad[i]);
	CU_ASSERT_EQUAL(copy(b, true, (struct copy_options){.skips_unread = true}), 0);
	CU_ASSERT_EQUAL(b->progress.skipped_blocks, array_size(bad));
	CU_ASSERT_EQUAL(b->progress.skipped_first, bad[0]);
	CU_ASSERT_EQUAL(b->progress.copied_bytes, (76 - array_size(bad)) * BLOCK_BYTES);
	static struct disk_stamp far[STAMPS_MAX];
	uint32_t n = stamps_take(b, &b->far, far), n_new = 0, n_kept = 0;
	for (uint32_t i = 0; i < n; i++) {
		n_new += far[i].is_data && far[i].epoch == 3;
		n_kept += far[i].is_data && far[i].epoch == 2;
	}
	CU_ASSERT_EQUAL(n_new, 76 - array_size(bad));
	CU_ASSERT_EQUAL(n_kept, 3);
	bench_close(b);
}

/* The other node is gone in the middle: its side is named, and what was asked ends. */
static void a_node_that_goes(void)
{
	for (int to_far = 0; to_far <= 1; to_far++) {
		struct bench *b = bench_open();
		for (uint64_t i = 0; i < 30; i++)
			write_blocks(b, source_of(b, to_far),
				     (struct disk_io){.first = i * 64, .n_blocks = 64, .epoch = 3}, 0xf2);
		copy_begin(b, to_far, (struct copy_options){.bytes_per_s = 4 * MIB});
		one_let_pass(&b->world.one, NS_PER_S / 2);
		CU_ASSERT_FALSE(b->is_copied);
		sim_net_cut(b->world.one.machine, b->world.far);
		CU_ASSERT_EQUAL(copy_end(b), -ENOTCONN);
		CU_ASSERT_EQUAL(b->progress.failed, to_far ? COPY_TARGET : COPY_SOURCE);
		CU_ASSERT(b->progress.copied_bytes > 0);
		bench_close(b);
	}
}

static void a_full_target(void)
{
	struct bench *b = bench_open();
	uint64_t n = SMALL_DISK / BLOCK_BYTES / 64 * 3 / 4;
	for (uint64_t i = 0; i < n; i++) {
		write_blocks(b, &b->near, (struct disk_io){.first = i * 64, .n_blocks = 64, .epoch = 3}, 0xf3);
		if (i > n / 2) /* elsewhere */
			write_blocks(b, &b->far, (struct disk_io){.first = RANGE + i * 64, .n_blocks = 64, .epoch = 3},
				     1);
	}
	CU_ASSERT_EQUAL(copy(b, true, (struct copy_options){0}), -ENOSPC);
	CU_ASSERT_EQUAL(b->progress.failed, COPY_TARGET);
	CU_ASSERT_EQUAL(b->far.state, REPLICA_OPEN); /* it is no loss */
	bench_close(b);
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("copies between disks", NULL, NULL);
	CU_add_test(suite, "a new target", a_new_target);
	CU_add_test(suite, "both sides wrote", both_wrote);
	CU_add_test(suite, "what is newer stays", newer_stays);
	CU_add_test(suite, "more than an answer holds", more_than_an_answer_holds);
	CU_add_test(suite, "a source that changes", a_source_that_changes);
	CU_add_test(suite, "pieces are held", pieces_are_held);
	CU_add_test(suite, "the rate changes", the_rate_changes);
	CU_add_test(suite, "abandoned", abandoned);
	CU_add_test(suite, "a damaged source", a_damaged_source);
	CU_add_test(suite, "damage is stepped over", damage_is_stepped_over);
	CU_add_test(suite, "a node that goes", a_node_that_goes);
	CU_add_test(suite, "a full target", a_full_target);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
