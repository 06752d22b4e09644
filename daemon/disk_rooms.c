/*
 * disk_rooms.c: how full the disks of another node are.
 *
 * What a node says comes over the network and is not trusted: what is no whole number, or more than a disk can hold, is
 * not known. So sums over all disks fit.
 *
 * Plain functions; nothing is owned.
 */
#include "daemon/disk_rooms.h"

#include "volumes/disk/disk_format.h"

#include <jansson.h>
#include <string.h>

static bool number_read(const json_t *o, const char *key, uint64_t *out)
{
	const json_t *value = json_object_get(o, key);
	json_int_t n = json_integer_value(value);
	*out = (uint64_t)n;
	return json_is_integer(value) && n >= 0 && *out <= DISK_MAX_BLOCKS * BLOCK_BYTES;
}

static bool room_read(const json_t *o, const char *node, struct disk_room *out)
{
	const char *of = json_string_value(json_object_get(o, "node"));
	const char *uuid = json_string_value(json_object_get(o, "uuid"));
	return of && uuid && strcmp(of, node) == 0 && uuid_from_text(uuid, &out->disk) == 0 &&
	       number_read(o, "used_bytes", &out->used_bytes) && number_read(o, "free_bytes", &out->free_bytes);
}

void disk_rooms_read(const char *json, const char *node, uint64_t wall_ns, struct disk_rooms *out)
{
	json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
	const json_t *disks = json_object_get(root, "disks");
	out->n = 0;
	for (size_t i = 0; i < json_array_size(disks) && out->n < DISK_ROOMS_MAX; i++) {
		struct disk_room *room = &out->rooms[out->n];
		if (!room_read(json_array_get(disks, i), node, room))
			continue;
		room->wall_ns = wall_ns;
		out->n++;
	}
	json_decref(root);
}

const struct disk_room *disk_rooms_find(const struct disk_rooms *r, const struct uuid *disk)
{
	for (uint32_t i = 0; i < r->n; i++) {
		if (uuid_equal(&r->rooms[i].disk, disk))
			return &r->rooms[i];
	}
	return NULL;
}
