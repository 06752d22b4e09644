/*
 * transfer.c: `quarry volume import` and `quarry volume export`.
 *
 * The volume is attached over NBD for as long as it takes, and this process copies between that and the file, the
 * device or the server on the other side.
 *
 * 1. What runs a program (qemu-nbd) is opened before signals are held back, so that the program is born with none held.
 *    What must be undone (a volume, an attachment) is done after, so that Ctrl-C leaves nothing behind.
 * 2. An import makes its volume. One that fails deletes it again, but no other that has its name by then; an export that
 *    fails removes the file that it made.
 * 3. A volume that was attached before stays attached, also when that happened a moment ago. What is there already is
 *    overwritten only when the user insists. A snapshot may be copied several times at once: the daemon knows which of its
 *    attachments are for that, and the last copy takes it away.
 * 4. What was copied is read back and verified, unless the user does without: a copy that is not looked at is only a
 *    hope, and whoever makes one often deletes what it was made of.
 */
#include "cli/transfer.h"
#include "cli/call.h"
#include "cli/client.h"
#include "cli/copy.h"
#include "cli/handlers.h"
#include "cli/image.h"
#include "cli/size.h"
#include "cli/text.h"
#include "cli/values.h"
#include "cli/volume.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SECTOR_BYTES   512u
#define LOOK_BYTES     (1u << 20) /* of each run of data on a server */
#define SNAPSHOT_TRIES 4u

void transfer_begin(struct transfer *t, struct cli *c, const char *name)
{
	*t = (struct transfer){.cli = c, .name = name, .interrupt = {.fd = -1}};
}

/* "/v1/volumes/VOLUME", of the volume that a snapshot is of; to be freed. */
static char *snapshot_volume_path(const struct transfer *t)
{
	auto_free char *volume = text_format("%.*s", (int)(strchr(t->name, '@') - t->name), t->name);
	return api_path("/v1/volumes/", volume, "");
}

/* Another copy of it may end between our asking and our connecting, and take the attachment with it. */
static enum status snapshot_connect(struct transfer *t)
{
	json_auto_t *volume = NULL, *body = json_pack("{sssbsb}", "frontend", "nbd", "read_only", 1, "temporary", 1);
	auto_free char *path = snapshot_volume_path(t);
	enum status status = client_get(t->cli, path, &volume);
	if (status != DONE)
		return status;
	t->snapshot_of = text_format("%s", text_at(volume, "uuid"));
	for (unsigned i = 0; i < SNAPSHOT_TRIES; i++) {
		json_auto_t *attachment = NULL;
		endpoint_close(&t->volume);
		status = volume_attach_with(t->cli, t->name, body, &attachment);
		if (status != DONE)
			return status;
		t->is_temporary = bool_at(attachment, "temporary");
		status = endpoint_open_attachment(t->cli, &t->volume, attachment_uri(t->cli, attachment), t->context);
		if (status == DONE || !t->is_temporary)
			break;
	}
	return status;
}

enum status transfer_connect(struct transfer *t, const json_t *present, bool is_read_only)
{
	json_auto_t *attachment = NULL;
	enum status status = DONE;
	if (strchr(t->name, '@'))
		return snapshot_connect(t);
	if (present) {
		attachment = json_incref((json_t *)present);
	} else {
		json_auto_t *body = json_pack("{sssb}", "frontend", "nbd", "read_only", is_read_only);
		status = volume_attach_with(t->cli, t->name, body, &attachment);
		t->is_attached = status == DONE && !is_unchanged(attachment);
	}
	if (status != DONE)
		return status;
	return endpoint_open_attachment(t->cli, &t->volume, attachment_uri(t->cli, attachment), t->context);
}

/* The snapshot's name now, if its volume was given another one meanwhile; to be freed. NULL: the volume is gone. */
static char *snapshot_name_now(struct transfer *t)
{
	json_auto_t *answer = NULL;
	size_t i;
	json_t *volume;
	if (client_get(t->cli, "/v1/volumes", &answer) != DONE)
		return NULL;
	json_array_foreach(json_object_get(answer, "volumes"), i, volume)
	{
		if (strcmp(text_at(volume, "uuid"), t->snapshot_of) == 0)
			return text_format("%s%s", text_at(volume, "name"), strchr(t->name, '@'));
	}
	return NULL;
}

