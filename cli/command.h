/*
 * command.h: the table of everything that can be said to `quarry`.
 *
 * The parser, the help texts and the completion of the shells are made from it, and a test holds the manual against it
 * (tests/unit/test_cli_manual.c), so a command is described in one place.
 */
#pragma once

#include "cli/cli.h"

/* What a word means; it decides how the word is checked and how a shell completes it. */
enum value_kind {
	VALUE_TEXT,
	VALUE_SIZE,   /* 10G */
	VALUE_NUMBER, /* min..max */
	VALUE_CHOICE, /* one of choices */
	VALUE_PATH,   /* of this machine */
	VALUE_NAME,   /* a new name */
	VALUE_VOLUME, /* the name of one that exists; as below */
	VALUE_POOL,
	VALUE_DISK, /* a name, a UUID or a path */
	VALUE_NODE,
	VALUE_SNAPSHOT, /* NAME@SNAP */
	VALUE_EXPORT,   /* a volume or a snapshot */
	VALUE_TIME,     /* 30s, 15m, 1h, 7d */
};

/* A word of a command line: an argument or the value of an option. */
struct word {
	const char *shown; /* in help: "NAME"; NULL ends a list, or: an option without a value */
	enum value_kind kind;
	uint64_t min, max;          /* VALUE_NUMBER */
	const char *const *choices; /* VALUE_CHOICE; ends with NULL */
	bool is_optional;           /* an argument that may be left out; none that may not stands behind it */
	bool is_many;               /* the last argument, optional: any number of words */
};

struct option {
	const char *name; /* without the dashes; NULL ends a list */
	struct word value;
	const char *help;
	bool is_needed;
};

#define ARGUMENTS_MAX 3u
#define OPTIONS_MAX   8u

struct command {
	const char *noun, *verb; /* verb NULL: the noun stands alone */
	struct word arguments[ARGUMENTS_MAX];
	const struct option *options; /* NULL: none but the global ones */
	const char *summary;          /* one line; NULL for what is hidden */
	const char *more;             /* further lines for --help; NULL: none */
	enum status (*run)(struct cli *c);
	bool is_hidden; /* works; for the shells' completion: in no help, manual or suggestion */
};

extern const struct command commands[];
extern const size_t n_commands;
extern const struct option global_options[]; /* ends with a name of NULL */

static inline size_t command_n_arguments(const struct command *command)
{
	size_t n = 0;
	while (n < ARGUMENTS_MAX && command->arguments[n].shown)
		n++;
	return n;
}
/* For loops over the options of a command, which may have none. */
static inline const struct option *command_options(const struct command *command)
{
	static const struct option none[1];
	return command->options ? command->options : none;
}
/* Is this the first command of its noun in the table? */
bool command_begins_noun(const struct command *command);
/* "volume create NAME --size SIZE [--pool POOL]"; to be freed. */
char *command_synopsis(const struct command *command);
/* "volume create"; to be freed. */
char *command_title(const struct command *command);
