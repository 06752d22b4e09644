/*
 * call.c: understands a command line.
 *
 * 1. Options may stand anywhere behind their noun and verb, the global ones anywhere at all; "--" ends them.
 * 2. Words are never shortened: a script that says --rep would change its meaning when an option is added. What is
 *    nearly right is answered with a suggestion.
 * 3. A word that begins with '-' and a digit is an argument, so that a negative size is called a bad size.
 * 4. Every message names the word that is wrong.
 */
#include "cli/call.h"

#include "cli/size.h"
#include "cli/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define GLOBALS_MAX     8u
#define NAME_MAX_LENGTH 63u
#define MORE_MAX        15u /* words of an argument that stands any number of times */

struct given {
	const char *text; /* NULL: not given; of a flag: its own name */
	uint64_t number;
};

struct call {
	const char *noun;
	const struct command *command;
	size_t n_arguments;
	struct given arguments[ARGUMENTS_MAX];
	struct given options[OPTIONS_MAX];
	struct given globals[GLOBALS_MAX];
	struct given more[MORE_MAX];
	size_t n_more;
};

bool name_is_valid(const char *name)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	size_t length = strlen(name);
	if (length == 0 || length > NAME_MAX_LENGTH || !strchr(letters, name[0]))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (!strchr(letters, name[i]) && !strchr("._-", name[i]))
			return false;
	}
	return true;
}

/* ---- finding an option ---- */

static const struct option *option_in(const struct option *list, const char *name, size_t length,
				      struct given *given_list, struct given **given)
{
	for (size_t i = 0; list[i].name; i++) {
		if (strlen(list[i].name) == length && strncmp(list[i].name, name, length) == 0) {
			*given = &given_list[i];
			return &list[i];
		}
	}
	return NULL;
}

static const struct option *option_find(struct call *call, const char *name, size_t length, struct given **given)
{
	const struct option *option = NULL;
	if (call->command)
		option = option_in(command_options(call->command), name, length, call->options, given);
	return option ? option : option_in(global_options, name, length, call->globals, given);
}

/* ---- words ---- */

static enum status check_name(struct cli *c, const struct word *word, const char *what, const char *text)
{
	if (word->kind != VALUE_NAME && strchr(text, '@'))
		return cli_misuse(c, "%s '%s' names a snapshot; name a %s here, without the '@'", what, text,
				  word->kind == VALUE_POOL ? "pool" : "volume");
	if (name_is_valid(text))
		return DONE;
	return cli_misuse(
	    c, "%s '%s' is not a name; a name has 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first",
	    what, text);
}

static enum status check_snapshot(struct cli *c, const char *what, const char *text)
{
	const char *at = strchr(text, '@');
	auto_free char *volume = text_format("%.*s", at ? (int)(at - text) : 0, text);
	if (at && name_is_valid(volume) && name_is_valid(at + 1))
		return DONE;
	return cli_misuse(
	    c,
	    "%s '%s' is not the name of a snapshot, which is VOLUME@SNAPSHOT, each 1 to 63 letters, digits, "
	    "'.', '_' or '-', a letter or digit first",
	    what, text);
}

static enum status check_choice(struct cli *c, const struct word *word, const char *what, const char *text)
{
	struct nearest nearest;
	nearest_begin(&nearest, text);
	auto_free char *all = text_format("%s", "");
	for (const char *const *choice = word->choices; *choice; choice++) {
		if (strcmp(*choice, text) == 0)
			return DONE;
		nearest_offer(&nearest, *choice);
		char *longer = text_format("%s%s%s", all, *all ? ", " : "", *choice);
		free(all);
		all = longer;
	}
	if (nearest.word)
		return cli_misuse(c, "%s '%s' is not known; did you mean '%s'?", what, text, nearest.word);
	return cli_misuse(c, "%s '%s' is not known; it is one of %s", what, text, all);
}

