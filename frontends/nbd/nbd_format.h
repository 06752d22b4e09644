/*
 * nbd_format.h: the bytes of the NBD protocol, as its specification gives them; nothing but the wire.
 *
 * All integers are big-endian, offsets and sizes are in bytes. Messages are encoded and decoded by the plain functions
 * below, never by overlaying a struct: nothing on the wire is aligned.
 *
 * Greeting, server to client              | offset | size | meaning
 *                                         |      0 |    8 | "NBDMAGIC"
 *                                         |      8 |    8 | "IHAVEOPT": newstyle
 *                                         |     16 |    2 | handshake flags
 * Client flags, client to server          |      0 |    4 | must be a subset of what the greeting offered
 *
 * Option, client to server                |      0 |    8 | "IHAVEOPT"
 *                                         |      8 |    4 | option
 *                                         |     12 |    4 | length of the data that follows
 * Option reply, server to client          |      0 |    8 | 0x0003e889045565a9
 *                                         |      8 |    4 | the option it answers
 *                                         |     12 |    4 | reply type; bit 31: an error
 *                                         |     16 |    4 | length of the data that follows
 * Answer to EXPORT_NAME                   |      0 |    8 | size of the export
 *                                         |      8 |    2 | transmission flags
 *                                         |     10 |  124 | zeros, unless NO_ZEROES was agreed on
 *
 * Request, client to server               |      0 |    4 | 0x25609513
 *                                         |      4 |    2 | command flags
 *                                         |      6 |    2 | command
 *                                         |      8 |    8 | cookie, returned as it came
 *                                         |     16 |    8 | offset
 *                                         |     24 |    4 | length; WRITE: as many bytes follow
 * Simple reply, server to client          |      0 |    4 | 0x67446698
 *                                         |      4 |    4 | error; 0 and READ: the data follows
 *                                         |      8 |    8 | cookie
 * Structured reply chunk                  |      0 |    4 | 0x668e33ef
 *                                         |      4 |    2 | chunk flags; bit 0: the last one of this reply
 *                                         |      6 |    2 | chunk type; bit 15: an error
 *                                         |      8 |    8 | cookie
 *                                         |     16 |    4 | length of what follows
 *   OFFSET_DATA                           |     20 |    8 | offset; then the data
 *   OFFSET_HOLE                           |     20 |    8 | offset
 *                                         |     28 |    4 | length of the hole
 *   BLOCK_STATUS                          |     20 |    4 | context id; then one or more of:
 *                                         |     +0 |    4 | length of the extent
 *                                         |     +4 |    4 | its state
 *   ERROR                                 |     20 |    4 | error
 *                                         |     24 |    2 | length of the message; then the message
 */
#pragma once

#include "daemon/core/bytes.h"

/* ---- sizes ---- */

#define NBD_GREETING_BYTES            18u
#define NBD_CLIENT_FLAGS_BYTES        4u
#define NBD_OPTION_HEADER_BYTES       16u
#define NBD_OPTION_REPLY_HEADER_BYTES 20u
#define NBD_EXPORT_ANSWER_BYTES       10u
#define NBD_EXPORT_ANSWER_ZEROES      124u
#define NBD_REQUEST_BYTES             28u
#define NBD_SIMPLE_REPLY_BYTES        16u
#define NBD_CHUNK_HEADER_BYTES        20u
#define NBD_DATA_CHUNK_BYTES          (NBD_CHUNK_HEADER_BYTES + 8u)
#define NBD_HOLE_CHUNK_BYTES          (NBD_CHUNK_HEADER_BYTES + 12u)
#define NBD_STATUS_CHUNK_BYTES        (NBD_CHUNK_HEADER_BYTES + 4u)
#define NBD_ERROR_CHUNK_BYTES         (NBD_CHUNK_HEADER_BYTES + 6u)
#define NBD_EXTENT_BYTES              8u
#define NBD_STRING_MAX                4096u /* no string of the protocol is longer */

/* ---- magic numbers ---- */

#define NBD_GREETING_MAGIC     0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC       0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC 0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC      0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC 0x67446698u
#define NBD_CHUNK_MAGIC        0x668e33efu

/* ---- negotiation ---- */

/* handshake flags, and the client's answer to them: the same bits */
enum {
	NBD_FIXED_NEWSTYLE = 1u << 0,
	NBD_NO_ZEROES = 1u << 1,
};

#define NBD_OPTIONS(X)                                                                                                 \
	X(EXPORT_NAME, 1)                                                                                              \
	X(ABORT, 2)                                                                                                    \
	X(LIST, 3)                                                                                                     \
	X(STARTTLS, 5)                                                                                                 \
	X(INFO, 6)                                                                                                     \
	X(GO, 7)                                                                                                       \
	X(STRUCTURED_REPLY, 8)                                                                                         \
	X(LIST_META_CONTEXT, 9)                                                                                        \
	X(SET_META_CONTEXT, 10)

enum {
#define X(name, number) NBD_OPT_##name = (number),
	NBD_OPTIONS(X)
#undef X
};

