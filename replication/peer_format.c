/*
 * peer_format.c: messages between nodes, to bytes and back.
 *
 * Invariants
 *  1. One table says what each body holds, for writing and for reading.
 *  2. What is accepted is written again as the same bytes: nothing can be said in two ways (the fuzzer holds this).
 *  3. Lengths are checked against the type before a byte of the body is looked at; every number against its range before
 *     it is returned; unused bits and bytes must be zero.
 *
 * Pure functions; nothing is owned.
 */
#include "replication/peer_format.h"

#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

/* ---- names ---- */

const char *peer_type_name(enum peer_type type)
{
	switch (type) {
#define X(name, number)                                                                                                \
	case PEER_##name:                                                                                              \
		return #name;
		PEER_TYPES(X)
#undef X
	}
	return "?";
}

int peer_status_to_errno(enum peer_status status)
{
	switch (status) {
#define X(name, number, error)                                                                                         \
	case PEER_STATUS_##name:                                                                                       \
		return -error;
		PEER_STATUSES(X)
#undef X
	}
	return -EIO;
}

enum peer_status peer_status_of(int res)
{
	quarry_assert(res <= 0);
#define X(name, number, error)                                                                                         \
	if (res == -error)                                                                                             \
		return PEER_STATUS_##name;
	PEER_STATUSES(X)
#undef X
	return PEER_STATUS_IO_ERROR;
}

static bool type_is_known(unsigned type)
{
	return type >= PEER_GREETING && type <= PEER_MEASURE;
}
_Static_assert(PEER_MEASURE == 24, "types are numbered without gaps");

static bool status_is_known(unsigned status)
{
	return status <= PEER_STATUS_NOT_SUPPORTED;
}
_Static_assert(PEER_STATUS_NOT_SUPPORTED == 14, "so are statuses");

/* ---- what each body holds ---- */

enum list_kind { LIST_NONE, LIST_CRCS, LIST_STAMPS, LIST_RUNS, LIST_TREES, LIST_EXTENTS, LIST_DISKS, LIST_NODE };

#define FIELDS_MAX 8
#define FIELD(member, most)                                                                                            \
	{                                                                                                              \
		offsetof(struct peer_message, member), most                                                            \
	}
#define ANY   UINT64_MAX
#define EPOCH PEER_EPOCH_MAX

/* The fields of a body in their order, each with the most it may be; size 0 ends them. */
struct body {
	struct {
		size_t offset;
		uint64_t most;
	} fields[FIELDS_MAX];
	uint32_t n_fields;
	enum list_kind list;
	uint32_t blocks_max; /* the masks have bits for these only; 0: it has no masks */
	bool has_data;
};

static const struct body greeting = {.fields = {FIELD(features, ANY)}, .n_fields = 1, .list = LIST_NODE};
static const struct body nothing = {.n_fields = 0};
static const struct body tree = {.fields = {FIELD(tree_id, ANY)}, .n_fields = 1};
static const struct body hello = {.fields = {FIELD(size_blocks, PEER_BLOCK_MAX)}, .n_fields = 1};
static const struct body hello_reply = {
    .fields = {FIELD(epoch, EPOCH), FIELD(is_suspect, 1), FIELD(generation_was, ANY)}, .n_fields = 3};
static const struct body trees_reply = {
    .fields = {FIELD(is_last, 1), FIELD(n_entries, PEER_LIST_MAX)}, .n_fields = 2, .list = LIST_TREES};
