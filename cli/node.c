/*
 * node.c: the node commands.
 */
#include "cli/call.h"
#include "cli/client.h"
#include "cli/drain.h"
#include "cli/handlers.h"
#include "cli/size.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/values.h"

#include <string.h>

/* "rack=r1 zone=a"; to be freed. */
static char *labels_text(json_t *labels)
{
	char *text = text_format("%s", "");
	const char *key;
	json_t *value;
	json_object_foreach(labels, key, value)
	{
		const char *of_key = json_string_value(value);
		char *longer = text_format("%s%s%s=%s", text, *text ? " " : "", key, of_key ? of_key : "");
		free(text);
		text = longer;
	}
	return text;
}

/* Does the node's door for others answer? NULL: it has none, or nobody asks. */
static const char *peer_text(const json_t *peer)
{
	const json_t *answers = json_object_get(peer, "answers");
	if (!json_is_boolean(answers))
		return NULL;
	return json_is_true(answers) ? "answers" : "silent";
}

static char *node_left(const json_t *drain)
{
	char size[SIZE_TEXT_BYTES] = "its data"; /* only the node itself knows how much */
	unsigned long long n_attached = number_at(drain, "attached_volumes");
	if (json_is_integer(json_object_get(drain, "left_bytes")))
		size_to_text(number_at(drain, "left_bytes"), size);
	return text_format("%s and %llu attached volume%s", size, n_attached, n_attached == 1 ? "" : "s");
}

static const struct drain_kind node_kind = {.noun = "node",
					    .when_done = "it holds nothing and serves nothing",
					    .when_stalled = "not all can go",
					    .left = node_left};

enum status node_list(struct cli *c)
{
	static const char *const headers[] = {"NAME",    "STATE", ">DISKS", ">ATTACHED",
					      "VERSION", "SINCE", "PEER",   "LABELS"};
	json_auto_t *answer = NULL;
	enum status status = client_get(c, "/v1/nodes", &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *node;
	json_array_foreach(json_object_get(answer, "nodes"), i, node)
	{
		auto_free char *labels = labels_text(json_object_get(node, "labels"));
		table_text(table, text_at(node, "name"));
		bool is_running = strcmp(text_at(node, "state"), "running") == 0;
		table_text(table, is_running ? drain_state(node) : text_at(node, "state"));
		table_number(table, json_object_get(node, "disks"));
		table_number(table, json_object_get(node, "attached_volumes"));
		table_text(table, text_at(node, "version"));
		table_text(table, *text_at(node, "since") ? text_at(node, "since") : NULL);
		table_text(table, peer_text(json_object_get(node, "peer")));
		table_text(table, *labels ? labels : NULL);
	}
	table_print(table, stdout);
	return DONE;
}

/* Of a node that is there, since when it runs; else since when it is not. */
static void times_print(const json_t *node)
{
	char uptime[SIZE_TEXT_BYTES];
	if (!*text_at(node, "started_at")) {
		field_text(stdout, "since", text_at(node, "since"));
		return;
	}
	duration_to_text(number_at(node, "uptime_s"), uptime);
	field_text(stdout, "started", text_at(node, "started_at"));
	field_text(stdout, "running for", uptime);
}

/* What only the node itself knows. */
static void own_print(const json_t *node, const json_t *nbd)
{
	auto_free char *connections = text_format("%llu", (unsigned long long)number_at(nbd, "connections"));
	field_size(stdout, "cache limit", json_object_get(node, "cache_bytes"));
	field_size(stdout, "memory", json_object_get(node, "memory_bytes"));
	field_text(stdout, "nbd socket", text_at(nbd, "socket"));
	field_text(stdout, "nbd connections", connections);
}

enum status node_show(struct cli *c)
{
	json_auto_t *node = NULL;
	auto_free char *path = api_path("/v1/nodes/", call_text(c->call, "NODE"), "");
	enum status status = client_get(c, path, &node);
	if (status != DONE || cli_print_json(c, node))
		return status;
	const json_t *nbd = json_object_get(node, "nbd");
	auto_free char *labels = labels_text(json_object_get(node, "labels"));
	auto_free char *disks = text_format("%llu", (unsigned long long)number_at(node, "disks"));
	auto_free char *attached = text_format("%llu", (unsigned long long)number_at(node, "attached_volumes"));
	field_text(stdout, "name", text_at(node, "name"));
	field_text(stdout, "state", text_at(node, "state"));
	if (json_is_object(json_object_get(node, "drain"))) {
		auto_free char *drain = drain_text(&node_kind, json_object_get(node, "drain"));
		field_text(stdout, "drain", drain);
	}
	field_text(stdout, "labels", labels);
	field_text(stdout, "version", text_at(node, "version"));
	times_print(node);
	field_text(stdout, "disks", disks);
	field_text(stdout, "attached volumes", attached);
	if (json_is_integer(json_object_get(node, "cache_bytes")))
		own_print(node, nbd);
	field_text(stdout, "nbd address", text_at(nbd, "listen"));
	if (*text_at(json_object_get(node, "peer"), "listen"))
		field_text(stdout, "peer address", text_at(json_object_get(node, "peer"), "listen"));
	if (peer_text(json_object_get(node, "peer")))
		field_text(stdout, "peer", peer_text(json_object_get(node, "peer")));
	return DONE;
}

/* ---- drain ---- */

enum status node_drain(struct cli *c)
{
	auto_free char *path = api_path("/v1/nodes/", call_text(c->call, "NODE"), "");
	return drain_order(c, &node_kind, path);
}
