/*
 * peer_format.h: every byte that two nodes say to each other, and the functions that write, read and check them.
 *
 * The functions are plain: no I/O, no state. Each reader takes untrusted bytes: it checks all before it returns anything,
 * and says in one sentence what is wrong. All integers are little-endian.
 *
 *   | header, 96 bytes | body | data: whole blocks |        a request, or its reply: the same type with PEER_REPLY
 *
 * Header        | offset | size | meaning
 *               |      0 |    4 | "QPR1"
 *               |      4 |    2 | version of the protocol: 1
 *               |      6 |    2 | type, enum peer_type
 *               |      8 |    4 | flags
 *               |     12 |    4 | status: of a reply, enum peer_status; of a request 0
 *               |     16 |    4 | length of the body in bytes
 *               |     20 |    4 | length of the data in bytes: blocks of 4,096
 *               |     24 |    8 | request id: grows within a session; the reply has its request's
 *               |     32 |    8 | generation of the volume's attachment; 0 in what is of no volume, or of no session
 *               |     40 |    8 | session; 0 in a HELLO, in what is of none; the reply of a HELLO has the new one
 *               |     48 |   16 | volume
 *               |     64 |   16 | disk that is asked; of a DAMAGE: where the blocks are damaged, a disk of the one who tells
 *               |     80 |    8 | zero
 *               |     88 |    4 | CRC-32C of the body
 *               |     92 |    4 | CRC-32C of the header's first 92 bytes
 *
 * The header is first and of one size, so that a reader knows how much follows before it trusts any of it. The data has no
 * checksum of its own: the CRC-32C of every block is in the body, was computed when the block entered the cluster,
 * and is kept beside the block by whoever stores it.
 *
 * A body is a row of 64-bit fields, as peer_fields() in peer_format.c lists them for each type, then for some types a list:
 *
 * list of       | offset | size | meaning
 * checksums     |     +0 |    4 | CRC-32C of a block; one for each block of the request, then zeros up to 8 bytes
 * stamps        |     +0 |    4 | CRC-32C of a block; 0 of a hole
 *               |     +4 |    4 | 1: a block of data; 0: a hole
 *               |     +8 |    8 | epoch that it was written in; 0: never
 * runs          |     +0 |   16 | the stamp of the blocks, which are alike: one of data, or holes
 *               |    +16 |    8 | first block
 *               |    +24 |    8 | number of blocks
 * trees         |     +0 |    8 | tree id
 *               |     +8 |    8 | parent's id, 0: none
 *               |    +16 |    8 | epoch of its last fork
 *               |    +24 |    8 | 1: it was dropped, and is being freed; 0: it is there
 * extents       |     +0 |    8 | first block
 *               |     +8 |    8 | number of blocks
 *               |    +16 |    8 | highest epoch within
 *               |    +24 |    8 | 1: data; 0: a hole
 * disks         |     +0 |   16 | UUID of a disk that the node serves
 *               |    +16 |    8 | its size in blocks
 *               |    +24 |    8 | of these, what it has room for
 * node          |     +0 |   16 | cluster
 *               |    +16 |   64 | name, in readable ASCII, then zeros: at least one
 *
 * Data: of a WRITE, a COPY, a HEAL and of the reply to a READ, in order, the blocks that are neither holes (bit set in
 * zero_blocks) nor unreadable (bit set in bad_blocks). The masks have 64 bits: a 65th block is always data. Of an ORDER
 * and its reply, a text of text_bytes, then zeros to the end of its last block; what stands in it is not this file's. A
 * reply with another status than 0 has no body and no data.
 */
#pragma once

#include "daemon/core/base.h"

#define PEER_MAGIC        0x31525051u /* "QPR1" */
#define PEER_VERSION      1u
#define PEER_HEADER_BYTES 96u
#define PEER_READ_BLOCKS  64u
/* Of a WRITE or COPY: what one journal record holds, so it is there whole or not. 256 KiB that begin inside a block lie
 * in so many (P5). */
