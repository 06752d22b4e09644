/*
 * volume.c: the volume commands that are one request each; import and export are in transfer.c.
 */
#include "cli/volume.h"

#include "cli/call.h"
#include "cli/client.h"
#include "cli/handlers.h"
#include "cli/size.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/values.h"

#include <string.h>

static char *volume_path(const char *name, const char *suffix)
{
	return api_path("/v1/volumes/", name, suffix);
}

/* ---- look ---- */

/* "serving nbd", "serving nbd (read only)", "on n2 nbd"; to be freed. */
static char *state_text(const json_t *volume)
{
	json_t *attachments = json_object_get(volume, "attachments");
	bool is_elsewhere = strcmp(text_at(volume, "state"), "elsewhere") == 0;
	char *text = text_format("%s%s", is_elsewhere ? "on " : "", text_at(volume, is_elsewhere ? "node" : "state"));
	size_t i;
	json_t *attachment;
	json_array_foreach(attachments, i, attachment)
	{
		char *longer = text_format("%s %s%s", text, text_at(attachment, "frontend"),
					   bool_at(attachment, "read_only") ? " (read only)" : "");
		free(text);
		text = longer;
	}
	return text;
}

enum status volume_list(struct cli *c)
{
	static const char *const headers[] = {"NAME", "POOL", ">SIZE", ">ALLOCATED", ">REPLICAS", "STATE"};
	json_auto_t *answer = NULL;
	enum status status = client_get(c, "/v1/volumes", &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *volume;
	json_array_foreach(json_object_get(answer, "volumes"), i, volume)
	{
		auto_free char *state = state_text(volume);
		table_text(table, text_at(volume, "name"));
		table_text(table, text_at(volume, "pool"));
		table_size(table, json_object_get(volume, "size_bytes"));
		table_size(table, json_object_get(volume, "allocated_bytes"));
		table_number(table, json_object_get(volume, "replicas"));
		table_text(table, state);
	}
	table_print(table, stdout);
	return DONE;
}

static void volume_parts_print(const json_t *volume)
{
	size_t i;
	json_t *attachment, *disk;
	json_array_foreach(json_object_get(volume, "attachments"), i, attachment)
	{
		bool is_nbd = text_at(attachment, "frontend")[0] == 'n';
		field_text(stdout, is_nbd ? "nbd" : "vhost-user", text_at(attachment, "uri"));
		if (!json_is_integer(json_object_get(attachment, "clients")))
			continue;
		auto_free char *n = text_format("%llu", (unsigned long long)number_at(attachment, "clients"));
		field_text(stdout, is_nbd ? "nbd clients" : "vhost clients", n);
	}
	json_array_foreach(json_object_get(volume, "disks"), i, disk)
	{
		char size[SIZE_TEXT_BYTES];
		size_to_text(number_at(disk, "allocated_bytes"), size);
		auto_free char *text = text_format("%s, %s", text_at(disk, "name"), size);
		field_text(stdout, "disk", text);
	}
}

static void volume_counters_print(const json_t *counters)
{
	auto_free char *done = text_format(
	    "%llu reads, %llu writes, %llu trims, %llu zeroes, %llu flushes",
	    (unsigned long long)number_at(counters, "reads"), (unsigned long long)number_at(counters, "writes"),
	    (unsigned long long)number_at(counters, "trims"), (unsigned long long)number_at(counters, "zeroes"),
	    (unsigned long long)number_at(counters, "flushes"));
	auto_free char *errors =
	    text_format("%llu, and %llu for lack of space", (unsigned long long)number_at(counters, "errors"),
			(unsigned long long)number_at(counters, "no_space"));
	field_text(stdout, "operations", done);
	field_size(stdout, "read", json_object_get(counters, "read_bytes"));
	field_size(stdout, "written", json_object_get(counters, "write_bytes"));
	field_text(stdout, "errors", errors);
}

static void volume_history_print(const json_t *volume)
{
	const json_t *schedule = json_object_get(volume, "schedule");
	if (json_is_integer(json_object_get(volume, "unique_bytes"))) {
		field_size(stdout, "unique", json_object_get(volume, "unique_bytes"));
		field_size(stdout, "shared", json_object_get(volume, "shared_bytes"));
	}
	if (*text_at(volume, "unmeasured"))
		field_text(stdout, "not measured", text_at(volume, "unmeasured"));
	if (number_at(volume, "reclaiming_bytes") > 0)
		field_size(stdout, "reclaiming", json_object_get(volume, "reclaiming_bytes"));
	auto_free char *snapshots = text_format("%llu", (unsigned long long)number_at(volume, "snapshots"));
	field_text(stdout, "snapshots", snapshots);
	if (*text_at(volume, "cloned_from"))
		field_text(stdout, "cloned from", text_at(volume, "cloned_from"));
	if (!json_is_object(schedule))
		return;
	char every[SIZE_TEXT_BYTES];
	duration_to_text(number_at(schedule, "every_s"), every);
	auto_free char *text =
	    text_format("every %s, keeps %llu, next at %s", every, (unsigned long long)number_at(schedule, "keep"),
			text_at(schedule, "next_at"));
	field_text(stdout, "schedule", text);
}

static void volume_fill_print(const json_t *volume)
{
	const json_t *fill = json_object_get(volume, "fill");
	uint64_t lost = number_at(fill, "unfillable_bytes");
	char filled[SIZE_TEXT_BYTES];
	if (!json_is_object(fill))
		return;
	size_to_text(number_at(fill, "filled_bytes"), filled);
	auto_free char *text = text_format("%s so far, from %s%s", filled, text_at(fill, "source"),
					   bool_at(fill, "active") ? "" : "; nobody does it now");
	field_text(stdout, "filled", text);
	auto_free char *unfillable =
	    ranges_text(lost, number_at(fill, "unfillable_ranges"), json_object_get(fill, "unfillable"));
	if (lost > 0)
		field_text(stdout, "unfillable", unfillable);
}

/* How far a copy that is being resynced is. */
static char *volume_resync_text(const json_t *copy)
{
	char copied[SIZE_TEXT_BYTES], left[SIZE_TEXT_BYTES];
	size_to_text(number_at(copy, "copied_bytes"), copied);
	duration_to_text(number_at(copy, "eta_s"), left);
	return text_format(": %llu %% compared, %s copied%s%s", (unsigned long long)number_at(copy, "percent"), copied,
			   number_at(copy, "eta_s") > 0 ? ", left about " : "",
			   number_at(copy, "eta_s") > 0 ? left : "");
}

/* Which copies are not current, if any. */
static void volume_copies_print(const json_t *volume)
{
	json_t *copies = json_object_get(volume, "copies"), *copy;
	size_t i;
	json_array_foreach(copies, i, copy)
	{
		if (strcmp(text_at(copy, "state"), "current") == 0)
			continue;
		bool is_resyncing = strcmp(text_at(copy, "state"), "resyncing") == 0;
		auto_free char *progress = is_resyncing ? volume_resync_text(copy) : strdup("");
		auto_free char *text =
		    text_format("%s on disk %s%s", text_at(copy, "state"), text_at(copy, "name"), progress);
		field_text(stdout, "copy", text);
	}
	if (number_at(volume, "degraded_bytes") > 0)
		field_size(stdout, "degraded", json_object_get(volume, "degraded_bytes"));
	if (number_at(volume, "surplus_bytes") > 0)
		field_size(stdout, "surplus", json_object_get(volume, "surplus_bytes"));
	if (*text_at(volume, "copies_why"))
		field_text(stdout, "stalled", text_at(volume, "copies_why"));
}

enum status volume_show(struct cli *c)
{
	json_auto_t *volume = NULL;
	auto_free char *path = volume_path(call_text(c->call, "NAME"), "");
	enum status status = client_get(c, path, &volume);
	bool shares = number_at(volume, "snapshots") > 0 || *text_at(volume, "cloned_from");
	if (status == DONE && shares) { /* only then is there something that would have to be measured */
		auto_free char *measured = volume_path(call_text(c->call, "NAME"), "?measure=true");
		json_decref(volume);
		volume = NULL;
		status = client_get(c, measured, &volume);
	}
	if (status != DONE || cli_print_json(c, volume))
		return status;
	auto_free char *state = state_text(volume);
	auto_free char *replicas = text_format("%llu", (unsigned long long)number_at(volume, "replicas"));
	field_text(stdout, "name", text_at(volume, "name"));
	field_text(stdout, "uuid", text_at(volume, "uuid"));
	field_text(stdout, "pool", text_at(volume, "pool"));
	if (*text_at(volume, "node"))
		field_text(stdout, "node", text_at(volume, "node"));
	field_text(stdout, "state", state);
	if (*text_at(volume, "why"))
		field_text(stdout, "why", text_at(volume, "why"));
	field_size(stdout, "size", json_object_get(volume, "size_bytes"));
	field_size(stdout, "allocated", json_object_get(volume, "allocated_bytes"));
	volume_history_print(volume);
	volume_fill_print(volume);
	field_text(stdout, "replicas", replicas);
	volume_copies_print(volume);
	field_text(stdout, "created", text_at(volume, "created_at"));
	volume_parts_print(volume);
	if (json_is_object(json_object_get(volume, "counters")))
		volume_counters_print(json_object_get(volume, "counters"));
	return DONE;
}

/* ---- change ---- */

enum status volume_create(struct cli *c)
{
	json_auto_t *body = json_object(), *volume = NULL;
	body_text(c, body, "name", "NAME");
	body_number(c, body, "size_bytes", "size");
	body_text(c, body, "pool", "pool");
	body_number(c, body, "replicas", "replicas");
	struct request request = {.method = "POST", .path = "/v1/volumes", .body = body};
	enum status status = client_call(c, &request, &volume);
	if (status != DONE || cli_print_json(c, volume))
		return status;
	char size[SIZE_TEXT_BYTES];
	size_to_text(number_at(volume, "size_bytes"), size);
	printf(is_unchanged(volume) ? "volume '%s' of %s exists already; nothing changed\n"
				    : "created volume '%s' of %s\n",
	       call_text(c->call, "NAME"), size);
	return DONE;
}

static enum status volume_patch(struct cli *c, const char *name, const json_t *body, json_t **volume)
{
	auto_free char *path = volume_path(name, "");
	return client_call(c, &(struct request){.method = "PATCH", .path = path, .body = body}, volume);
}

enum status volume_set(struct cli *c)
{
	json_auto_t *body = json_object(), *volume = NULL;
	body_number(c, body, "replicas", "replicas");
	body_number(c, body, "min_replicas", "min-replicas");
	if (json_object_size(body) == 0)
		return cli_misuse(c, "say what to change: --replicas or --min-replicas");
	enum status status = volume_patch(c, call_text(c->call, "NAME"), body, &volume);
	if (status == DONE && !cli_print_json(c, volume))
		printf("changed volume '%s'\n", call_text(c->call, "NAME"));
	return status;
}

enum status volume_resize(struct cli *c)
{
	json_auto_t *body = json_object(), *volume = NULL;
	body_number(c, body, "size_bytes", "SIZE");
	body_flag(c, body, "force", "force");
	enum status status = volume_patch(c, call_text(c->call, "NAME"), body, &volume);
	if (status != DONE || cli_print_json(c, volume))
		return status;
	char size[SIZE_TEXT_BYTES];
	size_to_text(number_at(volume, "size_bytes"), size);
	printf(is_unchanged(volume) ? "volume '%s' has %s already; nothing changed\n" : "volume '%s' has %s now\n",
	       call_text(c->call, "NAME"), size);
	return DONE;
}

enum status volume_rename(struct cli *c)
{
	json_auto_t *body = json_object(), *volume = NULL;
	body_text(c, body, "name", "NEW");
	enum status status = volume_patch(c, call_text(c->call, "OLD"), body, &volume);
	if (status == DONE && !cli_print_json(c, volume))
		printf("volume '%s' is %s '%s'%s\n", call_text(c->call, "OLD"),
		       is_unchanged(volume) ? "already" : "now", call_text(c->call, "NEW"),
		       is_unchanged(volume) ? "; nothing changed" : "");
	return status;
}

enum status volume_move(struct cli *c)
{
	json_auto_t *body = json_object(), *volume = NULL;
	body_text(c, body, "node", "NODE");
	auto_free char *path = volume_path(call_text(c->call, "NAME"), "/move");
	enum status status = client_call(c, &(struct request){.method = "POST", .path = path, .body = body}, &volume);
	if (status == DONE && !cli_print_json(c, volume))
		printf("volume '%s' is served by node '%s' %s\n", call_text(c->call, "NAME"),
		       call_text(c->call, "NODE"), is_unchanged(volume) ? "already; nothing changed" : "from now on");
	return status;
}

enum status volume_delete(struct cli *c)
{
	json_auto_t *answer = NULL;
	auto_free char *path =
	    volume_path(call_text(c->call, "NAME"), call_has(c->call, "snapshots") ? "?snapshots=true" : "");
	enum status status = client_call(c, &(struct request){.method = "DELETE", .path = path}, &answer);
	if (status == DONE && !cli_print_json(c, answer))
		printf(is_unchanged(answer) ? "volume '%s' was deleted before; nothing changed\n"
					    : "deleted volume '%s'\n",
		       call_text(c->call, "NAME"));
	return status;
}

/* ---- attach ---- */

/* The address that means all of the daemon's machine is no way to it: it is reached as it was reached for this answer. */
static const char *uri_from_elsewhere(const struct cli *c, json_t *uri)
{
	static const char *const anywhere[] = {"://0.0.0.0", "://[::]"};
	const char *text = json_string_value(uri);
	for (size_t i = 0; i < array_size(anywhere); i++) {
		const char *at = strstr(text, anywhere[i]);
		const char *rest = at ? at + strlen(anywhere[i]) : "";
		if (!at || !strchr(":/", *rest))
			continue;
		auto_free char *host = client_host(c);
		auto_free char *reached = text_format("%.*s://%s%s", (int)(at - text), text, host, rest);
		json_string_set(uri, reached);
		break;
	}
	return json_string_value(uri);
}

/* On this machine the first one; from elsewhere the first that is no unix socket. */
const char *attachment_uri(const struct cli *c, const json_t *attachment)
{
	size_t i;
	json_t *uri;
	json_array_foreach(json_object_get(attachment, "uris"), i, uri)
	{
		const char *text = json_string_value(uri);
		if (text && client_is_remote(c) && !strstr(text, "+unix:"))
			return uri_from_elsewhere(c, uri);
	}
	return text_at(attachment, "uri");
}

const json_t *attachment_over_nbd(const json_t *object)
{
	size_t i;
	json_t *attachment;
	json_array_foreach(json_object_get(object, "attachments"), i, attachment)
	{
		if (strcmp(text_at(attachment, "frontend"), "nbd") == 0)
			return attachment;
	}
	return NULL;
}

enum status volume_attach_with(struct cli *c, const char *name, const json_t *body, json_t **attachment)
{
	auto_free char *path = volume_path(name, "/attachments");
	enum status status =
	    client_call(c, &(struct request){.method = "POST", .path = path, .body = body}, attachment);
	if (status == DONE && !*attachment_uri(c, *attachment))
		status =
		    cli_refuse(c, "internal", "quarryd gave no URI for volume '%s'; is it of the same release?", name);
	return status;
}

enum status volume_detach_from(struct cli *c, const char *name, const char *suffix, json_t **answer)
{
	auto_free char *path = volume_path(name, suffix);
	return client_call(c, &(struct request){.method = "DELETE", .path = path}, answer);
}

enum status volume_attach(struct cli *c)
{
	json_auto_t *body = json_object(), *attachment = NULL;
	bool is_vhost = call_has(c->call, "vhost-user");
	if (is_vhost == call_has(c->call, "nbd"))
		return cli_misuse(c, "give one of --nbd and --vhost-user");
	if (call_has(c->call, "queues") && !is_vhost)
		return cli_misuse(c, "--queues goes with --vhost-user");
	json_object_set_new(body, "frontend", json_string(is_vhost ? "vhost-user" : "nbd"));
	body_flag(c, body, "read_only", "read-only");
	body_flag(c, body, "takeover", "takeover");
	body_number(c, body, "queues", "queues");
	enum status status = volume_attach_with(c, call_text(c->call, "NAME"), body, &attachment);
	if (status != DONE || cli_print_json(c, attachment))
		return status;
	auto_free char *uri = text_printable(attachment_uri(c, attachment));
	puts(uri);
	return DONE;
}

static bool is_still_attached(struct cli *c, const char *name)
{
	json_auto_t *object = NULL;
	auto_free char *path = export_path(name);
	return client_get(c, path, &object) == DONE && json_array_size(json_object_get(object, "attachments")) > 0;
}

enum status volume_detach(struct cli *c)
{
	json_auto_t *answer = NULL;
	const char *name = call_text(c->call, "NAME");
	bool is_nbd = call_has(c->call, "nbd"), is_vhost = call_has(c->call, "vhost-user");
	const char *suffix = is_nbd == is_vhost ? "/attachments"
			     : is_nbd           ? "/attachments/nbd"
						: "/attachments/vhost-user";
	enum status status = volume_detach_from(c, name, suffix, &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	if (is_nbd != is_vhost && is_still_attached(c, name)) /* over the other, which stays, or was the only one */
		printf(is_unchanged(answer) ? "%s '%s' is not attached over %s; it is over %s\n"
					    : "detached %s '%s' over %s; it stays attached over %s\n",
		       object_noun(name), name, is_nbd ? "NBD" : "vhost-user", is_nbd ? "vhost-user" : "NBD");
	else
		printf(is_unchanged(answer) ? "%s '%s' is not attached; nothing changed\n" : "detached %s '%s'\n",
		       object_noun(name), name);
	return DONE;
}
