/*
 * test_cli_call.c: command lines, right and wrong; every wrong one must name the word that is.
 */
#include "cli/call.h"

#include <CUnit/Basic.h>
#include <stdio.h>
#include <string.h>

#define WORDS_MAX 16

/* Splits at blanks; "''" is an empty word, '_' a blank in a word. */
struct line {
	char text[400];
	char *argv[WORDS_MAX + 1];
	int argc;
};

static void line_split(struct line *l, const char *text)
{
	char *rest = l->text;
	snprintf(l->text, sizeof(l->text), "%s", text);
	l->argv[0] = "quarry";
	l->argc = 1;
	for (char *word = strsep(&rest, " "); word; word = strsep(&rest, " ")) {
		if (*word == '\0')
			continue;
		CU_ASSERT_FATAL(l->argc < WORDS_MAX);
		for (char *p = word; *p; p++)
			*p = *p == '_' ? ' ' : *p;
		l->argv[l->argc++] = strcmp(word, "''") == 0 ? "" : word;
	}
	l->argv[l->argc] = NULL;
}

static enum status parse(struct cli *c, struct line *l, const char *text)
{
	*c = (struct cli){0};
	line_split(l, text);
	return call_parse(c, l->argc, l->argv);
}

static void test_arguments_and_options_are_found(void)
{
	struct cli c;
	struct line l;
	CU_ASSERT_EQUAL_FATAL(parse(&c, &l, "volume create vm1 --size 1.5G --pool=fast --json"), DONE);
	CU_ASSERT_STRING_EQUAL(call_command(c.call)->verb, "create");
	CU_ASSERT_STRING_EQUAL(call_text(c.call, "NAME"), "vm1");
	CU_ASSERT_EQUAL(call_number(c.call, "size"), 3ull << 29);
	CU_ASSERT_STRING_EQUAL(call_text(c.call, "pool"), "fast");
	CU_ASSERT_FALSE(call_has(c.call, "replicas"));
	CU_ASSERT_EQUAL(call_number(c.call, "replicas"), 0);
	CU_ASSERT(call_has(c.call, "json") && c.is_json);
	call_destroy(c.call);
}

static void test_options_stand_anywhere(void)
{
	static const char *const lines[] = {
	    "--socket /s volume resize --force vm1 2G",
	    "volume --socket=/s resize vm1 --force 2G",
	    "volume resize vm1 2G --force --socket /s",
	    "volume resize --force --socket /s -- vm1 2G",
	};
	for (size_t i = 0; i < array_size(lines); i++) {
		struct cli c;
		struct line l;
		CU_ASSERT_EQUAL_FATAL(parse(&c, &l, lines[i]), DONE);
		CU_ASSERT_STRING_EQUAL(call_text(c.call, "socket"), "/s");
		CU_ASSERT_STRING_EQUAL(call_text(c.call, "NAME"), "vm1");
		CU_ASSERT_EQUAL(call_number(c.call, "SIZE"), 2ull << 30);
		CU_ASSERT(call_has(c.call, "force"));
		call_destroy(c.call);
	}
}

