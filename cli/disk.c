/*
 * disk.c: the disk commands that ask the daemon; `disk check`, which does not, is in disk_check.c.
 *
 * A disk is named by its name, its UUID or the path it was added under. The API knows the first two; a path, which has
 * a slash, is looked up in the list of disks.
 */
#include "cli/call.h"
#include "cli/client.h"
#include "cli/drain.h"
#include "cli/handlers.h"
#include "cli/size.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/values.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* ---- which disk ---- */

/* The path from the root; its last part may be a link, or not there. To be freed; NULL: its folder is not there. */
static char *path_from_root(const char *path)
{
	const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
	auto_free char *folder = slash ? text_format("%.*s", (int)(slash - path + 1), path) : text_format(".");
	auto_free char *real = realpath(folder, NULL);
	return real ? text_format("%s/%s", strcmp(real, "/") == 0 ? "" : real, file) : NULL;
}

/* Without links, where it is there. */
static char *path_real(const char *path)
{
	char *real = realpath(path, NULL);
	return real ? real : path_from_root(path);
}

static bool is_same_path(const char *typed, const char *path)
{
	if (strcmp(typed, path) == 0)
		return true;
	auto_free char *typed_real = path_real(typed);
	auto_free char *known_real = path_real(path);
	return typed_real && known_real && strcmp(typed_real, known_real) == 0;
}

/* The API's path of the disk that the command line names, to be freed. One that may be gone already is for the daemon to
 * know: it remembers what was removed. */
static enum status disk_path(struct cli *c, const char *suffix, bool may_be_gone, char **out)
{
	const char *typed = call_text(c->call, "DISK");
	json_auto_t *answer = NULL;
	if (!strchr(typed, '/')) {
		*out = api_path("/v1/disks/", typed, suffix);
		return DONE;
	}
	enum status status = client_get(c, "/v1/disks", &answer);
	if (status != DONE)
		return status;
	size_t i;
	json_t *disk;
	json_array_foreach(json_object_get(answer, "disks"), i, disk)
	{
		if (is_same_path(typed, text_at(disk, "path"))) {
			*out = api_path("/v1/disks/", text_at(disk, "uuid"), suffix);
			return DONE;
		}
	}
	if (may_be_gone) {
		*out = api_path("/v1/disks/", typed, suffix);
		return DONE;
	}
	return cli_refuse(c, "not-found", "there is no disk '%s'; see 'quarry disk list'", typed);
}

/* ---- add ---- */

/* The daemon has another working directory. A path from the root is left as it is: the links of /dev/disk/by-id are
 * more lasting than what they point to today. */
static enum status absolute_path(struct cli *c, const char *path, char **out)
{
	if (path[0] == '/') {
		*out = text_format("%s", path);
		return DONE;
	}
	if (client_is_remote(c))
		return cli_misuse(c, "PATH '%s' is on another machine; write it from the root, like /srv/disk", path);
	*out = path_from_root(path);
	return *out ? DONE : cli_refuse(c, "local", "cannot find the folder of '%s': %s", path, strerror(errno));
}

/* A sparse file takes its space when blocks are written: what does not fit in its file system then fails the disk. */
static void warn_of_room(const char *path, uint64_t size_bytes)
{
	struct stat st;
	struct statvfs fs;
	char size[SIZE_TEXT_BYTES], room[SIZE_TEXT_BYTES];
	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode) || statvfs(path, &fs) < 0)
		return;
	uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize + (uint64_t)st.st_blocks * 512;
	if (free_bytes >= size_bytes)
		return;
	size_to_text(size_bytes, size);
	size_to_text(free_bytes, room);
	fprintf(stderr,
		"quarry: warning: the file may grow to %s and its file system has %s free; a disk that finds none left "
		"fails. Use --reserve, or keep the room free\n",
		size, room);
}

/* "12% of 10G written" of the disk that the request adds. */
static char *adding_text(struct cli *c, const struct request *request)
{
	json_auto_t *answer = NULL;
	char size[SIZE_TEXT_BYTES];
	size_t i;
	json_t *disk;
	if (client_get(c, "/v1/disks", &answer) != DONE)
		return NULL;
	json_array_foreach(json_object_get(answer, "adding"), i, disk)
	{
		uint64_t total = number_at(disk, "size_bytes"), written = number_at(disk, "written_bytes");
		if (strcmp(text_at(disk, "path"), text_at(request->body, "path")) != 0 || total == 0)
			continue;
		size_to_text(total, size);
		return text_format("%u%% of %s written", (unsigned)(100.0 * (double)written / (double)total), size);
	}
	return NULL;
}

