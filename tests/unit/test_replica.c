/*
 * test_replica.c: a volume's replica on a disk of this node and on one of another: both answer alike, and a session
 * that is lost is told once, with nothing hanging and nothing counted that came too late.
 */
#include "tests/unit/peer_world.h"

#include "replication/replica.h"

#define TIMEOUT_NS (700 * NS_PER_MS)
#define IOS        300u

struct ask {
	struct replica_io rio;
	struct bench *bench;
	bool is_under_way;
	int res;
	uint8_t *memory; /* PEER_DATA_MAX */
	struct iovec iov[DISK_IO_IOV_MAX];
	uint32_t crcs[PEER_WRITE_BLOCKS];
};

struct bench {
	struct world world;
	struct peer_client *client;
	struct replica replica, local; /* `local` is another head's, on the disk's own node */
	struct ask asks[IOS];
	uint32_t n_lost, n_under_way, n_up, n_down;
	int lost_res;
	bool is_closed;
};

static void bench_lost(struct replica *r, int res)
{
	struct bench *b = container_of(r, struct bench, replica);
	b->n_lost++;
	b->lost_res = res;
}

static void local_lost(struct replica *r, int res) {}

static void bench_changed(struct peer_client *c, bool is_up, void *context)
{
	struct bench *b = context;
	b->n_up += is_up;
	b->n_down += !is_up;
}

static bool bench_is_up(void *context)
{
	struct bench *b = context;
	return peer_client_is_up(b->client);
}

static void bench_wait_up(struct bench *b)
{
	CU_ASSERT_EQUAL_FATAL(sim_run(b->world.one.sim, bench_is_up, b, ONE_STEPS_MAX), SIM_DONE);
}

static void bench_begin_client(struct bench *b)
{
	struct peer_client_options o = {.reactor = sim_reactor(b->world.far),
					.log = b->world.one.log,
					.cluster = uuid_make(1, 3),
					.node_name = "n2",
					.address = "n1:9751",
					.timeout_ns = TIMEOUT_NS,
					.changed = bench_changed,
					.context = b};
	CU_ASSERT_EQUAL_FATAL(peer_client_create(&o, &b->client), 0);
}

static struct bench *bench_open(bool is_remote)
{
	struct bench *b = calloc(1, sizeof(*b));
	const struct uuid volume = uuid_make(2, 7), disk = uuid_make(1, 1);
	CU_ASSERT_FATAL(b != NULL);
	world_open(&b->world);
	struct reactor *near = sim_reactor(b->world.one.machine), *far = sim_reactor(b->world.far);
	replica_init(&b->replica, is_remote ? far : near, &volume, &disk, bench_lost);
	replica_init(&b->local, near, &volume, &disk, local_lost);
	b->local.disk = b->world.one.disk;
	if (is_remote) {
		bench_begin_client(b);
		bench_wait_up(b);
		CU_ASSERT_STRING_EQUAL(peer_client_node(b->client), "n1");
		b->replica.client = b->client;
	} else {
		b->replica.disk = b->world.one.disk;
	}
	for (uint32_t i = 0; i < IOS; i++) {
		b->asks[i].bench = b;
		b->asks[i].memory = aligned_alloc(BLOCK_BYTES, PEER_DATA_MAX);
	}
	return b;
}

static void bench_closed(void *context)
{
	((struct bench *)context)->is_closed = true;
}

static bool bench_is_closed(void *context)
{
	return ((struct bench *)context)->is_closed;
}

static void bench_close_client(struct bench *b)
{
	if (!b->client)
		return;
	peer_client_close(b->client, bench_closed, b);
	CU_ASSERT_EQUAL(sim_run(b->world.one.sim, bench_is_closed, b, ONE_STEPS_MAX), SIM_DONE);
	b->client = NULL;
}

static void bench_close(struct bench *b)
{
	CU_ASSERT_EQUAL(b->n_under_way, 0);
	bench_close_client(b);
	for (uint32_t i = 0; i < IOS; i++)
		free(b->asks[i].memory);
	world_close(&b->world);
	free(b);
}

/* ---- asking ---- */

static void ask_done(struct replica_io *rio, int res)
{
	struct ask *a = container_of(rio, struct ask, rio);
	CU_ASSERT_TRUE(a->is_under_way);
	a->is_under_way = false;
	a->res = res;
	a->bench->n_under_way--;
}

