/*
 * test_disk_format.c: what is written is read back; every byte that is changed is noticed; and disk_format() makes a
 * disk of what is blank and of nothing else.
 *
 * Structures with a checksum are attacked twice: a flipped bit must fail the checksum, and a wrong field under a right
 * checksum (reseal) must fail the rule for that field.
 */
#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"
#include "volumes/disk/disk_format.h"

#include <CUnit/Basic.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct uuid disk_uuid = {{0xd1, 1, 2, 3}};
static const struct uuid pool_uuid = {{0xb0, 4, 5, 6}};
static const struct uuid cluster_uuid = {{0xc1, 7, 8, 9}};
static const struct uuid volume_uuid = {{0x70, 0x11}};

/* ---- pointers, tables, deltas ---- */

static void pointer_keeps_its_parts(void)
{
	struct pointer p = pointer_make(0xdeadbeef, (1ull << 48) - 2, EPOCH_MAX - 1);

	CU_ASSERT_EQUAL(pointer_crc(p), 0xdeadbeef);
	CU_ASSERT_EQUAL(pointer_block(p), (1ull << 48) - 2);
	CU_ASSERT_EQUAL(pointer_epoch(p), EPOCH_MAX - 1);
	CU_ASSERT_FALSE(pointer_is_hole(p));
	CU_ASSERT_TRUE(pointer_is_hole(pointer_make(0, 0, 77)));
	/* the byte table: crc, block, epoch, each little-endian and next to each other */
	uint8_t bytes[16];
	p = pointer_make(0x04030201, 0x0a0908070605, 0x100f0e0d0c0b);
	memcpy(bytes, &p, sizeof bytes);
	for (unsigned i = 0; i < sizeof bytes; i++)
		CU_ASSERT_EQUAL(bytes[i], i + 1);
}

static void kinds_never_pass_for_each_other(void)
{
	static const enum block_kind kinds[] = {KIND_DATA, KIND_PAGE, KIND_COUNTS, KIND_RECORD, KIND_DELTAS};
	uint8_t block[BLOCK_BYTES] = {1, 2, 3};

	for (size_t i = 0; i < array_size(kinds); i++)
		for (size_t k = 0; k < i; k++)
			CU_ASSERT_NOT_EQUAL(block_crc(kinds[i], block), block_crc(kinds[k], block));
	CU_ASSERT_EQUAL(block_crc(KIND_DATA, block), crc32c(0, block, BLOCK_BYTES));
}

static void table_height_covers_its_slots(void)
{
	CU_ASSERT_EQUAL(table_height(0), 0);
	CU_ASSERT_EQUAL(table_height(1), 1);
	CU_ASSERT_EQUAL(table_height(256), 1);
	CU_ASSERT_EQUAL(table_height(257), 2);
	CU_ASSERT_EQUAL(table_height(65536), 2);
	CU_ASSERT_EQUAL(table_height(65537), 3);
	CU_ASSERT_EQUAL(table_height(1ull << 48), 6);
}

static void delta_survives_packing(void)
{
	static const int32_t changes[] = {0, 1, -1, 2, -2, DELTA_CHANGE_MAX, -DELTA_CHANGE_MAX};

	for (size_t i = 0; i < array_size(changes); i++)
		for (unsigned flags = 0; flags < 4; flags++) {
			struct delta d = {(1ull << 48) - 1 - i, changes[i], flags & 1, flags & 2};
			struct delta e = delta_unpack(delta_pack(d));
			CU_ASSERT_EQUAL(e.block, d.block);
			CU_ASSERT_EQUAL(e.change, d.change);
			CU_ASSERT_EQUAL(e.was_zero, d.was_zero);
			CU_ASSERT_EQUAL(e.is_zero, d.is_zero);
		}
	CU_ASSERT_EQUAL(delta_pack((struct delta){5, -1, false, true}), 5 | 0x3fffull << 48 | 1ull << 63);
	CU_ASSERT_EQUAL(delta_pack((struct delta){5, 1, true, false}), 5 | 1ull << 48 | 1ull << 62);
}

/* ---- superblock ---- */

