/*
 * nbd_rules.h: what a request is answered by the protocol's rules alone, and errno as the wire knows it.
 * Plain functions of their arguments.
 */
#pragma once

#include "frontends/nbd/nbd_format.h"

/* What a connection and its export allow. */
struct nbd_terms {
	uint64_t size_bytes;
	bool is_read_only;
	bool is_structured;      /* structured replies were agreed on */
	bool reports_allocation; /* base:allocation was selected for this export */
	bool reports_bitmaps;    /* a qemu:dirty-bitmap:NAME was */
};

/* error NBD_OK: to be served. Else the reply's error, and why: one phrase for a person. */
struct nbd_verdict {
	uint32_t error;
	const char *why;
};
struct nbd_verdict nbd_judge(const struct nbd_request_header *h, const struct nbd_terms *t);
/* Bytes that follow the request on the wire, whatever the verdict. */
uint32_t nbd_payload_bytes(const struct nbd_request_header *h);
/* The transmission flags of an export under these terms. */
uint16_t nbd_transmission_flags(const struct nbd_terms *t);
/* The wire's error for 0 or -errno of a volume. */
uint32_t nbd_error_of(int res);
/* One phrase for a person. */
const char *nbd_error_text(uint32_t error);
/* "READ", ...; "command 77" is written as "UNKNOWN". */
const char *nbd_command_name(uint16_t command);
