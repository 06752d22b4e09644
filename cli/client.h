/*
 * client.h: requests to the daemon's control API, over its unix socket or over TCP.
 */
#pragma once

#include "cli/cli.h"

struct client;

struct request {
	const char *method;
	const char *path;     /* with query; names in it are encoded (api_path()) */
	const json_t *body;   /* NULL: none */
	unsigned timeout_s;   /* 0: the usual one; the answer to what takes long may come much later */
	const char *progress; /* shown with the time on a terminal while the answer is awaited; NULL: nothing */
	/* How far it is, for behind that; to be freed, NULL: not known. May ask the daemon, with a c of its own. NULL: that
	 * is not told. */
	char *(*how_far)(struct cli *c, const struct request *request);
};
#define TIMEOUT_NEVER_S 0xffffffffu

/* Sends the request and hands out the answer, a JSON object (*out may be NULL: it is not wanted). Makes c->client when
 * it is the first one. Otherwise REFUSED, with the daemon's own words or what is wrong with the way to it. */
must_check enum status client_call(struct cli *c, const struct request *request, json_t **out);
/* As client_call() with a method and path alone. */
must_check enum status client_get(struct cli *c, const char *path, json_t **out);
/* Gets it again and again, and shows how far it is, until going_on() has no text, to be freed, any more; *answer is the
 * newest one, and at the beginning the first. */
must_check enum status client_watch(struct cli *c, const char *path,
				    char *(*going_on)(const json_t *answer, const void *context), const void *context,
				    json_t **answer);
/* prefix + the percent-encoded name + suffix; to be freed. */
char *api_path(const char *prefix, const char *name, const char *suffix);
/* Is the daemon reached over the network (--server)? */
bool client_is_remote(const struct cli *c);
char *client_host(const struct cli *c); /* by which it is reached then, "[::1]" with its brackets; to be freed */
void client_destroy(struct client *client);