static struct ask *ask_begin(struct bench *b, struct replica *r, struct replica_io rio)
{
	struct ask *a = b->asks;
	while (a->is_under_way)
		CU_ASSERT_FATAL(++a < b->asks + IOS);
	/* The memory in pieces that have nothing to do with blocks: of disk.h's alignment, and as many as it takes. */
	if (rio.io.op == DISK_WRITE || rio.io.op == DISK_READ) {
		uint64_t len = rio.io.n_blocks * BLOCK_BYTES, pos = 0;
		for (rio.io.n_iov = 0; pos < len; rio.io.n_iov++) {
			uint64_t piece = min_u64(len - pos, 512 * (1 + (rio.io.n_iov * 5) % 16));
			if (rio.io.n_iov == DISK_IO_IOV_MAX - 1)
				piece = len - pos;
			a->iov[rio.io.n_iov] = (struct iovec){a->memory + pos, piece};
			pos += piece;
		}
		rio.io.iov = a->iov;
	}
	rio.io.crcs = a->crcs;
	a->rio = rio;
	a->rio.done = ask_done;
	a->is_under_way = true;
	b->n_under_way++;
	replica_submit(r, &a->rio);
	CU_ASSERT_TRUE(a->is_under_way); /* never inline */
	return a;
}

static bool ask_is_done(void *context)
{
	return !((struct ask *)context)->is_under_way;
}

static bool bench_is_quiet(void *context)
{
	return ((struct bench *)context)->n_under_way == 0;
}

static void bench_wait(struct bench *b)
{
	CU_ASSERT_EQUAL_FATAL(sim_run(b->world.one.sim, bench_is_quiet, b, ONE_STEPS_MAX), SIM_DONE);
}

static int ask_end(struct bench *b, struct ask *a)
{
	CU_ASSERT_EQUAL_FATAL(sim_run(b->world.one.sim, ask_is_done, a, ONE_STEPS_MAX), SIM_DONE);
	return a->res;
}

static int ask(struct bench *b, enum disk_op op, uint64_t tree, struct disk_io io)
{
	io.op = op;
	return ask_end(b, ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = tree}));
}

static int fence(struct bench *b, uint64_t generation)
{
	return ask(b, DISK_FENCE, 0, (struct disk_io){.generation = generation, .size_blocks = 1 << 18});
}

static struct ask *write_begin(struct bench *b, uint64_t first, uint32_t n, uint64_t zeros, uint8_t stamp)
{
	struct ask *a = b->asks;
	while (a->is_under_way)
		a++;
	for (uint32_t i = 0; i < n; i++) {
		memset(a->memory + (size_t)i * BLOCK_BYTES, i < 64 && zeros >> i & 1 ? 0 : stamp, BLOCK_BYTES);
		a->crcs[i] = crc32c(0, a->memory + (size_t)i * BLOCK_BYTES, BLOCK_BYTES);
	}
	struct disk_io io = {.op = DISK_WRITE, .first = first, .n_blocks = n, .epoch = 2, .zero_blocks = zeros};
	return ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 3});
}

/* How many of the blocks are not of this stamp, every byte of them. */
static int read_differs(struct bench *b, uint64_t tree, uint64_t first, uint32_t n, uint8_t stamp)
{
	struct disk_io io = {.op = DISK_READ, .first = first, .n_blocks = n};
	int differs = 0;
	memset(b->asks[0].memory, 0xee, PEER_DATA_MAX);
	struct ask *a = ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = tree});
	CU_ASSERT_EQUAL(ask_end(b, a), 0);
	for (uint32_t i = 0; i < n * BLOCK_BYTES; i++)
		differs += a->memory[i] != stamp;
	return differs;
}

static void begin_session(struct bench *b)
{
	CU_ASSERT_EQUAL_FATAL(fence(b, 5), 0);
	CU_ASSERT_EQUAL_FATAL(ask(b, DISK_CREATE, 0, (struct disk_io){.tree_id = 3, .epoch = 1}), 0);
}

/* ---- tests ---- */