static const struct body write = {
    .fields = {FIELD(tree_id, ANY), FIELD(first, PEER_BLOCK_MAX), FIELD(n_blocks, PEER_WRITE_BLOCKS),
	       FIELD(epoch, EPOCH), FIELD(zero_blocks, ANY)},
    .n_fields = 5,
    .list = LIST_CRCS,
    .blocks_max = PEER_WRITE_BLOCKS,
    .has_data = true,
};
static const struct body trim = {
    .fields = {FIELD(tree_id, ANY), FIELD(first, PEER_BLOCK_MAX), FIELD(n_blocks, PEER_BLOCK_MAX), FIELD(epoch, EPOCH)},
    .n_fields = 4,
};
static const struct body read = {
    .fields = {FIELD(tree_id, ANY), FIELD(first, PEER_BLOCK_MAX), FIELD(n_blocks, PEER_READ_BLOCKS)},
    .n_fields = 3,
    .blocks_max = PEER_READ_BLOCKS,
};
static const struct body read_reply = {
    .fields = {FIELD(n_blocks, PEER_READ_BLOCKS), FIELD(zero_blocks, ANY), FIELD(bad_blocks, ANY)},
    .n_fields = 3,
    .list = LIST_CRCS,
    .blocks_max = PEER_READ_BLOCKS,
    .has_data = true,
};
static const struct body complete = {.fields = {FIELD(epoch, EPOCH)}, .n_fields = 1};
static const struct body creating = {.fields = {FIELD(tree_id, ANY), FIELD(parent_id, ANY), FIELD(epoch, EPOCH)},
				     .n_fields = 3};
static const struct body forking = {.fields = {FIELD(tree_id, ANY), FIELD(parent_id, ANY), FIELD(epoch, EPOCH),
					       FIELD(child[0], ANY), FIELD(child[1], ANY)},
				    .n_fields = 5};
static const struct body map = {
    .fields = {FIELD(tree_id, ANY), FIELD(first, PEER_BLOCK_MAX), FIELD(n_blocks, PEER_BLOCK_MAX), FIELD(since, EPOCH)},
    .n_fields = 4,
};
static const struct body map_reply = {
    .fields = {FIELD(is_last, 1), FIELD(n_entries, PEER_LIST_MAX)}, .n_fields = 2, .list = LIST_EXTENTS};
static const struct body stamps = {
    .fields = {FIELD(tree_id, ANY), FIELD(first, PEER_BLOCK_MAX), FIELD(n_blocks, PEER_BLOCK_MAX)}, .n_fields = 3};
static const struct body stamps_reply = {
    .fields = {FIELD(is_last, 1), FIELD(n_entries, PEER_LIST_MAX)}, .n_fields = 2, .list = LIST_RUNS};
static const struct body copy = {
    .fields = {FIELD(tree_id, ANY), FIELD(first, PEER_BLOCK_MAX), FIELD(n_blocks, PEER_WRITE_BLOCKS),
	       FIELD(before, ANY), FIELD(zero_blocks, ANY)},
    .n_fields = 5,
    .list = LIST_STAMPS,
    .blocks_max = PEER_WRITE_BLOCKS,
    .has_data = true,
};
static const struct body cut = {.fields = {FIELD(first, PEER_BLOCK_MAX), FIELD(n_blocks, PEER_BLOCK_MAX)},
				.n_fields = 2};
static const struct body copy_holes = {
    .fields = {FIELD(tree_id, ANY), FIELD(first, PEER_BLOCK_MAX), FIELD(n_blocks, PEER_BLOCK_MAX), FIELD(epoch, EPOCH),
	       FIELD(before, ANY)},
    .n_fields = 5,
};
static const struct body heal = {
    .fields = {FIELD(tree_id, ANY), FIELD(first, PEER_BLOCK_MAX), FIELD(n_blocks, PEER_READ_BLOCKS),
	       FIELD(zero_blocks, ANY)},
    .n_fields = 4,
    .list = LIST_CRCS,
    .blocks_max = PEER_READ_BLOCKS,
    .has_data = true,
};
static const struct body disks_reply = {
    .fields = {FIELD(n_entries, PEER_DISKS_MAX)}, .n_fields = 1, .list = LIST_DISKS};
