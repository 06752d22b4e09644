/*
 * checksum.c: quarry's checksums, in terms of isa-l's.
 *
 * isa-l takes lengths as int in places and pointers that are not const; both are hidden here.
 *
 * Pure functions; no state, no owner.
 */
#include "daemon/core/checksum.h"

#include <isa-l.h>

/* crc32_iscsi() takes an int: longer data goes in steps of this. */
#define CRC32_STEP_BYTES ((size_t)1 << 30)

/* crc32_iscsi() is the bare register: inverting before and after gives the usual value, and lets it be continued. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len_bytes)
{
	unsigned char *at = (unsigned char *)data;

	while (len_bytes > 0) {
		size_t step = len_bytes < CRC32_STEP_BYTES ? len_bytes : CRC32_STEP_BYTES;
		crc = ~crc32_iscsi(at, (int)step, ~crc);
		at += step;
		len_bytes -= step;
	}
	return crc;
}

/* isa-l inverts this one itself. */
uint64_t crc64(uint64_t crc, const void *data, size_t len_bytes)
{
	if (len_bytes == 0)
		return crc;
	return crc64_ecma_refl(crc, (const unsigned char *)data, len_bytes);
}

bool bytes_are_zero(const void *data, size_t len_bytes)
{
	const unsigned char *bytes = data;

	/* Most data that is not zero shows it at once; the call below costs more than this look. */
	if (len_bytes == 0)
		return true;
	if (bytes[0] != 0 || bytes[len_bytes / 2] != 0)
		return false;
	return isal_zero_detect((void *)data, len_bytes) == 0;
}