/* Another copy of the snapshot may still be under way, and then does this at its end. */
static enum status snapshot_let_go(struct transfer *t)
{
	json_auto_t *volume = NULL;
	auto_free char *path = snapshot_volume_path(t), *now = NULL;
	bool is_same =
	    client_get(t->cli, path, &volume) == DONE && strcmp(text_at(volume, "uuid"), t->snapshot_of) == 0;
	if (!is_same)
		now = snapshot_name_now(t);
	return is_same || now ? volume_detach_from(t->cli, now ? now : t->name, "/attachments/nbd?temporary=true", NULL)
			      : DONE;
}

static enum status transfer_detach(struct transfer *t)
{
	if (t->is_temporary)
		return snapshot_let_go(t);
	return t->is_attached ? volume_detach_from(t->cli, t->name, "/attachments/nbd", NULL) : DONE;
}

/* Has another volume the name of the one that was made? Somebody may have deleted that, and made this. */
static bool volume_is_other(struct transfer *t)
{
	json_auto_t *volume = NULL;
	auto_free char *path = api_path("/v1/volumes/", t->name, "");
	return client_get(t->cli, path, &volume) == DONE && strcmp(text_at(volume, "uuid"), t->uuid) != 0;
}

enum status transfer_end(struct transfer *t, enum status status)
{
	struct cli *c = t->cli;
	struct failure first = c->failure;
	endpoint_close(&t->volume);
	endpoint_close(&t->other);
	bool is_other = status != DONE && t->is_created && volume_is_other(t);
	enum status undone = is_other ? DONE : transfer_detach(t);
	if (undone != DONE && status == DONE)
		status = cli_refuse(c, c->failure.code, "all is copied, but %s '%s' is still attached: %s",
				    object_noun(t->name), t->name, c->failure.text);
	else if (is_other) {
		status =
		    cli_refuse(c, first.code,
			       "%s; volume '%s' was deleted meanwhile, and the one that has its name now is left alone",
			       first.text, t->name);
	} else if (status != DONE && t->is_created) {
		auto_free char *path = api_path("/v1/volumes/", t->name, "");
		undone = client_call(c, &(struct request){.method = "DELETE", .path = path}, NULL);
		status = cli_refuse(c, first.code, "%s; volume '%s' was %s", first.text, t->name,
				    undone == DONE ? "deleted again" : "left incomplete: delete it");
	} else if (status != DONE) {
		c->failure = first;
	}
	if (status != DONE)
		image_target_drop(&t->target);
	free(t->target.path);
	free(t->uuid);
	free(t->snapshot_of);
	interrupt_end(&t->interrupt);
	return status;
}

static bool transfer_is_verified(const struct transfer *t)
{
	return !call_has(t->cli->call, "no-verify");
}

static enum status transfer_copy(struct transfer *t, struct endpoint *source, struct endpoint *target)
{
	struct copy_job job = {
	    .source = source, .target = target, .interrupt = &t->interrupt, .is_verified = transfer_is_verified(t)};
	return copy_run(t->cli, &job, &t->copied_bytes);
}

/* ---- import ---- */

static enum status volume_refuse_existing(struct cli *c, const char *name)
{
	return cli_refuse(c, "exists", "volume '%s' exists; a new one is made: choose another name", name);
}

/* A second create of the same volume succeeds, and would copy over the data of the first. One that is being deleted has
 * given up its name. */
static enum status volume_is_new(struct cli *c, const char *name)
{
	json_auto_t *volume = NULL;
	auto_free char *path = api_path("/v1/volumes/", name, "");
	enum status status = client_get(c, path, &volume);
	if (status == DONE && strcmp(text_at(volume, "state"), "deleting") != 0)
		return volume_refuse_existing(c, name);
	return status == DONE || strcmp(c->failure.code, "not-found") == 0 ? DONE : status;
}

