/*
 * cli.c: how a run of the command ends: the record of a failure, and the one JSON value.
 */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Noreturn void cli_assert_failed(const char *claim, const char *file, int line)
{
	fprintf(stderr, "%s:%d: this does not hold: %s\n", file, line, claim);
	abort();
}

static void failure_record(struct failure *f, const char *code, const char *format, va_list list)
{
	/* The text may quote the failure that it replaces. */
	struct failure fresh;
	snprintf(fresh.code, sizeof(fresh.code), "%s", code);
	vsnprintf(fresh.text, sizeof(fresh.text), format, list);
	*f = fresh;
}

enum status cli_refuse(struct cli *c, const char *code, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	failure_record(&c->failure, code, format, list);
	va_end(list);
	return REFUSED;
}

enum status cli_misuse(struct cli *c, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	failure_record(&c->failure, "usage", format, list);
	va_end(list);
	return WRONG_USAGE;
}

bool cli_print_json(struct cli *c, const json_t *value)
{
	if (!c->is_json)
		return false;
	quarry_assert(!c->has_printed_json);
	c->has_printed_json = true;
	auto_free char *text = json_dumps(value, JSON_INDENT(2));
	if (!text)
		abort();
	puts(text);
	return true;
}
