/*
 * transfer.h: what import, export, backup and restore have in common: a volume attached over NBD for as long as it takes.
 */
#pragma once

#include "cli/copy.h"
#include "cli/image.h"

struct transfer {
	struct cli *cli;
	const char *name; /* of the volume, or "VOLUME@SNAPSHOT" */
	const char
	    *fill; /* where the volume that is made will be filled from; NULL: it is filled while it is attached here */
	const char *context; /* a meta context to ask for beside base:allocation; NULL: none */
	struct endpoint volume, other;
	struct interrupt interrupt;
	struct image_target target; /* of an export into a file */
	uint64_t copied_bytes;
	char *uuid;                   /* of the volume that was made; NULL: none */
	bool is_created, is_attached; /* by us */
	/* Of a snapshot: its attachment is there only for copies, of which this is one; and its volume's, which may get another
	 * name meanwhile. */
	bool is_temporary;
	char *snapshot_of;
};

void transfer_begin(struct transfer *t, struct cli *c, const char *name);
/* Makes the volume, which must be a new one, with what --pool and --replicas say. */
must_check enum status transfer_create(struct transfer *t, uint64_t size_bytes);
/* Attaches the volume, unless it is (present: its attachment), and connects to it. */
must_check enum status transfer_connect(struct transfer *t, const json_t *present, bool is_read_only);
/* Undoes what is only there for the transfer: detaches, deletes the volume that was made when status is not DONE. Returns
 * the status that holds then; what goes wrong in the undoing is told behind the first reason. */
must_check enum status transfer_end(struct transfer *t, enum status status);