static struct superblock some_superblock(void)
{
	return (struct superblock){
	    .disk = disk_uuid,
	    .pool = pool_uuid,
	    .cluster = cluster_uuid,
	    .checkpoint = 7,
	    .n_blocks = DISK_MIN_BLOCKS + 5,
	    .journal_blocks = JOURNAL_MIN_BLOCKS,
	    .replay_from = 1000,
	    .trees = pointer_make(1, 200, 0),
	    .volumes = pointer_make(2, 201, 0),
	    .counts = pointer_make(3, 202, 0),
	    .deltas = pointer_make(4, DISK_MIN_BLOCKS + 4, 0),
	    .n_tree_slots = 256,
	    .n_volume_slots = 256,
	    .n_deltas = 513,
	    .is_clean = true,
	    .is_reserved = true,
	    .wall_ns = 1234567890123456789ull,
	    .cache_bytes = 1ull << 40,
	    .scrubbed_wall_ns = 1234567890123456788ull,
	    .label = "disk-\xc3\xa4\xe2\x82\xac\xf0\x9f\x92\xbe",
	};
}

static void superblock_reseal(uint8_t *block)
{
	memset(block + 8, 0, 4);
	put_le32(block + 8, crc32c(0, block, BLOCK_BYTES));
}

static enum superblock_verdict verdict_of(const uint8_t *block)
{
	struct superblock out;
	char why[WHY_BYTES] = "";
	enum superblock_verdict v = superblock_decode(block, &out, why);

	CU_ASSERT_EQUAL(v == SUPERBLOCK_VALID, why[0] == '\0'); /* each refusal has its reason */
	return v;
}

static void superblock_round_trip(void)
{
	struct superblock in = some_superblock(), out;
	uint8_t block[BLOCK_BYTES];
	char why[WHY_BYTES];

	superblock_encode(&in, block);
	CU_ASSERT_EQUAL_FATAL(superblock_decode(block, &out, why), SUPERBLOCK_VALID);
	CU_ASSERT_TRUE(uuid_equal(&in.disk, &out.disk));
	CU_ASSERT_TRUE(uuid_equal(&in.pool, &out.pool));
	CU_ASSERT_TRUE(uuid_equal(&in.cluster, &out.cluster));
	CU_ASSERT_EQUAL(out.checkpoint, 7);
	CU_ASSERT_EQUAL(out.n_blocks, in.n_blocks);
	CU_ASSERT_EQUAL(out.journal_blocks, in.journal_blocks);
	CU_ASSERT_EQUAL(out.replay_from, 1000);
	CU_ASSERT_EQUAL(memcmp(&out.trees, &in.trees, 16), 0);
	CU_ASSERT_EQUAL(memcmp(&out.volumes, &in.volumes, 16), 0);
	CU_ASSERT_EQUAL(memcmp(&out.counts, &in.counts, 16), 0);
	CU_ASSERT_EQUAL(memcmp(&out.deltas, &in.deltas, 16), 0);
	CU_ASSERT_EQUAL(out.n_tree_slots, 256);
	CU_ASSERT_EQUAL(out.n_volume_slots, 256);
	CU_ASSERT_EQUAL(out.n_deltas, 513);
	CU_ASSERT_TRUE(out.is_clean && out.is_reserved);
	CU_ASSERT_EQUAL(out.wall_ns, in.wall_ns);
	CU_ASSERT_EQUAL(out.cache_bytes, in.cache_bytes);
	CU_ASSERT_EQUAL(out.scrubbed_wall_ns, in.scrubbed_wall_ns);
	CU_ASSERT_STRING_EQUAL(out.label, in.label);
}

static void superblock_lies_where_the_table_says(void)
{
	struct superblock in = some_superblock();
	uint8_t block[BLOCK_BYTES];

	superblock_encode(&in, block);
	CU_ASSERT_EQUAL(memcmp(block, "QUARRYD1", 8), 0);
	CU_ASSERT_EQUAL(get_le32(block + 12), 1);
	CU_ASSERT_EQUAL(block[40], 0xd1);
	CU_ASSERT_EQUAL(get_le64(block + 88), 7);
	CU_ASSERT_EQUAL(get_le64(block + 96), DISK_MIN_BLOCKS + 5);
	CU_ASSERT_EQUAL(get_le64(block + 112), 1000);
	CU_ASSERT_EQUAL(get_le64(block + 120), 0xC96C5795D7870F42ull);
	CU_ASSERT_EQUAL(get_le32(block + 152), 256);
	CU_ASSERT_EQUAL(get_le32(block + 208), 513);
	CU_ASSERT_EQUAL(get_le32(block + 212), 3);
	CU_ASSERT_STRING_EQUAL((char *)block + 224, in.label);
}