static const struct body measure = {.fields = {FIELD(tree_id, ANY), FIELD(first, PEER_BLOCK_MAX)}, .n_fields = 2};
static const struct body measure_reply = {
    .fields = {FIELD(first, PEER_BLOCK_MAX), FIELD(is_last, 1), FIELD(data_blocks, PEER_BLOCK_MAX),
	       FIELD(own_data_blocks, PEER_BLOCK_MAX), FIELD(own_pages, PEER_BLOCK_MAX)},
    .n_fields = 5,
};
static const struct body swap = {.fields = {FIELD(tree_id, ANY), FIELD(other_id, ANY)}, .n_fields = 2};
static const struct body order = {
    .fields = {FIELD(n_blocks, PEER_TEXT_BLOCKS), FIELD(text_bytes, PEER_TEXT_MAX)},
    .n_fields = 2,
    .list = LIST_CRCS,
    .blocks_max = PEER_TEXT_BLOCKS,
    .has_data = true,
};
static const struct body order_reply = {
    .fields = {FIELD(n_blocks, PEER_TEXT_BLOCKS), FIELD(text_bytes, PEER_TEXT_MAX), FIELD(http_status, 599)},
    .n_fields = 3,
    .list = LIST_CRCS,
    .blocks_max = PEER_TEXT_BLOCKS,
    .has_data = true,
};

struct layout {
	const struct body *request, *reply;
	uint32_t flags; /* that a request may have */
	bool of_volume; /* volume and disk are set; generation and session too: not in a HELLO, nor with PEER_READER */
};

static const struct layout layouts[PEER_MEASURE + 1] = {
    [PEER_GREETING] = {&greeting, &greeting, 0, false},
    [PEER_PING] = {&nothing, &nothing, 0, false},
    [PEER_HELLO] = {&hello, &hello_reply, 0, true},
    [PEER_TREES] = {&tree, &trees_reply, 0, true},
    [PEER_WRITE] = {&write, &nothing, PEER_FUA | PEER_ORDERED, true},
    [PEER_TRIM] = {&trim, &nothing, PEER_FUA, true},
    [PEER_READ] = {&read, &read_reply, PEER_READER, true},
    [PEER_FLUSH] = {&nothing, &nothing, 0, true},
    [PEER_COMPLETE] = {&complete, &nothing, 0, true},
    [PEER_FORK] = {&forking, &nothing, 0, true},
    [PEER_DROP] = {&tree, &nothing, 0, true},
    [PEER_CREATE] = {&creating, &nothing, 0, true},
    [PEER_MAP] = {&map, &map_reply, PEER_READER, true},
    [PEER_STAMPS] = {&stamps, &stamps_reply, 0, true},
    [PEER_COPY] = {&copy, &nothing, 0, true},
    [PEER_CUT] = {&cut, &nothing, 0, true},
    [PEER_FORGET] = {&nothing, &nothing, 0, true},
    [PEER_COPY_HOLES] = {&copy_holes, &nothing, 0, true},
    [PEER_SWAP] = {&swap, &nothing, 0, true},
    [PEER_ORDER] = {&order, &order_reply, 0, false},
    [PEER_DISKS] = {&nothing, &disks_reply, 0, false},
    [PEER_HEAL] = {&heal, &nothing, PEER_READER, true},
    [PEER_DAMAGE] = {&read, &nothing, PEER_READER, true},
    [PEER_MEASURE] = {&measure, &measure_reply, PEER_READER, true},
};

static const struct body *body_of(const struct peer_header *h)
{
	const struct layout *l = &layouts[h->type];
	if (!(h->flags & PEER_REPLY))
		return l->request;
	return h->status == PEER_STATUS_OK ? l->reply : &nothing;
}

static uint64_t *field_at(const struct peer_message *m, size_t offset)
{
	return (uint64_t *)((char *)m + offset);
}

/* Bytes of the list of a body with so many members. */
static uint32_t list_bytes(enum list_kind list, uint64_t n)
{
	quarry_assert(n <= PEER_LIST_MAX);
	switch (list) {
	case LIST_NONE:
		return 0;
	case LIST_CRCS:
		return (uint32_t)(n + 1) / 2 * 8;
	case LIST_STAMPS:
		return (uint32_t)n * 16;
	case LIST_RUNS:
	case LIST_TREES:
	case LIST_EXTENTS:
	case LIST_DISKS:
		return (uint32_t)n * 32;
	case LIST_NODE:
		return 16 + PEER_NAME_BYTES;
	}
	quarry_assert(!"a kind of the list");
	return 0;
}