static void both_alike(void)
{
	for (int is_remote = 0; is_remote <= 1; is_remote++) {
		struct bench *b = bench_open(is_remote);
		CU_ASSERT_EQUAL(ask(b, DISK_FLUSH, 0, (struct disk_io){0}), -ENOTCONN); /* no session yet */
		begin_session(b);
		CU_ASSERT_EQUAL(b->replica.complete_epoch, 0);
		CU_ASSERT_EQUAL(ask_end(b, write_begin(b, 10, PEER_WRITE_BLOCKS, 1ull << 63 | 6, 0x5a)), 0);
		CU_ASSERT_EQUAL(read_differs(b, 3, 10, 1, 0x5a), 0);
		CU_ASSERT_EQUAL(read_differs(b, 3, 11, 2, 0), 0);
		CU_ASSERT_EQUAL(read_differs(b, 3, 13, 60, 0x5a), 0);
		CU_ASSERT_EQUAL(read_differs(b, 3, 73, 1, 0), 0);
		CU_ASSERT_EQUAL(read_differs(b, 3, 74, 1, 0x5a), 0);
		CU_ASSERT_EQUAL(read_differs(b, 3, 75, 64, 0), 0);
		CU_ASSERT_EQUAL(ask_end(b, write_begin(b, 75, 4, 15, 0)), 0); /* nothing but zeros */
		CU_ASSERT_EQUAL(read_differs(b, 3, 13, 60, 0x5a), 0);

		struct disk_io io = {.tree_id = 4, .epoch = 2};
		CU_ASSERT_EQUAL(ask(b, DISK_FORK, 3, io), 0);
		CU_ASSERT_EQUAL(ask(b, DISK_TRIM, 3, (struct disk_io){.first = 20, .n_blocks = 5, .epoch = 3}), 0);
		CU_ASSERT_EQUAL(read_differs(b, 3, 20, 5, 0), 0);
		CU_ASSERT_EQUAL(read_differs(b, 4, 20, 5, 0x5a), 0);

		struct disk_extent extents[3];
		io = (struct disk_io){
		    .op = DISK_MAP, .n_blocks = 1 << 18, .since = 3, .extents = extents, .extents_max = 3};
		struct ask *a = ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 3});
		CU_ASSERT_EQUAL(ask_end(b, a), 0);
		CU_ASSERT_EQUAL(a->rio.io.n_extents, 1);
		CU_ASSERT_EQUAL(extents[0].first, 20);
		CU_ASSERT_EQUAL(extents[0].n_blocks, 5);
		CU_ASSERT_FALSE(extents[0].is_data);
		io.since = 0; /* more than there is room for */
		a = ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 3});
		CU_ASSERT_EQUAL(ask_end(b, a), 0);
		CU_ASSERT_EQUAL(a->rio.io.n_extents, 3);
		CU_ASSERT_EQUAL(extents[1].first, 10);
		CU_ASSERT_TRUE(extents[1].is_data);

		CU_ASSERT_EQUAL(ask(b, DISK_COMPLETE, 0, (struct disk_io){.epoch = 3}), 0);
		CU_ASSERT_EQUAL(ask(b, DISK_DROP, 4, (struct disk_io){0}), 0);
		CU_ASSERT_EQUAL(ask(b, DISK_READ, 4, (struct disk_io){.n_blocks = 1}), -ENOENT);
		CU_ASSERT_EQUAL(b->n_lost, 0);
		replica_lose(&b->replica, -ENODEV);
		replica_lose(&b->replica, -ENODEV);
		CU_ASSERT_EQUAL(b->n_lost, 1);
		CU_ASSERT_EQUAL(ask(b, DISK_FLUSH, 0, (struct disk_io){0}), -ENOTCONN);
		CU_ASSERT_EQUAL(fence(b, 6), 0);
		CU_ASSERT_EQUAL(b->replica.complete_epoch, 3);
		CU_ASSERT_EQUAL(b->replica.session, 2);
		bench_close(b);
	}
}

/* What a copy asks, which test_copy.c asks by the copy. */
static void copies_alike(void)
{
	for (int is_remote = 0; is_remote <= 1; is_remote++) {
		struct bench *b = bench_open(is_remote);
		struct disk_stamp stamps[4] = {0};
		const uint64_t epochs[3] = {7, 8, 9};
		begin_session(b);
		CU_ASSERT_EQUAL(ask_end(b, write_begin(b, 100, 4, 0, 0x61)), 0);
		CU_ASSERT_EQUAL(ask(b, DISK_FORK, 3, (struct disk_io){.tree_id = 8, .epoch = 20}), 0);

		struct ask *a = write_begin(b, 0, 3, 0, 0x62); /* for its memory */
		CU_ASSERT_EQUAL(ask_end(b, a), -EINVAL);       /* an epoch from before the fork is none for a write */
		struct disk_io io = {.op = DISK_COPY, .first = 101, .n_blocks = 3, .epochs = epochs, .zero_blocks = 2};
		a->iov[0] = (struct iovec){a->memory, 3 * BLOCK_BYTES};
		io.iov = a->iov;
		io.n_iov = 1;
		io.before = 2; /* what is there is of 2 */
		CU_ASSERT_EQUAL(ask_end(b, ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 8})),
				-EEXIST);
		io.before = 3;
		CU_ASSERT_EQUAL(ask_end(b, ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 8})), 0);
		CU_ASSERT_EQUAL(
		    ask(b, DISK_COPY_HOLES, 8, (struct disk_io){.n_blocks = 1 << 16, .epoch = 5, .before = 3}), 0);
		io = (struct disk_io){.first = 50, .n_blocks = 60, .stamps = stamps, .stamps_max = 4};
		CU_ASSERT_EQUAL(ask(b, DISK_STAMPS, 8, io), 0);
		CU_ASSERT_EQUAL(b->asks[0].rio.io.n_stamps, 4);
		CU_ASSERT(!stamps[0].is_data && stamps[0].first == 50 && stamps[0].n_blocks == 51);
		CU_ASSERT(stamps[0].epoch == 5);
		CU_ASSERT(stamps[1].is_data && stamps[1].first == 101 && stamps[1].epoch == 7);
		CU_ASSERT(!stamps[2].is_data && stamps[2].n_blocks == 1 && stamps[2].epoch == 8);
		CU_ASSERT(stamps[3].is_data && stamps[3].first == 103 && stamps[3].epoch == 9);

		CU_ASSERT_EQUAL(ask(b, DISK_SWAP, 3, (struct disk_io){.tree_id = 77}), -ENOENT);
		CU_ASSERT_EQUAL(ask(b, DISK_SWAP, 3, (struct disk_io){.tree_id = 8}), 0);
		CU_ASSERT_EQUAL(read_differs(b, 3, 103, 1, 0x62), 0);
		CU_ASSERT_EQUAL(read_differs(b, 8, 103, 1, 0x61), 0);
		CU_ASSERT_EQUAL(ask(b, DISK_CUT, 0, (struct disk_io){.first = 103, .n_blocks = 1}), 0);
		CU_ASSERT_EQUAL(read_differs(b, 3, 103, 1, 0), 0);
		CU_ASSERT_EQUAL(read_differs(b, 8, 103, 1, 0), 0);
		CU_ASSERT_EQUAL(read_differs(b, 8, 102, 1, 0x61), 0);
		CU_ASSERT_EQUAL(b->n_lost, 0);
		bench_close(b);
	}
}

