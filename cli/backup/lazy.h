/*
 * lazy.h: `quarry backup restore --lazy`.
 */
#pragma once

#include "cli/backup/repository.h"
#include "cli/transfer.h"

/* Makes the volume (or goes on with one that is being filled from this backup), attaches it, says where, and fills it: in
 * a process of its own, or, with --wait, before it returns. What it makes stays, whatever happens. */
must_check enum status lazy_restore(struct cli *c, struct repository *r, const struct record *record,
				    struct transfer *t);
