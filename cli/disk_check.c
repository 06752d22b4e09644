/*
 * disk_check.c: `quarry disk check PATH`: runs `quarryd --check-disk PATH`, so that the format is known in one place.
 *
 * The daemon's program is looked for beside this one, in ../sbin, then in PATH. Its findings come on its standard
 * output. Its exit statuses 0 sound, 1 not, are ours; with the others nothing was checked, and what it said on standard
 * error is why we refuse.
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
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* quarryd's exit statuses (daemon/check_disk.h) */
#define CHECK_IN_USE     3
#define CHECK_NOT_OPENED 4

struct check {
	pid_t pid;
	int said_fd; /* what it says on standard error */
};

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
static enum status check_begin(struct cli *c, int output_fd, struct check *k)
{
	auto_free char *program = daemon_path();
	auto_free char *path = text_format("%s", call_text(c->call, "PATH"));
	char *argv[] = {program, "--check-disk", path, NULL};
	posix_spawn_file_actions_t actions;
	k->said_fd = memfd_create("said", MFD_CLOEXEC);
	if (k->said_fd < 0)
		return cli_refuse(c, "local", "cannot keep what the check says: %s", strerror(errno));
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, k->said_fd, STDERR_FILENO);
	if (output_fd >= 0)
		posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
	fflush(stdout);
	int error = posix_spawnp(&k->pid, program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (error) {
		close(k->said_fd);
		return cli_refuse(c, "local", "cannot run '%s', which does the check: %s", program, strerror(error));
	}
	return DONE;
}

/* What it said on standard error, without its name; to be freed. */
static char *check_said(const struct check *k)
{
	static const char name[] = "quarryd: ";
	char said[FAILURE_TEXT_BYTES];
	ssize_t n = pread(k->said_fd, said, sizeof(said) - 1, 0);
	said[n > 0 ? n : 0] = '\0';
	size_t skip = strncmp(said, name, strlen(name)) == 0 ? strlen(name) : 0;
	size_t end = strlen(said);
	while (end > skip && said[end - 1] == '\n')
		end--;
	said[end] = '\0';
	return text_printable(said + skip);
}

/* Waits for its end; DONE when the disk was checked, whether it is sound or not. */
static enum status check_end(struct cli *c, struct check *k, bool *is_sound)
{
	int state = 0;
	pid_t pid;
	while ((pid = waitpid(k->pid, &state, 0)) < 0 && errno == EINTR)
		;
	auto_free char *said = check_said(k);
	close(k->said_fd);
	if (pid < 0)
		return cli_refuse(c, "local", "cannot wait for the check: %s", strerror(errno));
	if (!WIFEXITED(state))
		return cli_refuse(c, "local", "the check ended by signal %d: %s", WTERMSIG(state), said);
	switch (WEXITSTATUS(state)) {
	case DONE:
	case REFUSED:
		*is_sound = WEXITSTATUS(state) == DONE;
		if (*said)
			fprintf(stderr, "quarry: %s\n", said);
		return DONE;
	case CHECK_IN_USE:
		return cli_refuse(c, "in-use", "%s", said);
	case CHECK_NOT_OPENED:
		return cli_refuse(c, "local", "%s", said);
	default:
		return cli_refuse(c, "local", "the check ended with status %d: %s", WEXITSTATUS(state), said);
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
	struct check k = {0};
	int pipe_fds[2];
	bool is_sound = false;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return cli_refuse(c, "local", "cannot make a pipe: %s", strerror(errno));
	enum status status = check_begin(c, pipe_fds[1], &k);
	close(pipe_fds[1]);
	if (status != DONE) {
		close(pipe_fds[0]);
		return status;
	}
	json_auto_t *lines = lines_read(pipe_fds[0]);
	status = check_end(c, &k, &is_sound);
	if (status != DONE)
		return status;
	auto_free char *path = text_printable(call_text(c->call, "PATH"));
	json_auto_t *value = json_pack("{sssbsO}", "path", path, "sound", is_sound, "lines", lines);
	(void)cli_print_json(c, value);
	return is_sound ? DONE : REFUSED;
}

enum status disk_check(struct cli *c)
{
	struct check k = {0};
	bool is_sound = false;
	if (c->is_json)
		return check_json(c);
	enum status status = check_begin(c, -1, &k);
	if (status == DONE)
		status = check_end(c, &k, &is_sound);
	if (status != DONE)
		return status;
	return is_sound ? DONE : REFUSED;
}
