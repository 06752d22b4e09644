/*
 * status.c: `quarry status`, which monitoring may call: exit 0 while everything is healthy.
 */
#include "cli/call.h"
#include "cli/client.h"
#include "cli/handlers.h"
#include "cli/size.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/values.h"

#include <stdio.h>

static void schedules_print(const json_t *schedules)
{
	static const char *const headers[] = {"SCHEDULE", "EVERY", ">KEEPS", "NEXT"};
	if (json_array_size(schedules) == 0)
		return;
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *schedule;
	json_array_foreach(schedules, i, schedule)
	{
		char every[SIZE_TEXT_BYTES];
		duration_to_text(number_at(schedule, "every_s"), every);
		table_text(table, text_at(schedule, "volume"));
		table_text(table, every);
		table_number(table, json_object_get(schedule, "keep"));
		table_text(table, text_at(schedule, "next_at"));
	}
	table_print(table, stdout);
}

static void fills_print(const json_t *fills)
{
	static const char *const headers[] = {"FILLING", ">SIZE", ">FILLED", "FROM"};
	if (json_array_size(fills) == 0)
		return;
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *fill;
	json_array_foreach(fills, i, fill)
	{
		table_text(table, text_at(fill, "volume"));
		table_size(table, json_object_get(fill, "size_bytes"));
		table_size(table, json_object_get(fill, "filled_bytes"));
		table_text(table, text_at(fill, "source"));
	}
	table_print(table, stdout);
}

static void reclaiming_print(const json_t *reclaiming)
{
	char bytes[SIZE_TEXT_BYTES], per_s[SIZE_TEXT_BYTES];
	size_to_text(number_at(reclaiming, "bytes"), bytes);
	size_to_text(number_at(reclaiming, "bytes_per_s"), per_s);
	if (number_at(reclaiming, "trees") > 0)
		printf("reclaiming what was deleted: %s left to look at, %s a second\n", bytes, per_s);
}

static void balance_print(const json_t *balance)
{
	char moved[SIZE_TEXT_BYTES], left[SIZE_TEXT_BYTES], eta[SIZE_TEXT_BYTES];
	if (!json_is_object(balance))
		return;
	size_to_text(number_at(balance, "moved_bytes"), moved);
	auto_free char *node = text_printable(text_at(balance, "node"));
	auto_free char *volume = text_printable(text_at(balance, "volume"));
	size_to_text(number_at(balance, "left_bytes"), left);
	duration_to_text(number_at(balance, "eta_s"), eta);
	if (*volume)
		printf("rebalancing: segments of volume '%s' move to emptier disks: %s until now, about %s to go%s%s\n",
		       volume, moved, left, number_at(balance, "eta_s") > 0 ? ", for about " : "",
		       number_at(balance, "eta_s") > 0 ? eta : "");
	else
		printf("rebalancing: node '%s' moves segments to emptier disks\n", node);
}

/* "1 pool", "3 pools". */
static char *counted(const json_t *answer, const char *key, const char *noun)
{
	unsigned long long n = number_at(answer, key);
	return text_format("%llu %s%s", n, noun, n == 1 ? "" : "s");
}

static void status_print(const json_t *answer, bool is_healthy)
{
	static const char *const headers[] = {"PROBLEM", "OBJECT", "WHAT"};
	char uptime[SIZE_TEXT_BYTES];
	duration_to_text(number_at(answer, "uptime_s"), uptime);
	auto_free char *node = text_printable(text_at(answer, "node"));
	auto_free char *pools = counted(answer, "pools", "pool"), *disks = counted(answer, "disks", "disk"),
		       *volumes = counted(answer, "volumes", "volume");
	printf("%s: node '%s', running for %s: %s, %s, %s, %llu attached\n", is_healthy ? "healthy" : "not healthy",
	       node, uptime, pools, disks, volumes, (unsigned long long)number_at(answer, "attached_volumes"));
	schedules_print(json_object_get(answer, "schedules"));
	fills_print(json_object_get(answer, "fills"));
	reclaiming_print(json_object_get(answer, "reclaiming"));
	balance_print(json_object_get(answer, "balance"));
	if (is_healthy)
		return;
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *problem;
	json_array_foreach(json_object_get(answer, "problems"), i, problem)
	{
		table_text(table, text_at(problem, "code"));
		table_text(table, text_at(problem, "object"));
		table_text(table, text_at(problem, "message"));
	}
	table_print(table, stdout);
}

enum status status_show(struct cli *c)
{
	json_auto_t *answer = NULL;
	enum status status = client_get(c, "/v1/status", &answer);
	if (status != DONE)
		return status;
	bool is_healthy = bool_at(answer, "healthy");
	if (!cli_print_json(c, answer))
		status_print(answer, is_healthy);
	if (is_healthy)
		return DONE;
	const json_t *first = json_array_get(json_object_get(answer, "problems"), 0);
	size_t n = json_array_size(json_object_get(answer, "problems"));
	(void)cli_refuse(c, "unhealthy", "%zu problem%s; the first: %s: %s", n, n == 1 ? "" : "s",
			 text_at(first, "object"), text_at(first, "message"));
	return REFUSED;
}