#define NBD_REP_ERROR        (1u << 31)
#define NBD_REP_ACK          1u
#define NBD_REP_SERVER       2u
#define NBD_REP_INFO         3u
#define NBD_REP_META_CONTEXT 4u
#define NBD_REP_ERR_UNSUP    (NBD_REP_ERROR | 1u)
#define NBD_REP_ERR_POLICY   (NBD_REP_ERROR | 2u)
#define NBD_REP_ERR_INVALID  (NBD_REP_ERROR | 3u)
#define NBD_REP_ERR_TLS_REQD (NBD_REP_ERROR | 5u)
#define NBD_REP_ERR_UNKNOWN  (NBD_REP_ERROR | 6u)
#define NBD_REP_ERR_SHUTDOWN (NBD_REP_ERROR | 7u)
#define NBD_REP_ERR_TOO_BIG  (NBD_REP_ERROR | 9u)

enum { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

/* transmission flags */
enum {
	NBD_HAS_FLAGS = 1u << 0,
	NBD_READ_ONLY = 1u << 1,
	NBD_SEND_FLUSH = 1u << 2,
	NBD_SEND_FUA = 1u << 3,
	NBD_SEND_TRIM = 1u << 5,
	NBD_SEND_WRITE_ZEROES = 1u << 6,
	NBD_SEND_DF = 1u << 7,
	NBD_CAN_MULTI_CONN = 1u << 8,
	NBD_SEND_CACHE = 1u << 10,
	NBD_SEND_FAST_ZERO = 1u << 11,
};

/* ---- transmission ---- */

#define NBD_COMMANDS(X)                                                                                                \
	X(READ, 0)                                                                                                     \
	X(WRITE, 1)                                                                                                    \
	X(DISC, 2)                                                                                                     \
	X(FLUSH, 3)                                                                                                    \
	X(TRIM, 4)                                                                                                     \
	X(CACHE, 5)                                                                                                    \
	X(WRITE_ZEROES, 6)                                                                                             \
	X(BLOCK_STATUS, 7)

enum {
#define X(name, number) NBD_CMD_##name = (number),
	NBD_COMMANDS(X)
#undef X
	    NBD_N_COMMANDS
};

/* command flags */
enum {
	NBD_CMD_FUA = 1u << 0,
	NBD_CMD_NO_HOLE = 1u << 1,
	NBD_CMD_DF = 1u << 2,
	NBD_CMD_REQ_ONE = 1u << 3,
	NBD_CMD_FAST_ZERO = 1u << 4,
};

#define NBD_CONTEXT_ALLOCATION 1u /* our id for base:allocation */

#define NBD_CHUNK_DONE 1u /* chunk flag: the last chunk of its reply */

#define NBD_CHUNK_NONE         0u
#define NBD_CHUNK_OFFSET_DATA  1u
#define NBD_CHUNK_OFFSET_HOLE  2u
#define NBD_CHUNK_BLOCK_STATUS 5u
#define NBD_CHUNK_ERROR        ((1u << 15) | 1u)

enum { NBD_STATE_HOLE = 1u << 0, NBD_STATE_ZERO = 1u << 1 }; /* of base:allocation */
enum { NBD_STATE_DIRTY = 1u << 0 };                          /* of qemu:dirty-bitmap:NAME */

/* the errors that may be on the wire, whatever errno.h says here */
enum {
	NBD_OK = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

/* ---- encode and decode ---- */

struct nbd_option_header {
	uint64_t magic;
	uint32_t option, len_bytes;
};

static inline struct nbd_option_header nbd_option_header_decode(const uint8_t *p)
{
	return (struct nbd_option_header){
	    .magic = get_be64(p), .option = get_be32(p + 8), .len_bytes = get_be32(p + 12)};
}

static inline void nbd_option_reply_encode(uint8_t *p, uint32_t option, uint32_t type, uint32_t len_bytes)
{
	put_be64(p, NBD_OPTION_REPLY_MAGIC);
	put_be32(p + 8, option);
	put_be32(p + 12, type);
	put_be32(p + 16, len_bytes);
}

struct nbd_request_header {
	uint32_t magic;
	uint16_t flags, command;
	uint64_t cookie; /* opaque: kept in the byte order it came in */
	uint64_t pos_bytes;
	uint32_t len_bytes;
};

static inline struct nbd_request_header nbd_request_decode(const uint8_t *p)
{
	struct nbd_request_header h = {
	    .magic = get_be32(p),
	    .flags = get_be16(p + 4),
	    .command = get_be16(p + 6),
	    .pos_bytes = get_be64(p + 16),
	    .len_bytes = get_be32(p + 24),
	};
	memcpy(&h.cookie, p + 8, 8);
	return h;
}

static inline void nbd_simple_reply_encode(uint8_t *p, uint64_t cookie, uint32_t error)
{
	put_be32(p, NBD_SIMPLE_REPLY_MAGIC);
	put_be32(p + 4, error);
	memcpy(p + 8, &cookie, 8);
}

/* What stands in front of every chunk; len_bytes counts what follows these 20 bytes. */
struct nbd_chunk {
	uint16_t flags, type;
	uint64_t cookie;
	uint32_t len_bytes;
};

static inline void nbd_chunk_encode(uint8_t *p, const struct nbd_chunk *c)
{
	put_be32(p, NBD_CHUNK_MAGIC);
	put_be16(p + 4, c->flags);
	put_be16(p + 6, c->type);
	memcpy(p + 8, &c->cookie, 8);
	put_be32(p + 16, c->len_bytes);
}