/* A damaged block is an error of the read, and no end of the session. */
static void a_block_that_cannot_be_read(void)
{
	for (int is_remote = 0; is_remote <= 1; is_remote++) {
		struct bench *b = bench_open(is_remote);
		struct pointer pointer;
		struct waiter unused = {0};
		begin_session(b);
		CU_ASSERT_EQUAL(ask_end(b, write_begin(b, 0, 4, 0, 7)), 0);
		struct disk_tree *t = disk_tree_find(b->world.one.disk, &b->replica.volume, 3);
		CU_ASSERT_EQUAL_FATAL(tree_get(t, 2, 1, &pointer, &unused), 0);
		sim_file_flip(b->world.one.medium, pointer_block(pointer), 77);
		struct disk_io io = {.op = DISK_READ, .n_blocks = 4};
		struct ask *a = ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 3});
		CU_ASSERT_EQUAL(ask_end(b, a), -EIO);
		CU_ASSERT_EQUAL(a->rio.io.bad_blocks, 1u << 2);
		CU_ASSERT_EQUAL(a->memory[3 * BLOCK_BYTES], 7);
		CU_ASSERT_EQUAL(b->n_lost, 0);
		bench_close(b);
	}
}

/* None of what was asked for can be read: a single block, all that a request may have, a page of the map. */
static void nothing_that_can_be_read(void)
{
	for (int is_remote = 0; is_remote <= 1; is_remote++) {
		struct bench *b = bench_open(is_remote);
		begin_session(b);
		CU_ASSERT_EQUAL(ask_end(b, write_begin(b, 0, 64, 0, 7)), 0);
		for (uint32_t n = 1; n <= 64; n += 63) {
			struct disk_io io = {.op = DISK_READ, .n_blocks = n};
			sim_file_faults(b->world.one.medium)->read_error_ppm = 1000000;
			struct ask *a = ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 3});
			CU_ASSERT_EQUAL(ask_end(b, a), -EIO);
			CU_ASSERT_EQUAL(a->rio.io.bad_blocks, n == 64 ? UINT64_MAX : 1);
			sim_file_faults(b->world.one.medium)->read_error_ppm = 0;
		}
		CU_ASSERT_EQUAL(read_differs(b, 3, 0, 1, 7), 0);
		CU_ASSERT_EQUAL(b->n_lost, 0);
		bench_close(b);
	}
}

/* A head of a higher generation, on the disk's own node. */
static void fenced(void)
{
	for (int is_remote = 0; is_remote <= 1; is_remote++) {
		struct bench *b = bench_open(is_remote);
		begin_session(b);
		struct disk_io io = {.op = DISK_FENCE, .generation = 6, .size_blocks = 1 << 18};
		CU_ASSERT_EQUAL(ask_end(b, ask_begin(b, &b->local, (struct replica_io){.io = io})), 0);
		io = (struct disk_io){.op = DISK_READ, .n_blocks = 1};
		struct ask *first = ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 3});
		struct ask *second = write_begin(b, 0, 1, 0, 7);
		bench_wait(b);
		CU_ASSERT_EQUAL(first->res, -ESTALE);
		CU_ASSERT(second->res == -ENOTCONN);
		CU_ASSERT_EQUAL(b->n_lost, 1);
		CU_ASSERT_EQUAL(b->lost_res, -ESTALE);
		CU_ASSERT_EQUAL(fence(b, 5), -ESTALE);
		CU_ASSERT_EQUAL(b->n_lost, 2);
		CU_ASSERT_EQUAL(fence(b, 7), 0);
		CU_ASSERT_EQUAL(b->n_lost, 2);
		bench_close(b);
	}
}

