/*
 * workers.h: a few threads that compute and read or write files, beside the one that talks to NBD.
 */
#pragma once

#include "cli/backup/vault.h"

/* What each thread has for itself. */
struct worker {
	struct packer *packer;
	uint8_t *room; /* for a sealed chunk as it was read; grows */
	size_t room_bytes;
	int fd;        /* the pack that was read last; -1: none */
	uint32_t pack; /* its number */
};
void worker_begin(struct worker *w);
void worker_end(struct worker *w);
uint8_t *worker_room(struct worker *w, size_t n_bytes);

/* One piece of work; part of a larger struct, which belongs to the worker from submit to take. */
struct job {
	void (*work)(struct job *job, struct worker *w);
	struct job *next;
};

struct workers;
struct workers *workers_create(void);
/* All jobs must have been taken. */
void workers_destroy(struct workers *all);
void workers_submit(struct workers *all, struct job *job);
/* A job that is done; NULL: none at the moment. */
struct job *workers_take(struct workers *all);
/* Readable while a job may be done. */
int workers_fd(const struct workers *all);
/* Waits for a job that is done. */
struct job *workers_wait(struct workers *all);