#define PEER_WRITE_BLOCKS  65u
#define PEER_LIST_MAX      256u  /* runs, trees or extents of one message: who wants more asks again */
#define PEER_TEXT_BLOCKS   64u   /* of an ORDER or its reply */
#define PEER_MAP_EXTENTS   128u  /* of the reply to a MAP */
#define PEER_STAMP_RUNS    128u  /* of the reply to a STAMPS */
#define PEER_DISKS_MAX     64u   /* of the reply to a DISKS */
#define PEER_MEASURE_STEPS 4096u /* leaves, at most, of the reply to a MEASURE */
#define PEER_REQUESTS_MAX  128u  /* of one connection, not yet answered: who sends more is cut off */
#define PEER_DATA_MAX      (PEER_WRITE_BLOCKS * BLOCK_BYTES)
#define PEER_TEXT_MAX      (PEER_TEXT_BLOCKS * BLOCK_BYTES)
#define PEER_BODY_MAX      (64u + PEER_LIST_MAX * 32u)
#define PEER_NAME_BYTES    64u
#define PEER_EPOCH_MAX     ((1ull << 48) - 1)
#define PEER_BLOCK_MAX     (1ull << 48) /* no volume has more blocks */
#define PEER_WHY_BYTES     120

/*           type      number  what is asked */
#define PEER_TYPES(X)                                                                                                  \
	X(GREETING, 1) /* of a new connection: who are you? */                                                         \
	X(PING, 2)     /* are you there? */                                                                            \
	X(HELLO, 3)    /* fence the volume at this generation, begin a session */                                      \
	X(TREES, 4)    /* which trees of the volume are there, after this id? */                                       \
	X(WRITE, 5)                                                                                                    \
	X(TRIM, 6)                                                                                                     \
	X(READ, 7)                                                                                                     \
	X(FLUSH, 8)                                                                                                    \
	X(COMPLETE, 9) /* remember that this epoch is complete */                                                      \
	X(FORK, 10)    /* into this volume, or another */                                                              \
	X(DROP, 11)                                                                                                    \
	X(CREATE, 12)                                                                                                  \
	X(MAP, 13)        /* where are data and holes, changed since an epoch? */                                      \
	X(STAMPS, 14)     /* checksums and epochs of these blocks: what a copy compares */                             \
	X(COPY, 15)       /* write, with the source's epochs, where what is there is of an epoch < `before` */         \
	X(CUT, 16)        /* drop a range of all trees: the segment has moved away */                                  \
	X(FORGET, 17)     /* the volume has left this disk */                                                          \
	X(COPY_HOLES, 18) /* the same of up to 4 GiB of holes of one epoch */                                          \
	X(SWAP, 19)       /* two trees exchange what they hold */                                                      \
	X(ORDER, 20)      /* a request of the control API, to be done there: only to whom has PEER_TAKES_ORDERS */     \
	X(DISKS, 21)      /* which disks do you serve, and what have they room for? */                                 \
	X(HEAL, 22)       /* write what is damaged in its place, if this is what its checksum names */                 \
	X(DAMAGE, 23)     /* a scrub has found these blocks damaged: heal them; only to whom has PEER_TAKES_DAMAGE */  \
	X(MEASURE, 24)    /* what does this tree alone point to? Only to whom has PEER_MEASURES */
enum peer_type {
#define X(name, number) PEER_##name = number,
	PEER_TYPES(X)
#undef X
};
const char *peer_type_name(enum peer_type type);

enum {
	PEER_REPLY = 1,   /* this is the answer */
	PEER_FUA = 2,     /* WRITE, TRIM: answered when durable */
	PEER_ORDERED = 4, /* WRITE that merged part of a block [RMWDEP] */
	PEER_READER = 8,  /* READ, MAP, HEAL of a tree that never changes, each DAMAGE and MEASURE: without a session */
};

/* Features, as bits of a GREETING. */
#define PEER_TAKES_ORDERS 1u
#define PEER_TAKES_DAMAGE 2u
#define PEER_MEASURES     4u

/*              status  number  errno */
#define PEER_STATUSES(X)                                                                                               \
	X(OK, 0, 0)                                                                                                    \
	X(FENCED, 1, ESTALE) /* another generation or session is the disk's [SESSION] */                               \
	X(NO_SPACE, 2, ENOSPC)                                                                                         \
	X(IO_ERROR, 3, EIO)     /* damage, or a failed disk */                                                         \
	X(NOT_FOUND, 4, ENOENT) /* no such disk, volume or tree */                                                     \
	X(EXISTS, 5, EEXIST)                                                                                           \
	X(INVALID, 6, EINVAL) /* a request that makes no sense where it was sent */                                    \
	X(BUSY, 7, EBUSY)                                                                                              \
	X(SHUTDOWN, 8, ESHUTDOWN)                                                                                      \
	X(READ_ONLY, 9, EROFS)                                                                                         \
	X(DAMAGED_IN_TRANSIT, 10, EBADMSG) /* a block does not match its checksum */                                   \
	X(NO_MEMORY, 11, ENOMEM)                                                                                       \
	X(FOREIGN, 12, EXDEV) /* of another cluster */                                                                 \
	X(TOO_MANY, 13, EMFILE)                                                                                        \
	X(NOT_SUPPORTED, 14, EOPNOTSUPP) /* this version of quarry does not do it */
