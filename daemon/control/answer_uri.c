/*
 * answer_uri.c: the NBD URIs by which clients reach what is attached.
 *
 *  1. Every URI is one that a client can use as it stands: nbds:// only where clients must use TLS, since a client without
 *     a certificate or key can use what offers it; and no address that is only good to listen on.
 *  2. The first is the nearest to who asks.
 *
 * Plain functions; nothing is owned.
 */
#include "daemon/control/answer_internal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A path inside a URI: what may not stand there is percent-encoded. */
static void uri_encode(const char *text, char *out, size_t out_bytes)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
	size_t n = 0;
	for (const char *at = text; *at && n + 4 <= out_bytes; at++) {
		if (strchr(plain, *at))
			out[n++] = *at;
		else
			n += (size_t)snprintf(out + n, out_bytes - n, "%%%02X", (unsigned char)*at);
	}
	out[n] = '\0';
}

static const char *scheme(const struct config *config)
{
	return config->nbd.tls == CONFIG_TLS_REQUIRE ? "nbds" : "nbd";
}

static void add_socket_uri(json_t *uris, const struct config *config, const char *name)
{
	char path[3 * CONFIG_SOCKET_MAX], uri[3 * CONFIG_SOCKET_MAX + SET_TEXT_MAX + 64];
	if (!config->nbd.socket[0])
		return;
	uri_encode(config->nbd.socket, path, sizeof(path));
	snprintf(uri, sizeof(uri), "%s+unix:///%s?socket=%s", scheme(config), name, path);
	json_array_append_new(uris, json_string(uri));
}

/* A host by which this machine is reached, as it stands in a URI: one that the configuration names, else its own name. */
static void host_of_machine(const struct config *config, char host[static CONFIG_TEXT_MAX])
{
	const char *const known[] = {config->peer.listen, config->control.listen};
	for (size_t i = 0; i < array_size(known); i++) {
		if (!known[i][0] || config_address_is_any(known[i]) || config_address_is_loopback(known[i]))
			continue;
		snprintf(host, CONFIG_TEXT_MAX, "%.*s", (int)(strrchr(known[i], ':') - known[i]), known[i]);
		return;
	}
	memset(host, 0, CONFIG_TEXT_MAX);
	if (gethostname(host, CONFIG_TEXT_MAX - 1) < 0 || !host[0])
		snprintf(host, CONFIG_TEXT_MAX, "localhost");
}

static void add_tcp_uri(json_t *uris, const struct config *config, const char *name)
{
	const char *listen = config->nbd.listen;
	char host[CONFIG_TEXT_MAX], uri[2 * CONFIG_TEXT_MAX + SET_TEXT_MAX + 64];
	if (!listen[0])
		return;
	if (config_address_is_any(listen))
		host_of_machine(config, host);
	else
		snprintf(host, sizeof(host), "%.*s", (int)(strrchr(listen, ':') - listen), listen);
	snprintf(uri, sizeof(uri), "%s://%s%s/%s", scheme(config), host, strrchr(listen, ':'), name);
	json_array_append_new(uris, json_string(uri));
}

json_t *nbd_uris_json(const struct answer_context *c, const char *name)
{
	json_t *uris = json_array();
	if (c->is_from_afar)
		add_tcp_uri(uris, c->config, name);
	add_socket_uri(uris, c->config, name);
	if (!c->is_from_afar)
		add_tcp_uri(uris, c->config, name);
	return uris;
}
