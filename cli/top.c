/*
 * top.c: `quarry top`: rates of every attached volume and disk, from two readings of the daemon's counters.
 *
 * 1. The time between two readings is the daemon's own (monotonic_ns), so that a slow answer does not look like speed.
 * 2. An object that was not in the earlier reading counts from zero; counters that went back (attached anew) count
 *       from
 *    zero too.
 */
#include "cli/call.h"
#include "cli/client.h"
#include "cli/handlers.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "cli/table.h"
#include "cli/text.h"
#include "cli/values.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CLEAR_SCREEN "\033[H\033[2J"
#define NS_PER_S     1000000000.0

static const json_t *object_find(const json_t *list, const char *name)
{
	size_t i;
	json_t *object;
	json_array_foreach((json_t *)list, i, object)
	{
		if (strcmp(text_at(object, "name"), name) == 0)
			return json_object_get(object, "counters");
	}
	return NULL;
}

static uint64_t grown(uint64_t before, uint64_t now)
{
	return now >= before ? now - before : now;
}

static double rate(const json_t *before, const json_t *now, const char *key, double seconds)
{
	return (double)grown(number_at(before, key), number_at(now, key)) / seconds;
}

/* Mean time of the operations between the readings. */
static uint64_t mean_ns(const json_t *before, const json_t *now, const char *key)
{
	const json_t *then = json_object_get(before, key), *here = json_object_get(now, key);
	uint64_t n = grown(number_at(then, "count"), number_at(here, "count"));
	return n ? grown(number_at(then, "sum_ns"), number_at(here, "sum_ns")) / n : 0;
}

/* {"name", "reads_per_s", ...} for one object. */
static json_t *rates_of(const char *name, const json_t *before, const json_t *now, double seconds)
{
	return json_pack(
	    "{sssfsfsfsfsfsIsIsI}", "name", name, "reads_per_s", rate(before, now, "reads", seconds), "writes_per_s",
	    rate(before, now, "writes", seconds), "flushes_per_s", rate(before, now, "flushes", seconds),
	    "read_bytes_per_s", rate(before, now, "read_bytes", seconds), "write_bytes_per_s",
	    rate(before, now, "write_bytes", seconds), "read_mean_ns", (json_int_t)mean_ns(before, now, "read_latency"),
	    "write_mean_ns", (json_int_t)mean_ns(before, now, "write_latency"), "flush_mean_ns",
	    (json_int_t)mean_ns(before, now, "flush_latency"));
}

static json_t *rates_of_all(const json_t *before, const json_t *now, double seconds)
{
	json_t *rates = json_array();
	size_t i;
	json_t *object;
	json_array_foreach((json_t *)now, i, object)
	{
		const char *name = text_at(object, "name");
		json_array_append_new(
		    rates, rates_of(name, object_find(before, name), json_object_get(object, "counters"), seconds));
	}
	return rates;
}

static void cell_rate(struct table *table, const json_t *rates, const char *key)
{
	auto_free char *text = text_format("%.0f", json_real_value(json_object_get(rates, key)));
	table_text(table, text);
}

static void cell_bytes(struct table *table, const json_t *rates, const char *key)
{
	char text[SIZE_TEXT_BYTES];
	size_to_text((uint64_t)json_real_value(json_object_get(rates, key)), text);
	table_text(table, text);
}

static void cell_latency(struct table *table, const json_t *rates, const char *key)
{
	char text[SIZE_TEXT_BYTES];
	latency_to_text(number_at(rates, key), text);
	table_text(table, number_at(rates, key) ? text : NULL);
}

static void rates_print(const char *what, json_t *list)
{
	const char *const headers[] = {what,         ">READS/S",  ">WRITES/S",  ">FLUSHES/S", ">READ B/S",
				       ">WRITE B/S", ">READ LAT", ">WRITE LAT", ">FLUSH LAT"};
	auto_table struct table *table = table_create(headers, array_size(headers));
	size_t i;
	json_t *rates;
	json_array_foreach(list, i, rates)
	{
		table_text(table, text_at(rates, "name"));
		cell_rate(table, rates, "reads_per_s");
		cell_rate(table, rates, "writes_per_s");
		cell_rate(table, rates, "flushes_per_s");
		cell_bytes(table, rates, "read_bytes_per_s");
		cell_bytes(table, rates, "write_bytes_per_s");
		cell_latency(table, rates, "read_mean_ns");
		cell_latency(table, rates, "write_mean_ns");
		cell_latency(table, rates, "flush_mean_ns");
	}
	table_print(table, stdout);
}

static void interval_print(struct cli *c, const json_t *before, const json_t *now, bool clears)
{
	double seconds = (double)grown(number_at(before, "monotonic_ns"), number_at(now, "monotonic_ns")) / NS_PER_S;
	if (seconds <= 0)
		seconds = 1;
	json_auto_t *value =
	    json_pack("{sfsoso}", "seconds", seconds, "volumes",
		      rates_of_all(json_object_get(before, "volumes"), json_object_get(now, "volumes"), seconds),
		      "disks", rates_of_all(json_object_get(before, "disks"), json_object_get(now, "disks"), seconds));
	if (cli_print_json(c, value))
		return;
	if (clears)
		fputs(CLEAR_SCREEN, stdout);
	rates_print("VOLUME", json_object_get(value, "volumes"));
	putchar('\n');
	rates_print("DISK", json_object_get(value, "disks"));
}

enum status top_show(struct cli *c)
{
	json_auto_t *before = NULL;
	uint64_t interval_s = call_has(c->call, "interval") ? call_number(c->call, "interval") : 1;
	bool goes_on = isatty(STDOUT_FILENO) && !c->is_json && !call_has(c->call, "once");
	enum status status = client_get(c, "/v1/top", &before);
	while (status == DONE) {
		json_t *now = NULL;
		pause_ms((long)interval_s * 1000);
		status = client_get(c, "/v1/top", &now);
		if (status == DONE)
			interval_print(c, before, now, goes_on);
		json_decref(before);
		before = now;
		if (!goes_on || fflush(stdout) != 0)
			break;
	}
	return status;
}
