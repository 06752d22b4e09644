/*
 * pool.c: the pool commands.
 */
#include "cli/call.h"
#include "cli/client.h"
#include "cli/handlers.h"
#include "cli/size.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/values.h"

/* What create and set have in common; false: none of it was given. */
static bool defaults_take(const struct cli *c, json_t *body)
{
	size_t before = json_object_size(body);
	body_number(c, body, "replicas", "replicas");
	body_number(c, body, "min_replicas", "min-replicas");
	body_text(c, body, "failure_domain", "failure-domain");
	return json_object_size(body) > before;
}

enum status pool_create(struct cli *c)
{
	json_auto_t *body = json_object(), *pool = NULL;
	body_text(c, body, "name", "NAME");
	(void)defaults_take(c, body);
	struct request request = {.method = "POST", .path = "/v1/pools", .body = body};
	enum status status = client_call(c, &request, &pool);
	if (status != DONE || cli_print_json(c, pool))
		return status;
	printf(is_unchanged(pool) ? "pool '%s' exists already; nothing changed\n" : "created pool '%s'\n",
	       call_text(c->call, "NAME"));
	return DONE;
}

enum status pool_list(struct cli *c)
{
	static const char *const headers[] = {"NAME",  ">REPLICAS", "DOMAIN", ">DISKS",      ">VOLUMES",
					      ">SIZE", ">USED",     ">FREE",  ">PROVISIONED"};
	json_auto_t *answer = NULL;
	enum status status = client_get(c, "/v1/pools", &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *pool;
	json_array_foreach(json_object_get(answer, "pools"), i, pool)
	{
		table_text(table, text_at(pool, "name"));
		table_number(table, json_object_get(pool, "replicas"));
		table_text(table, text_at(pool, "failure_domain"));
		table_number(table, json_object_get(pool, "disks"));
		table_number(table, json_object_get(pool, "volumes"));
		table_size(table, json_object_get(pool, "size_bytes"));
		table_size(table, json_object_get(pool, "used_bytes"));
		table_size(table, json_object_get(pool, "free_bytes"));
		table_size(table, json_object_get(pool, "provisioned_bytes"));
	}
	table_print(table, stdout);
	return DONE;
}

static void pool_print(const json_t *pool)
{
	auto_free char *replicas = text_format("%llu, at least %llu", (unsigned long long)number_at(pool, "replicas"),
					       (unsigned long long)number_at(pool, "min_replicas"));
	auto_free char *disks = text_format("%llu", (unsigned long long)number_at(pool, "disks"));
	auto_free char *volumes = text_format("%llu", (unsigned long long)number_at(pool, "volumes"));
	field_text(stdout, "name", text_at(pool, "name"));
	field_text(stdout, "uuid", text_at(pool, "uuid"));
	field_text(stdout, "replicas", replicas);
	field_text(stdout, "failure domain", text_at(pool, "failure_domain"));
	field_text(stdout, "disks", disks);
	field_text(stdout, "volumes", volumes);
	field_size(stdout, "size", json_object_get(pool, "size_bytes"));
	field_size(stdout, "used", json_object_get(pool, "used_bytes"));
	field_size(stdout, "free", json_object_get(pool, "free_bytes"));
	field_size(stdout, "provisioned", json_object_get(pool, "provisioned_bytes"));
}

enum status pool_show(struct cli *c)
{
	json_auto_t *pool = NULL;
	auto_free char *path = api_path("/v1/pools/", call_text(c->call, "POOL"), "");
	enum status status = client_get(c, path, &pool);
	if (status == DONE && !cli_print_json(c, pool))
		pool_print(pool);
	return status;
}

enum status pool_set(struct cli *c)
{
	json_auto_t *body = json_object(), *pool = NULL;
	auto_free char *path = api_path("/v1/pools/", call_text(c->call, "POOL"), "");
	if (!defaults_take(c, body))
		return cli_misuse(c, "say what to change: --replicas, --min-replicas or --failure-domain");
	enum status status = client_call(c, &(struct request){.method = "PATCH", .path = path, .body = body}, &pool);
	if (status != DONE || cli_print_json(c, pool))
		return status;
	printf(is_unchanged(pool) ? "pool '%s' is so already; nothing changed\n" : "changed pool '%s'\n",
	       call_text(c->call, "POOL"));
	return DONE;
}

enum status pool_delete(struct cli *c)
{
	json_auto_t *answer = NULL;
	auto_free char *path = api_path("/v1/pools/", call_text(c->call, "POOL"), "");
	enum status status = client_call(c, &(struct request){.method = "DELETE", .path = path}, &answer);
	if (status != DONE || cli_print_json(c, answer))
		return status;
	printf(is_unchanged(answer) ? "pool '%s' was deleted before; nothing changed\n" : "deleted pool '%s'\n",
	       call_text(c->call, "POOL"));
	return DONE;
}