enum peer_status {
#define X(name, number, error) PEER_STATUS_##name = number,
	PEER_STATUSES(X)
#undef X
};
/* 0 or -errno, and back: what has no status of its own is an I/O error. */
int peer_status_to_errno(enum peer_status status);
enum peer_status peer_status_of(int res);

struct peer_header {
	enum peer_type type;
	uint32_t flags;
	enum peer_status status;
	uint32_t body_bytes, data_bytes, body_crc;
	uint64_t request_id, generation, session;
	struct uuid volume, disk;
};

struct peer_stamp {
	uint32_t crc;
	bool is_data;
	uint64_t epoch;
	uint64_t first, n_blocks; /* of a run */
};
struct peer_tree {
	uint64_t id, parent_id, epoch;
	bool is_dying;
};
struct peer_disk {
	struct uuid uuid;
	uint64_t n_blocks, room_blocks;
};
struct peer_extent {
	uint64_t first, n_blocks, epoch;
	bool is_data;
};

/* What a body says; which members are in use depends on type and direction. */
struct peer_message {
	uint64_t tree_id, parent_id, first, n_blocks, epoch;
	uint64_t since;                   /* MAP: what changed from it on */
	uint64_t before;                  /* COPY, COPY_HOLES: what is there of this epoch or a later one stays */
	uint64_t other_id;                /* SWAP: the other tree */
	uint64_t child[2];                /* FORK: the volume that it is made in, little-endian halves; 0: the same */
	uint64_t size_blocks;             /* HELLO: of the volume */
	uint64_t zero_blocks, bad_blocks; /* bit i: block i is a hole; cannot be read; a 65th is neither */
	uint64_t is_suspect;              /* HELLO: the disk lost power and has not answered a COMPLETE since */
	uint64_t generation_was;          /* HELLO: the highest of the volume that the disk knew before; 0: none */
	uint64_t is_last;                 /* TREES, MAP, STAMPS, MEASURE: nothing follows */
	/* MEASURE, its reply: all that the tree points to; what it alone does, in what was looked at: from `first` of the
	 * request to that of the reply */
	uint64_t data_blocks, own_data_blocks, own_pages;
	uint64_t features;    /* GREETING: bits that both must have to be used */
	uint64_t n_entries;   /* of trees, extents, runs and disks */
	uint64_t text_bytes;  /* ORDER: of the data */
	uint64_t http_status; /* the same, its reply: of the answer */
	union {
		uint32_t crcs[PEER_WRITE_BLOCKS];
		struct peer_stamp stamps[PEER_LIST_MAX];
		struct peer_tree trees[PEER_LIST_MAX];
		struct peer_extent extents[PEER_LIST_MAX];
		struct peer_disk disks[PEER_DISKS_MAX];
		struct {
			struct uuid cluster;
			char name[PEER_NAME_BYTES];
		} node;
	};
};

/* Lengths and checksum of the body come from peer_body_encode(). */
void peer_header_encode(const struct peer_header *h, uint8_t out[static PEER_HEADER_BYTES]);
/* 0 or -EBADMSG with why: what follows the header is not to be read. */
must_check int peer_header_decode(const uint8_t in[static PEER_HEADER_BYTES], struct peer_header *out,
				  char why[static PEER_WHY_BYTES]);
/* Writes the body (8-byte aligned, room for PEER_BODY_MAX) and sets the header's body_bytes, body_crc and data_bytes; the
 * message is the programmer's, so it is asserted. */
void peer_body_encode(struct peer_header *h, const struct peer_message *m, uint8_t *out);
/* The body that came with a header that was accepted. 0 or -EBADMSG with why. */
must_check int peer_body_decode(const struct peer_header *h, const uint8_t *body, struct peer_message *out,
				char why[static PEER_WHY_BYTES]);
/* How many blocks of data a message has. */
uint32_t peer_data_blocks(const struct peer_header *h, const struct peer_message *m);
/* Of a message that may have data: does block i come with it? */
static inline bool peer_block_is_there(const struct peer_message *m, uint32_t i)
{
	return i >= 64 || !((m->zero_blocks | m->bad_blocks) >> i & 1);
}