static void superblock_notices_every_flipped_bit(void)
{
	struct superblock in = some_superblock();
	uint8_t block[BLOCK_BYTES];

	superblock_encode(&in, block);
	for (unsigned bit = 0; bit < BLOCK_BYTES * 8; bit += bit < 328 * 8 ? 1 : 61) {
		block[bit / 8] ^= 1u << bit % 8;
		enum superblock_verdict v = verdict_of(block);
		CU_ASSERT_EQUAL(v, bit < 64 ? SUPERBLOCK_FOREIGN : SUPERBLOCK_DAMAGED);
		block[bit / 8] ^= 1u << bit % 8;
	}
	CU_ASSERT_EQUAL(verdict_of(block), SUPERBLOCK_VALID);
}

static void superblock_knows_whose_it_is(void)
{
	static const uint8_t blank[BLOCK_BYTES];
	struct superblock in = some_superblock();
	uint8_t block[BLOCK_BYTES] = "something else";

	CU_ASSERT_EQUAL(verdict_of(blank), SUPERBLOCK_BLANK);
	CU_ASSERT_EQUAL(verdict_of(block), SUPERBLOCK_FOREIGN);
	static const unsigned newer[] = {12 /* version */, 16 /* refuse */, 120 /* polynomial */, 128 /* seed */};
	for (size_t i = 0; i < array_size(newer); i++) {
		superblock_encode(&in, block);
		block[newer[i]] ^= 2;
		superblock_reseal(block);
		CU_ASSERT_EQUAL(verdict_of(block), SUPERBLOCK_NEWER);
	}
}

static void superblock_leaves_features_to_its_reader(void)
{
	struct superblock in = some_superblock(), out;
	uint8_t block[BLOCK_BYTES];
	char why[WHY_BYTES];

	superblock_encode(&in, block);
	put_le64(block + 24, 8);
	put_le64(block + 32, 16);
	superblock_reseal(block);
	CU_ASSERT_EQUAL_FATAL(superblock_decode(block, &out, why), SUPERBLOCK_VALID);
	CU_ASSERT_EQUAL(out.features_read_only, 8);
	CU_ASSERT_EQUAL(out.features_forget, 16);
	out.features_read_only = 0;
	superblock_encode(&out, block); /* the next checkpoint forgets what it does not know */
	CU_ASSERT_EQUAL(get_le64(block + 32), 0);
}

/* One wrong field each, under a right checksum. */
static void superblock_refuses_wrong_fields(void)
{
	static const struct {
		unsigned at, len;
		uint64_t value;
	} wrong[] = {
	    {40, 16, 0},                                          /* no UUID */
	    {88, 8, 0},                                           /* checkpoint */
	    {88, 8, 1ull << 63},                                  /* checkpoint */
	    {96, 8, DISK_MIN_BLOCKS - 1},                         /* size */
	    {96, 8, DISK_MAX_BLOCKS + 1},                         /* size */
	    {104, 8, JOURNAL_MIN_BLOCKS - 1},                     /* journal */
	    {104, 8, JOURNAL_MIN_BLOCKS + 1},                     /* larger than its share */
	    {112, 8, 0},                                          /* replay from */
	    {112, 8, UINT64_MAX},                                 /* replay from */
	    {136 + 4, 2, JOURNAL_START + JOURNAL_MIN_BLOCKS - 1}, /* trees: inside the journal */
	    {136 + 4, 2, DISK_MIN_BLOCKS + 5},                    /* trees: past the end */
	    {152, 4, 65537},                                      /* tree slots */
	    {152, 4, 0},                                          /* no slots, yet a table */
	    {156, 4, 65537},                                      /* volume slots */
	    {160 + 4, 2, DISK_MIN_BLOCKS + 5},                    /* volumes */
	    {176 + 4, 2, 31},                                     /* counts: a superblock slot */
	    {176 + 4, 2, 0},                                      /* counts: a hole with a checksum */
	    {192 + 4, 2, 160 - 1},                                /* deltas: inside the journal */
	    {208, 4, 0},                                          /* no deltas, yet a page of them */
	    {208, 4, DELTA_LOG_MAX + 1},                          /* too many */
	    {212, 4, 4},                                          /* an unknown flag */
	    {224, 1, 7},                                          /* a control character */
	    {224, 1, 0},                                          /* bytes after the label's end */
	    {229, 1, 0x80},                                       /* UTF-8 that begins in the middle */
	    {229, 1, 0xe1},                                       /* a character cut short */
	    {287, 1, 'x'},                                        /* no final zero */
	    {328, 1, 1},                                          /* unused bytes */
	    {4095, 1, 1},                                         /* unused bytes */
	};
	struct superblock in = some_superblock();
	uint8_t block[BLOCK_BYTES];

	for (size_t i = 0; i < array_size(wrong); i++) {
		uint8_t value[16] = {0};
		superblock_encode(&in, block);
		put_le64(value, wrong[i].value);
		memcpy(block + wrong[i].at, value, wrong[i].len);
		superblock_reseal(block);
		CU_ASSERT_EQUAL(verdict_of(block), SUPERBLOCK_DAMAGED);
	}
}

