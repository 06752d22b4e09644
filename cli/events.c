/*
 * events.c: `quarry events [--follow]`.
 *
 * 1. Following asks again with the last sequence seen and lets the daemon hold the answer until something happens.
 * 2. When the daemon goes away it is waited for: following is most wanted when a daemon restarts. Another started_at
 *    means another daemon, whose events begin again at 1; so the first question after a silence does not wait for
 *    events beyond those of the daemon before.
 */
#include "cli/call.h"
#include "cli/client.h"
#include "cli/handlers.h"
#include "cli/progress.h"
#include "cli/text.h"
#include "cli/values.h"

#include <stdio.h>
#include <string.h>

#define WAIT_S       30u /* how long the daemon holds an answer */
#define WAIT_SLACK_S 30u /* and how much later than that it is given up */
#define RETRY_MS     1000
#define TIME_COLUMNS 20 /* "2025-01-31T12:34:56Z" */

/* "2025-01-31T12:34:56.789Z" without what is below a second: the zone stays, for these moments are in UTC. */
static void time_print(const char *moment)
{
	auto_free char *printable = text_printable(moment);
	size_t n_second = strcspn(printable, ".");
	const char *zone = printable + n_second;
	zone += *zone ? 1 + strspn(zone + 1, "0123456789") : 0;
	auto_free char *text = text_format("%.*s%s", (int)n_second, printable, zone);
	printf("%-*s", TIME_COLUMNS, text);
}

static void event_print(const json_t *event)
{
	auto_free char *level = text_printable(text_at(event, "level"));
	auto_free char *object = text_printable(text_at(event, "object"));
	auto_free char *code = text_printable(text_at(event, "code"));
	auto_free char *message = text_printable(text_at(event, "message"));
	time_print(text_at(event, "time"));
	printf("  %-7s  %s: %s: %s", level, object, code, message);
	if (number_at(event, "more") > 0) {
		printf(" (and %llu more like it, until ", (unsigned long long)number_at(event, "more"));
		time_print(text_at(event, "last_time"));
		putchar(')');
	}
	putchar('\n');
}

/* Prints what came and returns the last sequence. */
static uint64_t events_print(const struct cli *c, const json_t *events, uint64_t after)
{
	size_t i;
	json_t *event;
	json_array_foreach(events, i, event)
	{
		after = number_at(event, "sequence");
		if (!c->is_json) {
			event_print(event);
			continue;
		}
		auto_free char *line = json_dumps(event, JSON_COMPACT);
		if (line)
			puts(line);
	}
	return after;
}

static enum status events_get(struct cli *c, uint64_t after, unsigned wait_s, json_t **answer)
{
	auto_free char *path = text_format("/v1/events?after=%llu&wait=%u", (unsigned long long)after, wait_s);
	struct request request = {.method = "GET", .path = path, .timeout_s = wait_s + WAIT_SLACK_S};
	return client_call(c, &request, answer);
}

/* Gone, or stopping or starting. */
static bool may_come_back(const struct cli *c)
{
	return strcmp(c->failure.code, "unreachable") == 0 || strcmp(c->failure.code, "busy") == 0;
}

/* Asks until an answer comes; only the first time is a failure one of ours. */
static enum status events_get_patiently(struct cli *c, uint64_t after, bool is_first, json_t **answer)
{
	bool has_told = false;
	for (;;) {
		enum status status = events_get(c, after, is_first || has_told ? 0 : WAIT_S, answer);
		if (status == DONE || is_first || !may_come_back(c))
			return status;
		if (!has_told)
			fprintf(stderr, "quarry: quarryd has gone; waiting for it to come back\n");
		has_told = true;
		pause_ms(RETRY_MS);
	}
}

static enum status events_follow(struct cli *c, uint64_t after)
{
	auto_free char *started_at = NULL;
	for (;;) {
		json_auto_t *answer = NULL;
		enum status status = events_get_patiently(c, after, !started_at, &answer);
		if (status != DONE)
			return status;
		const char *now = text_at(answer, "started_at");
		if (started_at && strcmp(started_at, now) != 0) {
			free(started_at);
			started_at = text_format("%s", now);
			after = 0; /* this answer skipped the first events of the new daemon */
			continue;
		}
		if (!started_at)
			started_at = text_format("%s", now);
		after = events_print(c, json_object_get(answer, "events"), after);
		if (fflush(stdout) != 0 || ferror(stdout))
			return DONE; /* main() says what is wrong with the output */
	}
}

enum status events_show(struct cli *c)
{
	json_auto_t *answer = NULL;
	uint64_t after = call_number(c->call, "after");
	if (call_has(c->call, "follow"))
		return events_follow(c, after);
	enum status status = events_get(c, after, 0, &answer);
	if (status == DONE && !cli_print_json(c, answer))
		(void)events_print(c, json_object_get(answer, "events"), after);
	return status;
}
