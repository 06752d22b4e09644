/*
 * requests_internal.h: the stage functions of a disk request, for requests.c: what each stage does, not what comes
 * next.
 */
#pragma once

#include "volumes/disk/disk_internal.h"

/* request_read.c */
enum flow request_look(struct disk_io *io);                 /* finds the blocks and submits their reads */
void request_verify(struct disk_io *io);                    /* checks what was read against the pointers */
enum flow request_scan(struct disk_io *io, uint32_t steps); /* MAP, MEASURE */

/* request_change.c */
enum flow request_change(struct disk_io *io); /* everything that has one record */
/* A record without data, into the journal, and what it says: 0; -EAGAIN: waits; or -errno, and nothing has changed. */
must_check int request_record(struct disk_io *io, const struct record *r);
enum flow request_step(struct disk_io *io, uint32_t steps); /* TRIM, one tree of a CUT: leaf by leaf */
void request_step_over(struct disk_io *io); /* TRIM: the disk is too full to copy the leaf at the cursor */

/* request_copy.c */
enum flow request_stamp(struct disk_io *io);                              /* STAMPS */
enum flow request_step_holes(struct disk_io *io, uint32_t steps);         /* COPY_HOLES: leaf by leaf */
enum flow request_step_cut(struct disk_io *io, uint32_t steps);           /* CUT: tree by tree, leaf by leaf */
must_check int request_swap_record(struct disk_io *io, struct record *r); /* SWAP: 0 or -errno */