/* ---- journal ---- */

static void journal_reseal(uint8_t *block)
{
	memset(block + 4, 0, 4);
	put_le32(block + 4, crc32c(crc32c(0, disk_uuid.bytes, 16), block, BLOCK_BYTES));
}

static const struct pointer some_pointers[] = {
    {0x1111111100000000ull | 7, 5ull << 16}, {0, 9ull << 16}, {0x0000010000000000ull | 3, 0}};

static struct record some_record(enum record_type type)
{
	struct record r = {.type = type, .slot = 3};

	if (type == RECORD_WRITE) {
		r.first = 77, r.n_blocks = 3, r.sum = 0x123456789abcdef0ull, r.pointers = some_pointers;
		r.is_ordered = true;
	} else if (type == RECORD_RANGE || type == RECORD_HOLES) {
		r.first = 12, r.n_blocks = 1ull << 40, r.epoch = 55;
	} else if (type == RECORD_CREATE) {
		r.volume = volume_uuid, r.tree_id = 8, r.epoch = 9, r.parent_id = 4;
	} else if (type == RECORD_FORK) {
		r.volume = volume_uuid, r.tree_id = 8, r.epoch = 9, r.child_slot = 65534;
	} else if (type == RECORD_FENCE) {
		r.volume = volume_uuid, r.generation = 3, r.session = 4, r.size_blocks = 1ull << 34;
	} else if (type == RECORD_COMPLETE) {
		r.volume = volume_uuid, r.epoch = 99;
	} else if (type == RECORD_FORGET) {
		r.volume = volume_uuid;
	} else if (type == RECORD_CLEAN) {
		r.slot = 0;
	} else if (type == RECORD_SWAP) {
		r.other_slot = 65534, r.is_ordered = true;
	}
	return r;
}

static const enum record_type all_types[] = {RECORD_WRITE, RECORD_RANGE, RECORD_CREATE,   RECORD_FORK,
					     RECORD_DROP,  RECORD_FENCE, RECORD_COMPLETE, RECORD_FORGET,
					     RECORD_CLEAN, RECORD_SWAP,  RECORD_HOLES};

static void records_are_equal(const struct record *a, const struct record *b)
{
	CU_ASSERT_EQUAL(a->type, b->type);
	CU_ASSERT_EQUAL(a->is_ordered, b->is_ordered);
	CU_ASSERT_EQUAL(a->slot, b->slot);
	CU_ASSERT_EQUAL(a->first, b->first);
	CU_ASSERT_EQUAL(a->n_blocks, b->n_blocks);
	CU_ASSERT_EQUAL(a->epoch, b->epoch);
	CU_ASSERT_EQUAL(a->sum, b->sum);
	CU_ASSERT_TRUE(uuid_equal(&a->volume, &b->volume));
	CU_ASSERT_EQUAL(a->tree_id, b->tree_id);
	CU_ASSERT_EQUAL(a->parent_id, b->parent_id);
	CU_ASSERT_EQUAL(a->child_slot, b->child_slot);
	CU_ASSERT_EQUAL(a->other_slot, b->other_slot);
	CU_ASSERT_EQUAL(a->generation, b->generation);
	CU_ASSERT_EQUAL(a->session, b->session);
	CU_ASSERT_EQUAL(a->size_blocks, b->size_blocks);
	if (a->type == RECORD_WRITE && b->type == RECORD_WRITE)
		CU_ASSERT_EQUAL(memcmp(a->pointers, b->pointers, a->n_blocks * 16), 0);
}