/* The disk fails under its writes: each replica is lost, once. */
static void a_disk_that_fails(void)
{
	for (int is_remote = 0; is_remote <= 1; is_remote++) {
		struct bench *b = bench_open(is_remote);
		begin_session(b);
		sim_file_fail(b->world.one.medium, OP_WRITE, 0, EIO);
		for (uint32_t i = 0; i < 20; i++)
			write_begin(b, i, 1, 0, 7);
		bench_wait(b);
		CU_ASSERT_EQUAL(b->n_lost, 1);
		CU_ASSERT_EQUAL(b->lost_res, -EIO);
		bench_close(b);
	}
}

/* Many more calls than a connection may owe answers. */
static void more_than_may_be_under_way(void)
{
	struct bench *b = bench_open(true);
	begin_session(b);
	struct sim_file_faults *faults = sim_file_faults(b->world.one.medium);
	faults->slow_ppm = 1000000;
	faults->slow_ns = 100 * NS_PER_MS;
	for (uint32_t i = 0; i < IOS; i++)
		write_begin(b, i, 1, 0, (uint8_t)(1 + i % 200));
	bench_wait(b);
	for (uint32_t i = 0; i < IOS; i++)
		CU_ASSERT_EQUAL(b->asks[i].res, 0);
	for (uint32_t i = 0; i < IOS; i++)
		CU_ASSERT_EQUAL(read_differs(b, 3, i, 1, (uint8_t)(1 + i % 200)), 0);
	CU_ASSERT_EQUAL(b->n_up, 1);
	CU_ASSERT_EQUAL(b->n_down, 0);
	bench_close(b);
}

/* What was asked in a session that is lost does not count, however well it went; nor does an attempt that was given
 * up. */
static void answers_of_the_past(void)
{
	for (int is_remote = 0; is_remote <= 1; is_remote++) {
		struct bench *b = bench_open(is_remote);
		struct disk_io io = {.op = DISK_FENCE, .generation = 5, .size_blocks = 1 << 18};
		struct ask *first = ask_begin(b, &b->replica, (struct replica_io){.io = io});
		replica_lose(&b->replica, -ENODEV);
		struct ask *second = ask_begin(b, &b->replica, (struct replica_io){.io = io});
		bench_wait(b);
		CU_ASSERT_EQUAL(first->res, -ENOTCONN);
		CU_ASSERT_EQUAL(second->res, 0);
		CU_ASSERT_EQUAL(b->replica.session, second->rio.io.new_session);
		io = (struct disk_io){.tree_id = 3, .epoch = 1};
		CU_ASSERT_EQUAL(ask(b, DISK_CREATE, 0, io), 0);
		struct ask *a = write_begin(b, 0, 4, 0, 7);
		replica_lose(&b->replica, -ENODEV);
		CU_ASSERT_EQUAL(ask_end(b, a), -ENOTCONN);
		CU_ASSERT_EQUAL(b->n_lost, 2);
		CU_ASSERT_EQUAL(fence(b, 5), 0);
		CU_ASSERT_EQUAL(read_differs(b, 3, 0, 4, 7), 0); /* it did go well */
		bench_close(b);
	}
}

/* The network is cut: all end in time, the loss is told once; once it is whole, a session begins anew. */
static void a_partition(void)
{
	struct bench *b = bench_open(true);
	begin_session(b);
	CU_ASSERT_EQUAL(ask_end(b, write_begin(b, 100, 1, 0, 9)), 0);
	sim_net_partition(b->world.far, b->world.one.machine, true);
	for (uint32_t i = 0; i < 20; i++)
		write_begin(b, i, 1, 0, 7);
	uint64_t begun_ns = sim_now_ns(b->world.one.sim);
	bench_wait(b);
	CU_ASSERT(sim_now_ns(b->world.one.sim) - begun_ns < TIMEOUT_NS + TIMEOUT_NS / 4);
	for (uint32_t i = 0; i < 20; i++)
		CU_ASSERT(b->asks[i].res == -ETIMEDOUT || b->asks[i].res == -ENOTCONN);
	CU_ASSERT_EQUAL(b->n_lost, 1);
	one_let_pass(&b->world.one, 20 * NS_PER_S);
	CU_ASSERT_FALSE(peer_client_is_up(b->client));
	CU_ASSERT_EQUAL(fence(b, 5), -ENOTCONN);
	sim_net_partition(b->world.far, b->world.one.machine, false);
	bench_wait_up(b);
	CU_ASSERT_EQUAL(one_events(&b->world.one, "node-unreachable"), 1);
	CU_ASSERT_EQUAL(fence(b, 5), 0);
	CU_ASSERT_EQUAL(b->n_lost, 2);
	CU_ASSERT_EQUAL(read_differs(b, 3, 100, 1, 9), 0);
	bench_close(b);
}

