/*
 * usage.c: `quarry usage`: where the space is, by pool, disk and volume.
 */
#include "cli/client.h"
#include "cli/handlers.h"
#include "cli/table.h"
#include "cli/values.h"

static void pools_print(const json_t *pools)
{
	static const char *const headers[] = {"POOL", ">SIZE", ">USED", ">FREE", ">PROVISIONED"};
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *pool;
	json_array_foreach(pools, i, pool)
	{
		table_text(table, text_at(pool, "name"));
		table_size(table, json_object_get(pool, "size_bytes"));
		table_size(table, json_object_get(pool, "used_bytes"));
		table_size(table, json_object_get(pool, "free_bytes"));
		table_size(table, json_object_get(pool, "provisioned_bytes"));
	}
	table_print(table, stdout);
}

static void disks_print(const json_t *disks)
{
	static const char *const headers[] = {"DISK", "POOL", ">SIZE", ">USED", ">FREE"};
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *disk;
	json_array_foreach(disks, i, disk)
	{
		table_text(table, text_at(disk, "name"));
		table_text(table, text_at(disk, "pool"));
		table_size(table, json_object_get(disk, "size_bytes"));
		table_size(table, json_object_get(disk, "used_bytes"));
		table_size(table, json_object_get(disk, "free_bytes"));
	}
	table_print(table, stdout);
}

/* One row per volume and disk; the volume's own figures stand in its first row. */
static void volume_rows(struct table *table, const json_t *volume)
{
	const json_t *disks = json_object_get(volume, "disks");
	size_t n = json_array_size(disks);
	for (size_t i = 0; i < (n ? n : 1); i++) {
		const json_t *disk = json_array_get(disks, i);
		table_text(table, i ? "" : text_at(volume, "name"));
		table_text(table, i ? "" : text_at(volume, "pool"));
		if (i) {
			for (unsigned column = 0; column < 4; column++)
				table_text(table, "");
		} else {
			table_size(table, json_object_get(volume, "size_bytes"));
			table_size(table, json_object_get(volume, "allocated_bytes"));
			table_number(table, json_object_get(volume, "snapshots"));
			table_size(table, json_object_get(volume, "reclaiming_bytes"));
		}
		table_size(table, json_object_get(disk, "allocated_bytes"));
		table_text(table, disk ? text_at(disk, "name") : NULL);
	}
}

static void volumes_print(const json_t *volumes)
{
	static const char *const headers[] = {"VOLUME",     "POOL",        ">SIZE",  ">ALLOCATED",
					      ">SNAPSHOTS", ">RECLAIMING", ">THERE", "DISK"};
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *volume;
	json_array_foreach(volumes, i, volume)
	{
		volume_rows(table, volume);
	}
	table_print(table, stdout);
}

enum status usage_show(struct cli *c)
{
	json_auto_t *answer = NULL;
	enum status status = client_get(c, "/v1/usage", &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	pools_print(json_object_get(answer, "pools"));
	putchar('\n');
	disks_print(json_object_get(answer, "disks"));
	putchar('\n');
	volumes_print(json_object_get(answer, "volumes"));
	return DONE;
}