/* All types in one block; returns the bytes used. */
static uint32_t fill_journal_block(uint8_t *block, uint16_t *n_records)
{
	uint32_t at = JOURNAL_HEADER_BYTES;

	memset(block, 0xee, BLOCK_BYTES); /* what sealing must clear */
	for (size_t i = 0; i < array_size(all_types); i++) {
		struct record r = some_record(all_types[i]);
		at += record_encode(&r, block + at);
	}
	*n_records = array_size(all_types);
	return at;
}

static void record_round_trip(void)
{
	static const uint32_t lengths[] = {24 + 48, 32, 48, 48, 16, 48, 32, 24, 16, 16, 32};
	_Alignas(8) uint8_t bytes[RECORD_BYTES_MAX];

	for (size_t i = 0; i < array_size(all_types); i++) {
		struct record in = some_record(all_types[i]), out;
		uint32_t len = record_encode(&in, bytes);
		CU_ASSERT_EQUAL(len, lengths[i]); /* as in the table of the format */
		CU_ASSERT_EQUAL(len, record_bytes(&in));
		CU_ASSERT_EQUAL(get_le16(bytes + 2), len);
		CU_ASSERT_EQUAL_FATAL(record_decode(bytes, len, &out), (int)len);
		records_are_equal(&in, &out);
		for (uint32_t less = 0; less < len; less++)
			CU_ASSERT_EQUAL(record_decode(bytes, less, &out), -EBADMSG);
	}
}

static void record_of_65_blocks_fits(void)
{
	static struct pointer p[DISK_WRITE_BLOCKS_MAX];
	struct record in = {.type = RECORD_WRITE, .first = (1ull << 48) - 65, .n_blocks = 65, .pointers = p}, out;
	_Alignas(8) uint8_t bytes[RECORD_BYTES_MAX + 16];

	CU_ASSERT_EQUAL_FATAL(record_encode(&in, bytes), RECORD_BYTES_MAX);
	CU_ASSERT_EQUAL(record_decode(bytes, RECORD_BYTES_MAX, &out), (int)RECORD_BYTES_MAX);
	CU_ASSERT_EQUAL(out.n_blocks, 65);
	put_le16(bytes + 2, RECORD_BYTES_MAX + 16); /* one pointer more */
	CU_ASSERT_EQUAL(record_decode(bytes, sizeof bytes, &out), -EBADMSG);
}

/* A field of a record that is right otherwise, and what it may not be. */
static const struct {
	enum record_type type;
	unsigned at, len;
	uint64_t value;
} wrong_records[] = {
    {RECORD_WRITE, 0, 1, 0},
    {RECORD_WRITE, 0, 1, 6},
    {RECORD_WRITE, 0, 1, 7},
    {RECORD_WRITE, 0, 1, 12},
    {RECORD_WRITE, 0, 1, 255},
    {RECORD_WRITE, 1, 1, 2},
    {RECORD_WRITE, 2, 2, 24},
    {RECORD_WRITE, 2, 2, 24 + 47},
    {RECORD_WRITE, 2, 2, 24 + 40},
    {RECORD_WRITE, 2, 2, 0},
    {RECORD_WRITE, 2, 2, 65535},
    {RECORD_WRITE, 4, 4, 65535},
    {RECORD_WRITE, 8, 8, (1ull << 48) - 2},
    {RECORD_WRITE, 8, 8, UINT64_MAX},
    {RECORD_WRITE, 24 + 4, 4, 31},
    {RECORD_WRITE, 40, 1, 1},
    {RECORD_RANGE, 1, 1, 1},
    {RECORD_RANGE, 16, 8, 0},
    {RECORD_RANGE, 16, 8, (1ull << 48) - 11},
    {RECORD_RANGE, 16, 8, UINT64_MAX},
    {RECORD_RANGE, 8, 8, UINT64_MAX},
    {RECORD_RANGE, 24, 8, 1ull << 48},
    {RECORD_CREATE, 8, 8, 0},
    {RECORD_CREATE, 24, 8, 0},
    {RECORD_CREATE, 32, 8, 1ull << 48},
    {RECORD_CREATE, 40, 8, 8},
    {RECORD_FORK, 8, 8, 0},
    {RECORD_FORK, 24, 8, 0},
    {RECORD_FORK, 40, 4, 65535},
    {RECORD_FORK, 40, 4, 3},
    {RECORD_FORK, 44, 4, 1},
    {RECORD_DROP, 8, 8, 1},
    {RECORD_DROP, 4, 4, 65535},
    {RECORD_FENCE, 8, 8, 0},
    {RECORD_FENCE, 4, 4, 65535},
    {RECORD_FENCE, 40, 8, (1ull << 48) + 1},
    {RECORD_COMPLETE, 8, 8, 0},
    {RECORD_COMPLETE, 24, 8, 1ull << 48},
    {RECORD_FORGET, 8, 8, 0},
    {RECORD_CLEAN, 4, 4, 1},
    {RECORD_CLEAN, 8, 8, 1},
    {RECORD_CLEAN, 2, 2, 24},
    {RECORD_SWAP, 1, 1, 0}, /* every swap is ordered */
    {RECORD_SWAP, 4, 4, 65535},
    {RECORD_SWAP, 8, 4, 65535},
    {RECORD_SWAP, 8, 4, 3}, /* with itself */
    {RECORD_SWAP, 12, 4, 1},
    {RECORD_HOLES, 1, 1, 1},
    {RECORD_HOLES, 16, 8, 0},
    {RECORD_HOLES, 8, 8, UINT64_MAX},
    {RECORD_HOLES, 24, 8, 1ull << 48},
};

