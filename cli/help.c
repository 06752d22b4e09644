/*
 * help.c: what --help prints, made from the table of commands.
 */
#include "cli/help.h"

#include "cli/call.h"
#include "cli/text.h"

#include <stdio.h>
#include <string.h>

#define SUMMARY_COLUMN 34 /* where the summaries begin; a longer command gets a line of its own */
#define OPTION_COLUMN  28

static void summary_print(const char *left, int column, const char *right)
{
	int width = (int)text_width(left);
	if (width + 2 > column)
		printf("%s\n%*s%s\n", left, column, "", right);
	else
		printf("%s%*s%s\n", left, column - width, "", right);
}

static void options_print(const struct option *list)
{
	for (const struct option *o = list; o->name; o++) {
		auto_free char *left =
		    o->value.shown ? text_format("  --%s %s", o->name, o->value.shown) : text_format("  --%s", o->name);
		summary_print(left, OPTION_COLUMN, o->help);
	}
}

/* "  create NAME" : the words without the noun and the options. */
static void command_line_print(const struct command *command)
{
	auto_free char *left = text_format("  %s", command->verb ? command->verb : command->noun);
	for (size_t i = 0; i < command_n_arguments(command); i++) {
		const struct word *word = &command->arguments[i];
		char *longer = text_format(word->is_many       ? "%s [%s ...]"
					   : word->is_optional ? "%s [%s]"
							       : "%s %s",
					   left, word->shown);
		free(left);
		left = longer;
	}
	summary_print(left, SUMMARY_COLUMN, command->summary);
}

static void nouns_print(const char *only)
{
	const char *heading = NULL;
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		if (command->is_hidden || (only && strcmp(only, command->noun) != 0))
			continue;
		const char *wanted = command->verb ? command->noun : "";
		if (!heading || strcmp(heading, wanted) != 0)
			printf("\n%s%s\n", *wanted ? "quarry " : "quarry", wanted);
		heading = wanted;
		command_line_print(command);
	}
}

static void command_print(const struct command *command)
{
	auto_free char *synopsis = command_synopsis(command);
	printf("usage: quarry %s\n\n%s\n", synopsis, command->summary);
	if (command->more)
		printf("\n%s\n", command->more);
	if (command->options) {
		printf("\noptions\n");
		options_print(command->options);
	}
	printf("\nSizes are written like 512, 4K, 10G or 1.5T, in powers of 1024. 'quarry --help' shows the options "
	       "that stand "
	       "everywhere.\n");
}

enum status help_print(struct cli *c)
{
	const struct command *command = call_command(c->call);
	const char *noun = call_noun(c->call);
	if (command && !command->is_hidden) {
		command_print(command);
		return DONE;
	}
	if (noun) {
		printf("usage: quarry %s VERB ...\n", noun);
		nouns_print(noun);
		printf("\n'quarry %s VERB --help' tells more.\n", noun);
		return DONE;
	}
	printf("quarry: block storage virtualization\n\nusage: quarry [OPTIONS] NOUN VERB ...\n");
	nouns_print(NULL);
	printf("\noptions that stand everywhere\n");
	options_print(global_options);
	printf("\n'quarry NOUN VERB --help' tells more. Exit status: 0 done, 1 refused or failed, 2 wrong usage.\n");
	return DONE;
}