/* The same when the node owes all the answers that it may, so that there is no room to ask whether it lives. */
static void a_partition_of_a_busy_node(void)
{
	struct bench *b = bench_open(true);
	begin_session(b);
	sim_net_partition(b->world.far, b->world.one.machine, true);
	for (uint32_t i = 0; i < PEER_REQUESTS_MAX + 10; i++) {
		struct disk_io io = {.op = DISK_READ, .first = i, .n_blocks = 1};
		ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 3});
	}
	bench_wait(b);
	CU_ASSERT_EQUAL(b->n_lost, 1);
	one_let_pass(&b->world.one, 2 * TIMEOUT_NS);
	CU_ASSERT_FALSE(peer_client_is_up(b->client));
	CU_ASSERT_EQUAL(b->n_down, 1);
	sim_net_partition(b->world.far, b->world.one.machine, false);
	bench_wait_up(b);
	CU_ASSERT_EQUAL(fence(b, 5), 0);
	bench_close(b);
}

/* ---- a node that lies ---- */

struct liar {
	struct listener *listener;
	struct stream *stream;
	struct peer_connection *wire;
	struct peer_extent extent; /* what it says is there */
	uint64_t session;
	bool has_ended;
	struct peer_out outs[64];
	uint8_t memory[64][PEER_HEADER_BYTES + PEER_BODY_MAX];
	uint32_t n_outs;
};

static void liar_sent(struct peer_out *out, int res) {}

static void liar_arrived(struct peer_connection *wire, const struct peer_in *in)
{
	struct liar *l = peer_connection_context(wire);
	struct peer_header h = in->header;
	static struct peer_message m;
	CU_ASSERT_FATAL(l->n_outs < array_size(l->outs));
	memset(&m, 0, sizeof(m));
	h.flags = PEER_REPLY;
	h.body_bytes = h.data_bytes = 0;
	if (h.type == PEER_GREETING)
		m.node = in->message.node;
	if (h.type == PEER_HELLO)
		h.session = ++l->session;
	if (h.type == PEER_MAP) {
		m.n_entries = m.is_last = 1;
		m.extents[0] = l->extent;
	}
	struct peer_out *out = &l->outs[l->n_outs];
	out->sent = liar_sent;
	peer_out_encode(out, &h, &m, l->memory[l->n_outs++]);
	peer_connection_send(wire, out);
}

static void liar_ended(struct peer_connection *wire, int res, const char *why)
{
	((struct liar *)peer_connection_context(wire))->has_ended = true;
}

static void liar_accepted(struct op *op, int res)
{
	CU_ASSERT_EQUAL_FATAL(res, 0);
}

static bool liar_is_called(void *context)
{
	return ((struct liar *)context)->stream != NULL;
}

static bool liar_has_ended(void *context)
{
	return ((struct liar *)context)->has_ended;
}

/* Takes the place of the bench's node, and what was there is called by the bench's client. */
static void liar_begin(struct liar *l, struct bench *b)
{
	static const struct peer_connection_calls calls = {.arrived = liar_arrived, .ended = liar_ended};
	struct reactor *near = sim_reactor(b->world.one.machine), *far = sim_reactor(b->world.far);
	struct peer_connection_options o = {.reactor = near, .calls = &calls, .context = l};
	struct uuid volume = b->replica.volume, disk = b->replica.disk_uuid;
	struct op op;
	world_stop_server(&b->world);
	CU_ASSERT_EQUAL_FATAL(reactor_listen(near, "n1:9751", &l->listener), 0);
	op_init(&op, liar_accepted);
	listener_accept(l->listener, &op, &l->stream);
	bench_begin_client(b);
	CU_ASSERT_EQUAL_FATAL(sim_run(b->world.one.sim, liar_is_called, l, ONE_STEPS_MAX), SIM_DONE);
	one_let_pass(&b->world.one, NS_PER_MS);
	o.stream = l->stream;
	CU_ASSERT_EQUAL_FATAL(peer_connection_create(&o, &l->wire), 0);
	replica_init(&b->replica, far, &volume, &disk, bench_lost);
	b->replica.client = b->client;
	bench_wait_up(b);
}

