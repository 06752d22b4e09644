/*
 * source.h: what of a volume must be read: which blocks hold data, and which have changed.
 */
#pragma once

#include "cli/backup/format.h"
#include "cli/endpoint.h"

struct source_extent {
	uint64_t end_bytes;
	uint32_t flags;
};

/* The server's newest answer about one context. */
struct source_context {
	const char *name; /* NULL: the server does not tell; all of it is data, or changed */
	struct source_extent *extents;
	uint32_t n, room, next;
};

/* Owner: the thread of the command. */
struct source {
	struct endpoint *volume;
	struct source_context holes, changes;
};

/* Bits by block: a word for each piece of a leaf. */
struct source_masks {
	uint32_t data[LEAF_PIECES];    /* not known to read as zeros */
	uint32_t changed[LEAF_PIECES]; /* since the snapshot that `changes` is about */
};

/* The endpoint is connected; changes: the context about changes, or NULL. */
void source_begin(struct source *s, struct endpoint *volume, const char *changes);
void source_end(struct source *s);
/* What is in one leaf; what lies behind the volume's end is neither data nor changed. Blocks. 0 or an errno. */
must_check int source_look(struct source *s, uint32_t leaf, struct source_masks *masks);
/* Sets the bits of all blocks that the bytes touch. */
void masks_set(uint32_t *mask, uint64_t leaf_bytes, uint64_t from_bytes, uint64_t to_bytes);