static uint64_t list_members(const struct body *b, const struct peer_message *m)
{
	if (b->list == LIST_CRCS || b->list == LIST_STAMPS)
		return m->n_blocks;
	return b->list == LIST_NONE || b->list == LIST_NODE ? 0 : m->n_entries;
}

static uint32_t body_bytes_max(const struct body *b)
{
	return b->n_fields * 8 + list_bytes(b->list, b->blocks_max ? b->blocks_max : PEER_LIST_MAX);
}

static uint64_t bits_of(uint64_t n_blocks)
{
	return n_blocks >= 64 ? UINT64_MAX : (1ull << n_blocks) - 1;
}

uint32_t peer_data_blocks(const struct peer_header *h, const struct peer_message *m)
{
	const struct body *b = body_of(h);
	if (!b->has_data)
		return 0;
	quarry_assert(m->n_blocks > 0 && m->n_blocks <= b->blocks_max);
	quarry_assert(m->bad_blocks == 0 || b == &read_reply);
	uint64_t there = bits_of(m->n_blocks) & ~(m->zero_blocks | m->bad_blocks);
	return (uint32_t)__builtin_popcountll(there) + (m->n_blocks > 64);
}

/* ---- headers ---- */

void peer_header_encode(const struct peer_header *h, uint8_t out[static PEER_HEADER_BYTES])
{
	quarry_assert(type_is_known(h->type) && status_is_known(h->status));
	quarry_assert(h->body_bytes <= PEER_BODY_MAX && h->data_bytes <= PEER_DATA_MAX);
	memset(out, 0, PEER_HEADER_BYTES);
	put_le32(out, PEER_MAGIC);
	put_le16(out + 4, PEER_VERSION);
	put_le16(out + 6, (uint16_t)h->type);
	put_le32(out + 8, h->flags);
	put_le32(out + 12, h->status);
	put_le32(out + 16, h->body_bytes);
	put_le32(out + 20, h->data_bytes);
	put_le64(out + 24, h->request_id);
	put_le64(out + 32, h->generation);
	put_le64(out + 40, h->session);
	memcpy(out + 48, h->volume.bytes, 16);
	memcpy(out + 64, h->disk.bytes, 16);
	put_le32(out + 88, h->body_crc);
	put_le32(out + 92, crc32c(0, out, 92));
}

static int printf_like(2, 3) refuse(char why[static PEER_WHY_BYTES], const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(why, PEER_WHY_BYTES, format, args);
	va_end(args);
	return -EBADMSG;
}

/* Flags, status and what it speaks of, for the type. */
static int header_check(const struct peer_header *h, char why[static PEER_WHY_BYTES])
{
	const struct layout *l = &layouts[h->type];
	bool is_reply = h->flags & PEER_REPLY;
	const char *name = peer_type_name(h->type);
	bool is_of_session = h->generation != 0 || !(l->flags & PEER_READER);
	if (h->flags & ~(PEER_REPLY | (is_reply ? 0 : l->flags)))
		return refuse(why, "%s: flags 0x%x are not known", name, h->flags);
	if (!is_reply && h->status != PEER_STATUS_OK)
		return refuse(why, "%s: a request with a status", name);
	if (h->request_id == 0)
		return refuse(why, "%s: request id 0", name);
	if (!l->of_volume)
		return h->generation || h->session || !uuid_is_zero(&h->volume) || !uuid_is_zero(&h->disk)
			   ? refuse(why, "%s: is of no volume, and names one", name)
			   : 0;
	if (uuid_is_zero(&h->volume) || uuid_is_zero(&h->disk))
		return refuse(why, "%s: names no volume or disk", name);
	if (!is_reply && is_of_session == ((h->flags & PEER_READER) != 0))
		return refuse(why, "%s: a generation where there is none, or none where there is one", name);
	if (!is_of_session)
		return h->session ? refuse(why, "%s: a session without a generation", name) : 0;
	if (h->generation == 0)
		return refuse(why, "%s: names no generation", name);
	if (h->type != PEER_HELLO)
		return h->session == 0 ? refuse(why, "%s: without a session", name) : 0;
	bool has_session = is_reply && h->status == PEER_STATUS_OK;
	if ((h->session != 0) != has_session)
		return refuse(why, "HELLO: only its reply has a session");
	return 0;
}