static void record_refuses_wrong_fields(void)
{
	_Alignas(8) uint8_t bytes[RECORD_BYTES_MAX];

	for (size_t i = 0; i < array_size(wrong_records); i++) {
		struct record in = some_record(wrong_records[i].type), out;
		uint8_t value[8];
		memset(bytes, 0, sizeof bytes);
		record_encode(&in, bytes);
		put_le64(value, wrong_records[i].value);
		memcpy(bytes + wrong_records[i].at, value, wrong_records[i].len);
		CU_ASSERT_EQUAL(record_decode(bytes, sizeof bytes, &out), -EBADMSG);
	}
}

static void journal_round_trip(void)
{
	struct journal_header in = {.sequence = 321, .flushed = 300, .checkpoint = 9}, out;
	_Alignas(8) uint8_t block[BLOCK_BYTES];

	in.used_bytes = (uint16_t)fill_journal_block(block, &in.n_records);
	journal_block_seal(block, &in, &disk_uuid);
	CU_ASSERT_TRUE(bytes_are_zero(block + in.used_bytes, BLOCK_BYTES - in.used_bytes));
	CU_ASSERT_EQUAL_FATAL(journal_block_open(block, &disk_uuid, &out), 0);
	CU_ASSERT_EQUAL(out.sequence, 321);
	CU_ASSERT_EQUAL(out.flushed, 300);
	CU_ASSERT_EQUAL(out.checkpoint, 9);
	CU_ASSERT_EQUAL(out.n_records, in.n_records);
	CU_ASSERT_EQUAL(out.used_bytes, in.used_bytes);
	uint32_t at = JOURNAL_HEADER_BYTES;
	for (size_t i = 0; i < array_size(all_types); i++) {
		struct record want = some_record(all_types[i]), got;
		int len = record_decode(block + at, in.used_bytes - at, &got);
		CU_ASSERT_FATAL(len > 0);
		records_are_equal(&want, &got);
		at += (uint32_t)len;
	}
	CU_ASSERT_EQUAL(journal_block_open(block, &pool_uuid, &out), -EBADMSG); /* of another disk */
}

static void journal_notices_every_flipped_bit(void)
{
	struct journal_header h = {.sequence = 321, .flushed = 300, .checkpoint = 9}, out;
	_Alignas(8) uint8_t block[BLOCK_BYTES];

	h.used_bytes = (uint16_t)fill_journal_block(block, &h.n_records);
	journal_block_seal(block, &h, &disk_uuid);
	for (unsigned bit = 0; bit < BLOCK_BYTES * 8; bit += bit < 600 * 8 ? 1 : 61) {
		block[bit / 8] ^= 1u << bit % 8;
		CU_ASSERT_EQUAL(journal_block_open(block, &disk_uuid, &out), -EBADMSG);
		block[bit / 8] ^= 1u << bit % 8;
	}
	CU_ASSERT_EQUAL(journal_block_open(block, &disk_uuid, &out), 0);
}

