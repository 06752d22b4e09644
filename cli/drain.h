/*
 * drain.h: draining a disk, or a node: what `disk drain` and `node drain` have in common.
 */
#pragma once

#include "cli/cli.h"

struct drain_kind {
	const char *noun;                   /* "disk" */
	const char *when_done;              /* "it holds nothing" */
	const char *when_stalled;           /* "cannot go on" */
	char *(*left)(const json_t *drain); /* what is to go: "2.5G"; to be freed */
};

/* "drained" or "draining"; else, when the object has no drain, what it says of its state. */
const char *drain_state(const json_t *object);
/* "2.5G to go, about 13 min", "2.5G to go, cannot go on: ...", "done, it holds nothing"; to be freed. */
char *drain_text(const struct drain_kind *kind, const json_t *drain);
/* Begins or, with --cancel, ends the draining of the object at this path of the API; with --wait, stays until it is done. */
must_check enum status drain_order(struct cli *c, const struct drain_kind *kind, const char *path);
