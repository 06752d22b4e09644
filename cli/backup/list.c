/*
 * list.c: `quarry backup list`.
 */
#include "cli/backup/files.h"
#include "cli/backup/repository.h"
#include "cli/call.h"
#include "cli/handlers.h"
#include "cli/size.h"
#include "cli/table.h"
#include "cli/text.h"

#include <stdio.h>

static void list_print(const struct repository *r)
{
	static const char *const headers[] = {"BACKUP", "CREATED", ">SIZE", ">DATA", ">STORED", "BASE"};
	auto_table struct table *table = table_create(headers, array_size(headers));
	for (uint32_t i = 0; i < r->n_records; i++) {
		const json_t *description = r->records[i]->description;
		auto_free char *title = record_title(r->records[i]);
		const char *base = record_text(r->records[i], "base");
		table_text(table, title);
		table_text(table, record_text(r->records[i], RECORD_CREATED_AT));
		table_size(table, json_object_get(description, RECORD_SIZE));
		table_size(table, json_object_get(description, RECORD_DATA));
		table_size(table, json_object_get(description, "stored_bytes"));
		table_text(table, *base ? base : NULL);
	}
	table_print(table, stdout);
}

static json_t *list_json(const struct repository *r)
{
	char id[2 * REPOSITORY_ID_BYTES + 1];
	auto_free char *path = text_printable(r->path); /* JSON takes no path that is not UTF-8 */
	json_t *backups = json_array();
	uint64_t n_bytes = 0;
	for (uint32_t i = 0; i < r->n_records; i++)
		json_array_append(backups, r->records[i]->description);
	for (uint32_t i = 0; i < r->n_packs; i++)
		n_bytes += r->packs[i].n_bytes;
	hex_write(id, r->identity.id, REPOSITORY_ID_BYTES);
	return json_pack("{sssssssbsIsIso}", "repository", path, "id", id, "created_at", r->identity.created_at,
			 "encrypted", r->identity.is_encrypted, "packs_bytes", (json_int_t)n_bytes, "chunks",
			 (json_int_t)index_n(r->index), "backups", backups);
}

enum status backup_list(struct cli *c)
{
	struct repository r;
	enum status status = repository_open(c, &r, call_text(c->call, "REPOSITORY"), REPOSITORY_READ);
	if (status == DONE) {
		json_auto_t *value = list_json(&r);
		repository_warn(&r);
		if (!cli_print_json(c, value))
			list_print(&r);
	}
	repository_close(&r);
	return status;
}
