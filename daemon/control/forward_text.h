/*
 * forward_text.h: a request of the control API as one node sends it on to another.
 *
 *   METHOD \n PATH[?QUERY[&QUERY ...]] \n BODY        path and queries as the client sent them, percent-encoded
 *
 * Plain functions; what is read comes from another node and is not trusted.
 */
#pragma once

#include "daemon/control/order.h"

#define FORWARD_TARGET_BYTES_MAX (8 * KIB) /* of path and queries */

/* A new text, to be freed, with zeros from its end to the end of its last block. 0, -ENOMEM, or -E2BIG: it cannot be
 * sent on. */
must_check int forward_text_write(const struct order_text *t, char **out, uint32_t *out_bytes);
/* Splits the text in place; `out` points into it. `text` has a zero behind its last byte. 0 or -EBADMSG. */
must_check int forward_text_read(char *text, size_t text_bytes, struct order_text *out);
