/*
 * checksum.h: the checksums of quarry's formats, computed by isa-l.
 *
 * CRC-32C protects every block that a pointer names; CRC-64 (ECMA-182, reflected, seed 0) is the sum over all
 * the data of one journal record [RECSUM]. Both are pure functions, callable on any thread.
 */
#pragma once

#include "daemon/core/base.h"

#include <sys/uio.h>

/* CRC-32C (Castagnoli, reflected), the usual iSCSI value: crc32c(0, "123456789", 9) == 0xE3069283.
 * `crc` is 0 to begin or the value so far to go on. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len_bytes);
/* CRC-64/ECMA-182 reflected; `crc` is 0 to begin or the value so far to go on. */
uint64_t crc64(uint64_t crc, const void *data, size_t len_bytes);
/* Is every byte zero? */
bool bytes_are_zero(const void *data, size_t len_bytes);