static void test_wrong_usage_names_the_word(void)
{
	static const struct {
		const char *line, *says;
	} wrong[] = {
	    {"", "quarry --help"},
	    {"volme list", "did you mean 'volume'"},
	    {"vol list", "did you mean 'volume'"},
	    {"frobnicate", "'frobnicate'"},
	    {"names_x", "'names x'"},
	    {"volume", "create, list"},
	    {"volume crate x", "did you mean 'volume create'"},
	    {"volume frobnicate", "'volume frobnicate'"},
	    {"volume ls", "did you mean 'volume list'"},
	    {"volume remove x", "did you mean 'volume delete'"},
	    {"disk rm d", "did you mean 'disk remove'"},
	    {"volume add x", "did you mean 'volume create'"},
	    {"volume list extra", "'extra' is one word too many"},
	    {"volume create", "NAME is missing"},
	    {"volume create x", "--size is missing"},
	    {"volume create x --size", "'--size' needs a value"},
	    {"volume create x --size 10X", "--size '10X'"},
	    {"volume create x --size -1", "--size '-1'"},
	    {"volume create x --size ''", "--size is empty"},
	    {"volume create x --size 1G --size 2G", "'--size' is given twice"},
	    {"volume create x --siez 1G", "did you mean '--size'"},
	    {"volume create x --sizes=1G", "'--sizes'"},
	    {"volume create x --force --size 1G", "'--force'"},
	    {"volume create a/b --size 1G", "NAME 'a/b'"},
	    {"volume create .a --size 1G", "NAME '.a'"},
	    {"volume create '' --size 1G", "NAME is empty"},
	    {"volume create x --size 1G --replicas 0", "--replicas '0'"},
	    {"volume create x --size 1G --replicas 17", "--replicas '17'"},
	    {"volume create x --size 1G --replicas two", "--replicas 'two'"},
	    {"volume create x --size 1G --pool a_b", "--pool 'a b'"},
	    {"volume resize x -1", "SIZE '-1'"},
	    {"volume resize x 99999999999999999999", "SIZE '99999999999999999999'"},
	    {"volume attach x --vhost-user --queues 65", "--queues '65'"},
	    {"volume attach x --nbd=yes", "'--nbd' takes no value"},
	    {"pool create p --failure-domain dsk", "did you mean 'disk'"},
	    {"pool create p --failure-domain planet", "disk, node, rack, zone"},
	    {"--size 1G volume create x", "options of a command stand behind it"},
	    {"status --jason", "did you mean '--json'"},
	    {"status -x", "'-x'"},
	    {"status now", "'now' is one word too many"},
	    {"disk add", "PATH is missing"},
	    {"backup create v /r", "NAME@SNAP 'v'"},
	    {"backup create v@ /r", "NAME@SNAP 'v@'"},
	    {"backup create @s /r", "NAME@SNAP '@s'"},
	    {"backup create v@s@t /r", "NAME@SNAP 'v@s@t'"},
	    {"backup create v@s", "REPOSITORY is missing"},
	    {"backup create v@s /r --rate-limit fast", "--rate-limit 'fast'"},
	    {"backup prune /r --keep-last 0", "--keep-last '0'"},
	    {"top --interval 0", "--interval '0'"},
	    {"completion fish", "SHELL 'fish'"},
	};
	for (size_t i = 0; i < array_size(wrong); i++) {
		struct cli c;
		struct line l;
		enum status status = parse(&c, &l, wrong[i].line);
		CU_ASSERT_EQUAL(status, WRONG_USAGE);
		CU_ASSERT_PTR_NOT_NULL(strstr(c.failure.text, wrong[i].says));
		if (status != WRONG_USAGE || !strstr(c.failure.text, wrong[i].says))
			printf("\n  %s: %s\n", wrong[i].line, c.failure.text);
		CU_ASSERT_PTR_NULL(strchr(c.failure.text, '\n'));
		call_destroy(c.call);
	}
}

static void test_help_needs_nothing_else(void)
{
	static const char *const lines[] = {"--help",
					    "-h",
					    "volume --help",
					    "volume create --help",
					    "help",
					    "help volume",
					    "help volume create",
					    "--version",
					    "disk add --force -h"};
	for (size_t i = 0; i < array_size(lines); i++) {
		struct cli c;
		struct line l;
		CU_ASSERT_EQUAL(parse(&c, &l, lines[i]), DONE);
		CU_ASSERT(call_has(c.call, "help") || call_has(c.call, "version"));
		call_destroy(c.call);
	}
}

static void test_json_is_known_however_wrong_the_line_is(void)
{
	struct cli c;
	struct line l;
	CU_ASSERT_EQUAL(parse(&c, &l, "nonsense --json"), WRONG_USAGE);
	CU_ASSERT(c.is_json);
	call_destroy(c.call);
	CU_ASSERT_EQUAL(parse(&c, &l, "disk add -- --json"), DONE);
	CU_ASSERT(!c.is_json);
	CU_ASSERT_STRING_EQUAL(call_text(c.call, "PATH"), "--json");
	call_destroy(c.call);
}

