/*
 * disk_check.c: `quarry disk check PATH`: runs `quarryd --check-disk PATH`, so that the format is known in one place.
 *
 * Its findings come on its standard output. Its exit statuses 0 sound, 1 not, are ours; with the others nothing was
 * checked, and what it said on standard error is why we refuse.
 */
#include "cli/call.h"
#include "cli/handlers.h"
#include "cli/program.h"
#include "cli/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* quarryd's exit statuses (daemon/check_disk.h) */
#define CHECK_IN_USE     3
#define CHECK_NOT_OPENED 4

/* Begins the check; its standard output goes to output_fd, or to ours when that is negative. */
static enum status check_begin(struct cli *c, int output_fd, struct program *p)
{
	auto_free char *path = text_format("%s", call_text(c->call, "PATH"));
	char *arguments[] = {NULL, "--check-disk", path, NULL};
	return program_begin(c, arguments, output_fd, p);
}

/* Waits for its end; DONE when the disk was checked, whether it is sound or not. */
static enum status check_end(struct cli *c, struct program *p, bool *is_sound)
{
	auto_free char *said = NULL;
	int exit_status = 0;
	enum status status = program_end(c, p, &exit_status, &said);
	if (status != DONE)
		return status;
	switch (exit_status) {
	case DONE:
	case REFUSED:
		*is_sound = exit_status == DONE;
		if (*said)
			fprintf(stderr, "quarry: %s\n", said);
		return DONE;
	case CHECK_IN_USE:
		return cli_refuse(c, "in-use", "%s", said);
	case CHECK_NOT_OPENED:
		return cli_refuse(c, "local", "%s", said);
	default:
		return cli_refuse(c, "local", "the check ended with status %d: %s", exit_status, said);
	}
}

/* Every line of the output as a JSON array. */
static json_t *lines_read(int fd)
{
	json_t *lines = json_array();
	FILE *in = fdopen(fd, "r");
	char *line = NULL;
	size_t room = 0;
	if (!in || !lines)
		abort();
	while (getline(&line, &room, in) >= 0) {
		line[strcspn(line, "\n")] = '\0';
		auto_free char *printable = text_printable(line);
		json_array_append_new(lines, json_string(printable));
	}
	free(line);
	fclose(in);
	return lines;
}

static enum status check_json(struct cli *c)
{
	struct program p = {0};
	int pipe_fds[2];
	bool is_sound = false;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return cli_refuse(c, "local", "cannot make a pipe: %s", strerror(errno));
	enum status status = check_begin(c, pipe_fds[1], &p);
	close(pipe_fds[1]);
	if (status != DONE) {
		close(pipe_fds[0]);
		return status;
	}
	json_auto_t *lines = lines_read(pipe_fds[0]);
	status = check_end(c, &p, &is_sound);
	if (status != DONE)
		return status;
	auto_free char *path = text_printable(call_text(c->call, "PATH"));
	json_auto_t *value = json_pack("{sssbsO}", "path", path, "sound", is_sound, "lines", lines);
	(void)cli_print_json(c, value);
	return is_sound ? DONE : REFUSED;
}

enum status disk_check(struct cli *c)
{
	struct program p = {0};
	bool is_sound = false;
	if (c->is_json)
		return check_json(c);
	enum status status = check_begin(c, -1, &p);
	if (status == DONE)
		status = check_end(c, &p, &is_sound);
	if (status != DONE)
		return status;
	return is_sound ? DONE : REFUSED;
}
