/*
 * node_store.h: the metadata store that the configuration names, and what a node tells the others of itself.
 */
#pragma once

#include "daemon/config.h"
#include "daemon/metadata/metadata.h"

#define NODE_STORE_WHY_BYTES 400

/* 0; -EHOSTUNREACH: etcd cannot be reached now; or -errno: it will not do without something being changed; with a
 * sentence in why. Blocks, at most for some seconds. */
must_check int node_store_open(struct reactor *r, struct log *log, const struct config *config,
			       char why[static NODE_STORE_WHY_BYTES], struct metadata **out);
/* The one in etcd, whatever else the node has. */
must_check int node_store_open_etcd(struct reactor *r, struct log *log, const struct config *config,
				    char why[static NODE_STORE_WHY_BYTES], struct metadata **out);
/* JSON for the node's record; NULL: no memory. */
char *node_store_about(const struct config *config);

#define STORE_PASSWORD_BYTES 256u
/* The first line of metadata.password_file. 0, or -EINVAL with why, which begins with the key. */
must_check int node_store_password(const char *path, char password[static STORE_PASSWORD_BYTES],
				   char why[static NODE_STORE_WHY_BYTES]);