/* Checks one word and keeps it. `what` names its place: "SIZE", "--size". */
static enum status word_take(struct cli *c, const struct word *word, const char *what, const char *text,
			     struct given *given)
{
	char why[SIZE_WHY_BYTES];
	enum status status = DONE;
	given->text = text;
	if (*text == '\0')
		return cli_misuse(c, "%s is empty", what);
	switch (word->kind) {
	case VALUE_SIZE:
		if (size_parse(text, &given->number, why) < 0)
			status = cli_misuse(c, "%s '%s' %s", what, text, why);
		break;
	case VALUE_NUMBER:
		if (number_parse(text, word->min, word->max, &given->number, why) < 0)
			status = cli_misuse(c, "%s '%s' %s", what, text, why);
		break;
	case VALUE_CHOICE:
		status = check_choice(c, word, what, text);
		break;
	case VALUE_NAME:
	case VALUE_VOLUME:
	case VALUE_POOL:
		status = check_name(c, word, what, text);
		break;
	case VALUE_SNAPSHOT:
		status = check_snapshot(c, what, text);
		break;
	case VALUE_EXPORT:
		status = strchr(text, '@') ? check_snapshot(c, what, text) : check_name(c, word, what, text);
		break;
	case VALUE_TIME:
		if (duration_parse(text, &given->number, why) < 0)
			status = cli_misuse(c, "%s '%s' %s", what, text, why);
		break;
	case VALUE_TEXT:
	case VALUE_PATH:
	case VALUE_DISK:
	case VALUE_NODE:
		break;
	}
	return status;
}

/* ---- nouns and verbs ---- */

static enum status noun_take(struct cli *c, const char *text)
{
	struct nearest nearest;
	struct given *help = NULL;
	nearest_begin(&nearest, text);
	if (strcmp(text, "help") == 0 && option_find(c->call, "help", strlen("help"), &help)) {
		help->text = text;
		return DONE;
	}
	for (size_t i = 0; i < n_commands; i++) {
		if (strcmp(commands[i].noun, text) == 0) {
			c->call->noun = commands[i].noun;
			if (!commands[i].verb)
				c->call->command = &commands[i];
			return DONE;
		}
		if (!commands[i].is_hidden)
			nearest_offer(&nearest, commands[i].noun);
	}
	if (nearest.word)
		return cli_misuse(c, "there is no '%s'; did you mean '%s'?", text, nearest.word);
	return cli_misuse(c, "there is no '%s'; see 'quarry --help'", text);
}

/* The verb of a noun that others call so; NULL: there is none. */
static const char *verb_meant(const char *noun, const char *text)
{
	static const char *const others[][2] = {{"ls", "list"},       {"rm", "delete"},     {"rm", "remove"},
						{"remove", "delete"}, {"delete", "remove"}, {"add", "create"},
						{"info", "show"},     {"mv", "rename"}};
	for (size_t i = 0; i < array_size(others); i++) {
		for (size_t j = 0; strcmp(others[i][0], text) == 0 && j < n_commands; j++) {
			if (strcmp(commands[j].noun, noun) == 0 && strcmp(commands[j].verb, others[i][1]) == 0)
				return others[i][1];
		}
	}
	return NULL;
}

static enum status verb_take(struct cli *c, const char *text)
{
	struct nearest nearest;
	nearest_begin(&nearest, text);
	for (size_t i = 0; i < n_commands; i++) {
		if (strcmp(commands[i].noun, c->call->noun) != 0)
			continue;
		quarry_assert(commands[i].verb);
		if (strcmp(commands[i].verb, text) == 0) {
			c->call->command = &commands[i];
			return DONE;
		}
		if (!commands[i].is_hidden)
			nearest_offer(&nearest, commands[i].verb);
	}
	const char *meant = verb_meant(c->call->noun, text);
	if (meant || nearest.word)
		return cli_misuse(c, "there is no '%s %s'; did you mean '%s %s'?", c->call->noun, text, c->call->noun,
				  meant ? meant : nearest.word);
	return cli_misuse(c, "there is no '%s %s'; see 'quarry %s --help'", c->call->noun, text, c->call->noun);
}

