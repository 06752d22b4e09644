/*
 * cli.h: the few words that every file of the command line uses.
 *
 * The command line knows the control API (docs/openapi.yaml) and libnbd, and nothing of what is inside the daemon; it
 * includes nothing from the other folders.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef NDEBUG
#error "quarry is always built with its assertions"
#endif

#define CLI_VERSION "0.1.0"

#define must_check             __attribute__((warn_unused_result))
#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
#define array_size(a)          (sizeof(a) / sizeof((a)[0]))

/* Guards what the programmer promised, never what a user or a daemon may get wrong. */
_Noreturn void cli_assert_failed(const char *claim, const char *file, int line);
#define quarry_assert(claim) ((claim) ? (void)0 : cli_assert_failed(#claim, __FILE__, __LINE__))

static inline void free_text(char **text)
{
	free(*text);
}
#define auto_free __attribute__((cleanup(free_text))) /* char *, freed at the end of its scope */

/* The exit status of the process: a promise to scripts. */
enum status {
	DONE = 0,
	REFUSED = 1,     /* refused or failed: one line on standard error says why and what to do */
	WRONG_USAGE = 2, /* the words on the command line are wrong: the line says which */
};

#define FAILURE_CODE_BYTES 32
#define FAILURE_TEXT_BYTES 1024

struct failure {
	char code[FAILURE_CODE_BYTES]; /* a stable word: the API's, or "usage", "unreachable", "local" */
	char text[FAILURE_TEXT_BYTES]; /* what happened, to what, and what to do; one line */
};

struct call;
struct client;

/* One run of the command. Owner: main(). */
struct cli {
	struct call *call;     /* what the command line says */
	struct client *client; /* made when the daemon is first asked */
	bool is_json;          /* --json: one JSON value on standard output, nothing else */
	bool has_printed_json; /* that value is out */
	struct failure failure;
};

/* Record why the run ends; main() prints it. A later record replaces an earlier one. */
enum status cli_refuse(struct cli *c, const char *code, const char *format, ...) printf_like(3, 4);
enum status cli_misuse(struct cli *c, const char *format, ...) printf_like(2, 3);
/* With --json prints the value and returns true; else returns false and the caller prints for people. */
bool cli_print_json(struct cli *c, const json_t *value);
