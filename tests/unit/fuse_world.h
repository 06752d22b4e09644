/*
 * fuse_world.h: a file of a FUSE server that stops answering, as another process hands it over.
 *
 * The server is a process of its own, with the file system in a mount of its own that nobody else sees; it speaks the
 * kernel's protocol itself. From the moment the file is open it reads requests and answers none.
 */
#pragma once

#include <sys/types.h>

struct fuse_world {
	pid_t server;
	char dir[32];
};
/* A descriptor of the file, or -1: this machine has no FUSE for us, and *why tells. */
int fuse_world_open(struct fuse_world *f, const char **why);
/* The server ends, and whoever waits for it goes on. */
void fuse_world_close(struct fuse_world *f);