enum status transfer_create(struct transfer *t, uint64_t size_bytes)
{
	struct cli *c = t->cli;
	size_bytes = (size_bytes + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
	json_auto_t *body = json_pack("{sssI}", "name", t->name, "size_bytes", (json_int_t)size_bytes), *volume = NULL;
	body_text(c, body, "pool", "pool");
	body_number(c, body, "replicas", "replicas");
	if (t->fill && json_object_set_new(body, "fill", json_string(t->fill)) < 0)
		return cli_refuse(c, "invalid", "the path '%s' is not UTF-8, so no volume can name it as its source",
				  t->fill);
	enum status status = t->fill ? DONE : volume_is_new(c, t->name); /* one that is being filled is gone on with */
	if (status == DONE)
		status =
		    client_call(c, &(struct request){.method = "POST", .path = "/v1/volumes", .body = body}, &volume);
	if (status == DONE && !t->fill && is_unchanged(volume)) /* made by somebody else, since it was looked for */
		status = volume_refuse_existing(c, t->name);
	t->is_created = status == DONE;
	t->uuid = t->is_created ? text_format("%s", text_at(volume, "uuid")) : NULL;
	return status;
}

static enum status import_run(struct transfer *t)
{
	struct cli *c = t->cli;
	const char *source = call_text(c->call, "SOURCE");
	enum status status = is_nbd_uri(source) ? endpoint_open_uri(c, &t->other, source)
						: image_open_source(c, &t->other, source, call_text(c->call, "format"));
	if (status == DONE)
		status = interrupt_begin(c, &t->interrupt);
	if (status == DONE)
		status = t->other.size_bytes ? transfer_create(t, t->other.size_bytes)
					     : cli_refuse(c, "invalid", "'%s' is empty", source);
	if (status == DONE)
		status = transfer_connect(t, NULL, false);
	if (status != DONE)
		return status;
	if (t->volume.size_bytes < t->other.size_bytes)
		return cli_refuse(c, "internal", "volume '%s' is smaller than it was made", t->name);
	t->volume.is_fresh = true;
	return transfer_copy(t, &t->other, &t->volume);
}

static enum status import_print(struct transfer *t)
{
	struct cli *c = t->cli;
	json_auto_t *volume = NULL;
	char size[SIZE_TEXT_BYTES], copied[SIZE_TEXT_BYTES];
	auto_free char *path = api_path("/v1/volumes/", t->name, "");
	enum status status = client_get(c, path, &volume);
	if (status != DONE || cli_print_json(c, volume))
		return status;
	size_to_text(number_at(volume, "size_bytes"), size);
	size_to_text(t->copied_bytes, copied);
	printf("imported '%s' as volume '%s' of %s, %s of it data%s\n", call_text(c->call, "SOURCE"), t->name, size,
	       copied, transfer_is_verified(t) ? ", verified" : "");
	return DONE;
}

enum status volume_import(struct cli *c)
{
	struct transfer transfer;
	transfer_begin(&transfer, c, call_text(c->call, "NAME"));
	if (is_nbd_uri(call_text(c->call, "SOURCE")) && call_has(c->call, "format"))
		return cli_misuse(c, "--format is for files; an NBD server gives raw data");
	enum status status = transfer_end(&transfer, import_run(&transfer));
	return status == DONE ? import_print(&transfer) : status;
}

/* ---- export ---- */

static enum image_format export_format(struct cli *c, const char *target)
{
	static const char ending[] = ".qcow2";
	const char *format = call_text(c->call, "format");
	size_t length = strlen(target);
	if (format)
		return strcmp(format, "qcow2") == 0 ? IMAGE_QCOW2 : IMAGE_RAW;
	bool ends_so = length > strlen(ending) && strcmp(target + length - strlen(ending), ending) == 0;
	return ends_so ? IMAGE_QCOW2 : IMAGE_RAW;
}

static const char *export_format_name(struct cli *c)
{
	const char *target = call_text(c->call, "TARGET");
	if (is_nbd_uri(target))
		return "nbd";
	return export_format(c, target) == IMAGE_QCOW2 ? "qcow2" : "raw";
}

/* 0 or an errno. */
static int server_read(struct endpoint *e, void *data, size_t len_bytes, uint64_t pos_bytes)
{
	struct endpoint_op op = {0};
	endpoint_read(e, &op, data, len_bytes, pos_bytes);
	while (!op.is_done) {
		struct pollfd wait = endpoint_pollfd(e);
		if (poll(&wait, 1, -1) < 0 && errno != EINTR)
			return errno;
		endpoint_polled(e, wait.revents);
	}
	return op.error;
}

/* Is something there that would be overwritten? Of each run of data that the server tells of the first bytes are looked
 * at: what has only been given its space is taken for nothing. */
static enum status server_check_empty(struct transfer *t, uint64_t size_bytes)
{
	struct endpoint *e = &t->other;
	enum status status = DONE;
	uint8_t *data = malloc(LOOK_BYTES);
	if (!data)
		abort();
	for (uint64_t pos = 0; status == DONE && pos < size_bytes;) {
		struct extent extent = {.end_bytes = size_bytes};
		int error = endpoint_extent(e, pos, &extent);
		uint64_t n = size_bytes - pos < LOOK_BYTES ? size_bytes - pos : LOOK_BYTES;
		n = !error && extent.end_bytes - pos < n ? extent.end_bytes - pos : n;
		if (error || !extent.is_hole)
			error = server_read(e, data, n, pos);
		if (error)
			status = cli_refuse(t->cli, "io-error", "cannot read '%s': %s", e->name, strerror(error));
		else if (!extent.is_hole && (data[0] != 0 || memcmp(data, data + 1, n - 1) != 0))
			status =
			    cli_refuse(t->cli, "exists",
				       "'%s' has data, from byte %llu on; choose another one, or overwrite it with "
				       "--force",
				       e->name, (unsigned long long)pos);
		pos = extent.end_bytes;
	}
	free(data);
	return status;
}

static enum status export_open(struct transfer *t, uint64_t size_bytes)
{
	struct cli *c = t->cli;
	const char *target = call_text(c->call, "TARGET");
	if (!is_nbd_uri(target)) {
		t->target.path = text_format("%s", target);
		return image_open_target(c, &t->other, &t->target, export_format(c, target), size_bytes,
					 call_has(c->call, "force"));
	}
	enum status status = endpoint_open_uri(c, &t->other, target);
	if (status == DONE && t->other.size_bytes < size_bytes) {
		char has[SIZE_TEXT_BYTES], wanted[SIZE_TEXT_BYTES];
		size_to_exact_text(t->other.size_bytes, has);
		size_to_exact_text(size_bytes, wanted);
		status = cli_refuse(c, "no-space", "'%s' has %s, too little for the %s of %s '%s'", target, has, wanted,
				    object_noun(t->name), t->name);
	}
	if (status == DONE && !call_has(c->call, "force"))
		status = server_check_empty(t, size_bytes);
	return status;
}

static void export_warn(const struct transfer *t, const json_t *attachment)
{
	if (attachment && !bool_at(attachment, "read_only"))
		fprintf(stderr,
			"quarry: note: volume '%s' is attached; what is written to it now may be in the copy or not: "
			"export a snapshot of it for one moment\n",
			t->name);
}

static enum status export_run(struct transfer *t)
{
	struct cli *c = t->cli;
	json_auto_t *exported = NULL;
	auto_free char *path = export_path(t->name);
	enum status status = client_get(c, path, &exported);
	uint64_t size_bytes = number_at(exported, "size_bytes");
	if (status == DONE && size_bytes == 0)
		status = cli_refuse(c, "internal", "quarryd told no size of '%s'; is it of the same release?", t->name);
	if (status == DONE)
		status = export_open(t, size_bytes);
	if (status == DONE)
		status = interrupt_begin(c, &t->interrupt);
	if (status != DONE)
		return status;
	const json_t *attachment = attachment_over_nbd(exported);
	export_warn(t, attachment);
	status = transfer_connect(t, attachment, true);
	if (status == DONE && t->volume.size_bytes > t->other.size_bytes)
		status = cli_refuse(c, "in-use", "volume '%s' has grown meanwhile; try again", t->name);
	return status == DONE ? transfer_copy(t, &t->volume, &t->other) : status;
}

enum status volume_export(struct cli *c)
{
	struct transfer transfer;
	transfer_begin(&transfer, c, call_text(c->call, "NAME[@SNAP]"));
	const char *target = call_text(c->call, "TARGET");
	if (is_nbd_uri(target) && call_has(c->call, "format"))
		return cli_misuse(c, "--format is for files; an NBD server takes raw data");
	enum status status = transfer_end(&transfer, export_run(&transfer));
	if (status != DONE)
		return status;
	auto_free char *printable = text_printable(target); /* JSON takes no path that is not UTF-8 */
	json_auto_t *value =
	    json_pack("{sssssssIsb}", "volume", transfer.name, "target", printable, "format", export_format_name(c),
		      "copied_bytes", (json_int_t)transfer.copied_bytes, "verified", transfer_is_verified(&transfer));
	char copied[SIZE_TEXT_BYTES];
	size_to_text(transfer.copied_bytes, copied);
	if (!cli_print_json(c, value))
		printf("exported %s '%s' to '%s', %s of it data%s\n", object_noun(transfer.name), transfer.name, target,
		       copied, transfer_is_verified(&transfer) ? ", verified" : "");
	return DONE;
}