static enum status argument_take(struct cli *c, const char *text)
{
	struct call *call = c->call;
	if (!call->noun)
		return noun_take(c, text);
	if (!call->command)
		return verb_take(c, text);
	auto_free char *title = command_title(call->command);
	size_t n = command_n_arguments(call->command);
	const struct word *last = n > 0 ? &call->command->arguments[n - 1] : NULL;
	if (call->n_arguments == n && last && last->is_many && call->n_more < MORE_MAX)
		return word_take(c, last, last->shown, text, &call->more[call->n_more++]);
	if (call->n_arguments == n)
		return cli_misuse(c, "'%s' is one word too many; see 'quarry %s --help'", text, title);
	const struct word *word = &call->command->arguments[call->n_arguments];
	return word_take(c, word, word->shown, text, &call->arguments[call->n_arguments++]);
}

/* ---- options ---- */

static enum status option_unknown(struct cli *c, const char *text)
{
	const struct command *command = c->call->command;
	struct nearest nearest;
	auto_free char *name = text_format("%.*s", (int)strcspn(text, "="), text);
	nearest_begin(&nearest, name + strspn(name, "-"));
	for (const struct option *o = global_options; o->name; o++)
		nearest_offer(&nearest, o->name);
	for (const struct option *o = command ? command_options(command) : NULL; o && o->name; o++)
		nearest_offer(&nearest, o->name);
	if (nearest.word)
		return cli_misuse(c, "there is no option '%s'; did you mean '--%s'?", name, nearest.word);
	if (!command)
		return cli_misuse(c, "there is no option '%s' here; options of a command stand behind it", name);
	auto_free char *title = command_title(command);
	return cli_misuse(c, "there is no option '%s'; see 'quarry %s --help'", name, title);
}

/* argv[*i] is an option; moves *i on when its value is the next word. */
static enum status option_take(struct cli *c, int argc, char *const *argv, int *i)
{
	const char *text = argv[*i], *name = text + 2, *value = strchr(text, '=');
	struct given *given = NULL;
	size_t length = value ? (size_t)(value - name) : strlen(name);
	const struct option *option = NULL;
	if (strcmp(text, "-h") == 0)
		option = option_find(c->call, "help", strlen("help"), &given);
	else if (strncmp(text, "--", 2) == 0)
		option = option_find(c->call, name, length, &given);
	if (!option)
		return option_unknown(c, text);
	auto_free char *shown = text_format("--%s", option->name);
	if (given->text)
		return cli_misuse(c, "option '%s' is given twice", shown);
	if (!option->value.shown) {
		given->text = option->name;
		return value ? cli_misuse(c, "option '%s' takes no value", shown) : DONE;
	}
	if (!value && ++*i == argc)
		return cli_misuse(c, "option '%s' needs a value: %s", shown, option->value.shown);
	return word_take(c, &option->value, shown, value ? value + 1 : argv[*i], given);
}

/* ---- the whole ---- */

/* Names the verbs of a noun that stands alone. */
static enum status verb_missing(struct cli *c)
{
	auto_free char *verbs = text_format("%s", "");
	for (size_t i = 0; i < n_commands; i++) {
		if (strcmp(commands[i].noun, c->call->noun) != 0 || commands[i].is_hidden)
			continue;
		char *longer = text_format("%s%s%s", verbs, *verbs ? ", " : "", commands[i].verb);
		free(verbs);
		verbs = longer;
	}
	return cli_misuse(c, "'%s' needs one of these behind it: %s", c->call->noun, verbs);
}

static enum status call_is_complete(struct cli *c)
{
	const struct call *call = c->call;
	const struct command *command = call->command;
	if (!call->noun)
		return cli_misuse(c, "say what to do, as in 'quarry status'; see 'quarry --help'");
	if (!command)
		return verb_missing(c);
	auto_free char *synopsis = command_synopsis(command);
	if (call->n_arguments < command_n_arguments(command) && !command->arguments[call->n_arguments].is_optional)
		return cli_misuse(c, "%s is missing: quarry %s", command->arguments[call->n_arguments].shown, synopsis);
	const struct option *options = command_options(command);
	for (size_t i = 0; options[i].name; i++) {
		if (options[i].is_needed && !call->options[i].text)
			return cli_misuse(c, "--%s is missing: quarry %s", options[i].name, synopsis);
	}
	return DONE;
}

