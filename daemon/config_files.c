/*
 * config_files.c: would the files and folders that the configuration names let a daemon start?
 *
 * Invariants
 *  1. Nothing is made or changed: a daemon may be running with this configuration.
 *  2. What a start would say of a file is said here by the same code, with the key's line in front of it.
 *  3. Whether an address is free, a disk is sound, or the store is this node's, is not looked at: only a start can tell.
 */
#include "daemon/config.h"

#include "daemon/control/control_socket.h"
#include "daemon/core/tls.h"
#include "daemon/node_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct look {
	const char *file;
	const struct config *config;
	struct config_report *report;
};

/* The text begins with the key, as every message about one does. */
static void printf_like(3, 4) look_error(struct look *l, const char *key, const char *format, ...)
{
	va_list args;
	char text[700], whole[1024];
	int line = config_line(l->config, key);
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (line > 0)
		snprintf(whole, sizeof(whole), "%s:%d: %s", l->file, line, text);
	else
		snprintf(whole, sizeof(whole), "%s: %s", l->file, text);
	l->report->n_errors++;
	l->report->say(l->report, whole);
}

/* ---- folders and sockets ---- */

/* Could files be made in this folder, or in the folders that would have to be made for it? 0 or -errno; path is cut to
 * what the answer is about. */
static int folder_fault(char *path)
{
	struct stat st;
	for (;;) {
		if (stat(path, &st) == 0) {
			if (!S_ISDIR(st.st_mode))
				return -ENOTDIR;
			return faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) < 0 ? -errno : 0;
		}
		char *slash = strrchr(path, '/');
		if ((errno != ENOENT && errno != ENOTDIR) || !slash || slash[1] == '\0')
			return -errno;
		slash[slash == path] = '\0'; /* the root keeps its slash */
	}
}

static void look_at_folder(struct look *l, const char *key, const char *folder)
{
	char part[CONFIG_TEXT_MAX];
	snprintf(part, sizeof(part), "%s", folder);
	for (size_t len = strlen(part); len > 1 && part[len - 1] == '/'; len--)
		part[len - 1] = '\0';
	int res = folder_fault(part);
	if (res < 0)
		look_error(l, key, "%s: no files can be made in the folder %s: %s: %s", key, folder, part,
			   strerror(-res));
}

static void look_at_socket(struct look *l, const char *key, const char *path)
{
	char folder[CONFIG_TEXT_MAX];
	struct stat st;
	if (path[0] == '\0')
		return;
	snprintf(folder, sizeof(folder), "%s", path);
	char *slash = strrchr(folder, '/');
	quarry_assert(slash); /* the path is absolute */
	slash[slash == folder] = '\0';
	look_at_folder(l, key, folder);
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		look_error(l, key, "%s: %s is there and is no socket", key, path);
}

/* ---- certificates, keys, tokens ---- */

static void look_at_nbd_tls(struct look *l)
{
	const struct config *c = l->config;
	const struct tls_server_files files = {
	    .group = "nbd", .cert_dir = c->nbd.cert_dir, .psk_file = c->nbd.psk_file};
	struct tls_credentials *credentials = NULL;
	char why[TLS_WHY_BYTES] = "nbd.tls: no memory";
	if (c->nbd.tls == CONFIG_TLS_OFF)
		return;
	if (tls_load_server(&files, why, &credentials) < 0)
		look_error(l,
			   strncmp(why, "nbd.psk_file", strlen("nbd.psk_file")) == 0 ? "nbd.psk_file" : "nbd.cert_dir",
			   "%s", why);
	tls_unload(credentials);
}

static void look_at_control(struct look *l)
{
	static const char *const names[] = {"server-cert.pem", "server-key.pem"};
	const struct config *c = l->config;
	char token[CONTROL_TOKEN_MAX], why[CONTROL_WHY_BYTES], path[CONFIG_TEXT_MAX + 32];
	if (c->control.listen[0] == '\0')
		return;
	if (control_token_read(c->control.token_file, token, why) < 0)
		look_error(l, "control.token_file", "%s", why);
	explicit_bzero(token, sizeof(token));
	for (size_t i = 0; c->control.tls != CONFIG_TLS_OFF && i < array_size(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", c->control.cert_dir, names[i]);
		char *text = control_file_read("control.cert_dir", path, why);
		if (!text)
			look_error(l, "control.cert_dir", "%s", why);
		else
			explicit_bzero(text, strlen(text));
		free(text);
	}
}

/* Whether etcd takes them, only a start can tell. */
static void look_at_metadata(struct look *l)
{
	const struct config *c = l->config;
	const char *const files[][2] = {{"metadata.ca_file", c->metadata.ca_file},
					{"metadata.cert_file", c->metadata.cert_file},
					{"metadata.key_file", c->metadata.key_file}};
	char why[NODE_STORE_WHY_BYTES], password[STORE_PASSWORD_BYTES];
	for (size_t i = 0; i < array_size(files); i++) {
		char reason[CONTROL_WHY_BYTES];
		char *text = files[i][1][0] ? control_file_read(files[i][0], files[i][1], reason) : NULL;
		if (files[i][1][0] && !text)
			look_error(l, files[i][0], "%s", reason);
		else if (text)
			explicit_bzero(text, strlen(text));
		free(text);
	}
	if (c->metadata.user[0] && node_store_password(c->metadata.password_file, password, why) < 0)
		look_error(l, "metadata.password_file", "%s", why);
	explicit_bzero(password, sizeof(password));
}

static void look_at_peer(struct look *l)
{
	const struct config *c = l->config;
	struct tls_credentials *credentials = NULL;
	char why[TLS_WHY_BYTES] = "peer.key_file: no memory";
	if (c->peer.key_file[0] && tls_load_peer(c->peer.key_file, why, &credentials) < 0)
		look_error(l, "peer.key_file", "%s", why);
	tls_unload(credentials);
}

int config_check_files(const char *file, const struct config *config, struct config_report *report)
{
	struct look l = {.file = file, .config = config, .report = report};
	look_at_folder(&l, "node.data_dir", config->node.data_dir);
	look_at_socket(&l, "control.socket", config->control.socket);
	look_at_socket(&l, "nbd.socket", config->nbd.socket);
	look_at_folder(&l, "vhost.dir", config->vhost.dir);
	look_at_nbd_tls(&l);
	look_at_control(&l);
	look_at_metadata(&l);
	look_at_peer(&l);
	return report->n_errors > 0 ? -EINVAL : 0;
}