/* What it says of other blocks than it was asked for is not believed. */
static void a_map_of_other_blocks(void)
{
	static const struct {
		struct peer_extent extent;
		int res;
	} answers[] = {{{.first = 100, .n_blocks = 50, .epoch = 9, .is_data = 1}, 0},
		       {{.first = 99, .n_blocks = 1, .epoch = 9}, -EIO},
		       {{.first = 149, .n_blocks = 2, .epoch = 9}, -EIO},
		       {{.first = 150, .n_blocks = 1, .epoch = 9}, -EIO},
		       {{.first = 1 << 20, .n_blocks = 1, .epoch = 9}, -EIO}};
	struct bench *b = bench_open(false);
	struct liar *l = calloc(1, sizeof(*l));
	struct disk_extent extents[8];
	liar_begin(l, b);
	CU_ASSERT_EQUAL_FATAL(fence(b, 5), 0);
	for (size_t i = 0; i < array_size(answers); i++) {
		struct disk_io io = {.op = DISK_MAP, .first = 100, .n_blocks = 50, .since = 3};
		io.extents = extents;
		io.extents_max = array_size(extents);
		l->extent = answers[i].extent;
		struct ask *a = ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 3});
		CU_ASSERT_EQUAL(ask_end(b, a), answers[i].res);
	}
	CU_ASSERT_EQUAL(b->n_lost, 0); /* it was only looked at */
	bench_close_client(b);
	CU_ASSERT_EQUAL_FATAL(sim_run(b->world.one.sim, liar_has_ended, l, ONE_STEPS_MAX), SIM_DONE);
	peer_connection_destroy(l->wire);
	listener_close(l->listener);
	bench_close(b);
	free(l);
}

/* Writes to a disk that takes longer for each than a call may; waits for their ends. */
static void slow_writes(struct bench *b, uint32_t n)
{
	struct sim_file_faults *faults = sim_file_faults(b->world.one.medium);
	faults->slow_ppm = 1000000;
	faults->slow_ns = 3 * NS_PER_S;
	for (uint32_t i = 0; i < n; i++)
		write_begin(b, i, 1, 0, 7);
	bench_wait(b);
}

/* One slow disk: its calls are given up, the connection to its node stays; answers that come late are nobody's. */
static void a_slow_disk(void)
{
	struct bench *b = bench_open(true);
	begin_session(b);
	slow_writes(b, 20);
	CU_ASSERT_EQUAL(b->n_lost, 1);
	CU_ASSERT_EQUAL(b->lost_res, -ETIMEDOUT);
	CU_ASSERT_TRUE(peer_client_is_up(b->client));
	sim_file_faults(b->world.one.medium)->slow_ppm = 0;
	one_let_pass(&b->world.one, 10 * NS_PER_S);
	CU_ASSERT_TRUE(peer_client_is_up(b->client));
	CU_ASSERT_EQUAL(b->n_down, 0);
	CU_ASSERT_EQUAL(fence(b, 5), 0);
	CU_ASSERT_EQUAL(ask_end(b, write_begin(b, 0, 20, 0, 8)), 0);
	CU_ASSERT_EQUAL(read_differs(b, 3, 0, 20, 8), 0);
	CU_ASSERT_EQUAL(b->n_lost, 1);
	bench_close(b);
}

struct slow_order {
	struct peer_call call;
	struct iovec data;
	uint8_t *text;
	bool is_done;
	int res;
	uint64_t done_ns;
	struct bench *bench;
};

static void slow_order_fill(struct peer_call *call, struct peer_message *m)
{
	const struct slow_order *o = container_of(call, struct slow_order, call);
	m->n_blocks = 1;
	m->text_bytes = 9;
	m->crcs[0] = crc32c(0, o->text, BLOCK_BYTES);
}

static void slow_order_done(struct peer_call *call, int res)
{
	struct slow_order *o = container_of(call, struct slow_order, call);
	o->is_done = true;
	o->res = res;
	o->done_ns = sim_now_ns(o->bench->world.one.sim);
}

