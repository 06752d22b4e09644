/*
 * test_peer_format.c: messages between nodes: each type there and back, and what is refused, with its words.
 */
#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"
#include "replication/peer_format.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>

struct wire {
	uint8_t header[PEER_HEADER_BYTES], body[PEER_BODY_MAX];
	struct peer_header h, read;
	struct peer_message m, got;
	char why[PEER_WHY_BYTES];
};

static bool is_of_volume(enum peer_type type)
{
	return type != PEER_GREETING && type != PEER_PING && type != PEER_ORDER && type != PEER_DISKS;
}

/* A message that could be sent, with small numbers everywhere. */
static struct wire *wire_make(enum peer_type type, uint32_t flags)
{
	struct wire *w = calloc(1, sizeof(*w));
	if (!w)
		abort();
	w->h = (struct peer_header){.type = type, .flags = flags, .request_id = 77};
	if (is_of_volume(type)) {
		w->h.generation = 5;
		w->h.session = type == PEER_HELLO && !(flags & PEER_REPLY) ? 0 : 9;
		w->h.volume = uuid_make(1, 2);
		w->h.disk = uuid_make(3, 4);
	}
	w->m = (struct peer_message){.tree_id = 11, .parent_id = 10, .first = 1000, .n_blocks = 3, .epoch = 6};
	w->m.since = 4;
	w->m.size_blocks = 1 << 20;
	w->m.features = 1;
	w->m.text_bytes = 3 * BLOCK_BYTES - 5;
	w->m.http_status = 200;
	return w;
}

static int wire_read(struct wire *w)
{
	int res = peer_header_decode(w->header, &w->read, w->why);
	return res < 0 ? res : peer_body_decode(&w->read, w->body, &w->got, w->why);
}

/* Written and read; the caller compares what counts. */
static void wire_pass(struct wire *w)
{
	peer_body_encode(&w->h, &w->m, w->body);
	peer_header_encode(&w->h, w->header);
	CU_ASSERT_EQUAL_FATAL(wire_read(w), 0);
	CU_ASSERT_EQUAL(w->read.type, w->h.type);
	CU_ASSERT_EQUAL(w->read.flags, w->h.flags);
	CU_ASSERT_EQUAL(w->read.request_id, 77);
	CU_ASSERT_EQUAL(w->read.generation, w->h.generation);
	CU_ASSERT_EQUAL(w->read.session, w->h.session);
	CU_ASSERT(uuid_equal(&w->read.volume, &w->h.volume));
	CU_ASSERT(uuid_equal(&w->read.disk, &w->h.disk));
	CU_ASSERT_EQUAL(w->read.data_bytes, w->h.data_bytes);
}

/* The body is changed after it was written, and its checksum with it. */
static int wire_reread(struct wire *w)
{
	w->h.body_crc = crc32c(0, w->body, w->h.body_bytes);
	peer_header_encode(&w->h, w->header);
	return wire_read(w);
}

#define TYPE(name, number) PEER_##name,
static const enum peer_type types[] = {PEER_TYPES(TYPE)};

static void test_every_type(void)
{
	for (size_t i = 0; i < array_size(types); i++) {
		for (uint32_t flags = 0; flags <= PEER_REPLY; flags++) {
			struct wire *w = wire_make(types[i], flags);
			if (types[i] == PEER_GREETING)
				snprintf(w->m.node.name, PEER_NAME_BYTES, "n1");
			if (types[i] == PEER_COPY)
				for (int b = 0; b < 3; b++)
					w->m.stamps[b] = (struct peer_stamp){.crc = 1, .is_data = true, .epoch = 2};
			wire_pass(w);
			CU_ASSERT(w->h.body_bytes <= PEER_BODY_MAX && w->h.body_bytes % 8 == 0);
			free(w);
		}
	}
}

static void test_write(void)
{
	struct wire *w = wire_make(PEER_WRITE, PEER_FUA | PEER_ORDERED);
	w->m.zero_blocks = 2; /* the middle one */
	for (uint32_t i = 0; i < 3; i++)
		w->m.crcs[i] = 0xabc0 + i;
	wire_pass(w);
	CU_ASSERT_EQUAL(w->h.body_bytes, 5 * 8 + 16);
	CU_ASSERT_EQUAL(w->h.data_bytes, 2 * BLOCK_BYTES);
	CU_ASSERT_EQUAL(peer_data_blocks(&w->read, &w->got), 2);
	CU_ASSERT_EQUAL(w->got.tree_id, 11);
	CU_ASSERT_EQUAL(w->got.first, 1000);
	CU_ASSERT_EQUAL(w->got.n_blocks, 3);
	CU_ASSERT_EQUAL(w->got.epoch, 6);
	CU_ASSERT_EQUAL(w->got.zero_blocks, 2);
	CU_ASSERT_EQUAL(w->got.crcs[2], 0xabc2);
	free(w);
}

