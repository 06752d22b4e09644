/*
 * node_store.c: opens the metadata store that the configuration names: the embedded one in node.data_dir, or etcd.
 *
 * A node that had its own store and is told to use etcd would find none of its disks there: so it does not start before
 * that store has been imported, or put away.
 */
#include "daemon/node_store.h"

#include "daemon/control/control_socket.h"
#include "daemon/version.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int printf_like(3, 4) store_refuse(char why[static NODE_STORE_WHY_BYTES], int res, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(why, NODE_STORE_WHY_BYTES, format, args);
	va_end(args);
	return res;
}

int node_store_password(const char *path, char password[static STORE_PASSWORD_BYTES],
			char why[static NODE_STORE_WHY_BYTES])
{
	char reason[CONTROL_WHY_BYTES];
	char *text = control_file_read("metadata.password_file", path, reason);
	if (!text)
		return store_refuse(why, -EINVAL, "%s", reason);
	size_t len = strcspn(text, "\r\n");
	int res = 0;
	if (len == 0 || len >= STORE_PASSWORD_BYTES)
		res = store_refuse(why, -EINVAL,
				   "metadata.password_file: %s: its first line must have 1 to %u characters", path,
				   STORE_PASSWORD_BYTES - 1);
	else
		snprintf(password, STORE_PASSWORD_BYTES, "%.*s", (int)len, text);
	explicit_bzero(text, strlen(text));
	free(text);
	return res;
}

static const char *unless_empty(const char *text)
{
	return text[0] ? text : NULL;
}

int node_store_open_etcd(struct reactor *r, struct log *log, const struct config *config,
			 char why[static NODE_STORE_WHY_BYTES], struct metadata **out)
{
	char password[STORE_PASSWORD_BYTES] = "", reason[METADATA_WHY_BYTES] = "";
	struct metadata_etcd_options o = {.n_endpoints = config->metadata.n_endpoints,
					  .prefix = config->metadata.prefix,
					  .ca_file = unless_empty(config->metadata.ca_file),
					  .cert_file = unless_empty(config->metadata.cert_file),
					  .key_file = unless_empty(config->metadata.key_file),
					  .user = unless_empty(config->metadata.user)};
	for (uint32_t i = 0; i < o.n_endpoints; i++)
		o.endpoints[i] = config->metadata.endpoints[i];
	if (o.user) {
		int res = node_store_password(config->metadata.password_file, password, why);
		if (res < 0)
			return res;
		o.password = password;
	}
	int res = metadata_open_etcd(r, log, &o, reason, out);
	explicit_bzero(password, sizeof(password));
	return res < 0 ? store_refuse(why, res, "metadata.endpoints: %s", reason) : 0;
}

int node_store_open(struct reactor *r, struct log *log, const struct config *config,
		    char why[static NODE_STORE_WHY_BYTES], struct metadata **out)
{
	char path[CONFIG_TEXT_MAX + 16], reason[METADATA_WHY_BYTES] = "";
	snprintf(path, sizeof(path), "%s/metadata.db", config->node.data_dir);
	if (config->metadata.backend == CONFIG_ETCD && access(path, F_OK) == 0)
		return store_refuse(
		    why, -EEXIST,
		    "metadata.backend: %s is this node's embedded store, and etcd knows nothing of it: import it "
		    "(quarry cluster import-embedded), or move it away to begin with nothing",
		    path);
	if (config->metadata.backend == CONFIG_ETCD)
		return node_store_open_etcd(r, log, config, why, out);
	int res = metadata_open_embedded(r, log, path, reason, out);
	return res < 0 ? store_refuse(why, res, "%s", reason) : 0;
}

char *node_store_about(const struct config *config)
{
	char host[65] = "";
	json_t *labels = json_object();
	for (uint32_t i = 0; i < config->node.n_labels; i++)
		json_object_set_new(labels, config->node.labels[i].key, json_string(config->node.labels[i].value));
	gethostname(host, sizeof(host) - 1);
	json_t *about =
	    json_pack("{s:s,s:s,s:o,s:s,s:s,s:s}", "version", QUARRY_VERSION, "host", host, "labels", labels, "control",
		      config->control.listen, "nbd", config->nbd.listen, "peer", config->peer.listen);
	char *text = about ? json_dumps(about, JSON_COMPACT) : NULL;
	json_decref(about);
	return text;
}