/* A call with a limit of its own outlives those that came before and after it, and ends when its own time is over. */
static void a_call_that_may_take_longer(void)
{
	struct bench *b = bench_open(true);
	struct slow_order o = {.bench = b, .text = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES)};
	memset(o.text, 0, BLOCK_BYTES);
	o.data = (struct iovec){o.text, BLOCK_BYTES};
	o.call = (struct peer_call){.type = PEER_ORDER,
				    .timeout_ns = 10 * TIMEOUT_NS,
				    .fill = slow_order_fill,
				    .data = &o.data,
				    .n_data = 1,
				    .done = slow_order_done};
	b->world.holds_orders = true;
	begin_session(b);
	CU_ASSERT_TRUE(peer_client_has(b->client, PEER_TAKES_ORDERS));
	uint64_t begun_ns = sim_now_ns(b->world.one.sim);
	peer_client_call(b->client, &o.call);
	slow_writes(b, 5);
	CU_ASSERT_EQUAL(b->lost_res, -ETIMEDOUT);
	CU_ASSERT(sim_now_ns(b->world.one.sim) - begun_ns < 2 * TIMEOUT_NS);
	CU_ASSERT_FALSE(o.is_done);
	one_let_pass(&b->world.one, 10 * TIMEOUT_NS);
	CU_ASSERT_TRUE(o.is_done);
	CU_ASSERT_EQUAL(o.res, -ETIMEDOUT);
	CU_ASSERT(o.done_ns - begun_ns >= 10 * TIMEOUT_NS && o.done_ns - begun_ns < 11 * TIMEOUT_NS);
	CU_ASSERT_TRUE(peer_client_is_up(b->client));
	CU_ASSERT_PTR_NOT_NULL_FATAL(b->world.held);
	order_echo(b->world.held); /* too late: nobody's */
	one_let_pass(&b->world.one, TIMEOUT_NS);
	CU_ASSERT_TRUE(peer_client_is_up(b->client));
	sim_file_faults(b->world.one.medium)->slow_ppm = 0;
	free(o.text);
	bench_close(b);
}

/* Nobody is there, or somebody of another cluster: it is told once, and a client can be closed at any moment. */
static void nobody_there(void)
{
	for (uint64_t i = 0; i < 30; i++) {
		struct bench *b = bench_open(false);
		world_stop_server(&b->world);
		bench_begin_client(b);
		one_let_pass(&b->world.one, i * i * 7 * NS_PER_MS);
		CU_ASSERT_FALSE(peer_client_is_up(b->client));
		CU_ASSERT(one_events(&b->world.one, "node-unreachable") <= 1);
		bench_close(b);
	}
}

/* Connections that break at any moment: what was answered is there, everything else ends, each loss is told once. */
static void cuts_at_any_moment(void)
{
	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct bench *b = bench_open(true);
		uint64_t chance = seed;
		uint8_t stamps[100] = {0};
		begin_session(b);
		for (uint32_t round = 1; round <= 5; round++) {
			for (uint32_t i = 0; i < 100; i += 5)
				write_begin(b, i, 5, 0, (uint8_t)round);
			one_let_pass(&b->world.one, sim_split(&chance) % (8 * NS_PER_MS));
			uint32_t lost_before = b->n_lost;
			sim_net_cut(b->world.far, b->world.one.machine);
			bench_wait(b);
			CU_ASSERT(b->n_lost <= lost_before + 1);
			for (uint32_t i = 0; i < 20; i++)
				if (b->asks[i].res == 0)
					stamps[b->asks[i].rio.io.first] = (uint8_t)round;
			one_let_pass(&b->world.one, 10 * NS_PER_MS); /* both ends have heard of it */
			bench_wait_up(b);
			replica_lose(&b->replica, -ENOTCONN); /* if no call was under way to show it */
			CU_ASSERT_EQUAL(b->n_lost, lost_before + 1);
			CU_ASSERT_EQUAL_FATAL(fence(b, 5 + round), 0);
		}
		for (uint32_t i = 0; i < 100; i += 5) {
			struct disk_io io = {.op = DISK_READ, .first = i, .n_blocks = 1};
			struct ask *a = ask_begin(b, &b->replica, (struct replica_io){.io = io, .tree = 3});
			CU_ASSERT_EQUAL(ask_end(b, a), 0);
			CU_ASSERT(a->memory[0] >= stamps[i]); /* what was not answered may be there */
		}
		bench_close(b);
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("replica", NULL, NULL);
	CU_add_test(suite, "both alike", both_alike);
	CU_add_test(suite, "copies alike", copies_alike);
	CU_add_test(suite, "a block that cannot be read", a_block_that_cannot_be_read);
	CU_add_test(suite, "nothing that can be read", nothing_that_can_be_read);
	CU_add_test(suite, "fenced", fenced);
	CU_add_test(suite, "a disk that fails", a_disk_that_fails);
	CU_add_test(suite, "more than may be under way", more_than_may_be_under_way);
	CU_add_test(suite, "answers of the past", answers_of_the_past);
	CU_add_test(suite, "a partition", a_partition);
	CU_add_test(suite, "a partition of a busy node", a_partition_of_a_busy_node);
	CU_add_test(suite, "a map of other blocks", a_map_of_other_blocks);
	CU_add_test(suite, "a slow disk", a_slow_disk);
	CU_add_test(suite, "a call that may take longer", a_call_that_may_take_longer);
	CU_add_test(suite, "nobody there", nobody_there);
	CU_add_test(suite, "cuts at any moment", cuts_at_any_moment);
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
