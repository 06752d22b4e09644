/*
 * snapshot.c: the snapshot commands and `volume clone`.
 */
#include "cli/call.h"
#include "cli/client.h"
#include "cli/handlers.h"
#include "cli/size.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/values.h"
#include "cli/volume.h"

#include <stdio.h>
#include <string.h>

/* "/v1/volumes/NAME/snapshots/SNAP" + suffix, of a checked "NAME@SNAP"; to be freed. */
static char *snapshot_path(const char *name, const char *suffix)
{
	const char *at = strchr(name, '@');
	quarry_assert(at);
	auto_free char *volume = text_format("%.*s", (int)(at - name), name);
	auto_free char *middle = api_path("/v1/volumes/", volume, "/snapshots/");
	return api_path(middle, at + 1, suffix);
}

char *export_path(const char *name)
{
	return strchr(name, '@') ? snapshot_path(name, "") : api_path("/v1/volumes/", name, "");
}

/* ---- look ---- */

static char *snapshot_state(const json_t *snapshot)
{
	bool is_attached = json_array_size(json_object_get(snapshot, "attachments")) > 0;
	return text_format("%s%s%s", text_at(snapshot, "state"), is_attached ? ", attached" : "",
			   bool_at(snapshot, "scheduled") ? ", by schedule" : "");
}