int peer_header_decode(const uint8_t in[static PEER_HEADER_BYTES], struct peer_header *out,
		       char why[static PEER_WHY_BYTES])
{
	unsigned type = get_le16(in + 6), status = get_le32(in + 12);
	if (get_le32(in) != PEER_MAGIC)
		return refuse(why, "not a message of quarry's peers");
	if (get_le32(in + 92) != crc32c(0, in, 92))
		return refuse(why, "the header does not match its checksum");
	if (get_le16(in + 4) != PEER_VERSION)
		return refuse(why, "version %u of the protocol, this node speaks %u", get_le16(in + 4), PEER_VERSION);
	if (!type_is_known(type) || !status_is_known(status))
		return refuse(why, "type %u or status %u is not known", type, status);
	if (get_le64(in + 80) != 0)
		return refuse(why, "bytes that must be zero are not");
	*out = (struct peer_header){
	    .type = (enum peer_type)type,
	    .flags = get_le32(in + 8),
	    .status = (enum peer_status)status,
	    .body_bytes = get_le32(in + 16),
	    .data_bytes = get_le32(in + 20),
	    .body_crc = get_le32(in + 88),
	    .request_id = get_le64(in + 24),
	    .generation = get_le64(in + 32),
	    .session = get_le64(in + 40),
	};
	memcpy(out->volume.bytes, in + 48, 16);
	memcpy(out->disk.bytes, in + 64, 16);
	int res = header_check(out, why);
	if (res < 0)
		return res;
	const struct body *b = body_of(out);
	if (out->body_bytes > body_bytes_max(b) || out->body_bytes < b->n_fields * 8)
		return refuse(why, "%s: a body of %u bytes", peer_type_name(out->type), out->body_bytes);
	if (out->data_bytes > (b->has_data ? PEER_DATA_MAX : 0) || out->data_bytes % BLOCK_BYTES != 0)
		return refuse(why, "%s: %u bytes of data", peer_type_name(out->type), out->data_bytes);
	return 0;
}

/* ---- bodies ---- */

static void list_encode(enum list_kind list, const struct peer_message *m, uint64_t n, uint8_t *out)
{
	memset(out, 0, list_bytes(list, n));
	if (list == LIST_NODE) {
		memcpy(out, m->node.cluster.bytes, 16);
		memcpy(out + 16, m->node.name, strnlen(m->node.name, PEER_NAME_BYTES));
		return;
	}
	for (uint64_t i = 0; i < n; i++) {
		if (list == LIST_CRCS) {
			put_le32(out + i * 4, m->crcs[i]);
		} else if (list == LIST_STAMPS) {
			put_le32(out + i * 16, m->stamps[i].crc);
			put_le32(out + i * 16 + 4, m->stamps[i].is_data);
			put_le64(out + i * 16 + 8, m->stamps[i].epoch);
		} else if (list == LIST_RUNS) {
			put_le32(out + i * 32, m->stamps[i].crc);
			put_le32(out + i * 32 + 4, m->stamps[i].is_data);
			put_le64(out + i * 32 + 8, m->stamps[i].epoch);
			put_le64(out + i * 32 + 16, m->stamps[i].first);
			put_le64(out + i * 32 + 24, m->stamps[i].n_blocks);
		} else if (list == LIST_TREES) {
			put_le64(out + i * 32, m->trees[i].id);
			put_le64(out + i * 32 + 8, m->trees[i].parent_id);
			put_le64(out + i * 32 + 16, m->trees[i].epoch);
			put_le64(out + i * 32 + 24, m->trees[i].is_dying);
		} else if (list == LIST_EXTENTS) {
			put_le64(out + i * 32, m->extents[i].first);
			put_le64(out + i * 32 + 8, m->extents[i].n_blocks);
			put_le64(out + i * 32 + 16, m->extents[i].epoch);
			put_le64(out + i * 32 + 24, m->extents[i].is_data);
		} else if (list == LIST_DISKS) {
			memcpy(out + i * 32, m->disks[i].uuid.bytes, 16);
			put_le64(out + i * 32 + 16, m->disks[i].n_blocks);
			put_le64(out + i * 32 + 24, m->disks[i].room_blocks);
		}
	}
}

