/*
 * disk_check.c: `quarry disk check PATH`: runs `quarryd --check-disk PATH`, so that the format is known in one place.
 *
 * The daemon's program is looked for beside this one, in ../sbin, then in PATH. Its findings come on its standard
 * output and its exit status is ours: 0 sound, 1 not, 2 a wrong path.
 */
#include "cli/call.h"
#include "cli/handlers.h"
#include "cli/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* The program's path, to be freed; its bare name when it must be looked for in PATH. */
static char *daemon_path(void)
{
	static const char *const places[] = {"quarryd", "../sbin/quarryd"};
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		self[n] = '\0';
		char *slash = strrchr(self, '/');
		quarry_assert(slash);
		slash[1] = '\0';
		for (size_t i = 0; i < array_size(places); i++) {
			char *path = text_format("%s%s", self, places[i]);
			if (access(path, X_OK) == 0)
				return path;
			free(path);
		}
	}
	return text_format("quarryd");
}

/* Begins the check; its standard output goes to output_fd, or to ours when that is negative. */
static enum status check_begin(struct cli *c, int output_fd, pid_t *pid)
{
	auto_free char *program = daemon_path();
	auto_free char *path = text_format("%s", call_text(c->call, "PATH"));
	char *argv[] = {program, "--check-disk", path, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	if (output_fd >= 0)
		posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
	fflush(stdout);
	int error = posix_spawnp(pid, program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (error)
		return cli_refuse(c, "local", "cannot run '%s', which does the check: %s", program, strerror(error));
	return DONE;
}

static enum status check_end(struct cli *c, pid_t pid, int *exit_status)
{
	int state = 0;
	while (waitpid(pid, &state, 0) < 0) {
		if (errno != EINTR)
			return cli_refuse(c, "local", "cannot wait for the check: %s", strerror(errno));
	}
	if (!WIFEXITED(state))
		return cli_refuse(c, "local", "the check ended by signal %d; what it had found is above",
				  WTERMSIG(state));
	*exit_status = WEXITSTATUS(state);
	return DONE;
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

/* With 1 and 2 the check has said on standard error what is wrong; nothing is added to it. */
static enum status check_result(struct cli *c, int exit_status)
{
	if (exit_status > WRONG_USAGE)
		return cli_refuse(c, "local", "the check ended with status %d", exit_status);
	return (enum status)exit_status;
}

static enum status check_json(struct cli *c)
{
	int pipe_fds[2], exit_status = 0;
	pid_t pid = 0;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return cli_refuse(c, "local", "cannot make a pipe: %s", strerror(errno));
	enum status status = check_begin(c, pipe_fds[1], &pid);
	close(pipe_fds[1]);
	if (status != DONE) {
		close(pipe_fds[0]);
		return status;
	}
	json_auto_t *lines = lines_read(pipe_fds[0]);
	status = check_end(c, pid, &exit_status);
	if (status != DONE)
		return status;
	auto_free char *path = text_printable(call_text(c->call, "PATH"));
	json_auto_t *value = json_pack("{sssbsO}", "path", path, "sound", exit_status == 0, "lines", lines);
	(void)cli_print_json(c, value);
	return check_result(c, exit_status);
}

enum status disk_check(struct cli *c)
{
	int exit_status = 0;
	pid_t pid = 0;
	if (c->is_json)
		return check_json(c);
	enum status status = check_begin(c, -1, &pid);
	if (status == DONE)
		status = check_end(c, pid, &exit_status);
	return status == DONE ? check_result(c, exit_status) : status;
}