static void journal_refuses_wrong_fields(void)
{
	static const struct {
		unsigned at, len;
		uint64_t value;
	} wrong[] = {
	    {8, 8, 0},    {8, 8, 1ull << 63}, {16, 8, 321}, {24, 8, 0},   {24, 8, 1ull << 63},
	    {32, 2, 8},   {32, 2, 10},        {34, 2, 63},  {34, 2, 0},   {34, 2, 4104},
	    {34, 2, 100}, {36, 1, 1},         {63, 1, 1},   {4095, 1, 1}, {JOURNAL_HEADER_BYTES, 1, 0},
	};
	struct journal_header h = {.sequence = 321, .flushed = 300, .checkpoint = 9}, out;
	_Alignas(8) uint8_t block[BLOCK_BYTES];

	for (size_t i = 0; i < array_size(wrong); i++) {
		uint8_t value[8];
		h.used_bytes = (uint16_t)fill_journal_block(block, &h.n_records);
		journal_block_seal(block, &h, &disk_uuid);
		put_le64(value, wrong[i].value);
		memcpy(block + wrong[i].at, value, wrong[i].len);
		journal_reseal(block);
		CU_ASSERT_EQUAL(journal_block_open(block, &disk_uuid, &out), -EBADMSG);
	}
}

/* ---- tree and volume records ---- */

static struct tree_record some_tree(void)
{
	return (struct tree_record){
	    .volume = volume_uuid,
	    .tree_id = 12,
	    .parent_id = 11,
	    .root = pointer_make(5, 4000, 6),
	    .height = 3,
	    .state = TREE_DYING,
	    .fork_epoch = 4,
	    .n_data_blocks = 1000,
	    .drop_cursor = 256,
	};
}

static void tree_record_round_trip(void)
{
	struct tree_record in = some_tree(), out;
	uint8_t block[BLOCK_BYTES];

	tree_record_encode(&in, block);
	CU_ASSERT_EQUAL_FATAL(tree_record_decode(block, &out), 0);
	CU_ASSERT_TRUE(uuid_equal(&out.volume, &in.volume));
	CU_ASSERT_EQUAL(out.tree_id, 12);
	CU_ASSERT_EQUAL(out.parent_id, 11);
	CU_ASSERT_EQUAL(memcmp(&out.root, &in.root, 16), 0);
	CU_ASSERT_EQUAL(out.height, 3);
	CU_ASSERT_EQUAL(out.state, TREE_DYING);
	CU_ASSERT_EQUAL(out.fork_epoch, 4);
	CU_ASSERT_EQUAL(out.n_data_blocks, 1000);
	CU_ASSERT_EQUAL(out.drop_cursor, 256);
}

static void tree_record_refuses_wrong_fields(void)
{
	static const struct {
		unsigned at, len;
		uint64_t value;
	} wrong[] = {
	    {0, 1, 0},           {4, 1, 0},           {4, 1, 7},           {5, 1, 0},   {5, 1, 1},    {5, 1, 3},
	    {6, 1, 1},           {8, 2, 0},           {24, 8, 0},          {32, 8, 12}, {44, 2, 31},  {44, 2, 0},
	    {56, 8, 1ull << 48}, {64, 8, UINT64_MAX}, {72, 8, UINT64_MAX}, {80, 1, 1},  {4095, 1, 1},
	};
	struct tree_record in = some_tree(), out;
	uint8_t block[BLOCK_BYTES];

	for (size_t i = 0; i < array_size(wrong); i++) {
		uint8_t value[8];
		tree_record_encode(&in, block);
		put_le64(value, wrong[i].value);
		memcpy(block + wrong[i].at, value, wrong[i].len);
		CU_ASSERT_EQUAL(tree_record_decode(block, &out), -EBADMSG);
	}
}

static void volume_record_round_trip(void)
{
	struct volume_record in = {volume_uuid, 4, 5, 6, 1ull << 34, 7}, out;
	uint8_t block[BLOCK_BYTES];

	volume_record_encode(&in, block);
	CU_ASSERT_EQUAL_FATAL(volume_record_decode(block, &out), 0);
	CU_ASSERT_TRUE(uuid_equal(&out.volume, &in.volume));
	CU_ASSERT_EQUAL(out.generation, 4);
	CU_ASSERT_EQUAL(out.session, 5);
	CU_ASSERT_EQUAL(out.complete_epoch, 6);
	CU_ASSERT_EQUAL(out.size_blocks, 1ull << 34);
	CU_ASSERT_EQUAL(out.power_losses, 7);
	static const unsigned wrong[] = {0, 4, 5, 47, 55, 64, 4095};
	for (size_t i = 0; i < array_size(wrong); i++) {
		volume_record_encode(&in, block);
		block[wrong[i]] = 0xf7;
		CU_ASSERT_EQUAL(volume_record_decode(block, &out), -EBADMSG);
	}
	volume_record_encode(&in, block);
	memset(block + 8, 0, 16);
	CU_ASSERT_EQUAL(volume_record_decode(block, &out), -EBADMSG);
	struct tree_record t = some_tree();
	tree_record_encode(&t, block); /* one is never taken for the other */
	CU_ASSERT_EQUAL(volume_record_decode(block, &out), -EBADMSG);
}

