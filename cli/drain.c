/*
 * drain.c: draining a disk, or a node.
 */
#include "cli/drain.h"

#include "cli/call.h"
#include "cli/client.h"
#include "cli/text.h"
#include "cli/values.h"

#include <stdio.h>

const char *drain_state(const json_t *object)
{
	const json_t *drain = json_object_get(object, "drain");
	if (!json_is_object(drain))
		return text_at(object, "state");
	return bool_at(drain, "done") ? "drained" : "draining";
}

char *drain_text(const struct drain_kind *kind, const json_t *drain)
{
	if (bool_at(drain, "done"))
		return text_format("done, %s", kind->when_done);
	auto_free char *left = kind->left(drain);
	auto_free char *why = text_printable(text_at(drain, "why"));
	if (*why)
		return text_format("%s to go, %s: %s", left, kind->when_stalled, why);
	if (json_is_integer(json_object_get(drain, "eta_s")))
		return text_format("%s to go, about %llu min", left,
				   (unsigned long long)(number_at(drain, "eta_s") / 60 + 1));
	return text_format("%s to go", left);
}

/* NULL: it is done, cannot go on, or is not wanted any more. */
static char *drain_going_on(const json_t *object, const void *kind)
{
	const json_t *drain = json_object_get(object, "drain");
	bool is_over = !json_is_object(drain) || bool_at(drain, "done") || *text_at(drain, "why");
	return is_over ? NULL : drain_text(kind, drain);
}

enum status drain_order(struct cli *c, const struct drain_kind *kind, const char *path)
{
	json_auto_t *object = NULL;
	bool is_waiting = call_has(c->call, "wait");
	auto_free char *path_drain = text_format("%s/drain", path);
	const char *method = call_has(c->call, "cancel") ? "DELETE" : "POST";
	enum status status = client_call(c, &(struct request){.method = method, .path = path_drain}, &object);
	if (status == DONE && is_waiting)
		status = client_watch(c, path, drain_going_on, kind, &object);
	if (status != DONE)
		return status;
	const json_t *drain = json_object_get(object, "drain");
	auto_free char *name = text_printable(text_at(object, "name"));
	auto_free char *text = json_is_object(drain) ? drain_text(kind, drain) : text_format("it is drained no more");
	if (!cli_print_json(c, object))
		printf("%s '%s': %s\n", kind->noun, name, text);
	if (is_waiting && json_is_object(drain) && !bool_at(drain, "done"))
		return cli_refuse(c, "failed", "%s '%s': %s", kind->noun, name, text);
	return DONE;
}
