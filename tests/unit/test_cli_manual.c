/*
 * test_cli_manual.c: holds docs/man/quarry*.1 against the table of commands, in both directions: what the command knows
 * stands in the manual, and what the manual says the command knows.
 *
 * The pages are compared as a reader sees them: without roff's requests, fonts and escapes, blanks as one. Runs from
 * the top of the tree, or with QUARRY_TOP naming it.
 */
#include "cli/command.h"
#include "cli/text.h"

#include <CUnit/Basic.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BYTES_MAX (256u << 10)

/* roff's text to plain text, in place: \- and \fX and requests at the beginning of a line. */
static void roff_strip(char *text)
{
	char *out = text;
	bool is_line_start = true;
	for (const char *p = text; *p;) {
		if (is_line_start && *p == '.') {
			p += 1 + strcspn(p + 1, " \n"); /* the request; its words stay */
		} else if (p[0] == '\\' && p[1] == 'f' && p[2]) {
			p += 3;
		} else if (p[0] == '\\' && p[1] == '-') {
			*out++ = '-';
			p += 2;
		} else if (p[0] == '\\' && p[1] == '&') {
			p += 2;
		} else {
			is_line_start = *p == '\n';
			*out++ = *p++;
			continue;
		}
		is_line_start = false;
	}
	*out = '\0';
}

/* Runs of blanks and line ends become one blank. */
static void blanks_join(char *text)
{
	char *out = text;
	for (const char *p = text; *p; p++) {
		bool is_blank = *p == ' ' || *p == '\n' || *p == '\t';
		if (is_blank && out > text && out[-1] == ' ')
			continue;
		*out++ = is_blank ? ' ' : *p;
	}
	*out = '\0';
}

/* The page of a noun, or quarry.1 itself with ""; NULL: there is none. To be freed. */
static char *page_read(const char *noun)
{
	const char *top = getenv("QUARRY_TOP");
	char *path = text_format("%s/docs/man/quarry%s%s.1", top ? top : ".", *noun ? "-" : "", noun);
	FILE *file = fopen(path, "r");
	free(path);
	if (!file)
		return NULL;
	char *text = calloc(1, PAGE_BYTES_MAX);
	CU_ASSERT_PTR_NOT_NULL_FATAL(text);
	size_t n = fread(text, 1, PAGE_BYTES_MAX - 1, file);
	fclose(file);
	CU_ASSERT_FATAL(n > 0 && n < PAGE_BYTES_MAX - 1);
	roff_strip(text);
	blanks_join(text);
	return text;
}

static void expect_text(const char *page, const char *text)
{
	bool is_there = strstr(page, text) != NULL;
	CU_ASSERT(is_there);
	if (!is_there)
		printf("\n  the manual lacks: %s\n", text);
}

static void test_every_command_is_in_both_pages(void)
{
	char *main_page = page_read("");
	CU_ASSERT_PTR_NOT_NULL_FATAL(main_page);
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		if (!command_is_shown(command))
			continue;
		char *synopsis = command_synopsis(command), *text = text_format("quarry %s ", synopsis);
		expect_text(main_page, text);
		char *page = command->verb ? page_read(command->noun) : NULL;
		CU_ASSERT(!command->verb || page);
		if (page)
			expect_text(page, text);
		for (const struct option *o = command_options(command); o->name; o++) {
			char *shown = text_format(" --%s%s%s ", o->name, o->value.shown ? " " : "",
						  o->value.shown ? o->value.shown : "");
			if (option_is_shown(o))
				expect_text(page ? page : main_page, shown);
			free(shown);
		}
		free(page);
		free(text);
		free(synopsis);
	}
	for (const struct option *o = global_options; o->name; o++) {
		char *shown = text_format(" --%s ", o->name);
		expect_text(main_page, shown);
		free(shown);
	}
	free(main_page);
}

static bool option_is_known(const char *name, size_t length)
{
	for (const struct option *o = global_options; o->name; o++) {
		if (strlen(o->name) == length && strncmp(o->name, name, length) == 0)
			return true;
	}
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		for (const struct option *o = command_options(command); o->name; o++) {
			if (option_is_shown(o) && strlen(o->name) == length && strncmp(o->name, name, length) == 0)
				return true;
		}
	}
	return false;
}

static bool word_is_noun_or_verb(const char *word, size_t length, const char *noun, size_t noun_length)
{
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		const char *known = noun ? command->verb : command->noun;
		if (!known || !command_is_shown(command))
			continue;
		if (noun && (strlen(command->noun) != noun_length || strncmp(command->noun, noun, noun_length) != 0))
			continue;
		if (strlen(known) == length && strncmp(known, word, length) == 0)
			return true;
	}
	return false;
}

#define SMALL "abcdefghijklmnopqrstuvwxyz-"

/* Options of other programs that the manual mentions. */
static bool is_of_others(const char *name, size_t length)
{
	return length == strlen("check-disk") && strncmp(name, "check-disk", length) == 0;
}

static void options_are_known(const char *page)
{
	for (const char *p = strstr(page, "--"); p; p = strstr(p + 2, "--")) {
		size_t length = strspn(p + 2, SMALL);
		bool is_known = length == 0 || option_is_known(p + 2, length) || is_of_others(p + 2, length);
		CU_ASSERT(is_known);
		if (!is_known)
			printf("\n  the manual has an unknown option: --%.*s\n", (int)length, p + 2);
	}
}

/* Every "quarry NOUN VERB" in small letters, where "quarry disk" may also end there. */
static void commands_are_known(const char *page)
{
	for (const char *p = strstr(page, "quarry "); p; p = strstr(p + 1, "quarry ")) {
		const char *noun = p + strlen("quarry ");
		size_t noun_length = strspn(noun, SMALL);
		if (noun_length == 0 || noun[0] == '-' || !word_is_noun_or_verb(noun, noun_length, NULL, 0))
			continue; /* prose */
		const char *verb = noun + noun_length + 1;
		size_t verb_length = noun[noun_length] == ' ' ? strspn(verb, SMALL) : 0;
		bool stands_alone = !word_is_noun_or_verb("list", 4, noun, noun_length);
		bool is_known = verb_length == 0 || verb[0] == '-' || stands_alone ||
				word_is_noun_or_verb(verb, verb_length, noun, noun_length);
		CU_ASSERT(is_known);
		if (!is_known)
			printf("\n  the manual has an unknown command: quarry %.*s %.*s\n", (int)noun_length, noun,
			       (int)verb_length, verb);
	}
}

static void test_nothing_else_is_in_the_pages(void)
{
	static const char *const pages[] = {"", "backup", "disk", "node", "pool", "volume"};
	for (size_t i = 0; i < array_size(pages); i++) {
		char *page = page_read(pages[i]);
		CU_ASSERT_PTR_NOT_NULL_FATAL(page);
		options_are_known(page);
		commands_are_known(page);
		free(page);
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli_manual", NULL, NULL);
	CU_ADD_TEST(suite, test_every_command_is_in_both_pages);
	CU_ADD_TEST(suite, test_nothing_else_is_in_the_pages);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
