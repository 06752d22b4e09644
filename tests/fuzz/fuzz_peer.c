/*
 * fuzz_peer.c: any bytes as a message between nodes: header, then body.
 *
 * A header that is accepted, and a body that is, must be written again as the same bytes, so that nothing is said in two
 * ways. Checksums are set right first: else no input would get past them.
 */
#include "daemon/core/bytes.h"
#include "daemon/core/checksum.h"
#include "replication/peer_format.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Exactly as many bytes as the header says, so that a sanitizer sees one too far. */
static void try_body(const struct peer_header *h, const uint8_t *data, size_t size)
{
	struct peer_header right = *h;
	struct peer_message *m = malloc(sizeof(*m));
	uint8_t *body = malloc(h->body_bytes ? h->body_bytes : 1), *again = malloc(PEER_BODY_MAX);
	char why[PEER_WHY_BYTES];
	if (!m || !body || !again)
		abort();
	memset(body, 0, h->body_bytes);
	if (size > 0)
		memcpy(body, data, min_u64(size, h->body_bytes));
	right.body_crc = crc32c(0, body, h->body_bytes);
	if (peer_body_decode(&right, body, m, why) == 0) {
		struct peer_header encoded = right;
		encoded.body_bytes = encoded.data_bytes = encoded.body_crc = 0;
		peer_body_encode(&encoded, m, again);
		quarry_assert(encoded.body_bytes == right.body_bytes && encoded.data_bytes == right.data_bytes);
		quarry_assert(memcmp(again, body, right.body_bytes) == 0);
	}
	free(m);
	free(body);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t header[PEER_HEADER_BYTES] = {0}, again[PEER_HEADER_BYTES];
	struct peer_header h;
	char why[PEER_WHY_BYTES];
	memcpy(header, data, min_u64(size, sizeof(header)));
	(void)!peer_header_decode(header, &h, why); /* as it came */
	put_le32(header, PEER_MAGIC);
	put_le16(header + 4, PEER_VERSION);
	put_le32(header + 92, crc32c(0, header, 92));
	if (peer_header_decode(header, &h, why) != 0)
		return 0;
	peer_header_encode(&h, again);
	quarry_assert(memcmp(again, header, sizeof(header)) == 0);
	try_body(&h, data + min_u64(size, sizeof(header)), size - min_u64(size, sizeof(header)));
	return 0;
}