static void test_largest(void)
{
	struct wire *w = wire_make(PEER_READ, PEER_REPLY);
	w->m.n_blocks = PEER_READ_BLOCKS;
	w->m.bad_blocks = 1ull << 63;
	w->m.zero_blocks = 1;
	wire_pass(w);
	CU_ASSERT_EQUAL(w->read.data_bytes, (PEER_READ_BLOCKS - 2) * BLOCK_BYTES);
	CU_ASSERT_EQUAL(w->got.bad_blocks, 1ull << 63);
	free(w);
	w = wire_make(PEER_TREES, PEER_REPLY);
	w->m.n_entries = PEER_LIST_MAX;
	for (uint32_t i = 0; i < PEER_LIST_MAX; i++)
		w->m.trees[i] = (struct peer_tree){.id = 2 * i, .parent_id = i, .epoch = PEER_EPOCH_MAX};
	wire_pass(w);
	CU_ASSERT_EQUAL(w->got.n_entries, PEER_LIST_MAX);
	CU_ASSERT_EQUAL(w->got.trees[PEER_LIST_MAX - 1].id, 2 * (PEER_LIST_MAX - 1));
	free(w);
	w = wire_make(PEER_MAP, PEER_REPLY);
	w->m.n_entries = 2;
	w->m.is_last = 1;
	w->m.extents[0] = (struct peer_extent){.first = 5, .n_blocks = 5, .epoch = 1, .is_data = true};
	w->m.extents[1] = (struct peer_extent){.first = 10, .n_blocks = PEER_BLOCK_MAX - 10};
	wire_pass(w);
	CU_ASSERT_EQUAL(w->got.extents[1].n_blocks, PEER_BLOCK_MAX - 10);
	CU_ASSERT_TRUE(w->got.extents[0].is_data);
	CU_ASSERT_FALSE(w->got.extents[1].is_data);
	free(w);
}

/* 256 KiB that begin inside a block: one message, so that they are there whole or not (P5). */
static void test_65_blocks(void)
{
	for (int is_copy = 0; is_copy <= 1; is_copy++) {
		struct wire *w = wire_make(is_copy ? PEER_COPY : PEER_WRITE, 0);
		w->m.n_blocks = PEER_WRITE_BLOCKS;
		w->m.zero_blocks = 1ull << 63 | 1;
		for (uint32_t i = 0; i < PEER_WRITE_BLOCKS; i++) {
			bool is_data = peer_block_is_there(&w->m, i);
			if (is_copy)
				w->m.stamps[i] = (struct peer_stamp){.crc = is_data ? i : 0, .is_data = is_data};
			else
				w->m.crcs[i] = i;
		}
		wire_pass(w);
		CU_ASSERT_EQUAL(w->read.data_bytes, PEER_DATA_MAX - 2 * BLOCK_BYTES);
		CU_ASSERT_EQUAL(is_copy ? w->got.stamps[64].crc : w->got.crcs[64], 64);
		CU_ASSERT_TRUE(peer_block_is_there(&w->got, 64));
		CU_ASSERT_FALSE(peer_block_is_there(&w->got, 63));
		if (is_copy) { /* the last one said to be a hole: no mask can say so */
			put_le32(w->body + 5 * 8 + 64 * 16, 0);
			put_le32(w->body + 5 * 8 + 64 * 16 + 4, 0);
			CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
			CU_ASSERT_PTR_NOT_NULL(strstr(w->why, "data that is a hole"));
		}
		free(w);
	}
}