enum status snapshot_list(struct cli *c)
{
	static const char *const headers[] = {"SNAPSHOT", ">SIZE", ">DATA", "CREATED", "STATE"};
	json_auto_t *answer = NULL;
	const char *volume = call_text(c->call, "NAME");
	auto_free char *path = volume ? api_path("/v1/volumes/", volume, "/snapshots") : text_format("/v1/snapshots");
	enum status status = client_get(c, path, &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *snapshot;
	json_array_foreach(json_object_get(answer, "snapshots"), i, snapshot)
	{
		auto_free char *name = text_format("%s@%s", text_at(snapshot, "volume"), text_at(snapshot, "name"));
		auto_free char *state = snapshot_state(snapshot);
		table_text(table, name);
		table_size(table, json_object_get(snapshot, "size_bytes"));
		table_size(table, json_object_get(snapshot, "data_bytes"));
		table_text(table, text_at(snapshot, "created_at"));
		table_text(table, state);
	}
	table_print(table, stdout);
	return DONE;
}

enum status snapshot_show(struct cli *c)
{
	json_auto_t *snapshot = NULL;
	auto_free char *path = snapshot_path(call_text(c->call, "NAME@SNAP"), "");
	enum status status = client_get(c, path, &snapshot);
	if (status != DONE || cli_print_json(c, snapshot))
		return status;
	auto_free char *state = snapshot_state(snapshot);
	field_text(stdout, "volume", text_at(snapshot, "volume"));
	field_text(stdout, "name", text_at(snapshot, "name"));
	field_text(stdout, "state", state);
	field_text(stdout, "created", text_at(snapshot, "created_at"));
	field_size(stdout, "size", json_object_get(snapshot, "size_bytes"));
	field_size(stdout, "data", json_object_get(snapshot, "data_bytes"));
	field_size(stdout, "unique", json_object_get(snapshot, "unique_bytes"));
	field_size(stdout, "shared", json_object_get(snapshot, "shared_bytes"));
	field_size(stdout, "deleting frees", json_object_get(snapshot, "frees_bytes"));
	if (*text_at(snapshot, "unmeasured"))
		field_text(stdout, "not measured", text_at(snapshot, "unmeasured"));
	size_t i;
	json_t *attachment;
	json_array_foreach(json_object_get(snapshot, "attachments"), i, attachment)
	    field_text(stdout, text_at(attachment, "frontend"), text_at(attachment, "uri"));
	return DONE;
}

/* ---- change ---- */

enum status snapshot_create(struct cli *c)
{
	json_auto_t *body = json_object(), *answer = NULL;
	json_t *names = json_array();
	json_array_append_new(names, json_string(call_text(c->call, "NAME@SNAP")));
	for (size_t i = 0; i < call_n_more(c->call); i++)
		json_array_append_new(names, json_string(call_more(c->call, i)));
	json_object_set_new(body, "snapshots", names);
	struct request request = {.method = "POST", .path = "/v1/snapshots", .body = body};
	enum status status = client_call(c, &request, &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	size_t i;
	json_t *name;
	json_array_foreach(names, i, name)
	    printf(is_unchanged(answer) ? "snapshot '%s' exists already; nothing changed\n" : "took snapshot '%s'\n",
		   json_string_value(name));
	return DONE;
}

enum status snapshot_delete(struct cli *c)
{
	json_auto_t *answer = NULL;
	const char *name = call_text(c->call, "NAME@SNAP");
	auto_free char *path = snapshot_path(name, "");
	enum status status = client_call(c, &(struct request){.method = "DELETE", .path = path}, &answer);
	if (status == DONE && !cli_print_json(c, answer))
		printf(is_unchanged(answer) ? "snapshot '%s' was deleted before; nothing changed\n"
					    : "deleted snapshot '%s'\n",
		       name);
	return status;
}

enum status snapshot_rollback(struct cli *c)
{
	json_auto_t *answer = NULL;
	const char *name = call_text(c->call, "NAME@SNAP");
	auto_free char *path = snapshot_path(name, "/rollback");
	enum status status = client_call(c, &(struct request){.method = "POST", .path = path}, &answer);
	if (status == DONE && !cli_print_json(c, answer))
		printf("volume '%s' is as it was at snapshot '%s'%s\n", text_at(answer, "name"), name,
		       is_unchanged(answer) ? " already; nothing changed" : "");
	return status;
}

enum status snapshot_schedule(struct cli *c)
{
	json_auto_t *body = json_object(), *answer = NULL;
	const char *name = call_text(c->call, "NAME");
	auto_free char *path = api_path("/v1/volumes/", name, "/schedule");
	bool is_off = call_has(c->call, "off"), has_every = call_has(c->call, "every");
	if (is_off ? has_every || call_has(c->call, "keep") : !has_every || !call_has(c->call, "keep"))
		return cli_misuse(c, "say either --every TIME --keep N, or --off");
	body_number(c, body, "every_s", "every");
	body_number(c, body, "keep", "keep");
	struct request request = {.method = is_off ? "DELETE" : "PUT", .path = path, .body = is_off ? NULL : body};
	enum status status = client_call(c, &request, &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	if (is_off)
		printf("volume '%s' has no schedule now; its snapshots are kept\n", name);
	else
		printf("volume '%s' gets a snapshot every %s; the last %llu are kept\n", name,
		       call_text(c->call, "every"), (unsigned long long)call_number(c->call, "keep"));
	return DONE;
}

enum status volume_clone(struct cli *c)
{
	json_auto_t *body = json_object(), *volume = NULL;
	const char *name = call_text(c->call, "NAME@SNAP");
	auto_free char *path = snapshot_path(name, "/clone");
	body_text(c, body, "name", "NEW");
	struct request request = {.method = "POST", .path = path, .body = body};
	enum status status = client_call(c, &request, &volume);
	if (status == DONE && !cli_print_json(c, volume))
		printf("volume '%s' is a clone of '%s'%s\n", call_text(c->call, "NEW"), name,
		       is_unchanged(volume) ? " already; nothing changed" : "");
	return status;
}

/* ---- diff ---- */

struct diff {
	json_t *all;  /* --json: every extent; else NULL */
	uint64_t end; /* of the extent at hand, which the next answer may continue */
	uint64_t begin;
	bool is_zero, has_one;
	uint64_t n, bytes;
};

static void diff_flush(struct diff *d)
{
	if (!d->has_one)
		return;
	d->n++;
	d->bytes += d->end - d->begin;
	if (d->all)
		json_array_append_new(d->all,
				      json_pack("{s:I,s:I,s:b}", "offset_bytes", (json_int_t)d->begin, "length_bytes",
						(json_int_t)(d->end - d->begin), "zero", (int)d->is_zero));
	else
		printf("%16llu %16llu  %s\n", (unsigned long long)d->begin, (unsigned long long)(d->end - d->begin),
		       d->is_zero ? "zero" : "data");
	d->has_one = false;
}

static void diff_add(struct diff *d, const json_t *extent)
{
	uint64_t begin = number_at(extent, "offset_bytes"), len = number_at(extent, "length_bytes");
	bool is_zero = bool_at(extent, "zero");
	if (d->has_one && d->end == begin && d->is_zero == is_zero) {
		d->end += len;
		return;
	}
	diff_flush(d);
	*d = (struct diff){.all = d->all,
			   .begin = begin,
			   .end = begin + len,
			   .is_zero = is_zero,
			   .has_one = true,
			   .n = d->n,
			   .bytes = d->bytes};
}

/* Both words name the volume; the second one without a snapshot is the volume as it is now. */
static char *diff_path(const char *from, const char *to)
{
	const char *at = strchr(from, '@'), *until = to ? strchr(to, '@') : NULL;
	const char *volume = to ? to : from;
	auto_free char *name = text_format("%.*s", (int)strcspn(volume, "@"), volume);
	auto_free char *since = to ? text_format("%s", from) : text_format("%s", at + 1);
	auto_free char *base = api_path("/v1/volumes/", name, "/changes?since=");
	auto_free char *with_since = api_path(base, since, "");
	if (!until)
		return text_format("%s", with_since);
	auto_free char *with_until = text_format("%s&until=", with_since);
	return api_path(with_until, until + 1, "");
}

enum status snapshot_diff(struct cli *c)
{
	auto_free char *base = diff_path(call_text(c->call, "NAME@FROM"), call_text(c->call, "NAME@TO"));
	json_auto_t *all = c->is_json ? json_array() : NULL;
	struct diff d = {.all = all};
	uint64_t from = 0, size = 0;
	for (bool has_more = true; has_more;) {
		json_auto_t *answer = NULL;
		auto_free char *path = text_format("%s&from=%llu", base, (unsigned long long)from);
		enum status status = client_get(c, path, &answer);
		if (status != DONE)
			return status;
		size_t i;
		json_t *extent;
		json_array_foreach(json_object_get(answer, "extents"), i, extent) diff_add(&d, extent);
		const json_t *next = json_object_get(answer, "next");
		size = number_at(answer, "size_bytes");
		has_more = json_is_integer(next) && number_at(answer, "next") > from;
		from = number_at(answer, "next");
	}
	diff_flush(&d);
	json_auto_t *value = json_pack("{s:I,s:O*,s:I}", "size_bytes", (json_int_t)size, "extents", all,
				       "changed_bytes", (json_int_t)d.bytes);
	if (cli_print_json(c, value))
		return DONE;
	char text[SIZE_TEXT_BYTES];
	size_to_text(d.bytes, text);
	printf("%llu extent%s, %s\n", (unsigned long long)d.n, d.n == 1 ? "" : "s", text);
	return DONE;
}
