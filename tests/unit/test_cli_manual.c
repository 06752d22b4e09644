/*
 * test_cli_manual.c: holds docs/man/quarry*.1 and docs/reference/cli.md against the table of commands, in both
 * directions: what the command knows stands there, and what stands there the command knows.
 *
 * The pages of the manual are compared as a reader sees them: without roff's requests, fonts and escapes, blanks as
 * one. The reference is compared as it is written: a heading for each command, its synopsis, and below it a table with a
 * row for each option. Runs from the top of the tree, or with QUARRY_TOP naming it.
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

/* A file of the documentation as it is; NULL: there is none. To be freed. */
static char *file_read(const char *name)
{
	const char *top = getenv("QUARRY_TOP");
	char *path = text_format("%s/docs/%s", top ? top : ".", name);
	FILE *file = fopen(path, "r");
	free(path);
	if (!file)
		return NULL;
	char *text = calloc(1, PAGE_BYTES_MAX);
	CU_ASSERT_PTR_NOT_NULL_FATAL(text);
	size_t n = fread(text, 1, PAGE_BYTES_MAX - 1, file);
	fclose(file);
	CU_ASSERT_FATAL(n > 0 && n < PAGE_BYTES_MAX - 1);
	return text;
}

/* The page of a noun, or quarry.1 itself with "", as it is read; NULL: there is none. To be freed. */
static char *page_read(const char *noun)
{
	char *name = text_format("man/quarry%s%s.1", *noun ? "-" : "", noun), *text = file_read(name);
	free(name);
	if (!text)
		return NULL;
	roff_strip(text);
	blanks_join(text);
	return text;
}

static void expect_text(const char *page, const char *text)
{
	bool is_there = strstr(page, text) != NULL;
	CU_ASSERT(is_there);
	if (!is_there)
		printf("\n  the documentation lacks: %s\n", text);
}

static void test_every_command_is_in_both_pages(void)
{
	char *main_page = page_read("");
	CU_ASSERT_PTR_NOT_NULL_FATAL(main_page);
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		if (command->is_hidden)
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
			if (strlen(o->name) == length && strncmp(o->name, name, length) == 0)
				return true;
		}
	}
	return false;
}

static bool word_is_noun_or_verb(const char *word, size_t length, const char *noun, size_t noun_length)
{
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		const char *known = noun ? command->verb : command->noun;
		if (!known || command->is_hidden)
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
		if (strspn(p, "-") > 2) { /* the rule of a table */
			p += strspn(p, "-") - 2;
			continue;
		}
		bool is_known = length == 0 || option_is_known(p + 2, length) || is_of_others(p + 2, length);
		CU_ASSERT(is_known);
		if (!is_known)
			printf("\n  the documentation has an unknown option: --%.*s\n", (int)length, p + 2);
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
			printf("\n  the documentation has an unknown command: quarry %.*s %.*s\n", (int)noun_length,
			       noun, (int)verb_length, verb);
	}
}

static void nothing_else_is_in(char *page)
{
	CU_ASSERT_PTR_NOT_NULL_FATAL(page);
	options_are_known(page);
	commands_are_known(page);
	free(page);
}

static void test_nothing_else_is_in_the_pages(void)
{
	nothing_else_is_in(page_read(""));
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		if (command->verb && !command->is_hidden && command_begins_noun(command))
			nothing_else_is_in(page_read(command->noun));
	}
}

/* ---- docs/reference/cli.md ---- */

/* What stands below a heading, up to the next one. To be freed; NULL: there is no such heading. */
static char *section_copy(const char *reference, const char *heading)
{
	const char *at = strstr(reference, heading);
	CU_ASSERT_PTR_NOT_NULL(at);
	if (!at) {
		printf("\n  docs/reference/cli.md lacks: %s\n", heading + strspn(heading, "\n"));
		return NULL;
	}
	at += strlen(heading);
	const char *end = strstr(at - 1, "\n#");
	return strndup(at - 1, end ? (size_t)(end - at + 1) : strlen(at - 1));
}

static size_t count_text(const char *text, const char *what)
{
	size_t n = 0;
	for (const char *p = strstr(text, what); p; p = strstr(p + 1, what))
		n++;
	return n;
}

/* The section has one row for each of the options, and no other. */
static void expect_rows(const char *section, const struct option *options)
{
	size_t n_rows = 0;
	for (const struct option *o = options; o->name; o++) {
		char *row = text_format("\n| `--%s%s%s` | ", o->name, o->value.shown ? " " : "",
					o->value.shown ? o->value.shown : "");
		expect_text(section, row);
		free(row);
		n_rows++;
	}
	CU_ASSERT_EQUAL(count_text(section, "\n| `--"), n_rows);
}

static void test_every_command_is_in_the_reference(void)
{
	char *reference = file_read("reference/cli.md");
	CU_ASSERT_PTR_NOT_NULL_FATAL(reference);
	size_t n_shown = 0;
	for (const struct command *command = commands; command < commands + n_commands; command++) {
		if (command->is_hidden)
			continue;
		char *synopsis = command_synopsis(command), *heading = text_format("\n### `quarry %s`\n", synopsis);
		char *section = section_copy(reference, heading);
		if (section)
			expect_rows(section, command_options(command));
		free(section);
		free(heading);
		free(synopsis);
		n_shown++;
	}
	CU_ASSERT_EQUAL(count_text(reference, "\n### "), n_shown);
	char *section = section_copy(reference, "\n## Options everywhere\n");
	if (section)
		expect_rows(section, global_options);
	free(section);
	nothing_else_is_in(reference);
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli_manual", NULL, NULL);
	CU_ADD_TEST(suite, test_every_command_is_in_both_pages);
	CU_ADD_TEST(suite, test_nothing_else_is_in_the_pages);
	CU_ADD_TEST(suite, test_every_command_is_in_the_reference);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
