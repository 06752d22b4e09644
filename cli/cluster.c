/*
 * cluster.c: `quarry cluster import-embedded`: runs `quarryd --import-embedded`, since no daemon may run meanwhile.
 */
#include "cli/call.h"
#include "cli/handlers.h"
#include "cli/program.h"
#include "cli/text.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DEFAULT_CONFIG "/etc/quarry/quarry.conf"

/* What it says when it is done, as a value. */
static void message_print(struct cli *c, int fd)
{
	char text[FAILURE_TEXT_BYTES];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
	auto_free char *message = text_printable(text);
	json_auto_t *value = json_pack("{ss}", "message", message);
	(void)cli_print_json(c, value);
}

enum status cluster_import(struct cli *c)
{
	struct program p = {0};
	auto_free char *path =
	    text_format("%s", call_has(c->call, "config") ? call_text(c->call, "config") : DEFAULT_CONFIG);
	auto_free char *said = NULL;
	char *arguments[] = {NULL, "--config", path, "--import-embedded", NULL};
	int exit_status = 0, output_fd = c->is_json ? memfd_create("done", MFD_CLOEXEC) : -1;
	if (c->is_json && output_fd < 0)
		return cli_refuse(c, "local", "cannot keep what quarryd says: %s", strerror(errno));
	enum status status = program_begin(c, arguments, output_fd, &p);
	if (status == DONE)
		status = program_end(c, &p, &exit_status, &said);
	if (status == DONE && exit_status != 0)
		status = cli_refuse(c, "local", "%s", said);
	if (status == DONE && c->is_json)
		message_print(c, output_fd);
	if (output_fd >= 0)
		close(output_fd);
	return status;
}