enum status disk_add(struct cli *c)
{
	json_auto_t *body = json_object(), *disk = NULL;
	auto_free char *path = NULL;
	enum status status = absolute_path(c, call_text(c->call, "PATH"), &path);
	if (status != DONE)
		return status;
	json_t *path_value = json_string(path);
	if (!path_value)
		return cli_misuse(c, "PATH '%s' is not UTF-8", path);
	json_object_set_new(body, "path", path_value);
	body_number(c, body, "size_bytes", "size");
	body_text(c, body, "pool", "pool");
	body_flag(c, body, "reserve", "reserve");
	body_flag(c, body, "force", "force");
	body_flag(c, body, "accept_older", "accept-older");
	struct request request = {.method = "POST",
				  .path = "/v1/disks",
				  .body = body,
				  .timeout_s = TIMEOUT_NEVER_S,
				  .progress = "formatting",
				  .how_far = call_has(c->call, "reserve") ? adding_text : NULL};
	status = client_call(c, &request, &disk);
	if (status != DONE || cli_print_json(c, disk))
		return status;
	char size[SIZE_TEXT_BYTES];
	size_to_text(number_at(disk, "size_bytes"), size);
	auto_free char *name = text_printable(text_at(disk, "name"));
	auto_free char *pool = text_printable(text_at(disk, "pool"));
	if (is_unchanged(disk))
		printf("disk '%s' of %s is in pool '%s' already; nothing changed\n", name, size, pool);
	else
		printf("added disk '%s' of %s to pool '%s'\n", name, size, pool);
	if (!client_is_remote(c))
		warn_of_room(path, number_at(disk, "size_bytes"));
	return DONE;
}

/* ---- look ---- */

