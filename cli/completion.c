/*
 * completion.c: the completion scripts of the shells, made from the table of commands, and the names they ask for.
 *
 * Both scripts hold the same four functions of plain shell, which tell what the table says:
 *   _quarry_nouns            all nouns
 *   _quarry_verbs NOUN       its verbs; nothing for a noun that stands alone
 *   _quarry_options COMMAND  --name for a flag, --name:KIND for an option with a value
 *   _quarry_arguments COMMAND   KIND KIND ...
 * KIND is path, volume, pool, disk, node, snapshot, text (nothing to offer) or =a,b,c for a choice. A function of the shell's own
 * walks over the words with them. The files in completion/ are what this prints; a test compares them.
 */
#include "cli/call.h"
#include "cli/client.h"
#include "cli/handlers.h"
#include "cli/text.h"
#include "cli/values.h"

#include <stdio.h>
#include <string.h>

/* ---- what both shells have ---- */

static void kind_print(const struct word *word)
{
	switch (word->kind) {
	case VALUE_PATH:
		fputs("path", stdout);
		break;
	case VALUE_SNAPSHOT:
		fputs("snapshot", stdout);
		break;
	case VALUE_VOLUME:
		fputs("volume", stdout);
		break;
	case VALUE_EXPORT:
		fputs("export", stdout);
		break;
	case VALUE_POOL:
		fputs("pool", stdout);
		break;
	case VALUE_DISK:
		fputs("disk", stdout);
		break;
	case VALUE_NODE:
		fputs("node", stdout);
		break;
	case VALUE_CHOICE:
		for (const char *const *choice = word->choices; *choice; choice++)
			printf("%c%s", choice == word->choices ? '=' : ',', *choice);
		break;
	case VALUE_TIME:
	case VALUE_TEXT:
	case VALUE_SIZE:
	case VALUE_NUMBER:
	case VALUE_NAME:
		fputs("text", stdout);
		break;
	}
}

static void option_list_print(const struct option *list)
{
	for (const struct option *o = list; o->name; o++) {
		printf(" --%s", o->name);
		if (!o->value.shown)
			continue;
		putchar(':');
		kind_print(&o->value);
	}
}

static void nouns_function(void)
{
	fputs("_quarry_nouns() {\n\techo '", stdout);
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		if (!command->is_hidden && command_begins_noun(command))
			printf("%s%s", command == commands ? "" : " ", command->noun);
	}
	puts("'\n}");
}

static void verbs_function(void)
{
	puts("_quarry_verbs() {\n\tcase \"$1\" in");
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		if (command->is_hidden || !command_begins_noun(command) || !command->verb)
			continue;
		printf("\t%s) echo '", command->noun);
		for (const struct command *verb = command; verb < commands + n_commands; verb++) {
			if (strcmp(verb->noun, command->noun) == 0 && !verb->is_hidden)
				printf("%s%s", verb == command ? "" : " ", verb->verb);
		}
		puts("' ;;");
	}
	puts("\tesac\n}");
}

static void options_function(void)
{
	puts("_quarry_options() {\n\tcase \"$1\" in");
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		if (command->is_hidden || !command->options)
			continue;
		auto_free char *title = command_title(command);
		printf("\t'%s') echo '", title);
		option_list_print(command->options);
		puts(" ' ;;");
	}
	fputs("\tesac\n\techo '", stdout);
	option_list_print(global_options);
	puts("'\n}");
}

static void arguments_function(void)
{
	puts("_quarry_arguments() {\n\tcase \"$1\" in");
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		if (command->is_hidden || command_n_arguments(command) == 0)
			continue;
		auto_free char *title = command_title(command);
		printf("\t'%s') echo '", title);
		for (size_t i = 0; i < command_n_arguments(command); i++) {
			fputs(i ? " " : "", stdout);
			kind_print(&command->arguments[i]);
		}
		puts("' ;;");
	}
	puts("\tesac\n}");
}

/* ---- each shell's own ---- */

static const char bash_walk[] =
    "_quarry() {\n"
    "\tlocal current=${COMP_WORDS[COMP_CWORD]} noun='' verb='' expects='' n=0 i word option arguments\n"
    "\t[[ $current == = ]] && current=''\n"
    "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
    "\t\tword=${COMP_WORDS[i]}\n"
    "\t\tif [[ $word == = ]]; then\n"
    "\t\t\tcontinue\n"
    "\t\telif [[ $expects ]]; then\n"
    "\t\t\texpects=''\n"
    "\t\telif [[ $word == -* ]]; then\n"
    "\t\t\tfor option in $(_quarry_options \"$noun${verb:+ $verb}\"); do\n"
    "\t\t\t\t[[ $option == \"$word\":* ]] && expects=${option#*:}\n"
    "\t\t\tdone\n"
    "\t\telif [[ ! $noun ]]; then\n"
    "\t\t\tnoun=$word\n"
    "\t\telif [[ ! $verb && $(_quarry_verbs \"$noun\") ]]; then\n"
    "\t\t\tverb=$word\n"
    "\t\telse\n"
    "\t\t\tn=$((n + 1))\n"
    "\t\tfi\n"
    "\tdone\n"
    "\tif [[ ! $expects ]]; then\n"
    "\t\tif [[ $current == -* ]]; then\n"
    "\t\t\tCOMPREPLY=($(for option in $(_quarry_options \"$noun${verb:+ $verb}\"); do\n"
    "\t\t\t\techo \"${option%%:*}\"\n"
    "\t\t\tdone | compgen -W \"$(cat)\" -- \"$current\"))\n"
    "\t\t\treturn\n"
    "\t\telif [[ ! $noun ]]; then\n"
    "\t\t\tCOMPREPLY=($(compgen -W \"$(_quarry_nouns)\" -- \"$current\"))\n"
    "\t\t\treturn\n"
    "\t\telif [[ ! $verb && $(_quarry_verbs \"$noun\") ]]; then\n"
    "\t\t\tCOMPREPLY=($(compgen -W \"$(_quarry_verbs \"$noun\")\" -- \"$current\"))\n"
    "\t\t\treturn\n"
    "\t\tfi\n"
    "\t\targuments=($(_quarry_arguments \"$noun${verb:+ $verb}\"))\n"
    "\t\texpects=${arguments[n]}\n"
    "\tfi\n"
    "\tcase \"$expects\" in\n"
    "\tpath) compopt -o filenames 2> /dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$current\") ;;\n"
    "\tvolume | pool | disk | node | snapshot | export)\n"
    "\t\tCOMPREPLY=($(compgen -W \"$(\"${COMP_WORDS[0]}\" names \"$expects\" 2> /dev/null)\" -- \"$current\")) ;;\n"
    "\t=*) expects=${expects#=}\n"
    "\t\tCOMPREPLY=($(compgen -W \"${expects//,/ }\" -- \"$current\")) ;;\n"
    "\tesac\n"
    "}\n"
    "COMP_WORDBREAKS=${COMP_WORDBREAKS//@/} # NAME@SNAP is one word\n"
    "complete -F _quarry quarry\n";

