/*
 * main.c: `quarry`: reads the command line, runs the command, ends with a status that scripts can rely on.
 *
 * 1. Exit status 0 means done, 1 refused or failed, 2 wrong usage; with 1 and 2 exactly one line on standard error says
 *    why, and with --json an {"error": ...} is the one value on standard output.
 * 2. Output that could not be written is a failure: `quarry volume list > /dev/full` does not end with 0.
 * 3. Nothing is left in memory at the end, so that leak checkers can watch every command.
 */
#include "cli/call.h"
#include "cli/client.h"
#include "cli/help.h"
#include "cli/text.h"

#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void failure_print(struct cli *c)
{
	auto_free char *line = text_printable(c->failure.text);
	fprintf(stderr, "quarry: %s\n", line);
	if (!c->is_json || c->has_printed_json)
		return;
	auto_free char *code = text_printable(c->failure.code);
	json_auto_t *value = json_pack("{s{ssss}}", "error", "code", code, "message", line);
	(void)cli_print_json(c, value);
}

static enum status run(struct cli *c)
{
	if (call_has(c->call, "version")) {
		puts("quarry " CLI_VERSION);
		return DONE;
	}
	if (call_has(c->call, "help"))
		return help_print(c);
	quarry_assert(call_command(c->call)->run);
	return call_command(c->call)->run(c);
}

/* What standard output did not take is said, once, unless something worse was. */
static enum status output_end(struct cli *c, enum status status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	int error = errno;
	if (status == DONE) {
		status = cli_refuse(c, "local", "cannot write the output: %s", strerror(error));
		fprintf(stderr, "quarry: %s\n", c->failure.text);
	}
	return status;
}

int main(int argc, char **argv)
{
	struct cli cli = {0};
	signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like any other: what was begun is undone */
	curl_global_init(CURL_GLOBAL_DEFAULT);
	enum status status = call_parse(&cli, argc, argv);
	if (status == DONE)
		status = run(&cli);
	if (status != DONE && cli.failure.text[0] != '\0')
		failure_print(&cli);
	status = output_end(&cli, status);
	client_destroy(cli.client);
	call_destroy(cli.call);
	curl_global_cleanup();
	return (int)status;
}
