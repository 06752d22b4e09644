/*
 * fuzz_config.c: any bytes as a configuration file. Whatever they are, the parser says at least one error or accepts
 * values that hold what config.h promises.
 */
#include "daemon/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libconfig's scanner loses the text it was reading when the syntax breaks; quarryd ends after that. */
const char *__lsan_default_suppressions(void)
{
	return "leak:libconfig.so";
}

static void say_nothing(struct config_report *report, const char *line)
{
	quarry_assert(report->n_errors > 0 || report->n_warnings > 0);
	quarry_assert(strncmp(line, "fuzz:", 5) == 0);
}

static void check_accepted(const struct config *c)
{
	quarry_assert(c->node.name[0] != '\0' && c->node.data_dir[0] == '/');
	quarry_assert(c->node.cache_mb >= 16 && c->node.cache_mb <= 1 << 20);
	quarry_assert(c->node.n_labels <= CONFIG_LABELS_MAX);
	quarry_assert(c->nbd.max_connections >= 1 && c->nbd.max_connections <= 65535);
	quarry_assert(c->metadata.backend == CONFIG_EMBEDDED && c->peer.listen[0] == '\0');
	quarry_assert(c->control.listen[0] == '\0' || c->control.token_file[0] == '/');
	quarry_assert(c->log.level <= LOG_DEBUG);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config config;
	struct config_report report = {.say = say_nothing};
	if (size > CONFIG_FILE_BYTES_MAX)
		return 0;
	char *text = calloc(1, size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	int res = config_parse("fuzz", text, &config, &report);
	quarry_assert((res == 0) == (report.n_errors == 0));
	if (res == 0)
		check_accepted(&config);
	free(text);
	return 0;
}