static const char zsh_walk[] = "_quarry() {\n"
			       "\tlocal noun='' verb='' expects='' option word i n=1\n"
			       "\tlocal -a options arguments\n"
			       "\tfor ((i = 2; i < CURRENT; i++)); do\n"
			       "\t\tword=$words[i]\n"
			       "\t\toptions=(${=\"$(_quarry_options \"$noun${verb:+ $verb}\")\"})\n"
			       "\t\tif [[ -n $expects ]]; then\n"
			       "\t\t\texpects=''\n"
			       "\t\telif [[ $word == -* ]]; then\n"
			       "\t\t\tfor option in $options; do\n"
			       "\t\t\t\t[[ $option == \"$word\":* ]] && expects=${option#*:}\n"
			       "\t\t\tdone\n"
			       "\t\telif [[ -z $noun ]]; then\n"
			       "\t\t\tnoun=$word\n"
			       "\t\telif [[ -z $verb && -n \"$(_quarry_verbs \"$noun\")\" ]]; then\n"
			       "\t\t\tverb=$word\n"
			       "\t\telse\n"
			       "\t\t\t((n += 1))\n"
			       "\t\tfi\n"
			       "\tdone\n"
			       "\toptions=(${=\"$(_quarry_options \"$noun${verb:+ $verb}\")\"})\n"
			       "\tif [[ -z $expects ]]; then\n"
			       "\t\tif [[ $words[CURRENT] == -* ]]; then\n"
			       "\t\t\tcompadd -- ${options%%:*}\n"
			       "\t\t\treturn\n"
			       "\t\telif [[ -z $noun ]]; then\n"
			       "\t\t\tcompadd -- ${=\"$(_quarry_nouns)\"}\n"
			       "\t\t\treturn\n"
			       "\t\telif [[ -z $verb && -n \"$(_quarry_verbs \"$noun\")\" ]]; then\n"
			       "\t\t\tcompadd -- ${=\"$(_quarry_verbs \"$noun\")\"}\n"
			       "\t\t\treturn\n"
			       "\t\tfi\n"
			       "\t\targuments=(${=\"$(_quarry_arguments \"$noun${verb:+ $verb}\")\"})\n"
			       "\t\texpects=$arguments[n]\n"
			       "\tfi\n"
			       "\tcase \"$expects\" in\n"
			       "\tpath) _files ;;\n"
			       "\tvolume | pool | disk | node | snapshot | export) compadd -- ${=\"$($words[1] names "
			       "$expects 2> /dev/null)\"} ;;\n"
			       "\t=*) compadd -- ${(s:,:)expects#=} ;;\n"
			       "\tesac\n"
			       "}\n"
			       "_quarry \"$@\"\n";

enum status completion_print(struct cli *c)
{
	const char *shell = call_text(c->call, "SHELL");
	bool is_zsh = strcmp(shell, "zsh") == 0;
	if (is_zsh)
		puts("#compdef quarry");
	printf("# completion of quarry for %s, made by `quarry completion %s`\n\n", shell, shell);
	nouns_function();
	verbs_function();
	options_function();
	arguments_function();
	fputs(is_zsh ? zsh_walk : bash_walk, stdout);
	return DONE;
}

/* ---- the names they ask for ---- */

static enum status names_of(struct cli *c, const char *kind)
{
	auto_free char *path = text_format("/v1/%ss", kind);
	json_auto_t *answer = NULL;
	enum status status = client_get(c, path, &answer);
	if (status != DONE)
		return status;
	size_t i;
	json_t *object;
	json_array_foreach(json_object_get(answer, path + strlen("/v1/")), i, object)
	{
		const char *volume = text_at(object, "volume");
		if (!name_is_valid(text_at(object, "name")) || (*volume && !name_is_valid(volume)))
			continue;
		printf("%s%s%s\n", volume, *volume ? "@" : "", text_at(object, "name"));
	}
	return DONE;
}

/* An export is a volume or a snapshot. */
enum status names_print(struct cli *c)
{
	const char *kind = call_text(c->call, "KIND");
	bool is_export = strcmp(kind, "export") == 0;
	enum status status = names_of(c, is_export ? "volume" : kind);
	return status == DONE && is_export ? names_of(c, "snapshot") : status;
}