enum status disk_list(struct cli *c)
{
	static const char *const headers[] = {"NAME", "POOL", "STATE", ">SIZE", ">USED", ">FREE", "PATH"};
	json_auto_t *answer = NULL;
	enum status status = client_get(c, "/v1/disks", &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *disk;
	json_array_foreach(json_object_get(answer, "disks"), i, disk)
	{
		table_text(table, text_at(disk, "name"));
		table_text(table, text_at(disk, "pool"));
		table_text(table, drain_state(disk));
		table_size(table, json_object_get(disk, "size_bytes"));
		table_size(table, json_object_get(disk, "used_bytes"));
		table_size(table, json_object_get(disk, "free_bytes"));
		table_text(table, text_at(disk, "path"));
	}
	table_print(table, stdout);
	return DONE;
}

/* ", 3 of them healed"; "": none is. */
static char *scrub_healed_text(const json_t *scrub)
{
	unsigned long long healed = number_at(scrub, "healed_blocks");
	return healed > 0 ? text_format(", %llu of them healed", healed) : text_format("%s", "");
}

/* "running, 12% of 10G, 0 bad blocks", "ended at ..., ..." or "never". */
static char *scrub_text(const json_t *scrub)
{
	uint64_t done = number_at(scrub, "done_bytes"), total = number_at(scrub, "total_bytes");
	unsigned long long bad = number_at(scrub, "bad_blocks");
	char size[SIZE_TEXT_BYTES];
	auto_free char *healed = scrub_healed_text(scrub);
	size_to_text(total, size);
	if (bool_at(scrub, "running"))
		return text_format("running, %u%% of %s, %llu bad blocks%s",
				   total ? (unsigned)(100.0 * (double)done / (double)total) : 100u, size, bad, healed);
	if (*text_at(scrub, "ended_at"))
		return text_format("ended at %s, %llu bad blocks%s", text_at(scrub, "ended_at"), bad, healed);
	return text_format("never");
}

static char *disk_left(const json_t *drain)
{
	char size[SIZE_TEXT_BYTES];
	size_to_text(number_at(drain, "left_bytes"), size);
	return text_format("%s", size);
}

static const struct drain_kind disk_kind = {
    .noun = "disk", .when_done = "it holds nothing", .when_stalled = "cannot go on", .left = disk_left};

static void counters_print(const json_t *counters)
{
	auto_free char *done = text_format(
	    "%llu reads, %llu writes, %llu trims, %llu flushes", (unsigned long long)number_at(counters, "reads"),
	    (unsigned long long)number_at(counters, "writes"), (unsigned long long)number_at(counters, "trims"),
	    (unsigned long long)number_at(counters, "flushes"));
	auto_free char *errors = text_format("%llu checksums, %llu input or output",
					     (unsigned long long)number_at(counters, "checksum_errors"),
					     (unsigned long long)number_at(counters, "io_errors"));
	field_text(stdout, "operations", done);
	field_size(stdout, "read", json_object_get(counters, "read_bytes"));
	field_size(stdout, "written", json_object_get(counters, "write_bytes"));
	field_text(stdout, "errors", errors);
}

enum status disk_show(struct cli *c)
{
	json_auto_t *disk = NULL;
	auto_free char *path = NULL;
	enum status status = disk_path(c, "", false, &path);
	if (status == DONE)
		status = client_get(c, path, &disk);
	if (status != DONE || cli_print_json(c, disk))
		return status;
	auto_free char *scrub = scrub_text(json_object_get(disk, "scrub"));
	field_text(stdout, "name", text_at(disk, "name"));
	field_text(stdout, "uuid", text_at(disk, "uuid"));
	field_text(stdout, "node", text_at(disk, "node"));
	field_text(stdout, "path", text_at(disk, "path"));
	field_text(stdout, "pool", text_at(disk, "pool"));
	field_text(stdout, "state", text_at(disk, "state"));
	if (*text_at(disk, "why"))
		field_text(stdout, "why", text_at(disk, "why"));
	field_text(stdout, "reserved", bool_at(disk, "reserved") ? "yes" : "no");
	field_size(stdout, "size", json_object_get(disk, "size_bytes"));
	field_size(stdout, "used", json_object_get(disk, "used_bytes"));
	field_size(stdout, "free", json_object_get(disk, "free_bytes"));
	if (*text_at(disk, "sampled_at"))
		field_text(stdout, "as of", text_at(disk, "sampled_at"));
	field_size(stdout, "waiting", json_object_get(disk, "waiting_bytes"));
	field_size(stdout, "reserve", json_object_get(disk, "reserve_bytes"));
	if (json_is_object(json_object_get(disk, "drain"))) {
		auto_free char *drain = drain_text(&disk_kind, json_object_get(disk, "drain"));
		field_text(stdout, "drain", drain);
	}
	field_text(stdout, "scrub", scrub);
	if (json_is_object(json_object_get(disk, "counters")))
		counters_print(json_object_get(disk, "counters"));
	return DONE;
}

/* ---- remove ---- */

enum status disk_remove(struct cli *c)
{
	json_auto_t *answer = NULL;
	auto_free char *path = NULL;
	enum status status = disk_path(c, call_has(c->call, "force") ? "?force=true" : "", true, &path);
	if (status == DONE)
		status = client_call(
		    c,
		    &(struct request){
			.method = "DELETE", .path = path, .timeout_s = TIMEOUT_NEVER_S, .progress = "closing the disk"},
		    &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	printf(is_unchanged(answer) ? "disk '%s' was removed before; nothing changed\n" : "removed disk '%s'\n",
	       call_text(c->call, "DISK"));
	return DONE;
}

/* ---- drain ---- */

enum status disk_drain(struct cli *c)
{
	auto_free char *path = NULL;
	enum status status = disk_path(c, "", false, &path);
	return status == DONE ? drain_order(c, &disk_kind, path) : status;
}

/* ---- scrub ---- */

static char *scrub_going_on(const json_t *disk, const void *context)
{
	const json_t *scrub = json_object_get(disk, "scrub");
	return bool_at(scrub, "running") || bool_at(scrub, "healing") ? scrub_text(scrub) : NULL;
}

enum status disk_scrub(struct cli *c)
{
	json_auto_t *disk = NULL;
	auto_free char *path = NULL, *path_scrub = NULL;
	enum status status = disk_path(c, "", false, &path);
	if (status != DONE)
		return status;
	path_scrub = text_format("%s/scrub", path);
	status = client_call(c, &(struct request){.method = "POST", .path = path_scrub}, &disk);
	if (status == DONE && call_has(c->call, "wait"))
		status = client_watch(c, path, scrub_going_on, NULL, &disk);
	if (status != DONE)
		return status;
	auto_free char *name = text_printable(text_at(disk, "name"));
	auto_free char *text = scrub_text(json_object_get(disk, "scrub"));
	uint64_t bad = number_at(json_object_get(disk, "scrub"), "bad_blocks") -
		       number_at(json_object_get(disk, "scrub"), "healed_blocks");
	if (!cli_print_json(c, disk))
		printf("disk '%s': scrub %s\n", name, text);
	if (call_has(c->call, "wait") && bad > 0)
		return cli_refuse(c, "io-error", "disk '%s' has %llu bad blocks; 'quarry events' names them", name,
				  (unsigned long long)bad);
	return DONE;
}