/* ---- foreign data ---- */

static void foreign_data_has_a_name(void)
{
	static const struct {
		unsigned at;
		const char *bytes, *name;
	} known[] = {
	    {0, "LUKS\xba\xbe", "LUKS"},     {512, "LABELONE", "LVM"},
	    {1080, "\x53\xef", "ext4"},      {0, "XFSB", "XFS"},
	    {65600, "_BHRfS_M", "btrfs"},    {4086, "SWAPSPACE2", "swap"},
	    {0, "QFI\xfb", "qcow2"},         {512, "EFI PART", "GPT"},
	    {510, "\x55\xaa", "MBR"},        {4096, "\xfc\x4e\x2b\xa9", "RAID"},
	    {131072, "\x0c\xb1\xba", "ZFS"}, {3, "NTFS    ", "NTFS"},
	    {0, "QUARRYD1", "quarry"},       {98304, "QUARRYD1", "quarry"},
	    {200000, "?", "data"},
	};
	uint8_t *head = calloc(1, 256 * KIB);

	CU_ASSERT_PTR_NULL(foreign_name(head, 256 * KIB));
	CU_ASSERT_PTR_NULL(foreign_name(head, 0));
	for (size_t i = 0; i < array_size(known); i++) {
		size_t len = strlen(known[i].bytes);
		memcpy(head + known[i].at, known[i].bytes, len);
		const char *name = foreign_name(head, 256 * KIB);
		CU_ASSERT_PTR_NOT_NULL_FATAL(name);
		CU_ASSERT_PTR_NOT_NULL(strstr(name, known[i].name));
		CU_ASSERT_PTR_NULL(foreign_name(head, known[i].at)); /* it looks no further than it may */
		memset(head + known[i].at, 0, len);
	}
	memcpy(head + 512, "EFI PART", 8); /* the more specific first */
	memcpy(head + 510, "\x55\xaa", 2);
	CU_ASSERT_STRING_EQUAL(foreign_name(head, 256 * KIB), "a GPT partition table");
	free(head);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("disk format", NULL, NULL);
	CU_add_test(suite, "a pointer keeps its parts", pointer_keeps_its_parts);
	CU_add_test(suite, "kinds of blocks never pass for each other", kinds_never_pass_for_each_other);
	CU_add_test(suite, "a table's height covers its slots", table_height_covers_its_slots);
	CU_add_test(suite, "a delta survives packing", delta_survives_packing);
	CU_add_test(suite, "a superblock survives", superblock_round_trip);
	CU_add_test(suite, "a superblock's fields lie where the table says", superblock_lies_where_the_table_says);
	CU_add_test(suite, "a superblock notices every flipped bit", superblock_notices_every_flipped_bit);
	CU_add_test(suite, "a superblock knows whose it is", superblock_knows_whose_it_is);
	CU_add_test(suite, "feature bits: read-only and forget", superblock_leaves_features_to_its_reader);
	CU_add_test(suite, "a superblock refuses wrong fields", superblock_refuses_wrong_fields);
	CU_add_test(suite, "every record survives", record_round_trip);
	CU_add_test(suite, "a record of 65 blocks is the longest", record_of_65_blocks_fits);
	CU_add_test(suite, "a record refuses wrong fields", record_refuses_wrong_fields);
	CU_add_test(suite, "a journal block survives", journal_round_trip);
	CU_add_test(suite, "a journal block notices every flipped bit", journal_notices_every_flipped_bit);
	CU_add_test(suite, "a journal block refuses wrong fields", journal_refuses_wrong_fields);
	CU_add_test(suite, "a tree record survives", tree_record_round_trip);
	CU_add_test(suite, "a tree record refuses wrong fields", tree_record_refuses_wrong_fields);
	CU_add_test(suite, "a volume record survives, or is refused", volume_record_round_trip);
	CU_add_test(suite, "foreign data has a name", foreign_data_has_a_name);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures != 0;
}
