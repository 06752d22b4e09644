/*
 * nbd_rules.c: the protocol's rules for requests, as plain functions.
 *
 * The specification says which error answers which breach; where it leaves a choice, the comment beside the rule says
 * what was chosen and why.
 *
 * Invariants
 *  1. A request that is judged NBD_OK has a known command, flags that command knows, and a range inside the export in
 *     whole sectors, so that the volume cannot refuse it for its form.
 *  2. Nothing is added to an offset before it is known to be inside the export, so nothing overflows.
 *  3. Only errors that the specification lists leave this file.
 */
#include "frontends/nbd/nbd_rules.h"

#include "daemon/core/buffers.h"
#include "frontends/nbd/nbd_server.h"

#include <errno.h>

/* A read that may not be fragmented goes into one chunk, so into one buffer. The specification asks for 64 KiB. */
#define UNFRAGMENTED_MAX BUFFER_MAX_BYTES
_Static_assert(UNFRAGMENTED_MAX >= 65536, "the protocol's minimum for DF");

/* FUA must be accepted on every command once it was offered, although only three of them write. */
static const uint16_t flags_known[NBD_N_COMMANDS] = {
    [NBD_CMD_READ] = NBD_CMD_FUA | NBD_CMD_DF,
    [NBD_CMD_WRITE] = NBD_CMD_FUA,
    [NBD_CMD_DISC] = NBD_CMD_FUA,
    [NBD_CMD_FLUSH] = NBD_CMD_FUA,
    [NBD_CMD_TRIM] = NBD_CMD_FUA,
    [NBD_CMD_CACHE] = NBD_CMD_FUA,
    [NBD_CMD_WRITE_ZEROES] = NBD_CMD_FUA | NBD_CMD_NO_HOLE | NBD_CMD_FAST_ZERO,
    [NBD_CMD_BLOCK_STATUS] = NBD_CMD_FUA | NBD_CMD_REQ_ONE,
};

static struct nbd_verdict refuse(uint32_t error, const char *why)
{
	quarry_assert(error != NBD_OK);
	return (struct nbd_verdict){.error = error, .why = why};
}

static bool command_changes(uint16_t command)
{
	return command == NBD_CMD_WRITE || command == NBD_CMD_TRIM || command == NBD_CMD_WRITE_ZEROES;
}

static struct nbd_verdict judge_form(const struct nbd_request_header *h, const struct nbd_terms *t)
{
	if (h->command >= NBD_N_COMMANDS)
		return refuse(NBD_EINVAL, "unknown command");
	if ((h->flags & ~flags_known[h->command]) != 0)
		return refuse(NBD_EINVAL, "a flag that this command does not have");
	if ((h->flags & NBD_CMD_DF) && !t->is_structured)
		return refuse(NBD_EINVAL, "DF without structured replies");
	if (h->command == NBD_CMD_BLOCK_STATUS && !t->reports_allocation && !t->reports_bitmaps)
		return refuse(NBD_EINVAL, "no metadata context was selected for this export");
	if (h->command == NBD_CMD_FLUSH && (h->pos_bytes != 0 || h->len_bytes != 0))
		return refuse(NBD_EINVAL, "a flush has no range");
	if (t->is_read_only && command_changes(h->command))
		return refuse(NBD_EPERM, "the export is read-only");
	return (struct nbd_verdict){.error = NBD_OK};
}

static struct nbd_verdict judge_size(const struct nbd_request_header *h)
{
	/* A read carries no payload to us: EOVERFLOW tells the client that smaller ones will do. */
	if (h->command == NBD_CMD_READ && h->len_bytes > NBD_PAYLOAD_MAX)
		return refuse(NBD_EOVERFLOW, "a read of more than 32 MiB");
	if (h->command == NBD_CMD_WRITE && h->len_bytes > NBD_PAYLOAD_MAX)
		return refuse(NBD_EINVAL, "a write of more than 32 MiB");
	if ((h->flags & NBD_CMD_DF) && h->len_bytes > UNFRAGMENTED_MAX)
		return refuse(NBD_EOVERFLOW, "an unfragmented read of more than 1 MiB");
	/* Its answer must describe at least one byte. */
	if (h->command == NBD_CMD_BLOCK_STATUS && h->len_bytes == 0)
		return refuse(NBD_EINVAL, "block status of nothing");
	return (struct nbd_verdict){.error = NBD_OK};
}

static struct nbd_verdict judge_range(const struct nbd_request_header *h, const struct nbd_terms *t)
{
	if (h->pos_bytes > t->size_bytes || h->len_bytes > t->size_bytes - h->pos_bytes) {
		/* The specification asks for ENOSPC where the command would have written data. */
		bool writes = h->command == NBD_CMD_WRITE || h->command == NBD_CMD_WRITE_ZEROES;
		return refuse(writes ? NBD_ENOSPC : NBD_EINVAL, "the range ends beyond the export");
	}
	if (h->pos_bytes % NBD_BLOCK_MIN != 0 || h->len_bytes % NBD_BLOCK_MIN != 0)
		return refuse(NBD_EINVAL, "offset and length must be multiples of 512");
	return (struct nbd_verdict){.error = NBD_OK};
}

struct nbd_verdict nbd_judge(const struct nbd_request_header *h, const struct nbd_terms *t)
{
	quarry_assert(h->magic == NBD_REQUEST_MAGIC);
	quarry_assert(t->is_structured || !t->reports_allocation);
	struct nbd_verdict v = judge_form(h, t);
	if (v.error == NBD_OK)
		v = judge_size(h);
	if (v.error == NBD_OK)
		v = judge_range(h, t);
	quarry_assert((v.error == NBD_OK) == (v.why == NULL));
	return v;
}

uint32_t nbd_payload_bytes(const struct nbd_request_header *h)
{
	return h->command == NBD_CMD_WRITE ? h->len_bytes : 0;
}

uint16_t nbd_transmission_flags(const struct nbd_terms *t)
{
	uint16_t flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_CAN_MULTI_CONN | NBD_SEND_CACHE;
	if (t->is_structured)
		flags |= NBD_SEND_DF;
	if (t->is_read_only)
		return flags | NBD_READ_ONLY;
	return flags | NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO;
}

uint32_t nbd_error_of(int res)
{
	quarry_assert(res <= 0);
	switch (-res) {
	case 0:
		return NBD_OK;
	case EPERM:
	case EACCES:
	case EROFS:
		return NBD_EPERM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case ENOTSUP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	case ENOMEM:
		return NBD_ENOMEM;
	default: /* whatever else went wrong below, the data is not what the client asked for */
		return NBD_EIO;
	}
}

const char *nbd_error_text(uint32_t error)
{
	switch (error) {
	case NBD_OK:
		return "done";
	case NBD_EPERM:
		return "not permitted: the volume is read-only";
	case NBD_EIO:
		return "input/output error: see the server's events";
	case NBD_ENOMEM:
		return "out of memory";
	case NBD_EINVAL:
		return "invalid request";
	case NBD_ENOSPC:
		return "no space left in the pool";
	case NBD_EOVERFLOW:
		return "request too large";
	case NBD_ENOTSUP:
		return "not quicker than writing zeros";
	case NBD_ESHUTDOWN:
		return "the volume is being detached";
	default:
		return "unknown error";
	}
}

const char *nbd_command_name(uint16_t command)
{
	switch (command) {
#define X(name, number)                                                                                                \
	case number:                                                                                                   \
		return #name;
		NBD_COMMANDS(X)
#undef X
	default:
		return "UNKNOWN";
	}
}