static bool is_option(const char *word)
{
	return word[0] == '-' && word[1] != '\0' && !(word[1] >= '0' && word[1] <= '9');
}

/* --json decides how even a wrong command line is answered, so it is looked for first. */
static bool asks_for_json(int argc, char *const *argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--json") == 0)
			return true;
	}
	return false;
}

enum status call_parse(struct cli *c, int argc, char *const *argv)
{
	quarry_assert(!c->call);
	c->call = calloc(1, sizeof(*c->call));
	if (!c->call)
		abort();
	c->is_json = asks_for_json(argc, argv);
	bool has_ended = false;
	for (int i = 1; i < argc; i++) {
		enum status status = DONE;
		if (!has_ended && strcmp(argv[i], "--") == 0)
			has_ended = true;
		else if (!has_ended && is_option(argv[i]))
			status = option_take(c, argc, argv, &i);
		else
			status = argument_take(c, argv[i]);
		if (status != DONE)
			return status;
	}
	if (call_has(c->call, "help") || call_has(c->call, "version"))
		return DONE;
	return call_is_complete(c);
}

void call_destroy(struct call *call)
{
	free(call);
}

const struct command *call_command(const struct call *call)
{
	return call->command;
}

const char *call_noun(const struct call *call)
{
	return call->command ? NULL : call->noun;
}

/* ---- reading ---- */

static const struct given *given_find(const struct call *call, const char *name)
{
	struct given *given = NULL;
	if (option_find((struct call *)call, name, strlen(name), &given))
		return given;
	quarry_assert(call->command);
	for (size_t i = 0; i < command_n_arguments(call->command); i++) {
		if (strcmp(call->command->arguments[i].shown, name) == 0)
			return &call->arguments[i];
	}
	quarry_assert(!"a word that the command has");
	return NULL;
}

bool call_has(const struct call *call, const char *name)
{
	return given_find(call, name)->text != NULL;
}

const char *call_text(const struct call *call, const char *name)
{
	return given_find(call, name)->text;
}

uint64_t call_number(const struct call *call, const char *name)
{
	return given_find(call, name)->number;
}

char *call_word_of(const struct call *call, const char *key, const char **text)
{
	static const char *const units[] = {"_bytes", "_s"};
	struct given *given = NULL;
	size_t length = strlen(key);
	for (size_t i = 0; i < array_size(units); i++) {
		size_t unit = strlen(units[i]);
		if (length > unit && strcmp(key + length - unit, units[i]) == 0)
			length -= unit;
	}
	auto_free char *name = text_format("%.*s", (int)length, key);
	for (char *underscore = name; (underscore = strchr(underscore, '_')) != NULL;)
		*underscore = '-';
	*text = NULL;
	if (!call->command)
		return NULL;
	if (option_in(command_options(call->command), name, length, ((struct call *)call)->options, &given)) {
		*text = given->text;
		return *text ? text_format("--%s", name) : NULL;
	}
	for (size_t i = 0; i < call->n_arguments; i++) {
		const char *shown = call->command->arguments[i].shown;
		if (strcasecmp(shown, name) != 0)
			continue;
		*text = call->arguments[i].text;
		return text_format("%s", shown);
	}
	return NULL;
}

/* The argument that may stand any number of times; the first of its words is given like any other argument. */
static const struct given *many_first(const struct call *call)
{
	size_t n = command_n_arguments(call->command);
	quarry_assert(n > 0 && n <= ARGUMENTS_MAX && call->command->arguments[n - 1].is_many);
	return &call->arguments[n - 1];
}

size_t call_n_more(const struct call *call)
{
	return (many_first(call)->text != NULL) + call->n_more;
}

const char *call_more(const struct call *call, size_t i)
{
	quarry_assert(i < call_n_more(call));
	return i == 0 ? many_first(call)->text : call->more[i - 1].text;
}
