/*
 * files.h: whole files: written under another name, made durable, then given theirs; read whole, up to a limit.
 */
#pragma once

#include "cli/cli.h"

#define TEMPORARY_PREFIX "tmp-"

/* 0 or -errno. Afterwards the file is there with all of it, also after a crash, or nothing is. */
must_check int file_write(int dir_fd, const char *name, const void *data, size_t n_bytes);
/* A regular file, for reading: its descriptor, or -errno; -EISDIR: it is something else, which is not waited for. */
must_check int file_open(int dir_fd, const char *name);
/* Nothing has that name, not even a link that leads nowhere. */
must_check bool file_is_gone(int dir_fd, const char *name);
/* 0 and the file's bytes, to be freed; -errno; -EFBIG: longer than max_bytes, -EISDIR: no regular file. */
must_check int file_read(int dir_fd, const char *name, size_t max_bytes, uint8_t **data, size_t *n_bytes);
/* The part of an open file that begins at pos_bytes: 0; -EBADMSG: the file is shorter. */
must_check int file_read_at(int fd, void *data, size_t n_bytes, uint64_t pos_bytes);
/* Makes what happened to a directory durable, where its file system can. 0 or -errno. */
must_check int dir_sync(int dir_fd);
/* Removes a file; one that is not there is as good. 0 or -errno. Not durable before dir_sync(). */
must_check int file_remove(int dir_fd, const char *name);

/* The names in a directory, sorted. */
struct names {
	char **list;
	size_t n;
};
must_check int names_read(int dir_fd, struct names *names);
void names_free(struct names *names);

/* n bytes as 2n hexadecimal digits and the end. */
void hex_write(char *out, const uint8_t *bytes, size_t n);
/* Exactly 2n small digits; false: it is something else. */
bool hex_read(uint8_t *out, size_t n, const char *text);