static bool stamp_decode(const uint8_t *in, struct peer_stamp *out)
{
	uint32_t is_data = get_le32(in + 4);
	*out = (struct peer_stamp){.crc = get_le32(in), .is_data = is_data, .epoch = get_le64(in + 8)};
	return is_data <= 1 && out->epoch <= EPOCH && (is_data || out->crc == 0);
}

static bool run_decode(const uint8_t *in, struct peer_stamp *out)
{
	bool is_good = stamp_decode(in, out);
	out->first = get_le64(in + 16);
	out->n_blocks = get_le64(in + 24);
	return is_good && out->n_blocks > 0 && out->n_blocks <= (out->is_data ? 1 : PEER_BLOCK_MAX) &&
	       out->first <= PEER_BLOCK_MAX - out->n_blocks;
}

static bool tree_decode(const uint8_t *in, struct peer_tree *out)
{
	uint64_t is_dying = get_le64(in + 24);
	*out = (struct peer_tree){
	    .id = get_le64(in), .parent_id = get_le64(in + 8), .epoch = get_le64(in + 16), .is_dying = is_dying == 1};
	return out->epoch <= EPOCH && is_dying <= 1;
}

static bool extent_decode(const uint8_t *in, struct peer_extent *out)
{
	uint64_t is_data = get_le64(in + 24);
	*out = (struct peer_extent){
	    .first = get_le64(in), .n_blocks = get_le64(in + 8), .epoch = get_le64(in + 16), .is_data = is_data == 1};
	return is_data <= 1 && out->epoch <= EPOCH && out->n_blocks > 0 && out->n_blocks <= PEER_BLOCK_MAX &&
	       out->first <= PEER_BLOCK_MAX - out->n_blocks;
}

static bool disk_decode(const uint8_t *in, struct peer_disk *out)
{
	memcpy(out->uuid.bytes, in, 16);
	out->n_blocks = get_le64(in + 16);
	out->room_blocks = get_le64(in + 24);
	return !uuid_is_zero(&out->uuid) && out->n_blocks <= PEER_BLOCK_MAX && out->room_blocks <= out->n_blocks;
}

static bool node_decode(const uint8_t *in, struct peer_message *m)
{
	memcpy(m->node.cluster.bytes, in, 16);
	memcpy(m->node.name, in + 16, PEER_NAME_BYTES);
	size_t len = strnlen(m->node.name, PEER_NAME_BYTES);
	for (size_t i = 0; i < PEER_NAME_BYTES; i++) { /* people will read it */
		bool is_readable = m->node.name[i] > ' ' && m->node.name[i] <= '~';
		if (i < len ? !is_readable : m->node.name[i] != '\0')
			return false;
	}
	return len > 0 && len < PEER_NAME_BYTES;
}

static bool list_decode(enum list_kind list, const uint8_t *in, uint64_t n, struct peer_message *m)
{
	bool is_good = list != LIST_NODE || node_decode(in, m);
	for (uint64_t i = 0; i < n && is_good; i++) {
		if (list == LIST_CRCS)
			m->crcs[i] = get_le32(in + i * 4);
		else if (list == LIST_STAMPS)
			is_good = stamp_decode(in + i * 16, &m->stamps[i]);
		else if (list == LIST_RUNS)
			is_good = run_decode(in + i * 32, &m->stamps[i]) &&
				  (i == 0 || m->stamps[i].first == m->stamps[i - 1].first + m->stamps[i - 1].n_blocks);
		else if (list == LIST_TREES)
			is_good =
			    tree_decode(in + i * 32, &m->trees[i]) && (i == 0 || m->trees[i].id > m->trees[i - 1].id);
		else if (list == LIST_EXTENTS)
			is_good =
			    extent_decode(in + i * 32, &m->extents[i]) &&
			    (i == 0 || m->extents[i].first >= m->extents[i - 1].first + m->extents[i - 1].n_blocks);
		else if (list == LIST_DISKS)
			is_good = disk_decode(in + i * 32, &m->disks[i]);
	}
	if (list == LIST_CRCS && n % 2 != 0)
		is_good = get_le32(in + n * 4) == 0;
	return is_good;
}

