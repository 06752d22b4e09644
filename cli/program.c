/*
 * program.c: runs quarryd.
 *
 * It is looked for beside this program, in ../sbin, then in PATH.
 */
#include "cli/program.h"

#include "cli/call.h"
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

enum status program_begin(struct cli *c, char **arguments, int output_fd, struct program *p)
{
	auto_free char *program = daemon_path();
	posix_spawn_file_actions_t actions;
	p->said_fd = memfd_create("said", MFD_CLOEXEC);
	if (p->said_fd < 0)
		return cli_refuse(c, "local", "cannot keep what quarryd says: %s", strerror(errno));
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, p->said_fd, STDERR_FILENO);
	if (output_fd >= 0)
		posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
	fflush(stdout);
	arguments[0] = program;
	int error = posix_spawnp(&p->pid, program, &actions, NULL, arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (error) {
		close(p->said_fd);
		return cli_refuse(c, "local", "cannot run '%s', which does this: %s", program, strerror(error));
	}
	return DONE;
}

static char *program_said(const struct program *p)
{
	static const char name[] = "quarryd: ";
	char said[FAILURE_TEXT_BYTES];
	ssize_t n = pread(p->said_fd, said, sizeof(said) - 1, 0);
	said[n > 0 ? n : 0] = '\0';
	size_t skip = strncmp(said, name, strlen(name)) == 0 ? strlen(name) : 0;
	size_t end = strlen(said);
	while (end > skip && said[end - 1] == '\n')
		end--;
	said[end] = '\0';
	return text_printable(said + skip);
}

enum status program_end(struct cli *c, struct program *p, int *exit_status, char **said)
{
	int state = 0;
	pid_t pid;
	while ((pid = waitpid(p->pid, &state, 0)) < 0 && errno == EINTR)
		;
	*said = program_said(p);
	close(p->said_fd);
	if (pid < 0)
		return cli_refuse(c, "local", "cannot wait for quarryd: %s", strerror(errno));
	if (!WIFEXITED(state))
		return cli_refuse(c, "local", "quarryd ended by signal %d: %s", WTERMSIG(state), *said);
	*exit_status = WEXITSTATUS(state);
	return DONE;
}