/* A reply that says no has nothing else to say. */
static void test_refusals_travel(void)
{
	struct wire *w = wire_make(PEER_WRITE, PEER_REPLY);
	w->h.status = peer_status_of(-ESTALE);
	wire_pass(w);
	CU_ASSERT_EQUAL(w->read.body_bytes, 0);
	CU_ASSERT_EQUAL(peer_status_to_errno(w->read.status), -ESTALE);
	free(w);
	w = wire_make(PEER_HELLO, PEER_REPLY);
	w->h.status = PEER_STATUS_FENCED;
	w->h.session = 0;
	wire_pass(w);
	free(w);
	CU_ASSERT_EQUAL(peer_status_of(-EDOM), PEER_STATUS_IO_ERROR);
	CU_ASSERT_EQUAL(peer_status_of(0), PEER_STATUS_OK);
	CU_ASSERT_EQUAL(peer_status_to_errno(PEER_STATUS_NO_SPACE), -ENOSPC);
	CU_ASSERT_STRING_EQUAL(peer_type_name(PEER_COPY), "COPY");
}

/* Any bit turned over in header or body is found. */
static void test_flipped_bits(void)
{
	struct wire *w = wire_make(PEER_WRITE, 0);
	wire_pass(w);
	for (unsigned bit = 0; bit < PEER_HEADER_BYTES * 8; bit++) {
		w->header[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CU_ASSERT_EQUAL(wire_read(w), -EBADMSG);
		w->header[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (unsigned bit = 0; bit < w->h.body_bytes * 8; bit++) {
		w->body[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CU_ASSERT_EQUAL(wire_read(w), -EBADMSG);
		w->body[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	CU_ASSERT_EQUAL(wire_read(w), 0);
	free(w);
}

/* Puts a number over a byte of the header, with the checksum set right. */
static void expect_header(enum peer_type type, uint32_t flags, size_t at, uint8_t value, const char *words)
{
	struct wire *w = wire_make(type, flags);
	if (type == PEER_GREETING)
		snprintf(w->m.node.name, PEER_NAME_BYTES, "n1");
	wire_pass(w);
	w->header[at] = value;
	put_le32(w->header + 92, crc32c(0, w->header, 92));
	CU_ASSERT_EQUAL(peer_header_decode(w->header, &w->read, w->why), -EBADMSG);
	CU_ASSERT_PTR_NOT_NULL(strstr(w->why, words));
	if (!strstr(w->why, words))
		printf("\n  got: %s  want: %s\n", w->why, words);
	free(w);
}

static void test_headers_refused(void)
{
	expect_header(PEER_READ, 0, 0, 'X', "not a message");
	expect_header(PEER_READ, 0, 4, 2, "version 2");
	expect_header(PEER_READ, 0, 6, 0, "type 0");
	expect_header(PEER_READ, 0, 6, 25, "type 25");
	expect_header(PEER_READ, 0, 12, 99, "status 99");
	expect_header(PEER_READ, 0, 12, 1, "a request with a status");
	expect_header(PEER_READ, 0, 8, PEER_FUA, "flags 0x2");
	expect_header(PEER_WRITE, PEER_REPLY, 8, PEER_REPLY | PEER_FUA, "flags 0x3");
	expect_header(PEER_WRITE, 0, 11, 1, "flags 0x1000000");
	expect_header(PEER_READ, 0, 17, 8, "a body of");
	expect_header(PEER_READ, 0, 16, 8, "a body of 8");
	expect_header(PEER_READ, 0, 21, 16, "4096 bytes of data");
	expect_header(PEER_WRITE, 0, 20, 1, "bytes of data");
	expect_header(PEER_WRITE, 0, 22, 5, "bytes of data"); /* beyond 65 blocks */
	expect_header(PEER_READ, 0, 24, 0, "request id 0");
	expect_header(PEER_READ, 0, 32, 0, "generation");
	expect_header(PEER_READ, 0, 40, 0, "without a session");
	expect_header(PEER_READ, 0, 8, PEER_READER, "a generation where there is none");
	expect_header(PEER_STAMPS, 0, 8, PEER_READER, "flags 0x8");
	expect_header(PEER_MEASURE, 0, 8, PEER_FUA, "flags 0x2");
	expect_header(PEER_DISKS, 0, 64, 1, "is of no volume");
	expect_header(PEER_HELLO, 0, 40, 1, "only its reply has a session");
	expect_header(PEER_PING, 0, 32, 1, "is of no volume");
	expect_header(PEER_GREETING, 0, 64, 1, "is of no volume");
	expect_header(PEER_READ, 0, 80, 1, "must be zero");
}

/* Puts a 64-bit field over the body's. */
static void expect_field(enum peer_type type, uint32_t flags, unsigned field, uint64_t value, const char *words)
{
	struct wire *w = wire_make(type, flags);
	if (type == PEER_COPY)
		for (int b = 0; b < 3; b++)
			w->m.stamps[b] = (struct peer_stamp){.crc = 1, .is_data = true, .epoch = 2};
	if (type == PEER_TREES) {
		w->m.n_entries = 2;
		w->m.trees[0].id = 1;
		w->m.trees[1].id = 2;
	}
	if (type == PEER_STAMPS && flags == PEER_REPLY) {
		w->m.n_entries = 2;
		w->m.stamps[0] = (struct peer_stamp){.first = 2, .n_blocks = 1, .crc = 7, .is_data = true, .epoch = 3};
		w->m.stamps[1] = (struct peer_stamp){.first = 3, .n_blocks = 1000, .epoch = 2};
	}
	wire_pass(w);
	put_le64(w->body + (size_t)field * 8, value);
	CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
	CU_ASSERT_PTR_NOT_NULL(strstr(w->why, words));
	if (!strstr(w->why, words))
		printf("\n  got: %s  want: %s\n", w->why, words);
	free(w);
}

/* Without a session, and what a node has. */
static void test_readers_and_disks(void)
{
	struct wire *w = wire_make(PEER_READ, PEER_READER);
	w->h.generation = w->h.session = 0;
	wire_pass(w);
	free(w);
	w = wire_make(PEER_FORK, 0);
	w->m.child[0] = 1;
	w->m.child[1] = UINT64_MAX;
	wire_pass(w);
	CU_ASSERT_EQUAL(w->got.child[0], 1);
	CU_ASSERT_EQUAL(w->got.child[1], UINT64_MAX);
	free(w);
	w = wire_make(PEER_DISKS, PEER_REPLY);
	w->m.n_entries = PEER_DISKS_MAX;
	for (uint32_t i = 0; i < PEER_DISKS_MAX; i++)
		w->m.disks[i] = (struct peer_disk){.uuid = uuid_make(1, i), .n_blocks = 100, .room_blocks = i};
	wire_pass(w);
	CU_ASSERT(uuid_equal(&w->got.disks[5].uuid, &w->m.disks[5].uuid));
	CU_ASSERT_EQUAL(w->got.disks[5].room_blocks, 5);
	put_le64(w->body + 8 + 24, 101); /* more room than it has blocks */
	CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
	put_le64(w->body + 8 + 24, 100);
	put_le64(w->body, PEER_DISKS_MAX + 1);
	CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
	free(w);
}

static void test_bodies_refused(void)
{
	expect_field(PEER_WRITE, 0, 2, 0, "for a list of 0");
	expect_field(PEER_WRITE, 0, 2, 66, "field 3 is 66");
	expect_field(PEER_READ, 0, 2, 65, "field 3 is 65");
	expect_field(PEER_WRITE, 0, 2, 2, "for a list of 2");
	expect_field(PEER_WRITE, 0, 1, PEER_BLOCK_MAX, "blocks beyond any volume");
	expect_field(PEER_WRITE, 0, 3, PEER_EPOCH_MAX + 1, "field 4");
	expect_field(PEER_WRITE, 0, 4, 1, "another number of data blocks");
	expect_field(PEER_WRITE, 0, 4, 8, "bits of blocks that it has not");
	expect_field(PEER_WRITE, 0, 6, 1ull << 32, "out of range or order"); /* behind the third checksum */
	expect_field(PEER_READ, 0, 2, 0, "no blocks");
	expect_field(PEER_TRIM, 0, 2, 0, "no blocks");
	expect_field(PEER_TRIM, 0, 2, PEER_BLOCK_MAX, "blocks beyond any volume");
	expect_field(PEER_CUT, 0, 0, UINT64_MAX, "field 1");
	expect_field(PEER_MEASURE, 0, 1, PEER_BLOCK_MAX + 1, "field 2");
	expect_field(PEER_MEASURE, PEER_REPLY, 1, 2, "field 2");
	expect_field(PEER_MEASURE, PEER_REPLY, 3, PEER_BLOCK_MAX + 1, "field 4");
	expect_field(PEER_READ, PEER_REPLY, 1, 1, "another number of data blocks");
	expect_field(PEER_STAMPS, 0, 2, PEER_BLOCK_MAX, "blocks beyond any volume");
	expect_field(PEER_STAMPS, PEER_REPLY, 1, PEER_LIST_MAX + 1, "field 2");
	expect_field(PEER_STAMPS, PEER_REPLY, 3, PEER_EPOCH_MAX + 1, "out of range");
	expect_field(PEER_STAMPS, PEER_REPLY, 5, 0, "out of range");
	expect_field(PEER_STAMPS, PEER_REPLY, 5, 2, "out of range");          /* two blocks of data in one */
	expect_field(PEER_STAMPS, PEER_REPLY, 8, 4, "out of range or order"); /* a gap before the second */
	expect_field(PEER_COPY_HOLES, 0, 2, 0, "no blocks");
	expect_field(PEER_COPY_HOLES, 0, 1, PEER_BLOCK_MAX, "blocks beyond any volume");
	expect_field(PEER_COPY_HOLES, 0, 3, PEER_EPOCH_MAX + 1, "field 4");
	expect_field(PEER_COPY, 0, 5, 0, "a hole with data");                /* the first stamp: no data */
	expect_field(PEER_COPY, 0, 5, 2ull << 32, "out of range");           /* neither data nor hole */
	expect_field(PEER_COPY, 0, 6, UINT64_MAX, "out of range");           /* its epoch */
	expect_field(PEER_TREES, PEER_REPLY, 2, 2, "out of range or order"); /* not ascending */
	expect_field(PEER_TREES, PEER_REPLY, 5, 2, "out of range");          /* neither there nor dropped */
	expect_field(PEER_TREES, PEER_REPLY, 1, 1, "for a list of 1");
	expect_field(PEER_HELLO, PEER_REPLY, 1, 2, "field 2 is 2");
}

static void test_greeting(void)
{
	struct wire *w = wire_make(PEER_GREETING, 0);
	w->m.node.cluster = uuid_make(7, 8);
	snprintf(w->m.node.name, PEER_NAME_BYTES, "rack-3.n_1");
	wire_pass(w);
	CU_ASSERT(uuid_equal(&w->got.node.cluster, &w->m.node.cluster));
	CU_ASSERT_STRING_EQUAL(w->got.node.name, "rack-3.n_1");
	w->body[8 + 16] = '\n'; /* a name that would write lines of its own */
	CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
	w->body[8 + 16] = 0; /* a name that begins with its end */
	CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
	memset(w->body + 8 + 16, 'x', PEER_NAME_BYTES); /* one that has none */
	CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
	free(w);
}

static void test_order(void)
{
	struct wire *w = wire_make(PEER_ORDER, PEER_REPLY);
	wire_pass(w);
	CU_ASSERT_EQUAL(w->got.text_bytes, 3 * BLOCK_BYTES - 5);
	CU_ASSERT_EQUAL(w->got.http_status, 200);
	CU_ASSERT_EQUAL(w->read.data_bytes, 3 * BLOCK_BYTES);
	put_le64(w->body + 8, 2 * BLOCK_BYTES); /* a last block that nothing is in */
	CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
	put_le64(w->body + 8, 3 * BLOCK_BYTES + 1);
	CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
	put_le64(w->body + 8, 3 * BLOCK_BYTES);
	CU_ASSERT_EQUAL(wire_reread(w), 0);
	put_le64(w->body + 16, 99); /* no status of HTTP */
	CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
	put_le64(w->body + 16, 600);
	CU_ASSERT_EQUAL(wire_reread(w), -EBADMSG);
	free(w);
	w = wire_make(PEER_ORDER, 0);
	w->m.n_blocks = PEER_TEXT_BLOCKS;
	w->m.text_bytes = PEER_TEXT_MAX;
	wire_pass(w);
	CU_ASSERT_EQUAL(w->read.data_bytes, PEER_TEXT_MAX);
	free(w);
}

int main(void)
{
	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	CU_pSuite suite = CU_add_suite("peer format", NULL, NULL);
	CU_add_test(suite, "every type, there and back", test_every_type);
	CU_add_test(suite, "a write", test_write);
	CU_add_test(suite, "the largest messages", test_largest);
	CU_add_test(suite, "65 blocks", test_65_blocks);
	CU_add_test(suite, "refusals", test_refusals_travel);
	CU_add_test(suite, "flipped bits", test_flipped_bits);
	CU_add_test(suite, "headers that are refused", test_headers_refused);
	CU_add_test(suite, "bodies that are refused", test_bodies_refused);
	CU_add_test(suite, "a greeting", test_greeting);
	CU_add_test(suite, "an order", test_order);
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_add_test(suite, "readers, clones, disks", test_readers_and_disks);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures == 0 ? 0 : 1;
}