/* Ranges that a single field's limit does not say. */
static const char *fault_of(const struct peer_header *h, const struct body *b, const struct peer_message *m)
{
	bool has_range = b == &write || b == &heal || b == &trim || b == &read || b == &map || b == &stamps ||
			 b == &copy || b == &cut || b == &copy_holes;
	bool is_text = b == &order || b == &order_reply;
	if ((has_range || is_text || b == &read_reply) && m->n_blocks == 0)
		return "no blocks";
	if (is_text && (m->text_bytes == 0 || (m->text_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES != m->n_blocks))
		return "a text that does not end in its last block";
	if (b == &order_reply && m->http_status < 100)
		return "an answer without a status";
	if (has_range && m->first > PEER_BLOCK_MAX - m->n_blocks)
		return "blocks beyond any volume";
	if (b->blocks_max > 0 && (m->zero_blocks | m->bad_blocks) & ~bits_of(m->n_blocks))
		return "bits of blocks that it has not";
	if (m->zero_blocks & m->bad_blocks)
		return "a block that is a hole and cannot be read";
	if (b->has_data && h->data_bytes != peer_data_blocks(h, m) * BLOCK_BYTES)
		return "another number of data blocks than it says";
	for (uint64_t i = 0; b == &copy && i < m->n_blocks; i++) {
		if (m->stamps[i].is_data != peer_block_is_there(m, (uint32_t)i))
			return "a hole with data, or data that is a hole";
	}
	return NULL;
}

void peer_body_encode(struct peer_header *h, const struct peer_message *m, uint8_t *out)
{
	const struct body *b = body_of(h);
	for (uint32_t i = 0; i < b->n_fields; i++) {
		uint64_t value = *field_at(m, b->fields[i].offset);
		quarry_assert(value <= b->fields[i].most);
		put_le64(out + (size_t)i * 8, value);
	}
	uint64_t n = list_members(b, m);
	list_encode(b->list, m, n, out + (size_t)b->n_fields * 8);
	h->body_bytes = b->n_fields * 8 + list_bytes(b->list, n);
	h->data_bytes = peer_data_blocks(h, m) * BLOCK_BYTES;
	h->body_crc = crc32c(0, out, h->body_bytes);
	quarry_assert(h->body_bytes <= PEER_BODY_MAX);
	quarry_assert(!fault_of(h, b, m));
}

int peer_body_decode(const struct peer_header *h, const uint8_t *body, struct peer_message *out,
		     char why[static PEER_WHY_BYTES])
{
	const struct body *b = body_of(h);
	const char *name = peer_type_name(h->type);
	quarry_assert(h->body_bytes >= b->n_fields * 8 && h->body_bytes <= body_bytes_max(b));
	if (crc32c(0, body, h->body_bytes) != h->body_crc)
		return refuse(why, "%s: the body does not match its checksum", name);
	memset(out, 0, offsetof(struct peer_message, crcs)); /* the list is filled as far as it is used */
	for (uint32_t i = 0; i < b->n_fields; i++) {
		uint64_t value = get_le64(body + (size_t)i * 8);
		if (value > b->fields[i].most)
			return refuse(why, "%s: field %u is %llu", name, i + 1, (unsigned long long)value);
		*field_at(out, b->fields[i].offset) = value;
	}
	uint64_t n = list_members(b, out);
	if (h->body_bytes != b->n_fields * 8 + list_bytes(b->list, n))
		return refuse(why, "%s: a body of %u bytes for a list of %llu", name, h->body_bytes,
			      (unsigned long long)n);
	if (!list_decode(b->list, body + (size_t)b->n_fields * 8, n, out))
		return refuse(why, "%s: a member of its list is out of range or order", name);
	const char *fault = fault_of(h, b, out);
	return fault ? refuse(why, "%s: %s", name, fault) : 0;
}
