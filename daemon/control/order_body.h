/*
 * order_body.h: the body of a command: which keys it may have, and where they go in a struct set_command.
 */
#pragma once

#include "daemon/control/order.h"

enum body_kind {
	BODY_TEXT,   /* a printable text of 1 to size - 1 bytes, without control characters */
	BODY_NAME,   /* a name of a volume or pool */
	BODY_SIZE,   /* bytes, a multiple of 512 */
	BODY_COUNT,  /* a small number, 1 to 16 */
	BODY_QUEUES, /* 1 to 64 */
	BODY_BOOLEAN,
	BODY_DOMAIN,  /* "disk" "node" "rack" "zone" */
	BODY_SECONDS, /* of a schedule: how often */
	BODY_KEEP,    /* of a schedule: how many stay */
	BODY_TARGETS, /* a list of 1 to SET_TARGETS_MAX texts "NAME@SNAP" */
};

struct body_key {
	const char *name; /* NULL ends the list */
	enum body_kind kind;
	size_t offset, size; /* in struct set_command */
	bool is_required;
};

#define BODY_KEYS_MAX 8u

/* Reads a JSON object with no other keys than these. `seen`, when not NULL, gets bit i for key i that was given. 0 or
 * -EINVAL. */
must_check int body_read(const struct order_text *text, const struct body_key *keys, struct set_command *command,
			 uint32_t *seen, struct refusal *why);
/* [A-Za-z0-9][A-Za-z0-9._-]{0,62} */
bool order_name_is_valid(const char *name);
/* "VOLUME@SNAPSHOT", both valid names. 0 or -EINVAL. */
must_check int order_target_read(const char *text, struct set_target *out);
