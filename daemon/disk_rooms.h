/*
 * disk_rooms.h: how full the disks of another node are, as it has told.
 */
#pragma once

#include "daemon/core/base.h"

#define DISK_ROOMS_MAX 64u /* of one node; what more it tells is not kept */

struct disk_room {
	struct uuid disk;
	uint64_t used_bytes, free_bytes;
	uint64_t wall_ns; /* when it was so; 0: it is not known */
};

struct disk_rooms {
	struct disk_room rooms[DISK_ROOMS_MAX];
	uint32_t n;
};

/* The answer to GET /v1/disks: of the disks that are the node's own. What cannot be read is left out. */
void disk_rooms_read(const char *json, const char *node, uint64_t wall_ns, struct disk_rooms *out);
const struct disk_room *disk_rooms_find(const struct disk_rooms *r, const struct uuid *disk); /* NULL: not known */
