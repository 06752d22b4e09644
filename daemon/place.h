/*
 * place.h: the folder that a daemon of a cluster has to itself, and how it is called for others.
 */
#pragma once

#include "daemon/core/base.h"

#define PLACE_IDENTITY_BYTES 150
#define PLACE_WHY_BYTES      400

struct place {
	int fd; /* of the lock; -1: it is not held */
	/* "HOST:FOLDER (...)": no two daemons that run have the same; one that is restarted on this machine keeps it. */
	char identity[PLACE_IDENTITY_BYTES];
};

/* Locks the folder against another daemon, for the node of this name. 0; -EBUSY another has it; -EINVAL it is the
 * folder of a node of another name; or -errno; with a sentence in why. */
must_check int place_take(struct place *p, const char *folder, const char *node, char why[static PLACE_WHY_BYTES]);
void place_leave(struct place *p);
