/*
 * lock.h: one writer at a time in a repository.
 */
#pragma once

#include "cli/cli.h"

struct lock {
	int dir_fd; /* of the repository; not ours */
	bool is_held;
	char token[33]; /* random: tells our lock from one that took its place */
	uint64_t at_s;  /* when it was last said to be alive */
};

/* Takes the lock; one that its owner left behind is taken over. `path` is the repository's, for messages. */
must_check enum status lock_take(struct cli *c, struct lock *lock, int dir_fd, const char *path);
/* Still ours? Says again that we live, when the last time is long past. Before anything is taken away, and often. */
must_check enum status lock_check(struct cli *c, struct lock *lock, const char *path);
/* Does somebody write there now? */
must_check bool lock_is_taken(int dir_fd);
void lock_release(struct lock *lock);