static void test_names(void)
{
	static const char *const right[] = {"a", "9", "vm-1", "A.b_c-d",
					    "x23456789012345678901234567890123456789012345678901234567890123"};
	static const char *const wrong[] = {"",
					    ".",
					    "..",
					    "-a",
					    "_a",
					    "a b",
					    "a/b",
					    "a@b",
					    "\xc3\xbc",
					    "a\n",
					    "x234567890123456789012345678901234567890123456789012345678901234"};
	for (size_t i = 0; i < array_size(right); i++)
		CU_ASSERT(name_is_valid(right[i]));
	for (size_t i = 0; i < array_size(wrong); i++)
		CU_ASSERT(!name_is_valid(wrong[i]));
}

static void expect_word(const struct call *call, const char *key, const char *word, const char *value)
{
	const char *text = "";
	auto_free char *got = call_word_of(call, key, &text);
	CU_ASSERT_PTR_NOT_NULL_FATAL(got);
	CU_ASSERT_STRING_EQUAL(got, word);
	CU_ASSERT_STRING_EQUAL(text, value);
}

static void test_keys_of_the_api_are_words_that_were_typed(void)
{
	struct cli c;
	struct line l;
	const char *value;
	CU_ASSERT_EQUAL_FATAL(parse(&c, &l, "volume create vm1 --size 1000"), DONE);
	expect_word(c.call, "size_bytes", "--size", "1000");
	expect_word(c.call, "name", "NAME", "vm1");
	CU_ASSERT_PTR_NULL(call_word_of(c.call, "replicas", &value));
	CU_ASSERT_PTR_NULL(call_word_of(c.call, "colour", &value));
	CU_ASSERT_PTR_NULL(call_word_of(c.call, "", &value));
	call_destroy(c.call);
	CU_ASSERT_EQUAL_FATAL(parse(&c, &l, "volume resize vm1 1000"), DONE);
	expect_word(c.call, "size_bytes", "SIZE", "1000");
	call_destroy(c.call);
	CU_ASSERT_EQUAL_FATAL(parse(&c, &l, "snapshot schedule vm1 --every 1h --keep 3"), DONE);
	expect_word(c.call, "every_s", "--every", "1h");
	call_destroy(c.call);
	CU_ASSERT_EQUAL_FATAL(parse(&c, &l, "pool set p --min-replicas 2"), DONE);
	expect_word(c.call, "min_replicas", "--min-replicas", "2");
	call_destroy(c.call);
}

/* The table itself: what its readers rely on. */
static void test_the_table_is_in_order(void)
{
	for (size_t i = 0; i < n_commands; i++) {
		const struct command *command = &commands[i];
		size_t n_options = 0;
		for (const struct option *o = command_options(command); o->name; o++, n_options++) {
			CU_ASSERT_PTR_NOT_NULL(o->help);
			for (const struct option *global = global_options; global->name; global++)
				CU_ASSERT(strcmp(global->name, o->name) != 0);
		}
		CU_ASSERT(n_options <= OPTIONS_MAX);
		CU_ASSERT(command->run != NULL);
		CU_ASSERT(command->is_hidden || command->summary);
		for (size_t j = i + 1; j < n_commands; j++) {
			bool is_same_noun = strcmp(command->noun, commands[j].noun) == 0;
			CU_ASSERT(!is_same_noun || (command->verb && commands[j].verb));
			CU_ASSERT(!is_same_noun || strcmp(command->verb, commands[j].verb) != 0);
			CU_ASSERT(!is_same_noun || strcmp(command->noun, commands[j - 1].noun) == 0);
		}
	}
}

int main(void)
{
	CU_initialize_registry();
	CU_pSuite suite = CU_add_suite("cli_call", NULL, NULL);
	CU_ADD_TEST(suite, test_arguments_and_options_are_found);
	CU_ADD_TEST(suite, test_options_stand_anywhere);
	CU_ADD_TEST(suite, test_wrong_usage_names_the_word);
	CU_ADD_TEST(suite, test_help_needs_nothing_else);
	CU_ADD_TEST(suite, test_json_is_known_however_wrong_the_line_is);
	CU_ADD_TEST(suite, test_names);
	CU_ADD_TEST(suite, test_keys_of_the_api_are_words_that_were_typed);
	CU_ADD_TEST(suite, test_the_table_is_in_order);
	CU_basic_run_tests();
	unsigned failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failures ? 1 : 0;
}
